//! A reload as a plan: which groups go on, which begin with another's state, which end.

use std::collections::{BTreeMap, HashMap};

use super::{CompiledRule, Group, GroupKey};

/// What becomes of each group; numbers are places in the two lists.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReloadPlan {
    /// Old ones that run on untouched.
    pub keep: Vec<usize>,
    /// New ones, each with the old one whose state it takes.
    pub start: Vec<(usize, Option<usize>)>,
    /// Old ones that have no successor.
    pub stop: Vec<usize>,
}

/// Compares what runs with what was read.
pub fn plan<'a>(old: impl IntoIterator<Item = &'a Group>, new: &[Group]) -> ReloadPlan {
    let old: Vec<&Group> = old.into_iter().collect();
    let mut by_key: HashMap<&GroupKey, usize> = old.iter().enumerate().map(|(i, g)| (&g.key, i)).collect();
    let mut plan = ReloadPlan::default();
    for (at, group) in new.iter().enumerate() {
        match by_key.remove(&group.key) {
            Some(before) if old[before].is_same(group) => plan.keep.push(before),
            before => plan.start.push((at, before)),
        }
    }
    plan.stop = by_key.into_values().collect();
    plan.keep.sort_unstable();
    plan.stop.sort_unstable();
    plan
}

/// What rules are recognised by across a change of their group.
type RuleId<'a> = (bool, &'a str, &'a BTreeMap<String, String>);

fn id(rule: &CompiledRule) -> RuleId<'_> {
    (rule.rule.is_alert(), rule.rule.name(), &rule.labels)
}

/// For each new rule the old one whose state it takes: the same name and labels, of several the n-th takes
/// the n-th.
pub fn predecessors(old: &[CompiledRule], new: &[CompiledRule]) -> Vec<Option<usize>> {
    let mut by_id: HashMap<RuleId<'_>, std::collections::VecDeque<usize>> = HashMap::new();
    for (at, rule) in old.iter().enumerate() {
        by_id.entry(id(rule)).or_default().push_back(at);
    }
    new.iter().map(|rule| by_id.get_mut(&id(rule)).and_then(|places| places.pop_front())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{FileOptions, parse};
    use crate::group::Defaults;
    use model::tenant::TenantId;
    use query::parse::ParseOptions;

    fn groups(text: &str) -> Vec<Group> {
        let specs = parse(text, &FileOptions::default()).unwrap();
        let make = |spec| {
            Group::new(TenantId::single(), "f", spec, &Defaults::default(), &ParseOptions::default()).unwrap()
        };
        specs.into_iter().map(make).collect()
    }

    #[test]
    fn reload_keeps_equal_groups_and_passes_state_of_changed_ones() {
        let old = groups(
            "groups:\n- {name: a, rules: [{record: x, expr: up}]}\n- {name: b, rules: []}\n- {name: c, rules: []}\n",
        );
        let new = groups(
            "groups:\n- {name: d, rules: []}\n- {name: a, rules: [{record: x, expr: 'up{}'}]}\n- {name: b, rules: [], limit: 3}\n",
        );
        let plan = plan(&old, &new);
        assert_eq!(plan.keep, Vec::<usize>::new(), "the text of an expression counts");
        assert_eq!(plan.start, [(0, None), (1, Some(0)), (2, Some(1))]);
        assert_eq!(plan.stop, [2]);
        assert_eq!(super::plan(&old, &groups("groups:\n- {name: b, rules: []}\n")).keep, [1]);
    }

    #[test]
    fn rules_take_the_state_of_their_namesakes_in_order() {
        let of = |text: &str| groups(text).remove(0).rules;
        let old = of(
            "groups:\n- name: a\n  rules:\n  - {record: x, expr: '1'}\n  - {record: x, expr: '2'}\n  - {record: y, expr: '3', labels: {l: v}}\n",
        );
        let new = of(
            "groups:\n- name: a\n  rules:\n  - {record: y, expr: '3', labels: {l: v}}\n  - {record: x, expr: '9'}\n  - {record: y, expr: '3'}\n  - {record: x, expr: '8'}\n",
        );
        assert_eq!(predecessors(&old, &new), [Some(2), Some(0), None, Some(1)]);
    }
}
