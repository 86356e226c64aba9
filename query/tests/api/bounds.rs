//! Errors of the storage, clients that leave, waits, hostile requests and large answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt;
use model::labels::Labels;
use model::source::SourceError;
use model::source::memory::MemorySource;
use serde_json::json;
use tower::ServiceExt;

use super::frame::{Broken, Endless, api_of, sample_data};

#[tokio::test]
async fn storage_errors_get_upstreams_types() {
    for (error, status, kind) in [
        (SourceError::Canceled, 499, "canceled"),
        (SourceError::TimedOut, 503, "timeout"),
        (SourceError::Limit("too many samples".into()), 422, "execution"),
        (SourceError::storage("disk on fire"), 500, "internal"),
    ] {
        let api = api_of(Arc::new(Broken(error)), |_| {});
        for (endpoint, form) in [
            ("query", "query=up"),
            ("query_range", "query=up&start=0&end=1&step=1"),
            ("series", "match[]=up"),
            ("labels", ""),
        ] {
            let (got, got_kind, text) = api.error(endpoint, form).await;
            assert_eq!((got, got_kind.as_str()), (status, kind), "{endpoint}: {text}");
            assert!(!text.is_empty());
        }
        assert_eq!(api.get("label/a/values").await.status.as_u16(), status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_leaves_cancels_its_query() {
    for uri in ["/api/v1/query?query=up", "/api/v1/labels"] {
        let (tell, told) = std::sync::mpsc::sync_channel(8);
        let api = api_of(Arc::new(Endless(tell)), |_| {});
        let asked = tokio::spawn(api.router.clone().oneshot(Request::get(uri).body(Body::empty()).unwrap()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        asked.abort();
        let why =
            tokio::task::spawn_blocking(move || told.recv_timeout(Duration::from_secs(10))).await.unwrap();
        assert!(matches!(why, Ok(SourceError::Canceled)), "{why:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_wait_counts_towards_the_timeout() {
    let (tell, _told) = std::sync::mpsc::sync_channel(8);
    let api = api_of(Arc::new(Endless(tell)), |c| c.limits.max_concurrency = 1);
    let first = tokio::spawn(
        api.router.clone().oneshot(Request::get("/api/v1/query?query=up").body(Body::empty()).unwrap()),
    );
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        api.error("query", "query=up&timeout=50ms").await,
        (503, "timeout".into(), "query timed out in query queue".into())
    );
    // Lookups have places of their own.
    assert_eq!(api.get("metadata").await.status, 200);
    first.abort();
    let (status, kind, _) = api.error("query", "query=up&timeout=100ms").await;
    assert_eq!((status, kind.as_str()), (503, "timeout"));
}

#[tokio::test]
async fn hostile_requests_are_refused_at_once() {
    let api = api_of(Arc::new(sample_data()), |c| c.limits.max_body_bytes = 1 << 20);
    let begun = Instant::now();
    let large = api.post("query", &format!("query={}", "a".repeat(2 << 20))).await;
    assert_eq!(large.status, 413);
    assert_eq!(large.json()["errorType"], "bad_data");
    let long = api.post("query", &format!("query={}", "a".repeat(65 << 10))).await;
    assert_eq!(
        (long.status.as_u16(), &long.json()["error"]),
        (400, &json!("invalid parameter \"query\": the query is 66560 bytes long, the limit is 65536"))
    );
    for query in [
        "(".repeat(10_000),
        "1%2B".repeat(20_000),
        "-".repeat(50_000),
        "sum(".repeat(9_000),
        "{".repeat(60_000),
    ] {
        let answer = api.post("query", &format!("query={query}")).await;
        assert_eq!(answer.status, 400, "{}", &query[..8]);
        assert_eq!(answer.json()["errorType"], "bad_data");
    }
    let answer = api.get("query?query=count_over_time(up[100y:1ms])").await;
    assert!([400, 422].contains(&answer.status.as_u16()), "{}", answer.text);
    assert_eq!(api.get("query?query=%ff").await.status, 400);
    assert!(begun.elapsed() < Duration::from_secs(20), "these are refused without work");
}

#[tokio::test]
async fn match_lists_share_one_budget_of_regular_expressions() {
    let api = api_of(Arc::new(sample_data()), |_| {});
    let large: String = (0..6_000).map(|i| format!("&match[]={{a=~\"%5C%5CpL{{30}}x{i}\"}}")).collect();
    for endpoint in ["series", "labels"] {
        let answer = api.post(endpoint, &large[1..]).await;
        assert_eq!(answer.status, 400, "{endpoint}: {}", answer.text);
        assert!(answer.text.contains("take too much memory together"), "{}", answer.text);
    }
    let answer = api.get(&format!("label/a/values?{}", &large[1..20_000].rsplit_once('&').unwrap().0)).await;
    assert!(answer.text.contains("take too much memory together"), "{}", answer.text);
    let small: String = (0..300).map(|i| format!("&match[]={{job=~\"a{i}|b[0-9]%2B\"}}")).collect();
    assert_eq!(api.post("series", &small[1..]).await.status, 200);
    for endpoint in ["format_query", "parse_query", "query_exemplars", "query"] {
        let query = format!("query=x{{a=~\"{}\"}}", "%5C%5CpL{30}|".repeat(200));
        let answer = api.post(endpoint, &query).await;
        assert_eq!(answer.status, 400, "{endpoint}: {}", answer.text);
    }
}

#[tokio::test]
async fn large_answers_are_streamed_and_whole() {
    let source = MemorySource::new();
    for i in 0..300 {
        let labels = Labels::from_pairs([("__name__", "wide".to_string()), ("i", format!("{i:04}"))]);
        for step in 0..100i64 {
            source.append_float(&labels, step * 15_000, (i * 1000) as f64 + step as f64 / 8.0);
        }
    }
    let api = api_of(Arc::new(source), |_| {});
    let answer = api.both("query_range", "query=wide&start=0&end=1485&step=15").await;
    assert!(answer.text.len() > 500_000);
    assert!(answer.headers.get(header::CONTENT_LENGTH).is_none(), "several pieces have no length in advance");
    // The same through the layer that the server puts around it, which polls a body once more after its end.
    let layered =
        api.router.clone().layer(tower_http::compression::CompressionLayer::new().gzip(true).zstd(true));
    for encoding in ["gzip", "zstd"] {
        let request = Request::get("/api/v1/query_range?query=wide&start=0&end=1485&step=15")
            .header(header::ACCEPT_ENCODING, encoding)
            .body(Body::empty());
        let response = layered.clone().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_ENCODING], encoding);
        let packed = response.into_body().collect().await.unwrap().to_bytes();
        assert!(packed.len() > 1000 && packed.len() < answer.text.len() / 2, "{encoding}: {}", packed.len());
        if encoding == "zstd" {
            assert!(zstd::decode_all(&packed[..]).unwrap() == answer.text.as_bytes());
        }
    }
    let json = answer.json();
    let result = json["data"]["result"].as_array().unwrap();
    assert_eq!(result.len(), 300);
    for (i, series) in result.iter().enumerate() {
        let values = series["values"].as_array().unwrap();
        assert_eq!(values.len(), 100);
        assert_eq!(values[3], json!([45, format!("{}", (i * 1000) as f64 + 3.0 / 8.0)]));
    }
}

#[tokio::test]
async fn unread_answers_and_forms_count_as_memory_of_queries() {
    let source = MemorySource::new();
    for i in 0..5_000 {
        let name = format!("a-label-value-that-takes-some-room-{i:05}");
        source.append_float(&Labels::from_pairs([("__name__", "up"), ("pod", &name)]), 1_000, 1.0);
    }
    // A long answer takes 2 MiB beside itself while it is sent: what compresses it, and what waits to be
    // written.
    let api = api_of(Arc::new(source), |c| c.engine.max_total_memory_bytes = 11 << 20);
    for path in ["series?match[]=up", "label/pod/values", "query_range?query=up&start=0&end=9&step=1"] {
        let ask = || api.send(Request::get(format!("/api/v1/{path}")).body(Body::empty()).unwrap());
        assert_eq!(ask().await.status, 200, "{path}");
        // Answers whose bodies nobody reads.
        let mut unread = Vec::new();
        let refused = loop {
            let request = Request::get(format!("/api/v1/{path}")).body(Body::empty()).unwrap();
            let response = api.router.clone().oneshot(request).await.unwrap();
            if response.status() != 200 || unread.len() > 20 {
                break response.status();
            }
            unread.push(response);
        };
        assert_eq!(refused, 422, "{path}: {} answers lie unread", unread.len());
        assert!((2..=5).contains(&unread.len()), "{path}: {} answers lie unread", unread.len());
        drop(unread);
        assert_eq!(ask().await.status, 200, "{path}: what they held is free again");
    }
    let nothing = Arc::new(MemorySource::new());
    let api = api_of(nothing, |c| c.engine.max_total_memory_bytes = 1 << 20);
    let large = api.post("query", &format!("query=1&x={}", "a".repeat(600 << 10))).await;
    assert_eq!((large.status.as_u16(), &large.json()["errorType"]), (503, &json!("unavailable")));
    let many = api.post("query", &format!("query=1{}", "&a".repeat(20_000))).await;
    assert_eq!(many.status, 503, "{}", many.text);
    assert_eq!(api.post("query", "query=1").await.status, 200);
}
