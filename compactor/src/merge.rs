//! Many blocks as one stream of series: the k-way merge that compaction writes down, in memory that does not grow with the blocks.
//!
//! Every input gives its series in order; those with the same labels are copies of one series, merged by the rule that queries use
//! ([`tsdb::merge::merge_copies`]). What is deleted or expired is masked in each input before that, as in queries.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tsdb::block::{BlockMeta, BlockReader, ReadOptions, series_bytes};
use tsdb::bucket::BlockStore;
use tsdb::labels::Labels;
use tsdb::mask::Mask;
use tsdb::merge::{SharedTimelines, merge_copies};
use tsdb::source::{SeriesColumns, SeriesCursor, SourceError};
use tsdb::tenant::TenantId;
use ulid::Ulid;

use crate::replicas::{self, ReplicaPlan};

/// What a job holds in memory, by its own account.
#[derive(Debug, Default)]
pub struct Ledger {
    peak_bytes: AtomicU64,
}

impl Ledger {
    /// Notes what is held now.
    pub fn note(&self, bytes: u64) {
        self.peak_bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    /// The most that was ever noted.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Ordering::Relaxed)
    }
}

/// One block that could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("block {block}: {error}")]
pub struct ReadError {
    pub block: Ulid,
    #[source]
    pub error: SourceError,
}

/// What is to be merged.
pub struct Inputs<'a> {
    pub store: &'a Arc<BlockStore>,
    pub tenant: &'a TenantId,
    /// Oldest in [`BlockMeta::order`] first.
    pub blocks: &'a [Arc<BlockMeta>],
    pub mask: &'a Mask,
    /// First and last timestamp wanted, both included.
    pub range: (i64, i64),
    /// What all batches of all inputs may take together.
    pub memory_bytes: u64,
    pub read: ReadOptions,
    /// Labels that tell apart replicas of one series; empty where replicas stay apart.
    pub replica_labels: &'a [String],
}

/// How many samples took which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Within the range, in all inputs.
    pub read: u64,
    /// Deleted or expired.
    pub hidden: u64,
    /// The same instant of the same series in several blocks.
    pub duplicates: u64,
    /// Of a replica that was not chosen.
    pub replicas: u64,
    /// Left in the result.
    pub merged: u64,
    /// Series of inputs (each once per input), and of the result.
    pub series_read: u64,
    pub series_merged: u64,
    /// Series that replicas were, and what they became.
    pub replica_series: u64,
    pub replica_series_merged: u64,
}

impl Counts {
    /// Whether every sample read is accounted for.
    pub fn balance(&self) -> bool {
        self.read == self.hidden + self.duplicates + self.replicas + self.merged
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Counts) {
        self.read += other.read;
        self.hidden += other.hidden;
        self.duplicates += other.duplicates;
        self.replicas += other.replicas;
        self.merged += other.merged;
        self.series_read += other.series_read;
        self.series_merged += other.series_merged;
        self.replica_series += other.replica_series;
        self.replica_series_merged += other.replica_series_merged;
    }
}

/// See the module.
pub struct Merge {
    inputs: Vec<Input>,
    timelines: SharedTimelines,
    counts: Counts,
    range: (i64, i64),
    store: Arc<BlockStore>,
    replicas: bool,
}

struct Input {
    cursor: Source,
    block: Ulid,
    /// Which replica its series are of; all of one input are of one. Also the order of preference.
    replica: usize,
    /// Labels to take out of its series.
    drop: Arc<[String]>,
    ready: VecDeque<SeriesColumns>,
    ready_bytes: u64,
    ended: bool,
}

/// A whole block, or single series of one in an order of their own.
enum Source {
    Block(Box<BlockReader>),
    Strays(Box<replicas::Strays>),
}

impl Source {
    fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
        match self {
            Source::Block(reader) => reader.next_batch(),
            Source::Strays(strays) => strays.next_batch(),
        }
    }

    fn reader(&self) -> &BlockReader {
        match self {
            Source::Block(reader) => reader,
            Source::Strays(strays) => strays.reader(),
        }
    }
}

impl Input {
    fn fill(&mut self, counts: &mut Counts) -> Result<(), ReadError> {
        while self.ready.is_empty() && !self.ended {
            let batch = self.cursor.next_batch().map_err(|error| ReadError { block: self.block, error })?;
            let Some(mut batch) = batch else {
                self.ended = true;
                break;
            };
            counts.series_read += batch.len() as u64;
            self.ready_bytes = batch.iter().map(series_bytes).sum();
            if !self.drop.is_empty() {
                batch.iter_mut().for_each(|s| s.labels = replicas::without(&s.labels, &self.drop));
            }
            self.ready = batch.into();
        }
        Ok(())
    }

    fn held_bytes(&self) -> u64 {
        self.ready_bytes + self.cursor.reader().held_bytes()
    }
}

impl Merge {
    /// Opens all inputs. Blocks the thread, as everything here does.
    pub fn open(of: &Inputs<'_>) -> Result<Merge, ReadError> {
        let plan = match of.replica_labels {
            [] => None,
            labels => ReplicaPlan::make(of, labels)?,
        };
        let mut inputs = Vec::new();
        let lanes = plan.as_ref().map_or(of.blocks.len(), |p| p.lanes()).max(1) as u64;
        let read = ReadOptions {
            range: of.range,
            batch_bytes: (of.memory_bytes / lanes / 2).clamp(32 << 10, 8 << 20),
            ..of.read.clone()
        };
        for (at, block) in of.blocks.iter().enumerate() {
            let open = || {
                BlockReader::open(of.store, of.tenant, block, of.mask, read.clone())
                    .map_err(|error| ReadError { block: block.ulid, error })
            };
            let input = |cursor, replica, drop| Input {
                cursor,
                block: block.ulid,
                replica,
                drop,
                ready: VecDeque::new(),
                ready_bytes: 0,
                ended: false,
            };
            match &plan {
                None => inputs.push(input(Source::Block(Box::new(open()?)), 0, Arc::default())),
                Some(plan) => {
                    for lane in plan.of_block(at) {
                        let reader = open()?.only(lane.chooser());
                        inputs.push(input(
                            Source::Block(Box::new(reader)),
                            lane.replica,
                            plan.labels.clone(),
                        ));
                        if !lane.strays.is_empty() {
                            let strays =
                                Source::Strays(Box::new(replicas::Strays::new(open()?, lane.strays.clone())));
                            inputs.push(input(strays, lane.replica, plan.labels.clone()));
                        }
                    }
                }
            }
        }
        Ok(Merge {
            inputs,
            timelines: SharedTimelines::default(),
            counts: Counts::default(),
            range: of.range,
            store: of.store.clone(),
            replicas: plan.is_some(),
        })
    }

    /// The next series in the order of [`Labels::series_cmp`]; `None` at the end.
    pub fn next_series(&mut self) -> Result<Option<SeriesColumns>, ReadError> {
        loop {
            let mut first: Option<&Labels> = None;
            for input in &mut self.inputs {
                input.fill(&mut self.counts)?;
            }
            for series in self.inputs.iter().filter_map(|i| i.ready.front()) {
                if first.is_none_or(|f| series.labels.series_cmp(f).is_lt()) {
                    first = Some(&series.labels);
                }
            }
            let Some(first) = first.cloned() else { return Ok(None) };
            // By replica, and of each its copies, oldest first.
            let mut found: Vec<(usize, SeriesColumns)> = Vec::new();
            for input in &mut self.inputs {
                // A block may hold several series that become one when labels are taken out; they are of different replicas.
                while input.ready.front().is_some_and(|s| s.labels == first) {
                    let series = input.ready.pop_front().expect("it was looked at");
                    input.ready_bytes = input.ready_bytes.saturating_sub(series_bytes(&series));
                    found.push((input.replica, series));
                    if input.ready.is_empty() {
                        break;
                    }
                }
            }
            let merged =
                if self.replicas { self.merge_replicas(first, found) } else { self.merge_copies(found) };
            if let Some(series) = merged {
                self.counts.series_merged += 1;
                self.counts.merged += series.ts_ms.len() as u64;
                return Ok(Some(series));
            }
        }
    }

    fn merge_copies(&mut self, found: Vec<(usize, SeriesColumns)>) -> Option<SeriesColumns> {
        let copies: Vec<SeriesColumns> = found.into_iter().map(|(_, s)| s).collect();
        let before: u64 = copies.iter().map(|c| c.ts_ms.len() as u64).sum();
        if copies.is_empty() {
            return None;
        }
        let merged = merge_copies(copies, &mut self.timelines);
        self.counts.duplicates += before - merged.ts_ms.len() as u64;
        Some(merged)
    }

    fn merge_replicas(
        &mut self,
        labels: Labels,
        mut found: Vec<(usize, SeriesColumns)>,
    ) -> Option<SeriesColumns> {
        // Stable: within a replica the order of blocks stays.
        found.sort_by_key(|(replica, _)| *replica);
        let mut replicas = Vec::new();
        while !found.is_empty() {
            let replica = found[0].0;
            let rest = found.split_off(found.partition_point(|(r, _)| *r == replica));
            replicas.extend(self.merge_copies(std::mem::replace(&mut found, rest)));
        }
        if replicas.len() == 1 {
            return replicas.pop();
        }
        let before: u64 = replicas.iter().map(|c| c.ts_ms.len() as u64).sum();
        self.counts.replica_series += replicas.len() as u64;
        self.counts.replica_series_merged += 1;
        let merged = replicas::merge(labels, replicas, self.range);
        self.counts.replicas += before - merged.as_ref().map_or(0, |m| m.ts_ms.len() as u64);
        merged
    }

    /// What has been read and merged so far; whole once [`Merge::next_series`] has ended.
    pub fn counts(&self) -> Counts {
        let mut counts = self.counts;
        for input in &self.inputs {
            let (read, hidden) = input.cursor.reader().counts();
            counts.read += read;
            counts.hidden += hidden;
        }
        counts
    }

    /// About how many bytes of memory it holds, the cache of blocks included.
    pub fn held_bytes(&self) -> u64 {
        self.inputs.iter().map(Input::held_bytes).sum::<u64>() + self.store.cache_stats().bytes as u64
    }
}
