//! How commits to a store are made exactly once: by its own conditional writes, through a coordinator, or
//! because there is one writer only.

use std::sync::Arc;
use std::time::Duration;

use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::claims::{ClaimedCreator, Register, RegisterError};
use super::create::CreatingStore;
use super::error::{ArrangeError, unusable};
use super::owner::Owner;
use super::probe::{ProbeError, probe};
use crate::layout;
use crate::small_object;

/// What makes a commit win exactly once.
#[derive(Clone, Debug, Default)]
pub enum Commits {
    /// The store's conditional writes; whether it keeps its word on them is asked first.
    #[default]
    Conditional,
    /// The same, unasked. For tests.
    Unasked,
    /// A register in a coordinator, for stores without conditional writes.
    Register {
        register: Arc<dyn Register>,
        /// The bucket as people write it, so that two buckets do not share one place in the coordinator.
        bucket: String,
    },
    /// The word of the person who runs it that only this process writes. Used only where the store has no
    /// conditional writes.
    SingleWriter {
        /// How often it shows that it is alive.
        beat: Duration,
    },
}

impl Commits {
    /// A single writer with the usual beat.
    pub fn single_writer() -> Commits {
        Commits::SingleWriter { beat: Duration::from_secs(5) }
    }
}

/// A store that keeps its word on create-if-absent, and what has to be given back when the process ends.
#[derive(Clone, Debug)]
pub struct Arranged {
    pub store: Arc<dyn ObjectStore>,
    pub owner: Option<Arc<Owner>>,
}

/// The object that says which register decides about a bucket's commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    /// The register as it was named first, for people.
    register: String,
    /// Its name for itself; a register that lost its contents has another.
    identity: String,
}

/// What a register says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    identity: String,
    bucket: String,
}

/// Where a register says which it is.
const IDENTITY: &str = "identity";

/// Asks the store whether it keeps its word, or puts something in place that does. `writer` is a name that
/// stays over restarts. Every process that commits to a bucket has to come through here; one that only reads
/// does not.
pub async fn arrange(
    store: Arc<dyn ObjectStore>,
    commits: &Commits,
    writer: &str,
) -> Result<Arranged, ArrangeError> {
    let text = |e: ProbeError| match e {
        ProbeError::Unusable { passes: true, .. } => ArrangeError::wait(e.to_string()).caused_by(e),
        e => ArrangeError::mend(e.to_string()).caused_by(e),
    };
    match commits {
        Commits::Unasked => Ok(Arranged { store, owner: None }),
        Commits::Conditional => {
            no_register(&*store).await?;
            probe(&store).await.map_err(text)?;
            Ok(Arranged { store, owner: None })
        }
        Commits::SingleWriter { beat } => {
            no_register(&*store).await?;
            match probe(&store).await {
                Ok(()) => {
                    tracing::info!(
                        "the store keeps its word on conditional writes: catalog.single_writer is not needed"
                    );
                    Ok(Arranged { store, owner: None })
                }
                Err(e @ ProbeError::Unusable { .. }) => Err(text(e)),
                Err(e) => {
                    tracing::warn!(
                        "catalog.single_writer is set, so this process alone may write to the store: {e}"
                    );
                    let owner = Owner::take(store.clone(), writer, *beat).await?;
                    let store = Arc::new(CreatingStore { inner: store, creator: owner.clone() });
                    Ok(Arranged { store, owner: Some(owner) })
                }
            }
        }
        Commits::Register { register, bucket } => {
            let identity = identify(&*store, &**register, bucket).await?;
            let creator = Arc::new(ClaimedCreator { register: register.clone(), parent: identity });
            let store: Arc<dyn ObjectStore> = Arc::new(CreatingStore { inner: store, creator });
            probe(&store).await.map_err(text)?;
            Ok(Arranged { store, owner: None })
        }
    }
}

/// Fails if a bucket's commits go through a register.
async fn no_register(store: &dyn ObjectStore) -> Result<(), ArrangeError> {
    match marker(store).await? {
        None => Ok(()),
        Some(m) => Err(ArrangeError::mend(format!(
            "commits to this bucket are decided by {}: set catalog.lock to it. If nothing uses it any more, stop every Hearth on the bucket and remove the object {}",
            m.register,
            layout::register()
        ))),
    }
}

async fn marker(store: &dyn ObjectStore) -> Result<Option<Marker>, ArrangeError> {
    let read = small_object::read(store, &layout::register(), |text| serde_json::from_slice(text)).await;
    read.map_err(unusable)?
        .transpose()
        .map_err(|e| ArrangeError::mend(format!("{} is damaged: {e}", layout::register())).caused_by(e))
}

/// Makes sure that this register is the one that decides about this bucket, and has not lost its contents;
/// the parent of all claims.
async fn identify(
    store: &dyn ObjectStore,
    register: &dyn Register,
    bucket: &str,
) -> Result<String, ArrangeError> {
    let deaf = |e: RegisterError| {
        let text = format!("catalog.lock: {e}");
        let error = if e.passes() { ArrangeError::wait(text) } else { ArrangeError::mend(text) };
        error.caused_by(e)
    };
    let marker = marker(store).await?;
    let said = match (register.read(IDENTITY).await.map_err(deaf)?, &marker) {
        (Some(text), _) => text,
        (None, None) => {
            let identity = Ulid::new().to_string();
            let new = Identity { identity, bucket: bucket.to_string() };
            let text = serde_json::to_string(&new).expect("strings always serialize");
            // Of several that are first at once, one wins, and all read its text.
            register.create(IDENTITY, &text).await.map_err(deaf)?
        }
        (None, Some(m)) => {
            return Err(ArrangeError::mend(format!(
                "catalog.lock: {register} knows nothing of this bucket, whose commits are decided by {}. Is it the right host and path? If it lost its contents: stop every \
                 Hearth on the bucket, remove the object {}, and start again",
                m.register,
                layout::register()
            )));
        }
    };
    let said: Identity = serde_json::from_str(&said).map_err(|e| {
        ArrangeError::mend(format!("catalog.lock: {register}: {IDENTITY} holds {said:?}: {e}")).caused_by(e)
    })?;
    match marker {
        Some(m) if m.identity == said.identity => {}
        Some(m) => {
            return Err(ArrangeError::mend(format!(
                "catalog.lock: {register} is not the one that decides about this bucket ({}): it has lost its contents, or is another. If nothing uses the former any more: \
                 stop every Hearth on the bucket, remove the object {}, and start again",
                m.register,
                layout::register()
            )));
        }
        None if said.bucket == bucket => {
            let marker = Marker { register: register.to_string(), identity: said.identity.clone() };
            let text = serde_json::to_vec(&marker).expect("strings always serialize");
            // Several at once write the same.
            let put = store.put(&layout::register(), PutPayload::from(text)).await;
            put.map_err(unusable)?;
        }
        None => {
            return Err(ArrangeError::mend(format!(
                "catalog.lock: {register} decides about another bucket, {}: give each bucket a path of its own",
                said.bucket
            )));
        }
    }
    let parent = format!("claims-{}", said.identity);
    register.create(&parent, "").await.map_err(deaf)?;
    Ok(parent)
}
