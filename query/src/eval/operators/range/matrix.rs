//! A range vector as the result of a query, and rows as points in time.

use model::labels::Labels;
use model::source::{Reservation, SeriesColumns};

use super::reach::{matrix_reach, subquery_steps};
use crate::eval::evaluator::Evaluator;
use crate::eval::frame::{Column, Point, Row, Val};
use crate::eval::functions::Extended;
use crate::eval::functions::rate::extend;
use crate::eval::operators::selector::without_stale;
use crate::eval::stats::samples;
use crate::eval::timeline::{Reach, windows};
use crate::plan::{PlanExpr, PlanNode, Steps};
use crate::value::{QueryError, RangeSeries};

impl Evaluator<'_> {
    /// A range vector as the result of an instant query: the samples of each series.
    pub fn eval_range_vector(&mut self, expr: &PlanExpr) -> Result<Vec<RangeSeries>, QueryError> {
        self.budget.check()?;
        match &expr.node {
            PlanNode::StepInvariant(inner) => self.eval_range_vector(inner),
            PlanNode::Matrix { selector, range_ms } => {
                let (reach, extended) = matrix_reach(selector, *range_ms, self.steps, self.lookback_ms);
                let mut out = Vec::new();
                self.select(selector, &reach, *range_ms, &mut |ev, batch| {
                    for series in batch {
                        let series = without_stale(series);
                        let (from, to) = windows(&series.ts_ms, &reach)[0];
                        let (from, to) = (from as usize, to as usize);
                        if from == to {
                            continue;
                        }
                        let found = match extended {
                            Extended::No => points(&series, from, to),
                            _ => extended_points(&series, from, to, &reach, *range_ms, extended)?,
                        };
                        let histograms: u64 = found.histograms.iter().map(|h| samples::weight(h)).sum();
                        ev.sample_stats.at(0, found.values.len() as u64 + histograms);
                        if !found.is_empty() {
                            let samples = found.values.len() as u64 + histograms;
                            let held = Reservation { bytes: 32 * found.len() as u64 + 96, samples };
                            ev.budget.reserve(held)?;
                            ev.live += held;
                            out.push(found);
                        }
                    }
                    Ok(())
                })?;
                Ok(out)
            }
            PlanNode::Subquery(sub) => {
                let steps = subquery_steps(sub, self.steps, self.options.max_samples)?;
                let (inner, child) = self.in_subquery(sub, steps)?;
                self.sample_stats.all_of(&child);
                match inner {
                    Val::Vector(frame) => {
                        let frame = self.finish(frame)?;
                        Ok(frame
                            .rows
                            .into_iter()
                            .map(|r| range_series(r, &steps))
                            .filter(|s| !s.is_empty())
                            .collect())
                    }
                    Val::Scalar(v) if v.is_empty() => Ok(Vec::new()),
                    Val::Scalar(v) => Ok(vec![range_series(
                        Row { labels: Labels::empty(), drop_name: false, column: Column::full(v) },
                        &steps,
                    )]),
                    Val::Str(_) => Err(QueryError::internal("a subquery over a string was planned")),
                }
            }
            _ => Err(QueryError::internal("not a range vector")),
        }
    }
}

/// A row as points in time.
pub(crate) fn range_series(row: Row, steps: &Steps) -> RangeSeries {
    let mut out = RangeSeries::new(row.labels);
    let n = row.column.float_count();
    out.ts_ms.reserve_exact(n);
    out.values.reserve_exact(n);
    for (step, p) in row.column.iter() {
        match p {
            Point::Float(v) => {
                out.ts_ms.push(steps.at(step));
                out.values.push(v);
            }
            Point::Histogram(h) => {
                out.histogram_ts_ms.push(steps.at(step));
                out.histograms.push(h.clone());
            }
        }
    }
    out
}

/// The samples `from..to` of a series.
fn points(s: &SeriesColumns, from: usize, to: usize) -> RangeSeries {
    let mut out = RangeSeries::new(s.labels.clone());
    for i in from..to {
        match s.histograms.as_ref().and_then(|h| h[i].clone()) {
            Some(h) => {
                out.histogram_ts_ms.push(s.ts_ms[i]);
                out.histograms.push(h);
            }
            None => {
                out.ts_ms.push(s.ts_ms[i]);
                out.values.push(s.values[i]);
            }
        }
    }
    out
}

/// The points of an `anchored` or `smoothed` range vector: the range's edges have a point of their own.
fn extended_points(
    s: &SeriesColumns,
    from: usize,
    to: usize,
    reach: &Reach,
    range_ms: i64,
    extended: Extended,
) -> Result<RangeSeries, QueryError> {
    let smoothed = extended == Extended::Smoothed;
    let word = if smoothed { "smoothed" } else { "anchored" };
    let all = points(s, from, to);
    let mut out = RangeSeries::new(s.labels.clone());
    if !all.histograms.is_empty() {
        return Err(QueryError::execution(format!("{word} modifier is not supported with histograms")));
    }
    let end = reach.reference(0);
    let start = end.saturating_sub(range_ms);
    let Some((points, values)) = extend(&all.ts_ms, &all.values, start, end, smoothed) else {
        return Ok(out);
    };
    out.ts_ms = points;
    out.values = values;
    Ok(out)
}
