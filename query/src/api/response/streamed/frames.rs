//! Answers of frames that are sent while they are read: the same channel to the connection as large matrices
//! have, for bytes of any kind.

use std::sync::Arc;

use axum::body::Bytes;
use model::source::{ResolutionReport, SourceError};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::{Piece, StreamStart, StreamedBody, WAITING};

/// The sending end of an answer that has begun.
pub struct FrameSender {
    start: StreamStart,
    pieces: mpsc::Sender<Piece>,
    /// Kept back until it is known whether it is the last.
    pending: Option<Bytes>,
}

impl StreamStart {
    /// Begins an answer of frames of about so many bytes.
    pub fn begin(mut self, frame_bytes: usize) -> Result<FrameSender, SourceError> {
        let (pieces, waiting) = mpsc::channel(WAITING);
        let body = StreamedBody { pieces: waiting, report: Arc::new(ResolutionReport::default()) };
        if self.begin.take().is_none_or(|begin| begin.send(body).is_err()) {
            return Err(SourceError::Canceled);
        }
        // Those that wait, the one kept back, the one being written and the one that the connection has.
        self.budget.reserve(((WAITING + 3) * frame_bytes) as u64)?;
        Ok(FrameSender { start: self, pieces, pending: None })
    }
}

impl FrameSender {
    /// Sends a frame; waits while the client does not read, without a permit, at most until the deadline.
    pub fn send(&mut self, frame: Vec<u8>) -> Result<(), SourceError> {
        match self.pending.replace(Bytes::from(frame)) {
            Some(bytes) => self.pass_on(Piece { bytes, last: false }),
            None => Ok(()),
        }
    }

    /// The end of the answer. Without it the body ends in an error, so that nobody takes it for the whole.
    pub fn finish(mut self) -> Result<(), SourceError> {
        let bytes = self.pending.take().unwrap_or_default();
        self.pass_on(Piece { bytes, last: true })
    }

    fn pass_on(&mut self, piece: Piece) -> Result<(), SourceError> {
        let piece = match self.pieces.try_send(piece) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(SourceError::Canceled),
            Err(TrySendError::Full(piece)) => piece,
        };
        let deadline = self.start.budget.deadline().map(tokio::time::Instant::from_std);
        let permit = &mut self.start.permit;
        let sent = self.start.runtime.block_on(async {
            let send = permit.without(self.pieces.send(piece));
            match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, send).await.ok().flatten(),
                None => send.await,
            }
        });
        match sent {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(SourceError::Canceled),
            None => Err(SourceError::TimedOut),
        }
    }
}
