//! The long-term format: immutable blocks of three standard Parquet files and a `meta.json`.
//!
//! - `series.parquet`: one row per series in the order of [`model::labels::Labels::series_cmp`]: `series_id`, a column per
//!   common label (named as the label, null where the series lacks it), and `other_labels MAP` for the rest. Its footer says which rows are whose
//!   metric's, see the head of `metric_runs.rs`.
//! - `timelines.parquet`: `tsref, ts LIST<i64>`. All series of one scrape share one timeline, so each is stored once.
//! - `samples.parquet`: one row per series, time slice and kind (floats or histograms), see [`schema`] for the columns. In a downsampled block: one
//!   row per series and slice with a column per aggregate, see the head of `windows.rs`.
//!
//! A block's life: [`write::BlockWriter`] makes it in a scratch folder, [`upload::upload`] copies it into the object store, a commit to
//! the [`crate::catalog`] makes it visible, [`crate::bucket::BucketSource`] reads it, compaction replaces it.

pub(crate) mod cache;
pub mod encode;
pub mod file;
pub mod inspect;
mod lists;
pub mod meta;
pub(crate) mod metric_runs;
pub(crate) mod object;
mod packed;
mod page_header;
mod pages;
pub(crate) mod read;
mod read_samples;
mod read_windows;
mod reader;
mod rows;
mod scan;
pub mod schema;
pub(crate) mod series_table;
mod texts;
mod timelines;
pub mod upload;
pub mod weigh;
mod windows;
pub mod write;

pub use meta::{BlockMeta, BlockStats, FileMeta, Share};
pub use reader::{BlockReader, ReadOptions, SeriesFilter, series_bytes};
pub use write::{BlockFiles, BlockOrigin, BlockWriter, WriteOptions, write_block};

/// Why a block could not be written or read.
#[derive(Debug, thiserror::Error, Clone)]
pub enum BlockError {
    /// The local disk failed.
    #[error("{what}: {cause}")]
    Disk { what: String, cause: String },
    /// The object store failed.
    #[error("{object}: {cause}")]
    Store { object: String, cause: String },
    /// What was read is not what was written.
    #[error("{object} is damaged: {what}")]
    Corrupt { object: String, what: String },
    /// The caller's series break the rules (order, timestamps, lengths).
    #[error("{0}")]
    Input(String),
    /// Parquet refused what we gave it: a fault of Hearth's own.
    #[error("cannot encode a block: {0}")]
    Encode(String),
    /// Where the series come from failed.
    #[error(transparent)]
    Source(#[from] model::source::SourceError),
}
