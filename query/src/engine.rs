//! The engine: one query text, one source, one answer. Synchronous; call it from threads that may block.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tsdb::labels::Labels;
use tsdb::sample::Value;
use tsdb::source::{Budget, Source};

use crate::annotations::Annotations;
use crate::eval::frame::{Column, Point, Row, Val};
use crate::eval::range::{check_step_count, range_series};
use crate::eval::{Evaluator, Steps};
use crate::parse::{ParseOptions, ValueType, parse_expr};
use crate::plan::{self, Plan};
use crate::value::{InstantSample, QueryError, QueryResult, QueryStats, QueryValue, RangeSeries};

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
    ///
    /// A range query must be over a scalar or an instant vector. Its result is ascending by labels; that of an instant query keeps the order of
    /// evaluation. All errors are final: nothing of a result is given beside one.
    pub fn run(&self, source: &dyn Source, request: &QueryRequest<'_>) -> Result<QueryResult, QueryError> {
        let begun = Instant::now();
        let expr = parse_expr(request.text, &self.options.parse)?;
        let parse = begun.elapsed();
        let times = self.times(&request.time)?;
        let instant = matches!(request.time, QueryTime::Instant { .. });
        if !instant && !matches!(expr.value_type(), ValueType::Scalar | ValueType::InstantVector) {
            return Err(QueryError::bad_data(format!(
                "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
                expr.value_type().as_str()
            )));
        }
        let plan = plan::build(&expr, times)?;
        let prepare = begun.elapsed() - parse;
        let budget = request.options.budget.clone().unwrap_or_else(|| self.budget(request.options.timeout));
        let run = || self.evaluate(source, request, &plan, times, budget.clone());
        let (value, annotations, mut stats) = match plan.depth > DEEP {
            false => run()?,
            true => on_deep_stack(run)?,
        };
        stats.parse = parse;
        stats.prepare = prepare;
        stats.total = begun.elapsed();
        Ok(QueryResult { value, annotations, stats })
    }

    /// The times of a query, checked.
    fn times(&self, time: &QueryTime) -> Result<plan::Times, QueryError> {
        let default_subquery_step_ms = self.options.default_subquery_step_ms;
        match *time {
            QueryTime::Instant { time_ms } => {
                Ok(plan::Times { start_ms: time_ms, end_ms: time_ms, step_ms: 0, default_subquery_step_ms })
            }
            QueryTime::Range { start_ms, end_ms, step_ms } => {
                if step_ms <= 0 {
                    return Err(QueryError::bad_data("the step of a range query must be positive"));
                }
                Ok(plan::Times { start_ms, end_ms, step_ms, default_subquery_step_ms })
            }
        }
    }

    fn evaluate(
        &self,
        source: &dyn Source,
        request: &QueryRequest<'_>,
        plan: &Plan,
        times: plan::Times,
        budget: Arc<Budget>,
    ) -> Result<(QueryValue, Annotations, QueryStats), QueryError> {
        let begun = Instant::now();
        let instant = matches!(request.time, QueryTime::Instant { .. });
        let step_ms = times.step_ms.max(1);
        let count = match times.end_ms < times.start_ms {
            true => 0,
            false => times.end_ms.saturating_sub(times.start_ms) as u64 / step_ms as u64 + 1,
        };
        check_step_count(count, self.options.max_samples, "the query")?;
        let steps = Steps { start_ms: times.start_ms, step_ms, count: count as usize };
        let mut ev = Evaluator::new(source, &self.options, plan, steps, budget.clone());
        if let Some(lookback_ms) = request.options.lookback_ms.filter(|l| *l > 0) {
            ev.lookback_ms = lookback_ms;
        }
        let mut sort = Duration::ZERO;
        let mut sorted = |mut all: Vec<RangeSeries>| {
            let begun = Instant::now();
            all.sort_by(|a, b| a.labels.cmp(&b.labels));
            sort = begun.elapsed();
            QueryValue::Matrix(all)
        };
        let ts_ms = times.start_ms;
        let value = if plan.root.kind == ValueType::RangeVector {
            let all = ev.eval_range_vector(&plan.root)?;
            sorted(all)
        } else {
            match ev.eval(&plan.root)? {
                Val::Str(value) => QueryValue::String { ts_ms, value },
                Val::Scalar(v) if instant => QueryValue::Scalar { ts_ms, value: v[0] },
                Val::Scalar(v) if v.is_empty() => QueryValue::Matrix(Vec::new()),
                Val::Scalar(v) => {
                    let row = Row { labels: Labels::empty(), drop_name: false, column: Column::full(v) };
                    QueryValue::Matrix(vec![range_series(row, &steps)])
                }
                Val::Vector(frame) => {
                    let frame = ev.finish(frame)?;
                    if instant {
                        let sample = |r: Row| {
                            let value = match r.column.get(0)? {
                                Point::Float(v) => Value::Float(v),
                                Point::Histogram(h) => Value::Histogram(h.clone()),
                            };
                            Some(InstantSample { labels: r.labels, value })
                        };
                        QueryValue::Vector {
                            ts_ms,
                            samples: frame.rows.into_iter().filter_map(sample).collect(),
                        }
                    } else {
                        let mut all = Vec::with_capacity(frame.rows.len());
                        for row in frame.rows.into_iter().filter(|r| !r.column.is_empty()) {
                            // Each row goes as its points come, which have a timestamp each.
                            budget.hold(16 * row.column.len() as u64)?;
                            budget.release(row.column.bytes());
                            all.push(range_series(row, &steps));
                        }
                        sorted(all)
                    }
                }
            }
        };
        budget.check()?;
        let series = match &value {
            QueryValue::Vector { samples, .. } => samples.len() as u64,
            QueryValue::Matrix(all) => all.len() as u64,
            _ => 1,
        };
        let stats = QueryStats {
            eval: begun.elapsed(),
            sort,
            samples_read: budget.samples_read(),
            samples_total: ev.samples_total,
            samples_peak: budget.bytes_peak() / 16,
            bytes_peak: budget.bytes_peak(),
            steps: count,
            series,
            ..QueryStats::default()
        };
        Ok((value, ev.notes, stats))
    }
}

/// From this nesting on the evaluation gets a stack of its own.
const DEEP: usize = 24;

/// Evaluation recurses once per level of nesting; a thread's usual 2 MiB would be short for the deepest allowed tree.
fn on_deep_stack<T: Send>(run: impl FnOnce() -> Result<T, QueryError> + Send) -> Result<T, QueryError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("deep query".to_string()).stack_size(64 << 20);
        match thread.spawn_scoped(scope, run) {
            Ok(handle) => {
                handle.join().unwrap_or_else(|_| Err(QueryError::internal("evaluation failed unexpectedly")))
            }
            Err(e) => Err(QueryError::internal(format!("no thread for a deeply nested query: {e}"))),
        }
    })
}
