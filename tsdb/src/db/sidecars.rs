//! Sidecars of a running store: exemplars and metadata, in files of their own that the same catalog names.
//! Files that it does not name any more are garbage, which whoever compacts collects with the blocks.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{Db, FlushError};
use crate::block::BlockError;
use crate::block::read::cache::Key;
use crate::catalog::{CatalogError, Edit, Snapshot};
use crate::layout;
use crate::sidecar::exemplars::load::{Wanted, load, select};
use crate::sidecar::exemplars::{file, retention};
use crate::sidecar::metadata::{self, MetricMetadata};
use crate::sidecar::{self, Sidecar};
use model::exemplar::{Gathered, SeriesExemplars};
use model::matcher::Matcher;
use model::sample::Metadata;
use model::source::{Budget, SourceError};
use model::tenant::TenantId;

/// How often a change of metadata is tried again on what others have written meanwhile.
const METADATA_ATTEMPTS: usize = 10;

/// Why files of exemplars were left as they are.
#[derive(Debug, thiserror::Error)]
enum ExemplarUpkeepError {
    #[error(transparent)]
    File(#[from] BlockError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// Metadata from which on a tenant's is large.
const LARGE_METADATA_BYTES: u64 = 1 << 20;

/// What bounds the work on files of metadata.
pub(crate) struct MetadataWork {
    /// Files of metadata are decoded one at a time: of several that ask for one, the others find it decoded,
    /// and what decoding needs beside the result is needed once.
    decoding: Mutex<()>,
    /// Large metadata is written anew one tenant at a time: a file that is read, joined and encoded again
    /// takes some times what it is.
    large: Semaphore,
}

impl Default for MetadataWork {
    fn default() -> Self {
        MetadataWork { decoding: Mutex::default(), large: Semaphore::new(1) }
    }
}

impl Db {
    /// The hour by which exemplars and metadata are deleted: a clock that is far ahead of all data, or of the
    /// object store's own clock, is not believed.
    async fn deletion_now_ms(&self) -> Result<i64, BlockError> {
        let now_ms = self.options.clock.now_ms();
        let Some(lead_ms) = self.options.max_clock_lead_ms else { return Ok(now_ms) };
        let state = self.state.read().clone();
        let snapshots = || state.snapshots.values();
        let blocks = snapshots().flat_map(|s| s.blocks.iter().map(|b| b.max_t_ms));
        let exemplars = snapshots().flat_map(|s| s.exemplars.iter().map(|f| f.max_t_ms));
        let head = self.head.span_ms().map(|span| span.1);
        let newest_ms = blocks.chain(exemplars).chain(head).max().unwrap_or(i64::MIN);
        let store_ms = self.store_clock.cautious_now_ms().await?;
        Ok(now_ms.min(store_ms.saturating_add(lead_ms)).min(newest_ms.saturating_add(lead_ms)))
    }

    /// How long something is kept in the store that readers see for `keep_ms`.
    fn stored_for_ms(&self, keep_ms: Option<i64>) -> Option<i64> {
        keep_ms.map(|keep| keep.saturating_add(self.options.retention_delay_ms))
    }

    /// Exemplars of series that match any of the selectors, `min_t_ms` to `max_t_ms` both included, series in
    /// ascending order and none without an exemplar. Blocks: call it from a thread that may.
    pub fn exemplars(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        min_t_ms: i64,
        max_t_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<SeriesExemplars>, SourceError> {
        let keep = self.options.exemplar_keep_ms;
        let first_kept = keep.map_or(i64::MIN, |keep| self.options.clock.now_ms().saturating_sub(keep));
        let min_t_ms = min_t_ms.max(first_kept);
        let mut all = Gathered::default();
        // Memory first: what leaves it meanwhile is in the state that is taken after.
        self.exemplars.select(tenant, selectors, min_t_ms, max_t_ms, &mut all);
        let state = self.state.read().clone();
        let files = state.snapshots.get(tenant).map(|s| s.exemplars.as_slice()).unwrap_or_default();
        let of = Wanted { tenant, selectors, range_ms: (min_t_ms, max_t_ms) };
        select(&self.bucket, files, of, budget, &mut all)?;
        Ok(all.finish())
    }

    /// What is known of metrics, by name; `metric` narrows it to one. What the answer takes is reserved in
    /// `budget`. Blocks: call it from a thread that may.
    pub fn metadata(
        &self,
        tenant: &TenantId,
        metric: Option<&str>,
        budget: &Budget,
    ) -> Result<BTreeMap<String, Vec<Metadata>>, SourceError> {
        let stored = self.state.read().snapshots.get(tenant).and_then(|s| s.metadata.clone());
        let stored = match stored {
            Some(file) => self.stored_metadata(tenant, &file)?,
            None => Arc::default(),
        };
        let head = self.head.find_tenant(tenant);
        if metric.is_none() {
            let of_head = head.as_ref().map_or(0, |head| head.metadata_bytes());
            budget.reserve(metadata::heap_bytes(&stored).saturating_add(2 * of_head))?;
        }
        let mut known: MetricMetadata = match metric {
            Some(metric) => {
                stored.get_key_value(metric).map(|(m, e)| (m.clone(), e.clone())).into_iter().collect()
            }
            None => (*stored).clone(),
        };
        if let Some(head) = head {
            metadata::join(&mut known, &head.metadata(metric));
        }
        metadata::forget(&mut known, self.options.metadata_keep_ms, self.options.clock.now_ms());
        Ok(known.into_iter().map(|(metric, all)| (metric, all.into_keys().collect())).collect())
    }

    /// A file of metadata, from the cache of blocks or read and decoded.
    fn stored_metadata(&self, tenant: &TenantId, file: &Sidecar) -> Result<Arc<MetricMetadata>, SourceError> {
        metadata::load(&self.bucket, tenant, file, &self.metadata_work.decoding)
    }

    /// Writes down in the object store what was heard of metrics, where it is more than is there.
    pub(crate) async fn store_metadata(self: &Arc<Self>, tenant: &TenantId) -> Result<(), FlushError> {
        let about = |what: &str| format!("{what} the metadata of tenant {tenant}");
        let Some(head) = self.head.find_tenant(tenant) else { return Ok(()) };
        if head.metadata_bytes() == 0 {
            return Ok(());
        }
        let catalog = self
            .catalog(tenant)
            .await
            .map_err(|e| FlushError::failed(about("opening the catalog for"), e))?;
        let mut snapshot = catalog.snapshot();
        let stored_bytes = snapshot.metadata.as_ref().map_or(0, metadata::expected_bytes);
        let large = stored_bytes.saturating_add(head.metadata_bytes()) > LARGE_METADATA_BYTES;
        let _alone = match large {
            true => Some(
                self.metadata_work
                    .large
                    .acquire()
                    .await
                    .map_err(|e| FlushError::failed(about("waiting to write"), e))?,
            ),
            false => None,
        };
        let heard = head.metadata(None);
        for _ in 0..METADATA_ATTEMPTS {
            let stored = match snapshot.metadata.clone() {
                None => Arc::default(),
                Some(file) => {
                    let (db, of) = (self.clone(), tenant.clone());
                    let read = tokio::task::spawn_blocking(move || db.stored_metadata(&of, &file)).await;
                    read.map_err(|e| FlushError::failed(about("reading"), e))?
                        .map_err(|e| FlushError::failed(about("reading"), e))?
                }
            };
            let keep_ms = self.stored_for_ms(self.options.metadata_keep_ms);
            let now_ms = match keep_ms {
                None => self.options.clock.now_ms(),
                Some(_) => {
                    let now_ms = self.deletion_now_ms().await;
                    now_ms.map_err(|e| FlushError::failed(about("reading the clock for"), e))?
                }
            };
            let Some(next) = metadata::next(&stored, &heard, keep_ms, now_ms) else { return Ok(()) };
            let (file, bytes) =
                metadata::encode(&next).map_err(|e| FlushError::failed(about("encoding"), e))?;
            let path = layout::metadata(tenant, file.ulid);
            let put = sidecar::put(&*self.options.store, &path, bytes).await;
            put.map_err(|e| FlushError::failed(about("uploading"), e))?;
            let replaces = snapshot.metadata.as_ref().map(|f| f.ulid);
            match catalog.commit(&Edit::metadata(replaces, file.clone())).await {
                Ok(done) => {
                    let bytes = metadata::heap_bytes(&next) as usize;
                    self.bucket.cache.put(Key::Metadata(file.ulid), Arc::new(next), bytes);
                    self.adopt(tenant, done);
                    return Ok(());
                }
                // Another writer was quicker: on top of its file, then.
                Err(CatalogError::Conflict(_)) => snapshot = catalog.snapshot(),
                Err(e) => return Err(FlushError::failed(about("committing"), e)),
            }
        }
        Err(FlushError::new(format!("{}: other writers were quicker each time", about("committing"))))
    }

    /// Writes the exemplars that were set aside of a tenant; the flush commits the file with its blocks.
    pub(crate) async fn write_exemplars(&self, tenant: &TenantId) -> Result<Option<Sidecar>, FlushError> {
        let frozen = self.exemplars.frozen_of(tenant);
        if frozen.is_empty() {
            return Ok(None);
        }
        let about = |what: &str| format!("{what} the exemplars of tenant {tenant}");
        let encoded = tokio::task::spawn_blocking(move || file::encode(frozen)).await;
        let encoded = encoded.map_err(|e| FlushError::failed(about("encoding"), e))?;
        let (file, bytes) = encoded.map_err(|e| FlushError::failed(about("encoding"), e))?;
        let path = layout::exemplars(tenant, file.ulid);
        let put = sidecar::put(&*self.options.store, &path, bytes).await;
        put.map_err(|e| FlushError::failed(about("uploading"), e))?;
        Ok(Some(file))
    }

    /// Drops files of exemplars that have expired and makes one of those of a day that is over. Nothing
    /// depends on it, so failures only show in the log.
    pub(crate) async fn keep_exemplars(self: &Arc<Self>) {
        let snapshots: Vec<_> = self.state.read().snapshots.clone().into_iter().collect();
        for (tenant, snapshot) in snapshots {
            if let Err(e) = self.keep_exemplars_of(&tenant, &snapshot).await {
                tracing::warn!(%tenant, "old files of exemplars could not be put in order, it will be tried again: {e}");
            }
        }
    }

    async fn keep_exemplars_of(
        self: &Arc<Self>,
        tenant: &TenantId,
        snapshot: &Arc<Snapshot>,
    ) -> Result<(), ExemplarUpkeepError> {
        let keep_ms = self.stored_for_ms(self.options.exemplar_keep_ms);
        let plan = |now_ms| retention::plan(&snapshot.exemplars, keep_ms, now_ms);
        let mut upkeep = plan(self.options.clock.now_ms());
        if !upkeep.expired.is_empty() {
            upkeep = plan(self.deletion_now_ms().await?);
        }
        if upkeep.expired.is_empty() && upkeep.join.is_empty() {
            return Ok(());
        }
        let mut edit = Edit { drop_exemplars: upkeep.expired, ..Edit::default() };
        if !upkeep.join.is_empty() {
            let parts: Vec<_> =
                snapshot.exemplars.iter().filter(|f| upkeep.join.contains(&f.ulid)).cloned().collect();
            let (db, of) = (self.clone(), tenant.clone());
            let joined = tokio::task::spawn_blocking(move || {
                let mut all = Gathered::default();
                for part in load(&db.bucket, &of, &parts)? {
                    part.iter().for_each(|s| all.add(&s.labels, s.exemplars.iter().cloned()));
                }
                file::encode(all.finish())
            });
            let (about, bytes) = joined.await.map_err(BlockError::from)??;
            let path = layout::exemplars(tenant, about.ulid);
            sidecar::put(&*self.options.store, &path, bytes).await?;
            edit.add_exemplars.push(about);
            edit.drop_exemplars.extend(upkeep.join);
        }
        let catalog = self.catalog(tenant).await?;
        let done = catalog.commit(&edit).await?;
        self.adopt(tenant, done);
        Ok(())
    }
}
