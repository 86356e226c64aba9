//! Subqueries: an expression at steps of its own, whose values are samples to the windows over it.

use std::sync::Arc;

use model::histogram::{CounterResetHint, Histogram};
use model::labels::Labels;
use model::source::{Reservation, SeriesColumns};

use super::reach::subquery_steps;
use crate::column::{Column, Point};
use crate::eval::evaluator::Evaluator;
use crate::eval::frame::{Frame, Row, Val};
use crate::eval::operators::batches::series_reservation;
use crate::eval::stats::samples::SampleStats;
use crate::plan::{Steps, Subquery};
use crate::value::QueryError;

impl Evaluator<'_> {
    /// Evaluates a subquery and turns its rows into series of samples, with whether each wants its name
    /// dropped.
    pub(super) fn subquery_series(
        &mut self,
        sub: &Subquery,
    ) -> Result<(Vec<SeriesColumns>, Vec<bool>), QueryError> {
        let outer = self.trace.as_ref().map(|t| t.switch(sub.id));
        let steps = subquery_steps(sub, self.steps, self.options.max_samples)?;
        if steps.count == 0 {
            return Ok((Vec::new(), Vec::new()));
        }
        let (inner, child) = self.in_subquery(sub, steps)?;
        self.sample_stats.take_reads(&child, steps, self.steps, sub.offset_ms, sub.range_ms);
        let frame = match inner {
            Val::Vector(frame) => frame,
            Val::Scalar(v) => Frame {
                rows: vec![Row { labels: Labels::empty(), drop_name: false, column: Column::full(v) }],
            },
            Val::Str(_) => return Err(QueryError::internal("a subquery over a string was planned")),
        };
        self.charge(8 * steps.count as u64)?;
        let whole: Arc<[i64]> = (0..steps.count).map(|i| steps.at(i)).collect();
        let mut series = Vec::with_capacity(frame.rows.len());
        let mut drops = Vec::with_capacity(frame.rows.len());
        for row in frame.rows {
            self.budget.check_in_turn()?;
            if row.column.is_empty() {
                continue;
            }
            drops.push(row.drop_name);
            let of_row = samples_of(row, &whole);
            // Its samples are those of the row it is made of, which count already.
            self.charge(series_reservation(&of_row).bytes)?;
            series.push(of_row);
        }
        if let (Some(trace), Some(outer)) = (&self.trace, outer) {
            trace.switch(outer);
            trace.note(sub.id, |f| {
                f.runs += 1;
                f.series += series.len() as u64;
                f.bytes += series.iter().map(series_reservation).sum::<Reservation>().bytes;
            });
        }
        Ok((series, drops))
    }

    /// The value of a subquery's expression at `steps`, and what it counted.
    pub(super) fn in_subquery(
        &mut self,
        sub: &Subquery,
        steps: Steps,
    ) -> Result<(Val, SampleStats), QueryError> {
        let child = self.sample_stats.for_subquery(steps.count);
        let own = std::mem::replace(&mut self.sample_stats, child);
        let outer = std::mem::replace(&mut self.steps, steps);
        let inner = self.eval(&sub.expr);
        self.steps = outer;
        let child = std::mem::replace(&mut self.sample_stats, own);
        Ok((inner?, child))
    }
}

/// A row of a subquery as samples. Reset hints are forgotten: the steps may miss a reset or show one twice.
fn samples_of(row: Row, whole: &Arc<[i64]>) -> SeriesColumns {
    let column = row.column;
    if column.histogram_count() == 0 && column.float_count() == column.steps() {
        return SeriesColumns {
            labels: row.labels,
            ts_ms: whole.clone(),
            values: column.into_floats(),
            histograms: None,
            start_ts_ms: None,
            windows: None,
        };
    }
    let mut ts_ms = Vec::with_capacity(column.len());
    let mut values = Vec::with_capacity(column.len());
    let mut histograms = Vec::new();
    for (step, p) in column.iter() {
        ts_ms.push(whole[step]);
        match p {
            Point::Float(v) => {
                values.push(v);
                histograms.push(None);
            }
            Point::Histogram(h) => {
                values.push(h.sum);
                let hint = h.counter_reset_hint;
                histograms.push(Some(match hint {
                    CounterResetHint::CounterReset | CounterResetHint::NotCounterReset => {
                        Arc::new(Histogram { counter_reset_hint: CounterResetHint::Unknown, ..(**h).clone() })
                    }
                    _ => h.clone(),
                }));
            }
        }
    }
    SeriesColumns {
        labels: row.labels,
        ts_ms: ts_ms.into(),
        values,
        histograms: (column.histogram_count() > 0).then_some(histograms),
        start_ts_ms: None,
        windows: None,
    }
}
