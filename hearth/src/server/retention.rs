//! How long things are kept, as it is now: reloads and the file of limits may change it while queries run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use compactor::settings::{RetentionSettings, TenantRetention};
use model::tenant::TenantId;
use model::tenant_limits::{Limit, LimitsInForce};
use parking_lot::RwLock;
use tsdb::deletion::selector_text;

use crate::config::value::Span;

/// Windows of rollups.
const FIVE_MINUTES_MS: i64 = 300_000;
const HOUR_MS: i64 = 3_600_000;

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

/// How long a tenant's things are kept, by their names, for people. Nothing that is set for another tenant
/// alone.
pub fn texts_of(keep: &RetentionSettings, tenant: &TenantId) -> BTreeMap<String, String> {
    let shown = |keep_ms: Option<i64>| match keep_ms.and_then(|ms| u64::try_from(ms).ok()) {
        None | Some(0) => "for ever".to_owned(),
        Some(ms) => Span(Duration::from_millis(ms)).to_string(),
    };
    let mut texts: BTreeMap<String, String> =
        [("raw samples", 0), ("5m rollups", FIVE_MINUTES_MS), ("1h rollups", HOUR_MS)]
            .into_iter()
            .map(|(name, resolution_ms)| (name.to_owned(), shown(keep.of(tenant, resolution_ms))))
            .collect();
    let rules = keep.rules_of(tenant).rules;
    let rules = rules.iter().map(|r| format!("{}={}", selector_text(&r.matchers), shown(r.keep_ms)));
    let rules = rules.collect::<Vec<_>>().join(",");
    if !rules.is_empty() {
        texts.insert("some series".to_owned(), rules);
    }
    texts
}

#[cfg(test)]
mod tests {
    use compactor::settings::TenantRule;
    use model::matcher::{MatchOp, Matcher};
    use model::tenant_limits::TenantLimits;
    use tsdb::deletion::RetentionRule;

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

    #[test]
    fn retention_is_shown_to_a_tenant_without_what_others_have() {
        let [a, b] = ["a", "b"].map(|t| TenantId::new(t).unwrap());
        let rule = |tenant: Option<&TenantId>, job: &str| TenantRule {
            tenant: tenant.cloned(),
            rule: RetentionRule {
                matchers: vec![Matcher::new(MatchOp::Equal, "job", job).unwrap()],
                keep_ms: Some(86_400_000),
            },
        };
        let own = TenantRetention { raw_ms: Some(Some(7 * 86_400_000)), ..TenantRetention::default() };
        let keep = RetentionSettings {
            raw_ms: None,
            resolutions_ms: [(HOUR_MS, Some(HOUR_MS))].into(),
            tenants: [(b.clone(), own)].into(),
            rules: vec![rule(None, "all"), rule(Some(&b), "of_b")],
        };
        let shown = |tenant| format!("{:?}", texts_of(&keep, tenant));
        assert_eq!(
            shown(&a),
            r#"{"1h rollups": "1h", "5m rollups": "for ever", "raw samples": "for ever", "some series": "{job=\"all\"}=1d"}"#
        );
        assert!(shown(&b).contains("of_b") && shown(&b).contains(r#""raw samples": "7d""#), "{}", shown(&b));
    }
}
