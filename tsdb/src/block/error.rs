//! What can go wrong when a block is written or read, and whose fault it is.

use std::sync::Arc;

use object_store::path::Path;

use crate::block_meta::MetaError;
use crate::cause::Cause;

/// Why a block could not be written or read.
#[derive(Debug, thiserror::Error, Clone)]
pub enum BlockError {
    /// The local disk failed.
    #[error("{what}: {cause}")]
    Disk {
        what: String,
        #[source]
        cause: Cause,
    },
    /// The object store failed.
    #[error("{object}: {cause}")]
    Store {
        object: String,
        #[source]
        cause: Arc<object_store::Error>,
    },
    /// The object store has no such object.
    #[error("{object}: the object is not there")]
    Missing { object: String },
    /// What was read is not what was written.
    #[error("{object} is damaged: {what}")]
    Corrupt { object: String, what: String },
    /// The caller's series break the rules (order, timestamps, lengths).
    #[error("{0}")]
    Input(String),
    /// Parquet refused what we gave it: a fault of Hearth's own.
    #[error("cannot encode a block: {0}")]
    Encode(String),
    /// The thread that was at it ended before it was done: a fault of Hearth's own.
    #[error("a thread that reads or writes a block ended: {0}")]
    Thread(#[source] Arc<tokio::task::JoinError>),
    /// Where the series come from failed.
    #[error(transparent)]
    Source(#[from] model::source::SourceError),
}

impl From<MetaError> for BlockError {
    fn from(e: MetaError) -> BlockError {
        BlockError::Corrupt { object: e.object, what: e.what }
    }
}

impl From<tokio::task::JoinError> for BlockError {
    fn from(e: tokio::task::JoinError) -> BlockError {
        BlockError::Thread(Arc::new(e))
    }
}

/// A read of part of a block that the object store did not answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what}: {cause}")]
pub(crate) struct ReadFailed {
    /// The object, and which bytes of it.
    pub what: String,
    #[source]
    pub cause: object_store::Error,
}

impl BlockError {
    /// What the local disk said when it was to do `what`.
    pub(crate) fn of_disk(
        what: String,
        e: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> BlockError {
        BlockError::Disk { what, cause: Arc::from(e.into()) }
    }

    /// What the object store said of an object.
    pub(crate) fn of_store(object: &Path, e: object_store::Error) -> BlockError {
        match e {
            object_store::Error::NotFound { .. } => BlockError::Missing { object: object.to_string() },
            e => BlockError::Store { object: object.to_string(), cause: Arc::new(e) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::is_of_the_store;

    #[test]
    fn store_that_failed_is_found_in_the_causes() {
        let refused = || object_store::Error::NotFound { path: "p".into(), source: "no".into() };
        let read = ReadFailed { what: "a block".into(), cause: refused() };
        assert!(is_of_the_store(&read));
        let shared = BlockError::Store { object: "p".into(), cause: Arc::new(refused()) };
        assert!(is_of_the_store(&shared));
        assert!(is_of_the_store(&model::source::SourceError::storage(shared)));
        assert!(!is_of_the_store(&BlockError::Corrupt { object: "p".into(), what: "bits".into() }));
    }
}
