//! A request as the endpoints see it (tenant and form), and the way its work leaves the async runtime and can be called off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use model::source::Budget;
use model::tenant::TenantId;
use tokio::sync::Semaphore;

use crate::api::admission::form::Form;
use crate::api::error::{ApiError, ErrorType};
use crate::api::response::streamed::{self, CancelOnDrop, Early, Place};
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

/// Which places a piece of work waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Query,
    Lookup,
}

impl ApiState {
    /// Runs `work` on a thread that may block, as soon as a place is free. `timeout` (at most the engine's own) covers the wait too; what
    /// `work` gets is the budget to charge and how long the wait was. The place is free again when `work` is done, before the
    /// answer is sent: a slow reader does not keep others waiting.
    pub(in crate::api) async fn run<F>(
        &self,
        lane: Lane,
        timeout: Option<Duration>,
        work: F,
    ) -> Result<Response, ApiError>
    where
        F: FnOnce(&Arc<Budget>, Duration) -> Result<Response, ApiError> + Send + 'static,
    {
        let work = move |budget: &Arc<Budget>, queued, _: Early| work(budget, queued).map(Some);
        self.run_beginning(lane, timeout, work).await
    }

    /// As [`ApiState::run`], for work that may begin its answer before it is done, by means of the [`Early`] it gets. It then gives
    /// `None`, or an error that nobody sees. While its client does not read it gives its place to others (see [`streamed::Place`]).
    pub(in crate::api) async fn run_beginning<F>(
        &self,
        lane: Lane,
        timeout: Option<Duration>,
        work: F,
    ) -> Result<Response, ApiError>
    where
        F: FnOnce(&Arc<Budget>, Duration, Early) -> Result<Option<Response>, ApiError> + Send + 'static,
    {
        let arrived = Instant::now();
        let budget = self.0.engine.budget(timeout);
        let cancel = CancelOnDrop::new(budget.clone());
        let longest = self.0.engine.options().timeout;
        let timeout = timeout.map_or(longest, |t| t.min(longest));
        let places: &Arc<Semaphore> = if lane == Lane::Query { &self.0.queries } else { &self.0.lookups };
        let place = {
            let _queued = self.config().metrics.queue();
            match tokio::time::timeout(timeout, places.clone().acquire_owned()).await {
                Ok(Ok(place)) => place,
                Ok(Err(_)) => return Err(ApiError::new(ErrorType::Unavailable, "the server is stopping")),
                Err(_) => return Err(ApiError::new(ErrorType::Timeout, "query timed out in query queue")),
            }
        };
        let metrics = self.config().metrics.clone();
        let place = Place::new(place, places.clone(), self.0.waiting.clone());
        let (early, begun) = streamed::early(budget.clone(), place);
        let job = tokio::task::spawn_blocking(move || {
            let answer = work(&budget, arrived.elapsed(), early);
            metrics.read_samples(budget.samples_read());
            answer
        });
        // Comes to an end with the work at the latest, whose end of the line is dropped then.
        if let Ok(pieces) = begun.await {
            return Ok(streamed::response(pieces, cancel));
        }
        match job.await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Err(e)) => Err(e),
            Ok(Ok(None)) | Err(_) => Err(ApiError::new(
                ErrorType::Internal,
                "the query made the server stumble; this is a bug in Hearth, please report the query",
            )),
        }
    }
}
