//! Which blocks exist: numbered snapshots written with create-if-absent, so that a commit either wins or is
//! applied again to what won.
//!
//! The only thing asked of the store is that of several writers creating one key exactly one succeeds;
//! [`probe`] finds out whether it keeps that promise. No object is ever changed after it was created, so a
//! reader's snapshot stays true for as long as its blocks exist, and they are removed only long after the
//! last snapshot that names them. For stores that do not keep it, [`arrange`] puts something before them that
//! does.

mod arrange;
mod claims;
mod create;
mod error;
pub mod lease;
mod owner;
mod probe;
mod snapshot;

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

/// Longest pause between two attempts at one request.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

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
    snapshot: Arc<Snapshot>,
    at_ms: i64,
}

/// What became of one attempt to create a snapshot.
enum Created {
    Ours,
    Taken,
}

impl Catalog {
    /// Finds the newest snapshot: one LIST and one GET.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        tenant: TenantId,
        writer: impl Into<String>,
        options: CatalogOptions,
    ) -> Result<Catalog, CatalogError> {
        let seen = Seen { snapshot: Arc::new(Snapshot::empty()), at_ms: i64::MIN };
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
        self.seen.lock().snapshot.clone()
    }

    /// A snapshot by its number; `None` where it was pruned, or not written yet.
    pub async fn at(&self, number: u64) -> Result<Option<Snapshot>, CatalogError> {
        self.get(number).await
    }

    /// Looks for commits of others: GET of the next number until there is none.
    pub async fn refresh(&self) -> Result<Arc<Snapshot>, CatalogError> {
        let at_ms = self.seen.lock().at_ms;
        let trusted_ms = i64::try_from(self.options.trust_for.as_millis()).unwrap_or(i64::MAX);
        if self.options.clock.now_ms().saturating_sub(at_ms) > trusted_ms {
            return self.find_newest().await;
        }
        let mut last = self.snapshot();
        while let Some(next) = self.get(last.number + 1).await? {
            last = Arc::new(next);
        }
        Ok(self.advance(last))
    }

    /// Makes an edit true, or fails having changed nothing (unless the error says that the outcome is
    /// unknown). Lost races are run again on what won. Returns a snapshot that holds the edit and perhaps
    /// later commits of others.
    pub async fn commit(&self, edit: &Edit) -> Result<Arc<Snapshot>, CatalogError> {
        let _one = self.committing.lock().await;
        let mut base = self.refresh().await?;
        // Every lost race is another's progress; so many in a row means that something is wrong.
        for _ in 0..1000 {
            let commit = Ulid::new();
            let next = base.apply(edit, &self.writer, commit)?;
            match self.create(&next).await? {
                Created::Ours => {
                    let done = match self.still_there(base.number).await? {
                        true => Some(Arc::new(next)),
                        // The base was pruned: our number may have existed before and been pruned too. The
                        // newest snapshot's list of commits tells.
                        false => {
                            let newest = self.find_newest().await?;
                            newest.commits.contains(&commit).then_some(newest)
                        }
                    };
                    if let Some(done) = done {
                        let done = self.advance(done);
                        if done.number.is_multiple_of(16) {
                            self.prune().await;
                        }
                        return Ok(done);
                    }
                    base = self.snapshot();
                }
                Created::Taken => base = self.refresh().await?,
            }
        }
        Err(CatalogError::unexpected(format!(
            "commit to the catalog of tenant {} lost 1000 races in a row: does the store keep its word on conditional writes?",
            self.tenant
        )))
    }

    /// Removes snapshots that are both beyond the number kept and older than the time kept, oldest first.
    /// Nothing depends on it, so failures only show in the log.
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
        for (number, modified, path) in all {
            let old = (written - modified).num_milliseconds() >= keep_ms;
            if number + self.options.keep_snapshots.max(2) > newest || !old {
                break;
            }
            // One by one and oldest first: that a snapshot exists must prove that all after it do.
            match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(store_error(e)),
            }
        }
        Ok(())
    }

    /// Creates the object of a snapshot, or finds that its number is taken.
    async fn create(&self, next: &Snapshot) -> Result<Created, CatalogError> {
        let path = layout::snapshot(&self.tenant, next.number);
        let payload = PutPayload::from(next.to_json());
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
            match self.get(next.number).await {
                Ok(Some(there)) if there.commit() == next.commit() => return Ok(Created::Ours),
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
        Ok(number > 0 && self.get(number).await?.is_some())
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
        let mut last = Arc::new(Snapshot::empty());
        if let Some(number) = newest {
            let found = self.get(number).await?;
            last = Arc::new(found.ok_or_else(|| {
                CatalogError::unexpected(format!(
                    "{} was listed but is not there",
                    layout::snapshot(&self.tenant, number)
                ))
            })?);
        }
        // The listing may be older than the newest commit.
        while let Some(next) = self.get(last.number + 1).await? {
            last = Arc::new(next);
        }
        Ok(self.advance(last))
    }

    /// Takes a snapshot as the newest seen, unless a newer one was seen meanwhile.
    fn advance(&self, to: Arc<Snapshot>) -> Arc<Snapshot> {
        let mut seen = self.seen.lock();
        seen.at_ms = self.options.clock.now_ms();
        if to.number > seen.snapshot.number {
            seen.snapshot = to;
        }
        seen.snapshot.clone()
    }

    async fn get(&self, number: u64) -> Result<Option<Snapshot>, CatalogError> {
        let path = layout::snapshot(&self.tenant, number);
        let understand = |text: &bytes::Bytes| Snapshot::from_json(path.as_ref(), text);
        let read = || small_object::read(&*self.store, &path, understand);
        let found =
            self.retry(read).await.map_err(|e| CatalogError::store(format!("cannot read {path}"), e))?;
        let Some(snapshot) = found else { return Ok(None) };
        let snapshot = snapshot?;
        if snapshot.number != number {
            return Err(CatalogError::Corrupt {
                object: path.to_string(),
                what: format!("it says it is snapshot {}", snapshot.number),
            });
        }
        Ok(Some(snapshot))
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
