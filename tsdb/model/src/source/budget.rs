//! What a query may use: memory of its own and of what all queries share, samples, time; and whether its
//! client is still there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::SourceError;

/// Memory that all queries of a process may hold together.
#[derive(Debug)]
pub struct MemoryPool {
    max_bytes: u64,
    held: AtomicU64,
}

impl MemoryPool {
    pub fn new(max_bytes: u64) -> Arc<MemoryPool> {
        Arc::new(MemoryPool { max_bytes, held: AtomicU64::new(0) })
    }

    /// What the queries at work hold now.
    pub fn reserved_bytes(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }
}

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
    cancelled: AtomicBool,
    deadline: Option<std::time::Instant>,
    max_samples: u64,
    max_bytes: u64,
    samples_read: AtomicU64,
    samples_held: AtomicU64,
    samples_peak: AtomicU64,
    bytes_held: AtomicU64,
    bytes_peak: AtomicU64,
}

impl Budget {
    /// `max_samples` and `max_bytes` bound what a query's samples and results may be and take at once.
    pub fn new(max_samples: u64, max_bytes: u64, deadline: Option<std::time::Instant>) -> Arc<Budget> {
        Arc::new(Budget::plain(None, max_samples, max_bytes, deadline))
    }

    /// As [`Budget::new`], with its memory out of what all queries share.
    pub fn within(
        pool: Arc<MemoryPool>,
        max_samples: u64,
        max_bytes: u64,
        deadline: Option<std::time::Instant>,
    ) -> Arc<Budget> {
        Arc::new(Budget::plain(Some(pool), max_samples, max_bytes, deadline))
    }

    fn plain(
        pool: Option<Arc<MemoryPool>>,
        max_samples: u64,
        max_bytes: u64,
        deadline: Option<std::time::Instant>,
    ) -> Budget {
        Budget {
            pool,
            cancelled: AtomicBool::new(false),
            deadline,
            max_samples,
            max_bytes,
            samples_read: AtomicU64::new(0),
            samples_held: AtomicU64::new(0),
            samples_peak: AtomicU64::new(0),
            bytes_held: AtomicU64::new(0),
            bytes_peak: AtomicU64::new(0),
        }
    }

    /// No limits: for tests and for the server's own reads.
    pub fn unlimited() -> Arc<Budget> {
        Budget::new(u64::MAX, u64::MAX, None)
    }

    /// Makes every later [`Budget::check`] fail; called when the client goes away.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// To be asked at least once per series or few thousand samples.
    pub fn check(&self) -> Result<(), SourceError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(SourceError::Canceled);
        }
        match self.deadline {
            Some(d) if std::time::Instant::now() >= d => Err(SourceError::TimedOut),
            _ => Ok(()),
        }
    }

    /// Counts samples that were read.
    pub fn read_samples(&self, n: u64) {
        self.samples_read.fetch_add(n, Ordering::Relaxed);
    }

    /// Counts memory taken; pair with [`Budget::release`]. What is refused is not counted.
    pub fn reserve(&self, what: impl Into<Reservation>) -> Result<(), SourceError> {
        let Reservation { bytes, samples } = what.into();
        let held = self.samples_held.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        if held > self.max_samples {
            self.samples_held.fetch_sub(samples, Ordering::Relaxed);
            return Err(SourceError::Limit(format!(
                "query processing would load too many samples into memory in query execution: it needs more than {} at once, the limit of one query (query.max_samples)",
                self.max_samples
            )));
        }
        self.samples_peak.fetch_max(held, Ordering::Relaxed);
        let held = self.bytes_held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if held > self.max_bytes {
            self.samples_held.fetch_sub(samples, Ordering::Relaxed);
            self.bytes_held.fetch_sub(bytes, Ordering::Relaxed);
            return Err(SourceError::Limit(format!(
                "query needs more than {} bytes of memory, the limit of one query (query.max_memory_bytes): ask for fewer series, a shorter range or a longer step",
                self.max_bytes
            )));
        }
        self.bytes_peak.fetch_max(held, Ordering::Relaxed);
        let Some(pool) = &self.pool else { return Ok(()) };
        let all = pool.held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if all > pool.max_bytes {
            self.release(Reservation { bytes, samples });
            return Err(SourceError::Limit(format!(
                "all queries together need more than {} bytes of memory, the limit of the server (query.max_total_memory_bytes): ask again when it is less busy, or for less",
                pool.max_bytes
            )));
        }
        Ok(())
    }

    pub fn release(&self, what: impl Into<Reservation>) {
        let Reservation { bytes, samples } = what.into();
        self.samples_held.fetch_sub(samples, Ordering::Relaxed);
        self.bytes_held.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(pool) = &self.pool {
            pool.held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Takes back what a first attempt read that is now made again in another way.
    pub fn forget_samples(&self, n: u64) {
        self.samples_read.fetch_sub(n, Ordering::Relaxed);
    }

    /// When the query has to be done.
    pub fn deadline(&self) -> Option<std::time::Instant> {
        self.deadline
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

impl Drop for Budget {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.held.fetch_sub(self.bytes_held.load(Ordering::Relaxed), Ordering::Relaxed);
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
