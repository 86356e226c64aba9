//! Large catalogs, whose snapshots are stored as changes: what is read back, what it costs, and what happens
//! where a part of it is gone or damaged.

mod faulty_store;
mod set_up;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use faulty_store::{FaultyStore, scattered};
use futures::TryStreamExt;
use model::clock::SystemClock;
use model::matcher::Matcher;
use model::tenant::TenantId;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tsdb::block::BlockMeta;
use tsdb::bucket::reader::{BucketReader, ReaderOptions};
use tsdb::catalog::{Catalog, CatalogError, CatalogOptions, Edit, Quarantine, Snapshot};
use tsdb::deletion::Tombstone;
use tsdb::layout;
use tsdb::sidecar::Sidecar;
use ulid::Ulid;

fn meta(number: u64) -> BlockMeta {
    let first_ms = number as i64 * 10;
    let whole = set_up::meta(Ulid::from_parts(number, u128::from(number)));
    BlockMeta { min_t_ms: first_ms, max_t_ms: first_ms + 9, ..whole }
}

fn sidecar(number: u64) -> Sidecar {
    let ulid = Ulid::from_parts(number, 1);
    let min_t_ms = (number % 7) as i64;
    Sidecar { ulid, min_t_ms, max_t_ms: 9, rows: number, bytes: 1, xxh3: String::new() }
}

fn options() -> CatalogOptions {
    let pause = Duration::from_micros(100);
    CatalogOptions { pause, changes_from_bytes: 4 << 10, ..CatalogOptions::default() }
}

async fn open(store: &Arc<dyn ObjectStore>) -> Result<Catalog, CatalogError> {
    Catalog::open(store.clone(), TenantId::single(), "test", options()).await
}

/// Length and version of the objects of a catalog's snapshots, by number.
async fn objects(store: &Arc<dyn ObjectStore>) -> BTreeMap<u64, (usize, u64)> {
    let listed = store.list(Some(&layout::catalog(&TenantId::single())));
    let listed: Vec<_> = listed.try_collect().await.unwrap();
    let mut found = BTreeMap::new();
    for object in listed {
        let text = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let number = layout::snapshot_number(&object.location).unwrap();
        found.insert(number, (text.len(), json["version"].as_u64().unwrap()));
    }
    found
}

/// An edit of one of all kinds, which fits the snapshot.
fn any_edit(snapshot: &Snapshot, n: u64, seed: u64) -> Edit {
    let pick = |len: usize, salt: u64| (scattered(n, seed ^ salt) % len.max(1) as u64) as usize;
    let block = |salt| snapshot.blocks[pick(snapshot.blocks.len(), salt)].ulid;
    let expired = || snapshot.expired.get(pick(snapshot.expired.len(), 3)).map(|e| e.block.ulid);
    let mut edit = Edit::flush(Some(meta(1000 + n)), &format!("w{}", n % 3), n);
    match pick(10, 1) {
        0 => edit.remove.push(block(2)),
        1 => edit.expire.push((block(2), n as i64)),
        2 => edit.restore.extend(expired()),
        3 => edit.give_up.extend(expired()),
        4 => {
            let name = format!("m{}", pick(4, 4));
            let matchers = vec![Matcher::equal("__name__", &name)];
            edit.bury.push(Tombstone::new(matchers, pick(2000, 5) as i64, i64::MAX, n as i64));
        }
        5 => {
            let newest = snapshot.tombstones.last().map(|t| t.ulid);
            edit.clean.extend(newest.map(|t| (block(2), t)));
        }
        6 => {
            let why = Quarantine { reason: n.to_string(), since_ms: 1, found_by: "test".to_string() };
            edit.quarantine.push((block(2), why));
        }
        7 => edit.release.extend(snapshot.quarantined.keys().next()),
        8 => {
            edit.add_exemplars.push(sidecar(n));
            edit.drop_exemplars.extend(snapshot.exemplars.get(2).map(|f| f.ulid));
        }
        _ => edit.metadata = Some((snapshot.metadata.as_ref().map(|f| f.ulid), sidecar(n))),
    }
    edit
}

#[tokio::test]
async fn changes_lead_to_the_snapshot_that_was_committed_whatever_was_edited() {
    for seed in 0..4 {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let writer = open(&store).await.unwrap();
        let follower = open(&store).await.unwrap();
        writer.commit(&Edit { add: (0..150).map(meta).collect(), ..Edit::default() }).await.unwrap();
        let mut all = vec![writer.snapshot()];
        for n in 0..110 {
            let edit = any_edit(&writer.snapshot(), n, seed);
            let done = writer.commit(&edit).await.unwrap();
            assert_eq!(open(&store).await.unwrap().snapshot(), done, "seed {seed}, from nowhere");
            if n % 5 == seed % 5 {
                assert_eq!(follower.refresh().await.unwrap(), done, "seed {seed}, on from an earlier one");
            }
            all.push(done);
        }
        let reader = open(&store).await.unwrap();
        for snapshot in &all {
            assert_eq!(reader.at(snapshot.number).await.unwrap().as_ref(), Some(&**snapshot), "seed {seed}");
        }
        let as_changes = objects(&store).await.values().filter(|(_, version)| *version == 5).count();
        assert!(as_changes > 70, "seed {seed}: {as_changes}");
    }
}

/// Bytes and requests of 300 commits of a block each, to a catalog of so many blocks.
async fn costs(blocks: u64) -> (usize, usize) {
    let faulty = Arc::new(FaultyStore::default());
    let store: Arc<dyn ObjectStore> = faulty.clone();
    let writer = Catalog::open(store.clone(), TenantId::single(), "w", CatalogOptions::default()).await;
    let writer = writer.unwrap();
    writer.commit(&Edit { add: (0..blocks).map(meta).collect(), ..Edit::default() }).await.unwrap();
    let follower = open(&store).await.unwrap();
    let gets = faulty.gets_so_far();
    for n in 0..300 {
        writer.commit(&Edit::flush(Some(meta(10_000 + n)), "w", n)).await.unwrap();
    }
    let commit_gets = faulty.gets_so_far() - gets;
    // One to see that nobody else committed, one to see that the base is there; each 16th commit prunes.
    assert!((600..=620).contains(&commit_gets), "{commit_gets}");
    let gets = faulty.gets_so_far();
    assert_eq!(follower.refresh().await.unwrap(), writer.snapshot());
    assert_eq!(faulty.gets_so_far() - gets, 301, "each commit is read once");
    let (gets, lists) = (faulty.gets_so_far(), faulty.lists.load(Ordering::Relaxed));
    let fresh = open(&store).await.unwrap();
    assert_eq!(fresh.snapshot(), writer.snapshot());
    let (gets, lists) = (faulty.gets_so_far() - gets, faulty.lists.load(Ordering::Relaxed) - lists);
    assert!(gets <= 5 && lists == 1, "{gets} GETs, {lists} LISTs");
    let sizes = objects(&store).await;
    let whole = sizes[&1].0;
    let written: usize = sizes.range(2..).map(|(_, (bytes, _))| bytes).sum();
    eprintln!(
        "{blocks} blocks, {whole} bytes; 300 commits: {written} bytes, {} of them whole; a start: {gets} GETs",
        sizes.range(2..).filter(|(_, (_, version))| *version < 5).count()
    );
    (whole, written)
}

#[tokio::test]
async fn commit_to_a_large_catalog_costs_what_it_changes() {
    let (whole, written) = costs(5000).await;
    assert!(written < whole, "{written} bytes for 300 commits, all of it has {whole}");
    let (whole, written) = costs(150).await;
    assert!(written < whole * 30, "{written} bytes for 300 commits, all of it has {whole}");
}

#[tokio::test]
async fn prune_keeps_what_others_stand_on() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let few = CatalogOptions { keep_snapshots: 5, keep_for: Duration::ZERO, ..options() };
    let writer = Catalog::open(store.clone(), TenantId::single(), "w", few).await.unwrap();
    writer.commit(&Edit { add: (0..100).map(meta).collect(), ..Edit::default() }).await.unwrap();
    let mut fewest = usize::MAX;
    for n in 0..200 {
        let done = writer.commit(&Edit::flush(Some(meta(1000 + n)), "w", n)).await.unwrap();
        writer.prune().await;
        assert_eq!(open(&store).await.unwrap().snapshot(), done);
        let left = objects(&store).await;
        assert!(left.first_key_value().unwrap().1.1 < 5, "the oldest that is left is whole");
        assert_eq!(left.len() as u64, done.number - left.keys().next().unwrap() + 1, "none between is gone");
        fewest = fewest.min(left.len()).max(5);
        if done.number > 100 {
            assert!(!left.contains_key(&1), "the first was whole, and nothing stands on it any more");
        }
    }
    assert!(fewest < 10, "{fewest}");
}

/// A catalog whose newest snapshot stands on two others.
async fn of_three(store: &Arc<dyn ObjectStore>) -> Arc<Snapshot> {
    let writer = open(store).await.unwrap();
    writer.commit(&Edit { add: (0..100).map(meta).collect(), ..Edit::default() }).await.unwrap();
    for n in 0..9 {
        writer.commit(&Edit::flush(Some(meta(1000 + n)), "w", n)).await.unwrap();
    }
    let newest = writer.snapshot();
    assert_eq!(newest.number, 1 + 8 + 1);
    newest
}

#[tokio::test]
async fn snapshot_that_stands_on_what_is_gone_is_refused_by_name() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let newest = of_three(&store).await;
    let needed = [1, 9, 10];
    for number in 1..=newest.number {
        let path = layout::snapshot(&TenantId::single(), number);
        let text = store.get(&path).await.unwrap().bytes().await.unwrap();
        store.delete(&path).await.unwrap();
        let opened = open(&store).await.map(|c| c.snapshot());
        match (number, opened) {
            // That the newest is gone is noticed by whoever has seen it.
            (10, Ok(found)) => assert_eq!(found.number, 9),
            (_, Ok(found)) => assert!(!needed.contains(&number) && found == newest, "without {number}"),
            (_, Err(e)) => {
                assert!(needed.contains(&number), "without {number}: {e}");
                assert!(e.to_string().contains(path.as_ref()) && !e.passes(), "without {number}: {e}");
            }
        }
        store.put(&path, PutPayload::from(text)).await.unwrap();
    }
}

#[tokio::test]
async fn older_snapshot_whose_base_was_pruned_counts_as_pruned() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let writer = open(&store).await.unwrap();
    writer.commit(&Edit { add: (0..50).map(meta).collect(), ..Edit::default() }).await.unwrap();
    for n in 0..100 {
        writer.commit(&Edit::flush(Some(meta(1000 + n)), "w", n)).await.unwrap();
    }
    // As a removal that was interrupted leaves it.
    store.delete(&layout::snapshot(&TenantId::single(), 1)).await.unwrap();
    let reader = open(&store).await.unwrap();
    assert_eq!(reader.snapshot(), writer.snapshot());
    assert_eq!(reader.at(2).await.unwrap(), None);
}

#[tokio::test]
async fn damaged_changes_are_an_error_that_names_them() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let newest = of_three(&store).await;
    for number in [9, 10] {
        let path = layout::snapshot(&TenantId::single(), number);
        let text = store.get(&path).await.unwrap().bytes().await.unwrap();
        for at in (0..text.len()).step_by(if number == 9 { 7 } else { 1 }) {
            let mut bad = text.to_vec();
            bad[at] ^= 1 << (at % 7);
            store.put(&path, PutPayload::from(bad)).await.unwrap();
            match open(&store).await {
                Err(CatalogError::Corrupt { object, .. }) => assert_eq!(object, path.to_string(), "{at}"),
                Err(e) => panic!("{number}, byte {at}: {e}"),
                Ok(same) => assert_eq!(same.snapshot(), newest, "{number}, byte {at}"),
            }
        }
        store.put(&path, PutPayload::from(text)).await.unwrap();
    }
}

#[tokio::test]
async fn changes_are_not_applied_to_a_snapshot_of_another_history() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    of_three(&store).await;
    let other: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    of_three(&other).await;
    let path = layout::snapshot(&TenantId::single(), 9);
    let text = other.get(&path).await.unwrap().bytes().await.unwrap();
    store.put(&path, PutPayload::from(text)).await.unwrap();
    let error = open(&store).await.map(drop).unwrap_err();
    assert!(matches!(&error, CatalogError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("what is there is another"), "{error}");
}

/// Requests since they were looked at last: GETs, LISTs and PUTs.
struct Requests<'s>(&'s FaultyStore, (u64, u64, u64));

impl Requests<'_> {
    fn now(&self) -> (u64, u64, u64) {
        let store = self.0;
        let of = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        (of(&store.gets), of(&store.lists), of(&store.puts))
    }

    fn since(&mut self) -> (u64, u64, u64) {
        let (before, now) = (self.1, self.now());
        self.1 = now;
        (now.0 - before.0, now.1 - before.1, now.2 - before.2)
    }
}

/// What a start, a refresh of nothing, a commit and a refresh of it cost a process that follows so many
/// tenants of so many blocks: GETs, LISTs and PUTs of each.
async fn costs_of_tenants(tenants: u64, blocks_each: u64) -> [(u64, u64, u64); 4] {
    let faulty = Arc::new(FaultyStore::default());
    let store: Arc<dyn ObjectStore> = faulty.clone();
    let tenant = |n: u64| TenantId::new(&format!("tenant-{n:04}")).unwrap();
    let mut writers = Vec::new();
    for n in 0..tenants {
        let opened = Catalog::open(store.clone(), tenant(n), "w", CatalogOptions::default()).await;
        let writer = opened.unwrap();
        writer.commit(&Edit { add: (0..blocks_each).map(meta).collect(), ..Edit::default() }).await.unwrap();
        writers.push(writer);
    }
    let mut requests = Requests(&faulty, (0, 0, 0));
    requests.since();
    let reader = BucketReader::open(ReaderOptions {
        store: store.clone(),
        clock: Arc::new(SystemClock),
        name: "q".into(),
        cache_bytes: 1 << 20,
        disk_cache: None,
        rules: Arc::new(|_| Arc::default()),
        exemplar_keep_ms: None,
        metadata_keep_ms: None,
    });
    let reader = reader.await.unwrap();
    let start = requests.since();
    reader.refresh().await.unwrap();
    let nothing = requests.since();
    let committed = writers[0].commit(&Edit::flush(Some(meta(1_000_000)), "w", 1)).await.unwrap();
    let commit = requests.since();
    reader.refresh().await.unwrap();
    let refresh = requests.since();
    assert_eq!(reader.tenants().len() as u64, tenants);
    assert_eq!(reader.snapshot(&tenant(0)), committed);
    [start, nothing, commit, refresh]
}

#[tokio::test]
async fn catalogs_of_many_tenants_cost_a_request_each_and_what_has_changed() {
    for (tenants, blocks_each) in [(10, 300), (40, 50)] {
        let [start, nothing, commit, refresh] = costs_of_tenants(tenants, blocks_each).await;
        // Of each tenant its snapshot, and that there is no later one.
        assert_eq!(start, (2 * tenants, tenants + 1, 0));
        assert_eq!(nothing, (tenants, 1, 0));
        assert!(commit.0 <= 3 && commit.1 <= 1 && commit.2 == 1, "{commit:?}");
        assert_eq!(refresh, (tenants + 1, 1, 0));
    }
}
