//! Results of range queries, kept until what they were computed from changes.
//!
//! 1. An expression is looked at once (`expression`): one whose steps do not depend on where the query
//!    begins and ends is cut at fixed times into *extents* of so many steps (`extents`).
//! 2. The source is asked for a mark of what each extent reads (`reads`, [`model::source::Source::marks`]).
//!    An extent that is kept under the same mark is taken from memory (`store`).
//! 3. The rest is computed, neighbours in one run. Who asks for a run that another computes already, with the
//!    same mark, waits for that one's result (`runs`).
//! 4. The marks are taken again. Extents whose mark stood still while they were computed are kept.
//! 5. Extents and runs are put together as one result (`assemble`), bit for bit what one evaluation gives.
//!
//! An answer with warnings or infos is not kept: they belong to no step. Nothing here reads samples.

mod assemble;
mod expression;
mod extents;
mod reads;
mod runs;
mod store;

use std::sync::Arc;
use std::time::Instant;

use model::source::{Budget, Mark, Read, Source};

use crate::engine::{Engine, QueryRequest, QueryTime, TakeSeries};
use crate::eval::resolution::summary;
use crate::parse::parse_expr;
use crate::plan::{self, Plan, Steps};
use crate::results_cache::assemble::{Assembled, Piece};
use crate::results_cache::extents::{EXTENT_STEPS, Grid};
use crate::results_cache::reads::Reader;
use crate::results_cache::runs::{Flights, Flown, Run};
use crate::results_cache::store::Store;
use crate::value::{QueryError, QueryResult, QueryValue};

pub use store::StoreCounts;

/// Steps from which on a query is worth looking up. Fewer than two extents gain nothing.
const MIN_STEPS: usize = 2 * EXTENT_STEPS;
/// Steps up to which it is, far beyond what the API lets through.
const MAX_STEPS: usize = 100_000;

/// What the cache did for one query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// Steps that were taken from the cache, and that were computed.
    pub cached_steps: u64,
    pub computed_steps: u64,
    /// Some of the computed ones were computed for another query at the same time.
    pub shared: bool,
}

/// See the module.
#[derive(Debug)]
pub struct ResultsCache {
    store: Store,
    flights: Flights,
}

impl ResultsCache {
    /// Holds at most so many bytes.
    pub fn new(max_bytes: u64) -> ResultsCache {
        ResultsCache { store: Store::new(max_bytes), flights: Flights::default() }
    }

    /// What it holds and has done.
    pub fn counts(&self) -> StoreCounts {
        self.store.counts()
    }

    /// As [`Engine::run_streamed`] (without `out` as [`Engine::run`]), with what is kept in the place of what
    /// would be computed; and how much of it was, `None` where the query cannot be kept.
    ///
    /// `scope` is all that decides what `source` shows: tenants, replicas.
    pub fn run(
        &self,
        engine: &Engine,
        source: &dyn Source,
        request: &QueryRequest<'_>,
        scope: &str,
        out: Option<(u64, &mut TakeSeries<'_>)>,
    ) -> Result<(QueryResult, Option<CacheUse>), QueryError> {
        let begun = Instant::now();
        let Some(question) = Question::of(engine, request, scope)? else {
            return Ok((run_plain(engine, source, request, out)?, None));
        };
        let Some(groups) = question.groups(engine) else {
            return Ok((run_plain(engine, source, request, out)?, None));
        };
        let budget = request.options.budget.clone().unwrap_or_else(|| engine.budget(request.options.timeout));
        let mut request = request.clone();
        request.options.budget = Some(budget.clone());
        let marks = source.marks(&groups, &budget)?;
        let whole = self.flights.mark_of(&marks);
        let from_bytes = out.as_ref().map_or(u64::MAX, |(from_bytes, _)| *from_bytes);
        let found = self.store.get(&question.key, question.grid.extents(), &marks, from_bytes);
        let missing = question.grid.missing(|index| found.contains_key(&index));
        // What is put together with what is kept cannot be streamed.
        let mut out = out.filter(|_| found.is_empty());
        let mut pieces: Vec<Piece> = found.into_iter().map(|(index, e)| Piece::kept(index, e)).collect();
        let mut cache_use = CacheUse::default();
        let mut runs: Vec<Arc<Run>> = Vec::new();
        for range in missing {
            let steps = question.grid.steps_of(range);
            let mark = whole.map(|whole| (question.key.clone(), range, whole));
            let compute = || Run::compute(engine, source, &request, steps, out.as_mut());
            cache_use.computed_steps += range.count() as u64;
            match self.flights.run(mark, &budget, compute)? {
                Flown::Streamed(result) => {
                    self.store.count(cache_use);
                    return Ok((*result, Some(cache_use)));
                }
                Flown::Run { run, shared } => {
                    cache_use.shared |= shared;
                    pieces.push(Piece::computed(range, run.clone()));
                    runs.push(run);
                }
            }
        }
        cache_use.cached_steps = (question.steps.count as u64).saturating_sub(cache_use.computed_steps);
        self.keep(source, &budget, &question, (&groups, &marks), &pieces)?;
        let assembled = Assembled::of(&question.grid, pieces, &budget)?;
        let value = QueryValue::Matrix { steps: question.steps, series: assembled.series };
        if let Some(report) = &request.options.resolution_report {
            assembled.resolutions.iter().for_each(|part| report.note(*part));
        }
        let resolutions = summary(assembled.resolutions);
        let detail = request.options.samples;
        let mut stats = runs::stats(&runs, question.steps, detail, resolutions, &value, begun);
        stats.fetched = budget.fetches().fetched();
        let mut annotations = crate::annotations::Annotations::new();
        runs.iter().for_each(|run| annotations.merge(run.annotations.clone()));
        self.store.count(cache_use);
        Ok((QueryResult { value, annotations, stats }, Some(cache_use)))
    }

    /// Keeps the extents that runs have computed whole, where what they read has not changed meanwhile.
    fn keep(
        &self,
        source: &dyn Source,
        budget: &Arc<Budget>,
        question: &Question,
        (groups, marks): (&[Vec<Read>], &[Option<Mark>]),
        pieces: &[Piece],
    ) -> Result<(), QueryError> {
        let mut computed: Vec<(i64, usize, &Piece)> = Vec::new();
        for piece in pieces.iter().filter(|p| p.may_be_kept()) {
            for (at, index) in question.grid.extents().enumerate() {
                if marks[at].is_some() && question.grid.holds_whole(piece.range(&question.grid), index) {
                    computed.push((index, at, piece));
                }
            }
        }
        if computed.is_empty() {
            return Ok(());
        }
        let groups: Vec<_> = computed.iter().map(|(_, at, _)| groups[*at].clone()).collect();
        let after = source.marks(&groups, budget)?;
        for ((index, at, piece), after) in computed.into_iter().zip(after) {
            if let Some(mark) = after.filter(|after| marks[at] == Some(*after)) {
                self.store.put(&question.key, index, piece.cut(&question.grid, index, mark));
            }
        }
        Ok(())
    }
}

fn run_plain(
    engine: &Engine,
    source: &dyn Source,
    request: &QueryRequest<'_>,
    out: Option<(u64, &mut TakeSeries<'_>)>,
) -> Result<QueryResult, QueryError> {
    match out {
        Some((from_bytes, take)) => engine.run_streamed(source, request, from_bytes, take),
        None => engine.run(source, request),
    }
}

/// A query that can be kept.
struct Question {
    /// All that decides the values of a step, but for the samples.
    key: Arc<str>,
    plan: Plan,
    steps: Steps,
    grid: Grid,
    lookback_ms: i64,
    max_resolution: plan::resolution::MaxResolution,
}

impl Question {
    /// `None` where nothing of it is to be kept. What is wrong with a query is told by its evaluation.
    fn of(engine: &Engine, request: &QueryRequest<'_>, scope: &str) -> Result<Option<Question>, QueryError> {
        let QueryTime::Range { start_ms, end_ms, step_ms } = request.time else { return Ok(None) };
        if step_ms <= 0 || end_ms < start_ms {
            return Ok(None);
        }
        let count = (end_ms.saturating_sub(start_ms) / step_ms).saturating_add(1);
        if !(MIN_STEPS as i64..=MAX_STEPS as i64).contains(&count) {
            return Ok(None);
        }
        let options = engine.options();
        let Ok(expr) = parse_expr(request.text, &options.parse) else { return Ok(None) };
        if !expression::is_alike_at_every_step(&expr) {
            return Ok(None);
        }
        let default_subquery_step_ms = options.default_subquery_step_ms;
        let times = plan::Times { start_ms, end_ms, step_ms, default_subquery_step_ms };
        let Ok(plan) = plan::build(&expr, times) else { return Ok(None) };
        let steps = Steps { start_ms, step_ms, count: count as usize };
        let Some(grid) = Grid::of(steps) else { return Ok(None) };
        let lookback_ms = request.options.lookback_ms.filter(|l| *l > 0).unwrap_or(options.lookback_ms);
        let max_resolution = request.options.max_resolution.unwrap_or(options.max_resolution);
        let phase_ms = start_ms.rem_euclid(step_ms);
        let key = format!("{scope}\0{step_ms} {phase_ms} {lookback_ms} {max_resolution:?}\0{expr}");
        let key = Arc::from(key);
        Ok(Some(Question { key, plan, steps, grid, lookback_ms, max_resolution }))
    }

    /// What each extent reads; `None` where an extent would be read otherwise than as a part of the whole.
    fn groups(&self, engine: &Engine) -> Option<Vec<Vec<Read>>> {
        let reader = Reader {
            plan: &self.plan,
            options: engine.options(),
            lookback_ms: self.lookback_ms,
            max_resolution: self.max_resolution,
        };
        reader.of(self.steps)?;
        self.grid.extents().map(|index| reader.of(self.grid.extent_steps(index))).collect()
    }
}
