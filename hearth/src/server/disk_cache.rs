//! The cache of blocks' bytes on the local disk: opened as the settings say, and what it does as metrics.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tsdb::bucket::{DiskCache, DiskCacheStats};

use crate::config::Settings;
use crate::config::value::Role;
use crate::http::Server;

/// Its folder in the data folder.
const FOLDER: &str = "block-cache";

/// The cache, unless it is switched off; the error says what to mend.
pub fn open(settings: &Settings, web: &Server) -> Result<Option<Arc<DiskCache>>, String> {
    if settings.query_disk_cache.0 == 0 {
        return Ok(None);
    }
    let folder = folder(settings)?;
    let cache = DiskCache::open(&folder, settings.query_disk_cache.0).map_err(|e| {
        let folder = folder.display();
        format!("the cache of blocks in {folder} (query.disk_cache_path) cannot be used: {e}")
    })?;
    web.register(|r| r.register_collector(Box::new(DiskCacheMetrics(Arc::downgrade(&cache)))));
    Ok(Some(cache))
}

fn folder(settings: &Settings) -> Result<PathBuf, String> {
    let given = &settings.query_disk_cache_path.0;
    match given.as_os_str().is_empty() {
        false => Ok(given.clone()),
        true if matches!(settings.role, Role::Query | Role::Rules) => Err(
            "query.disk_cache_bytes needs query.disk_cache_path where the role is query or rules: such a process has no data folder".into(),
        ),
        true => Ok(settings.data_dir.0.join(FOLDER)),
    }
}

/// Reads [`DiskCacheStats`] at each scrape. It does not keep the cache open.
struct DiskCacheMetrics(Weak<DiskCache>);

impl Debug for DiskCacheMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DiskCacheMetrics")
    }
}

/// A metric's name, its help, and where its value is.
type Metric = (&'static str, &'static str, fn(&DiskCacheStats) -> u64);

const GAUGES: &[Metric] = &[
    ("hearth_tsdb_disk_cache_bytes", "Size of what is cached of blocks on the local disk", |s| s.bytes),
    ("hearth_tsdb_disk_cache_limit_bytes", "What it may be, see query.disk_cache_bytes", |s| s.max_bytes),
];

const COUNTERS: &[Metric] = &[
    (
        "hearth_tsdb_disk_cache_hit_bytes",
        "Bytes of blocks that were read from the local disk in place of the object store",
        |s| s.hit_bytes,
    ),
    (
        "hearth_tsdb_disk_cache_missed_bytes",
        "Bytes of blocks that were not on the local disk and had to be fetched",
        |s| s.missed_bytes,
    ),
    ("hearth_tsdb_disk_cache_written_bytes", "Bytes of blocks that were written to the local disk", |s| {
        s.written_bytes
    }),
    (
        "hearth_tsdb_disk_cache_damaged",
        "Parts of blocks on the local disk that were not as their checksums say, and were dropped",
        |s| s.damaged,
    ),
    (
        "hearth_tsdb_disk_cache_skipped",
        "Fetched ranges that were not cached on the local disk, because too many waited to be written",
        |s| s.skipped,
    ),
    ("hearth_tsdb_disk_cache_failed_writes", "Writes to the cache of blocks that failed", |s| {
        s.failed_writes
    }),
];

impl Collector for DiskCacheMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(cache) = self.0.upgrade() else { return Ok(()) };
        let stats = cache.stats();
        for (name, help, value) in GAUGES {
            let metric = ConstGauge::new(value(&stats) as f64);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        for (name, help, value) in COUNTERS {
            let metric = ConstCounter::new(value(&stats));
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        Ok(())
    }
}
