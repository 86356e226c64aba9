//! What a store hands to readers of the bucket: all above their floor, for as long as their snapshot may be
//! older than what was flushed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::labels::Labels;
use model::source::{Budget, Hints, Selection, Source};
use model::tenant::TenantId;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tsdb::catalog::Commits;
use tsdb::db::{Db, DbOptions};

const T0: i64 = 486_000 * 3_600_000;

fn options(dir: &Path, store: &Arc<dyn ObjectStore>, keep: Duration) -> DbOptions {
    DbOptions {
        flush_when_due: false,
        commits: Commits::Unasked,
        keep_committed: keep,
        ..DbOptions::new(dir, store.clone())
    }
}

fn tenant() -> TenantId {
    TenantId::single()
}

async fn write(db: &Arc<Db>, n: i64) {
    let mut appender = db.appender(&tenant()).await.unwrap();
    let series = appender.series(&[("__name__", "m")]);
    appender.float(series, T0 + n, n as f64, 0);
    appender.commit().await.unwrap();
}

/// The samples of a source by time, from `T0` on.
fn samples(source: &dyn Source) -> Vec<i64> {
    let selection = Selection {
        matchers: vec![],
        min_t_ms: i64::MIN,
        max_t_ms: i64::MAX,
        hints: Hints::default(),
        budget: Budget::unlimited(),
    };
    let mut found: BTreeMap<Labels, Vec<i64>> = BTreeMap::new();
    let mut cursor = source.select(&selection).unwrap();
    while let Some(batch) = cursor.next_batch().unwrap() {
        for s in batch {
            found.entry(s.labels).or_default().extend(s.ts_ms.iter().map(|t| t - T0));
        }
    }
    found.into_values().flatten().collect()
}

/// What is above a floor; `None` where the floor is too low.
async fn above(db: &Arc<Db>, floor: u64) -> Option<Vec<i64>> {
    let db = db.clone();
    let read = move || db.above(&tenant(), floor).ok().map(|above| samples(above.source()));
    tokio::task::spawn_blocking(read).await.unwrap()
}

fn watermark(db: &Db) -> u64 {
    db.snapshot(&tenant()).and_then(|s| s.watermark(db.writer())).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_above_an_older_floor_stay_after_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let db = Db::open(options(dir.path(), &store, Duration::from_secs(3600))).await.unwrap();
    write(&db, 1).await;
    db.seal().await.unwrap();
    write(&db, 2).await;
    assert_eq!(above(&db, 0).await, Some(vec![1, 2]));
    db.flush().await.unwrap();
    let floor = watermark(&db);
    write(&db, 3).await;
    assert_eq!(above(&db, 0).await, Some(vec![1, 2, 3]), "a reader of the empty snapshot");
    assert_eq!(above(&db, floor).await, Some(vec![3]), "a reader of the newest");
    db.flush().await.unwrap();
    assert_eq!(above(&db, floor).await, Some(vec![3]), "one of the snapshot between");
    assert_eq!(above(&db, watermark(&db)).await, Some(vec![]));
    // A query of this process reads each once all the same.
    let source = db.source(&tenant());
    let own = tokio::task::spawn_blocking(move || samples(&*source)).await.unwrap();
    assert_eq!(own, [1, 2, 3]);
    // After a restart the files are gone, and who wants them is sent to the bucket.
    db.close(false).await.unwrap();
    drop(db);
    let db = Db::open(options(dir.path(), &store, Duration::from_secs(3600))).await.unwrap();
    let too_low = db.above(&tenant(), floor).err().expect("a floor that is too low");
    let snapshot = db.snapshot(&tenant()).expect("a snapshot");
    assert_eq!((too_low.floor, too_low.snapshot), (floor, snapshot.number));
    assert!(snapshot.watermark(db.writer()).is_some_and(|w| above_is_whole(&db, w)));
}

fn above_is_whole(db: &Db, floor: u64) -> bool {
    db.above(&tenant(), floor).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_that_were_committed_long_ago_are_in_the_bucket_only() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let db = Db::open(options(dir.path(), &store, Duration::ZERO)).await.unwrap();
    write(&db, 1).await;
    assert_eq!(above(&db, 0).await, Some(vec![1]));
    db.flush().await.unwrap();
    assert_eq!(above(&db, 0).await, None, "one that may be older than that reads the bucket");
    write(&db, 2).await;
    assert_eq!(above(&db, watermark(&db)).await, Some(vec![2]));
}

/// Notes what others are told, or cannot tell them.
#[derive(Default)]
struct Told {
    from_ms: std::sync::Mutex<Vec<i64>>,
    is_away: std::sync::atomic::AtomicBool,
}

#[async_trait::async_trait]
impl tsdb::db::owed::TellOwed for Told {
    async fn tell_owed_from(&self, t_ms: i64) -> Result<(), String> {
        if self.is_away.load(std::sync::atomic::Ordering::Relaxed) {
            return Err("the bucket is away".to_owned());
        }
        self.from_ms.lock().unwrap().push(t_ms);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn write_that_is_older_than_was_promised_waits_until_others_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let db = Db::open(options(dir.path(), &store, Duration::ZERO)).await.unwrap();
    let told = Arc::new(Told::default());
    db.tell_owed(told.clone());
    write(&db, 1).await;
    assert_eq!(db.owed_from_ms(), None, "nothing was promised");
    db.raise_owed_from().await;
    assert_eq!(db.owed_from_ms(), Some(T0), "one sample is here alone");
    db.seal().await.unwrap();
    db.raise_owed_from().await;
    assert_eq!(db.owed_from_ms(), Some(T0), "in a local block as well");
    db.flush().await.unwrap();
    db.raise_owed_from().await;
    let raised = db.owed_from_ms().unwrap();
    assert!(raised > T0 + 24 * 3_600_000, "the bucket has all: {raised}");
    assert!(told.from_ms.lock().unwrap().is_empty());

    told.is_away.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut appender = db.appender(&tenant()).await.unwrap();
    let series = appender.series(&[("__name__", "m")]);
    appender.float(series, T0 + 2, 2.0, 0);
    let refused = appender.commit().await.unwrap_err().to_string();
    assert!(refused.contains("the bucket is away"), "{refused}");
    assert_eq!(above(&db, watermark(&db)).await, Some(vec![]), "nothing of it was taken");

    told.is_away.store(false, std::sync::atomic::Ordering::Relaxed);
    write(&db, 2).await;
    let from_ms = told.from_ms.lock().unwrap().clone();
    assert!(from_ms.len() == 1 && from_ms[0] <= T0 + 2 && from_ms[0] > T0 - 86_400_000, "{from_ms:?}");
    assert_eq!(above(&db, watermark(&db)).await, Some(vec![2]));
}
