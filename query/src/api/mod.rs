//! The Prometheus HTTP API: parameters in, exact Prometheus JSON, status codes and error types out.
//!
//! Followed to the letter: upstream's `web/api/v1` of 3.14. The one seam to the rest of the process is
//! [`ApiConfig`].

pub mod active_queries;
pub mod admission;
mod at_once;
mod endpoints;
pub mod error;
pub mod exposition;
mod federation;
pub mod json;
pub mod metrics;
pub mod notifications;
pub mod parameters;
pub mod progress;
pub mod protobuf;
pub mod queue;
pub mod remote_read;
pub mod response;
pub mod routes;
mod run;
mod running;
pub mod state;
mod tenant_limits;
pub mod upkeep;

use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::any;

pub use admission::call::LongQuery;
pub use endpoints::notifications::{list_of as notifications_answer, live_of as live_notifications_answer};
pub use endpoints::status::walreplay_of as walreplay_answer;
pub use error::{ApiError, ErrorType, PlainError};
pub use federation::federates;
pub use metrics::Metrics;
pub use parameters::replicas::Replicas;
use routes::{DELETE, GET, GET_POST, POST, POST_PUT, Routes};
pub use state::{
    ApiConfig, ApiState, BuildInfo, ChangeError, CorsOrigins, Features, Gaps, Limits, ProcessInfo, Readiness,
    RulesView, Storage, Stored, StoredBlock, StoredHead, TenantResolver, single_tenant, tenant_from_header,
};

/// Everything under `/api/v1/` that has to do with queries, and `/federate`; other paths below `/api/v1/` are
/// 404. Merge it with the routers of the writing side, whose paths it leaves alone.
pub fn router(state: ApiState) -> Router {
    routes()
        .router
        .route("/api/v1/{*path}", any(routes::unknown))
        .layer(from_fn_with_state(state.clone(), around))
        .with_state(state)
}

/// Each route with its methods.
pub fn listed() -> Vec<(&'static str, &'static [&'static str])> {
    routes().listed.into_iter().map(|(path, methods)| (path, methods.names)).collect()
}

fn routes() -> Routes<ApiState> {
    use endpoints::*;
    Routes::default()
        .add("/api/v1/query", GET_POST, query::instant)
        .add("/api/v1/query_range", GET_POST, query::range)
        .add("/api/v1/query_exemplars", GET_POST, exemplars::exemplars)
        .add("/api/v1/explain", GET_POST, explain::explain)
        .add("/api/v1/estimate", GET_POST, estimate::estimate)
        .add("/api/v1/queries", GET, running::list)
        .add("/api/v1/queries/{id}", DELETE, running::cancel)
        .add("/api/v1/status/queries", GET, running::list)
        .add("/api/v1/status/queries/{id}", DELETE, running::cancel)
        .add("/api/v1/storage", GET, storage::storage)
        .add("/api/v1/storage/cardinality", GET, stored_cardinality::stored_cardinality)
        .add("/api/v1/format_query", GET_POST, query::format)
        .add("/api/v1/parse_query", GET_POST, query::syntax_tree)
        .add("/api/v1/series", GET_POST, labels::series)
        .add("/api/v1/labels", GET_POST, labels::names)
        .add("/api/v1/label/{name}/values", GET, labels::values)
        .add("/api/v1/metadata", GET, labels::metadata)
        .add("/api/v1/read", POST, read::read)
        .add("/federate", GET, federate::federate)
        .add("/api/v1/status/buildinfo", GET, status::buildinfo)
        .add("/api/v1/status/runtimeinfo", GET, status::runtimeinfo)
        .add("/api/v1/status/config", GET, status::config)
        .add("/api/v1/status/flags", GET, status::flags)
        .add("/api/v1/status/tsdb", GET, status::tsdb)
        .add("/api/v1/status/walreplay", GET, status::walreplay)
        .add("/api/v1/rules", GET, rules::rules)
        .add("/api/v1/alerts", GET, rules::alerts)
        .add("/api/v1/alertmanagers", GET, rules::alertmanagers)
        .add("/api/v1/targets", GET, status::targets)
        .add("/api/v1/targets/metadata", GET, status::targets_metadata)
        .add("/api/v1/scrape_pools", GET, status::scrape_pools)
        .add("/api/v1/targets/relabel_steps", GET, status::relabel_steps)
        .add("/api/v1/scrape_pools/config", GET, status::scrape_pool_config)
        .add("/api/v1/status/tsdb/blocks", GET, status::tsdb_blocks)
        .add("/api/v1/status/self_metrics", GET, self_metrics::self_metrics)
        .add("/api/v1/features", GET, features::features)
        .add("/api/v1/notifications", GET, notifications::list)
        .add("/api/v1/notifications/live", GET, notifications::live)
        .add("/api/v1/search/metric_names", GET_POST, search::metric_names)
        .add("/api/v1/search/label_names", GET_POST, search::label_names)
        .add("/api/v1/search/label_values", GET_POST, search::label_values)
        .add("/api/v1/openapi.yaml", GET, openapi::openapi)
        .add("/api/v1/admin/tsdb/delete_series", POST_PUT, admin::delete_series)
        .add("/api/v1/admin/tsdb/clean_tombstones", POST_PUT, admin::clean_tombstones)
        .add("/api/v1/admin/tsdb/snapshot", POST_PUT, admin::snapshot)
}

/// What every request gets: a clock, its count, CORS headers, and a refusal while the process is not ready.
async fn around(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let metrics = state.config().metrics.clone();
    let _in_flight = metrics.enter();
    let path = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str);
    let endpoint = match path.strip_prefix("/api/v1/").or_else(|| path.strip_prefix('/')) {
        None | Some("{*path}") => "other".to_string(),
        Some(known) => known.to_string(),
    };
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = match state.config().storage.readiness() {
        _ if matches!(&*endpoint, "status/walreplay" | "notifications" | "notifications/live") => {
            next.run(request).await
        }
        Readiness::Ready => next.run(request).await,
        Readiness::Starting => not_ready(false),
        Readiness::Stopping => not_ready(true),
    };
    // As upstream: what only servers ask says nothing to browsers.
    if !matches!(&*endpoint, "read" | "federate") {
        cors(&state.config().cors, origin, &mut response);
    }
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
