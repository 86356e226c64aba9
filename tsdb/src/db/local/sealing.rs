//! Head to local disk: cut the log, freeze the generation, write it as local blocks, and only then let go of
//! the log and of the memory.
//!
//! What this buys: the head holds minutes of samples and not hours, a restart replays minutes of log, and an
//! object store that is away costs disk and not memory. Any step may fail or be the last one before a crash:
//! until the manifest is there the log has everything, and sealing that failed is taken up again with the
//! same frozen generation before anything new is frozen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use tracing::Instrument;
use ulid::Ulid;

use crate::block::read::store::BlockStore;
use crate::block::upload::upload;
use crate::block::{BlockError, BlockOrigin, WriteOptions, write_block};
use crate::catalog::Snapshot;
use crate::db::local::{self, LocalBlock, SealedGeneration};
use crate::db::plan::{HeadState, Pressure, seal_is_due, window_of};
use crate::db::progress::{self, State};
use crate::db::{Committed, Db, FlushError, Generations, OpenError, ReadState};
use crate::head::chunk::Columns;
use crate::head::source::HeadSource;
use crate::head::{Head, TenantHead};
use crate::sidecar::exemplars::buffer::Buffer;
use crate::sidecar::exemplars::file as exemplar_file;
use crate::sidecar::metadata;
use crate::sidecar::{self, Kind, Sidecar};
use crate::wal::{segment_path, segments};
use model::source::{SeriesColumns, SeriesCursor, SourceError};
use model::tenant::TenantId;

/// Tenants whose part of a sealed generation is written at the same time.
const TENANTS_AT_ONCE: usize = 16;

/// How long sealing waits for queries that still read a generation it is about to forget. They end by their
/// own timeout.
const READERS_PATIENCE: Duration = Duration::from_secs(150);

/// The local store and the way to read its blocks.
pub(crate) struct LocalStore {
    pub store: Arc<dyn ObjectStore>,
    pub blocks: Arc<BlockStore>,
}

/// What sealing one generation leaves to the next.
#[derive(Default)]
pub(crate) struct Sealing {
    /// Frozen and not yet on disk.
    frozen: Option<Frozen>,
    /// On disk, but perhaps still read: what the states of such queries hold, and the generation to forget
    /// after them.
    retired: Option<(Weak<Generations>, u64)>,
    /// In the object store, but perhaps still read; the files go with the last reader.
    spent: Vec<Arc<SealedGeneration>>,
}

struct Frozen {
    generation: u64,
    /// The segments of the log it was taken from, both included.
    segments: (u64, u64),
    span_ms: Option<(i64, i64)>,
    began_ms: i64,
    /// Whether it was frozen by a flush, which sets exemplars aside at the same moment.
    exemplars: bool,
}

/// The folder of local blocks below a store's own.
fn folder(dir: &Path) -> PathBuf {
    dir.join("sealed")
}

/// Opens the local store. `None` for its place below `dir`.
pub(crate) fn open_store(
    dir: &Path,
    given: Option<Arc<dyn ObjectStore>>,
) -> Result<Arc<dyn ObjectStore>, OpenError> {
    if let Some(store) = given {
        return Ok(store);
    }
    let folder = folder(dir);
    let fail = |e: &dyn std::fmt::Display| {
        OpenError::mend(format!("cannot use the folder of local blocks {}: {e}", folder.display()))
    };
    std::fs::create_dir_all(&folder).map_err(|e| match crate::db::folder::io_passes(&e) {
        true => OpenError::wait(fail(&e).to_string()),
        false => fail(&e),
    })?;
    let store = LocalFileSystem::new_with_prefix(&folder).map_err(|e| fail(&e))?;
    Ok(Arc::new(store.with_fsync(true).with_automatic_cleanup(true)))
}

/// What a restart found on the local disk.
pub(crate) struct Found {
    /// Not in the object store, oldest first.
    pub sealed: Vec<Arc<SealedGeneration>>,
    /// The highest segment that a manifest was ever named by: later ones must have later numbers.
    pub last_segment: u64,
    /// Whose part of a sealed generation is damaged: what the log still has of those segments is replayed.
    partial: Vec<(TenantId, (u64, u64))>,
    /// Segments that should have been in the log or in local blocks and are gone, and how many files of local
    /// blocks are damaged or gone.
    pub missing_segments: u64,
    pub damaged: u64,
    /// Every segment up to this is in the object store, or had nothing in it, or is known to be lost.
    pub accounted: u64,
}

impl Found {
    /// Whether a tenant's samples of a segment are in a local block, so that the log's are passed over.
    pub fn has(&self, tenant: &TenantId, segment: u64) -> bool {
        let within = |range: (u64, u64)| (range.0..=range.1).contains(&segment);
        self.sealed.iter().any(|s| within((s.first_segment, s.last_segment)))
            && !self.partial.iter().any(|(of, range)| of == tenant && within(*range))
    }

    /// Removes the segments of the log that are whole in local blocks, before the rest is replayed.
    pub fn remove_segments(&self, log: &Path) -> std::io::Result<()> {
        let within = |range: (u64, u64), number| (range.0..=range.1).contains(&number);
        for number in segments(log)? {
            let is_sealed = self.sealed.iter().any(|s| within((s.first_segment, s.last_segment), number));
            if is_sealed && !self.partial.iter().any(|(_, range)| within(*range, number)) {
                std::fs::remove_file(segment_path(log, number))?;
            }
        }
        Ok(())
    }
}

/// Reads the local blocks back after a restart. What is damaged is told in the log and left out, and so are
/// generations that the object store has for all tenants, as `snapshots` tell; their files go.
pub(crate) async fn load(
    dir: &Path,
    store: &dyn ObjectStore,
    snapshots: &BTreeMap<TenantId, Arc<Snapshot>>,
    writer: &str,
    known: Option<&State>,
) -> Result<Found, OpenError> {
    let loaded = local::load(store).await;
    let loaded = loaded.map_err(|e| OpenError::mend(format!("cannot read the local blocks: {e}")))?;
    for what in &loaded.damaged {
        tracing::error!(
            "a local block is damaged, and its samples are lost where the log does not have them any more: {what}"
        );
    }
    let missing = missing_segments(dir, &loaded, snapshots, writer, known)?;
    let missing_segments = missing.iter().map(|(from, to)| to - from + 1).sum::<u64>();
    if missing_segments > 0 {
        let all: Vec<_> = missing.iter().map(|(from, to)| format!("{from} to {to}")).collect();
        tracing::error!(
            "segments {} of the log in {} are gone: they are neither there nor in a local block nor in the object store, and what was acknowledged in them is lost. Restore them while the server is stopped, if there is a copy",
            all.join(", "),
            dir.display()
        );
    }
    let (mut pending, mut spent) = (Vec::new(), Vec::new());
    for sealed in loaded.sealed {
        match is_pending(&sealed, snapshots, writer) {
            true => pending.push(sealed),
            false => spent.push(sealed),
        }
    }
    let lost = missing.last().map_or(0, |(_, to)| *to);
    let accounted = spent.iter().map(|sealed: &SealedGeneration| sealed.last_segment).fold(lost, u64::max);
    for sealed in &spent {
        local::remove(store, sealed).await;
    }
    let (folder, named, knows_all) = (folder(dir), loaded.named, loaded.knows_all);
    // What is not named may be all that is left of the segments that are gone.
    let aside = (missing_segments > 0).then(|| dir.join("orphans"));
    let swept = tokio::task::spawn_blocking(move || match folder.exists() && knows_all {
        true => local::sweep(&folder, &named, aside.as_deref()),
        false => Ok(()),
    });
    if let Ok(Err(e)) = swept.await {
        tracing::warn!("files left over from a crash could not be removed: {e}");
    }
    let sealed = pending.into_iter().map(Arc::new).collect();
    let damaged = loaded.damaged.len() as u64;
    let (last_segment, partial) = (loaded.last_segment, loaded.partial);
    Ok(Found { sealed, last_segment, partial, missing_segments, damaged, accounted })
}

/// The segments that are neither in the log nor in a local block nor in the object store.
fn missing_segments(
    dir: &Path,
    loaded: &local::Loaded,
    snapshots: &BTreeMap<TenantId, Arc<Snapshot>>,
    writer: &str,
    known: Option<&State>,
) -> Result<Vec<(u64, u64)>, OpenError> {
    let log = match segments(&dir.join("log")) {
        Ok(log) => log,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(OpenError::wait(format!("cannot read the log in {}: {e}", dir.display()))),
    };
    let sealed: Vec<_> = loaded.sealed.iter().map(|s| (s.first_segment, s.last_segment)).collect();
    let flushed = snapshots.values().filter_map(|s| s.watermark(writer)).max().unwrap_or(0);
    let first = log.iter().copied().chain(sealed.iter().map(|s| s.0)).min().unwrap_or(0);
    // Where nothing is remembered, what is missing before the first that is there may have been empty.
    let accounted = known.map_or(first.saturating_sub(1), |known| known.accounted).max(flushed);
    let last = known.map_or(0, |known| known.last_segment);
    Ok(progress::missing(accounted, last, &log, &sealed))
}

/// Whether something of a sealed generation is not in the object store.
pub(crate) fn is_pending(
    sealed: &SealedGeneration,
    snapshots: &BTreeMap<TenantId, Arc<Snapshot>>,
    writer: &str,
) -> bool {
    sealed.tenants().any(|tenant| sealed.last_segment > watermark(snapshots, &tenant, writer))
}

/// Up to which segment of the log a tenant's samples are in the object store.
pub(crate) fn watermark(
    snapshots: &BTreeMap<TenantId, Arc<Snapshot>>,
    tenant: &TenantId,
    writer: &str,
) -> u64 {
    snapshots.get(tenant).and_then(|s| s.watermark(writer)).unwrap_or(0)
}

/// Brings exemplars and metadata of sealed generations back into memory.
pub(crate) async fn restore_sidecars(
    store: &dyn ObjectStore,
    sealed: &[Arc<SealedGeneration>],
    snapshots: &BTreeMap<TenantId, Arc<Snapshot>>,
    writer: &str,
    head: &Head,
    exemplars: &Buffer,
) {
    for sealed in sealed {
        for kind in Kind::ALL {
            for (tenant, file) in sealed.sidecars(kind) {
                if sealed.last_segment <= watermark(snapshots, &tenant, writer) {
                    continue;
                }
                let path = kind.path(&tenant, file.ulid);
                let read = async {
                    let bytes = sidecar::get(store, &path, file).await?;
                    match kind {
                        Kind::Exemplars => {
                            for series in exemplar_file::decode(path.as_ref(), bytes)? {
                                for exemplar in series.exemplars {
                                    // One that an earlier generation had as well is late or there already.
                                    let _ = exemplars.put(&tenant, &series.labels, exemplar);
                                }
                            }
                        }
                        Kind::Metadata => {
                            let of_head = head.tenant(&tenant);
                            for (metric, entries) in metadata::decode(path.as_ref(), bytes)? {
                                entries.iter().for_each(|(m, heard_ms)| of_head.learn(&metric, m, *heard_ms));
                            }
                        }
                    }
                    Ok::<_, BlockError>(())
                };
                if let Err(e) = read.await {
                    tracing::error!("{} on the local disk cannot be read and are lost: {e}", kind.as_str());
                }
            }
        }
    }
}

impl ReadState {
    /// A tenant's local blocks that are not in the object store, oldest first.
    pub(crate) fn local_blocks<'a>(
        &'a self,
        tenant: &'a TenantId,
        writer: &str,
    ) -> impl Iterator<Item = (&'a Arc<SealedGeneration>, &'a LocalBlock)> + 'a {
        let flushed = watermark(&self.snapshots, tenant, writer);
        let pending = self.sealed.iter().filter(move |s| s.last_segment > flushed);
        pending.filter_map(|s| Some((s, s.block(tenant)?)))
    }
}

impl Db {
    pub(crate) fn seal_is_due(&self) -> bool {
        // Sealing that runs decides for itself.
        let Ok(sealing) = self.sealing.try_lock() else { return false };
        sealing.frozen.is_some()
            || seal_is_due(self.generation_state(), &self.head.bytes(), self.options.seal_ms)
    }

    /// Whether something is on the local disk alone, or its time to go there has come.
    pub(crate) fn has_sealed_or_should(&self) -> bool {
        !self.state.read().sealed.is_empty()
            || seal_is_due(self.generation_state(), &self.head.bytes(), self.options.seal_ms)
    }

    fn generation_state(&self) -> HeadState {
        HeadState {
            span_ms: self.head.span_ms(),
            samples: self.head.samples_in_generation(),
            age_ms: self.options.clock.now_ms() - self.generation_began_ms.load(Ordering::Relaxed),
        }
    }

    /// What is not in the object store: sealed generations and the current one together.
    pub(crate) fn unflushed_state(&self) -> HeadState {
        let mut all = self.generation_state();
        for sealed in &self.state.read().sealed {
            all.samples += sealed.samples();
            all.age_ms = all.age_ms.max(self.options.clock.now_ms() - sealed.began_ms);
            all.span_ms = match (all.span_ms, sealed.span_ms) {
                (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
                (a, b) => a.or(b),
            };
        }
        all
    }

    /// Moves the samples in memory to the local disk now, and returns when they are there. On failure they
    /// stay in head and log, and the next call takes it up again.
    pub async fn seal(self: &Arc<Self>) -> Result<(), FlushError> {
        let mut sealing = self.sealing.lock().await;
        self.seal_locked(&mut sealing, false).await
    }

    /// Seals as [`Db::seal`] does, for a flush, which also sets exemplars aside.
    pub(crate) async fn seal_for_flush(self: &Arc<Self>) -> Result<(), FlushError> {
        let mut sealing = self.sealing.lock().await;
        self.seal_locked(&mut sealing, true).await
    }

    async fn seal_locked(self: &Arc<Self>, sealing: &mut Sealing, exemplars: bool) -> Result<(), FlushError> {
        if sealing.frozen.is_some() {
            // Left over from a failure: its samples first, then those that came since.
            self.finish_seal(sealing).await?;
        }
        let empty = self.head.samples_in_generation() == 0 && self.exemplars.active() == 0;
        if empty && self.pressure() != Pressure::Full {
            return Ok(());
        }
        // A head that is full of series alone takes no samples: an empty generation lets go of those that had
        // none.
        self.forget_retired(sealing).await?;
        let span = tracing::debug_span!("seal");
        let sealed = async {
            sealing.frozen = Some(self.freeze(exemplars).await?);
            self.finish_seal(sealing).await
        };
        sealed.instrument(span).await
    }

    /// Cuts the log and freezes the generation, while no writer is between the two.
    async fn freeze(&self, exemplars: bool) -> Result<Frozen, FlushError> {
        let gate = self.gate.write().await;
        let next_segment = self.log.cut().await.map_err(|e| FlushError::because(e.to_string(), e))?;
        self.log.advance_mark();
        let span_ms = self.head.span_ms();
        let generation = self.head.freeze();
        if exemplars {
            self.exemplars.freeze();
        }
        let began_ms = self.generation_began_ms.swap(self.options.clock.now_ms(), Ordering::Relaxed);
        let first_segment = self.generation_segment.swap(next_segment, Ordering::Relaxed);
        drop(gate);
        let progress = self.progress.clone();
        let noted =
            move || progress.update(|state| state.last_segment = state.last_segment.max(next_segment));
        let _ = tokio::task::spawn_blocking(noted).await;
        tracing::debug!(generation, next_segment, "head frozen");
        let segments = (first_segment, next_segment - 1);
        Ok(Frozen { generation, segments, span_ms, began_ms, exemplars })
    }

    /// Brings the frozen generation to disk, and lets go of its log and memory.
    async fn finish_seal(self: &Arc<Self>, sealing: &mut Sealing) -> Result<(), FlushError> {
        let frozen = sealing.frozen.as_ref().expect("the caller froze one");
        let sealed = Arc::new(self.write_local_blocks(frozen).await?);
        let frozen = sealing.frozen.take().expect("still there");
        let mut readers = Weak::new();
        self.install(|state| {
            state.first_generation = frozen.generation + 1;
            readers = Arc::downgrade(&std::mem::take(&mut state.generations));
            state.sealed.push(sealed.clone());
        });
        sealing.retired = Some((readers, frozen.generation));
        self.remove_segments(frozen.segments.1 + 1).await;
        // Usually nobody reads the old state; else the next call waits for them.
        if sealing.retired.as_ref().is_some_and(|(readers, _)| readers.strong_count() == 0) {
            self.forget_retired(sealing).await?;
        }
        self.remove_spent(sealing).await;
        tracing::debug!(samples = sealed.samples(), last_segment = sealed.last_segment, "head sealed");
        Ok(())
    }

    /// Writes the local blocks and sidecars of all tenants, and the manifest.
    async fn write_local_blocks(self: &Arc<Self>, frozen: &Frozen) -> Result<SealedGeneration, FlushError> {
        let failed = |what: &'static str| {
            let dir = self.options.dir.display();
            move |e: BlockError| {
                let text = format!(
                    "cannot write {what}: {e}. The samples stay in memory and in the log; is there room on the disk of {dir}?"
                );
                FlushError::because(text, e)
            }
        };
        let mut sealed = SealedGeneration::new(frozen.segments, frozen.span_ms, frozen.began_ms);
        let tenants = self.head.tenants();
        let mut parts = Vec::with_capacity(tenants.len());
        for tenant in &tenants {
            let part = async move {
                let block = self.write_local_block(tenant, frozen.generation).await;
                let sidecars = self.write_local_sidecars(tenant, frozen).await;
                (tenant, block, sidecars)
            };
            parts.push(part.boxed());
        }
        // Of a tenant with little the time goes into waiting for the disk.
        let mut parts = futures::stream::iter(parts).buffer_unordered(TENANTS_AT_ONCE);
        while let Some((tenant, block, sidecars)) = parts.next().await {
            if let Some(block) = block.map_err(failed("local blocks"))? {
                sealed.add_block(&tenant.id, block);
            }
            for (kind, file) in sidecars.map_err(failed("sidecars on the local disk"))? {
                sealed.add_sidecar(kind, &tenant.id, file);
            }
        }
        local::commit(&*self.local.store, &sealed).await.map_err(failed("local blocks"))?;
        Ok(sealed)
    }

    /// One tenant's part of a frozen generation as a local block; `None` where it has no samples.
    async fn write_local_block(
        &self,
        tenant: &Arc<TenantHead>,
        generation: u64,
    ) -> Result<Option<LocalBlock>, BlockError> {
        let (head, of, window_ms) = (self.head.clone(), tenant.clone(), self.options.window_ms);
        let (scratch, writer) = (self.options.dir.join("scratch"), self.writer.clone());
        // Later than all before it, even if the clock went back: of two blocks that disagree the later
        // written stands.
        let newest = self.state.read().sealed.iter().flat_map(|s| s.blocks()).map(|b| b.meta.ulid).max();
        let ulid = Ulid::new();
        // Of several tenants no two the same.
        let ulid = newest
            .filter(|newest| *newest >= ulid)
            .map_or(ulid, |newest| Ulid(newest.0.saturating_add(1 + ulid.random() % (1 << 40))));
        let made = tokio::task::spawn_blocking(move || {
            let windows = windows(&head, &of, generation, window_ms);
            if windows.is_empty() {
                return Ok(None);
            }
            let source = HeadSource::new(head, of.clone(), 0..=generation);
            let origin = BlockOrigin::flushed(ulid, of.id.clone(), writer);
            let block = write_block(&scratch, origin, WriteOptions::local(), Rows::new(source.all()))?;
            Ok::<_, BlockError>(block.map(|files| (files, windows)))
        });
        let Some((files, windows)) = made.await?? else { return Ok(None) };
        upload(&*self.local.store, &files).await?;
        Ok(Some(LocalBlock { meta: Arc::new(files.meta.clone()), windows }))
    }

    /// A tenant's exemplars and metadata as files of the local store, where there are any.
    async fn write_local_sidecars(
        &self,
        tenant: &Arc<TenantHead>,
        frozen: &Frozen,
    ) -> Result<Vec<(Kind, Sidecar)>, BlockError> {
        let exemplars = match frozen.exemplars {
            true => self.exemplars.frozen_of(&tenant.id),
            false => self.exemplars.active_of(&tenant.id),
        };
        let known = tenant.metadata(None);
        if exemplars.is_empty() && known.is_empty() {
            return Ok(Vec::new());
        }
        let encoded = tokio::task::spawn_blocking(move || {
            let mut files = Vec::new();
            if !exemplars.is_empty() {
                files.push((Kind::Exemplars, exemplar_file::encode(exemplars)?));
            }
            if !known.is_empty() {
                files.push((Kind::Metadata, metadata::encode(&known)?));
            }
            Ok::<_, BlockError>(files)
        });
        let mut written = Vec::new();
        for (kind, (file, bytes)) in encoded.await?? {
            sidecar::put(&*self.local.store, &kind.path(&tenant.id, file.ulid), bytes).await?;
            written.push((kind, file));
        }
        Ok(written)
    }

    /// Waits for the readers of the state before the last generation was sealed, then frees that generation.
    async fn forget_retired(&self, sealing: &mut Sealing) -> Result<(), FlushError> {
        let Some((readers, generation)) = sealing.retired.take() else { return Ok(()) };
        let started = tokio::time::Instant::now();
        while readers.strong_count() > 0 {
            if started.elapsed() > READERS_PATIENCE {
                sealing.retired = Some((readers, generation));
                let why = "a query has been reading the generation that was sealed last for minutes: the next is not sealed before that query ends";
                return Err(FlushError::new(why));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let head = self.head.clone();
        let forgotten = tokio::task::spawn_blocking(move || head.forget(generation, false)).await;
        if forgotten.is_ok_and(|f| f.idle_series > 0) {
            // Series may only leave while no writer holds one.
            let _gate = self.gate.write().await;
            let head = self.head.clone();
            let _ = tokio::task::spawn_blocking(move || head.forget(generation, true)).await;
        }
        Ok(())
    }

    /// Lets go of sealed generations that a flush has brought to the object store for all tenants: no query
    /// of this process sees them from now on. Those of others may for [`DbOptions::keep_committed`]; then the
    /// files go with the last reader.
    ///
    /// [`DbOptions::keep_committed`]: crate::db::DbOptions::keep_committed
    pub(crate) async fn forget_flushed(self: &Arc<Self>) {
        let mut sealing = self.sealing.lock().await;
        let until = Instant::now() + self.options.keep_committed;
        self.install(|state| {
            let snapshots = &state.snapshots;
            let (pending, committed): (Vec<_>, Vec<_>) = std::mem::take(&mut state.sealed)
                .into_iter()
                .partition(|sealed| is_pending(sealed, snapshots, &self.writer));
            state.sealed = pending;
            state.committed.extend(committed.into_iter().map(|sealed| Committed { sealed, until }));
        });
        self.forget_committed_locked(&mut sealing).await;
    }

    /// Lets go of what was kept for readers of older snapshots and whose time is over. While a generation is
    /// being sealed it waits for the next call.
    pub(crate) async fn forget_committed(self: &Arc<Self>) {
        let Ok(mut sealing) = self.sealing.try_lock() else { return };
        self.forget_committed_locked(&mut sealing).await;
    }

    async fn forget_committed_locked(&self, sealing: &mut Sealing) {
        let now = Instant::now();
        if self.state.read().committed.iter().any(|c| c.until <= now) {
            self.install(|state| {
                let (over, kept): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut state.committed).into_iter().partition(|c| c.until <= now);
                state.committed = kept;
                let gone = Arc::make_mut(&mut state.gone);
                for Committed { sealed, .. } in over {
                    for tenant in sealed.tenants() {
                        let to = gone.entry(tenant).or_insert(0);
                        *to = (*to).max(sealed.last_segment);
                    }
                    sealing.spent.push(sealed);
                }
            });
        }
        self.remove_spent(sealing).await;
    }

    /// Removes the files of spent generations that nobody reads any more.
    async fn remove_spent(&self, sealing: &mut Sealing) {
        let (free, read): (Vec<_>, Vec<_>) =
            std::mem::take(&mut sealing.spent).into_iter().partition(|s| Arc::strong_count(s) == 1);
        sealing.spent = read;
        if let Some(last) = free.iter().map(|sealed| sealed.last_segment).max() {
            // Before its files go: a start must not look for them.
            let progress = self.progress.clone();
            let noted = move || progress.update(|state| state.accounted = state.accounted.max(last));
            let _ = tokio::task::spawn_blocking(noted).await;
        }
        for sealed in free {
            sealed.blocks().for_each(|b| self.local.blocks.forget(b.meta.ulid));
            local::remove(&*self.local.store, &sealed).await;
        }
    }

    /// Leaves a local block out that cannot be read: the rest must not wait for it for ever.
    pub(crate) fn drop_local_block(&self, tenant: &TenantId, last_segment: u64) {
        self.install(|state| {
            for sealed in &mut state.sealed {
                if sealed.last_segment == last_segment {
                    *sealed = Arc::new(sealed.without_block(tenant));
                }
            }
        });
    }

    async fn remove_segments(&self, before: u64) {
        let dir = self.options.dir.join("log");
        let removed = tokio::task::spawn_blocking(move || {
            for number in segments(&dir)?.into_iter().take_while(|n| *n < before) {
                std::fs::remove_file(segment_path(&dir, number))?;
            }
            Ok::<_, std::io::Error>(())
        });
        // Harmless: the manifest keeps them from being replayed, and the next generation's sealing tries
        // again.
        if let Ok(Err(e)) = removed.await {
            tracing::warn!("segments of the log whose samples are in local blocks could not be removed: {e}");
        }
    }
}

/// Samples per window of a frozen generation, keyed by the window's end. Chunks that lie in one window are
/// counted without a look inside.
fn windows(
    head: &Arc<Head>,
    tenant: &Arc<TenantHead>,
    generation: u64,
    window_ms: i64,
) -> BTreeMap<i64, u64> {
    let end = |t: i64| window_of(t, window_ms);
    let mut counts = BTreeMap::new();
    let mut columns = Columns::default();
    head.for_each_series(tenant, |series| {
        for view in series.view(0..=generation, i64::MIN, i64::MAX) {
            view.count_by(end, &mut columns, |end, n| *counts.entry(end).or_insert(0) += n);
        }
    });
    counts
}

/// A cursor's series, one by one.
pub(crate) struct Rows<C> {
    cursor: C,
    batch: std::vec::IntoIter<SeriesColumns>,
}

impl<C: SeriesCursor> Rows<C> {
    pub fn new(cursor: C) -> Self {
        Rows { cursor, batch: Vec::new().into_iter() }
    }
}

impl<C: SeriesCursor> Iterator for Rows<C> {
    type Item = Result<SeriesColumns, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(series) = self.batch.next() {
                return Some(Ok(series));
            }
            match self.cursor.next_batch() {
                Ok(Some(batch)) => self.batch = batch.into_iter(),
                Ok(None) => return None,
                Err(e) => return Some(Err(e)),
            }
        }
    }
}
