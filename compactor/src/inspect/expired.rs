//! What retention took out of a tenant's catalog and can still be brought back.

use std::collections::BTreeSet;

use model::tenant::TenantId;
use serde::Serialize;
use tsdb::catalog::{Edit, Snapshot};
use ulid::Ulid;

use crate::retention::nothing_kept_before_ms;
use crate::settings::RetentionSettings;

/// A block that can be brought back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExpiredLine {
    pub tenant: String,
    pub block: String,
    pub resolution_ms: i64,
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    pub samples: u64,
    pub bytes: u64,
    /// When it was taken out, in milliseconds.
    pub since_ms: i64,
    /// Whether the settings would take it out again.
    pub past_retention: bool,
}

/// The expired blocks of a snapshot, all or those of `wanted` (with the shares that belong to them, because a
/// whole comes back as one), as they are at `now_ms` by the retention that is set.
pub fn expired(
    tenant: &TenantId,
    snapshot: &Snapshot,
    wanted: &[Ulid],
    keep: &RetentionSettings,
    now_ms: i64,
) -> Vec<ExpiredLine> {
    let asked = |ulid: &Ulid| wanted.is_empty() || wanted.contains(ulid);
    let all = || snapshot.expired.iter().map(|e| (&e.block, e.since_ms));
    let wholes: BTreeSet<(i64, Ulid)> =
        all().filter(|(b, _)| asked(&b.ulid)).map(|(b, _)| (b.resolution_ms, b.whole())).collect();
    let past = |b: &tsdb::block::BlockMeta| {
        nothing_kept_before_ms(keep, tenant, b.resolution_ms, now_ms).is_some_and(|first| b.max_t_ms < first)
    };
    all()
        .filter(|(b, _)| wholes.contains(&(b.resolution_ms, b.whole())))
        .map(|(b, since_ms)| ExpiredLine {
            tenant: tenant.to_string(),
            block: b.ulid.to_string(),
            resolution_ms: b.resolution_ms,
            min_t_ms: b.min_t_ms,
            max_t_ms: b.max_t_ms,
            samples: b.stats.samples,
            bytes: b.files.bytes(),
            since_ms,
            past_retention: past(b),
        })
        .collect()
}

/// The commit that brings them back.
pub fn restore(lines: &[ExpiredLine]) -> Edit {
    let blocks = lines.iter().filter_map(|line| Ulid::from_string(&line.block).ok());
    Edit { restore: blocks.collect(), ..Edit::default() }
}
