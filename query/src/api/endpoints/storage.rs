//! `storage`: the blocks of a tenant, its head, and how long things are kept. Hearth's own.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use crate::api::admission::call::Call;
use crate::api::error::ApiError;
use crate::api::response;
use crate::api::run::QueryClass;
use crate::api::state::{ApiState, Stored};

/// `GET /api/v1/storage`: what this process knows of the tenant's blocks and of its own head; nothing is read
/// from the object store.
pub async fn storage(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    let inner = state.0.clone();
    state
        .run(QueryClass::Lookup, None, move |_, _| {
            let stored = inner.config.storage.stored(&call.tenant);
            Ok(answer(&stored, &inner.config.process.retention))
        })
        .await
}

fn answer(stored: &Stored, retention: &BTreeMap<String, String>) -> Response {
    let blocks: Vec<_> = stored
        .blocks
        .iter()
        .map(|b| {
            json!({
                "ulid": b.ulid,
                "minTime": b.min_t_ms,
                "maxTime": b.max_t_ms,
                "resolutionMs": b.resolution_ms,
                "level": b.level,
                "series": b.series,
                "samples": b.samples,
                "bytes": b.bytes,
                "writer": b.writer,
                "approximate": b.approximate,
            })
        })
        .collect();
    let head = stored.head.map(
        |h| json!({ "series": h.series, "minTime": h.min_t_ms, "maxTime": h.max_t_ms, "bytes": h.bytes }),
    );
    response::small(&json!({
        "blocks": blocks,
        "head": head,
        "retention": retention,
    }))
}
