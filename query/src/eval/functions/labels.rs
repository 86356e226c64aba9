//! Functions that change labels or the order of series.

use std::cmp::Ordering;

use hashbrown::HashSet;
use model::labels::{Labels, METRIC_NAME};
use model::matcher::Re2;
use regex_automata::meta::Regex;
use regex_automata::util::captures::Captures;

use super::kernel::{Entry, Kernel};
use super::natural::natural_cmp;
use crate::eval::evaluator::Evaluator;
use crate::eval::frame::{Frame, Row, Val};
use crate::plan::{Call, PlanExpr};
use crate::value::QueryError;

pub static TABLE: &[Entry] = &[
    Entry { name: "label_replace", kernel: Kernel::Whole(|ev, call| ev.rowwise_call(call)) },
    Entry { name: "label_join", kernel: Kernel::Whole(|ev, call| ev.rowwise_call(call)) },
    Entry { name: "sort", kernel: Kernel::Whole(|ev, call| sort_by_value(ev, call, false)) },
    Entry { name: "sort_desc", kernel: Kernel::Whole(|ev, call| sort_by_value(ev, call, true)) },
    Entry { name: "sort_by_label", kernel: Kernel::Whole(|ev, call| sort_by_label(ev, call, false)) },
    Entry { name: "sort_by_label_desc", kernel: Kernel::Whole(|ev, call| sort_by_label(ev, call, true)) },
];

/// A string argument as text; label names and values are UTF-8, other bytes are shown as replacement
/// characters and never match.
fn text(arg: &PlanExpr) -> Result<String, QueryError> {
    match arg.as_string() {
        Some(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        None => Err(QueryError::internal("a string literal was planned, something else came")),
    }
}

/// A label name: any UTF-8 but the empty string.
fn label_name(arg: &PlanExpr, what: &str) -> Result<String, QueryError> {
    let name = text(arg)?;
    let valid = arg.as_string().is_some_and(|b| !b.is_empty() && std::str::from_utf8(b).is_ok());
    if valid { Ok(name) } else { Err(QueryError::execution(format!("invalid {what}: {name}"))) }
}

/// Longest label value that a query may make: far beyond what anybody reads, and short enough for a row of it
/// to be cheap.
const MAX_MADE_VALUE_BYTES: usize = 256 << 10;

/// Most steps of the engine that one value of `label_replace` may cost, as bytes of its program times bytes
/// of the value: seconds.
const MAX_CAPTURE_WORK: usize = 1 << 33;

fn too_long(function: &str) -> QueryError {
    QueryError::execution(format!(
        "{function}() makes a label value of more than {MAX_MADE_VALUE_BYTES} bytes, the limit"
    ))
}

/// What `label_replace` and `label_join` do to a label set.
pub(crate) struct Relabel {
    target: String,
    from: From,
}

enum From {
    Replace { replacement: String, source: String, regex: Re2 },
    Join { separator: String, sources: Vec<String> },
}

impl Relabel {
    /// Reads and checks the arguments of such a call.
    pub fn new(call: &Call) -> Result<Relabel, QueryError> {
        if call.func.name == "label_join" {
            let separator = text(&call.args[2])?;
            let sources: Vec<String> = call.args[3..]
                .iter()
                .map(|a| label_name(a, "source label name in label_join()"))
                .collect::<Result<_, _>>()?;
            let target = label_name(&call.args[1], "destination label name in label_join()")?;
            return Ok(Relabel { target, from: From::Join { separator, sources } });
        }
        let replacement = text(&call.args[2])?;
        let source = text(&call.args[3])?;
        let pattern = text(&call.args[4])?;
        let regex = Re2::anchored(&pattern).map_err(|_| {
            QueryError::execution(format!("invalid regular expression in label_replace(): {pattern}"))
        })?;
        let target = label_name(&call.args[1], "destination label name in label_replace()")?;
        Ok(Relabel { target, from: From::Replace { replacement, source, regex } })
    }

    /// The new labels, and whether their name is still to be dropped: one that was just written stays.
    pub fn apply(&self, labels: Labels, drop_name: bool) -> Result<(Labels, bool), QueryError> {
        let value = match &self.from {
            From::Replace { replacement, source, regex } => {
                let value = labels.value(source);
                if regex.regex().memory_usage().saturating_mul(value.len()) > MAX_CAPTURE_WORK {
                    return Err(QueryError::execution(format!(
                        "the regular expression in label_replace() is too large for a label value of {} bytes",
                        value.len()
                    )));
                }
                let mut captures = regex.regex().create_captures();
                regex.regex().captures(value, &mut captures);
                if !captures.is_match() {
                    return Ok((labels, drop_name));
                }
                expand(replacement, value, regex.regex(), &captures)
                    .ok_or_else(|| too_long("label_replace"))?
            }
            From::Join { separator, sources } => {
                let values: Vec<&str> = sources.iter().map(|s| labels.value(s)).collect();
                let separators = separator.len() * values.len().saturating_sub(1);
                if values.iter().map(|v| v.len()).sum::<usize>() + separators > MAX_MADE_VALUE_BYTES {
                    return Err(too_long("label_join"));
                }
                values.join(separator)
            }
        };
        let mut b = labels.to_builder();
        b.set(&self.target, &value);
        Ok((b.build(), drop_name && self.target != METRIC_NAME))
    }
}

/// Go's `Regexp.Expand`: `$1`, `$name`, `${name}`; `$$` is a dollar, and so is one that begins none of these.
/// `None` where it would become too long.
fn expand(template: &str, value: &str, regex: &Regex, captures: &Captures) -> Option<String> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        if out.len() > MAX_MADE_VALUE_BYTES {
            return None;
        }
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let Some((name, after)) = reference(after) else {
            out.push('$');
            rest = after;
            continue;
        };
        rest = after;
        let numbered =
            name.bytes().all(|b| b.is_ascii_digit()) && (name.len() == 1 || !name.starts_with('0'));
        let span = if numbered && name.len() <= 8 {
            name.parse().ok().and_then(|i| captures.get_group(i))
        } else {
            // Of groups that share a name the first that took part.
            let names = regex.group_info().pattern_names(regex_automata::PatternID::ZERO);
            names.enumerate().filter(|(_, n)| *n == Some(name)).find_map(|(i, _)| captures.get_group(i))
        };
        if let Some(span) = span {
            out.push_str(&value[span.range()]);
        }
    }
    out.push_str(rest);
    (out.len() <= MAX_MADE_VALUE_BYTES).then_some(out)
}

/// The name at the start of what follows a dollar, and what follows the name.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (braced, text) = match text.strip_prefix('{') {
        Some(inner) => (true, inner),
        None => (false, text),
    };
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return None;
    }
    if braced { rest.strip_prefix('}').map(|rest| (name, rest)) } else { Some((name, rest)) }
}

/// The argument of a sort. Range results are always in the order of labels, so there is nothing to do but to
/// say so.
fn to_sort(ev: &mut Evaluator<'_>, call: &Call) -> Result<(Vec<Row>, bool), QueryError> {
    let frame = ev.eval_vector(&call.args[0])?;
    if !ev.steps.is_instant() {
        ev.notes.warn(
            call.span,
            "sort is ineffective for range queries since results are always ordered by labels",
        );
    }
    let instant = ev.steps.is_instant();
    Ok((frame.rows, instant))
}

/// By value, histograms left out, NaN last in either direction.
fn sort_by_value(ev: &mut Evaluator<'_>, call: &Call, descending: bool) -> Result<Val, QueryError> {
    let (mut rows, instant) = to_sort(ev, call)?;
    for row in &mut rows {
        row.column.map_floats(|v| v);
    }
    rows.retain(|r| !r.column.is_empty());
    if instant {
        let value = |r: &Row| r.column.float(0).unwrap_or(f64::NAN);
        rows.sort_by(|a, b| {
            let (a, b) = (value(a), value(b));
            match (a.is_nan(), b.is_nan()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                _ if descending => b.partial_cmp(&a).unwrap_or(Ordering::Equal),
                _ => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            }
        });
    }
    Ok(Val::Vector(Frame { rows }))
}

/// By the labels named, in natural order, then by all labels.
fn sort_by_label(ev: &mut Evaluator<'_>, call: &Call, descending: bool) -> Result<Val, QueryError> {
    let (mut rows, instant) = to_sort(ev, call)?;
    if instant {
        let mut names = call.args[1..].iter().map(text).collect::<Result<Vec<_>, _>>()?;
        // A name that no row has decides nothing, and there may be thousands of them.
        let carried: HashSet<&str> = rows.iter().flat_map(|r| r.labels.iter().map(|(n, _)| n)).collect();
        let mut seen = HashSet::new();
        names.retain(|n| carried.contains(n.as_str()) && seen.insert(n.clone()));
        drop(carried);
        ev.budget.check_in_turn()?;
        rows.sort_by(|a, b| {
            let order = names
                .iter()
                .map(|n| natural_cmp(a.labels.value(n), b.labels.value(n)))
                .find(|o| o.is_ne())
                .unwrap_or_else(|| a.labels.cmp(&b.labels));
            if descending { order.reverse() } else { order }
        });
    }
    Ok(Val::Vector(Frame { rows }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_replace_templates_are_expanded_as_go_does() {
        let re = Re2::anchored("(?P<first>[a-z]+)-(.*)").unwrap();
        let mut captures = re.regex().create_captures();
        re.regex().captures("source-10", &mut captures);
        for (template, want) in [
            ("$1", "source"),
            ("${2}x", "10x"),
            ("$2x", ""),
            ("${first}/$first", "source/source"),
            ("$$1 $", "$1 $"),
            ("${1", "${1"),
            ("$9", ""),
            ("$0", "source-10"),
        ] {
            assert_eq!(
                expand(template, "source-10", re.regex(), &captures).as_deref(),
                Some(want),
                "{template}"
            );
        }
    }
}
