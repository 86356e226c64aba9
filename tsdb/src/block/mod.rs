//! The long-term format: immutable blocks of three standard Parquet files and a `meta.json`.
//!
//! - `series.parquet`: one row per series in the order of [`model::labels::Labels::series_cmp`]: `series_id`,
//!   a column per common label (named as the label, null where the series lacks it), and `other_labels MAP`
//!   for the rest. Its footer says which rows are whose metric's, see the head of `metric_runs.rs`.
//! - `timelines.parquet`: `tsref, ts LIST<i64>`. All series of one scrape share one timeline, so each is
//!   stored once.
//! - `samples.parquet`: one row per series, time slice and kind (floats or histograms), see [`schema`] for
//!   the columns. In a downsampled block: one row per series and slice with a column per aggregate, see the
//!   head of `window_schema.rs`.
//!
//! A block's life: [`BlockWriter`] makes it in a scratch folder, [`upload::upload`] copies it into the object
//! store, a commit to the [`crate::catalog`] makes it visible, [`crate::bucket::BucketSource`] reads it,
//! compaction replaces it.

mod aggregates;
pub mod checksums;
mod columns;
pub mod encode;
mod error;
pub mod inspect;
pub(crate) mod metric_runs;
pub mod options;
pub(crate) mod read;
pub mod schema;
mod window_schema;
pub mod write;

pub use crate::block_meta::{BlockMeta, BlockStats, FileMeta, Share};
pub use error::BlockError;
pub use options::{ReadOptions, WriteOptions};
pub use read::reader::{BlockReader, SeriesFilter};
pub use write::upload;
pub use write::{BlockFiles, BlockOrigin, BlockWriter, write_block};
