//! The start of a store: its folder, its name in the bucket, the catalogs, what lies on the local disk, and
//! the log, in this order.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

use futures::{StreamExt, TryStreamExt};
use parking_lot::RwLock;
use ulid::Ulid;

use super::folder::{sync_folder, take_folder};
use super::local::sealing::Found;
use super::progress::{Progress, State, emptied_segments, note_snapshots, refuse_older_catalog};
use super::{
    CatalogContact, Db, DbOptions, OpenError, ReadState, changes, flush, identity, local, maintain,
    open_catalog, owed, sidecars,
};
use crate::bucket::BlockStore;
use crate::bucket::store_clock::StoreClock;
use crate::catalog::{self, CATALOGS_AT_ONCE, Catalog, Owner, Snapshot};
use crate::head::Head;
use crate::sidecar::exemplars::buffer::Buffer;
use crate::wal::replay::{Replayed, replay};
use crate::wal::{self, Log};
use model::tenant::TenantId;

impl Db {
    /// Opens or creates a store: takes the folder's lock, reads catalog and local blocks, replays the log.
    /// Runs on a tokio runtime, which it keeps using.
    pub async fn open(mut options: DbOptions) -> Result<Arc<Db>, OpenError> {
        let dir = options.dir.clone();
        let (locks, writer) = tokio::task::spawn_blocking(move || take_folder(&dir))
            .await
            .map_err(|e| OpenError::mend(e.to_string()))??;
        let owner = join_bucket(&mut options, &writer).await?;
        let catalogs = open_catalogs(&options, &writer).await?;
        let snapshots: BTreeMap<TenantId, Arc<Snapshot>> =
            catalogs.iter().map(|(tenant, catalog)| (tenant.clone(), catalog.snapshot())).collect();
        let head = Arc::new(Head::with_metadata_bytes(metadata_bytes(&options)));
        let exemplars = Arc::new(Buffer::new(options.exemplar_bytes));
        let (progress, known) = open_progress(&options.dir);
        refuse_older_catalog(&progress, known.as_ref(), &snapshots)?;
        let local = local::sealing::open_store(&options.dir, options.local_store.clone())?;
        let found = local::sealing::load(&options.dir, &*local, &snapshots, &writer, known.as_ref()).await?;
        let (mut missing_segments, damaged_local_blocks) = (found.missing_segments, found.damaged);
        let accounted = found.accounted;
        local::sealing::restore_sidecars(&*local, &found.sealed, &snapshots, &writer, &head, &exemplars)
            .await;
        let sealed = found.sealed.clone();
        let progress = Arc::new(progress);
        let (log, replayed, segment) =
            open_log(&options, found, &snapshots, &writer, &head, &exemplars, &progress).await?;
        missing_segments += emptied_segments(known.as_ref(), &replayed);
        progress.update(|state| {
            state.accounted = state.accounted.max(accounted);
            state.last_segment = state.last_segment.max(log.first_segment());
            note_snapshots(state, &snapshots);
        });
        let bucket =
            BlockStore::new(options.store.clone(), tokio::runtime::Handle::current(), options.cache_bytes)
                .with_disk_cache(options.disk_cache.clone());
        let gone = snapshots.iter().filter_map(|(t, s)| Some((t.clone(), s.watermark(&writer)?))).collect();
        let changes = Arc::new(changes::Changes::default());
        let unflushed = head.tenants().into_iter().map(|t| t.id.clone());
        let of_local = sealed.iter().flat_map(|s| s.tenants()).collect::<Vec<_>>();
        unflushed.chain(of_local).for_each(|tenant| changes.of(&tenant).wrote_anywhere(head.generation()));
        let db = Arc::new(Db {
            watermarks: identity::Watermarks::of(&snapshots, &writer),
            writer,
            head,
            exemplars,
            metadata_work: sidecars::MetadataWork::default(),
            log,
            turns: Arc::default(),
            owed: owed::Owed::default(),
            changes,
            gate: Arc::default(),
            state: RwLock::new(Arc::new(ReadState {
                first_generation: 0,
                generations: Arc::default(),
                sealed,
                committed: Vec::new(),
                // What was committed before the start is in local blocks no more.
                gone: Arc::new(gone),
                snapshots,
            })),
            catalogs: tokio::sync::Mutex::new(catalogs),
            flushing: tokio::sync::Mutex::default(),
            sealing: tokio::sync::Mutex::default(),
            local: local::sealing::LocalStore { blocks: bucket.of_local(local.clone()), store: local },
            generation_began_ms: AtomicI64::new(options.clock.now_ms()),
            generation_segment: AtomicU64::new(segment),
            counts: flush::FlushCounts::default(),
            bucket,
            store_clock: StoreClock::new(options.store.clone(), options.clock.clone()),
            closing: AtomicBool::new(false),
            contact: parking_lot::Mutex::new(CatalogContact { read_ms: options.clock.now_ms(), error: None }),
            replayed,
            progress,
            missing_segments,
            damaged_local_blocks,
            missing_objects: AtomicU64::new(0),
            owner,
            options,
            _locks: locks,
        });
        tokio::spawn(maintain::maintain(Arc::downgrade(&db)));
        if db.options.flush_when_due {
            tokio::spawn(maintain::look_for_missing(Arc::downgrade(&db)));
        }
        Ok(db)
    }
}

/// What metadata of metrics may take: an eighth of the head is for what stays, the rest for series and
/// samples.
fn metadata_bytes(options: &DbOptions) -> u64 {
    options.max_head_bytes.map_or(u64::MAX, |limit| limit / 8).min(256 << 20)
}

/// What the folder remembers of itself; says so where it has a log and remembers nothing.
fn open_progress(dir: &Path) -> (Progress, Option<State>) {
    let (progress, known) = Progress::open(dir);
    if known.is_none() && wal::segments(&dir.join("log")).is_ok_and(|all| !all.is_empty()) {
        tracing::warn!(
            "{} is not there, although {} has a log: what else may be gone from the folder is not noticed. Folders of earlier versions do not have it",
            progress.path().display(),
            dir.display()
        );
    }
    (progress, known)
}

/// Sees to it that this process may commit to the bucket, under the name that its folder has there. Answers
/// what has to be given back when the process ends.
async fn join_bucket(options: &mut DbOptions, writer: &str) -> Result<Option<Arc<Owner>>, OpenError> {
    let arranged = catalog::arrange(options.store.clone(), &options.commits, writer).await;
    let arranged = arranged?;
    options.store = arranged.store;
    identity::claim(&options.dir, &*options.store, writer).await.map_err(|e| match e {
        identity::ClaimError::Failed(text) => OpenError::wait(text),
        identity::ClaimError::Refused(text) => OpenError::mend(text),
    })?;
    Ok(arranged.owner)
}

/// The catalogs of all tenants that have anything in the bucket.
async fn open_catalogs(
    options: &DbOptions,
    writer: &str,
) -> Result<HashMap<TenantId, Arc<Catalog>>, OpenError> {
    let fail = |e: catalog::CatalogError| {
        let text = format!("cannot read the catalog: {e}");
        let error = if e.passes() { OpenError::wait(text) } else { OpenError::mend(text) };
        error.caused_by(e)
    };
    let tenants = Catalog::tenants(&*options.store).await.map_err(fail)?;
    let opened = futures::stream::iter(tenants).map(|tenant| async {
        let catalog = open_catalog(options, writer, &tenant).await?;
        Ok((tenant, catalog))
    });
    opened.buffer_unordered(CATALOGS_AT_ONCE).try_collect().await.map_err(fail)
}

/// Replays what neither the bucket nor the local blocks have into the head, and begins a segment. Answers
/// what was replayed, and the first segment of the current generation.
async fn open_log(
    options: &DbOptions,
    found: Found,
    snapshots: &BTreeMap<TenantId, Arc<Snapshot>>,
    writer: &str,
    head: &Arc<Head>,
    exemplars: &Arc<Buffer>,
    progress: &Arc<Progress>,
) -> Result<(Log, Replayed, u64), OpenError> {
    let log_dir = options.dir.join("log");
    let marks: HashMap<TenantId, u64> =
        snapshots.iter().filter_map(|(t, s)| Some((t.clone(), s.watermark(writer)?))).collect();
    let highest = marks.values().copied().max().unwrap_or(0);
    let sealed_to = found.last_segment.max(highest);
    let (sync, replay_head, replay_exemplars) = (options.log_sync, head.clone(), exemplars.clone());
    let now_ms = options.clock.now_ms();
    let (dir, noted) = (options.dir.clone(), progress.clone());
    let replaying = options.replaying.clone();
    let opened = tokio::task::spawn_blocking(move || -> std::io::Result<(Log, Replayed, u64)> {
        std::fs::create_dir_all(&log_dir)?;
        // This folder and the one of local blocks, before anything in them is acknowledged.
        sync_folder(&dir)?;
        found.remove_segments(&log_dir)?;
        let is_flushed = |tenant: &TenantId, segment| {
            let flushed = segment <= highest && marks.get(tenant).is_some_and(|&mark| segment <= mark);
            flushed || found.has(tenant, segment)
        };
        let replayed = replay(&log_dir, &replay_head, &replay_exemplars, now_ms, &*replaying, is_flushed)?;
        let left = wal::segments(&log_dir)?;
        let next = left.last().copied().unwrap_or(0).max(sealed_to) + 1;
        let begun = move |number| noted.update(|s| s.last_segment = s.last_segment.max(number));
        let log = Log::create_noting(&log_dir, next, Ulid::new().random() as u64, sync, begun)?;
        Ok((log, replayed, left.first().copied().unwrap_or(next)))
    });
    let explain = |e: &dyn std::fmt::Display| {
        OpenError::wait(format!(
            "cannot open the log in {}: {e}. Is the folder there, writable, and the disk not full?",
            options.dir.display()
        ))
    };
    opened.await.map_err(|e| explain(&e))?.map_err(|e| explain(&e))
}
