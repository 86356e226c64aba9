//! The members that hold what is not in the bucket yet, as one process knows them, beside the catalogs of
//! the bucket.
//!
//! Two things must hold whatever happens in between. A member that began to take samples before a query is
//! known to it: a new one waits until everybody has read the roster again ([`NEWCOMERS_WAIT`]), and a roster
//! that could not be read for as long is not believed ([`KnownMembers::is_stale`]). And what a member
//! withdrew its record for is in the catalogs that a query reads: whoever finds a debt gone reads the
//! catalogs before it believes that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::clock::Clock;
use model::source::SourceError;
use model::tenant::TenantId;
use object_store::ObjectStore;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tsdb::bucket::reader::BucketReader;
use tsdb::catalog::{CatalogError, Snapshot};

use crate::addresses::Addresses;
use crate::ask::Transport;
use crate::roster::{self, Member, RosterError, Seen};

/// Intervals that a new member waits before it takes samples, and for which a roster is believed.
pub const NEWCOMERS_WAIT: u32 = 2;

/// Who takes part, as the roster said last.
pub struct KnownMembers {
    /// When that was read, by a clock that nobody sets.
    read: Instant,
    members: BTreeMap<String, Seen>,
    interval: Duration,
}

impl KnownMembers {
    /// Members that hold, or may hold, samples of their own, by name.
    pub fn owing(&self) -> impl Iterator<Item = &Member> {
        self.members.values().map(|seen| &seen.member).filter(|m| m.owes)
    }

    /// How long ago it was read, where that is too long: a member that came since may be missing.
    pub fn is_stale(&self) -> Option<Duration> {
        let age = self.read.elapsed();
        (age > self.interval * NEWCOMERS_WAIT).then_some(age)
    }

    /// Whether it was read after a moment.
    pub fn read_since(&self, moment: Instant) -> bool {
        self.read >= moment
    }

    /// Whether a member holds no sample up to a time, in milliseconds, by its own word.
    pub fn owes_nothing_to(&self, name: &str, last_ms: i64) -> bool {
        let from_ms = self.members.get(name).and_then(|seen| seen.member.owes_from_ms);
        from_ms.is_some_and(|from_ms| from_ms > last_ms)
    }

    /// All members, by name.
    pub fn all(&self) -> impl Iterator<Item = &Seen> {
        self.members.values()
    }
}

/// What a process needs to know others.
pub struct Options {
    pub store: Arc<dyn ObjectStore>,
    pub reader: Arc<BucketReader>,
    pub transport: Arc<dyn Transport>,
    pub clock: Arc<dyn Clock>,
    /// How often the roster is read.
    pub interval: Duration,
    /// Addresses of members, in the place of those in the roster.
    pub addresses: Addresses,
    /// How long a member is waited for that another of its replica group has answered for.
    pub hedge_delay: Duration,
}

/// See the module. Share it behind an `Arc`.
pub struct Ingesters {
    options: Options,
    runtime: Handle,
    known: RwLock<Arc<KnownMembers>>,
    /// Why the roster could not be read last.
    failed: Mutex<Option<String>>,
    refreshing: tokio::sync::Mutex<()>,
}

/// Why who takes part, or what is stored, could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    #[error(transparent)]
    Roster(#[from] RosterError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl Ingesters {
    /// Reads the roster, and then the catalogs again: what somebody withdrew before is in them. Runs on a
    /// tokio runtime, which it keeps using.
    pub async fn open(options: Options) -> Result<Arc<Ingesters>, RefreshError> {
        let known = read(&options).await?;
        options.reader.refresh().await?;
        Ok(Arc::new(Ingesters {
            runtime: Handle::current(),
            known: RwLock::new(Arc::new(known)),
            failed: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
            options,
        }))
    }

    /// Reads the roster; where a debt is gone, the catalogs before that counts.
    pub async fn refresh(&self) -> Result<(), RefreshError> {
        self.refresh_since(Instant::now()).await
    }

    /// The same, unless the roster was read since a moment: of many that ask at once, one does it.
    async fn refresh_since(&self, moment: Instant) -> Result<(), RefreshError> {
        let _one = self.refreshing.lock().await;
        if self.known().read >= moment {
            return Ok(());
        }
        let refreshed = self.refresh_locked().await;
        *self.failed.lock() = refreshed.as_ref().err().map(ToString::to_string);
        refreshed
    }

    async fn refresh_locked(&self) -> Result<(), RefreshError> {
        let known = read(&self.options).await?;
        let before = self.known();
        // Less is owed where the rest was committed: what is read from now on has it.
        let owes_as_much = |m: &Member| {
            known.members.get(&m.name).is_some_and(|now| {
                now.member.owes
                    && now.member.owes_from_ms.unwrap_or(i64::MIN) <= m.owes_from_ms.unwrap_or(i64::MIN)
            })
        };
        if before.owing().any(|m| !owes_as_much(m)) {
            self.options.reader.refresh().await?;
        }
        let all: Vec<Seen> = known.members.values().cloned().collect();
        *self.known.write() = Arc::new(known);
        roster::sweep(&*self.options.store, &all).await;
        Ok(())
    }

    /// Follows roster and catalogs for ever; `catalogs` is how often the latter are read.
    pub async fn follow(self: Arc<Self>, catalogs: Duration) {
        let mut next = Instant::now() + catalogs;
        loop {
            tokio::time::sleep(self.options.interval).await;
            if let Err(e) = self.refresh().await {
                tracing::warn!("who takes part could not be read, it is tried again: {e}");
            }
            if Instant::now() >= next {
                next = Instant::now() + catalogs;
                if let Err(e) = self.options.reader.refresh().await {
                    tracing::warn!(
                        "the catalog could not be read again, answers go on with what is known: {e}"
                    );
                }
            }
        }
    }

    /// Who takes part, as it is known now.
    pub fn known(&self) -> Arc<KnownMembers> {
        self.known.read().clone()
    }

    /// Why the roster could not be read last.
    pub fn failure(&self) -> Option<String> {
        self.failed.lock().clone()
    }

    pub fn reader(&self) -> &Arc<BucketReader> {
        &self.options.reader
    }

    pub fn transport(&self) -> &dyn Transport {
        &*self.options.transport
    }

    pub fn hedge_delay(&self) -> Duration {
        self.options.hedge_delay
    }

    pub fn clock(&self) -> &dyn Clock {
        &*self.options.clock
    }

    /// Where a member is reached.
    pub fn address(&self, member: &Member) -> String {
        let known = self.options.addresses.of(&member.name);
        known.as_deref().unwrap_or(&member.address).trim_end_matches('/').to_owned()
    }

    /// Where members are that are not where they say.
    pub fn addresses(&self) -> &Addresses {
        &self.options.addresses
    }

    /// Asks everybody at URLs that were found who they are, and reaches them there from now on.
    pub async fn meet(&self, urls: &[String]) {
        self.options.addresses.meet(urls, self.transport()).await;
    }

    /// Looks again who takes part, because one did not answer; whether a debt of `known` is gone since.
    /// Blocks.
    pub fn look_again(self: &Arc<Self>, known: &KnownMembers) -> Result<bool, SourceError> {
        let (ingesters, asked) = (self.clone(), Instant::now());
        let before: Vec<String> = known.owing().map(|m| self.address(m)).collect();
        let refreshed = self.wait(async move {
            let addresses = ingesters.options.addresses.meet_again(asked, ingesters.transport());
            futures::join!(ingesters.refresh_since(asked), addresses).0
        })?;
        if let Err(e) = refreshed {
            tracing::debug!("who takes part could not be read: {e}");
        }
        let now = self.known();
        let same = |(m, before): (&Member, &String)| {
            let seen = now.members.get(&m.name).map(|seen| &seen.member);
            seen.is_some_and(|now| now.owes && self.address(now) == *before)
        };
        Ok(!known.owing().zip(&before).all(same))
    }

    /// A snapshot of a tenant that is at least as new as its number. Blocks.
    pub fn newer(
        self: &Arc<Self>,
        tenant: &TenantId,
        number: u64,
    ) -> Result<Option<Arc<Snapshot>>, SourceError> {
        let (reader, of) = (self.options.reader.clone(), tenant.clone());
        let read = self.wait(async move { reader.refresh_tenant(&of).await })?;
        let snapshot = read.map_err(SourceError::storage)?;
        Ok((snapshot.number >= number).then_some(snapshot))
    }

    /// Reads a tenant's catalog again, beside all else.
    pub fn refresh_soon(self: &Arc<Self>, tenant: &TenantId) {
        let (reader, tenant) = (self.options.reader.clone(), tenant.clone());
        self.runtime.spawn(async move {
            if let Err(e) = reader.refresh_tenant(&tenant).await {
                tracing::debug!("a catalog could not be read again: {e}");
            }
        });
    }

    /// Runs something on the runtime while this thread waits.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, SourceError> {
        let (done, result) = std::sync::mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            let _ = done.send(work.await);
        });
        result.recv().map_err(|_| SourceError::storage("the server is stopping"))
    }
}

async fn read(options: &Options) -> Result<KnownMembers, RosterError> {
    let read = Instant::now();
    let members = roster::read_all(&*options.store).await?;
    let members = members.into_iter().map(|seen| (seen.member.name.clone(), seen)).collect();
    Ok(KnownMembers { read, members, interval: options.interval })
}
