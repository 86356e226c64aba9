//! What a tenant's blocks cost, by metric and by label: counted on a thread of its own when somebody asks,
//! and remembered until blocks have changed. Counting reads the labels of every block, so nobody waits for
//! it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use compactor::inspect::stats::{LabelCounts, LabelStats, MetricStats, Order, Stats};
use model::clock::Clock;
use model::tenant::TenantId;
use parking_lot::Mutex;
use query::api::upkeep::{CostOrder, Counted, StoredCardinality, StoredLabel, StoredMetric};
use tsdb::block::BlockMeta;
use tsdb::bucket::maintenance::{BucketMaintenance, Patience};
use tsdb::db::Db;
use ulid::Ulid;

/// Longest list that is remembered.
const MOST: usize = 1000;
/// A count ends after so long, or with so many series (some 50 bytes of memory each), and says that it is
/// not of all blocks.
const LONGEST: Duration = Duration::from_secs(120);
const MOST_SERIES: u64 = 5_000_000;
/// Blocks that have changed are not counted again before this: a server that compacts changes them often.
const FRESH_MS: i64 = 60_000;
/// Memory for the columns of blocks that are read.
const CACHE_BYTES: usize = 16 << 20;

/// The counts of a process, one under way at a time.
pub struct StoredCounts {
    db: Arc<Db>,
    clock: Arc<dyn Clock>,
    runtime: tokio::runtime::Handle,
    state: Mutex<State>,
    /// Blocks that the count under way has read.
    read: AtomicU64,
}

#[derive(Default)]
struct State {
    counts: HashMap<TenantId, Count>,
    errors: HashMap<TenantId, String>,
    /// Whose blocks are being counted, and how many there are.
    counting: Option<(TenantId, u64)>,
}

struct Count {
    /// What was to be counted, in order.
    blocks: Vec<Ulid>,
    by_bytes: Counted,
    by_series: Counted,
}

impl StoredCounts {
    pub fn new(db: Arc<Db>, clock: Arc<dyn Clock>, runtime: tokio::runtime::Handle) -> Arc<StoredCounts> {
        Arc::new(StoredCounts { db, clock, runtime, state: Mutex::default(), read: AtomicU64::new(0) })
    }

    /// What is known of a tenant's blocks; begins to count where that is old.
    pub fn of(self: &Arc<Self>, tenant: &TenantId, limit: usize, by: CostOrder) -> StoredCardinality {
        let mut blocks = self.db.blocks(tenant);
        // The newest first: where a count ends early, it is of what people look at most.
        blocks.sort_by_key(|block| (std::cmp::Reverse(block.max_t_ms), block.ulid));
        let mut state = self.state.lock();
        let wanted: Vec<Ulid> = blocks.iter().map(|block| block.ulid).collect();
        let is_old = state.counts.get(tenant).is_none_or(|count| {
            count.blocks != wanted && self.clock.now_ms() - count.by_bytes.at_ms > FRESH_MS
        });
        if is_old && state.counting.is_none() {
            self.begin(&mut state, tenant, blocks);
        }
        let counting = match &state.counting {
            Some((whose, of)) if whose == tenant => Some((self.read.load(Ordering::Relaxed), *of)),
            // Another tenant's turn: it begins with a later request.
            Some(_) if is_old => Some((0, wanted.len() as u64)),
            _ => None,
        };
        let counted = state.counts.get(tenant).map(|count| {
            let mut counted = match by {
                CostOrder::Bytes => count.by_bytes.clone(),
                CostOrder::Series => count.by_series.clone(),
            };
            counted.metrics.truncate(limit);
            counted.labels.truncate(limit);
            counted
        });
        StoredCardinality { counted, counting, error: state.errors.get(tenant).cloned() }
    }

    fn begin(self: &Arc<Self>, state: &mut State, tenant: &TenantId, blocks: Vec<Arc<BlockMeta>>) {
        state.counting = Some((tenant.clone(), blocks.len() as u64));
        self.read.store(0, Ordering::Relaxed);
        let (counts, tenant) = (self.clone(), tenant.clone());
        self.runtime.spawn_blocking(move || {
            let counted = counts.count(&tenant, &blocks);
            let mut state = counts.state.lock();
            state.counting = None;
            match counted {
                Ok(count) => {
                    state.errors.remove(&tenant);
                    state.counts.insert(tenant, count);
                }
                Err(why) => {
                    tracing::warn!(%tenant, "blocks could not be counted: {why}");
                    state.errors.insert(tenant, why);
                }
            }
        });
    }

    /// Reads block after block. Blocks the thread.
    fn count(&self, tenant: &TenantId, blocks: &[Arc<BlockMeta>]) -> Result<Count, String> {
        let begun = Instant::now();
        let bucket = BucketMaintenance::new(self.db.object_store(), self.clock.clone(), Patience::default());
        let store = bucket.blocks(CACHE_BYTES);
        let mut counts = LabelCounts::default();
        for block in blocks {
            if begun.elapsed() > LONGEST || counts.series() > MOST_SERIES {
                break;
            }
            // A block that compaction has replaced meanwhile may be gone; the next count is of what is there.
            counts.add(&store, tenant, block).map_err(|e| e.to_string())?;
            self.read.fetch_add(1, Ordering::Relaxed);
        }
        let stats = counts.finish(Order::Bytes, usize::MAX);
        let of_blocks = blocks.len() as u64;
        let blocks = blocks.iter().map(|block| block.ulid).collect();
        let at_ms = self.clock.now_ms();
        let by_bytes = counted(&stats, at_ms, of_blocks);
        let by_series = counted(&ordered_by_series(stats), at_ms, of_blocks);
        Ok(Count { blocks, by_bytes, by_series })
    }
}

fn ordered_by_series(mut stats: Stats) -> Stats {
    stats.metrics.sort_by(|a, b| b.series.cmp(&a.series).then_with(|| a.metric.cmp(&b.metric)));
    stats.labels.sort_by(|a, b| b.values.cmp(&a.values).then_with(|| a.label.cmp(&b.label)));
    stats
}

fn counted(stats: &Stats, at_ms: i64, of_blocks: u64) -> Counted {
    let metric = |m: &MetricStats| StoredMetric {
        name: m.metric.clone(),
        series: m.series,
        samples: m.samples,
        bytes: m.bytes,
    };
    let label = |l: &LabelStats| StoredLabel {
        name: l.label.clone(),
        values: l.values,
        series: l.series,
        bytes: l.bytes,
    };
    Counted {
        at_ms,
        blocks: stats.blocks,
        of_blocks,
        series: stats.series,
        samples: stats.samples,
        bytes: stats.bytes,
        metrics: stats.metrics.iter().take(MOST).map(metric).collect(),
        labels: stats.labels.iter().take(MOST).map(label).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_cut_after_they_are_ordered() {
        let metric =
            |name: &str, series, bytes| MetricStats { metric: name.into(), series, samples: 1, bytes };
        let mut metrics: Vec<_> = (0..MOST).map(|i| metric(&format!("m{i}"), 1, 100.0)).collect();
        metrics.push(metric("many", 50, 1.0));
        let stats = Stats { blocks: 3, series: 7, metrics, ..Stats::default() };
        let by_bytes = counted(&stats, 5, 4);
        assert_eq!((by_bytes.metrics.len(), by_bytes.blocks, by_bytes.of_blocks), (MOST, 3, 4));
        assert!(by_bytes.metrics.iter().all(|m| m.name != "many"));
        assert_eq!(counted(&ordered_by_series(stats), 5, 4).metrics[0].name, "many");
    }
}
