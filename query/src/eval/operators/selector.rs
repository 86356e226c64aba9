//! Instant selectors: each series is read once and gives a value to every step that sees one of its samples.

use std::sync::Arc;

use model::histogram::{CounterResetHint, Histogram, IncompatibleSchemas};
use model::quote::quote;
use model::rollup::{HistogramFlags, WindowColumns};
use model::sample::is_stale;
use model::source::{Hints, Reservation, Selection, SeriesColumns};
use rayon::prelude::*;

use crate::annotations::Annotations;
use crate::column::Column;
use crate::eval::evaluator::Evaluator;
use crate::eval::frame::Row;
use crate::eval::functions::rate::interpolate_histograms;
use crate::eval::resolution::live_windows;
use crate::eval::stats::trace::Trace;
use crate::eval::timeline::{Memo, Reach, newest, windows};
use crate::parse::Span;
use crate::plan::{NodeId, Selector, Steps};
use crate::value::QueryError;

/// From how many slots and samples on a batch is worth more than one core.
const PARALLEL_FROM: usize = 1 << 15;

/// What is done with every batch of a selection.
type EachBatch<'f, E> = dyn FnMut(&mut E, &[SeriesColumns]) -> Result<(), QueryError> + 'f;

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
        rollups: Default::default(),
    }
}

/// What of a selection is kept for who reads it next.
struct Kept {
    /// `None`: nothing, nobody will, or it is too much to hold: the next who reads it reads it again.
    series: Option<Vec<SeriesColumns>>,
    reserved: Reservation,
}

impl Kept {
    fn new(wanted: bool) -> Kept {
        Kept { series: wanted.then(Vec::new), reserved: Reservation::default() }
    }
}

/// Whose work it is while a selection is read, for the trace if there is one: the selector's, or that of
/// whoever takes its batches.
struct Turns {
    trace: Option<Arc<Trace>>,
    selector: NodeId,
    taker: NodeId,
}

impl Turns {
    /// The selector's turn.
    fn begin(trace: Option<Arc<Trace>>, selector: NodeId) -> Turns {
        let taker = trace.as_ref().map(|t| t.switch(selector)).unwrap_or_default();
        Turns { trace, selector, taker }
    }

    /// A batch was read, and its taker's turn comes.
    fn taken(&self, series: usize, bytes: u64) {
        if let Some(trace) = &self.trace {
            trace.switch(self.taker);
            trace.note(self.selector, |f| {
                f.series += series as u64;
                f.bytes += bytes;
            });
        }
    }

    fn reading(&self) {
        if let Some(trace) = &self.trace {
            trace.switch(self.selector);
        }
    }

    fn end(&self, max_resolution_ms: i64) {
        if let Some(trace) = &self.trace {
            trace.switch(self.taker);
            trace.note(self.selector, |f| {
                f.runs += 1;
                f.max_resolution_ms = max_resolution_ms;
            });
        }
    }
}

impl Evaluator<'_> {
    /// Reads a selection in batches. What several selectors of the plan read is read once and kept.
    pub(crate) fn select(
        &mut self,
        s: &Selector,
        reach: &Reach,
        range_ms: i64,
        each: &mut EachBatch<'_, Self>,
    ) -> Result<(), QueryError> {
        let (min_t_ms, max_t_ms) = reach.span();
        let key = (s.selection, min_t_ms, max_t_ms);
        if let Some(kept) = self.selected.get(&key).cloned() {
            return self.select_kept(s, &kept, each);
        }
        let (rollups, needs, looks) = self.rollup_hints_of(s, reach, range_ms);
        let selection = Selection {
            matchers: s.matchers.clone(),
            min_t_ms,
            max_t_ms,
            hints: Hints { rollups, ..hints(s, self.steps, range_ms) },
            budget: self.budget.clone(),
        };
        let source = self.source;
        let turns = Turns::begin(self.trace.clone(), s.id);
        let mut cursor = source.select(&selection)?;
        let what = (if range_ms > 0 { s.func } else { "" }, s.metric_name());
        self.note_resolutions(what, &selection.hints.rollups, needs, looks, (min_t_ms, max_t_ms));
        self.answer_to_come(s.id, || cursor.labels_to_come());
        let mut kept = Kept::new(self.selection_uses.get(s.selection).is_some_and(|n| *n > 1));
        while let Some(mut batch) = cursor.next_batch()? {
            self.budget.check()?;
            if s.counts_only {
                batch.iter_mut().for_each(leave_counts);
            }
            let reservation: Reservation = batch.iter().map(series_reservation).sum();
            self.budget.reserve(reservation)?;
            turns.taken(batch.len(), reservation.bytes);
            each(self, &batch)?;
            turns.reading();
            self.answer_to_come(s.id, || cursor.labels_to_come());
            self.keep_batch(&mut kept, batch, reservation);
        }
        turns.end(selection.hints.rollups.max_resolution_ms);
        if let Some(series) = kept.series {
            self.selected.insert(key, Arc::new(series));
        }
        Ok(())
    }

    /// A selection that was read before.
    fn select_kept(
        &mut self,
        s: &Selector,
        kept: &[SeriesColumns],
        each: &mut EachBatch<'_, Self>,
    ) -> Result<(), QueryError> {
        if let Some(trace) = &self.trace {
            trace.note(s.id, |f| {
                f.runs += 1;
                f.series += kept.len() as u64;
                f.reused = true;
            });
        }
        let mut rest = kept;
        while !rest.is_empty() {
            self.answer_to_come(s.id, || Some(rest.iter().map(|series| series.labels.clone()).collect()));
            self.budget.check()?;
            let (batch, after) = rest.split_at(rest.len().min(256));
            each(self, batch)?;
            rest = after;
        }
        Ok(())
    }

    /// Keeps a batch for who reads the selection next, as long as there is room; else gives back its
    /// reservation.
    fn keep_batch(&self, kept: &mut Kept, batch: Vec<SeriesColumns>, reservation: Reservation) {
        let Some(series) = &mut kept.series else {
            return self.budget.release(reservation);
        };
        kept.reserved += reservation;
        if self.may_keep(kept.reserved) {
            series.extend(batch);
        } else {
            kept.series = None;
            self.budget.release(kept.reserved);
        }
    }

    /// The rows of an instant selector, in the order of the source.
    pub(crate) fn instant_rows(
        &mut self,
        s: &Selector,
        sink: &mut dyn FnMut(Row) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let reach = instant_reach(s, self.steps, self.lookback_ms);
        let (smoothed, span) = (s.smoothed, s.span);
        let memo = Memo::new(self.steps);
        self.select(s, &reach, 0, &mut |ev, batch| {
            let columns: Vec<(Option<Column>, Annotations)> = ev.per_series(batch, |series| {
                if smoothed {
                    let mut notes = Annotations::new();
                    (smooth(series, &reach, span, &mut notes), notes)
                } else {
                    let index = memo.get(&series.ts_ms, |ts| newest(ts, &reach));
                    (seen(series, &index), Annotations::new())
                }
            })?;
            for (series, (column, notes)) in batch.iter().zip(columns) {
                if !notes.is_empty() {
                    ev.notes.merge(notes);
                }
                let Some(column) = column else { continue };
                // Upstream does not count what `smoothed` looks at.
                if !smoothed {
                    ev.sample_stats.column(&column);
                }
                sink(Row { labels: series.labels.clone(), drop_name: false, column })?;
            }
            Ok(())
        })
    }

    /// Runs `f` over every series of a batch, on several cores where that is worth it.
    pub(crate) fn per_series<T: Send>(
        &self,
        batch: &[SeriesColumns],
        f: impl Fn(&SeriesColumns) -> T + Sync,
    ) -> Result<Vec<T>, QueryError> {
        // With what each core works out of a timeline beside.
        self.expect_rows(batch.len() + rayon::current_num_threads(), self.steps.count)?;
        let one = |series: &SeriesColumns| -> Result<T, QueryError> {
            self.budget.check()?;
            Ok(f(series))
        };
        let work: usize = batch.iter().map(|s| s.ts_ms.len() + self.steps.count).sum();
        if batch.len() > 1 && work > PARALLEL_FROM {
            let chunk = (PARALLEL_FROM / (work / batch.len()).max(1)).clamp(1, 64);
            let parts: Vec<Vec<T>> = batch
                .par_chunks(chunk)
                .map(|part| part.iter().map(one).collect::<Result<Vec<T>, _>>())
                .collect::<Result<_, _>>()?;
            Ok(parts.into_iter().flatten().collect())
        } else {
            batch.iter().map(one).collect()
        }
    }
}

/// What a series' columns hold, a shared timeline counted in part.
pub(crate) fn series_reservation(s: &SeriesColumns) -> Reservation {
    let histograms =
        s.histograms.as_ref().map_or(0, |h| h.iter().flatten().map(|h| h.size_bytes() + 16).sum::<usize>());
    let shared = Arc::strong_count(&s.ts_ms).max(1);
    let windows = s.windows.as_ref().map_or(0, |w| w.bytes());
    let bytes = (s.ts_ms.len() * 8 + s.ts_ms.len() * 8 / shared + histograms + windows + 96) as u64;
    Reservation { bytes, samples: (s.ts_ms.len() + histograms / 16) as u64 }
}

/// Leaves of each histogram its count and sum, and notes beside them whether the counter was reset since the
/// histogram before, which nobody can tell any more without buckets (upstream
/// `promql/histogram_stats_iterator.go`).
fn leave_counts(series: &mut SeriesColumns) {
    if let Some(windows) = &mut series.windows {
        note_resets(windows, series.histograms.as_deref());
        return;
    }
    let mut last: Option<Arc<Histogram>> = None;
    for slot in series.histograms.iter_mut().flatten().flatten() {
        let mut hint = slot.counter_reset_hint;
        // That it was not reset was perhaps said beside another histogram.
        if matches!(hint, CounterResetHint::Unknown | CounterResetHint::NotCounterReset)
            && !slot.is_stale()
            && let Some(last) = &last
        {
            let reset = slot.detect_reset(last);
            hint = if reset { CounterResetHint::CounterReset } else { CounterResetHint::NotCounterReset };
        }
        let counts = Histogram {
            counter_reset_hint: hint,
            schema: slot.schema,
            count: slot.count,
            sum: slot.sum,
            ..Histogram::default()
        };
        let whole = std::mem::replace(slot, Arc::new(counts));
        if !whole.is_stale() {
            last = Some(whole);
        }
    }
}

/// Windows keep their buckets, which are few; what their samples would say of resets is noted all the same.
fn note_resets(windows: &mut WindowColumns, last: Option<&[Option<Arc<Histogram>>]>) {
    let (Some(h), Some(resets)) = (&mut windows.histograms, &windows.resets) else { return };
    for i in 0..h.count.len() {
        if h.count[i] == 0 || h.flags[i].has(HistogramFlags::GAUGE) {
            continue;
        }
        let (mut some, mut none) = (resets[i] > 0, h.count[i] - 1 > resets[i]);
        let before = if i > 0 { last.and_then(|l| l[i - 1].as_ref()) } else { None };
        if let (Some(before), Some(first)) = (before, &h.first[i]) {
            let reset = first.detect_reset(before);
            some |= reset;
            none |= !reset;
        }
        for (found, flag) in [(some, HistogramFlags::RESET), (none, HistogramFlags::NOT_RESET)] {
            if found {
                h.flags[i] |= flag;
            }
        }
    }
}

/// The column of a series, from the sample that each step sees; staleness markers hide it.
fn seen(series: &SeriesColumns, index: &[u32]) -> Option<Column> {
    let mut column = Column::new(index.len());
    let mut any = false;
    match &series.histograms {
        None => {
            for (step, &i) in index.iter().enumerate() {
                if i > 0 {
                    let v = series.values[i as usize - 1];
                    if !is_stale(v) {
                        column.set_float(step, v);
                        any = true;
                    }
                }
            }
        }
        Some(histograms) => {
            for (step, &i) in index.iter().enumerate() {
                if i == 0 || is_stale(series.values[i as usize - 1]) {
                    continue;
                }
                any = true;
                match &histograms[i as usize - 1] {
                    Some(h) => column.set_histogram(step, h.clone()),
                    None => column.set_float(step, series.values[i as usize - 1]),
                }
            }
        }
    }
    any.then_some(column)
}

/// `smoothed`: the value at each step is interpolated between the samples around it, as far as the lookback
/// reaches on both sides.
fn smooth(series: &SeriesColumns, reach: &Reach, span: Span, notes: &mut Annotations) -> Option<Column> {
    let metric = series.labels.metric_name().unwrap_or("");
    let series = without_stale(series);
    let mut column = Column::new(reach.steps.count);
    for (step, (from, to)) in windows(&series.ts_ms, reach).into_iter().enumerate() {
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
    // Several at once, without a way out after each, is what vector registers can do.
    let any = |values: &[f64]| values.iter().fold(false, |any, v| any | is_stale(*v));
    if !series.values.chunks(64).any(any) {
        return std::borrow::Cow::Borrowed(series);
    }
    let keep: Vec<usize> = (0..series.values.len()).filter(|i| !is_stale(series.values[*i])).collect();
    std::borrow::Cow::Owned(series.pick(&keep))
}
