//! HTTP/2, with the bounds that HTTP/1 has: a connection without requests ends, and so does one whose client
//! does not read an answer.
//!
//! On HTTP/1 the connection's own stream sees both. Here answers share a connection, and one that nobody
//! reads waits for room of its own while the others go on: each body says when it last had to wait.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http2::Builder;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::client_stream::ClientStream;

/// Requests at once on one connection.
const MOST_STREAMS: u32 = 128;
/// Bytes of a request's head: more than the longest URL that the library takes.
const MAX_HEAD_BYTES: u32 = 96 << 10;
/// How often it is looked whether a connection or an answer has stood still.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long answers to `PING` may take to come.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// What happens on a connection.
#[derive(Default)]
pub struct Activity {
    last_request: Mutex<Option<Instant>>,
    answers: Mutex<Vec<Weak<Answer>>>,
}

/// One answer's body on its way.
struct Answer {
    /// Since when what it gave waits to be asked for more; `None` while it is the server that is waited for.
    waits_since: Mutex<Option<Instant>>,
}

impl Activity {
    pub fn request_came(&self) {
        *self.last_request.lock() = Some(Instant::now());
    }

    /// The body, watched.
    pub fn watched(&self, body: Body) -> Body {
        let answer = Arc::new(Answer { waits_since: Mutex::new(Some(Instant::now())) });
        let mut answers = self.answers.lock();
        answers.retain(|answer| answer.strong_count() > 0);
        answers.push(Arc::downgrade(&answer));
        Body::new(WatchedBody { body, answer })
    }

    /// Whether an answer is not read.
    fn is_stalled(&self, longest: Duration) -> bool {
        let waits = |answer: &Weak<Answer>| {
            let answer = answer.upgrade()?;
            let since = *answer.waits_since.lock();
            since.map(|since| since.elapsed())
        };
        self.answers.lock().iter().filter_map(waits).any(|waited| waited > longest)
    }

    /// For how long there has been no request and no answer on its way.
    fn idle_since(&self, begun: Instant) -> Option<Instant> {
        let busy = self.answers.lock().iter().any(|answer| answer.strong_count() > 0);
        (!busy).then(|| self.last_request.lock().unwrap_or(begun))
    }
}

struct WatchedBody {
    body: Body,
    answer: Arc<Answer>,
}

impl hyper::body::Body for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        let given = matches!(frame, Poll::Ready(Some(_)));
        *this.answer.waits_since.lock() = given.then(Instant::now);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How long a connection may stand still.
#[derive(Clone, Copy)]
pub struct Patience {
    /// Without a request.
    pub idle: Duration,
    /// With an answer that nobody reads.
    pub write: Duration,
    /// When it has been kept for long enough.
    pub ends_at: Option<Instant>,
}

/// Serves a connection to its end.
pub async fn serve<S>(
    stream: ClientStream,
    service: S,
    activity: Arc<Activity>,
    patience: Patience,
    watcher: Watcher,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), hyper::Error>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    let connection = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES)
        .keep_alive_interval(patience.idle)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let begun = Instant::now();
    let mut ending = false;
    let mut look = tokio::time::interval(LOOK_EVERY);
    let served = loop {
        tokio::select! {
            served = connection.as_mut() => break served,
            _ = stopping.wait_for(|stopping| *stopping), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = look.tick() => {
                if activity.is_stalled(patience.write) {
                    tracing::debug!("a client has not read its answer within http.write_timeout");
                    break Ok(());
                }
                let idle = activity.idle_since(begun).map(|since| since.elapsed());
                let is_old = patience.ends_at.is_some_and(|end| Instant::now() >= end);
                if !ending && (is_old || idle.is_some_and(|idle| idle > patience.idle)) {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    };
    // Until here the server's end waits for this connection.
    drop(watcher);
    served
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answer_that_is_not_asked_for_more_is_stalled() {
        let activity = Activity::default();
        let longest = Duration::from_millis(20);
        let mut body = activity.watched(Body::from("x"));
        tokio::time::sleep(3 * longest).await;
        assert!(activity.is_stalled(longest), "nobody took the first piece");
        let next = std::future::poll_fn(|cx| hyper::body::Body::poll_frame(Pin::new(&mut body), cx));
        assert!(next.await.is_some());
        assert!(!activity.is_stalled(longest) && activity.idle_since(Instant::now()).is_none());
        drop(body);
        assert!(!activity.is_stalled(Duration::ZERO));
        assert!(activity.idle_since(Instant::now()).is_some());
    }
}
