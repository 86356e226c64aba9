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
    let reference = reference(&call.args[0], &mut Vec::new()).unwrap_or((0, None));
    let base = ev.eval_vector(&call.args[0])?;
    let written: &[Matcher] = match call.args.get(1) {
        Some(arg) => arg.as_selector().map_or(&[], |s| &s.matchers),
        None => &[],
    };
    let (names, data): (Vec<Matcher>, Vec<Matcher>) =
        written.iter().cloned().partition(|m| &*m.name == METRIC_NAME);
    let asked = Asked { names: name_matchers(names)?, data };
    let infos = match asked.matchers(&base)? {
        None => Vec::new(),
        Some(matchers) => {
            let ((offset_ms, at_ms), steps, lookback_ms) = (reference, ev.steps, ev.lookback_ms);
            let window = |step: usize| {
                let t = at_ms.unwrap_or(steps.at(step)).saturating_sub(offset_ms);
                (t.saturating_sub(lookback_ms), t)
            };
            ev.taken_samples(&matchers, &window, "info")?
        }
    };
    let described = Described::new(&base, &infos, &asked);
    let rows = described.rows(ev)?;
    Ok(Val::Vector(Frame { rows }))
}

/// Which info series a call asks for.
struct Asked {
    /// Matchers of their names.
    names: Vec<Matcher>,
    /// Matchers of their other labels.
    data: Vec<Matcher>,
}

impl Asked {
    /// Whether a row is an info series itself, which stays as it is.
    fn is_info(&self, labels: &Labels) -> bool {
        self.names.iter().all(|m| m.matches(labels.value(METRIC_NAME)))
    }

    /// What selects the info series of these rows; `None` where no row can have any.
    fn matchers(&self, base: &Frame) -> Result<Option<Vec<Matcher>>, QueryError> {
        let mut matchers = Vec::new();
        for label in IDENTIFYING {
            let rows = base.rows.iter().filter(|r| !self.is_info(&r.labels));
            let values: BTreeSet<&str> = rows.filter_map(|r| r.labels.get(label)).collect();
            if !values.is_empty() {
                let regex = any_of(values);
                matchers.push(
                    Matcher::new(MatchOp::Regex, label, &regex)
                        .map_err(|e| QueryError::internal(format!("the matcher of {label}: {e}")))?,
                );
            }
        }
        if matchers.is_empty() {
            return Ok(None);
        }
        matchers.extend(self.data.iter().chain(&self.names).cloned());
        Ok(Some(matchers))
    }
}

/// Rows and the info series that describe them.
struct Described<'a> {
    base: &'a Frame,
    infos: &'a [TakenSeries],
    asked: &'a Asked,
    groups: Vec<Group>,
    /// The groups that describe each row, in the order of their names; none for info series.
    of_row: Vec<Vec<usize>>,
}

impl<'a> Described<'a> {
    fn new(base: &'a Frame, infos: &'a [TakenSeries], asked: &'a Asked) -> Described<'a> {
        let mut groups: BTreeMap<(&str, [&str; 2]), Group> = BTreeMap::new();
        for (i, (labels, _)) in infos.iter().enumerate() {
            groups.entry((labels.value(METRIC_NAME), identity(labels))).or_default().members.push(i);
        }
        let mut by_identity: HashMap<[&str; 2], Vec<usize>> = HashMap::new();
        for (group, (_, identity)) in groups.keys().enumerate() {
            by_identity.entry(*identity).or_default().push(group);
        }
        let describing = |row: &Row| match by_identity.get(&identity(&row.labels)) {
            Some(groups) if !asked.is_info(&row.labels) => groups.clone(),
            _ => Vec::new(),
        };
        let of_row = base.rows.iter().map(describing).collect();
        Described { base, infos, asked, groups: groups.into_values().collect(), of_row }
    }

    /// The rows with the labels of their info series, step by step: what describes a row may change.
    fn rows(&self, ev: &mut Evaluator<'_>) -> Result<Vec<Row>, QueryError> {
        let wanted: BTreeSet<&str> = self.asked.data.iter().map(|m| &*m.name).collect();
        // Without any matching info series a row stays only if every matcher is content with a label that is
        // not there.
        let content_without = self.asked.data.iter().all(|m| m.matches(""));
        let steps = ev.steps.count;
        let base = &self.base.rows;
        let mut out: Vec<Row> = Vec::new();
        let mut by_labels: HashMap<Labels, usize> = HashMap::new();
        // Which info series described a row last, and the row that they made: they rarely change.
        let mut last: Vec<Option<(Vec<usize>, usize)>> = vec![None; base.len()];
        for step in 0..steps {
            ev.budget.check_in_turn()?;
            if base.iter().all(|r| r.column.get(step).is_none()) {
                continue;
            }
            let newest: Vec<Option<usize>> =
                self.groups.iter().map(|g| g.newest(self.infos, step)).collect::<Result<_, _>>()?;
            for (i, row) in base.iter().enumerate() {
                let Some(point) = row.column.get(step) else { continue };
                let infos: Vec<usize> = self.of_row[i].iter().filter_map(|g| newest[*g]).collect();
                if infos.is_empty() && !content_without && !self.asked.is_info(&row.labels) {
                    continue;
                }
                let target = match &last[i] {
                    Some((same, target)) if *same == infos => *target,
                    _ => {
                        let of_infos = infos.iter().map(|i| &self.infos[*i].0);
                        let labels = enriched(&row.labels, of_infos, &wanted)?;
                        let next = out.len();
                        let target = *by_labels.entry(labels.clone()).or_insert(next);
                        if target == next {
                            ev.charge(column_bytes(steps) + 2 * label_bytes(&labels))?;
                            out.push(Row { labels, drop_name: row.drop_name, column: Column::new(steps) });
                        }
                        last[i] = Some((infos, target));
                        target
                    }
                };
                let column = &mut out[target].column;
                if column.get(step).is_some() {
                    return Err(QueryError::execution(SAME_LABELSET));
                }
                match point {
                    Point::Float(v) => column.set_float(step, v),
                    Point::Histogram(h) => column.set_histogram(step, h.clone()),
                }
            }
        }
        Ok(out)
    }
}
