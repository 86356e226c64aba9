//! What leaves the store: deleted samples when somebody asks for it, and objects that nobody needs.

use std::sync::atomic::Ordering;

use model::tenant::TenantId;
use tsdb::block::BlockMeta;

use super::turn::Outcome;
use super::{Compactor, Round, Tenant, Urgent};
use crate::garbage::{GarbageError, Piece, find};
use crate::plan::forced;
use crate::settings::millis;

/// Seconds that a cleaning waits for others to finish with the same blocks.
const CLEAN_PATIENCE: u64 = 600;
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
        let removed = self.remove_garbage(of, &tenant).await;
        leases.give_back(lease).await;
        removed
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
        Ok(removed)
    }
}
