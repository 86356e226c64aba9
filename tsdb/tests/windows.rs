//! Windows: what they tell is what their samples tell, however they were made, written, read and put
//! together.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Histogram};
use model::labels::Labels;
use model::rollup::downsample::downsample;
use model::rollup::{Aggregates, Window};
use model::sample::{is_stale, stale_nan};
use model::source::merge::{SharedTimelines, merge_copies};
use model::source::testing::conformance::drain;
use model::source::testing::rng::Rng;
use model::source::{Budget, Hints, ResolutionReport, RollupHints, Selection, SeriesColumns, SeriesCursor};
use model::span::span_end;
use model::tenant::TenantId;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tsdb::block::upload::upload;
use tsdb::block::{BlockMeta, BlockOrigin, BlockReader, BlockWriter, ReadOptions, WriteOptions};
use tsdb::bucket::{BlockStore, BucketSource};
use tsdb::deletion::Visibility;
use ulid::Ulid;

const M: i64 = 60_000;
const FIVE_M: i64 = 5 * M;
const HOUR: i64 = 60 * M;
/// A full hour.
const BASE_MS: i64 = 1_767_225_600_000;

const KINDS: [&str; 10] =
    ["constant", "counter", "custom", "ends", "gauge", "markers", "mixed", "native", "nans", "whole"];

fn native(random: &mut Rng, level: f64, custom: bool) -> Arc<Histogram> {
    let hints = [CounterResetHint::Unknown, CounterResetHint::Unknown, CounterResetHint::NotCounterReset];
    Arc::new(Histogram {
        counter_reset_hint: hints[random.below(3) as usize],
        schema: if custom { CUSTOM_BUCKETS_SCHEMA } else { [3, 3, 2][random.below(3) as usize] },
        count: 3.0 * level,
        sum: level * 0.5,
        positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
        positive_buckets: vec![level, 2.0 * level],
        custom_values: custom.then(|| Arc::from([1.0, 2.0, 5.0])),
        ..Histogram::default()
    })
}

/// Some hours of one series; samples at the edges of windows among them.
fn series(kind: &str, number: usize, hours: i64, random: &mut Rng) -> SeriesColumns {
    let step = [15_000, 60_000, 47_000][number % 3];
    let mut ts: Vec<i64> = (1..=hours * HOUR / step)
        .map(|i| BASE_MS + i * step - if number.is_multiple_of(2) { 0 } else { random.below(5_000) as i64 })
        .collect();
    if number % 4 == 3 {
        // Gaps of more than an hour.
        ts.retain(|t| (t / HOUR) % 3 != 1);
    }
    ts.dedup();
    let mut level = random.below(1000) as f64;
    let mut histograms = Vec::new();
    let mut values = Vec::new();
    for i in 0..ts.len() {
        if random.below(150) == 0 {
            level = random.below(9) as f64;
        }
        level += random.below(7) as f64;
        let any = random.roll();
        let v = match kind {
            "constant" => 4.5,
            "gauge" => (any % 10_000) as f64 / 7.0 - 300.0,
            "nans" if !any.is_multiple_of(3) => f64::NAN,
            "markers" if (i / 100) % 2 == 1 => stale_nan(),
            "ends" if any.is_multiple_of(40) => stale_nan(),
            "whole" => (any % 64) as f64,
            _ => level,
        };
        let marker = kind == "native" && any.is_multiple_of(70);
        let histogram = match kind {
            "native" | "custom" if !marker => Some(native(random, level, kind == "custom")),
            "mixed" if (i / 37) % 2 == 0 => Some(native(random, level, false)),
            _ => None,
        };
        let v = if marker { stale_nan() } else { v };
        values.push(histogram.as_ref().map_or(v, |h| h.sum));
        histograms.push(histogram);
    }
    SeriesColumns {
        labels: Labels::from_pairs([("__name__", kind.to_string()), ("n", number.to_string())]),
        ts_ms: ts.into(),
        values,
        histograms: histograms.iter().any(Option::is_some).then_some(histograms),
        start_ts_ms: None,
        windows: None,
    }
}

fn all_series(hours: i64, seed: u64) -> Vec<SeriesColumns> {
    let mut random = Rng(seed);
    let mut all: Vec<_> = KINDS
        .iter()
        .flat_map(|kind| (0..4).map(move |n| (kind, n)))
        .map(|(kind, n)| series(kind, n, hours, &mut random))
        .collect();
    all.sort_by(|a, b| a.labels.series_cmp(&b.labels));
    all
}

/// Float by float with the rounding of sums forgiven.
fn near(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
}

fn near_histograms(a: Option<&Arc<Histogram>>, b: Option<&Arc<Histogram>>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return a.is_none() && b.is_none() };
    let all = |h: &Histogram| {
        [&[h.count, h.sum, h.zero_count][..], &h.positive_buckets, &h.negative_buckets].concat()
    };
    let (mut x, mut y) = ((**a).clone(), (**b).clone());
    x.compact(0);
    y.compact(0);
    x.schema == y.schema
        && x.positive_spans == y.positive_spans
        && x.custom_bounds() == y.custom_bounds()
        && all(&x).iter().zip(all(&y)).all(|(a, b)| near(*a, b))
}

fn assert_windows_alike(a: &Window, b: &Window, context: &str) {
    let numbers = |w: &Window| (w.ts_ms, w.stale, w.count, w.histogram_count, w.resets, w.changes);
    assert_eq!(numbers(a), numbers(b), "{context}: {a:?}\n{b:?}");
    assert_eq!((a.flags, a.schema), (b.flags, b.schema), "{context}");
    if a.count > 0 {
        assert_eq!((a.first.ts_ms, a.last.ts_ms), (b.first.ts_ms, b.last.ts_ms), "{context}");
        for (x, y) in [(&a.first, &b.first), (&a.last, &b.last)] {
            assert!(near_histograms(x.histogram.as_ref(), y.histogram.as_ref()), "{context}");
            assert!(x.histogram.is_some() || near(x.value, y.value), "{context}: {a:?}\n{b:?}");
        }
    }
    assert!(near(a.whole_sum(), b.whole_sum()), "{context}: {a:?}\n{b:?}");
    assert!(near(a.min, b.min) && near(a.max, b.max), "{context}: {a:?}\n{b:?}");
    assert!(near(a.reset_sum, b.reset_sum), "{context}: {a:?}\n{b:?}");
    assert!(near_histograms(a.histogram_sum.as_ref(), b.histogram_sum.as_ref()), "{context}: {a:?}\n{b:?}");
    let (x, y) = (a.histogram_reset_sum.as_ref(), b.histogram_reset_sum.as_ref());
    assert!(near_histograms(x, y), "{context}: {x:?}\n{y:?}");
}

fn assert_alike(a: &SeriesColumns, b: &SeriesColumns, context: &str) {
    assert_eq!(a.labels, b.labels);
    let context = format!("{context}, {}", a.labels);
    assert_eq!(a.ts_ms, b.ts_ms, "{context}");
    let runs = |s: &SeriesColumns| s.windows.as_ref().map(|w| w.runs.clone());
    assert_eq!(runs(a), runs(b), "{context}");
    for i in 0..a.ts_ms.len() {
        assert_windows_alike(&a.window(i), &b.window(i), &format!("{context}, window {i}"));
    }
}

/// What a window of floats tells, found from its samples one by one.
fn assert_tells(w: &Window, samples: &[(i64, f64)], context: &str) {
    let live: Vec<(i64, f64)> = samples.iter().copied().filter(|(_, v)| !is_stale(*v)).collect();
    assert_eq!(w.ts_ms, samples[samples.len() - 1].0, "{context}");
    assert_eq!(w.stale, is_stale(samples[samples.len() - 1].1), "{context}");
    assert_eq!(w.count as usize, live.len(), "{context}");
    let pairs = || live.windows(2).map(|p| (p[0].1, p[1].1));
    assert_eq!(w.resets as usize, pairs().filter(|(a, b)| b < a).count(), "{context}");
    let changed = |(a, b): &(f64, f64)| a != b && !(a.is_nan() && b.is_nan());
    assert_eq!(w.changes as usize, pairs().filter(changed).count(), "{context}");
    let (Some(first), Some(last)) = (live.first(), live.last()) else { return };
    assert_eq!((w.first.ts_ms, w.last.ts_ms), (first.0, last.0), "{context}");
    assert!(near(w.first.value, first.1) && near(w.last.value, last.1), "{context}");
    let mut increase = last.1 - first.1;
    pairs().filter(|(a, b)| b < a).for_each(|(a, _)| increase += a);
    assert!(near(w.last.value - w.first.value + w.reset_sum, increase), "{context}");
    let numbers = || live.iter().map(|s| s.1).filter(|v| !v.is_nan());
    assert!(near(w.min, numbers().reduce(f64::min).unwrap_or(f64::NAN)), "{context}");
    assert!(near(w.max, numbers().reduce(f64::max).unwrap_or(f64::NAN)), "{context}");
    assert!(
        (w.whole_sum() - live.iter().map(|s| s.1).sum::<f64>()).abs() < 1e-6
            || live.iter().any(|s| s.1.is_nan()),
        "{context}"
    );
}

#[test]
fn windows_tell_what_their_samples_tell() {
    for series in all_series(9, 1) {
        if series.histograms.is_some() {
            continue;
        }
        for resolution in [FIVE_M, HOUR] {
            let windows = downsample(&series, resolution);
            let mut by_end: BTreeMap<i64, Vec<(i64, f64)>> = BTreeMap::new();
            for (t, v) in series.ts_ms.iter().zip(&series.values) {
                by_end.entry(span_end(*t, resolution)).or_default().push((*t, *v));
            }
            assert_eq!(windows.ts_ms.len(), by_end.len());
            for (i, (end, samples)) in by_end.iter().enumerate() {
                let context = format!("{} window {end} of {resolution}", series.labels);
                assert_tells(&windows.window(i), samples, &context);
            }
        }
    }
}

#[test]
fn hours_from_five_minutes_are_hours_from_samples_wherever_the_series_was_cut() {
    for (number, series) in all_series(9, 2).into_iter().enumerate() {
        let hours = downsample(&series, HOUR);
        assert_alike(&downsample(&downsample(&series, FIVE_M), HOUR), &hours, "from 5 m");
        // Cut in the midst of a window: two runs, and one window again when they are joined.
        let n = series.ts_ms.len();
        let cut = n / 3 + number;
        let part = |range: std::ops::Range<usize>| series.pick(&range.collect::<Vec<_>>());
        let (a, b) = (downsample(&part(0..cut), FIVE_M), downsample(&part(cut..n), FIVE_M));
        let joined = merge_copies(vec![b, a], &mut SharedTimelines::default());
        assert_alike(&downsample(&joined, HOUR), &hours, "cut");
        // Windows first and samples after them.
        let mixed = merge_copies(
            vec![downsample(&part(0..cut), FIVE_M), part(cut..n)],
            &mut SharedTimelines::default(),
        );
        assert_eq!(mixed.windows.as_ref().unwrap().runs.len(), 2, "{}", series.labels);
        assert_alike(&downsample(&mixed, HOUR), &hours, "windows and samples");
    }
}

#[test]
fn sample_sets_that_interleave_are_put_together() {
    for series in all_series(6, 3) {
        let n = series.ts_ms.len();
        let of = |keep: &dyn Fn(usize) -> bool| series.pick(&(0..n).filter(|i| keep(*i)).collect::<Vec<_>>());
        let whole = downsample(&series, FIVE_M);
        for late in [
            merge_copies(
                vec![downsample(&of(&|i| i % 5 != 0), FIVE_M), downsample(&of(&|i| i % 5 == 0), FIVE_M)],
                &mut SharedTimelines::default(),
            ),
            merge_copies(
                vec![downsample(&of(&|i| i % 5 != 0), FIVE_M), of(&|i| i % 5 == 0)],
                &mut SharedTimelines::default(),
            ),
        ] {
            let late = downsample(&late, FIVE_M);
            assert_eq!(late.ts_ms, whole.ts_ms, "{}", series.labels);
            for i in 0..whole.ts_ms.len() {
                let (a, b) = (late.window(i), whole.window(i));
                let known = |w: &Window| (w.stale, w.count, w.first.ts_ms, w.last.ts_ms, w.histogram_count);
                assert_eq!(known(&a), known(&b), "{} window {i}", series.labels);
                assert!(near(a.min, b.min) && near(a.max, b.max), "{} window {i}", series.labels);
                let (x, y) = (a.whole_sum(), b.whole_sum());
                assert!(near(x, y) || (x - y).abs() < 1e-9, "{} window {i}: {x} {y}", series.labels);
            }
        }
        // The very same windows twice are a copy.
        let copies = vec![whole.clone(), whole.clone()];
        assert_alike(&merge_copies(copies, &mut SharedTimelines::default()), &whole, "copies");
    }
}

struct Bucket {
    runtime: tokio::runtime::Runtime,
    store: Arc<dyn ObjectStore>,
    scratch: tempfile::TempDir,
}

impl Bucket {
    fn new() -> Bucket {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Bucket { runtime, store: Arc::new(InMemory::new()), scratch: tempfile::tempdir().unwrap() }
    }

    fn put(
        &self,
        series: impl IntoIterator<Item = SeriesColumns>,
        resolution_ms: i64,
        sources: &[Ulid],
        options: WriteOptions,
    ) -> Arc<BlockMeta> {
        let origin = BlockOrigin {
            resolution_ms,
            sources: sources.to_vec(),
            ..BlockOrigin::flushed(Ulid::new(), TenantId::single(), "test")
        };
        let mut writer = BlockWriter::create(self.scratch.path(), origin, options).unwrap();
        series.into_iter().for_each(|s| writer.append(s).unwrap());
        let files = writer.finish().unwrap().unwrap();
        self.runtime.block_on(upload(&*self.store, &files)).unwrap();
        Arc::new(files.meta.clone())
    }

    fn blocks(&self) -> Arc<BlockStore> {
        BlockStore::new(self.store.clone(), self.runtime.handle().clone(), 64 << 20)
    }

    fn source(&self, blocks: &[Arc<BlockMeta>]) -> BucketSource {
        BucketSource::new(self.blocks(), TenantId::single(), blocks.to_vec())
    }
}

fn selection(range: (i64, i64), windows: RollupHints) -> Selection {
    Selection {
        matchers: Vec::new(),
        min_t_ms: range.0,
        max_t_ms: range.1,
        hints: Hints { rollups: windows, ..Hints::default() },
        budget: Budget::unlimited(),
    }
}

fn small_pages(resolution: i64) -> WriteOptions {
    WriteOptions {
        slice_ms: 3 * HOUR,
        values_per_page: 64,
        rows_per_page: 3,
        row_group_samples: 2000,
        row_samples: 29,
        ..WriteOptions::downsampled(resolution)
    }
}

#[test]
fn block_gives_back_the_windows_that_were_written() {
    let bucket = Bucket::new();
    let raw = all_series(20, 4);
    for resolution in [FIVE_M, HOUR] {
        let windows: Vec<_> = raw.iter().map(|s| downsample(s, resolution)).collect();
        for options in [WriteOptions::downsampled(resolution), small_pages(resolution)] {
            let meta = bucket.put(windows.clone(), resolution, &[], options);
            assert_eq!(meta.version, 4);
            assert_eq!(meta.stats.samples, windows.iter().map(|s| s.ts_ms.len() as u64).sum::<u64>());
            let first = raw.iter().filter_map(|s| s.ts_ms.first()).min().copied().unwrap();
            assert_eq!(meta.min_t_ms, first, "the first sample, not the first window's last");
            let mut reader = BlockReader::open(
                &bucket.blocks(),
                &TenantId::single(),
                &meta,
                &Visibility::default(),
                ReadOptions { batch_bytes: 4096, ..ReadOptions::default() },
            )
            .unwrap();
            let mut read = Vec::new();
            while let Some(batch) = reader.next_batch().unwrap() {
                read.extend(batch);
            }
            assert_eq!(read.len(), windows.len());
            for (a, b) in read.iter().zip(&windows) {
                assert_alike(a, b, "whole");
            }
            let source = bucket.source(&[meta]);
            let range = (BASE_MS + 7 * FIVE_M + 1, BASE_MS + 13 * HOUR + 2 * FIVE_M);
            for aggregates in [
                Aggregates::NONE,
                Aggregates::COUNT,
                Aggregates::FIRST,
                Aggregates::SUM,
                Aggregates::MIN,
                Aggregates::MAX,
                Aggregates::RESETS,
                Aggregates::CHANGES,
                Aggregates::FIRST.and(Aggregates::COUNT).and(Aggregates::RESET_SUM),
                Aggregates::ALL,
            ] {
                let hints = RollupHints { max_resolution_ms: HOUR, aggregates, ..RollupHints::default() };
                let read = drain(&source, &selection(range, hints)).unwrap();
                let within = |s: &SeriesColumns| {
                    let keep: Vec<usize> =
                        (0..s.ts_ms.len()).filter(|i| (range.0..=range.1).contains(&s.ts_ms[*i])).collect();
                    s.pick(&keep)
                };
                let want: Vec<_> = windows.iter().map(within).filter(|s| !s.ts_ms.is_empty()).collect();
                assert_eq!(read.len(), want.len());
                for (a, b) in read.iter().zip(&want) {
                    assert_eq!(a.windows.as_ref().unwrap().aggregates(), aggregates);
                    assert_columns(a, b, aggregates);
                }
            }
        }
    }
}

/// The columns asked for, bit for bit but for NaNs.
fn assert_columns(a: &SeriesColumns, b: &SeriesColumns, asked: Aggregates) {
    let context = format!("{} {asked:?}", b.labels);
    assert_eq!(a.ts_ms, b.ts_ms, "{context}");
    let bits = |v: &[f64]| -> Vec<u64> {
        let one = |v: &f64| if v.is_nan() && !is_stale(*v) { 1 } else { v.to_bits() };
        v.iter().map(one).collect()
    };
    assert_eq!(bits(&a.values), bits(&b.values), "{context}");
    let (x, y) = (a.windows.as_ref().unwrap(), b.windows.as_ref().unwrap());
    for (what, p, q) in [
        (Aggregates::FIRST, &x.first, &y.first),
        (Aggregates::SUM, &x.sum, &y.sum),
        (Aggregates::MIN, &x.min, &y.min),
        (Aggregates::MAX, &x.max, &y.max),
        (Aggregates::RESET_SUM, &x.reset_sum, &y.reset_sum),
    ] {
        if asked.has(what) {
            assert_eq!(bits(p.as_ref().unwrap()), bits(q.as_ref().unwrap()), "{context}: {what:?}");
        }
    }
    for (what, p, q) in [
        (Aggregates::COUNT, &x.count, &y.count),
        (Aggregates::RESETS, &x.resets, &y.resets),
        (Aggregates::CHANGES, &x.changes, &y.changes),
    ] {
        if asked.has(what) {
            assert_eq!(p, q, "{context}: {what:?}");
        }
    }
    if asked.has(Aggregates::FIRST) {
        assert_eq!(x.first_ts_ms, y.first_ts_ms, "{context}");
    }
    assert_eq!(x.ended.len(), y.ended.len(), "{context}");
    for (p, q) in x.ended.iter().zip(&y.ended) {
        assert_eq!((p.at, p.ts_ms), (q.at, q.ts_ms), "{context}");
        assert!(near_histograms(p.histogram.as_ref(), q.histogram.as_ref()), "{context}");
    }
}

/// What stands at each window's end, told by the series alone.
fn newest_at(series: &SeriesColumns, t: i64) -> Option<(i64, u64)> {
    let at = series.ts_ms.partition_point(|x| *x <= t).checked_sub(1)?;
    Some((series.ts_ms[at], series.values[at].to_bits()))
}

#[test]
fn late_samples_make_windows_stale_where_they_lie_and_nowhere_else() {
    let bucket = Bucket::new();
    let raw = all_series(12, 5);
    let n = |s: &SeriesColumns| s.ts_ms.len();
    // Everything but every seventh sample of the fifth hour was there when the block was compacted.
    let is_late = |t: i64, i: usize| span_end(t, HOUR) == BASE_MS + 5 * HOUR && i.is_multiple_of(7);
    let split = |s: &SeriesColumns, late: bool| {
        s.pick(&(0..n(s)).filter(|i| is_late(s.ts_ms[*i], *i) == late).collect::<Vec<_>>())
    };
    let early: Vec<_> = raw.iter().map(|s| split(s, false)).collect();
    let late: Vec<_> = raw.iter().map(|s| split(s, true)).filter(|s| n(s) > 0).collect();
    let flushed = Ulid::new();
    let samples = bucket.put(early.clone(), 0, &[flushed], WriteOptions::compacted());
    let five = bucket.put(
        early.iter().map(|s| downsample(s, FIVE_M)),
        FIVE_M,
        &[flushed],
        WriteOptions::downsampled(FIVE_M),
    );
    let hours = bucket.put(
        early.iter().map(|s| downsample(s, HOUR)),
        HOUR,
        &[flushed],
        WriteOptions::downsampled(HOUR),
    );
    let came_late = bucket.put(late, 0, &[], WriteOptions::fresh());
    let source = bucket.source(&[samples.clone(), five.clone(), hours.clone(), came_late.clone()]);
    let answered = Arc::new(ResolutionReport::default());
    let hints = RollupHints {
        max_resolution_ms: HOUR,
        aggregates: Aggregates::ALL,
        cuts_ms: vec![BASE_MS + 8 * HOUR + 7 * M],
        report: Some(answered.clone()),
    };
    let read = drain(&source, &selection((BASE_MS + 1, BASE_MS + 12 * HOUR), hints)).unwrap();
    let parts: Vec<(i64, i64, i64, bool)> = answered
        .parts()
        .iter()
        .map(|p| ((p.min_t_ms - 1 - BASE_MS) / M, (p.max_t_ms - BASE_MS) / M, p.resolution_ms / M, p.exact()))
        .collect();
    // The fifth hour from samples throughout (late ones lie in each of its windows), five minutes around the
    // cut from samples, the rest of that hour from windows of five minutes.
    assert_eq!(
        parts,
        [
            (0, 240, 60, true),
            (240, 300, 0, true),
            (300, 480, 60, true),
            (480, 485, 5, true),
            (485, 490, 0, true),
            (490, 540, 5, true),
            (540, 720, 60, true),
        ]
    );
    assert_eq!(read.len(), raw.len());
    for (got, whole) in read.iter().zip(&raw) {
        assert_alike(&downsample(got, HOUR), &downsample(whole, HOUR), "late");
        for h in 1..=12 {
            let t = BASE_MS + h * HOUR;
            assert_eq!(newest_at(got, t).map(|x| x.0), newest_at(whole, t).map(|x| x.0), "{}", whole.labels);
        }
    }
    // Samples that are gone: windows speak, together with what came late, and say that they are not what was
    // asked for.
    let answered = Arc::new(ResolutionReport::default());
    let hints =
        RollupHints { report: Some(answered.clone()), aggregates: Aggregates::ALL, ..RollupHints::default() };
    let left = bucket.source(&[five, hours, came_late]);
    let read = drain(&left, &selection((BASE_MS + 1, BASE_MS + 12 * HOUR), hints)).unwrap();
    assert!(
        answered.parts().iter().all(|p| p.resolution_ms == FIVE_M && !p.exact()),
        "{:?}",
        answered.parts()
    );
    for (got, whole) in read.iter().zip(&raw) {
        let (got, want) = (downsample(got, HOUR), downsample(whole, HOUR));
        assert_eq!(got.ts_ms, want.ts_ms);
        let counts = |s: &SeriesColumns| s.windows.as_ref().unwrap().count.clone();
        assert_eq!(counts(&got), counts(&want), "{}", whole.labels);
    }
}

#[test]
fn windows_that_are_coarser_are_not_hidden_by_finer_ones_of_what_came_later() {
    let bucket = Bucket::new();
    let raw = all_series(12, 6);
    // Half of the samples were downsampled and their samples and windows of five minutes are gone; the other
    // half was imported later.
    let half = |s: &SeriesColumns, which: usize| {
        s.pick(&(0..s.ts_ms.len()).filter(|i| i % 2 == which).collect::<Vec<_>>())
    };
    let put = |which: usize, resolution: i64, source: Ulid| {
        let windows: Vec<_> = raw.iter().map(|s| downsample(&half(s, which), resolution)).collect();
        bucket.put(windows, resolution, &[source], WriteOptions::downsampled(resolution))
    };
    let (old, new) = (Ulid::new(), Ulid::new());
    let blocks = [put(0, HOUR, old), put(1, FIVE_M, new), put(1, HOUR, new)];
    for max_resolution_ms in [0, FIVE_M, HOUR] {
        let answered = Arc::new(ResolutionReport::default());
        let hints = RollupHints {
            max_resolution_ms,
            aggregates: Aggregates::ALL,
            report: Some(answered.clone()),
            ..RollupHints::default()
        };
        let read =
            drain(&bucket.source(&blocks), &selection((BASE_MS + 1, BASE_MS + 12 * HOUR), hints)).unwrap();
        assert!(
            answered.parts().iter().all(|p| p.resolution_ms == HOUR && !p.exact()),
            "{:?}",
            answered.parts()
        );
        for (got, whole) in read.iter().zip(&raw) {
            let (got, want) = (downsample(got, HOUR), downsample(whole, HOUR));
            let counts = |s: &SeriesColumns| s.windows.as_ref().unwrap().count.clone();
            assert_eq!(counts(&got), counts(&want), "{}", whole.labels);
        }
    }
    // Five minutes speak where they have all.
    let answered = Arc::new(ResolutionReport::default());
    let hints = RollupHints { report: Some(answered.clone()), ..RollupHints::default() };
    drain(&bucket.source(&blocks[1..]), &selection((BASE_MS + 1, BASE_MS + 12 * HOUR), hints)).unwrap();
    assert!(answered.parts().iter().all(|p| p.resolution_ms == FIVE_M), "{:?}", answered.parts());
}
