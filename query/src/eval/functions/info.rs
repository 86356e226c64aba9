//! `info`: labels of info metrics added to the series they describe, as upstream's `promql/info.go`.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use tsdb::labels::{Labels, METRIC_NAME};
use tsdb::matcher::{MatchOp, Matcher};

use super::rows::UniqueRows;
use super::{Entry, Run};
use crate::eval::Evaluator;
use crate::eval::frame::{Point, Val};
use crate::plan::{Call, PlanExpr, PlanNode};
use crate::value::QueryError;

pub static TABLE: &[Entry] = &[Entry { name: "info", run: Run::Special(info) }];

const TARGET_INFO: &str = "target_info";

/// What ties an info series to others. Fixed, so that nothing need be known of an info metric.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The name matchers that select info series: those written, with `.+_info` before them where all are negative, and
/// `target_info` where there are none.
fn name_matchers(written: Vec<Matcher>) -> Result<Vec<Matcher>, QueryError> {
    if written.is_empty() {
        return Ok(vec![Matcher::equal(METRIC_NAME, TARGET_INFO)]);
    }
    if written.iter().any(|m| m.op.is_positive()) {
        return Ok(written);
    }
    let any_info = Matcher::new(MatchOp::Regex, METRIC_NAME, ".+_info")
        .map_err(|e| QueryError::internal(format!("the matcher of all info metrics: {e}")))?;
    Ok(std::iter::once(any_info).chain(written).collect())
}

/// The `@` and the offset of the first selector in an expression: the innermost `@` of it and its subqueries, and the offsets up to there.
fn reference(expr: &PlanExpr, around: &mut Vec<(i64, Option<i64>)>) -> Option<(i64, Option<i64>)> {
    match &expr.node {
        PlanNode::Selector(s) | PlanNode::Matrix { selector: s, .. } => {
            let (mut offset_ms, mut at_ms) = (s.offset_ms, s.at_ms);
            for (outer_offset_ms, outer_at_ms) in around.iter().rev() {
                if at_ms.is_some() {
                    break;
                }
                offset_ms += outer_offset_ms;
                at_ms = *outer_at_ms;
            }
            Some((offset_ms, at_ms))
        }
        PlanNode::Subquery(s) => {
            around.push((s.offset_ms, s.at_ms));
            let found = reference(&s.expr, around);
            around.pop();
            found
        }
        PlanNode::Call(c) => c.args.iter().find_map(|a| reference(a, around)),
        PlanNode::Aggregate(a) => {
            reference(&a.expr, around).or_else(|| a.param.as_ref().and_then(|p| reference(p, around)))
        }
        PlanNode::Binary(b) => reference(&b.lhs, around).or_else(|| reference(&b.rhs, around)),
        PlanNode::Negate(e) | PlanNode::StepInvariant(e) => reference(e, around),
        PlanNode::Number(_) | PlanNode::Str(_) => None,
    }
}

/// A regex that matches one of some strings, nothing in them meaning more than itself.
fn any_of<'a>(values: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = String::new();
    for value in values {
        if !out.is_empty() {
            out.push('|');
        }
        for c in value.chars() {
            if r"\.+*?()|[]{}^$".contains(c) {
                out.push('\\');
            }
            out.push(c);
        }
    }
    out
}

/// An info series at one step.
struct InfoSample<'a> {
    labels: &'a Labels,
    ts_ms: i64,
}

fn info(ev: &mut Evaluator<'_>, call: &Call) -> Result<Val, QueryError> {
    let (offset_ms, at_ms) = reference(&call.args[0], &mut Vec::new()).unwrap_or((0, None));
    let base = ev.eval_vector(&call.args[0])?;

    let written: &[Matcher] = match call.args.get(1) {
        Some(arg) => arg.as_selector().map_or(&[], |s| &s.matchers),
        None => &[],
    };
    let (names, data): (Vec<Matcher>, Vec<Matcher>) =
        written.iter().cloned().partition(|m| &*m.name == METRIC_NAME);
    let names = name_matchers(names)?;
    let mut wanted: BTreeMap<&str, Vec<&Matcher>> = BTreeMap::new();
    for m in &data {
        wanted.entry(&m.name).or_default().push(m);
    }
    // Info series themselves stay as they are.
    let is_info = |labels: &Labels| names.iter().all(|m| m.matches(labels.value(METRIC_NAME)));

    let mut matchers = Vec::new();
    for label in IDENTIFYING {
        let values: BTreeSet<&str> =
            base.rows.iter().filter(|r| !is_info(&r.labels)).filter_map(|r| r.labels.get(label)).collect();
        if !values.is_empty() {
            let regex = any_of(values);
            matchers.push(
                Matcher::new(MatchOp::Regex, label, &regex)
                    .map_err(|e| QueryError::internal(format!("the matcher of {label}: {e}")))?,
            );
        }
    }
    let infos = if matchers.is_empty() {
        Vec::new()
    } else {
        matchers.extend(data.iter().cloned());
        matchers.extend(names.iter().cloned());
        ev.taken_samples(&matchers, offset_ms, at_ms, "info")?
    };
    let identity = |labels: &Labels| IDENTIFYING.map(|l| labels.value(l).to_string());
    let info_names: BTreeSet<&str> = infos.iter().map(|(l, _)| l.value(METRIC_NAME)).collect();
    // Without any matching info series a row stays only if every matcher is content with a label that is not there.
    let content_without = data.iter().all(|m| m.matches(""));

    let steps = ev.steps.count;
    let mut out = UniqueRows::default();
    for step in 0..steps {
        ev.budget.check()?;
        if base.rows.iter().all(|r| r.column.get(step).is_none()) {
            continue;
        }
        let mut by_identity: HashMap<(&str, [String; 2]), InfoSample<'_>> = HashMap::new();
        for (labels, taken) in &infos {
            let Some(taken) = taken[step] else { continue };
            if taken.is_histogram {
                return Err(QueryError::execution("info sample should be float"));
            }
            let new = InfoSample { labels, ts_ms: taken.ts_ms };
            match by_identity.entry((labels.value(METRIC_NAME), identity(labels))) {
                hashbrown::hash_map::Entry::Vacant(e) => {
                    e.insert(new);
                }
                hashbrown::hash_map::Entry::Occupied(mut e) => {
                    let old = e.get();
                    if old.ts_ms == new.ts_ms {
                        return Err(QueryError::execution(format!(
                            "found duplicate series for info metric: existing {} @ {}, new {} @ {}",
                            old.labels, old.ts_ms, new.labels, new.ts_ms
                        )));
                    }
                    if old.ts_ms < new.ts_ms {
                        e.insert(new);
                    }
                }
            }
        }
        for row in &base.rows {
            let Some(point) = row.column.get(step) else { continue };
            let labels = if is_info(&row.labels) {
                row.labels.clone()
            } else {
                let id = identity(&row.labels);
                let mut added: BTreeMap<&str, &str> = BTreeMap::new();
                let mut found = false;
                for name in &info_names {
                    let Some(sample) = by_identity.get(&(*name, id.clone())) else { continue };
                    found = true;
                    for (n, v) in sample.labels.iter() {
                        if n == METRIC_NAME || (!wanted.is_empty() && !wanted.contains_key(n)) {
                            continue;
                        }
                        if added.get(n).is_some_and(|other| *other != v) {
                            return Err(QueryError::execution(format!("conflicting label: {n}")));
                        }
                        if row.labels.get(n).is_none() {
                            added.insert(n, v);
                        }
                    }
                }
                if !found && !content_without {
                    continue;
                }
                let mut b = row.labels.to_builder();
                for (n, v) in added {
                    b.set(n, v);
                }
                b.build()
            };
            let to = out.row(&labels, row.drop_name, steps);
            if to.column.get(step).is_some() {
                return Err(QueryError::execution(crate::eval::SAME_LABELSET));
            }
            match point {
                Point::Float(v) => to.column.set_float(step, v),
                Point::Histogram(h) => to.column.set_histogram(step, h.clone()),
            }
        }
    }
    Ok(out.into_val())
}
