//! The prefix that all paths begin with, as Prometheus' `--web.route-prefix`: taken off before any route is
//! looked for, and put before where a redirect leads.

use std::convert::Infallible;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;

use crate::config::Settings;

/// Empty, or a path that begins with a slash and does not end with one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePrefix(String);

/// Where a path lies.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    /// Below the prefix: the rest, from its slash on.
    Inside(&'a str),
    /// The prefix itself or the root, from where clients are sent on.
    Entrance(StatusCode),
    Outside,
}

impl RoutePrefix {
    /// What the settings say: the path of the external URL unless a prefix is set.
    pub fn of(settings: &Settings) -> RoutePrefix {
        let prefix = match settings.route_prefix.0.as_str() {
            "" => path_of(settings.external_url.with_secrets()),
            set => set.trim_end_matches('/'),
        };
        RoutePrefix(prefix.to_owned())
    }

    /// An application below the prefix; what lies elsewhere is not there.
    pub fn around(&self, app: Router) -> Router {
        if self.0.is_empty() {
            return app;
        }
        let prefix = self.clone();
        Router::new().fallback(move |request: Request| {
            let (prefix, app) = (prefix.clone(), app.clone());
            async move { prefix.serve(app, request).await }
        })
    }

    async fn serve(&self, app: Router, mut request: Request) -> Response {
        let query = request.uri().query().map_or(String::new(), |q| format!("?{q}"));
        let inside = match self.place(request.uri().path()) {
            Place::Inside(rest) => format!("{rest}{query}").parse::<Uri>(),
            Place::Entrance(status) => {
                return (status, [(header::LOCATION, format!("{}/{query}", self.0))]).into_response();
            }
            Place::Outside => {
                return (StatusCode::NOT_FOUND, "404 page not found\n").into_response();
            }
        };
        // A path without what stood before it is one still.
        let Ok(inside) = inside else { return StatusCode::BAD_REQUEST.into_response() };
        *request.uri_mut() = inside;
        let mut response = app.oneshot(request).await.unwrap_or_else(|never: Infallible| match never {});
        self.put_before_location(&mut response);
        response
    }

    fn put_before_location(&self, response: &mut Response) {
        let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
        let absolute = location.filter(|l| l.starts_with('/') && !l.starts_with("//"));
        let moved = absolute.and_then(|l| HeaderValue::from_str(&format!("{}{l}", self.0)).ok());
        if let Some(moved) = moved {
            response.headers_mut().insert(header::LOCATION, moved);
        }
    }

    fn place<'a>(&self, path: &'a str) -> Place<'a> {
        match path.strip_prefix(self.0.as_str()) {
            Some("") => Place::Entrance(StatusCode::MOVED_PERMANENTLY),
            Some(rest) if rest.starts_with('/') => Place::Inside(rest),
            _ if path == "/" => Place::Entrance(StatusCode::FOUND),
            _ => Place::Outside,
        }
    }
}

/// The path of a URL, without a slash at its end.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    path.split(['?', '#']).next().unwrap_or("").trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;

    use super::*;

    #[test]
    fn route_prefix_is_the_path_of_the_external_url_unless_it_is_set() {
        let of = |url: &str, prefix: &str| {
            let mut settings = Settings::default();
            for (key, text) in [("http.external_url", url), ("http.route_prefix", prefix)] {
                let option = crate::config::TABLE.iter().find(|o| o.key == key).unwrap();
                (option.set)(&mut settings, text).unwrap();
            }
            RoutePrefix::of(&settings).0
        };
        assert_eq!(of("", ""), "");
        assert_eq!(of("https://h.example", ""), "");
        assert_eq!(of("https://h.example:1/a/b/", ""), "/a/b");
        assert_eq!(of("https://h.example/a", "/"), "");
        assert_eq!(of("https://h.example/a", "b/"), "/b");
    }

    #[tokio::test]
    async fn route_prefix_is_taken_off_and_put_before_redirects() {
        let app = Router::new()
            .route("/x", get(|uri: Uri| async move { uri.to_string() }))
            .route("/there", get(|| async { (StatusCode::FOUND, [(header::LOCATION, "/x")]) }))
            .route("/here", get(|| async { (StatusCode::FOUND, [(header::LOCATION, "x")]) }));
        let app = RoutePrefix("/p/q".into()).around(app);
        for (path, status, location) in [
            ("/p/q/x?a=b", 200, ""),
            ("/p/q/there", 302, "/p/q/x"),
            ("/p/q/here", 302, "x"),
            ("/", 302, "/p/q/"),
            ("/p/q?a", 301, "/p/q/?a"),
            ("/x", 404, ""),
            ("/p/qx", 404, ""),
            ("/p", 404, ""),
        ] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            let led = response.headers().get(header::LOCATION).map_or("", |l| l.to_str().unwrap());
            assert_eq!((response.status().as_u16(), led), (status, location), "{path}");
        }
    }
}
