//! What one process tells another of its groups, so that it can show them and go on with them: up to which
//! slot each came, and its alerts.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use model::labels::Labels;
use model::sample::Value;
use serde::{Deserialize, Serialize};

use super::view::{GroupView, Health, RuleView};
use super::{CompiledRule, Group, GroupKey};
use crate::alert::{Alert, State};

/// States of groups by [`super::progress::id`].
pub type States = BTreeMap<String, GroupState>;

/// What a reload has to know where several processes share the groups.
#[derive(Clone, Debug, Default)]
pub struct Handover {
    /// How far others came with groups that begin here.
    pub states: States,
    /// Groups that others evaluate from now on: their series go on there.
    pub elsewhere: HashSet<GroupKey>,
}

/// How far a group is. What is as usual is left out, so that thousands of groups are few bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupState {
    /// The slot after which everything is still to be done, in nanoseconds.
    pub slot_ns: i64,
    /// Whether it is known since when its alerts were pending before its process started.
    #[serde(default)]
    pub restored: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_evaluation_ms: Option<i64>,
    #[serde(default)]
    pub evaluation_s: f64,
    #[serde(default)]
    pub lag_s: f64,
    #[serde(default)]
    pub missed: u64,
    #[serde(default)]
    pub backfilled: u64,
    /// Rules that have alerts or failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleState>,
}

/// A rule that has alerts, or whose last evaluation failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleState {
    pub name: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<AlertState>,
}

/// One alert; times are milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertState {
    pub state: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// As text, because JSON has no NaN and no infinity.
    pub value: String,
    pub active_at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sent_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_firing_since_ms: Option<i64>,
}

impl AlertState {
    pub fn of(alert: &Alert) -> AlertState {
        AlertState {
            state: alert.state.as_str().to_owned(),
            labels: alert.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
            annotations: alert.annotations.clone(),
            value: match &alert.value {
                Value::Float(v) => v.to_string(),
                // The next evaluation brings it; until then the API shows its sum.
                Value::Histogram(h) => h.sum.to_string(),
            },
            active_at_ms: alert.active_at_ms,
            fired_at_ms: alert.fired_at_ms,
            resolved_at_ms: alert.resolved_at_ms,
            last_sent_ms: alert.last_sent_ms,
            keep_firing_since_ms: alert.keep_firing_since_ms,
        }
    }

    pub fn alert(&self) -> Alert {
        Alert {
            state: match self.state.as_str() {
                "firing" => State::Firing,
                "pending" => State::Pending,
                _ => State::Inactive,
            },
            labels: Labels::from_pairs(&self.labels),
            annotations: self.annotations.clone(),
            value: Value::Float(self.value.parse().unwrap_or(f64::NAN)),
            active_at_ms: self.active_at_ms,
            fired_at_ms: self.fired_at_ms,
            resolved_at_ms: self.resolved_at_ms,
            last_sent_ms: self.last_sent_ms,
            keep_firing_since_ms: self.keep_firing_since_ms,
        }
    }
}

impl GroupState {
    /// For each rule the state that is its own: the same name and labels, of several the n-th takes the n-th.
    pub fn of_rules<'a>(&'a self, rules: &[CompiledRule]) -> Vec<Option<&'a RuleState>> {
        let mut taken = vec![false; self.rules.len()];
        let mut own = |rule: &CompiledRule| {
            let found = self.rules.iter().enumerate().find(|(at, state)| {
                !taken[*at] && state.name == rule.rule.name() && state.labels == rule.labels
            });
            found.map(|(at, state)| {
                taken[at] = true;
                state
            })
        };
        rules.iter().map(&mut own).collect()
    }

    /// What another process shows of the group.
    pub fn view(&self, group: Arc<Group>) -> GroupView {
        let evaluated = self.last_evaluation_ms.is_some();
        let shown = |(rule, state): (&CompiledRule, Option<&RuleState>)| {
            let error = state.and_then(|s| s.error.clone());
            let alerts: Vec<Alert> =
                state.into_iter().flat_map(|s| &s.alerts).map(AlertState::alert).collect();
            let worst = alerts.iter().map(|a| a.state).max().unwrap_or(State::Inactive);
            RuleView {
                health: match (&error, evaluated) {
                    (Some(_), _) => Health::Err,
                    (None, true) => Health::Ok,
                    (None, false) => Health::Unknown,
                },
                last_error: error,
                last_evaluation_ms: self.last_evaluation_ms,
                state: (rule.rule.is_alert() && evaluated).then_some(worst),
                alerts: alerts.into_iter().filter(|a| a.state != State::Inactive).collect(),
                ..RuleView::default()
            }
        };
        let states = self.of_rules(&group.rules);
        GroupView {
            rules: group.rules.iter().zip(states).map(shown).collect(),
            group,
            last_evaluation_ms: self.last_evaluation_ms,
            evaluation_s: self.evaluation_s,
            lag_s: self.lag_s,
            missed: self.missed,
            backfilled: self.backfilled,
        }
    }
}

/// Of several states of each group the one that came furthest.
pub fn newest(all: impl IntoIterator<Item = States>) -> States {
    let mut out = States::new();
    for (id, state) in all.into_iter().flatten() {
        match out.get(&id) {
            Some(known) if known.slot_ns >= state.slot_ns => {}
            _ => {
                out.insert(id, state);
            }
        }
    }
    out
}
