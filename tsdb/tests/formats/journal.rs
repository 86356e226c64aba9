//! The journal of imports: `import-journal.md`.

use std::sync::Arc;

use model::tenant::TenantId;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tsdb::block::BlockMeta;
use tsdb::bucket::import_journal::ImportJournal;
use tsdb::catalog::Commits;
use tsdb::layout;

use super::page::{example, examples};

#[test]
fn journal_entries_are_as_documented() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let tenant = TenantId::single();
    let scratch = tempfile::tempdir().unwrap();
    let open = || {
        let opened = ImportJournal::open(
            store.clone(),
            tenant.clone(),
            "import",
            scratch.path(),
            &Commits::Conditional,
        );
        runtime.block_on(opened).unwrap()
    };
    let text = |path| {
        let bytes = runtime.block_on(async { store.get(&path).await?.bytes().await }).unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    };
    let key = example("import-journal.md", "text import-key");
    assert_eq!(key, format!("{:032x}", xxhash_rust::xxh3::xxh3_128(b"prometheus:x\n1..=43200000")));
    let first = open();
    let origin = first.begin(&key).unwrap();
    assert_eq!(text(layout::import_begun(&tenant, &key, origin.ulid)), "{}\n");
    // Begun and not committed: a later run imports it again.
    assert!(!open().is_done(&key).unwrap());
    let meta = BlockMeta::from_json("page", examples("block.md", "json meta")[0].as_bytes()).unwrap();
    let about = serde_json::json!({ "source": "prometheus:x", "samples": 960 });
    first.commit(&key, &meta, &about).unwrap();
    let done = text(layout::import_done(&tenant, &key));
    assert_eq!(done, format!("{}\n", example("import-journal.md", "json import-done")));
    assert!(open().is_done(&key).unwrap());
}
