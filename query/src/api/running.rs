//! Queries at work and the last that ended: who asks what, how far it has come, and a way to call it off.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use model::identity::Tenants;
use model::source::Budget;
use parking_lot::Mutex;

use crate::api::active_queries::{ActiveQueries, ActiveQuery, Noted};
use crate::engine::QueryTime;

/// How many that ended are remembered, of all tenants together.
const REMEMBERED: usize = 300;
/// How much of a query's text is kept, so that the memory above has a bound: some 300 × 2 KiB.
const MAX_TEXT_BYTES: usize = 2048;

/// All of a process.
#[derive(Default)]
pub struct Running {
    lists: Mutex<Lists>,
    /// Where those at work are noted for after a crash.
    file: Option<ActiveQueries>,
}

#[derive(Default)]
struct Lists {
    next: u64,
    /// By number, which is their order of arrival.
    at_work: BTreeMap<u64, Arc<Query>>,
    ended: VecDeque<Ended>,
}

/// A query that waits for its turn or is evaluated.
pub struct Query {
    pub number: u64,
    /// What the client calls it: its `X-Request-Id`, empty where it sent none.
    pub request_id: String,
    /// Whose data it reads. Who does not act for all of them must not see its text or its error.
    pub tenants: Tenants,
    pub endpoint: &'static str,
    /// Cut where it is long.
    pub text: String,
    pub time: QueryTime,
    pub arrived_ms: i64,
    arrived: Instant,
    /// From when it has a permit. Not kept alive by the list: what a query reserved is free when it has
    /// ended.
    budget: OnceLock<Weak<Budget>>,
    /// When it has ended: samples read, and most bytes held at once.
    figures: OnceLock<(u64, u64)>,
    cancelled: AtomicBool,
}

/// How a query stands or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Queued,
    Running,
    Done,
    Failed,
    Cancelled,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Running => "running",
            State::Done => "done",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }
}

/// A query that came to its end.
#[derive(Clone)]
pub struct Ended {
    pub query: Arc<Query>,
    pub state: State,
    /// Empty unless it failed.
    pub error: String,
    /// Waiting included.
    pub took: Duration,
}

impl Query {
    pub fn state(&self) -> State {
        match self.budget.get() {
            None => State::Queued,
            Some(_) if self.cancelled.load(Ordering::Relaxed) => State::Cancelled,
            Some(_) => State::Running,
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.arrived.elapsed()
    }

    /// As the file of active queries has it.
    fn active(&self) -> ActiveQuery {
        let (start_ms, end_ms, step_ms) = match self.time {
            QueryTime::Instant { time_ms } => (time_ms, time_ms, 0),
            QueryTime::Range { start_ms, end_ms, step_ms } => (start_ms, end_ms, step_ms),
        };
        ActiveQuery {
            tenant: self.tenants.to_string(),
            endpoint: self.endpoint.to_owned(),
            started_ms: self.arrived_ms,
            start_ms,
            end_ms,
            step_ms,
            query: self.text.clone(),
        }
    }

    /// What it holds now; 0 while it waits and when it has ended.
    pub fn bytes_held(&self) -> u64 {
        self.budget.get().and_then(Weak::upgrade).map_or(0, |b| b.bytes_held())
    }

    /// Samples read so far, and most bytes held at once.
    pub fn figures(&self) -> (u64, u64) {
        let so_far = || self.budget.get()?.upgrade().map(|b| (b.samples_read(), b.bytes_peak()));
        self.figures.get().copied().or_else(so_far).unwrap_or_default()
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        if let Some(budget) = self.budget.get().and_then(Weak::upgrade) {
            budget.cancel();
        }
    }
}

/// Watches one query: it is listed until this is dropped, and then among those that ended.
pub struct Watch {
    running: Arc<Running>,
    query: Arc<Query>,
    budget: OnceLock<Arc<Budget>>,
    error: Option<String>,
    /// Its line in the file, while it runs.
    noted: OnceLock<Option<Noted>>,
    /// What every log line of its evaluation is told with.
    span: tracing::Span,
}

/// What a query is listed with.
pub struct Arrival {
    pub request_id: String,
    pub tenants: Tenants,
    pub endpoint: &'static str,
    pub time: QueryTime,
    pub arrived_ms: i64,
}

impl Running {
    pub fn new(file: Option<ActiveQueries>) -> Running {
        Running { lists: Mutex::default(), file }
    }

    /// Queries that a process before this one was at when it crashed, if they are about none but these
    /// tenants.
    pub fn unfinished(&self, tenants: &Tenants) -> Vec<&ActiveQuery> {
        let all = self.file.iter().flat_map(|file| file.unfinished());
        all.filter(|q| Tenants::shown_as(&q.tenant).is_some_and(|of| tenants.cover(&of))).collect()
    }

    pub fn watch(self: &Arc<Running>, text: &str, arrival: Arrival) -> Watch {
        let mut lists = self.lists.lock();
        lists.next += 1;
        let Arrival { request_id, tenants, endpoint, time, arrived_ms } = arrival;
        let query = Arc::new(Query {
            number: lists.next,
            request_id,
            tenants,
            endpoint,
            text: text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned(),
            time,
            arrived_ms,
            arrived: Instant::now(),
            budget: OnceLock::new(),
            figures: OnceLock::new(),
            cancelled: AtomicBool::new(false),
        });
        lists.at_work.insert(query.number, query.clone());
        drop(lists);
        let span = tracing::info_span!(
            "query",
            id = query.number,
            tenant = %query.tenants,
            endpoint,
            request_id = (!query.request_id.is_empty()).then_some(&*query.request_id),
            queued_s = tracing::field::Empty,
            samples = tracing::field::Empty,
            error = tracing::field::Empty,
        );
        Watch {
            running: self.clone(),
            query,
            budget: OnceLock::new(),
            error: None,
            noted: OnceLock::new(),
            span,
        }
    }

    /// Those that are about none but these tenants: at work by arrival, and ended, the latest first.
    pub fn of(&self, tenants: &Tenants) -> (Vec<Arc<Query>>, Vec<Ended>) {
        let lists = self.lists.lock();
        let at_work = lists.at_work.values().filter(|q| tenants.cover(&q.tenants)).cloned().collect();
        let ended = lists.ended.iter().rev().filter(|e| tenants.cover(&e.query.tenants)).cloned().collect();
        (at_work, ended)
    }

    /// Calls off a query that is about none but these tenants; `false` where none of this number is at work.
    pub fn cancel(&self, tenants: &Tenants, number: u64) -> bool {
        let found = self.lists.lock().at_work.get(&number).filter(|q| tenants.cover(&q.tenants)).cloned();
        found.is_some_and(|query| {
            query.cancel();
            true
        })
    }
}

impl Watch {
    /// The query has a permit and charges this budget. What this thread logs until the result is dropped says
    /// which query it is about.
    pub fn begin(&self, budget: &Arc<Budget>) -> tracing::span::EnteredSpan {
        let _ = self.query.budget.set(Arc::downgrade(budget));
        let _ = self.budget.set(budget.clone());
        let noted = self.running.file.as_ref().and_then(|file| file.note(self.query.active()));
        let _ = self.noted.set(noted);
        // It may have been called off while it waited.
        if self.query.cancelled.load(Ordering::Relaxed) {
            budget.cancel();
        }
        self.span.record("queued_s", self.query.elapsed().as_secs_f64());
        self.span.clone().entered()
    }

    /// The query has run, and was over before anybody could have looked: it charged this budget.
    pub fn was_at_once(&self, budget: &Arc<Budget>) {
        let _ = self.query.budget.set(Arc::downgrade(budget));
        let _ = self.budget.set(budget.clone());
        self.span.record("queued_s", 0.0);
    }

    /// Runs `work`; what it logs says which query it is about.
    pub fn told_with<T>(&self, work: impl FnOnce() -> T) -> T {
        self.span.in_scope(work)
    }

    pub fn failed(&mut self, error: &dyn std::fmt::Display) {
        let text = error.to_string();
        self.error = Some(text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let query = self.query.clone();
        if let Some(budget) = self.budget.get() {
            let _ = query.figures.set((budget.samples_read(), budget.bytes_peak()));
        }
        let state = match (&self.error, query.budget.get()) {
            _ if query.cancelled.load(Ordering::Relaxed) => State::Cancelled,
            // Its client went away while it waited.
            (None, None) => State::Cancelled,
            (Some(_), _) => State::Failed,
            (None, Some(_)) => State::Done,
        };
        let ended =
            Ended { state, error: self.error.take().unwrap_or_default(), took: query.elapsed(), query };
        self.span.record("samples", ended.query.figures().0);
        if !ended.error.is_empty() {
            self.span.record("error", &*ended.error);
        }
        self.span.in_scope(|| {
            tracing::debug!(
                state = ended.state.name(),
                took_s = ended.took.as_secs_f64(),
                "a query ended: {}",
                ended.query.text
            );
        });
        let mut lists = self.running.lists.lock();
        lists.at_work.remove(&ended.query.number);
        lists.ended.push_back(ended);
        if lists.ended.len() > REMEMBERED {
            lists.ended.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::source::MemoryPool;

    fn tenants(text: &str) -> Tenants {
        Tenants::shown_as(text).unwrap()
    }

    fn watch(running: &Arc<Running>, tenant: &str, text: &str) -> Watch {
        let arrival = Arrival {
            request_id: "r".into(),
            tenants: tenants(tenant),
            endpoint: "query",
            time: QueryTime::Instant { time_ms: 1 },
            arrived_ms: 1,
        };
        running.watch(text, arrival)
    }

    #[test]
    fn queries_are_listed_while_they_wait_and_run_and_after() {
        let running = Arc::new(Running::default());
        let (a, b) = (tenants("a"), tenants("b"));
        let mut first = watch(&running, "a", "up");
        let second = watch(&running, "a", "down");
        assert_eq!(running.of(&a).0.iter().map(|q| q.state()).collect::<Vec<_>>(), [State::Queued; 2]);
        assert!(running.of(&b).0.is_empty(), "another tenant sees none of them");
        let budget = Budget::unlimited();
        drop(first.begin(&budget));
        budget.read_samples(7);
        let listed = running.of(&a).0;
        assert_eq!((listed[0].state(), listed[0].figures()), (State::Running, (7, 0)));
        first.failed(&"too much");
        drop(first);
        drop(second);
        let (at_work, ended) = running.of(&a);
        assert!(at_work.is_empty());
        assert_eq!(ended[1].query.figures(), (7, 0));
        let ended: Vec<_> =
            ended.iter().map(|e| (e.query.text.as_str(), e.state, e.error.as_str())).collect();
        assert_eq!(ended, [("down", State::Cancelled, ""), ("up", State::Failed, "too much")]);
    }

    #[test]
    fn queries_of_several_tenants_are_seen_by_who_acts_for_all_of_them() {
        let running = Arc::new(Running::default());
        let both = watch(&running, "a|b", "x{secret=\"b\"}");
        let every = watch(&running, "*", "y");
        for (who, sees) in [("a", 0), ("b", 0), ("default", 0), ("a|b", 1), ("a|b|c", 1), ("*", 2)] {
            assert_eq!(running.of(&tenants(who)).0.len(), sees, "{who}");
        }
        assert!(!running.cancel(&tenants("a"), both.query.number));
        assert!(!running.cancel(&tenants("a|b"), every.query.number));
        assert!(running.cancel(&tenants("a|b"), both.query.number));
        drop((both, every));
        assert_eq!(running.of(&tenants("b")).1.len(), 0);
        assert_eq!(running.of(&tenants("*")).1.len(), 2);
    }

    #[test]
    fn cancelled_queries_stop_at_their_next_check_wherever_they_are() {
        let running = Arc::new(Running::default());
        let (a, b) = (tenants("a"), tenants("b"));
        let waits = watch(&running, "a", "up");
        assert!(!running.cancel(&b, waits.query.number), "not another tenant's");
        assert!(running.cancel(&a, waits.query.number));
        let budget = Budget::unlimited();
        drop(waits.begin(&budget));
        assert!(budget.check().is_err());
        let runs = watch(&running, "a", "up");
        let budget = Budget::unlimited();
        drop(runs.begin(&budget));
        assert!(budget.check().is_ok() && running.cancel(&a, runs.query.number) && budget.check().is_err());
        let number = runs.query.number;
        drop(runs);
        assert!(!running.cancel(&a, number), "it has ended");
    }

    #[test]
    fn ended_queries_hold_no_memory() {
        let (running, pool) = (Arc::new(Running::default()), MemoryPool::new(1000));
        let mut failed = watch(&running, "a", "up");
        let budget = Budget::within(pool.clone(), u64::MAX, u64::MAX, None);
        drop(failed.begin(&budget));
        budget.reserve(900).unwrap();
        failed.failed(&"too much");
        drop((failed, budget));
        assert_eq!(running.of(&tenants("a")).1[0].query.figures(), (0, 900));
        assert_eq!(pool.reserved_bytes(), 0);
    }

    #[test]
    fn long_texts_are_cut_and_old_ends_forgotten() {
        let running = Arc::new(Running::default());
        let a = tenants("a");
        for _ in 0..REMEMBERED + 5 {
            drop(watch(&running, "a", &"ü".repeat(MAX_TEXT_BYTES)));
        }
        let ended = running.of(&a).1;
        assert_eq!(ended.len(), REMEMBERED);
        assert!(ended[0].query.text.len() <= MAX_TEXT_BYTES);
    }
}
