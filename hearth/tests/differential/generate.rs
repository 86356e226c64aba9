//! Random well-typed expressions, in the manner of promqlsmith: every operator, function, matcher and
//! modifier that Prometheus 2.42 knows.
//!
//! An expression carries how exactly two correct servers agree on it ([`Grade`]), because a comparison, a
//! `floor` or a `topk` turns a last bit that differs into another answer. What is sensitive to that is only
//! ever put over what is the same to the bit. Where the language itself has changed since, an expression is
//! written in both ways: a piece between `«` and `»` is for Prometheus 2.42 only, one between `‹` and `›` for
//! Hearth only.

use super::load::{METRICS, Metric, SPAN_MS, START_MS, Shape, TARGETS};
use crate::test_services::Rng;

/// How exactly two servers agree on a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Grade {
    /// To about 1e-15: a sum in another order, another library's logarithm.
    Close,
    /// To the bit, because IEEE 754 says so.
    Same,
    /// To the bit, and so is every sum of such values: multiples of 1/1024 far below 2^53.
    Dyadic,
}

use Grade::{Close, Dyadic, Same};

#[derive(Clone, Debug)]
pub struct Expr {
    pub text: String,
    pub grade: Grade,
}

/// What a query asks, with its times.
#[derive(Clone, Debug)]
pub struct Question {
    /// With the pieces for one server only still marked.
    pub text: String,
    pub grade: Grade,
    pub at_ms: i64,
    /// Of a range query: from `at_ms`, how many steps and how long.
    pub steps: Option<(i64, i64)>,
}

/// The expression as one of the two servers is asked.
pub fn side(text: &str, prometheus: bool) -> String {
    let (keep, drop) =
        if prometheus { (['«', '»'], ['‹', '›']) } else { (['‹', '›'], ['«', '»']) };
    let mut dropped = 0;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == drop[0] {
            dropped += 1;
        } else if c == drop[1] {
            dropped -= 1;
        } else if dropped == 0 && !keep.contains(&c) {
            out.push(c);
        }
    }
    out
}

/// Functions and aggregations of 2.42 that the queries of a run must have used with success.
pub const ALL: &[&str] = &[
    "abs",
    "absent",
    "absent_over_time",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "avg",
    "avg_over_time",
    "bottomk",
    "ceil",
    "changes",
    "clamp",
    "clamp_max",
    "clamp_min",
    "cos",
    "cosh",
    "count",
    "count_over_time",
    "count_values",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "deg",
    "delta",
    "deriv",
    "exp",
    "floor",
    "group",
    "histogram_quantile",
    "holt_winters",
    "hour",
    "idelta",
    "increase",
    "irate",
    "label_join",
    "label_replace",
    "last_over_time",
    "ln",
    "log10",
    "log2",
    "max",
    "max_over_time",
    "min",
    "min_over_time",
    "minute",
    "month",
    "pi",
    "predict_linear",
    "present_over_time",
    "quantile",
    "quantile_over_time",
    "rad",
    "rate",
    "resets",
    "round",
    "scalar",
    "sgn",
    "sin",
    "sinh",
    "sort",
    "sort_desc",
    "sqrt",
    "stddev",
    "stddev_over_time",
    "stdvar",
    "stdvar_over_time",
    "sum",
    "sum_over_time",
    "tan",
    "tanh",
    "time",
    "timestamp",
    "topk",
    "vector",
    "year",
];

pub struct Maker {
    rng: Rng,
    /// Subqueries in subqueries multiply the work.
    subqueries: u32,
}

/// Question number `index` of a run, the same whatever the others are.
pub fn question(seed: u64, index: u64) -> Question {
    let mut rng = Rng(seed);
    let mut rng = Rng(rng.roll() ^ index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let depth = 1 + rng.below(4) as u32;
    let steps = (rng.below(2) == 0).then(|| {
        (4 + rng.below(12) as i64, [13_000, 30_000, 60_000, 97_000, 180_000][rng.below(5) as usize])
    });
    let span = SPAN_MS + 6 * 60_000 - steps.map_or(0, |(n, step)| n * step).min(SPAN_MS);
    let at_ms = START_MS + rng.below(span as u64 / 1000) as i64 * 1000 + 50;
    let mut maker = Maker { rng, subqueries: 2 };
    let expr = maker.root(depth, steps.is_none());
    Question { text: expr.text, grade: expr.grade, at_ms, steps }
}

fn expr(text: impl Into<String>, grade: Grade) -> Expr {
    Expr { text: text.into(), grade }
}

impl Maker {
    fn chance(&mut self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.rng.below(choices.len() as u64) as usize]
    }

    fn root(&mut self, depth: u32, instant: bool) -> Expr {
        match self.rng.below(30) {
            0 => self.scalar(depth),
            1 if instant => self.window(Close, depth, &|_| true),
            2 if instant => expr("\"a string with \\\"quotes\\\" and \\u00e9\"", Dyadic),
            _ => self.vector(depth, Close),
        }
    }

    /// An instant vector on which two servers agree at least as exactly as `need` says.
    fn vector(&mut self, depth: u32, need: Grade) -> Expr {
        for _ in 0..8 {
            let made = self.any_vector(depth);
            if made.grade >= need {
                return made;
            }
        }
        self.placed_selector(&|_| true)
    }

    fn any_vector(&mut self, depth: u32) -> Expr {
        let Some(depth) = depth.checked_sub(1) else { return self.placed_selector(&|_| true) };
        match self.rng.below(24) {
            0..=2 => self.placed_selector(&|_| true),
            3..=7 => self.range_function(depth),
            8..=11 => self.aggregation(depth),
            12..=14 => self.value_function(depth),
            15 => self.label_function(depth),
            16 | 17 => self.with_scalar(depth),
            18 | 19 => self.matched(depth),
            20 => self.set_operation(depth),
            21 => self.histogram_quantile(depth),
            22 => self.time_function(depth),
            _ => self.odd_function(depth),
        }
    }

    // --- selectors ---

    fn metric(&mut self, fits: &dyn Fn(Shape) -> bool) -> &'static Metric {
        loop {
            let metric = self.of(&METRICS.iter().collect::<Vec<_>>());
            if fits(metric.shape) {
                return metric;
            }
        }
    }

    /// A selector without modifiers.
    fn selector(&mut self, fits: &dyn Fn(Shape) -> bool) -> String {
        let metric = self.metric(fits);
        let mut matchers = Vec::new();
        let count = self.of(&[0, 0, 1, 1, 1, 2, 3]);
        for _ in 0..count {
            matchers.push(self.matcher(metric));
        }
        if self.chance(6) {
            let name = metric.name;
            let prefix = &name[..name.len().min(4)];
            // Other shapes than asked for must not slip in, so a pattern that may find several names is for
            // anything only.
            let several = METRICS.iter().all(|m| fits(m.shape));
            let patterns = [
                format!("=\"{name}\""),
                format!("=~\"{name}\""),
                format!("=~\"{prefix}.*\""),
                format!("=~\"up|{name}\""),
            ];
            let pattern = &patterns[self.rng.below(if several { 4 } else { 2 }) as usize];
            matchers.insert(0, format!("__name__{pattern}"));
            return format!("{{{}}}", matchers.join(","));
        }
        if matchers.is_empty() {
            metric.name.to_owned()
        } else {
            format!("{}{{{}}}", metric.name, matchers.join(", "))
        }
    }

    fn matcher(&mut self, metric: &Metric) -> String {
        let mut labels: Vec<(&str, Vec<&str>)> =
            metric.labels.iter().map(|(k, v)| (*k, v.to_vec())).collect();
        if metric.of_targets {
            for name in ["job", "instance", "env"] {
                let values =
                    TARGETS.iter().flat_map(|t| t.iter()).filter(|(k, _)| *k == name).map(|(_, v)| *v);
                labels.push((name, values.collect()));
            }
        }
        if self.chance(5) {
            return self
                .of(&["nothing=\"\"", "nothing!=\"\"", "nothing=~\".*\"", "nothing!~\".+\"", "nothing=\"x\""])
                .to_owned();
        }
        let (name, values) = labels[self.rng.below(labels.len() as u64) as usize].clone();
        let (a, b) = (self.of(&values), self.of(&values));
        let quoted = |s: &str| s.replace('.', "\\\\.").replace('+', "\\\\+");
        match self.rng.below(12) {
            0..=3 => format!("{name}=\"{a}\""),
            4 | 5 => format!("{name}!=\"{a}\""),
            6 | 7 => format!("{name}=~\"{}|{}\"", quoted(a), quoted(b)),
            8 => format!("{name}!~\"{}|nope\"", quoted(a)),
            9 => format!("{name}=~\"{}.+\"", quoted(&a[..a.len().min(2)])),
            10 => format!(
                "{name}=~\"{}\"",
                self.of(&[".*", ".+", "", "[a-h0-9]+.*", "(?i:GET|HOST-1.*)", ".*1.*|.*e.*"])
            ),
            _ => format!("{name}!~\"{}\"", self.of(&["", "nope", "[^a]*[24].*", "e.*|p.*"])),
        }
    }

    /// `offset` and `@`, in either order. All whole seconds or at the phase of the evaluation times.
    fn placement(&mut self) -> String {
        let offset = if self.chance(12) {
            self.of(&[" offset 30s", " offset 1m", " offset 7m", " offset -45s", " offset -2m", " offset 1h"])
        } else {
            ""
        };
        let at = if self.chance(8) {
            let second = START_MS / 1000 + self.rng.below(2400) as i64;
            match self.rng.below(4) {
                0 => " @ start()".to_owned(),
                1 => " @ end()".to_owned(),
                2 => format!(" @ {second}.05"),
                _ => format!(" @ {second}"),
            }
        } else {
            String::new()
        };
        if self.chance(50) { format!("{offset}{at}") } else { format!("{at}{offset}") }
    }

    fn placed_selector(&mut self, fits: &dyn Fn(Shape) -> bool) -> Expr {
        expr(self.selector(fits) + &self.placement(), Dyadic)
    }

    /// A range vector. The range of a subquery ends half a second off, so that none of its steps lies on its
    /// end.
    fn window(&mut self, need: Grade, depth: u32, fits: &dyn Fn(Shape) -> bool) -> Expr {
        if depth > 0 && self.subqueries > 0 && self.chance(25) {
            self.subqueries -= 1;
            let every = METRICS.iter().all(|m| fits(m.shape));
            let inner = if every { self.vector(depth - 1, need) } else { expr(self.selector(fits), Dyadic) };
            let steps = self.of(&["2m500ms:15s", "3m500ms:30s", "5m500ms:1m", "4m500ms:37s", "6m500ms:"]);
            return expr(format!("({})[{steps}]{}", inner.text, self.placement()), inner.grade);
        }
        let range = self.of(&["30s", "1m", "2m", "3m", "5m", "7m", "90s", "12m"]);
        expr(format!("{}[{range}]{}", self.selector(fits), self.placement()), Dyadic)
    }

    // --- functions ---

    fn range_function(&mut self, depth: u32) -> Expr {
        let any = &|_| true;
        let (name, need, grade) = self.of(&[
            ("rate", Close, Close),
            ("rate", Close, Close),
            ("increase", Close, Close),
            ("irate", Same, Same),
            ("delta", Same, Close),
            ("idelta", Same, Same),
            ("deriv", Same, Close),
            ("changes", Same, Dyadic),
            ("resets", Same, Dyadic),
            ("avg_over_time", Close, Close),
            ("sum_over_time", Close, Close),
            ("min_over_time", Close, Dyadic),
            ("max_over_time", Close, Dyadic),
            ("count_over_time", Close, Dyadic),
            ("last_over_time", Close, Dyadic),
            ("present_over_time", Close, Dyadic),
            ("stddev_over_time", Dyadic, Close),
            ("stdvar_over_time", Dyadic, Close),
            ("quantile_over_time", Close, Close),
            ("predict_linear", Same, Close),
            ("holt_winters", Same, Close),
            ("absent_over_time", Close, Dyadic),
        ]);
        match name {
            // Where a counter that is near zero begins in the window or after a gap, 2.42 and 3.x extrapolate
            // differently: the former let its zero point decide first whether the window's start is near, the
            // latter decides that first and clamps then. So these are for counters that begin high and have
            // no gaps; their resets do go to zero.
            "rate" | "increase" => {
                let window = self.window(need, depth, &|shape| {
                    matches!(shape, Shape::Counter | Shape::Bucket | Shape::Constant)
                });
                expr(format!("{name}({})", window.text), grade)
            }
            "quantile_over_time" => {
                let (q, window) = (self.parameter(depth), self.window(need, depth, any));
                expr(format!("{name}({}, {})", q.text, window.text), grade)
            }
            "predict_linear" => {
                let (window, ahead) =
                    (self.window(need, depth, any), self.of(&["60", "600", "-30", "3600.5"]));
                expr(format!("{name}({}, {ahead})", window.text), grade)
            }
            "holt_winters" => {
                let (window, a, b) = (
                    self.window(need, depth, any),
                    self.of(&["0.1", "0.5", "0.9"]),
                    self.of(&["0.3", "0.7", "1.5"]),
                );
                expr(
                    format!("«holt_winters»‹double_exponential_smoothing›({}, {a}, {b})", window.text),
                    grade,
                )
            }
            _ => {
                let window = self.window(need, depth, any);
                let kept = matches!(name, "min_over_time" | "max_over_time" | "last_over_time");
                let grade = if kept || (name == "sum_over_time" && window.grade == Dyadic) {
                    window.grade
                } else {
                    grade
                };
                expr(format!("{name}({})", window.text), grade)
            }
        }
    }

    fn grouping(&mut self) -> String {
        let labels = [
            "job", "instance", "env", "zone", "path", "le", "code", "sensor", "nothing", "class", "__name__",
        ];
        let count = self.of(&[0, 1, 1, 1, 2, 3]);
        let list: Vec<_> = (0..count).map(|_| self.of(&labels)).collect();
        match self.rng.below(10) {
            0..=2 => String::new(),
            3..=6 => format!(" by ({}) ", list.join(", ")),
            _ => format!(" without ({}) ", list.join(", ")),
        }
    }

    fn aggregation(&mut self, depth: u32) -> Expr {
        let by = self.grouping();
        match self.rng.below(16) {
            0 | 1 => {
                // Ties would be broken by an order that nobody promises.
                let inner = self.distinct();
                let name = self.of(&["topk", "bottomk"]);
                let k = self.of(&["1", "2", "3", "2.7", "0", "100", "-1"]);
                expr(format!("{name}{by}({k}, {})", inner.text), inner.grade)
            }
            2 | 3 => {
                let (q, inner) = (self.parameter(depth), self.vector(depth, Close));
                expr(format!("quantile{by}({}, {})", q.text, inner.text), Close)
            }
            4 => {
                let inner = self.vector(depth, Same);
                // 2.42 forgot to sort the label of the value into those that `by` lists, so there it must
                // come last.
                let label = if by.starts_with(" by") { "zz" } else { self.of(&["value", "job", "le"]) };
                expr(format!("count_values{by}(\"{label}\", {})", inner.text), Dyadic)
            }
            5 | 6 => {
                // Of a group of a single NaN or infinity the deviation is 0 in 2.42 and NaN since 3.0.
                let (name, inner) = (self.of(&["stddev", "stdvar"]), self.vector(depth, Dyadic).text);
                let by = by.replace("__name__", "job");
                expr(format!("(«0 * sum{by}({inner}) + »{name}{by}({inner}))"), Close)
            }
            _ => {
                let name = self.of(&["sum", "sum", "sum", "avg", "avg", "min", "max", "count", "group"]);
                let inner = self.vector(depth, Close);
                let grade = match name {
                    "sum" if inner.grade == Dyadic => Dyadic,
                    "min" | "max" => inner.grade,
                    "count" | "group" => Dyadic,
                    _ => Close,
                };
                // Both places of the grouping clause are allowed.
                if self.chance(30) {
                    expr(format!("{name}({}){by}", inner.text), grade)
                } else {
                    expr(format!("{name}{by}({})", inner.text), grade)
                }
            }
        }
    }

    /// A vector without two equal values.
    fn distinct(&mut self) -> Expr {
        let selector = self.placed_selector(&|shape| shape == Shape::Distinct);
        match self.rng.below(4) {
            0 => expr(format!("(2.5 * {})", selector.text), Same),
            1 => expr(
                format!("last_over_time({}[2m])", self.selector(&|shape| shape == Shape::Distinct)),
                Dyadic,
            ),
            2 => expr(
                format!("avg_over_time({}[4m])", self.selector(&|shape| shape == Shape::Distinct)),
                Close,
            ),
            _ => selector,
        }
    }

    fn value_function(&mut self, depth: u32) -> Expr {
        let exact = [
            "abs",
            "ceil",
            "floor",
            "sgn",
            "round",
            "clamp",
            "clamp_min",
            "clamp_max",
            "sort",
            "sort_desc",
            "-",
            "+",
            "sqrt",
            "timestamp",
        ];
        let smooth =
            ["exp", "ln", "log2", "log10", "atan", "asinh", "tanh", "deg", "rad", "sinh", "cosh", "acosh"];
        let sensitive = ["sin", "cos", "tan", "asin", "acos", "atanh"];
        if self.chance(50) {
            let name = self.of(&exact);
            let inner = self
                .vector(depth, if matches!(name, "ceil" | "floor" | "sgn" | "round") { Same } else { Close });
            let text = match name {
                "round" if self.chance(50) => {
                    format!("round({}, {})", inner.text, self.of(&["1", "0.5", "10", "0.1", "-3", "0"]))
                }
                "clamp" => format!("clamp({}, {}, {})", inner.text, self.number(), self.number()),
                "clamp_min" | "clamp_max" => format!("{name}({}, {})", inner.text, self.number()),
                "-" | "+" => format!("({name}{})", inner.text),
                _ => format!("{name}({})", inner.text),
            };
            let kept = matches!(name, "abs" | "sort" | "sort_desc" | "-" | "+");
            let grade = match name {
                "ceil" | "floor" | "sgn" | "timestamp" if inner.grade >= Same => Dyadic,
                _ if kept => inner.grade,
                _ => inner.grade.min(Same),
            };
            // The time of an inner sample is a multiple of a millisecond, not of 1/1024 s.
            return expr(text, if name == "timestamp" { Same } else { grade });
        }
        let (name, need) =
            if self.chance(70) { (self.of(&smooth), Close) } else { (self.of(&sensitive), Same) };
        expr(format!("{name}({})", self.vector(depth, need).text), Close)
    }

    fn label_function(&mut self, depth: u32) -> Expr {
        let inner = self.vector(depth, Close);
        let text = if self.chance(30) {
            let (to, sources) = (
                self.of(&["joined", "job", "instance"]),
                self.of(&["\"job\", \"instance\"", "\"zone\"", "\"nothing\"", "\"le\", \"path\", \"code\""]),
            );
            format!("label_join({}, \"{to}\", \"{}\", {sources})", inner.text, self.of(&["-", "", "é"]))
        } else {
            let (to, with, from, pattern) = self.of(&[
                ("host", "$1", "instance", "(.*):.*"),
                ("port", "p${port}", "instance", ".*:(?P<port>[0-9]+)"),
                ("instance", "", "instance", ".*"),
                ("job", "$1$1-$2", "job", "(.)(.*)"),
                ("env", "none", "env", ""),
                ("to", "$0", "zone", "eu-.|us"),
                ("to", "x$9y$$", "job", "(.*)"),
                ("__name__", "renamed", "job", ".*"),
                ("to", "$1", "job", "(unclosed"),
            ]);
            format!("label_replace({}, \"{to}\", \"{with}\", \"{from}\", \"{pattern}\")", inner.text)
        };
        expr(text, inner.grade)
    }

    fn time_function(&mut self, depth: u32) -> Expr {
        let name = self.of(&[
            "minute",
            "hour",
            "day_of_week",
            "day_of_month",
            "day_of_year",
            "days_in_month",
            "month",
            "year",
        ]);
        let inner = match self.rng.below(4) {
            0 => String::new(),
            1 => format!("timestamp({})", self.placed_selector(&|_| true).text),
            2 => {
                format!("vector(time() {} {})", self.of(&["+", "-"]), self.of(&["86400", "1e7", "3e9", "5"]))
            }
            // Numbers beyond 64 bits have no date, and nobody says which one they get.
            _ => format!("{} > -1e10 < 1e11 * {}", self.vector(depth, Same).text, self.of(&["1", "1000"])),
        };
        expr(format!("{name}({inner})"), Dyadic)
    }

    fn odd_function(&mut self, depth: u32) -> Expr {
        match self.rng.below(5) {
            0 => expr(format!("absent({})", self.vector(depth, Close).text), Dyadic),
            1 => expr(format!("absent({})", self.selector(&|_| true).replace("host-", "no-")), Dyadic),
            2 => expr(
                format!("absent_over_time({}[1m])", self.selector(&|_| true).replace("zone", "job")),
                Dyadic,
            ),
            3 => {
                let inner = self.scalar(depth);
                expr(format!("vector({})", inner.text), inner.grade)
            }
            _ => expr(format!("timestamp({})", self.placed_selector(&|_| true).text), Same),
        }
    }

    fn histogram_quantile(&mut self, depth: u32) -> Expr {
        let buckets = |shape| shape == Shape::Bucket;
        let by = self.of(&[
            "",
            " by (le) ",
            " by (le, job) ",
            " without (path) ",
            " by (le, path, env) ",
            " by (job) ",
        ]);
        let (inner, grade) = match self.rng.below(8) {
            0 => (self.placed_selector(&buckets).text, Dyadic),
            1 => (format!("sum{by}({})", self.placed_selector(&buckets).text), Dyadic),
            2 => (self.placed_selector(&|shape| shape == Shape::Broken).text, Dyadic),
            3 | 4 => (
                format!("{}({})", self.of(&["rate", "increase"]), self.window(Close, depth, &buckets).text),
                Close,
            ),
            5 | 6 => (format!("sum{by}(rate({}))", self.window(Close, 0, &buckets).text), Close),
            _ => (self.vector(depth, Same).text, Dyadic),
        };
        // With a rank that lies exactly on an empty bucket's count, a last bit decides on which side of it
        // the answer is.
        let q = self.of(&["0.37", "0.913", "0.05", "0", "-1", "1.5", "NaN"]);
        let q = if grade == Dyadic { self.of(&[q, "0.5", "0.9", "1", "0.25"]) } else { q };
        expr(format!("histogram_quantile({q}, {inner})"), Close)
    }

    // --- scalars and operators ---

    fn number(&mut self) -> &'static str {
        self.of(&[
            "0", "1", "2", "-1.5", "0.25", "100", "5000", "1e3", "0x1F", "Inf", "-Inf", "NaN", "10", "17.75",
        ])
    }

    /// The parameter of a quantile.
    fn parameter(&mut self, depth: u32) -> Expr {
        if depth > 0 && self.chance(8) {
            return expr(format!("scalar(clamp({}, 0, 1))", self.vector(depth - 1, Close).text), Close);
        }
        expr(self.of(&["0", "0.1", "0.5", "0.5", "0.9", "0.99", "1", "-0.1", "1.01", "NaN"]), Dyadic)
    }

    fn scalar(&mut self, depth: u32) -> Expr {
        match self.rng.below(10) {
            0 if depth > 0 => {
                let inner = self.vector(depth - 1, Close);
                expr(format!("scalar({})", inner.text), inner.grade)
            }
            1 if depth > 0 => {
                let narrow =
                    self.placed_selector(&|shape| matches!(shape, Shape::Constant | Shape::Counter)).text;
                expr(format!("scalar(sum({narrow}))"), Dyadic)
            }
            2 => expr("time()", Same),
            3 => expr("pi()", Same),
            4 | 5 if depth > 0 => {
                let (a, b) = (self.scalar(depth - 1), self.scalar(depth - 1));
                let op = self
                    .of(&["+", "-", "*", "/", "%", "^", "atan2", "== bool", "> bool", "<= bool", "!= bool"]);
                self.binary(a, op, "", b)
            }
            6 if depth > 0 => {
                let inner = self.scalar(depth - 1);
                expr(format!("(-{})", inner.text), inner.grade)
            }
            _ => expr(self.number(), Dyadic),
        }
    }

    fn operator(&mut self, a: Grade, b: Grade) -> &'static str {
        if a.min(b) == Close {
            // Neither a difference of nearly equal values nor a comparison of them.
            return self.of(&["+", "*", "/"]);
        }
        self.of(&[
            "+", "-", "*", "/", "%", "^", "atan2", "==", "!=", ">", "<", ">=", "<=", "== bool", "!= bool",
            "> bool", "< bool", ">= bool", "<= bool",
        ])
    }

    fn binary(&mut self, a: Expr, op: &str, matching: &str, b: Expr) -> Expr {
        let least = a.grade.min(b.grade);
        let grade = match op {
            "^" | "atan2" => Close,
            "+" | "-" => least,
            _ if op.ends_with("bool") => Dyadic,
            "==" | "!=" | ">" | "<" | ">=" | "<=" => least,
            _ => least.min(Same),
        };
        // Now and then without parentheses, for precedence: only where another reading is as exact.
        let arithmetic = matches!(op, "+" | "-" | "*" | "/" | "%");
        if arithmetic && least >= Same && matching.is_empty() && self.chance(40) {
            return expr(format!("{} {op} {}", a.text, b.text), Close);
        }
        // Until 2.x `atan2` forgot to drop the name; a product drops it.
        let nameless = if op == "atan2" { "« * 1»" } else { "" };
        expr(format!("(({} {op}{matching} {}){nameless})", a.text, b.text), grade)
    }

    fn with_scalar(&mut self, depth: u32) -> Expr {
        let (vector, scalar) = (self.vector(depth, Close), self.scalar(depth));
        let op = self.operator(vector.grade, scalar.grade);
        if self.chance(60) {
            self.binary(vector, op, "", scalar)
        } else {
            self.binary(scalar, op, "", vector)
        }
    }

    /// Two vectors of which most have a match.
    fn matched(&mut self, depth: u32) -> Expr {
        let need = if self.chance(60) { Same } else { Close };
        match self.rng.below(8) {
            0 | 1 => {
                // The same groups on both sides.
                let by =
                    self.of(&["", " by (job) ", " by (instance) ", " by (job, instance) ", " by (zone) "]);
                let (f, g) = (self.of(&["sum", "max", "count"]), self.of(&["sum", "min", "group"]));
                let (a, b) = (self.vector(depth, Dyadic), self.vector(depth, Dyadic));
                let op = self.operator(Dyadic, Dyadic);
                self.binary(
                    expr(format!("{f}{by}({})", a.text), Dyadic),
                    op,
                    "",
                    expr(format!("{g}{by}({})", b.text), Dyadic),
                )
            }
            2..=4 => {
                // Many to one by target.
                let many = self.vector(depth, need);
                let one = self.of(&[
                    "limit",
                    "up",
                    "build_info",
                    "sum by (instance, job) (bytes_total)",
                    "max by (instance) (temperature)",
                ]);
                let one = expr(one, Dyadic);
                let op = self.operator(many.grade, Dyadic);
                let on = self.of(&[
                    " on (instance)",
                    " on (instance, job)",
                    " ignoring (version, env)",
                    " on (job)",
                ]);
                let extra = self.of(&["", "()", "(job)", "(version)", "(env, version)"]);
                if self.chance(60) {
                    self.binary(many, op, &format!("{on} group_left{extra}"), one)
                } else {
                    self.binary(one, op, &format!("{on} group_right{extra}"), many)
                }
            }
            5 => {
                // A metric with itself, at another time or with other matchers.
                let metric = self.metric(&|_| true).name;
                let (a, b) =
                    (format!("{metric}{}", self.placement()), format!("{metric}{}", self.placement()));
                let op = self.operator(Dyadic, Dyadic);
                self.binary(expr(a, Dyadic), op, "", expr(b, Dyadic))
            }
            _ => {
                let (a, b) = (self.vector(depth, need), self.vector(depth, need));
                let op = self.operator(a.grade, b.grade);
                let on = self.of(&[
                    "",
                    "",
                    " on (instance)",
                    " on (job, instance)",
                    " ignoring (le)",
                    " ignoring (code, method, device)",
                    " on ()",
                    " on (zone)",
                ]);
                let group =
                    if on.is_empty() { "" } else { self.of(&["", "", " group_left", " group_right (env)"]) };
                self.binary(a, op, &format!("{on}{group}"), b)
            }
        }
    }

    fn set_operation(&mut self, depth: u32) -> Expr {
        let (a, b) = (self.vector(depth, Close), self.vector(depth, Close));
        let op = self.of(&["and", "or", "unless"]);
        let on =
            self.of(&["", "", " on (instance)", " on (job)", " ignoring (le, path)", " on ()", " on (zone)"]);
        let grade = if op == "or" { a.grade.min(b.grade) } else { a.grade };
        expr(format!("({} {op}{on} {})", a.text, b.text), grade)
    }
}
