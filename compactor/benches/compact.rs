//! What compaction costs: samples a second on one thread's worth of merging, bytes a sample at each level, memory at its peak.
//!
//! The fleet: 100 targets with 40 series each, scraped every 15 s with jitter of a few milliseconds of the target's own, half of them counters with small steps, a
//! quarter gauges with two decimals, a quarter that hardly changes.

use std::sync::Arc;

use compactor::metrics::Metrics;
use compactor::settings::Settings;
use compactor::worker::Compactor;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use prometheus_client::registry::Registry;
use tsdb::block::upload::upload;
use tsdb::block::{BlockMeta, BlockOrigin, WriteOptions, write_block};
use tsdb::catalog::{Catalog, CatalogOptions, Edit};
use tsdb::clock::ManualClock;
use tsdb::depot::{Depot, Patience};
use tsdb::labels::Labels;
use tsdb::source::SeriesColumns;
use tsdb::tenant::TenantId;
use ulid::Ulid;

const H: i64 = 3_600_000;
const STEP: i64 = 15_000;
const TARGETS: i64 = 100;
const SERIES: i64 = 40;
/// The start of a span of every level.
const T0: i64 = 1460 * 14 * 24 * H;

fn main() {
    divan::main();
}

fn jitter(target: i64, t: i64) -> i64 {
    let x =
        (target as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (t as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((x >> 40) % 7) as i64
}

/// Two hours of the fleet from `from` on.
fn window(from: i64) -> Vec<SeriesColumns> {
    let mut out = Vec::new();
    for target in 0..TARGETS {
        let offset = target * 137 % STEP;
        let ts: Arc<[i64]> =
            (0..2 * H / STEP).map(|i| from + 1 + offset + i * STEP + jitter(target, i)).collect();
        for s in 0..SERIES {
            let at = |i: usize| {
                let n = (ts[i] - T0) / STEP;
                match s % 4 {
                    0 | 1 => (n * (3 + s) + jitter(s, n)) as f64,
                    2 => (5000 + jitter(s + target, n) * 37 - jitter(s, n / 7) * 11) as f64 / 100.0,
                    _ => (n / 900 % 3) as f64,
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
    fn fill(&self, hours: i64) {
        let catalog =
            Catalog::open(self.store.clone(), TenantId::single(), "bench", CatalogOptions::default());
        let catalog = self.runtime.block_on(catalog).unwrap();
        for n in 0..hours / 2 {
            let ulid = Ulid::from_parts(n as u64 + 1, 0);
            let origin = BlockOrigin::flushed(ulid, TenantId::single(), "bench");
            let series = window(T0 + n * 2 * H).into_iter().map(Ok);
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
            settings.plan.resolutions_ms = tsdb::window::RESOLUTIONS_MS.to_vec();
        }
        let clock = ManualClock::at(T0 + 20 * 24 * H);
        self.runtime.block_on(async {
            let depot = Depot::new(self.store.clone(), Arc::new(clock), Patience::default());
            let metrics = Metrics::register(&mut Registry::default());
            let worker = Compactor::new(depot, settings, "bench", metrics).unwrap();
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
            bucket.fill(12);
            bucket
        })
        .bench_local_values(|bucket| {
            let (downsample, verify) = (what.contains("windows"), what.contains("verified"));
            let peak = bucket.compact(downsample, verify);
            told.call_once(|| tell(what, &bucket, peak));
            bucket
        });
}

/// Thirty-two hours at once (as many inputs as a job may have), to one block: the size a sample has in the end.
#[divan::bench(sample_count = 1, sample_size = 1)]
fn thirty_two_hours(bencher: divan::Bencher<'_, '_>) {
    let samples = (TARGETS * SERIES * 32 * H / STEP) as u64;
    bencher
        .counter(divan::counter::ItemsCount::new(samples))
        .with_inputs(|| {
            let bucket = Bucket::new();
            bucket.fill(32);
            tell("flushed", &bucket, 0);
            bucket
        })
        .bench_local_values(|bucket| {
            let peak = bucket.compact(true, true);
            tell("thirty-two hours in one", &bucket, peak);
            bucket
        });
}
