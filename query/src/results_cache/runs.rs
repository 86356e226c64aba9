//! Evaluations of a part of a query, each made once for all who want it at the same time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use model::labels::Labels;
use model::source::at_once::may_wait;
use model::source::{Budget, Mark, MarkBuilder, ResolutionPart, ResolutionReport, Source};
use parking_lot::{Condvar, Mutex};

use crate::annotations::Annotations;
use crate::column::Column;
use crate::engine::{Engine, QueryRequest, QueryTime, TakeSeries};
use crate::eval::stats::samples::SampleDetail;
use crate::plan::Steps;
use crate::results_cache::extents::StepRange;
use crate::value::{QueryError, QueryResult, QueryStats, QueryValue, SamplesPerStep};

/// How often one who waits for another's run looks whether its own query is over.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What one evaluation gave.
#[derive(Debug)]
pub struct Run {
    pub labels: Arc<Vec<Labels>>,
    /// A column for each label set.
    pub columns: Vec<Column>,
    pub annotations: Annotations,
    pub resolutions: Vec<ResolutionPart>,
    pub stats: QueryStats,
}

impl Run {
    /// The matrix of a result; of anything else nothing. `resolutions`: what sources reported.
    pub fn of(result: QueryResult, resolutions: Vec<ResolutionPart>) -> Run {
        let (mut labels, mut columns) = (Vec::new(), Vec::new());
        if let QueryValue::Matrix { series, .. } = result.value {
            for one in series {
                labels.push(one.labels);
                columns.push(one.column);
            }
        }
        let (annotations, stats) = (result.annotations, result.stats);
        Run { labels: Arc::new(labels), columns, annotations, resolutions, stats }
    }

    /// Evaluates a query at some of its steps; with `out`, which wants all of them, as
    /// [`Engine::run_streamed`].
    pub fn compute(
        engine: &Engine,
        source: &dyn Source,
        request: &QueryRequest<'_>,
        steps: Steps,
        out: Option<&mut (u64, &mut TakeSeries<'_>)>,
    ) -> Result<Computed, QueryError> {
        let mut request = request.clone();
        let (start_ms, end_ms, step_ms) = (steps.start_ms, steps.end_ms(), steps.step_ms);
        request.time = QueryTime::Range { start_ms, end_ms, step_ms };
        let report = Arc::new(ResolutionReport::default());
        let report_to = request.options.resolution_report.replace(report.clone());
        let result = match out {
            None => engine.run(source, &request)?,
            Some((from_bytes, take)) => engine.run_streamed(source, &request, *from_bytes, &mut **take)?,
        };
        Ok(match result.value {
            QueryValue::Streamed(_) => {
                if let Some(to) = report_to {
                    report.parts().into_iter().for_each(|part| to.note(part));
                }
                Computed::Streamed(Box::new(result))
            }
            _ => Computed::Run(Arc::new(Run::of(result, report.parts()))),
        })
    }
}

/// What came of an evaluation.
pub enum Computed {
    Run(Arc<Run>),
    /// Its series were handed out, and are nobody else's.
    Streamed(Box<QueryResult>),
}

/// What came of a run that may have been another's.
pub enum Flown {
    Run { run: Arc<Run>, shared: bool },
    Streamed(Box<QueryResult>),
}

/// Runs by what they are of: a query, its steps, and a mark of all they read.
type FlightKey = (Arc<str>, StepRange, Mark);

/// Runs that are under way.
#[derive(Debug, Default)]
pub struct Flights(Mutex<HashMap<FlightKey, Arc<Flight>>>);

#[derive(Debug, Default)]
struct Flight {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Running,
    Done(Arc<Run>),
    /// It ended without a result: with an error, or because its client went away.
    Ended,
}

/// Ends a flight, also where the work panics.
struct Leader<'f> {
    flights: &'f Flights,
    key: FlightKey,
    flight: Arc<Flight>,
    run: Option<Arc<Run>>,
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        self.flights.0.lock().remove(&self.key);
        *self.flight.state.lock() = self.run.take().map_or(State::Ended, State::Done);
        self.flight.ended.notify_all();
    }
}

impl Flights {
    /// A mark of all extents of a query; `None` where one of them has none, so that nobody can tell whether
    /// another query sees the same.
    pub fn mark_of(&self, marks: &[Option<Mark>]) -> Option<Mark> {
        let mut all = MarkBuilder::default();
        for mark in marks {
            all.mark((*mark)?);
        }
        Some(all.build())
    }

    /// What `compute` gives, or another gave for the same key since before; and whether it was another's.
    /// Who waits is charged as if it had computed, and goes on by itself where the other fails.
    pub fn run(
        &self,
        key: Option<FlightKey>,
        budget: &Arc<Budget>,
        mut compute: impl FnMut() -> Result<Computed, QueryError>,
    ) -> Result<Flown, QueryError> {
        let flown = |run| Flown::Run { run, shared: false };
        let Some(key) = key else {
            return Ok(match compute()? {
                Computed::Run(run) => flown(run),
                Computed::Streamed(result) => Flown::Streamed(result),
            });
        };
        loop {
            let mut flights = self.0.lock();
            let Some(flight) = flights.get(&key).cloned() else {
                let flight = Arc::new(Flight::default());
                flights.insert(key.clone(), flight.clone());
                drop(flights);
                let mut leader = Leader { flights: self, key, flight, run: None };
                return Ok(match compute()? {
                    Computed::Run(run) => {
                        leader.run = Some(run.clone());
                        flown(run)
                    }
                    Computed::Streamed(result) => Flown::Streamed(result),
                });
            };
            drop(flights);
            if let Some(run) = flight.wait(budget)? {
                let held: u64 = run.columns.iter().map(Column::bytes).sum();
                budget.read_samples(run.stats.samples_read);
                budget.reserve(held)?;
                return Ok(Flown::Run { run, shared: true });
            }
        }
    }
}

impl Flight {
    /// The result of the other's run; `None` where it ended without one.
    fn wait(&self, budget: &Budget) -> Result<Option<Arc<Run>>, QueryError> {
        let mut state = self.state.lock();
        loop {
            match &*state {
                State::Done(run) => return Ok(Some(run.clone())),
                State::Ended => return Ok(None),
                State::Running => {}
            }
            may_wait()?;
            budget.check()?;
            self.ended.wait_for(&mut state, LOOK_EVERY);
        }
    }
}

/// The figures of a query that was computed in runs.
pub fn stats(
    runs: &[Arc<Run>],
    steps: Steps,
    detail: SampleDetail,
    resolutions: Vec<ResolutionPart>,
    value: &QueryValue,
    begun: Instant,
) -> QueryStats {
    let mut all =
        QueryStats { resolutions, steps: steps.count as u64, series: value.series(), ..Default::default() };
    let mut per_step = SamplesPerStep {
        start_ms: steps.start_ms,
        step_ms: steps.step_ms,
        total: vec![0; steps.count],
        read: vec![0; steps.count],
    };
    for of in runs.iter().map(|run| &run.stats) {
        all.parse += of.parse;
        all.prepare += of.prepare;
        all.eval += of.eval;
        all.sort += of.sort;
        all.samples_read += of.samples_read;
        all.samples_total += of.samples_total;
        all.samples_new += of.samples_new;
        all.samples_peak = all.samples_peak.max(of.samples_peak);
        all.bytes_peak = all.bytes_peak.max(of.bytes_peak);
        if let Some(of) = &of.samples_per_step {
            let from = ((of.start_ms - steps.start_ms) / steps.step_ms.max(1)) as usize;
            let add = |to: &mut Vec<u64>, of: &[u64]| {
                to.iter_mut().skip(from).zip(of).for_each(|(to, n)| *to = *n);
            };
            add(&mut per_step.total, &of.total);
            add(&mut per_step.read, &of.read);
        }
    }
    if matches!(detail, SampleDetail::Steps) {
        all.samples_per_step = Some(per_step);
    }
    all.total = begun.elapsed();
    all
}
