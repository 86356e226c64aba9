//! Sorts samples that come in any order into series per span of time, on disk: memory is what the options
//! say, whatever the number of samples.
//!
//! Samples are gathered until memory is used up, sorted by span, series and time, and written as one run. A
//! span is read by merging what the runs have of it.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use hashbrown::HashMap;
use model::labels::Labels;
use model::source::SeriesColumns;
use model::span::Span;

use crate::import::unit::SPAN_MS;
use crate::import::{ImportError, Progress};

/// Samples that one series may have in one span.
const MAX_SERIES_SAMPLES: usize = 21_600_000;
/// Bytes that each run under merge reads ahead.
const READ_AHEAD_BYTES: usize = 32 << 10;

/// What is held in memory before a run is written.
#[derive(Clone, Copy, Debug)]
pub struct SpoolOptions {
    /// 24 bytes each.
    pub samples: usize,
    /// Bytes of the labels of distinct series.
    pub label_bytes: usize,
}

impl Default for SpoolOptions {
    fn default() -> Self {
        SpoolOptions { samples: 4 << 20, label_bytes: 64 << 20 }
    }
}

/// Takes samples, then gives series.
pub(super) struct Sorter {
    folder: PathBuf,
    options: SpoolOptions,
    /// Of what is in memory: series by labels, and samples in the order they came.
    ids: HashMap<Labels, u32>,
    label_bytes: usize,
    waiting: Vec<(u32, i64, f64)>,
    runs: Vec<SortedRun>,
    conflicts: u64,
}

struct SortedRun {
    file: Arc<File>,
    path: PathBuf,
    /// By the end of the span: where its part lies.
    parts: BTreeMap<i64, (u64, u64)>,
}

impl Sorter {
    pub fn create(folder: PathBuf, options: SpoolOptions) -> Result<Sorter, ImportError> {
        std::fs::create_dir_all(&folder).map_err(|e| ImportError::disk(&folder, e))?;
        Ok(Sorter {
            folder,
            options,
            ids: HashMap::new(),
            label_bytes: 0,
            waiting: Vec::new(),
            runs: Vec::new(),
            conflicts: 0,
        })
    }

    pub fn add(&mut self, labels: Labels, ts_ms: i64, value: f64) -> Result<(), ImportError> {
        let next = self.ids.len() as u32;
        let id = match self.ids.get(&labels) {
            Some(id) => *id,
            None => {
                self.label_bytes += labels.byte_len() + 48;
                self.ids.insert(labels, next);
                next
            }
        };
        self.waiting.push((id, ts_ms, value));
        if self.waiting.len() >= self.options.samples || self.label_bytes >= self.options.label_bytes {
            self.end()?;
        }
        Ok(())
    }

    /// Writes what is in memory as a run.
    pub fn end(&mut self) -> Result<(), ImportError> {
        let mut samples = std::mem::take(&mut self.waiting);
        let mut series: Vec<(Labels, u32)> = self.ids.drain().collect();
        self.label_bytes = 0;
        if samples.is_empty() {
            return Ok(());
        }
        series.sort_unstable_by(|(a, _), (b, _)| a.series_cmp(b));
        let mut ranks = vec![0u32; series.len()];
        for (rank, (_, id)) in series.iter().enumerate() {
            ranks[*id as usize] = rank as u32;
        }
        let span_of = |ts: i64| Span::containing(ts, SPAN_MS).end_ms;
        // Stable: of one time, later lines stay later.
        samples.sort_by_key(|(id, ts, _)| (span_of(*ts), ranks[*id as usize], *ts));
        let path = self.folder.join(format!("run-{}", self.runs.len()));
        let failed = |e: std::io::Error| ImportError::disk(&path, e);
        let file = File::options().create_new(true).read(true).write(true).open(&path).map_err(failed)?;
        let mut out = Counted { out: BufWriter::with_capacity(1 << 18, file), written: 0 };
        let mut parts = BTreeMap::new();
        let mut bytes = Vec::new();
        for of_span in samples.chunk_by(|a, b| span_of(a.1) == span_of(b.1)) {
            let from = out.written;
            for of_series in of_span.chunk_by(|a, b| a.0 == b.0) {
                let labels = &series[ranks[of_series[0].0 as usize] as usize].0;
                bytes.clear();
                let encoded = labels.encode();
                bytes.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
                bytes.extend_from_slice(&encoded);
                bytes.extend_from_slice(&(of_series.len() as u32).to_le_bytes());
                for (_, ts, _) in of_series {
                    bytes.extend_from_slice(&ts.to_le_bytes());
                }
                for (_, _, v) in of_series {
                    bytes.extend_from_slice(&v.to_bits().to_le_bytes());
                }
                out.write(&bytes).map_err(failed)?;
            }
            parts.insert(span_of(of_span[0].1), (from, out.written));
        }
        let file = out.out.into_inner().map_err(|e| failed(e.into_error()))?;
        self.runs.push(SortedRun { file: Arc::new(file), path, parts });
        Ok(())
    }

    pub fn conflicts(&self) -> u64 {
        self.conflicts
    }

    pub fn spans(&self) -> Vec<(i64, i64)> {
        let ends: BTreeSet<i64> = self.runs.iter().flat_map(|r| r.parts.keys().copied()).collect();
        ends.into_iter().map(|end| Span::containing(end, SPAN_MS).bounds()).collect()
    }

    pub fn series(
        &mut self,
        range: (i64, i64),
        progress: &mut dyn Progress,
        give: &mut dyn FnMut(SeriesColumns) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let mut heap = BinaryHeap::new();
        let mut parts = Vec::new();
        for run in &self.runs {
            let Some((from, to)) = run.parts.get(&range.1) else { continue };
            let section = Section { file: run.file.clone(), at: *from, end: *to };
            let mut part =
                Part { input: BufReader::with_capacity(READ_AHEAD_BYTES, section), path: run.path.clone() };
            if let Some(series) = part.next()? {
                heap.push(Reverse(Head { series, at: parts.len() }));
            }
            parts.push(part);
        }
        while let Some(Reverse(head)) = heap.pop() {
            if progress.should_stop() {
                return Err(ImportError::Stopped);
            }
            let mut same = vec![(head.series, head.at)];
            while heap.peek().is_some_and(|Reverse(next)| next.series.labels == same[0].0.labels) {
                if let Some(Reverse(next)) = heap.pop() {
                    same.push((next.series, next.at));
                }
            }
            for (_, at) in &same {
                if let Some(series) = parts[*at].next()? {
                    heap.push(Reverse(Head { series, at: *at }));
                }
            }
            let labels = same[0].0.labels.clone();
            let mut samples: Vec<(i64, f64)> = same.into_iter().flat_map(|(s, _)| s.samples).collect();
            if samples.len() > MAX_SERIES_SAMPLES {
                let what =
                    format!("series {labels} has more than {MAX_SERIES_SAMPLES} samples in half a day");
                return Err(ImportError::source(what));
            }
            samples.sort_by_key(|(ts, _)| *ts);
            let mut ts_ms: Vec<i64> = Vec::with_capacity(samples.len());
            let mut values: Vec<f64> = Vec::with_capacity(samples.len());
            for (ts, value) in samples {
                if ts_ms.last() == Some(&ts) {
                    let last = values.len() - 1;
                    self.conflicts += u64::from(values[last].to_bits() != value.to_bits());
                    values[last] = value;
                } else {
                    ts_ms.push(ts);
                    values.push(value);
                }
            }
            progress.read(values.len() as u64, 0);
            let ts_ms = Arc::from(ts_ms);
            give(SeriesColumns {
                labels,
                ts_ms,
                values,
                histograms: None,
                start_ts_ms: None,
                windows: None,
            })?;
        }
        Ok(())
    }
}

impl Drop for Sorter {
    fn drop(&mut self) {
        for run in &self.runs {
            let _ = std::fs::remove_file(&run.path);
        }
    }
}

struct Counted {
    out: BufWriter<File>,
    written: u64,
}

impl Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// A series of a run.
struct Piece {
    labels: Labels,
    samples: Vec<(i64, f64)>,
}

/// The next series of each run; runs were written one after the other, so of one series the lower number
/// comes first.
struct Head {
    series: Piece,
    at: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        self.series.labels.series_cmp(&other.series.labels).then(self.at.cmp(&other.at))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

/// A part of a file, read from its own position.
struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(into.len());
        let got = self.file.read_at(&mut into[..most], self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

/// A run's part of a span.
struct Part {
    input: BufReader<Section>,
    path: PathBuf,
}

impl Part {
    fn next(&mut self) -> Result<Option<Piece>, ImportError> {
        let section = self.input.get_ref();
        if section.at == section.end && self.input.buffer().is_empty() {
            return Ok(None);
        }
        self.read().map(Some).map_err(|e| ImportError::disk(&self.path, e))
    }

    fn read(&mut self) -> std::io::Result<Piece> {
        let damaged =
            || std::io::Error::new(std::io::ErrorKind::InvalidData, "changed on disk while it was used");
        let mut four = [0; 4];
        self.input.read_exact(&mut four)?;
        let mut bytes = vec![0; u32::from_le_bytes(four) as usize];
        self.input.read_exact(&mut bytes)?;
        let labels = Labels::decode(&bytes).ok_or_else(damaged)?;
        self.input.read_exact(&mut four)?;
        let count = u32::from_le_bytes(four) as usize;
        let mut columns = vec![0; count * 16];
        self.input.read_exact(&mut columns)?;
        let (ts, values) = columns.split_at(count * 8);
        let ts = ts.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b));
        let values = values.as_chunks::<8>().0.iter().map(|b| f64::from_bits(u64::from_le_bytes(*b)));
        Ok(Piece { labels, samples: ts.zip(values).collect() })
    }
}
