//! PromQL's trim operators: only the observations below or above a value.

use super::{Bucket, Histogram};

/// Which observations stay.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Below,
    Above,
}

/// Which interpolation and mean a bucket uses.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Custom,
    Positive,
    Negative,
}

impl Histogram {
    /// Keeps the observations at or below `at` (`</`). The bucket that holds `at` is split by interpolation,
    /// and count and sum are estimated anew from the buckets that stay, each weighted by its middle. A
    /// histogram that loses nothing is left as it is.
    pub fn trim_upper(&mut self, at: f64) -> &mut Self {
        self.trim(at, Side::Below)
    }

    /// Keeps the observations above `at` (`>/`), see [`Histogram::trim_upper`].
    pub fn trim_lower(&mut self, at: f64) -> &mut Self {
        self.trim(at, Side::Above)
    }

    fn trim(&mut self, at: f64, keep: Side) -> &mut Self {
        let custom = self.uses_custom_buckets();
        let (mut count, mut sum, mut trimmed) = (0.0, 0.0, false);
        let mut populated = [false, false];
        for (side, positive) in [true, false].into_iter().enumerate() {
            let shape = match (custom, positive) {
                (true, _) => Shape::Custom,
                (_, true) => Shape::Positive,
                (_, false) => Shape::Negative,
            };
            let buckets: Vec<Bucket> =
                if positive { self.positive().collect() } else { self.negative().collect() };
            let counts = if positive { &mut self.positive_buckets } else { &mut self.negative_buckets };
            for (b, slot) in buckets.iter().zip(counts).filter(|(b, _)| b.count != 0.0) {
                populated[side] = true;
                let (whole, split) = match keep {
                    Side::Below => (b.upper <= at, b.lower < at),
                    Side::Above => (b.lower >= at, b.upper > at),
                };
                if whole {
                    count += b.count;
                    sum += middle(b.lower, b.upper, shape) * b.count;
                } else if split {
                    let (kept, mid) = split_bucket(b, at, keep, shape);
                    count += kept;
                    sum += mid * kept;
                    trimmed |= *slot != kept;
                    *slot = kept;
                } else {
                    *slot = 0.0;
                    trimmed = true;
                }
            }
        }
        if self.zero_count > 0.0 {
            let (kept, mid) = split_zero_bucket(&self.zero_bucket(), at, keep, populated);
            trimmed |= self.zero_count != kept;
            self.zero_count = kept;
            sum += mid * kept;
            count += kept;
        }
        if trimmed {
            (self.count, self.sum) = (count, sum);
            self.compact(0);
        }
        self
    }
}

/// What stays of a bucket that holds the trim point, and its middle.
fn split_bucket(b: &Bucket, at: f64, keep: Side, shape: Shape) -> (f64, f64) {
    if b.lower == f64::NEG_INFINITY || b.upper == f64::INFINITY {
        return split_unbounded(b, at, keep);
    }
    let below = if at <= b.lower {
        0.0
    } else if at >= b.upper {
        b.count
    } else {
        b.count * b.fraction_below(at, shape == Shape::Custom)
    };
    match keep {
        Side::Below => (below, middle(b.lower, at, shape)),
        Side::Above => (b.count - below, middle(at, b.upper, shape)),
    }
}

/// A bucket without end has no known distribution: it stays whole or goes whole, but for the first custom
/// bucket when it ends above zero, which is then taken to start at zero.
fn split_unbounded(b: &Bucket, at: f64, keep: Side) -> (f64, f64) {
    let finite_or_zero = |v: f64| if v.is_infinite() { 0.0 } else { v };
    if b.lower == f64::NEG_INFINITY {
        let from_zero = b.upper > 0.0 && b.upper != f64::INFINITY;
        return match keep {
            Side::Below if at >= b.upper => (b.count, 0.0),
            Side::Below if at > 0.0 && from_zero => (b.count * at / b.upper, at / 2.0),
            Side::Below if b.upper <= 0.0 => (b.count, at),
            Side::Above if at <= b.lower => (b.count, 0.0),
            Side::Above if at >= 0.0 && b.upper > at && from_zero => {
                (b.count * (1.0 - at / b.upper), (at + b.upper) / 2.0)
            }
            _ => (0.0, finite_or_zero(b.upper)),
        };
    }
    match keep {
        Side::Above if at >= b.lower => (b.count, at),
        _ => (0.0, finite_or_zero(b.lower)),
    }
}

/// The zero bucket is linear, and lies on one side only where the other side has no observations.
/// `populated`: positive, negative.
fn split_zero_bucket(zero: &Bucket, at: f64, keep: Side, populated: [bool; 2]) -> (f64, f64) {
    let [positive, negative] = populated;
    let lower = if positive && !negative { 0.0 } else { zero.lower };
    let upper = if negative && !positive { 0.0 } else { zero.upper };
    let all = (zero.count, (lower + upper) / 2.0);
    match keep {
        Side::Below if at <= lower => (0.0, 0.0),
        Side::Below if at >= upper => all,
        Side::Below => (zero.count * ((at - lower) / (upper - lower)), (lower + at) / 2.0),
        Side::Above if at <= lower => all,
        Side::Above if at >= upper => (0.0, 0.0),
        Side::Above => (zero.count * ((upper - at) / (upper - lower)), (at + upper) / 2.0),
    }
}

/// The value that stands for all observations between two bounds: arithmetic for custom buckets, geometric
/// for exponential ones.
fn middle(lower: f64, upper: f64, shape: Shape) -> f64 {
    if lower.is_infinite() {
        return if upper.is_infinite() {
            0.0
        } else if upper > 0.0 {
            upper / 2.0
        } else {
            upper
        };
    }
    if upper.is_infinite() {
        return lower;
    }
    let geometric = (lower * upper).abs().sqrt();
    match shape {
        Shape::Custom => (lower + upper) / 2.0,
        Shape::Positive => geometric,
        Shape::Negative => -geometric,
    }
}
