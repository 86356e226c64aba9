//! Windows: runs of consecutive samples of a series, told by their count, sum, extremes, ends and falls in
//! the place of the samples.
//!
//! A window of resolution r is labelled by its end w, a multiple of r, and holds the samples of
//! `w - r < t <= w`. Its columns stand beside those of [`SeriesColumns`], one entry per window: `ts_ms`,
//! `values` and `histograms` are the window's last sample, so whoever looks for "the newest sample at t"
//! needs to know nothing of windows. A raw sample is a window of one sample, so raw and downsampled parts of
//! time lie in one series.
//!
//! Nothing here depends on how blocks are cut: a window that two blocks share is two shorter runs, one after
//! the other, and every answer over whole windows comes out alike. What happens between the last sample of
//! one and the first of the next (a fall, a change) is found from the two values.

use std::sync::Arc;

use crate::columns::SeriesColumns;
use crate::histogram::{Histogram, compensated_add};
use crate::sample::{is_stale, stale_nan};

pub mod downsample;
mod join;

pub use crate::columns::{
    Aggregates, EndedWindow, HistogramFlags, HistogramWindows, WindowColumns, WindowRun,
};
pub use join::{concatenate, merge_overlapping};

/// The resolutions that Hearth makes, finest first, in milliseconds.
pub const RESOLUTIONS_MS: [i64; 2] = [300_000, 3_600_000];

/// Which window of a resolution a time falls in: windows are open on the left, so a multiple of the
/// resolution ends its window (its label is [`crate::span::span_end`]).
#[inline]
pub fn window_index(t_ms: i64, resolution_ms: i64) -> i64 {
    t_ms.saturating_sub(1).div_euclid(resolution_ms)
}

/// Whether a float after another counts as a change (`changes()`).
pub fn changed(before: f64, after: f64) -> bool {
    before != after && !(before.is_nan() && after.is_nan())
}

/// The first or last sample of a window: a float, or a histogram with its sum beside it.
#[derive(Clone, Debug, Default)]
pub struct Edge {
    pub ts_ms: i64,
    pub value: f64,
    pub histogram: Option<Arc<Histogram>>,
}

/// One window as a value, for work that goes window by window. Parts that were not asked for are empty.
#[derive(Clone, Debug, Default)]
pub struct Window {
    pub resolution_ms: i64,
    /// Time of the last sample, markers included.
    pub ts_ms: i64,
    /// Whether that is a marker.
    pub stale: bool,
    pub count: u32,
    pub first: Edge,
    /// Without markers.
    pub last: Edge,
    pub sum: f64,
    /// What rounding took from `sum` so far.
    pub sum_rest: f64,
    pub min: f64,
    pub max: f64,
    pub reset_sum: f64,
    pub resets: u32,
    pub changes: u32,
    pub histogram_count: u32,
    pub flags: HistogramFlags,
    pub schema: i32,
    pub histogram_sum: Option<Arc<Histogram>>,
    pub histogram_reset_sum: Option<Arc<Histogram>>,
}

impl Window {
    /// The window of one sample; `value` is the sum where a histogram stands.
    pub fn of_sample(ts_ms: i64, value: f64, histogram: Option<&Arc<Histogram>>) -> Window {
        let edge = Edge { ts_ms, value, histogram: histogram.cloned() };
        let mut w = Window { ts_ms, min: f64::NAN, max: f64::NAN, ..Window::default() };
        if is_stale(value) {
            w.stale = true;
            w.first.ts_ms = ts_ms;
            w.last.ts_ms = ts_ms;
            return w;
        }
        w.count = 1;
        match histogram {
            None => (w.sum, w.min, w.max) = (value, value, value),
            Some(h) => {
                w.histogram_count = 1;
                w.flags = HistogramFlags::of(h);
                w.schema = h.schema;
                w.histogram_sum = Some(h.clone());
            }
        }
        w.first = edge.clone();
        w.last = edge;
        w
    }

    /// Whether any of its samples is a float.
    pub fn has_floats(&self) -> bool {
        self.count > self.histogram_count
    }

    /// Takes in the window that follows in time: exact.
    pub fn follow(&mut self, next: &Window) {
        if self.count > 0 && next.count > 0 {
            match (self.last.histogram.clone(), &next.first.histogram) {
                (None, None) => {
                    if next.first.value < self.last.value {
                        self.resets += 1;
                        self.reset_sum += self.last.value;
                    }
                    self.changes += u32::from(changed(self.last.value, next.first.value));
                }
                (Some(a), Some(b)) => {
                    self.changes += u32::from(!b.equals(&a));
                    if b.detect_reset(&a) {
                        self.resets += 1;
                        self.add_reset(&a);
                    }
                }
                _ => {
                    self.resets += 1;
                    self.changes += 1;
                }
            }
        }
        self.gather(next);
        if self.count == 0 {
            self.first = next.first.clone();
        }
        if next.count > 0 {
            self.last = next.last.clone();
        }
        self.count = self.count.saturating_add(next.count);
        (self.ts_ms, self.stale) = (next.ts_ms, next.stale);
        self.resolution_ms = self.resolution_ms.max(next.resolution_ms);
    }

    /// Takes in a window of other samples that lie between this one's: counts, sums and extremes are exact,
    /// and the ends; falls and changes where the two interleave are each one's own added up, which nobody can
    /// know better any more.
    pub fn interleave(&mut self, other: &Window) {
        if other.count > 0 {
            self.gather(other);
            if self.count == 0 || other.first.ts_ms < self.first.ts_ms {
                self.first = other.first.clone();
            }
            if self.count == 0 || other.last.ts_ms >= self.last.ts_ms {
                self.last = other.last.clone();
            }
            self.count = self.count.saturating_add(other.count);
        }
        if other.ts_ms >= self.ts_ms {
            (self.ts_ms, self.stale) = (other.ts_ms, other.stale);
        }
        self.resolution_ms = self.resolution_ms.max(other.resolution_ms);
    }

    /// All that does not depend on the order of the two.
    fn gather(&mut self, other: &Window) {
        (self.sum, self.sum_rest) = compensated_add(other.sum, self.sum, self.sum_rest);
        self.sum_rest += other.sum_rest;
        // Any number before NaN, and the earlier of equals.
        if other.min < self.min || self.min.is_nan() {
            self.min = other.min;
        }
        if other.max > self.max || self.max.is_nan() {
            self.max = other.max;
        }
        self.reset_sum += other.reset_sum;
        self.resets = self.resets.saturating_add(other.resets);
        self.changes = self.changes.saturating_add(other.changes);
        if other.histogram_count > 0 {
            self.schema = match self.histogram_count {
                0 => other.schema,
                _ => self.schema.min(other.schema),
            };
            self.histogram_count = self.histogram_count.saturating_add(other.histogram_count);
            self.flags |= other.flags;
            let mixed = self.flags.is_mixed();
            self.histogram_sum = match (self.histogram_sum.take(), &other.histogram_sum) {
                _ if mixed => None,
                (None, b) => b.clone(),
                (Some(a), None) => Some(a),
                (Some(a), Some(b)) => self.added(a, b),
            };
        }
        if let Some(b) = &other.histogram_reset_sum {
            self.add_reset(b);
        }
    }

    fn add_reset(&mut self, h: &Arc<Histogram>) {
        self.histogram_reset_sum = match self.histogram_reset_sum.take() {
            None => Some(h.clone()),
            Some(a) => self.added(a, h),
        };
    }

    fn added(&mut self, mut a: Arc<Histogram>, b: &Histogram) -> Option<Arc<Histogram>> {
        let done = Arc::make_mut(&mut a).add(b).ok()?;
        if done.bounds_reconciled {
            self.flags |= HistogramFlags::RECONCILED;
        }
        Some(a)
    }

    /// The sum of the floats, compensation included.
    pub fn whole_sum(&self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.sum_rest }
    }
}

impl SeriesColumns {
    /// The coarsest resolution in it; 0 if all is raw.
    pub fn coarsest_ms(&self) -> i64 {
        self.windows.as_ref().map_or(0, WindowColumns::coarsest_ms)
    }

    /// An entry as a window, be it one or a raw sample.
    pub fn window(&self, i: usize) -> Window {
        let histogram = self.histograms.as_ref().and_then(|h| h[i].as_ref());
        match &self.windows {
            None => Window::of_sample(self.ts_ms[i], self.values[i], histogram),
            Some(w) => w.window(i, self.ts_ms[i], self.values[i], histogram),
        }
    }

    /// Chosen entries, ascending; timelines are copied.
    pub fn pick(&self, keep: &[usize]) -> SeriesColumns {
        SeriesColumns {
            labels: self.labels.clone(),
            ts_ms: keep.iter().map(|i| self.ts_ms[*i]).collect(),
            values: keep.iter().map(|i| self.values[*i]).collect(),
            histograms: self.histograms.as_ref().map(|h| keep.iter().map(|i| h[*i].clone()).collect()),
            start_ts_ms: self.start_ts_ms.as_ref().map(|t| keep.iter().map(|i| t[*i]).collect()),
            windows: self.windows.as_ref().map(|w| w.pick(keep)),
        }
    }
}

fn picked<T: Clone>(column: &Option<Vec<T>>, keep: &[usize]) -> Option<Vec<T>> {
    column.as_ref().map(|c| keep.iter().map(|i| c[*i].clone()).collect())
}

impl WindowColumns {
    /// The coarsest resolution in it.
    pub fn coarsest_ms(&self) -> i64 {
        self.runs.iter().map(|r| r.resolution_ms).max().unwrap_or(0)
    }

    /// Which columns are there.
    pub fn aggregates(&self) -> Aggregates {
        let mut aggregates = Aggregates::NONE;
        let mut add = |there: bool, what| {
            if there {
                aggregates = aggregates.and(what);
            }
        };
        add(self.count.is_some(), Aggregates::COUNT);
        add(self.first.is_some(), Aggregates::FIRST);
        add(self.sum.is_some(), Aggregates::SUM);
        add(self.min.is_some(), Aggregates::MIN);
        add(self.max.is_some(), Aggregates::MAX);
        add(self.reset_sum.is_some(), Aggregates::RESET_SUM);
        add(self.resets.is_some(), Aggregates::RESETS);
        add(self.changes.is_some(), Aggregates::CHANGES);
        aggregates
    }

    /// Bytes held beside the last samples.
    pub fn bytes(&self) -> usize {
        let n: usize = self.runs.iter().map(|r| r.len).sum();
        let wide = [&self.first, &self.sum, &self.min, &self.max, &self.reset_sum];
        let narrow = [&self.count, &self.resets, &self.changes];
        let histograms = self.histograms.as_ref().map_or(0, |h| {
            let of = |all: &[Option<Arc<Histogram>>]| {
                all.iter().flatten().map(|h| h.size_bytes() + 16).sum::<usize>()
            };
            9 * h.count.len() + of(&h.first) + of(&h.sum) + of(&h.reset_sum)
        });
        8 * n * wide.iter().filter(|c| c.is_some()).count()
            + 4 * n * narrow.iter().filter(|c| c.is_some()).count()
            + self.first_ts_ms.as_ref().map_or(0, |t| 8 * t.len() / Arc::strong_count(t))
            + self.ended.len() * 40
            + histograms
    }

    /// The resolution of an entry.
    pub fn resolution_ms(&self, i: usize) -> i64 {
        let mut end = 0;
        for run in &self.runs {
            end += run.len;
            if i < end {
                return run.resolution_ms;
            }
        }
        0
    }

    fn window(&self, i: usize, ts_ms: i64, value: f64, histogram: Option<&Arc<Histogram>>) -> Window {
        let number = |column: &Option<Vec<f64>>, or: f64| column.as_ref().map_or(or, |c| c[i]);
        let count = |column: &Option<Vec<u32>>| column.as_ref().map_or(0, |c| c[i]);
        let stale = is_stale(value);
        let previous = match stale {
            true => self.ended.binary_search_by_key(&i, |e| e.at).ok().map(|at| &self.ended[at]),
            false => None,
        };
        let last = match (stale, previous) {
            (false, _) => Edge { ts_ms, value, histogram: histogram.cloned() },
            (true, Some(e)) => Edge { ts_ms: e.ts_ms, value: e.value, histogram: e.histogram.clone() },
            (true, None) => Edge { ts_ms, ..Edge::default() },
        };
        let h = self.histograms.as_deref();
        // Where nobody asked for counts, one or none is all that matters here.
        let samples = self.count.as_ref().map_or(u32::from(!stale || previous.is_some()), |c| c[i]);
        let has_floats = samples > h.map_or(0, |h| h.count[i]);
        Window {
            resolution_ms: self.resolution_ms(i),
            ts_ms,
            stale,
            count: samples,
            first: Edge {
                ts_ms: self.first_ts_ms.as_ref().map_or(ts_ms, |t| t[i]),
                value: number(&self.first, 0.0),
                histogram: h.and_then(|h| h.first[i].clone()),
            },
            last,
            sum: if has_floats { number(&self.sum, 0.0) } else { 0.0 },
            sum_rest: 0.0,
            min: number(&self.min, f64::NAN),
            max: number(&self.max, f64::NAN),
            reset_sum: number(&self.reset_sum, 0.0),
            resets: count(&self.resets),
            changes: count(&self.changes),
            histogram_count: h.map_or(0, |h| h.count[i]),
            flags: h.map_or(HistogramFlags::default(), |h| h.flags[i]),
            schema: h.map_or(0, |h| h.schema[i]),
            histogram_sum: h.and_then(|h| h.sum[i].clone()),
            histogram_reset_sum: h.and_then(|h| h.reset_sum[i].clone()),
        }
    }

    /// Chosen entries, ascending.
    pub fn pick(&self, keep: &[usize]) -> WindowColumns {
        let mut runs: Vec<WindowRun> = Vec::new();
        let (mut run, mut end) = (0, self.runs.first().map_or(0, |r| r.len));
        for i in keep {
            while *i >= end && run + 1 < self.runs.len() {
                run += 1;
                end += self.runs[run].len;
            }
            push_run(&mut runs, 1, self.runs.get(run).map_or(0, |r| r.resolution_ms));
        }
        let ended = self.ended.iter().filter_map(|e| {
            let at = keep.binary_search(&e.at).ok()?;
            Some(EndedWindow { at, ..e.clone() })
        });
        WindowColumns {
            runs,
            count: picked(&self.count, keep),
            first_ts_ms: self.first_ts_ms.as_ref().map(|t| keep.iter().map(|i| t[*i]).collect()),
            first: picked(&self.first, keep),
            sum: picked(&self.sum, keep),
            min: picked(&self.min, keep),
            max: picked(&self.max, keep),
            reset_sum: picked(&self.reset_sum, keep),
            resets: picked(&self.resets, keep),
            changes: picked(&self.changes, keep),
            ended: ended.collect(),
            histograms: self.histograms.as_ref().map(|h| {
                let histograms =
                    |all: &[Option<Arc<Histogram>>]| keep.iter().map(|i| all[*i].clone()).collect();
                Box::new(HistogramWindows {
                    count: keep.iter().map(|i| h.count[*i]).collect(),
                    flags: keep.iter().map(|i| h.flags[*i]).collect(),
                    schema: keep.iter().map(|i| h.schema[*i]).collect(),
                    first: histograms(&h.first),
                    sum: histograms(&h.sum),
                    reset_sum: histograms(&h.reset_sum),
                })
            }),
        }
    }
}

/// Lengthens the last run or begins one.
pub fn push_run(runs: &mut Vec<WindowRun>, len: usize, resolution_ms: i64) {
    match runs.last_mut() {
        Some(last) if last.resolution_ms == resolution_ms => last.len += len,
        _ if len > 0 => runs.push(WindowRun { len, resolution_ms }),
        _ => {}
    }
}

/// Gathers windows into a series' columns.
#[derive(Debug)]
pub struct WindowsBuilder {
    aggregates: Aggregates,
    ts_ms: Vec<i64>,
    values: Vec<f64>,
    last_histograms: Vec<Option<Arc<Histogram>>>,
    first_ts_ms: Vec<i64>,
    windows: WindowColumns,
    histograms: HistogramWindows,
    any_histogram: bool,
}

impl WindowsBuilder {
    /// `aggregates`: the columns to make.
    pub fn new(aggregates: Aggregates) -> WindowsBuilder {
        let wide = |what| aggregates.has(what).then(Vec::new);
        let narrow = |what| aggregates.has(what).then(Vec::new);
        let windows = WindowColumns {
            count: narrow(Aggregates::COUNT),
            first: wide(Aggregates::FIRST),
            sum: wide(Aggregates::SUM),
            min: wide(Aggregates::MIN),
            max: wide(Aggregates::MAX),
            reset_sum: wide(Aggregates::RESET_SUM),
            resets: narrow(Aggregates::RESETS),
            changes: narrow(Aggregates::CHANGES),
            ..WindowColumns::default()
        };
        WindowsBuilder {
            aggregates,
            ts_ms: Vec::new(),
            values: Vec::new(),
            last_histograms: Vec::new(),
            first_ts_ms: Vec::new(),
            windows,
            histograms: HistogramWindows::default(),
            any_histogram: false,
        }
    }

    /// The next window, after the last in time.
    pub fn push(&mut self, w: Window) {
        let at = self.ts_ms.len();
        let c = &mut self.windows;
        push_run(&mut c.runs, 1, w.resolution_ms);
        self.ts_ms.push(w.ts_ms);
        self.first_ts_ms.push(if w.count == 0 { w.ts_ms } else { w.first.ts_ms });
        let put = |column: &mut Option<Vec<f64>>, v: f64| {
            if let Some(c) = column {
                c.push(v);
            }
        };
        let put_count = |column: &mut Option<Vec<u32>>, v: u32| {
            if let Some(c) = column {
                c.push(v);
            }
        };
        put_count(&mut c.count, w.count);
        let no_first = w.count == 0 || w.first.histogram.is_some();
        put(&mut c.first, if no_first { f64::NAN } else { w.first.value });
        put(&mut c.sum, if w.has_floats() { w.whole_sum() } else { f64::NAN });
        put(&mut c.min, w.min);
        put(&mut c.max, w.max);
        put(&mut c.reset_sum, w.reset_sum);
        put_count(&mut c.resets, w.resets);
        put_count(&mut c.changes, w.changes);
        let Edge { ts_ms, value, histogram } = w.last;
        if w.stale {
            self.values.push(stale_nan());
            self.last_histograms.push(None);
            if w.count > 0 {
                c.ended.push(EndedWindow { at, ts_ms, value, histogram });
            }
        } else {
            self.values.push(value);
            self.last_histograms.push(histogram);
        }
        self.any_histogram |= w.histogram_count > 0;
        let h = &mut self.histograms;
        h.count.push(w.histogram_count);
        h.flags.push(w.flags);
        h.schema.push(w.schema);
        let asked = |what, found: Option<Arc<Histogram>>| found.filter(|_| self.aggregates.has(what));
        h.first.push(asked(Aggregates::FIRST, w.first.histogram));
        h.sum.push(asked(Aggregates::SUM, w.histogram_sum));
        h.reset_sum.push(asked(Aggregates::RESET_SUM, w.histogram_reset_sum));
    }

    /// The series; `labels` are its.
    pub fn finish(mut self, labels: crate::labels::Labels) -> SeriesColumns {
        if self.aggregates.has(Aggregates::FIRST) {
            self.windows.first_ts_ms = Some(self.first_ts_ms.into());
        }
        self.windows.histograms = self.any_histogram.then(|| Box::new(self.histograms));
        let any_last = self.last_histograms.iter().any(Option::is_some);
        SeriesColumns {
            labels,
            ts_ms: self.ts_ms.into(),
            values: self.values,
            histograms: any_last.then_some(self.last_histograms),
            start_ts_ms: None,
            windows: Some(self.windows),
        }
    }
}
