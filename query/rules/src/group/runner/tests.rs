//! A group over a store in memory, slot by slot.

use model::clock::ManualClock;
use model::sample::{Value, is_stale, stale_nan};
use model::source::memory::MemorySource;
use model::tenant::TenantId;
use parking_lot::Mutex;
use query::engine::Engine;
use query::parse::ParseOptions;

use super::*;
use crate::alert::Outgoing;
use crate::alert::restore::Restore;
use crate::file::{FileOptions, parse};
use crate::group::memory::MemoryStorage;
use crate::group::side_by_side::SpareThreads;
use crate::group::{Alone, Defaults, Notify, Ownership};
use crate::metrics::Metrics;
use crate::template::SharedExternal;

const M: i64 = 60_000;

/// Remembers what was sent.
#[derive(Default)]
struct Sent(Mutex<Vec<Outgoing>>);

impl Notify for Sent {
    fn notify(&self, _: &TenantId, _: &str, alerts: Vec<Outgoing>) {
        self.0.lock().extend(alerts);
    }
}

struct World {
    env: Environment,
    store: Arc<MemorySource>,
    sent: Arc<Sent>,
    clock: ManualClock,
}

impl World {
    fn new() -> World {
        let storage = MemoryStorage::default();
        let (store, sent, clock) = (storage.0.clone(), Arc::new(Sent::default()), ManualClock::at(0));
        let env = Environment {
            engine: Engine::default(),
            storage: Arc::new(storage),
            notify: sent.clone(),
            clock: Arc::new(clock.clone()),
            external: SharedExternal::default(),
            restore: Restore::default(),
            resend_delay_ms: M,
            metrics: Metrics::default(),
            ownership: Arc::new(Alone),
            spare: SpareThreads::default(),
        };
        World { env, store, sent, clock }
    }

    fn put(&self, name: &str, label: &str, minute: i64, v: f64) {
        self.store.append_float(&Labels::from_pairs([("__name__", name), ("i", label)]), minute * M, v);
    }

    fn evaluate(&self, runner: &mut Runner, minute: i64) {
        self.clock.set(minute * M);
        runner.evaluate(&self.env, minute * M * 1_000_000);
    }

    fn ask(&self, text: &str, minute: i64) -> Vec<(String, f64)> {
        let found = super::super::evaluate::vector(&self.env.engine, &*self.store, text, minute * M).unwrap();
        let mut all: Vec<_> = found
            .result
            .into_iter()
            .map(|s| match s.value {
                Value::Float(v) => (s.labels.to_string(), v),
                Value::Histogram(_) => panic!("a histogram"),
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

fn group(text: &str) -> Arc<Group> {
    let specs = parse(text, &FileOptions::default()).unwrap();
    let spec = specs.into_iter().next().unwrap();
    let defaults = Defaults::default();
    Arc::new(Group::new(TenantId::single(), "f", spec, &defaults, &ParseOptions::default()).unwrap())
}

const CHAIN: &str = "groups:
- name: g
  labels: {team: a}
  rules:
  - {record: 'up:sum', expr: 'sum by (i) (up)', labels: {team: b}}
  - {record: 'up:double', expr: '2 * up:sum', labels: {i: ''}}
  - alert: Low
    expr: up:sum < 2
    for: 2m
    annotations: {text: '{{ $labels.i }} is {{ $value }}'}
";

#[test]
fn rules_read_what_rules_before_them_wrote_at_the_same_slot() {
    let world = World::new();
    world.put("up", "x", 1, 1.0);
    let mut runner = Runner::new(group(CHAIN), 0, true);
    world.evaluate(&mut runner, 1);
    assert_eq!(
        world.ask("up:double", 1),
        [(r#"{__name__="up:double", team="a"}"#.to_string(), 2.0)],
        "an empty label takes the series' own away"
    );
    assert_eq!(world.ask("ALERTS", 1).len(), 1);
    let view = runner.view();
    assert!(view.rules.iter().all(|r| r.health == Health::Ok), "{view:?}");
    assert_eq!(view.rules[2].alerts[0].annotations["text"], "x is 1");
}

#[test]
fn series_that_are_gone_get_markers_and_failures_get_none() {
    let world = World::new();
    let mut runner = Runner::new(group("groups:\n- name: g\n  rules:\n  - {record: r, expr: up}\n"), 0, true);
    for (minute, labels) in [(1, &["x", "y"][..]), (2, &["x"])] {
        for label in labels {
            world.put("up", label, minute, 1.0);
        }
        world.store.append_float(&Labels::from_pairs([("__name__", "up"), ("i", "y")]), 2 * M, stale_nan());
        world.evaluate(&mut runner, minute);
    }
    assert_eq!(world.ask("r", 2), [(r#"{__name__="r", i="x"}"#.to_string(), 1.0)]);
    // Two series with one label set after the rule's: fails, and ends nothing.
    let mut failing = Runner::new(
        group("groups:\n- name: g\n  rules:\n  - {record: r, expr: 'up or down', labels: {i: ''}}\n"),
        0,
        true,
    );
    failing.inherit(runner);
    world.put("up", "z", 3, 1.0);
    world.put("down", "q", 3, 1.0);
    world.evaluate(&mut failing, 3);
    let view = failing.view();
    assert_eq!(view.rules[0].health, Health::Err);
    assert_eq!(
        view.rules[0].last_error.as_deref(),
        Some("vector contains metrics with the same labelset after applying rule labels")
    );
    assert!(world.ask("r", 3).is_empty(), "the old rule's series end with the group's next evaluation");
}

#[test]
fn alert_is_sent_with_its_times_and_resolved_when_its_series_goes() {
    let world = World::new();
    let mut runner = Runner::new(group(CHAIN), 0, true);
    for minute in 1..=4 {
        world.put("up", "x", minute, 1.0);
        world.evaluate(&mut runner, minute);
    }
    world.put("up", "x", 5, 3.0);
    world.evaluate(&mut runner, 5);
    let sent = world.sent.0.lock().clone();
    let shown: Vec<_> = sent.iter().map(|a| (a.starts_at_ms / M, a.ends_at_ms / M, a.resolved)).collect();
    assert_eq!(shown, [(3, 7, false), (3, 5, true)]);
    assert_eq!(sent[0].labels.to_string(), r#"{alertname="Low", i="x", team="a"}"#);
    assert!(world.ask("ALERTS", 5).is_empty(), "marked stale");
}

#[test]
fn query_offset_moves_queries_and_samples_and_not_the_alerts() {
    let world = World::new();
    let text = "groups:\n- name: g\n  query_offset: 2m\n  rules:\n  - {record: r, expr: time()}\n  - {alert: A, expr: vector(1)}\n";
    let mut runner = Runner::new(group(text), 0, true);
    world.evaluate(&mut runner, 10);
    assert_eq!(world.ask("r", 8), [(r#"{__name__="r"}"#.to_string(), 480.0)]);
    assert_eq!(world.ask("ALERTS_FOR_STATE", 8)[0].1, 600.0);
    assert_eq!(world.sent.0.lock()[0].starts_at_ms, 10 * M);
}

#[test]
fn restart_restores_since_when_an_alert_is_pending() {
    let world = World::new();
    let text = "groups:\n- name: g\n  rules:\n  - {alert: A, expr: up == 0, for: 30m}\n";
    let mut first = Runner::new(group(text), 0, true);
    for minute in 1..=10 {
        world.put("up", "x", minute, 0.0);
        world.evaluate(&mut first, minute);
    }
    drop(first);
    // Five minutes away. Nothing is written before the state is known.
    let mut second = Runner::new(group(text), 15 * M * 1_000_000, false);
    world.put("up", "x", 15, 0.0);
    world.evaluate(&mut second, 15);
    assert!(world.ask("ALERTS", 15).iter().all(|(_, v)| *v == 1.0));
    world.evaluate(&mut second, 16);
    assert_eq!(
        second.view().rules[0].alerts[0].active_at_ms,
        15 * M,
        "alerts are shown as of the evaluation"
    );
    world.evaluate(&mut second, 17);
    // Active since minute 1, nine of thirty minutes waited at minute 10; six minutes of outage do not count.
    assert_eq!(second.view().rules[0].alerts[0].active_at_ms, 7 * M);
    assert_eq!(world.ask("ALERTS_FOR_STATE", 17)[0].1, 420.0);
}

#[test]
fn missed_slots_are_filled_in_order_and_joined_to_what_came_after() {
    let world = World::new();
    let text = "groups:\n- name: g\n  rules:\n  - {record: r, expr: up}\n  - {alert: A, expr: up}\n";
    for minute in 1..=9 {
        world.put("up", "x", minute, minute as f64);
        if minute <= 6 {
            world.put("up", "gone", minute, 1.0);
        } else {
            let labels = Labels::from_pairs([("__name__", "up"), ("i", "gone")]);
            world.store.append_float(&labels, minute * M, stale_nan());
        }
    }
    let mut runner = Runner::new(group(text), 7 * M * 1_000_000, true);
    world.evaluate(&mut runner, 7);
    for minute in 4..=6 {
        runner.fill(&world.env, minute * M * 1_000_000).unwrap();
    }
    runner.end_fill(&world.env).unwrap();
    for minute in 4..=7 {
        let x = world.ask("r{i='x'}", minute);
        assert_eq!(x[0].1, minute as f64);
    }
    assert_eq!(world.ask("r", 6).len(), 2);
    assert_eq!(world.ask("r", 7).len(), 1);
    assert!(world.ask("ALERTS", 6).is_empty(), "alerts are not made for the past");
    let mut cursor_values = Vec::new();
    world.store.series_values("r", &mut cursor_values);
    assert!(
        cursor_values.iter().any(|v| is_stale(*v)),
        "the end of the series that went meanwhile is marked"
    );
}

#[test]
fn rules_of_a_changed_group_take_their_state_along_and_the_rest_ends() {
    let world = World::new();
    let old = "groups:\n- name: g\n  rules:\n  - {record: a, expr: up}\n  - {record: b, expr: up}\n  - {alert: A, expr: up, for: 5m}\n";
    let new = "groups:\n- name: g\n  rules:\n  - {alert: A, expr: up, for: 5m}\n  - {record: b, expr: up}\n";
    world.put("up", "x", 1, 1.0);
    let mut runner = Runner::new(group(old), 0, true);
    world.evaluate(&mut runner, 1);
    let mut changed = Runner::new(group(new), M * 1_000_000, true);
    changed.inherit(runner);
    world.put("up", "x", 2, 1.0);
    world.evaluate(&mut changed, 2);
    assert!(world.ask("a", 2).is_empty());
    assert_eq!(world.ask("b", 2).len(), 1);
    assert_eq!(changed.view().rules[0].alerts[0].active_at_ms, M);
}

/// Direct looks into the store, markers included.
trait Look {
    fn series_values(&self, name: &str, out: &mut Vec<f64>);
}

impl Look for MemorySource {
    fn series_values(&self, name: &str, out: &mut Vec<f64>) {
        use model::matcher::Matcher;
        use model::source::{Budget, Selection, Source};
        let selection = Selection {
            matchers: vec![Matcher::equal("__name__", name)],
            min_t_ms: 0,
            max_t_ms: i64::MAX,
            hints: Default::default(),
            budget: Budget::unlimited(),
        };
        let mut cursor = self.select(&selection).unwrap();
        while let Some(batch) = cursor.next_batch().unwrap() {
            out.extend(batch.into_iter().flat_map(|s| s.values));
        }
    }
}

/// What another process is told, through the bytes that it reads.
fn told(runner: &Runner, came_to_ns: i64) -> GroupState {
    let text = serde_json::to_string(&runner.state(came_to_ns)).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn group_goes_on_in_another_process_with_its_alerts_and_missed_slots() {
    const FOR_FOUR: &str = "groups:
- name: g
  rules:
  - {alert: Low, expr: 'up < 2', for: 4m, annotations: {v: '{{ $value }}'}}
  - {record: 'up:sum', expr: 'sum(up)'}
";
    let world = World::new();
    let group = group(FOR_FOUR);
    for minute in 0..12 {
        world.put("up", "x", minute, 1.0);
    }
    let mut first = Runner::new(group.clone(), 0, false);
    for minute in 1..=3 {
        world.evaluate(&mut first, minute);
    }
    let slot = |runner: &Runner, minute: i64| runner.slots.at_or_before(minute * M * 1_000_000);
    let state = told(&first, slot(&first, 3));
    assert!(state.restored);
    assert_eq!((state.rules.len(), state.rules[0].alerts[0].active_at_ms), (1, M));
    let shown = state.view(group.clone());
    assert_eq!(shown.rules[0].state, Some(crate::alert::State::Pending));
    assert_eq!(shown.rules[0].alerts[0].annotations["v"], "1");

    // The other takes it over in the seventh minute: it evaluates the newest slot at once.
    let mut second = Runner::new(group.clone(), 7 * M * 1_000_000, false);
    let missed = second.take_up(&state, 7 * M * 1_000_000);
    let interval = second.slots.interval_ns;
    let newest = slot(&second, 7);
    assert_eq!(second.last_slot_ns, newest - interval);
    let between: Vec<i64> =
        (1..).map(|n| slot(&second, 3) + n * interval).take_while(|at| *at < newest).collect();
    assert_eq!(missed, between);
    world.evaluate(&mut second, 7);
    let alerts = second.view().rules[0].alerts.clone();
    assert_eq!((alerts[0].state, alerts[0].active_at_ms), (crate::alert::State::Firing, M));
    assert_eq!(world.sent.0.lock().len(), 1, "it is told once, by the second");

    // One that came further than this process' clock is waited for, not evaluated twice.
    let mut third = Runner::new(group, 5 * M * 1_000_000, false);
    assert!(third.take_up(&told(&second, slot(&second, 7)), 5 * M * 1_000_000).is_empty());
    assert_eq!(third.last_slot_ns, slot(&third, 7));
}

/// Owns groups as long as it is told so.
struct Owns(std::sync::atomic::AtomicBool);

impl Ownership for Owns {
    fn holds(&self, _: &crate::group::GroupKey) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[test]
fn group_that_is_not_held_any_more_writes_and_tells_nothing() {
    let mut world = World::new();
    let owns = Arc::new(Owns(true.into()));
    world.env.ownership = owns.clone();
    world.put("up", "x", 1, 1.0);
    let mut runner = Runner::new(
        group("groups:\n- name: g\n  rules:\n  - {record: r, expr: up}\n  - {alert: A, expr: up}\n"),
        0,
        true,
    );
    world.evaluate(&mut runner, 1);
    let told = world.sent.0.lock().len();
    let last = runner.last_slot_ns;
    owns.0.store(false, std::sync::atomic::Ordering::Relaxed);
    world.put("up", "x", 3, 5.0);
    world.evaluate(&mut runner, 3);
    assert_eq!(runner.last_slot_ns, last, "the slot is still to come");
    assert_eq!(world.sent.0.lock().len(), told);
    assert_eq!(world.ask("r", 3), [("{__name__=\"r\", i=\"x\"}".to_owned(), 1.0)], "what was there before");
}

#[test]
fn rules_side_by_side_give_what_they_give_one_after_the_other() {
    let chain = "groups:
- name: g
  rules:
  - {record: a, expr: up}
  - {record: b, expr: '2 * up'}
  - {record: c, expr: 'a + on(i) b'}
  - {record: d, expr: 'c offset 1m'}
  - {record: e, expr: 'f or up'}
  - {record: f, expr: 'up + 100'}
";
    let answers = |spare: usize| {
        let mut world = World::new();
        world.env.spare = SpareThreads::new(spare);
        let mut runner = Runner::new(group(chain), 0, true);
        for minute in 1..=5 {
            world.put("up", "x", minute, minute as f64);
            world.evaluate(&mut runner, minute);
        }
        ["a", "b", "c", "d", "e", "f"].map(|metric| world.ask(metric, 5))
    };
    let (one, many) = (answers(0), answers(3));
    assert_eq!(one, many);
    assert_eq!((many[2][0].1, many[3][0].1, many[4][0].1), (15.0, 12.0, 104.0));
}
