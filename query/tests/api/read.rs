//! Remote read: both answers, taken apart by hand, and requests that make no sense.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt;
use model::labels::Labels;
use model::source::memory::MemorySource;
use model::source::{LabelQuery, Selection, SeriesColumns, SeriesCursor, Source, SourceError};
use tower::ServiceExt;

use super::frame::{Api, api, api_of};

/// A field that holds bytes; all numbers here are below 16.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut n = bytes.len();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out.extend_from_slice(bytes);
    out
}

fn varint(number: u8, mut v: u64) -> Vec<u8> {
    let mut out = vec![number << 3];
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
    out
}

fn query(start_ms: i64, end_ms: i64, matchers: &[(u64, &str, &str)]) -> Vec<u8> {
    let mut out = [varint(1, start_ms as u64), varint(2, end_ms as u64)].concat();
    for (kind, name, value) in matchers {
        let matcher = [varint(1, *kind), field(2, name.as_bytes()), field(3, value.as_bytes())].concat();
        out.extend(field(3, &matcher));
    }
    field(1, &out)
}

async fn ask(api: &Api, message: &[u8]) -> (u16, String, Vec<u8>) {
    let body = snap::raw::Encoder::new().compress_vec(message).unwrap();
    send(api, body).await
}

async fn send(api: &Api, body: Vec<u8>) -> (u16, String, Vec<u8>) {
    let request = Request::post("/api/v1/read").body(Body::from(body)).unwrap();
    let response = api.router.clone().oneshot(request).await.unwrap();
    let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let status = response.status().as_u16();
    (status, kind, response.into_body().collect().await.unwrap().to_bytes().into())
}

#[tokio::test]
async fn read_answers_samples_packed_and_in_the_order_of_the_queries() {
    let api = api();
    let request = [
        query(15_000, 30_000, &[(0, "__name__", "up"), (0, "instance", "b:9100")]),
        query(0, 60_000, &[(0, "__name__", "nothing")]),
        query(60_000, 60_000, &[(0, "__name__", "up"), (2, "instance", "a:.*")]),
    ]
    .concat();
    let (status, kind, body) = ask(&api, &request).await;
    assert_eq!((status, kind.as_str()), (200, "application/x-protobuf"));
    let message = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    let labels = |instance: &str| {
        [("__name__", "up"), ("instance", instance), ("job", "node")]
            .map(|(n, v)| field(1, &[field(1, n.as_bytes()), field(2, v.as_bytes())].concat()))
            .concat()
    };
    let sample = |ts_ms: u64| {
        let mut one = vec![1 << 3 | 1];
        one.extend(1f64.to_le_bytes());
        field(2, &[one, varint(2, ts_ms)].concat())
    };
    let want = [
        field(1, &field(1, &[labels("b:9100"), sample(15_000), sample(30_000)].concat())),
        field(1, &[]),
        field(1, &field(1, &[labels("a:9100"), sample(60_000)].concat())),
    ]
    .concat();
    assert_eq!(message, want);
}

/// The messages of an answer of frames, whose checksums the tests of the checksum vouch for.
fn frames(mut body: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while !body.is_empty() {
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let b = body[0];
            body = &body[1..];
            length |= usize::from(b & 0x7f) << shift;
            shift += 7;
            if b < 0x80 {
                break;
            }
        }
        let (frame, rest) = body[4..].split_at(length);
        out.push(frame.to_vec());
        body = rest;
    }
    out
}

#[tokio::test]
async fn read_answers_chunks_in_frames_of_one_series_sorted_by_all_labels() {
    let source = MemorySource::new();
    // By name first this one is the last, by all labels the first.
    let odd = Labels::from_pairs([("A", "x"), ("__name__", "z")]);
    for ts_ms in 0..300 {
        for labels in
            [&odd, &Labels::from_pairs([("__name__", "a")]), &Labels::from_pairs([("__name__", "b")])]
        {
            source.append_float(labels, ts_ms * 1000, ts_ms as f64);
        }
    }
    let api = api_of(Arc::new(source), |_| {});
    let request =
        [query(0, 250_000, &[(2, "__name__", ".+")]), varint(2, 9), varint(2, 1), varint(2, 0)].concat();
    let (status, kind, body) = ask(&api, &request).await;
    assert_eq!(
        (status, kind.as_str()),
        (200, "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
    );
    let frames = frames(&body);
    assert_eq!(frames.len(), 3);
    let at = |frame: &[u8], text: &[u8]| frame.windows(text.len()).any(|w| w == text);
    let order: Vec<bool> = frames.iter().map(|f| at(f, b"\x0a\x01A\x12\x01x")).collect();
    assert_eq!(order, [true, false, false]);
    assert!(at(&frames[1], b"__name__\x12\x01a") && at(&frames[2], b"__name__\x12\x01b"));
    // Chunks of 120 samples, the last up to the end that was asked for.
    for frame in &frames {
        for max in [119_000u64, 239_000, 250_000] {
            assert!(at(frame, &varint(2, max)), "{max}");
        }
    }
    let nothing = [query(0, 1, &[(0, "__name__", "nothing")]), varint(2, 1)].concat();
    assert_eq!(ask(&api, &nothing).await, (200, kind, vec![]));
}

#[tokio::test]
async fn read_of_a_long_series_is_several_frames_of_about_a_mebibyte() {
    let source = MemorySource::new();
    let labels = Labels::from_pairs([("__name__", "long")]);
    let mut value = 1u64;
    for ts_ms in 0..150_000 {
        // Nothing that compresses.
        value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        source.append_float(&labels, ts_ms, (value >> 11) as f64);
    }
    let api = api_of(Arc::new(source), |_| {});
    let request = [query(0, 200_000, &[(0, "__name__", "long")]), varint(2, 1)].concat();
    let (status, _, body) = ask(&api, &request).await;
    assert_eq!(status, 200);
    let frames = frames(&body);
    assert_eq!(frames.len(), 2, "{:?}", frames.iter().map(Vec::len).collect::<Vec<_>>());
    assert!((1 << 20..(1 << 20) + 4_000).contains(&frames[0].len()), "{}", frames[0].len());
    // Both name the series.
    assert!(frames.iter().all(|f| f.windows(4).any(|w| w == b"long")));
}

/// A source that fails after its first series.
struct Failing;

struct FailingCursor(bool);

impl SeriesCursor for FailingCursor {
    fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
        if std::mem::replace(&mut self.0, true) {
            return Err(SourceError::Storage(Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(
                "the disk is gone",
            ))));
        }
        let series = |name: &str| SeriesColumns {
            labels: Labels::from_pairs([("__name__", "m"), ("a", name)]),
            ts_ms: Arc::from([1, 2]),
            values: vec![1.0, 2.0],
            histograms: None,
            start_ts_ms: None,
            windows: None,
        };
        Ok(Some(vec![series("x"), series("y"), series("z")]))
    }
}

impl Source for Failing {
    fn select(&self, _: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        Ok(Box::new(FailingCursor(false)))
    }

    fn series(&self, _: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn read_that_fails_in_the_middle_is_broken_off_and_never_looks_whole() {
    let api = api_of(Arc::new(Failing), |_| {});
    let of = |kind| [query(0, 10, &[(0, "__name__", "m")]), varint(2, kind)].concat();
    let body = snap::raw::Encoder::new().compress_vec(&of(1)).unwrap();
    let request = Request::post("/api/v1/read").body(Body::from(body)).unwrap();
    let response = api.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200, "the first frame was on its way");
    assert!(response.into_body().collect().await.is_err(), "the connection ends in an error");
    // Whole samples are sent when all of them are there.
    let (status, _, text) = ask(&api, &of(0)).await;
    assert_eq!((status, text.as_slice()), (500, &b"the disk is gone\n"[..]));
}

#[tokio::test]
async fn read_of_nonsense_is_a_plain_400() {
    let api = api();
    for (message, why) in [
        ([query(0, 1, &[]), varint(2, 7)].concat(), "response types"),
        (query(0, 1, &[(9, "a", "b")]), "matcher type"),
        (query(0, 1, &[(2, "a", "*")]), "matcher on a"),
        (vec![0xff; 9], "protobuf"),
    ] {
        let (status, kind, body) = ask(&api, &message).await;
        let text = String::from_utf8(body).unwrap();
        assert_eq!((status, kind.as_str()), (400, "text/plain; charset=utf-8"), "{text}");
        assert!(text.contains(why), "{text}");
    }
    // Not snappy; snappy of a length that nobody has.
    for body in [b"hello".to_vec(), vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0], Vec::new()] {
        let (status, _, body) = send(&api, body).await;
        assert_eq!(status, 400, "{}", String::from_utf8_lossy(&body));
    }
    let small = api_of(Arc::new(super::frame::sample_data()), |c| c.engine.max_memory_bytes = 20_000);
    let (status, _, body) = ask(&small, &query(0, 1_000_000, &[(2, "__name__", ".+")])).await;
    assert_eq!(status, 422, "{}", String::from_utf8_lossy(&body));
}
