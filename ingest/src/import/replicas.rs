//! Blocks read together: of a series that several have there comes one, by the right rule for what they are
//! to each other.
//!
//! Series of one origin ([`super::relabel::Relabel`] says which labels it took from them) are copies of one
//! another, and every sample of theirs counts. Series that only relabelling makes one are what HA replicas
//! scraped, each at its own moments: taken for copies, their samples would lie between each other and every
//! counter would seem to fall at each of them. They go through the rule that queries and compaction merge
//! replicas by.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use model::labels::Labels;
use model::rollup::merge_overlapping;
use model::source::SeriesColumns;
use model::source::merge::replicas::{ReplicaRule, cut, grid, merge_replicas};
use model::source::merge::{SharedTimelines, merge_copies};

use super::block::{Member, Reading, SourceBlock};
use super::{ImportError, Progress};

/// Hands over all series with samples in a range (ends included) of some blocks, in Hearth's order, each
/// once. Of blocks that drop labels the range is to be a span that [`super::unit::spans`] gives: what
/// replicas become there then depends on nothing that is imported elsewhere.
pub fn read(
    blocks: &mut [&mut SourceBlock],
    range: (i64, i64),
    progress: &mut dyn Progress,
    give: &mut dyn FnMut(SeriesColumns) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let merges = blocks.iter().any(|b| b.drops_labels() && b.resolution_ms() == 0);
    let read_range = if merges { grid::reach(range) } else { range };
    let mut inputs: Vec<Input<'_>> = blocks
        .iter_mut()
        .map(|block| Input { reading: Reading::new(block, read_range), ready: VecDeque::new(), ended: false })
        .collect();
    let mut timelines = SharedTimelines::default();
    loop {
        for input in &mut inputs {
            input.fill(progress)?;
        }
        let fronts = inputs.iter().filter_map(|i| i.ready.front()).map(|m| &m.series.labels);
        let Some(least) = fronts.min_by(|a, b| a.series_cmp(b)).cloned() else { return Ok(()) };
        let mut by_origin: BTreeMap<Vec<String>, Vec<SeriesColumns>> = BTreeMap::new();
        for input in &mut inputs {
            while let Some(member) = input.ready.pop_front_if(|m| m.series.labels == least) {
                by_origin.entry(member.origin).or_default().push(member.series);
                input.fill(progress)?;
            }
        }
        let mut merged: Vec<SeriesColumns> =
            by_origin.into_values().filter_map(|copies| merge_copies_of(copies, &mut timelines)).collect();
        let series = match merged.len() {
            // Alone in the range and around it, a replica is what it is.
            1 => merged.pop().and_then(|only| cut(only, range)),
            _ => merge_replicas(least, merged, range, ReplicaRule::Grid),
        };
        if let Some(series) = series {
            give(series)?;
        }
    }
}

impl SourceBlock {
    /// Hands over all series with samples in a range (ends included), in Hearth's order, each once.
    pub fn read(
        &mut self,
        range: (i64, i64),
        progress: &mut dyn Progress,
        give: &mut dyn FnMut(SeriesColumns) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        read(&mut [self], range, progress, give)
    }
}

/// A block, and what of it was read ahead.
struct Input<'b> {
    reading: Reading<'b>,
    ready: VecDeque<Member>,
    ended: bool,
}

impl Input<'_> {
    fn fill(&mut self, progress: &mut dyn Progress) -> Result<(), ImportError> {
        while self.ready.is_empty() && !self.ended {
            match self.reading.next_batch(progress)? {
                Some(batch) => self.ready = batch.into(),
                None => self.ended = true,
            }
        }
        Ok(())
    }
}

/// One series out of copies of it.
fn merge_copies_of(mut copies: Vec<SeriesColumns>, timelines: &mut SharedTimelines) -> Option<SeriesColumns> {
    match copies.len() {
        0 | 1 => copies.pop(),
        _ if copies.iter().any(|s| s.windows.is_some()) => Some(merge_overlapping(copies)),
        _ => Some(merge_copies(copies, timelines)),
    }
}

/// Series that are looked at before two blocks are called what they are.
const SERIES_COMPARED: usize = 100;

/// A series that two blocks of different servers both scraped, each at its own moments: then the servers are
/// an HA pair, and nothing in their blocks tells the two apart. `None` where they have no series in common,
/// or share moments because one is a copy of the other.
pub fn common_series(a: &mut SourceBlock, b: &mut SourceBlock) -> Result<Option<Labels>, ImportError> {
    let (Some(of_a), Some(of_b)) = (a.span_ms(), b.span_ms()) else { return Ok(None) };
    let range = (of_a.0.max(of_b.0), of_a.1.min(of_b.1));
    if range.0 > range.1 {
        return Ok(None);
    }
    let (mut at_a, mut at_b, mut compared) = (0, 0, 0);
    let mut common = None;
    while let (Some(in_a), Some(in_b)) = (a.labels(at_a)?, b.labels(at_b)?) {
        match in_a.series_cmp(&in_b) {
            Ordering::Less => at_a += 1,
            Ordering::Greater => at_b += 1,
            Ordering::Equal => {
                let (ts_a, ts_b) = (a.timestamps(at_a, range)?, b.timestamps(at_b, range)?);
                if ts_a.iter().any(|t| ts_b.binary_search(t).is_ok()) {
                    return Ok(None);
                }
                if !ts_a.is_empty() && !ts_b.is_empty() {
                    compared += 1;
                    common = common.or(Some(in_a));
                }
                if compared == SERIES_COMPARED {
                    break;
                }
                (at_a, at_b) = (at_a + 1, at_b + 1);
            }
        }
    }
    Ok(common)
}
