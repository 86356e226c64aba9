//! The work that never ends: tenant after tenant, what has expired goes, what is planned is done, what nobody
//! needs is deleted.
//!
//! Any number of these may run over one bucket. They claim jobs by lease, so that they rarely do the same
//! thing; that they never do harm when they do is the catalog's business.

mod clean;
mod scratch;
mod turn;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use model::tenant::TenantId;
use parking_lot::{Mutex, RwLock};
use tsdb::bucket::BlockStore;
use tsdb::bucket::maintenance::BucketMaintenance;
use tsdb::catalog::{Catalog, CatalogError, Edit};
use ulid::Ulid;

use self::scratch::OwnScratch;
use crate::job::JobRunner;
use crate::job::rewrite_candidates::Remembered;
use crate::metrics::Metrics;
use crate::outlook::Outlook;
use crate::plan::PlanSettings;
use crate::retention::changes;
use crate::settings::{RetentionSettings, Settings, millis};

/// Runs that are remembered for people to look at.
const REMEMBERED_RUNS: usize = 50;

/// A job that was done or failed, for people.
#[derive(Clone, Debug)]
pub struct JobReport {
    pub tenant: TenantId,
    /// When it ended, in milliseconds, and how long it took.
    pub ended_ms: i64,
    pub took_ms: i64,
    pub why: &'static str,
    /// Ends of the span (the first excluded), in milliseconds.
    pub start_ms: i64,
    pub end_ms: i64,
    pub inputs: u64,
    /// What it did, or why it did nothing.
    pub result: Result<JobTotals, String>,
}

/// What a job read and wrote.
#[derive(Clone, Copy, Debug)]
pub struct JobTotals {
    pub outputs: u64,
    pub samples_read: u64,
    pub samples_written: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub peak_memory_bytes: u64,
}

/// What a round over all tenants did.
#[derive(Clone, Debug, Default)]
pub struct Round {
    pub jobs: u64,
    /// Jobs that others hold, or that failed lately and wait.
    pub left: u64,
    pub expired_blocks: u64,
    pub garbage_blocks: u64,
    /// What went wrong, for each thing that did.
    pub errors: Vec<String>,
}

/// The worker of one process. Share it behind an `Arc`.
pub struct Compactor {
    runner: JobRunner,
    /// How long things are kept: at first as the settings say.
    keep: RwLock<Arc<RetentionSettings>>,
    _scratch: OwnScratch,
    metrics: Metrics,
    state: tokio::sync::Mutex<State>,
    runs: Mutex<VecDeque<JobReport>>,
    outlook: Mutex<Outlook>,
    /// Quarantined blocks by tenant, as last seen, and data files that are gone.
    quarantined: Mutex<HashMap<TenantId, usize>>,
    missing: Mutex<HashMap<TenantId, usize>>,
    /// The newest sample of any tenant's that was seen in a block.
    newest_data_ms: AtomicI64,
    /// Callers that wait for a round to end because somebody waits for them.
    urgent: AtomicUsize,
}

#[derive(Default)]
struct State {
    tenants: HashMap<TenantId, Tenant>,
}

struct Tenant {
    catalog: Arc<Catalog>,
    remembered: Arc<Mutex<Remembered>>,
    /// Job → how often it failed, and when it may be tried again.
    failed: HashMap<String, (u32, i64)>,
    /// Blocks that could not be decoded although their bytes are whole, and how often.
    undecodable: HashMap<Ulid, u32>,
    garbage_after_ms: i64,
}

/// Counts a caller that waits, for as long as it does.
struct Urgent<'a>(&'a AtomicUsize);

impl<'a> Urgent<'a> {
    fn new(count: &'a AtomicUsize) -> Urgent<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Urgent(count)
    }
}

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Compactor {
    /// `writer` names this process in catalogs and leases. Call it on a tokio runtime, which it keeps using.
    pub fn new(
        maintenance: BucketMaintenance,
        settings: Settings,
        writer: &str,
        metrics: Metrics,
    ) -> Result<Compactor, String> {
        settings.plan.check()?;
        let scratch = OwnScratch::make(&settings.scratch)
            .map_err(|e| format!("cannot use {} for scratch files: {e}", settings.scratch.display()))?;
        let store: Arc<BlockStore> = maintenance.blocks(settings.cache_bytes());
        let runner = JobRunner {
            maintenance,
            store,
            settings: Arc::new(settings),
            writer: writer.to_string(),
            scratch: scratch.folder.clone(),
            stop: Arc::default(),
        };
        Ok(Compactor {
            keep: RwLock::new(Arc::new(runner.settings.keep.clone())),
            runner,
            _scratch: scratch,
            metrics,
            state: tokio::sync::Mutex::default(),
            runs: Mutex::default(),
            outlook: Mutex::default(),
            quarantined: Mutex::default(),
            missing: Mutex::default(),
            newest_data_ms: AtomicI64::new(i64::MIN),
            urgent: AtomicUsize::new(0),
        })
    }

    /// How long things are kept from the next round on.
    pub fn set_retention(&self, keep: RetentionSettings) {
        *self.keep.write() = Arc::new(keep);
    }

    fn keep(&self) -> Arc<RetentionSettings> {
        self.keep.read().clone()
    }

    /// Makes jobs that run end soon, and no new ones begin.
    pub fn stop(&self) {
        self.runner.stop.store(true, Ordering::Relaxed);
    }

    /// The stop sign, for those who wait for it.
    pub fn stopped(&self) -> &Arc<AtomicBool> {
        &self.runner.stop
    }

    /// The latest jobs, newest first.
    pub fn runs(&self) -> Vec<JobReport> {
        self.runs.lock().iter().cloned().collect()
    }

    /// What is planned and under way.
    pub fn outlook(&self) -> Outlook {
        self.outlook.lock().clone()
    }

    /// What plans go by.
    pub fn plan_settings(&self) -> &PlanSettings {
        &self.runner.settings.plan
    }

    /// Rounds at the interval of the settings, until [`Compactor::stop`]. `changed` is called after rounds
    /// that changed a catalog.
    pub async fn run<F: Future<Output = ()>>(&self, changed: impl Fn() -> F) {
        while !self.runner.stop.load(Ordering::Relaxed) {
            let round = self.round().await;
            if round.jobs + round.expired_blocks > 0 {
                changed().await;
            }
            let until = tokio::time::Instant::now() + self.runner.settings.interval;
            while tokio::time::Instant::now() < until && !self.runner.stop.load(Ordering::Relaxed) {
                tokio::time::sleep(std::time::Duration::from_millis(200).min(self.runner.settings.interval))
                    .await;
            }
        }
    }

    /// Does for every tenant all there is to do now.
    pub async fn round(&self) -> Round {
        let mut state = self.state.lock().await;
        let mut round = Round::default();
        let tenants = match self.runner.maintenance.tenants().await {
            Ok(tenants) => tenants,
            Err(e) => {
                round.errors.push(e.to_string());
                Vec::new()
            }
        };
        state.tenants.retain(|t, _| tenants.contains(t));
        self.outlook.lock().planned.retain(|t, _| tenants.contains(t));
        let mut open: Vec<TenantId> = Vec::new();
        for tenant in tenants {
            match self.begin(&mut state, &tenant, &mut round).await {
                Ok(()) => open.push(tenant),
                Err(e) => round.errors.push(format!("tenant {tenant}: {e}")),
            }
        }
        let mut pending = 0;
        while !open.is_empty() && !self.must_end() {
            for tenant in std::mem::take(&mut open) {
                let of = state.tenants.get_mut(&tenant).expect("it was opened");
                match self.turn(of, &mut round).await {
                    Ok(turn) if turn.more => open.push(tenant),
                    Ok(turn) => pending += turn.left,
                    Err(e) => round.errors.push(format!("tenant {tenant}: {e}")),
                }
            }
        }
        for (tenant, of) in &mut state.tenants {
            if !self.runner.stop.load(Ordering::Relaxed) {
                match self.clean_up(of).await {
                    Ok(removed) => round.garbage_blocks += removed,
                    Err(e) => round.errors.push(format!("tenant {tenant}: {e}")),
                }
            }
        }
        round.left = pending;
        self.metrics.pending_jobs.set(i64::try_from(pending).unwrap_or(i64::MAX));
        let quarantined: usize = self.quarantined.lock().values().sum();
        self.metrics.quarantined_blocks.set(i64::try_from(quarantined).unwrap_or(i64::MAX));
        let missing: usize = self.missing.lock().values().sum();
        self.metrics.missing_objects.set(i64::try_from(missing).unwrap_or(i64::MAX));
        self.outlook.lock().last_round = Some((self.now_ms(), round.errors.clone()));
        if round.errors.is_empty() {
            self.metrics.last_round_seconds.set(self.now_ms() as f64 / 1000.0);
        } else {
            self.metrics.round_failures.inc();
            round.errors.iter().for_each(|e| tracing::warn!("compaction: {e}"));
        }
        round
    }

    /// Whether a round should not begin anything more.
    fn must_end(&self) -> bool {
        self.runner.stop.load(Ordering::Relaxed) || self.urgent.load(Ordering::Relaxed) > 0
    }

    fn now_ms(&self) -> i64 {
        self.runner.maintenance.clock().now_ms()
    }

    /// Opens a tenant's catalog where that has not been done, and takes out what has expired.
    async fn begin(
        &self,
        state: &mut State,
        tenant: &TenantId,
        round: &mut Round,
    ) -> Result<(), CatalogError> {
        if !state.tenants.contains_key(tenant) {
            let catalog = Arc::new(self.runner.maintenance.catalog(tenant, &self.runner.writer).await?);
            // On a catalog that lost its newest snapshots nothing is done, or they could not be restored.
            self.runner.maintenance.check_seen(&catalog).await?;
            state.tenants.insert(
                tenant.clone(),
                Tenant {
                    catalog,
                    remembered: Arc::default(),
                    failed: HashMap::new(),
                    undecodable: HashMap::new(),
                    garbage_after_ms: i64::MIN,
                },
            );
        }
        let catalog = state.tenants[tenant].catalog.clone();
        let snapshot = catalog.refresh().await?;
        let settings = &self.runner.settings;
        self.quarantined.lock().insert(tenant.clone(), snapshot.quarantined.len());
        let newest = snapshot.blocks.iter().map(|b| b.max_t_ms).max().unwrap_or(i64::MIN);
        self.newest_data_ms.fetch_max(newest, Ordering::Relaxed);
        let (now_ms, clock_ms) = (self.retention_now_ms().await?, self.clock_ms().await?);
        let delay_ms = millis(settings.expired_delay);
        let resolutions = &settings.plan.resolutions_ms;
        let changes = changes(&snapshot, tenant, &self.keep(), resolutions, now_ms, clock_ms, delay_ms);
        if changes.is_empty() {
            return Ok(());
        }
        let (gone, back) = (changes.expire.len() as u64, changes.restore.len());
        let given_up = changes.give_up.len();
        let mut edit = Edit { restore: changes.restore, give_up: changes.give_up, ..Edit::default() };
        match delay_ms {
            0 => edit.remove = changes.expire,
            _ => edit.expire = changes.expire.into_iter().map(|block| (block, now_ms)).collect(),
        }
        match catalog.commit(&edit).await {
            Ok(_) => {
                if gone > 0 {
                    tracing::info!(
                        %tenant, blocks = gone, keep_s = delay_ms / 1000,
                        "blocks past their retention taken out of the catalog; for so long they come back if the retention is raised"
                    );
                }
                if back > 0 {
                    tracing::warn!(
                        %tenant, blocks = back,
                        "blocks that retention had taken out are back: the clock went back, or the retention was raised"
                    );
                }
                if given_up > 0 {
                    tracing::info!(%tenant, blocks = given_up, "blocks that retention took out are given up");
                }
                round.expired_blocks += gone;
                self.metrics.expired_blocks.inc_by(gone);
                Ok(())
            }
            // Another did it; what is left comes up again.
            Err(CatalogError::Conflict(_)) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// The hour by which retention decides what goes: a clock that is far ahead of all data and of the object
    /// store's own is not believed.
    async fn retention_now_ms(&self) -> Result<i64, CatalogError> {
        let clock_ms = self.clock_ms().await?;
        let newest_ms = self.newest_data_ms.load(Ordering::Relaxed);
        let lead = self.runner.settings.max_clock_lead.map(millis);
        Ok(lead.map_or(clock_ms, |lead| clock_ms.min(newest_ms.saturating_add(lead))))
    }

    /// This machine's clock, as far as the object store's own agrees.
    async fn clock_ms(&self) -> Result<i64, CatalogError> {
        let now_ms = self.now_ms();
        let Some(lead) = self.runner.settings.max_clock_lead else { return Ok(now_ms) };
        let most_ms = self.deletion_now_ms().await?.saturating_add(millis(lead));
        if now_ms > most_ms {
            tracing::warn!(
                ahead_s = (now_ms - most_ms) / 1000,
                "this machine's clock is far ahead of the object store's: retention goes by the store's"
            );
        }
        Ok(now_ms.min(most_ms))
    }

    /// The hour by which it is decided which objects are too old to be under way.
    async fn deletion_now_ms(&self) -> Result<i64, CatalogError> {
        match self.runner.settings.max_clock_lead {
            None => Ok(self.now_ms()),
            Some(_) => {
                let now_ms = self.runner.maintenance.cautious_now_ms().await;
                now_ms.map_err(|e| CatalogError::store("cannot read the object store's clock", e))
            }
        }
    }
}
