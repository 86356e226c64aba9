//! The one seam between storage and queries: whatever holds series answers these questions.
//!
//! Head, bucket, merged view and (later) a remote ingester all implement [`Source`], and one conformance
//! suite holds for all of them. Everything here is synchronous: it is called from threads that may block,
//! never from the runtime's own.

pub mod at_once;
mod budget;
mod charge;
mod core_shares;
pub mod dedup;
pub mod federation;
mod fetches;
mod marks;
pub mod memory;
mod memory_pool;
pub mod merge;
mod resolution_report;
mod tenant_list;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::sync::Arc;

use crate::columns::Aggregates;
use crate::labels::Labels;
use crate::matcher::Matcher;

pub use crate::columns::SeriesColumns;
pub use budget::{Budget, BudgetBounds, Reservation};
pub use charge::Charge;
pub use core_shares::{CoreShare, CoreShares};
pub use fetches::{Fetched, Fetches};
pub use marks::{Mark, MarkBuilder, Read};
pub use memory_pool::MemoryPool;
pub use resolution_report::{ResolutionPart, ResolutionReport};
pub use tenant_list::{TenantList, UnknownTenants};

/// What one selector asks for.
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
    /// Of each series only the newest sample of the range is looked at: those before it may be left out.
    pub newest_only: bool,
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

    /// A mark for what is held of each group of reads (see [`Mark`]); `None` where it cannot be told or is
    /// about to change by itself. Must not read samples. Samples that are written while this is asked may or
    /// may not count; those acknowledged before do.
    fn marks(&self, groups: &[Vec<Read>], _budget: &Arc<Budget>) -> Result<Vec<Option<Mark>>, SourceError> {
        Ok(vec![None; groups.len()])
    }

    /// Whether it asks [`at_once`] before it waits or reads much, so that small queries may be tried where
    /// nothing may block.
    fn gives_up_at_once(&self) -> bool {
        false
    }

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
    #[error(transparent)]
    Storage(Arc<dyn std::error::Error + Send + Sync>),
}

impl SourceError {
    /// Of a store that could not be read. `cause` says what and where.
    pub fn storage(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SourceError {
        SourceError::Storage(Arc::from(cause.into()))
    }
}
