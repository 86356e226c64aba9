//! What a query may use: memory of its own and of what all queries share, samples, time; and whether its
//! client is still there.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use super::SourceError;
use super::core_shares::CoreShare;
use super::fetches::Fetches;
use super::memory_pool::{Evictable, MemoryPool};
use crate::tenant_limits::{Limit, TenantLimits};

/// What a part of a query holds. From a number it is so many bytes and no samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reservation {
    pub bytes: u64,
    /// Samples and points of results, a histogram for as many as it takes 16 bytes: what upstream's
    /// `query.max-samples` counts.
    pub samples: u64,
}

impl From<u64> for Reservation {
    fn from(bytes: u64) -> Reservation {
        Reservation { bytes, samples: 0 }
    }
}

impl std::ops::Add for Reservation {
    type Output = Reservation;

    fn add(self, other: Reservation) -> Reservation {
        Reservation { bytes: self.bytes + other.bytes, samples: self.samples + other.samples }
    }
}

impl std::ops::AddAssign for Reservation {
    fn add_assign(&mut self, other: Reservation) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Reservation {
    fn sum<I: Iterator<Item = Reservation>>(all: I) -> Reservation {
        all.fold(Reservation::default(), |a, b| a + b)
    }
}

/// Limits, cancellation and counters that all parts of one query share. What it still holds when it is
/// dropped goes back to the pool.
#[derive(Debug)]
pub struct Budget {
    pool: Option<Arc<MemoryPool>>,
    /// By which the pool knows it.
    number: u64,
    begun: Instant,
    state: AtomicU8,
    bounds: BudgetBounds,
    /// The limit of its tenant that it ran into.
    exceeded: OnceLock<Limit>,
    /// What it held when it was called off for it.
    evicted_bytes: AtomicU64,
    series_read: AtomicU64,
    samples_read: AtomicU64,
    samples_held: AtomicU64,
    samples_peak: AtomicU64,
    bytes_held: AtomicU64,
    bytes_peak: AtomicU64,
    fetches: Arc<Fetches>,
    cores: OnceLock<CoreShare>,
}

/// What one query may at most; the default is anything.
#[derive(Clone, Copy, Debug)]
pub struct BudgetBounds {
    /// Samples and points of results that it holds at once.
    pub max_samples: u64,
    /// Memory that its samples and results take at once.
    pub max_bytes: u64,
    pub deadline: Option<Instant>,
    /// Series and samples that it reads one after the other.
    pub max_series_read: u64,
    pub max_samples_read: u64,
    /// Bytes of blocks that it fetches, from a store or a cache on disk.
    pub max_bytes_fetched: u64,
    /// Whether it may be called off where memory is short and it holds the most.
    pub evictable: bool,
}

impl Default for BudgetBounds {
    fn default() -> Self {
        BudgetBounds {
            max_samples: u64::MAX,
            max_bytes: u64::MAX,
            deadline: None,
            max_series_read: u64::MAX,
            max_samples_read: u64::MAX,
            max_bytes_fetched: u64::MAX,
            evictable: false,
        }
    }
}

/// Samples that count as one chunk: as many as chunks of Prometheus and Mimir have.
pub const SAMPLES_PER_CHUNK: u64 = 120;

impl BudgetBounds {
    /// With what a tenant may instead.
    pub fn of_tenant(self, limits: &TenantLimits) -> BudgetBounds {
        let bound = |limit, otherwise| limits.bound(limit).unwrap_or(otherwise);
        let samples = bound(Limit::MaxFetchedChunks, u64::MAX).saturating_mul(SAMPLES_PER_CHUNK);
        BudgetBounds {
            max_bytes: bound(Limit::MaxQueryMemory, self.max_bytes),
            max_series_read: bound(Limit::MaxFetchedSeries, self.max_series_read),
            max_samples_read: samples.min(self.max_samples_read),
            max_bytes_fetched: bound(Limit::MaxFetchedBytes, self.max_bytes_fetched),
            ..self
        }
    }
}

/// States of a budget.
const RUNNING: u8 = 0;
const CANCELLED: u8 = 1;
const EVICTED: u8 = 2;

impl Budget {
    /// `max_samples` and `max_bytes` bound what a query's samples and results may be and take at once.
    pub fn new(max_samples: u64, max_bytes: u64, deadline: Option<Instant>) -> Arc<Budget> {
        Budget::made(None, BudgetBounds { max_samples, max_bytes, deadline, ..BudgetBounds::default() })
    }

    /// As [`Budget::new`], with its memory out of what all queries share.
    pub fn within(
        pool: Arc<MemoryPool>,
        max_samples: u64,
        max_bytes: u64,
        deadline: Option<Instant>,
    ) -> Arc<Budget> {
        let bounds = BudgetBounds { max_samples, max_bytes, deadline, ..BudgetBounds::default() };
        Budget::within_bounds(pool, bounds)
    }

    /// With its memory out of what all queries share.
    pub fn within_bounds(pool: Arc<MemoryPool>, bounds: BudgetBounds) -> Arc<Budget> {
        Budget::made(Some(pool), bounds)
    }

    fn made(pool: Option<Arc<MemoryPool>>, bounds: BudgetBounds) -> Arc<Budget> {
        let number = pool.as_ref().map_or(0, |pool| pool.number());
        let budget = Arc::new(Budget {
            pool,
            number,
            begun: Instant::now(),
            state: AtomicU8::new(RUNNING),
            bounds,
            exceeded: OnceLock::new(),
            evicted_bytes: AtomicU64::new(0),
            series_read: AtomicU64::new(0),
            samples_read: AtomicU64::new(0),
            samples_held: AtomicU64::new(0),
            samples_peak: AtomicU64::new(0),
            bytes_held: AtomicU64::new(0),
            bytes_peak: AtomicU64::new(0),
            fetches: Arc::default(),
            cores: OnceLock::new(),
        });
        if let Some(pool) = budget.pool.as_ref().filter(|_| bounds.evictable) {
            let query: Weak<Budget> = Arc::downgrade(&budget);
            pool.enter(number, query);
        }
        budget
    }

    /// No limits: for tests and for the server's own reads.
    pub fn unlimited() -> Arc<Budget> {
        Budget::new(u64::MAX, u64::MAX, None)
    }

    /// Makes every later [`Budget::check`] fail; called when the client goes away.
    pub fn cancel(&self) {
        // What was evicted stays so: its client should learn why.
        let _ = self.state.compare_exchange(RUNNING, CANCELLED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// To be asked at least once per series or few thousand samples.
    pub fn check(&self) -> Result<(), SourceError> {
        match self.state.load(Ordering::Relaxed) {
            RUNNING => {}
            EVICTED => return Err(self.eviction()),
            _ => return Err(SourceError::Canceled),
        }
        let (series, samples) = (self.series_read(), self.samples_read());
        if series > self.bounds.max_series_read {
            let what = format!("the query reads {series} series and more");
            return Err(self.exceeds(Limit::MaxFetchedSeries, what, self.bounds.max_series_read));
        }
        if samples > self.bounds.max_samples_read {
            let chunks = samples / SAMPLES_PER_CHUNK;
            let what = format!("the query reads {chunks} chunks of {SAMPLES_PER_CHUNK} samples and more");
            let allowed = self.bounds.max_samples_read / SAMPLES_PER_CHUNK;
            return Err(self.exceeds(Limit::MaxFetchedChunks, what, allowed));
        }
        if self.bounds.max_bytes_fetched != u64::MAX {
            let fetched = self.fetches.fetched();
            if fetched.bytes + fetched.disk_bytes > self.bounds.max_bytes_fetched {
                let what = format!("the query fetches {} bytes and more", fetched.bytes + fetched.disk_bytes);
                return Err(self.exceeds(Limit::MaxFetchedBytes, what, self.bounds.max_bytes_fetched));
            }
        }
        match self.bounds.deadline {
            Some(d) if Instant::now() >= d => Err(SourceError::TimedOut),
            _ => Ok(()),
        }
    }

    /// Has the query compute on its tenant's part of the cores only.
    pub fn share_cores(&self, share: CoreShare) {
        let _ = self.cores.set(share);
    }

    /// As [`Budget::check`], and lets others compute for a while where it is their turn: for the thread that
    /// evaluates the query, and not where something is locked.
    pub fn check_in_turn(&self) -> Result<(), SourceError> {
        if let Some(share) = self.cores.get() {
            share.take_turn(|| self.check().is_ok());
        }
        self.check()
    }

    /// Whether other threads may compute for the query beside its own.
    pub fn may_have_help(&self) -> bool {
        self.cores.get().is_none_or(CoreShare::may_have_help)
    }

    #[cold]
    fn exceeds(&self, limit: Limit, what: String, allowed: u64) -> SourceError {
        self.note_exceeded(limit);
        SourceError::Limit(limit.refusal(what, allowed))
    }

    /// Notes which limit of its tenant ends the query.
    pub fn note_exceeded(&self, limit: Limit) {
        let _ = self.exceeded.set(limit);
    }

    /// The limit of its tenant that ended the query, if one did.
    pub fn exceeded(&self) -> Option<Limit> {
        self.exceeded.get().copied()
    }

    #[cold]
    fn eviction(&self) -> SourceError {
        let held = self.evicted_bytes.load(Ordering::Relaxed);
        SourceError::Limit(format!(
            "the query was called off after {:.0} s because the server was short of memory and no other query held as much, {held} bytes (query.max_total_memory_bytes): ask for fewer series, a shorter range or a longer step",
            self.begun.elapsed().as_secs_f64()
        ))
    }

    /// What it holds now.
    pub fn bytes_held(&self) -> u64 {
        self.bytes_held.load(Ordering::Relaxed)
    }

    /// Where readers count what they fetch from the object store.
    pub fn fetches(&self) -> &Arc<Fetches> {
        &self.fetches
    }

    /// Counts series that were read.
    pub fn read_series(&self, n: u64) {
        self.series_read.fetch_add(n, Ordering::Relaxed);
    }

    pub fn series_read(&self) -> u64 {
        self.series_read.load(Ordering::Relaxed)
    }

    /// Counts samples that were read.
    pub fn read_samples(&self, n: u64) {
        self.samples_read.fetch_add(n, Ordering::Relaxed);
    }

    /// Counts memory taken; pair with [`Budget::release`]. What is refused is not counted.
    pub fn reserve(&self, what: impl Into<Reservation>) -> Result<(), SourceError> {
        let Reservation { bytes, samples } = what.into();
        let held = self.samples_held.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        if held > self.bounds.max_samples {
            self.samples_held.fetch_sub(samples, Ordering::Relaxed);
            return Err(SourceError::Limit(format!(
                "query processing would load too many samples into memory in query execution: it needs more than {} at once, the limit of one query (query.max_samples)",
                self.bounds.max_samples
            )));
        }
        self.samples_peak.fetch_max(held, Ordering::Relaxed);
        let held = self.bytes_held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if held > self.bounds.max_bytes {
            self.give_back(bytes, samples);
            let what = format!("the query needs {held} bytes of memory and more");
            return Err(self.exceeds(Limit::MaxQueryMemory, what, self.bounds.max_bytes));
        }
        let Some(pool) = &self.pool else {
            self.bytes_peak.fetch_max(held, Ordering::Relaxed);
            return Ok(());
        };
        let taken = pool.take(bytes) || (self.bounds.evictable && pool.make_room(self, bytes));
        if !taken {
            self.give_back(bytes, samples);
            // It may have been the heaviest itself meanwhile.
            self.check()?;
            return Err(SourceError::Limit(format!(
                "all queries together need more than {} bytes of memory, the limit of the server (query.max_total_memory_bytes): ask again when it is less busy, or for less",
                pool.max_bytes()
            )));
        }
        self.bytes_peak.fetch_max(held, Ordering::Relaxed);
        Ok(())
    }

    /// The same for what the query can do without: only while half of what it may hold is free, and half of
    /// what all may. Whether it was counted.
    pub fn reserve_spare(&self, bytes: u64) -> bool {
        let fits = |held: u64, most: u64| held.saturating_add(bytes) <= most / 2;
        if !fits(self.bytes_held(), self.bounds.max_bytes) {
            return false;
        }
        if let Some(pool) = &self.pool
            && !(fits(pool.reserved_bytes(), pool.max_bytes()) && pool.take(bytes))
        {
            return false;
        }
        let held = self.bytes_held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        self.bytes_peak.fetch_max(held, Ordering::Relaxed);
        true
    }

    /// Takes back what was counted for this query alone.
    fn give_back(&self, bytes: u64, samples: u64) {
        self.samples_held.fetch_sub(samples, Ordering::Relaxed);
        self.bytes_held.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub fn release(&self, what: impl Into<Reservation>) {
        let Reservation { bytes, samples } = what.into();
        self.give_back(bytes, samples);
        if let Some(pool) = &self.pool {
            pool.give_back(bytes);
        }
    }

    /// Takes back what a first attempt read that is now made again in another way.
    pub fn forget_samples(&self, n: u64) {
        self.samples_read.fetch_sub(n, Ordering::Relaxed);
    }

    /// When the query has to be done.
    pub fn deadline(&self) -> Option<Instant> {
        self.bounds.deadline
    }

    /// The peak until now; from now on it is counted anew, from what is held at the moment.
    pub fn lower_peak(&self) -> u64 {
        self.bytes_peak.swap(self.bytes_held.load(Ordering::Relaxed), Ordering::Relaxed)
    }

    pub fn samples_read(&self) -> u64 {
        self.samples_read.load(Ordering::Relaxed)
    }

    /// Most samples and points that were held at once.
    pub fn samples_peak(&self) -> u64 {
        self.samples_peak.load(Ordering::Relaxed)
    }

    pub fn bytes_peak(&self) -> u64 {
        self.bytes_peak.load(Ordering::Relaxed)
    }
}

impl Evictable for Budget {
    fn bytes_held(&self) -> u64 {
        Budget::bytes_held(self)
    }

    fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    fn evict(&self) -> bool {
        self.evicted_bytes.store(self.bytes_held(), Ordering::Relaxed);
        self.state.compare_exchange(RUNNING, EVICTED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn is_running(&self) -> bool {
        self.state.load(Ordering::Relaxed) == RUNNING && self.check().is_ok()
    }

    fn is_evicted(&self) -> bool {
        self.state.load(Ordering::Relaxed) == EVICTED
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.give_back(self.bytes_held());
            if self.bounds.evictable {
                pool.leave(self.number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_counts_samples_while_they_are_held() {
        let budget = Budget::new(100, u64::MAX, None);
        budget.read_samples(1_000);
        let some = |samples| Reservation { bytes: 16 * samples, samples };
        budget.reserve(some(60)).unwrap();
        assert!(budget.reserve(some(41)).unwrap_err().to_string().contains("query.max_samples"));
        budget.reserve(some(40)).unwrap();
        budget.release(some(100));
        budget.reserve(some(70)).unwrap();
        assert_eq!((budget.samples_peak(), budget.samples_read(), budget.bytes_peak()), (100, 1_000, 1_600));
    }

    #[test]
    fn budget_ends_a_query_that_reads_more_than_its_tenant_may() {
        let mut limits = TenantLimits::default();
        limits.set(Limit::MaxFetchedSeries, 10);
        limits.set(Limit::MaxFetchedChunks, 2);
        let budget = || {
            let bounds = BudgetBounds::default().of_tenant(&limits);
            Budget::within_bounds(MemoryPool::new(100), bounds)
        };
        let (by_series, by_samples) = (budget(), budget());
        by_series.read_series(10);
        by_series.read_samples(240);
        assert!(by_series.check().is_ok() && by_series.exceeded().is_none());
        by_series.read_series(1);
        let text = by_series.check().unwrap_err().to_string();
        assert!(text.contains("11 series") && text.contains("(max_fetched_series_per_query)"), "{text}");
        assert_eq!(by_series.exceeded(), Some(Limit::MaxFetchedSeries));
        by_samples.read_samples(241);
        let text = by_samples.check().unwrap_err().to_string();
        assert!(text.contains("is 2 (max_fetched_chunks_per_query)"), "{text}");
    }

    #[test]
    fn queries_share_the_pool_and_give_back_what_they_held() {
        let pool = MemoryPool::new(100);
        let a = Budget::within(pool.clone(), u64::MAX, 80, None);
        let b = Budget::within(pool.clone(), u64::MAX, 80, None);
        assert!(a.reserve(81).unwrap_err().to_string().contains("query.max_memory_bytes"));
        a.reserve(60).unwrap();
        b.reserve(30).unwrap();
        assert!(b.reserve(20).unwrap_err().to_string().contains("query.max_total_memory_bytes"));
        assert_eq!(pool.reserved_bytes(), 90, "what was refused is not counted");
        drop(a);
        b.reserve(20).unwrap();
        b.release(10);
        assert_eq!((pool.reserved_bytes(), b.bytes_peak()), (40, 50));
        drop(b);
        assert_eq!(pool.reserved_bytes(), 0);
    }
}
