//! Threads that evaluate rules of one group side by side, so many over all groups.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// How many threads beyond one a group there may be, over all groups.
#[derive(Debug, Default)]
pub struct SpareThreads(AtomicUsize);

/// Threads that were taken; given back when it is dropped.
struct Taken<'a> {
    from: &'a SpareThreads,
    count: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.from.0.fetch_add(self.count, Ordering::Relaxed);
    }
}

impl SpareThreads {
    pub fn new(count: usize) -> SpareThreads {
        SpareThreads(AtomicUsize::new(count))
    }

    fn take(&self, wanted: usize) -> Taken<'_> {
        let mut count = 0;
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spare| {
            count = spare.min(wanted);
            Some(spare - count)
        });
        Taken { from: self, count }
    }

    /// What the work gives for every item, in their order: it is done on this thread and on as many others,
    /// at most `helpers`, as there are to spare.
    pub fn map<T: Send, R: Send>(
        &self,
        items: Vec<T>,
        helpers: usize,
        work: impl Fn(T) -> R + Sync,
    ) -> Vec<R> {
        let taken = self.take(helpers.min(items.len().saturating_sub(1)));
        if taken.count == 0 {
            return items.into_iter().map(work).collect();
        }
        let done = Mutex::new(Vec::with_capacity(items.len()));
        let queue = Mutex::new(items.into_iter().enumerate());
        let worker = || {
            loop {
                let Some((at, item)) = queue.lock().next() else { return };
                let gave = work(item);
                done.lock().push((at, gave));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..taken.count {
                scope.spawn(worker);
            }
            worker();
        });
        let mut done = done.into_inner();
        done.sort_unstable_by_key(|(at, _)| *at);
        done.into_iter().map(|(_, gave)| gave).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn spare_threads_are_used_and_given_back() {
        let spare = SpareThreads::new(2);
        // Each item waits for the other two: they are at work at once.
        let all_here = Barrier::new(3);
        let done = AtomicUsize::new(0);
        let gave = spare.map(vec![1, 2, 3], 2, |n| {
            all_here.wait();
            done.fetch_add(n, Ordering::SeqCst);
            10 * n
        });
        assert_eq!((done.into_inner(), gave), (6, vec![10, 20, 30]));
        assert_eq!(spare.0.load(Ordering::SeqCst), 2);
        let order = Mutex::new(Vec::new());
        spare.map(vec![1, 2, 3], 0, |n| order.lock().push(n));
        assert_eq!(order.into_inner(), [1, 2, 3], "none are wanted: one after the other");
        SpareThreads::default().map(vec![1, 2, 3], 2, |n| assert!(n > 0));
    }
}
