//! Cores shared between tenants: while several ask, those of one compute on its part of the cores only.
//!
//! A thread that computes for a tenant takes a slice of a few milliseconds and asks for the next when it is
//! over, so that the queries of a tenant take turns. Nobody says when he waits for a store: a slice lapses by
//! itself, and whoever else of the tenant computes has it then. Where a single tenant asks nothing of this
//! costs more than a look at a number.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex};

use crate::tenant::TenantId;

/// How long one thread computes before others of its tenant do.
const SLICE: Duration = Duration::from_millis(10);

/// For how long a tenant that asked is expected to ask again. Whoever asks now and then finds a core that is
/// free, and need not wait until one becomes so.
const ASKING: Duration = Duration::from_secs(10);

/// The cores of a process, and who computes on them.
#[derive(Debug)]
pub struct CoreShares {
    cores: usize,
    begun: Instant,
    /// Tenants that asked lately, to be looked at without the lock.
    asking: AtomicUsize,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    tenants: HashMap<TenantId, Tenant>,
    tidied: Instant,
    queries: u64,
}

#[derive(Debug)]
struct Tenant {
    asked: Instant,
    computing: Vec<Slice>,
    /// Numbers of queries whose next slice has to wait; the first is next.
    waiting: VecDeque<u64>,
}

#[derive(Debug)]
struct Slice {
    query: u64,
    until: Instant,
}

/// One query's part in it, which ends when it is dropped.
#[derive(Debug)]
pub struct CoreShare {
    all: Arc<CoreShares>,
    tenant: TenantId,
    query: u64,
    /// When its slice is over, in microseconds since the beginning of `all`; 0: it has none.
    until_us: AtomicU64,
}

impl CoreShares {
    /// Shares of so many cores.
    pub fn new(cores: usize) -> Arc<CoreShares> {
        let begun = Instant::now();
        let state = State { tenants: HashMap::new(), tidied: begun, queries: 0 };
        Arc::new(CoreShares {
            cores: cores.max(1),
            begun,
            asking: AtomicUsize::new(0),
            state: Mutex::new(state),
            freed: Condvar::new(),
        })
    }

    /// Notes that a tenant asks a query now; what the query is given is its part in the cores.
    pub fn enter(self: &Arc<CoreShares>, tenant: &TenantId) -> CoreShare {
        self.enter_at(tenant, Instant::now())
    }

    fn enter_at(self: &Arc<CoreShares>, tenant: &TenantId, now: Instant) -> CoreShare {
        let mut state = self.state.lock();
        if now.duration_since(state.tidied) > ASKING / 10 {
            state.tidied = now;
            state.tenants.retain(|_, t| {
                now.duration_since(t.asked) < ASKING || !t.computing.is_empty() || !t.waiting.is_empty()
            });
        }
        match state.tenants.get_mut(tenant) {
            Some(known) => known.asked = now,
            None => {
                let new = Tenant { asked: now, computing: Vec::new(), waiting: VecDeque::new() };
                state.tenants.insert(tenant.clone(), new);
            }
        }
        self.asking.store(state.tenants.len(), Ordering::Relaxed);
        state.queries += 1;
        let query = state.queries;
        CoreShare { all: self.clone(), tenant: tenant.clone(), query, until_us: AtomicU64::new(0) }
    }

    fn is_shared(&self) -> bool {
        self.asking.load(Ordering::Relaxed) > 1
    }

    /// Threads of one tenant that may compute at once.
    fn share(&self) -> usize {
        (self.cores / self.asking.load(Ordering::Relaxed).max(1)).max(1)
    }
}

impl CoreShare {
    /// To be called by the thread that computes, again and again and without a lock that others need. Waits
    /// for the query's turn where its tenant is not alone, as long as `goes_on`.
    pub fn take_turn(&self, goes_on: impl Fn() -> bool) {
        if !self.all.is_shared() {
            return;
        }
        let now = Instant::now();
        if self.micros(now) < self.until_us.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.all.state.lock();
        let Some(tenant) = state.tenants.get_mut(&self.tenant) else { return };
        tenant.computing.retain(|slice| slice.query != self.query);
        tenant.waiting.push_back(self.query);
        loop {
            let now = Instant::now();
            let share = self.all.share();
            // It is kept as long as somebody waits.
            let Some(tenant) = state.tenants.get_mut(&self.tenant) else { return };
            tenant.computing.retain(|slice| slice.until > now);
            let is_next = tenant.waiting.front() == Some(&self.query) && tenant.computing.len() < share;
            let ends = !goes_on();
            if is_next || ends || !self.all.is_shared() {
                tenant.waiting.retain(|query| *query != self.query);
                if !ends {
                    let until = now + SLICE;
                    tenant.computing.push(Slice { query: self.query, until });
                    self.until_us.store(self.micros(until), Ordering::Relaxed);
                }
                drop(state);
                self.all.freed.notify_all();
                return;
            }
            let lapse = tenant.computing.iter().map(|slice| slice.until).min();
            self.all.freed.wait_until(&mut state, lapse.unwrap_or(now + SLICE));
        }
    }

    /// Whether another thread may compute for the query beside its own.
    pub fn may_have_help(&self) -> bool {
        if !self.all.is_shared() {
            return true;
        }
        let state = self.all.state.lock();
        let busy = state.tenants.get(&self.tenant).map_or(0, |t| {
            let others = t.computing.iter().filter(|slice| slice.query != self.query).count();
            others + t.waiting.len()
        });
        busy + 1 < self.all.share()
    }

    fn micros(&self, at: Instant) -> u64 {
        at.duration_since(self.all.begun).as_micros() as u64
    }
}

impl Drop for CoreShare {
    fn drop(&mut self) {
        if self.until_us.load(Ordering::Relaxed) == 0 {
            return;
        }
        if let Some(tenant) = self.all.state.lock().tenants.get_mut(&self.tenant) {
            tenant.computing.retain(|slice| slice.query != self.query);
        }
        self.all.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    /// Most threads of `noisy` that were between two turns at once, while `others` ask too.
    fn at_once(cores: usize, others: &[&str]) -> usize {
        let all = CoreShares::new(cores);
        let quiet: Vec<_> = others.iter().map(|name| all.enter(&tenant(name))).collect();
        let (computing, most, ended) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|threads| {
            for _ in 0..6 {
                threads.spawn(|| {
                    let share = all.enter(&tenant("noisy"));
                    for _ in 0..20 {
                        share.take_turn(|| true);
                        let now = computing.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        std::thread::yield_now();
                        computing.fetch_sub(1, Ordering::SeqCst);
                    }
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        drop(quiet);
        assert_eq!(ended.load(Ordering::SeqCst), 6, "nobody waits for ever");
        most.load(Ordering::SeqCst)
    }

    #[test]
    fn queries_of_a_tenant_keep_to_its_part_of_the_cores_while_others_ask() {
        assert!(at_once(2, &["quiet"]) <= 1);
        assert!(at_once(4, &["quiet"]) <= 2);
        assert!(at_once(2, &["a", "b", "c"]) <= 1, "one is the least");
    }

    #[test]
    fn slices_lapse_and_pass_to_whoever_waits() {
        let all = CoreShares::new(2);
        let _quiet = all.enter(&tenant("quiet"));
        let waits_for_a_store = all.enter(&tenant("noisy"));
        waits_for_a_store.take_turn(|| true);
        let second = all.enter(&tenant("noisy"));
        assert!(!second.may_have_help() && !waits_for_a_store.may_have_help());
        second.take_turn(|| true);
        assert!(waits_for_a_store.until_us.load(Ordering::Relaxed) <= second.micros(Instant::now()));
    }

    #[test]
    fn query_that_ends_does_not_wait_for_its_turn() {
        let all = CoreShares::new(1);
        let _quiet = all.enter(&tenant("quiet"));
        let first = all.enter(&tenant("noisy"));
        first.take_turn(|| true);
        let (second, goes_on) = (all.enter(&tenant("noisy")), AtomicBool::new(false));
        second.take_turn(|| goes_on.load(Ordering::Relaxed));
        assert_eq!(second.until_us.load(Ordering::Relaxed), 0);
        assert!(all.state.lock().tenants[&tenant("noisy")].waiting.is_empty());
    }

    #[test]
    fn tenant_that_is_alone_has_all_cores_and_one_that_left_is_forgotten() {
        let all = CoreShares::new(4);
        let first = all.enter(&tenant("noisy"));
        first.take_turn(|| panic!("nobody is asked"));
        assert!(first.may_have_help());
        drop(all.enter(&tenant("quiet")));
        assert!(all.is_shared() && all.share() == 2);
        drop(all.enter_at(&tenant("noisy"), Instant::now() + 2 * ASKING));
        assert!(!all.is_shared() && all.share() == 4);
    }
}
