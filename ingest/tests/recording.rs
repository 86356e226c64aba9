//! Recorded remote-write traffic, request by request through the router, and every count of it afterwards.
//!
//! A recording is zstd over frames: u64 receive time (milliseconds), u32 length, both little end first, then
//! the body as it was sent. The project's large recording is replayed where it is present, its own small one
//! (synthetic, made by [`synthetic`]) elsewhere.

mod messages;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use ingest::Limits;
use ingest::http::{IngestState, TenantResolver, router};
use ingest::metrics::Metrics;
use ingest::remote_write::sink::Sink;
use ingest::remote_write::v1;
use model::clock::ManualClock;
use model::exemplar::{Accepted, Refused};
use model::histogram::Histogram;
use model::matcher::Matcher;
use model::sample::{Metadata, is_stale};
use model::source::testing::rng::Rng;
use model::source::{Budget, Hints, Selection};
use model::tenant::TenantId;
use prost::Message;
use tower::ServiceExt;
use tsdb::db::{Db, DbOptions, SeriesRef};

/// The facts that stand beside a recording, counted by its maker without this code.
#[derive(Debug, PartialEq, Default)]
struct Facts {
    requests: u64,
    series: u64,
    samples: u64,
    distinct_samples: u64,
    stale_markers: u64,
    exemplars: u64,
    histograms: u64,
    metadata: u64,
    first_ms: i64,
    last_ms: i64,
    snappy_bytes: u64,
    protobuf_bytes: u64,
}

fn small() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/small.rec.zst")
}

fn recordings() -> Vec<PathBuf> {
    let large = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/remote-write.rec.zst");
    if large.exists() { vec![small(), large] } else { vec![small()] }
}

fn facts(recording: &Path) -> Facts {
    let name = recording.to_str().unwrap().replace(".rec.zst", ".json");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(name).unwrap()).unwrap();
    let n = |key: &str| json[key].as_u64().unwrap();
    Facts {
        requests: n("requests"),
        series: n("series"),
        samples: n("samples"),
        distinct_samples: n("distinct_samples"),
        stale_markers: n("stale_markers"),
        exemplars: n("exemplars"),
        histograms: n("histograms"),
        metadata: n("metadata"),
        first_ms: n("first_ms") as i64,
        last_ms: n("last_ms") as i64,
        snappy_bytes: n("snappy_bytes"),
        protobuf_bytes: n("protobuf_bytes"),
    }
}

fn frames(recording: &Path) -> Vec<Vec<u8>> {
    let mut decoder = zstd::Decoder::new(std::fs::File::open(recording).unwrap()).unwrap();
    decoder.window_log_max(27).unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut decoder, &mut bytes).unwrap();
    let mut rest = &bytes[..];
    let mut out = Vec::new();
    while let Some((head, after)) = rest.split_at_checked(12) {
        let (body, after) = after.split_at(u32::from_le_bytes(head[8..].try_into().unwrap()) as usize);
        out.push(body.to_vec());
        rest = after;
    }
    out
}

/// Counts what decoding hands on.
#[derive(Default)]
struct Counts {
    /// By the hash of their labels: the counts would tell of a collision.
    series: HashMap<u64, u32>,
    seen: std::collections::HashSet<(u32, i64)>,
    facts: Facts,
}

impl Sink for Counts {
    fn series(&mut self, labels: &[(&str, &str)]) -> SeriesRef {
        let next = self.series.len() as u32;
        SeriesRef(*self.series.entry(model::labels::hash_sorted(labels.iter().copied())).or_insert(next))
    }
    fn float(&mut self, series: SeriesRef, ts_ms: i64, value: f64, _start: i64) {
        let f = &mut self.facts;
        f.first_ms = if f.samples == 0 { ts_ms } else { f.first_ms.min(ts_ms) };
        f.last_ms = f.last_ms.max(ts_ms);
        f.samples += 1;
        f.stale_markers += u64::from(is_stale(value));
        self.seen.insert((series.0, ts_ms));
    }
    fn histogram(&mut self, series: SeriesRef, ts_ms: i64, _: Arc<Histogram>, _start: i64) {
        self.facts.histograms += 1;
        self.seen.insert((series.0, ts_ms));
    }
    fn exemplar(&mut self, _: SeriesRef, _: i64, _: f64, _: &[(&str, &str)]) -> Result<Accepted, Refused> {
        Ok(Accepted::New)
    }
    fn metadata(&mut self, _: &str, _: Metadata) {
        self.facts.metadata += 1;
    }
}

#[test]
fn recording_is_counted_alike_by_all() {
    for recording in recordings() {
        let want = facts(&recording);
        let mut counts = Counts::default();
        for block in frames(&recording) {
            let body = snap::raw::Decoder::new().decompress_vec(&block).unwrap();
            let outcome = v1::decode(&body, &Limits::default(), want.last_ms, &mut counts).unwrap();
            assert!(outcome.rejected.is_empty(), "{:?}", outcome.rejected);
            counts.facts.requests += 1;
            counts.facts.exemplars += outcome.exemplars;
            counts.facts.snappy_bytes += block.len() as u64;
            counts.facts.protobuf_bytes += body.len() as u64;
        }
        counts.facts.series = counts.series.len() as u64;
        counts.facts.distinct_samples = counts.seen.len() as u64;
        assert_eq!(counts.facts, want);
        eprintln!("decoded {}: {} samples", recording.file_name().unwrap().display(), want.samples);
    }
}

#[tokio::test]
async fn recording_replays_through_http_into_the_store() {
    for recording in recordings() {
        let want = facts(&recording);
        let clock = Arc::new(ManualClock::at(want.last_ms));
        let dir = tempfile::tempdir().unwrap();
        let mut options = DbOptions::new(dir.path(), Arc::new(object_store::memory::InMemory::new()));
        options.clock = clock.clone();
        let db = Db::open(options).await.unwrap();
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let tenant: TenantResolver = Arc::new(|_| Ok(TenantId::single()));
        let router = router(IngestState::new(db.clone(), Limits::default(), clock, tenant, metrics));
        for block in frames(&recording) {
            let request = Request::post("/api/v1/write")
                .header("content-encoding", "snappy")
                .header("content-type", "application/x-protobuf")
                .header("x-prometheus-remote-write-version", "0.1.0")
                .body(Body::from(block));
            let answer = router.clone().oneshot(request.unwrap()).await.unwrap();
            assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        }
        // Sources block on their store, so they are read beside the runtime and never on it.
        let found = tokio::task::spawn_blocking(move || count_stored(&db, want.first_ms, want.last_ms))
            .await
            .unwrap();
        // The store holds a histogram once that was sent twice, so only whether there are any is compared.
        assert_eq!(found.histograms > 0, want.histograms > 0);
        let Facts { series, distinct_samples, stale_markers, first_ms, last_ms, .. } = want;
        let histograms = found.histograms;
        let want = Facts {
            series,
            distinct_samples,
            stale_markers,
            histograms,
            first_ms,
            last_ms,
            ..Default::default()
        };
        assert_eq!(found, want);
        eprintln!("replayed {}: {} samples", recording.file_name().unwrap().display(), want.distinct_samples);
    }
}

/// What of the facts the store can tell.
fn count_stored(db: &Arc<Db>, first_ms: i64, last_ms: i64) -> Facts {
    let source = db.source(&TenantId::single());
    let filter = Selection {
        matchers: vec![Matcher::equal("", "")],
        min_t_ms: first_ms,
        max_t_ms: last_ms,
        hints: Hints::default(),
        budget: Budget::unlimited(),
    };
    let mut cursor = source.select(&filter).unwrap();
    let mut found = Facts { first_ms: i64::MAX, ..Default::default() };
    while let Some(batch) = cursor.next_batch().unwrap() {
        for s in batch {
            found.series += 1;
            found.distinct_samples += s.ts_ms.len() as u64;
            found.stale_markers += s.values.iter().filter(|v| is_stale(**v)).count() as u64;
            found.histograms += s.histograms.iter().flatten().flatten().count() as u64;
            found.first_ms = found.first_ms.min(s.ts_ms[0]);
            found.last_ms = found.last_ms.max(*s.ts_ms.last().unwrap());
        }
    }
    found
}

/// A small fleet as a Prometheus would send it: 40 series each 15 s, one target that goes away, native
/// histograms, metadata, and one request sent twice as after a lost answer. Answers the frames and the facts.
fn synthetic() -> (Vec<u8>, String) {
    let start_ms = 1_795_000_000_000i64;
    let mut rng = Rng(7);
    let (mut out, mut f) = (Vec::new(), Facts { series: 41, first_ms: start_ms, ..Default::default() });
    for scrape in 0..40i64 {
        let ts = start_ms + scrape * 15_000;
        let mut request = messages::v1::WriteRequest::default();
        for i in 0..40 {
            // The last target goes away: one staleness marker, then nothing.
            let gone = i >= 30 && scrape >= 20;
            if gone && scrape > 20 {
                continue;
            }
            let value = match i {
                _ if gone => model::sample::stale_nan(),
                0..20 => (scrape * (i + 1) * 10) as f64,
                _ => (rng.below(1000) as f64) / 100.0,
            };
            let (instance, core) = (format!("host-{}:9100", i / 10), i.to_string());
            let labels = [
                ("__name__", "node_cpu_seconds_total"),
                ("cpu", &*core),
                ("instance", &*instance),
                ("job", "node"),
            ];
            request.timeseries.push(messages::series(&labels, &[(ts, value)]));
            f.samples += 1;
            f.stale_markers += u64::from(gone);
        }
        let mut native = messages::series(&[("__name__", "latency_seconds"), ("job", "api")], &[]);
        native.histograms.push(messages::Histogram {
            count: Some(messages::Count::Int(scrape as u64 * 5)),
            sum: scrape as f64 * 1.5,
            schema: 3,
            zero_threshold: 1e-128,
            positive_spans: vec![messages::BucketSpan { offset: -5, length: 3 }],
            positive_deltas: vec![scrape, scrape, 0],
            timestamp: ts,
            ..Default::default()
        });
        native.exemplars.push(messages::v1::Exemplar { labels: vec![], value: 0.25, timestamp: ts });
        request.timeseries.push(native);
        f.histograms += 1;
        f.exemplars += 1;
        f.last_ms = ts;
        if scrape % 10 == 0 {
            request.metadata.push(messages::v1::MetricMetadata {
                r#type: 1,
                metric_family_name: "node_cpu_seconds_total".into(),
                help: "Seconds the CPUs spent in each mode.".into(),
                unit: String::new(),
            });
            f.metadata += 1;
        }
        let block = messages::snappy(&request);
        let times = if scrape == 12 { 2 } else { 1 };
        for _ in 0..times {
            out.extend((ts as u64).to_le_bytes());
            out.extend((block.len() as u32).to_le_bytes());
            out.extend_from_slice(&block);
            f.requests += 1;
            f.snappy_bytes += block.len() as u64;
            f.protobuf_bytes += request.encoded_len() as u64;
        }
        f.distinct_samples += request.timeseries.len() as u64;
        if times == 2 {
            f.samples += 40;
            f.histograms += 1;
            f.exemplars += 1;
        }
    }
    let facts = serde_json::json!({
        "requests": f.requests, "series": f.series, "samples": f.samples, "distinct_samples": f.distinct_samples,
        "stale_markers": f.stale_markers, "exemplars": f.exemplars, "histograms": f.histograms, "metadata": f.metadata,
        "first_ms": f.first_ms, "last_ms": f.last_ms, "snappy_bytes": f.snappy_bytes, "protobuf_bytes": f.protobuf_bytes,
    });
    (out, serde_json::to_string_pretty(&facts).unwrap() + "\n")
}

/// Holds the committed recording to what [`synthetic`] makes, so that both can be trusted. With
/// `HEARTH_RECORD=1` it writes them anew.
#[test]
fn small_recording_is_what_it_claims_to_be() {
    let (bytes, facts) = synthetic();
    if std::env::var_os("HEARTH_RECORD").is_some() {
        std::fs::create_dir_all(small().parent().unwrap()).unwrap();
        std::fs::write(small(), zstd::encode_all(&bytes[..], 19).unwrap()).unwrap();
        std::fs::write(small().to_str().unwrap().replace(".rec.zst", ".json"), &facts).unwrap();
    }
    assert_eq!(zstd::decode_all(std::fs::File::open(small()).unwrap()).unwrap(), bytes);
    assert_eq!(
        std::fs::read_to_string(small().to_str().unwrap().replace(".rec.zst", ".json")).unwrap(),
        facts
    );
}
