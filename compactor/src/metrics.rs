//! What compaction tells about itself.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct JobLabels {
    pub why: &'static str,
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct FateLabels {
    pub fate: &'static str,
}

/// Handles to the counters; clones count into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) jobs: Family<JobLabels, Counter>,
    pub(crate) job_seconds: Histogram,
    pub(crate) samples_read: Counter,
    pub(crate) samples_written: Counter,
    pub(crate) samples_dropped: Family<FateLabels, Counter>,
    pub(crate) replica_series: Counter,
    pub(crate) replica_series_merged: Counter,
    pub(crate) read_bytes: Counter,
    pub(crate) written_bytes: Counter,
    pub(crate) peak_memory_bytes: Gauge,
    pub(crate) pending_jobs: Gauge,
    pub(crate) quarantined_blocks: Gauge,
    pub(crate) missing_objects: Gauge,
    pub(crate) expired_blocks: Counter,
    pub(crate) garbage_blocks: Counter,
    pub(crate) garbage_bytes: Counter,
    pub(crate) round_failures: Counter,
    pub(crate) last_round_seconds: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Makes the counters and registers them, all under `hearth_compactor_`.
    pub fn register(registry: &mut Registry) -> Metrics {
        let m = Metrics {
            jobs: Family::default(),
            job_seconds: Histogram::new(exponential_buckets(0.01, 4.0, 10)),
            samples_read: Counter::default(),
            samples_written: Counter::default(),
            samples_dropped: Family::default(),
            replica_series: Counter::default(),
            replica_series_merged: Counter::default(),
            read_bytes: Counter::default(),
            written_bytes: Counter::default(),
            peak_memory_bytes: Gauge::default(),
            pending_jobs: Gauge::default(),
            quarantined_blocks: Gauge::default(),
            missing_objects: Gauge::default(),
            expired_blocks: Counter::default(),
            garbage_blocks: Counter::default(),
            garbage_bytes: Counter::default(),
            round_failures: Counter::default(),
            last_round_seconds: Gauge::default(),
        };
        let r = registry.sub_registry_with_prefix("hearth_compactor");
        r.register("jobs", "Compaction jobs by cause and outcome", m.jobs.clone());
        r.register("job_seconds", "Duration of compaction jobs that were committed", m.job_seconds.clone());
        r.register("read_samples", "Samples read from blocks that were compacted", m.samples_read.clone());
        r.register(
            "written_samples",
            "Raw samples in the blocks that took their place",
            m.samples_written.clone(),
        );
        r.register(
            "dropped_samples",
            "Samples that compaction left out: duplicates, those of replicas not chosen, deleted or expired ones",
            m.samples_dropped.clone(),
        );
        r.register("replica_series", "Series of replicas that were merged", m.replica_series.clone());
        r.register(
            "replica_series_merged",
            "Series that replicas became; the difference is what was saved",
            m.replica_series_merged.clone(),
        );
        r.register("read_bytes", "Size of the blocks that were compacted", m.read_bytes.clone());
        r.register(
            "written_bytes",
            "Size of the blocks written, downsampled ones included",
            m.written_bytes.clone(),
        );
        r.register(
            "peak_memory_bytes",
            "Most memory that the last job held, by its own account",
            m.peak_memory_bytes.clone(),
        );
        r.register("pending_jobs", "Jobs that are planned and not done", m.pending_jobs.clone());
        r.register("quarantined_blocks", "Live blocks that cannot be read", m.quarantined_blocks.clone());
        r.register(
            "missing_objects",
            "Objects that the catalogs name and that are gone, or have another length",
            m.missing_objects.clone(),
        );
        r.register(
            "expired_blocks",
            "Blocks taken out of the catalog by retention",
            m.expired_blocks.clone(),
        );
        r.register("garbage_blocks", "Folders of blocks deleted from the store", m.garbage_blocks.clone());
        r.register("garbage_bytes", "Bytes deleted from the store", m.garbage_bytes.clone());
        r.register("round_failures", "Rounds over all tenants that met an error", m.round_failures.clone());
        r.register(
            "last_round_timestamp_seconds",
            "When the last round over all tenants ended without an error, since the Unix epoch",
            m.last_round_seconds.clone(),
        );
        m
    }

    pub(crate) fn job(&self, why: &'static str, outcome: &'static str) {
        self.jobs.get_or_create(&JobLabels { why, outcome }).inc();
    }

    pub(crate) fn dropped(&self, fate: &'static str, samples: u64) {
        self.samples_dropped.get_or_create(&FateLabels { fate }).inc_by(samples);
    }
}
