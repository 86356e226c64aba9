//! What a compactor goes by, besides the planner's own settings.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use model::tenant::TenantId;
use tsdb::block::WriteOptions;
use tsdb::deletion::{RetentionRule, RetentionRules};

use crate::plan::PlanSettings;

/// How long samples are kept.
#[derive(Clone, Debug, Default)]
pub struct RetentionSettings {
    /// Raw samples, in milliseconds; `None` for ever.
    pub raw_ms: Option<i64>,
    /// Window in milliseconds → how long downsampled blocks of it are kept; a resolution that is not named is
    /// kept for ever.
    pub resolutions_ms: BTreeMap<i64, Option<i64>>,
    /// Other times for single tenants.
    pub tenants: BTreeMap<TenantId, TenantRetention>,
    /// Series that are kept for another time than the rest, at every resolution. The first that matches
    /// decides.
    pub rules: Vec<TenantRule>,
}

/// How long one tenant's samples are kept; what is `None` is as for everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantRetention {
    pub raw_ms: Option<Option<i64>>,
    pub resolutions_ms: BTreeMap<i64, Option<i64>>,
}

/// A rule for some series of one tenant or of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRule {
    /// `None`: every tenant.
    pub tenant: Option<TenantId>,
    pub rule: RetentionRule,
}

impl RetentionSettings {
    /// How long a tenant's blocks of a resolution (0: raw) are kept, rules aside.
    pub fn of(&self, tenant: &TenantId, resolution_ms: i64) -> Option<i64> {
        let own = self.tenants.get(tenant);
        if resolution_ms == 0 {
            return own.and_then(|t| t.raw_ms).unwrap_or(self.raw_ms);
        }
        let own = own.and_then(|t| t.resolutions_ms.get(&resolution_ms));
        own.or(self.resolutions_ms.get(&resolution_ms)).copied().flatten()
    }

    /// The rules of a tenant, for masks: samples that no rule speaks of are kept until their block goes.
    pub fn rules_of(&self, tenant: &TenantId) -> RetentionRules {
        let of = |r: &&TenantRule| r.tenant.as_ref().is_none_or(|t| t == tenant);
        RetentionRules {
            rules: self.rules.iter().filter(of).map(|r| r.rule.clone()).collect(),
            otherwise_ms: None,
        }
    }
}

/// All that a compactor goes by.
#[derive(Clone, Debug)]
pub struct Settings {
    pub plan: PlanSettings,
    /// Memory one job may hold, in bytes.
    pub max_memory_bytes: u64,
    /// About how many bytes a block may have: what would become larger is written as several.
    pub max_block_bytes: u64,
    /// About how many bytes a job may have on scratch disk at a time; it writes smaller blocks rather than
    /// more. A single series always fits.
    pub max_scratch_bytes: u64,
    /// Folder for blocks that are being written; one process at a time has a part of it.
    pub scratch: PathBuf,
    pub keep: RetentionSettings,
    /// Labels that tell apart replicas of one series, which compaction makes one; empty: replicas stay apart.
    pub replica_labels: Vec<String>,
    /// How long blocks past their retention can still be brought back: by themselves where the clock or the
    /// retention says so again. Zero: not.
    pub expired_delay: Duration,
    /// How far this machine's clock may be ahead of the newest sample in the bucket and of the store's clock
    /// where it decides what is deleted: what is further ahead is not believed. `None`: it always is, for
    /// tests with clocks of their own.
    pub max_clock_lead: Option<Duration>,
    /// How long replaced blocks stay in the store: longer than the longest query.
    pub delete_delay: Duration,
    /// How long objects that no snapshot ever named may be there: longer than any upload takes.
    pub orphan_grace: Duration,
    /// How often garbage is looked for: it costs a LIST of all blocks.
    pub garbage_interval: Duration,
    /// How often there is a look at the catalogs when there is nothing to do.
    pub interval: Duration,
    /// How long a claim holds without being renewed.
    pub lease: Duration,
    /// Read back every raw block that was written and compare it with what went in, before its inputs are
    /// replaced.
    pub verify: bool,
    /// Attempts of a read, and the first pause between two.
    pub attempts: u32,
    pub pause: Duration,
}

impl Settings {
    /// Defaults around a scratch folder.
    pub fn new(scratch: impl Into<PathBuf>) -> Settings {
        Settings {
            plan: PlanSettings::default(),
            max_memory_bytes: 512 << 20,
            max_block_bytes: 512 << 20,
            max_scratch_bytes: 16 << 30,
            scratch: scratch.into(),
            keep: RetentionSettings::default(),
            replica_labels: Vec::new(),
            expired_delay: Duration::from_secs(24 * 3600),
            max_clock_lead: Some(Duration::from_secs(24 * 3600)),
            delete_delay: Duration::from_secs(30 * 60),
            orphan_grace: Duration::from_secs(6 * 3600),
            garbage_interval: Duration::from_secs(15 * 60),
            interval: Duration::from_secs(60),
            lease: Duration::from_secs(120),
            verify: true,
            attempts: 4,
            pause: Duration::from_millis(200),
        }
    }

    /// The cache of blocks, in bytes: an eighth.
    pub(crate) fn cache_bytes(&self) -> usize {
        usize::try_from(self.max_memory_bytes / 8).unwrap_or(usize::MAX)
    }

    /// All batches of all inputs: a quarter.
    pub(crate) fn input_bytes(&self) -> u64 {
        self.max_memory_bytes / 4
    }

    /// How a block is written: raw with a sixteenth for its row group and another for its timelines,
    /// downsampled ones with half of that.
    pub(crate) fn write_options(&self, resolution_ms: i64) -> WriteOptions {
        let part = usize::try_from(self.max_memory_bytes / if resolution_ms == 0 { 16 } else { 32 });
        let part = part.unwrap_or(usize::MAX).clamp(64 << 10, 256 << 20);
        WriteOptions {
            row_group_bytes: part,
            timeline_memory_bytes: part,
            batch_bytes: (self.max_memory_bytes / 64).clamp(64 << 10, 8 << 20),
            ..match resolution_ms {
                0 => WriteOptions::compacted(),
                _ => WriteOptions::downsampled(resolution_ms),
            }
        }
    }
}

/// A setting's duration in whole milliseconds, as time is counted everywhere else.
pub(crate) fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_job_is_shared_out_and_its_parts_have_bounds() {
        for bytes in [1 << 20, 512 << 20, 1 << 40] {
            let settings = Settings { max_memory_bytes: bytes, ..Settings::new("scratch") };
            let (raw, windows) = (settings.write_options(0), settings.write_options(300_000));
            let all = [
                settings.cache_bytes(),
                settings.input_bytes() as usize,
                raw.row_group_bytes + raw.timeline_memory_bytes,
                2 * (windows.row_group_bytes + windows.timeline_memory_bytes),
            ];
            assert!(all.iter().sum::<usize>() as u64 <= bytes, "{bytes}: {all:?}");
            for options in [raw, windows] {
                assert!((64 << 10..=256 << 20).contains(&options.row_group_bytes), "{bytes}");
                assert!((64 << 10..=8 << 20).contains(&options.batch_bytes), "{bytes}");
            }
        }
    }
}
