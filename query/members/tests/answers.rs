//! Answers that are cut off, changed or of somebody else: an error that names the member, never a wrong
//! number.

mod in_process;

use std::sync::Arc;
use std::time::Duration;

use in_process::{InProcess, Ingester, querier};
use members::ingesters::Ingesters;
use members::source::FreshSource;
use model::exemplar::Exemplar;
use model::histogram::{BucketSpan, Histogram};
use model::labels::Labels;
use model::matcher::Matcher;
use model::sample::stale_nan;
use model::source::{Budget, Hints, Selection, SeriesColumns, Source, SourceError};
use model::tenant::TenantId;
use object_store::ObjectStore;
use object_store::memory::InMemory;

const T0: i64 = 1_700_000_000_000;

async fn world() -> (Arc<InProcess>, Ingester, Arc<Ingesters>) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let transport = Arc::new(InProcess::default());
    let ingester = Ingester::start(0, &store, &transport).await;
    let querier = querier(&store, &transport, Duration::from_secs(3)).await;
    (transport, ingester, querier)
}

fn histogram(n: f64) -> Arc<Histogram> {
    Arc::new(Histogram {
        count: 3.0 * n,
        sum: n,
        positive_spans: vec![BucketSpan { offset: 1, length: 2 }],
        positive_buckets: vec![n, 2.0 * n],
        ..Histogram::default()
    })
}

/// Floats, histograms, markers and start times, of series that share their times and of some that do not.
async fn fill(ingester: &Ingester) {
    let db = ingester.db.clone().unwrap();
    let mut appender = db.appender(&TenantId::single()).await.unwrap();
    for n in 0..40_i64 {
        let name = n.to_string();
        let float = appender.series(&[("__name__", "up"), ("n", &name)]);
        let native = appender.series(&[("__name__", "latency"), ("n", &name)]);
        for i in 0..50 {
            let t = T0 + i * 15_000 + (n % 3);
            let value = if i == 49 { stale_nan() } else { (n * i) as f64 };
            appender.float(float, t, value, if n % 2 == 0 { T0 - 1 } else { 0 });
            appender.histogram(native, t, histogram(i as f64), 0);
        }
    }
    appender.commit().await.unwrap();
}

async fn select(ingesters: &Arc<Ingesters>) -> Result<Vec<SeriesColumns>, SourceError> {
    let source = FreshSource::new(ingesters.clone(), TenantId::single(), None);
    tokio::task::spawn_blocking(move || rows(&source)).await.unwrap()
}

fn rows(source: &dyn Source) -> Result<Vec<SeriesColumns>, SourceError> {
    let selection = Selection {
        matchers: vec![],
        min_t_ms: T0 - 10,
        max_t_ms: T0 + 700_000,
        hints: Hints::default(),
        budget: Budget::unlimited(),
    };
    let mut cursor = source.select(&selection)?;
    let mut rows = Vec::new();
    while let Some(batch) = cursor.next_batch()? {
        rows.extend(batch);
    }
    Ok(rows)
}

/// Everything of the rows, to the bit.
fn text(rows: &[SeriesColumns]) -> String {
    let one = |s: &SeriesColumns| {
        let bits: Vec<u64> = s.values.iter().map(|v| v.to_bits()).collect();
        format!("{} {:?} {bits:?} {:?} {:?}", s.labels, s.ts_ms, s.histograms, s.start_ts_ms)
    };
    rows.iter().map(one).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answer_is_what_the_member_itself_reads() {
    let (_, ingester, ingesters) = world().await;
    fill(&ingester).await;
    let db = ingester.db.clone().unwrap();
    let own = tokio::task::spawn_blocking(move || rows(&*db.source(&TenantId::single())).unwrap());
    let (own, asked) = (own.await.unwrap(), select(&ingesters).await.unwrap());
    assert_eq!(asked.len(), 80);
    assert_eq!(text(&asked), text(&own));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answer_that_is_cut_off_or_changed_is_no_answer() {
    let (transport, ingester, ingesters) = world().await;
    fill(&ingester).await;
    let good = text(&select(&ingesters).await.unwrap());
    let whole: Arc<std::sync::Mutex<Vec<u8>>> = Arc::default();
    let kept = whole.clone();
    *transport.meddle.lock().unwrap() = Some(Arc::new(move |bytes: Vec<u8>| {
        *kept.lock().unwrap() = bytes.clone();
        bytes
    }));
    assert_eq!(text(&select(&ingesters).await.unwrap()), good);
    let length = whole.lock().unwrap().len();
    assert!(length > 10_000, "{length}");
    for cut in (0..40).map(|i| length * i / 40).chain([length - 9, length - 300]) {
        *transport.meddle.lock().unwrap() = Some(Arc::new(move |bytes: Vec<u8>| bytes[..cut].to_vec()));
        let why = select(&ingesters).await.unwrap_err().to_string();
        assert!(why.contains(&ingester.name), "{why}");
    }
    // A flipped bit is an error, or it is in a value or a name, which is for TCP and TLS to guard: it is
    // never a panic, and never a series more or less.
    let count = |text: &str| text.lines().count();
    for i in 0..300 {
        let at = length * i / 300;
        *transport.meddle.lock().unwrap() = Some(Arc::new(move |mut bytes: Vec<u8>| {
            bytes[at] ^= 1 << (i % 8);
            bytes
        }));
        match select(&ingesters).await {
            Ok(rows) => assert_eq!(count(&text(&rows)), count(&good), "byte {at}"),
            Err(e) => assert!(e.to_string().contains(&ingester.name), "{e}"),
        }
    }
    for garbage in [b"".to_vec(), b"<html>hello</html>".to_vec(), vec![0xff; 5000]] {
        *transport.meddle.lock().unwrap() = Some(Arc::new(move |_| garbage.clone()));
        let why = select(&ingesters).await.unwrap_err().to_string();
        assert!(why.contains(&ingester.name) && why.contains("cannot be used"), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answer_of_another_member_is_refused() {
    let (transport, ingester, ingesters) = world().await;
    fill(&ingester).await;
    // Another has the address by now.
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let other = Ingester::start(1, &store, &transport).await;
    let taken = other.db.clone().unwrap();
    transport.open.lock().unwrap().insert(ingester.address.clone(), taken);
    let why = select(&ingesters).await.unwrap_err().to_string();
    assert!(why.contains("421") && why.contains(&other.name), "{why}");
    // And of another tenant, floor or version: its header says so.
    let db = ingester.db.clone().unwrap();
    transport.open.lock().unwrap().insert(ingester.address.clone(), db);
    for (from, to, says) in [
        (r#""tenant":"default""#, r#""tenant":"defbult""#, "it is of the tenant \"defbult\""),
        (r#""version":1"#, r#""version":9"#, "it is of version 9"),
        (r#""floor":0"#, r#""floor":9"#, "it is of what is above 9"),
    ] {
        *transport.meddle.lock().unwrap() = Some(Arc::new(move |bytes: Vec<u8>| {
            let (from, to) = (from.as_bytes(), to.as_bytes());
            let at = bytes.windows(from.len()).position(|w| w == from).expect("it is in the header");
            [&bytes[..at], to, &bytes[at + to.len()..]].concat()
        }));
        let why = select(&ingesters).await.unwrap_err().to_string();
        assert!(why.contains(says) && why.contains(&ingester.name), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exemplars_and_metadata_come_from_members_too() {
    let (_, ingester, ingesters) = world().await;
    let db = ingester.db.clone().unwrap();
    let mut appender = db.appender(&TenantId::single()).await.unwrap();
    let series = appender.series(&[("__name__", "up")]);
    appender.float(series, T0, 1.0, 0);
    appender.commit().await.unwrap();
    let source = FreshSource::new(ingesters.clone(), TenantId::single(), None);
    let found = tokio::task::spawn_blocking(move || {
        let selectors = vec![vec![Matcher::equal("__name__", "up")]];
        let exemplars = source.exemplars(&selectors, (i64::MIN, i64::MAX), &Budget::unlimited());
        (exemplars, source.metadata(None, &Budget::unlimited()))
    });
    let (exemplars, metadata) = found.await.unwrap();
    assert!(exemplars.unwrap().is_empty() && metadata.unwrap().is_empty());
    // Their way as bytes.
    let one = model::exemplar::SeriesExemplars {
        labels: Labels::from_pairs([("__name__", "up")]),
        exemplars: vec![Exemplar {
            ts_ms: 1,
            value: f64::NAN,
            labels: Labels::from_pairs([("trace_id", "x")]),
        }],
    };
    let text = serde_json::to_string(&members::wire::json::Series::write(&one)).unwrap();
    let back: members::wire::json::Series = serde_json::from_str(&text).unwrap();
    let back = back.read().unwrap();
    assert_eq!(back.labels, one.labels);
    assert_eq!(back.exemplars[0].value.to_bits(), one.exemplars[0].value.to_bits());
}
