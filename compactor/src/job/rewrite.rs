//! A block written anew without some of its series or labels, or only in the present format, and put in its
//! own place by one commit.
//!
//! The same is done to files of exemplars, whose series bear the same labels. What is deleted by tombstones
//! goes in passing. The new block counts as the old one (its sources, its order), so nothing else changes.

use std::collections::HashMap;
use std::sync::Arc;

use model::exemplar::{Gathered, SeriesExemplars};
use model::keyed_hash::keyed_hash;
use model::labels::Labels;
use model::matcher::Matcher;
use model::source::{SeriesColumns, SeriesCursor};
use model::tenant::TenantId;
use tsdb::block::{BlockFiles, BlockMeta, BlockOrigin, BlockReader, BlockWriter};
use tsdb::catalog::{Catalog, CatalogError, Edit, Snapshot};
use tsdb::deletion::Visibility;
use tsdb::sidecar::Sidecar;
use ulid::Ulid;

use super::runner::{Done, JobError, JobRunner};
use super::verify::Digest;
use super::write::WriteError;
use crate::plan::sources_of;

/// What is to be left out.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// Series for which all matchers of one of these hold.
    pub drop_series: Vec<Vec<Matcher>>,
    /// Labels that are taken off the series that stay.
    pub drop_labels: Vec<String>,
}

/// What became of a block.
#[derive(Clone, Debug)]
pub enum Rewritten {
    /// Nothing was left of it.
    Gone,
    /// This one stands in its runner.
    Replaced(Box<BlockMeta>),
}

impl Rewrite {
    fn keeps(&self, labels: &Labels) -> bool {
        let all_hold = |selector: &Vec<Matcher>| selector.iter().all(|m| m.matches(labels.value(&m.name)));
        !self.drop_series.iter().any(all_hold)
    }

    fn trim(&self, labels: &Labels) -> Labels {
        let stays = |(name, _): &(&str, &str)| !self.drop_labels.iter().any(|d| d == name);
        Labels::from_sorted(labels.iter().filter(stays))
    }

    /// Whether it would change anything of a block besides its encoding. Reads its labels; blocks the thread.
    pub fn concerns(
        &self,
        runner: &JobRunner,
        tenant: &TenantId,
        meta: &Arc<BlockMeta>,
    ) -> Result<bool, JobError> {
        let mut reader = open(runner, tenant, meta, &Visibility::default())?;
        while let Some(run) = reader.next_labels().map_err(|e| unreadable(meta, e))? {
            let changes =
                |l: &Labels| !self.keeps(l) || l.iter().any(|(n, _)| self.drop_labels.iter().any(|d| d == n));
            if run.iter().any(changes) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn unreadable(meta: &BlockMeta, e: model::source::SourceError) -> JobError {
    JobError::store(format!("cannot read block {}", meta.ulid), e)
}

fn open(
    runner: &JobRunner,
    tenant: &TenantId,
    meta: &Arc<BlockMeta>,
    visibility: &Visibility,
) -> Result<BlockReader, JobError> {
    BlockReader::open(&runner.store, tenant, meta, visibility, runner.read_options())
        .map_err(|e| unreadable(meta, e))
}

/// Rewrites one live block of a snapshot. Whatever fails leaves it as it was.
pub async fn rewrite(
    runner: &JobRunner,
    catalog: &Catalog,
    snapshot: &Snapshot,
    meta: &Arc<BlockMeta>,
    what: &Rewrite,
) -> Result<Rewritten, JobError> {
    let tenant = catalog.tenant().clone();
    let (here, block, visibility, order) =
        (runner.clone(), meta.clone(), snapshot.visibility(), what.clone());
    let of = tenant.clone();
    let work = tokio::task::spawn_blocking(move || write(&here, &of, &block, &visibility, &order));
    let written = work.await.map_err(|e| JobError::store("a thread that writes a block ended", e))?;
    let (files, digest) = written?;
    let mut done = Done::default();
    let mut result = Ok(());
    if let Some(files) = &files {
        result = runner.upload(&tenant, files, digest, &mut done).await;
    }
    if result.is_ok() {
        let edit = Edit::replace(vec![meta.ulid], done.outputs.clone()).written_through(snapshot);
        result = match catalog.commit(&edit).await {
            Ok(_) => Ok(()),
            Err(CatalogError::Conflict(why)) => Err(JobError::Lost(why)),
            Err(e) => Err(JobError::Unclear(e)),
        };
    }
    if let Err(e) = result {
        if !matches!(e, JobError::Unclear(_)) {
            runner.clear_away(&tenant, &done.outputs).await;
        }
        return Err(e);
    }
    Ok(match done.outputs.pop() {
        Some(meta) => Rewritten::Replaced(Box::new(meta)),
        None => Rewritten::Gone,
    })
}

/// Writes what stays of a block into the scratch folder; `None` where nothing does.
fn write(
    runner: &JobRunner,
    tenant: &TenantId,
    meta: &Arc<BlockMeta>,
    visibility: &Visibility,
    what: &Rewrite,
) -> Result<(Option<BlockFiles>, (u64, u64)), JobError> {
    let origin = BlockOrigin {
        ulid: Ulid::new(),
        tenant: tenant.clone(),
        writer: runner.writer.clone(),
        writers: meta.writers.clone(),
        resolution_ms: meta.resolution_ms,
        level: meta.level,
        sources: sources_of(meta),
        // It holds less than they did.
        source_spans_ms: Vec::new(),
        approximate: meta.approximate,
        external_labels: meta.external_labels.clone(),
    };
    let scratch = |e| JobError::Write(WriteError::Block(e));
    let options = runner.settings.write_options(meta.resolution_ms);
    let mut out = BlockWriter::create(&runner.scratch, origin, options).map_err(scratch)?;
    let mut digest = Digest::default();
    let mut append = |series: SeriesColumns| {
        if runner.stop.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(JobError::Stopped);
        }
        digest.add(&series);
        out.append(series).map_err(scratch)
    };
    if what.drop_labels.is_empty() {
        let order = what.clone();
        let mut reader =
            open(runner, tenant, meta, visibility)?.only(Box::new(move |labels| order.keeps(labels)));
        while let Some(batch) = reader.next_batch().map_err(|e| unreadable(meta, e))? {
            batch.into_iter().try_for_each(&mut append)?;
        }
    } else {
        let order = trimmed(runner, tenant, meta, what)?;
        let mut reader = open(runner, tenant, meta, visibility)?;
        for (labels, id) in order {
            if let Some(series) = reader.series(id).map_err(|e| unreadable(meta, e))? {
                append(SeriesColumns { labels, ..series })?;
            }
        }
    }
    let mut files = out.finish().map_err(scratch)?;
    if let Some(files) = &mut files {
        files.meta.downsampled_ms = meta.downsampled_ms.clone();
        // Without a label series may be in another order, and no longer between those of other shares:
        // compaction makes a new whole of them all.
        files.meta.share = meta.share.clone().filter(|_| what.drop_labels.is_empty());
    }
    Ok((files, digest.finish()))
}

/// What stays of a file of exemplars; `None` where all of it does, as it is.
pub async fn exemplars_left(
    runner: &JobRunner,
    tenant: &TenantId,
    file: &Sidecar,
    what: &Rewrite,
) -> Result<Option<Vec<SeriesExemplars>>, JobError> {
    let series = runner.maintenance.read_exemplars(tenant, file).await;
    let series = series.map_err(|e| JobError::store(format!("cannot read exemplars {}", file.ulid), e))?;
    let (mut left, mut same) = (Gathered::default(), true);
    for SeriesExemplars { labels, exemplars } in series {
        let trimmed = what.trim(&labels);
        let stays = what.keeps(&labels);
        same &= stays && trimmed == labels;
        if stays {
            left.add(&trimmed, exemplars);
        }
    }
    Ok((!same).then(|| left.finish()))
}

/// Puts what stays of a live file of exemplars in its place; `None` where that is nothing.
pub async fn rewrite_exemplars(
    runner: &JobRunner,
    catalog: &Catalog,
    file: &Sidecar,
    left: Vec<SeriesExemplars>,
) -> Result<Option<Sidecar>, JobError> {
    let mut new = None;
    if !left.is_empty() {
        let uploaded = runner.maintenance.upload_exemplars(catalog.tenant(), left).await;
        new = Some(uploaded.map_err(|e| JobError::store("cannot write exemplars", e))?);
    }
    let add_exemplars = new.iter().cloned().collect();
    let edit = Edit { add_exemplars, drop_exemplars: vec![file.ulid], ..Edit::default() };
    match catalog.commit(&edit).await {
        Ok(_) => Ok(new),
        // What was uploaded is found as garbage.
        Err(CatalogError::Conflict(why)) => Err(JobError::Lost(why)),
        Err(e) => Err(JobError::Unclear(e)),
    }
}

/// Fails where taking labels off would make one series of two that lie in different blocks and differ in
/// those labels: replicas are not copies, and merging them as such makes resets of nothing. Reads the labels
/// of all `blocks` (the tenant's live ones); blocks the thread.
pub fn check_labels(
    runner: &JobRunner,
    tenant: &TenantId,
    blocks: &[Arc<BlockMeta>],
    what: &Rewrite,
) -> Result<(), JobError> {
    if what.drop_labels.is_empty() {
        return Ok(());
    }
    // By the hash of the labels that stay: the hash of those that go, and a block that has such a series.
    let mut seen: HashMap<u64, (u64, Ulid)> = HashMap::new();
    for meta in blocks {
        let mut reader = open(runner, tenant, meta, &Visibility::default())?;
        while let Some(run) = reader.next_labels().map_err(|e| unreadable(meta, e))? {
            for labels in run.iter().filter(|l| what.keeps(l)) {
                let taken = labels.iter().filter(|(name, _)| what.drop_labels.iter().any(|d| d == name));
                let taken = Labels::from_sorted(taken);
                if taken.is_empty() {
                    continue;
                }
                let left = what.trim(labels);
                let taken = keyed_hash(&taken.encode());
                let (before, block) = *seen.entry(keyed_hash(&left.encode())).or_insert((taken, meta.ulid));
                if before != taken && block != meta.ulid {
                    return Err(JobError::Differs {
                        block: meta.ulid,
                        what: format!(
                            "without {} a series of it and another of block {block} would both be {left}; they are replicas or different \
                             series, and merging them would ruin both. Drop one of them by a matcher first, or name the labels in replica_labels",
                            what.drop_labels.join(", ")
                        ),
                    });
                }
            }
        }
    }
    Ok(())
}

/// The labels of all series that stay, in the order in which they are to be written, and the number of each.
/// Two series that become one are an error: which of their samples are right is not for this to decide.
fn trimmed(
    runner: &JobRunner,
    tenant: &TenantId,
    meta: &Arc<BlockMeta>,
    what: &Rewrite,
) -> Result<Vec<(Labels, u32)>, JobError> {
    let mut reader = open(runner, tenant, meta, &Visibility::default())?;
    let (mut all, mut id) = (Vec::new(), 0u32);
    while let Some(run) = reader.next_labels().map_err(|e| unreadable(meta, e))? {
        for labels in run {
            if what.keeps(&labels) {
                all.push((what.trim(&labels), id));
            }
            id += 1;
        }
    }
    all.sort_by(|a, b| a.0.series_cmp(&b.0));
    if let Some(pair) = all.windows(2).find(|w| w[0].0 == w[1].0) {
        return Err(JobError::Differs {
            block: meta.ulid,
            what: format!(
                "without {} two of its series would both be {}; drop one of them by a matcher first",
                what.drop_labels.join(", "),
                pair[0].0
            ),
        });
    }
    Ok(all)
}
