//! Runs test groups: series in, all rules slot by slot, then what was expected against what came.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::clock::ManualClock;
use model::histogram::Histogram;
use model::labels::Labels;
use model::sample::{Value, is_stale};
use model::source::memory::MemorySource;
use model::tenant::TenantId;
use query::engine::{Engine, EngineOptions};
use query::parse::{SequenceValue, SeriesDescription, parse_series_description};

use super::file::{self, Expected, ExpectedAlert, TestFile, TestGroup};
use super::outcome::{FileOutcome, GroupOutcome, TestOptions};
use super::report;
use crate::alert::State;
use crate::alert::restore::Restore;
use crate::file::{FileOptions, expand_pattern};
use crate::group::environment::Environment;
use crate::group::evaluate::vector;
use crate::group::load::load;
use crate::group::memory::MemoryStorage;
use crate::group::runner::Runner;
use crate::group::side_by_side::SpareThreads;
use crate::group::{Alone, Defaults, Group, NotifyNobody};
use crate::metrics::Metrics;
use crate::template::External;

/// What one query may hold, as upstream's tests have it.
const MAX_SAMPLES: u64 = 10_000;
/// Values of one input series.
const MAX_STEPS: u64 = 1_000_000;
/// Evaluations of one test group.
const MAX_EVALUATIONS: i64 = 1_000_000;

pub fn run(path: &Path, options: &TestOptions, outcome: &mut FileOutcome) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut tests = file::parse(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut order = HashMap::new();
    for (at, name) in tests.group_eval_order.iter().enumerate() {
        if order.insert(name.clone(), at).is_some() {
            return Err(format!("group name repeated in evaluation order: {name}"));
        }
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut patterns = Vec::new();
    for pattern in &tests.rule_files {
        let pattern = folder.join(pattern).display().to_string();
        if expand_pattern(&pattern).map_err(|e| format!("{pattern}: {e}"))?.is_empty() {
            outcome.warnings.push(format!("  WARNING: no file match pattern {pattern}"));
        }
        patterns.push(pattern);
    }
    for group in std::mem::take(&mut tests.tests) {
        if options.only.as_ref().is_some_and(|only| !only.is_match(&group.name)) {
            continue;
        }
        let failures =
            run_group(&tests, &group, &patterns, &order, options).unwrap_or_else(|failures| failures);
        outcome.groups.push(GroupOutcome { name: group.name, failures });
    }
    Ok(())
}

/// Samples of the input, in the order of time.
struct Input {
    samples: std::vec::IntoIter<(i64, Labels, Value)>,
    next: Option<(i64, Labels, Value)>,
}

impl Input {
    fn new(group: &TestGroup) -> Result<Input, String> {
        let mut samples = Vec::new();
        for described in &group.input_series {
            expand(described, group, &mut samples)?;
        }
        samples.sort_by_key(|(ts_ms, ..)| *ts_ms);
        let mut samples = samples.into_iter();
        let next = samples.next();
        Ok(Input { samples, next })
    }

    /// Loads what stands at a time or before.
    fn load_till(&mut self, store: &MemorySource, ts_ms: i64) {
        while let Some((at, labels, value)) = self.next.take_if(|(at, ..)| *at <= ts_ms) {
            store.append(&labels, at, value, 0);
            self.next = self.samples.next();
        }
    }
}

/// The samples of one series.
fn expand(
    described: &SeriesDescription,
    group: &TestGroup,
    out: &mut Vec<(i64, Labels, Value)>,
) -> Result<(), String> {
    let combine = |a: &Histogram, b: &Histogram, subtract: bool| {
        let mut sum = a.clone();
        let combined = if subtract { sum.sub(b) } else { sum.add(b) };
        combined.map_err(|_| "error combining histograms".to_owned())?;
        Ok(sum)
    };
    let values = described.expand(MAX_STEPS, combine)?;
    let mut previous: Option<Histogram> = None;
    for (step, value) in values.into_iter().enumerate() {
        let ts_ms = group.start_ms.saturating_add(group.interval_ms.saturating_mul(step as i64));
        let value = match value {
            SequenceValue::Gap => continue,
            SequenceValue::Float(v) => {
                if !is_stale(v) {
                    previous = None;
                }
                Value::Float(v)
            }
            SequenceValue::Histogram { value, .. } => {
                let mut stored = (*value).clone();
                stored.counter_reset_hint = value.stored_hint(previous.as_ref());
                previous = Some(*value);
                Value::Histogram(Arc::new(stored))
            }
        };
        out.push((ts_ms, described.labels.clone(), value));
    }
    Ok(())
}

/// A test group's failures; the error is those that ended it early.
fn run_group(
    tests: &TestFile,
    group: &TestGroup,
    patterns: &[String],
    order: &HashMap<String, usize>,
    options: &TestOptions,
) -> Result<Vec<String>, Vec<String>> {
    if let Some(test) = group.alert_tests.iter().find(|t| t.alertname.is_empty()) {
        let name = match group.name.is_empty() {
            true => String::new(),
            false => format!(" (in TestGroup {})", group.name),
        };
        let time = report::duration(test.eval_time_ms);
        return Err(vec![format!(
            "an item under alert_rule_test misses required attribute alertname at eval_time {time}{name}"
        )]);
    }
    let storage = MemoryStorage::default();
    let store = storage.0.clone();
    let mut input = Input::new(group).map_err(|e| vec![e])?;
    let file_options = FileOptions {
        strict: !options.ignore_unknown_fields,
        parse: options.parse,
        ..FileOptions::default()
    };
    let defaults = Defaults { interval_ms: group.interval_ms, query_offset_ms: 0 };
    let mut groups = load(patterns, &TenantId::single(), &defaults, &file_options)?;
    groups.sort_by_key(|g| order.get(&g.key.name).copied().unwrap_or(0));
    let clock = ManualClock::at(group.start_ms);
    let env = environment(tests, group, storage, &clock, options);
    let mut runners: Vec<Runner> =
        groups.into_iter().map(|g: Group| Runner::new(Arc::new(g), 0, true)).collect();
    let mut failures = Vec::new();
    let step_ms = tests.evaluation_interval_ms;
    let times = group.alert_tests.iter().map(|t| t.eval_time_ms);
    let last_ms = times.chain(group.expr_tests.iter().map(|t| t.eval_time_ms)).max().unwrap_or(0);
    if last_ms / step_ms > MAX_EVALUATIONS {
        return Err(vec![format!("more than {MAX_EVALUATIONS} evaluations up to the last eval_time")]);
    }
    let mut now_ms = 0;
    while now_ms <= last_ms {
        let ts_ms = group.start_ms + now_ms;
        input.load_till(&store, ts_ms);
        clock.set(ts_ms);
        let errors = evaluate(&mut runners, &env, ts_ms, now_ms);
        if !errors.is_empty() {
            failures.extend(errors);
            return Err(failures);
        }
        check_alerts(group, now_ms, step_ms, &runners, options, &mut failures);
        now_ms += step_ms;
    }
    for test in &group.expr_tests {
        if let Some(failure) = check_expr(test, group, &env, &store, tests.fuzzy_compare, options) {
            failures.push(failure);
        }
    }
    Ok(failures)
}

/// What the rules of a test group run in: a store of its own, a clock that is set, nobody to notify.
fn environment(
    tests: &TestFile,
    group: &TestGroup,
    storage: MemoryStorage,
    clock: &ManualClock,
    options: &TestOptions,
) -> Environment {
    let engine = Engine::new(EngineOptions {
        max_samples: MAX_SAMPLES,
        default_subquery_step_ms: tests.evaluation_interval_ms,
        timeout: Duration::from_secs(100),
        parse: options.parse,
        ..EngineOptions::default()
    });
    let external =
        External { labels: Arc::new(group.external_labels.clone()), url: group.external_url.clone() };
    Environment {
        engine,
        storage: Arc::new(storage),
        notify: Arc::new(NotifyNobody),
        clock: Arc::new(clock.clone()),
        external: external.into(),
        restore: Restore::default(),
        resend_delay_ms: 60_000,
        metrics: Metrics::default(),
        ownership: Arc::new(Alone),
        spare: SpareThreads::default(),
    }
}

/// Evaluates all groups once, `now_ms` after the start of the test; what the rules that failed say.
fn evaluate(runners: &mut [Runner], env: &Environment, ts_ms: i64, now_ms: i64) -> Vec<String> {
    let mut errors = Vec::new();
    for runner in runners {
        runner.evaluate(env, ts_ms.saturating_mul(1_000_000));
        let view = runner.view();
        for (rule, of) in view.rules.iter().zip(&view.group.rules) {
            if let Some(why) = &rule.last_error {
                let time = report::duration(now_ms);
                errors.push(format!("    rule: {}, time: {time}, err: {why}", of.rule.name()));
            }
        }
    }
    errors
}

/// Compares what fires with what should, for all tests at a time from this evaluation to before the next.
fn check_alerts(
    group: &TestGroup,
    now_ms: i64,
    step_ms: i64,
    runners: &[Runner],
    options: &TestOptions,
    failures: &mut Vec<String>,
) {
    let due: Vec<_> =
        group.alert_tests.iter().filter(|t| (now_ms..now_ms + step_ms).contains(&t.eval_time_ms)).collect();
    if due.is_empty() {
        return;
    }
    let mut firing: BTreeMap<String, Vec<ExpectedAlert>> = BTreeMap::new();
    for view in runners.iter().map(Runner::view) {
        for (rule, of) in view.rules.iter().zip(&view.group.rules).filter(|(_, of)| of.rule.is_alert()) {
            let alerts = rule.alerts.iter().filter(|a| a.state == State::Firing);
            firing.entry(of.rule.name().to_owned()).or_default().extend(alerts.map(|a| ExpectedAlert {
                labels: a.labels.clone(),
                annotations: Labels::from_pairs(&a.annotations),
            }));
        }
    }
    for test in due {
        let mut given = firing.get(&test.alertname).cloned().unwrap_or_default();
        let mut expected = test.expected.clone();
        given.sort();
        expected.sort();
        if given == expected {
            continue;
        }
        let name = if group.name.is_empty() { String::new() } else { format!("    name: {},\n", group.name) };
        let (expected, given) = (report::alerts(&expected), report::alerts(&given));
        let head = format!(
            "{name}    alertname: {}, time: {}, ",
            test.alertname,
            report::duration(test.eval_time_ms)
        );
        failures.push(match options.diff {
            true => {
                format!("{head}\n        diff (-expected +got):\n{}", report::difference(&expected, &given))
            }
            false => format!("{head}\n        exp:{expected}, \n        got:{given}"),
        });
    }
}

/// What an expression's result differs in, if in anything.
fn check_expr(
    test: &file::ExprTest,
    group: &TestGroup,
    env: &Environment,
    store: &MemorySource,
    fuzzy: bool,
    options: &TestOptions,
) -> Option<String> {
    let head = {
        let name = if group.name.is_empty() { String::new() } else { format!("    name: {},\n", group.name) };
        let time = report::duration(test.eval_time_ms);
        format!("{name}    expr: {}, time: {time},", model::quote::quote(&test.expr))
    };
    let result = match vector(&env.engine, store, &test.expr, group.start_ms + test.eval_time_ms) {
        Ok(answer) => answer.result,
        Err(e) => return Some(format!("{head} err: {e}")),
    };
    let mut given: Vec<(Labels, Value)> = result.into_iter().map(|s| (s.labels, s.value)).collect();
    let mut expected: Vec<(Labels, Wanted)> = Vec::new();
    for (labels, value) in &test.expected {
        // An empty text is the empty set.
        let text = if labels.trim().is_empty() { "{}" } else { labels.trim() };
        let parsed = parse_series_description(text).map_err(|e| e.to_string()).and_then(|d| {
            let value = match value {
                Expected::Float(v) => Wanted::Float(*v),
                Expected::Histogram(text) => {
                    let (histogram, hint_set) = file::histogram(text)?;
                    Wanted::Histogram(Box::new(histogram), hint_set)
                }
            };
            Ok((d.labels, value))
        });
        match parsed {
            Ok(parsed) => expected.push(parsed),
            Err(e) => return Some(format!("{head} err: labels {}: {e}", model::quote::quote(labels))),
        }
    }
    given.sort_by(|a, b| a.0.cmp(&b.0));
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    let equal = given.len() == expected.len()
        && given.iter().zip(&expected).all(|(g, e)| g.0 == e.0 && e.1.is(&g.1, fuzzy));
    if equal {
        return None;
    }
    let list = |all: Vec<String>| if all.is_empty() { "nil".to_owned() } else { all.join(", ") };
    let expected: Vec<String> = expected.iter().map(|(l, v)| report::sample(l, &v.shown())).collect();
    let given: Vec<String> = given.iter().map(|(l, v)| report::sample(l, &shown(v))).collect();
    Some(match options.diff {
        true => {
            let difference = report::difference(&expected.join("\n"), &given.join("\n"));
            format!("{head}\n        diff (-expected +got):\n{difference}")
        }
        false => format!("{head}\n        exp: {}\n        got: {}", list(expected), list(given)),
    })
}

/// An expected value.
enum Wanted {
    Float(f64),
    /// Whether it says what its counter-reset hint is; otherwise any will do.
    Histogram(Box<Histogram>, bool),
}

impl Wanted {
    fn is(&self, given: &Value, fuzzy: bool) -> bool {
        match (self, given) {
            (Wanted::Float(e), Value::Float(g)) => {
                e == g || (fuzzy && (e.next_up() == *g || e.next_down() == *g))
            }
            (Wanted::Histogram(e, hint_set), Value::Histogram(g)) => {
                let mut g = (**g).clone();
                if !hint_set {
                    g.counter_reset_hint = e.counter_reset_hint;
                }
                e.test_expression() == g.test_expression()
            }
            _ => false,
        }
    }

    fn shown(&self) -> String {
        match self {
            Wanted::Float(v) => report::float(*v),
            Wanted::Histogram(h, _) => h.test_expression(),
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Float(v) => report::float(*v),
        Value::Histogram(h) => h.test_expression(),
    }
}
