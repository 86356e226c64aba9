//! The native histogram: sparse exponential or custom buckets, as a sample's value.

mod arithmetic;
mod bounds;
mod buckets;
mod classic;
mod integer;
mod layout;
#[cfg(test)]
mod properties;
mod reset;
mod text;
mod trim;
mod validity;

use std::sync::Arc;

pub use arithmetic::{Combined, compensated_add};
pub use bounds::{bucket_bound, exponential_bound};
pub use buckets::{Bucket, Buckets};
pub use classic::{ClassicHistogram, NotAHistogram};
pub use integer::{IntegerHistogram, absolute_counts};
pub use layout::IncompatibleSchemas;
pub use text::format_g;
pub use validity::InvalidHistogram;

/// Schema number of histograms whose bounds are listed in `custom_values`.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// Coarsest and finest exponential schema that is stored and computed with.
pub const EXPONENTIAL_SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// What the histogram before this one means for `rate` and its kin (upstream
/// `model/histogram.CounterResetHint`).
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

/// A native histogram with floating-point counts, absolute (never delta) per bucket, as upstream's
/// `FloatHistogram`. Integer histograms are turned into it when they arrive: every count up to 2^53 is exact.
///
/// What can be done with one follows upstream's `model/histogram/float_histogram.go`: [`Histogram::add`] and
/// its kin, [`Histogram::detect_reset`], [`Histogram::compact`], `trim`. All of them take any input without a
/// panic, one that [`Histogram::validate`] refuses included.
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
    /// Upper bounds, ascending, `+Inf` implied; empty unless the schema is [`CUSTOM_BUCKETS_SCHEMA`]. Shared:
    /// a series rarely changes them.
    pub custom_values: Option<Arc<[f64]>>,
}

impl Histogram {
    /// A histogram's staleness marker is the bit-exact stale NaN in its sum.
    pub fn is_stale(&self) -> bool {
        crate::stale::is_stale(self.sum)
    }

    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// The custom upper bounds, empty where there are none.
    pub fn custom_bounds(&self) -> &[f64] {
        self.custom_values.as_deref().unwrap_or(&[])
    }

    /// Whether any count, the sum or a bound is infinite.
    pub fn has_overflow(&self) -> bool {
        [self.zero_count, self.count, self.sum].iter().any(|v| v.is_infinite())
            || self.positive_buckets.iter().chain(&self.negative_buckets).any(|v| v.is_infinite())
            || self.custom_bounds().iter().any(|v| v.is_infinite())
    }

    /// Bytes this value stands for in a query's sample budget; upstream's `FloatHistogram.Size`, so that
    /// limits count alike.
    pub fn size_bytes(&self) -> usize {
        let elements = self.positive_spans.len()
            + self.negative_spans.len()
            + self.positive_buckets.len()
            + self.negative_buckets.len()
            + self.custom_bounds().len();
        168 + 8 * elements
    }

    /// Whether two histograms are the same data: same layout (spans of length 0 aside) and the same bits in
    /// every number. The counter reset hint does not count.
    pub fn equals(&self, other: &Histogram) -> bool {
        let same_bits = |a: f64, b: f64| a.to_bits() == b.to_bits();
        let same_counts =
            |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_bits(*a, *b));
        self.schema == other.schema
            && same_bits(self.count, other.count)
            && same_bits(self.sum, other.sum)
            && (!self.uses_custom_buckets() || self.custom_bounds() == other.custom_bounds())
            && self.zero_threshold == other.zero_threshold
            && same_bits(self.zero_count, other.zero_count)
            && layout::spans_match(&self.negative_spans, &other.negative_spans)
            && same_counts(&self.negative_buckets, &other.negative_buckets)
            && layout::spans_match(&self.positive_spans, &other.positive_spans)
            && same_counts(&self.positive_buckets, &other.positive_buckets)
    }
}
