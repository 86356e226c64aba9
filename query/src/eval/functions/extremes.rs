//! Minimum and maximum of windows that slide.

use std::collections::VecDeque;

use super::kernel::SeriesWindows;
use crate::column::Column;

/// Minimum or maximum of all windows in one pass: a queue of the samples that may yet win, the best in front.
/// `better(old, new)` is strict, so the earliest of equals stays.
pub fn sliding_extreme(w: &SeriesWindows<'_>, out: &mut Column, better: fn(f64, f64) -> bool) -> bool {
    let mut queue: VecDeque<u32> = VecDeque::new();
    let mut next = 0;
    for (step, &(from, to)) in w.windows.iter().enumerate() {
        if from == to {
            continue;
        }
        next = next.max(from);
        while next < to {
            let v = w.values[next as usize];
            if !v.is_nan() {
                while queue.back().is_some_and(|old| better(w.values[*old as usize], v)) {
                    queue.pop_back();
                }
                queue.push_back(next);
            }
            next += 1;
        }
        while queue.front().is_some_and(|old| *old < from) {
            queue.pop_front();
        }
        // No number in the window: NaN it is.
        out.set_float(step, queue.front().map_or(w.values[from as usize], |best| w.values[*best as usize]));
    }
    true
}
