//! Large range results over HTTP: sent while they are computed, equal to small ones, broken off where they
//! fail, called off with their client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use model::labels::Labels;
use model::matcher::matches_all;
use model::source::{LabelQuery, Selection, SeriesColumns, SeriesCursor, Source, SourceError};
use model::tenant::TenantId;
use prometheus_client::registry::Registry;
use query::api::{ApiConfig, ApiState, Metrics, Storage, router};
use serde_json::Value;
use tower::ServiceExt;

const STEP_MS: i64 = 1_000;
const POINTS: i64 = 500;

/// `wide` in many series (or `a` and `b` in half as many each), a batch of eight at a time, made when it is
/// asked for.
struct Wide {
    series: Vec<Labels>,
    batches: Arc<AtomicUsize>,
    /// Fails at this batch.
    breaks_at: usize,
    called_off: std::sync::mpsc::Sender<SourceError>,
}

struct Cursor<'a> {
    source: &'a Wide,
    selection: Selection,
    left: std::vec::IntoIter<&'a Labels>,
}

impl SeriesCursor for Cursor<'_> {
    fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
        if let Err(e) = self.selection.budget.check() {
            let _ = self.source.called_off.send(e.clone());
            return Err(e);
        }
        let n = self.source.batches.fetch_add(1, Ordering::SeqCst);
        if n == self.source.breaks_at {
            return Err(SourceError::storage("block 7 cannot be read"));
        }
        let ts_ms: Arc<[i64]> = (0..POINTS)
            .map(|i| i * STEP_MS)
            .filter(|t| (self.selection.min_t_ms..=self.selection.max_t_ms).contains(t))
            .collect();
        let batch: Vec<_> = self.left.by_ref().take(8).collect();
        let made = batch.iter().map(|labels| SeriesColumns {
            labels: (*labels).clone(),
            ts_ms: ts_ms.clone(),
            values: ts_ms.iter().map(|t| *t as f64 / 7.0).collect(),
            histograms: None,
            start_ts_ms: None,
            windows: None,
        });
        let made: Vec<_> = made.collect();
        Ok((!made.is_empty()).then_some(made))
    }
}

impl Source for Wide {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        let found: Vec<_> = self.series.iter().filter(|l| matches_all(l, &selection.matchers)).collect();
        Ok(Box::new(Cursor { source: self, selection: selection.clone(), left: found.into_iter() }))
    }

    fn series(&self, query: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        let any = |l: &&Labels| query.selectors.iter().any(|s| matches_all(l, s));
        let mut found: Vec<Labels> = self.series.iter().filter(any).cloned().collect();
        found.sort();
        Ok(found)
    }
}

struct Memory(Arc<dyn Source>);

impl Storage for Memory {
    fn source(&self, _: &TenantId) -> Arc<dyn Source> {
        self.0.clone()
    }
}

struct Api {
    router: Router,
    registry: Registry,
    batches: Arc<AtomicUsize>,
    called_off: std::sync::mpsc::Receiver<SourceError>,
}

/// `series` of `wide`, and as many of `a` and `b`, whose other labels are the same.
fn api(series: usize, breaks_at: usize, stream_from_bytes: u64) -> Api {
    let (to, called_off) = std::sync::mpsc::channel();
    let batches = Arc::new(AtomicUsize::new(0));
    let mut all = Vec::new();
    for name in ["a", "b", "wide"] {
        all.extend((0..series).map(|i| {
            let i = format!("{i:05}");
            // The order by `pod` is another one than that by `i`.
            Labels::from_pairs([("__name__", name), ("i", &i), ("pod", &i[4..])])
        }));
    }
    let source = Arc::new(Wide { series: all, batches: batches.clone(), breaks_at, called_off: to });
    let mut registry = Registry::default();
    let mut config = ApiConfig::new(Arc::new(Memory(source)), Metrics::new(&mut registry));
    config.limits.stream_from_bytes = stream_from_bytes;
    config.limits.max_concurrency = 1;
    Api { router: router(ApiState::new(config)), registry, batches, called_off }
}

impl Api {
    async fn ask(&self, query: &str, more: &str) -> (StatusCode, Body) {
        let form = format!("start=0&end={}&step=1{more}", POINTS - 1);
        let query: String = query.bytes().map(|b| format!("%{b:02X}")).collect();
        let request = Request::get(format!("/api/v1/query_range?query={query}&{form}"));
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        (response.status(), response.into_body())
    }

    async fn text(&self, query: &str, more: &str) -> (StatusCode, String) {
        let (status, body) = self.ask(query, more).await;
        let whole = body.collect().await.unwrap().to_bytes();
        (status, String::from_utf8(whole.into()).unwrap())
    }
}

const NEVER: usize = usize::MAX;

#[tokio::test]
async fn source_is_read_no_faster_than_the_client_reads() {
    let series = 4_000;
    let api = api(series, NEVER, 1 << 20);
    let (status, mut body) = api.ask("rate(wide[30s])", "").await;
    assert_eq!(status, 200);
    let (mut text, mut frames) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        text.extend_from_slice(&frame.unwrap().into_data().unwrap());
        frames += 1;
        // Every series takes at least eight bytes a point in the answer; what was buffered first, what waits
        // in the channel and a batch on either side of it are at most a few hundred series.
        let read = api.batches.load(Ordering::SeqCst) * 8;
        let arrived = text.len() / (8 * POINTS as usize);
        assert!(read < arrived + 600, "{read} series read, {arrived} arrived");
    }
    assert!(frames > 100, "{frames}");
    let answer: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(answer["status"], "success");
    let result = answer["data"]["result"].as_array().unwrap();
    assert_eq!(result.len(), series);
    assert!(result.windows(2).all(|w| w[0]["metric"]["i"].as_str() < w[1]["metric"]["i"].as_str()));
    // Two samples make the first rate.
    assert!(result.iter().all(|s| s["values"].as_array().unwrap().len() == POINTS as usize - 1));
    assert_eq!(answer["infos"].as_array().unwrap().len(), 1, "the name does not end like a counter's");
}

#[tokio::test]
async fn answer_is_the_same_however_it_is_sent() {
    let (whole, row_by_row) = (api(40, NEVER, u64::MAX), api(40, NEVER, 1));
    for (query, more) in [
        ("wide", ""),
        ("{i=\"00007\"}", ""),
        ("wide", "&limit=7"),
        ("wide", "&limit=40"),
        ("nothing", ""),
        ("-wide * 2 > 100", ""),
        ("wide > 1e9", ""),
        ("clamp(round(max_over_time(wide[10s] offset 5s)), 1, time())", ""),
        ("label_replace(wide, \"new\", \"$1\", \"i\", \"0*(.*)\")", ""),
        // Another order than the source's.
        ("label_replace(wide, \"i\", \"$1\", \"pod\", \"(.*)\")", ""),
        ("label_replace(wide, \"a\", \"$1\", \"pod\", \"(.*)\")", "&limit=3"),
        ("label_join(wide, \"__name__\", \"\", \"pod\", \"i\")", ""),
        // Names dropped from two metrics.
        ("abs({__name__=~\"a|b\"})", ""),
        ("rate({__name__=~\"a|b\"}[10s])", ""),
        ("wide @ 100", ""),
        ("-(wide @ 100) * time()", ""),
        ("sum by (pod) (wide)", ""),
        ("1 + 1", ""),
        ("quantile_over_time(2, wide[5s])", ""),
        ("wide", "&stats=nonsense&limit=1&timeout=1m"),
    ] {
        let (a, b) = (whole.text(query, more).await, row_by_row.text(query, more).await);
        let same = if more.contains("stats") {
            let without = |text: &str| {
                let mut json: Value = serde_json::from_str(text).unwrap();
                json["data"].as_object_mut().unwrap().remove("stats").expect("stats were asked for");
                json
            };
            a.0 == b.0 && without(&a.1) == without(&b.1)
        } else {
            a == b
        };
        assert!(same, "{query} {more}: {} {:.300}\nrow by row: {} {:.300}", a.0, a.1, b.0, b.1);
    }
}

#[tokio::test]
async fn late_error_breaks_the_answer_off() {
    let api = api(4_000, 300, 1 << 20);
    let (status, mut body) = api.ask("wide", "").await;
    assert_eq!(status, 200, "it began well");
    let mut arrived = 0;
    let broken = loop {
        match body.frame().await {
            None => break false,
            Some(Err(_)) => break true,
            Some(Ok(data)) => arrived += data.into_data().unwrap().len(),
        }
    };
    assert!(broken, "the end of the body is an error, not an end");
    assert!(arrived > 1 << 20);
    let mut metrics = String::new();
    prometheus_client::encoding::text::encode(&mut metrics, &api.registry).unwrap();
    let counted = "hearth_query_errors_total{endpoint=\"query_range\",type=\"internal\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn early_error_has_its_status() {
    let (status, text) = api(4_000, 10, 1 << 20).text("wide", "").await;
    assert_eq!(status, 500, "{text}");
    assert!(text.contains("block 7 cannot be read"), "{text}");
}

#[tokio::test]
async fn client_that_goes_away_ends_the_query() {
    let api = api(40_000, NEVER, 1 << 20);
    let (status, mut body) = api.ask("wide", "").await;
    assert_eq!(status, 200);
    body.frame().await.unwrap().unwrap();
    drop(body);
    // Either the next piece finds nobody to take it, or the next batch finds the query cancelled; both end it
    // long before its end.
    while api.called_off.try_recv().is_err() && Arc::strong_count(&api.batches) > 1 {
        let before = api.batches.load(Ordering::SeqCst);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        if api.batches.load(Ordering::SeqCst) == before {
            break;
        }
    }
    assert!(api.batches.load(Ordering::SeqCst) < 1_000, "{:?}", api.batches);
}

#[tokio::test]
async fn client_that_does_not_read_has_until_the_timeout() {
    let api = api(4_000, NEVER, 1 << 20);
    let (status, mut body) = api.ask("wide", "&timeout=700ms").await;
    assert_eq!(status, 200);
    tokio::time::sleep(std::time::Duration::from_millis(900)).await;
    let mut last = Ok(());
    while let Some(frame) = body.frame().await {
        last = frame.map(drop).map_err(|e| e.to_string());
    }
    assert!(last.is_err(), "the query was over before its result was sent");
}

#[tokio::test]
async fn client_that_does_not_read_does_not_keep_others_waiting() {
    let api = api(4_000, NEVER, 1 << 20);
    // There is one place. Those who do not read leave it to others, but for so many: each has a thread.
    let mut slow = Vec::new();
    for _ in 0..4 {
        let (status, mut body) = api.ask("wide", "").await;
        assert_eq!(status, 200);
        body.frame().await.unwrap().unwrap();
        slow.push(body);
        let (status, text) = api.text("wide{i=\"00007\"}", "").await;
        assert_eq!(status, 200, "{text:.200}");
    }
    let (status, _fifth) = api.ask("wide", "").await;
    assert_eq!(status, 200);
    let (status, text) = api.text("wide{i=\"00007\"}", "&timeout=300ms").await;
    assert_eq!(status, 503, "the fifth keeps the place: {text:.200}");
    // Whoever reads on gets a place again, and all of the answer.
    drop(_fifth);
    let last = slow.pop().unwrap().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&last).map_err(|e| e.to_string()).unwrap_or_default();
    assert!(answer.is_null(), "its first piece was taken before");
    assert!(last.ends_with(b"}"), "the answer was broken off");
}
