//! Reloading and ending by request: `POST /-/reload` and `POST /-/quit`, where the settings allow them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use tokio::sync::Notify;

use super::reload::Reload;

/// What the routes need.
#[derive(Clone)]
pub struct Lifecycle {
    pub enabled: bool,
    pub reload: Reload,
    /// Told when the process is to end.
    pub quit: Arc<Notify>,
    /// Whether that was done.
    pub ending: Arc<AtomicBool>,
}

/// The routes, with upstream's answers.
pub fn router(lifecycle: Lifecycle) -> Router {
    Router::new().route("/-/reload", any(reload)).route("/-/quit", any(quit)).with_state(lifecycle)
}

/// Why a request is not carried out.
fn refusal(lifecycle: &Lifecycle, method: &Method) -> Option<Response> {
    match *method {
        Method::POST | Method::PUT if lifecycle.enabled => None,
        Method::POST | Method::PUT => {
            Some((StatusCode::FORBIDDEN, "Lifecycle API is not enabled.").into_response())
        }
        _ => Some((StatusCode::METHOD_NOT_ALLOWED, "Only POST or PUT requests allowed").into_response()),
    }
}

async fn reload(State(lifecycle): State<Lifecycle>, method: Method) -> Response {
    if let Some(refusal) = refusal(&lifecycle, &method) {
        return refusal;
    }
    match lifecycle.reload.run().await {
        Ok(waiting) if waiting.is_empty() => StatusCode::OK.into_response(),
        Ok(waiting) => {
            format!("needs another start to take effect: {}\n", waiting.join(", ")).into_response()
        }
        Err(e) => {
            tracing::error!("reloading failed: {e}");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("failed to reload config: {e}\n")).into_response()
        }
    }
}

async fn quit(State(lifecycle): State<Lifecycle>, method: Method) -> Response {
    if let Some(refusal) = refusal(&lifecycle, &method) {
        return refusal;
    }
    if lifecycle.ending.swap(true, Ordering::Relaxed) {
        return "Termination already in progress.".into_response();
    }
    lifecycle.quit.notify_one();
    "Requesting termination... Goodbye!".into_response()
}
