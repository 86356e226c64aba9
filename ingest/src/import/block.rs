//! A block folder of Prometheus or Thanos as a source of series.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::histogram::{CounterResetHint, Histogram};
use model::labels::Labels;
use model::matcher::Matcher;
use model::rollup::{Aggregates, Window, WindowsBuilder};
use model::source::SeriesColumns;
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
/// Samples that one series may have in one span: one every two milliseconds in half a day. More means that an
/// index is made up.
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
    /// Opens a folder and walks its series once. In memory it holds the index' strings and eight bytes a
    /// series, and for a moment, where relabelling or capital letters in label names change their order, all
    /// labels.
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

    /// Length of the windows it has, 0 where it has samples.
    pub fn resolution_ms(&self) -> i64 {
        self.meta.resolution_ms()
    }

    /// Labels of the series that is wanted as number `at`, in Hearth's order; `None` behind the last.
    pub(super) fn labels(&mut self, at: usize) -> Result<Option<Labels>, ImportError> {
        let Some(n) = self.wanted.get(at) else { return Ok(None) };
        let entry = self.index.read(*n as usize)?;
        Ok(Some(self.filter.relabel.apply(entry.labels)))
    }

    /// Timestamps of the series that is wanted as number `at`, in a range (ends included).
    pub(super) fn timestamps(&mut self, at: usize, range: (i64, i64)) -> Result<Arc<[i64]>, ImportError> {
        let Some(n) = self.wanted.get(at) else { return Ok(Arc::default()) };
        let Some(raw) = self.raw(*n as usize, range)? else { return Ok(Arc::default()) };
        let members = self.decode(vec![raw], range)?;
        Ok(members.into_iter().next().map(|m| m.series.ts_ms).unwrap_or_default())
    }

    pub(super) fn drops_labels(&self) -> bool {
        !self.filter.relabel.drop.is_empty()
    }
}

/// A series of a block, as far as the block has it.
pub(super) struct Member {
    /// What [`Relabel::origin`] tells: of one label set, members of another origin are other series, such as
    /// other replicas.
    pub origin: Vec<String>,
    pub series: SeriesColumns,
}

/// Reads a block from front to end, some series at a time.
pub(super) struct Reading<'b> {
    block: &'b mut SourceBlock,
    range: (i64, i64),
    at: usize,
}

impl<'b> Reading<'b> {
    pub fn new(block: &'b mut SourceBlock, range: (i64, i64)) -> Reading<'b> {
        Reading { block, range, at: 0 }
    }

    /// The next series with samples in the range, in Hearth's order; of one label set there may be several.
    /// `None` at the end.
    pub fn next_batch(&mut self, progress: &mut dyn Progress) -> Result<Option<Vec<Member>>, ImportError> {
        let mut batch: Vec<Raw> = Vec::new();
        let (mut samples, mut bytes) = (0u64, 0usize);
        while self.at < self.block.wanted.len() && samples < BATCH_SAMPLES && bytes < BATCH_BYTES {
            if progress.should_stop() {
                return Err(ImportError::Stopped);
            }
            let n = self.block.wanted[self.at] as usize;
            self.at += 1;
            if let Some(raw) = self.block.raw(n, self.range)? {
                samples += raw.announced;
                bytes += raw.chunks.iter().map(|(_, _, data)| data.len()).sum::<usize>();
                batch.push(raw);
            }
            if batch.len() >= BATCH_SERIES {
                break;
            }
        }
        if batch.is_empty() {
            return Ok(None);
        }
        let decoded = self.block.decode(batch, self.range)?;
        progress.read(samples, bytes as u64);
        Ok(Some(decoded))
    }
}

impl SourceBlock {
    /// Series number `n` with its chunks in a range; `None` where it has none there.
    fn raw(&mut self, n: usize, range: (i64, i64)) -> Result<Option<Raw>, ImportError> {
        let entry = self.index.read(n)?;
        let places: Vec<ChunkPlace> =
            entry.chunks.into_iter().filter(|c| c.min_t_ms <= range.1 && c.max_t_ms >= range.0).collect();
        if places.is_empty() {
            return Ok(None);
        }
        let mut raw = Raw {
            origin: self.filter.relabel.origin(&entry.labels),
            labels: self.filter.relabel.apply(entry.labels),
            chunks: Vec::with_capacity(places.len()),
            announced: 0,
            deleted: self.tombstones.of(self.index.reference(n)).to_vec(),
        };
        for place in places {
            let (encoding, data) = self.segments.chunk(&place)?;
            raw.announced += chunk::announced(encoding, data);
            raw.chunks.push((place, encoding, data.to_vec()));
            if raw.announced > MAX_SERIES_SAMPLES {
                return Err(ImportError::source(format!(
                    "{}: series {} has more than {MAX_SERIES_SAMPLES} samples in half a day",
                    self.folder.display(),
                    raw.labels
                )));
            }
        }
        Ok(Some(raw))
    }

    /// Decodes on all cores.
    fn decode(&self, batch: Vec<Raw>, range: (i64, i64)) -> Result<Vec<Member>, ImportError> {
        let resolution_ms = self.meta.resolution_ms();
        let decoded: Vec<Result<Option<Member>, (ChunkPlace, String)>> = batch
            .into_par_iter()
            .map(|mut raw| {
                let origin = std::mem::take(&mut raw.origin);
                let series = raw.decode(range, resolution_ms)?;
                Ok(series.map(|series| Member { origin, series }))
            })
            .collect();
        let mut members = Vec::with_capacity(decoded.len());
        for one in decoded {
            match one {
                Ok(member) => members.extend(member),
                Err((place, what)) => return Err(self.segments.damaged(&place, &what)),
            }
        }
        Ok(members)
    }
}

/// A series whose chunks were read and not decoded.
struct Raw {
    origin: Vec<String>,
    labels: Labels,
    chunks: Vec<(ChunkPlace, u8, Vec<u8>)>,
    /// Samples that its chunks say they have.
    announced: u64,
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

/// Takes back what a histogram says of the one before it.
fn forget_neighbour(histogram: &mut Arc<Histogram>) {
    if histogram.counter_reset_hint == CounterResetHint::NotCounterReset {
        Arc::make_mut(histogram).counter_reset_hint = CounterResetHint::Unknown;
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
                // "No reset" is said of the sample before it: where that goes or another comes between, it
                // says nothing.
                for (k, i) in order.iter().enumerate() {
                    let follows = k > 0 && order[k - 1] + 1 == *i;
                    if let Some(histogram) = self.histograms[at(i)].as_mut().filter(|_| !follows) {
                        forget_neighbour(histogram);
                    }
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_hint_goes_with_the_sample_it_was_said_of() {
        let histogram = |hint| Some(Arc::new(Histogram { counter_reset_hint: hint, ..Histogram::default() }));
        let not = CounterResetHint::NotCounterReset;
        // Of a chunk whose third sample is deleted, and of one that was written later and lies before its
        // end.
        let samples = Samples {
            ts_ms: vec![10, 20, 30, 40, 50, 35],
            values: vec![0.0; 6],
            histograms: [CounterResetHint::Unknown, not, not, not, not, CounterResetHint::Gauge]
                .map(histogram)
                .into(),
            ..Samples::default()
        };
        let series = samples.into_series(Labels::empty(), (15, 100), &[(30, 30)]).unwrap();
        assert_eq!(series.ts_ms[..], [20, 35, 40, 50]);
        let hints: Vec<_> =
            series.histograms.iter().flatten().flatten().map(|h| h.counter_reset_hint).collect();
        let unknown = CounterResetHint::Unknown;
        assert_eq!(hints, [unknown, CounterResetHint::Gauge, unknown, not]);
    }
}
