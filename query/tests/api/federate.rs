//! `/federate`: text and protobuf, what is left out, and what is added.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt;
use model::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, Histogram};
use model::labels::Labels;
use model::sample::stale_nan;
use model::source::memory::MemorySource;
use tower::ServiceExt;

use super::frame::{Answer, Api, api_of, sample_data};

async fn federate(api: &Api, query: &str, accept: &str) -> Answer {
    let query: String = query
        .chars()
        .map(|c| if " \"<>{}^".contains(c) { format!("%{:02X}", c as u32) } else { c.to_string() })
        .collect();
    let request = Request::get(format!("/federate?{query}")).header(header::ACCEPT, accept);
    api.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn federate_shows_the_newest_sample_of_each_series_once() {
    let api = api_of(Arc::new(sample_data()), |c| {
        c.external_labels = vec![("cluster".into(), "eu".into()), ("job".into(), "never".into())];
    });
    let answer =
        federate(&api, "match[]=up&match[]={__name__=~\"up|http.*\",code!=\"500\",code!=\"404\"}", "*/*")
            .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(
        answer.headers[header::CONTENT_TYPE],
        "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
    );
    let want = "# TYPE http_requests_total untyped
http_requests_total{code=\"200\",http_path=\"/<x>\",instance=\"a:9100\",cluster=\"eu\",job=\"never\"} 60 600000
http_requests_total{code=\"200\",http_path=\"/<x>\",instance=\"b:9100\",cluster=\"eu\",job=\"never\"} 60 600000
# TYPE up untyped
up{instance=\"a:9100\",job=\"node\",cluster=\"eu\"} 1 600000
up{instance=\"b:9100\",job=\"node\",cluster=\"eu\"} 1 600000
";
    assert_eq!(answer.text, want);
    let quoted = federate(
        &api,
        "match[]=http_requests_total{code=\"200\",instance=\"a:9100\"}",
        "text/plain;version=0.0.4;escaping=allow-utf-8",
    )
    .await;
    assert!(quoted.text.contains("{code=\"200\",\"http.path\"=\"/<x>\","), "{}", quoted.text);
    // No selector, no series; a bad one is a plain error.
    assert_eq!(federate(&api, "", "*/*").await.text, "");
    let bad = federate(&api, "match[]=up{", "*/*").await;
    assert_eq!(
        (bad.status.as_u16(), &bad.headers[header::CONTENT_TYPE]),
        (400, &"text/plain; charset=utf-8".parse().unwrap())
    );
    assert!(!bad.text.starts_with('{') && bad.text.ends_with('\n'), "{}", bad.text);
    assert_eq!(federate(&api, "match[]=up;x", "*/*").await.status, 400);
    api.storage.readiness.store(1, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(federate(&api, "match[]=up", "*/*").await.status, 503);
}

#[tokio::test]
async fn federate_leaves_out_what_has_ended_or_is_too_old() {
    let source = MemorySource::new();
    let named = |name: &str| Labels::from_pairs([("__name__", name), ("a", "b\\\"\n")]);
    for (name, ts_ms, value) in [
        ("alive", 590_000, 0.1),
        ("ended", 590_000, 1.0),
        ("ended", 595_000, stale_nan()),
        ("old", 600_000 - 300_001, 1.0),
        ("future", 600_001, 1.0),
        ("huge", 600_000, 1.5e300),
        ("none", 600_000, f64::NAN),
        ("minus", 600_000, f64::NEG_INFINITY),
    ] {
        source.append_float(&named(name), ts_ms, value);
    }
    source.append_float(&Labels::from_pairs([("nameless", "x")]), 600_000, 1.0);
    let api = api_of(Arc::new(source), |_| {});
    let text = federate(&api, "match[]={__name__=~\".*\"}", "*/*").await.text;
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(
        lines,
        [
            r#"alive{a="b\\\"\n",instance=""} 0.1 590000"#,
            r#"huge{a="b\\\"\n",instance=""} 1.5e+300 600000"#,
            r#"minus{a="b\\\"\n",instance=""} -Inf 600000"#,
            r#"none{a="b\\\"\n",instance=""} NaN 600000"#,
        ]
    );
}

#[tokio::test]
async fn federate_has_native_histograms_in_protobuf_and_custom_buckets_everywhere() {
    let source = MemorySource::new();
    let exponential = Histogram {
        count: 3.0,
        sum: 4.5,
        zero_threshold: 0.001,
        positive_spans: vec![BucketSpan { offset: -1, length: 2 }],
        positive_buckets: vec![1.0, 2.0],
        ..Histogram::default()
    };
    let custom = Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        custom_values: Some(vec![0.5, 1.0].into()),
        positive_spans: vec![BucketSpan { offset: 0, length: 3 }],
        positive_buckets: vec![1.0, 0.0, 2.0],
        zero_threshold: 0.0,
        ..exponential.clone()
    };
    source.append_histogram(&Labels::from_pairs([("__name__", "native")]), 600_000, exponential);
    source.append_histogram(&Labels::from_pairs([("__name__", "custom")]), 600_000, custom);
    let api = api_of(Arc::new(source), |_| {});
    let text = federate(&api, "match[]={__name__=~\".*\"}", "text/plain").await.text;
    let want = "# TYPE custom histogram
custom_bucket{instance=\"\",le=\"0.5\"} 1 600000
custom_bucket{instance=\"\",le=\"1\"} 1 600000
custom_bucket{instance=\"\",le=\"+Inf\"} 3 600000
custom_sum{instance=\"\"} 4.5 600000
custom_count{instance=\"\"} 3 600000
";
    assert_eq!(text, want);
    let accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    let request = Request::get("/federate?match[]=native").header(header::ACCEPT, accept);
    let response = api.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    assert!(kind.starts_with("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily"));
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(usize::from(bytes[0]), bytes.len() - 1, "one family behind its length: {bytes:?}");
    assert_eq!(&bytes[1..9], b"\x0a\x06native");
}

#[tokio::test]
async fn federate_of_many_series_comes_whole() {
    let source = MemorySource::new();
    for i in 0..3000 {
        source.append_float(
            &Labels::from_pairs([("__name__", "m"), ("i", &format!("{i:05}"))]),
            600_000,
            f64::from(i),
        );
    }
    let api = api_of(Arc::new(source), |_| {});
    let text = federate(&api, "match[]=m", "*/*").await.text;
    assert_eq!(text.lines().count(), 3001, "one TYPE line and every series");
    assert!(text.ends_with("m{i=\"02999\",instance=\"\"} 2999 600000\n"));
    let limited = api_of(Arc::new(sample_data()), |c| c.engine.max_memory_bytes = 400);
    let refused = federate(&limited, "match[]={__name__!=\"\"}", "*/*").await;
    assert_eq!(refused.status, 422, "{}", refused.text);
}
