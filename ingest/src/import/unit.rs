//! One unit of an import, from the source to a block in the catalog, checked on the way.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use model::rollup::Aggregates;
use model::source::{Budget, Hints, RollupHints, Selection, SeriesColumns, Source};
use model::span::Span;
use serde::Serialize;
use tsdb::block::{BlockOrigin, BlockWriter, WriteOptions};
use tsdb::bucket::import_journal::ImportJournal;
use xxhash_rust::xxh3::xxh3_128;

use super::ImportError;
use super::fingerprint::Fingerprint;

/// What compaction cuts at by default; no imported block crosses a multiple of it.
pub const SPAN_MS: i64 = 12 * 3600 * 1000;

/// The aligned spans that a range (ends included) touches, as ranges with both ends included.
pub fn spans((min_t_ms, max_t_ms): (i64, i64)) -> impl Iterator<Item = (i64, i64)> {
    let first = Span::containing(min_t_ms, SPAN_MS);
    let next = move |span: &Span| (span.end_ms < max_t_ms).then(|| span.next());
    std::iter::successors((min_t_ms <= max_t_ms).then_some(first), next).map(|span| span.bounds())
}

/// One block to be made.
#[derive(Clone, Debug)]
pub struct Unit {
    /// What is imported, in words that are the same in every run: the source's identity and what is selected
    /// of it.
    pub identity: String,
    /// Times that are imported, both included.
    pub range: (i64, i64),
    /// 0 for samples, else the length of the windows that the source gives.
    pub resolution_ms: i64,
    /// What the block's meta says of the outside world; the labels of series have to bring it themselves.
    pub external_labels: BTreeMap<String, String>,
}

impl Unit {
    /// A unit of samples.
    pub fn raw(identity: &str, range: (i64, i64)) -> Unit {
        Unit { identity: identity.to_owned(), range, resolution_ms: 0, external_labels: BTreeMap::new() }
    }

    /// The key in the journal.
    pub fn key(&self) -> String {
        let text = format!("{}\n{}..={}", self.identity, self.range.0, self.range.1);
        format!("{:032x}", xxh3_128(text.as_bytes()))
    }

    /// How its block is written: read for years, so cut as compaction cuts it, and compressed no harder than
    /// an import has time for.
    fn options(&self) -> WriteOptions {
        let options = match self.resolution_ms {
            0 => WriteOptions::compacted(),
            ms => WriteOptions::downsampled(ms),
        };
        WriteOptions { zstd_level: 3, ..options }
    }

    fn begin(&self, journal: &ImportJournal, key: &str) -> Result<BlockWriter, ImportError> {
        let origin = BlockOrigin {
            resolution_ms: self.resolution_ms,
            // Whoever else makes windows makes them otherwise than Hearth.
            approximate: self.resolution_ms > 0,
            external_labels: self.external_labels.clone(),
            ..journal.begin(key)?
        };
        Ok(BlockWriter::create(journal.scratch(), origin, self.options())?)
    }
}

/// What became of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An earlier run had imported it.
    Before,
    /// The source has nothing in its range.
    Nothing,
    /// A block was written, found to be what the source has, and committed.
    Written { block: String, fingerprint: Box<Fingerprint>, bytes: u64 },
}

/// What is kept in the journal.
#[derive(Serialize)]
struct About<'a> {
    source: &'a str,
    min_t_ms: i64,
    max_t_ms: i64,
    series: u64,
    samples: u64,
    checksum: String,
}

/// Takes series one after the other; what [`import`] hands to the source.
pub type Give<'a> = dyn FnMut(SeriesColumns) -> Result<(), ImportError> + 'a;

/// Imports a unit. `read` is called once, where it was not imported before, and gives all its series in
/// Hearth's order.
pub fn import(
    journal: &ImportJournal,
    unit: &Unit,
    read: impl FnOnce(&mut Give<'_>) -> Result<(), ImportError>,
) -> Result<Outcome, ImportError> {
    let key = unit.key();
    if journal.is_done(&key)? {
        return Ok(Outcome::Before);
    }
    let mut fingerprint = Fingerprint::default();
    let mut writer = None;
    read(&mut |series| {
        fingerprint.add(&series);
        let writer = match &mut writer {
            Some(writer) => writer,
            // Only what has something in it is begun: most spans of a sparse source are empty.
            none => none.insert(unit.begin(journal, &key)?),
        };
        Ok(writer.append(series)?)
    })?;
    let about = About {
        source: &unit.identity,
        min_t_ms: unit.range.0,
        max_t_ms: unit.range.1,
        series: fingerprint.series,
        samples: fingerprint.samples,
        checksum: format!("{:016x}", fingerprint.total()),
    };
    let files = match writer {
        Some(writer) => writer.finish()?,
        None => None,
    };
    let Some(files) = files else {
        journal.nothing(&key, &about)?;
        return Ok(Outcome::Nothing);
    };
    let written = journal.upload(&files)?;
    check(&fingerprint, &written, unit.resolution_ms)?;
    journal.commit(&key, &files.meta, &about)?;
    Ok(Outcome::Written {
        block: files.meta.ulid.to_string(),
        fingerprint: Box::new(fingerprint),
        bytes: files.meta.files.bytes(),
    })
}

/// Reads what was written and compares it with what the source gave.
fn check(expected: &Fingerprint, written: &dyn Source, resolution_ms: i64) -> Result<(), ImportError> {
    let mut found = Fingerprint::default();
    walk(written, resolution_ms, &mut |series| {
        found.add(series);
        ControlFlow::Continue(())
    })?;
    let name = |n: usize| {
        let mut at = 0;
        let mut name = None;
        let looked = walk(written, resolution_ms, &mut |series| {
            at += 1;
            if at > n {
                name = Some(series.labels.to_string());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        looked.ok().and(name)
    };
    match expected.difference(&found, name) {
        None => Ok(()),
        Some(difference) => Err(ImportError::Differs(difference)),
    }
}

/// Visits all series of a source in order.
fn walk(
    source: &dyn Source,
    resolution_ms: i64,
    visit: &mut dyn FnMut(&SeriesColumns) -> ControlFlow<()>,
) -> Result<(), ImportError> {
    let windows = RollupHints {
        max_resolution_ms: resolution_ms,
        aggregates: Aggregates::ALL,
        ..RollupHints::default()
    };
    let everything = Selection {
        matchers: Vec::new(),
        min_t_ms: i64::MIN,
        max_t_ms: i64::MAX,
        hints: Hints { rollups: windows, ..Hints::default() },
        budget: Budget::unlimited(),
    };
    let mut cursor = source.select(&everything)?;
    while let Some(batch) = cursor.next_batch()? {
        for series in &batch {
            if visit(series).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_half_days_open_at_the_left() {
        let h = 3_600_000;
        assert_eq!(spans((12 * h, 12 * h)).collect::<Vec<_>>(), [(1, 12 * h)]);
        assert_eq!(spans((12 * h, 12 * h + 1)).collect::<Vec<_>>(), [(1, 12 * h), (12 * h + 1, 24 * h)]);
        assert_eq!(spans((-5, 40 * h)).count(), 5);
        assert_eq!(spans((1, 0)).count(), 0);
    }

    #[test]
    fn unit_key_is_of_what_is_imported_and_nothing_else() {
        let unit = |identity: &str, range| Unit::raw(identity, range).key();
        assert_eq!(unit("a", (1, 2)), unit("a", (1, 2)));
        assert_ne!(unit("a", (1, 2)), unit("a", (1, 3)));
        assert_ne!(unit("a", (1, 2)), unit("b", (1, 2)));
        assert_eq!(unit("a", (1, 2)).len(), 32);
        // The page of the format shows one.
        let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/formats/import-journal.md"));
        assert!(page.contains(&unit("prometheus:x", (1, 43_200_000))));
    }
}
