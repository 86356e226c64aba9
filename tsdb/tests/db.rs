//! The whole store against a map in memory: restarts, flushes, readers beside them. Crashes and damage are in
//! `crash`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use model::labels::Labels;
use model::sample::Metadata;
use model::source::{Budget, Hints, LabelQuery, Selection};
use model::tenant::TenantId;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use tsdb::db::{Appended, Db, DbOptions};

/// Series → time → value, as bits so that NaNs compare.
type Model = BTreeMap<Labels, BTreeMap<i64, u64>>;

fn options(dir: &Path, store: &Arc<dyn ObjectStore>) -> DbOptions {
    DbOptions { flush_when_due: false, ..DbOptions::new(dir, store.clone()) }
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn labels(i: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("metric_{}", i % 7)),
        ("instance", format!("host-{i}")),
        ("job", "test".into()),
    ])
}

async fn write(db: &Arc<Db>, model: &mut Model, rows: &[(usize, i64, f64)]) -> Appended {
    let mut appender = db.appender(&TenantId::single()).await.unwrap();
    for &(series, t, v) in rows {
        let labels = labels(series);
        let pairs: Vec<_> = labels.iter().collect();
        let series = appender.series(&pairs);
        appender.float(series, t, v, 0);
        model.entry(labels).or_default().insert(t, v.to_bits());
    }
    appender.commit().await.unwrap()
}

/// All that a query sees; panics if a series or a timestamp comes twice or out of order.
async fn read(db: &Arc<Db>) -> Model {
    let source = db.source(&TenantId::single());
    tokio::task::spawn_blocking(move || {
        let selection = Selection {
            matchers: vec![],
            min_t_ms: i64::MIN,
            max_t_ms: i64::MAX,
            hints: Hints::default(),
            budget: Budget::unlimited(),
        };
        let mut model = Model::new();
        let mut cursor = source.select(&selection).unwrap();
        let mut last: Option<Labels> = None;
        while let Some(batch) = cursor.next_batch().unwrap() {
            for s in batch {
                assert!(
                    last.as_ref().is_none_or(|l| l.series_cmp(&s.labels).is_lt()),
                    "{last:?} before {:?}",
                    s.labels
                );
                assert!(s.ts_ms.windows(2).all(|w| w[0] < w[1]), "{:?} of {:?}", s.ts_ms, s.labels);
                let points = s.ts_ms.iter().copied().zip(s.values.iter().map(|v| v.to_bits())).collect();
                last = Some(s.labels.clone());
                model.insert(s.labels, points);
            }
        }
        model
    })
    .await
    .unwrap()
}

fn rows(series: Range<usize>, times: impl Iterator<Item = i64> + Clone) -> Vec<(usize, i64, f64)> {
    series.flat_map(|s| times.clone().map(move |t| (s, t, (t % 97) as f64 + s as f64))).collect()
}

const T0: i64 = 1_700_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn committed_samples_are_there_after_a_crash_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut model) = (memory(), Model::new());
    {
        let db = Db::open(options(dir.path(), &store)).await.unwrap();
        let first = rows(0..50, (0..200).map(|i| T0 + i * 15_000));
        let n = first.len() as u64;
        assert_eq!(
            write(&db, &mut model, &first).await,
            Appended { samples: n, out_of_order: 0, duplicates: 0 }
        );
        assert_eq!(
            write(&db, &mut model, &first).await,
            Appended { samples: 0, out_of_order: 0, duplicates: n }
        );
        let late = rows(0..10, (0..50).map(|i| T0 - 3_600_000 + i * 1000));
        assert_eq!(write(&db, &mut model, &late).await.out_of_order, 500);
        // Written again with another value: the last written wins.
        write(
            &db,
            &mut model,
            &[(3, T0 + 15_000, 1e9), (3, T0 + 199 * 15_000, f64::NEG_INFINITY), (4, T0 - 3_600_000, -0.0)],
        )
        .await;
        let mut unfinished = db.appender(&TenantId::single()).await.unwrap();
        let s = unfinished.series(&[("__name__", "never")]);
        unfinished.float(s, T0, 1.0, 0);
        drop(unfinished);
        let mut about = db.appender(&TenantId::single()).await.unwrap();
        about.metadata("metric_1", Metadata { kind: "gauge".into(), help: "Help.".into(), unit: "".into() });
        about.commit().await.unwrap();
        assert_eq!(read(&db).await, model);
        // Dropped without close: as after kill -9.
    }
    for _ in 0..2 {
        let db = Db::open(options(dir.path(), &store)).await.unwrap();
        assert_eq!(db.replayed().cut_bytes, 0);
        assert_eq!(read(&db).await, model);
        assert_eq!(
            db.metadata(&TenantId::single(), None, &Budget::unlimited()).unwrap()["metric_1"][0].kind,
            "gauge"
        );
        write(&db, &mut model, &rows(40..60, (200..210).map(|i| T0 + i * 15_000))).await;
        assert_eq!(read(&db).await, model);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn folder_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory();
    let _db = Db::open(options(dir.path(), &store)).await.unwrap();
    let refused =
        Db::open(options(dir.path(), &store)).await.err().expect("a second owner is refused").to_string();
    assert!(refused.contains("in use by another Hearth"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn flushes_and_restarts_keep_every_sample_once() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> =
        Arc::new(LocalFileSystem::new_with_prefix(bucket.path()).unwrap().with_fsync(true));
    let mut model = Model::new();
    let mut db = Db::open(options(dir.path(), &store)).await.unwrap();
    for round in 0..6i64 {
        let new = (0..100).map(|i| T0 + (round * 100 + i) * 15_000);
        write(&db, &mut model, &rows(round as usize * 3..round as usize * 3 + 30, new)).await;
        // Late, and some of it a conflict with what is in blocks already.
        let late: Vec<_> =
            (0..40).map(|i| (i as usize % 20, T0 + (round * 37 + i * 11) * 15_000, round as f64)).collect();
        write(&db, &mut model, &late).await;
        let before = db.source(&TenantId::single());
        let report = db.flush().await.unwrap();
        assert!(!report.blocks.is_empty() && report.samples > 0);
        drop(before);
        assert_eq!(read(&db).await, model, "after flush {round}");
        assert_eq!(db.flush().await.unwrap().blocks.len(), 0, "nothing is left to flush");
        write(&db, &mut model, &rows(0..5, (0..5).map(|i| T0 + ((round + 1) * 100 + i) * 15_000))).await;
        assert_eq!(read(&db).await, model, "head and blocks after flush {round}");
        if round % 2 == 1 {
            drop(db);
            db = Db::open(options(dir.path(), &store)).await.unwrap();
            assert_eq!(read(&db).await, model, "after restart {round}");
        }
    }
    let segments = std::fs::read_dir(dir.path().join("log")).unwrap().count();
    assert!(segments <= 2, "{segments} segments are left of a flushed log");
    // Another process with a folder of its own sees all that is in the bucket.
    let query = || LabelQuery {
        selectors: vec![],
        min_t_ms: i64::MIN,
        max_t_ms: i64::MAX,
        budget: Budget::unlimited(),
    };
    db.flush().await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Db::open(options(elsewhere.path(), &store)).await.unwrap();
    assert_eq!(read(&other).await, model);
    let source = other.source(&TenantId::single());
    let names = tokio::task::spawn_blocking(move || source.label_names(&query()).unwrap()).await.unwrap();
    assert_eq!(names, ["__name__", "instance", "job"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn query_keeps_its_view_while_flushes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut model) = (memory(), Model::new());
    let db = Db::open(options(dir.path(), &store)).await.unwrap();
    write(&db, &mut model, &rows(0..20, (0..10).map(|i| T0 + i * 1000))).await;
    let writer = {
        let (db, mut model) = (db.clone(), model.clone());
        tokio::spawn(async move {
            for round in 1..20i64 {
                write(&db, &mut model, &rows(0..20, (0..10).map(|i| T0 + (round * 10 + i) * 1000))).await;
                db.flush().await.unwrap();
            }
            model
        })
    };
    // Whatever a reader sees is a whole number of requests, and never less than before.
    let mut least = 0;
    while !writer.is_finished() {
        let seen: usize = read(&db).await.values().map(BTreeMap::len).sum();
        assert!(seen >= least, "{seen} after {least}");
        least = seen;
    }
    let model = writer.await.unwrap();
    assert_eq!(read(&db).await, model);
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory();
    let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
    {
        let db = Db::open(options(dir.path(), &store)).await.unwrap();
        for (tenant, value) in [(&a, 1.0), (&b, 2.0)] {
            let mut appender = db.appender(tenant).await.unwrap();
            let s = appender.series(&[("__name__", "up")]);
            appender.float(s, T0, value, 0);
            appender.commit().await.unwrap();
        }
        db.flush().await.unwrap();
    }
    let db = Db::open(options(dir.path(), &store)).await.unwrap();
    assert_eq!(db.tenants(), [a.clone(), b.clone()]);
    for (tenant, value) in [(a, 1.0), (b, 2.0)] {
        let source = db.source(&tenant);
        let seen = tokio::task::spawn_blocking(move || {
            let selection = Selection {
                matchers: vec![],
                min_t_ms: 0,
                max_t_ms: i64::MAX,
                hints: Hints::default(),
                budget: Budget::unlimited(),
            };
            let batch = source.select(&selection).unwrap().next_batch().unwrap().unwrap();
            (batch.len(), batch[0].values.clone())
        });
        assert_eq!(seen.await.unwrap(), (1, vec![value]));
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// A cloned machine: two processes whose folders have one name, on one bucket.
#[tokio::test(flavor = "multi_thread")]
async fn copied_data_folder_is_refused_or_fails_its_flush_and_loses_nothing() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = memory();
    let mut model = Model::new();
    let db = Db::open(options(first.path(), &store)).await.unwrap();
    write(&db, &mut model, &rows(0..3, (0..10).map(|i| T0 + i * 15_000))).await;
    db.flush().await.unwrap();
    // Copied while it runs: the copy starts, and whoever flushes second is told.
    copy_folder(first.path(), second.path());
    let copy = Db::open(options(second.path(), &store)).await.unwrap();
    write(&db, &mut model, &rows(0..3, (10..20).map(|i| T0 + i * 15_000))).await;
    let mut of_copy = Model::new();
    write(&copy, &mut of_copy, &rows(7..9, (10..20).map(|i| T0 + i * 15_000))).await;
    assert_eq!(db.flush().await.unwrap().samples, 30);
    for _ in 0..2 {
        let why = copy.flush().await.unwrap_err().to_string();
        assert!(why.contains("was copied") && why.contains("`writer`"), "{why}");
        copy.refresh().await.unwrap();
    }
    let mut both = model.clone();
    both.extend(of_copy.clone());
    let seen = read(&copy).await;
    assert!(
        of_copy.iter().all(|(labels, points)| seen.get(labels) == Some(points)),
        "the copy has its own still"
    );
    drop((db, copy));
    // The folder that started last goes on, the other is refused: what the store has is ahead of it.
    let why = Db::open(options(first.path(), &store)).await.map(drop).unwrap_err().to_string();
    assert!(why.contains("is a copy, or older"), "{why}");
    std::fs::remove_file(second.path().join("writer")).unwrap();
    let copy = Db::open(options(second.path(), &store)).await.unwrap();
    copy.flush().await.unwrap();
    assert_eq!(read(&copy).await, both, "under a name of its own it brings all it has");
}

#[tokio::test]
async fn data_folder_stays_locked_when_its_lock_file_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory();
    let db = Db::open(options(dir.path(), &store)).await.unwrap();
    std::fs::remove_file(dir.path().join("lock")).unwrap();
    let why = Db::open(options(dir.path(), &store)).await.map(drop).unwrap_err().to_string();
    assert!(why.contains("in use by another Hearth"), "{why}");
    drop(db);
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_strewn_over_decades_are_flushed_as_one_block() {
    const DAY: i64 = 24 * 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let (store, mut model) = (memory(), Model::new());
    let db = Db::open(options(dir.path(), &store)).await.unwrap();
    write(&db, &mut model, &rows(0..1, (0..3650).map(|day| T0 - day * DAY))).await;
    write(&db, &mut model, &rows(1..2, (0..3650).rev().map(|day| T0 - day * DAY))).await;
    let report = db.flush().await.unwrap();
    assert_eq!((report.blocks.len(), report.samples), (1, 7300));
    assert_eq!(read(&db).await, model);
}
