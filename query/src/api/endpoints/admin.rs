//! `admin/tsdb/*`: deletion of series, as upstream's admin API, refused unless the process was told to allow
//! it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::quote::quote;

use crate::api::admission::call::Call;
use crate::api::endpoints::labels::selectors;
use crate::api::error::{ApiError, ErrorType};
use crate::api::parameters::values::{MAX_TIME_MS, MIN_TIME_MS, Time, parse_bool};
use crate::api::response;
use crate::api::state::{ApiState, ChangeError};

impl From<ChangeError> for ApiError {
    fn from(e: ChangeError) -> ApiError {
        match e {
            ChangeError::Unavailable(text) => {
                ApiError::new(ErrorType::Unavailable, text).with_status(StatusCode::SERVICE_UNAVAILABLE)
            }
            ChangeError::Refused(text) => ApiError::new(ErrorType::Execution, text),
        }
    }
}

fn allowed(state: &ApiState) -> Result<(), ApiError> {
    match state.config().admin_api {
        true => Ok(()),
        false => Err(ApiError::new(ErrorType::Unavailable, "admin APIs disabled")),
    }
}

/// Runs a change to its end on a thread that may block, even if the client goes away meanwhile.
async fn change(
    work: impl FnOnce() -> Result<(), ChangeError> + Send + 'static,
) -> Result<Response, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(())) => Ok(response::no_content()),
        Ok(Err(e)) => Err(e.into()),
        Err(e) => Err(ApiError::new(ErrorType::Internal, format!("the change did not finish: {e}"))),
    }
}

/// Runs what takes long and changes nothing on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let failed = |e| ApiError::new(ErrorType::Internal, format!("the request was not read: {e}"));
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

/// `POST|PUT /api/v1/admin/tsdb/delete_series`. Unlike upstream, a selector that every series satisfies is
/// refused: whoever means everything can write `{__name__=~".+"}`.
pub async fn delete_series(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    allowed(&state)?;
    if let Some(e) = call.form.error() {
        return Err(ApiError::bad_data(format!("error parsing form values: {e}")));
    }
    if call.form.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let start = call.form.time_or("start", Time::from_ms(MIN_TIME_MS))?;
    let end = call.form.time_or("end", Time::from_ms(MAX_TIME_MS))?;
    let inner = state.0.clone();
    let (call, selectors) = blocking(move || {
        let selectors = selectors(&call.form, &inner.engine.options().parse)
            .map_err(|e| ApiError::parameter("match[]", e))?;
        Ok((call, selectors))
    })
    .await?;
    let inner = state.0.clone();
    change(move || inner.config.storage.delete_series(&call.tenant, &selectors, start.ms(), end.ms())).await
}

/// `POST|PUT /api/v1/admin/tsdb/clean_tombstones`
pub async fn clean_tombstones(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    allowed(&state)?;
    let inner = state.0.clone();
    change(move || inner.config.storage.clean_tombstones(&call.tenant)).await
}

/// `POST|PUT /api/v1/admin/tsdb/snapshot`: a copy of everything in the data folder, for backups; `skip_head`
/// leaves out the newest samples.
pub async fn snapshot(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    allowed(&state)?;
    let skip_head = match call.form.get("skip_head") {
        "" => false,
        text => parse_bool(text).ok_or_else(|| {
            ApiError::bad_data(format!("unable to parse boolean \"skip_head\" argument: {}", quote(text)))
        })?,
    };
    let inner = state.0.clone();
    let snapshot = tokio::task::spawn_blocking(move || inner.config.storage.snapshot(skip_head)).await;
    match snapshot {
        Ok(Ok(name)) => Ok(response::small(&serde_json::json!({ "name": name }))),
        Ok(Err(e)) => Err(e.into()),
        Err(e) => Err(ApiError::new(ErrorType::Internal, format!("the snapshot did not finish: {e}"))),
    }
}
