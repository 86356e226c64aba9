//! Many blocks as one stream of series: the k-way merge that compaction writes down, in memory that does not
//! grow with the blocks.
//!
//! Every input gives its series in order; those with the same labels are copies of one series, merged by the
//! rule that queries use ([`model::source::merge::merge_copies`]). What is deleted or expired is hidden in
//! each input before that, as in queries. The shares of a whole are one input: they are read one after the
//! other.

use std::collections::VecDeque;
use std::sync::Arc;

use model::labels::Labels;
use model::source::merge::conflict::Origin;
use model::source::merge::{SharedTimelines, merge_copies_of};
use model::source::{SeriesColumns, SeriesCursor, SourceError};
use model::tenant::TenantId;
use tsdb::block::{BlockMeta, BlockReader, ReadOptions};
use tsdb::bucket::BlockStore;
use tsdb::deletion::Visibility;
use ulid::Ulid;

use super::input::{Inputs, ReadError};
use super::replicas::{self, ReplicaPart, ReplicaPlan};

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

fn samples_of(series: &[(usize, SeriesColumns)]) -> u64 {
    series.iter().map(|(_, s)| s.ts_ms.len() as u64).sum()
}

/// A copy of a series, and of which replica and origin it is.
struct Copy {
    replica: usize,
    origin: Origin,
    series: SeriesColumns,
}

fn samples_of_copies(copies: &[Copy]) -> u64 {
    copies.iter().map(|copy| copy.series.ts_ms.len() as u64).sum()
}

/// The copies of each replica as one; `found` by replica, and of each its copies, oldest first.
fn by_replica(mut found: Vec<Copy>, timelines: &mut SharedTimelines) -> Vec<(usize, SeriesColumns)> {
    // Stable: within a replica the order of blocks stays.
    found.sort_by_key(|copy| copy.replica);
    let mut out = Vec::new();
    while let Some(Copy { replica, .. }) = found.first() {
        let replica = *replica;
        let rest = found.split_off(found.partition_point(|copy| copy.replica == replica));
        let (origins, copies): (Vec<Origin>, Vec<SeriesColumns>) =
            std::mem::replace(&mut found, rest).into_iter().map(|copy| (copy.origin, copy.series)).unzip();
        out.push((replica, merge_copies_of(copies, &origins, timelines)));
    }
    out
}

/// Blocks that are being merged, series by series.
pub struct Merge {
    inputs: Vec<Input>,
    timelines: SharedTimelines,
    counts: Counts,
    range: (i64, i64),
    opener: Opener,
    /// Whether replicas are made one, and which is the replica of series without a replica's label.
    replicas: Option<Option<usize>>,
    /// What lies before the range.
    before: Vec<Input>,
}

/// Opens blocks as all of a merge are read.
#[derive(Clone)]
struct Opener {
    store: Arc<BlockStore>,
    tenant: TenantId,
    visibility: Visibility,
    read: ReadOptions,
}

impl Opener {
    fn open(&self, block: &Arc<BlockMeta>) -> Result<BlockReader, ReadError> {
        let read = self.read.clone();
        BlockReader::open(&self.store, &self.tenant, block, &self.visibility, read)
            .map_err(|error| ReadError { block: block.ulid, error })
    }

    /// A block's replicas, each read by itself, without the labels that tell them apart.
    fn replicas(
        &self,
        block: &Arc<BlockMeta>,
        parts: &[ReplicaPart],
        drop: &Arc<[String]>,
    ) -> Result<Vec<Input>, ReadError> {
        let mut inputs = Vec::new();
        for part in parts {
            let cursor = Source::Block(Box::new(self.open(block)?.only(part.chooser())));
            inputs.push(Input::new(cursor, block, &[], part.replica, drop.clone()));
            if !part.strays.is_empty() {
                let strays = replicas::StrayReplicas::new(self.open(block)?, part.strays.clone());
                let cursor = Source::StrayReplicas(Box::new(strays));
                inputs.push(Input::new(cursor, block, &[], part.replica, drop.clone()));
            }
        }
        Ok(inputs)
    }
}

struct Input {
    cursor: Source,
    block: Ulid,
    origin: Origin,
    /// The shares that come after it.
    rest: VecDeque<Arc<BlockMeta>>,
    /// Of shares that have ended: samples read, and those of them that were hidden.
    ended_counts: (u64, u64),
    /// Which replica its series are of; all of one input are of one. Also the order of preference.
    replica: usize,
    /// Labels to take out of its series.
    drop: Arc<[String]>,
    ready: VecDeque<SeriesColumns>,
    ready_bytes: u64,
    ended: bool,
}

impl Input {
    /// The series that `cursor` gives of `block`, and then those of the shares in `rest`.
    fn new(
        cursor: Source,
        block: &BlockMeta,
        rest: &[Arc<BlockMeta>],
        replica: usize,
        drop: Arc<[String]>,
    ) -> Input {
        Input {
            cursor,
            block: block.ulid,
            origin: block.origin(),
            rest: rest.iter().cloned().collect(),
            ended_counts: (0, 0),
            replica,
            drop,
            ready: VecDeque::new(),
            ready_bytes: 0,
            ended: false,
        }
    }
}

/// A whole block, or single series of one in an order of their own.
enum Source {
    Block(Box<BlockReader>),
    StrayReplicas(Box<replicas::StrayReplicas>),
}

impl Source {
    fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
        match self {
            Source::Block(reader) => reader.next_batch(),
            Source::StrayReplicas(strays) => strays.next_batch(),
        }
    }

    fn reader(&self) -> &BlockReader {
        match self {
            Source::Block(reader) => reader,
            Source::StrayReplicas(strays) => strays.reader(),
        }
    }
}

impl Input {
    fn fill(&mut self, counts: &mut Counts, opener: &Opener) -> Result<(), ReadError> {
        while self.ready.is_empty() && !self.ended {
            let batch = self.cursor.next_batch().map_err(|error| ReadError { block: self.block, error })?;
            let Some(mut batch) = batch else {
                match self.rest.pop_front() {
                    Some(next) => {
                        self.ended_counts = self.counts();
                        self.block = next.ulid;
                        self.cursor = Source::Block(Box::new(opener.open(&next)?));
                    }
                    None => self.ended = true,
                }
                continue;
            };
            counts.series_read += batch.len() as u64;
            self.ready_bytes = batch.iter().map(SeriesColumns::memory_bytes).sum();
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

    /// Samples read, and those of them that were hidden.
    fn counts(&self) -> (u64, u64) {
        let ((read, hidden), before) = (self.cursor.reader().counts(), self.ended_counts);
        (before.0 + read, before.1 + hidden)
    }
}

impl Merge {
    /// Opens all inputs. Blocks the thread, as everything here does.
    pub fn open(of: &Inputs<'_>) -> Result<Merge, ReadError> {
        let plan = match of.replica_labels {
            [] => None,
            labels => ReplicaPlan::make(of, labels)?,
        };
        let wholes: Vec<&[Arc<BlockMeta>]> =
            of.blocks.chunk_by(|a, b| a.whole() == b.whole() && a.resolution_ms == b.resolution_ms).collect();
        let parts = plan.as_ref().map_or(wholes.len(), |p| p.parts()).max(1) as u64;
        let opener = Opener {
            store: of.store.clone(),
            tenant: of.tenant.clone(),
            visibility: of.visibility.clone(),
            read: ReadOptions {
                range: of.range,
                batch_bytes: (of.memory_bytes / parts / 2).clamp(32 << 10, 8 << 20),
                ..of.read.clone()
            },
        };
        let mut inputs = Vec::new();
        let mut before = Vec::new();
        match &plan {
            None => {
                for whole in wholes {
                    let Some((first, rest)) = whole.split_first() else { continue };
                    let cursor = Source::Block(Box::new(opener.open(first)?));
                    inputs.push(Input::new(cursor, first, rest, 0, Arc::default()));
                }
            }
            // Without a label the order of series may be another across shares too: each is read by itself.
            Some(plan) => {
                for (at, block) in of.blocks.iter().enumerate() {
                    inputs.extend(opener.replicas(block, plan.of_block(at), &plan.labels)?);
                }
                if let Some((_, range)) = replicas::before(of.range) {
                    let opener =
                        Opener { read: ReadOptions { range, ..opener.read.clone() }, ..opener.clone() };
                    for (at, block) in of.before.iter().enumerate() {
                        before.extend(opener.replicas(block, plan.of_block_before(at), &plan.labels)?);
                    }
                }
            }
        }
        Ok(Merge {
            inputs,
            timelines: SharedTimelines::default(),
            counts: Counts::default(),
            range: of.range,
            opener,
            replicas: plan.map(|p| p.unnamed),
            before,
        })
    }

    /// What was said last before the range of a series.
    fn said(&mut self, labels: &Labels) -> Option<SeriesColumns> {
        let (said, _) = replicas::before(self.range)?;
        let mut found: Vec<Copy> = Vec::new();
        // Not of the samples that are merged.
        let mut aside = Counts::default();
        for input in &mut self.before {
            loop {
                if let Err(e) = input.fill(&mut aside, &self.opener) {
                    tracing::warn!(
                        "what lies before a span cannot be read, replicas are chosen without it: {e}"
                    );
                    input.ended = true;
                }
                let Some(series) = input.ready.front() else { break };
                let order = series.labels.series_cmp(labels);
                if order.is_gt() {
                    break;
                }
                let (replica, origin) = (input.replica, input.origin);
                let series = input.ready.pop_front().filter(|_| order.is_eq());
                found.extend(series.map(|series| Copy { replica, origin, series }));
            }
        }
        if found.is_empty() {
            return None;
        }
        let replicas = by_replica(found, &mut self.timelines);
        replicas::merge(labels.clone(), replicas.into_iter().map(|(_, s)| s).collect(), None, said)
    }

    /// The next series in the order of [`Labels::series_cmp`]; `None` at the end.
    pub fn next_series(&mut self) -> Result<Option<SeriesColumns>, ReadError> {
        loop {
            let mut first: Option<&Labels> = None;
            for input in &mut self.inputs {
                input.fill(&mut self.counts, &self.opener)?;
            }
            for series in self.inputs.iter().filter_map(|i| i.ready.front()) {
                if first.is_none_or(|f| series.labels.series_cmp(f).is_lt()) {
                    first = Some(&series.labels);
                }
            }
            let Some(first) = first.cloned() else { return Ok(None) };
            // By replica, and of each its copies, oldest first.
            let mut found: Vec<Copy> = Vec::new();
            for input in &mut self.inputs {
                // A block may hold several series that become one when labels are taken out; they are of
                // different replicas.
                while input.ready.front().is_some_and(|s| s.labels == first) {
                    let series = input.ready.pop_front().expect("it was looked at");
                    input.ready_bytes = input.ready_bytes.saturating_sub(series.memory_bytes());
                    found.push(Copy { replica: input.replica, origin: input.origin, series });
                    if input.ready.is_empty() {
                        break;
                    }
                }
            }
            let merged = match self.replicas {
                Some(unnamed) => self.merge_replicas(first, found, unnamed),
                None => self.merge_copies(found),
            };
            if let Some(series) = merged {
                self.counts.series_merged += 1;
                self.counts.merged += series.ts_ms.len() as u64;
                return Ok(Some(series));
            }
        }
    }

    fn merge_copies(&mut self, found: Vec<Copy>) -> Option<SeriesColumns> {
        let before = samples_of_copies(&found);
        let merged = by_replica(found, &mut self.timelines).pop().map(|(_, s)| s)?;
        self.counts.duplicates += before - merged.ts_ms.len() as u64;
        Some(merged)
    }

    fn merge_replicas(
        &mut self,
        labels: Labels,
        found: Vec<Copy>,
        unnamed: Option<usize>,
    ) -> Option<SeriesColumns> {
        let all = samples_of_copies(&found);
        let mut replicas = by_replica(found, &mut self.timelines);
        let before = samples_of(&replicas);
        self.counts.duplicates += all - before;
        // It is no replica, to queries neither.
        if let [(only, _)] = &replicas[..]
            && Some(*only) == unnamed
        {
            return replicas.pop().map(|(_, s)| s);
        }
        if replicas.len() > 1 {
            self.counts.replica_series += replicas.len() as u64;
            self.counts.replica_series_merged += 1;
        }
        let said = self.said(&labels);
        let replicas = replicas.into_iter().map(|(_, s)| s).collect();
        let merged = replicas::merge(labels, replicas, said.as_ref(), self.range);
        self.counts.replicas += before - merged.as_ref().map_or(0, |m| m.ts_ms.len() as u64);
        merged
    }

    /// What has been read and merged so far; whole once [`Merge::next_series`] has ended.
    pub fn counts(&self) -> Counts {
        let mut counts = self.counts;
        for input in &self.inputs {
            let (read, hidden) = input.counts();
            counts.read += read;
            counts.hidden += hidden;
        }
        counts
    }

    /// About how many bytes of memory it holds, the cache of blocks included.
    pub fn held_bytes(&self) -> u64 {
        self.inputs.iter().chain(&self.before).map(Input::held_bytes).sum::<u64>()
            + self.opener.store.cache_stats().bytes as u64
    }
}
