//! Traces of a write and of queries as an OpenTelemetry collector gets them, and the exemplars that lead
//! there.

mod test_services;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use test_services::{Start, now_ms, series, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// What stands at `/v1/traces` of a collector: it takes every request and keeps its spans.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Value>>>);

impl Collector {
    fn start() -> (Collector, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let collector = Collector::default();
        let kept = collector.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = kept.clone();
                std::thread::spawn(move || kept.serve(stream));
            }
        });
        (collector, port)
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
        let mut writer = stream;
        loop {
            let (mut first, mut length) = (String::new(), 0);
            if reader.read_line(&mut first).unwrap_or(0) == 0 {
                return;
            }
            assert!(first.starts_with("POST /v1/traces "), "{first}");
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a header");
                let line = line.trim().to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a number");
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            let message: Value = serde_json::from_slice(&body).expect("JSON");
            let resource = &message["resourceSpans"][0];
            assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "hearth");
            let spans = resource["scopeSpans"][0]["spans"].as_array().expect("spans").clone();
            self.0.lock().expect("a lock").extend(spans);
            writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").expect("an answer");
        }
    }

    /// The spans of a trace by name, once all of these are there.
    fn wait(&self, trace: &str, names: &[&str]) -> Vec<Value> {
        wait_for(&format!("{names:?} of {trace}"), PATIENCE, || {
            let spans: Vec<Value> =
                self.0.lock().expect("a lock").iter().filter(|s| s["traceId"] == trace).cloned().collect();
            names.iter().map(|name| spans.iter().find(|s| s["name"] == *name).cloned()).collect()
        })
    }
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let all = span["attributes"].as_array().expect("attributes");
    all.iter().find(|a| a["key"] == key).map_or(&Value::Null, |a| &a["value"])
}

#[test]
fn traces_of_what_nobody_asked_for_reach_a_collector() {
    let (collector, port) = Collector::start();
    let folder = tempfile::tempdir().expect("a folder");
    let rules = folder.path().join("rules.yml");
    let text = "groups:\n- name: g\n  interval: 1s\n  rules:\n  - {record: a, expr: 'sum(up)'}\n  - {record: b, expr: 'up * on() up'}\n";
    std::fs::write(&rules, text).expect("a file");
    let config = format!(
        "traces: {{endpoint: 'http://127.0.0.1:{port}'}}\nself_metrics_interval: 0\nlog: {{level: warn}}\n\
         rules: {{files: ['{}']}}\n",
        rules.display()
    );
    let hearth = Start::at(folder.path()).config(&config).ready();
    let up = |n: &str| series(&[("__name__", "up"), ("n", n)], &[(now_ms(), 1.0)]);
    hearth.api.write(&[up("1"), up("2")]);
    let whole = |name: &str, below: &[&str]| {
        wait_for(&format!("{below:?} below {name}"), PATIENCE, || {
            let spans = collector.0.lock().expect("a lock").clone();
            let mut found = spans.iter().filter(|s| s["name"] == name);
            found.find_map(|top| {
                let of = |below: &&str| {
                    spans.iter().find(|s| s["name"] == **below && s["traceId"] == top["traceId"]).cloned()
                };
                Some((top.clone(), below.iter().map(of).collect::<Option<Vec<Value>>>()?))
            })
        })
    };
    let (group, below) = whole("evaluate_group", &["evaluate_rule"]);
    assert_eq!(attribute(&group, "group")["stringValue"], "g");
    assert_eq!(below[0]["parentSpanId"], group["spanId"]);
    let failed = wait_for("a rule that failed", PATIENCE, || {
        let spans = collector.0.lock().expect("a lock").clone();
        spans.into_iter().find(|s| s["name"] == "evaluate_rule" && s["status"]["code"] == 2)
    });
    assert_eq!(attribute(&failed, "rule")["stringValue"], "b");
    hearth.api.flush();
    let (flush, below) = whole("flush", &["seal", "flush_tenant"]);
    assert_eq!(attribute(&flush, "blocks")["intValue"], "1");
    assert!(below.iter().all(|s| s["parentSpanId"] == flush["spanId"]), "{below:?}");
}

#[test]
fn traces_of_a_compaction_reach_a_collector() {
    const HOUR_MS: i64 = 3_600_000;
    let (collector, port) = Collector::start();
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!(
        "traces: {{endpoint: 'http://127.0.0.1:{port}'}}\nself_metrics_interval: 0\nlog: {{level: warn}}\n\
         compactor: {{interval: 200ms}}\n"
    );
    let hearth = Start::at(folder.path()).config(&config).ready();
    // A half day that is over, in four blocks.
    let begin = (now_ms() / (12 * HOUR_MS) - 6) * 12 * HOUR_MS;
    for part in 0..4 {
        let from = begin + part * 3 * HOUR_MS;
        let samples: Vec<_> = (0..60).map(|i| (from + i * 60_000, i as f64)).collect();
        hearth.api.write(&[series(&[("__name__", "up")], &samples)]);
        hearth.api.flush();
    }
    let number = |span: &Value, key: &str| -> i64 {
        attribute(span, key)["intValue"].as_str().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    let merged = wait_for("a span of a job that merges", PATIENCE, || {
        let spans = collector.0.lock().expect("a lock").clone();
        let mut jobs = spans.into_iter().filter(|s| s["name"] == "compact");
        jobs.find(|s| number(s, "inputs") > 1 && number(s, "samples_written") > 0)
    });
    assert_eq!(merged["parentSpanId"].as_str().unwrap_or_default(), "", "it begins a trace");
    assert_eq!(attribute(&merged, "tenant")["stringValue"], "default");
    assert!(attribute(&merged, "why")["stringValue"].as_str().is_some_and(|why| !why.is_empty()), "{merged}");
    // The samples, and rollups of them.
    assert!(number(&merged, "outputs") >= 1, "{merged}");
    assert!(number(&merged, "samples_read") >= number(&merged, "samples_written"), "{merged}");
    assert_eq!(merged["status"], Value::Null);
}

#[test]
fn exemplars_of_own_metrics_are_stored_and_lead_to_traces() {
    let (_collector, port) = Collector::start();
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!(
        "traces: {{endpoint: 'http://127.0.0.1:{port}'}}\nself_metrics_interval: 1s\nlog: {{level: warn}}\n"
    );
    let hearth = Start::at(folder.path()).config(&config).ready();
    assert_eq!(hearth.api.get("/api/v1/labels", &[]).status, 200);
    let query = "hearth_http_request_duration_seconds_bucket{handler=\"/api/v1/labels\"}";
    let (start, end) = ((now_ms() / 1000 - 60).to_string(), (now_ms() / 1000 + 60).to_string());
    let ask = || {
        let form = [("query", query), ("start", &start[..]), ("end", &end[..])];
        hearth.api.get("/api/v1/query_exemplars", &form).data()
    };
    let found = wait_for("an exemplar of the request", PATIENCE, || {
        Some(ask()).filter(|all| all.as_array().is_some_and(|all| !all.is_empty()))
    });
    let exemplars = &found[0]["exemplars"];
    let trace = exemplars[0]["labels"]["trace_id"].as_str().expect("a trace");
    assert!(trace.len() == 32 && exemplars[0]["timestamp"].as_f64().is_some(), "{found}");
    // Every further round shows the same one.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(ask()[0]["exemplars"].as_array().map(Vec::len), Some(1), "{}", ask());
}

#[test]
fn traces_of_queries_and_writes_reach_a_collector() {
    let (collector, port) = Collector::start();
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!(
        "traces: {{endpoint: 'http://127.0.0.1:{port}/'}}\nself_metrics_interval: 0\nlog: {{level: warn}}\n"
    );
    let hearth = Start::at(folder.path()).config(&config).ready();
    hearth.api.write(&[series(&[("__name__", "up")], &[(now_ms(), 1.0)])]);
    let ask = |query: &str, parent: &str| {
        let url = format!("http://127.0.0.1:{}/api/v1/query?query={query}", hearth.start.port);
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        agent.get(&url).header("traceparent", parent).call().expect("an answer").status().as_u16()
    };

    assert_eq!(ask("sum(up)", &format!("00-{TRACE}-{PARENT}-01")), 200);
    let spans = collector.wait(TRACE, &["request", "query", "evaluate"]);
    let [request, query, evaluate] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((request["parentSpanId"].as_str(), request["kind"].as_u64()), (Some(PARENT), Some(2)));
    assert_eq!(query["parentSpanId"], request["spanId"]);
    assert_eq!(evaluate["parentSpanId"], query["spanId"]);
    assert_eq!(attribute(request, "path")["stringValue"], "/api/v1/query");
    assert_eq!(attribute(request, "status")["intValue"], "200");
    assert_eq!(attribute(query, "tenant")["stringValue"], "default");
    assert_eq!(attribute(query, "samples")["intValue"], "1");
    assert_eq!(query["status"], Value::Null);

    // One that fails, and one that its client does not want to be traced.
    let failing = TRACE.replace("0af7", "1af7");
    assert_eq!(ask("sum(up%20*", &format!("00-{failing}-{PARENT}-01")), 400);
    let quiet = TRACE.replace("0af7", "2af7");
    assert_eq!(ask("up", &format!("00-{quiet}-{PARENT}-00")), 200);
    let failed = collector.wait(&failing, &["query"]).remove(0);
    assert_eq!(failed["status"]["code"], 2);
    assert!(failed["status"]["message"].as_str().is_some_and(|m| m.contains("parse error")), "{failed}");

    // The write had no parent: a trace of its own.
    let write = wait_for("the spans of a write", PATIENCE, || {
        let spans = collector.0.lock().expect("a lock").clone();
        let write = spans.iter().find(|s| s["name"] == "write")?.clone();
        let of = |name: &str| spans.iter().any(|s| s["name"] == name && s["parentSpanId"] == write["spanId"]);
        (of("decode") && of("commit")).then_some(write)
    });
    assert_eq!(attribute(&write, "samples")["intValue"], "1");
    assert!(collector.0.lock().expect("a lock").iter().all(|s| s["traceId"] != quiet.as_str()));

    // The server's own histogram leads to traces.
    let metrics = ureq::get(format!("http://127.0.0.1:{}/metrics", hearth.start.port))
        .header("Accept", "application/openmetrics-text;version=1.0.0")
        .call()
        .expect("an answer")
        .body_mut()
        .read_to_string()
        .expect("text");
    let exemplar = metrics.lines().find(|line| {
        line.starts_with("hearth_http_request_duration_seconds_bucket{") && line.contains("# {trace_id=\"")
    });
    assert!(exemplar.is_some(), "{metrics}");
    // What waits at the end is sent.
    let last = TRACE.replace("0af7", "3af7");
    assert_eq!(ask("up", &format!("00-{last}-{PARENT}-01")), 200);
    let mut hearth = hearth;
    assert!(hearth.stop().success());
    collector.wait(&last, &["request", "query", "evaluate"]);
}
