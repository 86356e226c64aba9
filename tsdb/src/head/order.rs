//! Brings series of the head into the order of their labels by numbers: of each name and value that they
//! carry the place among all those is found once, and no text is compared twice.

use super::label_sets::{LabelSet, LabelSets};
use super::symbols::Symbol;
use model::labels::METRIC_NAME;

/// Texts that the head has for each label set to be sorted, from which on a table of all of them costs more
/// than comparing does.
const MOST_TEXTS_PER_SET: usize = 512;

/// What a set is sorted by: its names and values in turn, each as its place among all texts.
struct Keys {
    places: Vec<u32>,
    /// Where each set's begin, and the end.
    starts: Vec<usize>,
}

impl Keys {
    fn of(&self, set: u32) -> &[u32] {
        &self.places[self.starts[set as usize]..self.starts[set as usize + 1]]
    }
}

/// Where the sets stand in the list, in the order of [`model::labels::Labels`] or, with `by_metric`, of
/// [`model::labels::Labels::series_cmp`]. `None` where there are so few of so many texts that comparing them
/// is less work.
pub(super) fn sorted(sets: &LabelSets, which: &[LabelSet], by_metric: bool) -> Option<Vec<u32>> {
    let texts = sets.symbols().bound();
    if texts > which.len().saturating_mul(MOST_TEXTS_PER_SET) {
        return None;
    }
    let keys = keys(sets, which, by_metric, texts);
    let mut order: Vec<u32> = (0..which.len() as u32).collect();
    order.sort_unstable_by(|a, b| keys.of(*a).cmp(keys.of(*b)));
    Some(order)
}

fn keys(sets: &LabelSets, which: &[LabelSet], by_metric: bool, texts: usize) -> Keys {
    let symbols = sets.symbols();
    let mut places = vec![0u32; texts];
    let mut distinct: Vec<Symbol> = Vec::new();
    let mut total = 0;
    for set in which {
        for (name, value) in sets.pairs(*set).symbols() {
            for symbol in [name, value] {
                if std::mem::replace(&mut places[symbol as usize], 1) == 0 {
                    distinct.push(symbol);
                }
            }
            total += 2;
        }
    }
    distinct.sort_unstable_by_key(|s| symbols.text(*s));
    for (place, symbol) in distinct.iter().enumerate() {
        // From 1 on: 0 stands for a metric's name that is not there.
        places[*symbol as usize] = place as u32 + 1;
    }
    let metric_name = symbols.find(METRIC_NAME);
    let mut keys = Keys { places: Vec::with_capacity(total + which.len()), starts: vec![0] };
    for set in which {
        let pairs = sets.pairs(*set);
        if by_metric {
            let metric = pairs.clone().symbols().find(|(name, _)| Some(*name) == metric_name);
            keys.places.push(metric.map_or(0, |(_, value)| places[value as usize]));
        }
        keys.places.extend(pairs.symbols().flat_map(|(n, v)| [places[n as usize], places[v as usize]]));
        keys.starts.push(keys.places.len());
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::labels::Labels;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_by_numbers_is_that_of_labels(
            given in proptest::collection::btree_set(
                proptest::collection::btree_map("[A_a-c]{1,3}|__name__", "[ab]{1,3}", 0..5), 1..40),
        ) {
            let mut sets = LabelSets::default();
            let all: Vec<Labels> = given.iter().map(Labels::from_pairs).collect();
            // From the last to the first, so that what is there is not the answer already.
            let which: Vec<LabelSet> =
                all.iter().rev().map(|labels| sets.take(&labels.iter().collect::<Vec<_>>())).collect();
            let picked = |by_metric| -> Vec<Labels> {
                let order = sorted(&sets, &which, by_metric).expect("few texts");
                order.iter().map(|at| Labels::from_sorted(sets.pairs(which[*at as usize]))).collect()
            };
            let mut want = all.clone();
            want.sort_unstable();
            prop_assert_eq!(picked(false), want.clone());
            want.sort_unstable_by(Labels::series_cmp);
            prop_assert_eq!(picked(true), want);
        }
    }

    #[test]
    fn order_of_few_among_many_texts_is_left_to_comparing() {
        let mut sets = LabelSets::default();
        let few = [sets.take(&[("a", "1")])];
        for n in 0..MOST_TEXTS_PER_SET {
            sets.take(&[("b", &n.to_string())]);
        }
        assert_eq!(sorted(&sets, &few, false), None);
    }
}
