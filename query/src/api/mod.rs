//! The Prometheus HTTP API: parameters in, exact Prometheus JSON, status codes and error types out.
//!
//! Followed to the letter: upstream's `web/api/v1` of 3.14. The one seam to the rest of the process is
//! [`ApiConfig`].

pub mod admission;
mod endpoints;
pub mod error;
pub mod metrics;
pub mod response;
mod run;
mod running;
pub mod state;

use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};

pub use admission::call::LongQuery;
pub use admission::replicas::Replicas;
pub use error::{ApiError, ErrorType};
pub use metrics::Metrics;
pub use state::{
    ApiConfig, ApiState, BuildInfo, ChangeError, CorsOrigins, Limits, ProcessInfo, Readiness, RulesView,
    Storage, Stored, StoredBlock, StoredHead, TenantResolver, single_tenant, tenant_from_header,
};

/// Everything under `/api/v1/` that has to do with queries; other paths there are 404. Merge it with the
/// routers of the writing side, whose paths it leaves alone.
pub fn router(state: ApiState) -> Router {
    let both = |path: &str| format!("/api/v1/{path}");
    Router::new()
        .route(&both("query"), get(endpoints::query::instant).post(endpoints::query::instant))
        .route(&both("query_range"), get(endpoints::query::range).post(endpoints::query::range))
        .route(
            &both("query_exemplars"),
            get(endpoints::exemplars::exemplars).post(endpoints::exemplars::exemplars),
        )
        .route(&both("explain"), get(endpoints::explain::explain).post(endpoints::explain::explain))
        .route(&both("estimate"), get(endpoints::estimate::estimate).post(endpoints::estimate::estimate))
        .route(&both("queries"), get(endpoints::running::list))
        .route(&both("queries/{id}"), delete(endpoints::running::cancel))
        .route(&both("storage"), get(endpoints::storage::storage))
        .route(&both("format_query"), get(endpoints::query::format).post(endpoints::query::format))
        .route(&both("parse_query"), get(endpoints::query::syntax_tree).post(endpoints::query::syntax_tree))
        .route(&both("series"), get(endpoints::labels::series).post(endpoints::labels::series))
        .route(&both("labels"), get(endpoints::labels::names).post(endpoints::labels::names))
        .route(&both("label/{name}/values"), get(endpoints::labels::values))
        .route(&both("metadata"), get(endpoints::labels::metadata))
        .route(&both("status/buildinfo"), get(endpoints::status::buildinfo))
        .route(&both("status/runtimeinfo"), get(endpoints::status::runtimeinfo))
        .route(&both("status/config"), get(endpoints::status::config))
        .route(&both("status/flags"), get(endpoints::status::flags))
        .route(&both("status/tsdb"), get(endpoints::status::tsdb))
        .route(&both("status/walreplay"), get(endpoints::status::walreplay))
        .route(&both("rules"), get(endpoints::rules::rules))
        .route(&both("alerts"), get(endpoints::rules::alerts))
        .route(&both("alertmanagers"), get(endpoints::rules::alertmanagers))
        .route(&both("targets"), get(endpoints::status::targets))
        .route(&both("targets/metadata"), get(endpoints::status::targets_metadata))
        .route(&both("scrape_pools"), get(endpoints::status::scrape_pools))
        .route(&both("notifications"), get(endpoints::status::notifications))
        .route(
            &both("admin/tsdb/delete_series"),
            post(endpoints::admin::delete_series).put(endpoints::admin::delete_series),
        )
        .route(
            &both("admin/tsdb/clean_tombstones"),
            post(endpoints::admin::clean_tombstones).put(endpoints::admin::clean_tombstones),
        )
        .route(&both("admin/tsdb/snapshot"), post(endpoints::admin::snapshot).put(endpoints::admin::snapshot))
        .route(&both("{*path}"), any(unknown))
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(state.clone(), around))
        .with_state(state)
}

async fn unknown(request: Request) -> Response {
    if request.method() == Method::OPTIONS {
        return response::no_content();
    }
    ApiError::new(ErrorType::NotFound, format!("there is no {} in this API", request.uri().path()))
        .into_response()
}

async fn wrong_method(request: Request) -> Response {
    if request.method() == Method::OPTIONS {
        return response::no_content();
    }
    let text = format!("{} is not a method of {}", request.method(), request.uri().path());
    ApiError::bad_data(text).with_status(StatusCode::METHOD_NOT_ALLOWED).into_response()
}

/// What every request gets: a clock, its count, CORS headers, and a refusal while the process is not ready.
async fn around(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let metrics = state.config().metrics.clone();
    let _in_flight = metrics.enter();
    let path = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str);
    let endpoint = match path.strip_prefix("/api/v1/") {
        None | Some("{*path}") => "other".to_string(),
        Some(known) => known.to_string(),
    };
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = match state.config().storage.readiness() {
        _ if endpoint == "status/walreplay" => next.run(request).await,
        Readiness::Ready => next.run(request).await,
        Readiness::Starting => not_ready(false),
        Readiness::Stopping => not_ready(true),
    };
    cors(&state.config().cors, origin, &mut response);
    metrics.observe(&endpoint, begun.elapsed(), response.extensions().get::<ErrorType>().copied());
    response
}

/// Upstream's plain refusal (`web.Handler.testReady`).
fn not_ready(stopping: bool) -> Response {
    let mut response = Response::new(Body::from("Service Unavailable"));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers
        .insert("x-prometheus-stopping", HeaderValue::from_static(if stopping { "true" } else { "false" }));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Upstream's CORS headers (`util/httputil.SetCORS`).
fn cors(allowed: &CorsOrigins, origin: Option<HeaderValue>, response: &mut Response) {
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin else { return };
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Origin"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    match allowed {
        CorsOrigins::Any => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        only => {
            if origin.to_str().is_ok_and(|o| only.allows(o)) {
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            }
        }
    }
}
