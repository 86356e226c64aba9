//! The admin API: closed unless opened, upstream's parameters and errors, and what it does to a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::http::Method;
use model::labels::Labels;
use model::matcher::Matcher;
use model::source::Source;
use model::source::memory::MemorySource;
use model::tenant::TenantId;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use query::api::{ApiConfig, ApiState, ChangeError, Metrics, Storage, router};
use serde_json::{Value, json};

use super::frame::{answer_of, form_of};

#[derive(Default)]
struct Store {
    source: Arc<MemorySource>,
    cleaned: AtomicU64,
    fails: Mutex<Option<ChangeError>>,
    asked: Mutex<Vec<(TenantId, i64, i64)>>,
}

impl Storage for Store {
    fn source(&self, _: &TenantId) -> Arc<dyn Source> {
        self.source.clone()
    }

    fn delete_series(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        min_t_ms: i64,
        max_t_ms: i64,
    ) -> Result<(), ChangeError> {
        if let Some(e) = self.fails.lock().clone() {
            return Err(e);
        }
        self.asked.lock().push((tenant.clone(), min_t_ms, max_t_ms));
        selectors.iter().for_each(|s| self.source.delete(s, min_t_ms, max_t_ms));
        Ok(())
    }

    fn snapshot(&self, skip_head: bool) -> Result<String, ChangeError> {
        self.fails.lock().clone().map_or_else(|| Ok(format!("20261130T000000Z-{skip_head}")), Err)
    }

    fn clean_tombstones(&self, _: &TenantId) -> Result<(), ChangeError> {
        self.cleaned.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

struct Api {
    router: Router,
    store: Arc<Store>,
}

fn api(open: bool) -> Api {
    let store = Arc::new(Store::default());
    for (name, job) in [("up", "a"), ("up", "b"), ("down", "a")] {
        let labels = Labels::from_pairs([("__name__", name), ("job", job)]);
        (0..10).for_each(|t| store.source.append_float(&labels, t * 1000, 1.0));
    }
    let mut config = ApiConfig::new(store.clone(), Metrics::new(&mut Registry::default()));
    config.admin_api = open;
    Api { router: router(ApiState::new(config)), store }
}

impl Api {
    async fn send(&self, method: Method, uri: &str, form: &str) -> (u16, String) {
        let answer = answer_of(&self.router, form_of(method, uri, form)).await;
        (answer.status.as_u16(), answer.text)
    }

    async fn delete(&self, form: &str) -> (u16, String) {
        self.send(Method::POST, "admin/tsdb/delete_series", form).await
    }

    async fn refused(&self, form: &str) -> (u16, String, String) {
        let (status, text) = self.delete(form).await;
        let json: Value = serde_json::from_str(&text).unwrap();
        let field = |name: &str| json[name].as_str().unwrap().to_string();
        (status, field("errorType"), field("error"))
    }

    /// Timestamps left of `up{job="a"}`, in seconds.
    async fn left(&self) -> Vec<u64> {
        let uri = "query?query=up%7Bjob%3D%22a%22%7D%5B1h%5D&time=100";
        let (_, text) = self.send(Method::GET, uri, "").await;
        let json: Value = serde_json::from_str(&text).unwrap();
        let values = json["data"]["result"][0]["values"].as_array().cloned().unwrap_or_default();
        values.iter().map(|v| v[0].as_u64().unwrap()).collect()
    }
}

#[tokio::test]
async fn admin_api_that_is_off_refuses_as_upstream_does() {
    let api = api(false);
    for endpoint in ["delete_series?match[]=up", "clean_tombstones", "snapshot"] {
        for method in [Method::POST, Method::PUT] {
            let (status, text) = api.send(method, &format!("admin/tsdb/{endpoint}"), "").await;
            let want = json!({"status": "error", "errorType": "unavailable", "error": "admin APIs disabled"});
            assert_eq!((status, serde_json::from_str::<Value>(&text).unwrap()), (500, want), "{endpoint}");
        }
    }
    assert_eq!(api.left().await.len(), 10);
    assert_eq!(api.store.cleaned.load(Ordering::Relaxed), 0);
    assert_eq!(api.send(Method::GET, "admin/tsdb/delete_series?match[]=up", "").await.0, 405);
}

#[tokio::test]
async fn series_are_deleted_by_any_of_the_selectors_and_between_the_times() {
    let api = api(true);
    assert_eq!(api.delete(r#"match[]=up{job="a"}&match[]=nope&start=2&end=4.5"#).await, (204, String::new()));
    assert_eq!(api.left().await, [0, 1, 5, 6, 7, 8, 9]);
    let put = api.send(Method::PUT, "admin/tsdb/delete_series", r#"match[]=up{job="a"}&start=9"#).await;
    assert_eq!(put, (204, String::new()), "a PUT's body is a form too");
    assert_eq!(api.left().await, [0, 1, 5, 6, 7, 8]);
    assert_eq!(api.delete("match[]=up").await, (204, String::new()));
    assert_eq!(api.left().await, [] as [u64; 0]);
    let asked = api.store.asked.lock().clone();
    assert_eq!(asked[0], (TenantId::single(), 2000, 4500));
    assert!(asked[2].1 < -1 << 60 && asked[2].2 > 1 << 60, "all of time: {asked:?}");
    assert_eq!(api.send(Method::POST, "admin/tsdb/clean_tombstones", "").await, (204, String::new()));
    assert_eq!(api.store.cleaned.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn snapshots_are_named_and_leave_out_the_head_where_asked() {
    let api = api(true);
    for (more, name) in [("", "false"), ("?skip_head=1", "true"), ("?skip_head=false", "false")] {
        let (status, text) = api.send(Method::POST, &format!("admin/tsdb/snapshot{more}"), "").await;
        let want = json!({"status": "success", "data": {"name": format!("20261130T000000Z-{name}")}});
        assert_eq!((status, serde_json::from_str::<Value>(&text).unwrap()), (200, want));
    }
    assert_eq!(api.send(Method::POST, "admin/tsdb/snapshot?skip_head=2", "").await.0, 400);
    *api.store.fails.lock() = Some(ChangeError::Unavailable("the disk is full".into()));
    assert_eq!(api.send(Method::POST, "admin/tsdb/snapshot", "").await.0, 503);
}

#[tokio::test]
async fn questions_that_make_no_sense_and_stores_that_fail_are_told_apart() {
    let api = api(true);
    let refused = |kind: &str, text: &str| (400, kind.to_string(), text.to_string());
    assert_eq!(api.refused("").await, refused("bad_data", "no match[] parameter provided"));
    assert_eq!(
        api.refused("match[]=up&start=x").await,
        refused(
            "bad_data",
            r#"invalid parameter "start": invalid time value for 'start': cannot parse "x" to a valid timestamp"#
        )
    );
    let (status, kind, text) = api.refused("match[]=up{").await;
    assert_eq!((status, kind.as_str()), (400, "bad_data"));
    assert!(text.starts_with(r#"invalid parameter "match[]": "#), "{text}");
    let (_, _, text) = api.refused(r#"match[]={job=~".*"}"#).await;
    assert!(text.contains("at least one non-empty matcher"), "{text}");
    assert_eq!(api.left().await.len(), 10, "nothing was deleted");
    *api.store.fails.lock() = Some(ChangeError::Unavailable("the bucket is down".into()));
    assert_eq!(api.refused("match[]=up").await, (503, "unavailable".into(), "the bucket is down".into()));
    *api.store.fails.lock() = Some(ChangeError::Refused("too many".into()));
    assert_eq!(api.refused("match[]=up").await, (422, "execution".into(), "too many".into()));
}
