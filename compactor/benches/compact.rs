//! What compaction costs: samples a second on one thread's worth of merging, bytes a sample at each level,
//! memory at its peak.
//!
//! The fleet: 100 targets with 40 series each, scraped every 15 s with jitter of a few milliseconds of the
//! target's own, half of them counters with small steps, a quarter gauges with two decimals, a quarter that
//! hardly changes.
//!
//! `cargo bench -p compactor --bench compact -- levels` prints a table instead: 14 days of a fifth of that
//! fleet, and of one whose scrapes are late by up to half a second and whose values take larger steps,
//! compacted level by level; `-- levels 2 10` for two days and ten targets.

use std::sync::Arc;

use compactor::metrics::Metrics;
use compactor::settings::Settings;
use compactor::worker::Compactor;
use model::clock::ManualClock;
use model::labels::Labels;
use model::source::SeriesColumns;
use model::tenant::TenantId;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use prometheus_client::registry::Registry;
use tsdb::block::upload::upload;
use tsdb::block::{BlockMeta, BlockOrigin, WriteOptions, write_block};
use tsdb::bucket::maintenance::{BucketMaintenance, Patience};
use tsdb::catalog::{Catalog, CatalogOptions, Edit};
use ulid::Ulid;

const H: i64 = 3_600_000;
const STEP: i64 = 15_000;
const TARGETS: i64 = 100;
const SERIES: i64 = 40;
/// The start of a span of every level.
const T0: i64 = 1460 * 14 * 24 * H;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.iter().any(|a| a == "levels") {
        let mut numbers = args.iter().filter_map(|a| a.parse().ok());
        levels::table(numbers.next().unwrap_or(14), numbers.next().unwrap_or(TARGETS / 5));
    } else {
        divan::main();
    }
}

/// How large a fleet is, and how restless.
#[derive(Clone, Copy)]
struct Fleet {
    targets: i64,
    /// Scrapes are late by up to so much.
    late_ms: i64,
    /// How much larger the steps of its values are.
    unrest: i64,
}

const FLEET: Fleet = Fleet { targets: TARGETS, late_ms: 7, unrest: 1 };

fn jitter(target: i64, t: i64) -> i64 {
    roll(target, t, 7)
}

fn roll(a: i64, b: i64, below: i64) -> i64 {
    let x = (a as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (b as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((x >> 40) % below as u64) as i64
}

/// Two hours of a fleet from `from` on.
fn window(fleet: Fleet, from: i64) -> Vec<SeriesColumns> {
    let mut out = Vec::new();
    for target in 0..fleet.targets {
        let offset = target * 137 % (STEP - fleet.late_ms);
        let ts: Arc<[i64]> = (0..2 * H / STEP)
            .map(|i| from + 1 + offset + i * STEP + roll(target, (from - T0) / STEP + i, fleet.late_ms))
            .collect();
        for s in 0..SERIES {
            let at = |i: usize| {
                let n = (ts[i] - T0) / STEP;
                match (s % 4, fleet.unrest) {
                    // No target has another's values: zstd would find them, the more the shorter rows are.
                    (0 | 1, 1) => (n * (3 + s) + jitter(s + 41 * target, n)) as f64,
                    (0 | 1, unrest) => {
                        (n * (3 + s) * unrest + roll(s + 41 * target, n, (3 + s) * unrest)) as f64
                    }
                    (2, 1) => {
                        let (quick, slow) = (jitter(s + 41 * target, n), jitter(s + 43 * target, n / 7));
                        (5000 + quick * 37 - slow * 11) as f64 / 100.0
                    }
                    (2, unrest) => (5000 * unrest + roll(s + 41 * target, n, 400 * unrest)) as f64 / 1000.0,
                    _ => ((n + 131 * target) / 900 % 3) as f64,
                }
            };
            let values = (0..ts.len()).map(at).collect();
            let (instance, job) = (format!("host-{target:03}:9100"), format!("job-{}", target % 5));
            out.push(SeriesColumns {
                labels: Labels::from_pairs([
                    ("__name__", format!("metric_{s:02}_total")),
                    ("instance", instance),
                    ("job", job),
                    ("region", "eu-central-1".to_string()),
                ]),
                ts_ms: ts.clone(),
                values,
                histograms: None,
                start_ts_ms: None,
                windows: None,
            });
        }
    }
    out.sort_by(|a, b| a.labels.series_cmp(&b.labels));
    out
}

struct Bucket {
    store: Arc<dyn ObjectStore>,
    runtime: tokio::runtime::Runtime,
    scratch: tempfile::TempDir,
}

impl Bucket {
    fn new() -> Bucket {
        Bucket {
            store: Arc::new(InMemory::new()),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
            scratch: tempfile::tempdir().unwrap(),
        }
    }

    /// Flushed blocks of two hours.
    fn fill(&self, fleet: Fleet, hours: i64) {
        let catalog =
            Catalog::open(self.store.clone(), TenantId::single(), "bench", CatalogOptions::default());
        let catalog = self.runtime.block_on(catalog).unwrap();
        for n in 0..hours / 2 {
            let ulid = Ulid::from_parts(n as u64 + 1, 0);
            let origin = BlockOrigin::flushed(ulid, TenantId::single(), "bench");
            let series = window(fleet, T0 + n * 2 * H).into_iter().map(Ok);
            let files =
                write_block(self.scratch.path(), origin, WriteOptions::fresh(), series).unwrap().unwrap();
            self.runtime.block_on(async {
                upload(&*self.store, &files).await.unwrap();
                catalog.commit(&Edit::flush(Some(files.meta.clone()), "bench", n as u64)).await.unwrap();
            });
        }
    }

    /// Compacts everything; the peak of memory by its own account.
    fn compact(&self, downsample: bool, verify: bool) -> u64 {
        let mut settings = Settings::new(self.scratch.path().join("compaction"));
        settings.verify = verify;
        if downsample {
            settings.plan.resolutions_ms = model::rollup::RESOLUTIONS_MS.to_vec();
        }
        let clock = ManualClock::at(T0 + 20 * 24 * H);
        self.runtime.block_on(async {
            let maintenance =
                BucketMaintenance::new(self.store.clone(), Arc::new(clock), Patience::default());
            let metrics = Metrics::register(&mut Registry::default());
            let worker = Compactor::new(maintenance, settings, "bench", metrics).unwrap();
            let round = worker.round().await;
            assert!(round.errors.is_empty() && round.jobs == 1, "{round:?}");
            worker.runs().into_iter().find_map(|r| r.result.ok()).unwrap().peak_memory_bytes
        })
    }

    fn blocks(&self) -> Vec<Arc<BlockMeta>> {
        let catalog =
            Catalog::open(self.store.clone(), TenantId::single(), "bench", CatalogOptions::default());
        self.runtime.block_on(catalog).unwrap().snapshot().blocks.clone()
    }
}

/// Bytes a sample of what lies in the bucket, by resolution; windows per raw sample.
fn tell(what: &str, bucket: &Bucket, peak: u64) {
    let blocks = bucket.blocks();
    let samples: u64 = blocks.iter().filter(|b| b.resolution_ms == 0).map(|b| b.stats.samples).sum();
    let of = |r: i64| blocks.iter().filter(|b| b.resolution_ms == r).map(|b| b.files.bytes()).sum::<u64>();
    let each = |r: i64| of(r) as f64 / samples as f64;
    eprintln!(
        "{what}: {samples} samples, {:.3} B raw, {:.3} B as 5 m, {:.3} B as 1 h per raw sample; peak {:.1} MB",
        each(0),
        each(300_000),
        each(3_600_000),
        peak as f64 / 1e6
    );
}

/// Six blocks of two hours to one of twelve; as many samples a second as divan says items.
#[divan::bench(args = ["raw", "raw, verified", "with windows, verified"], sample_count = 3, sample_size = 1)]
fn twelve_hours(bencher: divan::Bencher<'_, '_>, what: &str) {
    let samples = (TARGETS * SERIES * 12 * H / STEP) as u64;
    let told = std::sync::Once::new();
    bencher
        .counter(divan::counter::ItemsCount::new(samples))
        .with_inputs(|| {
            let bucket = Bucket::new();
            bucket.fill(FLEET, 12);
            bucket
        })
        .bench_local_values(|bucket| {
            let (downsample, verify) = (what.contains("windows"), what.contains("verified"));
            let peak = bucket.compact(downsample, verify);
            told.call_once(|| tell(what, &bucket, peak));
            bucket
        });
}

/// Thirty-two hours at once (as many inputs as a job may have), to one block: the size a sample has in the
/// end.
#[divan::bench(sample_count = 1, sample_size = 1)]
fn thirty_two_hours(bencher: divan::Bencher<'_, '_>) {
    let samples = (TARGETS * SERIES * 32 * H / STEP) as u64;
    bencher
        .counter(divan::counter::ItemsCount::new(samples))
        .with_inputs(|| {
            let bucket = Bucket::new();
            bucket.fill(FLEET, 32);
            tell("flushed", &bucket, 0);
            bucket
        })
        .bench_local_values(|bucket| {
            let peak = bucket.compact(true, true);
            tell("thirty-two hours in one", &bucket, peak);
            bucket
        });
}

/// 14 days, level by level.
mod levels {
    use super::*;

    /// User and system time of this process, in seconds.
    fn cpu_seconds() -> f64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // After the name in parentheses: utime and stime are fields 14 and 15, in ticks of 10 ms.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) / 100.0
    }

    /// Does all there is to do with these levels; samples written, seconds of CPU, and the peak of memory by
    /// its own account.
    fn compact(bucket: &Bucket, levels_ms: &[i64]) -> (u64, f64, u64) {
        let mut settings = Settings::new(bucket.scratch.path().join("compaction"));
        settings.plan.levels_ms = levels_ms.to_vec();
        settings.plan.resolutions_ms = model::rollup::RESOLUTIONS_MS.to_vec();
        let clock = ManualClock::at(T0 + 40 * 24 * H);
        let before = cpu_seconds();
        let runs = bucket.runtime.block_on(async {
            let maintenance =
                BucketMaintenance::new(bucket.store.clone(), Arc::new(clock), Patience::default());
            let worker =
                Compactor::new(maintenance, settings, "bench", Metrics::register(&mut Registry::default()))
                    .unwrap();
            let round = worker.round().await;
            assert!(round.errors.is_empty() && round.jobs > 0, "{round:?}");
            worker.runs().into_iter().filter_map(|r| r.result.ok()).collect::<Vec<_>>()
        });
        let written = runs.iter().map(|r| r.samples_written).sum();
        let peak = runs.iter().map(|r| r.peak_memory_bytes).max().unwrap_or(0);
        (written, cpu_seconds() - before, peak)
    }

    /// Bytes a raw sample by column, the largest first.
    fn columns(bucket: &Bucket, samples: u64) {
        let maintenance =
            BucketMaintenance::new(bucket.store.clone(), Arc::new(ManualClock::at(T0)), Patience::default());
        let mut by_column: std::collections::BTreeMap<(i64, String), u64> = Default::default();
        for block in bucket.blocks() {
            let found = bucket.runtime.block_on(maintenance.columns(&TenantId::single(), &block)).unwrap();
            for c in found {
                let name = format!("{} {}", c.file, c.column);
                *by_column.entry((block.resolution_ms, name)).or_default() += c.compressed_bytes;
            }
        }
        let mut all: Vec<_> = by_column.into_iter().map(|((r, name), bytes)| (r, bytes, name)).collect();
        all.sort_by_key(|(r, bytes, _)| (*r, std::cmp::Reverse(*bytes)));
        for of_resolution in all.chunk_by(|a, b| a.0 == b.0) {
            let most = of_resolution.iter().take(9);
            let told: Vec<String> = most
                .map(|(_, bytes, name)| format!("{name} {:.4}", *bytes as f64 / samples as f64))
                .collect();
            eprintln!("  {} s: {}", of_resolution[0].0 / 1000, told.join(", "));
        }
    }

    pub fn table(days: i64, targets: i64) {
        let calm = Fleet { targets, ..FLEET };
        let restless = Fleet { late_ms: 500, unrest: 100, ..calm };
        for (name, fleet) in [("calm", calm), ("restless", restless)] {
            let bucket = Bucket::new();
            bucket.fill(fleet, 24 * days);
            let samples = (fleet.targets * SERIES * days * 24 * H / STEP) as u64;
            eprintln!("{name} fleet, {days} days, {samples} samples; bytes per raw sample");
            eprintln!("| level | raw | 5m | 1h | M samples/CPU-s | peak MB |");
            eprintln!("|---|---|---|---|---|---|");
            let line = |level: &str, speed: Option<f64>, peak: u64| {
                let of = |r: i64| {
                    let blocks = bucket.blocks();
                    let bytes = blocks.iter().filter(|b| b.resolution_ms == r).map(|b| b.files.bytes());
                    bytes.sum::<u64>() as f64 / samples as f64
                };
                let speed = speed.map_or(String::new(), |s| format!("{:.1}", s / 1e6));
                eprintln!(
                    "| {level} | {:.3} | {:.3} | {:.4} | {speed} | {:.0} |",
                    of(0),
                    of(300_000),
                    of(3_600_000),
                    peak as f64 / 1e6
                );
            };
            line("flushed", None, 0);
            let mut lengths = Vec::new();
            for (level, hours) in [("12 h", 12), ("2 d", 48), ("14 d", 14 * 24)] {
                lengths.push(hours * H);
                if hours > 24 * days {
                    break;
                }
                let (written, seconds, peak) = compact(&bucket, &lengths);
                line(level, Some(written as f64 / seconds), peak);
            }
            columns(&bucket, samples);
        }
    }
}
