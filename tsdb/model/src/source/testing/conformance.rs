//! What every [`Source`] must do, as a test that any implementation's own tests can run: answer as
//! [`MemorySource`] does, on random data.

use std::sync::Arc;

use crate::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Histogram};
use crate::labels::Labels;
use crate::matcher::{MatchOp, Matcher};
use crate::sample::{Sample, Value, stale_nan};
use crate::source::memory::MemorySource;
use crate::source::testing::rng::Rng;
use crate::source::{Budget, Hints, LabelQuery, Selection, SeriesColumns, Source, SourceError};

/// Series with their samples, ascending by time, each with its start timestamp (0 = unknown). Label sets are
/// distinct, in no order.
pub type Given = Vec<(Labels, Vec<(Sample, i64)>)>;

/// Where the random data begins: not on a boundary of anything.
const EPOCH_MS: i64 = 1_767_225_601_234;

/// Runs the suite; `make` turns data into the source under test. Panics at the first difference, naming the
/// round.
pub fn check_conformance(make: impl Fn(Given) -> Box<dyn Source>) {
    for round in 0..12 {
        let mut random = Rng(round);
        let given = data(&mut random, round);
        let model = MemorySource::new();
        for (labels, samples) in &given {
            for (s, start) in samples {
                model.append(labels, s.ts_ms, s.value.clone(), *start);
            }
        }
        let source = make(given.clone());
        for query in 0..12 {
            let context = format!("round {round}, query {query}");
            selects_alike(&model, &*source, &mut random, &context);
            names_alike(&model, &*source, &mut random, &context);
        }
        keeps_to_its_budget(&*source, &given, round);
    }
}

fn selects_alike(model: &MemorySource, source: &dyn Source, random: &mut Rng, context: &str) {
    let (min_t_ms, max_t_ms) = range(random);
    let selection = Selection {
        matchers: matchers(random),
        min_t_ms,
        max_t_ms,
        hints: Hints::default(),
        budget: Budget::unlimited(),
    };
    let want = drain(model, &selection).expect("the model reads");
    let got = drain_announced(source, &selection, context)
        .unwrap_or_else(|e| panic!("{context}: {e}; {selection:?}"));
    for pair in got.windows(2) {
        let order = pair[0].labels.series_cmp(&pair[1].labels);
        assert!(order.is_lt(), "{context}: {} before {}", pair[0].labels, pair[1].labels);
    }
    let labels = |all: &[SeriesColumns]| all.iter().map(|s| s.labels.clone()).collect::<Vec<_>>();
    assert_eq!(labels(&got), labels(&want), "{context}: other series; {selection:?}");
    for (got, want) in got.iter().zip(&want) {
        assert_same(got, want, context);
    }
    // The model counted them once.
    let n: usize = want.iter().map(|s| s.ts_ms.len()).sum();
    assert!(selection.budget.samples_read() >= 2 * n as u64, "{context}: samples were not counted");
}

/// Panics unless both hold the same samples, bit for bit.
pub fn assert_same(got: &SeriesColumns, want: &SeriesColumns, context: &str) {
    assert_eq!(got.labels, want.labels, "{context}");
    let labels = &want.labels;
    assert_eq!(got.ts_ms, want.ts_ms, "{context}: timestamps of {labels}");
    let bits = |s: &SeriesColumns| s.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(got), bits(want), "{context}: values of {labels}");
    let starts = |s: &SeriesColumns| s.start_ts_ms.clone().unwrap_or_else(|| vec![0; s.values.len()]);
    assert_eq!(starts(got), starts(want), "{context}: start timestamps of {labels}");
    let histograms = |s: &SeriesColumns| match &s.histograms {
        Some(h) => h.iter().map(|h| h.as_deref().map(fingerprint)).collect(),
        None => vec![None; s.values.len()],
    };
    assert_eq!(histograms(got), histograms(want), "{context}: histograms of {labels}");
    // What was said of a neighbour holds beside that neighbour only: a merge may forget a hint and never
    // makes one.
    for (got, want) in hints(got).into_iter().zip(hints(want)) {
        assert!(
            got == want || got == Some(CounterResetHint::Unknown),
            "{context}: {got:?} for {want:?} of {labels}"
        );
    }
}

fn hints(s: &SeriesColumns) -> Vec<Option<CounterResetHint>> {
    s.histograms.iter().flatten().map(|h| h.as_ref().map(|h| h.counter_reset_hint)).collect()
}

/// A histogram but for its hint, with its floats as bits, which compares NaN with NaN.
fn fingerprint(h: &Histogram) -> String {
    let bits = |v: &[f64]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    format!(
        "{} {:?} {:?} {:?} {:?} {:?} {:?}",
        h.schema,
        bits(&[h.zero_threshold, h.zero_count, h.count, h.sum]),
        h.positive_spans,
        h.negative_spans,
        bits(&h.positive_buckets),
        bits(&h.negative_buckets),
        h.custom_values.as_deref().map(bits),
    )
}

fn names_alike(model: &MemorySource, source: &dyn Source, random: &mut Rng, context: &str) {
    let (min_t_ms, max_t_ms) = range(random);
    let selectors: Vec<Vec<Matcher>> = (0..random.below(3)).map(|_| matchers(random)).collect();
    let query = LabelQuery { selectors, min_t_ms, max_t_ms, budget: Budget::unlimited() };
    let ever = LabelQuery { min_t_ms: i64::MIN, max_t_ms: i64::MAX, ..query.clone() };
    // Time is coarse: what has samples in the range must be named, what matches at any time may be.
    fn between<T: Ord + std::fmt::Debug>(got: &[T], least: &[T], most: &[T], what: &str) {
        assert!(got.windows(2).all(|w| w[0] < w[1]), "{what} not ascending: {got:?}");
        let missing: Vec<_> = least.iter().filter(|x| got.binary_search(x).is_err()).collect();
        assert!(missing.is_empty(), "{what} missing: {missing:?}");
        let extra: Vec<_> = got.iter().filter(|x| most.binary_search(x).is_err()).collect();
        assert!(extra.is_empty(), "{what} too many: {extra:?}");
    }
    let series = |s: &dyn Source, w: &LabelQuery| s.series(w).unwrap_or_else(|e| panic!("{context}: {e}"));
    between(
        &series(source, &query),
        &series(model, &query),
        &series(model, &ever),
        &format!("{context}: series"),
    );
    assert_eq!(series(source, &ever), series(model, &ever), "{context}: series of all time; {ever:?}");
    let names =
        |s: &dyn Source, w: &LabelQuery| s.label_names(w).unwrap_or_else(|e| panic!("{context}: {e}"));
    between(
        &names(source, &query),
        &names(model, &query),
        &names(model, &ever),
        &format!("{context}: label names"),
    );
    assert_eq!(names(source, &ever), names(model, &ever), "{context}: label names of all time; {ever:?}");
    for name in ["__name__", "instance", "rare_3", "no_such_label"] {
        let values = |s: &dyn Source, w: &LabelQuery| {
            s.label_values(name, w).unwrap_or_else(|e| panic!("{context}: {e}"))
        };
        let what = format!("{context}: values of {name}");
        between(&values(source, &query), &values(model, &query), &values(model, &ever), &what);
        assert_eq!(values(source, &ever), values(model, &ever), "{what}, all time; {ever:?}");
    }
}

fn keeps_to_its_budget(source: &dyn Source, given: &Given, round: u64) {
    let samples: usize = given.iter().map(|(_, s)| s.len()).sum();
    let all = |budget: Arc<Budget>| Selection {
        matchers: Vec::new(),
        min_t_ms: i64::MIN,
        max_t_ms: i64::MAX,
        hints: Hints::default(),
        budget,
    };
    let counted = Budget::unlimited();
    drain(source, &all(counted.clone())).unwrap_or_else(|e| panic!("round {round}: {e}"));
    // Copies that were merged count too.
    assert!(counted.samples_read() >= samples as u64, "round {round}: samples were not counted");
    let cancelled = Budget::unlimited();
    cancelled.cancel();
    let stopped = drain(source, &all(cancelled));
    assert!(matches!(stopped, Err(SourceError::Canceled)), "round {round}: a cancelled query went on");
    let late = Budget::new(u64::MAX, u64::MAX, Some(std::time::Instant::now()));
    let stopped = drain(source, &all(late));
    assert!(
        matches!(stopped, Err(SourceError::TimedOut)),
        "round {round}: a query went on after its deadline"
    );
}

/// All that a selection gives.
pub fn drain(source: &dyn Source, selection: &Selection) -> Result<Vec<SeriesColumns>, SourceError> {
    let mut cursor = source.select(selection)?;
    let mut all = Vec::new();
    while let Some(batch) = cursor.next_batch()? {
        assert!(!batch.is_empty(), "a cursor gave an empty batch");
        all.extend(batch);
    }
    Ok(all)
}

/// As [`drain`]; looks whether all that comes was among what the cursor said was to come, in that order.
fn drain_announced(
    source: &dyn Source,
    selection: &Selection,
    context: &str,
) -> Result<Vec<SeriesColumns>, SourceError> {
    let mut cursor = source.select(selection)?;
    let mut series: Vec<SeriesColumns> = Vec::new();
    let mut announced = Vec::new();
    loop {
        announced.extend(cursor.labels_to_come().map(|labels| (series.len(), labels)));
        let Some(batch) = cursor.next_batch()? else { break };
        series.extend(batch);
    }
    for (from, labels) in announced {
        let ascending = labels.windows(2).all(|w| w[0].series_cmp(&w[1]).is_lt());
        assert!(ascending, "{context}: the labels to come do not ascend: {labels:?}");
        let mut to_come = labels.iter();
        for came in &series[from..] {
            let known = to_come.any(|labels| *labels == came.labels);
            assert!(known, "{context}: {} came and was not announced", came.labels);
        }
    }
    Ok(series)
}

const METRICS: [&str; 6] = ["", "up", "http_requests_total", "rpc_duration_seconds", "größe", "zz"];

fn data(random: &mut Rng, round: u64) -> Given {
    if round == 0 {
        return Vec::new();
    }
    let mut given: std::collections::BTreeMap<Labels, Vec<(Sample, i64)>> = std::collections::BTreeMap::new();
    let series = if round == 1 { 1 } else { 20 + random.below(60) };
    // Scrapes of a few targets; series of one target share their timestamps.
    let timelines: Vec<Vec<i64>> = (0..4).map(|_| timeline(random)).collect();
    for s in 0..series {
        let mut labels = crate::labels::LabelsBuilder::default();
        labels.set("__name__", METRICS[random.below(6) as usize]);
        labels.set("instance", &format!("host-{}:9100", random.below(7)));
        labels.set("Zone", random.pick(&["", "a", "b"]));
        labels.set("code", random.pick(&["", "200", "404", "500"]));
        if random.below(4) == 0 {
            labels.set(&format!("rare_{}", random.below(200)), &format!("v{}", random.below(3)));
        }
        if random.below(9) == 0 {
            labels.set("rare_3", &"long ".repeat(1 + random.below(80) as usize));
        }
        labels.set("n", &s.to_string());
        let mut times = timelines[random.below(4) as usize].clone();
        if random.below(5) == 0 {
            times = timeline(random);
        }
        // Some series appear late or end early.
        if random.below(4) == 0 {
            times.drain(..random.below(times.len() as u64) as usize);
        }
        if random.below(4) == 0 {
            times.truncate(1 + random.below(times.len() as u64) as usize);
        }
        let samples = samples(random, &times);
        given.insert(labels.build(), samples);
    }
    let mut given: Given = given.into_iter().collect();
    for i in (1..given.len()).rev() {
        given.swap(i, random.below(i as u64 + 1) as usize);
    }
    given
}

fn timeline(random: &mut Rng) -> Vec<i64> {
    let step = *random.pick(&[&1_000, &15_000, &60_000, &600_000]);
    let jitter = if random.below(2) == 0 { 1 } else { 900 };
    let n = 1 + random.below(300);
    let from = EPOCH_MS + random.below(7_200_000) as i64;
    (0..n as i64).map(|i| from + i * step + random.below(jitter) as i64).collect()
}

fn samples(random: &mut Rng, times: &[i64]) -> Vec<(Sample, i64)> {
    let kind = random.below(9);
    let starts = random.below(4);
    let mut level = random.below(1_000_000) as f64;
    let mut start = times[0] - 1 - random.below(100_000) as i64;
    let mut out = Vec::with_capacity(times.len());
    for (i, t) in times.iter().enumerate() {
        level += random.below(50) as f64;
        let float = match kind {
            0 => 1.0,
            1 => level,
            2 => level / 1000.0,
            3 => (level + 2.0).sqrt(),
            4 => f64::from_bits(random.roll()),
            5 => random.below(9000) as f64 / 10.0 - 450.0,
            6 => [0.0, -0.0, f64::INFINITY, f64::NAN, 5e-324][random.below(5) as usize],
            _ => level,
        };
        let value = match kind {
            7 => Value::Histogram(Arc::new(histogram(random, level))),
            8 if random.below(3) == 0 => Value::Histogram(Arc::new(histogram(random, level))),
            _ if i + 1 == times.len() && random.below(3) == 0 => Value::Float(stale_nan()),
            _ => Value::Float(float),
        };
        if random.below(40) == 0 {
            start = t - 1;
        }
        let start = match starts {
            0 => start,
            1 if random.below(2) == 0 => start,
            _ => 0,
        };
        out.push((Sample { ts_ms: *t, value }, start));
    }
    out
}

fn histogram(random: &mut Rng, level: f64) -> Histogram {
    let custom = random.below(4) == 0;
    let n = 1 + random.below(6);
    let gaps = random.below(3);
    let buckets = |random: &mut Rng| (0..n).map(|_| level + random.below(100) as f64).collect::<Vec<_>>();
    let split = 1 + (n as u32 - 1) / 2;
    let mut spans = vec![BucketSpan { offset: -3 + gaps, length: split }];
    if n as u32 > split {
        spans.push(BucketSpan { offset: gaps, length: n as u32 - split });
    }
    let hints = [
        CounterResetHint::Unknown,
        CounterResetHint::CounterReset,
        CounterResetHint::NotCounterReset,
        CounterResetHint::Gauge,
    ];
    if custom {
        spans[0].offset = 0;
    }
    Histogram {
        counter_reset_hint: hints[random.below(4) as usize],
        schema: if custom { CUSTOM_BUCKETS_SCHEMA } else { random.below(12) - 4 },
        zero_threshold: if custom { 0.0 } else { 1e-128 },
        zero_count: if custom { 0.0 } else { random.below(5) as f64 },
        count: level * 3.0,
        sum: if random.below(20) == 0 { stale_nan() } else { level / 7.0 },
        positive_spans: spans.clone(),
        positive_buckets: buckets(random),
        negative_spans: if custom || n < 3 { Vec::new() } else { spans },
        negative_buckets: if custom || n < 3 { Vec::new() } else { buckets(random) },
        custom_values: custom.then(|| (0..n + 3).map(|i| i as f64 * 0.5).collect()),
    }
}

fn matchers(random: &mut Rng) -> Vec<Matcher> {
    let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
    let mut out = Vec::new();
    if random.below(2) == 0 {
        out.push(Matcher::equal("__name__", METRICS[random.below(6) as usize]));
    }
    for _ in 0..random.below(3) {
        let op = ops[random.below(4) as usize];
        let name = random.pick(&["instance", "Zone", "code", "rare_3", "rare_7", "n", "missing", "__name__"]);
        let value =
            random.pick(&["", "host-1:9100", "host-[12]:.*", "a", "4..|200", ".+", ".*", "v1", "up|zz"]);
        out.push(Matcher::new(op, name, value).expect("these compile"));
    }
    out
}

fn range(random: &mut Rng) -> (i64, i64) {
    let from = EPOCH_MS + random.below(12_000_000) as i64 - 2_000_000;
    match random.below(6) {
        0 => (i64::MIN, i64::MAX),
        1 => (from, from),
        2 => (from, from - 1),
        3 => (i64::MIN, from),
        4 => (from, i64::MAX),
        _ => (from, from + random.below(5_000_000) as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_source_agrees_with_itself_whatever_the_order_of_writes() {
        check_conformance(|given| {
            let source = MemorySource::new();
            for (labels, samples) in given.iter().rev() {
                for (s, start) in samples.iter().rev() {
                    source.append(labels, s.ts_ms, s.value.clone(), *start);
                }
            }
            Box::new(source)
        });
    }
}
