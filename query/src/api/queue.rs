//! Whose turn it is: queries wait in a queue of their tenant, and tenants take turns.
//!
//! A turn goes to the tenants in a circle, so that thousands of one tenant's queries do not hold up the one
//! of another. Within a tenant those of recent times and those that reach far back wait apart and take turns
//! too. Some permits are never given to queries that reach far back, and some never to a tenant that is not
//! alone: what is short and recent, and whoever comes new, finds a place without waiting for what takes
//! minutes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::tenant::TenantId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// For how long a tenant that was here leaves room to others.
const LATELY: Duration = Duration::from_secs(60);

/// What a tenant may in a queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueBounds {
    /// Turns it may have at once; 0 for as many as there are.
    pub max_running: u64,
    /// Requests that may wait; 0 for any number.
    pub max_waiting: u64,
}

impl QueueBounds {
    /// Turns that a tenant may have at once, whoever else is there.
    fn max_running(self) -> usize {
        match self.max_running {
            0 => usize::MAX,
            n => usize::try_from(n).unwrap_or(usize::MAX),
        }
    }
}

/// The tenant has as many waiting as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull {
    pub waiting: u64,
}

/// Whose a turn is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub tenant: TenantId,
    /// It reaches far back.
    pub long: bool,
}

/// A number of turns, and who waits for one.
pub struct Queue(Mutex<State>);

/// The right to run, until it is dropped.
pub struct Turn {
    queue: Arc<Queue>,
    place: Place,
}

struct State {
    turns: usize,
    running: usize,
    running_long: usize,
    tenants: HashMap<TenantId, Waiting>,
    /// Tenants with somebody waiting; the first is next.
    circle: VecDeque<TenantId>,
    tickets: u64,
    /// The tenant that came last, and the last that was another one.
    lately: [Option<(TenantId, Instant)>; 2],
}

/// A tenant that has turns or waits for some.
#[derive(Default)]
struct Waiting {
    running: usize,
    max_running: usize,
    recent: VecDeque<Waiter>,
    long: VecDeque<Waiter>,
    /// The next turn is for one that reaches far back, if there is any.
    long_is_next: bool,
}

struct Waiter {
    ticket: u64,
    /// The turn goes this way; whoever waits may be gone.
    turn: oneshot::Sender<Turn>,
}

impl Waiting {
    fn count(&self) -> usize {
        self.recent.len() + self.long.len()
    }
}

impl Queue {
    pub fn new(turns: usize) -> Arc<Queue> {
        Arc::new(Queue(Mutex::new(State {
            turns: turns.max(1),
            running: 0,
            running_long: 0,
            tenants: HashMap::new(),
            circle: VecDeque::new(),
            tickets: 0,
            lately: [None, None],
        })))
    }

    /// Waits for a turn. Dropping the future leaves the queue.
    pub async fn turn(self: &Arc<Queue>, place: Place, bounds: QueueBounds) -> Result<Turn, QueueFull> {
        let (ticket, turn) = self.enter(&place, bounds, Instant::now())?;
        let _left = Leave { queue: self, place: &place, ticket };
        // The queue lives as long as whoever waits in it, so the sender is never dropped before it sent.
        turn.await.map_err(|_| QueueFull { waiting: bounds.max_waiting })
    }

    /// A turn where nobody has to be waited for; `None`: somebody has.
    pub fn turn_at_once(self: &Arc<Queue>, place: Place, bounds: QueueBounds) -> Option<Turn> {
        let mut state = self.0.lock();
        let now = Instant::now();
        state.note(&place.tenant, now);
        // Whoever of another tenant waits could not have this turn: it would have been handed out.
        let own_waits = state.tenants.get(&place.tenant).is_some_and(|t| t.count() > 0);
        if own_waits || !state.fits(&place, bounds, now) {
            return None;
        }
        let tenant = state.tenants.entry(place.tenant.clone()).or_default();
        tenant.max_running = bounds.max_running();
        tenant.running += 1;
        state.running += 1;
        state.running_long += usize::from(place.long);
        drop(state);
        Some(Turn { queue: self.clone(), place })
    }

    fn enter(
        self: &Arc<Queue>,
        place: &Place,
        bounds: QueueBounds,
        now: Instant,
    ) -> Result<(u64, oneshot::Receiver<Turn>), QueueFull> {
        let mut state = self.0.lock();
        state.note(&place.tenant, now);
        state.tickets += 1;
        let ticket = state.tickets;
        let tenant = state.tenants.entry(place.tenant.clone()).or_default();
        if bounds.max_waiting > 0 && tenant.count() as u64 >= bounds.max_waiting {
            return Err(QueueFull { waiting: tenant.count() as u64 });
        }
        tenant.max_running = bounds.max_running();
        let (turn, wait) = oneshot::channel();
        let is_first = tenant.count() == 0;
        let lane = if place.long { &mut tenant.long } else { &mut tenant.recent };
        lane.push_back(Waiter { ticket, turn });
        if is_first {
            state.circle.push_back(place.tenant.clone());
        }
        self.hand_out(state, now);
        Ok((ticket, wait))
    }

    /// Gives out what turns there are. They are sent without the lock: one whose receiver has gone comes back
    /// at once.
    fn hand_out(self: &Arc<Queue>, mut state: parking_lot::MutexGuard<'_, State>, now: Instant) {
        let mut given = Vec::new();
        while let Some((place, turn)) = state.next(now) {
            given.push((Turn { queue: self.clone(), place }, turn));
        }
        drop(state);
        for (turn, to) in given {
            let _ = to.send(turn);
        }
    }
}

impl State {
    fn note(&mut self, tenant: &TenantId, now: Instant) {
        let last = self.lately[0].replace((tenant.clone(), now));
        if last.as_ref().is_some_and(|(before, _)| before != tenant) {
            self.lately[1] = last;
        }
    }

    /// Whether another tenant has been here lately.
    fn is_alone(&self, tenant: &TenantId, now: Instant) -> bool {
        let other = |(who, at): &(TenantId, Instant)| who != tenant && now.duration_since(*at) < LATELY;
        !self.lately.iter().flatten().any(other)
    }

    /// Turns that stay free for others: a quarter, and none where there are only a few.
    fn reserve(&self) -> usize {
        self.turns / 4
    }

    /// Turns that a tenant may have while others ask or not.
    fn share(&self, tenant: &TenantId, now: Instant) -> usize {
        if self.is_alone(tenant, now) { self.turns } else { self.turns - self.reserve() }
    }

    /// Whether one more that reaches far back may run.
    fn long_fits(&self) -> bool {
        self.running_long < self.turns - self.reserve()
    }

    /// Whether there is a turn for somebody new.
    fn fits(&self, place: &Place, bounds: QueueBounds, now: Instant) -> bool {
        let running = self.tenants.get(&place.tenant).map_or(0, |t| t.running);
        self.running < self.turns
            && running < self.share(&place.tenant, now).min(bounds.max_running())
            && (!place.long || self.long_fits())
    }

    /// Takes the next one out of the queues, and counts it as running.
    fn next(&mut self, now: Instant) -> Option<(Place, oneshot::Sender<Turn>)> {
        if self.running >= self.turns {
            return None;
        }
        for _ in 0..self.circle.len() {
            let id = self.circle.pop_front()?;
            let (share, long_fits) = (self.share(&id, now), self.long_fits());
            let Some(tenant) = self.tenants.get_mut(&id) else { continue };
            let fits = tenant.running < share.min(tenant.max_running);
            let found = if fits { tenant.pick(long_fits) } else { None };
            if tenant.count() > 0 {
                self.circle.push_back(id.clone());
            }
            if let Some((long, waiter)) = found {
                tenant.running += 1;
                self.running += 1;
                self.running_long += usize::from(long);
                return Some((Place { tenant: id, long }, waiter.turn));
            }
        }
        None
    }

    /// Forgets a tenant of whom there is nothing.
    fn tidy(&mut self, tenant: &TenantId) {
        let gone = self.tenants.get(tenant).is_some_and(|t| t.running == 0 && t.count() == 0);
        if gone {
            self.tenants.remove(tenant);
            self.circle.retain(|t| t != tenant);
        }
    }
}

impl Waiting {
    /// The tenant's next, and whether it reaches far back.
    fn pick(&mut self, long_fits: bool) -> Option<(bool, Waiter)> {
        let long = long_fits && !self.long.is_empty() && (self.long_is_next || self.recent.is_empty());
        let lane = if long { &mut self.long } else { &mut self.recent };
        let waiter = lane.pop_front()?;
        self.long_is_next = !long;
        Some((long, waiter))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.queue.0.lock();
        state.running -= 1;
        state.running_long -= usize::from(self.place.long);
        if let Some(tenant) = state.tenants.get_mut(&self.place.tenant) {
            tenant.running -= 1;
        }
        state.tidy(&self.place.tenant);
        self.queue.hand_out(state, Instant::now());
    }
}

/// Takes one who no longer waits out of the queue.
struct Leave<'a> {
    queue: &'a Arc<Queue>,
    place: &'a Place,
    ticket: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.0.lock();
        let Some(tenant) = state.tenants.get_mut(&self.place.tenant) else { return };
        let lane = if self.place.long { &mut tenant.long } else { &mut tenant.recent };
        // Tickets ascend within a lane.
        let Ok(at) = lane.binary_search_by_key(&self.ticket, |w| w.ticket) else { return };
        lane.remove(at);
        if tenant.count() == 0 {
            state.circle.retain(|t| *t != self.place.tenant);
        }
        state.tidy(&self.place.tenant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(tenant: &str, long: bool) -> Place {
        Place { tenant: TenantId::new(tenant).unwrap(), long }
    }

    const ANY: QueueBounds = QueueBounds { max_running: 0, max_waiting: 0 };

    /// Somebody waiting, with a name.
    type Named = (String, oneshot::Receiver<Turn>);

    fn enter(queue: &Arc<Queue>, tenant: &str, long: bool, bounds: QueueBounds) -> Named {
        let (_, turn) = queue.enter(&place(tenant, long), bounds, Instant::now()).unwrap();
        (format!("{tenant}{}", if long { " long" } else { "" }), turn)
    }

    /// Who gets the turns when one after the other is given back, one at a time.
    fn order(mut waiting: Vec<Named>, first: Turn) -> Vec<String> {
        let mut order = Vec::new();
        let mut held = Some(first);
        while let Some(turn) = held.take() {
            drop(turn);
            waiting.retain_mut(|(name, turn)| match turn.try_recv() {
                Ok(turn) => {
                    order.push(name.clone());
                    held = Some(turn);
                    false
                }
                Err(_) => true,
            });
        }
        assert!(waiting.is_empty(), "{} never had a turn", waiting.len());
        order
    }

    #[test]
    fn queue_gives_tenants_turns_in_a_circle_however_many_one_has_waiting() {
        let queue = Queue::new(1);
        let (_, mut first) = enter(&queue, "noisy", false, ANY);
        let first = first.try_recv().unwrap();
        let mut waiting: Vec<Named> = (0..1_000).map(|_| enter(&queue, "noisy", false, ANY)).collect();
        waiting.push(enter(&queue, "quiet", false, ANY));
        waiting.push(enter(&queue, "other", false, ANY));
        waiting.push(enter(&queue, "quiet", false, ANY));
        let order = order(waiting, first);
        assert_eq!(order.len(), 1_003);
        let place_of = |name: &str| order.iter().position(|n| n == name).unwrap();
        assert!(place_of("quiet") <= 2 && place_of("other") <= 3, "{:?}", &order[..6]);
        let second = order.iter().rposition(|n| n == "quiet").unwrap();
        assert!(second <= 5, "{:?}", &order[..8]);
        assert!(queue.0.lock().tenants.is_empty(), "nobody is remembered who has nothing");
    }

    #[test]
    fn queue_alternates_between_recent_and_long_of_a_tenant() {
        let queue = Queue::new(1);
        let (_, mut first) = enter(&queue, "a", false, ANY);
        let first = first.try_recv().unwrap();
        let mut waiting: Vec<Named> = (0..3).map(|_| enter(&queue, "a", true, ANY)).collect();
        waiting.extend((0..3).map(|_| enter(&queue, "a", false, ANY)));
        let order = order(waiting, first);
        assert_eq!(order, ["a long", "a", "a long", "a", "a long", "a"]);
    }

    #[test]
    fn queue_keeps_turns_for_what_is_recent_and_for_tenants_that_come_new() {
        let queue = Queue::new(8);
        let turn = |tenant, long| enter(&queue, tenant, long, ANY).1.try_recv().ok();
        let long: Vec<_> = (0..8).filter_map(|_| turn("a", true)).collect();
        assert_eq!(long.len(), 6, "two of eight are never for what reaches far back");
        let recent: Vec<_> = (0..8).filter_map(|_| turn("a", false)).collect();
        assert_eq!(recent.len(), 2, "who is alone has all the others");
        drop((long, recent));
        // Those who waited above are gone with their receivers; the queue is empty again.
        let b = turn("b", false).expect("there is room");
        let a: Vec<_> = (0..8).filter_map(|_| turn("a", false)).collect();
        assert_eq!(a.len(), 6, "who is not alone leaves two");
        assert!(turn("c", false).is_some());
        drop((a, b));
    }

    #[test]
    fn queue_bounds_what_a_tenant_has_running_and_waiting() {
        let queue = Queue::new(4);
        let bounds = QueueBounds { max_running: 1, max_waiting: 2 };
        let mut running = enter(&queue, "a", false, bounds);
        let turn = running.1.try_recv().unwrap();
        let mut waiting = [enter(&queue, "a", false, bounds), enter(&queue, "a", true, bounds)];
        assert!(waiting.iter_mut().all(|(_, w)| w.try_recv().is_err()), "one at a time");
        let full = queue.enter(&place("a", false), bounds, Instant::now()).map(drop);
        assert_eq!(full, Err(QueueFull { waiting: 2 }));
        assert!(enter(&queue, "b", false, bounds).1.try_recv().is_ok(), "another tenant is not held up");
        drop(turn);
        let had: Vec<_> = waiting.iter_mut().filter_map(|(_, w)| w.try_recv().ok()).collect();
        assert_eq!(had.len(), 1);
    }

    #[test]
    fn queue_gives_a_turn_at_once_only_where_nobody_waits() {
        let queue = Queue::new(2);
        let one = QueueBounds { max_running: 1, max_waiting: 0 };
        let first = queue.turn_at_once(place("a", false), one).expect("there is room");
        assert!(queue.turn_at_once(place("a", false), one).is_none(), "the tenant has what it may");
        let second = queue.turn_at_once(place("b", true), ANY).expect("there is room");
        assert!(queue.turn_at_once(place("c", false), ANY).is_none());
        let (_, mut waits) = enter(&queue, "a", false, one);
        drop(second);
        assert!(queue.turn_at_once(place("a", false), ANY).is_none(), "one of its own waits");
        assert!(queue.turn_at_once(place("c", false), ANY).is_some(), "who waits may not have this turn");
        drop(first);
        let turn = waits.try_recv().expect("its turn has come");
        assert!(queue.turn_at_once(place("a", false), ANY).is_some());
        drop(turn);
        let state = queue.0.lock();
        assert_eq!((state.running, state.running_long, state.tenants.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn queue_is_left_by_whoever_gives_up() {
        let queue = Queue::new(1);
        let held = queue.turn(place("a", false), ANY).await.unwrap();
        let gone = tokio::time::timeout(Duration::from_millis(20), queue.turn(place("b", true), ANY)).await;
        assert!(gone.is_err());
        {
            let state = queue.0.lock();
            assert_eq!((state.tenants.len(), state.circle.len()), (1, 0));
        }
        drop(held);
        drop(queue.turn(place("c", false), ANY).await.unwrap());
        assert_eq!(queue.0.lock().running, 0);
    }
}
