//! Buckets with their bounds, one by one.

use super::bounds::bucket_bound;
use super::{BucketSpan, Histogram};

/// One bucket: its interval and how many observations fell into it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    pub lower: f64,
    pub upper: f64,
    pub lower_inclusive: bool,
    pub upper_inclusive: bool,
    pub count: f64,
    /// Within the schema and sign; 0 and meaningless for the zero bucket.
    pub index: i32,
}

impl Bucket {
    /// The share of the bucket's width at or below `v`, for `v` strictly inside finite bounds: linear for
    /// custom buckets and the zero bucket, otherwise on a logarithmic scale, on which exponential buckets
    /// have equal widths.
    pub fn fraction_below(&self, v: f64, linear: bool) -> f64 {
        if linear {
            return (v - self.lower) / (self.upper - self.lower);
        }
        let log_lower = self.lower.abs().log2();
        let log_upper = self.upper.abs().log2();
        let log_v = v.abs().log2();
        if v > 0.0 {
            (log_v - log_lower) / (log_upper - log_lower)
        } else {
            1.0 - (log_v - log_upper) / (log_lower - log_upper)
        }
    }
}

/// Walks spans and counts together: `(index, count)`, ascending by index. Ends at the shorter of the two.
#[derive(Clone)]
pub struct Indexed<'a> {
    spans: std::slice::Iter<'a, BucketSpan>,
    counts: std::slice::Iter<'a, f64>,
    left_in_span: u32,
    next_index: i32,
}

impl<'a> Indexed<'a> {
    pub fn new(spans: &'a [BucketSpan], counts: &'a [f64]) -> Self {
        Indexed { spans: spans.iter(), counts: counts.iter(), left_in_span: 0, next_index: 0 }
    }
}

impl Iterator for Indexed<'_> {
    type Item = (i32, f64);

    fn next(&mut self) -> Option<(i32, f64)> {
        while self.left_in_span == 0 {
            let span = self.spans.next()?;
            // Spans come from outside: an index past the integers stays at their end instead of panicking.
            self.next_index = self.next_index.saturating_add(span.offset);
            self.left_in_span = span.length;
        }
        let count = *self.counts.next()?;
        let index = self.next_index;
        self.next_index = index.saturating_add(1);
        self.left_in_span -= 1;
        Some((index, count))
    }
}

/// The buckets of one side, from the zero bucket outward.
#[derive(Clone)]
pub struct Buckets<'a> {
    indexed: Indexed<'a>,
    schema: i32,
    custom_bounds: &'a [f64],
    positive: bool,
}

impl Iterator for Buckets<'_> {
    type Item = Bucket;

    fn next(&mut self) -> Option<Bucket> {
        let (index, count) = self.indexed.next()?;
        let outer = bucket_bound(index, self.schema, self.custom_bounds);
        let inner = bucket_bound(index.saturating_sub(1), self.schema, self.custom_bounds);
        let (lower, upper) = if self.positive { (inner, outer) } else { (-outer, -inner) };
        let custom = self.schema == super::CUSTOM_BUCKETS_SCHEMA;
        Some(Bucket {
            lower,
            upper,
            lower_inclusive: if custom { index == 0 } else { lower < 0.0 },
            upper_inclusive: custom || upper > 0.0,
            count,
            index,
        })
    }
}

impl Histogram {
    pub fn indexed_positive(&self) -> Indexed<'_> {
        Indexed::new(&self.positive_spans, &self.positive_buckets)
    }

    pub fn indexed_negative(&self) -> Indexed<'_> {
        Indexed::new(&self.negative_spans, &self.negative_buckets)
    }

    /// Positive buckets ascending, empty ones included.
    pub fn positive(&self) -> Buckets<'_> {
        Buckets {
            indexed: self.indexed_positive(),
            schema: self.schema,
            custom_bounds: self.custom_bounds(),
            positive: true,
        }
    }

    /// Negative buckets from zero downward, empty ones included.
    pub fn negative(&self) -> Buckets<'_> {
        Buckets { indexed: self.indexed_negative(), schema: self.schema, custom_bounds: &[], positive: false }
    }

    /// `[-zero_threshold, zero_threshold]`.
    pub fn zero_bucket(&self) -> Bucket {
        Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
            index: 0,
        }
    }

    /// All buckets from the lowest to the highest; the zero bucket only where it is populated. Buckets that
    /// reach into the zero bucket are cut off at its threshold.
    pub fn all_buckets(&self) -> Vec<Bucket> {
        let mut all: Vec<Bucket> =
            Vec::with_capacity(self.negative_buckets.len() + self.positive_buckets.len() + 1);
        all.extend(self.negative());
        all.reverse();
        let negative = all.len();
        if self.zero_count > 0.0 {
            all.push(self.zero_bucket());
        }
        let positive = all.len();
        all.extend(self.positive());
        for b in &mut all[..negative] {
            if b.upper < 0.0 && b.upper > -self.zero_threshold {
                b.upper = -self.zero_threshold;
            }
        }
        for b in &mut all[positive..] {
            if b.lower > 0.0 && b.lower < self.zero_threshold {
                b.lower = self.zero_threshold;
            }
        }
        all
    }
}
