//! Local blocks to the object store: seal what is in memory, merge each tenant's local blocks, upload,
//! commit, and only then let go of them.
//!
//! Any step may fail or be the last one before a crash. Until the commit nothing has changed but what is
//! sealed; after it the catalog's watermark says which local blocks, and which segments of the log, are in
//! the object store. A flush that failed leaves them where they are, and the next one takes what is not
//! committed: tenants that are done have a watermark that says so.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt};
use tracing::Instrument;
use tracing::field::Empty;
use ulid::Ulid;

use super::identity::fenced;
use super::progress::note_snapshots;
use super::{Db, FlushError, FlushReport, ReadState, open_catalog};
use crate::block::read::store::BlockStore;
use crate::block::upload::upload;
use crate::block::{
    BlockError, BlockFiles, BlockMeta, BlockOrigin, BlockReader, ReadOptions, WriteOptions, write_block,
};
use crate::catalog::{CATALOGS_AT_ONCE, Catalog, CatalogError, Edit, Snapshot};
use crate::db::local;
use crate::db::local::sealing::{Rows, watermark};
use crate::db::plan::{MAX_SEALED_GENERATIONS, is_due, plan};
use crate::deletion::Visibility;
use model::source::SeriesCursor;
use model::source::merge::MergeCursor;
use model::tenant::TenantId;
use tokio::sync::Semaphore;

/// Bytes of samples that are read at once of each local block.
const READ_BATCH_BYTES: u64 = 1 << 20;

/// What a flush keeps of local blocks while it reads them once: queries' cache is for what is read again.
const READ_CACHE_BYTES: usize = 16 << 20;

/// Tenants that are flushed at the same time, which wait for the object store most of it; of these, those
/// whose blocks are made, which takes memory; and uploads of one tenant's.
const TENANTS_AT_ONCE: usize = 64;
const MAKING_AT_ONCE: usize = 16;
const UPLOADS_AT_ONCE: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct FlushCounts {
    pub done: AtomicU64,
    pub failed: AtomicU64,
    pub early: AtomicU64,
    pub refused: AtomicU64,
    /// Entries of metadata for which there was no room.
    pub refused_metadata: AtomicU64,
    /// Samples of local blocks that could not be read again.
    pub lost_samples: AtomicU64,
    /// The last flush failed: the next is due.
    pub unfinished: AtomicBool,
}

impl FlushReport {
    fn of(blocks: &[BlockFiles]) -> FlushReport {
        let mut report = FlushReport::default();
        for block in blocks {
            report.blocks.push(block.meta.ulid.to_string());
            report.series += block.meta.stats.series;
            report.samples += block.meta.stats.samples;
            report.bytes += block.meta.files.bytes();
        }
        report
    }

    fn add(&mut self, other: FlushReport) {
        self.blocks.extend(other.blocks);
        self.series += other.series;
        self.samples += other.samples;
        self.bytes += other.bytes;
    }
}

impl Db {
    pub(crate) fn flush_is_due(&self) -> bool {
        // A flush that runs decides for itself.
        let Ok(_flushing) = self.flushing.try_lock() else { return false };
        let state = self.unflushed_state();
        let alone = state.samples == 0 && self.exemplars.active() > 0;
        let exemplars_due =
            self.exemplars.is_half_full() || (alone && state.age_ms >= 2 * self.options.window_ms);
        self.counts.unfinished.load(Ordering::Relaxed)
            || exemplars_due
            || (self.options.flush_sealed && self.has_sealed_or_should())
            || self.state.read().sealed.len() >= MAX_SEALED_GENERATIONS
            || is_due(state, self.options.window_ms)
    }

    /// Turns all that is in memory and on the local disk into blocks of the object store now, and returns
    /// when they are committed. On failure the samples stay in memory, in the log and on the local disk, and
    /// the next call takes it up again.
    pub async fn flush(self: &Arc<Self>) -> Result<FlushReport, FlushError> {
        let _flushing = self.flushing.lock().await;
        let span =
            tracing::debug_span!("flush", blocks = Empty, samples = Empty, bytes = Empty, error = Empty);
        let result = self.flush_locked().instrument(span.clone()).await;
        match &result {
            Ok(report) => {
                span.record("blocks", report.blocks.len()).record("samples", report.samples);
                span.record("bytes", report.bytes);
            }
            Err(e) => _ = span.record("error", e.to_string()),
        }
        if result.is_ok() {
            self.keep_exemplars().await;
        }
        let count = if result.is_ok() { &self.counts.done } else { &self.counts.failed };
        count.fetch_add(1, Ordering::Relaxed);
        self.counts.unfinished.store(result.is_err(), Ordering::Relaxed);
        result
    }

    async fn flush_locked(self: &Arc<Self>) -> Result<FlushReport, FlushError> {
        let mut report = FlushReport::default();
        self.seal_for_flush().await?;
        let state = self.state.read().clone();
        let tenants: BTreeMap<TenantId, u64> = state
            .sealed
            .iter()
            .flat_map(|sealed| sealed.tenants().map(|tenant| (tenant, sealed.last_segment)))
            .filter(|(tenant, last)| *last > watermark(&state.snapshots, tenant, &self.writer))
            .collect();
        // The local blocks go, and with them what they know of metrics.
        let of_head = self.head.tenants();
        let mut stored = Vec::with_capacity(of_head.len());
        for tenant in &of_head {
            stored.push(self.store_metadata(&tenant.id).boxed());
        }
        futures::stream::iter(stored).buffer_unordered(TENANTS_AT_ONCE).try_collect::<()>().await?;
        // Small tenants cost round trips and little else. What fails for one is taken up again by the next
        // flush.
        let making = Semaphore::new(MAKING_AT_ONCE);
        let mut flushes = Vec::with_capacity(tenants.len());
        for (tenant, last_segment) in &tenants {
            let span = tracing::debug_span!("flush_tenant", %tenant);
            flushes.push(self.flush_tenant(tenant, &state, *last_segment, &making).instrument(span).boxed());
        }
        let flushed: Vec<_> =
            futures::stream::iter(flushes).buffer_unordered(TENANTS_AT_ONCE).collect().await;
        for of_tenant in flushed {
            report.add(of_tenant?);
        }
        drop(state);
        self.remember_snapshots().await;
        self.forget_flushed().await;
        if !report.blocks.is_empty() {
            tracing::info!(
                blocks = report.blocks.len(),
                series = report.series,
                samples = report.samples,
                bytes = report.bytes,
                "head flushed"
            );
        }
        Ok(report)
    }

    /// Writes, uploads and commits one tenant's blocks.
    async fn flush_tenant(
        self: &Arc<Self>,
        tenant: &TenantId,
        state: &Arc<ReadState>,
        last_segment: u64,
        making: &Semaphore,
    ) -> Result<FlushReport, FlushError> {
        let of_tenant = |what: &str| format!("{what} of tenant {tenant}");
        let mut inputs: Vec<(u64, Arc<BlockMeta>)> = Vec::new();
        let mut samples_by_window = BTreeMap::new();
        for (sealed, block) in state.local_blocks(tenant, &self.writer) {
            inputs.push((sealed.last_segment, block.meta.clone()));
            for (end, n) in &block.windows {
                *samples_by_window.entry(*end).or_insert(0) += n;
            }
        }
        let ranges = plan(&samples_by_window, self.options.window_ms);
        let metas = inputs.iter().map(|(_, meta)| meta.clone()).collect();
        let known = state.snapshots.get(tenant).cloned();
        let turn = making.acquire().await;
        let made = self.encode_blocks(tenant, metas, ranges, known).await;
        drop(turn);
        let made = match made {
            Ok(made) => made,
            Err(e) => {
                self.drop_damaged(tenant, inputs).await;
                return Err(FlushError::failed(of_tenant("encoding blocks"), e));
            }
        };
        let exemplars = self.write_exemplars(tenant).await?;
        let mut uploads = Vec::with_capacity(made.len());
        for block in &made {
            uploads.push(upload(&*self.options.store, block).boxed());
        }
        let uploaded =
            futures::stream::iter(uploads).buffer_unordered(UPLOADS_AT_ONCE).try_collect::<()>().await;
        uploaded.map_err(|e| FlushError::failed(of_tenant("uploading a block"), e))?;
        let mut edit = Edit::flush(None, &self.writer, last_segment);
        edit.add.extend(made.iter().map(|b| b.meta.clone()));
        edit.add_exemplars.extend(exemplars);
        let catalog = self.catalog(tenant).await;
        let catalog = catalog.map_err(|e| FlushError::failed(of_tenant("opening the catalog"), e))?;
        let expected = self.watermarks.about_to_set(tenant, last_segment);
        edit.expected_watermark = Some((self.writer.clone(), expected));
        let snapshot = catalog.commit(&edit).await.map_err(|e| match e {
            CatalogError::Fenced(_) => FlushError::new(fenced(tenant, &self.writer, &self.options.dir)),
            e => FlushError::failed(of_tenant("committing blocks"), e),
        })?;
        self.watermarks.begin(tenant, snapshot.watermark(&self.writer));
        self.adopt(tenant, snapshot);
        self.exemplars.forget_frozen(tenant);
        Ok(FlushReport::of(&made))
    }

    /// A tenant's local blocks as one block for each range, in the scratch folder.
    async fn encode_blocks(
        self: &Arc<Self>,
        tenant: &TenantId,
        inputs: Vec<Arc<BlockMeta>>,
        ranges: Vec<RangeInclusive<i64>>,
        known: Option<Arc<Snapshot>>,
    ) -> Result<Vec<BlockFiles>, BlockError> {
        let (db, of) = (self.clone(), tenant.clone());
        let store =
            BlockStore::new(self.local.store.clone(), tokio::runtime::Handle::current(), READ_CACHE_BYTES);
        let made = tokio::task::spawn_blocking(move || {
            let mut made: Vec<BlockFiles> = Vec::new();
            for range in ranges {
                // Later than all before it, even if the clock went back: a tombstone must not reach what was
                // written after it.
                let ulid = known.as_ref().map_or_else(Ulid::new, |s| s.next_ulid());
                let range = (*range.start(), *range.end());
                made.extend(db.merge_local_blocks(&store, &of, &inputs, range, ulid)?);
            }
            Ok(made)
        });
        made.await?
    }

    /// What local blocks hold of a range (ends included) as one block in the scratch folder. Blocks the
    /// thread.
    fn merge_local_blocks(
        &self,
        store: &Arc<BlockStore>,
        tenant: &TenantId,
        inputs: &[Arc<BlockMeta>],
        range: (i64, i64),
        ulid: Ulid,
    ) -> Result<Option<BlockFiles>, BlockError> {
        let pause = Duration::from_millis(50);
        let options = ReadOptions { range, batch_bytes: READ_BATCH_BYTES, attempts: 2, pause };
        let mut readers: Vec<Box<dyn SeriesCursor>> = Vec::new();
        for meta in inputs.iter().filter(|meta| meta.overlaps(range.0, range.1)) {
            let reader = BlockReader::open(store, tenant, meta, &Visibility::default(), options.clone());
            readers.push(Box::new(reader?));
        }
        let rows = Rows::new(MergeCursor::new(readers));
        let origin = BlockOrigin::flushed(ulid, tenant.clone(), self.writer.clone());
        let scratch = self.options.dir.join("scratch");
        write_block(&scratch, origin, WriteOptions::fresh(), rows)
    }

    /// Looks at the files of local blocks and leaves those out that are damaged, so that the next flush
    /// brings the rest to the object store. A disk that does not answer is no damage.
    async fn drop_damaged(self: &Arc<Self>, tenant: &TenantId, inputs: Vec<(u64, Arc<BlockMeta>)>) {
        for (last_segment, meta) in inputs {
            if let Err(why) = local::check(&*self.local.store, tenant, &meta).await {
                tracing::error!(
                    "a local block of tenant {tenant} is damaged, its {} samples from {} to {} ms are lost: {why}",
                    meta.stats.samples,
                    meta.min_t_ms,
                    meta.max_t_ms
                );
                self.counts.lost_samples.fetch_add(meta.stats.samples, Ordering::Relaxed);
                self.drop_local_block(tenant, last_segment);
            }
        }
    }

    pub(crate) async fn catalog(&self, tenant: &TenantId) -> Result<Arc<Catalog>, CatalogError> {
        if let Some(catalog) = self.catalogs.lock().await.get(tenant) {
            return Ok(catalog.clone());
        }
        // Others need not wait for it: of two that are opened at once the first stays.
        let catalog = open_catalog(&self.options, &self.writer, tenant).await?;
        Ok(self.catalogs.lock().await.entry(tenant.clone()).or_insert(catalog).clone())
    }

    /// Looks for what others have committed: new snapshots, new tenants.
    pub async fn refresh(&self) -> Result<(), CatalogError> {
        let read = self.read_catalogs().await;
        let mut contact = self.contact.lock();
        contact.error = read.as_ref().err().map(CatalogError::to_string);
        if read.is_ok() {
            contact.read_ms = self.options.clock.now_ms();
        }
        read
    }

    async fn read_catalogs(&self) -> Result<(), CatalogError> {
        let known: HashSet<TenantId> = self.catalogs.lock().await.keys().cloned().collect();
        let tenants = Catalog::tenants(&*self.options.store).await?;
        let all: HashSet<TenantId> = tenants.into_iter().chain(known).collect();
        let reads = all.into_iter().map(|tenant| async move {
            let snapshot = self.catalog(&tenant).await?.refresh().await?;
            Ok((tenant, snapshot))
        });
        let read = futures::stream::iter(reads).buffer_unordered(CATALOGS_AT_ONCE);
        let mut found: Vec<_> = read.try_collect().await?;
        found.retain(|(tenant, snapshot)| self.is_ours(tenant, snapshot));
        self.install(|state| {
            for (tenant, snapshot) in found {
                newer(&mut state.snapshots, tenant, snapshot);
            }
        });
        self.remember_snapshots().await;
        Ok(())
    }

    /// Whether a snapshot has this process' watermark as this process left it. One that has not would make it
    /// believe that samples are in blocks which are only in its own log: it is passed over, loudly, and every
    /// flush fails.
    fn is_ours(&self, tenant: &TenantId, snapshot: &Snapshot) -> bool {
        let checked = self.watermarks.check(tenant, snapshot, &self.writer, &self.options.dir);
        checked.inspect_err(|why| tracing::error!("{why}")).is_ok()
    }

    /// Has queries see a tenant's snapshot, unless they see a newer one.
    pub(crate) fn adopt(&self, tenant: &TenantId, snapshot: Arc<Snapshot>) {
        if self.is_ours(tenant, &snapshot) {
            self.install(|state| newer(&mut state.snapshots, tenant.clone(), snapshot));
        }
    }

    /// Writes down in the folder how new the catalogs are, so that a start notices if they are older then.
    async fn remember_snapshots(&self) {
        let (progress, state) = (self.progress.clone(), self.state.read().clone());
        let noted = move || progress.update(|seen| note_snapshots(seen, &state.snapshots));
        let _ = tokio::task::spawn_blocking(noted).await;
    }

    /// Swaps what queries see.
    pub(crate) fn install(&self, change: impl FnOnce(&mut ReadState)) {
        let mut state = self.state.write();
        let mut next = ReadState {
            first_generation: state.first_generation,
            generations: state.generations.clone(),
            sealed: state.sealed.clone(),
            committed: state.committed.clone(),
            gone: state.gone.clone(),
            snapshots: state.snapshots.clone(),
        };
        change(&mut next);
        *state = Arc::new(next);
    }
}

fn newer(snapshots: &mut BTreeMap<TenantId, Arc<Snapshot>>, tenant: TenantId, snapshot: Arc<Snapshot>) {
    let known = snapshots.entry(tenant).or_insert_with(|| snapshot.clone());
    if known.number < snapshot.number {
        *known = snapshot;
    }
}
