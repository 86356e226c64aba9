//! `query_exemplars` over a real store: upstream's parameters, errors and answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use model::exemplar::SeriesExemplars;
use model::head_stats::HeadStats;
use model::matcher::Matcher;
use model::sample::Metadata;
use model::source::{Budget, Source, SourceError};
use model::tenant::TenantId;
use object_store::memory::InMemory;
use prometheus_client::registry::Registry;
use query::api::{ApiConfig, ApiState, Metrics, Storage, router};
use tsdb::db::{Db, DbOptions};

use super::frame::{answer_of, form_of};

struct Store(Arc<Db>);

impl Storage for Store {
    fn source(&self, tenant: &TenantId) -> Arc<dyn Source> {
        self.0.source(tenant)
    }

    fn metadata(
        &self,
        tenant: &TenantId,
        metric: Option<&str>,
    ) -> Result<BTreeMap<String, Vec<Metadata>>, SourceError> {
        self.0.metadata(tenant, metric)
    }

    fn exemplars(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        min_t_ms: i64,
        max_t_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<SeriesExemplars>, SourceError> {
        self.0.exemplars(tenant, selectors, min_t_ms, max_t_ms, budget)
    }

    fn head_stats(&self, tenant: &TenantId, limit: usize) -> HeadStats {
        self.0.head_stats(tenant, limit)
    }
}

const T0: i64 = 1_600_096_945_000;

struct Api {
    router: Router,
    db: Arc<Db>,
    _dir: tempfile::TempDir,
}

/// A histogram's buckets of two services, half of it in the object store.
async fn api() -> Api {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(DbOptions::new(dir.path(), Arc::new(InMemory::new()))).await.unwrap();
    for (half, times) in [0..3i64, 3..6].into_iter().enumerate() {
        let mut appender = db.appender(&TenantId::single()).await.unwrap();
        for service in ["bar", "foo"] {
            let name = ("__name__", "test_exemplar_metric_total");
            let s = appender.series(&[name, ("instance", "localhost:8090"), ("service", service)]);
            for t in times.clone() {
                let trace = format!("{service}{t}");
                appender.float(s, T0 + t * 1000, t as f64, 0);
                appender.exemplar(s, T0 + t * 1000 + 479, t as f64 / 4.0, &[("traceID", &trace)]).unwrap();
            }
        }
        let s = appender.series(&[("__name__", "other")]);
        appender.exemplar(s, T0 + half as i64, 1e-7, &[]).unwrap();
        appender.commit().await.unwrap();
        if half == 0 {
            db.flush().await.unwrap();
        }
    }
    let config = ApiConfig::new(Arc::new(Store(db.clone())), Metrics::new(&mut Registry::default()));
    Api { router: router(ApiState::new(config)), db, _dir: dir }
}

impl Api {
    async fn ask(&self, form: &str) -> (u16, String) {
        let answer = answer_of(&self.router, form_of(Method::POST, "query_exemplars", form)).await;
        (answer.status.as_u16(), answer.text)
    }
}

fn answer(data: &str) -> (u16, String) {
    (200, format!(r#"{{"status":"success","data":[{data}]}}"#))
}

fn series(service: &str, exemplars: &[&str]) -> String {
    let labels = r#""__name__":"test_exemplar_metric_total","instance":"localhost:8090","#;
    format!(r#"{{"seriesLabels":{{{labels}"service":"{service}"}},"exemplars":[{}]}}"#, exemplars.join(","))
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_upstreams_form_and_order() {
    let api = api().await;
    let form = |start: i64, end: i64| {
        format!("query=rate(test_exemplar_metric_total{{service=\"foo\"}}[5m])&start={start}&end={end}")
    };
    let one = |n: i64, value: &str| {
        format!(
            r#"{{"labels":{{"traceID":"foo{n}"}},"value":"{value}","timestamp":{}.479}}"#,
            1_600_096_945 + n
        )
    };
    assert_eq!(
        api.ask(&form(1_600_096_946, 1_600_096_950)).await,
        answer(&series("foo", &[&one(1, "0.25"), &one(2, "0.5"), &one(3, "0.75"), &one(4, "1")]))
    );
    assert_eq!(api.ask(&form(0, 1_600_096_945)).await, answer(""), "a series without any is not named");
    let (status, both) = api.ask("query=test_exemplar_metric_total / ignoring(service) other").await;
    assert_eq!(status, 200);
    let at = |what: &str| both.find(what).unwrap_or_else(|| panic!("no {what} in {both}"));
    assert!(at(r#""seriesLabels":{"__name__":"other"}"#) < at(r#""service":"bar""#));
    assert!(at(r#""service":"bar""#) < at(r#""service":"foo""#));
    assert!(both.contains(r#"{"labels":{},"value":"1e-07","timestamp":1600096945}"#), "{both}");
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_without_selectors_have_no_answer_and_broken_ones_an_error() {
    let api = api().await;
    assert_eq!(api.ask("query=1+%2B+1").await, (204, String::new()));
    // As Grafana's test of a data source sends it, with milliseconds.
    assert_eq!(api.ask("query=test&start=1600096945479&end=1600096948479").await, answer(""));
    let (status, text) = api.ask("query=up&start=5&end=4").await;
    assert_eq!(status, 400);
    assert!(text.contains("end timestamp must not be before start timestamp"), "{text}");
    let (status, text) = api.ask("query=up{").await;
    assert_eq!((status, text.contains(r#""errorType":"bad_data""#)), (400, true), "{text}");
    api.db.flush().await.unwrap();
    let (status, _) = api.ask("query={__name__=~\".%2B\"}").await;
    assert_eq!(status, 200);
}
