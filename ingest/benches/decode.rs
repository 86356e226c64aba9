//! What decoding costs: a request of 10,000 series with 8 labels and one sample each (about 2.2 MiB), by our
//! parsers and by prost.
//!
//! `cargo bench -p ingest --bench decode`. Throughput is in samples; nanoseconds per sample are the time over
//! 10,000.

// Shared with the tests: the bench must measure the messages they prove right.
#[path = "../tests/messages/mod.rs"]
mod messages;

use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use ingest::Limits;
use ingest::remote_write::sink::Sink;
use messages::{v1, v2};
use model::exemplar::{Accepted, Refused};
use model::histogram::Histogram;
use model::sample::Metadata;
use prost::Message;
use tsdb::db::SeriesRef;

const SERIES: usize = 10_000;
const NOW_MS: i64 = 1_795_000_000_000;

fn main() {
    divan::main();
}

/// Takes everything and keeps nothing, but for a sum that stops the compiler from leaving work out.
#[derive(Default)]
struct Nowhere(u64);

impl Sink for Nowhere {
    fn series(&mut self, labels: &[(&str, &str)]) -> SeriesRef {
        self.0 += labels.len() as u64;
        SeriesRef(0)
    }
    fn float(&mut self, _: SeriesRef, ts_ms: i64, value: f64, _: i64) {
        self.0 ^= value.to_bits() ^ ts_ms as u64;
    }
    fn histogram(&mut self, _: SeriesRef, ts_ms: i64, _: Arc<Histogram>, _: i64) {
        self.0 ^= ts_ms as u64;
    }
    fn exemplar(&mut self, _: SeriesRef, _: i64, _: f64, _: &[(&str, &str)]) -> Result<Accepted, Refused> {
        Ok(Accepted::New)
    }
    fn metadata(&mut self, metric: &str, _: Metadata) {
        self.0 += metric.len() as u64;
    }
}

fn label_values(i: usize) -> [(&'static str, String); 8] {
    [
        ("__name__", format!("http_request_duration_seconds_{}", i % 50)),
        ("cluster", "eu-central-1-production".into()),
        ("container", format!("checkout-service-{}", i % 20)),
        ("instance", format!("10.42.{}.{}:9100", i / 250 % 250, i % 250)),
        ("job", "kubernetes-pods".into()),
        ("method", ["GET", "POST", "PUT", "DELETE"][i % 4].into()),
        ("namespace", format!("team-{}-production", i % 30)),
        ("pod", format!("checkout-service-{}-6f7d9c5b4d-x{i:05}", i % 20)),
    ]
}

fn one() -> Vec<u8> {
    let series = |i: usize| {
        let values = label_values(i);
        let labels: Vec<_> = values.iter().map(|(n, v)| (*n, v.as_str())).collect();
        messages::series(&labels, &[(NOW_MS, i as f64 * 1.25)])
    };
    v1::WriteRequest { timeseries: (0..SERIES).map(series).collect(), metadata: vec![] }.encode_to_vec()
}

fn two() -> Vec<u8> {
    let mut symbols = vec![String::new()];
    let mut known = std::collections::HashMap::new();
    let mut timeseries = Vec::new();
    for i in 0..SERIES {
        let mut labels_refs = Vec::new();
        for (n, v) in label_values(i) {
            for text in [n.to_string(), v] {
                labels_refs.push(*known.entry(text.clone()).or_insert_with(|| {
                    symbols.push(text);
                    symbols.len() as u32 - 1
                }));
            }
        }
        let samples = vec![v2::Sample { value: i as f64 * 1.25, timestamp: NOW_MS, start_timestamp: 0 }];
        timeseries.push(v2::TimeSeries { labels_refs, samples, ..Default::default() });
    }
    v2::Request { symbols, timeseries }.encode_to_vec()
}

fn ours(bencher: Bencher<'_, '_>, body: Vec<u8>, decode: fn(&[u8], &mut Nowhere)) {
    bencher.counter(ItemsCount::new(SERIES)).bench_local(|| {
        let mut sink = Nowhere::default();
        decode(black_box(&body), &mut sink);
        sink.0
    });
}

/// Parsed, checked and handed on.
#[divan::bench]
fn v1_hearth(bencher: Bencher<'_, '_>) {
    ours(bencher, one(), |body, sink| {
        _ = ingest::remote_write::v1::decode(body, &Limits::default(), NOW_MS, sink).unwrap()
    });
}

/// Parsed only.
#[divan::bench]
fn v1_prost(bencher: Bencher<'_, '_>) {
    let body = one();
    bencher
        .counter(ItemsCount::new(SERIES))
        .bench_local(|| v1::WriteRequest::decode(black_box(&body[..])).unwrap());
}

/// Parsed, checked and handed on.
#[divan::bench]
fn v2_hearth(bencher: Bencher<'_, '_>) {
    ours(bencher, two(), |body, sink| {
        _ = ingest::remote_write::v2::decode(body, &Limits::default(), NOW_MS, sink).unwrap()
    });
}

/// Parsed only: the references still lead to nothing.
#[divan::bench]
fn v2_prost(bencher: Bencher<'_, '_>) {
    let body = two();
    bencher
        .counter(ItemsCount::new(SERIES))
        .bench_local(|| v2::Request::decode(black_box(&body[..])).unwrap());
}

/// What stands before either: snappy.
#[divan::bench]
fn snappy_v1(bencher: Bencher<'_, '_>) {
    let block = messages::compress(&one());
    bencher
        .counter(ItemsCount::new(SERIES))
        .bench_local(|| snap::raw::Decoder::new().decompress_vec(black_box(&block)).unwrap());
}
