//! Between which times the samples of each generation lie: what no series need be asked.

use std::ops::RangeInclusive;

use parking_lot::RwLock;

/// First and last timestamp by generation, ascending; of all tenants together. Never narrower than what the
/// head holds, once those who wrote have said so.
#[derive(Default)]
pub(super) struct TimeBounds {
    by_generation: RwLock<Vec<(u64, (i64, i64))>>,
}

impl TimeBounds {
    /// Takes in what was written into a generation.
    pub fn widen(&self, generation: u64, (first, last): (i64, i64)) {
        {
            // Most writes lie within what was there, or go on from it; all of them come by here.
            let known = self.by_generation.read();
            let within = |(g, (a, b)): &(u64, (i64, i64))| *g == generation && *a <= first && last <= *b;
            if known.iter().rev().any(within) {
                return;
            }
        }
        let mut known = self.by_generation.write();
        match known.binary_search_by_key(&generation, |(g, _)| *g) {
            Ok(at) => {
                let (a, b) = known[at].1;
                known[at].1 = (a.min(first), b.max(last));
            }
            Err(at) => known.insert(at, (generation, (first, last))),
        }
    }

    /// Whether a sample of these generations may lie in a range, both ends included.
    pub fn meet(&self, generations: &RangeInclusive<u64>, (min_t_ms, max_t_ms): (i64, i64)) -> bool {
        let known = self.by_generation.read();
        known.iter().any(|(g, (a, b))| generations.contains(g) && *a <= max_t_ms && *b >= min_t_ms)
    }

    /// The first timestamp of all generations.
    pub fn first_ms(&self) -> Option<i64> {
        self.by_generation.read().iter().map(|(_, (first, _))| *first).min()
    }

    /// Generations up to this one have left the head.
    pub fn forget(&self, generation: u64) {
        self.by_generation.write().retain(|(g, _)| *g > generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_bounds_are_those_of_the_generations_asked_for() {
        let bounds = TimeBounds::default();
        assert!(!bounds.meet(&(0..=u64::MAX), (i64::MIN, i64::MAX)), "there is nothing");
        bounds.widen(1, (100, 200));
        bounds.widen(2, (201, 300));
        bounds.widen(2, (150, 160));
        assert!(bounds.meet(&(1..=1), (200, 500)) && !bounds.meet(&(1..=1), (201, 500)));
        assert!(bounds.meet(&(2..=9), (0, 150)) && !bounds.meet(&(2..=9), (0, 149)), "late ones count");
        assert!(!bounds.meet(&(3..=9), (i64::MIN, i64::MAX)));
        assert_eq!(bounds.first_ms(), Some(100));
        bounds.forget(1);
        assert!(!bounds.meet(&(1..=1), (0, 500)) && bounds.meet(&(1..=2), (0, 500)));
    }
}
