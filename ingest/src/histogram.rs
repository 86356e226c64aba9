//! A native histogram off the wire: the message that remote write 1.0 and 2.0 share, its checks, and the way to absolute counts.

use std::sync::Arc;

use tsdb::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Histogram};

use crate::limits::Limits;
use crate::wire::{BYTES, FIXED64, Fault, Reader, VARINT, key, unzigzag};

/// Finest resolution that is kept. Finer ones, up to [`FINEST_KNOWN_SCHEMA`], are reduced to it, as upstream does.
const FINEST_SCHEMA: i32 = 8;
const FINEST_KNOWN_SCHEMA: i32 = 52;
const COARSEST_SCHEMA: i32 = -4;

/// One histogram sample: its time, and what it says or why it cannot be true.
#[derive(Debug)]
pub(crate) struct HistogramSample {
    pub(crate) ts_ms: i64,
    /// 0 where unknown; 2.0 only.
    pub(crate) start_ts_ms: i64,
    pub(crate) value: Result<Histogram, String>,
}

/// A count that is either whole or a float; of the two fields the last one on the wire wins.
#[derive(Clone, Copy)]
enum Count {
    Whole(u64),
    Float(f64),
}

/// One side's buckets as they came.
#[derive(Default)]
struct Side {
    spans: Vec<BucketSpan>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

/// Reads `prometheus.Histogram` or `io.prometheus.write.v2.Histogram`: the same fields, but for `start_timestamp` which only the latter has.
/// Wire faults are the request's end; contradictions in the histogram only its own.
pub(crate) fn read(mut r: Reader<'_>, limits: &Limits) -> Result<HistogramSample, Fault> {
    let mut count = None;
    let mut zero_count = Count::Whole(0);
    let (mut sum, mut zero_threshold) = (0.0, 0.0);
    let (mut schema, mut hint) = (0i32, 0u32);
    let (mut ts_ms, mut start_ts_ms) = (0i64, 0i64);
    let (mut negative, mut positive) = (Side::default(), Side::default());
    let mut bounds: Vec<f64> = Vec::new();
    let max = limits.max_histogram_buckets;
    let mut too_many = false;
    while !r.is_empty() {
        match r.key()? {
            K_COUNT_INT => count = Some(Count::Whole(r.varint()?)),
            K_COUNT_FLOAT => count = Some(Count::Float(r.double()?)),
            K_SUM => sum = r.double()?,
            K_SCHEMA => schema = unzigzag(u64::from(r.varint()? as u32)) as i32,
            K_ZERO_THRESHOLD => zero_threshold = r.double()?,
            K_ZERO_INT => zero_count = Count::Whole(r.varint()?),
            K_ZERO_FLOAT => zero_count = Count::Float(r.double()?),
            K_NEGATIVE_SPAN => push(&mut negative.spans, span(r.message()?)?, max, &mut too_many),
            K_POSITIVE_SPAN => push(&mut positive.spans, span(r.message()?)?, max, &mut too_many),
            K_NEGATIVE_DELTAS => deltas(r.message()?, &mut negative.deltas, max, &mut too_many)?,
            K_POSITIVE_DELTAS => deltas(r.message()?, &mut positive.deltas, max, &mut too_many)?,
            K_NEGATIVE_DELTA => push(&mut negative.deltas, unzigzag(r.varint()?), max, &mut too_many),
            K_POSITIVE_DELTA => push(&mut positive.deltas, unzigzag(r.varint()?), max, &mut too_many),
            K_NEGATIVE_COUNTS => doubles(r.message()?, &mut negative.counts, max, &mut too_many)?,
            K_POSITIVE_COUNTS => doubles(r.message()?, &mut positive.counts, max, &mut too_many)?,
            K_CUSTOM_VALUES => doubles(r.message()?, &mut bounds, max, &mut too_many)?,
            K_NEGATIVE_COUNT => push(&mut negative.counts, r.double()?, max, &mut too_many),
            K_POSITIVE_COUNT => push(&mut positive.counts, r.double()?, max, &mut too_many),
            K_CUSTOM_VALUE => push(&mut bounds, r.double()?, max, &mut too_many),
            K_RESET_HINT => hint = r.varint()? as u32,
            K_TIMESTAMP => ts_ms = r.varint()? as i64,
            K_START_TIMESTAMP => start_ts_ms = r.varint()? as i64,
            other => r.skip(other, &KNOWN)?,
        }
    }
    let value = if too_many {
        Err(format!("more than {max} buckets or spans on one side (ingest.max_histogram_buckets)"))
    } else {
        // A histogram without any count is an integer one, as upstream has it.
        let raw = Raw {
            count: count.unwrap_or(Count::Whole(0)),
            zero_count,
            sum,
            schema,
            zero_threshold,
            hint,
            negative,
            positive,
            bounds,
        };
        raw.into_histogram()
    };
    Ok(HistogramSample { ts_ms, start_ts_ms, value })
}

const K_COUNT_INT: u32 = key(1, VARINT);
const K_COUNT_FLOAT: u32 = key(2, FIXED64);
const K_SUM: u32 = key(3, FIXED64);
const K_SCHEMA: u32 = key(4, VARINT);
const K_ZERO_THRESHOLD: u32 = key(5, FIXED64);
const K_ZERO_INT: u32 = key(6, VARINT);
const K_ZERO_FLOAT: u32 = key(7, FIXED64);
const K_NEGATIVE_SPAN: u32 = key(8, BYTES);
const K_NEGATIVE_DELTAS: u32 = key(9, BYTES);
const K_NEGATIVE_DELTA: u32 = key(9, VARINT);
const K_NEGATIVE_COUNTS: u32 = key(10, BYTES);
const K_NEGATIVE_COUNT: u32 = key(10, FIXED64);
const K_POSITIVE_SPAN: u32 = key(11, BYTES);
const K_POSITIVE_DELTAS: u32 = key(12, BYTES);
const K_POSITIVE_DELTA: u32 = key(12, VARINT);
const K_POSITIVE_COUNTS: u32 = key(13, BYTES);
const K_POSITIVE_COUNT: u32 = key(13, FIXED64);
const K_RESET_HINT: u32 = key(14, VARINT);
const K_TIMESTAMP: u32 = key(15, VARINT);
const K_CUSTOM_VALUES: u32 = key(16, BYTES);
const K_CUSTOM_VALUE: u32 = key(16, FIXED64);
const K_START_TIMESTAMP: u32 = key(17, VARINT);
const K_SPAN_OFFSET: u32 = key(1, VARINT);
const K_SPAN_LENGTH: u32 = key(2, VARINT);
const KNOWN: [u32; 17] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17];

/// Keeps at most `max`, so that what a hostile message unfolds to stays bounded.
fn push<T>(into: &mut Vec<T>, value: T, max: usize, too_many: &mut bool) {
    if into.len() < max {
        into.push(value);
    } else {
        *too_many = true;
    }
}

fn span(mut r: Reader<'_>) -> Result<BucketSpan, Fault> {
    let mut span = BucketSpan::default();
    while !r.is_empty() {
        match r.key()? {
            K_SPAN_OFFSET => span.offset = unzigzag(u64::from(r.varint()? as u32)) as i32,
            K_SPAN_LENGTH => span.length = r.varint()? as u32,
            other => r.skip(other, &[1, 2])?,
        }
    }
    Ok(span)
}

fn deltas(mut r: Reader<'_>, into: &mut Vec<i64>, max: usize, too_many: &mut bool) -> Result<(), Fault> {
    while !r.is_empty() {
        push(into, unzigzag(r.varint()?), max, too_many);
    }
    Ok(())
}

fn doubles(mut r: Reader<'_>, into: &mut Vec<f64>, max: usize, too_many: &mut bool) -> Result<(), Fault> {
    while !r.is_empty() {
        push(into, r.double()?, max, too_many);
    }
    Ok(())
}

struct Raw {
    count: Count,
    zero_count: Count,
    sum: f64,
    schema: i32,
    zero_threshold: f64,
    hint: u32,
    negative: Side,
    positive: Side,
    bounds: Vec<f64>,
}

impl Raw {
    /// The checks of upstream's `Histogram.Validate` and `FloatHistogram.Validate`, and one of our own: bucket numbers fit 32 bits,
    /// so that no later arithmetic on them can overflow.
    fn into_histogram(self) -> Result<Histogram, String> {
        let custom = self.schema == CUSTOM_BUCKETS_SCHEMA;
        if !custom && !(COARSEST_SCHEMA..=FINEST_KNOWN_SCHEMA).contains(&self.schema) {
            return Err(format!(
                "schema {} is neither {COARSEST_SCHEMA} to {FINEST_KNOWN_SCHEMA} (exponential) nor {CUSTOM_BUCKETS_SCHEMA} (custom buckets)",
                self.schema
            ));
        }
        let (count, zero_count, positive, negative) = match self.count {
            Count::Float(count) => {
                // The other kind of zero count was not meant: upstream's getter answers 0 for it.
                let zero = if let Count::Float(z) = self.zero_count { z } else { 0.0 };
                if count < 0.0 {
                    return Err(format!("count is {count}, below zero"));
                }
                if zero < 0.0 {
                    return Err(format!("the zero bucket's count is {zero}, below zero"));
                }
                for (side, counts) in
                    [("positive", &self.positive.counts), ("negative", &self.negative.counts)]
                {
                    if let Some((i, c)) = counts.iter().enumerate().find(|(_, c)| **c < 0.0) {
                        return Err(format!("{side} bucket {} has count {c}, below zero", i + 1));
                    }
                }
                (count, zero, self.positive.counts, self.negative.counts)
            }
            Count::Whole(count) => {
                let zero = if let Count::Whole(z) = self.zero_count { z } else { 0 };
                let (positive, p) = absolute("positive", &self.positive.deltas)?;
                let (negative, n) = absolute("negative", &self.negative.deltas)?;
                let found = p
                    .checked_add(n)
                    .and_then(|s| s.checked_add(zero))
                    .ok_or("the bucket counts overflow 64 bits")?;
                if self.sum.is_nan() && found > count {
                    return Err(format!("{found} observations in buckets, more than the count of {count}"));
                }
                if !self.sum.is_nan() && found != count {
                    return Err(format!("{found} observations in buckets, but the count is {count}"));
                }
                (count as f64, zero as f64, positive, negative)
            }
        };
        let mut histogram = Histogram {
            counter_reset_hint: match self.hint {
                1 => CounterResetHint::CounterReset,
                2 => CounterResetHint::NotCounterReset,
                3 => CounterResetHint::Gauge,
                _ => CounterResetHint::Unknown,
            },
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count,
            count,
            sum: self.sum,
            positive_spans: self.positive.spans,
            negative_spans: self.negative.spans,
            positive_buckets: positive,
            negative_buckets: negative,
            custom_values: None,
        };
        check_spans("positive", &histogram.positive_spans, histogram.positive_buckets.len(), custom)?;
        check_spans("negative", &histogram.negative_spans, histogram.negative_buckets.len(), custom)?;
        if custom {
            check_custom(&histogram, &self.bounds)?;
            histogram.custom_values = Some(Arc::from(self.bounds));
        } else if !self.bounds.is_empty() {
            return Err("custom bounds on a histogram with an exponential schema".into());
        }
        if !custom && histogram.schema > FINEST_SCHEMA {
            reduce(&mut histogram);
        }
        Ok(histogram)
    }
}

/// Counts and their total out of the differences between neighbouring buckets.
fn absolute(side: &str, deltas: &[i64]) -> Result<(Vec<f64>, u64), String> {
    let (mut at, mut total) = (0i64, 0u64);
    let mut counts = Vec::with_capacity(deltas.len());
    for (i, delta) in deltas.iter().enumerate() {
        at = at.checked_add(*delta).ok_or_else(|| format!("{side} bucket {} overflows 64 bits", i + 1))?;
        let whole =
            u64::try_from(at).map_err(|_| format!("{side} bucket {} has count {at}, below zero", i + 1))?;
        total = total.checked_add(whole).ok_or("the bucket counts overflow 64 bits")?;
        counts.push(at as f64);
    }
    Ok((counts, total))
}

fn check_spans(side: &str, spans: &[BucketSpan], buckets: usize, custom: bool) -> Result<(), String> {
    let (mut index, mut wanted) = (0i64, 0u64);
    for (i, span) in spans.iter().enumerate() {
        if span.offset < 0 && (i > 0 || custom) {
            return Err(format!("{side} span {} has offset {}, below zero", i + 1, span.offset));
        }
        wanted += u64::from(span.length);
        index += i64::from(span.offset) + i64::from(span.length);
        if i32::try_from(index).is_err() {
            return Err(format!("{side} span {} reaches bucket {index}, beyond 32 bits", i + 1));
        }
    }
    if wanted != buckets as u64 {
        return Err(format!("{side} spans need {wanted} buckets, there are {buckets}"));
    }
    Ok(())
}

fn check_custom(h: &Histogram, bounds: &[f64]) -> Result<(), String> {
    if bounds.iter().any(|b| b.is_nan()) {
        return Err("a custom bound is NaN".into());
    }
    if let Some(pair) = bounds.windows(2).find(|w| w[1] <= w[0]) {
        return Err(format!("custom bounds must ascend, {} follows {}", pair[1], pair[0]));
    }
    if bounds.last() == Some(&f64::INFINITY) {
        return Err("the last custom bound is +Inf, which is implied".into());
    }
    let reach: i64 = h.positive_spans.iter().map(|s| i64::from(s.offset) + i64::from(s.length)).sum();
    if reach > bounds.len() as i64 + 1 {
        return Err(format!(
            "{} custom bounds are too few for spans that reach {reach} buckets",
            bounds.len()
        ));
    }
    if h.zero_count != 0.0 || h.zero_threshold != 0.0 {
        return Err("custom buckets have no zero bucket".into());
    }
    if !h.negative_spans.is_empty() || !h.negative_buckets.is_empty() {
        return Err("custom buckets have no negative side".into());
    }
    Ok(())
}

/// Brings a finer schema down to [`FINEST_SCHEMA`] by merging neighbouring buckets; exact, as every bound of the coarser one is a bound of the finer.
fn reduce(h: &mut Histogram) {
    let by = (h.schema - FINEST_SCHEMA) as u32;
    for (spans, buckets) in
        [(&mut h.positive_spans, &mut h.positive_buckets), (&mut h.negative_spans, &mut h.negative_buckets)]
    {
        let mut merged_spans: Vec<BucketSpan> = Vec::new();
        let mut merged: Vec<f64> = Vec::new();
        let (mut index, mut last) = (0i64, 0i64);
        let mut counts = buckets.iter();
        for span in spans.iter() {
            index += i64::from(span.offset);
            for count in counts.by_ref().take(span.length as usize) {
                // Bucket i holds (base^(i-1), base^i]; with base squared `by` times that is bucket ceil(i / 2^by).
                let target = ((index - 1) >> by.min(63)) + 1;
                index += 1;
                match (merged_spans.last_mut(), merged.last_mut()) {
                    (Some(_), Some(sum)) if target == last => *sum += count,
                    (Some(s), Some(_)) if target == last + 1 => {
                        s.length += 1;
                        merged.push(*count);
                    }
                    (before, _) => {
                        let offset = if before.is_some() { target - last - 1 } else { target };
                        merged_spans.push(BucketSpan { offset: offset as i32, length: 1 });
                        merged.push(*count);
                    }
                }
                last = target;
            }
        }
        *spans = merged_spans;
        *buckets = merged;
    }
    h.schema = FINEST_SCHEMA;
}
