//! A store without conditional writes and without a register, for one writer alone: it says in an object that
//! it is there, and looks before it commits.
//!
//! This narrows the window in which two writers do harm to the time between a look and a write; it does not
//! close it. It is there for small set-ups that can see to it themselves that only one process writes.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, PutResult, Result};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::create::{Creator, exists, failed, taken};
use super::error::{ArrangeError, unusable};
use crate::layout;
use crate::small_object;

/// Beats without which an owner counts as gone.
const BEATS: u32 = 4;

/// What the owner's object says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Statement {
    /// The data folder's own name, the same over restarts.
    writer: String,
    /// One run of one process.
    session: String,
    /// Goes up with every sign of life.
    beat: u64,
    /// It stopped and said so.
    released: bool,
}

/// The right to write, for as long as nobody else has taken it.
#[derive(Debug)]
pub struct Owner {
    writer: String,
    session: String,
    store: Arc<dyn ObjectStore>,
    /// One creation at a time; holds the number of the last beat.
    turn: tokio::sync::Mutex<u64>,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its only writer")
    }
}

async fn read(store: &dyn ObjectStore) -> Result<Option<Statement>> {
    let said = small_object::read(store, &layout::owner(), |text| serde_json::from_slice(text)).await?;
    said.transpose().map_err(|e| failed(format!("{} cannot be understood: {e}", layout::owner())))
}

impl Owner {
    /// Takes the right: at once where nobody has it, it was given back, or it was this folder's own; else
    /// only after `BEATS` beats without a sign of life. `writer` is a name that stays over restarts.
    pub(super) async fn take(
        store: Arc<dyn ObjectStore>,
        writer: &str,
        beat: Duration,
    ) -> std::result::Result<Arc<Owner>, ArrangeError> {
        let mut before = read(&*store).await.map_err(unusable)?;
        if before.as_ref().is_some_and(|b| b.writer != writer && !b.released) {
            tracing::warn!(
                "the bucket belongs to another Hearth as it seems; waiting {:?} for a sign of life",
                beat * BEATS
            );
            for _ in 0..BEATS {
                tokio::time::sleep(beat).await;
                let now = read(&*store).await.map_err(unusable)?;
                if now.is_some() && now != before && !now.as_ref().is_some_and(|n| n.released) {
                    return Err(occupied(now.as_ref()));
                }
                before = now;
            }
            tracing::warn!("there was none: taking over");
        }
        let owner = Owner {
            writer: writer.to_string(),
            session: Ulid::new().to_string(),
            store,
            turn: tokio::sync::Mutex::new(0),
        };
        owner.say(0, false).await.map_err(unusable)?;
        // Of several that start at once the last to write has it; give the others the time to have written.
        tokio::time::sleep(beat.min(Duration::from_secs(1))).await;
        let now = read(&*owner.store).await.map_err(unusable)?;
        if now.as_ref().is_none_or(|n| n.session != owner.session) {
            return Err(occupied(now.as_ref()));
        }
        let owner = Arc::new(owner);
        tokio::spawn(keep_saying(Arc::downgrade(&owner), beat));
        Ok(owner)
    }

    /// Gives it back, so that the next need not wait.
    pub async fn release(&self) {
        let beat = self.turn.lock().await;
        if matches!(self.is_ours().await, Ok(true))
            && let Err(e) = self.say(*beat + 1, true).await
        {
            tracing::warn!("{} could not be given back: {e}", layout::owner());
        }
    }

    async fn is_ours(&self) -> Result<bool> {
        Ok(read(&*self.store).await?.is_some_and(|s| s.session == self.session && !s.released))
    }

    async fn say(&self, beat: u64, released: bool) -> Result<()> {
        let (writer, session) = (self.writer.clone(), self.session.clone());
        let text = serde_json::to_vec(&Statement { writer, session, beat, released });
        let text = text.expect("strings and numbers always serialize");
        self.store.put(&layout::owner(), PutPayload::from(text)).await.map(drop)
    }
}

fn occupied(by: Option<&Statement>) -> ArrangeError {
    let by = by.map_or("nobody".into(), |s| format!("the data folder known as {}", s.writer));
    ArrangeError::mend(format!(
        "another Hearth writes to this bucket ({by}), and the object store has no conditional writes, so that only one may. Stop the other, or let \
         all of them commit through a coordinator: catalog.lock: zookeeper://HOST:2181/hearth or etcd://HOST:2379/hearth, without catalog.single_writer"
    ))
}

async fn keep_saying(owner: Weak<Owner>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(owner) = owner.upgrade() else { return };
        let mut beat = owner.turn.lock().await;
        match owner.is_ours().await {
            Ok(true) => {
                *beat += 1;
                if let Err(e) = owner.say(*beat, false).await {
                    tracing::warn!("no sign of life could be written to {}: {e}", layout::owner());
                }
            }
            // Given back, or taken by another: nothing is committed from here on.
            Ok(false) => return,
            Err(e) => tracing::warn!("{} could not be read: {e}", layout::owner()),
        }
    }
}

#[async_trait::async_trait]
impl Creator for Owner {
    async fn create(&self, store: &dyn ObjectStore, path: &Path, payload: PutPayload) -> Result<PutResult> {
        let _turn = self.turn.lock().await;
        if !self.is_ours().await? {
            return Err(failed(format!(
                "{path} is not written: another Hearth has taken the bucket (see {}), which is for a single writer; stop one of them",
                layout::owner()
            )));
        }
        if exists(store, path).await? {
            return Err(taken(path));
        }
        store.put(path, payload).await
    }

    async fn settle(&self, _: &dyn ObjectStore, _: &Path) -> Result<bool> {
        Ok(false)
    }
}
