//! A native histogram off the wire: the message that remote write 1.0 and 2.0 share, its checks, and the way
//! to absolute counts.

use std::sync::Arc;

use model::histogram::{
    BucketSpan, CUSTOM_BUCKETS_SCHEMA, CounterResetHint, EXPONENTIAL_SCHEMAS, Histogram, IntegerHistogram,
};

use super::wire::{BYTES, FIXED64, Fault, Reader, VARINT, key, unzigzag};
use crate::limits::Limits;

/// Finest schema that is understood. What is finer than is stored is reduced to what is, as upstream does.
const FINEST_KNOWN_SCHEMA: i32 = 52;

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

/// Reads `prometheus.Histogram` or `io.prometheus.write.v2.Histogram`: the same fields, but for
/// `start_timestamp` which only the latter has. Wire faults are the request's end; contradictions in the
/// histogram only its own.
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
        Err(format!("more than {max} buckets or spans on one side, the limit of one histogram"))
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
    /// What the fields come to. `tsdb` knows which histograms may be stored; the one check of our own, made
    /// first, is that bucket numbers fit 32 bits, so that no later arithmetic on them can overflow.
    fn into_histogram(self) -> Result<Histogram, String> {
        check_reach("positive", &self.positive.spans)?;
        check_reach("negative", &self.negative.spans)?;
        let custom = self.schema == CUSTOM_BUCKETS_SCHEMA;
        let finest = *EXPONENTIAL_SCHEMAS.end();
        let too_fine = (finest + 1..=FINEST_KNOWN_SCHEMA).contains(&self.schema);
        // The checks know only schemas that are stored; none of them depends on which exponential one it is.
        let schema = if too_fine { finest } else { self.schema };
        let custom_values = (custom || !self.bounds.is_empty()).then(|| Arc::from(self.bounds));
        let counter_reset_hint = match self.hint {
            1 => CounterResetHint::CounterReset,
            // 2, "no reset", is said of the sample before it as the sender has it, which may not be the one
            // that is stored here. Upstream does not believe it either: it looks.
            3 => CounterResetHint::Gauge,
            _ => CounterResetHint::Unknown,
        };
        let mut histogram = match self.count {
            Count::Whole(count) => {
                let whole = IntegerHistogram {
                    counter_reset_hint,
                    schema,
                    zero_threshold: self.zero_threshold,
                    // The other kind of zero count was not meant: upstream's getter answers 0 for it.
                    zero_count: if let Count::Whole(zero) = self.zero_count { zero } else { 0 },
                    count,
                    sum: self.sum,
                    positive_spans: self.positive.spans,
                    negative_spans: self.negative.spans,
                    positive_deltas: self.positive.deltas,
                    negative_deltas: self.negative.deltas,
                    custom_values,
                };
                whole.validate().map_err(|e| e.0)?;
                whole.to_float()
            }
            Count::Float(count) => {
                let float = Histogram {
                    counter_reset_hint,
                    schema,
                    zero_threshold: self.zero_threshold,
                    zero_count: if let Count::Float(zero) = self.zero_count { zero } else { 0.0 },
                    count,
                    sum: self.sum,
                    positive_spans: self.positive.spans,
                    negative_spans: self.negative.spans,
                    positive_buckets: self.positive.counts,
                    negative_buckets: self.negative.counts,
                    custom_values,
                };
                float.validate().map_err(|e| e.0)?;
                float
            }
        };
        if too_fine {
            histogram.schema = self.schema;
            histogram.reduce_resolution(finest).map_err(|e| e.to_string())?;
        }
        Ok(histogram)
    }
}

fn check_reach(side: &str, spans: &[BucketSpan]) -> Result<(), String> {
    let mut index = 0i64;
    for (i, span) in spans.iter().enumerate() {
        index += i64::from(span.offset) + i64::from(span.length);
        if i32::try_from(index).is_err() {
            return Err(format!("{side} span {} reaches bucket {index}, beyond 32 bits", i + 1));
        }
    }
    Ok(())
}
