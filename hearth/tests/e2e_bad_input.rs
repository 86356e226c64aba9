//! Bad input gets a clear answer and nothing else: everything hostile the project has a word on goes to the
//! running binary over HTTP, while a client beside it keeps writing and querying good data and must not
//! notice.

mod test_services;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use test_services::api::{Answer, start_of};
use test_services::remote_write::{bytes_field, snappy, varint, write_request};
use test_services::{Api, Hearth, Model, Rng, Series, Start, now_ms, series, wait_for};

/// What the process may need at most beyond what it had before one bad request; a debug build with everything
/// else it does is in it.
const MORE_MEMORY_BYTES: u64 = 96 << 20;
/// And in all, whatever comes.
const MOST_MEMORY_BYTES: u64 = 700 << 20;

/// Good data beside the bad: a writer and a reader in one thread, each of whose requests must succeed.
struct Undisturbed {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<Model>,
    name: String,
}

impl Undisturbed {
    fn start(hearth: &Hearth, name: &str) -> Undisturbed {
        let stop = Arc::new(AtomicBool::new(false));
        let (api, stopped, name) = (Api::new(hearth.start.port), stop.clone(), name.to_owned());
        let metric = name.clone();
        let rounds = Arc::new(AtomicUsize::new(0));
        let done = rounds.clone();
        let thread = std::thread::spawn(move || {
            let mut model = Model::default();
            while !stopped.load(Ordering::Relaxed) {
                let (t, value) = (now_ms(), done.load(Ordering::Relaxed) as f64);
                let good = [series(&[("__name__", &metric), ("job", "good")], &[(t, value)])];
                api.write(&good);
                model.acknowledged(&good);
                assert_eq!(api.instant(&metric, t).single(), value, "the sample just written");
                done.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(15));
            }
            model
        });
        Undisturbed { stop, rounds, thread, name }
    }

    /// Lets it run for a few more rounds, and asserts that it never saw anything but good answers.
    fn finish(self, hearth: &Hearth) {
        let enough = self.rounds.load(Ordering::Relaxed) + 5;
        wait_for("a few more good requests", Duration::from_secs(60), || {
            (self.rounds.load(Ordering::Relaxed) >= enough || self.thread.is_finished()).then_some(())
        });
        self.stop.store(true, Ordering::Relaxed);
        let model = self.thread.join().expect("the client beside the bad ones saw only good answers");
        model.check(&hearth.api, &self.name, now_ms() + 1_000, 600_000, "beside bad input");
    }
}

/// Runs `bad` and holds that it cost no more memory than it may.
fn bounded<T>(hearth: &Hearth, what: &str, bad: impl FnOnce() -> T) -> T {
    let before = hearth.process.memory_bytes("VmHWM");
    let out = bad();
    let after = hearth.process.memory_bytes("VmHWM");
    assert!(
        after < before + MORE_MEMORY_BYTES,
        "{what}: the largest resident size grew from {} to {} MiB",
        before >> 20,
        after >> 20
    );
    assert!(after < MOST_MEMORY_BYTES, "{what}: {} MiB resident", after >> 20);
    out
}

fn at(labels: &[(&[u8], &[u8])], samples: &[(i64, f64)]) -> Series {
    Series {
        labels: labels.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect(),
        samples: samples.to_vec(),
        histograms: Vec::new(),
    }
}

/// A WriteRequest of one series with these labels and one good sample, compressed.
fn labelled(labels: &[(&[u8], &[u8])]) -> Vec<u8> {
    snappy(&write_request(&[at(labels, &[(now_ms(), 1.0)])]))
}

fn timed(timestamp_ms: i64) -> Vec<u8> {
    snappy(&write_request(&[series(&[("__name__", "bad_time"), ("job", "bad")], &[(timestamp_ms, 1.0)])]))
}

/// Snappy that declares more than it brings.
fn declares(length: u64, then: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, length);
    out.extend_from_slice(then);
    out
}

/// A valid snappy block of `length` zero bytes, a few hundredths of its size: a literal, then copies of it,
/// 64 bytes each.
fn bomb(length: u64) -> Vec<u8> {
    let mut out = declares(length, &[0x00, 0x00]);
    for _ in 0..(length - 1) / 64 {
        out.extend([(63 << 2) | 2, 1, 0]);
    }
    out
}

#[test]
fn bad_writes_get_a_clear_answer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hearth = Start::at(folder.path()).ready();
    let beside = Undisturbed::start(&hearth, "beside_writes");
    let good = write_request(&[series(&[("__name__", "cut"), ("job", "bad")], &[(now_ms(), 1.0); 1])]);
    let mut rng = Rng(99);
    let noise: Vec<u8> = (0..50_000).map(|_| rng.roll() as u8).collect();

    let many: Vec<(String, String)> =
        (0..10_000).map(|n| (format!("label_{n:05}"), "x".to_owned())).collect();
    let mut many: Vec<(&[u8], &[u8])> = many.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())).collect();
    many.insert(0, (b"__name__", b"bad_many"));
    let long = vec![b'x'; 1 << 20];

    let mut nested = Vec::new();
    for _ in 0..2_000 {
        let mut outer = Vec::new();
        bytes_field(&mut outer, 1, &nested);
        nested = outer;
    }
    let groups = vec![0x0b; 100_000];
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("noise instead of snappy", noise.clone()),
        ("nothing at all", Vec::new()),
        ("plain text", b"hello, this is not a write request".to_vec()),
        ("half of a snappy block", snappy(&good)[..snappy(&good).len() / 2].to_vec()),
        ("snappy of noise", snappy(&noise)),
        ("snappy of a message cut short", snappy(&good[..good.len() - 3])),
        ("snappy that declares 4 GiB", declares(u32::MAX.into(), &noise)),
        ("snappy that declares 1 GiB", declares(1 << 30, b"\x00a")),
        ("snappy that declares 2^60", declares(1 << 60, b"\x00a")),
        ("a bomb of 64 MiB", bomb(64 << 20)),
        ("a bomb of 30 MiB of nothing", bomb(30 << 20)),
        ("a length past the end", snappy(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3])),
        (
            "a number of eleven bytes",
            snappy(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ),
        ("messages 2,000 deep", snappy(&nested)),
        ("groups 100,000 deep", snappy(&groups)),
        ("field number zero", snappy(&[0x02, 0x01, 0x61])),
        ("10,000 labels", labelled(&many)),
        ("an empty label name", labelled(&[(b"", b"x"), (b"__name__", b"bad_empty")])),
        ("a label name twice", labelled(&[(b"__name__", b"bad_twice"), (b"a", b"1"), (b"a", b"2")])),
        ("the metric name twice", labelled(&[(b"__name__", b"bad_twice"), (b"__name__", b"bad_thrice")])),
        ("a value that is not UTF-8", labelled(&[(b"__name__", b"bad_utf8"), (b"a", b"\xff\xfe")])),
        ("a name that is not UTF-8", labelled(&[(b"__name__", b"bad_utf8"), (b"a\xc3\x28", b"x")])),
        ("a metric name that is not UTF-8", labelled(&[(b"__name__", b"\xed\xa0\x80")])),
        ("no metric name", labelled(&[(b"a", b"1")])),
        ("no labels", labelled(&[])),
        ("a name of 1 MiB", labelled(&[(b"__name__", b"bad_long"), (&long, b"x")])),
        ("a value of 1 MiB", labelled(&[(b"__name__", b"bad_long"), (b"a", &long)])),
        ("year 1", timed(-62_135_596_800_000)),
        ("year 30,000", timed(884_541_340_800_000)),
        ("the first moment there is", timed(i64::MIN)),
        ("the last moment there is", timed(i64::MAX)),
    ];
    for (what, body) in &cases {
        let answer = bounded(&hearth, what, || {
            hearth.api.try_write_raw(body).unwrap_or_else(|e| panic!("{what}: no answer: {e}"))
        });
        let error = clear(&answer, what, &[400]);
        eprintln!("{what}: {error}");
    }
    let big = vec![0u8; 40 << 20];
    let answer = bounded(&hearth, "40 MiB", || hearth.api.try_write_raw(&big));
    // The server may answer and close before it was sent all of it.
    if let Ok(answer) = answer {
        clear(&answer, "40 MiB", &[413]);
    }

    let (kind, body) = (("Content-Type", "application/x-protobuf"), snappy(&good));
    for (what, headers) in [
        ("text", vec![("Content-Type", "text/plain"), ("Content-Encoding", "snappy")]),
        ("JSON", vec![("Content-Type", "application/json"), ("Content-Encoding", "snappy")]),
        (
            "another message",
            vec![
                ("Content-Type", "application/x-protobuf;proto=no.such.Message"),
                ("Content-Encoding", "snappy"),
            ],
        ),
        ("gzip", vec![kind, ("Content-Encoding", "gzip")]),
    ] {
        clear(&hearth.api.post("/api/v1/write", &headers, &body), what, &[415]);
    }
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        assert_eq!(hearth.api.call(method, "/api/v1/write").status, 405, "{method}");
    }

    // Nothing of all that was stored.
    assert!(hearth.api.instant("{__name__=~'bad_.*|cut'}[1h]", now_ms() + 60_000).is_empty());
    beside.finish(&hearth);
}

#[test]
fn request_with_good_and_bad_series_keeps_the_good() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hearth = Start::at(folder.path()).ready();
    let now = now_ms();
    let all = [
        series(&[("__name__", "mixed_good"), ("n", "1")], &[(now, 1.0)]),
        at(&[(b"__name__", b"mixed_bad"), (b"a", b"\xff")], &[(now, 2.0)]),
        series(&[("__name__", "mixed_late")], &[(now, 3.0), (now + 365 * 86_400_000, 4.0)]),
        series(&[("__name__", "mixed_twice"), ("a", "1"), ("a", "2")], &[(now, 5.0)]),
        series(&[("__name__", "mixed_good"), ("n", "2")], &[(now, 6.0)]),
    ];
    let answer = hearth.api.try_write(&all).expect("an answer");
    let error = clear(&answer, "good and bad together", &[400]);
    assert!(
        error.contains("mixed_twice") || error.contains("mixed_bad"),
        "the answer names the bad: {error}"
    );
    let good = hearth.api.instant("sum by (n) (mixed_good)", now).vector();
    assert_eq!(
        good.into_values().map(|(_, v)| v).collect::<Vec<_>>(),
        vec![1.0, 6.0],
        "the good ones are kept"
    );
    assert!(
        hearth.api.instant("{__name__=~'mixed_(bad|twice)'}[1h]", now + 60_000).is_empty(),
        "the bad ones are not"
    );
}

/// An error as the API gives it, of one of these statuses; its text.
fn clear(answer: &Answer, what: &str, statuses: &[u16]) -> String {
    let text = start_of(&answer.text());
    assert!(statuses.contains(&answer.status), "{what}: {} instead of {statuses:?}: {text}", answer.status);
    let json = answer.json();
    assert_eq!(json["status"], "error", "{what}: {text}");
    assert!(json["errorType"].as_str().is_some_and(|t| !t.is_empty()), "{what}: {text}");
    let error = json["error"].as_str().unwrap_or_default().to_owned();
    assert!(!error.is_empty() && error.len() < 8_192, "{what}: an error of {} bytes: {text}", error.len());
    error
}

#[test]
fn bad_queries_get_a_clear_answer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hearth = Start::at(folder.path()).ready();
    let beside = Undisturbed::start(&hearth, "beside_queries");
    let now = now_ms();
    hearth
        .api
        .write(&[series(&[("__name__", "up"), ("job", "good")], &[(now - 60_000, 1.0), (now - 1_000, 1.0)])]);

    let parens = |n: usize| format!("{}1{}", "(".repeat(n), ")".repeat(n));
    let bad: Vec<(&str, String)> = vec![
        ("1 MB of sums", vec!["up"; 250_000].join(" + ")),
        ("1 MB of parentheses", "(".repeat(1 << 20)),
        ("1 MB of a string", format!("\"{}\"", "a".repeat(1 << 20))),
        ("10,000 nested parentheses", parens(10_000)),
        ("10,000 minus signs", format!("{}1", "-".repeat(10_000))),
        ("10,000 nested sums", format!("{}up{}", "sum(".repeat(10_000), ")".repeat(10_000))),
        ("10,000 nested subqueries", format!("up{}", "[1m:1s]".repeat(5_000))),
        ("a subquery of 100 years by milliseconds", "count_over_time(up[100y:1ms])".to_owned()),
        ("two of them nested", "max_over_time(count_over_time(up[50y:1s])[50y:1s])".to_owned()),
        ("an open parenthesis", "sum(up".to_owned()),
        ("an open range", "rate(up[5m)".to_owned()),
        ("an empty range", "rate(up[])".to_owned()),
        ("a range of nothing", "rate(up[0s])".to_owned()),
        ("a range of the instant kind", "rate(up)".to_owned()),
        ("a range beyond all bounds", "rate(up[999999999999999999999y])".to_owned()),
        ("a range as a float without end", "up[1e30]".to_owned()),
        ("an offset beyond all bounds", "up offset 99999999999999y".to_owned()),
        ("a time beyond all bounds", "up @ 1e300".to_owned()),
        ("a selector of everything", "{}".to_owned()),
        ("a selector of everything in disguise", "{job=~\".*\"}".to_owned()),
        ("nothing", String::new()),
        ("a bad regular expression", "up{job=~\"(\"}".to_owned()),
        ("one that would be huge", "up{job=~\"((x{1000}){1000}){1000}\"}".to_owned()),
        ("an unknown function", "no_such_function(up)".to_owned()),
        ("control characters", "up\u{0}\u{1}{job=\"x\"}".to_owned()),
        ("braces like JSON, 10,000 deep", format!("{}{}", "{\"a\":".repeat(10_000), "}".repeat(10_000))),
        ("brackets, 10,000 deep", format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))),
        ("aggregation without an argument", "sum by (job)".to_owned()),
        ("a range as an answer to a range", "up[5m:".to_owned()),
    ];
    for (what, query) in &bad {
        let answer = bounded(&hearth, what, || hearth.api.post_form("/api/v1/query", &[("query", query)]));
        let error = clear(&answer, what, &[400, 413, 422]);
        eprintln!("{what}: {error}");
        let times = [("query", query.as_str()), ("start", "0"), ("end", "60"), ("step", "15")];
        let answer = bounded(&hearth, what, || hearth.api.post_form("/api/v1/query_range", &times));
        clear(&answer, what, &[400, 413, 422]);
    }

    // These have an answer, if a strange one; or they are refused.
    for query in [
        vec!["1"; 10_000].join("+"),
        parens(150),
        "count_over_time(up[10000d])".to_owned(),
        "up offset -100y".to_owned(),
        "up @ 253402300800".to_owned(),
        "topk(9e18, up)".to_owned(),
        "quantile(NaN, up) / 0".to_owned(),
        "label_replace(up, \"x\", \"$1\", \"job\", \"((((((((((.*))))))))))\")".to_owned(),
        format!("up{{job=~\"{}\"}}", "a|".repeat(5_000)),
        format!("up{{job=~\"(a*)*{}\"}}", "b?".repeat(300)),
        "count_values(\"\u{1F525}\", up)".to_owned(),
    ] {
        let answer = bounded(&hearth, &start_of(&query), || {
            hearth.api.post_form("/api/v1/query", &[("query", &query)])
        });
        if answer.status != 200 {
            clear(&answer, &start_of(&query), &[400, 422]);
        }
    }
    beside.finish(&hearth);
}

#[test]
fn bad_parameters_get_a_clear_answer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hearth = Start::at(folder.path()).ready();
    let beside = Undisturbed::start(&hearth, "beside_parameters");
    let range = |start: &str, end: &str, step: &str| {
        hearth.api.post_form(
            "/api/v1/query_range",
            &[("query", "up"), ("start", start), ("end", end), ("step", step)],
        )
    };
    for (start, end, step) in [
        ("0", "100000", "1"),
        ("0", "100", "0"),
        ("0", "100", "-1"),
        ("0", "100", "NaN"),
        ("0", "100", "1e-9"),
        ("0", "100", "no"),
        ("100", "0", "1"),
        ("", "100", "1"),
        ("0", "1e18", "1ms"),
        ("0001-01-01T00:00:00Z", "30000-01-01T00:00:00Z", "1s"),
        ("yesterday", "today", "1m"),
    ] {
        let what = format!("{start} to {end} by {step}");
        clear(&bounded(&hearth, &what, || range(start, end, step)), &what, &[400]);
    }
    // Times at the ends of what can be said: an answer, or a refusal in words.
    for (start, end) in [("NaN", "100"), ("-Inf", "+Inf"), ("1e300", "2e300"), ("0", "NaN")] {
        let answer = bounded(&hearth, start, || range(start, end, "1000000"));
        if answer.status != 200 {
            clear(&answer, start, &[400, 422]);
        }
    }
    for time in [
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "30000-01-01T00:00:00Z",
        "884541340800",
        "-62135596800",
        "1e15",
        "-1e15",
    ] {
        for (path, extra) in [
            ("/api/v1/query", ("time", time)),
            ("/api/v1/series", ("start", time)),
            ("/api/v1/labels", ("end", time)),
        ] {
            for query in ["up", "rate(up[5m] offset 100y)", "count_over_time(up[5m:1m])"] {
                let answer = hearth.api.post_form(path, &[("query", query), ("match[]", "up"), extra]);
                if answer.status != 200 {
                    clear(&answer, time, &[400, 422]);
                }
            }
        }
        let answer = range(time, time, "1m");
        if answer.status != 200 {
            clear(&answer, time, &[400, 422]);
        }
    }
    for (path, pairs) in [
        ("/api/v1/query", vec![("query", "up"), ("time", "later")]),
        ("/api/v1/query", vec![("query", "up"), ("timeout", "-1s")]),
        ("/api/v1/query", vec![("query", "up"), ("limit", "-1")]),
        ("/api/v1/query", vec![]),
        ("/api/v1/series", vec![]),
        ("/api/v1/series", vec![("match[]", "{}")]),
        ("/api/v1/series", vec![("match[]", "up{")]),
        ("/api/v1/series", vec![("match[]", "up"), ("limit", "-5")]),
        ("/api/v1/labels", vec![("match[]", "rate(up[5m])")]),
        ("/api/v1/labels", vec![("start", "soon")]),
    ] {
        clear(&hearth.api.post_form(path, &pairs), &format!("{path} {pairs:?}"), &[400]);
        clear(&hearth.api.get(path, &pairs), &format!("GET {path} {pairs:?}"), &[400]);
    }
    clear(&hearth.api.get("/api/v1/query?query=%ff%fe", &[]), "a query that is not UTF-8", &[400]);
    clear(&hearth.api.get("/api/v1/label/%ff/values", &[]), "a label name that is not UTF-8", &[400]);
    for nonsense in [
        "{\"a\":".repeat(10_000),
        "[".repeat(10_000),
        format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000)),
    ] {
        let answer =
            hearth.api.post("/api/v1/query", &[("Content-Type", "application/json")], nonsense.as_bytes());
        clear(&answer, "JSON instead of a form", &[400, 415]);
    }
    for (method, path) in [
        ("DELETE", "/api/v1/query"),
        ("PUT", "/api/v1/query_range"),
        ("POST", "/api/v1/label/job/values"),
        ("GET", "/-/flush"),
    ] {
        assert_eq!(hearth.api.call(method, path).status, 405, "{method} {path}");
    }
    for path in
        ["/api/v1/no_such_thing", "/api/v9/query", "/no/such/page", "/api/v1/../../etc/passwd", "/%00"]
    {
        let status = hearth.api.get(path, &[]).status;
        assert!([400, 404].contains(&status), "{path}: {status}");
    }
    beside.finish(&hearth);
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("Hearth takes connections");
    stream.set_read_timeout(Some(Duration::from_secs(90))).expect("a timeout can be set");
    stream.set_write_timeout(Some(Duration::from_secs(90))).expect("a timeout can be set");
    stream
}

/// Sends bytes and gives back the status of the answer; `None` when the server just closes.
fn raw(port: u16, bytes: &[u8], shut: bool) -> Option<u16> {
    let mut stream = connect(port);
    // It may refuse before it has read all of it.
    let _ = stream.write_all(bytes);
    if shut {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut head = [0u8; 512];
    let read = stream.read(&mut head).unwrap_or(0);
    let line = String::from_utf8_lossy(&head[..read]).into_owned();
    line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "))?.get(..3)?.parse().ok()
}

#[test]
fn bytes_that_are_not_http_are_turned_away() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hearth = Start::at(folder.path()).ready();
    let port = hearth.start.port;
    let beside = Undisturbed::start(&hearth, "beside_raw");
    let mut rng = Rng(5);
    let noise: Vec<u8> = (0..100_000).map(|_| rng.roll() as u8).collect();
    let write = "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n";
    let big_header = format!("GET /-/healthy HTTP/1.1\r\nHost: x\r\nX-Big: {}\r\n\r\n", "a".repeat(4 << 20));
    let many_headers = format!("GET /-/healthy HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-A: b\r\n".repeat(50_000));
    let long_url = format!("GET /api/v1/query?query={} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("noise", noise),
        ("zeros", vec![0; 10_000]),
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("HTTP/2 by surprise", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("no such version", b"GET / HTTP/9.9\r\n\r\n".to_vec()),
        ("a header of 4 MiB", big_header.into_bytes()),
        ("50,000 headers", many_headers.into_bytes()),
        ("a URL of 1 MB", long_url.into_bytes()),
        ("two lengths", format!("{write}Content-Length: 5\r\nContent-Length: 7\r\n\r\nhello").into_bytes()),
        ("a length and chunks", format!("{write}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").into_bytes()),
        ("a length that is no number", format!("{write}Content-Length: 0x10\r\n\r\n").into_bytes()),
        ("a length below zero", format!("{write}Content-Length: -1\r\n\r\n").into_bytes()),
        ("a length of 2^64", format!("{write}Content-Length: 18446744073709551616\r\n\r\n").into_bytes()),
        ("a length of 8 EiB", format!("{write}Content-Length: 9223372036854775807\r\n\r\n").into_bytes()),
        ("chunks of no size", format!("{write}Transfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\n").into_bytes()),
        ("a body cut short", format!("{write}Content-Length: 1000\r\n\r\nonly this").into_bytes()),
        ("chunks cut short", format!("{write}Transfer-Encoding: chunked\r\n\r\nff\r\nonly this").into_bytes()),
        ("a body cut short of a form", b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 900\r\n\r\nquery=up".to_vec()),
    ];
    for (what, bytes) in &cases {
        let status = bounded(&hearth, what, || raw(port, bytes, true));
        assert!(status.is_none_or(|s| (400..500).contains(&s)), "{what}: {status:?}");
        eprintln!("{what}: {status:?}");
    }
    beside.finish(&hearth);
    assert_eq!(hearth.api.get("/-/healthy", &[]).status, 200);
}

#[test]
fn half_open_connections_hold_nobody_up() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hearth = Start::at(folder.path()).config("http:\n  header_timeout: 5s\n").ready();
    let port = hearth.start.port;
    let before = hearth.process.memory_bytes("VmHWM");
    let mut waiting = Vec::new();
    for i in 0..600 {
        let mut stream = connect(port);
        let part: &[u8] = match i % 4 {
            0 => b"",
            1 => b"GET /-/hea",
            2 => b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nX-Slow: a",
            _ => b"POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\nContent-Length: 33000000\r\n\r\nabc",
        };
        stream.write_all(part).expect("the connection is open");
        waiting.push(stream);
    }
    let beside = Undisturbed::start(&hearth, "beside_slow");
    for round in 0..20 {
        for stream in waiting.iter_mut().skip(round % 4).step_by(4) {
            // Some are closed by now: that is what a server may do with them.
            let _ = stream.write(b"a");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    beside.finish(&hearth);
    let after = hearth.process.memory_bytes("VmHWM");
    assert!(
        after < before + MORE_MEMORY_BYTES,
        "600 half-open connections: from {} to {} MiB",
        before >> 20,
        after >> 20
    );

    // A client that never finishes its headers is shown out; it need not be told.
    let slow = &mut waiting[2];
    slow.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout can be set");
    wait_for(
        "the server to close a connection that never sends its headers",
        Duration::from_secs(90),
        || {
            let mut byte = [0u8; 64];
            match slow.read(&mut byte) {
                Ok(0) => Some(()),
                Ok(_) => None,
                Err(e)
                    if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
                {
                    None
                }
                Err(_) => Some(()),
            }
        },
    );
}
