//! Random queries: a range query must say at each step what an instant query says there; and where a
//! reference is at hand (`HEARTH_PROMQL_ORACLE`), both must say what it says.
//!
//! A reference is any program that reads one JSON object a line from the file `$ORACLE_IN`
//! (`{"load": script}` replaces the series, `{"q", "start", "end", "step"}` is a query; step 0 means instant,
//! at `end`; times in milliseconds), evaluates with delayed name removal where `$DELAYED` is not empty, and
//! writes one answer a query to `$ORACLE_OUT`:
//! `{"err", "series": [{"labels", "t", "v"}], "warnings", "infos"}`, floats as the hexadecimal digits of
//! their bits, histograms as text.

use std::collections::BTreeMap;
use std::path::Path;

use model::labels::Labels;
use model::sample::Value;
use model::source::memory::MemorySource;
use model::source::testing::rng::Rng;
use query::annotations::{Annotations, Severity};
use query::engine::{Engine, QueryRequest};
use query::value::{QueryError, QueryResult, QueryValue, RangeSeries};
use serde_json::{Value as Json, json};

use crate::generate::{series, vector};
use crate::run::{Setup, engine, load};
use crate::script::{self, Command};

/// Seeds of series, and queries over each.
const SEEDS: u64 = 6;
const QUERIES: usize = 400;
const DEPTH: u32 = 4;

const START_MS: i64 = 120_000;
const END_MS: i64 = 1_500_000;
const STEP_MS: i64 = 60_000;

/// Points by series and time, as numbers or as a histogram's text.
type Points = BTreeMap<String, BTreeMap<i64, String>>;

fn shown(v: &Value) -> String {
    match v {
        Value::Float(v) => format!("{:016x}", v.to_bits()),
        Value::Histogram(h) => h.to_string(),
    }
}

fn named(labels: &Labels) -> String {
    let pairs: BTreeMap<&str, &str> = labels.iter().collect();
    serde_json::to_string(&pairs).expect("strings are JSON")
}

fn points(value: &QueryValue) -> Points {
    let mut out = Points::new();
    match &value.clone().with_times() {
        QueryValue::Scalar { ts_ms, value } => {
            out.entry("{}".into()).or_default().insert(*ts_ms, shown(&Value::Float(*value)));
        }
        QueryValue::String { .. } | QueryValue::Streamed(_) | QueryValue::Matrix { .. } => {}
        QueryValue::Vector { ts_ms, samples } => {
            for s in samples {
                out.entry(named(&s.labels)).or_default().insert(*ts_ms, shown(&s.value));
            }
        }
        QueryValue::RangeVector(matrix) => {
            for s in matrix {
                let series = out.entry(named(&s.labels)).or_default();
                series.extend(s.ts_ms.iter().zip(&s.values).map(|(t, v)| (*t, shown(&Value::Float(*v)))));
                let histograms = s.histogram_ts_ms.iter().zip(&s.histograms);
                series.extend(histograms.map(|(t, h)| (*t, shown(&Value::Histogram(h.clone())))));
            }
        }
    }
    out
}

/// The numbers in a point: one for a float, all of a histogram's text.
fn numbers(text: &str) -> Vec<f64> {
    if !text.starts_with('{') {
        return u64::from_str_radix(text, 16).map(|bits| vec![f64::from_bits(bits)]).unwrap_or_default();
    }
    let number = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
    text.split(|c| !number(c)).filter_map(|n| n.parse().ok()).collect()
}

fn same_number(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan())
        || a == b
        || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
        || (a - b).abs() < 1e-12
}

fn same_point(a: &str, b: &str) -> bool {
    let (x, y) = (numbers(a), numbers(b));
    a == b
        || (a.starts_with('{') == b.starts_with('{')
            && x.len() == y.len()
            && x.iter().zip(&y).all(|(a, b)| same_number(*a, *b)))
}

/// The first difference, in words.
fn difference(ours: &Points, theirs: &Points) -> Option<String> {
    for (series, points) in ours {
        let Some(other) = theirs.get(series) else { return Some(format!("only here: {series} {points:?}")) };
        for (t, v) in points {
            match other.get(t) {
                None => return Some(format!("only here: {series} {} @{t}", told(v))),
                Some(o) if !same_point(v, o) => {
                    return Some(format!("{series} @{t}: {} here, {} there", told(v), told(o)));
                }
                Some(_) => {}
            }
        }
        if let Some((t, v)) = other.iter().find(|(t, _)| !points.contains_key(t)) {
            return Some(format!("only there: {series} {} @{t}", told(v)));
        }
    }
    theirs.iter().find(|(s, _)| !ours.contains_key(*s)).map(|(s, p)| format!("only there: {s} {p:?}"))
}

fn told(point: &str) -> String {
    if point.starts_with('{') { point.to_string() } else { format!("{:?}", numbers(point)) }
}

/// How the comparison went: how many had an answer to compare, and what differed.
#[derive(Default)]
pub struct Compared {
    pub queries: usize,
    pub answered: usize,
    pub differences: Vec<String>,
}

fn store(text: &str) -> MemorySource {
    let store = MemorySource::new();
    for command in script::parse(text).expect("generated series are well-formed") {
        if let Command::Load(l) = command {
            load(&store, &l).expect("generated series load");
        }
    }
    store
}

fn queries(r: &mut Rng) -> Vec<String> {
    (0..QUERIES)
        .map(|_| {
            let depth = 1 + r.below(u64::from(DEPTH)) as u32;
            vector(r, depth)
        })
        .collect()
}

/// Range against instant.
pub fn ranges_say_what_instants_say(setup: Setup) -> Compared {
    let engine = engine(setup, 10_000_000);
    let mut out = Compared::default();
    for seed in 0..SEEDS {
        let mut r = Rng(seed);
        let store = store(&series(&mut r));
        for text in queries(&mut r) {
            out.queries += 1;
            if let Some(difference) = against_instants(&engine, &store, &text, &mut out.answered) {
                out.differences.push(format!("seed {seed}: {text}\n        {difference}"));
            }
        }
    }
    out
}

fn against_instants(
    engine: &Engine,
    store: &MemorySource,
    text: &str,
    answered: &mut usize,
) -> Option<String> {
    let request = QueryRequest::range(text, START_MS, END_MS, STEP_MS);
    let ranged = engine.run(store, &request);
    if let Some(difference) = against_row_by_row(engine, store, &request, &ranged) {
        return Some(difference);
    }
    let ranged = ranged.ok()?;
    let mut gathered = Points::new();
    for t in (START_MS..=END_MS).step_by(STEP_MS as usize) {
        match engine.run(store, &QueryRequest::instant(text, t)) {
            Err(e) => return Some(format!("the range has an answer, the instant at {t} ms has none: {e}")),
            Ok(result) => {
                for (series, points) in points(&result.value) {
                    gathered.entry(series).or_default().extend(points);
                }
            }
        }
    }
    *answered += usize::from(!gathered.is_empty());
    difference(&points(&ranged.value), &gathered)
}

/// A result that is handed out row by row is the same result, or the same error.
fn against_row_by_row(
    engine: &Engine,
    store: &MemorySource,
    request: &QueryRequest<'_>,
    whole: &Result<QueryResult, QueryError>,
) -> Option<String> {
    let mut series: Vec<RangeSeries> = Vec::new();
    let out = engine.run_streamed(store, request, 0, &mut |steps, s| {
        series.push(s.with_times(steps));
        Ok(())
    });
    let (whole, out) = match (whole, out) {
        (Err(a), Err(b)) if a.to_string() == b.to_string() || alike(&a.to_string(), &b.to_string()) => {
            return None;
        }
        (Ok(a), Ok(b)) => (a, b),
        (a, b) => return Some(format!("{:?} whole, {:?} row by row", a.as_ref().err(), b.err())),
    };
    if let Some(pair) = series.windows(2).find(|w| w[0].labels >= w[1].labels) {
        return Some(format!("handed out {} before {}", pair[0].labels, pair[1].labels));
    }
    let value = match out.value {
        QueryValue::Streamed(n) if n != series.len() as u64 => return Some(format!("{n} series, it says")),
        QueryValue::Streamed(_) => QueryValue::RangeVector(series),
        _ if !series.is_empty() => return Some("series handed out, and then a value".into()),
        whole => whole,
    };
    for severity in [Severity::Warning, Severity::Info] {
        let remarks = |a: &Annotations| a.raw(severity).map(str::to_string).collect::<Vec<_>>();
        if remarks(&whole.annotations) != remarks(&out.annotations) {
            return Some(format!("remarks row by row: {:?}", remarks(&out.annotations)));
        }
    }
    difference(&points(&whole.value), &points(&value))
}

/// Against the reference, if one is named by the environment.
///
/// Of 20,000 queries (Prometheus 3.14, 25 seeds, both settings) 12 to 15 still differ, and which ones changes
/// from run to run, because upstream's loader shuffles the series and an aggregation tells which kind of
/// histogram it met first. The steady ones: the last digit of a stdvar or a quantile that `count_values`
/// makes a label, an exponential's that `%` blows up, and one query with two matching errors of which each
/// engine reports another; why has not been found out.
pub fn against_reference(setup: Setup) -> Option<Compared> {
    let program = std::env::var_os("HEARTH_PROMQL_ORACLE")?;
    let seeds: u64 = std::env::var("HEARTH_PROMQL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS);
    let engine = engine(setup, 10_000_000);
    let (mut asked, mut stores, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for seed in 0..seeds {
        let mut r = Rng(seed);
        let text = series(&mut r);
        lines.push(json!({"load": text}));
        stores.push(store(&text));
        for q in queries(&mut r) {
            let step = if r.below(3) == 0 { 0 } else { STEP_MS };
            lines.push(json!({"q": q, "start": START_MS, "end": END_MS, "step": step}));
            asked.push((seed, q, step));
        }
    }
    let answers =
        ask(Path::new(&program), &lines, setup).unwrap_or_else(|e| panic!("the reference failed: {e}"));
    assert_eq!(answers.len(), asked.len(), "the reference must answer every query");
    let mut out = Compared::default();
    for ((seed, text, step), theirs) in asked.iter().zip(&answers) {
        out.queries += 1;
        let request = match step {
            0 => QueryRequest::instant(text, END_MS),
            _ => QueryRequest::range(text, START_MS, END_MS, *step),
        };
        let found = match (engine.run(&stores[*seed as usize], &request), theirs["err"].as_str()) {
            (Err(e), Some("") | None) => Some(format!("only here an error: {e}")),
            (Err(e), Some(theirs)) if e.to_string() == theirs => None,
            (Err(e), Some(theirs)) if alike(&e.to_string(), theirs) => None,
            (Err(e), Some(theirs)) => Some(format!("error {e:?} here, {theirs:?} there")),
            (Ok(_), Some(e)) if !e.is_empty() => Some(format!("only there an error: {e}")),
            (Ok(ours), _) => {
                out.answered += 1;
                compare(&ours, theirs, text)
            }
        };
        if let Some(difference) = found {
            out.differences.push(format!("seed {seed}: {text} (step {step})\n        {difference}"));
        }
    }
    Some(out)
}

/// Errors that name two series name whichever two came first.
fn alike(a: &str, b: &str) -> bool {
    a.split(['{', '[', ';']).next() == b.split(['{', '[', ';']).next()
}

fn compare(ours: &QueryResult, theirs: &Json, text: &str) -> Option<String> {
    let mut reference = Points::new();
    for s in theirs["series"].as_array().into_iter().flatten() {
        let labels: BTreeMap<String, String> =
            serde_json::from_value(s["labels"].clone()).unwrap_or_default();
        let series = reference.entry(serde_json::to_string(&labels).expect("strings are JSON")).or_default();
        let times = s["t"].as_array().into_iter().flatten().filter_map(Json::as_i64);
        let values = s["v"].as_array().into_iter().flatten().filter_map(Json::as_str);
        series.extend(times.zip(values.map(str::to_string)));
    }
    // Of equal values the first series win, and upstream's loader brings series in no fixed order.
    let ties = text.contains("topk") || text.contains("bottomk");
    if let Some(d) = difference(&points(&ours.value), &reference).filter(|_| !ties) {
        return Some(d);
    }
    let (warnings, infos) = ours.annotations.render(text, 0);
    let list = |name: &str| {
        let mut all: Vec<String> = theirs[name]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .map(str::to_string)
            .collect();
        all.sort();
        all
    };
    for (mut ours, theirs, name) in
        [(warnings, list("warnings"), "warnings"), (infos, list("infos"), "infos")]
    {
        ours.sort();
        let mut theirs = theirs;
        // Upstream tells the last such pair of each step only, and which is last changes from run to run.
        let shorten = |notes: &mut Vec<String>| {
            for n in notes.iter_mut().filter(|n| n.contains("incompatible sample types")) {
                n.truncate(n.find(':').map_or(0, |at| at + 30));
            }
            notes.dedup();
        };
        shorten(&mut ours);
        shorten(&mut theirs);
        if ours != theirs && !(ties && text.contains("_over_time")) {
            return Some(format!("{name} {ours:?} here, {theirs:?} there"));
        }
    }
    None
}

fn ask(program: &Path, lines: &[Json], setup: Setup) -> std::io::Result<Vec<Json>> {
    let folder = tempfile::tempdir()?;
    let (input, output) = (folder.path().join("in"), folder.path().join("out"));
    std::fs::write(&input, lines.iter().map(|l| format!("{l}\n")).collect::<String>())?;
    let delayed = matches!(setup, Setup::Conformance);
    let status = std::process::Command::new(program)
        .env("ORACLE_IN", &input)
        .env("ORACLE_OUT", &output)
        .env("DELAYED", if delayed { "1" } else { "" })
        .stdout(std::process::Stdio::null())
        .status()?;
    if !status.success() {
        return Err(std::io::Error::other(status.to_string()));
    }
    let text = std::fs::read_to_string(&output)?;
    text.lines().map(|l| serde_json::from_str(l).map_err(std::io::Error::other)).collect()
}
