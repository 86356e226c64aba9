//! Labels that were spooled while a block was written, streamed into `series.parquet`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{MapBuilder, MapFieldNames, StringBuilder, UInt32Builder};
use arrow_array::{ArrayRef, RecordBatch};

use super::file::ParquetFile;
use crate::block::error::BlockError;
use crate::block::metric_runs::{METRICS_KEY, MetricRunsWriter};
use crate::block::options::WriteOptions;
use crate::block::schema;
use crate::block_meta::FileMeta;
use model::labels::Labels;

/// The labels that get a column of their own: those of at least a hundredth of the series, the most frequent
/// hundred at most. A name that readers blind to case would take for another column stays in the map.
pub(crate) fn label_columns(names: &BTreeMap<String, u64>, series: u64) -> Vec<String> {
    let mut frequent: Vec<(&String, u64)> =
        names.iter().map(|(n, c)| (n, *c)).filter(|(_, c)| c * 100 >= series).collect();
    frequent.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    frequent.truncate(100);
    frequent.sort();
    let mut taken: std::collections::BTreeSet<String> =
        [schema::SERIES_ID, schema::OTHER_LABELS].map(str::to_string).into();
    frequent.retain(|(name, _)| taken.insert(name.to_lowercase()));
    frequent.into_iter().map(|(name, _)| name.clone()).collect()
}

/// Series of which the labels are handed to Parquet at once, and about how many bytes of them: labels may be
/// long.
const BATCH_SERIES: u64 = 16 * 1024;
const BATCH_BYTES: usize = 8 << 20;

/// Streams the spooled labels into `series.parquet`.
pub(crate) fn write_series(
    path: &Path,
    spool: &Path,
    columns: &[String],
    series: u64,
    options: &WriteOptions,
) -> Result<FileMeta, BlockError> {
    let schema = schema::series(columns);
    let mut out = ParquetFile::create(path, schema.clone(), schema::series_properties(options, columns)?)?;
    let spool_error = |e: std::io::Error| BlockError::of_disk(format!("cannot read {}", spool.display()), e);
    let mut spool = BufReader::with_capacity(1 << 18, File::open(spool).map_err(spool_error)?);
    let mut bytes = Vec::new();
    let mut id = 0u32;
    let mut left = series;
    let mut metrics = MetricRunsWriter::default();
    while left > 0 {
        let count = left.min(BATCH_SERIES);
        let mut batch_bytes = 0;
        let mut ids = UInt32Builder::with_capacity(count as usize);
        let mut values: Vec<StringBuilder> = columns.iter().map(|_| StringBuilder::new()).collect();
        let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
        let mut others = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
        for _ in 0..count {
            let mut len = [0; 4];
            spool.read_exact(&mut len).map_err(spool_error)?;
            bytes.resize(u32::from_le_bytes(len) as usize, 0);
            spool.read_exact(&mut bytes).map_err(spool_error)?;
            let labels = Labels::decode(&bytes)
                .ok_or_else(|| BlockError::Encode("the spool of labels was damaged on disk".to_string()))?;
            metrics.row(labels.metric_name().unwrap_or(""));
            ids.append_value(id);
            id += 1;
            append_labels(&labels, columns, &mut values, &mut others)?;
            left -= 1;
            batch_bytes += bytes.len();
            if batch_bytes >= BATCH_BYTES {
                break;
            }
        }
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(ids.finish())];
        arrays.extend(values.iter_mut().map(|v| Arc::new(v.finish()) as ArrayRef));
        arrays.push(Arc::new(others.finish()));
        let batch = RecordBatch::try_new(schema.clone(), arrays)
            .map_err(|e| BlockError::Encode(format!("series: {e}")))?;
        out.write(&batch)?;
        if out.open_bytes() > 64 << 20 {
            out.end_row_group()?;
        }
    }
    // A table of a page or two is read whole.
    if series > 2 * schema::SERIES_PER_PAGE as u64
        && let Some(text) = metrics.finish()
    {
        out.add_entry(METRICS_KEY, text);
    }
    out.finish()
}

/// One row: each label into the column of its name, or with the others.
fn append_labels(
    labels: &Labels,
    columns: &[String],
    values: &mut [StringBuilder],
    others: &mut MapBuilder<StringBuilder, StringBuilder>,
) -> Result<(), BlockError> {
    // Both are ascending: one walk.
    let mut at = 0;
    let mut has_others = false;
    for (name, value) in labels {
        while at < columns.len() && columns[at].as_str() < name {
            values[at].append_null();
            at += 1;
        }
        if at < columns.len() && columns[at] == name {
            values[at].append_value(value);
            at += 1;
        } else {
            others.keys().append_value(name);
            others.values().append_value(value);
            has_others = true;
        }
    }
    for missing in &mut values[at..] {
        missing.append_null();
    }
    others.append(has_others).map_err(|e| BlockError::Encode(e.to_string()))
}
