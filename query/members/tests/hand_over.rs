//! Two ingesters, a compactor and a querier against a map in memory: every acknowledged sample is there once,
//! and of two that disagree the one that the rule says, while the ingesters seal, flush, restart, hand over
//! and die, blocks are compacted, series are deleted and the store fails.

#[path = "../../../tsdb/tests/faulty_store/mod.rs"]
mod faulty_store;
mod in_process;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use compactor::metrics::Metrics;
use compactor::settings::Settings;
use compactor::worker::Compactor;
use faulty_store::{FaultyStore, scattered};
use futures::StreamExt;
use in_process::{InProcess, Ingester, querier};
use members::ingesters::Ingesters;
use members::roster;
use members::source::{FreshSource, Missing};
use model::clock::SystemClock;
use model::labels::Labels;
use model::matcher::{MatchOp, Matcher};
use model::source::dedup::{DedupMode, DedupSource};
use model::source::{Budget, Hints, LabelQuery, Selection, Source, SourceError};
use model::tenant::TenantId;
use object_store::ObjectStore;
use prometheus_client::registry::Registry;
use tsdb::bucket::maintenance::{BucketMaintenance, Patience};

/// Series → time → value.
type Model = BTreeMap<Labels, BTreeMap<i64, f64>>;

/// What each ingester wrote: series → time → ingester → the value it wrote last.
type Written = BTreeMap<Labels, BTreeMap<i64, BTreeMap<usize, f64>>>;

const H: i64 = 3600 * 1000;
/// Worlds that live at the same time.
const WORLDS_AT_ONCE: usize = 12;
/// A border of the head's windows.
const T0: i64 = 486_000 * H;

fn tenant() -> TenantId {
    TenantId::single()
}

/// What a member that is slow is waited for where another has answered.
const HEDGE_DELAY: Duration = Duration::from_millis(300);

fn selection((min_t_ms, max_t_ms): (i64, i64)) -> Selection {
    let (hints, budget) = (Hints::default(), Budget::unlimited());
    Selection { matchers: vec![], min_t_ms, max_t_ms, hints, budget }
}

/// All that a source has, which must come in order and each series once.
fn all(source: &dyn Source) -> Result<Model, SourceError> {
    in_range(source, (i64::MIN, i64::MAX))
}

/// The same of a range, both ends included.
fn in_range(source: &dyn Source, range_ms: (i64, i64)) -> Result<Model, SourceError> {
    let mut model = Model::new();
    let mut cursor = source.select(&selection(range_ms))?;
    while let Some(batch) = cursor.next_batch()? {
        for s in batch {
            assert!(s.ts_ms.windows(2).all(|w| w[0] < w[1]), "{:?} of {:?}", s.ts_ms, s.labels);
            let points = s.ts_ms.iter().copied().zip(s.values.iter().copied()).collect();
            assert!(model.insert(s.labels, points).is_none(), "a series came twice");
        }
    }
    Ok(model)
}

async fn read(ingesters: &Arc<Ingesters>, missing: Option<Arc<Missing>>) -> Result<Model, SourceError> {
    let source = FreshSource::new(ingesters.clone(), tenant(), missing);
    tokio::task::spawn_blocking(move || {
        let model = all(&source)?;
        let query = LabelQuery {
            selectors: vec![],
            min_t_ms: i64::MIN,
            max_t_ms: i64::MAX,
            budget: Budget::unlimited(),
        };
        let mut named: Vec<Labels> = model.keys().cloned().collect();
        named.sort_unstable();
        assert_eq!(source.series(&query)?, named);
        let values: BTreeSet<&str> = model.keys().filter_map(|l| l.get("n")).collect();
        assert_eq!(source.label_values("n", &query)?, Vec::from_iter(values));
        Ok(model)
    })
    .await
    .unwrap()
}

/// What happens in one world: a seed decides.
struct World {
    rng: u64,
    store: Arc<dyn ObjectStore>,
    faulty: Arc<FaultyStore>,
    transport: Arc<InProcess>,
    ingesters: Vec<Ingester>,
    querier: Arc<Ingesters>,
    written: Written,
    now_ms: i64,
    compactor: Compactor,
    _scratch: tempfile::TempDir,
}

/// A compactor that waits for nothing but that no query may hold what it replaces, which none does for long.
fn compactor(store: &Arc<dyn ObjectStore>, scratch: &std::path::Path) -> Compactor {
    let mut settings = Settings::new(scratch);
    settings.max_clock_lead = None;
    settings.plan.grace_ms = 0;
    settings.pause = Duration::from_micros(100);
    let patience = Patience { attempts: 3, pause: Duration::from_micros(100) };
    let maintenance = BucketMaintenance::new(store.clone(), Arc::new(SystemClock), patience);
    Compactor::new(maintenance, settings, "compact", Metrics::register(&mut Registry::default())).unwrap()
}

impl World {
    async fn new(seed: u64) -> World {
        let faulty = Arc::new(FaultyStore::default());
        let store: Arc<dyn ObjectStore> = faulty.clone();
        let transport = Arc::new(InProcess::default());
        let mut ingesters = Vec::new();
        for n in 0..2 {
            ingesters.push(Ingester::start(n, &store, &transport).await);
        }
        let querier = querier(&store, &transport, HEDGE_DELAY).await;
        let scratch = tempfile::tempdir().unwrap();
        World {
            rng: seed,
            compactor: compactor(&store, scratch.path()),
            _scratch: scratch,
            store,
            faulty,
            transport,
            ingesters,
            querier,
            written: Written::new(),
            now_ms: T0,
        }
    }

    /// What is to be read: of both ingesters' words the greater.
    fn model(&self) -> Model {
        let greatest = |by: &BTreeMap<usize, f64>| by.values().copied().reduce(f64::max).expect("a value");
        let samples = |all: &BTreeMap<i64, BTreeMap<usize, f64>>| {
            all.iter().map(|(t, by)| (*t, greatest(by))).collect::<BTreeMap<i64, f64>>()
        };
        self.written.iter().map(|(labels, all)| (labels.clone(), samples(all))).collect()
    }

    fn pick(&mut self, sides: u64) -> u64 {
        self.rng += 1;
        scattered(self.rng, 0x5eed) % sides
    }

    /// A few samples to one ingester, some of them late.
    async fn write(&mut self, at: usize) {
        self.now_ms += self.pick(20) as i64 * 60_000;
        let mut rows = Vec::new();
        for _ in 0..1 + self.pick(8) {
            let n = self.pick(5);
            let late = if self.pick(6) == 0 { self.pick(300) as i64 * 60_000 } else { 0 };
            // Some at a time that was written already, mostly by the other.
            self.now_ms += i64::from(self.pick(4) > 0);
            rows.push((n, self.now_ms - late, self.pick(1000) as f64));
        }
        if self.pick(3) == 0
            && let Some((labels, t)) = self.taken_time(at)
        {
            let n = labels.get("n").and_then(|n| n.parse().ok()).expect("every series has one");
            rows.push((n, t, self.pick(1000) as f64));
        }
        if let Some(db) = self.ingesters[at].db.clone() {
            let mut appender = db.appender(&tenant()).await.unwrap();
            for (n, t, v) in rows {
                let labels = Labels::from_pairs([("__name__", format!("m{}", n % 2)), ("n", n.to_string())]);
                let written = self.written.entry(labels.clone()).or_default().entry(t).or_default();
                // Its own word it takes back only for a greater one: a lesser would stand until the blocks
                // with the greater are compacted with the other's.
                if written.get(&at).is_some_and(|before| *before > v) {
                    continue;
                }
                let pairs: Vec<_> = labels.iter().collect();
                let series = appender.series(&pairs);
                appender.float(series, t, v, 0);
                written.insert(at, v);
            }
            appender.commit().await.unwrap();
        } else {
            self.now_ms += 1;
        }
    }

    /// A series and a time at which the other ingester wrote and this one did not.
    fn taken_time(&mut self, at: usize) -> Option<(Labels, i64)> {
        let taken = self.written.iter().flat_map(|(labels, all)| {
            all.iter().filter(|(_, by)| !by.contains_key(&at)).map(|(t, _)| (labels.clone(), *t))
        });
        let taken: Vec<(Labels, i64)> = taken.collect();
        (!taken.is_empty()).then(|| taken[self.pick(taken.len() as u64) as usize].clone())
    }

    /// Deletes some time of one series, which says something only of what is in the bucket or with who
    /// deletes: so all flush before.
    async fn delete(&mut self) {
        if self.ingesters.iter().any(|i| i.db.is_none() && i.owes) {
            return;
        }
        let open: Vec<_> = self.ingesters.iter().filter_map(|i| i.db.clone()).collect();
        for db in &open {
            db.flush().await.unwrap();
        }
        let Some(db) = open.first() else { return };
        let n = self.pick(5).to_string();
        let (last, length) = (self.now_ms - self.pick(120) as i64 * 60_000, self.pick(90) as i64 * 60_000);
        let matcher = Matcher::new(MatchOp::Equal, "n", &n).unwrap();
        db.delete_series(&tenant(), &[vec![matcher]], last - length, last).await.unwrap();
        for (labels, samples) in &mut self.written {
            if labels.get("n") == Some(&*n) {
                samples.retain(|t, _| !(last - length..=last).contains(t));
            }
        }
        self.written.retain(|_, samples| !samples.is_empty());
        // A deletion holds for queries that begin after all have looked once more.
        self.querier.reader().refresh().await.unwrap();
    }

    async fn step(&mut self) {
        let at = self.pick(2) as usize;
        match self.pick(15) {
            12 | 13 => _ = self.compactor.round().await,
            14 => self.delete().await,
            0..=4 => self.write(at).await,
            5 => {
                if let Some(db) = &self.ingesters[at].db {
                    db.seal().await.unwrap();
                }
            }
            6 | 7 => {
                // Some flushes meet a request that fails, or whose answer is lost.
                let fault = self.pick(3) == 0;
                if fault {
                    let nth = self.faulty.requests.load(std::sync::atomic::Ordering::Relaxed) + self.pick(12);
                    let kind = [faulty_store::Fault::Refused, faulty_store::Fault::AnswerLost];
                    let kind = kind[self.pick(2) as usize];
                    *self.faulty.nth.lock().unwrap() = Some((nth, kind, false));
                }
                if let Some(db) = self.ingesters[at].db.clone() {
                    let flushed = db.flush().await;
                    assert!(fault || flushed.is_ok(), "{flushed:?}");
                }
                *self.faulty.nth.lock().unwrap() = None;
            }
            8 => self.querier.reader().refresh().await.unwrap(),
            9 => {
                self.ingesters[at].die(&self.transport).await;
            }
            10 => {
                self.ingesters[at].hand_over(&self.store, &self.transport).await;
            }
            _ => {
                let was_away = self.ingesters[at].db.is_none();
                if was_away {
                    self.ingesters[at].come_back(&self.store, &self.transport).await;
                    // As a new member waits until all have read the roster again.
                    self.querier.refresh().await.unwrap();
                }
            }
        }
    }

    /// Asks, and holds the answer against the model. An ingester that died is named.
    async fn check(&self, seed: u64) {
        let owing: Vec<&Ingester> = self.ingesters.iter().filter(|i| i.db.is_none() && i.owes).collect();
        let found = read(&self.querier, None).await;
        match owing.first() {
            None => assert_eq!(found.unwrap(), self.model(), "seed {seed}"),
            Some(_) => {
                let why = found.unwrap_err().to_string();
                assert!(owing.iter().any(|i| why.contains(&i.name)), "seed {seed}: {why}");
                let missing = Arc::new(Missing::default());
                let part = read(&self.querier, Some(missing.clone())).await.unwrap();
                let told = missing.sentences();
                assert!(owing.iter().all(|i| told.iter().any(|t| t.contains(&i.name))), "{told:?}");
                for (labels, samples) in part {
                    let known = &self.written[&labels];
                    let is_known = |(t, v): (&i64, &f64)| known[t].values().any(|known| known == v);
                    assert!(samples.iter().all(is_known), "seed {seed}: {labels}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_are_there_once_whoever_flushes_restarts_and_dies() {
    let seeds: u64 = std::env::var("HEARTH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    // Most of a world's time is waiting for its disk.
    let worlds = futures::stream::iter(0..seeds).map(|seed| tokio::spawn(live(seed)));
    worlds.buffer_unordered(WORLDS_AT_ONCE).for_each(|lived| async { lived.unwrap() }).await;
}

/// One world from its beginning until both ingesters have handed over and all is compacted.
async fn live(seed: u64) {
    let mut world = World::new(seed * 1000).await;
    for _ in 0..40 {
        world.step().await;
        if world.pick(3) == 0 {
            world.check(seed).await;
        }
    }
    for at in 0..2 {
        world.ingesters[at].come_back(&world.store, &world.transport).await;
    }
    world.querier.refresh().await.unwrap();
    world.check(seed).await;
    for at in 0..2 {
        world.ingesters[at].hand_over(&world.store, &world.transport).await;
    }
    world.check(seed).await;
    world.compactor.round().await;
    world.querier.reader().refresh().await.unwrap();
    world.check(seed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_group_answers_as_long_as_one_of_it_is_there() {
    let mut world = World::new(7).await;
    for ingester in &mut world.ingesters {
        ingester.join_group(&world.store, "pair").await;
    }
    world.querier.refresh().await.unwrap();
    let labels = Labels::from_pairs([("__name__", "m"), ("n", "1")]);
    for at in 0..2 {
        let db = world.ingesters[at].db.clone().unwrap();
        let mut appender = db.appender(&tenant()).await.unwrap();
        let pairs: Vec<_> = labels.iter().collect();
        let series = appender.series(&pairs);
        appender.float(series, T0, 1.0, 0);
        appender.commit().await.unwrap();
    }
    world.written.entry(labels).or_default().entry(T0).or_default().insert(0, 1.0);
    assert_eq!(read(&world.querier, None).await.unwrap(), world.model());
    world.ingesters[0].die(&world.transport).await;
    assert_eq!(read(&world.querier, None).await.unwrap(), world.model());
    world.ingesters[1].die(&world.transport).await;
    let why = read(&world.querier, None).await.unwrap_err().to_string();
    assert!(why.contains("hearth bucket forget") && why.contains("partial_response"), "{why}");
    for ingester in &world.ingesters {
        roster::forget(&*world.store, &ingester.name).await.unwrap();
    }
    world.querier.refresh().await.unwrap();
    assert!(read(&world.querier, None).await.unwrap().is_empty(), "both are given up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_labels_are_taken_off_what_members_hold_too() {
    let world = World::new(11).await;
    for (at, replica) in ["a", "b"].into_iter().enumerate() {
        let db = world.ingesters[at].db.clone().unwrap();
        let mut appender = db.appender(&tenant()).await.unwrap();
        for n in ["1", "2"] {
            let series = appender.series(&[("__name__", "m"), ("n", n), ("replica", replica)]);
            for i in 0..20 {
                appender.float(series, T0 + i * 15_000, i as f64, 0);
            }
        }
        appender.commit().await.unwrap();
    }
    let source = Arc::new(FreshSource::new(world.querier.clone(), tenant(), None));
    let one = DedupSource::new(source, vec!["replica".to_owned()], DedupMode::Hearth);
    let model = tokio::task::spawn_blocking(move || all(&one).unwrap()).await.unwrap();
    assert_eq!(model.len(), 2);
    assert!(model.values().all(|samples| samples.len() == 20), "{model:?}");
}

/// Writes one sample at a time into an ingester.
async fn one_sample(ingester: &Ingester, t_ms: i64) {
    let db = ingester.db.clone().unwrap();
    let mut appender = db.appender(&tenant()).await.unwrap();
    let series = appender.series(&[("__name__", "m"), ("n", "1")]);
    appender.float(series, t_ms, 1.0, 0);
    appender.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_that_is_away_fails_only_queries_of_what_it_may_hold() {
    let mut world = World::new(13).await;
    let now = T0 + 100 * 24 * 3600 * 1000;
    one_sample(&world.ingesters[0], T0).await;
    one_sample(&world.ingesters[1], T0).await;
    // What was flushed is in the bucket, and the first holds nothing older than its newest sample.
    world.ingesters[0].db.as_ref().unwrap().flush().await.unwrap();
    one_sample(&world.ingesters[0], now).await;
    world.ingesters[0].owes_from_ms = Some(now);
    world.ingesters[0].tell(&world.store).await;
    world.ingesters[0].die(&world.transport).await;
    let read = async |range_ms: (i64, i64), missing: Option<Arc<Missing>>| {
        let source = FreshSource::new(world.querier.clone(), tenant(), missing);
        tokio::task::spawn_blocking(move || in_range(&source, range_ms)).await.unwrap()
    };
    let before = read((T0 - 1, now - 1), None).await.unwrap();
    assert_eq!(before.values().map(|samples| samples.len()).sum::<usize>(), 1, "{before:?}");
    let why = read((T0 - 1, now), None).await.unwrap_err().to_string();
    assert!(
        why.contains(&world.ingesters[0].name) && why.contains("of 2025-09-19T00:00:00Z to 2025"),
        "{why}"
    );
    let missing = Arc::new(Missing::default());
    read((T0 - 1, now), Some(missing.clone())).await.unwrap();
    let told = missing.sentences();
    assert!(told.len() == 1 && told[0].contains("samples of 2025-09-19T00:00:00Z to 2025"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_replica_is_given_up_when_its_equal_has_answered() {
    let mut world = World::new(17).await;
    for ingester in &mut world.ingesters {
        ingester.join_group(&world.store, "pair").await;
    }
    world.querier.refresh().await.unwrap();
    for ingester in &world.ingesters {
        one_sample(ingester, T0).await;
    }
    let slow = Duration::from_secs(30);
    let delay = |at: usize| {
        world.transport.delay.lock().unwrap().insert(world.ingesters[at].address.clone(), slow);
    };
    delay(0);
    let begun = std::time::Instant::now();
    let found = read(&world.querier, None).await.unwrap();
    assert_eq!(found.len(), 1);
    assert!(begun.elapsed() < slow, "the slow one was not waited for");
}
