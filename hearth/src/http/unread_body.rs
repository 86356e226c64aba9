//! What is left of a request's body once it was answered: read and dropped for a while, because a connection
//! that is closed over bytes that nobody read is reset, and the client never sees its answer.
//!
//! Refusals come before the body is read, and many clients send all of it before they look for an answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, Response, header};
use hyper::body::{Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::time::timeout;

/// What may be left on a connection that goes on with the next request: as much as Go's server takes. A
/// connection with more, or with nobody knows how much, ends with the answer.
const MAX_KEPT_BYTES: u64 = 256 << 10;
/// How long the rest is read at most, and how long its next piece may take to come.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_IDLE: Duration = Duration::from_secs(5);

/// The request with a body that hands over what is left of it, and who gets that. `None` where there is no
/// body.
pub fn watch(request: Request<Incoming>) -> (Request<Body>, Option<UnreadBody>) {
    if hyper::body::Body::is_end_stream(request.body()) {
        return (request.map(Body::new), None);
    }
    let unread = UnreadBody(Arc::new(Left {
        asked_for: AtomicBool::new(!request.headers().contains_key(header::EXPECT)),
        body: Mutex::new(None),
    }));
    let left = unread.0.clone();
    (request.map(|body| Body::new(WatchedBody { body: Some(body), left })), Some(unread))
}

/// What is left of a body, once its reader dropped it.
pub struct UnreadBody(Arc<Left>);

struct Left {
    /// Whether the client sends it: one that says `Expect: 100-continue` waits until the body is read.
    asked_for: AtomicBool,
    body: Mutex<Option<Incoming>>,
}

impl UnreadBody {
    /// Once the answer is known: has it say that the connection ends where much is left, and reads that.
    pub fn linger(self, answer: &mut Response<Body>) {
        let Some(body) = self.rest() else { return };
        let left = hyper::body::Body::size_hint(&body).upper();
        // To read what was not asked for would be to ask for it.
        let asked_for = self.drop_in_time(body);
        if !asked_for || left.is_none_or(|bytes| bytes > MAX_KEPT_BYTES) {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// The same on HTTP/2, where the others of a connection go on: only the stream would be reset, which some
    /// clients take for a failure of it, whatever was answered before.
    pub fn linger_on_stream(self) {
        if let Some(body) = self.rest() {
            self.drop_in_time(body);
        }
    }

    /// The body, if something of it is left.
    fn rest(&self) -> Option<Incoming> {
        self.0.body.lock().take().filter(|body| !hyper::body::Body::is_end_stream(body))
    }

    /// Reads a body for a while, if its client sends it; whether it does.
    fn drop_in_time(&self, body: Incoming) -> bool {
        let asked_for = self.0.asked_for.load(Ordering::Relaxed);
        if asked_for {
            tokio::spawn(timeout(LINGER, drop_all(body)));
        }
        asked_for
    }
}

/// Reads to the end, or until nothing comes.
async fn drop_all(mut body: Incoming) {
    loop {
        let next = std::future::poll_fn(|cx| hyper::body::Body::poll_frame(Pin::new(&mut body), cx));
        let Ok(Some(Ok(_))) = timeout(LINGER_IDLE, next).await else { return };
    }
}

struct WatchedBody {
    /// Until it is dropped.
    body: Option<Incoming>,
    left: Arc<Left>,
}

impl hyper::body::Body for WatchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        this.left.asked_for.store(true, Ordering::Relaxed);
        match &mut this.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(hyper::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, hyper::body::Body::size_hint)
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        *self.left.body.lock() = self.body.take();
    }
}
