//! What a sample costs on its way into the head and out of it: chunk encode and decode, append with and
//! without a log, a selector scan.
//!
//! `cargo bench -p tsdb --bench head`. Items are samples, so the throughput column is samples per second.

use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use model::matcher::Matcher;
use model::sample::Value;
use model::source::{Budget, Hints, Selection};
use model::tenant::TenantId;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tsdb::db::{Db, DbOptions, LogSync};
use tsdb::head::Head;
use tsdb::head::chunk::{Columns, MAX_SAMPLES, OpenChunk};

fn main() {
    divan::main();
}

const T0: i64 = 1_700_000_000_000;
const SERIES: usize = 10_000;

/// The classes of values that scrapes carry.
#[derive(Clone, Copy, Debug)]
enum Values {
    Constant,
    Counter,
    Gauge,
}

/// A sample of a class, with the few milliseconds of jitter that scrapes have.
fn sample(class: Values, series: usize, i: i64) -> (i64, f64) {
    let noise =
        (i.wrapping_mul(6364136223846793005).wrapping_add((series as i64).wrapping_mul(1442695040888963407))
            >> 40)
            & 0xff;
    let t = T0 + i * 15_000 + noise % 5;
    let v = match class {
        Values::Constant => 1.0,
        Values::Counter => (i * 1000 + noise) as f64,
        Values::Gauge => 0.5 + noise as f64 / 256.0,
    };
    (t, v)
}

const CLASSES: [Values; 3] = [Values::Constant, Values::Counter, Values::Gauge];

#[divan::bench(args = CLASSES)]
fn chunk_encode(bencher: Bencher<'_, '_>, class: Values) {
    bencher.counter(ItemsCount::new(MAX_SAMPLES as usize)).bench(|| {
        let (t, v) = sample(class, 0, 0);
        let mut open = OpenChunk::begin(t, &Value::Float(v), 0);
        for i in 1..MAX_SAMPLES as i64 {
            let (t, v) = sample(class, 0, i);
            black_box(open.push(t, &Value::Float(v), 0));
        }
        open.snapshot()
    });
}

#[divan::bench(args = CLASSES)]
fn chunk_decode(bencher: Bencher<'_, '_>, class: Values) {
    let (t, v) = sample(class, 0, 0);
    let mut open = OpenChunk::begin(t, &Value::Float(v), 0);
    for i in 1..MAX_SAMPLES as i64 {
        let (t, v) = sample(class, 0, i);
        assert!(open.push(t, &Value::Float(v), 0));
    }
    let chunk = open.snapshot();
    let mut out = Columns::default();
    bencher.counter(ItemsCount::new(MAX_SAMPLES as usize)).bench_local(|| {
        out.clear();
        chunk.decode(i64::MIN, i64::MAX, &mut out);
        black_box(out.len())
    });
}

fn label_sets() -> Vec<Vec<(String, String)>> {
    let set = |i: usize| {
        let pairs = [
            ("__name__", format!("node_metric_{}", i % 500)),
            ("cluster", "eu-1".to_string()),
            ("device", format!("disk{}", i % 4)),
            ("instance", format!("10.0.{}.{}:9100", i / 500 / 250, i / 500 % 250)),
            ("job", "node".to_string()),
            ("mode", format!("m{}", i % 8)),
        ];
        pairs.map(|(n, v)| (n.to_string(), v)).to_vec()
    };
    (0..SERIES).map(set).collect()
}

fn borrowed(set: &[(String, String)]) -> Vec<(&str, &str)> {
    set.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect()
}

/// Look-up by labels and append, one sample a series, no log.
#[divan::bench]
fn head_append(bencher: Bencher<'_, '_>) {
    let sets = label_sets();
    let sets: Vec<_> = sets.iter().map(|s| borrowed(s)).collect();
    let head = Head::default();
    let tenant = head.tenant(&TenantId::single());
    let mut i = 0;
    bencher.counter(ItemsCount::new(SERIES)).bench_local(|| {
        i += 1;
        for (n, labels) in sets.iter().enumerate() {
            let series = head.series(&tenant, labels);
            let (t, v) = sample(CLASSES[n % 3], n, i);
            black_box(head.put(&series, t, Value::Float(v), 0));
        }
    });
}

/// The same through an appender: log record, write, and fsync where asked for; requests of 500 series as
/// Prometheus sends.
#[divan::bench(args = [LogSync::Always, LogSync::Every(std::time::Duration::from_millis(100))])]
fn commit(bencher: Bencher<'_, '_>, sync: LogSync) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let options = DbOptions { log_sync: sync, flush_when_due: false, ..DbOptions::new(dir.path(), store) };
    let db = runtime.block_on(Db::open(options)).unwrap();
    let sets = label_sets();
    let sets: Vec<_> = sets.iter().map(|s| borrowed(s)).collect();
    let mut i = 0;
    bencher.counter(ItemsCount::new(SERIES)).bench_local(|| {
        i += 1;
        runtime.block_on(async {
            for (at, request) in sets.chunks(500).enumerate() {
                let mut appender = db.appender(&TenantId::single()).await.unwrap();
                for (n, labels) in request.iter().enumerate() {
                    let series = appender.series(labels);
                    let (t, v) = sample(CLASSES[n % 3], at * 500 + n, i);
                    appender.float(series, t, v, 0);
                }
                black_box(appender.commit().await.unwrap());
            }
        });
    });
}

/// One metric over all targets, two hours at 15 s: postings, sort, decode.
#[divan::bench]
fn selector_scan(bencher: Bencher<'_, '_>) {
    let head = Arc::new(Head::default());
    let tenant = head.tenant(&TenantId::single());
    let sets = label_sets();
    for (n, set) in sets.iter().enumerate() {
        let series = head.series(&tenant, &borrowed(set));
        for i in 0..480 {
            let (t, v) = sample(CLASSES[n % 3], n, i);
            head.put(&series, t, Value::Float(v), 0);
        }
    }
    let source = tsdb::head::source::HeadSource::new(head, tenant, 0..=u64::MAX);
    let selection = Selection {
        matchers: vec![Matcher::equal("__name__", "node_metric_7")],
        min_t_ms: T0,
        max_t_ms: i64::MAX,
        hints: Hints::default(),
        budget: Budget::unlimited(),
    };
    bencher.counter(ItemsCount::new(SERIES / 500 * 480)).bench(|| {
        use model::source::Source;
        let mut cursor = source.select(&selection).unwrap();
        let mut samples = 0;
        while let Some(batch) = cursor.next_batch().unwrap() {
            samples += batch.iter().map(|s| s.values.len()).sum::<usize>();
        }
        assert_eq!(samples, SERIES / 500 * 480);
    });
}
