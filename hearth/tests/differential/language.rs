//! Random expressions of all of the language of Prometheus 3.14 with every feature flag on, and random
//! nonsense of the same words.
//!
//! Unlike [`super::generate`] this asks a server of the same language, so that nothing has to be written in
//! two ways; both compute in the same order, so that values may be compared and rounded as one likes.

use super::generate::{Grade, Question};
use super::load::{SPAN_MS, START_MS};
use super::native::{CUSTOM, FLOATS, HISTOGRAMS};
use crate::test_services::Rng;

/// Functions and aggregations that 2.42 did not have or that behave otherwise since; a run must have used
/// each with an answer.
pub const NEWER: &[&str] = &[
    "double_exponential_smoothing",
    "end",
    "first_over_time",
    "histogram_avg",
    "histogram_count",
    "histogram_fraction",
    "histogram_quantile",
    "histogram_quantiles",
    "histogram_stddev",
    "histogram_stdvar",
    "histogram_sum",
    "info",
    "limit_ratio",
    "limitk",
    "mad_over_time",
    "max_of",
    "min_of",
    "range",
    "sort_by_label",
    "sort_by_label_desc",
    "start",
    "step",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
];

/// Question number `index` of a run, the same whatever the others are.
pub fn question(seed: u64, index: u64) -> Question {
    let mut rng = Rng(seed ^ 0x1a96);
    let rng = Rng(rng.roll() ^ index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut maker = Maker { rng, subqueries: 2 };
    let steps = maker.chance(50).then(|| {
        let step = maker.of(&[7_000, 15_000, 30_000, 60_000, 97_000, 180_000]);
        (1 + maker.rng.below(14) as i64, step)
    });
    let room = SPAN_MS + 6 * 60_000 - steps.map_or(0, |(n, step)| n * step).min(SPAN_MS);
    // Half of the questions are asked exactly where samples lie.
    let at_ms = START_MS + maker.rng.below(room as u64 / 15_000) as i64 * 15_000;
    let at_ms = if maker.chance(50) { at_ms } else { at_ms + maker.rng.below(15_000) as i64 };
    let depth = 1 + maker.rng.below(4) as u32;
    let text = match maker.rng.below(20) {
        0 => maker.scalar(depth),
        1 if steps.is_none() => maker.window(depth),
        2 if steps.is_none() => maker.sorted(depth),
        3 | 4 => {
            let text = maker.vector(depth);
            maker.nonsense(&text)
        }
        _ => maker.vector(depth),
    };
    Question { text, grade: Grade::Close, at_ms, steps }
}

struct Maker {
    rng: Rng,
    /// Subqueries in subqueries multiply the work.
    subqueries: u32,
}

impl Maker {
    fn chance(&mut self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.rng.below(choices.len() as u64) as usize]
    }

    // --- selectors ---

    fn selector(&mut self) -> String {
        let name = match self.rng.below(10) {
            0..=3 => self.of(FLOATS),
            4..=6 => self.of(HISTOGRAMS),
            7 => self.of(CUSTOM),
            8 => self.of(&["target_info", "build_info", "sent_bytes_total", "latency_bucket", "odd", "up"]),
            _ => {
                let regex =
                    self.of(&["ticks.*|level", "native.*", ".*gauge|custom", "mixed|level", ".+_info"]);
                return format!("{{__name__=~\"{regex}\",job=\"x\"}}");
            }
        };
        let mut matchers = Vec::new();
        if name.starts_with('"') {
            matchers.push(name);
            if self.chance(30) {
                matchers.push("\"hôte.nom\"=\"é\"");
            }
        }
        if self.chance(40) {
            matchers.push(self.of(&[
                "instance=\"a\"",
                "job=\"y\"",
                "job=~\"x|z\"",
                "env!=\"\"",
                "instance!~\"[ab]\"",
                "shard=\"0\"",
                "env=~\"(?i:PROD)|\"",
                "le!=\"+Inf\"",
                "nothing=\"\"",
            ]));
        }
        let inside = matchers.join(", ");
        match (name.starts_with('"'), matchers.is_empty()) {
            (true, _) => format!("{{{inside}}}"),
            (false, true) => name.to_owned(),
            (false, false) => format!("{name}{{{inside}}}"),
        }
    }

    /// `offset` and `@`, in either order.
    fn placement(&mut self) -> String {
        let offset = match self.rng.below(40) {
            0 | 1 => {
                self.of(&[" offset 30s", " offset 1m", " offset 7m", " offset -45s", " offset 0s"]).to_owned()
            }
            2 => format!(" offset {}", self.duration_expr()),
            3 => " offset -(15s * 2)".to_owned(),
            _ => String::new(),
        };
        let second = START_MS / 1000 + self.rng.below(2400) as i64 / 15 * 15;
        let at = match self.rng.below(40) {
            0 => " @ start()".to_owned(),
            1 => " @ end()".to_owned(),
            2 => format!(" @ {second}.5"),
            3 => format!(" @ {second}"),
            _ => String::new(),
        };
        if self.chance(50) { format!("{offset}{at}") } else { format!("{at}{offset}") }
    }

    fn duration_expr(&mut self) -> String {
        match self.rng.below(8) {
            0 => "(step() + 1m)".to_owned(),
            1 => "(30s * 2 ^ 1)".to_owned(),
            2 => format!("max_of(step(), {})", self.of(&["1m", "45", "2m30s"])),
            3 => format!("min_of(range() + 1s, {})", self.of(&["2m", "90s"])),
            4 => "(2m - 30)".to_owned(),
            5 => "((1m + 30s) / 3 * 2)".to_owned(),
            6 => "(100 % 70)".to_owned(),
            _ => "(-1m + 3m)".to_owned(),
        }
    }

    fn window(&mut self, depth: u32) -> String {
        if depth > 0 && self.subqueries > 0 && self.chance(22) {
            self.subqueries -= 1;
            let inner = self.vector(depth - 1);
            let steps = self.of(&["2m:15s", "3m:30s", "5m:1m", "4m:37s", "6m:", "(1m+1m):(10s*3)"]);
            return format!("({inner})[{steps}]{}", self.placement());
        }
        let range = if self.chance(8) {
            self.duration_expr()
        } else {
            self.of(&["15s", "30s", "1m", "2m", "3m", "5m", "90s", "12m", "150"]).to_owned()
        };
        let edges = self.of(&["", "", "", "", "", "", " anchored", " smoothed"]);
        format!("{}[{range}]{edges}{}", self.selector(), self.placement())
    }

    fn placed_selector(&mut self) -> String {
        let edges = self.of(&["", "", "", "", "", "", "", "", " smoothed"]);
        format!("{}{edges}{}", self.selector(), self.placement())
    }

    // --- vectors ---

    fn vector(&mut self, depth: u32) -> String {
        let Some(d) = depth.checked_sub(1) else { return self.placed_selector() };
        match self.rng.below(26) {
            0 | 1 => self.placed_selector(),
            2..=6 => self.over_time(d),
            7..=10 => self.aggregation(d),
            11 | 12 => self.histogram(d),
            13 => self.elementwise(d),
            14 => self.labels(d),
            15 | 16 => {
                let op = self.scalar_operator();
                let (v, s) = (self.vector(d), self.scalar(d));
                if self.chance(60) { format!("({v} {op} {s})") } else { format!("({s} {op} {v})") }
            }
            17..=19 => self.matched(d),
            20 => {
                let op = self.of(&["and", "or", "unless"]);
                let on = self.of(&["", "", " on (instance)", " on (job)", " ignoring (env)", " on ()"]);
                format!("({} {op}{on} {})", self.vector(d), self.vector(d))
            }
            21 | 22 => {
                let more = self.of(&[
                    "",
                    "",
                    ", {version=~\".+\"}",
                    ", {region=\"us\"}",
                    ", {__name__=\"build_info\"}",
                    ", {__name__=~\".+_info\"}",
                    ", {version=~\".*\", region!=\"eu\"}",
                ]);
                format!("info({}{more})", self.vector(d))
            }
            23 => format!("timestamp({})", self.vector(d)),
            24 => format!("-{}", self.vector(d)),
            _ => match self.rng.below(5) {
                0 => format!("absent({})", self.vector(d)),
                1 => format!("absent_over_time({})", self.window(d)),
                2 => format!("vector({})", self.scalar(d)),
                3 => format!("({} {} {})", self.vector(d), self.of(&["</", ">/"]), self.scalar(0)),
                _ => format!("({})", self.vector(d)),
            },
        }
    }

    fn over_time(&mut self, depth: u32) -> String {
        match self.rng.below(14) {
            0 => {
                let (q, w) = (self.scalar(0), self.window(depth));
                format!("quantile_over_time({q}, {w})")
            }
            1 => format!("predict_linear({}, {})", self.window(depth), self.of(&["60", "600", "-30"])),
            2 => {
                let (a, b) = (self.of(&["0.1", "0.5", "0.9"]), self.of(&["0.3", "0.7", "1.5"]));
                format!("double_exponential_smoothing({}, {a}, {b})", self.window(depth))
            }
            _ => {
                let f = self.of(&[
                    "rate",
                    "rate",
                    "rate",
                    "increase",
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
                    "ts_of_min_over_time",
                    "ts_of_first_over_time",
                    "ts_of_last_over_time",
                ]);
                format!("{f}({})", self.window(depth))
            }
        }
    }

    fn grouping(&mut self) -> &'static str {
        self.of(&[
            "",
            "",
            "",
            " by (job) ",
            " by (job) ",
            " by (instance, job) ",
            " by (le) ",
            " by (\"hôte.nom\") ",
            " by (nothing) ",
            " without (instance) ",
            " without (le, shard) ",
            " without () ",
            " by (__name__) ",
        ])
    }

    fn aggregation(&mut self, depth: u32) -> String {
        let by = self.grouping();
        match self.rng.below(14) {
            0 => format!("topk{by}({}, {})", self.of(&["1", "2", "3.7", "0", "-1"]), self.vector(depth)),
            1 => format!("bottomk{by}({}, {})", self.of(&["1", "2", "100"]), self.vector(depth)),
            2 => format!("limitk{by}({}, {})", self.of(&["1", "2", "3.7", "0"]), self.vector(depth)),
            3 => {
                format!("limit_ratio{by}({}, {})", self.of(&["0.3", "-0.7", "1", "1.2"]), self.vector(depth))
            }
            4 => {
                let (q, v) = (self.scalar(depth), self.vector(depth));
                format!("quantile{by}({q}, {v})")
            }
            5 => format!("count_values{by}(\"{}\", {})", self.of(&["n", "job", "ü"]), self.vector(depth)),
            _ => {
                let f = self.of(&[
                    "sum", "sum", "sum", "avg", "avg", "min", "max", "count", "group", "stddev", "stdvar",
                ]);
                format!("{f}{by}({})", self.vector(depth))
            }
        }
    }

    fn histogram(&mut self, depth: u32) -> String {
        let inner = match self.rng.below(5) {
            0 => self.vector(depth),
            1 => "sum by (job, le) (rate(lat_seconds_bucket[2m]))".to_owned(),
            2 => format!("rate({}[{}])", self.of(HISTOGRAMS), self.of(&["1m", "3m"])),
            3 => self.of(CUSTOM).to_owned(),
            _ => self.of(HISTOGRAMS).to_owned(),
        };
        match self.rng.below(8) {
            0 | 1 => format!("histogram_quantile({}, {inner})", self.scalar(0)),
            2 => format!("histogram_quantiles({inner}, \"q\", 0.1, {}, 1)", self.of(&["0.5", "0.9"])),
            3 => format!("histogram_fraction({}, {}, {inner})", self.scalar(0), self.scalar(0)),
            _ => {
                let f = self.of(&["count", "sum", "avg", "stddev", "stdvar"]);
                format!("histogram_{f}({inner})")
            }
        }
    }

    fn elementwise(&mut self, depth: u32) -> String {
        let v = self.vector(depth);
        match self.rng.below(5) {
            0 => format!("clamp({v}, {}, {})", self.scalar(0), self.scalar(0)),
            1 => format!("clamp_max({v}, {})", self.scalar(0)),
            2 => format!("round({v}, {})", self.of(&["1", "0.5", "10", "0"])),
            _ => {
                let f = self.of(&[
                    "abs", "ceil", "sgn", "sqrt", "exp", "ln", "sin", "deg", "minute", "year", "round",
                ]);
                format!("{f}({v})")
            }
        }
    }

    fn labels(&mut self, depth: u32) -> String {
        let v = self.vector(depth);
        match self.rng.below(6) {
            0 => format!("label_replace({v}, \"c\", \"$1-x\", \"instance\", \"(.*)\")"),
            1 => format!("label_replace({v}, \"__name__\", \"new_$1\", \"job\", \"(.)\")"),
            2 => format!("label_replace({v}, \"instance\", \"\", \"instance\", \".*\")"),
            3 => format!("label_join({v}, \"j\", \"-\", \"job\", \"instance\", \"nothing\")"),
            4 => format!("label_join({v}, \"__name__\", \"\", \"job\")"),
            _ => format!("label_replace({v}, \"é\", \"$a\", \"job\", \"(?P<a>.).*\")"),
        }
    }

    fn sorted(&mut self, depth: u32) -> String {
        let v = self.vector(depth);
        match self.rng.below(4) {
            0 => format!("sort({v})"),
            1 => format!("sort_desc({v})"),
            2 => format!("sort_by_label({v}, \"instance\", \"job\")"),
            _ => format!("sort_by_label_desc({v}, \"le\")"),
        }
    }

    fn scalar(&mut self, depth: u32) -> String {
        match self.rng.below(14) {
            0 if depth > 0 => format!("scalar({})", self.vector(depth - 1)),
            1 => "time()".to_owned(),
            2 => self.of(&["start()", "end()", "step()", "range()"]).to_owned(),
            3 if depth > 0 => {
                let op = self.of(&["+", "-", "*", "/", "%", "^", "atan2", "== bool", "> bool"]);
                format!("({} {op} {})", self.scalar(depth - 1), self.scalar(depth - 1))
            }
            4 if depth > 0 => {
                let f = self.of(&["max_of", "min_of"]);
                format!("{f}({}, {})", self.scalar(depth - 1), self.scalar(depth - 1))
            }
            _ => self
                .of(&["0", "1", "2", "0.5", "-1.5", "0.9", "100", "Inf", "NaN", "0x1f", "1_000", "5m"])
                .to_owned(),
        }
    }

    fn scalar_operator(&mut self) -> &'static str {
        self.of(&[
            "+", "-", "*", "/", "%", "^", "atan2", "==", "!=", ">", "<", ">=", "<=", "== bool", "> bool",
            "</", ">/",
        ])
    }

    fn matched(&mut self, depth: u32) -> String {
        let op = self.of(&["+", "-", "*", "/", "%", "^", "==", "!=", ">", "<=", "== bool", "< bool"]);
        let fill = self.of(&[
            "",
            "",
            "",
            "",
            " fill (0)",
            " fill_left (1)",
            " fill_right (-1)",
            " fill_left (0) fill_right (NaN)",
        ]);
        match self.rng.below(4) {
            0 => {
                let by = self.of(&["", " by (job) ", " by (instance, job) ", " by (instance) "]);
                let (f, g) = (self.of(&["sum", "max", "count", "avg"]), self.of(&["sum", "min", "group"]));
                let (a, b) = (self.vector(depth), self.vector(depth));
                let on = if fill.is_empty() { "" } else { " on (job)" };
                format!("({f}{by}({a}) {op}{on}{fill} {g}{by}({b}))")
            }
            1 => {
                let group = self.of(&[
                    " group_left",
                    " group_left (version)",
                    " group_left (env, nothing)",
                    " group_left (job)",
                ]);
                let one = self.of(&["target_info", "max by (instance, job) (level)", "build_info"]);
                format!("({} {op} on (instance, job){group}{fill} {one})", self.vector(depth))
            }
            2 => {
                let group = self.of(&[" group_right", " group_right (version)"]);
                let one = self.of(&["target_info", "max by (instance, job) (level)", "build_info"]);
                format!("({one} {op} on (instance, job){group}{fill} {})", self.vector(depth))
            }
            _ => {
                let on = self.of(&[
                    "",
                    "",
                    " on (instance, job)",
                    " ignoring (env)",
                    " ignoring (shard) group_left",
                    " on ()",
                ]);
                let fill = if on.is_empty() { "" } else { fill };
                format!("({} {op}{on}{fill} {})", self.vector(depth), self.vector(depth))
            }
        }
    }

    // --- nonsense ---

    /// The expression with one to three of its words lost, doubled, exchanged or replaced.
    fn nonsense(&mut self, text: &str) -> String {
        let mut words = words(text);
        for _ in 0..self.of(&[1, 1, 2, 3]) {
            let at = self.rng.below(words.len() as u64) as usize;
            let other = words[self.rng.below(words.len() as u64) as usize].clone();
            match self.rng.below(5) {
                0 if words.len() > 1 => drop(words.remove(at)),
                1 => words.insert(at, other),
                2 => words[at] = other,
                _ => {
                    words[at] = self
                        .of(&[
                            "(",
                            ")",
                            "[",
                            "]",
                            "{",
                            "}",
                            ",",
                            ":",
                            "=",
                            "=~",
                            "!",
                            "@",
                            "offset",
                            "by",
                            "bool",
                            "on",
                            "group_left",
                            "\"",
                            "'x'",
                            "`",
                            "\\",
                            "5m",
                            "0x",
                            "1e",
                            "1__0",
                            "NaN",
                            "-",
                            "fill",
                            "anchored",
                            "smoothed",
                            "rate",
                            "sum",
                            "info",
                            "[5m]",
                            "[5m:]",
                            "{}",
                            "#",
                            "é",
                            "$",
                            "topk",
                            "step()",
                            "start",
                            "level",
                            "\"\\xff\"",
                            "\"\\q\"",
                            "1d1y",
                            "9999999999y",
                            "0s",
                            "and",
                            "</",
                            "==",
                        ])
                        .to_owned();
                }
            }
        }
        words.concat()
    }
}

/// Words and numbers, strings, blanks, and single signs.
fn words(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut quoted = false;
    for c in text.chars() {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let glue = quoted || word(c) && out.last().is_some_and(|last| last.chars().all(word));
        match out.last_mut() {
            Some(last) if glue => last.push(c),
            _ => out.push(c.to_string()),
        }
        quoted ^= c == '"';
    }
    out
}
