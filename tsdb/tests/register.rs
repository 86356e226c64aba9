//! Commits through a register, on a store that ignores conditions: racing writers, faults of store and
//! register, writers that die at any step.

mod faulty_store;
mod set_up;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use faulty_store::{Fault, FaultyStore, scattered};
use futures::TryStreamExt;
use model::tenant::TenantId;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use set_up::meta;
use tsdb::catalog::{Catalog, CatalogError, CatalogOptions, Commits, Edit, Register, RegisterError, arrange};
use tsdb::layout;
use ulid::Ulid;

/// A coordinator in memory that fails as told by a seed; 0 for never.
#[derive(Debug, Default)]
struct Memory {
    names: Arc<Mutex<BTreeMap<String, String>>>,
    seed: AtomicU64,
    calls: AtomicU64,
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("memory://test")
    }
}

impl Memory {
    fn fault(&self) -> u64 {
        let n = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.seed.load(Ordering::Relaxed) {
            0 => u64::MAX,
            seed => scattered(n, seed) % 12,
        }
    }
}

fn put(names: &Mutex<BTreeMap<String, String>>, name: &str, text: &str) -> Result<String, RegisterError> {
    let mut names = names.lock().unwrap();
    if let Some((parent, _)) = name.split_once('/')
        && !names.contains_key(parent)
    {
        return Err(RegisterError::wait(format!("{parent} is not there")));
    }
    Ok(names.entry(name.to_string()).or_insert_with(|| text.to_string()).clone())
}

#[async_trait::async_trait]
impl Register for Memory {
    async fn create(&self, name: &str, text: &str) -> Result<String, RegisterError> {
        match self.fault() {
            0 => return Err(RegisterError::wait("not now")),
            1 => {
                let _ = put(&self.names, name, text);
                return Err(RegisterError::wait("the answer was lost"));
            }
            2 => {
                let (names, name, text) = (self.names.clone(), name.to_string(), text.to_string());
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(4)).await;
                    let _ = put(&names, &name, &text);
                });
                return Err(RegisterError::wait("timed out, and done later"));
            }
            3 => tokio::time::sleep(Duration::from_millis(3)).await,
            _ => {}
        }
        put(&self.names, name, text)
    }

    async fn read(&self, name: &str) -> Result<Option<String>, RegisterError> {
        if self.fault() == 0 {
            return Err(RegisterError::wait("not now"));
        }
        Ok(self.names.lock().unwrap().get(name).cloned())
    }

    async fn remove(&self, name: &str, text: &str) -> Result<(), RegisterError> {
        if self.fault() == 0 {
            return Err(RegisterError::wait("not now"));
        }
        let mut names = self.names.lock().unwrap();
        if names.get(name).is_some_and(|t| t == text) {
            names.remove(name);
        }
        Ok(())
    }
}

fn options() -> CatalogOptions {
    CatalogOptions { pause: Duration::from_micros(200), attempts: 6, ..CatalogOptions::default() }
}

fn through(register: &Arc<Memory>) -> Commits {
    Commits::Register { register: register.clone(), bucket: "s3://test".to_string() }
}

async fn arranged(store: &Arc<FaultyStore>, register: &Arc<Memory>) -> Arc<dyn ObjectStore> {
    arrange(store.clone(), &through(register), "w").await.expect("arranged").store
}

fn faults(store: &FaultyStore, seed: u64) {
    store.script(move |n, _| match scattered(n, seed) % 14 {
        0 => Fault::Refused,
        1 => Fault::AnswerLost,
        2 => Fault::Repeated,
        3 => Fault::Slow,
        4 => Fault::Late,
        _ => Fault::None,
    });
}

/// What is true at the end of every race: what was acknowledged is there once, nothing is there that nobody
/// wrote, and the snapshots are one chain.
async fn check(store: &Arc<dyn ObjectStore>, sure: &[Ulid], tried: &[Ulid], seed: u64) -> u64 {
    let last = Catalog::open(store.clone(), TenantId::single(), "check", options()).await.unwrap().snapshot();
    let live: Vec<Ulid> = last.blocks.iter().map(|b| b.ulid).collect();
    let mut distinct = live.clone();
    distinct.dedup();
    assert_eq!(distinct, live, "seed {seed}: a block twice");
    for ulid in sure {
        assert!(live.contains(ulid), "seed {seed}: an acknowledged block is lost");
    }
    for ulid in &live {
        assert!(tried.contains(ulid), "seed {seed}: a block from nowhere");
    }
    let mut before = String::new();
    for number in 1..=last.number {
        let path = layout::snapshot(&TenantId::single(), number);
        let text = store.get(&path).await.unwrap().bytes().await.unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let commits = json["commits"].as_array().unwrap();
        if number > 1 {
            assert_eq!(commits[commits.len() - 2].as_str().unwrap(), before, "seed {seed} number {number}");
        }
        before = commits[commits.len() - 1].as_str().unwrap().to_string();
    }
    last.number
}

fn on_threads<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(work)
}

#[test]
fn racing_writers_over_store_and_register_that_fail_lose_and_double_nothing() {
    for seed in 1..=30 {
        on_threads(async {
            let faulty = Arc::new(FaultyStore { lies: true, ..FaultyStore::default() });
            let register = Arc::new(Memory::default());
            let mut stores = Vec::new();
            for _ in 0..5 {
                stores.push(arranged(&faulty, &register).await);
            }
            faults(&faulty, seed);
            register.seed.store(seed, Ordering::Relaxed);
            let writers: Vec<_> = stores
                .into_iter()
                .enumerate()
                .map(|(w, store)| {
                    tokio::spawn(async move {
                        let (mut sure, mut tried) = (Vec::new(), Vec::new());
                        let catalog = loop {
                            match Catalog::open(store.clone(), TenantId::single(), "w", options()).await {
                                Ok(catalog) => break catalog,
                                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                            }
                        };
                        for i in 0..8 {
                            let ulid = Ulid::from_parts(1000 + w as u64 * 100 + i, w as u128);
                            tried.push(ulid);
                            match catalog.commit(&Edit::flush(Some(meta(ulid)), "w", i)).await {
                                Ok(_) => sure.push(ulid),
                                Err(CatalogError::Store { .. }) => {}
                                Err(e) => panic!("seed {seed}: {e}"),
                            }
                        }
                        (sure, tried)
                    })
                })
                .collect();
            let (mut sure, mut tried) = (Vec::new(), Vec::new());
            for writer in writers {
                let (s, t) = writer.await.unwrap();
                sure.extend(s);
                tried.extend(t);
            }
            assert!(sure.len() >= 25, "seed {seed}: only {} of 40 commits were made", sure.len());
            // Requests that were late land now.
            tokio::time::sleep(Duration::from_millis(10)).await;
            faulty.script(|_, _| Fault::None);
            register.seed.store(0, Ordering::Relaxed);
            let store = arranged(&faulty, &register).await;
            check(&store, &sure, &tried, seed).await;
        });
    }
}

/// A writer is stopped dead after each number of requests in turn; whatever it left, the next writer goes on
/// and everybody agrees.
#[tokio::test]
async fn writer_may_die_at_any_step() {
    for stop_at in 0..14 {
        let faulty = Arc::new(FaultyStore { lies: true, ..FaultyStore::default() });
        let register = Arc::new(Memory::default());
        let first = arranged(&faulty, &register).await;
        let second = arranged(&faulty, &register).await;
        let open =
            |store: &Arc<dyn ObjectStore>| Catalog::open(store.clone(), TenantId::single(), "w", options());
        let before = Ulid::from_parts(1, 1);
        open(&first).await.unwrap().commit(&Edit::flush(Some(meta(before)), "w", 1)).await.unwrap();
        let doomed = Ulid::from_parts(2, 2);
        let catalog = open(&first).await.unwrap();
        let edit = Edit::flush(Some(meta(doomed)), "w", 2);
        let mut commit = Box::pin(catalog.commit(&edit));
        // In memory every request is done when it is polled, so polls count steps; sleeping in between they
        // are made distinct.
        let mut done = None;
        let steps = Arc::new(AtomicU64::new(0));
        let seen = steps.clone();
        faulty.script(move |_, _| {
            seen.fetch_add(1, Ordering::Relaxed);
            Fault::Slow
        });
        for _ in 0..stop_at {
            tokio::select! {
                biased;
                result = &mut commit => { done = Some(result); break; }
                () = tokio::time::sleep(Duration::from_micros(700)) => {}
            }
        }
        drop(commit);
        faulty.script(|_, _| Fault::None);
        let after = Ulid::from_parts(3, 3);
        let other = open(&second).await.unwrap();
        let snapshot = other.commit(&Edit::flush(Some(meta(after)), "x", 1)).await.unwrap();
        let has = |ulid| snapshot.blocks.iter().any(|b| b.ulid == ulid);
        assert!(has(before) && has(after), "stopped at {stop_at}");
        if matches!(done, Some(Ok(_))) {
            assert!(has(doomed), "acknowledged and lost; stopped at {stop_at}");
        }
        check(&second, &[before, after], &[before, doomed, after], stop_at).await;
        // A late request of the dead one changes nothing: the same bytes again.
        let number = check(&first, &[before, after], &[before, doomed, after], stop_at).await;
        assert_eq!(number, 2 + u64::from(has(doomed)), "stopped at {stop_at}");
    }
}

#[tokio::test]
async fn decided_commit_is_seen_even_if_its_writer_died_before_carrying_it_out() {
    let faulty = Arc::new(FaultyStore { lies: true, ..FaultyStore::default() });
    let register = Arc::new(Memory::default());
    let store = arranged(&faulty, &register).await;
    let catalog = Catalog::open(store.clone(), TenantId::single(), "w", options()).await.unwrap();
    // The claim is made and the staged bytes are there, but the snapshot itself is never written by its
    // winner.
    faulty.script(|_, path| if path.as_ref().contains("catalog/") { Fault::Refused } else { Fault::None });
    let block = Ulid::new();
    let error = catalog.commit(&Edit::flush(Some(meta(block)), "w", 9)).await.unwrap_err();
    assert!(error.to_string().contains("unknown"), "{error}");
    faulty.script(|_, _| Fault::None);
    let reader = Catalog::open(arranged(&faulty, &register).await, TenantId::single(), "r", options()).await;
    let snapshot = reader.unwrap().snapshot();
    assert_eq!((snapshot.number, snapshot.watermark("w")), (1, Some(9)));
    let left: Vec<_> =
        faulty.list(Some(&object_store::path::Path::from(layout::STAGED))).try_collect().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert!(register.names.lock().unwrap().keys().all(|name| !name.contains('~')), "the claim has gone");
}

#[test]
fn register_tells_one_of_many_who_create_at_once() {
    on_threads(async {
        // The probe races eight writers for each of three keys, through register and claims, losers carrying
        // out what winners began.
        for _ in 0..40 {
            let faulty = Arc::new(FaultyStore { lies: true, ..FaultyStore::default() });
            faulty.script(|n, _| if n % 3 == 0 { Fault::Slow } else { Fault::None });
            arranged(&faulty, &Arc::new(Memory::default())).await;
        }
    });
}

#[tokio::test]
async fn register_that_is_not_the_buckets_own_is_refused() {
    let faulty = Arc::new(FaultyStore { lies: true, ..FaultyStore::default() });
    let register = Arc::new(Memory::default());
    let store = arranged(&faulty, &register).await;
    let catalog = Catalog::open(store, TenantId::single(), "w", options()).await.unwrap();
    catalog.commit(&Edit::flush(None, "w", 1)).await.unwrap();
    let refused = |commits: Commits| {
        let faulty = faulty.clone();
        async move { arrange(faulty, &commits, "w").await.unwrap_err().to_string() }
    };
    // Nobody writes past it,
    assert!(refused(Commits::Conditional).await.contains("set catalog.lock to it"));
    assert!(refused(Commits::single_writer()).await.contains("memory://test"));
    // another coordinator is noticed, and one that was emptied too, at once by those that run already.
    let other = Arc::new(Memory::default());
    assert!(refused(through(&other)).await.contains("knows nothing of this bucket"));
    register.names.lock().unwrap().clear();
    let error = catalog.commit(&Edit::flush(None, "w", 2)).await.unwrap_err();
    assert!(error.to_string().contains("is not there"), "{error}");
    assert!(refused(through(&register)).await.contains("register.json"));
    // Two buckets do not share one place of a coordinator.
    let second: Arc<dyn ObjectStore> = Arc::new(FaultyStore { lies: true, ..FaultyStore::default() });
    let commits = Commits::Register { register: other.clone(), bucket: "s3://second".into() };
    arrange(second, &commits, "w").await.unwrap();
    let third: Arc<dyn ObjectStore> = Arc::new(FaultyStore { lies: true, ..FaultyStore::default() });
    let error = arrange(third, &through(&other), "w").await.unwrap_err().to_string();
    assert!(error.contains("another bucket, s3://second"), "{error}");
}

#[tokio::test]
async fn single_writer_keeps_others_out_and_stops_when_it_is_replaced() {
    let liar = Arc::new(FaultyStore { lies: true, ..FaultyStore::default() });
    let commits = Commits::SingleWriter { beat: Duration::from_millis(50) };
    let take = |writer: &'static str| {
        let (liar, commits) = (liar.clone(), commits.clone());
        async move { arrange(liar, &commits, writer).await }
    };
    let first = take("folder-1").await.unwrap();
    let catalog = Catalog::open(first.store.clone(), TenantId::single(), "w", options()).await.unwrap();
    catalog.commit(&Edit::flush(None, "w", 1)).await.unwrap();
    let refused = take("folder-2").await.unwrap_err().to_string();
    assert!(refused.contains("folder-1") && refused.contains("catalog.lock: zookeeper://"), "{refused}");
    // The same folder again, as after a kill -9, need not wait; the run before it is out.
    let again = take("folder-1").await.unwrap();
    let error = catalog.commit(&Edit::flush(None, "w", 2)).await.unwrap_err();
    assert!(error.to_string().contains("another Hearth has taken the bucket"), "{error}");
    let catalog = Catalog::open(again.store.clone(), TenantId::single(), "w", options()).await.unwrap();
    assert_eq!(catalog.commit(&Edit::flush(None, "w", 3)).await.unwrap().number, 2);
    // Given back, it is free at once.
    again.owner.as_ref().unwrap().release().await;
    let second = take("folder-2").await.unwrap();
    // Gone without a word, it is free after a while.
    drop(second);
    let third = take("folder-3").await.unwrap();
    assert!(third.owner.is_some());
    // A store that keeps its word needs none of it.
    let honest: Arc<dyn ObjectStore> = Arc::new(FaultyStore::default());
    let arranged = arrange(honest.clone(), &commits, "folder-1").await.unwrap();
    assert!(arranged.owner.is_none());
    honest.put(&layout::owner(), PutPayload::from_static(b"{}")).await.unwrap();
}

#[test]
fn claim_whose_staged_bytes_arrive_cut_off_is_carried_out_whole() {
    on_threads(async {
        let faulty = Arc::new(FaultyStore { lies: true, ..FaultyStore::default() });
        let register = Arc::new(Memory::default());
        let store = arranged(&faulty, &register).await;
        let key = layout::snapshot(&TenantId::single(), 1);
        // The winner dies before it has written the object.
        let dies_at = key.clone();
        faulty.script(move |_, path| if *path == dies_at { Fault::Refused } else { Fault::None });
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let text = "all of it ".repeat(100);
        assert!(store.put_opts(&key, text.clone().into(), create).await.is_err());
        faulty.script(|_, _| Fault::None);
        // Whoever misses the object carries the claim out: with all of the bytes, or not at all.
        faulty.short_gets.store(1000, Ordering::Relaxed);
        assert!(store.get(&key).await.is_err());
        assert!(faulty.inner.head(&key).await.is_err(), "a part of it was written");
        faulty.short_gets.store(2, Ordering::Relaxed);
        assert_eq!(store.get(&key).await.unwrap().bytes().await.unwrap(), text);
        assert_eq!(faulty.short_gets.load(Ordering::Relaxed), 0);
    });
}
