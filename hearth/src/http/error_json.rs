//! Refusals as Prometheus' API words them.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// The body.
pub fn error_json(kind: &str, text: &str) -> serde_json::Value {
    serde_json::json!({ "status": "error", "errorType": kind, "error": text })
}

/// The whole answer.
pub fn json_error(status: StatusCode, kind: &str, text: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], error_json(kind, text).to_string()).into_response()
}
