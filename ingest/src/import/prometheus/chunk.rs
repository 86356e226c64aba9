//! Decodes the chunks of a Prometheus block: floats (XOR, XOR2) and native histograms in all layouts that
//! Prometheus 3 writes.
//!
//! Follows upstream's `tsdb/docs/format/chunks.md`. Every number that a chunk holds is checked against what
//! is left of it before anything is allocated for it: the memory a chunk decodes to is bounded by its length.

use std::sync::Arc;

use model::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, CounterResetHint, EXPONENTIAL_SCHEMAS, Histogram};
use model::sample::{is_stale, stale_nan};

use super::bits::{Bits, Wrong, Xor};

/// Finest exponential schema that a chunk may name; those beyond what is stored are reduced, as upstream
/// does.
const FINEST_SCHEMA: i32 = 52;

/// Numbers of the encodings.
pub(in crate::import) const XOR: u8 = 1;
const HISTOGRAM: u8 = 2;
const FLOAT_HISTOGRAM: u8 = 3;
const XOR2: u8 = 4;
const HISTOGRAM_START: u8 = 5;
const FLOAT_HISTOGRAM_START: u8 = 6;
/// Thanos' chunk of aggregates.
pub(in crate::import) const AGGREGATES: u8 = 0xff;

/// Samples of one series, in the order in which its chunks had them.
#[derive(Clone, Debug, Default)]
pub(in crate::import) struct Samples {
    pub ts_ms: Vec<i64>,
    /// A histogram's sum where one stands.
    pub values: Vec<f64>,
    /// As long as the timestamps as soon as there is one, else empty.
    pub histograms: Vec<Option<Arc<Histogram>>>,
    /// Likewise, 0 where it is not known.
    pub start_ts_ms: Vec<i64>,
}

impl Samples {
    fn float(&mut self, ts_ms: i64, value: f64) {
        self.ts_ms.push(ts_ms);
        self.values.push(value);
        if !self.histograms.is_empty() {
            self.histograms.push(None);
        }
        if !self.start_ts_ms.is_empty() {
            self.start_ts_ms.push(0);
        }
    }

    fn histogram(&mut self, ts_ms: i64, histogram: Histogram) {
        let before = self.ts_ms.len();
        self.float(ts_ms, histogram.sum);
        self.histograms.resize(before, None);
        self.histograms.push(Some(Arc::new(histogram)));
    }

    /// The start timestamp of the last sample.
    fn start(&mut self, start_ts_ms: i64) {
        if start_ts_ms == 0 {
            return;
        }
        self.start_ts_ms.resize(self.ts_ms.len(), 0);
        if let Some(last) = self.start_ts_ms.last_mut() {
            *last = start_ts_ms;
        }
    }
}

/// How many samples a chunk says it has, without decoding it; 0 where it is too short to say.
pub(in crate::import) fn announced(encoding: u8, data: &[u8]) -> u64 {
    let count = match data {
        [a, b, ..] => u64::from(u16::from_be_bytes([*a, *b])),
        _ => 0,
    };
    match encoding {
        HISTOGRAM_START | FLOAT_HISTOGRAM_START => count & 0x3fff,
        AGGREGATES => 150,
        _ => count,
    }
}

/// Appends the samples of a chunk.
pub(in crate::import) fn decode(encoding: u8, data: &[u8], out: &mut Samples) -> Result<(), Wrong> {
    match encoding {
        XOR => xor(data, out),
        XOR2 => xor2(data, out),
        HISTOGRAM => histograms::<Integers>(data, false, out),
        FLOAT_HISTOGRAM => histograms::<Floats>(data, false, out),
        HISTOGRAM_START => histograms::<Integers>(data, true, out),
        FLOAT_HISTOGRAM_START => histograms::<Floats>(data, true, out),
        AGGREGATES => Err("it holds Thanos' aggregates, in a block that says it is raw".to_string()),
        other => Err(format!("its encoding is {other}, which no Prometheus up to 3.14 writes")),
    }
}

fn header<const N: usize>(data: &[u8]) -> Result<(&[u8; N], &[u8]), Wrong> {
    data.split_first_chunk::<N>().ok_or_else(|| format!("it has {} bytes", data.len()))
}

/// Number of samples (2 bytes), then per sample the timestamp (itself, a difference, differences of
/// differences) and the value.
fn xor(data: &[u8], out: &mut Samples) -> Result<(), Wrong> {
    let (count, rest) = header::<2>(data)?;
    let count = u16::from_be_bytes(*count);
    let mut bits = Bits::new(rest);
    if count == 0 {
        return Ok(());
    }
    let mut ts = bits.varint()?;
    let mut value = Xor::new(bits.float()?);
    out.float(ts, value.value);
    let mut step = 0i64;
    for i in 1..count {
        step = match i {
            1 => bits.uvarint()? as i64,
            _ => {
                let change = match bits.ones(4)? {
                    0 => 0,
                    1 => bits.signed(14)?,
                    2 => bits.signed(17)?,
                    3 => bits.signed(20)?,
                    _ => bits.bits(64)? as i64,
                };
                step.wrapping_add(change)
            }
        };
        ts = ts.wrapping_add(step);
        out.float(ts, value.next(&mut bits)?);
    }
    Ok(())
}

/// As XOR, with timestamps and values under one prefix from the third sample on, staleness markers that do
/// not disturb the differences, and start timestamps.
fn xor2(data: &[u8], out: &mut Samples) -> Result<(), Wrong> {
    let (head, rest) = header::<3>(data)?;
    let count = u16::from_be_bytes([head[0], head[1]]);
    let mut starts = Starts::new(head[2]);
    let mut bits = Bits::new(rest);
    if count == 0 {
        return Ok(());
    }
    let mut ts = bits.varint()?;
    let first = bits.float()?;
    // The value that differences are taken from: a marker is none.
    let mut value = Xor::new(if is_stale(first) { 0.0 } else { first });
    out.float(ts, first);
    out.start(starts.next(&mut bits, 0, ts, ts)?);
    let mut step = 0i64;
    for i in 1..count {
        let before = ts;
        let mut narrow = |bits: &mut Bits<'_>| match bits.ones(3)? {
            0 => Ok(value.value),
            1 => value.same_window(bits).map(|()| value.value),
            2 => value.new_window(bits).map(|()| value.value),
            _ => Ok(stale_nan()),
        };
        let signed = |bits: &mut Bits<'_>, n: u32| {
            let v = bits.bits(n)? as i64;
            Ok::<_, Wrong>(if v >= 1 << (n - 1) { v - (1 << n) } else { v })
        };
        let v = if i == 1 {
            step = bits.uvarint()? as i64;
            narrow(&mut bits)?
        } else {
            match bits.ones(5)? {
                0 => value.value,
                1 => {
                    if bits.bit()? {
                        value.new_window(&mut bits)?
                    } else {
                        value.same_window(&mut bits)?
                    }
                    value.value
                }
                2 => {
                    step = step.wrapping_add(signed(&mut bits, 13)?);
                    narrow(&mut bits)?
                }
                3 => {
                    step = step.wrapping_add(signed(&mut bits, 20)?);
                    narrow(&mut bits)?
                }
                4 => {
                    step = step.wrapping_add(bits.bits(64)? as i64);
                    narrow(&mut bits)?
                }
                _ => stale_nan(),
            }
        };
        ts = ts.wrapping_add(step);
        out.float(ts, v);
        out.start(starts.next(&mut bits, i, ts, before)?);
    }
    Ok(())
}

/// The start timestamps of a chunk: one for its first sample perhaps, and from some sample on one for each.
struct Starts {
    first_known: bool,
    /// Number of the first sample that has one of its own, 0 for none.
    from: u16,
    start: i64,
    /// How long before the previous sample the start lies.
    difference: i64,
}

impl Starts {
    fn new(header: u8) -> Starts {
        Starts { first_known: header & 0x80 != 0, from: u16::from(header & 0x7f), start: 0, difference: 0 }
    }

    /// The start timestamp of sample `i` (from 0), which lies at `ts`, the one before it at `before`.
    fn next(&mut self, bits: &mut Bits<'_>, i: u16, ts: i64, before: i64) -> Result<i64, Wrong> {
        if i == 0 {
            if self.first_known {
                self.difference = bits.varint()?;
                self.start = ts.wrapping_sub(self.difference);
            }
        } else if self.from > 0 && i >= self.from {
            let change = bits.varbit()?;
            self.difference = if i == self.from { change } else { self.difference.wrapping_add(change) };
            self.start = before.wrapping_sub(self.difference);
        }
        Ok(self.start)
    }
}

/// What all histograms of a chunk have in common.
struct Layout {
    schema: i32,
    zero_threshold: f64,
    positive: Vec<BucketSpan>,
    negative: Vec<BucketSpan>,
    custom_values: Option<Arc<[f64]>>,
    /// Buckets of the two sides.
    buckets: [usize; 2],
}

impl Layout {
    fn read(bits: &mut Bits<'_>) -> Result<Layout, Wrong> {
        let zero_threshold = match bits.bits(8)? {
            0 => 0.0,
            255 => bits.float()?,
            // 0.5 * 2^(n - 243), all of them normal numbers.
            n => 2f64.powi(n as i32 - 244),
        };
        let schema = i32::try_from(bits.varbit()?).map_err(|_| "its schema is no number of 32 bits")?;
        if schema != CUSTOM_BUCKETS_SCHEMA
            && !(*EXPONENTIAL_SCHEMAS.start()..=FINEST_SCHEMA).contains(&schema)
        {
            return Err(format!("its histograms have the schema {schema}, which is not known"));
        }
        let positive = spans(bits)?;
        let negative = spans(bits)?;
        let custom_values = match schema == CUSTOM_BUCKETS_SCHEMA {
            true => Some(custom_values(bits)?),
            false => None,
        };
        let count = |spans: &[BucketSpan]| spans.iter().map(|s| u64::from(s.length)).sum::<u64>();
        let buckets = [count(&positive), count(&negative)];
        // Each bucket of the first sample takes one bit at least.
        if buckets[0].saturating_add(buckets[1]) > bits.left() {
            return Err(format!(
                "its spans name {} buckets and it has only {} bits left",
                buckets[0].saturating_add(buckets[1]),
                bits.left()
            ));
        }
        let buckets = buckets.map(|n| n as usize);
        Ok(Layout { schema, zero_threshold, positive, negative, custom_values, buckets })
    }
}

fn spans(bits: &mut Bits<'_>) -> Result<Vec<BucketSpan>, Wrong> {
    let count = bits.varbit_unsigned()?;
    // A span takes two bits at least.
    if count > bits.left() / 2 {
        return Err(format!("it names {count} spans and has only {} bits left", bits.left()));
    }
    let mut out = Vec::new();
    for _ in 0..count {
        let length = bits.varbit_unsigned()?;
        let offset = bits.varbit()?;
        let fits = |_| "a span is out of bounds".to_string();
        out.push(BucketSpan {
            offset: i32::try_from(offset).map_err(fits)?,
            length: u32::try_from(length).map_err(fits)?,
        });
    }
    Ok(out)
}

/// Bounds, where they are few decimals as thousandths and one, else in full after a zero.
fn custom_values(bits: &mut Bits<'_>) -> Result<Arc<[f64]>, Wrong> {
    let count = bits.varbit_unsigned()?;
    if count > bits.left() / 5 {
        return Err(format!("it names {count} bounds and has only {} bits left", bits.left()));
    }
    let mut out = Vec::new();
    for _ in 0..count {
        out.push(match bits.varbit_unsigned()? {
            0 => bits.float()?,
            thousandths => (thousandths - 1) as f64 / 1000.0,
        });
    }
    Ok(out.into())
}

/// How the counts of a chunk's histograms are written.
trait Counts: Sized {
    /// The counts of the first sample, whose sum comes after `count` and `zero_count`.
    fn first(bits: &mut Bits<'_>, buckets: usize) -> Result<(Self, Xor), Wrong>;
    /// Those of the next.
    fn next(&mut self, bits: &mut Bits<'_>, sum: &mut Xor) -> Result<(), Wrong>;
    /// Count, zero count, and the counts of buckets `from..to`, absolute.
    fn count(&self) -> (f64, f64);
    fn buckets(&self, from: usize, to: usize) -> Vec<f64>;
}

/// Whole numbers: each with a difference and the difference of that. Buckets are differences to their left
/// neighbour.
struct Integers {
    numbers: Vec<(i64, i64)>,
}

impl Integers {
    fn step(number: &mut (i64, i64), bits: &mut Bits<'_>) -> Result<(), Wrong> {
        number.1 = number.1.wrapping_add(bits.varbit()?);
        number.0 = number.0.wrapping_add(number.1);
        Ok(())
    }
}

impl Counts for Integers {
    fn first(bits: &mut Bits<'_>, buckets: usize) -> Result<(Self, Xor), Wrong> {
        let mut numbers = Vec::with_capacity(buckets + 2);
        for _ in 0..2 {
            numbers.push((bits.varbit_unsigned()? as i64, 0));
        }
        let sum = Xor::new(bits.float()?);
        for _ in 0..buckets {
            numbers.push((bits.varbit()?, 0));
        }
        Ok((Integers { numbers }, sum))
    }

    fn next(&mut self, bits: &mut Bits<'_>, sum: &mut Xor) -> Result<(), Wrong> {
        let (counts, buckets) = self.numbers.split_at_mut(2);
        counts.iter_mut().try_for_each(|n| Self::step(n, bits))?;
        // A marker has no buckets; the next sample goes on from those before.
        if is_stale(sum.next(bits)?) {
            return Ok(());
        }
        buckets.iter_mut().try_for_each(|n| Self::step(n, bits))
    }

    fn count(&self) -> (f64, f64) {
        (self.numbers[0].0 as u64 as f64, self.numbers[1].0 as u64 as f64)
    }

    fn buckets(&self, from: usize, to: usize) -> Vec<f64> {
        let mut count = 0i64;
        let absolute = |n: &(i64, i64)| {
            count = count.wrapping_add(n.0);
            count as f64
        };
        self.numbers[from + 2..to + 2].iter().map(absolute).collect()
    }
}

/// Floats: each by its difference in bits to the one before.
struct Floats {
    numbers: Vec<Xor>,
}

impl Counts for Floats {
    fn first(bits: &mut Bits<'_>, buckets: usize) -> Result<(Self, Xor), Wrong> {
        if (buckets as u64 + 3) * 64 > bits.left() {
            return Err(format!("it names {buckets} buckets and has only {} bits left", bits.left()));
        }
        let mut numbers = Vec::with_capacity(buckets + 2);
        for _ in 0..2 {
            numbers.push(Xor::new(bits.float()?));
        }
        let sum = Xor::new(bits.float()?);
        for _ in 0..buckets {
            numbers.push(Xor::new(bits.float()?));
        }
        Ok((Floats { numbers }, sum))
    }

    fn next(&mut self, bits: &mut Bits<'_>, sum: &mut Xor) -> Result<(), Wrong> {
        let (counts, buckets) = self.numbers.split_at_mut(2);
        counts.iter_mut().try_for_each(|n| n.next(bits).map(drop))?;
        if is_stale(sum.next(bits)?) {
            return Ok(());
        }
        buckets.iter_mut().try_for_each(|n| n.next(bits).map(drop))
    }

    fn count(&self) -> (f64, f64) {
        (self.numbers[0].value, self.numbers[1].value)
    }

    fn buckets(&self, from: usize, to: usize) -> Vec<f64> {
        self.numbers[from + 2..to + 2].iter().map(|n| n.value).collect()
    }
}

/// Number of samples, flags (and with start timestamps their header in the place of the flags, which move to
/// the topmost bits of the number), the layout, and per sample timestamp, count, zero count, sum and buckets.
fn histograms<C: Counts>(data: &[u8], with_starts: bool, out: &mut Samples) -> Result<(), Wrong> {
    let (head, rest) = header::<3>(data)?;
    let mut count = u16::from_be_bytes([head[0], head[1]]);
    let (flags, mut starts) = match with_starts {
        true => (head[0], Starts::new(head[2])),
        false => (head[2], Starts::new(0)),
    };
    if with_starts {
        count &= 0x3fff;
    }
    if count == 0 {
        return Ok(());
    }
    let gauge = flags & 0xc0 == 0xc0;
    let mut bits = Bits::new(rest);
    let layout = Layout::read(&mut bits)?;
    let [positive, negative] = layout.buckets;
    let mut ts = bits.varbit()?;
    let (mut counts, mut sum) = C::first(&mut bits, positive + negative)?;
    let mut step = 0i64;
    for i in 0..count {
        let before = ts;
        if i > 0 {
            step = step.wrapping_add(bits.varbit()?);
            ts = ts.wrapping_add(step);
            counts.next(&mut bits, &mut sum)?;
        }
        let histogram = if is_stale(sum.value) {
            Histogram { sum: sum.value, ..Histogram::default() }
        } else {
            let (count, zero_count) = counts.count();
            let mut histogram = Histogram {
                // What lies before a chunk may be gone or have come later, so the flags say nothing of its
                // first sample.
                counter_reset_hint: match (gauge, i) {
                    (true, _) => CounterResetHint::Gauge,
                    (false, 0) => CounterResetHint::Unknown,
                    (false, _) => CounterResetHint::NotCounterReset,
                },
                schema: layout.schema,
                zero_threshold: layout.zero_threshold,
                zero_count,
                count,
                sum: sum.value,
                positive_spans: layout.positive.clone(),
                negative_spans: layout.negative.clone(),
                positive_buckets: counts.buckets(0, positive),
                negative_buckets: counts.buckets(positive, positive + negative),
                custom_values: layout.custom_values.clone(),
            };
            if layout.schema > *EXPONENTIAL_SCHEMAS.end() {
                histogram.reduce_resolution(*EXPONENTIAL_SCHEMAS.end()).map_err(|e| e.to_string())?;
            }
            histogram.validate().map_err(|e| format!("a histogram in it is not valid: {e}"))?;
            histogram
        };
        out.histogram(ts, histogram);
        out.start(starts.next(&mut bits, i, ts, before)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::source::testing::rng::Rng;

    use super::*;

    /// The chunks of a segment file, checksums left out.
    fn chunks(name: &str) -> Vec<(u8, Vec<u8>)> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/blocks").join(name);
        let block =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).find(|p| p.is_dir()).unwrap();
        let bytes = std::fs::read(block.join("chunks/000001")).unwrap();
        let mut rest = &bytes[8..];
        let mut out = Vec::new();
        while !rest.is_empty() {
            let length = model::codec::varint::take_u64(&mut rest).unwrap() as usize;
            out.push((rest[0], rest[1..=length].to_vec()));
            rest = &rest[length + 5..];
        }
        out
    }

    #[test]
    fn chunks_that_are_changed_decode_to_something_bounded_or_to_an_error() {
        let mut rng = Rng(9);
        let all: Vec<_> = ["floats", "histograms", "starts", "xor2"].into_iter().flat_map(chunks).collect();
        assert!((1..=6).all(|e| all.iter().any(|(encoding, _)| *encoding == e)), "every encoding is there");
        let mut errors = 0;
        for round in 0..20_000 {
            let (encoding, data) = &all[rng.below(all.len())];
            let mut data = data.clone();
            match rng.below(4) {
                0 => data.truncate(rng.below(data.len() + 1)),
                1 => data
                    .iter_mut()
                    .take(40)
                    .for_each(|b| *b = if rng.below(4) == 0 { rng.below(256) as u8 } else { *b }),
                2 => data[..2].fill(0xff),
                _ => {}
            }
            for _ in 0..rng.below(4) {
                if !data.is_empty() {
                    let at = rng.below(data.len());
                    data[at] ^= 1 << rng.below(8);
                }
            }
            let encoding = if round % 7 == 0 { rng.below(8) as u8 } else { *encoding };
            let mut out = Samples::default();
            errors += usize::from(decode(encoding, &data, &mut out).is_err());
            assert!(out.ts_ms.len() <= 65_535 && out.ts_ms.len() == out.values.len());
            let buckets: usize = out
                .histograms
                .iter()
                .flatten()
                .map(|h| h.positive_buckets.len() + h.negative_buckets.len())
                .sum();
            assert!(buckets <= 8 * data.len(), "{buckets} buckets out of {} bytes", data.len());
        }
        assert!(errors > 5_000, "{errors} errors");
    }
}
