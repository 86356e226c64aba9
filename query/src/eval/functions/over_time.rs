//! The `*_over_time` family: a window's samples in one number or histogram.

use std::collections::VecDeque;
use std::sync::Arc;

use model::histogram::{Combined, CounterResetHint, Histogram, IncompatibleSchemas, compensated_add};
use model::sample::Value;

use super::lanes::{self, LANES};
use super::order::SortedWindow;
use super::{Entry, Run, Samples, SeriesWindows, Window, WindowContext};
use crate::annotations::go_float;
use crate::eval::frame::Column;

pub const ENTRIES: &[Entry] = &[
    window("sum_over_time", sum, Some(super::sums::sums)),
    window("avg_over_time", avg, Some(super::sums::means)),
    window(
        "count_over_time",
        |_, s| Some(Value::Float(s.len() as f64)),
        Some(|w, out| {
            for (step, (from, to)) in w.windows.iter().enumerate().filter(|(_, (a, b))| a < b) {
                out.set_float(step, f64::from(to - from));
            }
            true
        }),
    ),
    window(
        "min_over_time",
        |c, s| extreme(c, s, |v, best| v < best || best.is_nan(), false),
        Some(|w, out| sliding_extreme(w, out, |old, new| new < old)),
    ),
    window(
        "max_over_time",
        |c, s| extreme(c, s, |v, best| v > best || best.is_nan(), false),
        Some(|w, out| sliding_extreme(w, out, |old, new| new > old)),
    ),
    window("ts_of_min_over_time", |c, s| extreme(c, s, |v, best| v <= best || best.is_nan(), true), None),
    window("ts_of_max_over_time", |c, s| extreme(c, s, |v, best| v >= best || best.is_nan(), true), None),
    window("ts_of_first_over_time", |_, s| Some(Value::Float(s.ts_ms[0] as f64 / 1000.0)), None),
    window("ts_of_last_over_time", |_, s| Some(Value::Float(s.ts_ms[s.len() - 1] as f64 / 1000.0)), None),
    keeping_name("first_over_time", |_, s| at(s, 0), |w, out| each(w, out, |v| v[0])),
    keeping_name("last_over_time", |_, s| at(s, s.len() - 1), |w, out| each(w, out, |v| v[v.len() - 1])),
    window("present_over_time", |_, _| Some(Value::Float(1.0)), Some(|w, out| each(w, out, |_| 1.0))),
    // The evaluator turns the presence of any series around.
    window("absent_over_time", |_, _| Some(Value::Float(1.0)), Some(|w, out| each(w, out, |_| 1.0))),
    window("quantile_over_time", quantile_over_time, Some(sliding_quantile)),
    window("mad_over_time", mad, Some(sliding_mad)),
    window(
        "stddev_over_time",
        |c, s| variance(c, s).map(|v| Value::Float(v.sqrt())),
        Some(|w, out| variances(w, out, f64::sqrt)),
    ),
    window(
        "stdvar_over_time",
        |c, s| variance(c, s).map(Value::Float),
        Some(|w, out| variances(w, out, |v| v)),
    ),
];

const fn window(name: &'static str, run: super::WindowFn, kernel: Option<super::Kernel>) -> Entry {
    Entry { name, run: Run::Window(Window { keeps_name: false, run, kernel }) }
}

const fn keeping_name(name: &'static str, run: super::WindowFn, kernel: super::Kernel) -> Entry {
    Entry { name, run: Run::Window(Window { keeps_name: true, run, kernel: Some(kernel) }) }
}

/// One value per window, from its floats.
pub(super) fn each(w: &SeriesWindows<'_>, out: &mut Column, f: impl Fn(&[f64]) -> f64) -> bool {
    for (step, &(from, to)) in w.windows.iter().enumerate() {
        if from < to {
            out.set_float(step, f(&w.values[from as usize..to as usize]));
        }
    }
    true
}

fn at(s: &Samples<'_>, i: usize) -> Option<Value> {
    Some(match s.histogram(i) {
        Some(h) => Value::Histogram(h.clone()),
        None => Value::Float(s.values[i]),
    })
}

/// Mixed windows have no value here, and a warning.
fn mixed(c: &mut WindowContext<'_>, s: &Samples<'_>) -> bool {
    let histograms = s.histogram_count();
    if histograms == 0 || histograms == s.len() {
        return false;
    }
    let text = format!("encountered a mix of histograms and floats for metric name {}", c.quoted_name());
    c.notes.warn(c.span(), text);
    true
}

/// The floats of a window, `None` where there are none; histograms beside them are left out with an info.
fn floats_only<'a>(c: &mut WindowContext<'_>, s: &Samples<'a>) -> Option<super::Floats<'a>> {
    let floats = s.floats();
    if floats.values.is_empty() {
        return None;
    }
    if floats.values.len() < s.len() {
        let text = format!(
            "ignored histograms in a range containing both floats and histograms for metric name {}",
            c.quoted_name()
        );
        c.notes.info(c.span(), text);
    }
    Some(floats)
}

pub(super) fn sum_floats(values: &[f64]) -> f64 {
    let (mut sum, mut c) = (0.0, 0.0);
    for v in values {
        (sum, c) = compensated_add(*v, sum, c);
    }
    if sum.is_infinite() { sum } else { sum + c }
}

/// Sum over count, or the running mean from where the sum would overflow.
pub(super) fn avg_floats(values: &[f64]) -> f64 {
    let (mut sum, mut c, mut mean) = (values[0], 0.0, 0.0);
    let mut incremental = false;
    let mut count = 1.0;
    for (i, v) in values.iter().enumerate().skip(1) {
        count = (i + 1) as f64;
        if !incremental {
            let next = compensated_add(*v, sum, c);
            if !next.0.is_infinite() {
                (sum, c) = next;
                continue;
            }
            incremental = true;
            mean = sum / (count - 1.0);
            c /= count - 1.0;
        }
        let q = (count - 1.0) / count;
        (mean, c) = compensated_add(*v / count, q * mean, q * c);
    }
    if incremental { mean + c } else { sum / count + c / count }
}

/// What the reader should hear of a run of histogram additions.
#[derive(Default)]
pub(crate) struct Remarks {
    reset: bool,
    not_reset: bool,
    reconciled: bool,
}

impl Remarks {
    fn hint(&mut self, h: &Histogram) {
        self.reset |= h.counter_reset_hint == CounterResetHint::CounterReset;
        self.not_reset |= h.counter_reset_hint == CounterResetHint::NotCounterReset;
    }

    fn combined(&mut self, c: Combined) {
        self.reconciled |= c.bounds_reconciled;
    }

    fn note(&self, c: &mut WindowContext<'_>) {
        if self.reset && self.not_reset {
            c.notes.warn(c.span(), "conflicting counter resets during histogram aggregation");
        }
        if self.reconciled {
            c.notes.info(c.span(), "mismatched custom buckets were reconciled during aggregation");
        }
    }
}

fn histogram_result(
    c: &mut WindowContext<'_>,
    remarks: &Remarks,
    result: Result<Histogram, IncompatibleSchemas>,
) -> Option<Value> {
    match result {
        Ok(h) => {
            remarks.note(c);
            Some(Value::Histogram(Arc::new(h)))
        }
        Err(IncompatibleSchemas) => {
            let text = format!(
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
                c.quoted_name()
            );
            c.notes.warn(c.span(), text);
            None
        }
    }
}

fn sum(c: &mut WindowContext<'_>, s: &Samples<'_>) -> Option<Value> {
    if mixed(c, s) {
        return None;
    }
    if s.histogram_count() == 0 {
        return Some(Value::Float(sum_floats(s.values)));
    }
    let all = s.only_histograms().values;
    let mut remarks = Remarks::default();
    let add = |remarks: &mut Remarks| {
        let mut sum = (**all[0]).clone();
        remarks.hint(&sum);
        let mut comp = None;
        for h in &all[1..] {
            remarks.hint(h);
            let done = sum.kahan_add(h, &mut comp)?;
            remarks.combined(done);
        }
        if let Some(comp) = comp {
            let done = sum.add(&comp)?;
            remarks.combined(done);
        }
        Ok(sum)
    };
    let result = add(&mut remarks);
    histogram_result(c, &remarks, result)
}

fn avg(c: &mut WindowContext<'_>, s: &Samples<'_>) -> Option<Value> {
    if mixed(c, s) {
        return None;
    }
    if s.histogram_count() == 0 {
        return Some(Value::Float(avg_floats(s.values)));
    }
    let all = s.only_histograms().values;
    let mut remarks = Remarks::default();
    let result = avg_histograms(&all, &mut remarks);
    histogram_result(c, &remarks, result)
}

fn avg_histograms(all: &[&Arc<Histogram>], remarks: &mut Remarks) -> Result<Histogram, IncompatibleSchemas> {
    let mut sum = (**all[0]).clone();
    remarks.hint(&sum);
    let mut comp: Option<Histogram> = None;
    let mut mean: Option<Histogram> = None;
    let mut count = 1.0;
    for (i, h) in all.iter().enumerate().skip(1) {
        remarks.hint(h);
        count = (i + 1) as f64;
        if mean.is_none() {
            let (mut next, mut next_comp) = (sum.clone(), comp.clone());
            let done = next.kahan_add(h, &mut next_comp)?;
            remarks.combined(done);
            if !next.has_overflow() {
                (sum, comp) = (next, next_comp);
                continue;
            }
            let mut m = sum.clone();
            m.div(count - 1.0);
            mean = Some(m);
            if let Some(c) = &mut comp {
                c.div(count - 1.0);
            }
        }
        let Some(m) = &mut mean else { continue };
        let q = (count - 1.0) / count;
        if let Some(c) = &mut comp {
            c.mul(q);
        }
        let mut part = (***h).clone();
        part.div(count);
        m.mul(q);
        let done = m.kahan_add(&part, &mut comp)?;
        remarks.combined(done);
    }
    let mut result = match mean {
        Some(m) => m,
        None => {
            sum.div(count);
            if let Some(c) = &mut comp {
                c.div(count);
            }
            sum
        }
    };
    if let Some(c) = comp {
        result.add(&c)?;
    }
    Ok(result)
}

/// The sample that wins against all before it: its value, or its time in seconds.
fn extreme(
    c: &mut WindowContext<'_>,
    s: &Samples<'_>,
    wins: fn(f64, f64) -> bool,
    time: bool,
) -> Option<Value> {
    let f = floats_only(c, s)?;
    let (mut best, mut t) = (f.values[0], f.ts_ms[0]);
    for (v, at) in f.values.iter().zip(f.ts_ms.iter()) {
        if wins(*v, best) {
            (best, t) = (*v, *at);
        }
    }
    Some(Value::Float(if time { t as f64 / 1000.0 } else { best }))
}

/// Minimum or maximum of all windows in one pass: a queue of the samples that may yet win, the best in front. `better(old, new)` is strict,
/// so the earliest of equals stays.
pub(super) fn sliding_extreme(w: &SeriesWindows<'_>, out: &mut Column, better: fn(f64, f64) -> bool) -> bool {
    let mut queue: VecDeque<u32> = VecDeque::new();
    let mut next = 0;
    for (step, &(from, to)) in w.windows.iter().enumerate() {
        if from == to {
            continue;
        }
        next = next.max(from);
        while next < to {
            let v = w.values[next as usize];
            if !v.is_nan() {
                while queue.back().is_some_and(|old| better(w.values[*old as usize], v)) {
                    queue.pop_back();
                }
                queue.push_back(next);
            }
            next += 1;
        }
        while queue.front().is_some_and(|old| *old < from) {
            queue.pop_front();
        }
        // No number in the window: NaN it is.
        out.set_float(step, queue.front().map_or(w.values[from as usize], |best| w.values[*best as usize]));
    }
    true
}

/// Upstream's order of values: NaN first.
pub fn nan_first(a: &f64, b: &f64) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        (false, false) => a.partial_cmp(b).expect("no NaN"),
    }
}

/// The φ-quantile of unordered values, interpolated between the two around it (upstream `quantile`). Sorts them.
pub fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    // Stable, so that what slides gives the same bits: zeros of both signs are equal in this order.
    values.sort_by(nan_first);
    quantile_of_sorted(q, values.len(), |i| values[i])
}

/// The φ-quantile for φ from 0 to 1 of `n` values, at least one, that are in order.
fn quantile_of_sorted(q: f64, n: usize, value: impl Fn(usize) -> f64) -> f64 {
    let n = n as f64;
    let rank = q * (n - 1.0);
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min(n - 1.0);
    let weight = rank - rank.floor();
    value(lower as usize) * (1.0 - weight) + value(upper as usize) * weight
}

/// Quantiles of all windows from one sorted window that slides. A φ outside 0 to 1 is remarked on, which is left to the other way.
fn sliding_quantile(w: &SeriesWindows<'_>, out: &mut Column) -> bool {
    let q = |step: usize| w.scalars(step)[0];
    if !(0..w.windows.len()).all(|step| (0.0..=1.0).contains(&q(step))) {
        return false;
    }
    let mut sorted = SortedWindow::default();
    for (step, &(from, to)) in w.windows.iter().enumerate().filter(|(_, (from, to))| from < to) {
        let values = sorted.move_to(w.values, from as usize, to as usize);
        out.set_float(step, quantile_of_sorted(q(step), values.len(), |i| values[i]));
    }
    true
}

/// The median of the distances from the median, of all windows: sorted, the distances run outwards from it on both sides.
fn sliding_mad(w: &SeriesWindows<'_>, out: &mut Column) -> bool {
    let mut sorted = SortedWindow::default();
    for (step, &(from, to)) in w.windows.iter().enumerate().filter(|(_, (from, to))| from < to) {
        let values = sorted.move_to(w.values, from as usize, to as usize);
        let n = values.len();
        let mad = if values[0].is_nan() {
            f64::NAN
        } else {
            let median = quantile_of_sorted(0.5, n, |i| values[i]);
            if median.is_finite() {
                let below = values.partition_point(|v| *v < median);
                let (left, right) = (&values[..below], &values[below..]);
                quantile_of_sorted(0.5, n, |k| super::order::nth_distance(left, right, median, k))
            } else {
                mad_around(median, &mut values.to_vec())
            }
        };
        out.set_float(step, mad);
    }
    true
}

fn mad_around(median: f64, values: &mut [f64]) -> f64 {
    values.iter_mut().for_each(|v| *v = (*v - median).abs());
    quantile(0.5, values)
}

fn quantile_over_time(c: &mut WindowContext<'_>, s: &Samples<'_>) -> Option<Value> {
    let q = c.scalars[0];
    if s.histogram_count() == s.len() {
        return None;
    }
    if !(0.0..=1.0).contains(&q) {
        let text = format!("quantile value should be between 0 and 1, got {}", go_float(q));
        c.notes.warn(c.span(), text);
    }
    let mut values = floats_only(c, s)?.values.into_owned();
    Some(Value::Float(quantile(q, &mut values)))
}

fn mad(c: &mut WindowContext<'_>, s: &Samples<'_>) -> Option<Value> {
    let mut values = floats_only(c, s)?.values.into_owned();
    if values.iter().any(|v| v.is_nan()) {
        return Some(Value::Float(f64::NAN));
    }
    let median = quantile(0.5, &mut values);
    Some(Value::Float(mad_around(median, &mut values)))
}

/// Welford's method with compensated steps.
fn variance(c: &mut WindowContext<'_>, s: &Samples<'_>) -> Option<f64> {
    let f = floats_only(c, s)?;
    let (mut count, mut mean, mut aux) = (0.0, (0.0, 0.0), (0.0, 0.0));
    for v in f.values.iter() {
        count += 1.0;
        let delta = v - (mean.0 + mean.1);
        mean = compensated_add(delta / count, mean.0, mean.1);
        aux = compensated_add(delta * (v - (mean.0 + mean.1)), aux.0, aux.1);
    }
    Some((aux.0 + aux.1) / count)
}

/// Welford's method with compensated steps, several windows at once. A sliding form (take the oldest out, put the newest in) has other
/// last digits than a fresh one and drifts, and upstream's digits are the right ones: so each window is computed anew.
#[derive(Clone, Copy)]
struct Moments {
    mean: Sums,
    aux: Sums,
}

/// A compensated sum per lane.
#[derive(Clone, Copy)]
struct Sums {
    sum: lanes::Value,
    comp: lanes::Value,
}

impl Moments {
    const START: Moments = {
        let none = Sums { sum: [0.0; LANES], comp: [0.0; LANES] };
        Moments { mean: none, aux: none }
    };

    /// The `i`th sample of each window.
    fn add(&mut self, i: usize, values: &lanes::Value) {
        let count = (i + 1) as f64;
        let delta: lanes::Value = std::array::from_fn(|l| values[l] - (self.mean.sum[l] + self.mean.comp[l]));
        let part = std::array::from_fn(|l| delta[l] / count);
        lanes::compensated_add(&part, &mut self.mean.sum, &mut self.mean.comp);
        let square = std::array::from_fn(|l| delta[l] * (values[l] - (self.mean.sum[l] + self.mean.comp[l])));
        lanes::compensated_add(&square, &mut self.aux.sum, &mut self.aux.comp);
    }
}

fn variances(w: &SeriesWindows<'_>, out: &mut Column, last: fn(f64) -> f64) -> bool {
    lanes::windows(w, Moments::START, Moments::add, |state, lane, step, n| {
        out.set_float(step, last((state.aux.sum[lane] + state.aux.comp[lane]) / n as f64));
    });
    true
}
