//! The ten commonest dashboard queries over 1,000 series × 24 h at 15 s (5.8 million samples), from memory.
//!
//! `cargo bench -p query --bench engine`. The source hands out the part asked for by copy, about 45 KB a
//! series and day; what that alone costs is the bench of its own.

use std::sync::{Arc, LazyLock};

use divan::{Bencher, black_box};
use model::labels::Labels;
use model::source::{Budget, Hints, LabelQuery, Selection, SeriesColumns, SeriesCursor, Source, SourceError};
use model::{matcher::matches_all, source::memory::Batches};
use query::engine::{Engine, EngineOptions, QueryRequest};
use query::parse::ParseOptions;

const STEP_MS: i64 = 15_000;
const DAY_MS: i64 = 24 * 3_600_000;

/// Columns that are made once; one timeline for all of them, as one scrape gives.
struct Columns(Vec<SeriesColumns>);

impl Columns {
    fn new() -> Self {
        let ts_ms: Arc<[i64]> = (0..=DAY_MS / STEP_MS).map(|i| i * STEP_MS).collect();
        let mut all = Vec::new();
        let mut add = |name: &str, labels: &[(&str, String)], value: &dyn Fn(i64) -> f64| {
            let pairs = [("__name__", name.to_string())].into_iter().chain(labels.iter().cloned());
            let values = (0..ts_ms.len() as i64).map(value).collect();
            all.push(SeriesColumns {
                labels: Labels::from_pairs(pairs),
                ts_ms: ts_ms.clone(),
                values,
                histograms: None,
                start_ts_ms: None,
                windows: None,
            });
        };
        for i in 0..400i64 {
            let labels = [
                ("instance", format!("host{:02}:9100", i / 8)),
                ("job", "node".into()),
                ("cpu", (i % 8).to_string()),
            ];
            add("cpu_seconds_total", &labels, &|n| ((n * (7 + i % 5)) % 50_000) as f64 / 4.0);
        }
        for i in 0..200i64 {
            let labels = [("instance", format!("host{i:03}:9100")), ("job", "node".into())];
            add("memory_bytes", &labels, &|n| ((n * 37 + i * 1013) % 4096) as f64 * 1024.0);
            add("memory_total_bytes", &labels, &|_| 8.0 * 1024.0 * 1024.0);
        }
        for i in 0..200i64 {
            let le = ["0.1", "0.2", "0.5", "1", "2", "5", "10", "30", "60", "+Inf"][(i % 10) as usize];
            let labels = [("instance", format!("web{:02}", i / 10)), ("le", le.to_string())];
            add("latency_bucket", &labels, &|n| (n * (i % 10 + 1)) as f64);
        }
        all.sort_by(|a, b| a.labels.series_cmp(&b.labels));
        Columns(all)
    }
}

impl Source for Columns {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        let whole = &self.0[0].ts_ms;
        let from = whole.partition_point(|t| *t < selection.min_t_ms);
        let to = whole.partition_point(|t| *t <= selection.max_t_ms).max(from);
        let ts_ms: Arc<[i64]> = whole[from..to].into();
        let cut = |s: &SeriesColumns| SeriesColumns {
            labels: s.labels.clone(),
            ts_ms: ts_ms.clone(),
            values: s.values[from..to].to_vec(),
            histograms: None,
            start_ts_ms: None,
            windows: None,
        };
        let found: Vec<_> =
            self.0.iter().filter(|s| matches_all(&s.labels, &selection.matchers)).map(cut).collect();
        selection.budget.read_samples(found.iter().map(|s| s.ts_ms.len() as u64).sum());
        Ok(Box::new(Batches::new(found)))
    }

    fn series(&self, _: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        Ok(self.0.iter().map(|s| s.labels.clone()).collect())
    }
}

static COLUMNS: LazyLock<Columns> = LazyLock::new(Columns::new);

fn main() {
    divan::main();
}

#[divan::bench]
fn only_reading_all(bencher: Bencher<'_, '_>) {
    let source = &*COLUMNS;
    bencher.bench_local(|| {
        let selection = Selection {
            matchers: vec![],
            min_t_ms: 0,
            max_t_ms: DAY_MS,
            hints: Hints::default(),
            budget: Budget::unlimited(),
        };
        let mut cursor = source.select(&selection).expect("from memory");
        while let Ok(Some(batch)) = cursor.next_batch() {
            black_box(batch);
        }
    });
}

/// 24 h in steps of one minute.
#[divan::bench(args = [
    "cpu_seconds_total{instance=\"host01:9100\"}",
    "memory_bytes",
    "rate(cpu_seconds_total[5m])",
    "sum by (instance) (rate(cpu_seconds_total[5m]))",
    "avg(memory_bytes)",
    "topk(5, memory_bytes)",
    "quantile(0.9, memory_bytes)",
    "1 - memory_bytes / memory_total_bytes",
    "max_over_time(memory_bytes[1h])",
    "histogram_quantile(0.99, sum by (le) (rate(latency_bucket[5m])))",
])]
fn day_at_a_minute(bencher: Bencher<'_, '_>, text: &str) {
    let source = &*COLUMNS;
    let engine = Engine::default();
    bencher.bench_local(|| {
        let request = QueryRequest::range(text, 0, DAY_MS, 60_000);
        black_box(engine.run(source, &request).expect("a good query"))
    });
}

/// Windows of an hour, 240 samples, over 200 series at 1,441 steps: 69 million samples looked at.
#[divan::bench(sample_count = 5, args = [
    "sum_over_time(memory_bytes[1h])",
    "avg_over_time(memory_bytes[1h])",
    "stddev_over_time(memory_bytes[1h])",
    "quantile_over_time(0.9, memory_bytes[1h])",
    "mad_over_time(memory_bytes[1h])",
    "deriv(memory_bytes[1h])",
    "predict_linear(memory_bytes[1h], 3600)",
    "double_exponential_smoothing(memory_bytes[1h], 0.3, 0.3)",
    "quantile_over_time(0.9, memory_bytes[12h])",
    "quantile_over_time(0.9, memory_bytes[5m])",
])]
fn windows(bencher: Bencher<'_, '_>, text: &str) {
    let source = &*COLUMNS;
    let engine = Engine::new(EngineOptions { parse: ParseOptions::all(), ..EngineOptions::default() });
    bencher.bench_local(|| {
        let request = QueryRequest::range(text, 0, DAY_MS, 60_000);
        black_box(engine.run(source, &request).expect("a good query"))
    });
}

/// One instant, at the end of the day.
#[divan::bench(args = ["sum by (instance) (rate(cpu_seconds_total[5m]))", "topk(5, memory_bytes)"])]
fn now(bencher: Bencher<'_, '_>, text: &str) {
    let source = &*COLUMNS;
    let engine = Engine::default();
    bencher.bench_local(|| {
        black_box(engine.run(source, &QueryRequest::instant(text, DAY_MS)).expect("a good query"))
    });
}
