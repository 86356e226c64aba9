//! About how much memory a series takes, counted one way everywhere: by budgets, batches and whoever waits
//! for more.

use super::SeriesColumns;

impl SeriesColumns {
    /// About how many bytes it holds, timestamps that others hold too counted in part.
    pub fn own_bytes(&self) -> u64 {
        let shared = std::sync::Arc::strong_count(&self.ts_ms).max(1);
        let of_timeline = self.ts_ms.len() as u64 * 8;
        self.memory_bytes() - of_timeline + of_timeline / shared as u64
    }

    /// About how many bytes it holds. Timestamps count in full although series of one scrape may share them.
    pub fn memory_bytes(&self) -> u64 {
        let histograms = self.histograms.as_ref().map_or(0, |all| {
            all.iter().map(|h| 8 + h.as_ref().map_or(0, |h| h.size_bytes() as u64 + 16)).sum()
        });
        let starts = self.start_ts_ms.as_ref().map_or(0, Vec::len) as u64;
        let labels = self.labels.byte_len() as u64;
        let windows = self.windows.as_ref().map_or(0, |w| w.bytes() as u64);
        (self.ts_ms.len() + self.values.len()) as u64 * 8 + starts * 8 + histograms + labels + windows + 200
    }
}
