//! What the write path tells about itself.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tsdb::db::Appended;

use crate::protocol::Protocol;
use crate::reject::Reason;
use crate::remote_write::validate::Outcome;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    protocol: Protocol,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: Reason,
}

impl EncodeLabelValue for Protocol {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

/// Handles to the counters; clones count into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    samples: Family<KindLabels, Counter>,
    bytes: Family<KindLabels, Counter>,
    duplicates: Counter,
    out_of_order: Counter,
    exemplars: Counter,
    exemplars_dropped: Counter,
    metadata: Counter,
    rejected: Family<ReasonLabels, Counter>,
    duration_seconds: Histogram,
    pub(crate) in_flight_bytes: Gauge,
    pub(crate) series_cache_bytes: Gauge,
}

impl Metrics {
    /// Makes the counters and registers them, all under `hearth_ingest_`.
    pub fn register(registry: &mut Registry) -> Metrics {
        let m = Metrics {
            requests: Family::default(),
            samples: Family::default(),
            bytes: Family::default(),
            duplicates: Counter::default(),
            out_of_order: Counter::default(),
            exemplars: Counter::default(),
            exemplars_dropped: Counter::default(),
            metadata: Counter::default(),
            rejected: Family::default(),
            // 0.5 ms to 16 s: from a small request on a fast disk to one that waited for a slow one.
            duration_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
            in_flight_bytes: Gauge::default(),
            series_cache_bytes: Gauge::default(),
        };
        let r = registry.sub_registry_with_prefix("hearth_ingest");
        r.register("requests", "Write requests answered, by protocol and status code", m.requests.clone());
        r.register(
            "samples",
            "Samples checked and committed, by kind (float, histogram), duplicates among them",
            m.samples.clone(),
        );
        r.register("bytes", "Bytes of write requests, compressed as received and decoded", m.bytes.clone());
        r.register(
            "duplicate_samples",
            "Samples that were stored already, same value and timestamp",
            m.duplicates.clone(),
        );
        r.register(
            "out_of_order_samples",
            "Stored samples older than the newest of their series",
            m.out_of_order.clone(),
        );
        r.register("exemplars", "Exemplars committed, duplicates among them", m.exemplars.clone());
        r.register(
            "exemplars_dropped",
            "Exemplars not kept: broken, too long, out of order, or without room in memory",
            m.exemplars_dropped.clone(),
        );
        r.register("metadata", "Metadata entries taken", m.metadata.clone());
        r.register("rejected_samples", "Samples refused, by reason", m.rejected.clone());
        r.register(
            "request_duration_seconds",
            "Time from the request's head to its answer",
            m.duration_seconds.clone(),
        );
        r.register(
            "in_flight_bytes",
            "Memory reserved by requests that are being read, decoded or committed",
            m.in_flight_bytes.clone(),
        );
        let cache = "Memory of the cache that recognises series by the bytes they come in";
        r.register("series_cache_bytes", cache, m.series_cache_bytes.clone());
        // Its name up to version 0.1, for one release.
        r.register(
            "recognition_bytes",
            "The same as hearth_ingest_series_cache_bytes",
            m.series_cache_bytes.clone(),
        );
        m
    }

    pub(crate) fn answered(&self, protocol: Protocol, code: u16, took: Duration) {
        self.requests.get_or_create(&RequestLabels { protocol, code }).inc();
        self.duration_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn received(&self, compressed: usize, decoded: usize) {
        self.bytes.get_or_create(&KindLabels { kind: "compressed" }).inc_by(compressed as u64);
        self.bytes.get_or_create(&KindLabels { kind: "decoded" }).inc_by(decoded as u64);
    }

    pub(crate) fn refused(&self, outcome: &Outcome) {
        for reason in Reason::ALL {
            // A refusal without a sample (metadata, an empty series) counts as one, so that it is not
            // invisible.
            let n = outcome.rejected.samples(reason).max(outcome.rejected.items(reason));
            if n > 0 {
                self.rejected.get_or_create(&ReasonLabels { reason }).inc_by(n);
            }
        }
        self.exemplars_dropped.inc_by(outcome.exemplars_dropped);
    }

    pub(crate) fn stored(&self, outcome: &Outcome, appended: &Appended) {
        self.samples.get_or_create(&KindLabels { kind: "float" }).inc_by(outcome.samples);
        if outcome.histograms > 0 {
            self.samples.get_or_create(&KindLabels { kind: "histogram" }).inc_by(outcome.histograms);
        }
        self.duplicates.inc_by(appended.duplicates);
        self.out_of_order.inc_by(appended.out_of_order);
        self.exemplars.inc_by(outcome.exemplars);
        self.metadata.inc_by(outcome.metadata);
    }
}
