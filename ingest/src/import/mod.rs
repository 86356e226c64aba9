//! The way in for what other programs kept: blocks of Prometheus and Thanos, and files of OpenMetrics text.
//!
//! The life of an import:
//!
//! 1. A source is opened: [`block::SourceBlock`] is a block folder of Prometheus or Thanos,
//!    [`openmetrics::Spool`] a text that was read once and sorted on disk. Either can be read for any span of
//!    time, series in Hearth's order, with memory bounded; blocks of HA replicas are read together
//!    ([`replicas`]).
//! 2. It is cut into units, one per span of half a day ([`unit::spans`]), so that no block crosses what
//!    compaction cuts.
//! 3. Each unit becomes a block ([`unit::import`]): read and written in one pass, uploaded, read back from
//!    the store, compared with the source series by series, and only then committed. The journal of
//!    [`tsdb::bucket::import_journal`] makes sure that a unit is committed once.
//!
//! What comes from outside is hostile here as everywhere: decoders check every length before they allocate,
//! and a file that is damaged is an error that names it, never a wrong number.

pub mod block;
pub mod fingerprint;
pub mod meta;
pub mod openmetrics;
mod prometheus;
pub mod relabel;
pub mod replicas;
mod thanos;
pub mod unit;

use std::path::{Path, PathBuf};

use model::source::SourceError;
use tsdb::block::BlockError;
use tsdb::bucket::import_journal::ImportJournalError;

/// Why an import stopped. What was committed before stays, and running it again goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The local disk failed.
    #[error("{}: {source}", path.display())]
    Disk {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A part of the source could not be fetched from where it is.
    #[error("{object} could not be fetched into {}: {source}", path.display())]
    Fetch {
        object: String,
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The source is damaged, incomplete, or of a kind that is not known.
    #[error("{text}")]
    Source {
        text: String,
        #[source]
        cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The block could not be written.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The object store or the catalog failed.
    #[error(transparent)]
    ImportJournal(#[from] ImportJournalError),
    /// What was written could not be read back.
    #[error("reading back what was written: {0}")]
    ReadBack(#[from] SourceError),
    /// What was written is not what was read. It was not committed.
    #[error("{0}")]
    Differs(String),
    /// Somebody asked it to stop.
    #[error("stopped; run it again to go on")]
    Stopped,
}

impl ImportError {
    /// The disk failed at a file or folder.
    pub fn disk(path: &Path, source: std::io::Error) -> ImportError {
        ImportError::Disk { path: path.to_owned(), source }
    }

    /// The source is not as it should be, in words.
    pub fn source(text: impl Into<String>) -> ImportError {
        ImportError::Source { text: text.into(), cause: None }
    }

    /// `what`, a part of the source, could not be read.
    pub(crate) fn unreadable(
        what: impl std::fmt::Display,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> ImportError {
        ImportError::Source { text: format!("{what}: {cause}"), cause: Some(Box::new(cause)) }
    }

    pub(crate) fn damaged(path: &Path, what: impl std::fmt::Display) -> ImportError {
        ImportError::source(format!("{}: {what}", path.display()))
    }
}

/// Who is told how far an import is. All calls come from the thread that imports.
pub trait Progress {
    /// Samples were read from the source, and bytes of it.
    fn read(&mut self, samples: u64, bytes: u64);
    /// Whether to stop at the next series.
    fn should_stop(&self) -> bool;
}
