//! `query_exemplars`: upstream's parameters, errors and answers.

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use model::exemplar::{Exemplar, SeriesExemplars};
use model::labels::Labels;
use model::matcher::Matcher;
use model::source::memory::MemorySource;
use model::source::{Budget, Source, SourceError};
use model::tenant::TenantId;
use prometheus_client::registry::Registry;
use query::api::{ApiConfig, ApiState, Metrics, Storage, router};

use super::frame::{answer_of, form_of};

/// Series with exemplars, ascending.
struct Store(Vec<SeriesExemplars>);

impl Storage for Store {
    fn source(&self, _: &TenantId) -> Arc<dyn Source> {
        Arc::new(MemorySource::default())
    }

    fn exemplars(
        &self,
        _: &TenantId,
        selectors: &[Vec<Matcher>],
        min_t_ms: i64,
        max_t_ms: i64,
        _: &Budget,
    ) -> Result<Vec<SeriesExemplars>, SourceError> {
        let matches =
            |labels: &Labels| selectors.iter().any(|s| s.iter().all(|m| m.matches(labels.value(&m.name))));
        let within = |s: &SeriesExemplars| SeriesExemplars {
            labels: s.labels.clone(),
            exemplars: s
                .exemplars
                .iter()
                .filter(|e| (min_t_ms..=max_t_ms).contains(&e.ts_ms))
                .cloned()
                .collect(),
        };
        let matching = self.0.iter().filter(|s| matches(&s.labels)).map(within);
        Ok(matching.filter(|s| !s.exemplars.is_empty()).collect())
    }
}

const T0: i64 = 1_600_096_945_000;

struct Api {
    router: Router,
}

/// A histogram's buckets of two services, and a series without labels.
fn api() -> Api {
    let exemplar = |ts_ms: i64, value: f64, trace: Option<String>| Exemplar {
        ts_ms,
        value,
        labels: Labels::from_pairs(trace.into_iter().map(|t| ("traceID", t))),
    };
    let other = SeriesExemplars {
        labels: Labels::from_pairs([("__name__", "other")]),
        exemplars: vec![exemplar(T0, 1e-7, None), exemplar(T0 + 1, 1e-7, None)],
    };
    let of_service = |service: &str| SeriesExemplars {
        labels: Labels::from_pairs([
            ("__name__", "test_exemplar_metric_total"),
            ("instance", "localhost:8090"),
            ("service", service),
        ]),
        exemplars: (0..6)
            .map(|t| exemplar(T0 + t * 1000 + 479, t as f64 / 4.0, Some(format!("{service}{t}"))))
            .collect(),
    };
    let store = Store(vec![other, of_service("bar"), of_service("foo")]);
    let config = ApiConfig::new(Arc::new(store), Metrics::new(&mut Registry::default()));
    Api { router: router(ApiState::new(config)) }
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
async fn exemplars_have_upstreams_form_and_order() {
    let api = api();
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
async fn exemplar_questions_without_selectors_have_no_answer_and_broken_ones_an_error() {
    let api = api();
    assert_eq!(api.ask("query=1+%2B+1").await, (204, String::new()));
    // As Grafana's test of a data source sends it, with milliseconds.
    assert_eq!(api.ask("query=test&start=1600096945479&end=1600096948479").await, answer(""));
    let (status, text) = api.ask("query=up&start=5&end=4").await;
    assert_eq!(status, 400);
    assert!(text.contains("end timestamp must not be before start timestamp"), "{text}");
    let (status, text) = api.ask("query=up{").await;
    assert_eq!((status, text.contains(r#""errorType":"bad_data""#)), (400, true), "{text}");
    let (status, _) = api.ask("query={__name__=~\".%2B\"}").await;
    assert_eq!(status, 200);
}
