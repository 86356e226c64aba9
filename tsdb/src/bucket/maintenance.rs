//! What a background worker does to a tenant's blocks in the object store besides reading them: bring, look
//! over, take away.
//!
//! Whoever works on blocks without being part of the storage (compaction, clean-up) stands on this and on the
//! [`Catalog`], and never sees the store itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::block::{BlockError, BlockFiles, BlockMeta, inspect, upload};
use crate::bucket::BlockStore;
use crate::bucket::presence::{self, MissingObject};
use crate::bucket::store_clock::StoreClock;
use crate::catalog::lease::Leases;
use crate::catalog::{Catalog, CatalogError, CatalogOptions, Snapshot};
use crate::sidecar::exemplars;
use crate::sidecar::{self, Kind, Sidecar};
use crate::{layout, small_object};
use model::backoff::Backoff;
use model::clock::Clock;
use model::exemplar::SeriesExemplars;
use model::source::SourceError;
use model::tenant::TenantId;

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

impl Patience {
    /// The pauses between the attempts at one request.
    fn backoff(&self) -> Backoff {
        Backoff::new(self.pause, LONGEST_PAUSE)
    }
}

/// Longest pause between two attempts at one request.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A bucket as background workers use it. Cheap to clone.
#[derive(Clone)]
pub struct BucketMaintenance {
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    patience: Patience,
    store_clock: StoreClock,
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
    let blocks = blocks.chain(snapshot.expired.iter().map(|e| e.block.ulid));
    blocks.chain(snapshot.sidecars().map(|(_, f)| f.ulid))
}

/// A sidecar as it lies in the store, whether a snapshot names it or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarFile {
    pub kind: Kind,
    pub ulid: Ulid,
    pub bytes: u64,
    /// By the store's clock, in milliseconds.
    pub written_ms: i64,
}

/// An entry of the journal of imports, see [`crate::bucket::import_journal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// The unit it is about.
    pub key: String,
    /// The block that was about to be committed; `None` where it says that the unit is complete.
    pub block: Option<Ulid>,
    pub bytes: u64,
    /// By the store's clock, in milliseconds.
    pub written_ms: i64,
}

/// A snapshot that was the newest once, as `seen.json` remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    snapshot: u64,
    commit: String,
}

/// What is compared with the catalog's word.
#[derive(Clone, Copy)]
enum What<'a> {
    Block(&'a BlockMeta),
    Sidecar(Kind, &'a Sidecar),
}

/// An object that belongs to no tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrphanObject {
    pub object: String,
    pub bytes: u64,
    /// By the store's clock, in milliseconds.
    pub written_ms: i64,
}

impl BucketMaintenance {
    pub fn new(store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>, patience: Patience) -> BucketMaintenance {
        let store_clock = StoreClock::new(store.clone(), clock.clone());
        BucketMaintenance { store, clock, patience, store_clock }
    }

    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Now, in milliseconds, by this machine's clock or the object store's, whichever is behind: for deciding
    /// what is deleted for good.
    pub async fn cautious_now_ms(&self) -> Result<i64, BlockError> {
        self.store_clock.cautious_now_ms().await
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

    /// Uploads a block; nobody reads it before a commit names it. What failed is made again as a whole, which
    /// is harmless.
    pub async fn upload(&self, files: &BlockFiles) -> Result<(), BlockError> {
        let mut backoff = self.patience.backoff();
        for _ in 1..self.patience.attempts.max(1) {
            match upload::upload(&*self.store, files).await {
                Err(e @ BlockError::Store { .. }) => {
                    tracing::debug!(block = %files.meta.ulid, "an upload failed and is made again: {e}");
                    tokio::time::sleep(backoff.next_pause()).await;
                }
                done => return done,
            }
        }
        upload::upload(&*self.store, files).await
    }

    /// Reads all of a block's objects and compares them with their checksums; `Corrupt` also where an object
    /// is not there.
    pub async fn verify(&self, tenant: &TenantId, meta: &BlockMeta) -> Result<(), BlockError> {
        self.look(tenant, What::Block(meta)).await
    }

    /// Reads a sidecar and compares it with what the catalog says of it; `Corrupt` also where
    /// it is not there.
    pub async fn verify_sidecar(
        &self,
        tenant: &TenantId,
        kind: Kind,
        about: &Sidecar,
    ) -> Result<(), BlockError> {
        self.look(tenant, What::Sidecar(kind, about)).await
    }

    async fn look(&self, tenant: &TenantId, what: What<'_>) -> Result<(), BlockError> {
        let mut backoff = self.patience.backoff();
        let mut attempt = 1;
        loop {
            let found = match what {
                What::Block(meta) => inspect::verify(&*self.store, tenant, meta).await,
                What::Sidecar(kind, about) => {
                    sidecar::verify::verify(&*self.store, tenant, kind, about).await
                }
            };
            match found {
                Err(BlockError::Missing { object }) => {
                    return Err(BlockError::Corrupt { object, what: "the object is not there".to_string() });
                }
                Err(BlockError::Store { .. }) if attempt < self.patience.attempts => {}
                // A bit may have flipped on the way: what is damaged where it lies is damaged twice.
                Err(BlockError::Corrupt { .. }) if attempt == 1 => {}
                done => return done,
            }
            attempt += 1;
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// All that lies under a tenant's `blocks/`: one LIST (in pages).
    pub async fn folders(&self, tenant: &TenantId) -> Result<Vec<BlockFolder>, BlockError> {
        let folder = layout::blocks(tenant);
        let failed = |e: object_store::Error| BlockError::of_store(&folder, e);
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
        let listed = listed.map_err(|e| CatalogError::store(format!("cannot list {folder}"), e))?;
        let mut numbers: Vec<u64> =
            listed.iter().filter_map(|o| layout::snapshot_number(&o.location)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// What probes and interrupted commits left behind, apart from everything that belongs to a tenant: two
    /// LISTs.
    pub async fn orphans(&self) -> Result<Vec<OrphanObject>, BlockError> {
        let mut found = Vec::new();
        for folder in [layout::STAGED, layout::PROBE] {
            let listed = self.listed(&object_store::path::Path::from(folder)).await?;
            found.extend(listed.into_iter().map(|o| OrphanObject {
                object: o.location.to_string(),
                bytes: o.size,
                written_ms: o.last_modified.timestamp_millis(),
            }));
        }
        Ok(found)
    }

    /// Deletes one of them.
    pub async fn remove_orphan(&self, orphan: &OrphanObject) -> Result<(), BlockError> {
        self.delete(&object_store::path::Path::from(orphan.object.as_str())).await
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

    /// The blocks and sidecars that a snapshot names which is the newest, or was less than `delay_ms` ago (by
    /// the store's times against `now_ms`). Whoever reads took its snapshot at most that long ago.
    pub async fn named(
        &self,
        catalog: &Catalog,
        delay_ms: i64,
        now_ms: i64,
    ) -> Result<BTreeSet<Ulid>, CatalogError> {
        let newest = catalog.refresh().await?;
        let mut named: BTreeSet<Ulid> = named_by(&newest).collect();
        let folder = layout::catalog(catalog.tenant());
        let listed: Vec<_> = self
            .store
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(|e| CatalogError::store(format!("cannot list {folder}"), e))?;
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

    /// The data files that the newest snapshot names and that are gone, or have another length: three LISTs.
    pub async fn missing(&self, catalog: &Catalog) -> Result<Vec<MissingObject>, CatalogError> {
        presence::missing(&*self.store, catalog).await
    }

    /// When the newest of a block's objects was written, by the store's clock; `None` where there is none.
    pub async fn written_ms(&self, tenant: &TenantId, ulid: Ulid) -> Result<Option<i64>, BlockError> {
        let listed = self.listed(&layout::block(tenant, ulid)).await?;
        Ok(listed.iter().map(|o| o.last_modified.timestamp_millis()).max())
    }

    /// Looks whether the catalog is one that goes on from what [`BucketMaintenance::note_seen`] noted last.
    /// If not, snapshots are gone, and what only they name would be taken for garbage: the text says what to
    /// do.
    pub async fn check_seen(&self, catalog: &Catalog) -> Result<(), CatalogError> {
        let Some(seen) = self.seen(catalog.tenant()).await? else { return Ok(()) };
        let newest = catalog.refresh().await?;
        let there = match seen.snapshot.cmp(&newest.number) {
            std::cmp::Ordering::Greater => false,
            std::cmp::Ordering::Equal => newest.commit().map(|c| c.to_string()) == Some(seen.commit.clone()),
            // One that was pruned is as it was.
            std::cmp::Ordering::Less => catalog
                .at(seen.snapshot)
                .await?
                .is_none_or(|s| s.commit().map(|c| c.to_string()) == Some(seen.commit.clone())),
        };
        if there {
            return Ok(());
        }
        let tenant = catalog.tenant();
        Err(CatalogError::Conflict(format!(
            "the catalog of tenant {tenant} is not the one it was: snapshot {} was its newest once, and it is gone or another (the newest is {}; 0: none). \
             Nothing is removed from the store, because blocks that only the lost snapshots name look like garbage. Restore {}; if what is gone may stay gone, remove {}",
            seen.snapshot,
            newest.number,
            layout::catalog(tenant),
            layout::seen(tenant)
        )))
    }

    /// Notes which snapshot is the newest, in the store, for whoever looks for garbage next.
    pub async fn note_seen(&self, tenant: &TenantId, snapshot: &Snapshot) -> Result<(), CatalogError> {
        let Some(commit) = snapshot.commit() else { return Ok(()) };
        let seen = Seen { snapshot: snapshot.number, commit: commit.to_string() };
        if self.seen(tenant).await?.as_ref() == Some(&seen) {
            return Ok(());
        }
        let path = layout::seen(tenant);
        let text = serde_json::to_vec(&seen).expect("numbers and strings always serialize");
        let put = self.store.put(&path, PutPayload::from(text)).await;
        put.map(drop).map_err(|e| CatalogError::store(format_args!("cannot write {path}"), e))
    }

    async fn seen(&self, tenant: &TenantId) -> Result<Option<Seen>, CatalogError> {
        let path = layout::seen(tenant);
        let read = small_object::read(&*self.store, &path, |text| serde_json::from_slice::<Seen>(text)).await;
        let seen = read.map_err(|e| CatalogError::store(format_args!("cannot read {path}"), e))?;
        // One that nobody understands helps nobody.
        Ok(seen.and_then(Result::ok))
    }

    /// What lies beside a tenant's blocks, whether a snapshot names it or not: two LISTs.
    pub async fn sidecars(&self, tenant: &TenantId) -> Result<Vec<SidecarFile>, BlockError> {
        let mut found = Vec::new();
        for (kind, folder) in Kind::ALL.into_iter().zip(layout::sidecars(tenant)) {
            for object in self.listed(&folder).await? {
                let Some(ulid) = layout::sidecar_of_path(&object.location) else { continue };
                let written_ms = object.last_modified.timestamp_millis();
                found.push(SidecarFile { kind, ulid, bytes: object.size, written_ms });
            }
        }
        Ok(found)
    }

    /// Deletes one of them.
    pub async fn remove_sidecar(&self, tenant: &TenantId, file: &SidecarFile) -> Result<(), BlockError> {
        self.delete(&file.kind.path(tenant, file.ulid)).await
    }

    /// The exemplars of a file.
    pub async fn read_exemplars(
        &self,
        tenant: &TenantId,
        about: &Sidecar,
    ) -> Result<Vec<SeriesExemplars>, BlockError> {
        let path = layout::exemplars(tenant, about.ulid);
        let bytes = sidecar::get(&*self.store, &path, about).await?;
        exemplars::file::decode(path.as_ref(), bytes)
    }

    /// Writes a file of exemplars, at least one; nobody reads it before a commit names it.
    pub async fn upload_exemplars(
        &self,
        tenant: &TenantId,
        series: Vec<SeriesExemplars>,
    ) -> Result<Sidecar, BlockError> {
        let (about, bytes) = exemplars::file::encode(series)?;
        sidecar::put(&*self.store, &layout::exemplars(tenant, about.ulid), bytes).await?;
        Ok(about)
    }

    /// The journal of a tenant's imports: one LIST.
    pub async fn journal(&self, tenant: &TenantId) -> Result<Vec<JournalEntry>, BlockError> {
        let listed = self.listed(&layout::imports(tenant)).await?;
        let entry = |o: object_store::ObjectMeta| {
            let (key, block) = layout::import_entry(&o.location)?;
            let (key, written_ms) = (key.to_string(), o.last_modified.timestamp_millis());
            Some(JournalEntry { key, block, bytes: o.size, written_ms })
        };
        Ok(listed.into_iter().filter_map(entry).collect())
    }

    /// Deletes an entry of it.
    pub async fn remove_journal_entry(
        &self,
        tenant: &TenantId,
        entry: &JournalEntry,
    ) -> Result<(), BlockError> {
        self.delete(&match entry.block {
            Some(block) => layout::import_begun(tenant, &entry.key, block),
            None => layout::import_done(tenant, &entry.key),
        })
        .await
    }

    async fn listed(
        &self,
        folder: &object_store::path::Path,
    ) -> Result<Vec<object_store::ObjectMeta>, BlockError> {
        let listed: Result<Vec<_>, _> = self.store.list(Some(folder)).try_collect().await;
        listed.map_err(|e| BlockError::of_store(folder, e))
    }

    /// Deletes an object, also where it is gone already.
    async fn delete(&self, path: &object_store::path::Path) -> Result<(), BlockError> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(BlockError::of_store(path, e)),
        }
    }

    /// Deletes a block's objects, `meta.json` first, so that what is left of an interrupted deletion does not
    /// look like a block.
    pub async fn remove(&self, tenant: &TenantId, ulid: Ulid) -> Result<(), BlockError> {
        let listed = self.listed(&layout::block(tenant, ulid)).await?;
        let mut paths: Vec<_> = listed.into_iter().map(|o| o.location).collect();
        paths.sort_by_key(|p| p.filename() != Some(layout::META));
        for path in paths {
            self.delete(&path).await?;
        }
        Ok(())
    }
}
