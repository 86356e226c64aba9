//! A tenant's part of the head: its index, and what is known of its metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::postings::Postings;
use crate::sidecar::metadata::{MAX_METRICS, MAX_PER_METRIC, MetricMetadata, entry_bytes};
use model::sample::Metadata;
use model::tenant::TenantId;

/// What the head holds of one tenant.
pub struct TenantHead {
    pub id: TenantId,
    /// Of all tenants that the head ever had, one that came back included, another for each.
    pub(super) number: u64,
    /// Series that were made and series that left, ever; changed while label sets are locked for writing.
    pub(super) came: AtomicU64,
    pub(super) went: AtomicU64,
    pub(super) postings: RwLock<Postings>,
    /// With the time each entry was heard last, in milliseconds.
    pub(super) metadata: RwLock<BTreeMap<String, BTreeMap<Metadata, AtomicI64>>>,
    /// Bytes of it: of this tenant, and the room that all share.
    pub(super) metadata_bytes: AtomicU64,
    pub(super) metadata_room: Arc<MetadataRoom>,
    /// Of its newest sample that this process wrote; `i64::MIN` before the first.
    pub(super) newest_ms: AtomicI64,
}

/// Memory for metadata of all tenants. It stays for as long as the process runs, so that it must leave room
/// for what comes and goes.
pub(super) struct MetadataRoom {
    pub(super) max_bytes: u64,
    pub(super) bytes: AtomicU64,
}

/// Metadata that all tenants may have in memory where nothing else is said.
pub(super) const METADATA_BYTES: u64 = 256 << 20;

/// Longest texts of one entry of metadata that are kept.
pub const MAX_ENTRY_BYTES: u64 = 64 << 10;

/// What a tenant takes that has nothing.
pub(super) const TENANT_BYTES: i64 = 1024;

impl TenantHead {
    /// When its newest sample is, as far as this process wrote any or replayed it.
    pub fn newest_ms(&self) -> Option<i64> {
        Some(self.newest_ms.load(Ordering::Relaxed)).filter(|newest| *newest != i64::MIN)
    }

    /// Notes that samples up to this time were written.
    pub fn wrote_until(&self, t_ms: i64) {
        self.newest_ms.fetch_max(t_ms, Ordering::Relaxed);
    }

    /// Whether this is known of a metric, or there is no room to know more: metadata comes from outside and
    /// must have an end. What is known already is noted as heard at `now_ms`.
    pub fn knows(&self, metric: &str, metadata: &Metadata, now_ms: i64) -> bool {
        let all = self.metadata.read();
        match all.get(metric) {
            Some(known) => match known.get(metadata) {
                Some(heard_ms) => {
                    heard_ms.fetch_max(now_ms, Ordering::Relaxed);
                    true
                }
                None => known.len() >= MAX_PER_METRIC,
            },
            None => all.len() >= MAX_METRICS,
        }
    }

    /// Whether a further entry of so many bytes may be kept, see [`entry_bytes`]: no tenant may take more
    /// than half of what all may.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        let room = &self.metadata_room;
        let used = |of: &AtomicU64| of.load(Ordering::Relaxed).saturating_add(bytes);
        used(&self.metadata_bytes) <= room.max_bytes / 2 && used(&room.bytes) <= room.max_bytes
    }

    /// Notes what a metric is, where there is room to.
    pub fn learn(&self, metric: &str, metadata: &Metadata, now_ms: i64) {
        let mut all = self.metadata.write();
        if !all.get(metric).is_some_and(|known| known.contains_key(metadata)) {
            let bytes = entry_bytes(metric, metadata);
            if bytes > MAX_ENTRY_BYTES || !self.has_room_for(bytes) {
                return;
            }
            self.metadata_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.metadata_room.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        let known = all.entry(metric.to_string()).or_default();
        known.entry(metadata.clone()).or_default().fetch_max(now_ms, Ordering::Relaxed);
    }

    /// About what its metadata takes in memory.
    pub fn metadata_bytes(&self) -> u64 {
        self.metadata_bytes.load(Ordering::Relaxed)
    }

    /// What was heard of metrics since the process started (or is in its log), and when last.
    pub fn metadata(&self, metric: Option<&str>) -> MetricMetadata {
        let all = self.metadata.read();
        let heard = |known: &BTreeMap<Metadata, AtomicI64>| {
            known.iter().map(|(m, heard_ms)| (m.clone(), heard_ms.load(Ordering::Relaxed))).collect()
        };
        match metric {
            Some(metric) => {
                all.get_key_value(metric).map(|(m, k)| (m.clone(), heard(k))).into_iter().collect()
            }
            None => all.iter().map(|(m, k)| (m.clone(), heard(k))).collect(),
        }
    }

    pub fn series_count(&self) -> u64 {
        self.postings.read().all().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Head;

    #[test]
    fn metadata_takes_no_more_than_it_may_and_is_counted() {
        let head = Head::with_metadata_bytes(100_000);
        let entry = |help: usize| Metadata { kind: "gauge".into(), help: "h".repeat(help), unit: "".into() };
        let (a, b) = ([1, 2].map(|n| head.tenant(&TenantId::new(&format!("t{n}")).unwrap()))).into();
        for n in 0..1_000 {
            a.learn(&format!("metric_{n}"), &entry(1_000), 5);
        }
        assert!(head.bytes().metadata <= 50_000 + 2 * TENANT_BYTES as u64);
        assert!(a.metadata(None).len() > 30);
        b.learn("other", &entry(10), 5);
        b.learn("long", &entry(MAX_ENTRY_BYTES as usize), 5);
        assert_eq!(
            b.metadata(None).len(),
            1,
            "one tenant leaves room for the others, and an entry for the rest"
        );
    }
}
