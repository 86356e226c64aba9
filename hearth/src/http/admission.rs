//! Who sends a request and for whom: asked of every request before a route sees it.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use model::clock::SystemClock;
use model::identity::{Caller, Right};

use super::error_json::json_error;
use crate::auth::access::{self, Need};
use crate::auth::audit::{AuditLog, Entry};
use crate::auth::{Auth, ClientCertificate, Denied};

/// Puts a [`Caller`] beside the request, or refuses it; what was asked of the admin API is written down.
pub async fn identify(State(auth): State<Auth>, mut request: Request, next: Next) -> Response {
    let mut response = if auth.lets_pass() {
        let certificate = request.extensions().get::<ClientCertificate>();
        let (method, path) = (request.method(), request.uri().path());
        let admitted = auth.admit(method, path, request.headers(), certificate).await;
        let mut entry = audited(&request);
        let response = match admitted {
            Ok(caller) => {
                if let Some(entry) = &mut entry {
                    (entry.who, entry.tenant) =
                        (caller.identity.name.to_string(), caller.tenants.to_string());
                }
                request.extensions_mut().insert::<Caller>(caller);
                next.run(request).await
            }
            Err(denied) => refused(&auth, &denied, path),
        };
        if let Some(entry) = entry {
            auth.audit().write(Entry { status: response.status(), ..entry }, &SystemClock).await;
        }
        response
    } else {
        // As upstream.
        (StatusCode::TOO_MANY_REQUESTS, "Too Many Requests\n").into_response()
    };
    if let Some(web) = auth.web_config() {
        for (name, value) in &web.headers {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// What is to be written down of a request, if anything is; who asks is not known yet.
fn audited(request: &Request) -> Option<Entry> {
    let (method, path) = (request.method(), request.uri().path());
    let need = access::of(method, path).need;
    if matches!(*method, Method::GET | Method::HEAD) {
        // None of them changes anything, and who looks for holes asks for thousands of paths.
        return None;
    }
    matches!(need, Need::Tenant(Right::Admin) | Need::Process(Right::Admin)).then(|| Entry {
        who: "nobody known".into(),
        tenant: String::new(),
        method: method.clone(),
        path: path.chars().take(200).collect(),
        query: AuditLog::query_of(request.uri()),
        status: StatusCode::OK,
        request_id: request
            .headers()
            .get("x-request-id")
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
    })
}

/// The answer to what is refused: a sentence, in JSON where an API is asked.
fn refused(auth: &Auth, denied: &Denied, path: &str) -> Response {
    let kind = match denied.status {
        StatusCode::BAD_REQUEST => "bad_data",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        StatusCode::UNAUTHORIZED => "unauthorized",
        _ => "forbidden",
    };
    let mut response = match path.starts_with("/api/v1/") {
        true => json_error(denied.status, kind, &denied.reason),
        false => (denied.status, format!("{}\n", denied.reason)).into_response(),
    };
    for (name, value) in auth.challenges(denied) {
        response.headers_mut().append(name, value);
    }
    if denied.status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
