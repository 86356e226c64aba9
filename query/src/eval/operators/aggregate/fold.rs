//! Aggregations that need no more of a group than some numbers per step: `sum`, `avg`, `count`, `min`, `max`,
//! `group`, `stddev`, `stdvar`.

use std::sync::Arc;

use hashbrown::HashMap;
use model::histogram::{CounterResetHint, Histogram, IncompatibleSchemas, compensated_add};
use model::labels::Labels;
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
        let mut states: Vec<State> = Vec::new();
        let mut notes = Annotations::new();
        let budget = self.budget.clone();
        let per_group = Reservation { bytes: 3 * column_bytes(steps), samples: steps as u64 };
        let mut reserved = Reservation::default();
        let span = a.expr.span;
        self.stream(&a.expr, &mut |row| {
            if row.column.is_empty() {
                return Ok(());
            }
            let at = groups.of(&row.labels);
            if at == states.len() {
                let group = per_group + label_bytes(&groups.labels[at]).into();
                budget.reserve(group)?;
                reserved += group;
                states.push(State::new(a.op, steps));
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

/// Calls `f` with step, value and whether the step was not yet seen, for every float; marks the steps as
/// seen.
#[inline]
fn each_float(values: &[f64], present: &[u64], seen: &mut [u64], mut f: impl FnMut(usize, f64, bool)) {
    for (word, (bits, seen)) in present.iter().zip(seen).enumerate() {
        let (mut rest, before) = (*bits, *seen);
        *seen |= rest;
        while rest != 0 {
            let bit = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            f(word * 64 + bit, values[word * 64 + bit], before >> bit & 1 == 0);
        }
    }
}

impl State {
    fn new(op: AggregateOp, steps: usize) -> Self {
        use AggregateOp::*;
        let words = steps.div_ceil(64);
        let of = |wanted: bool| if wanted { vec![0.0; steps] } else { Vec::new() };
        let marks = |wanted: bool| if wanted { vec![0; words] } else { Vec::new() };
        State {
            op,
            steps,
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
            Sum => {
                let (sums, rest) = (&mut self.value, &mut self.compensation);
                each_float(values, present, &mut seen, |step, v, first| {
                    let (sum, c) = if first { (v, 0.0) } else { compensated_add(v, sums[step], rest[step]) };
                    sums[step] = sum;
                    rest[step] = c;
                });
            }
            Count => {
                let count = &mut self.count;
                each_float(values, present, &mut seen, |step, _, _| count[step] += 1.0);
            }
            Max => {
                let best = &mut self.value;
                each_float(values, present, &mut seen, |step, v, first| {
                    if first || best[step] < v || best[step].is_nan() {
                        best[step] = v;
                    }
                });
            }
            Min => {
                let best = &mut self.value;
                each_float(values, present, &mut seen, |step, v, first| {
                    if first || best[step] > v || best[step].is_nan() {
                        best[step] = v;
                    }
                });
            }
            _ => each_float(values, present, &mut seen, |step, v, first| self.add_float(step, v, first)),
        }
        self.seen = seen;
        if row.column.histogram_count() == 0 {
            return;
        }
        for (step, h) in row.column.histograms() {
            let step = *step as usize;
            match self.op {
                Sum | Avg => self.add_histogram(step, h, &row.labels, span, notes),
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
        labels: &Labels,
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
                        quote(labels.metric_name().unwrap_or(""))
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
