//! Makes a block in a local scratch folder, streaming: memory holds one row group and the recent timelines,
//! whatever the block's size.

mod file;
mod list_builders;
mod rows;
mod series;
mod timelines;
pub mod upload;
mod windows;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use rayon::prelude::*;
use ulid::Ulid;

use self::file::{ParquetFile, disk};
use self::rows::{Row, RowColumns, cut};
use self::series::{label_columns, write_series};
use self::timelines::Timelines;
use crate::block::error::BlockError;
use crate::block::options::WriteOptions;
use crate::block::schema;
use crate::block::window_schema;
use crate::block_meta::{BlockFileMetas, BlockMeta, BlockStats, VERSION_WITH_SOURCE_SPANS, version_of};
use crate::layout;
use model::labels::Labels;
use model::source::{SeriesColumns, SourceError};
use model::tenant::TenantId;

/// How many times smaller samples, and labels, become by being encoded, at least as a rule: for estimates.
const SAMPLES_SHRINK: u64 = 8;
const LABELS_SHRINK: u64 = 4;

/// Where a block comes from: what [`BlockMeta`] says that the samples do not.
#[derive(Clone, Debug)]
pub struct BlockOrigin {
    pub ulid: Ulid,
    pub tenant: TenantId,
    /// Name of the process that writes.
    pub writer: String,
    /// See [`BlockMeta::writers`].
    pub writers: Vec<String>,
    /// 0 for raw samples.
    pub resolution_ms: i64,
    pub level: u32,
    pub sources: Vec<Ulid>,
    /// See [`BlockMeta::source_spans_ms`].
    pub source_spans_ms: Vec<(i64, i64)>,
    /// See [`BlockMeta::approximate`].
    pub approximate: bool,
    pub external_labels: BTreeMap<String, String>,
}

impl BlockOrigin {
    /// A block of raw samples as an ingester flushes it.
    pub fn flushed(ulid: Ulid, tenant: TenantId, writer: impl Into<String>) -> Self {
        let writer = writer.into();
        BlockOrigin {
            ulid,
            tenant,
            writers: vec![writer.clone()],
            writer,
            resolution_ms: 0,
            level: 0,
            sources: Vec::new(),
            source_spans_ms: Vec::new(),
            approximate: false,
            external_labels: BTreeMap::new(),
        }
    }
}

/// A finished block in its scratch folder, to be [uploaded](crate::block::write::upload::upload). Dropping it
/// removes the folder.
#[derive(Debug)]
pub struct BlockFiles {
    pub meta: BlockMeta,
    scratch: Scratch,
}

impl BlockFiles {
    /// The local path of one of the data files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.0.join(name)
    }
}

/// A folder that goes when it is no longer needed.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), error = %e, "scratch folder of a block could not be removed");
        }
    }
}

/// Writes all series of an iterator (in the order of [`Labels::series_cmp`]) as one block below the folder
/// `dir`; `None` where there are none. Blocks the thread: call it from one that may.
pub fn write_block(
    dir: &Path,
    origin: BlockOrigin,
    options: WriteOptions,
    series: impl IntoIterator<Item = Result<SeriesColumns, SourceError>>,
) -> Result<Option<BlockFiles>, BlockError> {
    let mut writer = BlockWriter::create(dir, origin, options)?;
    for one in series {
        writer.append(one?)?;
    }
    writer.finish()
}

/// Rows that wait for Parquet.
enum Rows {
    Samples(Box<RowColumns>),
    Windows(Box<windows::RowColumns>),
}

impl Rows {
    fn is_empty(&self) -> bool {
        match self {
            Rows::Samples(rows) => rows.is_empty(),
            Rows::Windows(rows) => rows.is_empty(),
        }
    }

    /// Whether enough is held to be worth handing to Parquet, or more than may be.
    fn is_full(&self, most_bytes: u64) -> bool {
        let full = match self {
            Rows::Samples(rows) => rows.is_full(),
            Rows::Windows(rows) => rows.is_full(),
        };
        full || self.held_bytes() as u64 >= most_bytes
    }

    fn held_bytes(&self) -> usize {
        match self {
            Rows::Samples(rows) => rows.held_bytes(),
            Rows::Windows(rows) => rows.held_bytes(),
        }
    }

    fn take(&mut self) -> Result<RecordBatch, BlockError> {
        match self {
            Rows::Samples(rows) => rows.take(),
            Rows::Windows(rows) => rows.take(),
        }
    }
}

/// A series' rows, cut and encoded.
enum CutRows {
    Samples(Vec<Row>),
    Windows(Vec<windows::Row>),
}

/// Takes series one after the other and writes a block's three files: of samples, or of windows where the
/// origin names a resolution.
pub struct BlockWriter {
    origin: BlockOrigin,
    options: WriteOptions,
    scratch: Scratch,
    /// Labels of all series so far: the columns of `series.parquet` are known only at the end.
    spool: BufWriter<File>,
    spool_path: PathBuf,
    spooled_bytes: u64,
    /// In how many series each label name occurs.
    label_names: BTreeMap<String, u64>,
    last: Option<Labels>,
    waiting: Vec<SeriesColumns>,
    waiting_bytes: u64,
    next_series_id: u32,
    timelines: Timelines,
    rows: Rows,
    samples: ParquetFile,
    row_group_samples: usize,
    min_t_ms: i64,
    max_t_ms: i64,
    stats: BlockStats,
}

impl BlockWriter {
    /// Begins a block in a new folder below `dir`, which is made if need be.
    pub fn create(dir: &Path, origin: BlockOrigin, options: WriteOptions) -> Result<BlockWriter, BlockError> {
        if options.slice_ms <= 0
            || options.row_samples == 0
            || options.rows_per_page == 0
            || options.values_per_page == 0
        {
            return Err(BlockError::Input(format!(
                "a block cannot be written with slices or pages of no length: {options:?}"
            )));
        }
        let folder = dir.join(origin.ulid.to_string());
        fs::create_dir_all(&folder).map_err(|e| disk(&folder, e))?;
        let scratch = Scratch(folder);
        let spool_path = scratch.0.join("labels.spool");
        let spool =
            BufWriter::with_capacity(1 << 18, File::create(&spool_path).map_err(|e| disk(&spool_path, e))?);
        let timelines = Timelines::create(&scratch.0.join(layout::TIMELINES), &options)?;
        let path = scratch.0.join(layout::SAMPLES);
        let (samples, rows) = match origin.resolution_ms {
            0 => (
                ParquetFile::create(&path, schema::SAMPLES.clone(), schema::samples_properties(&options)?)?,
                Rows::Samples(Box::default()),
            ),
            _ => (
                ParquetFile::create(
                    &path,
                    window_schema::SCHEMA.clone(),
                    window_schema::properties(&options)?,
                )?
                .of_version(version_of(origin.resolution_ms)),
                Rows::Windows(Box::default()),
            ),
        };
        Ok(BlockWriter {
            origin,
            options,
            scratch,
            spool,
            spool_path,
            spooled_bytes: 0,
            label_names: BTreeMap::new(),
            last: None,
            waiting: Vec::new(),
            waiting_bytes: 0,
            next_series_id: 0,
            timelines,
            rows,
            samples,
            row_group_samples: 0,
            min_t_ms: i64::MAX,
            max_t_ms: i64::MIN,
            stats: BlockStats::default(),
        })
    }

    /// About how many bytes its files would have if it ended here.
    pub fn bytes(&self) -> u64 {
        let waiting = self.waiting_bytes + self.rows.held_bytes() as u64;
        self.written_bytes() + waiting / SAMPLES_SHRINK + self.spooled_bytes / LABELS_SHRINK
    }

    /// About how many bytes of scratch disk it takes until it is finished and gone, rather too many than too
    /// few: labels lie there twice for a moment.
    pub fn scratch_bytes(&self) -> u64 {
        let waiting = self.waiting_bytes / 2 + self.rows.held_bytes() as u64;
        self.written_bytes() + waiting + 2 * self.spooled_bytes + self.timelines.spooled_bytes()
    }

    fn written_bytes(&self) -> u64 {
        self.samples.bytes() + self.samples.open_bytes() as u64 + self.timelines.bytes()
    }

    /// About how many bytes of memory it holds.
    pub fn memory_bytes(&self) -> u64 {
        self.waiting_bytes
            + (self.rows.held_bytes() + self.samples.memory_bytes() + self.timelines.memory_bytes()) as u64
    }

    /// Samples taken so far.
    pub fn samples(&self) -> u64 {
        self.stats.samples + self.waiting.iter().map(|s| s.ts_ms.len() as u64).sum::<u64>()
    }

    /// The next series, after the last in [`Labels::series_cmp`]'s order; one without samples is left out. A
    /// block of a resolution takes windows of it with all their columns, as
    /// [`model::rollup::downsample::downsample`] makes them.
    pub fn append(&mut self, series: SeriesColumns) -> Result<(), BlockError> {
        let n = series.ts_ms.len();
        let lengths = [
            Some(series.values.len()),
            series.histograms.as_ref().map(Vec::len),
            series.start_ts_ms.as_ref().map(Vec::len),
        ];
        if lengths.iter().flatten().any(|l| *l != n) {
            return Err(BlockError::Input(format!(
                "series {} has columns of different lengths",
                series.labels
            )));
        }
        if series.ts_ms.windows(2).any(|w| w[0] >= w[1]) {
            return Err(BlockError::Input(format!(
                "series {} has timestamps that do not ascend",
                series.labels
            )));
        }
        if self.last.as_ref().is_some_and(|last| last.series_cmp(&series.labels).is_ge()) {
            let last = self.last.as_ref().map(Labels::to_string).unwrap_or_default();
            return Err(BlockError::Input(format!(
                "series {} came after {last}, out of order",
                series.labels
            )));
        }
        let (Some(first), Some(last)) = (series.ts_ms.first(), series.ts_ms.last()) else { return Ok(()) };
        let first = match series.windows.as_ref().and_then(|w| w.first_ts_ms.as_ref()?.first()) {
            Some(begun) => first.min(begun),
            None => first,
        };
        self.min_t_ms = self.min_t_ms.min(*first);
        self.max_t_ms = self.max_t_ms.max(*last);
        self.last = Some(series.labels.clone());
        self.waiting_bytes += series.memory_bytes();
        self.waiting.push(series);
        if self.waiting_bytes >= self.options.batch_bytes || self.waiting.len() >= 4096 {
            self.encode_waiting()?;
        }
        Ok(())
    }

    fn encode_waiting(&mut self) -> Result<(), BlockError> {
        let batch = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let slice_ms = self.options.slice_ms;
        let row_samples = self.options.row_samples;
        let of_samples = self.origin.resolution_ms == 0;
        let encode = |s: &SeriesColumns| match of_samples {
            true => Ok(CutRows::Samples(cut(s, slice_ms, row_samples))),
            false => windows::cut(s, slice_ms, row_samples).map(CutRows::Windows),
        };
        let encoded: Result<Vec<CutRows>, BlockError> = batch.par_iter().map(encode).collect();
        for (series, rows) in batch.iter().zip(encoded?) {
            let id = self.next_series_id;
            self.next_series_id = id
                .checked_add(1)
                .ok_or_else(|| BlockError::Input("a block holds at most 2^32 - 1 series".to_string()))?;
            self.spool_labels(&series.labels)?;
            self.stats.series += 1;
            match (rows, &mut self.rows) {
                (CutRows::Samples(cut), Rows::Samples(rows)) => {
                    for row in cut {
                        self.stats.samples += row.ts_ms.len() as u64;
                        self.stats.histograms += row.histograms();
                        self.stats.stale_markers += row.stale_markers;
                        self.stats.rows += 1;
                        self.row_group_samples += row.ts_ms.len();
                        let tsref = self.timelines.refer(&row.ts_ms)?;
                        rows.push(id, tsref, row);
                    }
                }
                (CutRows::Windows(cut), Rows::Windows(rows)) => {
                    for row in cut {
                        row.tell(&mut self.stats);
                        // A window is some ten numbers.
                        self.row_group_samples += 4 * row.ts_ms.len();
                        let tsref = self.timelines.refer(&row.ts_ms)?;
                        let first_tsref = self.timelines.refer(&row.first_ts_ms)?;
                        rows.push(id, tsref, first_tsref, &row);
                    }
                }
                _ => return Err(BlockError::Encode("rows of another kind than the block's".to_string())),
            }
            if self.rows.is_full(self.options.batch_bytes) {
                self.samples.write(&self.rows.take()?)?;
                if self.row_group_samples >= self.options.row_group_samples
                    || self.samples.open_bytes() > self.options.row_group_bytes
                {
                    self.samples.end_row_group()?;
                    self.row_group_samples = 0;
                }
            }
        }
        Ok(())
    }

    fn spool_labels(&mut self, labels: &Labels) -> Result<(), BlockError> {
        for (name, _) in labels {
            match self.label_names.get_mut(name) {
                Some(count) => *count += 1,
                None => {
                    self.label_names.insert(name.to_string(), 1);
                }
            }
        }
        let bytes = &labels.encode();
        self.spooled_bytes += bytes.len() as u64 + 4;
        let written = self
            .spool
            .write_all(&(bytes.len() as u32).to_le_bytes())
            .and_then(|()| self.spool.write_all(bytes));
        written.map_err(|e| disk(&self.spool_path, e))
    }

    /// Writes what is left and closes the three files; `None` (and nothing on disk) if there was no sample.
    pub fn finish(mut self) -> Result<Option<BlockFiles>, BlockError> {
        self.encode_waiting()?;
        if self.stats.series == 0 {
            return Ok(None);
        }
        if !self.rows.is_empty() {
            self.samples.write(&self.rows.take()?)?;
        }
        let samples = self.samples.finish()?;
        let (timelines, distinct, timestamps) = self.timelines.finish()?;
        self.stats.timelines = distinct;
        self.stats.timeline_timestamps = timestamps;
        self.spool.flush().map_err(|e| disk(&self.spool_path, e))?;
        drop(self.spool);
        let series = write_series(
            &self.scratch.0.join(layout::SERIES),
            &self.spool_path,
            &label_columns(&self.label_names, self.stats.series),
            self.stats.series,
            &self.options,
        )?;
        fs::remove_file(&self.spool_path).map_err(|e| disk(&self.spool_path, e))?;
        let origin = self.origin;
        let meta = BlockMeta {
            version: match origin.source_spans_ms.is_empty() {
                true => version_of(origin.resolution_ms),
                false => version_of(origin.resolution_ms).max(VERSION_WITH_SOURCE_SPANS),
            },
            ulid: origin.ulid,
            tenant: origin.tenant.to_string(),
            min_t_ms: self.min_t_ms,
            max_t_ms: self.max_t_ms,
            resolution_ms: origin.resolution_ms,
            level: origin.level,
            sources: origin.sources,
            source_spans_ms: origin.source_spans_ms,
            downsampled_ms: Vec::new(),
            approximate: origin.approximate,
            share: None,
            writer: origin.writer,
            writers: origin.writers,
            external_labels: origin.external_labels,
            stats: self.stats,
            files: BlockFileMetas { series, timelines, samples },
            crc32: String::new(),
        };
        Ok(Some(BlockFiles { meta, scratch: self.scratch }))
    }
}
