//! Recognises series by how their labels came the last time, so that a series that is known costs no look-up
//! by labels.
//!
//! A sender repeats itself: the same series, in the same bytes, every few seconds. What is kept of them is
//! one word each, half a hash of those bytes and the number the store knows the series by. It is a hint and
//! no more: the store is asked for the series of that number and all of its labels are compared with what
//! came, so neither a collision nor a number that was given out again can mix two series up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

/// Words that are looked at together: a cache line. A key has two such places, of which the second is looked
/// at only by what is not in the first.
const BUCKET: usize = 8;

/// Buckets at first, 512 KiB in all.
const BUCKETS: usize = 1 << 13;

/// Words kept per series of the store, at most: what does not fit is looked up by its labels.
const WORDS_PER_SERIES: usize = 4;

/// The series that senders describe with which bytes. Grows with the series of the store and not with what
/// clients send.
pub struct SeriesCache(RwLock<Arc<Table>>);

struct Table {
    /// 0, or 32 bits of the key and the number plus one.
    words: Box<[AtomicU64]>,
    used: AtomicUsize,
}

impl Default for SeriesCache {
    fn default() -> Self {
        SeriesCache(RwLock::new(Arc::new(Table::new(BUCKETS))))
    }
}

impl Table {
    fn new(buckets: usize) -> Table {
        Table { words: (0..buckets * BUCKET).map(|_| AtomicU64::new(0)).collect(), used: AtomicUsize::new(0) }
    }

    /// The `mixed` bits of a key, scaled to the number of buckets, which need not be a power of two.
    #[inline]
    fn bucket(&self, mixed: u32) -> &[AtomicU64] {
        let at = ((u64::from(mixed) * (self.words.len() / BUCKET) as u64) >> 32) as usize;
        &self.words[at * BUCKET..(at + 1) * BUCKET]
    }

    #[inline]
    fn first(&self, key: u32) -> &[AtomicU64] {
        self.bucket(key)
    }

    #[inline]
    fn second(&self, key: u32) -> &[AtomicU64] {
        self.bucket(key.swap_bytes().wrapping_mul(0x9e37_79b1))
    }

    #[inline]
    fn find(&self, key: u32) -> Option<u32> {
        let within = |bucket: &[AtomicU64]| {
            let mut words = bucket.iter().map(|w| w.load(Ordering::Relaxed));
            words.find(|w| *w != 0 && (w >> 32) as u32 == key).map(|w| w as u32 - 1)
        };
        within(self.first(key)).or_else(|| within(self.second(key)))
    }

    fn put(&self, key: u32, number: u32) {
        let Some(stored) = number.checked_add(1) else { return };
        let word = u64::from(key) << 32 | u64::from(stored);
        let read = |w: &&AtomicU64| w.load(Ordering::Relaxed);
        let both = || self.first(key).iter().chain(self.second(key));
        // The place of an older word of this key, or a free one, or one whose word has a free place
        // elsewhere, or anybody's: two writers that meet lose a hint at worst.
        let same = |w: &&AtomicU64| (read(w) >> 32) as u32 == key && read(w) != 0;
        let free = |w: &&AtomicU64| read(w) == 0;
        let place = both().find(same).or_else(|| both().find(free)).or_else(|| {
            let movable = |w: &&AtomicU64| {
                let there = (read(w) >> 32) as u32;
                let elsewhere = self.first(there).iter().chain(self.second(there)).find(free);
                elsewhere.is_some_and(|place| {
                    place.store(read(w), Ordering::Relaxed);
                    self.used.fetch_add(1, Ordering::Relaxed);
                    true
                })
            };
            both().find(movable)
        });
        let place = place.unwrap_or_else(|| &self.first(key)[key as usize % BUCKET]);
        if place.swap(word, Ordering::Relaxed) == 0 {
            self.used.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A key of what a sender sends; the half of the hash that the table keeps.
fn half(key: u64) -> u32 {
    (key ^ (key >> 32)) as u32
}

impl SeriesCache {
    /// The numbers that some keys, each mixed with `seed`, stood for when they last came.
    pub fn find(&self, keys: &[u64], seed: u64, numbers: &mut Vec<Option<u32>>) {
        let table = self.0.read().clone();
        numbers.clear();
        numbers.extend(keys.iter().map(|k| table.find(half(*k ^ seed))));
    }

    /// Notes what keys stand for. `series` is how many the store has: it bounds the size.
    pub fn remember(&self, new: &[(u64, u32)], series: u64) {
        if new.is_empty() {
            return;
        }
        let mut table = self.0.read().clone();
        let full = (table.used.load(Ordering::Relaxed) + new.len()) * 5 > table.words.len() * 4;
        if full && table.words.len() / 2 * 3 <= (series as usize).saturating_mul(WORDS_PER_SERIES) {
            let mut current = self.0.write();
            // Somebody else may have been quicker.
            if current.words.len() == table.words.len() {
                let larger = Table::new(table.words.len() / BUCKET / 2 * 3);
                for word in current.words.iter().map(|w| w.load(Ordering::Relaxed)).filter(|w| *w != 0) {
                    larger.put((word >> 32) as u32, word as u32 - 1);
                }
                *current = Arc::new(larger);
            }
            table = current.clone();
        }
        for &(key, number) in new {
            table.put(half(key), number);
        }
    }

    /// Bytes it holds.
    pub fn heap_bytes(&self) -> usize {
        self.0.read().words.len() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_cache_finds_what_was_remembered_and_its_size_follows_the_series() {
        let known = SeriesCache::default();
        let small = known.heap_bytes();
        let mut rng = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            rng ^ rng >> 29
        };
        let pairs: Vec<(u64, u32)> = (0..300_000).map(|n| (next(), n)).collect();
        for some in pairs.chunks(1000) {
            known.remember(some, u64::from(some[0].1) + 1000);
        }
        assert!(known.heap_bytes() > small && known.heap_bytes() <= 300_000 * 15);
        let keys: Vec<u64> = pairs.iter().map(|p| p.0).collect();
        let mut numbers = Vec::new();
        known.find(&keys, 0, &mut numbers);
        let right = pairs.iter().zip(&numbers).filter(|(p, n)| Some(p.1) == **n).count();
        assert!(right > 299_700, "{right} of 300,000 found");
        // Clients that never repeat themselves do not make it grow.
        let large = known.heap_bytes();
        for _ in 0..50 {
            let noise: Vec<(u64, u32)> = (0..20_000).map(|n| (next(), n)).collect();
            known.remember(&noise, 300_000);
        }
        assert!(known.heap_bytes() <= large.max(300_000 * 8 * WORDS_PER_SERIES));
        known.find(&[next()], 0, &mut numbers);
        assert_eq!(numbers.len(), 1);
    }
}
