//! What an operator asks of a bucket: what is in it, is it whole, what does it cost, what may go. Everything
//! here only reads, and works beside a server that uses the bucket.

pub mod check;
pub mod expired;
pub mod listing;
pub mod orphans;
pub mod stats;

use model::source::SourceError;
use tsdb::block::BlockError;
use tsdb::catalog::CatalogError;

use crate::garbage::GarbageError;

/// A bucket, its catalog or a block could not be read; the text names the object.
#[derive(Debug, thiserror::Error, Clone)]
pub enum InspectError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Garbage(#[from] GarbageError),
}
