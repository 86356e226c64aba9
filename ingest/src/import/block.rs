//! A block folder of Prometheus or Thanos as a source of series.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::labels::Labels;
use model::matcher::Matcher;
use model::rollup::{Aggregates, Window, WindowsBuilder, merge_overlapping};
use model::source::SeriesColumns;
use model::source::merge::{SharedTimelines, merge_copies};
use rayon::prelude::*;

use super::meta::{LONGEST_MS, SourceMeta};
use super::prometheus::chunk::{self, Samples};
use super::prometheus::index::{ChunkPlace, Index};
use super::prometheus::segments::Segments;
use super::prometheus::tombstones::{Tombstones, covers};
use super::relabel::Relabel;
use super::thanos::aggregates;
use super::{ImportError, Progress};

/// Samples, bytes of chunks and series that wait to be decoded together, on all cores.
const BATCH_SAMPLES: u64 = 256 * 1024;
const BATCH_BYTES: usize = 16 << 20;
const BATCH_SERIES: usize = 4096;
/// Samples that one series may have in one span: one every two milliseconds in half a day. More means that an index is made up.
const MAX_SERIES_SAMPLES: u64 = 21_600_000;

/// What to take of a block.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Selectors, any of which may match, after relabelling; none means everything.
    pub selectors: Vec<Vec<Matcher>>,
    pub relabel: Relabel,
}

impl Filter {
    pub(super) fn takes(&self, labels: &Labels) -> bool {
        let all = |matchers: &Vec<Matcher>| matchers.iter().all(|m| m.matches(labels.value(&m.name)));
        self.selectors.is_empty() || self.selectors.iter().any(all)
    }
}

/// An open block.
pub struct SourceBlock {
    folder: PathBuf,
    meta: SourceMeta,
    index: Index,
    segments: Segments,
    tombstones: Tombstones,
    filter: Filter,
    /// Numbers of the series that are wanted, in Hearth's order.
    wanted: Vec<u32>,
    /// First and last timestamp of their chunks.
    span_ms: Option<(i64, i64)>,
}

impl SourceBlock {
    /// Opens a folder and walks its series once. In memory it holds the index' strings and eight bytes a series, and for a moment, where
    /// relabelling or capital letters in label names change their order, all labels.
    pub fn open(folder: &Path, filter: Filter) -> Result<SourceBlock, ImportError> {
        let meta = SourceMeta::read(folder)?;
        let mut index = Index::open(&folder.join("index"))?;
        let segments = Segments::open(&folder.join("chunks"))?;
        let tombstones = Tombstones::read(&folder.join("tombstones"))?;
        let mut wanted = Vec::new();
        let mut span_ms: Option<(i64, i64)> = None;
        let mut last: Option<Labels> = None;
        let mut in_order = true;
        for n in 0..index.len() {
            let entry = index.read(n)?;
            let labels = filter.relabel.apply(entry.labels);
            if !filter.takes(&labels) {
                continue;
            }
            for chunk in &entry.chunks {
                let (a, b) = span_ms.unwrap_or((chunk.min_t_ms, chunk.max_t_ms));
                span_ms = Some((a.min(chunk.min_t_ms), b.max(chunk.max_t_ms)));
            }
            in_order &= last.as_ref().is_none_or(|l| l.series_cmp(&labels).is_lt());
            wanted.push(n as u32);
            last = Some(labels);
        }
        if let Some((a, b)) = span_ms
            && b.checked_sub(a).is_none_or(|span| span > LONGEST_MS)
        {
            let what = format!("its chunks span {a} to {b} ms, more than a block can");
            return Err(ImportError::damaged(&folder.join("index"), what));
        }
        if !in_order {
            let mut keyed = Vec::with_capacity(wanted.len());
            for n in wanted {
                keyed.push((filter.relabel.apply(index.read(n as usize)?.labels), n));
            }
            keyed.sort_by(|(a, n), (b, m)| a.series_cmp(b).then(n.cmp(m)));
            wanted = keyed.into_iter().map(|(_, n)| n).collect();
        }
        Ok(SourceBlock {
            folder: folder.to_owned(),
            meta,
            index,
            segments,
            tombstones,
            filter,
            wanted,
            span_ms,
        })
    }

    pub fn meta(&self) -> &SourceMeta {
        &self.meta
    }

    /// Series that are wanted.
    pub fn series(&self) -> usize {
        self.wanted.len()
    }

    /// Ranges that were deleted and are left out.
    pub fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    /// Bytes of its chunks.
    pub fn bytes(&self) -> u64 {
        self.segments.bytes()
    }

    /// First and last timestamp of the chunks of series that are wanted; `None` where there are none.
    pub fn span_ms(&self) -> Option<(i64, i64)> {
        self.span_ms
    }

    /// Hands over all series with samples in a range (ends included), in Hearth's order, each once.
    pub fn read(
        &mut self,
        range: (i64, i64),
        progress: &mut dyn Progress,
        give: &mut dyn FnMut(SeriesColumns) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let mut batch: Vec<Raw> = Vec::new();
        let (mut samples, mut bytes) = (0u64, 0usize);
        let mut merging = Merging::default();
        for at in 0..self.wanted.len() {
            if progress.should_stop() {
                return Err(ImportError::Stopped);
            }
            let n = self.wanted[at] as usize;
            let entry = self.index.read(n)?;
            let places: Vec<ChunkPlace> =
                entry.chunks.into_iter().filter(|c| c.min_t_ms <= range.1 && c.max_t_ms >= range.0).collect();
            if places.is_empty() {
                continue;
            }
            let mut raw = Raw {
                labels: self.filter.relabel.apply(entry.labels),
                chunks: Vec::with_capacity(places.len()),
                deleted: self.tombstones.of(self.index.reference(n)).to_vec(),
            };
            let mut of_series = 0u64;
            for place in places {
                let (encoding, data) = self.segments.chunk(&place)?;
                of_series += chunk::announced(encoding, data);
                bytes += data.len();
                raw.chunks.push((place, encoding, data.to_vec()));
                if of_series > MAX_SERIES_SAMPLES {
                    return Err(ImportError::Source(format!(
                        "{}: series {} has more than {MAX_SERIES_SAMPLES} samples in half a day",
                        self.folder.display(),
                        raw.labels
                    )));
                }
            }
            samples += of_series;
            batch.push(raw);
            if samples >= BATCH_SAMPLES || bytes >= BATCH_BYTES || batch.len() >= BATCH_SERIES {
                let full = std::mem::take(&mut batch);
                self.decode(full, range, &mut merging, give)?;
                progress.read(samples, bytes as u64);
                (samples, bytes) = (0, 0);
            }
        }
        self.decode(batch, range, &mut merging, give)?;
        progress.read(samples, bytes as u64);
        merging.end(give)
    }

    fn decode(
        &self,
        batch: Vec<Raw>,
        range: (i64, i64),
        merging: &mut Merging,
        give: &mut dyn FnMut(SeriesColumns) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let resolution_ms = self.meta.resolution_ms();
        let decoded: Vec<Result<Option<SeriesColumns>, (ChunkPlace, String)>> =
            batch.into_par_iter().map(|raw| raw.decode(range, resolution_ms)).collect();
        for one in decoded {
            match one {
                Ok(Some(series)) => merging.next(series, give)?,
                Ok(None) => {}
                Err((place, what)) => return Err(self.segments.damaged(&place, &what)),
            }
        }
        Ok(())
    }
}

/// Puts series of the same labels together: relabelling can make several of what were different ones.
#[derive(Default)]
struct Merging {
    open: Vec<SeriesColumns>,
    timelines: SharedTimelines,
}

impl Merging {
    fn next(
        &mut self,
        series: SeriesColumns,
        give: &mut dyn FnMut(SeriesColumns) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        if self.open.first().is_some_and(|open| open.labels != series.labels) {
            self.end(give)?;
        }
        self.open.push(series);
        Ok(())
    }

    fn end(
        &mut self,
        give: &mut dyn FnMut(SeriesColumns) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        match self.open.len() {
            0 => Ok(()),
            1 => self.open.pop().map_or(Ok(()), give),
            _ if self.open.iter().any(|s| s.windows.is_some()) => {
                give(merge_overlapping(std::mem::take(&mut self.open)))
            }
            _ => give(merge_copies(std::mem::take(&mut self.open), &mut self.timelines)),
        }
    }
}

/// A series whose chunks were read and not decoded.
struct Raw {
    labels: Labels,
    chunks: Vec<(ChunkPlace, u8, Vec<u8>)>,
    deleted: Vec<(i64, i64)>,
}

impl Raw {
    /// The samples (or windows) in a range, without what was deleted; `None` where there are none.
    fn decode(
        self,
        range: (i64, i64),
        resolution_ms: i64,
    ) -> Result<Option<SeriesColumns>, (ChunkPlace, String)> {
        if resolution_ms > 0 {
            return self.decode_windows(range, resolution_ms);
        }
        let mut samples = Samples::default();
        for (place, encoding, data) in &self.chunks {
            let from = samples.ts_ms.len();
            chunk::decode(*encoding, data, &mut samples).map_err(|what| (*place, what))?;
            let strange = |t: &&i64| **t < place.min_t_ms || **t > place.max_t_ms;
            if let Some(t) = samples.ts_ms[from..].iter().find(strange) {
                let what = format!(
                    "it has a sample at {t} ms, and the index says {} to {}",
                    place.min_t_ms, place.max_t_ms
                );
                return Err((*place, what));
            }
        }
        Ok(samples.into_series(self.labels, range, &self.deleted))
    }

    fn decode_windows(
        self,
        range: (i64, i64),
        resolution_ms: i64,
    ) -> Result<Option<SeriesColumns>, (ChunkPlace, String)> {
        let mut windows: Vec<Window> = Vec::new();
        for (place, encoding, data) in &self.chunks {
            match *encoding {
                chunk::AGGREGATES => {
                    aggregates::decode(data, resolution_ms, &mut windows).map_err(|what| (*place, what))?;
                }
                // Some versions of Thanos left chunks without samples among them.
                other if chunk::announced(other, data) == 0 => {}
                other => {
                    return Err((*place, format!("it has the encoding {other} in a downsampled block")));
                }
            }
        }
        let inside = |t: i64| range.0 <= t && t <= range.1 && !covers(&self.deleted, t);
        windows.retain(|w| w.count > 0 && inside(w.ts_ms));
        windows.sort_by_key(|w| w.ts_ms);
        windows.dedup_by_key(|w| w.ts_ms);
        if windows.is_empty() {
            return Ok(None);
        }
        let mut out = WindowsBuilder::new(Aggregates::ALL);
        windows.into_iter().for_each(|w| out.push(w));
        Ok(Some(out.finish(self.labels)))
    }
}

impl Samples {
    /// The samples of a range (ends included) as a series: ascending, of several at one time the last.
    pub(super) fn into_series(
        mut self,
        labels: Labels,
        range: (i64, i64),
        deleted: &[(i64, i64)],
    ) -> Option<SeriesColumns> {
        let ascending = self.ts_ms.windows(2).all(|w| w[0] < w[1]);
        let inside = |t: i64| range.0 <= t && t <= range.1 && !covers(deleted, t);
        let whole = ascending
            && deleted.is_empty()
            && self.ts_ms.first().is_some_and(|t| *t >= range.0)
            && self.ts_ms.last().is_some_and(|t| *t <= range.1);
        if !whole {
            let mut order: Vec<u32> = (0..self.ts_ms.len() as u32).collect();
            order.retain(|i| inside(self.ts_ms[*i as usize]));
            if !ascending {
                order.sort_by_key(|i| self.ts_ms[*i as usize]);
                // The sort is stable, so of one time the last is the last one written.
                order.reverse();
                order.dedup_by_key(|i| self.ts_ms[*i as usize]);
                order.reverse();
            }
            let at = |i: &u32| *i as usize;
            self.values = order.iter().map(|i| self.values[at(i)]).collect();
            if !self.histograms.is_empty() {
                self.histograms = order.iter().map(|i| self.histograms[at(i)].take()).collect();
            }
            if !self.start_ts_ms.is_empty() {
                self.start_ts_ms = order.iter().map(|i| self.start_ts_ms[at(i)]).collect();
            }
            self.ts_ms = order.iter().map(|i| self.ts_ms[at(i)]).collect();
        }
        if self.ts_ms.is_empty() {
            return None;
        }
        let histograms = self.histograms.iter().any(Option::is_some).then_some(self.histograms);
        let start_ts_ms = self.start_ts_ms.iter().any(|s| *s != 0).then_some(self.start_ts_ms);
        let ts_ms = Arc::from(self.ts_ms);
        Some(SeriesColumns { labels, ts_ms, values: self.values, histograms, start_ts_ms, windows: None })
    }
}
