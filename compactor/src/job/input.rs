//! What a merge is given, and what it says where it cannot read that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::source::SourceError;
use model::tenant::TenantId;
use tsdb::block::{BlockMeta, ReadOptions};
use tsdb::bucket::BlockStore;
use tsdb::deletion::Visibility;
use ulid::Ulid;

/// What a job holds in memory, by its own account.
#[derive(Debug, Default)]
pub struct PeakMemory {
    peak_bytes: AtomicU64,
}

impl PeakMemory {
    /// Notes what is held now.
    pub fn note(&self, bytes: u64) {
        self.peak_bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    /// The most that was ever noted.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Ordering::Relaxed)
    }
}

/// One block that could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("block {block}: {error}")]
pub struct ReadError {
    pub block: Ulid,
    #[source]
    pub error: SourceError,
}

impl ReadError {
    /// Whether the read ended for another reason than what lies in the block: the object store did not
    /// answer.
    pub fn is_of_the_store(&self) -> bool {
        match &self.error {
            SourceError::Storage(cause) => tsdb::cause::is_of_the_store(&**cause),
            SourceError::Canceled | SourceError::TimedOut | SourceError::Limit(_) => true,
        }
    }
}

/// What is to be merged.
pub struct Inputs<'a> {
    pub store: &'a Arc<BlockStore>,
    pub tenant: &'a TenantId,
    /// Oldest in [`BlockMeta::order`] first, shares of a whole one after the other.
    pub blocks: &'a [Arc<BlockMeta>],
    /// Blocks that lie right before the range: they are not merged, but where replicas are, the last of them
    /// matters.
    pub before: &'a [Arc<BlockMeta>],
    pub visibility: &'a Visibility,
    /// First and last timestamp wanted, both included.
    pub range: (i64, i64),
    /// What all batches of all inputs may take together.
    pub memory_bytes: u64,
    pub read: ReadOptions,
    /// Labels that tell apart replicas of one series; empty where replicas stay apart.
    pub replica_labels: &'a [String],
}
