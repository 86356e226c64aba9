//! Where a gauge is going: `deriv`, `predict_linear`, `double_exponential_smoothing`.

use model::histogram::compensated_add;
use model::sample::Value;

use super::kernel::{Entry, Kernel, Samples, Window, WindowContext};

pub const ENTRIES: &[Entry] = &[
    window("deriv", deriv),
    window("predict_linear", predict_linear),
    window("double_exponential_smoothing", smoothing),
];

const fn window(name: &'static str, run: super::kernel::WindowFn) -> Entry {
    Entry { name, kernel: Kernel::Window(Window { keeps_name: false, run, series: None }) }
}

/// The floats of a window, two at least; histograms beside one or more floats are remarked on.
fn two_floats<'a>(c: &mut WindowContext<'_>, s: &Samples<'a>) -> Option<super::kernel::Floats<'a>> {
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
