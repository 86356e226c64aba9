//! A block: `block.md`. Its tables against the Parquet files that are written, and a reader made from the
//! page alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt32Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_select::concat::concat_batches;
use model::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Histogram};
use model::labels::Labels;
use model::rollup::downsample::downsample;
use model::sample::stale_nan;
use model::source::SeriesColumns;
use model::tenant::TenantId;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{ConvertedType, Encoding};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::Type;
use tsdb::block::{BlockFiles, BlockMeta, BlockOrigin, FileMeta, WriteOptions, write_block};
use tsdb::layout;
use ulid::Ulid;

use super::page::{example, examples, table};

/// Histograms of both kinds, one after another; every twentieth has fewer observations than the one before.
fn histogram(i: usize) -> Histogram {
    let n = (i % 20 + 1) as f64;
    let custom = i.is_multiple_of(3);
    Histogram {
        counter_reset_hint: match i % 20 {
            0 => CounterResetHint::CounterReset,
            _ => CounterResetHint::NotCounterReset,
        },
        schema: if custom { CUSTOM_BUCKETS_SCHEMA } else { 3 },
        zero_threshold: if custom { 0.0 } else { 0.001 },
        zero_count: 0.0,
        count: 3.0 * n,
        sum: n / 7.0,
        positive_spans: vec![BucketSpan { offset: 0, length: 1 }, BucketSpan { offset: 1, length: 1 }],
        positive_buckets: vec![n, 2.0 * n],
        custom_values: custom.then(|| Arc::from([0.5, 1.0, 2.5])),
        ..Histogram::default()
    }
}

/// 130 series that meet every column: all encodings, exceptions, start timestamps, histograms among floats, a
/// rare label.
fn series() -> Vec<SeriesColumns> {
    let one = |s: usize| {
        let n = 60 + s % 3;
        let value = |i: usize| match s % 7 {
            _ if i == 40 => stale_nan(),
            0 => 7.5,
            1 => ((i % 25) * 31) as f64 / 100.0,
            2 => (i.wrapping_mul(2_654_435_761) % 1_000_003) as f64,
            3 => (i as f64 + s as f64).sqrt(),
            4 => ((i / 3) as f64 + 0.5).sqrt(),
            5 => -0.0,
            _ => (i / 9) as f64,
        };
        let histograms: Option<Vec<_>> = (s % 7 == 6)
            .then(|| (0..n).map(|i| (i % 4 != 1 && i != 40).then(|| Arc::new(histogram(i)))).collect());
        let sum = |i: usize| histograms.as_ref().and_then(|all| all[i].as_ref()).map(|h| h.sum);
        let mut labels = vec![("__name__", format!("m{s:03}")), ("job", "node".to_string())];
        if s == 17 {
            labels.push(("rare", "x".to_string()));
        }
        SeriesColumns {
            labels: Labels::from_pairs(labels),
            ts_ms: (0..n as i64).map(|i| i * 15_000 + 1).collect(),
            values: (0..n).map(|i| sum(i).unwrap_or_else(|| value(i))).collect(),
            histograms,
            start_ts_ms: s
                .is_multiple_of(5)
                .then(|| (0..n as i64).map(|i| if s == 10 { 99 } else { i / 20 }).collect()),
            windows: None,
        }
    };
    (0..130).map(one).collect()
}

fn write(dir: &Path, resolution_ms: i64, series: Vec<SeriesColumns>) -> BlockFiles {
    let origin =
        BlockOrigin { resolution_ms, ..BlockOrigin::flushed(Ulid::new(), TenantId::single(), "test") };
    write_block(dir, origin, WriteOptions::fresh(), series.into_iter().map(Ok)).unwrap().unwrap()
}

fn parquet(files: &BlockFiles, name: &str) -> ParquetMetaData {
    let reader = SerializedFileReader::new(File::open(files.path(name)).unwrap()).unwrap();
    reader.metadata().clone()
}

/// A column's type in the page's words.
pub fn type_of(column: &Type) -> String {
    let child = |of: &Type, i: usize| of.get_fields()[i].clone();
    match column.get_basic_info().converted_type() {
        ConvertedType::LIST => {
            let element = type_of(&child(&child(column, 0), 0));
            format!("list of {}", element.replacen("list of", "lists of", 1))
        }
        ConvertedType::MAP => {
            let entry = child(column, 0);
            format!("map of {} to {}", type_of(&child(&entry, 0)), type_of(&child(&entry, 1)))
        }
        ConvertedType::UTF8 => format!("{:?} (UTF-8)", column.get_physical_type()),
        ConvertedType::UINT_32 => format!("{:?} (unsigned)", column.get_physical_type()),
        ConvertedType::NONE => format!("{:?}", column.get_physical_type()),
        other => panic!("the pages know no type {other}"),
    }
}

/// Name, type and whether it may be null, of every column of a file.
pub fn columns_of(metadata: &ParquetMetaData) -> Vec<[String; 3]> {
    let columns = metadata.file_metadata().schema().get_fields();
    let one = |c: &Arc<Type>| {
        let null = if c.is_optional() { "yes" } else { "no" };
        [c.name().to_string(), type_of(c), null.to_string()]
    };
    columns.iter().map(one).collect()
}

/// Compares a file's columns, their encodings and page statistics with a table's rows.
fn compare(metadata: &ParquetMetaData, rows: &[Vec<String>]) {
    let documented: Vec<[String; 3]> =
        rows.iter().map(|r| [r[0].trim_matches('`').to_string(), r[1].clone(), r[2].clone()]).collect();
    assert_eq!(columns_of(metadata), documented);
    for row in rows {
        let name = row[0].trim_matches('`');
        let mut used = BTreeSet::new();
        let mut indexed = false;
        for chunk in metadata.row_groups().iter().flat_map(|g| g.columns()) {
            if chunk.column_descr().path().parts()[0] == name {
                // Levels are always RLE, dictionaries' own pages PLAIN.
                used.extend(chunk.encodings().map(|e| format!("{e:?}")));
                indexed |= chunk.column_index_offset().is_some();
                assert!(chunk.offset_index_offset().is_some(), "{name} has an offset index");
                assert!(format!("{:?}", chunk.compression()).starts_with("ZSTD"), "{name}");
            }
        }
        assert!(used.contains(&row[3]), "{name} is encoded with {used:?}, the page says {}", row[3]);
        let special = [format!("{:?}", Encoding::RLE), format!("{:?}", Encoding::PLAIN), row[3].clone()];
        assert!(used.iter().all(|e| special.contains(e)), "{name} is encoded with {used:?}");
        assert_eq!(indexed, row[4].contains("page statistics"), "{name}: page statistics");
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let six = |c: u8| DIGITS.iter().position(|d| *d == c).expect("a digit of base64") as u32;
    let four = |four: &[u8]| {
        let word = four.iter().fold(0, |w, c| w << 6 | six(*c)) << (6 * (4 - four.len()));
        word.to_be_bytes()[1..four.len()].to_vec()
    };
    text.as_bytes().chunks(4).flat_map(four).collect()
}

fn entry<'m>(metadata: &'m ParquetMetaData, key: &str) -> Option<&'m str> {
    let entries = metadata.file_metadata().key_value_metadata()?;
    entries.iter().find(|e| e.key == key)?.value.as_deref()
}

/// The checksums of a file, worked out as the page says.
fn check_sums(files: &BlockFiles, name: &str, about: &FileMeta) {
    let bytes = std::fs::read(files.path(name)).unwrap();
    assert_eq!(about.bytes, bytes.len() as u64, "{name}");
    assert_eq!(about.xxh3, format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes)), "{name}");
    let (head, tail) = bytes.split_at(bytes.len() - about.tail_bytes as usize);
    assert_eq!(about.tail_crc32, crc32fast::hash(tail), "{name}");
    let metadata = parquet(files, name);
    let sums = from_base64(entry(&metadata, "hearth.crc32").expect("checksums in the footer"));
    let expected: Vec<u8> = head.chunks(4096).flat_map(|b| crc32fast::hash(b).to_le_bytes()).collect();
    assert_eq!(sums, expected, "{name}");
}

#[test]
fn sample_block_has_the_documented_columns_and_checksums() {
    let dir = tempfile::tempdir().unwrap();
    let files = write(dir.path(), 0, series());
    let samples = parquet(&files, layout::SAMPLES);
    compare(&samples, &table("block.md", "## `samples.parquet` with samples"));
    compare(&parquet(&files, layout::TIMELINES), &table("block.md", "## `timelines.parquet`"));
    let series = parquet(&files, layout::SERIES);
    let mut rows = table("block.md", "## `series.parquet`");
    let label = rows.remove(1);
    for name in ["job", "__name__"] {
        rows.insert(1, label.clone());
        rows[1][0] = name.to_string();
    }
    compare(&series, &rows);
    let about = &files.meta.files;
    for (name, about) in [
        (layout::SERIES, &about.series),
        (layout::TIMELINES, &about.timelines),
        (layout::SAMPLES, &about.samples),
    ] {
        check_sums(&files, name, about);
        let metadata = parquet(&files, name);
        assert_eq!(entry(&metadata, "hearth.format"), Some("hearth block 1"));
        assert_eq!(entry(&metadata, "ARROW:schema"), None);
        assert_eq!(metadata.file_metadata().version(), 1);
    }
}

#[test]
fn rollup_block_has_the_documented_columns() {
    let dir = tempfile::tempdir().unwrap();
    let files = write(dir.path(), 300_000, series().iter().map(|s| downsample(s, 300_000)).collect());
    let samples = parquet(&files, layout::SAMPLES);
    let mut rows = table("block.md", "## `samples.parquet` with rollup windows");
    let of_samples = table("block.md", "## `samples.parquet` with samples");
    let at = rows.iter().position(|r| r[0] == "`h_schema` … `h_custom_values`").unwrap();
    rows.splice(at..=at, of_samples.into_iter().skip_while(|r| r[0] != "`h_schema`"));
    compare(&samples, &rows);
    assert_eq!(entry(&samples, "hearth.format"), Some("hearth block 4"));
    assert_eq!(entry(&parquet(&files, layout::SERIES), "hearth.format"), Some("hearth block 1"));
    assert_eq!((files.meta.version, files.meta.resolution_ms), (4, 300_000));
}

#[test]
fn metric_directory_is_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = [("go_goroutines", 3), ("go_threads", 32_764), ("up", 2)];
    let numbered = metrics.iter().flat_map(|(name, n)| (0..*n).map(move |i| (*name, i)));
    let one = |(name, i): (&str, i32)| SeriesColumns {
        labels: Labels::from_pairs([("__name__", name), ("i", &format!("{i:06}"))]),
        ts_ms: Arc::from([1i64]),
        values: vec![1.0],
        histograms: None,
        start_ts_ms: None,
        windows: None,
    };
    let files = write(dir.path(), 0, numbered.map(one).collect());
    let written = parquet(&files, layout::SERIES);
    assert_eq!(entry(&written, "hearth.metrics"), Some(&*example("block.md", "text metric-runs")));
    let smaller = write(dir.path(), 0, series());
    assert_eq!(entry(&parquet(&smaller, layout::SERIES), "hearth.metrics"), None);
}

#[test]
fn meta_json_is_as_documented() {
    let shown = examples("block.md", "json meta");
    assert_eq!(shown.len(), 2);
    for text in &shown {
        let meta = BlockMeta::from_json("page", text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(meta.to_json()).unwrap(), format!("{text}\n"));
        let other = text.replacen("\"level\": ", "\"level\": 1", 1);
        assert!(BlockMeta::from_json("page", other.as_bytes()).is_err(), "a change is noticed");
    }
    let share = BlockMeta::from_json("page", shown[1].as_bytes()).unwrap();
    assert_eq!(share.order(), share.sources[1], "the latest of its sources");
    assert!(share.approximate && share.share.is_some_and(|s| s.number == 0));
}

/// All rows of a file.
fn rows(files: &BlockFiles, name: &str) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(files.path(name)).unwrap()).unwrap();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// Item `row` of a list column.
fn list(batch: &RecordBatch, column: &str, row: usize) -> Option<ArrayRef> {
    let list = batch.column_by_name(column).unwrap().as_list::<i32>();
    (!list.is_null(row)).then(|| list.value(row))
}

fn floats(batch: &RecordBatch, column: &str, row: usize) -> Vec<f64> {
    list(batch, column, row).map_or(Vec::new(), |l| l.as_primitive::<Float64Type>().values().to_vec())
}

fn longs(batch: &RecordBatch, column: &str, row: usize) -> Vec<i64> {
    list(batch, column, row).map_or(Vec::new(), |l| l.as_primitive::<Int64Type>().values().to_vec())
}

fn ints(batch: &RecordBatch, column: &str, row: usize) -> Vec<i32> {
    list(batch, column, row).map_or(Vec::new(), |l| l.as_primitive::<Int32Type>().values().to_vec())
}

fn nested(batch: &RecordBatch, column: &str, row: usize, i: usize) -> Option<Vec<f64>> {
    let lists = list(batch, column, row).expect("a list of lists");
    let lists = lists.as_list::<i32>();
    (!lists.is_null(i)).then(|| lists.value(i).as_primitive::<Float64Type>().values().to_vec())
}

fn spans(batch: &RecordBatch, column: &str, row: usize, i: usize) -> Vec<BucketSpan> {
    let lists = list(batch, column, row).expect("a list of lists");
    let numbers = lists.as_list::<i32>().value(i);
    let pairs = numbers.as_primitive::<Int32Type>().values().chunks(2);
    pairs.map(|p| BucketSpan { offset: p[0], length: p[1] as u32 }).collect()
}

/// What one row says of its values, by the table of `enc`.
fn values_of(batch: &RecordBatch, row: usize) -> Vec<(f64, Option<Histogram>)> {
    let number = |column: &str| batch.column_by_name(column).unwrap().as_primitive::<UInt32Type>().value(row);
    let n = number("n") as usize;
    let exp = batch.column_by_name("exp").unwrap().as_primitive::<Int32Type>().value(row);
    let decimal = |column| -> Vec<f64> {
        longs(batch, column, row).iter().map(|m| *m as f64 / 10f64.powi(exp)).collect()
    };
    let mut values = match batch.column_by_name("enc").unwrap().as_string::<i32>().value(row) {
        "const" => {
            let constant = batch.column_by_name("const").unwrap().as_primitive::<Float64Type>().value(row);
            vec![constant; n]
        }
        enc @ ("vi" | "vb") => decimal(enc),
        enc @ ("vf" | "vp") => floats(batch, enc, row),
        "hist" => return (0..n).map(|i| histogram_of(batch, row, i)).map(|h| (h.sum, Some(h))).collect(),
        other => panic!("the page does not know {other}"),
    };
    let odd = ints(batch, "vx_pos", row);
    assert_eq!(odd.len() as u32, number("nx"));
    for (at, value) in odd.iter().zip(floats(batch, "vx", row)) {
        values[*at as usize] = value;
    }
    assert_eq!(values.len(), n);
    values.into_iter().map(|v| (v, None)).collect()
}

fn histogram_of(batch: &RecordBatch, row: usize, i: usize) -> Histogram {
    let float = |column| floats(batch, column, row)[i];
    Histogram {
        counter_reset_hint: [
            CounterResetHint::Unknown,
            CounterResetHint::CounterReset,
            CounterResetHint::NotCounterReset,
            CounterResetHint::Gauge,
        ][ints(batch, "h_hint", row)[i] as usize],
        schema: ints(batch, "h_schema", row)[i],
        zero_threshold: float("h_zero_threshold"),
        zero_count: float("h_zero_count"),
        count: float("h_count"),
        sum: float("h_sum"),
        positive_spans: spans(batch, "h_pos_spans", row, i),
        negative_spans: spans(batch, "h_neg_spans", row, i),
        positive_buckets: nested(batch, "h_pos_buckets", row, i).unwrap(),
        negative_buckets: nested(batch, "h_neg_buckets", row, i).unwrap(),
        custom_values: nested(batch, "h_custom_values", row, i).map(Arc::from),
    }
}

/// A reader that knows the page and nothing else finds every sample that was written.
#[test]
fn sample_block_is_read_by_the_page_alone() {
    let dir = tempfile::tempdir().unwrap();
    let files = write(dir.path(), 0, series());
    let (names, times, samples) =
        (rows(&files, layout::SERIES), rows(&files, layout::TIMELINES), rows(&files, layout::SAMPLES));
    let number = |column: &str, row| {
        samples.column_by_name(column).unwrap().as_primitive::<UInt32Type>().value(row) as usize
    };
    // By series: time → bits of the value, what the histogram is, start timestamp.
    let mut read: BTreeMap<usize, BTreeMap<i64, (u64, String, i64)>> = BTreeMap::new();
    let mut encodings = BTreeSet::new();
    for row in 0..samples.num_rows() {
        let ts = longs(&times, "ts", number("tsref", row));
        let starts = samples.column_by_name("start_t").unwrap().as_primitive::<Int64Type>();
        let starts = match starts.is_null(row) {
            true => longs(&samples, "start_ts", row),
            false => vec![starts.value(row); ts.len()],
        };
        encodings.insert(samples.column_by_name("enc").unwrap().as_string::<i32>().value(row).to_string());
        let of_series = read.entry(number("series_id", row)).or_default();
        for ((t, start), (value, histogram)) in ts.iter().zip(starts).zip(values_of(&samples, row)) {
            let told = histogram.map_or(String::new(), |h| format!("{h:?}"));
            assert!(of_series.insert(*t, (value.to_bits(), told, start)).is_none(), "a time stands once");
        }
    }
    assert_eq!(encodings.len(), 6, "every encoding is met, not only {encodings:?}");
    let written = series();
    assert_eq!(read.len(), written.len());
    for (id, series) in written.iter().enumerate() {
        let text = |column: &str| {
            let column = names.column_by_name(column).unwrap().as_string::<i32>();
            (!column.is_null(id)).then(|| (column.value(id)).to_string())
        };
        let mut labels: Vec<(String, String)> =
            ["__name__", "job"].iter().filter_map(|l| Some((l.to_string(), text(l)?))).collect();
        let others = names.column_by_name("other_labels").unwrap().as_map();
        if !others.is_null(id) {
            let entries = others.value(id);
            let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
            let pairs = (0..entries.len()).map(|i| (keys.value(i).to_string(), values.value(i).to_string()));
            labels.extend(pairs);
        }
        assert_eq!(Labels::from_pairs(labels), series.labels);
        let expected: BTreeMap<i64, (u64, String, i64)> = (0..series.ts_ms.len())
            .map(|i| {
                let histogram = series.histograms.as_ref().and_then(|h| h[i].as_ref());
                let told = histogram.map_or(String::new(), |h| format!("{:?}", **h));
                let start = series.start_ts_ms.as_ref().map_or(0, |s| s[i]);
                (series.ts_ms[i], (series.values[i].to_bits(), told, start))
            })
            .collect();
        assert_eq!(read[&id], expected, "{}", series.labels);
    }
}
