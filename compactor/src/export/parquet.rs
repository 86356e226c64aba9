//! Parquet with a row per sample, for tools that want rows: sorted by series and time, split into files,
//! zstd.
//!
//! | column | |
//! |---|---|
//! | `metric` | the metric's name, null where a series has none |
//! | (labels that were asked for) | text, null where the series lacks it |
//! | `labels` | `MAP<text, text>` of the others |
//! | `timestamp` | milliseconds, UTC |
//! | `value` | double, null where a native histogram stands |
//! | `histogram` | null, or `count`, `sum`, and `buckets` with `lower`, `upper`, `count` |
//! | `resolution_ms`, `count`, `sum`, `min`, `max`, `first`, `reset_sum` | only where windows may come: what they tell besides their last sample, which is `value` |
//!
//! Staleness markers are left out. Within a part of time ([`super::parts`]) rows are sorted by series and
//! time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, ListArray, MapArray, RecordBatch,
    StringArray, StructArray, TimestampMillisecondArray, UInt32Array,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use model::histogram::Histogram;
use model::labels::METRIC_NAME;
use model::sample::is_stale;
use model::source::SeriesColumns;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::{ExportError, Exported, Sink};

/// Rows that are encoded together, and rows of a row group.
const BATCH_ROWS: usize = 32 * 1024;
const GROUP_ROWS: usize = 1 << 20;

/// How files are written.
#[derive(Clone, Debug)]
pub struct ParquetOptions {
    /// A file that ends with `.parquet`, or a folder for `part-00000.parquet` and so on.
    pub out: PathBuf,
    /// Labels that get a column of their own.
    pub label_columns: Vec<String>,
    /// A new file begins after about this many bytes; a single file never ends.
    pub file_bytes: u64,
    /// Whether windows may come.
    pub windows: bool,
}

/// Writes rows.
pub struct ParquetRows {
    options: ParquetOptions,
    schema: SchemaRef,
    rows: Rows,
    writer: Option<ArrowWriter<File>>,
    files: Vec<PathBuf>,
    bytes: u64,
}

fn text() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn entry_fields() -> Fields {
    Fields::from(vec![Field::new("key", text(), false), Field::new("value", text(), true)])
}

fn bucket_fields() -> Fields {
    Fields::from(["lower", "upper", "count"].map(|n| Field::new(n, DataType::Float64, false)).to_vec())
}

fn histogram_fields() -> Fields {
    let bucket = Arc::new(Field::new("element", DataType::Struct(bucket_fields()), false));
    Fields::from(vec![
        Field::new("count", DataType::Float64, false),
        Field::new("sum", DataType::Float64, false),
        Field::new("buckets", DataType::List(bucket), false),
    ])
}

/// Columns of windows that are doubles.
const WINDOW_COLUMNS: [&str; 5] = ["sum", "min", "max", "first", "reset_sum"];

impl ParquetRows {
    pub fn create(options: ParquetOptions) -> Result<ParquetRows, ExportError> {
        let mut fields = vec![Field::new("metric", text(), true)];
        for name in &options.label_columns {
            let taken = |f: &&Field| f.name().eq_ignore_ascii_case(name);
            let own = ["labels", "timestamp", "value", "histogram", "resolution_ms", "count"];
            let reserved = own.iter().chain(&WINDOW_COLUMNS).any(|n| n.eq_ignore_ascii_case(name));
            if reserved || fields.iter().any(|f| taken(&f)) {
                return Err(ExportError::Encode(format!(
                    "label {name:?} cannot have a column: there is one of that name"
                )));
            }
            fields.push(Field::new(name, text(), true));
        }
        let entries = Field::new("key_value", DataType::Struct(entry_fields()), false);
        fields.push(Field::new("labels", DataType::Map(Arc::new(entries), false), false));
        let utc = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        fields.push(Field::new("timestamp", utc, false));
        fields.push(Field::new("value", DataType::Float64, true));
        fields.push(Field::new("histogram", DataType::Struct(histogram_fields()), true));
        if options.windows {
            fields.push(Field::new("resolution_ms", DataType::Int64, false));
            fields.push(Field::new("count", DataType::UInt32, true));
            fields.extend(WINDOW_COLUMNS.map(|n| Field::new(n, DataType::Float64, true)));
        }
        let schema = Arc::new(Schema::new(fields));
        let rows = Rows::new(options.label_columns.len());
        Ok(ParquetRows { options, schema, rows, writer: None, files: Vec::new(), bytes: 0 })
    }

    /// Writes what is left; the files and their bytes together. Without a row there is one file without rows.
    pub fn end(mut self) -> Result<(Vec<PathBuf>, u64), ExportError> {
        self.write_batch()?;
        if self.files.is_empty() {
            self.open()?;
        }
        self.close()?;
        Ok((self.files, self.bytes))
    }

    fn single(&self) -> bool {
        self.options.out.extension().is_some_and(|e| e == "parquet")
    }

    fn open(&mut self) -> Result<&mut ArrowWriter<File>, ExportError> {
        let path = match self.single() {
            true => self.options.out.clone(),
            false => self.options.out.join(format!("part-{:05}.parquet", self.files.len())),
        };
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|e| ExportError::disk(folder, e))?;
        // What is there already stays: it may be an export that somebody still needs.
        let file = File::options().write(true).create_new(true).open(&path);
        let file = file.map_err(|e| ExportError::disk(&path, e))?;
        let level = ZstdLevel::try_new(3).map_err(|e| ExportError::Encode(e.to_string()))?;
        let column = |name: &str| ColumnPath::from(name);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_column_dictionary_enabled(column("timestamp"), false)
            .set_column_encoding(column("timestamp"), Encoding::DELTA_BINARY_PACKED)
            .set_created_by(concat!("hearth ", env!("CARGO_PKG_VERSION")).to_string())
            .build();
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(file, self.schema.clone(), options);
        self.files.push(path);
        Ok(self.writer.insert(writer.map_err(|e| ExportError::Encode(e.to_string()))?))
    }

    fn close(&mut self) -> Result<(), ExportError> {
        let (Some(mut writer), Some(path)) = (self.writer.take(), self.files.last()) else { return Ok(()) };
        writer.finish().map_err(|e| ExportError::disk(path, e))?;
        self.bytes += writer.bytes_written() as u64;
        writer.inner().sync_all().map_err(|e| ExportError::disk(path, e))
    }

    fn write_batch(&mut self) -> Result<(), ExportError> {
        if self.rows.ts_ms.is_empty() {
            return Ok(());
        }
        let rows = std::mem::replace(&mut self.rows, Rows::new(self.options.label_columns.len()));
        let batch = rows.batch(self.schema.clone(), self.options.windows)?;
        let single = self.single();
        let limit = self.options.file_bytes;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.open()?,
        };
        writer.write(&batch).map_err(|e| ExportError::Encode(e.to_string()))?;
        let written = writer.bytes_written() as u64 + writer.in_progress_size() as u64;
        if !single && written >= limit {
            self.close()?;
        }
        Ok(())
    }
}

impl Sink for ParquetRows {
    fn series(&mut self, series: &SeriesColumns, done: &mut Exported) -> Result<(), ExportError> {
        let mut own: Vec<Option<i32>> = vec![None; self.options.label_columns.len()];
        let mut at = 0;
        while at < series.ts_ms.len() {
            // Strings are numbered per batch.
            let metric = series.labels.metric_name().map(|n| self.rows.strings.number(n));
            let mut rest = Vec::new();
            for (name, value) in series.labels.iter().filter(|(n, _)| *n != METRIC_NAME) {
                match self.options.label_columns.iter().position(|c| c == name) {
                    Some(column) => own[column] = Some(self.rows.strings.number(value)),
                    None => rest.push((self.rows.strings.number(name), self.rows.strings.number(value))),
                }
            }
            while at < series.ts_ms.len() && self.rows.ts_ms.len() < BATCH_ROWS {
                if is_stale(series.values[at]) {
                    done.markers += 1;
                } else {
                    let histogram = series.histograms.as_ref().and_then(|h| h[at].as_ref());
                    done.histograms += u64::from(histogram.is_some());
                    done.samples += 1;
                    self.rows.push(metric, &own, &rest, series, at, histogram.map(|h| &**h));
                }
                at += 1;
            }
            if self.rows.ts_ms.len() >= BATCH_ROWS {
                self.write_batch()?;
            }
        }
        Ok(())
    }
}

/// Distinct strings of a batch, by number.
#[derive(Default)]
struct Strings {
    numbers: std::collections::HashMap<Box<str>, i32>,
    list: Vec<Box<str>>,
}

impl Strings {
    fn number(&mut self, text: &str) -> i32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.list.len() as i32;
        self.numbers.insert(text.into(), number);
        self.list.push(text.into());
        number
    }
}

/// Rows of a batch, as columns.
struct Rows {
    strings: Strings,
    metric: Vec<Option<i32>>,
    own: Vec<Vec<Option<i32>>>,
    label_ends: Vec<i32>,
    keys: Vec<i32>,
    values: Vec<i32>,
    ts_ms: Vec<i64>,
    floats: Vec<Option<f64>>,
    histograms: HistogramColumns,
    resolution_ms: Vec<i64>,
    count: Vec<Option<u32>>,
    windows: [Vec<Option<f64>>; 5],
}

/// Histograms of a batch; a row without one has zeros and is null.
#[derive(Default)]
struct HistogramColumns {
    there: Vec<bool>,
    count: Vec<f64>,
    sum: Vec<f64>,
    ends: Vec<i32>,
    buckets: [Vec<f64>; 3],
}

impl HistogramColumns {
    fn push(&mut self, histogram: Option<&Histogram>) {
        self.there.push(histogram.is_some());
        self.count.push(histogram.map_or(0.0, |h| h.count));
        self.sum.push(histogram.map_or(0.0, |h| h.sum));
        if let Some(h) = histogram {
            let mut negative: Vec<_> = h.negative().filter(|b| b.count != 0.0).collect();
            negative.reverse();
            let zero = (h.zero_count != 0.0).then(|| h.zero_bucket());
            for b in negative.into_iter().chain(zero).chain(h.positive().filter(|b| b.count != 0.0)) {
                for (column, v) in self.buckets.iter_mut().zip([b.lower, b.upper, b.count]) {
                    column.push(v);
                }
            }
        }
        self.ends.push(self.buckets[0].len() as i32);
    }

    fn array(self) -> ArrayRef {
        let doubles = |v: Vec<f64>| Arc::new(Float64Array::from(v)) as ArrayRef;
        let buckets = self.buckets.map(doubles).to_vec();
        let buckets = StructArray::new(bucket_fields(), buckets, None);
        let element = Arc::new(Field::new("element", DataType::Struct(bucket_fields()), false));
        let list = ListArray::new(element, offsets(self.ends), Arc::new(buckets), None);
        let columns = vec![doubles(self.count), doubles(self.sum), Arc::new(list) as ArrayRef];
        Arc::new(StructArray::new(histogram_fields(), columns, Some(NullBuffer::from(self.there))))
    }
}

/// Ends of lists as arrow's offsets.
fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    let mut all = Vec::with_capacity(ends.len() + 1);
    all.push(0);
    all.extend(ends);
    OffsetBuffer::new(all.into())
}

impl Rows {
    fn new(own: usize) -> Rows {
        Rows {
            strings: Strings::default(),
            metric: Vec::new(),
            own: vec![Vec::new(); own],
            label_ends: Vec::new(),
            keys: Vec::new(),
            values: Vec::new(),
            ts_ms: Vec::new(),
            floats: Vec::new(),
            histograms: HistogramColumns::default(),
            resolution_ms: Vec::new(),
            count: Vec::new(),
            windows: Default::default(),
        }
    }

    fn push(
        &mut self,
        metric: Option<i32>,
        own: &[Option<i32>],
        rest: &[(i32, i32)],
        series: &SeriesColumns,
        at: usize,
        histogram: Option<&Histogram>,
    ) {
        self.metric.push(metric);
        self.own.iter_mut().zip(own).for_each(|(column, v)| column.push(*v));
        for (key, value) in rest {
            self.keys.push(*key);
            self.values.push(*value);
        }
        self.label_ends.push(self.keys.len() as i32);
        self.ts_ms.push(series.ts_ms[at]);
        self.floats.push(histogram.is_none().then_some(series.values[at]));
        self.histograms.push(histogram);
        let windows = series.windows.as_ref();
        let resolution_ms = windows.map_or(0, |w| w.resolution_ms(at));
        self.resolution_ms.push(resolution_ms);
        let windows = windows.filter(|_| resolution_ms > 0);
        self.count.push(windows.and_then(|w| w.count.as_ref()).map(|c| c[at]));
        let columns = windows.map(|w| [&w.sum, &w.min, &w.max, &w.first, &w.reset_sum]);
        for (i, column) in self.windows.iter_mut().enumerate() {
            column.push(columns.and_then(|c| c[i].as_ref()).map(|c| c[at]));
        }
    }

    fn batch(self, schema: SchemaRef, windows: bool) -> Result<RecordBatch, ExportError> {
        let failed = |e: arrow_schema::ArrowError| ExportError::Encode(e.to_string());
        let strings = Arc::new(StringArray::from_iter_values(self.strings.list.iter()));
        let texts = |numbers: Int32Array| {
            DictionaryArray::<Int32Type>::try_new(numbers, strings.clone()).map_err(failed)
        };
        let mut columns: Vec<ArrayRef> = vec![Arc::new(texts(Int32Array::from(self.metric))?)];
        for column in self.own {
            columns.push(Arc::new(texts(Int32Array::from(column))?));
        }
        let keys: ArrayRef = Arc::new(texts(Int32Array::from(self.keys))?);
        let values: ArrayRef = Arc::new(texts(Int32Array::from(self.values))?);
        let entries = StructArray::try_new(entry_fields(), vec![keys, values], None).map_err(failed)?;
        let entry = Arc::new(Field::new("key_value", DataType::Struct(entry_fields()), false));
        let map = MapArray::try_new(entry, offsets(self.label_ends), entries, None, false).map_err(failed)?;
        columns.push(Arc::new(map));
        columns.push(Arc::new(TimestampMillisecondArray::from(self.ts_ms).with_timezone("UTC")));
        columns.push(Arc::new(Float64Array::from(self.floats)));
        columns.push(self.histograms.array());
        if windows {
            columns.push(Arc::new(Int64Array::from(self.resolution_ms)));
            columns.push(Arc::new(UInt32Array::from(self.count)));
            for column in self.windows {
                columns.push(Arc::new(Float64Array::from(column)));
            }
        }
        RecordBatch::try_new(schema, columns).map_err(failed)
    }
}
