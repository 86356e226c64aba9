//! `openapi.yaml`: the API described for programs, from the text beside this file. A test compares it with
//! the routes.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;

use crate::api::admission::call::Call;
use crate::api::response;
use crate::api::state::ApiState;

const TEXT: &str = include_str!("openapi.yaml");

/// Lines that only version 3.2 can express stand between these.
const NEWER: (&str, &str) = ("  # begin 3.2\n", "  # end 3.2\n");

/// `GET /api/v1/openapi.yaml`: as OpenAPI 3.1, or 3.2 with `openapi_version`.
pub async fn openapi(State(state): State<ApiState>, call: Call) -> Response {
    let newer = matches!(call.form.get("openapi_version"), "3.2" | "3.2.0");
    let config = state.config();
    let mut response = response::respond(Body::from(document(newer, &config.external_url)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/yaml; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    response
}

fn document(newer: bool, external_url: &str) -> String {
    let (version, mut text) = match newer {
        true => ("3.2.0", TEXT.replace(NEWER.0, "").replace(NEWER.1, "")),
        false => ("3.1.0", without_newer(TEXT)),
    };
    for (name, value) in [
        ("{openapi}", version),
        ("{version}", env!("CARGO_PKG_VERSION")),
        ("{server}", if external_url.is_empty() { "/" } else { external_url }),
    ] {
        text = text.replace(name, value);
    }
    text
}

fn without_newer(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(NEWER.0) {
        out.push_str(before);
        rest = after.split_once(NEWER.1).map_or("", |(_, after)| after);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openapi_has_the_stream_of_notifications_in_3_2_alone() {
        let (old, new) = (document(false, ""), document(true, "http://h/p"));
        assert!(old.starts_with("openapi: 3.1.0\n") && new.starts_with("openapi: 3.2.0\n"));
        assert!(!old.contains("/notifications/live:") && new.contains("/notifications/live:"));
        assert!(old.contains("/notifications:") && old.contains("/federate:"));
        assert!(new.contains("http://h/p") && !new.contains("{server}") && !new.contains("# begin"));
    }

    #[test]
    fn openapi_names_every_route_of_the_query_api_with_its_methods() {
        let text = document(true, "");
        for (path, methods) in crate::api::listed() {
            let at = text.find(&format!("\n  {path}:\n"));
            let at = at.unwrap_or_else(|| panic!("{path} is missing"));
            let rest = &text[at + 1..];
            let end = rest[1..].find("\n  /").map_or(rest.len(), |end| end + 1);
            for method in methods {
                let line = format!("\n    {}:", method.to_ascii_lowercase());
                assert!(rest[..end].contains(&line), "{method} {path}");
            }
        }
    }
}
