//! Several windows at once, for what has to look at every sample of every window with a long chain of
//! operations between one and the next.
//!
//! A core that waits for one window's chain has room for those of others. Each lane does exactly what one
//! window alone would, so the bits are the same. Worth it for moments (1.2 to 1.8 times as fast); plain sums
//! and regressions came out no faster and are left alone.

use super::kernel::SeriesWindows;

/// Windows that go side by side.
pub const LANES: usize = 8;

/// One number per lane.
pub type Value = [f64; LANES];

/// [`model::histogram::compensated_add`] in each lane, bit for bit, without branches.
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

/// Leads all windows that are not empty through states that begin with `start`: `add(state, i, values)` takes
/// the `i`th sample of each lane, `done(state, lane, step, n)` is told each window when its `n` samples are
/// in.
pub fn windows<S: Copy>(
    w: &SeriesWindows<'_>,
    start: S,
    add: impl Fn(&mut S, usize, &Value),
    mut done: impl FnMut(&S, usize, usize, usize),
) {
    let mut coming = w.windows.iter().enumerate().filter(|(_, (from, to))| from < to).peekable();
    while coming.peek().is_some() {
        let (mut from, mut len, mut steps) = ([0; LANES], [0; LANES], [0; LANES]);
        for (l, (step, &(a, b))) in coming.by_ref().take(LANES).enumerate() {
            (from[l], len[l], steps[l]) = (a as usize, (b - a) as usize, step);
        }
        if w.meter.stop(len.iter().sum()) {
            return;
        }
        let mut state = start;
        let mut at = 0;
        // Up to the end of the shortest window, then of the next, …
        while let Some(end) = len.iter().copied().filter(|len| *len > at).min() {
            // Lanes that are done go on with the first samples there are: nobody looks.
            let part = |l: usize| if len[l] >= end { from[l] + at } else { 0 };
            let values: [&[f64]; LANES] = std::array::from_fn(|l| &w.values[part(l)..][..end - at]);
            let mut one = |i: usize| add(&mut state, at + i, &std::array::from_fn(|l| values[l][i]));
            (0..end - at).for_each(&mut one);
            at = end;
            for l in (0..LANES).filter(|l| len[*l] == end) {
                done(&state, l, steps[l], end);
            }
        }
    }
}
