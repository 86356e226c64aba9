//! Floats: delta-of-delta timestamps and XORed values, bit by bit (Pelkonen et al., "Gorilla", VLDB 2015, sections 4.1.1 and 4.1.2).
//!
//! What differs from the paper: timestamps are milliseconds, with classes of 0, 6, 11, 17, 36 and 64 bits for the difference of
//! differences, because real scrapes jitter by a few milliseconds; the first sample is 64 + 64 bits.

use super::Columns;
use crate::bits::{BitReader, BitWriter};

/// Appends samples in ascending order of time.
#[derive(Clone, Debug)]
pub struct Encoder {
    out: BitWriter,
    first_t: i64,
    last_t: i64,
    last_delta: i64,
    last_bits: u64,
    last_start: i64,
    count: u16,
    /// Leading zeros and length of the meaningful bits last written out; length 0 = none yet.
    leading: u8,
    meaningful: u8,
    has_start: bool,
}

impl Encoder {
    /// `has_start`: each sample carries a start timestamp.
    pub fn new(has_start: bool) -> Self {
        Encoder {
            out: BitWriter::default(),
            first_t: 0,
            last_t: 0,
            last_delta: 0,
            last_bits: 0,
            last_start: 0,
            count: 0,
            leading: 0,
            meaningful: 0,
            has_start,
        }
    }

    pub fn count(&self) -> u16 {
        self.count
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

    pub fn has_start(&self) -> bool {
        self.has_start
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        self.out.to_bytes()
    }

    pub fn heap_bytes(&self) -> usize {
        self.out.capacity()
    }

    /// Differences wrap, so any order decodes to what was written; ascending order is what makes it small.
    pub fn push(&mut self, t: i64, v: f64, start: i64) {
        let bits = v.to_bits();
        if self.count == 0 {
            self.first_t = t;
            self.out.bits(t as u64, 64);
            self.out.bits(bits, 64);
        } else {
            let delta = t.wrapping_sub(self.last_t);
            self.put_dod(delta.wrapping_sub(self.last_delta));
            self.last_delta = delta;
            self.put_xor(bits ^ self.last_bits);
        }
        if self.has_start {
            let same = start == self.last_start;
            self.out.bit(!same);
            if !same {
                self.out.bits(start as u64, 64);
                self.last_start = start;
            }
        }
        self.last_t = t;
        self.last_bits = bits;
        self.count += 1;
    }

    fn put_dod(&mut self, dod: i64) {
        let zigzag = ((dod << 1) ^ (dod >> 63)) as u64;
        match 64 - zigzag.leading_zeros() {
            0 => self.out.bits(0b0, 1),
            1..=6 => self.out.bits(0b10 << 6 | zigzag, 8),
            7..=11 => self.out.bits(0b110 << 11 | zigzag, 14),
            12..=17 => self.out.bits(0b1110 << 17 | zigzag, 21),
            18..=36 => self.out.bits(0b11110 << 36 | zigzag, 41),
            _ => {
                self.out.bits(0b11111, 5);
                self.out.bits(zigzag, 64);
            }
        }
    }

    fn put_xor(&mut self, xor: u64) {
        if xor == 0 {
            self.out.bit(false);
            return;
        }
        // 5 bits for the leading zeros, as in the paper.
        let leading = (xor.leading_zeros() as u8).min(31);
        let meaningful = 64 - leading - xor.trailing_zeros() as u8;
        let trailing_before = 64u8.wrapping_sub(self.leading + self.meaningful);
        let fits = self.meaningful != 0
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
            self.leading = leading;
            self.meaningful = meaningful;
        }
    }
}

/// Timestamps alone, as they stand in a chunk: what series of one scrape share.
pub fn encode_times(ts_ms: &[i64]) -> Vec<u8> {
    let mut e = Encoder::new(false);
    for &t in ts_ms {
        if e.count == 0 {
            e.out.bits(t as u64, 64);
        } else {
            let delta = t.wrapping_sub(e.last_t);
            e.put_dod(delta.wrapping_sub(e.last_delta));
            e.last_delta = delta;
        }
        e.last_t = t;
        e.count = 1;
    }
    e.out.to_bytes()
}

/// Appends `count` timestamps that [`encode_times`] wrote.
pub fn decode_times(bytes: &[u8], count: u16, out: &mut Vec<i64>) {
    let mut r = BitReader::new(bytes);
    let (mut t, mut delta) = (0i64, 0i64);
    out.reserve(count as usize);
    for i in 0..count {
        if i == 0 {
            t = r.bits(64) as i64;
        } else {
            delta = delta.wrapping_add(take_dod(&mut r));
            t = t.wrapping_add(delta);
        }
        out.push(t);
    }
}

#[inline]
fn take_dod(r: &mut BitReader<'_>) -> i64 {
    let zigzag = if !r.bit() {
        return 0;
    } else if !r.bit() {
        r.bits(6)
    } else if !r.bit() {
        r.bits(11)
    } else if !r.bit() {
        r.bits(17)
    } else if !r.bit() {
        r.bits(36)
    } else {
        r.bits(64)
    };
    (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
}

/// Appends those of `count` samples that lie within `min_t..=max_t`.
pub fn decode(bytes: &[u8], count: u16, has_start: bool, min_t: i64, max_t: i64, out: &mut Columns) {
    let mut r = BitReader::new(bytes);
    let (mut t, mut delta, mut bits, mut start) = (0i64, 0i64, 0u64, 0i64);
    let (mut leading, mut meaningful) = (0u8, 64u8);
    out.ts_ms.reserve(count as usize);
    out.values.reserve(count as usize);
    for i in 0..count {
        if i == 0 {
            t = r.bits(64) as i64;
            bits = r.bits(64);
        } else {
            delta = delta.wrapping_add(take_dod(&mut r));
            t = t.wrapping_add(delta);
            if r.bit() {
                if r.bit() {
                    let header = r.bits(11);
                    leading = (header >> 6) as u8;
                    meaningful = (header & 63) as u8 + 1;
                }
                let shift = 64u8.saturating_sub(leading + meaningful);
                bits ^= r.bits(meaningful) << shift;
            }
        }
        if has_start && r.bit() {
            start = r.bits(64) as i64;
        }
        if t > max_t {
            return;
        }
        if t >= min_t {
            out.push_float(t, f64::from_bits(bits), start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::stale_nan;
    use proptest::prelude::*;

    fn round_trip(samples: &[(i64, u64, i64)], has_start: bool) {
        let mut e = Encoder::new(has_start);
        for &(t, v, st) in samples {
            e.push(t, f64::from_bits(v), st);
        }
        let mut out = Columns::default();
        decode(&e.to_bytes(), e.count(), has_start, i64::MIN, i64::MAX, &mut out);
        let got: Vec<_> =
            (0..out.len()).map(|i| (out.ts_ms[i], out.values[i].to_bits(), out.start(i))).collect();
        let want: Vec<_> = samples.iter().map(|&(t, v, st)| (t, v, if has_start { st } else { 0 })).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn steady_scrapes_take_little() {
        let mut e = Encoder::new(false);
        for i in 0..120 {
            e.push(1_700_000_000_000 + i * 15_000, 1.0, 0);
        }
        assert!(e.to_bytes().len() < 60, "{} bytes", e.to_bytes().len());
    }

    #[test]
    fn only_the_range_asked_comes_back() {
        let mut e = Encoder::new(false);
        for i in 0..100 {
            e.push(i * 10, i as f64, 0);
        }
        let mut out = Columns::default();
        decode(&e.to_bytes(), 100, false, 100, 200, &mut out);
        assert_eq!(out.ts_ms, (10..=20).map(|i| i * 10).collect::<Vec<_>>());
        assert_eq!(out.values[0], 10.0);
    }

    #[test]
    fn the_staleness_marker_keeps_its_bits() {
        round_trip(
            &[(1, 0.0f64.to_bits(), 0), (2, stale_nan().to_bits(), 0), (3, f64::NAN.to_bits(), 0)],
            false,
        );
    }

    proptest! {
        #[test]
        fn any_samples_survive(mut samples in proptest::collection::vec((any::<i64>(), any::<u64>(), any::<i64>()), 1..200), sorted: bool, has_start: bool) {
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
            decode(&bytes, count, has_start, i64::MIN, i64::MAX, &mut out);
            prop_assert_eq!(out.len(), count as usize);
        }
    }
}
