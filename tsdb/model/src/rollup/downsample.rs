//! Samples to windows, and windows to longer ones: pure, one series at a time.
//!
//! What comes out is told in [`crate::rollup`]. Longer windows made from shorter ones are what they would be
//! made from the samples, to the last rounding of sums, so 5 minutes come from samples and an hour from the 5
//! minutes.

use crate::columns::SeriesColumns;
use crate::histogram::compensated_add;
use crate::rollup::{Aggregates, Edge, Window, WindowsBuilder, changed, window_index};
use crate::sample::is_stale;
use crate::span::span_end;

/// The windows of `resolution_ms` of a series of samples, or of windows of which `resolution_ms` is a
/// multiple. All columns are made; where the input already lacks one, it is missing here too. Start
/// timestamps are not kept.
///
/// The input may be cut anywhere: a window of which only some samples are there is made of those.
pub fn downsample(series: &SeriesColumns, resolution_ms: i64) -> SeriesColumns {
    if series.histograms.is_none() && series.windows.is_none() {
        return floats(series, resolution_ms);
    }
    let aggregates = series.windows.as_ref().map_or(Aggregates::ALL, |w| w.aggregates());
    let mut out = WindowsBuilder::new(aggregates);
    let mut i = 0;
    while i < series.ts_ms.len() {
        let index = window_index(series.ts_ms[i], resolution_ms);
        let mut window = series.window(i);
        i += 1;
        while i < series.ts_ms.len() && window_index(series.ts_ms[i], resolution_ms) == index {
            window.follow(&series.window(i));
            i += 1;
        }
        window.resolution_ms = resolution_ms;
        out.push(window);
    }
    out.finish(series.labels.clone())
}

/// Downsamples a series of floats: every sample is looked at once, in registers.
fn floats(series: &SeriesColumns, resolution_ms: i64) -> SeriesColumns {
    let (ts, values) = (&series.ts_ms, &series.values);
    let mut out = WindowsBuilder::new(Aggregates::ALL);
    let mut from = 0;
    while from < ts.len() {
        let end = span_end(ts[from], resolution_ms);
        let mut to = from + 1;
        while to < ts.len() && ts[to] <= end {
            to += 1;
        }
        let mut w = Window {
            resolution_ms,
            ts_ms: ts[to - 1],
            stale: is_stale(values[to - 1]),
            min: f64::NAN,
            max: f64::NAN,
            ..Window::default()
        };
        let (mut sum, mut rest) = (0.0, 0.0);
        let mut last = 0.0;
        for (t, v) in ts[from..to].iter().zip(&values[from..to]) {
            let v = *v;
            if is_stale(v) {
                continue;
            }
            if w.count == 0 {
                w.first = Edge { ts_ms: *t, value: v, histogram: None };
                (w.min, w.max, sum) = (v, v, v);
            } else {
                if v < last {
                    w.resets += 1;
                    w.reset_sum += last;
                }
                w.changes += u32::from(changed(last, v));
                if v < w.min || w.min.is_nan() {
                    w.min = v;
                }
                if v > w.max || w.max.is_nan() {
                    w.max = v;
                }
                (sum, rest) = compensated_add(v, sum, rest);
            }
            w.count += 1;
            w.last.ts_ms = *t;
            last = v;
        }
        w.last.value = last;
        w.sum = if sum.is_infinite() { sum } else { sum + rest };
        out.push(w);
        from = to;
    }
    out.finish(series.labels.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Labels;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn downsample_of_floats_agrees_with_the_general_way(
            samples in proptest::collection::btree_map(0i64..400, prop_oneof![
                6 => (0i32..40).prop_map(f64::from),
                2 => (-9i32..9).prop_map(|v| f64::from(v) / 3.0),
                1 => Just(f64::NAN),
                1 => Just(f64::INFINITY),
                1 => Just(-0.0),
                2 => Just(crate::sample::stale_nan()),
            ], 1..120),
        ) {
            let (ts, values): (Vec<i64>, Vec<f64>) = samples.into_iter().unzip();
            let series = SeriesColumns {
                labels: Labels::empty(),
                ts_ms: ts.into(),
                values,
                histograms: None,
                start_ts_ms: None,
                windows: None,
            };
            let fast = downsample(&series, 30);
            // Windows of one sample go the general way.
            let general = downsample(&downsample(&series, 1), 30);
            let text = |s: &SeriesColumns| (0..s.ts_ms.len()).map(|i| format!("{:?}", s.window(i))).collect::<Vec<_>>();
            prop_assert_eq!(text(&fast), text(&general));
        }
    }
}
