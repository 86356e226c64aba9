//! The store as queries and the admin API see it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use compactor::worker::Compactor;
use model::exemplar::SeriesExemplars;
use model::head_stats::HeadStats;
use model::matcher::Matcher;
use model::sample::Metadata;
use model::source::{Budget, Source, SourceError, TenantList};
use model::tenant::TenantId;
use parking_lot::Mutex;
use query::api::upkeep::{BlockTotals, CostOrder, DamagedBlock, Deletion, StoredCardinality, Upkeep};
use query::api::{ChangeError, Readiness, Stored, StoredBlock, StoredHead};
use tsdb::block::BlockMeta;
use tsdb::db::{Db, DbCounts, DeleteError};
use tsdb::deletion::Tombstone;

use super::snapshot;
use super::stored_cardinality::StoredCounts;
use crate::http::Server;
use crate::objstore::Location;

/// The store of this process.
pub struct QueryStorage {
    pub db: Arc<Db>,
    pub web: Server,
    /// Who rewrites blocks, if this process does.
    pub compactor: Option<Arc<Compactor>>,
    pub data_dir: PathBuf,
    /// Where the blocks are.
    pub location: Location,
    pub heads: RecentHeads,
    /// What blocks cost.
    pub counts: Arc<StoredCounts>,
    /// Where what the API asks for on blocking threads is carried out.
    pub runtime: tokio::runtime::Handle,
}

/// What heads held a few seconds ago: looking walks all series of a tenant, a tenth of a second for a
/// million.
#[derive(Default)]
pub struct RecentHeads(Mutex<HashMap<TenantId, (Instant, StoredHead)>>);

impl RecentHeads {
    fn of(&self, db: &Db, tenant: &TenantId) -> StoredHead {
        const FRESH: Duration = Duration::from_secs(5);
        let known = self.0.lock().get(tenant).copied();
        if let Some((_, head)) = known.filter(|(at, _)| at.elapsed() < FRESH) {
            return head;
        }
        let stats = db.head_stats(tenant, 1);
        let head = StoredHead {
            series: stats.series,
            min_t_ms: stats.min_t_ms,
            max_t_ms: stats.max_t_ms,
            bytes: stats.bytes.total(),
        };
        let mut all = self.0.lock();
        all.retain(|_, (at, _)| at.elapsed() < FRESH);
        all.insert(tenant.clone(), (Instant::now(), head));
        head
    }
}

impl query::api::Storage for QueryStorage {
    fn source(&self, tenant: &TenantId) -> Arc<dyn Source> {
        self.db.source(tenant)
    }

    fn tenants(&self) -> TenantList {
        self.db.tenants().into()
    }

    fn metadata(
        &self,
        tenant: &TenantId,
        metric: Option<&str>,
        budget: &Budget,
    ) -> Result<BTreeMap<String, Vec<Metadata>>, SourceError> {
        self.db.metadata(tenant, metric, budget)
    }

    fn exemplars(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        min_t_ms: i64,
        max_t_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<SeriesExemplars>, SourceError> {
        self.db.exemplars(tenant, selectors, min_t_ms, max_t_ms, budget)
    }

    fn head_stats(&self, tenant: &TenantId, limit: usize) -> HeadStats {
        self.db.head_stats(tenant, limit)
    }

    fn stored(&self, tenant: &TenantId) -> Stored {
        let blocks = self.db.blocks(tenant);
        Stored {
            blocks: blocks.iter().map(|b| stored_block(b)).collect(),
            head: Some(self.heads.of(&self.db, tenant)),
        }
    }

    fn upkeep(&self, tenant: &TenantId) -> Upkeep {
        let mut upkeep = Upkeep {
            compacts: self.compactor.is_some(),
            troubles: troubles(&self.db.counts()),
            ..Upkeep::default()
        };
        let contact = self.db.catalog_contact();
        (upkeep.catalog_read_ms, upkeep.catalog_error) = (Some(contact.read_ms), contact.error);
        let add = |totals: &mut BlockTotals, block: &BlockMeta| {
            totals.add(block.stats.samples, block.files.bytes(), (block.min_t_ms, block.max_t_ms));
        };
        for block in self.db.local_blocks(tenant) {
            add(&mut upkeep.local, &block);
        }
        let Some(snapshot) = self.db.snapshot(tenant) else { return upkeep };
        for expired in &snapshot.expired {
            add(&mut upkeep.expired, &expired.block);
        }
        upkeep.deletions = snapshot.tombstones.iter().map(|t| deletion(t)).collect();
        upkeep.damaged = snapshot
            .quarantined
            .iter()
            .map(|(ulid, why)| DamagedBlock {
                ulid: ulid.to_string(),
                reason: why.reason.clone(),
                since_ms: why.since_ms,
            })
            .collect();
        upkeep
    }

    fn stored_cardinality(
        &self,
        tenant: &TenantId,
        limit: usize,
        by: CostOrder,
    ) -> Option<StoredCardinality> {
        Some(self.counts.of(tenant, limit, by))
    }

    fn delete_series(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        min_t_ms: i64,
        max_t_ms: i64,
    ) -> Result<(), ChangeError> {
        let deleted = self.runtime.block_on(self.db.delete_series(tenant, selectors, min_t_ms, max_t_ms));
        deleted.map_err(|e| match e {
            DeleteError::Unavailable(text) => ChangeError::Unavailable(text),
            DeleteError::TooMany(text) => ChangeError::Refused(text),
        })
    }

    fn clean_tombstones(&self, tenant: &TenantId) -> Result<(), ChangeError> {
        let Some(compactor) = &self.compactor else {
            let text = "compaction is switched off here (compactor.enabled): `hearth compact` or another process rewrites the blocks";
            return Err(ChangeError::Refused(text.into()));
        };
        self.runtime.block_on(async {
            let cleaned = compactor.clean_tombstones(tenant).await;
            let rewritten = cleaned.map_err(|e| {
                ChangeError::Unavailable(format!(
                    "not all blocks could be rewritten, deleted samples stay hidden: {e}"
                ))
            })?;
            if rewritten > 0 {
                self.db.refresh().await.map_err(|e| ChangeError::Unavailable(e.to_string()))?;
            }
            Ok(())
        })
    }

    fn snapshot(&self, skip_head: bool) -> Result<String, ChangeError> {
        let Location::Folder(blocks) = &self.location else {
            return Err(ChangeError::Refused(format!(
                "the blocks are in {}, and a snapshot is a folder of links to them: flush (POST /-/flush) and copy the bucket, or keep its former versions",
                self.location
            )));
        };
        let made = self.runtime.block_on(snapshot::make(&self.db, &self.data_dir, blocks, skip_head));
        made.map_err(ChangeError::Unavailable)
    }

    fn readiness(&self) -> Readiness {
        if self.web.stopping() { Readiness::Stopping } else { Readiness::Ready }
    }
}

/// A block as the API shows it.
pub fn stored_block(b: &BlockMeta) -> StoredBlock {
    StoredBlock {
        ulid: b.ulid.to_string(),
        min_t_ms: b.min_t_ms,
        max_t_ms: b.max_t_ms,
        resolution_ms: b.resolution_ms,
        level: b.level,
        series: b.stats.series,
        samples: b.stats.samples,
        bytes: b.files.series.bytes + b.files.timelines.bytes + b.files.samples.bytes,
        writer: b.writer.clone(),
        approximate: b.approximate,
    }
}

/// A deletion as the API shows it.
pub fn deletion(tombstone: &Tombstone) -> Deletion {
    let matchers: Vec<String> = tombstone.matchers.iter().map(ToString::to_string).collect();
    Deletion {
        selector: format!("{{{}}}", matchers.join(",")),
        min_t_ms: tombstone.min_t_ms,
        max_t_ms: tombstone.max_t_ms,
        created_ms: tombstone.created_ms,
    }
}

/// What went wrong since the process began and a person should look at, a sentence each.
fn troubles(counts: &DbCounts) -> Vec<String> {
    let known = [
        (counts.lost_samples, "samples on the local disk could not be read again and are lost"),
        (
            counts.log_orphaned_samples,
            "samples of the log are lost: the definition of their series was damaged",
        ),
        (
            counts.log_damaged_bytes,
            "bytes of the log were damaged at the start and are kept in a file beside it",
        ),
        (counts.missing_objects, "files that the catalogs name are not whole in the object store"),
        (counts.missing_segments, "segments of the log were missing at the start"),
        (counts.damaged_local_blocks, "blocks on the local disk were damaged or gone at the start"),
        (
            counts.flush_failures,
            "flushes to the object store failed; what they held stays here and is tried again",
        ),
        (counts.log_failures, "times the log could not be written; such writes were refused"),
    ];
    known.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect()
}

#[cfg(test)]
mod tests {
    use model::matcher::{MatchOp, Matcher};

    use super::*;

    #[test]
    fn deletion_reads_as_a_selector() {
        let matchers = vec![
            Matcher::new(MatchOp::Equal, "job", "a\"b").unwrap(),
            Matcher::new(MatchOp::Regex, "env", "dev.*").unwrap(),
        ];
        let shown = deletion(&Tombstone::new(matchers, 1, 2, 3));
        assert_eq!(shown.selector, r#"{job="a\"b",env=~"dev.*"}"#);
        assert_eq!((shown.min_t_ms, shown.max_t_ms, shown.created_ms), (1, 2, 3));
    }

    #[test]
    fn troubles_are_told_only_where_there_are_any() {
        assert!(troubles(&DbCounts::default()).is_empty());
        let told = troubles(&DbCounts { lost_samples: 4, ..DbCounts::default() });
        assert_eq!(told, ["4 samples on the local disk could not be read again and are lost"]);
    }
}
