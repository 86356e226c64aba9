//! Exemplars and metadata keep the promises that samples have: acknowledged is durable, through restarts,
//! flushes that fail anywhere, and a disk that is gone.

mod faulty_store;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use faulty_store::{Fault, FaultyStore};
use model::clock::{Clock, ManualClock};
use model::exemplar::{Accepted, Refused, SeriesExemplars};
use model::labels::Labels;
use model::matcher::Matcher;
use model::sample::Metadata;
use model::source::{Budget, SourceError};
use model::tenant::TenantId;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;
use tsdb::catalog::Commits;
use tsdb::db::{Db, DbOptions};
use tsdb::layout;

const T0: i64 = 1_700_000_000_000;

/// Series → exemplars: time, value, trace.
type Model = BTreeMap<Labels, Vec<(i64, u64, String)>>;

fn options(dir: &Path, store: &Arc<dyn ObjectStore>) -> DbOptions {
    DbOptions { flush_when_due: false, commits: Commits::Unasked, ..DbOptions::new(dir, store.clone()) }
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn labels(n: usize) -> Labels {
    Labels::from_pairs([("__name__", "rpc_seconds_bucket".to_string()), ("n", n.to_string())])
}

/// Writes a sample and an exemplar for each row (series, time, value); what is new goes into the model.
async fn write(db: &Arc<Db>, model: &mut Model, rows: &[(usize, i64, f64)]) {
    let mut appender = db.appender(&TenantId::single()).await.unwrap();
    for &(n, t, v) in rows {
        let labels = labels(n);
        let pairs: Vec<_> = labels.iter().collect();
        let series = appender.series(&pairs);
        appender.float(series, t, v, 0);
        let trace = format!("{n}-{t}-{v}");
        if appender.exemplar(series, t, v, &[("trace_id", &trace)]) == Ok(Accepted::New) {
            model.entry(labels).or_default().push((t, v.to_bits(), trace));
        }
    }
    appender.commit().await.unwrap();
}

async fn ask(
    db: &Arc<Db>,
    selectors: Vec<Vec<Matcher>>,
    range: (i64, i64),
) -> Result<Vec<SeriesExemplars>, SourceError> {
    let db = db.clone();
    let asked = tokio::task::spawn_blocking(move || {
        db.exemplars(&TenantId::single(), &selectors, range.0, range.1, &Budget::unlimited())
    });
    asked.await.unwrap()
}

async fn read(db: &Arc<Db>) -> Model {
    let all = ask(db, vec![vec![]], (i64::MIN, i64::MAX)).await.unwrap();
    let plain = |s: SeriesExemplars| {
        let one = |e: &model::exemplar::Exemplar| {
            (e.ts_ms, e.value.to_bits(), e.labels.value("trace_id").to_string())
        };
        (s.labels, s.exemplars.iter().map(one).collect())
    };
    all.into_iter().map(plain).collect()
}

async fn known(db: &Arc<Db>) -> BTreeMap<String, Vec<Metadata>> {
    let db = db.clone();
    tokio::task::spawn_blocking(move || db.metadata(&TenantId::single(), None, &Budget::unlimited()).unwrap())
        .await
        .unwrap()
}

async fn tell(db: &Arc<Db>, metric: &str, help: &str) {
    let mut appender = db.appender(&TenantId::single()).await.unwrap();
    appender.metadata(metric, about(help));
    appender.commit().await.unwrap();
}

fn about(help: &str) -> Metadata {
    Metadata { kind: "counter".into(), help: help.into(), unit: "seconds".into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn exemplars_survive_kills_flushes_and_the_loss_of_the_disk() {
    let store = memory();
    let (mut dir, mut model) = (tempfile::tempdir().unwrap(), Model::new());
    let mut db = Db::open(options(dir.path(), &store)).await.unwrap();
    for round in 0..6i64 {
        let rows: Vec<_> =
            (0..40).map(|i| (i % 7, T0 + (round * 40 + i as i64) * 1000, i as f64 / 8.0)).collect();
        write(&db, &mut model, &rows).await;
        tell(&db, &format!("metric_{round}"), "Help.").await;
        assert_eq!(read(&db).await, model, "round {round}");
        if round % 2 == 0 {
            db.flush().await.unwrap();
            assert_eq!(read(&db).await, model, "flushed in round {round}");
        }
        // As after kill -9; and where all is flushed, as on another machine.
        drop(db);
        if round % 2 == 0 {
            dir = tempfile::tempdir().unwrap();
        }
        db = Db::open(options(dir.path(), &store)).await.unwrap();
        assert_eq!(read(&db).await, model, "opened again in round {round}");
        let metrics: Vec<_> = (0..=round).map(|r| format!("metric_{r}")).collect();
        assert_eq!(known(&db).await.into_keys().collect::<Vec<_>>(), metrics);
        assert_eq!(known(&db).await["metric_0"], [about("Help.")]);
    }
    // What was flushed is known as well as what is in memory: a sender that repeats itself is no news.
    let before = model.clone();
    write(&db, &mut model, &[(1, T0, 0.0)]).await;
    let chosen =
        vec![vec![Matcher::equal("n", "3")], vec![Matcher::equal("n", "4"), Matcher::equal("x", "y")]];
    let some = ask(&db, chosen, (T0 + 50_000, T0 + 150_000)).await.unwrap();
    assert_eq!(some.len(), 1);
    let times: Vec<_> = some[0].exemplars.iter().map(|e| e.ts_ms).collect();
    let want: Vec<_> =
        before[&labels(3)].iter().map(|e| e.0).filter(|t| (T0 + 50_000..=T0 + 150_000).contains(t)).collect();
    assert!(!times.is_empty() && times == want);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_long_and_repeated_ones_are_left_out_and_a_full_memory_is_said() {
    let (dir, store) = (tempfile::tempdir().unwrap(), memory());
    let more = DbOptions { exemplar_bytes: 3000, ..options(dir.path(), &store) };
    let db = Db::open(more.clone()).await.unwrap();
    let mut appender = db.appender(&TenantId::single()).await.unwrap();
    let a = appender.series(&[("__name__", "a")]);
    let long = "x".repeat(120);
    assert_eq!(appender.exemplar(a, T0, 1.0, &[("trace_id", &long), ("b", "")]), Err(Refused::TooLong));
    assert_eq!(appender.exemplar(a, T0, 1.0, &[("trace_id", "1")]), Ok(Accepted::New));
    assert_eq!(
        appender.exemplar(a, T0, 1.0, &[("trace_id", "1")]),
        Ok(Accepted::Duplicate),
        "within a request"
    );
    assert_eq!(appender.exemplar(a, T0 - 1, 1.0, &[("trace_id", "2")]), Err(Refused::OutOfOrder));
    appender.commit().await.unwrap();
    let mut model = read(&db).await;
    assert_eq!(model.values().map(Vec::len).sum::<usize>(), 1);
    let mut t = T0;
    let refused = loop {
        t += 1;
        let mut appender = db.appender(&TenantId::single()).await.unwrap();
        let a = appender.series(&[("__name__", "a")]);
        let trace = t.to_string();
        match appender.exemplar(a, t, 1.0, &[("trace_id", &trace)]) {
            Ok(_) => model.values_mut().next().unwrap().push((t, 1f64.to_bits(), trace)),
            Err(e) => break e,
        }
        appender.commit().await.unwrap();
    };
    assert!(matches!(refused, Refused::Full(_)), "{refused}");
    assert!((10..60).contains(&(t - T0)), "{}", t - T0);
    assert_eq!(read(&db).await, model);
    db.flush().await.unwrap();
    assert_eq!(db.counts().stored_exemplars, model.values().map(Vec::len).sum::<usize>() as u64);
    let mut appender = db.appender(&TenantId::single()).await.unwrap();
    let a = appender.series(&[("__name__", "a")]);
    assert_eq!(appender.exemplar(a, t, 1.0, &[("trace_id", "room again")]), Ok(Accepted::New));
    appender.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn flush_that_fails_at_any_write_loses_nothing_and_shows_nothing_twice() {
    let mut worked = 0;
    for failing in 0..10 {
        let faulty = Arc::new(FaultyStore::default());
        let store: Arc<dyn ObjectStore> = faulty.clone();
        let (dir, mut model) = (tempfile::tempdir().unwrap(), Model::new());
        let db = Db::open(options(dir.path(), &store)).await.unwrap();
        write(&db, &mut model, &[(1, T0, 1.0), (2, T0, 2.0), (1, T0 + 5, 3.0)]).await;
        tell(&db, "metric", "Help.").await;
        let begun = faulty.puts.load(Ordering::Relaxed);
        faulty.script(move |n, path| match n - begun {
            // The catalog tries again by itself, so that only a fault that stays makes a commit fail.
            m if m < failing => Fault::None,
            _ if path.as_ref().contains("catalog") && n % 2 == 0 => Fault::AnswerLost,
            _ => Fault::Refused,
        });
        let flushed = db.flush().await;
        worked += u32::from(flushed.is_ok());
        assert_eq!(read(&db).await, model, "write {failing}: {flushed:?}");
        write(&db, &mut model, &[(1, T0 + 10, 1.0), (3, T0, 2.0)]).await;
        assert_eq!(read(&db).await, model, "write {failing}, and written to after");
        // Died there, and came back to a store that works.
        drop(db);
        faulty.script(|_, _| Fault::None);
        let db = Db::open(options(dir.path(), &store)).await.unwrap();
        assert_eq!(read(&db).await, model, "write {failing}, opened again");
        db.flush().await.unwrap();
        assert_eq!(read(&db).await, model, "write {failing}, flushed again");
        drop(db);
        let elsewhere = tempfile::tempdir().unwrap();
        let db = Db::open(options(elsewhere.path(), &store)).await.unwrap();
        assert_eq!(read(&db).await, model, "write {failing}, on another machine");
        assert_eq!(known(&db).await["metric"], [about("Help.")]);
    }
    assert!((1..8).contains(&worked), "{worked} of 10 flushes met no fault");
}

#[tokio::test(flavor = "multi_thread")]
async fn exemplar_files_of_a_day_become_one_and_those_too_old_go() {
    let (dir, store) = (tempfile::tempdir().unwrap(), memory());
    let day = 24 * 3600 * 1000;
    let clock = ManualClock::at(T0 / day * day);
    let start = clock.now_ms();
    let more = DbOptions {
        clock: Arc::new(clock.clone()),
        exemplar_keep_ms: Some(5 * day),
        ..options(dir.path(), &store)
    };
    let db = Db::open(more).await.unwrap();
    let mut model = Model::new();
    let mut most = 0;
    for hour in 0..24 * 9 {
        clock.advance(3_600_000);
        write(&db, &mut model, &[(1, clock.now_ms(), 1.0), (hour % 5, clock.now_ms(), hour as f64)]).await;
        if hour % 3 == 0 {
            db.flush().await.unwrap();
            let first_kept = clock.now_ms() - 5 * day;
            let mut kept = model.clone();
            kept.values_mut().for_each(|all| all.retain(|e| e.0 >= first_kept));
            kept.retain(|_, all| !all.is_empty());
            assert_eq!(read(&db).await, kept, "hour {hour}");
            most = most.max(db.counts().exemplar_files);
        }
    }
    // Of the day after that they are kept in the store, one file more.
    assert!(most <= 8 + 2 + 7, "{most} files at once");
    assert!(start < clock.now_ms());
}

#[tokio::test(flavor = "multi_thread")]
async fn exemplar_file_that_is_damaged_or_gone_is_an_error_that_names_it() {
    let (dir, store) = (tempfile::tempdir().unwrap(), memory());
    let mut model = Model::new();
    let db = Db::open(options(dir.path(), &store)).await.unwrap();
    write(&db, &mut model, &[(1, T0, 1.0)]).await;
    db.flush().await.unwrap();
    let list = store.list(Some(&layout::tenant(&TenantId::single()).join("exemplars")));
    let all: Vec<_> = futures::TryStreamExt::try_collect(list).await.unwrap();
    let object: &object_store::ObjectMeta = &all[0];
    let mut bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[7] ^= 4;
    store.put(&object.location, bytes.into()).await.unwrap();
    let e = ask(&db, vec![vec![]], (0, i64::MAX)).await.unwrap_err().to_string();
    assert!(e.contains(object.location.as_ref()) && e.contains("checksum"), "{e}");
    store.delete(&object.location).await.unwrap();
    let e = ask(&db, vec![vec![]], (0, i64::MAX)).await.unwrap_err().to_string();
    assert!(e.contains(object.location.as_ref()), "{e}");
    assert_eq!(ask(&db, vec![vec![]], (0, T0 - 1)).await.unwrap(), [], "it is not of that time");
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_of_several_writers_is_joined_and_what_nobody_sends_is_forgotten() {
    let store = memory();
    let clock = ManualClock::at(T0);
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut dbs = Vec::new();
    for dir in &dirs {
        let more = DbOptions {
            clock: Arc::new(clock.clone()),
            metadata_keep_ms: Some(10 * 24 * 3_600_000),
            ..options(dir.path(), &store)
        };
        dbs.push(Db::open(more).await.unwrap());
    }
    let mut model = Model::new();
    for (i, db) in dbs.iter().enumerate() {
        tell(db, "all", "The same.").await;
        tell(db, "all", &format!("From {i}.")).await;
        tell(db, &format!("only_{i}"), "Mine.").await;
        write(db, &mut model, &[(i, T0, 1.0)]).await;
    }
    let flushes = dbs.iter().map(|db| db.flush());
    for flushed in futures::future::join_all(flushes).await {
        flushed.unwrap();
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let reader = Db::open(options(elsewhere.path(), &store)).await.unwrap();
    let all = known(&reader).await;
    assert_eq!(all.keys().collect::<Vec<_>>(), ["all", "only_0", "only_1", "only_2"]);
    assert_eq!(all["all"].len(), 4);
    drop(reader);
    for day in 1..=12 {
        clock.advance(24 * 3_600_000);
        tell(&dbs[0], "only_0", "Mine.").await;
        write(&dbs[0], &mut model, &[(0, clock.now_ms(), 1.0)]).await;
        dbs[0].flush().await.unwrap();
        let shown = known(&dbs[0]).await;
        assert_eq!(shown.contains_key("only_1"), day <= 10, "day {day}");
    }
    drop(dbs);
    let reader = Db::open(options(elsewhere.path(), &store)).await.unwrap();
    assert_eq!(known(&reader).await.into_keys().collect::<Vec<_>>(), ["only_0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clock_that_is_far_ahead_deletes_no_exemplars_and_no_metadata() {
    let (dir, store) = (tempfile::tempdir().unwrap(), memory());
    let day = 24 * 3600 * 1000;
    // The store's clock is the machine's.
    let began = model::clock::SystemClock.now_ms();
    let clock = ManualClock::at(began);
    let options = DbOptions {
        clock: Arc::new(clock.clone()),
        exemplar_keep_ms: Some(5 * day),
        metadata_keep_ms: Some(5 * day),
        ..options(dir.path(), &store)
    };
    let db = Db::open(options.clone()).await.unwrap();
    let mut model = Model::new();
    tell(&db, "first", "Help.").await;
    write(&db, &mut model, &[(1, began, 1.0)]).await;
    db.flush().await.unwrap();
    // Ahead of all data; then ahead of the object store's clock, with a sample of that time.
    let years = 100 * 365 * day;
    for (ahead, sample) in [(70 * day, began + 1), (years, began + years)] {
        clock.set(began + ahead);
        tell(&db, "second", "Help.").await;
        let mut appender = db.appender(&TenantId::single()).await.unwrap();
        let series = appender.series(&[("__name__", "sample")]);
        appender.float(series, sample, 1.0, 0);
        appender.commit().await.unwrap();
        db.flush().await.unwrap();
        assert!(!known(&db).await.contains_key("first"), "it is not shown any more");
        clock.set(began + 2 * day);
        assert_eq!(read(&db).await, model, "{ahead} ms ahead");
        assert!(known(&db).await.contains_key("first"), "{ahead} ms ahead");
    }
    drop(db);
    // What retention hides is there for a day, for whoever keeps it for longer after all.
    let elsewhere = tempfile::tempdir().unwrap();
    let options = DbOptions { max_clock_lead_ms: None, ..options };
    for (now_ms, stays) in [(began + 6 * day - 1, true), (began + 7 * day, false)] {
        clock.set(now_ms);
        let db = open(options.clone()).await;
        tell(&db, "third", "Help.").await;
        write(&db, &mut Model::new(), &[(2, now_ms, 1.0)]).await;
        db.flush().await.unwrap();
        assert!(!read(&db).await.values().flatten().any(|e| e.0 == began));
        drop(db);
        let db = open(self::options(elsewhere.path(), &store)).await;
        assert_eq!(read(&db).await.values().flatten().any(|e| e.0 == began), stays);
        assert_eq!(known(&db).await.contains_key("first"), stays);
        drop(db);
    }
}

/// Opens a folder that a store dropped just now may hold for a moment.
async fn open(options: DbOptions) -> Arc<Db> {
    loop {
        match Db::open(options.clone()).await {
            Err(e) if e.passes() => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            opened => return opened.unwrap(),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(usize, i64, f64)>),
    Seal,
    Flush,
    Restart,
    NewDisk,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rows = proptest::collection::vec((0usize..5, 0i64..60, 0u32..4), 1..20)
        .prop_map(|rows| Step::Write(rows.into_iter().map(|(n, t, v)| (n, T0 + t, v.into())).collect()));
    proptest::collection::vec(
        prop_oneof![6 => rows, 2 => Just(Step::Seal), 2 => Just(Step::Flush), 1 => Just(Step::Restart), 1 => Just(Step::NewDisk)],
        1..14,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn exemplars_taken_as_new_are_there_once_whatever_happens(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let bucket = tempfile::tempdir().unwrap();
            let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(bucket.path()).unwrap());
            let (mut dir, mut model) = (tempfile::tempdir().unwrap(), Model::new());
            let mut db = Db::open(options(dir.path(), &store)).await.unwrap();
            for step in &steps {
                match step {
                    Step::Write(rows) => write(&db, &mut model, rows).await,
                    Step::Seal => db.seal().await.unwrap(),
                    Step::Flush => drop(db.flush().await.unwrap()),
                    Step::Restart | Step::NewDisk => {
                        if matches!(step, Step::NewDisk) {
                            db.flush().await.unwrap();
                        }
                        drop(db);
                        if matches!(step, Step::NewDisk) {
                            dir = tempfile::tempdir().unwrap();
                        }
                        db = Db::open(options(dir.path(), &store)).await.unwrap();
                    }
                }
                // After a restart the newest of what is in the object store is not known: what comes then may
                // be there already.
                let mut want = model.clone();
                for all in want.values_mut() {
                    all.sort();
                    all.dedup();
                }
                let mut got = read(&db).await;
                got.values_mut().for_each(|all| all.sort());
                assert_eq!(got, want, "after {step:?} of {steps:?}");
            }
        });
    }
}
