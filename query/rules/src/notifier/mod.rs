//! Alerts on their way to Alertmanagers.
//!
//! An alert that a rule hands over gets the external labels, is relabelled, and joins the queue of every
//! Alertmanager that is known. Each queue has a task of its own, which sends batches and, unlike
//! upstream's, tries again what was not taken: as long as the alert is still valid, and unless a newer word
//! about the same alert has come meanwhile. An Alertmanager that is away, slow or talks nonsense so delays
//! its own queue and nothing else.

mod addresses;
pub mod config;
pub mod message;
mod queue;
mod send;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use discovery::{Discovery, Followed, Group};
use model::clock::Clock;
use model::tenant::TenantId;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::alert::Outgoing;
use crate::metrics::Metrics;
use crate::relabel::{self, Relabel};
use crate::template::SharedExternal;
pub use addresses::Found;
use addresses::urls;
use config::{Alerting, AlertmanagerSet};
use message::Message;
pub use queue::Limits;
use send::Sender;

/// Tells Alertmanagers of alerts. Cheap to clone.
#[derive(Clone)]
pub struct Notifier(Arc<Inner>);

struct Inner {
    external: SharedExternal,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    alert_relabel: Vec<Relabel>,
    sets: Vec<Set>,
}

/// A set of Alertmanagers at work.
struct Set {
    config: Arc<AlertmanagerSet>,
    client: Result<reqwest::Client, send::ClientError>,
    found: Found,
    /// By URL.
    senders: BTreeMap<String, Sender>,
    discovery: JoinHandle<()>,
}

impl Drop for Set {
    fn drop(&mut self) {
        self.discovery.abort();
    }
}

impl Notifier {
    /// Knows no Alertmanager yet.
    pub fn new(
        external: SharedExternal,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        limits: Limits,
    ) -> Notifier {
        metrics.queue_capacity.set(limits.queue_capacity as i64);
        Notifier(Arc::new(Inner { external, clock, metrics, limits, state: Mutex::default() }))
    }

    /// Puts a configuration in force. Queues of Alertmanagers that stay, stay. Must be called within a
    /// runtime.
    pub fn configure(&self, alerting: Alerting) {
        let mut state = self.0.state.lock();
        let mut old: Vec<Set> = std::mem::take(&mut state.sets);
        state.alert_relabel = alerting.alert_relabel;
        for (at, config) in alerting.alertmanagers.into_iter().enumerate() {
            let config = Arc::new(config);
            let client = send::client(&config);
            if let Err(e) = &client {
                tracing::error!("no alerts can be sent to this set of Alertmanagers: {e}");
            }
            let discovery = tokio::spawn(discover(Arc::downgrade(&self.0), at, config.clone()));
            // What waits goes on waiting under the new settings, if the place in the list still has the URL.
            let senders = match old.get_mut(at) {
                Some(before) => std::mem::take(&mut before.senders),
                None => BTreeMap::new(),
            };
            let mut set = Set { config, client, found: Found::default(), senders, discovery };
            if let Ok(client) = &set.client {
                for sender in set.senders.values_mut() {
                    sender.reconfigure(client.clone(), set.config.clone());
                }
            }
            // Static ones are known at once, so that the first alert finds them.
            let of_static = |source: &Discovery| match source {
                Discovery::Static(groups) => groups.clone(),
                _ => Vec::new(),
            };
            let sources = &set.config.discoveries;
            let fixed: Vec<Group> = sources.iter().flat_map(of_static).collect();
            let only_static = sources.iter().all(|source| matches!(source, Discovery::Static(_)));
            if only_static || set.senders.is_empty() {
                let discovered = urls(&set.config, &fixed);
                self.0.found(&mut set, discovered);
            }
            state.sets.push(set);
        }
        drop(old);
        self.0.count(&state);
    }

    /// All Alertmanagers, active and dropped, URLs ascending.
    pub fn alertmanagers(&self) -> Found {
        let state = self.0.state.lock();
        let mut all = Found::default();
        for set in &state.sets {
            all.active.extend(set.found.active.iter().cloned());
            all.dropped.extend(set.found.dropped.iter().cloned());
        }
        all.active.sort();
        all.dropped.sort();
        all
    }

    /// Alerts that are not delivered yet.
    pub fn waiting(&self) -> usize {
        self.0.state.lock().sets.iter().flat_map(|s| s.senders.values()).map(Sender::waiting).sum()
    }

    /// Sends what waits, for so long at most, and ends.
    pub async fn drain(&self, patience: Duration) {
        let sets = std::mem::take(&mut self.0.state.lock().sets);
        let mut ending = Vec::new();
        for mut set in sets {
            for (_, sender) in std::mem::take(&mut set.senders) {
                ending.push(sender.drain());
            }
        }
        let sends = async {
            for task in ending {
                let _ = task.await;
            }
        };
        if tokio::time::timeout(patience, sends).await.is_err() {
            tracing::warn!("alerts were left undelivered at the end");
        }
    }
}

impl crate::group::Notify for Notifier {
    fn notify(&self, _tenant: &TenantId, expr: &str, alerts: Vec<Outgoing>) {
        let state = self.0.state.lock();
        if state.sets.is_empty() {
            return;
        }
        let external = self.0.external.get();
        let outgoing: Vec<_> = alerts
            .iter()
            .filter_map(|alert| {
                let labels = message::outgoing_labels(&alert.labels, &external, &state.alert_relabel)?;
                Some((alert, labels))
            })
            .collect();
        for set in &state.sets {
            let messages: Vec<Arc<Message>> = outgoing
                .iter()
                .filter_map(|(alert, labels)| {
                    let labels = relabel::apply(&set.config.alert_relabel, labels)?;
                    Some(Message::new(alert, labels, &external, expr))
                })
                .collect();
            for sender in set.senders.values() {
                sender.push(messages.iter().cloned());
            }
        }
    }
}

impl Inner {
    /// Makes senders for what was found, and lets go of those that are no more.
    fn found(&self, set: &mut Set, found: Found) {
        let Ok(client) = &set.client else { return };
        set.senders.retain(|url, _| found.active.contains(url));
        for url in &found.active {
            if !set.senders.contains_key(url) {
                let sender = Sender::start(
                    url,
                    client.clone(),
                    set.config.clone(),
                    self.clock.clone(),
                    self.metrics.clone(),
                    self.limits,
                );
                set.senders.insert(url.clone(), sender);
            }
        }
        set.found = found;
    }

    fn count(&self, state: &State) {
        let count: usize = state.sets.iter().map(|s| s.found.active.len()).sum();
        self.metrics.alertmanagers_discovered.set(count as i64);
    }
}

/// Follows the Alertmanagers of a set as they come and go.
async fn discover(inner: std::sync::Weak<Inner>, at: usize, config: Arc<AlertmanagerSet>) {
    let mut followed = Followed::begin(&config.discoveries);
    // What waits for those that were known before is not given up for want of a first look.
    followed.looked().await;
    loop {
        let groups = followed.groups();
        let Some(inner) = inner.upgrade() else { return };
        {
            let mut state = inner.state.lock();
            let set = state.sets.get_mut(at).filter(|set| Arc::ptr_eq(&set.config, &config));
            if let Some(set) = set {
                let discovered = urls(&config, &groups);
                if discovered != set.found {
                    inner.found(set, discovered);
                }
            }
            inner.count(&state);
        }
        drop(inner);
        if !followed.changed().await {
            return;
        }
    }
}
