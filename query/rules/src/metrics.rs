//! What is counted of rules and notifications, under Prometheus' names, which dashboards and alerts look for.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

use crate::group::Group;
use crate::group::view::{GroupView, RuleView};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct GroupLabels {
    rule_group: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AlertmanagerLabels {
    pub alertmanager: String,
}

type Seconds = Gauge<f64, AtomicU64>;
type SecondsTotal = Counter<f64, AtomicU64>;

/// Counters and gauges of rules and of the notifier. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    evaluations: Family<GroupLabels, Counter>,
    failures: Family<GroupLabels, Counter>,
    iterations: Family<GroupLabels, Counter>,
    missed: Family<GroupLabels, Counter>,
    filled: Family<GroupLabels, Counter>,
    interval: Family<GroupLabels, Seconds>,
    last_duration: Family<GroupLabels, Seconds>,
    last_timestamp: Family<GroupLabels, Seconds>,
    lag: Family<GroupLabels, Seconds>,
    samples_read: Family<GroupLabels, Gauge>,
    last_samples: Family<GroupLabels, Gauge>,
    rules: Family<GroupLabels, Gauge>,
    rule_seconds: SecondsTotal,
    pub sent: Family<AlertmanagerLabels, Counter>,
    pub errors: Family<AlertmanagerLabels, Counter>,
    pub dropped: Family<AlertmanagerLabels, Counter>,
    pub retried: Family<AlertmanagerLabels, Counter>,
    pub queue_length: Family<AlertmanagerLabels, Gauge>,
    pub queue_capacity: Gauge,
    pub alertmanagers_discovered: Gauge,
    /// Where several processes share the groups.
    pub shares: Gauge,
    pub share_members: Gauge,
    pub share_failures: Counter,
}

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
    /// Makes them and shows them in a registry.
    pub fn register(registry: &mut Registry) -> Metrics {
        let m = Metrics::default();
        let r = registry.sub_registry_with_prefix("prometheus_rule");
        r.register("evaluations", "Rules that were evaluated", m.evaluations.clone());
        r.register("evaluation_failures", "Rules whose evaluation failed", m.failures.clone());
        r.register("group_iterations", "Slots of a group, evaluated or missed", m.iterations.clone());
        r.register(
            "group_iterations_missed",
            "Slots of a group that were not evaluated in time",
            m.missed.clone(),
        );
        r.register("group_interval_seconds", "Interval of a group", m.interval.clone());
        r.register(
            "group_last_duration_seconds",
            "Duration of a group's last evaluation",
            m.last_duration.clone(),
        );
        r.register(
            "group_last_evaluation_timestamp_seconds",
            "Time of a group's last evaluation",
            m.last_timestamp.clone(),
        );
        r.register(
            "group_last_evaluation_samples",
            "Series that a group's last evaluation wrote",
            m.last_samples.clone(),
        );
        r.register("group_rules", "Rules in a group", m.rules.clone());
        r.register("evaluation_seconds", "Time that rules took together", m.rule_seconds.clone());
        let r = registry.sub_registry_with_prefix("hearth_rule");
        r.register(
            "group_slots_filled",
            "Missed slots of a group that were evaluated later",
            m.filled.clone(),
        );
        r.register("group_lag_seconds", "How late a group's last evaluation began", m.lag.clone());
        r.register(
            "group_last_evaluation_samples_read",
            "Samples that a group's last evaluation read",
            m.samples_read.clone(),
        );
        r.register(
            "shares",
            "Of the 64 shares of rule groups those that this process evaluates, where several share them",
            m.shares.clone(),
        );
        r.register("share_members", "Processes that share the rule groups", m.share_members.clone());
        r.register(
            "share_failures",
            "Rounds in which the table of who evaluates what could not be renewed",
            m.share_failures.clone(),
        );
        let r = registry.sub_registry_with_prefix("prometheus_notifications");
        r.register("sent", "Alerts handed to an Alertmanager", m.sent.clone());
        r.register("errors", "Alerts of requests that an Alertmanager did not take", m.errors.clone());
        r.register("dropped", "Alerts that an Alertmanager never got", m.dropped.clone());
        r.register("queue_length", "Alerts that wait for an Alertmanager", m.queue_length.clone());
        r.register("queue_capacity", "Alerts that may wait for one Alertmanager", m.queue_capacity.clone());
        r.register(
            "alertmanagers_discovered",
            "Alertmanagers that get alerts",
            m.alertmanagers_discovered.clone(),
        );
        let r = registry.sub_registry_with_prefix("hearth_notifications");
        r.register("retried", "Alerts that were sent once more after a failure", m.retried.clone());
        m
    }

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

    pub(crate) fn rule_evaluated(&self, group: &Group, failed: bool, took: Duration) {
        let labels = labels(group);
        self.evaluations.get_or_create(&labels).inc();
        self.rule_seconds.inc_by(took.as_secs_f64());
        if failed {
            self.failures.get_or_create(&labels).inc();
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
