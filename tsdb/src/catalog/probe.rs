//! Does the store keep its word on conditional writes? Asked for real, because some answer "created" to
//! everybody.

use std::sync::Arc;

use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use ulid::Ulid;

use crate::cause::{Cause, passes};
use crate::layout;

/// How many writers race for one key.
const RACERS: usize = 8;
/// How many races.
const RACES: usize = 3;

/// What to do about a store without them.
const WAYS_OUT: &str = "Commits need that word kept. Either use a store that keeps it (AWS S3, Ceph RGW, MinIO, GCS, Azure, a local folder); or let a coordinator \
                        decide: catalog.lock: zookeeper://HOST:2181/hearth or etcd://HOST:2379/hearth, the same for every Hearth on the bucket; or, if this process is \
                        and stays the only one that writes to the bucket: catalog.single_writer: true";

/// What the probe found; the text says what to do about it.
#[derive(Debug, thiserror::Error, Clone)]
pub enum ProbeError {
    /// Not a lie, only a failure: wrong address, credentials, permissions, network.
    #[error("the object store cannot be used: {why}")]
    Unusable {
        why: String,
        /// Whether it may pass by itself.
        passes: bool,
        #[source]
        cause: Option<Cause>,
    },
    /// It does not know create-if-absent at all.
    #[error("the object store does not support conditional writes (create-if-absent): {0}. {WAYS_OUT}")]
    Unsupported(String),
    /// It says yes and overwrites.
    #[error(
        "the object store accepted a conditional write (If-None-Match: *) of an object that existed, and answered success{0}. Two writers would lose each \
         other's blocks on it. {WAYS_OUT}"
    )]
    Overwrites(&'static str),
    /// It refuses the second of two in sequence, but not of two at once.
    #[error(
        "of {racers} writers creating the same object at once {winners} were told they had won; exactly one may. Two writers would lose each other's blocks on \
         this store. {WAYS_OUT}"
    )]
    Racy { racers: usize, winners: usize },
}

/// Creates an object twice, then lets several writers race for one; removes what it wrote. Run it once before
/// the first commit to a store.
pub async fn probe(store: &Arc<dyn ObjectStore>) -> Result<(), ProbeError> {
    let id = Ulid::new();
    let found = run(store, id).await;
    let mut names = vec!["twice".to_string()];
    names.extend((0..RACES).map(|r| format!("race-{r}")));
    for name in names {
        // Left-overs are a few bytes in a folder of their own: not worth failing for.
        let _ = store.delete(&layout::probe(id, &name)).await;
    }
    found
}

async fn run(store: &Arc<dyn ObjectStore>, id: Ulid) -> Result<(), ProbeError> {
    let path = layout::probe(id, "twice");
    if !create(store, &path, b"first").await? {
        let why = format!("it says that {path}, a name made up just now, exists already");
        return Err(ProbeError::Unusable { why, passes: false, cause: None });
    }
    if create(store, &path, b"second").await? {
        let now = store.get(&path).await.map_err(unusable)?.bytes().await.map_err(unusable)?;
        return Err(ProbeError::Overwrites(if &now[..] == b"second" { " after overwriting it" } else { "" }));
    }
    for race in 0..RACES {
        let path = layout::probe(id, &format!("race-{race}"));
        let tries = (0..RACERS).map(|racer| {
            let (store, path) = (store.clone(), path.clone());
            // Spawned, not joined, so that the requests truly overlap.
            tokio::spawn(async move { create(&store, &path, format!("racer {racer}").as_bytes()).await })
        });
        let mut winners = 0;
        let mut unclear = None;
        for tried in tries.collect::<Vec<_>>() {
            match tried.await {
                Ok(Ok(won)) => winners += usize::from(won),
                Ok(Err(e)) => unclear = Some(e),
                Err(e) => unclear = Some(unusable_by(e, true)),
            }
        }
        match (winners, unclear) {
            (1, _) => {}
            // A loser's error may hide the winner.
            (0, Some(e)) => return Err(e),
            (winners, _) => return Err(ProbeError::Racy { racers: RACERS, winners }),
        }
    }
    Ok(())
}

async fn create(
    store: &Arc<dyn ObjectStore>,
    path: &object_store::path::Path,
    text: &[u8],
) -> Result<bool, ProbeError> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    match store.put_opts(path, PutPayload::from(text.to_vec()), options).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
            Ok(false)
        }
        Err(e @ (object_store::Error::NotSupported { .. } | object_store::Error::NotImplemented { .. })) => {
            Err(ProbeError::Unsupported(e.to_string()))
        }
        // Some say so in HTTP only.
        Err(e) if ["501", "NotImplemented"].iter().any(|s| e.to_string().contains(s)) => {
            Err(ProbeError::Unsupported(e.to_string()))
        }
        Err(e) => Err(unusable(e)),
    }
}

fn unusable(e: object_store::Error) -> ProbeError {
    let passes = passes(&e);
    unusable_by(e, passes)
}

fn unusable_by(e: impl std::error::Error + Send + Sync + 'static, passes: bool) -> ProbeError {
    ProbeError::Unusable { why: e.to_string(), passes, cause: Some(Arc::new(e)) }
}
