//! The HTTP server: an accept loop of its own, with the bounds that a server on a hostile network needs.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// What bounds a server.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections open at once; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// From a connection's start, or the end of its last request, to the end of the next request's head.
    pub header_timeout: Duration,
    /// How long requests in flight may go on once the server stops.
    pub drain_timeout: Duration,
}

/// Bytes of a request's head: a query in a URL may be long (64 KiB of text, percent-encoded), headers are not.
const HEAD_BYTES: usize = 256 << 10;

/// The pause after an accept that failed for want of something (file handles above all), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` is done, then drains. Returns how many connections were cut off at the deadline.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    bounds: Bounds,
    stop: impl Future<Output = ()>,
) -> usize {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(bounds.max_connections.min(Semaphore::MAX_PERMITS)));
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            // The place comes first: a connection that is accepted will be served.
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accepted => accepted,
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
        let connection = connection(stream, app.clone(), bounds);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!(%peer, "connection ended: {e}");
            }
            drop(place);
        });
    }
    drop(listener);
    let open = graceful.count();
    tracing::debug!(open, "no longer listening");
    match tokio::time::timeout(bounds.drain_timeout, graceful.shutdown()).await {
        Ok(()) => 0,
        Err(_) => bounds.max_connections.saturating_sub(places.available_permits()),
    }
}

type Connection = hyper::server::conn::http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>>;

fn connection(stream: TcpStream, app: Router, bounds: Bounds) -> Connection {
    // Answers are written whole: waiting to fill a packet would only add latency.
    let _ = stream.set_nodelay(true);
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app))
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

/// Raises this process's soft limit on open files to its hard one, as Go programs do, and returns it: the usual 1,024 would be all used by
/// a thousand slow clients. `None` where the system does not say.
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
    fn connections_leave_files_for_storage() {
        assert_eq!(connections_that_fit(16_384, Some(1024)), 768);
        assert_eq!(connections_that_fit(100, Some(1 << 20)), 100);
        assert_eq!(connections_that_fit(16_384, Some(64)), 32);
        assert_eq!(connections_that_fit(16_384, None), 16_384);
    }
}
