//! What a head tells of itself: bytes by kind, and the names that cost most.

/// Bytes the head holds, by kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadBytes {
    pub symbols: u64,
    pub series: u64,
    pub postings: u64,
    pub chunks: u64,
    pub out_of_order: u64,
    /// What is known of metrics, and tenants themselves.
    pub metadata: u64,
    /// Of `chunks` and `out_of_order`, what a flush is about to let go of.
    pub frozen: u64,
}

impl HeadBytes {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.symbols + self.series + self.postings + self.chunks + self.out_of_order + self.metadata
    }
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
    /// Memory of the whole head, all tenants together.
    pub bytes: HeadBytes,
    /// 0 when the head is empty.
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    pub series_by_metric: Vec<NamedCount>,
    pub values_by_label: Vec<NamedCount>,
    pub bytes_by_label: Vec<NamedCount>,
    pub series_by_pair: Vec<NamedCount>,
}
