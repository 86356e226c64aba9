//! One group and its state, moved on slot by slot. Synchronous: time and storage are handed in.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use model::clock::Clock;
use model::labels::Labels;
use model::sample::{Value, stale_nan};
use query::engine::Engine;
use tracing::field::Empty;

use super::dependencies::batches;
use super::error::{EvaluationError, WriteError};
use super::evaluate::{Evaluated, alerting, recording};
use super::handover::{self, AlertState, GroupState};
use super::reload::predecessors;
use super::schedule::Slots;
use super::side_by_side::SpareThreads;
use super::view::{GroupView, Health, RuleView};
use super::{CompiledRule, Group, Notify, Ownership, Row, Storage};
use crate::alert::Alerts;
use crate::alert::restore::{self, Restore};
use crate::metrics::Metrics;
use crate::template::SharedExternal;

/// What all groups work with.
pub struct Environment {
    pub engine: Engine,
    pub storage: Arc<dyn Storage>,
    pub notify: Arc<dyn Notify>,
    pub clock: Arc<dyn Clock>,
    pub external: SharedExternal,
    pub restore: Restore,
    /// How long an alert that has not changed is not sent again.
    pub resend_delay_ms: i64,
    pub metrics: Metrics,
    pub ownership: Arc<dyn Ownership>,
    /// For rules of one group that do not read one another's series.
    pub spare: SpareThreads,
}

/// The state of one rule.
#[derive(Debug, Default)]
struct RuleState {
    /// Series of the last evaluation that worked.
    seen: HashSet<Labels>,
    alerts: Alerts,
    /// Whether it is known since when its alerts were pending before the process started.
    restored: bool,
    view: RuleView,
}

/// A group at work.
#[derive(Debug)]
pub struct Runner {
    group: Arc<Group>,
    pub slots: Slots,
    rules: Vec<RuleState>,
    /// Rules that may be evaluated side by side, in order.
    batches: Vec<Vec<usize>>,
    /// Nanoseconds; every later slot is still to come.
    pub last_slot_ns: i64,
    evaluations: u64,
    /// Series of rules that are no more, marked stale at the next evaluation.
    leftover: Vec<Labels>,
    backfill: Backfill,
    last_evaluation_ms: Option<i64>,
    evaluation_s: f64,
    lag_s: f64,
    pub missed: u64,
    backfilled: u64,
}

/// Where back-filling stands.
#[derive(Debug, Default)]
struct Backfill {
    /// The slot that was filled last, in nanoseconds.
    last_slot_ns: i64,
    /// Series of each rule at that slot.
    seen: Vec<HashSet<Labels>>,
}

/// Why a missed slot was not filled, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// One rule failed; those after it were evaluated all the same.
    #[error("{rule}: {cause}")]
    Rule {
        rule: String,
        #[source]
        cause: EvaluationError,
    },
    /// Series that are gone were not marked stale.
    #[error(transparent)]
    NotEnded(#[from] WriteError),
}

/// Most missed slots that are taken up from another process.
const MOST_TAKEN_UP: usize = 10_000;

/// The timestamp of a slot.
pub fn slot_ms(slot_ns: i64) -> i64 {
    slot_ns.div_euclid(1_000_000)
}

impl Runner {
    /// A group whose first slot is the next one after `now_ns`. `restored`: there is nothing to be
    /// restored, because the process has been running for a while.
    pub fn new(group: Arc<Group>, now_ns: i64, restored: bool) -> Runner {
        let slots = Slots::new(&group.key.file, &group.key.name, group.interval_ms);
        let new_rule = |_: &CompiledRule| RuleState { restored, ..RuleState::default() };
        Runner {
            rules: group.rules.iter().map(new_rule).collect(),
            batches: batches(&group.rules),
            last_slot_ns: slots.at_or_before(now_ns),
            slots,
            group,
            evaluations: 0,
            leftover: Vec::new(),
            backfill: Backfill::default(),
            last_evaluation_ms: None,
            evaluation_s: 0.0,
            lag_s: 0.0,
            missed: 0,
            backfilled: 0,
        }
    }

    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Takes the state of what ran in its place before.
    pub fn inherit(&mut self, mut old: Runner) {
        let places = predecessors(&old.group.rules, &self.group.rules);
        for (rule, before) in self.rules.iter_mut().zip(places) {
            if let Some(before) = before {
                let before = std::mem::take(&mut old.rules[before]);
                rule.seen = before.seen;
                rule.alerts = before.alerts;
                rule.restored = before.restored;
                rule.view = before.view;
            }
        }
        self.leftover = old.all_series();
        self.evaluations = old.evaluations;
        self.missed = old.missed;
        self.backfilled = old.backfilled;
        if self.slots == old.slots {
            self.last_slot_ns =
                self.last_slot_ns.min(old.last_slot_ns.max(self.last_slot_ns - self.slots.interval_ns));
        }
    }

    /// Goes on where another process came to. The newest slot is evaluated at once unless that one did it;
    /// the slots before it that nobody evaluated are the result, ascending.
    pub fn take_up(&mut self, state: &GroupState, now_ns: i64) -> Vec<i64> {
        let came_to = self.slots.at_or_before(state.slot_ns);
        self.last_slot_ns = came_to.max(self.slots.at_or_before(now_ns) - self.slots.interval_ns);
        self.missed = state.missed;
        self.backfilled = state.backfilled;
        self.last_evaluation_ms = state.last_evaluation_ms;
        let stored = state.of_rules(&self.group.rules);
        for (rule, stored) in self.rules.iter_mut().zip(stored) {
            rule.restored = state.restored;
            if let Some(stored) = stored {
                rule.alerts.take_up(stored.alerts.iter().map(AlertState::alert));
            }
        }
        self.slots.between(came_to, self.last_slot_ns + self.slots.interval_ns, MOST_TAKEN_UP)
    }

    /// What another process has to know to go on. `came_to_ns` is the slot after which everything is still to
    /// be done.
    pub fn state(&self, came_to_ns: i64) -> GroupState {
        let rules = self.group.rules.iter().zip(&self.rules);
        let shown = rules.filter(|(_, r)| !r.alerts.is_empty() || r.view.health == Health::Err);
        GroupState {
            slot_ns: came_to_ns,
            restored: self.rules.iter().all(|r| r.restored) || self.evaluations >= 2,
            last_evaluation_ms: self.last_evaluation_ms,
            evaluation_s: self.evaluation_s,
            lag_s: self.lag_s,
            missed: self.missed,
            backfilled: self.backfilled,
            rules: shown
                .map(|(rule, r)| handover::RuleState {
                    name: rule.rule.name().to_owned(),
                    labels: rule.labels.clone(),
                    error: r.view.last_error.clone(),
                    alerts: r.alerts.all().into_iter().map(AlertState::of).collect(),
                })
                .collect(),
        }
    }

    /// All series that its rules have written and not ended.
    fn all_series(&mut self) -> Vec<Labels> {
        let mut all = std::mem::take(&mut self.leftover);
        for rule in &mut self.rules {
            all.extend(std::mem::take(&mut rule.seen));
        }
        all
    }

    /// Ends all of its series: for a group that was taken out.
    pub fn end(mut self, env: &Environment, now_ms: i64) -> Result<(), WriteError> {
        let rows = stale_rows(self.all_series(), now_ms);
        if rows.is_empty() {
            return Ok(());
        }
        env.storage.write(&self.group.key.tenant, &rows).map(|_| ())
    }

    /// Evaluates all rules at a slot; whether that is done. It is not where the group ceased to be this
    /// process' in the middle of it: then the slot is still to come, here or elsewhere.
    pub fn evaluate(&mut self, env: &Environment, slot_ns: i64) -> bool {
        let begun = Instant::now();
        let now_ms = env.clock.now_ms();
        let slot_ms = slot_ms(slot_ns);
        self.lag_s = (now_ms - slot_ms).max(0) as f64 / 1000.0;
        let group = self.group.clone();
        let key = &group.key;
        let span = tracing::debug_span!(
            "evaluate_group",
            tenant = key.tenant.as_str(),
            file = key.file,
            group = key.name,
            slot_ms,
            lag_s = self.lag_s,
            rules = group.rules.len()
        );
        for batch in &self.batches {
            let rules = group.rules.iter().zip(&mut self.rules).enumerate();
            let of_batch = rules.filter(|(at, _)| batch.binary_search(at).is_ok()).map(|(_, rule)| rule);
            env.spare.for_each(of_batch.collect(), |(rule, state)| {
                // By name: the threads that help are in no span.
                let span = tracing::debug_span!(
                    parent: &span, "evaluate_rule", rule = rule.rule.name(),
                    samples_read = Empty, series_written = Empty, error = Empty
                );
                span.in_scope(|| evaluate_rule(env, &group, rule, state, slot_ms));
                span.record("samples_read", state.view.samples_read);
                span.record("series_written", state.view.series_written);
                if let Some(error) = &state.view.last_error {
                    span.record("error", error.as_str());
                }
            });
        }
        if !env.ownership.holds(&self.group.key) {
            return false;
        }
        self.end_leftover(env, slot_ms - self.group.query_offset_ms);
        self.last_slot_ns = slot_ns;
        self.last_evaluation_ms = Some(now_ms);
        self.evaluations += 1;
        if self.evaluations == 2 {
            self.restore(env);
        }
        self.evaluation_s = begun.elapsed().as_secs_f64();
        env.metrics.group_evaluated(&self.view());
        true
    }

    fn end_leftover(&mut self, env: &Environment, time_ms: i64) {
        if self.leftover.is_empty() {
            return;
        }
        // A series that another rule of the group goes on with is not at its end.
        let taken_over = |labels: &Labels| self.rules.iter().any(|r| r.seen.contains(labels));
        let ended: Vec<Labels> = self.leftover.iter().filter(|l| !taken_over(l)).cloned().collect();
        match env.storage.write(&self.group.key.tenant, &stale_rows(ended, time_ms)) {
            Ok(_) => self.leftover.clear(),
            Err(why) => {
                tracing::warn!(group = self.group.key.name, "series of old rules were not ended: {why}")
            }
        }
    }

    /// Evaluates the recording rules at a slot that was missed. Slots must come in ascending order.
    pub fn fill(&mut self, env: &Environment, slot_ns: i64) -> Result<(), FillError> {
        let group = self.group.clone();
        let time_ms = slot_ms(slot_ns) - group.query_offset_ms;
        let contiguous = self.backfill.last_slot_ns + self.slots.interval_ns == slot_ns;
        if !contiguous || self.backfill.seen.len() != self.rules.len() {
            self.backfill.seen = vec![HashSet::new(); self.rules.len()];
        }
        let mut failed = Ok(());
        for (at, rule) in group.rules.iter().enumerate().filter(|(_, r)| !r.rule.is_alert()) {
            let source = env.storage.source(&group.key.tenant);
            let filled = recording(&env.engine, &*source, rule, time_ms)
                .and_then(|e| write(env, &group, e.result, &mut self.backfill.seen[at], time_ms));
            if let Err(cause) = filled {
                failed = Err(FillError::Rule { rule: rule.rule.name().to_owned(), cause });
            }
        }
        self.backfill.last_slot_ns = slot_ns;
        self.backfilled += 1;
        env.metrics.slot_filled(&group);
        failed
    }

    /// Ends the series that stood at the last slot that was filled and are not there now. The marker stands
    /// just before the slot that was evaluated in time, where it hides no sample.
    pub fn end_fill(&mut self, env: &Environment) -> Result<(), FillError> {
        let filled = std::mem::take(&mut self.backfill);
        let next_ms = slot_ms(filled.last_slot_ns + self.slots.interval_ns) - self.group.query_offset_ms - 1;
        let gone = filled
            .seen
            .into_iter()
            .zip(&self.rules)
            .flat_map(|(seen, rule)| seen.into_iter().filter(|l| !rule.seen.contains(l)))
            .collect();
        env.storage.write(&self.group.key.tenant, &stale_rows(gone, next_ms))?;
        Ok(())
    }

    /// Reads since when alerts were pending before the process started.
    fn restore(&mut self, env: &Environment) {
        let now_ms = env.clock.now_ms();
        let group = self.group.clone();
        for (rule, state) in group.rules.iter().zip(&mut self.rules).filter(|(r, _)| r.rule.is_alert()) {
            if std::mem::replace(&mut state.restored, true) || state.alerts.is_empty() {
                continue;
            }
            let for_ms = rule.timing.for_ms;
            if for_ms < env.restore.grace_period_ms {
                continue;
            }
            let source = env.storage.source(&group.key.tenant);
            let budget = env.engine.budget(None);
            let stored =
                restore::stored(&*source, rule.rule.name(), &rule.labels, now_ms, &env.restore, budget);
            match stored {
                Ok(stored) => {
                    let alerts = &mut state.alerts;
                    restore::restore(alerts, &rule.labels, for_ms, &stored, now_ms, &env.restore);
                }
                Err(e) => tracing::warn!(
                    rule = rule.rule.name(),
                    "cannot read since when alerts were pending before the restart, so they begin anew: {e}"
                ),
            }
        }
    }

    /// What the group shows of itself now.
    pub fn view(&self) -> GroupView {
        GroupView {
            group: self.group.clone(),
            rules: self.rules.iter().map(|r| r.view.clone()).collect(),
            last_evaluation_ms: self.last_evaluation_ms,
            evaluation_s: self.evaluation_s,
            lag_s: self.lag_s,
            missed: self.missed,
            backfilled: self.backfilled,
        }
    }
}

/// Evaluates one rule at a slot, tells its alerts and writes its series.
fn evaluate_rule(env: &Environment, group: &Group, rule: &CompiledRule, state: &mut RuleState, slot_ms: i64) {
    let begun = Instant::now();
    let time_ms = slot_ms - group.query_offset_ms;
    // Taken anew for each rule, so that it sees what the rules before it wrote.
    let source = env.storage.source(&group.key.tenant);
    let rows = match rule.rule.is_alert() {
        false => recording(&env.engine, &*source, rule, time_ms),
        true => alerting(&env.engine, &*source, rule, time_ms, slot_ms, &env.external.get()).and_then(
            |Evaluated { result, samples_read }| {
                state.alerts.evaluate(&rule.timing, slot_ms, result)?;
                let series = if state.restored { state.alerts.series(&rule.labels) } else { Vec::new() };
                let row = |(labels, v)| Row { labels, ts_ms: time_ms, value: Value::Float(v) };
                Ok(Evaluated { result: series.into_iter().map(row).collect(), samples_read })
            },
        ),
    };
    // An alert goes out though its series cannot be written.
    if rule.rule.is_alert() {
        let alerts = state.alerts.to_send(slot_ms, group.interval_ms, env.resend_delay_ms);
        if !alerts.is_empty() && env.ownership.holds(&group.key) {
            env.notify.notify(&group.key.tenant, &rule.query, alerts);
        }
    }
    let mut samples_read = 0;
    let mut series_written = 0;
    let outcome = rows.and_then(|Evaluated { result, samples_read: read }| {
        samples_read = read;
        series_written = result.len() as u64;
        write(env, group, result, &mut state.seen, time_ms)
    });
    if let Err(why) = &outcome {
        tracing::warn!(
            tenant = group.key.tenant.as_str(),
            file = group.key.file,
            group = group.key.name,
            rule = rule.rule.name(),
            "a rule was not evaluated: {why}"
        );
    }
    env.metrics.rule_evaluated(group, outcome.is_err(), begun.elapsed());
    let alerts = state.alerts.current().into_iter().cloned().collect();
    state.view = RuleView {
        health: if outcome.is_ok() { Health::Ok } else { Health::Err },
        last_error: outcome.err().map(|why| why.to_string()),
        last_evaluation_ms: Some(env.clock.now_ms()),
        evaluation_s: begun.elapsed().as_secs_f64(),
        samples_read,
        series_written,
        state: rule.rule.is_alert().then(|| state.alerts.state()),
        alerts,
    };
}

/// Writes the series of a rule, and the end of those that stood before and do not now.
fn write(
    env: &Environment,
    group: &Group,
    mut rows: Vec<Row>,
    seen: &mut HashSet<Labels>,
    time_ms: i64,
) -> Result<(), EvaluationError> {
    let now: HashSet<Labels> = rows.iter().map(|r| r.labels.clone()).collect();
    let gone = seen.difference(&now).cloned().collect();
    rows.extend(stale_rows(gone, time_ms));
    // A process that was paused may find that another has gone on with the group in the meantime.
    if !env.ownership.holds(&group.key) {
        return Err(EvaluationError::NotOurs);
    }
    let refused = match rows.is_empty() {
        true => Vec::new(),
        false => env.storage.write(&group.key.tenant, &rows)?,
    };
    *seen = now;
    match refused.first() {
        None => Ok(()),
        Some(first) => Err(EvaluationError::Refused { count: refused.len(), first: first.clone() }),
    }
}

fn stale_rows(labels: Vec<Labels>, ts_ms: i64) -> Vec<Row> {
    labels.into_iter().map(|labels| Row { labels, ts_ms, value: Value::Float(stale_nan()) }).collect()
}

#[cfg(test)]
mod tests;
