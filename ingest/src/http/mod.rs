//! The HTTP side of the write path: negotiation, bounded reading, and answers that name what was wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::BodyExt;
use model::clock::Clock;
use model::tenant::{InvalidTenant, TenantId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tsdb::db::{Appended, Appender, Db, WriteError};

use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::protocol::Protocol;
use crate::remote_write::series_cache::SeriesCache;
use crate::remote_write::sink::CachingSink;
use crate::remote_write::snappy;
use crate::remote_write::validate::Outcome;
use crate::remote_write::{v1, v2};

/// Turns a request's headers into its tenant. The one place where that happens is the closure that the binary hands in.
pub type TenantResolver = Arc<dyn Fn(&HeaderMap) -> Result<TenantId, TenantRefused> + Send + Sync>;

/// Why a request has no tenant: the status (400, 401 or 403) and the reason the client reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRefused {
    pub status: StatusCode,
    pub reason: String,
}

impl From<InvalidTenant> for TenantRefused {
    fn from(e: InvalidTenant) -> Self {
        TenantRefused { status: StatusCode::BAD_REQUEST, reason: e.to_string() }
    }
}

/// What the handlers share; clones are cheap.
#[derive(Clone)]
pub struct IngestState {
    db: Arc<Db>,
    limits: Arc<Limits>,
    clock: Arc<dyn Clock>,
    tenant: TenantResolver,
    metrics: Metrics,
    /// Series by how they came before.
    known: Arc<SeriesCache>,
    /// Memory that requests may hold together, in KiB because a semaphore hands out at most 2^32 at once.
    memory: Arc<Semaphore>,
}

impl IngestState {
    pub fn new(
        db: Arc<Db>,
        limits: Limits,
        clock: Arc<dyn Clock>,
        tenant: TenantResolver,
        metrics: Metrics,
    ) -> Self {
        // Never less than one request of the largest kind needs, or it could never be taken.
        let largest = reservation_bytes(limits.max_body_bytes, limits.max_decoded_bytes);
        let memory_kib = kib(limits.max_in_flight_bytes.max(largest)) as usize;
        let memory = Arc::new(Semaphore::new(memory_kib));
        IngestState { db, limits: Arc::new(limits), clock, tenant, metrics, known: Arc::default(), memory }
    }
}

/// Routes of the write path: `POST /api/v1/write`, and `POST /api/v1/push` as Cortex and Mimir name it.
pub fn router(state: IngestState) -> Router {
    Router::new().route("/api/v1/write", post(write)).route("/api/v1/push", post(write)).with_state(state)
}

/// Bodies from this decoded size on are decoded on a blocking thread. Below it decoding takes less than about 100 µs, which costs
/// the runtime's other tasks less than the two thread hops would cost this one; 32 MiB would hold a worker for 15 ms and more.
const INLINE_DECODE_BYTES: usize = 128 << 10;

/// Seconds after which a refused sender may try again.
const RETRY_AFTER_SECONDS: u32 = 5;

/// See [`Limits::max_in_flight_bytes`] for what is counted.
fn reservation_bytes(compressed: usize, decoded: usize) -> usize {
    compressed.saturating_add(decoded.saturating_mul(3))
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// A request that was not stored, or not all of it.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    reason: String,
    /// The body did not come in time: what is left of it would be read as the next request.
    gave_up: bool,
}

impl Refusal {
    fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Refusal { status, reason: reason.into(), gave_up: false }
    }

    fn bad(reason: impl Into<String>) -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, reason)
    }

    fn error_type(&self) -> &'static str {
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => "unavailable",
            StatusCode::TOO_MANY_REQUESTS => "too_many_requests",
            s if s.is_server_error() => "internal",
            _ => "bad_data",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        // By hand, to keep the order in which upstream writes the fields.
        let reason = serde_json::Value::from(self.reason.as_str());
        let body = format!(r#"{{"status":"error","errorType":"{}","error":{reason}}}"#, self.error_type());
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        if self.gave_up {
            response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<WriteError> for Refusal {
    fn from(e: WriteError) -> Self {
        match e {
            WriteError::TooLarge(reason) => Refusal::new(StatusCode::BAD_REQUEST, reason),
            WriteError::Unavailable(reason) => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason),
            WriteError::Overloaded(reason) => Refusal::new(StatusCode::TOO_MANY_REQUESTS, reason),
        }
    }
}

/// What of a request is in the store, as 2.0 wants every answer to say: a sender that does not read it takes the receiver for one that
/// only knows 1.0.
#[derive(Clone, Copy, Default)]
struct Written {
    samples: u64,
    histograms: u64,
    exemplars: u64,
}

impl Written {
    fn tell(self, headers: &mut HeaderMap) {
        headers.insert("x-prometheus-remote-write-samples-written", self.samples.into());
        headers.insert("x-prometheus-remote-write-histograms-written", self.histograms.into());
        headers.insert("x-prometheus-remote-write-exemplars-written", self.exemplars.into());
    }
}

async fn write(State(state): State<IngestState>, request: Request) -> Response {
    let started = Instant::now();
    let (parts, mut body) = request.into_parts();
    let mut written = Written::default();
    let (protocol, result) = match negotiate(&parts.headers) {
        Ok(protocol) => (protocol, take(&state, protocol, &parts.headers, &mut body, &mut written).await),
        Err(refusal) => (Protocol::Unknown, Err(refusal)),
    };
    let mut response = match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(mut refusal) => {
            if refusal.status == StatusCode::TOO_MANY_REQUESTS && drops_on_429(&parts.headers) {
                refusal.status = StatusCode::SERVICE_UNAVAILABLE;
            }
            tracing::debug!(
                protocol = protocol.as_str(),
                status = refusal.status.as_u16(),
                reason = refusal.reason,
                "write refused"
            );
            if !refusal.gave_up {
                read_off(&mut body).await;
            }
            refusal.into_response()
        }
    };
    if protocol == Protocol::V2 {
        written.tell(response.headers_mut());
    }
    state.metrics.answered(protocol, response.status().as_u16(), started.elapsed());
    response
}

/// Whether a sender throws a batch away when it is answered 429: Prometheus does, unless `retry_on_http_429` is set in its configuration,
/// which by default it is not. A 503 with `Retry-After` makes it wait and come again, which is all that is wanted of it.
fn drops_on_429(headers: &HeaderMap) -> bool {
    headers.get(header::USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"Prometheus/"))
}

/// Which protocol the headers speak. Without a content type, without its `proto` parameter or without an encoding, upstream
/// takes 1.0 and snappy for granted, because the first senders named neither.
fn negotiate(headers: &HeaderMap) -> Result<Protocol, Refusal> {
    let unsupported = |reason: String| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason);
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"snappy")
    {
        return Err(unsupported(format!(
            "Content-Encoding {encoding:?} is not taken, only snappy (block format) is"
        )));
    }
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else {
        return Ok(Protocol::V1);
    };
    let Ok(content_type) = content_type.to_str() else {
        return Err(unsupported("Content-Type is not ASCII".into()));
    };
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/x-protobuf")) {
        return Err(unsupported(format!(
            "Content-Type {content_type:?} is not taken, only application/x-protobuf is"
        )));
    }
    for parameter in parts.filter(|p| !p.is_empty()) {
        let Some((name, value)) = parameter.split_once('=') else {
            return Err(unsupported(format!(
                "Content-Type {content_type:?} has a parameter without a value"
            )));
        };
        if name.trim().eq_ignore_ascii_case("proto") {
            return match value.trim().trim_matches('"') {
                "prometheus.WriteRequest" => Ok(Protocol::V1),
                "io.prometheus.write.v2.Request" => Ok(Protocol::V2),
                other => Err(unsupported(format!(
                    "messages of type {other:?} are not taken, only prometheus.WriteRequest and io.prometheus.write.v2.Request"
                ))),
            };
        }
    }
    Ok(Protocol::V1)
}

async fn take(
    state: &IngestState,
    protocol: Protocol,
    headers: &HeaderMap,
    body: &mut Body,
    written: &mut Written,
) -> Result<(), Refusal> {
    let tenant = (state.tenant)(headers).map_err(|e| Refusal::new(e.status, e.reason))?;
    // Before the body is read: an overloaded server must not spend itself on what it will not take.
    state.db.room()?;
    let limits = &state.limits;
    let received = match tokio::time::timeout(limits.max_body_time, receive(state, headers, body)).await {
        Ok(received) => received?,
        Err(_) => {
            // Not a 408, which senders take for final: the samples would be lost for a slow line.
            let reason = format!("the body did not arrive within {} s", limits.max_body_time.as_secs_f64());
            return Err(Refusal { gave_up: true, ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason) });
        }
    };
    state.metrics.received(received.block.len(), received.decoded_len);
    let appender = state.db.appender(&tenant).await?;
    let Received { block, decoded_len, memory } = received;
    let sink = CachingSink::new(appender, state.known.clone());
    let job = Job { block, sink, limits: limits.clone(), now_ms: state.clock.now_ms(), protocol, memory };
    let (appender, outcome, _memory) = if decoded_len < INLINE_DECODE_BYTES {
        job.run()?
    } else {
        let ran = tokio::task::spawn_blocking(move || job.run()).await;
        ran.map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "decoding ended unexpectedly"))??
    };
    state.metrics.refused(&outcome);
    state.metrics.recognition_bytes.set(state.known.heap_bytes() as i64);
    let appended = if outcome.samples + outcome.histograms + outcome.exemplars + outcome.metadata > 0 {
        appender.commit().await?
    } else {
        Appended::default()
    };
    state.metrics.stored(&outcome, &appended);
    *written =
        Written { samples: outcome.samples, histograms: outcome.histograms, exemplars: outcome.exemplars };
    if outcome.rejected.is_empty() {
        return Ok(());
    }
    Err(Refusal::bad(outcome.rejected.report(outcome.samples + outcome.histograms)))
}

/// A body read whole, and the memory that was set aside for it and what comes of it.
struct Received {
    block: Vec<u8>,
    decoded_len: usize,
    memory: Reservation,
}

/// Memory set aside, counted in the gauge for as long as this lives.
struct Reservation {
    permit: Option<OwnedSemaphorePermit>,
    metrics: Metrics,
}

impl Reservation {
    fn none(state: &IngestState) -> Reservation {
        Reservation { permit: None, metrics: state.metrics.clone() }
    }

    fn kib(&self) -> u32 {
        self.permit.as_ref().map_or(0, |p| p.num_permits() as u32)
    }

    /// Grows to `bytes`, waiting a little for memory. Then the answer is 503 and not 429, because Prometheus retries every 5xx but drops
    /// the batch on a 429 unless `retry_on_http_429` is set, which it is not by default.
    async fn grow(&mut self, state: &IngestState, bytes: usize) -> Result<(), Refusal> {
        let more = kib(bytes).saturating_sub(self.kib());
        if more == 0 {
            return Ok(());
        }
        let acquired =
            tokio::time::timeout(state.limits.max_wait, state.memory.clone().acquire_many_owned(more));
        let Ok(Ok(permit)) = acquired.await else {
            let reason = format!(
                "writes in flight hold all of the {} bytes they may (ingest.max_in_flight_bytes): try again in {RETRY_AFTER_SECONDS} s",
                state.limits.max_in_flight_bytes
            );
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason));
        };
        self.metrics.in_flight_bytes.inc_by(i64::from(more) * 1024);
        match &mut self.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.metrics.in_flight_bytes.dec_by(i64::from(self.kib()) * 1024);
    }
}

/// Reads the body within its limits. Memory is reserved for what has arrived, and for what it becomes when it is complete: a client that
/// announces much and sends nothing holds nothing. Requests that each hold their body and wait for more end after [`Limits::max_wait`], so
/// none waits for another for ever.
async fn receive(state: &IngestState, headers: &HeaderMap, body: &mut Body) -> Result<Received, Refusal> {
    let limits = &state.limits;
    let too_large = || {
        let reason = format!(
            "the body is larger than {} bytes (ingest.max_body_bytes): send smaller batches",
            limits.max_body_bytes
        );
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason)
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<usize>().ok());
    if announced.is_some_and(|n| n > limits.max_body_bytes) {
        return Err(too_large());
    }
    let mut block = Vec::new();
    let decoded_len = loop {
        match snappy::declared_len(&block).map_err(|e| Refusal::bad(e.to_string()))? {
            Some(len) => break len,
            None => match next_data(body).await? {
                Some(data) => block.extend_from_slice(&data),
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
            "the body declares {decoded_len} decoded bytes, more than {} (ingest.max_decoded_bytes): send smaller batches",
            limits.max_decoded_bytes
        );
        return Err(Refusal::bad(reason));
    }
    // No encoder makes more of a message than this; it stands in where the sender does not announce a length.
    let most = snap::raw::max_compress_len(decoded_len).clamp(64, limits.max_body_bytes);
    let body_limit = announced.unwrap_or(most);
    let mut memory = Reservation::none(state);
    memory.grow(state, block.len()).await?;
    // A length that was announced is only believed a piece at a time.
    block.reserve(body_limit.saturating_sub(block.len()).min(1 << 20));
    while let Some(data) = next_data(body).await? {
        if block.len() + data.len() > body_limit {
            if body_limit == limits.max_body_bytes {
                return Err(too_large());
            }
            return Err(Refusal::bad(format!(
                "the body is longer than the {body_limit} bytes that {decoded_len} decoded ones can need"
            )));
        }
        memory.grow(state, block.len() + data.len()).await?;
        block.extend_from_slice(&data);
    }
    if block.len() > limits.max_body_bytes {
        return Err(too_large());
    }
    memory.grow(state, reservation_bytes(block.len(), decoded_len)).await?;
    Ok(Received { block, decoded_len, memory })
}

/// Most of a refused body that is still read, and for how long.
const READ_OFF_BYTES: usize = 64 << 20;
const READ_OFF_TIME: Duration = Duration::from_secs(2);

/// Reads what a refused client is still sending and throws it away, within bounds. Closing a socket with unread bytes resets the connection,
/// and then the client may never see the answer that tells it what was wrong. A body read to its end costs nothing here.
async fn read_off(body: &mut Body) {
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

/// The part of a request that is only CPU: undo snappy, parse, check, hand to the appender.
struct Job {
    block: Vec<u8>,
    sink: CachingSink,
    limits: Arc<Limits>,
    now_ms: i64,
    protocol: Protocol,
    /// Travels along, so that it is not given back while a client's departure leaves this running.
    memory: Reservation,
}

impl Job {
    fn run(mut self) -> Result<(Appender, Outcome, Reservation), Refusal> {
        let message = snappy::decode(&self.block).map_err(|e| Refusal::bad(e.to_string()))?;
        let decoded = match self.protocol {
            Protocol::V2 => v2::decode(&message, &self.limits, self.now_ms, &mut self.sink),
            Protocol::V1 | Protocol::Unknown => {
                v1::decode(&message, &self.limits, self.now_ms, &mut self.sink)
            }
        };
        // A message that breaks off in the middle stores nothing: the appender is dropped with all it was given.
        let outcome = decoded.map_err(|e| Refusal::bad(e.to_string()))?;
        Ok((self.sink.finish(), outcome, self.memory))
    }
}
