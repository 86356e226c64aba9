//! What a group's evaluations add to the metrics.

use std::time::Duration;

use super::Group;
use super::view::{GroupView, RuleView};
use crate::metrics::{GroupLabels, Metrics};

/// How a group is called in `rule_group`.
fn labels(group: &Group) -> GroupLabels {
    let key = &group.key;
    let tenant = match key.tenant == model::tenant::TenantId::single() {
        true => String::new(),
        false => format!("{};", key.tenant.as_str()),
    };
    GroupLabels { rule_group: format!("{tenant}{};{}", key.file, key.name) }
}

impl Metrics {
    /// After an evaluation of a whole group.
    pub(crate) fn group_evaluated(&self, view: &GroupView) {
        let group = &view.group;
        let labels = labels(group);
        self.iterations.get_or_create(&labels).inc();
        self.interval.get_or_create(&labels).set(group.interval_ms as f64 / 1000.0);
        self.last_duration.get_or_create(&labels).set(view.evaluation_s);
        self.last_timestamp.get_or_create(&labels).set(view.last_evaluation_ms.unwrap_or(0) as f64 / 1000.0);
        self.lag.get_or_create(&labels).set(view.lag_s);
        let sum = |f: fn(&RuleView) -> u64| view.rules.iter().map(f).sum::<u64>() as i64;
        self.samples_read.get_or_create(&labels).set(sum(|r| r.samples_read));
        self.last_samples.get_or_create(&labels).set(sum(|r| r.series_written));
        self.rules.get_or_create(&labels).set(group.rules.len() as i64);
        // So that they are there before something goes wrong.
        let _ = self.failures.get_or_create(&labels);
        let _ = self.missed.get_or_create(&labels);
    }

    /// After an evaluation of some of a group's rules, which took so long one after the other.
    pub(crate) fn rules_evaluated(&self, group: &Group, count: u64, failed: u64, took: Duration) {
        let labels = labels(group);
        self.evaluations.get_or_create(&labels).inc_by(count);
        self.rule_seconds.inc_by(took.as_secs_f64());
        if failed > 0 {
            self.failures.get_or_create(&labels).inc_by(failed);
        }
    }

    pub(crate) fn slots_missed(&self, group: &Group, count: u64) {
        let labels = labels(group);
        self.missed.get_or_create(&labels).inc_by(count);
        self.iterations.get_or_create(&labels).inc_by(count);
    }

    pub(crate) fn slot_filled(&self, group: &Group) {
        self.filled.get_or_create(&labels(group)).inc();
    }

    /// Takes away what is shown of a group that is no more.
    pub(crate) fn forget(&self, group: &Group) {
        let labels = labels(group);
        for family in [&self.evaluations, &self.failures, &self.iterations, &self.missed, &self.filled] {
            family.remove(&labels);
        }
        for family in [&self.interval, &self.last_duration, &self.last_timestamp, &self.lag] {
            family.remove(&labels);
        }
        for family in [&self.samples_read, &self.last_samples, &self.rules] {
            family.remove(&labels);
        }
    }
}
