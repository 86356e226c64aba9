//! The one seam between storage and queries: whatever holds series answers these questions.
//!
//! Head, bucket, merged view and (later) a remote ingester all implement [`Source`], and one contract suite
//! holds for all of them. Everything here is synchronous: it is called from threads that may block, never
//! from the runtime's own.

pub mod dedup;
pub mod merge;
mod size;
#[doc(hidden)]
pub mod testing;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::rollup::columns::{Aggregates, WindowColumns};

/// One selector's wish.
#[derive(Clone, Debug)]
pub struct Selection {
    /// All must match. A label that a series lacks counts as empty.
    pub matchers: Vec<Matcher>,
    /// First and last timestamp wanted, both included, in milliseconds.
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    /// What the query will do with it: a source may use this to read less, never to answer less.
    pub hints: Hints,
    /// Limits, cancellation and counters of the query this belongs to.
    pub budget: Arc<Budget>,
}

/// What a query will do with a selection.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// Step of the evaluation, 0 for an instant query.
    pub step_ms: i64,
    /// Range of the matrix selector, 0 where there is none.
    pub range_ms: i64,
    /// Falls of the samples will be taken for resets of a counter.
    pub counter: bool,
    /// Only labels and whether there are samples are wanted, not their values.
    pub labels_only: bool,
    /// What can be had from downsampled windows in the place of samples.
    pub rollups: RollupHints,
}

/// What a query can take from downsampled windows. The default wants samples; where none are left, it gets
/// windows all the same, and the series say so.
#[derive(Clone, Debug, Default)]
pub struct RollupHints {
    /// Coarsest resolution that will do; 0 for samples.
    pub max_resolution_ms: i64,
    /// The columns that are looked at beside each window's last sample.
    pub aggregates: Aggregates,
    /// Times that no window may reach across, ascending: samples at or before one are told apart from those
    /// after it.
    pub cuts_ms: Vec<i64>,
    /// Where sources say what answered which part of time.
    pub report: Option<Arc<ResolutionReport>>,
}

/// Which resolution answered which part of time, told by the sources of a query while they read.
#[derive(Debug, Default)]
pub struct ResolutionReport {
    parts: parking_lot::Mutex<Vec<ResolutionPart>>,
}

/// A part of time, ends included, and the resolution that answers it (0: samples).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResolutionPart {
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    pub resolution_ms: i64,
    /// The windows are coarser than the selection could take exactly, because nothing finer is left.
    pub coarse: bool,
    /// The windows were made by another system, which kept less of the samples than Hearth does.
    pub approximate: bool,
}

impl ResolutionPart {
    /// What of it lies in a range of time, both ends included.
    pub fn within(&self, (min_t_ms, max_t_ms): (i64, i64)) -> Option<ResolutionPart> {
        let (min_t_ms, max_t_ms) = (self.min_t_ms.max(min_t_ms), self.max_t_ms.min(max_t_ms));
        (min_t_ms <= max_t_ms).then_some(ResolutionPart { min_t_ms, max_t_ms, ..*self })
    }

    /// Whether what is computed from it is what the samples would have given.
    pub fn exact(&self) -> bool {
        !self.coarse && !self.approximate
    }
}

impl ResolutionReport {
    /// Notes a part.
    pub fn note(&self, part: ResolutionPart) {
        self.parts.lock().push(part);
    }

    /// All that was noted, in order.
    pub fn parts(&self) -> Vec<ResolutionPart> {
        self.parts.lock().clone()
    }
}

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

/// Series in the order of [`Labels::series_cmp`], each label set once, no series without samples.
pub trait SeriesCursor: Send {
    /// The next few series, `None` at the end; never an empty batch.
    fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError>;

    /// The label sets of the series that are still to come, in the cursor's order, each once; some may turn
    /// out to have no sample. `None` where the cursor learns them only by reading: [`Source::series`] tells.
    fn labels_to_come(&self) -> Option<Vec<Labels>> {
        None
    }
}

/// Whatever holds series. Implementations see one consistent state for as long as they live.
pub trait Source: Send + Sync {
    /// The series that match and have samples in the range.
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError>;

    /// The label sets that match any of the selectors (all series for none), ascending by [`Labels`]' order,
    /// each once. Time is taken coarsely: a series that the source holds near the range may be named without
    /// a sample inside it.
    fn series(&self, query: &LabelQuery) -> Result<Vec<Labels>, SourceError>;

    /// The names of labels on such series, ascending, each once.
    fn label_names(&self, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        let mut names: Vec<String> = Vec::new();
        for labels in self.series(query)? {
            for (n, _) in &labels {
                if let Err(at) = names.binary_search_by(|x| x.as_str().cmp(n)) {
                    names.insert(at, n.to_string());
                }
            }
        }
        Ok(names)
    }

    /// The values of one label on such series, ascending, each once, never empty.
    fn label_values(&self, name: &str, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        let mut values: Vec<String> =
            self.series(query)?.iter().filter_map(|l| l.get(name)).map(str::to_string).collect();
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }
}

/// What the label APIs ask.
#[derive(Clone, Debug)]
pub struct LabelQuery {
    /// Selectors, any of which may match; empty means every series.
    pub selectors: Vec<Vec<Matcher>>,
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    pub budget: Arc<Budget>,
}

/// Why a source could not answer.
#[derive(Debug, thiserror::Error, Clone)]
pub enum SourceError {
    /// The client went away, or the server is stopping.
    #[error("query was canceled")]
    Canceled,
    #[error("query timed out")]
    TimedOut,
    /// More samples, series or bytes than the query may use. The text says which limit and how to raise it.
    #[error("{0}")]
    Limit(String),
    /// The store could not be read: what, where, and the cause.
    #[error("{0}")]
    Storage(String),
}

/// Memory that all queries of a process may hold together.
#[derive(Debug)]
pub struct MemoryPool {
    max_bytes: u64,
    held: AtomicU64,
}

impl MemoryPool {
    pub fn new(max_bytes: u64) -> Arc<MemoryPool> {
        Arc::new(MemoryPool { max_bytes, held: AtomicU64::new(0) })
    }

    /// What the queries at work hold now.
    pub fn reserved_bytes(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }
}

/// What a part of a query holds. From a number it is so many bytes and no samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reservation {
    pub bytes: u64,
    /// Samples and points of results, a histogram for as many as it takes 16 bytes: what upstream's
    /// `query.max-samples` counts.
    pub samples: u64,
}

impl From<u64> for Reservation {
    fn from(bytes: u64) -> Reservation {
        Reservation { bytes, samples: 0 }
    }
}

impl std::ops::Add for Reservation {
    type Output = Reservation;

    fn add(self, other: Reservation) -> Reservation {
        Reservation { bytes: self.bytes + other.bytes, samples: self.samples + other.samples }
    }
}

impl std::ops::AddAssign for Reservation {
    fn add_assign(&mut self, other: Reservation) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Reservation {
    fn sum<I: Iterator<Item = Reservation>>(all: I) -> Reservation {
        all.fold(Reservation::default(), |a, b| a + b)
    }
}

/// Limits, cancellation and counters that all parts of one query share. What it still holds when it is
/// dropped goes back to the pool.
#[derive(Debug)]
pub struct Budget {
    pool: Option<Arc<MemoryPool>>,
    cancelled: AtomicBool,
    deadline: Option<std::time::Instant>,
    max_samples: u64,
    max_bytes: u64,
    samples_read: AtomicU64,
    samples_held: AtomicU64,
    samples_peak: AtomicU64,
    bytes_held: AtomicU64,
    bytes_peak: AtomicU64,
}

impl Budget {
    /// `max_samples` and `max_bytes` bound what a query's samples and results may be and take at once.
    pub fn new(max_samples: u64, max_bytes: u64, deadline: Option<std::time::Instant>) -> Arc<Budget> {
        Arc::new(Budget::plain(None, max_samples, max_bytes, deadline))
    }

    /// The same, with its memory out of what all queries share.
    pub fn within(
        pool: Arc<MemoryPool>,
        max_samples: u64,
        max_bytes: u64,
        deadline: Option<std::time::Instant>,
    ) -> Arc<Budget> {
        Arc::new(Budget::plain(Some(pool), max_samples, max_bytes, deadline))
    }

    fn plain(
        pool: Option<Arc<MemoryPool>>,
        max_samples: u64,
        max_bytes: u64,
        deadline: Option<std::time::Instant>,
    ) -> Budget {
        Budget {
            pool,
            cancelled: AtomicBool::new(false),
            deadline,
            max_samples,
            max_bytes,
            samples_read: AtomicU64::new(0),
            samples_held: AtomicU64::new(0),
            samples_peak: AtomicU64::new(0),
            bytes_held: AtomicU64::new(0),
            bytes_peak: AtomicU64::new(0),
        }
    }

    /// No limits: for tests and for the server's own reads.
    pub fn unlimited() -> Arc<Budget> {
        Budget::new(u64::MAX, u64::MAX, None)
    }

    /// Makes every later [`Budget::check`] fail; called when the client goes away.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// To be asked at least once per series or few thousand samples.
    pub fn check(&self) -> Result<(), SourceError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(SourceError::Canceled);
        }
        match self.deadline {
            Some(d) if std::time::Instant::now() >= d => Err(SourceError::TimedOut),
            _ => Ok(()),
        }
    }

    /// Counts samples that were read.
    pub fn read_samples(&self, n: u64) {
        self.samples_read.fetch_add(n, Ordering::Relaxed);
    }

    /// Counts memory taken; pair with [`Budget::release`]. What is refused is not counted.
    pub fn reserve(&self, what: impl Into<Reservation>) -> Result<(), SourceError> {
        let Reservation { bytes, samples } = what.into();
        let held = self.samples_held.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        if held > self.max_samples {
            self.samples_held.fetch_sub(samples, Ordering::Relaxed);
            return Err(SourceError::Limit(format!(
                "query processing would load too many samples into memory in query execution: it needs more than {} at once, the limit of one query (query.max_samples)",
                self.max_samples
            )));
        }
        self.samples_peak.fetch_max(held, Ordering::Relaxed);
        let held = self.bytes_held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if held > self.max_bytes {
            self.samples_held.fetch_sub(samples, Ordering::Relaxed);
            self.bytes_held.fetch_sub(bytes, Ordering::Relaxed);
            return Err(SourceError::Limit(format!(
                "query needs more than {} bytes of memory, the limit of one query (query.max_memory_bytes): ask for fewer series, a shorter range or a longer step",
                self.max_bytes
            )));
        }
        self.bytes_peak.fetch_max(held, Ordering::Relaxed);
        let Some(pool) = &self.pool else { return Ok(()) };
        let all = pool.held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if all > pool.max_bytes {
            self.release(Reservation { bytes, samples });
            return Err(SourceError::Limit(format!(
                "all queries together need more than {} bytes of memory, the limit of the server (query.max_total_memory_bytes): ask again when it is less busy, or for less",
                pool.max_bytes
            )));
        }
        Ok(())
    }

    pub fn release(&self, what: impl Into<Reservation>) {
        let Reservation { bytes, samples } = what.into();
        self.samples_held.fetch_sub(samples, Ordering::Relaxed);
        self.bytes_held.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(pool) = &self.pool {
            pool.held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Takes back what a first attempt read that is now made again in another way.
    pub fn forget_samples(&self, n: u64) {
        self.samples_read.fetch_sub(n, Ordering::Relaxed);
    }

    /// When the query has to be done.
    pub fn deadline(&self) -> Option<std::time::Instant> {
        self.deadline
    }

    /// The peak until now; from now on it is counted anew, from what is held at the moment.
    pub fn lower_peak(&self) -> u64 {
        self.bytes_peak.swap(self.bytes_held.load(Ordering::Relaxed), Ordering::Relaxed)
    }

    pub fn samples_read(&self) -> u64 {
        self.samples_read.load(Ordering::Relaxed)
    }

    /// Most samples and points that were held at once.
    pub fn samples_peak(&self) -> u64 {
        self.samples_peak.load(Ordering::Relaxed)
    }

    pub fn bytes_peak(&self) -> u64 {
        self.bytes_peak.load(Ordering::Relaxed)
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.held.fetch_sub(self.bytes_held.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_count_while_they_are_held() {
        let budget = Budget::new(100, u64::MAX, None);
        budget.read_samples(1_000);
        let some = |samples| Reservation { bytes: 16 * samples, samples };
        budget.reserve(some(60)).unwrap();
        assert!(budget.reserve(some(41)).unwrap_err().to_string().contains("query.max_samples"));
        budget.reserve(some(40)).unwrap();
        budget.release(some(100));
        budget.reserve(some(70)).unwrap();
        assert_eq!((budget.samples_peak(), budget.samples_read(), budget.bytes_peak()), (100, 1_000, 1_600));
    }

    #[test]
    fn queries_share_the_pool_and_give_back_what_they_held() {
        let pool = MemoryPool::new(100);
        let a = Budget::within(pool.clone(), u64::MAX, 80, None);
        let b = Budget::within(pool.clone(), u64::MAX, 80, None);
        assert!(a.reserve(81).unwrap_err().to_string().contains("query.max_memory_bytes"));
        a.reserve(60).unwrap();
        b.reserve(30).unwrap();
        assert!(b.reserve(20).unwrap_err().to_string().contains("query.max_total_memory_bytes"));
        assert_eq!(pool.reserved_bytes(), 90, "what was refused is not counted");
        drop(a);
        b.reserve(20).unwrap();
        b.release(10);
        assert_eq!((pool.reserved_bytes(), b.bytes_peak()), (40, 50));
        drop(b);
        assert_eq!(pool.reserved_bytes(), 0);
    }
}
