//! The engine: one query text, one source, one answer. Synchronous; call it from threads that may block.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::labels::Labels;
use model::sample::Value;
use model::source::at_once::may_wait;
use model::source::{Budget, BudgetBounds, MemoryPool, ResolutionReport, Source};
use model::tenant_limits::TenantLimits;

use crate::annotations::Annotations;
use crate::column::{Column, Point};
use crate::eval::evaluator::Evaluator;
use crate::eval::frame::{Frame, Row, Val};
use crate::eval::operators::range::{check_step_count, step_series};
use crate::eval::operators::streamed::Streaming;
use crate::eval::resolution::summary;
use crate::eval::stats::samples::{SampleDetail, SampleStats};
use crate::eval::stats::trace::Trace;
use crate::explain::{self, Explained};
pub use crate::options::EngineOptions;
use crate::parse::{Expr, ValueType, parse_expr};
use crate::plan::resolution::MaxResolution;
use crate::plan::{self, Plan, Steps};
use crate::value::{
    InstantSample, QueryError, QueryResult, QueryStats, QueryValue, SamplesPerStep, StepSeries,
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
    /// Where sources report, while the query runs, which resolution answered which part of time.
    pub resolution_report: Option<Arc<ResolutionReport>>,
}

/// Takes the series of a large range result, ascending by labels, with the steps of the query. An error ends
/// the query.
pub type TakeSeries<'f> = dyn FnMut(&Steps, StepSeries) -> Result<(), QueryError> + Send + 'f;

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
        Budget::within_bounds(self.memory.clone(), self.bounds(timeout))
    }

    /// A budget for a query of a tenant, which may be called off where memory is short: for a thread that may
    /// wait.
    pub fn tenant_budget(&self, timeout: Option<Duration>, limits: &TenantLimits) -> Arc<Budget> {
        let bounds = BudgetBounds { evictable: true, ..self.bounds(timeout) };
        Budget::within_bounds(self.memory.clone(), bounds.of_tenant(limits))
    }

    /// The same for a query that is over soon, on a thread that must not wait.
    pub fn tenant_budget_at_once(&self, timeout: Option<Duration>, limits: &TenantLimits) -> Arc<Budget> {
        Budget::within_bounds(self.memory.clone(), self.bounds(timeout).of_tenant(limits))
    }

    /// What a query may that is of no tenant.
    fn bounds(&self, timeout: Option<Duration>) -> BudgetBounds {
        let timeout = timeout.map_or(self.options.timeout, |t| t.min(self.options.timeout));
        BudgetBounds {
            max_samples: self.options.max_samples,
            max_bytes: self.options.max_memory_bytes,
            deadline: Instant::now().checked_add(timeout),
            ..BudgetBounds::default()
        }
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
            true => {
                may_wait()?;
                on_deep_stack(run)?
            }
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
        let evaluation = Evaluation {
            engine: self,
            source,
            options: &request.options,
            plan: &prepared.plan,
            steps: self.steps(&prepared.times)?,
            instant: matches!(request.time, QueryTime::Instant { .. }),
            budget,
            resolution_report: request.options.resolution_report.clone().unwrap_or_default(),
            trace,
        };
        let (mut value, ev) = evaluation.run(out)?;
        let sorting = Instant::now();
        value.sort_by_labels();
        let sort = sorting.elapsed();
        evaluation.budget.check()?;
        let stats = QueryStats { eval: begun.elapsed(), sort, ..evaluation.stats(&value, ev.sample_stats) };
        Ok((value, ev.notes, stats))
    }
}

/// One evaluation of a prepared query.
struct Evaluation<'a> {
    engine: &'a Engine,
    source: &'a dyn Source,
    options: &'a QueryOptions,
    plan: &'a Plan,
    steps: Steps,
    instant: bool,
    budget: Arc<Budget>,
    resolution_report: Arc<ResolutionReport>,
    trace: Option<Arc<Trace>>,
}

impl<'a> Evaluation<'a> {
    /// The value, in the order of evaluation, and the evaluator that knows what it took.
    fn run(
        &self,
        out: Option<(u64, &mut TakeSeries<'_>)>,
    ) -> Result<(QueryValue, Evaluator<'a>), QueryError> {
        let (root, steps) = (&self.plan.root, self.steps);
        let mut ev = self.evaluator();
        if let Some((from_bytes, take)) = out.filter(|_| !self.instant) {
            let read = self.budget.samples_read();
            let take = &mut |row: Row| take(&steps, StepSeries { labels: row.labels, column: row.column });
            match ev.collect_or_stream(root, from_bytes, take)? {
                Streaming::Collected(frame) => return Ok((self.vector(ev.finish(frame)?), ev)),
                Streaming::Streamed(series) => return Ok((QueryValue::Streamed(series), ev)),
                Streaming::NotPossible => {
                    self.budget.forget_samples(self.budget.samples_read() - read);
                    ev = self.evaluator();
                }
            }
        }
        let ts_ms = steps.start_ms;
        let value = match root.kind {
            ValueType::RangeVector => ev.eval_range_vector(root)?,
            _ => match ev.eval(root)? {
                Val::Str(value) => QueryValue::String { ts_ms, value },
                Val::Scalar(v) if self.instant => QueryValue::Scalar { ts_ms, value: v[0] },
                Val::Scalar(v) => {
                    let row = Row { labels: Labels::empty(), drop_name: false, column: Column::full(v) };
                    self.vector(Frame { rows: vec![row] })
                }
                Val::Vector(frame) => self.vector(ev.finish(frame)?),
            },
        };
        Ok((value, ev))
    }

    fn evaluator(&self) -> Evaluator<'a> {
        let (options, engine) = (self.options, &self.engine.options);
        let mut ev = Evaluator::new(self.source, engine, self.plan, self.steps, self.budget.clone());
        if let Some(lookback_ms) = options.lookback_ms.filter(|l| *l > 0) {
            ev.lookback_ms = lookback_ms;
        }
        ev.sample_stats = SampleStats::new(options.samples, self.steps.count);
        ev.max_resolution = options.max_resolution.unwrap_or(engine.max_resolution);
        ev.resolution_report = self.resolution_report.clone();
        ev.trace = self.trace.clone();
        ev
    }

    /// An instant vector over all steps as the query's value.
    fn vector(&self, frame: Frame) -> QueryValue {
        if !self.instant {
            return QueryValue::Matrix { steps: self.steps, series: step_series(frame.rows) };
        }
        let sample = |row: Row| {
            let value = match row.column.get(0)? {
                Point::Float(v) => Value::Float(v),
                Point::Histogram(h) => Value::Histogram(h.clone()),
            };
            Some(InstantSample { labels: row.labels, value })
        };
        let samples = frame.rows.into_iter().filter_map(sample).collect();
        QueryValue::Vector { ts_ms: self.steps.start_ms, samples }
    }

    /// The figures of a value, without the times it took.
    fn stats(&self, value: &QueryValue, samples: SampleStats) -> QueryStats {
        let SampleStats { total, read, total_per_step, read_per_step, .. } = samples;
        let (steps, budget) = (self.steps, &self.budget);
        let per_step = SamplesPerStep {
            start_ms: steps.start_ms,
            step_ms: steps.step_ms,
            total: total_per_step,
            read: read_per_step,
        };
        QueryStats {
            samples_read: budget.samples_read(),
            fetched: budget.fetches().fetched(),
            resolutions: summary(self.resolution_report.parts()),
            samples_total: total,
            samples_new: read,
            samples_per_step: (self.options.samples == SampleDetail::Steps).then_some(per_step),
            samples_peak: budget.samples_peak(),
            bytes_peak: self.trace.as_ref().map_or(budget.bytes_peak(), |t| t.bytes_peak()),
            steps: steps.count as u64,
            series: value.series(),
            ..QueryStats::default()
        }
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
