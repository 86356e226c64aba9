//! Replicas in compaction: which series of which block are of which replica, and in which order they come
//! once the labels that tell them apart are gone.
//!
//! Taking a label out of sorted label sets nearly keeps their order: of series that have the same value
//! there, only one whose remaining labels are a prefix of its neighbour's moves. So a block is read once per
//! replica as it lies, and the few *strays* are read one by one where they belong.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use model::labels::Labels;
use model::source::merge::replicas::{ReplicaRule, grid, merge_replicas_after};
use model::source::{SeriesColumns, SourceError};
use tsdb::block::{BlockMeta, BlockReader, ReadOptions, SeriesFilter};

use super::input::{Inputs, ReadError};

/// Most replicas in one job; more are rather a label that tells series apart than replicas.
const MAX_REPLICAS: usize = 16;
/// Most strays of one job, whose labels are held in memory.
const MAX_STRAYS: usize = 100_000;

/// Values of the replica labels, in the labels' order; empty where a series lacks one.
type Replica = Vec<String>;

/// Label sets without some labels.
pub(crate) fn without(labels: &Labels, drop: &[String]) -> Labels {
    Labels::from_sorted(labels.iter().filter(|(n, _)| !drop.iter().any(|d| d == n)))
}

fn replica_of(labels: &Labels, of: &[String]) -> Replica {
    of.iter().map(|n| labels.value(n).to_string()).collect()
}

/// One series out of its replicas, most preferred first; `said` is what it became right before the range.
pub(crate) fn merge(
    labels: Labels,
    replicas: Vec<SeriesColumns>,
    said: Option<&SeriesColumns>,
    range: (i64, i64),
) -> Option<SeriesColumns> {
    merge_replicas_after(labels, replicas, said, range, ReplicaRule::Grid)
}

/// The range (ends included) of which the last sample matters to what comes after it, and what has to be read
/// to know it; `None` where what comes after it does not begin at a wall.
pub(crate) fn before(range: (i64, i64)) -> Option<((i64, i64), (i64, i64))> {
    let wall_ms = range.0.checked_sub(1).filter(|t| t % grid::WALL_MS == 0)?;
    let said = grid::before_wall(wall_ms);
    Some((said, grid::reach(said)))
}

/// How the blocks of a job are read.
pub(crate) struct ReplicaPlan {
    pub labels: Arc<[String]>,
    blocks: Vec<Vec<ReplicaPart>>,
    /// Of the blocks before the range.
    before: Vec<Vec<ReplicaPart>>,
    /// The replica of series that have none of the labels.
    pub unnamed: Option<usize>,
}

/// The series of one replica in one block.
pub(crate) struct ReplicaPart {
    pub replica: usize,
    value: Replica,
    labels: Arc<[String]>,
    /// Series that are not in order without the labels: what they become, and their number in the block; in
    /// the order they belong.
    pub strays: Arc<[(Labels, u32)]>,
}

/// The strays of each replica.
type Found = BTreeMap<Replica, Vec<(Labels, u32)>>;

/// Looks through the labels of a block; `None` where its values are too many to be replicas.
fn look_through(
    of: &Inputs<'_>,
    block: &Arc<BlockMeta>,
    range: (i64, i64),
    labels: &[String],
) -> Result<Option<Found>, ReadError> {
    let failed = |error| ReadError { block: block.ulid, error };
    let read = ReadOptions { range, ..of.read.clone() };
    let mut reader = BlockReader::open(of.store, of.tenant, block, of.visibility, read).map_err(failed)?;
    let mut last: BTreeMap<Replica, Labels> = BTreeMap::new();
    let mut strays = Found::new();
    let (mut id, mut count) = (0, 0);
    while let Some(batch) = reader.next_labels().map_err(failed)? {
        for series in batch {
            let replica = replica_of(&series, labels);
            let left = without(&series, labels);
            let out_of_order = last.get(&replica).is_some_and(|l| left.series_cmp(l).is_lt());
            let of_replica = strays.entry(replica.clone()).or_default();
            if out_of_order {
                of_replica.push((left, id));
                count += 1;
            } else {
                last.insert(replica, left);
            }
            id += 1;
        }
        if strays.len() > MAX_REPLICAS || count > MAX_STRAYS {
            tracing::warn!(
                block = %block.ulid, replicas = strays.len(), strays = count,
                "replicas are not merged here: the labels {labels:?} have too many values, or too many series change places without them"
            );
            return Ok(None);
        }
    }
    Ok(Some(strays))
}

impl ReplicaPlan {
    /// Looks through the labels of all blocks; `None` where there is nothing to merge, or too much of it to
    /// be replicas.
    pub fn make(of: &Inputs<'_>, labels: &[String]) -> Result<Option<ReplicaPlan>, ReadError> {
        let labels: Arc<[String]> = labels.into();
        let mut all: BTreeSet<Replica> = BTreeSet::new();
        let mut blocks: Vec<Found> = Vec::new();
        for block in of.blocks {
            let Some(strays) = look_through(of, block, of.range, &labels)? else { return Ok(None) };
            all.extend(strays.keys().cloned());
            blocks.push(strays);
        }
        let strays: usize = blocks.iter().flat_map(BTreeMap::values).map(Vec::len).sum();
        let named = all.iter().any(|r| r.iter().any(|v| !v.is_empty()));
        if !named || all.len() > MAX_REPLICAS || strays > MAX_STRAYS {
            return Ok(None);
        }
        let mut before: Vec<Found> = Vec::new();
        for block in of.before {
            let range = self::before(of.range).map_or(of.range, |(_, read)| read);
            // Without it a false reset may stay, which is not worth a job that fails.
            let found = look_through(of, block, range, &labels).unwrap_or_else(|e| {
                tracing::warn!("what lies before a span cannot be read, replicas are chosen without it: {e}");
                None
            });
            let found = found.unwrap_or_default();
            if all.iter().chain(found.keys()).collect::<BTreeSet<_>>().len() <= MAX_REPLICAS {
                all.extend(found.keys().cloned());
                before.push(found);
            } else {
                before.push(Found::new());
            }
        }
        let number: BTreeMap<&Replica, usize> = all.iter().enumerate().map(|(i, r)| (r, i)).collect();
        let part = |(value, mut strays): (Replica, Vec<(Labels, u32)>)| {
            strays.sort_by(|a, b| a.0.series_cmp(&b.0));
            ReplicaPart { replica: number[&value], value, labels: labels.clone(), strays: strays.into() }
        };
        let parts =
            |found: Vec<Found>| found.into_iter().map(|b| b.into_iter().map(part).collect()).collect();
        let unnamed = all.iter().position(|r| r.iter().all(String::is_empty));
        Ok(Some(ReplicaPlan {
            labels: labels.clone(),
            blocks: parts(blocks),
            before: parts(before),
            unnamed,
        }))
    }

    /// How many readers it takes.
    pub fn parts(&self) -> usize {
        self.blocks.iter().chain(&self.before).flatten().map(|l| 1 + usize::from(!l.strays.is_empty())).sum()
    }

    pub fn of_block(&self, at: usize) -> &[ReplicaPart] {
        &self.blocks[at]
    }

    /// Of one of the blocks before the range.
    pub fn of_block_before(&self, at: usize) -> &[ReplicaPart] {
        &self.before[at]
    }
}

impl ReplicaPart {
    /// The series that are in order.
    pub fn chooser(&self) -> SeriesFilter {
        let (value, labels) = (self.value.clone(), self.labels.clone());
        let strays: HashSet<Labels> = self.strays.iter().map(|(l, _)| l.clone()).collect();
        Box::new(move |series| {
            let fits = labels.iter().zip(&value).all(|(n, v)| series.value(n) == v);
            fits && (strays.is_empty() || !strays.contains(&without(series, &labels)))
        })
    }
}

/// Reads single series of a block in an order of their own.
pub(crate) struct StrayReplicas {
    reader: BlockReader,
    order: Arc<[(Labels, u32)]>,
    next: usize,
}

impl StrayReplicas {
    pub fn new(reader: BlockReader, order: Arc<[(Labels, u32)]>) -> StrayReplicas {
        StrayReplicas { reader, order, next: 0 }
    }

    pub fn reader(&self) -> &BlockReader {
        &self.reader
    }

    pub fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
        while let Some((_, id)) = self.order.get(self.next) {
            self.next += 1;
            if let Some(series) = self.reader.series(*id)? {
                return Ok(Some(vec![series]));
            }
        }
        Ok(None)
    }
}
