//! What one tenant may: limits by the names that Mimir and Cortex gave them, and who was refused by which.
//!
//! [`LimitsByTenant`] is one handle for a process. Whoever enforces a limit asks it at each request, so a
//! change takes effect at once, and tells it of each refusal, so that one metric shows all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::matcher::Matcher;
use crate::tenant::TenantId;

/// What a limit's number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitUnit {
    /// Things.
    Count,
    /// Things in a second.
    PerSecond,
    Bytes,
    Milliseconds,
}

macro_rules! limits {
    ($( $variant:ident = $name:literal, $unit:ident, $setting:literal, $raises:literal; )+) => {
        /// A limit of a tenant. All of them are numbers, and 0 is no limit.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Limit { $($variant),+ }

        impl Limit {
            pub const ALL: &'static [Limit] = &[$(Limit::$variant),+];

            /// As the file of overrides has it.
            pub fn name(self) -> &'static str {
                match self { $(Limit::$variant => $name),+ }
            }

            pub fn unit(self) -> LimitUnit {
                match self { $(Limit::$variant => LimitUnit::$unit),+ }
            }

            /// The setting that holds for tenants without an override.
            pub fn setting(self) -> &'static str {
                match self { $(Limit::$variant => $setting),+ }
            }

            /// What a client can do instead of having the limit raised.
            fn advice(self) -> &'static str {
                match self { $(Limit::$variant => $raises),+ }
            }
        }
    };
}

limits! {
    IngestionRate = "ingestion_rate", PerSecond, "limits.ingestion_rate", "send less";
    IngestionBurstSize = "ingestion_burst_size", Count, "limits.ingestion_burst_size", "send less at once";
    MaxSeries = "max_global_series_per_user", Count, "limits.max_global_series_per_user",
        "send fewer series";
    MaxSeriesPerMetric = "max_global_series_per_metric", Count, "limits.max_global_series_per_metric",
        "give the metric fewer labels or values";
    MaxLabelNames = "max_label_names_per_series", Count, "ingest.max_labels", "send fewer labels";
    MaxLabelNameLength = "max_label_name_length", Bytes, "ingest.max_label_name_bytes", "use shorter names";
    MaxLabelValueLength = "max_label_value_length", Bytes, "ingest.max_label_value_bytes",
        "use shorter values";
    CreationGracePeriod = "creation_grace_period", Milliseconds, "ingest.max_ahead", "set the clock right";
    PastGracePeriod = "past_grace_period", Milliseconds, "limits.past_grace_period", "send samples sooner";
    OutOfOrderWindow = "out_of_order_time_window", Milliseconds, "limits.out_of_order_time_window",
        "send samples in order or sooner";
    MaxRequestSize = "max_request_size_bytes", Bytes, "ingest.max_decoded_bytes", "send smaller batches";
    MaxFetchedSeries = "max_fetched_series_per_query", Count, "limits.max_fetched_series_per_query",
        "ask for fewer series";
    MaxFetchedChunks = "max_fetched_chunks_per_query", Count, "limits.max_fetched_chunks_per_query",
        "ask for fewer series or a shorter time";
    MaxFetchedBytes = "max_fetched_chunk_bytes_per_query", Bytes, "limits.max_fetched_chunk_bytes_per_query",
        "ask for fewer series or a shorter time";
    MaxQueryMemory = "max_estimated_memory_consumption_per_query", Bytes, "query.max_memory_bytes",
        "ask for fewer series, a shorter range or a longer step";
    MaxTotalQueryLength = "max_total_query_length", Milliseconds, "limits.max_total_query_length",
        "ask for a shorter time";
    MaxPartialQueryLength = "max_partial_query_length", Milliseconds, "limits.max_partial_query_length",
        "ask for a shorter time or a shorter range";
    MaxQueryLookback = "max_query_lookback", Milliseconds, "limits.max_query_lookback", "ask for newer samples";
    MaxQueryParallelism = "max_query_parallelism", Count, "query.max_concurrency", "wait";
    MaxOutstandingRequests = "max_outstanding_requests_per_tenant", Count,
        "limits.max_outstanding_requests_per_tenant", "ask fewer queries at once";
    BlocksRetentionPeriod = "compactor_blocks_retention_period", Milliseconds, "retention", "";
}

impl Limit {
    /// A limit by its name in a file of overrides.
    pub fn named(name: &str) -> Option<Limit> {
        Limit::ALL.iter().copied().find(|l| l.name() == name)
    }

    /// The sentence for a client that ran into the limit: `what` it did, the number, what can be done.
    pub fn refusal(self, what: impl fmt::Display, allowed: u64) -> String {
        let (unit, advice) = (self.shown(allowed), self.advice());
        format!(
            "{what}, the limit of this tenant is {unit} ({}): {advice}, or have it raised in limits.file or by {}",
            self.name(),
            self.setting()
        )
    }

    /// A number of this limit as people and the file write it.
    pub fn shown(self, value: u64) -> String {
        if self.unit() != LimitUnit::Milliseconds || value == 0 {
            return value.to_string();
        }
        let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
        let mut rest = value;
        let mut out = String::new();
        for (unit, ms) in units.into_iter().filter(|(_, ms)| value >= *ms) {
            if rest / ms > 0 {
                out += &format!("{}{unit}", rest / ms);
            }
            rest %= ms;
        }
        out
    }
}

/// Queries that a tenant's administrator does not want. What is set must all hold, and something is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockedQuery {
    /// The query's text.
    pub pattern: Option<BlockedPattern>,
    /// Longer from start to end, in milliseconds.
    pub time_range_longer_than_ms: Option<u64>,
    /// A finer step, in milliseconds; instant queries have none.
    pub step_size_shorter_than_ms: Option<u64>,
    /// What its author is told.
    pub reason: String,
}

/// Which texts a rule blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockedPattern {
    /// This one, without the white space around it.
    Text(String),
    /// Those that a regular expression matches as a whole.
    Regex(Matcher),
}

impl BlockedQuery {
    /// Whether the rule speaks of this query. `step_ms` is `None` for an instant query.
    pub fn blocks(&self, text: &str, range_ms: u64, step_ms: Option<u64>) -> bool {
        let by_text = self.pattern.as_ref().is_none_or(|p| match p {
            BlockedPattern::Text(pattern) => pattern.trim() == text.trim(),
            BlockedPattern::Regex(pattern) => pattern.matches(text.trim()),
        });
        by_text
            && self.time_range_longer_than_ms.is_none_or(|longer| range_ms > longer)
            && self.step_size_shorter_than_ms.is_none_or(|s| step_ms.is_some_and(|step| step < s))
    }
}

/// The limits of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantLimits {
    values: [u64; Limit::ALL.len()],
    pub blocked_queries: Vec<BlockedQuery>,
}

impl TenantLimits {
    /// The number of a limit; 0 is none.
    pub fn get(&self, limit: Limit) -> u64 {
        self.values[limit as usize]
    }

    /// The number of a limit, where there is one.
    pub fn bound(&self, limit: Limit) -> Option<u64> {
        Some(self.get(limit)).filter(|n| *n > 0)
    }

    pub fn set(&mut self, limit: Limit, value: u64) {
        self.values[limit as usize] = value;
    }

    /// How many samples may come at once: where nothing is said, twenty seconds' worth, as Mimir's defaults
    /// stand to each other.
    pub fn burst(&self) -> u64 {
        let rate = self.get(Limit::IngestionRate);
        self.bound(Limit::IngestionBurstSize).unwrap_or(rate.saturating_mul(20)).max(1)
    }
}

/// Tenants whose refusals are counted by name; those of others are counted together, because names of tenants
/// come from outside.
const COUNTED_TENANTS: usize = 200;

/// Under which name refusals of all further tenants are counted.
pub const OTHER_TENANTS: &str = "(others)";

/// The limits of all tenants at this moment, and how often each was run into. Clones share both.
#[derive(Clone, Default)]
pub struct LimitsByTenant(Arc<Inner>);

#[derive(Default)]
struct Inner {
    limits: RwLock<Arc<LimitsInForce>>,
    refusals: Mutex<BTreeMap<TenantName, BTreeMap<&'static str, u64>>>,
}

type TenantName = Arc<str>;

/// Limits as they are in force: for everybody, and for those that have their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsInForce {
    pub defaults: Arc<TenantLimits>,
    pub overrides: BTreeMap<TenantId, Arc<TenantLimits>>,
}

impl LimitsByTenant {
    pub fn new(limits: LimitsInForce) -> LimitsByTenant {
        let all = LimitsByTenant::default();
        all.replace(limits);
        all
    }

    /// What holds for a tenant now.
    pub fn of(&self, tenant: &TenantId) -> Arc<TenantLimits> {
        let limits = self.0.limits.read();
        limits.overrides.get(tenant).unwrap_or(&limits.defaults).clone()
    }

    /// What holds for everybody now.
    pub fn in_force(&self) -> Arc<LimitsInForce> {
        self.0.limits.read().clone()
    }

    pub fn replace(&self, limits: LimitsInForce) {
        *self.0.limits.write() = Arc::new(limits);
    }

    /// Counts `n` samples, series or requests of a tenant that a limit refused.
    pub fn refused(&self, tenant: &TenantId, limit: Limit, n: u64) {
        self.count(tenant, limit.name(), n);
    }

    /// Counts a query that one of the tenant's rules blocks.
    pub fn blocked(&self, tenant: &TenantId) {
        self.count(tenant, "blocked_queries", 1);
    }

    fn count(&self, tenant: &TenantId, limit: &'static str, n: u64) {
        if n == 0 {
            return;
        }
        let mut all = self.0.refusals.lock();
        let counted = all.contains_key(tenant.as_str()) || all.len() < COUNTED_TENANTS;
        let name = if counted { tenant.as_str() } else { OTHER_TENANTS };
        *all.entry(Arc::from(name)).or_default().entry(limit).or_default() += n;
    }

    /// Every tenant and limit that were counted, and how often.
    pub fn refusals(&self) -> Vec<(Arc<str>, &'static str, u64)> {
        let all = self.0.refusals.lock();
        all.iter().flat_map(|(tenant, by)| by.iter().map(|(l, n)| (tenant.clone(), *l, *n))).collect()
    }
}

impl fmt::Debug for LimitsByTenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.in_force(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::MatchOp;

    #[test]
    fn limits_have_names_of_their_own_and_refusals_say_what_to_do() {
        for limit in Limit::ALL {
            assert_eq!(Limit::named(limit.name()), Some(*limit));
        }
        let text = Limit::MaxTotalQueryLength.refusal("the query is 45d long", 30 * 86_400_000);
        assert_eq!(
            text,
            "the query is 45d long, the limit of this tenant is 30d (max_total_query_length): ask for a shorter time, or have it raised in limits.file or by limits.max_total_query_length"
        );
        assert_eq!(Limit::PastGracePeriod.shown(5_400_001), "1h30m1ms");
        assert_eq!(Limit::MaxSeries.shown(5_400_001), "5400001");
    }

    #[test]
    fn limits_of_a_tenant_are_its_own_or_everybodys_and_change_at_once() {
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let mut own = TenantLimits::default();
        own.set(Limit::IngestionRate, 7);
        assert_eq!((own.burst(), own.bound(Limit::MaxSeries)), (140, None));
        let limits = LimitsByTenant::new(LimitsInForce {
            overrides: [(a.clone(), Arc::new(own))].into(),
            ..LimitsInForce::default()
        });
        assert_eq!(limits.of(&a).get(Limit::IngestionRate), 7);
        assert_eq!(limits.of(&b).get(Limit::IngestionRate), 0);
        limits.clone().replace(LimitsInForce::default());
        assert_eq!(limits.of(&a).get(Limit::IngestionRate), 0);
    }

    #[test]
    fn limits_count_refusals_by_tenant_and_not_without_bound() {
        let limits = LimitsByTenant::default();
        for n in 0..COUNTED_TENANTS + 50 {
            limits.refused(&TenantId::new(&format!("t{n}")).unwrap(), Limit::MaxSeries, 2);
        }
        let counted = limits.refusals();
        assert_eq!(counted.len(), COUNTED_TENANTS + 1);
        let others = counted.iter().find(|(tenant, ..)| &**tenant == OTHER_TENANTS);
        assert_eq!(others.map(|(_, limit, n)| (*limit, *n)), Some(("max_global_series_per_user", 100)));
    }

    #[test]
    fn blocked_queries_are_those_for_which_all_of_a_rule_holds() {
        let exact = BlockedQuery {
            pattern: Some(BlockedPattern::Text("up".into())),
            step_size_shorter_than_ms: Some(60_000),
            ..BlockedQuery::default()
        };
        assert!(exact.blocks(" up\n", 0, Some(1_000)));
        assert!(!exact.blocks("up", 0, Some(60_000)) && !exact.blocks("up", 0, None));
        assert!(!exact.blocks("up == 1", 0, Some(1_000)));
        let regex = Matcher::new(MatchOp::Regex, "query", ".*heavy.*").unwrap();
        let regex = BlockedQuery { pattern: Some(BlockedPattern::Regex(regex)), ..BlockedQuery::default() };
        assert!(regex.blocks("sum(heavy_metric)", 0, None) && !regex.blocks("sum(light)", 0, None));
        let long = BlockedQuery { time_range_longer_than_ms: Some(1_000), ..BlockedQuery::default() };
        assert!(long.blocks("up", 1_001, Some(1)) && !long.blocks("up", 1_000, None));
    }
}
