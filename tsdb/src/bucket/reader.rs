//! A bucket as a process reads it that writes nothing: no data folder, no lock, no log, no head. It follows
//! the catalogs of all tenants and answers out of their snapshots.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use object_store::ObjectStore;
use parking_lot::{Mutex, RwLock};

use super::{BlockStore, BucketSource, DiskCache};
use crate::catalog::{CATALOGS_AT_ONCE, Catalog, CatalogError, CatalogOptions, Snapshot};
use crate::deletion::RetentionOf;
use crate::sidecar::exemplars::load::{Wanted, select};
use crate::sidecar::metadata::{self, MetricMetadata};
use model::clock::Clock;
use model::exemplar::Gathered;
use model::matcher::Matcher;
use model::source::{Budget, SourceError};
use model::tenant::TenantId;

/// How a [`BucketReader`] is opened.
#[derive(Clone)]
pub struct ReaderOptions {
    pub store: Arc<dyn ObjectStore>,
    pub clock: Arc<dyn Clock>,
    /// The name under which catalogs are opened; nothing is committed.
    pub name: String,
    /// Bytes that blocks' indexes and small columns may hold in memory.
    pub cache_bytes: usize,
    /// Where bytes of blocks are kept on the local disk, if they are.
    pub disk_cache: Option<Arc<DiskCache>>,
    /// Series of a tenant that are kept for another time than the rest.
    pub rules: RetentionOf,
    /// How long exemplars, and metadata that nobody sends any more, are seen; `None` for ever.
    pub exemplar_keep_ms: Option<i64>,
    pub metadata_keep_ms: Option<i64>,
}

/// See the module. Share it behind an `Arc`.
pub struct BucketReader {
    options: ReaderOptions,
    blocks: Arc<BlockStore>,
    catalogs: tokio::sync::Mutex<HashMap<TenantId, Arc<Catalog>>>,
    snapshots: RwLock<BTreeMap<TenantId, Arc<Snapshot>>>,
    /// When all catalogs were read last, in milliseconds, and why the latest attempt failed, if it did.
    contact: Mutex<(i64, Option<String>)>,
    decoding_metadata: Mutex<()>,
}

impl BucketReader {
    /// Reads the catalogs of all tenants. Runs on a tokio runtime, which it keeps using.
    pub async fn open(options: ReaderOptions) -> Result<Arc<BucketReader>, CatalogError> {
        let runtime = tokio::runtime::Handle::current();
        let reader = BucketReader {
            blocks: BlockStore::new(options.store.clone(), runtime, options.cache_bytes)
                .with_disk_cache(options.disk_cache.clone()),
            contact: Mutex::new((options.clock.now_ms(), None)),
            options,
            catalogs: tokio::sync::Mutex::default(),
            snapshots: RwLock::default(),
            decoding_metadata: Mutex::default(),
        };
        reader.refresh().await?;
        Ok(Arc::new(reader))
    }

    /// Looks for commits and new tenants: one LIST, and a GET for each tenant; so many tenants at once. What
    /// could be read is seen even where the rest could not.
    pub async fn refresh(&self) -> Result<(), CatalogError> {
        let read = self.read_catalogs().await;
        let mut contact = self.contact.lock();
        contact.1 = read.as_ref().err().map(CatalogError::to_string);
        if read.is_ok() {
            contact.0 = self.options.clock.now_ms();
        }
        read
    }

    async fn read_catalogs(&self) -> Result<(), CatalogError> {
        let stored = Catalog::tenants(&*self.options.store).await?;
        let known: HashSet<TenantId> = self.catalogs.lock().await.keys().cloned().collect();
        let tenants: HashSet<TenantId> = stored.into_iter().chain(known).collect();
        let mut refreshes = Vec::with_capacity(tenants.len());
        for tenant in tenants {
            refreshes.push(async move { self.refresh_tenant(&tenant).await.map(drop) }.boxed());
        }
        let mut refreshes = futures::stream::iter(refreshes).buffer_unordered(CATALOGS_AT_ONCE);
        let mut failed = Ok(());
        while let Some(refreshed) = refreshes.next().await {
            failed = failed.and(refreshed);
        }
        failed
    }

    /// The newest snapshot of a tenant, as the store has it now.
    pub async fn refresh_tenant(&self, tenant: &TenantId) -> Result<Arc<Snapshot>, CatalogError> {
        let known = self.catalogs.lock().await.get(tenant).cloned();
        let snapshot = match known {
            Some(catalog) => catalog.refresh().await?,
            None => {
                let clock = self.options.clock.clone();
                let more = CatalogOptions { clock, ..CatalogOptions::default() };
                let (store, name) = (self.options.store.clone(), self.options.name.as_str());
                let catalog = Arc::new(Catalog::open(store, tenant.clone(), name, more).await?);
                let snapshot = catalog.snapshot();
                // A tenant that has nothing yet is looked for among all by the next refresh: whoever asks for
                // names that are not there must not fill the table.
                if snapshot.number > 0 {
                    self.catalogs.lock().await.entry(tenant.clone()).or_insert(catalog);
                }
                snapshot
            }
        };
        if snapshot.number > 0 {
            let mut all = self.snapshots.write();
            let seen = all.entry(tenant.clone()).or_insert_with(|| snapshot.clone());
            if seen.number < snapshot.number {
                *seen = snapshot.clone();
            }
        }
        Ok(snapshot)
    }

    /// Tenants with anything in the bucket, as it was read last.
    pub fn tenants(&self) -> Vec<TenantId> {
        self.snapshots.read().keys().cloned().collect()
    }

    /// A tenant's snapshot as it was read last: the empty one where nothing is known of the tenant. Does not
    /// wait.
    pub fn snapshot(&self, tenant: &TenantId) -> Arc<Snapshot> {
        let known = self.snapshots.read().get(tenant).cloned();
        known.unwrap_or_else(|| Arc::new(Snapshot::empty()))
    }

    /// When all catalogs were read last, in milliseconds, and why the latest attempt failed, if it did.
    pub fn contact(&self) -> (i64, Option<String>) {
        self.contact.lock().clone()
    }

    /// The way to blocks, with the cache of what was read.
    pub fn blocks(&self) -> &Arc<BlockStore> {
        &self.blocks
    }

    /// What a snapshot's blocks hold; `None` where it has none.
    pub fn source(&self, tenant: &TenantId, snapshot: &Snapshot) -> Option<BucketSource> {
        if snapshot.blocks.is_empty() {
            return None;
        }
        let (rules, now_ms) = ((self.options.rules)(tenant), self.options.clock.now_ms());
        let visibility = snapshot.visibility().with_retention(rules, now_ms);
        let source = BucketSource::new(self.blocks.clone(), tenant.clone(), snapshot.blocks.clone());
        Some(source.with_visibility(visibility))
    }

    /// Adds the exemplars in the bucket of series that match any of the selectors, from `range_ms.0` to
    /// `range_ms.1`, both included. Blocks: call it from a thread that may.
    pub fn exemplars(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        range_ms: (i64, i64),
        budget: &Budget,
        to: &mut Gathered,
    ) -> Result<(), SourceError> {
        let keep = self.options.exemplar_keep_ms;
        let first = keep.map_or(i64::MIN, |keep| self.options.clock.now_ms().saturating_sub(keep));
        let wanted = Wanted { tenant, selectors, range_ms: (range_ms.0.max(first), range_ms.1) };
        select(&self.blocks, &self.snapshot(tenant).exemplars, wanted, budget, to)
    }

    /// What the bucket knows of metrics. Blocks: call it from a thread that may.
    pub fn metadata(&self, tenant: &TenantId) -> Result<MetricMetadata, SourceError> {
        let snapshot = self.snapshot(tenant);
        let Some(file) = &snapshot.metadata else { return Ok(MetricMetadata::new()) };
        let known = metadata::load(&self.blocks, tenant, file, &self.decoding_metadata)?;
        let mut known = (*known).clone();
        metadata::forget(&mut known, self.options.metadata_keep_ms, self.options.clock.now_ms());
        Ok(known)
    }
}
