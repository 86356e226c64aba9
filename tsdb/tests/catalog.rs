//! The catalog under races and a store that fails: every commit that was acknowledged is there once, and none
//! is there twice.

mod faulty_store;
mod set_up;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use faulty_store::{Fault, FaultyStore, scattered};
use model::clock::ManualClock;
use model::tenant::TenantId;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use set_up::meta;
use tsdb::block::BlockMeta;
use tsdb::catalog::{Catalog, CatalogError, CatalogOptions, Edit, ProbeError, Quarantine, Snapshot, probe};
use tsdb::layout;
use ulid::Ulid;

fn options() -> CatalogOptions {
    CatalogOptions { pause: Duration::from_micros(100), ..CatalogOptions::default() }
}

async fn open(store: &Arc<dyn ObjectStore>, writer: &str) -> Catalog {
    Catalog::open(store.clone(), TenantId::single(), writer, options()).await.unwrap()
}

#[tokio::test]
async fn commit_is_seen_by_others_and_by_the_next_start() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let writer = open(&store, "ingester-0").await;
    let reader = open(&store, "querier").await;
    assert_eq!(writer.snapshot().number, 0);
    let (a, b) = (Ulid::from_parts(2, 2), Ulid::from_parts(1, 1));
    writer.commit(&Edit::flush(Some(meta(a)), "ingester-0", 7)).await.unwrap();
    let after = writer.commit(&Edit::flush(Some(meta(b)), "ingester-0", 5)).await.unwrap();
    assert_eq!(after.watermark("ingester-0"), Some(7), "a watermark never moves back");
    assert_eq!(after.blocks.iter().map(|m| m.ulid).collect::<Vec<_>>(), [b, a], "oldest first");
    assert_eq!(reader.snapshot().number, 0, "a reader holds its snapshot");
    assert_eq!(reader.refresh().await.unwrap(), after);
    assert_eq!(open(&store, "ingester-0").await.snapshot(), after);
    let replaced = reader.commit(&Edit::replace(vec![a], vec![meta(Ulid::from_parts(3, 3))])).await.unwrap();
    assert_eq!(replaced.blocks.len(), 2);
    // The writer has not seen that; its edit is applied to what won, and fails where it no longer fits.
    let lost = writer.commit(&Edit::replace(vec![a], Vec::new())).await;
    assert!(matches!(lost, Err(CatalogError::Conflict(_))), "{lost:?}");
    assert_eq!(Catalog::tenants(&*store).await.unwrap(), [TenantId::single()]);
}

#[tokio::test]
async fn refresh_without_news_is_one_get_and_no_list() {
    let faulty = Arc::new(FaultyStore::default());
    let store: Arc<dyn ObjectStore> = faulty.clone();
    let catalog = open(&store, "w").await;
    catalog.commit(&Edit::flush(None, "w", 1)).await.unwrap();
    let (gets, lists) = (faulty.gets_so_far(), faulty.lists.load(Ordering::Relaxed));
    catalog.refresh().await.unwrap();
    assert_eq!((faulty.gets_so_far() - gets, faulty.lists.load(Ordering::Relaxed) - lists), (1, 0));
}

/// Blocks of a catalog that is large enough for changes to be smaller than all of it.
fn many() -> Vec<BlockMeta> {
    (0..60).map(|i| meta(Ulid::from_parts(i, 7))).collect()
}

/// Writers race; each PUT meets a fault by the seed; what was acknowledged must be there, once, and nothing
/// else but what was unclear.
fn race(seed: u64, failing_gets: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let faulty = Arc::new(FaultyStore::default());
        faulty.script(move |n, _| match scattered(n, seed) % 10 {
            0 => Fault::Refused,
            1 => Fault::AnswerLost,
            2 => Fault::Repeated,
            3 => Fault::Slow,
            4 => Fault::Late,
            _ => Fault::None,
        });
        faulty.failing_gets.store(failing_gets, Ordering::Relaxed);
        let store: Arc<dyn ObjectStore> = faulty.clone();
        // Every other seed: from a catalog whose snapshots are stored as changes.
        let large = seed % 2 == 1;
        let options =
            CatalogOptions { changes_from_bytes: if large { 1 << 10 } else { u64::MAX }, ..options() };
        let mut sure = Vec::new();
        if large {
            let beside: Arc<dyn ObjectStore> = Arc::new(faulty.beside());
            let first = open(&beside, "first").await;
            first.commit(&Edit { add: many(), ..Edit::default() }).await.unwrap();
            sure.extend(many().iter().map(|b| b.ulid));
        }
        let writers = (0..6u64).map(|w| {
            let (store, options) = (store.clone(), options.clone());
            tokio::spawn(async move {
                let name = format!("w{w}");
                let catalog = Catalog::open(store, TenantId::single(), name, options).await.unwrap();
                let (mut sure, mut unclear) = (Vec::new(), Vec::new());
                for i in 0..8 {
                    let ulid = Ulid::from_parts(1000 + w * 100 + i, u128::from(w));
                    match catalog.commit(&Edit::flush(Some(meta(ulid)), &format!("w{w}"), i)).await {
                        Ok(snapshot) => {
                            assert!(snapshot.blocks.iter().any(|b| b.ulid == ulid));
                            sure.push(ulid);
                        }
                        Err(CatalogError::Store { .. }) => unclear.push(ulid),
                        Err(e) => panic!("seed {seed}: {e}"),
                    }
                }
                (sure, unclear)
            })
        });
        let mut unclear = Vec::new();
        for writer in writers.collect::<Vec<_>>() {
            let (s, u) = writer.await.unwrap();
            sure.extend(s);
            unclear.extend(u);
        }
        // Requests that were late land now.
        tokio::time::sleep(Duration::from_millis(10)).await;
        faulty.failing_gets.store(0, Ordering::Relaxed);
        let last = open(&store, "check").await.snapshot();
        let live: Vec<Ulid> = last.blocks.iter().map(|b| b.ulid).collect();
        let mut distinct = live.clone();
        distinct.dedup();
        assert_eq!(distinct, live, "seed {seed}: a block twice");
        for ulid in &sure {
            assert!(live.contains(ulid), "seed {seed}: an acknowledged block is lost");
        }
        for ulid in &live {
            assert!(sure.contains(ulid) || unclear.contains(ulid), "seed {seed}: a block from nowhere");
        }
        assert!(sure.len() >= 36, "seed {seed}: only {} of 48 commits were made", sure.len());
        // Every number has one snapshot, and each follows from the one before by one commit.
        let mut before = None;
        let mut as_changes = 0;
        let reader = open(&store, "check").await;
        for number in 1..=last.number {
            let path = layout::snapshot(&TenantId::single(), number);
            let text = store.get(&path).await.unwrap().bytes().await.unwrap();
            let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
            as_changes += u32::from(json["version"] == 5);
            let commits = reader.at(number).await.unwrap().unwrap().commits;
            if number > 1 {
                assert_eq!(commits.iter().rev().nth(1).copied(), before, "seed {seed}");
            }
            before = commits.last().copied();
        }
        assert_eq!(as_changes > 20, large, "seed {seed}: {as_changes} of {} as changes", last.number);
    });
}

#[test]
fn racing_writers_over_a_failing_store_lose_and_double_nothing() {
    for seed in 0..20 {
        race(seed, 0);
    }
}

#[test]
fn commit_survives_each_request_when_reads_fail_too() {
    for seed in 100..110 {
        race(seed, 7);
    }
}

/// Two writers and a reader, one after the other and interleaved; the first of them meets a fault at its
/// `at`-th request. What was acknowledged must be there once, what failed may be, and nothing else. Whether
/// the fault was met at all.
async fn one_fault(at: u64, fault: Fault, and_after: bool, through: bool, large: bool) -> bool {
    let told = format!("{fault:?} at request {at}, after it too: {and_after}; a large catalog: {large}");
    let first = Arc::new(FaultyStore::default());
    let others: Arc<dyn ObjectStore> = Arc::new(first.beside());
    let changes_from_bytes = if large { 1 << 10 } else { u64::MAX };
    let quick = CatalogOptions { attempts: 3, keep_snapshots: 3, keep_for: Duration::ZERO, ..options() };
    let quick = CatalogOptions { changes_from_bytes, ..quick };
    let second = Catalog::open(others.clone(), TenantId::single(), "second", quick.clone()).await.unwrap();
    let (a, b, c) = (Ulid::from_parts(1, 1), Ulid::from_parts(2, 2), Ulid::from_parts(3, 3));
    let old = if large { many() } else { Vec::new() };
    if large {
        second.commit(&Edit { add: old.clone(), ..Edit::default() }).await.unwrap();
    }
    second.commit(&Edit::flush(Some(meta(a)), "second", 1)).await.unwrap();
    let reader = Catalog::open(others.clone(), TenantId::single(), "reader", quick.clone()).await.unwrap();
    let before = reader.snapshot();
    *first.nth.lock().unwrap() = Some((at, fault, and_after));
    let store: Arc<dyn ObjectStore> = first.clone();
    let (mut acknowledged, mut tried) = (Vec::new(), Vec::new());
    let mut replaced = false;
    if let Ok(catalog) = Catalog::open(store, TenantId::single(), "first", quick.clone()).await {
        tried.push(b);
        if catalog.commit(&Edit::flush(Some(meta(b)), "first", 1)).await.is_ok() {
            acknowledged.push(b);
        }
        if through {
            // Another commits in between, so the next one is a race that is lost first.
            second.commit(&Edit::flush(None, "second", 2)).await.unwrap();
        }
        tried.push(c);
        let edit = Edit::replace(vec![a], vec![meta(c)]);
        if catalog.commit(&edit).await.is_ok() {
            acknowledged.push(c);
            replaced = true;
        }
        catalog.prune().await;
    }
    // A reader across all that holds what it had, whole.
    let is_old = |ulid: &Ulid| old.iter().any(|b| b.ulid == *ulid);
    let new_of = |snapshot: &Snapshot| -> Vec<Ulid> {
        snapshot.blocks.iter().map(|m| m.ulid).filter(|ulid| !is_old(ulid)).collect()
    };
    assert_eq!(new_of(&before), [a], "{told}");
    tokio::time::sleep(Duration::from_millis(6)).await;
    let after =
        second.commit(&Edit::flush(None, "second", 9)).await.unwrap_or_else(|e| panic!("{told}: {e}"));
    let fresh = open(&others, "fresh").await.snapshot();
    assert_eq!(fresh, after, "{told}");
    assert_eq!(reader.refresh().await.unwrap(), after, "{told}");
    let live = new_of(&after);
    assert_eq!(after.blocks.len() - live.len(), old.len(), "{told}");
    for ulid in &acknowledged {
        assert_eq!(live.iter().filter(|l| *l == ulid).count(), 1, "{told}: {ulid} in {live:?}");
    }
    assert!(live.iter().all(|l| *l == a || tried.contains(l)), "{told}: {live:?}");
    // Never half of a replacement.
    assert!(live.contains(&a) != live.contains(&c), "{told}: {live:?}");
    assert!(!replaced || live.contains(&c), "{told}");
    assert_eq!(after.watermark("second"), Some(9), "{told}");
    if acknowledged.contains(&b) {
        assert_eq!(after.watermark("first"), Some(1), "{told}");
    }
    first.requests.load(Ordering::Relaxed) > at
}

#[tokio::test]
async fn commit_survives_each_request_that_fails_is_late_or_is_the_last() {
    for (through, large) in [(false, false), (true, false), (false, true), (true, true)] {
        for fault in [Fault::Refused, Fault::AnswerLost, Fault::Repeated, Fault::Slow, Fault::Late] {
            for and_after in [false, true] {
                let mut at = 0;
                while one_fault(at, fault, and_after, through, large).await {
                    at += 1;
                    assert!(at < 200, "it never ends");
                }
                // With everything failing from the first request on there is only the opening, tried three
                // times.
                assert!(at >= 3, "{fault:?}: only {at} requests were reached");
            }
        }
    }
}

#[tokio::test]
async fn our_own_earlier_success_is_recognised() {
    for fault in [Fault::AnswerLost, Fault::Repeated] {
        let faulty = Arc::new(FaultyStore::default());
        faulty.script(move |n, _| if n == 0 { fault } else { Fault::None });
        let store: Arc<dyn ObjectStore> = faulty.clone();
        let catalog = open(&store, "w").await;
        let done = catalog.commit(&Edit::flush(Some(meta(Ulid::new())), "w", 1)).await.unwrap();
        assert_eq!((done.number, done.blocks.len()), (1, 1), "{fault:?}");
    }
}

#[tokio::test]
async fn store_that_is_down_gives_an_error_and_changes_nothing() {
    let faulty = Arc::new(FaultyStore::default());
    faulty.script(|_, _| Fault::Refused);
    let store: Arc<dyn ObjectStore> = faulty.clone();
    let catalog = open(&store, "w").await;
    let error = catalog.commit(&Edit::flush(None, "w", 1)).await.unwrap_err();
    assert!(
        error.to_string().contains("00000000000000000001.json") && error.to_string().contains("503"),
        "{error}"
    );
    assert_eq!(catalog.snapshot().number, 0);
    faulty.script(|_, _| Fault::None);
    assert_eq!(catalog.commit(&Edit::flush(None, "w", 1)).await.unwrap().number, 1);
}

#[tokio::test]
async fn old_snapshots_go_and_a_sleeper_finds_its_way() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let clock = ManualClock::at(0);
    let short = CatalogOptions {
        keep_snapshots: 5,
        keep_for: Duration::ZERO,
        clock: Arc::new(clock.clone()),
        ..options()
    };
    let sleeper = Catalog::open(store.clone(), TenantId::single(), "sleeper", short.clone()).await.unwrap();
    sleeper.commit(&Edit::flush(None, "sleeper", 1)).await.unwrap();
    let busy = Catalog::open(store.clone(), TenantId::single(), "busy", short.clone()).await.unwrap();
    for i in 0..40 {
        busy.commit(&Edit::flush(None, "busy", i)).await.unwrap();
    }
    busy.prune().await;
    assert!(store.head(&layout::snapshot(&TenantId::single(), 2)).await.is_err(), "not pruned");
    assert!(store.head(&layout::snapshot(&TenantId::single(), 41 - 4)).await.is_ok(), "pruned too much");
    // Its next number is free again, which must not make it win there: it notices that its base is gone.
    let done = sleeper.commit(&Edit::flush(None, "sleeper", 2)).await.unwrap();
    assert_eq!((done.number, done.watermark("busy"), done.watermark("sleeper")), (42, Some(39), Some(2)));
    // After a long sleep it searches anew without even trying.
    let other = Catalog::open(store.clone(), TenantId::single(), "other", short).await.unwrap();
    for i in 0..40 {
        busy.commit(&Edit::flush(None, "busy", 100 + i)).await.unwrap();
    }
    busy.prune().await;
    clock.advance(2 * 3600 * 1000);
    assert_eq!(other.refresh().await.unwrap().number, 82);
}

#[tokio::test]
async fn damaged_snapshot_is_an_error_that_names_it() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let catalog = open(&store, "w").await;
    catalog.commit(&Edit::flush(Some(meta(Ulid::new())), "w", 1)).await.unwrap();
    let path = layout::snapshot(&TenantId::single(), 1);
    let text = store.get(&path).await.unwrap().bytes().await.unwrap();
    for at in 0..text.len() {
        let mut bad = text.to_vec();
        bad[at] ^= 1 << (at % 7);
        store.put(&path, PutPayload::from(bad)).await.unwrap();
        match Catalog::open(store.clone(), TenantId::single(), "w", options()).await {
            Err(e @ CatalogError::Corrupt { .. }) => assert!(e.to_string().contains(path.as_ref()), "{e}"),
            Err(e) => panic!("{e}"),
            // Space for space and the like: the same statement in other bytes.
            Ok(same) => assert_eq!(same.snapshot(), catalog.snapshot(), "byte {at}"),
        }
    }
}

#[tokio::test]
async fn probe_tells_honest_stores_from_liars() {
    let honest: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    probe(&honest).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let local: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
    probe(&local).await.unwrap();
    let liar: Arc<dyn ObjectStore> = Arc::new(FaultyStore { lies: true, ..FaultyStore::default() });
    let found = probe(&liar).await;
    assert!(matches!(found, Err(ProbeError::Overwrites(" after overwriting it"))), "{found:?}");
    let said = found.unwrap_err().to_string();
    for way_out in ["use a store that keeps it", "catalog.lock: zookeeper://", "catalog.single_writer: true"]
    {
        assert!(said.contains(way_out), "{said}");
    }
    let down = Arc::new(FaultyStore::default());
    down.script(|_, _| Fault::Refused);
    let down: Arc<dyn ObjectStore> = down;
    assert!(matches!(probe(&down).await, Err(ProbeError::Unusable { .. })));
    // It refuses the second in sequence, but two that come at once both win.
    let racy = Arc::new(FaultyStore::default());
    racy.script(|_, _| Fault::Racy);
    let racy: Arc<dyn ObjectStore> = racy;
    assert!(matches!(probe(&racy).await, Err(ProbeError::Racy { .. })));
}

#[tokio::test]
async fn quarantined_block_is_known_to_all_until_it_is_released_or_replaced() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let catalog = open(&store, "compactor").await;
    let (a, b) = (Ulid::from_parts(1, 1), Ulid::from_parts(2, 2));
    for ulid in [a, b] {
        catalog.commit(&Edit::flush(Some(meta(ulid)), "w", 1)).await.unwrap();
    }
    let why = Quarantine { reason: "checksum".to_string(), since_ms: 5, found_by: "compactor".to_string() };
    let marks = vec![(a, why.clone()), (b, why.clone()), (Ulid::from_parts(9, 9), why.clone())];
    catalog.commit(&Edit { quarantine: marks, ..Edit::default() }).await.unwrap();
    let seen = open(&store, "other").await.snapshot();
    assert_eq!(seen.quarantined.keys().copied().collect::<Vec<_>>(), [a, b], "only what is live");
    assert_eq!(seen.quarantined[&a], why);
    catalog.commit(&Edit { release: vec![a], ..Edit::default() }).await.unwrap();
    let last = catalog.commit(&Edit::replace(vec![b], Vec::new())).await.unwrap();
    assert!(last.quarantined.is_empty());
}

#[tokio::test]
async fn snapshot_that_arrives_cut_off_is_read_again() {
    let faulty = Arc::new(FaultyStore::default());
    let store: Arc<dyn ObjectStore> = faulty.clone();
    let catalog = open(&store, "w").await;
    catalog.commit(&Edit::flush(Some(meta(Ulid::from_parts(1, 1))), "w", 1)).await.unwrap();
    faulty.short_gets.store(2, Ordering::Relaxed);
    assert_eq!(open(&store, "reader").await.snapshot().blocks.len(), 1);
    assert_eq!(faulty.short_gets.load(Ordering::Relaxed), 0);
    // What never arrives whole is the store's fault, and may pass; damaged is what lies there cut off.
    faulty.short_gets.store(1000, Ordering::Relaxed);
    let opened = Catalog::open(store.clone(), TenantId::single(), "reader", options()).await;
    assert!(matches!(opened.map(drop), Err(CatalogError::Store { .. })));
    faulty.short_gets.store(0, Ordering::Relaxed);
    let path = layout::snapshot(&TenantId::single(), 1);
    let text = store.get(&path).await.unwrap().bytes().await.unwrap();
    store.put(&path, text.slice(..text.len() / 2).into()).await.unwrap();
    let opened = Catalog::open(store.clone(), TenantId::single(), "reader", options()).await;
    assert!(matches!(opened.map(drop), Err(CatalogError::Corrupt { .. })));
}
