//! What readers of blocks keep in memory: the least recently used goes first, and the bytes are bounded.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use ulid::Ulid;

/// One of a block's three files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FileKind {
    Series,
    Timelines,
    Samples,
}

impl FileKind {
    pub const ALL: [FileKind; 3] = [FileKind::Series, FileKind::Timelines, FileKind::Samples];

    pub fn name(self) -> &'static str {
        match self {
            FileKind::Series => "series",
            FileKind::Timelines => "timelines",
            FileKind::Samples => "samples",
        }
    }
}

/// What can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A checked block of [`crate::block::write::file::CRC_BLOCK_BYTES`], by its number.
    Bytes(Ulid, FileKind, u64),
    /// Footer, page index and checksums.
    Index(Ulid, FileKind),
    SeriesTable(Ulid),
    /// The labels of [`crate::block::read::kept_labels::CHUNK`] series of it, by number.
    Labels(Ulid, u32),
    /// Some runs of it, by their hash.
    SeriesRuns(Ulid, u64),
    /// Names of its labels or values of one, by the hash of which are meant.
    LabelList(Ulid, u64),
    /// What of the block's series is hidden, under a fingerprint of what hides it.
    Visibility(Ulid, u64),
    /// The small columns of one row group of the samples.
    SmallRows(Ulid, u32),
    Timeline(Ulid, u32),
    /// The decoded floats of a row of the samples, by row group and row.
    Row(Ulid, u32, u32),
    /// A decoded file of exemplars.
    Exemplars(Ulid),
    /// A decoded file of metadata.
    Metadata(Ulid),
    /// The series of the head that a selector picks, by a hash of it.
    HeadSeries(u64),
}

impl Key {
    /// The block it is of; of what is no block's, one that there never is.
    fn block(&self) -> Ulid {
        match self {
            Key::Bytes(block, ..)
            | Key::Index(block, _)
            | Key::SeriesTable(block)
            | Key::SeriesRuns(block, _)
            | Key::LabelList(block, _)
            | Key::Labels(block, _)
            | Key::Visibility(block, _)
            | Key::SmallRows(block, _)
            | Key::Timeline(block, _)
            | Key::Row(block, ..)
            | Key::Exemplars(block)
            | Key::Metadata(block) => *block,
            Key::HeadSeries(_) => Ulid::nil(),
        }
    }
}

#[derive(Clone)]
enum Value {
    Bytes(Bytes),
    Decoded(Arc<dyn Any + Send + Sync>),
}

/// A bounded map with least-recently-used eviction. Anything in it can be had again from the object store.
pub struct BlockCache {
    inner: Mutex<Inner>,
    capacity_bytes: usize,
}

struct Inner {
    slots: HashMap<Key, usize>,
    /// A doubly linked list through the slots; the head is the most recently used.
    entries: Vec<Entry>,
    free: Vec<usize>,
    head: usize,
    tail: usize,
    bytes: usize,
    hits: u64,
    misses: u64,
}

struct Entry {
    key: Key,
    value: Value,
    bytes: usize,
    newer: usize,
    older: usize,
}

const NONE: usize = usize::MAX;
/// What an entry costs besides its value.
const ENTRY_BYTES: usize = 160;
/// Keys looked up before others get their turn.
const KEYS_PER_LOCK: usize = 256;

/// How a cache does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    pub bytes: usize,
    pub entries: usize,
    pub hits: u64,
    pub misses: u64,
}

impl BlockCache {
    pub fn new(capacity_bytes: usize) -> BlockCache {
        let inner = Inner {
            slots: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            head: NONE,
            tail: NONE,
            bytes: 0,
            hits: 0,
            misses: 0,
        };
        BlockCache { inner: Mutex::new(inner), capacity_bytes }
    }

    pub fn stats(&self) -> CacheStats {
        let inner = self.inner.lock();
        CacheStats { bytes: inner.bytes, entries: inner.slots.len(), hits: inner.hits, misses: inner.misses }
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.inner.lock().slots.contains_key(key)
    }

    pub(crate) fn get_bytes(&self, key: &Key) -> Option<Bytes> {
        match self.inner.lock().get(key)? {
            Value::Bytes(b) => Some(b),
            Value::Decoded(_) => None,
        }
    }

    pub(crate) fn get<T: Any + Send + Sync>(&self, key: &Key) -> Option<Arc<T>> {
        match self.inner.lock().get(key)? {
            Value::Decoded(d) => d.downcast().ok(),
            Value::Bytes(_) => None,
        }
    }

    /// As [`BlockCache::get`] for many keys, with the lock taken seldom.
    pub(crate) fn get_each<T: Any + Send + Sync>(
        &self,
        keys: impl ExactSizeIterator<Item = Option<Key>>,
    ) -> Vec<Option<Arc<T>>> {
        let mut out = Vec::with_capacity(keys.len());
        let mut keys = keys.peekable();
        while keys.peek().is_some() {
            let mut inner = self.inner.lock();
            out.extend(keys.by_ref().take(KEYS_PER_LOCK).map(|key| match inner.get(&key?)? {
                Value::Decoded(d) => d.downcast().ok(),
                Value::Bytes(_) => None,
            }));
        }
        out
    }

    /// What all entries together may take.
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.capacity_bytes
    }

    /// Lets go of what is kept of a block that nobody will read again.
    pub(crate) fn forget(&self, block: Ulid) {
        let mut inner = self.inner.lock();
        let of_block: Vec<usize> =
            inner.slots.iter().filter(|(key, _)| key.block() == block).map(|(_, slot)| *slot).collect();
        of_block.into_iter().for_each(|slot| inner.remove(slot));
    }

    pub(crate) fn put_bytes(&self, key: Key, bytes: Bytes) {
        let size = bytes.len();
        self.inner.lock().put(key, Value::Bytes(bytes), size, self.capacity_bytes);
    }

    pub(crate) fn put<T: Any + Send + Sync>(&self, key: Key, value: Arc<T>, bytes: usize) {
        self.inner.lock().put(key, Value::Decoded(value), bytes, self.capacity_bytes);
    }
}

impl Inner {
    fn get(&mut self, key: &Key) -> Option<Value> {
        let Some(&slot) = self.slots.get(key) else {
            self.misses += 1;
            return None;
        };
        self.hits += 1;
        if self.head != slot {
            self.unlink(slot);
            self.link_newest(slot);
        }
        Some(self.entries[slot].value.clone())
    }

    fn put(&mut self, key: Key, value: Value, bytes: usize, capacity: usize) {
        let bytes = bytes + ENTRY_BYTES;
        if let Some(slot) = self.slots.get(&key).copied() {
            self.remove(slot);
        }
        if bytes > capacity {
            return;
        }
        while self.bytes + bytes > capacity && self.tail != NONE {
            self.remove(self.tail);
        }
        let entry = Entry { key, value, bytes, newer: NONE, older: NONE };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.slots.insert(key, slot);
        self.bytes += bytes;
        self.link_newest(slot);
    }

    fn remove(&mut self, slot: usize) {
        self.unlink(slot);
        let key = self.entries[slot].key;
        self.slots.remove(&key);
        self.bytes -= self.entries[slot].bytes;
        self.entries[slot].value = Value::Bytes(Bytes::new());
        self.free.push(slot);
    }

    fn unlink(&mut self, slot: usize) {
        let (newer, older) = (self.entries[slot].newer, self.entries[slot].older);
        match newer {
            NONE => self.head = older,
            n => self.entries[n].older = older,
        }
        match older {
            NONE => self.tail = newer,
            o => self.entries[o].newer = newer,
        }
    }

    fn link_newest(&mut self, slot: usize) {
        self.entries[slot].newer = NONE;
        self.entries[slot].older = self.head;
        match self.head {
            NONE => self.tail = slot,
            h => self.entries[h].newer = slot,
        }
        self.head = slot;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cache_lets_the_least_recently_used_go_first() {
        let cache = BlockCache::new(2 * (100 + ENTRY_BYTES));
        let key = |n| Key::Timeline(Ulid::nil(), n);
        cache.put_bytes(key(1), Bytes::from(vec![1; 100]));
        cache.put_bytes(key(2), Bytes::from(vec![2; 100]));
        assert!(cache.get_bytes(&key(1)).is_some());
        cache.put_bytes(key(3), Bytes::from(vec![3; 100]));
        assert!(cache.get_bytes(&key(2)).is_none());
        assert!(cache.get_bytes(&key(1)).is_some() && cache.get_bytes(&key(3)).is_some());
        cache.put_bytes(key(4), Bytes::from(vec![4; 1000]));
        assert!(cache.get_bytes(&key(4)).is_none(), "larger than the cache");
        let other = Key::Visibility(Ulid::from_parts(1, 1), 0);
        cache.put_bytes(other, Bytes::from(vec![5; 50]));
        cache.forget(Ulid::nil());
        assert!(cache.get_bytes(&other).is_some());
        assert_eq!(cache.stats().entries, 1);
    }

    proptest! {
        #[test]
        fn cache_never_holds_more_than_it_may(puts in proptest::collection::vec((0u32..20, 0usize..500), 1..200)) {
            let cache = BlockCache::new(2000);
            for (n, len) in puts {
                cache.put_bytes(Key::Timeline(Ulid::nil(), n), Bytes::from(vec![0; len]));
                if len + ENTRY_BYTES <= 2000 {
                    prop_assert_eq!(cache.get_bytes(&Key::Timeline(Ulid::nil(), n)).map(|b| b.len()), Some(len));
                }
                prop_assert!(cache.stats().bytes <= 2000);
                let inner = cache.inner.lock();
                prop_assert_eq!(inner.bytes, inner.slots.values().map(|s| inner.entries[*s].bytes).sum::<usize>());
            }
        }
    }
}
