//! A real Prometheus scrapes exemplars and sends them on; then it and Hearth are asked for them and answer
//! the same, also after a flush, a `kill -9`, and a start on an empty disk.

mod test_services;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use test_services::api::seconds;
use test_services::prometheus::Prometheus;
use test_services::{Api, Start, free_port, now_ms, wait_for};

/// A target that observes something between any two scrapes: OpenMetrics with an exemplar on a counter and on
/// two buckets.
fn target(port: u16) -> Arc<AtomicU64> {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    let scrapes = Arc::new(AtomicU64::new(0));
    let counted = scrapes.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let n = counted.fetch_add(1, Ordering::Relaxed) + 1;
            let at = now_ms() as f64 / 1000.0 - 0.25;
            let text = format!(
                "# TYPE requests counter
requests_total{{path=\"/a\"}} {n} # {{trace_id=\"c{n}\"}} 1.0 {at:.3}
requests_total{{path=\"/b\"}} {n}
# TYPE rpc_seconds histogram
rpc_seconds_bucket{{le=\"0.1\"}} {n} # {{trace_id=\"low{n}\",span_id=\"größe\"}} 0.054
rpc_seconds_bucket{{le=\"1.0\"}} {twice} # {{trace_id=\"high{n}\"}} {value} {at:.3}
rpc_seconds_bucket{{le=\"+Inf\"}} {twice}
rpc_seconds_sum {n}
rpc_seconds_count {twice}
# TYPE silent gauge
silent 1
# EOF
",
                twice = 2 * n,
                value = 0.1 + n as f64 / 1e7,
            );
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                text.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    scrapes
}

const QUERIES: &[&str] = &[
    "requests_total",
    "histogram_quantile(0.9, sum by (le) (rate(rpc_seconds_bucket[5m])))",
    r#"rpc_seconds_bucket{le="0.1"} or requests_total{path="/b"}"#,
    r#"{job="traced"}"#,
    "silent",
    "no_such_metric",
];

fn exemplars(api: &Api, query: &str, from_ms: i64, to_ms: i64) -> Value {
    let (from, to) = (seconds(from_ms), seconds(to_ms));
    let range = [("query", query), ("start", &*from), ("end", &*to)];
    api.get("/api/v1/query_exemplars", &range).data()
}

fn count(data: &Value) -> usize {
    data.as_array().expect("a list").iter().map(|s| s["exemplars"].as_array().expect("a list").len()).sum()
}

#[test]
fn prometheus_and_hearth_answer_the_same_exemplars() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scraped = free_port();
    let scrapes = target(scraped);
    let store = folder.path().join("bucket");
    let start = Start {
        objstore: Some(format!("file://{}", store.display())),
        ..Start::at(folder.path()).config("self_metrics_interval: 1h\n")
    };
    let hearth = start.ready();
    let url = format!("http://127.0.0.1:{}/api/v1/write", hearth.start.port);
    let prometheus = Prometheus::with_exemplars(folder.path(), scraped, &url);
    // Its sender does not send what was scraped before it ran.
    let seen = |least: usize| {
        move |api: &Api| Some(count(&exemplars(api, "requests_total", 0, now_ms()))).filter(|n| *n >= least)
    };
    wait_for("the first exemplars", Duration::from_secs(60), || seen(1)(&hearth.api));
    std::thread::sleep(Duration::from_secs(2));
    let from_ms = now_ms();
    let most = scrapes.load(Ordering::Relaxed) + 12;
    wait_for("twelve more scrapes", Duration::from_secs(60), || {
        (scrapes.load(Ordering::Relaxed) > most).then_some(())
    });
    let to_ms = now_ms() - 1000;
    let same = |api: &Api, when: &str| {
        for query in QUERIES {
            let want = exemplars(&prometheus.api, query, from_ms, to_ms);
            let got = wait_for(&format!("the exemplars of {query} {when}"), Duration::from_secs(20), || {
                Some(exemplars(api, query, from_ms, to_ms)).filter(|got| count(got) >= count(&want))
            });
            assert_eq!(got, want, "{query} {when}");
        }
    };
    same(&hearth.api, "in memory");
    assert!(count(&exemplars(&prometheus.api, r#"{job="traced"}"#, from_ms, to_ms)) > 25);
    let hearth = hearth.again();
    same(&hearth.api, "after a kill");
    hearth.api.flush();
    same(&hearth.api, "flushed");
    // What Prometheus sends meanwhile goes on in the log of the folder that is left behind.
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let mut other = hearth.start.clone();
    drop(hearth);
    other.folder = elsewhere.path().to_owned();
    let hearth = other.ready();
    same(&hearth.api, "on an empty disk");
}
