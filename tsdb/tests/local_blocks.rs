//! Samples on the local disk against a map in memory: sealing, restarts, flushes, and what fails or dies at
//! every step of them.

mod faulty_store;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use faulty_store::{Fault, FaultyStore};
use model::labels::Labels;
use model::sample::Metadata;
use model::source::{Budget, Hints, LabelQuery, Selection};
use model::tenant::TenantId;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use proptest::prelude::*;
use tsdb::catalog::Commits;
use tsdb::db::{Db, DbOptions};

/// Series → time → value.
type Model = BTreeMap<Labels, BTreeMap<i64, f64>>;

const H: i64 = 3600 * 1000;
/// A border of the head's windows.
const T0: i64 = 486_000 * H;

fn options(dir: &Path, store: &Arc<dyn ObjectStore>) -> DbOptions {
    DbOptions { flush_when_due: false, commits: Commits::Unasked, ..DbOptions::new(dir, store.clone()) }
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn tenant(n: usize) -> TenantId {
    TenantId::new(["a", "b"][n % 2]).unwrap()
}

async fn write(db: &Arc<Db>, models: &mut [Model; 2], rows: &[(usize, i64, f64)]) {
    for (of, model) in models.iter_mut().enumerate() {
        let mut appender = db.appender(&tenant(of)).await.unwrap();
        for &(n, t, v) in rows.iter().filter(|r| r.0 % 2 == of) {
            let labels = Labels::from_pairs([("__name__", format!("m{}", n % 3)), ("n", n.to_string())]);
            let pairs: Vec<_> = labels.iter().collect();
            let series = appender.series(&pairs);
            appender.float(series, t, v, 0);
            model.entry(labels).or_default().insert(t, v);
        }
        appender.commit().await.unwrap();
    }
}

async fn read(db: &Arc<Db>) -> [Model; 2] {
    let sources = [0, 1].map(|of| db.source(&tenant(of)));
    let all = tokio::task::spawn_blocking(move || {
        sources.map(|source| {
            let (min_t_ms, max_t_ms, budget) = (i64::MIN, i64::MAX, Budget::unlimited());
            let selection = Selection {
                matchers: vec![],
                min_t_ms,
                max_t_ms,
                hints: Hints::default(),
                budget: budget.clone(),
            };
            let mut model = Model::new();
            let mut cursor = source.select(&selection).unwrap();
            while let Some(batch) = cursor.next_batch().unwrap() {
                for s in batch {
                    assert!(s.ts_ms.windows(2).all(|w| w[0] < w[1]), "{:?} of {:?}", s.ts_ms, s.labels);
                    let points = s.ts_ms.iter().copied().zip(s.values.iter().copied()).collect();
                    assert!(model.insert(s.labels, points).is_none(), "a series came twice");
                }
            }
            let selection = LabelQuery { selectors: vec![], min_t_ms, max_t_ms, budget };
            let mut named: Vec<_> = model.keys().cloned().collect();
            named.sort_unstable();
            assert_eq!(source.series(&selection).unwrap(), named);
            model
        })
    });
    all.await.unwrap()
}

fn segments(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("log")).unwrap().count()
}

fn local_files(dir: &Path) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => walk(&entry.path(), found),
                false => found.push(entry.path().display().to_string()),
            }
        }
    }
    let mut found = Vec::new();
    walk(&dir.join("sealed"), &mut found);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn local_blocks_need_no_log_and_become_the_blocks_that_a_flush_would_make() {
    let (dir, store) = (tempfile::tempdir().unwrap(), memory());
    let mut models = [Model::new(), Model::new()];
    let mut db = Db::open(options(dir.path(), &store)).await.unwrap();
    for round in 0..5i64 {
        // 40 minutes each, over a border of windows; a few late, and one said again with another value.
        let rows: Vec<_> = (0..20)
            .flat_map(|n| (0..40).map(move |i| (n, T0 + (round * 40 + i) * 60_000, (round + i) as f64)))
            .collect();
        write(&db, &mut models, &rows).await;
        write(&db, &mut models, &[(3, T0 + (round * 40 - 30) * 60_000, -1.0), (4, T0 - 9 * H, round as f64)])
            .await;
        let before = db.source(&tenant(0));
        db.seal().await.unwrap();
        drop(before);
        assert!(read(&db).await == models, "sealed in round {round}");
        assert_eq!(db.counts().samples_in_generation, 0);
        assert_eq!(segments(dir.path()), 1, "the log of what is sealed goes");
        drop(db);
        db = Db::open(options(dir.path(), &store)).await.unwrap();
        assert_eq!((db.replayed().samples, db.counts().series), (0, 0), "nothing is left to replay");
        assert!(read(&db).await == models, "opened again in round {round}");
    }
    assert_eq!(db.counts().local_blocks, 10);
    let report = db.flush().await.unwrap();
    assert!(read(&db).await == models);
    // The first minute ends a half day, in which the late ones lie too: two blocks of each tenant.
    assert_eq!(report.blocks.len(), 4);
    assert_eq!(report.samples, models.iter().flat_map(|m| m.values()).map(|p| p.len() as u64).sum::<u64>());
    assert_eq!((db.counts().local_blocks, local_files(dir.path())), (0, Vec::<String>::new()));
    assert_eq!(db.flush().await.unwrap().blocks.len(), 0);
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Db::open(options(elsewhere.path(), &store)).await.unwrap();
    assert_eq!(read(&other).await, models);
}

#[tokio::test(flavor = "multi_thread")]
async fn object_store_that_is_away_costs_disk_and_not_memory() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = Arc::new(FaultyStore::default());
    let store: Arc<dyn ObjectStore> = faulty.clone();
    let mut models = [Model::new(), Model::new()];
    let db = Db::open(options(dir.path(), &store)).await.unwrap();
    *faulty.nth.lock().unwrap() = Some((0, Fault::Refused, true));
    for round in 0..4i64 {
        let rows: Vec<_> = (0..40)
            .flat_map(|n| (0..50).map(move |i| (n, T0 + (round * 50 + i) * 15_000, i as f64)))
            .collect();
        write(&db, &mut models, &rows).await;
        assert!(db.flush().await.is_err());
        assert!(read(&db).await == models);
        let counts = db.counts();
        assert_eq!((counts.samples_in_generation, counts.head_bytes.chunks), (0, 0));
        assert_eq!(counts.local_samples, (round as u64 + 1) * 2000);
    }
    *faulty.nth.lock().unwrap() = None;
    assert_eq!(db.flush().await.unwrap().samples, 8000);
    assert!(read(&db).await == models);
}

/// Each request to the local store or to the object store fails, alone or with all after it, with or without
/// having been done; then the process goes on, or dies and opens again.
#[tokio::test(flavor = "multi_thread")]
async fn sealing_or_a_flush_that_fails_or_dies_at_any_request_loses_and_doubles_nothing() {
    let mut cases = Vec::new();
    for (local_fails, requests) in [(true, 22), (false, 14)] {
        for nth in 0..requests {
            for (fault, after, die) in [
                (Fault::Refused, false, false),
                (Fault::Refused, true, true),
                (Fault::AnswerLost, false, true),
                (Fault::AnswerLost, true, true),
            ] {
                cases.push(tokio::spawn(one_fault(local_fails, nth, fault, after, die)));
            }
        }
    }
    let (mut failed_seals, mut failed_flushes) = (0, 0);
    for case in cases {
        let (seal, flush) = case.await.unwrap();
        failed_seals += usize::from(seal);
        failed_flushes += usize::from(flush);
    }
    assert!(
        failed_seals > 30 && failed_flushes > 80,
        "sealing failed {failed_seals} times, {failed_flushes} flushes did"
    );
}

/// Whether sealing and the flush failed.
async fn one_fault(local_fails: bool, nth: u64, fault: Fault, after: bool, die: bool) -> (bool, bool) {
    let context = format!("local {local_fails}, request {nth}, {fault:?}, after {after}, die {die}");
    let dir = tempfile::tempdir().unwrap();
    let (bucket, local) = (Arc::new(FaultyStore::default()), Arc::new(FaultyStore::default()));
    let open = |bucket: Arc<FaultyStore>, local: Arc<FaultyStore>| {
        let store: Arc<dyn ObjectStore> = bucket;
        DbOptions { local_store: Some(local), ..options(dir.path(), &store) }
    };
    let mut models = [Model::new(), Model::new()];
    let mut db = Db::open(open(bucket.clone(), local.clone())).await.unwrap();
    let rows = |from: i64, to: i64| -> Vec<_> {
        (0..6).flat_map(|n| (from..to).map(move |i| (n, T0 + i * 1000, i as f64))).collect()
    };
    write(&db, &mut models, &rows(0, 20)).await;
    db.seal().await.unwrap();
    let faulty = if local_fails { &local } else { &bucket };
    faulty.requests.store(0, Ordering::Relaxed);
    *faulty.nth.lock().unwrap() = Some((nth, fault, after));
    write(&db, &mut models, &rows(15, 40)).await;
    let failed_seal = db.seal().await.is_err();
    assert!(read_past(&db, faulty, nth).await == models, "{context}, after sealing");
    write(&db, &mut models, &rows(35, 50)).await;
    let failed_flush = db.flush().await.is_err();
    assert!(read_past(&db, faulty, nth).await == models, "{context}, after a flush");
    write(&db, &mut models, &rows(45, 60)).await;
    if die {
        drop(db);
        let (bucket, local) = (Arc::new(bucket.beside()), Arc::new(local.beside()));
        db = Db::open(open(bucket, local)).await.unwrap();
        assert!(read(&db).await == models, "{context}, opened again");
    } else {
        *faulty.nth.lock().unwrap() = None;
    }
    db.flush().await.unwrap();
    assert!(read(&db).await == models, "{context}, flushed");
    assert_eq!(db.counts().lost_samples, 0, "{context}");
    drop(db);
    let fresh: Arc<dyn ObjectStore> = Arc::new(bucket.beside());
    let elsewhere = tempfile::tempdir().unwrap();
    let db = Db::open(options(elsewhere.path(), &fresh)).await.unwrap();
    assert!(read(&db).await == models, "{context}, from the object store alone");
    (failed_seal, failed_flush)
}

/// Reads while the store works; the fault stays as it was for what is written next.
async fn read_past(db: &Arc<Db>, faulty: &FaultyStore, nth: u64) -> [Model; 2] {
    let (fault, seen) = (faulty.nth.lock().unwrap().take(), faulty.requests.load(Ordering::Relaxed));
    let models = read(db).await;
    faulty.requests.store(seen, Ordering::Relaxed);
    // One fault alone has come to pass.
    *faulty.nth.lock().unwrap() = fault.filter(|(_, _, after)| *after || seen <= nth);
    models
}

#[tokio::test(flavor = "multi_thread")]
async fn local_block_that_is_damaged_is_told_and_keeps_nothing_else_from_the_object_store() {
    let (dir, store) = (tempfile::tempdir().unwrap(), memory());
    let mut models = [Model::new(), Model::new()];
    let db = Db::open(options(dir.path(), &store)).await.unwrap();
    let rows = |from: i64| -> Vec<_> {
        (0..8).flat_map(|n| (from..from + 50).map(move |i| (n, T0 + i * 1000, (i * 7 % 13) as f64))).collect()
    };
    write(&db, &mut models, &rows(0)).await;
    db.seal().await.unwrap();
    let damaged =
        local_files(dir.path()).into_iter().find(|f| f.contains("/a/") && f.ends_with("samples.parquet"));
    let damaged = damaged.expect("a block of tenant a");
    write(&db, &mut models, &rows(50)).await;
    db.seal().await.unwrap();
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[20] ^= 4;
    std::fs::write(&damaged, bytes).unwrap();
    let failed = db.flush().await.unwrap_err().to_string();
    assert!(failed.contains("samples.parquet"), "{failed}");
    assert_eq!(db.counts().lost_samples, 200, "half of the series, 50 samples each");
    db.flush().await.unwrap();
    // Tenant a keeps what came after, tenant b everything.
    models[0].values_mut().for_each(|points| points.retain(|t, _| *t >= T0 + 50_000));
    assert!(read(&db).await == models);
    assert_eq!(local_files(dir.path()).len(), 4, "the damaged ones stay until the next start");
    drop(db);
    let db = Db::open(options(dir.path(), &store)).await.unwrap();
    assert!(read(&db).await == models);
    assert_eq!(local_files(dir.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_between_manifest_and_log_is_told_from_files_that_are_gone() {
    let (dir, store) = (tempfile::tempdir().unwrap(), memory());
    let mut models = [Model::new(), Model::new()];
    let db = Db::open(options(dir.path(), &store)).await.unwrap();
    let rows: Vec<_> = (0..8).flat_map(|n| (0..50).map(move |i| (n, T0 + i * 1000, i as f64))).collect();
    write(&db, &mut models, &rows).await;
    let kept = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir.path().join("log")).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), kept.path().join(entry.file_name())).unwrap();
    }
    db.seal().await.unwrap();
    drop(db);
    let put_back = || {
        for entry in std::fs::read_dir(kept.path()).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), dir.path().join("log").join(entry.file_name())).unwrap();
        }
    };
    // Killed after the manifest and before the log's end: the local block counts, the segment goes.
    put_back();
    let db = Db::open(options(dir.path(), &store)).await.unwrap();
    assert_eq!(db.replayed().samples, 0);
    assert!(read(&db).await == models);
    drop(db);
    // Killed before the manifest: its files go, the log counts.
    put_back();
    for manifest in local_files(dir.path()).iter().filter(|f| f.contains("/seals/")) {
        std::fs::remove_file(manifest).unwrap();
    }
    let db = Db::open(options(dir.path(), &store)).await.unwrap();
    assert_eq!(db.replayed().samples, 400);
    assert_eq!(local_files(dir.path()), Vec::<String>::new());
    assert!(read(&db).await == models);
    db.seal().await.unwrap();
    drop(db);
    // A file that is cut: the start goes on without that block.
    let series =
        local_files(dir.path()).into_iter().find(|f| f.contains("/b/") && f.ends_with("series.parquet"));
    let series = std::fs::OpenOptions::new().write(true).open(series.unwrap()).unwrap();
    series.set_len(10).unwrap();
    let db = Db::open(options(dir.path(), &store)).await.unwrap();
    models[1].clear();
    assert!(read(&db).await == models);
    db.flush().await.unwrap();
    assert!(read(&db).await == models);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_sealed_with_the_samples() {
    let (dir, store) = (tempfile::tempdir().unwrap(), memory());
    let mut models = [Model::new(), Model::new()];
    let about = Metadata { kind: "gauge".into(), help: "Help.".into(), unit: String::new() };
    let db = Db::open(options(dir.path(), &store)).await.unwrap();
    write(&db, &mut models, &[(0, T0, 1.0), (1, T0, 1.0)]).await;
    let mut appender = db.appender(&tenant(0)).await.unwrap();
    appender.metadata("m0", about.clone());
    appender.commit().await.unwrap();
    db.seal().await.unwrap();
    drop(db);
    let db = Db::open(options(dir.path(), &store)).await.unwrap();
    assert_eq!(db.replayed().samples, 0);
    assert_eq!(
        db.metadata(&tenant(0), None, &Budget::unlimited()).unwrap()["m0"],
        std::slice::from_ref(&about)
    );
    // A tenant of which nothing but metadata came has no block, and its metadata goes to the object store all
    // the same.
    let mut appender = db.appender(&tenant(1)).await.unwrap();
    appender.metadata("m1", about.clone());
    appender.commit().await.unwrap();
    db.flush().await.unwrap();
    drop(db);
    let elsewhere = tempfile::tempdir().unwrap();
    let db = Db::open(options(elsewhere.path(), &store)).await.unwrap();
    for (of, metric) in [(0, "m0"), (1, "m1")] {
        assert_eq!(
            db.metadata(&tenant(of), None, &Budget::unlimited()).unwrap()[metric],
            std::slice::from_ref(&about)
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(usize, i64, f64)>),
    Seal,
    Flush,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Around three borders of windows, in any order: much is late, and much is written twice.
    let rows = proptest::collection::vec((0usize..10, 0i64..24, 0u32..5), 1..60).prop_map(|rows| {
        Step::Write(rows.into_iter().map(|(n, t, v)| (n, T0 + t * H / 4, v.into())).collect())
    });
    let step =
        prop_oneof![6 => rows, 3 => Just(Step::Seal), 1 => Just(Step::Flush), 1 => Just(Step::Restart)];
    proptest::collection::vec(step, 1..16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn db_answers_as_the_model_whatever_is_written_sealed_and_flushed_in_any_order(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let (dir, store) = (tempfile::tempdir().unwrap(), memory());
            let mut models = [Model::new(), Model::new()];
            let mut db = Db::open(options(dir.path(), &store)).await.unwrap();
            for (i, step) in steps.iter().enumerate() {
                match step {
                    Step::Write(rows) => write(&db, &mut models, rows).await,
                    Step::Seal => db.seal().await.unwrap(),
                    Step::Flush => drop(db.flush().await.unwrap()),
                    Step::Restart => {
                        drop(db);
                        db = Db::open(options(dir.path(), &store)).await.unwrap();
                    }
                }
                assert_eq!(read(&db).await, models, "after step {i} of {steps:?}");
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_that_is_lost_costs_what_came_since_the_last_seal_where_seals_are_flushed() {
    let (dir, store) = (tempfile::tempdir().unwrap(), memory());
    let flush_sealed = DbOptions { flush_sealed: true, flush_when_due: true, ..options(dir.path(), &store) };
    let db = Db::open(flush_sealed).await.unwrap();
    let mut models = [Model::new(), Model::new()];
    // Eleven minutes of data, where a window has two hours.
    let rows: Vec<_> = (0..12).map(|minute| (minute as usize, T0 + 1 + minute * 60_000, 1.0)).collect();
    write(&db, &mut models, &rows).await;
    let in_bucket = |db: &Arc<Db>| (0..2).all(|of| !db.blocks(&tenant(of)).is_empty());
    let begun = std::time::Instant::now();
    while !in_bucket(&db) {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "nothing was flushed");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let kept = models.clone();
    write(&db, &mut models, &[(0, T0 + 12 * 60_000, 2.0), (1, T0 + 12 * 60_000, 2.0)]).await;
    assert_eq!(read(&db).await, models);
    drop(db);
    drop(dir);
    // Another machine, with nothing but the bucket.
    let elsewhere = tempfile::tempdir().unwrap();
    let db = Db::open(options(elsewhere.path(), &store)).await.unwrap();
    assert_eq!(read(&db).await, kept);
}
