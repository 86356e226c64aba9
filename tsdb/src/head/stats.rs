//! What the head says of itself: the bytes that it holds, and which metrics and labels have most series.

use std::sync::atomic::{AtomicI64, Ordering};

use super::Head;
use super::tenant::TenantHead;
use model::head_stats::{HeadBytes, HeadStats, NamedCount};
use model::labels::METRIC_NAME;

impl Head {
    /// Bytes held, counted along with every change: asking costs nothing. What the allocator rounds up or
    /// keeps is not in it.
    pub fn bytes(&self) -> HeadBytes {
        let read = |n: &AtomicI64| n.load(Ordering::Relaxed).max(0) as u64;
        let b = &self.bytes;
        let frozen = read(&b.frozen_chunks) + read(&b.frozen_out_of_order);
        HeadBytes {
            symbols: read(&b.symbols),
            series: read(&b.series) + read(&b.label_sets) + read(&b.tables),
            postings: read(&b.postings),
            chunks: read(&b.chunks) + read(&b.frozen_chunks),
            out_of_order: read(&b.out_of_order) + read(&b.frozen_out_of_order),
            metadata: self.metadata_room.bytes.load(Ordering::Relaxed) + read(&b.tenants),
            frozen,
        }
    }

    /// What `status/tsdb` shows; walks the tenant's index and series.
    pub fn stats(&self, tenant: &TenantHead, first_generation: u64, limit: usize) -> HeadStats {
        let sets = self.labels.read();
        let symbols = sets.symbols();
        let postings = tenant.postings.read();
        let by_id = self.by_id.read();
        let mut stats = HeadStats { series: postings.all().len(), ..HeadStats::default() };
        let mut range: Option<(i64, i64)> = None;
        for s in postings.all().iter().filter_map(|id| by_id.series.get(id as usize)?.as_ref()) {
            stats.chunks += s.chunks() as u64;
            if let Some((a, b)) = s.range_ms(first_generation..=u64::MAX) {
                range = Some(range.map_or((a, b), |(x, y)| (x.min(a), y.max(b))));
            }
        }
        (stats.min_t_ms, stats.max_t_ms) = range.unwrap_or((0, 0));
        let named = |name: &str, value: u64| NamedCount { name: name.to_string(), value };
        for (name, values) in postings.iter() {
            let name = symbols.text(name);
            stats.label_pairs += values.len() as u64;
            stats.values_by_label.push(named(name, values.len() as u64));
            let bytes = values.iter().map(|(v, ids)| symbols.text(*v).len() as u64 * ids.len()).sum();
            stats.bytes_by_label.push(named(name, bytes));
            let mut pairs: Vec<_> = values.iter().map(|(v, ids)| (ids.len(), symbols.text(*v))).collect();
            pairs.sort_unstable_by(|a, b| (b.0, a.1).cmp(&(a.0, b.1)));
            for (count, value) in pairs.into_iter().take(limit) {
                if name == METRIC_NAME {
                    stats.series_by_metric.push(named(value, count));
                }
                stats.series_by_pair.push(NamedCount { name: format!("{name}={value}"), value: count });
            }
        }
        for list in [
            &mut stats.series_by_metric,
            &mut stats.values_by_label,
            &mut stats.bytes_by_label,
            &mut stats.series_by_pair,
        ] {
            list.sort_unstable_by(|a, b| (b.value, &a.name).cmp(&(a.value, &b.name)));
            list.truncate(limit);
        }
        stats
    }
}
