//! `notifications`, as a list and as a stream of changes.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use tokio::sync::broadcast::error::RecvError;

use crate::api::json;
use crate::api::notifications::{Notification, Notifications, Subscription};
use crate::api::response;
use crate::api::state::ApiState;

/// `GET /api/v1/notifications`
pub async fn list(State(state): State<ApiState>) -> Response {
    list_of(&state.config().notifications)
}

/// The list as it is answered, for a process whose store is not open yet as well.
pub fn list_of(notifications: &Notifications) -> Response {
    response::small(&notifications.active())
}

/// `GET /api/v1/notifications/live`: server-sent events, all that is active first; no content where too many
/// listen already.
pub async fn live(State(state): State<ApiState>) -> Response {
    live_of(&state.config().notifications)
}

/// The stream as it is answered, before the store is open as well.
pub fn live_of(notifications: &Notifications) -> Response {
    let mut response = match notifications.subscribe() {
        None => response::no_content(),
        Some(subscription) => response::respond(events(subscription)),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn events(subscription: Subscription) -> Body {
    Body::from_stream(futures::stream::unfold(subscription, |mut subscription| async move {
        if !subscription.active.is_empty() {
            let first = subscription.active.remove(0);
            return Some((event(&first), subscription));
        }
        loop {
            match subscription.changes.recv().await {
                Ok(change) => return Some((event(&change), subscription)),
                // It did not read for long: the oldest are gone, newer ones come.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }))
}

fn event(notification: &Notification) -> Result<Bytes, Infallible> {
    let mut out = b"data: ".to_vec();
    json::small(&mut out, notification);
    out.extend_from_slice(b"\n\n");
    Ok(Bytes::from(out))
}
