//! What a bucket's contents cost, by metric and by label, over all blocks and so over all of history.
//!
//! Series and values are told apart by 64-bit hashes: ten bytes of memory for each distinct one, and a chance
//! of one in a million to be off by one at six million of them.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use model::keyed_hash::keyed_hash;
use model::labels::{Labels, METRIC_NAME};
use model::tenant::TenantId;
use serde::Serialize;
use tsdb::block::inspect::weigh::weigh;
use tsdb::block::{BlockMeta, BlockReader, ReadOptions};
use tsdb::bucket::BlockStore;
use tsdb::deletion::Visibility;

use super::InspectError;

/// A metric over all blocks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MetricStats {
    pub metric: String,
    /// Distinct label sets that it ever had.
    pub series: u64,
    /// Samples and windows, those of downsampled blocks included.
    pub samples: u64,
    /// Its share of the bytes of all blocks.
    pub bytes: f64,
}

/// A label over all blocks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LabelStats {
    pub label: String,
    /// Distinct values that it ever had.
    pub values: u64,
    /// Distinct series that ever had it.
    pub series: u64,
    /// Its share of the bytes of all blocks: a series' bytes fall to its labels alike, so this says which
    /// labels sit on what is expensive.
    pub bytes: f64,
}

/// All of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    pub blocks: u64,
    /// Distinct label sets in all blocks.
    pub series: u64,
    pub samples: u64,
    pub bytes: u64,
    pub metrics: Vec<MetricStats>,
    pub labels: Vec<LabelStats>,
}

/// What the lists are cut by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Bytes,
    Cardinality,
}

/// Adds block after block.
#[derive(Default)]
pub struct LabelCounts {
    blocks: u64,
    bytes: u64,
    seen: HashSet<u64>,
    metrics: HashMap<String, MetricStats>,
    labels: HashMap<String, OfLabel>,
}

#[derive(Default)]
struct OfLabel {
    values: HashSet<u64>,
    series: u64,
    bytes: f64,
}

impl LabelCounts {
    /// Reads a block's labels and small columns. Blocks the thread.
    pub fn add(
        &mut self,
        store: &Arc<BlockStore>,
        tenant: &TenantId,
        meta: &Arc<BlockMeta>,
    ) -> Result<(), InspectError> {
        let weights = weigh(store, tenant, meta)?;
        let mut reader =
            BlockReader::open(store, tenant, meta, &Visibility::default(), ReadOptions::default())?;
        self.blocks += 1;
        self.bytes += meta.files.bytes();
        let mut weights = weights.samples.into_iter().zip(weights.bytes);
        while let Some(run) = reader.next_labels()? {
            for labels in run {
                let (samples, bytes) = weights.next().unwrap_or_default();
                self.add_series(&labels, samples, bytes);
            }
        }
        Ok(())
    }

    /// Distinct label sets so far.
    pub fn series(&self) -> u64 {
        self.seen.len() as u64
    }

    fn add_series(&mut self, labels: &Labels, samples: u64, bytes: f64) {
        let new = self.seen.insert(keyed_hash(&labels.encode()));
        let name = labels.value(METRIC_NAME);
        let metric = self.metrics.entry_ref(name).or_default();
        metric.series += u64::from(new);
        metric.samples += samples;
        metric.bytes += bytes;
        let share = bytes / labels.iter().count().max(1) as f64;
        for (name, value) in labels {
            let of = self.labels.entry_ref(name).or_default();
            of.values.insert(keyed_hash(value.as_bytes()));
            of.series += u64::from(new);
            of.bytes += share;
        }
    }

    /// The sums, and the first `top` of each list.
    pub fn finish(self, order: Order, top: usize) -> Stats {
        let samples = self.metrics.values().map(|m| m.samples).sum();
        let mut metrics: Vec<MetricStats> =
            self.metrics.into_iter().map(|(name, m)| MetricStats { metric: name, ..m }).collect();
        let mut labels: Vec<LabelStats> = self
            .labels
            .into_iter()
            .map(|(name, of)| LabelStats {
                label: name,
                values: of.values.len() as u64,
                series: of.series,
                bytes: of.bytes,
            })
            .collect();
        match order {
            Order::Bytes => {
                metrics.sort_by(|a, b| b.bytes.total_cmp(&a.bytes).then_with(|| a.metric.cmp(&b.metric)));
                labels.sort_by(|a, b| b.bytes.total_cmp(&a.bytes).then_with(|| a.label.cmp(&b.label)));
            }
            Order::Cardinality => {
                metrics.sort_by(|a, b| b.series.cmp(&a.series).then_with(|| a.metric.cmp(&b.metric)));
                labels.sort_by(|a, b| b.values.cmp(&a.values).then_with(|| a.label.cmp(&b.label)));
            }
        }
        metrics.truncate(top);
        labels.truncate(top);
        Stats {
            blocks: self.blocks,
            series: self.seen.len() as u64,
            samples,
            bytes: self.bytes,
            metrics,
            labels,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_counts_once_and_its_bytes_as_often_as_it_is_stored() {
        let labels = |pairs: &[(&str, &str)]| Labels::from_sorted(pairs.iter().copied());
        let mut counts = LabelCounts::default();
        let (a, b) =
            (labels(&[("__name__", "up"), ("job", "x")]), labels(&[("__name__", "up"), ("job", "y")]));
        counts.add_series(&a, 10, 8.0);
        counts.add_series(&a, 5, 4.0);
        counts.add_series(&b, 1, 2.0);
        let stats = counts.finish(Order::Cardinality, 1);
        assert_eq!((stats.series, stats.samples), (2, 16));
        assert_eq!(stats.metrics, [MetricStats { metric: "up".into(), series: 2, samples: 16, bytes: 14.0 }]);
        assert_eq!(stats.labels, [LabelStats { label: "job".into(), values: 2, series: 2, bytes: 7.0 }]);
    }
}
