//! Damaged files of local blocks: what the log still has is there all the same, and what it has not costs
//! only itself.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use object_store::memory::InMemory;
use tsdb::db::Db;

use crate::held::{self, Files};
use crate::stores::{Stores, World, check, side_by_side, tenants, write};

/// Two sealed generations and something after them: the folder, with the segments of the log that were sealed
/// where `with_log`; what each generation and the rest hold.
async fn two_sealed(with_log: bool) -> (Files, [World; 3]) {
    let stores = Stores::of(&Files::new(), InMemory::new());
    let db = stores.open().await;
    let (mut all, mut parts) = (Files::new(), Vec::new());
    for n in 0..3 {
        let mut part = World::default();
        write(&db, &mut part, 2 * n).await;
        write(&db, &mut part, 2 * n + 1).await;
        parts.push(part);
        all.extend(held::files(stores.dir.path()).into_iter().filter(|(p, _)| p.starts_with("log")));
        if n < 2 {
            db.seal().await.unwrap();
        }
    }
    drop(db);
    if !with_log {
        all.clear();
    }
    all.extend(held::files(stores.dir.path()));
    (all, parts.try_into().unwrap_or_else(|_| unreachable!("three")))
}

fn whole(parts: &[World; 3]) -> World {
    let mut world = World::default();
    parts.iter().for_each(|part| world.iter_mut().zip(part).for_each(|(all, of)| all.add(of)));
    world
}

/// The folder with one local file of a tenant damaged, once for each file and way: ways that show without
/// reading a file whole; a manifest is read. With the file's name and the way.
fn damaged(files: &Files) -> Vec<(String, Files)> {
    let mut all = Vec::new();
    let of_one = |p: &Path| p.starts_with("sealed/tenants/a") || p.starts_with("sealed/seals");
    for (path, bytes) in files.iter().filter(|(p, _)| of_one(p)) {
        let mut add = |way: &str, bytes: Option<Vec<u8>>| {
            let mut files = files.clone();
            match bytes {
                Some(bytes) => _ = files.insert(path.clone(), bytes),
                None => _ = files.remove(path),
            }
            all.push((format!("{} {way}", path.display()), files));
        };
        add("half", Some(bytes[..bytes.len() / 2].to_vec()));
        if path.starts_with("sealed/seals") {
            // One that is gone is not damaged: it was never there.
            add("flipped", Some(bytes.iter().enumerate().map(|(i, b)| b ^ u8::from(i == 40)).collect()));
        } else {
            add("gone", None);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn local_block_that_is_damaged_and_still_in_the_log_is_not_lost() {
    let (files, parts) = two_sealed(true).await;
    let (whole, all) = (whole(&parts), damaged(&files));
    assert!(all.len() >= 2 * 2 * (1 + 6), "{} files", all.len());
    side_by_side(all.into_iter().map(|(what, files)| {
        let mut world = whole.clone();
        async move {
            let stores = Stores::of(&files, InMemory::new());
            for again in 0..2 {
                let db = stores.open().await;
                check(&db, &world, &format!("{what}, start {again}")).await;
                write(&db, &mut world, 50 + again).await;
            }
            let db = stores.open().await;
            db.flush().await.unwrap();
            check(&db, &world, &format!("{what}, flushed")).await;
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local_block_that_is_damaged_and_the_only_copy_costs_itself_and_nothing_that_comes_after() {
    let (files, parts) = two_sealed(false).await;
    let parts = Arc::new(parts);
    side_by_side(damaged(&files).into_iter().map(|(name, files)| {
        let parts = parts.clone();
        async move {
            let stores = Stores::of(&files, InMemory::new());
            let mut after = World::default();
            for again in 0..2 {
                let what = format!("{name}, start {again}");
                let db = stores.open().await;
                // Each part is there as a whole or, of a tenant whose file it was, not at all.
                let mut lost = 0;
                for (at, (tenant, _)) in tenants().iter().enumerate() {
                    let read = held::read(&db, tenant).await;
                    for (n, part) in parts.iter().enumerate() {
                        let there = read.has(&part[at]);
                        let of_tenant = name.contains("/seals/") || name.contains(&format!("/{tenant}/"));
                        let fits = there == Some(true) || (n < 2 && of_tenant && there == Some(false));
                        assert!(fits, "{what}: part {n} of {tenant}: {there:?}");
                        lost += usize::from(there == Some(false));
                    }
                    assert_eq!(read.has(&after[at]), Some(true), "{what}: what came after");
                }
                let block = name.contains("/blocks/") && !name.contains("meta.json");
                assert_eq!(lost > 0, block || name.contains("/seals/"), "{what}: {lost} parts lost");
                write(&db, &mut after, 50 + 10 * again).await;
                db.seal().await.unwrap();
                write(&db, &mut after, 55 + 10 * again).await;
            }
            stores.open().await.flush().await.unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifest_that_can_be_read_again_takes_no_segment_that_was_written_meanwhile() {
    let (files, parts) = two_sealed(false).await;
    let mut world = whole(&parts);
    let stores = Stores::of(&files, InMemory::new());
    let newest = files.keys().rfind(|p| p.starts_with("sealed/seals")).unwrap();
    let at = stores.dir.path().join(newest);
    // Damaged, and so is what the log had left: the numbers of its segments must not be given out again.
    std::fs::write(&at, b"damaged").unwrap();
    for path in files.keys().filter(|p| p.starts_with("log")) {
        std::fs::remove_file(stores.dir.path().join(path)).unwrap();
    }
    world.iter_mut().zip(&parts[2]).for_each(|(all, part)| all.remove(part));
    for n in 0..3 {
        write(&stores.open().await, &mut world, 50 + n).await;
    }
    std::fs::write(&at, &files[newest]).unwrap();
    check(&stores.open().await, &world, "it is back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_that_cannot_be_read_for_the_moment_refuses_to_start_and_loses_nothing() {
    let (files, parts) = two_sealed(false).await;
    let stores = Stores::of(&files, InMemory::new());
    // Every request but the list fails, one by one and all.
    for every in [1, 2, 3, 5] {
        stores.local.failing_gets.store(every, Ordering::Relaxed);
        let refused = Db::open(stores.options()).await.err().expect("it cannot know what it has").to_string();
        assert!(refused.contains("cannot read the local blocks"), "{refused}");
    }
    stores.local.failing_gets.store(0, Ordering::Relaxed);
    check(&stores.open().await, &whole(&parts), "read again").await;
}
