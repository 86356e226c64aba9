//! Every moment of a flush at which a process may die, and every step of one that may fail: afterwards all is there, and once.
//!
//! A flush changes a folder and an object store. Before each request to the store both are copied: so many moments. What happens in the
//! folder between two of them is made of the difference: files written half, files removed one after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use object_store::ObjectStore;
use object_store::memory::InMemory;
use tokio::runtime::Handle;
use tsdb::db::Db;
use tsdb::tenant::TenantId;
use tsdb::wal::{HEADER_BYTES, segment_path};

use crate::faulty_store::{Fault, FaultyStore};
use crate::held::{self, ALL, Files, Held, files};

fn tenants() -> [TenantId; 2] {
    ["a", "b"].map(|t| TenantId::new(t).unwrap())
}

/// What the two tenants must hold.
type World = [Held; 2];

async fn open(dir: &Path, store: Arc<dyn ObjectStore>) -> Arc<Db> {
    Db::open(held::options(dir, store)).await.unwrap_or_else(|e| panic!("refused to start: {e}"))
}

async fn write(db: &Arc<Db>, world: &mut World, n: i64) {
    for (tenant, held) in tenants().iter().zip(world) {
        held::write(db, tenant, held, n, &ALL).await;
    }
}

async fn check(db: &Arc<Db>, world: &World, what: &str) {
    for (tenant, held) in tenants().iter().zip(world) {
        assert_eq!(held::read(db, tenant).await, *held, "tenant {tenant}: {what}");
    }
}

/// After a flush: that blocks and files of exemplars hold each sample and each exemplar once. Readers would not show it, they merge.
async fn stored_once(db: &Arc<Db>, world: &World, what: &str) {
    for (tenant, held) in tenants().iter().zip(world) {
        let stored: u64 = db.blocks(tenant).iter().map(|b| b.stats.samples).sum();
        assert_eq!(stored, held.samples(), "samples in blocks of tenant {tenant}: {what}");
    }
    assert_eq!(
        db.counts().stored_exemplars,
        world.iter().map(Held::exemplars).sum::<u64>(),
        "exemplars: {what}"
    );
}

/// A moment before a flush: three segments of the log, from three sessions, the first of which has flushed.
async fn begun() -> Moment {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut world) = (Arc::new(InMemory::new()), World::default());
    for session in 0..3 {
        let db = open(dir.path(), store.clone()).await;
        write(&db, &mut world, session * 10).await;
        if session == 0 {
            db.flush().await.unwrap();
            write(&db, &mut world, 1).await;
        }
    }
    Moment { what: "before the flush".into(), folder: files(dir.path()), objects: store.fork(), world }
}

/// A moment at which the power may go.
struct Moment {
    what: String,
    folder: Files,
    objects: InMemory,
    /// What was acknowledged by then.
    world: World,
}

impl Moment {
    /// The folder and the store as they were, and what they hold.
    fn again(&self) -> (tempfile::TempDir, Arc<FaultyStore>, World) {
        let store = FaultyStore { inner: Arc::new(self.objects.fork()), ..FaultyStore::default() };
        (held::folder(&self.folder), Arc::new(store), self.world.clone())
    }

    /// The process is started again, twice, and goes on: all acknowledged is there, can be flushed, and is then in the store, once.
    async fn revive(&self) {
        let what = &self.what;
        let (dir, store, mut world) = self.again();
        check(&open(dir.path(), store.clone()).await, &world, what).await;
        let db = open(dir.path(), store.clone()).await;
        check(&db, &world, &format!("{what}, the second time")).await;
        write(&db, &mut world, 900).await;
        check(&db, &world, &format!("{what}, written on")).await;
        db.flush().await.unwrap_or_else(|e| panic!("{what}: {e}"));
        check(&db, &world, &format!("{what}, flushed")).await;
        stored_once(&db, &world, what).await;
        let left: Vec<_> = files(dir.path()).into_keys().filter(|p| p.starts_with("scratch")).collect();
        assert!(left.is_empty(), "{what}: {left:?} is left");
        drop(db);
        let elsewhere = tempfile::tempdir().unwrap();
        check(&open(elsewhere.path(), store).await, &world, &format!("{what}, the disk is gone")).await;
    }
}

/// All moments of one flush, samples coming in while it runs, and the paths that were written to.
async fn moments() -> (Vec<Moment>, Vec<String>) {
    let (dir, store, mut world) = begun().await.again();
    let db = open(dir.path(), store.clone()).await;
    write(&db, &mut world, 30).await;
    let begin = Moment {
        what: "before the flush".into(),
        folder: files(dir.path()),
        objects: store.inner.fork(),
        world: world.clone(),
    };
    let seen = Arc::new(Mutex::new((world, vec![begin], Vec::new())));
    let (seen_by_store, folder, inner, writer) =
        (seen.clone(), dir.path().to_path_buf(), store.inner.clone(), db.clone());
    store.script(move |_, path| {
        let mut seen = seen_by_store.lock().unwrap();
        let (world, moments, paths) = &mut *seen;
        moments.push(Moment {
            what: format!("before PUT {} of {path}", moments.len()),
            folder: files(&folder),
            objects: inner.fork(),
            world: world.clone(),
        });
        paths.push(path.to_string());
        let n = 100 + moments.len() as i64;
        tokio::task::block_in_place(|| Handle::current().block_on(write(&writer, world, n)));
        Fault::None
    });
    db.flush().await.unwrap();
    // The script holds the Db, which holds the store, which holds the script.
    *store.on_put.lock().unwrap() = None;
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    check(&db, &seen.0, "after the flush").await;
    let end = Moment {
        what: "after the flush".into(),
        folder: files(dir.path()),
        objects: store.inner.fork(),
        world: seen.0,
    };
    seen.1.push(end);
    (seen.1, seen.2)
}

/// What lies between two moments: files of the later one that were not finished, files of the earlier one that were not all removed.
fn between(earlier: &Moment, later: &Moment) -> Vec<Moment> {
    let new: Vec<&PathBuf> = later.folder.keys().filter(|p| !earlier.folder.contains_key(*p)).collect();
    // A segment of the log that has records was fsynced before they were acknowledged.
    let unfinished = |p: &&&PathBuf| !p.starts_with("log") || later.folder[**p].len() <= HEADER_BYTES;
    let mut all = Vec::new();
    for &path in new.iter().filter(unfinished) {
        let len = later.folder[path].len();
        for kept in [None, Some(0), Some(len / 2), Some(len.saturating_sub(1))] {
            let mut folder = later.folder.clone();
            match kept {
                None => _ = folder.remove(path),
                Some(kept) => folder.get_mut(path).unwrap().truncate(kept),
            }
            let what = format!("{}, {} has {kept:?} of {len} bytes", later.what, path.display());
            all.push(Moment { what, folder, objects: later.objects.fork(), world: later.world.clone() });
        }
    }
    let gone: Vec<&PathBuf> = earlier.folder.keys().filter(|p| !later.folder.contains_key(*p)).collect();
    for n in 0..gone.len() {
        let mut folder = earlier.folder.clone();
        gone[..n].iter().for_each(|p| _ = folder.remove(*p));
        let what = format!("{}, {n} of {gone:?} are removed", earlier.what);
        all.push(Moment { what, folder, objects: later.objects.fork(), world: earlier.world.clone() });
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_may_die_at_any_moment_of_a_flush() {
    let (moments, paths) = moments().await;
    // Of each tenant: metadata and its commit, exemplars, three data files, meta.json and the commit; then a day's exemplars become one file.
    for part in [
        "metadata/",
        "exemplars/",
        "series.parquet",
        "timelines.parquet",
        "samples.parquet",
        "meta.json",
        "catalog/",
    ] {
        for tenant in tenants() {
            let written =
                paths.iter().filter(|p| p.contains(part) && p.contains(&format!("/{tenant}/"))).count();
            let least = if part == "catalog/" {
                3
            } else if part == "exemplars/" {
                2
            } else {
                1
            };
            assert!(written >= least, "{written} of {part} of {tenant}: {paths:?}");
        }
    }
    let within: Vec<Moment> = moments.windows(2).flat_map(|pair| between(&pair[0], &pair[1])).collect();
    let of = |what: &str| within.iter().filter(|m| m.what.contains(what)).count();
    assert!(of("scratch/") >= 8 && of("of [\"log/") >= 3 && of(", log/") == 4, "the folder is seen changing");
    for moment in moments.iter().chain(&within) {
        moment.revive().await;
    }
}

/// A flush for each of its requests that meets the fault, alone or with all that follow, and then goes on or dies; how many of them failed.
async fn fails_at_each_request(begun: Arc<Moment>, fault: Fault, for_ever: bool, dies: bool) -> u64 {
    let mut failed = 0;
    for step in 0.. {
        let (dir, store, mut world) = begun.again();
        let mut db = open(dir.path(), store.clone()).await;
        let begin = store.puts.load(Ordering::Relaxed);
        store.script(move |n, _| {
            let met = n - begin == step || (for_ever && n - begin > step);
            if met { fault } else { Fault::None }
        });
        let flushed = db.flush().await;
        let was_last = store.puts.load(Ordering::Relaxed) - begin <= step;
        failed += u64::from(flushed.is_err());
        let what = format!("{fault:?} at {step}, for ever {for_ever}, dies {dies}: {flushed:?}");
        check(&db, &world, &what).await;
        write(&db, &mut world, 40).await;
        *store.on_put.lock().unwrap() = None;
        if dies {
            drop(db);
            db = open(dir.path(), store.clone()).await;
        }
        check(&db, &world, &what).await;
        db.flush().await.unwrap();
        check(&db, &world, &what).await;
        stored_once(&db, &world, &what).await;
        drop(db);
        check(&open(dir.path(), store.clone()).await, &world, &format!("{what}, started again")).await;
        if was_last {
            break;
        }
    }
    failed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_whose_requests_fail_one_by_one_or_all_from_one_on_loses_and_doubles_nothing() {
    let begun = Arc::new(begun().await);
    let mut all = tokio::task::JoinSet::new();
    for fault in [Fault::Refused, Fault::AnswerLost] {
        for (for_ever, dies) in [(false, false), (true, false), (true, true)] {
            all.spawn(fails_at_each_request(begun.clone(), fault, for_ever, dies));
        }
    }
    let failed: u64 = all.join_all().await.into_iter().sum();
    assert!(failed >= 60, "only {failed} flushes failed");
}

/// Something in the way of a flush in its folder.
struct Obstacle {
    what: &'static str,
    /// Where a folder stands that should be a file, or the reverse.
    at: fn(&Path, newest_segment: u64) -> PathBuf,
    is_folder: bool,
    /// Whether the flush fails, or goes on without.
    fails: bool,
}

const OBSTACLES: [Obstacle; 3] = [
    Obstacle {
        what: "the log's next segment cannot be made",
        at: |dir, newest| segment_path(&dir.join("log"), newest + 1),
        is_folder: true,
        fails: true,
    },
    Obstacle {
        what: "blocks cannot be written",
        at: |dir, _| dir.join("scratch"),
        is_folder: false,
        fails: true,
    },
    Obstacle {
        what: "segments cannot be removed",
        at: |dir, _| segment_path(&dir.join("log"), 0),
        is_folder: true,
        fails: false,
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_fails_a_flush_loses_and_doubles_nothing() {
    let begun = begun().await;
    for obstacle in OBSTACLES {
        for dies in [false, true] {
            let (dir, store, mut world) = begun.again();
            let mut db = open(dir.path(), store.clone()).await;
            write(&db, &mut world, 30).await;
            let segments = || tsdb::wal::segments(&dir.path().join("log")).unwrap();
            let before = segments().len();
            let at = (obstacle.at)(dir.path(), segments()[before - 1]);
            let _ = fs::remove_dir(&at);
            if obstacle.is_folder {
                fs::create_dir(&at).unwrap()
            } else {
                fs::write(&at, b"in the way").unwrap()
            }
            for n in 31..33 {
                let flushed = db.flush().await;
                assert_eq!(flushed.is_err(), obstacle.fails, "{}: {flushed:?}", obstacle.what);
                check(&db, &world, obstacle.what).await;
                write(&db, &mut world, n).await;
                check(&db, &world, obstacle.what).await;
            }
            if obstacle.is_folder {
                fs::remove_dir(&at).unwrap()
            } else {
                fs::remove_file(&at).unwrap()
            }
            if dies {
                drop(db);
                db = open(dir.path(), store.clone()).await;
                check(&db, &world, obstacle.what).await;
            }
            db.flush().await.unwrap();
            check(&db, &world, obstacle.what).await;
            stored_once(&db, &world, obstacle.what).await;
            assert!(segments().len() <= 2, "{}: {:?} are left", obstacle.what, segments());
            drop(db);
            check(&open(dir.path(), store.clone()).await, &world, obstacle.what).await;
        }
    }
}
