//! Where a gauge is going: `deriv`, `predict_linear`, `double_exponential_smoothing`.

use tsdb::histogram::compensated_add;
use tsdb::sample::Value;

use super::lanes::{self, Lanes};
use super::{Entry, Run, Samples, SeriesWindows, Window, WindowContext};
use crate::eval::frame::Column;

pub const ENTRIES: &[Entry] = &[
    window("deriv", deriv, derivatives),
    window("predict_linear", predict_linear, predictions),
    window("double_exponential_smoothing", smoothing, smoothings),
];

const fn window(name: &'static str, run: super::WindowFn, kernel: super::Kernel) -> Entry {
    Entry { name, run: Run::Window(Window { keeps_name: false, run, kernel: Some(kernel) }) }
}

/// The floats of a window, two at least; histograms beside one or more floats are remarked on.
fn two_floats<'a>(c: &mut WindowContext<'_>, s: &Samples<'a>) -> Option<super::Floats<'a>> {
    let floats = s.floats();
    if !floats.values.is_empty() && floats.values.len() < s.len() {
        let text = format!(
            "ignored histograms in a range containing both floats and histograms for metric name {}",
            c.quoted_name()
        );
        c.notes.info(c.span(), text);
    }
    (floats.values.len() >= 2).then_some(floats)
}

/// Least squares with compensated sums: slope per second, and the value at `intercept_t_ms`.
fn regression(ts_ms: &[i64], values: &[f64], intercept_t_ms: i64) -> (f64, f64) {
    let first = values[0];
    if values.iter().all(|v| *v == first) || values.len() == 1 {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let n = values.len() as f64;
    let mut x = (0.0, 0.0);
    let mut y = (0.0, 0.0);
    let mut xy = (0.0, 0.0);
    let mut xx = (0.0, 0.0);
    let add = |sum: &mut (f64, f64), v: f64| *sum = compensated_add(v, sum.0, sum.1);
    for (t, v) in ts_ms.iter().zip(values) {
        let t = (t - intercept_t_ms) as f64 / 1e3;
        add(&mut x, t);
        add(&mut y, *v);
        add(&mut xy, t * v);
        add(&mut xx, t * t);
    }
    let (x, y, xy, xx) = (x.0 + x.1, y.0 + y.1, xy.0 + xy.1, xx.0 + xx.1);
    let slope = (xy - x * y / n) / (xx - x * x / n);
    (slope, y / n - slope * x / n)
}

/// The sums of a regression over several windows at once. What a window has is computed anew for it: sums that slide have other last
/// digits, and the times are counted from another moment in each.
#[derive(Clone, Copy)]
struct Regressions {
    x: [lanes::Value; 2],
    y: [lanes::Value; 2],
    xy: [lanes::Value; 2],
    xx: [lanes::Value; 2],
}

impl Lanes for Regressions {
    const TIMED: bool = true;

    fn add(&mut self, _: usize, values: &lanes::Value, times: &lanes::Value) {
        let add =
            |[sum, comp]: &mut [lanes::Value; 2], v: &lanes::Value| lanes::compensated_add(v, sum, comp);
        add(&mut self.x, times);
        add(&mut self.y, values);
        add(&mut self.xy, &std::array::from_fn(|l| times[l] * values[l]));
        add(&mut self.xx, &std::array::from_fn(|l| times[l] * times[l]));
    }
}

impl Regressions {
    const START: Regressions = {
        let zero = [lanes::ZERO; 2];
        Regressions { x: zero, y: zero, xy: zero, xx: zero }
    };

    /// As [`regression`], of one lane.
    fn line(&self, lane: usize, values: &[f64]) -> (f64, f64) {
        let first = values[0];
        if values.iter().all(|v| *v == first) {
            return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
        }
        let n = values.len() as f64;
        let of = |[sum, comp]: &[lanes::Value; 2]| sum[lane] + comp[lane];
        let (x, y, xy, xx) = (of(&self.x), of(&self.y), of(&self.xy), of(&self.xx));
        let slope = (xy - x * y / n) / (xx - x * x / n);
        (slope, y / n - slope * x / n)
    }
}

fn derivatives(w: &SeriesWindows<'_>, out: &mut Column) -> bool {
    let first = |_: usize, from: usize| w.ts_ms[from];
    lanes::windows(w, Regressions::START, first, |state, lane, step, values| {
        if values.len() >= 2 {
            out.set_float(step, state.line(lane, values).0);
        }
    });
    true
}

fn predictions(w: &SeriesWindows<'_>, out: &mut Column) -> bool {
    let now = |step: usize, _: usize| w.reach.steps.at(step);
    lanes::windows(w, Regressions::START, now, |state, lane, step, values| {
        if values.len() >= 2 {
            let (slope, now) = state.line(lane, values);
            out.set_float(step, slope * w.scalars(step)[0] + now);
        }
    });
    true
}

/// Holt's method in several windows at once.
#[derive(Clone, Copy)]
struct Smoothings {
    smoothing: f64,
    trend: f64,
    level: lanes::Value,
    before: lanes::Value,
    slope: lanes::Value,
}

impl Lanes for Smoothings {
    const TIMED: bool = false;

    fn add(&mut self, i: usize, values: &lanes::Value, _: &lanes::Value) {
        if i == 0 {
            self.level = *values;
            return;
        }
        let (smoothing, trend) = (self.smoothing, self.trend);
        for (l, v) in values.iter().enumerate() {
            self.slope[l] = match i {
                1 => v - self.level[l],
                _ => trend * (self.level[l] - self.before[l]) + (1.0 - trend) * self.slope[l],
            };
            let next = smoothing * v + (1.0 - smoothing) * (self.level[l] + self.slope[l]);
            self.before[l] = self.level[l];
            self.level[l] = next;
        }
    }
}

/// Factors that are out of bounds, or other ones at each step, are left to the other way.
fn smoothings(w: &SeriesWindows<'_>, out: &mut Column) -> bool {
    let factors = w.scalars(0);
    let good = |v: &f64| *v > 0.0 && *v < 1.0;
    if !factors.iter().all(good) || (0..w.windows.len()).any(|step| w.scalars(step) != factors) {
        return false;
    }
    let (level, before, slope) = (lanes::ZERO, lanes::ZERO, lanes::ZERO);
    let start = Smoothings { smoothing: factors[0], trend: factors[1], level, before, slope };
    lanes::windows(
        w,
        start,
        |_, _| 0,
        |state, lane, step, values| {
            if values.len() >= 2 {
                out.set_float(step, state.level[lane]);
            }
        },
    );
    true
}

fn deriv(c: &mut WindowContext<'_>, s: &Samples<'_>) -> Option<Value> {
    let f = two_floats(c, s)?;
    // A time near the samples keeps the numbers small.
    Some(Value::Float(regression(&f.ts_ms, &f.values, f.ts_ms[0]).0))
}

fn predict_linear(c: &mut WindowContext<'_>, s: &Samples<'_>) -> Option<Value> {
    let f = two_floats(c, s)?;
    let (slope, now) = regression(&f.ts_ms, &f.values, c.t_ms);
    Some(Value::Float(slope * c.scalars[0] + now))
}

/// Holt's linear method.
fn smoothing(c: &mut WindowContext<'_>, s: &Samples<'_>) -> Option<Value> {
    let (smoothing, trend) = (c.scalars[0], c.scalars[1]);
    // NaN passes, as it does upstream.
    if smoothing <= 0.0 || smoothing >= 1.0 {
        *c.error = Some(format!("invalid smoothing factor. Expected: 0 < sf < 1, got: {smoothing:.6}"));
        return None;
    }
    if trend <= 0.0 || trend >= 1.0 {
        *c.error = Some(format!("invalid trend factor. Expected: 0 < tf < 1, got: {trend:.6}"));
        return None;
    }
    let f = two_floats(c, s)?;
    let mut before = 0.0;
    let mut level = f.values[0];
    let mut slope = f.values[1] - f.values[0];
    for (i, v) in f.values.iter().enumerate().skip(1) {
        if i > 1 {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        let next = smoothing * v + (1.0 - smoothing) * (level + slope);
        before = level;
        level = next;
    }
    Some(Value::Float(level))
}
