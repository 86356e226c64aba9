//! A reload: flags, variables, file and rule files are read again, and what can change while the process runs
//! does. If anything is wrong, all of it stays as it was.

use std::sync::Arc;

use model::clock::Clock;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use query::api::notifications::{Notifications, RELOAD_FAILED};
use query::api::progress::{ReloadStatus, Reloaded};

use super::limits::{self, LiveLimits};
use super::prometheus_words;
use super::rules::Rules;
use crate::config::{ConfigError, Loaded, Settings, TABLE};
use crate::error_chain::error_chain;
use crate::logging;

/// Reads flags, variables and file once more.
pub type ReadSettings = Arc<dyn Fn() -> Result<Loaded, ConfigError> + Send + Sync>;

/// What a reload changes; everything else waits for the next start.
const CHANGES: [&str; 26] = [
    "limits.file",
    "limits.ingestion_rate",
    "limits.ingestion_burst_size",
    "limits.max_global_series_per_user",
    "limits.max_global_series_per_metric",
    "limits.past_grace_period",
    "limits.out_of_order_time_window",
    "limits.max_fetched_series_per_query",
    "limits.max_fetched_chunks_per_query",
    "limits.max_fetched_chunk_bytes_per_query",
    "limits.max_total_query_length",
    "limits.max_partial_query_length",
    "limits.max_query_lookback",
    "limits.max_outstanding_requests_per_tenant",
    "log.level",
    "retention",
    "retention_5m",
    "retention_1h",
    "retention_rules",
    "retention_tenants",
    "rules.files",
    "rules.evaluation_interval",
    "rules.query_offset",
    "rules.external_labels",
    "rules.alertmanagers",
    "rules.alerting_file",
];

/// Whether the last reload worked and when one did, under upstream's names.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    successful: Gauge,
    success_timestamp: Gauge<f64, std::sync::atomic::AtomicU64>,
}

impl Metrics {
    /// Makes them, as after a start that worked, and shows them in a registry.
    pub fn register(registry: &mut Registry, clock: &dyn Clock) -> Metrics {
        let metrics = Metrics::default();
        let r = registry.sub_registry_with_prefix("prometheus_config");
        let help = "Whether the last reload of the configuration worked";
        r.register("last_reload_successful", help, metrics.successful.clone());
        r.register(
            "last_reload_success_timestamp_seconds",
            "Time of the last reload of the configuration that worked",
            metrics.success_timestamp.clone(),
        );
        metrics.came_to(true, clock);
        metrics
    }

    fn came_to(&self, worked: bool, clock: &dyn Clock) {
        self.successful.set(i64::from(worked));
        if worked {
            self.success_timestamp.set(clock.now_ms() as f64 / 1000.0);
        }
    }
}

/// What a reload has to reach. Cheap to clone.
#[derive(Clone)]
pub struct Reload(Arc<Parts>);

/// The parts of [`Reload`].
pub struct Parts {
    /// As the process was started with.
    pub started: Settings,
    pub read: ReadSettings,
    pub rules: Rules,
    /// Of writes too, where this process takes any; otherwise they are followed elsewhere.
    pub limits: Option<LiveLimits>,
    pub clock: Arc<dyn Clock>,
    pub notifications: Notifications,
    pub status: Arc<ReloadStatus>,
    pub metrics: Metrics,
}

impl Reload {
    pub fn new(parts: Parts) -> Reload {
        Reload(Arc::new(parts))
    }

    /// How the last one ended, for whoever shows it.
    pub fn status(&self) -> Arc<ReloadStatus> {
        self.0.status.clone()
    }

    /// Reads everything again and puts in force what can be. The keys that differ from those of the start and
    /// need another one are the result; the error has all that is wrong, a line each.
    pub async fn run(&self) -> Result<Vec<&'static str>, String> {
        let outcome = self.try_run().await;
        let parts = &self.0;
        let now_ms = parts.clock.now_ms();
        parts.status.ended(outcome.is_ok(), now_ms);
        parts.metrics.came_to(outcome.is_ok(), &*parts.clock);
        match &outcome {
            Ok(_) => parts.notifications.remove(RELOAD_FAILED),
            Err(_) => parts.notifications.add(RELOAD_FAILED, now_ms),
        }
        if let Ok(waiting) = &outcome
            && !waiting.is_empty()
        {
            let keys = waiting.join(", ");
            tracing::warn!("these settings have changed and take effect with the next start: {keys}");
        }
        outcome
    }

    async fn try_run(&self) -> Result<Vec<&'static str>, String> {
        let parts = &self.0;
        let read = parts.read.clone();
        let loaded = tokio::task::spawn_blocking(move || read())
            .await
            .map_err(|e| format!("reading the settings ended unexpectedly: {e}"))?
            .map_err(|e| e.to_string())?;
        let settings = loaded.settings.clone();
        let loaded = in_force(&parts.started, loaded);
        let limits = limits::read(loaded.settings.clone()).await.map_err(|e| error_chain(&e))?;
        parts.rules.reload(&settings).await?;
        if let Some(in_force) = &parts.limits {
            in_force.put(loaded.settings.clone(), limits);
        }
        logging::set_level(&settings.log_level.0)?;
        parts.status.put_in_force(Reloaded {
            config_yaml: prometheus_words::config(&loaded),
            external_labels: loaded.settings.rules_external_labels.0.into_iter().collect(),
        });
        Ok(need_a_start(&parts.started, &settings))
    }
}

/// What was read, with the values of the start for what is read at a start only.
fn in_force(started: &Settings, mut read: Loaded) -> Loaded {
    for option in TABLE.iter().filter(|option| !CHANGES.contains(&option.key)) {
        // What an option shows it also takes.
        let _ = (option.set)(&mut read.settings, &(option.show)(started));
    }
    read
}

/// The keys that have other values now and are read at a start only.
fn need_a_start(started: &Settings, now: &Settings) -> Vec<&'static str> {
    let differs = TABLE.iter().filter(|option| (option.show)(started) != (option.show)(now));
    differs.map(|option| option.key).filter(|key| !CHANGES.contains(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reload_tells_what_needs_a_start() {
        let started = Settings::default();
        let mut now = started.clone();
        let set = |settings: &mut Settings, key: &str, value: &str| {
            let option = TABLE.iter().find(|o| o.key == key).expect("a key of the table");
            (option.set)(settings, value).expect("a value of its kind");
        };
        set(&mut now, "retention", "30d");
        set(&mut now, "rules.files", "a.yml");
        assert_eq!(need_a_start(&started, &now), Vec::<&str>::new());
        set(&mut now, "listen", ":1234");
        set(&mut now, "rules.max_concurrency", "9");
        assert_eq!(need_a_start(&started, &now), ["listen", "rules.max_concurrency"]);
        for key in CHANGES {
            assert!(TABLE.iter().any(|o| o.key == key), "{key} is no setting");
        }
    }
}
