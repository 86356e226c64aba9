//! Files of tests of the shapes that upstream's own examples have.

use query::parse::ParseOptions;

use super::*;

fn outcome(files: &[(&str, &str)], options: &TestOptions) -> FileOutcome {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    run(&folder.path().join(files[0].0), options)
}

fn options() -> TestOptions {
    TestOptions { parse: ParseOptions::default(), only: None, ignore_unknown_fields: false, diff: false }
}

const RULES: &str = r#"groups:
- name: alerts
  labels: {tier: one}
  rules:
  - alert: InstanceDown
    expr: up == 0
    for: 5m
    labels: {severity: page}
    annotations:
      summary: 'Instance {{ $labels.instance }} down on {{ $externalLabels.cluster }}'
      link: '{{ $externalURL }}/x'
  - alert: Always
    expr: '1'
- name: records
  rules:
  - {record: 'job:up:sum', expr: 'sum by (job) (up)'}
  - {record: 'job:up:twice', expr: '2 * job:up:sum'}
  - {record: 'time:now', expr: time()}
"#;

#[test]
fn tests_of_alerts_and_expressions_pass() {
    let tests = r#"
rule_files: [rules.yml]
evaluation_interval: 1m
group_eval_order: [records, alerts]
tests:
- name: whole
  interval: 1m
  input_series:
  - {series: 'up{job="p", instance="a:1"}', values: '0x15'}
  - {series: 'up{job="p", instance="b:1"}', values: '1 1 1 _x3 stale'}
  - {series: 'grow{}', values: '1+2x4 0-1x2 _ 9'}
  - {series: 'shapes', values: '{{schema:0 count:2 sum:3 buckets:[1 1]}}+{{count:1 sum:1 buckets:[1]}}x3'}
  external_labels: {cluster: eu}
  external_url: http://h/p
  alert_rule_test:
  - eval_time: 4m59s
    alertname: InstanceDown
  - eval_time: 10m
    alertname: InstanceDown
    exp_alerts:
    - exp_labels: {severity: page, instance: 'a:1', job: p, tier: one}
      exp_annotations: {summary: Instance a:1 down on eu, link: http://h/p/x}
  - eval_time: 0
    alertname: Always
    exp_alerts: [{exp_labels: {tier: one}}]
  promql_expr_test:
  - {expr: job:up:sum, eval_time: 2m, exp_samples: [{labels: 'job:up:sum{job="p"}', value: 1}]}
  - {expr: job:up:twice, eval_time: 2m, exp_samples: [{labels: '{__name__="job:up:twice", job="p"}', value: 2}]}
  - {expr: grow, eval_time: 4m, exp_samples: [{labels: grow, value: 9}]}
  - {expr: grow, eval_time: 7m, exp_samples: [{labels: grow, value: -2}]}
  - {expr: 'count(up)', eval_time: 6m, exp_samples: [{labels: '{}', value: 1}]}
  - {expr: time(), eval_time: 3m, exp_samples: [{value: 180}]}
  - {expr: nothing, eval_time: 3m}
  - expr: shapes
    eval_time: 1m
    exp_samples: [{labels: shapes, histogram: '{{schema:0 count:3 sum:4 buckets:[2 1]}}'}]
  - {expr: 'ALERTS{alertname="InstanceDown"}', eval_time: 5m, exp_samples: [{labels: 'ALERTS{alertname="InstanceDown",alertstate="firing",instance="a:1",job="p",severity="page",tier="one"}', value: 1}]}
- name: later
  start_timestamp: 2026-01-01T00:00:00Z
  promql_expr_test:
  - {expr: time:now, eval_time: 1m, exp_samples: [{labels: time:now, value: 1767225660}]}
"#;
    let outcome = outcome(&[("t.yml", tests), ("rules.yml", RULES)], &options());
    assert!(outcome.passed(), "{:#?}", outcome.failures().collect::<Vec<_>>());
    assert_eq!(outcome.groups.len(), 2);
}

#[test]
fn unit_test_difference_is_told_as_upstream_tells_it() {
    let tests = r#"
rule_files: [rules.yml, none*.yml]
tests:
- name: bad
  interval: 1m
  input_series: [{series: 'up{job="p",instance="a"}', values: '0x9'}]
  alert_rule_test:
  - {eval_time: 5m, alertname: InstanceDown}
  promql_expr_test:
  - {expr: up, eval_time: 1m, exp_samples: [{labels: up, value: 1.5}]}
  - {expr: up, eval_time: 1m, exp_samples: [{labels: 'up{', value: 1.5}]}
  - {expr: 'rate(up)', eval_time: 1m}
"#;
    let outcome = outcome(&[("t.yml", tests), ("rules.yml", RULES)], &options());
    assert_eq!(outcome.warnings.len(), 1);
    let failures: Vec<_> = outcome.failures().collect();
    assert_eq!(
        failures[0],
        r#"    name: bad,
    alertname: InstanceDown, time: 5m, 
        exp:[], 
        got:[
            0:
              Labels:{alertname="InstanceDown", instance="a", job="p", severity="page", tier="one"}
              Annotations:{link="/x", summary="Instance a down on "}
            ]"#
    );
    assert_eq!(
        failures[1],
        "    name: bad,\n    expr: \"up\", time: 1m,\n        exp: {__name__=\"up\"} 1.5E+00\n        got: {__name__=\"up\", instance=\"a\", job=\"p\"} 0E+00"
    );
    assert!(failures[2].contains("err: labels \"up{\": 1:4: parse error"), "{}", failures[2]);
    assert!(
        failures[3].contains("time: 1m, err: 1:6: parse error: expected type range vector"),
        "{}",
        failures[3]
    );
    let with_diff = TestOptions { diff: true, ..options() };
    let outcome = super::tests::outcome(&[("t.yml", tests), ("rules.yml", RULES)], &with_diff);
    let failures: Vec<_> = outcome.failures().collect();
    assert!(failures[1].contains("        - {__name__=\"up\"} 1.5E+00\n        + {"), "{}", failures[1]);
    let xml = junit(&[outcome]);
    assert!(xml.contains("<testcase name=\"bad\"><failure>") && xml.contains("failures=\"1\""), "{xml}");
}

#[test]
fn rule_that_fails_ends_its_test_group_and_no_other() {
    let tests = r#"
rule_files: [r.yml]
fuzzy_compare: true
tests:
- input_series: [{series: 'a{x="1"}', values: '1'}, {series: 'a{x="2"}', values: '1'}]
  alert_rule_test: [{eval_time: 1m, alertname: A}]
- promql_expr_test:
  - {expr: '0.1 + 0.2', eval_time: 0s, exp_samples: [{value: 0.3}]}
"#;
    let rules = "groups: [{name: g, rules: [{record: r, expr: a, labels: {x: ''}}]}]";
    let outcome = outcome(&[("t.yml", tests), ("r.yml", rules)], &options());
    assert_eq!(
        outcome.groups[0].failures,
        [
            "    rule: r, time: 0s, err: vector contains metrics with the same labelset after applying rule labels"
        ]
    );
    assert!(outcome.groups[1].failures.is_empty(), "{:?}", outcome.groups[1].failures);
}

#[test]
fn file_of_tests_that_is_wrong_says_where() {
    for (tests, want) in [
        ("test: []\n", "t.yml: 1:1: field test not found in type main.unitTestFile"),
        ("tests: [{interval: soon}]\n", "not a valid duration string"),
        ("tests: [{input_series: [{series: 'up{', values: '1'}]}]\n", "t.yml: 1:25: 1:5: parse error"),
        ("group_eval_order: [a, a]\n", "group name repeated in evaluation order: a"),
        ("tests: [{start_timestamp: soon}]\n", "neither a Unix timestamp nor RFC 3339"),
    ] {
        let outcome = outcome(&[("t.yml", tests)], &options());
        let error = outcome.error.unwrap_or_default();
        assert!(error.contains(want), "{error}\nshould hold\n{want}");
    }
    let tests = "tests: [{name: x, alert_rule_test: [{eval_time: 1m}]}]\n";
    let outcome = outcome(&[("t.yml", tests)], &options());
    assert_eq!(
        outcome.groups[0].failures,
        [
            "an item under alert_rule_test misses required attribute alertname at eval_time 1m (in TestGroup x)"
        ]
    );
    let only = TestOptions { only: Some(name_pattern("^y").unwrap()), ..options() };
    assert!(super::tests::outcome(&[("t.yml", tests)], &only).groups.is_empty());
}
