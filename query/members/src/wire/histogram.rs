//! A native histogram as bytes between processes: every number as it stands, little end first.
//!
//! One byte for the counter reset hint, the schema as an int32, then zero threshold, zero count, count and
//! sum as doubles; then five lists, each with its length before it as a uint32: positive spans and negative
//! spans (offset int32, length uint32), positive buckets, negative buckets and custom bounds (doubles).

use std::sync::Arc;

use model::histogram::{BucketSpan, CounterResetHint, Histogram};

/// Hints in the order of their bytes.
const HINTS: [CounterResetHint; 4] = [
    CounterResetHint::Unknown,
    CounterResetHint::CounterReset,
    CounterResetHint::NotCounterReset,
    CounterResetHint::Gauge,
];

/// Appends a histogram.
pub fn put(out: &mut Vec<u8>, h: &Histogram) {
    let hint = HINTS.iter().position(|hint| *hint == h.counter_reset_hint).unwrap_or(0);
    out.push(hint as u8);
    out.extend_from_slice(&h.schema.to_le_bytes());
    for number in [h.zero_threshold, h.zero_count, h.count, h.sum] {
        out.extend_from_slice(&number.to_bits().to_le_bytes());
    }
    for spans in [&h.positive_spans, &h.negative_spans] {
        out.extend_from_slice(&(spans.len() as u32).to_le_bytes());
        for span in spans {
            out.extend_from_slice(&span.offset.to_le_bytes());
            out.extend_from_slice(&span.length.to_le_bytes());
        }
    }
    for numbers in [&h.positive_buckets[..], &h.negative_buckets[..], h.custom_bounds()] {
        out.extend_from_slice(&(numbers.len() as u32).to_le_bytes());
        numbers.iter().for_each(|n| out.extend_from_slice(&n.to_bits().to_le_bytes()));
    }
}

/// Reads a histogram; `None` where the bytes are not of one.
pub fn take(mut from: &[u8]) -> Option<Histogram> {
    let from = &mut from;
    let hint = HINTS.get(usize::from(bytes::<1>(from)?[0])).copied()?;
    let schema = i32::from_le_bytes(bytes(from)?);
    let [zero_threshold, zero_count, count, sum] =
        [number(from)?, number(from)?, number(from)?, number(from)?];
    let (positive_spans, negative_spans) = (spans(from)?, spans(from)?);
    let (positive_buckets, negative_buckets) = (numbers(from)?, numbers(from)?);
    let custom = numbers(from)?;
    let fit = |spans: &[BucketSpan], buckets: &[f64]| {
        spans.iter().map(|s| u64::from(s.length)).sum::<u64>() == buckets.len() as u64
    };
    let whole =
        from.is_empty() && fit(&positive_spans, &positive_buckets) && fit(&negative_spans, &negative_buckets);
    whole.then(|| Histogram {
        counter_reset_hint: hint,
        schema,
        zero_threshold,
        zero_count,
        count,
        sum,
        positive_spans,
        negative_spans,
        positive_buckets,
        negative_buckets,
        custom_values: (!custom.is_empty()).then(|| Arc::from(custom)),
    })
}

fn bytes<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*taken)
}

fn number(from: &mut &[u8]) -> Option<f64> {
    Some(f64::from_bits(u64::from_le_bytes(bytes(from)?)))
}

/// How many things of eight bytes follow: never more than there are bytes for.
fn length(from: &mut &[u8]) -> Option<usize> {
    let n = u32::from_le_bytes(bytes(from)?) as usize;
    (n <= from.len() / 8).then_some(n)
}

fn numbers(from: &mut &[u8]) -> Option<Vec<f64>> {
    (0..length(from)?).map(|_| number(from)).collect()
}

fn spans(from: &mut &[u8]) -> Option<Vec<BucketSpan>> {
    let one = |from: &mut &[u8]| {
        let offset = i32::from_le_bytes(bytes(from)?);
        Some(BucketSpan { offset, length: u32::from_le_bytes(bytes(from)?) })
    };
    (0..length(from)?).map(|_| one(from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_comes_back_to_the_bit_and_cut_off_it_does_not() {
        let h = Histogram {
            counter_reset_hint: CounterResetHint::Gauge,
            schema: -53,
            zero_threshold: 0.5,
            count: 6.0,
            sum: model::sample::stale_nan(),
            positive_spans: vec![BucketSpan { offset: -3, length: 2 }, BucketSpan { offset: 1, length: 1 }],
            positive_buckets: vec![1.0, 2.0, 3.0],
            negative_spans: vec![BucketSpan { offset: 0, length: 1 }],
            negative_buckets: vec![f64::NEG_INFINITY],
            custom_values: Some(Arc::from([1.0, 2.0])),
            ..Histogram::default()
        };
        let mut text = Vec::new();
        put(&mut text, &h);
        let back = take(&text).unwrap();
        assert!(back.equals(&h) && back.counter_reset_hint == h.counter_reset_hint);
        for cut in 0..text.len() {
            assert!(take(&text[..cut]).is_none(), "{cut}");
        }
        // A length that is not there, and spans that speak of other buckets.
        for at in 0..text.len() {
            let mut bad = text.clone();
            bad[at] ^= 0x80;
            let _ = take(&bad);
        }
        text.push(0);
        assert!(take(&text).is_none());
    }
}
