//! The HTTP side of the write path: negotiation, bounded reading, and answers that name what was wrong.

mod body;
mod negotiation;
mod refusal;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use model::clock::Clock;
use model::tenant::{InvalidTenant, TenantId};
use model::tenant_limits::{Limit, LimitsByTenant, TenantLimits};
use parking_lot::RwLock;
use tracing::{Instrument, Span, field};
use tsdb::db::{Appended, Appender, Db};

use body::{Received, read_off, reservation_bytes};
use negotiation::negotiate;
use refusal::Refusal;

use crate::limits::Limits;
use crate::memory::{MemoryPool, Reservation};
use crate::metrics::Metrics;
use crate::protocol::Protocol;
use crate::rate::{RateLimiter, TooFast};
use crate::remote_write::series_cache::SeriesCache;
use crate::remote_write::sink::{CachingSink, RequestMemory};
use crate::remote_write::{Outcome, snappy, v1, v2};

/// Tells the tenant of a request by its head. The one place where that is decided is the closure that the
/// binary hands in.
pub type TenantResolver = Arc<dyn Fn(&Parts) -> Result<TenantId, TenantRefused> + Send + Sync>;

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
    /// What one request sees, it sees to its end.
    limits: Arc<RwLock<Arc<Limits>>>,
    clock: Arc<dyn Clock>,
    tenant: TenantResolver,
    metrics: Metrics,
    /// Series by how they came before.
    series_cache: Arc<SeriesCache>,
    memory: MemoryPool,
    tenant_limits: LimitsByTenant,
    rates: RateLimiter,
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
        let pool_bytes = limits.max_in_flight_bytes.max(largest);
        let memory = MemoryPool::new(pool_bytes, limits.max_wait, metrics.in_flight_bytes.clone());
        let series_cache = Arc::default();
        IngestState {
            db,
            limits: Arc::new(RwLock::new(Arc::new(limits))),
            clock,
            tenant,
            metrics,
            series_cache,
            memory,
            tenant_limits: LimitsByTenant::default(),
            rates: RateLimiter::default(),
        }
    }

    /// With limits of single tenants, beside those for all.
    pub fn with_tenant_limits(self, tenant_limits: LimitsByTenant) -> Self {
        IngestState { tenant_limits, ..self }
    }
}

impl IngestState {
    /// What a tenant may, for one request.
    fn limits_of(&self, tenant: &TenantLimits) -> Arc<Limits> {
        Arc::new(self.limits.read().of_tenant(tenant))
    }

    /// Takes samples out of what a tenant may send now; counts what is refused.
    fn take_from_rate(
        &self,
        tenant: &TenantId,
        of_tenant: &TenantLimits,
        samples: u64,
    ) -> Result<(), TooFast> {
        let taken = self.rates.take(tenant, of_tenant, self.clock.now_ms(), samples);
        if taken.is_err() {
            // Of a request that was not read nobody knows how many samples it has.
            self.tenant_limits.refused(tenant, Limit::IngestionRate, samples.max(1));
        }
        taken
    }

    /// Samples older than this are refused from now on; `None`: none are.
    pub fn set_retention_ms(&self, retention_ms: Option<i64>) {
        let mut limits = self.limits.write();
        *limits = Arc::new(Limits { retention_ms, ..Limits::clone(&limits) });
    }
}

/// Routes of the write path: `POST /api/v1/write`, and `POST /api/v1/push` as Cortex and Mimir name it.
pub fn router(state: IngestState) -> Router {
    Router::new().route("/api/v1/write", post(write)).route("/api/v1/push", post(write)).with_state(state)
}

/// Bodies from this decoded size on are decoded on a blocking thread. Below it decoding takes less than about
/// 100 µs, which costs the runtime's other tasks less than the two thread hops would cost this one; 32 MiB
/// would hold a worker for 15 ms and more.
const INLINE_DECODE_BYTES: usize = 128 << 10;

/// What of a request is in the store, as 2.0 wants every answer to say: a sender that does not read it takes
/// the receiver for one that only knows 1.0.
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
        Ok(protocol) => {
            let span = tracing::info_span!("write", tenant = field::Empty, samples = field::Empty);
            let taken = take(&state, protocol, &parts, &mut body, &mut written).instrument(span);
            (protocol, taken.await)
        }
        Err(refusal) => (Protocol::Unknown, Err(refusal)),
    };
    let mut response = match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => {
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

async fn take(
    state: &IngestState,
    protocol: Protocol,
    parts: &Parts,
    body: &mut Body,
    written: &mut Written,
) -> Result<(), Refusal> {
    let tenant = (state.tenant)(parts).map_err(|e| Refusal::new(e.status, e.reason))?;
    Span::current().record("tenant", tenant.as_str());
    // Before the body is read: an overloaded server must not spend itself on what it will not take.
    state.db.room()?;
    let of_tenant = state.tenant_limits.of(&tenant);
    state.take_from_rate(&tenant, &of_tenant, 0)?;
    let limits = &state.limits_of(&of_tenant);
    let received = match tokio::time::timeout(
        limits.max_body_time,
        body::receive(limits, &state.memory, &parts.headers, body),
    )
    .await
    {
        Ok(received) => received.inspect_err(|refusal| {
            if let Some(limit) = refusal.limit {
                state.tenant_limits.refused(&tenant, limit, 1);
            }
        })?,
        Err(_) => {
            // Not a 408, which senders take for final: the samples would be lost for a slow line.
            let reason = format!("the body did not arrive within {} s", limits.max_body_time.as_secs_f64());
            return Err(Refusal { gave_up: true, ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason) });
        }
    };
    state.metrics.received(received.block.len(), received.decoded_len);
    let appender = state.db.appender(&tenant).await?;
    let Received { block, decoded_len, reservation } = received;
    let memory = RequestMemory { reservation, body_bytes: block.len() + decoded_len, db: state.db.clone() };
    let sink = CachingSink::new(appender, state.series_cache.clone()).with_memory(memory);
    let job = DecodeJob { block, sink, limits: limits.clone(), now_ms: state.clock.now_ms(), protocol };
    let decode = tracing::info_span!("decode", bytes = decoded_len);
    let (appender, outcome, reservation) = if decoded_len < INLINE_DECODE_BYTES {
        decode.in_scope(|| job.run())?
    } else {
        let ran = tokio::task::spawn_blocking(move || decode.in_scope(|| job.run())).await;
        ran.map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "decoding ended unexpectedly"))??
    };
    state.metrics.refused(&outcome);
    for (limit, samples) in outcome.rejected.by_limit() {
        state.tenant_limits.refused(&tenant, limit, samples);
    }
    state.take_from_rate(&tenant, &of_tenant, outcome.samples + outcome.histograms)?;
    state.metrics.series_cache_bytes.set(state.series_cache.heap_bytes() as i64);
    let appended = if outcome.samples + outcome.histograms + outcome.exemplars + outcome.metadata > 0 {
        // What is committed is held to the end even if the client leaves, and so is the memory for it.
        let committing = async move {
            let appended = appender.commit().await;
            drop(reservation);
            appended
        };
        let committed = tokio::spawn(committing.instrument(tracing::info_span!("commit"))).await;
        committed
            .map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the write ended unexpectedly"))??
    } else {
        Appended::default()
    };
    state.metrics.stored(&outcome, &appended);
    Span::current().record("samples", outcome.samples + outcome.histograms);
    *written =
        Written { samples: outcome.samples, histograms: outcome.histograms, exemplars: outcome.exemplars };
    if outcome.rejected.is_empty() {
        return Ok(());
    }
    Err(Refusal::bad(outcome.rejected.report(outcome.samples + outcome.histograms)))
}

/// The part of a request that is only CPU: undo snappy, parse, check, hand to the appender.
struct DecodeJob {
    block: Vec<u8>,
    /// Holds the request's memory, so that it is not given back while a client's departure leaves this
    /// running.
    sink: CachingSink,
    limits: Arc<Limits>,
    now_ms: i64,
    protocol: Protocol,
}

impl DecodeJob {
    fn run(mut self) -> Result<(Appender, Outcome, Option<Reservation>), Refusal> {
        let message = snappy::decode(&self.block).map_err(|e| Refusal::bad(e.to_string()))?;
        let decoded = match self.protocol {
            Protocol::V2 => v2::decode(&message, &self.limits, self.now_ms, &mut self.sink),
            Protocol::V1 | Protocol::Unknown => {
                v1::decode(&message, &self.limits, self.now_ms, &mut self.sink)
            }
        };
        // A message that breaks off in the middle stores nothing: the appender is dropped with all it was
        // given.
        let outcome = decoded?;
        let (appender, reservation) = self.sink.into_parts();
        Ok((appender, outcome, reservation))
    }
}
