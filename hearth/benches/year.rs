//! A year of `sum by (job) (rate(x[1h]))` over 100 targets scraped every 15 s, answered from samples, from
//! windows of 5 minutes and of an hour: blocks of 14 days in an object store in memory, everything in the
//! cache. Prints a table.
//!
//! `cargo bench -p hearth --bench year` (half a minute and about 1 GB); `-- 60` for 60 days.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::labels::Labels;
use model::rollup::downsample::downsample;
use model::source::SeriesColumns;
use model::tenant::TenantId;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use query::engine::{Engine, EngineOptions, QueryOptions, QueryRequest, QueryTime};
use query::plan::resolution::MaxResolution;
use tsdb::block::{BlockMeta, BlockOrigin, BlockWriter, WriteOptions};
use tsdb::bucket::{BlockStore, BucketSource};
use ulid::Ulid;

const STEP_MS: i64 = 15_000;
const HOUR_MS: i64 = 3_600_000;
const FIVE_MS: i64 = 300_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const BLOCK_MS: i64 = 14 * DAY_MS;
/// A multiple of 14 days.
const BASE_MS: i64 = 1_478 * BLOCK_MS;
const TARGETS: u64 = 100;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// What is written, counted.
#[derive(Default)]
struct Figures {
    entries: u64,
    bytes: u64,
    files: [u64; 3],
    writing: Duration,
}

fn main() {
    let days: i64 = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(364);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let mut blocks: Vec<Arc<BlockMeta>> = Vec::new();
    let mut figures: BTreeMap<i64, Figures> = BTreeMap::new();
    let mut downsampling = [Duration::ZERO; 2];
    let mut random = Random(7);
    // Three metrics of each target, so that figures on disk stand for more than counters.
    let mut levels = vec![[0.0f64; 3]; TARGETS as usize];
    for from in (0..days * DAY_MS).step_by(BLOCK_MS as usize) {
        let until = (from + BLOCK_MS).min(days * DAY_MS);
        let timelines: Vec<Arc<[i64]>> = (0..TARGETS)
            .map(|t| {
                let offset = (t * 71 % 15_000) as i64;
                let mut all = Vec::new();
                let mut at = BASE_MS + from + offset.max(10);
                while at <= BASE_MS + until {
                    all.push(at + random.below(9) as i64);
                    at += STEP_MS;
                }
                all.into()
            })
            .collect();
        let sources = vec![Ulid::new()];
        let mut writers: Vec<(i64, BlockWriter)> = [0, FIVE_MS, HOUR_MS]
            .into_iter()
            .map(|resolution_ms| {
                let origin = BlockOrigin {
                    resolution_ms,
                    sources: sources.clone(),
                    level: 3,
                    ..BlockOrigin::flushed(Ulid::new(), TenantId::single(), "bench")
                };
                let options = if resolution_ms == 0 {
                    WriteOptions::compacted()
                } else {
                    WriteOptions::downsampled(resolution_ms)
                };
                (resolution_ms, BlockWriter::create(scratch.path(), origin, options).expect("a writer"))
            })
            .collect();
        for (m, metric) in ["errors_total", "temperature", "x"].into_iter().enumerate() {
            let mut of_metric = Vec::new();
            for (t, ts_ms) in timelines.iter().enumerate() {
                let level = &mut levels[t][m];
                let values = ts_ms
                    .iter()
                    .map(|_| {
                        match m {
                            0 if random.below(400) == 0 => *level += 1.0,
                            0 => {}
                            1 => *level = (random.below(4000) as f64 - 2000.0) / 100.0 + 40.0,
                            _ if random.below(500_000) == 0 => *level = 0.0,
                            _ => *level += random.below(200) as f64,
                        }
                        *level
                    })
                    .collect();
                of_metric.push(SeriesColumns {
                    labels: Labels::from_pairs([
                        ("__name__", metric.to_string()),
                        ("instance", format!("host-{t:03}:9100")),
                        ("job", format!("job-{}", t % 5)),
                    ]),
                    ts_ms: ts_ms.clone(),
                    values,
                    histograms: None,
                    start_ts_ms: None,
                    windows: None,
                });
            }
            of_metric.sort_by(|a, b| a.labels.series_cmp(&b.labels));
            for series in of_metric {
                let begun = Instant::now();
                let five = downsample(&series, FIVE_MS);
                downsampling[0] += begun.elapsed();
                let begun = Instant::now();
                let hours = downsample(&five, HOUR_MS);
                downsampling[1] += begun.elapsed();
                for ((resolution, writer), series) in writers.iter_mut().zip([series, five, hours]) {
                    let begun = Instant::now();
                    writer.append(series).expect("series in order");
                    figures.entry(*resolution).or_default().writing += begun.elapsed();
                }
            }
        }
        for (resolution, writer) in writers {
            let begun = Instant::now();
            let files = writer.finish().expect("a block").expect("samples");
            let of = figures.entry(resolution).or_default();
            of.writing += begun.elapsed();
            let m = &files.meta;
            of.entries += m.stats.samples;
            of.bytes += m.files.bytes();
            for (sum, file) in
                of.files.iter_mut().zip([&m.files.series, &m.files.timelines, &m.files.samples])
            {
                *sum += file.bytes;
            }
            runtime.block_on(tsdb::block::upload::upload(&*store, &files)).expect("in memory");
            blocks.push(Arc::new(files.meta.clone()));
        }
    }
    let samples = figures[&0].entries as f64;
    eprintln!(
        "downsampling: {:.1} ns a sample to 5 m, {:.1} ns a window from there to 1 h",
        downsampling[0].as_nanos() as f64 / samples,
        downsampling[1].as_nanos() as f64 / figures[&FIVE_MS].entries as f64
    );
    eprintln!(
        "\n| resolution | entries | bytes | bytes/entry | of that samples / timelines | write ns/entry | bytes/sample of raw |"
    );
    eprintln!("|---|---|---|---|---|---|---|");
    for (resolution, f) in &figures {
        let per = |b: u64| b as f64 / f.entries as f64;
        eprintln!(
            "| {resolution} | {} | {} | {:.2} | {:.2} / {:.2} | {:.1} | {:.3} |",
            f.entries,
            f.bytes,
            per(f.bytes),
            per(f.files[2]),
            per(f.files[1]),
            f.writing.as_nanos() as f64 / f.entries as f64,
            f.bytes as f64 / samples
        );
    }
    let warm = BlockStore::new(store, runtime.handle().clone(), 4 << 30);
    let source = BucketSource::new(warm, TenantId::single(), blocks);
    let options =
        EngineOptions { max_samples: u64::MAX, max_memory_bytes: 8 << 30, ..EngineOptions::default() };
    let engine = Engine::new(options);
    let time =
        QueryTime::Range { start_ms: BASE_MS + HOUR_MS, end_ms: BASE_MS + days * DAY_MS, step_ms: HOUR_MS };
    eprintln!(
        "\n| query over {days} days, steps of 1 h | resolution | first, cold cache | warm, median of 5 | entries read | ns/entry |"
    );
    eprintln!("|---|---|---|---|---|---|");
    for text in [
        "sum by (job) (rate(x[1h]))",
        "max by (job) (max_over_time(temperature[6h]))",
        "avg(avg_over_time(temperature[1d]))",
        "sum(x)",
    ] {
        for (name, most) in [
            ("1h", MaxResolution::Auto),
            ("5m", MaxResolution::AtMost(FIVE_MS)),
            ("raw", MaxResolution::AtMost(0)),
        ] {
            if name == "raw" && text != "sum by (job) (rate(x[1h]))" {
                continue;
            }
            let run = || {
                let options = QueryOptions { max_resolution: Some(most), ..QueryOptions::default() };
                let begun = Instant::now();
                let result = engine.run(&source, &QueryRequest { text, time, options });
                (begun.elapsed(), result.map(|r| r.stats.samples_read).unwrap_or_default())
            };
            let (first, read) = run();
            let mut times: Vec<Duration> = (0..5).map(|_| run().0).collect();
            times.sort_unstable();
            eprintln!(
                "| `{text}` | {name} | {:.0} ms | {:.0} ms | {read} | {:.1} |",
                first.as_secs_f64() * 1e3,
                times[2].as_secs_f64() * 1e3,
                times[2].as_nanos() as f64 / read as f64
            );
        }
    }
}
