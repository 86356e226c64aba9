//! What the server answers: the routes of every role, the server's own, and what wraps them all.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::FutureExt;
use members::routes::ASK;
use model::clock::{Clock, SystemClock};
use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::exponential_buckets;
use prometheus_client::registry::Registry;
use query::api::notifications::{self, Notifications};
use query::api::progress::ReplayProgress;
use query::api::routes::{GET, GET_HEAD, Routes};
use query::api::{BuildInfo, PlainError};
use tower::ServiceExt;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tracing::{Instrument, Span};
use tsdb::db::Db;

use super::admission::identify;
use super::elsewhere;
use super::error_json::{error_json, json_error};
use super::exposition;
use super::guard::Guard;
use super::prefix::RoutePrefix;
use super::request_line::{self, PathIs};
use crate::auth::Auth;
use crate::config::value::Role;
use crate::traces::{self, Context, TraceLabel};

/// Where tenants' rules are: a namespace may have a slash, spelled `%2F`, so these paths are taken as sent.
const RULE_PATHS: [&str; 3] = ["/config/v1/rules/", "/api/prom/rules/", "/api/v1/rules/"];

/// The APIs beyond Prometheus' that a process of this role serves, and the page shows views of.
fn serves(role: Role) -> &'static [&'static str] {
    match role {
        Role::All => &["cardinality", "estimate", "queries", "storage", "tenants"],
        Role::Query | Role::Rules => &["cardinality", "estimate", "queries", "storage", "members"],
        Role::Ingest | Role::Compact => &[],
    }
}

/// What the server knows of itself; clones share it.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    registry: RwLock<Registry>,
    metrics: Metrics,
    /// The routes that need the store, once it is open.
    roles: OnceLock<Router>,
    /// What other members may ask while this one waits to be known, before the rest is open.
    for_members: RwLock<Option<Router>>,
    guard: Guard,
    prefix: RoutePrefix,
    auth: Auth,
    role: Role,
    notifications: Notifications,
    replay: Arc<ReplayProgress>,
    /// What the store could not be opened for so far.
    waiting_for: RwLock<Option<String>>,
    stopping: AtomicBool,
    next_id: AtomicU64,
}

impl Server {
    /// `prefix` is what all paths begin with, `auth` what every request is asked, `role` what part of Hearth
    /// this is.
    pub fn new(mut registry: Registry, guard: Guard, prefix: RoutePrefix, auth: Auth, role: Role) -> Server {
        let metrics = Metrics::register(&mut registry);
        let notifications = Notifications::default();
        notifications.add(notifications::STARTING, SystemClock.now_ms());
        Server(Arc::new(Inner {
            registry: RwLock::new(registry),
            metrics,
            roles: OnceLock::new(),
            guard,
            prefix,
            auth,
            role,
            notifications,
            replay: Arc::default(),
            for_members: RwLock::default(),
            waiting_for: RwLock::default(),
            stopping: AtomicBool::new(false),
            next_id: AtomicU64::new(0),
        }))
    }

    /// Adds metrics; for parts that come up later than the server.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.0.registry.write())
    }

    /// All metrics as OpenMetrics text. The store's collector walks the head, which takes a while where it
    /// holds a million series: hence a thread that may block.
    pub async fn metrics_text(&self) -> String {
        let server = self.clone();
        tokio::task::spawn_blocking(move || server.metrics_text_blocking()).await.unwrap_or_else(|e| {
            tracing::error!("metrics could not be written out: {e}");
            String::new()
        })
    }

    /// The same on the caller's thread.
    pub fn metrics_text_blocking(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail, and a collector that did would leave the text before it.
        if prometheus_client::encoding::text::encode(&mut text, &self.0.registry.read()).is_err() {
            tracing::error!("metrics could not be written out completely");
        }
        text
    }

    /// What whoever runs the process should know.
    pub fn notifications(&self) -> &Notifications {
        &self.0.notifications
    }

    /// How far the log was replayed.
    pub fn replay(&self) -> &Arc<ReplayProgress> {
        &self.0.replay
    }

    /// From here on the server is ready: `roles` are the routes of ingest and query, `db` is what
    /// `POST /-/flush` flushes.
    pub fn open(&self, roles: Router, db: Arc<Db>) {
        let roles = Router::new().route("/-/flush", post(flush)).with_state(db).merge(roles);
        self.open_roles(roles);
    }

    /// The same for a process without a store to flush. Paths of other roles are answered with a sentence
    /// that says which.
    pub fn open_roles(&self, roles: Router) {
        let role = self.0.role;
        let nowhere = roles.fallback(query::ui::not_found(serves(role)));
        let elsewhere = middleware::from_fn(move |request: Request, next: Next| async move {
            let uri = request.uri().clone();
            let answer = next.run(request).await;
            match answer.status() {
                StatusCode::NOT_FOUND => elsewhere::answer(role, &uri).unwrap_or(answer),
                _ => answer,
            }
        });
        let _ = self.0.roles.set(nowhere.layer(elsewhere));
        self.open_to_members(None);
        self.0.notifications.remove(notifications::STARTING);
    }

    /// Answers other members' questions although the rest is not open yet; `None`: no more.
    pub fn open_to_members(&self, routes: Option<Router>) {
        *self.0.for_members.write() = routes;
    }

    /// Has `/-/ready` say what the start waits for.
    pub fn wait_for(&self, what: &str) {
        *self.0.waiting_for.write() = Some(what.to_owned());
    }

    /// From here on `/-/ready` says no, so that load balancers send nothing new.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
        self.0.notifications.add(notifications::STOPPING, SystemClock.now_ms());
        // Who listens for changes would keep the process until its deadline.
        self.0.notifications.close();
    }

    pub fn stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    fn ready(&self) -> bool {
        self.0.roles.get().is_some() && !self.stopping()
    }

    /// Everything the server answers, before and after the store is open.
    pub fn app(&self) -> Router {
        let app = Routes::default()
            .add("/-/healthy", GET_HEAD, healthy)
            .add("/-/ready", GET_HEAD, ready)
            .add("/metrics", GET, metrics)
            .add("/version", GET, version);
        let app = app
            .router
            // The page is there while the store opens, and says so.
            .merge(query::ui::router(serves(self.0.role)))
            .fallback(to_roles)
            // Outermost last: a panic is caught inside of compression and counting, and becomes an answer
            // like any other.
            .layer(middleware::from_fn_with_state(self.0.auth.clone(), identify))
            .layer(middleware::from_fn_with_state(self.clone(), admit))
            .layer(
                CompressionLayer::new()
                    .gzip(true)
                    .deflate(true)
                    .zstd(true)
                    .quality(CompressionLevel::Fastest)
                    .compress_when(is_worth_compressing),
            )
            .layer(middleware::from_fn_with_state(self.clone(), observe))
            .with_state(self.clone());
        self.0.prefix.around(app)
    }
}

async fn healthy() -> &'static str {
    "Prometheus Server is Healthy.\n"
}

async fn ready(State(server): State<Server>) -> Response {
    if server.ready() { "Prometheus Server is Ready.\n".into_response() } else { not_ready(&server) }
}

fn not_ready(server: &Server) -> Response {
    let text = match &*server.0.waiting_for.read() {
        _ if server.stopping() => "Hearth is stopping.\n".to_owned(),
        Some(what) => format!("Hearth cannot open its store yet and tries again: {what}\n"),
        None => "Hearth is opening its store: try again in a moment.\n".to_owned(),
    };
    unavailable(server, text)
}

/// `503`, with upstream's word on whether the process is about to end.
fn unavailable(server: &Server, text: impl IntoResponse) -> Response {
    const STOPPING: HeaderName = HeaderName::from_static("x-prometheus-stopping");
    let stopping = if server.stopping() { "true" } else { "false" };
    let headers = [(header::RETRY_AFTER, "1"), (STOPPING, stopping)];
    (StatusCode::SERVICE_UNAVAILABLE, headers, text).into_response()
}

/// `GET /metrics`, in the format that is asked for.
async fn metrics(State(server): State<Server>, headers: HeaderMap) -> Response {
    exposition::answer(server.metrics_text().await, &headers)
}

/// `GET /version`: upstream's, with its type too.
async fn version() -> Response {
    let text = serde_json::to_string(&BuildInfo::default()).unwrap_or_default() + "\n";
    text.into_response()
}

/// Everything that has a body, short answers too: clients that ask for gzip may count on it.
fn is_worth_compressing(
    status: StatusCode,
    _: axum::http::Version,
    headers: &HeaderMap,
    _: &axum::http::Extensions,
) -> bool {
    // Sent piece by piece, each to be had at once; and what readers of chunks expect as it is.
    let streams: [&[u8]; 2] = [b"text/event-stream", b"application/x-streamed-protobuf"];
    let kind = headers.get(header::CONTENT_TYPE).map_or(b"".as_slice(), HeaderValue::as_bytes);
    let is_stream = streams.iter().any(|stream| kind.starts_with(stream));
    let is_empty = headers.get(header::CONTENT_LENGTH).is_some_and(|l| l.as_bytes() == b"0");
    !is_stream && !is_empty && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

/// Turns away what the guard refuses, and reads the path as Prometheus' router does.
async fn admit(State(server): State<Server>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if let Some(why) = server.0.guard.refuses(request.method(), path, request.headers()) {
        return json_error(StatusCode::FORBIDDEN, "forbidden", &why);
    }
    match request_line::path(path) {
        PathIs::Plain => {}
        PathIs::Malformed => {
            let why = format!("the path {path:?} has a percent sign without two hexadecimal digits");
            return json_error(StatusCode::BAD_REQUEST, "bad_data", &why);
        }
        PathIs::Elsewhere(path) => return redirect(&path, request.uri().query()),
        // Mimir's API of rules takes paths as they are sent: a namespace is a file's name, slashes and all.
        PathIs::Spelled(_) if RULE_PATHS.iter().any(|rules| path.contains(rules)) => {}
        PathIs::Spelled(path) => {
            let query = request.uri().query().map_or(String::new(), |q| format!("?{q}"));
            if let Ok(target) = format!("{path}{query}").parse() {
                *request.uri_mut() = target;
            }
        }
    }
    next.run(request).await
}

/// `307 Temporary Redirect`, as Go's `ServeMux` answers.
fn redirect(path: &str, query: Option<&str>) -> Response {
    let location = query.map_or(path.to_owned(), |q| format!("{path}?{q}"));
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response()
}

async fn to_roles(State(server): State<Server>, request: Request) -> Response {
    let of_members = || server.0.for_members.read().clone().filter(|_| request.uri().path() == ASK);
    match server.0.roles.get().cloned().or_else(of_members) {
        Some(roles) => roles.oneshot(request).await.unwrap_or_else(|never: Infallible| match never {}),
        None => opening(&server, &request),
    }
}

/// While the store is not open: how far it is, what there is to know, and of everything else that it is not
/// there yet.
fn opening(server: &Server, request: &Request) -> Response {
    let path = request.uri().path();
    match path {
        _ if *request.method() != Method::GET => {}
        "/api/v1/status/walreplay" => return query::api::walreplay_answer(server.0.replay.get()),
        "/api/v1/notifications" => return query::api::notifications_answer(&server.0.notifications),
        "/api/v1/notifications/live" => {
            return query::api::live_notifications_answer(&server.0.notifications);
        }
        _ => {}
    }
    match path.starts_with("/api/v1/") || path == "/federate" {
        true => unavailable(server, "Service Unavailable"),
        false => not_ready(server),
    }
}

/// Turns the head into blocks and answers when they are committed, with what was written.
async fn flush(State(db): State<Arc<Db>>) -> Response {
    // In a task of its own: a client that goes away leaves no half-done flush behind.
    let flushed = tokio::spawn(async move { db.flush().await }).await;
    let (status, body) = match flushed {
        Ok(Ok(report)) => (StatusCode::OK, serde_json::json!({ "status": "success", "data": report })),
        Ok(Err(e)) => (StatusCode::SERVICE_UNAVAILABLE, error_json("unavailable", &e.to_string())),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            error_json("internal", "the flush ended unexpectedly; nothing is lost, the log has everything"),
        ),
    };
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Wraps every request: a name to find it by in the log, its count and time, and an answer even if its
/// handler panics.
async fn observe(State(server): State<Server>, mut request: Request, next: Next) -> Response {
    let id = request_id(&server, request.headers());
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let trace = traces::begin(&path, request.headers());
    let span = request_span(&id, &method, &path, trace);
    let started = Instant::now();
    server.0.metrics.in_flight.inc();
    let gone = Gone(&server.0.metrics.in_flight);
    let mut response = match AssertUnwindSafe(next.run(request).instrument(span.clone())).catch_unwind().await
    {
        Ok(response) => response,
        Err(panic) => panicked(&path, &*panic),
    };
    drop(gone);
    if response.status() == StatusCode::METHOD_NOT_ALLOWED && response.body().is_end_stream() {
        response = wrong_method(&method, &path, response.headers().get(header::ALLOW));
    }
    if method == Method::OPTIONS {
        // axum's own: what a browser asks is about origins.
        response.headers_mut().remove(header::ALLOW);
    }
    let took = started.elapsed();
    let status = response.status().as_u16();
    let handler = handler_of(&path, status);
    server
        .0
        .metrics
        .requests
        .get_or_create(&RequestLabels { handler, method: method_of(&method), code: status })
        .inc();
    let durations = server.0.metrics.durations.get_or_create(&HandlerLabels { handler });
    // With its time, an exemplar that is scraped again is known to be the same.
    durations.observe(took.as_secs_f64(), trace.map(TraceLabel::from), Some(SystemTime::now()));
    span.record("status", status);
    span.in_scope(|| tracing::debug!(%method, path, status, took_ms = took.as_millis() as u64, "request"));
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The answer of routes that say nothing of the methods they do not take.
fn wrong_method(method: &Method, path: &str, allow: Option<&HeaderValue>) -> Response {
    if *method == Method::OPTIONS && path.starts_with("/api/v1/") {
        return StatusCode::NO_CONTENT.into_response();
    }
    let mut response = PlainError::wrong_method().into_response();
    let allow = allow.map(|allow| match path.starts_with("/api/v1/") {
        true => upstream_allow(allow),
        false => allow.clone(),
    });
    if let Some(allow) = allow {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// The methods of a route as upstream's router lists them: OPTIONS among them, HEAD not, in order.
fn upstream_allow(allow: &HeaderValue) -> HeaderValue {
    let named = allow.to_str().unwrap_or("").split(',').map(str::trim);
    let mut all: Vec<&str> = named.filter(|m| !matches!(*m, "" | "HEAD")).chain(["OPTIONS"]).collect();
    all.sort_unstable();
    all.dedup();
    HeaderValue::from_str(&all.join(", ")).unwrap_or_else(|_| allow.clone())
}

/// What everything that is logged for a request says of it, and the beginning of its trace.
fn request_span(id: &HeaderValue, method: &Method, path: &str, trace: Option<Context>) -> Span {
    let (id, status) = (id.to_str().unwrap_or(""), tracing::field::Empty);
    match trace {
        None => tracing::info_span!("request", id),
        Some(Context { trace_id, parent_id }) => {
            let (trace_id, parent_id) = (format!("{trace_id:032x}"), format!("{parent_id:016x}"));
            tracing::info_span!("request", id, %method, path, trace_id, parent_id, status)
        }
    }
}

/// Counts down even when the client goes away in the middle.
struct Gone<'a>(&'a Gauge);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn panicked(path: &str, panic: &(dyn Any + Send)) -> Response {
    let what = panic.downcast_ref::<&str>().copied();
    let what = what.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    tracing::error!(path, "a request's handler panicked, which is a bug: {what}");
    let body = error_json(
        "internal",
        "internal error: the request could not be completed; the server's log has more",
    )
    .to_string();
    (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The client's own id where it sent a sane one, else the next number.
fn request_id(server: &Server, headers: &HeaderMap) -> HeaderValue {
    let sane = |v: &&HeaderValue| {
        (1..=64).contains(&v.len())
            && v.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(b))
    };
    match headers.get(REQUEST_ID).filter(sane) {
        Some(id) => id.clone(),
        None => HeaderValue::from(server.0.next_id.fetch_add(1, Ordering::Relaxed)),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    handler: &'static str,
    method: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandlerLabels {
    handler: &'static str,
}

/// 1 ms to 65 s: from a health check to a query over years.
#[derive(Clone)]
struct Durations;

impl MetricConstructor<HistogramWithExemplars<TraceLabel>> for Durations {
    fn new_metric(&self) -> HistogramWithExemplars<TraceLabel> {
        HistogramWithExemplars::new(exponential_buckets(0.001, 4.0, 9))
    }
}

/// What is counted of requests.
struct Metrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<HandlerLabels, HistogramWithExemplars<TraceLabel>, Durations>,
    in_flight: Gauge,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            requests: Family::default(),
            durations: Family::new_with_constructor(Durations),
            in_flight: Gauge::default(),
        };
        let r = registry.sub_registry_with_prefix("hearth_http");
        r.register(
            "requests",
            "Requests answered, by handler, method and status code",
            metrics.requests.clone(),
        );
        r.register(
            "request_duration_seconds",
            "Time to the head of the answer, by handler",
            metrics.durations.clone(),
        );
        r.register("requests_in_flight", "Requests being answered", metrics.in_flight.clone());
        metrics
    }
}

/// Prefixes of the paths that are counted by name. Whatever else is asked for is `other`, so that a scanner
/// cannot make series.
const HANDLERS: [&str; 34] = [
    "/-/flush",
    "/-/healthy",
    "/-/quit",
    "/-/ready",
    "/-/reload",
    "/api/prom/rules",
    "/api/v1/alertmanagers",
    "/api/v1/alerts",
    "/api/v1/estimate",
    "/api/v1/features",
    "/api/v1/format_query",
    "/api/v1/label/",
    "/api/v1/labels",
    "/api/v1/metadata",
    "/api/v1/notifications",
    "/api/v1/otlp/",
    "/api/v1/push",
    "/api/v1/queries",
    "/api/v1/query_exemplars",
    "/api/v1/query_range",
    "/api/v1/query",
    "/api/v1/read",
    "/api/v1/rules",
    "/api/v1/search/",
    "/api/v1/series",
    "/api/v1/status/",
    "/api/v1/write",
    "/config/v1/rules",
    "/debug/pprof/",
    "/federate",
    "/internal/v1/ask",
    "/metrics",
    "/runtime_config",
    "/version",
];

fn handler_of(path: &str, status: u16) -> &'static str {
    match status {
        404 => "other",
        _ if path == "/" || path.starts_with("/ui/") || is_page(path) => "/",
        _ => HANDLERS.into_iter().find(|h| path.starts_with(h)).unwrap_or("other"),
    }
}

fn is_page(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|page| page == "graph" || query::ui::PAGES.contains(&page))
}

fn method_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;

    async fn get_text(app: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn panic_is_an_answer_and_the_server_lives_on() {
        let server = Server::new(
            Registry::default(),
            Guard::default(),
            RoutePrefix::default(),
            Auth::open(),
            Role::All,
        );
        let app = server.app();
        assert_eq!(get_text(&app, "/-/healthy").await.0, StatusCode::OK);
        assert_eq!(get_text(&app, "/-/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get_text(&app, "/api/v1/query").await.0, StatusCode::SERVICE_UNAVAILABLE);

        async fn bad() -> &'static str {
            panic!("on purpose")
        }
        let _ = server.0.roles.set(Router::new().route("/bad", get(bad)));
        assert_eq!(get_text(&app, "/-/ready").await.0, StatusCode::OK);
        let (status, body) = get_text(&app, "/bad").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body.contains("internal error") && !body.contains("on purpose"), "{body}");
        assert_eq!(get_text(&app, "/nowhere").await.0, StatusCode::NOT_FOUND);

        let (_, text) = get_text(&app, "/metrics").await;
        assert!(
            text.contains(r#"hearth_http_requests_total{handler="other",method="GET",code="500"} 1"#),
            "{text}"
        );
        assert!(text.contains("hearth_http_requests_in_flight 1\n"), "{text}");

        server.stop();
        assert_eq!(get_text(&app, "/-/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn request_keeps_the_id_it_came_with() {
        let app = Server::new(
            Registry::default(),
            Guard::default(),
            RoutePrefix::default(),
            Auth::open(),
            Role::All,
        )
        .app();
        for (sent, kept) in [("abc-1", true), ("has space", false)] {
            let request = Request::get("/-/healthy").header(REQUEST_ID, sent).body(Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.headers()[REQUEST_ID] == sent, kept);
        }
    }
}
