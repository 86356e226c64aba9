//! Aggregations that need no more of a group than some numbers per step: `sum`, `avg`, `count`, `min`, `max`,
//! `group`, `stddev`, `stdvar`.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use model::histogram::{CounterResetHint, Histogram, IncompatibleSchemas, compensated_add};
use model::quote::quote;
use model::source::Reservation;

use super::groups::Groups;
use super::histograms::HistogramState;
use crate::annotations::Annotations;
use crate::column::Column;
use crate::eval::evaluator::{Evaluator, column_bytes, label_bytes};
use crate::eval::frame::{Frame, Row, Val};
use crate::parse::{AggregateOp, Span};
use crate::plan::Aggregate;
use crate::value::QueryError;

impl Evaluator<'_> {
    pub(super) fn fold(&mut self, a: &Aggregate) -> Result<Val, QueryError> {
        let steps = self.steps.count;
        let mut groups = Groups::new(a);
        let (names, delayed) = (groups.names(), self.options.delayed_name_removal);
        let mut states: Vec<State> = Vec::new();
        let mut notes = Annotations::new();
        let budget = self.budget.clone();
        let per_group = Reservation { bytes: 3 * column_bytes(steps), samples: steps as u64 };
        let mut reserved = Reservation::default();
        let span = a.expr.span;
        self.stream(&a.expr, names, &mut |row| {
            if row.column.is_empty() {
                return Ok(());
            }
            let at = groups.of(&row.labels);
            if at == states.len() {
                let group = per_group + label_bytes(&groups.labels[at]).into();
                budget.reserve(group)?;
                reserved += group;
                states.push(State::new(a.op, steps, delayed));
            }
            states[at].add(&row, span, &mut notes);
            Ok(())
        })?;
        self.live += reserved;
        let mut rows = Vec::with_capacity(states.len());
        for (labels, state) in groups.labels.into_iter().zip(states) {
            let drop_name = state.drop_name;
            let column = state.finish(span, &mut notes);
            if !column.is_empty() {
                rows.push(Row { labels, drop_name, column });
            }
        }
        self.notes.merge(notes);
        Ok(Val::Vector(Frame { rows }))
    }
}

/// A group while its rows come in: one slot per step.
struct State {
    op: AggregateOp,
    steps: usize,
    /// Rows whose name is to be dropped still have it and are called by it.
    delayed: bool,
    drop_name: bool,
    /// A bit per step that has a value.
    seen: Vec<u64>,
    /// A bit per step that has floats, for `sum` and `avg`.
    floats: Vec<u64>,
    value: Vec<f64>,
    /// Of `value`, or of `mean`.
    compensation: Vec<f64>,
    count: Vec<f64>,
    /// For `stddev` and `stdvar`, and for `avg` after an overflow.
    mean: Vec<f64>,
    /// A bit per step at which `avg` went over to the running mean, which may itself become NaN.
    running: Vec<u64>,
    histograms: HashMap<usize, HistogramState>,
}

/// Marks the steps of a row's floats as seen, and calls `run` for runs of them that are seen for the first
/// time, or not: mostly whole words of 64.
#[inline]
fn each_run(present: &[u64], seen: &mut [u64], mut run: impl FnMut(Range<usize>, bool)) {
    for (word, (bits, seen)) in present.iter().zip(seen).enumerate() {
        let (mut rest, before) = (*bits, *seen);
        *seen |= rest;
        while rest != 0 {
            let from = rest.trailing_zeros();
            let first = before >> from & 1 == 0;
            let alike = rest & if first { !before } else { before };
            let length = (alike >> from).trailing_ones();
            run(word * 64 + from as usize..word * 64 + (from + length) as usize, first);
            rest &= u64::MAX.checked_shl(from + length).unwrap_or(0);
        }
    }
}

/// [`compensated_add`] of each value to the sum beside it, bit for bit, without branches: several at once.
fn add_each(values: &[f64], sums: &mut [f64], rest: &mut [f64]) {
    for ((v, sum), c) in values.iter().zip(sums).zip(rest) {
        let t = *sum + v;
        let (big, small) = if sum.abs() >= v.abs() { (*sum, *v) } else { (*v, *sum) };
        let next = *c + ((big - t) + small);
        *c = if t.is_infinite() { 0.0 } else { next };
        *sum = t;
    }
}

/// The better of each two, where `wins(old, new)` says that the new one is; NaN gives way to anything.
fn best_each(values: &[f64], best: &mut [f64], first: bool, wins: impl Fn(f64, f64) -> bool) {
    for (best, v) in best.iter_mut().zip(values) {
        *best = if first | wins(*best, *v) | best.is_nan() { *v } else { *best };
    }
}

impl State {
    fn new(op: AggregateOp, steps: usize, delayed: bool) -> Self {
        use AggregateOp::*;
        let words = steps.div_ceil(64);
        let of = |wanted: bool| if wanted { vec![0.0; steps] } else { Vec::new() };
        let marks = |wanted: bool| if wanted { vec![0; words] } else { Vec::new() };
        State {
            op,
            steps,
            delayed,
            drop_name: false,
            seen: vec![0; words],
            floats: marks(matches!(op, Sum | Avg)),
            value: of(!matches!(op, Count | Group)),
            compensation: of(matches!(op, Sum | Avg)),
            count: of(matches!(op, Avg | Count | Stddev | Stdvar)),
            mean: match op {
                Stddev | Stdvar => vec![0.0; steps],
                _ => Vec::new(),
            },
            running: Vec::new(),
            histograms: HashMap::new(),
        }
    }

    fn add(&mut self, row: &Row, span: Span, notes: &mut Annotations) {
        use AggregateOp::*;
        self.drop_name |= row.drop_name;
        let (values, present) = row.column.floats();
        if matches!(self.op, Sum | Avg) {
            self.floats.iter_mut().zip(present).for_each(|(a, b)| *a |= b);
        }
        let mut seen = std::mem::take(&mut self.seen);
        // The commonest have loops of their own.
        match self.op {
            Sum => each_run(present, &mut seen, |run, first| {
                let values = &values[run.clone()];
                let (sums, rest) = (&mut self.value[run.clone()], &mut self.compensation[run]);
                if first {
                    sums.copy_from_slice(values);
                    rest.fill(0.0);
                } else {
                    add_each(values, sums, rest);
                }
            }),
            Count => each_run(present, &mut seen, |run, _| {
                self.count[run].iter_mut().for_each(|n| *n += 1.0);
            }),
            Max => each_run(present, &mut seen, |run, first| {
                best_each(&values[run.clone()], &mut self.value[run], first, |old, new| old < new);
            }),
            Min => each_run(present, &mut seen, |run, first| {
                best_each(&values[run.clone()], &mut self.value[run], first, |old, new| old > new);
            }),
            Avg => each_run(present, &mut seen, |run, first| self.add_to_means(values, run, first)),
            _ => each_run(present, &mut seen, |run, first| {
                run.for_each(|step| self.add_float(step, values[step], first));
            }),
        }
        self.seen = seen;
        if row.column.histogram_count() == 0 {
            return;
        }
        for (step, h) in row.column.histograms() {
            let step = *step as usize;
            match self.op {
                Sum | Avg => {
                    let named = self.delayed || !row.drop_name;
                    let metric = if named { row.labels.metric_name().unwrap_or("") } else { "" };
                    self.add_histogram(step, h, metric, span, notes);
                }
                Count => {
                    self.see(step);
                    self.count[step] += 1.0;
                }
                Group => {
                    self.see(step);
                }
                op => notes.info(span, format!("ignored histogram in {} aggregation", op.as_str())),
            }
        }
    }

    /// Adds to the means of some steps: several at once as long as no sum overflows.
    fn add_to_means(&mut self, values: &[f64], run: Range<usize>, first: bool) {
        let (own, sums) = (&values[run.clone()], &mut self.value[run.clone()]);
        let overflows = || sums.iter().zip(own).fold(false, |any, (a, b)| any | (a + b).is_infinite());
        if first || !self.running.is_empty() || overflows() {
            return run.for_each(|step| self.add_float(step, values[step], first));
        }
        add_each(own, sums, &mut self.compensation[run.clone()]);
        self.count[run].iter_mut().for_each(|n| *n += 1.0);
    }

    /// Marks a step; true where it was not marked before.
    fn see(&mut self, step: usize) -> bool {
        let (word, mask) = (step >> 6, 1u64 << (step & 63));
        let first = self.seen[word] & mask == 0;
        self.seen[word] |= mask;
        first
    }

    #[inline]
    fn add_float(&mut self, step: usize, v: f64, first: bool) {
        use AggregateOp::*;
        match self.op {
            Avg if first => {
                (self.value[step], self.compensation[step], self.count[step]) = (v, 0.0, 1.0);
            }
            Avg => self.add_to_mean(step, v),
            Group => {}
            _ if first => {
                self.count[step] = 1.0;
                self.mean[step] = v;
                self.value[step] = if v.is_finite() { 0.0 } else { f64::NAN };
            }
            _ => {
                self.count[step] += 1.0;
                let delta = v - self.mean[step];
                self.mean[step] += delta / self.count[step];
                self.value[step] += delta * (v - self.mean[step]);
            }
        }
    }

    fn runs(&self, step: usize) -> bool {
        self.running.get(step >> 6).is_some_and(|word| word >> (step & 63) & 1 == 1)
    }

    /// Sum over count, or the running mean from where the sum would overflow.
    fn add_to_mean(&mut self, step: usize, v: f64) {
        self.count[step] += 1.0;
        let count = self.count[step];
        if !self.runs(step) {
            let (sum, c) = compensated_add(v, self.value[step], self.compensation[step]);
            if !sum.is_infinite() {
                (self.value[step], self.compensation[step]) = (sum, c);
                return;
            }
            if self.mean.is_empty() {
                self.mean = vec![0.0; self.value.len()];
                self.running = vec![0; self.steps.div_ceil(64)];
            }
            self.running[step >> 6] |= 1 << (step & 63);
            self.mean[step] = self.value[step] / (count - 1.0);
            self.compensation[step] /= count - 1.0;
        }
        let q = (count - 1.0) / count;
        (self.mean[step], self.compensation[step]) =
            compensated_add(v / count, q * self.mean[step], q * self.compensation[step]);
    }

    fn add_histogram(
        &mut self,
        step: usize,
        h: &Histogram,
        metric: &str,
        span: Span,
        notes: &mut Annotations,
    ) {
        let first = self.see(step);
        if self.op == AggregateOp::Avg {
            self.count[step] = if first { 1.0 } else { self.count[step] + 1.0 };
        }
        let count = self.count.get(step).copied().unwrap_or(0.0);
        let state = self.histograms.entry(step).or_default();
        if state.incompatible {
            return;
        }
        if first || state.sum.is_some() {
            state.reset |= h.counter_reset_hint == CounterResetHint::CounterReset;
            state.not_reset |= h.counter_reset_hint == CounterResetHint::NotCounterReset;
        }
        if first {
            state.sum = Some(h.clone());
            return;
        }
        let added = match self.op {
            AggregateOp::Sum => state.add(h),
            _ => state.add_to_mean(h, count),
        };
        match added {
            Ok(true) => notes.info(span, "mismatched custom buckets were reconciled during aggregation"),
            Ok(false) => {}
            Err(IncompatibleSchemas) => {
                state.incompatible = true;
                notes.warn(
                    span,
                    format!(
                        "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
                        quote(metric)
                    ),
                );
            }
        }
    }

    fn finish(mut self, span: Span, notes: &mut Annotations) -> Column {
        use AggregateOp::*;
        let mut histograms: Vec<(usize, HistogramState)> =
            std::mem::take(&mut self.histograms).into_iter().collect();
        histograms.sort_unstable_by_key(|(s, _)| *s);
        let mut values = vec![0.0; self.steps];
        for word in 0..self.seen.len() {
            let mut rest = self.seen[word];
            while rest != 0 {
                let step = word * 64 + rest.trailing_zeros() as usize;
                rest &= rest - 1;
                values[step] = match self.op {
                    Sum => self.value[step] + self.compensation[step],
                    Avg => {
                        let (c, n) = (self.compensation[step], self.count[step]);
                        if self.runs(step) { self.mean[step] + c } else { self.value[step] / n + c / n }
                    }
                    Count => self.count[step],
                    Group => 1.0,
                    Stdvar => self.value[step] / self.count[step],
                    Stddev => (self.value[step] / self.count[step]).sqrt(),
                    _ => self.value[step],
                };
            }
        }
        let mut column = Column::from_parts(values, self.seen);
        for (step, state) in histograms {
            let mixed = self.floats[step >> 6] >> (step & 63) & 1 == 1;
            column.clear(step);
            if mixed {
                notes.warn(span, "encountered a mix of histograms and floats for aggregation");
                continue;
            }
            if state.incompatible {
                continue;
            }
            if state.reset && state.not_reset {
                notes.warn(span, "conflicting counter resets during histogram aggregation");
            }
            let count = self.count.get(step).copied().unwrap_or(1.0);
            if let Some(h) = state.finish(self.op, count) {
                column.set_histogram(step, Arc::new(h));
            }
        }
        column
    }
}
