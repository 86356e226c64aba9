//! Extents in memory, the least recently used go first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use model::labels::Labels;
use model::source::{Mark, ResolutionPart};
use parking_lot::Mutex;

use crate::column::Column;
use crate::eval::evaluator::label_bytes;
use crate::results_cache::CacheUse;

/// What an extent takes beside its columns.
const EXTENT_BYTES: u64 = 300;
/// What a column takes beside its slots.
const COLUMN_BYTES: u64 = 96;
/// An extent of more than this part of the cache is not kept.
const LARGEST_PART: u64 = 8;

/// The values of an extent's steps, and what they were computed from.
#[derive(Debug)]
pub struct Extent {
    mark: Mark,
    /// Label sets, shared by the extents of one run.
    pub labels: Arc<Vec<Labels>>,
    /// By place among the labels, ascending; a column has a slot for each step.
    pub columns: Vec<(u32, Column)>,
    pub resolutions: Vec<ResolutionPart>,
    bytes: u64,
}

impl Extent {
    /// Columns by place among the labels, ascending, none of them empty.
    pub fn new(
        mark: Mark,
        labels: Arc<Vec<Labels>>,
        columns: Vec<(u32, Column)>,
        resolutions: Vec<ResolutionPart>,
    ) -> Extent {
        // Labels are counted with each extent although they may be shared: who is last holds them.
        let of_column = |(row, column): &(u32, Column)| {
            column.bytes() + COLUMN_BYTES + label_bytes(&labels[*row as usize])
        };
        let of_columns: u64 = columns.iter().map(of_column).sum();
        let bytes = EXTENT_BYTES + of_columns + 48 * resolutions.len() as u64;
        Extent { mark, labels, columns, resolutions, bytes }
    }
}

/// What the cache holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounts {
    pub bytes: u64,
    pub max_bytes: u64,
    pub extents: u64,
    /// Queries by how much of them was there: all, a part, nothing.
    pub hits: u64,
    pub partial_hits: u64,
    pub misses: u64,
    /// Steps that were taken from here, and that were computed.
    pub cached_steps: u64,
    pub computed_steps: u64,
    /// Queries that took a run of another which was under way.
    pub shared: u64,
    /// Extents that went for others' sake, and that had changed.
    pub evicted: u64,
    pub outdated: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Store {
    max_bytes: u64,
    kept: Mutex<Kept>,
    queries: [AtomicU64; 3],
    steps: [AtomicU64; 2],
    shared: AtomicU64,
}

/// Extents of one key by the time they begin at, each with when it was used last.
type ExtentsByStart = BTreeMap<i64, (u64, Arc<Extent>)>;

#[derive(Debug, Default)]
struct Kept {
    by_key: HashMap<Arc<str>, ExtentsByStart>,
    /// When an extent was used last, by a clock that ticks at each use.
    by_use: BTreeMap<u64, (Arc<str>, i64)>,
    clock: u64,
    bytes: u64,
    evicted: u64,
    outdated: u64,
}

impl Store {
    pub fn new(max_bytes: u64) -> Store {
        Store {
            max_bytes,
            kept: Mutex::default(),
            queries: Default::default(),
            steps: Default::default(),
            shared: AtomicU64::default(),
        }
    }

    /// The extents of a key that are kept under these marks (in the order of `indices`); those under others
    /// go. Nothing where they hold more than `most_bytes` together.
    pub fn get(
        &self,
        key: &Arc<str>,
        indices: impl Iterator<Item = i64>,
        marks: &[Option<Mark>],
        most_bytes: u64,
    ) -> BTreeMap<i64, Arc<Extent>> {
        let mut found = BTreeMap::new();
        let mut bytes = 0;
        let mut kept = self.kept.lock();
        for (index, mark) in indices.zip(marks) {
            let Some((_, extent)) = kept.by_key.get(key).and_then(|all| all.get(&index)) else { continue };
            let extent = extent.clone();
            match mark {
                Some(mark) if extent.mark == *mark => {
                    kept.touch(key, index);
                    bytes += extent.bytes;
                    found.insert(index, extent);
                }
                // Nothing is known of it now; it may be right again.
                None => {}
                Some(_) => {
                    kept.remove(key, index);
                    kept.outdated += 1;
                }
            }
        }
        if bytes > most_bytes { BTreeMap::new() } else { found }
    }

    pub fn put(&self, key: &Arc<str>, index: i64, extent: Extent) {
        let bytes = extent.bytes + key.len() as u64;
        if bytes > self.max_bytes / LARGEST_PART {
            return;
        }
        let mut kept = self.kept.lock();
        kept.remove(key, index);
        while kept.bytes + bytes > self.max_bytes {
            let Some((_, (oldest, at))) = kept.by_use.first_key_value() else { return };
            let (oldest, at) = (oldest.clone(), *at);
            kept.remove(&oldest, at);
            kept.evicted += 1;
        }
        kept.clock += 1;
        let clock = kept.clock;
        kept.bytes += bytes;
        kept.by_use.insert(clock, (key.clone(), index));
        kept.by_key.entry(key.clone()).or_default().insert(index, (clock, Arc::new(extent)));
    }

    /// Counts what a query came to.
    pub fn count(&self, of: CacheUse) {
        let kind = match (of.cached_steps, of.computed_steps) {
            (0, _) => 2,
            (_, 0) => 0,
            _ => 1,
        };
        self.queries[kind].fetch_add(1, Ordering::Relaxed);
        self.steps[0].fetch_add(of.cached_steps, Ordering::Relaxed);
        self.steps[1].fetch_add(of.computed_steps, Ordering::Relaxed);
        self.shared.fetch_add(u64::from(of.shared), Ordering::Relaxed);
    }

    pub fn counts(&self) -> StoreCounts {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let kept = self.kept.lock();
        StoreCounts {
            bytes: kept.bytes,
            max_bytes: self.max_bytes,
            extents: kept.by_use.len() as u64,
            hits: read(&self.queries[0]),
            partial_hits: read(&self.queries[1]),
            misses: read(&self.queries[2]),
            cached_steps: read(&self.steps[0]),
            computed_steps: read(&self.steps[1]),
            shared: read(&self.shared),
            evicted: kept.evicted,
            outdated: kept.outdated,
        }
    }
}

impl Kept {
    fn touch(&mut self, key: &Arc<str>, index: i64) {
        let Some((used, _)) = self.by_key.get_mut(key).and_then(|all| all.get_mut(&index)) else { return };
        self.clock += 1;
        let before = std::mem::replace(used, self.clock);
        if let Some(place) = self.by_use.remove(&before) {
            self.by_use.insert(self.clock, place);
        }
    }

    fn remove(&mut self, key: &Arc<str>, index: i64) {
        let Some(all) = self.by_key.get_mut(key) else { return };
        if let Some((used, extent)) = all.remove(&index) {
            self.by_use.remove(&used);
            self.bytes -= extent.bytes + key.len() as u64;
        }
        if all.is_empty() {
            self.by_key.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::source::MarkBuilder;

    fn mark(n: u64) -> Mark {
        MarkBuilder::default().number(n).build()
    }

    fn extent(of: u64, bytes: u64) -> Extent {
        Extent { mark: mark(of), labels: Arc::default(), columns: vec![], resolutions: vec![], bytes }
    }

    #[test]
    fn store_gives_back_what_has_the_mark_and_forgets_what_has_another() {
        let store = Store::new(8_000);
        let key: Arc<str> = Arc::from("q");
        (0..3).for_each(|index| store.put(&key, index, extent(index as u64, 10)));
        let marks = [Some(mark(0)), Some(mark(9)), None];
        let found = store.get(&key, 0..3, &marks, u64::MAX);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [0]);
        assert_eq!((store.counts().extents, store.counts().outdated), (2, 1));
        assert!(store.get(&key, 0..3, &marks, 5).is_empty());
    }

    #[test]
    fn store_keeps_within_its_bytes_and_drops_the_least_recently_used() {
        let store = Store::new(1_000);
        let key: Arc<str> = Arc::from("q");
        (0..9).for_each(|index| store.put(&key, index, extent(1, 100)));
        assert_eq!((store.counts().extents, store.counts().bytes), (9, 9 * 101));
        assert_eq!(store.get(&key, 0..1, &[Some(mark(1))], u64::MAX).len(), 1);
        store.put(&key, 9, extent(1, 100));
        let marks = [Some(mark(1)); 10];
        let left: Vec<i64> = store.get(&key, 0..10, &marks, u64::MAX).into_keys().collect();
        assert_eq!(left, [0, 2, 3, 4, 5, 6, 7, 8, 9]);
        store.put(&key, 10, extent(1, 500));
        assert_eq!(store.counts().extents, 9, "it is too large a part");
    }
}
