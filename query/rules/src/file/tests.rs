//! Rule files as they are written, and what is wrong with some of them.

use super::*;

const GOOD: &str = "# comment
groups:
  - name: example
    interval: 30s
    query_offset: 1m
    limit: 10
    labels: {team: infra, version: 1.50}
    rules:
      - record: job:up:sum
        expr: sum by (job) (up)
      - alert: Down
        expr: |
          up == 0
            and on () vector(1)
        for: 5m
        keep_firing_for: 10m
        labels:
          severity: page
          note: ~
        annotations:
          summary: 'Instance {{ $labels.instance }} down'
  - name: empty
";

#[test]
fn rule_file_is_read_whole() {
    let groups = parse(GOOD, &FileOptions::default()).unwrap();
    assert_eq!(groups.len(), 2);
    let g = &groups[0];
    assert_eq!((g.interval_ms, g.query_offset_ms, g.limit), (Some(30_000), Some(60_000), 10));
    assert_eq!(g.labels["version"], "1.50", "a number as a label keeps its digits");
    assert_eq!(g.rules[1].expr, "up == 0\n  and on () vector(1)\n");
    assert_eq!(g.rules[1].labels["note"], "");
    let RuleKind::Alert { for_ms, keep_firing_for_ms, annotations, .. } = &g.rules[1].kind else { panic!() };
    assert_eq!((*for_ms, *keep_firing_for_ms, annotations.len()), (300_000, 600_000, 1));
    for nothing in ["", "# only words\n", "---\n", "groups:\n", "groups: []\n"] {
        assert_eq!(parse(nothing, &FileOptions::default()), Ok(vec![]), "{nothing:?}");
    }
    // The first document counts.
    assert_eq!(parse("groups: []\n---\nwhat: ever\n", &FileOptions::default()), Ok(vec![]));
}

#[test]
fn aliases_and_merges_are_followed() {
    let text = "groups:
- name: a
  rules:
  - &base {alert: A, expr: up, labels: &l {x: '1'}}
  - {<<: *base, alert: B}
  - alert: C
    expr: up
    labels: *l
";
    let groups = parse(text, &FileOptions::default()).unwrap();
    let names: Vec<_> = groups[0].rules.iter().map(|r| (r.name(), r.labels["x"].as_str())).collect();
    assert_eq!(names, [("A", "1"), ("B", "1"), ("C", "1")]);
}

fn errors(text: &str) -> Vec<String> {
    parse(text, &FileOptions::default()).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn errors_of_rules_are_upstreams_with_their_places() {
    let rule = |rule: &str| format!("groups:\n- name: g\n  rules:\n  - {rule}\n");
    for (text, want) in [
        (
            rule("{record: r, alert: a, expr: up}"),
            r#"4:14: 4:24: group "g", rule 1, "a": only one of 'record' and 'alert' must be set"#,
        ),
        (rule("{expr: up}"), r#"4:5: group "g", rule 1, "": one of 'record' or 'alert' must be set"#),
        (rule("{record: r}"), r#"4:5: group "g", rule 1, "r": field 'expr' must be set in rule"#),
        (
            rule("{record: r, expr: 'sum('}"),
            r#"4:23: group "g", rule 1, "r": could not parse expression: 1:5: parse error: unclosed left parenthesis"#,
        ),
        (
            rule("{record: r, expr: up, for: 1m}"),
            r#"4:14: group "g", rule 1, "r": invalid field 'for' in recording rule"#,
        ),
        (
            rule("{record: r, expr: up, keep_firing_for: 1m}"),
            r#"4:14: group "g", rule 1, "r": invalid field 'keep_firing_for' in recording rule"#,
        ),
        (
            rule("{record: r, expr: up, annotations: {a: b}}"),
            r#"4:14: group "g", rule 1, "r": invalid field 'annotations' in recording rule"#,
        ),
        (
            rule("{record: 'r{a=\"b\"}', expr: up}"),
            r#"4:14: group "g", rule 1, "r{a=\"b\"}": braces present in the recording rule name; should it be in expr?: r{a="b"}"#,
        ),
        (
            rule("{record: r, expr: up, labels: {__name__: x}}"),
            r#"4:46: group "g", rule 1, "r": invalid label name: __name__"#,
        ),
        (
            rule("{alert: a, expr: up, labels: {x: '{{ $foo }}'}}"),
            r#"4:38: group "g", rule 1, "a": label "x": template: __alert_a:1: undefined variable "$foo""#,
        ),
        (
            rule("{alert: a, expr: up, annotations: {x: '{{ foo }}'}}"),
            r#"4:43: group "g", rule 1, "a": annotation "x": template: __alert_a:1: function "foo" not defined"#,
        ),
        (rule("{alert: a, expr: up, for: soon}"), r#"4:31: not a valid duration string: "soon""#),
        (rule("{alert: a, expr: up, fro: 5m}"), "4:26: field fro not found in type rulefmt.Rule"),
        (rule("{alert: a, expr: up, expr: down}"), "4:26: mapping key \"expr\" already defined at line 4"),
        (rule("{alert: a, expr: [up]}"), "4:22: cannot unmarshal !!seq into string"),
        ("groups:\n- name: ''\n".into(), "2:3: Groupname must not be empty"),
        ("groups:\n- name: a\n- name: a\n".into(), r#"3:3: groupname: "a" is repeated in the same file"#),
        ("groups:\n- name: a\n  labels: {__name__: x}\n".into(), "3:22: invalid label name: __name__"),
        ("groups:\n- name: a\n  limit: many\n".into(), "3:10: cannot unmarshal !!str `many` into int"),
        ("groups: {a: b}\n".into(), "1:9: cannot unmarshal !!map into []rulefmt.RuleGroup"),
        ("rules: []\n".into(), "1:1: field rules not found in type rulefmt.RuleGroups"),
        ("- a\n".into(), "1:1: cannot unmarshal !!seq into rulefmt.RuleGroups"),
    ] {
        assert_eq!(errors(&text), [want], "{text}");
    }
}

#[test]
fn errors_of_a_file_are_told_in_its_order() {
    let text = "groups:\n- name: a\n  rules:\n  - {record: r, expr: '('}\n  - {expr: up}\n- name: a\n";
    let found = errors(text);
    assert_eq!(found.len(), 3, "{found:?}");
    let text = "groups:\n- name: a\n  rules:\n  - {record: r, expr: up, x: 1}\n  - {record: r, expr: up, for: z}\nmore: 1\n";
    let found = errors(text);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("4:") && found[2].starts_with("6:"), "{found:?}");
    let lenient = FileOptions { strict: false, ..FileOptions::default() };
    assert_eq!(parse("more: 1\ngroups: []\n", &lenient), Ok(vec![]));
}

#[test]
fn broken_and_hostile_yaml_is_an_error_with_its_line() {
    assert!(errors("groups:\n\t- name: a\n")[0].starts_with("2:"));
    assert!(errors("groups: [\n")[0].contains("yaml:"));
    // The parser has a bound of its own for brackets.
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let deep = format!("groups: {}{}", open.repeat(100_000), close.repeat(100_000));
        assert_eq!(errors(&deep).len(), 1);
    }
    let deep: String = (0..70).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    assert!(errors(&deep)[0].contains("nested deeper"), "{:?}", errors(&deep));
    // Nine levels of nine aliases each: a billion nodes, were they copied.
    let mut laughs = String::from("a0: &a0 [x]\n");
    for i in 1..=9 {
        let before = format!("*a{}", i - 1);
        laughs += &format!("a{i}: &a{i} [{}]\n", vec![before; 9].join(","));
    }
    assert_eq!(errors(&laughs).len(), 10);
}

#[test]
fn group_is_written_as_it_is_read() {
    let groups = parse(GOOD, &FileOptions::default()).unwrap();
    for group in groups {
        let mut text = String::new();
        write_group(&mut text, &group, 0);
        assert_eq!(parse_group(&text, &FileOptions::default()), Ok(group), "{text}");
    }
    let mimir = FileOptions { mimir_keys: true, ..FileOptions::default() };
    let text = "name: g\nevaluation_delay: 1m\nsource_tenants: []\nrules: []\n";
    assert_eq!(parse_group(text, &mimir).unwrap().query_offset_ms, Some(60_000));
    let told = parse_group("name: g\nsource_tenants: [a, b]\n", &mimir).unwrap_err();
    assert!(told[0].to_string().contains("source_tenants"), "{told:?}");
}

proptest::proptest! {
    #[test]
    fn rule_file_of_any_text_neither_panics_nor_hangs(text in "[a-z:\\-{}\\[\\]&*!|>'\"#, \n]{0,80}") {
        let _ = parse(&text, &FileOptions::default());
        let _ = parse(&format!("groups:\n- name: g\n  rules:\n  - {text}"), &FileOptions::default());
    }
}
