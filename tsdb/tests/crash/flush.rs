//! Every moment of sealing and of a flush at which a process may die, and every step of them that may fail:
//! afterwards all is there, and once.
//!
//! They change a folder, a local store in it, and an object store. Before each write to either store all are
//! copied: so many moments. What happens in the folder between two of them is made of the difference: files
//! written half, files removed one after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use object_store::memory::InMemory;
use tokio::runtime::Handle;
use tsdb::wal::{HEADER_BYTES, segment_path};

use crate::faulty_store::Fault;
use crate::held::{Files, files};
use crate::stores::{Moment, Stores, World, check, open, side_by_side, stored_once, write};

/// A moment before a flush, after three sessions: one that has flushed, one that has sealed, one that only
/// wrote.
async fn begun() -> Moment {
    let stores = Stores::of(&Files::new(), InMemory::new());
    let mut world = World::default();
    for session in 0..3 {
        let db = stores.open().await;
        write(&db, &mut world, session * 10).await;
        match session {
            0 => drop(db.flush().await.unwrap()),
            1 => db.seal().await.unwrap(),
            _ => {}
        }
        write(&db, &mut world, session * 10 + 1).await;
    }
    stores.moment("before the flush".into(), &world)
}

impl Moment {
    /// The process is started again, and once more, and goes on: all acknowledged is there, can be flushed,
    /// and is then in the store, once.
    async fn revive(self) {
        let what = &self.what;
        let (stores, mut world) = self.again();
        let dir = stores.dir.path();
        drop(open(dir, stores.remote.clone()).await);
        let db = open(dir, stores.remote.clone()).await;
        check(&db, &world, what).await;
        write(&db, &mut world, 900).await;
        check(&db, &world, &format!("{what}, written on")).await;
        db.flush().await.unwrap_or_else(|e| panic!("{what}: {e}"));
        check(&db, &world, &format!("{what}, flushed")).await;
        stored_once(&db, &world, what).await;
        let left = |p: &PathBuf| p.starts_with("scratch") || p.starts_with("sealed");
        let left: Vec<_> = files(dir).into_keys().filter(left).collect();
        assert!(left.is_empty(), "{what}: {left:?} is left");
        drop(db);
        check(&open(dir, stores.remote.clone()).await, &world, &format!("{what}, flushed and started again"))
            .await;
        let elsewhere = tempfile::tempdir().unwrap();
        let elsewhere = open(elsewhere.path(), stores.remote.clone()).await;
        check(&elsewhere, &world, &format!("{what}, the disk is gone")).await;
    }
}

/// All moments of sealing and of a flush, samples coming in while they run, and what was written: `local` or
/// `remote`, and the path.
async fn moments() -> (Vec<Moment>, Vec<String>) {
    let (stores, mut world) = begun().await.again();
    let stores = Arc::new(stores);
    let db = stores.open().await;
    write(&db, &mut world, 30).await;
    let begin = stores.moment("before sealing".into(), &world);
    let seen = Arc::new(Mutex::new((world, vec![begin], Vec::new())));
    for (name, store) in [("local", &stores.local), ("remote", &stores.remote)] {
        let (seen, stores, writer) = (seen.clone(), stores.clone(), db.clone());
        store.script(move |_, path| {
            let mut seen = seen.lock().unwrap();
            let (world, moments, paths) = &mut *seen;
            let what = format!("before PUT {} of {name} {path}", moments.len());
            moments.push(stores.moment(what, world));
            paths.push(format!("{name} {path}"));
            let n = 100 + moments.len() as i64;
            tokio::task::block_in_place(|| Handle::current().block_on(write(&writer, world, n)));
            Fault::None
        });
    }
    for step in ["sealing", "the flush"] {
        // On a thread of the runtime's own: the scripts wait for writes on the thread that calls them, and
        // would take from this one what wakes it.
        let db = db.clone();
        let done = tokio::spawn(async move {
            match step {
                "sealing" => db.seal().await,
                _ => db.flush().await.map(drop),
            }
        });
        done.await.unwrap().unwrap();
        let mut seen = seen.lock().unwrap();
        let end = stores.moment(format!("after {step}"), &seen.0);
        seen.1.push(end);
    }
    // The scripts hold the Db, which holds the stores, which hold the scripts.
    stores.calm();
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    check(&db, &seen.0, "after the flush").await;
    (seen.1, seen.2)
}

/// What lies between two moments: files of the later one that were not finished, files of the earlier one
/// that were not all removed.
fn between(earlier: &Moment, later: &Moment) -> Vec<Moment> {
    let mut all = Vec::new();
    let mut add = |what: String, folder: Files| {
        all.push(Moment { what, folder, objects: later.objects.fork(), world: later.world.clone() });
    };
    for (path, bytes) in later.folder.iter().filter(|(p, _)| !earlier.folder.contains_key(*p)) {
        let len = bytes.len();
        let half = |kept: usize| format!("{}, {} has {kept} of {len} bytes", later.what, path.display());
        if path.starts_with("sealed") {
            // It is written beside its place, and renamed when it is durable.
            let mut folder = later.folder.clone();
            folder.remove(path);
            folder.insert(PathBuf::from(format!("{}#1", path.display())), bytes[..len / 2].to_vec());
            if !path.starts_with("sealed/seals") {
                add(half(len / 2), folder);
            }
        } else if path.starts_with("log") && len <= HEADER_BYTES {
            // A segment that has records was fsynced before they were acknowledged.
            for kept in [0, len / 2, len - 1] {
                let mut folder = later.folder.clone();
                folder.get_mut(path).unwrap().truncate(kept);
                add(half(kept), folder);
            }
            let mut folder = later.folder.clone();
            folder.remove(path);
            add(format!("{}, {} is not there yet", later.what, path.display()), folder);
        }
    }
    // Nobody reads the scratch folder after a crash, whatever is in it.
    let scratch = |p: &&PathBuf| p.starts_with("scratch") && !earlier.folder.contains_key(*p);
    if later.folder.keys().any(|p| scratch(&p)) {
        let mut folder = later.folder.clone();
        folder.iter_mut().filter(|(p, _)| scratch(p)).for_each(|(_, bytes)| bytes.truncate(bytes.len() / 2));
        add(format!("{}, halves in scratch/", later.what), folder);
    }
    let gone: Vec<&PathBuf> = earlier.folder.keys().filter(|p| !later.folder.contains_key(*p)).collect();
    for n in 0..gone.len() {
        let mut folder = earlier.folder.clone();
        folder.extend(later.folder.clone());
        gone[..n].iter().for_each(|p| _ = folder.remove(*p));
        add(format!("{}, {n} of {gone:?} are removed", earlier.what), folder);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn flush_or_sealing_may_die_with_the_process_at_any_moment() {
    let (moments, paths) = moments().await;
    let written = |parts: &[&str]| paths.iter().filter(|p| parts.iter().all(|part| p.contains(part))).count();
    let block = ["series.parquet", "timelines.parquet", "samples.parquet", "meta.json"];
    for tenant in ["/a/", "/b/"] {
        for part in block.iter().chain(&["metadata/", "exemplars/"]) {
            assert!(
                written(&["local", tenant, part]) >= 2,
                "{part} of {tenant} in both sealed generations: {paths:?}"
            );
            assert!(written(&["remote", tenant, part]) >= 1, "{part} of {tenant}: {paths:?}");
        }
        // Metadata, the blocks, and the exemplars of a day that is over in one file.
        assert!(written(&["remote", tenant, "catalog/"]) >= 3, "commits of {tenant}: {paths:?}");
    }
    assert_eq!(written(&["local seals/"]), 2, "{paths:?}");
    let within: Vec<Moment> = moments.windows(2).flat_map(|pair| between(&pair[0], &pair[1])).collect();
    let of = |what: &str| within.iter().filter(|m| m.what.contains(what)).count();
    let seen = ["scratch/", ", log/", "of [\"log/", "\"sealed/"].map(of);
    assert!(
        seen[0] >= 4 && seen[1] >= 4 && seen[2] >= 2 && seen[3] >= 10,
        "the folder is seen changing: {seen:?}"
    );
    side_by_side(moments.into_iter().chain(within).map(Moment::revive)).await;
}

/// A flush for each of its writes to one of the stores that meets the fault, alone or with all that follow,
/// and then goes on or dies; how many of them failed.
async fn fails_at_each_write(
    begun: Arc<Moment>,
    local: bool,
    fault: Fault,
    for_ever: bool,
    dies: bool,
) -> u64 {
    let mut failed = 0;
    for step in 0.. {
        let (stores, mut world) = begun.again();
        let store = if local { &stores.local } else { &stores.remote };
        let mut db = stores.open().await;
        let begin = store.puts.load(Ordering::Relaxed);
        store.script(move |n, _| {
            let met = n - begin == step || (for_ever && n - begin > step);
            if met { fault } else { Fault::None }
        });
        let flushed = db.flush().await;
        let was_last = store.puts.load(Ordering::Relaxed) - begin <= step;
        failed += u64::from(flushed.is_err());
        let what =
            format!("{fault:?} at {step}, local {local}, for ever {for_ever}, dies {dies}: {flushed:?}");
        check(&db, &world, &what).await;
        write(&db, &mut world, 40).await;
        stores.calm();
        if dies {
            drop(db);
            db = stores.open().await;
        }
        check(&db, &world, &what).await;
        db.flush().await.unwrap();
        check(&db, &world, &what).await;
        stored_once(&db, &world, &what).await;
        drop(db);
        check(&stores.open().await, &world, &format!("{what}, started again")).await;
        if was_last {
            break;
        }
    }
    failed
}

#[tokio::test(flavor = "multi_thread")]
async fn flush_whose_writes_fail_one_by_one_or_all_from_one_on_loses_and_doubles_nothing() {
    let begun = Arc::new(begun().await);
    let mut all = tokio::task::JoinSet::new();
    // `local_blocks.rs` has every kind of fault for floats; here is all that a request can bring.
    for (local, fault, for_ever, dies) in [
        (true, Fault::Refused, true, true),
        (false, Fault::Refused, false, false),
        (false, Fault::AnswerLost, false, false),
        (false, Fault::AnswerLost, true, true),
    ] {
        all.spawn(fails_at_each_write(begun.clone(), local, fault, for_ever, dies));
    }
    let failed: u64 = all.join_all().await.into_iter().sum();
    assert!(failed >= 45, "only {failed} flushes failed");
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

const OBSTACLES: [Obstacle; 4] = [
    Obstacle {
        what: "a manifest of local blocks cannot be written",
        at: |dir, _| dir.join("sealed/seals"),
        is_folder: false,
        fails: true,
    },
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
async fn folder_that_fails_a_flush_loses_and_doubles_nothing() {
    let begun = begun().await;
    for obstacle in OBSTACLES {
        for dies in [false, true] {
            let (stores, mut world) = begun.again();
            let dir = stores.dir.path();
            let mut db = stores.open().await;
            write(&db, &mut world, 30).await;
            let segments = || tsdb::wal::segments(&dir.join("log")).unwrap();
            let before = segments().len();
            let at = (obstacle.at)(dir, segments()[before - 1]);
            // What is there already is put back afterwards.
            let (aside, stood) = (dir.join("aside"), at.exists());
            if stood {
                fs::rename(&at, &aside).unwrap();
            }
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
            if stood {
                fs::rename(&aside, &at).unwrap();
            }
            if dies {
                drop(db);
                db = stores.open().await;
                check(&db, &world, obstacle.what).await;
            }
            db.flush().await.unwrap();
            check(&db, &world, obstacle.what).await;
            stored_once(&db, &world, obstacle.what).await;
            assert!(segments().len() <= 2, "{}: {:?} are left", obstacle.what, segments());
            drop(db);
            check(&stores.open().await, &world, obstacle.what).await;
        }
    }
}
