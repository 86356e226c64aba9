//! OpenMetrics text with timestamps, read once from front to end, whatever its length.
//!
//! As `promtool tsdb create-blocks-from openmetrics` has it: every sample needs a time, the text ends with `#
//! EOF`, counters' `_total` and `_created` are series like any others, and what comments say is not kept.
//! Other than there, the text may come from a pipe, and of two values of a series at one time the later line
//! stands. A line that cannot be read refuses the whole text, before anything is written.

mod sorter;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use model::labels::{Labels, METRIC_NAME};
use model::source::SeriesColumns;
use xxhash_rust::xxh3::Xxh3Default;

use crate::import::block::Filter;

use crate::import::{ImportError, Progress};
use crate::text::{Exposition, Format, Parser, TextError};

pub use sorter::SpoolOptions;

use sorter::Sorter;

/// The longest line that is read.
const MAX_LINE_BYTES: usize = 1 << 20;

/// How many lines between two calls of [`Progress::read`].
const LINES_PER_CALL: u64 = 4096;

/// What a text holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextCounts {
    pub lines: u64,
    /// Samples that are wanted.
    pub samples: u64,
    /// Exemplars, which are not kept.
    pub exemplars: u64,
    /// First and last timestamp of those samples.
    pub span_ms: Option<(i64, i64)>,
}

/// A text that was read and lies sorted on the disk.
pub struct Spool {
    sorter: Sorter,
    pub counts: TextCounts,
    /// xxHash3 (128 bits) of the text, what compressed it undone: what it is remembered by.
    pub hash: u128,
}

/// Opens a text: `-` is standard input; what ends with `.gz` or `.zst` is decompressed.
pub fn open(path: &Path) -> Result<Box<dyn Read>, ImportError> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(std::io::stdin()));
    }
    let file = File::open(path).map_err(|e| ImportError::disk(path, e))?;
    let buffered = BufReader::with_capacity(1 << 18, file);
    match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(buffered))),
        Some("zst") => {
            let mut decoder = zstd::Decoder::with_buffer(buffered).map_err(|e| ImportError::disk(path, e))?;
            // Of the window that a frame may ask for: 128 MiB.
            decoder.window_log_max(27).map_err(|e| ImportError::disk(path, e))?;
            Ok(Box::new(decoder))
        }
        _ => Ok(Box::new(buffered)),
    }
}

impl Spool {
    /// Reads all of a text and sorts it into files below `folder`. `name` is what errors call it.
    pub fn read(
        name: &str,
        text: impl Read,
        filter: &Filter,
        folder: PathBuf,
        options: SpoolOptions,
        progress: &mut dyn Progress,
    ) -> Result<Spool, ImportError> {
        let mut text = BufReader::with_capacity(1 << 18, text);
        let mut hash = Xxh3Default::new();
        let mut bytes = Vec::new();
        let mut parser = Parser::new(Format::OpenMetrics);
        let mut spool =
            Spooling { filter, sorter: Sorter::create(folder, options)?, counts: TextCounts::default() };
        let (mut samples_told, mut bytes_read) = (0, 0);
        let refused = |number: u64, what: &str| ImportError::source(format!("{name}: line {number}: {what}"));
        let unreadable = |e: TextError| ImportError::unreadable(name, e);
        loop {
            bytes.clear();
            let limit = MAX_LINE_BYTES as u64 + 1;
            let number = spool.counts.lines + 1;
            let read = (&mut text).take(limit).read_until(b'\n', &mut bytes);
            if read.map_err(|e| ImportError::unreadable(format_args!("{name}: line {number}"), e))? == 0 {
                break;
            }
            spool.counts.lines = number;
            hash.update(&bytes);
            bytes_read += bytes.len() as u64;
            if bytes.len() > MAX_LINE_BYTES {
                return Err(refused(number, &format!("it is longer than {MAX_LINE_BYTES} bytes")));
            }
            let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
            let line = std::str::from_utf8(line).map_err(|_| refused(number, "it is not UTF-8"))?;
            let mut exposition = Exposition::default();
            parser.line(line, &mut exposition).map_err(unreadable)?;
            spool.take(&exposition, &|what| refused(number, &what))?;
            if number.is_multiple_of(LINES_PER_CALL) {
                if progress.should_stop() {
                    return Err(ImportError::Stopped);
                }
                progress.read(spool.counts.samples - samples_told, bytes_read);
                (samples_told, bytes_read) = (spool.counts.samples, 0);
            }
        }
        parser.end().map_err(unreadable)?;
        progress.read(spool.counts.samples - samples_told, bytes_read);
        let Spooling { mut sorter, counts, .. } = spool;
        sorter.end()?;
        Ok(Spool { sorter, counts, hash: hash.digest128() })
    }

    /// Samples whose time another sample of their series has as well, with another value; known for the spans
    /// that were read.
    pub fn conflicts(&self) -> u64 {
        self.sorter.conflicts()
    }

    /// The aligned spans that hold samples, ascending, as ranges with both ends included.
    pub fn spans(&self) -> Vec<(i64, i64)> {
        self.sorter.spans()
    }

    /// Hands over all series of a span, in Hearth's order.
    pub fn series(
        &mut self,
        range: (i64, i64),
        progress: &mut dyn Progress,
        give: &mut dyn FnMut(SeriesColumns) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        self.sorter.series(range, progress, give)
    }
}

/// A text on its way into the sorter.
struct Spooling<'f> {
    filter: &'f Filter,
    sorter: Sorter,
    counts: TextCounts,
}

impl Spooling<'_> {
    /// Sorts in what a line says; `refused` makes an error that names the line.
    fn take(
        &mut self,
        exposition: &Exposition<'_>,
        refused: &dyn Fn(String) -> ImportError,
    ) -> Result<(), ImportError> {
        self.counts.exemplars += exposition.exemplars.len() as u64;
        for sample in &exposition.samples {
            let Some(ts_ms) = sample.ts_ms else {
                let name = &sample.name;
                return Err(refused(format!(
                    "{name} has no timestamp, and every sample of an import needs one"
                )));
            };
            let pairs = exposition.labels(sample).iter().map(|(n, v)| (&**n, &**v));
            let mut pairs: Vec<(&str, &str)> = pairs.filter(|(_, v)| !v.is_empty()).collect();
            pairs.push((METRIC_NAME, &sample.name));
            pairs.sort_unstable();
            let add = &self.filter.relabel.add;
            if let Some((name, value)) = pairs.iter().find(|(name, _)| add.contains_key(*name)) {
                // Series that differ in it would become one, their samples between each other.
                return Err(refused(format!(
                    "the series has the label {name}={value:?} already, and --label is to add one of that name: name it otherwise"
                )));
            }
            let labels = self.filter.relabel.apply(Labels::from_sorted(pairs));
            if self.filter.takes(&labels) {
                let (first, last) = self.counts.span_ms.unwrap_or((ts_ms, ts_ms));
                self.counts.span_ms = Some((first.min(ts_ms), last.max(ts_ms)));
                self.counts.samples += 1;
                self.sorter.add(labels, ts_ms, sample.value)?;
            }
        }
        Ok(())
    }
}
