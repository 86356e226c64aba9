//! How long things are kept, as it is now: reloads and the file of limits may change it while queries run.

use std::collections::BTreeMap;
use std::sync::Arc;

use compactor::settings::{RetentionSettings, TenantRetention};
use model::tenant_limits::{Limit, LimitsInForce};
use parking_lot::RwLock;

/// How long things are kept, for queries. Cheap to clone.
#[derive(Clone)]
pub struct Retention(Arc<RwLock<Arc<RetentionSettings>>>);

impl Retention {
    pub fn new(keep: RetentionSettings) -> Retention {
        Retention(Arc::new(RwLock::new(Arc::new(keep))))
    }

    pub fn get(&self) -> Arc<RetentionSettings> {
        self.0.read().clone()
    }

    pub fn set(&self, keep: RetentionSettings) {
        *self.0.write() = Arc::new(keep);
    }
}

/// Retention with what single tenants have in the file of limits. There it is about all blocks of a tenant,
/// as in Mimir: rollups are not kept for longer either.
pub fn with_limits(mut keep: RetentionSettings, limits: &LimitsInForce) -> RetentionSettings {
    let everybodys = limits.defaults.get(Limit::BlocksRetentionPeriod);
    for (tenant, own) in &limits.overrides {
        let period = own.get(Limit::BlocksRetentionPeriod);
        if period == everybodys {
            continue;
        }
        let period_ms = Some(period).filter(|ms| *ms > 0).map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
        let shorter = |kept_ms: Option<i64>| [kept_ms, period_ms].into_iter().flatten().min();
        let resolutions_ms: BTreeMap<i64, Option<i64>> =
            keep.resolutions_ms.keys().map(|r| (*r, shorter(keep.of(tenant, *r)))).collect();
        keep.tenants.insert(tenant.clone(), TenantRetention { raw_ms: Some(period_ms), resolutions_ms });
    }
    keep
}

#[cfg(test)]
mod tests {
    use model::tenant::TenantId;
    use model::tenant_limits::TenantLimits;

    use super::*;

    #[test]
    fn retention_of_a_tenant_in_the_file_of_limits_is_about_all_of_its_blocks() {
        let keep = RetentionSettings {
            raw_ms: Some(100),
            resolutions_ms: [(300_000, Some(1_000)), (3_600_000, None)].into(),
            ..RetentionSettings::default()
        };
        let of = |ms: u64| {
            let mut limits = TenantLimits::default();
            limits.set(Limit::BlocksRetentionPeriod, ms);
            Arc::new(limits)
        };
        let [a, b, c] = ["a", "b", "c"].map(|t| TenantId::new(t).unwrap());
        let limits = LimitsInForce {
            defaults: of(100),
            overrides: [(a.clone(), of(50)), (b.clone(), of(0)), (c.clone(), of(100))].into(),
        };
        let keep = with_limits(keep, &limits);
        let kept = |t| [0, 300_000, 3_600_000].map(|resolution| keep.of(t, resolution));
        assert_eq!(kept(&a), [Some(50); 3]);
        assert_eq!(kept(&b), [None, Some(1_000), None]);
        assert_eq!(kept(&c), [Some(100), Some(1_000), None]);
    }
}
