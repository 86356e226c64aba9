//! What a batch of rules writes, how often, and which rule hears of a refusal.

use std::sync::Arc;

use model::clock::ManualClock;
use model::labels::Labels;
use model::sample::Value;
use model::source::Source;
use model::tenant::TenantId;
use parking_lot::Mutex;
use query::engine::Engine;
use query::parse::ParseOptions;

use crate::alert::Outgoing;
use crate::alert::restore::Restore;
use crate::file::{FileOptions, parse};
use crate::group::environment::Environment;
use crate::group::error::WriteError;
use crate::group::memory::MemoryStorage;
use crate::group::runner::Runner;
use crate::group::side_by_side::SpareThreads;
use crate::group::view::{GroupView, Health};
use crate::group::{Alone, Defaults, Group, Notify, Row, Storage};
use crate::metrics::Metrics;
use crate::template::SharedExternal;

/// Remembers the writes by the metrics in each, and refuses a value.
#[derive(Default)]
struct Watched {
    memory: MemoryStorage,
    writes: Mutex<Vec<Vec<String>>>,
    refuses: Option<f64>,
    is_down: bool,
}

impl Storage for Watched {
    fn source(&self, tenant: &TenantId) -> Arc<dyn Source> {
        self.memory.source(tenant)
    }

    fn write(&self, tenant: &TenantId, rows: &[Row]) -> Result<Vec<(usize, String)>, WriteError> {
        if self.is_down {
            return Err(WriteError::new(std::io::Error::other("the disk is gone")));
        }
        let mut metrics: Vec<String> =
            rows.iter().map(|r| r.labels.get("__name__").unwrap_or_default().to_owned()).collect();
        metrics.sort();
        metrics.dedup();
        self.writes.lock().push(metrics);
        self.memory.write(tenant, rows)?;
        let refused = rows.iter().enumerate().filter(
            |(_, row)| matches!((&row.value, self.refuses), (Value::Float(v), Some(bad)) if *v == bad),
        );
        Ok(refused.map(|(at, row)| (at, format!("{}: no", row.labels))).collect())
    }
}

/// Counts what is told.
#[derive(Default)]
struct Told(Mutex<usize>);

impl Notify for Told {
    fn notify(&self, _: &TenantId, _: &str, alerts: Vec<Outgoing>) {
        *self.0.lock() += alerts.len();
    }
}

/// A group over `up{i="0"}` to `up{i="N"}`, evaluated once: what was written, what it shows, alerts told.
fn evaluated(rules: &str, series: usize, storage: Watched) -> (Vec<Vec<String>>, GroupView, usize) {
    let text = format!("groups:\n- name: g\n  rules:\n{rules}");
    let spec = parse(&text, &FileOptions::default()).unwrap().into_iter().next().unwrap();
    let group =
        Group::new(TenantId::single(), "f", spec, &Defaults::default(), &ParseOptions::default()).unwrap();
    for i in 0..series {
        let i = i.to_string();
        let labels = Labels::from_pairs([("__name__", "up"), ("i", i.as_str())]);
        storage.memory.0.append_float(&labels, 60_000, 1.0);
    }
    let (storage, told) = (Arc::new(storage), Arc::new(Told::default()));
    let env = Environment {
        engine: Engine::default(),
        storage: storage.clone(),
        notify: told.clone(),
        clock: Arc::new(ManualClock::at(60_000)),
        external: SharedExternal::default(),
        restore: Restore::default(),
        resend_delay_ms: 60_000,
        metrics: Metrics::default(),
        ownership: Arc::new(Alone),
        spare: SpareThreads::new(2),
    };
    let mut runner = Runner::new(Arc::new(group), 0, true);
    assert!(runner.evaluate(&env, 60_000_000_000));
    let (writes, told) = (storage.writes.lock().clone(), *told.0.lock());
    (writes, runner.view(), told)
}

const FIVE: &str = "  - {record: a, expr: up}
  - {record: b, expr: 2 * up}
  - {alert: A, expr: up}
  - {record: broken, expr: up * on() up}
  - {record: c, expr: a + b}
";

#[test]
fn batch_of_rules_is_written_at_once_and_read_by_the_next() {
    let (writes, view, _) = evaluated(FIVE, 3, Watched::default());
    assert_eq!(writes, [vec!["ALERTS", "ALERTS_FOR_STATE", "a", "b"], vec!["c"]]);
    let shown: Vec<_> = view.rules.iter().map(|r| (r.health, r.series_written)).collect();
    let good = |series| (Health::Ok, series);
    assert_eq!(shown, [good(3), good(3), good(6), (Health::Err, 0), good(3)]);
}

#[test]
fn batch_tells_a_refusal_to_the_rule_whose_sample_it_was() {
    let (_, view, _) = evaluated(FIVE, 3, Watched { refuses: Some(2.0), ..Watched::default() });
    let errors: Vec<_> = view.rules.iter().map(|r| r.last_error.as_deref().unwrap_or("none")).collect();
    assert_eq!((errors[0], errors[2], errors[4]), ("none", "none", "none"));
    assert_eq!(errors[1], r#"3 of its samples were not taken: {__name__="b", i="0"}: no"#);
}

#[test]
fn batch_that_cannot_be_written_fails_each_of_its_rules_and_tells_alerts_all_the_same() {
    let rules = "  - {record: a, expr: up}\n  - {record: none, expr: up == 7}\n  - {alert: A, expr: up}\n";
    let (writes, view, told) = evaluated(rules, 2, Watched { is_down: true, ..Watched::default() });
    let errors: Vec<_> = view.rules.iter().map(|r| r.last_error.as_deref()).collect();
    assert_eq!(errors, [Some("the disk is gone"), None, Some("the disk is gone")]);
    assert_eq!((writes.len(), told), (0, 2));
}

#[test]
fn rule_with_very_many_series_is_written_alone() {
    let rules =
        "  - {record: a, expr: up}\n  - {record: few, expr: sum(up)}\n  - {record: one, expr: count(up)}\n";
    let (mut writes, view, _) = evaluated(rules, super::WRITTEN_ALONE_FROM, Watched::default());
    writes.sort();
    assert_eq!(writes, [vec!["a"], vec!["few", "one"]]);
    assert!(view.rules.iter().all(|r| r.health == Health::Ok), "{view:?}");
}
