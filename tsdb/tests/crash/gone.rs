//! What was in a data folder or a bucket and is gone at the start is reported, and nothing that is left of it
//! is removed.

use std::path::Path;
use std::sync::Arc;

use model::tenant::TenantId;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tsdb::db::{Db, DbOptions};
use tsdb::wal::segment_path;

use crate::held::{self, Brings, Contents};

/// One request of floats.
async fn write(db: &Arc<Db>, held: &mut Contents, n: i64) {
    held::write(db, &TenantId::single(), held, n, &[Brings::Floats]).await;
}

async fn read(db: &Arc<Db>) -> Contents {
    held::read(db, &TenantId::single()).await
}

/// Three sessions of a request each, in segments 1, 2 and 3; what each wrote.
async fn three_sessions(options: &DbOptions) -> Vec<Contents> {
    let mut all = Vec::new();
    for n in 0..3 {
        let mut held = Contents::default();
        let db = held::open(options.clone()).await;
        assert_eq!(db.counts().missing_segments, 0);
        write(&db, &mut held, n).await;
        all.push(held);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn log_segment_that_is_gone_is_counted_wherever_it_was() {
    for gone in 1..=3u64 {
        let dir = tempfile::tempdir().unwrap();
        let options = held::options(dir.path(), Arc::new(InMemory::new()));
        let sessions = three_sessions(&options).await;
        std::fs::remove_file(segment_path(&dir.path().join("log"), gone)).unwrap();
        let db = held::open(options.clone()).await;
        assert_eq!(db.counts().missing_segments, 1, "segment {gone}");
        let mut left = Contents::default();
        for (n, held) in sessions.iter().enumerate().filter(|(n, _)| *n as u64 + 1 != gone) {
            assert!(n < 3);
            left.add(held);
        }
        assert_eq!(read(&db).await, left, "segment {gone}");
        drop(db);
        let db = held::open(options).await;
        assert_eq!(db.counts().missing_segments, 0, "it is reported once, segment {gone}");
    }
}

fn blocks_below(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .map(|entry| entry.unwrap().path())
        .map(
            |path| if path.is_dir() { blocks_below(&path) } else { usize::from(path.ends_with("meta.json")) },
        )
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn local_block_whose_manifest_is_gone_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let options = held::options(dir.path(), Arc::new(InMemory::new()));
    let (mut first, mut second) = (Contents::default(), Contents::default());
    let db = held::open(options.clone()).await;
    write(&db, &mut first, 0).await;
    db.seal().await.unwrap();
    write(&db, &mut second, 1).await;
    drop(db);
    let manifests = dir.path().join("sealed/seals");
    for entry in std::fs::read_dir(&manifests).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for _ in 0..3 {
        let db = held::open(options.clone()).await;
        assert_eq!(read(&db).await, second);
        db.flush().await.unwrap();
    }
    assert_eq!(blocks_below(&dir.path().join("orphans")), 1, "its files are all that is left of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn catalog_that_is_older_than_the_folder_has_seen_is_refused() {
    use futures::StreamExt;
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let options = held::options(dir.path(), store.clone());
    let mut held = Contents::default();
    let db = held::open(options.clone()).await;
    for n in 0..2 {
        write(&db, &mut held, n).await;
        db.flush().await.unwrap();
    }
    drop(db);
    let mut objects = store.list(None).map(|o| o.unwrap().location).collect::<Vec<_>>().await;
    objects.retain(|path| path.as_ref().contains("catalog"));
    objects.sort();
    let newest = objects.last().expect("there are snapshots").clone();
    let text = store.get(&newest).await.unwrap().bytes().await.unwrap();
    store.delete(&newest).await.unwrap();
    // The process before may be letting go of the folder yet.
    let refused = loop {
        match Db::open(options.clone()).await {
            Err(e) if e.to_string().contains("in use by another") => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await
            }
            Err(e) => break e.to_string(),
            Ok(_) => panic!("it goes on with a catalog that lost its newest snapshot"),
        }
    };
    assert!(refused.contains("older than it was") && refused.contains("progress.json"), "{refused}");
    store.put(&newest, text.into()).await.unwrap();
    let db = held::open(options.clone()).await;
    assert_eq!(read(&db).await, held);
    drop(db);
    store.delete(&newest).await.unwrap();
    std::fs::remove_file(dir.path().join("progress.json")).unwrap();
    held::open(options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifest_of_local_blocks_that_arrives_cut_off_is_read_again() {
    use std::sync::atomic::Ordering;
    let dir = tempfile::tempdir().unwrap();
    let local = Arc::new(crate::faulty_store::FaultyStore::default());
    let local_store: Option<Arc<dyn ObjectStore>> = Some(local.clone());
    let options = DbOptions { local_store, ..held::options(dir.path(), Arc::new(InMemory::new())) };
    let mut held = Contents::default();
    let db = held::open(options.clone()).await;
    write(&db, &mut held, 0).await;
    db.seal().await.unwrap();
    drop(db);
    local.short_gets.store(2, Ordering::Relaxed);
    let db = held::open(options).await;
    assert_eq!(local.short_gets.load(Ordering::Relaxed), 0);
    assert_eq!(db.counts().damaged_local_blocks, 0);
    assert_eq!(read(&db).await, held);
}
