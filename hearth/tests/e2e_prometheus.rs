//! A real Prometheus scrapes a real node exporter and itself and writes all of it to Hearth; then both are
//! asked the same questions.
//!
//! Answers are compared as sets keyed by labels, to a relative 1e-9. Prometheus here is 2.42, Debian's, and
//! Hearth answers as 3.14 does. What that changes is written down in [`CLOSED_LEFT_END`] and [`NAME_KEPT`];
//! all other questions are put at times where the first cannot matter: the evaluation times have a phase of
//! the second at which no sample lies, so none lies exactly at the left end of a range of whole seconds.

mod test_services;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use test_services::prometheus::{NodeExporter, Prometheus};
use test_services::{Api, Data, hearth, now_ms, wait_for};

/// How long Prometheus scrapes before the questions are put.
const SCRAPING: Duration = Duration::from_secs(55);
/// What a range of the questions may reach back, offsets included, with room for Prometheus' start: it drops
/// what it scraped before its sender ran.
const REACH_MS: i64 = 35_000;

/// Questions for one instant and for a range of steps alike. `{t}` is the evaluation time in seconds, `{off}`
/// an offset that moves the whole seconds a subquery evaluates at to the phase at which no sample lies.
const QUESTIONS: &[&str] = &[
    // Selectors: all matchers, names as labels, no name, empty values, offset, @.
    r#"up{instance!="",job!="hearth"}"#,
    r#"node_cpu_seconds_total{mode="idle"}"#,
    r#"node_cpu_seconds_total{cpu="0",mode!="idle"}"#,
    r#"node_cpu_seconds_total{mode=~"user|sys.*"}"#,
    r#"node_cpu_seconds_total{mode!~"user|sys.*|i.+"}"#,
    r#"{__name__="process_open_fds",job=~"node|prometheus"}"#,
    r#"{__name__=~"go_memstats_.*_bytes",job="node"}"#,
    r#"{job="prometheus",__name__=~"prometheus_tsdb_head_(series|chunks)"}"#,
    r#"node_network_up{operstate=""}"#,
    r#"prometheus_http_requests_total{handler!="",code=~"2.."}"#,
    r#"go_goroutines{job=~"node|prometheus"} offset 5s"#,
    r#"node_memory_MemFree_bytes @ {t}"#,
    r#"node_memory_MemFree_bytes @ {t} offset 7s"#,
    r#"process_resident_memory_bytes{job="node"} @ end()"#,
    r#"process_resident_memory_bytes{job="node"} @ start()"#,
    r#"no_such_metric"#,
    // Literals, arithmetic, comparison.
    r#"42"#,
    r#"1 + 2 * 3 ^ 2 ^ 0.5 % 4 - -1"#,
    r#"(1 > bool 2) + (3 >= bool 3)"#,
    r#"node_memory_MemTotal_bytes - node_memory_MemFree_bytes"#,
    r#"node_memory_MemFree_bytes / node_memory_MemTotal_bytes * 100"#,
    r#"-node_load1 % 0.3"#,
    r#"node_load1 ^ 2"#,
    r#"2 ^ node_load1"#,
    r#"go_goroutines{job=~"node|prometheus"} > 10"#,
    r#"go_goroutines{job=~"node|prometheus"} <= bool 10"#,
    r#"10 < go_goroutines{job=~"node|prometheus"}"#,
    r#"up{job=~"node|prometheus"} == 1"#,
    r#"up{job=~"node|prometheus"} != bool 0"#,
    r#"node_load1{job="node"} atan2 on(instance) node_load5"#,
    // Sets and vector matching.
    r#"node_cpu_seconds_total{cpu="0"} and on(mode) node_cpu_seconds_total{mode=~"user|idle"}"#,
    r#"node_cpu_seconds_total{cpu="0"} unless ignoring(cpu) node_cpu_seconds_total{cpu="1",mode="idle"}"#,
    r#"up{job="node"} or up{job="prometheus"} or go_goroutines{job="node"}"#,
    r#"node_cpu_seconds_total{cpu="0"} / ignoring(cpu) node_cpu_seconds_total{cpu="1"}"#,
    r#"process_cpu_seconds_total{job="node"} / on() group_left() scalar(process_cpu_seconds_total{job="prometheus"}) or up{job="node"}"#,
    r#"node_cpu_seconds_total / on(instance) group_left(release) node_uname_info"#,
    r#"sum by (mode) (node_cpu_seconds_total) / ignoring(mode) group_left sum(node_cpu_seconds_total)"#,
    r#"node_uname_info * on(instance) group_right(machine) node_cpu_seconds_total{mode="user"}"#,
    // Aggregations, every one.
    r#"sum(node_cpu_seconds_total)"#,
    r#"sum without (cpu) (node_cpu_seconds_total)"#,
    r#"avg by (cpu) (node_cpu_seconds_total)"#,
    r#"min by (job) (scrape_duration_seconds)"#,
    r#"max by (job) (scrape_duration_seconds)"#,
    r#"count by (job) ({job=~"node|prometheus"})"#,
    r#"group by (mode) (node_cpu_seconds_total)"#,
    r#"stddev by (cpu) (node_cpu_seconds_total)"#,
    r#"stdvar(node_cpu_seconds_total)"#,
    r#"topk(3, node_cpu_seconds_total > 0)"#,
    r#"bottomk by (cpu) (2, node_cpu_seconds_total > 0)"#,
    r#"quantile(0.9, node_cpu_seconds_total)"#,
    r#"quantile by (mode) (0.3, rate(node_cpu_seconds_total[10s]))"#,
    r#"count_values("success", node_scrape_collector_success)"#,
    // The rate family.
    r#"rate(node_cpu_seconds_total[15s])"#,
    r#"increase(prometheus_tsdb_head_samples_appended_total[20s])"#,
    r#"irate(process_cpu_seconds_total{job=~"node|prometheus"}[10s])"#,
    r#"delta(node_memory_MemFree_bytes[20s])"#,
    r#"idelta(node_memory_MemFree_bytes[20s])"#,
    r#"deriv(node_memory_MemAvailable_bytes[20s])"#,
    r#"predict_linear(node_memory_MemAvailable_bytes[20s], 3600)"#,
    r#"changes(process_cpu_seconds_total{job=~"node|prometheus"}[20s])"#,
    r#"resets(go_goroutines{job=~"node|prometheus"}[20s])"#,
    r#"sum by (mode) (rate(node_cpu_seconds_total[15s] offset 5s))"#,
    r#"rate(prometheus_http_requests_total{handler="/metrics"}[15s] @ {t})"#,
    // The over_time family.
    r#"avg_over_time(node_load1[20s])"#,
    r#"min_over_time(go_goroutines{job=~"node|prometheus"}[20s])"#,
    r#"max_over_time(go_goroutines{job=~"node|prometheus"}[20s])"#,
    r#"sum_over_time(up{job=~"node|prometheus"}[20s])"#,
    r#"count_over_time(node_scrape_collector_success[10s])"#,
    r#"quantile_over_time(0.75, scrape_duration_seconds[20s])"#,
    r#"stddev_over_time(scrape_duration_seconds[20s])"#,
    r#"stdvar_over_time(scrape_duration_seconds[20s])"#,
    r#"last_over_time(node_load1[20s])"#,
    r#"present_over_time(node_load1[20s])"#,
    r#"absent_over_time(no_such_metric{job="node"}[20s])"#,
    // Subqueries.
    r#"max_over_time(rate(node_cpu_seconds_total{mode="user"}[10s] offset {off})[15s:3s])"#,
    r#"avg_over_time((sum(go_goroutines{job=~"node|prometheus"} offset {off}))[20s:2s] offset 3s)"#,
    r#"count_over_time(up{job="node"}[20s:4s] @ {t})"#,
    r#"sum_over_time(vector(1)[20s:5s])"#,
    // Histograms.
    r#"histogram_quantile(0.9, rate(prometheus_http_request_duration_seconds_bucket[20s]))"#,
    r#"histogram_quantile(0.5, sum by (le) (prometheus_http_request_duration_seconds_bucket))"#,
    r#"histogram_quantile(1.5, prometheus_http_request_duration_seconds_bucket{handler="/metrics"})"#,
    r#"histogram_quantile(0.99, sum by (le,handler) (increase(prometheus_http_response_size_bytes_bucket[20s])))"#,
    // Functions of values, labels and time.
    r#"abs(-node_load1)"#,
    r#"ceil(node_load1 * 10) + floor(node_load5 * 10) + round(node_load15, 0.1)"#,
    r#"sqrt(node_load1) + exp(node_load5) + ln(node_load15 + 1) + log2(node_load1 + 2) + log10(node_load1 + 3)"#,
    r#"clamp(go_goroutines{job=~"node|prometheus"}, 5, 30)"#,
    r#"clamp_min(go_goroutines{job=~"node|prometheus"}, 20) + clamp_max(go_goroutines{job=~"node|prometheus"}, 20)"#,
    r#"sgn(delta(node_memory_MemFree_bytes[10s]))"#,
    r#"sin(node_load1) + cos(node_load1) + tan(node_load1) + asinh(node_load1) + deg(rad(node_load1)) + pi()"#,
    r#"absent(no_such_metric{job="node",instance=~"a.*"})"#,
    r#"label_replace(up{job=~"node|prometheus"}, "port", "$2", "instance", "(.*):(.*)")"#,
    r#"label_join(node_cpu_seconds_total{mode="idle"}, "where", "/", "job", "cpu", "mode")"#,
    r#"sort(node_cpu_seconds_total)"#,
    r#"sort_desc(node_cpu_seconds_total{mode="idle"})"#,
    r#"time() - node_boot_time_seconds"#,
    r#"timestamp(up{job=~"node|prometheus"})"#,
    r#"timestamp(up{job=~"node|prometheus"} offset 3s) - time()"#,
    r#"vector(scalar(node_load1)) + vector(time())"#,
    r#"hour(node_boot_time_seconds) * 10000 + minute(node_boot_time_seconds)"#,
    r#"day_of_month(node_boot_time_seconds) + 100 * day_of_week(node_boot_time_seconds) + 1000 * day_of_year(node_boot_time_seconds)"#,
    r#"days_in_month() + 100 * month() + 10000 * year()"#,
];

/// Questions that only make sense at one instant.
const INSTANT_ONLY: &[&str] = &[
    r#"up{job=~"node|prometheus"}[20s]"#,
    r#"node_cpu_seconds_total{mode="user"}[15s] offset 5s"#,
    r#"rate(node_cpu_seconds_total{mode="user"}[10s] offset {off})[12s:3s]"#,
    r#""a string""#,
];

/// Where the answers must differ: up to 2.x a range was closed at both ends, since 3.0 it is open at the left
/// (Prometheus' own migration guide, https://prometheus.io/docs/prometheus/latest/migration/). Put at a time
/// at which a sample (or a subquery's step) lies on the left end, the older server counts one more: question,
/// what 2.42 says, what Hearth says.
const CLOSED_LEFT_END: &[(&str, f64, f64)] = &[
    // A subquery's steps lie on whole seconds, and so do both ends of this window.
    (r#"sum(count_over_time(vector(1)[10s:1s] @ {whole}))"#, 11.0, 10.0),
    (r#"sum(sum_over_time(vector(2)[12s:3s] @ {whole12}))"#, 10.0, 8.0),
    // `{sample}` is the time of a sample, and the range is as long as from it back to another one.
    (r#"count_over_time(up{job="node"}[{gap}ms] @ {sample})"#, 11.0, 10.0),
];

/// Up to 2.x `atan2` kept the metric's name on the result; since 3.0 it drops it as every other arithmetic
/// operator does (`changesMetricSchema` in upstream's `promql/engine.go`).
const NAME_KEPT: &str = "node_load1 atan2 node_load5";

#[test]
fn prometheus_and_hearth_give_the_same_answers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hearth = hearth::Start::at(folder.path()).ready();
    let exporter = NodeExporter::start(folder.path());
    let url = format!("{}/api/v1/write", hearth.api.base);
    let prometheus = Prometheus::start(folder.path(), &exporter, &url);
    let started = now_ms();

    // Some traffic while it scrapes, so that Prometheus' own counters and histograms have something to tell.
    let mut rng = test_services::Rng(7);
    while now_ms() - started < SCRAPING.as_millis() as i64 {
        prometheus.api.range("sum(rate(node_cpu_seconds_total[5s]))", now_ms() - 20_000, now_ms(), 1_000);
        prometheus.api.instant("count({job=~'node|prometheus'})", now_ms());
        prometheus.api.get("/api/v1/labels", &[]);
        prometheus.api.get("/api/v1/label/job/values", &[]);
        std::thread::sleep(Duration::from_millis(100 + rng.below(200)));
    }

    let (prometheus, hearth) = (&prometheus.api, &hearth.api);
    let newest = now_ms() - 2_000;
    let samples = sample_times(prometheus, newest);
    let phase = free_phase(&samples);
    let at = newest / 1000 * 1000 - 1000 + phase;
    assert!(at - started > REACH_MS + 5_000, "the questions reach back to before the scraping");
    caught_up(prometheus, hearth, at);

    let place = |question: &str| {
        question
            .replace("{t}", &test_services::api::seconds(at))
            .replace("{off}", &format!("{}ms", 1000 - phase))
    };
    let mut asked = 0;
    let mut disagreements = Vec::new();
    for question in QUESTIONS.iter().chain(INSTANT_ONLY) {
        let question = place(question);
        let (expected, actual) = (ask(prometheus, &question, at), ask(hearth, &question, at));
        // A question to which both say nothing would prove nothing.
        assert_eq!(expected.0.is_empty(), question == "no_such_metric", "{question}: {:?}", expected.0);
        let order = if question.starts_with("sort") { values_differ(&expected.1, &actual.1) } else { None };
        if let Some(difference) = difference(&expected.0, &actual.0).or(order) {
            disagreements.push(format!("{question}\n    at {at}: {difference}"));
        }
        asked += 1;
    }
    for question in QUESTIONS {
        let question = place(question);
        let (start, step) = (at - 12_000, 2_000);
        let (expected, actual) =
            (prometheus.range(&question, start, at, step), hearth.range(&question, start, at, step));
        if let Some(difference) = difference(&expected, &actual) {
            disagreements.push(format!("{question}\n    from {start} to {at} by {step}: {difference}"));
        }
        asked += 1;
    }
    assert!(
        disagreements.is_empty(),
        "{} of {asked} answers differ:\n  {}",
        disagreements.len(),
        disagreements.join("\n  ")
    );

    closed_left_end(prometheus, hearth, at);
    name_kept(prometheus, hearth, at);
    labels_agree(prometheus, hearth, at);
    metadata_agrees(prometheus, hearth);
    eprintln!("{asked} questions put to Prometheus 2.42 and Hearth, all answers agree to 1e-9");
}

/// Both must hold the same samples of the window before anything is compared: remote write comes a little
/// later.
fn caught_up(prometheus: &Api, hearth: &Api, at: i64) {
    let all = format!("{{job=~'node|prometheus'}}[{REACH_MS}ms]");
    let expected = prometheus.instant(&all, at).matrix();
    assert!(expected.len() > 300, "Prometheus scraped only {} series", expected.len());
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let difference = series_differ(&expected, &hearth.instant(&all, at).matrix());
        match difference {
            None => return,
            Some(difference) => {
                assert!(Instant::now() < deadline, "remote write does not catch up: {difference}")
            }
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// The times of all samples of both jobs in the window (all series of a scrape share one).
fn sample_times(api: &Api, at: i64) -> BTreeSet<i64> {
    let matrix = api.instant(&format!("up{{job=~'node|prometheus'}}[{}ms]", REACH_MS + 15_000), at).matrix();
    assert_eq!(matrix.len(), 2, "both jobs are scraped");
    matrix.into_values().flatten().map(|(t, _)| t).collect()
}

/// A phase of the second with no sample within 3 ms, as far into the second as there is one.
fn free_phase(samples: &BTreeSet<i64>) -> i64 {
    let taken: BTreeSet<i64> = samples.iter().map(|t| t.rem_euclid(1000)).collect();
    (3..997)
        .rev()
        .find(|p| (p - 3..=p + 3).all(|q| !taken.contains(&q)))
        .expect("a scrape a second leaves most phases free")
}

/// The answer to an instant query, and its values in the order they came in.
fn ask(api: &Api, question: &str, at: i64) -> (Data, Vec<f64>) {
    let answer =
        api.post_form("/api/v1/query", &[("query", question), ("time", &test_services::api::seconds(at))]);
    assert_eq!(answer.status, 200, "{question}: {}", answer.text());
    let data = answer.data();
    let rows = data["result"].as_array().cloned().unwrap_or_default();
    let order = rows.iter().filter_map(|row| row["value"][1].as_str()?.parse().ok()).collect();
    (test_services::api::data(&data), order)
}

fn same(a: f64, b: f64) -> bool {
    a == b
        || (a.is_nan() && b.is_nan())
        || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
        || (a - b).abs() < 1e-14
}

fn values_differ(expected: &[f64], actual: &[f64]) -> Option<String> {
    let differ = expected.len() != actual.len() || expected.iter().zip(actual).any(|(a, b)| !same(*a, *b));
    differ.then(|| format!("order: {expected:?} instead of {actual:?}"))
}

/// Says where two answers differ, with Prometheus' first.
fn difference(expected: &Data, actual: &Data) -> Option<String> {
    match (expected, actual) {
        (Data::Scalar(t, v), Data::Scalar(u, w)) if t == u && same(*v, *w) => None,
        (Data::Text(t, v), Data::Text(u, w)) if t == u && v == w => None,
        (Data::Vector(a), Data::Vector(b)) => {
            let series =
                |m: &BTreeMap<_, (i64, f64)>| m.iter().map(|(k, v)| (BTreeMap::clone(k), vec![*v])).collect();
            series_differ(&series(a), &series(b))
        }
        (Data::Matrix(a), Data::Matrix(b)) => series_differ(a, b),
        _ => Some(format!("Prometheus {expected:?}\n    Hearth     {actual:?}")),
    }
}

fn series_differ(
    expected: &BTreeMap<test_services::Labels, Vec<(i64, f64)>>,
    actual: &BTreeMap<test_services::Labels, Vec<(i64, f64)>>,
) -> Option<String> {
    if let Some(missing) = expected.keys().find(|k| !actual.contains_key(*k)) {
        return Some(format!("{} series instead of {}, without {missing:?}", actual.len(), expected.len()));
    }
    if let Some(more) = actual.keys().find(|k| !expected.contains_key(*k)) {
        return Some(format!("{} series instead of {}, also {more:?}", actual.len(), expected.len()));
    }
    expected.iter().find_map(|(labels, points)| {
        let others = &actual[labels];
        let equal = points.len() == others.len()
            && points.iter().zip(others).all(|((t, v), (u, w))| t == u && same(*v, *w));
        (!equal).then(|| format!("{labels:?}\n    Prometheus {points:?}\n    Hearth     {others:?}"))
    })
}

/// The differences that must be there.
fn closed_left_end(prometheus: &Api, hearth: &Api, at: i64) {
    let times = prometheus
        .instant("up{job='node'}[20s]", at)
        .matrix()
        .into_values()
        .next()
        .expect("the exporter was scraped");
    let (last, first) = (times[times.len() - 1].0, times[times.len() - 11].0);
    for (question, closed, open) in CLOSED_LEFT_END {
        let question = question
            .replace("{whole}", &test_services::api::seconds(at / 1000 * 1000))
            .replace("{whole12}", &test_services::api::seconds(at / 12_000 * 12_000))
            .replace("{sample}", &test_services::api::seconds(last))
            .replace("{gap}", &(last - first).to_string());
        assert_eq!(prometheus.instant(&question, at).single(), *closed, "Prometheus 2.42: {question}");
        assert_eq!(hearth.instant(&question, at).single(), *open, "Hearth: {question}");
    }
}

fn name_kept(prometheus: &Api, hearth: &Api, at: i64) {
    let mut older = prometheus.instant(NAME_KEPT, at).vector();
    let (mut labels, value) = older.pop_first().expect("one series");
    assert_eq!(labels.remove("__name__").as_deref(), Some("node_load1"), "Prometheus 2.42: {NAME_KEPT}");
    let expected = Data::Vector(BTreeMap::from([(labels, value)]));
    assert_eq!(difference(&expected, &hearth.instant(NAME_KEPT, at)), None, "{NAME_KEPT}");
}

fn labels_agree(prometheus: &Api, hearth: &Api, at: i64) {
    let (start, end) = (test_services::api::seconds(at - REACH_MS), test_services::api::seconds(at));
    let window = [("match[]", "{job=~'node|prometheus'}"), ("start", &start), ("end", &end)];
    for path in [
        "/api/v1/labels",
        "/api/v1/label/__name__/values",
        "/api/v1/label/mode/values",
        "/api/v1/label/handler/values",
    ] {
        assert_eq!(prometheus.get(path, &window).data(), hearth.get(path, &window).data(), "{path}");
    }
    let series = |api: &Api| -> BTreeSet<test_services::Labels> {
        let data = api.post_form("/api/v1/series", &window).data();
        data.as_array().expect("a list of series").iter().map(test_services::api::labels).collect()
    };
    let (expected, actual) = (series(prometheus), series(hearth));
    assert!(expected.len() > 300, "Prometheus knows only {} series", expected.len());
    assert_eq!(expected.difference(&actual).next(), None, "a series Hearth does not have");
    assert_eq!(actual.difference(&expected).next(), None, "a series only Hearth has");
}

/// What Prometheus knows of its metrics it sends every five seconds; every word of it must be there.
fn metadata_agrees(prometheus: &Api, hearth: &Api) {
    for metric in [
        "node_cpu_seconds_total",
        "node_load1",
        "prometheus_http_request_duration_seconds",
        "go_gc_duration_seconds",
    ] {
        let expected = prometheus.get("/api/v1/metadata", &[("metric", metric)]).data();
        let actual = wait_for(&format!("the metadata of {metric}"), Duration::from_secs(20), || {
            Some(hearth.get("/api/v1/metadata", &[("metric", metric)]).data())
                .filter(|d| d.get(metric).is_some())
        });
        assert_eq!(expected, actual, "{metric}");
    }
}
