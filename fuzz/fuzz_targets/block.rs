//! Changed bytes in a block whose checksums are right all the same: what another program wrote as Parquet is an error, or samples.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
use tsdb::block::upload::upload;
use tsdb::block::{BlockMeta, BlockOrigin, BlockReader, ReadOptions, WriteOptions, write_block};
use tsdb::labels::Labels;
use tsdb::mask::Mask;
use tsdb::source::SeriesColumns;
use tsdb::tenant::TenantId;

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime"));

/// A block of a few series, its files with their paths in the store.
static WHOLE: LazyLock<(BlockMeta, Vec<(object_store::path::Path, Vec<u8>)>)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let origin = BlockOrigin::flushed(ulid::Ulid::from_parts(1_700_000_000_000, 1), TenantId::single(), "fuzz");
    let series = (0..5).map(|n| {
        let ts_ms: Vec<i64> = (0..50).map(|i| i * 15_000).collect();
        Ok(SeriesColumns {
            labels: Labels::from_pairs([("__name__", "m"), ("n", ["a", "b", "c", "d", "e"][n])]),
            values: (0..50).map(|i| (i * n) as f64 / 8.0).collect(),
            ts_ms: ts_ms.into(),
            histograms: None,
            start_ts_ms: None,
            windows: None,
        })
    });
    let files = write_block(folder.path(), origin, WriteOptions::fresh(), series).expect("it writes").expect("a block");
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    RUNTIME.block_on(async {
        upload(&*store, &files).await.expect("it uploads");
        let mut all = Vec::new();
        for one in store.list_with_delimiter(None).await.expect("it lists").common_prefixes {
            use futures::TryStreamExt;
            let found: Vec<_> = store.list(Some(&one)).try_collect().await.expect("it lists");
            for object in found.into_iter().filter(|o| o.location.as_ref().ends_with(".parquet")) {
                let bytes = store.get(&object.location).await.expect("it is there").bytes().await.expect("it reads");
                all.push((object.location, bytes.to_vec()));
            }
        }
        (files.meta.clone(), all)
    })
});

fuzz_target!(init: {
    // The decoder's own panics are made errors: only what gets past that ends the run, as it leaves the target.
    std::panic::set_hook(Box::new(|_| {}));
}, |edits: &[u8]| {
    let (meta, files) = &*WHOLE;
    let mut meta = meta.clone();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for (path, bytes) in files {
        let mut bytes = bytes.clone();
        let file = match path.filename() {
            Some("series.parquet") => (0, &mut meta.files.series),
            Some("timelines.parquet") => (1, &mut meta.files.timelines),
            _ => (2, &mut meta.files.samples),
        };
        // Four bytes an edit: which file, where from its tail's start, and what is put there.
        let tail = bytes.len() - file.1.tail_bytes as usize;
        for edit in edits.chunks_exact(4).filter(|e| e[0] % 3 == file.0) {
            let at = tail + usize::from(u16::from_le_bytes([edit[1], edit[2]])) % (bytes.len() - tail);
            bytes[at] = edit[3];
        }
        file.1.tail_crc32 = crc32fast::hash(&bytes[tail..]);
        RUNTIME.block_on(store.put(path, bytes.into())).expect("it is put");
    }
    let blocks = tsdb::bucket::BlockStore::new(store, RUNTIME.handle().clone(), 1 << 20);
    let options = ReadOptions { attempts: 1, ..ReadOptions::default() };
    let Ok(mut reader) = BlockReader::open(&blocks, &TenantId::single(), &Arc::new(meta), &Mask::default(), options) else {
        return;
    };
    let mut next = 0;
    while let Ok(Some(labels)) = reader.next_labels() {
        for _ in labels {
            let Ok(_) = reader.series(next) else { return };
            next += 1;
        }
    }
});
