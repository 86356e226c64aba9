//! The way from a thread that may block to the object store, with the cache of what was read.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use ulid::Ulid;

use super::cache::BlockCache;
use crate::block::error::{BlockError, ReadFailed};
use model::source::SourceError;
use model::source::at_once::may_wait;

/// Requests of one read that run at once.
pub(crate) const CONCURRENT_GETS: usize = 16;

/// How often a range is asked for that comes back too short.
const SHORT_READS: u32 = 3;

/// The way to the object store from a thread that may block: one per process, shared by all sources.
pub struct BlockStore {
    pub(crate) store: Arc<dyn ObjectStore>,
    runtime: tokio::runtime::Handle,
    pub(crate) cache: Arc<BlockCache>,
}

impl BlockStore {
    /// `cache_bytes` bounds what is kept of footers, series tables, small columns and pages.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        runtime: tokio::runtime::Handle,
        cache_bytes: usize,
    ) -> Arc<BlockStore> {
        Arc::new(BlockStore { store, runtime, cache: Arc::new(BlockCache::new(cache_bytes)) })
    }

    /// The way to another store with the same cache: names of blocks are unique everywhere.
    pub fn of_another_store(&self, store: Arc<dyn ObjectStore>) -> Arc<BlockStore> {
        Arc::new(BlockStore { store, runtime: self.runtime.clone(), cache: self.cache.clone() })
    }

    /// Lets go of what the cache has of a block that nobody will read again.
    pub fn forget(&self, block: Ulid) {
        self.cache.forget(block);
    }

    /// How the cache does.
    pub fn cache_stats(&self) -> super::cache::CacheStats {
        self.cache.stats()
    }

    /// Runs requests on the runtime while this thread waits.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, SourceError> {
        may_wait()?;
        let (done, result) = std::sync::mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            // Nobody waits any more only if the waiting thread is gone.
            let _ = done.send(work.await);
        });
        result.recv().map_err(|_| SourceError::storage("the server is stopping"))
    }

    /// Several ranged reads at once, in the order asked.
    pub(crate) fn get(&self, wanted: Vec<(Path, Range<u64>)>) -> Result<Vec<Bytes>, SourceError> {
        let store = self.store.clone();
        let all = async move {
            let reads = wanted.into_iter().map(|(path, range)| {
                let store = store.clone();
                async move {
                    let length = range.end - range.start;
                    let shown = || format!("{path} bytes {}..{}", range.start, range.end);
                    for attempt in 1.. {
                        match store.get_range(&path, range.clone()).await {
                            Ok(bytes) if bytes.len() as u64 == length => return Ok(bytes),
                            // A connection that broke off; what is missing in the object is missing every
                            // time.
                            Ok(_) if attempt < SHORT_READS => continue,
                            Ok(bytes) => {
                                let what = format!("the store returned {} bytes", bytes.len());
                                return Err(SourceError::storage(BlockError::Corrupt {
                                    object: shown(),
                                    what,
                                }));
                            }
                            Err(e) => {
                                return Err(SourceError::storage(ReadFailed { what: shown(), cause: e }));
                            }
                        }
                    }
                    unreachable!("the last attempt returns")
                }
            });
            let results: Vec<_> = futures::stream::iter(reads).buffered(CONCURRENT_GETS).collect().await;
            results.into_iter().collect::<Result<Vec<_>, _>>()
        };
        self.wait(all)?
    }
}
