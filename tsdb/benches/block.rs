//! Blocks: bytes per sample, encoding, and reading of all, of one metric and of one series, on a real
//! recording and a synthetic fleet.
//!
//! `cargo bench -p tsdb --bench block`. First a table of bytes and CPU time per sample, for each set and for
//! each kind of value that the fleet has: CPU time because a machine is seldom one's own. Then wall times.
//! (`-- table`: the table alone.)

#[path = "../tests/recording/mod.rs"]
mod recording;

use std::sync::{Arc, LazyLock};

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use model::labels::Labels;
use model::matcher::Matcher;
use model::source::{Budget, Hints, Selection, SeriesColumns, Source};
use model::tenant::TenantId;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tsdb::block::{BlockMeta, BlockOrigin, WriteOptions, write_block};
use tsdb::bucket::{BlockStore, BucketSource};
use ulid::Ulid;

/// A series set with a name, its block in memory, and selectors for the scans.
struct Data {
    name: &'static str,
    series: Vec<SeriesColumns>,
    samples: u64,
    one_metric: Vec<Matcher>,
    one_series: Vec<Matcher>,
    store: Arc<dyn ObjectStore>,
    meta: Arc<BlockMeta>,
    warm: Arc<BlockStore>,
}

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

static DATA: LazyLock<Vec<Data>> = LazyLock::new(|| {
    let mut all = Vec::new();
    if let Some(path) = recording::path() {
        let series = recording::series(&path);
        let thinned = series.iter().map(|s| thin(s, 3)).collect();
        all.push(prepare("recording 5 s", series, "node_cpu_seconds_total", ("cpu", "0")));
        all.push(prepare("recording 15 s", thinned, "node_cpu_seconds_total", ("cpu", "0")));
    }
    all.push(prepare("fleet, jitter", fleet(200, true), "metric_007", ("instance", "host-17:9100")));
    all.push(prepare("fleet, aligned", fleet(200, false), "metric_007", ("instance", "host-17:9100")));
    all
});

/// The kinds of values of the fleet, and which of its metrics (by the last digit of their number) are of
/// each.
const KINDS: [(&str, &[u8]); 7] = [
    ("constants", b"01"),
    ("counters", b"234"),
    ("hundredths", b"5"),
    ("large gauges", b"6"),
    ("small gauges", b"7"),
    ("slow counters", b"8"),
    ("no decimals", b"9"),
];

fn main() {
    // What is asked for by name needs no table.
    if std::env::args().skip(1).any(|a| !a.starts_with('-') && a != "table") {
        return divan::main();
    }
    println_table(DATA.iter());
    let whole = fleet(200, true);
    for (name, digits) in KINDS {
        let is_of = |s: &&SeriesColumns| {
            let metric = s.labels.metric_name().unwrap_or("");
            metric.as_bytes().last().is_some_and(|d| digits.contains(d))
        };
        let of_kind = whole.iter().filter(is_of).cloned().collect();
        println_table(std::iter::once(&prepare(name, of_kind, "metric_007", ("instance", "host-17:9100"))));
    }
    divan::main();
}

/// CPU time of all threads of this process so far, in nanoseconds; 0 where the system does not tell.
fn cpu_ns() -> u64 {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return 0 };
    let on_cpu = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    threads.flatten().filter_map(on_cpu).sum()
}

/// The least of some runs, per sample. The clock of CPU time moves in steps of some milliseconds, so a short
/// run is repeated.
fn least_cpu_ns(samples: u64, mut run: impl FnMut()) -> f64 {
    let repeats = (20_000_000 / samples).max(1);
    let one = |_| {
        let before = cpu_ns();
        (0..repeats).for_each(|_| run());
        (cpu_ns() - before) as f64 / (samples * repeats) as f64
    };
    (0..5).map(one).fold(f64::INFINITY, f64::min)
}

#[allow(clippy::print_stdout)]
fn println_table<'d>(sets: impl Iterator<Item = &'d Data>) {
    for d in sets {
        let per = |bytes: u64| bytes as f64 / d.samples as f64;
        let files = &d.meta.files;
        let dir = tempfile::tempdir().unwrap();
        let encode = least_cpu_ns(d.samples, || drop(write(dir.path(), &d.series)));
        // Beside a cache that has room for what decoding leaves, one that has room for nothing but what lies
        // in the store.
        let cold = |cache_bytes: usize| {
            let fresh = || BlockStore::new(d.store.clone(), RUNTIME.handle().clone(), cache_bytes);
            least_cpu_ns(d.samples, || {
                black_box(scan(d, fresh(), &[]));
            })
        };
        let (kept, cold) = (cold(1 << 30), cold(8 << 20));
        scan(d, d.warm.clone(), &[]);
        let warm = least_cpu_ns(d.samples, || {
            black_box(scan(d, d.warm.clone(), &[]));
        });
        println!(
            "{:>16}: {:.3} bytes a sample ({:.3} series, {:.3} timelines, {:.3} samples); CPU ns a sample: encode {encode:.1}, scan {cold:.2}, scan and keep {kept:.2}, scan what is kept {warm:.2}; {} samples of {} series, {} timelines",
            d.name,
            per(files.bytes()),
            per(files.series.bytes),
            per(files.timelines.bytes),
            per(files.samples.bytes),
            d.samples,
            d.series.len(),
            d.meta.stats.timelines,
        );
    }
}

fn thin(s: &SeriesColumns, every: usize) -> SeriesColumns {
    SeriesColumns {
        labels: s.labels.clone(),
        ts_ms: s.ts_ms.iter().step_by(every).copied().collect(),
        values: s.values.iter().step_by(every).copied().collect(),
        histograms: None,
        start_ts_ms: None,
        windows: None,
    }
}

/// A hundred metrics on each target, two hours at 15 s: counters, gauges of several kinds, flags, and values
/// that are no decimals.
fn fleet(targets: u64, jitter: bool) -> Vec<SeriesColumns> {
    let mut state = 7u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let from = 1_767_225_600_000i64;
    let timelines: Vec<Arc<[i64]>> = (0..targets)
        .map(|t| {
            let offset = if jitter { (t * 71 % 15_000) as i64 } else { 0 };
            let wobble = if jitter { 9 } else { 1 };
            (0..480).map(|i| from + offset + i * 15_000 + (random() % wobble) as i64).collect()
        })
        .collect();
    let mut out = Vec::new();
    for metric in 0..100u64 {
        let mut of_metric = Vec::new();
        for (target, ts) in timelines.iter().enumerate() {
            let mut level = (random() % 10_000_000) as f64;
            let slope = 1 + random() % 200;
            let values = (0..480)
                .map(|_| match metric % 10 {
                    0 | 1 => 1.0,
                    2..=4 => {
                        level += (random() % slope) as f64;
                        level
                    }
                    5 => {
                        level += (random() % slope) as f64;
                        level / 100.0
                    }
                    6 => {
                        level += (random() % 8192) as f64 * 4096.0 - 16_000_000.0;
                        level.abs()
                    }
                    7 => (random() % 64) as f64,
                    8 => {
                        if random() % 50 == 0 {
                            level += 1.0;
                        }
                        level
                    }
                    _ => {
                        level += (random() % 1000) as f64;
                        level.sqrt() * 0.001
                    }
                })
                .collect();
            of_metric.push(SeriesColumns {
                labels: Labels::from_pairs([
                    ("__name__", format!("metric_{metric:03}")),
                    ("instance", format!("host-{target}:9100")),
                    ("job", "node".to_string()),
                    ("cluster", format!("c{}", target % 3)),
                ]),
                ts_ms: ts.clone(),
                values,
                histograms: None,
                start_ts_ms: None,
                windows: None,
            });
        }
        of_metric.sort_by(|a, b| a.labels.series_cmp(&b.labels));
        out.extend(of_metric);
    }
    out
}

fn prepare(name: &'static str, series: Vec<SeriesColumns>, metric: &str, label: (&str, &str)) -> Data {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let dir = tempfile::tempdir().unwrap();
    let files = write(dir.path(), &series);
    RUNTIME.block_on(tsdb::block::upload::upload(&*store, &files)).unwrap();
    let one_metric = vec![Matcher::equal("__name__", metric)];
    let one_series =
        vec![one_metric[0].clone(), Matcher::equal(label.0, label.1), Matcher::equal("mode", "")];
    let one_series = match metric {
        "node_cpu_seconds_total" => {
            vec![one_metric[0].clone(), Matcher::equal(label.0, label.1), Matcher::equal("mode", "user")]
        }
        _ => one_series,
    };
    let samples = series.iter().map(|s| s.values.len() as u64).sum();
    let warm = BlockStore::new(store.clone(), RUNTIME.handle().clone(), 1 << 30);
    Data { name, series, samples, one_metric, one_series, store, meta: Arc::new(files.meta.clone()), warm }
}

fn write(dir: &std::path::Path, series: &[SeriesColumns]) -> tsdb::block::BlockFiles {
    let origin = BlockOrigin::flushed(Ulid::new(), TenantId::single(), "bench");
    write_block(dir, origin, WriteOptions::fresh(), series.iter().cloned().map(Ok)).unwrap().unwrap()
}

fn names() -> impl Iterator<Item = &'static str> {
    DATA.iter().map(|d| d.name)
}

fn named(name: &str) -> &'static Data {
    DATA.iter().find(|d| d.name == name).unwrap()
}

#[divan::bench(args = names(), sample_count = 5)]
fn encode(bencher: Bencher<'_, '_>, name: &str) {
    let data = named(name);
    let dir = tempfile::tempdir().unwrap();
    bencher.counter(ItemsCount::new(data.samples)).bench(|| write(dir.path(), &data.series));
}

fn scan(data: &Data, blocks: Arc<BlockStore>, matchers: &[Matcher]) -> u64 {
    let source = BucketSource::new(blocks, TenantId::single(), vec![data.meta.clone()]);
    let selection = Selection {
        matchers: matchers.to_vec(),
        min_t_ms: i64::MIN,
        max_t_ms: i64::MAX,
        hints: Hints::default(),
        budget: Budget::unlimited(),
    };
    let mut cursor = source.select(&selection).unwrap();
    while let Some(batch) = cursor.next_batch().unwrap() {
        black_box(batch);
    }
    assert!(selection.budget.samples_read() > 0);
    selection.budget.samples_read()
}

#[divan::bench(args = names(), sample_count = 5)]
fn decode_all_cold(bencher: Bencher<'_, '_>, name: &str) {
    let data = named(name);
    bencher.counter(ItemsCount::new(data.samples)).bench(|| {
        let cold = BlockStore::new(data.store.clone(), RUNTIME.handle().clone(), 1 << 30);
        scan(data, cold, &[])
    });
}

#[divan::bench(args = names(), sample_count = 10)]
fn scan_all_warm(bencher: Bencher<'_, '_>, name: &str) {
    let data = named(name);
    bencher.counter(ItemsCount::new(data.samples)).bench(|| scan(data, data.warm.clone(), &[]));
}

#[divan::bench(args = names(), sample_count = 50)]
fn scan_one_metric_warm(bencher: Bencher<'_, '_>, name: &str) {
    let data = named(name);
    let samples = scan(data, data.warm.clone(), &data.one_metric);
    bencher.counter(ItemsCount::new(samples)).bench(|| scan(data, data.warm.clone(), &data.one_metric));
}

#[divan::bench(args = names(), sample_count = 50)]
fn scan_one_series_warm(bencher: Bencher<'_, '_>, name: &str) {
    let data = named(name);
    let samples = scan(data, data.warm.clone(), &data.one_series);
    bencher.counter(ItemsCount::new(samples)).bench(|| scan(data, data.warm.clone(), &data.one_series));
}
