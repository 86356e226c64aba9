//! The way of a request's work: off the async runtime, when there is a permit, with a budget that its
//! client's leaving cancels.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::Response;
use model::source::Budget;
use tokio::sync::Semaphore;

use crate::api::admission::call::Call;
use crate::api::admission::permit::Permit;
use crate::api::error::{ApiError, ErrorType};
use crate::api::response;
use crate::api::response::streamed::{self, CancelOnDrop, StreamStart};
use crate::api::running::{Arrival, Watch};
use crate::api::state::ApiState;
use crate::engine::QueryTime;

/// What a piece of work waits its turn among: label lookups have permits of their own, so that a dashboard's
/// menus open while its panels compute.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum QueryClass {
    Query,
    Lookup,
}

impl ApiState {
    /// Lists a query that has arrived, until what this gives is dropped.
    pub(in crate::api) fn watch(&self, call: &Call, endpoint: &'static str, time: QueryTime) -> Watch {
        let arrival = Arrival {
            request_id: call.request_id.clone(),
            tenant: call.tenant.clone(),
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
        class: QueryClass,
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
        self.run_streamed(class, timeout, work).await
    }

    /// As [`ApiState::run`], for work that may begin its answer before it is done, by means of the
    /// [`StreamStart`] it gets. It then gives `None`, or an error that nobody sees. While its client does not
    /// read it gives its permit to others (see [`Permit::without`]).
    pub(in crate::api) async fn run_streamed<F>(
        &self,
        class: QueryClass,
        timeout: Option<Duration>,
        work: F,
    ) -> Result<Response, ApiError>
    where
        F: FnOnce(&Arc<Budget>, Duration, StreamStart) -> Result<Option<Response>, ApiError> + Send + 'static,
    {
        let arrived = Instant::now();
        let budget = self.0.engine.budget(timeout);
        let cancel = CancelOnDrop::new(budget.clone());
        let longest = self.0.engine.options().timeout;
        let timeout = timeout.map_or(longest, |t| t.min(longest));
        let permits: &Arc<Semaphore> =
            if class == QueryClass::Query { &self.0.queries } else { &self.0.lookups };
        let permit = {
            let _queued = self.config().metrics.queue();
            match tokio::time::timeout(timeout, permits.clone().acquire_owned()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) => return Err(ApiError::new(ErrorType::Unavailable, "the server is stopping")),
                Err(_) => return Err(ApiError::new(ErrorType::Timeout, "query timed out in query queue")),
            }
        };
        let metrics = self.config().metrics.clone();
        let permit = Permit::new(permit, permits.clone(), self.0.waiting.clone());
        let (start, started) = streamed::start(budget.clone(), permit);
        let job = tokio::task::spawn_blocking(move || {
            let answer = work(&budget, arrived.elapsed(), start);
            metrics.read_samples(budget.samples_read());
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
}
