//! `storage`: the blocks of a tenant, its head, how long things are kept, what is hidden and what is wrong.
//! Hearth's own.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use crate::api::admission::call::Call;
use crate::api::error::ApiError;
use crate::api::response;
use crate::api::run::QueryClass;
use crate::api::state::{ApiState, Stored};
use crate::api::upkeep::{BlockTotals, Upkeep};

/// `GET /api/v1/storage?blocks=false`: what this process knows of the tenant's blocks and of its own head;
/// nothing is read from the object store. Without the list of blocks it is small whatever there is.
pub async fn storage(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    let inner = state.0.clone();
    state
        .run(call.work(QueryClass::Lookup), None, move |_, _| {
            let mut stored = inner.config.storage.stored(&call.tenant);
            match call.form.get("blocks") {
                "" | "true" | "1" => {}
                "false" | "0" => stored.blocks.clear(),
                other => return Err(ApiError::bad_data(format!("blocks is true or false, not {other:?}"))),
            }
            let upkeep = inner.config.storage.upkeep(&call.tenant);
            Ok(answer(&stored, &upkeep, &(inner.config.retention)(&call.tenant)))
        })
        .await
}

fn answer(stored: &Stored, upkeep: &Upkeep, retention: &BTreeMap<String, String>) -> Response {
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
    let deletions: Vec<_> = upkeep
        .deletions
        .iter()
        .map(|d| {
            json!({
                "selector": d.selector,
                "minTime": d.min_t_ms,
                "maxTime": d.max_t_ms,
                "created": d.created_ms,
            })
        })
        .collect();
    let damaged: Vec<_> = upkeep
        .damaged
        .iter()
        .map(|d| json!({ "ulid": d.ulid, "reason": d.reason, "since": d.since_ms }))
        .collect();
    response::small(&json!({
        "blocks": blocks,
        "head": head,
        "retention": retention,
        "local": totals(&upkeep.local),
        "expired": totals(&upkeep.expired),
        "deletions": deletions,
        "damaged": damaged,
        "catalog": {
            "read": upkeep.catalog_read_ms,
            "error": upkeep.catalog_error,
        },
        "compacts": upkeep.compacts,
        "troubles": upkeep.troubles,
    }))
}

fn totals(of: &BlockTotals) -> serde_json::Value {
    json!({
        "blocks": of.blocks,
        "samples": of.samples,
        "bytes": of.bytes,
        "minTime": of.span_ms.map(|(from, _)| from),
        "maxTime": of.span_ms.map(|(_, to)| to),
    })
}
