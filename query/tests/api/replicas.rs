//! `dedup` and `replicaLabels[]` on every endpoint that shows series.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use model::labels::Labels;
use model::source::Source;
use model::source::dedup::DedupMode;
use model::source::memory::MemorySource;
use model::tenant::TenantId;
use prometheus_client::registry::Registry;
use query::api::{ApiConfig, ApiState, Metrics, Replicas, Storage, router};
use serde_json::{Value, json};

use super::frame::answer_of;

struct Memory(Arc<MemorySource>);

impl Storage for Memory {
    fn source(&self, _: &TenantId) -> Arc<dyn Source> {
        self.0.clone()
    }
}

/// A counter of one a second, scraped every 15 s by two replicas in two zones; replica `a` misses 10 minutes
/// of it from 1 h on.
fn app(replicas: Replicas) -> Router {
    let source = MemorySource::new();
    for (replica, phase) in [("a", 0), ("b", 6_000)] {
        let labels = Labels::from_pairs([
            ("__name__", "x_total"),
            ("job", "j"),
            ("replica", replica),
            ("zone", replica),
        ]);
        for t in (0..7_200_000).step_by(15_000).map(|t| t + phase) {
            if replica == "b" || !(3_600_000..4_200_000).contains(&t) {
                source.append_float(&labels, t, (t / 1000) as f64);
            }
        }
    }
    let metrics = Metrics::new(&mut Registry::default());
    router(ApiState::new(ApiConfig {
        replicas,
        ..ApiConfig::new(Arc::new(Memory(Arc::new(source))), metrics)
    }))
}

async fn get(app: &Router, path: &str) -> (StatusCode, Value) {
    let request = Request::get(format!("/api/v1/{path}")).body(Body::empty()).unwrap();
    let answer = answer_of(app, request).await;
    (answer.status, answer.json())
}

async fn data(app: &Router, path: &str) -> Value {
    let (status, mut answer) = get(app, path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {answer}");
    answer["data"].take()
}

const BOTH: &str = "replicaLabels[]=replica&replicaLabels[]=zone";

#[tokio::test]
async fn request_chooses_labels_and_whether_replicas_are_one() {
    let app = app(Replicas::default());
    let of = |data: Value| {
        data["result"].as_array().unwrap().iter().map(|s| s["metric"].clone()).collect::<Vec<_>>()
    };
    let query = "query?query=x_total&time=3000";
    assert_eq!(of(data(&app, query).await).len(), 2, "no labels are set: as it is stored");
    assert_eq!(
        of(data(&app, &format!("{query}&{BOTH}")).await),
        [json!({"__name__": "x_total", "job": "j"})]
    );
    assert_eq!(of(data(&app, &format!("{query}&{BOTH}&dedup=false")).await).len(), 2);
    // One label is not enough: the zones tell them apart.
    assert_eq!(of(data(&app, &format!("{query}&replicaLabels[]=replica")).await).len(), 2);
    let one = data(&app, &format!("query?query=x_total%7Breplica%3D%22b%22%7D&time=3000&{BOTH}")).await;
    assert_eq!(one["result"][0]["value"][1], "2991");
    assert_eq!(
        of(data(&app, &format!("query?query=x_total%7Breplica%3D%22c%22%7D&time=3000&{BOTH}")).await).len(),
        0
    );
    for (parameters, parameter) in [("dedup=maybe", "dedup"), ("replicaLabels[]=__name__", "replicaLabels[]")]
    {
        let (status, answer) = get(&app, &format!("{query}&{parameters}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(answer["error"].as_str().unwrap().contains(&format!("\"{parameter}\"")), "{answer}");
    }
}

#[tokio::test]
async fn names_values_and_series_hide_replica_labels() {
    let app = app(Replicas { labels: vec!["replica".into(), "zone".into()], mode: DedupMode::Hearth });
    assert_eq!(data(&app, "labels").await, json!(["__name__", "job"]));
    assert_eq!(data(&app, "labels?dedup=0").await, json!(["__name__", "job", "replica", "zone"]));
    assert_eq!(data(&app, "labels?replicaLabels[]=zone").await, json!(["__name__", "job", "replica"]));
    assert_eq!(data(&app, "label/replica/values").await, json!([]));
    assert_eq!(data(&app, "label/replica/values?dedup=false").await, json!(["a", "b"]));
    assert_eq!(data(&app, "series?match[]=x_total").await, json!([{"__name__": "x_total", "job": "j"}]));
    assert_eq!(data(&app, "series?match[]=x_total&dedup=false").await.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn replica_gap_is_filled_and_a_query_split_at_a_seam_is_the_same() {
    let app = app(Replicas { labels: vec!["replica".into(), "zone".into()], mode: DedupMode::Hearth });
    let range =
        |from: i64, to: i64| format!("query_range?query=rate(x_total%5B1m%5D)&start={from}&end={to}&step=10");
    let values = |data: Value| data["result"][0]["values"].as_array().unwrap().clone();
    let whole = values(data(&app, &range(3000, 5000)).await);
    assert_eq!(whole.len(), 201);
    for point in &whole {
        let rate: f64 = point[1].as_str().unwrap().parse().unwrap();
        assert!((rate - 1.0).abs() < 1e-9, "{point}");
    }
    for seam in [3590, 3600, 3610, 3900, 4190, 4200, 4210] {
        let mut parts = values(data(&app, &range(3000, seam)).await);
        parts.extend(values(data(&app, &range(seam + 10, 5000)).await));
        assert_eq!(parts, whole, "split at {seam}");
    }
    // Thanos' rule has another answer for the same question: it holds the second replica back.
    let other =
        self::app(Replicas { labels: vec!["replica".into(), "zone".into()], mode: DedupMode::Thanos });
    let count = "query?query=count_over_time(x_total%5B20m%5D)&time=4500";
    let of = |data: Value| data["result"][0]["value"][1].as_str().unwrap().parse::<u32>().unwrap();
    assert_eq!(of(data(&app, count).await), 80);
    assert!(of(data(&other, count).await) < 80);
}
