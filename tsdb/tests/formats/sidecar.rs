//! Sidecars: `sidecar.md`.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::exemplar::{Exemplar, SeriesExemplars};
use model::labels::Labels;
use model::sample::Metadata;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use tsdb::sidecar::Sidecar;

use super::block::columns_of;
use super::page::{example, table};

fn parquet(bytes: Bytes) -> ParquetMetaData {
    SerializedFileReader::new(bytes).unwrap().metadata().clone()
}

fn documented(heading: &str) -> Vec<[String; 3]> {
    let rows = table("sidecar.md", heading);
    rows.iter().map(|r| [r[0].trim_matches('`').to_string(), r[1].clone(), r[2].clone()]).collect()
}

#[test]
fn sidecar_description_is_as_documented() {
    let shown = example("sidecar.md", "json sidecar");
    let about: Sidecar = serde_json::from_str(&shown).unwrap();
    assert_eq!((about.rows, about.bytes), (2, 1815));
    assert_eq!(serde_json::to_string_pretty(&about).unwrap(), shown);
}

#[test]
fn exemplar_file_has_the_documented_columns() {
    let exemplar = Exemplar { ts_ms: 5, value: 0.5, labels: Labels::from_pairs([("trace_id", "abc")]) };
    let series =
        SeriesExemplars { labels: Labels::from_pairs([("__name__", "up")]), exemplars: vec![exemplar] };
    let (about, bytes) = tsdb::sidecar::exemplars::file::encode(vec![series]).unwrap();
    assert_eq!((about.min_t_ms, about.max_t_ms, about.rows), (5, 5, 1));
    assert_eq!(about.bytes, bytes.len() as u64);
    assert_eq!(about.xxh3, format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes)));
    assert_eq!(columns_of(&parquet(bytes)), documented("## Exemplars"));
}

#[test]
fn metadata_file_has_the_documented_columns() {
    let entry = Metadata { kind: "gauge".into(), help: "Alive?".into(), unit: String::new() };
    let known = BTreeMap::from([("up".to_string(), BTreeMap::from([(entry, 9)]))]);
    let (about, bytes) = tsdb::sidecar::metadata::encode(&known).unwrap();
    assert_eq!((about.min_t_ms, about.max_t_ms, about.rows), (9, 9, 1));
    assert_eq!(columns_of(&parquet(bytes)), documented("## Metadata"));
}
