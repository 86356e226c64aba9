//! Successful answers: the envelope around small data, and lists and query results written piece by piece as
//! the client takes them.

pub(in crate::api) mod cache;
pub(in crate::api) mod matrix;
pub(in crate::api) mod resolution;
pub(in crate::api) mod stats;
pub(in crate::api) mod streamed;
pub(in crate::api) mod syntax_tree;
mod value;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use http_body::{Frame, SizeHint};
use model::source::{Budget, SourceError};

use crate::api::json;

pub use stats::Stats;
pub use value::ResultWriter;

/// How large a piece grows before it is handed to the connection. At several hundred megabytes a second a
/// piece costs the runtime's thread about a fifth of a millisecond.
pub(in crate::api) const PIECE_BYTES: usize = 64 << 10;

/// What a connection takes to send a long answer, beside the answer: the encoder's window and tables where it
/// is compressed (zstd: about 1.3 MiB), and what waits to be written.
pub(in crate::api) const SENDING_BYTES: u64 = 2 << 20;

/// Warnings and infos beside the data; empty ones are left out of the answer.
#[derive(Clone, Debug, Default)]
pub struct Warnings {
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
}

impl Warnings {
    pub fn truncated() -> Warnings {
        Warnings { warnings: vec![TRUNCATED.into()], infos: vec![] }
    }

    pub(in crate::api) fn write(&self, out: &mut Vec<u8>) {
        for (name, texts) in [("warnings", &self.warnings), ("infos", &self.infos)] {
            if !texts.is_empty() {
                out.extend_from_slice(format!(",\"{name}\":").as_bytes());
                json::strings(out, texts);
            }
        }
    }
}

/// The warning of an answer that `limit` cut.
pub const TRUNCATED: &str = "results truncated due to limit";

pub(in crate::api) const HEAD: &[u8] = br#"{"status":"success","data":"#;

/// `{"status":"success","data":…}` with data that `write` appends.
pub fn success(warnings: &Warnings, write: impl FnOnce(&mut Vec<u8>)) -> Response {
    let mut out = HEAD.to_vec();
    write(&mut out);
    warnings.write(&mut out);
    out.push(b'}');
    respond(Body::from(out))
}

/// Success, with data through serde.
pub fn small<T: serde::Serialize + ?Sized>(data: &T) -> Response {
    success(&Warnings::default(), |out| json::small(out, data))
}

/// Success without data.
pub fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

pub(in crate::api) fn respond(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Keeps the memory of an answer reserved until all of it is sent, or its client is gone; where it is long,
/// with what sending it takes.
pub(in crate::api) fn reserving(response: Response, budget: Arc<Budget>) -> Result<Response, SourceError> {
    if response.body().size_hint().exact().is_none_or(|bytes| bytes > PIECE_BYTES as u64) {
        budget.reserve(SENDING_BYTES)?;
    }
    Ok(response.map(|body| Body::new(Reserved { body, _budget: budget })))
}

struct Reserved {
    body: Body,
    _budget: Arc<Budget>,
}

impl HttpBody for Reserved {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Something that is written a piece at a time.
pub trait Pieces: Send + 'static {
    /// Appends until `out` has about `PIECE_BYTES` or all is written; whether there is more.
    fn fill(&mut self, out: &mut Vec<u8>) -> bool;
}

/// One piece and no more becomes a plain body with a length; longer answers are written when the connection
/// asks for the next piece, so that a slow client costs memory for the result and one piece, but no thread.
/// Dropping the body stops the work.
pub fn streamed(mut pieces: impl Pieces) -> Response {
    let mut first = Vec::with_capacity(4 << 10);
    if !pieces.fill(&mut first) {
        return respond(Body::from(first));
    }
    let rest = Rest { first: Some(first), pieces: Some(pieces) };
    respond(Body::from_stream(futures::stream::iter(rest)))
}

/// The pieces one after the other. Past the end it stays at the end: compression layers ask once more than
/// they need to.
struct Rest<P> {
    first: Option<Vec<u8>>,
    pieces: Option<P>,
}

impl<P: Pieces> Iterator for Rest<P> {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(first) = self.first.take() {
            return Some(Ok(Bytes::from(first)));
        }
        let pieces = self.pieces.as_mut()?;
        let mut out = Vec::with_capacity(PIECE_BYTES + (8 << 10));
        if !pieces.fill(&mut out) {
            self.pieces = None;
        }
        (!out.is_empty()).then(|| Ok(Bytes::from(out)))
    }
}

/// A list under `data`, some items at a time; for [`Pieces::fill`].
pub fn list<T>(
    out: &mut Vec<u8>,
    begun: &mut bool,
    items: &mut std::vec::IntoIter<T>,
    warnings: &Warnings,
    write: impl Fn(&mut Vec<u8>, T),
) -> bool {
    let mut first = !*begun;
    if first {
        out.extend_from_slice(HEAD);
        out.push(b'[');
        *begun = true;
    }
    while out.len() < PIECE_BYTES {
        let Some(item) = items.next() else {
            out.push(b']');
            warnings.write(out);
            out.push(b'}');
            return false;
        };
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        write(out, item);
    }
    true
}

/// What comes after the result: statistics, the end of the data, warnings, infos.
pub(in crate::api) fn tail(stats: Option<&Stats>, warnings: &Warnings) -> Vec<u8> {
    let mut tail = Vec::new();
    if let Some(stats) = stats {
        tail.extend_from_slice(br#","stats":"#);
        json::small(&mut tail, stats);
    }
    tail.push(b'}');
    warnings.write(&mut tail);
    tail.push(b'}');
    tail
}
