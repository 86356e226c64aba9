//! A series with its samples in columns, and the columns it has beside them where windows stand in the place
//! of samples.

mod size;
mod windows;

use std::sync::Arc;

use crate::histogram::Histogram;
use crate::labels::Labels;

pub use windows::{Aggregates, EndedWindow, HistogramFlags, HistogramWindows, WindowColumns, WindowRun};

/// A series with its samples, as columns of one length.
#[derive(Clone, Debug)]
pub struct SeriesColumns {
    pub labels: Labels,
    /// Strictly ascending, milliseconds. Series of one scrape may share the allocation, so work per timeline
    /// can be shared too.
    pub ts_ms: Arc<[i64]>,
    /// One per timestamp. Where a histogram stands, its `sum` (so that staleness is seen alike).
    pub values: Vec<f64>,
    /// `None`: only floats. Else one per timestamp, `Some` where the sample is a histogram.
    pub histograms: Option<Vec<Option<Arc<Histogram>>>>,
    /// Start (created) timestamps where any is known, one per timestamp, 0 = unknown. Windows have none.
    pub start_ts_ms: Option<Vec<i64>>,
    /// `None`: every entry is a sample. Else every entry is a window, and the columns above are its last
    /// sample (see [`crate::rollup`]).
    pub windows: Option<WindowColumns>,
}
