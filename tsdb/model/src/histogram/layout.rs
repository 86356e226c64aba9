//! Which buckets are written down: spans, compaction, coarser schemas.

use super::bounds::coarser_index;
use super::buckets::Indexed;
use super::{BucketSpan, CounterResetHint, Histogram};

/// Exponential and custom buckets do not mix, and no schema can be refined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot apply this operation on histograms with a mix of exponential and custom bucket schemas")]
pub struct IncompatibleSchemas;

/// One side being built from ascending indices: spans grow as counts come.
#[derive(Default)]
pub struct Side {
    pub spans: Vec<BucketSpan>,
    pub counts: Vec<f64>,
    next_index: i64,
}

impl Side {
    pub fn with_capacity(n: usize) -> Self {
        Side { counts: Vec::with_capacity(n), ..Side::default() }
    }

    /// Appends a bucket behind all others; the same index again adds to the last bucket.
    pub fn push(&mut self, index: i32, count: f64) {
        let gap = i64::from(index) - self.next_index;
        match self.spans.last_mut() {
            Some(_) if gap < 0 => {
                *self.counts.last_mut().expect("a span has a bucket") += count;
                return;
            }
            Some(last) if gap == 0 => last.length += 1,
            // Two indices are never further apart than the integers are wide; clamped for the one case at
            // their very ends.
            _ => self
                .spans
                .push(BucketSpan { offset: gap.clamp(i32::MIN.into(), i32::MAX.into()) as i32, length: 1 }),
        }
        self.counts.push(count);
        self.next_index = i64::from(index) + 1;
    }
}

/// Whether two span lists say the same layout; spans of length 0 only move what follows.
pub fn spans_match(a: &[BucketSpan], b: &[BucketSpan]) -> bool {
    fn settled(spans: &[BucketSpan]) -> impl Iterator<Item = (i64, u32)> + '_ {
        let mut moved = 0i64;
        spans.iter().filter_map(move |s| {
            moved += i64::from(s.offset);
            (s.length > 0).then(|| (std::mem::take(&mut moved), s.length))
        })
    }
    settled(a).eq(settled(b))
}

/// Drops empty buckets, except runs of at most `max_empty` between populated ones, which are written down as
/// zeros.
pub fn compacted(spans: &[BucketSpan], counts: &[f64], max_empty: usize) -> Side {
    let mut side = Side::with_capacity(counts.len());
    for (index, count) in Indexed::new(spans, counts).filter(|(_, c)| *c != 0.0) {
        let gap = i64::from(index) - side.next_index;
        if !side.counts.is_empty() && gap > 0 && gap as u64 <= max_empty as u64 {
            for missing in side.next_index..i64::from(index) {
                side.push(missing as i32, 0.0);
            }
        }
        side.push(index, count);
    }
    side
}

/// The observations of one side in a schema `by` steps coarser.
pub fn coarsened(spans: &[BucketSpan], counts: &[f64], by: u32) -> Side {
    let mut side = Side::with_capacity(counts.len());
    for (index, count) in Indexed::new(spans, counts) {
        side.push(coarser_index(index, by), count);
    }
    side
}

impl Histogram {
    /// Drops empty buckets; runs of at most `max_empty` of them between populated buckets stay (and are
    /// filled in where they were left out), because a zero costs less than a span. Use 0 unless that is
    /// measured.
    pub fn compact(&mut self, max_empty: usize) -> &mut Self {
        for (spans, counts) in [
            (&mut self.positive_spans, &mut self.positive_buckets),
            (&mut self.negative_spans, &mut self.negative_buckets),
        ] {
            let tight = counts.iter().all(|c| *c != 0.0)
                && spans.iter().all(|s| s.length > 0 && i64::from(s.offset) > max_empty as i64);
            if !tight {
                let side = compacted(spans, counts, max_empty);
                (*spans, *counts) = (side.spans, side.counts);
            }
        }
        self
    }

    /// A copy in a coarser (or the same) exponential schema. Refused for custom buckets and for a finer
    /// schema.
    pub fn copy_to_schema(&self, schema: i32) -> Result<Histogram, IncompatibleSchemas> {
        if schema == self.schema {
            return Ok(self.clone());
        }
        if self.uses_custom_buckets() || schema == super::CUSTOM_BUCKETS_SCHEMA || schema > self.schema {
            return Err(IncompatibleSchemas);
        }
        let by = self.schema.abs_diff(schema);
        let positive = coarsened(&self.positive_spans, &self.positive_buckets, by);
        let negative = coarsened(&self.negative_spans, &self.negative_buckets, by);
        Ok(Histogram {
            counter_reset_hint: CounterResetHint::Unknown,
            schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count,
            count: self.count,
            sum: self.sum,
            positive_spans: positive.spans,
            positive_buckets: positive.counts,
            negative_spans: negative.spans,
            negative_buckets: negative.counts,
            custom_values: None,
        })
    }

    /// Lowers the resolution in place, the counter reset hint kept: what a receiver does with schemas finer
    /// than it stores.
    pub fn reduce_resolution(&mut self, schema: i32) -> Result<(), IncompatibleSchemas> {
        let hint = self.counter_reset_hint;
        *self = self.copy_to_schema(schema)?;
        self.counter_reset_hint = hint;
        Ok(())
    }
}
