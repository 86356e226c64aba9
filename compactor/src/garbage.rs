//! What may be deleted from the store: decisions over listings, values in, names out, and the one place that
//! has them carried out.

use std::collections::BTreeSet;
use std::time::Duration;

use model::tenant::TenantId;
use tsdb::block::BlockError;
use tsdb::bucket::maintenance::{BlockFolder, BucketMaintenance, JournalEntry, SidecarFile};
use tsdb::catalog::lease::LeaseError;
use tsdb::catalog::{Catalog, CatalogError};
use ulid::Ulid;

use crate::settings::millis;

/// How long it stays known what was imported: whoever runs the same import again after that imports it again.
/// (What is there twice is merged.)
pub const IMPORT_KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

/// Something of a tenant's that nobody needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Block(BlockFolder),
    Sidecar(SidecarFile),
    Journal(JournalEntry),
}

impl Piece {
    pub fn objects(&self) -> u64 {
        match self {
            Piece::Block(folder) => folder.objects,
            Piece::Sidecar(_) | Piece::Journal(_) => 1,
        }
    }

    pub fn bytes(&self) -> u64 {
        match self {
            Piece::Block(folder) => folder.bytes,
            Piece::Sidecar(file) => file.bytes,
            Piece::Journal(entry) => entry.bytes,
        }
    }

    /// By the store's clock, in milliseconds.
    pub fn written_ms(&self) -> i64 {
        match self {
            Piece::Block(folder) => folder.written_ms,
            Piece::Sidecar(file) => file.written_ms,
            Piece::Journal(entry) => entry.written_ms,
        }
    }

    /// The word for what it is, and its name.
    pub fn name(&self) -> (&'static str, String) {
        match self {
            Piece::Block(folder) => ("block", folder.ulid.to_string()),
            Piece::Sidecar(file) => (file.kind.as_str(), file.ulid.to_string()),
            Piece::Journal(entry) => ("import", entry.key.clone()),
        }
    }

    /// Deletes it from the store.
    pub async fn remove(&self, maintenance: &BucketMaintenance, tenant: &TenantId) -> Result<(), BlockError> {
        match self {
            Piece::Block(folder) => maintenance.remove(tenant, folder.ulid).await,
            Piece::Sidecar(file) => maintenance.remove_sidecar(tenant, file).await,
            Piece::Journal(entry) => maintenance.remove_journal_entry(tenant, entry).await,
        }
    }
}

/// Why garbage was not found or not removed.
#[derive(Debug, thiserror::Error, Clone)]
pub enum GarbageError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Block(#[from] BlockError),
    /// All of a tenant's blocks would be garbage.
    #[error(
        "tenant {tenant} has {blocks} blocks in the store and no catalog: nothing is removed. Restore its catalog; if the blocks may go, remove them yourself"
    )]
    NoCatalog { tenant: TenantId, blocks: usize },
    /// Who may look for it could not be settled.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

/// Looks through a tenant's objects for what nobody needs. A snapshot counts for `readers` after it was
/// followed by another, as long as any query may take; objects count as under way for `grace` after they were
/// written. `now_ms` is not ahead of the store's clock, or uploads under way would seem old.
///
/// Fails where snapshots of the catalog seem to be lost: all that only they name would look like garbage.
pub async fn find(
    maintenance: &BucketMaintenance,
    catalog: &Catalog,
    readers: Duration,
    grace: Duration,
    now_ms: i64,
) -> Result<Vec<Piece>, GarbageError> {
    let tenant = catalog.tenant();
    maintenance.check_seen(catalog).await?;
    // Listed first: what is committed after this is named by the snapshot that is read next.
    let folders = maintenance.folders(tenant).await?;
    let beside = maintenance.sidecars(tenant).await?;
    let journal = maintenance.journal(tenant).await?;
    let named = maintenance.named(catalog, millis(readers), now_ms).await?;
    let mut live: BTreeSet<Ulid> = BTreeSet::new();
    let snapshot = catalog.snapshot();
    let expired = snapshot.expired.iter().map(|e| &e.block);
    for block in snapshot.blocks.iter().map(|b| &**b).chain(expired) {
        live.insert(block.ulid);
        live.extend(&block.sources);
    }
    let age = Age { now_ms, grace_ms: millis(grace) };
    if snapshot.number == 0 && folders.iter().any(|f| age.over(f.written_ms, Some(f.ulid))) {
        return Err(GarbageError::NoCatalog { tenant: tenant.clone(), blocks: folders.len() });
    }
    let needed = |ulid, written_ms| named.contains(&ulid) || !age.over(written_ms, Some(ulid));
    let blocks = folders.into_iter().filter(|f| !needed(f.ulid, f.written_ms)).map(Piece::Block);
    let beside = beside.into_iter().filter(|f| !needed(f.ulid, f.written_ms)).map(Piece::Sidecar);
    let journal = forgotten(journal, &live, age).into_iter().map(Piece::Journal);
    Ok(blocks.chain(beside).chain(journal).collect())
}

/// Whether objects are too old to be under way.
#[derive(Clone, Copy, Debug)]
struct Age {
    now_ms: i64,
    grace_ms: i64,
}

impl Age {
    /// The name says when it was begun: where it is younger than the store claims, it counts, so that a store
    /// whose clock is wrong costs nobody an upload.
    fn over(self, written_ms: i64, name: Option<Ulid>) -> bool {
        self.of(written_ms, name) >= self.grace_ms
    }

    fn of(self, written_ms: i64, name: Option<Ulid>) -> i64 {
        let begun_ms = name.map_or(i64::MIN, |n| i64::try_from(n.timestamp_ms()).unwrap_or(i64::MAX));
        self.now_ms.saturating_sub(written_ms.max(begun_ms))
    }
}

/// Entries of the journal of imports that tell nothing any more: of a unit that was begun, once it is
/// complete, or where the block was never committed (`live` has the live blocks and all that went into them);
/// and every one that is older than [`IMPORT_KEEP`].
fn forgotten(journal: Vec<JournalEntry>, live: &BTreeSet<Ulid>, age: Age) -> Vec<JournalEntry> {
    let done: BTreeSet<String> =
        journal.iter().filter(|e| e.block.is_none()).map(|e| e.key.clone()).collect();
    let tells_nothing = |e: &JournalEntry| match e.block {
        Some(block) => age.over(e.written_ms, e.block) && (done.contains(&e.key) || !live.contains(&block)),
        None => false,
    };
    let too_old = |e: &JournalEntry| age.of(e.written_ms, e.block) >= millis(IMPORT_KEEP).max(age.grace_ms);
    journal.into_iter().filter(|e| tells_nothing(e) || too_old(e)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_is_as_old_as_the_younger_of_store_and_name_say() {
        let age = Age { now_ms: 1000, grace_ms: 500 };
        let name = |ms| Some(Ulid::from_parts(ms, 0));
        assert!(age.over(0, None) && age.over(500, None) && age.over(500, name(500)));
        assert!(!age.over(501, None) && !age.over(0, name(900)) && !age.over(900, name(0)));
    }

    #[test]
    fn journal_keeps_what_a_later_run_would_ask_it() {
        let day = 24 * 3600 * 1000;
        let entry = |key: &str, block: Option<u64>, written_ms| JournalEntry {
            key: key.to_string(),
            block: block.map(|b| Ulid::from_parts(b, 0)),
            bytes: 3,
            written_ms,
        };
        let journal = vec![
            entry("complete", Some(1), 40 * day),
            entry("complete", None, 40 * day),
            // Died after the commit; its block went into another since.
            entry("committed", Some(2), 40 * day),
            // Died before it.
            entry("abandoned", Some(3), 40 * day),
            entry("under way", Some(4), 41 * day),
            entry("long ago", Some(2), day),
            entry("long ago", None, day),
        ];
        let live = BTreeSet::from([Ulid::from_parts(1, 0), Ulid::from_parts(2, 0)]);
        let found = forgotten(journal, &live, Age { now_ms: 41 * day, grace_ms: day / 4 });
        let found: Vec<_> = found.iter().map(|e| (e.key.as_str(), e.block.is_some())).collect();
        assert_eq!(found, [("complete", true), ("abandoned", true), ("long ago", true), ("long ago", false)]);
    }
}
