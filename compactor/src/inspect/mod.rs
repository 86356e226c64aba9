//! What an operator asks of a bucket: what is in it, is it whole, what does it cost, what may go. Everything
//! here only reads, and works beside a server that uses the bucket.

pub mod check;
pub mod listing;
pub mod orphans;
pub mod stats;

use model::source::SourceError;
use tsdb::block::BlockError;
use tsdb::catalog::CatalogError;

/// A bucket, its catalog or a block could not be read; the text names the object.
#[derive(Debug, thiserror::Error, Clone)]
#[error("{0}")]
pub struct InspectError(pub String);

impl From<CatalogError> for InspectError {
    fn from(e: CatalogError) -> InspectError {
        InspectError(e.to_string())
    }
}

impl From<BlockError> for InspectError {
    fn from(e: BlockError) -> InspectError {
        InspectError(e.to_string())
    }
}

impl From<SourceError> for InspectError {
    fn from(e: SourceError) -> InspectError {
        InspectError(e.to_string())
    }
}
