//! Blocks from elsewhere are committed once, whenever the run that brings them dies.

use std::path::Path;
use std::sync::Arc;

use model::labels::Labels;
use model::source::{LabelQuery, SeriesColumns, Source};
use model::tenant::TenantId;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tsdb::block::{BlockFiles, BlockOrigin, WriteOptions, write_block};
use tsdb::bucket::import_journal::ImportJournal;
use tsdb::catalog::{Catalog, CatalogOptions, Commits, Edit};
use tsdb::layout;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn open(runtime: &tokio::runtime::Runtime, store: &Arc<dyn ObjectStore>, scratch: &Path) -> ImportJournal {
    let opening =
        ImportJournal::open(store.clone(), TenantId::single(), "import", scratch, &Commits::Conditional);
    runtime.block_on(opening).unwrap()
}

fn block(scratch: &Path, origin: BlockOrigin) -> BlockFiles {
    let series = SeriesColumns {
        labels: Labels::from_pairs([("__name__", "up")]),
        ts_ms: Arc::from([1i64, 2, 3]),
        values: vec![1.0, 0.0, 1.0],
        histograms: None,
        start_ts_ms: None,
        windows: None,
    };
    write_block(scratch, origin, WriteOptions::fresh(), [Ok(series)]).unwrap().unwrap()
}

fn live(runtime: &tokio::runtime::Runtime, store: &Arc<dyn ObjectStore>) -> Vec<tsdb::block::BlockMeta> {
    let opening = Catalog::open(store.clone(), TenantId::single(), "test", CatalogOptions::default());
    let snapshot = runtime.block_on(opening).unwrap().snapshot();
    snapshot.blocks.iter().map(|b| (**b).clone()).collect()
}

#[test]
fn import_unit_is_committed_once_wherever_a_run_dies() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let scratch = tempfile::tempdir().unwrap();
    let scratch = scratch.path();

    // Dies after it began; after it uploaded. Neither is visible, and the next run begins again.
    let first = open(&runtime, &store, scratch);
    assert!(!first.is_done(KEY).unwrap());
    first.begin(KEY).unwrap();
    drop(first);
    let second = open(&runtime, &store, scratch);
    assert!(!second.is_done(KEY).unwrap());
    let files = block(scratch, second.begin(KEY).unwrap());
    let written = second.upload(&files).unwrap();
    let query = LabelQuery {
        selectors: Vec::new(),
        min_t_ms: 0,
        max_t_ms: 10,
        budget: model::source::Budget::unlimited(),
    };
    assert_eq!(
        written.series(&query).unwrap().len(),
        1,
        "what was uploaded can be read before it is committed"
    );
    assert_eq!(live(&runtime, &store).len(), 0);
    drop(second);

    // Dies after the commit, before the journal says so.
    let third = open(&runtime, &store, scratch);
    assert!(!third.is_done(KEY).unwrap());
    let files = block(scratch, third.begin(KEY).unwrap());
    third.upload(&files).unwrap();
    third.commit(KEY, &files.meta, &"about").unwrap();
    let done = layout::import_done(&TenantId::single(), KEY);
    runtime.block_on(store.delete(&done)).unwrap();
    assert!(third.is_done(KEY).unwrap(), "this run knows");
    drop(third);
    let fourth = open(&runtime, &store, scratch);
    assert!(fourth.is_done(KEY).unwrap(), "the catalog knows");
    assert_eq!(live(&runtime, &store).len(), 1);
    runtime.block_on(store.get(&done)).expect("it is written down now");

    // The same where compaction has taken the block in the meantime.
    runtime.block_on(store.delete(&done)).unwrap();
    let mut origin = BlockOrigin::flushed(ulid::Ulid::new(), TenantId::single(), "compactor");
    (origin.level, origin.sources) = (1, vec![files.meta.ulid]);
    let compacted = block(scratch, origin);
    let fifth = open(&runtime, &store, scratch);
    fifth.upload(&compacted).unwrap();
    let catalog = Catalog::open(store.clone(), TenantId::single(), "compactor", CatalogOptions::default());
    let catalog = runtime.block_on(catalog).unwrap();
    let replace = Edit::replace(vec![files.meta.ulid], vec![compacted.meta.clone()]);
    runtime.block_on(catalog.commit(&replace)).unwrap();
    assert!(open(&runtime, &store, scratch).is_done(KEY).unwrap());

    // Deleted by retention: that it was imported stays known.
    runtime.block_on(catalog.commit(&Edit::replace(vec![compacted.meta.ulid], Vec::new()))).unwrap();
    assert!(open(&runtime, &store, scratch).is_done(KEY).unwrap());
    assert_eq!(live(&runtime, &store).len(), 0);
}

#[test]
fn import_counts_as_written_last() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let scratch = tempfile::tempdir().unwrap();
    let scratch = scratch.path();
    // A block from a clock that is ahead.
    let ahead = ulid::Ulid::from_parts(u64::MAX >> 17, 1);
    let native = block(scratch, BlockOrigin::flushed(ahead, TenantId::single(), "ingester"));
    let journal = open(&runtime, &store, scratch);
    journal.upload(&native).unwrap();
    journal.commit("native", &native.meta, &"").unwrap();
    let imported = journal.begin(KEY).unwrap();
    assert!(imported.ulid > ahead);
    journal.nothing(KEY, &"").unwrap();
    assert!(journal.is_done(KEY).unwrap());
    assert_eq!(live(&runtime, &store).len(), 1);
}
