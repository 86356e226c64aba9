//! Reads a request's body within its limits, and no more of it into memory than was set aside before.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use model::tenant_limits::Limit;

use super::refusal::Refusal;
use crate::limits::Limits;
use crate::memory::{MemoryPool, Reservation};
use crate::remote_write::snappy;

/// A body read whole, and the memory that was set aside for it and what comes of it.
pub(super) struct Received {
    pub(super) block: Vec<u8>,
    pub(super) decoded_len: usize,
    pub(super) reservation: Reservation,
}

/// What a request is usually worth, see [`Limits::max_in_flight_bytes`].
pub(super) fn reservation_bytes(compressed: usize, decoded: usize) -> usize {
    compressed.saturating_add(decoded.saturating_mul(3))
}

/// Least room that is made for a body.
const MIN_BODY_BYTES: usize = 16 << 10;

/// Reads the body. Memory is reserved for what has arrived, and for what it becomes when it is complete: a
/// client that announces much and sends nothing holds nothing. Requests that each hold their body and wait
/// for more end after [`Limits::max_wait`], so none waits for another for ever.
pub(super) async fn receive(
    limits: &Limits,
    memory: &MemoryPool,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Received, Refusal> {
    let announced = announced_bytes(headers);
    if announced.is_some_and(|n| n > limits.max_body_bytes) {
        return Err(too_large(limits));
    }
    let mut received = Receiving { block: Vec::new(), reservation: memory.reservation() };
    let decoded_len = loop {
        match snappy::declared_len(&received.block).map_err(|e| Refusal::bad(e.to_string()))? {
            Some(len) => break len,
            None => match next_data(body).await? {
                Some(data) => received.push(&data, limits.max_body_bytes).await?,
                None => {
                    return Err(Refusal::bad(
                        "body is not snappy block format: it is empty or ends inside its length",
                    ));
                }
            },
        }
    };
    if decoded_len > limits.max_decoded_bytes {
        let reason = format!(
            "the body declares {decoded_len} decoded bytes, more than {} (ingest.max_decoded_bytes, or max_request_size_bytes of the tenant): send smaller batches",
            limits.max_decoded_bytes
        );
        return Err(Refusal { limit: Some(Limit::MaxRequestSize), ..Refusal::bad(reason) });
    }
    // No encoder makes more of a message than this; it stands in where the sender does not announce a length.
    let most = snap::raw::max_compress_len(decoded_len).clamp(64, limits.max_body_bytes);
    let body_limit = announced.unwrap_or(most);
    while let Some(data) = next_data(body).await? {
        if received.block.len() + data.len() > body_limit {
            if body_limit == limits.max_body_bytes {
                return Err(too_large(limits));
            }
            return Err(Refusal::bad(format!(
                "the body is longer than the {body_limit} bytes that {decoded_len} decoded ones can need"
            )));
        }
        received.push(&data, body_limit).await?;
    }
    let Receiving { block, mut reservation } = received;
    if block.len() > limits.max_body_bytes {
        return Err(too_large(limits));
    }
    reservation.grow(reservation_bytes(block.capacity(), decoded_len)).await?;
    Ok(Received { block, decoded_len, reservation })
}

/// The length a client announces.
fn announced_bytes(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(limits: &Limits) -> Refusal {
    let reason = format!(
        "the body is larger than {} bytes (ingest.max_body_bytes): send smaller batches",
        limits.max_body_bytes
    );
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason)
}

/// A body on its way.
struct Receiving {
    block: Vec<u8>,
    reservation: Reservation,
}

impl Receiving {
    /// Appends a piece. What is set aside is the room of the vector and not what is in it, and the old room
    /// too while a larger one is filled from it.
    async fn push(&mut self, data: &[u8], most: usize) -> Result<(), Refusal> {
        let (length, room) = (self.block.len() + data.len(), self.block.capacity());
        if length > room {
            let doubled = (2 * room).max(MIN_BODY_BYTES).min(most).max(length);
            self.reservation.grow(room + doubled).await?;
            self.block.reserve_exact(doubled - self.block.len());
            self.reservation.shrink(self.block.capacity());
        }
        self.block.extend_from_slice(data);
        Ok(())
    }
}

/// Most of a refused body that is still read, and for how long.
const READ_OFF_BYTES: usize = 64 << 20;
const READ_OFF_TIME: Duration = Duration::from_secs(2);

/// Reads what a refused client is still sending and throws it away, within bounds. Closing a socket with
/// unread bytes resets the connection, and then the client may never see the answer that tells it what was
/// wrong. A body read to its end costs nothing here.
pub(super) async fn read_off(body: &mut Body) {
    let reading = async {
        let mut left = READ_OFF_BYTES;
        while let Ok(Some(data)) = next_data(body).await {
            left = left.saturating_sub(data.len());
            if left == 0 {
                break;
            }
        }
    };
    // Running out of time is as good as reaching the end.
    _ = tokio::time::timeout(READ_OFF_TIME, reading).await;
}

async fn next_data(body: &mut Body) -> Result<Option<Bytes>, Refusal> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(_trailers) => {}
            },
            Some(Err(e)) => return Err(Refusal::bad(format!("the body could not be read to its end: {e}"))),
        }
    }
}
