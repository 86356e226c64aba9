//! Queries that ask for more than they may have: each ends with an answer or an error that says why, within
//! its memory and its time.

use std::time::{Duration, Instant};

use model::histogram::{BucketSpan, Histogram};
use model::labels::Labels;
use model::source::Budget;
use model::source::memory::MemorySource;
use query::engine::{Engine, EngineOptions, QueryOptions, QueryRequest};
use query::parse::ParseOptions;
use query::value::{ErrorKind, QueryError, QueryResult, QueryValue};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
const MAX_MEMORY_BYTES: u64 = 64 << 20;

fn engine() -> Engine {
    engine_with(Duration::from_secs(120))
}

fn engine_with(timeout: Duration) -> Engine {
    Engine::new(EngineOptions {
        parse: ParseOptions { max_text_bytes: 1 << 20, ..ParseOptions::all() },
        max_memory_bytes: MAX_MEMORY_BYTES,
        max_total_memory_bytes: 2 * MAX_MEMORY_BYTES,
        timeout,
        ..EngineOptions::default()
    })
}

/// 3,000 series `x` of a few samples, and as many native and classic histograms as make a point.
fn source() -> MemorySource {
    let source = MemorySource::new();
    for i in 0..3_000 {
        let labels = Labels::from_pairs([
            ("__name__", "x".to_string()),
            ("i", format!("{i:05}")),
            ("instance", format!("host-{}:9100", i % 100)),
            ("job", "node".to_string()),
            ("text", "a".repeat(40)),
        ]);
        for t in 0..4 {
            source.append_float(&labels, t * MINUTE, f64::from(i) + t as f64 / 7.0);
        }
    }
    for i in 0..20 {
        for le in ["0.1", "1", "+Inf"] {
            let labels =
                Labels::from_pairs([("__name__", "classic_bucket"), ("le", le), ("i", &format!("{i}"))]);
            source.append_float(&labels, 0, f64::from(i) + le.len() as f64);
        }
        let histogram = Histogram {
            count: 6.0,
            sum: f64::from(i),
            positive_spans: vec![BucketSpan { offset: i, length: 2 }],
            positive_buckets: vec![2.0, 4.0],
            ..Histogram::default()
        };
        let labels = Labels::from_pairs([("__name__", "native"), ("i", &format!("{i}"))]);
        source.append_histogram(&labels, 0, histogram);
    }
    let info = Labels::from_pairs([
        ("__name__", "target_info"),
        ("instance", "host-1:9100"),
        ("job", "node"),
        ("version", "1"),
    ]);
    source.append_float(&info, 0, 1.0);
    source
}

fn ended(text: &str, result: &Result<QueryResult, QueryError>) {
    if let Err(e) = result {
        let known = [ErrorKind::Execution, ErrorKind::BadData, ErrorKind::Timeout];
        assert!(known.contains(&e.kind), "{}: {:?} {e}", &text[..text.len().min(80)], e.kind);
    }
}

/// `inner` within `levels` calls.
fn nested(levels: usize, before: &str, inner: &str, after: &str) -> String {
    format!("{}{inner}{}", before.repeat(levels), after.repeat(levels))
}

fn execution_error(text: &str) -> String {
    let error = engine().run(&source(), &QueryRequest::instant(text, 0)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Execution, "{error}");
    error.message
}

#[test]
fn label_join_refuses_a_value_that_is_too_long() {
    let sources = "\"a\", ".repeat(4_100);
    let text = format!("label_join(x, \"x\", \"{}\", {})", "s".repeat(4_100), sources.trim_end_matches(", "));
    assert!(execution_error(&text).contains("label_join() makes a label value of more than"));
}

#[test]
fn label_join_in_itself_is_charged() {
    let text = nested(14, "label_join(", "x", ", \"text\", \"\", \"text\", \"text\")");
    let message = execution_error(&text);
    assert!(message.contains("query.max_memory_bytes") || message.contains("label value"), "{message}");
}

#[test]
fn label_replace_with_thousands_of_groups_is_refused_or_charged() {
    let text = format!("label_replace(x, \"y\", \"{}\", \"text\", \"(.*)\")", "$1".repeat(30_000));
    assert!(execution_error(&text).contains("label_replace() makes a label value of more than"));
    let text = format!("label_replace(x, \"y\", \"{}\", \"text\", \"(.*)\")", "$1".repeat(3_000));
    assert!(execution_error(&text).contains("query.max_memory_bytes"));
}

#[test]
fn labels_that_are_made_are_charged_where_rows_are_streamed_too() {
    let text = format!("label_replace(x, \"y\", \"{}\", \"text\", \"(.*)\")", "$1".repeat(600));
    let mut rows = 0;
    let request = QueryRequest::range(&text, 0, 3 * MINUTE, MINUTE);
    let result = engine().run_streamed(&source(), &request, 1 << 20, &mut |_, _| {
        rows += 1;
        Ok(())
    });
    // In order and one by one: as many as there are, without holding them.
    assert_eq!((result.unwrap().stats.series, rows), (3_000, 3_000));
}

#[test]
fn label_replace_does_not_run_a_large_program_over_a_long_value() {
    let long = nested(12, "label_join(", "x{i=\"00001\"}", ", \"text\", \"\", \"text\", \"text\")");
    let text = format!("label_replace({long}, \"y\", \"$1\", \"text\", \"(\\\\pL{{30}}b|[a-z]*)\")");
    assert!(execution_error(&text).contains("too large for a label value"));
}

#[test]
fn subquery_of_ten_million_steps_is_for_the_budget_to_decide() {
    let source = MemorySource::new();
    for job in ["a", "b"] {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", job)]);
        for t in (0..120 * DAY).step_by(4 * MINUTE as usize) {
            source.append_float(&labels, t, 1.0);
        }
    }
    let request = QueryRequest::range("count_over_time(up[1m:1s])", DAY, 120 * DAY - MINUTE, DAY);
    let enough = Engine::new(EngineOptions::default());
    let value = enough.run(&source, &request).unwrap().value;
    let QueryValue::RangeVector(all) = value.with_times() else { panic!("no matrix") };
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|s| s.values.len() == 119 && s.values.iter().all(|v| *v == 60.0)));
    let error = engine().run(&source, &request).unwrap_err();
    assert!(error.message.contains("query.max_memory_bytes"), "{error}");
}

/// Queries of 30 kinds that ask for much, with their steps over the first minutes.
fn bombs() -> Vec<(String, usize)> {
    let many_names = |n: usize| (0..n).map(|i| format!("l{i}")).collect::<Vec<_>>().join(", ");
    let many_strings = |n: usize| (0..n).map(|i| format!("\"l{i}\"")).collect::<Vec<_>>().join(", ");
    let pods = (0..400).map(|i| format!("pod-{i}-abcdef")).collect::<Vec<_>>().join("|");
    let few = |text: &str| (text.to_string(), 4);
    vec![
        few(&nested(100, "label_join(", "x", ", \"y\", \"-\", \"y\", \"text\")")),
        few(&nested(60, "label_replace(", "x", ", \"y\", \"$1$1\", \"y\", \"(.*)\")")),
        few(&nested(
            40,
            "label_replace(",
            "label_join(x, \"y\", \"\", \"text\")",
            ", \"y\", \"$1$1\", \"y\", \"(.*)\")",
        )),
        few(&format!("sum(label_replace(x, \"y\", \"{}\", \"i\", \"(.*)\")) by (y)", "$1".repeat(20_000))),
        few(&format!(
            "count by (y) (label_replace(x, \"y\", \"${{1}}{}\", \"i\", \"(.*)\"))",
            "a".repeat(60_000)
        )),
        few(&format!("topk(5, label_replace(x, \"y\", \"${{1}}{}\", \"i\", \"(.*)\"))", "a".repeat(60_000))),
        few(&format!(
            "label_replace(x, \"y\", \"${{1}}{}\", \"i\", \"(.*)\") * on (i) x",
            "a".repeat(60_000)
        )),
        few(&format!(
            "x * on (i) group_left(y) label_replace(x, \"y\", \"${{1}}{}\", \"i\", \"(.*)\")",
            "a".repeat(60_000)
        )),
        few(&format!("label_replace(x, \"y\", \"{}\", \"i\", \"(.*)\") or x", "$1".repeat(10_000))),
        few(&format!("count_values(\"{}\", x)", "v".repeat(60_000))),
        ("count_values(\"v\", x * on () group_left vector(time()))".to_string(), 100),
        ("count_values(\"v\", x + time())".to_string(), 11_000),
        ("count_values without () (\"v\", x * time())".to_string(), 11_000),
        ("histogram_quantiles(classic_bucket, \"q\", time() / 1000, time() / 2000)".to_string(), 11_000),
        ("histogram_quantiles(native, \"q\", time() % 7 / 7, time() / 2000)".to_string(), 11_000),
        few("x / on () x"),
        few("x / on (job) group_left x"),
        few(&format!("x * on ({}) x", many_names(5_000))),
        few(&format!("x * ignoring (i) group_right({}) x", many_names(5_000))),
        few(&format!("sum by ({}) (x)", many_names(20_000))),
        few(&format!("sum without ({}) (x)", many_names(20_000))),
        (format!("sort_by_label(x, {})", many_strings(10_000)), 1),
        (format!("sort_by_label_desc(x, {})", many_strings(10_000)), 1),
        few(&format!("label_join(x, \"y\", \"-\", {})", many_strings(20_000))),
        few("info(x)"),
        few("info(x, {version=~\".+\"})"),
        ("quantile(0.5, x)".to_string(), 11_000),
        ("stddev by (i) (x)".to_string(), 11_000),
        ("x".to_string(), 11_000),
        ("timestamp(x)".to_string(), 11_000),
        ("absent(x) or vector(1)".to_string(), 11_000),
        few("max_over_time(vector(1)[40d:1ms])"),
        few("max_over_time(x[10d:1s])"),
        few("quantile_over_time(0.5, x[10d:1s])"),
        few("max_over_time(quantile_over_time(scalar(vector(0.5)), x[5m])[30d:1s])"),
        few("max_over_time(max_over_time(max_over_time(x[1d:1s])[1d:1s])[1d:1s])"),
        few("absent_over_time(x[30d:1s])"),
        few("sum(x[10d:1s] @ 0)"),
        few(&format!("x{{i=~\"{}\"}}", "\\\\pL{30}|".repeat(5_000))),
        few(&(0..2_000).map(|i| format!("x{{i=~\".*a{i}.*\\\\pL{{9}}\"}}")).collect::<Vec<_>>().join(" or ")),
        few(&format!("x{{i=~\"{}{}\"}}", "(a|b)".repeat(10), "c".repeat(60_000))),
        few(&format!("x{{i=~\"{}\"}}", "\\\\pL".repeat(15_000))),
        few(&vec![format!("x{{pod=~\"{pods}\"}}"); 4].join(" or ")),
        few(&vec!["x"; 2_000].join(" + ")),
        few(&nested(190, "(", "x", ")")),
        few(&nested(190, "-", "x", "")),
    ]
}

#[test]
fn query_bombs_end_within_the_memory_of_the_server() {
    let (source, engine) = (source(), engine_with(Duration::from_secs(3)));
    for (text, steps) in bombs() {
        let request = match steps {
            1 => QueryRequest::instant(&text, 0),
            _ => QueryRequest::range(&text, 0, (steps as i64 - 1) * 15_000, 15_000),
        };
        let result = engine.run(&source, &request);
        ended(&text, &result);
        if let Ok(result) = &result {
            assert!(result.stats.bytes_peak <= MAX_MEMORY_BYTES, "{}", &text[..text.len().min(80)]);
        }
        assert_eq!(engine.memory().reserved_bytes(), 0, "what a query held is given back");
    }
    // What the budgets do not see: the source itself, timelines in use, short lists, the allocator's own.
    if let Some(peak) = resident_peak_bytes() {
        assert!(peak < 8 * MAX_MEMORY_BYTES, "{} MiB resident", peak >> 20);
    }
}

/// Most memory this process ever had, where the system says so.
fn resident_peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? << 10)
}

/// One series of 150,000 samples, a second apart.
fn long_series() -> MemorySource {
    let source = MemorySource::new();
    let labels = Labels::from_pairs([("__name__", "long_total")]);
    for t in 0..150_000i64 {
        source.append_float(&labels, t * 1_000, ((t * 7_919) % 10_007) as f64 / 3.0);
    }
    source
}

#[test]
fn range_functions_look_at_the_clock_within_one_series() {
    let (source, engine) = (long_series(), Engine::default());
    for function in [
        "stddev_over_time(long_total[100000s])",
        "predict_linear(long_total[100000s], 60)",
        "avg_over_time(long_total[100000s])",
        "deriv(long_total[100000s])",
        "ts_of_max_over_time(long_total[100000s])",
    ] {
        let mut request = QueryRequest::range(function, 100_000_000, 144_000_000, 4_000);
        // Uninterrupted each would take minutes.
        let deadline = Instant::now() + Duration::from_millis(700);
        let budget = Budget::new(u64::MAX, u64::MAX, Some(deadline));
        request.options = QueryOptions { budget: Some(budget), ..QueryOptions::default() };
        match engine.run(&source, &request) {
            Err(e) => assert!([ErrorKind::Timeout, ErrorKind::BadData].contains(&e.kind), "{function}: {e}"),
            Ok(_) => panic!("{function} was done in time"),
        }
    }
}

#[test]
fn duplicates_on_the_one_side_are_found_without_comparing_all_pairs() {
    let source = MemorySource::new();
    for i in 0..30_000 {
        let labels = Labels::from_pairs([("__name__", "many".to_string()), ("i", format!("{i}"))]);
        source.append_float(&labels, 0, 1.0);
    }
    let error = engine().run(&source, &QueryRequest::instant("many / on () many", 0)).unwrap_err();
    assert!(error.message.starts_with("found duplicate series for the match group {}"), "{error}");
}
