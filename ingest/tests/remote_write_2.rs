//! What the remote write 2.0 specification asks of receivers, sentence by sentence: `REMOTE_WRITE.md` names
//! the test of each.

mod fixture;
mod messages;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use fixture::{Answer, Fixture, NOW_MS, fixture};
use ingest::Limits;
use messages::v2::{Exemplar, Metadata, Sample, TimeSeries};
use messages::{BucketSpan, Count, Histogram, ZeroCount, compress, snappy, v2};
use model::histogram::CounterResetHint;
use model::sample::STALE_NAN_BITS;
use model::source::{Budget, SeriesColumns};
use model::tenant::TenantId;
use prost::Message;

const PROTO: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// A symbol table that grows as texts are referred to.
struct Table(Vec<String>);

impl Table {
    fn new() -> Table {
        Table(vec![String::new()])
    }

    fn refer(&mut self, text: &str) -> u32 {
        let at = self.0.iter().position(|s| s == text).unwrap_or_else(|| {
            self.0.push(text.into());
            self.0.len() - 1
        });
        at as u32
    }

    fn refs(&mut self, labels: &[(&str, &str)]) -> Vec<u32> {
        labels.iter().flat_map(|(n, v)| [self.refer(n), self.refer(v)]).collect()
    }

    fn request(self, timeseries: Vec<TimeSeries>) -> v2::Request {
        v2::Request { symbols: self.0, timeseries }
    }
}

fn sample(timestamp: i64, value: f64) -> Sample {
    Sample { value, timestamp, start_timestamp: 0 }
}

/// A series of one sample.
fn one(table: &mut Table, labels: &[(&str, &str)], timestamp: i64, value: f64) -> TimeSeries {
    TimeSeries {
        labels_refs: table.refs(labels),
        samples: vec![sample(timestamp, value)],
        ..Default::default()
    }
}

/// Seven observations: one in the zero bucket, two and four in the buckets beside it.
fn native(timestamp: i64) -> Histogram {
    Histogram {
        count: Some(Count::Int(7)),
        sum: 12.5,
        schema: 3,
        zero_threshold: 0.001,
        zero_count: Some(ZeroCount::Int(1)),
        positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![2, 2],
        timestamp,
        ..Default::default()
    }
}

impl Fixture {
    async fn send_as(&self, content_type: &str, encoding: &str, body: Vec<u8>) -> Answer {
        let request = Request::post("/api/v1/write")
            .header("content-type", content_type)
            .header("content-encoding", encoding)
            .header("x-prometheus-remote-write-version", "2.0.0")
            .header("user-agent", "test/1");
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    async fn all(&self) -> Vec<SeriesColumns> {
        self.columns(&TenantId::single()).await
    }
}

#[track_caller]
fn stored_all(a: &Answer, written: [u64; 3]) {
    assert_eq!((a.status, a.written(), a.body.as_str()), (StatusCode::NO_CONTENT, written, ""));
}

#[track_caller]
fn refused(a: &Answer, written: [u64; 3], want: &str) {
    assert_eq!((a.status, a.written()), (StatusCode::BAD_REQUEST, written), "{want}: {}", a.body);
    let error = a.error("bad_data");
    assert!(error.contains(want), "{want}: {error}");
    assert!(error.contains(" samples not stored: "), "how much was left out: {error}");
}

#[tokio::test]
async fn content_type_says_which_message_it_is_and_an_unknown_one_is_a_415() {
    let f = fixture(Limits::default()).await;
    let mut t = Table::new();
    let up = one(&mut t, &[("__name__", "up")], NOW_MS, 1.0);
    let body = snappy(&t.request(vec![up]));
    stored_all(&f.send_as(PROTO, "snappy", body.clone()).await, [1, 0, 0]);
    // The same bytes as the deprecated message are an empty one, and the answer is 1.0's: without the headers
    // a sender knows.
    for as_v1 in ["application/x-protobuf", "application/x-protobuf;proto=prometheus.WriteRequest"] {
        let a = f.send_as(as_v1, "snappy", body.clone()).await;
        assert_eq!(a.status, StatusCode::NO_CONTENT, "{as_v1}");
        assert!(!a.headers.keys().any(|k| k.as_str().starts_with("x-prometheus")), "{as_v1}");
    }
    for (content_type, encoding) in [
        ("application/x-protobuf;proto=io.prometheus.write.v3.Request", "snappy"),
        ("application/x-protobuf;proto=", "snappy"),
        ("application/json", "snappy"),
        ("text/plain;proto=io.prometheus.write.v2.Request", "snappy"),
        (PROTO, "gzip"),
        (PROTO, "zstd"),
        (PROTO, "snappy, gzip"),
    ] {
        let a = f.send_as(content_type, encoding, body.clone()).await;
        assert_eq!(a.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type} {encoding}");
        assert!(!a.error("bad_data").is_empty());
        assert!(
            !a.headers.contains_key("x-prometheus-remote-write-samples-written"),
            "nothing was negotiated"
        );
    }
    assert_eq!(f.all().await[0].ts_ms.len(), 1);
}

#[tokio::test]
async fn bodies_are_snappy_blocks_of_a_whole_message() {
    let f = fixture(Limits::default()).await;
    let mut t = Table::new();
    let up = one(&mut t, &[("__name__", "up")], NOW_MS, 1.0);
    let plain = t.request(vec![up]).encode_to_vec();
    let mut framed = b"\xff\x06\x00\x00sNaPpY".to_vec();
    framed.extend(compress(&plain));
    let block = compress(&plain);
    for (what, body) in [
        ("plain", plain.clone()),
        ("framed", framed),
        ("cut block", block[..block.len() - 1].to_vec()),
        ("cut message", compress(&plain[..plain.len() - 1])),
        ("nothing", vec![]),
    ] {
        let a = f.post_v2(body).await;
        assert_eq!((a.status, a.written()), (StatusCode::BAD_REQUEST, [0, 0, 0]), "{what}: {}", a.body);
        assert!(!a.error("bad_data").is_empty());
    }
    assert!(f.all().await.is_empty());
    stored_all(&f.post_v2(compress(b"")).await, [0, 0, 0]);
}

#[tokio::test]
async fn counts_are_exact_for_each_kind_in_success_and_in_part_and_good_series_are_kept() {
    let f = fixture(Limits::default()).await;
    let request = |with_bad: bool| {
        let mut t = Table::new();
        let labels = t.refs(&[("__name__", "both")]);
        let trace = t.refs(&[("trace_id", "abc")]);
        let mut all = vec![
            TimeSeries {
                labels_refs: labels,
                samples: vec![sample(NOW_MS, 1.0), sample(NOW_MS + 1, 2.0), sample(NOW_MS + 2, 3.0)],
                exemplars: vec![Exemplar { labels_refs: trace, value: 1.0, timestamp: NOW_MS }],
                ..Default::default()
            },
            TimeSeries {
                labels_refs: t.refs(&[("__name__", "native")]),
                histograms: vec![native(NOW_MS), native(NOW_MS + 1)],
                ..Default::default()
            },
        ];
        if with_bad {
            let twice = t.refs(&[("__name__", "bad"), ("a", "1"), ("a", "2")]);
            all.insert(
                1,
                TimeSeries {
                    labels_refs: twice,
                    samples: vec![sample(NOW_MS, 1.0); 4],
                    ..Default::default()
                },
            );
            // Good labels, and of two samples one that cannot be.
            let half = t.refs(&[("__name__", "half")]);
            let samples = vec![sample(NOW_MS, 1.0), sample(NOW_MS + 86_400_000, 1.0)];
            all.push(TimeSeries { labels_refs: half, samples, ..Default::default() });
        }
        snappy(&t.request(all))
    };
    stored_all(&f.post_v2(request(false)).await, [3, 2, 1]);
    let a = f.post_v2(request(true)).await;
    refused(&a, [4, 2, 1], "5 of 11 samples not stored");
    let error = a.error("bad_data");
    assert!(error.contains("4 × ") || error.contains("1 × duplicate_label_name"), "{error}");
    assert!(error.contains("1 × out_of_bounds"), "{error}");
    // The whole of it once more, as a sender does that never saw the answer: the same counts, and nothing
    // twice.
    refused(&f.post_v2(request(true)).await, [4, 2, 1], "5 of 11 samples not stored");
    let stored: Vec<_> = f.all().await.iter().map(|s| (s.labels.to_string(), s.ts_ms.len())).collect();
    let want = [(r#"{__name__="both"}"#, 3), (r#"{__name__="half"}"#, 1), (r#"{__name__="native"}"#, 2)];
    assert_eq!(stored, want.map(|(l, n)| (l.to_string(), n)));
    let db = f.db.clone();
    let exemplars = tokio::task::spawn_blocking(move || {
        db.exemplars(&TenantId::single(), &[vec![]], 0, i64::MAX, &Budget::unlimited()).unwrap()
    });
    assert_eq!(exemplars.await.unwrap()[0].exemplars.len(), 1);
}

#[tokio::test]
async fn log_failure_is_a_5xx_with_nothing_written_good_and_bad_alike() {
    let f = fixture(Limits::default()).await;
    f.db.close(false).await.unwrap();
    let mut t = Table::new();
    let all =
        vec![one(&mut t, &[("__name__", "up")], NOW_MS, 1.0), one(&mut t, &[("job", "x")], NOW_MS, 1.0)];
    let a = f.post_v2(snappy(&t.request(all))).await;
    assert_eq!((a.status, a.written()), (StatusCode::SERVICE_UNAVAILABLE, [0, 0, 0]));
    assert_eq!(a.headers["retry-after"], "5");
}

/// A varint field, a fixed64, a length-delimited and a fixed32 one that no version has yet.
const UNKNOWN_FIELDS: &[u8] = b"\xd0\x0f\x05\xd9\x0f12345678\xe2\x0f\x03abc\xed\x0f1234";

#[tokio::test]
async fn fields_of_later_minor_versions_are_passed_over_everywhere() {
    let f = fixture(Limits::default()).await;
    let inside = |mut message: Vec<u8>| {
        message.extend_from_slice(UNKNOWN_FIELDS);
        message
    };
    let field = |number: u8, message: &[u8]| {
        let mut out = vec![number << 3 | 2];
        prost::encoding::encode_varint(message.len() as u64, &mut out);
        out.extend_from_slice(message);
        out
    };
    let exemplar = Exemplar { labels_refs: vec![], value: 2.0, timestamp: NOW_MS };
    let metadata = Metadata { r#type: 1, help_ref: 3, unit_ref: 0 };
    let mut series = field(1, &[1, 2]);
    series.extend(field(2, &inside(sample(NOW_MS, 1.0).encode_to_vec())));
    series.extend(field(4, &inside(exemplar.encode_to_vec())));
    series.extend(field(5, &inside(metadata.encode_to_vec())));
    let mut of_histograms = field(1, &[1, 4]);
    of_histograms.extend(field(3, &inside(native(NOW_MS).encode_to_vec())));
    let mut body = Vec::new();
    for symbol in ["", "__name__", "up", "Whether it is up.", "native"] {
        body.extend(field(4, symbol.as_bytes()));
    }
    body.extend(field(5, &inside(series)));
    body.extend(field(5, &inside(of_histograms)));
    stored_all(&f.post_v2(compress(&inside(body))).await, [1, 1, 1]);
    let db = f.db.clone();
    let known = tokio::task::spawn_blocking(move || {
        db.metadata(&TenantId::single(), None, &Budget::unlimited()).unwrap()
    });
    assert_eq!(&*known.await.unwrap()["up"][0].help, "Whether it is up.");
}

#[tokio::test]
async fn values_come_back_bit_for_bit_stale_markers_among_them() {
    let f = fixture(Limits::default()).await;
    let bits = [
        STALE_NAN_BITS,
        0x7ff8_0000_0000_0001,
        0xfff8_0000_0000_0000,
        f64::INFINITY.to_bits(),
        f64::NEG_INFINITY.to_bits(),
        (-5e-324f64).to_bits(),
        1,
        f64::MAX.to_bits(),
        0.1f64.to_bits(),
    ];
    let mut t = Table::new();
    let samples =
        bits.iter().enumerate().map(|(i, b)| sample(NOW_MS + i as i64, f64::from_bits(*b))).collect();
    let series = TimeSeries { labels_refs: t.refs(&[("__name__", "bits")]), samples, ..Default::default() };
    let mut stale = native(NOW_MS);
    stale.sum = f64::from_bits(STALE_NAN_BITS);
    let histograms = TimeSeries {
        labels_refs: t.refs(&[("__name__", "stale")]),
        histograms: vec![stale],
        ..Default::default()
    };
    stored_all(&f.post_v2(snappy(&t.request(vec![series, histograms]))).await, [bits.len() as u64, 1, 0]);
    let all = f.all().await;
    assert_eq!(STALE_NAN_BITS, 0x7ff0_0000_0000_0002);
    assert_eq!(all[0].values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), bits);
    let histogram = all[1].histograms.as_ref().unwrap()[0].as_ref().unwrap();
    assert_eq!(histogram.sum.to_bits(), STALE_NAN_BITS);
}

#[tokio::test]
async fn references_must_point_into_the_table_and_come_in_pairs() {
    let f = fixture(Limits::default()).await;
    let good = |t: &mut Table| one(t, &[("__name__", "good")], NOW_MS, 1.0);
    let with = |labels_refs, change: fn(&mut TimeSeries)| {
        let mut t = Table::new();
        t.refs(&[("__name__", "up"), ("job", "a")]);
        let mut bad = TimeSeries { labels_refs, samples: vec![sample(NOW_MS, 1.0)], ..Default::default() };
        change(&mut bad);
        let good = good(&mut t);
        snappy(&t.request(vec![bad, good]))
    };
    let nothing: fn(&mut TimeSeries) = |_| ();
    for (labels_refs, change, want) in [
        (vec![1, 2, 3], nothing, "3 label references, which do not make pairs"),
        (vec![1, 2, 3, 99], nothing, "reference 99 is outside of the table of 6 symbols"),
        (vec![1, 2, u32::MAX, 4], nothing, "reference 4294967295 is outside"),
        (vec![], nothing, "no metric name"),
        (
            vec![1, 2],
            |s| s.metadata = Some(Metadata { r#type: 1, help_ref: 6, unit_ref: 0 }),
            "metadata: reference 6",
        ),
        (
            vec![1, 2],
            |s| s.metadata = Some(Metadata { r#type: 1, help_ref: 0, unit_ref: 7 }),
            "metadata: reference 7",
        ),
    ] {
        refused(&f.post_v2(with(labels_refs, change)).await, [1, 0, 0], want);
    }
    // An exemplar's references are its own: the sample beside it is kept.
    for refs in [vec![3], vec![3, 99]] {
        let mut t = Table::new();
        let mut series = one(&mut t, &[("__name__", "good")], NOW_MS, 1.0);
        series.exemplars = vec![Exemplar { labels_refs: refs, value: 1.0, timestamp: NOW_MS }];
        let a = f.post_v2(snappy(&t.request(vec![series]))).await;
        assert_eq!((a.status, a.written()), (StatusCode::BAD_REQUEST, [1, 0, 0]), "{}", a.body);
    }
    let stored: Vec<_> = f.all().await.iter().map(|s| s.labels.to_string()).collect();
    assert_eq!(stored, [r#"{__name__="good"}"#]);
}

#[tokio::test]
async fn symbols_may_come_in_any_order_after_the_series_and_more_than_once() {
    let f = fixture(Limits::default()).await;
    // Not deduplicated and not empty at first, as upstream takes it: references mean what the table says.
    let symbols = ["up", "__name__", "up", "job", "a", "job"].map(String::from).to_vec();
    let series = |labels_refs, timestamp| TimeSeries {
        labels_refs,
        samples: vec![sample(timestamp, 1.0)],
        ..Default::default()
    };
    let series = vec![series(vec![1, 0, 3, 4], NOW_MS), series(vec![1, 2, 5, 4], NOW_MS + 1)];
    let table = v2::Request { symbols, timeseries: vec![] }.encode_to_vec();
    let mut body = v2::Request { symbols: vec![], timeseries: series }.encode_to_vec();
    body.extend(table);
    stored_all(&f.post_v2(compress(&body)).await, [2, 0, 0]);
    let all = f.all().await;
    assert_eq!((all.len(), all[0].labels.to_string().as_str()), (1, r#"{__name__="up", job="a"}"#));
    assert_eq!(*all[0].ts_ms, [NOW_MS, NOW_MS + 1]);
}

#[tokio::test]
async fn labels_are_any_utf8_each_name_once_and_sorted_here_where_they_were_not() {
    let f = fixture(Limits::default()).await;
    let mut t = Table::new();
    let all = vec![
        one(&mut t, &[("__name__", "resource.cpu usage"), ("instance name", "ü\n\"\\")], NOW_MS, 1.0),
        one(&mut t, &[("日本", "語"), ("__name__", "up"), ("a", "1")], NOW_MS, 1.0),
        one(&mut t, &[("__name__", "up"), ("zone", ""), ("a", "2")], NOW_MS, 1.0),
        one(&mut t, &[("__name__", "up"), ("__reserved", "x")], NOW_MS, 1.0),
    ];
    stored_all(&f.post_v2(snappy(&t.request(all))).await, [4, 0, 0]);
    let stored: Vec<_> = f
        .all()
        .await
        .iter()
        .map(|s| s.labels.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        stored,
        [
            "__name__=resource.cpu usage instance name=ü\n\"\\",
            "__name__=up __reserved=x",
            "__name__=up a=1 日本=語",
            "__name__=up a=2",
        ]
    );
    for (labels, want) in [
        (&[("__name__", "up"), ("a", "1"), ("a", "1")][..], "\"a\" appears twice"),
        (&[("__name__", "up"), ("a", ""), ("a", "1")], "\"a\" appears twice"),
        (&[("__name__", "up"), ("__name__", "down")], "\"__name__\" appears twice"),
        (&[("__name__", "up"), ("", "x")], "has no name"),
        (&[("__name__", "")], "no metric name"),
        (&[("job", "a")], "no metric name"),
    ] {
        let mut t = Table::new();
        let bad = one(&mut t, labels, NOW_MS, 1.0);
        refused(&f.post_v2(snappy(&t.request(vec![bad]))).await, [0, 0, 0], want);
    }
    // What is not UTF-8, in a label and in a help text: the one costs its series, the other only itself.
    let mut t = Table::new();
    let mut told = one(&mut t, &[("__name__", "told")], NOW_MS, 1.0);
    told.metadata = Some(Metadata { r#type: 1, help_ref: t.refer("HHHH"), unit_ref: 0 });
    let bad = one(&mut t, &[("__name__", "QQQQ")], NOW_MS, 1.0);
    let mut bytes = t.request(vec![told, bad]).encode_to_vec();
    for needle in [&b"HHHH"[..], b"QQQQ"] {
        let at = bytes.windows(4).position(|w| w == needle).unwrap();
        bytes[at] = 0xff;
    }
    let a = f.post_v2(compress(&bytes)).await;
    refused(&a, [1, 0, 0], "2 × invalid_utf8");
    assert!(
        a.error("bad_data").contains(r#"metadata of "told": its help or unit is not UTF-8"#),
        "{}",
        a.body
    );
}

#[tokio::test]
async fn series_must_hold_something_and_may_come_in_several_parts() {
    let f = fixture(Limits::default()).await;
    let mut t = Table::new();
    let labels_refs = t.refs(&[("__name__", "up")]);
    let empty = TimeSeries { labels_refs: labels_refs.clone(), ..Default::default() };
    let told = Some(Metadata { r#type: 2, help_ref: 0, unit_ref: 0 });
    let only_told = TimeSeries { metadata: told, ..empty.clone() };
    let first = one(&mut t, &[("__name__", "up")], NOW_MS, 1.0);
    let second = one(&mut t, &[("__name__", "up")], NOW_MS + 1, 2.0);
    // Upstream's sender puts exemplars into parts of their own, which the specification does not foresee.
    let trace = Exemplar { labels_refs: vec![], value: 1.0, timestamp: NOW_MS };
    let third = TimeSeries { labels_refs, exemplars: vec![trace], ..Default::default() };
    let a = f.post_v2(snappy(&t.request(vec![first, empty, second, third, only_told]))).await;
    refused(&a, [2, 0, 1], "2 × empty_series");
    assert_eq!(*f.all().await[0].ts_ms, [NOW_MS, NOW_MS + 1]);
}

#[tokio::test]
async fn samples_out_of_order_and_floats_beside_histograms_are_taken() {
    let f = fixture(Limits::default()).await;
    let mut t = Table::new();
    let mut series = one(&mut t, &[("__name__", "mixed")], NOW_MS, 1.0);
    series.samples.extend([sample(NOW_MS - 60_000, 2.0), sample(NOW_MS - 30_000, 3.0)]);
    series.histograms = vec![native(NOW_MS - 45_000)];
    stored_all(&f.post_v2(snappy(&t.request(vec![series]))).await, [3, 1, 0]);
    // A second value for a time that has one replaces it; upstream refuses it, here the last one written
    // counts.
    let mut t = Table::new();
    let again = one(&mut t, &[("__name__", "mixed")], NOW_MS, 9.0);
    stored_all(&f.post_v2(snappy(&t.request(vec![again]))).await, [1, 0, 0]);
    let all = f.all().await;
    assert_eq!(*all[0].ts_ms, [60_000, 45_000, 30_000, 0].map(|back| NOW_MS - back));
    assert_eq!((all[0].values[3], all[0].histograms.as_ref().unwrap()[1].is_some()), (9.0, true));
}

#[tokio::test]
async fn start_timestamps_are_kept_and_zero_is_none() {
    let f = fixture(Limits::default()).await;
    let starts = [NOW_MS - 5_000, 0, 1, -1];
    let samples = starts
        .iter()
        .enumerate()
        .map(|(i, start)| Sample { start_timestamp: *start, ..sample(NOW_MS + i as i64, 1.0) });
    let mut t = Table::new();
    let floats = TimeSeries {
        labels_refs: t.refs(&[("__name__", "a")]),
        samples: samples.collect(),
        ..Default::default()
    };
    let histogram = Histogram { start_timestamp: NOW_MS - 7_000, ..native(NOW_MS) };
    let histograms = TimeSeries {
        labels_refs: t.refs(&[("__name__", "b")]),
        histograms: vec![histogram],
        ..Default::default()
    };
    // Early senders said it once for the whole series.
    let mut early = one(&mut t, &[("__name__", "c")], NOW_MS, 1.0);
    early.created_timestamp = NOW_MS - 9_000;
    stored_all(&f.post_v2(snappy(&t.request(vec![floats, histograms, early]))).await, [5, 1, 0]);
    let all = f.all().await;
    assert_eq!(all[0].start_ts_ms.as_deref(), Some(&starts[..]));
    assert_eq!(all[1].start_ts_ms.as_deref(), Some(&[NOW_MS - 7_000][..]));
    assert_eq!(all[2].start_ts_ms.as_deref(), Some(&[NOW_MS - 9_000][..]));
}

#[tokio::test]
async fn histograms_of_every_kind_are_kept_and_what_contradicts_itself_is_refused_alone() {
    let f = fixture(Limits::default()).await;
    let float = Histogram {
        count: Some(Count::Float(7.5)),
        zero_count: Some(ZeroCount::Float(1.5)),
        positive_deltas: vec![],
        positive_counts: vec![2.0, 4.0],
        ..native(NOW_MS)
    };
    let custom = Histogram {
        count: Some(Count::Int(6)),
        schema: -53,
        zero_threshold: 0.0,
        zero_count: Some(ZeroCount::Int(0)),
        custom_values: vec![1.0, 5.0],
        ..native(NOW_MS)
    };
    let good = [
        ("custom", custom.clone()),
        ("fine", Histogram { schema: 12, ..native(NOW_MS) }),
        ("float", float.clone()),
        ("gauge", Histogram { reset_hint: 3, ..native(NOW_MS) }),
        ("whole", native(NOW_MS)),
    ];
    let bad = [
        (Histogram { count: Some(Count::Int(8)), ..native(NOW_MS) }, "7 observations found in buckets"),
        (Histogram { schema: 53, ..native(NOW_MS) }, "schema"),
        (Histogram { schema: -5, ..native(NOW_MS) }, "schema"),
        (Histogram { positive_deltas: vec![2, -5], ..native(NOW_MS) }, "negative"),
        (Histogram { positive_deltas: vec![2], ..native(NOW_MS) }, "buckets"),
        (Histogram { custom_values: vec![5.0, 1.0], ..custom.clone() }, "custom"),
        (Histogram { zero_count: Some(ZeroCount::Int(1)), count: Some(Count::Int(7)), ..custom }, "zero"),
        (Histogram { zero_count: Some(ZeroCount::Float(-1.0)), ..float }, "negative"),
        (Histogram { timestamp: NOW_MS + 86_400_000, ..native(NOW_MS) }, "out of bounds"),
    ];
    let series = |t: &mut Table, name: &str, h: &Histogram| TimeSeries {
        labels_refs: t.refs(&[("__name__", name)]),
        histograms: vec![h.clone()],
        ..Default::default()
    };
    let mut t = Table::new();
    let all = good.iter().map(|(name, h)| series(&mut t, name, h)).collect();
    stored_all(&f.post_v2(snappy(&t.request(all))).await, [0, good.len() as u64, 0]);
    for (h, want) in &bad {
        let mut t = Table::new();
        let all = vec![series(&mut t, "bad", h), series(&mut t, "whole", &native(NOW_MS))];
        refused(&f.post_v2(snappy(&t.request(all))).await, [0, 1, 0], want);
    }
    let all = f.all().await;
    let stored: Vec<_> = all
        .iter()
        .map(|s| {
            let h = Arc::clone(s.histograms.as_ref().unwrap()[0].as_ref().unwrap());
            (s.labels.value("__name__").to_string(), h.schema, h.count, h.counter_reset_hint)
        })
        .collect();
    let unknown = CounterResetHint::Unknown;
    let want = [
        ("custom", -53, 6.0, unknown),
        ("fine", 8, 7.0, unknown),
        ("float", 3, 7.5, unknown),
        ("gauge", 3, 7.0, CounterResetHint::Gauge),
        ("whole", 3, 7.0, unknown),
    ];
    assert_eq!(stored, want.map(|(n, s, c, h)| (n.to_string(), s, c, h)));
}

#[tokio::test]
async fn metadata_has_each_type_and_is_not_asked_for() {
    let f = fixture(Limits::default()).await;
    let kinds = ["", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset", ""];
    let mut t = Table::new();
    let mut all = Vec::new();
    for kind in 0..kinds.len() {
        let mut series = one(&mut t, &[("__name__", &format!("m{kind}"))], NOW_MS, 1.0);
        let (help_ref, unit_ref) = (t.refer("help"), t.refer("bytes"));
        series.metadata = Some(Metadata { r#type: kind as i32, help_ref, unit_ref });
        all.push(series);
    }
    all.push(one(&mut t, &[("__name__", "without")], NOW_MS, 1.0));
    stored_all(&f.post_v2(snappy(&t.request(all))).await, [kinds.len() as u64 + 1, 0, 0]);
    let db = f.db.clone();
    let known = tokio::task::spawn_blocking(move || {
        db.metadata(&TenantId::single(), None, &Budget::unlimited()).unwrap()
    })
    .await
    .unwrap();
    for (n, kind) in kinds.iter().enumerate() {
        let of = &known[&format!("m{n}")][0];
        let kind = if kind.is_empty() { "unknown" } else { kind };
        assert_eq!((&*of.kind, &*of.help, &*of.unit), (kind, "help", "bytes"), "m{n}");
    }
    assert!(!known.contains_key("without"));
}

#[tokio::test]
async fn known_series_is_judged_as_strictly_as_a_new_one() {
    let f = fixture(Limits::default()).await;
    let request = |t_ms: i64, refs: Vec<u32>| {
        let mut t = Table::new();
        let mut up = one(&mut t, &[("__name__", "up"), ("job", "a")], t_ms, 1.0);
        up.exemplars = vec![Exemplar { labels_refs: refs, value: 1.0, timestamp: t_ms }];
        snappy(&t.request(vec![up]))
    };
    stored_all(&f.post_v2(request(NOW_MS, vec![])).await, [1, 0, 1]);
    stored_all(&f.post_v2(request(NOW_MS + 1, vec![3, 4])).await, [1, 0, 1]);
    let a = f.post_v2(request(NOW_MS + 2, vec![3])).await;
    assert_eq!((a.status, a.written()), (StatusCode::BAD_REQUEST, [1, 0, 0]));
    assert!(a.error("bad_data").contains(r#"{__name__="up", job="a"}"#), "{}", a.body);
    refused(&f.post_v2(request(NOW_MS + 700_000, vec![])).await, [0, 0, 0], r#"{__name__="up", job="a"}"#);
    assert_eq!(f.all().await[0].ts_ms.len(), 3);
}
