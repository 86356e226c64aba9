//! What a query asks of the object store: how many round trips one after the other, how many bytes, and never a LIST or a HEAD.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tsdb::db::{Db, DbOptions};
use tsdb::labels::Labels;
use tsdb::matcher::Matcher;
use tsdb::source::{Budget, Hints, LabelWish, Selection};
use tsdb::tenant::TenantId;
use ulid::Ulid;

/// Nothing new for so long, and all who wait are of one round: they are answered together.
const QUIET: Duration = Duration::from_millis(120);

/// What was asked since it was last looked at.
#[derive(Clone, Debug, Default)]
struct Asked {
    gets: usize,
    heads: usize,
    lists: usize,
    puts: usize,
    bytes: u64,
    /// Rounds of GETs of which each began only after the one before was answered.
    rounds: usize,
    by_object: BTreeMap<String, usize>,
}

/// Holds GETs back until no more come, and answers them together: so many answers, so many dependent round trips.
#[derive(Debug, Default)]
struct RoundStore {
    inner: InMemory,
    asked: Mutex<Asked>,
    /// Counts arrivals, so that quiet can be told, and the rounds that were answered.
    arrivals: Mutex<u64>,
    released: tokio::sync::watch::Sender<u64>,
    holds: Mutex<bool>,
}

impl RoundStore {
    fn hold(&self, on: bool) {
        *self.holds.lock().unwrap() = on;
        *self.asked.lock().unwrap() = Asked::default();
    }

    fn asked(&self) -> Asked {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    async fn wait_for_round(&self) {
        if !*self.holds.lock().unwrap() {
            return;
        }
        let mut released = self.released.subscribe();
        let round = *released.borrow();
        let arrivals = {
            let mut arrivals = self.arrivals.lock().unwrap();
            *arrivals += 1;
            *arrivals
        };
        tokio::time::sleep(QUIET).await;
        if *self.arrivals.lock().unwrap() == arrivals {
            // Nobody came after this one: all who wait are answered.
            self.asked.lock().unwrap().rounds += 1;
            self.released.send_modify(|r| *r += 1);
        }
        released.wait_for(|r| *r > round).await.expect("the sender is here");
    }
}

impl fmt::Display for RoundStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoundStore")
    }
}

#[async_trait::async_trait]
impl ObjectStore for RoundStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.asked.lock().unwrap().puts += 1;
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        {
            let mut asked = self.asked.lock().unwrap();
            if options.head {
                asked.heads += 1;
            } else {
                asked.gets += 1;
            }
            if let Some(GetRange::Bounded(range)) = &options.range {
                asked.bytes += range.end - range.start;
            }
            *asked.by_object.entry(path.to_string()).or_default() += 1;
        }
        self.wait_for_round().await;
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.asked.lock().unwrap().lists += 1;
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.asked.lock().unwrap().lists += 1;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Just after a day has begun: blocks are cut at its end.
const T0: i64 = 1_700_006_400_000 + 60_000;
const SERIES: usize = 400;
const SAMPLES: i64 = 240;

fn labels(i: usize) -> Labels {
    let pairs = [
        ("__name__", format!("metric_{}", i % 20)),
        ("instance", format!("host-{i}")),
        ("job", "test".into()),
    ];
    Labels::from_pairs(pairs)
}

/// So many blocks of two hours each, in the store; the Db that wrote them is closed.
async fn fill(store: &Arc<dyn ObjectStore>, blocks: i64) {
    let dir = tempfile::tempdir().unwrap();
    let options = DbOptions { flush_when_due: false, ..DbOptions::new(dir.path(), store.clone()) };
    let db = Db::open(options).await.unwrap();
    for block in 0..blocks {
        let mut appender = db.appender(&TenantId::single()).await.unwrap();
        for i in 0..SERIES {
            let of = labels(i);
            let pairs: Vec<_> = of.iter().collect();
            let series = appender.series(&pairs);
            for n in 0..SAMPLES {
                // Not compressible to nothing: noise by a multiplicative hash.
                let noise =
                    ((i as i64 * 7919 + n * 104_729 + block).wrapping_mul(2_654_435_761) % 1_000_003) as f64;
                appender.float(series, T0 + block * 7_200_000 + n * 15_000, noise / 7.0, 0);
            }
        }
        appender.commit().await.unwrap();
        db.flush().await.unwrap();
    }
    db.close(false).await.unwrap();
}

/// The first batch of one series over all time.
async fn first_samples(db: &Arc<Db>, instance: &str) -> usize {
    let source = db.source(&TenantId::single());
    let matchers = vec![Matcher::equal("__name__", "metric_7"), Matcher::equal("instance", instance)];
    tokio::task::spawn_blocking(move || {
        let wish = Selection {
            matchers,
            min_t_ms: i64::MIN,
            max_t_ms: i64::MAX,
            hints: Hints::default(),
            budget: Budget::unlimited(),
        };
        let mut cursor = source.select(&wish).unwrap();
        let mut samples = 0;
        while let Some(batch) = cursor.next_batch().unwrap() {
            samples += batch.iter().map(|s| s.ts_ms.len()).sum::<usize>();
        }
        samples
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_query_takes_three_round_trips_and_no_listing() {
    for blocks in [1, 6] {
        let rounds = Arc::new(RoundStore::default());
        let store: Arc<dyn ObjectStore> = rounds.clone();
        fill(&store, blocks).await;
        let dir = tempfile::tempdir().unwrap();
        let options = DbOptions { flush_when_due: false, ..DbOptions::new(dir.path(), store.clone()) };
        let db = Db::open(options).await.unwrap();

        rounds.hold(true);
        assert_eq!(first_samples(&db, "host-7").await as i64, blocks * SAMPLES);
        let cold = rounds.asked();
        assert_eq!((cold.heads, cold.lists, cold.puts), (0, 0, 0), "{cold:?}");
        assert!(cold.rounds <= 3, "{cold:?}");
        assert!(cold.gets <= 6 * blocks as usize, "{cold:?}");

        // Another series of the same pages costs nothing more than its own pages; the same one nothing at all.
        assert_eq!(first_samples(&db, "host-7").await as i64, blocks * SAMPLES);
        let warm = rounds.asked();
        assert_eq!((warm.gets, warm.rounds), (0, 0), "{warm:?}");
        assert_eq!(first_samples(&db, "host-27").await as i64, blocks * SAMPLES);
        let near = rounds.asked();
        assert!(near.rounds <= 1 && near.heads == 0 && near.lists == 0, "{near:?}");
        // What is not there is known from the labels.
        assert_eq!(first_samples(&db, "nobody").await, 0);
        assert_eq!(rounds.asked().gets, 0);
        rounds.hold(false);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn label_questions_take_one_round_trip_and_no_listing() {
    let rounds = Arc::new(RoundStore::default());
    let store: Arc<dyn ObjectStore> = rounds.clone();
    fill(&store, 3).await;
    let dir = tempfile::tempdir().unwrap();
    let options = DbOptions { flush_when_due: false, ..DbOptions::new(dir.path(), store.clone()) };
    let db = Db::open(options).await.unwrap();
    rounds.hold(true);
    let source = db.source(&TenantId::single());
    let found = tokio::task::spawn_blocking(move || {
        let wish = LabelWish {
            selectors: vec![vec![Matcher::equal("__name__", "metric_3")]],
            min_t_ms: i64::MIN,
            max_t_ms: i64::MAX,
            budget: Budget::unlimited(),
        };
        source.label_values("instance", &wish).unwrap().len()
    });
    assert_eq!(found.await.unwrap(), SERIES / 20);
    let asked = rounds.asked();
    assert_eq!((asked.rounds, asked.heads, asked.lists), (1, 0, 0), "{asked:?}");
    rounds.hold(false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_of_part_of_the_time_opens_no_other_block() {
    let rounds = Arc::new(RoundStore::default());
    let store: Arc<dyn ObjectStore> = rounds.clone();
    fill(&store, 5).await;
    let dir = tempfile::tempdir().unwrap();
    let options = DbOptions { flush_when_due: false, ..DbOptions::new(dir.path(), store.clone()) };
    let db = Db::open(options).await.unwrap();
    let live: Vec<Ulid> = db.blocks(&TenantId::single()).iter().map(|b| b.ulid).collect();
    assert_eq!(live.len(), 5);
    rounds.hold(true);
    let source = db.source(&TenantId::single());
    let read = tokio::task::spawn_blocking(move || {
        let wish = Selection {
            matchers: vec![Matcher::equal("__name__", "metric_7")],
            min_t_ms: T0 + 2 * 7_200_000,
            max_t_ms: T0 + 2 * 7_200_000 + 3_600_000 - 1,
            hints: Hints::default(),
            budget: Budget::unlimited(),
        };
        let mut cursor = source.select(&wish).unwrap();
        let mut series = 0;
        while let Some(batch) = cursor.next_batch().unwrap() {
            series += batch.len();
        }
        series
    });
    assert_eq!(read.await.unwrap(), SERIES / 20);
    let asked = rounds.asked();
    let opened: Vec<&Ulid> =
        live.iter().filter(|u| asked.by_object.keys().any(|k| k.contains(&u.to_string()))).collect();
    assert_eq!(opened.len(), 1, "{asked:?}");
    assert!(asked.rounds <= 3 && asked.lists == 0 && asked.heads == 0, "{asked:?}");
    rounds.hold(false);
}
