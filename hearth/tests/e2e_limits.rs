//! Limits of tenants, turns and memory on a whole server: each limit says what it is, what is good is kept,
//! one tenant's noise is not another's, and a crash leaves behind what was being asked.

mod test_services;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::tenant_limits::Limit;
use test_services::api::{Answer, percent, seconds};
use test_services::remote_write::{snappy, write_request};
use test_services::{Api, Hearth, Series, Start, now_ms, series, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server with a file of limits.
fn start(folder: &Path, limits: &str, more: &str) -> Hearth {
    write_limits(folder, limits);
    let file = folder.join("limits.yaml");
    let config = format!("tenant_header: X-Scope-OrgID\nlimits:\n  file: {}\n{more}", file.display());
    Start::at(folder).config(&config).ready()
}

fn write_limits(folder: &Path, limits: &str) {
    std::fs::write(folder.join("limits.yaml"), limits).expect("a file can be written");
}

fn write(api: &Api, tenant: &str, all: &[Series]) -> Answer {
    let headers = [
        ("Content-Encoding", "snappy"),
        ("Content-Type", "application/x-protobuf"),
        ("X-Scope-OrgID", tenant),
    ];
    api.post("/api/v1/write", &headers, &snappy(&write_request(all)))
}

fn get(api: &Api, tenant: &str, path: &str) -> Answer {
    api.get_with(path, &[("X-Scope-OrgID", tenant)])
}

fn instant(api: &Api, tenant: &str, expr: &str) -> Answer {
    get(api, tenant, &format!("/api/v1/query?query={}", percent(expr.as_bytes(), false)))
}

fn range(api: &Api, tenant: &str, expr: &str, back_ms: i64, step_s: i64) -> Answer {
    try_range(api, tenant, expr, back_ms, step_s).unwrap_or_else(|e| panic!("{expr}: {e}"))
}

fn try_range(api: &Api, tenant: &str, expr: &str, back_ms: i64, step_s: i64) -> Result<Answer, ureq::Error> {
    let now = now_ms();
    let (start, end) = (seconds(now - back_ms), seconds(now));
    let expr = percent(expr.as_bytes(), false);
    let path = format!("/api/v1/query_range?query={expr}&start={start}&end={end}&step={step_s}");
    api.try_get_with(&path, &[("X-Scope-OrgID", tenant)])
}

fn metric(api: &Api, line: &str) -> f64 {
    let text = api.get("/metrics", &[]).text();
    let found = text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {line} in {text}"))
}

#[test]
fn limits_are_told_by_name_keep_what_is_good_and_change_while_it_runs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let limits = "overrides:\n  small:\n    max_global_series_per_user: 3\n    max_global_series_per_metric: 2\n    max_label_names_per_series: 3\n    max_label_value_length: 10\n    past_grace_period: 1h\n";
    let hearth = start(folder.path(), limits, "");
    let (api, now) = (&hearth.api, now_ms());
    let one = |name: &str, n: &str, at: i64| series(&[("__name__", name), ("n", n)], &[(at, 1.0)]);
    let answer = write(api, "small", &[one("a", "1", now), one("a", "2", now), one("a", "3", now)]);
    let told = answer.error(400, "bad_data");
    assert!(told.contains("the limit of this tenant is 2 (max_global_series_per_metric)"), "{told}");
    assert!(told.contains("1 of 3 samples not stored") && told.contains("limits.file"), "{told}");
    let told = write(api, "small", &[one("b", "1", now), one("c", "1", now)]).error(400, "bad_data");
    assert!(told.contains("the limit of this tenant is 3 (max_global_series_per_user)"), "{told}");
    let told =
        write(api, "small", &[one("a", "1", now + 1), one("a", "2", now - 7_200_000)]).error(400, "bad_data");
    assert!(told.contains("(past_grace_period)"), "{told}");
    let long = series(&[("__name__", "a"), ("n", "longer than ten")], &[(now, 1.0)]);
    let told = write(api, "small", &[long]).error(400, "bad_data");
    assert!(told.contains("max_label_value_length"), "{told}");
    let many = series(&[("__name__", "a"), ("a", "1"), ("b", "1"), ("c", "1")], &[(now, 1.0)]);
    assert!(write(api, "small", &[many]).error(400, "bad_data").contains("max_label_names_per_series"));
    let count = instant(api, "small", "count({__name__=~\".+\"})").data();
    assert_eq!(count["result"][0]["value"][1], "3", "what was good is there");
    // Another tenant has none of it.
    let free: Vec<_> = (0..10).map(|n| one("a", &n.to_string(), now)).collect();
    assert_eq!(write(api, "other", &free).status, 204);
    let refused =
        metric(api, "hearth_limit_refusals_total{tenant=\"small\",limit=\"max_global_series_per_metric\"}");
    assert_eq!(refused, 1.0);
    // Shown, and read again without a start.
    let diff = api.get("/runtime_config", &[("mode", "diff")]).text();
    assert!(diff.contains("\"small\":") && diff.contains("    past_grace_period: 1h\n"), "{diff}");
    assert!(!diff.contains("ingestion_rate"), "{diff}");
    write_limits(folder.path(), "overrides: {small: {max_global_series_per_user: many}}");
    wait_for("a wrong file to be noticed", PATIENCE, || {
        (metric(api, "hearth_limits_file_last_reload_successful") == 0.0).then_some(())
    });
    assert_eq!(write(api, "small", &[one("d", "1", now)]).status, 400, "the former limits hold");
    write_limits(folder.path(), "overrides: {small: {max_global_series_per_user: 100}}");
    wait_for("the new limit to hold", PATIENCE, || {
        (write(api, "small", &[one("d", "1", now)]).status == 204).then_some(())
    });
    assert_eq!(metric(api, "hearth_limits_file_last_reload_successful"), 1.0);
    assert_eq!(api.get("/runtime_config", &[("mode", "x")]).status, 400);
}

#[test]
fn queries_are_bounded_by_the_limits_of_their_tenant() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let limits = "overrides:\n  bound:\n    max_fetched_series_per_query: 5\n    max_total_query_length: 1d\n    max_partial_query_length: 12h\n    max_query_lookback: 30m\n    blocked_queries:\n      - pattern: .*secret.*\n        regex: true\n        reason: ask the finance team\n  chunks: {max_fetched_chunks_per_query: 1}\n  memory: {max_estimated_memory_consumption_per_query: 10000}\n";
    let hearth = start(folder.path(), limits, "");
    let (api, now) = (&hearth.api, now_ms());
    for tenant in ["bound", "chunks", "memory", "free"] {
        let old = series(&[("__name__", "old")], &[(now - 3_600_000, 1.0)]);
        let mut all: Vec<_> = (0..10)
            .map(|n| {
                let samples: Vec<_> = (0..300).map(|s| (now - 300_000 + s * 1_000, s as f64)).collect();
                series(&[("__name__", "x"), ("n", &n.to_string())], &samples)
            })
            .collect();
        all.push(old);
        assert_eq!(write(api, tenant, &all).status, 204);
    }
    let told = instant(api, "bound", "sum(x)").error(422, "execution");
    assert!(told.contains("the limit of this tenant is 5 (max_fetched_series_per_query)"), "{told}");
    assert_eq!(instant(api, "bound", "sum(x{n=~\"[0-4]\"})").status, 200);
    let told = range(api, "bound", "vector(1)", 3 * 86_400_000, 3_600).error(400, "bad_data");
    assert!(
        told.contains("the query's range is 3d, the limit of this tenant is 1d (max_total_query_length)"),
        "{told}"
    );
    assert_eq!(range(api, "bound", "x{n=\"1\"}", 3_600_000, 60).status, 200);
    let told = instant(api, "bound", "secret_metric").error(400, "bad_data");
    assert!(told.contains("blocked_queries") && told.ends_with("ask the finance team"), "{told}");
    let seen = |tenant, expr| instant(api, tenant, expr).data()["result"].as_array().expect("a list").len();
    assert_eq!(seen("bound", "last_over_time(old[2h])"), 0, "older than the lookback");
    assert_eq!(seen("free", "last_over_time(old[2h])"), 1);
    let told = instant(api, "chunks", "count_over_time(x[1h])").error(422, "execution");
    assert!(told.contains("max_fetched_chunks_per_query"), "{told}");
    let told = instant(api, "memory", "sort(x[5m:1s] offset 0s) or x").status;
    assert!((400..500).contains(&told));
    let told = range(api, "memory", "x", 300_000, 1).error(422, "execution");
    assert!(told.contains("max_estimated_memory_consumption_per_query"), "{told}");
    assert_eq!(seen("free", "x"), 10);
    let counted = metric(api, "hearth_limit_refusals_total{tenant=\"bound\",limit=\"blocked_queries\"}");
    assert_eq!(counted, 1.0);
}

/// What the tenant of a limit may, in the limit's own unit; `None`: it is not one that refuses.
fn allowed(limit: Limit) -> Option<u64> {
    Some(match limit {
        Limit::IngestionRate => 10,
        Limit::MaxSeries | Limit::MaxSeriesPerMetric | Limit::MaxFetchedChunks => 1,
        Limit::MaxOutstandingRequests => 1,
        Limit::MaxLabelNames => 2,
        Limit::MaxLabelNameLength | Limit::MaxLabelValueLength => 10,
        Limit::CreationGracePeriod => 60_000,
        Limit::PastGracePeriod | Limit::MaxTotalQueryLength | Limit::MaxPartialQueryLength => 3_600_000,
        Limit::OutOfOrderWindow => 300_000,
        Limit::MaxRequestSize => 1_000,
        Limit::MaxFetchedSeries => 5,
        Limit::MaxFetchedBytes => 10,
        Limit::MaxQueryMemory => 1_000,
        // Part of the rate, what is not seen, what waits, and what is not kept.
        Limit::IngestionBurstSize
        | Limit::MaxQueryLookback
        | Limit::MaxQueryParallelism
        | Limit::BlocksRetentionPeriod => return None,
    })
}

/// The first refusal where eight ask at once.
fn one_too_many(api: &Api, tenant: &str) -> Answer {
    let stop = AtomicBool::new(false);
    let ask = || {
        let next = |_: u32| (!stop.load(Ordering::Relaxed)).then(|| instant(api, tenant, HEAVY));
        let answer = (0..100).map_while(next).find(|answer| answer.status != 200);
        stop.store(true, Ordering::Relaxed);
        answer
    };
    let answers: Vec<_> = std::thread::scope(|threads| {
        let all: Vec<_> = (0..8).map(|_| threads.spawn(ask)).collect();
        all.into_iter().filter_map(|t| t.join().expect("a client was answered")).collect()
    });
    answers.into_iter().next().expect("eight queries at once are more than may wait")
}

/// What is told to a tenant that runs into its limit.
fn refused(api: &Api, limit: Limit, now: i64) -> Answer {
    let tenant = limit.name();
    let one = |n: i64, at: i64| series(&[("__name__", "x"), ("n", &n.to_string())], &[(at, 1.0)]);
    let many = |n| (0..n).map(|n| one(n, now)).collect::<Vec<_>>();
    let labelled = |name, value: &str| series(&[("__name__", "y"), (name, value)], &[(now, 1.0)]);
    match limit {
        Limit::IngestionRate => {
            assert_eq!(write(api, tenant, &many(300)).status, 204, "one request is taken whole");
            write(api, tenant, &many(300))
        }
        Limit::MaxSeries | Limit::MaxSeriesPerMetric => write(api, tenant, &many(2)),
        Limit::MaxLabelNames => {
            write(api, tenant, &[series(&[("__name__", "y"), ("a", "1"), ("b", "1")], &[(now, 1.0)])])
        }
        Limit::MaxLabelNameLength => write(api, tenant, &[labelled("longer_than_ten", "1")]),
        Limit::MaxLabelValueLength => write(api, tenant, &[labelled("a", "longer than ten")]),
        Limit::CreationGracePeriod => write(api, tenant, &[one(1, now + 300_000)]),
        Limit::PastGracePeriod => write(api, tenant, &[one(1, now - 7_200_000)]),
        Limit::OutOfOrderWindow => {
            assert_eq!(write(api, tenant, &many(1)).status, 204);
            let fine = [one(0, now - 240_000), one(1, now - 600_000)];
            assert_eq!(write(api, tenant, &fine).status, 204, "within the window, and the first of a series");
            assert_eq!(write(api, tenant, &[one(1, now - 500_000)]).status, 204, "in order");
            write(api, tenant, &[one(0, now - 600_000)])
        }
        Limit::MaxRequestSize => write(api, tenant, &many(100)),
        Limit::MaxFetchedSeries => instant(api, tenant, "sum(x)"),
        Limit::MaxFetchedChunks => instant(api, tenant, "count_over_time(x[1h])"),
        Limit::MaxFetchedBytes => instant(api, tenant, "count_over_time(x[1h])"),
        Limit::MaxQueryMemory => range(api, tenant, "x", 300_000, 1),
        Limit::MaxTotalQueryLength => range(api, tenant, "x", 7_200_000, 60),
        Limit::MaxPartialQueryLength => instant(api, tenant, "count_over_time(x[2h])"),
        Limit::MaxOutstandingRequests => one_too_many(api, tenant),
        other => unreachable!("{other:?} refuses nothing"),
    }
}

#[test]
fn limits_have_each_a_metric_an_alert_and_a_refusal_that_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut limits = "overrides:\n".to_owned();
    for limit in Limit::ALL {
        if let Some(value) = allowed(*limit) {
            let name = limit.name();
            limits += &format!("  {name}:\n    {name}: {}\n", limit.shown(value));
            if *limit == Limit::MaxOutstandingRequests {
                limits += "    max_query_parallelism: 1\n";
            }
        }
    }
    let hearth = start(folder.path(), &limits, "");
    let (api, now) = (&hearth.api, now_ms());
    let asked = [
        Limit::MaxFetchedSeries,
        Limit::MaxFetchedChunks,
        Limit::MaxFetchedBytes,
        Limit::MaxQueryMemory,
        Limit::MaxPartialQueryLength,
        Limit::MaxOutstandingRequests,
    ];
    for limit in asked {
        let samples: Vec<_> = (0..300).map(|s| (now - 300_000 + s * 1_000, s as f64)).collect();
        let all: Vec<_> =
            (0..20).map(|n| series(&[("__name__", "x"), ("n", &n.to_string())], &samples)).collect();
        assert_eq!(write(api, limit.name(), &all).status, 204);
    }
    api.flush();
    for limit in Limit::ALL.iter().filter(|l| allowed(**l).is_some()) {
        let (name, answer) = (limit.name(), refused(api, *limit, now));
        let told = answer.text();
        assert!([400, 422, 429, 503].contains(&answer.status), "{name}: {} {told}", answer.status);
        let value = limit.shown(allowed(*limit).expect("it has one"));
        for part in [name, &value, limit.setting()] {
            assert!(told.contains(part), "{name}: {part} is not in {told}");
        }
        let counted =
            metric(api, &format!("hearth_limit_refusals_total{{tenant=\"{name}\",limit=\"{name}\"}}"));
        assert!(counted >= 1.0, "{name}");
        let shown = metric(api, &format!("hearth_limit_override{{tenant=\"{name}\",limit=\"{name}\"}}"));
        assert!(shown > 0.0, "{name}");
    }
    for limit in Limit::ALL {
        metric(api, &format!("hearth_limit_default{{limit=\"{}\"}}", limit.name()));
    }
    let alerts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/alerts.yaml");
    let alerts = std::fs::read_to_string(alerts).expect("there are alerts");
    // By limit, so that no limit is without; and what waits is not refused.
    assert!(alerts.contains("sum by (instance, tenant, limit) (rate(hearth_limit_refusals_total[10m])) > "));
    assert!(alerts.contains("hearth_query_queued > "));
}

/// A query that keeps a core busy for long.
const HEAVY: &str = "sum(rate(x[5m:1s])) + sum(rate(x[6m:1s])) + sum(rate(x[7m:1s])) + sum(rate(x[8m:1s]))";

/// What a tenant's queries of one kind took, in order.
fn timed(api: &Api, tenant: &str, times: usize) -> Vec<Duration> {
    let mut all: Vec<_> = (0..times)
        .map(|_| {
            let begun = Instant::now();
            assert_eq!(instant(api, tenant, "sum(x)").status, 200);
            begun.elapsed()
        })
        .collect();
    all.sort();
    all
}

#[test]
fn noise_of_one_tenant_is_put_off_and_leaves_turns_to_another() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let limits = "overrides:\n  noisy: {ingestion_rate: 1000, ingestion_burst_size: 1000, max_query_parallelism: 1, max_outstanding_requests_per_tenant: 30}\n";
    let hearth = start(folder.path(), limits, "");
    let (api, now) = (&hearth.api, now_ms());
    let data = |tenant: &str| -> Vec<Series> {
        let samples: Vec<_> = (0..20).map(|s| (now - 300_000 + s * 15_000, s as f64)).collect();
        (0..50)
            .map(|n| series(&[("__name__", "x"), ("n", &n.to_string()), ("of", tenant)], &samples))
            .collect()
    };
    for tenant in ["noisy", "quiet"] {
        assert_eq!(write(api, tenant, &data(tenant)).status, 204);
    }
    let alone = timed(api, "quiet", 100);
    let (stop, sent, put_off, answered, refused) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let begun = Instant::now();
    let beside = std::thread::scope(|threads| {
        let (stop, sent, put_off) = (&stop, &sent, &put_off);
        let (answered, refused) = (&answered, &refused);
        threads.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let answer = write(api, "noisy", &data("noisy"));
                match answer.status {
                    204 => _ = sent.fetch_add(1_000, Ordering::Relaxed),
                    503 => {
                        assert!(answer.headers["retry-after"].parse::<u32>().is_ok_and(|s| s >= 1));
                        assert!(answer.error(503, "unavailable").contains("(ingestion_rate)"));
                        put_off.fetch_add(1, Ordering::Relaxed);
                    }
                    other => panic!("{other}: {}", answer.text()),
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        for _ in 0..40 {
            threads.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = instant(api, "noisy", HEAVY);
                    match answer.status {
                        200 => _ = answered.fetch_add(1, Ordering::Relaxed),
                        429 => {
                            let told = answer.error(429, "too_many_requests");
                            assert!(told.contains("max_outstanding_requests_per_tenant"), "{told}");
                            refused.fetch_add(1, Ordering::Relaxed);
                            std::thread::sleep(Duration::from_millis(50));
                        }
                        other => panic!("{other}: {}", answer.text()),
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_secs(2));
        let beside = timed(api, "quiet", 100);
        // Nothing of the quiet one waits: all turns that the noisy one may have are one.
        let listed = get(api, "quiet", "/api/v1/status/queries").data();
        assert!(listed["running"].as_array().is_some_and(Vec::is_empty), "{listed}");
        let listed = get(api, "noisy", "/api/v1/status/queries").data();
        let running = listed["running"].as_array().expect("a list");
        let at_once = running.iter().filter(|q| q["state"] == "running").count();
        assert!(at_once <= 1 && running.len() <= 31, "{at_once} of {} at once", running.len());
        stop.store(true, Ordering::Relaxed);
        beside
    });
    let seconds = begun.elapsed().as_secs_f64();
    let p = |all: &[Duration], percent: usize| all[all.len() * percent / 100];
    eprintln!(
        "quiet alone p50 {:?} p99 {:?}; beside noise p50 {:?} p99 {:?}; noisy: {} samples in {seconds:.0} s, {} writes put off, {} queries answered, {} refused",
        p(&alone, 50),
        p(&alone, 99),
        p(&beside, 50),
        p(&beside, 99),
        sent.load(Ordering::Relaxed),
        put_off.load(Ordering::Relaxed),
        answered.load(Ordering::Relaxed),
        refused.load(Ordering::Relaxed)
    );
    assert!(put_off.load(Ordering::Relaxed) > 0 && refused.load(Ordering::Relaxed) > 0);
    assert!(answered.load(Ordering::Relaxed) > 0, "the noisy one is served too");
    assert!((sent.load(Ordering::Relaxed) as f64) < 1_000.0 * (seconds + 3.0));
}

#[test]
fn queries_that_a_crash_ended_are_told_by_the_next_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut hearth = start(folder.path(), "overrides: {}\n", "");
    let now = now_ms();
    let samples: Vec<_> = (0..600).map(|s| (now - 600_000 + s * 1_000, s as f64)).collect();
    let all: Vec<_> =
        (0..100).map(|n| series(&[("__name__", "x"), ("n", &n.to_string())], &samples)).collect();
    assert_eq!(write(&hearth.api, "a", &all).status, 204);
    let api = hearth.api.clone();
    let asking = std::thread::spawn(move || {
        let headers = [("X-Scope-OrgID", "a"), ("Content-Type", "application/x-www-form-urlencoded")];
        let (start, end) = (seconds(now - 3_600_000), seconds(now));
        let query = percent(HEAVY.as_bytes(), false);
        let form = format!("query={query}&start={start}&end={end}&step=1");
        // The connection ends with the process.
        while api.try_post("/api/v1/query_range", &headers, form.as_bytes()).is_ok() {}
    });
    wait_for("a query to be noted", PATIENCE, || {
        let file = std::fs::read_to_string(hearth.start.data_dir().join("queries.active")).ok()?;
        file.contains("\"tenant\":\"a\"").then_some(())
    });
    hearth.kill();
    asking.join().expect("the client ends");
    let hearth = hearth.again();
    let listed = get(&hearth.api, "a", "/api/v1/status/queries").data();
    let unfinished = listed["unfinished"].as_array().expect("a list");
    assert_eq!(unfinished.len(), 1, "{listed}");
    let query = &unfinished[0];
    assert_eq!((query["query"].as_str(), query["endpoint"].as_str()), (Some(HEAVY), Some("query_range")));
    let log = std::fs::read_to_string(folder.path().join("hearth.log")).expect("the server's log");
    assert!(log.contains("this query did not end in the last run"));
    let other = get(&hearth.api, "b", "/api/v1/queries").data();
    assert_eq!(other["unfinished"].as_array().map(Vec::len), Some(0), "of another tenant nobody hears");
}

/// What a process with a limit of 1 GiB may need at most.
const CAP_BYTES: u64 = 1 << 30;

#[test]
fn memory_of_the_process_stays_within_a_cap_under_floods_of_series_and_queries() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hearth = start(folder.path(), "overrides: {}\n", "memory:\n  limit: 512MiB\n");
    let api = &hearth.api;
    let now = now_ms();
    let stop = Arc::new(AtomicBool::new(false));
    let statuses: Arc<std::sync::Mutex<std::collections::BTreeMap<u16, u64>>> = Arc::default();
    let count = |status: u16| {
        assert!(status == 200 || status == 204 || (400..504).contains(&status) && status != 500, "{status}");
        *statuses.lock().expect("no thread panicked").entry(status).or_default() += 1;
    };
    std::thread::scope(|threads| {
        let (stop, count) = (&stop, &count);
        for sender in 0..3u64 {
            threads.spawn(move || {
                let mut n = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    let all: Vec<_> = (0..2_000)
                        .map(|s| {
                            let id = format!("{sender}-{}", n * 2_000 + s);
                            let text = format!("{id}{}", "v".repeat(200));
                            series(&[("__name__", "flood"), ("id", &id), ("text", &text)], &[(now, 1.0)])
                        })
                        .collect();
                    count(write(api, "flood", &all).status);
                    n += 1;
                }
            });
        }
        for query in [
            "{__name__=~\".+\"}",
            "count by (id, text) (flood)",
            "label_replace(flood, \"y\", \"$1$1$1$1\", \"text\", \"(.*)\")",
        ] {
            threads.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    count(instant(api, "flood", query).status);
                    // A large answer begins before all of it is there: where memory runs out meanwhile, its
                    // connection ends.
                    if let Ok(answer) = try_range(api, "flood", query, 600_000, 15) {
                        count(answer.status);
                    }
                    count(get(api, "flood", "/api/v1/series?match[]=flood").status);
                }
            });
        }
        std::thread::sleep(Duration::from_secs(30));
        stop.store(true, Ordering::Relaxed);
    });
    let most = hearth.process.memory_bytes("VmHWM");
    let statuses = statuses.lock().expect("no thread panicked");
    eprintln!("{} MiB at most; answers by status: {statuses:?}", most >> 20);
    assert!(most < CAP_BYTES, "{} MiB resident", most >> 20);
    drop(statuses);
    wait_for("a write of another tenant to be taken", PATIENCE, || {
        let one = series(&[("__name__", "well")], &[(now_ms(), 1.0)]);
        (write(api, "well", &[one]).status == 204).then_some(())
    });
    assert_eq!(instant(api, "well", "well").data()["result"].as_array().map(Vec::len), Some(1));
}
