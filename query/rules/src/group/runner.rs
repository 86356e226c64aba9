//! One group and its state, moved on slot by slot. Synchronous: time and storage are handed in.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use model::labels::Labels;

use super::batch::{self, Place, stale_rows};
use super::dependencies::batches;
use super::environment::{Environment, RuleState};
use super::error::{EvaluationError, WriteError};
use super::evaluate::recording;
use super::handover::{self, AlertState, GroupState};
use super::reload::predecessors;
use super::schedule::Slots;
use super::view::{GroupView, Health};
use super::{CompiledRule, Group};
use crate::alert::restore;

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
        for of_batch in &self.batches {
            let rules = group.rules.iter().zip(&mut self.rules).enumerate();
            let of_batch = rules.filter(|(at, _)| of_batch.binary_search(at).is_ok()).map(|(_, rule)| rule);
            let places = of_batch.map(|(rule, state)| Place { rule, state }).collect();
            batch::evaluate(env, &group, places, slot_ms, &span);
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
                .and_then(|e| batch::write(env, &group, e.result, &mut self.backfill.seen[at], time_ms));
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

#[cfg(test)]
mod tests;
