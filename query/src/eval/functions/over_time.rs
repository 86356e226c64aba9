//! The `*_over_time` family: a window's samples in one number or histogram.

use std::sync::Arc;

use model::histogram::{Combined, CounterResetHint, Histogram, IncompatibleSchemas, compensated_add};
use model::sample::Value;

use super::extremes::sliding_extreme;
use super::kernel::{
    Entry, Floats, Kernel, Samples, SeriesKernel, SeriesWindows, Window, WindowContext, WindowFn,
};
use super::lanes::{self, LANES};
use super::order::{SortedWindow, nth_distance, quantile, quantile_of_sorted};
use super::sums::{avg_floats, means, sum_floats, sums};
use crate::annotations::go_float;
use crate::column::Column;

pub const ENTRIES: &[Entry] = &[
    window("sum_over_time", sum, Some(sums)),
    window("avg_over_time", avg, Some(means)),
    window(
        "count_over_time",
        |_, s| Some(Value::Float(s.len() as f64)),
        Some(|w, out| {
            out.fill(w.windows.present(), |out| {
                out.iter_mut().zip(&w.windows[..]).for_each(|(n, (from, to))| *n = f64::from(to - from));
            });
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
    keeping_name("first_over_time", |_, s| at(s, 0), |w, out| w.each(out, |v| v[0])),
    keeping_name("last_over_time", |_, s| at(s, s.len() - 1), |w, out| w.each(out, |v| v[v.len() - 1])),
    window("present_over_time", |_, _| Some(Value::Float(1.0)), Some(|w, out| w.each(out, |_| 1.0))),
    // The presence of any series, turned around.
    Entry { name: "absent_over_time", kernel: Kernel::Whole(|ev, call| ev.absent_over_time(call)) },
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

/// A 1 for every window; for `absent_over_time`, which has no names to drop.
pub static PRESENCE: Window = Window {
    keeps_name: true,
    run: |_, _| Some(Value::Float(1.0)),
    series: Some(|w, out| w.each(out, |_| 1.0)),
};

const fn window(name: &'static str, run: WindowFn, series: Option<SeriesKernel>) -> Entry {
    Entry { name, kernel: Kernel::Window(Window { keeps_name: false, run, series }) }
}

const fn keeping_name(name: &'static str, run: WindowFn, series: SeriesKernel) -> Entry {
    Entry { name, kernel: Kernel::Window(Window { keeps_name: true, run, series: Some(series) }) }
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
fn floats_only<'a>(c: &mut WindowContext<'_>, s: &Samples<'a>) -> Option<Floats<'a>> {
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

/// What the reader should hear of a run of histogram additions.
#[derive(Default)]
pub(crate) struct AdditionNotes {
    reset: bool,
    not_reset: bool,
    reconciled: bool,
}

impl AdditionNotes {
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
    notes: &AdditionNotes,
    result: Result<Histogram, IncompatibleSchemas>,
) -> Option<Value> {
    match result {
        Ok(h) => {
            notes.note(c);
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
    let histograms = s.only_histograms().values;
    let mut notes = AdditionNotes::default();
    let add = |notes: &mut AdditionNotes| {
        let mut sum = (**histograms[0]).clone();
        notes.hint(&sum);
        let mut comp = None;
        for h in &histograms[1..] {
            notes.hint(h);
            let done = sum.kahan_add(h, &mut comp)?;
            notes.combined(done);
        }
        if let Some(comp) = comp {
            let done = sum.add(&comp)?;
            notes.combined(done);
        }
        Ok(sum)
    };
    let result = add(&mut notes);
    histogram_result(c, &notes, result)
}

fn avg(c: &mut WindowContext<'_>, s: &Samples<'_>) -> Option<Value> {
    if mixed(c, s) {
        return None;
    }
    if s.histogram_count() == 0 {
        return Some(Value::Float(avg_floats(s.values)));
    }
    let histograms = s.only_histograms().values;
    let mut notes = AdditionNotes::default();
    let result = avg_histograms(&histograms, &mut notes);
    histogram_result(c, &notes, result)
}

fn avg_histograms(
    histograms: &[&Arc<Histogram>],
    notes: &mut AdditionNotes,
) -> Result<Histogram, IncompatibleSchemas> {
    let mut sum = (**histograms[0]).clone();
    notes.hint(&sum);
    let mut comp: Option<Histogram> = None;
    let mut mean: Option<Histogram> = None;
    let mut count = 1.0;
    for (i, h) in histograms.iter().enumerate().skip(1) {
        notes.hint(h);
        count = (i + 1) as f64;
        if mean.is_none() {
            let (mut next, mut next_comp) = (sum.clone(), comp.clone());
            let done = next.kahan_add(h, &mut next_comp)?;
            notes.combined(done);
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
        notes.combined(done);
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

/// Quantiles of all windows from one sorted window that slides. A φ outside 0 to 1 is remarked on, which is
/// left to the other way.
fn sliding_quantile(w: &SeriesWindows<'_>, out: &mut Column) -> bool {
    let q = |step: usize| w.scalars(step)[0];
    if !(0..w.windows.len()).all(|step| (0.0..=1.0).contains(&q(step))) {
        return false;
    }
    let mut sorted = SortedWindow::default();
    for (step, &(from, to)) in w.windows.iter().enumerate().filter(|(_, (from, to))| from < to) {
        // Sorting takes longer than looking.
        if w.meter.stop(4 * (to - from) as usize) {
            break;
        }
        let values = sorted.move_to(w.values, from as usize, to as usize);
        out.set_float(step, quantile_of_sorted(q(step), values.len(), |i| values[i]));
    }
    true
}

/// The median of the distances from the median, of all windows: sorted, the distances run outwards from it on
/// both sides.
fn sliding_mad(w: &SeriesWindows<'_>, out: &mut Column) -> bool {
    let mut sorted = SortedWindow::default();
    for (step, &(from, to)) in w.windows.iter().enumerate().filter(|(_, (from, to))| from < to) {
        // Sorting takes longer than looking.
        if w.meter.stop(4 * (to - from) as usize) {
            break;
        }
        let values = sorted.move_to(w.values, from as usize, to as usize);
        let n = values.len();
        let mad = if values[0].is_nan() {
            f64::NAN
        } else {
            let median = quantile_of_sorted(0.5, n, |i| values[i]);
            if median.is_finite() {
                let below = values.partition_point(|v| *v < median);
                let (left, right) = (&values[..below], &values[below..]);
                quantile_of_sorted(0.5, n, |k| nth_distance(left, right, median, k))
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

/// Welford's method with compensated steps, several windows at once. A sliding form (take the oldest out, put
/// the newest in) has other last digits than a fresh one and drifts, and upstream's digits are the right
/// ones: so each window is computed anew.
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
