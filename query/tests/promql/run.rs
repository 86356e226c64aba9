//! Carries out a script's commands on an engine and a store of its own, and holds every answer against what
//! the script expects.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::histogram::{ClassicHistogram, Histogram};
use model::labels::{Labels, METRIC_NAME};
use model::sample::{Value, is_stale};
use model::source::memory::MemorySource;
use query::engine::{Engine, EngineOptions, QueryRequest};
use query::parse::{At, Expr, Node, ParseOptions, SequenceValue};
use query::plan::TIME_DEPENDENT;
use query::value::{QueryError, QueryResult, QueryValue, RangeSeries};

use crate::script::{Command, Eval, Expected, Load};

/// Relative error that a float may have.
const EPSILON: f64 = 1e-6;

/// How a script went.
#[derive(Default)]
pub struct Outcome {
    pub passed: usize,
    pub total: usize,
    pub failures: Vec<String>,
}

/// How the engine is set up for a script.
#[derive(Clone, Copy)]
pub enum Setup {
    /// As upstream's vectors want it: delayed name removal and start timestamps on.
    Conformance,
    /// As a server starts without flags: both off. The language is whole here too.
    Defaults,
}

pub fn engine(setup: Setup, max_samples: u64) -> Engine {
    let conformance = matches!(setup, Setup::Conformance);
    Engine::new(EngineOptions {
        lookback_ms: 5 * 60_000,
        default_subquery_step_ms: 60_000,
        max_samples,
        delayed_name_removal: conformance,
        use_start_timestamps: conformance,
        parse: ParseOptions::all(),
        ..EngineOptions::default()
    })
}

pub fn run(commands: &[Command], setup: Setup) -> Outcome {
    let engine = engine(setup, 10_000);
    let store = MemorySource::new();
    let mut outcome = Outcome::default();
    for command in commands {
        match command {
            Command::Clear => store.clear(),
            Command::Load(l) => {
                if let Err(e) = load(&store, l) {
                    outcome.failures.push(format!("load: {e}"));
                }
            }
            Command::Eval(e) => {
                outcome.total += 1;
                let result =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| eval(&engine, &store, e)))
                        .unwrap_or_else(|_| Err("panicked".into()));
                match result {
                    Ok(()) => outcome.passed += 1,
                    Err(why) => outcome.failures.push(format!("line {}: {}\n        {why}", e.line, e.expr)),
                }
            }
        }
    }
    outcome
}

fn value_of(point: &SequenceValue) -> Option<Value> {
    match point {
        SequenceValue::Gap => None,
        SequenceValue::Float(v) => Some(Value::Float(*v)),
        SequenceValue::Histogram { value, .. } => Some(Value::Histogram(Arc::new((**value).clone()))),
    }
}

pub fn load(store: &MemorySource, load: &Load) -> Result<(), String> {
    for series in &load.series {
        // The histogram before, in what a chunk would hold together.
        let mut previous: Option<Arc<Histogram>> = None;
        for (i, point) in series.points.iter().enumerate() {
            let ts_ms = i as i64 * load.gap_ms;
            let start = series.start_offsets_ms.as_ref().and_then(|s| s[i]).map_or(0, |o| ts_ms + o);
            match value_of(point) {
                None => {}
                Some(Value::Float(v)) => {
                    if !(is_stale(v) && previous.is_some()) {
                        previous = None;
                    }
                    store.append(&series.labels, ts_ms, Value::Float(v), start);
                }
                Some(Value::Histogram(h)) => {
                    let mut stored = (*h).clone();
                    stored.counter_reset_hint = h.stored_hint(previous.as_deref());
                    store.append(&series.labels, ts_ms, Value::Histogram(Arc::new(stored)), start);
                    previous = Some(h);
                }
            }
        }
    }
    if load.with_nhcb { load_custom_buckets(store, load) } else { Ok(()) }
}

/// The classic histograms of a load, once more as histograms with custom buckets.
fn load_custom_buckets(store: &MemorySource, load: &Load) -> Result<(), String> {
    let mut gathered: BTreeMap<Labels, BTreeMap<i64, ClassicHistogram>> = BTreeMap::new();
    for series in &load.series {
        let name = series.labels.value(METRIC_NAME);
        let Some((base, suffix)) = name.rsplit_once('_') else { continue };
        let le = series.labels.value("le").parse::<f64>();
        let labels = {
            let mut b = series.labels.to_builder();
            b.set(METRIC_NAME, base).remove("le");
            b.build()
        };
        for (i, point) in series.points.iter().enumerate() {
            let Some(Value::Float(v)) = value_of(point) else { continue };
            let ts_ms = i as i64 * load.gap_ms;
            if !matches!(suffix, "bucket" | "count" | "sum") {
                continue;
            }
            let histogram = gathered.entry(labels.clone()).or_default().entry(ts_ms).or_default();
            // A value that does not fit is left out, as upstream leaves it out.
            match (suffix, &le) {
                ("bucket", Ok(le)) if !le.is_nan() => drop(histogram.set_bucket(*le, v)),
                ("count", _) => drop(histogram.set_count(v)),
                ("sum", _) => histogram.set_sum(v),
                _ => {}
            }
        }
    }
    for (labels, by_time) in gathered {
        let mut previous: Option<Histogram> = None;
        for (ts_ms, classic) in by_time {
            let h = classic.into_custom_buckets().map_err(|e| format!("{labels}: {e}"))?;
            h.validate().map_err(|e| format!("{labels}: {e}"))?;
            let mut stored = h.clone();
            stored.counter_reset_hint = h.stored_hint(previous.as_ref());
            store.append_histogram(&labels, ts_ms, stored);
            previous = Some(h);
        }
    }
    Ok(())
}

fn eval(engine: &Engine, store: &MemorySource, eval: &Eval) -> Result<(), String> {
    if eval.range {
        let request = QueryRequest::range(&eval.expr, eval.start_ms, eval.end_ms, eval.step_ms);
        let Some(result) = settle(eval, engine.run(store, &request), "")? else { return Ok(()) };
        check_annotations(eval, &eval.expr, &result)?;
        return compare(eval, &result.value);
    }
    instant(engine, store, eval, &eval.expr, eval.end_ms)?;
    for (expr, time_ms) in with_at(&eval.expr, eval.end_ms)? {
        instant(engine, store, eval, &expr, time_ms)
            .map_err(|e| format!("as {expr} at {time_ms} ms: {e}"))?;
    }
    Ok(())
}

/// The result to compare, `None` where a failure was expected and came.
fn settle(
    eval: &Eval,
    result: Result<QueryResult, QueryError>,
    mode: &str,
) -> Result<Option<QueryResult>, String> {
    let fails = eval.fail || eval.expect_fail.is_some();
    match result {
        Ok(_) if fails => Err(format!("{mode}expected an error but got none")),
        Ok(r) => Ok(Some(r)),
        Err(e) if !fails => Err(format!("{mode}error: {e}")),
        Err(e) => {
            let text = e.to_string();
            if eval.fail_message.as_ref().is_some_and(|m| *m != text) {
                return Err(format!("expected error {:?} but got: {text}", eval.fail_message));
            }
            if eval.fail_pattern.as_ref().is_some_and(|p| !p.is_match(&text)) {
                return Err(format!("expected an error matching {:?} but got: {text}", eval.fail_pattern));
            }
            match &eval.expect_fail {
                Some(expected) if !expected.matches(&text) => {
                    Err(format!("expected error {expected} but got: {text}"))
                }
                _ => Ok(None),
            }
        }
    }
}

fn instant(
    engine: &Engine,
    store: &MemorySource,
    eval: &Eval,
    expr: &str,
    time_ms: i64,
) -> Result<(), String> {
    let result = engine.run(store, &QueryRequest::instant(expr, time_ms));
    let Some(result) = settle(eval, result, "")? else { return Ok(()) };
    check_annotations(eval, expr, &result)?;
    compare(eval, &result.value)?;
    // A range query says the same at its middle step, unless it asks about the range itself.
    let about_range = ["start()", "end()", "range()", "step()"].iter().any(|f| expr.contains(f));
    if eval.no_range_mode || about_range {
        return Ok(());
    }
    let request = QueryRequest::range(expr, time_ms - 60_000, time_ms + 60_000, 60_000);
    let ranged = engine.run(store, &request).map_err(|e| format!("range mode: error: {e}"))?;
    if eval.ordered {
        return Ok(());
    }
    let ranged = ranged.value.with_times();
    let QueryValue::RangeVector(matrix) = ranged else {
        return Err(format!("range mode: a {} came instead of a matrix", ranged.type_name()));
    };
    check_sorted(&matrix).map_err(|e| format!("range mode: {e}"))?;
    let mut samples = Vec::new();
    for series in &matrix {
        if let Some(i) = series.ts_ms.iter().position(|t| *t == time_ms) {
            samples.push((series.labels.clone(), Value::Float(series.values[i])));
        }
        if let Some(i) = series.histogram_ts_ms.iter().position(|t| *t == time_ms) {
            samples.push((series.labels.clone(), Value::Histogram(series.histograms[i].clone())));
        }
    }
    match (&result.value, samples.first()) {
        (QueryValue::Scalar { .. }, Some((_, Value::Float(v)))) => compare_scalar(eval, *v),
        (QueryValue::Scalar { .. }, _) => Err("no scalar".into()),
        _ => compare_vector(eval, &samples),
    }
    .map_err(|e| format!("range mode: {e}"))
}

/// The same expression with its selectors pinned to a time, at times that must not matter then. None where a
/// function looks at the time of evaluation.
fn with_at(expr: &str, time_ms: i64) -> Result<Vec<(String, i64)>, String> {
    let mut tree = query::parse::parse_expr(expr, &ParseOptions::all()).map_err(|e| e.to_string())?;
    if !pin(&mut tree, time_ms) {
        return Ok(Vec::new());
    }
    let text = tree.to_string();
    let times = match time_ms {
        0 => vec![-1000, 0, 1000],
        t => vec![-10 * t, 0, t / 5, t, 10 * t],
    };
    Ok(times.into_iter().map(|t| (text.clone(), t)).collect())
}

/// Sets `@` where none is; what is inside a subquery follows the subquery's own. False where a function makes
/// that wrong.
fn pin(expr: &mut Expr, time_ms: i64) -> bool {
    let set = |at: &mut Option<At>| {
        if !matches!(at, Some(At::Time(_))) {
            *at = Some(At::Time(time_ms));
        }
    };
    match &mut expr.node {
        Node::Number(_) | Node::Str(_) => true,
        Node::Vector(s) => {
            set(&mut s.at);
            true
        }
        Node::Matrix { selector, .. } => {
            set(&mut selector.at);
            true
        }
        Node::Subquery(s) => {
            set(&mut s.at);
            true
        }
        Node::Call(c) => {
            let independent = !TIME_DEPENDENT.contains(&c.func.name);
            c.args.iter_mut().fold(independent, |ok, a| pin(a, time_ms) && ok)
        }
        Node::Aggregate(a) => {
            let ok = pin(&mut a.expr, time_ms);
            a.param.as_mut().is_none_or(|p| pin(p, time_ms)) && ok
        }
        Node::Binary(b) => {
            let ok = pin(&mut b.lhs, time_ms);
            pin(&mut b.rhs, time_ms) && ok
        }
        Node::Unary { expr, .. } | Node::Paren(expr) => pin(expr, time_ms),
    }
}

fn check_annotations(eval: &Eval, expr: &str, result: &QueryResult) -> Result<(), String> {
    let (warnings, infos) = result.annotations.render(expr, 0);
    if eval.warn && warnings.is_empty() {
        return Err("expected warnings but got none".into());
    }
    if eval.info && infos.is_empty() {
        return Err("expected infos but got none".into());
    }
    for (expected, actual, kind) in
        [(&eval.expect_warn, &warnings, "warn"), (&eval.expect_info, &infos, "info")]
    {
        if expected.is_empty() {
            continue;
        }
        if let Some(missing) = expected.iter().find(|e| !actual.iter().any(|a| e.matches(a))) {
            return Err(format!("expected {kind} annotation {missing}, found: {actual:?}"));
        }
        let expected_somewhere = |a: &String| expected.iter().any(|e: &Expected| e.matches(a));
        if let Some(unexpected) = actual.iter().find(|a| !expected_somewhere(a)) {
            return Err(format!("unexpected {kind} annotation {unexpected:?}"));
        }
    }
    if eval.expect_no_warn && !warnings.is_empty() {
        return Err(format!("unexpected warnings: {warnings:?}"));
    }
    if eval.expect_no_info && !infos.is_empty() {
        return Err(format!("unexpected infos: {infos:?}"));
    }
    Ok(())
}

fn compare(eval: &Eval, value: &QueryValue) -> Result<(), String> {
    match &value.clone().with_times() {
        QueryValue::Scalar { value, .. } => compare_scalar(eval, *value),
        QueryValue::String { value, .. } => {
            let expected = eval.expected_string.clone().unwrap_or_default();
            if expected == **value {
                Ok(())
            } else {
                Err(format!("expected string {expected:?} but got {value:?}"))
            }
        }
        QueryValue::Vector { samples, .. } => {
            let samples: Vec<_> = samples.iter().map(|s| (s.labels.clone(), s.value.clone())).collect();
            compare_vector(eval, &samples)
        }
        QueryValue::RangeVector(matrix) => compare_matrix(eval, matrix),
        QueryValue::Streamed(_) | QueryValue::Matrix { .. } => {
            Err("the series were handed out, nobody asked for that".into())
        }
    }
}

fn compare_scalar(eval: &Eval, v: f64) -> Result<(), String> {
    match eval.expected_scalar {
        None => Err(format!("expected a vector or matrix but got scalar {v}")),
        Some(e) if almost_equal(e, v) => Ok(()),
        Some(e) => Err(format!("expected scalar {e} but got {v}")),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Float(v) => v.to_string(),
        Value::Histogram(h) => h.test_expression(),
    }
}

fn compare_vector(eval: &Eval, samples: &[(Labels, Value)]) -> Result<(), String> {
    if let Some(e) = eval.expected_scalar {
        return Err(format!("expected scalar {e} but got a vector of {}", samples.len()));
    }
    let mut seen = Vec::new();
    for (at, (labels, value)) in samples.iter().enumerate() {
        let Some((position, _, points)) = eval.expected.iter().find(|(_, l, _)| l == labels) else {
            return Err(format!("unexpected metric {labels} in result, has value {}", shown(value)));
        };
        if eval.ordered && *position != at + 1 {
            return Err(format!("expected metric {labels} at position {position} but was at {}", at + 1));
        }
        let Some(expected) = points.first() else { return Err(format!("no value expected for {labels}")) };
        let same = match (expected, value) {
            (SequenceValue::Histogram { value, hint_set }, Value::Histogram(h)) => {
                same_histogram(value, h, *hint_set)
            }
            (SequenceValue::Float(e), Value::Float(v)) => almost_equal(*e, *v),
            (SequenceValue::Gap, Value::Float(v)) => almost_equal(0.0, *v),
            _ => false,
        };
        if !same {
            let wanted = value_of(expected).map_or("nothing".into(), |v| shown(&v));
            return Err(format!("expected {wanted} for {labels} but got {}", shown(value)));
        }
        seen.push(labels);
    }
    match eval.expected.iter().find(|(_, l, _)| !seen.contains(&l)) {
        Some((_, labels, _)) => Err(format!("expected metric {labels} not found")),
        None => Ok(()),
    }
}

fn check_sorted(matrix: &[RangeSeries]) -> Result<(), String> {
    match matrix.windows(2).find(|w| w[0].labels > w[1].labels) {
        Some(w) => Err(format!("matrix is not sorted: {} before {}", w[0].labels, w[1].labels)),
        None => Ok(()),
    }
}

fn compare_matrix(eval: &Eval, matrix: &[RangeSeries]) -> Result<(), String> {
    if eval.ordered {
        return Err("expected ordered result, but query returned a matrix".into());
    }
    if let Some(e) = eval.expected_scalar {
        return Err(format!("expected scalar {e} but got a matrix of {}", matrix.len()));
    }
    check_sorted(matrix)?;
    let result = |s: &RangeSeries| {
        let floats: Vec<_> = s.ts_ms.iter().zip(&s.values).map(|(t, v)| format!("{v} @{t}")).collect();
        let histograms =
            s.histogram_ts_ms.iter().zip(&s.histograms).map(|(t, h)| format!("{} @{t}", h.test_expression()));
        format!("[{}]", floats.into_iter().chain(histograms).collect::<Vec<_>>().join(", "))
    };
    for series in matrix {
        let labels = series.labels.clone();
        let Some((_, _, points)) = eval.expected.iter().find(|(_, l, _)| *l == labels) else {
            return Err(format!("unexpected metric {labels} in result, has {}", result(series)));
        };
        let (mut floats, mut histograms) = (Vec::new(), Vec::new());
        for (i, point) in points.iter().enumerate() {
            let t = eval.start_ms + i as i64 * eval.step_ms;
            if t > eval.end_ms {
                return Err(format!(
                    "{} points expected for {labels}: more than the range has",
                    points.len()
                ));
            }
            match point {
                SequenceValue::Gap => {}
                SequenceValue::Float(v) => floats.push((t, *v)),
                SequenceValue::Histogram { value, hint_set } => histograms.push((t, value, *hint_set)),
            }
        }
        if floats.len() != series.values.len() || histograms.len() != series.histograms.len() {
            return Err(format!(
                "expected {} floats and {} histograms for {labels} but got {}",
                floats.len(),
                histograms.len(),
                result(series)
            ));
        }
        for ((t, v), (got_t, got)) in floats.iter().zip(series.ts_ms.iter().zip(&series.values)) {
            if t != got_t || !almost_equal(*v, *got) {
                return Err(format!(
                    "expected {v} @{t} for {labels} but got {got} @{got_t} (result {})",
                    result(series)
                ));
            }
        }
        for ((t, h, hint), (got_t, got)) in
            histograms.iter().zip(series.histogram_ts_ms.iter().zip(&series.histograms))
        {
            if t != got_t || !same_histogram(h, got, *hint) {
                return Err(format!(
                    "expected {} @{t} for {labels} but got {} @{got_t}",
                    h.test_expression(),
                    got.test_expression()
                ));
            }
        }
    }
    match eval.expected.iter().find(|(_, l, _)| !matrix.iter().any(|s| s.labels == *l)) {
        Some((_, labels, _)) => Err(format!("expected metric {labels} not found")),
        None => Ok(()),
    }
}

/// Field by field after compaction, counts within the tolerance; the hint only where the script gives one.
fn same_histogram(expected: &Histogram, actual: &Histogram, hint_given: bool) -> bool {
    let (mut e, mut a) = (expected.clone(), actual.clone());
    e.compact(0);
    a.compact(0);
    let same_counts =
        |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| almost_equal(*a, *b));
    e.schema == a.schema
        && almost_equal(e.count, a.count)
        && almost_equal(e.sum, a.sum)
        && e.custom_bounds() == a.custom_bounds()
        && e.zero_threshold == a.zero_threshold
        && almost_equal(e.zero_count, a.zero_count)
        && e.positive_spans == a.positive_spans
        && e.negative_spans == a.negative_spans
        && same_counts(&e.positive_buckets, &a.positive_buckets)
        && same_counts(&e.negative_buckets, &a.negative_buckets)
        && (!hint_given || e.counter_reset_hint == a.counter_reset_hint)
}

/// Relative comparison; NaN equals NaN, but a staleness marker only another one.
fn almost_equal(a: f64, b: f64) -> bool {
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    let sum = a.abs() + b.abs();
    let diff = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return diff < EPSILON * f64::MIN_POSITIVE;
    }
    diff / sum.min(f64::MAX) < EPSILON
}
