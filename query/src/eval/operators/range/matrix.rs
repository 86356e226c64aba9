//! A range vector as the result of a query.

use model::labels::Labels;
use model::source::{Reservation, SeriesColumns};

use super::reach::{matrix_reach, subquery_steps};
use crate::column::Column;
use crate::eval::evaluator::Evaluator;
use crate::eval::frame::{Row, Val};
use crate::eval::functions::Extended;
use crate::eval::functions::rate::extend;
use crate::eval::operators::selector::without_stale;
use crate::eval::stats::samples;
use crate::eval::timeline::{Reach, windows};
use crate::plan::{PlanExpr, PlanNode};
use crate::value::{QueryError, QueryValue, RangeSeries, StepSeries};

impl Evaluator<'_> {
    /// A range vector as the result of an instant query: the samples of each series, or the steps of a
    /// subquery, in the order of evaluation.
    pub fn eval_range_vector(&mut self, expr: &PlanExpr) -> Result<QueryValue, QueryError> {
        self.budget.check_in_turn()?;
        match &expr.node {
            PlanNode::StepInvariant(inner) => self.eval_range_vector(inner),
            PlanNode::Matrix { selector, range_ms } => {
                let (reach, extended) = matrix_reach(selector, *range_ms, self.steps, self.lookback_ms);
                let mut out = Vec::new();
                self.select(selector, &reach, *range_ms, &mut |ev, batch| {
                    for series in batch {
                        out.extend(ev.samples_in_range(series, &reach, *range_ms, extended)?);
                    }
                    Ok(())
                })?;
                Ok(QueryValue::RangeVector(out))
            }
            PlanNode::Subquery(sub) => {
                let steps = subquery_steps(sub, self.steps, self.options.max_samples)?;
                let (inner, child) = self.in_subquery(sub, steps)?;
                self.sample_stats.all_of(&child);
                let rows = match inner {
                    Val::Vector(frame) => self.finish(frame)?.rows,
                    Val::Scalar(v) => {
                        vec![Row { labels: Labels::empty(), drop_name: false, column: Column::full(v) }]
                    }
                    Val::Str(_) => {
                        return Err(QueryError::internal("a subquery over a string was planned"));
                    }
                };
                Ok(QueryValue::Matrix { steps, series: step_series(rows) })
            }
            _ => Err(QueryError::internal("not a range vector")),
        }
    }

    /// What of a series lies in the range of the first step, charged; `None` where nothing does.
    fn samples_in_range(
        &mut self,
        series: &SeriesColumns,
        reach: &Reach,
        range_ms: i64,
        extended: Extended,
    ) -> Result<Option<RangeSeries>, QueryError> {
        let series = without_stale(series);
        let (from, to) = windows(&series.ts_ms, reach)[0];
        let (from, to) = (from as usize, to as usize);
        if from == to {
            return Ok(None);
        }
        let points = match extended {
            Extended::No => points(&series, from, to),
            _ => extended_points(&series, from, to, reach, range_ms, extended)?,
        };
        let histograms: u64 = points.histograms.iter().map(|h| samples::weight(h)).sum();
        let samples = points.values.len() as u64 + histograms;
        self.sample_stats.at(0, samples);
        if points.is_empty() {
            return Ok(None);
        }
        self.charge(Reservation { bytes: 32 * points.len() as u64 + 96, samples })?;
        Ok(Some(points))
    }
}

/// The rows that have a point, as series of a matrix.
pub(crate) fn step_series(rows: Vec<Row>) -> Vec<StepSeries> {
    let rows = rows.into_iter().filter(|row| !row.column.is_empty());
    rows.map(|row| StepSeries { labels: row.labels, column: row.column }).collect()
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
