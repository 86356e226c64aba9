//! Memory that write requests share: set aside before it is held, and given back when the request ends.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Seconds after which a refused sender may try again.
pub(crate) const RETRY_AFTER_SECONDS: u32 = 5;

/// Why a request gets no memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMemory {
    /// Others have it; it comes back.
    #[error(
        "writes in flight hold all of the {pool_bytes} bytes they may (ingest.max_in_flight_bytes): try again in {RETRY_AFTER_SECONDS} s"
    )]
    Taken { pool_bytes: usize },
    /// It would never fit.
    #[error(
        "the request needs {needed_bytes} bytes of memory and more, all writes in flight may hold {pool_bytes} (ingest.max_in_flight_bytes): send smaller batches"
    )]
    TooMuch { needed_bytes: usize, pool_bytes: usize },
    /// The store takes no more for now.
    #[error("{0}")]
    Head(String),
}

/// What all requests have together; clones share it.
#[derive(Clone)]
pub(crate) struct MemoryPool {
    /// In KiB, because a semaphore hands out at most 2^32 at once.
    free_kib: Arc<Semaphore>,
    bytes: usize,
    max_wait: Duration,
    in_flight_bytes: Gauge,
}

impl MemoryPool {
    pub(crate) fn new(bytes: usize, max_wait: Duration, in_flight_bytes: Gauge) -> MemoryPool {
        MemoryPool {
            free_kib: Arc::new(Semaphore::new(kib(bytes) as usize)),
            bytes,
            max_wait,
            in_flight_bytes,
        }
    }

    /// A reservation of nothing yet.
    pub(crate) fn reservation(&self) -> Reservation {
        Reservation { pool: self.clone(), permit: None }
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// What one request has set aside, counted in the gauge for as long as this lives.
pub(crate) struct Reservation {
    pool: MemoryPool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Reservation {
    fn held_kib(&self) -> u32 {
        self.permit.as_ref().map_or(0, |p| p.num_permits() as u32)
    }

    /// What is set aside.
    pub(crate) fn bytes(&self) -> usize {
        self.held_kib() as usize * 1024
    }

    /// What is missing of `bytes`, in KiB; an error where no waiting helps.
    fn missing_kib(&self, bytes: usize) -> Result<u32, NoMemory> {
        if bytes > self.pool.bytes {
            return Err(NoMemory::TooMuch { needed_bytes: bytes, pool_bytes: self.pool.bytes });
        }
        Ok(kib(bytes).saturating_sub(self.held_kib()))
    }

    fn merge(&mut self, permit: OwnedSemaphorePermit) {
        self.pool.in_flight_bytes.inc_by(permit.num_permits() as i64 * 1024);
        match &mut self.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
    }

    /// Grows to `bytes`, waiting a little for what others give back.
    pub(crate) async fn grow(&mut self, bytes: usize) -> Result<(), NoMemory> {
        let missing = self.missing_kib(bytes)?;
        if missing == 0 {
            return Ok(());
        }
        let acquire = self.pool.free_kib.clone().acquire_many_owned(missing);
        let Ok(Ok(permit)) = tokio::time::timeout(self.pool.max_wait, acquire).await else {
            return Err(NoMemory::Taken { pool_bytes: self.pool.bytes });
        };
        self.merge(permit);
        Ok(())
    }

    /// Grows to `bytes` at once or not at all, for a thread that must not wait.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> Result<(), NoMemory> {
        let missing = self.missing_kib(bytes)?;
        if missing == 0 {
            return Ok(());
        }
        match self.pool.free_kib.clone().try_acquire_many_owned(missing) {
            Ok(permit) => {
                self.merge(permit);
                Ok(())
            }
            Err(_) => Err(NoMemory::Taken { pool_bytes: self.pool.bytes }),
        }
    }

    /// Gives back what is held beyond `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let surplus = self.held_kib().saturating_sub(kib(bytes));
        let Some(held) = &mut self.permit else { return };
        if let Some(returned) = held.split(surplus as usize) {
            self.pool.in_flight_bytes.dec_by(i64::from(surplus) * 1024);
            drop(returned);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.in_flight_bytes.dec_by(i64::from(self.held_kib()) * 1024);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservation_grows_shrinks_and_gives_all_back() {
        let gauge = Gauge::default();
        let pool = MemoryPool::new(10 << 10, Duration::ZERO, gauge.clone());
        let (mut a, mut b) = (pool.reservation(), pool.reservation());
        a.try_grow(6 << 10).unwrap();
        assert_eq!(b.try_grow(5 << 10), Err(NoMemory::Taken { pool_bytes: 10 << 10 }));
        assert!(matches!(b.try_grow(11 << 10), Err(NoMemory::TooMuch { .. })));
        a.shrink(5 << 10);
        assert_eq!(gauge.get(), 5 << 10);
        b.try_grow(5 << 10).unwrap();
        drop((a, b));
        assert_eq!((gauge.get(), pool.free_kib.available_permits()), (0, 10));
    }
}
