//! The log: `log.md`, and the labels that `README.md` shows.

use std::f64::consts::PI;
use std::sync::Arc;

use model::exemplar::Exemplar;
use model::histogram::{BucketSpan, CounterResetHint, Histogram};
use model::labels::Labels;
use model::sample::{Metadata, stale_nan};
use tsdb::db::LogSync;
use tsdb::head::Head;
use tsdb::sidecar::exemplars::buffer::Buffer;
use tsdb::wal::record::{self, FloatRow, HistogramRow, Record, SeriesDefinition};
use tsdb::wal::replay::replay;
use tsdb::wal::{HEADER_BYTES, Log, segment_path};

use super::page::{bytes, dump};

/// Takes the one record of an example and hands it on.
fn read(fence: &str, check: impl FnOnce(Record<'_>)) {
    let bytes = bytes("log.md", fence);
    let mut rest = &bytes[..];
    check(record::take(&mut rest).unwrap_or_else(|| panic!("{fence} is a record")));
    assert!(rest.is_empty(), "{fence}: {} bytes are left", rest.len());
}

/// That the code writes an example's bytes.
fn written(fence: &str, put: impl FnOnce(&mut Vec<u8>)) {
    let mut out = Vec::new();
    put(&mut out);
    assert_eq!(dump(&out), dump(&bytes("log.md", fence)), "{fence}");
}

fn float(series: u32, ts_ms: i64, value: f64, start_ts_ms: i64) -> FloatRow {
    FloatRow { series, ts_ms, value, start_ts_ms }
}

fn key(r: &FloatRow) -> (u32, i64, u64, i64) {
    (r.series, r.ts_ms, r.value.to_bits(), r.start_ts_ms)
}

#[test]
fn labels_are_lengths_and_texts() {
    let labels = Labels::from_pairs([("job", "node"), ("__name__", "up")]);
    assert_eq!(dump(&labels.encode()), dump(&bytes("README.md", "hex labels")));
}

#[test]
fn segment_begins_with_magic_session_number_and_checksum() {
    let dir = tempfile::tempdir().unwrap();
    drop(Log::create(dir.path(), 7, 42, LogSync::Always).unwrap());
    let written = std::fs::read(segment_path(dir.path(), 7)).unwrap();
    let expected = bytes("log.md", "hex segment-header");
    assert_eq!(expected.len(), HEADER_BYTES);
    assert_eq!(dump(&written), dump(&expected));
}

#[test]
fn series_record_is_as_documented() {
    let of = |job| vec![("__name__", "up"), ("job", job)];
    let definition = |series, job| SeriesDefinition { series, tenant: "default", labels: of(job) };
    read("hex record series", |r| match r {
        Record::Series(all) => assert_eq!(all, [definition(7, "node"), definition(8, "db")]),
        other => panic!("{other:?}"),
    });
    written("hex record series", |out| {
        record::put_series(out, [(7, "default", of("node")), (8, "default", of("db"))]).unwrap();
    });
    read("hex record old-series", |r| match r {
        Record::Series(all) => assert_eq!(all, [definition(7, "node")]),
        other => panic!("{other:?}"),
    });
}

#[test]
fn float_record_is_as_documented() {
    let at = 1_767_225_600_000;
    let values = [3.0, 50.5, f64::from(0.1f32), stale_nan(), PI];
    let rows: Vec<FloatRow> = (7..).zip(values).map(|(series, v)| float(series, at, v, 0)).collect();
    read("hex record floats", |r| match r {
        Record::Floats(all) => {
            assert_eq!(all.iter().map(key).collect::<Vec<_>>(), rows.iter().map(key).collect::<Vec<_>>());
        }
        other => panic!("{other:?}"),
    });
    written("hex record floats", |out| record::put_floats(out, rows.iter().copied()).unwrap());
}

#[test]
fn float_record_of_older_versions_is_still_read() {
    let rows = [float(7, 1000, 1.5, 100), float(8, 1000, stale_nan(), 0)];
    read("hex record old-floats", |r| match r {
        Record::Floats(all) => {
            assert_eq!(all.iter().map(key).collect::<Vec<_>>(), rows.iter().map(key).collect::<Vec<_>>());
        }
        other => panic!("{other:?}"),
    });
}

#[test]
fn histogram_record_is_as_documented() {
    let span = |offset, length| BucketSpan { offset, length };
    let histogram = Histogram {
        counter_reset_hint: CounterResetHint::NotCounterReset,
        schema: 3,
        zero_threshold: 0.0625,
        zero_count: 1.0,
        count: 6.0,
        sum: 3.625,
        positive_spans: vec![span(0, 2), span(3, 1)],
        positive_buckets: vec![2.0, 1.0, 2.0],
        ..Histogram::default()
    };
    let row = HistogramRow { series: 7, ts_ms: 1000, value: Arc::new(histogram), start_ts_ms: 0 };
    read("hex record histograms", |r| match r {
        Record::Histograms(all) => assert_eq!(format!("{all:?}"), format!("{:?}", [&row])),
        other => panic!("{other:?}"),
    });
    written("hex record histograms", |out| record::put_histograms(out, std::slice::from_ref(&row)).unwrap());
}

#[test]
fn metadata_record_is_as_documented() {
    let about = Metadata { kind: "gauge".into(), help: "Alive?".into(), unit: String::new() };
    read("hex record metadata", |r| match r {
        Record::Metadata { tenant, metric, metadata } => {
            assert_eq!((tenant, metric, metadata), ("default", "up", about.clone()));
        }
        other => panic!("{other:?}"),
    });
    written("hex record metadata", |out| record::put_metadata(out, "default", "up", &about).unwrap());
}

#[test]
fn exemplar_record_is_as_documented() {
    let labels = Labels::from_pairs([("trace_id", "abc")]);
    let exemplar = Exemplar { ts_ms: 1000, value: 0.25, labels };
    read("hex record exemplars", |r| match r {
        Record::Exemplars(all) => assert_eq!(all, [(7, exemplar.clone())]),
        other => panic!("{other:?}"),
    });
    written("hex record exemplars", |out| record::put_exemplars(out, [(7, &exemplar)]).unwrap());
}

/// A segment put together from the page's examples, with a kind that nobody knows and an end that is cut off.
#[test]
fn segment_made_of_the_examples_is_replayed() {
    let mut segment = bytes("log.md", "hex segment-header");
    segment.extend(bytes("log.md", "hex record old-series"));
    let body = [99u8, 1, 2, 3];
    let length = (body.len() as u32).to_le_bytes();
    let crc = crc32fast::hash(&[&length[..], &body].concat()).to_le_bytes();
    segment.extend([&length[..], &crc, &body].concat());
    segment.extend(bytes("log.md", "hex record floats"));
    segment.extend(&bytes("log.md", "hex record exemplars")[..9]);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(segment_path(dir.path(), 7), segment).unwrap();
    let head = Head::default();
    let found = replay(dir.path(), &head, &Buffer::new(1 << 20), 0, &|_, _, _| {}, |_, _| false).unwrap();
    assert_eq!(
        (found.series, found.samples, found.orphans),
        (1, 1, 4),
        "four of five series are not defined"
    );
    assert_eq!((found.unread_bytes, found.cut_bytes), (4, 9));
}
