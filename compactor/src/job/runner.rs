//! A job carried out: read, merge, write, upload, read back, output after output, and one commit that puts
//! them all in the place of the inputs.
//!
//! Whatever fails or ends before the commit leaves the catalog as it was, and objects that no snapshot names.
//! Whoever else did the same work meanwhile wins: the commit demands that all inputs are still live.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use model::span::Span;
use model::tenant::TenantId;
use tsdb::Cause;
use tsdb::block::{BlockError, BlockFiles, BlockMeta, BlockReader, ReadOptions};
use tsdb::bucket::BlockStore;
use tsdb::bucket::maintenance::BucketMaintenance;
use tsdb::catalog::{Catalog, CatalogError, Edit, Snapshot};
use tsdb::deletion::Visibility;
use ulid::Ulid;

use super::input::{Inputs, PeakMemory, ReadError};
use super::merge::Counts;
use super::replicas;
use super::verify::read_back;
use super::write::{Lineage, MergeWriter, OutputOptions, WriteError};
use crate::plan::{Job, sources_of, writers_of};
use crate::settings::Settings;

/// Why a job was not done. Nothing was replaced, but see [`JobError::Unclear`].
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// An input could not be read.
    #[error("cannot read {0}")]
    Read(ReadError),
    /// The scratch disk, or a fault of Hearth's own.
    #[error("{0}")]
    Write(WriteError),
    /// The object store failed.
    #[error("{what}: {cause}")]
    Store {
        what: String,
        #[source]
        cause: Cause,
    },
    /// The commit failed and whether it was made is unknown: the next look at the catalog tells.
    #[error("cannot commit: {0}")]
    Unclear(#[source] CatalogError),
    /// What was read back is not what was written.
    #[error("block {block} does not read back as it was written: {what}")]
    Differs { block: Ulid, what: String },
    /// Others replaced an input first.
    #[error("{0}")]
    Lost(String),
    /// The process is stopping.
    #[error("stopped")]
    Stopped,
}

impl JobError {
    /// `what` failed with `cause`.
    pub(crate) fn store(
        what: impl Into<String>,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> JobError {
        JobError::Store { what: what.into(), cause: Arc::new(cause) }
    }
}

impl From<ReadError> for JobError {
    fn from(e: ReadError) -> JobError {
        JobError::Read(e)
    }
}

impl From<WriteError> for JobError {
    fn from(e: WriteError) -> JobError {
        match e {
            WriteError::Read(read) => JobError::Read(read),
            WriteError::Stopped => JobError::Stopped,
            other => JobError::Write(other),
        }
    }
}

/// What a job did.
#[derive(Clone, Debug, Default)]
pub struct Done {
    pub outputs: Vec<BlockMeta>,
    pub counts: Counts,
    /// Size of the inputs and of all outputs.
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// The most memory that was held, by its own account.
    pub peak_bytes: u64,
}

/// Where jobs are done. Cheap to clone.
#[derive(Clone)]
pub struct JobRunner {
    pub maintenance: BucketMaintenance,
    pub store: Arc<BlockStore>,
    pub settings: Arc<Settings>,
    /// Name in the metadata of what is written.
    pub writer: String,
    /// Folder for blocks that are being written.
    pub scratch: PathBuf,
    /// Set when the process stops.
    pub stop: Arc<AtomicBool>,
}

impl JobRunner {
    /// How blocks are read here.
    pub fn read_options(&self) -> ReadOptions {
        ReadOptions { attempts: self.settings.attempts, pause: self.settings.pause, ..ReadOptions::default() }
    }

    /// Does a job that was planned from `snapshot`, reading through `visibility`.
    pub async fn run(
        &self,
        catalog: &Catalog,
        snapshot: &Snapshot,
        visibility: Visibility,
        job: &Job,
    ) -> Result<Done, JobError> {
        let tenant = catalog.tenant().clone();
        let peak_memory = Arc::new(PeakMemory::default());
        let mut done = Done { read_bytes: job.bytes(), ..Done::default() };
        let result = self.make(&tenant, snapshot, &visibility, job, &peak_memory, &mut done).await;
        let committed = match result {
            Ok(()) => self.commit(catalog, snapshot, job, &done).await,
            Err(e) => Err(e),
        };
        done.peak_bytes = peak_memory.peak_bytes();
        match committed {
            Ok(()) => Ok(done),
            Err(e) => {
                // Where it is unknown whether the commit was made, nothing may be touched; what was not is
                // found as garbage later.
                if !matches!(e, JobError::Unclear(_)) {
                    self.clear_away(&tenant, &done.outputs).await;
                }
                Err(e)
            }
        }
    }

    /// Writes and uploads all outputs.
    async fn make(
        &self,
        tenant: &TenantId,
        snapshot: &Snapshot,
        visibility: &Visibility,
        job: &Job,
        peak_memory: &Arc<PeakMemory>,
        done: &mut Done,
    ) -> Result<(), JobError> {
        let (sources, source_spans_ms) = self.sources_of_inputs(&job.inputs, visibility);
        let lineage = Lineage {
            writer: self.writer.clone(),
            writers: writers_of(&job.inputs),
            resolution_ms: job.resolution_ms,
            level: 1 + job.inputs.iter().map(|b| b.level).max().unwrap_or(0),
            sources,
            source_spans_ms,
            approximate: job.inputs.iter().any(|b| b.approximate),
            external_labels: common_labels(&job.inputs),
        };
        for span in spans(job) {
            let output = OutputOptions {
                settings: self.settings.clone(),
                scratch: self.scratch.clone(),
                tenant: tenant.clone(),
                lineage: lineage.clone(),
                resolutions_ms: if job.downsample {
                    self.settings.plan.resolutions_ms.clone()
                } else {
                    Vec::new()
                },
                peak_memory: peak_memory.clone(),
                stop: self.stop.clone(),
            };
            let mut pass = self.begin(output, snapshot, visibility, job, span).await?;
            loop {
                let work = move || -> Result<_, WriteError> {
                    let written = pass.next_share()?;
                    Ok((pass, written))
                };
                let (after, written) = merging(work).await?;
                pass = after;
                let Some(written) = written else { break };
                // Each is gone from the scratch disk before the next begins.
                for files in std::iter::once(written.merged).chain(written.downsampled) {
                    self.upload(tenant, &files, written.digest, done).await?;
                }
            }
            done.counts.add(&pass.finish()?);
        }
        if done.counts.read != job.samples() {
            let block = job.inputs[0].ulid;
            let what = format!(
                "{} samples were read of its inputs, the catalog says they have {}",
                done.counts.read,
                job.samples()
            );
            return Err(JobError::Differs { block, what });
        }
        Ok(())
    }

    /// Opens what a job has in a span.
    async fn begin(
        &self,
        output: OutputOptions,
        snapshot: &Snapshot,
        visibility: &Visibility,
        job: &Job,
        span: Span,
    ) -> Result<MergeWriter, JobError> {
        let (here, visibility) = (self.clone(), visibility.clone());
        let meets = |b: &&Arc<BlockMeta>| span.meets(b.min_t_ms, b.max_t_ms);
        let blocks: Vec<_> = job.inputs.iter().filter(meets).cloned().collect();
        let of_samples = job.inputs.iter().all(|b| b.resolution_ms == 0);
        let near = replicas::before(span.bounds()).map(|(_, read)| read);
        let before = |b: &&Arc<BlockMeta>| {
            b.resolution_ms == 0
                && !snapshot.quarantined.contains_key(&b.ulid)
                && near.is_some_and(|(from, to)| b.overlaps(from, to))
        };
        let before: Vec<_> = snapshot.blocks.iter().filter(before).cloned().collect();
        merging(move || {
            let tenant = output.tenant.clone();
            let inputs = Inputs {
                store: &here.store,
                tenant: &tenant,
                blocks: &blocks,
                before: &before,
                visibility: &visibility,
                range: span.bounds(),
                memory_bytes: here.settings.input_bytes(),
                read: here.read_options(),
                // Windows of replicas were made one when they were made of samples.
                replica_labels: if of_samples { &here.settings.replica_labels } else { &[] },
            };
            MergeWriter::begin(output, &inputs)
        })
        .await
    }

    /// Uploads one block and looks whether the store has what was written.
    pub(crate) async fn upload(
        &self,
        tenant: &TenantId,
        files: &BlockFiles,
        digest: (u64, u64),
        done: &mut Done,
    ) -> Result<(), JobError> {
        let meta = files.meta.clone();
        // Known as an output before its first object lies there, so that a failure clears it away.
        done.outputs.push(meta.clone());
        done.written_bytes += meta.files.bytes();
        self.maintenance
            .upload(files)
            .await
            .map_err(|e| JobError::store(format!("cannot upload block {}", meta.ulid), e))?;
        if !self.settings.verify {
            return Ok(());
        }
        if meta.resolution_ms != 0 {
            return match self.maintenance.verify(tenant, &meta).await {
                Ok(()) => Ok(()),
                Err(BlockError::Corrupt { object, what }) => {
                    Err(JobError::Differs { block: meta.ulid, what: format!("{object}: {what}") })
                }
                Err(e) => Err(JobError::store(format!("cannot read block {} back", meta.ulid), e)),
            };
        }
        let (here, tenant, ulid) = (self.clone(), tenant.clone(), meta.ulid);
        let read = tokio::task::spawn_blocking(move || {
            let reader = BlockReader::open(
                &here.store,
                &tenant,
                &Arc::new(meta),
                &Visibility::default(),
                here.read_options(),
            )?;
            read_back(reader)
        });
        match read.await.map_err(|e| JobError::store("a thread that reads a block back ended", e))? {
            Ok(found) if found == digest => Ok(()),
            Ok((samples, _)) => Err(JobError::Differs {
                block: ulid,
                what: format!("{samples} samples were found and {} written, or values differ", digest.0),
            }),
            Err(e) => Err(JobError::store(format!("cannot read block {ulid} back"), e)),
        }
    }

    async fn commit(
        &self,
        catalog: &Catalog,
        snapshot: &Snapshot,
        job: &Job,
        done: &Done,
    ) -> Result<(), JobError> {
        let remove = job.inputs.iter().map(|b| b.ulid).chain(job.replaces.iter().copied()).collect();
        let edit = Edit::replace(remove, done.outputs.clone()).written_through(snapshot);
        match catalog.commit(&edit).await {
            Ok(_) => Ok(()),
            Err(CatalogError::Conflict(why)) => Err(JobError::Lost(why)),
            Err(e) => Err(JobError::Unclear(e)),
        }
    }

    /// All sources of a job's inputs, and when each has samples: not where the output will hold less than
    /// they did, so that nobody takes it for the same.
    fn sources_of_inputs(
        &self,
        inputs: &[Arc<BlockMeta>],
        visibility: &Visibility,
    ) -> (Vec<Ulid>, Vec<(i64, i64)>) {
        let all: BTreeMap<Ulid, ()> = inputs.iter().flat_map(|b| sources_of(b)).map(|s| (s, ())).collect();
        // Samples that were merged before meet others now.
        let met = |b: &Arc<BlockMeta>| {
            let meets = |o: &Arc<BlockMeta>| o.whole() != b.whole() && o.overlaps(b.min_t_ms, b.max_t_ms);
            b.writers.len() != 1 && !b.sources.is_empty() && inputs.iter().any(meets)
        };
        let changes = |b: &Arc<BlockMeta>| visibility.concerns(b) || met(b);
        let whole = self.settings.replica_labels.is_empty() && !inputs.iter().any(changes);
        let origins = || inputs.iter().map(|b| b.origins()).collect::<Option<Vec<_>>>();
        let Some(origins) = whole.then(origins).flatten() else {
            return (all.into_keys().collect(), Vec::new());
        };
        let spans: BTreeMap<Ulid, (i64, i64)> = origins.into_iter().flatten().collect();
        spans.into_iter().unzip()
    }

    /// Removes what was uploaded and will not be committed.
    pub(crate) async fn clear_away(&self, tenant: &TenantId, outputs: &[BlockMeta]) {
        for meta in outputs {
            if let Err(e) = self.maintenance.remove(tenant, meta.ulid).await {
                tracing::debug!(block = %meta.ulid, "could not be removed now, it will be found as garbage: {e}");
            }
        }
    }
}

/// Runs a part of a job on a thread that may block.
async fn merging<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WriteError> + Send + 'static,
) -> Result<T, JobError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|e| JobError::store("a thread that merges blocks ended", e))??)
}

/// The spans of a job's outputs.
fn spans(job: &Job) -> Vec<Span> {
    let last = job.span.end_ms;
    let mut out = vec![Span::containing(job.span.bounds().0, job.cut_ms)];
    while out[out.len() - 1].end_ms < last {
        out.push(out[out.len() - 1].next());
    }
    out
}

/// Labels that all inputs have alike besides their series' own.
fn common_labels(inputs: &[Arc<BlockMeta>]) -> std::collections::BTreeMap<String, String> {
    let mut common = inputs.first().map(|b| b.external_labels.clone()).unwrap_or_default();
    for other in inputs {
        common.retain(|n, v| other.external_labels.get(n) == Some(v));
    }
    common
}
