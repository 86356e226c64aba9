//! The exactness table: what is evaluated over downsampled windows is what the samples give, for every
//! function that may take them, over all kinds of series; and what cannot be exact says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Histogram};
use model::labels::Labels;
use model::matcher::matches_all;
use model::rollup::downsample::downsample;
use model::rollup::{Aggregates, WindowColumns};
use model::sample::stale_nan;
use model::source::memory::Batches;
use model::source::merge::{SharedTimelines, merge_copies};
use model::source::testing::rng::Rng;
use model::source::{
    LabelQuery, ResolutionPart, Selection, SeriesColumns, SeriesCursor, Source, SourceError,
};
use model::span::span_end;
use query::annotations::Severity;
use query::engine::{Engine, EngineOptions, QueryOptions, QueryRequest, QueryTime};
use query::parse::ParseOptions;
use query::plan::resolution::MaxResolution;
use query::value::{QueryResult, QueryValue};

const M: i64 = 60_000;
const H: i64 = 60 * M;
/// A full day.
const BASE_MS: i64 = 1_767_225_600_000;

/// Series of samples, handed out as windows as far as a selection can take them: the coarsest that no cut
/// lies in.
struct Downsampled {
    series: Vec<SeriesColumns>,
    /// Resolutions there are, coarsest first; the last answers where nothing finer is left.
    resolutions: Vec<i64>,
}

impl Downsampled {
    /// The resolution for an entry at `t`, and whether that is what was asked for.
    fn choose(&self, t: i64, selection: &Selection) -> (i64, bool) {
        let w = &selection.hints.rollups;
        let straddled = |r: i64| {
            let end = span_end(t, r);
            w.cuts_ms.iter().any(|c| end - r < *c && *c < end)
        };
        let fits =
            self.resolutions.iter().find(|r| **r == 0 || (**r <= w.max_resolution_ms && !straddled(**r)));
        fits.map_or((self.resolutions[self.resolutions.len() - 1], false), |r| (*r, true))
    }

    fn part(&self, series: &SeriesColumns, selection: &Selection) -> Option<SeriesColumns> {
        let mut parts: Vec<SeriesColumns> = Vec::new();
        let mut from = 0;
        while from < series.ts_ms.len() {
            let (resolution, _) = self.choose(series.ts_ms[from], selection);
            let mut to = from + 1;
            while to < series.ts_ms.len() && self.choose(series.ts_ms[to], selection).0 == resolution {
                to += 1;
            }
            let piece = series.pick(&(from..to).collect::<Vec<_>>());
            let mut piece = if resolution > 0 { downsample(&piece, resolution) } else { piece };
            if let Some(w) = &mut piece.windows {
                leave(w, selection.hints.rollups.aggregates);
            }
            let keep: Vec<usize> = (0..piece.ts_ms.len())
                .filter(|i| (selection.min_t_ms..=selection.max_t_ms).contains(&piece.ts_ms[*i]))
                .collect();
            if !keep.is_empty() {
                parts.push(piece.pick(&keep));
            }
            from = to;
        }
        (!parts.is_empty()).then(|| merge_copies(parts, &mut SharedTimelines::default()))
    }
}

/// Takes out the columns that were not asked for.
fn leave(w: &mut WindowColumns, asked: Aggregates) {
    let gone = |what| !asked.has(what);
    w.count.take_if(|_| gone(Aggregates::COUNT));
    w.first.take_if(|_| gone(Aggregates::FIRST));
    w.first_ts_ms.take_if(|_| gone(Aggregates::FIRST));
    w.sum.take_if(|_| gone(Aggregates::SUM));
    w.min.take_if(|_| gone(Aggregates::MIN));
    w.max.take_if(|_| gone(Aggregates::MAX));
    w.reset_sum.take_if(|_| gone(Aggregates::RESET_SUM));
    w.resets.take_if(|_| gone(Aggregates::RESETS));
    w.changes.take_if(|_| gone(Aggregates::CHANGES));
    if let Some(h) = &mut w.histograms {
        for (what, column) in [
            (Aggregates::FIRST, &mut h.first),
            (Aggregates::SUM, &mut h.sum),
            (Aggregates::RESET_SUM, &mut h.reset_sum),
        ] {
            if gone(what) {
                column.iter_mut().for_each(|h| *h = None);
            }
        }
    }
}

impl Source for Downsampled {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        let mut parts: BTreeMap<(i64, bool), (i64, i64)> = BTreeMap::new();
        let mut found = Vec::new();
        for series in self.series.iter().filter(|s| matches_all(&s.labels, &selection.matchers)) {
            for t in series.ts_ms.iter().filter(|t| (selection.min_t_ms..=selection.max_t_ms).contains(t)) {
                let span = parts.entry(self.choose(*t, selection)).or_insert((*t, *t));
                *span = (span.0.min(*t), span.1.max(*t));
            }
            found.extend(self.part(series, selection));
        }
        if let Some(answered) = &selection.hints.rollups.report {
            for ((resolution_ms, exact), (min_t_ms, max_t_ms)) in parts {
                let coarse = !exact;
                answered.note(ResolutionPart {
                    min_t_ms,
                    max_t_ms,
                    resolution_ms,
                    coarse,
                    approximate: false,
                });
            }
        }
        Ok(Box::new(Batches::new(found)))
    }

    fn series(&self, _: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        Ok(self.series.iter().map(|s| s.labels.clone()).collect())
    }
}

const METRICS: [&str; 11] = [
    "constant",
    "c_total",
    "custom",
    "ends",
    "gauge",
    "h_gauge",
    "mixed",
    "native",
    "nans",
    "sparse_total",
    "whole",
];

fn native(random: &mut Rng, level: f64, metric: &str) -> Arc<Histogram> {
    let custom = metric == "custom";
    let hints = [CounterResetHint::Unknown, CounterResetHint::NotCounterReset];
    Arc::new(Histogram {
        counter_reset_hint: match metric {
            "h_gauge" => CounterResetHint::Gauge,
            _ => hints[random.below(9) as usize / 8],
        },
        schema: if custom { CUSTOM_BUCKETS_SCHEMA } else { 3 - random.below(30) / 29 },
        count: 3.0 * level,
        sum: level * 0.5,
        positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
        positive_buckets: vec![level, 2.0 * level],
        custom_values: custom.then(|| Arc::from([1.0, 2.0, 5.0])),
        ..Histogram::default()
    })
}

/// A day of one series: samples at edges of windows, jitter, gaps, falls, markers.
fn series(metric: &str, number: usize, random: &mut Rng) -> SeriesColumns {
    let step = if metric == "sparse_total" { 17 * M } else { [30_000, 60_000, 47_000][number] };
    let jitter = if number == 0 { 1 } else { 5_000 };
    let mut ts: Vec<i64> =
        (1..24 * H / step).map(|i| BASE_MS + i * step - random.below(jitter) as i64).collect();
    if number == 2 {
        ts.retain(|t| (t / H) % 5 != 1 && (t / (7 * M)) % 6 != 2);
    }
    ts.dedup();
    let mut level = random.below(1000) as f64;
    let (mut values, mut histograms) = (Vec::new(), Vec::new());
    for i in 0..ts.len() {
        if random.below(120) == 0 {
            level = random.below(9) as f64;
        }
        level += random.below(7) as f64;
        let any: u64 = random.below(1_000_000);
        let value = match metric {
            "constant" => 4.5,
            "gauge" => (any % 10_000) as f64 / 7.0 - 300.0,
            "nans" if !any.is_multiple_of(3) || (i / 40) % 5 == 2 => f64::NAN,
            "ends" if any.is_multiple_of(40) || (i / 90) % 4 == 2 => stale_nan(),
            "whole" => (any % 4) as f64,
            _ => level,
        };
        let marker = any.is_multiple_of(70);
        let histogram = match metric {
            "native" | "custom" | "h_gauge" if !marker => Some(native(random, level, metric)),
            "mixed" if (i / 37) % 3 == 0 => Some(native(random, level, metric)),
            _ => None,
        };
        let value = if histogram.is_none() && matches!(metric, "native" | "custom" | "h_gauge") {
            stale_nan()
        } else {
            value
        };
        values.push(histogram.as_ref().map_or(value, |h| h.sum));
        histograms.push(histogram);
    }
    SeriesColumns {
        labels: Labels::from_pairs([("__name__", metric.to_string()), ("n", number.to_string())]),
        ts_ms: ts.into(),
        values,
        histograms: histograms.iter().any(Option::is_some).then_some(histograms),
        start_ts_ms: None,
        windows: None,
    }
}

fn all_series() -> Vec<SeriesColumns> {
    let mut random = Rng(11);
    let numbers = METRICS.iter().flat_map(|m| (0..3).map(move |n| (*m, n)));
    let mut all: Vec<_> = numbers.map(|(m, n)| series(m, n, &mut random)).collect();
    all.sort_by(|a, b| a.labels.series_cmp(&b.labels));
    all
}

fn engine(max_resolution: MaxResolution) -> Engine {
    let parse = ParseOptions { experimental_functions: true, ..ParseOptions::default() };
    Engine::new(EngineOptions { parse, max_resolution, ..EngineOptions::default() })
}

fn run(source: &dyn Source, text: &str, time: QueryTime, most: MaxResolution) -> QueryResult {
    let request = QueryRequest { text, time, options: QueryOptions::default() };
    engine(most).run(source, &request).unwrap_or_else(|e| panic!("{text}: {}", e.message))
}

fn near(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits()
        || (a.is_nan() && b.is_nan())
        || (a - b).abs() <= 1e-11 * a.abs().max(b.abs()).max(1e-3)
}

/// `a` may have coarser buckets: where the counter was reset between the first two samples of a range, the
/// samples' own answer leaves the first one's schema out of account, and a window does not know which of its
/// samples had which.
fn near_histograms(a: &Histogram, b: &Histogram) -> bool {
    let (mut x, mut y) = (a.clone(), b.clone());
    if a.schema < b.schema && !a.uses_custom_buckets() {
        y = b.copy_to_schema(a.schema).expect("coarser");
    }
    x.compact(0);
    y.compact(0);
    let all = |h: &Histogram| {
        [&[h.count, h.sum, h.zero_count][..], &h.positive_buckets, &h.negative_buckets].concat()
    };
    x.schema == y.schema
        && x.positive_spans == y.positive_spans
        && x.custom_bounds() == y.custom_bounds()
        && all(&x).iter().zip(all(&y)).all(|(a, b)| near(*a, b))
}

/// One label set's points by time.
type Points = BTreeMap<i64, (Option<f64>, Option<Arc<Histogram>>)>;

fn points(value: &QueryValue) -> BTreeMap<String, Points> {
    use model::sample::Value;
    let mut out: BTreeMap<String, Points> = BTreeMap::new();
    match &value.clone().with_times() {
        QueryValue::Vector { ts_ms, samples } => {
            for s in samples {
                let point = match &s.value {
                    Value::Float(v) => (Some(*v), None),
                    Value::Histogram(h) => (None, Some(h.clone())),
                };
                out.entry(s.labels.to_string()).or_default().insert(*ts_ms, point);
            }
        }
        QueryValue::RangeVector(all) => {
            for s in all {
                let of = out.entry(s.labels.to_string()).or_default();
                of.extend(s.ts_ms.iter().zip(&s.values).map(|(t, v)| (*t, (Some(*v), None))));
                of.extend(
                    s.histogram_ts_ms.iter().zip(&s.histograms).map(|(t, h)| (*t, (None, Some(h.clone())))),
                );
            }
        }
        other => panic!("{other:?} is not compared"),
    }
    out
}

fn assert_alike(text: &str, got: &QueryResult, want: &QueryResult) {
    let (a, b) = (points(&got.value), points(&want.value));
    let labels = |m: &BTreeMap<String, Points>| m.keys().cloned().collect::<Vec<_>>();
    assert_eq!(labels(&a), labels(&b), "{text}");
    for (labels, points) in &b {
        let times = |p: &Points| p.keys().copied().collect::<Vec<_>>();
        assert_eq!(times(&a[labels]), times(points), "{text}: {labels}");
        for (t, want) in points {
            let got = &a[labels][t];
            let alike = match (got, want) {
                ((Some(x), None), (Some(y), None)) => near(*x, *y),
                ((None, Some(x)), (None, Some(y))) => near_histograms(x, y),
                _ => false,
            };
            assert!(alike, "{text}: {labels} at {}: {got:?}, the samples give {want:?}", (t - BASE_MS) / M);
        }
    }
    for severity in [Severity::Warning, Severity::Info] {
        let texts = |r: &QueryResult| r.annotations.raw(severity).map(str::to_string).collect::<Vec<_>>();
        assert_eq!(texts(got), texts(want), "{text}");
    }
}

fn used(result: &QueryResult) -> Vec<i64> {
    let mut all: Vec<i64> = result.stats.resolutions.iter().map(|p| p.resolution_ms / M).collect();
    all.sort_unstable();
    all.dedup();
    all
}

const FUNCTIONS: [&str; 15] = [
    "count_over_time",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "first_over_time",
    "last_over_time",
    "present_over_time",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "rate",
    "increase",
    "delta",
    "resets",
    "changes",
];

fn every(start: i64, step: i64, count: i64) -> QueryTime {
    QueryTime::Range {
        start_ms: BASE_MS + start,
        end_ms: BASE_MS + start + (count - 1) * step,
        step_ms: step,
    }
}

#[test]
fn windows_give_what_the_samples_give() {
    let raw = Downsampled { series: all_series(), resolutions: vec![0] };
    let all = Downsampled { series: all_series(), resolutions: vec![H, 5 * M, 0] };
    let five = Downsampled { series: all_series(), resolutions: vec![5 * M, 0] };
    let at = |t: i64| QueryTime::Instant { time_ms: BASE_MS + t };
    let check = |text: &str, time: QueryTime, want: &[i64]| {
        let expected = run(&raw, text, time, MaxResolution::Auto);
        let got = run(&all, text, time, MaxResolution::Auto);
        assert_alike(text, &got, &expected);
        let used = used(&got);
        // A sample every 17 minutes may leave an edge without any.
        let sparse = text.contains("sparse") && used.iter().all(|r| want.contains(r));
        assert!(sparse || used == want, "{text} {time:?}: {:?}", got.stats.resolutions);
        assert!(got.stats.resolutions.iter().all(|p| p.exact()), "{text}");
        // Where there are no hours, five minutes are as good.
        assert_alike(text, &run(&five, text, time, MaxResolution::Auto), &expected);
    };
    for (m, metric) in METRICS.into_iter().enumerate() {
        for (i, f) in FUNCTIONS.into_iter().enumerate() {
            let questions = [
                // Steps and range of whole hours; ranges longer than steps and shorter; of five minutes;
                // neither.
                (format!("{f}({metric}[1h])"), every(H, H, 22), &[60][..]),
                (format!("{f}({metric}[3h])"), every(2 * H, H, 20), &[60]),
                (format!("{f}({metric}[1h])"), every(H, 4 * H, 5), &[60]),
                (format!("{f}({metric}[1h] offset 2h)"), every(4 * H, H, 18), &[60]),
                (format!("{f}({metric}[15m])"), every(H, 10 * M, 100), &[5]),
                (format!("{f}({metric}[1h])"), every(H + 5 * M, 30 * M, 40), &[5]),
                (format!("{f}({metric}[7m])"), every(H, H, 20), &[0]),
                (format!("{f}({metric}[1h])"), every(H + 1, H, 20), &[0]),
                // Few evaluations anywhere: whole windows in the midst, finer ones at the edges, samples at
                // the very ends.
                (format!("{f}({metric}[20h])"), at(23 * H), &[60]),
                (format!("{f}({metric}[20h7m])"), at(23 * H + 11 * M + 13_007), &[0, 5, 60]),
                (format!("{f}({metric}[9h] @ {}.5)", BASE_MS / 1000 + 40_000), every(0, M, 60), &[0, 5, 60]),
            ];
            // Each question meets most functions and kinds of series; all of all would take minutes.
            for (q, (text, time, want)) in questions.iter().enumerate() {
                if (m + 2 * i + q) % 3 != 0 {
                    check(text, *time, want);
                }
            }
        }
        check(metric, every(H, H, 20), &[60]);
        check(metric, every(H, 5 * M, 200), &[5]);
        check(&format!("{metric} offset 10m"), every(H, H, 20), &[5]);
        check(&format!("timestamp({metric})"), every(H, H, 20), &[60]);
        check(&format!("absent_over_time({metric}{{n=\"2\"}}[1h])"), every(H, H, 22), &[60]);
        check(&format!("max_over_time({metric}[2h:1h])"), every(4 * H, H, 18), &[60]);
        check(&format!("max_over_time(rate({metric}[1h])[6h:30m])"), every(8 * H, H, 14), &[5]);
    }
    for (text, time, want) in [
        (
            "sum by (n) (rate(c_total[1h])) / ignoring(x) sum by (n) (increase(c_total[2h]))",
            every(3 * H, H, 20),
            &[60][..],
        ),
        ("histogram_quantile(0.9, rate(native[2h]))", every(3 * H, H, 20), &[60]),
        ("histogram_count(increase(native[1h]))", every(3 * H, H, 20), &[60]),
        ("histogram_avg(sum_over_time(custom[2h]))", every(3 * H, H, 20), &[60]),
        // One selection, two users: both can take hours, or one of them needs samples.
        ("max_over_time(gauge[2h]) - min_over_time(gauge[2h])", every(3 * H, H, 20), &[60]),
        ("max_over_time(gauge[2h]) - stddev_over_time(gauge[2h])", every(3 * H, H, 20), &[0]),
        ("quantile_over_time(0.9, gauge[1h])", every(3 * H, H, 20), &[0]),
        ("irate(c_total[1h])", every(3 * H, H, 20), &[0]),
        ("deriv(gauge[1h])", every(3 * H, H, 20), &[0]),
        ("mad_over_time(gauge[1h])", every(3 * H, H, 20), &[0]),
        ("predict_linear(gauge[1h], 60)", every(3 * H, H, 20), &[0]),
        ("absent(gauge)", every(3 * H, H, 20), &[60]),
        ("topk(1, gauge) > 3", every(3 * H, H, 20), &[60]),
    ] {
        check(text, time, want);
    }
}

#[test]
fn windows_where_samples_are_gone_are_approximate_and_say_so() {
    let raw = Downsampled { series: all_series(), resolutions: vec![0] };
    let gone = Downsampled { series: all_series(), resolutions: vec![H, 5 * M] };
    for (text, exact) in [
        ("quantile_over_time(0.9, gauge[1h])", false),
        ("irate(c_total[1h])", false),
        ("stddev_over_time(whole[1h])", false),
        ("rate(c_total[1h])", true),
        ("rate(c_total[7m])", false),
        ("c_total", true),
    ] {
        let time = every(2 * H, H, 20);
        let result = run(&gone, text, time, MaxResolution::Auto);
        let warnings: Vec<_> = result.annotations.raw(Severity::Warning).collect();
        assert_eq!(
            warnings.iter().any(|w| w.contains("is approximate") && w.contains("5m")),
            !exact,
            "{text}: {warnings:?}"
        );
        assert_eq!(result.stats.resolutions.iter().all(|p| p.exact()), exact, "{text}");
        let labels = |r: &QueryResult| points(&r.value).into_keys().collect::<Vec<_>>();
        assert_eq!(labels(&result), labels(&run(&raw, text, time, MaxResolution::Auto)), "{text}");
    }
    // A rate over ranges that cut windows stays a rate: not far from the samples' own.
    let time = every(2 * H + 2 * M, H, 20);
    let (got, want) = (
        points(&run(&gone, "rate(sparse_total{n=\"0\"}[3h])", time, MaxResolution::Auto).value),
        points(&run(&raw, "rate(sparse_total{n=\"0\"}[3h])", time, MaxResolution::Auto).value),
    );
    for (labels, points) in want {
        for (t, want) in points {
            let (got, want) = (got[&labels][&t].0.unwrap(), want.0.unwrap());
            assert!((got - want).abs() <= 0.3 * want.abs() + 1e-6, "{labels}: {got} for {want}");
        }
    }
}

#[test]
fn max_source_resolution_is_an_upper_bound_that_may_be_approximate() {
    let all = Downsampled { series: all_series(), resolutions: vec![H, 5 * M, 0] };
    let used_at = |text: &str, time, most| {
        let result = run(&all, text, time, most);
        let warned =
            result.annotations.raw(Severity::Warning).any(|w| w.contains("as max_source_resolution allows"));
        assert_eq!(warned, result.stats.resolutions.iter().any(|p| !p.exact()), "{text}");
        (used(&result), warned)
    };
    let hourly = every(2 * H, H, 20);
    assert_eq!(used_at("rate(c_total[1h])", hourly, MaxResolution::AtMost(0)), (vec![0], false));
    assert_eq!(used_at("rate(c_total[1h])", hourly, MaxResolution::AtMost(5 * M)), (vec![5], false));
    assert_eq!(used_at("rate(c_total[1h])", hourly, MaxResolution::AtMost(59 * M)), (vec![5], false));
    assert_eq!(used_at("rate(c_total[1h])", hourly, MaxResolution::AtMost(H)), (vec![60], false));
    assert_eq!(used_at("rate(c_total[30m])", hourly, MaxResolution::AtMost(H)), (vec![60], true));
    assert_eq!(
        used_at("quantile_over_time(0.5, gauge[1h])", hourly, MaxResolution::AtMost(5 * M)),
        (vec![5], true)
    );
    assert_eq!(used_at("gauge", every(2 * H + 1, M, 100), MaxResolution::AtMost(5 * M)), (vec![5], true));
}
