//! What leaves the head: generations that were sealed, series without a sample since, tenants without
//! anything.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::numbers::spread;
use super::samples::Samples;
use super::series::{GONE, SERIES_BYTES, Series};
use super::tenant::TENANT_BYTES;
use super::{Head, SHARDS};

/// What [`Head::forget`] found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forgotten {
    /// Series without a sample since before the flushed generation.
    pub idle_series: u64,
}

impl Head {
    /// Forgets generations up to `flushed` and the series that have had no sample since before it. The caller
    /// keeps writers out while `drop_idle` is set: a writer may hold a series that would go.
    pub fn forget(&self, flushed: u64, drop_idle: bool) -> Forgotten {
        let all: Vec<Arc<Series>> = self.by_id.read().series.iter().flatten().cloned().collect();
        let mut forgotten = Forgotten::default();
        let mut idle = Vec::new();
        for s in all {
            let mut state = s.state.lock();
            if state.frozen.as_ref().is_some_and(|f| f.0 <= flushed) {
                state.frozen = None;
            }
            let generation = s.generation(&state);
            if generation <= flushed && !state.active.is_empty() {
                state.active = Samples::default();
            }
            // Quiet for all of the flushed generation and since: gone. Others keep their place for the next
            // scrape.
            if generation < flushed && state.frozen.is_none() {
                forgotten.idle_series += 1;
                if drop_idle {
                    s.generation.store(GONE, Ordering::Relaxed);
                    idle.push(s.clone());
                }
            }
        }
        for s in idle {
            self.remove(&s);
        }
        if drop_idle {
            self.forget_tenants();
        }
        if self.generation() > flushed {
            self.time_bounds.forget(flushed);
            self.bytes.frozen_chunks.store(0, Ordering::Relaxed);
            self.bytes.frozen_out_of_order.store(0, Ordering::Relaxed);
        }
        forgotten
    }

    /// Forgets tenants of whom there is nothing: whoever may name tenants must not fill the head with their
    /// names.
    fn forget_tenants(&self) {
        self.tenants.write().retain(|_, tenant| {
            let stays = Arc::strong_count(tenant) > 1
                || tenant.series_count() > 0
                || tenant.metadata_bytes.load(Ordering::Relaxed) > 0;
            if !stays {
                self.bytes.tenants.fetch_sub(TENANT_BYTES, Ordering::Relaxed);
            }
            stays
        });
    }

    fn remove(&self, series: &Series) {
        let mut sets = self.labels.write();
        let mut postings = series.tenant.postings.write();
        series.tenant.went.fetch_add(1, Ordering::Relaxed);
        let before = postings.heap_bytes() as i64;
        postings.remove(series.id, &sets.pairs(series.labels).symbols().collect::<Vec<_>>());
        self.bytes.postings.fetch_add(postings.heap_bytes() as i64 - before, Ordering::Relaxed);
        drop(postings);
        let mut shard = self.shards[series.hash as usize % SHARDS].write();
        let mut by_id = self.by_id.write();
        let tables = by_id.heap_bytes() + shard.allocation_size();
        if let Ok(entry) = shard.find_entry(spread(series.hash), |id| *id == series.id) {
            entry.remove();
        }
        if shard.len() < shard.capacity() / 4 {
            shard.shrink_to(0, |id| by_id.hash(*id));
        }
        by_id.take_back(series.id);
        self.count_tables(tables, &by_id, &shard);
        drop((shard, by_id));
        sets.release(series.labels);
        self.bytes.series.fetch_sub(SERIES_BYTES, Ordering::Relaxed);
        self.count_labels(&sets);
    }
}
