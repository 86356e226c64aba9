//! The way out: samples of the store in formats of others, streamed, in order, with memory bounded.

pub mod openmetrics;
pub mod parquet;

use std::path::{Path, PathBuf};

use model::matcher::Matcher;
use model::rollup::Aggregates;
use model::source::merge::MergeCursor;
use model::source::{
    Budget, Hints, RollupHints, Selection, SeriesColumns, SeriesCursor, Source, SourceError,
};

/// What to export.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Selectors, any of which may match; none means every series.
    pub selectors: Vec<Vec<Matcher>>,
    /// First and last timestamp, both included, milliseconds.
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    /// Coarsest resolution that is taken in the place of samples; 0 for samples only.
    pub resolution_ms: i64,
}

/// What was exported, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    pub series: u64,
    /// Rows or lines written.
    pub samples: u64,
    /// Of these, histograms.
    pub histograms: u64,
    /// Staleness markers, which are no samples and are left out.
    pub markers: u64,
    /// Samples that the format has no way to write.
    pub left_out: u64,
}

/// Why an export stopped.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The file could not be written.
    #[error("{}: {cause}", path.display())]
    Disk {
        path: PathBuf,
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The format's library refused what it was given.
    #[error("cannot encode: {0}")]
    Encode(String),
    /// Somebody asked it to stop.
    #[error("stopped; the output is not complete")]
    Stopped,
}

impl ExportError {
    /// The disk failed at a file or folder.
    pub fn disk(path: &Path, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ExportError {
        ExportError::Disk { path: path.to_owned(), cause: cause.into() }
    }
}

/// Where series go, in the order of [`model::labels::Labels::series_cmp`] within each part of time.
pub trait Sink {
    /// The next series; counted into `done`.
    fn series(&mut self, series: &SeriesColumns, done: &mut Exported) -> Result<(), ExportError>;
}

/// The parts of a range that are exported one after the other: cut after multiples of `length_ms`, both ends
/// included.
pub fn parts(min_t_ms: i64, max_t_ms: i64, length_ms: i64) -> Vec<(i64, i64)> {
    let mut out = Vec::new();
    let mut from = min_t_ms;
    while from <= max_t_ms {
        let end = model::span::span_end(from, length_ms).min(max_t_ms);
        out.push((from, end));
        match end.checked_add(1) {
            Some(next) => from = next,
            None => break,
        }
    }
    out
}

/// Hands all series that are wanted to a sink. `watch` hears of the samples of each step and answers
/// whether to go on. Blocks the thread.
pub fn export(
    source: &dyn Source,
    wanted: &Wanted,
    sink: &mut dyn Sink,
    done: &mut Exported,
    watch: &mut dyn FnMut(u64) -> bool,
) -> Result<(), ExportError> {
    let everything = [Vec::new()];
    let selectors = if wanted.selectors.is_empty() { &everything[..] } else { &wanted.selectors };
    let mut cursors = Vec::new();
    for matchers in selectors {
        let windows = RollupHints {
            max_resolution_ms: wanted.resolution_ms,
            aggregates: Aggregates::ALL,
            ..RollupHints::default()
        };
        cursors.push(source.select(&Selection {
            matchers: matchers.clone(),
            min_t_ms: wanted.min_t_ms,
            max_t_ms: wanted.max_t_ms,
            hints: Hints { rollups: windows, ..Hints::default() },
            budget: Budget::unlimited(),
        })?);
    }
    // A series that two selectors match comes out once.
    let mut cursor: Box<dyn SeriesCursor + '_> = match cursors.len() {
        1 => cursors.pop().expect("one cursor"),
        _ => Box::new(MergeCursor::new(cursors)),
    };
    while let Some(batch) = cursor.next_batch()? {
        let samples = batch.iter().map(|s| s.ts_ms.len() as u64).sum();
        for series in &batch {
            done.series += 1;
            sink.series(series, done)?;
        }
        if !watch(samples) {
            return Err(ExportError::Stopped);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn parts_cover_a_range_once() {
        assert_eq!(parts(5, 25, 10), [(5, 10), (11, 20), (21, 25)]);
        assert_eq!(parts(10, 10, 10), [(10, 10)]);
        assert_eq!(parts(11, 10, 10), []);
        assert_eq!(parts(i64::MAX - 3, i64::MAX, i64::MAX).len(), 1);
    }
}
