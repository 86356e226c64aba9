//! Permits: how many queries run at once, and how one gives its permit back while its client does not read.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::api::queue::{Place, Queue, QueueBounds, Turn};

/// How long a query keeps its permit for a client that does not read.
const UNREAD_PATIENCE: Duration = Duration::from_secs(2);

/// A query's permit to run. A query whose client does not read gives it back until the client does, as long
/// as not too many wait like that: each keeps its thread.
pub struct Permit {
    turn: Option<Turn>,
    queue: Arc<Queue>,
    place: Place,
    bounds: QueueBounds,
    waiting: Arc<Semaphore>,
}

impl Permit {
    /// `turn` was had at this place in the queue.
    pub fn new(
        turn: Turn,
        queue: Arc<Queue>,
        place: Place,
        bounds: QueueBounds,
        waiting: Arc<Semaphore>,
    ) -> Permit {
        // It was in already: that others wait must not keep it from going on.
        let bounds = QueueBounds { max_waiting: 0, ..bounds };
        Permit { turn: Some(turn), queue, place, bounds, waiting }
    }

    /// Waits for `sent` without the permit, where that is possible, and then for a permit. Where too many
    /// wait like that already, the client has a moment to read, and `None` says that it did not.
    pub async fn without<T>(&mut self, sent: impl Future<Output = T>) -> Option<T> {
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return tokio::time::timeout(UNREAD_PATIENCE, sent).await.ok();
        };
        self.turn = None;
        let sent = sent.await;
        // Without a permit the query would go on all the same.
        self.turn = self.queue.turn(self.place.clone(), self.bounds).await.ok();
        Some(sent)
    }
}
