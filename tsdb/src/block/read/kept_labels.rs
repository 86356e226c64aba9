//! Label sets of a block's series, made once and kept in the cache beside the samples: queries over many
//! series read the same ones again and again.

use std::sync::{Arc, OnceLock};

use super::cache::Key;
use super::plan::Block;
use super::series_table::SeriesTable;
use model::labels::Labels;

/// Series whose labels are kept and let go together.
pub(crate) const CHUNK: u32 = 256;

/// Series from which on a selection keeps their labels: fewer are made sooner than they are looked up.
const MANY_SERIES: usize = 64;

/// At least one series in so many of a chunk is selected where they are kept.
const DENSE: usize = 4;

/// Made when they are asked for first, and charged as if all were.
type Chunk = Vec<OnceLock<Labels>>;

/// The labels of a selection's series, asked for in ascending order.
pub(crate) struct KeptLabels {
    keep: bool,
    chunk: Option<(u32, Arc<Chunk>)>,
}

impl KeptLabels {
    /// For a selection of these series, ascending.
    pub fn of(series: &[u32]) -> KeptLabels {
        KeptLabels { keep: are_many_and_dense(series), chunk: None }
    }

    /// The labels of a series of the table, which is the block's.
    pub fn get(&mut self, block: &Block, table: &SeriesTable, series: u32) -> Labels {
        if !self.keep {
            return table.labels(series);
        }
        let number = series / CHUNK;
        if self.chunk.as_ref().is_none_or(|(at, _)| *at != number) {
            self.chunk = Some((number, find(block, table, series, number)));
        }
        let Some((_, chunk)) = &self.chunk else { return table.labels(series) };
        chunk[(series % CHUNK) as usize].get_or_init(|| table.labels(series)).clone()
    }
}

/// Whether a selection's labels are worth their place: a chunk is charged whole, so of series that lie far
/// apart little would be kept for much.
fn are_many_and_dense(series: &[u32]) -> bool {
    let chunks = series.chunk_by(|a, b| a / CHUNK == b / CHUNK).count();
    series.len() >= MANY_SERIES && series.len() * DENSE >= chunks * CHUNK as usize
}

fn find(block: &Block, table: &SeriesTable, series: u32, number: u32) -> Arc<Chunk> {
    let key = Key::Labels(block.meta.ulid, number);
    if let Some(chunk) = block.store.cache.get::<Chunk>(&key) {
        return chunk;
    }
    let chunk: Arc<Chunk> = Arc::new((0..CHUNK).map(|_| OnceLock::new()).collect());
    // Counts of references and what the allocator rounds up included; others of a chunk are about as long.
    let each = table.labels(series).byte_len() + size_of::<OnceLock<Labels>>() + 32;
    block.store.cache.put(key, chunk.clone(), each * CHUNK as usize);
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_kept_of_many_series_that_lie_together() {
        let every = |step: usize, n: u32| (0..n).step_by(step).collect::<Vec<u32>>();
        assert!(are_many_and_dense(&every(1, 10_000)) && are_many_and_dense(&every(3, 10_000)));
        assert!(!are_many_and_dense(&every(5, 10_000)) && !are_many_and_dense(&every(1, 63)));
        let apart: Vec<u32> = (0..100).chain(1_000_000..1_000_300).collect();
        assert!(are_many_and_dense(&apart) && !are_many_and_dense(&[]));
    }
}
