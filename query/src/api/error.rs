//! The API's errors: upstream's types, their status codes, and the envelope they travel in.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::quote::quote;

use crate::api::json;

/// Upstream's `errorType`s (`web/api/v1/api.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorType {
    Timeout,
    Canceled,
    Execution,
    BadData,
    Internal,
    Unavailable,
    NotFound,
    NotAcceptable,
    /// The tenant has too many waiting already; Mimir's word.
    TooManyRequests,
}

impl ErrorType {
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorType::Timeout => "timeout",
            ErrorType::Canceled => "canceled",
            ErrorType::Execution => "execution",
            ErrorType::BadData => "bad_data",
            ErrorType::Internal => "internal",
            ErrorType::Unavailable => "unavailable",
            ErrorType::NotFound => "not_found",
            ErrorType::NotAcceptable => "not_acceptable",
            ErrorType::TooManyRequests => "too_many_requests",
        }
    }

    /// 499 is nginx' "client closed request", which upstream borrowed.
    pub fn status(self) -> StatusCode {
        match self {
            ErrorType::Timeout => StatusCode::SERVICE_UNAVAILABLE,
            ErrorType::Canceled => StatusCode::from_u16(499).expect("a three-digit code"),
            ErrorType::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorType::BadData => StatusCode::BAD_REQUEST,
            ErrorType::Internal | ErrorType::Unavailable => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorType::NotFound => StatusCode::NOT_FOUND,
            ErrorType::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            ErrorType::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

/// An error as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {text}", kind.as_str())]
pub struct ApiError {
    pub kind: ErrorType,
    pub text: String,
    /// Set where HTTP has a better code than the type's own: 405, 413.
    pub status: Option<StatusCode>,
}

impl ApiError {
    pub fn new(kind: ErrorType, text: impl Into<String>) -> ApiError {
        ApiError { kind, text: text.into(), status: None }
    }

    pub fn bad_data(text: impl Into<String>) -> ApiError {
        ApiError::new(ErrorType::BadData, text)
    }

    /// `invalid parameter "name": why`.
    pub fn parameter(name: &str, why: impl std::fmt::Display) -> ApiError {
        ApiError::bad_data(format!("invalid parameter {}: {why}", quote(name)))
    }

    pub fn with_status(mut self, status: StatusCode) -> ApiError {
        self.status = Some(status);
        self
    }

    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or(self.kind.status())
    }

    /// `{"status":"error","errorType":…,"error":…}`
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.text.len());
        out.extend_from_slice(br#"{"status":"error","errorType":""#);
        out.extend_from_slice(self.kind.as_str().as_bytes());
        out.extend_from_slice(br#"","error":"#);
        json::html_string(&mut out, &self.text);
        out.push(b'}');
        out
    }
}

/// What storage says, with the words upstream's engine puts around it.
impl From<model::source::SourceError> for ApiError {
    fn from(e: model::source::SourceError) -> ApiError {
        use model::source::SourceError::*;
        let kind = match &e {
            Canceled => ErrorType::Canceled,
            TimedOut => ErrorType::Timeout,
            Limit(_) => ErrorType::Execution,
            Storage(_) => ErrorType::Internal,
        };
        ApiError::new(kind, e.to_string())
    }
}

/// An error as plain text, which is what upstream answers where it has no envelope: federation, remote read,
/// paths and methods it does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainError {
    pub status: StatusCode,
    pub text: String,
    pub kind: ErrorType,
}

impl PlainError {
    pub fn bad_request(text: impl Into<String>) -> PlainError {
        PlainError { status: StatusCode::BAD_REQUEST, text: text.into(), kind: ErrorType::BadData }
    }

    pub fn not_found() -> PlainError {
        PlainError {
            status: StatusCode::NOT_FOUND,
            text: "404 page not found".into(),
            kind: ErrorType::NotFound,
        }
    }

    pub fn wrong_method() -> PlainError {
        PlainError {
            status: StatusCode::METHOD_NOT_ALLOWED,
            text: "Method Not Allowed".into(),
            kind: ErrorType::BadData,
        }
    }
}

impl From<ApiError> for PlainError {
    fn from(e: ApiError) -> PlainError {
        let status = e.status();
        PlainError { status, text: e.text, kind: e.kind }
    }
}

impl IntoResponse for PlainError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.text + "\n"));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response.extensions_mut().insert(self.kind);
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // For the metrics layer, which counts errors by type.
        response.extensions_mut().insert(self.kind);
        response
    }
}
