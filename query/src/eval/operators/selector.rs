//! Instant selectors: each series is read once and gives a value to every step that sees one of its samples.

use std::sync::Arc;

use model::histogram::{CounterResetHint, Histogram, IncompatibleSchemas};
use model::quote::quote;
use model::sample::is_stale;
use model::source::{Hints, SeriesColumns};

use crate::annotations::Annotations;
use crate::column::Column;
use crate::eval::evaluator::Evaluator;
use crate::eval::frame::Row;
use crate::eval::functions::rate::interpolate_histograms;
use crate::eval::resolution::live_windows;
use crate::eval::timeline::{Memo, Newest, Reach, windows};
use crate::parse::Span;
use crate::plan::{Selector, Steps};
use crate::value::QueryError;

/// The reach of an instant selector.
pub(crate) fn instant_reach(s: &Selector, steps: Steps, lookback_ms: i64) -> Reach {
    Reach {
        steps,
        offset_ms: s.offset_ms,
        at_ms: s.at_ms,
        back_ms: lookback_ms,
        ahead_ms: if s.smoothed { lookback_ms } else { 0 },
    }
}

/// What a source is told about the use of a selection.
pub(crate) fn hints(s: &Selector, steps: Steps, range_ms: i64) -> Hints {
    Hints {
        step_ms: if steps.is_instant() { 0 } else { steps.step_ms },
        range_ms,
        counter: s.reads_counter(),
        labels_only: false,
        newest_only: range_ms == 0 && steps.count == 1 && !s.smoothed,
        rollups: Default::default(),
    }
}

impl Evaluator<'_> {
    /// The rows of an instant selector, in the order of the source.
    pub(crate) fn instant_rows(
        &mut self,
        s: &Selector,
        sink: &mut dyn FnMut(Row) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let reach = instant_reach(s, self.steps, self.lookback_ms);
        let (smoothed, span) = (s.smoothed, s.span);
        let memo = Memo::of_newest(self.steps);
        let make = move |series: &SeriesColumns| {
            if smoothed {
                let mut notes = Annotations::new();
                (smooth(series, &reach, span, &mut notes), notes)
            } else {
                let newest = memo.get(&series.ts_ms, |ts| Newest::new(ts, &reach));
                (seen(series, &newest), Annotations::new())
            }
        };
        self.select_made(s, &reach, 0, make, &mut |ev, series, (column, notes)| {
            if !notes.is_empty() {
                ev.notes.merge(notes);
            }
            let Some(column) = column else { return Ok(()) };
            // Upstream does not count what `smoothed` looks at.
            if !smoothed {
                ev.sample_stats.column(&column);
            }
            sink(Row { labels: series.labels.clone(), drop_name: false, column })
        })
    }
}

/// The column of a series, from the sample that each step sees; staleness markers hide it.
fn seen(series: &SeriesColumns, newest: &Newest) -> Option<Column> {
    let steps = newest.steps();
    if series.histograms.is_none() && !any_stale(&series.values) {
        let any = newest.present().iter().any(|word| *word != 0);
        return any.then(|| Column::from_parts(newest.pick(&series.values), newest.present().to_vec()));
    }
    let mut column = Column::new(steps);
    let mut any = false;
    for (step, i) in (0..steps).filter_map(|step| newest.at(step).map(|i| (step, i))) {
        if is_stale(series.values[i]) {
            continue;
        }
        any = true;
        match series.histograms.as_ref().and_then(|h| h[i].as_ref()) {
            Some(h) => column.set_histogram(step, h.clone()),
            None => column.set_float(step, series.values[i]),
        }
    }
    any.then_some(column)
}

/// Whether any of the values is a staleness marker.
fn any_stale(values: &[f64]) -> bool {
    // Several at once, without a way out after each, is what vector registers can do; that of NaN is the
    // comparison that all of them have.
    let any_nan = |values: &[f64]| values.iter().fold(false, |any, v| any | v.is_nan());
    values.chunks(64).any(|values| any_nan(values) && values.iter().any(|v| is_stale(*v)))
}

/// `smoothed`: the value at each step is interpolated between the samples around it, as far as the lookback
/// reaches on both sides.
fn smooth(series: &SeriesColumns, reach: &Reach, span: Span, notes: &mut Annotations) -> Option<Column> {
    let metric = series.labels.metric_name().unwrap_or("");
    let series = without_stale(series);
    let mut column = Column::new(reach.steps.count);
    for (step, &(from, to)) in windows(&series.ts_ms, reach).iter().enumerate() {
        let (from, to) = (from as usize, to as usize);
        if from == to {
            continue;
        }
        let t = reach.reference(step);
        let ts = &series.ts_ms[from..to];
        let values = &series.values[from..to];
        let histograms = series.histograms.as_ref().map(|h| &h[from..to]);
        let count = histograms.map_or(0, |h| h.iter().flatten().count());
        if count > 0 && count < ts.len() {
            notes.warn(
                span,
                format!("encountered a mix of histograms and floats for metric name {}", quote(metric)),
            );
            continue;
        }
        let i = ts.partition_point(|x| *x < t);
        if count == 0 {
            if i < ts.len() && ts[i] == t {
                column.set_float(step, values[i]);
            } else if i > 0 && i < ts.len() {
                let (y1, y2) = (values[i - 1], values[i]);
                column.set_float(step, y1 + (y2 - y1) * (t - ts[i - 1]) as f64 / (ts[i] - ts[i - 1]) as f64);
            } else if i > 0 {
                column.set_float(step, values[i - 1]);
            }
            continue;
        }
        let histograms: Vec<&Arc<Histogram>> = histograms.into_iter().flatten().flatten().collect();
        if i < ts.len() && ts[i] == t {
            column.set_histogram(step, histograms[i].clone());
        } else if i > 0 && i < ts.len() {
            let (prev, next) = (histograms[i - 1], histograms[i]);
            let gauge = CounterResetHint::Gauge;
            let counter = prev.counter_reset_hint != gauge || next.counter_reset_hint != gauge;
            // Asked first: a change of kind is a reset, after which nothing would be left to mix.
            let same_kind = prev.uses_custom_buckets() == next.uses_custom_buckets();
            let between = if same_kind {
                interpolate_histograms((ts[i - 1], prev), (ts[i], next), t, counter, span, notes)
            } else {
                Err(IncompatibleSchemas)
            };
            match between {
                Ok(h) => column.set_histogram(step, Arc::new(h)),
                Err(_) => notes.warn(
                    span,
                    format!(
                        "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
                        quote(metric)
                    ),
                ),
            }
        } else if i > 0 {
            let mut h = (**histograms[i - 1]).clone();
            h.counter_reset_hint = CounterResetHint::Unknown;
            column.set_histogram(step, Arc::new(h));
        }
    }
    (!column.is_empty()).then_some(column)
}

/// The series without its staleness markers; the same columns where there are none.
pub(crate) fn without_stale(series: &SeriesColumns) -> std::borrow::Cow<'_, SeriesColumns> {
    if series.windows.is_some() {
        return live_windows(series);
    }
    if !any_stale(&series.values) {
        return std::borrow::Cow::Borrowed(series);
    }
    let keep: Vec<usize> = (0..series.values.len()).filter(|i| !is_stale(series.values[*i])).collect();
    std::borrow::Cow::Owned(series.pick(&keep))
}
