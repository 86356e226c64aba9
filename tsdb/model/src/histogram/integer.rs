//! Histograms as clients send them: whole counts, each bucket as the difference to the one before.

use std::sync::Arc;

use super::validity::{InvalidHistogram, check_counts, check_shape};
use super::{BucketSpan, CounterResetHint, Histogram};

/// Upstream's integer `Histogram`: fields as in [`Histogram`], the first bucket of each side absolute, the
/// others deltas.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IntegerHistogram {
    pub counter_reset_hint: CounterResetHint,
    pub schema: i32,
    pub zero_threshold: f64,
    pub zero_count: u64,
    pub count: u64,
    pub sum: f64,
    pub positive_spans: Vec<BucketSpan>,
    pub negative_spans: Vec<BucketSpan>,
    pub positive_deltas: Vec<i64>,
    pub negative_deltas: Vec<i64>,
    pub custom_values: Option<Arc<[f64]>>,
}

/// Running sums of deltas, as counts.
pub fn absolute_counts(deltas: &[i64]) -> Vec<f64> {
    let mut count = 0i64;
    deltas
        .iter()
        .map(|d| {
            count = count.wrapping_add(*d);
            count as f64
        })
        .collect()
}

impl IntegerHistogram {
    /// The float histogram of the same observations. Fields that the schema has no use for are left out.
    pub fn to_float(&self) -> Histogram {
        let custom = self.schema == super::CUSTOM_BUCKETS_SCHEMA;
        Histogram {
            counter_reset_hint: self.counter_reset_hint,
            schema: self.schema,
            zero_threshold: if custom { 0.0 } else { self.zero_threshold },
            zero_count: if custom { 0.0 } else { self.zero_count as f64 },
            count: self.count as f64,
            sum: self.sum,
            positive_spans: self.positive_spans.clone(),
            positive_buckets: absolute_counts(&self.positive_deltas),
            negative_spans: if custom { Vec::new() } else { self.negative_spans.clone() },
            negative_buckets: if custom { Vec::new() } else { absolute_counts(&self.negative_deltas) },
            custom_values: if custom { self.custom_values.clone() } else { None },
        }
    }

    /// As [`Histogram::validate`], and stricter: the count must be the buckets' total (or, where the sum is
    /// NaN, at least that, because an observed NaN is counted in no bucket).
    pub fn validate(&self) -> Result<(), InvalidHistogram> {
        let positive = absolute_counts(&self.positive_deltas);
        let negative = absolute_counts(&self.negative_deltas);
        check_shape(
            self.schema,
            self.custom_values.as_deref(),
            (self.zero_count as f64, self.zero_threshold),
            (&self.positive_spans, positive.len()),
            (&self.negative_spans, negative.len()),
        )?;
        check_counts(&negative, "negative")?;
        check_counts(&positive, "positive")?;
        let mut in_buckets = u128::from(self.zero_count);
        for deltas in [&self.positive_deltas, &self.negative_deltas] {
            let mut count = 0i64;
            for d in deltas.iter() {
                count = count.wrapping_add(*d);
                in_buckets += count as u128;
            }
        }
        let count = u128::from(self.count);
        if self.sum.is_nan() && in_buckets > count {
            return Err(InvalidHistogram(format!(
                "{in_buckets} observations found in buckets, but the Count field is {count}: \
                 histogram's observation count should be at least the number of observations found in the buckets"
            )));
        }
        if !self.sum.is_nan() && in_buckets != count {
            return Err(InvalidHistogram(format!(
                "{in_buckets} observations found in buckets, but the Count field is {count}: \
                 histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)"
            )));
        }
        Ok(())
    }
}
