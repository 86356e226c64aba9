//! Deletion against the plainest model: what was deleted is seen by nobody, what was written later by
//! everybody, through flushes, restarts, races and a store that fails.

mod faulty_store;
mod set_up;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use faulty_store::{Fault, FaultyStore};
use model::labels::Labels;
use model::matcher::{MatchOp, Matcher};
use model::sample::Value;
use model::source::memory::MemorySource;
use model::source::testing::conformance::{assert_same, check_conformance, drain};
use model::source::{Budget, LabelQuery, SeriesColumns, Source};
use model::tenant::TenantId;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;
use set_up::{everything, runtime};
use tsdb::block::upload::upload;
use tsdb::block::{BlockMeta, BlockOrigin, BlockStats, WriteOptions, write_block};
use tsdb::block_meta::{BlockFileMetas, FORMAT_VERSION};
use tsdb::bucket::{BlockStore, BucketSource};
use tsdb::catalog::{Catalog, CatalogError, CatalogOptions, Commits, Edit, MAX_TOMBSTONES, Snapshot};
use tsdb::db::{Db, DbOptions, DeleteError};
use tsdb::deletion::{RetentionRule, RetentionRules, Tombstone, Visibility};
use tsdb::layout;
use ulid::Ulid;

fn put_block(store: &Arc<dyn ObjectStore>, series: Vec<SeriesColumns>) -> Option<Arc<BlockMeta>> {
    let dir = tempfile::tempdir().unwrap();
    let origin = BlockOrigin::flushed(Ulid::new(), TenantId::single(), "test");
    let options = WriteOptions { row_samples: 150, values_per_page: 200, ..WriteOptions::fresh() };
    let files = write_block(dir.path(), origin, options, series.into_iter().map(Ok)).unwrap()?;
    runtime().block_on(upload(&**store, &files)).unwrap();
    Some(Arc::new(files.meta.clone()))
}

/// A snapshot of one block with tombstones over it.
fn buried(block: &BlockMeta, tombstones: Vec<Tombstone>) -> Snapshot {
    let edit = Edit { bury: tombstones, ..Edit::flush(Some(block.clone()), "test", 1) };
    Snapshot::empty().apply(&edit, "test", Ulid::new()).unwrap()
}

#[test]
fn bucket_with_deleted_series_and_intervals_answers_as_one_that_never_had_them() {
    check_conformance(|given| {
        let all = MemorySource::new();
        let mut tombstones = Vec::new();
        for (n, (labels, samples)) in given.iter().enumerate() {
            for (s, start) in samples {
                all.append(labels, s.ts_ms, s.value.clone(), *start);
            }
            // Samples in a gap of the series, and behind its end.
            let last = samples.last().unwrap().0.ts_ms;
            let gaps =
                samples.windows(2).map(|w| (w[0].0.ts_ms + 1, w[1].0.ts_ms - 1)).filter(|(a, b)| a < b);
            for (min, max) in gaps.skip(n % 5).step_by(7).take(2).chain([(last + 1, last + 50_000)]) {
                for t in [min, min + (max - min) / 2, max] {
                    all.append(labels, t, Value::Float(-1.0), if n % 2 == 0 { 7 } else { 0 });
                }
                let only = vec![Matcher::equal("n", labels.value("n")), Matcher::equal("gone", "")];
                tombstones.push(Tombstone::new(only, min, max, 0));
            }
            // A series that is wholly gone, its labels with it.
            let mut gone = labels.to_builder();
            let gone = gone.set("gone", &format!("g{n}")).set("rare_3", "only here").build();
            for (s, _) in samples {
                all.append(&gone, s.ts_ms, s.value.clone(), 0);
            }
        }
        let gone = vec![Matcher::new(MatchOp::Regex, "gone", "g.+").unwrap()];
        let times = || given.iter().flat_map(|(_, s)| s.iter().map(|s| s.0.ts_ms));
        if let (Some(min), Some(max)) = (times().min(), times().max()) {
            tombstones.push(Tombstone::new(gone, min, max, 0));
        }
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let block = put_block(&store, drain(&all, &everything()).unwrap());
        let snapshot = block.map_or_else(Snapshot::empty, |b| buried(&b, tombstones));
        let blocks = BlockStore::new(store, runtime().handle().clone(), 64 << 20);
        let bucket = BucketSource::new(blocks, TenantId::single(), snapshot.blocks.clone());
        Box::new(bucket.with_visibility(snapshot.visibility()))
    });
}

fn series(n: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("m{}", n % 3)),
        ("job", format!("j{}", n % 4)),
        ("n", n.to_string()),
    ])
}

#[test]
fn rules_of_retention_hide_what_has_expired_at_the_moment_of_the_mask() {
    let all = MemorySource::new();
    for n in 0..24 {
        for t in 0..100 {
            all.append_float(&series(n), 1000 + t, t as f64);
        }
    }
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let block = put_block(&store, drain(&all, &everything()).unwrap()).unwrap();
    let rule = |job: &str, keep_ms| RetentionRule { matchers: vec![Matcher::equal("job", job)], keep_ms };
    let retention = Arc::new(RetentionRules {
        rules: vec![rule("j1", Some(10)), rule("j2", None), rule("j1", Some(1_000_000))],
        otherwise_ms: Some(60),
    });
    let deleted = Tombstone::new(vec![Matcher::equal("n", "2")], 1050, 1059, 0);
    let snapshot = buried(&block, vec![deleted]);
    let blocks = BlockStore::new(store, runtime().handle().clone(), 64 << 20);
    for now in [900, 1011, 1050, 1090, 1099, 1100, 1110, 1111, 1500] {
        let visibility = snapshot.visibility().with_retention(retention.clone(), now);
        let bucket = BucketSource::new(blocks.clone(), TenantId::single(), vec![block.clone()])
            .with_visibility(visibility.clone());
        let model = MemorySource::new();
        for n in 0..24 {
            let labels = series(n);
            for t in 1000..1100 {
                let first = retention.first_kept_ms(&labels, now);
                if first.is_none_or(|first| t >= first) && !(n == 2 && (1050..=1059).contains(&t)) {
                    model.append_float(&labels, t, (t - 1000) as f64);
                }
                assert_eq!(
                    visibility.hidden(&block, &labels).covers(t, t),
                    first.is_some_and(|f| t < f) || (n == 2 && (1050..=1059).contains(&t))
                );
            }
        }
        let (got, want) = (drain(&bucket, &everything()).unwrap(), drain(&model, &everything()).unwrap());
        assert_eq!(got.len(), want.len(), "at {now}");
        got.iter().zip(&want).for_each(|(g, w)| assert_same(g, w, &format!("at {now}")));
        let query =
            LabelQuery { selectors: vec![], min_t_ms: 0, max_t_ms: i64::MAX, budget: Budget::unlimited() };
        assert_eq!(bucket.series(&query).unwrap(), model.series(&query).unwrap(), "at {now}");
        assert_eq!(bucket.label_values("job", &query).unwrap(), model.label_values("job", &query).unwrap());
    }
    assert!(
        !Visibility::default().with_retention(retention, 900).concerns(&block),
        "nothing has expired yet"
    );
}

fn meta(order: u64, min_t_ms: i64, max_t_ms: i64, sources: &[Ulid]) -> BlockMeta {
    BlockMeta {
        version: FORMAT_VERSION,
        ulid: Ulid::from_parts(order, 1),
        tenant: "default".to_string(),
        min_t_ms,
        max_t_ms,
        resolution_ms: 0,
        level: 0,
        sources: sources.to_vec(),
        source_spans_ms: Vec::new(),
        downsampled_ms: Vec::new(),
        approximate: false,
        share: None,
        writer: "test".to_string(),
        writers: Vec::new(),
        external_labels: BTreeMap::new(),
        stats: BlockStats::default(),
        files: BlockFileMetas::default(),
        crc32: String::new(),
    }
}

fn about(job: &str, min_t_ms: i64, max_t_ms: i64) -> Tombstone {
    Tombstone::new(vec![Matcher::equal("job", job)], min_t_ms, max_t_ms, 7)
}

#[test]
fn tombstone_reaches_what_was_live_and_goes_when_no_block_holds_anything_of_it() {
    let after = |s: &Snapshot, edit: Edit| s.apply(&edit, "w", Ulid::new()).unwrap();
    let (a, b) = (meta(10, 0, 99, &[]), meta(20, 100, 199, &[]));
    let plain = after(&Snapshot::empty(), Edit { add: vec![a.clone(), b.clone()], ..Edit::default() });
    assert_eq!(plain.version, 1, "what has no tombstones is readable by programs that know none");
    let deleted = after(&plain, Edit::delete(vec![about("x", 50, 150)]));
    assert_eq!((deleted.version, deleted.tombstones.len()), (2, 1));
    assert!(deleted.visibility().concerns(&a) && deleted.visibility().concerns(&b));
    assert!(!plain.visibility().concerns(&a), "a snapshot that was taken before stays as it is");
    // Written later: not reached, whatever its time. A compaction of old blocks alone: reached, until it says
    // that it was written without what is deleted.
    let (late, again) = (meta(u64::MAX >> 17, 0, 199, &[]), meta(300, 0, 199, &[a.ulid, b.ulid]));
    assert!(late.order() > deleted.tombstones[0].covers);
    let with_late = after(&deleted, Edit::flush(Some(late.clone()), "w", 1));
    assert!(!with_late.visibility().concerns(&late));
    let unmasked = after(&with_late, Edit::replace(vec![a.ulid, b.ulid], vec![again.clone()]));
    assert!(unmasked.visibility().concerns(&again), "a compaction that began before the deletion");
    let written = Edit::replace(vec![a.ulid, b.ulid], vec![again.clone()]).written_through(&with_late);
    let written = after(&with_late, written);
    assert_eq!((written.version, written.tombstones.len(), written.clean.len()), (1, 0, 0));
    // Masked by an older snapshot than the newest deletion: clean of the first only.
    let twice = after(&with_late, Edit::delete(vec![about("y", 0, 10)]));
    let written = Edit::replace(vec![a.ulid, b.ulid], vec![again.clone()]).written_through(&with_late);
    let written = after(&twice, written);
    assert_eq!(written.tombstones.len(), 1);
    assert_eq!(written.tombstones[0].matchers, [Matcher::equal("job", "y")]);
    assert!(
        written.visibility().concerns(&again) && written.visibility().concerns(&late),
        "the second delete came after it"
    );
    // Looked through and found without such series.
    let newest = written.tombstones[0].ulid;
    let clean = Edit { clean: vec![(again.ulid, newest), (late.ulid, newest)], ..Edit::default() };
    assert_eq!(after(&written, clean).tombstones.len(), 0);
    // Nothing there to delete: nothing to remember.
    assert_eq!(after(&plain, Edit::delete(vec![about("x", 500, 600)])).tombstones.len(), 0);
}

#[test]
fn deletion_twice_is_one_and_too_many_are_refused_in_words() {
    let mut now =
        Snapshot::empty().apply(&Edit::flush(Some(meta(10, 0, 999, &[])), "w", 1), "w", Ulid::new()).unwrap();
    for i in 0..5 {
        now = now.apply(&Edit::delete(vec![about("x", 10 - i, 20 + i)]), "w", Ulid::new()).unwrap();
        assert_eq!(now.tombstones.len(), 1, "each includes the one before");
    }
    let many = (0..MAX_TOMBSTONES as i64 - 1).map(|i| about("many", i, i)).collect();
    now = now.apply(&Edit::delete(many), "w", Ulid::new()).unwrap();
    assert_eq!(now.tombstones.len(), MAX_TOMBSTONES);
    assert!(now.tombstones.windows(2).all(|w| w[0].ulid < w[1].ulid), "ascending, whatever the clock");
    let refused = now.apply(&Edit::delete(vec![about("z", 0, 1)]), "w", Ulid::new()).unwrap_err();
    assert!(matches!(&refused, CatalogError::Full(why) if why.contains("clean_tombstones")), "{refused}");
    let long = Matcher::equal("job", &"x".repeat(2 << 20));
    let refused = Edit::delete(vec![Tombstone::new(vec![long], 0, 1, 0)]);
    let few =
        Snapshot::empty().apply(&Edit::flush(Some(meta(10, 0, 9, &[])), "w", 1), "w", Ulid::new()).unwrap();
    assert!(matches!(few.apply(&refused, "w", Ulid::new()), Err(CatalogError::Full(_))));
}

fn options() -> CatalogOptions {
    CatalogOptions { pause: std::time::Duration::from_micros(100), ..CatalogOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_deletions_and_flushes_all_take_place_and_come_back_as_written() {
    for seed in 0..8u64 {
        let faulty = Arc::new(FaultyStore::default());
        faulty.script(move |n, _| match (n ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61 {
            0 => Fault::AnswerLost,
            1 => Fault::Repeated,
            2 => Fault::Slow,
            _ => Fault::None,
        });
        let store: Arc<dyn ObjectStore> = faulty;
        let open = |writer: String| Catalog::open(store.clone(), TenantId::single(), writer, options());
        open("first".into())
            .await
            .unwrap()
            .commit(&Edit::flush(Some(meta(1, 0, 1000, &[])), "first", 1))
            .await
            .unwrap();
        let tasks: Vec<_> = (0..4u64)
            .map(|w| {
                let opening = open(format!("w{w}"));
                async move {
                    let catalog = opening.await.unwrap();
                    for i in 0..6 {
                        let done = match w % 2 {
                            0 => {
                                catalog.commit(&Edit::delete(vec![about(&format!("{w}-{i}"), 0, 500)])).await
                            }
                            _ => {
                                let block = meta(1000 + w * 100 + i, 0, 1000, &[]);
                                catalog.commit(&Edit::flush(Some(block), &format!("w{w}"), i)).await
                            }
                        };
                        done.unwrap();
                    }
                }
            })
            .collect();
        futures::future::join_all(tasks).await;
        let last = open("check".into()).await.unwrap().snapshot();
        assert_eq!((last.blocks.len(), last.tombstones.len()), (13, 12), "seed {seed}");
        for t in &last.tombstones {
            assert!(last.blocks.iter().any(|b| t.concerns(b)));
        }
    }
}

#[tokio::test]
async fn newer_version_is_refused_by_its_number() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let catalog = Catalog::open(store.clone(), TenantId::single(), "w", options()).await.unwrap();
    catalog.commit(&Edit::flush(Some(meta(1, 0, 9, &[])), "w", 1)).await.unwrap();
    catalog.commit(&Edit::delete(vec![about("x", 0, 5)])).await.unwrap();
    let path = layout::snapshot(&TenantId::single(), 2);
    let text = store.get(&path).await.unwrap().bytes().await.unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(
        text.contains(r#""version":2,"#) && text.contains(r#"{"name":"job","op":"=","value":"x"}"#),
        "{text}"
    );
    store.put(&path, text.replacen(r#""version":2"#, r#""version":9"#, 1).into()).await.unwrap();
    let refused = Catalog::open(store, TenantId::single(), "w", options()).await.err().unwrap().to_string();
    assert!(refused.contains("catalog version 9") && refused.contains("upgrade"), "{refused}");
}

fn db_options(dir: &Path, store: &Arc<dyn ObjectStore>) -> DbOptions {
    DbOptions { flush_when_due: false, commits: Commits::Unasked, ..DbOptions::new(dir, store.clone()) }
}

async fn write(db: &Arc<Db>, model: &MemorySource, rows: &[(usize, i64, f64)]) {
    let mut appender = db.appender(&TenantId::single()).await.unwrap();
    for &(n, t, v) in rows {
        let labels = series(n);
        let pairs: Vec<_> = labels.iter().collect();
        let s = appender.series(&pairs);
        appender.float(s, t, v, 0);
        model.append_float(&labels, t, v);
    }
    appender.commit().await.unwrap();
}

async fn same(db: &Arc<Db>, model: &MemorySource, context: &str) {
    let source = db.source(&TenantId::single());
    let want = drain(model, &everything()).unwrap();
    let model_series = model
        .series(&LabelQuery {
            selectors: vec![],
            min_t_ms: i64::MIN,
            max_t_ms: i64::MAX,
            budget: Budget::unlimited(),
        })
        .unwrap();
    let context = context.to_string();
    tokio::task::spawn_blocking(move || {
        let got = drain(&*source, &everything()).unwrap();
        let labels = |all: &[SeriesColumns]| all.iter().map(|s| s.labels.clone()).collect::<Vec<_>>();
        assert_eq!(labels(&got), labels(&want), "{context}");
        got.iter().zip(&want).for_each(|(g, w)| assert_same(g, w, &context));
        let query = LabelQuery {
            selectors: vec![],
            min_t_ms: i64::MIN,
            max_t_ms: i64::MAX,
            budget: Budget::unlimited(),
        };
        let named = source.series(&query).unwrap();
        let missing: Vec<_> = model_series.iter().filter(|l| !named.contains(l)).collect();
        assert!(missing.is_empty(), "{context}: not named: {missing:?}");
    })
    .await
    .unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(usize, i64, f64)>),
    Delete(Vec<(&'static str, String)>, i64, i64),
    Seal,
    Flush,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rows = proptest::collection::vec((0usize..12, 0i64..600, 0u32..1000), 1..60)
        .prop_map(|rows| Step::Write(rows.into_iter().map(|(n, t, v)| (n, t * 1000, v.into())).collect()));
    let matcher = prop_oneof![
        (0u32..12).prop_map(|n| ("n", n.to_string())),
        (0u32..4).prop_map(|n| ("job", format!("j{n}"))),
        (0u32..3).prop_map(|n| ("__name__", format!("m{n}"))),
    ];
    let delete = (proptest::collection::vec(matcher, 1..3), 0i64..600, 0i64..600)
        .prop_map(|(m, a, b)| Step::Delete(m, a.min(b) * 1000, a.max(b) * 1000));
    let step = prop_oneof![5 => rows, 4 => delete, 2 => Just(Step::Seal), 2 => Just(Step::Flush), 1 => Just(Step::Restart)];
    proptest::collection::vec(step, 1..16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn deletion_in_any_order_of_writes_answers_as_the_model(steps in steps()) {
        runtime().block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let model = MemorySource::new();
            let mut db = Db::open(db_options(dir.path(), &store)).await.unwrap();
            for (i, step) in steps.iter().enumerate() {
                match step {
                    Step::Write(rows) => write(&db, &model, rows).await,
                    Step::Delete(matchers, min, max) => {
                        let selector: Vec<_> = matchers.iter().map(|(n, v)| Matcher::equal(n, v)).collect();
                        let view = db.source(&TenantId::single());
                        let before = tokio::task::spawn_blocking({
                            let view = view.clone();
                            move || drain(&*view, &everything()).unwrap().len()
                        }).await.unwrap();
                        db.delete_series(&TenantId::single(), std::slice::from_ref(&selector), *min, *max).await.unwrap();
                        model.delete(&selector, *min, *max);
                        let after = tokio::task::spawn_blocking(move || drain(&*view, &everything()).unwrap().len());
                        assert_eq!(after.await.unwrap(), before, "a view that was taken before changed");
                    }
                    Step::Seal => db.seal().await.unwrap(),
                    Step::Flush => drop(db.flush().await.unwrap()),
                    Step::Restart => {
                        drop(db);
                        db = Db::open(db_options(dir.path(), &store)).await.unwrap();
                    }
                }
                same(&db, &model, &format!("after step {i} of {steps:?}")).await;
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_on_a_store_that_fails_deletes_nothing_and_the_next_try_does() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = Arc::new(FaultyStore::default());
    let store: Arc<dyn ObjectStore> = faulty.clone();
    let model = MemorySource::new();
    let db = Db::open(db_options(dir.path(), &store)).await.unwrap();
    let rows: Vec<_> = (0..12).flat_map(|n| (0..20).map(move |t| (n, t * 1000, t as f64))).collect();
    write(&db, &model, &rows).await;
    let selector = vec![vec![Matcher::equal("job", "j1")]];
    for (failing, why) in [("blocks", "samples in memory"), ("catalog", "samples in memory")] {
        faulty.script(
            move |_, path| if path.as_ref().contains(failing) { Fault::Refused } else { Fault::None },
        );
        let refused = db.delete_series(&TenantId::single(), &selector, 0, i64::MAX).await;
        let Err(DeleteError::Unavailable(text)) = refused else { panic!("{refused:?}") };
        assert!(text.contains("nothing was deleted") && text.contains(why), "{text}");
        same(&db, &model, failing).await;
    }
    // The head is in blocks, and only the deletion itself fails.
    faulty.script(|_, _| Fault::None);
    db.flush().await.unwrap();
    faulty.script(|_, _| Fault::Refused);
    let refused = db.delete_series(&TenantId::single(), &selector, 0, i64::MAX).await.unwrap_err();
    assert!(refused.to_string().contains("could not be committed"), "{refused}");
    same(&db, &model, "the commit failed").await;
    faulty.script(|_, _| Fault::None);
    db.delete_series(&TenantId::single(), &selector, 0, i64::MAX).await.unwrap();
    model.delete(&selector[0], 0, i64::MAX);
    same(&db, &model, "deleted").await;
    write(&db, &model, &[(1, 5000, 42.0), (5, 30_000, 43.0)]).await;
    same(&db, &model, "written again").await;
    db.flush().await.unwrap();
    same(&db, &model, "written again and flushed").await;
    let source = db.source(&TenantId::single());
    let query =
        LabelQuery { selectors: vec![], min_t_ms: 0, max_t_ms: i64::MAX, budget: Budget::unlimited() };
    let n = tokio::task::spawn_blocking(move || source.label_values("n", &query).unwrap()).await.unwrap();
    assert_eq!(
        n,
        ["0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8"],
        "9 is wholly deleted, 1 and 5 came again"
    );
}
