//! Parts of a series put together where some are windows: one after the other, or sample sets that overlap in
//! time.

use std::sync::Arc;

use super::{
    Aggregates, EndedWindow, HistogramFlags, HistogramWindows, Window, WindowColumns, WindowsBuilder,
    push_run, window_index,
};
use crate::columns::SeriesColumns;
use crate::histogram::Histogram;
use crate::sample::is_stale;

/// The columns that all parts with windows have; all of them where every part is raw.
fn shared_aggregates(parts: &[SeriesColumns]) -> Aggregates {
    let of_windows = parts.iter().filter_map(|p| p.windows.as_ref()).map(WindowColumns::aggregates);
    of_windows.fold(Aggregates::ALL, Aggregates::shared)
}

/// The window columns of parts that follow one another in time, in the order of `parts`; `None` if all are
/// raw samples, which need none. A raw sample becomes a window of one.
pub fn concatenate(parts: &[SeriesColumns]) -> Option<WindowColumns> {
    if parts.iter().all(|p| p.windows.is_none()) {
        return None;
    }
    let total = parts.iter().map(|p| p.ts_ms.len()).sum();
    let aggregates = shared_aggregates(parts);
    let mut out = WindowColumns::default();
    for part in parts {
        match &part.windows {
            None => push_run(&mut out.runs, part.ts_ms.len(), 0),
            Some(w) => w.runs.iter().for_each(|r| push_run(&mut out.runs, r.len, r.resolution_ms)),
        }
    }
    let joined = |what: Aggregates, of: &dyn Fn(&WindowColumns) -> &Option<Vec<f64>>, raw: fn(f64) -> f64| {
        aggregates.has(what).then(|| {
            let mut column = Vec::with_capacity(total);
            for part in parts {
                match part.windows.as_ref().and_then(|w| of(w).as_ref()) {
                    Some(c) => column.extend_from_slice(c),
                    None => column.extend(float_values(part).map(raw)),
                }
            }
            column
        })
    };
    // A marker stands for every sample that is no float.
    let as_is = |v: f64| if is_stale(v) { f64::NAN } else { v };
    out.first = joined(Aggregates::FIRST, &|w| &w.first, as_is);
    out.sum = joined(Aggregates::SUM, &|w| &w.sum, as_is);
    out.min = joined(Aggregates::MIN, &|w| &w.min, as_is);
    out.max = joined(Aggregates::MAX, &|w| &w.max, as_is);
    out.reset_sum = joined(Aggregates::RESET_SUM, &|w| &w.reset_sum, |_| 0.0);
    let counts = |what: Aggregates, of: &dyn Fn(&WindowColumns) -> &Option<Vec<u32>>, raw: fn(f64) -> u32| {
        aggregates.has(what).then(|| {
            let mut column = Vec::with_capacity(total);
            for part in parts {
                match part.windows.as_ref().and_then(|w| of(w).as_ref()) {
                    Some(c) => column.extend_from_slice(c),
                    None => column.extend(part.values.iter().map(|v| raw(*v))),
                }
            }
            column
        })
    };
    out.count = counts(Aggregates::COUNT, &|w| &w.count, |v| u32::from(!is_stale(v)));
    out.resets = counts(Aggregates::RESETS, &|w| &w.resets, |_| 0);
    out.changes = counts(Aggregates::CHANGES, &|w| &w.changes, |_| 0);
    if aggregates.has(Aggregates::FIRST) {
        let first = |p: &SeriesColumns| {
            p.windows.as_ref().and_then(|w| w.first_ts_ms.clone()).unwrap_or_else(|| p.ts_ms.clone())
        };
        out.first_ts_ms = Some(match parts {
            [only] => first(only),
            _ => parts.iter().flat_map(|p| first(p).to_vec()).collect(),
        });
    }
    let mut at = 0;
    for part in parts {
        if let Some(w) = &part.windows {
            out.ended.extend(w.ended.iter().map(|e| EndedWindow { at: at + e.at, ..e.clone() }));
        }
        at += part.ts_ms.len();
    }
    let any = parts.iter().any(|p| match &p.windows {
        Some(w) => w.histograms.is_some(),
        None => p.histograms.is_some(),
    });
    out.histograms = any.then(|| Box::new(join_histograms(parts, aggregates, total)));
    Some(out)
}

/// The floats of a raw part; a marker where something else stands.
fn float_values(part: &SeriesColumns) -> impl Iterator<Item = f64> + '_ {
    part.values.iter().enumerate().map(|(i, v)| {
        let is_histogram = part.histograms.as_ref().is_some_and(|h| h[i].is_some());
        if is_histogram { crate::sample::stale_nan() } else { *v }
    })
}

fn join_histograms(parts: &[SeriesColumns], aggregates: Aggregates, total: usize) -> HistogramWindows {
    let mut out = HistogramWindows {
        count: Vec::with_capacity(total),
        flags: Vec::with_capacity(total),
        schema: Vec::with_capacity(total),
        first: Vec::with_capacity(total),
        sum: Vec::with_capacity(total),
        reset_sum: Vec::with_capacity(total),
    };
    for part in parts {
        let n = part.ts_ms.len();
        match (&part.windows, &part.histograms) {
            (Some(WindowColumns { histograms: Some(h), .. }), _) => {
                out.count.extend_from_slice(&h.count);
                out.flags.extend_from_slice(&h.flags);
                out.schema.extend_from_slice(&h.schema);
                out.first.extend_from_slice(&h.first);
                out.sum.extend_from_slice(&h.sum);
                out.reset_sum.extend_from_slice(&h.reset_sum);
                continue;
            }
            (None, Some(all)) => {
                let live: Vec<Option<&Arc<Histogram>>> =
                    all.iter().map(|h| h.as_ref().filter(|h| !h.is_stale())).collect();
                out.count.extend(live.iter().map(|h| u32::from(h.is_some())));
                out.flags.extend(
                    live.iter().map(|h| h.map_or(HistogramFlags::default(), |h| HistogramFlags::of(h))),
                );
                out.schema.extend(live.iter().map(|h| h.map_or(0, |h| h.schema)));
                let copy = |what| live.iter().map(move |h| h.filter(|_| aggregates.has(what)).cloned());
                out.first.extend(copy(Aggregates::FIRST));
                out.sum.extend(copy(Aggregates::SUM));
            }
            _ => {
                out.count.extend(std::iter::repeat_n(0, n));
                out.flags.extend(std::iter::repeat_n(HistogramFlags::default(), n));
                out.schema.extend(std::iter::repeat_n(0, n));
                out.first.extend(std::iter::repeat_n(None, n));
                out.sum.extend(std::iter::repeat_n(None, n));
            }
        }
        out.reset_sum.extend(std::iter::repeat_n(None, n));
    }
    out
}

/// One series out of copies (one at least) that overlap in time and of which some have windows, oldest first.
///
/// Blocks that are live at the same time hold different samples (the catalog sees to it), so windows that
/// meet are sample sets to be put together: [`Window::follow`] where one ends before the other begins,
/// [`Window::interleave`] where they do not. Two windows that tell the very same (a copy of a block) count
/// once, and of two raw samples at one time the later copy's stands, as everywhere.
pub fn merge_overlapping(copies: Vec<SeriesColumns>) -> SeriesColumns {
    let aggregates = shared_aggregates(&copies);
    let mut all: Vec<(Window, usize)> = Vec::with_capacity(copies.iter().map(|c| c.ts_ms.len()).sum());
    for (c, copy) in copies.iter().enumerate() {
        all.extend((0..copy.ts_ms.len()).map(|i| (copy.window(i), c)));
    }
    let begins = |w: &Window| if w.count == 0 { w.ts_ms } else { w.first.ts_ms };
    // By their beginning, so that what lies within a window comes after it.
    all.sort_by_key(|(w, c)| (begins(w), w.ts_ms, *c));
    let mut out = WindowsBuilder::new(aggregates);
    let mut open: Option<Window> = None;
    for (next, _) in all {
        let Some(before) = &mut open else {
            open = Some(next);
            continue;
        };
        let both_raw = before.resolution_ms == 0 && next.resolution_ms == 0;
        if before.ts_ms == next.ts_ms && (both_raw || same(before, &next)) {
            *before = next;
            continue;
        }
        let coarser = before.resolution_ms.max(next.resolution_ms);
        let one_window =
            coarser > 0 && window_index(before.ts_ms, coarser) == window_index(next.ts_ms, coarser);
        if one_window && begins(&next) <= before.ts_ms {
            before.interleave(&next);
        } else if let Some(done) = open.replace(next) {
            out.push(done);
        }
    }
    if let Some(done) = open {
        out.push(done);
    }
    out.finish(copies[0].labels.clone())
}

/// Whether two windows tell the same, as far as is cheap to see: then one is a copy of the other.
fn same(a: &Window, b: &Window) -> bool {
    let bits = |w: &Window| {
        [w.last.value, w.first.value, w.sum, w.min, w.max, w.reset_sum]
            .map(|v| if v.is_nan() { 1 } else { v.to_bits() })
    };
    a.resolution_ms == b.resolution_ms
        && a.count == b.count
        && a.histogram_count == b.histogram_count
        && a.stale == b.stale
        && a.first.ts_ms == b.first.ts_ms
        && (a.resets, a.changes) == (b.resets, b.changes)
        && bits(a) == bits(b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::labels::Labels;
    use crate::rollup::downsample::downsample;
    use crate::source::merge::{SharedTimelines, merge_copies};

    fn series(samples: impl IntoIterator<Item = (i64, f64)>) -> SeriesColumns {
        let (ts, values): (Vec<i64>, Vec<f64>) = samples.into_iter().unzip();
        SeriesColumns {
            labels: Labels::empty(),
            ts_ms: ts.into(),
            values,
            histograms: None,
            start_ts_ms: None,
            windows: None,
        }
    }

    fn windows(series: &SeriesColumns) -> Vec<Window> {
        (0..series.ts_ms.len()).map(|i| series.window(i)).collect()
    }

    /// Small whole numbers, so that sums do not depend on the order.
    fn samples() -> impl Strategy<Value = std::collections::BTreeMap<i64, f64>> {
        proptest::collection::btree_map(0i64..400, (0i32..40).prop_map(f64::from), 2..120)
    }

    proptest! {
        #[test]
        fn windows_that_follow_one_another_are_joined_to_the_whole(samples in samples(), cut in 0.0..1.0f64) {
            let whole = downsample(&series(samples), 30);
            let cut = (whole.ts_ms.len() as f64 * cut) as usize;
            let parts = [(0..cut).collect::<Vec<_>>(), (cut..whole.ts_ms.len()).collect()];
            let parts: Vec<_> = parts.iter().filter(|p| !p.is_empty()).map(|p| whole.pick(p)).collect();
            let joined = merge_copies(parts, &mut SharedTimelines::default());
            prop_assert_eq!(format!("{:?}", windows(&joined)), format!("{:?}", windows(&whole)));
        }

        #[test]
        fn windows_of_samples_that_interleave_hold_all_of_them(samples in samples(), chosen: u128) {
            let first = |i: usize| chosen >> (i % 128) & 1 == 1;
            let numbered = || samples.iter().map(|(t, v)| (*t, *v)).enumerate();
            let parts = [true, false].map(|side| {
                series(numbered().filter(|(i, _)| first(*i) == side).map(|(_, sample)| sample))
            });
            let parts: Vec<_> =
                parts.iter().filter(|p| !p.ts_ms.is_empty()).map(|p| downsample(p, 30)).collect();
            let merged = merge_overlapping(parts);
            let whole = downsample(&series(samples.clone()), 30);
            let seen = |w: &Window| (w.ts_ms, w.first.ts_ms, w.count, w.sum, w.min, w.max);
            // Windows of one span that do not overlap stay two.
            let mut of_span: Vec<Window> = Vec::new();
            for window in windows(&merged) {
                match of_span.last_mut() {
                    Some(last) if window_index(last.ts_ms, 30) == window_index(window.ts_ms, 30) => {
                        last.follow(&window);
                    }
                    _ => of_span.push(window),
                }
            }
            prop_assert_eq!(
                of_span.iter().map(seen).collect::<Vec<_>>(),
                windows(&whole).iter().map(seen).collect::<Vec<_>>()
            );
        }
    }
}
