//! The listener: an accept loop of its own, with the bounds that a server on a hostile network needs.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use parking_lot::Mutex;
use query::api::LongQuery;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tower::ServiceExt;

use super::client_stream::{Aside, ClientStream, HeadMemory, MAX_HEADER_BYTES};
use super::error_json::error_json;
use super::http2::{self, Activity, Patience};
use super::request_line::{MAX_TARGET_BYTES, Refusal};
use super::transport::{Accepted, handshake};
use super::unread_body::{self, UnreadBody};
use crate::auth::{Auth, ClientCertificate};
use crate::web_config::ServerTls;

/// What bounds a server.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections that are served at once.
    pub max_connections: usize,
    /// From a connection's start, or the end of its last request, to the end of the next request's head.
    pub header_timeout: Duration,
    /// How long a client may take nothing of what is written to it.
    pub write_timeout: Duration,
    /// How long a connection is kept, about: it ends with an answer. Zero: as long as the client likes.
    pub max_connection_age: Duration,
    /// Bytes of a URL.
    pub max_url_bytes: usize,
    /// How long requests in flight may go on once the server stops.
    pub drain_timeout: Duration,
}

/// Bytes that hyper reads ahead: a head as it gets it fits.
const READ_AHEAD_BYTES: usize = MAX_TARGET_BYTES + MAX_HEADER_BYTES + (8 << 10);

/// Connections beyond the bound: health checks are answered there, everything else waits for room. The oldest
/// gives way to a new one.
const RESERVE: usize = 64;
/// How long a request in the reserve waits for room.
const RESERVE_WAIT: Duration = Duration::from_secs(2);
/// How long a connection in the reserve may take to send a head.
const RESERVE_HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a TLS handshake may take; a head's time bounds it as well.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after an accept that failed for want of something (file handles above all), so that it does not
/// spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` is done, then drains. Returns how many connections were cut off at the deadline.
/// What `auth` says of TLS counts for connections that come afterwards. While `leaving` says so, connections
/// end with their next answer, so that clients go elsewhere.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    auth: Auth,
    bounds: Bounds,
    leaving: Arc<dyn Fn() -> bool + Send + Sync>,
    stop: impl Future<Output = ()>,
) -> usize {
    let graceful = GracefulShutdown::new();
    let room = Room::new(bounds.max_connections);
    let (stopped, stopping) = watch::channel(false);
    let shared = Shared { app, bounds, memory: Arc::default(), leaving, stopping };
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                if !is_the_clients(&e) {
                    tracing::warn!("a connection could not be accepted: {e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let seat = room.enter();
        let tls = auth.web_config().and_then(|web| web.tls.clone());
        let connection = connection(stream, tls, shared.clone(), seat.clone(), graceful.watcher());
        tokio::spawn(async move {
            let served = async {
                if let Err(e) = connection.await {
                    tracing::debug!(%peer, "connection ended: {e}");
                }
            };
            tokio::select! {
                () = served => {}
                () = seat.given_way() => tracing::debug!(%peer, "connection beyond http.max_connections gave way to a newer one"),
            }
            seat.left.store(true, Ordering::Release);
        });
    }
    drop(listener);
    let open = graceful.count();
    tracing::debug!(open, "no longer listening");
    let _ = stopped.send(true);
    match tokio::time::timeout(bounds.drain_timeout, graceful.shutdown()).await {
        Ok(()) => 0,
        Err(_) => room.taken(),
    }
}

/// What all connections share.
#[derive(Clone)]
struct Shared {
    app: Router,
    bounds: Bounds,
    memory: Arc<HeadMemory>,
    leaving: Arc<dyn Fn() -> bool + Send + Sync>,
    stopping: watch::Receiver<bool>,
}

/// Room for connections.
struct Room {
    max: usize,
    permits: Arc<Semaphore>,
    /// Oldest first.
    reserve: Mutex<VecDeque<Arc<Seat>>>,
}

/// A connection's place: a permit, or one in the reserve that may become a permit.
struct Seat {
    permits: Arc<Semaphore>,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    in_reserve: AtomicBool,
    give_way: Notify,
    left: AtomicBool,
}

impl Room {
    fn new(max_connections: usize) -> Room {
        let max = max_connections.min(Semaphore::MAX_PERMITS);
        Room { max, permits: Arc::new(Semaphore::new(max)), reserve: Mutex::default() }
    }

    fn enter(&self) -> Arc<Seat> {
        let permit = self.permits.clone().try_acquire_owned().ok();
        let in_reserve = permit.is_none();
        let seat = Arc::new(Seat {
            permits: self.permits.clone(),
            permit: Mutex::new(permit),
            in_reserve: AtomicBool::new(in_reserve),
            give_way: Notify::new(),
            left: AtomicBool::new(false),
        });
        if in_reserve {
            let mut reserve = self.reserve.lock();
            reserve.retain(|s| s.in_reserve.load(Ordering::Acquire) && !s.left.load(Ordering::Acquire));
            if reserve.len() >= RESERVE
                && let Some(oldest) = reserve.pop_front()
            {
                oldest.give_way.notify_one();
            }
            reserve.push_back(seat.clone());
        }
        seat
    }

    fn taken(&self) -> usize {
        self.max.saturating_sub(self.permits.available_permits())
    }
}

impl Seat {
    /// Waits until the connection has to go for a newer one in the reserve.
    async fn given_way(&self) {
        loop {
            self.give_way.notified().await;
            if self.in_reserve.load(Ordering::Acquire) {
                return;
            }
        }
    }

    /// Whether there is room for a request, at once or soon.
    async fn has_room(&self) -> bool {
        if !self.in_reserve.load(Ordering::Acquire) {
            return true;
        }
        let Ok(Ok(permit)) = tokio::time::timeout(RESERVE_WAIT, self.permits.clone().acquire_owned()).await
        else {
            return false;
        };
        *self.permit.lock() = Some(permit);
        self.in_reserve.store(false, Ordering::Release);
        true
    }
}

/// One connection from its first byte to its last.
async fn connection(
    stream: TcpStream,
    tls: Option<ServerTls>,
    shared: Shared,
    seat: Arc<Seat>,
    watcher: Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Shared { app, bounds, memory, leaving, mut stopping } = shared;
    let ends_at = ends_at(Instant::now(), bounds.max_connection_age);
    // Answers are written whole: waiting to fill a packet would only add latency.
    let _ = stream.set_nodelay(true);
    let header_timeout = match seat.in_reserve.load(Ordering::Acquire) {
        true => bounds.header_timeout.min(RESERVE_HEADER_TIMEOUT),
        false => bounds.header_timeout,
    };
    let accepted: Accepted = match tls {
        None => stream.into(),
        Some(tls) => tokio::select! {
            accepted = handshake(stream, &tls, header_timeout.min(HANDSHAKE_TIMEOUT)) => accepted?,
            _ = stopping.wait_for(|stopping| *stopping) => return Ok(()),
        },
    };
    let Accepted { transport, is_http2, certificate } = accepted;
    let aside = Arc::new(Aside::default());
    let activity = is_http2.then(Arc::<Activity>::default);
    let service = ConnectionService {
        app,
        aside: aside.clone(),
        seat,
        certificate,
        activity: activity.clone(),
        leaving,
        ends_at,
    };
    if let Some(activity) = activity {
        let stream = ClientStream::through(transport, bounds.write_timeout, memory);
        let patience = Patience { idle: header_timeout, write: bounds.write_timeout, ends_at };
        return Ok(http2::serve(stream, service, activity, patience, watcher, stopping).await?);
    }
    let stream = ClientStream::new(transport, bounds.max_url_bytes, bounds.write_timeout, memory, aside);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(READ_AHEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    Ok(watcher.watch(connection).await?)
}

/// The application as one connection sees it.
struct ConnectionService {
    app: Router,
    aside: Arc<Aside>,
    seat: Arc<Seat>,
    certificate: Option<ClientCertificate>,
    /// Of HTTP/2.
    activity: Option<Arc<Activity>>,
    leaving: Arc<dyn Fn() -> bool + Send + Sync>,
    ends_at: Option<Instant>,
}

impl ConnectionService {
    /// The request as routes of HTTP/1 know it: with a Host header, which names are checked by.
    fn with_host(&self, request: &mut Request<Incoming>) {
        let Some(activity) = &self.activity else { return };
        activity.request_came();
        if !request.headers().contains_key(header::HOST)
            && let Some(authority) = request.uri().authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            request.headers_mut().insert(header::HOST, host);
        }
    }
}

impl Service<Request<Incoming>> for ConnectionService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(refusal) = self.aside.take_refusal() {
            return Box::pin(std::future::ready(Ok(refused(&refusal))));
        }
        if let Some(aside) = request.uri().query().and_then(|q| self.aside.take_query(q)) {
            request.extensions_mut().insert(LongQuery::new(aside.query, aside.reservation));
        }
        if let Some(certificate) = &self.certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        self.with_host(&mut request);
        let (app, seat, activity) = (self.app.clone(), self.seat.clone(), self.activity.clone());
        let (leaving, ends_at) = (self.leaving.clone(), self.ends_at);
        // Below any prefix.
        let health = ["/-/healthy", "/-/ready"].iter().any(|path| request.uri().path().ends_with(path));
        Box::pin(async move {
            let (request, unread) = unread_body::watch(request);
            let mut response = if health || seat.has_room().await {
                app.oneshot(request).await?
            } else {
                drop(request);
                no_room()
            };
            Ok(match activity {
                Some(activity) => {
                    unread.into_iter().for_each(UnreadBody::linger_on_stream);
                    response.map(|body| activity.watched(body))
                }
                None => {
                    unread.into_iter().for_each(|unread| unread.linger(&mut response));
                    if leaving() || ends_at.is_some_and(|end| Instant::now() >= end) {
                        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                    }
                    response
                }
            })
        })
    }
}

/// The answer to a request that no place in the reserve became free for.
fn no_room() -> Response<Body> {
    let reason = "all connections are in use (http.max_connections): try again";
    let mut response = refused(&Refusal::new(503, reason));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    response
}

/// When a connection has been kept for long enough: a tenth sooner or later, so that those which began
/// together do not end together.
fn ends_at(began: Instant, age: Duration) -> Option<Instant> {
    use std::hash::{BuildHasher, RandomState};
    let spread = (RandomState::new().hash_one(began) % 2001) as f64 / 10_000.0;
    if age.is_zero() { None } else { began.checked_add(age.mul_f64(0.9 + spread)) }
}

/// The answer to what never reached a route; the connection ends with it.
fn refused(refusal: &Refusal) -> Response<Body> {
    let kind = if refusal.status >= 500 { "unavailable" } else { "bad_data" };
    let mut response = Response::new(Body::from(error_json(kind, &refusal.reason).to_string()));
    *response.status_mut() = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Errors of `accept` that concern one client, who is gone, and not the server.
fn is_the_clients(e: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(e.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// Binds, with an error that says where and what to do.
pub async fn bind(host: &str, port: u16) -> Result<(TcpListener, SocketAddr), String> {
    let what_to_do = |e: &io::Error| match e.kind() {
        io::ErrorKind::AddrInUse => {
            ": another process listens there (another Hearth?). Give another address with --listen"
        }
        io::ErrorKind::PermissionDenied => ": ports below 1024 need privileges. Give another with --listen",
        io::ErrorKind::AddrNotAvailable => {
            ": this machine does not have that address. Give another with --listen"
        }
        _ => "",
    };
    let fail = |e: io::Error| format!("cannot listen on {host}:{port}: {e}{}", what_to_do(&e));
    let listener = TcpListener::bind((host, port)).await.map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    Ok((listener, address))
}

/// Raises this process's soft limit on open files to its hard one, as Go programs do, and returns it: the
/// usual 1,024 would be all used by a thousand slow clients. `None` where the system does not say.
pub fn raise_file_limit() -> Option<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        return Some(hard);
    }
    Some(soft)
}

/// Open files that are kept for the log, blocks and the object store's connections.
const FILES_KEPT: u64 = 256;

/// The most connections that fit: what was asked for, or what open files allow.
pub fn connections_that_fit(asked: usize, file_limit: Option<u64>) -> usize {
    let room = file_limit.map_or(u64::MAX, |files| files.saturating_sub(FILES_KEPT).max(files / 2).max(1));
    asked.min(usize::try_from(room).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_ends_at_about_its_age() {
        let (began, age) = (Instant::now(), Duration::from_secs(300));
        let ages: Vec<Duration> = (0..200).filter_map(|_| Some(ends_at(began, age)? - began)).collect();
        assert_eq!(ages.len(), 200);
        assert!(ages.iter().all(|a| (269..=331).contains(&a.as_secs())), "{ages:?}");
        assert!(ages.iter().max().unwrap() > ages.iter().min().unwrap(), "they are spread");
        assert_eq!(ends_at(began, Duration::ZERO), None);
    }

    #[test]
    fn connections_leave_files_for_storage() {
        assert_eq!(connections_that_fit(16_384, Some(1024)), 768);
        assert_eq!(connections_that_fit(100, Some(1 << 20)), 100);
        assert_eq!(connections_that_fit(16_384, Some(64)), 32);
        assert_eq!(connections_that_fit(16_384, None), 16_384);
    }
}
