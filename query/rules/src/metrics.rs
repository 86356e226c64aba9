//! What is counted of rules and notifications, under Prometheus' names, which dashboards and alerts look for.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct GroupLabels {
    pub(crate) rule_group: String,
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
    pub(crate) evaluations: Family<GroupLabels, Counter>,
    pub(crate) failures: Family<GroupLabels, Counter>,
    pub(crate) iterations: Family<GroupLabels, Counter>,
    pub(crate) missed: Family<GroupLabels, Counter>,
    pub(crate) filled: Family<GroupLabels, Counter>,
    pub(crate) interval: Family<GroupLabels, Seconds>,
    pub(crate) last_duration: Family<GroupLabels, Seconds>,
    pub(crate) last_timestamp: Family<GroupLabels, Seconds>,
    pub(crate) lag: Family<GroupLabels, Seconds>,
    pub(crate) samples_read: Family<GroupLabels, Gauge>,
    pub(crate) last_samples: Family<GroupLabels, Gauge>,
    pub(crate) rules: Family<GroupLabels, Gauge>,
    pub(crate) rule_seconds: SecondsTotal,
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
}
