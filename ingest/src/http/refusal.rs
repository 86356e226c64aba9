//! Answers to requests of which nothing was stored, or not all: Prometheus' error body, and what a sender
//! should do next.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::tenant_limits::Limit;
use tsdb::db::WriteError;

use crate::memory::{NoMemory, RETRY_AFTER_SECONDS};
use crate::rate::TooFast;
use crate::remote_write::DecodeError;

/// A request that was not stored, or not all of it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: String,
    /// The body did not come in time: what is left of it would be read as the next request.
    pub(super) gave_up: bool,
    /// When a sender should come again, where the answer asks it to.
    pub(super) retry_after_s: u32,
    /// The limit of the tenant that the request ran into as a whole.
    pub(super) limit: Option<Limit>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Refusal {
            status,
            reason: reason.into(),
            gave_up: false,
            retry_after_s: RETRY_AFTER_SECONDS,
            limit: None,
        }
    }

    pub(super) fn bad(reason: impl Into<String>) -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, reason)
    }

    fn error_type(&self) -> &'static str {
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => "unavailable",
            s if s.is_server_error() => "internal",
            _ => "bad_data",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        // By hand, to keep the order in which upstream writes the fields.
        let reason = serde_json::Value::from(self.reason.as_str());
        let body = format!(r#"{{"status":"error","errorType":"{}","error":{reason}}}"#, self.error_type());
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, self.retry_after_s.into());
        }
        if self.gave_up {
            response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        response
    }
}

/// What passes is a 503, overload too: all senders come again after a 5xx, and most throw a batch away after
/// a 429.
impl From<WriteError> for Refusal {
    fn from(e: WriteError) -> Self {
        match e {
            WriteError::TooLarge(reason) => Refusal::bad(reason),
            WriteError::Unavailable(reason) | WriteError::Overloaded(reason) => {
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason)
            }
        }
    }
}

/// A 503 and no 429 for the reason above: Prometheus throws away what a 429 answers, unless it is told to try
/// again (`retry_on_http_429`), and who sends too much for a minute should lose nothing.
impl From<TooFast> for Refusal {
    fn from(e: TooFast) -> Self {
        let retry_after_s = e.retry_after_s;
        Refusal { retry_after_s, ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, e.to_string()) }
    }
}

impl From<NoMemory> for Refusal {
    fn from(e: NoMemory) -> Self {
        let status = match e {
            NoMemory::TooMuch { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            NoMemory::Taken { .. } | NoMemory::Head(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refusal::new(status, e.to_string())
    }
}

impl From<DecodeError> for Refusal {
    fn from(e: DecodeError) -> Self {
        match e {
            DecodeError::Malformed(e) => Refusal::bad(e.to_string()),
            DecodeError::NoMemory(e) => e.into(),
        }
    }
}
