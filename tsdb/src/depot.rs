//! What a background worker does to a tenant's blocks in the object store beside reading them: bring, look over, take away.
//!
//! Whoever works on blocks without being part of the storage (compaction, clean-up) stands on this and on the [`Catalog`], and never sees the store itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use ulid::Ulid;

use crate::block::{BlockError, BlockFiles, BlockMeta, inspect, upload};
use crate::bucket::BlockStore;
use crate::catalog::{Catalog, CatalogError, CatalogOptions, Snapshot};
use crate::clock::Clock;
use crate::layout;
use crate::lease::Leases;
use crate::source::SourceError;
use crate::tenant::TenantId;

/// How often a request that failed is made again, and the first pause between two; it doubles each time.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub attempts: u32,
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { attempts: 5, pause: Duration::from_millis(200) }
    }
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Depot {
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    patience: Patience,
}

/// What lies in the store under a block's name, whether a snapshot names it or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockFolder {
    pub ulid: Ulid,
    pub objects: u64,
    pub bytes: u64,
    /// When the newest of its objects was written, by the store's clock, in milliseconds.
    pub written_ms: i64,
}

/// The names of all objects that a snapshot needs.
fn named_by(snapshot: &Snapshot) -> impl Iterator<Item = Ulid> + '_ {
    let blocks = snapshot.blocks.iter().map(|b| b.ulid);
    let beside = snapshot.exemplars.iter().map(|f| f.ulid).chain(snapshot.metadata.iter().map(|f| f.ulid));
    blocks.chain(beside)
}

/// An object that belongs to no tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    pub object: String,
    pub bytes: u64,
    /// By the store's clock, in milliseconds.
    pub written_ms: i64,
}

impl Depot {
    pub fn new(store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>, patience: Patience) -> Depot {
        Depot { store, clock, patience }
    }

    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// A way to read blocks, with a cache of its own. Call it on a tokio runtime, which it keeps using.
    pub fn blocks(&self, cache_bytes: usize) -> Arc<BlockStore> {
        BlockStore::new(self.store.clone(), tokio::runtime::Handle::current(), cache_bytes)
    }

    /// The tenants that have anything in the store: one LIST.
    pub async fn tenants(&self) -> Result<Vec<TenantId>, CatalogError> {
        Catalog::tenants(&*self.store).await
    }

    /// A tenant's catalog; `writer` is the name its commits bear.
    pub async fn catalog(&self, tenant: &TenantId, writer: &str) -> Result<Catalog, CatalogError> {
        let options = CatalogOptions {
            clock: self.clock.clone(),
            attempts: self.patience.attempts,
            pause: self.patience.pause,
            ..CatalogOptions::default()
        };
        Catalog::open(self.store.clone(), tenant.clone(), writer, options).await
    }

    /// A tenant's leases.
    pub fn leases(&self, tenant: &TenantId, holder: &str) -> Leases {
        Leases::new(self.store.clone(), self.clock.clone(), tenant.clone(), holder)
    }

    /// Uploads a block; nobody reads it before a commit names it. What failed is made again as a whole, which is harmless.
    pub async fn upload(&self, files: &BlockFiles) -> Result<(), BlockError> {
        let mut pause = self.patience.pause;
        for _ in 1..self.patience.attempts.max(1) {
            match upload::upload(&*self.store, files).await {
                Err(e @ BlockError::Store { .. }) => {
                    tracing::debug!(block = %files.meta.ulid, "an upload failed and is made again: {e}");
                    tokio::time::sleep(pause).await;
                }
                done => return done,
            }
            pause *= 2;
        }
        upload::upload(&*self.store, files).await
    }

    /// Reads all of a block's objects and compares them with their checksums; `Corrupt` also where an object is not there.
    pub async fn verify(&self, tenant: &TenantId, meta: &BlockMeta) -> Result<(), BlockError> {
        let mut pause = self.patience.pause;
        let mut attempt = 1;
        loop {
            let found = inspect::verify(&*self.store, tenant, meta).await;
            match found {
                Err(BlockError::Store { object, cause }) => {
                    // As it is written in the error it is encoded already.
                    let path = object_store::path::Path::parse(&object);
                    let path = path.map_err(|e| BlockError::Input(format!("{object}: {e}")))?;
                    if let Err(object_store::Error::NotFound { .. }) = self.store.head(&path).await {
                        return Err(BlockError::Corrupt {
                            object,
                            what: "the object is not there".to_string(),
                        });
                    }
                    if attempt >= self.patience.attempts {
                        return Err(BlockError::Store { object, cause });
                    }
                }
                // A bit may have flipped on the way: what is damaged where it lies is damaged twice.
                Err(BlockError::Corrupt { .. }) if attempt == 1 => {}
                done => return done,
            }
            attempt += 1;
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// All that lies under a tenant's `blocks/`: one LIST (in pages).
    pub async fn folders(&self, tenant: &TenantId) -> Result<Vec<BlockFolder>, BlockError> {
        let folder = layout::blocks(tenant);
        let failed =
            |e: object_store::Error| BlockError::Store { object: folder.to_string(), cause: e.to_string() };
        let mut found: BTreeMap<Ulid, BlockFolder> = BTreeMap::new();
        let mut objects = self.store.list(Some(&folder));
        while let Some(object) = objects.try_next().await.map_err(failed)? {
            let Some(ulid) = layout::block_of_path(tenant, &object.location) else { continue };
            let of =
                found.entry(ulid).or_insert(BlockFolder { ulid, objects: 0, bytes: 0, written_ms: i64::MIN });
            of.objects += 1;
            of.bytes += object.size;
            of.written_ms = of.written_ms.max(object.last_modified.timestamp_millis());
        }
        Ok(found.into_values().collect())
    }

    /// The snapshots that are kept of a tenant's catalog, ascending: one LIST.
    pub async fn snapshots(&self, tenant: &TenantId) -> Result<Vec<u64>, CatalogError> {
        let folder = layout::catalog(tenant);
        let listed: Result<Vec<_>, _> = self.store.list(Some(&folder)).try_collect().await;
        let listed = listed.map_err(|e| CatalogError::Store(format!("cannot list {folder}: {e}")))?;
        let mut numbers: Vec<u64> =
            listed.iter().filter_map(|o| layout::snapshot_number(&o.location)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// What probes and interrupted commits left behind, beside everything that belongs to a tenant: two LISTs.
    pub async fn leftovers(&self) -> Result<Vec<Leftover>, BlockError> {
        let mut found = Vec::new();
        for folder in [layout::STAGED, layout::PROBE] {
            let folder = object_store::path::Path::from(folder);
            let listed: Result<Vec<_>, _> = self.store.list(Some(&folder)).try_collect().await;
            let listed =
                listed.map_err(|e| BlockError::Store { object: folder.to_string(), cause: e.to_string() })?;
            found.extend(listed.into_iter().map(|o| Leftover {
                object: o.location.to_string(),
                bytes: o.size,
                written_ms: o.last_modified.timestamp_millis(),
            }));
        }
        Ok(found)
    }

    /// Deletes one of them.
    pub async fn remove_leftover(&self, leftover: &Leftover) -> Result<(), BlockError> {
        let path = object_store::path::Path::from(leftover.object.as_str());
        match self.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(BlockError::Store { object: leftover.object.clone(), cause: e.to_string() }),
        }
    }

    /// Where a block's bytes go, column by column: reads its footers.
    pub async fn columns(
        &self,
        tenant: &TenantId,
        meta: &BlockMeta,
    ) -> Result<Vec<inspect::ColumnSize>, SourceError> {
        inspect::columns(&*self.store, tenant, meta).await
    }

    /// A block's own description, which lies beside its files.
    pub async fn read_meta(&self, tenant: &TenantId, ulid: Ulid) -> Result<BlockMeta, BlockError> {
        inspect::read_meta(&*self.store, tenant, ulid).await
    }

    /// The blocks and attachments that a snapshot names which is the newest, or was less than `delay_ms` ago (by the store's times against the clock). Whoever reads
    /// took its snapshot at most that long ago.
    pub async fn named(&self, catalog: &Catalog, delay_ms: i64) -> Result<BTreeSet<Ulid>, CatalogError> {
        let now_ms = self.clock.now_ms();
        let newest = catalog.refresh().await?;
        let mut named: BTreeSet<Ulid> = named_by(&newest).collect();
        let folder = layout::catalog(catalog.tenant());
        let listed: Vec<_> = self
            .store
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(|e| CatalogError::Store(format!("cannot list {folder}: {e}")))?;
        let mut written: Vec<(u64, i64)> = listed
            .iter()
            .filter_map(|o| Some((layout::snapshot_number(&o.location)?, o.last_modified.timestamp_millis())))
            .collect();
        written.sort_unstable();
        for pair in written.windows(2) {
            let ((number, _), (_, until_ms)) = (pair[0], pair[1]);
            if number < newest.number && now_ms.saturating_sub(until_ms) < delay_ms {
                // One that was pruned meanwhile is older than a day.
                if let Some(snapshot) = catalog.at(number).await? {
                    named.extend(named_by(&snapshot));
                }
            }
        }
        Ok(named)
    }

    /// What lies beside a tenant's blocks, files of exemplars and of metadata: two LISTs.
    pub async fn attachments(&self, tenant: &TenantId) -> Result<Vec<BlockFolder>, BlockError> {
        let mut found = Vec::new();
        for folder in layout::attachments(tenant) {
            let failed = |e: object_store::Error| BlockError::Store {
                object: folder.to_string(),
                cause: e.to_string(),
            };
            let mut objects = self.store.list(Some(&folder));
            while let Some(object) = objects.try_next().await.map_err(failed)? {
                let Some(ulid) = layout::attachment_of_path(&object.location) else { continue };
                let written_ms = object.last_modified.timestamp_millis();
                found.push(BlockFolder { ulid, objects: 1, bytes: object.size, written_ms });
            }
        }
        Ok(found)
    }

    /// Deletes an attachment, whichever it is.
    pub async fn remove_attachment(&self, tenant: &TenantId, ulid: Ulid) -> Result<(), BlockError> {
        for path in [layout::exemplars(tenant, ulid), layout::metadata(tenant, ulid)] {
            match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => {
                    return Err(BlockError::Store { object: path.to_string(), cause: e.to_string() });
                }
            }
        }
        Ok(())
    }

    /// Deletes a block's objects, `meta.json` first, so that what is left of an interrupted deletion does not look like a block.
    pub async fn remove(&self, tenant: &TenantId, ulid: Ulid) -> Result<(), BlockError> {
        let folder = layout::block(tenant, ulid);
        let failed = |path: &object_store::path::Path, e: object_store::Error| BlockError::Store {
            object: path.to_string(),
            cause: e.to_string(),
        };
        let listed: Vec<_> =
            self.store.list(Some(&folder)).try_collect().await.map_err(|e| failed(&folder, e))?;
        let mut paths: Vec<_> = listed.into_iter().map(|o: object_store::ObjectMeta| o.location).collect();
        paths.sort_by_key(|p| p.filename() != Some(layout::META));
        for path in paths {
            match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(failed(&path, e)),
            }
        }
        Ok(())
    }
}
