//! Who creates a key, decided by a register outside of the store (ZooKeeper, etcd), so that no two writers
//! ever write it differently.
//!
//! A lock that is held while writing would not do: a holder that was paused past the end of its session still
//! has its request on the way, and a store without conditions takes it. Here nothing is held. To create `K`:
//!
//! 1. the bytes are written to a name of their own, `staged/<ulid>`;
//! 2. the register is asked to make `K` belong to that ulid if it belongs to nobody: this decides, once,
//!    whatever happens next;
//! 3. whoever sees the decision (the winner; a loser; a reader that misses `K`) looks whether `K` is there,
//!    and if not copies the staged bytes to it;
//! 4. once `K` is there the claim and the staged bytes are removed.
//!
//! `K` is only ever written with the bytes of the claim that was seen before `K` was looked for and not
//! found, and a claim is only removed when `K` is there. A second claim on `K`, made after the first was
//! removed, therefore finds `K` there and writes nothing. A winner that wakes up late writes the same bytes
//! again. This needs a store in which a finished write is seen by every later read, and keys that are not
//! created anew.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, Extensions, ObjectStore, ObjectStoreExt, PutPayload, PutResult, Result};
use ulid::Ulid;

use super::create::{Creator, exists, failed, taken};
use crate::cause::AttemptError;
use crate::layout;
use crate::small_object;

/// Why a register did not do what was asked of it; the text says which register.
pub type RegisterError = AttemptError;

/// Small texts under names, kept by a coordinator that agrees with itself. Names are relative to the place
/// the register was opened at, with at most one `/`.
#[async_trait::async_trait]
pub trait Register: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Creates a name unless it is there, and returns the text that is there now: ours if we created it, be
    /// it in an earlier attempt whose answer was lost. A name below another fails if that one is not there.
    async fn create(&self, name: &str, text: &str) -> std::result::Result<String, RegisterError>;

    /// The text of a name, no older than this call.
    async fn read(&self, name: &str) -> std::result::Result<Option<String>, RegisterError>;

    /// Removes a name if its text is this one.
    async fn remove(&self, name: &str, text: &str) -> std::result::Result<(), RegisterError>;
}

/// Creates keys by claims on a register.
#[derive(Debug)]
pub(super) struct ClaimedCreator {
    pub register: Arc<dyn Register>,
    /// Parent of all claims: it goes with the register's contents, so that one that lost them decides
    /// nothing.
    pub parent: String,
}

impl fmt::Display for ClaimedCreator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.register.fmt(f)
    }
}

impl ClaimedCreator {
    /// The name of a key's claim. Paths of the store never hold a `~` (it is percent-encoded there).
    fn claim(&self, path: &Path) -> String {
        format!("{}/{}", self.parent, path.as_ref().replace('/', "~"))
    }

    /// Carries out what was decided: `holder` creates `path`. Whether the object is there now.
    async fn complete(&self, store: &dyn ObjectStore, path: &Path, holder: &str) -> Result<bool> {
        let Ok(ulid) = Ulid::from_string(holder) else {
            let why = format!("{}: the claim on {path} holds {holder:?}, not a ULID", self.register);
            return Err(failed(why));
        };
        let staged = layout::staged(ulid);
        if !exists(store, path).await? {
            // A part of them would become the object, for good.
            match small_object::read_bytes(store, &staged).await? {
                Some(bytes) => {
                    store.put(path, PutPayload::from(bytes)).await?;
                    tracing::info!(%path, "finished a creation that another writer had begun");
                }
                None => {
                    if exists(store, path).await? {
                        // Another was faster and cleans up.
                        return Ok(true);
                    }
                    // Staged bytes go only after the object was there: it was created, and removed since. The
                    // claim is a left-over.
                    self.register.remove(&self.claim(path), holder).await.map_err(failed)?;
                    return Ok(false);
                }
            }
        }
        self.clean(store, path, holder, &staged).await;
        Ok(true)
    }

    /// Removes a claim that has served, and its bytes. Left-overs do no harm, so failures only show in the
    /// log.
    async fn clean(&self, store: &dyn ObjectStore, path: &Path, holder: &str, staged: &Path) {
        if let Err(e) = self.register.remove(&self.claim(path), holder).await {
            tracing::warn!(%path, "a claim that has served could not be removed: {e}");
            return;
        }
        match store.delete(staged).await {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(e) => tracing::warn!(%path, "{staged} could not be removed: {e}"),
        }
    }
}

#[async_trait::async_trait]
impl Creator for ClaimedCreator {
    async fn create(&self, store: &dyn ObjectStore, path: &Path, payload: PutPayload) -> Result<PutResult> {
        if exists(store, path).await? {
            return Err(taken(path));
        }
        let ours = Ulid::new();
        let staged = layout::staged(ours);
        store.put(&staged, payload.clone()).await?;
        let ours = ours.to_string();
        // Where this fails the claim may have been made: the staged bytes have to stay.
        let holder = self.register.create(&self.claim(path), &ours).await.map_err(failed)?;
        if holder != ours {
            let _ = store.delete(&staged).await;
            if !self.complete(store, path, &holder).await? {
                return Err(failed(format!("{path} was created before and is gone")));
            }
            return Err(taken(path));
        }
        if let Some(there) = small_object::read_bytes(store, path).await? {
            // Either a loser of this race has carried out our claim already, or between our first look and
            // the claim another was created and its claim removed. The bytes tell: whoever relies on this
            // writes something of its own.
            self.clean(store, path, &ours, &staged).await;
            return match there == Bytes::from(payload) {
                true => Ok(PutResult { e_tag: None, version: None, extensions: Extensions::default() }),
                false => Err(taken(path)),
            };
        }
        let done = store.put(path, payload).await?;
        self.clean(store, path, &ours, &staged).await;
        Ok(done)
    }

    async fn settle(&self, store: &dyn ObjectStore, path: &Path) -> Result<bool> {
        match self.register.read(&self.claim(path)).await.map_err(failed)? {
            Some(holder) => self.complete(store, path, &holder).await,
            // Perhaps it was created and cleaned up since the caller looked.
            None => exists(store, path).await,
        }
    }
}
