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
use super::float;
use crate::block::encode::{Encoded, Payload, constant, decimals, power};
use model::codec::bits::{BitReader, BitWriter};
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

/// Appends those of `count` samples that lie within `min_t..=max_t`. Damaged bytes make fewer samples or
/// others, and no panic.
pub fn decode(times: &[u8], values: &[u8], count: u16, min_t: i64, max_t: i64, out: &mut Columns) {
    let (mut ts, mut vs) = (Vec::new(), Vec::new());
    float::decode_times(times, count, &mut ts);
    if unpack(values, count as usize, &mut vs).is_none() {
        return;
    }
    let from = ts.partition_point(|t| *t < min_t);
    for (t, v) in ts.iter().zip(&vs).skip(from).take_while(|(t, _)| **t <= max_t) {
        out.push_float(*t, *v, 0);
    }
}

fn unpack(mut from: &[u8], count: usize, out: &mut Vec<f64>) -> Option<()> {
    let from = &mut from;
    let byte = |from: &mut &[u8]| {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        Some(byte)
    };
    let exceptions = usize::try_from(take_u64(from)?).ok().filter(|n| *n <= count)?;
    let mut odd = Vec::with_capacity(exceptions);
    for _ in 0..exceptions {
        odd.push((usize::try_from(take_u64(from)?).ok()?, f64::from_bits(take_8(from)?)));
    }
    match byte(from)? {
        CONSTANT => out.resize(count, f64::from_bits(take_8(from)?)),
        DECIMALS => {
            let power = power(i32::from(byte(from)?))?;
            let shift = u32::from(byte(from)?);
            let mut mantissa = take_i64(from)?;
            let blocks = count.saturating_sub(1).div_ceil(BLOCK);
            let heads: Vec<(i64, u8)> =
                (0..blocks).map(|_| Some((take_i64(from)?, byte(from)?.min(64)))).collect::<Option<_>>()?;
            let mut bits = BitReader::new(from);
            out.reserve(count);
            out.push(mantissa as f64 / power);
            for i in 1..count {
                let (least, width) = heads[(i - 1) / BLOCK];
                let delta = least.wrapping_add(bits.bits(width) as i64).wrapping_shl(shift);
                mantissa = mantissa.wrapping_add(delta);
                out.push(mantissa as f64 / power);
            }
        }
        _ => return None,
    }
    for (at, v) in odd {
        *out.get_mut(at)? = v;
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
        let times = float::encode_times(&ts);
        let mut out = Columns::default();
        decode(&times, &packed, values.len() as u16, i64::MIN, i64::MAX, &mut out);
        assert_eq!(out.ts_ms, ts);
        let bits = |v: &[f64]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&out.values), bits(values));
        if let [_, b, .., y, _] = ts[..] {
            let mut part = Columns::default();
            decode(&times, &packed, values.len() as u16, b, y, &mut part);
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
            let mut out = Columns::default();
            decode(&times, &values, count, i64::MIN, i64::MAX, &mut out);
            prop_assert!(out.len() <= count as usize);
        }
    }
}
