//! What the store holds and has done, read from it at each scrape.

use std::fmt::Debug;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tsdb::db::{Db, DbCounts};

/// Reads [`DbCounts`]. It does not keep the store open.
pub struct StoreMetrics(Weak<Db>);

impl StoreMetrics {
    pub fn new(db: &Arc<Db>) -> StoreMetrics {
        StoreMetrics(Arc::downgrade(db))
    }
}

impl Debug for StoreMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreMetrics")
    }
}

/// A metric's name, its help, and where its value is.
type Metric<V> = (&'static str, &'static str, fn(&DbCounts) -> V);

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

const GAUGES: &[Metric<Option<f64>>] = &[
    ("hearth_tsdb_head_series", "Series in the head", |c| Some(c.series as f64)),
    ("hearth_tsdb_head_samples", "Samples in the head's current generation", |c| {
        Some(c.samples_in_generation as f64)
    }),
    ("hearth_tsdb_head_symbol_bytes", "Memory of the head's label strings", |c| {
        Some(c.head_bytes.symbols as f64)
    }),
    ("hearth_tsdb_head_series_bytes", "Memory of the head's series, without their samples", |c| {
        Some(c.head_bytes.series as f64)
    }),
    ("hearth_tsdb_head_postings_bytes", "Memory of the head's index", |c| Some(c.head_bytes.postings as f64)),
    ("hearth_tsdb_head_chunk_bytes", "Memory of the head's compressed chunks", |c| {
        Some(c.head_bytes.chunks as f64)
    }),
    ("hearth_tsdb_head_out_of_order_bytes", "Memory of samples that came out of order", |c| {
        Some(c.head_bytes.out_of_order as f64)
    }),
    (
        "hearth_tsdb_head_metadata_bytes",
        "Memory of the metadata of metrics, and of tenants themselves",
        |c| Some(c.head_bytes.metadata as f64),
    ),
    ("hearth_tsdb_head_min_time_seconds", "Oldest sample in the head, since the Unix epoch", |c| {
        c.head_min_t_ms.map(seconds)
    }),
    ("hearth_tsdb_head_max_time_seconds", "Newest sample in the head, since the Unix epoch", |c| {
        c.head_max_t_ms.map(seconds)
    }),
    ("hearth_tsdb_head_limit_bytes", "Memory the head may hold, see head.max_memory_bytes", |c| {
        c.max_head_bytes.map(|b| b as f64)
    }),
    ("hearth_tsdb_blocks", "Live blocks of all tenants", |c| Some(c.blocks as f64)),
    ("hearth_tsdb_local_blocks", "Blocks on the local disk that are not in the object store yet", |c| {
        Some(c.local_blocks as f64)
    }),
    (
        "hearth_tsdb_local_block_bytes",
        "Size of the blocks on the local disk that are not in the object store yet",
        |c| Some(c.local_block_bytes as f64),
    ),
    ("hearth_tsdb_local_samples", "Samples on the local disk that are not in the object store yet", |c| {
        Some(c.local_samples as f64)
    }),
    ("hearth_tsdb_exemplars_in_memory", "Exemplars that are not in the object store yet", |c| {
        Some(c.exemplars.exemplars as f64)
    }),
    (
        "hearth_tsdb_exemplar_bytes_in_memory",
        "Memory of exemplars that are not in the object store yet",
        |c| Some(c.exemplars.bytes as f64),
    ),
    ("hearth_tsdb_exemplars_stored", "Exemplars in the object store", |c| Some(c.stored_exemplars as f64)),
    ("hearth_tsdb_exemplar_files", "Files of exemplars in the object store", |c| {
        Some(c.exemplar_files as f64)
    }),
    ("hearth_tsdb_exemplar_file_bytes", "Size of the files of exemplars in the object store", |c| {
        Some(c.exemplar_file_bytes as f64)
    }),
    (
        "hearth_tsdb_missing_objects",
        "Objects that the catalogs name and the object store does not have whole, as found at the start and every six hours",
        |c| Some(c.missing_objects as f64),
    ),
    ("hearth_tsdb_block_bytes", "Size of the live blocks in the object store", |c| {
        Some(c.block_bytes as f64)
    }),
];

/// Names that gauges had before, old and new: both are shown for one release.
const FORMER_NAMES: &[(&str, &str)] = &[
    ("hearth_tsdb_sealed_blocks", "hearth_tsdb_local_blocks"),
    ("hearth_tsdb_sealed_bytes", "hearth_tsdb_local_block_bytes"),
    ("hearth_tsdb_sealed_samples", "hearth_tsdb_local_samples"),
];

const COUNTERS: &[Metric<f64>] = &[
    ("hearth_tsdb_log_written_bytes", "Bytes written to the log", |c| c.log_bytes_written as f64),
    ("hearth_tsdb_log_fsyncs", "Fsyncs of the log", |c| c.log_fsyncs as f64),
    ("hearth_tsdb_log_fsync_seconds", "Time spent in fsyncs of the log", |c| c.log_fsync_seconds),
    ("hearth_tsdb_log_failures", "Writes or fsyncs of the log that failed", |c| c.log_failures as f64),
    ("hearth_tsdb_flushes", "Flushes of the head into blocks", |c| c.flushes as f64),
    ("hearth_tsdb_flush_failures", "Flushes that failed; their samples stay in head and log", |c| {
        c.flush_failures as f64
    }),
    ("hearth_tsdb_lost_samples", "Samples on the local disk that could not be read again", |c| {
        c.lost_samples as f64
    }),
    (
        "hearth_tsdb_early_flushes",
        "Times that samples left memory before their time, because the head neared its limit",
        |c| c.early_flushes as f64,
    ),
    ("hearth_tsdb_refused_writes", "Writes refused because the head was at its memory limit", |c| {
        c.refused_writes as f64
    }),
    (
        "hearth_tsdb_refused_metadata",
        "Entries of metadata that were not kept, because there was no room",
        |c| c.refused_metadata as f64,
    ),
    (
        "hearth_tsdb_missing_segments",
        "Segments of the log that were gone at the start and in no block: their samples are lost",
        |c| c.missing_segments as f64,
    ),
    ("hearth_tsdb_damaged_local_blocks", "Local blocks that were damaged or gone at the start", |c| {
        c.damaged_local_blocks as f64
    }),
    ("hearth_tsdb_log_damaged_bytes", "Bytes in the midst of the log that were damaged at the start", |c| {
        c.log_damaged_bytes as f64
    }),
    (
        "hearth_tsdb_log_orphaned_samples",
        "Samples of the log whose series was defined in damaged bytes: they are lost",
        |c| c.log_orphaned_samples as f64,
    ),
];

impl Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(db) = self.0.upgrade() else { return Ok(()) };
        let counts = db.counts();
        for (name, help, value) in GAUGES {
            let Some(value) = value(&counts) else { continue };
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
            for (former, _) in FORMER_NAMES.iter().filter(|(_, now)| now == name) {
                let help = format!("The former name of {name}, for one release");
                metric.encode(encoder.encode_descriptor(former, &help, None, metric.metric_type())?)?;
            }
        }
        for (name, help, value) in COUNTERS {
            let metric = ConstCounter::new(value(&counts));
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        Ok(())
    }
}
