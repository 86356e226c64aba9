//! How far a start has come, and how the last reload ended: written by the process, shown by the API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::RwLock;

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
    in_force: RwLock<Option<Arc<Reloaded>>>,
}

/// What a reload has put in the place of what the process was started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// The configuration in effect, secrets left out.
    pub config_yaml: String,
    /// What `/federate` adds to series that lack these labels, names unique.
    pub external_labels: Vec<(String, String)>,
}

impl ReloadStatus {
    pub fn ended(&self, succeeded: bool, now_ms: i64) {
        self.failed.store(!succeeded, Ordering::Relaxed);
        if succeeded {
            self.succeeded_at_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// Shows what is in force from now on.
    pub fn put_in_force(&self, reloaded: Reloaded) {
        *self.in_force.write() = Some(Arc::new(reloaded));
    }

    /// `None` where it is what the process was started with.
    pub fn in_force(&self) -> Option<Arc<Reloaded>> {
        self.in_force.read().clone()
    }

    pub fn succeeded(&self) -> bool {
        !self.failed.load(Ordering::Relaxed)
    }

    /// `None` where nothing was reloaded since the start.
    pub fn succeeded_at_ms(&self) -> Option<i64> {
        Some(self.succeeded_at_ms.load(Ordering::Relaxed)).filter(|ms| *ms != 0)
    }
}
