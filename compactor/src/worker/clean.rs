//! What leaves the store: deleted samples when somebody asks for it, and objects that nobody needs.

use std::sync::atomic::Ordering;

use model::tenant::TenantId;
use tsdb::block::BlockMeta;
use tsdb::bucket::presence;
use tsdb::catalog::{Edit, Quarantine};

use super::turn::Outcome;
use super::{Compactor, Round, Tenant, Urgent};
use crate::garbage::{GarbageError, Piece, find};
use crate::plan::forced;
use crate::settings::millis;

/// Seconds that a cleaning waits for others to finish with the same blocks.
const CLEAN_PATIENCE: u64 = 600;
/// How far this machine's clock and the store's may be apart where an object's age is only a hint.
const CLOCKS_APART_MS: i64 = 600_000;
/// The lease under which garbage is looked for.
const GARBAGE_LEASE: &str = "garbage";

impl Compactor {
    /// Rewrites a tenant's raw blocks that hold deleted samples without them, one after the other; returns
    /// how many. A round that is running ends after its job and goes on with the next interval.
    pub async fn clean_tombstones(&self, tenant: &TenantId) -> Result<u64, String> {
        let mut state = {
            let _waits = Urgent::new(&self.urgent);
            self.state.lock().await
        };
        let mut round = Round::default();
        self.begin(&mut state, tenant, &mut round).await.map_err(|e| e.to_string())?;
        let of = state.tenants.get_mut(tenant).expect("it was opened");
        let leases = self.runner.maintenance.leases(tenant, &self.runner.writer);
        let mut rewritten = 0;
        let mut waited = 0;
        loop {
            let snapshot = of.catalog.refresh().await.map_err(|e| e.to_string())?;
            let states = self.states(of, &snapshot).await.map_err(|e| e.to_string())?;
            let visibility = snapshot.visibility();
            let dirty = |b: &BlockMeta| {
                states.rewrite_candidates.contains(&b.ulid) && !visibility.tombstones_of(b).is_empty()
            };
            let mut settings = self.runner.settings.plan.clone();
            settings.raw_retention_ms = self.keep().of(tenant, 0);
            let Some(job) = forced(&snapshot.blocks, &states, &settings, self.now_ms(), dirty)? else {
                return Ok(rewritten);
            };
            match self.attempt(of, &snapshot, &leases, &job).await {
                Outcome::Done => (rewritten, waited) = (rewritten + job.inputs.len() as u64, 0),
                Outcome::Failed(why) => return Err(why),
                Outcome::Taken | Outcome::Stale => {
                    if self.runner.stop.load(Ordering::Relaxed) {
                        return Err("the process is stopping".to_string());
                    }
                    waited += 1;
                    if waited > CLEAN_PATIENCE {
                        return Err(
                            "another compactor has been at work on the same blocks for minutes".to_string()
                        );
                    }
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Compares the catalog with what is in the store: blocks whose files are gone are put aside for
    /// everybody, and those that were put aside and have been written since are taken back if they are whole.
    async fn compare_with_store(&self, of: &Tenant, tenant: &TenantId) -> Result<(), GarbageError> {
        let maintenance = &self.runner.maintenance;
        let missing = maintenance.missing(&of.catalog).await?;
        presence::report(tenant, &missing);
        self.missing.lock().insert(tenant.clone(), missing.len());
        let snapshot = of.catalog.snapshot();
        let mut edit = Edit::default();
        for object in &missing {
            let Some(block) = object.block else { continue };
            let live = snapshot.blocks.iter().any(|b| b.ulid == block);
            let known =
                snapshot.quarantined.contains_key(&block) || edit.quarantine.iter().any(|q| q.0 == block);
            if live && !known {
                let reason = format!("{}: {}", object.object, object.what);
                tracing::error!(%tenant, %block, "quarantined, compaction leaves it alone from here on: {reason}");
                let found_by = self.runner.writer.clone();
                edit.quarantine.push((block, Quarantine { reason, since_ms: self.now_ms(), found_by }));
            }
        }
        for (block, quarantine) in &snapshot.quarantined {
            let Some(meta) = snapshot.blocks.iter().find(|b| b.ulid == *block) else { continue };
            if missing.iter().any(|object| object.block == Some(*block)) {
                continue;
            }
            let written_ms = maintenance.written_ms(tenant, *block).await?;
            let since = quarantine.since_ms.saturating_sub(CLOCKS_APART_MS);
            if written_ms.is_some_and(|ms| ms > since) && maintenance.verify(tenant, meta).await.is_ok() {
                tracing::info!(%tenant, %block, "whole again: no longer quarantined");
                edit.release.push(*block);
            }
        }
        if edit.quarantine.is_empty() && edit.release.is_empty() {
            return Ok(());
        }
        let seen = of.catalog.commit(&edit).await?;
        self.quarantined.lock().insert(tenant.clone(), seen.quarantined.len());
        Ok(())
    }

    /// Deletes objects that nobody needs, when it is time for that and nobody else does it.
    pub(super) async fn clean_up(&self, of: &mut Tenant) -> Result<u64, GarbageError> {
        let settings = &self.runner.settings;
        let now_ms = self.now_ms();
        if now_ms < of.garbage_after_ms {
            return Ok(0);
        }
        of.garbage_after_ms = now_ms.saturating_add(millis(settings.garbage_interval));
        let tenant = of.catalog.tenant().clone();
        let leases = self.runner.maintenance.leases(&tenant, &self.runner.writer);
        let Some(lease) = leases.take(GARBAGE_LEASE, settings.lease).await? else {
            return Ok(0);
        };
        let compared = self.compare_with_store(of, &tenant).await;
        let removed = self.remove_garbage(of, &tenant).await;
        leases.give_back(lease).await;
        compared.and(removed)
    }

    async fn remove_garbage(&self, of: &Tenant, tenant: &TenantId) -> Result<u64, GarbageError> {
        let (maintenance, settings) = (&self.runner.maintenance, &self.runner.settings);
        let now_ms = self.deletion_now_ms().await?;
        let found =
            find(maintenance, &of.catalog, settings.delete_delay, settings.orphan_grace, now_ms).await;
        let mut removed = 0;
        for piece in found? {
            piece.remove(maintenance, tenant).await?;
            let (what, name) = piece.name();
            tracing::debug!(%tenant, what, name, bytes = piece.bytes(), "deleted from the store");
            if let Piece::Block(_) = piece {
                removed += 1;
                self.metrics.garbage_blocks.inc();
            }
            self.metrics.garbage_bytes.inc_by(piece.bytes());
        }
        of.catalog.prune().await;
        maintenance.note_seen(tenant, &of.catalog.snapshot()).await?;
        Ok(removed)
    }
}
