//! Samples to windows, and windows to longer ones: pure, one series at a time.
//!
//! What comes out is told in [`crate::window`]. Longer windows made from shorter ones are what they would be made from the samples, to the last rounding
//! of sums, so 5 minutes come from samples and an hour from the 5 minutes.

use crate::source::SeriesColumns;
use crate::window::{Aggregates, WindowsBuilder, window_index};

/// The windows of `resolution_ms` of a series of samples, or of windows of which `resolution_ms` is a multiple. All columns are made; where the input
/// already lacks one, it is missing here too. Start timestamps are not kept.
///
/// The input may be cut anywhere: a window of which only some samples are there is made of those.
pub fn downsample(series: &SeriesColumns, resolution_ms: i64) -> SeriesColumns {
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
