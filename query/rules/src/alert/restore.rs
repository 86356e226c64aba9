//! Since when alerts were pending before a restart: read back out of `ALERTS_FOR_STATE`, and how much of
//! the wait is left.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::labels::{Labels, METRIC_NAME};
use model::matcher::Matcher;
use model::sample::is_stale;
use model::source::{Budget, Hints, Selection, Source, SourceError};

use super::{ALERT_NAME, ALERTS_FOR_STATE, Alerts};

/// The settings of restoration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restore {
    /// How far back a state is looked for: longer outages begin anew.
    pub outage_tolerance_ms: i64,
    /// A restored alert waits at least this long before it fires; rules with a shorter `for` are not
    /// restored.
    pub grace_period_ms: i64,
}

impl Default for Restore {
    fn default() -> Self {
        Restore { outage_tolerance_ms: 3_600_000, grace_period_ms: 600_000 }
    }
}

/// The last state that was written of each alert: labels without the metric's name, to (time in ms, active
/// since in s).
pub type Stored = HashMap<Labels, (i64, f64)>;

/// Reads the stored states of a rule's alerts. Labels whose value is a template cannot be asked for.
pub fn stored(
    source: &dyn Source,
    rule: &str,
    raw_labels: &BTreeMap<String, String>,
    now_ms: i64,
    settings: &Restore,
    budget: Arc<Budget>,
) -> Result<Stored, SourceError> {
    let mut matchers = vec![Matcher::equal(METRIC_NAME, ALERTS_FOR_STATE), Matcher::equal(ALERT_NAME, rule)];
    let plain = raw_labels.iter().filter(|(_, value)| !value.contains("{{") && !value.is_empty());
    matchers.extend(plain.filter(|(n, _)| *n != ALERT_NAME).map(|(n, v)| Matcher::equal(n, v)));
    let selection = Selection {
        matchers,
        min_t_ms: now_ms.saturating_sub(settings.outage_tolerance_ms),
        max_t_ms: now_ms,
        hints: Hints::default(),
        budget,
    };
    let mut out = Stored::new();
    let mut cursor = source.select(&selection)?;
    while let Some(batch) = cursor.next_batch()? {
        for series in batch {
            let (Some(&ts_ms), Some(&value)) = (series.ts_ms.last(), series.values.last()) else { continue };
            if !is_stale(value) && value.is_finite() {
                out.insert(series.labels.filter(|name, _| name != METRIC_NAME), (ts_ms, value));
            }
        }
    }
    Ok(out)
}

/// Since when an alert counts as active that was last seen at `seen_ms` as active since `active_s`.
pub fn active_at(for_ms: i64, seen_ms: i64, active_s: f64, now_ms: i64, settings: &Restore) -> i64 {
    let seen_ms = seen_ms.div_euclid(1000) * 1000;
    let active_ms = (active_s as i64).saturating_mul(1000);
    let left_ms = for_ms.saturating_sub(seen_ms.saturating_sub(active_ms));
    match left_ms {
        // It was firing, and fires again at the next evaluation.
        ..=0 => active_ms,
        left if left < settings.grace_period_ms => now_ms + settings.grace_period_ms - for_ms,
        // The time of the outage does not count.
        _ => active_ms.saturating_add(now_ms.saturating_sub(seen_ms)),
    }
}

/// Gives the alerts the times that were stored.
pub fn restore(
    alerts: &mut Alerts,
    raw_labels: &BTreeMap<String, String>,
    for_ms: i64,
    stored: &Stored,
    now_ms: i64,
    settings: &Restore,
) -> usize {
    let mut restored = 0;
    for alert in alerts.current_mut() {
        let labels = alert.series_labels(ALERTS_FOR_STATE, raw_labels, None);
        let labels = labels.filter(|name, _| name != METRIC_NAME);
        if let Some((seen_ms, active_s)) = stored.get(&labels) {
            alert.active_at_ms = active_at(for_ms, *seen_ms, *active_s, now_ms, settings);
            restored += 1;
        }
    }
    restored
}
