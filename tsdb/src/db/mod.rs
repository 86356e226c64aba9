//! The whole store of one process: log, head, blocks and catalog behind one handle.
//!
//! Writers go through [`Appender`]; readers take [`Db::source`], which pins one state: blocks of one catalog
//! snapshot per tenant, the local blocks that are not in them, and the head's generations that are in
//! neither. Sealing or a flush installs the next state in one step, so no query sees half of it.

mod appender;
mod deleting;
pub mod flush;
mod identity;
pub mod local;
pub mod plan;
mod progress;
mod sidecars;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use object_store::ObjectStore;
use parking_lot::RwLock;
use ulid::Ulid;

use crate::bucket::{BlockStore, BucketSource};
use crate::catalog::{self, Catalog, CatalogOptions, Commits, Owner, Snapshot};
use crate::cause::Cause;
use crate::db::local::{LocalBlock, SealedGeneration};
use crate::db::plan::{Pressure, pressure};
use crate::deletion::{RetentionRules, Visibility};
use crate::head::Head;
use crate::head::source::HeadSource;
use crate::sidecar::exemplars::buffer::{Buffer, BufferCounts};
use crate::wal::replay::{Replayed, replay};
use crate::wal::{self, Log};
use model::clock::{Clock, SystemClock};
use model::head_stats::{HeadBytes, HeadStats};
use model::source::Source;
use model::tenant::TenantId;

use progress::Progress;
use view::View;

pub use crate::wal::LogSync;
pub use appender::{Appender, SeriesRef};
pub use deleting::DeleteError;

/// The rules of retention of a tenant.
pub type RetentionOf = Arc<dyn Fn(&TenantId) -> Arc<RetentionRules> + Send + Sync>;

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
    /// Where local blocks go; `None` for a folder in `dir`.
    pub local_store: Option<Arc<dyn ObjectStore>>,
    pub log_sync: LogSync,
    pub clock: Arc<dyn Clock>,
    /// Bytes the head may hold: near them it is sealed early, at them writes are refused until there is
    /// room. `None`: no limit.
    pub max_head_bytes: Option<u64>,
    /// Bytes that blocks' indexes and small columns may hold in memory.
    pub cache_bytes: usize,
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
    /// Flush by itself when a window is complete. Tests switch it off.
    pub flush_when_due: bool,
}

impl DbOptions {
    pub fn new(dir: impl Into<PathBuf>, store: Arc<dyn ObjectStore>) -> Self {
        DbOptions {
            dir: dir.into(),
            store,
            window_ms: 2 * 3600 * 1000,
            seal_ms: 10 * 60 * 1000,
            local_store: None,
            log_sync: LogSync::Always,
            clock: Arc::new(SystemClock),
            max_head_bytes: None,
            cache_bytes: 256 << 20,
            rules: Arc::new(|_| Arc::default()),
            commits: Commits::Conditional,
            exemplar_bytes: 64 << 20,
            exemplar_keep_ms: None,
            metadata_keep_ms: None,
            flush_when_due: true,
        }
    }
}

/// Why a store could not be opened; the text says what to do.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("{text}")]
pub struct OpenError {
    text: String,
    passes: bool,
}

impl OpenError {
    /// Something that a person has to mend.
    pub fn mend(text: impl Into<String>) -> OpenError {
        OpenError { text: text.into(), passes: false }
    }

    /// Something that may pass by itself: worth to be tried again.
    pub fn wait(text: impl Into<String>) -> OpenError {
        OpenError { text: text.into(), passes: true }
    }

    /// Whether it may pass by itself.
    pub fn passes(&self) -> bool {
        self.passes
    }
}

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

/// See the module. Share it behind an `Arc`.
pub struct Db {
    options: DbOptions,
    writer: String,
    watermarks: identity::Watermarks,
    head: Arc<Head>,
    exemplars: Arc<Buffer>,
    metadata_cache: sidecars::MetadataCache,
    log: Log,
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
    closing: AtomicBool,
    replayed: Replayed,
    progress: Arc<Progress>,
    missing_segments: u64,
    damaged_local_blocks: u64,
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
    snapshots: BTreeMap<TenantId, Arc<Snapshot>>,
}

/// Stands for the head's generations that a state reads: as long as somebody holds it they stay.
#[derive(Default)]
struct Generations;

impl Db {
    /// Opens or creates a store: takes the folder's lock, reads catalog and local blocks, replays the log.
    /// Runs on a tokio runtime, which it keeps using.
    pub async fn open(mut options: DbOptions) -> Result<Arc<Db>, OpenError> {
        let dir = options.dir.clone();
        let (locks, writer) = tokio::task::spawn_blocking(move || take_folder(&dir))
            .await
            .map_err(|e| OpenError::mend(e.to_string()))??;
        let arranged = catalog::arrange(options.store.clone(), &options.commits, &writer).await;
        let arranged = arranged.map_err(|e| match e.passes() {
            true => OpenError::wait(e.to_string()),
            false => OpenError::mend(e.to_string()),
        })?;
        options.store = arranged.store;
        identity::claim(&options.dir, &*options.store, &writer).await.map_err(|e| match e {
            identity::ClaimError::Failed(text) => OpenError::wait(text),
            identity::ClaimError::Refused(text) => OpenError::mend(text),
        })?;
        let watermarks = identity::Watermarks::default();
        let mut catalogs = HashMap::new();
        let mut snapshots = BTreeMap::new();
        let fail = |e: catalog::CatalogError| {
            let text = format!("cannot read the catalog: {e}");
            if e.passes() { OpenError::wait(text) } else { OpenError::mend(text) }
        };
        for tenant in Catalog::tenants(&*options.store).await.map_err(fail)? {
            let catalog = open_catalog(&options, &writer, &tenant).await.map_err(fail)?;
            snapshots.insert(tenant.clone(), catalog.snapshot());
            watermarks.begin(&tenant, catalog.snapshot().watermark(&writer));
            catalogs.insert(tenant, catalog);
        }
        let log_dir = options.dir.join("log");
        // An eighth for what stays: the rest is for series and samples.
        let metadata_bytes = options.max_head_bytes.map_or(u64::MAX, |limit| limit / 8).min(256 << 20);
        let head = Arc::new(Head::with_metadata_bytes(metadata_bytes));
        let exemplars = Arc::new(Buffer::new(options.exemplar_bytes));
        let (progress, known) = Progress::open(&options.dir);
        refuse_older_catalog(&progress, known.as_ref(), &snapshots)?;
        let local = local::sealing::open_store(&options.dir, options.local_store.clone())?;
        let found = local::sealing::load(&options.dir, &*local, &snapshots, &writer, known.as_ref()).await?;
        let (missing_segments, damaged_local_blocks) = (found.missing_segments, found.damaged);
        let accounted = found.accounted;
        local::sealing::restore_sidecars(&*local, &found.sealed, &snapshots, &writer, &head, &exemplars)
            .await;
        let marks: HashMap<TenantId, u64> =
            snapshots.iter().filter_map(|(t, s)| Some((t.clone(), s.watermark(&writer)?))).collect();
        let highest = marks.values().copied().max().unwrap_or(0);
        let sealed_to = found.last_segment.max(highest);
        let (sync, replay_head, replay_exemplars) = (options.log_sync, head.clone(), exemplars.clone());
        let now_ms = options.clock.now_ms();
        let sealed = found.sealed.clone();
        let dir = options.dir.clone();
        let opened = tokio::task::spawn_blocking(move || -> std::io::Result<(Log, Replayed, u64)> {
            std::fs::create_dir_all(&log_dir)?;
            // This folder and the one of local blocks, before anything in them is acknowledged.
            sync_folder(&dir)?;
            found.remove_segments(&log_dir)?;
            let replayed = replay(&log_dir, &replay_head, &replay_exemplars, now_ms, |tenant, segment| {
                let flushed = segment <= highest && marks.get(tenant).is_some_and(|&mark| segment <= mark);
                flushed || found.has(tenant, segment)
            })?;
            let left = wal::segments(&log_dir)?;
            let next = left.last().copied().unwrap_or(0).max(sealed_to) + 1;
            let log = Log::create(&log_dir, next, Ulid::new().random() as u64, sync)?;
            Ok((log, replayed, left.first().copied().unwrap_or(next)))
        });
        let explain = |e: &dyn std::fmt::Display| {
            OpenError::wait(format!(
                "cannot open the log in {}: {e}. Is the folder there, writable, and the disk not full?",
                options.dir.display()
            ))
        };
        let (log, replayed, segment) = opened.await.map_err(|e| explain(&e))?.map_err(|e| explain(&e))?;
        let progress = Arc::new(progress);
        progress.update(|state| {
            state.accounted = state.accounted.max(accounted);
            state.last_segment = state.last_segment.max(log.first_segment());
            note_snapshots(state, &snapshots);
        });
        let bucket =
            BlockStore::new(options.store.clone(), tokio::runtime::Handle::current(), options.cache_bytes);
        let db = Arc::new(Db {
            writer,
            watermarks,
            head,
            exemplars,
            metadata_cache: sidecars::MetadataCache::default(),
            log,
            gate: Arc::default(),
            state: RwLock::new(Arc::new(ReadState {
                first_generation: 0,
                generations: Arc::default(),
                sealed,
                snapshots,
            })),
            catalogs: tokio::sync::Mutex::new(catalogs),
            flushing: tokio::sync::Mutex::default(),
            sealing: tokio::sync::Mutex::default(),
            local: local::sealing::LocalStore {
                blocks: bucket.of_another_store(local.clone()),
                store: local,
            },
            generation_began_ms: AtomicI64::new(options.clock.now_ms()),
            generation_segment: AtomicU64::new(segment),
            counts: flush::FlushCounts::default(),
            bucket,
            closing: AtomicBool::new(false),
            replayed,
            progress,
            missing_segments,
            damaged_local_blocks,
            owner: arranged.owner,
            options,
            _locks: locks,
        });
        tokio::spawn(maintain(Arc::downgrade(&db)));
        Ok(db)
    }

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
            let visibility = snapshot.visibility().with_retention(rules.clone(), now_ms);
            BucketSource::new(self.bucket.clone(), tenant.clone(), blocks).with_visibility(visibility)
        });
        let pending: Vec<&LocalBlock> =
            state.local_blocks(tenant, &self.writer).map(|(_, block)| block).collect();
        let sealed = (!pending.is_empty()).then(|| {
            let blocks = pending.iter().map(|b| b.meta.clone()).collect();
            let visibility = Visibility::default().with_retention(rules.clone(), now_ms);
            let source = BucketSource::new(self.local.blocks.clone(), tenant.clone(), blocks);
            let ends = pending.iter().flat_map(|b| b.windows.keys());
            let spans = ends.map(|end| (end.saturating_sub(self.options.window_ms) + 1, *end)).collect();
            (source.with_visibility(visibility), spans)
        });
        let head = self
            .head
            .find_tenant(tenant)
            .map(|head| HeadSource::new(self.head.clone(), head, state.first_generation..=u64::MAX))
            .map(|head| head.with_retention(rules, now_ms));
        Arc::new(View::new(bucket, sealed, head, state))
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

/// Whether an error of the file system may pass by itself: a disk that is full, and what the network or the
/// kernel could not do now. What the name or the permissions of a file forbid does not.
pub(crate) fn io_passes(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::*;
    !matches!(
        e.kind(),
        PermissionDenied
            | NotADirectory
            | IsADirectory
            | NotFound
            | ReadOnlyFilesystem
            | InvalidFilename
            | InvalidInput
            | Unsupported
    )
}

/// Refuses to go on where a tenant's catalog is older than this folder has seen it: what it named then is in
/// no query, and compaction would remove it as left over.
fn refuse_older_catalog(
    progress: &Progress,
    known: Option<&progress::State>,
    snapshots: &BTreeMap<TenantId, Arc<Snapshot>>,
) -> Result<(), OpenError> {
    let Some(known) = known else { return Ok(()) };
    let now = |tenant: &str| {
        snapshots.iter().find(|(id, _)| id.as_str() == tenant).map_or(0, |(_, snapshot)| snapshot.number)
    };
    let backwards = progress::moved_backwards(&known.snapshots, now);
    let Some((tenant, seen, now)) = backwards.first() else { return Ok(()) };
    Err(OpenError::mend(format!(
        "the catalog of tenant {tenant}{} is older than it was: this folder has seen its snapshot {seen}, the newest in the object store is {now} (0: none). \
         Blocks that only the newer one names would be taken for left over and removed. Restore the catalog (or the bucket) as it was; if what is gone \
         may stay gone, remove {} and start again",
        if backwards.len() > 1 { format!(" (and of {} more)", backwards.len() - 1) } else { String::new() },
        progress.path().display()
    )))
}

fn note_snapshots(state: &mut progress::State, snapshots: &BTreeMap<TenantId, Arc<Snapshot>>) {
    for (tenant, snapshot) in snapshots {
        state.snapshots.insert(tenant.to_string(), snapshot.number);
    }
}

/// Makes the folder, locks it, and finds or gives the name under which its log is known in the catalog.
fn take_folder(dir: &Path) -> Result<([File; 2], String), OpenError> {
    let fail = |what: &str, e: &std::io::Error| {
        let text = format!(
            "cannot {what} the data folder {}: {e}. Give another with --data-dir, or make it writable",
            dir.display()
        );
        if io_passes(e) { OpenError::wait(text) } else { OpenError::mend(text) }
    };
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|a| !a.as_os_str().is_empty() && !a.exists()).collect();
    std::fs::create_dir_all(dir).map_err(|e| fail("create", &e))?;
    for made in missing {
        let parent = made.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_folder(parent).map_err(|e| fail("create", &e))?;
    }
    // A file can be removed under the process that has it locked; the folder goes with all that is in it.
    let folder = File::open(dir).map_err(|e| fail("open", &e))?;
    let file = File::options().create(true).truncate(false).write(true).open(dir.join("lock"));
    let locks = [folder, file.map_err(|e| fail("write to", &e))?];
    for lock in &locks {
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(OpenError::wait(format!(
                    "the data folder {} is in use by another Hearth: stop it, or give this one a folder of its own with --data-dir",
                    dir.display()
                )));
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(fail("lock", &e)),
        }
    }
    // Blocks that a process was writing when it was killed: their samples are still in the log.
    let scratch = dir.join("scratch");
    if let Err(e) = std::fs::remove_dir_all(&scratch)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        return Err(fail("empty the scratch folder of", &e));
    }
    let path = dir.join("writer");
    let writer = match std::fs::read_to_string(&path) {
        Ok(text) if Ulid::from_string(text.trim()).is_ok() => text.trim().to_string(),
        Ok(text) if !text.trim().is_empty() => {
            return Err(OpenError::mend(format!(
                "{} holds {text:?} and should hold the 26 characters that name this folder's log: restore it, or remove it if the log is empty",
                path.display()
            )));
        }
        _ => {
            let writer = Ulid::new().to_string();
            let mut file = File::create(&path).map_err(|e| fail("write to", &e))?;
            file.write_all(writer.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(|e| fail("write to", &e))?;
            sync_folder(dir).map_err(|e| fail("write to", &e))?;
            writer
        }
    };
    Ok((locks, writer))
}

/// Makes the names in a folder durable. What is fsynced in a file is lost all the same with the name of the
/// file, or of a folder above it.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

async fn open_catalog(
    options: &DbOptions,
    writer: &str,
    tenant: &TenantId,
) -> Result<Arc<Catalog>, catalog::CatalogError> {
    let more = CatalogOptions { clock: options.clock.clone(), ..CatalogOptions::default() };
    Catalog::open(options.store.clone(), tenant.clone(), writer, more).await.map(Arc::new)
}

/// How often the head is looked at.
const TICK: Duration = Duration::from_secs(1);

/// Least time between two generations that are sealed because memory asks for it: more often would make more
/// small blocks than room.
const RELIEF_TICKS: u64 = 5;

/// How often other writers' commits are looked for.
const REFRESH_TICKS: u64 = 60;

/// Seals and flushes when due, tries again after failures with growing pauses, and follows the catalog; ends
/// with the store. A flush runs beside it: an object store that is slow or away must not keep samples in
/// memory.
async fn maintain(db: Weak<Db>) {
    let (mut tick, mut relieved) = (0u64, 0u64);
    let (mut flush_pause, mut seal_pause) = (Pause::default(), Pause::default());
    let mut flush: Option<tokio::task::JoinHandle<Result<FlushReport, FlushError>>> = None;
    loop {
        tokio::time::sleep(TICK).await;
        let Some(db) = db.upgrade() else { return };
        if db.closing.load(Ordering::Acquire) {
            return;
        }
        tick += 1;
        if tick % REFRESH_TICKS == 0
            && let Err(e) = db.refresh().await
        {
            tracing::warn!("the catalog could not be read again, answers go on with what is known: {e}");
        }
        if !db.options.flush_when_due {
            continue;
        }
        if let Some(done) = flush.take_if(|f| f.is_finished()) {
            match done.await {
                Ok(Ok(_)) => flush_pause = Pause::default(),
                // Nothing is lost meanwhile: samples stay in memory, in the log and on the local disk.
                Ok(Err(e)) => flush_pause.failed(tick, "flush", &e),
                Err(e) => flush_pause.failed(tick, "flush", &e),
            }
        }
        if flush.is_none() && tick >= flush_pause.until && db.flush_is_due() {
            let db = db.clone();
            flush = Some(tokio::spawn(async move { db.flush().await }));
            continue;
        }
        let pressed = tick >= relieved && db.pressure() != Pressure::None;
        if tick < seal_pause.until || !(pressed || db.seal_is_due()) {
            continue;
        }
        if pressed {
            relieved = tick + RELIEF_TICKS;
            db.counts.early.fetch_add(1, Ordering::Relaxed);
            let bytes = db.head.bytes();
            tracing::info!(
                bytes = bytes.total(),
                chunks = bytes.chunks,
                series = bytes.series,
                "moving samples to the local disk early: the head nears head.max_memory_bytes"
            );
        }
        match db.seal().await {
            Ok(()) => seal_pause = Pause::default(),
            Err(e) => seal_pause.failed(tick, "moving samples to the local disk", &e),
        }
    }
}

/// Ticks to wait after failures.
#[derive(Default)]
struct Pause {
    until: u64,
    ticks: u64,
}

impl Pause {
    fn failed(&mut self, tick: u64, what: &str, e: &dyn std::fmt::Display) {
        self.ticks = (self.ticks * 2).clamp(5, 60);
        self.until = tick + self.ticks;
        tracing::error!("{what} failed and will be tried again in {} s: {e}", self.ticks);
    }
}
