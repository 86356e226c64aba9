//! Answers that begin before their query has ended: series are written by the thread that computes them and
//! pass to the connection through a channel of a few pieces, so neither a large result nor a slow client
//! takes memory.
//!
//! What has begun can no longer become an error with a status. So an answer that does not come to its end is
//! broken off: the body ends in an error and the connection is closed without the last chunk, which no HTTP
//! client takes for the whole.

pub mod frames;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::Stream;
use model::source::{Budget, ResolutionReport, SourceError};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::api::admission::permit::Permit;
use crate::api::response::matrix::MatrixWriter;
use crate::api::response::{HEAD, PIECE_BYTES, SENDING_BYTES, Stats, Warnings, resolution, respond, tail};
use crate::plan::Steps;
use crate::value::{QueryError, StepSeries};

/// Pieces that may wait for the client, beside the one being written.
const WAITING: usize = 4;

/// A piece of the body, and whether it is the last: a channel that closes without one was broken off.
pub struct Piece {
    bytes: Bytes,
    last: bool,
}

/// What the connection needs of an answer that has begun.
pub struct StreamedBody {
    pieces: mpsc::Receiver<Piece>,
    /// Told so far: all selectors whose series are among the first.
    report: Arc<ResolutionReport>,
}

/// Cancels the work of a request whose future is dropped, which is what happens when its client goes away.
pub(in crate::api) struct CancelOnDrop(Arc<Budget>);

impl CancelOnDrop {
    pub(in crate::api) fn new(budget: Arc<Budget>) -> CancelOnDrop {
        CancelOnDrop(budget)
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// With this, work on a blocking thread starts to send its answer.
pub struct StreamStart {
    begin: Option<oneshot::Sender<StreamedBody>>,
    budget: Arc<Budget>,
    runtime: Handle,
    permit: Permit,
}

/// Both ends. Must be called within the runtime.
pub fn start(budget: Arc<Budget>, permit: Permit) -> (StreamStart, oneshot::Receiver<StreamedBody>) {
    let (begin, started) = oneshot::channel();
    (StreamStart { begin: Some(begin), budget, runtime: Handle::current(), permit }, started)
}

/// The answer that has begun. When it is dropped, which is what happens when the client goes away, the query
/// is cancelled.
pub fn response(body: StreamedBody, cancel: CancelOnDrop) -> Response {
    let response = respond(Body::from_stream(Rest { pieces: Some(body.pieces), _cancel: cancel }));
    resolution::with_header(response, &body.report)
}

struct Rest {
    /// `None` past the end: compression layers ask once more than they need to.
    pieces: Option<mpsc::Receiver<Piece>>,
    _cancel: CancelOnDrop,
}

impl Stream for Rest {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(pieces) = &mut self.pieces else { return Poll::Ready(None) };
        let piece = std::task::ready!(pieces.poll_recv(cx));
        match piece {
            Some(piece) => {
                if piece.last {
                    self.pieces = None;
                }
                Poll::Ready(Some(Ok(piece.bytes)))
            }
            None => {
                self.pieces = None;
                Poll::Ready(Some(Err(std::io::Error::other(
                    "the query failed while its result was being sent",
                ))))
            }
        }
    }
}

/// Writes the series of a matrix as they come. The answer begins with the first.
pub struct StreamedMatrix {
    start: StreamStart,
    pieces: Option<mpsc::Sender<Piece>>,
    matrix: MatrixWriter,
    out: Vec<u8>,
    /// In series; 0: none.
    limit: usize,
    cut: bool,
    report: Arc<ResolutionReport>,
}

impl StreamedMatrix {
    /// `limit` is in series, 0 for none.
    pub fn new(limit: usize, start: StreamStart, report: Arc<ResolutionReport>) -> StreamedMatrix {
        let matrix = MatrixWriter::default();
        StreamedMatrix { start, pieces: None, matrix, out: Vec::new(), limit, cut: false, report }
    }

    /// Whether anything was sent.
    pub fn begun(&self) -> bool {
        self.pieces.is_some()
    }

    /// Whether series beyond the limit were left out.
    pub fn cut(&self) -> bool {
        self.cut
    }

    pub fn series(&mut self, steps: &Steps, series: &StepSeries) -> Result<(), QueryError> {
        if self.pieces.is_none() {
            self.begin(steps)?;
        }
        if self.limit > 0 && self.matrix.begun() == self.limit {
            // The rest is still computed: what it warns of, and whether it fails, belongs to the answer.
            self.cut = true;
            return Ok(());
        }
        while !self.matrix.write_steps(&mut self.out, steps, series) {
            self.send(false)?;
        }
        Ok(())
    }

    fn begin(&mut self, steps: &Steps) -> Result<(), QueryError> {
        // Those that wait, the one being written, and the one that the connection has. Before the answer
        // begins: where there is no room, that can still be told.
        let pieces = (WAITING + 2) * (PIECE_BYTES + (16 << 10));
        let texts_bytes = self.matrix.reserve_texts(steps);
        self.start.budget.reserve(texts_bytes + pieces as u64 + SENDING_BYTES)?;
        let (to, from) = mpsc::channel(WAITING);
        let body = StreamedBody { pieces: from, report: self.report.clone() };
        if self.start.begin.take().is_none_or(|begin| begin.send(body).is_err()) {
            return Err(SourceError::Canceled.into());
        }
        self.pieces = Some(to);
        self.out.extend_from_slice(HEAD);
        self.out.extend_from_slice(br#"{"resultType":"matrix","result":["#);
        Ok(())
    }

    /// The end of an answer that has begun.
    pub fn finish(mut self, stats: Option<&Stats>, warnings: &Warnings) {
        self.out.push(b']');
        self.out.append(&mut tail(stats, warnings));
        if self.send(true).is_err() {
            tracing::debug!("the client of a large result was gone before its end");
        }
    }

    /// Waits until the client has taken enough, and for a permit again, at most until the query's deadline.
    fn send(&mut self, last: bool) -> Result<(), QueryError> {
        let Some(pieces) = &self.pieces else { return Ok(()) };
        let fresh = Vec::with_capacity(if last { 0 } else { PIECE_BYTES + (8 << 10) });
        let piece = Piece { bytes: Bytes::from(std::mem::replace(&mut self.out, fresh)), last };
        let piece = match pieces.try_send(piece) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(SourceError::Canceled.into()),
            Err(TrySendError::Full(piece)) => piece,
        };
        let deadline = self.start.budget.deadline().map(tokio::time::Instant::from_std);
        let permit = &mut self.start.permit;
        let sent = self.start.runtime.block_on(async {
            let send = permit.without(pieces.send(piece));
            match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, send).await.ok().flatten(),
                None => send.await,
            }
        });
        match sent {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(SourceError::Canceled.into()),
            None => Err(SourceError::TimedOut.into()),
        }
    }
}
