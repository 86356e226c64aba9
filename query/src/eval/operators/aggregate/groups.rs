//! Groups of an aggregation, told apart by their labels.

use std::sync::Arc;

use hashbrown::HashMap;
use model::labels::{Labels, METRIC_NAME};

use crate::plan::Aggregate;

/// The labels a row's group goes by.
pub(super) fn group_labels(labels: &Labels, grouping: &[Arc<str>], without: bool) -> Labels {
    match without {
        true => labels.filter(|n, _| n != METRIC_NAME && !grouping.iter().any(|g| &**g == n)),
        false if grouping.is_empty() => Labels::empty(),
        false => labels.filter(|n, _| grouping.iter().any(|g| &**g == n)),
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
