//! `storage/cardinality`: what all blocks of a tenant cost, by metric and label, over all of history.
//! Hearth's own.

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use crate::api::admission::call::Call;
use crate::api::error::{ApiError, ErrorType};
use crate::api::parameters::values::parse_int;
use crate::api::response;
use crate::api::run::QueryClass;
use crate::api::state::ApiState;
use crate::api::upkeep::{CostOrder, Counted, StoredCardinality};

/// Length of each list, where the request does not say.
const USUAL_LIMIT: usize = 15;
const MOST: i64 = 1000;

/// `GET /api/v1/storage/cardinality?limit=…&by=bytes|series`: what was counted last, and whether a count is
/// under way: it reads every block's labels, so nobody waits for it. Ask again until `counting` is null.
pub async fn stored_cardinality(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    let limit = match call.form.get("limit") {
        "" => USUAL_LIMIT,
        text => match parse_int(text) {
            Ok(limit) if (1..=MOST).contains(&limit) => limit as usize,
            _ => return Err(ApiError::bad_data(format!("limit must be a number from 1 to {MOST}"))),
        },
    };
    let by = match call.form.get("by") {
        "" | "bytes" => CostOrder::Bytes,
        "series" => CostOrder::Series,
        other => return Err(ApiError::bad_data(format!("by is bytes or series, not {other:?}"))),
    };
    let inner = state.0.clone();
    state
        .run(call.work(QueryClass::Lookup), None, move |_, _| {
            match inner.config.storage.stored_cardinality(&call.tenant, limit, by) {
                Some(stored) => Ok(answer(&stored)),
                None => Err(ApiError::new(ErrorType::NotFound, "this process does not count its blocks")),
            }
        })
        .await
}

fn answer(stored: &StoredCardinality) -> Response {
    response::small(&json!({
        "counting": stored.counting.map(|(done, of)| json!({ "blocks": done, "ofBlocks": of })),
        "error": stored.error,
        "counted": stored.counted.as_ref().map(counted),
    }))
}

fn counted(of: &Counted) -> serde_json::Value {
    json!({
        "at": of.at_ms,
        "blocks": of.blocks,
        "ofBlocks": of.of_blocks,
        "series": of.series,
        "samples": of.samples,
        "bytes": of.bytes,
        "metrics": of.metrics,
        "labels": of.labels,
    })
}
