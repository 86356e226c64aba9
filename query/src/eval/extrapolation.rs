//! How what was measured in a window is carried on to the window's edges (upstream `extrapolatedRate`): for
//! one window, and for all windows of a timeline at once.
//!
//! But for a counter's zero, the factor depends on the times alone, and series of one scrape have the same
//! times. So it is worked out once per timeline and step, and a series costs a subtraction, a product and a
//! comparison that says whether its zero may lie within the window.

/// The two ends of what was measured in a window.
pub(crate) struct Extent {
    pub range_start_ms: i64,
    pub range_end_ms: i64,
    pub first_t: i64,
    pub last_t: i64,
    /// Samples less one.
    pub gaps: usize,
}

impl Extent {
    /// Seconds between the ends, and how far beyond each of them the measure is carried on.
    #[inline]
    fn seconds(&self) -> (f64, f64, f64) {
        let mut to_start = (self.first_t - self.range_start_ms) as f64 / 1000.0;
        let mut to_end = (self.range_end_ms - self.last_t) as f64 / 1000.0;
        let sampled = (self.last_t - self.first_t) as f64 / 1000.0;
        let average = sampled / self.gaps as f64;
        let threshold = average * 1.1;
        if to_start >= threshold {
            to_start = average / 2.0;
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        (sampled, to_start, to_end)
    }

    /// What the difference must be multiplied with so that it stands for the whole range; per second where
    /// `rate`. `zero_share`: the first value over the difference, where both say how far back the counter's
    /// zero lies.
    #[inline]
    pub fn factor(&self, zero_share: Option<f64>, rate: bool) -> f64 {
        let (sampled, mut to_start, to_end) = self.seconds();
        if let Some(share) = zero_share {
            let to_zero = sampled * share;
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
        self.finish(sampled, to_start, to_end, rate)
    }

    /// The factor where a start timestamp inside the range stands for a first sample of zero.
    pub fn factor_from(&self, start_ms: i64, rate: bool) -> f64 {
        let mut to_end = (self.range_end_ms - self.last_t) as f64 / 1000.0;
        let average =
            if self.gaps > 0 { (self.last_t - self.first_t) as f64 / 1000.0 / self.gaps as f64 } else { 0.0 };
        if to_end >= average * 1.1 {
            to_end = average / 2.0;
        }
        self.finish((self.last_t - start_ms) as f64 / 1000.0, 0.0, to_end, rate)
    }

    #[inline]
    fn finish(&self, sampled: f64, to_start: f64, to_end: f64, rate: bool) -> f64 {
        let mut factor = if sampled != 0.0 { (sampled + to_start + to_end) / sampled } else { 1.0 };
        if rate {
            factor /= (self.range_end_ms - self.range_start_ms) as f64 / 1000.0;
        }
        factor
    }
}

/// Products from which on their rounding is relative to them.
const NORMAL: f64 = 1e-290;

/// The factors of all windows of one timeline.
#[derive(Debug)]
pub struct Extrapolation {
    /// Per step, the first and the last sample of its window; 0 where it has fewer than two.
    first: Vec<u32>,
    last: Vec<u32>,
    /// Whether both go up by one from step to step, and every window has two samples.
    sliding: bool,
    /// A bit per step whose window has two samples.
    present: Vec<u64>,
    /// The factor where no zero is near.
    factor: Vec<f64>,
    /// Seconds between the first and the last sample.
    sampled: Vec<f64>,
    /// A little more than the seconds that are added in front.
    to_start: Vec<f64>,
}

impl Extrapolation {
    /// `windows` are the samples `from..to` of each step, `end_ms` says where a step's range ends.
    pub fn new(
        ts_ms: &[i64],
        windows: &[(u32, u32)],
        end_ms: impl Fn(usize) -> i64,
        range_ms: i64,
        rate: bool,
    ) -> Extrapolation {
        let steps = windows.len();
        let mut made = Extrapolation {
            first: vec![0; steps],
            last: vec![0; steps],
            sliding: false,
            present: vec![0; steps.div_ceil(64)],
            factor: vec![0.0; steps],
            sampled: vec![0.0; steps],
            to_start: vec![0.0; steps],
        };
        for (step, &(from, to)) in windows.iter().enumerate().filter(|(_, (from, to))| to - from >= 2) {
            let extent = extent(ts_ms, (from, to - 1), end_ms(step), range_ms);
            let (sampled, to_start, to_end) = extent.seconds();
            (made.first[step], made.last[step]) = (from, to - 1);
            made.present[step >> 6] |= 1 << (step & 63);
            made.factor[step] = extent.finish(sampled, to_start, to_end, rate);
            made.sampled[step] = sampled;
            // Not below it, whatever the products of it round to.
            made.to_start[step] = to_start + to_start.abs() * 1e-9;
        }
        let up_by_one = |of: &[u32]| of.windows(2).all(|w| w[0] + 1 == w[1]);
        let all = windows.iter().all(|(from, to)| to - from >= 2);
        made.sliding = all && steps > 0 && up_by_one(&made.first) && up_by_one(&made.last);
        made
    }

    /// A bit per step that has a value.
    pub fn present(&self) -> &[u64] {
        &self.present
    }

    /// Puts the last value of each window less its first into `out`.
    pub fn differences(&self, values: &[f64], out: &mut [f64]) {
        if self.sliding {
            let (first, last) = (self.first[0] as usize, self.last[0] as usize);
            let (first, last) = (&values[first..first + out.len()], &values[last..last + out.len()]);
            out.iter_mut().zip(first.iter().zip(last)).for_each(|(d, (a, b))| *d = b - a);
            return;
        }
        let ends = self.first.iter().zip(&self.last);
        out.iter_mut().zip(ends).for_each(|(d, (a, b))| *d = values[*b as usize] - values[*a as usize]);
    }

    /// Makes of differences (resets made good) what stands for the whole ranges. With `counter` a window
    /// whose zero may be near is handed to `near_zero`, with its step, the indices of its ends and its
    /// difference.
    pub fn apply(
        &self,
        values: &[f64],
        counter: bool,
        out: &mut [f64],
        near_zero: impl Fn(usize, (u32, u32), f64) -> f64,
    ) {
        if !counter {
            return out.iter_mut().zip(&self.factor).for_each(|(d, factor)| *d *= factor);
        }
        for from in (0..out.len()).step_by(64) {
            let to = (from + 64).min(out.len());
            let (out, sampled) = (&mut out[from..to], &self.sampled[from..to]);
            let (to_start, factor) = (&self.to_start[from..to], &self.factor[from..to]);
            let mut differences = [0.0; 64];
            differences[..out.len()].copy_from_slice(out);
            let near = match self.sliding {
                true => {
                    let first = self.first[0] as usize + from;
                    carry_on(&values[first..first + out.len()], sampled, to_start, factor, out)
                }
                false => {
                    let mut first = [0.0; 64];
                    first.iter_mut().zip(&self.first[from..to]).for_each(|(v, at)| *v = values[*at as usize]);
                    carry_on(&first[..out.len()], sampled, to_start, factor, out)
                }
            };
            if !near {
                continue;
            }
            for (i, d) in out.iter_mut().enumerate() {
                let step = from + i;
                let first = values[self.first[step] as usize];
                if may_be_near(first, differences[i], sampled[i], to_start[i]) {
                    *d = near_zero(step, (self.first[step], self.last[step]), differences[i]);
                }
            }
        }
    }
}

/// The extent of a window with these ends.
pub(crate) fn extent(ts_ms: &[i64], (first, last): (u32, u32), range_end_ms: i64, range_ms: i64) -> Extent {
    Extent {
        range_start_ms: range_end_ms - range_ms,
        range_end_ms,
        first_t: ts_ms[first as usize],
        last_t: ts_ms[last as usize],
        gaps: (last - first) as usize,
    }
}

/// Whether a counter's zero may lie nearer than the seconds that are added in front. Never wrong where it
/// says no: `sampled * first / difference` is then more than them by far more than all of it rounds.
#[inline(always)]
fn may_be_near(first: f64, difference: f64, sampled: f64, to_start: f64) -> bool {
    let reach = first * sampled;
    (difference > 0.0) & (first >= 0.0) & !((reach > to_start * difference) & (reach >= NORMAL))
}

/// Multiplies differences with their factors; whether any window's zero may be near.
#[inline]
fn carry_on(first: &[f64], sampled: &[f64], to_start: &[f64], factor: &[f64], out: &mut [f64]) -> bool {
    let n = out.len();
    let (first, sampled, to_start, factor) = (&first[..n], &sampled[..n], &to_start[..n], &factor[..n]);
    let mut near = false;
    for i in 0..n {
        near |= may_be_near(first[i], out[i], sampled[i], to_start[i]);
        out[i] *= factor[i];
    }
    near
}
