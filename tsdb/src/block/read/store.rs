//! The way from a thread that may block to the object store, with the cache of what was read.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use ulid::Ulid;

use super::cache::BlockCache;
use super::coming::Coming;
use super::disk_cache::DiskCache;
use crate::block::error::{BlockError, ReadFailed};
use model::source::at_once::may_wait;
use model::source::{Fetches, SourceError};

/// Requests of one read that run at once.
pub(crate) const CONCURRENT_GETS: usize = 64;

/// How often a range is asked for that comes back too short.
const SHORT_READS: u32 = 3;

/// The way to the object store from a thread that may block: one per process, shared by all sources.
pub struct BlockStore {
    pub(crate) store: Arc<dyn ObjectStore>,
    runtime: tokio::runtime::Handle,
    pub(crate) cache: Arc<BlockCache>,
    /// Where bytes that were fetched are kept beyond a restart.
    pub(crate) disk: Option<Arc<DiskCache>>,
    /// Whether it is the bucket, not the local disk.
    remote: bool,
    /// Counts what is fetched, for the query that it is of.
    pub(crate) fetches: Arc<Fetches>,
    /// What that query has asked for ahead.
    pub(crate) coming: Arc<Coming>,
}

impl BlockStore {
    /// `cache_bytes` bounds what is kept of footers, series tables, small columns and pages.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        runtime: tokio::runtime::Handle,
        cache_bytes: usize,
    ) -> Arc<BlockStore> {
        let cache = Arc::new(BlockCache::new(cache_bytes));
        let (fetches, coming) = (Arc::default(), Arc::default());
        Arc::new(BlockStore { store, runtime, cache, disk: None, remote: true, fetches, coming })
    }

    /// The same way with a cache on disk beside that in memory.
    pub fn with_disk_cache(&self, disk: Option<Arc<DiskCache>>) -> Arc<BlockStore> {
        Arc::new(BlockStore {
            store: self.store.clone(),
            runtime: self.runtime.clone(),
            cache: self.cache.clone(),
            disk,
            remote: self.remote,
            fetches: Arc::default(),
            coming: Arc::default(),
        })
    }

    /// The same way for one query, which counts what it fetches from the bucket.
    pub(crate) fn counting(&self, fetches: &Arc<Fetches>) -> Arc<BlockStore> {
        Arc::new(BlockStore {
            store: self.store.clone(),
            runtime: self.runtime.clone(),
            cache: self.cache.clone(),
            disk: self.disk.clone(),
            remote: self.remote,
            fetches: if self.remote { fetches.clone() } else { Arc::default() },
            coming: Arc::default(),
        })
    }

    /// The same way, of no query: to be held by what may outlive it.
    pub(crate) fn without_query(&self) -> Arc<BlockStore> {
        self.counting(&Arc::default())
    }

    /// Whether its query waits for answers, so that it helps to ask early.
    pub(crate) fn waits(&self) -> bool {
        self.remote && !self.fetches.is_empty()
    }

    /// The way to blocks on the local disk with the same cache: names of blocks are unique everywhere.
    pub fn of_local(&self, store: Arc<dyn ObjectStore>) -> Arc<BlockStore> {
        Arc::new(BlockStore {
            store,
            runtime: self.runtime.clone(),
            cache: self.cache.clone(),
            disk: None,
            remote: false,
            fetches: Arc::default(),
            coming: Arc::default(),
        })
    }

    /// Lets go of what the cache has of a block that nobody will read again.
    pub fn forget(&self, block: Ulid) {
        self.cache.forget(block);
        self.disk.iter().for_each(|disk| disk.forget(block));
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
        let (store, fetches) = (self.store.clone(), self.fetches.clone());
        let bytes = wanted.iter().map(|(_, range)| range.end - range.start).sum();
        let round = fetches.ask(wanted.len() as u64, bytes);
        let all = async move {
            let reads = wanted.into_iter().map(|(path, range)| get_whole(store.clone(), path, range));
            let results: Vec<_> = futures::stream::iter(reads).buffered(CONCURRENT_GETS).collect().await;
            fetches.answered(round);
            results.into_iter().collect::<Result<Vec<_>, _>>()
        };
        self.wait(all)?
    }

    /// Sends requests without waiting for them; `arrived` gets the bytes of each that is answered, by its
    /// number, and the number of each that is not.
    pub(crate) fn get_ahead(
        &self,
        wanted: Vec<(Path, Range<u64>)>,
        mut arrived: impl FnMut(usize, Option<Bytes>) + Send + 'static,
    ) {
        let (store, fetches) = (self.store.clone(), self.fetches.clone());
        let bytes = wanted.iter().map(|(_, range)| range.end - range.start).sum();
        let round = fetches.ask(wanted.len() as u64, bytes);
        self.runtime.spawn(async move {
            let reads = wanted.into_iter().enumerate().map(|(number, (path, range))| {
                let read = get_whole(store.clone(), path, range);
                async move { (number, read.await) }
            });
            let mut reads = futures::stream::iter(reads).buffer_unordered(CONCURRENT_GETS);
            while let Some((number, read)) = reads.next().await {
                // What failed is asked for again by who needs it, and fails for it then.
                fetches.answered(round);
                arrived(number, read.ok());
            }
        });
    }
}

/// A range of an object, as long as it has to be.
async fn get_whole(store: Arc<dyn ObjectStore>, path: Path, range: Range<u64>) -> Result<Bytes, SourceError> {
    let length = range.end - range.start;
    let shown = || format!("{path} bytes {}..{}", range.start, range.end);
    for attempt in 1.. {
        match store.get_range(&path, range.clone()).await {
            Ok(bytes) if bytes.len() as u64 == length => return Ok(bytes),
            // A connection that broke off; what is missing in the object is missing every time.
            Ok(_) if attempt < SHORT_READS => continue,
            Ok(bytes) => {
                let what = format!("the store returned {} bytes", bytes.len());
                return Err(SourceError::storage(BlockError::Corrupt { object: shown(), what }));
            }
            Err(e) => {
                return Err(SourceError::storage(ReadFailed { what: shown(), cause: e }));
            }
        }
    }
    unreachable!("the last attempt returns")
}
