//! How far a start has come, and how the last reload ended: written by the process, shown by the API.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// Which segments of the log are replayed. Whole numbers that a reader may see from two moments: they are for
/// a bar that grows.
#[derive(Debug, Default)]
pub struct ReplayProgress {
    min: AtomicU64,
    max: AtomicU64,
    current: AtomicU64,
}

impl ReplayProgress {
    /// `current` of the segments `min` to `max` is being read.
    pub fn set(&self, min: u64, max: u64, current: u64) {
        self.min.store(min, Ordering::Relaxed);
        self.max.store(max, Ordering::Relaxed);
        self.current.store(current, Ordering::Relaxed);
    }

    /// First, last and current segment.
    pub fn get(&self) -> (u64, u64, u64) {
        let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
        (of(&self.min), of(&self.max), of(&self.current))
    }
}

/// How the last reload ended. What was read at the start counts as one that succeeded.
#[derive(Debug, Default)]
pub struct ReloadStatus {
    failed: AtomicBool,
    /// 0: there was none since the start.
    succeeded_at_ms: AtomicI64,
}

impl ReloadStatus {
    pub fn ended(&self, succeeded: bool, now_ms: i64) {
        self.failed.store(!succeeded, Ordering::Relaxed);
        if succeeded {
            self.succeeded_at_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    pub fn succeeded(&self) -> bool {
        !self.failed.load(Ordering::Relaxed)
    }

    /// `None` where nothing was reloaded since the start.
    pub fn succeeded_at_ms(&self) -> Option<i64> {
        Some(self.succeeded_at_ms.load(Ordering::Relaxed)).filter(|ms| *ms != 0)
    }
}
