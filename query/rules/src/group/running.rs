//! Groups on threads: each wakes at its slots, a worker fills what was missed, a reload changes the set
//! while the rest runs on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;

use super::backlog::Backlog;
use super::environment::Environment;
use super::handover::{GroupState, Handover, States};
use super::progress::{Progress, id};
use super::reload;
use super::runner::{Runner, slot_ms};
use super::schedule::due;
use super::view::GroupView;
use super::{Group, GroupKey};

/// Longest sleep: a clock that is set is noticed after this.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// How often a group that this process may not evaluate at the moment asks again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// How long it is remembered how far a group came that another process evaluates now.
const PARTED_KEEP: Duration = Duration::from_secs(3600);

/// How often progress is kept.
const KEEP_EVERY: Duration = Duration::from_secs(5);

/// How groups are run.
pub struct RunOptions {
    /// Groups that are evaluated at once.
    pub concurrency: usize,
    /// Missed slots older than this are not filled.
    pub max_fill_age_ms: i64,
    /// Where it is kept up to where groups came; without it a restart fills nothing.
    pub progress: Option<Progress>,
}

/// All groups of a process. Cheap to clone.
#[derive(Clone)]
pub struct Groups(Arc<Inner>);

struct Inner {
    env: Environment,
    options: RunOptions,
    running: Mutex<BTreeMap<GroupKey, Running>>,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    backlog: Mutex<Backlog>,
    backlog_grew: Notify,
    permits: Semaphore,
    stop: watch::Sender<bool>,
    /// Whether groups were loaded before: from then on there is nothing to restore.
    loaded: AtomicBool,
    /// What an earlier process kept.
    remembered: BTreeMap<String, i64>,
    /// Fills the backlog.
    filling: Mutex<Option<JoinHandle<()>>>,
    /// The last states that other processes may go on from, also of groups that were given away.
    states: Mutex<BTreeMap<String, (Instant, GroupState)>>,
}

struct Running {
    group: Arc<Group>,
    runner: Arc<Mutex<Runner>>,
    view: Arc<RwLock<Arc<GroupView>>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Groups {
    /// No groups yet. Must be called within a runtime.
    pub fn new(env: Environment, options: RunOptions) -> Groups {
        let remembered = options.progress.as_ref().map(Progress::read).unwrap_or_default();
        let groups = Groups(Arc::new(Inner {
            env,
            permits: Semaphore::new(options.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            options,
            running: Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
            backlog: Mutex::default(),
            backlog_grew: Notify::new(),
            stop: watch::Sender::new(false),
            loaded: AtomicBool::new(false),
            remembered,
            filling: Mutex::default(),
            states: Mutex::default(),
        }));
        *groups.0.filling.lock() = Some(tokio::spawn(fill_backlog(groups.0.clone())));
        if groups.0.options.progress.is_some() {
            tokio::spawn(keep_progress(groups.0.clone()));
        }
        groups
    }

    /// Makes these the groups; no two may have one key. Those that are the same run on as if nothing had
    /// happened.
    pub async fn reload(&self, new: Vec<Group>) {
        self.reload_shared(new, None).await;
    }

    /// As [`Groups::reload`], where other processes evaluate a part of all groups: `new` are those of this
    /// process.
    pub async fn reload_shared(&self, new: Vec<Group>, handover: Option<Handover>) {
        let _alone = self.0.reloading.lock().await;
        if self.0.stopping() {
            return;
        }
        let restored = self.0.loaded.swap(true, Ordering::SeqCst);
        let plan = {
            let running = self.0.running.lock();
            let old: Vec<Arc<Group>> = running.values().map(|r| r.group.clone()).collect();
            let plan = reload::plan(old.iter().map(|g| &**g), &new);
            let stop: Vec<GroupKey> = plan.stop.iter().map(|at| old[*at].key.clone()).collect();
            (plan.start, stop)
        };
        let (start, stop) = plan;
        for key in stop {
            let taken = self.0.running.lock().remove(&key);
            if let Some(old) = taken {
                let came_to = self.0.backlog.lock().oldest_of(&key);
                self.0.backlog.lock().forget(&key);
                let runner = old.stop().await;
                self.0.env.metrics.forget(runner.group());
                match handover.as_ref().is_some_and(|h| h.elsewhere.contains(&key)) {
                    true => self.0.note_state(&runner, came_to),
                    false => drop(tokio::spawn(end_later(self.0.clone(), runner))),
                }
            }
        }
        let mut new: Vec<Option<Group>> = new.into_iter().map(Some).collect();
        for (at, _) in start {
            let Some(group) = new[at].take() else { continue };
            let group = Arc::new(group);
            let taken = self.0.running.lock().remove(&group.key);
            let mut runner = Runner::new(group.clone(), self.0.now_ns(), restored && handover.is_none());
            let missed = match taken {
                Some(old) => {
                    // Its slots may lie elsewhere now.
                    self.0.backlog.lock().forget(&group.key);
                    runner.inherit(old.stop().await);
                    Vec::new()
                }
                None => match &handover {
                    Some(handover) => self.0.take_up(&mut runner, handover),
                    None => self.0.missed_before(&runner),
                },
            };
            self.0.clone().start(group, runner, &missed);
        }
    }

    /// What all groups show of themselves, ascending by tenant, file and name.
    pub fn views(&self) -> Vec<Arc<GroupView>> {
        self.0.running.lock().values().map(|r| r.view.read().clone()).collect()
    }

    /// How far all groups came that run here or did a while ago, for other processes to go on from.
    pub fn states(&self) -> States {
        let runners: Vec<_> = self.0.running.lock().values().map(|r| r.runner.clone()).collect();
        for runner in runners {
            // One that is at work is as far as it was before.
            if let Some(runner) = runner.try_lock() {
                let oldest = self.0.backlog.lock().oldest_of(&runner.group().key);
                self.0.note_state(&runner, oldest);
            }
        }
        let mut states = self.0.states.lock();
        states.retain(|_, (noted, _)| noted.elapsed() < PARTED_KEEP);
        states.iter().map(|(id, (_, state))| (id.clone(), state.clone())).collect()
    }

    /// Missed slots that are still to be filled.
    pub fn waiting(&self) -> usize {
        self.0.backlog.lock().len()
    }

    pub fn environment(&self) -> &Environment {
        &self.0.env
    }

    /// Ends all groups when their evaluations at work are done. Nothing is marked stale: a restart goes on.
    pub async fn stop(&self) {
        let _alone = self.0.reloading.lock().await;
        let _ = self.0.stop.send(true);
        self.0.keep();
        // What it has in hand goes back to the backlog, which is read below.
        let filling = self.0.filling.lock().take();
        if let Some(filling) = filling
            && let Err(e) = filling.await
        {
            tracing::error!("the task that fills missed slots ended unexpectedly: {e}");
        }
        let all = std::mem::take(&mut *self.0.running.lock());
        let mut runners = Vec::new();
        for old in all.into_values() {
            let runner = old.stop().await;
            let oldest = self.0.backlog.lock().oldest_of(&runner.group().key);
            self.0.note_state(&runner, oldest);
            runners.push(runner);
        }
        if let Some(progress) = &self.0.options.progress {
            let backlog = self.0.backlog.lock();
            let slots = runners
                .iter()
                .map(|r| (id(&r.group().key), came_to(r, backlog.oldest_of(&r.group().key))))
                .collect();
            if let Err(e) = progress.write(&slots) {
                tracing::warn!("cannot save how far rules were evaluated: {e}");
            }
        }
    }
}

/// The slot after which everything is still to be done; `oldest` is the oldest of the group's that waits.
fn came_to(runner: &Runner, oldest: Option<i64>) -> i64 {
    match oldest {
        Some(oldest) => oldest - runner.slots.interval_ns,
        None => runner.last_slot_ns,
    }
}

impl Running {
    /// Ends the task; an evaluation that runs is waited for.
    async fn stop(self) -> Runner {
        let _ = self.stop.send(true);
        if let Err(e) = self.task.await {
            tracing::error!(group = self.group.key.name, "the task of a group ended unexpectedly: {e}");
        }
        // The backlog's worker may be at it, for one slot.
        let placeholder = Runner::new(self.group.clone(), 0, true);
        let runner = self.runner.clone();
        let take = move || std::mem::replace(&mut *runner.lock(), placeholder);
        match tokio::task::spawn_blocking(take).await {
            Ok(runner) => runner,
            Err(_) => Runner::new(self.group, 0, true),
        }
    }
}

impl Inner {
    fn now_ns(&self) -> i64 {
        self.env.clock.now_ms().saturating_mul(1_000_000)
    }

    fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// The slots that passed since an earlier process evaluated the group last.
    fn missed_before(&self, runner: &Runner) -> Vec<i64> {
        let Some(last) = self.remembered.get(&id(&runner.group().key)) else { return Vec::new() };
        let slots = &runner.slots;
        slots.between(slots.at_or_before(*last), slots.after(runner.last_slot_ns), 100_000)
    }

    /// Goes on where another process came to, if one did; the slots that passed since.
    fn take_up(&self, runner: &mut Runner, handover: &Handover) -> Vec<i64> {
        let Some(state) = handover.states.get(&id(&runner.group().key)) else { return Vec::new() };
        let mut state = state.clone();
        let age_ms = self.env.clock.now_ms().saturating_sub(slot_ms(state.slot_ns));
        if age_ms > self.env.restore.outage_tolerance_ms {
            // Nobody has evaluated it for long: alerts begin anew, as after a restart.
            state.rules.clear();
        }
        let missed = runner.take_up(&state, self.now_ns());
        runner.missed += missed.len() as u64;
        self.env.metrics.slots_missed(runner.group(), missed.len() as u64);
        missed
    }

    fn note_state(&self, runner: &Runner, oldest: Option<i64>) {
        let state = runner.state(came_to(runner, oldest));
        self.states.lock().insert(id(&runner.group().key), (Instant::now(), state));
    }

    fn add_missed(&self, group: &Group, missed: &[i64]) {
        let oldest = self.now_ns().saturating_sub(self.options.max_fill_age_ms.saturating_mul(1_000_000));
        let young: Vec<i64> = missed.iter().copied().filter(|slot| *slot >= oldest).collect();
        if young.is_empty() || !group.rules.iter().any(|r| !r.rule.is_alert()) {
            return;
        }
        self.backlog.lock().add(&group.key, &young);
        self.backlog_grew.notify_one();
    }

    /// Sets a group to work, with slots that were missed before.
    fn start(self: Arc<Self>, group: Arc<Group>, runner: Runner, missed: &[i64]) {
        let view = Arc::new(RwLock::new(Arc::new(runner.view())));
        let runner = Arc::new(Mutex::new(runner));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run(self.clone(), runner.clone(), view.clone(), stopped));
        let mut running = self.running.lock();
        running.insert(group.key.clone(), Running { group: group.clone(), runner, view, stop, task });
        // Under one lock: the backlog's worker drops slots of groups that do not run, and progress that is
        // kept meanwhile must not leave them out.
        self.add_missed(&group, missed);
    }

    /// Writes down how far every group is.
    fn keep(&self) {
        let Some(progress) = &self.options.progress else { return };
        let runners: Vec<_> = self.running.lock().values().map(|r| r.runner.clone()).collect();
        let mut slots = self.remembered.clone();
        for runner in runners {
            // One that is at work is taken next time.
            if let Some(runner) = runner.try_lock() {
                let backlog = self.backlog.lock();
                let oldest = backlog.oldest_of(&runner.group().key);
                slots.insert(id(&runner.group().key), came_to(&runner, oldest));
            }
        }
        if let Err(e) = progress.write(&slots) {
            tracing::warn!("cannot save how far rules were evaluated: {e}");
        }
    }
}

/// Evaluates a group at its slots until it is told to stop.
async fn run(
    inner: Arc<Inner>,
    runner: Arc<Mutex<Runner>>,
    view: Arc<RwLock<Arc<GroupView>>>,
    mut stopped: watch::Receiver<bool>,
) {
    let (slots, mut last) = {
        let runner = runner.lock();
        (runner.slots, runner.last_slot_ns)
    };
    loop {
        let now_ns = inner.now_ns();
        let Some(due) = due(&slots, last, now_ns, i64::MAX) else {
            let wait = Duration::from_nanos(slots.after(last).saturating_sub(now_ns).max(1) as u64);
            tokio::select! {
                () = tokio::time::sleep(wait.min(LONGEST_SLEEP)) => continue,
                _ = stopped.wait_for(|stop| *stop) => return,
            }
        };
        let permit = tokio::select! {
            permit = inner.permits.acquire() => permit,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        let Ok(permit) = permit else { return };
        // After the wait for a permit, which may have been long.
        if !inner.env.ownership.holds(&view.read().group.key) {
            drop(permit);
            tokio::select! {
                () = tokio::time::sleep(ASK_AGAIN) => continue,
                _ = stopped.wait_for(|stop| *stop) => return,
            }
        }
        let (work, shown, of) = (runner.clone(), view.clone(), inner.clone());
        let evaluated = tokio::task::spawn_blocking(move || {
            let mut runner = work.lock();
            if !due.missed.is_empty() {
                let group = runner.group().clone();
                runner.missed += due.missed.len() as u64;
                of.env.metrics.slots_missed(&group, due.missed.len() as u64);
                of.add_missed(&group, &due.missed);
            }
            let done = runner.evaluate(&of.env, due.slot);
            *shown.write() = Arc::new(runner.view());
            done
        });
        match evaluated.await {
            // What was missed is in the backlog now.
            Ok(false) => last = due.slot - slots.interval_ns,
            Ok(true) => last = due.slot,
            Err(e) => {
                let group = view.read().group.key.name.clone();
                tracing::error!(group, "an evaluation ended unexpectedly, which is a bug: {e}");
                last = due.slot;
            }
        }
        drop(permit);
    }
}

/// Fills missed slots, the oldest of all groups first, one at a time.
async fn fill_backlog(inner: Arc<Inner>) {
    let mut stopped = inner.stop.subscribe();
    loop {
        let next = inner.backlog.lock().take();
        let Some((slot_ns, key)) = next else {
            tokio::select! {
                () = inner.backlog_grew.notified() => continue,
                _ = stopped.wait_for(|stop| *stop) => return,
            }
        };
        if inner.stopping() {
            // For `stop` to see what is left.
            inner.backlog.lock().add(&key, &[slot_ns]);
            return;
        }
        let runner = inner.running.lock().get(&key).map(|r| r.runner.clone());
        let Some(runner) = runner else { continue };
        if !inner.env.ownership.holds(&key) {
            inner.backlog.lock().add(&key, &[slot_ns]);
            tokio::select! {
                () = tokio::time::sleep(ASK_AGAIN) => continue,
                _ = stopped.wait_for(|stop| *stop) => return,
            }
        }
        let permit = tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => None,
            permit = inner.permits.acquire() => permit.ok(),
        };
        let Some(_permit) = permit else {
            inner.backlog.lock().add(&key, &[slot_ns]);
            return;
        };
        let (of, at) = (inner.clone(), key.clone());
        let filled = tokio::task::spawn_blocking(move || {
            let mut runner = runner.lock();
            let filled = runner.fill(&of.env, slot_ns);
            let is_last = of.backlog.lock().oldest_of(&at).is_none();
            filled.and(if is_last { runner.end_fill(&of.env) } else { Ok(()) })
        });
        match filled.await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => {
                tracing::warn!(
                    group = key.name,
                    slot_ms = slot_ms(slot_ns),
                    "a missed slot was filled only in part: {why}"
                );
            }
            Err(e) => tracing::error!(group = key.name, "filling a missed slot ended unexpectedly: {e}"),
        }
    }
}

/// Keeps how far groups are, every few seconds.
async fn keep_progress(inner: Arc<Inner>) {
    let mut stopped = inner.stop.subscribe();
    loop {
        tokio::select! {
            () = tokio::time::sleep(KEEP_EVERY) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        // Before the first load there is nothing to say, and what was kept must stay.
        if inner.loaded.load(Ordering::SeqCst) {
            let of = inner.clone();
            let _ = tokio::task::spawn_blocking(move || of.keep()).await;
        }
    }
}

/// Ends the series of a group that was taken out, after two intervals, in which a further reload may have
/// brought them back.
async fn end_later(inner: Arc<Inner>, runner: Runner) {
    let wait = Duration::from_millis(2 * runner.group().interval_ms.unsigned_abs());
    let mut stopped = inner.stop.subscribe();
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        _ = stopped.wait_for(|stop| *stop) => return,
    }
    if inner.running.lock().contains_key(&runner.group().key) {
        return;
    }
    let of = inner.clone();
    let ended = tokio::task::spawn_blocking(move || runner.end(&of.env, of.env.clock.now_ms())).await;
    if let Ok(Err(why)) = ended {
        tracing::warn!("the series of a group that was taken out were not ended: {why}");
    }
}
