//! The built-in page: TypeScript in `query/ui`, built and committed beside this file, served from the binary.
//!
//! 1. `npm run build` in `query/ui` writes `dist/` and `assets`; `cargo build` needs neither npm nor a
//!    network. CI builds the sources again and compares.
//! 2. Every page of it is one segment below wherever a proxy has put the server, and is the same
//!    `index.html`: what it shows is decided in the browser, by the path and what follows it. So all
//!    addresses in it can be relative.
//! 3. Files under `ui/` have a hash in their names and may be kept for ever; `index.html` is asked for every
//!    time.
//! 4. What is at none of these paths is a real 404: for a browser the same page, which says so and is told
//!    where it lies; a line for everybody else.

mod assets;

use std::io::Read;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::{MethodRouter, any, get};

use assets::{ASSETS, Asset};

const INDEX: &str = include_str!("dist/index.html");

/// Where the head of the page says which APIs beyond Prometheus' there are.
const SERVES: &str = r#"<meta name="serves" content="">"#;

/// Paths of the page: its own names, and those that Prometheus' links have.
pub const PAGES: [&str; 17] = [
    "alertmanager-discovery",
    "alerts",
    "cardinality",
    "config",
    "connect",
    "explore",
    "flags",
    "members",
    "queries",
    "query",
    "rules",
    "service-discovery",
    "status",
    "storage",
    "targets",
    "tenants",
    "tsdb-status",
];

/// Nothing from elsewhere, nothing inline, no framing: the page holds to it, and a label value that looks
/// like HTML can do nothing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// The same for the page of an address that leads nowhere: it may lie deeper, and says where its files are.
const POLICY_NOT_FOUND: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                                form-action 'none'; base-uri 'self'; frame-ancestors 'none'";

/// The pages and the files they load. `serves` are the APIs beyond Prometheus' that this process has, which
/// the page shows views of.
pub fn router<S: Clone + Send + Sync + 'static>(serves: &[&str]) -> Router<S> {
    // Made once for the whole life of the process.
    let index: &'static str = Box::leak(index_of(serves).into_boxed_str());
    let tag: &'static str = Box::leak(tag(index.as_bytes()).into_boxed_str());
    let page = move |headers: HeaderMap| async move { page(&headers, index, tag) };
    let mut router = Router::new()
        .route("/", get(page))
        .route("/graph", get(graph))
        .route(
            "/ui/{file}",
            get(|Path(file): Path<String>, headers: HeaderMap| async move { asset(&file, &headers) }),
        )
        .route("/favicon.ico", get(|headers: HeaderMap| async move { icon(&headers) }));
    for path in PAGES {
        router = router.route(&format!("/{path}"), get(page));
    }
    router
}

/// The page, with what this process serves in its head.
fn index_of(serves: &[&str]) -> String {
    INDEX.replacen(SERVES, &format!(r#"<meta name="serves" content="{}">"#, serves.join(" ")), 1)
}

/// Prometheus' own address of the page, which rules and templates write into alerts.
async fn graph(uri: Uri) -> Response {
    let to = match uri.query() {
        Some(query) => format!("query?{query}"),
        None => "query".to_owned(),
    };
    let mut response = answer(StatusCode::FOUND, "text/plain; charset=utf-8", Body::empty());
    if let Ok(to) = HeaderValue::from_str(&to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

fn tag(bytes: &[u8]) -> String {
    format!("\"{:016x}\"", xxhash_rust::xxh3::xxh3_64(bytes))
}

/// The page, or 304 where the browser has it: asked every time, so that a new binary's page is never an old
/// one's.
fn page(headers: &HeaderMap, text: &'static str, tag: &'static str) -> Response {
    let fresh = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let (status, body) =
        if fresh { (StatusCode::NOT_MODIFIED, Body::empty()) } else { (StatusCode::OK, Body::from(text)) };
    let mut response = answer(status, "text/html; charset=utf-8", body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response.headers_mut().insert(header::ETAG, HeaderValue::from_static(tag));
    response
}

fn answer(status: StatusCode, kind: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn asset(name: &str, headers: &HeaderMap) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        // A page of an older binary asks for a part that this one does not have: it then says so and offers
        // to reload.
        None => {
            answer(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", Body::from("404 page not found\n"))
        }
        Some(found) => contents(found, headers),
    }
}

fn icon(headers: &HeaderMap) -> Response {
    let icon = ASSETS.iter().find(|asset| asset.name.ends_with(".svg"));
    icon.map_or_else(|| asset("", headers), |icon| contents(icon, headers))
}

/// Compressed as it lies in the binary for everyone who takes that, else unpacked.
fn contents(asset: &'static Asset, headers: &HeaderMap) -> Response {
    let takes_gzip =
        headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).any(accepts_gzip);
    let body = if takes_gzip { Body::from(asset.gzip) } else { Body::from(unpacked(asset)) };
    let mut response = answer(StatusCode::OK, asset.kind, body);
    let headers = response.headers_mut();
    if takes_gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    // The list of licences alone keeps its name.
    let keep = if asset.name.contains('-') { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    response
}

fn accepts_gzip(accept: &str) -> bool {
    accept.split(',').any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip") || name == "*");
        named
            && !parts.any(|p| matches!(p.strip_prefix("q=").map(str::parse::<f32>), Some(Ok(q)) if q <= 0.0))
    })
}

/// At most some hundred kilobytes: the files are our own.
fn unpacked(asset: &Asset) -> Vec<u8> {
    let mut out = Vec::new();
    if let Err(e) = flate2::read::GzDecoder::new(asset.gzip).read_to_end(&mut out) {
        tracing::error!(name = asset.name, "a file of the page cannot be unpacked: {e}");
    }
    out
}

/// What answers to paths that lead nowhere: the page for a browser, upstream's line for everybody else.
/// `serves` as for [`router`].
pub fn not_found<S: Clone + Send + Sync + 'static>(serves: &[&str]) -> MethodRouter<S> {
    let index: Arc<str> = index_of(serves).into();
    any(move |uri: Uri, headers: HeaderMap| async move {
        let wants_page = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.contains("text/html"));
        if !wants_page {
            let line = Body::from("404 page not found\n");
            return answer(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", line);
        }
        let page = Body::from(based(&index, uri.path()));
        let mut response = answer(StatusCode::NOT_FOUND, "text/html; charset=utf-8", page);
        let policy = HeaderValue::from_static(POLICY_NOT_FOUND);
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    })
}

/// The page as it stands at any path, below any prefix: its addresses climb as many folders as the path has.
fn based(index: &str, path: &str) -> String {
    let up = "../".repeat(path.matches('/').count().saturating_sub(1).min(64));
    index.replacen("<head>", &format!("<head>\n<base href=\"./{up}\">"), 1)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn ask(path: &str, headers: &[(header::HeaderName, &str)]) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let app = router::<()>(&["queries", "storage"]).fallback(not_found(&["queries", "storage"]));
        let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, body.collect().await.unwrap().to_bytes().into())
    }

    #[test]
    fn completion_knows_every_function() {
        let listed = include_str!("../../ui/src/editor/functions.ts");
        for function in crate::parse::functions::all() {
            assert!(listed.contains(&format!("\n{}(", function.name)), "{}", function.name);
        }
    }

    #[tokio::test]
    async fn index_names_files_that_are_there_and_none_from_elsewhere() {
        let (status, headers, page) = ask("/query", &[]).await;
        let page = String::from_utf8(page).unwrap();
        assert_eq!(
            (status, &headers[header::CONTENT_TYPE]),
            (StatusCode::OK, &"text/html; charset=utf-8".parse().unwrap())
        );
        assert!(page.contains(r#"<meta name="serves" content="queries storage">"#), "{page}");
        let named: Vec<&str> = page.split('"').filter_map(|s| s.strip_prefix("./")).collect();
        assert!(named.len() >= 3, "{named:?}");
        for file in named {
            let (status, headers, _) = ask(&format!("/{file}"), &[]).await;
            assert_eq!(status, StatusCode::OK, "{file}");
            assert!(headers[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"), "{file}");
        }
        for elsewhere in ["src=\"http", "src=\"//", "url(http", "@import", " style=\"", "onclick="] {
            assert!(!page.contains(elsewhere), "{elsewhere}");
        }
        let tag = headers[header::ETAG].to_str().unwrap();
        let (status, _, page) = ask("/", &[(header::IF_NONE_MATCH, tag)]).await;
        assert_eq!((status, page.len()), (StatusCode::NOT_MODIFIED, 0));
    }

    #[tokio::test]
    async fn assets_come_packed_and_unpacked_alike() {
        for asset in &ASSETS {
            let path = format!("/ui/{}", asset.name);
            let (_, headers, plain) = ask(&path, &[]).await;
            assert!(!plain.is_empty() && !headers.contains_key(header::CONTENT_ENCODING), "{path}");
            let (_, headers, packed) = ask(&path, &[(header::ACCEPT_ENCODING, "br, gzip")]).await;
            assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut text).unwrap();
            assert_eq!(text, plain, "{path}");
            let (_, headers, _) = ask(&path, &[(header::ACCEPT_ENCODING, "gzip;q=0")]).await;
            assert!(!headers.contains_key(header::CONTENT_ENCODING), "{path}");
        }
        assert_eq!(ask("/ui/nothing.js", &[]).await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn graph_leads_to_query_with_all_that_was_asked() {
        let (status, headers, _) = ask("/graph?g0.expr=up%7Bjob%3D%22a%22%7D&g0.tab=1", &[]).await;
        assert_eq!(status, StatusCode::FOUND);
        assert_eq!(headers[header::LOCATION], "query?g0.expr=up%7Bjob%3D%22a%22%7D&g0.tab=1");
        assert_eq!(ask("/graph", &[]).await.1[header::LOCATION], "query");
    }

    #[tokio::test]
    async fn unknown_path_is_a_page_for_browsers_and_a_line_for_others() {
        let (status, headers, text) = ask("/no/such/%3Cb%3Epage", &[]).await;
        assert_eq!((status, text.as_slice()), (StatusCode::NOT_FOUND, &b"404 page not found\n"[..]));
        assert!(headers.contains_key(header::CONTENT_SECURITY_POLICY));
        let (status, headers, page) = ask("/no/such/page", &[(header::ACCEPT, "text/html,*/*;q=0.8")]).await;
        let page = String::from_utf8(page).unwrap();
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(page.contains("<head>\n<base href=\"./../../\">"), "{page}");
        assert!(page.contains(r#"content="queries storage""#), "{page}");
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("base-uri 'self'") && policy.contains("default-src 'none'"), "{policy}");
        // One segment below the base, as all pages are.
        let (_, _, page) = ask("/nowhere", &[(header::ACCEPT, "text/html")]).await;
        assert!(String::from_utf8(page).unwrap().contains("<base href=\"./\">"));
    }
}
