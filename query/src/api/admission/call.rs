//! A request as the endpoints see it: its tenant and its form.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use model::tenant::TenantId;

use crate::api::admission::form::Form;
use crate::api::error::ApiError;
use crate::api::state::ApiState;

/// Tenant and merged parameters of a request.
pub struct Call {
    pub tenant: TenantId,
    pub form: Form,
}

impl FromRequest<ApiState> for Call {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Call, ApiError> {
        let (parts, body) = request.into_parts();
        let tenant = (state.config().tenants)(&parts.headers).map_err(ApiError::bad_data)?;
        let is_form =
            parts.headers.get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok()).is_some_and(|t| {
                t.split(';')
                    .next()
                    .is_some_and(|t| t.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"))
            });
        let body =
            if has_form_body(&parts.method) && is_form { read(state, body).await? } else { Vec::new() };
        Ok(Call { tenant, form: Form::parse(parts.uri.query().unwrap_or(""), &body) })
    }
}

/// The methods whose body Go's `net/http` reads as a form.
fn has_form_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// The whole body, within the limits of size and time.
async fn read(state: &ApiState, body: Body) -> Result<Vec<u8>, ApiError> {
    let limits = &state.config().limits;
    let whole = Limited::new(body, limits.max_body_bytes).collect();
    match tokio::time::timeout(limits.body_timeout, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes().into()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => {
            let text =
                format!("the request's body is larger than {} bytes, the limit", limits.max_body_bytes);
            Err(ApiError::bad_data(text).with_status(StatusCode::PAYLOAD_TOO_LARGE))
        }
        Ok(Err(e)) => Err(ApiError::bad_data(format!("error reading the request's body: {e}"))),
        Err(_) => {
            let text = format!("the request's body did not arrive within {:?}", limits.body_timeout);
            Err(ApiError::bad_data(text).with_status(StatusCode::REQUEST_TIMEOUT))
        }
    }
}
