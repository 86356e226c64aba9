//! What must hold of groups and rules beyond their YAML, in upstream's words (`rulefmt.RuleGroups.Validate`).

use std::collections::{BTreeMap, HashSet};

use model::labels::METRIC_NAME;
use model::quote::quote;
use query::parse::parse_expr;

use super::error::{FileError, Position};
use super::rule::{FileOptions, PlacedGroup, PlacedRule, Rule, RuleGroup, RuleKind};
use crate::template::Template;

/// All groups of a file, or all that is wrong with them.
pub(super) fn groups(
    groups: Vec<PlacedGroup>,
    options: &FileOptions,
) -> Result<Vec<RuleGroup>, Vec<FileError>> {
    let mut errors = Vec::new();
    let mut names = HashSet::new();
    let mut out = Vec::with_capacity(groups.len());
    for group in groups {
        if group.name.is_empty() {
            errors.push(FileError::at(group.place, "Groupname must not be empty".into()));
        }
        if !names.insert(group.name.clone()) {
            let text = format!("groupname: \"{}\" is repeated in the same file", group.name);
            errors.push(FileError::at(group.place, text));
        }
        for (name, (place, _)) in &group.labels {
            if !is_label_name(name) {
                errors.push(FileError::at(*place, format!("invalid label name: {name}")));
            }
        }
        let mut rules = Vec::with_capacity(group.rules.len());
        for (at, rule) in group.rules.into_iter().enumerate() {
            let (rule, mut found) = self::rule(rule, options);
            for error in &mut found {
                error.text = format!(
                    "group {}, rule {}, {}: {}",
                    quote(&group.name),
                    at + 1,
                    quote(rule.name()),
                    error.text
                );
            }
            errors.append(&mut found);
            rules.push(rule);
        }
        out.push(RuleGroup {
            name: group.name,
            interval_ms: group.interval_ms,
            query_offset_ms: group.query_offset_ms,
            limit: group.limit,
            labels: without_places(group.labels),
            rules,
        });
    }
    if errors.is_empty() { Ok(out) } else { Err(errors) }
}

fn without_places(map: BTreeMap<String, (Position, String)>) -> BTreeMap<String, String> {
    map.into_iter().map(|(name, (_, value))| (name, value)).collect()
}

/// Any UTF-8 is a name, but for nothing and for the metric's.
fn is_label_name(name: &str) -> bool {
    !name.is_empty() && name != METRIC_NAME
}

/// What a recording rule may not have, and how it may not be called.
fn recording_name(rule: &PlacedRule, place: Position, record: &str, wrong: &mut dyn FnMut(Position, String)) {
    for (present, field) in [
        (!rule.annotations.is_empty(), "annotations"),
        (rule.for_ms != 0, "for"),
        (rule.keep_firing_for_ms != 0, "keep_firing_for"),
    ] {
        if present {
            wrong(place, format!("invalid field '{field}' in recording rule"));
        }
    }
    if record.contains(['{', '}']) {
        wrong(place, format!("braces present in the recording rule name; should it be in expr?: {record}"));
    }
}

fn rule(mut rule: PlacedRule, options: &FileOptions) -> (Rule, Vec<FileError>) {
    let mut errors = Vec::new();
    let mut wrong = |place: Position, text: String| errors.push(FileError::at(place, text));
    let expr = match rule.expr.take() {
        None => {
            wrong(rule.place, "field 'expr' must be set in rule".into());
            String::new()
        }
        Some((place, expr)) => {
            if let Err(e) = parse_expr(&expr, &options.parse) {
                wrong(place, format!("could not parse expression: {e}"));
            }
            expr
        }
    };
    if let Some((place, record)) = &rule.record {
        recording_name(&rule, *place, record, &mut wrong);
    }
    for (name, (place, _)) in &rule.labels {
        if !is_label_name(name) {
            wrong(*place, format!("invalid label name: {name}"));
        }
    }
    for (name, (place, _)) in &rule.annotations {
        if name.is_empty() {
            wrong(*place, format!("invalid annotation name: {name}"));
        }
    }
    if let Some((_, alert)) = &rule.alert {
        for (what, map) in [("label", &rule.labels), ("annotation", &rule.annotations)] {
            for (name, (place, text)) in map {
                if let Err(e) = Template::parse(text, &format!("__alert_{alert}")) {
                    wrong(*place, format!("{what} {}: {e}", quote(name)));
                }
            }
        }
    }
    match (&rule.record, &rule.alert) {
        (Some((record, _)), Some((alert, _))) => errors.insert(
            0,
            FileError {
                place: *record,
                second: Some(*alert),
                text: "only one of 'record' and 'alert' must be set".into(),
            },
        ),
        (None, None) => {
            errors.insert(0, FileError::at(rule.place, "one of 'record' or 'alert' must be set".into()));
        }
        _ => {}
    }
    let kind = match (rule.alert, rule.record) {
        (Some((_, name)), _) => RuleKind::Alert {
            name,
            for_ms: rule.for_ms,
            keep_firing_for_ms: rule.keep_firing_for_ms,
            annotations: without_places(rule.annotations),
        },
        (None, record) => RuleKind::Record(record.map(|(_, name)| name).unwrap_or_default()),
    };
    (Rule { kind, expr, labels: without_places(rule.labels) }, errors)
}
