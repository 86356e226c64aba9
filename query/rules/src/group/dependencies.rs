//! Which rules of a group can be evaluated side by side: those that do not read what another of them writes.
//!
//! Upstream's `concurrent-rule-eval` makes three batches of a group. This makes as many as it takes to give
//! every rule exactly what it would see if all ran one after the other: a rule comes after every earlier one
//! whose series it reads, and before every later one that writes series it reads, of which it must see those
//! of the slot before.

use std::collections::BTreeSet;

use model::matcher::MatchOp;
use query::parse::{Expr, Node, VectorSelector, parse_expr};

use super::CompiledRule;
use crate::alert::{ALERT_NAME, ALERTS, ALERTS_FOR_STATE};
use crate::file::RuleKind;

/// What a rule reads.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reads {
    /// It cannot be told.
    Anything,
    /// Series of these metrics, and of alerts of these names.
    Named { metrics: BTreeSet<String>, alerts: BTreeSet<String> },
}

/// The rules of a group by number, in batches: within one the order does not matter.
pub fn batches(rules: &[CompiledRule]) -> Vec<Vec<usize>> {
    let reads: Vec<Reads> = rules.iter().map(reads_of).collect();
    let meets = |reader: usize, writer: usize| match &reads[reader] {
        Reads::Anything => true,
        Reads::Named { metrics, alerts } => match rules[writer].rule.is_alert() {
            true => alerts.contains(rules[writer].rule.name()),
            false => metrics.contains(rules[writer].rule.name()),
        },
    };
    let ordered = |earlier: usize, later: usize| {
        // Two that write one metric may write the same series, and then the later one wins.
        let same = rules[earlier].rule.name() == rules[later].rule.name();
        same || meets(later, earlier) || meets(earlier, later)
    };
    let mut levels = vec![0usize; rules.len()];
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for later in 0..rules.len() {
        let before = (0..later).filter(|earlier| ordered(*earlier, later));
        levels[later] = before.map(|earlier| levels[earlier] + 1).max().unwrap_or(0);
        if batches.len() <= levels[later] {
            batches.resize(levels[later] + 1, Vec::new());
        }
        batches[levels[later]].push(later);
    }
    batches
}

fn reads_of(rule: &CompiledRule) -> Reads {
    // Templates may query what they like.
    if let RuleKind::Alert { annotations, .. } = &rule.rule.kind {
        let mut texts = annotations.values().chain(rule.labels.values());
        if texts.any(|text| text.contains("query")) {
            return Reads::Anything;
        }
    }
    // As it is printed it needs no options; what does not parse all the same is left in its place.
    let options = query::parse::ParseOptions::all();
    let Ok(expr) = parse_expr(&rule.rule.expr, &options) else { return Reads::Anything };
    let mut reads = Reads::Named { metrics: BTreeSet::new(), alerts: BTreeSet::new() };
    gather(&expr, &mut reads);
    reads
}

/// Adds what an expression reads. Chains of binary operators may be long, so those are not descended into.
fn gather(expr: &Expr, reads: &mut Reads) {
    let (first, chain) = expr.left_spine();
    for (binary, _) in &chain {
        gather(&binary.rhs, reads);
    }
    match &first.node {
        Node::Number(_) | Node::Str(_) | Node::Binary(_) => {}
        Node::Vector(selector) | Node::Matrix { selector, .. } => add(selector, reads),
        Node::Subquery(s) => gather(&s.expr, reads),
        // It reads metrics that its text does not name.
        Node::Call(call) if call.func.name == "info" => *reads = Reads::Anything,
        Node::Call(call) => call.args.iter().for_each(|arg| gather(arg, reads)),
        Node::Aggregate(a) => {
            gather(&a.expr, reads);
            if let Some(param) = &a.param {
                gather(param, reads);
            }
        }
        Node::Unary { expr, .. } | Node::Paren(expr) => gather(expr, reads),
    }
}

fn add(selector: &VectorSelector, reads: &mut Reads) {
    let equal = |name: &str| {
        let found = selector.matchers.iter().find(|m| &*m.name == name && m.op == MatchOp::Equal);
        found.map(|m| m.value.to_string()).filter(|value| !value.is_empty())
    };
    let name = selector.name.as_ref().map(|name| name.to_string()).or_else(|| equal("__name__"));
    let Reads::Named { metrics, alerts } = reads else { return };
    match name {
        Some(name) if name == ALERTS || name == ALERTS_FOR_STATE => match equal(ALERT_NAME) {
            Some(alert) => drop(alerts.insert(alert)),
            None => *reads = Reads::Anything,
        },
        Some(name) => drop(metrics.insert(name)),
        None => *reads = Reads::Anything,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{FileOptions, parse};
    use crate::group::{Defaults, Group};
    use model::tenant::TenantId;
    use query::parse::ParseOptions;

    fn of(rules: &str) -> Vec<Vec<usize>> {
        let text = format!("groups:\n- name: g\n  rules:\n{rules}");
        let spec = parse(&text, &FileOptions::default()).unwrap().remove(0);
        let group = Group::new(TenantId::single(), "f", spec, &Defaults::default(), &ParseOptions::default())
            .unwrap();
        batches(&group.rules)
    }

    #[test]
    fn dependencies_put_independent_rules_side_by_side() {
        let chain = "  - {record: a, expr: up}\n  - {record: b, expr: 'sum(down) + rate(x[5m])'}\n  - {record: c, expr: 'a / b'}\n  - {record: d, expr: 'max_over_time(c[1h:1m] offset 5m)'}\n  - {record: e, expr: '{__name__=\"up\"} or vector(1)'}\n";
        assert_eq!(of(chain), [vec![0, 1, 4], vec![2], vec![3]]);
    }

    #[test]
    fn dependencies_keep_what_a_rule_would_see_in_order() {
        // The first reads what the second wrote a slot ago, so it goes first.
        assert_eq!(of("  - {record: a, expr: b}\n  - {record: b, expr: up}\n"), [vec![0], vec![1]]);
        // Nobody knows what the second reads.
        let unnamed =
            "  - {record: a, expr: up}\n  - {record: b, expr: '{job=\"x\"}'}\n  - {record: c, expr: up}\n";
        assert_eq!(of(unnamed), [vec![0], vec![1], vec![2]]);
        assert_eq!(of(&unnamed.replace("'{job=\"x\"}'", "'{__name__=~\"a|z\"}'")).len(), 3);
        let twice =
            "  - {record: a, expr: up, labels: {l: '1'}}\n  - {record: a, expr: down, labels: {l: '2'}}\n";
        assert_eq!(of(twice), [vec![0], vec![1]]);
    }

    #[test]
    fn dependencies_know_the_series_of_alerts_and_queries_of_templates() {
        let alerts = "  - {alert: A, expr: up == 0}\n  - {record: n, expr: 'count(ALERTS{alertname=\"A\"})'}\n  - {record: m, expr: 'count(ALERTS_FOR_STATE{alertname=\"B\"})'}\n";
        assert_eq!(of(alerts), [vec![0, 2], vec![1]]);
        assert_eq!(of(&alerts.replace("{alertname=\"B\"}", "")), [vec![0], vec![1], vec![2]]);
        let template = "  - {record: a, expr: up}\n  - {alert: A, expr: down, annotations: {x: '{{ with query \"a\" }}{{ end }}'}}\n";
        assert_eq!(of(template), [vec![0], vec![1]]);
    }

    #[test]
    fn dependencies_of_independent_rules_are_none() {
        let many: String = (0..20).map(|n| format!("  - {{record: 'r{n}', expr: 'up{n}'}}\n")).collect();
        assert_eq!(of(&many), [(0..20).collect::<Vec<_>>()]);
    }
}
