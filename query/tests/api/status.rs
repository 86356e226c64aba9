//! What the API says of the process, paths it does not know, tenants, and its figures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::body::Body;
use axum::http::{Method, Request, header};
use model::labels::Labels;
use model::source::Source;
use model::source::memory::MemorySource;
use model::tenant::TenantId;
use prometheus_client::registry::Registry;
use query::api::{ApiConfig, ApiState, CorsOrigins, Metrics, router};
use serde_json::{Value, json};

use super::frame::{Api, Memory, api, api_of, sample_data};

#[tokio::test]
async fn status_and_what_hearth_does_not_do() {
    let api = api();
    let build = api.get("status/buildinfo").await.json()["data"].clone();
    assert!(build["version"].as_str().unwrap().starts_with("3.14."), "{build}");
    let keys: Vec<&String> = build.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["branch", "buildDate", "buildUser", "goVersion", "revision", "version"]);
    let tsdb = api.get("status/tsdb?limit=1").await;
    assert_eq!(
        tsdb.text,
        r#"{"status":"success","data":{"headStats":{"numSeries":8,"numLabelPairs":9,"chunkCount":10,"minTime":1,"maxTime":2},"seriesCountByMetricName":[{"name":"http_requests_total","value":6}],"labelValueCountByLabelName":[],"memoryInBytesByLabelName":[],"seriesCountByLabelValuePair":[],"headMemoryInBytes":{"labels":0,"series":0,"postings":0,"chunks":0,"outOfOrder":0}}}"#
    );
    let runtime = api.get("status/runtimeinfo").await.json()["data"].clone();
    assert_eq!(
        (&runtime["serverTime"], &runtime["reloadConfigSuccess"]),
        (&json!("1970-01-01T00:10:00Z"), &json!(true))
    );
    for (uri, data) in [
        ("status/config", json!({"yaml": ""})),
        ("status/flags", json!({})),
        ("status/walreplay", json!({"min": 0, "max": 0, "current": 0})),
        ("rules", json!({"groups": []})),
        ("alerts", json!({"alerts": []})),
        ("alertmanagers", json!({"activeAlertmanagers": [], "droppedAlertmanagers": []})),
        ("targets", json!({"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {}})),
        (
            "targets?state=active",
            json!({"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": null}),
        ),
        ("targets/metadata", json!([])),
        ("scrape_pools", json!({"scrapePools": []})),
        ("notifications", json!([])),
        ("status/tsdb/blocks", json!({"blocks": []})),
        ("status/self_metrics", json!([])),
    ] {
        let answer = api.get(uri).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()),
            (200, json!({"status": "success", "data": data})),
            "{uri}"
        );
    }
}

#[tokio::test]
async fn unknown_paths_wrong_methods_and_preflights() {
    let api = api();
    let unknown = api.get("nope/x").await;
    assert_eq!((unknown.status.as_u16(), unknown.text.as_str()), (404, "404 page not found\n"));
    assert_eq!(unknown.headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    for (method, path, allow) in [
        (Method::DELETE, "/api/v1/query", "GET, OPTIONS, POST"),
        (Method::HEAD, "/api/v1/query", "GET, OPTIONS, POST"),
        (Method::HEAD, "/api/v1/status/flags", "GET, OPTIONS"),
        (Method::GET, "/api/v1/read", "OPTIONS, POST"),
        (Method::GET, "/api/v1/admin/tsdb/snapshot", "OPTIONS, POST, PUT"),
        (Method::POST, "/federate", "GET, OPTIONS"),
    ] {
        let request = Request::builder().method(method.clone()).uri(path).body(Body::empty()).unwrap();
        let wrong = api.send(request).await;
        assert_eq!((wrong.status.as_u16(), &wrong.headers[header::ALLOW]), (405, &allow.parse().unwrap()));
        let text = if method == Method::HEAD { "" } else { "Method Not Allowed\n" };
        assert_eq!(wrong.text, text, "{method} {path}");
    }
    for path in ["/api/v1/query", "/api/v1/anything/else"] {
        let preflight =
            Request::builder().method(Method::OPTIONS).uri(path).header(header::ORIGIN, "http://x");
        let answer = api.send(preflight.body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""), "{path}");
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
        assert_eq!(answer.headers["access-control-allow-methods"], "GET, POST, OPTIONS");
        assert_eq!(
            answer.headers["access-control-allow-headers"],
            "Accept, Authorization, Content-Type, Origin"
        );
        assert_eq!(answer.headers["access-control-expose-headers"], "Date");
        assert_eq!(answer.headers["vary"], "Origin");
    }
    let plain = api.get("labels").await;
    assert!(plain.headers.get("access-control-allow-origin").is_none());
    assert_eq!(plain.headers["vary"], "Origin");
    let picky =
        api_of(Arc::new(MemorySource::new()), |c| c.cors = CorsOrigins::Only(vec!["https://g".into()]));
    for (origin, allowed) in [("https://g", Some("https://g")), ("https://evil", None)] {
        let request =
            Request::get("/api/v1/labels").header(header::ORIGIN, origin).body(Body::empty()).unwrap();
        let answer = picky.send(request).await;
        assert_eq!(answer.headers.get("access-control-allow-origin").map(|v| v.to_str().unwrap()), allowed);
    }
}

#[tokio::test]
async fn tenants_see_their_own() {
    let other = MemorySource::new();
    other.append_float(&Labels::from_pairs([("__name__", "theirs")]), 0, 1.0);
    let mut tenants: BTreeMap<TenantId, Arc<dyn Source>> = BTreeMap::new();
    tenants.insert(TenantId::single(), Arc::new(sample_data()));
    tenants.insert(TenantId::new("team-b").unwrap(), Arc::new(other));
    let storage = Arc::new(Memory { tenants, readiness: AtomicU8::new(0) });
    let mut registry = Registry::default();
    let config = ApiConfig::new(storage.clone(), Metrics::new(&mut registry));
    let api = Api { router: router(ApiState::new(config)), storage, registry };
    for (tenant, status, names) in [
        (None, 200, json!(["http_requests_total", "up"])),
        (Some("team-b"), 200, json!(["theirs"])),
        (Some("nobody"), 200, json!([])),
        (Some("a/b"), 400, Value::Null),
    ] {
        let mut request = Request::get("/api/v1/label/__name__/values");
        if let Some(tenant) = tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        let answer = api.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.json()["data"].clone()), (status, names), "{tenant:?}");
    }
}

#[tokio::test]
async fn process_that_is_not_ready_says_so_plainly() {
    let api = api();
    for (readiness, stopping) in [(1, "false"), (2, "true")] {
        api.storage.readiness.store(readiness, Ordering::Relaxed);
        let answer = api.get("query?query=1").await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (503, "Service Unavailable"));
        assert_eq!(answer.headers["x-prometheus-stopping"], stopping);
        assert_eq!(api.get("status/walreplay").await.status, 200);
    }
}

#[tokio::test]
async fn metrics_are_kept_by_endpoint_and_error() {
    let api = api();
    api.get("query?query=up").await;
    api.get("query?query=up&time=x").await;
    api.get("nope").await;
    api.get("label/job/values").await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &api.registry).unwrap();
    for line in [
        "hearth_query_duration_seconds_count{endpoint=\"query\"} 2",
        "hearth_query_duration_seconds_count{endpoint=\"label/{name}/values\"} 1",
        "hearth_query_duration_seconds_count{endpoint=\"other\"} 1",
        "hearth_query_errors_total{endpoint=\"query\",type=\"bad_data\"} 1",
        "hearth_query_errors_total{endpoint=\"other\",type=\"not_found\"} 1",
        "hearth_query_in_flight 0",
        "hearth_query_queued 0",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let read: f64 = text
        .lines()
        .find_map(|l| l.strip_prefix("hearth_query_samples_read_total "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(read >= 2.0, "{read}");
}
