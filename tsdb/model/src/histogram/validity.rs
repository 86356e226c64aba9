//! Which histograms may be stored.

use super::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, EXPONENTIAL_SCHEMAS, Histogram};

/// What is wrong with a histogram, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidHistogram(pub String);

fn invalid(text: impl Into<String>) -> InvalidHistogram {
    InvalidHistogram(text.into())
}

/// Everything but the counts: schema, bounds, spans against the number of buckets. `zero` is count and
/// threshold.
pub fn check_shape(
    schema: i32,
    custom_values: Option<&[f64]>,
    zero: (f64, f64),
    positive: (&[BucketSpan], usize),
    negative: (&[BucketSpan], usize),
) -> Result<(), InvalidHistogram> {
    if schema == CUSTOM_BUCKETS_SCHEMA {
        check_custom(custom_values.unwrap_or(&[]), positive.0, positive.1)
            .map_err(|e| invalid(format!("custom buckets: {e}")))?;
        return match () {
            () if zero.0 != 0.0 => Err(invalid("custom buckets: must have zero count of 0")),
            () if zero.1 != 0.0 => Err(invalid("custom buckets: must have zero threshold of 0")),
            () if !negative.0.is_empty() => Err(invalid("custom buckets: must not have negative spans")),
            () if negative.1 > 0 => Err(invalid("custom buckets: must not have negative buckets")),
            () => Ok(()),
        };
    }
    if !EXPONENTIAL_SCHEMAS.contains(&schema) {
        return Err(invalid(format!(
            "histogram has an invalid schema, which must be between {} and {} for exponential buckets, \
             or {CUSTOM_BUCKETS_SCHEMA} for custom buckets, got schema {schema}",
            EXPONENTIAL_SCHEMAS.start(),
            EXPONENTIAL_SCHEMAS.end(),
        )));
    }
    for (side, (spans, buckets)) in [("positive", positive), ("negative", negative)] {
        check_spans(spans, buckets, 1).map_err(|e| invalid(format!("{side} side: {e}")))?;
    }
    if custom_values.is_some() {
        return Err(invalid("histogram with exponential schema must not have custom bounds"));
    }
    Ok(())
}

/// Spans from number `from` on may not go backwards, and their lengths must add up. Returns the reach of all
/// spans.
fn check_spans(spans: &[BucketSpan], buckets: usize, from: usize) -> Result<u64, InvalidHistogram> {
    let (mut length, mut reach) = (0u64, 0u64);
    for (n, span) in spans.iter().enumerate() {
        if n >= from && span.offset < 0 {
            return Err(invalid(format!(
                "span number {} with offset {}: histogram has a span whose offset is negative",
                n + 1,
                span.offset
            )));
        }
        length += u64::from(span.length);
        reach += u64::from(span.length) + u64::from(span.offset.max(0).unsigned_abs());
    }
    if length != buckets as u64 {
        return Err(invalid(format!(
            "spans need {length} buckets, have {buckets} buckets: \
             histogram spans specify different number of buckets than provided"
        )));
    }
    Ok(reach)
}

fn check_custom(bounds: &[f64], spans: &[BucketSpan], buckets: usize) -> Result<(), InvalidHistogram> {
    let mut previous = f64::NEG_INFINITY;
    for (i, bound) in bounds.iter().enumerate() {
        if bound.is_nan() {
            return Err(invalid("histogram custom bounds must not be NaN"));
        }
        if i > 0 && *bound <= previous {
            return Err(invalid(format!(
                "previous bound is {previous:.6} and current is {bound:.6}: \
                 histogram custom bounds must be in strictly increasing order"
            )));
        }
        previous = *bound;
    }
    if previous == f64::INFINITY {
        return Err(invalid(
            "last +Inf bound must not be explicitly defined: histogram custom bounds must be finite",
        ));
    }
    let reach = check_spans(spans, buckets, 0)?;
    if bounds.len() as u64 + 1 < reach {
        return Err(invalid(format!(
            "only {} custom bounds defined which is insufficient to cover total span length of {reach}: \
             histogram custom bounds are too few",
            bounds.len()
        )));
    }
    Ok(())
}

pub fn check_counts(counts: &[f64], side: &str) -> Result<(), InvalidHistogram> {
    match counts.iter().position(|c| *c < 0.0) {
        None => Ok(()),
        Some(i) => Err(invalid(format!(
            "{side} side: bucket number {} has observation count of {}: \
             histogram has a bucket whose observation count is negative",
            i + 1,
            super::format_g(counts[i])
        ))),
    }
}

impl Histogram {
    /// Whether spans, buckets, bounds and schema fit each other and no count is negative. Counts of buckets
    /// are not held against the total: rounding makes that unreliable with floats.
    pub fn validate(&self) -> Result<(), InvalidHistogram> {
        check_shape(
            self.schema,
            self.custom_values.as_deref(),
            (self.zero_count, self.zero_threshold),
            (&self.positive_spans, self.positive_buckets.len()),
            (&self.negative_spans, self.negative_buckets.len()),
        )?;
        check_counts(&self.negative_buckets, "negative")?;
        if self.zero_count < 0.0 {
            return Err(invalid(format!(
                "zero bucket has observation count of {}: histogram has a bucket whose observation count is negative",
                super::format_g(self.zero_count)
            )));
        }
        if self.count < 0.0 {
            return Err(invalid(format!(
                "observation count is {}: histogram's observation count is negative",
                super::format_g(self.count)
            )));
        }
        check_counts(&self.positive_buckets, "positive")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_validity_refuses_in_upstreams_words() {
        let mut h = Histogram { schema: 9, ..Histogram::default() };
        assert!(h.validate().unwrap_err().0.contains("between -4 and 8 for exponential buckets, or -53"));
        h.schema = 0;
        assert_eq!(h.validate(), Ok(()));
        h.positive_spans = vec![BucketSpan { offset: 0, length: 2 }];
        h.positive_buckets = vec![1.0];
        assert!(
            h.validate().unwrap_err().0.starts_with("positive side: spans need 2 buckets, have 1 buckets")
        );
        h.positive_buckets = vec![1.0, -1.0];
        assert!(
            h.validate()
                .unwrap_err()
                .0
                .starts_with("positive side: bucket number 2 has observation count of -1")
        );
        let mut custom = Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            custom_values: Some([1.0, 1.0].into()),
            ..Histogram::default()
        };
        assert!(custom.validate().unwrap_err().0.ends_with("must be in strictly increasing order"));
        custom.custom_values = Some([1.0, 2.0].into());
        custom.positive_spans = vec![BucketSpan { offset: 1, length: 3 }];
        custom.positive_buckets = vec![1.0; 3];
        assert!(custom.validate().unwrap_err().0.contains("insufficient to cover total span length of 4"));
    }
}
