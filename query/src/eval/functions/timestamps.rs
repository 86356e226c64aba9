//! When samples were taken: `timestamp`, `start_timestamp`, and the reading of times that `info` needs too.

use std::sync::Arc;

use model::labels::Labels;
use model::matcher::Matcher;
use model::source::{Hints, ResolutionReport, RollupHints, Selection};

use super::kernel::{Entry, Kernel};
use crate::column::Column;
use crate::eval::evaluator::{Evaluator, label_bytes};
use crate::eval::frame::{Frame, Row, Val};
use crate::plan::resolution::{Looks, Needs, rollup_hints};
use crate::plan::{Call, PlanNode};
use crate::value::QueryError;

pub static TABLE: &[Entry] = &[
    Entry { name: "timestamp", kernel: Kernel::Whole(timestamp) },
    Entry { name: "start_timestamp", kernel: Kernel::Whole(start_timestamp) },
];

/// The sample that an instant selector takes at a step.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub ts_ms: i64,
    /// 0 where unknown.
    pub start_ts_ms: i64,
    pub is_histogram: bool,
}

/// A series and what is taken of it, one entry per step.
pub type TakenSeries = (Labels, Vec<Option<Taken>>);

impl Evaluator<'_> {
    /// For each series that matches, the newest sample within `(after, up to]` at each step (both never
    /// descending), unless a staleness marker stands there.
    pub fn taken_samples(
        &mut self,
        matchers: &[Matcher],
        window: &dyn Fn(usize) -> (i64, i64),
        func: &str,
    ) -> Result<Vec<TakenSeries>, QueryError> {
        // The newest sample is a window's last one; start timestamps are not kept.
        let needs = Needs { samples: func == "start_timestamp", ..Needs::default() };
        let step_ms = if self.steps.count > 1 { window(1).1.saturating_sub(window(0).1) } else { 0 };
        let looks = Looks { first_ms: window(0).1, step_ms, count: self.steps.count, range_ms: 0 };
        let report = Some(Arc::new(ResolutionReport::default()));
        let windows = RollupHints { report, ..rollup_hints(needs, looks, self.max_resolution) };
        let selection = Selection {
            matchers: matchers.to_vec(),
            min_t_ms: window(0).0.saturating_add(1),
            max_t_ms: window(self.steps.count - 1).1,
            hints: Hints {
                rollups: windows,
                step_ms: if self.steps.is_instant() { 0 } else { self.steps.step_ms },
                ..Hints::default()
            },
            budget: self.budget.clone(),
        };
        let mut out = Vec::new();
        let (source, steps) = (self.source, self.steps);
        let mut cursor = source.select(&selection)?;
        let range = (selection.min_t_ms, selection.max_t_ms);
        self.note_resolutions((func, None), &selection.hints.rollups, needs, looks, range);
        while let Some(batch) = cursor.next_batch()? {
            self.budget.check_in_turn()?;
            for series in batch {
                self.budget.check_in_turn()?;
                self.charge((size_of::<Option<Taken>>() * steps.count) as u64 + label_bytes(&series.labels))?;
                let mut next = 0;
                let taken = (0..steps.count).map(|step| {
                    let (after, up_to) = window(step);
                    while next < series.ts_ms.len() && series.ts_ms[next] <= up_to {
                        next += 1;
                    }
                    let at = next.checked_sub(1)?;
                    if series.ts_ms[at] <= after || model::sample::is_stale(series.values[at]) {
                        return None;
                    }
                    Some(Taken {
                        ts_ms: series.ts_ms[at],
                        start_ts_ms: series.start_ts_ms.as_ref().map_or(0, |s| s[at]),
                        is_histogram: series.histograms.as_ref().is_some_and(|h| h[at].is_some()),
                    })
                });
                let taken: Vec<Option<Taken>> = taken.collect();
                for (step, _) in taken.iter().enumerate().filter(|(_, t)| t.is_some()) {
                    self.sample_stats.at(step, 1);
                }
                out.push((series.labels.clone(), taken));
            }
        }
        Ok(out)
    }
}

/// One time of every sample that a selector takes, in seconds.
fn of_selector(
    ev: &mut Evaluator<'_>,
    call: &Call,
    time: fn(Taken) -> i64,
) -> Result<Option<Val>, QueryError> {
    let PlanNode::Selector(selector) = &call.args[0].unwrapped().node else { return Ok(None) };
    let (steps, lookback_ms, offset_ms) = (ev.steps, ev.lookback_ms, selector.offset_ms);
    let window = |step: usize| match selector.at_ms {
        None => {
            let t = steps.at(step).saturating_sub(offset_ms);
            (t.saturating_sub(lookback_ms), t)
        }
        // Upstream reads the samples that `offset` asks for and then looks for one at the time of `@` itself
        // (`rangeEvalTimestampFunctionOverVectorSelector`), so only what both windows share is seen.
        // `smoothed` asks for more on both sides.
        Some(at) => {
            let moved = at.saturating_sub(offset_ms);
            let more = if selector.smoothed { lookback_ms } else { 0 };
            let from = at.max(moved.saturating_sub(more)).saturating_sub(lookback_ms);
            (from, at.min(moved.saturating_add(more)))
        }
    };
    let series = ev.taken_samples(&selector.matchers, &window, call.func.name)?;
    let mut rows = Vec::new();
    for (labels, taken) in series {
        let mut column = Column::new(ev.steps.count);
        for (step, t) in taken.iter().enumerate() {
            if let Some(t) = t {
                column.set_float(step, time(*t) as f64 / 1000.0);
            }
        }
        if !column.is_empty() {
            let (labels, drop_name) = ev.drop_name(labels);
            rows.push(Row { labels, drop_name, column });
        }
    }
    ev.collect(rows).map(|f| Some(Val::Vector(f)))
}

/// The time of each sample of a selector; of any other vector the time of evaluation.
fn timestamp(ev: &mut Evaluator<'_>, call: &Call) -> Result<Val, QueryError> {
    if let Some(val) = of_selector(ev, call, |t| t.ts_ms)? {
        return Ok(val);
    }
    let mut rows = Vec::new();
    for row in ev.eval_vector(&call.args[0])?.rows {
        let mut column = Column::new(ev.steps.count);
        for (step, _) in row.column.iter() {
            column.set_float(step, ev.steps.at(step) as f64 / 1000.0);
        }
        if !column.is_empty() {
            let (labels, drop_name) = ev.drop_name(row.labels);
            rows.push(Row { labels, drop_name, column });
        }
    }
    ev.collect(rows).map(Val::Vector)
}

/// When the counter behind each sample of a selector began, 0 where unknown. Empty while start timestamps are
/// off, and for anything but a selector.
fn start_timestamp(ev: &mut Evaluator<'_>, call: &Call) -> Result<Val, QueryError> {
    if ev.options.use_start_timestamps
        && let Some(val) = of_selector(ev, call, |t| t.start_ts_ms)?
    {
        return Ok(val);
    }
    Ok(Val::Vector(Frame::default()))
}
