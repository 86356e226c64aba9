//! The columns that a series of windows has beside those of a series of samples.

use std::sync::Arc;

use crate::histogram::{CounterResetHint, Histogram};

/// Which columns of windows a reader wants; the last sample of each is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Aggregates(u8);

impl Aggregates {
    pub const NONE: Aggregates = Aggregates(0);
    /// [`WindowColumns::count`].
    pub const COUNT: Aggregates = Aggregates(1);
    /// [`WindowColumns::first`] and [`WindowColumns::first_ts_ms`].
    pub const FIRST: Aggregates = Aggregates(2);
    pub const SUM: Aggregates = Aggregates(4);
    pub const MIN: Aggregates = Aggregates(8);
    pub const MAX: Aggregates = Aggregates(16);
    /// [`WindowColumns::reset_sum`].
    pub const RESET_SUM: Aggregates = Aggregates(32);
    pub const RESETS: Aggregates = Aggregates(64);
    pub const CHANGES: Aggregates = Aggregates(128);
    pub const ALL: Aggregates = Aggregates(255);

    /// These and those.
    pub const fn and(self, other: Aggregates) -> Aggregates {
        Aggregates(self.0 | other.0)
    }

    /// What both have.
    pub const fn shared(self, other: Aggregates) -> Aggregates {
        Aggregates(self.0 & other.0)
    }

    /// Whether all of `other` are among these.
    pub const fn has(self, other: Aggregates) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A run of entries of one resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowRun {
    pub len: usize,
    /// 0: raw samples, each a window of its own.
    pub resolution_ms: i64,
}

/// A window whose last sample is a staleness marker: the last sample that is none.
#[derive(Clone, Debug)]
pub struct EndedWindow {
    /// Which entry.
    pub at: usize,
    pub ts_ms: i64,
    /// The float, or the sum where it is a histogram.
    pub value: f64,
    pub histogram: Option<Arc<Histogram>>,
}

/// What windows tell beside their last sample: columns with one entry per window, `None` where they were not
/// asked for. Staleness markers are in no count, sum or extreme; a window of nothing but markers has count 0
/// and is there to hide the series.
#[derive(Clone, Debug, Default)]
pub struct WindowColumns {
    /// Resolutions along the entries; the lengths add up to the number of entries.
    pub runs: Vec<WindowRun>,
    /// Samples, floats and histograms alike.
    pub count: Option<Vec<u32>>,
    /// Time of the first sample; the marker's own in a window of markers. Series of one scrape may share the
    /// allocation.
    pub first_ts_ms: Option<Arc<[i64]>>,
    /// The first sample where it is a float, else NaN.
    pub first: Option<Vec<f64>>,
    /// Of the floats: compensated and rounded once; NaN where there is none.
    pub sum: Option<Vec<f64>>,
    /// Of the floats, by PromQL's rule: any number before NaN; NaN where there is none.
    pub min: Option<Vec<f64>>,
    pub max: Option<Vec<f64>>,
    /// What falls took away: the floats right before a smaller one, added up. A counter grew by
    /// `last - first + reset_sum`.
    pub reset_sum: Option<Vec<f64>>,
    /// Neighbours of which the second fell (or is of the other kind), within the window.
    pub resets: Option<Vec<u32>>,
    /// Neighbours that differ, within the window.
    pub changes: Option<Vec<u32>>,
    /// Windows that end in a marker although they hold samples, ascending.
    pub ended: Vec<EndedWindow>,
    /// `None`: no histogram in any window.
    pub histograms: Option<Box<HistogramWindows>>,
}

/// What windows tell of their histograms, one entry per window.
#[derive(Clone, Debug, Default)]
pub struct HistogramWindows {
    /// How many of the window's samples are histograms.
    pub count: Vec<u32>,
    /// What was met among them, see [`HistogramFlags`].
    pub flags: Vec<HistogramFlags>,
    /// The coarsest schema among them; 0 where there is none.
    pub schema: Vec<i32>,
    /// The first sample, where it is a histogram. `None` throughout unless [`Aggregates::FIRST`] was asked
    /// for.
    pub first: Vec<Option<Arc<Histogram>>>,
    /// Their sum, unless exponential and custom buckets met ([`Aggregates::SUM`]).
    pub sum: Vec<Option<Arc<Histogram>>>,
    /// Those right before a reset, added up; `None` where there was no reset ([`Aggregates::RESET_SUM`]).
    pub reset_sum: Vec<Option<Arc<Histogram>>>,
}

/// What was met among the histograms of a window that decides about remarks and whether they can be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HistogramFlags(u8);

impl HistogramFlags {
    /// A histogram said that the counter was reset before it.
    pub const RESET: HistogramFlags = HistogramFlags(1);
    /// One said that it was not.
    pub const NOT_RESET: HistogramFlags = HistogramFlags(2);
    pub const GAUGE: HistogramFlags = HistogramFlags(4);
    pub const EXPONENTIAL: HistogramFlags = HistogramFlags(8);
    pub const CUSTOM: HistogramFlags = HistogramFlags(16);
    /// Custom bounds differed: the sum has those that all share.
    pub const RECONCILED: HistogramFlags = HistogramFlags(32);

    /// The flags as a number, and back; bits without a meaning are dropped.
    pub fn number(self) -> u8 {
        self.0
    }

    pub fn from_number(n: i32) -> HistogramFlags {
        HistogramFlags((n & 63) as u8)
    }

    /// Whether all of `other` are set.
    pub fn has(self, other: HistogramFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Exponential and custom buckets met.
    pub fn is_mixed(self) -> bool {
        self.has(HistogramFlags(Self::EXPONENTIAL.0 | Self::CUSTOM.0))
    }

    /// What one histogram adds.
    pub fn of(h: &Histogram) -> HistogramFlags {
        let hint = match h.counter_reset_hint {
            CounterResetHint::CounterReset => Self::RESET.0,
            CounterResetHint::NotCounterReset => Self::NOT_RESET.0,
            CounterResetHint::Gauge => Self::GAUGE.0,
            CounterResetHint::Unknown => 0,
        };
        let kind = if h.uses_custom_buckets() { Self::CUSTOM.0 } else { Self::EXPONENTIAL.0 };
        HistogramFlags(hint | kind)
    }
}

impl std::ops::BitOrAssign for HistogramFlags {
    fn bitor_assign(&mut self, other: HistogramFlags) {
        self.0 |= other.0;
    }
}
