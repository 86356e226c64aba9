//! Random series and random queries over them, from a seed: what the language allows, more or less evenly.

use model::source::testing::rng::Rng;

/// Points of every series, one each 30 s.
const POINTS: u64 = 40;

/// A `load` block: counters with resets, gauges with gaps and markers, classic buckets, native histograms of
/// several schemas.
pub fn series(r: &mut Rng) -> String {
    let mut out = String::from("load 30s\n");
    let mut line = |name: &str, labels: &str, points: Vec<String>| {
        out.push_str(&format!("  {name}{{{labels}}} {}\n", points.join(" ")));
    };
    for a in ["1", "2", "3"] {
        for b in ["x", "y"] {
            let labels = format!("a=\"{a}\", b=\"{b}\"");
            let mut total = 0u64;
            let counter = (0..POINTS).map(|_| {
                total = if r.chance(5) { 0 } else { total + r.below(30) };
                if r.chance(5) { "_".into() } else { total.to_string() }
            });
            let counter = counter.collect();
            line("c_total", &labels, counter);
            let gauge = (0..POINTS).map(|_| match r.below(20) {
                0 => "_".into(),
                1 => "stale".into(),
                2 => "NaN".into(),
                3 => "Inf".into(),
                _ => format!("{}", r.below(2000) as f64 / 16.0 - 60.0),
            });
            let gauge = gauge.collect();
            line("g", &labels, gauge);
            let mut counts = [0u64; 4];
            let schema = r.below(3) - 1;
            let hint = if b == "y" { " counter_reset_hint:gauge" } else { "" };
            let native = (0..POINTS).map(|_| {
                for c in &mut counts {
                    *c = if r.chance(4) { 0 } else { *c + r.below(5) };
                }
                let all: u64 = counts.iter().sum();
                if r.chance(5) {
                    return "_".into();
                }
                format!(
                    "{{{{schema:{schema} count:{all} sum:{} z_bucket:{} z_bucket_w:0.001 buckets:[{} {}] n_buckets:[{}]{hint}}}}}",
                    all * 2,
                    counts[0],
                    counts[1],
                    counts[2],
                    counts[3]
                )
            });
            let native = native.collect();
            line("native", &labels, native);
        }
        let bounds = if a == "3" { "1 2 8" } else { "1 4 8" };
        let mut counts = [0u64; 3];
        let custom = (0..POINTS).map(|_| {
            for c in &mut counts {
                *c += r.below(5);
            }
            let all: u64 = counts.iter().sum();
            format!(
                "{{{{schema:-53 count:{all} sum:{} custom_values:[{bounds}] buckets:[{} {} {}]}}}}",
                all * 3,
                counts[0],
                counts[1],
                counts[2]
            )
        });
        let custom = custom.collect();
        line("custom", &format!("a=\"{a}\", b=\"x\""), custom);
        for (i, le) in ["0.5", "1", "2.5", "+Inf"].into_iter().enumerate() {
            let mut total = 0;
            let bucket = (0..POINTS).map(|_| {
                total += 3 + i as u64;
                total.to_string()
            });
            let bucket = bucket.collect();
            line("lat_bucket", &format!("a=\"{a}\", b=\"x\", le=\"{le}\""), bucket);
        }
    }
    line("t_info", "a=\"1\", b=\"x\", job=\"j\", v=\"1\"", (0..POINTS).map(|_| "1".into()).collect());
    out
}

fn selector(r: &mut Rng) -> String {
    let name = r.pick(&["c_total", "c_total", "g", "g", "native", "native", "custom", "lat_bucket"]);
    let matchers = match r.below(6) {
        0 => "{a=\"1\"}",
        1 => "{b=~\"x|z\"}",
        2 => "{a!=\"2\", b=\"x\"}",
        3 => "{a!~\"[13]\"}",
        _ => "",
    };
    if r.chance(4) {
        return format!("{{__name__=~\"{}\", a=\"1\"}}", r.pick(&["g|c_total", "native|custom", ".+"]));
    }
    format!("{name}{matchers}")
}

fn placed(r: &mut Rng, mut text: String) -> String {
    if r.chance(10) {
        text.push_str(r.pick(&[" offset 1m", " offset -90s", " offset 7m"]));
    }
    if r.chance(6) {
        text.push_str(r.pick(&[" @ 300", " @ 912.5", " @ 0"]));
    }
    text
}

fn window(r: &mut Rng, depth: u32) -> String {
    if depth > 0 && r.chance(20) {
        let inner = vector(r, depth - 1);
        let steps = r.pick(&["[5m:1m]", "[3m:45s]", "[4m:]", "[2m:30s]"]);
        return placed(r, format!("({inner}){steps}"));
    }
    let text = format!("{}{}", selector(r), r.pick(&["[1m]", "[2m]", "[5m]", "[90s]", "[10m]"]));
    placed(r, text)
}

fn scalar(r: &mut Rng, depth: u32) -> String {
    match r.below(8) {
        0 if depth > 0 => format!("scalar({})", vector(r, depth - 1)),
        1 => "time()".into(),
        2 if depth > 0 => {
            format!(
                "({} {} {})",
                scalar(r, depth - 1),
                r.pick(&["+", "-", "*", "/", "%", "^"]),
                scalar(r, depth - 1)
            )
        }
        _ => r.pick(&["0", "1", "2", "0.5", "-1.5", "0.9", "100", "Inf", "NaN"]).into(),
    }
}

fn grouping(r: &mut Rng) -> String {
    match r.below(4) {
        0 => String::new(),
        1 => format!(" by ({}) ", r.pick(&["a", "b", "a, b", "le", "nothing"])),
        2 => format!(" without ({}) ", r.pick(&["a", "b", "le", "a, b"])),
        _ => " by (a) ".into(),
    }
}

/// An instant vector; `depth` bounds how deep it nests.
pub fn vector(r: &mut Rng, depth: u32) -> String {
    if depth == 0 {
        let s = selector(r);
        return placed(r, s);
    }
    let d = depth - 1;
    match r.below(17) {
        0 | 1 => {
            let s = selector(r);
            placed(r, s)
        }
        2 => {
            let f = r.pick(&[
                "abs",
                "ceil",
                "floor",
                "sgn",
                "sqrt",
                "exp",
                "ln",
                "sin",
                "deg",
                "minute",
                "day_of_year",
                "year",
            ]);
            format!("{f}({})", vector(r, d))
        }
        3 => match r.below(4) {
            0 => format!("clamp({}, {}, {})", vector(r, d), scalar(r, 0), scalar(r, 0)),
            1 => format!("clamp_min({}, {})", vector(r, d), scalar(r, 0)),
            2 => format!("round({}, {})", vector(r, d), r.pick(&["1", "0.5", "10"])),
            _ => format!("timestamp({})", vector(r, d)),
        },
        4..=7 => match r.below(12) {
            0 => format!("quantile_over_time({}, {})", scalar(r, 0), window(r, d)),
            1 => format!("predict_linear({}, {})", window(r, d), scalar(r, 0)),
            _ => {
                let f = r.pick(&[
                    "rate",
                    "rate",
                    "increase",
                    "delta",
                    "irate",
                    "idelta",
                    "resets",
                    "changes",
                    "deriv",
                    "sum_over_time",
                    "avg_over_time",
                    "min_over_time",
                    "max_over_time",
                    "count_over_time",
                    "last_over_time",
                    "first_over_time",
                    "stddev_over_time",
                    "stdvar_over_time",
                    "present_over_time",
                    "mad_over_time",
                    "ts_of_max_over_time",
                    "ts_of_last_over_time",
                ]);
                format!("{f}({})", window(r, d))
            }
        },
        8..=10 => {
            let by = grouping(r);
            match r.below(12) {
                0 => format!("topk{by}({}, {})", r.pick(&["1", "2", "3"]), vector(r, d)),
                1 => format!("bottomk{by}({}, {})", r.pick(&["1", "2"]), vector(r, d)),
                2 => format!("quantile{by}({}, {})", scalar(r, 0), vector(r, d)),
                3 => format!("count_values{by}(\"n\", {})", vector(r, d)),
                4 => format!("limit_ratio{by}({}, {})", r.pick(&["0.5", "-0.5", "1"]), vector(r, d)),
                _ => {
                    let op =
                        r.pick(&["sum", "sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"]);
                    format!("{op}{by}({})", vector(r, d))
                }
            }
        }
        11 | 12 => {
            let op = r.pick(&[
                "+", "-", "*", "/", "%", "^", "==", "!=", ">", "<", ">=", "<=", "== bool ", "> bool ",
            ]);
            if r.chance(50) {
                format!("({} {op} {})", vector(r, d), scalar(r, d))
            } else {
                format!("({} {op} {})", scalar(r, d), vector(r, d))
            }
        }
        13 => {
            let op = r.pick(&["+", "-", "*", "/", "==", ">", "< bool ", "and", "or", "unless"]);
            let on = if matches!(op, "and" | "or" | "unless") {
                r.pick(&["", " on (a) ", " ignoring (b) "])
            } else {
                r.pick(&[
                    "",
                    "",
                    " on (a, b) ",
                    " on (a) ",
                    " on (a) group_left ",
                    " ignoring (b) group_right (b) ",
                ])
            };
            format!("({} {op}{on} {})", vector(r, d), vector(r, d))
        }
        14 => match r.below(6) {
            0 => format!("histogram_quantile({}, {})", scalar(r, 0), vector(r, d)),
            1 => format!(
                "histogram_quantile({}, sum by (le, a) (rate(lat_bucket[{}])))",
                scalar(r, 0),
                r.pick(&["2m", "5m"])
            ),
            2 => format!("histogram_fraction({}, {}, {})", scalar(r, 0), scalar(r, 0), vector(r, d)),
            3 => format!(
                "histogram_quantile({}, {}(native[3m]))",
                r.pick(&["0.1", "0.5", "0.99"]),
                r.pick(&["rate", "delta"])
            ),
            _ => {
                let f = r.pick(&[
                    "histogram_count",
                    "histogram_sum",
                    "histogram_avg",
                    "histogram_stddev",
                    "histogram_stdvar",
                ]);
                format!("{f}({})", vector(r, d))
            }
        },
        15 => match r.below(4) {
            0 => format!("label_replace({}, \"c\", \"$1-{}\", \"a\", \"(.*)\")", vector(r, d), r.below(3)),
            1 => format!("label_join({}, \"a\", \"-\", \"a\", \"b\")", vector(r, d)),
            2 => format!("absent({})", vector(r, d)),
            _ => format!("-{}", vector(r, d)),
        },
        _ => format!("({} {} {})", selector(r), r.pick(&["</", ">/"]), scalar(r, 0)),
    }
}
