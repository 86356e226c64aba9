//! A request as the endpoints see it: its tenant and its form.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt;
use model::identity::Tenants;
use model::source::Budget;
use model::tenant::TenantId;

use crate::api::error::{ApiError, ErrorType};
use crate::api::parameters::form::Form;
use crate::api::state::ApiState;

/// The query of a URL that is longer than the server's URLs may be: the server puts it beside the request.
#[derive(Clone)]
pub struct LongQuery {
    text: Arc<str>,
    /// What the server reserved for it, until the request is dropped.
    _reserved: Arc<dyn Send + Sync>,
}

impl LongQuery {
    pub fn new(text: String, reserved: impl Send + Sync + 'static) -> LongQuery {
        LongQuery { text: text.into(), _reserved: Arc::new(reserved) }
    }
}

/// Tenant and merged parameters of a request.
pub struct Call {
    /// The first of the tenants, and of all routes that do not federate the only one.
    pub tenant: TenantId,
    pub tenants: Tenants,
    pub form: Form,
    /// The memory of the form counts as that of queries, from before its body is read.
    _form_memory: Arc<Budget>,
    /// What the client, or the server for it, calls the request; empty where nobody does.
    pub request_id: String,
}

impl FromRequest<ApiState> for Call {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Call, ApiError> {
        let (parts, body) = request.into_parts();
        let tenants = (state.config().tenants)(&parts)?;
        let memory = state.0.engine.budget(None);
        let long = parts.extensions.get::<LongQuery>().map(|q| q.text.clone());
        let url_query = long.as_deref().unwrap_or(parts.uri.query().unwrap_or(""));
        reserve(&memory, url_query.len())?;
        let body = match has_form_body(&parts.method) && is_form(&parts.headers) {
            true => read_body(state, body, state.config().limits.max_body_bytes, &memory).await?,
            false => Vec::new(),
        };
        // What a pair takes beside its bytes: a body of nothing but `&a` is millions of them.
        let pairs = [url_query.as_bytes(), &body].map(|p| p.iter().filter(|b| **b == b'&').count() + 1);
        reserve(&memory, PAIR_BYTES / 2 * pairs.iter().sum::<usize>())?;
        let form = Form::parse(url_query, &body);
        let request_id =
            parts.headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
        Ok(Call {
            tenant: tenants.first(),
            tenants,
            form,
            request_id: request_id.to_owned(),
            _form_memory: memory,
        })
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// Memory of a pair of a form: two strings, each with an allocation of its own.
const PAIR_BYTES: usize = 2 * (size_of::<String>() + 16);

/// Reserves for so many bytes of parameters: as they come, and as they are read.
fn reserve(memory: &Budget, bytes: usize) -> Result<(), ApiError> {
    memory.reserve(2 * bytes as u64).map_err(|e| {
        ApiError::new(ErrorType::Unavailable, e.to_string()).with_status(StatusCode::SERVICE_UNAVAILABLE)
    })
}

/// The methods whose body Go's `net/http` reads as a form.
fn has_form_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// The whole body, within the limits of size, memory and time.
pub(in crate::api) async fn read_body(
    state: &ApiState,
    body: Body,
    max_bytes: usize,
    memory: &Budget,
) -> Result<Vec<u8>, ApiError> {
    let limits = &state.config().limits;
    match tokio::time::timeout(limits.body_timeout, gather(body, max_bytes, memory)).await {
        Ok(read) => read,
        Err(_) => {
            let text = format!("the request's body did not arrive within {:?}", limits.body_timeout);
            Err(ApiError::bad_data(text).with_status(StatusCode::REQUEST_TIMEOUT))
        }
    }
}

async fn gather(mut body: Body, max_bytes: usize, memory: &Budget) -> Result<Vec<u8>, ApiError> {
    let mut out = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|e| ApiError::bad_data(format!("error reading the request's body: {e}")))?;
        let Ok(piece) = frame.into_data() else { continue };
        if out.len() + piece.len() > max_bytes {
            let text = format!("the request's body is larger than {max_bytes} bytes, the limit");
            return Err(ApiError::bad_data(text).with_status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        reserve(memory, piece.len())?;
        out.extend_from_slice(&piece);
    }
    Ok(out)
}
