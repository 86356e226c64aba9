//! Exemplars as one Parquet file, a row each, for anybody to read: `metric, series, ts, value, labels`.

use std::sync::Arc;

use arrow_array::builder::{Float64Builder, Int64Builder, MapBuilder, MapFieldNames, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{ArrayRef, MapArray, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;

use crate::block::BlockError;
use crate::sidecar::{self, Sidecar};
use model::exemplar::{Exemplar, Gathered, SeriesExemplars};
use model::labels::Labels;

/// Rows of one batch.
const BATCH_ROWS: usize = 16 * 1024;

fn schema() -> SchemaRef {
    let map = |name: &str| Field::new(name, sidecar::map_of_text(), false);
    Arc::new(Schema::new(vec![
        Field::new("metric", DataType::Utf8, false),
        map("series"),
        Field::new("ts", DataType::Int64, false),
        Field::new("value", DataType::Float64, false),
        map("labels"),
    ]))
}

/// The file of these series, in [`Labels::series_cmp`] order; at least one exemplar.
pub fn encode(mut series: Vec<SeriesExemplars>) -> Result<(Sidecar, Bytes), BlockError> {
    series.sort_by(|a, b| a.labels.series_cmp(&b.labels));
    let rows = || series.iter().flat_map(|s| s.exemplars.iter().map(move |e| (&s.labels, e)));
    let mut batches = Vec::new();
    let mut all = rows().peekable();
    while all.peek().is_some() {
        let names = || MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
        let map = || MapBuilder::new(Some(names()), StringBuilder::new(), StringBuilder::new());
        let (mut metric, mut of_series, mut ts) = (StringBuilder::new(), map(), Int64Builder::new());
        let (mut value, mut labels) = (Float64Builder::new(), map());
        for (series, e) in all.by_ref().take(BATCH_ROWS) {
            metric.append_value(series.metric_name().unwrap_or(""));
            for (map, set) in [(&mut of_series, series), (&mut labels, &e.labels)] {
                for (name, text) in set {
                    map.keys().append_value(name);
                    map.values().append_value(text);
                }
                map.append(true).map_err(|e| BlockError::Encode(e.to_string()))?;
            }
            ts.append_value(e.ts_ms);
            value.append_value(e.value);
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(metric.finish()),
            Arc::new(of_series.finish()),
            Arc::new(ts.finish()),
            Arc::new(value.finish()),
            Arc::new(labels.finish()),
        ];
        batches.push(sidecar::batch(schema(), columns)?);
    }
    let times = || rows().map(|(_, e)| e.ts_ms);
    let span = (times().min().unwrap_or(0), times().max().unwrap_or(0));
    sidecar::encode(schema(), &batches, span)
}

/// Reads a file back; `object` is its path, for errors.
pub fn decode(object: &str, bytes: Bytes) -> Result<Vec<SeriesExemplars>, BlockError> {
    let mut out = Gathered::default();
    for batch in sidecar::decode(object, bytes)? {
        rows_of(&batch, &mut out).ok_or_else(|| BlockError::Corrupt {
            object: object.to_string(),
            what: "it does not have the columns of a file of exemplars".to_string(),
        })?;
    }
    Ok(out.finish())
}

fn rows_of(batch: &RecordBatch, out: &mut Gathered) -> Option<()> {
    let column = |name: &str| batch.column_by_name(name);
    let series = column("series")?.as_map_opt()?;
    let ts = column("ts")?.as_primitive_opt::<Int64Type>()?;
    let value = column("value")?.as_primitive_opt::<Float64Type>()?;
    let labels = column("labels")?.as_map_opt()?;
    let mut last: Option<Labels> = None;
    for i in 0..batch.num_rows() {
        let mut of_series = labels_of(series, i)?;
        // One allocation for all exemplars of a series.
        match &last {
            Some(same) if *same == of_series => of_series = same.clone(),
            _ => last = Some(of_series.clone()),
        }
        let exemplar = Exemplar { ts_ms: ts.value(i), value: value.value(i), labels: labels_of(labels, i)? };
        out.add(&of_series, [exemplar]);
    }
    Some(())
}

fn labels_of(map: &MapArray, at: usize) -> Option<Labels> {
    let (names, values) = (map.keys().as_string_opt::<i32>()?, map.values().as_string_opt::<i32>()?);
    let offsets = map.value_offsets();
    let range = offsets[at] as usize..offsets[at + 1] as usize;
    Some(Labels::from_pairs(range.map(|i| (names.value(i), values.value(i)))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn label_set() -> impl Strategy<Value = Labels> {
        proptest::collection::vec(("[a-c]{1,2}|__name__|größe", "[x-z]{0,3}"), 0..4)
            .prop_map(Labels::from_pairs)
    }

    proptest! {
        #[test]
        fn exemplar_file_comes_back_as_written(
            rows in proptest::collection::vec((label_set(), any::<i64>(), any::<u64>(), label_set()), 1..80),
            flip in any::<prop::sample::Index>(),
        ) {
            let mut all = Gathered::default();
            for (series, ts_ms, value, labels) in rows {
                all.add(&series, [Exemplar { ts_ms, value: f64::from_bits(value), labels }]);
            }
            let all = all.finish();
            let (about, bytes) = encode(all.clone()).unwrap();
            prop_assert_eq!(about.bytes, bytes.len() as u64);
            prop_assert_eq!(about.rows, all.iter().map(|s| s.exemplars.len() as u64).sum::<u64>());
            let back = decode("x", bytes.clone()).unwrap();
            let bits = |all: &[SeriesExemplars]| all.iter().map(|s| (s.labels.clone(), s.exemplars.iter()
                .map(|e| (e.ts_ms, e.value.to_bits(), e.labels.clone())).collect::<Vec<_>>())).collect::<Vec<_>>();
            prop_assert_eq!(bits(&back), bits(&all));
            let mut damaged = bytes.to_vec();
            let bit = flip.index(damaged.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(about.check("x", &damaged).is_err());
            prop_assert!(about.check("x", &bytes).is_ok());
        }
    }
}
