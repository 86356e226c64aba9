//! What whoever runs the process should know at once, with subscribers that are told of changes.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

use crate::api::parameters::values::rfc3339;

/// The texts that upstream has.
pub const RELOAD_FAILED: &str = "Configuration reload has failed.";
pub const STARTING: &str = "Prometheus is starting and replaying the write-ahead log (WAL).";
pub const STOPPING: &str = "Prometheus is shutting down and gracefully stopping all operations.";

/// Subscribers at once, as upstream.
const MOST_SUBSCRIBERS: usize = 16;

/// Changes that may wait for a subscriber that does not read; it misses the oldest beyond.
const WAITING: usize = 16;

/// Something to know, or, once it is not `active`, to forget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notification {
    pub text: String,
    pub date: String,
    pub active: bool,
}

/// All that is to be known now. Clones share it.
#[derive(Clone)]
pub struct Notifications(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    seats: Arc<Semaphore>,
}

struct State {
    active: Vec<Notification>,
    /// `None` once the process stops: subscriptions end.
    changes: Option<broadcast::Sender<Notification>>,
}

/// What a subscriber is told: what is active, and every change from then on. Gives its seat back when it is
/// dropped.
pub struct Subscription {
    pub active: Vec<Notification>,
    pub changes: broadcast::Receiver<Notification>,
    _seat: OwnedSemaphorePermit,
}

impl Default for Notifications {
    fn default() -> Notifications {
        let state = State { active: Vec::new(), changes: Some(broadcast::Sender::new(WAITING)) };
        let seats = Arc::new(Semaphore::new(MOST_SUBSCRIBERS));
        Notifications(Arc::new(Inner { state: Mutex::new(state), seats }))
    }
}

impl Notifications {
    /// Adds a text, or gives it a new date.
    pub fn add(&self, text: &str, now_ms: i64) {
        let one = Notification { text: text.to_owned(), date: rfc3339(now_ms), active: true };
        let mut state = self.0.state.lock();
        match state.active.iter_mut().find(|n| n.text == text) {
            Some(known) => *known = one.clone(),
            None => state.active.push(one.clone()),
        }
        state.tell(one);
    }

    /// Takes a text away, where it is there.
    pub fn remove(&self, text: &str) {
        let mut state = self.0.state.lock();
        let Some(at) = state.active.iter().position(|n| n.text == text) else { return };
        let gone = state.active.remove(at);
        state.tell(Notification { active: false, ..gone });
    }

    pub fn active(&self) -> Vec<Notification> {
        self.0.state.lock().active.clone()
    }

    /// `None` where there are too many already, or the process stops.
    pub fn subscribe(&self) -> Option<Subscription> {
        let seat = self.0.seats.clone().try_acquire_owned().ok()?;
        let state = self.0.state.lock();
        let changes = state.changes.as_ref()?.subscribe();
        Some(Subscription { active: state.active.clone(), changes, _seat: seat })
    }

    /// Ends all subscriptions, after what they were told last: a process that stops does not wait for them.
    pub fn close(&self) {
        self.0.state.lock().changes = None;
    }
}

impl State {
    fn tell(&self, change: Notification) {
        if let Some(changes) = &self.changes {
            // Nobody may be listening.
            let _ = changes.send(change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn notifications_are_told_and_taken_back() {
        let all = Notifications::default();
        all.add(STARTING, 0);
        let mut subscription = all.subscribe().unwrap();
        assert_eq!(subscription.active, all.active());
        all.add(STARTING, 1_000);
        all.add(RELOAD_FAILED, 2_000);
        all.remove(STARTING);
        all.remove("never there");
        let mut told = Vec::new();
        for _ in 0..3 {
            let change = subscription.changes.recv().await.unwrap();
            told.push((change.date, change.active));
        }
        assert_eq!(
            told,
            [
                ("1970-01-01T00:00:01Z".to_owned(), true),
                ("1970-01-01T00:00:02Z".to_owned(), true),
                ("1970-01-01T00:00:01Z".to_owned(), false),
            ]
        );
        assert_eq!(all.active().len(), 1);
        all.close();
        assert!(subscription.changes.recv().await.is_err());
        assert!(all.subscribe().is_none());
    }

    #[tokio::test]
    async fn notifications_have_sixteen_seats() {
        let all = Notifications::default();
        let mut seats: Vec<_> = (0..MOST_SUBSCRIBERS).map(|_| all.subscribe().unwrap()).collect();
        assert!(all.subscribe().is_none());
        seats.pop();
        assert!(all.subscribe().is_some());
    }
}
