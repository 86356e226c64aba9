//! What compaction does about a bucket in which something is gone: it says so, and destroys nothing of what
//! is left.

mod bucket;

use std::sync::Arc;

use bucket::{Seen, catalog, compactor, floats, late_clock, points, put_block, read, settings};
use futures::TryStreamExt;
use model::clock::ManualClock;
use model::tenant::TenantId;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tsdb::layout;

const T0: i64 = 1_767_225_600_000;

/// Two blocks of an hour.
async fn two_blocks(store: &Arc<dyn ObjectStore>) -> Seen {
    let scratch = tempfile::tempdir().unwrap();
    let mut seen = Seen::new();
    for n in 0..2 {
        let times = (1..=60).map(|i| T0 + n * 3_600_000 + i * 60_000);
        let series = floats(&[("__name__", "up")], times.map(|t| (t, t as f64)));
        seen.entry(series.labels.clone()).or_default().extend(points(&series));
        put_block(store, scratch.path(), n as u64 + 1, vec![series]).await.unwrap();
    }
    seen
}

async fn objects(store: &Arc<dyn ObjectStore>, folder: &Path) -> Vec<Path> {
    let listed: Vec<_> = store.list(Some(folder)).try_collect().await.unwrap();
    let mut paths: Vec<Path> = listed.into_iter().map(|o: object_store::ObjectMeta| o.location).collect();
    paths.sort();
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn block_whose_file_is_gone_is_put_aside_until_it_is_back() {
    for name in [layout::META, layout::SERIES, layout::TIMELINES, layout::SAMPLES] {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let seen = two_blocks(&store).await;
        let scratch = tempfile::tempdir().unwrap();
        // Before the end of their span: nothing reads them yet.
        let worker = compactor(&store, settings(scratch.path()), "c", &ManualClock::at(T0 + 2 * 3_600_000));
        let block = catalog(&store, "reader").await.snapshot().blocks[0].ulid;
        let path = layout::block_file(&TenantId::single(), block, name);
        let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
        let quarantined = async || {
            let round = worker.round().await;
            assert_eq!(round.errors, Vec::<String>::new(), "{name}");
            catalog(&store, "reader").await.snapshot().quarantined.clone()
        };
        assert!(quarantined().await.is_empty(), "{name}");
        store.delete(&path).await.unwrap();
        let aside = quarantined().await;
        assert!(aside[&block].reason.contains(path.as_ref()), "{name}: {aside:?}");
        assert_eq!(quarantined().await, aside, "{name} is still gone");
        // Half of it is not it.
        store.put(&path, bytes.slice(..bytes.len() / 2).into()).await.unwrap();
        assert_eq!(quarantined().await, aside, "{name} is a half of it");
        store.put(&path, bytes.into()).await.unwrap();
        assert!(quarantined().await.is_empty(), "{name} is back");
        assert_eq!(read(&store).await.unwrap(), seen);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_left_where_the_catalog_is_gone() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let seen = two_blocks(&store).await;
    let tenant = TenantId::single();
    let mut snapshots = Vec::new();
    for path in objects(&store, &layout::catalog(&tenant)).await {
        let text = store.get(&path).await.unwrap().bytes().await.unwrap();
        store.delete(&path).await.unwrap();
        snapshots.push((path, text));
    }
    let blocks = objects(&store, &layout::blocks(&tenant)).await;
    let scratch = tempfile::tempdir().unwrap();
    let round = compactor(&store, settings(scratch.path()), "c", &late_clock()).round().await;
    assert!(round.errors.len() == 1 && round.errors[0].contains("no catalog"), "{:?}", round.errors);
    assert_eq!(objects(&store, &layout::blocks(&tenant)).await, blocks);
    for (path, text) in snapshots {
        store.put(&path, text.into()).await.unwrap();
    }
    let round = compactor(&store, settings(scratch.path()), "c", &late_clock()).round().await;
    assert_eq!(round.errors, Vec::<String>::new());
    assert_eq!(read(&store).await.unwrap(), seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_left_where_the_newest_snapshot_is_gone_or_another() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let seen = two_blocks(&store).await;
    let tenant = TenantId::single();
    let scratch = tempfile::tempdir().unwrap();
    let round = async || compactor(&store, settings(scratch.path()), "c", &late_clock()).round().await;
    assert_eq!(round().await.errors, Vec::<String>::new());
    let newest = objects(&store, &layout::catalog(&tenant)).await.pop().unwrap();
    let text = store.get(&newest).await.unwrap().bytes().await.unwrap();
    store.delete(&newest).await.unwrap();
    let blocks = objects(&store, &layout::blocks(&tenant)).await;
    for (n, step) in [(8, "gone"), (9, "another"), (10, "followed")] {
        if step != "gone" {
            put_block(&store, scratch.path(), n, vec![floats(&[("a", step)], [(T0, 1.0)])]).await;
        }
        let errors = round().await.errors;
        assert!(errors.len() == 1 && errors[0].contains("not the one it was"), "{step}: {errors:?}");
        let there = objects(&store, &layout::blocks(&tenant)).await;
        assert!(blocks.iter().all(|b| there.contains(b)), "{step}");
        if step == "gone" {
            // Restored as it was, all is well.
            store.put(&newest, text.clone().into()).await.unwrap();
            assert_eq!(round().await.errors, Vec::<String>::new());
            assert_eq!(read(&store).await.unwrap(), seen);
            store.delete(&newest).await.unwrap();
        }
    }
}
