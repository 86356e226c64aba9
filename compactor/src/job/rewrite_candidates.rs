//! Which blocks still hold what deletion or a rule of retention hides, found from their labels alone.
//!
//! Metadata only says which blocks *may*. Those are looked through once: a block without such series is noted
//! as clean in the catalog (for deletions) or remembered here (for rules, whose end moves), and costs nothing
//! further.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use model::matcher::matches_all;
use model::source::SourceError;
use model::tenant::TenantId;
use tsdb::block::{BlockMeta, BlockReader, ReadOptions};
use tsdb::bucket::BlockStore;
use tsdb::catalog::{Edit, Snapshot};
use tsdb::deletion::{RetentionRules, Visibility};
use ulid::Ulid;

use crate::plan::{BlockStates, windows_alone};

/// What is remembered of blocks that were looked through: how many rules had run out for them, and whether
/// any of their series is concerned.
#[derive(Debug, Default)]
pub struct Remembered {
    rules: HashMap<Ulid, (usize, bool)>,
}

/// What a look through a block's labels found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    deleted: bool,
    expired: bool,
}

/// The blocks to look through, and for each how many rules have run out for all of it.
pub fn suspects(
    snapshot: &Snapshot,
    rules: &RetentionRules,
    known: &Remembered,
    now_ms: i64,
) -> Vec<(Arc<BlockMeta>, usize)> {
    let visibility = snapshot.visibility();
    let alone: BTreeSet<Ulid> = windows_alone(&snapshot.blocks).iter().map(|b| b.ulid).collect();
    let ours = |b: &BlockMeta| b.resolution_ms == 0 || alone.contains(&b.ulid);
    let readable = |b: &&Arc<BlockMeta>| ours(b) && !snapshot.quarantined.contains_key(&b.ulid);
    let mut out = Vec::new();
    for block in snapshot.blocks.iter().filter(readable) {
        let run_out = run_out(block, rules, now_ms);
        let unknown = run_out > 0 && known.rules.get(&block.ulid).is_none_or(|(n, _)| *n != run_out);
        if unknown || !visibility.tombstones_of(block).is_empty() {
            out.push((block.clone(), run_out));
        }
    }
    out
}

/// How many rules say that all of a block's time is over.
fn run_out(block: &BlockMeta, rules: &RetentionRules, now_ms: i64) -> usize {
    let over = |keep: i64| block.max_t_ms < now_ms.saturating_sub(keep);
    rules.rules.iter().filter(|r| r.keep_ms.is_some_and(over)).count()
}

/// Looks through the suspects. Returns what the planner needs and what the catalog should know. Blocks the
/// thread.
pub fn look_through(
    snapshot: &Snapshot,
    rules: &Arc<RetentionRules>,
    known: &mut Remembered,
    store: &Arc<BlockStore>,
    tenant: &TenantId,
    read: &ReadOptions,
    now_ms: i64,
) -> (BlockStates, Edit) {
    let mut states = BlockStates {
        blocked: snapshot.quarantined.keys().copied().collect::<BTreeSet<_>>(),
        ..BlockStates::default()
    };
    let mut edit = Edit::default();
    let live: BTreeSet<Ulid> = snapshot.blocks.iter().map(|b| b.ulid).collect();
    known.rules.retain(|block, _| live.contains(block));
    let visibility = snapshot.visibility();
    let newest = snapshot.tombstones.last().map(|t| t.ulid);
    for (block, run_out) in suspects(snapshot, rules, known, now_ms) {
        let found = match look(store, tenant, &block, &visibility, rules, read, now_ms) {
            Ok(found) => found,
            Err(e) => {
                // Whoever compacts it will find out what is wrong.
                tracing::warn!(block = %block.ulid, "cannot be looked through for deleted series: {e}");
                continue;
            }
        };
        if found.deleted {
            states.rewrite_candidates.insert(block.ulid);
        } else if let Some(newest) = newest.filter(|_| !visibility.tombstones_of(&block).is_empty()) {
            edit.clean.push((block.ulid, newest));
        }
        known.rules.insert(block.ulid, (run_out, found.expired));
    }
    states
        .rewrite_candidates
        .extend(known.rules.iter().filter(|(_, (_, expired))| *expired).map(|(block, _)| *block));
    (states, edit)
}

fn look(
    store: &Arc<BlockStore>,
    tenant: &TenantId,
    block: &Arc<BlockMeta>,
    visibility: &Visibility,
    rules: &RetentionRules,
    read: &ReadOptions,
    now_ms: i64,
) -> Result<Found, SourceError> {
    let tombstones = visibility.tombstones_of(block);
    let mut reader = BlockReader::open(store, tenant, block, &Visibility::default(), read.clone())?;
    let mut found = Found::default();
    while let Some(batch) = reader.next_labels()? {
        for labels in &batch {
            found.deleted |= tombstones.iter().any(|t| matches_all(labels, &t.matchers));
            found.expired |= rules.first_kept_ms(labels, now_ms).is_some_and(|first| block.max_t_ms < first);
        }
        if found.deleted && found.expired {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::matcher::Matcher;
    use tsdb::deletion::{RetentionRule, Tombstone};

    const DAY: i64 = 86_400_000;

    fn block(n: u64, max_t_ms: i64, resolution_ms: i64) -> BlockMeta {
        let ulid = Ulid::from_parts(n, 0);
        BlockMeta { ulid, max_t_ms, resolution_ms, ..BlockMeta::default() }
    }

    fn with(blocks: Vec<BlockMeta>, bury: Vec<Tombstone>) -> Snapshot {
        let added = blocks.into_iter().fold(Snapshot::empty(), |snapshot, block| {
            let n = snapshot.number + 1;
            snapshot
                .apply(&Edit::flush(Some(block), "test", n), "test", Ulid::from_parts(100 + n, 0))
                .unwrap()
        });
        let edit = Edit { bury, ..Edit::default() };
        added.apply(&edit, "test", Ulid::from_parts(1000, 0)).unwrap()
    }

    #[test]
    fn suspects_are_blocks_that_a_rule_has_run_out_for_once_for_each_number_of_rules() {
        let rule = |days: i64| RetentionRule {
            matchers: vec![Matcher::equal("job", "debug")],
            keep_ms: Some(days * DAY),
        };
        let rules = RetentionRules { rules: vec![rule(1), rule(3)], otherwise_ms: None };
        let snapshot = with(vec![block(1, 0, 0), block(2, 5 * DAY, 0)], vec![]);
        let mut known = Remembered::default();
        let at = |known: &Remembered, now_ms| {
            let found = suspects(&snapshot, &rules, known, now_ms);
            found.iter().map(|(b, run_out)| (b.ulid.timestamp_ms(), *run_out)).collect::<Vec<_>>()
        };
        assert!(at(&known, DAY).is_empty(), "to the millisecond it is kept");
        assert_eq!(at(&known, DAY + 1), [(1, 1)]);
        known.rules.insert(Ulid::from_parts(1, 0), (1, false));
        assert!(at(&known, 2 * DAY).is_empty(), "it was looked through for that rule");
        assert_eq!(at(&known, 3 * DAY + 1), [(1, 2)], "another rule has run out since");
        assert_eq!(at(&known, 9 * DAY), [(1, 2), (2, 2)]);
    }

    #[test]
    fn suspects_of_a_deletion_are_samples_and_windows_whose_samples_are_gone() {
        let tombstone = Tombstone::new(vec![Matcher::equal("job", "x")], i64::MIN, i64::MAX, 0);
        let of_samples = BlockMeta { sources: vec![Ulid::from_parts(1, 0)], ..block(2, 10, 300_000) };
        let alone = BlockMeta { sources: vec![Ulid::from_parts(9, 0)], ..block(3, 10, 300_000) };
        let snapshot = with(vec![block(1, 10, 0), of_samples, alone], vec![tombstone]);
        let found = suspects(&snapshot, &RetentionRules::default(), &Remembered::default(), 0);
        let numbers: Vec<u64> = found.iter().map(|(b, _)| b.ulid.timestamp_ms()).collect();
        assert_eq!(numbers, [1, 3], "windows beside their samples are made anew with them");
    }
}
