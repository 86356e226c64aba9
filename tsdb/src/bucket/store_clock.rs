//! The object store's own clock, for decisions that delete: this machine's may be wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use parking_lot::Mutex;
use ulid::Ulid;

use crate::block::BlockError;
use crate::layout;
use model::clock::Clock;

/// How long the store's clock is taken to go on as it was read.
const TRUSTED_FOR: Duration = Duration::from_secs(600);

/// Reads the time that the store gives an object it has just written. Clones share what was read.
#[derive(Clone)]
pub struct StoreClock {
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    /// When it was read last, by a clock that nobody sets, and what it was.
    read: Arc<Mutex<Option<(Instant, i64)>>>,
}

impl StoreClock {
    pub fn new(store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> StoreClock {
        StoreClock { store, clock, read: Arc::default() }
    }

    /// Now, in milliseconds, by this machine's clock or the store's, whichever is behind. The store's is read
    /// off a small object that is written and removed, every ten minutes at most.
    pub async fn cautious_now_ms(&self) -> Result<i64, BlockError> {
        let known = self.read.lock().filter(|(read, _)| read.elapsed() < TRUSTED_FOR);
        let (read, store_ms) = match known {
            Some(known) => known,
            None => {
                let path = layout::probe(Ulid::new(), "clock");
                let failed = |e: object_store::Error| BlockError::of_store(&path, e);
                self.store.put(&path, PutPayload::from_static(b"now?")).await.map_err(failed)?;
                let read = Instant::now();
                let written = self.store.head(&path).await.map_err(failed)?.last_modified;
                match self.store.delete(&path).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(e) => return Err(failed(e)),
                }
                let now = (read, written.timestamp_millis());
                *self.read.lock() = Some(now);
                now
            }
        };
        let since_ms = i64::try_from(read.elapsed().as_millis()).unwrap_or(i64::MAX);
        // Stores tell whole seconds.
        let store_now_ms = store_ms.saturating_add(since_ms).saturating_add(1000);
        Ok(self.clock.now_ms().min(store_now_ms))
    }
}
