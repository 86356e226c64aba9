//! Sums and means of windows that slide, with the bits of sums that are made anew for each window.
//!
//! Upstream adds the samples of each window up from its first, with Neumaier's compensation, and its last
//! digits count. A sum that has samples taken out of it does not have them of itself. Two things make it
//! possible all the same:
//!
//! - Where all values are whole multiples of one power of two and few enough bits long, no addition rounds,
//!   in whatever order ([`exact_sums`]): numbers of things, bytes, states, halves and quarters.
//! - Else the sum slides in twice the precision, beside bounds for how far it and upstream's sum are from the
//!   true one ([`SlidingSum`]). Mostly all that lies within the bounds rounds to one number, which then is
//!   upstream's. Where it does not, that window is added up as upstream does.

use model::histogram::compensated_add;

use super::kernel::SeriesWindows;
use crate::column::Column;

/// A window slides where at most one sample in so many changes: moving one costs several plain additions.
const WORTH: usize = 6;

/// Half the distance from 1 to the next number: how much an addition may round by, relative to its result.
const U: f64 = f64::EPSILON / 2.0;

/// Sums of absolute values for which nothing here overflows, or underflows in a product of bounds.
const RANGE: std::ops::Range<f64> = 1e-250..1e300;

/// `sum_over_time` of all windows.
pub(super) fn sums(w: &SeriesWindows<'_>, out: &mut Column) -> bool {
    if !overlaps(w) {
        return w.each(out, sum_floats);
    }
    if exact_sums(w, |step, sum, _| out.set_float(step, sum)) {
        return true;
    }
    let mut sliding = SlidingSum::default();
    for (step, &(from, to)) in w.windows.iter().enumerate().filter(|(_, (from, to))| from < to) {
        // At worst it is added up anew.
        if w.meter.stop((to - from) as usize) {
            break;
        }
        out.set_float(step, sliding.move_to(w.values, from as usize, to as usize));
    }
    true
}

/// `avg_over_time` of all windows. Upstream divides the plain sum and the compensation apart, and what the
/// plain sum has rounded by depends on where the window begins: so only means of exact sums slide.
pub(super) fn means(w: &SeriesWindows<'_>, out: &mut Column) -> bool {
    if overlaps(w) && exact_sums(w, |step, sum, n| out.set_float(step, sum / n)) {
        return true;
    }
    w.each(out, avg_floats)
}

/// The compensated sum of a window.
pub(super) fn sum_floats(values: &[f64]) -> f64 {
    let (mut sum, mut c) = (0.0, 0.0);
    for v in values {
        (sum, c) = compensated_add(*v, sum, c);
    }
    if sum.is_infinite() { sum } else { sum + c }
}

/// Sum over count, or the running mean from where the sum would overflow.
pub(super) fn avg_floats(values: &[f64]) -> f64 {
    let (mut sum, mut c, mut mean) = (values[0], 0.0, 0.0);
    let mut incremental = false;
    let mut count = 1.0;
    for (i, v) in values.iter().enumerate().skip(1) {
        count = (i + 1) as f64;
        if !incremental {
            let next = compensated_add(*v, sum, c);
            if !next.0.is_infinite() {
                (sum, c) = next;
                continue;
            }
            incremental = true;
            mean = sum / (count - 1.0);
            c /= count - 1.0;
        }
        let q = (count - 1.0) / count;
        (mean, c) = compensated_add(*v / count, q * mean, q * c);
    }
    if incremental { mean + c } else { sum / count + c / count }
}

/// Whether windows share enough for sliding to pay.
fn overlaps(w: &SeriesWindows<'_>) -> bool {
    let (mut all, mut changed, mut last) = (0, 0, (0, 0));
    for &(from, to) in w.windows.iter().filter(|(from, to)| from < to) {
        all += (to - from) as usize;
        changed += (from - last.0) as usize + (to - last.1) as usize;
        last = (from, to);
    }
    all > WORTH * changed
}

/// Tells `done` each step's sum and number of samples, if no addition rounds; if one might, tells nothing and
/// returns false.
fn exact_sums(w: &SeriesWindows<'_>, mut done: impl FnMut(usize, f64, f64)) -> bool {
    let longest = w.windows.iter().map(|(from, to)| to - from).max().unwrap_or(0);
    // What comes in is there before what leaves is gone.
    if !sums_are_exact(w.values, 2.0 * f64::from(longest)) {
        return false;
    }
    let (mut sum, mut last) = (0.0, (0, 0));
    for (step, &(from, to)) in w.windows.iter().enumerate().filter(|(_, (from, to))| from < to) {
        let (from, to) = (from as usize, to as usize);
        if from >= last.1 {
            sum = 0.0;
            last = (from, from);
        }
        w.values[last.1..to].iter().for_each(|v| sum += v);
        w.values[last.0..from].iter().for_each(|v| sum -= v);
        last = (from, to);
        done(step, sum, (to - from) as f64);
    }
    true
}

/// Whether sums of `n` of the values at most, in any order, are exact: multiples of the lowest bit of any of
/// them, and below 2^53 of it.
fn sums_are_exact(values: &[f64], n: f64) -> bool {
    let (mut lowest, mut largest) = (f64::INFINITY, 0f64);
    for v in values {
        let bits = v.to_bits() & !(1 << 63);
        if bits == 0 {
            continue;
        }
        // 2^(exponent - 1075) times a whole number, whose low zeros are left out.
        let (exponent, mantissa) = (bits >> 52, bits & ((1 << 52) - 1) | 1 << 52);
        let unit = exponent + u64::from(mantissa.trailing_zeros());
        if !(100..1900).contains(&exponent) {
            return false;
        }
        lowest = lowest.min(f64::from_bits((unit - 52) << 52));
        largest = largest.max(v.abs());
        if largest * n > lowest * (1u64 << 53) as f64 {
            return false;
        }
    }
    true
}

/// `a + b` rounded, and what that rounded off; exact as long as nothing overflows (Knuth).
#[inline]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let of_b = sum - a;
    (sum, (a - (sum - of_b)) + (b - of_b))
}

/// The sum of a window that slides, as upstream would have it.
///
/// Let S be the true sum of a window's n samples and A that of their absolute values.
///
/// *Upstream's sum* is fl(s + c): s is the plain sum, c the sum of what each addition rounded off. Each of
/// those is exact (the branch picks the larger operand), so s + e = S for their true sum e. One is at most U
/// times the partial sum, which is at most A (1 + nU), so their absolute values are at most nUA (1 + nU)
/// together, and adding n numbers up is off by at most nU (1 + nU) of that: |s + c - S| <= n²U²A (1 + 3nU).
///
/// *This sum* is hi + lo, kept apart so that |lo| <= U|hi|. Moving a sample computes hi + v = t + d exactly,
/// then rounds lo + d, which is at most U(|hi| + |t|), once: an error of at most 2U²A, with A of all samples
/// since it began. Then it is normalized exactly. It begins with upstream's own s and c, as far off as they
/// are.
///
/// So s + c lies within `bound` of hi + lo, and if both ends of that stretch round to hi, upstream's sum is
/// hi.
#[derive(Debug, Default)]
struct SlidingSum {
    from: usize,
    to: usize,
    hi: f64,
    lo: f64,
    /// Absolute values added up, those that left as well: too large does no harm but to try in vain.
    absolute: f64,
    /// How far off it was when it began, and samples moved since.
    begun_off: f64,
    moved: f64,
    /// Whether the numbers are such that the bounds hold.
    sound: bool,
}

impl SlidingSum {
    /// The sum of `from..to` of `values`. Neither end moves back from one call to the next.
    fn move_to(&mut self, values: &[f64], from: usize, to: usize) -> f64 {
        let changes = (from - self.from) + (to - self.to);
        if self.sound && from < self.to && WORTH * changes < to - from {
            for v in &values[self.to..to] {
                self.absolute += v.abs();
                self.take(*v);
            }
            for v in &values[self.from..from] {
                self.take(-v);
            }
            self.moved += changes as f64;
            (self.from, self.to) = (from, to);
            if let Some(sum) = self.certain() {
                return sum;
            }
        }
        self.anew(values, from, to)
    }

    #[inline]
    fn take(&mut self, v: f64) {
        let (t, d) = two_sum(self.hi, v);
        (self.hi, self.lo) = two_sum(t, self.lo + d);
    }

    /// The sum if there is only one that upstream can have come to.
    fn certain(&self) -> Option<f64> {
        if self.absolute == 0.0 {
            return Some(0.0);
        }
        if !RANGE.contains(&self.absolute) {
            return None;
        }
        let n = (self.to - self.from) as f64;
        // A tenth more than it is, for the rounding of the bounds themselves and of `lo ± bound`.
        let bound = 1.1 * (U * U * self.absolute * (n * n + 2.0 * self.moved) + self.begun_off)
            + 4.0 * U * self.lo.abs();
        let one = self.hi + (self.lo + bound) == self.hi && self.hi + (self.lo - bound) == self.hi;
        one.then_some(self.hi)
    }

    /// Upstream's way, and a new beginning.
    fn anew(&mut self, values: &[f64], from: usize, to: usize) -> f64 {
        let (mut sum, mut c, mut absolute) = (0.0, 0.0, 0.0);
        for v in &values[from..to] {
            (sum, c) = compensated_add(*v, sum, c);
            absolute += v.abs();
        }
        let n = (to - from) as f64;
        let (hi, lo) = two_sum(sum, c);
        let sound = absolute == 0.0 || RANGE.contains(&absolute);
        *self =
            SlidingSum { from, to, hi, lo, absolute, begun_off: U * U * absolute * n * n, moved: 0.0, sound };
        if sum.is_infinite() { sum } else { sum + c }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a series may hold that makes sums hard: decimals, cancellation, huge beside tiny, halves of last
    /// digits, denormal numbers.
    fn hard() -> impl Strategy<Value = Vec<f64>> {
        let decimal = (-100_000i32..100_000).prop_map(|m| f64::from(m) / 100.0);
        let cancelling = prop_oneof![Just(1e100), Just(-1e100), Just(1.0), Just(0.1), Just(-0.1)];
        let ties = prop_oneof![Just(1.0), Just(U), Just(-U), Just(U * U), Just(1.0 + 2.0 * U), Just(3.0 * U)];
        let denormal = (0u64..1 << 53).prop_map(f64::from_bits);
        let large = (0u64..1 << 60).prop_map(|m| m as f64);
        let odd = prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::MAX), Just(-0.0), any::<f64>()];
        let of = |one: BoxedStrategy<f64>| prop::collection::vec(one, 1..400);
        prop_oneof![
            of(decimal.clone().boxed()),
            of((0.0f64..1e6).boxed()),
            of(cancelling.boxed()),
            of(ties.boxed()),
            of(denormal.clone().boxed()),
            of(large.boxed()),
            of(prop_oneof![60 => decimal, 1 => odd, 1 => denormal].boxed()),
        ]
    }

    proptest! {
        #[test]
        fn sliding_sums_have_the_bits_of_sums_made_anew(values in hard(), length in 1usize..200, by in 1usize..4) {
            let mut sliding = SlidingSum::default();
            let mut from = 0;
            while from < values.len() {
                let to = (from + length).min(values.len());
                let (got, want) = (sliding.move_to(&values, from, to), sum_floats(&values[from..to]));
                prop_assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{from}..{to}: {got:e} for {want:e}");
                from += by;
            }
        }

        #[test]
        fn sums_that_are_called_exact_are_exact(values in hard(), n in 1usize..400) {
            if sums_are_exact(&values, n as f64) {
                let (mut sum, mut c) = (0.0, 0.0);
                for v in &values[..n.min(values.len())] {
                    (sum, c) = compensated_add(*v, sum, c);
                    prop_assert_eq!(c, 0.0);
                }
            }
        }
    }

    #[test]
    fn sums_of_decimals_are_nearly_never_made_anew() {
        let values: Vec<f64> = (0..5000).map(|i| f64::from(i * 7919 % 10_007) / 100.0).collect();
        let mut sliding = SlidingSum::default();
        sliding.move_to(&values, 0, 240);
        for from in 1..4000 {
            let moved = sliding.moved;
            sliding.move_to(&values, from, from + 240);
            assert!(sliding.moved > moved, "made anew at {from}");
        }
        assert!(sums_are_exact(&[0.5, -3.25, 1e9, 0.0, -0.0], 240.0));
        assert!(!sums_are_exact(&[0.1], 240.0) && !sums_are_exact(&[1.0, 1e15], 16.0));
        assert!(!sums_are_exact(&[f64::NAN], 1.0) && !sums_are_exact(&[f64::INFINITY], 1.0));
    }
}
