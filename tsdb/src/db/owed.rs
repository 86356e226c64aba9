//! From which time on this process may hold samples that are not in the object store: a promise to others.
//!
//! Others may answer without a process that is away, where it has promised to hold nothing of a time. So the
//! promise goes up only while nobody writes, and a write that is older waits until it was taken back.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use super::{Db, WriteError};

/// Tells others, before a write is taken, that samples from a time on (in milliseconds) may be here. An error
/// says why they could not be told.
#[async_trait::async_trait]
pub trait TellOwed: Send + Sync {
    async fn tell_owed_from(&self, t_ms: i64) -> Result<(), String>;
}

/// Older writes come in runs: what is promised anew is a multiple of this.
const STEP_MS: i64 = 12 * 3600 * 1000;

pub(super) struct Owed {
    from_ms: AtomicI64,
    tell: OnceLock<Arc<dyn TellOwed>>,
}

impl Default for Owed {
    fn default() -> Owed {
        Owed { from_ms: AtomicI64::new(i64::MIN), tell: OnceLock::new() }
    }
}

impl Owed {
    /// Whether anything was promised: where nothing was, writes need not be looked at.
    pub fn is_promised(&self) -> bool {
        self.from_ms.load(Ordering::Acquire) != i64::MIN
    }

    /// Waits until samples of a time may be written.
    pub async fn allow(&self, oldest_ms: i64) -> Result<(), WriteError> {
        if oldest_ms >= self.from_ms.load(Ordering::Acquire) {
            return Ok(());
        }
        let Some(tell) = self.tell.get() else { return Ok(()) };
        let from_ms = oldest_ms.div_euclid(STEP_MS).saturating_mul(STEP_MS);
        tell.tell_owed_from(from_ms).await.map_err(|why| {
            WriteError::Unavailable(format!(
                "samples are older than all that others know to be here, and these could not be told: {why}"
            ))
        })
    }
}

impl Db {
    /// Whom to tell before a write that is older than was promised.
    pub fn tell_owed(&self, tell: Arc<dyn TellOwed>) {
        let _ = self.owed.tell.set(tell);
    }

    /// From which time on samples may be here alone, as it is promised now; `None`: of all times.
    pub fn owed_from_ms(&self) -> Option<i64> {
        Some(self.owed.from_ms.load(Ordering::Acquire)).filter(|t| *t != i64::MIN)
    }

    /// Takes the promise back to a time: others were told.
    pub fn lower_owed_from(&self, t_ms: i64) {
        self.owed.from_ms.fetch_min(t_ms, Ordering::AcqRel);
    }

    /// Promises as much as is true: nothing older than the oldest sample here, and than two windows, so that
    /// writes that come as they should are never held up.
    pub async fn raise_owed_from(&self) {
        let usual = self.options.clock.now_ms().saturating_sub(2 * self.options.window_ms);
        let true_from = || {
            let from = self.oldest_owed_ms().map_or(usual, |oldest| oldest.min(usual));
            from.div_euclid(self.options.window_ms).saturating_mul(self.options.window_ms)
        };
        if true_from() <= self.owed.from_ms.load(Ordering::Acquire) {
            return;
        }
        // Nobody is between having looked at the promise and having written.
        let _gate = self.gate.write().await;
        self.owed.from_ms.fetch_max(true_from(), Ordering::AcqRel);
    }

    /// The oldest sample that may be in no snapshot, of all tenants.
    fn oldest_owed_ms(&self) -> Option<i64> {
        // What is sealed meanwhile is counted twice rather than not at all.
        let in_head = self.head.oldest_ms();
        let state = self.state.read().clone();
        let sealed = state.sealed.iter().flat_map(|s| s.blocks()).map(|b| b.meta.min_t_ms);
        sealed.chain(in_head).min()
    }
}
