//! Memory that all queries share, and who has to go where it is short.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// From what age on a query may be called off for others: what is younger is not what filled the memory, and
/// its client would send it again.
const EVICTABLE_FROM: Duration = Duration::from_secs(10);

/// How long a query waits for the memory of one that was called off.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks whether it is there.
const PAUSE: Duration = Duration::from_millis(2);

/// A query that may be called off where memory is short.
pub(super) trait Evictable: std::fmt::Debug + Send + Sync {
    /// What it holds now.
    fn bytes_held(&self) -> u64;
    /// Since when it is at work.
    fn age(&self) -> Duration;
    /// Makes it end soon; false where it is ending already.
    fn evict(&self) -> bool;
    fn is_running(&self) -> bool;
    fn is_evicted(&self) -> bool;
}

/// Memory that all queries of a process may hold together.
#[derive(Debug)]
pub struct MemoryPool {
    max_bytes: u64,
    evictable_from: Duration,
    held: AtomicU64,
    numbers: AtomicU64,
    evictions: AtomicU64,
    /// The queries that may be called off.
    queries: Mutex<HashMap<u64, Weak<dyn Evictable>>>,
}

impl MemoryPool {
    pub fn new(max_bytes: u64) -> Arc<MemoryPool> {
        MemoryPool::evicting_from(max_bytes, EVICTABLE_FROM)
    }

    /// With another age from which on queries may be called off.
    pub fn evicting_from(max_bytes: u64, evictable_from: Duration) -> Arc<MemoryPool> {
        Arc::new(MemoryPool {
            max_bytes,
            evictable_from,
            held: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            queries: Mutex::default(),
        })
    }

    /// What the queries at work hold now.
    pub fn reserved_bytes(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Queries that were called off because memory was short.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Calls off the heaviest query that is old enough, where there is one of at least `min_bytes` and none
    /// is on its way out; what it held.
    pub fn evict_heaviest(&self, min_bytes: u64) -> Option<u64> {
        match self.look(min_bytes) {
            Look::Heaviest(query) => {
                let bytes = query.bytes_held();
                self.evict(&*query);
                Some(bytes)
            }
            Look::Going | Look::Nobody => None,
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn enter(&self, number: u64, query: Weak<dyn Evictable>) {
        self.queries.lock().insert(number, query);
    }

    pub(super) fn leave(&self, number: u64) {
        self.queries.lock().remove(&number);
    }

    /// Takes so many bytes, if they are there.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let taken = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(bytes).filter(|all| *all <= self.max_bytes)
        });
        taken.is_ok()
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes so many bytes for a query, for which others that are heavier are called off, one after the
    /// other. False where there are none, or they do not go in time. Waits: for threads that may.
    pub(super) fn make_room(&self, query: &dyn Evictable, bytes: u64) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && query.is_running() {
            // What is asked for counts: who would become the heaviest does not push out others.
            match self.look(query.bytes_held()) {
                Look::Heaviest(heaviest) => self.evict(&*heaviest),
                Look::Going => {}
                Look::Nobody => return self.take(bytes),
            }
            if self.take(bytes) {
                return true;
            }
            std::thread::sleep(PAUSE);
        }
        false
    }

    fn evict(&self, query: &dyn Evictable) {
        if query.evict() {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The heaviest query that is old enough and holds more than so much.
    fn look(&self, than_bytes: u64) -> Look {
        // Whoever holds the last reference to one would call back here when it drops it.
        let queries: Vec<Arc<dyn Evictable>> =
            self.queries.lock().values().filter_map(Weak::upgrade).collect();
        if queries.iter().any(|q| q.is_evicted() && q.bytes_held() > 0) {
            return Look::Going;
        }
        let may_go = |q: &&Arc<dyn Evictable>| {
            q.is_running() && q.age() >= self.evictable_from && q.bytes_held() > than_bytes
        };
        match queries.iter().filter(may_go).max_by_key(|q| q.bytes_held()) {
            Some(query) => Look::Heaviest(query.clone()),
            None => Look::Nobody,
        }
    }
}

/// Who could go.
enum Look {
    /// One is called off already and holds something still.
    Going,
    Heaviest(Arc<dyn Evictable>),
    Nobody,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Budget, BudgetBounds};

    fn query(pool: &Arc<MemoryPool>) -> Arc<Budget> {
        let bounds = BudgetBounds { evictable: true, ..BudgetBounds::default() };
        Budget::within_bounds(pool.clone(), bounds)
    }

    #[test]
    fn pool_calls_off_the_heaviest_query_and_not_the_one_that_asks() {
        let pool = MemoryPool::evicting_from(100, Duration::ZERO);
        let (heavy, light) = (query(&pool), query(&pool));
        heavy.reserve(70).unwrap();
        light.reserve(20).unwrap();
        // It goes as soon as it looks at its budget.
        let going = std::thread::spawn(move || {
            let begun = Instant::now();
            while heavy.check().is_ok() && begun.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(PAUSE);
            }
            heavy.check().map_err(|e| e.to_string())
        });
        light.reserve(30).unwrap();
        let told = going.join().unwrap().unwrap_err();
        assert!(told.contains("short of memory") && told.contains("70 bytes"), "{told}");
        assert!(light.check().is_ok());
        assert_eq!((pool.reserved_bytes(), pool.evictions()), (50, 1));
        drop(light);
        assert_eq!((pool.reserved_bytes(), pool.queries.lock().len()), (0, 0));
    }

    #[test]
    fn pool_refuses_the_heaviest_itself_and_spares_the_young() {
        let pool = MemoryPool::evicting_from(100, Duration::ZERO);
        let (heavy, light) = (query(&pool), query(&pool));
        heavy.reserve(60).unwrap();
        light.reserve(30).unwrap();
        assert!(heavy.reserve(20).unwrap_err().to_string().contains("query.max_total_memory_bytes"));
        assert!(light.check().is_ok() && heavy.check().is_ok());
        let pool = MemoryPool::new(100);
        let (heavy, light) = (query(&pool), query(&pool));
        heavy.reserve(80).unwrap();
        assert!(light.reserve(30).is_err(), "what is heavier has only just begun");
        assert!(heavy.check().is_ok());
        assert_eq!(pool.evict_heaviest(1), None);
    }

    #[test]
    fn pool_calls_off_one_at_a_time_for_whoever_watches_the_process() {
        let pool = MemoryPool::evicting_from(1_000, Duration::ZERO);
        let queries: Vec<_> = (0..3).map(|_| query(&pool)).collect();
        queries.iter().zip([10, 300, 200]).for_each(|(q, bytes)| q.reserve(bytes).unwrap());
        assert_eq!(pool.evict_heaviest(400), None);
        assert_eq!(pool.evict_heaviest(100), Some(300));
        assert_eq!(pool.evict_heaviest(100), None, "the first has not gone yet");
        queries[1].release(300);
        assert_eq!(pool.evict_heaviest(100), Some(200));
    }
}
