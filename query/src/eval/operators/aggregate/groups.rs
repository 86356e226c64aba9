//! Groups of an aggregation, told apart by their labels.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use model::labels::{Labels, METRIC_NAME};

use crate::eval::frame::{Names, is_metadata_label};
use crate::plan::Aggregate;

/// Whether a name is among those of a grouping, which are ascending.
pub(super) fn is_in(grouping: &[Arc<str>], name: &str) -> bool {
    // As fast as a search for the few that people write, and still quick for thousands.
    match grouping.len() {
        0..=8 => grouping.iter().any(|g| &**g == name),
        _ => grouping.binary_search_by(|g| (**g).cmp(name)).is_ok(),
    }
}

/// The labels a row's group goes by.
pub(super) fn group_labels(labels: &Labels, grouping: &[Arc<str>], without: bool) -> Labels {
    match without {
        true => labels.filter(|n, _| belongs(n, grouping, true)),
        false if grouping.is_empty() => Labels::empty(),
        false => labels.filter(|n, _| belongs(n, grouping, false)),
    }
}

/// Groups in the order of their first row.
pub(super) struct Groups<'a> {
    aggregate: &'a Aggregate,
    /// Numbers of groups, found by those labels of a row that make its group.
    numbers: HashTable<u32>,
    hash_key: DefaultHashBuilder,
    pub labels: Vec<Labels>,
}

impl<'a> Groups<'a> {
    pub fn new(aggregate: &'a Aggregate) -> Self {
        let (numbers, hash_key) = (HashTable::new(), DefaultHashBuilder::default());
        Groups { aggregate, numbers, hash_key, labels: Vec::new() }
    }

    /// Whether the rows' names, types and units tell groups apart.
    pub fn names(&self) -> Names {
        let Aggregate { grouping, without, .. } = self.aggregate;
        match *without || grouping.iter().any(|name| is_metadata_label(name)) {
            true => Names::Dropped,
            false => Names::NotLookedAt,
        }
    }

    /// The number of a row's group. Makes a label set only for a new one.
    pub fn of(&mut self, labels: &Labels) -> usize {
        let Aggregate { grouping, without, .. } = self.aggregate;
        let one = !without && grouping.is_empty();
        if one && !self.labels.is_empty() {
            return 0;
        }
        let own = || labels.iter().filter(|(name, _)| belongs(name, grouping, *without));
        let mut hasher = self.hash_key.build_hasher();
        own().for_each(|pair| pair.hash(&mut hasher));
        let hash = hasher.finish();
        let all = &self.labels;
        if let Some(at) = self.numbers.find(hash, |at| all[*at as usize].iter().eq(own())) {
            return *at as usize;
        }
        let at = all.len();
        self.labels.push(group_labels(labels, grouping, *without));
        let (all, key) = (&self.labels, &self.hash_key);
        let hash_again = |at: &u32| {
            let mut hasher = key.build_hasher();
            all[*at as usize].iter().for_each(|pair| pair.hash(&mut hasher));
            hasher.finish()
        };
        self.numbers.insert_unique(hash, at as u32, hash_again);
        at
    }
}

/// Whether a label is one of those that make a group.
fn belongs(name: &str, grouping: &[Arc<str>], without: bool) -> bool {
    match without {
        true => name != METRIC_NAME && !is_in(grouping, name),
        false => is_in(grouping, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{AggregateOp, Span, ValueType};
    use crate::plan::{PlanExpr, PlanNode};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn groups_are_told_apart_by_their_labels(
            rows in prop::collection::vec(prop::collection::btree_map("a|b|c|__name__", "x|y|ab", 0..4), 0..40),
            grouping in prop::collection::btree_set("a|b|c|d|__name__", 0..4),
            without: bool,
        ) {
            let aggregate = Aggregate {
                op: AggregateOp::Sum,
                expr: PlanExpr::new(PlanNode::Number(0.0), ValueType::Scalar, Span::default()),
                param: None,
                grouping: grouping.iter().map(|name| Arc::from(name.as_str())).collect(),
                without,
            };
            let mut groups = Groups::new(&aggregate);
            let mut known: Vec<Labels> = Vec::new();
            for row in &rows {
                let labels = Labels::from_pairs(row);
                let own = group_labels(&labels, &aggregate.grouping, without);
                let want = known.iter().position(|l| *l == own).unwrap_or(known.len());
                if want == known.len() {
                    known.push(own);
                }
                prop_assert_eq!(groups.of(&labels), want);
            }
            prop_assert_eq!(groups.labels, known);
        }
    }
}
