//! The six lists of floats of a row of windows as mantissas of decimals: one exponent for all, and where that
//! packs better, each told from those it is near to.
//!
//! - `first` may be told from the last value of the window before, from which it is one scrape away (in the
//!   row's first window: from its own last);
//! - `min` as how far it is below the lesser of first and last, `max` as how far above the greater;
//! - `sum` as what it is beyond `count * floor((first + last) / 2)`.
//!
//! A mantissa stands only where dividing it gives the very bits back; what is no decimal at the row's
//! exponent is an exception, beside a mantissa without meaning.

use std::borrow::Cow;

use crate::block::encode::{MANTISSA_LIMIT, exponent, mantissas_at, packed_bits, power};

/// The lists, in the order of their columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Aggregate {
    Last,
    First,
    Sum,
    Min,
    Max,
    ResetSum,
}

impl Aggregate {
    pub const ALL: [Aggregate; 6] = {
        use Aggregate::*;
        [Last, First, Sum, Min, Max, ResetSum]
    };

    /// Its bit in the column `relative`.
    pub fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// What a row holds in place of doubles.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Mantissas {
    pub exp: u32,
    /// A bit for each list that is told from others.
    pub relative: u32,
    /// By [`Aggregate`]; none where the row has doubles, or no such list at all.
    pub lists: [Option<Vec<i64>>; 6],
    /// Ascending: number of the aggregate times number of windows, and the window.
    pub x_pos: Vec<i32>,
    pub x: Vec<f64>,
}

/// Takes the lists that are decimals out of a row's; `None` where the samples are none.
pub(crate) fn take_decimals(floats: &mut [Option<Vec<f64>>; 6], count: &[i32]) -> Option<Mantissas> {
    use Aggregate::*;
    let mut exp = 0;
    for of_samples in [Last, First, Min, Max] {
        if let Some(list) = &floats[of_samples as usize] {
            exp = exponent(list, exp)?;
        }
    }
    let mut out = Mantissas { exp: exp as u32, ..Mantissas::default() };
    for which in Aggregate::ALL {
        let Some(list) = &floats[which as usize] else { continue };
        match mantissas_at(list, exp) {
            Some((mantissas, odd)) => {
                let before = which as usize * count.len();
                out.x_pos.extend(odd.iter().map(|(at, _)| (before as i32).saturating_add(*at)));
                out.x.extend(odd.iter().map(|(_, v)| *v));
                out.lists[which as usize] = Some(mantissas);
            }
            // Sums have more digits than what they are of, and are told by themselves.
            None if matches!(which, Sum | ResetSum) => {}
            None => return None,
        }
    }
    out.lists[Last as usize].as_ref()?;
    for (list, mantissas) in floats.iter_mut().zip(&out.lists) {
        if mantissas.is_some() {
            *list = None;
        }
    }
    let told: Vec<(Aggregate, Vec<i64>)> = [First, Sum, Min, Max]
        .into_iter()
        .filter_map(|which| {
            let plain = out.lists[which as usize].as_deref()?;
            let told = told_from_others(which, plain, &out, count)?;
            (packed_bits(&told) < packed_bits(plain)).then_some((which, told))
        })
        .collect();
    for (which, told) in told {
        out.relative |= which.bit();
        out.lists[which as usize] = Some(told);
    }
    Some(out)
}

/// A list told from others, if its numbers stay small enough to be packed.
fn told_from_others(which: Aggregate, plain: &[i64], of_row: &Mantissas, count: &[i32]) -> Option<Vec<i64>> {
    let last = of_row.lists[Aggregate::Last as usize].as_deref()?;
    let first = of_row.lists[Aggregate::First as usize].as_deref();
    let near = Near { last, first, first_is_relative: false, count };
    let one = |(i, m): (usize, &i64)| {
        let told = match which {
            Aggregate::Min => near.of(which, i)?.checked_sub(*m)?,
            _ => m.checked_sub(near.of(which, i)?)?,
        };
        (told.abs() < 1 << 60).then_some(told)
    };
    plain.iter().enumerate().map(one).collect()
}

/// What lists are told from.
struct Near<'a> {
    last: &'a [i64],
    first: Option<&'a [i64]>,
    first_is_relative: bool,
    count: &'a [i32],
}

impl Near<'_> {
    fn first(&self, i: usize) -> Option<i64> {
        match self.first {
            None => self.last.get(i).copied(),
            Some(first) if self.first_is_relative => first.get(i)?.checked_add(self.of(Aggregate::First, i)?),
            Some(first) => first.get(i).copied(),
        }
    }

    /// The number that window `i` of a list is told from; `None` where there is none, or none that fits.
    fn of(&self, which: Aggregate, i: usize) -> Option<i64> {
        let last = *self.last.get(i)?;
        match which {
            Aggregate::First => self.last.get(i.saturating_sub(1)).copied(),
            Aggregate::Min => Some(self.first(i)?.min(last)),
            Aggregate::Max => Some(self.first(i)?.max(last)),
            Aggregate::Sum => {
                let both = self.first(i)?.checked_add(last).filter(|both| both.abs() < MANTISSA_LIMIT)?;
                both.div_euclid(2).checked_mul(i64::from(*self.count.get(i)?))
            }
            Aggregate::Last | Aggregate::ResetSum => None,
        }
    }
}

/// A row's mantissas as they were read; whatever is missing or does not fit together is an error.
pub(crate) struct MantissaRow<'a> {
    pub exp: u32,
    pub relative: u32,
    /// By [`Aggregate`], those that are there and were read.
    pub lists: [Option<&'a [i64]>; 6],
    /// Needed where sums are told from others.
    pub count: &'a [i32],
    pub x_pos: &'a [i32],
    pub x: &'a [f64],
    /// How many windows it has.
    pub windows: usize,
}

impl MantissaRow<'_> {
    /// Values of some windows of a list; `None` where the row does not have it as mantissas.
    pub fn values(&self, which: Aggregate, from: usize, to: usize) -> Result<Option<Cow<'_, [f64]>>, String> {
        let Some(list) = self.lists[which as usize] else { return Ok(None) };
        let power = power(self.exp as i32).ok_or_else(|| format!("its exponent {} is none", self.exp))?;
        let wrong = || format!("its numbers for {which:?} do not fit together");
        let own = list.get(from..to).ok_or_else(wrong)?;
        let mut values: Vec<f64> = if self.relative & which.bit() == 0 {
            own.iter().map(|m| *m as f64 / power).collect()
        } else {
            let near = Near {
                last: self.lists[Aggregate::Last as usize].ok_or_else(wrong)?,
                first: self.lists[Aggregate::First as usize],
                first_is_relative: self.relative & Aggregate::First.bit() != 0,
                count: self.count,
            };
            let one = |(at, m): (usize, &i64)| {
                let near = near.of(which, from + at)?;
                let mantissa = match which {
                    Aggregate::Min => near.checked_sub(*m)?,
                    _ => near.checked_add(*m)?,
                };
                Some(mantissa as f64 / power)
            };
            own.iter().enumerate().map(one).collect::<Option<_>>().ok_or_else(wrong)?
        };
        // Exceptions of other lists lie before and behind.
        let before = which as usize * self.windows;
        let place = |at: usize| i32::try_from(before + at).unwrap_or(i32::MAX);
        let odd =
            self.x_pos.partition_point(|p| *p < place(from))..self.x_pos.partition_point(|p| *p < place(to));
        for at in odd {
            let value = values.get_mut((self.x_pos[at] - place(from)) as usize).ok_or_else(wrong)?;
            *value = *self.x.get(at).ok_or_else(wrong)?;
        }
        Ok(Some(Cow::Owned(values)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::histogram::compensated_add;
    use model::sample::stale_nan;
    use proptest::prelude::*;

    /// Windows of `per_window` samples each: last, first, sum, min, max, and how many samples.
    fn windows(samples: &[f64], per_window: usize) -> ([Option<Vec<f64>>; 6], Vec<i32>) {
        let of = |f: fn(&[f64]) -> f64| Some(samples.chunks(per_window).map(f).collect::<Vec<f64>>());
        let floats = [
            of(|w| w[w.len() - 1]),
            of(|w| w[0]),
            of(|w| {
                let (mut sum, mut rest) = (0.0, 0.0);
                w.iter().for_each(|v| (sum, rest) = compensated_add(*v, sum, rest));
                sum + rest
            }),
            of(|w| w.iter().copied().fold(f64::INFINITY, f64::min)),
            of(|w| w.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            None,
        ];
        (floats, samples.chunks(per_window).map(|w| w.len() as i32).collect())
    }

    /// Everything comes back, whole and in part; which lists are decimals, and which of them told from
    /// others.
    fn assert_survives(floats: &[Option<Vec<f64>>; 6], count: &[i32]) -> Option<Mantissas> {
        let mut left = floats.clone();
        let Some(written) = take_decimals(&mut left, count) else {
            assert_eq!(format!("{left:?}"), format!("{floats:?}"), "what is no decimal is left alone");
            return None;
        };
        let row = MantissaRow {
            exp: written.exp,
            relative: written.relative,
            lists: std::array::from_fn(|i| written.lists[i].as_deref()),
            count,
            x_pos: &written.x_pos,
            x: &written.x,
            windows: count.len(),
        };
        let n = count.len();
        for which in Aggregate::ALL {
            let was = floats[which as usize].as_deref();
            assert_eq!(
                was.is_some(),
                left[which as usize].is_some() || written.lists[which as usize].is_some()
            );
            for (from, to) in [(0, n), (n / 3, n), (n / 2, n / 2 + 1), (0, n - 1)] {
                if let Some(read) = row.values(which, from, to).unwrap() {
                    let bits = |v: &[f64]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&read), bits(&was.unwrap()[from..to]), "{which:?} {from}..{to}");
                }
            }
        }
        Some(written)
    }

    /// 4,000 hundredths, each a step from the one before.
    fn wander(mut level: f64, step: fn(u32) -> f64) -> Vec<f64> {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            level += step((state >> 32) as u32);
            level / 100.0
        };
        (0..4000).map(|_| next()).collect()
    }

    #[test]
    fn counters_are_told_from_the_window_before() {
        let samples = wander(1e9, |roll| f64::from(roll >> 20));
        let (mut floats, count) = windows(&samples, 20);
        (floats[3], floats[4]) = (None, None);
        let written = assert_survives(&floats, &count).unwrap();
        assert_eq!(written.exp, 2);
        assert_ne!(written.relative & Aggregate::First.bit(), 0);
        assert!(written.x.len() < 20, "{} sums are no decimals", written.x.len());
    }

    #[test]
    fn gauges_are_told_from_their_ends() {
        let (floats, count) = windows(&wander(5000.0, |roll| f64::from(roll >> 24) - 127.0), 20);
        let written = assert_survives(&floats, &count).unwrap();
        assert_eq!(written.exp, 2);
        assert!(written.lists[..5].iter().all(Option::is_some));
        assert_ne!(written.relative & Aggregate::Max.bit(), 0);
    }

    #[test]
    fn what_is_no_decimal_stays_a_double() {
        let (floats, count) = windows(&(1..4000).map(|i| f64::from(i).sqrt()).collect::<Vec<_>>(), 20);
        assert_eq!(assert_survives(&floats, &count), None);
        // Windows without floats, and samples of every kind now and then.
        let odd = [f64::NAN, -0.0, f64::INFINITY, f64::NEG_INFINITY, stale_nan(), 0.1 + 0.2, f64::MAX];
        let mut samples: Vec<f64> = (0..4000).map(|i| f64::from(i % 77) / 4.0).collect();
        for (i, v) in odd.into_iter().enumerate() {
            samples[i * 500] = v;
        }
        let (floats, count) = windows(&samples, 20);
        assert!(assert_survives(&floats, &count).unwrap().x.len() >= odd.len());
    }

    #[test]
    fn damage_is_an_error() {
        let (mut floats, count) = windows(&(0..400).map(f64::from).collect::<Vec<_>>(), 20);
        let written = take_decimals(&mut floats, &count).unwrap();
        let row = |exp, relative, last: bool, x: &'static [i32]| MantissaRow {
            exp,
            relative,
            lists: std::array::from_fn(|i| written.lists[i].as_deref().filter(|_| last || i > 0)),
            count: &count,
            x_pos: x,
            x: &[],
            windows: count.len(),
        };
        let sum = |row: MantissaRow<'_>| row.values(Aggregate::Sum, 0, 20).map(|v| v.is_some());
        assert_eq!(sum(row(0, 63, true, &[])), Ok(true));
        assert!(sum(row(18, 63, true, &[])).is_err(), "an exponent that no writer makes");
        assert!(sum(row(0, 63, false, &[])).is_err(), "nothing to tell it from");
        assert!(sum(row(0, 63, true, &[41])).is_err(), "an exception without a value");
        assert!(row(0, 0, true, &[]).values(Aggregate::Last, 10, 21).is_err(), "beyond its end");
    }

    proptest! {
        #[test]
        fn every_bit_pattern_comes_back(
            bits in proptest::collection::vec(any::<u64>(), 1..200),
            whole in proptest::collection::vec(any::<i64>(), 200..400),
            decimals in proptest::collection::vec(-1_000_000i32..1_000_000, 200..400),
        ) {
            let strangers: Vec<f64> = bits.iter().map(|b| f64::from_bits(*b)).collect();
            assert_survives(&windows(&strangers, 7).0, &windows(&strangers, 7).1);
            let whole: Vec<f64> = whole.iter().map(|m| (*m >> (*m & 63)) as f64).collect();
            assert_survives(&windows(&whole, 13).0, &windows(&whole, 13).1);
            let mut decimals: Vec<f64> = decimals.iter().map(|m| f64::from(*m) / 1000.0).collect();
            decimals[100] = strangers[0];
            assert_survives(&windows(&decimals, 11).0, &windows(&decimals, 11).1);
        }
    }
}
