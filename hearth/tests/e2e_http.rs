//! The server's manners on the wire: URLs as people type them, long queries, browsers led here by others,
//! clients that do not read, answers that are compressed, snapshots that a server starts on.

mod test_services;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use test_services::Running;
use test_services::command_line::{self, agent, hearth};

fn json(text: &str) -> Value {
    serde_json::from_str(text)
        .unwrap_or_else(|e| panic!("{e}: {}", text.chars().take(300).collect::<String>()))
}

fn connect(running: &Running) -> TcpStream {
    let stream = TcpStream::connect(running.address()).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout can be set");
    stream
}

/// Reads one answer with a length, or up to the end of the stream: status, head, body.
fn read_answer(stream: &mut TcpStream) -> (u16, String, Vec<u8>) {
    let mut all = Vec::new();
    let mut space = [0u8; 64 << 10];
    let head = loop {
        let n = stream.read(&mut space).expect("an answer");
        assert!(n > 0, "the connection was closed after {:?}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&space[..n]);
        if let Some(at) = all.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = String::from_utf8_lossy(&all[..head]).to_lowercase();
    let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
    while length.is_none_or(|l| all.len() < head + l) {
        match stream.read(&mut space).expect("the rest of an answer") {
            0 => break,
            n => all.extend_from_slice(&space[..n]),
        }
    }
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    (status, text, all[head..].to_vec())
}

/// Sends bytes on a connection of their own.
fn raw(running: &Running, bytes: &[u8]) -> (u16, String, String) {
    let mut stream = connect(running);
    let _ = stream.write_all(bytes);
    let (status, head, body) = read_answer(&mut stream);
    (status, head, String::from_utf8_lossy(&body).into_owned())
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

#[test]
fn urls_as_people_type_them_are_answered_as_prometheus_answers() {
    let running = Running::start(&[]);
    for target in [
        r#"/api/v1/query?query=up{job="hearth"}"#,
        r#"/api/v1/query?query=up{job=~"hearth|^x\\d"}"#,
        "/api/v1/query?query=up{job=`hearth`}",
        "/api/v1/query?query=up<2>0",
        "/api/v1/query?query=up#a+comment",
        "/api/v1/query?query=up{job!=\"\u{e9}\"}",
    ] {
        let (status, _, body) = raw(&running, &get(target));
        assert_eq!(status, 200, "{target}: {body}");
        assert_eq!(json(&body)["data"]["result"].as_array().map(Vec::len), Some(1), "{target}: {body}");
    }
    // Control characters and blanks are none of a URL's, in Go neither.
    for target in ["/api/v1/query?query=a b", "/api/v1/query?query=a\u{1}b", "/api/v1/query?query=a\u{7f}b"] {
        let (status, _, body) = raw(&running, &get(target));
        assert_eq!(status, 400, "{target:?}");
        assert!(!body.is_empty(), "{target:?}: a 400 says why");
    }
    // One after the other and all at once on one connection, with bodies in between.
    let mut stream = connect(&running);
    let form = "query=up{job=\"hearth\"}";
    let mut all = get(r#"/api/v1/query?query=up{job="hearth"}"#);
    all.extend_from_slice(
        format!("POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}", form.len()).as_bytes(),
    );
    all.extend(get(r#"/api/v1/labels?match[]={job="hearth"}"#));
    for part in all.chunks(7) {
        stream.write_all(part).expect("a part of the requests");
    }
    let mut answers = String::new();
    stream.set_read_timeout(Some(Duration::from_millis(1500))).expect("a timeout");
    let mut space = [0u8; 1 << 16];
    while answers.matches("HTTP/1.1 200").count() < 3 {
        let n = stream.read(&mut space).expect("three answers");
        assert!(n > 0, "{answers}");
        answers.push_str(&String::from_utf8_lossy(&space[..n]));
    }
    assert!(!answers.contains("HTTP/1.1 4"), "{answers}");
}

#[test]
fn paths_are_read_as_prometheus_router_reads_them() {
    let running = Running::start(&[]);
    let (status, head, _) = raw(&running, &get("/api/v1/label//values?start=1"));
    assert_eq!(status, 307, "{head}");
    assert!(head.contains("location: /api/v1/label/values?start=1\r\n"), "{head}");
    assert_eq!(raw(&running, &get("/api/v1/label/a%2Fb/values")).0, 404);
    assert_eq!(raw(&running, &get("/api/v1/%71uery?query=1")).0, 200);
    assert_eq!(raw(&running, &get("/api/v1/label/job/values")).0, 200);
    assert_eq!(raw(&running, &get("/api/v1/label/a%20b/values")).0, 200);
    assert_eq!(raw(&running, &get("/api/v1/label/%zz/values")).0, 400);
}

#[test]
fn long_queries_are_answered_and_longer_ones_refused_with_a_sentence() {
    let running = Running::start(&[]);
    let pods: Vec<String> = (0..400).map(|i| format!("namespace-{i}-deployment-{:032x}", i * 7919)).collect();
    let one = format!("count(up{{pod!~\"{}\"}})", pods.join("|"));
    let query = [one.as_str(); 4].join(" + ");
    assert!(query.len() > 64 << 10, "{}", query.len());
    let of = |body: &str| json(body)["data"]["result"][0]["value"][1].clone();
    let encoded: String = query.bytes().map(|b| format!("%{b:02X}")).collect();
    assert!(encoded.len() > 200_000);
    let (status, _, body) = raw(&running, &get(&format!("/api/v1/query?query={encoded}")));
    assert_eq!((status, of(&body)), (200, "4".into()), "GET, {} bytes: {body}", encoded.len());
    // Once more on the same connection, after a short one.
    let mut stream = connect(&running);
    for target in
        ["/api/v1/query?query=1", &format!("/api/v1/query?query={encoded}"), "/api/v1/query?query=2"]
    {
        stream.write_all(&get(target)).expect("a request");
        assert_eq!(read_answer(&mut stream).0, 200);
    }
    let post = |text: &str| {
        running.post("/api/v1/query", "application/x-www-form-urlencoded", format!("query={text}").as_bytes())
    };
    let (status, body) = post(&encoded);
    assert_eq!((status, of(&body)), (200, "4".into()), "{body}");
    // As long as Prometheus takes them.
    let (status, body) = post(&format!("up{}", "+".repeat(769_000)));
    assert_eq!(status, 200, "{}", body.chars().take(200).collect::<String>());
    let (status, body) = post(&"a".repeat((1 << 20) + 1));
    assert_eq!(status, 400);
    assert!(json(&body)["error"].as_str().is_some_and(|e| e.contains("1048576")), "{body}");
    let (status, _, body) = raw(&running, &get(&format!("/api/v1/query?query={}", "a".repeat(1 << 20))));
    assert_eq!(status, 414, "{body}");
    assert!(body.contains("http.max_url_bytes"), "{body}");
    let (status, _, body) =
        raw(&running, format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(3 << 20)).as_bytes());
    assert_eq!(status, 431, "{body}");
    assert!(body.contains("head"), "{body}");
    assert_eq!(running.get("/-/ready").0, 200);
}

#[test]
fn pages_of_other_origins_change_nothing() {
    let running = Running::start(&["--admin-api"]);
    let ask = |method: &str, path: &str, headers: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: 0\r\n\r\n",
            running.address()
        );
        raw(&running, request.as_bytes())
    };
    for (method, path) in [
        ("POST", "/api/v1/write"),
        ("POST", "/api/v1/push"),
        ("POST", "/-/flush"),
        ("POST", "/api/v1/admin/tsdb/delete_series?match[]=up"),
        ("PUT", "/api/v1/admin/tsdb/delete_series?match[]=up"),
        ("POST", "/api/v1/admin/tsdb/snapshot"),
    ] {
        for headers in [
            "Origin: http://evil.example\r\n",
            "Origin: null\r\n",
            "Origin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\n",
            "Sec-Fetch-Site: same-site\r\n",
        ] {
            let (status, _, body) = ask(method, path, headers);
            assert_eq!(status, 403, "{method} {path} {headers}");
            assert!(body.contains("http.write_origins"), "{body}");
        }
    }
    assert_eq!(
        json(&running.get("/api/v1/query?query=up").1)["data"]["result"].as_array().map(Vec::len),
        Some(1)
    );
    let own = format!("Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n", running.address());
    assert_eq!(ask("POST", "/-/flush", &own).0, 200);
    assert_eq!(ask("POST", "/-/flush", "").0, 200);
    assert_eq!(
        ask("POST", "/api/v1/query?query=1", "Origin: http://evil.example\r\n").0,
        200,
        "a question changes nothing"
    );
    // A name that somebody pointed here.
    let (status, _, body) =
        raw(&running, b"GET /api/v1/query?query=up HTTP/1.1\r\nHost: evil.example:9494\r\n\r\n");
    assert_eq!(status, 403);
    assert!(body.contains("http.allowed_hosts"), "{body}");

    let trusting = Running::start(&[
        "--http-write-origins",
        "https://(a|b)\\.example",
        "--http-cors-origin",
        "https://grafana\\.example",
        "--http-allowed-hosts",
        "metrics.example",
    ]);
    let ask = |request: &str| raw(&trusting, request.as_bytes());
    let flush = |origin: &str| {
        ask(&format!(
            "POST /-/flush HTTP/1.1\r\nHost: metrics.example\r\nOrigin: {origin}\r\nContent-Length: 0\r\n\r\n"
        ))
        .0
    };
    assert_eq!((flush("https://a.example"), flush("https://c.example")), (200, 403));
    let read = |origin: &str| {
        ask(&format!("GET /api/v1/query?query=1 HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n")).1
    };
    assert!(
        read("https://grafana.example").contains("access-control-allow-origin: https://grafana.example\r\n")
    );
    assert!(!read("https://evil.example").contains("access-control-allow-origin"));
}

#[test]
fn clients_that_do_not_read_lock_nobody_out() {
    let running = Running::start(&["--http-max-connections", "12", "--http-write-timeout", "3s"]);
    // Answers that no buffer between here and there holds.
    let big = get(
        "/api/v1/query_range?query=vector(1)+or+label_replace(vector(1),%22a%22,%22b%22,%22%22,%22%22)&start=0&end=10999&step=1",
    );
    let mut unread: Vec<TcpStream> = (0..12)
        .map(|_| {
            let mut stream = connect(&running);
            for _ in 0..80 {
                // The last ones wait in the kernel when the server does not read them any more.
                stream.set_write_timeout(Some(Duration::from_millis(50))).expect("a timeout");
                if stream.write_all(&big).is_err() {
                    break;
                }
            }
            stream
        })
        .collect();
    // While they are held, health is told.
    for _ in 0..5 {
        assert_eq!(running.get("/-/healthy").0, 200);
        assert_eq!(running.get("/-/ready").0, 200);
    }
    // And everybody else gets in, once those that do not read are let go.
    let begun = Instant::now();
    let answer = loop {
        let (status, body) = running.get("/api/v1/query?query=1");
        if status == 200 || begun.elapsed() > Duration::from_secs(40) {
            break (status, body);
        }
        assert_eq!(status, 503, "{body}");
    };
    assert_eq!(answer.0, 200, "{}", answer.1);
    unread.clear();
}

#[test]
fn gzip_is_offered_on_every_answer() {
    let running = Running::start(&[]);
    for (path, status) in [
        ("/api/v1/query?query=1", 200),
        ("/api/v1/series?match[]=nothing", 200),
        ("/api/v1/alerts", 200),
        ("/api/v1/nothing", 404),
        ("/api/v1/query?query=", 400),
        ("/-/healthy", 200),
        ("/metrics", 200),
        ("/", 200),
    ] {
        let mut stream = connect(&running);
        stream
            .write_all(
                format!(
                    "GET {path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n"
                )
                .as_bytes(),
            )
            .expect("a request");
        let (found, head, _) = read_answer(&mut stream);
        assert_eq!(found, status, "{path}");
        assert!(head.contains("content-encoding: gzip"), "{path}: {head}");
    }
}

#[test]
fn tenants_are_missing_and_doubled_alike_for_writes_and_queries() {
    let running = Running::start(&["--tenant-header", "X-Scope-OrgID"]);
    for line in
        ["GET /api/v1/query?query=up", "POST /api/v1/query", "GET /api/v1/labels", "POST /api/v1/write"]
    {
        let ask = |headers: &str| {
            raw(
                &running,
                format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{headers}\r\n").as_bytes(),
            )
        };
        assert_eq!(ask("").0, 401, "{line}");
        let two = "X-Scope-OrgID: default\r\nx-scope-orgid: default\r\n";
        assert_eq!(ask(two).0, 400, "{line}");
        assert_eq!(ask("X-Scope-OrgID: ../x\r\n").0, 400, "{line}");
    }
}

#[test]
fn passwords_in_urls_are_shown_nowhere() {
    let secret = "hunter2";
    let endpoint = format!("http://me:{secret}@127.0.0.1:1/?token={secret}");
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("h.yaml");
    std::fs::write(&file, format!("gcs:\n  endpoint: \"{endpoint}\"\nazure: {{endpoint: \"{endpoint}\"}}\n"))
        .expect("a file");
    let printed = hearth()
        .args(["config", "print", "--s3-endpoint", &endpoint, "--config"])
        .arg(&file)
        .output()
        .expect("it runs");
    let shown = command_line::text(&printed.stdout) + &command_line::text(&printed.stderr);
    assert!(printed.status.success() && shown.contains("***@127.0.0.1:1"), "{shown}");
    assert!(!shown.contains(secret), "{shown}");
    std::fs::write(&file, format!("s3:\n  secret_key: {secret}\n  endpiont: \"{endpoint}\"\n"))
        .expect("a file");
    let refused = hearth()
        .args([
            "config",
            "check",
            "--listen",
            &endpoint,
            "--objstore",
            &format!("s3://k:{secret}@b"),
            "--config",
        ])
        .arg(&file)
        .env("HEARTH_QUERY_TIMEOUT", &endpoint)
        .output()
        .expect("it runs");
    let shown = command_line::text(&refused.stdout) + &command_line::text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{shown}");
    assert!(!shown.contains(secret), "{shown}");

    let running = Running::start(&["--s3-endpoint", &endpoint]);
    for path in ["/api/v1/status/config", "/api/v1/status/flags", "/api/v1/status/runtimeinfo", "/metrics"] {
        let (status, body) = running.get(path);
        assert_eq!(status, 200);
        assert!(!body.contains(secret), "{path}: {body}");
    }
    assert!(!running.output().contains(secret), "{}", running.output());
}

#[test]
fn snapshots_are_what_a_server_starts_on_and_answers_from() {
    let running = Running::start(&["--admin-api", "--self-metrics-interval", "1s"]);
    let count = |of: &Running| {
        let (_, body) = of.get("/api/v1/query?query=sum(count_over_time(up[1h]))");
        json(&body)["data"]["result"][0]["value"][1]
            .as_str()
            .and_then(|n| n.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    for round in 0..3 {
        let least = count(&running);
        assert!(least > 0.0);
        let (status, body) = running.post("/api/v1/admin/tsdb/snapshot", "text/plain", b"");
        assert_eq!(status, 200, "{body}");
        let name = json(&body)["data"]["name"].as_str().expect("a name").to_owned();
        let most = count(&running);
        let snapshot = running.data_dir().join("snapshots").join(&name);
        assert!(snapshot.is_dir(), "{}", snapshot.display());
        let copy = Running::start_on(&snapshot, &["--self-metrics-interval", "0"]);
        let found = count(&copy);
        assert!((least..=most).contains(&found), "round {round}: {found} of {least} to {most}");
        drop(copy);
    }
    let (status, body) = running.post("/api/v1/admin/tsdb/snapshot?skip_head=true", "text/plain", b"");
    assert_eq!(status, 200, "{body}");
    assert_eq!(running.post("/api/v1/admin/tsdb/snapshot?skip_head=maybe", "text/plain", b"").0, 400);
    let left: Vec<_> = std::fs::read_dir(running.data_dir().join("snapshots")).expect("a folder").collect();
    assert_eq!(left.len(), 4, "nothing half made stays: {left:?}");
    assert_eq!(agent().get(running.url("/-/ready")).call().expect("an answer").status(), 200);
}

#[test]
fn connection_that_is_old_ends_with_an_answer() {
    let running = Running::start(&["--http-max-connection-age", "2s"]);
    let mut stream = connect(&running);
    let mut ask = || {
        stream.write_all(&get("/api/v1/query?query=1")).expect("a request can be sent");
        read_answer(&mut stream)
    };
    let (status, head, _) = ask();
    assert!(status == 200 && !head.contains("connection: close"), "{head}");
    std::thread::sleep(Duration::from_millis(2300));
    let (status, head, _) = ask();
    assert!(status == 200 && head.contains("connection: close"), "{head}");
    assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
}

/// Sends all of a body before it looks for an answer, as Python's and Rust's clients do.
fn post_all_first(running: &Running, path: &str, headers: &str, bytes: usize) -> (u16, String) {
    let mut stream = connect(running);
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {bytes}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).expect("a head");
    let piece = vec![b'x'; 1 << 20];
    for sent in (0..bytes).step_by(piece.len()) {
        let piece = &piece[..piece.len().min(bytes - sent)];
        stream.write_all(piece).unwrap_or_else(|e| panic!("{path}: cut off after {sent} bytes: {e}"));
    }
    let (status, head, _) = read_answer(&mut stream);
    if head.contains("connection: close") {
        assert_eq!(stream.read(&mut [0]).expect("the end of the stream"), 0, "{path}");
    }
    (status, head)
}

#[test]
fn refusals_reach_clients_that_send_a_large_body_first() {
    let running = Running::start(&["--tenant-header", "X-Scope-OrgID"]);
    let tenant = "X-Scope-OrgID: default\r\n";
    let large = 50 << 20;
    for (path, headers, want) in [
        ("/api/v1/write", "", 401),
        ("/api/v1/write", tenant, 413),
        ("/api/v1/write", &*format!("{tenant}Content-Type: text/plain\r\n"), 415),
        ("/api/v1/write", &*format!("{tenant}Origin: http://evil.example\r\n"), 403),
        ("/api/v1/read", tenant, 400),
        ("/api/v1/nothing", tenant, 404),
        ("/-/ready", "", 405),
    ] {
        let (status, head) = post_all_first(&running, path, headers, large);
        assert_eq!(status, want, "{path} {headers}");
        // Whoever can stops sending; the handler of writes reads so much itself.
        assert!(head.contains("connection: close\r\n") || matches!(status, 413 | 415), "{head}");
    }
    // A client that has a library for it.
    let (status, body) = running.post("/api/v1/write", "application/x-protobuf", &vec![0; large]);
    assert_eq!(status, 401, "{body}");
    // Without a place the answer comes as well.
    let full = Running::start(&["--http-max-connections", "1"]);
    let answer = loop {
        // Whoever asked whether it is ready may still be about to leave.
        let mut only = connect(&full);
        only.write_all(&get("/api/v1/query?query=1")).expect("a request");
        if read_answer(&mut only).0 == 200 {
            let answer = post_all_first(&full, "/api/v1/write", "", large);
            break (answer, only);
        }
    };
    assert_eq!(answer.0.0, 503);
}

#[test]
fn refusal_of_a_small_body_keeps_the_connection_and_asks_for_none_that_waits() {
    let running = Running::start(&["--tenant-header", "X-Scope-OrgID"]);
    let mut stream = connect(&running);
    let body = "x".repeat(100_000);
    for _ in 0..3 {
        let head = format!(
            "POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("a head");
        stream.write_all(body.as_bytes()).expect("a body on a connection that goes on");
        let (status, head, _) = read_answer(&mut stream);
        assert!(status == 401 && !head.contains("connection: close"), "{head}");
    }
    let mut stream = connect(&running);
    let head = "POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("a head");
    let (status, head, _) = read_answer(&mut stream);
    assert!(status == 401 && head.contains("connection: close"), "{head}");
}
