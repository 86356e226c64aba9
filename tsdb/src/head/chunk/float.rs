//! Floats: delta-of-delta timestamps and XORed values, bit by bit (Pelkonen et al., "Gorilla", VLDB 2015,
//! sections 4.1.1 and 4.1.2).
//!
//! What differs from the paper: timestamps are milliseconds, with classes of 0, 6, 11, 17, 36 and 64 bits for
//! the difference of differences, because real scrapes jitter by a few milliseconds; the first timestamp
//! stands beside the bits, and the first value is XORed with 0.

use super::{Columns, MAX_SAMPLES};
use model::codec::bits::{BitCursor, BitWriter};

/// Appends samples in ascending order of time. Every series of the head has one: its 56 bytes are weighed,
/// not gathered.
#[derive(Debug, Default)]
pub struct Encoder {
    out: BitWriter,
    first_t: i64,
    last_t: i64,
    last_bits: u64,
    /// See [`remembered`].
    last_delta: i32,
    count: u8,
    /// Leading zeros and length of the meaningful bits last written out.
    leading: u8,
    meaningful: u8,
    /// Whether any were.
    windowed: bool,
}

const _: () = assert!(MAX_SAMPLES <= u8::MAX as u16);

impl Encoder {
    pub fn count(&self) -> u16 {
        self.count.into()
    }

    pub fn first_t_ms(&self) -> i64 {
        self.first_t
    }

    pub fn last_t_ms(&self) -> i64 {
        self.last_t
    }

    pub fn last_value(&self) -> f64 {
        f64::from_bits(self.last_bits)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        self.out.to_bytes()
    }

    pub fn heap_bytes(&self) -> usize {
        self.out.heap_bytes()
    }

    /// Differences wrap, so any order decodes to what was written; ascending order is what makes it small.
    pub fn push(&mut self, t: i64, v: f64) {
        if self.count == 0 {
            self.first_t = t;
        } else {
            self.last_delta = put_time(&mut self.out, self.last_t, self.last_delta, t);
        }
        let bits = v.to_bits();
        self.put_xor(bits ^ self.last_bits);
        self.last_t = t;
        self.last_bits = bits;
        self.count += 1;
    }

    fn put_xor(&mut self, xor: u64) {
        if xor == 0 {
            self.out.bit(false);
            return;
        }
        // 5 bits for the leading zeros, as in the paper.
        let leading = (xor.leading_zeros() as u8).min(31);
        let meaningful = 64 - leading - xor.trailing_zeros() as u8;
        let trailing_before = 64 - self.leading - self.meaningful;
        let fits = self.windowed
            && leading >= self.leading
            && xor.trailing_zeros() as u8 >= trailing_before
            // A window much wider than needed costs more than a new one: 11 bits of header.
            && self.meaningful <= meaningful + 11;
        if fits {
            self.out.bits(0b10, 2);
            self.out.bits(xor >> trailing_before, self.meaningful);
        } else {
            self.out.bits(0b11 << 11 | (leading as u64) << 6 | (meaningful - 1) as u64, 13);
            self.out.bits(xor >> (64 - leading - meaningful), meaningful);
            (self.leading, self.meaningful, self.windowed) = (leading, meaningful, true);
        }
    }
}

/// Floats, each followed by its start timestamp: one bit where that is the one before's.
#[derive(Debug, Default)]
pub struct EncoderWithStart {
    pub floats: Encoder,
    last_start: i64,
}

impl EncoderWithStart {
    pub fn last_start_ms(&self) -> i64 {
        self.last_start
    }

    pub fn push(&mut self, t: i64, v: f64, start: i64) {
        self.floats.push(t, v);
        let same = start == self.last_start;
        self.floats.out.bit(!same);
        if !same {
            self.floats.out.bits(start as u64, 64);
            self.last_start = start;
        }
    }
}

/// What the next difference is taken against: this one, or nothing where it does not fit, which is every 24
/// days at the most.
#[inline]
fn remembered(delta: i64) -> i32 {
    i32::try_from(delta).unwrap_or(0)
}

/// Writes a timestamp after `last_t` and answers the difference to remember.
#[inline]
fn put_time(out: &mut BitWriter, last_t: i64, last_delta: i32, t: i64) -> i32 {
    let delta = t.wrapping_sub(last_t);
    put_dod(out, delta.wrapping_sub(last_delta.into()));
    remembered(delta)
}

#[inline]
fn put_dod(out: &mut BitWriter, dod: i64) {
    let zigzag = ((dod << 1) ^ (dod >> 63)) as u64;
    match 64 - zigzag.leading_zeros() {
        0 => out.bits(0b0, 1),
        1..=6 => out.bits(0b10 << 6 | zigzag, 8),
        7..=11 => out.bits(0b110 << 11 | zigzag, 14),
        12..=17 => out.bits(0b1110 << 17 | zigzag, 21),
        18..=36 => out.bits(0b11110 << 36 | zigzag, 41),
        _ => {
            out.bits(0b11111, 5);
            out.bits(zigzag, 64);
        }
    }
}

/// Timestamps alone, as they stand in a chunk: what series of one scrape share.
pub fn encode_times(ts_ms: &[i64]) -> Vec<u8> {
    let mut out = BitWriter::default();
    let (mut last_t, mut last_delta) = (0, 0);
    for (i, &t) in ts_ms.iter().enumerate() {
        if i == 0 {
            out.bits(t as u64, 64);
        } else {
            last_delta = put_time(&mut out, last_t, last_delta, t);
        }
        last_t = t;
    }
    out.to_bytes()
}

/// Appends `count` timestamps that [`encode_times`] wrote.
pub fn decode_times(bytes: &[u8], count: u16, out: &mut Vec<i64>) {
    let mut r = BitCursor::new(bytes);
    let (mut t, mut delta) = (0i64, 0i32);
    out.reserve(count as usize);
    for i in 0..count {
        if i == 0 {
            t = r.take(64) as i64;
        } else {
            r.ready();
            take_time(&mut r, &mut t, &mut delta);
        }
        out.push(t);
    }
}

/// Reads what [`put_time`] wrote: on to the next timestamp and the difference to remember.
#[inline]
fn take_time(r: &mut BitCursor<'_>, t: &mut i64, last_delta: &mut i32) {
    let delta = i64::from(*last_delta).wrapping_add(take_dod(r));
    *t = t.wrapping_add(delta);
    *last_delta = remembered(delta);
}

/// Takes 41 bits at most of those at hand, or makes others ready.
#[inline]
fn take_dod(r: &mut BitCursor<'_>) -> i64 {
    let next = r.peek();
    // Steady scrapes are foreseen to be steady: branches wait for nothing.
    if next >> 63 == 0 {
        r.skip(1);
        return 0;
    }
    let (before, bits) = match next.leading_ones() {
        1 => (2, 6),
        2 => (3, 11),
        3 => (4, 17),
        4 => (5, 36),
        _ => {
            r.skip(5);
            let dod = from_zigzag(r.take(64));
            r.ready();
            return dod;
        }
    };
    r.skip(before);
    from_zigzag(r.at_hand(bits))
}

#[inline]
fn from_zigzag(zigzag: u64) -> i64 {
    (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
}

/// The values of a chunk as they come, each a difference of bits to the one before.
struct Values {
    bits: u64,
    leading: u8,
    meaningful: u8,
}

impl Values {
    fn new() -> Values {
        Values { bits: 0, leading: 0, meaningful: 64 }
    }

    /// Takes 13 bits at most of those at hand, and more as it needs them.
    #[inline]
    fn next(&mut self, r: &mut BitCursor<'_>) -> f64 {
        let next = r.peek();
        if next >> 63 == 0 {
            r.skip(1);
            return f64::from_bits(self.bits);
        }
        if next >> 62 == 0b11 {
            self.leading = (next << 2 >> 59) as u8;
            self.meaningful = (next << 7 >> 58) as u8 + 1;
            r.skip(13);
        } else {
            r.skip(2);
        }
        let shift = 64u8.saturating_sub(self.leading + self.meaningful);
        self.bits ^= r.take(self.meaningful) << shift;
        f64::from_bits(self.bits)
    }
}

/// Appends those of `count` samples, the first of them at `first_t`, that lie within `min_t..=max_t`.
pub fn decode(
    bytes: &[u8],
    count: u16,
    first_t: i64,
    has_start: bool,
    (min_t, max_t): (i64, i64),
    out: &mut Columns,
) {
    let mut r = BitCursor::new(bytes);
    let (mut t, mut delta, mut start, mut values) = (first_t, 0i32, 0i64, Values::new());
    out.ts_ms.reserve(count as usize);
    out.values.reserve(count as usize);
    let others = has_start || !out.start_ts_ms.is_empty() || !out.histograms.is_empty();
    for i in 0..count {
        r.ready();
        if i > 0 {
            take_time(&mut r, &mut t, &mut delta);
        }
        let value = values.next(&mut r);
        if has_start && r.take(1) == 1 {
            start = r.take(64) as i64;
        }
        if t > max_t {
            return;
        }
        if t < min_t {
            continue;
        }
        if others {
            out.push_float(t, value, start);
        } else {
            out.ts_ms.push(t);
            out.values.push(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::sample::stale_nan;
    use proptest::prelude::*;

    fn round_trip(samples: &[(i64, u64, i64)], has_start: bool) {
        let (mut plain, mut with_start) = (Encoder::default(), EncoderWithStart::default());
        for &(t, v, st) in samples {
            plain.push(t, f64::from_bits(v));
            with_start.push(t, f64::from_bits(v), st);
        }
        let e = if has_start { &with_start.floats } else { &plain };
        let mut out = Columns::default();
        decode(&e.to_bytes(), e.count(), e.first_t_ms(), has_start, (i64::MIN, i64::MAX), &mut out);
        let got: Vec<_> =
            (0..out.len()).map(|i| (out.ts_ms[i], out.values[i].to_bits(), out.start(i))).collect();
        let want: Vec<_> = samples.iter().map(|&(t, v, st)| (t, v, if has_start { st } else { 0 })).collect();
        assert_eq!(got, want);
        assert_eq!((e.first_t_ms(), e.last_t_ms()), (want[0].0, want[want.len() - 1].0));
        let (ts, mut times) = (samples.iter().map(|s| s.0).collect::<Vec<_>>(), Vec::new());
        decode_times(&encode_times(&ts), ts.len() as u16, &mut times);
        assert_eq!(times, ts);
    }

    #[test]
    fn open_chunk_of_a_series_is_as_small_as_it_is_thought_to_be() {
        assert_eq!(std::mem::size_of::<Encoder>(), 56);
        assert_eq!(std::mem::size_of::<Option<crate::head::chunk::OpenChunk>>(), 56);
    }

    #[test]
    fn steady_scrapes_take_little() {
        let mut e = Encoder::default();
        for i in 0..120 {
            e.push(1_700_000_000_000 + i * 15_000, 1.0);
        }
        assert!(e.to_bytes().len() < 45, "{} bytes", e.to_bytes().len());
    }

    #[test]
    fn chunk_gives_back_only_the_range_asked() {
        let mut e = Encoder::default();
        for i in 0..100 {
            e.push(i * 10, i as f64);
        }
        let mut out = Columns::default();
        decode(&e.to_bytes(), 100, 0, false, (100, 200), &mut out);
        assert_eq!(out.ts_ms, (10..=20).map(|i| i * 10).collect::<Vec<_>>());
        assert_eq!(out.values[0], 10.0);
    }

    #[test]
    fn staleness_marker_keeps_its_bits() {
        round_trip(
            &[(1, 0.0f64.to_bits(), 0), (2, stale_nan().to_bits(), 0), (3, f64::NAN.to_bits(), 0)],
            false,
        );
    }

    proptest! {
        #[test]
        fn float_chunks_of_any_samples_read_back(mut samples in proptest::collection::vec((any::<i64>(), any::<u64>(), any::<i64>()), 1..200), sorted: bool, has_start: bool) {
            if sorted {
                samples.sort();
            }
            round_trip(&samples, has_start);
        }

        #[test]
        fn likely_samples_survive(start in 0i64..1 << 42, steps in proptest::collection::vec((0i64..40_000, -5000i64..5000), 1..200)) {
            let (mut t, mut v) = (start, 0i64);
            let samples: Vec<_> = steps.iter().map(|(dt, dv)| { t += dt; v += dv; (t, (v as f64 / 8.0).to_bits(), 0) }).collect();
            round_trip(&samples, false);
        }

        #[test]
        fn damage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0u16..200, has_start: bool) {
            let mut out = Columns::default();
            decode(&bytes, count, 0, has_start, (i64::MIN, i64::MAX), &mut out);
            prop_assert_eq!(out.len(), count as usize);
        }
    }
}
