//! The rules of a group that do not read one another's series: they are asked side by side and what they
//! give is written in one commit, because a commit waits for a disk and for four other threads.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use model::labels::Labels;
use model::sample::{Value, stale_nan};
use model::source::Source;
use tracing::Span;
use tracing::field::Empty;

use super::environment::{Environment, RuleState};
use super::error::EvaluationError;
use super::evaluate::{Evaluated, alerting, recording};
use super::view::{Health, RuleView};
use super::{CompiledRule, Group, Row};

/// A rule that gives more rows writes them itself, so that a batch never holds the rows of several such rules
/// at once. It is enough that its commit costs little beside them.
const WRITTEN_ALONE_FROM: usize = 1_000;

/// Most rules that are written together: with [`WRITTEN_ALONE_FROM`] the bound of the rows that are held.
const MOST_TOGETHER: usize = 100;

/// Threads are called for rules that took this long together the last time: they cost about 0.1 ms each.
const WORTH_THREADS: Duration = Duration::from_millis(5);

/// A rule of a batch on its way through it.
pub(super) struct Place<'a> {
    pub rule: &'a CompiledRule,
    pub state: &'a mut RuleState,
}

/// What a rule gave.
struct Asked<'a> {
    rule: &'a CompiledRule,
    state: &'a mut RuleState,
    /// Rows that wait to be written together with those of the others; none where they are written.
    outcome: Result<Option<Waiting>, EvaluationError>,
    samples_read: u64,
    series_written: u64,
    /// Without the write that it shares.
    took: Duration,
    span: Span,
}

/// Rows of a rule that are not written yet, those that end series included.
struct Waiting {
    rows: Vec<Row>,
    /// What the rule's series are once the rows are written.
    seen: HashSet<Labels>,
}

/// Evaluates the rules of a batch at a slot. All of them see the store as it was before the first.
pub(super) fn evaluate(
    env: &Environment,
    group: &Group,
    mut places: Vec<Place<'_>>,
    slot_ms: i64,
    parent: &Span,
) {
    while !places.is_empty() {
        let rest = places.split_off(places.len().min(MOST_TOGETHER));
        together(env, group, places, slot_ms, parent);
        places = rest;
    }
}

fn together(env: &Environment, group: &Group, places: Vec<Place<'_>>, slot_ms: i64, parent: &Span) {
    let source = env.storage.source(&group.key.tenant);
    let spare = if is_worth_threads(&places) { places.len() - 1 } else { 0 };
    let mut asked = env.spare.map(places, spare, |place| {
        // By name: the threads that help are in no span.
        let span = tracing::debug_span!(
            parent: parent, "evaluate_rule", rule = place.rule.rule.name(),
            samples_read = Empty, series_written = Empty, error = Empty
        );
        let _in_span = span.clone().entered();
        ask(env, group, place, &*source, slot_ms, span)
    });
    drop(source);
    write_together(env, group, &mut asked);
    let count = asked.len() as u64;
    let took = asked.iter().map(|a| a.took).sum();
    let failed = asked.into_iter().map(|a| finish(env, group, a)).filter(|ok| !ok).count() as u64;
    env.metrics.rules_evaluated(group, count, failed, took);
}

/// Whether the rules took long the last time, or it is not known.
fn is_worth_threads(places: &[Place<'_>]) -> bool {
    let last = places.iter().map(|p| p.state.view.last_evaluation_ms.map(|_| p.state.view.evaluation_s));
    last.sum::<Option<f64>>().is_none_or(|seconds| seconds >= WORTH_THREADS.as_secs_f64())
}

/// Evaluates one rule, tells its alerts, and writes its rows if they are many.
fn ask<'a>(
    env: &Environment,
    group: &Group,
    place: Place<'a>,
    source: &dyn Source,
    slot_ms: i64,
    span: Span,
) -> Asked<'a> {
    let begun = Instant::now();
    let Place { rule, state } = place;
    let time_ms = slot_ms - group.query_offset_ms;
    let rows = match rule.rule.is_alert() {
        false => recording(&env.engine, source, rule, time_ms),
        true => alerting(&env.engine, source, rule, time_ms, slot_ms, &env.external.get()).and_then(
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
    let (samples_read, series_written) =
        rows.as_ref().map_or((0, 0), |e| (e.samples_read, e.result.len() as u64));
    let outcome = rows.and_then(|e| match e.result.len() < WRITTEN_ALONE_FROM {
        true => Ok(Some(Waiting::new(e.result, &state.seen, time_ms))),
        false => write(env, group, e.result, &mut state.seen, time_ms).map(|()| None),
    });
    Asked { rule, state, outcome, samples_read, series_written, took: begun.elapsed(), span }
}

impl Waiting {
    /// The rows of a rule, and the end of its series that are gone.
    fn new(mut rows: Vec<Row>, before: &HashSet<Labels>, time_ms: i64) -> Waiting {
        let seen: HashSet<Labels> = rows.iter().map(|r| r.labels.clone()).collect();
        rows.extend(stale_rows(before.difference(&seen).cloned().collect(), time_ms));
        Waiting { rows, seen }
    }
}

/// Writes what waits, in the order of the rules, and says each rule what became of its rows.
fn write_together(env: &Environment, group: &Group, asked: &mut [Asked<'_>]) {
    let mut rows = Vec::new();
    let mut ends = Vec::with_capacity(asked.len());
    for one in asked.iter_mut() {
        if let Ok(Some(waiting)) = &mut one.outcome {
            rows.append(&mut waiting.rows);
        }
        ends.push(rows.len());
    }
    let mut refused = match store(env, group, &rows) {
        Ok(refused) => refused.into_iter().peekable(),
        Err(why) => {
            let mut begin = 0;
            for (one, end) in asked.iter_mut().zip(ends) {
                if end > begin {
                    one.outcome = Err(why.clone());
                }
                begin = end;
            }
            return;
        }
    };
    for (one, end) in asked.iter_mut().zip(ends) {
        let Ok(Some(waiting)) = &mut one.outcome else { continue };
        one.state.seen = std::mem::take(&mut waiting.seen);
        let mut own = Vec::new();
        while let Some((_, why)) = refused.next_if(|(at, _)| *at < end) {
            own.push(why);
        }
        if let Some(why) = EvaluationError::of_refused(own) {
            one.outcome = Err(why);
        }
    }
}

/// Shows what became of a rule; whether it worked.
fn finish(env: &Environment, group: &Group, asked: Asked<'_>) -> bool {
    let Asked { rule, state, outcome, samples_read, series_written, took, span } = asked;
    let _in_span = span.clone().entered();
    span.record("samples_read", samples_read);
    span.record("series_written", series_written);
    if let Err(why) = &outcome {
        span.record("error", why.to_string().as_str());
        tracing::warn!(
            tenant = group.key.tenant.as_str(),
            file = group.key.file,
            group = group.key.name,
            rule = rule.rule.name(),
            "a rule was not evaluated: {why}"
        );
    }
    let alerts = state.alerts.current().into_iter().cloned().collect();
    let worked = outcome.is_ok();
    state.view = RuleView {
        health: if worked { Health::Ok } else { Health::Err },
        last_error: outcome.err().map(|why| why.to_string()),
        last_evaluation_ms: Some(env.clock.now_ms()),
        evaluation_s: took.as_secs_f64(),
        samples_read,
        series_written,
        state: rule.rule.is_alert().then(|| state.alerts.state()),
        alerts,
    };
    worked
}

/// Writes the series of one rule, and the end of those that stood before and do not now.
pub(super) fn write(
    env: &Environment,
    group: &Group,
    rows: Vec<Row>,
    seen: &mut HashSet<Labels>,
    time_ms: i64,
) -> Result<(), EvaluationError> {
    let Waiting { rows, seen: now } = Waiting::new(rows, seen, time_ms);
    let refused = store(env, group, &rows)?;
    *seen = now;
    let refused = refused.into_iter().map(|(_, why)| why).collect();
    EvaluationError::of_refused(refused).map_or(Ok(()), Err)
}

/// Writes rows if the group is this process' still; those that were refused, by place.
fn store(env: &Environment, group: &Group, rows: &[Row]) -> Result<Vec<(usize, String)>, EvaluationError> {
    // A process that was paused may find that another has gone on with the group in the meantime.
    if !env.ownership.holds(&group.key) {
        return Err(EvaluationError::NotOurs);
    }
    match rows.is_empty() {
        true => Ok(Vec::new()),
        false => Ok(env.storage.write(&group.key.tenant, rows)?),
    }
}

/// Rows that end series.
pub(super) fn stale_rows(labels: Vec<Labels>, ts_ms: i64) -> Vec<Row> {
    labels.into_iter().map(|labels| Row { labels, ts_ms, value: Value::Float(stale_nan()) }).collect()
}

#[cfg(test)]
mod tests;
