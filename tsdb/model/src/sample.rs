//! One value at one time.

use std::sync::Arc;

use crate::histogram::Histogram;

pub use crate::stale::{NORMAL_NAN_BITS, STALE_NAN_BITS, is_stale, stale_nan};

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
