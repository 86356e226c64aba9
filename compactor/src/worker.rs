//! The work that never ends: tenant after tenant, what has expired goes, what is planned is done, what nobody
//! needs is deleted.
//!
//! Any number of these may run over one bucket. They claim jobs by lease, so that they rarely do the same
//! thing; that they never do harm when they do is the catalog's business.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use model::tenant::TenantId;
use parking_lot::Mutex;
use tsdb::block::{BlockError, BlockMeta};
use tsdb::bucket::BlockStore;
use tsdb::bucket::maintenance::BucketMaintenance;
use tsdb::catalog::lease::Leases;
use tsdb::catalog::{Catalog, CatalogError, Edit, Quarantine, Snapshot};
use ulid::Ulid;

use crate::garbage::{GarbageError, Piece, find};
use crate::job::input::ReadError;
use crate::job::rewrite_candidates::{Remembered, look_through};
use crate::job::{Done, JobError, JobRunner};
use crate::metrics::Metrics;
use crate::plan::{BlockStates, Job, Plan, forced, plan};
use crate::retention::changes;
use crate::settings::{Settings, millis};

/// Runs that are remembered for people to look at.
const REMEMBERED_RUNS: usize = 50;
/// Jobs of one tenant before the next tenant's turn.
const JOBS_PER_TURN: usize = 8;
/// Seconds that a cleaning waits for others to finish with the same blocks.
const CLEAN_PATIENCE: u64 = 600;
/// The lease under which garbage is looked for.
const GARBAGE_LEASE: &str = "garbage";

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
    /// What came of it, or why nothing did.
    pub result: Result<JobTotals, String>,
}

/// What came of a job.
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

/// See the module. Share it behind an `Arc`.
pub struct Compactor {
    runner: JobRunner,
    _scratch: OwnScratch,
    metrics: Metrics,
    state: tokio::sync::Mutex<State>,
    runs: Mutex<VecDeque<JobReport>>,
    /// Quarantined blocks by tenant, as last seen.
    quarantined: Mutex<HashMap<TenantId, usize>>,
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

/// What happened to one job of a turn.
enum Outcome {
    Done,
    /// Another has the lease.
    Taken,
    /// Another was first, or a block was put aside: plan again.
    Stale,
    Failed(String),
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
            runner,
            _scratch: scratch,
            metrics,
            state: tokio::sync::Mutex::default(),
            runs: Mutex::default(),
            quarantined: Mutex::default(),
            newest_data_ms: AtomicI64::new(i64::MIN),
            urgent: AtomicUsize::new(0),
        })
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
        if round.errors.is_empty() {
            self.metrics.last_round_seconds.set(self.now_ms() as f64 / 1000.0);
        } else {
            self.metrics.round_failures.inc();
            round.errors.iter().for_each(|e| tracing::warn!("compaction: {e}"));
        }
        round
    }

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
            settings.raw_retention_ms = self.runner.settings.keep.of(tenant, 0);
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
        let changes = changes(&snapshot, tenant, &settings.keep, resolutions, now_ms, clock_ms, delay_ms);
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

    async fn turn(&self, of: &mut Tenant, round: &mut Round) -> Result<Turn, CatalogError> {
        let tenant = of.catalog.tenant().clone();
        let leases = self.runner.maintenance.leases(&tenant, &self.runner.writer);
        let mut turn = Turn::default();
        for _ in 0..JOBS_PER_TURN {
            if self.must_end() {
                return Ok(turn);
            }
            let snapshot = of.catalog.refresh().await?;
            let planned = self.plan(of, &snapshot).await?;
            turn = Turn { more: false, left: planned.jobs.len() as u64 };
            let mut worked = false;
            for job in &planned.jobs {
                let name = job.name();
                let now_ms = self.now_ms();
                if of.failed.get(&name).is_some_and(|(_, until_ms)| now_ms < *until_ms) {
                    continue;
                }
                match self.attempt(of, &snapshot, &leases, job).await {
                    Outcome::Taken => continue,
                    Outcome::Done => {
                        of.failed.remove(&name);
                        round.jobs += 1;
                    }
                    Outcome::Stale => {}
                    Outcome::Failed(why) => {
                        let tries = of.failed.get(&name).map_or(0, |(n, _)| *n) + 1;
                        let pause_ms = 30_000i64 << tries.min(7);
                        of.failed.insert(name, (tries, self.now_ms().saturating_add(pause_ms)));
                        round.errors.push(format!(
                            "tenant {tenant}: a job of {} blocks failed: {why}",
                            job.inputs.len()
                        ));
                    }
                }
                worked = true;
                break;
            }
            if !worked {
                return Ok(turn);
            }
        }
        turn.more = true;
        Ok(turn)
    }

    /// Plans from a snapshot; first tells the catalog which blocks are clean of deletions.
    async fn plan(&self, of: &Tenant, snapshot: &Arc<Snapshot>) -> Result<Plan, CatalogError> {
        let states = self.states(of, snapshot).await?;
        let mut settings = self.runner.settings.plan.clone();
        settings.raw_retention_ms = self.runner.settings.keep.of(of.catalog.tenant(), 0);
        Ok(plan(&snapshot.blocks, &states, &settings, self.now_ms()))
    }

    async fn states(&self, of: &Tenant, snapshot: &Arc<Snapshot>) -> Result<BlockStates, CatalogError> {
        let (runner, tenant, known) =
            (self.runner.clone(), of.catalog.tenant().clone(), of.remembered.clone());
        // What rules of retention say is out of date is rewritten without it.
        let (snapshot, now_ms) = (snapshot.clone(), self.retention_now_ms().await?);
        let looked = tokio::task::spawn_blocking(move || {
            let rules = Arc::new(runner.settings.keep.rules_of(&tenant));
            let read = runner.read_options();
            look_through(&snapshot, &rules, &mut known.lock(), &runner.store, &tenant, &read, now_ms)
        });
        let (states, edit) = looked.await.map_err(|e| CatalogError::because(e.to_string(), e))?;
        if !edit.clean.is_empty() {
            of.catalog.commit(&edit).await?;
        }
        Ok(states)
    }

    /// Claims a job and does it.
    async fn attempt(&self, of: &mut Tenant, snapshot: &Snapshot, leases: &Leases, job: &Job) -> Outcome {
        let length = self.runner.settings.lease;
        let lease = match leases.take(&job.name(), length).await {
            Ok(Some(lease)) => lease,
            Ok(None) => return Outcome::Taken,
            Err(e) => return Outcome::Failed(e.to_string()),
        };
        // Whoever had the lease before may have done it.
        match of.catalog.refresh().await {
            Ok(now) if job.inputs.iter().all(|b| now.blocks.iter().any(|live| live.ulid == b.ulid)) => {}
            Ok(_) => {
                leases.give_back(lease).await;
                return Outcome::Stale;
            }
            Err(e) => {
                leases.give_back(lease).await;
                return Outcome::Failed(e.to_string());
            }
        }
        let began_ms = self.now_ms();
        let kept_at_ms = match self.retention_now_ms().await {
            Ok(now_ms) => now_ms,
            Err(e) => {
                leases.give_back(lease).await;
                return Outcome::Failed(e.to_string());
            }
        };
        let rules = Arc::new(self.runner.settings.keep.rules_of(of.catalog.tenant()));
        let visibility = snapshot.visibility().with_retention(rules, kept_at_ms);
        let catalog = of.catalog.clone();
        let work = self.runner.run(&catalog, snapshot, visibility, job);
        tokio::pin!(work);
        let mut lease = Some(lease);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                () = tokio::time::sleep(length / 3) => {
                    if let Some(held) = &lease {
                        match leases.renew(held, length).await {
                            Ok(Some(renewed)) => lease = Some(renewed),
                            // Another works on it too now: whoever commits first wins.
                            Ok(None) => lease = None,
                            Err(e) => tracing::debug!("a lease could not be renewed: {e}"),
                        }
                    }
                }
            }
        };
        let outcome = self.conclude(of, job, began_ms, result).await;
        if let Some(lease) = lease {
            leases.give_back(lease).await;
        }
        outcome
    }

    async fn conclude(
        &self,
        of: &mut Tenant,
        job: &Job,
        began_ms: i64,
        result: Result<Done, JobError>,
    ) -> Outcome {
        let tenant = of.catalog.tenant().clone();
        let why = job.kind.as_str();
        let took_ms = self.now_ms().saturating_sub(began_ms);
        let remember = |result| {
            let mut runs = self.runs.lock();
            runs.push_front(JobReport {
                tenant: tenant.clone(),
                ended_ms: began_ms.saturating_add(took_ms),
                took_ms,
                why,
                start_ms: job.span.start_ms,
                end_ms: job.span.end_ms,
                inputs: job.inputs.len() as u64,
                result,
            });
            runs.truncate(REMEMBERED_RUNS);
        };
        match result {
            Ok(done) => {
                self.count(job, &done, took_ms);
                remember(Ok(JobTotals {
                    outputs: done.outputs.len() as u64,
                    samples_read: done.counts.read,
                    samples_written: done.counts.merged,
                    read_bytes: done.read_bytes,
                    written_bytes: done.written_bytes,
                    peak_memory_bytes: done.peak_bytes,
                }));
                tracing::info!(
                    %tenant, why, inputs = job.inputs.len(), outputs = done.outputs.len(),
                    samples_read = done.counts.read, samples_written = done.counts.merged,
                    duplicates = done.counts.duplicates, replicas = done.counts.replicas, hidden = done.counts.hidden,
                    series_read = done.counts.series_read, series_written = done.counts.series_merged,
                    read_bytes = done.read_bytes, written_bytes = done.written_bytes,
                    peak_memory_bytes = done.peak_bytes, took_ms, "blocks compacted"
                );
                Outcome::Done
            }
            Err(JobError::Lost(e)) => {
                self.metrics.job(why, "lost");
                tracing::debug!(%tenant, why, "another was first: {e}");
                Outcome::Stale
            }
            Err(JobError::Stopped) => Outcome::Stale,
            Err(JobError::Read(e)) => {
                self.metrics.job(why, "failed");
                remember(Err(e.to_string()));
                match self.examine(of, job, &e).await {
                    Ok(true) => Outcome::Stale,
                    Ok(false) => Outcome::Failed(e.to_string()),
                    Err(more) => Outcome::Failed(format!("{e}; {more}")),
                }
            }
            Err(e) => {
                self.metrics.job(why, "failed");
                remember(Err(e.to_string()));
                Outcome::Failed(e.to_string())
            }
        }
    }

    fn count(&self, job: &Job, done: &Done, took_ms: i64) {
        let m = &self.metrics;
        m.job(job.kind.as_str(), "done");
        m.job_seconds.observe(took_ms as f64 / 1000.0);
        m.samples_read.inc_by(done.counts.read);
        m.samples_written.inc_by(done.counts.merged);
        m.dropped("duplicate", done.counts.duplicates);
        m.dropped("replica", done.counts.replicas);
        m.dropped("hidden", done.counts.hidden);
        m.replica_series.inc_by(done.counts.replica_series);
        m.replica_series_merged.inc_by(done.counts.replica_series_merged);
        m.read_bytes.inc_by(done.read_bytes);
        m.written_bytes.inc_by(done.written_bytes);
        m.peak_memory_bytes.set(i64::try_from(done.peak_bytes).unwrap_or(i64::MAX));
    }

    /// Looks whether a block that could not be read is damaged where it lies; if so it is put aside for
    /// everybody.
    async fn examine(&self, of: &mut Tenant, job: &Job, e: &ReadError) -> Result<bool, CatalogError> {
        let Some(block) = job.inputs.iter().find(|b| b.ulid == e.block) else { return Ok(false) };
        let tenant = of.catalog.tenant().clone();
        let reason = match self.runner.maintenance.verify(&tenant, block).await {
            Err(BlockError::Corrupt { object, what }) => format!("{object} is damaged: {what}"),
            Err(_) => return Ok(false),
            // Its bytes are as they were written, and yet: once may be chance.
            Ok(()) => {
                let times = of.undecodable.entry(block.ulid).or_insert(0);
                *times += 1;
                if *times < 2 {
                    return Ok(false);
                }
                format!("its bytes are as they were written, but they cannot be decoded: {}", e.error)
            }
        };
        tracing::error!(%tenant, block = %block.ulid, "quarantined, compaction leaves it alone from here on: {reason}");
        let mark = Quarantine { reason, since_ms: self.now_ms(), found_by: self.runner.writer.clone() };
        let edit = Edit { quarantine: vec![(block.ulid, mark)], ..Edit::default() };
        let seen = of.catalog.commit(&edit).await?;
        self.quarantined.lock().insert(tenant, seen.quarantined.len());
        Ok(true)
    }

    /// Deletes objects that nobody needs, when it is time for that and nobody else does it.
    async fn clean_up(&self, of: &mut Tenant) -> Result<u64, GarbageError> {
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

#[derive(Default)]
struct Turn {
    /// There may be more to do at once.
    more: bool,
    left: u64,
}

/// A folder of this process' own below the scratch folder, with a locked file beside it for as long as it is
/// in use.
struct OwnScratch {
    folder: PathBuf,
    lock: PathBuf,
    _locked: File,
}

impl OwnScratch {
    /// Makes it, and removes those of processes that are gone.
    fn make(dir: &Path) -> std::io::Result<OwnScratch> {
        std::fs::create_dir_all(dir)?;
        for entry in std::fs::read_dir(dir)? {
            let folder = entry?.path();
            if !folder.is_dir() {
                continue;
            }
            let lock = folder.with_extension("lock");
            let in_use = File::open(&lock).is_ok_and(|f| f.try_lock().is_err());
            if !in_use {
                std::fs::remove_dir_all(&folder)?;
                // Its folder is what matters; without one it says nothing.
                let _ = std::fs::remove_file(&lock);
            }
        }
        let name = Ulid::new().to_string();
        let lock = dir.join(format!("{name}.lock"));
        // Locked before there is a folder, so that nobody finds one without.
        let locked = File::create(&lock)?;
        locked.try_lock().map_err(|e| std::io::Error::other(e.to_string()))?;
        let folder = dir.join(name);
        std::fs::create_dir(&folder)?;
        Ok(OwnScratch { folder, lock, _locked: locked })
    }
}

impl Drop for OwnScratch {
    fn drop(&mut self) {
        // What stays is removed by the next process.
        let _ = std::fs::remove_dir_all(&self.folder);
        let _ = std::fs::remove_file(&self.lock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_of_the_dead_goes_and_that_of_the_living_stays() {
        let dir = tempfile::tempdir().unwrap();
        let alive = OwnScratch::make(dir.path()).unwrap();
        std::fs::write(alive.folder.join("block"), "x").unwrap();
        let dead = dir.path().join("01J0000000000000000000DEAD");
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.with_extension("lock"), "").unwrap();
        let other = OwnScratch::make(dir.path()).unwrap();
        assert!(!dead.exists() && alive.folder.join("block").exists() && other.folder.exists());
        drop(alive);
        drop(other);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
