//! A store with its compactor under a simulated clock, and beside it the model: a sorted map that is told the
//! same things.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use compactor::settings::{RetentionSettings, TenantRule};
use compactor::worker::Compactor;
use ingest::http::IngestState;
use model::clock::{Clock, ManualClock};
use model::histogram::{BucketSpan, Histogram};
use model::labels::Labels;
use model::matcher::Matcher;
use model::sample::{Value, stale_nan};
use model::source::memory::MemorySource;
use model::span::Span;
use model::tenant::TenantId;
use object_store::ObjectStore;
use prometheus_client::registry::Registry;
use tower::ServiceExt;
use tsdb::db::{Db, DbOptions, LogSync};
use tsdb::deletion::RetentionRule;

use crate::bucket;
use crate::test_services::Rng;
use crate::test_services::remote_write::{Series, snappy, write_request};

pub const MINUTE: i64 = 60_000;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;
/// A midnight after all that the machine's own clock says, a multiple of 14 days.
pub const START: i64 = 2_000 * 14 * DAY;

/// What a series shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    /// Stays for hours at one of three values.
    State,
    Histogram,
}

/// A series of the world.
#[derive(Clone, Debug)]
pub struct Spec {
    pub labels: Labels,
    pub kind: Kind,
    pub step_ms: i64,
    /// The last sample, a marker, is at the end.
    pub born_ms: i64,
    pub dies_ms: i64,
    seed: i64,
}

fn mixed(a: i64, b: i64) -> i64 {
    let x = (a as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (b as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((x ^ (x >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) as i64
}

impl Spec {
    /// Multiples of an eighth, so that sums are exact in whatever order they are made.
    fn value(&self, t: i64) -> f64 {
        let n = (t - self.born_ms) / self.step_ms;
        match self.kind {
            Kind::Counter => ((n * (3 + self.seed % 5)) % (900 + self.seed)) as f64,
            Kind::Gauge => (mixed(t, self.seed) % 1_000 - 300) as f64 / 8.0,
            Kind::State => (mixed(t / (7 * HOUR), self.seed) % 3) as f64,
            Kind::Histogram => ((n * 2) % 700) as f64,
        }
    }

    fn histogram(&self, t: i64) -> Histogram {
        let n = self.value(t);
        Histogram {
            schema: 0,
            zero_threshold: 0.001,
            count: 3.0 * n,
            sum: n / 4.0,
            positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
            positive_buckets: vec![n, 2.0 * n],
            ..Histogram::default()
        }
    }

    /// Timestamps in `(after, until]`.
    fn times(&self, after: i64, until: i64) -> impl Iterator<Item = i64> {
        // A phase of its own, and a jitter that never puts two out of order.
        let phase = mixed(self.seed, 7) % self.step_ms;
        let (from, to, seed, step) =
            (after.max(self.born_ms), until.min(self.dies_ms), self.seed, self.step_ms);
        let jitter = move |i: i64| mixed(i, seed) % (step / 16);
        (from.div_euclid(step) - 1..=to.div_euclid(step) + 1)
            .map(move |i| i * step + phase + jitter(i))
            .filter(move |t| from < *t && *t <= to)
    }
}

/// How large a world is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub series: i64,
    pub days: i64,
    /// Scrape intervals, the finest last and rarest.
    pub steps_ms: [i64; 3],
    pub raw_keep_ms: i64,
    pub five_minutes_keep_ms: i64,
    pub debug_keep_ms: i64,
    /// Late samples come at multiples of this.
    pub late_ms: i64,
    /// Larger blocks are written as several.
    pub max_block_bytes: u64,
}

/// The series of a world: most live all the time, some only for days.
fn series(size: Size) -> Vec<Spec> {
    let end = START + size.days * DAY;
    (0..size.series)
        .map(|i| {
            let step_ms = size.steps_ms[if i % 10 == 0 { 2 } else { usize::from(i % 3 == 0) }];
            let instance = format!("i{:02}", i % 17);
            let n = i.to_string();
            let (name, job, kind) = match i % 10 {
                0..=2 => ("requests_total", "api", Kind::Counter),
                3 | 4 => ("temperature", "node", Kind::Gauge),
                5 => ("state", "node", Kind::State),
                6 => ("debug_total", "debug", Kind::Counter),
                7 | 8 => ("pod_seconds_total", "pods", Kind::Counter),
                _ => ("latency", "api", Kind::Histogram),
            };
            let pod = format!("p{i}");
            let mut pairs = vec![("__name__", name), ("job", job), ("instance", &instance), ("n", &n)];
            let (mut born_ms, mut dies_ms) = (START, end + DAY);
            if name == "pod_seconds_total" {
                pairs.push(("pod", &pod));
                let life = (size.days / 8).max(1);
                born_ms = START + mixed(i, 3) % (size.days - life).max(1) * DAY;
                dies_ms = born_ms + life * DAY + mixed(i, 4) % DAY;
            }
            Spec { labels: Labels::from_pairs(pairs), kind, step_ms, born_ms, dies_ms, seed: i }
        })
        .collect()
}

/// A sample on its way.
type Row = (Labels, i64, Value);

/// The store, its model, and what has happened to both.
pub struct World {
    pub size: Size,
    pub clock: ManualClock,
    pub store: Arc<dyn ObjectStore>,
    pub model: Arc<MemorySource>,
    pub workers: Vec<Compactor>,
    pub samples: u64,
    pub rng: Rng,
    db: Option<Arc<Db>>,
    writes: Option<Router>,
    series: Vec<Spec>,
    /// Late samples, with the time at which they arrive: all of some days at once, as from a place that was
    /// cut off.
    late: Vec<(i64, Row)>,
    /// Samples of the last hours, some of which are sent again.
    recent: Vec<Row>,
    folder: tempfile::TempDir,
}

pub fn tenant() -> TenantId {
    TenantId::single()
}

impl World {
    pub async fn new(size: Size, seed: u64, clock: &ManualClock, store: Arc<dyn ObjectStore>) -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut world = World {
            size,
            clock: clock.clone(),
            store,
            model: Arc::default(),
            workers: Vec::new(),
            samples: 0,
            rng: Rng(seed),
            db: None,
            writes: None,
            series: series(size),
            late: Vec::new(),
            recent: Vec::new(),
            folder,
        };
        let names: &[&str] = if seed.is_multiple_of(3) { &["one", "two"] } else { &["one"] };
        world.workers = names.iter().map(|name| world.worker(name)).collect();
        world.open().await;
        world
    }

    fn keep(&self) -> RetentionSettings {
        let debug = RetentionRule {
            matchers: vec![Matcher::equal("job", "debug")],
            keep_ms: Some(self.size.debug_keep_ms),
        };
        RetentionSettings {
            raw_ms: Some(self.size.raw_keep_ms),
            resolutions_ms: [(300_000, Some(self.size.five_minutes_keep_ms)), (3_600_000, None)].into(),
            tenants: Default::default(),
            rules: vec![TenantRule { tenant: None, rule: debug }],
        }
    }

    fn worker(&self, name: &str) -> Compactor {
        let mut settings = bucket::settings(&self.folder.path().join("compaction"));
        settings.plan.resolutions_ms = model::rollup::RESOLUTIONS_MS.to_vec();
        settings.plan.grace_ms = HOUR;
        settings.keep = self.keep();
        settings.max_block_bytes = self.size.max_block_bytes;
        settings.delete_delay = Duration::from_secs(30 * 60);
        settings.orphan_grace = Duration::from_secs(6 * 3600);
        settings.garbage_interval = Duration::from_secs(15 * 60);
        bucket::compactor(&self.store, settings, name, &self.clock)
    }

    /// Opens the store, over whatever the last process left; tries again while it cannot.
    pub async fn open(&mut self) {
        let keep = self.keep();
        let options = DbOptions {
            clock: Arc::new(self.clock.clone()),
            flush_when_due: false,
            log_sync: LogSync::Every(Duration::from_millis(50)),
            rules: Arc::new(move |t| Arc::new(keep.rules_of(t))),
            ..DbOptions::new(self.folder.path().join("data"), self.store.clone())
        };
        for attempt in 0.. {
            match Db::open(options.clone()).await {
                Ok(db) => {
                    let metrics = ingest::metrics::Metrics::register(&mut Registry::default());
                    let state = IngestState::new(
                        db.clone(),
                        ingest::Limits { retention_ms: Some(self.size.raw_keep_ms), ..Default::default() },
                        Arc::new(self.clock.clone()),
                        Arc::new(|_| Ok(tenant())),
                        metrics,
                    );
                    self.writes = Some(ingest::http::router(state));
                    self.db = Some(db);
                    return;
                }
                Err(e) if attempt > 200 => panic!("the store does not open: {e}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    pub fn db(&self) -> &Arc<Db> {
        self.db.as_ref().expect("the store is open")
    }

    pub fn now(&self) -> i64 {
        self.clock.now_ms()
    }

    /// The process dies and another begins on the same folder. What was acknowledged is in the log.
    pub async fn die(&mut self) {
        self.writes = None;
        self.db = None;
        self.open().await;
    }

    /// A clean stop, and another process.
    pub async fn restart(&mut self) {
        self.writes = None;
        let db = self.db.take().expect("the store is open");
        db.close(false).await.expect("a clean stop");
        drop(db);
        self.open().await;
    }

    /// Time goes on: series are scraped, some samples are held back for days, some that are late arrive, some
    /// are sent twice or corrected.
    pub async fn advance(&mut self, by_ms: i64) {
        let from = self.now();
        self.clock.advance(by_ms);
        let until = self.now();
        let mut rows: Vec<Row> = Vec::new();
        for spec in &self.series {
            let mut last = None;
            for t in spec.times(from, until) {
                let value = match spec.kind {
                    Kind::Histogram => Value::Histogram(Arc::new(spec.histogram(t))),
                    _ => Value::Float(spec.value(t)),
                };
                rows.push((spec.labels.clone(), t, value));
                last = Some(t);
            }
            if from < spec.dies_ms
                && spec.dies_ms <= until
                && spec.kind != Kind::Histogram
                && last != Some(spec.dies_ms)
            {
                rows.push((spec.labels.clone(), spec.dies_ms, Value::Float(stale_nan())));
            }
        }
        let mut held = Vec::new();
        let mut sent = Vec::new();
        for row in rows {
            match self.rng.below(100) {
                0 => held.push((Span::containing(until + HOUR, self.size.late_ms).end_ms, row)),
                _ => sent.push(row),
            }
        }
        let (due, waiting) = std::mem::take(&mut self.late).into_iter().partition(|(due, _)| *due <= until);
        self.late = waiting;
        self.late.extend(held);
        let due: Vec<(i64, Row)> = due;
        self.recent.retain(|r| r.1 > until - 6 * HOUR);
        let mut again: Vec<Row> = Vec::new();
        for (labels, t, value) in &self.recent {
            let value = match (self.rng.below(100), value) {
                (0, Value::Float(v)) => Value::Float((v.to_bits() % 64) as f64),
                (1, same) => same.clone(),
                _ => continue,
            };
            again.push((labels.clone(), *t, value));
        }
        self.recent.extend(sent.iter().cloned());
        self.write(sent).await;
        self.write(due.into_iter().map(|(_, row)| row).collect()).await;
        // One correction of a timestamp per write: which of two stands is otherwise a question of the
        // protocol.
        self.write(again).await;
    }

    /// Floats as remote write, through all of the write path; histograms at the appender.
    pub async fn write(&mut self, mut rows: Vec<Row>) {
        rows.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.cmp(&b.1)));
        self.samples += rows.len() as u64;
        let mut appender = None;
        let mut floats: Vec<Series> = Vec::new();
        for of_series in rows.chunk_by(|a, b| a.0 == b.0) {
            let labels = &of_series[0].0;
            let pairs: Vec<(&str, &str)> = labels.iter().collect();
            let samples: Vec<(i64, f64)> = of_series
                .iter()
                .filter_map(|(_, t, v)| match v {
                    Value::Float(v) => Some((*t, *v)),
                    Value::Histogram(_) => None,
                })
                .collect();
            if !samples.is_empty() {
                let bytes = |s: &str| s.as_bytes().to_vec();
                let labels = pairs.iter().map(|(n, v)| (bytes(n), bytes(v))).collect();
                floats.push(Series { labels, samples, histograms: Vec::new() });
            }
            for (_, t, value) in of_series {
                if let Value::Histogram(h) = value {
                    if appender.is_none() {
                        appender = Some(self.db().appender(&tenant()).await.expect("a place to write"));
                    }
                    let to = appender.as_mut().expect("just made");
                    let series = to.series(&pairs);
                    to.histogram(series, *t, h.clone(), 0);
                }
            }
        }
        if let Some(appender) = appender {
            appender.commit().await.expect("histograms are written");
        }
        if !floats.is_empty() {
            let request = Request::post("/api/v1/write")
                .header("content-type", "application/x-protobuf")
                .header("content-encoding", "snappy")
                .body(Body::from(snappy(&write_request(&floats))))
                .expect("a request");
            let router = self.writes.clone().expect("the store is open");
            let answer = router.oneshot(request).await.expect("an answer");
            assert_eq!(answer.status().as_u16(), 204, "{:?}", answer.into_body());
        }
        for (labels, t, value) in rows {
            self.model.append(&labels, t, value, 0);
        }
    }

    /// Deletes until the store says that it is done.
    pub async fn delete(&mut self, matchers: Vec<Matcher>, min: i64, max: i64) {
        let selectors = [matchers];
        for attempt in 0.. {
            match self.db().delete_series(&tenant(), &selectors, min, max).await {
                Ok(()) => break,
                Err(e) if attempt > 50 => panic!("nothing is deleted: {e}"),
                Err(_) => {}
            }
        }
        self.model.delete(&selectors[0], min, max);
    }

    /// The label sets of all series that ever are.
    pub fn everybody(&self) -> Vec<Labels> {
        self.series.iter().map(|s| s.labels.clone()).collect()
    }

    /// What the rules of retention took by now goes from the model.
    pub fn forget_expired(&self) {
        let debug = [Matcher::equal("job", "debug")];
        self.model.delete(&debug, i64::MIN, self.now() - self.size.debug_keep_ms - 1);
    }

    /// Every compactor does what there is to do; what went wrong comes back.
    pub async fn compact(&self) -> Vec<String> {
        let mut errors = Vec::new();
        for worker in &self.workers {
            errors.extend(worker.round().await.errors);
        }
        if let Err(e) = self.db().refresh().await {
            errors.push(e.to_string());
        }
        errors
    }
}
