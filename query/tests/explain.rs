//! What `explain` says of a plan, and that what it measured adds up.

use model::labels::Labels;
use model::source::memory::MemorySource;
use query::engine::{Engine, EngineOptions, QueryRequest};
use query::explain::{Explained, Node};
use query::parse::ParseOptions;

const MINUTE: i64 = 60_000;

fn source() -> MemorySource {
    let source = MemorySource::new();
    for job in ["a", "b", "c"] {
        let labels = Labels::from_pairs([("__name__", "requests_total"), ("job", job)]);
        for i in 0..=240i64 {
            source.append_float(&labels, i * 15_000, i as f64);
        }
    }
    source
}

fn explain(text: &str, analyze: bool) -> Explained {
    let engine = Engine::new(EngineOptions { parse: ParseOptions::all(), ..EngineOptions::default() });
    let request = QueryRequest::range(text, 30 * MINUTE, 40 * MINUTE, MINUTE);
    engine.explain(&source(), &request, analyze).unwrap()
}

fn texts(e: &Explained) -> Vec<(&str, &str)> {
    e.tree.nodes.iter().map(|n| (n.kind, n.text.as_str())).collect()
}

fn find<'e>(e: &'e Explained, text: &str) -> &'e Node {
    e.tree.nodes.iter().find(|n| n.text == text).unwrap_or_else(|| panic!("{text} in {:?}", texts(e)))
}

#[test]
fn explain_gives_every_node_its_text_and_its_reads() {
    let e = explain(
        "sum by(job)(rate(requests_total{job=~'a|b'}[5m] offset 1m)) / on(job) (requests_total @ 60) > 0",
        false,
    );
    assert!(e.ran.is_none() && e.tree.nodes.iter().all(|n| n.done.is_none()));
    assert_eq!(
        texts(&e),
        [
            (
                "binaryExpr",
                "sum by (job) (rate(requests_total{job=~\"a|b\"}[5m] offset 1m)) / on (job) (requests_total @ 60.000) > 0"
            ),
            (
                "binaryExpr",
                "sum by (job) (rate(requests_total{job=~\"a|b\"}[5m] offset 1m)) / on (job) (requests_total @ 60.000)"
            ),
            ("aggregation", "sum by (job) (rate(requests_total{job=~\"a|b\"}[5m] offset 1m))"),
            ("call", "rate(requests_total{job=~\"a|b\"}[5m] offset 1m)"),
            ("matrixSelector", "requests_total{job=~\"a|b\"}[5m] offset 1m"),
            ("vectorSelector", "requests_total @ 60.000"),
            ("numberLiteral", "0"),
        ]
    );
    let matrix = find(&e, "requests_total{job=~\"a|b\"}[5m] offset 1m").reads.clone().unwrap();
    assert_eq!(matrix.span_ms, Some((24 * MINUTE + 1, 39 * MINUTE)));
    assert_eq!(matrix.matchers, ["job=~\"a|b\"", "__name__=\"requests_total\""]);
    assert_eq!((matrix.func, matrix.hints.range_ms), ("rate", 5 * MINUTE));
    let fixed = find(&e, "requests_total @ 60.000");
    assert!(fixed.step_invariant && fixed.steps.count == 1);
    assert_eq!(fixed.reads.as_ref().unwrap().span_ms, Some((-4 * MINUTE + 1, MINUTE)));
    assert!(!find(&e, "0").text.is_empty() && !e.tree.nodes[0].step_invariant);
}

#[test]
fn explain_analyze_figures_add_up() {
    let e = explain("sum(rate(requests_total[5m])) / sum(requests_total) + max(requests_total)", true);
    let root = e.tree.nodes[0].done.unwrap();
    let ran = e.ran.as_ref().unwrap();
    let own: u64 = e.tree.nodes.iter().map(|n| n.done.unwrap().own.samples_read).sum();
    assert_eq!(own, root.total_samples_read);
    assert_eq!(root.total_samples_read, ran.stats.samples_read);
    let times: std::time::Duration = e.tree.nodes.iter().map(|n| n.done.unwrap().own.time).sum();
    assert_eq!(times, root.total_time);
    assert!(root.total_time <= ran.stats.total);
    let matrix = find(&e, "requests_total[5m]").done.unwrap();
    // (25m, 40m]: 60 samples of three series.
    assert_eq!((matrix.own.series, matrix.own.samples_read), (3, 180));
    let rate = find(&e, "rate(requests_total[5m])").done.unwrap().own;
    assert_eq!((rate.runs, rate.series, rate.samples_read), (1, 3, 0));
    assert_eq!(find(&e, "sum(rate(requests_total[5m]))").done.unwrap().own.series, 1);
    // Two selectors, one selection: the second finds what the first has kept.
    let plain: Vec<_> = e.tree.nodes.iter().filter(|n| n.text == "requests_total").collect();
    assert_eq!(plain.len(), 2);
    assert!(plain.iter().all(|n| n.reads.as_ref().unwrap().shared));
    let done: Vec<_> = plain.iter().map(|n| n.done.unwrap().own).collect();
    assert!(!done[0].reused && done[0].samples_read > 0, "{done:?}");
    assert!(done[1].reused && done[1].samples_read == 0 && done[1].series == 3, "{done:?}");
    assert!(e.tree.nodes.iter().all(|n| n.done.unwrap().own.runs == 1), "{:?}", e.tree);
    assert!(ran.stats.bytes_peak > 0 && done[0].bytes_peak > 0);
}

#[test]
fn equal_expressions_are_computed_once_and_counted_at_every_place() {
    let stats = |text: &str| explain(text, true).ran.unwrap().stats;
    for (twice, once) in [
        ("sum(rate(requests_total[5m])) + sum ( rate(requests_total[5m]) )", "sum(rate(requests_total[5m]))"),
        (
            "sum(requests_total) by(job) / on(job) (sum by (job) (requests_total) + 1)",
            "sum by (job) (requests_total)",
        ),
        (
            "max_over_time(sum(requests_total)[5m:1m]) - min_over_time(sum(requests_total)[5m:1m])",
            "sum(requests_total)",
        ),
        ("-(requests_total + 1) or (requests_total + 1)", "requests_total + 1"),
    ] {
        let e = explain(twice, true);
        let alike: Vec<_> = e.tree.nodes.iter().filter(|n| n.text == once).collect();
        assert_eq!(alike.len(), 2, "{twice}");
        let done: Vec<_> = alike.iter().map(|n| n.done.unwrap().own).collect();
        assert!(!done[0].reused && done[1].reused, "{twice}: {done:?}");
        assert_eq!(done[0].bytes, done[1].bytes, "{twice}");
    }
    // Upstream computes them anew, so its samples count twice.
    let (one, two) = (stats("sum(requests_total)"), stats("sum(requests_total) + sum(requests_total)"));
    assert_eq!((two.samples_total, two.samples_new), (2 * one.samples_total, 2 * one.samples_new));
    assert_eq!(two.samples_read, one.samples_read);
    // Other steps, other matchers, another operator, another place of time: not equal.
    for text in [
        "sum(requests_total) + max_over_time(sum(requests_total)[5m:1m])",
        "sum(requests_total) + sum(requests_total{job=\"a\"})",
        "sum(requests_total) + sum(requests_total offset 1m)",
        "sum by (job) (requests_total) + on(job) sum by (job, x) (requests_total)",
        "topk(1, requests_total) or topk(2, requests_total)",
    ] {
        let e = explain(text, true);
        let reused = |n: &&query::explain::Node| n.kind != "vectorSelector" && n.done.unwrap().own.reused;
        assert_eq!(e.tree.nodes.iter().filter(reused).count(), 0, "{text}");
    }
    // What has a remark is computed at each place, because the remark names it.
    let text =
        "sum(quantile_over_time(2, requests_total[5m])) + sum(quantile_over_time(2, requests_total[5m]))";
    let e = explain(text, true);
    let sums: Vec<_> =
        e.tree.nodes.iter().filter(|n| n.text == "sum(quantile_over_time(2, requests_total[5m]))").collect();
    assert!(sums.len() == 2 && sums.iter().all(|n| !n.done.unwrap().own.reused));
}

#[test]
fn subqueries_have_steps_of_their_own() {
    let e = explain("max_over_time(rate(requests_total[5m])[10m:30s])", true);
    assert_eq!(e.tree.nodes[0].steps.count, 11);
    assert_eq!(find(&e, "rate(requests_total[5m])").steps.count, 40);
    let sub = find(&e, "rate(requests_total[5m])[10m:30s]");
    assert_eq!(sub.window.unwrap().step_ms, Some(30_000));
    assert_eq!(sub.done.unwrap().own.series, 3);
    let reads = find(&e, "requests_total[5m]").reads.clone().unwrap();
    assert_eq!(reads.span_ms, Some((15 * MINUTE + 30_001, 40 * MINUTE)));
}

#[test]
fn explain_of_long_chains_needs_no_stack() {
    let text = format!("requests_total{}", " + 1".repeat(1_900));
    let e = explain(&text, true);
    assert_eq!(e.tree.nodes.len(), 3_801);
    assert!(e.tree.nodes[0].text.len() < 1_010 && e.tree.nodes[0].text.ends_with('…'));
    assert!(e.tree.nodes.iter().all(|n| !n.text.is_empty()));
}
