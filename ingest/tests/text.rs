//! Exposition text: the two formats by example, what is refused and where, and every generated text coming
//! back as it was.

use std::fmt::Write;
use std::sync::Arc;

use ingest::Limits;
use ingest::remote_write::sink::Sink;
use ingest::text::{Exposition, Format, append, parse, parse_as};
use model::exemplar::{Accepted, Refused};
use model::histogram::Histogram;
use model::sample::{Metadata, NORMAL_NAN_BITS};
use proptest::prelude::*;
use tsdb::db::SeriesRef;

/// Samples as `name{labels} value @ts`.
fn lines(e: &Exposition<'_>) -> Vec<String> {
    e.samples
        .iter()
        .map(|s| {
            let labels: Vec<_> = e.labels(s).iter().map(|(n, v)| format!("{n}={v:?}")).collect();
            let at = s.ts_ms.map_or(String::new(), |t| format!(" @{t}"));
            format!("{}{{{}}} {}{at}", s.name, labels.join(","), s.value)
        })
        .collect()
}

#[test]
fn classic_format_by_example() {
    let text = r#"# HELP http_requests_total The total number of \"requests\".\nSecond line, one backslash: \\
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="post",code="400",}    3 -1

# A comment without meaning
	msdos_file_access_time_seconds { path = "C:\\DIR\\FILE.TXT" , error="Cannot find file:\n\"FILE.TXT\"" } 1.458255915e9
metric_without_timestamp_and_labels 12.47
a:b_c -Inf
a:b_c +Inf
a:b_c 1e3
# TYPE rpc summary
rpc{quantile="0.5"} 4773
rpc_sum 1.7560473e+07
{"utf8.name","with space"="ü"} 1
"quoted.before"{a="b"} 2
empty{} 3
"#;
    let e = parse(text).unwrap();
    assert_eq!(
        lines(&e),
        [
            r#"http_requests_total{method="post",code="200"} 1027 @1395066363000"#,
            r#"http_requests_total{method="post",code="400"} 3 @-1"#,
            r#"msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1458255915"#,
            "metric_without_timestamp_and_labels{} 12.47",
            "a:b_c{} -inf",
            "a:b_c{} inf",
            "a:b_c{} 1000",
            r#"rpc{quantile="0.5"} 4773"#,
            "rpc_sum{} 17560473",
            r#"utf8.name{with space="ü"} 1"#,
            r#"quoted.before{a="b"} 2"#,
            "empty{} 3",
        ]
    );
    let families: Vec<_> = e.families.iter().map(|f| (&*f.name, f.kind, &*f.help)).collect();
    assert_eq!(
        families,
        [
            (
                "http_requests_total",
                "counter",
                "The total number of \\\"requests\\\".\nSecond line, one backslash: \\"
            ),
            ("rpc", "summary", "")
        ]
    );
    let nan = parse("x NaN").unwrap().samples[0].value;
    assert_eq!(nan.to_bits(), NORMAL_NAN_BITS);
    assert!(parse("").unwrap().samples.is_empty());
}

#[test]
fn open_metrics_by_example() {
    let text = r#"# TYPE foo_seconds counter
# UNIT foo_seconds seconds
# HELP foo_seconds Says \"hello\".
foo_seconds_total{a="b"} 17.0 1520879607.789 # {trace_id="KOO5S4vxi0o"} 0.67 1520879607.1
foo_seconds_created{a="b"} 1520430000.123
# TYPE bar gaugehistogram
bar_bucket{le="+Inf"} 17 # {} 1
# TYPE s stateset
s{s="on"} 1
# EOF
"#;
    let e = parse(text).unwrap();
    assert_eq!(
        lines(&e),
        [
            r#"foo_seconds_total{a="b"} 17 @1520879607789"#,
            r#"foo_seconds_created{a="b"} 1520430000.123"#,
            r#"bar_bucket{le="+Inf"} 17"#,
            r#"s{s="on"} 1"#
        ]
    );
    let exemplars: Vec<_> =
        e.exemplars.iter().map(|x| (x.sample, e.exemplar_labels(x).len(), x.value, x.ts_ms)).collect();
    assert_eq!(exemplars, [(0, 1, 0.67, Some(1520879607100)), (2, 0, 1.0, None)]);
    let foo = &e.families[0];
    assert_eq!(
        (&*foo.name, foo.kind, &*foo.help, foo.unit),
        ("foo_seconds", "counter", "Says \"hello\".", "seconds")
    );
    let cut = parse_as("foo 1\n", Format::OpenMetrics).unwrap_err();
    assert_eq!(cut.what, "the text ends without # EOF: it was cut short");
}

#[test]
fn le_and_quantile_have_one_spelling_as_scrapes_give_them() {
    let text = r#"# TYPE a histogram
a_bucket{le="1"} 1
a_bucket{le="2.50"} 1
a_bucket{le="1e6"} 1
a_bucket{le="-0"} 1
a_bucket{le="0.00001"} 1
a_bucket{le="1e999"} 1
a_bucket{le="+inf"} 2
a_bucket{le="many"} 2
a_bucket{le="0x1p4"} 2
a_bucket{le="1_000"} 2
a_bucket{le="0x10"} 2
a_bucket{le="Infinity"} 2
a_bucket{le="1E+2"} 2
a_bucket{quantile="1"} 2
b_bucket{le="5"} 3
# TYPE c summary
c{quantile="0"} 1
c{quantile=".5",le="1"} 1
c{quantile="NaN"} 1
# TYPE d gauge
d{le="1",quantile="1"} 1
# TYPE e gaugehistogram
e_bucket{le="1"} 1
# EOF
"#;
    let e = parse(text).unwrap();
    let labels: Vec<String> = e
        .samples
        .iter()
        .map(|s| e.labels(s).iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(","))
        .collect();
    assert_eq!(
        labels,
        [
            "le=1.0",
            "le=2.5",
            "le=1e+06",
            "le=0.0",
            "le=1e-05",
            // No number of 64 bits, and no number at all, stay as they are.
            "le=1e999",
            "le=+Inf",
            "le=many",
            // Hexadecimal floats and underscores are numbers in Go, a hexadecimal number without exponent is
            // not.
            "le=16.0",
            "le=1000.0",
            "le=0x10",
            "le=+Inf",
            "le=100.0",
            // Only what the type has as a number; it holds for all up to the next TYPE line, whatever they
            // are called.
            "quantile=1",
            "le=5.0",
            "quantile=0.0",
            "quantile=0.5,le=1",
            "quantile=NaN",
            "le=1,quantile=1",
            "le=1",
        ]
    );
    // The classic format is scraped by the same rule.
    let classic = parse("# TYPE a histogram\na_bucket{le=\"1\"} 1\n").unwrap();
    assert_eq!(classic.labels(&classic.samples[0])[0].1, "1.0");
}

#[test]
fn open_metrics_is_held_to_its_grammar() {
    let good = [
        "",
        "a 1\n",
        "a{} 1\n",
        "a{b=\"c\",} 1\n",
        "# HELP a \n",
        "# UNIT a_s s\n",
        "# UNIT a \n",
        "a 1 # {} 1 2\n",
    ];
    for text in good {
        let text = format!("{text}# EOF\n");
        assert!(parse_as(&text, Format::OpenMetrics).is_ok(), "{text:?}");
    }
    assert!(parse_as("# EOF", Format::OpenMetrics).is_ok(), "the last line may lack its end");
    let bad = [
        // Blanks: one space where one belongs, none elsewhere.
        ("\n", "an empty line"),
        (" a 1\n", "expected a metric name"),
        ("a  1\n", "expected a number"),
        ("a\t1\n", "expected a space and a value"),
        ("a 1 \n", "expected a timestamp"),
        ("a 1\t\n", "expected a number"),
        ("a {b=\"c\"} 1\n", "expected a number"),
        ("a{ b=\"c\"} 1\n", "expected a label name"),
        ("a{b =\"c\"} 1\n", "expected = after"),
        ("a{b= \"c\"} 1\n", "expected a label value"),
        ("a{b=\"c\" } 1\n", "expected , or }"),
        ("a{b=\"c\", d=\"e\"} 1\n", "expected a label name"),
        ("a{,b=\"c\"} 1\n", "expected a label name"),
        ("a{b=\"c\"}1\n", "expected a space and a value"),
        // Comments are HELP, TYPE, UNIT and EOF.
        ("#a\n", "expected a space"),
        ("# a\n", "expected HELP, TYPE, UNIT or EOF"),
        ("#  TYPE a counter\n", "expected HELP, TYPE, UNIT or EOF"),
        ("# TYPE  a counter\n", "expected a metric name"),
        ("# TYPE a  counter\n", "is not a metric type"),
        ("# TYPE a counter \n", "expected the end of the line"),
        ("# TYPE a untyped\n", "is not a metric type"),
        ("# TYPE a\n", "expected a space and a text"),
        ("# HELP a\n", "expected a space and a text"),
        ("# UNIT a seconds\n", "does not end with its unit"),
        ("# UNIT seconds seconds\n", "does not end with its unit"),
        // Numbers as Go reads them.
        ("a 1e999\n", "expected a number"),
        ("a -nan\n", "expected a number"),
        ("a 1_000\n", "expected a number"),
        ("a 0x1p-3\n", "expected a number"),
        ("a 0x1P-3\n", "expected a number"),
        ("a 0 1_2\n", "expected a timestamp"),
        ("a 1 # {} 1_2\n", "expected a number"),
        ("a 1 # {} 0x1p-3\n", "expected a number"),
        ("a 1 # {} 4 NaN\n", "expected a timestamp"),
        ("a 1 # {} 4 -Inf\n", "expected a timestamp"),
        ("a 1 NaN\n", "expected a timestamp"),
        ("a 1 1e999\n", "expected a timestamp"),
        ("a 1 1 1\n", "expected the end of the line"),
        // Exemplars.
        ("a 1 #{} 1\n", "expected a timestamp"),
        ("a 1 # 1\n", "starts with its labels"),
        ("a 1 # {}\n", "expected a space and the exemplar's value"),
        ("a 1 # {} 1 \n", "expected a timestamp"),
        ("a 1 # {} 1 1 1\n", "expected the end of the line"),
        // Nothing after the end.
        ("# EOF\n", "after # EOF"),
        ("# EOF \n", "expected the end of the line"),
    ];
    for (text, want) in bad {
        let text = format!("{text}# EOF\n");
        let refused = parse_as(&text, Format::OpenMetrics).expect_err(&text);
        assert!(refused.what.contains(want), "{text:?}: {refused}");
    }
    let after = parse_as("# EOF\n\n", Format::OpenMetrics).unwrap_err();
    assert_eq!(after.to_string(), "line 2, column 1: there is something after # EOF");
}

#[test]
fn text_errors_say_what_is_refused_and_where() {
    let cases = [
        ("up 1\nup{ 1", "line 2, column 5: expected a label name or }, found \"1\""),
        ("up", "line 1, column 3: expected a number, the line ends"),
        ("up one", "line 1, column 4: expected a number, found \"one\""),
        ("up 0x1p4", "line 1, column 4: expected a number, found \"0x1p4\""),
        ("up 1 2.5", "line 1, column 6: expected a timestamp in milliseconds, found \"2.5\""),
        ("up 1 2 3", "line 1, column 8: expected the end of the line, found \"3\""),
        ("1up 1", "line 1, column 1: expected a metric name, found \"1up 1\""),
        ("up{a=\"b} 1", "line 1, column 6: a quote that is not closed"),
        ("up{a=\"b\\", "line 1, column 6: a quote that is not closed"),
        ("up{a=b} 1", "line 1, column 6: expected a label value in quotes, found \"b} 1\""),
        ("up{a} 1", "line 1, column 5: expected = after a label name, found \"} 1\""),
        ("up{a=\"1\" b=\"2\"} 1", "line 1, column 10: expected , or }, found \"b=\\\"2\\\"} 1\""),
        ("up{a=\"1\",a=\"2\"} 1", "line 1, column 3: the label name \"a\" appears twice"),
        (
            "up{__name__=\"x\"} 1",
            "line 1, column 3: the metric name stands before the braces, not as a label",
        ),
        ("up{\"x\"} 1", "line 1, column 3: a metric name before and inside of the braces"),
        ("{\"x\",\"y\"} 1", "line 1, column 6: two metric names"),
        ("{a=\"b\"} 1", "line 1, column 1: no metric name"),
        ("{\"\"} 1", "line 1, column 2: a label name or } is empty"),
        ("# TYPE up meter", "line 1, column 11: \"meter\" is not a metric type"),
        ("# TYPE up info", "line 1, column 11: \"info\" is not a metric type"),
        ("up 1 # {} 1", "line 1, column 6: expected the end of the line, found \"# {} 1\""),
        ("up 1\r\n", "line 1, column 4: expected a number, found \"1\\r\""),
        ("up 1 # {a=\"b\"\n# EOF", "line 1, column 14: expected , or }, the line ends"),
        ("# EOF\nup 1\n# EOF", "line 2, column 1: there is something after # EOF"),
    ];
    for (text, want) in cases {
        assert_eq!(parse(text).unwrap_err().to_string(), want, "{text:?}");
    }
}

/// Notes down what it is given.
#[derive(Default)]
struct Notes(Vec<String>);

impl Sink for Notes {
    fn series(&mut self, labels: &[(&str, &str)]) -> SeriesRef {
        self.0.push(format!("{labels:?}"));
        SeriesRef(self.0.len() as u32 - 1)
    }
    fn float(&mut self, series: SeriesRef, ts_ms: i64, value: f64, _start: i64) {
        write!(self.0[series.0 as usize], " {ts_ms} {value}").unwrap();
    }
    fn histogram(&mut self, _: SeriesRef, _: i64, _: Arc<Histogram>, _: i64) {
        unreachable!("text has no native histograms");
    }
    fn exemplar(
        &mut self,
        series: SeriesRef,
        ts_ms: i64,
        value: f64,
        labels: &[(&str, &str)],
    ) -> Result<Accepted, Refused> {
        write!(self.0[series.0 as usize], " # {labels:?} {value} {ts_ms}").unwrap();
        Ok(Accepted::New)
    }
    fn metadata(&mut self, metric: &str, m: Metadata) {
        self.0.push(format!("{metric}: {} {:?} {:?}", m.kind, m.help, m.unit));
    }
}

#[test]
fn exposition_is_appended_under_its_target() {
    let text = "# TYPE a counter\na{job=\"own\",z=\"1\",empty=\"\"} 1\na 2 5000\na 3 -5000\n";
    let mut notes = Notes::default();
    let target = [("job", "hearth"), ("instance", "127.0.0.1:9494")];
    let outcome = append(&parse(text).unwrap(), &target, &Limits::default(), 10_000, &mut notes);
    assert_eq!(
        notes.0,
        [
            r#"a: counter "" """#,
            r#"[("__name__", "a"), ("exported_job", "own"), ("instance", "127.0.0.1:9494"), ("job", "hearth"), ("z", "1")] 10000 1"#,
            r#"[("__name__", "a"), ("instance", "127.0.0.1:9494"), ("job", "hearth")] 5000 2"#,
        ]
    );
    assert_eq!((outcome.series, outcome.samples, outcome.metadata), (2, 2, 1));
    assert!(outcome.rejected.told()[0].contains("before 1970"), "{:?}", outcome.rejected);
}

#[test]
fn exemplars_of_a_text_go_with_their_series_and_have_its_time_where_they_name_none() {
    let text = "# TYPE h histogram\nh_bucket{le=\"1.0\"} 1 # {trace_id=\"a\"} 0.5\nh_bucket{le=\"+Inf\"} 2 # {trace_id=\"b\",b=\"\"} 3 7.5\n\
                h_count 2\n# EOF";
    let mut notes = Notes::default();
    let outcome = append(&parse(text).unwrap(), &[], &Limits::default(), 10_000, &mut notes);
    assert_eq!(
        notes.0[1..],
        [
            r#"[("__name__", "h_bucket"), ("le", "1.0")] 10000 1 # [("trace_id", "a")] 0.5 10000"#,
            r#"[("__name__", "h_bucket"), ("le", "+Inf")] 10000 2 # [("trace_id", "b")] 3 7500"#,
            r#"[("__name__", "h_count")] 10000 2"#,
        ]
    );
    assert_eq!((outcome.samples, outcome.exemplars, outcome.exemplars_dropped), (3, 2, 0));
}

#[test]
fn own_encoder_is_read() {
    let mut registry = prometheus_client::registry::Registry::default();
    let metrics = ingest::metrics::Metrics::register(&mut registry);
    let gauge = prometheus_client::metrics::gauge::Gauge::<f64, std::sync::atomic::AtomicU64>::default();
    gauge.set(-0.25);
    registry.register_with_unit(
        "temperature",
        "Of the \"room\" now",
        prometheus_client::registry::Unit::Other("kelvin".into()),
        gauge,
    );
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    drop(metrics);
    let e = parse(&text).unwrap();
    assert!(lines(&e).contains(&"temperature_kelvin{} -0.25".to_string()), "{text}");
    let buckets =
        lines(&e).iter().filter(|l| l.starts_with("hearth_ingest_request_duration_seconds_bucket")).count();
    assert_eq!(buckets, 17);
    let family = e.families.iter().find(|f| f.name == "temperature_kelvin").unwrap();
    assert_eq!((family.kind, family.unit), ("gauge", "kelvin"));
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

proptest! {
    #[test]
    fn generated_texts_come_back(
        samples in proptest::collection::vec(
            ("[a-z_:][a-z0-9_:]{0,8}", proptest::collection::btree_map("[a-z_]{1,5}", ".{0,9}|[\\\\\"\n]{0,4}", 0..5), any::<f64>(), proptest::option::of(any::<i64>())),
            0..20,
        ),
    ) {
        let mut text = String::new();
        for (name, labels, value, ts) in &samples {
            let labels: Vec<_> = labels.iter().map(|(n, v)| format!("{n}=\"{}\"", escaped(v))).collect();
            write!(text, "{name}{{{}}} {value:?}", labels.join(", ")).unwrap();
            writeln!(text, "{}", ts.map_or(String::new(), |t| format!(" {t}"))).unwrap();
        }
        let e = parse_as(&text, Format::Prometheus).unwrap();
        prop_assert_eq!(e.samples.len(), samples.len());
        for (got, (name, labels, value, ts)) in e.samples.iter().zip(&samples) {
            prop_assert_eq!(&*got.name, name);
            prop_assert_eq!(got.ts_ms, *ts);
            prop_assert!(got.value.to_bits() == value.to_bits() || (got.value.is_nan() && value.is_nan()));
            let got: Vec<_> = e.labels(got).iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
            let want: Vec<_> = labels.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn exposition_text_is_read_or_refused_whatever_it_is(text in "([a-z{}\"=,#\\\\ \\n0-9.+-]|HELP|TYPE|EOF|é){0,80}") {
        for format in [Format::Prometheus, Format::OpenMetrics] {
            if let Err(e) = parse_as(&text, format) {
                let line = text.split('\n').nth(e.line - 1).expect("a line of the text");
                prop_assert!(e.column <= line.len() + 1);
            }
        }
    }
}
