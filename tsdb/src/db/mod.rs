//! The whole store of one process: log, head, blocks and catalog behind one handle.
//!
//! Writers go through [`Appender`]; readers take [`Db::source`], which pins one state: blocks of one catalog
//! snapshot per tenant, the local blocks that are not in them, and the head's generations that are in
//! neither. Sealing or a flush installs the next state in one step, so no query sees half of it.

mod above;
mod appender;
mod changes;
mod deleting;
pub mod flush;
mod folder;
mod identity;
pub mod local;
mod maintain;
mod open;
pub mod owed;
pub mod plan;
mod progress;
mod sidecars;
mod turns;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use object_store::ObjectStore;
use parking_lot::RwLock;

use crate::bucket::store_clock::StoreClock;
use crate::bucket::{BlockStore, BucketSource, DiskCache, presence};
use crate::catalog::{self, Catalog, CatalogError, CatalogOptions, Commits, Owner, Snapshot};
use crate::cause::{AttemptError, Cause};
use crate::db::local::{LocalBlock, SealedGeneration};
use crate::db::plan::{Pressure, pressure};
use crate::deletion::Visibility;
use crate::head::Head;
use crate::head::source::HeadSource;
use crate::sidecar::exemplars::buffer::{Buffer, BufferCounts};
use crate::wal::Log;
use crate::wal::replay::Replayed;
use model::clock::{Clock, SystemClock};
use model::head_stats::{HeadBytes, HeadStats};
use model::source::Source;
use model::source::merge::conflict::Origin;
use model::tenant::TenantId;

use progress::Progress;
use view::View;

pub use crate::deletion::RetentionOf;
pub use crate::wal::LogSync;
pub use above::{Above, FloorTooLow};
pub use appender::{Appender, SeriesRef};
pub use deleting::DeleteError;

/// How a [`Db`] is opened.
#[derive(Clone)]
pub struct DbOptions {
    /// Folder of the log and the lock, on a local disk.
    pub dir: PathBuf,
    /// Where blocks and catalog live.
    pub store: Arc<dyn ObjectStore>,
    /// Length of the head's window in data time; one block per tenant comes of each.
    pub window_ms: i64,
    /// Data time after which a generation is sealed: its samples leave memory for the local disk, see
    /// [`crate::db::local`].
    pub seal_ms: i64,
    /// Flush what would be sealed: it goes into the object store at once, and a lost disk costs what came
    /// since.
    pub flush_sealed: bool,
    /// Where local blocks go; `None` for a folder in `dir`.
    pub local_store: Option<Arc<dyn ObjectStore>>,
    pub log_sync: LogSync,
    pub clock: Arc<dyn Clock>,
    /// Bytes the head may hold: near them it is sealed early, at them writes are refused until there is
    /// room. `None`: no limit.
    pub max_head_bytes: Option<u64>,
    /// Bytes that blocks' indexes and small columns may hold in memory.
    pub cache_bytes: usize,
    /// Where bytes of blocks are kept on the local disk, if they are.
    pub disk_cache: Option<Arc<DiskCache>>,
    /// Series of a tenant that are kept for another time than the rest: what is older is not seen, whether
    /// its blocks were rewritten or not.
    pub rules: RetentionOf,
    /// What makes a commit win exactly once; arranged before anything else.
    pub commits: Commits,
    /// Memory for exemplars that are not in the object store yet; from half of it on the head is flushed,
    /// past it they are refused.
    pub exemplar_bytes: u64,
    /// How long exemplars, and metadata that nobody sends any more, are kept; `None` for ever.
    pub exemplar_keep_ms: Option<i64>,
    pub metadata_keep_ms: Option<i64>,
    /// How long both stay in the store after that, where nobody sees them: whoever keeps them for longer
    /// within this time has them again.
    pub retention_delay_ms: i64,
    /// How far this machine's clock may be ahead of the newest sample and of the store's clock where it
    /// decides what is deleted; `None`: it is always believed.
    pub max_clock_lead_ms: Option<i64>,
    /// How long what a flush has committed stays here to be read by other processes, whose snapshots may be
    /// older than the commit (see [`Db::above`]).
    pub keep_committed: Duration,
    /// Flush by itself when a window is complete, and look for data files that are gone. Tests switch it off.
    pub flush_when_due: bool,
    /// Told the first, the last and the current segment of the log while a start replays it.
    pub replaying: Arc<dyn Fn(u64, u64, u64) + Send + Sync>,
}

impl DbOptions {
    pub fn new(dir: impl Into<PathBuf>, store: Arc<dyn ObjectStore>) -> Self {
        DbOptions {
            dir: dir.into(),
            store,
            window_ms: 2 * 3600 * 1000,
            seal_ms: 10 * 60 * 1000,
            flush_sealed: false,
            local_store: None,
            log_sync: LogSync::Always,
            clock: Arc::new(SystemClock),
            max_head_bytes: None,
            cache_bytes: 256 << 20,
            disk_cache: None,
            rules: Arc::new(|_| Arc::default()),
            commits: Commits::Conditional,
            exemplar_bytes: 64 << 20,
            exemplar_keep_ms: None,
            metadata_keep_ms: None,
            retention_delay_ms: 24 * 3600 * 1000,
            max_clock_lead_ms: Some(24 * 3600 * 1000),
            keep_committed: Duration::ZERO,
            flush_when_due: true,
            replaying: Arc::new(|_, _, _| {}),
        }
    }
}

/// Why a store could not be opened; the text says what to do.
pub type OpenError = AttemptError;

/// Why a write was not taken. Nothing of it was acknowledged.
#[derive(Debug, thiserror::Error, Clone)]
pub enum WriteError {
    /// The log cannot be written now (disk full, folder read-only, shutting down): try again later.
    #[error("{0}")]
    Unavailable(String),
    /// The head holds all it may: try again when sealing has made room, in seconds.
    #[error("{0}")]
    Overloaded(String),
    /// One thing in it is larger than the log can keep: sending it again does not help.
    #[error("{0}")]
    TooLarge(String),
}

/// What became of a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Samples that were new.
    pub samples: u64,
    /// Of these, samples older than the newest of their series.
    pub out_of_order: u64,
    /// Samples that were there already, same value and timestamp.
    pub duplicates: u64,
}

/// Why a flush failed; the samples stay in head and log.
#[derive(Debug, thiserror::Error, Clone)]
#[error("{text}")]
pub struct FlushError {
    text: String,
    #[source]
    cause: Option<Cause>,
}

impl FlushError {
    /// What stood in the way, in words.
    fn new(text: impl Into<String>) -> FlushError {
        FlushError { text: text.into(), cause: None }
    }

    /// `what` failed with `cause`.
    fn failed(
        what: impl std::fmt::Display,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> FlushError {
        FlushError::because(format!("{what}: {cause}"), cause)
    }

    /// It failed with `cause`, which `text` tells already.
    fn because(text: String, cause: impl std::error::Error + Send + Sync + 'static) -> FlushError {
        FlushError { text, cause: Some(Arc::new(cause)) }
    }
}

/// What a flush did.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct FlushReport {
    pub blocks: Vec<String>,
    pub series: u64,
    pub samples: u64,
    pub bytes: u64,
}

/// How much a [`Db`] holds and has done, for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct DbCounts {
    pub series: u64,
    pub head_bytes: HeadBytes,
    pub head_min_t_ms: Option<i64>,
    pub head_max_t_ms: Option<i64>,
    pub samples_in_generation: u64,
    pub log_bytes_written: u64,
    pub log_fsyncs: u64,
    pub log_fsync_seconds: f64,
    pub log_failures: u64,
    pub flushes: u64,
    pub flush_failures: u64,
    /// Generations that were sealed early because memory asked for it.
    pub early_flushes: u64,
    /// Writes that were refused because the head was full.
    pub refused_writes: u64,
    /// Entries of metadata that were not kept because there was no room.
    pub refused_metadata: u64,
    /// Segments of the log that should have been there at the start and were not, and so were in no block.
    pub missing_segments: u64,
    /// Blocks on the local disk that were damaged or gone at the start.
    pub damaged_local_blocks: u64,
    /// Objects that the catalogs name and the object store does not have whole.
    pub missing_objects: u64,
    /// Bytes of the log that were damaged at the start, and samples whose series was defined in them.
    pub log_damaged_bytes: u64,
    pub log_orphaned_samples: u64,
    pub max_head_bytes: Option<u64>,
    pub blocks: u64,
    pub block_bytes: u64,
    /// On the local disk, not in the object store yet.
    pub local_blocks: u64,
    pub local_block_bytes: u64,
    pub local_samples: u64,
    /// Samples of local blocks that could not be read again.
    pub lost_samples: u64,
    /// In memory, not in the object store yet.
    pub exemplars: BufferCounts,
    /// In the object store.
    pub exemplar_files: u64,
    pub exemplar_file_bytes: u64,
    pub stored_exemplars: u64,
}

/// How this process and the object store get along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogContact {
    /// When the catalogs were read last, in milliseconds.
    pub read_ms: i64,
    /// Why the latest attempt failed, if it did.
    pub error: Option<String>,
}

/// The open store of a data folder. Share it behind an `Arc`.
pub struct Db {
    options: DbOptions,
    writer: String,
    watermarks: identity::Watermarks,
    head: Arc<Head>,
    exemplars: Arc<Buffer>,
    metadata_work: sidecars::MetadataWork,
    log: Log,
    turns: Arc<turns::Turns>,
    owed: owed::Owed,
    changes: Arc<changes::Changes>,
    /// Held for reading by every writer from its first look-up until its samples are in the head; for writing
    /// while the log is cut.
    gate: Arc<tokio::sync::RwLock<()>>,
    state: RwLock<Arc<ReadState>>,
    catalogs: tokio::sync::Mutex<HashMap<TenantId, Arc<Catalog>>>,
    /// One flush at a time; it takes `sealing` as well for its first step.
    flushing: tokio::sync::Mutex<()>,
    sealing: tokio::sync::Mutex<local::sealing::Sealing>,
    local: local::sealing::LocalStore,
    generation_began_ms: AtomicI64,
    /// The first segment of the log that is of the current generation.
    generation_segment: AtomicU64,
    counts: flush::FlushCounts,
    bucket: Arc<BlockStore>,
    store_clock: StoreClock,
    closing: AtomicBool,
    contact: parking_lot::Mutex<CatalogContact>,
    replayed: Replayed,
    progress: Arc<Progress>,
    missing_segments: u64,
    damaged_local_blocks: u64,
    /// As found last, see [`Db::look_for_missing`].
    missing_objects: AtomicU64,
    /// What this process gives back when it ends, where it alone may write.
    owner: Option<Arc<Owner>>,
    /// Locked for as long as this process has the folder: the folder itself, and the file that older versions
    /// look at.
    _locks: [File; 2],
}

/// What queries see: swapped whole.
pub(crate) struct ReadState {
    /// Head generations from here on are in no block, local or not.
    first_generation: u64,
    /// Held by every state that reads those generations from the head.
    generations: Arc<Generations>,
    /// Oldest first; what of a tenant's is at or below the watermark of its snapshot is in blocks.
    sealed: Vec<Arc<SealedGeneration>>,
    /// In the object store for all tenants, and kept for readers of older snapshots; oldest first.
    committed: Vec<Committed>,
    /// Tenant → up to which segment of the log local blocks of its are gone: never beyond its watermark.
    gone: Arc<BTreeMap<TenantId, u64>>,
    snapshots: BTreeMap<TenantId, Arc<Snapshot>>,
}

/// A sealed generation that is in the object store, and when its files may go.
#[derive(Clone)]
struct Committed {
    sealed: Arc<SealedGeneration>,
    until: std::time::Instant,
}

/// Stands for the head's generations that a state reads: as long as somebody holds it they stay.
#[derive(Default)]
struct Generations;

impl Db {
    /// The object store as this process uses it: one that keeps its word on create-if-absent. Whoever else
    /// commits from this process has to go through it.
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        self.options.store.clone()
    }

    /// The name under which this folder's log is known in catalogs.
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// What the log held when the store was opened.
    pub fn replayed(&self) -> &Replayed {
        &self.replayed
    }

    /// Begins one request's writes. Nothing is visible or durable before [`Appender::commit`].
    pub async fn appender(self: &Arc<Self>, tenant: &TenantId) -> Result<Appender, WriteError> {
        self.room()?;
        let gate = self.gate.clone().read_owned().await;
        if self.closing.load(Ordering::Acquire) {
            return Err(WriteError::Unavailable("the server is stopping: try again in a moment".to_string()));
        }
        Ok(Appender::new(self.clone(), self.head.tenant(tenant), gate))
    }

    /// Whether writes are taken, as far as memory goes; costs next to nothing, so ask before reading what a
    /// client sends.
    pub fn room(&self) -> Result<(), WriteError> {
        if self.pressure() != Pressure::Full {
            return Ok(());
        }
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        Err(WriteError::Overloaded(format!(
            "the head holds the {} bytes it may (head.max_memory_bytes): try again when they are in blocks",
            self.options.max_head_bytes.unwrap_or(0)
        )))
    }

    fn pressure(&self) -> Pressure {
        self.options.max_head_bytes.map_or(Pressure::None, |limit| pressure(&self.head.bytes(), limit))
    }

    /// One consistent view of all that a tenant has: head and blocks, at this moment.
    pub fn source(&self, tenant: &TenantId) -> Arc<dyn Source> {
        let state = self.state.read().clone();
        let (rules, now_ms) = ((self.options.rules)(tenant), self.options.clock.now_ms());
        let snapshot = state.snapshots.get(tenant).filter(|s| !s.blocks.is_empty());
        let bucket = snapshot.map(|snapshot| {
            let blocks = snapshot.blocks.clone();
            let visibility = snapshot.visibility().with_retention(rules, now_ms);
            BucketSource::new(self.bucket.clone(), tenant.clone(), blocks).with_visibility(visibility)
        });
        let pending: Vec<&LocalBlock> =
            state.local_blocks(tenant, &self.writer).map(|(_, block)| block).collect();
        Arc::new(self.view(tenant, bucket, &pending, state.clone()))
    }

    /// Blocks of the bucket, local blocks, and what of the head a state reads.
    fn view(
        &self,
        tenant: &TenantId,
        bucket: Option<BucketSource>,
        local: &[&LocalBlock],
        state: Arc<ReadState>,
    ) -> View {
        let (rules, now_ms) = ((self.options.rules)(tenant), self.options.clock.now_ms());
        let sealed = (!local.is_empty()).then(|| {
            let blocks = local.iter().map(|b| b.meta.clone()).collect();
            let visibility = Visibility::default().with_retention(rules.clone(), now_ms);
            let source = BucketSource::new(self.local.blocks.clone(), tenant.clone(), blocks);
            let ends = local.iter().flat_map(|b| b.windows.keys());
            let spans = ends.map(|end| (end.saturating_sub(self.options.window_ms) + 1, *end)).collect();
            (source.with_visibility(visibility), spans)
        });
        let head = self
            .head
            .find_tenant(tenant)
            .map(|head| HeadSource::new(self.head.clone(), head, state.first_generation..=u64::MAX))
            .map(|head| head.with_retention(rules, now_ms).with_cache(self.bucket.cache.clone()));
        let own = Origin::writer(&self.writer);
        View::new(bucket, sealed, head, own, state).with_changes(self.changes.clone(), tenant.clone())
    }

    /// Tenants with anything in head or blocks.
    pub fn tenants(&self) -> Vec<TenantId> {
        let state = self.state.read().clone();
        let mut all: Vec<_> = state.snapshots.keys().cloned().collect();
        all.extend(state.sealed.iter().flat_map(|s| s.tenants()));
        all.extend(self.head.tenants().iter().map(|t| t.id.clone()));
        all.sort();
        all.dedup();
        all
    }

    /// The live blocks of a tenant, oldest first.
    pub fn blocks(&self, tenant: &TenantId) -> Vec<Arc<crate::block::BlockMeta>> {
        self.state.read().snapshots.get(tenant).map(|s| s.blocks.clone()).unwrap_or_default()
    }

    /// What queries of a tenant see of its catalog; `None` where it has no blocks yet.
    pub fn snapshot(&self, tenant: &TenantId) -> Option<Arc<Snapshot>> {
        self.state.read().snapshots.get(tenant).cloned()
    }

    /// A tenant's blocks on the local disk that are not in the object store yet, oldest first.
    pub fn local_blocks(&self, tenant: &TenantId) -> Vec<Arc<crate::block::BlockMeta>> {
        let state = self.state.read().clone();
        state.local_blocks(tenant, &self.writer).map(|(_, block)| block.meta.clone()).collect()
    }

    /// When the catalogs were read last, and what was wrong if that was not the last attempt.
    pub fn catalog_contact(&self) -> CatalogContact {
        self.contact.lock().clone()
    }

    /// Walks the head's index of a tenant; `limit` bounds each list.
    pub fn head_stats(&self, tenant: &TenantId, limit: usize) -> HeadStats {
        let Some(t) = self.head.find_tenant(tenant) else { return HeadStats::default() };
        let first = self.state.read().first_generation;
        HeadStats { bytes: self.head.bytes(), ..self.head.stats(&t, first, limit) }
    }

    /// Figures for metrics.
    pub fn counts(&self) -> DbCounts {
        let log = self.log.counts();
        let state = self.state.read().clone();
        let blocks = || state.snapshots.values().flat_map(|s| s.blocks.iter());
        let files = || state.snapshots.values().flat_map(|s| s.exemplars.iter());
        let local = || state.sealed.iter().flat_map(|s| s.blocks());
        let span = self.head.span_ms();
        DbCounts {
            series: self.head.series_count(),
            head_bytes: self.head.bytes(),
            head_min_t_ms: span.map(|s| s.0),
            head_max_t_ms: span.map(|s| s.1),
            samples_in_generation: self.head.samples_in_generation(),
            log_bytes_written: log.bytes.load(Ordering::Relaxed),
            log_fsyncs: log.fsyncs.load(Ordering::Relaxed),
            log_fsync_seconds: log.fsync_micros.load(Ordering::Relaxed) as f64 / 1e6,
            log_failures: log.failures.load(Ordering::Relaxed),
            flushes: self.counts.done.load(Ordering::Relaxed),
            flush_failures: self.counts.failed.load(Ordering::Relaxed),
            early_flushes: self.counts.early.load(Ordering::Relaxed),
            refused_writes: self.counts.refused.load(Ordering::Relaxed),
            refused_metadata: self.counts.refused_metadata.load(Ordering::Relaxed),
            missing_segments: self.missing_segments,
            damaged_local_blocks: self.damaged_local_blocks,
            missing_objects: self.missing_objects.load(Ordering::Relaxed),
            log_damaged_bytes: self.replayed.damaged_bytes,
            log_orphaned_samples: self.replayed.orphans,
            max_head_bytes: self.options.max_head_bytes,
            blocks: blocks().count() as u64,
            block_bytes: blocks().map(|b| b.files.bytes()).sum(),
            local_blocks: local().count() as u64,
            local_block_bytes: local().map(|b| b.meta.files.bytes()).sum(),
            local_samples: local().map(|b| b.meta.stats.samples).sum(),
            lost_samples: self.counts.lost_samples.load(Ordering::Relaxed),
            exemplars: self.exemplars.counts(),
            exemplar_files: files().count() as u64,
            exemplar_file_bytes: files().map(|f| f.bytes).sum(),
            stored_exemplars: files().map(|f| f.rows).sum(),
        }
    }

    /// Looks whether the data files that the catalogs name are in the object store; returns how many are not,
    /// which the log names. Three LISTs for each tenant.
    pub async fn look_for_missing(&self) -> Result<u64, CatalogError> {
        let catalogs: Vec<_> = self.catalogs.lock().await.values().cloned().collect();
        let mut missing = 0;
        for catalog in catalogs {
            let found = presence::missing(&*self.options.store, &catalog).await?;
            presence::report(catalog.tenant(), &found);
            missing += found.len() as u64;
        }
        self.missing_objects.store(missing, Ordering::Relaxed);
        Ok(missing)
    }

    /// Stops taking writes and leaves all on disk; with `flush` the head becomes blocks first.
    pub async fn close(self: &Arc<Self>, flush: bool) -> Result<(), FlushError> {
        self.closing.store(true, Ordering::Release);
        // Whoever is in between finishes first.
        drop(self.gate.write().await);
        let flushed = if flush { self.flush().await.map(drop) } else { Ok(()) };
        let db = self.clone();
        tokio::task::spawn_blocking(move || db.log.close())
            .await
            .map_err(|e| FlushError::because(e.to_string(), e))?;
        if let Some(owner) = &self.owner {
            owner.release().await;
        }
        flushed
    }
}

/// A tenant's catalog as this process sees it.
async fn open_catalog(
    options: &DbOptions,
    writer: &str,
    tenant: &TenantId,
) -> Result<Arc<Catalog>, catalog::CatalogError> {
    let more = CatalogOptions { clock: options.clock.clone(), ..CatalogOptions::default() };
    Catalog::open(options.store.clone(), tenant.clone(), writer, more).await.map(Arc::new)
}
