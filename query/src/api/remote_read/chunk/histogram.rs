//! Chunks of native histograms with float counts: a header that says whether the counter was reset, the
//! layout of the buckets once, and per sample a timestamp, count, zero count, sum and the buckets.

use model::codec::bits::BitWriter;
use model::histogram::{BucketSpan, CounterResetHint, Histogram};

use super::bits::{Xor, put_signed, put_unsigned};

/// Encodes as many of the samples as one chunk takes: those of the first one's layout, as long as the counter
/// is not reset and none follows a staleness marker. How many they were, and the chunk.
pub fn encode<'a>(samples: impl Iterator<Item = (i64, &'a Histogram)>) -> (usize, Vec<u8>) {
    let mut chunk = Encoder::default();
    for (ts_ms, histogram) in samples {
        if !chunk.push(ts_ms, histogram) {
            break;
        }
    }
    chunk.finish()
}

#[derive(Default)]
struct Encoder<'a> {
    out: BitWriter,
    count: u16,
    header: u8,
    first: Option<&'a Histogram>,
    last: Option<&'a Histogram>,
    last_ts_ms: i64,
    last_step: i64,
    /// Count, zero count, sum, and the buckets of both sides.
    numbers: Vec<Xor>,
}

impl<'a> Encoder<'a> {
    /// Whether the sample was taken.
    fn push(&mut self, ts_ms: i64, h: &'a Histogram) -> bool {
        if self.first.is_none() {
            self.begin(ts_ms, h);
            return true;
        }
        if !self.takes(h) {
            return false;
        }
        let step = ts_ms.wrapping_sub(self.last_ts_ms);
        put_signed(&mut self.out, step.wrapping_sub(self.last_step));
        let stale = h.is_stale();
        let zero = |v: f64| if stale { 0.0 } else { v };
        let head = [zero(h.count), zero(h.zero_count), h.sum];
        let buckets = h.positive_buckets.iter().chain(&h.negative_buckets).copied().filter(|_| !stale);
        for (number, v) in self.numbers.iter_mut().zip(head.into_iter().chain(buckets)) {
            number.put(&mut self.out, v);
        }
        self.advance(ts_ms, step, h);
        true
    }

    fn begin(&mut self, ts_ms: i64, h: &'a Histogram) {
        // A marker is written without buckets, as an empty histogram.
        let empty = Histogram { sum: h.sum, ..Histogram::default() };
        let shown = if h.is_stale() { &empty } else { h };
        self.header = match h.counter_reset_hint {
            // That it was not reset was said beside another sample than the reader sees before this one.
            CounterResetHint::Unknown | CounterResetHint::NotCounterReset => 0,
            CounterResetHint::CounterReset => 0b10 << 6,
            CounterResetHint::Gauge => 0b11 << 6,
        };
        put_layout(&mut self.out, shown);
        put_signed(&mut self.out, ts_ms);
        let buckets = shown.positive_buckets.iter().chain(&shown.negative_buckets);
        for v in [shown.count, shown.zero_count, shown.sum].iter().chain(buckets) {
            self.out.bits(v.to_bits(), 64);
            self.numbers.push(Xor::after(*v));
        }
        self.first = Some(h);
        self.advance(ts_ms, 0, h);
    }

    fn advance(&mut self, ts_ms: i64, step: i64, h: &'a Histogram) {
        (self.last_ts_ms, self.last_step) = (ts_ms, step);
        self.last = Some(h);
        self.count += 1;
    }

    fn takes(&self, h: &Histogram) -> bool {
        let (Some(first), Some(last)) = (self.first, self.last) else { return true };
        let gauge = |h: &Histogram| h.counter_reset_hint == CounterResetHint::Gauge;
        if h.is_stale() {
            return true;
        }
        if last.is_stale() || gauge(first) != gauge(h) || !same_layout(first, h) {
            return false;
        }
        gauge(h) || (h.counter_reset_hint != CounterResetHint::CounterReset && !h.detect_reset(last))
    }

    fn finish(self) -> (usize, Vec<u8>) {
        let mut data = self.count.to_be_bytes().to_vec();
        data.push(self.header);
        data.extend(self.out.to_bytes());
        (usize::from(self.count), data)
    }
}

fn same_layout(a: &Histogram, b: &Histogram) -> bool {
    a.schema == b.schema
        && a.zero_threshold == b.zero_threshold
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && a.custom_bounds() == b.custom_bounds()
}

fn put_layout(out: &mut BitWriter, h: &Histogram) {
    put_zero_threshold(out, h.zero_threshold);
    put_signed(out, i64::from(h.schema));
    put_spans(out, &h.positive_spans);
    put_spans(out, &h.negative_spans);
    if h.uses_custom_buckets() {
        put_unsigned(out, h.custom_bounds().len() as u64);
        h.custom_bounds().iter().for_each(|bound| put_bound(out, *bound));
    }
}

fn put_spans(out: &mut BitWriter, spans: &[BucketSpan]) {
    put_unsigned(out, spans.len() as u64);
    for span in spans {
        put_unsigned(out, u64::from(span.length));
        put_signed(out, i64::from(span.offset));
    }
}

/// One byte for 0 and the usual powers of two, else nine.
fn put_zero_threshold(out: &mut BitWriter, threshold: f64) {
    let bits = threshold.to_bits();
    let exponent = (bits >> 52) as i64 - 1023;
    match exponent {
        _ if threshold == 0.0 => out.bits(0, 8),
        -243..=10 if bits << 12 == 0 => out.bits((exponent + 244) as u64, 8),
        _ => {
            out.bits(255, 8);
            out.bits(bits, 64);
        }
    }
}

/// A bound of few decimals as thousandths and one, else in full after a zero.
fn put_bound(out: &mut BitWriter, bound: f64) {
    let thousandths = (bound * 1000.0).round();
    if (0.0..=33_554_430.0).contains(&thousandths) && thousandths / 1000.0 == bound {
        put_unsigned(out, thousandths as u64 + 1);
    } else {
        out.bit(false);
        out.bits(bound.to_bits(), 64);
    }
}
