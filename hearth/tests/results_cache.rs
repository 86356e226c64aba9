//! Kept results are never stale: random samples, late ones, imports, deletions, seals, flushes, compactions,
//! restarts and retention, and after each of them range queries whose answers out of the cache are those
//! without it, bit for bit.

#[path = "../../compactor/tests/bucket/mod.rs"]
mod bucket;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use compactor::settings::{RetentionSettings, TenantRule};
use compactor::worker::Compactor;
use model::clock::{Clock, ManualClock};
use model::histogram::{BucketSpan, Histogram};
use model::matcher::Matcher;
use model::source::Source;
use model::source::dedup::{DedupMode, DedupSource};
use model::tenant::TenantId;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use query::column::Point;
use query::engine::{Engine, QueryRequest, QueryTime};
use query::options::EngineOptions;
use query::results_cache::{CacheUse, ResultsCache};
use query::value::{QueryError, QueryResult, QueryValue};
use tsdb::db::{Db, DbOptions, LogSync};
use tsdb::deletion::RetentionRule;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const START: i64 = 2_000 * 14 * DAY;

/// A small generator of its own, so that a seed names a run for ever.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: i64) -> i64 {
        (self.next() % n.max(1) as u64) as i64
    }

    fn of<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        &all[self.below(all.len() as i64) as usize]
    }
}

const EXPRESSIONS: &[&str] = &[
    "gauge",
    "gauge{n=\"1\"} > 2",
    "rate(requests_total[5m])",
    "increase(requests_total[1h])",
    "sum(rate(requests_total[5m]))",
    "sum by (job) (rate(requests_total[10m]))",
    "avg(gauge)",
    "topk(2, gauge)",
    "count({job=\"a\"})",
    "sum(gauge offset 1h)",
    "sum(gauge offset -30m)",
    "sum by (n) (gauge) / on (n) count by (n) (requests_total)",
    "max_over_time(sum(gauge)[30m:2m])",
    "avg_over_time(gauge[1h])",
    "sum_over_time(gauge[7m])",
    "max(avg_over_time(gauge[2h:10m]))",
    "stddev(gauge)",
    "quantile(0.7, gauge)",
    "absent(gauge{n=\"3\"})",
    "time() - timestamp(gauge)",
    "sum(gauge and requests_total > 3)",
    "histogram_quantile(0.9, sum(rate(latency[10m])))",
    "histogram_count(latency)",
    "sum(gauge @ 28000000)",
    "gauge - gauge offset 10m",
    "sum(rate({job=\"a\"}[5m]))",
    "topk(1, sum by (job) (gauge))",
    "max_over_time(gauge[20m]) unless gauge > 10",
    "label_replace(gauge, \"x\", \"$1\", \"job\", \"(.).*\")",
    "predict_linear(gauge[30m], 600)",
    "deriv(gauge[15m]) or vector(1)",
    "changes(gauge[1h]) + resets(requests_total[1h])",
];

/// A store, its compactor, and what is kept of results.
struct World {
    rng: Rng,
    clock: ManualClock,
    store: Arc<dyn ObjectStore>,
    /// `None` while it is opened again.
    db: Option<Arc<Db>>,
    compactor: Compactor,
    cache: ResultsCache,
    engine: Engine,
    folder: tempfile::TempDir,
    keep: RetentionSettings,
    used: BTreeMap<&'static str, u64>,
}

fn tenant() -> TenantId {
    TenantId::single()
}

async fn open(
    folder: &tempfile::TempDir,
    store: &Arc<dyn ObjectStore>,
    clock: &ManualClock,
    keep: &RetentionSettings,
) -> Arc<Db> {
    let keep = keep.clone();
    let options = DbOptions {
        clock: Arc::new(clock.clone()),
        flush_when_due: false,
        log_sync: LogSync::Every(Duration::from_millis(20)),
        rules: Arc::new(move |t| Arc::new(keep.rules_of(t))),
        ..DbOptions::new(folder.path().join("data"), store.clone())
    };
    for attempt in 0.. {
        match Db::open(options.clone()).await {
            Ok(db) => return db,
            Err(e) if attempt > 200 => panic!("the store does not open: {e}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    unreachable!("it opens or panics");
}

impl World {
    async fn new(seed: u64) -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = ManualClock::at(START);
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let keep = RetentionSettings {
            rules: vec![TenantRule {
                tenant: None,
                rule: RetentionRule {
                    matchers: vec![Matcher::equal("job", "b")],
                    keep_ms: seed.is_multiple_of(3).then_some(5 * DAY),
                },
            }],
            ..RetentionSettings::default()
        };
        let mut settings = bucket::settings(&folder.path().join("compaction"));
        settings.plan.resolutions_ms = model::rollup::RESOLUTIONS_MS.to_vec();
        settings.plan.grace_ms = HOUR;
        settings.keep = keep.clone();
        let compactor = bucket::compactor(&store, settings, "c", &clock);
        let db = Some(open(&folder, &store, &clock, &keep).await);
        World {
            rng: Rng(seed),
            // Small enough that extents go.
            cache: ResultsCache::new(if seed.is_multiple_of(2) { 64 << 20 } else { 400 << 10 }),
            engine: Engine::new(EngineOptions::default()),
            used: BTreeMap::new(),
            clock,
            store,
            db,
            compactor,
            folder,
            keep,
        }
    }

    fn db(&self) -> &Arc<Db> {
        self.db.as_ref().expect("open")
    }

    /// Writes samples of all series between two times.
    async fn write(&mut self, from_ms: i64, to_ms: i64, every_ms: i64) {
        let mut appender = self.db().appender(&tenant()).await.expect("room");
        for n in 0..6 {
            let (n_text, job) = (n.to_string(), if n % 2 == 0 { "a" } else { "b" });
            let replica = if n < 3 { "r1" } else { "r2" };
            for name in ["gauge", "requests_total", "latency"] {
                if self.rng.below(5) == 0 {
                    continue;
                }
                let labels = [("__name__", name), ("job", job), ("n", &n_text), ("replica", replica)];
                let series = appender.series(&labels);
                let mut t = from_ms + self.rng.below(every_ms);
                while t <= to_ms {
                    let value = (self.rng.next() >> 40) as f64 / 1e6 * 1.1;
                    match name {
                        "latency" => appender.histogram(series, t, Arc::new(histogram(value)), 0),
                        "requests_total" => appender.float(series, t, (t % 7_200_000) as f64 * 0.37, 0),
                        _ => appender.float(series, t, value, 0),
                    }
                    t += every_ms / 2 + self.rng.below(every_ms);
                }
            }
        }
        appender.commit().await.expect("durable");
    }

    async fn step(&mut self) -> &'static str {
        let now = self.clock.now_ms();
        match self.rng.below(16) {
            0..=4 => {
                let long = MINUTE * (1 + self.rng.below(90));
                self.clock.advance(long);
                self.write(now, now + long, MINUTE).await;
                "write"
            }
            5..=6 => {
                let (from, long) = (now - self.rng.below(3 * DAY), self.rng.below(HOUR));
                self.write(from, from + long, 2 * MINUTE).await;
                "late"
            }
            7..=8 => {
                self.db().seal().await.expect("sealed");
                "seal"
            }
            9..=10 => {
                self.db().flush().await.expect("flushed");
                "flush"
            }
            11..=12 => {
                let done = self.compactor.round().await;
                assert_eq!(done.errors, Vec::<String>::new());
                self.db().refresh().await.expect("refreshed");
                "compact"
            }
            13 => {
                let (from, long) = (now - self.rng.below(2 * DAY), self.rng.below(6 * HOUR));
                let n = self.rng.below(6).to_string();
                let matchers = vec![Matcher::equal("n", &n)];
                self.db().delete_series(&tenant(), &[matchers], from, from + long).await.expect("deleted");
                "delete"
            }
            14 => {
                self.import(now).await;
                "import"
            }
            _ => {
                let db = self.db.take().expect("open");
                db.close(false).await.expect("closed");
                drop(db);
                self.db = Some(open(&self.folder, &self.store, &self.clock, &self.keep).await);
                "restart"
            }
        }
    }

    /// A block by another hand, over what is there.
    async fn import(&mut self, now: i64) {
        let from = now - self.rng.below(2 * DAY);
        let value = self.rng.below(1_000) as f64 * 0.3;
        let labels = [("__name__", "gauge"), ("job", "a"), ("n", "imported"), ("replica", "r1")];
        let samples = (0..self.rng.below(90) + 1).map(|i| (from + i * MINUTE, value + i as f64));
        let series = vec![bucket::floats(&labels, samples)];
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let number = (now / 1_000) as u64 * 1_000 + self.rng.next() % 1_000;
        bucket::put_block(&self.store, scratch.path(), number, series).await;
        self.db().refresh().await.expect("refreshed");
    }

    fn source(&mut self) -> (Arc<dyn Source>, &'static str) {
        let source = self.db().source(&tenant());
        match self.rng.below(4) {
            0 => {
                let labels = vec!["replica".to_owned()];
                (Arc::new(DedupSource::new(source, labels, DedupMode::Hearth)), "dedup")
            }
            _ => (source, "plain"),
        }
    }

    /// One query with and without the cache.
    fn ask(&mut self, what: &str) {
        let now = self.clock.now_ms();
        let text = *self.rng.of(EXPRESSIONS);
        let step_ms = *self.rng.of(&[15_000, MINUTE, 2 * MINUTE, 5 * MINUTE, HOUR]);
        let count = 40 + self.rng.below(200);
        // Dashboards come again and again: mostly the same grid.
        let phase_ms = if self.rng.below(5) == 0 { self.rng.below(step_ms) } else { 0 };
        let back = *self.rng.of(&[0, 0, 0, 3 * HOUR, DAY]);
        let end_ms = (now - back) / step_ms * step_ms + phase_ms;
        let time = QueryTime::Range { start_ms: end_ms - count * step_ms, end_ms, step_ms };
        let request = QueryRequest { text, time, options: Default::default() };
        let (source, scope) = self.source();
        let plain = self.engine.run(&*source, &request);
        let cached = self.cache.run(&self.engine, &*source, &request, scope, None);
        let cache_use = cached.as_ref().ok().and_then(|(_, of)| *of);
        let (a, b) = (shown(plain), shown(cached.map(|(result, _)| result)));
        if a != b {
            let at = a.iter().zip(&b).find(|(a, b)| a != b);
            panic!(
                "after {what}: {text} {time:?} {scope} {cache_use:?}: {at:?} ({} {} lines)",
                a.len(),
                b.len()
            );
        }
        if let Some(CacheUse { cached_steps: 1.., .. }) = cache_use {
            *self.used.entry(text).or_default() += 1;
        }
    }
}

fn histogram(value: f64) -> Histogram {
    Histogram {
        schema: 1,
        zero_threshold: 0.001,
        count: 3.0 * value,
        sum: value / 4.0,
        positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
        positive_buckets: vec![value, 2.0 * value],
        ..Histogram::default()
    }
}

/// An answer, or its error, to the last bit.
fn shown(result: Result<QueryResult, QueryError>) -> Vec<String> {
    let result = match result {
        Ok(result) => result,
        Err(e) => return vec![e.message],
    };
    let (warnings, infos) = result.annotations.render("", 100);
    let mut lines = vec![format!("{warnings:?} {infos:?}")];
    let QueryValue::Matrix { steps, series } = result.value else { panic!("a range query gives a matrix") };
    for s in series {
        lines.push(format!("{:?}", s.labels));
        for (step, point) in s.column.iter() {
            lines.push(match point {
                Point::Float(v) => format!("{} {:x}", steps.at(step), v.to_bits()),
                Point::Histogram(h) => {
                    let buckets: Vec<u64> = h.positive_buckets.iter().map(|b| b.to_bits()).collect();
                    let (sum, count) = (h.sum.to_bits(), h.count.to_bits());
                    format!("{} {sum:x} {count:x} {buckets:x?}", steps.at(step))
                }
            });
        }
    }
    lines
}

async fn run(seed: u64, steps: u64) -> (u64, BTreeMap<&'static str, u64>) {
    let mut world = World::new(seed).await;
    for round in 0..steps {
        let what = world.step().await;
        let what = format!("seed {seed}, round {round}, {what}");
        world = tokio::task::spawn_blocking(move || {
            for _ in 0..8 {
                world.ask(&what);
            }
            world
        })
        .await
        .expect("answers are equal");
    }
    let counts = world.cache.counts();
    assert!(counts.bytes <= counts.max_bytes);
    world.db().close(false).await.expect("closed");
    (counts.hits + counts.partial_hits, world.used)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_cache_answers_are_those_without_it_whatever_happens_to_the_samples() {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let first = std::env::var("SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let hits = AtomicU64::new(0);
    let mut used: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in first..first + seeds {
        let (of_seed, by_text) = run(seed, 60).await;
        hits.fetch_add(of_seed, Ordering::Relaxed);
        by_text.into_iter().for_each(|(text, n)| *used.entry(text).or_default() += n);
    }
    // A cache that is never used is never wrong either.
    if first == 0 && seeds >= 12 {
        assert!(hits.load(Ordering::Relaxed) > 12 * 30, "{hits:?}");
        let never: Vec<_> = EXPRESSIONS.iter().filter(|text| !used.contains_key(**text)).collect();
        assert_eq!(never, [&"sum(rate({job=\"a\"}[5m]))", &"topk(1, sum by (job) (gauge))"], "{used:?}");
    }
}
