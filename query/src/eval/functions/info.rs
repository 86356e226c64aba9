//! `info`: labels of info metrics added to the series they describe, as upstream's `promql/info.go`.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use model::labels::{Labels, METRIC_NAME};
use model::matcher::{MatchOp, Matcher};

use super::kernel::{Entry, Kernel};
use super::timestamps::TakenSeries;
use crate::column::{Column, Point};
use crate::eval::evaluator::{Evaluator, SAME_LABELSET, column_bytes, label_bytes};
use crate::eval::frame::{Frame, Row, Val};
use crate::plan::{Call, PlanExpr, PlanNode};
use crate::value::QueryError;

pub static TABLE: &[Entry] = &[Entry { name: "info", kernel: Kernel::Whole(info) }];

const TARGET_INFO: &str = "target_info";

/// What ties an info series to others. Fixed, so that nothing need be known of an info metric.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The name matchers that select info series: those written, with `.+_info` before them where all are
/// negative, and `target_info` where there are none.
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

/// The `@` and the offset of the first selector in an expression: the innermost `@` of it and its subqueries,
/// and the offsets up to there.
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

/// What makes an info series and a series it describes belong together.
fn identity(labels: &Labels) -> [&str; 2] {
    IDENTIFYING.map(|l| labels.value(l))
}

/// Info series of one name and identity; at most one of them counts at a step.
#[derive(Default)]
struct Group {
    members: Vec<usize>,
}

impl Group {
    /// The member with the newest sample at a step. Two as new as each other cannot be told apart, which is
    /// an error.
    fn newest(&self, infos: &[TakenSeries], step: usize) -> Result<Option<usize>, QueryError> {
        let mut newest: Option<(usize, i64)> = None;
        for at in &self.members {
            let (labels, taken) = &infos[*at];
            let Some(taken) = taken[step] else { continue };
            if taken.is_histogram {
                return Err(QueryError::execution("info sample should be float"));
            }
            match newest {
                Some((other, ts_ms)) if ts_ms == taken.ts_ms => {
                    return Err(QueryError::execution(format!(
                        "found duplicate series for info metric: existing {} @ {ts_ms}, new {labels} @ {ts_ms}",
                        infos[other].0
                    )));
                }
                Some((_, ts_ms)) if ts_ms > taken.ts_ms => {}
                _ => newest = Some((*at, taken.ts_ms)),
            }
        }
        Ok(newest.map(|(at, _)| at))
    }
}

/// The labels of a row with those of info series added: only `wanted` ones where any are, and none that the
/// row has already.
fn enriched<'a>(
    row: &'a Labels,
    infos: impl Iterator<Item = &'a Labels>,
    wanted: &BTreeSet<&str>,
) -> Result<Labels, QueryError> {
    let mut added: BTreeMap<&str, &str> = BTreeMap::new();
    for (n, v) in infos.flatten() {
        if n == METRIC_NAME || (!wanted.is_empty() && !wanted.contains(n)) {
            continue;
        }
        if added.get(n).is_some_and(|other| *other != v) {
            return Err(QueryError::execution(format!("conflicting label: {n}")));
        }
        if row.get(n).is_none() {
            added.insert(n, v);
        }
    }
    let mut b = row.to_builder();
    for (n, v) in &added {
        b.set(n, v);
    }
    Ok(b.build())
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
    let wanted: BTreeSet<&str> = data.iter().map(|m| &*m.name).collect();
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
        let (steps, lookback_ms) = (ev.steps, ev.lookback_ms);
        let window = |step: usize| {
            let t = at_ms.unwrap_or(steps.at(step)).saturating_sub(offset_ms);
            (t.saturating_sub(lookback_ms), t)
        };
        ev.taken_samples(&matchers, &window, "info")?
    };
    let mut groups: BTreeMap<(&str, [&str; 2]), Group> = BTreeMap::new();
    for (at, (labels, _)) in infos.iter().enumerate() {
        groups.entry((labels.value(METRIC_NAME), identity(labels))).or_default().members.push(at);
    }
    let keys: Vec<_> = groups.keys().copied().collect();
    let groups: Vec<Group> = groups.into_values().collect();
    // The groups that describe each row, in the order of their names; none for info series.
    let mut by_identity: HashMap<[&str; 2], Vec<usize>> = HashMap::new();
    for (at, (_, id)) in keys.iter().enumerate() {
        by_identity.entry(*id).or_default().push(at);
    }
    let describing: Vec<&[usize]> = base
        .rows
        .iter()
        .map(|r| match by_identity.get(&identity(&r.labels)) {
            Some(groups) if !is_info(&r.labels) => &groups[..],
            _ => &[],
        })
        .collect();
    // Without any matching info series a row stays only if every matcher is content with a label that is not
    // there.
    let content_without = data.iter().all(|m| m.matches(""));

    let steps = ev.steps.count;
    let mut out: Vec<Row> = Vec::new();
    let mut by_labels: HashMap<Labels, usize> = HashMap::new();
    // Which info series described a row last, and the row that came of it: they rarely change.
    let mut last: Vec<Option<(Vec<usize>, usize)>> = vec![None; base.rows.len()];
    for step in 0..steps {
        ev.budget.check()?;
        if base.rows.iter().all(|r| r.column.get(step).is_none()) {
            continue;
        }
        let newest: Vec<Option<usize>> =
            groups.iter().map(|g| g.newest(&infos, step)).collect::<Result<_, _>>()?;
        for (at, row) in base.rows.iter().enumerate() {
            let Some(point) = row.column.get(step) else { continue };
            let described: Vec<usize> = describing[at].iter().filter_map(|g| newest[*g]).collect();
            if described.is_empty() && !content_without && !is_info(&row.labels) {
                continue;
            }
            let to = match &last[at] {
                Some((same, to)) if *same == described => *to,
                _ => {
                    let labels = enriched(&row.labels, described.iter().map(|i| &infos[*i].0), &wanted)?;
                    let next = out.len();
                    let to = *by_labels.entry(labels.clone()).or_insert(next);
                    if to == next {
                        ev.charge(column_bytes(steps) + 2 * label_bytes(&labels))?;
                        out.push(Row { labels, drop_name: row.drop_name, column: Column::new(steps) });
                    }
                    last[at] = Some((described, to));
                    to
                }
            };
            let column = &mut out[to].column;
            if column.get(step).is_some() {
                return Err(QueryError::execution(SAME_LABELSET));
            }
            match point {
                Point::Float(v) => column.set_float(step, v),
                Point::Histogram(h) => column.set_histogram(step, h.clone()),
            }
        }
    }
    Ok(Val::Vector(Frame { rows: out }))
}
