//! Groups of an aggregation, told apart by their labels.

use std::sync::Arc;

use hashbrown::HashMap;
use model::labels::{Labels, METRIC_NAME};

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
        true => labels.filter(|n, _| n != METRIC_NAME && !is_in(grouping, n)),
        false if grouping.is_empty() => Labels::empty(),
        false => labels.filter(|n, _| is_in(grouping, n)),
    }
}

/// Groups in the order of their first row.
pub(super) struct Groups<'a> {
    aggregate: &'a Aggregate,
    numbers: HashMap<Labels, usize>,
    pub labels: Vec<Labels>,
}

impl<'a> Groups<'a> {
    pub fn new(aggregate: &'a Aggregate) -> Self {
        Groups { aggregate, numbers: HashMap::new(), labels: Vec::new() }
    }

    pub fn of(&mut self, labels: &Labels) -> usize {
        let key = group_labels(labels, &self.aggregate.grouping, self.aggregate.without);
        let next = self.labels.len();
        let at = *self.numbers.entry(key.clone()).or_insert(next);
        if at == next {
            self.labels.push(key);
        }
        at
    }
}
