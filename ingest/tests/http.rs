//! Every status the write path answers, by requests that earn it, and what is in the store afterwards.

mod fixture;
mod messages;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use fixture::{NOW_MS, fixture, fixture_with, v2_request};
use ingest::Limits;
use messages::{compress, series, snappy, v1, v2};
use model::source::Budget;
use model::tenant::TenantId;
use tower::ServiceExt;

fn request(timeseries: Vec<v1::TimeSeries>) -> Vec<u8> {
    snappy(&v1::WriteRequest { timeseries, metadata: vec![] })
}

#[tokio::test]
async fn good_write_is_a_204_and_in_the_store_for_its_tenant_only() {
    let f = fixture(Limits::default()).await;
    let body = request(vec![
        series(&[("__name__", "up"), ("job", "a")], &[(NOW_MS, 1.0), (NOW_MS - 15_000, 0.0)]),
        // Unsorted labels and an empty value, as no good sender has them but upstream takes.
        series(&[("zone", ""), ("job", "b"), ("__name__", "up")], &[(NOW_MS, 0.5)]),
    ]);
    let a = f.post(body.clone()).await;
    assert_eq!((a.status, a.body.as_str()), (StatusCode::NO_CONTENT, ""));
    assert!(
        !a.headers.keys().any(|k| k.as_str().starts_with("x-prometheus")),
        "1.0 answers carry no 2.0 headers"
    );
    assert_eq!(
        f.stored(&TenantId::single()).await,
        [
            format!("{{__name__=\"up\", job=\"a\"}} {} 0", NOW_MS - 15_000),
            format!("{{__name__=\"up\", job=\"a\"}} {NOW_MS} 1"),
            format!("{{__name__=\"up\", job=\"b\"}} {NOW_MS} 0.5"),
        ]
    );
    let other =
        Request::post("/api/v1/push").header("x-scope-orgid", "team-b").body(Body::from(body)).unwrap();
    assert_eq!(
        f.send(other).await.status,
        StatusCode::NO_CONTENT,
        "no content type at all, and Cortex' path"
    );
    assert_eq!(f.stored(&TenantId::new("team-b").unwrap()).await.len(), 3);
    let metrics = f.metrics();
    assert!(
        metrics.contains("hearth_ingest_requests_total{protocol=\"remote_write_v1\",code=\"204\"} 2"),
        "{metrics}"
    );
    assert!(metrics.contains("hearth_ingest_samples_total{kind=\"float\"} 6"), "{metrics}");
    assert!(metrics.contains("hearth_ingest_in_flight_bytes 0"), "all memory was given back: {metrics}");
}

#[tokio::test]
async fn content_types_and_encodings_are_negotiated_as_upstream_does() {
    let f = fixture(Limits::default()).await;
    let body = request(vec![series(&[("__name__", "up")], &[(NOW_MS, 1.0)])]);
    let cases = [
        (None, None, 204),
        (Some("application/x-protobuf"), Some("snappy"), 204),
        (Some("application/x-protobuf;proto=prometheus.WriteRequest"), Some("snappy"), 204),
        (Some("Application/X-Protobuf ; Proto=\"prometheus.WriteRequest\""), Some("Snappy"), 204),
        (Some("application/x-protobuf; charset=utf-8"), Some("snappy"), 204),
        (Some("application/x-protobuf;proto=io.prometheus.write.v2.Request"), Some("snappy"), 204),
        (Some("application/x-protobuf;proto=prometheus.Nonsense"), Some("snappy"), 415),
        (Some("application/x-protobuf;proto"), Some("snappy"), 415),
        (Some("application/json"), Some("snappy"), 415),
        (Some("application/x-protobuf"), Some("gzip"), 415),
        (Some("application/x-protobuf"), Some("zstd"), 415),
        (Some("application/x-protobuf"), Some("identity"), 415),
    ];
    for (content_type, encoding, status) in cases {
        let mut r = Request::post("/api/v1/write");
        if let Some(t) = content_type {
            r = r.header("content-type", t);
        }
        if let Some(e) = encoding {
            r = r.header("content-encoding", e);
        }
        let a = f.send(r.body(Body::from(body.clone())).unwrap()).await;
        assert_eq!(a.status.as_u16(), status, "{content_type:?} {encoding:?}: {}", a.body);
        if status == 415 {
            a.error("bad_data");
        }
    }
    let get = Request::get("/api/v1/write").body(Body::empty()).unwrap();
    assert_eq!(f.send(get).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn garbage_body_is_a_400_that_says_what_and_where() {
    let f = fixture(Limits::default()).await;
    let good = request(vec![series(&[("__name__", "up")], &[(NOW_MS, 1.0)])]);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty body", vec![], "not snappy block format"),
        ("half a length", vec![0x80], "not snappy block format"),
        ("endless length", vec![0xff; 64], "not snappy block format"),
        ("text", b"up 1\n".to_vec(), "not snappy block format"),
        ("snappy frame format", b"\xff\x06\x00\x00sNaPpY".to_vec(), "not snappy block format"),
        ("truncated", good[..good.len() - 3].to_vec(), "not snappy block format"),
        (
            "a bomb",
            vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00],
            "declares 4294967295 decoded bytes, more than 33554432",
        ),
        ("snappy over garbage", compress(b"\x0a\x03abc"), "malformed protobuf at byte 3"),
        ("a group", compress(b"\x0b\x0c"), "malformed protobuf at byte 1: field 1"),
        ("wire type 7", compress(b"\x17"), "wire type 7, which does not exist"),
        ("field 0", compress(b"\x02\x00"), "malformed protobuf at byte 0: 2 is not the key of a field"),
    ];
    for (what, body, want) in cases {
        let a = f.post(body).await;
        assert_eq!(a.status, StatusCode::BAD_REQUEST, "{what}");
        let error = a.error("bad_data");
        assert!(error.contains(want), "{what}: {error}");
    }
    assert!(f.stored(&TenantId::single()).await.is_empty());
    assert_eq!(f.post(compress(b"")).await.status, StatusCode::NO_CONTENT, "an empty request is a valid one");
}

#[tokio::test]
async fn bad_series_are_named_and_good_ones_kept() {
    let f = fixture(Limits { retention_ms: Some(86_400_000), ..Limits::default() }).await;
    let many: Vec<(String, String)> = (0..10_000).map(|i| (format!("l{i}"), "x".to_string())).collect();
    let mut many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    many.push(("__name__", "many"));
    let long = "n".repeat(1025);
    let long_value = "v".repeat(8193);
    let at = |t| vec![(t, 1.0)];
    let mut all = vec![
        (
            series(&[("__name__", "a"), ("x", "1"), ("x", "2")], &at(NOW_MS)),
            "the label name \"x\" appears twice",
        ),
        (
            series(&[("__name__", "a"), ("x", ""), ("x", "2")], &at(NOW_MS)),
            "the label name \"x\" appears twice",
        ),
        (series(&[("__name__", "a"), ("", "2")], &at(NOW_MS)), "a label with the value \"2\" has no name"),
        (series(&[("job", "a")], &at(NOW_MS)), "no metric name"),
        (series(&[("__name__", "")], &at(NOW_MS)), "no metric name"),
        (series(&[], &at(NOW_MS)), "no metric name"),
        (series(&many, &at(NOW_MS)), "10001 labels, more than 64"),
        (series(&[("__name__", "a"), (&long, "1")], &at(NOW_MS)), "has 1025 bytes, more than 1024"),
        (series(&[("__name__", "a"), ("l", &long_value)], &at(NOW_MS)), "has 8193 bytes, more than 8192"),
        (
            series(&[("__name__", "a")], &at(NOW_MS + 600_001)),
            "10m1ms in the future, the limit of this tenant is 10m (creation_grace_period)",
        ),
        (series(&[("__name__", "a")], &at(-62_135_596_800_000)), "before 1970"),
        (series(&[("__name__", "a")], &at(884_541_600_000_000)), "in the future"),
        (series(&[("__name__", "a")], &at(i64::MAX)), "in the future"),
        (series(&[("__name__", "a")], &at(i64::MIN)), "before 1970"),
        (series(&[("__name__", "a")], &at(NOW_MS - 86_400_001)), "older than the retention of 86400 s"),
    ];
    let mut kept = 0;
    for (bad, want) in all.clone() {
        kept += 1;
        let good = series(&[("__name__", "good"), ("n", &kept.to_string())], &at(NOW_MS));
        let a = f.post(request(vec![bad, good])).await;
        assert_eq!(a.status, StatusCode::BAD_REQUEST, "{want}");
        let error = a.error("bad_data");
        assert!(error.contains(want), "{error}");
        assert!(error.starts_with("1 of 2 samples not stored: 1 × "), "{error}");
        assert!(error.len() < 1000, "{} bytes: {error}", error.len());
    }
    assert_eq!(
        f.stored(&TenantId::single()).await.len(),
        kept,
        "every good neighbour is there and nothing else"
    );
    // All in one: counted, and only the first few told.
    all.truncate(9);
    let a = f.post(request(all.into_iter().map(|(s, _)| s).collect())).await;
    let error = a.error("bad_data");
    assert!(
        error.contains("9 of 9 samples not stored") && error.contains("3 × missing_metric_name"),
        "{error}"
    );
    assert_eq!(error.matches("series {").count(), 5, "{error}");
    assert!(
        f.metrics().contains("hearth_ingest_rejected_samples_total{reason=\"out_of_bounds\"} 6"),
        "{}",
        f.metrics()
    );
}

#[tokio::test]
async fn names_that_are_not_utf8_are_refused_alone() {
    let f = fixture(Limits::default()).await;
    // prost's strings cannot hold this, so the bytes are changed after encoding.
    let body = v1::WriteRequest {
        timeseries: vec![
            series(&[("__name__", "QQQQ")], &[(NOW_MS, 1.0)]),
            series(&[("__name__", "up"), ("RRRR", "v")], &[(NOW_MS, 1.0)]),
            series(&[("__name__", "up")], &[(NOW_MS, 1.0)]),
        ],
        metadata: vec![],
    };
    let mut bytes = prost::Message::encode_to_vec(&body);
    for needle in [&b"QQQQ"[..], b"RRRR"] {
        let at = bytes.windows(4).position(|w| w == needle).unwrap();
        bytes[at + 1] = 0xff;
    }
    let a = f.post(compress(&bytes)).await;
    assert_eq!(a.status, StatusCode::BAD_REQUEST);
    assert!(a.error("bad_data").contains("2 × invalid_utf8"), "{}", a.body);
    assert_eq!(f.stored(&TenantId::single()).await, [format!("{{__name__=\"up\"}} {NOW_MS} 1")]);
}

#[tokio::test]
async fn sizes_are_refused_before_they_cost_anything() {
    let small = Limits { max_body_bytes: 1000, max_decoded_bytes: 2000, ..Limits::default() };
    let f = fixture(small).await;
    let noise: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    // Announced too long: nothing of it is read.
    let r = Request::post("/api/v1/write").header("content-length", "1001").body(Body::empty()).unwrap();
    assert_eq!(f.send(r).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    // Not announced, longer than the limit: reading stops there.
    let endless = in_pieces(noise[..1500].to_vec());
    let a = f.send(Request::post("/api/v1/write").body(endless).unwrap()).await;
    assert!(matches!(a.status.as_u16(), 400 | 413), "{}", a.status);
    let mut block = compress(&noise[..1900]);
    assert!(block.len() > 1000);
    let a = f.send(Request::post("/api/v1/write").body(in_pieces(block.clone())).unwrap()).await;
    assert_eq!(a.status, StatusCode::PAYLOAD_TOO_LARGE);
    a.error("bad_data");
    // Small on the wire, too large decoded: 400 as upstream answers.
    block = compress(&vec![0u8; 2001]);
    let a = f.post(block).await;
    assert_eq!(a.status, StatusCode::BAD_REQUEST);
    assert!(a.error("bad_data").contains("declares 2001 decoded bytes, more than 2000"));
    // Two bytes for each empty sample: stopped long before they are unfolded.
    let mut bomb = vec![0x0a, 0xf4, 0x03];
    bomb.extend([0x12, 0x00].repeat(250));
    let a = f.post(compress(&bomb)).await;
    assert!(a.error("bad_data").contains("samples in so few bytes"), "{}", a.body);
}

#[tokio::test]
async fn answers_to_2_0_say_what_was_written_errors_included() {
    let f = fixture(Limits::default()).await;
    let sample = |timestamp| v2::Sample { value: 1.0, timestamp, start_timestamp: NOW_MS - 1000 };
    let histogram = messages::Histogram {
        count: Some(messages::Count::Int(3)),
        zero_count: Some(messages::ZeroCount::Int(1)),
        positive_spans: vec![messages::BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![1, 0],
        timestamp: NOW_MS,
        ..Default::default()
    };
    let good = v2::TimeSeries {
        labels_refs: vec![1, 2, 3, 4],
        samples: vec![sample(NOW_MS), sample(NOW_MS - 1)],
        exemplars: vec![v2::Exemplar { labels_refs: vec![3, 4], value: 1.0, timestamp: NOW_MS }],
        metadata: Some(v2::Metadata { r#type: 2, help_ref: 5, unit_ref: 0 }),
        ..Default::default()
    };
    let native = v2::TimeSeries {
        labels_refs: vec![1, 2, 3, 2],
        histograms: vec![histogram.clone()],
        ..Default::default()
    };
    let a = f.post_v2(v2_request(vec![good.clone(), native.clone()])).await;
    assert_eq!((a.status, a.written()), (StatusCode::NO_CONTENT, [2, 1, 1]), "{}", a.body);
    let broken = messages::Histogram { count: Some(messages::Count::Int(4)), ..histogram };
    let cases: Vec<(v2::TimeSeries, &str)> = vec![
        (
            v2::TimeSeries { labels_refs: vec![1, 2, 3], ..good.clone() },
            "3 label references, which do not make pairs",
        ),
        (
            v2::TimeSeries { labels_refs: vec![1, 2, 3, 6], ..good.clone() },
            "reference 6 is outside of the table of 6 symbols",
        ),
        (v2::TimeSeries { labels_refs: vec![3, 4], ..good.clone() }, "no metric name"),
        (v2::TimeSeries { labels_refs: vec![1, 2, 3, 4, 3, 2], ..good.clone() }, "\\\"job\\\" appears twice"),
        (v2::TimeSeries { labels_refs: vec![1, 2, 0, 4], ..good.clone() }, "has no name"),
        (
            v2::TimeSeries { labels_refs: vec![1, 2], ..Default::default() },
            "neither samples nor histograms nor exemplars",
        ),
        (v2::TimeSeries { samples: vec![sample(NOW_MS + 700_000)], ..good.clone() }, "11m40s in the future"),
        (
            v2::TimeSeries { histograms: vec![broken], ..native.clone() },
            "3 observations found in buckets, but the Count field is 4",
        ),
        (
            v2::TimeSeries {
                metadata: Some(v2::Metadata { r#type: 1, help_ref: 99, unit_ref: 0 }),
                ..good.clone()
            },
            "metadata: reference 99",
        ),
    ];
    for (bad, want) in cases {
        let a = f.post_v2(v2_request(vec![bad, good.clone()])).await;
        // The same exemplar again is no fault; a series whose labels are fine keeps its own even if its
        // samples are not.
        let exemplars = if want.contains("future") { 2 } else { 1 };
        assert_eq!((a.status, a.written()), (StatusCode::BAD_REQUEST, [2, 0, exemplars]), "{want}");
        assert!(a.body.contains(want), "{want}: {}", a.body);
        a.error("bad_data");
    }
    let a = f.post_v2(compress(b"\x2a\x7f")).await;
    assert_eq!((a.status, a.written()), (StatusCode::BAD_REQUEST, [0, 0, 0]));
    let metrics = f.metrics();
    assert!(
        metrics.contains("hearth_ingest_requests_total{protocol=\"remote_write_v2\",code=\"204\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains("hearth_ingest_samples_total{kind=\"histogram\"} 1"), "{metrics}");
}

#[tokio::test]
async fn exemplars_are_taken_and_what_is_wrong_with_them_is_told_as_upstream_tells_it() {
    let f = fixture(Limits::default()).await;
    let of = |exemplars| v2::TimeSeries { labels_refs: vec![1, 2, 3, 4], exemplars, ..Default::default() };
    let one = |labels_refs, value, timestamp| v2::Exemplar { labels_refs, value, timestamp };
    // Upstream's sender puts them into series without samples.
    let a = f
        .post_v2(v2_request(vec![of(vec![one(vec![3, 4], 1.0, NOW_MS), one(vec![], 2.0, NOW_MS + 1)])]))
        .await;
    assert_eq!((a.status, a.written()), (StatusCode::NO_CONTENT, [0, 0, 2]), "{}", a.body);
    let late = of(vec![one(vec![3, 4], 1.0, NOW_MS - 1), one(vec![3, 4], 3.0, NOW_MS + 2)]);
    let a = f.post_v2(v2_request(vec![late])).await;
    assert_eq!((a.status, a.written()), (StatusCode::BAD_REQUEST, [0, 0, 1]));
    assert!(a.error("bad_data").contains("out of order exemplar at"), "{}", a.body);
    let broken = [vec![3, 9], vec![3, 4, 3, 4], vec![3], vec![0, 4]];
    for (refs, want) in broken.into_iter().zip(["table of 6", "twice", "odd number", "without a name"]) {
        let a = f.post_v2(v2_request(vec![of(vec![one(refs, 1.0, NOW_MS + 9)])])).await;
        assert_eq!((a.status, a.written()), (StatusCode::BAD_REQUEST, [0, 0, 0]));
        assert!(a.error("bad_data").contains(want), "{want}: {}", a.body);
    }
    // Too long or too far ahead: upstream drops them without a word, which the specification forbids.
    let mut symbols = ["", "__name__", "up", "job", "a"].map(String::from).to_vec();
    symbols.push("ü".repeat(126));
    let long = of(vec![one(vec![3, 5], 1.0, NOW_MS + 9), one(vec![3, 4], 1.0, NOW_MS + 700_000)]);
    let a = f.post_v2(snappy(&v2::Request { symbols, timeseries: vec![long] })).await;
    assert_eq!((a.status, a.written()), (StatusCode::BAD_REQUEST, [0, 0, 0]), "{}", a.body);
    for want in
        ["more than 128 characters", "exemplar out of bounds", "1 × label_too_long", "1 × out_of_bounds"]
    {
        assert!(a.error("bad_data").contains(want), "{want}: {}", a.body);
    }
    // 1.0 has no way to tell without losing the rest of the request.
    let label = |name: &str, value: &str| v1::Label { name: name.into(), value: value.into() };
    let exemplars = [NOW_MS - 5, NOW_MS + 10].map(|timestamp| {
        let labels = vec![label("trace_id", "x"), label("empty", "")];
        v1::Exemplar { labels, value: 4.0, timestamp }
    });
    let mut up = series(&[("__name__", "up"), ("job", "a")], &[(NOW_MS, 1.0)]);
    up.exemplars = exemplars.to_vec();
    assert_eq!(f.post(request(vec![up])).await.status, StatusCode::NO_CONTENT);
    let db = f.db.clone();
    let stored = tokio::task::spawn_blocking(move || {
        db.exemplars(&TenantId::single(), &[vec![]], 0, i64::MAX, &Budget::unlimited()).unwrap()
    });
    let stored = stored.await.unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].labels.to_string(), r#"{__name__="up", job="a"}"#);
    let shown: Vec<_> = stored[0]
        .exemplars
        .iter()
        .map(|e| format!("{} {} {}", e.ts_ms - NOW_MS, e.value, e.labels))
        .collect();
    assert_eq!(shown, [r#"0 1 {job="a"}"#, "1 2 {}", r#"2 3 {job="a"}"#, r#"10 4 {trace_id="x"}"#]);
    let metrics = f.metrics();
    assert!(metrics.contains("hearth_ingest_exemplars_total 4"), "{metrics}");
    assert!(metrics.contains("hearth_ingest_exemplars_dropped_total 8"), "{metrics}");
}

#[tokio::test]
async fn request_sent_as_the_other_protocol_stores_nothing() {
    let f = fixture(Limits::default()).await;
    let one = request(vec![series(&[("__name__", "up")], &[(NOW_MS, 1.0)])]);
    let two = v2_request(vec![v2::TimeSeries { labels_refs: vec![1, 2], ..Default::default() }]);
    // The specification reserves the fields of each in the other, so that both read as empty.
    let a = f.post_v2(one).await;
    assert_eq!((a.status, a.written()), (StatusCode::NO_CONTENT, [0, 0, 0]));
    assert_eq!(f.post(two).await.status, StatusCode::NO_CONTENT);
    assert!(f.stored(&TenantId::single()).await.is_empty());
}

#[tokio::test]
async fn tenant_that_cannot_be_is_refused() {
    let f = fixture(Limits::default()).await;
    let r = Request::post("/api/v1/write").header("x-scope-orgid", "../other").body(Body::empty()).unwrap();
    let a = f.send(r).await;
    assert_eq!(a.status, StatusCode::BAD_REQUEST);
    assert!(a.error("bad_data").contains("is not a valid name"));
}

#[tokio::test]
async fn requests_that_hold_all_memory_turn_others_away_until_they_end() {
    let limits = Limits {
        max_body_bytes: 2048,
        max_decoded_bytes: 2048,
        max_in_flight_bytes: 0,
        max_wait: std::time::Duration::from_millis(20),
        ..Limits::default()
    };
    let f = fixture(limits).await;
    let small = request(vec![series(&[("__name__", "up")], &[(NOW_MS, 1.0)])]);
    let long = "x".repeat(1_800);
    let large = request(vec![series(&[("__name__", "up"), ("long", &long)], &[(NOW_MS, 1.0)])]);
    // Two clients that send almost 2 KiB each, and not the end: half of the 8 KiB that a request of the
    // largest kind may need.
    let noise: Vec<u8> = (0..1_900u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut waiting = Vec::new();
    for held in [2, 4] {
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let rest = futures::stream::once(async move {
            _ = released.await;
            Err::<Bytes, _>(std::io::Error::other("the client is gone"))
        });
        let start = futures::stream::iter([Ok(Bytes::from(compress(&noise)))]);
        let body = Body::from_stream(futures::StreamExt::chain(start, rest));
        let slow = Request::post("/api/v1/write").header("content-length", "2048").body(body).unwrap();
        waiting.push((release, tokio::spawn(f.router.clone().oneshot(slow))));
        while !f.metrics().contains(&format!("hearth_ingest_in_flight_bytes {}\n", held * 1024)) {
            tokio::task::yield_now().await;
        }
    }
    let a = f.post(large.clone()).await;
    assert_eq!(a.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(a.headers["retry-after"], "5");
    assert!(a.error("unavailable").contains("ingest.max_in_flight_bytes"));
    assert_eq!(f.post(small).await.status, StatusCode::NO_CONTENT, "what they announced they do not hold");
    for (release, slow) in waiting {
        release.send(()).unwrap();
        assert_eq!(slow.await.unwrap().unwrap().status(), StatusCode::BAD_REQUEST, "a body that breaks off");
    }
    assert_eq!(f.post(large).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn body_that_does_not_come_is_given_up() {
    let f =
        fixture(Limits { max_body_time: std::time::Duration::from_millis(20), ..Limits::default() }).await;
    let never = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let a = f.send(Request::post("/api/v1/write").body(never).unwrap()).await;
    assert_eq!(a.status, StatusCode::SERVICE_UNAVAILABLE, "senders retry it");
    assert_eq!(a.headers["connection"], "close");
    assert!(a.error("unavailable").contains("did not arrive within 0.02 s"));
}

#[tokio::test]
async fn large_bodies_take_the_other_way_to_the_same_end() {
    let f = fixture(Limits::default()).await;
    let many: Vec<_> = (0..5000)
        .map(|i| {
            series(&[("__name__", "wide"), ("instance", &format!("host-{i}"))], &[(NOW_MS, f64::from(i))])
        })
        .collect();
    assert_eq!(f.post(request(many)).await.status, StatusCode::NO_CONTENT);
    assert_eq!(f.stored(&TenantId::single()).await.len(), 5000);
    // Garbage at the end of it: nothing is stored, not even what came before.
    let mut bad = prost::Message::encode_to_vec(&v1::WriteRequest {
        timeseries: vec![series(&[("__name__", "new")], &[(NOW_MS, 1.0)]); 5000],
        metadata: vec![],
    });
    bad.extend([0x0a, 0x7f, 0x00]);
    let a = f.post(compress(&bad)).await;
    assert!(
        a.error("bad_data").contains(&format!("malformed protobuf at byte {}", bad.len() - 2)),
        "{}",
        a.body
    );
    assert_eq!(f.stored(&TenantId::single()).await.len(), 5000);
}

#[tokio::test]
async fn store_that_takes_no_writes_is_a_503_that_says_why() {
    let f = fixture(Limits::default()).await;
    let good = || vec![series(&[("__name__", "up")], &[(NOW_MS, 1.0)])];
    assert_eq!(f.post(request(good())).await.status, StatusCode::NO_CONTENT);
    f.db.close(false).await.unwrap();
    let a = f.post(request(good())).await;
    assert_eq!(
        (a.status, &a.headers["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"5".parse().unwrap())
    );
    assert!(a.error("unavailable").contains("stopping"), "{}", a.body);
    let sample = v2::Sample { value: 1.0, timestamp: NOW_MS, start_timestamp: 0 };
    let one = v2::TimeSeries { labels_refs: vec![1, 2], samples: vec![sample], ..Default::default() };
    let a = f.post_v2(v2_request(vec![one])).await;
    assert_eq!((a.status, a.written()), (StatusCode::SERVICE_UNAVAILABLE, [0, 0, 0]));
}

#[tokio::test]
async fn refused_body_is_read_off_so_that_the_answer_arrives() {
    let f = fixture(Limits::default()).await;
    let read = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = read.clone();
    let endless = futures::stream::repeat_with(move || {
        count.fetch_add(1000, std::sync::atomic::Ordering::Relaxed);
        Ok::<_, std::io::Error>(Bytes::from(vec![0xffu8; 1000]))
    });
    let r = Request::post("/api/v1/write")
        .header("content-type", "text/plain")
        .body(Body::from_stream(endless))
        .unwrap();
    assert_eq!(f.send(r).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let read = read.load(std::sync::atomic::Ordering::Relaxed);
    assert!(
        (64 << 20..65 << 20).contains(&read),
        "all that a sender means well with, and not for ever: {read}"
    );
}

/// A body without an announced length, in small pieces.
fn in_pieces(bytes: Vec<u8>) -> Body {
    let pieces: Vec<_> =
        bytes.chunks(7).map(|c| Ok::<_, std::io::Error>(Bytes::copy_from_slice(c))).collect();
    Body::from_stream(futures::stream::iter(pieces))
}

#[tokio::test]
async fn overload_of_the_head_is_a_503_to_every_sender_because_most_drop_on_429() {
    let f = fixture_with(Limits::default(), |options| options.max_head_bytes = Some(0)).await;
    let body = request(vec![series(&[("__name__", "up")], &[(NOW_MS, 1.0)])]);
    let answer = f.post(body.clone()).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers["retry-after"], "5");
    assert!(answer.error("unavailable").contains("head.max_memory_bytes"));
    for agent in ["Prometheus/3.14.0", "vmagent/1", "Grafana Alloy", "OpenTelemetry Collector"] {
        let request = Request::post("/api/v1/write")
            .header("content-encoding", "snappy")
            .header("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
            .header("user-agent", agent);
        let answer = f.send(request.body(Body::from(body.clone())).unwrap()).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{agent}");
        assert_eq!(answer.headers["retry-after"], "5");
        assert_eq!(answer.headers["x-prometheus-remote-write-samples-written"], "0");
    }
    assert!(f.stored(&TenantId::single()).await.is_empty());
}

/// A 2.0 request whose series share long symbols: a few bytes for each, and kilobytes when their labels are
/// spelled out.
fn unfolding(series: usize, value_bytes: usize) -> Vec<u8> {
    let mut symbols = vec![String::new(), "__name__".into(), "m".into(), "id".into()];
    let long = symbols.len() as u32;
    for i in 0..3 {
        symbols.extend([format!("l{i}"), "v".repeat(value_bytes)]);
    }
    let first_id = symbols.len() as u32;
    symbols.extend((0..series).map(|i| i.to_string()));
    let timeseries = (0..series as u32).map(|i| v2::TimeSeries {
        labels_refs: vec![1, 2, 3, first_id + i, long, long + 1, long + 2, long + 3, long + 4, long + 5],
        samples: vec![v2::Sample { value: 1.0, timestamp: NOW_MS, ..Default::default() }],
        ..Default::default()
    });
    snappy(&v2::Request { symbols, timeseries: timeseries.collect() })
}

#[tokio::test]
async fn memory_of_labels_that_references_unfold_to_is_reserved() {
    // 64 MiB for all: what is decoded takes less than one, its labels 120.
    let limits = Limits {
        max_body_bytes: 4 << 20,
        max_decoded_bytes: 8 << 20,
        max_in_flight_bytes: 64 << 20,
        max_wait: Duration::from_millis(10),
        ..Limits::default()
    };
    let f = fixture(limits).await;
    let answer = f.post_v2(unfolding(5_000, 8_000)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", answer.body);
    assert!(answer.error("bad_data").contains("ingest.max_in_flight_bytes"), "{}", answer.body);
    assert_eq!(answer.written(), [0, 0, 0]);
    assert!(f.stored(&TenantId::single()).await.is_empty());
    // What was held is given back, and what fits is taken, also when it comes again and its series are known.
    for _ in 0..2 {
        let answer = f.post_v2(unfolding(500, 8_000)).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.body);
    }
    let metrics = f.metrics();
    assert!(metrics.contains("hearth_ingest_in_flight_bytes 0"), "all memory was given back: {metrics}");
}

#[tokio::test]
async fn memory_of_metadata_and_histograms_is_reserved() {
    let limits = Limits {
        max_body_bytes: 4 << 20,
        max_decoded_bytes: 8 << 20,
        max_in_flight_bytes: 64 << 20,
        max_wait: Duration::from_millis(10),
        ..Limits::default()
    };
    let f = fixture(limits).await;
    // One help text of 4 KiB, referred to by the metadata of 20,000 metrics.
    let series = 20_000;
    let mut symbols = vec![String::new(), "__name__".into(), "h".repeat(4096)];
    symbols.extend((0..series).map(|i| format!("m{i}")));
    let timeseries = (0..series as u32).map(|i| v2::TimeSeries {
        labels_refs: vec![1, 3 + i],
        samples: vec![v2::Sample { value: 1.0, timestamp: NOW_MS, ..Default::default() }],
        metadata: Some(v2::Metadata { r#type: 1, help_ref: 2, unit_ref: 0 }),
        ..Default::default()
    });
    let body = snappy(&v2::Request { symbols, timeseries: timeseries.collect() });
    let answer = f.post_v2(body).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", answer.body);
    // Deltas of one byte are counts of eight.
    let histogram = || messages::Histogram {
        count: Some(messages::Count::Int(0)),
        zero_count: Some(messages::ZeroCount::Int(0)),
        positive_spans: vec![messages::BucketSpan { offset: 0, length: 10_000 }],
        positive_deltas: vec![0; 10_000],
        timestamp: NOW_MS,
        ..Default::default()
    };
    let one = |i: usize| {
        let histograms = vec![histogram()];
        let labels = series_labels(&[("__name__", "h"), ("id", &i.to_string())]);
        v1::TimeSeries { labels, histograms, ..Default::default() }
    };
    let answer = f.post(request((0..700).map(one).collect())).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", answer.body);
    assert!(f.metrics().contains("hearth_ingest_in_flight_bytes 0"));
    assert!(f.stored(&TenantId::single()).await.is_empty());
}

fn series_labels(pairs: &[(&str, &str)]) -> Vec<v1::Label> {
    series(pairs, &[]).labels
}
