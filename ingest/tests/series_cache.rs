//! A series that is recognised by how it came before is taken exactly as one that is not: same outcome, same
//! words, same samples.

mod messages;

use std::sync::Arc;

use ingest::remote_write::series_cache::SeriesCache;
use ingest::remote_write::sink::CachingSink;
use ingest::{Limits, Outcome};
use messages::messy;
use messages::{v1, v2};
use model::source::testing::rng::Rng;
use model::source::{Budget, Hints, Selection};
use model::tenant::TenantId;
use prost::Message;
use tsdb::db::{Db, DbOptions};

const NOW_MS: i64 = 1_795_000_000_000;

async fn store() -> (Arc<Db>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let options = DbOptions::new(dir.path(), Arc::new(object_store::memory::InMemory::new()));
    (Db::open(options).await.unwrap(), dir)
}

/// A few series over and over, some with labels out of order, empty or twice, and samples that are sometimes
/// refused.
fn request(rng: &mut Rng) -> v1::WriteRequest {
    let series = |rng: &mut Rng| {
        let label = |name: &str, value: &str| v1::Label { name: name.into(), value: value.into() };
        let mut labels = vec![
            label("__name__", ["up", "node_load1", "x"][rng.below(3)]),
            label("instance", &format!("host-{}", rng.below(4))),
            label("job", ["node", ""][usize::from(rng.below(6) == 0)]),
        ];
        match rng.below(12) {
            0 => labels.swap(0, 2),
            1 => labels.push(label("job", "again")),
            2 => labels.truncate(1),
            3 => labels[0].name = "name".into(),
            _ => {}
        }
        let sample = |rng: &mut Rng| {
            let late = [0, 0, 0, 0, 60_000, -3_600_000][rng.below(6)];
            v1::Sample { value: rng.below(5) as f64, timestamp: NOW_MS - late - rng.below(500) as i64 }
        };
        let samples = (0..rng.below(3)).map(|_| sample(rng)).collect();
        let exemplar = v1::Exemplar { labels: vec![label("trace_id", "1")], value: 1.0, timestamp: NOW_MS };
        let exemplars = if rng.below(5) == 0 { vec![exemplar] } else { vec![] };
        let histogram = |h: u64| messages::Histogram {
            count: Some(messages::Count::Int(h)),
            sum: 1.0,
            timestamp: NOW_MS,
            ..messages::Histogram::default()
        };
        // One that counts more than its buckets hold is refused.
        let histograms = if rng.below(8) == 0 { vec![histogram(rng.below(2) as u64)] } else { vec![] };
        v1::TimeSeries { labels, samples, exemplars, histograms }
    };
    v1::WriteRequest { timeseries: (0..rng.below(40)).map(|_| series(rng)).collect(), metadata: vec![] }
}

fn second(request: &v1::WriteRequest, rng: &mut Rng) -> v2::Request {
    let mut symbols = vec![String::new()];
    let mut timeseries = Vec::new();
    for s in &request.timeseries {
        let mut labels_refs = Vec::new();
        for l in &s.labels {
            for text in [&l.name, &l.value] {
                // Sometimes a symbol stands twice in the table.
                let known = symbols.iter().position(|s| s == text).filter(|_| rng.below(8) != 0);
                labels_refs.push(known.unwrap_or_else(|| {
                    symbols.push(text.clone());
                    symbols.len() - 1
                }) as u32);
            }
        }
        let sample =
            |s: &v1::Sample| v2::Sample { value: s.value, timestamp: s.timestamp, ..v2::Sample::default() };
        timeseries.push(v2::TimeSeries {
            labels_refs,
            samples: s.samples.iter().map(sample).collect(),
            histograms: s.histograms.clone(),
            ..v2::TimeSeries::default()
        });
    }
    v2::Request { symbols, timeseries }
}

async fn everything(db: &Db) -> String {
    let filter = Selection {
        matchers: vec![],
        min_t_ms: 0,
        max_t_ms: i64::MAX,
        hints: Hints::default(),
        budget: Budget::unlimited(),
    };
    let source = db.source(&TenantId::single());
    let mut cursor = source.select(&filter).unwrap();
    let mut text = String::new();
    while let Some(batch) = cursor.next_batch().unwrap() {
        for s in batch {
            text += &format!("{} {:?} {:?} {:?}\n", s.labels, s.ts_ms, s.values, s.histograms);
        }
    }
    text
}

#[tokio::test]
async fn known_series_are_taken_as_unknown_ones_are() {
    let limits = Limits { retention_ms: Some(600_000), ..Limits::default() };
    let (with, _dir) = store().await;
    let (without, _other) = store().await;
    let known = Arc::new(SeriesCache::default());
    let mut rng = Rng(42);
    let mut refused = 0;
    for round in 0..300 {
        let request = request(&mut rng);
        let protocol = round % 3;
        let body = match protocol {
            0 => request.encode_to_vec(),
            1 => messy::write_request(&mut rng, &request),
            _ if rng.below(2) == 0 => {
                let two = second(&request, &mut rng);
                messy::request_v2(&mut rng, &two)
            }
            _ => second(&request, &mut rng).encode_to_vec(),
        };
        let decode = |sink: &mut dyn FnMut() -> Result<Outcome, ingest::DecodeError>| sink().unwrap();
        let tenant = TenantId::single();
        let mut recalling = CachingSink::new(with.appender(&tenant).await.unwrap(), known.clone());
        let mut plain = without.appender(&tenant).await.unwrap();
        let a = decode(&mut || match protocol {
            2 => ingest::remote_write::v2::decode(&body, &limits, NOW_MS, &mut recalling),
            _ => ingest::remote_write::v1::decode(&body, &limits, NOW_MS, &mut recalling),
        });
        let b = decode(&mut || match protocol {
            2 => ingest::remote_write::v2::decode(&body, &limits, NOW_MS, &mut plain),
            _ => ingest::remote_write::v1::decode(&body, &limits, NOW_MS, &mut plain),
        });
        assert_eq!(format!("{a:?}"), format!("{b:?}"), "round {round}");
        refused += usize::from(!a.rejected.is_empty());
        let a = recalling.finish().commit().await.unwrap();
        let b = plain.commit().await.unwrap();
        assert_eq!(format!("{a:?}"), format!("{b:?}"), "round {round}");
    }
    assert!((20..300).contains(&refused), "{refused} requests had something to refuse");
    let all = everything(&with).await;
    assert!(all.lines().count() > 10);
    assert_eq!(all, everything(&without).await);
    // After a flush and idle generations the numbers belong to others.
    for _ in 0..3 {
        with.flush().await.unwrap();
    }
}
