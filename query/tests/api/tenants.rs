//! Requests about all tenants, where a part of the storage does not say whose samples it has.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use model::identity::Tenants;
use model::labels::Labels;
use model::source::memory::MemorySource;
use model::source::{Source, SourceError, TenantList, UnknownTenants};
use model::tenant::TenantId;
use prometheus_client::registry::Registry;
use query::api::{ApiConfig, ApiState, Metrics, Storage, router};
use serde_json::{Value, json};

use super::frame::answer_of;

/// Two tenants that are known.
struct Listed {
    source: Arc<MemorySource>,
    unknown: Vec<UnknownTenants>,
}

impl Storage for Listed {
    fn source(&self, _: &TenantId) -> Arc<dyn Source> {
        self.source.clone()
    }

    fn tenants(&self) -> TenantList {
        let tenants = ["a", "b"].map(|name| TenantId::new(name).unwrap()).into();
        TenantList { tenants, unknown: self.unknown.clone() }
    }
}

/// `from_ms`: of a part that is silent; `None` for no such part.
fn app(from_ms: Option<Option<i64>>) -> Router {
    let source = Arc::new(MemorySource::new());
    source.append_float(&Labels::from_pairs([("__name__", "up")]), 100_000, 1.0);
    let why = SourceError::storage("ingester x is silent");
    let unknown = from_ms.map(|from_ms| UnknownTenants { why, from_ms }).into_iter().collect();
    let metrics = Metrics::new(&mut Registry::default());
    router(ApiState::new(ApiConfig {
        tenants: Arc::new(|_| Ok(Tenants::Every)),
        ..ApiConfig::new(Arc::new(Listed { source, unknown }), metrics)
    }))
}

async fn get(app: &Router, path: &str) -> (StatusCode, Value) {
    let request = Request::get(format!("/api/v1/{path}")).body(Body::empty()).unwrap();
    let answer = answer_of(app, request).await;
    (answer.status, answer.json())
}

/// What is asked of samples up to 100 s.
const ASKED: [&str; 6] = [
    "query?query=count(up)&time=100",
    "query_range?query=count(up)&start=50&end=100&step=10",
    "series?match[]=up&start=50&end=100",
    "labels?start=50&end=100",
    "label/__tenant_id__/values?start=50&end=100",
    "metadata",
];

#[tokio::test]
async fn all_tenants_are_answered_for_where_all_are_known() {
    let app = app(None);
    for path in ASKED {
        let (status, answer) = get(&app, path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
    }
    let (_, answer) = get(&app, ASKED[4]).await;
    assert_eq!(answer["data"], json!(["a", "b"]));
}

#[tokio::test]
async fn all_tenants_with_one_that_may_be_missing_are_an_error_that_says_why() {
    let app = app(Some(None));
    for path in ASKED {
        let (status, answer) = get(&app, path).await;
        assert!(status.is_server_error(), "{path}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains("ingester x is silent"), "{path}: {answer}");
    }
    let (status, answer) = get(&app, &format!("{}&partial_response=true", ASKED[0])).await;
    assert_eq!((status, &answer["data"]["result"][0]["value"][1]), (StatusCode::OK, &json!("2")), "{answer}");
    assert!(answer["warnings"][0].as_str().unwrap().contains("ingester x is silent"), "{answer}");
}

#[tokio::test]
async fn all_tenants_are_answered_for_before_what_may_be_missing() {
    let from = |from_ms| app(Some(Some(from_ms)));
    for path in &ASKED[..5] {
        assert_eq!(get(&from(100_001), path).await.0, StatusCode::OK, "{path}");
        assert!(get(&from(100_000), path).await.0.is_server_error(), "{path}");
    }
}
