//! Replicas in compaction: which series of which block are of which replica, and in which order they come once the labels that tell them apart are gone.
//!
//! Taking a label out of sorted label sets nearly keeps their order: of series that have the same value there, only one whose remaining labels are a
//! prefix of its neighbour's moves. So a block is read once per replica as it lies, and the few *strays* are read one by one where they belong.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use tsdb::block::{BlockReader, Keep, ReadOptions};
use tsdb::labels::Labels;
use tsdb::merge::replicas::{ReplicaRule, merge_replicas};
use tsdb::source::{SeriesColumns, SourceError};

use crate::merge::{Inputs, ReadError};

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

/// One series out of its replicas, most preferred first.
pub(crate) fn merge(
    labels: Labels,
    replicas: Vec<SeriesColumns>,
    range: (i64, i64),
) -> Option<SeriesColumns> {
    merge_replicas(labels, replicas, range, ReplicaRule::Grid)
}

/// How the blocks of a job are read.
pub(crate) struct ReplicaPlan {
    pub labels: Arc<[String]>,
    blocks: Vec<Vec<Lane>>,
}

/// The series of one replica in one block.
pub(crate) struct Lane {
    pub replica: usize,
    value: Replica,
    labels: Arc<[String]>,
    /// Series that are not in order without the labels: what they become, and their number in the block; in the order they belong.
    pub strays: Arc<[(Labels, u32)]>,
}

impl ReplicaPlan {
    /// Looks through the labels of all blocks; `None` where there is nothing to merge, or too much of it to be replicas.
    pub fn make(of: &Inputs<'_>, labels: &[String]) -> Result<Option<ReplicaPlan>, ReadError> {
        let labels: Arc<[String]> = labels.into();
        let mut all: BTreeSet<Replica> = BTreeSet::new();
        let mut blocks: Vec<BTreeMap<Replica, Vec<(Labels, u32)>>> = Vec::new();
        let mut count = 0;
        for block in of.blocks {
            let failed = |error| ReadError { block: block.ulid, error };
            let read = ReadOptions { range: of.range, ..of.read.clone() };
            let mut reader = BlockReader::open(of.store, of.tenant, block, of.mask, read).map_err(failed)?;
            let mut last: BTreeMap<Replica, Labels> = BTreeMap::new();
            let mut strays: BTreeMap<Replica, Vec<(Labels, u32)>> = BTreeMap::new();
            let mut id = 0;
            while let Some(batch) = reader.next_labels().map_err(failed)? {
                for series in batch {
                    let replica = replica_of(&series, &labels);
                    let left = without(&series, &labels);
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
            all.extend(strays.keys().cloned());
            blocks.push(strays);
        }
        let named = all.iter().any(|r| r.iter().any(|v| !v.is_empty()));
        if !named || all.len() > MAX_REPLICAS {
            return Ok(None);
        }
        let number: BTreeMap<&Replica, usize> = all.iter().enumerate().map(|(i, r)| (r, i)).collect();
        let lane = |(value, mut strays): (Replica, Vec<(Labels, u32)>)| {
            strays.sort_by(|a, b| a.0.series_cmp(&b.0));
            Lane { replica: number[&value], value, labels: labels.clone(), strays: strays.into() }
        };
        let blocks = blocks.into_iter().map(|b| b.into_iter().map(lane).collect()).collect();
        Ok(Some(ReplicaPlan { labels: labels.clone(), blocks }))
    }

    /// How many readers it takes.
    pub fn lanes(&self) -> usize {
        self.blocks.iter().flatten().map(|l| 1 + usize::from(!l.strays.is_empty())).sum()
    }

    pub fn of_block(&self, at: usize) -> &[Lane] {
        &self.blocks[at]
    }
}

impl Lane {
    /// The series that are in order.
    pub fn chooser(&self) -> Keep {
        let (value, labels) = (self.value.clone(), self.labels.clone());
        let strays: HashSet<Labels> = self.strays.iter().map(|(l, _)| l.clone()).collect();
        Box::new(move |series| {
            let fits = labels.iter().zip(&value).all(|(n, v)| series.value(n) == v);
            fits && (strays.is_empty() || !strays.contains(&without(series, &labels)))
        })
    }
}

/// Reads single series of a block in an order of their own.
pub(crate) struct Strays {
    reader: BlockReader,
    order: Arc<[(Labels, u32)]>,
    next: usize,
}

impl Strays {
    pub fn new(reader: BlockReader, order: Arc<[(Labels, u32)]>) -> Strays {
        Strays { reader, order, next: 0 }
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
