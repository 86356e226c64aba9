//! What the API tells about itself: durations, queries in flight, samples read, errors.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::source::MemoryPool;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::error::ErrorType;
use crate::results_cache::ResultsCache;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Endpoint {
    endpoint: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Failure {
    endpoint: String,
    r#type: &'static str,
}

/// 1 ms to half a minute; the default timeout is two minutes, beyond half a minute nobody looks closer.
#[derive(Clone)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
    }
}

/// The API's metrics. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    duration: Family<Endpoint, Histogram, Seconds>,
    errors: Family<Failure, Counter>,
    in_flight: Gauge,
    queued: Gauge,
    samples: Counter,
    memory: Memory,
    results: Results,
}

/// Tells what the results that are kept take and have saved, as soon as there are any.
#[derive(Clone, Debug, Default)]
struct Results(Arc<OnceLock<Arc<ResultsCache>>>);

impl Collector for Results {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Some(counts) = self.0.get().map(|results| results.counts()) else { return Ok(()) };
        for (name, help, n) in [
            ("bytes", "Memory that results of range queries take which are kept", counts.bytes),
            ("limit_bytes", "Memory that they may take, from where on the oldest go", counts.max_bytes),
            ("extents", "Parts of results that are kept", counts.extents),
        ] {
            let (name, metric) = (format!("hearth_query_results_cache_{name}"), ConstGauge::new(n));
            metric.encode(encoder.encode_descriptor(&name, help, None, metric.metric_type())?)?;
        }
        for (name, help, n) in [
            ("hits", "Range queries that were answered from kept results alone", counts.hits),
            ("partial_hits", "Range queries of which a part was kept", counts.partial_hits),
            ("misses", "Range queries that could have been kept and were not", counts.misses),
            ("cached_steps", "Steps of range queries that were kept", counts.cached_steps),
            ("computed_steps", "Steps that were computed beside or instead of them", counts.computed_steps),
            ("shared_runs", "Range queries that took what another computed just then", counts.shared),
            ("evictions", "Parts of results that went because others needed the memory", counts.evicted),
            ("outdated", "Parts of results that went because their samples had changed", counts.outdated),
        ] {
            let (name, metric) = (format!("hearth_query_results_cache_{name}"), ConstCounter::new(n));
            metric.encode(encoder.encode_descriptor(&name, help, None, metric.metric_type())?)?;
        }
        Ok(())
    }
}

/// Tells what the queries at work hold, as soon as there is an engine that knows.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<OnceLock<Arc<MemoryPool>>>);

impl Collector for Memory {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Some(pool) = self.0.get() else { return Ok(()) };
        for (name, help, bytes) in [
            (
                "hearth_query_memory_bytes",
                "Memory that samples and results of queries take",
                pool.reserved_bytes(),
            ),
            (
                "hearth_query_memory_limit_bytes",
                "Memory that all queries together may take, from where on they are refused",
                pool.max_bytes(),
            ),
        ] {
            let metric = ConstGauge::new(bytes);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        let evicted = ConstCounter::new(pool.evictions());
        let help = "Queries that were called off because memory was short and they held the most";
        let name = "hearth_query_evictions";
        evicted.encode(encoder.encode_descriptor(name, help, None, evicted.metric_type())?)
    }
}

impl Metrics {
    /// Registers `hearth_query_*` into a registry without prefix.
    pub fn new(registry: &mut Registry) -> Metrics {
        let m = Metrics {
            duration: Family::new_with_constructor(Seconds),
            errors: Family::default(),
            in_flight: Gauge::default(),
            queued: Gauge::default(),
            samples: Counter::default(),
            memory: Memory::default(),
            results: Results::default(),
        };
        registry.register_collector(Box::new(m.results.clone()));
        registry.register_collector(Box::new(m.memory.clone()));
        registry.register(
            "hearth_query_duration_seconds",
            "Time from a request to the head of its answer, by endpoint",
            m.duration.clone(),
        );
        registry.register(
            "hearth_query_errors",
            "Requests answered with an error, by its type",
            m.errors.clone(),
        );
        registry.register("hearth_query_in_flight", "Requests that are being worked on", m.in_flight.clone());
        registry.register("hearth_query_queued", "Queries waiting for their turn", m.queued.clone());
        registry.register(
            "hearth_query_samples_read",
            "Samples that queries read from storage",
            m.samples.clone(),
        );
        m
    }

    /// Whose memory is told; the first one stays.
    pub(in crate::api) fn watch(&self, pool: &Arc<MemoryPool>) {
        self.memory.0.get_or_init(|| pool.clone());
    }

    /// Whose kept results are told; the first ones stay.
    pub(in crate::api) fn watch_results(&self, results: &Arc<ResultsCache>) {
        self.results.0.get_or_init(|| results.clone());
    }

    pub(in crate::api) fn observe(&self, endpoint: &str, took: Duration, failed: Option<ErrorType>) {
        self.duration.get_or_create(&Endpoint { endpoint: endpoint.into() }).observe(took.as_secs_f64());
        if let Some(kind) = failed {
            self.failed(endpoint, kind);
        }
    }

    /// Counts an answer that was broken off after its head had been sent.
    pub(in crate::api) fn failed(&self, endpoint: &str, kind: ErrorType) {
        let failure = Failure { endpoint: endpoint.into(), r#type: kind.as_str() };
        self.errors.get_or_create(&failure).inc();
    }

    pub(in crate::api) fn read_samples(&self, n: u64) {
        self.samples.inc_by(n);
    }

    /// Counts one more in flight until the guard is dropped.
    pub(in crate::api) fn enter(&self) -> Entered {
        Entered::count(&self.in_flight)
    }

    pub(in crate::api) fn queue(&self) -> Entered {
        Entered::count(&self.queued)
    }
}

/// See [`Metrics::enter`].
pub(in crate::api) struct Entered(Gauge);

impl Entered {
    fn count(gauge: &Gauge) -> Entered {
        gauge.inc();
        Entered(gauge.clone())
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.dec();
    }
}
