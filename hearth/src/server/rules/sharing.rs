//! This process as one of several that share the groups: it shows that it lives, takes the shares that are
//! free, and gives away what it has too many of.
//!
//! Three times a lease a *round* writes what the process came to with its groups, reads the table, takes the
//! planner's step ([`rules::group::sharing::step`]) and writes the next table. A process may evaluate its
//! groups for one lease from the beginning of a round that worked, by a clock that does not jump, and by the
//! wall clock too, which goes on where a machine sleeps. Then it asks again first: one that was paused finds
//! that others have gone on. Only while the store itself does not answer, so that nobody can take over
//! either, it goes on without: an evaluation that is made twice is stored once, one that is not made is a
//! hole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use model::clock::Clock;
use parking_lot::{Mutex, RwLock};
use rules::group::handover::{States, newest};
use rules::group::sharing::{self, Table, Watch, share_of};
use rules::group::{GroupKey, Ownership};
use rules::metrics::Metrics;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::peers::Peers;
use super::share_store::{ShareError, ShareStore};

/// Rounds in a lease.
const ROUNDS: u32 = 3;

/// How often a step is taken anew because another member was faster.
const ATTEMPTS: usize = 32;

/// What this process may evaluate, and until when.
struct Lease {
    shares: BTreeSet<u16>,
    until: Instant,
    until_ms: i64,
}

/// What this process holds of the shares, and the rounds by which it holds them.
pub struct Sharing {
    store: ShareStore,
    me: String,
    url: String,
    lease: Duration,
    clock: Arc<dyn Clock>,
    held: RwLock<Lease>,
    /// Shares whose groups are to run, which those of the last finished reload are not yet.
    wanted: Mutex<BTreeSet<u16>>,
    /// Shares whose groups run.
    applied: Mutex<BTreeSet<u16>>,
    /// Own shares whose groups are being stopped, to be given away.
    releasing: Mutex<BTreeSet<u16>>,
    /// Whether the last reload could not be carried out.
    undone: AtomicBool,
    table: Mutex<Table>,
    /// What other members said of their groups last.
    others: RwLock<BTreeMap<String, States>>,
    peers: Peers,
    metrics: Metrics,
    stop: watch::Sender<bool>,
}

/// Why a round did not work.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Store(#[from] ShareError),
    #[error("other members were faster {ATTEMPTS} times")]
    Raced,
    #[error("not done within a lease")]
    TimedOut,
}

/// What is kept between rounds.
struct Rounds {
    started: Instant,
    watch: Watch,
    /// The newest table, and when the round began that read it.
    known: Option<(Instant, u64, Table)>,
    failures: u32,
    /// The reload at work.
    applying: Option<JoinHandle<()>>,
}

impl Sharing {
    /// `me` is the name of the data folder, `url` where other members reach this process.
    pub fn new(
        store: ShareStore,
        me: &str,
        url: String,
        lease: Duration,
        clock: Arc<dyn Clock>,
        peers: Peers,
        metrics: Metrics,
    ) -> Sharing {
        let held = Lease { shares: BTreeSet::new(), until: Instant::now(), until_ms: i64::MIN };
        Sharing {
            store,
            me: me.to_owned(),
            url,
            lease,
            clock,
            held: RwLock::new(held),
            wanted: Mutex::default(),
            applied: Mutex::default(),
            releasing: Mutex::default(),
            undone: AtomicBool::new(false),
            table: Mutex::default(),
            others: RwLock::default(),
            peers,
            metrics,
            stop: watch::Sender::new(false),
        }
    }

    /// Shares whose groups are to run here.
    pub fn wanted(&self) -> BTreeSet<u16> {
        self.wanted.lock().clone()
    }

    /// Notes that exactly the groups of these shares run.
    pub fn applied(&self, shares: BTreeSet<u16>) {
        *self.applied.lock() = shares;
    }

    /// A reload could not be carried out: it is tried again with the next round.
    pub fn not_applied(&self) {
        self.undone.store(true, Ordering::Relaxed);
    }

    /// How far groups came wherever they ran, this process' former self included.
    pub async fn known_states(&self) -> Result<States, ShareError> {
        let table = self.table.lock().clone();
        Ok(newest(self.store.all_states(&table).await?.into_values()))
    }

    /// What other members said of their groups last.
    pub fn states_of_others(&self) -> States {
        newest(self.others.read().values().cloned())
    }

    /// Takes part until it is stopped. `states` says how far the groups here are, `apply` makes the groups of
    /// [`Sharing::wanted`] those that run.
    pub async fn run<F>(self: Arc<Self>, states: impl Fn() -> States, apply: impl Fn() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut stopped = self.stop.subscribe();
        let mut rounds = Rounds {
            started: Instant::now(),
            watch: Watch::default(),
            known: None,
            failures: 0,
            applying: None,
        };
        loop {
            let begun = Instant::now();
            let round = tokio::time::timeout(self.lease, self.round(&mut rounds, begun, &states));
            let outcome = round.await.unwrap_or(Err(RoundError::TimedOut));
            let pause = self.after(&mut rounds, outcome);
            let idle = rounds.applying.as_ref().is_none_or(JoinHandle::is_finished);
            let moved = *self.wanted.lock() != *self.applied.lock();
            if idle && (self.undone.swap(false, Ordering::Relaxed) || moved) {
                rounds.applying = Some(tokio::spawn(apply()));
            }
            tokio::select! {
                () = tokio::time::sleep(pause.saturating_sub(begun.elapsed())) => {}
                _ = stopped.wait_for(|stop| *stop) => break,
            }
        }
        if let Some(applying) = rounds.applying {
            let _ = applying.await;
        }
    }

    /// Ends taking part; groups must not be evaluated any more. What they came to is for others to go on
    /// from.
    pub async fn leave(&self, states: &States) {
        let left = async {
            self.store.put_states(&self.me, states).await?;
            for _ in 0..ATTEMPTS {
                let (number, table) = self.store.latest(None).await?;
                if self.store.create(number + 1, &sharing::leave(&table, &self.me)).await? {
                    return Ok(());
                }
            }
            Err(RoundError::Raced)
        };
        let left = tokio::time::timeout(self.lease, left).await.unwrap_or(Err(RoundError::TimedOut));
        if let Err(e) = left {
            tracing::warn!("groups were not given back, others take them in {:?}: {e}", self.lease);
        }
    }

    /// No more rounds.
    pub fn stop(&self) {
        let _ = self.stop.send(true);
    }

    async fn round(
        &self,
        rounds: &mut Rounds,
        begun: Instant,
        states: &impl Fn() -> States,
    ) -> Result<(), RoundError> {
        let begun_ms = self.clock.now_ms();
        self.store.put_states(&self.me, &states()).await?;
        let recent = rounds.known.take().filter(|(read, ..)| read.elapsed() < self.lease);
        let mut known = recent.map(|(_, number, table)| (number, table));
        for _ in 0..ATTEMPTS {
            let (number, table) = self.store.latest(known.take()).await?;
            let patience = self.lease + self.lease / 4;
            let gone = rounds.watch.gone(&table, &self.me, rounds.started.elapsed(), patience);
            let released: BTreeSet<u16> =
                self.releasing.lock().difference(&self.applied.lock()).copied().collect();
            let step = sharing::step(&table, &self.me, &self.url, &gone, &released);
            if self.store.create(number + 1, &step.table).await? {
                for name in gone {
                    tracing::info!(member = name, "shows no life: its groups are taken over");
                }
                self.took(&step, begun, begun_ms);
                rounds.known = Some((begun, number + 1, step.table.clone()));
                self.read_others(&step.table).await;
                return Ok(());
            }
            known = Some((number, table));
        }
        Err(RoundError::Raced)
    }

    /// Puts a step in force that was written.
    fn took(&self, step: &sharing::Step, begun: Instant, begun_ms: i64) {
        let owned = step.table.shares_of(&self.me);
        self.metrics.shares.set(owned.len() as i64);
        self.metrics.share_members.set(step.table.members.len() as i64);
        *self.releasing.lock() = step.release.clone();
        *self.wanted.lock() = owned.difference(&step.release).copied().collect();
        let lease_ms = i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX);
        *self.held.write() =
            Lease { shares: owned, until: begun + self.lease, until_ms: begun_ms.saturating_add(lease_ms) };
        let others = step.table.members.iter().filter(|(name, _)| **name != self.me);
        self.peers.set(others.map(|(_, member)| member.url.clone()).filter(|url| !url.is_empty()).collect());
        *self.table.lock() = step.table.clone();
    }

    async fn read_others(&self, table: &Table) {
        let mut read = BTreeMap::new();
        for member in table.members.keys().filter(|name| **name != self.me) {
            match self.store.states_of(member).await {
                Ok(states) => drop(read.insert(member.clone(), states)),
                Err(e) => tracing::debug!("what {member} says of its groups is shown as it was: {e}"),
            }
        }
        let mut others = self.others.write();
        others.retain(|name, _| table.members.contains_key(name));
        others.extend(read);
    }

    /// Draws the conclusions of a round; the pause from its beginning to that of the next.
    fn after(&self, rounds: &mut Rounds, outcome: Result<(), RoundError>) -> Duration {
        let Err(e) = outcome else {
            rounds.failures = 0;
            return self.lease / ROUNDS;
        };
        rounds.failures += 1;
        self.metrics.share_failures.inc();
        tracing::warn!("the table of who evaluates which rules could not be renewed: {e}");
        // A single failure may be the end of a pause of this process, which the next round will tell.
        if rounds.failures > 1 {
            let mut held = self.held.write();
            held.until = Instant::now() + 2 * self.lease;
            held.until_ms = i64::MAX;
        }
        self.lease / ROUNDS / 4
    }
}

impl Ownership for Sharing {
    fn holds(&self, key: &GroupKey) -> bool {
        let held = self.held.read();
        held.shares.contains(&share_of(key))
            && Instant::now() < held.until
            && self.clock.now_ms() < held.until_ms
    }
}
