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
