//! How a slice of float values is written: as one constant, as decimal mantissas, or as they are; every bit
//! pattern comes back.
//!
//! Most values that people export are short decimals, and a decimal's mantissa is an integer that packs well
//! where its double does not (the idea of ALP, Afroozeh et al., SIGMOD 2023, and of VictoriaMetrics, here
//! without loss: a mantissa stands only where dividing gives the very bits back).

use std::sync::LazyLock;

/// Powers of ten that a double holds exactly and that are of use: an exponent of 17 already has more digits
/// than a double.
const POWERS: [f64; 18] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17];

/// Mantissas are below this, so that they are exact as doubles too.
pub(crate) const MANTISSA_LIMIT: i64 = 1 << 53;

/// The encodings of a row of `samples.parquet`, by the names that stand in its column `enc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// One value for all.
    Const,
    /// Mantissas, packed as differences: counters and slow gauges.
    Vi,
    /// Mantissas, byte planes apart: noisy gauges.
    Vb,
    /// Doubles, byte planes apart: no decimals.
    Vf,
    /// Doubles as they are: no decimals, but values that come again.
    Vp,
    /// Native histograms.
    Hist,
}

impl Encoding {
    pub const ALL: [Encoding; 6] =
        [Encoding::Const, Encoding::Vi, Encoding::Vb, Encoding::Vf, Encoding::Vp, Encoding::Hist];

    pub fn as_str(self) -> &'static str {
        match self {
            Encoding::Const => "const",
            Encoding::Vi => "vi",
            Encoding::Vb => "vb",
            Encoding::Vf => "vf",
            Encoding::Vp => "vp",
            Encoding::Hist => "hist",
        }
    }

    pub fn from_name(name: &str) -> Option<Encoding> {
        Encoding::ALL.into_iter().find(|e| e.as_str() == name)
    }
}

/// Float values as they go into the columns.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub payload: Payload,
    /// Position (from 0, ascending) and value of what the payload does not hold.
    pub exceptions: Vec<(i32, f64)>,
}

/// What the columns `const`, `vi`, `vb`, `vf` and `vp` hold, one item per value.
#[derive(Clone, Debug)]
pub enum Payload {
    Const(f64),
    Vi { exp: i32, mantissas: Vec<i64> },
    Vb { exp: i32, mantissas: Vec<i64> },
    Vf(Vec<f64>),
    Vp(Vec<f64>),
}

impl Payload {
    pub fn encoding(&self) -> Encoding {
        match self {
            Payload::Const(_) => Encoding::Const,
            Payload::Vi { .. } => Encoding::Vi,
            Payload::Vb { .. } => Encoding::Vb,
            Payload::Vf(_) => Encoding::Vf,
            Payload::Vp(_) => Encoding::Vp,
        }
    }
}

/// Chooses the encoding that looks smallest. `values` must not be empty.
pub fn encode(values: &[f64]) -> Encoded {
    if let Some(encoded) = constant(values) {
        return encoded;
    }
    if let Some((exp, mantissas, exceptions)) = decimals(values) {
        let kept = || mantissas.iter().copied();
        let packed = packed_bits(&mantissas);
        let planes = plane_bits(kept().map(|m| m as u64), mantissas.len());
        let payload = if planes < packed * 0.95 {
            Payload::Vb { exp, mantissas }
        } else {
            Payload::Vi { exp, mantissas }
        };
        return Encoded { payload, exceptions };
    }
    let planes = plane_bits(values.iter().map(|v| v.to_bits()), values.len());
    let payload = if repeat_bits(values) < planes {
        Payload::Vp(values.to_vec())
    } else {
        Payload::Vf(values.to_vec())
    };
    Encoded { payload, exceptions: Vec::new() }
}

/// The value of a mantissa; `None` for an exponent that no writer makes.
#[inline]
pub fn power(exp: i32) -> Option<f64> {
    POWERS.get(usize::try_from(exp).ok()?).copied()
}

/// One value but for staleness markers and the like.
pub(crate) fn constant(values: &[f64]) -> Option<Encoded> {
    let is_odd = |v: f64| !v.is_finite() || v.to_bits() == (-0.0f64).to_bits();
    let bits = values.iter().find(|v| !is_odd(**v)).unwrap_or(&values[0]).to_bits();
    let mut exceptions = Vec::new();
    for (i, v) in values.iter().enumerate() {
        if v.to_bits() != bits {
            // An exception costs nine bytes or so: worth it for a marker now and then only.
            if !is_odd(*v) || exceptions.len() > values.len() / 8 {
                return None;
            }
            exceptions.push((i as i32, *v));
        }
    }
    Some(Encoded { payload: Payload::Const(f64::from_bits(bits)), exceptions })
}

/// The mantissa of a value at an exponent, if dividing it gives the very bits back.
#[inline]
fn mantissa(v: f64, exp: usize) -> Option<i64> {
    // The cast saturates and makes zero of NaN, which the comparison of bits then refuses.
    let m = if exp == 0 { v as i64 } else { (v * POWERS[exp] + 0.5f64.copysign(v)) as i64 };
    let fits = m > -MANTISSA_LIMIT && m < MANTISSA_LIMIT && (m as f64 / POWERS[exp]).to_bits() == v.to_bits();
    fits.then_some(m)
}

fn smallest_exponent(v: f64, from: usize) -> Option<usize> {
    if !v.is_finite() {
        return None;
    }
    (from..POWERS.len()).find(|e| mantissa(v, *e).is_some())
}

/// Exponent, mantissas (of exceptions: that of the value before) and exceptions, if nearly all values are
/// decimals.
#[allow(clippy::type_complexity)]
pub(crate) fn decimals(values: &[f64]) -> Option<(i32, Vec<i64>, Vec<(i32, f64)>)> {
    let exp = exponent(values, 0)?;
    let (mantissas, exceptions) = mantissas_at(values, exp)?;
    Some((exp as i32, mantissas, exceptions))
}

/// How many values may be no decimals where others are.
fn most_exceptions(values: usize) -> usize {
    values / 8 + 1
}

/// The least exponent, no smaller than `from`, at which all values are decimals that are so at any; `None` if
/// too many are so at none.
pub(crate) fn exponent(values: &[f64], from: usize) -> Option<usize> {
    let limit = most_exceptions(values.len());
    // Eight values tell most vectors that are no decimals, at a tenth of the cost of asking all.
    let step = values.len().div_ceil(8).max(1);
    let sampled = values.len().div_ceil(step);
    let is_odd = |v: &&f64| v.is_finite() && smallest_exponent(**v, from).is_none();
    let odd = values.iter().step_by(step).filter(is_odd).count();
    if odd * 2 > sampled {
        return None;
    }
    let mut exp = from;
    let mut refused = 0;
    for v in values {
        if mantissa(*v, exp).is_none() {
            match smallest_exponent(*v, exp + 1) {
                Some(larger) => exp = larger,
                None => {
                    refused += 1;
                    if refused > limit {
                        return None;
                    }
                }
            }
        }
    }
    Some(exp)
}

/// Mantissas of all values at an exponent (of exceptions: that of the value before) and exceptions; `None` if
/// these are too many.
#[allow(clippy::type_complexity)]
pub(crate) fn mantissas_at(values: &[f64], exp: usize) -> Option<(Vec<i64>, Vec<(i32, f64)>)> {
    let limit = most_exceptions(values.len());
    let mut mantissas = Vec::with_capacity(values.len());
    let mut exceptions = Vec::new();
    let mut before = values.iter().find_map(|v| mantissa(*v, exp))?;
    for (i, v) in values.iter().enumerate() {
        match mantissa(*v, exp) {
            Some(m) => before = m,
            None => {
                if exceptions.len() == limit {
                    return None;
                }
                exceptions.push((i as i32, *v));
            }
        }
        mantissas.push(before);
    }
    Some((mantissas, exceptions))
}

/// Bits that DELTA_BINARY_PACKED takes for these, in blocks of four miniblocks of 32.
pub(crate) fn packed_bits(mantissas: &[i64]) -> f64 {
    let mut bits = 0u64;
    let mut deltas = [0i64; 128];
    let mut from = 0;
    while from + 1 < mantissas.len() {
        let block = &mantissas[from..mantissas.len().min(from + 129)];
        let n = block.len() - 1;
        let mut least = i64::MAX;
        for i in 0..n {
            // Mantissas are below 2^53, and what is told from others below 2^60: no difference overflows.
            deltas[i] = block[i + 1] - block[i];
            least = least.min(deltas[i]);
        }
        // Least difference and four widths.
        bits += 8 + 32;
        for mini in deltas[..n].chunks(32) {
            let widest = mini.iter().fold(0, |w, d| w | (d - least) as u64);
            bits += mini.len() as u64 * u64::from(64 - widest.leading_zeros());
        }
        from += n;
    }
    bits as f64
}

/// `n * log2(n)` for small n: the entropy below needs it for every count.
static N_LOG_N: LazyLock<Vec<f32>> =
    LazyLock::new(|| (0..4096u32).map(|n| if n == 0 { 0.0 } else { n as f32 * (n as f32).log2() }).collect());

fn n_log_n(n: usize) -> f32 {
    N_LOG_N.get(n).copied().unwrap_or_else(|| n as f32 * (n as f32).log2())
}

/// Bits after splitting into byte planes and entropy coding each: the sum of the planes' order-0 entropies.
fn plane_bits(words: impl Iterator<Item = u64> + Clone, n: usize) -> f64 {
    let first = words.clone().next().unwrap_or(0);
    let varying = words.clone().fold(0, |v, w| v | (w ^ first));
    let mut bits = 0.0;
    for plane in 0..8 {
        if (varying >> (8 * plane)) & 0xff == 0 {
            continue;
        }
        let mut counts = [0u32; 256];
        for w in words.clone() {
            counts[(w >> (8 * plane)) as usize & 0xff] += 1;
        }
        let used = counts.iter().filter(|c| **c > 0).count();
        let spent: f32 = counts.iter().filter(|c| **c > 0).map(|c| n_log_n(*c as usize)).sum();
        // The table of an entropy coder is paid per page, of which a slice is a small part; a few bits stand
        // for it.
        bits += f64::from(n_log_n(n) - spent) + used as f64;
    }
    bits
}

/// Bits after zstd has replaced whole values that came before: a guess of twenty bits a repetition (two in a
/// run), and 56 a new value.
fn repeat_bits(values: &[f64]) -> f64 {
    let mut seen = hashbrown::HashSet::with_capacity(values.len());
    let mut bits = 0.0;
    let mut before = None;
    for v in values {
        let b = v.to_bits();
        bits += if before == Some(b) {
            2.0
        } else if seen.insert(b) {
            56.0
        } else {
            20.0
        };
        before = Some(b);
    }
    bits
}

/// Turns mantissas into values, appended to `out`; `None` for an exponent that no writer makes.
pub fn decode_mantissas(mantissas: &[i64], exp: i32, out: &mut Vec<f64>) -> Option<()> {
    let p = power(exp)?;
    if exp == 0 {
        out.extend(mantissas.iter().map(|m| *m as f64));
    } else {
        out.extend(mantissas.iter().map(|m| *m as f64 / p));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(e: &Encoded, n: usize) -> Vec<f64> {
        let mut out = Vec::new();
        match &e.payload {
            Payload::Const(v) => out.resize(n, *v),
            Payload::Vi { exp, mantissas } | Payload::Vb { exp, mantissas } => {
                decode_mantissas(mantissas, *exp, &mut out).unwrap();
            }
            Payload::Vf(v) | Payload::Vp(v) => out.extend_from_slice(v),
        }
        for (i, v) in &e.exceptions {
            out[*i as usize] = *v;
        }
        out
    }

    fn assert_survives(values: &[f64]) -> Encoding {
        let e = encode(values);
        let back: Vec<u64> = decode(&e, values.len()).iter().map(|v| v.to_bits()).collect();
        assert_eq!(back, values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), "{e:?}");
        e.payload.encoding()
    }

    #[test]
    fn typical_series_get_the_encoding_made_for_them() {
        let stale = model::sample::stale_nan();
        assert_eq!(assert_survives(&[1.0; 480]), Encoding::Const);
        assert_eq!(assert_survives(&[0.1, 0.1, 0.1, 0.1, stale]), Encoding::Const);
        assert_eq!(assert_survives(&[stale]), Encoding::Const);
        assert_eq!(assert_survives(&[-0.0, -0.0]), Encoding::Const);
        let counter: Vec<f64> = (0..480).map(|i| 1e9 + f64::from(i * 17 + i % 3)).collect();
        assert_eq!(assert_survives(&counter), Encoding::Vi);
        let seconds: Vec<f64> = (0..480).map(|i| f64::from(i * 15 + i % 7) / 100.0).collect();
        assert_eq!(assert_survives(&seconds), Encoding::Vi);
        let irrational: Vec<f64> = (1..480).map(|i| f64::from(i).sqrt()).collect();
        assert_eq!(assert_survives(&irrational), Encoding::Vf);
        let few: Vec<f64> = (1..480).map(|i| f64::from(i * i % 61 + 2).ln()).collect();
        assert_eq!(assert_survives(&few), Encoding::Vp);
        let mut ended = counter.clone();
        ended.push(stale);
        assert_eq!(assert_survives(&ended), Encoding::Vi);
    }

    #[test]
    fn extremes_survive() {
        let odd = [
            0.0,
            -0.0,
            f64::NAN,
            f64::from_bits(0x7ff8_0000_dead_beef),
            f64::from_bits(0xfff0_0000_0000_0001),
            model::sample::stale_nan(),
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE,
            f64::from_bits(1),
            f64::MAX,
            f64::MIN,
            9007199254740991.0,
            9007199254740992.0,
            9007199254740993.0,
            -9007199254740991.0,
            4503599627370497.5,
            1e22,
            1e-17,
            0.1 + 0.2,
        ];
        assert_survives(&odd);
        for a in odd {
            assert_survives(&[a]);
            for b in odd {
                assert_survives(&[a, b]);
                let mut long = vec![a; 40];
                long.push(b);
                long.extend((0..40).map(f64::from));
                assert_survives(&long);
            }
        }
    }

    proptest! {
        #[test]
        fn encoding_keeps_every_bit_pattern(bits in proptest::collection::vec(any::<u64>(), 1..200)) {
            assert_survives(&bits.iter().map(|b| f64::from_bits(*b)).collect::<Vec<_>>());
        }

        #[test]
        fn decimals_with_strangers_survive(
            mantissas in proptest::collection::vec(-100_000i64..100_000_000, 1..300),
            exp in 0usize..12,
            strangers in proptest::collection::vec((0usize..300, any::<f64>()), 0..6),
        ) {
            let mut values: Vec<f64> = mantissas.iter().map(|m| *m as f64 / POWERS[exp]).collect();
            for (at, v) in strangers {
                let n = values.len();
                values[at % n] = v;
            }
            assert_survives(&values);
        }
    }
}
