//! The way of a request's work: off the async runtime, when there is a permit, with a budget that its
//! client's leaving cancels.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::Response;
use model::source::Budget;
use model::tenant::TenantId;
use model::tenant_limits::{Limit, TenantLimits};

use crate::api::admission::call::Call;
use crate::api::admission::permit::Permit;
use crate::api::error::{ApiError, ErrorType};
use crate::api::queue::{Place, QueueFull};
use crate::api::response;
use crate::api::response::streamed::{self, CancelOnDrop, StreamStart};
use crate::api::running::{Arrival, Watch};
use crate::api::state::ApiState;
use crate::api::tenant_limits;
use crate::engine::QueryTime;

/// What a piece of work waits its turn among. Label lookups have permits of their own, so that a dashboard's
/// menus open while its panels compute; and of the others, those that reach far back do not take all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryClass {
    Recent,
    Long,
    Lookup,
}

/// How far back a query is one of recent times.
const RECENT_MS: i64 = 24 * 3600 * 1000;

impl QueryClass {
    /// Of a query that is evaluated at these times.
    pub fn of(time: QueryTime, now_ms: i64) -> QueryClass {
        let (QueryTime::Instant { time_ms: from_ms } | QueryTime::Range { start_ms: from_ms, .. }) = time;
        match from_ms < now_ms.saturating_sub(RECENT_MS) {
            true => QueryClass::Long,
            false => QueryClass::Recent,
        }
    }
}

/// Whose a piece of work is, and of which kind.
pub(in crate::api) struct WorkOf {
    pub tenant: TenantId,
    pub class: QueryClass,
}

impl Call {
    /// Work for this call.
    pub(in crate::api) fn work(&self, class: QueryClass) -> WorkOf {
        WorkOf { tenant: self.tenant.clone(), class }
    }
}

impl ApiState {
    /// Lists a query that has arrived, until what this gives is dropped.
    pub(in crate::api) fn watch(&self, call: &Call, endpoint: &'static str, time: QueryTime) -> Watch {
        let arrival = Arrival {
            request_id: call.request_id.clone(),
            tenants: call.tenants.clone(),
            endpoint,
            time,
            arrived_ms: self.config().clock.now_ms(),
        };
        self.0.running.watch(call.form.get("query"), arrival)
    }

    /// Runs `work` on a thread that may block, as soon as there is a permit. `timeout` (at most the engine's
    /// own) covers the wait too; what `work` gets is the budget to charge and how long the wait was. The
    /// permit is given back when `work` is done, before the answer is sent: a slow reader does not keep
    /// others waiting.
    pub(in crate::api) async fn run<F>(
        &self,
        of: WorkOf,
        timeout: Option<Duration>,
        work: F,
    ) -> Result<Response, ApiError>
    where
        F: FnOnce(&Arc<Budget>, Duration) -> Result<Response, ApiError> + Send + 'static,
    {
        let work = move |budget: &Arc<Budget>, queued, _: StreamStart| {
            let answer = work(budget, queued)?;
            Ok(Some(response::reserving(answer, budget.clone())?))
        };
        self.run_streamed(of, timeout, work).await
    }

    /// As [`ApiState::run`], for work that may begin its answer before it is done, by means of the
    /// [`StreamStart`] it gets. It then gives `None`, or an error that nobody sees. While its client does not
    /// read it gives its permit to others (see [`Permit::without`]).
    pub(in crate::api) async fn run_streamed<F>(
        &self,
        of: WorkOf,
        timeout: Option<Duration>,
        work: F,
    ) -> Result<Response, ApiError>
    where
        F: FnOnce(&Arc<Budget>, Duration, StreamStart) -> Result<Option<Response>, ApiError> + Send + 'static,
    {
        let arrived = Instant::now();
        let WorkOf { tenant, class } = of;
        let all = &self.config().tenant_limits;
        let limits = all.of(&tenant);
        let budget = self.0.engine.tenant_budget(timeout, &limits);
        budget.share_cores(self.0.cores.enter(&tenant));
        let cancel = CancelOnDrop::new(budget.clone());
        let permit = self.permit(&tenant, class, timeout, &limits).await?;
        let metrics = self.config().metrics.clone();
        let (start, started) = streamed::start(budget.clone(), permit);
        let all = all.clone();
        let job = tokio::task::spawn_blocking(move || {
            let answer = work(&budget, arrived.elapsed(), start);
            metrics.read_samples(budget.samples_read());
            if let Some(limit) = budget.exceeded().filter(|_| answer.is_err()) {
                all.refused(&tenant, limit, 1);
            }
            answer
        });
        // Comes to an end with the work at the latest, whose end of the line is dropped then.
        if let Ok(body) = started.await {
            return Ok(streamed::response(body, cancel));
        }
        match job.await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Err(e)) => Err(e),
            Ok(Ok(None)) | Err(_) => Err(ApiError::new(
                ErrorType::Internal,
                "the query failed for a reason that is a bug in Hearth: please report the query",
            )),
        }
    }

    /// Waits for a permit in the tenant's queue, for `timeout` at most.
    async fn permit(
        &self,
        tenant: &TenantId,
        class: QueryClass,
        timeout: Option<Duration>,
        limits: &TenantLimits,
    ) -> Result<Permit, ApiError> {
        let longest = self.0.engine.options().timeout;
        let timeout = timeout.map_or(longest, |t| t.min(longest));
        let queue = if class == QueryClass::Lookup { &self.0.lookups } else { &self.0.queries };
        let place = Place { tenant: tenant.clone(), long: class == QueryClass::Long };
        let bounds = tenant_limits::queue_bounds(limits);
        let _queued = self.config().metrics.queue();
        match tokio::time::timeout(timeout, queue.turn(place.clone(), bounds)).await {
            Ok(Ok(turn)) => Ok(Permit::new(turn, queue.clone(), place, bounds, self.0.waiting.clone())),
            Ok(Err(QueueFull { waiting })) => {
                let limit = Limit::MaxOutstandingRequests;
                self.config().tenant_limits.refused(tenant, limit, 1);
                let what = format!("{waiting} queries of the tenant wait for their turn");
                Err(ApiError::new(ErrorType::TooManyRequests, limit.refusal(what, bounds.max_waiting)))
            }
            Err(_) => Err(ApiError::new(ErrorType::Timeout, "query timed out in query queue")),
        }
    }
}
