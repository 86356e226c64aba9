//! The built-in page: a query box, a table and a graph, three files in the binary that ask nothing of the network but this server.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;

const PAGE: &str = include_str!("index.html");
const SCRIPT: &str = include_str!("hearth.js");
const CHART: &str = include_str!("chart.js");
const STYLE: &str = include_str!("hearth.css");
const ICON: &str = include_str!("icon.svg");

/// Nothing from elsewhere, nothing inline, no framing: the page holds to it, and a label value that looks like HTML can do nothing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// `/` and the files it loads, under `/ui/`.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(|h: HeaderMap| async move { file(&h, "text/html; charset=utf-8", PAGE) }))
        .route(
            "/ui/hearth.js",
            get(|h: HeaderMap| async move { file(&h, "text/javascript; charset=utf-8", SCRIPT) }),
        )
        .route(
            "/ui/chart.js",
            get(|h: HeaderMap| async move { file(&h, "text/javascript; charset=utf-8", CHART) }),
        )
        .route(
            "/ui/hearth.css",
            get(|h: HeaderMap| async move { file(&h, "text/css; charset=utf-8", STYLE) }),
        )
        .route("/ui/icon.svg", get(|h: HeaderMap| async move { file(&h, "image/svg+xml", ICON) }))
}

/// The file, or 304 where the browser has it: asked every time, so that a new binary's page is never an old one's.
fn file(headers: &HeaderMap, kind: &'static str, text: &'static str) -> Response {
    let tag = format!("\"{:016x}\"", xxhash_rust::xxh3::xxh3_64(text.as_bytes()));
    let fresh = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = Response::new(if fresh { Body::empty() } else { Body::from(text) });
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn ask(path: &str, known: Option<&str>) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::get(path);
        if let Some(tag) = known {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        let response = router::<()>().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap();
        (parts.status, parts.headers, text)
    }

    #[test]
    fn the_box_completes_every_function() {
        for function in crate::parse::functions::all() {
            // `start` and `end` are keywords as well.
            let (listed, keyword) = (format!(" {}: '", function.name), format!("'{}',", function.name));
            assert!(SCRIPT.contains(&listed) || SCRIPT.contains(&keyword), "{}", function.name);
        }
    }

    #[tokio::test]
    async fn every_file_the_page_names_is_there_and_none_comes_from_elsewhere() {
        let (status, headers, page) = ask("/", None).await;
        assert_eq!(status, 200);
        assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        let named: Vec<&str> = page.split(['"', '\'']).filter(|s| s.starts_with("ui/")).collect();
        assert_eq!(named.len(), 4, "{named:?}");
        for file in named {
            let (status, headers, text) = ask(&format!("/{file}"), None).await;
            assert_eq!(status, 200, "{file}");
            assert!(!text.is_empty());
            let (status, _, text) = ask(&format!("/{file}"), headers[header::ETAG].to_str().ok()).await;
            assert_eq!((status, text.as_str()), (StatusCode::NOT_MODIFIED, ""), "{file}");
        }
        for text in [PAGE, SCRIPT, CHART, STYLE] {
            for elsewhere in
                ["src=\"http", "src=\"//", "url(http", "@import", "fetch(\"http", " style=\"", "onclick="]
            {
                assert!(!text.contains(elsewhere), "{elsewhere}");
            }
        }
    }
}
