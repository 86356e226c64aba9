//! The same requests to Debian's Prometheus and to Hearth, which hold the same samples: the same status,
//! headers and body come back.
//!
//! Prometheus here is 2.42 and Hearth answers as 3.14 does; `CONTRACT_PROMETHEUS` names another program.
//! Where the two differ, the request is not in the lists that are compared, and what 3.14 answers is asserted
//! by itself (and compared with a 3.14 where one is named, in `contract_of_what_only_3_14_has`): `escaping=`
//! in content types, names in UTF-8, `limit` parameters, annotations, how quantiles of native histograms are
//! interpolated, histograms in remote read of whole samples, and all endpoints that 2.42 does not have.

mod test_services;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use test_services::prometheus::Prometheus;
use test_services::remote_write::{self, Native, bytes_field, varint};
use test_services::{Api, Hearth, Series, Start, installed, now_ms, series, wait_for};

const EVERY_MS: i64 = 15_000;
const SAMPLES: i64 = 60;

/// A Prometheus and a Hearth that were sent the same: counters, a gauge, native histograms.
struct Pair {
    prometheus: Prometheus,
    hearth: Hearth,
    /// Of the newest sample.
    end_ms: i64,
    _folder: tempfile::TempDir,
}

fn all_series(end_ms: i64) -> Vec<Series> {
    let times: Vec<i64> = (0..SAMPLES).rev().map(|i| end_ms - i * EVERY_MS).collect();
    let mut all = Vec::new();
    for instance in ["a:9100", "b:9100"] {
        for mode in ["idle", "user"] {
            let labels =
                [("__name__", "cpu_seconds_total"), ("instance", instance), ("job", "node"), ("mode", mode)];
            let speed = (mode.len() + instance.len()) as f64 / 7.0;
            let samples: Vec<_> =
                times.iter().map(|t| (*t, (*t % 1_000_000) as f64 * speed + 0.25)).collect();
            all.push(series(&labels, &samples));
        }
        let labels = [("__name__", "up"), ("instance", instance), ("job", "node")];
        all.push(series(&labels, &times.iter().map(|t| (*t, 1.0)).collect::<Vec<_>>()));
    }
    all.push(series(&[("__name__", "temperature"), ("room", "a \"b\"\\\n<c>")], &[(end_ms, -1.5e-7)]));
    let labels = [(b"__name__".to_vec(), b"latency".to_vec()), (b"job".to_vec(), b"node".to_vec())];
    let histograms = times.iter().enumerate().map(|(i, t)| native(*t, i as f64 + 1.0)).collect();
    all.push(Series { labels: labels.to_vec(), samples: Vec::new(), histograms });
    all
}

fn native(at_ms: i64, n: f64) -> Native {
    Native {
        at_ms,
        schema: 2,
        zero_threshold: 2f64.powi(-128),
        zero_count: n,
        count: 4.0 * n,
        sum: 7.5 * n,
        positive_spans: vec![(-2, 1), (3, 2)],
        positive: vec![n, n, n],
        float: true,
        ..Native::default()
    }
}

/// The whole second before this one, in milliseconds: samples up to it lie in nobody's future.
fn past_second_ms() -> i64 {
    now_ms() / 1000 * 1000 - 1_000
}

fn pair() -> Pair {
    pair_until(past_second_ms())
}

/// A Prometheus and a Hearth with the same samples, the last at a time.
fn pair_until(end_ms: i64) -> Pair {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prometheus = {
        let of = folder.path().join("upstream");
        std::fs::create_dir(&of).expect("a folder");
        let program = std::env::var_os("CONTRACT_PROMETHEUS").map_or_else(Prometheus::debian, Into::into);
        Prometheus::receiver(&of, &program, "native-histograms")
    };
    let hearth = Start::at(folder.path()).config("self_metrics_interval: 0\n").ready();
    let all = all_series(end_ms);
    prometheus.api.write(&all);
    hearth.api.write(&all);
    Pair { prometheus, hearth, end_ms, _folder: folder }
}

fn encoded(text: &str) -> String {
    test_services::api::percent(text.as_bytes(), false)
}

/// Asks both, expects the same status, kind and body, and gives it back.
fn same(pair: &Pair, path: &str) -> Value {
    let (upstream, ours) = (pair.prometheus.api.get(path, &[]), pair.hearth.api.get(path, &[]));
    let shown = |a: &test_services::api::Answer| {
        let kind = a.headers.get("content-type").cloned();
        let body = serde_json::from_slice::<Value>(&a.body).unwrap_or_else(|_| Value::from(a.text()));
        (a.status, kind, body)
    };
    let (upstream, ours) = (shown(&upstream), shown(&ours));
    assert_eq!(ours, upstream, "{path}");
    ours.2
}

#[test]
fn contract_of_queries_and_labels() {
    let pair = pair();
    // Between two samples: at the left end of a range 2.42 has one that 3.x has not.
    let (end, start) = (pair.end_ms / 1000 + 7, pair.end_ms / 1000 - 593);
    for (query, series) in [
        ("up", 2),
        ("cpu_seconds_total{mode=\"idle\"}[30s]", 2),
        ("temperature", 1),
        ("latency", 1),
        ("rate(latency[2m])", 1),
        ("nothing", 0),
        ("topk(1, sum by (mode) (cpu_seconds_total))", 1),
    ] {
        let answer = same(&pair, &format!("/api/v1/query?query={}&time={end}", encoded(query)));
        assert_eq!(answer["data"]["result"].as_array().map(Vec::len), Some(series), "{query}: {answer}");
    }
    for query in ["sum(rate(cpu_seconds_total[1m]))", "latency", "up == 2", "1"] {
        let answer = same(
            &pair,
            &format!("/api/v1/query_range?query={}&start={start}&end={end}&step=45", encoded(query)),
        );
        assert_eq!(answer["status"], "success", "{query}: {answer}");
    }
    for path in [
        format!("/api/v1/series?match[]=up&match[]=temperature&start={start}&end={end}"),
        format!("/api/v1/labels?start={start}&end={end}"),
        format!("/api/v1/labels?match[]=up&start={start}"),
        "/api/v1/label/instance/values".to_owned(),
        "/api/v1/label/nothing/values".to_owned(),
        "/api/v1/label/instance/values?match[]=temperature".to_owned(),
        "/api/v1/query?query=1%2B1&time=1".to_owned(),
        "/api/v1/query?query=%22a%22&time=1.5".to_owned(),
        "/api/v1/query_exemplars?query=up".to_owned(),
        "/api/v1/metadata?metric=nothing".to_owned(),
        "/api/v1/format_query?query=sum(up)/sum+by(job)(up)".to_owned(),
        "/api/v1/rules".to_owned(),
        "/api/v1/alerts".to_owned(),
        "/api/v1/targets/metadata".to_owned(),
        "/api/v1/alertmanagers".to_owned(),
    ] {
        assert_eq!(same(&pair, &path)["status"], "success", "{path}");
    }
}

#[test]
fn contract_of_wrong_parameters() {
    let pair = pair();
    for path in [
        "/api/v1/query",
        "/api/v1/query?query=up&time=x",
        "/api/v1/query?query=up&timeout=x",
        "/api/v1/query_range?query=up",
        "/api/v1/query_range?query=up&start=1&end=0&step=1",
        "/api/v1/query_range?query=up&start=0&end=1&step=0",
        "/api/v1/query_range?query=up&start=0&end=1&step=x",
        "/api/v1/query_range?query=up&start=0&end=100000&step=1",
        "/api/v1/query_exemplars?query=up&start=2&end=1",
        "/api/v1/series",
        "/api/v1/series?match[]={}",
        "/api/v1/series?match[]=up&start=x",
        "/api/v1/labels?start=x",
        "/api/v1/label/instance/values?end=x",
        "/api/v1/metadata?limit=x",
        "/api/v1/rules?type=x",
        "/federate?match[]=up%7B",
    ] {
        let answer = same_error(&pair, path);
        assert!(answer.contains('"') || path.starts_with("/federate"), "{path}: {answer}");
    }
}

/// Compares all but the sentence, which upstream has changed here and there since 2.42; it must be there.
fn same_error(pair: &Pair, path: &str) -> String {
    let (upstream, ours) = (pair.prometheus.api.get(path, &[]), pair.hearth.api.get(path, &[]));
    let kind = |a: &test_services::api::Answer| {
        let json = serde_json::from_slice::<Value>(&a.body).unwrap_or_default();
        (a.status, a.headers.get("content-type").cloned(), json["status"].clone(), json["errorType"].clone())
    };
    assert_eq!(kind(&ours), kind(&upstream), "{path}: {} and {}", ours.text(), upstream.text());
    assert!(ours.body.len() > 10, "{path}: {}", ours.text());
    ours.text()
}

#[test]
fn contract_of_methods_and_paths() {
    let pair = pair();
    for (method, path) in [
        ("GET", "/api/v1/nothing"),
        ("POST", "/api/v1/nothing"),
        ("DELETE", "/api/v1/query"),
        ("PUT", "/api/v1/query"),
        ("PATCH", "/api/v1/query_range"),
        ("POST", "/api/v1/status/flags"),
        ("POST", "/api/v1/label/job/values"),
        ("GET", "/api/v1/read"),
        ("GET", "/api/v1/write"),
        ("GET", "/api/v1/admin/tsdb/delete_series"),
        ("POST", "/api/v1/admin/tsdb/delete_series"),
        ("PUT", "/api/v1/admin/tsdb/snapshot"),
        ("OPTIONS", "/api/v1/query"),
        ("OPTIONS", "/api/v1/nothing"),
        ("HEAD", "/api/v1/query"),
        ("HEAD", "/api/v1/status/buildinfo"),
        ("HEAD", "/-/healthy"),
        ("HEAD", "/-/ready"),
        ("GET", "/-/healthy"),
        ("GET", "/-/ready"),
        ("GET", "/-/reload"),
        ("GET", "/-/quit"),
        ("POST", "/-/reload"),
        ("PUT", "/-/quit"),
        ("POST", "/federate"),
        ("HEAD", "/federate"),
        ("POST", "/metrics"),
        ("HEAD", "/metrics"),
        ("POST", "/version"),
        ("GET", "/nothing"),
    ] {
        let (upstream, ours) = (pair.prometheus.api.call(method, path), pair.hearth.api.call(method, path));
        assert_eq!(ours.status, upstream.status, "{method} {path}: {}", ours.text());
        assert_eq!(ours.headers.get("allow"), upstream.headers.get("allow"), "{method} {path}");
        let lower = |a: &test_services::api::Answer| a.text().trim().to_lowercase();
        if !path.contains("/admin/") {
            assert_eq!(lower(&ours), lower(&upstream), "{method} {path}");
        }
    }
}

#[test]
fn contract_of_federation() {
    let pair = pair();
    let text = |api: &Api, query: &str| {
        let answer = api.get_with(&format!("/federate?{query}"), &[]);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.headers["content-type"].starts_with("text/plain; version=0.0.4"));
        answer.text()
    };
    for query in [
        "match[]=up".to_owned(),
        format!("match[]={}&match[]=up", encoded("{job=\"node\",mode!=\"user\"}")),
        format!("match[]={}", encoded("{__name__=~\"temp.*\"}")),
        "match[]=nothing".to_owned(),
        String::new(),
    ] {
        assert_eq!(text(&pair.hearth.api, &query), text(&pair.prometheus.api, &query), "{query}");
    }
    assert!(text(&pair.hearth.api, "match[]=up").contains("up{instance=\"a:9100\",job=\"node\"} 1 "));
    let accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    let proto = |api: &Api, name: &str| {
        let answer = api.get_with(&format!("/federate?match[]={name}"), &[("Accept", accept)]);
        assert!(answer.headers["content-type"].starts_with("application/vnd.google.protobuf"));
        answer.body
    };
    for name in ["up", "latency", "temperature"] {
        assert_eq!(proto(&pair.hearth.api, name), proto(&pair.prometheus.api, name), "{name}");
    }
}

/// Compares nothing without a 3.14 to compare with; what Hearth answers here `query/tests/api` holds too.
#[test]
fn contract_of_what_only_3_14_has() {
    let Some(program) = std::env::var_os("CONTRACT_PROMETHEUS").map(std::path::PathBuf::from) else { return };
    if Prometheus::version_of(&program) < (3, 14) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let of = folder.path().join("upstream");
    std::fs::create_dir(&of).expect("a folder");
    let prometheus = Prometheus::receiver(&of, &program, "search-api");
    let config = "self_metrics_interval: 0\nenable_feature: [search-api]\n";
    let hearth = Start::at(folder.path()).config(config).ready();
    let end_ms = now_ms() / 1000 * 1000 - 1_000;
    let mut all = all_series(end_ms);
    all.push(series(&[("__name__", "köln.temp"), ("straße", "a")], &[(end_ms, 7.5)]));
    prometheus.api.write(&all);
    hearth.api.write(&all);
    let pair = Pair { prometheus, hearth, end_ms, _folder: folder };
    let (start, end) = (end_ms / 1000 - 593, end_ms / 1000 + 7);
    let query = |text: &str| format!("/api/v1/query?time={end}&query={}", encoded(text));
    for path in [
        query("{\"köln.temp\"}"),
        query("sum(latency)"),
        query("histogram_quantile(0.9, latency)"),
        query("histogram_quantile(0.9, up)"),
        query("quantile(2, up)"),
        query("rate(up[5m])"),
        query("up offset 1"),
        query("up and bool up"),
        query("sum by (a,) (up)"),
        format!("/api/v1/query?query=up&time={end}&limit=1"),
        format!("/api/v1/query_range?query=up&start={start}&end={end}&step=60&limit=1"),
        format!("/api/v1/query?query=up&time={end}&lookback_delta=x"),
    ] {
        same(&pair, &path);
    }
    for path in [
        "parse_query?query=sum+by(a)(rate(up{a=~\"b|c\"}[5m]))>bool+2",
        "parse_query?query=up{",
        "labels?limit=2",
        "labels?match[]=x{",
        "series?match[]=up&limit=1",
        "series?match[]=x{",
        "label/job/values?limit=1",
        "label/U__k_F6_ln_2E_temp/values",
        "label/stra%C3%9Fe/values",
        "search/metric_names?search[]=up",
        "search/metric_names?search[]=cpsec&fuzz_threshold=50&include_score=true",
        "search/metric_names?limit=0",
        "search/metric_names?sort_by=x",
        "search/label_names?search[]=inst",
        "search/label_values?label=instance&search[]=a",
        "search/label_values",
        "scrape_pools",
        "scrape_pools/config?scrapePool=x",
        "targets/relabel_steps",
        "notifications",
        "rules?exclude_alerts=x",
        "rules?group_limit=x",
        "rules?group_next_token=x",
        "rules?match[]=x{",
        "status/tsdb?limit=0",
        "nothing",
    ] {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/?&=+%-_.~[]()!".contains(c);
        let one = |c: char| if plain(c) { c.to_string() } else { encoded(&c.to_string()) };
        same(&pair, &format!("/api/v1/{}", path.chars().map(one).collect::<String>()));
    }
    let features = |api: &Api| {
        let mut all = api.get("/api/v1/features", &[]).data();
        ["promql", "promql_operators", "promql_functions", "templating_functions"].map(|of| all[of].take())
    };
    let [ours, upstream] = [&pair.hearth.api, &pair.prometheus.api].map(features);
    // Of the steps of a query Hearth always tells.
    let mut upstream = upstream;
    upstream[0]["per_step_stats"] = true.into();
    assert_eq!(ours, upstream);
}

/// A `prometheus.ReadRequest` of one query; matchers are `(type, name, value)`.
fn read_request(start_ms: i64, end_ms: i64, matchers: &[(u64, &str, &str)], accepted: &[u64]) -> Vec<u8> {
    let mut query = Vec::new();
    for (field, ms) in [(1u8, start_ms), (2, end_ms)] {
        query.push(field << 3);
        varint(&mut query, ms as u64);
    }
    for (kind, name, value) in matchers {
        let mut matcher = vec![1 << 3];
        varint(&mut matcher, *kind);
        bytes_field(&mut matcher, 2, name.as_bytes());
        bytes_field(&mut matcher, 3, value.as_bytes());
        bytes_field(&mut query, 3, &matcher);
    }
    let mut request = Vec::new();
    bytes_field(&mut request, 1, &query);
    for kind in accepted {
        request.push(2 << 3);
        varint(&mut request, *kind);
    }
    remote_write::snappy(&request)
}

#[test]
fn contract_of_remote_read_in_samples_and_in_chunks() {
    // Upstream ends a chunk where two hours of the clock end.
    let (now, two_hours) = (past_second_ms(), 2 * 3_600_000);
    let hours_began = now.div_euclid(two_hours) * two_hours;
    let pair = pair_until(if now - SAMPLES * EVERY_MS < hours_began { hours_began - 1_000 } else { now });
    let (end, start) = (pair.end_ms, pair.end_ms - SAMPLES * EVERY_MS);
    let ask = |api: &Api, body: &[u8]| {
        let answer = api.post("/api/v1/read", &[("Content-Encoding", "snappy")], body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        (answer.headers["content-type"].clone(), answer.headers.get("content-encoding").cloned(), answer.body)
    };
    let all: &[(u64, &str, &str)] = &[(2, "__name__", ".+")];
    for (matchers, start, end) in [
        (all, start, end),
        (&[(0, "__name__", "up"), (1, "instance", "b:9100")], start, end),
        (&[(0, "__name__", "cpu_seconds_total"), (3, "mode", "i.*")], start + 100_000, end - 100_000),
        (&[(0, "__name__", "latency")], start + 100_000, end - 100_000),
        (&[(0, "__name__", "nothing")], start, end),
    ] {
        // Whole samples, and chunks bit by bit: both cut them alike, because there are fewer than 120.
        let samples = read_request(start, end, matchers, &[]);
        let unpacked = |(kind, encoding, body): (String, Option<String>, Vec<u8>)| {
            (kind, encoding, snap::raw::Decoder::new().decompress_vec(&body).expect("snappy"))
        };
        let (ours, upstream) =
            (unpacked(ask(&pair.hearth.api, &samples)), unpacked(ask(&pair.prometheus.api, &samples)));
        assert_eq!((&ours.0, &ours.1), (&upstream.0, &upstream.1), "{matchers:?}");
        let (ours, upstream) = (sorted_series(&ours.2), sorted_series(&upstream.2));
        assert_eq!(ours.len(), upstream.len(), "{matchers:?}");
        for (ours, upstream) in ours.iter().zip(&upstream) {
            // 2.42 names series of histograms and leaves their samples out; in chunks it has them.
            assert!(ours == upstream || holds(ours, b"latency"), "{matchers:?}: {ours:?} and {upstream:?}");
        }
        let chunks = read_request(start, end, matchers, &[1]);
        let (ours, upstream) = (ask(&pair.hearth.api, &chunks), ask(&pair.prometheus.api, &chunks));
        assert_eq!((&ours.0, &ours.1), (&upstream.0, &upstream.1), "{matchers:?}");
        let (ours, upstream) = (frames(&ours.2), frames(&upstream.2));
        assert_eq!(ours.len(), upstream.len(), "{matchers:?}");
        for (ours, upstream) in ours.iter().zip(&upstream) {
            // Go's writer leaves a byte of zeros behind a single sample, which ends on a whole byte.
            assert!(
                ours == upstream || holds(ours, b"temperature"),
                "{matchers:?}: {ours:?} and {upstream:?}"
            );
        }
    }
    for bad in [b"nonsense".to_vec(), read_request(0, 1, all, &[9])] {
        let of = |api: &Api| {
            let answer = api.post("/api/v1/read", &[], &bad);
            (answer.status, answer.headers["content-type"].clone())
        };
        assert_eq!(of(&pair.hearth.api), of(&pair.prometheus.api), "{bad:?}");
    }
}

/// The series of a `ReadResponse` of one result, in the order of their bytes: upstream's own order of whole
/// samples depends on where they lie.
fn sorted_series(response: &[u8]) -> Vec<Vec<u8>> {
    let mut results = fields(response);
    let result = results.pop().unwrap_or_default();
    let mut series = fields(&result);
    series.sort();
    series
}

/// Frames with their checksums: a length, four bytes, and so many more.
fn frames(mut body: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while !body.is_empty() {
        let (length, rest) = length(body);
        let (frame, after) = rest.split_at(4 + length);
        out.push(frame.to_vec());
        body = after;
    }
    out
}

/// A varint, and what follows it.
fn length(mut bytes: &[u8]) -> (usize, &[u8]) {
    let (mut length, mut shift) = (0usize, 0);
    while let Some((byte, after)) = bytes.split_first() {
        bytes = after;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if *byte < 0x80 {
            break;
        }
    }
    (length, bytes)
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|w| w == text)
}

/// The fields of a message that has but runs of bytes.
fn fields(mut message: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while let Some((_, rest)) = message.split_first() {
        let (length, rest) = length(rest);
        let (field, after) = rest.split_at(length);
        out.push(field.to_vec());
        message = after;
    }
    out
}

#[test]
fn contract_of_a_prometheus_that_reads_from_hearth() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hearth = Start::at(folder.path()).config("self_metrics_interval: 0\n").ready();
    let end_ms = past_second_ms();
    hearth.api.write(&all_series(end_ms));
    let reader = reader(folder.path(), hearth.start.port);
    for query in [
        "up",
        "sum by (mode) (rate(cpu_seconds_total{instance=~\"a.*\"}[2m]))",
        "temperature",
        "{job!=\"\",mode=\"\",__name__!=\"latency\"}",
    ] {
        let path = format!("/api/v1/query?query={}&time={}", encoded(query), end_ms / 1000 + 7);
        let ask = |api: &Api| {
            let mut data = api.get(&path, &[]).data();
            let Some(rows) = data["result"].as_array_mut() else { panic!("{query}: {data}") };
            assert!(!rows.is_empty(), "{query}");
            rows.sort_by_key(|row| row["metric"].to_string());
            let one = |row: &Value| {
                let value = row["value"][1].as_str().map(|v| v.parse::<f64>().expect("a number"));
                (row["metric"].clone(), value, row["histogram"].clone())
            };
            rows.iter().map(one).collect::<Vec<_>>()
        };
        // 2.42 adds up without Kahan's compensation: sums differ in their last digit.
        for (read, own) in ask(&reader.api).into_iter().zip(ask(&hearth.api)) {
            assert_eq!((&read.0, &read.2), (&own.0, &own.2), "{query}");
            let (a, b) = (read.1.unwrap_or(0.0), own.1.unwrap_or(0.0));
            assert!((a - b).abs() <= 1e-9 * b.abs(), "{query}: {a} and {b}");
        }
    }
}

/// A Prometheus that holds nothing and reads everything from Hearth.
fn reader(folder: &Path, port: u16) -> Prometheus {
    let of = folder.join("reader");
    std::fs::create_dir(&of).expect("a folder");
    let config = format!(
        "scrape_configs: []\nremote_read:\n  - url: http://127.0.0.1:{port}/api/v1/read\n    read_recent: true\n"
    );
    Prometheus::with_config(&of, &config, &["--enable-feature=native-histograms"])
}

#[test]
fn contract_of_a_prometheus_that_federates_from_hearth() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hearth = Start::at(folder.path()).config("self_metrics_interval: 0\n").ready();
    let end_ms = past_second_ms();
    hearth.api.write(&all_series(end_ms));
    // As text, and, where native histograms are wanted, as protobuf.
    for (name, more) in [("text", &[][..]), ("protobuf", &["--enable-feature=native-histograms"])] {
        let of = folder.path().join(name);
        std::fs::create_dir(&of).expect("a folder");
        let config = format!(
            "scrape_configs:\n  - job_name: federate\n    honor_labels: true\n    scrape_interval: 1s\n    scrape_timeout: 1s\n    \
             metrics_path: /federate\n    params: {{'match[]': ['{{__name__=~\".+\"}}']}}\n    \
             static_configs: [{{targets: ['127.0.0.1:{}']}}]\n",
            hearth.start.port
        );
        let reader = Prometheus::with_config(&of, &config, more);
        let ask = |query: &str| {
            let path = format!("/api/v1/query?query={}&time={}", encoded(query), end_ms / 1000);
            reader.api.get(&path, &[]).data()["result"].clone()
        };
        let up = wait_for("the first scrape", Duration::from_secs(30), || {
            Some(ask("cpu_seconds_total")).filter(|r| r.as_array().is_some_and(|all| all.len() == 4))
        });
        let own = hearth
            .api
            .get("/api/v1/query", &[("query", "cpu_seconds_total"), ("time", &(end_ms / 1000).to_string())]);
        let sorted = |result: &Value| {
            let mut rows: Vec<String> =
                result.as_array().expect("a list").iter().map(Value::to_string).collect();
            rows.sort();
            rows
        };
        assert_eq!(sorted(&up), sorted(&own.data()["result"]), "{name}");
        assert_eq!(ask("temperature")[0]["metric"]["room"], "a \"b\"\\\n<c>", "{name}");
        let histograms = ask("histogram_count(latency)");
        match name {
            "protobuf" => assert_eq!(histograms[0]["value"][1], "240", "{histograms}"),
            _ => assert_eq!(histograms.as_array().map(Vec::len), Some(0), "{histograms}"),
        }
    }
}

#[test]
fn contract_of_compression_by_the_encoding_that_is_named() {
    let pair = pair();
    for (accept, want) in [("gzip", Some("gzip")), ("deflate", Some("deflate")), ("br", None)] {
        let ask = |api: &Api| {
            let answer = api.get_with("/api/v1/series?match[]=up", &[("Accept-Encoding", accept)]);
            let encoding = answer.headers.get("content-encoding").cloned();
            let mut text = String::new();
            let mut unpack: Box<dyn std::io::Read> = match encoding.as_deref() {
                Some("gzip") => Box::new(flate2::read::GzDecoder::new(&answer.body[..])),
                Some("deflate") => Box::new(flate2::read::ZlibDecoder::new(&answer.body[..])),
                _ => Box::new(&answer.body[..]),
            };
            unpack.read_to_string(&mut text).expect("what the header says");
            drop(unpack);
            (encoding, serde_json::from_str::<Value>(&text).expect("JSON"))
        };
        let (ours, upstream) = (ask(&pair.hearth.api), ask(&pair.prometheus.api));
        assert_eq!(ours.1, upstream.1, "{accept}");
        assert_eq!((ours.0.as_deref(), upstream.0.as_deref()), (want, want), "{accept}");
    }
}

#[test]
fn contract_of_own_metrics_in_each_format_that_scrapers_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hearth = Start::at(folder.path()).config("self_metrics_interval: 0\n").ready();
    let ask = |accept: &str| {
        let answer = hearth.api.get_with("/metrics", &[("Accept", accept)]);
        answer.headers["content-type"].clone()
    };
    let accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    assert!(
        ask(accept).starts_with("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily")
    );
    assert!(ask("application/openmetrics-text;version=1.0.0").starts_with("application/openmetrics-text"));
    assert!(ask("*/*").starts_with("text/plain; version=0.0.4"));
    // As OpenMetrics, and, where native histograms are wanted, as protobuf.
    let seen = [("text", &[][..]), ("protobuf", &["--enable-feature=native-histograms"])].map(|(name, more)| {
        let of = folder.path().join(name);
        std::fs::create_dir(&of).expect("a folder");
        let config = format!(
            "scrape_configs:\n  - job_name: hearth\n    scrape_interval: 1s\n    scrape_timeout: 1s\n    \
             static_configs: [{{targets: ['127.0.0.1:{}']}}]\n",
            hearth.start.port
        );
        let reader = Prometheus::with_config(&of, &config, more);
        let ask = |query: &str| reader.api.get("/api/v1/query", &[("query", query)]).data()["result"].clone();
        wait_for("two scrapes", Duration::from_secs(30), || {
            let counted = ask("count_over_time(hearth_http_requests_total{handler=\"/metrics\"}[1m]) >= 2");
            counted.as_array().is_some_and(|all| !all.is_empty()).then_some(())
        });
        let names = reader.api.get("/api/v1/label/__name__/values", &[]).data();
        let metadata = reader.api.get("/api/v1/targets/metadata", &[]).data();
        let of = |name: &str| -> Vec<Value> {
            let all = metadata.as_array().expect("a list").iter();
            all.filter(|m| m["metric"].as_str().is_some_and(|m| m.trim_end_matches("_total") == name))
                .map(|m| m["type"].clone())
                .collect()
        };
        assert_eq!(of("hearth_http_requests"), ["counter"], "{name}");
        assert_eq!(of("hearth_http_request_duration_seconds"), ["histogram"], "{name}");
        let quantile = ask("histogram_quantile(0.5, hearth_http_request_duration_seconds_bucket{handler=\"/metrics\"}) > 0");
        assert_eq!(quantile.as_array().map(Vec::len), Some(1), "{name}: {quantile}");
        let own = |all: Value| -> Vec<String> {
            let all = all.as_array().expect("a list").iter().filter_map(Value::as_str);
            all.filter(|n| n.starts_with("hearth_") || n.starts_with("process_")).map(str::to_owned).collect()
        };
        own(names)
    });
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].len() > 60, "{seen:?}");
}

#[test]
fn contract_of_promtool() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hearth = Start::at(folder.path()).config("self_metrics_interval: 0\n").ready();
    let end_ms = past_second_ms();
    hearth.api.write(&all_series(end_ms));
    let url = hearth.api.base.clone();
    let time = (end_ms / 1000).to_string();
    let start = (end_ms / 1000 - 60).to_string();
    let run = |args: &[&str]| {
        let output = std::process::Command::new(installed("promtool", "prometheus")).args(args).output();
        let output = output.expect("promtool runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        said
    };
    let up = run(&["query", "instant", "--time", &time, &url, "up{instance=\"a:9100\"}"]);
    assert!(up.starts_with("up{instance=\"a:9100\", job=\"node\"} => 1 @["), "{up}");
    let range = run(&["query", "range", "--start", &start, "--end", &time, "--step", "15s", &url, "sum(up)"]);
    assert_eq!(range.lines().filter(|l| l.starts_with("2 @[")).count(), 5, "{range}");
    let series = run(&["query", "series", "--match", "temperature", &url]);
    assert!(series.contains("temperature"), "{series}");
    assert_eq!(run(&["query", "labels", &url, "mode"]).trim(), "idle\nuser");
}

/// Every path and method that the description of the API names, but those that end or change the process.
fn described() -> Vec<(String, String)> {
    let text = include_str!("../../query/src/api/endpoints/openapi.yaml");
    let mut all = Vec::new();
    let mut path = "";
    for line in text.lines() {
        if let Some(named) = line.strip_prefix("  /").and_then(|l| l.strip_suffix(':')) {
            path = named;
        }
        let method = line.strip_prefix("    ").and_then(|l| l.strip_suffix(':'));
        let known = ["get", "post", "put", "delete"];
        if let Some(method) = method.filter(|m| known.contains(m)) {
            all.push((method.to_uppercase(), format!("/{path}")));
        }
        if line == "components:" {
            break;
        }
    }
    all.retain(|(_, path)| !path.starts_with("/-/") && !path.ends_with("/live"));
    assert!(all.len() > 60, "{all:?}");
    all
}

/// Names of parameters that any endpoint reads.
const PARAMETERS: [&str; 27] = [
    "query",
    "time",
    "start",
    "end",
    "step",
    "timeout",
    "limit",
    "match[]",
    "stats",
    "lookback_delta",
    "dedup",
    "replicaLabels[]",
    "max_source_resolution",
    "partial_response",
    "engine",
    "storeMatch[]",
    "shard_info",
    "search[]",
    "fuzz_threshold",
    "label",
    "labels",
    "scrapePool",
    "metric_name_pattern",
    "metric",
    "type",
    "openapi_version",
    "skip_head",
];

#[test]
fn nonsense_to_every_endpoint_is_refused_and_does_no_harm() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = "self_metrics_interval: 0\nenable_feature: [search-api]\nrules: {config_api: true}\n";
    let hearth = Start::at(folder.path()).config(config).ready();
    hearth.api.write(&all_series(now_ms() / 1000 * 1000));
    let long = "x".repeat(200_000);
    let values = [
        "%ff%fe".to_owned(),
        "%00".to_owned(),
        "-1".to_owned(),
        "99999999999999999999999999".to_owned(),
        "NaN".to_owned(),
        "1e308".to_owned(),
        "%7B".repeat(3_000),
        "%28".repeat(3_000),
        format!("%7Ba%3D~%22{}%22%7D", "(a%7Cb)*".repeat(2_000)),
        long,
        "%5B".repeat(100_000),
    ];
    let api = Api::with_fresh_connections(hearth.start.port);
    for (method, path) in described() {
        let path = path.replace("{name}", "a%00b").replace("{id}", "-1").replace("{namespace}", "n");
        let path = path.replace("{group}", "g");
        for value in &values {
            let pairs: Vec<String> = PARAMETERS.iter().map(|name| format!("{name}={value}")).collect();
            // All at once, and those that come first alone: else the first refusal hides the others.
            let together = pairs.join("&");
            let alone = pairs.iter().filter(|_| value.len() < 100).map(String::as_str);
            for form in alone.chain([together.as_str()]) {
                let answer = match method.as_str() {
                    "POST" => {
                        let kind = ("Content-Type", "application/x-www-form-urlencoded");
                        match api.try_post(&path, &[kind], form.as_bytes()) {
                            Ok(answer) => answer,
                            // Refused before all of it was sent.
                            Err(_) if form.len() > 100_000 => continue,
                            Err(e) => panic!("{method} {path}: {e}"),
                        }
                    }
                    _ => api.call(&method, &format!("{path}?{}", &form[..form.len().min(60_000)])),
                };
                let text = answer.text();
                let switched_off =
                    text.contains("admin APIs disabled") || text.contains("Method Not Allowed");
                assert!(
                    answer.status < 500 || switched_off,
                    "{method} {path} {}: {} {}",
                    &form[..form.len().min(100)],
                    answer.status,
                    text.chars().take(300).collect::<String>()
                );
            }
        }
    }
    assert_eq!(hearth.api.get("/-/ready", &[]).status, 200);
    let peak = hearth.process.memory_bytes("VmHWM");
    assert!(peak < 1 << 30, "{peak} bytes at most");
}
