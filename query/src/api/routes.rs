//! Routes that answer other methods than their own as upstream's router does.

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};

use crate::api::error::PlainError;
use crate::api::response;

/// The methods of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Methods {
    pub names: &'static [&'static str],
    /// What others are told.
    pub allow: &'static str,
}

pub const GET: Methods = Methods { names: &["GET"], allow: "GET, OPTIONS" };
pub const GET_HEAD: Methods = Methods { names: &["GET", "HEAD"], allow: "GET, HEAD, OPTIONS" };
pub const GET_POST: Methods = Methods { names: &["GET", "POST"], allow: "GET, OPTIONS, POST" };
pub const POST: Methods = Methods { names: &["POST"], allow: "OPTIONS, POST" };
pub const POST_PUT: Methods = Methods { names: &["POST", "PUT"], allow: "OPTIONS, POST, PUT" };
pub const DELETE: Methods = Methods { names: &["DELETE"], allow: "DELETE, OPTIONS" };

impl Methods {
    fn filter(self) -> MethodFilter {
        let one = |name: &&str| match *name {
            "POST" => MethodFilter::POST,
            "PUT" => MethodFilter::PUT,
            "DELETE" => MethodFilter::DELETE,
            "HEAD" => MethodFilter::HEAD,
            _ => MethodFilter::GET,
        };
        let all = self.names.iter().map(one).reduce(MethodFilter::or);
        all.unwrap_or(MethodFilter::GET)
    }
}

/// A router under construction, and what is in it.
pub struct Routes<S> {
    pub router: Router<S>,
    pub listed: Vec<(&'static str, Methods)>,
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Routes { router: Router::new(), listed: Vec::new() }
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub fn add<H, T>(mut self, path: &'static str, methods: Methods, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        let refuse = move |request: Request| async move { wrong_method(&request, methods) };
        let mut route = on(methods.filter(), handler).fallback(refuse);
        if methods.names.contains(&"GET") && !methods.names.contains(&"HEAD") {
            // Where GET is taken, HEAD is too, unless something else is said.
            route = route.head(refuse);
        }
        self.router = self.router.route(path, route);
        self.listed.push((path, methods));
        self
    }
}

/// Below `/api/v1` every OPTIONS is a browser's question about origins, whose headers are added further out.
fn wrong_method(request: &Request, methods: Methods) -> Response {
    if request.method() == Method::OPTIONS {
        return response::no_content();
    }
    let mut response = PlainError::wrong_method().into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods.allow));
    response
}

/// What is not there.
pub async fn unknown(request: Request) -> Response {
    match *request.method() {
        Method::OPTIONS => response::no_content(),
        _ => PlainError::not_found().into_response(),
    }
}
