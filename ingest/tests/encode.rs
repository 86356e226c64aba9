//! What is sent is what was meant: requests read back by prost and by the decoder of this crate.

mod messages;

use ingest::remote_write::encode::RequestWriter;
use messages::{Count, ZeroCount, v1};
use model::histogram::{BucketSpan, CounterResetHint, Histogram};
use model::labels::Labels;
use model::sample::{Value, stale_nan};
use prost::Message;
use std::sync::Arc;

fn read(body: &[u8]) -> v1::WriteRequest {
    let message = snap::raw::Decoder::new().decompress_vec(body).expect("snappy");
    v1::WriteRequest::decode(&message[..]).expect("a WriteRequest")
}

#[test]
fn request_holds_floats_with_their_bits() {
    let labels = Labels::from_pairs([("__name__", "job:up:sum"), ("job", "wéb")]);
    let mut request = RequestWriter::default();
    for (ts_ms, v) in [(1_795_000_000_000, 1.5), (-7, -0.0), (0, stale_nan()), (1, f64::INFINITY)] {
        request.sample(&labels, ts_ms, &Value::Float(v));
    }
    assert_eq!(request.len(), 4);
    let read = read(&request.finish().unwrap());
    let got: Vec<_> = read.timeseries.iter().flat_map(|s| &s.samples).collect();
    assert_eq!(got.iter().map(|s| s.timestamp).collect::<Vec<_>>(), [1_795_000_000_000, -7, 0, 1]);
    let bits: Vec<u64> = got.iter().map(|s| s.value.to_bits()).collect();
    assert_eq!(bits, [1.5, -0.0, stale_nan(), f64::INFINITY].map(f64::to_bits));
    let pairs: Vec<_> = read.timeseries[0].labels.iter().map(|l| (&*l.name, &*l.value)).collect();
    assert_eq!(pairs, [("__name__", "job:up:sum"), ("job", "wéb")]);
}

#[test]
fn request_holds_histograms_whole() {
    let h = Histogram {
        counter_reset_hint: CounterResetHint::Gauge,
        schema: -3,
        zero_threshold: 0.25,
        zero_count: 2.0,
        count: 12.5,
        sum: 99.0,
        positive_spans: vec![BucketSpan { offset: -4, length: 2 }, BucketSpan { offset: 3, length: 1 }],
        positive_buckets: vec![1.0, 2.5, 3.0],
        negative_spans: vec![BucketSpan { offset: 0, length: 1 }],
        negative_buckets: vec![4.0],
        custom_values: None,
    };
    let custom = Histogram {
        schema: model::histogram::CUSTOM_BUCKETS_SCHEMA,
        custom_values: Some(Arc::from([0.5, 1.0])),
        ..Histogram::default()
    };
    let labels = Labels::from_pairs([("__name__", "h")]);
    let mut request = RequestWriter::default();
    request.sample(&labels, 5, &Value::Histogram(Arc::new(h.clone())));
    request.sample(&labels, 6, &Value::Histogram(Arc::new(custom)));
    let read = read(&request.finish().unwrap());
    let got = &read.timeseries[0].histograms[0];
    assert_eq!((got.count, got.zero_count), (Some(Count::Float(12.5)), Some(ZeroCount::Float(2.0))));
    assert_eq!((got.sum, got.schema, got.zero_threshold), (99.0, -3, 0.25));
    let spans = |all: &[messages::BucketSpan]| all.iter().map(|s| (s.offset, s.length)).collect::<Vec<_>>();
    assert_eq!(spans(&got.positive_spans), [(-4, 2), (3, 1)]);
    assert_eq!(spans(&got.negative_spans), [(0, 1)]);
    assert_eq!((&got.positive_counts[..], &got.negative_counts[..]), (&[1.0, 2.5, 3.0][..], &[4.0][..]));
    assert_eq!((got.reset_hint, got.timestamp), (3, 5));
    assert_eq!(read.timeseries[1].histograms[0].custom_values, [0.5, 1.0]);
    assert_eq!(read.timeseries[1].histograms[0].schema, -53);
}
