//! Which blocks exist: numbered snapshots written with create-if-absent, so that a commit either wins or is
//! applied again to what won.
//!
//! The only thing asked of the store is that of several writers creating one key exactly one succeeds;
//! [`probe`] finds out whether it keeps that promise. No object is ever changed after it was created, so a
//! reader's snapshot stays true for as long as its blocks exist, and they are removed only long after the
//! last snapshot that names them. Of a large catalog a snapshot's object holds what it changes, see
//! `stored`. For stores that do not keep it, [`arrange`] puts something before them that
//! does.

mod arrange;
mod changes;
mod claims;
mod create;
mod error;
pub mod lease;
mod owner;
mod probe;
mod snapshot;
mod stored;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use parking_lot::Mutex;
use ulid::Ulid;

use crate::{layout, small_object};
use model::backoff::Backoff;
use model::clock::{Clock, SystemClock};
use model::tenant::TenantId;

pub use arrange::{Arranged, Commits, arrange};
pub use claims::{Register, RegisterError};
pub use error::{ArrangeError, CatalogError};
pub use owner::Owner;
pub use probe::{ProbeError, probe};
pub use snapshot::{Edit, ExpiredBlock, MAX_TOMBSTONE_BYTES, MAX_TOMBSTONES, Quarantine, Snapshot};

use stored::{Object, Stored};

/// Longest pause between two attempts at one request.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Catalogs that are read at once where those of all tenants are.
pub const CATALOGS_AT_ONCE: usize = 16;

/// How a [`Catalog`] behaves; the defaults suit everything but tests.
#[derive(Clone)]
pub struct CatalogOptions {
    /// Snapshots kept however old they are.
    pub keep_snapshots: u64,
    /// Snapshots younger than this, measured in the store's own times against the newest, are kept however
    /// many there are.
    pub keep_for: Duration,
    /// After so long without contact the newest snapshot is searched anew, because the next number may have
    /// come and been pruned. Must be much shorter than `keep_for`.
    pub trust_for: Duration,
    /// Bytes of a whole snapshot from which on those after it are stored as changes. Below, a commit that
    /// writes all costs no more than one that writes little, and a start reads one object only.
    pub changes_from_bytes: u64,
    /// How often a request that failed is made again, and the first pause between two; it doubles each time.
    pub attempts: u32,
    pub pause: Duration,
    pub clock: Arc<dyn Clock>,
}

impl Default for CatalogOptions {
    fn default() -> Self {
        CatalogOptions {
            keep_snapshots: 100,
            keep_for: Duration::from_secs(24 * 3600),
            trust_for: Duration::from_secs(3600),
            changes_from_bytes: 64 << 10,
            attempts: 5,
            pause: Duration::from_millis(100),
            clock: Arc::new(SystemClock),
        }
    }
}

/// One tenant's catalog, as one process sees it. Share it behind an `Arc`.
pub struct Catalog {
    store: Arc<dyn ObjectStore>,
    tenant: TenantId,
    /// This process' own name, written into the snapshots it commits.
    writer: String,
    options: CatalogOptions,
    seen: Mutex<Seen>,
    /// One commit of this process at a time: racing oneself is no use.
    committing: tokio::sync::Mutex<()>,
}

struct Seen {
    newest: Stored,
    at_ms: i64,
    /// Snapshots that others stand on and that were read lately, newest last.
    lately: VecDeque<Arc<Snapshot>>,
}

/// How many of them are kept: those that the next of several snapshots in a row stands on, too.
const LATELY: usize = 8;

/// What was found of a snapshot.
enum Found {
    Stored(Stored),
    /// There is no object of that number.
    Nothing,
    /// There is, and it stands on one of which there is none.
    StandsOnNothing(u64),
}

/// What became of one attempt to create a snapshot.
enum Created {
    Ours,
    Taken,
}

impl Catalog {
    /// Finds the newest snapshot: one LIST, a GET of it, and GETs at once of up to three that it stands on.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        tenant: TenantId,
        writer: impl Into<String>,
        options: CatalogOptions,
    ) -> Result<Catalog, CatalogError> {
        let newest = Stored::whole(Snapshot::empty(), 0);
        let seen = Seen { newest, at_ms: i64::MIN, lately: VecDeque::new() };
        let catalog = Catalog {
            store,
            tenant,
            writer: writer.into(),
            options,
            seen: Mutex::new(seen),
            committing: tokio::sync::Mutex::new(()),
        };
        catalog.find_newest().await?;
        Ok(catalog)
    }

    /// The tenants that have anything in the store: one LIST.
    pub async fn tenants(store: &dyn ObjectStore) -> Result<Vec<TenantId>, CatalogError> {
        let listed = store.list_with_delimiter(Some(&layout::tenants())).await;
        let listed = listed.map_err(|e| CatalogError::store("cannot list tenants", e))?;
        Ok(listed.common_prefixes.iter().filter_map(layout::tenant_of_folder).collect())
    }

    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// The newest snapshot seen so far; no request.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.seen.lock().newest.snapshot.clone()
    }

    /// A snapshot by its number; `None` where it was pruned, or not written yet.
    pub async fn at(&self, number: u64) -> Result<Option<Snapshot>, CatalogError> {
        let known = self.seen.lock().newest.clone();
        match self.find(number, &known).await? {
            Found::Stored(found) => Ok(Some(Arc::unwrap_or_clone(found.snapshot))),
            // Those that are pruned go one by one, what others stand on first.
            Found::StandsOnNothing(_) if number < known.snapshot.number => Ok(None),
            other => other.or_broken(&self.tenant, number).map(|_| None),
        }
    }

    /// Looks for commits of others: GET of the next number until there is none.
    pub async fn refresh(&self) -> Result<Arc<Snapshot>, CatalogError> {
        let at_ms = self.seen.lock().at_ms;
        let trusted_ms = i64::try_from(self.options.trust_for.as_millis()).unwrap_or(i64::MAX);
        if self.options.clock.now_ms().saturating_sub(at_ms) > trusted_ms {
            return self.find_newest().await;
        }
        let last = self.seen.lock().newest.clone();
        self.follow(last).await
    }

    /// Reads on from a snapshot to the newest.
    async fn follow(&self, mut last: Stored) -> Result<Arc<Snapshot>, CatalogError> {
        while let Some(next) = self.get(last.snapshot.number + 1, &last).await? {
            last = next;
        }
        Ok(self.advance(last))
    }

    /// Makes an edit true, or fails having changed nothing (unless the error says that the outcome is
    /// unknown). Lost races are run again on what won. Returns a snapshot that holds the edit and perhaps
    /// later commits of others.
    pub async fn commit(&self, edit: &Edit) -> Result<Arc<Snapshot>, CatalogError> {
        let _one = self.committing.lock().await;
        self.refresh().await?;
        // Every lost race is another's progress; so many in a row means that something is wrong.
        for _ in 0..1000 {
            let commit = Ulid::new();
            let base = self.seen.lock().newest.clone();
            let next = base.snapshot.apply(edit, &self.writer, commit)?;
            let (text, next) = base.followed_by(next, self.options.changes_from_bytes);
            match self.create(&next, text, &base).await? {
                Created::Ours => {
                    let done = match self.still_there(base.snapshot.number).await? {
                        true => Some(self.advance(next)),
                        // The base was pruned: our number may have existed before and been pruned too. The
                        // newest snapshot's list of commits tells.
                        false => {
                            let newest = self.find_newest().await?;
                            newest.commits.contains(&commit).then_some(newest)
                        }
                    };
                    if let Some(done) = done {
                        if done.number.is_multiple_of(16) {
                            self.prune().await;
                        }
                        return Ok(done);
                    }
                }
                Created::Taken => drop(self.refresh().await?),
            }
        }
        Err(CatalogError::unexpected(format!(
            "commit to the catalog of tenant {} lost 1000 races in a row: does the store keep its word on conditional writes?",
            self.tenant
        )))
    }

    /// Removes snapshots that are both beyond the number kept and older than the time kept, and that none of
    /// those which stay stands on, oldest first. Nothing depends on it, so failures only show in the log.
    pub async fn prune(&self) {
        if let Err(e) = self.try_prune().await {
            tracing::warn!(tenant = %self.tenant, error = %e, "old catalog snapshots could not be removed; will be tried again");
        }
    }

    async fn try_prune(&self) -> Result<(), CatalogError> {
        let store_error =
            |e| CatalogError::store(format!("cannot prune {}", layout::catalog(&self.tenant)), e);
        let listed: Vec<_> =
            self.store.list(Some(&layout::catalog(&self.tenant))).try_collect().await.map_err(store_error)?;
        let mut all: Vec<_> = listed
            .into_iter()
            .filter_map(|o| Some((layout::snapshot_number(&o.location)?, o.last_modified, o.location)))
            .collect();
        all.sort();
        let Some((newest, written, _)) = all.last().cloned() else { return Ok(()) };
        let keep_ms = i64::try_from(self.options.keep_for.as_millis()).unwrap_or(i64::MAX);
        let newest_ms = written.timestamp_millis();
        let stays = |number: u64, written_ms: i64| {
            let old = newest_ms - written_ms >= keep_ms;
            number + self.options.keep_snapshots.max(2) > newest || !old
        };
        let Some(first) =
            all.iter().position(|(number, modified, _)| stays(*number, modified.timestamp_millis()))
        else {
            return Ok(());
        };
        // Whatever is later stands on nothing older than what the first that stays stands on.
        let needed = match first {
            0 => return Ok(()),
            _ => match self.object(all[first].0).await? {
                Some(Object::Changes(changes, _)) => changes.stands_on[0],
                Some(Object::Whole(..)) => all[first].0,
                None => return Ok(()),
            },
        };
        for (_, _, path) in all.into_iter().take(first).take_while(|(number, ..)| *number < needed) {
            // One by one and oldest first: that a snapshot exists must prove that all after it do.
            match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(store_error(e)),
            }
        }
        Ok(())
    }

    /// Creates the object of the snapshot after `base`, or finds that its number is taken.
    async fn create(&self, next: &Stored, text: Vec<u8>, base: &Stored) -> Result<Created, CatalogError> {
        let (number, commit) = (next.snapshot.number, next.snapshot.commit());
        let path = layout::snapshot(&self.tenant, number);
        let payload = PutPayload::from(text);
        let mut backoff = self.backoff();
        let mut attempt = 0;
        loop {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let error = match self.store.put_opts(&path, payload.clone(), options).await {
                Ok(_) => return Ok(Created::Ours),
                Err(
                    e @ (object_store::Error::NotSupported { .. }
                    | object_store::Error::NotImplemented { .. }),
                ) => {
                    return Err(CatalogError::store(
                        format!("the store cannot create {path} conditionally"),
                        e,
                    ));
                }
                Err(e) => e,
            };
            // Refused or unclear: either way what lies there now says who won. A request that seemed to fail
            // may have succeeded, and the client library's own retry of it is then refused because of us.
            attempt += 1;
            match self.get(number, base).await {
                Ok(Some(there)) if there.snapshot.commit() == commit => return Ok(Created::Ours),
                Ok(Some(_)) => return Ok(Created::Taken),
                Ok(None) | Err(_) if attempt < self.options.attempts => {}
                Ok(None) => {
                    let text = format!(
                        "cannot write {path}: {error}; gave up after {attempt} attempts; nothing lies there now, unless a request is still on its way"
                    );
                    return Err(CatalogError::because(text, error));
                }
                Err(e) => {
                    let text = format!(
                        "cannot write {path}: {error}; whether it was written is unknown, because reading it back failed too: {e}"
                    );
                    return Err(CatalogError::because(text, error));
                }
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// The pauses between attempts at one request.
    fn backoff(&self) -> Backoff {
        Backoff::new(self.options.pause, LONGEST_PAUSE)
    }

    /// Whether a snapshot still exists; of the empty one before the first that cannot be told.
    async fn still_there(&self, number: u64) -> Result<bool, CatalogError> {
        if number == 0 {
            return Ok(false);
        }
        let path = layout::snapshot(&self.tenant, number);
        let found = self.retry(|| async {
            match self.store.head(&path).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                Err(e) => Err(e),
            }
        });
        found.await.map_err(|e| CatalogError::store(format!("cannot look for {path}"), e))
    }

    async fn find_newest(&self) -> Result<Arc<Snapshot>, CatalogError> {
        let folder = layout::catalog(&self.tenant);
        let listed: Vec<_> = self
            .retry(|| async { self.store.list(Some(&folder)).try_collect().await })
            .await
            .map_err(|e| CatalogError::store(format!("cannot list {folder}"), e))?;
        let newest = listed
            .iter()
            .filter_map(|o: &object_store::ObjectMeta| layout::snapshot_number(&o.location))
            .max();
        let known = self.seen.lock().newest.clone();
        let mut last = Stored::whole(Snapshot::empty(), 0);
        if let Some(number) = newest {
            last = self.get(number, &known).await?.ok_or_else(|| {
                CatalogError::unexpected(format!(
                    "{} was listed but is not there",
                    layout::snapshot(&self.tenant, number)
                ))
            })?;
        }
        // The listing may be older than the newest commit.
        self.follow(last).await
    }

    /// Takes a snapshot as the newest seen, unless a newer one was seen meanwhile.
    fn advance(&self, to: Stored) -> Arc<Snapshot> {
        let mut seen = self.seen.lock();
        seen.at_ms = self.options.clock.now_ms();
        if to.snapshot.number > seen.newest.snapshot.number {
            seen.newest = to;
        }
        seen.newest.snapshot.clone()
    }

    /// A snapshot by its number; one that stands on what is not there is damaged.
    async fn get(&self, number: u64, known: &Stored) -> Result<Option<Stored>, CatalogError> {
        self.find(number, known).await?.or_broken(&self.tenant, number)
    }

    /// A snapshot, and those that it stands on, which are read at once where they are not known.
    async fn find(&self, number: u64, known: &Stored) -> Result<Found, CatalogError> {
        let (changes, bytes) = match self.object(number).await? {
            None => return Ok(Found::Nothing),
            Some(Object::Whole(snapshot, bytes)) => {
                return Ok(Found::Stored(Stored::whole(*snapshot, bytes)));
            }
            Some(Object::Changes(changes, bytes)) => (changes, bytes),
        };
        let have = |number: u64| {
            let is = |s: &&Arc<Snapshot>| s.number == number;
            let seen = self.seen.lock();
            known.known().find(is).or_else(|| seen.lately.iter().rev().find(is)).cloned()
        };
        let read = changes.stands_on.iter().map(|number| {
            let had = have(*number);
            async move {
                match had {
                    Some(snapshot) => Ok(Ok(snapshot)),
                    None => self.object(*number).await.map(Err),
                }
            }
        });
        let mut path: Vec<Arc<Snapshot>> = Vec::with_capacity(changes.stands_on.len());
        for (number, found) in changes.stands_on.iter().zip(futures::future::try_join_all(read).await?) {
            let object = layout::snapshot(&self.tenant, *number);
            let snapshot = match found {
                Ok(known) => known,
                Err(None) => return Ok(Found::StandsOnNothing(*number)),
                Err(Some(Object::Whole(snapshot, _))) => Arc::from(snapshot),
                Err(Some(Object::Changes(between, bytes))) => {
                    Stored::changed(object.as_ref(), &between, bytes, path.clone())?.snapshot
                }
            };
            path.push(snapshot);
        }
        let object = layout::snapshot(&self.tenant, number);
        let found = Stored::changed(object.as_ref(), &changes, bytes, path)?;
        self.remember(&found.stands_on);
        Ok(Found::Stored(found))
    }

    /// Keeps what others may stand on too.
    fn remember(&self, path: &[Arc<Snapshot>]) {
        let mut seen = self.seen.lock();
        for snapshot in path {
            seen.lately.retain(|s| s.number != snapshot.number);
            seen.lately.push_back(snapshot.clone());
        }
        let over = seen.lately.len().saturating_sub(LATELY);
        seen.lately.drain(..over);
    }

    /// What lies under a snapshot's name.
    async fn object(&self, number: u64) -> Result<Option<Object>, CatalogError> {
        let path = layout::snapshot(&self.tenant, number);
        let understand = |text: &bytes::Bytes| Object::from_json(path.as_ref(), text);
        let read = || small_object::read(&*self.store, &path, understand);
        let found =
            self.retry(read).await.map_err(|e| CatalogError::store(format!("cannot read {path}"), e))?;
        let Some(object) = found.transpose()? else { return Ok(None) };
        if object.number() != number {
            return Err(CatalogError::Corrupt {
                object: path.to_string(),
                what: format!("it says it is snapshot {}", object.number()),
            });
        }
        Ok(Some(object))
    }

    async fn retry<T, F: Future<Output = object_store::Result<T>>>(
        &self,
        request: impl Fn() -> F,
    ) -> object_store::Result<T> {
        let mut backoff = self.backoff();
        for _ in 1..self.options.attempts.max(1) {
            match request().await {
                Ok(found) => return Ok(found),
                Err(
                    e @ (object_store::Error::PermissionDenied { .. }
                    | object_store::Error::Unauthenticated { .. }
                    | object_store::Error::NotSupported { .. }),
                ) => return Err(e),
                Err(_) => tokio::time::sleep(backoff.next_pause()).await,
            }
        }
        request().await
    }
}

impl Found {
    /// What is there, or an error where only a part of it is.
    fn or_broken(self, tenant: &TenantId, number: u64) -> Result<Option<Stored>, CatalogError> {
        match self {
            Found::Stored(found) => Ok(Some(found)),
            Found::Nothing => Ok(None),
            Found::StandsOnNothing(base) => Err(CatalogError::Corrupt {
                object: layout::snapshot(tenant, base).to_string(),
                what: format!(
                    "it is gone, and snapshot {number} is stored as what it changes of it: restore it from a backup"
                ),
            }),
        }
    }
}
