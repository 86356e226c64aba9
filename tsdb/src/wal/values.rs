//! Values of a log record, each as short as its kind allows; nothing is known of the values before it, so
//! that a record stands alone.
//!
//! Half a byte says what a value is, two of them to a byte, all of them first. Then the values' bytes, little
//! end first:
//!
//! | kind | value | bytes |
//! |---|---|---|
//! | 0 to 7 | a whole number below 2^53, zigzag | as many |
//! | 8 | any | 8 |
//! | 9 to 12 | whole hundredths, zigzag | 2, 3, 4, 6 |
//! | 13 | what a single-precision float holds | 4 |
//! | 15 | the staleness marker | 0 |
//!
//! Most of what a node exporter says are whole numbers or hundredths, many of them small.

use model::sample::stale_nan;

const ANY: u8 = 8;
const SINGLE: u8 = 13;
const STALE: u8 = 15;

/// Bytes of the kinds of hundredths, from kind 9 on.
const HUNDREDTHS: [usize; 4] = [2, 3, 4, 6];

/// Largest magnitude of a whole number that is told as one.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

fn unzigzag(z: u64) -> i64 {
    (z >> 1) as i64 ^ -((z & 1) as i64)
}

/// Kind, bytes and how many of them.
#[inline]
fn kind_of(v: f64) -> (u8, u64, usize) {
    let bits = v.to_bits();
    let whole = v as i64;
    // Bits are compared, so that negative zero is not taken for zero.
    if v.abs() < MAX_WHOLE && (whole as f64).to_bits() == bits {
        let z = zigzag(whole);
        let len = (64 - z.leading_zeros() as usize).div_ceil(8);
        return (len as u8, z, len);
    }
    let hundredths = (v * 100.0).round();
    // 47 bits with the sign: what six bytes hold.
    let whole = hundredths as i64;
    if hundredths.abs() < (1u64 << 46) as f64 && (whole as f64 / 100.0).to_bits() == bits {
        let z = zigzag(whole);
        let need = (64 - z.leading_zeros() as usize).div_ceil(8);
        let at = HUNDREDTHS.iter().position(|len| *len >= need).unwrap_or(3);
        return (9 + at as u8, z, HUNDREDTHS[at]);
    }
    if bits == stale_nan().to_bits() {
        return (STALE, 0, 0);
    }
    let single = v as f32;
    // Not for NaN, whose bits a conversion need not keep.
    if f64::from(single).to_bits() == bits && !v.is_nan() {
        return (SINGLE, u64::from(single.to_bits()), 4);
    }
    (ANY, bits, 8)
}

/// Appends values.
pub(super) fn put(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = f64>) {
    let kinds = out.len();
    out.resize(kinds + values.len().div_ceil(2), 0);
    for (i, v) in values.enumerate() {
        let (kind, bytes, len) = kind_of(v);
        out[kinds + i / 2] |= kind << (i % 2 * 4);
        out.extend_from_slice(&bytes.to_le_bytes()[..len]);
    }
}

/// Takes `n` values off the front; `None` where they are cut off or of a kind that there is not.
pub(super) fn take(from: &mut &[u8], n: usize, mut each: impl FnMut(usize, f64)) -> Option<()> {
    let (kinds, mut rest) = from.split_at_checked(n.div_ceil(2))?;
    let word = |rest: &mut &[u8], len: usize| {
        let (bytes, after) = rest.split_at_checked(len)?;
        *rest = after;
        let mut word = [0; 8];
        word[..len].copy_from_slice(bytes);
        Some(u64::from_le_bytes(word))
    };
    for i in 0..n {
        let kind = kinds[i / 2] >> (i % 2 * 4) & 15;
        let value = match kind {
            0..=7 => unzigzag(word(&mut rest, kind as usize)?) as f64,
            ANY => f64::from_bits(word(&mut rest, 8)?),
            9..=12 => unzigzag(word(&mut rest, HUNDREDTHS[kind as usize - 9])?) as f64 / 100.0,
            SINGLE => f64::from(f32::from_bits(word(&mut rest, 4)? as u32)),
            STALE => stale_nan(),
            _ => return None,
        };
        each(i, value);
    }
    *from = rest;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(values: &[f64]) -> usize {
        let mut out = Vec::new();
        put(&mut out, values.iter().copied());
        let mut got = vec![0u64; values.len()];
        let mut from = &out[..];
        take(&mut from, values.len(), |i, v| got[i] = v.to_bits()).unwrap();
        assert!(from.is_empty());
        assert_eq!(got, values.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
        assert!(values.is_empty() || take(&mut &out[..out.len() - 1], values.len(), |_, _| ()).is_none());
        out.len()
    }

    #[test]
    fn log_values_of_every_kind_keep_their_bits() {
        let edge = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            127.0,
            128.0,
            -129.0,
            MAX_WHOLE,
            -MAX_WHOLE,
            MAX_WHOLE - 1.0,
            0.01,
            -0.01,
            703_687_441_776.64,
            703_687_441_776.63,
            0.1,
            0.005,
            1e300,
            f64::MIN_POSITIVE,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            -f64::NAN,
            stale_nan(),
            1.5f32 as f64,
            0.1f32 as f64,
            f64::EPSILON,
            i64::MAX as f64,
            i64::MIN as f64,
        ];
        for v in edge {
            round_trip(&[v]);
        }
        round_trip(&edge);
        assert_eq!(round_trip(&[0.0; 100]), 50, "zeros take half a byte");
        assert_eq!(round_trip(&[51.5; 100]), 50 + 200);
    }

    proptest! {
        #[test]
        fn log_values_of_any_bits_read_back(bits in proptest::collection::vec(any::<u64>(), 0..50), small in proptest::collection::vec(-100_000i64..100_000, 0..50)) {
            round_trip(&bits.into_iter().map(f64::from_bits).collect::<Vec<_>>());
            round_trip(&small.into_iter().map(|v| v as f64 / 100.0).collect::<Vec<_>>());
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100), n in 0usize..200) {
            let mut seen = 0;
            let whole = take(&mut &bytes[..], n, |_, _| seen += 1);
            prop_assert!(whole.is_none() || seen == n);
        }
    }
}
