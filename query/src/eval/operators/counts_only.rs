//! Native histograms of which only count and sum are looked at: buckets are left out as soon as they were
//! read.

use std::sync::Arc;

use model::histogram::{CounterResetHint, Histogram};
use model::rollup::{HistogramFlags, WindowColumns};
use model::source::SeriesColumns;

/// Leaves of each histogram its count and sum, and notes beside them whether the counter was reset since the
/// histogram before, which nobody can tell any more without buckets (upstream
/// `promql/histogram_stats_iterator.go`).
pub(super) fn leave_counts(series: &mut SeriesColumns) {
    if let Some(windows) = &mut series.windows {
        note_resets(windows, series.histograms.as_deref());
        return;
    }
    let mut last: Option<Arc<Histogram>> = None;
    for slot in series.histograms.iter_mut().flatten().flatten() {
        let mut hint = slot.counter_reset_hint;
        // That it was not reset was perhaps said beside another histogram.
        if matches!(hint, CounterResetHint::Unknown | CounterResetHint::NotCounterReset)
            && !slot.is_stale()
            && let Some(last) = &last
        {
            let reset = slot.detect_reset(last);
            hint = if reset { CounterResetHint::CounterReset } else { CounterResetHint::NotCounterReset };
        }
        let counts = Histogram {
            counter_reset_hint: hint,
            schema: slot.schema,
            count: slot.count,
            sum: slot.sum,
            ..Histogram::default()
        };
        let whole = std::mem::replace(slot, Arc::new(counts));
        if !whole.is_stale() {
            last = Some(whole);
        }
    }
}

/// Windows keep their buckets, which are few; what their samples would say of resets is noted all the same.
fn note_resets(windows: &mut WindowColumns, last: Option<&[Option<Arc<Histogram>>]>) {
    let (Some(h), Some(resets)) = (&mut windows.histograms, &windows.resets) else { return };
    for i in 0..h.count.len() {
        if h.count[i] == 0 || h.flags[i].has(HistogramFlags::GAUGE) {
            continue;
        }
        let (mut some, mut none) = (resets[i] > 0, h.count[i] - 1 > resets[i]);
        let before = if i > 0 { last.and_then(|l| l[i - 1].as_ref()) } else { None };
        if let (Some(before), Some(first)) = (before, &h.first[i]) {
            let reset = first.detect_reset(before);
            some |= reset;
            none |= !reset;
        }
        for (found, flag) in [(some, HistogramFlags::RESET), (none, HistogramFlags::NOT_RESET)] {
            if found {
                h.flags[i] |= flag;
            }
        }
    }
}
