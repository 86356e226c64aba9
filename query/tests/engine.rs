//! The engine over samples in memory, against values worked out by hand from Prometheus' rules.

use model::labels::Labels;
use model::sample::{Value, stale_nan};
use model::source::memory::MemorySource;
use model::source::{Budget, LabelQuery, Selection, SeriesCursor, Source, SourceError};
use query::engine::{Engine, EngineOptions, QueryRequest};
use query::parse::ParseOptions;
use query::value::{ErrorKind, QueryError, QueryValue};

const MINUTE: i64 = 60_000;

/// `requests_total` of three jobs, every 15 s over 10 min, growing by 1, 2 and 3 a sample; `b` is reset at 5
/// min.
fn source() -> MemorySource {
    let source = MemorySource::new();
    for (n, job) in [(1.0, "a"), (2.0, "b"), (3.0, "c")] {
        let labels = Labels::from_pairs([("__name__", "requests_total"), ("job", job)]);
        for i in 0..=40i64 {
            let since = if job == "b" && i >= 20 { i - 20 } else { i };
            source.append_float(&labels, i * 15_000, since as f64 * n);
        }
    }
    let gone = Labels::from_pairs([("__name__", "gone")]);
    source.append_float(&gone, 0, 1.0);
    source.append_float(&gone, MINUTE, stale_nan());
    source
}

fn engine() -> Engine {
    Engine::new(EngineOptions { parse: ParseOptions::all(), ..EngineOptions::default() })
}

/// `labels value` per sample of an instant query.
fn instant(text: &str, time_ms: i64) -> Result<Vec<String>, QueryError> {
    let result = engine().run(&source(), &QueryRequest::instant(text, time_ms))?;
    Ok(match result.value {
        QueryValue::Scalar { value, .. } => vec![value.to_string()],
        QueryValue::Vector { samples, .. } => samples
            .into_iter()
            .map(|s| match s.value {
                Value::Float(v) => format!("{} {v}", s.labels),
                Value::Histogram(h) => format!("{} {h}", s.labels),
            })
            .collect(),
        other => panic!("{other:?}"),
    })
}

/// `labels [values]` per series of a range query.
fn range(text: &str, start_ms: i64, end_ms: i64, step_ms: i64) -> Result<Vec<String>, QueryError> {
    let result = engine().run(&source(), &QueryRequest::range(text, start_ms, end_ms, step_ms))?;
    let QueryValue::RangeVector(all) = result.value.with_times() else { panic!("no matrix") };
    Ok(all.into_iter().map(|s| format!("{} {:?}", s.labels, s.values)).collect())
}

#[test]
fn selectors_see_the_newest_sample_within_the_lookback() {
    assert_eq!(
        instant("requests_total{job=\"a\"}", 5 * MINUTE + 7_000).unwrap(),
        [r#"{__name__="requests_total", job="a"} 20"#]
    );
    assert_eq!(instant("requests_total{job=\"a\"} offset 1m", 5 * MINUTE).unwrap().len(), 1);
    assert_eq!(instant("requests_total{job=\"a\"} @ 60 + 0", 0).unwrap(), [r#"{job="a"} 4"#]);
    assert!(instant("requests_total", 15 * MINUTE).unwrap().is_empty(), "exactly as old as the lookback");
    assert_eq!(instant("requests_total", 15 * MINUTE - 1).unwrap().len(), 3);
    assert_eq!(instant("gone", 59_999).unwrap().len(), 1);
    assert!(instant("gone", MINUTE).unwrap().is_empty(), "a staleness marker hides the series");
}

#[test]
fn rates_see_resets_and_reach_to_the_edges() {
    // 20 samples in (0, 5m], 1 apart: 19 over 285 s, carried on by 15 s to the left edge.
    assert_eq!(instant("increase(requests_total{job=\"a\"}[5m])", 5 * MINUTE).unwrap(), [r#"{job="a"} 20"#]);
    assert_eq!(
        instant("rate(requests_total[5m])", 10 * MINUTE).unwrap().len(),
        3,
        "one row a series, names dropped"
    );
    assert_eq!(instant("resets(requests_total[10m])", 10 * MINUTE).unwrap()[1], r#"{job="b"} 1"#);
    assert_eq!(instant("changes(requests_total[1m])", 10 * MINUTE).unwrap()[0], r#"{job="a"} 3"#);
    assert_eq!(instant("irate(requests_total[1m])", 10 * MINUTE).unwrap()[2], r#"{job="c"} 0.2"#);
}

#[test]
fn aggregations_fold_while_they_read() {
    assert_eq!(instant("sum(requests_total)", 10 * MINUTE).unwrap(), ["{} 200"]);
    assert_eq!(instant("sum by (job) (requests_total)", 10 * MINUTE).unwrap()[0], r#"{job="a"} 40"#);
    assert_eq!(
        instant("topk(2, requests_total)", 10 * MINUTE).unwrap()[0].split(' ').next_back(),
        Some("120")
    );
    assert_eq!(instant("count(requests_total > 40)", 4 * MINUTE).unwrap(), ["{} 1"]);
    assert_eq!(range("avg(requests_total)", 0, 2 * MINUTE, MINUTE).unwrap(), ["{} [0.0, 8.0, 16.0]"]);
    assert_eq!(instant("quantile(0.5, requests_total)", 10 * MINUTE).unwrap(), ["{} 40"]);
    assert_eq!(instant("stddev(requests_total{job!=\"c\"})", 10 * MINUTE).unwrap(), ["{} 0"]);
}

#[test]
fn operators_match_by_labels() {
    assert_eq!(instant("1 + 2 * 3 ^ 2", 0).unwrap(), ["19"]);
    assert_eq!(
        instant("requests_total / on (job) requests_total", 4 * MINUTE).unwrap(),
        [r#"{job="a"} 1"#, r#"{job="b"} 1"#, r#"{job="c"} 1"#]
    );
    let error = instant("requests_total + on () requests_total", 4 * MINUTE).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Execution);
    assert!(
        error.message.starts_with("found duplicate series for the match group {} on the right hand-side")
    );
    assert_eq!(instant("requests_total and on (job) requests_total > 30", 4 * MINUTE).unwrap().len(), 2);
    assert_eq!(instant("requests_total unless requests_total{job=\"a\"}", 4 * MINUTE).unwrap().len(), 2);
    assert_eq!(instant("3 < bool requests_total{job=\"a\"}", 4 * MINUTE).unwrap(), [r#"{job="a"} 1"#]);
    let error = instant("{__name__=~\"requests_total|gone\"} * 0 + on () group_left () sum(gone)", 30_000);
    assert!(error.is_ok());
}

#[test]
fn subqueries_step_on_absolute_multiples() {
    // Steps at 60, 120, 180, 240 s: values 4, 8, 12, 16.
    assert_eq!(
        instant("sum_over_time(requests_total{job=\"a\"}[4m:1m] @ 250)", 0).unwrap(),
        [r#"{job="a"} 40"#]
    );
    assert_eq!(instant("count_over_time(vector(1)[4m:1m])", 4 * MINUTE).unwrap(), ["{} 4"]);
    let result =
        engine().run(&source(), &QueryRequest::instant("requests_total{job=\"a\"}[1m]", MINUTE)).unwrap();
    let QueryValue::RangeVector(all) = result.value else { panic!("no matrix") };
    assert_eq!(all[0].ts_ms, [15_000, 30_000, 45_000, 60_000], "the left end is open");
}

#[test]
fn constant_parts_run_once_and_fill_all_steps() {
    assert_eq!(
        range("requests_total{job=\"a\"} @ 60", 0, 2 * MINUTE, MINUTE).unwrap(),
        [r#"{__name__="requests_total", job="a"} [4.0, 4.0, 4.0]"#]
    );
    assert_eq!(range("2 + 3", 0, MINUTE, MINUTE).unwrap(), ["{} [5.0, 5.0]"]);
    assert_eq!(range("requests_total", MINUTE, 0, MINUTE).unwrap(), Vec::<String>::new());
}

#[test]
fn queries_too_large_are_refused_before_they_are_tried() {
    let error = instant("count_over_time(requests_total[100y:1ms])", 0).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Execution);
    assert!(error.message.contains("too many samples"), "{error}");
    let budget = Budget::new(50, u64::MAX, None);
    let mut request = QueryRequest::instant("requests_total[10m]", 10 * MINUTE);
    request.options.budget = Some(budget.clone());
    assert!(engine().run(&source(), &request).unwrap_err().message.contains("too many samples"));
    budget.cancel();
    assert_eq!(engine().run(&source(), &request).unwrap_err().kind, ErrorKind::Canceled);
    let budget = Budget::new(u64::MAX, 1000, None);
    request.options.budget = Some(budget);
    assert!(engine().run(&source(), &request).unwrap_err().message.contains("bytes of memory"));
}

#[test]
fn deep_and_long_queries_need_no_stack() {
    let deep = format!("{}requests_total{}", "sum(".repeat(190), ")".repeat(190));
    assert_eq!(instant(&deep, 10 * MINUTE).unwrap(), ["{} 200"]);
    let long = format!("requests_total{{job=\"a\"}}{}", "+1".repeat(1_999));
    assert_eq!(instant(&long, 0).unwrap(), [r#"{job="a"} 1999"#]);
}

#[test]
fn annotations_have_a_place() {
    let result = engine().run(&source(), &QueryRequest::instant("1 + rate(gone[5m])", MINUTE)).unwrap();
    assert!(result.annotations.is_empty(), "one sample makes no rate");
    let text = "quantile(2, requests_total)";
    let result = engine().run(&source(), &QueryRequest::instant(text, MINUTE)).unwrap();
    let (warnings, _) = result.annotations.render(text, 10);
    assert_eq!(warnings, ["PromQL warning: quantile value should be between 0 and 1, got 2 (1:10)"]);
}

/// In words of ours after `TestQueryStatistics` of upstream, all of whose cases gave upstream's numbers when
/// they were tried.
#[test]
fn samples_are_counted_as_upstream_counts_them() {
    let count = |mut request: QueryRequest<'_>| {
        request.options.samples = query::eval::stats::samples::SampleDetail::Steps;
        let stats = engine().run(&source(), &request).unwrap().stats;
        let steps = stats.samples_per_step.unwrap();
        (stats.samples_total, stats.samples_new, steps.total, steps.read)
    };
    let instant = |text: &str| count(QueryRequest::instant(text, 5 * MINUTE));
    let range = |text: &str| count(QueryRequest::range(text, 4 * MINUTE, 6 * MINUTE, MINUTE));
    assert_eq!(instant("1 + 1"), (0, 0, vec![0], vec![0]));
    assert_eq!(instant("requests_total"), (3, 3, vec![3], vec![3]));
    assert_eq!(instant("timestamp(requests_total)"), (3, 3, vec![3], vec![3]));
    assert_eq!(instant("requests_total[1m]"), (12, 12, vec![12], vec![12]));
    assert_eq!(range("requests_total"), (9, 9, vec![3; 3], vec![3; 3]));
    // Eight samples a window, four of them new a minute later.
    assert_eq!(range("sum(rate(requests_total[2m]))"), (72, 48, vec![24; 3], vec![24, 12, 12]));
    // Windows that do not touch are new altogether.
    assert_eq!(range("sum(rate(requests_total[30s]))"), (18, 18, vec![6; 3], vec![6; 3]));
    assert_eq!(range("rate(requests_total[1m] @ 60)"), (36, 12, vec![12; 3], vec![12, 0, 0]));
    // A subquery's samples are those of the windows over it; what it read itself is counted once.
    assert_eq!(range("max_over_time(requests_total{job=\"a\"}[2m:1m])"), (6, 4, vec![2; 3], vec![2, 1, 1]));
    let plain = engine().run(&source(), &QueryRequest::instant("requests_total", MINUTE)).unwrap().stats;
    assert_eq!((plain.samples_total, plain.samples_per_step), (3, None));
}

/// Of several errors upstream tells the one of the earliest step, and of one step that of the side that has
/// to be unique.
#[test]
fn matching_error_of_the_earlier_step_is_told() {
    let source = MemorySource::new();
    let add = |name: &str, n: &str, minutes: &[i64]| {
        for m in minutes {
            source.append_float(&Labels::from_pairs([("__name__", name), ("n", n)]), m * MINUTE, 1.0);
        }
    };
    // Two on the left from the start; two on the right only later.
    add("left", "1", &[0, 10, 20, 30]);
    add("left", "2", &[0, 10, 20, 30]);
    add("right", "1", &[0, 10, 20, 30]);
    add("right", "2", &[20, 30]);
    let error = |start: i64| {
        let request = QueryRequest::range("left + on () right", start * MINUTE, 30 * MINUTE, 10 * MINUTE);
        engine().run(&source, &request).unwrap_err().message
    };
    assert!(error(0).starts_with("multiple matches for labels: many-to-one"), "{}", error(0));
    assert!(
        error(20).starts_with("found duplicate series for the match group {} on the right"),
        "{}",
        error(20)
    );
}

/// A source that tells which series it has while they are selected, and not beside that.
struct OnlySelections(MemorySource);

impl Source for OnlySelections {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        self.0.select(selection)
    }

    fn series(&self, _: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        panic!("the selection has told which series come")
    }
}

#[test]
fn streamed_rows_take_their_order_from_the_selection() {
    let source = OnlySelections(source());
    let last_first = r#"label_replace(requests_total, "job", "z", "job", "a")"#;
    for (text, streams) in [("requests_total", true), ("-requests_total", true), (last_first, false)] {
        let request = QueryRequest::range(text, 0, 5 * MINUTE, MINUTE);
        let mut series = Vec::new();
        let rows = engine().run_streamed(&source, &request, 0, &mut |steps, s| {
            series.push(s.with_times(steps));
            Ok(())
        });
        let rows = rows.unwrap().value;
        assert_eq!(matches!(rows, QueryValue::Streamed(3)), streams, "{text}: {rows:?}");
        let value = if streams { QueryValue::RangeVector(series) } else { rows.with_times() };
        let whole = engine().run(&source, &request).unwrap().value;
        assert_eq!(format!("{value:?}"), format!("{:?}", whole.with_times()), "{text}");
    }
}
