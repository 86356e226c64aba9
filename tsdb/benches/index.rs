//! What it takes to find series by matchers among a million: in the head's index and in the series table of a
//! block, both warm.
//!
//! `cargo bench -p tsdb --bench index`. A fleet of 2,000 machines with 500 series each: 300 of a node
//! exporter, 150 of 25 pods, 50 of applications with a label that only few series carry. Each question says
//! how many series it finds.
//!
//! November 2026, two cores with a load of 20, fastest of 20 (medians are the neighbours'): in the head
//! equality, alternations and prefixes below 0.2 ms, half of 50,000 pods by prefix 9.1 ms, all but those 4.7
//! ms, by suffix 5.2 ms, a negation of one value 19 µs; in a block one metric 6 µs, one machine 0.8 ms,
//! prefixes 1.0 to 4.5 ms, negations 3.4 to 7 ms, a rare label 0.1 ms. Cold, one metric takes 1.7 ms, of
//! which 0.7 MB are kept, and names by prefix 6 ms; without a name the whole table is decoded, 51 ms of CPU,
//! of which 43 MB are kept as long as the cache has room.

use std::sync::{Arc, LazyLock};

use divan::{Bencher, black_box};
use model::labels::Labels;
use model::matcher::{MatchOp, Matcher};
use model::source::{Budget, LabelQuery, SeriesColumns, Source};
use model::tenant::TenantId;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tsdb::block::{BlockMeta, BlockOrigin, WriteOptions, write_block};
use tsdb::bucket::{BlockStore, BucketSource};
use tsdb::head::postings::Postings;
use tsdb::head::symbols::Symbols;
use ulid::Ulid;

const MACHINES: usize = 2_000;
const SERIES: usize = 500 * MACHINES;

/// Matchers under a name.
type Question = (&'static str, &'static [(MatchOp, &'static str, &'static str)]);

/// The shapes that dashboards and rules ask.
const QUESTIONS: &[Question] = {
    use MatchOp::{Equal, NotEqual, NotRegex, Regex};
    &[
        ("one machine", &[(Equal, "instance", "10.1.4.7:9100")]),
        ("one metric", &[(Equal, "__name__", "node_cpu_3_total")]),
        ("one series", &[(Equal, "__name__", "node_cpu_3_total"), (Equal, "instance", "10.1.4.7:9100")]),
        ("a whole job", &[(Equal, "job", "node")]),
        ("prefix of names", &[(Regex, "__name__", "node_cpu.*")]),
        ("prefix of pods", &[(Regex, "pod", "web-12.*")]),
        ("two prefixes of pods", &[(Regex, "pod", "web-12.*|api-3.+")]),
        ("prefix of half the pods", &[(Regex, "pod", "web-.*")]),
        ("alternation of names", &[(Regex, "__name__", "node_cpu_3_total|node_disk_7_total|app_460")]),
        ("alternation of machines", &[(Regex, "instance", "10.1.4.7:9100|10.1.4.8:9100|10.1.5.9:9100")]),
        ("another job", &[(NotEqual, "job", "node")]),
        ("not these modes", &[(NotRegex, "mode", "idle|iowait"), (Equal, "job", "node")]),
        ("pods but those of web", &[(NotEqual, "pod", ""), (NotRegex, "pod", "web-.*")]),
        ("any container", &[(NotEqual, "container", "")]),
        ("no pod", &[(Equal, "pod", "")]),
        ("suffix of pods", &[(Regex, "pod", ".*-77")]),
        ("rare label", &[(Regex, "shard", "s1.*")]),
        (
            "one of many names, rest excluded",
            &[
                (Equal, "__name__", "container_2"),
                (NotRegex, "pod", "web-.*|api-.*"),
                (NotEqual, "container", "POD"),
            ],
        ),
    ]
};

fn names() -> impl Iterator<Item = &'static str> {
    QUESTIONS.iter().map(|(name, _)| *name)
}

fn matchers(question: &str) -> Vec<Matcher> {
    let (_, asked) = QUESTIONS.iter().find(|(name, _)| *name == question).unwrap();
    asked.iter().map(|(op, name, value)| Matcher::new(*op, name, value).unwrap()).collect()
}

/// The labels of one series of one machine, ascending by name.
fn labels(machine: usize, m: usize) -> Vec<(&'static str, String)> {
    let instance = format!("10.1.{}.{}:9100", machine / 250, machine % 250);
    let cluster = format!("eu-{}", machine % 4);
    if m < 300 {
        let family = ["cpu", "disk", "network", "memory", "filesystem", "netstat"][m / 50];
        let mode = ["idle", "user", "system", "iowait", "irq"][m % 5];
        return vec![
            ("__name__", format!("node_{family}_{}_total", m % 50)),
            ("cluster", cluster),
            ("device", format!("dev{}", m % 8)),
            ("instance", instance),
            ("job", "node".into()),
            ("mode", mode.into()),
        ];
    }
    if m < 450 {
        let pod = machine * 25 + (m - 300) / 6;
        let app = ["web", "api", "web", "db"][pod % 4];
        return vec![
            ("__name__", format!("container_{}", m % 6)),
            ("cluster", cluster),
            ("container", ["main", "POD", "sidecar"][m % 3].into()),
            ("instance", instance),
            ("job", "kubelet".into()),
            ("namespace", format!("team-{}", pod % 100)),
            ("pod", format!("{app}-{}-{}", pod * 7919 % 100_003, pod % 100)),
        ];
    }
    let mut all = vec![
        ("__name__", format!("app_{m}")),
        ("cluster", cluster),
        ("instance", instance),
        ("job", "app".into()),
        ("namespace", format!("team-{}", machine % 100)),
    ];
    if m == 460 {
        all.push(("shard", format!("s{machine}")));
    }
    all
}

fn fleet() -> impl Iterator<Item = Vec<(&'static str, String)>> {
    (0..MACHINES).flat_map(|machine| (0..500).map(move |m| labels(machine, m)))
}

static HEAD: LazyLock<(Symbols, Postings)> = LazyLock::new(|| {
    let (mut symbols, mut postings) = (Symbols::default(), Postings::default());
    for (id, set) in fleet().enumerate() {
        let set: Vec<_> = set.iter().map(|(n, v)| (symbols.take(n), symbols.take(v))).collect();
        postings.insert(id as u32, &set);
    }
    (symbols, postings)
});

#[divan::bench(args = names(), sample_count = 20, sample_size = 1)]
fn head(bencher: Bencher<'_, '_>, question: &str) {
    let (symbols, postings) = &*HEAD;
    let matchers = matchers(question);
    postings.select(&matchers, symbols);
    bencher.bench(|| black_box(postings.select(&matchers, symbols).len()));
}

/// What a series that is new costs the index.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn head_insert(bencher: Bencher<'_, '_>) {
    let mut symbols = Symbols::default();
    let all: Vec<Vec<_>> = fleet()
        .take(SERIES / 10)
        .map(|set| set.iter().map(|(n, v)| (symbols.take(n), symbols.take(v))).collect())
        .collect();
    bencher.counter(divan::counter::ItemsCount::new(all.len())).bench(|| {
        let mut postings = Postings::default();
        all.iter().enumerate().for_each(|(id, set)| postings.insert(id as u32, set));
        postings
    });
}

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

struct Stored {
    store: Arc<dyn ObjectStore>,
    meta: Arc<BlockMeta>,
    warm: Arc<BlockStore>,
}

static BLOCK: LazyLock<Stored> = LazyLock::new(|| {
    let mut all: Vec<Labels> = fleet().map(Labels::from_pairs).collect();
    all.sort_unstable_by(|a, b| a.series_cmp(b));
    let ts_ms: Arc<[i64]> = Arc::from([1_767_225_600_000i64]);
    let series = all.into_iter().map(|labels| {
        Ok(SeriesColumns {
            labels,
            ts_ms: ts_ms.clone(),
            values: vec![1.0],
            histograms: None,
            start_ts_ms: None,
            windows: None,
        })
    });
    let dir = tempfile::tempdir().unwrap();
    let origin = BlockOrigin::flushed(Ulid::new(), TenantId::single(), "bench");
    let files = write_block(dir.path(), origin, WriteOptions::fresh(), series).unwrap().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    RUNTIME.block_on(tsdb::block::upload::upload(&*store, &files)).unwrap();
    let warm = BlockStore::new(store.clone(), RUNTIME.handle().clone(), 1 << 30);
    Stored { store, meta: Arc::new(files.meta.clone()), warm }
});

/// Asks for the jobs of the series that are found: next to nothing beside finding them.
fn jobs(blocks: &Arc<BlockStore>, matchers: &[Matcher]) -> usize {
    let source = BucketSource::new(blocks.clone(), TenantId::single(), vec![BLOCK.meta.clone()]);
    let query = LabelQuery {
        selectors: vec![matchers.to_vec()],
        min_t_ms: i64::MIN,
        max_t_ms: i64::MAX,
        budget: Budget::unlimited(),
    };
    source.label_values("job", &query).unwrap().len()
}

#[divan::bench(args = names(), sample_count = 20, sample_size = 1)]
fn block(bencher: Bencher<'_, '_>, question: &str) {
    let matchers = matchers(question);
    assert!(jobs(&BLOCK.warm, &matchers) > 0);
    bencher.bench(|| jobs(&BLOCK.warm, &matchers));
}

/// The same with nothing in memory; the store answers at once. Prints what of the block is in memory
/// afterwards.
#[allow(clippy::print_stdout)]
#[divan::bench(args = ["one metric", "one series", "prefix of names", "prefix of pods"], sample_count = 3, sample_size = 1)]
fn block_cold(bencher: Bencher<'_, '_>, question: &str) {
    let matchers = matchers(question);
    let cold = || BlockStore::new(BLOCK.store.clone(), RUNTIME.handle().clone(), 1 << 30);
    let blocks = cold();
    jobs(&blocks, &matchers);
    println!(
        "{question}: {} KiB kept of {} series",
        blocks.cache_stats().bytes >> 10,
        BLOCK.meta.stats.series
    );
    bencher.bench(|| jobs(&cold(), &matchers));
}

#[allow(clippy::print_stdout)]
fn main() {
    let (symbols, postings) = &*HEAD;
    for (name, _) in QUESTIONS {
        println!("{name}: {} of {SERIES} series", postings.select(&matchers(name), symbols).len());
    }
    println!("postings: {} MiB, symbols: {} MiB", postings.heap_bytes() >> 20, symbols.heap_bytes() >> 20);
    divan::main();
}
