//! Changed bytes in a block whose checksums are right all the same: what another program wrote as Parquet is
//! an error, or samples.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use model::histogram::{BucketSpan, Histogram};
use model::labels::Labels;
use model::matcher::Matcher;
use model::source::{Budget, Hints, Selection, SeriesColumns, Source};
use model::tenant::TenantId;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
use tsdb::block::checksums::CRC_BLOCK_BYTES;
use tsdb::block::upload::upload;
use tsdb::block::{BlockMeta, BlockOrigin, BlockReader, ReadOptions, WriteOptions, write_block};
use tsdb::bucket::BucketSource;
use tsdb::deletion::Visibility;

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
});

/// Series of every kind of column: whole numbers, decimals, doubles of all kinds, what never changes,
/// exceptions, histograms, start timestamps.
fn series(n: usize) -> SeriesColumns {
    let value = |i: usize| match n {
        _ if i == 7 && n % 2 == 1 => f64::INFINITY,
        0 => 7.5,
        1 => (i * i * 31) as f64 / 100.0,
        2 => (i.wrapping_mul(2_654_435_761) % 1_000_003) as f64,
        3 => (i as f64 + 0.5).sqrt(),
        4 => ((i % 3) as f64).exp(),
        _ => (i / 9) as f64,
    };
    let histogram = |i: usize| {
        let spans = vec![BucketSpan { offset: 1, length: 2 }];
        let buckets = vec![i as f64, 2.0];
        Histogram {
            count: i as f64 + 2.0,
            sum: 0.5,
            positive_spans: spans,
            positive_buckets: buckets,
            ..Histogram::default()
        }
    };
    let of_histograms = n == 6;
    SeriesColumns {
        labels: Labels::from_pairs([
            ("__name__", ["a", "b", "c"][n / 3]),
            ("n", ["0", "1", "2", "3", "4", "5", "6"][n]),
        ]),
        ts_ms: (0..60).map(|i| i * 15_000 + (n as i64 % 2) * i % 7).collect(),
        values: (0..60).map(|i| if of_histograms { histogram(i).sum } else { value(i) }).collect(),
        histograms: of_histograms.then(|| (0..60).map(|i| Some(Arc::new(histogram(i)))).collect()),
        start_ts_ms: (n == 2).then(|| (0..60).map(|i| i / 20 * 300_000 + 1).collect()),
        windows: None,
    }
}

/// A block of a few series, its files with their paths in the store.
static WHOLE: LazyLock<(BlockMeta, Vec<(object_store::path::Path, Vec<u8>)>)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let origin =
        BlockOrigin::flushed(ulid::Ulid::from_parts(1_700_000_000_000, 1), TenantId::single(), "fuzz");
    let options = WriteOptions { row_samples: 25, values_per_page: 64, ..WriteOptions::fresh() };
    let files = write_block(folder.path(), origin, options, (0..7).map(series).map(Ok))
        .expect("it writes")
        .expect("a block");
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    RUNTIME.block_on(async {
        upload(&*store, &files).await.expect("it uploads");
        let mut all = Vec::new();
        for one in store.list_with_delimiter(None).await.expect("it lists").common_prefixes {
            use futures::TryStreamExt;
            let found: Vec<_> = store.list(Some(&one)).try_collect().await.expect("it lists");
            for object in found.into_iter().filter(|o| o.location.as_ref().ends_with(".parquet")) {
                let bytes =
                    store.get(&object.location).await.expect("it is there").bytes().await.expect("it reads");
                all.push((object.location, bytes.to_vec()));
            }
        }
        (files.meta.clone(), all)
    })
});

/// Whether an edit is of a page; else it is of the page index and footer.
fn is_of_pages(which: u8) -> bool {
    which >= 96
}

/// The checksums of a file's pages as its footer has them: base64 without padding.
fn sums(pages: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let sums: Vec<u8> =
        pages.chunks(CRC_BLOCK_BYTES as usize).flat_map(|b| crc32fast::hash(b).to_le_bytes()).collect();
    let mut text = String::new();
    for three in sums.chunks(3) {
        let word = three.iter().enumerate().fold(0u32, |w, (i, b)| w | u32::from(*b) << (16 - 8 * i));
        for i in 0..=three.len() {
            text.push(char::from(DIGITS[(word >> (18 - 6 * i)) as usize & 63]));
        }
    }
    text
}

fuzz_target!(init: {
    // The decoder's own panics are made errors: only what gets past that ends the run, as it leaves the
    // target.
    std::panic::set_hook(Box::new(|_| {}));
}, |edits: &[u8]| {
    let (meta, files) = &*WHOLE;
    let mut meta = meta.clone();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for (path, whole) in files {
        let mut bytes = whole.clone();
        let file = match path.filename() {
            Some("series.parquet") => (0, &mut meta.files.series),
            Some("timelines.parquet") => (1, &mut meta.files.timelines),
            _ => (2, &mut meta.files.samples),
        };
        // Four bytes an edit: which file and of it pages or footer, where, and what is put there.
        let tail = bytes.len() - file.1.tail_bytes as usize;
        for edit in edits.chunks_exact(4).filter(|e| e[0] % 3 == file.0) {
            let (from, len) = if is_of_pages(edit[0]) { (0, tail) } else { (tail, bytes.len() - tail) };
            bytes[from + usize::from(u16::from_le_bytes([edit[1], edit[2]])) % len] = edit[3];
        }
        let (before, after) = (sums(&whole[..tail]), sums(&bytes[..tail]));
        // The checksums of the pages stand in the footer, unless an edit has hit them there.
        let at = bytes[tail..].windows(before.len()).position(|w| w == before.as_bytes());
        assert!(at.is_some() || !edits.is_empty(), "the footer has the checksums");
        if let Some(at) = at {
            bytes[tail + at..tail + at + after.len()].copy_from_slice(after.as_bytes());
        }
        file.1.tail_crc32 = crc32fast::hash(&bytes[tail..]);
        RUNTIME.block_on(store.put(path, bytes.into())).expect("it is put");
    }
    let blocks = tsdb::bucket::BlockStore::new(store, RUNTIME.handle().clone(), 1 << 20);
    let options = ReadOptions { attempts: 1, ..ReadOptions::default() };
    let meta = Arc::new(meta);
    if let Ok(mut reader) = BlockReader::open(&blocks, &TenantId::single(), &meta, &Visibility::default(), options) {
        let mut next = 0;
        'all: while let Ok(Some(labels)) = reader.next_labels() {
            for _ in labels {
                if reader.series(next).is_err() {
                    break 'all;
                }
                next += 1;
            }
        }
    }
    // As queries read: by the metric's name, and a part of the time.
    let source = BucketSource::new(blocks, TenantId::single(), vec![meta]);
    for (metric, min_t_ms, max_t_ms) in [("b", i64::MIN, i64::MAX), ("c", 200_000, 500_000)] {
        let selection = Selection {
            matchers: vec![Matcher::equal("__name__", metric)],
            min_t_ms,
            max_t_ms,
            hints: Hints::default(),
            budget: Budget::unlimited(),
        };
        if let Ok(mut cursor) = source.select(&selection) {
            while let Ok(Some(_)) = cursor.next_batch() {}
        }
    }
});
