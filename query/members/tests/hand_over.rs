//! Two ingesters and a querier against a map in memory: every acknowledged sample is there once, while the
//! ingesters seal, flush, restart, hand over and die, and the store fails.

#[path = "../../../tsdb/tests/faulty_store/mod.rs"]
mod faulty_store;
mod in_process;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use faulty_store::{FaultyStore, scattered};
use in_process::{InProcess, Ingester};
use members::ingesters::{Ingesters, Options};
use members::roster;
use members::source::{FreshSource, Missing};
use model::clock::SystemClock;
use model::labels::Labels;
use model::source::dedup::{DedupMode, DedupSource};
use model::source::{Budget, Hints, LabelQuery, Selection, Source, SourceError};
use model::tenant::TenantId;
use object_store::ObjectStore;
use tsdb::bucket::reader::{BucketReader, ReaderOptions};

/// Series → time → value.
type Model = BTreeMap<Labels, BTreeMap<i64, f64>>;

const H: i64 = 3600 * 1000;
/// A border of the head's windows.
const T0: i64 = 486_000 * H;

fn tenant() -> TenantId {
    TenantId::single()
}

async fn querier(store: &Arc<dyn ObjectStore>, transport: &Arc<InProcess>) -> Arc<Ingesters> {
    let reader = BucketReader::open(ReaderOptions {
        store: store.clone(),
        clock: Arc::new(SystemClock),
        name: "query".to_owned(),
        cache_bytes: 8 << 20,
        rules: Arc::new(|_| Arc::default()),
        exemplar_keep_ms: None,
        metadata_keep_ms: None,
    });
    let options = Options {
        store: store.clone(),
        reader: reader.await.unwrap(),
        transport: transport.clone(),
        clock: Arc::new(SystemClock),
        interval: Duration::from_secs(3600),
        addresses: BTreeMap::new(),
    };
    Ingesters::open(options).await.unwrap()
}

fn selection() -> Selection {
    let (min_t_ms, max_t_ms) = (i64::MIN, i64::MAX);
    let (hints, budget) = (Hints::default(), Budget::unlimited());
    Selection { matchers: vec![], min_t_ms, max_t_ms, hints, budget }
}

/// All that a source has, which must come in order and each series once.
fn all(source: &dyn Source) -> Result<Model, SourceError> {
    let mut model = Model::new();
    let mut cursor = source.select(&selection())?;
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
    model: Model,
    now_ms: i64,
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
        let querier = querier(&store, &transport).await;
        World { rng: seed, store, faulty, transport, ingesters, querier, model: Model::new(), now_ms: T0 }
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
            // A time of its own for each: two that disagree are another test's business.
            self.now_ms += 1;
            rows.push((n, self.now_ms - late, self.pick(1000) as f64));
        }
        if let Some(db) = self.ingesters[at].db.clone() {
            let mut appender = db.appender(&tenant()).await.unwrap();
            for (n, t, v) in rows {
                let labels = Labels::from_pairs([("__name__", format!("m{}", n % 2)), ("n", n.to_string())]);
                let samples = self.model.entry(labels.clone()).or_default();
                if samples.contains_key(&t) {
                    continue;
                }
                let pairs: Vec<_> = labels.iter().collect();
                let series = appender.series(&pairs);
                appender.float(series, t, v, 0);
                samples.insert(t, v);
            }
            appender.commit().await.unwrap();
            self.model.retain(|_, samples| !samples.is_empty());
        }
    }

    async fn step(&mut self) {
        let at = self.pick(2) as usize;
        match self.pick(12) {
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
            None => assert_eq!(found.unwrap(), self.model, "seed {seed}"),
            Some(_) => {
                let why = found.unwrap_err().to_string();
                assert!(owing.iter().any(|i| why.contains(&i.name)), "seed {seed}: {why}");
                let missing = Arc::new(Missing::default());
                let part = read(&self.querier, Some(missing.clone())).await.unwrap();
                let told = missing.sentences();
                assert!(owing.iter().all(|i| told.iter().any(|t| t.contains(&i.name))), "{told:?}");
                for (labels, samples) in part {
                    let known = &self.model[&labels];
                    assert!(samples.iter().all(|(t, v)| known[t] == *v), "seed {seed}: {labels}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_are_there_once_whoever_flushes_restarts_and_dies() {
    let seeds = std::env::var("HEARTH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(25);
    for seed in 0..seeds {
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
    }
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
    world.model.entry(labels).or_default().insert(T0, 1.0);
    assert_eq!(read(&world.querier, None).await.unwrap(), world.model);
    world.ingesters[0].die(&world.transport).await;
    assert_eq!(read(&world.querier, None).await.unwrap(), world.model);
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
