//! Head to blocks: cut the log, freeze the generation, write, upload, commit, and only then let go of the log.
//!
//! Any step may fail or be the last one before a crash. Until the commit nothing has changed but the log's segment number; after it
//! the catalog's watermark says which segments are not to be replayed. A flush that failed is taken up again with the same frozen
//! generation, tenant by tenant, before anything new is frozen.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ulid::Ulid;

use super::{Db, FlushError, FlushReport, ReadState, open_catalog};
use crate::block::upload::upload;
use crate::block::write::{BlockFiles, BlockOrigin, WriteOptions, write_block};
use crate::catalog::{Catalog, CatalogError, Edit, Snapshot};
use crate::chunk::Columns;
use crate::flush::{HeadState, Pressure, is_due, plan, window_of};
use crate::head::source::HeadSource;
use crate::head::{Head, TenantHead};
use crate::source::{SeriesColumns, SeriesCursor, SourceError};
use crate::tenant::TenantId;
use crate::wal::{segment_path, segments};

/// How long a flush waits for queries that still read a generation it is about to forget. They end by their own timeout.
const READERS_PATIENCE: Duration = Duration::from_secs(150);

#[derive(Debug, Default)]
pub(super) struct FlushCounts {
    pub done: AtomicU64,
    pub failed: AtomicU64,
    pub early: AtomicU64,
    pub refused: AtomicU64,
}

/// What a flush leaves to the next.
#[derive(Default)]
pub(super) struct Flushing {
    /// Frozen and not yet wholly committed.
    frozen: Option<Frozen>,
    /// Committed, but perhaps still read: the state that queries had before, and the generation to forget after them.
    retired: Option<(Weak<ReadState>, u64)>,
}

struct Frozen {
    generation: u64,
    /// The first segment of the log that is not part of it.
    next_segment: u64,
    /// Tenants whose blocks are committed, and the snapshot that says so.
    done: HashMap<TenantId, Arc<Snapshot>>,
    report: FlushReport,
}

impl Db {
    pub(super) async fn flush_is_due(&self) -> bool {
        // A flush that runs or waits to be taken up again decides for itself.
        let Ok(flushing) = self.flushing.try_lock() else { return false };
        let state = HeadState {
            span_ms: self.head.span_ms(),
            samples: self.head.samples_in_generation(),
            age_ms: self.options.clock.now_ms() - self.generation_began_ms.load(Ordering::Relaxed),
        };
        let alone = state.samples == 0 && self.exemplars.active() > 0;
        let exemplars_due =
            self.exemplars.is_half_full() || (alone && state.age_ms >= 2 * self.options.window_ms);
        flushing.frozen.is_some() || exemplars_due || is_due(state, self.options.window_ms)
    }

    /// Turns all that the head holds into blocks now, and returns when they are committed. On failure the samples stay in head and
    /// log, and the next call takes it up again.
    pub async fn flush(self: &Arc<Self>) -> Result<FlushReport, FlushError> {
        let mut flushing = self.flushing.lock().await;
        let result = self.flush_locked(&mut flushing).await;
        if result.is_ok() {
            self.keep_exemplars().await;
        }
        let count = if result.is_ok() { &self.counts.done } else { &self.counts.failed };
        count.fetch_add(1, Ordering::Relaxed);
        result
    }

    async fn flush_locked(self: &Arc<Self>, flushing: &mut Flushing) -> Result<FlushReport, FlushError> {
        let mut whole = FlushReport::default();
        if flushing.frozen.is_some() {
            // Left over from a failure: its samples first, then those that came since.
            whole = self.finish(flushing).await?;
        }
        let empty = self.head.samples_in_generation() == 0 && self.exemplars.active() == 0;
        if empty && self.pressure() != Pressure::Full {
            return Ok(whole);
        }
        // A head that is full of series alone takes no samples: an empty generation lets go of those that had none.
        self.forget_retired(flushing).await?;
        flushing.frozen = Some(self.freeze().await?);
        let report = self.finish(flushing).await?;
        whole.blocks.extend(report.blocks);
        whole.series += report.series;
        whole.samples += report.samples;
        whole.bytes += report.bytes;
        Ok(whole)
    }

    /// Cuts the log and freezes the generation, while no writer is between the two.
    async fn freeze(&self) -> Result<Frozen, FlushError> {
        let gate = self.gate.write().await;
        let next_segment = self.log.cut().await.map_err(FlushError)?;
        self.log.advance_mark();
        let generation = self.head.freeze();
        self.exemplars.freeze();
        self.generation_began_ms.store(self.options.clock.now_ms(), Ordering::Relaxed);
        drop(gate);
        tracing::debug!(generation, next_segment, "head frozen");
        Ok(Frozen { generation, next_segment, done: HashMap::new(), report: FlushReport::default() })
    }

    /// Makes blocks of the frozen generation and lets go of its log.
    async fn finish(self: &Arc<Self>, flushing: &mut Flushing) -> Result<FlushReport, FlushError> {
        let frozen = flushing.frozen.as_mut().expect("the caller froze one");
        for tenant in self.head.tenants() {
            if frozen.done.contains_key(&tenant.id) {
                continue;
            }
            // The log's segments of the generation go, and with them what they know of metrics.
            self.store_metadata(&tenant.id).await?;
            if let Some(snapshot) = self.flush_tenant(&tenant, frozen).await? {
                frozen.done.insert(tenant.id.clone(), snapshot);
            }
        }
        let frozen = flushing.frozen.take().expect("still there");
        let old = self.install(|state| {
            state.first_generation = frozen.generation + 1;
            for (tenant, snapshot) in frozen.done {
                newer(&mut state.snapshots, tenant, snapshot);
            }
        });
        flushing.retired = Some((Arc::downgrade(&old), frozen.generation));
        drop(old);
        self.exemplars.forget_frozen();
        self.remove_segments(frozen.next_segment).await;
        // Usually nobody reads the old state; else the next flush waits for them.
        if flushing.retired.as_ref().is_some_and(|(state, _)| state.strong_count() == 0) {
            self.forget_retired(flushing).await?;
        }
        tracing::info!(
            blocks = frozen.report.blocks.len(),
            series = frozen.report.series,
            samples = frozen.report.samples,
            bytes = frozen.report.bytes,
            "head flushed"
        );
        Ok(frozen.report)
    }

    /// Writes, uploads and commits one tenant's blocks; `None` where it has nothing in the generation.
    async fn flush_tenant(
        &self,
        tenant: &Arc<TenantHead>,
        frozen: &mut Frozen,
    ) -> Result<Option<Arc<Snapshot>>, FlushError> {
        let fail = |what: &str, e: &dyn std::fmt::Display| {
            FlushError(format!("{what} of tenant {}: {e}", tenant.id))
        };
        let (head, generation, window_ms) = (self.head.clone(), frozen.generation, self.options.window_ms);
        let scratch = self.options.dir.join("scratch");
        let (of, writer) = (tenant.clone(), self.writer.clone());
        let known = self.state.read().snapshots.get(&tenant.id).cloned();
        let made = tokio::task::spawn_blocking(move || {
            let ranges = plan(&windows(&head, &of, generation, window_ms)?, window_ms);
            let mut made: Vec<BlockFiles> = Vec::new();
            for range in ranges {
                let source = HeadSource::new(head.clone(), of.clone(), 0..=generation);
                let series = Rows::new(source.all(*range.start(), *range.end()));
                // Later than all before it, even if the clock went back: a tombstone must not reach what was written after it.
                let ulid = known.as_ref().map_or_else(Ulid::new, |s| s.next_ulid());
                let origin = BlockOrigin::flushed(ulid, of.id.clone(), writer.clone());
                let block = write_block(&scratch, origin, WriteOptions::fresh(), series);
                made.extend(block.map_err(|e| e.to_string())?);
            }
            Ok::<_, String>(made)
        });
        let made =
            made.await.map_err(|e| fail("encoding blocks", &e))?.map_err(|e| fail("encoding blocks", &e))?;
        let exemplars = self.write_exemplars(&tenant.id).await?;
        if made.is_empty() && exemplars.is_none() {
            return Ok(None);
        }
        for block in &made {
            upload(&*self.options.store, block).await.map_err(|e| fail("uploading a block", &e))?;
        }
        let mut edit = Edit::flush(None, &self.writer, frozen.next_segment - 1);
        edit.add.extend(made.iter().map(|b| b.meta.clone()));
        edit.add_exemplars.extend(exemplars);
        let catalog = self.catalog(&tenant.id).await.map_err(|e| fail("opening the catalog", &e))?;
        let snapshot = catalog.commit(&edit).await.map_err(|e| fail("committing blocks", &e))?;
        for block in &made {
            frozen.report.blocks.push(block.meta.ulid.to_string());
            frozen.report.series += block.meta.stats.series;
            frozen.report.samples += block.meta.stats.samples;
            frozen.report.bytes += block.meta.files.bytes();
        }
        Ok(Some(snapshot))
    }

    pub(super) async fn catalog(&self, tenant: &TenantId) -> Result<Arc<Catalog>, CatalogError> {
        let mut catalogs = self.catalogs.lock().await;
        if let Some(catalog) = catalogs.get(tenant) {
            return Ok(catalog.clone());
        }
        let catalog = open_catalog(&self.options, &self.writer, tenant).await?;
        catalogs.insert(tenant.clone(), catalog.clone());
        Ok(catalog)
    }

    /// Looks for what others have committed: new snapshots, new tenants.
    pub async fn refresh(&self) -> Result<(), CatalogError> {
        let mut found = Vec::new();
        let known: HashSet<TenantId> = self.catalogs.lock().await.keys().cloned().collect();
        for tenant in
            Catalog::tenants(&*self.options.store).await?.into_iter().chain(known).collect::<HashSet<_>>()
        {
            let snapshot = self.catalog(&tenant).await?.refresh().await?;
            found.push((tenant, snapshot));
        }
        self.install(|state| {
            for (tenant, snapshot) in found {
                newer(&mut state.snapshots, tenant, snapshot);
            }
        });
        Ok(())
    }

    /// Swaps what queries see; returns what they saw before.
    pub(super) fn install(&self, change: impl FnOnce(&mut ReadState)) -> Arc<ReadState> {
        let mut state = self.state.write();
        let mut next =
            ReadState { first_generation: state.first_generation, snapshots: state.snapshots.clone() };
        change(&mut next);
        std::mem::replace(&mut *state, Arc::new(next))
    }

    /// Waits for the readers of the state before the last flush, then frees the generation it flushed.
    async fn forget_retired(&self, flushing: &mut Flushing) -> Result<(), FlushError> {
        let Some((state, generation)) = flushing.retired.take() else { return Ok(()) };
        let begun = tokio::time::Instant::now();
        while state.strong_count() > 0 {
            if begun.elapsed() > READERS_PATIENCE {
                flushing.retired = Some((state, generation));
                let why = "a query has been reading the generation flushed last for minutes: the next flush waits for it to end";
                return Err(FlushError(why.to_string()));
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

    async fn remove_segments(&self, before: u64) {
        let dir = self.options.dir.join("log");
        let removed = tokio::task::spawn_blocking(move || {
            for number in segments(&dir)?.into_iter().take_while(|n| *n < before) {
                std::fs::remove_file(segment_path(&dir, number))?;
            }
            Ok::<_, std::io::Error>(())
        });
        // Harmless: the watermark keeps them from being replayed, and the next flush tries again.
        if let Ok(Err(e)) = removed.await {
            tracing::warn!("segments of the log whose samples are in blocks could not be removed: {e}");
        }
    }
}

pub(super) fn newer(
    snapshots: &mut BTreeMap<TenantId, Arc<Snapshot>>,
    tenant: TenantId,
    snapshot: Arc<Snapshot>,
) {
    let known = snapshots.entry(tenant).or_insert_with(|| snapshot.clone());
    if known.number < snapshot.number {
        *known = snapshot;
    }
}

/// Samples per window of a frozen generation, keyed by the window's end. Chunks that lie in one window are counted without a look inside.
fn windows(
    head: &Arc<Head>,
    tenant: &Arc<TenantHead>,
    generation: u64,
    window_ms: i64,
) -> Result<BTreeMap<i64, u64>, String> {
    let end = |t: i64| window_of(t, window_ms);
    let mut counts = BTreeMap::new();
    let mut columns = Columns::default();
    head.for_each_series(tenant, |series| {
        for view in series.view(0..=generation, i64::MIN, i64::MAX) {
            view.count_by(end, &mut columns, |end, n| *counts.entry(end).or_insert(0) += n);
        }
    });
    Ok(counts)
}

/// A cursor's series, one by one.
struct Rows<C> {
    cursor: C,
    batch: std::vec::IntoIter<SeriesColumns>,
}

impl<C: SeriesCursor> Rows<C> {
    fn new(cursor: C) -> Self {
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
