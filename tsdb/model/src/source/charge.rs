//! What readers hold for a query beside what they hand out: batches that wait to be merged, timelines that
//! come again.

use std::sync::Arc;

use super::{Budget, SourceError};

/// Bytes that a part of a reader holds, charged to its query until they are let go. The default charges
/// nobody.
#[derive(Debug, Default)]
pub struct Charge {
    budget: Option<Arc<Budget>>,
    bytes: u64,
    /// Of [`Charge::add_later`], not yet charged.
    later: u64,
}

/// Bytes from which on what was put off is charged.
const LATER_BYTES: u64 = 1 << 20;

impl Charge {
    /// Nothing yet.
    pub fn of(budget: &Arc<Budget>) -> Charge {
        Charge { budget: Some(budget.clone()), bytes: 0, later: 0 }
    }

    /// So many bytes more. What is refused is not counted.
    pub fn add(&mut self, bytes: u64) -> Result<(), SourceError> {
        if let Some(budget) = &self.budget {
            budget.reserve(bytes)?;
        }
        self.bytes += bytes;
        Ok(())
    }

    /// So many bytes more of what comes in many small pieces: charged when there are enough of them, or with
    /// [`Charge::settle`].
    pub fn add_later(&mut self, bytes: u64) -> Result<(), SourceError> {
        self.later += bytes;
        if self.later < LATER_BYTES { Ok(()) } else { self.settle() }
    }

    /// Charges what was put off.
    pub fn settle(&mut self) -> Result<(), SourceError> {
        let later = std::mem::take(&mut self.later);
        self.add(later)
    }

    /// So many bytes more of what can be done without; `false` where others may need them.
    pub fn add_spare(&mut self, bytes: u64) -> bool {
        let added = self.budget.as_ref().is_none_or(|budget| budget.reserve_spare(bytes));
        self.bytes += if added { bytes } else { 0 };
        added
    }

    /// What it holds now.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// So many bytes less, or all that there are.
    pub fn let_go(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        if let Some(budget) = &self.budget {
            budget.release(bytes);
        }
        self.bytes -= bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.let_go(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemoryPool;

    #[test]
    fn charge_is_the_querys_until_it_is_let_go() {
        let pool = MemoryPool::new(100);
        let budget = Budget::within(pool.clone(), u64::MAX, 80, None);
        let mut held = Charge::of(&budget);
        held.add(30).unwrap();
        assert!(held.add(60).is_err(), "more than the query may");
        held.let_go(10);
        assert_eq!((budget.bytes_held(), pool.reserved_bytes()), (20, 20));
        drop(held);
        assert_eq!((budget.bytes_held(), pool.reserved_bytes()), (0, 0));
        let mut nobodys = Charge::default();
        nobodys.add(u64::MAX / 2).unwrap();
        nobodys.let_go(u64::MAX);
    }

    #[test]
    fn charge_for_what_can_be_done_without_leaves_half_to_others() {
        let pool = MemoryPool::new(100);
        let budget = |max_bytes| Budget::within(pool.clone(), u64::MAX, max_bytes, None);
        let (small, large, other) = (budget(40), budget(100), budget(100));
        let mut of_small = Charge::of(&small);
        assert!(of_small.add_spare(20) && !of_small.add_spare(1), "half of its own");
        let mut of_large = Charge::of(&large);
        assert!(of_large.add_spare(30) && !of_large.add_spare(1), "half of what there is for all");
        other.reserve(50).unwrap();
        of_large.let_go(30);
        assert!(!of_large.add_spare(1));
        assert_eq!(pool.reserved_bytes(), 70);
    }
}
