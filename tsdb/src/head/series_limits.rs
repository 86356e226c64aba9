//! How many series a tenant may have in the head.

use model::labels::METRIC_NAME;
use model::tenant_limits::{Limit, TenantLimits};

use super::label_sets::LabelSets;
use super::tenant::TenantHead;

/// How many series a tenant may have in the head; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesLimits {
    pub of_tenant: u64,
    pub of_metric: u64,
}

/// Why a new series was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", limit.refusal(self.what(), *allowed))]
pub struct TooManySeries {
    pub limit: Limit,
    pub allowed: u64,
}

impl TooManySeries {
    fn what(&self) -> &'static str {
        match self.limit {
            Limit::MaxSeriesPerMetric => "it would be one series of its metric too many in the head",
            _ => "it would be one series too many in the head",
        }
    }
}

impl SeriesLimits {
    pub fn of(limits: &TenantLimits) -> SeriesLimits {
        SeriesLimits {
            of_tenant: limits.get(Limit::MaxSeries),
            of_metric: limits.get(Limit::MaxSeriesPerMetric),
        }
    }

    /// Whether there is room for one more with these labels.
    pub(super) fn check(
        &self,
        tenant: &TenantHead,
        labels: &[(&str, &str)],
        sets: &LabelSets,
    ) -> Result<(), TooManySeries> {
        if *self == SeriesLimits::default() {
            return Ok(());
        }
        let within = |limit, have: u64, allowed: u64| match allowed > 0 && have >= allowed {
            true => Err(TooManySeries { limit, allowed }),
            false => Ok(()),
        };
        let postings = tenant.postings.read();
        within(Limit::MaxSeries, postings.all().len(), self.of_tenant)?;
        let of_metric = || {
            let (_, metric) = labels.iter().find(|(name, _)| *name == METRIC_NAME)?;
            let symbols = sets.symbols();
            Some(postings.values(symbols.find(METRIC_NAME)?)?.get(&symbols.find(metric)?)?.len())
        };
        within(Limit::MaxSeriesPerMetric, of_metric().unwrap_or(0), self.of_metric)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::head::Head;
    use model::tenant::TenantId;

    fn made(head: &Head, tenant: &Arc<TenantHead>, labels: &[(&str, &str)], limits: SeriesLimits) -> bool {
        head.series_within(tenant, labels, &limits).is_ok()
    }

    #[test]
    fn series_limits_stop_new_series_and_not_those_that_are_there() {
        let head = Head::default();
        let [a, b] = ["a", "b"].map(|t| head.tenant(&TenantId::new(t).unwrap()));
        let limits = SeriesLimits { of_tenant: 3, of_metric: 2 };
        for n in ["1", "2"] {
            assert!(made(&head, &a, &[("__name__", "up"), ("n", n)], limits));
        }
        let third = head.series_within(&a, &[("__name__", "up"), ("n", "3")], &limits).map(drop).unwrap_err();
        assert_eq!(third, TooManySeries { limit: Limit::MaxSeriesPerMetric, allowed: 2 });
        assert!(third.to_string().contains("(max_global_series_per_metric)"), "{third}");
        assert!(made(&head, &a, &[("__name__", "down")], limits));
        let fourth = head.series_within(&a, &[("__name__", "sideways")], &limits).map(drop).unwrap_err();
        assert_eq!(fourth.limit, Limit::MaxSeries);
        assert!(made(&head, &a, &[("__name__", "up"), ("n", "1")], limits), "it is there");
        assert!(made(&head, &b, &[("__name__", "up"), ("n", "3")], limits), "another tenant has room");
        assert_eq!(head.series_count(), 4);
        assert!(made(&head, &a, &[("__name__", "sideways")], SeriesLimits::default()));
    }
}
