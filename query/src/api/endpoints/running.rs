//! `queries`: what is being worked on, what ended lately, and a way to call a query off. Hearth's own.

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;

use crate::api::active_queries::ActiveQuery;
use crate::api::admission::call::Call;
use crate::api::error::{ApiError, ErrorType};
use crate::api::parameters::values::rfc3339;
use crate::api::response;
use crate::api::running::Query;
use crate::api::state::ApiState;
use crate::engine::QueryTime;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    id: String,
    request_id: &'a str,
    query: &'a str,
    endpoint: &'a str,
    /// As the header names them: `a`, `a|b` or `*`.
    tenant: String,
    started: String,
    seconds: f64,
    samples_read: u64,
    /// Most that it held at once.
    bytes: u64,
    held_bytes: u64,
    state: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
    start: f64,
    end: f64,
    step: f64,
}

fn row<'a>(q: &'a Query, state: &'a str, seconds: f64, error: &'a str) -> Row<'a> {
    let (start, end, step) = match q.time {
        QueryTime::Instant { time_ms } => (time_ms, time_ms, 0),
        QueryTime::Range { start_ms, end_ms, step_ms } => (start_ms, end_ms, step_ms),
    };
    let (samples_read, bytes) = q.figures();
    Row {
        id: q.number.to_string(),
        request_id: &q.request_id,
        query: &q.text,
        endpoint: q.endpoint,
        tenant: q.tenants.to_string(),
        started: rfc3339(q.arrived_ms),
        seconds,
        samples_read,
        bytes,
        held_bytes: q.bytes_held(),
        state,
        error,
        start: start as f64 / 1e3,
        end: end as f64 / 1e3,
        step: step as f64 / 1e3,
    }
}

/// A query that a process was at when it crashed.
#[derive(Serialize)]
struct Unfinished<'a> {
    query: &'a str,
    endpoint: &'a str,
    tenant: &'a str,
    started: String,
    start: f64,
    end: f64,
    step: f64,
}

impl<'a> Unfinished<'a> {
    fn new(q: &'a ActiveQuery) -> Unfinished<'a> {
        Unfinished {
            query: &q.query,
            endpoint: &q.endpoint,
            tenant: &q.tenant,
            started: rfc3339(q.started_ms),
            start: q.start_ms as f64 / 1e3,
            end: q.end_ms as f64 / 1e3,
            step: q.step_ms as f64 / 1e3,
        }
    }
}

/// `GET /api/v1/queries`, `GET /api/v1/status/queries`: those that are about none but the caller's tenants.
pub async fn list(State(state): State<ApiState>, call: Call) -> Response {
    #[derive(Serialize)]
    struct Answer<'a> {
        running: Vec<Row<'a>>,
        recent: Vec<Row<'a>>,
        /// Of the process before, which ended without ending them.
        unfinished: Vec<Unfinished<'a>>,
    }
    let (running, recent) = state.0.running.of(&call.tenants);
    response::small(&Answer {
        running: running.iter().map(|q| row(q, q.state().name(), q.elapsed().as_secs_f64(), "")).collect(),
        recent: recent
            .iter()
            .map(|e| row(&e.query, e.state.name(), e.took.as_secs_f64(), &e.error))
            .collect(),
        unfinished: state.0.running.unfinished(&call.tenants).into_iter().map(Unfinished::new).collect(),
    })
}

/// `DELETE /api/v1/queries/{id}`: the query ends at its next look at its budget, within milliseconds, and its
/// client gets `canceled`.
pub async fn cancel(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let cancelled = id.parse().is_ok_and(|number| state.0.running.cancel(&call.tenants, number));
    if !cancelled {
        let why = format!("no query {} is running: it may have ended", model::quote::quote(&*id));
        return Err(ApiError::new(ErrorType::NotFound, why));
    }
    Ok(response::small("cancelled"))
}
