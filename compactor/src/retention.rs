//! Which blocks are past their time: metadata and the hour in, names out.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use model::tenant::TenantId;
use tsdb::block::BlockMeta;
use tsdb::catalog::Snapshot;
use tsdb::deletion::RetentionRules;
use ulid::Ulid;

use crate::settings::RetentionSettings;

/// Before this every sample in a tenant's blocks of a resolution has expired; `None`: some are kept for ever.
pub fn nothing_kept_before_ms(
    keep: &RetentionSettings,
    tenant: &TenantId,
    resolution_ms: i64,
    now_ms: i64,
) -> Option<i64> {
    let rules = keep.rules_of(tenant);
    RetentionRules { otherwise_ms: keep.of(tenant, resolution_ms), ..rules }.nothing_kept_before_ms(now_ms)
}

/// Whether `a` is longer than `b`; `None` is for ever.
fn longer(a: Option<i64>, b: Option<i64>) -> bool {
    match (a, b) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(a), Some(b)) => a > b,
    }
}

/// The live blocks that may go now.
///
/// A raw block waits until it has been downsampled to every resolution that is kept for longer than it,
/// because nothing else could make those any more. Shares of a whole go together, or what is left of it would
/// be taken for all there is. It waits as well where one of these is quarantined: what was made of it may be
/// lost, and it is all there is. A raw block also waits for what lies over it and has not expired (late
/// samples that were not merged with it yet), or their windows would be told apart for ever. One that is
/// quarantined does not wait: it cannot be read. `resolutions_ms` are those that compaction makes.
pub fn expired(
    blocks: &[Arc<BlockMeta>],
    quarantined: &BTreeSet<Ulid>,
    tenant: &TenantId,
    keep: &RetentionSettings,
    resolutions_ms: &[i64],
    now_ms: i64,
) -> Vec<Ulid> {
    let mut ends: HashMap<(i64, Ulid), i64> = HashMap::new();
    for b in blocks {
        let end = ends.entry((b.resolution_ms, b.whole())).or_insert(b.max_t_ms);
        *end = (*end).max(b.max_t_ms);
    }
    let past = |b: &BlockMeta| {
        let end = ends.get(&(b.resolution_ms, b.whole())).copied().unwrap_or(b.max_t_ms);
        nothing_kept_before_ms(keep, tenant, b.resolution_ms, now_ms).is_some_and(|first| end < first)
    };
    // A rollup that cannot be read takes the place of nothing.
    let lost = |b: &BlockMeta, r: i64| {
        let of = |o: &&Arc<BlockMeta>| o.resolution_ms == r && o.overlaps(b.min_t_ms, b.max_t_ms) && !past(o);
        blocks.iter().filter(of).any(|o| quarantined.contains(&o.ulid))
    };
    let succeeded = |b: &BlockMeta| {
        let needed = |r: &&i64| longer(keep.of(tenant, **r), keep.of(tenant, 0));
        b.resolution_ms != 0
            || quarantined.contains(&b.ulid)
            || resolutions_ms.iter().filter(needed).all(|r| b.downsampled_ms.contains(r) && !lost(b, *r))
    };
    let waits = |b: &BlockMeta| {
        let over = |o: &&Arc<BlockMeta>| {
            o.resolution_ms == 0
                && o.ulid != b.ulid
                && !quarantined.contains(&o.ulid)
                && o.overlaps(b.min_t_ms, b.max_t_ms)
                && !past(o)
        };
        b.resolution_ms == 0 && !quarantined.contains(&b.ulid) && blocks.iter().any(|o| over(&o))
    };
    blocks.iter().filter(|b| past(b) && succeeded(b) && !waits(b)).map(|b| b.ulid).collect()
}

/// What retention changes now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Live blocks past their time.
    pub expire: Vec<Ulid>,
    /// Expired ones that are not past it, or not any more: the clock went back, or the retention was raised.
    pub restore: Vec<Ulid>,
    /// Expired ones that nobody has brought back for long enough.
    pub give_up: Vec<Ulid>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.expire.is_empty() && self.restore.is_empty() && self.give_up.is_empty()
    }
}

/// What there is to change of a snapshot. `now_ms` decides what goes; `clock_ms`, which is not before it,
/// what comes back. `delay_ms` is how long expired blocks are kept.
pub fn changes(
    snapshot: &Snapshot,
    tenant: &TenantId,
    keep: &RetentionSettings,
    resolutions_ms: &[i64],
    now_ms: i64,
    clock_ms: i64,
    delay_ms: i64,
) -> Changes {
    let quarantined: BTreeSet<Ulid> = snapshot.quarantined.keys().copied().collect();
    let expire = expired(&snapshot.blocks, &quarantined, tenant, keep, resolutions_ms, now_ms);
    // Shares of a whole went together, and come back together.
    let mut ends: HashMap<(i64, Ulid), i64> = HashMap::new();
    for e in &snapshot.expired {
        let end = ends.entry((e.block.resolution_ms, e.block.whole())).or_insert(e.block.max_t_ms);
        *end = (*end).max(e.block.max_t_ms);
    }
    let (mut restore, mut give_up) = (Vec::new(), Vec::new());
    for e in &snapshot.expired {
        let end_ms = ends[&(e.block.resolution_ms, e.block.whole())];
        let kept_from_ms = nothing_kept_before_ms(keep, tenant, e.block.resolution_ms, clock_ms);
        if kept_from_ms.is_none_or(|first| end_ms >= first) {
            restore.push(e.block.ulid);
        } else if now_ms.saturating_sub(e.since_ms) >= delay_ms {
            give_up.push(e.block.ulid);
        }
    }
    Changes { expire, restore, give_up }
}
