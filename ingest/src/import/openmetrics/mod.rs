//! OpenMetrics text with timestamps, read once from front to end, whatever its length.
//!
//! As `promtool tsdb create-blocks-from openmetrics` has it: every sample needs a time, the text ends with `# EOF`, counters' `_total` and `_created`
//! are series like any others, and what comments say is not kept. Other than there, the text may come from a pipe, and of two values of a series at one
//! time the later line stands. A line that cannot be read refuses the whole text, before anything is written.

mod sorter;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use model::labels::{Labels, METRIC_NAME};
use model::source::SeriesColumns;
use xxhash_rust::xxh3::Xxh3Default;

use crate::import::block::Filter;

use crate::import::{ImportError, Progress};
use crate::text::{Exposition, Format, parse_line};

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
    let file = File::open(path).map_err(|e| ImportError::disk(path, &e))?;
    let buffered = BufReader::with_capacity(1 << 18, file);
    match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(buffered))),
        Some("zst") => {
            let mut decoder =
                zstd::Decoder::with_buffer(buffered).map_err(|e| ImportError::disk(path, &e))?;
            // Of the window that a frame may ask for: 128 MiB.
            decoder.window_log_max(27).map_err(|e| ImportError::disk(path, &e))?;
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
        let mut sorter = Sorter::create(folder, options)?;
        let mut counts = TextCounts::default();
        let mut hash = Xxh3Default::new();
        let mut line = Vec::new();
        let mut ended = false;
        let (mut samples, mut bytes) = (0, 0);
        let failed = |number: u64, what: &dyn std::fmt::Display| {
            ImportError::Source(format!("{name}: line {number}: {what}"))
        };
        loop {
            line.clear();
            let limit = MAX_LINE_BYTES as u64 + 1;
            let got = (&mut text).take(limit).read_until(b'\n', &mut line);
            let number = counts.lines + 1;
            if got.map_err(|e| failed(number, &e))? == 0 {
                break;
            }
            counts.lines = number;
            hash.update(&line);
            bytes += line.len() as u64;
            if line.len() > MAX_LINE_BYTES {
                return Err(failed(number, &format!("it is longer than {MAX_LINE_BYTES} bytes")));
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            if ended && !line.is_empty() {
                return Err(failed(number, &"there is something after # EOF"));
            }
            let utf8 = std::str::from_utf8(&line).map_err(|_| failed(number, &"it is not UTF-8"))?;
            let mut out = Exposition::default();
            // The error names the line by itself.
            let end = parse_line(utf8, number as usize, Format::OpenMetrics, &mut out);
            ended |= end.map_err(|e| ImportError::Source(format!("{name}: {e}")))?;
            counts.exemplars += out.exemplars;
            for sample in &out.samples {
                let Some(ts_ms) = sample.ts_ms else {
                    let what =
                        format!("{} has no timestamp, and every sample of an import needs one", sample.name);
                    return Err(failed(number, &what));
                };
                let pairs = out.labels(sample).iter().map(|(n, v)| (&**n, &**v));
                let mut pairs: Vec<(&str, &str)> = pairs.filter(|(_, v)| !v.is_empty()).collect();
                pairs.push((METRIC_NAME, &sample.name));
                pairs.sort_unstable();
                let labels = filter.relabel.apply(Labels::from_sorted(pairs));
                if filter.takes(&labels) {
                    let (a, b) = counts.span_ms.unwrap_or((ts_ms, ts_ms));
                    counts.span_ms = Some((a.min(ts_ms), b.max(ts_ms)));
                    counts.samples += 1;
                    samples += 1;
                    sorter.add(labels, ts_ms, sample.value)?;
                }
            }
            if number.is_multiple_of(LINES_PER_CALL) {
                if progress.should_stop() {
                    return Err(ImportError::Stopped);
                }
                progress.read(samples, bytes);
                (samples, bytes) = (0, 0);
            }
        }
        if !ended {
            return Err(failed(counts.lines + 1, &"the text ends without # EOF: it was cut short"));
        }
        progress.read(samples, bytes);
        sorter.end()?;
        Ok(Spool { sorter, counts, hash: hash.digest128() })
    }

    /// Samples whose time another sample of their series has as well, with another value; known for the spans that were read.
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
