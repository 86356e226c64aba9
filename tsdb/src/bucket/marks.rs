//! What an answer out of blocks depends on. Compaction changes none of it: a block counts as the blocks that
//! were flushed or imported into it, and of these only those with samples in the range that was read. Only
//! where samples of several writers were merged and others lie beside them does it count as itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::source::{MarkBuilder, Read};
use ulid::Ulid;

use super::BucketSource;
use super::resolution::Part;
use crate::block::BlockMeta;
use crate::deletion::Visibility;

impl BucketSource {
    /// Adds what a read depends on; `false` where that changes by itself, because samples expire. `beside`:
    /// there may be samples in the range that are in none of these blocks.
    pub fn add_marks(&self, read: &Read, beside: bool, mark: &mut MarkBuilder) -> bool {
        if self.visibility.expires_before_ms().is_some_and(|kept| read.min_t_ms < kept) {
            return false;
        }
        let parts = self.parts((read.min_t_ms, read.max_t_ms), &read.rollups, &[]);
        for (part, blocks) in &parts {
            mark_part(part, blocks, &self.visibility, beside, mark);
        }
        true
    }
}

fn mark_part(
    part: &Part,
    blocks: &[Arc<BlockMeta>],
    visibility: &Visibility,
    beside: bool,
    mark: &mut MarkBuilder,
) {
    let (min_t_ms, max_t_ms) = (part.min_t_ms, part.max_t_ms);
    // A window tells of the samples since the one before it.
    let first_ms = min_t_ms.saturating_sub(part.resolution_ms);
    let mut origins: BTreeSet<(i64, Ulid)> = BTreeSet::new();
    let mut tombstones: BTreeSet<Ulid> = BTreeSet::new();
    let mut here = Vec::new();
    for block in blocks {
        let hiding = visibility.tombstones_of(block);
        let hiding = hiding.iter().filter(|t| t.min_t_ms <= max_t_ms && t.max_t_ms >= first_ms);
        tombstones.extend(hiding.map(|t| t.ulid));
        let itself = || vec![(block.ulid, (block.min_t_ms, block.max_t_ms))];
        let mut of_block = block.origins().unwrap_or_else(itself);
        of_block.retain(|(_, span)| span.0 <= max_t_ms && span.1 >= first_ms);
        if !of_block.is_empty() {
            here.push((block, of_block));
        }
    }
    // Which of two samples of one time stands depends on how they were merged, where several writers' were.
    let whole = here.first().map(|(first, _)| first.whole());
    let conflicts = beside || here.iter().any(|(block, _)| Some(block.whole()) != whole);
    for (block, of_block) in here {
        match conflicts && block.writers.len() != 1 {
            true => drop(origins.insert((block.resolution_ms, block.ulid))),
            false => origins.extend(of_block.into_iter().map(|(origin, _)| (block.resolution_ms, origin))),
        }
    }
    if origins.is_empty() && part.resolution_ms == 0 {
        // Nothing was found there, which the next block may lie beside as well.
        return;
    }
    mark.time(min_t_ms).time(max_t_ms).time(part.resolution_ms);
    mark.number(u64::from(part.coarse)).number(u64::from(part.approximate));
    mark.number(origins.len() as u64).number(tombstones.len() as u64);
    for (resolution_ms, origin) in origins {
        mark.time(resolution_ms).name(origin.0);
    }
    for tombstone in tombstones {
        mark.name(tombstone.0);
    }
}
