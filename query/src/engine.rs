//! The engine: one query text, one source, one answer. Synchronous; call it from threads that may block.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tsdb::source::{Budget, Source};

use crate::parse::ParseOptions;
use crate::value::{QueryError, QueryResult};

/// Settings that hold for every query; a query may narrow some of them by [`QueryOptions`].
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How far back an instant selector looks for a sample, left-open.
    pub lookback_ms: i64,
    /// Step of `[5m:]`.
    pub default_subquery_step_ms: i64,
    /// Most samples one query may read, and most points one value may hold.
    pub max_samples: u64,
    /// Most memory that one query's samples and results may hold at once.
    pub max_memory_bytes: u64,
    /// Longest evaluation.
    pub timeout: Duration,
    /// Drop metric names at the very end (upstream `promql-delayed-name-removal`).
    pub delayed_name_removal: bool,
    /// `rate` and its kin read start timestamps (upstream `use-start-timestamps`).
    pub use_start_timestamps: bool,
    /// Metadata labels `__type__` and `__unit__` are in use (upstream `type-and-unit-labels`).
    pub type_and_unit_labels: bool,
    pub parse: ParseOptions,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            lookback_ms: 5 * 60_000,
            default_subquery_step_ms: 60_000,
            max_samples: 50_000_000,
            max_memory_bytes: 2 << 30,
            timeout: Duration::from_secs(120),
            delayed_name_removal: false,
            use_start_timestamps: false,
            type_and_unit_labels: false,
            parse: ParseOptions::default(),
        }
    }
}

/// When a query is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryTime {
    Instant {
        time_ms: i64,
    },
    /// From `start_ms` every `step_ms` (positive) up to `end_ms`, both included.
    Range {
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    },
}

/// What one query asks for beside its text.
#[derive(Clone, Debug, Default)]
pub struct QueryOptions {
    /// Instead of [`EngineOptions::lookback_ms`].
    pub lookback_ms: Option<i64>,
    /// Shorter than [`EngineOptions::timeout`]; a longer one is cut to it.
    pub timeout: Option<Duration>,
    /// The budget to charge, so that the caller can cancel it; otherwise one is made from the engine's limits.
    pub budget: Option<Arc<Budget>>,
}

/// One query.
#[derive(Clone, Debug)]
pub struct QueryRequest<'a> {
    pub text: &'a str,
    pub time: QueryTime,
    pub options: QueryOptions,
}

impl<'a> QueryRequest<'a> {
    pub fn instant(text: &'a str, time_ms: i64) -> Self {
        QueryRequest { text, time: QueryTime::Instant { time_ms }, options: QueryOptions::default() }
    }

    pub fn range(text: &'a str, start_ms: i64, end_ms: i64, step_ms: i64) -> Self {
        QueryRequest {
            text,
            time: QueryTime::Range { start_ms, end_ms, step_ms },
            options: QueryOptions::default(),
        }
    }
}

/// Evaluates PromQL.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    options: EngineOptions,
}

impl Engine {
    pub fn new(options: EngineOptions) -> Self {
        Engine { options }
    }

    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// A budget with the engine's limits and a deadline `timeout` (at most the engine's own) from now.
    pub fn budget(&self, timeout: Option<Duration>) -> Arc<Budget> {
        let timeout = timeout.map_or(self.options.timeout, |t| t.min(self.options.timeout));
        Budget::new(
            self.options.max_samples,
            self.options.max_memory_bytes,
            Instant::now().checked_add(timeout),
        )
    }

    /// Parses, plans and evaluates one query.
    pub fn run(&self, _source: &dyn Source, request: &QueryRequest<'_>) -> Result<QueryResult, QueryError> {
        Err(QueryError::internal(format!("evaluation is not implemented yet: {}", request.text)))
    }
}
