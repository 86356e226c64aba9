//! One binary, one minute: own metrics are there at once, and the server keeps its manners.

mod test_services;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use test_services::Running;
use test_services::command_line::agent;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn first_query_has_an_answer() {
    let running = Running::start(&[]);
    let (status, body) = running.get("/api/v1/query?query=up");
    assert_eq!(status, 200, "{body}");
    let answer = json(&body);
    let first = &answer["data"]["result"][0];
    assert_eq!(first["metric"]["job"], "hearth", "{body}");
    assert_eq!(first["metric"]["instance"], running.address().to_string());
    assert_eq!(first["value"][1], "1");
    let (_, body) = running.get("/api/v1/query?query=count(%7Bjob%3D%22hearth%22%7D)");
    let count: f64 =
        json(&body)["data"]["result"][0]["value"][1].as_str().expect("a number").parse().expect("a number");
    assert!(count > 30.0, "only {count} of its own series: {body}");
}

#[test]
fn own_metrics_parse_as_open_metrics_and_name_every_crate() {
    let running = Running::start(&[]);
    let metrics = |accept: &str| {
        let answer = agent().get(running.url("/metrics")).header("accept", accept).call();
        let mut answer = answer.expect("an answer");
        let kind = answer.headers()["content-type"].to_str().expect("text").to_owned();
        (kind, answer.body_mut().read_to_string().expect("text"))
    };
    let (kind, text) = metrics("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5");
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores");
    assert!(text.ends_with("# EOF\n"));
    let (kind, plain) = metrics("*/*");
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
    assert!(!plain.contains("# EOF") && !plain.contains("# UNIT"), "{plain}");
    assert!(plain.contains("# TYPE hearth_http_requests_total counter\n"), "{plain}");
    for name in [
        "hearth_http_",
        "hearth_ingest_",
        "hearth_query_",
        "hearth_tsdb_head_series ",
        "process_open_fds ",
        "hearth_build_info{",
    ] {
        assert!(text.lines().any(|l| l.starts_with(name)), "no {name} in\n{text}");
    }
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        // Rules, notifications and reloads have upstream's names, which alerts in the wild watch.
        let known =
            ["hearth_", "process_", "prometheus_config_", "prometheus_rule_", "prometheus_notifications_"];
        assert!(known.iter().any(|prefix| line.starts_with(prefix)), "{line}");
    }
}

#[test]
fn prometheus_own_endpoints_are_there_with_their_shapes() {
    let running =
        Running::start(&["--http-external-url", "https://metrics.example", "--http-route-prefix", "/"]);
    let data = |path: &str| {
        let (status, body) = running.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        json(&body)["data"].clone()
    };
    let features = data("/api/v1/features");
    for (category, name, on) in [
        ("api", "exclude_alerts", true),
        ("api", "search", false),
        ("promql_functions", "rate", true),
        ("promql_functions", "mad_over_time", false),
        ("promql_operators", "==", true),
        ("templating_functions", "humanize", true),
    ] {
        assert_eq!(features[category][name], on, "{category}.{name}");
    }
    let up = data("/api/v1/status/self_metrics?metric_name_pattern=hearth_http_requests_.*");
    let names: Vec<&str> = up.as_array().expect("a list").iter().filter_map(|f| f["name"].as_str()).collect();
    assert_eq!(names, ["hearth_http_requests_total", "hearth_http_requests_in_flight"]);
    assert_eq!(data("/api/v1/notifications"), serde_json::json!([]));
    assert_eq!(data("/api/v1/scrape_pools"), serde_json::json!({"scrapePools": []}));
    let (status, body) = running.get("/api/v1/scrape_pools/config?scrapePool=x");
    assert_eq!((status, json(&body)["errorType"].as_str()), (400, Some("bad_data")), "{body}");
    let (status, body) = running.get("/api/v1/search/metric_names");
    assert_eq!((status, json(&body)["error"].as_str()), (500, Some("search API disabled")), "{body}");
    assert_eq!(json(&running.get("/version").1)["version"], "3.14.0");
    let (_, yaml) = running.get("/api/v1/openapi.yaml");
    assert!(
        yaml.starts_with("openapi: 3.1.0\n") && yaml.contains("url: \"https://metrics.example\""),
        "{yaml}"
    );
    let flags = data("/api/v1/status/flags");
    assert_eq!(flags["web.external-url"], "https://metrics.example");
    let config = data("/api/v1/status/config");
    assert!(config["yaml"].as_str().is_some_and(|y| y.starts_with("global:\n")), "{config}");
    running.post("/-/flush", "text/plain", b"");
    let blocks = data("/api/v1/status/tsdb/blocks");
    let block = &blocks["blocks"][0];
    assert!(block["stats"]["numSamples"].as_u64() > Some(30), "{blocks}");
    assert_eq!((&block["version"], &block["compaction"]["level"]), (&1.into(), &0.into()), "{blocks}");
}

#[test]
fn notifications_are_told_live_until_the_process_stops() {
    let mut running = Running::start(&["--http-enable-lifecycle", "--shutdown-timeout", "30s"]);
    let mut stream = TcpStream::connect(running.address()).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    stream.write_all(b"GET /api/v1/notifications/live HTTP/1.1\r\nHost: x\r\n\r\n").expect("a request");
    let mut space = [0u8; 4096];
    let read = stream.read(&mut space).expect("a head");
    let mut answer = String::from_utf8_lossy(&space[..read]).into_owned();
    assert!(answer.contains("text/event-stream"), "{answer}");
    running.signal("TERM");
    // The stream ends by itself, long before the deadline.
    stream.read_to_string(&mut answer).expect("the rest");
    assert!(answer.contains("data: {\"text\":\"Prometheus is shutting down"), "{answer}");
    assert_eq!(running.wait().code(), Some(0), "{}", running.output());
}

#[test]
fn reload_that_fails_is_shown_until_one_succeeds() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rules.yml");
    let rules = |expr: &str| {
        let text = format!("groups:\n- name: g\n  rules:\n  - {{record: r, expr: '{expr}'}}\n");
        std::fs::write(&file, text).expect("a rule file can be written");
    };
    rules("up");
    let named = file.to_str().expect("text").to_owned();
    let running = Running::start(&["--http-enable-lifecycle", "--rules-files", &named]);
    let shown = || {
        let runtime = json(&running.get("/api/v1/status/runtimeinfo").1)["data"].clone();
        let notes = json(&running.get("/api/v1/notifications").1)["data"].clone();
        let texts: Vec<String> =
            notes.as_array().expect("a list").iter().map(|n| n["text"].to_string()).collect();
        (runtime["reloadConfigSuccess"].as_bool(), texts)
    };
    assert_eq!(shown(), (Some(true), vec![]));
    rules("up{");
    let (status, text) = running.post("/-/reload", "text/plain", b"");
    assert!(status == 500 && text.starts_with("failed to reload config: "), "{text}");
    assert_eq!(shown(), (Some(false), vec!["\"Configuration reload has failed.\"".to_owned()]));
    rules("up == 1");
    assert_eq!(running.post("/-/reload", "text/plain", b"").0, 200);
    assert_eq!(shown(), (Some(true), vec![]));
}

#[test]
fn route_prefix_stands_before_everything() {
    let running = Running::start(&["--http-external-url", "https://metrics.example/prom/"]);
    assert_eq!(running.get("/prom/-/ready").0, 200);
    assert_eq!(running.get("/-/ready").0, 404);
    assert_eq!(json(&running.get("/prom/api/v1/query?query=1").1)["status"], "success");
    let led = |path: &str| {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build()
            .into();
        let answer = agent.get(running.url(path)).call().expect("an answer");
        answer.headers().get("location").map(|l| l.to_str().expect("text").to_owned())
    };
    assert_eq!(led("/").as_deref(), Some("/prom/"));
    assert_eq!(led("/prom/api/v1//query").as_deref(), Some("/prom/api/v1/query"));
    assert_eq!(led("/prom/graph?g0.expr=up").as_deref(), Some("query?g0.expr=up"));
    let (status, page) = running.get("/prom/query");
    assert!(status == 200 && page.contains("<html"), "{page}");
}

#[test]
fn search_finds_names_by_a_part_of_them() {
    let running = Running::start(&["--enable-feature", "search-api"]);
    let lines = |path: &str| {
        let (status, body) = running.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        body.lines().map(json).collect::<Vec<_>>()
    };
    let found =
        lines("/api/v1/search/metric_names?search[]=head_series&include_score=true&sort_by=score&limit=1");
    // The gap after a match counts against the text's length: a longer name may be the better one.
    let first = &found[0]["results"][0];
    assert!(first["name"].as_str().is_some_and(|n| n.starts_with("hearth_tsdb_head_series")), "{found:?}");
    assert!(first["score"].as_f64().is_some_and(|s| s > 0.1 && s < 1.0), "{found:?}");
    assert_eq!(found[1], serde_json::json!({"status": "success", "has_more": true}));
    let none = lines("/api/v1/search/label_names?search[]=zzz");
    assert_eq!(
        none,
        [serde_json::json!({"results": []}), serde_json::json!({"status": "success", "has_more": false})]
    );
    let values = lines("/api/v1/search/label_values?label=job&batch_size=1");
    assert_eq!(values[0], serde_json::json!({"results": [{"value": "hearth"}]}));
    for wrong in
        ["label_values", "metric_names?limit=0", "metric_names?fuzz_alg=x", "label_names?sort_by=score"]
    {
        assert_eq!(running.get(&format!("/api/v1/search/{wrong}")).0, 400, "{wrong}");
    }
}

#[test]
fn flush_reports_what_it_wrote_and_answers_stay_the_same() {
    let running = Running::start(&["--self-metrics-interval", "1h"]);
    let ask = || {
        json(&running.get("/api/v1/query?query=count(%7Bjob%3D%22hearth%22%7D)").1)["data"]["result"][0]["value"][1].clone()
    };
    let before = ask();
    let (status, body) = running.post("/-/flush", "text/plain", b"");
    assert_eq!(status, 200, "{body}");
    let report = json(&body);
    assert_eq!(report["data"]["blocks"].as_array().map(Vec::len), Some(1), "{body}");
    assert!(report["data"]["samples"].as_u64() > Some(30), "{body}");
    assert_eq!(ask(), before);
    assert_eq!(running.get("/-/flush").0, 405, "a flush is asked for with POST");
}

#[test]
fn answers_are_compressed_for_those_who_ask() {
    let running = Running::start(&[]);
    for encoding in ["gzip", "zstd"] {
        let answer = agent()
            .get(running.url("/metrics"))
            .header("accept-encoding", encoding)
            .call()
            .expect("an answer");
        assert_eq!(answer.headers().get("content-encoding").map(|v| v.as_bytes()), Some(encoding.as_bytes()));
    }
}

#[test]
fn request_head_that_never_ends_is_cut_off_and_disturbs_nobody() {
    let running = Running::start(&["--http-header-timeout", "300ms"]);
    let mut slow: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(running.address()).expect("a connection");
            stream.write_all(b"GET / HTTP/1.1\r\nHost:").expect("the beginning of a head");
            stream
        })
        .collect();
    assert_eq!(running.get("/-/ready").0, 200);
    for stream in &mut slow {
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        // Closed, with or without an answer; what matters is that it ends.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert_eq!(running.get("/-/ready").0, 200);
}

#[test]
fn stop_waits_for_requests_in_flight() {
    let mut running = Running::start(&["--self-metrics-interval", "1h"]);
    let address = running.address().to_string();
    // A request whose head has arrived and whose body has not: it may finish after SIGTERM.
    let mut stream = TcpStream::connect(running.address()).expect("a connection");
    let body = b"query=vector(1)";
    let head = format!(
        "POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("a head");
    stream.write_all(&body[..5]).expect("a part");
    std::thread::sleep(Duration::from_millis(300));
    running.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    stream.write_all(&body[5..]).expect("the rest");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(running.wait().code(), Some(0), "{}", running.output());
    assert!(TcpStream::connect(&address).is_err(), "nobody listens any more");
}

#[test]
fn page_is_served() {
    let running = Running::start(&[]);
    let (status, page) = running.get("/");
    assert_eq!(status, 200);
    assert!(page.contains("<html") && page.contains("Hearth"), "{page}");
}

#[test]
fn signal_that_comes_second_ends_at_once() {
    let mut running = Running::start(&["--shutdown-timeout", "1h"]);
    let mut stream = TcpStream::connect(running.address()).expect("a connection");
    let head = "POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("a head, and never a body");
    // Until the request is seen, the stop would not have to wait for it.
    while !running.get("/metrics").1.contains("hearth_http_requests_in_flight 2") {
        std::thread::sleep(Duration::from_millis(10));
    }
    running.signal("TERM");
    while !running.output().contains("stopping") {
        std::thread::sleep(Duration::from_millis(10));
    }
    running.signal("TERM");
    assert_eq!(running.wait().code(), Some(143), "{}", running.output());
}

#[test]
fn own_metrics_outlive_a_restart() {
    let mut running = Running::start(&["--self-metrics-interval", "1h"]);
    let ask = |running: &Running| {
        let (_, body) = running.get("/api/v1/query?query=sum(count_over_time(up%5B1h%5D))");
        json(&body)["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    };
    assert_eq!(ask(&running).as_deref(), Some("1"));
    assert_eq!(running.stop().code(), Some(0));
    let again = running.again();
    assert_eq!(ask(&again).as_deref(), Some("2"), "one of before and one of now");
    let replay = json(&again.get("/api/v1/status/walreplay").1)["data"].clone();
    assert!(replay["max"].as_u64() > Some(0), "{replay}");
    assert_eq!(replay["current"], replay["max"], "all of it was replayed");
}

#[test]
fn tenants_are_told_apart_by_the_header_that_is_configured() {
    let running = Running::start(&["--tenant-header", "X-Scope-OrgID"]);
    assert_eq!(running.get("/api/v1/query?query=up").0, 401, "a request without a tenant is refused");
    let ask = |tenant: &str| {
        let url = running.url("/api/v1/query?query=up");
        let mut answer = agent().get(url).header("X-Scope-OrgID", tenant).call().expect("an answer");
        json(&answer.body_mut().read_to_string().expect("text"))["data"]["result"].as_array().map(Vec::len)
    };
    assert_eq!(ask("default"), Some(1));
    assert_eq!(ask("somebody-else"), Some(0));
}
