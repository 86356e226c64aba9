//! Blocks from end to end: written, uploaded, committed, read back as every source must answer, damaged, and read by others.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tsdb::block::upload::upload;
use tsdb::block::{BlockMeta, BlockOrigin, WriteOptions, write_block};
use tsdb::bucket::{BlockStore, BucketSource};
use tsdb::contract::{Given, contract, drain};
use tsdb::labels::Labels;
use tsdb::layout;
use tsdb::memory::{Batches, MemorySource};
use tsdb::merge::MergedSource;
use tsdb::sample::{Sample, Value};
use tsdb::source::{Budget, Hints, Selection, SeriesColumns, Source};
use tsdb::tenant::TenantId;
use ulid::Ulid;

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    })
}

fn everything() -> Selection {
    Selection {
        matchers: Vec::new(),
        min_t_ms: i64::MIN,
        max_t_ms: i64::MAX,
        hints: Hints::default(),
        budget: Budget::unlimited(),
    }
}

fn model(given: &Given) -> MemorySource {
    let model = MemorySource::new();
    for (labels, samples) in given {
        for (s, start) in samples {
            model.append(labels, s.ts_ms, s.value.clone(), *start);
        }
    }
    model
}

/// Small pages, rows and row groups, so that little data has many of each.
fn tiny() -> WriteOptions {
    WriteOptions {
        slice_ms: 1_800_000,
        values_per_page: 200,
        rows_per_page: 16,
        row_group_samples: 700,
        row_samples: 150,
        timeline_memory_bytes: 1000,
        ..WriteOptions::fresh()
    }
}

/// Writes and uploads one block; `None` for no data.
fn put_block(
    store: &Arc<dyn ObjectStore>,
    ulid: Ulid,
    options: WriteOptions,
    series: Vec<SeriesColumns>,
) -> Option<Arc<BlockMeta>> {
    let dir = tempfile::tempdir().unwrap();
    let origin = BlockOrigin::flushed(ulid, TenantId::single(), "test");
    let files = write_block(dir.path(), origin, options, series.into_iter().map(Ok)).unwrap()?;
    runtime().block_on(upload(&**store, &files)).unwrap();
    let meta = Arc::new(files.meta.clone());
    drop(files);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the scratch folder is left");
    Some(meta)
}

fn bucket(store: &Arc<dyn ObjectStore>, cache_bytes: usize, blocks: Vec<Arc<BlockMeta>>) -> BucketSource {
    let blocks_of = BlockStore::new(store.clone(), runtime().handle().clone(), cache_bytes);
    BucketSource::new(blocks_of, TenantId::single(), blocks)
}

fn contract_of_bucket(options: WriteOptions, cache_bytes: usize) {
    contract(|given| {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let series = drain(&model(&given), &everything()).unwrap();
        let block = put_block(&store, Ulid::new(), options.clone(), series);
        Box::new(bucket(&store, cache_bytes, block.into_iter().collect()))
    });
}

#[test]
fn one_block_answers_as_every_source() {
    contract_of_bucket(WriteOptions::fresh(), 64 << 20);
}

#[test]
fn one_compacted_block_without_a_cache_answers_as_every_source() {
    contract_of_bucket(WriteOptions::compacted(), 0);
}

#[test]
fn a_block_of_many_small_pages_answers_as_every_source() {
    contract_of_bucket(tiny(), 100_000);
}

/// Splits data among sources; a newer one may hold what an older holds wrongly.
fn split(given: &Given, parts: usize, wrong: bool) -> Vec<Given> {
    let mut out: Vec<Given> = vec![Vec::new(); parts];
    for (n, (labels, samples)) in given.iter().enumerate() {
        let mut by_part: Vec<Vec<(Sample, i64)>> = vec![Vec::new(); parts];
        for (i, s) in samples.iter().enumerate() {
            // By time for some series, interleaved for others.
            let at = if n % 2 == 0 { i * parts / samples.len() } else { (i * 7 + n) % parts };
            by_part[at].push(s.clone());
            if wrong && at > 0 && i % 5 == 0 {
                let stale = Sample { ts_ms: s.0.ts_ms, value: Value::Float(-12345.678) };
                by_part[at - 1].push((stale, 77));
            }
        }
        for (part, samples) in out.iter_mut().zip(by_part) {
            if !samples.is_empty() {
                part.push((labels.clone(), samples));
            }
        }
    }
    out
}

#[test]
fn several_blocks_answer_as_every_source_and_the_newer_wins() {
    contract(|given| {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let mut blocks = Vec::new();
        for (age, part) in split(&given, 3, false).iter().enumerate() {
            let series = drain(&model(part), &everything()).unwrap();
            blocks.extend(put_block(&store, Ulid::from_parts(1000 + age as u64, 1), tiny(), series));
        }
        // The catalog's order does not matter, the blocks' age does.
        blocks.reverse();
        Box::new(bucket(&store, 10 << 20, blocks))
    });
}

#[test]
fn where_sources_differ_the_later_wins() {
    let labels = Labels::from_pairs([("__name__", "m")]);
    let at = |t: i64, v: f64| (Sample { ts_ms: t, value: Value::Float(v) }, 0);
    let old: Given = vec![(labels.clone(), vec![at(1, 1.0), at(2, 2.0), at(4, 4.0)])];
    let new: Given = vec![(labels.clone(), vec![at(2, 20.0), at(3, 30.0)])];
    let merged = MergedSource::new(vec![Arc::new(model(&old)), Arc::new(model(&new))]);
    let got = drain(&merged, &everything()).unwrap();
    assert_eq!(got.len(), 1);
    assert_eq!(&got[0].ts_ms[..], [1, 2, 3, 4]);
    assert_eq!(got[0].values, [1.0, 20.0, 30.0, 4.0]);
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut blocks = Vec::new();
    for (age, part) in [old, new].iter().enumerate() {
        let series = drain(&model(part), &everything()).unwrap();
        blocks.extend(put_block(
            &store,
            Ulid::from_parts(1000 + age as u64, 1),
            WriteOptions::fresh(),
            series,
        ));
    }
    let got = drain(&bucket(&store, 0, blocks.clone()), &everything()).unwrap();
    assert_eq!(got[0].values, [1.0, 20.0, 30.0, 4.0]);
    // A compaction of the older one is written later and is none the newer for it.
    let mut compacted = (*blocks[0]).clone();
    compacted.sources = vec![compacted.ulid];
    compacted.ulid = Ulid::from_parts(9000, 1);
    for name in [layout::SERIES, layout::TIMELINES, layout::SAMPLES] {
        let from = layout::block_file(&TenantId::single(), blocks[0].ulid, name);
        let to = layout::block_file(&TenantId::single(), compacted.ulid, name);
        runtime().block_on(store.copy(&from, &to)).unwrap();
    }
    let got = drain(&bucket(&store, 0, vec![Arc::new(compacted), blocks[1].clone()]), &everything()).unwrap();
    assert_eq!(got[0].values, [1.0, 20.0, 30.0, 4.0]);
}

#[test]
fn merged_sources_answer_as_every_source() {
    contract(|given| {
        let parts = split(&given, 4, true);
        let sources = parts.iter().map(|p| Arc::new(model(p)) as Arc<dyn Source>).collect();
        Box::new(MergedSource::new(sources))
    });
}

#[test]
fn merged_series_share_their_timelines() {
    let shared: [Arc<[i64]>; 2] = [(0..50).collect(), (50..100).collect()];
    let part = |p: usize| {
        let series = (0..10).map(|i| SeriesColumns {
            labels: Labels::from_pairs([("__name__", format!("m{i}"))]),
            ts_ms: shared[p].clone(),
            values: vec![1.0; 50],
            histograms: None,
            start_ts_ms: None,
        });
        Box::new(Batches::new(series.collect())) as Box<dyn tsdb::source::SeriesCursor>
    };
    let mut merged = tsdb::merge::MergeCursor::new(vec![part(0), part(1)]);
    let batch = tsdb::source::SeriesCursor::next_batch(&mut merged).unwrap().unwrap();
    assert_eq!(batch.len(), 10);
    assert!(batch.iter().all(|s| s.ts_ms.len() == 100 && Arc::ptr_eq(&s.ts_ms, &batch[0].ts_ms)));
}

#[test]
fn series_of_one_scrape_share_one_timeline_in_the_block_and_in_memory() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let ts: Arc<[i64]> = (0..480).map(|i| 1_000_000 + i * 15_000 + i % 7).collect();
    let series = (0..100).map(|i| SeriesColumns {
        labels: Labels::from_pairs([("__name__", format!("m{i:03}"))]),
        ts_ms: ts.clone(),
        values: (0..480).map(|t| f64::from(i * t)).collect(),
        histograms: None,
        start_ts_ms: None,
    });
    let block = put_block(&store, Ulid::new(), WriteOptions::compacted(), series.collect()).unwrap();
    assert_eq!((block.stats.timelines, block.stats.timeline_timestamps, block.stats.rows), (1, 480, 100));
    let got = drain(&bucket(&store, 0, vec![block]), &everything()).unwrap();
    assert!(got.iter().all(|s| Arc::ptr_eq(&s.ts_ms, &got[0].ts_ms)));
}

#[test]
fn the_writer_refuses_what_would_make_a_wrong_block() {
    let dir = tempfile::tempdir().unwrap();
    let series = |name: &str, ts: &[i64], values: usize| SeriesColumns {
        labels: Labels::from_pairs([("__name__", name)]),
        ts_ms: ts.into(),
        values: vec![1.0; values],
        histograms: None,
        start_ts_ms: None,
    };
    for (bad, text) in [
        (vec![series("b", &[1], 1), series("a", &[1], 1)], "out of order"),
        (vec![series("a", &[1], 1), series("a", &[2], 1)], "out of order"),
        (vec![series("a", &[2, 1], 2)], "do not ascend"),
        (vec![series("a", &[1, 1], 2)], "do not ascend"),
        (vec![series("a", &[1, 2], 1)], "different lengths"),
    ] {
        let origin = BlockOrigin::flushed(Ulid::new(), TenantId::single(), "test");
        let error =
            write_block(dir.path(), origin, WriteOptions::fresh(), bad.into_iter().map(Ok)).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
    let origin = BlockOrigin::flushed(Ulid::new(), TenantId::single(), "test");
    let nothing = write_block(dir.path(), origin, WriteOptions::fresh(), [Ok(series("a", &[], 0))]).unwrap();
    assert!(nothing.is_none());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a failed block leaves its folder");
}
