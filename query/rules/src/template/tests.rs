//! Templates as rule files in the wild write them, and how they fail.

use std::sync::Arc;

use super::*;

fn sample(pairs: &[(&str, &str)], value: f64) -> Sample {
    let labels = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Sample { labels: Arc::new(labels), value: Value::Float(value) }
}

fn expand(text: &str, value: f64) -> Result<String, TemplateError> {
    let labels = [("instance", "web-1.example.org:9100"), ("job", "x y"), ("empty", "")];
    let external = External {
        labels: Arc::new([("cluster".to_string(), "eu".to_string())].into()),
        url: "https://prom.example.org/mon".into(),
    };
    let query = |text: &str| match text {
        "up" => Ok(vec![
            sample(&[("instance", "b"), ("__value__", "1.5")], 1.5),
            sample(&[("instance", "a")], 2.0),
        ]),
        "none" => Ok(vec![]),
        _ => Err("no such query".to_string()),
    };
    let data = Data {
        labels: Arc::new(labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()),
        value: Value::Float(value),
        external: &external,
        query: &query,
        now_ms: 1_257_894_000_500,
    };
    Template::parse(text, "__alert_T")?.expand(&data, &Limits::default())
}

#[test]
fn template_actions_of_rule_files_expand_as_upstream() {
    for (text, want) in [
        ("plain", "plain"),
        ("{{ $labels.instance }} down", "web-1.example.org:9100 down"),
        ("{{ .Labels.job }}|{{$labels.none}}|{{ $externalLabels.cluster }}", "x y||eu"),
        ("{{ $labels }}", "map[empty: instance:web-1.example.org:9100 job:x y]"),
        ("{{ $value }} {{ .Value }}", "12.5 12.5"),
        ("{{ $value | humanize }}b {{ humanizePercentage 0.125 }}", "12.5b 12.5%"),
        (r#"{{ printf "%.2f" $value }} {{ $value | printf "%.0f" }}"#, "12.50 12"),
        (r#"{{ printf "%d" $value }} {{ printf "%s" $value }}"#, "%!d(float64=12.5) %!s(float64=12.5)"),
        (r#"{{ printf "%s is %5.1f%% %v" $labels.job $value true }}"#, "x y is  12.5% true"),
        (r#"{{ printf "%s" }}{{ printf "x" 1 }}"#, "%!s(MISSING)x%!(EXTRA int=1)"),
        (r#"{{ printf "%05d|%-4d|%+d|%x|%q" 42 7 3 255 "a\"b" }}"#, r#"00042|7   |+3|ff|"a\"b""#),
        (r#"{{ with query "up" }}{{ . | first | value }}{{ end }}"#, "1.5"),
        (r#"{{ query "up" | first | label "instance" }}"#, "b"),
        (r#"{{ (query "up" | first).Labels.instance }}"#, "b"),
        (r#"{{ query "up" | first | strvalue }}"#, "1.5"),
        (r#"{{ with query "none" }}yes{{ else }}no{{ end }}"#, "no"),
        (
            r#"{{ range query "up" | sortByLabel "instance" }}{{ .Labels.instance }}={{ .Value }} {{ end }}"#,
            "a=2 b=1.5 ",
        ),
        (r#"{{ range $i, $s := query "up" }}{{ $i }}{{ $s.Labels.instance }}{{ end }}"#, "0b1a"),
        ("{{ range $k, $v := $labels }}{{ $k }};{{ end }}", "empty;instance;job;"),
        ("{{ if gt $value 5.0 }}big{{ else if lt $value 1.0 }}small{{ else }}fair{{ end }}", "big"),
        ("{{ if and (eq $labels.job \"x y\") (not false) }}both{{ end }}", "both"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("a {{- /* gone */ -}} b\n{{- \" c\" -}}\n d", "ab cd"),
        ("{{ len $labels }} {{ index $labels \"job\" }} {{ slice \"abcdef\" 1 3 }}", "3 x y bc"),
        ("{{ print 1 2 \"a\" 3 }}{{ println 4 5 }}", "1 2a34 5\n"),
        ("{{ reReplaceAll \"(.*)\\\\.example.*\" \"$1!\" $labels.instance }}", "web-1!"),
        ("{{ reReplaceAll `[a-z]+` `<$0>` \"ab1cd\" }}", "<ab>1<cd>"),
        ("{{ if match \"^web\" $labels.instance }}m{{ end }}", "m"),
        ("{{ title \"hello wORLD\" }} {{ toUpper \"ab\" }} {{ toLower \"AB\" }}", "Hello WORLD AB ab"),
        (
            "{{ stripPort $labels.instance }} {{ stripDomain $labels.instance }}",
            "web-1.example.org web-1:9100",
        ),
        ("{{ stripDomain \"10.0.0.1:80\" }} {{ stripPort \"[::1]:80\" }}", "10.0.0.1:80 ::1"),
        (
            "{{ externalURL }} {{ pathPrefix }} {{ $externalURL }}",
            "https://prom.example.org/mon /mon https://prom.example.org/mon",
        ),
        ("{{ graphLink \"up == 0\" }}", "/graph?g0.expr=up+%3D%3D+0&g0.tab=0"),
        ("{{ tableLink \"up\" }}{{ urlQueryEscape \"a b/c\" }}", "/graph?g0.expr=up&g0.tab=1a+b%2Fc"),
        ("{{ now }} {{ parseDuration \"1h\" }} {{ toDuration 90.5 }}", "1.2578940005e+09 3600 1m30.5s"),
        ("{{ toTime 1257894000 }}", "2009-11-10 23:00:00 +0000 UTC"),
        ("{{ humanizeTimestamp 1257894000.5 }}", "2009-11-10 23:00:00.5 +0000 UTC"),
        (r#"{{ define "x" }}[{{ .arg0 }}{{ .arg1 }}]{{ end }}{{ template "x" (args 1 "b") }}"#, "[1b]"),
        ("{{ html \"<a>\" }} {{ 'a' }} {{ 0x1F }} {{ 1e3 }} {{ 1_000 }}", "&lt;a&gt; 97 31 1000 1000"),
        ("{{ range 3 }}{{ . }}{{ end }}", "012"),
        ("{{ range query \"up\" }}x{{ break }}{{ end }}", "x"),
        ("{{ or \"\" \"b\" }}{{ and 1 0 }}", "b0"),
        ("{{ humanize \"1234567\" }}", "1.235M"),
        ("{{ $labels.instance | printf \"%s:%s\" \"a\" }}", "a:web-1.example.org:9100"),
        ("{{ (args 1).arg9 }}", "<no value>"),
    ] {
        assert_eq!(expand(text, 12.5).as_deref(), Ok(want), "{text}");
    }
}

#[test]
fn template_values_print_as_gos_shortest() {
    for (value, want) in [
        (999_999.0, "999999"),
        (1e6, "1e+06"),
        (123_456_789.0, "1.23456789e+08"),
        (f64::INFINITY, "+Inf"),
        (f64::NAN, "NaN"),
        (0.00001, "1e-05"),
        (-0.5, "-0.5"),
    ] {
        assert_eq!(expand("{{ $value }}", value).as_deref(), Ok(want));
    }
}

#[test]
fn humanized_numbers_are_upstreams() {
    use humanize::*;
    for (v, plain, binary, duration, percentage) in [
        (0.0, "0", "0", "0s", "0%"),
        (1.0, "1", "1", "1s", "100%"),
        (1_234_567.0, "1.235M", "1.177Mi", "14d 6h 56m 7s", "1.235e+08%"),
        (0.12, "120m", "0.12", "120ms", "12%"),
        (899.99, "900", "900", "14m 59s", "9e+04%"),
        (-123.0, "-123", "-123", "-2m 3s", "-1.23e+04%"),
        (59.994, "59.99", "59.99", "59.99s", "5999%"),
        (f64::NAN, "NaN", "NaN", "NaN", "NaN%"),
        (f64::INFINITY, "+Inf", "+Inf", "+Inf", "+Inf%"),
        (1024.0 * 1024.0, "1.049M", "1Mi", "12d 3h 16m 16s", "1.049e+08%"),
    ] {
        let made = (humanize(v), humanize1024(v), humanize_duration(v), humanize_percentage(v));
        let made = (made.0.as_str(), made.1.as_str(), made.2.as_str(), made.3.as_str());
        assert_eq!(made, (plain, binary, duration, percentage), "{v}");
    }
}

#[test]
fn template_that_does_not_parse_says_why_in_gos_words() {
    for (text, why) in [
        ("{{ foo }}", "template: __alert_T:1: function \"foo\" not defined"),
        ("{{ $foo }}", "template: __alert_T:1: undefined variable \"$foo\""),
        ("{{ $labels.foo-bar }}", "template: __alert_T:1: bad character U+002D '-'"),
        ("\n{{ if }}x{{ end }}", "template: __alert_T:2: missing value for if"),
        ("{{ if true }}x", "template: __alert_T:1: unexpected EOF"),
        ("{{ \"abc }}", "template: __alert_T:1: unterminated quoted string"),
        ("{{ end }}", "template: __alert_T:1: unexpected {{end}}"),
        ("{{ 1 | 2 }}", "template: __alert_T:1: non executable command in pipeline stage 2"),
        ("{{ (1 }}", "template: __alert_T:1: unclosed left paren"),
        ("{{ break }}", "template: __alert_T:1: {{break}} outside {{range}}"),
        ("{{ $value", "template: __alert_T:1: unclosed action"),
        ("{{ }}", "template: __alert_T:1: missing value for command"),
        ("{{ . ; }}", "template: __alert_T:1: unexpected \";\" in operand"),
    ] {
        assert_eq!(Template::parse(text, "__alert_T").map(|_| ()), Err(TemplateError(why.into())), "{text}");
    }
}

#[test]
fn template_that_fails_says_where_in_gos_words() {
    for (text, why) in [
        ("{{ .Foo }}", "executing \"__alert_T\" at <.Foo>: can't evaluate field Foo in type struct { Labels"),
        (
            "{{ if gt $value 5 }}x{{ end }}",
            "at <gt $value 5>: error calling gt: incompatible types for comparison",
        ),
        (
            "{{ query \"none\" | first }}",
            "at <first>: error calling first: first() called on vector with no elements",
        ),
        ("{{ query \"bad\" }}", "error calling query: no such query"),
        ("{{ humanize \"x\" }}", "error calling humanize: strconv.ParseFloat: parsing \"x\": invalid syntax"),
        (
            "{{ label \"a\" \"b\" }}",
            "at <label \"a\" \"b\">: wrong type for value; expected *template.sample; got string",
        ),
        ("{{ toUpper 1 2 }}", "wrong number of args for toUpper: want 1 got 2"),
        ("{{ template \"x\" }}", "template \"x\" not defined"),
        ("{{ $value.x }}", "can't evaluate field x in type float64"),
        ("{{ $value 1 }}", "can't give argument to non-function $value"),
        ("{{ match \"(\" \"x\" }}", "error calling match: error parsing regexp"),
    ] {
        let told = expand(text, 1.0).unwrap_err().to_string();
        assert!(told.contains(why), "{text}\n{told}\nshould hold\n{why}");
    }
}

#[test]
fn template_that_grows_or_loops_is_stopped() {
    for (text, why) in [
        (r#"{{ define "a" }}{{ template "a" . }}{{ end }}{{ template "a" . }}"#, "maximum template depth"),
        ("{{ range 1000 }}{{ range 1000 }}x{{ end }}{{ end }}", "steps"),
        ("{{ $x := \"aaaaaaaaaa\" }}{{ range 60 }}{{ $x = print $x $x }}{{ end }}", "bytes"),
        ("{{ $x := printf \"%900000d\" 1 }}{{ range 99 }}{{ $x }}{{ end }}", "grows beyond"),
        ("{{ range 101 }}{{ query \"up\" }}{{ end }}", "queries"),
        ("{{ range 1000000000000 }}{{ end }}", "steps"),
    ] {
        let told = expand(text, 1.0).unwrap_err().to_string();
        assert!(told.contains(why), "{text}: {told}");
    }
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(5_000), ")".repeat(5_000));
    assert!(Template::parse(&deep, "t").unwrap_err().to_string().contains("nested deeper"));
}

#[test]
fn template_error_becomes_the_value() {
    let external = External::default();
    let data = Data {
        labels: Arc::default(),
        value: Value::Float(1.0),
        external: &external,
        query: &|_| Ok(vec![]),
        now_ms: 0,
    };
    let told = expand_or_tell("{{ foo }}", "__alert_T", &data);
    assert_eq!(
        told,
        "<error expanding template: error parsing template __alert_T: template: __alert_T:1: function \"foo\" not defined>"
    );
}

proptest::proptest! {
    #[test]
    fn template_of_any_text_neither_panics_nor_hangs(text in "[{}$.a-z|()\"'`:=,0-9 \\-*/\n]{0,60}") {
        let _ = expand(&text, 1.0);
        let _ = expand(&format!("{{{{{text}}}}}"), 1.0);
    }
}
