//! Blocks from end to end: written, uploaded, committed, read back as every source must answer, damaged, and
//! read by others.

mod faulty_store;
mod recording;
mod set_up;

use std::error::Error as _;
use std::sync::Arc;

use model::labels::Labels;
use model::matcher::{MatchOp, Matcher};
use model::sample::{Sample, Value};
use model::source::at_once::{Refused, at_once};
use model::source::memory::{Batches, MemorySource};
use model::source::merge::MergedSource;
use model::source::testing::conformance::{Given, check_conformance, drain};
use model::source::{Budget, LabelQuery, Selection, SeriesColumns, Source, SourceError};
use model::tenant::TenantId;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;
use set_up::{everything, runtime};
use tsdb::block::checksums::CRC_BLOCK_BYTES;
use tsdb::block::upload::upload;
use tsdb::block::{BlockMeta, BlockOrigin, FileMeta, WriteOptions, write_block};
use tsdb::bucket::{BlockStore, BucketSource};
use tsdb::layout;
use ulid::Ulid;

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
    check_conformance(|given| {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let series = drain(&model(&given), &everything()).unwrap();
        let block = put_block(&store, Ulid::new(), options.clone(), series);
        Box::new(bucket(&store, cache_bytes, block.into_iter().collect()))
    });
}

#[test]
fn block_answers_as_every_source() {
    contract_of_bucket(WriteOptions::fresh(), 64 << 20);
}

#[test]
fn compacted_block_without_a_cache_answers_as_every_source() {
    contract_of_bucket(WriteOptions::compacted(), 0);
}

#[test]
fn block_of_many_small_pages_answers_as_every_source() {
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
fn blocks_answer_as_every_source_and_the_newer_wins() {
    check_conformance(|given| {
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
fn blocks_that_differ_are_answered_by_the_later() {
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
    check_conformance(|given| {
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
            windows: None,
        });
        Box::new(Batches::new(series.collect())) as Box<dyn model::source::SeriesCursor>
    };
    let mut merged = model::source::merge::MergeCursor::new(vec![part(0), part(1)]);
    let batch = model::source::SeriesCursor::next_batch(&mut merged).unwrap().unwrap();
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
        windows: None,
    });
    let block = put_block(&store, Ulid::new(), WriteOptions::compacted(), series.collect()).unwrap();
    assert_eq!((block.stats.timelines, block.stats.timeline_timestamps, block.stats.rows), (1, 480, 100));
    let got = drain(&bucket(&store, 0, vec![block]), &everything()).unwrap();
    assert!(got.iter().all(|s| Arc::ptr_eq(&s.ts_ms, &got[0].ts_ms)));
}

#[test]
fn writer_refuses_what_would_make_a_wrong_block() {
    let dir = tempfile::tempdir().unwrap();
    let series = |name: &str, ts: &[i64], values: usize| SeriesColumns {
        labels: Labels::from_pairs([("__name__", name)]),
        ts_ms: ts.into(),
        values: vec![1.0; values],
        histograms: None,
        start_ts_ms: None,
        windows: None,
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

/// One small block of everything: floats of each encoding, histograms, start timestamps, rare labels.
fn mixed() -> Vec<SeriesColumns> {
    let ts: Arc<[i64]> = (0..60).map(|i| 1_767_225_600_000 + i * 15_000).collect();
    let float = |name: &str, value: &dyn Fn(i32) -> f64| SeriesColumns {
        labels: Labels::from_pairs([("__name__", name), ("job", "node")]),
        ts_ms: ts.clone(),
        values: (0..60).map(value).collect(),
        histograms: None,
        start_ts_ms: None,
        windows: None,
    };
    let mut all = vec![
        float("constant", &|_| 1.0),
        float("counter", &|i| f64::from(i * 17)),
        float("decimals", &|i| f64::from(i * i % 37) / 100.0),
        float("ended", &|i| if i == 59 { model::sample::stale_nan() } else { f64::from(i) }),
        float("noise", &|i| f64::from(i.wrapping_mul(7919) % 65536)),
        float("roots", &|i| f64::from(i + 2).sqrt()),
    ];
    let mut started = float("started", &|i| f64::from(i));
    started.start_ts_ms = Some((0..60).map(|i| i / 30 + 1).collect());
    all.push(started);
    let mut native = float("zz_native", &|_| 0.0);
    let histograms: Vec<_> = (0..60)
        .map(|i| {
            Some(Arc::new(model::histogram::Histogram {
                schema: 3,
                count: f64::from(i * 4),
                sum: f64::from(i) * 1.5,
                zero_threshold: 1e-128,
                positive_spans: vec![model::histogram::BucketSpan { offset: 2, length: 3 }],
                positive_buckets: vec![f64::from(i), f64::from(i), f64::from(2 * i)],
                ..Default::default()
            }))
        })
        .collect();
    native.values = histograms.iter().map(|h| h.as_ref().unwrap().sum).collect();
    native.histograms = Some(histograms);
    all.push(native);
    all
}

fn same(got: &[SeriesColumns], want: &[SeriesColumns]) -> bool {
    got.len() == want.len()
        && got.iter().zip(want).all(|(g, w)| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                model::source::testing::conformance::assert_same(g, w, "flipped")
            }))
            .is_ok()
        })
}

#[test]
fn flipped_bit_anywhere_is_an_error_that_names_the_object_and_never_a_wrong_value() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let want = mixed();
    let meta = put_block(&store, Ulid::new(), tiny(), want.clone()).unwrap();
    let whole = drain(&bucket(&store, 0, vec![meta.clone()]), &everything()).unwrap();
    assert!(same(&whole, &want));
    let tenant = TenantId::single();
    for name in [layout::SERIES, layout::TIMELINES, layout::SAMPLES] {
        let path = layout::block_file(&tenant, meta.ulid, name);
        let good = runtime().block_on(async { store.get(&path).await.unwrap().bytes().await.unwrap() });
        let put = |bytes: Vec<u8>| runtime().block_on(store.put(&path, bytes.into())).unwrap();
        let mut refused = 0;
        for at in (0..good.len()).step_by(good.len() / 250 + 1) {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << (at % 8);
            put(bad);
            match drain(&bucket(&store, 0, vec![meta.clone()]), &everything()) {
                Err(SourceError::Storage(why)) => {
                    assert!(why.to_string().contains(path.as_ref()), "{why}");
                    refused += 1;
                }
                Err(e) => panic!("{name} byte {at}: {e}"),
                // Bytes that no read needs.
                Ok(got) => assert!(same(&got, &want), "{name} byte {at}: a wrong answer"),
            }
            let verified = runtime().block_on(tsdb::block::inspect::verify(&*store, &tenant, &meta));
            assert!(verified.unwrap_err().to_string().contains(path.as_ref()), "{name} byte {at}");
        }
        assert!(refused > 100, "{name}: only {refused} flips were noticed by reading");
        for cut in [0, 1, good.len() / 2, good.len() - 1] {
            put(good[..cut].to_vec());
            let error = drain(&bucket(&store, 0, vec![meta.clone()]), &everything()).unwrap_err();
            assert!(error.to_string().contains(path.as_ref()), "{error}");
        }
        runtime().block_on(store.delete(&path)).unwrap();
        let error = drain(&bucket(&store, 0, vec![meta.clone()]), &everything()).unwrap_err();
        let SourceError::Storage(why) = &error else { panic!("{error}") };
        assert!(why.to_string().contains(path.as_ref()), "{why}");
        let cause = why.source().and_then(|cause| cause.downcast_ref::<object_store::Error>());
        assert!(matches!(cause, Some(object_store::Error::NotFound { .. })), "{cause:?}");
        put(good.to_vec());
    }
    runtime().block_on(tsdb::block::inspect::verify(&*store, &tenant, &meta)).unwrap();
}

#[test]
fn damaged_meta_json_is_noticed() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let meta = put_block(&store, Ulid::new(), WriteOptions::fresh(), mixed()).unwrap();
    let text = meta.to_json();
    assert_eq!(BlockMeta::from_json("meta.json", &text).unwrap(), *meta);
    for at in 0..text.len() {
        let mut bad = text.clone();
        bad[at] ^= 1 << (at % 7);
        if let Ok(read) = BlockMeta::from_json("meta.json", &bad) {
            assert_eq!(read, *meta, "byte {at}");
        }
    }
    let columns =
        runtime().block_on(tsdb::block::inspect::columns(&*store, &TenantId::single(), &meta)).unwrap();
    let bytes: u64 = columns.iter().map(|c| c.compressed_bytes).sum();
    assert!(bytes > 0 && bytes < meta.files.bytes());
    assert!(
        columns
            .iter()
            .any(|c| c.column == "vi.list.element" && c.encodings.iter().any(|e| e == "DELTA_BINARY_PACKED"))
    );
}

#[test]
fn series_of_a_block_is_read_in_few_bytes_and_few_rounds() {
    let faulty = Arc::new(faulty_store::FaultyStore::default());
    let store: Arc<dyn ObjectStore> = faulty.clone();
    let ts: Arc<[i64]> = (0..480).map(|i| 1_767_225_600_000 + i * 15_000).collect();
    let series: Vec<SeriesColumns> = (0..5000u64)
        .map(|s| SeriesColumns {
            labels: Labels::from_pairs([
                ("__name__", format!("m{:02}", s / 100)),
                ("instance", format!("i{:02}", s % 100)),
            ]),
            ts_ms: ts.clone(),
            values: (0..480u64).map(|i| ((s * 7919 + i * i * 31) % 10_007) as f64).collect(),
            histograms: None,
            start_ts_ms: None,
            windows: None,
        })
        .collect();
    let meta = put_block(&store, Ulid::new(), WriteOptions::fresh(), series.clone()).unwrap();
    let blocks = BlockStore::new(store.clone(), runtime().handle().clone(), 64 << 20);
    let source = BucketSource::new(blocks.clone(), TenantId::single(), vec![meta.clone()]);
    let one = |name: &str, instance: &str| Selection {
        matchers: vec![
            model::matcher::Matcher::equal("__name__", name),
            model::matcher::Matcher::equal("instance", instance),
        ],
        ..everything()
    };
    let got = drain(&source, &one("m33", "i44")).unwrap();
    model::source::testing::conformance::assert_same(&got[0], &series[3344], "one series");
    // Three files opened, small columns, values, a timeline.
    assert!(faulty.gets_so_far() <= 7, "{} requests", faulty.gets_so_far());
    let before = (faulty.gets_so_far(), blocks.cache_stats().bytes);
    drain(&source, &one("m33", "i44")).unwrap();
    assert_eq!(faulty.gets_so_far(), before.0, "a repeated query needs no request");
    drain(&source, &one("m07", "i07")).unwrap();
    assert!(faulty.gets_so_far() - before.0 <= 1, "another series of an open block is one request");
    let read = blocks.cache_stats().bytes - before.1;
    assert!(read < 80_000, "{read} bytes for one series of {}", meta.files.bytes());
}

#[test]
fn samples_of_small_selections_are_kept_decoded() {
    let ts: Vec<i64> = (0..400i64).map(|i| i * 15_000).collect();
    let odd = |i: usize| if i % 90 == 7 { model::sample::stale_nan() } else { (i * i % 1009) as f64 / 8.0 };
    let series: Vec<SeriesColumns> = (0..20usize)
        .map(|s| SeriesColumns {
            labels: Labels::from_pairs([("__name__", "m".to_string()), ("i", format!("{s:02}"))]),
            ts_ms: ts.clone().into(),
            // Decimals with exceptions, constants with and without, whole numbers.
            values: (0..ts.len())
                .map(|i| match s % 4 {
                    0 => odd(i),
                    1 => 4.5,
                    2 if i == 100 => -0.0,
                    2 => 7.0,
                    _ => (i * s) as f64,
                })
                .collect(),
            histograms: None,
            start_ts_ms: (s % 3 == 0).then(|| ts.iter().map(|t| t / 600_000 * 600_000 - 1).collect()),
            windows: None,
        })
        .collect();
    let cut = |s: &SeriesColumns, from: i64, to: i64| {
        let keep: Vec<usize> = (0..ts.len()).filter(|i| (from..=to).contains(&ts[*i])).collect();
        s.pick(&keep)
    };
    for options in [WriteOptions::fresh(), tiny()] {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let meta = put_block(&store, Ulid::new(), options, series.clone()).unwrap();
        // Four times what the samples take, and hardly less.
        for (cache_bytes, kept) in [(64 << 20, true), (4 * 8 * 400 * 20 - 1, false)] {
            let blocks = BlockStore::new(store.clone(), runtime().handle().clone(), cache_bytes);
            let source = BucketSource::new(blocks.clone(), TenantId::single(), vec![meta.clone()]);
            let mut hits = Vec::new();
            for (from, to) in [(1_000_000, 2_000_000), (0, 6_000_000), (0, 6_000_000), (1_500_000, 1_500_000)]
            {
                let selection = Selection { min_t_ms: from, max_t_ms: to, ..everything() };
                let before = blocks.cache_stats();
                let got = drain(&source, &selection).unwrap();
                hits.push((
                    blocks.cache_stats().hits - before.hits,
                    blocks.cache_stats().entries - before.entries,
                ));
                assert_eq!(got.len(), series.len());
                for (got, want) in got.iter().zip(&series) {
                    model::source::testing::conformance::assert_same(got, &cut(want, from, to), "kept rows");
                }
            }
            // Once read, the third time nothing but the cache answers; of a row of a slice the first reading
            // kept all.
            let listed = series.iter().enumerate().filter(|(s, _)| s % 4 != 1 || s % 3 == 0).count() as u64;
            assert_eq!(hits[2].0 >= listed, kept, "{hits:?}");
            assert!(!kept || hits[2].1 == 0, "{hits:?}");
        }
    }
}

/// The second reading may not wait for the store, nor decode histograms, and yet gives all of them.
#[test]
fn native_histograms_of_small_selections_are_kept_decoded() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let native = || Selection { matchers: vec![Matcher::equal("__name__", "zz_native")], ..everything() };
    for options in [WriteOptions::fresh(), tiny()] {
        let meta = put_block(&store, Ulid::new(), options, mixed()).unwrap();
        for (cache_bytes, kept) in [(64 << 20, true), (64 << 10, false)] {
            let source = bucket(&store, cache_bytes, vec![meta.clone()]);
            let read = |selection: &Selection| drain(&source, selection);
            let want = read(&native()).unwrap();
            assert!(
                want[0].histograms.as_ref().is_some_and(|h| h.len() == 60 && h.iter().all(Option::is_some))
            );
            let (again, refused) = at_once(8, || read(&native()));
            assert_eq!(refused, (!kept).then_some(Refused::Waits), "a cache of {cache_bytes} bytes");
            if kept {
                assert!(same(&again.unwrap(), &want));
                // A part of a row.
                let (from, to) = (want[0].ts_ms[7], want[0].ts_ms[41]);
                let (part, refused) =
                    at_once(8, || read(&Selection { min_t_ms: from, max_t_ms: to, ..native() }));
                assert_eq!(refused, None);
                let keep: Vec<usize> = (7..=41).collect();
                assert!(same(&part.unwrap(), &[want[0].pick(&keep)]));
            }
        }
    }
}

/// Asked twice, so that the second answer is of lists that are kept; and without the series tables.
#[test]
fn label_lists_that_are_kept_are_those_of_the_series() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let series = |from: usize, to: usize| -> Vec<SeriesColumns> {
        let one = |i: usize| SeriesColumns {
            labels: Labels::from_pairs([
                ("__name__", format!("m{}", i % 3)),
                ("host", format!("h{i:02}")),
                (["odd", "even"][i % 2], "x".to_string()),
            ]),
            ..mixed()[0].clone()
        };
        let mut all: Vec<SeriesColumns> = (from..to).map(one).collect();
        all.sort_by(|a, b| a.labels.series_cmp(&b.labels));
        all
    };
    let model = MemorySource::new();
    for s in series(0, 30) {
        model.append(&s.labels, s.ts_ms[0], Value::Float(1.0), 0);
    }
    let blocks = [(0, 20), (10, 30)]
        .map(|(from, to)| put_block(&store, Ulid::new(), WriteOptions::fresh(), series(from, to)).unwrap());
    let source = bucket(&store, 64 << 20, blocks.to_vec());
    let metric = |op, name: &str| vec![Matcher::new(op, "__name__", name).unwrap()];
    let by_host = vec![Matcher::new(MatchOp::NotRegex, "host", "h0.*").unwrap(), Matcher::equal("odd", "x")];
    for selectors in [
        vec![],
        vec![metric(MatchOp::Equal, "m1")],
        vec![metric(MatchOp::Regex, "m1")],
        vec![metric(MatchOp::Equal, "m1"), metric(MatchOp::Equal, "m2")],
        vec![by_host],
        vec![metric(MatchOp::Equal, "nothing")],
    ] {
        let query =
            LabelQuery { selectors, min_t_ms: i64::MIN, max_t_ms: i64::MAX, budget: Budget::unlimited() };
        for _ in 0..2 {
            assert_eq!(source.label_names(&query).unwrap(), model.label_names(&query).unwrap());
            for name in ["__name__", "host", "odd", "nowhere"] {
                let (got, want) = (source.label_values(name, &query), model.label_values(name, &query));
                assert_eq!(got.unwrap(), want.unwrap(), "{name} {:?}", query.selectors);
            }
            assert_eq!(source.series(&query).unwrap(), model.series(&query).unwrap());
        }
    }
}

#[test]
fn recording_comes_back_bit_for_bit() {
    let (series, which) = match recording::path() {
        Some(path) => (recording::series(&path), "the shared recording"),
        None => (mixed(), "the project's own series, the shared recording being absent"),
    };
    let samples: usize = series.iter().map(|s| s.values.len()).sum();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let meta = put_block(&store, Ulid::new(), WriteOptions::fresh(), series.clone()).unwrap();
    let got = drain(&bucket(&store, 64 << 20, vec![meta.clone()]), &everything()).unwrap();
    assert_eq!(got.len(), series.len());
    for (got, want) in got.iter().zip(&series) {
        model::source::testing::conformance::assert_same(got, want, which);
    }
    let stale = series.iter().flat_map(|s| &s.values).filter(|v| model::sample::is_stale(**v)).count() as u64;
    assert_eq!((meta.stats.samples, meta.stats.stale_markers), (samples as u64, stale));
    assert!(meta.stats.timeline_timestamps < samples as u64 / 4, "timelines are not shared");
    eprintln!("round trip of {which}: {samples} samples, {} bytes", meta.files.bytes());
}

/// Label sets with whatever names people may invent: dots, case, the format's own column names.
fn any_labels() -> impl Strategy<Value = Labels> {
    let name = prop_oneof![
        Just("__name__".to_string()),
        Just("series_id".to_string()),
        Just("Other_Labels".to_string()),
        Just("other_labels".to_string()),
        Just("job".to_string()),
        Just("JOB".to_string()),
        Just("job.name".to_string()),
        ".{1,6}",
    ];
    proptest::collection::btree_map(name, ".{1,20}", 0..6).prop_map(Labels::from_pairs)
}

/// Timestamps over the whole range, values of every bit pattern, start timestamps of any kind.
fn any_samples() -> impl Strategy<Value = (Vec<i64>, Vec<u64>, Option<Vec<i64>>)> {
    let time = prop_oneof![any::<i64>(), 0i64..100_000_000, Just(i64::MIN), Just(i64::MAX)];
    let value = prop_oneof![any::<u64>(), (0u32..1000).prop_map(|n| f64::from(n).to_bits())];
    let starts = proptest::option::of(proptest::collection::vec(any::<i64>(), 40));
    (proptest::collection::btree_set(time, 1..40), proptest::collection::vec(value, 40), starts).prop_map(
        |(times, mut values, starts)| {
            let n = times.len();
            values.truncate(n);
            let starts = starts.map(|mut s| {
                s.truncate(n);
                s
            });
            (times.into_iter().collect(), values, starts)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn block_gives_back_whatever_is_written(
        given in proptest::collection::hash_map(any_labels(), any_samples(), 1..12),
        small in any::<bool>(),
    ) {
        let mut series: Vec<SeriesColumns> = given
            .into_iter()
            .map(|(labels, (ts, bits, starts))| SeriesColumns {
                labels,
                ts_ms: ts.into(),
                values: bits.into_iter().map(f64::from_bits).collect(),
                histograms: None,
                start_ts_ms: starts,
                windows: None,
            })
            .collect();
        series.sort_by(|a, b| a.labels.series_cmp(&b.labels));
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let options = if small { tiny() } else { WriteOptions::compacted() };
        let meta = put_block(&store, Ulid::new(), options, series.clone()).unwrap();
        let source = bucket(&store, 1 << 20, vec![meta]);
        let got = drain(&source, &everything()).unwrap();
        prop_assert_eq!(got.len(), series.len());
        for (got, want) in got.iter().zip(&series) {
            model::source::testing::conformance::assert_same(got, want, "any");
        }
        // Each series is found by each of its labels.
        for want in &series {
            let matchers = want.labels.iter().map(|(n, v)| model::matcher::Matcher::equal(n, v)).collect();
            let found = drain(&source, &Selection { matchers, ..everything() }).unwrap();
            prop_assert!(found.iter().any(|s| s.labels == want.labels), "{} is not found", want.labels);
        }
    }
}

/// What fuzz/ found: footers and pages behind right checksums that are wrong all the same.
#[test]
fn block_that_is_wrong_behind_its_checksum_is_an_error_or_harmless() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let series = (0..5).map(|n| SeriesColumns {
        labels: Labels::from_pairs([("__name__", "m"), ("n", ["a", "b", "c", "d", "e"][n])]),
        ts_ms: (0..50).map(|i| i * 15_000).collect(),
        values: (0..50).map(|i| (i * n) as f64 / 8.0).collect(),
        histograms: None,
        start_ts_ms: None,
        windows: None,
    });
    let meta = put_block(&store, Ulid::new(), WriteOptions::fresh(), series.collect()).unwrap();
    fn of<'a>(meta: &'a mut BlockMeta, name: &str) -> &'a mut FileMeta {
        match name {
            layout::SERIES => &mut meta.files.series,
            layout::TIMELINES => &mut meta.files.timelines,
            _ => &mut meta.files.samples,
        }
    }
    for name in [layout::SERIES, layout::TIMELINES, layout::SAMPLES] {
        let path = layout::block_file(&TenantId::single(), meta.ulid, name);
        let whole = runtime().block_on(async { store.get(&path).await.unwrap().bytes().await.unwrap() });
        let tail = whole.len() - of(&mut (*meta).clone(), name).tail_bytes as usize;
        let (mut errors, mut answers) = (0, 0);
        let other = |at: usize| if at.is_multiple_of(2) { 0x3b } else { 0xff };
        for (at, to) in (tail..whole.len()).flat_map(|at| [(at, 0), (at, other(at))]) {
            let mut bytes = whole.to_vec();
            bytes[at] = to;
            let mut meta = (*meta).clone();
            of(&mut meta, name).tail_crc32 = crc32fast::hash(&bytes[tail..]);
            runtime().block_on(store.put(&path, bytes.into())).unwrap();
            match drain(&bucket(&store, 0, vec![Arc::new(meta)]), &everything()) {
                Ok(_) => answers += 1,
                Err(_) => errors += 1,
            }
        }
        assert!(errors > 100 && answers > 50, "{name}: {errors} errors, {answers} answers");
        runtime().block_on(store.put(&path, whole.into())).unwrap();
    }
}

/// What fuzz/ found: pages behind right checksums, of which some kept Parquet's reader busy for ever.
#[test]
fn pages_that_are_wrong_behind_their_checksums_end_as_an_error_or_harmless() {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let labels = |n: usize| {
            let name = ["a", "b", "c"][n / 3];
            Labels::from_pairs([("__name__", name), ("n", ["0", "1", "2", "3", "4", "5", "6"][n])])
        };
        let series = (0..7).map(|n| SeriesColumns {
            labels: labels(n),
            ts_ms: (0..20).map(|i| i * 15_000).collect(),
            values: (0..20).map(|i| (i * n) as f64 / 8.0).collect(),
            histograms: None,
            start_ts_ms: None,
            windows: None,
        });
        let options = WriteOptions { row_samples: 25, values_per_page: 64, ..WriteOptions::fresh() };
        let meta = put_block(&store, Ulid::new(), options, series.collect()).unwrap();
        let path = layout::block_file(&TenantId::single(), meta.ulid, layout::SERIES);
        let whole = runtime().block_on(async { store.get(&path).await.unwrap().bytes().await.unwrap() });
        let tail = whole.len() - meta.files.series.tail_bytes as usize;
        let (mut errors, mut answers) = (0, 0);
        for at in 4..tail {
            let mut bytes = whole.to_vec();
            bytes[at] = if bytes[at] == 0 { 0x3b } else { 0 };
            let (before, after) = (page_sums(&whole[..tail]), page_sums(&bytes[..tail]));
            let place = whole[tail..].windows(before.len()).position(|w| w == before.as_bytes()).unwrap();
            bytes[tail + place..tail + place + after.len()].copy_from_slice(after.as_bytes());
            let mut meta = (*meta).clone();
            meta.files.series.tail_crc32 = crc32fast::hash(&bytes[tail..]);
            runtime().block_on(store.put(&path, bytes.into())).unwrap();
            for metric in ["a", "b", "c"] {
                let selection =
                    Selection { matchers: vec![Matcher::equal("__name__", metric)], ..everything() };
                match drain(&bucket(&store, 0, vec![Arc::new(meta.clone())]), &selection) {
                    Ok(_) => answers += 1,
                    Err(_) => errors += 1,
                }
            }
        }
        done.send((errors, answers)).unwrap();
    });
    // Long, because it says nothing about speed: one that does not end never does.
    let (errors, answers) = ended.recv_timeout(std::time::Duration::from_secs(300)).expect("it ends");
    assert!(errors > 50 && answers > 50, "{errors} errors, {answers} answers");
}

/// The checksums of a file's pages as its footer has them: base64 without padding.
fn page_sums(pages: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let sums: Vec<u8> =
        pages.chunks(CRC_BLOCK_BYTES as usize).flat_map(|b| crc32fast::hash(b).to_le_bytes()).collect();
    let digits = |three: &[u8]| {
        let word = three.iter().enumerate().fold(0u32, |w, (i, b)| w | u32::from(*b) << (16 - 8 * i));
        (0..=three.len())
            .map(|i| char::from(DIGITS[(word >> (18 - 6 * i)) as usize & 63]))
            .collect::<String>()
    };
    sums.chunks(3).map(digits).collect()
}
