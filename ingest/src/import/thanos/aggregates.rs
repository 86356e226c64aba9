//! Thanos' downsampled chunks as Hearth's windows: what they tell is taken over, what they lack is inferred
//! where the numbers prove it, and else estimated.
//!
//! A chunk has up to five chunks inside: count, sum, min and max of each window, and a counter that goes up
//! by what the samples went up, falls lifted, with the chunk's first and last raw value at its ends. (Native
//! histograms: count, sum, and the lifted counter.) Thanos' window `[k*r, (k+1)*r)` becomes Hearth's `(k*r,
//! (k+1)*r]`: a sample exactly on the boundary is counted one window later than Hearth would.
//!
//! | what Hearth keeps | from Thanos |
//! |---|---|
//! | count, sum, min, max | as they are |
//! | first and last value | exact where no sample fell in the window or at its beginning, which counter, min and max together prove; also at a chunk's ends. Else the last is what the next window needs it to be, where that fits; else both are the mean |
//! | growth (`last - first + reset_sum`) | as the counter has it, to the last rounding |
//! | resets, changes | 0 where nothing fell, or all samples are equal; else at least 1; changes: `count - 1` |
//! | times of the first and the last sample | as if the samples lay evenly, the last at the window's end |
//! | staleness markers | Thanos keeps none |
//! | native histograms: last | the counter (for gauges the mean); first: the counter of the window before |

use std::sync::Arc;

use model::codec::varint::take_u64;
use model::histogram::{CounterResetHint, Histogram};
use model::rollup::{Edge, HistogramFlags, Window};

use crate::import::prometheus::bits::Wrong;
use crate::import::prometheus::chunk::{self, Samples};

/// How far two computations of the same growth may lie apart, as a part of the larger.
const ROUNDING: f64 = 1e-9;

/// Appends the windows of a chunk.
pub(in crate::import) fn decode(data: &[u8], resolution_ms: i64, out: &mut Vec<Window>) -> Result<(), Wrong> {
    let mut rest = data;
    let mut parts: [Samples; 5] = Default::default();
    for (n, part) in parts.iter_mut().enumerate() {
        let short = || format!("aggregate {n} is cut short");
        let length = take_u64(&mut rest).ok_or_else(short)?;
        if length == 0 {
            continue;
        }
        let length = usize::try_from(length).ok().and_then(|l| l.checked_add(1)).ok_or_else(short)?;
        let (chunk, after) = rest.split_at_checked(length).ok_or_else(short)?;
        rest = after;
        chunk::decode(chunk[0], &chunk[1..], part).map_err(|e| format!("aggregate {n}: {e}"))?;
    }
    let [count, sum, min, max, counter] = parts;
    let windows = count.ts_ms.len();
    let histograms =
        counter.histograms.iter().any(Option::is_some) || sum.histograms.iter().any(Option::is_some);
    for (name, part) in [("sum", &sum), ("min", &min), ("max", &max)] {
        let absent = histograms && name != "sum" && part.ts_ms.is_empty();
        if part.ts_ms != count.ts_ms && !absent {
            return Err(format!("its {name} has other times than its count"));
        }
    }
    if count.values.iter().any(|c| !(0.0..=f64::from(u32::MAX)).contains(c)) {
        return Err("a count in it is no number of samples".to_string());
    }
    if histograms {
        return of_histograms(&count, &sum, &counter, resolution_ms, out);
    }
    // The first raw value, one for each window, the last raw value.
    let whole = counter.ts_ms.len() == windows + 2 && counter.ts_ms[1..=windows] == count.ts_ms[..];
    let counter = whole.then(|| Counter {
        first: counter.values[0],
        lifted: &counter.values[1..=windows],
        last: counter.values[windows + 1],
    });
    let from = out.len();
    for i in 0..windows {
        let mut w = empty(count.ts_ms[i], count.values[i], resolution_ms);
        (w.sum, w.min, w.max) = (sum.values[i], min.values[i], max.values[i]);
        out.push(w);
    }
    infer(&mut out[from..], counter);
    Ok(())
}

/// A chunk's counter: the raw values at its ends, and the lifted one at each window's end.
struct Counter<'a> {
    first: f64,
    lifted: &'a [f64],
    last: f64,
}

/// A window of which only its place and number of samples are known.
fn empty(ts_ms: i64, count: f64, resolution_ms: i64) -> Window {
    let mut w = Window { resolution_ms, ts_ms, count: count as u32, ..Window::default() };
    (w.min, w.max) = (f64::NAN, f64::NAN);
    // Of the window, up to its label: shorter where the chunk ended in its midst.
    let length = ts_ms.rem_euclid(resolution_ms) + 1;
    let step = length / i64::from(w.count.max(1));
    w.last.ts_ms = ts_ms;
    w.first.ts_ms = ts_ms.saturating_sub(step * i64::from(w.count.max(1) - 1));
    w
}

fn close(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= ROUNDING * a.abs().max(b.abs())
}

/// Fills in the ends and falls of the windows of a chunk of floats.
fn infer(windows: &mut [Window], counter: Option<Counter<'_>>) {
    let n = windows.len();
    for w in windows.iter_mut() {
        let mean = w.sum / f64::from(w.count.max(1));
        (w.first.value, w.last.value) = (mean, mean);
        w.changes = if w.min == w.max { 0 } else { w.count.saturating_sub(1) };
    }
    let Some(counter) = counter else { return };
    // What went up from the end of the window before (or from the first sample) to the end of each.
    let growth = |i: usize| match i {
        0 => counter.lifted[0] - counter.first,
        _ => counter.lifted[i] - counter.lifted[i - 1],
    };
    // Windows in which nothing fell run from their least to their greatest value.
    let mut proven = vec![false; n];
    for i in 0..n {
        let (min, max, g) = (windows[i].min, windows[i].max, growth(i));
        let rises = match i {
            0 => min == counter.first && close(max - min, g),
            // Either it goes on from where the one before ended, or that was a fall and it begins anew.
            _ => {
                let before = windows[i - 1].last.value;
                let goes_on = proven[i - 1] && min >= before && close(max, before + g);
                let begins_anew = proven[i - 1] && min < before && close(max, g);
                goes_on || begins_anew
            }
        };
        if rises || min == max {
            proven[i] = true;
            (windows[i].first.value, windows[i].last.value) = (min, max);
        } else {
            // Where the next one goes on from here, it tells where this one ended.
            let next = windows.get(i + 1).map(|next| (next.min, next.max - growth(i + 1)));
            let fits = |v: &f64| *v >= min && *v <= max;
            let inferred = match next {
                Some((next_min, v)) => Some(v).filter(|v| fits(v) && *v <= next_min),
                None => Some(counter.last).filter(fits),
            };
            if let Some(v) = inferred {
                proven[i] = true;
                windows[i].last.value = v;
            }
            if i == 0 {
                windows[i].first.value = counter.first;
            } else if proven[i - 1] {
                windows[i].first.value = windows[i - 1].last.value.max(min).min(max);
            }
        }
        // The growth that the ends do not tell is what falls took away; where the ends are estimates it
        // corrects them, in either direction.
        let w = &windows[i];
        let at_the_beginning = match i {
            0 => 0.0,
            _ if w.first.value >= windows[i - 1].last.value => w.first.value - windows[i - 1].last.value,
            _ => w.first.value,
        };
        let told = at_the_beginning + w.last.value - w.first.value;
        if !close(told, g) && (g - told).is_finite() {
            windows[i].reset_sum = g - told;
            windows[i].resets = 1;
        }
    }
}

fn of_histograms(
    count: &Samples,
    sum: &Samples,
    counter: &Samples,
    resolution_ms: i64,
    out: &mut Vec<Window>,
) -> Result<(), Wrong> {
    if counter.ts_ms != count.ts_ms {
        return Err("its counter has other times than its count".to_string());
    }
    let mut before: Option<Arc<Histogram>> = None;
    for i in 0..count.ts_ms.len() {
        let there = |part: &Samples| part.histograms.get(i).cloned().flatten();
        let (Some(sum), Some(counter)) = (there(sum), there(counter)) else {
            return Err(format!("window {i} lacks its sum or counter"));
        };
        let mut w = empty(count.ts_ms[i], count.values[i], resolution_ms);
        if w.count == 0 {
            continue;
        }
        w.histogram_count = w.count;
        w.changes = w.count - 1;
        w.schema = counter.schema;
        let gauge = counter.counter_reset_hint == CounterResetHint::Gauge;
        let hinted = |h: &Histogram, hint| Arc::new(Histogram { counter_reset_hint: hint, ..h.clone() });
        let (first, last) = if gauge {
            let mut mean = (*sum).clone();
            mean.div(f64::from(w.count));
            let mean = hinted(&mean, CounterResetHint::Gauge);
            (mean.clone(), mean)
        } else {
            let last = hinted(&counter, CounterResetHint::Unknown);
            (before.replace(last.clone()).unwrap_or_else(|| last.clone()), last)
        };
        w.flags = HistogramFlags::of(&last);
        // Thanos marks every sum as a gauge, so that its chunks take it.
        let hint = if gauge { CounterResetHint::Gauge } else { CounterResetHint::Unknown };
        w.histogram_sum = Some(hinted(&sum, hint));
        w.first = Edge { ts_ms: w.first.ts_ms, value: first.sum, histogram: Some(first) };
        w.last = Edge { ts_ms: w.last.ts_ms, value: last.sum, histogram: Some(last) };
        out.push(w);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::source::testing::rng::Rng;

    use super::*;

    /// Windows of samples as Thanos has them, and the counter over them.
    fn windows(of: &[&[f64]]) -> Vec<Window> {
        let all: Vec<f64> = of.iter().flat_map(|w| w.iter().copied()).collect();
        let mut lifted = Vec::new();
        let (mut total, mut before) = (all[0], all[0]);
        for w in of {
            for v in *w {
                total += if *v < before { *v } else { v - before };
                before = *v;
            }
            lifted.push(total);
        }
        let mut out: Vec<Window> = of
            .iter()
            .enumerate()
            .map(|(i, samples)| {
                let mut w = empty((i as i64 + 1) * 300_000 - 1, samples.len() as f64, 300_000);
                w.sum = samples.iter().sum();
                w.min = samples.iter().copied().fold(f64::INFINITY, f64::min);
                w.max = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                w
            })
            .collect();
        let counter = Counter { first: all[0], lifted: &lifted, last: all[all.len() - 1] };
        infer(&mut out, Some(counter));
        out
    }

    /// What `increase` sees over all of them.
    fn growth(windows: &[Window]) -> f64 {
        let inside: f64 = windows.iter().map(|w| w.last.value - w.first.value + w.reset_sum).sum();
        let between: f64 = windows
            .windows(2)
            .map(|p| {
                let (a, b) = (p[0].last.value, p[1].first.value);
                if b < a { b } else { b - a }
            })
            .sum();
        inside + between
    }

    fn ends(windows: &[Window]) -> Vec<(f64, f64)> {
        windows.iter().map(|w| (w.first.value, w.last.value)).collect()
    }

    #[test]
    fn chunks_that_are_changed_are_read_or_refused() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data/thanos/01M89W83CX57BT0RZM5V20EXBV");
        let bytes = std::fs::read(folder.join("chunks/000001")).unwrap();
        let mut rest = &bytes[8..];
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let length = take_u64(&mut rest).unwrap() as usize;
            assert_eq!(rest[0], chunk::AGGREGATES);
            chunks.push(rest[1..=length].to_vec());
            rest = &rest[length + 5..];
        }
        let mut rng = Rng(3);
        let mut read = 0;
        for _ in 0..3_000 {
            let mut data = chunks[rng.below(chunks.len())].clone();
            if rng.below(3) == 0 {
                data.truncate(rng.below(data.len()));
            }
            for _ in 0..1 + rng.below(3) {
                if !data.is_empty() {
                    // Lengths and first values lie at the front of each part.
                    let at =
                        if rng.below(2) == 0 { rng.below(data.len().min(32)) } else { rng.below(data.len()) };
                    data[at] = rng.below(256) as u8;
                }
            }
            let mut out = Vec::new();
            read += usize::from(decode(&data, 300_000, &mut out).is_ok());
            assert!(out.len() <= 65_535);
        }
        assert!(read > 50, "{read} of the changed chunks were still chunks");
    }

    #[test]
    fn counter_windows_are_exact_wherever_nothing_falls() {
        let found = windows(&[&[1.0, 2.0, 2.0], &[5.0, 6.0], &[6.0, 9.0]]);
        assert_eq!(ends(&found), [(1.0, 2.0), (5.0, 6.0), (6.0, 9.0)]);
        assert!(found.iter().all(|w| w.resets == 0 && w.reset_sum == 0.0));
        // A reset between two windows.
        let found = windows(&[&[100.0, 120.0], &[3.0, 9.0], &[10.0, 11.0]]);
        assert_eq!(ends(&found), [(100.0, 120.0), (3.0, 9.0), (10.0, 11.0)]);
        assert_eq!(growth(&found), 20.0 + 9.0 + 2.0);
    }

    #[test]
    fn reset_inside_a_window_keeps_the_growth_and_the_last_value() {
        let found = windows(&[&[100.0, 120.0], &[130.0, 3.0, 9.0], &[10.0, 11.0]]);
        assert_eq!(found[1].last.value, 9.0, "the next window goes on from it");
        assert_eq!((found[1].resets, found[2].resets), (1, 0));
        assert!((growth(&found) - (20.0 + 10.0 + 9.0 + 2.0)).abs() < 1e-9, "{found:?}");
        let at_the_end = windows(&[&[5.0, 6.0], &[8.0, 1.0, 2.0]]);
        assert_eq!(at_the_end[1].last.value, 2.0, "the chunk's last raw value");
        assert!((growth(&at_the_end) - (1.0 + 2.0 + 2.0)).abs() < 1e-9);
    }

    #[test]
    fn gauge_windows_keep_their_mean_and_the_growth_of_a_counter() {
        let found = windows(&[&[5.0, 1.0, 9.0], &[2.0, 8.0, 4.0], &[7.0, 7.0]]);
        assert_eq!(found[2].last.value, 7.0);
        assert!(found.iter().all(|w| w.min <= w.last.value && w.last.value <= w.max));
        let exact = 1.0 + 8.0 + 2.0 + 6.0 + 4.0 + 3.0;
        assert!((growth(&found) - exact).abs() < 1e-9, "{} and not {exact}", growth(&found));
    }
}
