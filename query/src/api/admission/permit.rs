//! Permits: how many queries run at once, and how one gives its permit back while its client does not read.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a query keeps its permit for a client that does not read.
const UNREAD_PATIENCE: Duration = Duration::from_secs(2);

/// A query's permit to run. A query whose client does not read gives it back until the client does, as long
/// as not too many wait like that: each keeps its thread.
pub struct Permit {
    held: Option<OwnedSemaphorePermit>,
    permits: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Permit {
    pub fn new(held: OwnedSemaphorePermit, permits: Arc<Semaphore>, waiting: Arc<Semaphore>) -> Permit {
        Permit { held: Some(held), permits, waiting }
    }

    /// Waits for `sent` without the permit, where that is possible, and then for a permit. Where too many
    /// wait like that already, the client has a moment to read, and `None` says that it did not.
    pub async fn without<T>(&mut self, sent: impl Future<Output = T>) -> Option<T> {
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return tokio::time::timeout(UNREAD_PATIENCE, sent).await.ok();
        };
        self.held = None;
        let sent = sent.await;
        // Semaphores are never closed; without a permit the query would go on all the same.
        self.held = self.permits.clone().acquire_owned().await.ok();
        Some(sent)
    }
}
