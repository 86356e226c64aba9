//! Whole compactions: no answer changes, whatever the blocks, whatever fails, whoever else works on them.

mod bucket;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bucket::{
    Fate, FatefulStore, Seen, catalog, compactor, everything, floats, late_clock, points, put_block, read,
    settings,
};
use compactor::settings::Settings;
use model::clock::ManualClock;
use model::matcher::Matcher;
use model::rollup::RESOLUTIONS_MS;
use model::sample::Value;
use model::source;
use model::source::testing::conformance::{Given, check_conformance, drain};
use model::source::{Selection, SeriesColumns, SeriesCursor, Source, SourceError};
use model::tenant::TenantId;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tsdb::block::BlockMeta;
use tsdb::bucket::{BlockStore, BucketSource};
use tsdb::layout;

const H: i64 = 3_600_000;
const T0: i64 = 1_767_225_600_000;

/// Samples as columns.
fn columns(labels: &model::labels::Labels, samples: &[(model::sample::Sample, i64)]) -> SeriesColumns {
    let mut out = floats(&[], []);
    out.labels = labels.clone();
    out.ts_ms = samples.iter().map(|(s, _)| s.ts_ms).collect();
    let mut histograms = Vec::new();
    for (s, _) in samples {
        match &s.value {
            Value::Float(v) => {
                out.values.push(*v);
                histograms.push(None);
            }
            Value::Histogram(h) => {
                out.values.push(h.sum);
                histograms.push(Some(h.clone()));
            }
        }
    }
    out.histograms = histograms.iter().any(Option::is_some).then_some(histograms);
    let starts: Vec<i64> = samples.iter().map(|(_, start)| *start).collect();
    out.start_ts_ms = starts.iter().any(|s| *s != 0).then_some(starts);
    out
}

/// A source together with what keeps it alive.
struct Kept {
    source: BucketSource,
    _runtime: tokio::runtime::Runtime,
}

impl Source for Kept {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        self.source.select(selection)
    }

    fn series(&self, query: &source::LabelQuery) -> Result<Vec<model::labels::Labels>, SourceError> {
        self.source.series(query)
    }
}

#[test]
fn compacted_bucket_keeps_the_contract_of_sources() {
    let round = std::cell::Cell::new(0u64);
    check_conformance(|given: Given| {
        round.set(round.get() + 1);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let source = runtime.block_on(async {
            let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let scratch = tempfile::tempdir().unwrap();
            // Every sample goes into one block or into two of four that lie over one another.
            let mut parts: Vec<Vec<SeriesColumns>> = vec![Vec::new(); 4];
            for (i, (labels, samples)) in given.iter().enumerate() {
                for (k, part) in parts.iter_mut().enumerate() {
                    let of_part = |n: usize| n % 4 == k || (n.is_multiple_of(5) && (n + i) % 4 == k);
                    let some: Vec<_> = samples
                        .iter()
                        .enumerate()
                        .filter(|(n, _)| of_part(*n))
                        .map(|(_, s)| s.clone())
                        .collect();
                    if !some.is_empty() {
                        part.push(columns(labels, &some));
                    }
                }
            }
            for (k, part) in parts.into_iter().enumerate() {
                put_block(&store, scratch.path(), k as u64 + 1, part).await;
            }
            let shares = round.get().is_multiple_of(2);
            let s = if shares { small_blocks(scratch.path()) } else { settings(scratch.path()) };
            let done = compactor(&store, s, "c", &late_clock()).round().await;
            assert_eq!(done.errors, Vec::<String>::new());
            let snapshot = catalog(&store, "reader").await.snapshot();
            assert!(snapshot.blocks.iter().all(|b| b.level > 0), "round {}", round.get());
            let blocks = BlockStore::new(store, tokio::runtime::Handle::current(), 16 << 20);
            BucketSource::new(blocks, TenantId::single(), snapshot.blocks.clone())
        });
        Box::new(Kept { source, _runtime: runtime })
    });
}

/// A bucket of a few days: flushed blocks, late ones over them that contradict, one across boundaries.
/// Returns what a query must see.
async fn some_bucket(store: &Arc<dyn ObjectStore>, seed: i64) -> Seen {
    let scratch = tempfile::tempdir().unwrap();
    let mut seen = Seen::new();
    let shapes = [
        (0, 2, 5, 300_000),
        (2, 2, 5, 300_000),
        (3, 4, 3, 420_000),
        (13, 2, 4, 600_000),
        (1, 30, 2, 3_000_000),
        (400, 2, 3, 600_000),
        (13, 1, 6, 500_000),
    ];
    for (order, (from, hours, series, step)) in (1..).zip(shapes) {
        let block: Vec<SeriesColumns> = (0..series)
            .map(|s| {
                let name = format!("m{}", s % 2);
                let instance = format!("i{s}");
                let times = (0..hours * H / step).map(|i| T0 + from * H + i * step);
                let samples =
                    times.map(|t| (t, ((t / 1000 + s * 7 + order as i64 * 13 + seed) % 1009) as f64));
                floats(&[("__name__", &name), ("instance", &instance)], samples)
            })
            .collect();
        for s in &block {
            // Later blocks win.
            seen.entry(s.labels.clone()).or_default().extend(points(s));
        }
        put_block(store, scratch.path(), order, block).await.unwrap();
    }
    seen
}

async fn blocks_of(store: &Arc<dyn ObjectStore>) -> Vec<Arc<BlockMeta>> {
    catalog(store, "reader").await.snapshot().blocks.clone()
}

/// Panics where two blocks of one resolution lie over one another and are not shares of one whole, or a raw
/// one lacks its windows.
fn assert_tidy(live: &[Arc<BlockMeta>], context: &str) {
    for (i, a) in live.iter().enumerate() {
        for b in &live[i + 1..] {
            let apart = a.resolution_ms != b.resolution_ms
                || a.whole() == b.whole()
                || !a.overlaps(b.min_t_ms, b.max_t_ms);
            assert!(apart, "{context}: {a:?} and {b:?} overlap");
        }
        if a.resolution_ms == 0 {
            assert_eq!(a.downsampled_ms, RESOLUTIONS_MS, "{context}");
            for r in RESOLUTIONS_MS {
                let of_it = |b: &&Arc<BlockMeta>| {
                    b.resolution_ms == r && b.sources == a.sources && b.share == a.share
                };
                let of_it = live.iter().filter(of_it).filter(|b| a.overlaps(b.min_t_ms, b.max_t_ms));
                assert_eq!(of_it.count(), 1, "{context}: windows of {r} ms");
            }
        }
    }
}

/// Settings with blocks so small that a handful of series fills one.
fn small_blocks(scratch: &std::path::Path) -> Settings {
    Settings { max_block_bytes: 400, ..settings(scratch) }
}

async fn folders(store: &Arc<dyn ObjectStore>) -> BTreeSet<String> {
    let listed = store.list_with_delimiter(Some(&layout::blocks(&TenantId::single()))).await.unwrap();
    listed.common_prefixes.iter().map(|p| p.filename().unwrap().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_become_one_a_span_and_what_is_replaced_goes() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let seen = some_bucket(&store, 0).await;
    assert_eq!(read(&store).await.unwrap(), seen, "the model is right");
    let scratch = tempfile::tempdir().unwrap();
    let worker = compactor(&store, settings(scratch.path()), "c", &late_clock());
    let round = worker.round().await;
    assert_eq!(round.errors, Vec::<String>::new());
    assert!(round.jobs >= 3 && round.left == 0, "{round:?}");
    assert_eq!(read(&store).await.unwrap(), seen);
    let live = blocks_of(&store).await;
    assert_tidy(&live, "all done");
    for a in live.iter().filter(|b| b.resolution_ms == 0) {
        let of_span = seen.values().map(|p| p.range(a.min_t_ms..=a.max_t_ms).count() as u64);
        assert_eq!(a.stats.samples, of_span.sum::<u64>());
    }
    assert_eq!(
        folders(&store).await,
        live.iter().map(|b| b.ulid.to_string()).collect(),
        "nothing else lies there"
    );
    assert_eq!(worker.round().await.jobs, 0, "it has come to its end");
    assert!(worker.runs().iter().all(|r| r.result.is_ok()));
    drop(worker);
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "the scratch folder is empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_of_too_much_for_one_block_writes_several_of_one_whole() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let seen = some_bucket(&store, 0).await;
    let scratch = tempfile::tempdir().unwrap();
    let worker = compactor(&store, small_blocks(scratch.path()), "c", &late_clock());
    let round = worker.round().await;
    assert_eq!(round.errors, Vec::<String>::new());
    assert_eq!(read(&store).await.unwrap(), seen);
    let live = blocks_of(&store).await;
    assert_tidy(&live, "in shares");
    let raw: Vec<_> = live.iter().filter(|b| b.resolution_ms == 0).collect();
    let wholes: BTreeSet<_> = raw.iter().map(|b| b.whole()).collect();
    assert!(raw.len() >= 2 * wholes.len(), "{} blocks of {} wholes", raw.len(), wholes.len());
    for whole in wholes {
        let mut shares: Vec<_> = raw.iter().filter(|b| b.whole() == whole).collect();
        shares.sort_by_key(|b| b.share.as_ref().map(|s| s.number));
        let names = shares.iter().filter_map(|b| b.share.as_ref());
        assert!(names.clone().enumerate().all(|(i, s)| s.number as usize == i), "{shares:?}");
        let names: Vec<_> = names.flat_map(|s| [&s.first_name, &s.last_name]).collect();
        assert!(names.is_sorted(), "{names:?}");
    }
    assert_eq!(
        catalog(&store, "reader").await.snapshot().version,
        3,
        "what does not know shares refuses them"
    );
    // A question for one metric opens the blocks that may have it, and gets all there is of it.
    let snapshot = catalog(&store, "reader").await.snapshot();
    let blocks = BlockStore::new(store.clone(), tokio::runtime::Handle::current(), 16 << 20);
    let source = BucketSource::new(blocks, TenantId::single(), snapshot.blocks.clone());
    for name in ["m0", "m1", "m2"] {
        let matchers = vec![Matcher::equal("__name__", name)];
        let selection = Selection { matchers: matchers.clone(), ..everything() };
        let (found, labels) = tokio::task::block_in_place(|| {
            let budget = source::Budget::unlimited();
            let wish_labels = source::LabelQuery {
                selectors: vec![matchers],
                min_t_ms: i64::MIN,
                max_t_ms: i64::MAX,
                budget,
            };
            (drain(&source, &selection).unwrap(), source.series(&wish_labels).unwrap())
        });
        let of_metric = seen.iter().filter(|(l, _)| l.metric_name() == Some(name));
        let found: Seen = found.into_iter().map(|s| (s.labels.clone(), points(&s))).collect();
        assert_eq!(found, of_metric.map(|(l, p)| (l.clone(), p.clone())).collect());
        assert_eq!(labels.len(), found.len());
    }
    let rounds = worker.round().await;
    assert_eq!((rounds.jobs, rounds.left), (0, 0), "shares are not merged with one another");
    // Late samples over them go into all that they concern, once.
    let mut late = seen.clone();
    let (from, to) = (T0 + 2 * H, T0 + 3 * H);
    let block: Vec<SeriesColumns> = (0..5)
        .map(|s| {
            let name = format!("m{}", s % 2);
            let instance = format!("i{s}");
            let samples = (from..to).step_by(77_000).map(|t| (t, -(s as f64)));
            floats(&[("__name__", &name), ("instance", &instance)], samples)
        })
        .collect();
    block.iter().for_each(|s| late.entry(s.labels.clone()).or_default().extend(points(s)));
    put_block(&store, scratch.path(), 100, block).await.unwrap();
    assert_eq!(read(&store).await.unwrap(), late);
    assert_eq!(worker.round().await.errors, Vec::<String>::new());
    assert_eq!(read(&store).await.unwrap(), late);
    let live = blocks_of(&store).await;
    assert_tidy(&live, "with late samples");
    assert_eq!(folders(&store).await, live.iter().map(|b| b.ulid.to_string()).collect());
    // Larger blocks again, once there is a reason to write them.
    put_block(&store, scratch.path(), 101, vec![floats(&[("__name__", "m9")], [(from, 1.0)])]).await.unwrap();
    let seen = read(&store).await.unwrap();
    let round = compactor(&store, settings(scratch.path()), "d", &late_clock()).round().await;
    assert_eq!(round.errors, Vec::<String>::new());
    assert_eq!(read(&store).await.unwrap(), seen);
    assert!(blocks_of(&store).await.iter().any(|b| b.share.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn scratch_disk_stays_below_its_bound_whatever_there_is_to_merge() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let scratch = tempfile::tempdir().unwrap();
    // Nothing compresses it: eight bytes a value.
    let (blocks, hosts, samples) = (3i64, 600i64, 240i64);
    for b in 0..blocks {
        let series = (0..hosts)
            .map(|s| {
                let instance = format!("host-{s:05}");
                let times = (0..samples).map(|i| T0 + b * 2 * H + 1 + i * 30_000);
                let values = times.map(|t| (t, ((t * 7919 + s * 104_729) as f64).sin()));
                floats(&[("__name__", "noise"), ("instance", &instance)], values)
            })
            .collect();
        put_block(&store, scratch.path(), b as u64 + 1, series).await.unwrap();
    }
    let mut s = settings(scratch.path());
    s.max_scratch_bytes = 1 << 20;
    s.max_memory_bytes = 8 << 20;
    let bound = s.max_scratch_bytes;
    let worker = Arc::new(compactor(&store, s, "c", &late_clock()));
    let working = tokio::spawn({
        let worker = worker.clone();
        async move { worker.round().await }
    });
    let mut most = 0;
    while !working.is_finished() {
        most = most.max(folder_bytes(scratch.path()));
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    assert_eq!(working.await.unwrap().errors, Vec::<String>::new());
    let run = worker.runs()[0].result.clone().unwrap();
    assert_eq!(run.samples_written, (blocks * hosts * samples) as u64);
    assert!(run.written_bytes > 3 * bound && run.outputs >= 9, "{run:?}: nothing is shown");
    assert!(most > bound / 4 && most <= bound, "{most} of {bound}");
}

/// Bytes of all files below a folder, which may change meanwhile.
fn folder_bytes(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |e: std::fs::DirEntry| match e.metadata() {
        Ok(m) if m.is_dir() => folder_bytes(&e.path()),
        Ok(m) => m.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// One process that dies at an operation, and one that comes after it.
async fn dies_at(n: u64, after_doing: bool, shares: bool) -> bool {
    let inner = Arc::new(InMemory::new());
    let healthy: Arc<dyn ObjectStore> = inner.clone();
    let seen = some_bucket(&healthy, n as i64).await;
    let died = Arc::new(AtomicBool::new(false));
    let told = died.clone();
    let dying = FatefulStore::new(inner, move |at| match at.cmp(&n) {
        std::cmp::Ordering::Less => Fate::Fine,
        std::cmp::Ordering::Equal if after_doing => {
            told.store(true, Ordering::SeqCst);
            Fate::AnswerLost
        }
        _ => {
            told.store(true, Ordering::SeqCst);
            Fate::Refused
        }
    });
    let scratch = tempfile::tempdir().unwrap();
    let clock = late_clock();
    {
        let mut s = if shares { small_blocks(scratch.path()) } else { settings(scratch.path()) };
        // A dead process does not try again.
        s.attempts = 1;
        let store: Arc<dyn ObjectStore> = dying;
        compactor(&store, s, "first", &clock).round().await;
    }
    assert_eq!(read(&healthy).await.unwrap(), seen, "after death at {n}, {after_doing}");
    clock.advance(3600 * 1000);
    let round = compactor(&healthy, settings(scratch.path()), "second", &clock).round().await;
    assert_eq!(round.errors, Vec::<String>::new(), "after death at {n}, {after_doing}");
    assert_eq!(read(&healthy).await.unwrap(), seen, "after death at {n}, {after_doing}, and the next round");
    let live = blocks_of(&healthy).await;
    assert_eq!(folders(&healthy).await, live.iter().map(|b| b.ulid.to_string()).collect(), "death at {n}");
    assert_tidy(&live, &format!("death at {n}"));
    died.load(Ordering::SeqCst)
}

#[test]
fn process_that_dies_at_any_step_leaves_nothing_visible_and_nothing_behind() {
    for (after_doing, shares) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut n = 0;
        loop {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            if !runtime.block_on(dies_at(n, after_doing, shares)) {
                break;
            }
            // Every step of the first jobs, a sieve over the rest.
            n += if n < 40 {
                1
            } else if shares {
                31
            } else {
                9
            };
        }
        assert!(n > 100, "only {n} operations were reached");
    }
}

/// Compactors race over a store that refuses, loses answers and delays, while a reader reads.
async fn race(seed: u64, compactors: usize) {
    let inner = Arc::new(InMemory::new());
    let healthy: Arc<dyn ObjectStore> = inner.clone();
    let seen = some_bucket(&healthy, seed as i64).await;
    let faulty = FatefulStore::new(inner, move |n| {
        let x = (n + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed)
            .rotate_left(23)
            .wrapping_mul(0xbf58_476d_1ce4_e5b9)
            >> 33;
        match x % 40 {
            0 => Fate::Refused,
            1 => Fate::AnswerLost,
            2 | 3 => Fate::Slow,
            _ => Fate::Fine,
        }
    });
    let store: Arc<dyn ObjectStore> = faulty;
    let scratch = tempfile::tempdir().unwrap();
    let clock = late_clock();
    let workers: Vec<_> = (0..compactors)
        .map(|i| {
            let small = seed % 4 == 2;
            let mut s = if small { small_blocks(scratch.path()) } else { settings(scratch.path()) };
            // Odd seeds race without leases: only the catalog stands between them.
            if seed % 2 == 1 {
                s.lease = Duration::ZERO;
            }
            // Readers may be on what was replaced; objects go at the end.
            s.orphan_grace = Duration::from_secs(1 << 40);
            let worker = compactor(&store, s, &format!("c{i}"), &clock);
            let clock = clock.clone();
            tokio::spawn(async move {
                for _ in 0..6 {
                    worker.round().await;
                    // What failed is tried again.
                    clock.advance(2 * H);
                }
            })
        })
        .collect();
    while !workers.iter().all(|w| w.is_finished()) {
        assert_eq!(read(&healthy).await.unwrap(), seen, "seed {seed}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for w in workers {
        w.await.unwrap();
    }
    clock.advance(24 * H);
    let last = compactor(&healthy, settings(scratch.path()), "last", &clock).round().await;
    assert_eq!(last.errors, Vec::<String>::new(), "seed {seed}");
    assert_eq!(read(&healthy).await.unwrap(), seen, "seed {seed}");
    let live = blocks_of(&healthy).await;
    let samples: u64 = live.iter().filter(|b| b.resolution_ms == 0).map(|b| b.stats.samples).sum();
    assert_eq!(samples, seen.values().map(|p| p.len() as u64).sum::<u64>(), "seed {seed}: each sample once");
    assert_eq!(folders(&healthy).await, live.iter().map(|b| b.ulid.to_string()).collect(), "seed {seed}");
}

#[test]
fn compactors_that_race_over_a_failing_store_lose_and_double_nothing() {
    for seed in 0..40 {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        runtime.block_on(race(seed, 2 + seed as usize % 2));
    }
}

/// Flips a bit of an object.
async fn damage(store: &Arc<dyn ObjectStore>, meta: &BlockMeta, name: &str) {
    let path = layout::block_file(&TenantId::single(), meta.ulid, name);
    let mut bytes = store.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
    let at = bytes.len() / 3;
    bytes[at] ^= 4;
    store.put(&path, PutPayload::from(bytes)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_block_is_put_aside_and_the_rest_goes_on() {
    for name in [layout::SAMPLES, layout::SERIES, layout::TIMELINES] {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        some_bucket(&store, 0).await;
        let damaged = blocks_of(&store).await[1].clone();
        damage(&store, &damaged, name).await;
        let scratch = tempfile::tempdir().unwrap();
        let clock = late_clock();
        let worker = compactor(&store, settings(scratch.path()), "c", &clock);
        let round = worker.round().await;
        assert_eq!(round.errors, Vec::<String>::new(), "{name}");
        let snapshot = catalog(&store, "reader").await.snapshot();
        let why = &snapshot.quarantined[&damaged.ulid];
        assert!(why.reason.contains(name) && why.found_by == "c", "{why:?}");
        assert!(snapshot.blocks.iter().any(|b| b.ulid == damaged.ulid), "it stays live");
        let rest: Vec<_> = snapshot.blocks.iter().filter(|b| b.ulid != damaged.ulid).cloned().collect();
        assert_tidy(&rest, name);
        assert!(read(&store).await.unwrap_err().contains("damaged"), "queries say so");
        assert!(folders(&store).await.contains(&damaged.ulid.to_string()), "and its objects stay");
        // Another process knows.
        assert_eq!(compactor(&store, settings(scratch.path()), "d", &clock).round().await.jobs, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_below_its_bound_whatever_the_blocks_hold() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let scratch = tempfile::tempdir().unwrap();
    // 6 blocks of 4,000 series × 240 samples that nothing compresses: 46 MB of values each uncompressed as
    // columns with times.
    let mut bytes = 0;
    for b in 0..6i64 {
        let series = (0..4000i64)
            .map(|s| {
                let instance = format!("host-{s:05}");
                let times = (0..240).map(|i| T0 + b * 2 * H + 1 + i * 30_000 + s % 50);
                let samples = times.map(|t| (t, ((t * 7919 + s * 104_729) as f64).sin()));
                floats(&[("__name__", "noise"), ("instance", &instance)], samples)
            })
            .collect();
        bytes += put_block(&store, scratch.path(), b as u64 + 1, series).await.unwrap().files.bytes();
    }
    let mut s = settings(scratch.path());
    s.max_memory_bytes = 24 << 20;
    let bound = s.max_memory_bytes;
    assert!(bytes > bound, "only {bytes} bytes of blocks: nothing is shown");
    let worker = compactor(&store, s, "c", &late_clock());
    assert_eq!(worker.round().await.errors, Vec::<String>::new());
    let run = worker.runs()[0].result.clone().unwrap();
    assert_eq!(run.samples_written, 6 * 4000 * 240);
    assert!(run.peak_memory_bytes > 4 << 20, "{} is not all that was held", run.peak_memory_bytes);
    assert!(run.peak_memory_bytes <= bound, "{} of {bound}", run.peak_memory_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_leaves_everything_as_it_was() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let seen = some_bucket(&store, 0).await;
    let scratch = tempfile::tempdir().unwrap();
    let worker = compactor(&store, settings(scratch.path()), "c", &late_clock());
    worker.stop();
    assert_eq!(worker.round().await.jobs, 0);
    assert_eq!(read(&store).await.unwrap(), seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_a_sample_a_day_become_one_a_year_and_late_ones_join_it() {
    const DAY: i64 = 24 * H;
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let scratch = tempfile::tempdir().unwrap();
    let sample = |t| floats(&[("__name__", "daily")], [(t, t as f64)]);
    let mut seen = Seen::new();
    let mut put = async |n: u64, t: i64| {
        seen.entry(sample(t).labels).or_default().extend(points(&sample(t)));
        put_block(&store, scratch.path(), n, vec![sample(t)]).await.unwrap();
        seen.clone()
    };
    let mut all = Seen::new();
    for day in 0..240 {
        all = put(day as u64 + 1, T0 + day * DAY + H).await;
    }
    let clock = ManualClock::at(T0 + 300 * DAY);
    let worker = compactor(&store, settings(scratch.path()), "c", &clock);
    let round = worker.round().await;
    assert_eq!((round.errors, round.jobs), (vec![], 1));
    assert_eq!(read(&store).await.unwrap(), all);
    // Samples, and rollups of both resolutions.
    assert_eq!(blocks_of(&store).await.len(), 3);
    assert_eq!(worker.round().await.jobs, 0);
    let all = put(1_000, T0 + 100 * DAY).await;
    assert_eq!(worker.round().await.errors, Vec::<String>::new());
    assert_eq!(worker.round().await.jobs, 0);
    assert_eq!(read(&store).await.unwrap(), all);
    assert_eq!(blocks_of(&store).await.len(), 3);
}
