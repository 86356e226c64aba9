//! The API over sources in memory, and requests as clients send them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use model::clock::ManualClock;
use model::head_stats::{HeadStats, NamedCount};
use model::labels::Labels;
use model::sample::Metadata;
use model::source::memory::MemorySource;
use model::source::{Budget, LabelQuery, Selection, SeriesCursor, Source, SourceError};
use model::tenant::TenantId;
use prometheus_client::registry::Registry;
use query::api::{ApiConfig, ApiState, Metrics, Readiness, Storage, router};
use serde_json::Value;
use tower::ServiceExt;

/// Tenants in memory; `readiness` 0 is ready, 1 starting, 2 stopping.
#[derive(Default)]
pub struct Memory {
    pub tenants: BTreeMap<TenantId, Arc<dyn Source>>,
    pub readiness: AtomicU8,
}

impl Storage for Memory {
    fn source(&self, tenant: &TenantId) -> Arc<dyn Source> {
        self.tenants.get(tenant).cloned().unwrap_or_else(|| Arc::new(MemorySource::new()))
    }

    fn metadata(
        &self,
        tenant: &TenantId,
        metric: Option<&str>,
        _budget: &Budget,
    ) -> Result<BTreeMap<String, Vec<Metadata>>, SourceError> {
        let entry =
            |kind: &str, help: &str| Metadata { kind: kind.into(), help: help.into(), unit: String::new() };
        let mut all = BTreeMap::new();
        if *tenant == TenantId::single() {
            all.insert("up".to_string(), vec![entry("gauge", "Is it <up>?"), entry("unknown", "")]);
            all.insert("http_requests_total".to_string(), vec![entry("counter", "Requests.")]);
        }
        all.retain(|name, _| metric.is_none_or(|m| m == name));
        Ok(all)
    }

    fn head_stats(&self, _: &TenantId, limit: usize) -> HeadStats {
        let mut by_metric: Vec<NamedCount> = [("http_requests_total", 6), ("up", 2)]
            .map(|(n, v)| NamedCount { name: n.into(), value: v })
            .into();
        by_metric.truncate(limit);
        HeadStats {
            series: 8,
            label_pairs: 9,
            chunks: 10,
            min_t_ms: 1,
            max_t_ms: 2,
            series_by_metric: by_metric,
            ..HeadStats::default()
        }
    }

    fn readiness(&self) -> Readiness {
        match self.readiness.load(Ordering::Relaxed) {
            0 => Readiness::Ready,
            1 => Readiness::Starting,
            _ => Readiness::Stopping,
        }
    }
}

/// A source that answers everything with one error.
pub struct Broken(pub SourceError);

impl Source for Broken {
    fn select(&self, _: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        Err(self.0.clone())
    }

    fn series(&self, _: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        Err(self.0.clone())
    }
}

/// A source that waits until its query is called off, and tells when it was.
pub struct Endless(pub std::sync::mpsc::SyncSender<SourceError>);

impl Endless {
    fn wait<T>(&self, budget: &model::source::Budget) -> Result<T, SourceError> {
        loop {
            if let Err(e) = budget.check() {
                let _ = self.0.send(e.clone());
                return Err(e);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Source for Endless {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        self.wait(&selection.budget)
    }

    fn series(&self, query: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        self.wait(&query.budget)
    }
}

/// `up` at 0 to 1000 s every 15 s for two instances, and six counters.
pub fn sample_data() -> MemorySource {
    let source = MemorySource::new();
    for step in 0..=66i64 {
        for instance in ["a:9100", "b:9100"] {
            let up = Labels::from_pairs([("__name__", "up"), ("instance", instance), ("job", "node")]);
            source.append_float(&up, step * 15_000, 1.0);
            for code in ["200", "404", "500"] {
                let requests = Labels::from_pairs([
                    ("__name__", "http_requests_total"),
                    ("instance", instance),
                    ("code", code),
                    ("http.path", "/<x>"),
                ]);
                source.append_float(&requests, step * 15_000, step as f64 * 1.5);
            }
        }
    }
    source
}

pub struct Api {
    pub router: Router,
    pub storage: Arc<Memory>,
    pub registry: Registry,
}

pub fn api_of(source: Arc<dyn Source>, change: impl FnOnce(&mut ApiConfig)) -> Api {
    let mut tenants: BTreeMap<TenantId, Arc<dyn Source>> = BTreeMap::new();
    tenants.insert(TenantId::single(), source);
    let storage = Arc::new(Memory { tenants, readiness: AtomicU8::new(0) });
    let mut registry = Registry::default();
    let mut config = ApiConfig::new(storage.clone(), Metrics::new(&mut registry));
    config.clock = Arc::new(ManualClock::at(600_000));
    config.engine.timeout = Duration::from_secs(20);
    change(&mut config);
    Api { router: router(ApiState::new(config)), storage, registry }
}

pub fn api() -> Api {
    api_of(Arc::new(sample_data()), |_| {})
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }
}

impl Api {
    pub async fn send(&self, request: Request<Body>) -> Answer {
        answer_of(&self.router, request).await
    }

    /// What a URI cannot hold is escaped; `%`, `+` and `&` mean what they mean in a form.
    pub async fn get(&self, uri: &str) -> Answer {
        let uri: String = uri
            .chars()
            .map(|c| if " \"<>{}^".contains(c) { format!("%{:02X}", c as u32) } else { c.to_string() })
            .collect();
        self.send(Request::get(format!("/api/v1/{uri}")).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, uri: &str, body: &str) -> Answer {
        self.send(form_of(Method::POST, uri, body)).await
    }

    /// Asks by GET and by POST and expects the same.
    pub async fn both(&self, endpoint: &str, form: &str) -> Answer {
        let got = self.get(&format!("{endpoint}?{form}")).await;
        let posted = self.post(endpoint, form).await;
        assert_eq!((posted.status, &posted.text), (got.status, &got.text), "{endpoint}?{form}");
        got
    }

    pub async fn error(&self, endpoint: &str, form: &str) -> (u16, String, String) {
        let answer = self.both(endpoint, form).await;
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
        let json = answer.json();
        assert_eq!(json["status"], "error", "{endpoint}?{form}: {}", answer.text);
        let text = |key: &str| json[key].as_str().unwrap().to_string();
        (answer.status.as_u16(), text("errorType"), text("error"))
    }

    pub async fn data(&self, endpoint: &str, form: &str) -> Value {
        let answer = self.both(endpoint, form).await;
        assert_eq!(answer.status, 200, "{endpoint}?{form}: {}", answer.text);
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
        let json = answer.json();
        assert_eq!(json["status"], "success");
        assert!(json.get("warnings").is_none(), "{json}");
        json["data"].clone()
    }
}

/// A request to an endpoint with a form as its body.
pub fn form_of(method: Method, endpoint: &str, form: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(format!("/api/v1/{endpoint}"))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded; charset=UTF-8")
        .body(Body::from(form.to_string()))
        .unwrap()
}

pub async fn answer_of(router: &Router, request: Request<Body>) -> Answer {
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.into()).unwrap() }
}
