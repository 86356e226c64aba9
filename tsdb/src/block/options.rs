//! How blocks are written and read: what trades speed for size, and memory for requests.

use std::time::Duration;

/// How a block is written; [`WriteOptions::fresh`] and [`WriteOptions::compacted`] are the two sets in use.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Rows of `samples.parquet` end at multiples of this, included.
    pub slice_ms: i64,
    pub zstd_level: i32,
    /// About how many values a page holds: what one series costs to read.
    pub values_per_page: usize,
    /// Rows per page of the small columns.
    pub rows_per_page: usize,
    /// Samples per row group: the writer's memory, a few bytes each.
    pub row_group_samples: usize,
    /// Encoded bytes that end a row group too, where samples are large.
    pub row_group_bytes: usize,
    /// Most samples a row may hold.
    pub row_samples: usize,
    /// Bytes of series that wait to be encoded together, on all cores, and of rows that wait for Parquet.
    pub batch_bytes: u64,
    /// Bytes of timelines that are kept in memory for comparison; beyond it they lie in a file of the scratch
    /// folder.
    pub timeline_memory_bytes: usize,
}

impl WriteOptions {
    /// For what comes from the head: slices of two hours, written fast.
    pub fn fresh() -> Self {
        WriteOptions {
            slice_ms: 2 * 3600 * 1000,
            zstd_level: 3,
            values_per_page: 20_000,
            rows_per_page: 4096,
            row_group_samples: 4 << 20,
            row_group_bytes: 256 << 20,
            row_samples: 32 * 1024,
            batch_bytes: 2 << 20,
            timeline_memory_bytes: 64 << 20,
        }
    }

    /// For local blocks: read a few times within hours.
    pub fn local() -> Self {
        WriteOptions { zstd_level: 1, row_group_samples: 2 << 20, ..Self::fresh() }
    }

    /// For what compaction writes: slices of a day, written once and read for years.
    pub fn compacted() -> Self {
        WriteOptions { slice_ms: 24 * 3600 * 1000, zstd_level: 9, values_per_page: 64_000, ..Self::fresh() }
    }

    /// For windows of a resolution: slices of about two thousand, a week of 5 minutes or twelve of hours.
    pub fn downsampled(resolution_ms: i64) -> Self {
        let slice_ms = resolution_ms.max(1).saturating_mul(2016);
        WriteOptions { slice_ms, values_per_page: 20_000, ..Self::compacted() }
    }
}

/// How a block is read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// First and last timestamp wanted, both included.
    pub range: (i64, i64),
    /// About how many bytes of samples one batch holds, and as much again labels and places of rows; a series
    /// larger than that comes alone.
    pub batch_bytes: u64,
    /// How often a read is tried, and the first pause between two; it doubles each time.
    pub attempts: u32,
    pub pause: Duration,
}

impl Default for ReadOptions {
    fn default() -> Self {
        ReadOptions {
            range: (i64::MIN, i64::MAX),
            batch_bytes: 4 << 20,
            attempts: 4,
            pause: Duration::from_millis(200),
        }
    }
}
