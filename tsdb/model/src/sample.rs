//! One value at one time, and the bit pattern that says a series ended.

use std::sync::Arc;

use crate::histogram::Histogram;

/// The one NaN that means "this series is gone" (upstream `model/value.StaleNaN`). Compare bits, never values.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The NaN that upstream's arithmetic and text format produce (`model/value.NormalNaN`).
pub const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// The staleness marker as a number.
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether a value is the staleness marker, bit for bit.
#[inline]
pub fn is_stale(v: f64) -> bool {
    v.to_bits() == STALE_NAN_BITS
}

/// What a sample holds.
#[derive(Clone, Debug)]
pub enum Value {
    Float(f64),
    Histogram(Arc<Histogram>),
}

/// A value at a time; `ts_ms` is milliseconds since the Unix epoch.
#[derive(Clone, Debug)]
pub struct Sample {
    pub ts_ms: i64,
    pub value: Value,
}

/// What is known of a metric beside its samples: one entry per (metric name, type, help, unit).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Metadata {
    /// `counter`, `gauge`, `histogram`, `gaugehistogram`, `summary`, `info`, `stateset` or `unknown`.
    pub kind: String,
    pub help: String,
    pub unit: String,
}
