//! What must be the same in the store and in the model, asked at random.

use std::collections::{BTreeMap, BTreeSet};

use model::labels::Labels;
use model::matcher::{MatchOp, Matcher};
use model::sample::Value;
use model::source::testing::conformance::drain;
use model::source::{Budget, Hints, LabelQuery, Selection, SeriesColumns, Source, SourceError};
use query::engine::{Engine, QueryRequest};
use query::value::QueryValue;

use crate::world::{DAY, HOUR, START, World, tenant};

/// Asked of samples, at any time and step.
const OF_SAMPLES: [&str; 16] = [
    "requests_total",
    "{job='node'}",
    "sum by (job) (rate(requests_total[3h]))",
    "avg_over_time(temperature[2h])",
    "quantile_over_time(0.9, temperature[5h])",
    "stddev_over_time(temperature[3h])",
    "changes(state[9h])",
    "resets({job='api'}[11h])",
    "increase(pod_seconds_total[4h])",
    "count_over_time({job=~'api|node|pods'}[3h])",
    "last_over_time(state[2h])",
    "histogram_count(increase(latency[6h]))",
    "histogram_quantile(0.5, sum(latency))",
    "topk(3, temperature)",
    "delta(temperature[4h])",
    "irate(requests_total[3h])",
];

/// Asked of windows: exact where steps and ranges are multiples of the resolution.
const OF_WINDOWS: [&str; 14] = [
    "requests_total",
    "state",
    "count_over_time({job=~'api|node|pods'}[{r}])",
    "sum_over_time(temperature[{r}])",
    "avg_over_time(temperature[{r}])",
    "min_over_time(temperature[{r}])",
    "max_over_time(temperature[{r}])",
    "last_over_time(state[{r}])",
    "increase(requests_total[{r}])",
    "rate(pod_seconds_total[{r}])",
    "resets(requests_total[{r}])",
    "changes(state[{r}])",
    "sum by (instance) (increase(requests_total[{r}]))",
    "histogram_count(increase(latency[{r}]))",
];

/// A value in words, so that histograms and NaN compare.
fn words(v: &Value) -> String {
    match v {
        Value::Float(v) => format!("{v:?}"),
        Value::Histogram(h) => {
            format!("{} {:?} {:?} {:?} {:?}", h.schema, h.count, h.sum, h.positive_spans, h.positive_buckets)
        }
    }
}

/// Label set → times with values; floats apart, to be compared with room for rounding.
type Answer = BTreeMap<String, Vec<(i64, Option<f64>, String)>>;

fn answer(value: QueryValue) -> Answer {
    let mut out = Answer::new();
    let mut put = |labels: &Labels, t: i64, v: &Value| {
        let float = if let Value::Float(v) = v { Some(*v) } else { None };
        out.entry(labels.to_string()).or_default().push((t, float, words(v)));
    };
    match value.with_times() {
        QueryValue::Vector { ts_ms, samples } => samples.iter().for_each(|s| put(&s.labels, ts_ms, &s.value)),
        QueryValue::RangeVector(all) => {
            for s in all {
                s.ts_ms.iter().zip(&s.values).for_each(|(t, v)| put(&s.labels, *t, &Value::Float(*v)));
                let histograms = s.histogram_ts_ms.iter().zip(&s.histograms);
                histograms.for_each(|(t, h)| put(&s.labels, *t, &Value::Histogram(h.clone())));
            }
        }
        other => panic!("no {} was asked for", other.type_name()),
    }
    out
}

fn close(a: &(i64, Option<f64>, String), b: &(i64, Option<f64>, String)) -> bool {
    let floats = match (a.1, b.1) {
        (Some(x), Some(y)) => {
            x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= 1e-9 * x.abs().max(y.abs())
        }
        _ => a.2 == b.2,
    };
    a.0 == b.0 && floats
}

fn difference(want: &Answer, got: &Answer) -> Option<String> {
    if let Some(labels) =
        want.keys().chain(got.keys()).find(|l| want.contains_key(*l) != got.contains_key(*l))
    {
        return Some(format!(
            "{labels} is only in the {}",
            if want.contains_key(labels) { "model" } else { "store" }
        ));
    }
    want.iter().find_map(|(labels, points)| {
        let others = &got[labels];
        let at = points.iter().zip(others).position(|(a, b)| !close(a, b));
        let at = at.or((points.len() != others.len()).then_some(points.len().min(others.len())))?;
        Some(format!("{labels}, point {at}: the model {:?}, the store {:?}", points.get(at), others.get(at)))
    })
}

/// The store could not be read, which is an answer too while it fails on purpose.
#[derive(Debug)]
pub struct Unreadable;

/// A query of both.
fn ask(world: &World, text: &str, start: i64, end: i64, step: i64) -> Result<(), Unreadable> {
    let engine = Engine::default();
    let source = world.db().source(&tenant());
    let request = match step {
        0 => QueryRequest::instant(text, end),
        _ => QueryRequest::range(text, start, end, step),
    };
    let want = engine.run(&*world.model, &request).unwrap_or_else(|e| panic!("{text}: {e}"));
    let got = engine.run(&*source, &request).map_err(|_| Unreadable)?;
    if let Some(difference) = difference(&answer(want.value), &answer(got.value)) {
        panic!(
            "{text} from {} to {} by {step}, now {}: {difference}",
            hours(start),
            hours(end),
            hours(world.now())
        );
    }
    Ok(())
}

/// Hours since the world began.
fn hours(t: i64) -> String {
    format!("{:.3} h", (t - START) as f64 / HOUR as f64)
}

fn columns(s: &SeriesColumns) -> Vec<(i64, u64, Option<String>)> {
    (0..s.values.len())
        .map(|i| {
            let h = s.histograms.as_ref().and_then(|h| h[i].clone());
            (s.ts_ms[i], s.values[i].to_bits(), h.map(|h| words(&Value::Histogram(h))))
        })
        .collect()
}

/// Samples as they are, to the bit.
fn selections(world: &mut World, from: i64) -> Result<(), Unreadable> {
    let now = world.now();
    let some: [&[Matcher]; 5] = [
        &[],
        &[Matcher::equal("__name__", "requests_total")],
        &[Matcher::new(MatchOp::Regex, "instance", "i0[1-4]").expect("it compiles")],
        &[Matcher::equal("job", "debug")],
        &[Matcher::new(MatchOp::NotEqual, "pod", "").expect("it compiles")],
    ];
    for matchers in some {
        let (a, b) = (world.rng.below((now - from) as u64 + 1), world.rng.below((now - from) as u64 + 1));
        let (min_t_ms, max_t_ms) = (from + a.min(b) as i64, from + a.max(b) as i64);
        let max_t_ms = max_t_ms.min(min_t_ms + 5 * DAY);
        let selection = Selection {
            matchers: matchers.to_vec(),
            min_t_ms,
            max_t_ms,
            hints: Hints::default(),
            budget: Budget::unlimited(),
        };
        let want = drain(&*world.model, &selection).expect("the model reads");
        let got = drain(&*world.db().source(&tenant()), &selection);
        let got = got.map_err(|_: SourceError| Unreadable)?;
        let names = |all: &[SeriesColumns]| all.iter().map(|s| s.labels.to_string()).collect::<Vec<_>>();
        let context =
            format!("{matchers:?} from {} to {}, now {}", hours(min_t_ms), hours(max_t_ms), hours(now));
        assert_eq!(names(&got), names(&want), "{context}");
        for (got, want) in got.iter().zip(&want) {
            let (got_columns, want_columns) = (columns(got), columns(want));
            if got_columns != want_columns {
                let differs = |a: &[(i64, u64, Option<String>)], b: &[(i64, u64, Option<String>)]| {
                    let only: Vec<String> = a
                        .iter()
                        .filter(|x| !b.contains(x))
                        .take(4)
                        .map(|x| format!("{} {} {:?}", hours(x.0), f64::from_bits(x.1), x.2))
                        .collect();
                    only
                };
                panic!(
                    "{context}: {} has in the store {:?}, in the model {:?}",
                    got.labels,
                    differs(&got_columns, &want_columns),
                    differs(&want_columns, &got_columns)
                );
            }
        }
    }
    Ok(())
}

/// Names and values: all of what has samples in the range, nothing that never was.
fn labels(world: &World, ever: &BTreeSet<Labels>) -> Result<(), Unreadable> {
    let now = world.now();
    let source = world.db().source(&tenant());
    for selectors in [vec![], vec![vec![Matcher::equal("__name__", "pod_seconds_total")]]] {
        let query =
            LabelQuery { selectors, min_t_ms: now - 2 * DAY, max_t_ms: now, budget: Budget::unlimited() };
        let least: BTreeSet<Labels> =
            world.model.series(&query).expect("the model reads").into_iter().collect();
        let got: BTreeSet<Labels> = source.series(&query).map_err(|_| Unreadable)?.into_iter().collect();
        assert!(got.is_superset(&least), "{:?} is missing", least.difference(&got).next());
        assert!(got.is_subset(ever), "{:?} never was", got.difference(ever).next());
        for name in ["instance", "pod", "__name__"] {
            let values = source.label_values(name, &query).map_err(|_| Unreadable)?;
            let of = |all: &BTreeSet<Labels>| {
                all.iter().filter_map(|l| l.get(name)).map(str::to_string).collect::<BTreeSet<String>>()
            };
            assert!(
                values.is_sorted()
                    && values.iter().cloned().collect::<BTreeSet<_>>().is_superset(&of(&least))
            );
        }
        let names = source.label_names(&query).map_err(|_| Unreadable)?;
        assert!(names.is_sorted() && (least.is_empty() || names.iter().any(|n| n == "__name__")));
    }
    Ok(())
}

/// Everything at this moment; `questions` of each kind.
pub fn all(world: &mut World, questions: usize) -> Result<(), Unreadable> {
    world.forget_expired();
    let now = world.now();
    let ever: BTreeSet<Labels> = {
        let query = LabelQuery {
            selectors: Vec::new(),
            min_t_ms: i64::MIN,
            max_t_ms: i64::MAX,
            budget: Budget::unlimited(),
        };
        // What was deleted may be named for as long as it lies in a block.
        world.everybody().into_iter().chain(world.model.series(&query).expect("the model reads")).collect()
    };
    let raw_from = START.max(now - world.size.raw_keep_ms + HOUR);
    selections(world, raw_from)?;
    labels(world, &ever)?;
    for _ in 0..questions {
        let text = OF_SAMPLES[world.rng.below(OF_SAMPLES.len() as u64) as usize];
        // Ranges reach back by up to 11 h.
        let room = now - raw_from - 12 * HOUR;
        if room <= 0 {
            break;
        }
        let end = now - world.rng.below(room as u64) as i64;
        let step = [0, 60_000, 7 * 60_000, HOUR][world.rng.below(4) as usize];
        let start = (end - 40 * step).max(raw_from + 12 * HOUR);
        ask(world, text, start, end, step)?;
    }
    for _ in 0..questions {
        // Steps and ranges of whole hours are exact at every resolution, those of 5 minutes while there are
        // windows of that.
        let fine = world.rng.below(2) == 0;
        let (step, oldest) = match fine {
            true => (5 * 60_000, START.max(now - world.size.five_minutes_keep_ms + HOUR)),
            false => (HOUR, START),
        };
        let factor = 1 + world.rng.below(4) as i64;
        let range = step * factor;
        let steps = ((now - oldest - range) / step) as u64;
        if steps < 2 {
            break;
        }
        let text = OF_WINDOWS[world.rng.below(OF_WINDOWS.len() as u64) as usize];
        let text = text.replace("{r}", &format!("{}m", range / 60_000));
        let end = (oldest + range).div_euclid(step) * step + step + world.rng.below(steps) as i64 * step;
        let end = end.min(now.div_euclid(step) * step);
        let start = (end - 60 * step).max((oldest + range).div_euclid(step) * step + step);
        ask(world, &text, start, end, step)?;
    }
    Ok(())
}
