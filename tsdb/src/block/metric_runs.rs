//! Which rows of a series table each metric has: a small directory in the footer of `series.parquet`, so that
//! a query for one metric reads its rows only.
//!
//! The table is sorted by metric, so a metric is one run of rows. Blocks written before there was a directory
//! have none, and it is left out where there are too many metrics; the table is then read whole. Its text is
//! base64 of: a version (1), the number of metrics, and for each in order how many bytes of its name are
//! those of the name before, how many follow, those, and how many rows it has; numbers as varints.

use std::ops::Range;

use crate::block::checksums::{from_base64, to_base64};
use model::codec::varint;
use model::labels::METRIC_NAME;
use model::matcher::Matcher;

/// Key of the Parquet footer under which the directory lies.
pub const METRICS_KEY: &str = "hearth.metrics";

const VERSION: u64 = 1;

/// Bytes of a directory beyond which a block has none: it is read whenever the block is opened.
const MOST_BYTES: usize = 1 << 20;
/// Bytes of names beyond which a directory is not believed: what names share is written once, so a short text
/// may claim much.
const MOST_NAME_BYTES: usize = 64 << 20;

/// The metrics of a block and where their rows begin.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MetricRuns {
    /// Ascending, each once; empty for series that have no name.
    names: Vec<Box<str>>,
    /// The first row of each, and how many rows there are in all.
    starts: Vec<u32>,
}

/// Gathers the directory of a table that is being written.
#[derive(Default)]
pub(crate) struct MetricRunsWriter {
    metrics: u64,
    /// All but the last metric's number of rows.
    bytes: Vec<u8>,
    last: String,
    rows: u64,
}

impl MetricRunsWriter {
    /// The next row is of this metric.
    pub fn row(&mut self, metric: &str) {
        if self.metrics > 0 && self.last == metric {
            self.rows += 1;
            return;
        }
        if self.bytes.len() <= MOST_BYTES {
            if self.metrics > 0 {
                varint::put_u64(&mut self.bytes, self.rows);
            }
            let same = self.last.bytes().zip(metric.bytes()).take_while(|(a, b)| a == b).count();
            varint::put_u64(&mut self.bytes, same as u64);
            varint::put_bytes(&mut self.bytes, &metric.as_bytes()[same..]);
        }
        self.metrics += 1;
        self.last.clear();
        self.last.push_str(metric);
        self.rows = 1;
    }

    /// The directory's text, unless it is too long to be of use.
    pub fn finish(self) -> Option<String> {
        if self.metrics == 0 || self.bytes.len() > MOST_BYTES {
            return None;
        }
        let mut all = Vec::with_capacity(self.bytes.len() + 16);
        varint::put_u64(&mut all, VERSION);
        varint::put_u64(&mut all, self.metrics);
        all.extend_from_slice(&self.bytes);
        varint::put_u64(&mut all, self.rows);
        Some(to_base64(&all))
    }
}

impl MetricRuns {
    /// Reads a directory; `None` where it is of another version or not what it should be, which is as good as
    /// none.
    pub fn from_text(text: &str) -> Option<MetricRuns> {
        let bytes = from_base64(text)?;
        let mut rest = &bytes[..];
        if varint::take_u64(&mut rest)? != VERSION {
            return None;
        }
        let metrics = varint::take_u64(&mut rest)?;
        let mut runs = MetricRuns { names: Vec::new(), starts: vec![0] };
        let mut name = Vec::new();
        let (mut rows, mut name_bytes) = (0u32, 0);
        for _ in 0..metrics {
            let same = usize::try_from(varint::take_u64(&mut rest)?).ok().filter(|n| *n <= name.len())?;
            name.truncate(same);
            name.extend_from_slice(varint::take_bytes(&mut rest)?);
            name_bytes += name.len();
            let text = std::str::from_utf8(&name).ok().filter(|_| name_bytes <= MOST_NAME_BYTES)?;
            if runs.names.last().is_some_and(|before| **before >= *text) {
                return None;
            }
            runs.names.push(text.into());
            rows = rows.checked_add(u32::try_from(varint::take_u64(&mut rest)?).ok()?)?;
            runs.starts.push(rows);
        }
        rest.is_empty().then_some(runs)
    }

    /// The metrics, ascending; empty for series that have no name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// How many rows there are.
    pub fn rows(&self) -> u32 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The rows of metrics whose names these matchers allow, ascending and apart; `None` where no matcher
    /// asks for the name, or to look would take long.
    pub fn rows_of(&self, matchers: &[Matcher]) -> Option<Vec<Range<u32>>> {
        let of_name: Vec<&Matcher> = matchers.iter().filter(|m| *m.name == *METRIC_NAME).collect();
        // What takes long is left to who looks at the clock meanwhile.
        let slow = |m: &&Matcher| m.regex().is_some_and(|re| re.is_slow_for(self.names.len()));
        if of_name.is_empty() || of_name.iter().any(slow) {
            return None;
        }
        let mut found: Vec<Range<u32>> = Vec::new();
        for (name, rows) in self.names.iter().zip(self.starts.windows(2)) {
            if of_name.iter().all(|m| m.matches(name)) {
                match found.last_mut().filter(|before| before.end == rows[0]) {
                    Some(before) => before.end = rows[1],
                    None => found.push(rows[0]..rows[1]),
                }
            }
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::matcher::MatchOp;
    use proptest::prelude::*;

    fn written<'m>(metrics: impl IntoIterator<Item = (&'m str, u32)>) -> Option<String> {
        let mut writer = MetricRunsWriter::default();
        for (metric, rows) in metrics {
            (0..rows).for_each(|_| writer.row(metric));
        }
        writer.finish()
    }

    #[test]
    fn names_choose_runs_of_rows() {
        let text = written([("", 2), ("node_cpu", 3), ("node_disk", 1), ("up", 4)]).unwrap();
        let runs = MetricRuns::from_text(&text).unwrap();
        assert_eq!(runs.rows(), 10);
        let rows = |op, value| {
            let found = runs.rows_of(&[Matcher::new(op, METRIC_NAME, value).unwrap()]).unwrap();
            (found.len(), found.into_iter().flatten().collect::<Vec<u32>>())
        };
        assert_eq!(rows(MatchOp::Equal, "node_disk"), (1, vec![5]));
        assert_eq!(rows(MatchOp::Equal, ""), (1, vec![0, 1]));
        assert_eq!(rows(MatchOp::Equal, "none"), (0, vec![]));
        assert_eq!(rows(MatchOp::Regex, "node_.*"), (1, vec![2, 3, 4, 5]));
        assert_eq!(rows(MatchOp::NotEqual, "node_cpu"), (2, vec![0, 1, 5, 6, 7, 8, 9]));
        assert_eq!(runs.rows_of(&[Matcher::equal("job", "node")]), None);
    }

    #[test]
    fn directory_of_too_many_names_is_none() {
        let names: Vec<String> = (0..300_000).map(|i| format!("{:08}", i * 7)).collect();
        assert!(written(names.iter().map(|n| (n.as_str(), 1))).is_none());
        assert!(written([]).is_none());
    }

    proptest! {
        #[test]
        fn directory_comes_back(names in proptest::collection::btree_map(any::<String>(), 1u32..5, 1..50)) {
            let runs = MetricRuns::from_text(&written(names.iter().map(|(n, r)| (n.as_str(), *r))).unwrap()).unwrap();
            prop_assert_eq!(runs.names.iter().map(|n| n.to_string()).collect::<Vec<_>>(), names.keys().cloned().collect::<Vec<_>>());
            let rows: Vec<u32> = runs.starts.windows(2).map(|w| w[1] - w[0]).collect();
            prop_assert_eq!(rows, names.values().copied().collect::<Vec<_>>());
        }

        #[test]
        fn metric_runs_of_any_text_are_a_directory_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut own = vec![1];
            own.extend(bytes);
            if let Some(runs) = MetricRuns::from_text(&to_base64(&own)) {
                prop_assert!(runs.starts.is_sorted() && runs.names.is_sorted() && runs.starts.len() == runs.names.len() + 1);
            }
        }
    }
}
