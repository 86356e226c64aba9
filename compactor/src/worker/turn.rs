//! One tenant's turn: jobs are planned, claimed and done, and their results written down.

use std::sync::Arc;

use tracing::Instrument;
use tracing::field::Empty;
use tsdb::block::BlockError;
use tsdb::catalog::lease::Leases;
use tsdb::catalog::{CatalogError, Edit, Quarantine, Snapshot};

use super::{Compactor, JobReport, JobTotals, REMEMBERED_RUNS, Round, Tenant};
use crate::job::input::ReadError;
use crate::job::rewrite_candidates::look_through;
use crate::job::{Done, JobError};
use crate::outlook::JobOutlook;
use crate::plan::{BlockStates, Job, Plan, plan};

/// Jobs of one tenant before the next tenant's turn.
const JOBS_PER_TURN: usize = 8;

/// What happened to one job of a turn.
pub(super) enum Outcome {
    Done,
    /// Another has the lease.
    Taken,
    /// Another was first, or a block was put aside: plan again.
    Stale,
    Failed(String),
}

#[derive(Default)]
pub(super) struct Turn {
    /// There may be more to do at once.
    pub more: bool,
    pub left: u64,
}

impl Compactor {
    pub(super) async fn turn(&self, of: &mut Tenant, round: &mut Round) -> Result<Turn, CatalogError> {
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
            self.note_plan(of, &planned);
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

    /// For people to look at.
    fn note_plan(&self, of: &Tenant, planned: &Plan) {
        let (tenant, now_ms) = (of.catalog.tenant(), self.now_ms());
        let waits_until = |job: &Job| {
            of.failed.get(&job.name()).map(|(_, until_ms)| *until_ms).filter(|until| now_ms < *until)
        };
        let jobs = planned.jobs.iter().map(|job| JobOutlook::of(tenant, job, waits_until(job)));
        self.outlook.lock().plan(tenant, jobs);
    }

    /// Plans from a snapshot; first tells the catalog which blocks are clean of deletions.
    async fn plan(&self, of: &Tenant, snapshot: &Arc<Snapshot>) -> Result<Plan, CatalogError> {
        let states = self.states(of, snapshot).await?;
        let mut settings = self.runner.settings.plan.clone();
        settings.raw_retention_ms = self.keep().of(of.catalog.tenant(), 0);
        Ok(plan(&snapshot.blocks, &states, &settings, self.now_ms()))
    }

    pub(super) async fn states(
        &self,
        of: &Tenant,
        snapshot: &Arc<Snapshot>,
    ) -> Result<BlockStates, CatalogError> {
        let (runner, tenant, known) =
            (self.runner.clone(), of.catalog.tenant().clone(), of.remembered.clone());
        // What rules of retention say is out of date is rewritten without it.
        let (snapshot, now_ms) = (snapshot.clone(), self.retention_now_ms().await?);
        let keep = self.keep();
        let looked = tokio::task::spawn_blocking(move || {
            let rules = Arc::new(keep.rules_of(&tenant));
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
    pub(super) async fn attempt(
        &self,
        of: &mut Tenant,
        snapshot: &Snapshot,
        leases: &Leases,
        job: &Job,
    ) -> Outcome {
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
        let rules = Arc::new(self.keep().rules_of(of.catalog.tenant()));
        let visibility = snapshot.visibility().with_retention(rules, kept_at_ms);
        let catalog = of.catalog.clone();
        self.outlook.lock().working = Some((JobOutlook::of(catalog.tenant(), job, None), began_ms));
        let span = tracing::debug_span!(
            "compact", tenant = %catalog.tenant(), why = job.kind.as_str(), inputs = job.inputs.len(),
            outputs = Empty, samples_read = Empty, samples_written = Empty, error = Empty
        );
        let work = self.runner.run(&catalog, snapshot, visibility, job).instrument(span.clone());
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
        self.outlook.lock().working = None;
        match &result {
            Ok(done) => {
                span.record("outputs", done.outputs.len()).record("samples_read", done.counts.read);
                span.record("samples_written", done.counts.merged);
            }
            Err(e) => _ = span.record("error", e.to_string()),
        }
        drop(span);
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
            // Quarantined blocks do not wait to be downsampled before they expire, so a store that fails
            // twice must not look like a block that cannot be decoded.
            Err(_) => return Ok(false),
            Ok(()) if e.is_of_the_store() => return Ok(false),
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
}
