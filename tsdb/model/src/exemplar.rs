//! Exemplars: single observations with labels of their own, a trace's above all, that stand beside a series'
//! samples.
//!
//! They live as samples do, only apart: in the log with the writes they came with, in a buffer in memory, and
//! after a flush in a file of their own in the object store, which the same commit makes live that lets go of
//! the log. They have their own retention, and compaction of blocks does not touch them.

use std::collections::BTreeMap;

use crate::labels::Labels;

/// Characters that the names and values of an exemplar's labels may have together, as OpenMetrics has it.
pub const MAX_LABEL_CHARS: usize = 128;

/// One observation.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Milliseconds since the Unix epoch.
    pub ts_ms: i64,
    pub value: f64,
    pub labels: Labels,
}

/// A series and its exemplars, ascending as [`Exemplar::check_after`] has it.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesExemplars {
    pub labels: Labels,
    pub exemplars: Vec<Exemplar>,
}

impl SeriesExemplars {
    /// About what it takes in memory.
    pub fn heap_bytes(&self) -> usize {
        80 + self.labels.byte_len() + self.exemplars.iter().map(|e| e.bytes() as usize).sum::<usize>()
    }
}

/// What becomes of an exemplar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    New,
    /// The newest of its series is the same: not kept again, and no fault.
    Duplicate,
}

/// Why an exemplar is not kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("an exemplar's labels have more than {MAX_LABEL_CHARS} characters")]
    TooLong,
    /// Older than the newest of its series, or as old and before it by value or labels.
    #[error("out of order exemplar")]
    OutOfOrder,
    /// Memory for exemplars is full, because they cannot be written to the object store as fast as they come.
    #[error("{0}")]
    Full(String),
}

impl Exemplar {
    /// Whether its labels are short enough.
    pub fn check_length(labels: &[(&str, &str)]) -> Result<(), Refused> {
        let chars = |s: &str| s.chars().take(MAX_LABEL_CHARS + 1).count();
        let all: usize = labels.iter().map(|(n, v)| chars(n) + chars(v)).sum();
        if all > MAX_LABEL_CHARS { Err(Refused::TooLong) } else { Ok(()) }
    }

    /// Upstream's rule (`tsdb/exemplar.go`): after the newest by time, then by value, then by the labels'
    /// hash.
    pub fn check_after(&self, newest: &Exemplar) -> Result<Accepted, Refused> {
        if self.is(newest) {
            return Ok(Accepted::Duplicate);
        }
        let same_time = self.ts_ms == newest.ts_ms;
        let before = self.ts_ms < newest.ts_ms
            || (same_time && self.value < newest.value)
            || (same_time && self.value == newest.value && self.labels.hash() < newest.labels.hash());
        if before { Err(Refused::OutOfOrder) } else { Ok(Accepted::New) }
    }

    /// Equality that takes a NaN for itself.
    fn is(&self, other: &Exemplar) -> bool {
        self.ts_ms == other.ts_ms
            && self.value.to_bits() == other.value.to_bits()
            && self.labels == other.labels
    }

    /// About what it takes in memory.
    pub fn bytes(&self) -> u64 {
        80 + self.labels.byte_len() as u64
    }
}

/// Exemplars from several places as one: series ascending by their labels, of each the exemplars in order and
/// once.
#[derive(Debug, Default)]
pub struct Gathered {
    series: BTreeMap<Labels, Vec<Exemplar>>,
}

impl Gathered {
    pub fn add(&mut self, labels: &Labels, exemplars: impl IntoIterator<Item = Exemplar>) {
        let mut exemplars = exemplars.into_iter().peekable();
        if exemplars.peek().is_some() {
            self.series.entry(labels.clone()).or_default().extend(exemplars);
        }
    }

    pub fn finish(self) -> Vec<SeriesExemplars> {
        let one = |(labels, mut exemplars): (Labels, Vec<Exemplar>)| {
            exemplars.sort_by(|a, b| {
                (a.ts_ms.cmp(&b.ts_ms))
                    .then_with(|| a.value.total_cmp(&b.value))
                    .then_with(|| a.labels.hash().cmp(&b.labels.hash()))
                    .then_with(|| a.labels.cmp(&b.labels))
            });
            exemplars.dedup_by(|a, b| a.is(b));
            SeriesExemplars { labels, exemplars }
        };
        self.series.into_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exemplar(ts_ms: i64, value: f64, trace: &str) -> Exemplar {
        Exemplar { ts_ms, value, labels: Labels::from_pairs([("trace_id", trace)]) }
    }

    #[test]
    fn exemplar_order_decides_what_is_new_as_upstream() {
        let newest = exemplar(10, 2.0, "b");
        let (low, high) = match exemplar(0, 0.0, "a").labels.hash() < newest.labels.hash() {
            true => ("a", "b"),
            false => ("b", "a"),
        };
        assert_eq!(newest.check_after(&newest), Ok(Accepted::Duplicate));
        for (next, want) in [
            (exemplar(11, 0.0, "b"), Ok(Accepted::New)),
            (exemplar(9, 9.0, "b"), Err(Refused::OutOfOrder)),
            (exemplar(10, 3.0, "b"), Ok(Accepted::New)),
            (exemplar(10, 1.0, "z"), Err(Refused::OutOfOrder)),
        ] {
            assert_eq!(next.check_after(&newest), want, "{next:?}");
        }
        assert_eq!(exemplar(10, 2.0, high).check_after(&exemplar(10, 2.0, low)), Ok(Accepted::New));
        assert_eq!(exemplar(10, 2.0, low).check_after(&exemplar(10, 2.0, high)), Err(Refused::OutOfOrder));
    }

    #[test]
    fn exemplar_labels_are_counted_in_characters() {
        let long = "ü".repeat(120);
        assert_eq!(Exemplar::check_length(&[("trace_id", &long)]), Ok(()));
        assert_eq!(Exemplar::check_length(&[("trace_id", &long), ("a", "")]), Err(Refused::TooLong));
        assert_eq!(Exemplar::check_length(&[]), Ok(()));
    }

    #[test]
    fn exemplars_in_two_places_come_once_and_in_order() {
        let mut all = Gathered::default();
        let up = Labels::from_pairs([("__name__", "up")]);
        all.add(&up, [exemplar(2, 1.0, "x"), exemplar(3, f64::NAN, "y")]);
        all.add(&up, [exemplar(1, 1.0, "x"), exemplar(3, f64::NAN, "y")]);
        all.add(&Labels::empty(), []);
        let all = all.finish();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].exemplars.iter().map(|e| e.ts_ms).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
