//! The HTTP API from outside: every endpoint, every parameter's error, both methods, each status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;
use query::api::{ApiConfig, ApiState, CorsOrigins, Metrics, Readiness, Storage, router};
use query::engine::EngineOptions;
use serde_json::{Value, json};
use tower::ServiceExt;
use tsdb::clock::ManualClock;
use tsdb::db::{HeadStats, NamedCount};
use tsdb::labels::Labels;
use tsdb::memory::MemorySource;
use tsdb::sample::Metadata;
use tsdb::source::{LabelWish, Selection, SeriesCursor, Source, SourceError};
use tsdb::tenant::TenantId;

/// Tenants in memory; `readiness` 0 is ready, 1 starting, 2 stopping.
#[derive(Default)]
struct Memory {
    tenants: BTreeMap<TenantId, Arc<dyn Source>>,
    readiness: AtomicU8,
}

impl Storage for Memory {
    fn source(&self, tenant: &TenantId) -> Arc<dyn Source> {
        self.tenants.get(tenant).cloned().unwrap_or_else(|| Arc::new(MemorySource::new()))
    }

    fn metadata(
        &self,
        tenant: &TenantId,
        metric: Option<&str>,
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
struct Broken(SourceError);

impl Source for Broken {
    fn select(&self, _: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        Err(self.0.clone())
    }

    fn series(&self, _: &LabelWish) -> Result<Vec<Labels>, SourceError> {
        Err(self.0.clone())
    }
}

/// A source that waits until its query is called off, and tells when it was.
struct Endless(std::sync::mpsc::SyncSender<SourceError>);

impl Endless {
    fn wait<T>(&self, budget: &tsdb::source::Budget) -> Result<T, SourceError> {
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
    fn select(&self, wish: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        self.wait(&wish.budget)
    }

    fn series(&self, wish: &LabelWish) -> Result<Vec<Labels>, SourceError> {
        self.wait(&wish.budget)
    }
}

/// `up` at 0 to 1000 s every 15 s for two instances, and six counters.
fn sample_data() -> MemorySource {
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

struct Api {
    router: Router,
    storage: Arc<Memory>,
    registry: Registry,
}

fn api_of(source: Arc<dyn Source>, change: impl FnOnce(&mut ApiConfig)) -> Api {
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

fn api() -> Api {
    api_of(Arc::new(sample_data()), |_| {})
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }
}

impl Api {
    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.into()).unwrap(),
        }
    }

    /// What a URI cannot hold is escaped; `%`, `+` and `&` mean what they mean in a form.
    async fn get(&self, uri: &str) -> Answer {
        let uri: String = uri
            .chars()
            .map(|c| if " \"<>{}^".contains(c) { format!("%{:02X}", c as u32) } else { c.to_string() })
            .collect();
        self.send(Request::get(format!("/api/v1/{uri}")).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, uri: &str, body: &str) -> Answer {
        let request = Request::post(format!("/api/v1/{uri}"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded; charset=UTF-8");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// Asks by GET and by POST and expects the same.
    async fn both(&self, endpoint: &str, form: &str) -> Answer {
        let got = self.get(&format!("{endpoint}?{form}")).await;
        let posted = self.post(endpoint, form).await;
        assert_eq!((posted.status, &posted.text), (got.status, &got.text), "{endpoint}?{form}");
        got
    }

    async fn error(&self, endpoint: &str, form: &str) -> (u16, String, String) {
        let answer = self.both(endpoint, form).await;
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
        let json = answer.json();
        assert_eq!(json["status"], "error", "{endpoint}?{form}: {}", answer.text);
        let text = |key: &str| json[key].as_str().unwrap().to_string();
        (answer.status.as_u16(), text("errorType"), text("error"))
    }

    async fn data(&self, endpoint: &str, form: &str) -> Value {
        let answer = self.both(endpoint, form).await;
        assert_eq!(answer.status, 200, "{endpoint}?{form}: {}", answer.text);
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
        let json = answer.json();
        assert_eq!(json["status"], "success");
        assert!(json.get("warnings").is_none(), "{json}");
        json["data"].clone()
    }
}

#[tokio::test]
async fn bad_parameters_are_named_in_upstreams_words() {
    let api = api();
    let not_a_time = |name: &str, value: &str| {
        format!(
            "invalid parameter \"{name}\": invalid time value for '{name}': cannot parse \"{value}\" to a valid timestamp"
        )
    };
    for (endpoint, form, text) in [
        ("query", "query=up&time=x", not_a_time("time", "x")),
        ("query", "query=up&timeout=x", "invalid parameter \"timeout\": cannot parse \"x\" to a valid duration".into()),
        ("query", "query=up&limit=-1", "invalid parameter \"limit\": limit must be non-negative".into()),
        ("query", "query=up&limit=x", "invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax".into()),
        ("query", "query=up&lookback_delta=x", "error parsing lookback delta duration: cannot parse \"x\" to a valid duration".into()),
        ("query", "query=", "invalid parameter \"query\": unknown position: parse error: no expression found in input".into()),
        ("query", "query=invalid][query", "invalid parameter \"query\": 1:8: parse error: unexpected right bracket ']'".into()),
        ("query_range", "query=up", "invalid parameter \"start\": cannot parse \"\" to a valid timestamp".into()),
        ("query_range", "query=up&start=1", "invalid parameter \"end\": cannot parse \"\" to a valid timestamp".into()),
        ("query_range", "query=up&start=2&end=1&step=1", "invalid parameter \"end\": end timestamp must not be before start time".into()),
        ("query_range", "query=up&start=1&end=2", "invalid parameter \"step\": cannot parse \"\" to a valid duration".into()),
        ("query_range", "query=up&start=1&end=2&step=0", "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer".into()),
        ("query_range", "query=up&start=1&end=2&step=-1s", "invalid parameter \"step\": cannot parse \"-1s\" to a valid duration".into()),
        ("query_range", "query=up&start=1&end=2&step=0.0001", "invalid parameter \"step\": steps below one millisecond are not supported".into()),
        ("query_range", "query=up&start=0&end=11001&step=1", "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)".into()),
        ("query_range", "query=up&start=0&end=1&step=1&timeout=abc", "invalid parameter \"timeout\": cannot parse \"abc\" to a valid duration".into()),
        ("series", "", "no match[] parameter provided".into()),
        ("series", "match[]=up&x=%zz", "error parsing form values: invalid URL escape \"%zz\"".into()),
        ("series", "match[]=up&start=x", not_a_time("start", "x")),
        ("series", "match[]={a=\"\"}", "invalid parameter \"match[]\": match[] must contain at least one non-empty matcher".into()),
        ("series", "match[]=up&limit=-5", "invalid parameter \"limit\": limit must be non-negative".into()),
        ("labels", "end=x", not_a_time("end", "x")),
        ("labels", "match[]={}", "match[] must contain at least one non-empty matcher".into()),
        ("query_exemplars", "query=up&start=2&end=1", "end timestamp must not be before start timestamp".into()),
        ("query_exemplars", "query=up&start=x", not_a_time("start", "x")),
    ] {
        assert_eq!(api.error(endpoint, form).await, (400, "bad_data".into(), text), "{endpoint}?{form}");
    }
    for (uri, text) in [
        ("metadata?limit=x", "limit must be a number"),
        ("metadata?limit_per_metric=x", "limit_per_metric must be a number"),
        ("status/tsdb?limit=0", "limit must be a positive number"),
        ("status/tsdb?limit=x", "limit must be a positive number"),
        ("status/tsdb?limit=10001", "limit must not exceed 10000"),
        ("rules?type=x", "invalid parameter \"type\": not supported value \"x\""),
        ("label/job/values?start=x", &not_a_time("start", "x")),
        ("label/job/values?match[]={", "1:2: parse error: unexpected end of input inside braces"),
    ] {
        let answer = api.get(uri).await;
        assert_eq!(answer.status, 400, "{uri}");
        assert_eq!(
            answer.json(),
            json!({"status": "error", "errorType": "bad_data", "error": text}),
            "{uri}"
        );
    }
}

#[tokio::test]
async fn instant_queries_of_each_type() {
    let api = api();
    let answer = api.both("query", "query=1%2B1&time=1.5").await;
    assert_eq!(answer.text, r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"2"]}}"#);
    let answer = api.both("query", "query=%22a%3Cb%22&time=0").await;
    assert_eq!(answer.text, r#"{"status":"success","data":{"resultType":"string","result":[0,"a\u003cb"]}}"#);
    // Without a time it is now, which the clock says is 600 s.
    let answer = api.both("query", "query=sum(up)").await;
    assert_eq!(
        answer.text,
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[600,"2"]}]}}"#
    );
    let answer =
        api.both("query", "query=up%7Binstance%3D%22a%3A9100%22%7D%5B30s%5D&time=1970-01-01T00:01:00Z").await;
    assert_eq!(
        answer.text,
        r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"up","instance":"a:9100","job":"node"},"values":[[45,"1"],[60,"1"]]}]}}"#
    );
    let answer = api.both("query", "query=nothing").await;
    assert_eq!(answer.text, r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#);
}

#[tokio::test]
async fn range_queries_limits_statistics_and_remarks() {
    let api = api();
    let answer = api.both("query_range", "query=sum by (instance)(up)&start=0&end=30&step=15").await;
    assert_eq!(
        answer.text,
        r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"instance":"a:9100"},"values":[[0,"1"],[15,"1"],[30,"1"]]},{"metric":{"instance":"b:9100"},"values":[[0,"1"],[15,"1"],[30,"1"]]}]}}"#
    );
    // 11,000 steps and one more point are still fine.
    let data = api.data("query_range", "query=vector(1)&start=0&end=11000&step=1").await;
    assert_eq!(data["result"][0]["values"].as_array().unwrap().len(), 11_001);

    let cut = api.both("query", "query=http_requests_total&limit=2").await.json();
    assert_eq!(cut["data"]["result"].as_array().unwrap().len(), 2);
    assert_eq!(cut["warnings"], json!(["results truncated due to limit"]));
    let cut = api.both("query_range", "query=up&limit=1&start=0&end=15&step=15").await.json();
    assert_eq!(cut["data"]["result"].as_array().unwrap().len(), 1);
    assert_eq!(cut["warnings"], json!(["results truncated due to limit"]));
    assert_eq!(api.data("query", "query=up&limit=2").await["result"].as_array().unwrap().len(), 2);
    assert_eq!(api.data("query", "query=up&limit=0").await["result"].as_array().unwrap().len(), 2);

    let stats = api.get("query?query=up&stats=all").await.json()["data"]["stats"].clone();
    assert!(stats["timings"]["execTotalTime"].as_f64().unwrap() > 0.0, "{stats}");
    assert_eq!(stats["timings"].as_object().unwrap().len(), 6);
    assert!(stats["samples"]["samplesRead"].as_u64().unwrap() >= 2, "{stats}");
    let odd = api.get("query?query=up&stats=yes").await.json();
    assert!(odd["data"]["stats"].is_object());
    assert_eq!(
        odd["warnings"],
        json!([
            "value \"yes\" for parameter \"stats\" is deprecated and will be rejected in the next major release, use \"true\" or \"all\""
        ])
    );
    assert!(api.data("query", "query=up").await.get("stats").is_none());

    let per_step =
        api.get("query_range?query=rate(up[30s])&start=30&end=45.5&step=15&stats=all").await.json();
    let samples = &per_step["data"]["stats"]["samples"];
    assert_eq!(samples["totalQueryableSamplesPerStep"], json!([[30, 4], [45, 4]]));
    assert_eq!(samples["samplesReadPerStep"], json!([[30, 4], [45, 2]]));
    assert_eq!((&samples["totalQueryableSamples"], &samples["samplesRead"]), (&json!(8), &json!(6)));
    let totals =
        api.get("query_range?query=rate(up[30s])&start=30.5&end=45.5&step=15&stats=true").await.json();
    let samples = totals["data"]["stats"]["samples"].as_object().unwrap();
    assert_eq!(samples.keys().collect::<Vec<_>>(), ["peakSamples", "samplesRead", "totalQueryableSamples"]);

    // The last samples stand at 990 s: seen with a long lookback only.
    assert_eq!(api.data("query", "query=up&time=2000").await["result"], json!([]));
    assert_eq!(
        api.data("query", "query=up&time=2000&lookback_delta=20m").await["result"].as_array().unwrap().len(),
        2
    );

    let noted = api.get("query?query=rate(up[1m])&time=600").await.json();
    assert_eq!(
        noted["infos"],
        json!([
            "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"up\" (1:6)"
        ])
    );
}

#[tokio::test]
async fn a_form_in_the_body_comes_before_the_url() {
    let api = api();
    let answer = api.post("query?query=2&time=5", "query=1").await;
    assert_eq!(answer.text, r#"{"status":"success","data":{"resultType":"scalar","result":[5,"1"]}}"#);
    // Without the content type of a form the body says nothing.
    let request = Request::post("/api/v1/query?query=2&time=5").body(Body::from("query=1")).unwrap();
    assert_eq!(api.send(request).await.json()["data"]["result"], json!([5, "2"]));
    let many = api.post("series?match[]=up", "match[]=http_requests_total{code=\"200\"}").await.json();
    assert_eq!(many["data"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn series_labels_and_values() {
    let api = api();
    let up = |instance: &str| json!({"__name__": "up", "instance": instance, "job": "node"});
    assert_eq!(api.data("series", "match[]=up").await, json!([up("a:9100"), up("b:9100")]));
    assert_eq!(
        api.data("series", "match[]=up&match[]=up{instance=\"a:9100\"}").await,
        json!([up("a:9100"), up("b:9100")])
    );
    assert_eq!(api.data("series", "match[]=nothing").await, json!([]));
    assert_eq!(api.data("series", "match[]=up&start=5000&end=6000").await, json!([]));
    let cut = api.both("series", "match[]=up&limit=1").await.json();
    assert_eq!(
        cut,
        json!({"status": "success", "data": [up("a:9100")], "warnings": ["results truncated due to limit"]})
    );

    assert_eq!(api.data("labels", "").await, json!(["__name__", "code", "http.path", "instance", "job"]));
    assert_eq!(api.data("labels", "match[]=up").await, json!(["__name__", "instance", "job"]));
    let cut = api.both("labels", "limit=1").await.json();
    assert_eq!(
        cut,
        json!({"status": "success", "data": ["__name__"], "warnings": ["results truncated due to limit"]})
    );

    for (uri, want) in [
        ("label/job/values", json!(["node"])),
        ("label/__name__/values", json!(["http_requests_total", "up"])),
        (
            "label/__name__/values?match[]={code=\"200\"}&match[]={job=\"node\",instance=\"a:9100\"}",
            json!(["http_requests_total", "up"]),
        ),
        ("label/U__http_2e_path/values", json!(["/<x>"])),
        ("label/http.path/values", json!(["/<x>"])),
        ("label/nothing/values", json!([])),
        ("label/__name__/values?match[]={__name__!=\"\"}&limit=40000", json!(["http_requests_total", "up"])),
        ("label/code/values?start=0&end=10", json!(["200", "404", "500"])),
        ("label/code/values?start=1e6", json!([])),
    ] {
        let answer = api.get(uri).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["data"]), (200, &want), "{uri}");
    }
    assert!(api.get("label/http.path/values").await.text.contains(r#"["/\u003cx\u003e"]"#));
    assert_eq!(api.post("label/job/values", "").await.status, 405);
    assert_eq!(api.get("label/U__/values").await.json()["error"], "invalid label name: \"\"");
}

#[tokio::test]
async fn metadata_is_limited_in_two_ways() {
    let api = api();
    let all = api.get("metadata").await;
    assert_eq!(
        all.text,
        r#"{"status":"success","data":{"http_requests_total":[{"type":"counter","unit":"","help":"Requests."}],"up":[{"type":"gauge","unit":"","help":"Is it \u003cup\u003e?"},{"type":"unknown","unit":"","help":""}]}}"#
    );
    let keys = async |uri: &str| -> Vec<String> {
        api.get(uri).await.json()["data"].as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(keys("metadata?limit=1").await, ["http_requests_total"]);
    assert_eq!(keys("metadata?limit=0").await, [""; 0]);
    assert_eq!(keys("metadata?limit=40000").await.len(), 2);
    assert_eq!(keys("metadata?metric=up").await, ["up"]);
    assert_eq!(
        api.get("metadata?limit_per_metric=1").await.json()["data"]["up"].as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn the_parser_is_on_offer() {
    let api = api();
    assert_eq!(api.data("format_query", "query=foo/bar").await, json!("foo / bar"));
    assert_eq!(
        api.error("format_query", "query=invalid_expression/").await,
        (
            400,
            "bad_data".into(),
            "invalid parameter \"query\": 1:20: parse error: unexpected end of input".into()
        )
    );
    let tree = api.data("parse_query", "query=sum by (job)(rate(foo{a!=\"b\"}[5m] offset 1m @ 3)) %2B on(x) group_left(y) (-bar) > bool 2").await;
    assert_eq!(tree["type"], "binaryExpr");
    assert_eq!((&tree["op"], &tree["bool"]), (&json!(">"), &json!(true)));
    assert_eq!(tree["rhs"], json!({"type": "numberLiteral", "val": "2"}));
    assert_eq!(tree["matching"], Value::Null);
    let plus = &tree["lhs"];
    assert_eq!(
        plus["matching"],
        json!({"card": "many-to-one", "labels": ["x"], "on": true, "include": ["y"], "fillValues": {"lhs": null, "rhs": null}})
    );
    assert_eq!(plus["rhs"]["type"], "parenExpr");
    assert_eq!(
        (&plus["rhs"]["expr"]["type"], &plus["rhs"]["expr"]["op"]),
        (&json!("unaryExpr"), &json!("-"))
    );
    let sum = &plus["lhs"];
    assert_eq!(
        (&sum["type"], &sum["op"], &sum["grouping"]),
        (&json!("aggregation"), &json!("sum"), &json!(["job"]))
    );
    assert_eq!((&sum["param"], &sum["without"]), (&Value::Null, &json!(false)));
    let rate = &sum["expr"];
    assert_eq!(
        rate["func"],
        json!({"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"})
    );
    assert_eq!(
        rate["args"][0],
        json!({
            "type": "matrixSelector", "name": "foo", "range": 300_000, "rangeExpr": null, "offset": 60_000,
            "offsetExpr": null, "timestamp": 3000, "startOrEnd": null, "anchored": false, "smoothed": false,
            "matchers": [{"name": "a", "type": "!=", "value": "b"}, {"name": "__name__", "type": "=", "value": "foo"}],
        })
    );
    let tree = api.data("parse_query", "query=max_over_time(foo[1h:5m] @ end())").await;
    assert_eq!(tree["args"][0]["type"], "subquery");
    assert_eq!((&tree["args"][0]["step"], &tree["args"][0]["startOrEnd"]), (&json!(300_000), &json!("end")));
    // A long chain is walked without depth of its own.
    let chain = vec!["1"; 1500].join("%2B");
    let tree = api.both("parse_query", &format!("query={chain}")).await;
    assert_eq!(tree.status, 200);
    assert_eq!(tree.text.matches("binaryExpr").count(), 1499);
}

#[tokio::test]
async fn exemplars_are_an_empty_list_or_nothing() {
    let api = api();
    // Grafana asks with milliseconds where seconds are meant.
    let asked = api.both("query_exemplars", "query=test&start=1700000000000&end=1700003600000").await;
    assert_eq!((asked.status.as_u16(), asked.text.as_str()), (200, r#"{"status":"success","data":[]}"#));
    let nothing = api.both("query_exemplars", "query=1%2B1").await;
    assert_eq!((nothing.status.as_u16(), nothing.text.as_str()), (204, ""));
}

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
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.json()["errorType"], "not_found");
    let wrong = api.send(Request::delete("/api/v1/query").body(Body::empty()).unwrap()).await;
    assert_eq!(wrong.status, 405);
    assert_eq!(wrong.json()["status"], "error");
    let allow = wrong.headers[header::ALLOW].to_str().unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
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
async fn storage_errors_get_upstreams_types() {
    for (error, status, kind) in [
        (SourceError::Canceled, 499, "canceled"),
        (SourceError::TimedOut, 503, "timeout"),
        (SourceError::Limit("too many samples".into()), 422, "execution"),
        (SourceError::Storage("disk on fire".into()), 500, "internal"),
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

#[tokio::test]
async fn a_process_that_is_not_ready_says_so_plainly() {
    let api = api();
    for (readiness, stopping) in [(1, "false"), (2, "true")] {
        api.storage.readiness.store(readiness, Ordering::Relaxed);
        let answer = api.get("query?query=1").await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (503, "Service Unavailable"));
        assert_eq!(answer.headers["x-prometheus-stopping"], stopping);
        assert_eq!(api.get("status/walreplay").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_cancels_its_query() {
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
async fn the_wait_for_a_place_counts_towards_the_timeout() {
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
async fn figures_are_kept_by_endpoint_and_error() {
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

#[tokio::test]
async fn engine_options_reach_the_engine() {
    let api = api_of(Arc::new(sample_data()), |c| {
        c.engine = EngineOptions { max_samples: 3, ..EngineOptions::default() };
    });
    let (status, kind, text) = api.error("query", "query=http_requests_total[10m]").await;
    assert_eq!((status, kind.as_str()), (422, "execution"));
    assert!(text.starts_with("query processing would load too many samples into memory"), "{text}");
}

/// Says that windows of an hour answered until 300 s, of five minutes until 600 s and samples from there on.
struct Told(MemorySource);

impl Source for Told {
    fn select(&self, wish: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        let windows = &wish.hints.windows;
        for (min_t_ms, max_t_ms, resolution_ms) in
            [(1, 300_000, 3_600_000), (300_001, 600_000, 300_000), (600_001, 900_000, 0)]
        {
            let coarse = resolution_ms > windows.max_resolution_ms;
            let approximate = false;
            let part = tsdb::source::AnsweredPart { min_t_ms, max_t_ms, resolution_ms, coarse, approximate };
            windows.answered.as_ref().expect("every selection of a query can tell").note(part);
        }
        self.0.select(wish)
    }

    fn series(&self, wish: &LabelWish) -> Result<Vec<Labels>, SourceError> {
        self.0.series(wish)
    }
}

#[tokio::test]
async fn an_answer_says_which_resolution_it_came_from() {
    let api = api_of(Arc::new(Told(sample_data())), |_| {});
    // More evaluations than are told apart one by one, each at a multiple of five minutes.
    let range = "start=0&end=6000&step=300&query=sum(up)";
    let answer = api.get(&format!("query_range?{range}&stats=true")).await;
    assert_eq!(
        answer.headers["x-hearth-resolution"],
        "~1h=1970-01-01T00:00:00.001Z/1970-01-01T00:05:00Z;5m=1970-01-01T00:05:00.001Z/1970-01-01T00:10:00Z;\
         raw=1970-01-01T00:10:00.001Z/1970-01-01T00:15:00Z"
    );
    let json = answer.json();
    let parts = json["data"]["stats"]["resolutions"].as_array().unwrap();
    assert_eq!(parts.len(), 3);
    assert_eq!(
        parts[1],
        json!({"resolution": "5m", "start": "1970-01-01T00:05:00.001Z", "end": "1970-01-01T00:10:00Z", "exact": true})
    );
    let warning = json["warnings"][0].as_str().unwrap();
    assert!(warning.contains("downsampled to 1h") && warning.contains("nothing finer is kept"), "{warning}");
    // What is asked for is not remarked on as missing; with `raw` nothing coarser is exact.
    let allowed = api.get(&format!("query_range?{range}&max_source_resolution=1h")).await;
    assert!(allowed.json()["warnings"][0].as_str().unwrap().contains("as max_source_resolution allows"));
    for (value, approximate) in
        [("auto", 1), ("5m", 1), ("0s", 2), ("0", 2), ("raw", 2), ("300", 1), ("1h0m", 1)]
    {
        let answer = api.get(&format!("query_range?{range}&max_source_resolution={value}")).await;
        let told = answer.headers["x-hearth-resolution"].to_str().unwrap();
        assert_eq!(told.matches('~').count(), approximate, "{value}: {told}");
    }
    for bad in ["coarse", "-5m", "-1"] {
        let (status, kind, text) = api.error("query", &format!("query=up&max_source_resolution={bad}")).await;
        assert_eq!((status, kind.as_str()), (400, "bad_data"), "{text}");
        assert!(text.contains("max_source_resolution"), "{text}");
    }
    // Nothing was read; samples alone.
    assert!(!api.get("query?query=1%2B1").await.headers.contains_key("x-hearth-resolution"));
    let plain = self::api().get("query?query=up&time=600").await;
    assert_eq!(plain.headers["x-hearth-resolution"], "raw=1970-01-01T00:05:00.001Z/1970-01-01T00:10:00Z");
}

#[tokio::test]
async fn explain_shows_the_plan_and_what_it_did() {
    let api = api();
    let plan = api.data("explain", "query=sum(rate(up[1m]))&start=60&end=120&step=30").await;
    assert_eq!(plan["lookback"], 300);
    assert!(plan.get("stats").is_none());
    let sum = &plan["plan"];
    assert_eq!((&sum["kind"], &sum["name"]), (&json!("aggregation"), &json!("sum")));
    assert_eq!(
        (&sum["text"], &sum["span"], &sum["steps"]),
        (&json!("sum(rate(up[1m]))"), &json!([0, 17]), &json!(3))
    );
    assert!(sum.get("analysis").is_none());
    let up = &sum["children"][0]["children"][0];
    assert_eq!(up["kind"], "matrixSelector");
    assert_eq!(
        up["selector"],
        json!({
            "matchers": ["__name__=\"up\""], "offset": 0, "at": null, "reads": {"start": 0.001, "end": 120},
            "selection": 0, "shared": false, "hints": {"step": 30, "range": 60, "func": "rate"}
        })
    );
    assert_eq!(up["window"], json!({"range": 60, "offset": 0, "at": null}));

    let answer = api.get("explain?query=sum(up)&time=60&analyze=true").await.json();
    let (plan, stats) = (&answer["data"]["plan"], &answer["data"]["stats"]);
    assert_eq!(plan["analysis"]["series"], 1);
    assert_eq!(plan["children"][0]["analysis"]["series"], 2);
    assert_eq!(plan["children"][0]["analysis"]["samplesRead"], plan["analysis"]["totalSamplesRead"]);
    assert_eq!(stats["samples"]["samplesRead"], 2);
    assert!(plan["analysis"]["totalTime"].as_f64() <= stats["timings"]["execTotalTime"].as_f64());
    assert_eq!(
        api.get("explain?query=rate(up[1m])&analyze=1").await.json()["infos"].as_array().unwrap().len(),
        1
    );

    let bad = |text: &str| (400, "bad_data".to_string(), text.to_string());
    for (form, error) in [
        ("query=up&analyze=x", "invalid parameter \"analyze\": \"x\" is neither true nor false"),
        ("query=up&start=1", "invalid parameter \"end\": cannot parse \"\" to a valid timestamp"),
        (
            "query=up[1m]&start=1&end=2&step=1",
            "invalid parameter \"query\": invalid expression type \"range vector\" for range query, must be Scalar or instant Vector",
        ),
        (
            "query=",
            "invalid parameter \"query\": unknown position: parse error: no expression found in input",
        ),
    ] {
        assert_eq!(api.error("explain", form).await, bad(error), "{form}");
    }
    // A chain is as deep in JSON as it is long; what reads it has to be ready for that, what writes it is.
    let chain = format!("query=up{}&analyze=true", "%2B1".repeat(1_500));
    let answer = api.post("explain", &chain).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text.matches("\"kind\":\"binaryExpr\"").count(), 1_500);
}
