//! Alerts of one rule and how they come and go: pure state, moved on by the result of each evaluation.
//!
//! A series that appears is pending; when it has been there for the rule's `for` it fires; when it goes, a
//! pending alert is forgotten and a firing one resolved, after `keep_firing_for` where the rule has that.
//! Resolved alerts are kept, and told again, for a while: an Alertmanager that missed it must still learn
//! of it. All of it follows upstream's `rules/alerting.go` of release 3.14.

pub mod restore;

use std::collections::{BTreeMap, HashMap};

use model::labels::{Labels, METRIC_NAME};
use model::sample::Value;

/// The metric that says which alerts there are.
pub const ALERTS: &str = "ALERTS";
/// The metric that keeps since when, across restarts.
pub const ALERTS_FOR_STATE: &str = "ALERTS_FOR_STATE";
/// The label with a rule's name.
pub const ALERT_NAME: &str = "alertname";
const ALERT_STATE: &str = "alertstate";

/// How long a resolved alert is kept and told.
const RESOLVED_KEEP_MS: i64 = 15 * 60_000;

/// Where an alert stands; in the order of how bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Inactive,
    Pending,
    Firing,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Inactive => "inactive",
            State::Pending => "pending",
            State::Firing => "firing",
        }
    }
}

/// One alert. Times are milliseconds.
#[derive(Clone, Debug)]
pub struct Alert {
    pub state: State,
    /// With `alertname`, without a metric's name.
    pub labels: Labels,
    pub annotations: BTreeMap<String, String>,
    pub value: Value,
    pub active_at_ms: i64,
    pub fired_at_ms: Option<i64>,
    pub resolved_at_ms: Option<i64>,
    pub last_sent_ms: Option<i64>,
    /// Since when its series has been gone while it fires on.
    pub keep_firing_since_ms: Option<i64>,
}

/// A series of an evaluation's result, with the rule's labels and annotations expanded.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub labels: Labels,
    pub annotations: BTreeMap<String, String>,
    pub value: Value,
}

/// What the state machine needs of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    pub for_ms: i64,
    pub keep_firing_for_ms: i64,
    /// Most pending and firing alerts; 0 for any number.
    pub limit: i64,
}

/// An alert as it is handed to the Alertmanagers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub labels: Labels,
    pub annotations: BTreeMap<String, String>,
    pub starts_at_ms: i64,
    /// For a resolved alert when it was, else until when the Alertmanager may take it for firing without
    /// hearing more.
    pub ends_at_ms: i64,
    pub resolved: bool,
}

/// What a rule gave cannot be its alerts. The texts are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlertError {
    #[error("vector contains metrics with the same labelset after applying alert labels")]
    SameLabels,
    #[error("exceeded limit of {limit} with {alerts} alerts")]
    Limit { limit: i64, alerts: i64 },
}

/// All alerts of a rule.
#[derive(Clone, Debug, Default)]
pub struct Alerts {
    active: HashMap<Labels, Alert>,
}

impl Alerts {
    /// Moves on by the result of the evaluation at `slot_ms`. An error leaves the state as it was, but for
    /// the limit, past which all of it goes: a rule that gives more alerts than allowed must not fire some
    /// of them at random.
    pub fn evaluate(
        &mut self,
        timing: &Timing,
        slot_ms: i64,
        result: Vec<Candidate>,
    ) -> Result<(), AlertError> {
        let mut seen: HashMap<Labels, Candidate> = HashMap::with_capacity(result.len());
        for candidate in result {
            if seen.insert(candidate.labels.clone(), candidate).is_some() {
                return Err(AlertError::SameLabels);
            }
        }
        let mut gone = Vec::new();
        let mut alive = 0i64;
        for (labels, alert) in &mut self.active {
            match seen.remove(labels) {
                Some(candidate) => alert.seen(candidate, slot_ms),
                None if alert.miss(timing, slot_ms) => {
                    gone.push(labels.clone());
                    continue;
                }
                None if alert.state == State::Inactive => continue,
                None => {}
            }
            alert.hold(timing, slot_ms);
            alive += 1;
        }
        for labels in gone {
            self.active.remove(&labels);
        }
        for (labels, candidate) in seen {
            let mut alert = Alert::new(candidate, slot_ms);
            alert.hold(timing, slot_ms);
            alive += 1;
            self.active.insert(labels, alert);
        }
        if timing.limit > 0 && alive > timing.limit {
            self.active.clear();
            return Err(AlertError::Limit { limit: timing.limit, alerts: alive });
        }
        Ok(())
    }

    /// Pending and firing alerts, ascending by labels.
    pub fn current(&self) -> Vec<&Alert> {
        let mut alerts: Vec<_> = self.active.values().filter(|a| a.state != State::Inactive).collect();
        alerts.sort_by(|a, b| a.labels.cmp(&b.labels));
        alerts
    }

    /// Pending and firing alerts, to be changed.
    pub fn current_mut(&mut self) -> impl Iterator<Item = &mut Alert> {
        self.active.values_mut().filter(|a| a.state != State::Inactive)
    }

    /// The rule's own state: that of its worst alert.
    pub fn state(&self) -> State {
        self.active.values().map(|a| a.state).max().unwrap_or(State::Inactive)
    }

    pub fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// All alerts, those that are resolved and still told too, ascending by labels.
    pub fn all(&self) -> Vec<&Alert> {
        let mut alerts: Vec<_> = self.active.values().collect();
        alerts.sort_by(|a, b| a.labels.cmp(&b.labels));
        alerts
    }

    /// Goes on with alerts that another process had.
    pub fn take_up(&mut self, alerts: impl IntoIterator<Item = Alert>) {
        self.active = alerts.into_iter().map(|alert| (alert.labels.clone(), alert)).collect();
    }

    /// The two series of each pending or firing alert, with their values. `raw_labels` are the rule's own,
    /// unexpanded: upstream begins with them, so that a label which expands to nothing shows its template.
    pub fn series(&self, raw_labels: &BTreeMap<String, String>) -> Vec<(Labels, f64)> {
        let mut out = Vec::new();
        for alert in self.current() {
            out.push((alert.series_labels(ALERTS, raw_labels, Some(alert.state)), 1.0));
            let labels = alert.series_labels(ALERTS_FOR_STATE, raw_labels, None);
            out.push((labels, alert.active_at_ms.div_euclid(1000) as f64));
        }
        out
    }

    /// The alerts that have to be sent now; they count as sent from here on.
    pub fn to_send(&mut self, slot_ms: i64, interval_ms: i64, resend_delay_ms: i64) -> Vec<Outgoing> {
        let valid_ms = 4 * interval_ms.max(resend_delay_ms);
        let mut out: Vec<Outgoing> = self
            .active
            .values_mut()
            .filter(|a| a.needs_sending(slot_ms, resend_delay_ms))
            .map(|alert| {
                alert.last_sent_ms = Some(slot_ms);
                Outgoing {
                    labels: alert.labels.clone(),
                    annotations: alert.annotations.clone(),
                    starts_at_ms: alert.fired_at_ms.unwrap_or(alert.active_at_ms),
                    ends_at_ms: alert.resolved_at_ms.unwrap_or(slot_ms + valid_ms),
                    resolved: alert.resolved_at_ms.is_some(),
                }
            })
            .collect();
        out.sort_by(|a, b| a.labels.cmp(&b.labels));
        out
    }
}

impl Alert {
    fn new(candidate: Candidate, slot_ms: i64) -> Alert {
        Alert {
            state: State::Pending,
            labels: candidate.labels,
            annotations: candidate.annotations,
            value: candidate.value,
            active_at_ms: slot_ms,
            fired_at_ms: None,
            resolved_at_ms: None,
            last_sent_ms: None,
            keep_firing_since_ms: None,
        }
    }

    /// Its series is there.
    fn seen(&mut self, candidate: Candidate, slot_ms: i64) {
        if self.state == State::Inactive {
            *self = Alert::new(candidate, slot_ms);
            return;
        }
        self.value = candidate.value;
        self.annotations = candidate.annotations;
        self.keep_firing_since_ms = None;
    }

    /// Its series is gone; whether the alert is too.
    fn miss(&mut self, timing: &Timing, slot_ms: i64) -> bool {
        match self.state {
            State::Pending => true,
            State::Inactive => {
                self.resolved_at_ms.is_none_or(|resolved| slot_ms - resolved > RESOLVED_KEEP_MS)
            }
            State::Firing => {
                if timing.keep_firing_for_ms > 0 {
                    let since = *self.keep_firing_since_ms.get_or_insert(slot_ms);
                    if slot_ms - since < timing.keep_firing_for_ms {
                        return false;
                    }
                }
                self.state = State::Inactive;
                self.resolved_at_ms = Some(slot_ms);
                false
            }
        }
    }

    /// Whether it has been there long enough; a `for` that has grown since makes it wait again.
    fn hold(&mut self, timing: &Timing, slot_ms: i64) {
        let long_enough = slot_ms - self.active_at_ms >= timing.for_ms;
        match self.state {
            State::Pending if long_enough => {
                self.state = State::Firing;
                self.fired_at_ms = Some(slot_ms);
            }
            State::Firing if !long_enough => {
                self.state = State::Pending;
                self.fired_at_ms = None;
            }
            _ => {}
        }
    }

    fn needs_sending(&self, slot_ms: i64, resend_delay_ms: i64) -> bool {
        if self.state == State::Pending {
            return false;
        }
        match self.last_sent_ms {
            None => true,
            Some(sent) => self.resolved_at_ms.is_some_and(|at| at > sent) || sent + resend_delay_ms < slot_ms,
        }
    }

    /// The labels of the alert's series of a metric.
    pub fn series_labels(
        &self,
        metric: &str,
        raw_labels: &BTreeMap<String, String>,
        state: Option<State>,
    ) -> Labels {
        let mut labels = Labels::from_pairs(raw_labels).to_builder();
        for (name, value) in &self.labels {
            labels.set(name, value);
        }
        labels.set(METRIC_NAME, metric);
        if let Some(state) = state {
            labels.set(ALERT_STATE, state.as_str());
        }
        labels.build()
    }
}

#[cfg(test)]
mod tests;
