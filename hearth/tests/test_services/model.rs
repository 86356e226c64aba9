//! What a store must hold after all that was written to it: the plainest implementation, to compare with.

use super::{Api, Labels, Series};
use std::collections::{BTreeMap, HashMap};

/// Samples by series and timestamp. Values are kept as bits, so that equal means identical.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Acknowledged; where a timestamp was written twice, the last one.
    sure: BTreeMap<Labels, BTreeMap<i64, u64>>,
    /// Sent, and no answer or a refusal came: each may be there or not.
    unsure: HashMap<(Labels, i64), Vec<u64>>,
}

impl Model {
    pub fn acknowledged(&mut self, all: &[Series]) {
        for one in all {
            let held = self.sure.entry(labels(one)).or_default();
            for (t, v) in &one.samples {
                held.insert(*t, v.to_bits());
            }
        }
    }

    pub fn unanswered(&mut self, all: &[Series]) {
        for one in all {
            for (t, v) in &one.samples {
                self.unsure.entry((labels(one), *t)).or_default().push(v.to_bits());
            }
        }
    }

    pub fn merge(&mut self, other: Model) {
        for (labels, samples) in other.sure {
            self.sure.entry(labels).or_default().extend(samples);
        }
        for (key, values) in other.unsure {
            self.unsure.entry(key).or_default().extend(values);
        }
    }

    /// How many samples are acknowledged.
    pub fn samples(&self) -> usize {
        self.sure.values().map(BTreeMap::len).sum()
    }

    pub fn series(&self) -> usize {
        self.sure.len()
    }

    /// Asks for every raw sample that `selector` gives in `(end_ms - range_ms, end_ms]`, which must cover all
    /// that was written, and asserts that each acknowledged one is there once with its value, and that
    /// nothing is there that was not written. Gives back how many there are.
    pub fn check(&self, api: &Api, selector: &str, end_ms: i64, range_ms: i64, when: &str) -> usize {
        let found = api.instant(&format!("{selector}[{range_ms}ms]"), end_ms).matrix();
        for (labels, samples) in &self.sure {
            let Some(points) = found.get(labels) else {
                panic!("{when}: series {labels:?} with {} acknowledged samples is gone", samples.len())
            };
            let held: BTreeMap<i64, u64> = points.iter().map(|(t, v)| (*t, v.to_bits())).collect();
            for (t, bits) in samples {
                let expected = f64::from_bits(*bits);
                match held.get(t) {
                    None => panic!("{when}: lost: {labels:?} at {t}, acknowledged as {expected}"),
                    Some(b) if b == bits || self.may_be(labels, *t, *b) => {}
                    Some(b) => {
                        panic!("{when}: {labels:?} at {t} is {} instead of {expected}", f64::from_bits(*b))
                    }
                }
            }
        }
        let mut count = 0;
        for (labels, points) in &found {
            let sure = self.sure.get(labels);
            for (t, v) in points {
                let known = sure.is_some_and(|s| s.contains_key(t)) || self.may_be(labels, *t, v.to_bits());
                assert!(known, "{when}: never written: {labels:?} at {t}, {v}");
            }
            for pair in points.windows(2) {
                assert!(
                    pair[0].0 < pair[1].0,
                    "{when}: {labels:?} at {} stands twice or out of order",
                    pair[1].0
                );
            }
            count += points.len();
        }
        // The same through the evaluation, which merges head and blocks on a way of its own.
        let counted = api.instant(&format!("sum(count_over_time({selector}[{range_ms}ms]))"), end_ms);
        let counted = if counted.is_empty() { 0.0 } else { counted.single() };
        assert_eq!(counted, count as f64, "{when}: counted and listed samples differ");
        count
    }

    fn may_be(&self, labels: &Labels, t: i64, bits: u64) -> bool {
        !self.unsure.is_empty()
            && self.unsure.get(&(labels.clone(), t)).is_some_and(|values| values.contains(&bits))
    }
}

fn labels(series: &Series) -> Labels {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    series.labels.iter().map(|(k, v)| (text(k), text(v))).collect()
}
