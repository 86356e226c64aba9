//! In which order requests reach the head. They are applied side by side and not one after the other, but
//! where two of them write one instant of a series the one that is later in the log stands: a restart, which
//! reads the log, must answer the same.
//!
//! A request that begins while an earlier one is still on its way makes known what it writes, before it
//! writes any of it. The earlier one, where it finds another value at its time, looks whether the value may
//! be of a later request, and then leaves it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::watch;

/// The samples of a request, as its turn has to know them.
pub(super) trait Instants: Send + Sync + 'static {
    /// Numbers of series and timestamps (ms) of all that is written, in any order.
    fn all(&self) -> Vec<(u32, i64)>;
}

/// The requests of a log that are on their way to the head, with what they write. One for each log.
pub(super) struct Turns {
    inner: Mutex<Inner>,
    /// [`Inner::ended`], for those who wait.
    ended: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    /// All requests up to this number of the log are in the head, or failed; and those beyond it that are.
    ended: u64,
    ended_beyond: BTreeSet<u64>,
    /// What requests write that began before all earlier ones had ended, until they have.
    ahead: BTreeMap<u64, Arc<Ahead>>,
}

struct Ahead {
    request: Arc<dyn Instants>,
    /// Sorted, once somebody asks.
    instants: OnceLock<Vec<(u32, i64)>>,
}

impl Ahead {
    fn writes(&self, instant: (u32, i64)) -> bool {
        let sorted = || {
            let mut all = self.request.all();
            all.sort_unstable();
            all
        };
        self.instants.get_or_init(sorted).binary_search(&instant).is_ok()
    }
}

impl Default for Turns {
    fn default() -> Self {
        Turns { inner: Mutex::default(), ended: watch::Sender::new(0) }
    }
}

impl Turns {
    /// The turn of the request with this number of the log.
    pub fn turn(self: &Arc<Self>, number: u64) -> Turn {
        Turn { turns: self.clone(), number }
    }

    fn end(&self, number: u64) {
        let mut inner = self.inner.lock();
        inner.ended_beyond.insert(number);
        while inner.ended_beyond.first() == Some(&(inner.ended + 1)) {
            inner.ended_beyond.pop_first();
            inner.ended += 1;
        }
        // Nobody earlier is left to ask of these.
        let ended = inner.ended;
        while inner.ahead.first_key_value().is_some_and(|(number, _)| *number <= ended + 1) {
            inner.ahead.pop_first();
        }
        drop(inner);
        self.ended.send_if_modified(|last| {
            *last < ended && {
                *last = ended;
                true
            }
        });
    }
}

/// One request's turn, from when it is in the log until it is in the head or has failed.
pub(super) struct Turn {
    turns: Arc<Turns>,
    number: u64,
}

impl Turn {
    /// Makes known what is written from now on.
    pub fn begin(&self, request: Arc<dyn Instants>) {
        let mut inner = self.turns.inner.lock();
        if inner.ended + 1 < self.number {
            inner.ahead.insert(self.number, Arc::new(Ahead { request, instants: OnceLock::new() }));
        }
    }

    /// Whether a request that is later in the log and has begun writes this series, by its number, at this
    /// time as well.
    pub fn is_overruled(&self, series: u32, ts_ms: i64) -> bool {
        let later: Vec<_> = {
            let inner = self.turns.inner.lock();
            inner.ahead.range(self.number + 1..).map(|(_, ahead)| ahead.clone()).collect()
        };
        later.iter().any(|ahead| ahead.writes((series, ts_ms)))
    }

    /// Waits until all requests that are earlier in the log are in the head or have failed.
    pub async fn earlier_ended(&self) {
        let mut ended = self.turns.ended.subscribe();
        // The sender is held by `self`.
        let _ = ended.wait_for(|ended| ended + 1 >= self.number).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.end(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Writes(Vec<(u32, i64)>);

    impl Instants for Writes {
        fn all(&self) -> Vec<(u32, i64)> {
            self.0.clone()
        }
    }

    #[test]
    fn turn_is_overruled_by_what_later_ones_have_begun() {
        let turns = Arc::new(Turns::default());
        let [first, second, third] = [1, 2, 3].map(|n| turns.turn(n));
        third.begin(Arc::new(Writes(vec![(7, 20), (7, 10), (6, 5)])));
        assert!(first.is_overruled(7, 10) && second.is_overruled(6, 5));
        assert!(!first.is_overruled(7, 11) && !third.is_overruled(7, 10));
        second.begin(Arc::new(Writes(vec![(8, 1)])));
        assert!(first.is_overruled(8, 1) && !second.is_overruled(8, 1));
        drop(third);
        assert!(first.is_overruled(7, 20), "the first may still come to it");
        drop(first);
        assert_eq!(turns.inner.lock().ahead.keys().copied().collect::<Vec<_>>(), [3]);
        drop(second);
        let inner = turns.inner.lock();
        assert!(inner.ahead.is_empty() && inner.ended_beyond.is_empty() && inner.ended == 3);
    }

    #[tokio::test]
    async fn turn_waits_for_earlier_ones_to_end() {
        let turns = Arc::new(Turns::default());
        let [first, second, third] = [1, 2, 3].map(|n| turns.turn(n));
        first.earlier_ended().await;
        drop(second);
        let (mut woken, waits) = (false, async { third.earlier_ended().await });
        tokio::pin!(waits);
        tokio::select! {
            biased;
            () = &mut waits => woken = true,
            () = tokio::task::yield_now() => {}
        }
        assert!(!woken, "the first has not ended");
        drop(first);
        waits.await;
    }
}
