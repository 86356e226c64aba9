//! What is known of a tenant's store beside its samples: what is hidden, what is damaged, what waits on the
//! local disk, and what its blocks cost by metric and label. For people to look at.

/// How a tenant's store is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Upkeep {
    /// Deletions that some block has still to be rewritten for, oldest first.
    pub deletions: Vec<Deletion>,
    /// Blocks that could not be read and that compaction leaves alone.
    pub damaged: Vec<DamagedBlock>,
    /// What retention has taken out and a longer one would still bring back.
    pub expired: BlockTotals,
    /// What has left memory for the local disk and is not in the object store yet.
    pub local: BlockTotals,
    /// When the catalog was read last, in milliseconds; `None` where this process has none.
    pub catalog_read_ms: Option<i64>,
    /// Why it could not be read since.
    pub catalog_error: Option<String>,
    /// Whether this process compacts, and so can say what is planned (`status/compaction`).
    pub compacts: bool,
    /// What else is wrong, a sentence each.
    pub troubles: Vec<String>,
}

/// Samples that every query passes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// As PromQL writes it: `{job="api",env=~"dev.*"}`.
    pub selector: String,
    /// First and last timestamp that is hidden, both included, in milliseconds.
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    pub created_ms: i64,
}

/// A block that nobody reads any more until somebody has looked at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedBlock {
    pub ulid: String,
    pub reason: String,
    pub since_ms: i64,
}

/// Some blocks together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockTotals {
    pub blocks: u64,
    pub samples: u64,
    pub bytes: u64,
    /// First and last timestamp, in milliseconds, where there are any.
    pub span_ms: Option<(i64, i64)>,
}

impl BlockTotals {
    /// One block more: its samples, its bytes, its first and last timestamp in milliseconds.
    pub fn add(&mut self, samples: u64, bytes: u64, span_ms: (i64, i64)) {
        self.blocks += 1;
        self.samples += samples;
        self.bytes += bytes;
        let (from, to) = self.span_ms.unwrap_or(span_ms);
        self.span_ms = Some((from.min(span_ms.0), to.max(span_ms.1)));
    }
}

/// What all of a tenant's blocks cost, by metric and by label.
#[derive(Clone, Debug, Default)]
pub struct StoredCardinality {
    /// What was counted last; `None` where nothing was yet.
    pub counted: Option<Counted>,
    /// Blocks that were read so far of those that are being counted; `None` where nothing is.
    pub counting: Option<(u64, u64)>,
    /// Why the last count came to nothing.
    pub error: Option<String>,
}

/// What the lists of a count are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostOrder {
    Bytes,
    Series,
}

/// One count over blocks.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    pub at_ms: i64,
    /// Blocks that were counted, and those that there were: it ends early where there are too many series.
    pub blocks: u64,
    pub of_blocks: u64,
    /// Distinct label sets.
    pub series: u64,
    pub samples: u64,
    pub bytes: u64,
    pub metrics: Vec<StoredMetric>,
    pub labels: Vec<StoredLabel>,
}

#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct StoredMetric {
    pub name: String,
    pub series: u64,
    pub samples: u64,
    pub bytes: f64,
}

#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct StoredLabel {
    pub name: String,
    pub values: u64,
    pub series: u64,
    pub bytes: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_totals_span_all_that_was_added() {
        let mut totals = BlockTotals::default();
        totals.add(10, 100, (50, 60));
        totals.add(5, 40, (20, 55));
        let expected = BlockTotals { blocks: 2, samples: 15, bytes: 140, span_ms: Some((20, 60)) };
        assert_eq!(totals, expected);
    }
}
