//! The engine: one query text, one source, one answer. Synchronous; call it from threads that may block.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::labels::Labels;
use model::sample::Value;
use model::source::{Budget, MemoryPool, Reservation, ResolutionReport, Source};

use crate::annotations::Annotations;
use crate::eval::evaluator::{Evaluator, row_held};
use crate::eval::frame::{Column, Point, Row, Val};
use crate::eval::operators::range::{check_step_count, range_series};
use crate::eval::operators::streamed::Streaming;
use crate::eval::stats::resolution::summary;
use crate::eval::stats::samples::{SampleDetail, SampleStats};
use crate::eval::stats::trace::Trace;
use crate::explain::{self, Explained};
pub use crate::options::EngineOptions;
use crate::parse::{Expr, ValueType, parse_expr};
use crate::plan::resolution::MaxResolution;
use crate::plan::{self, Plan, Steps};
use crate::value::{
    InstantSample, QueryError, QueryResult, QueryStats, QueryValue, RangeSeries, SamplesPerStep,
};

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
    /// The budget to charge, so that the caller can cancel it; otherwise one is made from the engine's
    /// limits.
    pub budget: Option<Arc<Budget>>,
    /// How closely samples are counted for [`QueryStats`].
    pub samples: SampleDetail,
    /// Instead of [`EngineOptions::max_resolution`].
    pub max_resolution: Option<MaxResolution>,
    /// Where it is told, while the query runs, which resolution answered which part of time.
    pub answered: Option<Arc<ResolutionReport>>,
}

/// Takes the series of a large range result, ascending by labels. An error ends the query.
pub type TakeSeries<'f> = dyn FnMut(RangeSeries) -> Result<(), QueryError> + Send + 'f;

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
#[derive(Clone, Debug)]
pub struct Engine {
    options: EngineOptions,
    memory: Arc<MemoryPool>,
}

impl Default for Engine {
    fn default() -> Self {
        Engine::new(EngineOptions::default())
    }
}

impl Engine {
    pub fn new(options: EngineOptions) -> Self {
        Engine { memory: MemoryPool::new(options.max_total_memory_bytes), options }
    }

    /// The memory that the queries at work hold.
    pub fn memory(&self) -> &Arc<MemoryPool> {
        &self.memory
    }

    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// A budget with the engine's limits and a deadline `timeout` (at most the engine's own) from now.
    pub fn budget(&self, timeout: Option<Duration>) -> Arc<Budget> {
        let timeout = timeout.map_or(self.options.timeout, |t| t.min(self.options.timeout));
        Budget::within(
            self.memory.clone(),
            self.options.max_samples,
            self.options.max_memory_bytes,
            Instant::now().checked_add(timeout),
        )
    }

    /// Parses, plans and evaluates one query.
    ///
    /// A range query must be over a scalar or an instant vector. Its result is ascending by labels; that of
    /// an instant query keeps the order of evaluation. All errors are final: nothing of a result is given
    /// beside one.
    pub fn run(&self, source: &dyn Source, request: &QueryRequest<'_>) -> Result<QueryResult, QueryError> {
        let prepared = self.prepare(request)?;
        self.run_prepared(source, request, &prepared, None, None)
    }

    /// As [`Engine::run`], but once the rows of a range query hold `from_bytes` they are handed to `take` as
    /// they come, where the expression allows it; the value is then [`QueryValue::Streamed`]. Memory holds a
    /// batch of series and not the result.
    ///
    /// An error may come after series have been handed out.
    pub fn run_streamed(
        &self,
        source: &dyn Source,
        request: &QueryRequest<'_>,
        from_bytes: u64,
        take: &mut TakeSeries<'_>,
    ) -> Result<QueryResult, QueryError> {
        let prepared = self.prepare(request)?;
        self.run_prepared(source, request, &prepared, Some((from_bytes, take)), None)
    }

    /// The plan of a query as a tree, and with `analyze` what each of its nodes did in one evaluation.
    pub fn explain(
        &self,
        source: &dyn Source,
        request: &QueryRequest<'_>,
        analyze: bool,
    ) -> Result<Explained, QueryError> {
        let prepared = self.prepare(request)?;
        let mut options = request.options.clone();
        let budget = options.budget.get_or_insert_with(|| self.budget(options.timeout)).clone();
        let trace = analyze.then(|| Trace::new(prepared.plan.node_count, budget));
        let request = QueryRequest { options, ..request.clone() };
        let ran = match &trace {
            None => None,
            Some(trace) => Some(self.run_prepared(source, &request, &prepared, None, Some(trace.clone()))?),
        };
        let lookback_ms = request.options.lookback_ms.filter(|l| *l > 0).unwrap_or(self.options.lookback_ms);
        let tree = explain::tree(
            &prepared.expr,
            &prepared.plan,
            self.steps(&prepared.times)?,
            lookback_ms,
            self.options.max_samples,
            trace.as_deref(),
        )?;
        Ok(Explained { tree, lookback_ms, ran })
    }

    fn prepare(&self, request: &QueryRequest<'_>) -> Result<Prepared, QueryError> {
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
        Ok(Prepared { begun, expr, plan, times, parse, prepare: begun.elapsed() - parse })
    }

    fn run_prepared(
        &self,
        source: &dyn Source,
        request: &QueryRequest<'_>,
        prepared: &Prepared,
        out: Option<(u64, &mut TakeSeries<'_>)>,
        trace: Option<Arc<Trace>>,
    ) -> Result<QueryResult, QueryError> {
        let budget = request.options.budget.clone().unwrap_or_else(|| self.budget(request.options.timeout));
        let run = || self.evaluate(source, request, prepared, budget, out, trace);
        let (value, annotations, mut stats) = match prepared.plan.depth > DEEP {
            false => run()?,
            true => on_deep_stack(run)?,
        };
        stats.parse = prepared.parse;
        stats.prepare = prepared.prepare;
        stats.total = prepared.begun.elapsed();
        Ok(QueryResult { value, annotations, stats })
    }

    /// The steps of a query, within the limits.
    fn steps(&self, times: &plan::Times) -> Result<Steps, QueryError> {
        let step_ms = times.step_ms.max(1);
        let count = match times.end_ms < times.start_ms {
            true => 0,
            false => times.end_ms.saturating_sub(times.start_ms) as u64 / step_ms as u64 + 1,
        };
        check_step_count(count, self.options.max_samples, "the query")?;
        Ok(Steps { start_ms: times.start_ms, step_ms, count: count as usize })
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
        prepared: &Prepared,
        budget: Arc<Budget>,
        out: Option<(u64, &mut TakeSeries<'_>)>,
        trace: Option<Arc<Trace>>,
    ) -> Result<(QueryValue, Annotations, QueryStats), QueryError> {
        let begun = Instant::now();
        let Prepared { plan, times, .. } = prepared;
        let instant = matches!(request.time, QueryTime::Instant { .. });
        let steps = self.steps(times)?;
        let answered = request.options.answered.clone().unwrap_or_default();
        let new_evaluator = || {
            let mut ev = Evaluator::new(source, &self.options, plan, steps, budget.clone());
            if let Some(lookback_ms) = request.options.lookback_ms.filter(|l| *l > 0) {
                ev.lookback_ms = lookback_ms;
            }
            ev.sample_stats = SampleStats::new(request.options.samples, steps.count);
            ev.max_resolution = request.options.max_resolution.unwrap_or(self.options.max_resolution);
            ev.answered = answered.clone();
            ev.trace = trace.clone();
            ev
        };
        let mut ev = new_evaluator();
        let mut handed_out = None;
        let mut evaluated: Option<Val> = None;
        if let (Some((from_bytes, take)), false) = (out, instant) {
            let read = budget.samples_read();
            let handed =
                ev.collect_or_stream(&plan.root, from_bytes, &mut |row| take(range_series(row, &steps)))?;
            match handed {
                Streaming::Collected(frame) => evaluated = Some(Val::Vector(frame)),
                Streaming::Streamed(series) => handed_out = Some(series),
                Streaming::NotPossible => {
                    budget.forget_samples(budget.samples_read() - read);
                    ev = new_evaluator();
                }
            }
        }
        let mut sort = Duration::ZERO;
        let mut sorted = |mut all: Vec<RangeSeries>| {
            let begun = Instant::now();
            all.sort_by(|a, b| a.labels.cmp(&b.labels));
            sort = begun.elapsed();
            QueryValue::Matrix(all)
        };
        let ts_ms = times.start_ms;
        let value = if let Some(series) = handed_out {
            QueryValue::Streamed(series)
        } else if plan.root.kind == ValueType::RangeVector {
            let all = ev.eval_range_vector(&plan.root)?;
            sorted(all)
        } else {
            let evaluated = match evaluated {
                Some(known) => known,
                None => ev.eval(&plan.root)?,
            };
            match evaluated {
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
                            let samples = row_held(&row).samples;
                            budget.reserve(Reservation { bytes: 16 * row.column.len() as u64, samples })?;
                            budget.release(Reservation { bytes: row.column.bytes(), samples });
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
            QueryValue::Streamed(series) => *series,
            _ => 1,
        };
        let bytes_peak = trace.map_or(budget.bytes_peak(), |t| t.bytes_peak());
        let SampleStats { total, read, total_per_step, read_per_step, .. } = ev.sample_stats;
        let stats = QueryStats {
            eval: begun.elapsed(),
            sort,
            samples_read: budget.samples_read(),
            answered: summary(answered.parts()),
            samples_total: total,
            samples_new: read,
            samples_per_step: (request.options.samples == SampleDetail::Steps).then_some(SamplesPerStep {
                start_ms: steps.start_ms,
                step_ms: steps.step_ms,
                total: total_per_step,
                read: read_per_step,
            }),
            samples_peak: budget.samples_peak(),
            bytes_peak,
            steps: steps.count as u64,
            series,
            ..QueryStats::default()
        };
        Ok((value, ev.notes, stats))
    }
}

/// A query that has been read and planned.
struct Prepared {
    begun: Instant,
    expr: Expr,
    plan: Plan,
    times: plan::Times,
    parse: Duration,
    prepare: Duration,
}

/// From this nesting on the evaluation gets a stack of its own.
const DEEP: usize = 24;

/// Evaluation recurses once per level of nesting; a thread's usual 2 MiB would be short for the deepest
/// allowed tree.
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
