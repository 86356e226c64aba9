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

    /// Does the work for every item, on this thread and on as many others as there are to spare.
    pub fn for_each<T: Send>(&self, items: Vec<T>, work: impl Fn(T) + Sync) {
        let taken = self.take(items.len().saturating_sub(1));
        if taken.count == 0 {
            return items.into_iter().for_each(work);
        }
        let queue = Mutex::new(items.into_iter());
        let worker = || {
            loop {
                let Some(item) = queue.lock().next() else { return };
                work(item);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..taken.count {
                scope.spawn(worker);
            }
            worker();
        });
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
        spare.for_each(vec![1, 2, 3], |n| {
            all_here.wait();
            done.fetch_add(n, Ordering::SeqCst);
        });
        assert_eq!(done.into_inner(), 6);
        assert_eq!(spare.0.load(Ordering::SeqCst), 2);
        let order = Mutex::new(Vec::new());
        SpareThreads::default().for_each(vec![1, 2, 3], |n| order.lock().push(n));
        assert_eq!(order.into_inner(), [1, 2, 3], "none to spare: one after the other");
    }
}
