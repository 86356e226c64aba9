//! How an answer says how much of it was kept from before.

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

use crate::results_cache::CacheUse;

/// `hit`: all steps were kept; `partial`: some were; `miss`: none were, or another query computed them at the
/// same time (`shared`). Not on answers of which nothing can be kept.
pub static HEADER: HeaderName = HeaderName::from_static("x-hearth-cache");

/// Puts the header on an answer.
pub fn with_header(mut response: Response, cache_use: Option<CacheUse>) -> Response {
    let text = match cache_use {
        None => return response,
        Some(CacheUse { computed_steps: 0, .. }) => "hit",
        Some(CacheUse { cached_steps: 1.., .. }) => "partial",
        Some(CacheUse { shared: true, .. }) => "shared",
        Some(_) => "miss",
    };
    response.headers_mut().insert(HEADER.clone(), HeaderValue::from_static(text));
    response
}
