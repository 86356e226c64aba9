//! Functions that look at one value at a time.

use model::sample::Value;

use super::kernel::{Entry, Kernel};
use super::math::{clamp, round_to};
use super::quantile::histogram_variance;
use crate::column::Point;

const fn math(name: &'static str, f: fn(f64) -> f64) -> Entry {
    Entry { name, kernel: Kernel::Math(f) }
}

const fn element(name: &'static str, run: super::kernel::ElementFn) -> Entry {
    Entry { name, kernel: Kernel::Element(run) }
}

pub static TABLE: &[Entry] = &[
    math("abs", f64::abs),
    math("acos", f64::acos),
    math("acosh", f64::acosh),
    math("asin", f64::asin),
    math("asinh", f64::asinh),
    math("atan", f64::atan),
    math("atanh", f64::atanh),
    math("ceil", f64::ceil),
    math("cos", f64::cos),
    math("cosh", f64::cosh),
    math("deg", |v| v * 180.0 / std::f64::consts::PI),
    math("exp", f64::exp),
    math("floor", f64::floor),
    math("ln", f64::ln),
    math("log10", f64::log10),
    math("log2", f64::log2),
    math("rad", |v| v * std::f64::consts::PI / 180.0),
    math("sgn", super::math::sign),
    math("sin", f64::sin),
    math("sinh", f64::sinh),
    math("sqrt", f64::sqrt),
    math("tan", f64::tan),
    math("tanh", f64::tanh),
    element("clamp", |e, p| clamped(p, e.scalars[0], e.scalars[1])),
    element("clamp_max", |e, p| clamped(p, f64::NEG_INFINITY, e.scalars[0])),
    element("clamp_min", |e, p| clamped(p, e.scalars[0], f64::INFINITY)),
    element("round", |e, p| {
        float(p).map(|v| Value::Float(round_to(v, e.scalars.first().copied().unwrap_or(1.0))))
    }),
    element("histogram_count", |_, p| histogram(p, |h| h.count)),
    element("histogram_sum", |_, p| histogram(p, |h| h.sum)),
    element("histogram_avg", |_, p| histogram(p, |h| h.sum / h.count)),
    element("histogram_stdvar", |_, p| histogram(p, histogram_variance)),
    element("histogram_stddev", |_, p| histogram(p, |h| histogram_variance(h).sqrt())),
];

fn float(p: Point<'_>) -> Option<f64> {
    match p {
        Point::Float(v) => Some(v),
        Point::Histogram(_) => None,
    }
}

fn histogram(p: Point<'_>, f: impl Fn(&model::histogram::Histogram) -> f64) -> Option<Value> {
    match p {
        Point::Float(_) => None,
        Point::Histogram(h) => Some(Value::Float(f(h))),
    }
}

/// Nothing at all where the bounds are crossed.
fn clamped(p: Point<'_>, min: f64, max: f64) -> Option<Value> {
    if max < min {
        return None;
    }
    float(p).map(|v| Value::Float(clamp(v, min, max)))
}
