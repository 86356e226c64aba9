//! Deletion made physical: by the rounds that run anyway, and at once where somebody asks for it.

mod bucket;

use std::collections::BTreeSet;
use std::sync::Arc;

use bucket::{
    Fate, FatefulStore, Seen, catalog, compactor, floats, late_clock, options, points, put_block, read,
    settings,
};
use compactor::worker::Compactor;
use model::clock::ManualClock;
use model::matcher::Matcher;
use model::matcher::matches_all;
use model::rollup::RESOLUTIONS_MS;
use model::sample::Metadata;
use model::source::testing::conformance::drain;
use model::tenant::TenantId;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tsdb::bucket::{BlockStore, BucketSource};
use tsdb::catalog::{Catalog, Edit};
use tsdb::db::{Db, DbOptions};
use tsdb::deletion::Tombstone;
use tsdb::layout;

const HOUR: i64 = 3_600_000;
/// The start of a span of every level.
const T0: i64 = 1000 * 14 * 24 * HOUR;

/// Forty hours of six series in blocks of two hours, and one block from elsewhere that lies over all of them.
async fn fill(store: &Arc<dyn ObjectStore>) -> Seen {
    let scratch = tempfile::tempdir().unwrap();
    let mut seen = Seen::new();
    let mut put = async |order: u64, names: &[usize], from: i64, to: i64, step: i64| {
        let of = |n: &usize| {
            let (job, n) = (if *n < 3 { "a" } else { "b" }, n.to_string());
            let labels = [("__name__", "m"), ("job", job), ("n", &*n)];
            floats(
                &labels,
                (from..to).step_by(step as usize).map(|t| (t + 1, (t % 89 + order as i64) as f64)),
            )
        };
        let series: Vec<_> = names.iter().map(of).collect();
        for s in &series {
            seen.entry(s.labels.clone()).or_default().extend(points(s));
        }
        put_block(store, scratch.path(), order, series).await.unwrap();
    };
    for window in 0..20 {
        let from = T0 + window * 2 * HOUR;
        put(100 + window as u64, &[0, 1, 2, 3, 4], from, from + 2 * HOUR, 60_000).await;
    }
    put(500, &[5, 1], T0, T0 + 40 * HOUR, 600_000).await;
    seen
}

async fn delete(store: &Arc<dyn ObjectStore>, seen: &mut Seen, by: (&str, &str), from: i64, to: i64) {
    let matchers = vec![Matcher::equal("__name__", "m"), Matcher::equal(by.0, by.1)];
    for (_, points) in seen.iter_mut().filter(|(labels, _)| matches_all(labels, &matchers)) {
        points.retain(|t, _| !(from..=to).contains(t));
    }
    seen.retain(|_, points| !points.is_empty());
    let edit = Edit::delete(vec![Tombstone::new(matchers, from, to, 0)]);
    catalog(store, "deleter").await.commit(&edit).await.unwrap();
}

/// What lies in the live blocks, hidden or not.
async fn stored(store: &Arc<dyn ObjectStore>) -> Seen {
    let snapshot = catalog(store, "reader").await.snapshot();
    let blocks = BlockStore::new(store.clone(), tokio::runtime::Handle::current(), 64 << 20);
    let read = tokio::task::spawn_blocking(move || {
        let source = BucketSource::new(blocks, TenantId::single(), snapshot.blocks.clone());
        drain(&source, &bucket::everything()).unwrap()
    });
    read.await.unwrap().into_iter().map(|s| (s.labels.clone(), points(&s))).collect()
}

async fn tombstones(store: &Arc<dyn ObjectStore>) -> usize {
    catalog(store, "reader").await.snapshot().tombstones.len()
}

async fn clean(worker: &Compactor) -> u64 {
    worker.clean_tombstones(&TenantId::single()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_samples_are_gone_from_the_store_once_it_was_asked_for() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut seen = fill(&store).await;
    let scratch = tempfile::tempdir().unwrap();
    // A clock at which nothing is finished: the planner on its own would merge nothing.
    let worker = compactor(&store, settings(scratch.path()), "c", &ManualClock::at(T0 + 40 * HOUR));
    assert_eq!(clean(&worker).await, 0, "nothing was deleted yet");
    delete(&store, &mut seen, ("n", "3"), i64::MIN, i64::MAX).await;
    delete(&store, &mut seen, ("job", "a"), T0 + 5 * HOUR, T0 + 9 * HOUR).await;
    delete(&store, &mut seen, ("n", "no such series"), i64::MIN, i64::MAX).await;
    assert_eq!(read(&store).await.unwrap(), seen, "hidden at once");
    assert_ne!(stored(&store).await, seen);
    // Written again after it was deleted, and deleted in part again.
    let again = tempfile::tempdir().unwrap();
    let late = floats(&[("__name__", "m"), ("job", "b"), ("n", "3")], [(T0 + 7, 1.0), (T0 + 8, 2.0)]);
    seen.insert(late.labels.clone(), points(&late));
    put_block(&store, again.path(), 2_000_000_000_000, vec![late]).await.unwrap();
    assert_eq!(read(&store).await.unwrap(), seen, "what was written later is seen");
    assert!(clean(&worker).await > 0);
    assert_eq!((read(&store).await.unwrap(), stored(&store).await), (seen.clone(), seen.clone()));
    assert_eq!(tombstones(&store).await, 0);
    assert_eq!(clean(&worker).await, 0);
    // Everything.
    let all = seen.keys().map(|l| l.value("n").to_string()).collect::<BTreeSet<_>>();
    for n in all {
        delete(&store, &mut seen, ("n", &n), i64::MIN, i64::MAX).await;
    }
    clean(&worker).await;
    assert_eq!(catalog(&store, "reader").await.snapshot().blocks.len(), 0);
    assert_eq!(tombstones(&store).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_that_run_anyway_carry_deletions_out() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut seen = fill(&store).await;
    let scratch = tempfile::tempdir().unwrap();
    let worker = compactor(&store, settings(scratch.path()), "c", &late_clock());
    worker.round().await;
    delete(&store, &mut seen, ("n", "1"), T0 + HOUR, T0 + 30 * HOUR).await;
    assert_eq!(tombstones(&store).await, 1);
    let round = worker.round().await;
    assert_eq!(round.errors, Vec::<String>::new());
    assert_eq!((stored(&store).await, tombstones(&store).await), (seen, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_does_not_wait_for_a_backlog_and_two_cleaners_do_no_harm() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut seen = fill(&store).await;
    let scratch: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let clock = late_clock();
    let workers: Vec<_> = scratch
        .iter()
        .enumerate()
        .map(|(i, s)| Arc::new(compactor(&store, settings(s.path()), &format!("c{i}"), &clock)))
        .collect();
    delete(&store, &mut seen, ("job", "b"), T0 + HOUR, T0 + 30 * HOUR).await;
    let background: Vec<_> = workers
        .iter()
        .map(|w| {
            let w = w.clone();
            tokio::spawn(async move { w.round().await })
        })
        .collect();
    let cleaned = futures::future::join_all(workers.iter().map(|w| clean(w))).await;
    assert_eq!((stored(&store).await, tombstones(&store).await), (seen.clone(), 0), "{cleaned:?}");
    for round in background {
        round.await.unwrap();
    }
    workers[0].round().await;
    assert_eq!(read(&store).await.unwrap(), seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn store_that_fails_is_told_and_the_next_call_goes_on() {
    let inner = Arc::new(InMemory::new());
    let good: Arc<dyn ObjectStore> = inner.clone();
    let mut seen = fill(&good).await;
    delete(&good, &mut seen, ("n", "2"), i64::MIN, T0 + 25 * HOUR).await;
    let mut failures = 0;
    for begin in (0..400).step_by(37) {
        let broken: Arc<dyn ObjectStore> =
            FatefulStore::new(inner.clone(), move |n| if n < begin { Fate::Fine } else { Fate::Refused });
        let scratch = tempfile::tempdir().unwrap();
        let worker = compactor(&broken, settings(scratch.path()), "c", &ManualClock::at(T0 + 40 * HOUR));
        failures += u32::from(worker.clean_tombstones(&TenantId::single()).await.is_err());
        assert_eq!(read(&good).await.unwrap(), seen, "after {begin} operations");
    }
    assert!(failures > 3, "{failures}");
    let scratch = tempfile::tempdir().unwrap();
    clean(&compactor(&good, settings(scratch.path()), "c", &ManualClock::at(T0 + 40 * HOUR))).await;
    assert_eq!((stored(&good).await, tombstones(&good).await), (seen, 0));
    let open = Catalog::open(good, TenantId::single(), "check", options()).await.unwrap();
    assert!(open.snapshot().clean.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_exemplars_and_metadata_that_no_snapshot_names_are_garbage() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let dir = tempfile::tempdir().unwrap();
    let options = DbOptions { flush_when_due: false, ..DbOptions::new(dir.path(), store.clone()) };
    let db = Db::open(options).await.unwrap();
    for i in 0..4 {
        let mut appender = db.appender(&TenantId::single()).await.unwrap();
        let s = appender.series(&[("__name__", "m")]);
        appender.exemplar(s, T0 + i, 1.0, &[("trace_id", &i.to_string())]).unwrap();
        let help = format!("Help {i}.");
        appender.metadata("m", Metadata { kind: "counter".into(), help, unit: String::new() });
        appender.commit().await.unwrap();
        db.flush().await.unwrap();
    }
    let files = async || {
        let mut names = BTreeSet::new();
        for folder in layout::sidecars(&TenantId::single()) {
            let listed: Vec<_> = futures::TryStreamExt::try_collect(store.list(Some(&folder))).await.unwrap();
            let path = |o: &object_store::ObjectMeta| layout::sidecar_of_path(&o.location).unwrap();
            names.extend(listed.iter().map(path));
        }
        names
    };
    let snapshot = catalog(&store, "reader").await.snapshot();
    let live: BTreeSet<_> =
        snapshot.exemplars.iter().map(|f| f.ulid).chain(snapshot.metadata.iter().map(|f| f.ulid)).collect();
    // Four of metadata and four of exemplars, and three times a day that is over became one file.
    assert_eq!((live.len(), files().await.len()), (2, 11));
    let scratch = tempfile::tempdir().unwrap();
    compactor(&store, settings(scratch.path()), "c", &late_clock()).round().await;
    assert_eq!(files().await, live);
}

#[tokio::test(flavor = "multi_thread")]
async fn journal_of_imports_goes_when_it_tells_nothing_any_more() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    fill(&store).await;
    let (tenant, snapshot) = (TenantId::single(), catalog(&store, "reader").await.snapshot());
    let live = snapshot.blocks[0].ulid;
    let never = ulid::Ulid::from_parts(7, 7);
    for path in [
        layout::import_begun(&tenant, "complete", live),
        layout::import_done(&tenant, "complete"),
        layout::import_begun(&tenant, "committed", live),
        layout::import_begun(&tenant, "abandoned", never),
    ] {
        store.put(&path, "{}".into()).await.unwrap();
    }
    let left = async || {
        let all: Vec<_> =
            futures::TryStreamExt::try_collect(store.list(Some(&layout::imports(&tenant)))).await.unwrap();
        let entry = |o: &object_store::ObjectMeta| {
            let (key, block) = layout::import_entry(&o.location).unwrap();
            (key.to_string(), block.is_some())
        };
        all.iter().map(entry).collect::<BTreeSet<_>>()
    };
    let now_ms = model::clock::Clock::now_ms(&model::clock::SystemClock);
    let round = async |at_ms: i64| {
        let scratch = tempfile::tempdir().unwrap();
        let mut settings = settings(scratch.path());
        settings.orphan_grace = std::time::Duration::from_secs(3600);
        let round = compactor(&store, settings, "c", &ManualClock::at(at_ms)).round().await;
        assert_eq!(round.errors, Vec::<String>::new());
    };
    round(now_ms).await;
    assert_eq!(left().await.len(), 4, "any of them may be of an import that runs");
    // Compaction has taken the live block by then: it is known by what went into another.
    round(now_ms + 2 * HOUR).await;
    let told =
        |entries: &[(&str, bool)]| entries.iter().map(|(k, b)| (k.to_string(), *b)).collect::<BTreeSet<_>>();
    assert_eq!(left().await, told(&[("complete", false), ("committed", true)]));
    assert!(!catalog(&store, "reader").await.snapshot().blocks.iter().any(|b| b.ulid == live));
    round(now_ms + 31 * 24 * HOUR).await;
    assert_eq!(left().await, told(&[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_whose_samples_are_gone_are_written_again_without_what_was_deleted() {
    const DAY: i64 = 24 * HOUR;
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    fill(&store).await;
    let scratch = tempfile::tempdir().unwrap();
    let mut s = settings(scratch.path());
    s.plan.resolutions_ms = RESOLUTIONS_MS.to_vec();
    s.keep.raw_ms = Some(3 * DAY);
    let worker = compactor(&store, s, "c", &ManualClock::at(T0 + 40 * DAY));
    worker.round().await;
    worker.round().await;
    let live = catalog(&store, "reader").await.snapshot();
    assert!(
        !live.blocks.is_empty() && live.blocks.iter().all(|b| b.resolution_ms > 0),
        "only windows are left"
    );
    let mut seen = read(&store).await.unwrap();
    assert_eq!((seen.len(), stored(&store).await), (6, seen.clone()));
    // Whole windows of five minutes, so that the model can tell what is left.
    let (from, to) = (T0 + 5 * HOUR + 1, T0 + 9 * HOUR);
    delete(&store, &mut seen, ("n", "3"), i64::MIN, i64::MAX).await;
    delete(&store, &mut seen, ("job", "a"), from, to).await;
    assert_eq!(read(&store).await.unwrap(), seen, "hidden at once");
    assert_eq!(clean(&worker).await, live.blocks.len() as u64);
    assert_eq!((stored(&store).await, tombstones(&store).await), (seen.clone(), 0));
    let now = catalog(&store, "reader").await.snapshot();
    let sums = |s: &tsdb::catalog::Snapshot, r: i64| {
        let of: Vec<_> = s.blocks.iter().filter(|b| b.resolution_ms == r).collect();
        (
            of.len(),
            of.iter().map(|b| b.stats.series).sum::<u64>(),
            of.iter().map(|b| b.stats.samples).sum::<u64>(),
        )
    };
    for r in RESOLUTIONS_MS {
        let ((n, series, samples), (n_now, series_now, samples_now)) = (sums(&live, r), sums(&now, r));
        assert_eq!((n_now, series_now), (n, series - n as u64), "one series of each block is gone");
        assert!(samples_now < samples);
    }
    let sources =
        |s: &tsdb::catalog::Snapshot| s.blocks.iter().map(|b| b.sources.clone()).collect::<BTreeSet<_>>();
    assert_eq!(sources(&live), sources(&now), "what came of what is still known");
    assert_eq!(worker.round().await.jobs, 0);
}
