//! All windows of one series: by its function's kernel for whole series where there is one, else window by
//! window.

use std::sync::Arc;

use model::labels::Labels;
use model::quote::quote;
use model::rollup::{Aggregates, WindowColumns};
use model::source::{Budget, SeriesColumns};

use crate::annotations::Annotations;
use crate::column::Column;
use crate::eval::functions::windowed::{FloatWindows, Windowed};
use crate::eval::functions::{Extended, Samples, Scalars, SeriesWindows, Window, WindowContext, WorkMeter};
use crate::eval::operators::selector::without_stale;
use crate::eval::stats::samples::{self, SampleDetail};
use crate::eval::timeline::{Memo, Reach, StepWindows, windows};
use crate::parse::Span;

/// What all series of one call share.
pub(super) struct WindowJob {
    pub window: &'static Window,
    pub reach: Reach,
    pub range_ms: i64,
    pub extended: Extended,
    pub scalars: Scalars,
    pub budget: Arc<Budget>,
    pub arg_spans: Vec<Span>,
    pub start_timestamps: bool,
    /// `rate` and `increase` remark on names that do not look like a counter's.
    pub counter_names: bool,
    pub type_labels: bool,
    /// Place of the range vector.
    pub operand: Span,
    /// Whether its samples are the steps of a subquery.
    pub subquery: bool,
    pub detail: SampleDetail,
    /// How it runs over downsampled windows, and what of them it needs.
    pub windowed: Option<(Windowed, Aggregates)>,
}

/// What came out for one series.
pub(super) struct SeriesResult {
    pub column: Column,
    pub notes: Annotations,
    pub error: Option<String>,
    pub samples: samples::Windows,
}

impl WindowJob {
    /// All windows of one series.
    pub fn series(&self, memo: &Memo<StepWindows>, series: &SeriesColumns) -> SeriesResult {
        let labels = &series.labels;
        let series = without_stale(series);
        let ranges = memo.get(&series.ts_ms, |ts| windows(ts, &self.reach));
        let sizes: Option<Vec<u64>> = series
            .histograms
            .as_ref()
            .map(|h| h.iter().map(|h| h.as_ref().map_or(1, |h| samples::weight(h))).collect());
        let fixed = self.reach.at_ms.is_some();
        let mut result = SeriesResult {
            column: Column::new(self.reach.steps.count),
            notes: Annotations::new(),
            error: None,
            samples: samples::Windows::count(self.detail, &ranges, sizes.as_deref(), self.subquery, fixed),
        };
        match (&series.windows, &self.windowed) {
            (Some(w), Some((f, needs))) if self.extended == Extended::No && w.aggregates().has(*needs) => {
                self.windows_of_series(&series, w, f, &ranges, &mut result.column, &mut result.notes);
            }
            _ => self.samples_of_series(labels, &series, &ranges, &mut result),
        }
        if self.counter_names && result.column.float_count() > 0 {
            self.remark_on_name(labels, &mut result.notes);
        }
        result
    }

    /// All steps of a series of samples, markers removed: at once where the function can, else window by
    /// window.
    fn samples_of_series(
        &self,
        labels: &Labels,
        series: &SeriesColumns,
        ranges: &StepWindows,
        result: &mut SeriesResult,
    ) {
        let start_ts = if self.start_timestamps { series.start_ts_ms.as_deref() } else { None };
        let meter = WorkMeter::new(&self.budget);
        let plain = series.histograms.is_none() && start_ts.is_none() && self.extended == Extended::No;
        if let Some(kernel) = self.window.series.filter(|_| plain) {
            let w = SeriesWindows {
                ts_ms: &series.ts_ms,
                values: &series.values,
                windows: ranges,
                reach: &self.reach,
                scalars: &self.scalars,
                meter: &meter,
            };
            if kernel(&w, &mut result.column) {
                return;
            }
        }
        for (step, &(from, to)) in ranges.iter().enumerate() {
            if from == to {
                continue;
            }
            let (from, to) = (from as usize, to as usize);
            if meter.stop(to - from) {
                break;
            }
            let end = self.reach.reference(step);
            let samples = Samples {
                ts_ms: &series.ts_ms[from..to],
                values: &series.values[from..to],
                histograms: series
                    .histograms
                    .as_ref()
                    .map(|h| &h[from..to])
                    .filter(|h| h.iter().any(Option::is_some)),
                start_ts_ms: start_ts.map(|t| &t[from..to]),
            };
            let mut context = WindowContext {
                t_ms: self.reach.steps.at(step),
                range_start_ms: end.saturating_sub(self.range_ms),
                range_end_ms: end,
                extended: self.extended,
                scalars: self.scalars.at(step),
                labels,
                arg_spans: &self.arg_spans,
                notes: &mut result.notes,
                error: &mut result.error,
            };
            if let Some(v) = (self.window.run)(&mut context, &samples) {
                result.column.set(step, v);
            }
            if result.error.is_some() {
                break;
            }
        }
    }

    /// All steps of a series of downsampled windows, markers removed.
    fn windows_of_series(
        &self,
        series: &SeriesColumns,
        columns: &WindowColumns,
        f: &Windowed,
        ranges: &StepWindows,
        column: &mut Column,
        notes: &mut Annotations,
    ) {
        let meter = WorkMeter::new(&self.budget);
        let view = SeriesWindows {
            ts_ms: &series.ts_ms,
            values: &series.values,
            windows: ranges,
            reach: &self.reach,
            scalars: &self.scalars,
            meter: &meter,
        };
        if columns.histograms.is_none() {
            let floats = FloatWindows { series, columns, windows: ranges, view };
            if (f.floats)(&floats, column).is_some() {
                return;
            }
        }
        let all: Vec<_> = (0..series.ts_ms.len()).map(|i| series.window(i)).collect();
        for (step, &(from, to)) in ranges.iter().enumerate().filter(|(_, (a, b))| a < b) {
            let end = self.reach.reference(step);
            let mut context = WindowContext {
                t_ms: self.reach.steps.at(step),
                range_start_ms: end.saturating_sub(self.range_ms),
                range_end_ms: end,
                extended: Extended::No,
                scalars: &[],
                labels: &series.labels,
                arg_spans: &self.arg_spans,
                notes: &mut *notes,
                error: &mut None,
            };
            if let Some(v) = (f.any)(&mut context, &all[from as usize..to as usize]) {
                column.set(step, v);
            }
        }
    }

    fn remark_on_name(&self, labels: &Labels, notes: &mut Annotations) {
        let Some(name) = labels.metric_name() else { return };
        if self.type_labels {
            let kind = labels.value("__type__");
            if kind != "counter" && kind != "histogram" {
                notes.info(
                    self.operand,
                    format!(
                        "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", got {}: {}",
                        quote(kind),
                        quote(name)
                    ),
                );
            }
        } else if !["_total", "_sum", "_count", "_bucket"].iter().any(|end| name.ends_with(end)) {
            notes.info(
                self.operand,
                format!(
                    "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
                    quote(name)
                ),
            );
        }
    }
}
