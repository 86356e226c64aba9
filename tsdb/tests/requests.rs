//! What a query asks of the object store: how many round trips one after the other, how many bytes, and never
//! a LIST or a HEAD.

mod faulty_store;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use faulty_store::{FaultyStore, Gate};
use futures::FutureExt;
use model::labels::Labels;
use model::matcher::{MatchOp, Matcher};
use model::source::{Budget, Hints, LabelQuery, Selection, SeriesColumns, Source};
use model::tenant::TenantId;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use tsdb::block::{BlockOrigin, WriteOptions, write_block};
use tsdb::bucket::{BlockStore, BucketSource, DiskCache};
use tsdb::db::{Db, DbOptions};
use ulid::Ulid;

/// Nothing new for so long, and all who wait are of one round: they are answered together.
const QUIET: Duration = Duration::from_millis(120);
/// The same where a lot is decoded between two rounds.
const LONG_QUIET: Duration = Duration::from_millis(1_000);

/// What was asked since it was last looked at.
#[derive(Clone, Debug, Default)]
struct Asked {
    gets: usize,
    heads: usize,
    lists: usize,
    puts: usize,
    bytes: u64,
    /// Rounds of GETs of which each began only after the one before was answered.
    rounds: usize,
    by_object: BTreeMap<String, usize>,
}

/// Holds a store's GETs back until no more come, and answers them together: so many answers, so many
/// dependent round trips.
#[derive(Debug, Default)]
struct Rounds {
    store: Arc<FaultyStore>,
    asked: Mutex<Asked>,
    /// Counts arrivals, so that quiet can be told, and the rounds that were answered.
    arrivals: Mutex<u64>,
    released: tokio::sync::watch::Sender<u64>,
    holds: Mutex<bool>,
    quiet: Mutex<Option<Duration>>,
}

impl Rounds {
    fn new() -> Arc<Rounds> {
        let rounds = Arc::new(Rounds::default());
        let of = Arc::downgrade(&rounds);
        let gate = move |path: &Path, options: &GetOptions| {
            let rounds = of.upgrade().expect("the test holds it");
            rounds.count(path, options);
            async move { rounds.wait_for_round().await }.boxed()
        };
        *rounds.store.on_get.lock().unwrap() = Some(Gate(Box::new(gate)));
        rounds
    }

    fn hold(&self, on: bool) {
        self.asked();
        *self.holds.lock().unwrap() = on;
    }

    fn asked(&self) -> Asked {
        let lists = self.store.lists.swap(0, Ordering::Relaxed) as usize;
        let puts = self.store.puts.swap(0, Ordering::Relaxed) as usize;
        Asked { lists, puts, ..std::mem::take(&mut *self.asked.lock().unwrap()) }
    }

    fn count(&self, path: &Path, options: &GetOptions) {
        let mut asked = self.asked.lock().unwrap();
        if options.head {
            asked.heads += 1;
        } else {
            asked.gets += 1;
        }
        if let Some(GetRange::Bounded(range)) = &options.range {
            asked.bytes += range.end - range.start;
        }
        *asked.by_object.entry(path.to_string()).or_default() += 1;
    }

    async fn wait_for_round(&self) {
        if !*self.holds.lock().unwrap() {
            return;
        }
        let mut released = self.released.subscribe();
        let round = *released.borrow();
        let arrivals = {
            let mut arrivals = self.arrivals.lock().unwrap();
            *arrivals += 1;
            *arrivals
        };
        let quiet = self.quiet.lock().unwrap().unwrap_or(QUIET);
        tokio::time::sleep(quiet).await;
        if *self.arrivals.lock().unwrap() == arrivals {
            // Nobody came after this one: all who wait are answered.
            self.asked.lock().unwrap().rounds += 1;
            self.released.send_modify(|r| *r += 1);
        }
        released.wait_for(|r| *r > round).await.expect("the sender is here");
    }
}

/// Just after a day has begun: blocks are cut at its end.
const T0: i64 = 1_700_006_400_000 + 60_000;
const SERIES: usize = 400;
const SAMPLES: i64 = 240;

fn labels(i: usize) -> Labels {
    let pairs = [
        ("__name__", format!("metric_{}", i % 20)),
        ("instance", format!("host-{i}")),
        ("job", "test".into()),
    ];
    Labels::from_pairs(pairs)
}

/// So many blocks of two hours each, in the store; the Db that wrote them is closed.
async fn fill(store: &Arc<dyn ObjectStore>, blocks: i64) {
    let dir = tempfile::tempdir().unwrap();
    let options = DbOptions { flush_when_due: false, ..DbOptions::new(dir.path(), store.clone()) };
    let db = Db::open(options).await.unwrap();
    for block in 0..blocks {
        let mut appender = db.appender(&TenantId::single()).await.unwrap();
        for i in 0..SERIES {
            let of = labels(i);
            let pairs: Vec<_> = of.iter().collect();
            let series = appender.series(&pairs);
            for n in 0..SAMPLES {
                // Not compressible to nothing: noise by a multiplicative hash.
                let noise =
                    ((i as i64 * 7919 + n * 104_729 + block).wrapping_mul(2_654_435_761) % 1_000_003) as f64;
                appender.float(series, T0 + block * 7_200_000 + n * 15_000, noise / 7.0, 0);
            }
        }
        appender.commit().await.unwrap();
        db.flush().await.unwrap();
    }
    db.close(false).await.unwrap();
}

/// The first batch of one series over all time.
async fn first_samples(db: &Arc<Db>, instance: &str) -> usize {
    let source = db.source(&TenantId::single());
    let matchers = vec![Matcher::equal("__name__", "metric_7"), Matcher::equal("instance", instance)];
    tokio::task::spawn_blocking(move || {
        let selection = Selection {
            matchers,
            min_t_ms: i64::MIN,
            max_t_ms: i64::MAX,
            hints: Hints::default(),
            budget: Budget::unlimited(),
        };
        let mut cursor = source.select(&selection).unwrap();
        let mut samples = 0;
        while let Some(batch) = cursor.next_batch().unwrap() {
            samples += batch.iter().map(|s| s.ts_ms.len()).sum::<usize>();
        }
        samples
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn cold_query_takes_three_round_trips_and_no_listing() {
    for blocks in [1, 6] {
        let rounds = Rounds::new();
        let store: Arc<dyn ObjectStore> = rounds.store.clone();
        fill(&store, blocks).await;
        let dir = tempfile::tempdir().unwrap();
        let options = DbOptions { flush_when_due: false, ..DbOptions::new(dir.path(), store.clone()) };
        let db = Db::open(options).await.unwrap();

        rounds.hold(true);
        assert_eq!(first_samples(&db, "host-7").await as i64, blocks * SAMPLES);
        let cold = rounds.asked();
        assert_eq!((cold.heads, cold.lists, cold.puts), (0, 0, 0), "{cold:?}");
        assert!(cold.rounds <= 3, "{cold:?}");
        assert!(cold.gets <= 6 * blocks as usize, "{cold:?}");

        // Another series of the same pages costs nothing more than its own pages; the same one nothing at
        // all.
        assert_eq!(first_samples(&db, "host-7").await as i64, blocks * SAMPLES);
        let warm = rounds.asked();
        assert_eq!((warm.gets, warm.rounds), (0, 0), "{warm:?}");
        assert_eq!(first_samples(&db, "host-27").await as i64, blocks * SAMPLES);
        let near = rounds.asked();
        assert!(near.rounds <= 1 && near.heads == 0 && near.lists == 0, "{near:?}");
        // What is not there is known from the labels.
        assert_eq!(first_samples(&db, "nobody").await, 0);
        assert_eq!(rounds.asked().gets, 0);
        rounds.hold(false);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn label_questions_take_one_round_trip_and_no_listing() {
    let rounds = Rounds::new();
    let store: Arc<dyn ObjectStore> = rounds.store.clone();
    fill(&store, 3).await;
    let dir = tempfile::tempdir().unwrap();
    let options = DbOptions { flush_when_due: false, ..DbOptions::new(dir.path(), store.clone()) };
    let db = Db::open(options).await.unwrap();
    rounds.hold(true);
    let source = db.source(&TenantId::single());
    let found = tokio::task::spawn_blocking(move || {
        let query = LabelQuery {
            selectors: vec![vec![Matcher::equal("__name__", "metric_3")]],
            min_t_ms: i64::MIN,
            max_t_ms: i64::MAX,
            budget: Budget::unlimited(),
        };
        source.label_values("instance", &query).unwrap().len()
    });
    assert_eq!(found.await.unwrap(), SERIES / 20);
    let asked = rounds.asked();
    assert_eq!((asked.rounds, asked.heads, asked.lists), (1, 0, 0), "{asked:?}");
    rounds.hold(false);
}

#[tokio::test(flavor = "multi_thread")]
async fn query_of_part_of_the_time_opens_no_other_block() {
    let rounds = Rounds::new();
    let store: Arc<dyn ObjectStore> = rounds.store.clone();
    fill(&store, 5).await;
    let dir = tempfile::tempdir().unwrap();
    let options = DbOptions { flush_when_due: false, ..DbOptions::new(dir.path(), store.clone()) };
    let db = Db::open(options).await.unwrap();
    let live: Vec<Ulid> = db.blocks(&TenantId::single()).iter().map(|b| b.ulid).collect();
    assert_eq!(live.len(), 5);
    rounds.hold(true);
    let source = db.source(&TenantId::single());
    let read = tokio::task::spawn_blocking(move || {
        let selection = Selection {
            matchers: vec![Matcher::equal("__name__", "metric_7")],
            min_t_ms: T0 + 2 * 7_200_000,
            max_t_ms: T0 + 2 * 7_200_000 + 3_600_000 - 1,
            hints: Hints::default(),
            budget: Budget::unlimited(),
        };
        let mut cursor = source.select(&selection).unwrap();
        let mut series = 0;
        while let Some(batch) = cursor.next_batch().unwrap() {
            series += batch.len();
        }
        series
    });
    assert_eq!(read.await.unwrap(), SERIES / 20);
    let asked = rounds.asked();
    let opened: Vec<&Ulid> =
        live.iter().filter(|u| asked.by_object.keys().any(|k| k.contains(&u.to_string()))).collect();
    assert_eq!(opened.len(), 1, "{asked:?}");
    assert!(asked.rounds <= 3 && asked.lists == 0 && asked.heads == 0, "{asked:?}");
    rounds.hold(false);
}

/// Series of some metrics, with labels whose order says nothing.
fn many_series() -> Vec<SeriesColumns> {
    let ts_ms: Arc<[i64]> = (0..4).map(|i| T0 + i * 15_000).collect();
    let mut all: Vec<Labels> = (0..100_000u64)
        .map(|i| {
            let noise = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut pairs = vec![
                ("__name__", format!("metric_{:02}", i % 40)),
                ("job", format!("job-{}", i % 3)),
                ("pod", format!("{:04}", noise >> 40 & 0xfff)),
                ("zone", format!("{:04}", noise >> 20 & 0xfff)),
            ];
            match i % 40 {
                // Without a name.
                0 => pairs.truncate(0),
                1 => pairs.push(("rare", format!("{}", i % 7))),
                _ => {}
            }
            pairs.push(("instance", format!("i{}", i / 40)));
            if i % 500 == 7 {
                pairs.push(("odd", format!("{}", i % 3)));
            }
            Labels::from_pairs(pairs)
        })
        .collect();
    all.sort_unstable_by(|a, b| a.series_cmp(b));
    let one = |(i, labels)| SeriesColumns {
        labels,
        ts_ms: ts_ms.clone(),
        values: (0..4).map(|n| (i * 10 + n) as f64).collect(),
        histograms: None,
        start_ts_ms: None,
        windows: None,
    };
    all.into_iter().enumerate().map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn query_of_one_metric_reads_its_part_of_the_series_table() {
    let rounds = Rounds::new();
    let store: Arc<dyn ObjectStore> = rounds.store.clone();
    let dir = tempfile::tempdir().unwrap();
    let origin = BlockOrigin::flushed(Ulid::new(), TenantId::single(), "test");
    let series = many_series();
    let written = write_block(dir.path(), origin, WriteOptions::fresh(), series.iter().cloned().map(Ok));
    let files = written.unwrap().unwrap();
    tsdb::block::upload::upload(&*store, &files).await.unwrap();
    let meta = Arc::new(files.meta.clone());
    let table_bytes = meta.files.series.bytes;
    assert!(table_bytes > 270_000, "{table_bytes} bytes of series");
    let runtime = tokio::runtime::Handle::current();
    let fresh = || BlockStore::new(store.clone(), runtime.clone(), 64 << 20);
    let regex = |name: &str, value: &str| Matcher::new(MatchOp::Regex, name, value).unwrap();
    let not = |name: &str, value: &str| Matcher::new(MatchOp::NotEqual, name, value).unwrap();
    let wishes = [
        vec![Matcher::equal("__name__", "metric_07")],
        vec![Matcher::equal("__name__", "metric_07"), Matcher::equal("job", "job-1"), not("instance", "i7")],
        vec![regex("__name__", "metric_(03|31|17)"), regex("pod", ".*[02]")],
        vec![Matcher::equal("__name__", "metric_01"), regex("rare", "2|5")],
        vec![Matcher::equal("__name__", "metric_02"), Matcher::equal("rare", "")],
        vec![Matcher::equal("__name__", ""), regex("instance", "i[12].*")],
        vec![regex("__name__", "metric_(07|27)"), regex("odd", "1|2")],
        vec![Matcher::equal("__name__", "metric_99")],
        // Most of the table: read whole.
        vec![not("__name__", "metric_07"), Matcher::equal("job", "job-2")],
    ];
    for matchers in wishes {
        let matches = |s: &&SeriesColumns| matchers.iter().all(|m| m.matches(s.labels.value(&m.name)));
        let want: Vec<&SeriesColumns> = series.iter().filter(matches).collect();
        let blocks = fresh();
        rounds.hold(true);
        let source = BucketSource::new(blocks.clone(), TenantId::single(), vec![meta.clone()]);
        let shown = format!("{matchers:?}");
        let of_one_metric = matchers[0].op == MatchOp::Equal && !matchers[0].value.is_empty();
        let (selection, label_query) = (
            Selection {
                matchers: matchers.clone(),
                min_t_ms: i64::MIN,
                max_t_ms: i64::MAX,
                hints: Hints::default(),
                budget: Budget::unlimited(),
            },
            LabelQuery {
                selectors: vec![matchers],
                min_t_ms: i64::MIN,
                max_t_ms: i64::MAX,
                budget: Budget::unlimited(),
            },
        );
        let read = move || {
            let mut all = Vec::new();
            let mut cursor = source.select(&selection).unwrap();
            while let Some(batch) = cursor.next_batch().unwrap() {
                all.extend(batch);
            }
            let labels = (
                source.series(&label_query).unwrap(),
                source.label_names(&label_query).unwrap(),
                source.label_values("rare", &label_query).unwrap(),
            );
            (all, labels)
        };
        let (got, (labels, names, rare)) = tokio::task::spawn_blocking(read).await.unwrap();
        let asked = rounds.asked();
        rounds.hold(false);
        assert_eq!(got.len(), want.len(), "{shown}");
        got.iter()
            .zip(&want)
            .for_each(|(got, want)| model::source::testing::conformance::assert_same(got, want, &shown));
        let mut of_want: Vec<Labels> = want.iter().map(|s| s.labels.clone()).collect();
        of_want.sort_unstable();
        assert_eq!(labels, of_want, "{shown}");
        let of = |l: &Labels| l.iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>();
        let of_want = want.iter().flat_map(|s| of(&s.labels)).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(names, of_want.into_iter().collect::<Vec<_>>(), "{shown}");
        let of_want = want.iter().filter_map(|s| s.labels.get("rare").map(str::to_string));
        let of_want = of_want.collect::<std::collections::BTreeSet<_>>();
        assert_eq!(rare, of_want.into_iter().collect::<Vec<_>>(), "{shown}");
        assert_eq!((asked.lists, asked.heads), (0, 0), "{shown}: {asked:?}");
        // Those of many series take a round for each batch.
        assert!(asked.rounds <= 3 || want.len() > 16_000, "{shown}: {asked:?}");
        if of_one_metric {
            assert!(asked.bytes < table_bytes * 2 / 3, "{shown}: {asked:?} of {table_bytes}");
        }
    }
    // One metric after the other: the parts give way to the whole table somewhere on the way.
    let source = BucketSource::new(fresh(), TenantId::single(), vec![meta.clone()]);
    let read = move || {
        (1..40)
            .map(|metric| {
                let matchers = vec![Matcher::equal("__name__", &format!("metric_{metric:02}"))];
                let (min_t_ms, max_t_ms, budget) = (i64::MIN, i64::MAX, Budget::unlimited());
                let selection = Selection { matchers, min_t_ms, max_t_ms, hints: Hints::default(), budget };
                let mut cursor = source.select(&selection).unwrap();
                let mut instances = Vec::new();
                while let Some(batch) = cursor.next_batch().unwrap() {
                    instances.extend(batch.iter().map(|s| s.labels.value("instance").to_string()));
                }
                instances.sort_unstable();
                instances.dedup();
                instances.len()
            })
            .collect::<Vec<usize>>()
    };
    assert_eq!(tokio::task::spawn_blocking(read).await.unwrap(), [2500; 39]);
}

const HOSTS: usize = 30;
const HALF_HOUR_MS: i64 = 1_800_000;

/// Half an hour of a fleet's node exporters: 256 series of one metric and 900 others of each host.
fn fleet(number: i64) -> Vec<SeriesColumns> {
    let from_ms = T0 + number * HALF_HOUR_MS;
    let times: Vec<Arc<[i64]>> =
        (0..HOSTS as i64).map(|host| (0..60).map(|i| from_ms + host * 37 + i * 30_000).collect()).collect();
    let modes = ["idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"];
    let mut all: Vec<(Labels, usize)> = Vec::new();
    for host in 0..HOSTS {
        let instance = format!("host-{host:04}:9100");
        let of = |pairs: &[(&str, &str)]| {
            let own = [("instance", instance.as_str()), ("job", "node")];
            Labels::from_pairs(pairs.iter().chain(&own).map(|(n, v)| (*n, v.to_string())))
        };
        for (cpu, mode) in (0..32).flat_map(|cpu| modes.map(|mode| (cpu, mode))) {
            let cpu = cpu.to_string();
            all.push((of(&[("__name__", "node_cpu_seconds_total"), ("cpu", &cpu), ("mode", mode)]), host));
        }
        for metric in 0..900 {
            all.push((of(&[("__name__", &format!("node_metric_{metric:03}"))]), host));
        }
    }
    all.sort_unstable_by(|a, b| a.0.series_cmp(&b.0));
    let one = |(at, (labels, host)): (usize, (Labels, usize))| SeriesColumns {
        labels,
        ts_ms: times[host].clone(),
        values: (0..60)
            .map(|i| {
                let i = number * 60 + i;
                let noise = (at as i64 * 7919 + i * 104_729).wrapping_mul(2_654_435_761) % 10_007;
                (i * 3000 + noise) as f64 / 100.0
            })
            .collect(),
        histograms: None,
        start_ts_ms: None,
        windows: None,
    };
    all.into_iter().enumerate().map(one).collect()
}

/// An hour in two blocks of more series than a directory of metrics begins at.
#[tokio::test(flavor = "multi_thread")]
async fn cold_queries_of_few_and_many_series_take_three_rounds_and_little_more_than_they_need() {
    let rounds = Rounds::new();
    *rounds.quiet.lock().unwrap() = Some(LONG_QUIET);
    let store: Arc<dyn ObjectStore> = rounds.store.clone();
    let dir = tempfile::tempdir().unwrap();
    let mut metas = Vec::new();
    for number in 0..2 {
        let dir = dir.path().join(number.to_string());
        std::fs::create_dir(&dir).unwrap();
        let origin = BlockOrigin::flushed(Ulid::new(), TenantId::single(), "test");
        let written = write_block(&dir, origin, WriteOptions::fresh(), fleet(number).into_iter().map(Ok));
        let files = written.unwrap().unwrap();
        tsdb::block::upload::upload(&*store, &files).await.unwrap();
        metas.push(Arc::new(files.meta.clone()));
    }
    let name = |name: &str| Matcher::equal("__name__", name);
    let instance = Matcher::equal("instance", "host-0011:9100");
    let wishes = [
        (vec![name("node_metric_007"), instance.clone()], 2),
        (vec![name("node_cpu_seconds_total")], HOSTS * 256 * 2),
        (vec![instance], (256 + 900) * 2),
    ];
    for (matchers, want) in wishes {
        let shown = format!("{matchers:?}");
        let blocks = BlockStore::new(store.clone(), tokio::runtime::Handle::current(), 64 << 20);
        let source = BucketSource::new(blocks, TenantId::single(), metas.clone());
        rounds.hold(true);
        let budget = Budget::unlimited();
        let (min_t_ms, max_t_ms, hints) = (i64::MIN, i64::MAX, Hints::default());
        let selection = Selection { matchers, min_t_ms, max_t_ms, hints, budget: budget.clone() };
        let read = move || {
            let (mut cursor, mut samples) = (source.select(&selection).unwrap(), 0);
            while let Some(batch) = cursor.next_batch().unwrap() {
                samples += batch.iter().map(|s| s.ts_ms.len()).sum::<usize>();
            }
            samples
        };
        let samples = tokio::task::spawn_blocking(read).await.unwrap();
        let asked = rounds.asked();
        rounds.hold(false);
        assert_eq!(samples, want * 60, "{shown}");
        let fetched = budget.fetches().fetched();
        assert_eq!((asked.heads, asked.lists), (0, 0), "{shown}: {asked:?}");
        assert!(asked.rounds <= 3, "{shown}: {asked:?}");
        assert_eq!((asked.gets as u64, asked.bytes), (fetched.requests, fetched.bytes), "{shown}");
        assert!(fetched.rounds >= 2 && fetched.rounds <= 3, "{shown}: {fetched:?}");
        assert!(fetched.bytes_needed <= fetched.bytes, "{shown}: {fetched:?}");
        // A request begins and ends with whole blocks of 4,096 bytes, as they have checksums.
        let most = fetched.bytes_needed * 3 / 2 + fetched.requests * 2 * 4096;
        assert!(fetched.bytes <= most, "{shown}: {fetched:?}");
        assert!(fetched.requests <= 40, "{shown}: {fetched:?}");
    }
}

/// All samples of a metric, read through a store with a cache on disk and an empty one in memory.
async fn read_metric(
    store: &Arc<dyn ObjectStore>,
    disk: &Arc<DiskCache>,
    metas: &[Arc<tsdb::block::BlockMeta>],
    metric: &str,
) -> (Vec<(Labels, Vec<u64>)>, model::source::Fetched) {
    let blocks = BlockStore::new(store.clone(), tokio::runtime::Handle::current(), 64 << 20);
    let blocks = blocks.with_disk_cache(Some(disk.clone()));
    let source = BucketSource::new(blocks, TenantId::single(), metas.to_vec());
    let budget = Budget::unlimited();
    let selection = Selection {
        matchers: vec![Matcher::equal("__name__", metric)],
        min_t_ms: i64::MIN,
        max_t_ms: i64::MAX,
        hints: Hints::default(),
        budget: budget.clone(),
    };
    let read = move || {
        let (mut cursor, mut all) = (source.select(&selection).unwrap(), Vec::new());
        while let Some(batch) = cursor.next_batch().unwrap() {
            let bits = |s: SeriesColumns| (s.labels, s.values.iter().map(|v| v.to_bits()).collect());
            all.extend(batch.into_iter().map(bits));
        }
        all
    };
    let read = tokio::task::spawn_blocking(read).await.unwrap();
    disk.settle();
    (read, budget.fetches().fetched())
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_cache_answers_after_a_restart_and_what_is_damaged_is_fetched_again() {
    let store: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let dir = tempfile::tempdir().unwrap();
    let origin = BlockOrigin::flushed(Ulid::new(), TenantId::single(), "test");
    let written = write_block(dir.path(), origin, WriteOptions::fresh(), many_series().into_iter().map(Ok));
    let files = written.unwrap().unwrap();
    tsdb::block::upload::upload(&*store, &files).await.unwrap();
    let metas = [Arc::new(files.meta.clone())];
    let folder = dir.path().join("cache");
    let open = || {
        let disk = DiskCache::open(&folder, 64 << 20).unwrap();
        disk.settle();
        disk
    };
    let disk = open();
    let (want, cold) = read_metric(&store, &disk, &metas, "metric_07").await;
    assert_eq!(want.len(), 2500);
    assert!(cold.requests > 3 && cold.disk_bytes == 0, "{cold:?}");
    // Another process, whose memory is empty, asks for nothing.
    drop(disk);
    let disk = open();
    let (got, warm) = read_metric(&store, &disk, &metas, "metric_07").await;
    assert!(got == want, "the same samples");
    assert_eq!((warm.requests, warm.bytes, warm.rounds), (0, 0, 0));
    assert!(warm.disk_bytes >= warm.bytes_needed, "{warm:?}");
    let stats = disk.stats();
    assert_eq!((stats.hit_bytes, stats.missed_bytes, stats.damaged), (warm.disk_bytes, 0, 0), "{stats:?}");
    drop(disk);

    // One bit in each file that is there, one after the other: the answer stays, and the file is mended.
    let names = || {
        let all = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let mut all: Vec<_> = all.filter(|path| !path.ends_with("lock")).collect();
        all.sort();
        all
    };
    assert!(names().len() >= 5, "{:?}", names());
    let mut flips = 0;
    for path in names() {
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.iter().rposition(|b| *b != 0).unwrap();
        bytes[at] ^= 4;
        std::fs::write(&path, &bytes).unwrap();
        let disk = open();
        let (got, fetched) = read_metric(&store, &disk, &metas, "metric_07").await;
        assert!(got == want, "{} is damaged", path.display());
        // What only came along to save a request is not read, and not known to be wrong.
        if disk.stats().damaged == 0 {
            continue;
        }
        flips += 1;
        assert_eq!(disk.stats().damaged, 1, "{}", path.display());
        assert!(fetched.requests >= 1 && fetched.disk_bytes > 0, "{fetched:?}");
        let (got, fetched) = read_metric(&store, &disk, &metas, "metric_07").await;
        assert!(got == want && fetched.requests == 0, "it was mended: {fetched:?}");
    }
    assert!(flips >= 3, "{flips} were noticed");

    // The page that says what is there says too much: holes are no samples.
    for path in names().into_iter().filter(|path| !path.to_string_lossy().ends_with("tail")) {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[64..64 + 512].fill(0xff);
        std::fs::write(&path, &bytes).unwrap();
    }
    let disk = open();
    for metric in ["metric_07", "metric_23"] {
        let (got, _) = read_metric(&store, &disk, &metas, metric).await;
        assert_eq!(got.len(), 2500);
        assert!(metric != "metric_07" || got == want);
    }
    // Another folder is in use.
    let error = DiskCache::open(&folder, 1).err().expect("it is locked").to_string();
    assert!(error.contains("another process"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_cache_that_is_too_small_changes_no_answer() {
    let store: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let dir = tempfile::tempdir().unwrap();
    let origin = BlockOrigin::flushed(Ulid::new(), TenantId::single(), "test");
    let written = write_block(dir.path(), origin, WriteOptions::fresh(), many_series().into_iter().map(Ok));
    let files = written.unwrap().unwrap();
    tsdb::block::upload::upload(&*store, &files).await.unwrap();
    let metas = [Arc::new(files.meta.clone())];
    for max_bytes in [1, 4096, 100_000, 400_000] {
        let folder = dir.path().join(max_bytes.to_string());
        let disk = DiskCache::open(&folder, max_bytes).unwrap();
        for metric in (1..40).step_by(3) {
            let (got, _) = read_metric(&store, &disk, &metas, &format!("metric_{metric:02}")).await;
            assert_eq!(got.len(), 2500);
            assert!(disk.stats().bytes <= max_bytes, "{:?}", disk.stats());
        }
    }
}
