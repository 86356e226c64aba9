//! The native histogram: sparse exponential or custom buckets, as a sample's value.

use std::sync::Arc;

/// Schema number of histograms whose bounds are listed in `custom_values`.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// What the histogram before this one means for `rate` and its kin (upstream `model/histogram.CounterResetHint`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub enum CounterResetHint {
    /// Compare with the one before to find out.
    #[default]
    Unknown,
    /// The counter was reset between the one before and this.
    CounterReset,
    /// It was not.
    NotCounterReset,
    /// A gauge: resets have no meaning.
    Gauge,
}

/// A run of consecutive buckets: `offset` from the end of the run before (from bucket 0 for the first).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct BucketSpan {
    pub offset: i32,
    pub length: u32,
}

/// A native histogram with floating-point counts, absolute (never delta) per bucket, as upstream's `FloatHistogram`.
/// Integer histograms are turned into it when they arrive: every count up to 2^53 is exact.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    pub counter_reset_hint: CounterResetHint,
    /// -4 to 8: bucket i ends at `2^(i * 2^-schema)`; [`CUSTOM_BUCKETS_SCHEMA`]: at `custom_values[i]`.
    pub schema: i32,
    pub zero_threshold: f64,
    pub zero_count: f64,
    pub count: f64,
    pub sum: f64,
    pub positive_spans: Vec<BucketSpan>,
    pub negative_spans: Vec<BucketSpan>,
    pub positive_buckets: Vec<f64>,
    pub negative_buckets: Vec<f64>,
    /// Upper bounds, ascending, `+Inf` implied; empty unless the schema is [`CUSTOM_BUCKETS_SCHEMA`]. Shared: a series rarely changes them.
    pub custom_values: Option<Arc<[f64]>>,
}

impl Histogram {
    /// A histogram's staleness marker is the bit-exact stale NaN in its sum.
    pub fn is_stale(&self) -> bool {
        crate::sample::is_stale(self.sum)
    }
}
