//! One binary, one minute: own metrics are there at once, and the server keeps its manners.

mod process;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use process::{Running, agent};
use serde_json::Value;

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
    let (status, text) = running.get("/metrics");
    assert_eq!(status, 200);
    assert!(text.ends_with("# EOF\n"));
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
        // Rules and notifications have upstream's names, which alerts in the wild watch.
        let known = ["hearth_", "process_", "prometheus_rule_", "prometheus_notifications_"];
        assert!(known.iter().any(|prefix| line.starts_with(prefix)), "{line}");
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
    assert_eq!(running.terminate().code(), Some(0));
    let again = running.again();
    assert_eq!(ask(&again).as_deref(), Some("2"), "one of before and one of now");
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
