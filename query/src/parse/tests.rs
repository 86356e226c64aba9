//! The parser against a table of our own, against itself (print, parse again), against promql-parser, and
//! against hostile input.

use model::source::testing::rng::Rng;
use proptest::prelude::*;

use super::lex::Lexer;
use super::token::Kind;
use super::*;

fn all(text: &str) -> Expr {
    parse_expr(text, &ParseOptions::all()).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn refused(text: &str, options: &ParseOptions) -> String {
    match parse_expr(text, options) {
        Ok(expr) => panic!("{text} parses as {expr}"),
        Err(e) => e.to_string(),
    }
}

/// What is written, and how it prints.
const PRINTS: &[(&str, &str)] = &[
    ("1", "1"),
    ("+Inf", "+Inf"),
    ("-iNf", "-Inf"),
    ("nan", "NaN"),
    (".5", "0.5"),
    ("5.", "5"),
    ("1e-3", "0.001"),
    ("1e21", "1000000000000000000000"),
    ("0x1F", "31"),
    ("0755", "493"),
    ("09.5", "9.5"),
    ("1_000.5", "1000.5"),
    ("0X_1f", "31"),
    ("-0", "-0"),
    ("- -1", "1"),
    ("5m30s", "5m30s"),
    ("1w", "1w"),
    ("8d", "8d"),
    ("-90d12h", "-90d12h"),
    ("'a\\'b'", "\"a'b\""),
    ("\"\\xc5\\n\\101\\u00e9\"", "\"\\xc5\\nAé\""),
    ("`a\\n`", "\"a\\\\n\""),
    ("foo", "foo"),
    ("foo:bar", "foo:bar"),
    ("sum", "sum"),
    ("offset offset 5m", "offset offset 5m"),
    ("and and or or unless", "and and or or unless"),
    ("fill + fill_left", "fill + fill_left"),
    ("start{} @ start()", "start @ start()"),
    ("{\"a.b\"}", "{__name__=\"a.b\"}"),
    ("{\"a b\", 'x y'=~\"z\",}", "{\"x y\"=~\"z\",__name__=\"a b\"}"),
    ("foo{b!=\"1\",a='2',c!~`3`}", "foo{a=\"2\",b!=\"1\",c!~\"3\"}"),
    ("{__name__=~\"a|b\"}", "{__name__=~\"a|b\"}"),
    ("foo offset 5m", "foo offset 5m"),
    ("foo offset -1h30m", "foo offset -1h30m"),
    ("foo OFFSET 60 @ 1603774568", "foo @ 1603774568.000 offset 1m"),
    ("foo @ -100.5", "foo @ -100.500"),
    ("foo @ end() offset 1m", "foo @ end() offset 1m"),
    ("foo[300]", "foo[5m]"),
    ("foo[5m] @ 5 offset 2m", "foo[5m] @ 5.000 offset 2m"),
    ("foo[5m] anchored", "foo[5m] anchored"),
    ("foo smoothed[5m] offset 1m", "foo[5m] smoothed offset 1m"),
    ("foo[1h : 5m]", "foo[1h:5m]"),
    ("(a+b)[1h:] offset 1m", "(a + b)[1h:] offset 1m"),
    ("foo[step() * 2]", "foo[step() * 2]"),
    ("foo[(5m + 3) ^ 2 : max_of(range(), 1m) / 2]", "foo[(5m + 3) ^ 2:max_of(range(), 1m) / 2]"),
    ("foo offset -min_of(1m, step())", "foo offset -min_of(1m, step())"),
    ("foo offset +(5m)", "foo offset (5m)"),
    ("foo offset 5m + 3m", "foo offset 5m + 3m"),
    ("foo offset (5m) + 3m", "foo offset (5m) + 3m"),
    ("foo offset -2^2", "foo offset -2s ^ 2"),
    ("-foo^2", "-foo ^ 2"),
    ("2 ^ 3 ^ 2", "2 ^ 3 ^ 2"),
    ("+(1)", "+(1)"),
    ("a + b * c == d and e or f", "a + b * c == d and e or f"),
    ("1 == bool 2", "1 == bool 2"),
    ("a atan2 b", "a atan2 b"),
    ("a </ 5 >/ 6", "a </ 5 >/ 6"),
    ("a * on (x,) group_left b", "a * on (x) group_left () b"),
    ("a / ignoring(x, \"y.z\") group_right(q) b", "a / ignoring (x, \"y.z\") group_right (q) b"),
    ("a + on () b", "a + on () b"),
    ("a + ignoring () b", "a + b"),
    ("a + fill(0) b", "a + fill (0) b"),
    ("a - on(x) fill_right(1e6) fill_left(-2) b", "a - on (x) fill_left (-2) fill_right (1e+06) b"),
    ("sum by (a, on) (x)", "sum by (a, on) (x)"),
    ("sum(x) without ()", "sum without () (x)"),
    ("sum by () (x)", "sum(x)"),
    ("TOPK(5, x) by (\"é\")", "topk by (\"é\") (5, x)"),
    ("count_values('v', x)", "count_values(\"v\", x)"),
    ("limit_ratio(-0.5, x)", "limit_ratio(-0.5, x)"),
    ("time()", "time()"),
    ("label_join(x, 'a', ',', 'b', 'c')", "label_join(x, \"a\", \",\", \"b\", \"c\")"),
    ("info(x, {})", "info(x, {})"),
    ("max_of(1, 2) + start() + range()", "max_of(1, 2) + start() + range()"),
    ("foo # a comment\n + #another\r bar", "foo + bar"),
];

#[test]
fn parser_reads_its_canonical_print_again() {
    for (text, want) in PRINTS {
        // `info(x, {})` is the one place where a selector prints as nothing, as upstream's does.
        let want = want.replace("{}", "");
        let printed = all(text).to_string();
        assert_eq!(printed, want, "{text}");
        if !text.contains("{}") || text.starts_with("start") {
            assert_eq!(all(&printed).to_string(), printed, "{text} again");
        }
    }
}

/// What is refused, and how; with all features on.
const REFUSED: &[(&str, &str)] = &[
    ("", "unknown position: parse error: no expression found in input"),
    (" ", "1:1: parse error: no expression found in input"),
    ("# only a comment", "1:1: parse error: no expression found in input"),
    ("1+", "1:3: parse error: unexpected end of input"),
    ("1 foo", "1:3: parse error: unexpected identifier \"foo\""),
    ("\n\nfoo bar", "3:5: parse error: unexpected identifier \"bar\""),
    ("(1", "1:3: parse error: unclosed left parenthesis"),
    ("1)", "1:3: parse error: unexpected right parenthesis ')'"),
    ("é", "1:1: parse error: unexpected character: 'é'"),
    ("a !b", "1:3: parse error: unexpected character after '!': 'b'"),
    ("a =~ b", "1:3: parse error: unexpected character after '=': '~'"),
    ("\"a", "1:1: parse error: unterminated quoted string"),
    ("\"\\q\"", "1:1: parse error: unknown escape sequence U+0071 'q'"),
    ("\"\\xzz\"", "1:1: parse error: illegal character U+007A 'z' in escape sequence"),
    ("\"\\ud800\"", "1:1: parse error: escape sequence is an invalid Unicode code point"),
    ("`a", "1:1: parse error: unterminated raw string"),
    ("1.2.3", "1:1: parse error: bad number or duration syntax: \"1.2.\""),
    ("0x", "1:1: parse error: error parsing number: strconv.ParseFloat: parsing \"0x\": invalid syntax"),
    (
        "1e400",
        "1:1: parse error: error parsing number: strconv.ParseFloat: parsing \"1e400\": value out of range",
    ),
    ("5m5h", "1:1: parse error: not a valid duration string: \"5m5h\""),
    ("300y", "1:1: parse error: duration out of range"),
    ("foo{", "1:5: parse error: unexpected end of input inside braces"),
    ("foo{a}", "1:6: parse error: unexpected \"}\" in label matching, expected label matching operator"),
    ("foo{a=1}", "1:7: parse error: unexpected character inside braces: '1'"),
    ("foo{a=b}", "1:7: parse error: unexpected identifier \"b\" in label matching, expected string"),
    ("foo{,}", "1:5: parse error: unexpected \",\" in label matching, expected identifier or \"}\""),
    (
        "foo{a=\"1\" b=\"2\"}",
        "1:11: parse error: unexpected identifier \"b\" in label matching, expected \",\" or \"}\"",
    ),
    ("foo{a=~\"(\"}", "1:5: parse error: error parsing regexp: missing closing ): `(`"),
    ("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
    ("{a=\"\", b=~\".*\"}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
    ("foo{__name__=\"bar\"}", "1:1: parse error: metric name must not be set twice: \"foo\" or \"bar\""),
    ("foo[", "1:5: parse error: unexpected end of input in duration expression"),
    (
        "foo[]",
        "1:5: parse error: unexpected \"]\" in subquery or range selector, expected number, duration, step(), or range()",
    ),
    ("foo[0]", "1:5: parse error: duration must be greater than 0"),
    ("foo[1e30]", "1:5: parse error: duration out of range"),
    (
        "foo[5m 5m]",
        "1:8: parse error: unexpected duration \"5m\" in subquery or range, expected \":\" or \"]\"",
    ),
    ("foo[5m:6m", "1:10: parse error: unclosed left bracket"),
    ("foo[5m / 0]", "1:8: parse error: division by zero"),
    ("foo offset 1m[5m]", "1:14: parse error: no offset modifiers allowed before range"),
    ("foo @ 1[5m]", "1:8: parse error: no @ modifiers allowed before range"),
    ("(foo)[5m]", "1:6: parse error: ranges only allowed for vector selectors"),
    (
        "foo offset bar",
        "1:12: parse error: unexpected identifier \"bar\" in offset, expected number, duration, step(), or range()",
    ),
    ("foo offset 1m offset 2m", "1:1: parse error: offset may not be set multiple times"),
    (
        "(a+b) offset 1m",
        "1:1: parse error: offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
    ),
    ("foo @ bar", "1:7: parse error: unexpected identifier \"bar\" in @, expected timestamp"),
    ("foo @ Inf", "1:1: parse error: timestamp out of bounds for @ modifier: +Inf"),
    ("foo @ 1 @ 2", "1:1: parse error: @ <timestamp> may not be set multiple times"),
    ("foo anchored smoothed", "1:1: parse error: anchored and smoothed modifiers cannot be used together"),
    ("foo[5m:] anchored", "1:1: parse error: anchored modifier is not supported for subqueries"),
    ("nope(1)", "1:1: parse error: unknown function with name \"nope\""),
    (
        "rate(foo)",
        "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
    ),
    ("floor()", "1:1: parse error: expected 1 argument(s) in call to \"floor\", got 0"),
    (
        "label_join(x, 'a')",
        "1:1: parse error: expected at least 3 argument(s) in call to \"label_join\", got 2",
    ),
    ("hour(x, x)", "1:1: parse error: expected at most 1 argument(s) in call to \"hour\", got 2"),
    ("floor(x,)", "1:8: parse error: trailing commas not allowed in function call args"),
    ("info(x, y)", "1:9: parse error: expected label selectors only, got vector selector instead"),
    ("sum()", "1:1: parse error: no arguments for aggregate expression provided"),
    (
        "topk(x)",
        "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1",
    ),
    ("sum(1)", "1:5: parse error: expected type instant vector in aggregation expression, got scalar"),
    ("topk(x, x)", "1:6: parse error: expected type scalar in aggregation parameter, got instant vector"),
    ("sum by a (x)", "1:8: parse error: unexpected identifier \"a\" in grouping opts, expected \"(\""),
    ("sum by (1) (x)", "1:9: parse error: unexpected number \"1\" in grouping opts, expected label"),
    (
        "sum by (a b) (x)",
        "1:11: parse error: unexpected identifier \"b\" in grouping opts, expected \",\" or \")\"",
    ),
    ("sum by (a)", "1:11: parse error: unexpected end of input in aggregation"),
    ("sum foo", "1:5: parse error: unexpected identifier \"foo\""),
    ("1 == 1", "1:3: parse error: comparisons between scalars must use BOOL modifier"),
    ("a + bool b", "1:3: parse error: bool modifier can only be used on comparison operators"),
    ("1 and a", "1:1: parse error: set operator \"and\" not allowed in binary scalar expression"),
    ("a and on(x) group_left b", "1:1: parse error: no grouping allowed for \"and\" operation"),
    (
        "a + on(x) group_left(x) b",
        "1:3: parse error: label \"x\" must not occur in ON and GROUP clause at once",
    ),
    ("a + on(x) 1", "1:1: parse error: vector matching only allowed between instant vectors"),
    ("a or fill(0) b", "1:1: parse error: filling in missing series not allowed for set operators"),
    ("a + foo[5m]", "1:5: parse error: binary expression must contain only scalar and instant vector types"),
    ("a + group_left(x) b", "1:5: parse error: unexpected <group_left>"),
    (
        "-foo[5m]",
        "1:1: parse error: unary expression only allowed on expressions of type scalar or instant vector, got \"range vector\"",
    ),
    ("1[5m:]", "1:1: parse error: subquery is only allowed on instant vector, got scalar instead"),
    (
        "a offset 1m == bool 1 + bool 2",
        "1:23: parse error: bool modifier can only be used on comparison operators",
    ),
];

#[test]
fn parser_refuses_in_prometheus_words() {
    for (text, want) in REFUSED {
        assert_eq!(refused(text, &ParseOptions::all()), *want, "{text}");
    }
}

#[test]
fn parser_features_are_off_until_asked_for() {
    let off = ParseOptions { duration_expressions: false, ..ParseOptions::default() };
    for (text, want) in [
        ("foo[step()]", "1:5: parse error: experimental duration expression is not enabled"),
        ("foo[1m + max_of(5m, 1m)]", "1:17: parse error: experimental duration expression is not enabled"),
        ("foo offset -range()", "1:12: parse error: experimental duration expression is not enabled"),
        ("foo[5m] smoothed", "1:1: parse error: smoothed modifier is experimental and not enabled"),
        ("1 + a + fill(0) b", "1:1: parse error: binop fill modifiers are experimental and not enabled"),
        ("mad_over_time(a[5m])", "1:1: parse error: function \"mad_over_time\" is not enabled"),
        (
            "1 + limitk(1, a)",
            "1:5: parse error: limitk() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
        ),
    ] {
        assert_eq!(refused(text, &off), want, "{text}");
        parse_expr(text, &ParseOptions::all()).unwrap();
    }
    // Not behind the flag, since it computes nothing.
    assert_eq!(parse_expr("foo offset -(5m)", &off).unwrap().to_string(), "foo offset -(5m)");
}

#[test]
fn parser_gives_every_node_its_place() {
    let text = "sum by (a) (rate(foo{x=\"y\"}[5m] offset 1m)) + -(bar @ 5)";
    let of = |e: &Expr| &text[e.span.start as usize..e.span.end as usize];
    let whole = all(text);
    let Node::Binary(b) = &whole.node else { panic!("{whole:?}") };
    assert_eq!(of(&whole), text);
    assert_eq!(of(&b.lhs), "sum by (a) (rate(foo{x=\"y\"}[5m] offset 1m))");
    let Node::Aggregate(a) = &b.lhs.node else { panic!("{:?}", b.lhs) };
    assert_eq!(of(&a.expr), "rate(foo{x=\"y\"}[5m] offset 1m)");
    let Node::Call(c) = &a.expr.node else { panic!("{:?}", a.expr) };
    assert_eq!(of(&c.args[0]), "foo{x=\"y\"}[5m] offset 1m");
    let Node::Matrix { selector_span, .. } = &c.args[0].node else { panic!("{:?}", c.args) };
    assert_eq!(&text[selector_span.start as usize..selector_span.end as usize], "foo{x=\"y\"}");
    assert_eq!(of(&b.rhs), "-(bar @ 5)");
    let Node::Unary { expr, .. } = &b.rhs.node else { panic!("{:?}", b.rhs) };
    let Node::Paren(inner) = &expr.node else { panic!("{expr:?}") };
    assert_eq!(of(inner), "bar @ 5");
    let error = parse_expr("a\n+ é", &ParseOptions::all()).unwrap_err();
    assert_eq!((error.line, error.column, error.span), (2, 3, Span { start: 4, end: 6 }));
}

#[test]
fn selectors_of_match_parameters() {
    let options = ParseOptions::default();
    let matchers = parse_metric_selector("up{job=~\"a.*\"}", &options).unwrap();
    assert_eq!(
        matchers.iter().map(|m| m.to_string()).collect::<Vec<_>>(),
        ["job=~\"a.*\"", "__name__=\"up\""]
    );
    assert!(
        parse_metric_selector("{}", &options).unwrap().is_empty(),
        "the caller judges what matches everything"
    );
    for bad in ["", "1", "up[5m]", "up offset 1m", "up + up", "rate(up)", "up{"] {
        assert!(parse_metric_selector(bad, &options).is_err(), "{bad}");
    }
}

#[test]
fn series_descriptions() {
    let expand = |line: &str| -> Vec<String> {
        parse_series_description(line)
            .unwrap_or_else(|e| panic!("{line}: {e}"))
            .expand(100, |a, _, _| Ok(a.clone()))
            .unwrap()
            .iter()
            .map(|v| match v {
                SequenceValue::Gap => "_".into(),
                SequenceValue::Float(v) if model::sample::is_stale(*v) => "stale".into(),
                SequenceValue::Float(v) => v.to_string(),
                SequenceValue::Histogram { value, hint_set } => {
                    format!("h{}:{:?}:{hint_set}", value.sum, value.positive_buckets)
                }
            })
            .collect()
    };
    assert_eq!(
        expand("up{job=\"a\"} 1+2x3 _ stale 5x1 _x2 -1-1x1").join(" "),
        "1 3 5 7 _ stale 5 5 _ _ -1 -2"
    );
    assert_eq!(expand("up 1e3 Inf .5 1").join(" "), "1000 inf 0.5 1");
    assert_eq!(expand("up"), Vec::<String>::new());
    assert_eq!(
        expand(
            "{} {{schema:1 sum:-3 count:22 z_bucket:1 buckets:[5 10.5 7] counter_reset_hint:gauge}}x1 {{}}"
        ),
        ["h-3:[5.0, 10.5, 7.0]:true", "h-3:[5.0, 10.5, 7.0]:true", "h0:[]:false"]
    );
    let described =
        parse_series_description("a {{schema:-53 custom_values:[1 2.5] buckets:[1 2 3] offset:-1}}").unwrap();
    let SequenceItem::Histograms { first, .. } = &described.items[0] else { panic!("{described:?}") };
    assert_eq!(first.custom_values.as_deref(), Some(&[1.0, 2.5][..]));
    assert_eq!((first.positive_spans[0].offset, first.positive_spans[0].length), (-1, 3));
    assert_eq!(described.labels.get("__name__"), Some("a"));
    let long = parse_series_description("a 1x18446744073709551615 _x9").unwrap();
    assert!(long.expand(1000, |a, _, _| Ok(a.clone())).is_err());
    for bad in ["a 1+x", "a foo", "a 1 {{", "a {{sum:1 sum:2}}", "a {{nope:1}}", "a 1x", "{a=1} 1"] {
        assert!(parse_series_description(bad).is_err(), "{bad}");
    }
    let st = parse_start_timestamps("a{b=\"c\"}@st _ -1m+30sx2 _x1 5ms", 100).unwrap().unwrap();
    assert_eq!(st.offsets_ms, [None, Some(-60_000), Some(-30_000), Some(0), None, Some(5)]);
    assert!(parse_start_timestamps("a 1 2", 100).is_none());
    assert!(parse_start_timestamps("a@st 1mx1000", 100).unwrap().is_err());
}

#[test]
fn prettify_breaks_lines_as_upstream() {
    let long = "sum by (instance) (rate(http_requests_total{job=\"api-server\",code=~\"5..\"}[5m])) / ignoring (code) sum by (instance) (rate(http_requests_total{job=\"api-server\"}[5m]))";
    assert_eq!(
        prettify(&all(long)),
        "  sum by (instance) (rate(http_requests_total{code=~\"5..\",job=\"api-server\"}[5m]))\n/ ignoring (code)\n  sum by (instance) (rate(http_requests_total{job=\"api-server\"}[5m]))"
    );
    let chain = format!("{} + {} + {}", "a".repeat(60), "b".repeat(60), "c".repeat(60));
    let want = format!("    {}\n  +\n    {}\n+\n  {}", "a".repeat(60), "b".repeat(60), "c".repeat(60));
    assert_eq!(prettify(&all(&chain)), want);
    assert_eq!(prettify(&all("a+b")), "a + b");
}

fn wide_open() -> ParseOptions {
    ParseOptions { max_chain: usize::MAX, ..ParseOptions::all() }
}

/// Runs on a stack of 2 MiB, as threads of a server have.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(test).unwrap().join().unwrap();
}

#[test]
fn parser_needs_no_stack_for_long_chains() {
    on_a_small_stack(|| {
        for (first, more) in [("1", "+1"), ("a", "/a"), ("a", " or a"), ("-a", "*-a")] {
            let text = format!("{first}{}", more.repeat((64_000 - 10) / more.len()));
            let expr = parse_expr(&text, &wide_open()).unwrap();
            let copy = expr.clone();
            let printed = copy.to_string();
            assert_eq!(all_open(&printed), printed);
            assert!(!prettify(&copy).is_empty() && !format!("{copy:?}").is_empty());
            let (_, chain) = expr.left_spine();
            assert_eq!(chain.len(), (64_000 - 10) / more.len());
        }
    });
}

fn all_open(text: &str) -> String {
    let options = ParseOptions { max_text_bytes: 1 << 20, ..wide_open() };
    parse_expr(text, &options).unwrap().to_string()
}

#[test]
fn parser_refuses_hostile_texts() {
    on_a_small_stack(|| {
        let options = ParseOptions::all();
        let n = 10_000;
        for (text, want) in [
            (format!("{}1{}", "(".repeat(n), ")".repeat(n)), "nested too deeply"),
            (format!("{}a", "sum(".repeat(n)), "nested too deeply"),
            (format!("{}a", "-".repeat(n)), "nested too deeply"),
            (format!("{}(a)", "-(".repeat(n)), "nested too deeply"),
            (format!("1{}", "^1".repeat(n)), "nested too deeply"),
            (format!("a{}", "[5m:]".repeat(n)), "nested too deeply"),
            (format!("a[{}1", "(".repeat(n)), "nested too deeply"),
            (format!("a[1{}]", "+1".repeat(n)), "nested too deeply"),
            (format!("a[{}1]", "-".repeat(n)), "nested too deeply"),
            (format!("a offset {}1", "- ".repeat(n)), "nested too deeply"),
            (format!("1{}", "+1".repeat(n)), "too many operators in a row"),
            (format!("1{}", "+1".repeat(100_000)), "query is too long: 200001 bytes"),
            ("a".repeat(1 << 20), "query is too long: 1048576 bytes"),
            (format!("a{}", " offset 1m".repeat(5000)), "offset may not be set multiple times"),
            (
                format!("a * on ({0}) group_left ({0}x) b", "a,".repeat(15_000)),
                "must not occur in ON and GROUP",
            ),
            (format!("{{{}", "a=\"b\",".repeat(n)), "inside braces"),
            (format!("{{{}}}", "a=~`\\pL{20}x`,".repeat(4000)), "too much memory together"),
        ] {
            let error = refused(&text, &options);
            assert!(error.contains(want), "{text:.30}…: {error:.200}");
        }
        // Just inside the limits.
        let deep = format!("{}1{}", "(".repeat(199), ")".repeat(199));
        assert!(parse_expr(&deep, &options).is_ok());
    });
}

/// Tokens of a text, the end included; each takes at least one byte but the last.
fn tokens(text: &str) -> usize {
    let mut lexer = Lexer::new(text, false);
    let mut count = 1;
    while !matches!(lexer.next_token().kind, Kind::Eof | Kind::Error) {
        count += 1;
    }
    count
}

fn nodes(expr: &Expr) -> usize {
    let (leftmost, chain) = expr.left_spine();
    let own = match &leftmost.node {
        Node::Paren(e) | Node::Unary { expr: e, .. } => 1 + nodes(e),
        Node::Call(c) => 1 + c.args.iter().map(nodes).sum::<usize>(),
        Node::Aggregate(a) => 1 + nodes(&a.expr) + a.param.as_ref().map_or(0, nodes),
        Node::Subquery(s) => 1 + nodes(&s.expr),
        _ => 1,
    };
    own + chain.iter().map(|(b, _)| 1 + nodes(&b.rhs)).sum::<usize>()
}

#[test]
fn parser_never_panics_on_mutated_texts_and_stays_linear() {
    let seeds: Vec<&str> = PRINTS.iter().map(|p| p.0).chain(REFUSED.iter().map(|r| r.0)).collect();
    let bits = [
        "(", ")", "[", "]", "{", "}", "\"", "'", "`", "@", "offset", "5m", ":", "#", "\\", "é", "\0",
        "\u{fffd}", "by", "on", "^", "-", "1e", "0x", "{{", "}}", "_", "x3", "\n",
    ];
    let (mut random, mut accepted) = (Rng(0x5eed), 0);
    for _ in 0..20_000 {
        let mut bytes = seeds[random.below(seeds.len())].as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() + 1);
            match random.below(5) {
                0 => drop(bytes.splice(at..at, bits[random.below(bits.len())].bytes())),
                1 if at < bytes.len() => bytes[at] = random.below(256) as u8,
                2 if at < bytes.len() => drop(bytes.remove(at)),
                3 => bytes.truncate(at),
                _ => {
                    let other = seeds[random.below(seeds.len())].as_bytes();
                    bytes.splice(at..at, other[random.below(other.len() + 1)..].iter().copied());
                }
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        assert!(tokens(&text) <= text.len() + 1, "{text:?}");
        if let Ok(expr) = parse_expr(&text, &ParseOptions::all()) {
            accepted += 1;
            assert!(nodes(&expr) <= tokens(&text), "{text:?}");
            assert!(expr.span.end as usize <= text.len(), "{text:?}");
            let _ = (expr.to_string(), prettify(&expr));
        }
        let _ = parse_expr(&text, &ParseOptions::default());
        let _ = parse_metric_selector(&text, &ParseOptions::default());
        let _ = parse_series_description(&text);
    }
    assert!(accepted > 1000, "{accepted} mutants parsed: too few to say anything");
}

/// The expressions of upstream's conformance scripts, where they lie beside the project; else our own table.
fn corpus() -> (Vec<String>, &'static str) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/promqltest");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(script) = std::fs::read_to_string(entry.path()) else { continue };
        let lines: Vec<&str> = script.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(rest) = line.trim_start().strip_prefix("eval") else { continue };
            let words: Vec<&str> = rest.split_whitespace().collect();
            let skip = match words.as_slice() {
                ["instant", "at", ..] | ["_fail", "instant", "at", ..] => 3,
                ["range", "from", _, "to", _, "step", ..] => 7,
                _ => continue,
            };
            let skip = skip + usize::from(words[0].starts_with('_'));
            // Those expected to fail may fail in the parser.
            let fails = rest.starts_with("_fail")
                || lines.get(at + 1).is_some_and(|l| l.trim().starts_with("expect fail"));
            let expr = words[skip..].join(" ");
            if !fails && !expr.is_empty() {
                found.push(expr);
            }
        }
    }
    if found.is_empty() {
        return (PRINTS.iter().map(|p| p.0.to_string()).collect(), "our own table");
    }
    (found, "upstream's scripts")
}

#[test]
#[allow(clippy::print_stdout)]
fn parser_reads_and_prints_the_corpus_exactly() {
    let (corpus, which) = corpus();
    println!("{} expressions of {which}", corpus.len());
    for text in &corpus {
        let expr = all(text);
        let printed = expr.to_string();
        if !printed.contains("info(") {
            assert_eq!(all(&printed).to_string(), printed, "{text}");
            assert_eq!(all(&prettify(&expr)).to_string(), printed, "{text}");
        }
    }
}

/// Expressions in the language that promql-parser 0.11 knows too, without what it is known to get wrong:
/// unary plus, negative `@`, single numbers as durations.
fn both_know() -> impl Strategy<Value = String> {
    let selector = prop_oneof![
        Just("up".to_string()),
        Just("foo:bar".to_string()),
        "[a-c]\\{x=\"[a-z]{0,3}\"(,y!=\"q\")?\\}",
        Just("{__name__=~\"a.+\",z!~\"b|c\"}".to_string()),
        Just("{\"a.b\"}".to_string()),
    ];
    let instant = (
        selector.clone(),
        prop_oneof![Just(""), Just(" offset 5m"), Just(" @ end()"), Just(" @ 12.5 offset -1h")],
    )
        .prop_map(|(s, m)| s + m);
    let leaf = prop_oneof![instant, "[1-9][0-9]{0,2}(\\.5)?".prop_map(|n| format!("vector({n})"))];
    leaf.prop_recursive(5, 40, 3, move |inner| {
        let op = prop_oneof![
            Just("+"), Just("-"), Just("*"), Just("/"), Just("%"), Just("^"), Just("atan2"), Just("=="), Just("!= bool"),
            Just(">"), Just("<= bool"), Just("and"), Just("or"), Just("unless on(a)"), Just("+ on(a, b) group_left(c)"),
            Just("- ignoring(a) group_right()"),
        ];
        prop_oneof![
            4 => (inner.clone(), op, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            2 => inner.clone().prop_map(|e| format!("({e})")),
            1 => inner.clone().prop_map(|e| format!("-({e})")),
            1 => (inner.clone(), "[1-9]h(30m)?").prop_map(|(e, d)| format!("max_over_time(({e})[{d}:1m])")),
            2 => (selector.clone(), "[1-9]m").prop_map(|(s, d)| format!("rate({s}[{d}] offset 1m)")),
            2 => (prop_oneof![Just("sum"), Just("avg by (a)"), Just("max without (a, b)")], inner.clone())
                .prop_map(|(op, e)| format!("{op} ({e})")),
            1 => (prop_oneof![Just("topk"), Just("quantile")], inner.clone()).prop_map(|(op, e)| format!("{op}(3, {e})")),
            1 => inner.clone().prop_map(|e| format!("label_replace({e}, 'a', '$1', 'b', \"(.*)\")")),
        ]
    })
}

proptest! {
    #[test]
    fn promql_parser_reads_our_print_as_it_reads_the_text(text in both_know()) {
        let theirs = promql_parser::parser::parse(&text);
        let ours = parse_expr(&text, &ParseOptions::all());
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{}: ours {:?}, theirs {:?}", text, ours, theirs.err());
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            let again = promql_parser::parser::parse(&ours.to_string());
            prop_assert_eq!(again.map(|e| e.to_string()), Ok(theirs.to_string()), "{}", text);
            prop_assert_eq!(all(&prettify(&ours)).to_string(), ours.to_string());
            prop_assert_eq!(all(&ours.to_string()).to_string(), ours.to_string());
        }
    }

    #[test]
    fn strings_are_bytes_and_survive(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let text = model::quote::quote(&bytes);
        // U+FFFD itself is refused in text, as upstream takes it for broken UTF-8.
        prop_assume!(!text.contains('\u{fffd}'));
        let expr = all(&text);
        let Node::Str(back) = &expr.node else { panic!("{expr:?}") };
        prop_assert_eq!(&**back, &bytes[..]);
    }

    #[test]
    fn numbers_survive(value in any::<f64>()) {
        let text = Expr::number(value).to_string();
        let Node::Number(back) = all(&text).node else { panic!("{text}") };
        prop_assert!(back.value == value || (back.value.is_nan() && value.is_nan()));
    }
}
