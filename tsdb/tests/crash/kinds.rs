//! What a request wrote is answered alike before a restart and after it: whatever kinds of samples share a
//! time, however often a series is named.

use std::sync::Arc;

use model::histogram::Histogram;
use model::labels::Labels;
use model::sample::{Metadata, stale_nan};
use model::source::testing::rng::Rng;
use model::tenant::TenantId;
use object_store::memory::InMemory;
use tsdb::db::{Db, SeriesRef};

use crate::held::{self, Contents, T0};

fn histogram(sum: f64) -> Arc<Histogram> {
    Arc::new(Histogram { sum, count: 2.5, ..Histogram::default() })
}

/// Writes one sample of some kind: floats and histograms, and the markers that say that a series of them
/// ended.
fn write(appender: &mut tsdb::db::Appender, series: SeriesRef, kind: usize, ts_ms: i64, value: f64) {
    match kind {
        0 => appender.float(series, ts_ms, value, 0),
        1 => appender.float(series, ts_ms, stale_nan(), 0),
        2 => appender.histogram(series, ts_ms, histogram(value), 0),
        _ => appender.histogram(series, ts_ms, histogram(stale_nan()), 0),
    }
}

fn pairs(n: usize) -> Labels {
    Labels::from_pairs([("__name__", "kinds".to_string()), ("n", n.to_string())])
}

/// The store as it is read, and as it is read after it was opened again.
async fn reopened(db: Arc<Db>, options: tsdb::db::DbOptions) -> (Contents, Contents, Arc<Db>) {
    let before = held::read(&db, &TenantId::single()).await;
    drop(db);
    let db = held::open(options).await;
    let after = held::read(&db, &TenantId::single()).await;
    (before, after, db)
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_at_one_time_keep_their_order_through_a_restart() {
    for seed in 0..10 {
        let mut random = Rng(seed);
        let dir = tempfile::tempdir().unwrap();
        let options = held::options(dir.path(), Arc::new(InMemory::new()));
        let mut db = held::open(options.clone()).await;
        for step in 0..30 {
            let mut appender = db.appender(&TenantId::single()).await.unwrap();
            for _ in 0..1 + random.below(6) {
                let labels = pairs(random.below(3));
                let series = appender.series(&labels.iter().collect::<Vec<_>>());
                let (kind, t) = (random.below(4), T0 + random.below(4));
                write(&mut appender, series, kind, t, step as f64);
            }
            appender.commit().await.unwrap();
            if random.below(8) == 0 {
                db.seal().await.unwrap();
            }
            if random.below(10) == 0 {
                let (before, after, reopened) = reopened(db, options.clone()).await;
                assert_eq!(before, after, "seed {seed}, step {step}: {}", before.against(&after));
                db = reopened;
            }
        }
        let (before, after, _) = reopened(db, options).await;
        assert_eq!(before, after, "seed {seed}: {}", before.against(&after));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn later_of_two_kinds_at_one_time_stands_within_a_request() {
    for kinds in [[0, 2], [2, 0], [1, 2], [2, 1], [3, 0], [0, 3]] {
        let dir = tempfile::tempdir().unwrap();
        let options = held::options(dir.path(), Arc::new(InMemory::new()));
        let db = held::open(options.clone()).await;
        let mut appender = db.appender(&TenantId::single()).await.unwrap();
        let labels = pairs(0);
        for kind in kinds {
            // Named again, as senders do that put each kind into a series of its own.
            let series = appender.series(&labels.iter().collect::<Vec<_>>());
            write(&mut appender, series, kind, T0, 7.0);
        }
        appender.commit().await.unwrap();
        let last =
            held::open(held::options(tempfile::tempdir().unwrap().path(), Arc::new(InMemory::new()))).await;
        let mut appender = last.appender(&TenantId::single()).await.unwrap();
        let series = appender.series(&labels.iter().collect::<Vec<_>>());
        write(&mut appender, series, kinds[1], T0, 7.0);
        appender.commit().await.unwrap();
        let want = held::read(&last, &TenantId::single()).await;
        let (before, after, _) = reopened(db, options).await;
        assert_eq!((&before, &after), (&want, &want), "{kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn series_is_written_down_once_however_often_a_request_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = held::options(dir.path(), Arc::new(InMemory::new()));
    let db = held::open(options.clone()).await;
    let long = "x".repeat(24 << 10);
    let labels = Labels::from_pairs([("__name__", "named_often"), ("long", &long)]);
    let mut appender = db.appender(&TenantId::single()).await.unwrap();
    for n in 0..3_000 {
        let series = appender.series(&labels.iter().collect::<Vec<_>>());
        appender.float(series, T0 + n, n as f64, 0);
    }
    appender.metadata("named_often", Metadata { kind: "gauge".into(), help: "h".into(), unit: "".into() });
    appender.commit().await.unwrap();
    let written: usize = held::files(dir.path()).into_values().map(|bytes| bytes.len()).sum();
    assert!(written < 200 << 10, "{written} bytes for one series of {} bytes", long.len());
    let (before, after, _) = reopened(db, options).await;
    assert_eq!(before.samples(), 3_000);
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_samples_in_random_order_are_what_a_map_holds() {
    let dir = tempfile::tempdir().unwrap();
    let options = held::options(dir.path(), Arc::new(InMemory::new()));
    let db = held::open(options.clone()).await;
    let labels = pairs(0);
    let n = 60_000;
    for request in 0..2 {
        let mut appender = db.appender(&TenantId::single()).await.unwrap();
        let series = appender.series(&labels.iter().collect::<Vec<_>>());
        for i in 0..n {
            let t = i * 7919 % n;
            appender.float(series, T0 + t, (t + request * (t % 2)) as f64, 0);
        }
        let appended = appender.commit().await.unwrap();
        let (samples, duplicates) = if request == 0 { (n, 0) } else { (n / 2, n / 2) };
        assert_eq!((appended.samples, appended.duplicates), (samples as u64, duplicates as u64));
    }
    let (before, after, _) = reopened(db, options).await;
    assert_eq!(before.samples(), n as u64);
    assert_eq!(before, after);
}
