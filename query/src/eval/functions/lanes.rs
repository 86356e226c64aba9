//! Several windows at once, for what has to look at every sample of every window.
//!
//! Compensated sums, Welford's moments and regressions give other last digits when they slide (the oldest sample taken out again) than
//! when they are computed anew, and the digits of the latter are upstream's. So they are computed anew; but one window is a
//! chain of additions of which each waits for the one before, and a core that waits has room for the chains of other windows. Each lane does
//! exactly what one window alone would, so the bits are the same.

use super::SeriesWindows;

/// Windows that go side by side.
pub const LANES: usize = 8;

/// One number per lane.
pub type Value = [f64; LANES];

pub const ZERO: Value = [0.0; LANES];

/// What is known of the windows after some of their samples.
pub trait Lanes: Copy {
    /// Whether [`Lanes::add`] looks at times.
    const TIMED: bool;

    /// The `i`th sample of each window, and its time in seconds from the window's zero.
    fn add(&mut self, i: usize, values: &Value, times: &Value);
}

/// [`tsdb::histogram::compensated_add`] in each lane, bit for bit, without branches.
#[inline(always)]
pub fn compensated_add(inc: &Value, sum: &mut Value, comp: &mut Value) {
    for l in 0..LANES {
        let t = sum[l] + inc[l];
        let (big, small) = if sum[l].abs() >= inc[l].abs() { (sum[l], inc[l]) } else { (inc[l], sum[l]) };
        let next = comp[l] + ((big - t) + small);
        comp[l] = if t.is_infinite() { 0.0 } else { next };
        sum[l] = t;
    }
}

/// Leads all windows that are not empty through states that begin with `start`. `zero_ms(step, from)` is the moment from which a window's times
/// are counted, `done(state, lane, step, values)` is told each window when it is complete.
pub fn windows<S: Lanes>(
    w: &SeriesWindows<'_>,
    start: S,
    zero_ms: impl Fn(usize, usize) -> i64,
    mut done: impl FnMut(&S, usize, usize, &[f64]),
) {
    let mut coming = w.windows.iter().enumerate().filter(|(_, (from, to))| from < to).peekable();
    let Some(last) = w.values.len().checked_sub(1) else { return };
    while coming.peek().is_some() {
        let (mut from, mut len, mut steps, mut zero) = ([0; LANES], [0; LANES], [0; LANES], [0; LANES]);
        for (l, (step, &(a, b))) in coming.by_ref().take(LANES).enumerate() {
            (from[l], len[l], steps[l]) = (a as usize, (b - a) as usize, step);
            zero[l] = zero_ms(step, a as usize);
        }
        let mut state = start;
        let mut at = 0;
        // Up to the end of the shortest window, then of the next, … Lanes past their end go on with whatever comes: nobody looks.
        while let Some(end) = len.iter().copied().filter(|len| *len > at).min() {
            for i in at..end {
                let index: [usize; LANES] = std::array::from_fn(|l| (from[l] + i).min(last));
                let values = std::array::from_fn(|l| w.values[index[l]]);
                let times = match S::TIMED {
                    true => std::array::from_fn(|l| (w.ts_ms[index[l]] - zero[l]) as f64 / 1e3),
                    false => ZERO,
                };
                state.add(i, &values, &times);
            }
            at = end;
            for l in (0..LANES).filter(|l| len[*l] == end) {
                done(&state, l, steps[l], &w.values[from[l]..from[l] + end]);
            }
        }
    }
}
