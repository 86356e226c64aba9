//! Floats of a chunk that is closed: times shared with the other series of their scrape, values as one
//! constant or as packed decimals.
//!
//! XORed doubles are quick to append to and take 4 bytes a sample of a node exporter; most of its values are
//! short decimals, whose mantissas are integers a third of that size. So a chunk is written again when it is
//! full: an estimated 20 ns a sample, once.
//!
//! Bytes: how many exceptions, each a place and 8 bytes; then 0 and 8 bytes of the constant, or 1, exponent,
//! shift, the first mantissa, for each block of 32 differences their least and the bits of the rest, and
//! those bits.

use super::Columns;
#[cfg(test)]
use super::float;
use crate::block::encode::{Encoded, Payload, constant, decimals, power};
use model::codec::bits::{BitCursor, BitWriter};
use model::codec::varint::{put_i64, put_u64, take_8, take_i64, take_u64};

const CONSTANT: u8 = 0;
const DECIMALS: u8 = 1;

/// Differences with a least value and a width of their own.
const BLOCK: usize = 32;

/// Packs values; `None` where they are neither constant nor decimals. `values` must not be empty.
pub fn pack(values: &[f64]) -> Option<Vec<u8>> {
    let encoded = match constant(values) {
        Some(encoded) => encoded,
        None => {
            let (exp, mantissas, exceptions) = decimals(values)?;
            Encoded { payload: Payload::Vi { exp, mantissas }, exceptions }
        }
    };
    let mut out = Vec::with_capacity(values.len() * 3 + 32);
    put_u64(&mut out, encoded.exceptions.len() as u64);
    for (at, v) in &encoded.exceptions {
        put_u64(&mut out, *at as u64);
        out.extend_from_slice(&v.to_bits().to_le_bytes());
    }
    match encoded.payload {
        Payload::Const(v) => {
            out.push(CONSTANT);
            out.extend_from_slice(&v.to_bits().to_le_bytes());
        }
        Payload::Vi { exp, mantissas } => {
            out.push(DECIMALS);
            out.push(u8::try_from(exp).ok()?);
            put_mantissas(&mut out, &mantissas);
        }
        _ => return None,
    }
    Some(out)
}

fn put_mantissas(out: &mut Vec<u8>, mantissas: &[i64]) {
    // Mantissas have 53 bits, so that their differences do not overflow.
    let mut deltas: Vec<i64> = mantissas.windows(2).map(|w| w[1] - w[0]).collect();
    // Levels in pages and the like differ by multiples of a power of two.
    let shift = deltas.iter().fold(0, |all, d| all | d).trailing_zeros().min(63) as u8;
    deltas.iter_mut().for_each(|d| *d >>= shift);
    out.push(shift);
    put_i64(out, mantissas[0]);
    let mut bits = BitWriter::default();
    for block in deltas.chunks(BLOCK) {
        let (least, most) = block.iter().fold((i64::MAX, i64::MIN), |(a, b), &d| (a.min(d), b.max(d)));
        let width = 64 - ((most - least) as u64).leading_zeros() as u8;
        put_i64(out, least);
        out.push(width);
        for d in block {
            bits.bits((d - least) as u64, width);
        }
    }
    out.extend_from_slice(&bits.to_bytes());
}

/// Appends those of the samples at these times that lie within `min_t..=max_t`. Damaged bytes make fewer
/// samples or others, and no panic.
pub fn decode(ts_ms: &[i64], values: &[u8], min_t: i64, max_t: i64, out: &mut Columns) {
    let from = ts_ms.partition_point(|t| *t < min_t);
    let to = ts_ms.partition_point(|t| *t <= max_t).max(from);
    let before = out.values.len();
    if unpack(values, ts_ms.len(), &mut out.values).is_none() {
        out.values.truncate(before);
        return;
    }
    out.values.truncate(before + to);
    out.values.drain(before..before + from);
    out.ts_ms.extend_from_slice(&ts_ms[from..to]);
    if !out.histograms.is_empty() {
        out.histograms.resize(out.ts_ms.len(), None);
    }
    if !out.start_ts_ms.is_empty() {
        out.start_ts_ms.resize(out.ts_ms.len(), 0);
    }
}

/// Appends `count` values.
fn unpack(mut from: &[u8], count: usize, out: &mut Vec<f64>) -> Option<()> {
    let from = &mut from;
    let exceptions = usize::try_from(take_u64(from)?).ok().filter(|n| *n <= count)?;
    let mut odd = Vec::with_capacity(exceptions);
    for _ in 0..exceptions {
        let at = usize::try_from(take_u64(from)?).ok().filter(|at| *at < count)?;
        odd.push((at, f64::from_bits(take_8(from)?)));
    }
    let before = out.len();
    match take_byte(from)? {
        CONSTANT => out.resize(before + count, f64::from_bits(take_8(from)?)),
        DECIMALS => {
            let power = power(i32::from(take_byte(from)?))?;
            take_mantissas(from, count, out)?;
            if power != 1.0 {
                out[before..].iter_mut().for_each(|v| *v /= power);
            }
        }
        _ => return None,
    }
    for (at, v) in odd {
        out[before + at] = v;
    }
    Some(())
}

fn take_byte(from: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = from.split_first()?;
    *from = rest;
    Some(byte)
}

/// Appends mantissas, at most one for each sample of a chunk.
fn take_mantissas(from: &mut &[u8], count: usize, out: &mut Vec<f64>) -> Option<()> {
    let mut left = count.checked_sub(1)?;
    let shift = u32::from(take_byte(from)?);
    let mut mantissa = take_i64(from)?;
    // Least difference and bits of each block.
    let mut blocks = [(0i64, 0u8); (u8::MAX as usize).div_ceil(BLOCK)];
    let blocks = blocks.get_mut(..left.div_ceil(BLOCK))?;
    for block in blocks.iter_mut() {
        *block = (take_i64(from)?, take_byte(from)?.min(64));
    }
    let mut bits = BitCursor::new(from);
    out.reserve(count);
    out.push(mantissa as f64);
    for (least, width) in blocks {
        let of_block = left.min(BLOCK);
        left -= of_block;
        out.extend((0..of_block).map(|_| {
            let delta = least.wrapping_add(bits.take(*width) as i64).wrapping_shl(shift);
            mantissa = mantissa.wrapping_add(delta);
            mantissa as f64
        }));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::sample::stale_nan;
    use proptest::prelude::*;

    /// Bytes taken, if it could be packed.
    fn round_trip(values: &[f64]) -> Option<usize> {
        let packed = pack(values)?;
        let ts: Vec<i64> = (0..values.len() as i64).map(|i| 1_795_000_000_000 + i * 15_000 + i % 3).collect();
        let mut out = Columns::default();
        decode(&ts, &packed, i64::MIN, i64::MAX, &mut out);
        assert_eq!(out.ts_ms, ts);
        let bits = |v: &[f64]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&out.values), bits(values));
        if let [_, b, .., y, _] = ts[..] {
            let mut part = Columns::default();
            decode(&ts, &packed, b, y, &mut part);
            assert_eq!(part.ts_ms, ts[1..ts.len() - 1]);
        }
        Some(packed.len())
    }

    #[test]
    fn packed_values_of_node_exporters_take_little() {
        let some = |f: &dyn Fn(i64) -> f64| (0..128).map(f).collect::<Vec<_>>();
        assert_eq!(round_trip(&some(&|_| 1.0)), Some(10));
        let pages = round_trip(&some(&|i| 4096.0 * (1_000_000 + (i * 7 % 9)) as f64)).unwrap();
        assert!(pages < 128, "{pages} bytes of 128 levels in pages");
        let seconds = round_trip(&some(&|i| (123_456 + i * 37 + i % 5) as f64 / 100.0)).unwrap();
        assert!(seconds < 80, "{seconds} bytes of 128 times in hundredths");
        let mut ends = some(&|i| i as f64);
        ends[127] = stale_nan();
        ends[3] = -0.0;
        assert!(round_trip(&ends).unwrap() < 64);
        assert_eq!(round_trip(&some(&|i| (i as f64).sin())), None, "no decimals");
    }

    proptest! {
        #[test]
        fn packed_bits_read_back(bits in proptest::collection::vec(any::<u64>(), 1..200)) {
            round_trip(&bits.into_iter().map(f64::from_bits).collect::<Vec<_>>());
        }

        #[test]
        fn decimals_survive(mantissas in proptest::collection::vec(-(1i64 << 53) + 1..1 << 53, 1..200), exp in 0i32..4, wide: bool) {
            let cut = |m: i64| if wide { m } else { m >> 30 };
            round_trip(&mantissas.into_iter().map(|m| cut(m) as f64 / 10f64.powi(exp)).collect::<Vec<_>>());
        }

        #[test]
        fn damage_never_panics(times in proptest::collection::vec(any::<u8>(), 0..100), values in proptest::collection::vec(any::<u8>(), 0..200), count in 0u16..200) {
            let (mut out, mut ts) = (Columns::default(), Vec::new());
            float::decode_times(&times, count, &mut ts);
            decode(&ts, &values, i64::MIN, i64::MAX, &mut out);
            prop_assert_eq!(out.ts_ms.len(), out.values.len());
            prop_assert!(out.len() <= count as usize);
        }
    }
}
