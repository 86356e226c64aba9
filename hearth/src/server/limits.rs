//! Limits of tenants while the process runs: their file is read again every few seconds, and they are shown.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use compactor::worker::Compactor;
use ingest::http::IngestState;
use model::clock::Clock;
use model::tenant_limits::{LimitsByTenant, LimitsInForce};
use parking_lot::RwLock;

use super::compaction;
use super::retention::{self, Retention};
use crate::config::Settings;
use crate::config::limits::{self, LimitsError, LimitsRead, Shown};
use crate::error_chain::error_chain;
use crate::metrics::limits::FileStatus;

/// How often the file is read again.
pub const EVERY: Duration = Duration::from_secs(10);

/// Limits in force, and who has to know when they change. Cheap to clone.
#[derive(Clone)]
pub struct LiveLimits(Arc<Parts>);

/// The parts of [`LiveLimits`].
pub struct Parts {
    pub limits: LimitsByTenant,
    /// As of the last reload.
    pub settings: RwLock<Settings>,
    pub file: Arc<FileStatus>,
    pub retention: Retention,
    pub ingest: IngestState,
    pub compactor: Option<Arc<Compactor>>,
    pub clock: Arc<dyn Clock>,
}

impl LiveLimits {
    pub fn new(parts: Parts) -> LiveLimits {
        parts.file.read(parts.clock.now_ms());
        LiveLimits(Arc::new(parts))
    }

    /// Puts limits in force that were read with these settings, and the retention that goes with them.
    pub fn put(&self, settings: Settings, read: LimitsRead) {
        let parts = &self.0;
        parts.file.read(parts.clock.now_ms());
        let before = parts.limits.in_force();
        let keep = retention::with_limits(compaction::keep(&settings), &read.limits);
        parts.ingest.set_retention_ms(compaction::longest_raw_ms(&keep));
        if let Some(compactor) = &parts.compactor {
            compactor.set_retention(keep.clone());
        }
        parts.retention.set(keep);
        *parts.settings.write() = settings;
        if *before != read.limits {
            told(&before, &read);
            parts.limits.replace(read.limits);
        }
    }

    /// Reads the file again and again, for ever. One that is wrong changes nothing.
    pub async fn watch(self) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut wrong = String::new();
        loop {
            ticks.tick().await;
            let settings = self.0.settings.read().clone();
            if settings.limits_file.0.as_os_str().is_empty() {
                continue;
            }
            match read(settings.clone()).await {
                Ok(found) => {
                    wrong.clear();
                    // A reload may have come in between.
                    if self.0.settings.read().limits_file == settings.limits_file {
                        self.put(settings, found);
                    }
                }
                Err(e) => {
                    self.0.file.failed();
                    let why = error_chain(&e);
                    if why != wrong {
                        tracing::error!("the limits of tenants stay as they were: {why}");
                        wrong = why;
                    }
                }
            }
        }
    }

    /// `GET /runtime_config`, as Mimir has it: `mode=diff` shows only what differs from the settings,
    /// `mode=defaults` what those say.
    pub fn router(&self) -> Router {
        router(self.0.limits.clone())
    }
}

/// The same of limits alone, for a process that takes no writes.
pub fn router(limits: LimitsByTenant) -> Router {
    Router::new().route("/runtime_config", get(show)).with_state(limits)
}

/// Reads the file on a thread that may block.
pub async fn read(settings: Settings) -> Result<LimitsRead, LimitsError> {
    let read = tokio::task::spawn_blocking(move || limits::load(&settings)).await;
    read.unwrap_or_else(|e| {
        Err(LimitsError::Wrong(vec![format!("limits.file: reading it ended unexpectedly: {e}")]))
    })
}

/// Logs that limits are others now.
fn told(before: &LimitsInForce, read: &LimitsRead) {
    let now = &read.limits;
    let changed = now.overrides.iter().filter(|(t, l)| before.overrides.get(t) != Some(l)).count();
    let gone = before.overrides.keys().filter(|t| !now.overrides.contains_key(t)).count();
    tracing::info!(
        "limits of {changed} tenants have changed, {gone} tenants have none of their own any more"
    );
    for warning in read.warnings.iter().take(20) {
        tracing::warn!("{warning}");
    }
}

#[derive(serde::Deserialize)]
struct Mode {
    #[serde(default)]
    mode: String,
}

async fn show(State(limits): State<LimitsByTenant>, Query(Mode { mode }): Query<Mode>) -> Response {
    let shown = match mode.as_str() {
        "" => Shown::All,
        "diff" => Shown::Differing,
        "defaults" => Shown::Defaults,
        other => {
            let why = format!("mode is {other:?}: it may be diff or defaults\n");
            return (StatusCode::BAD_REQUEST, why).into_response();
        }
    };
    let text = limits::show(&limits.in_force(), shown);
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// Keeps a compactor's retention as the file says, for ever: for a process that does nothing else.
pub async fn watch_retention(compactor: Arc<Compactor>, settings: Settings) {
    if settings.limits_file.0.as_os_str().is_empty() {
        return;
    }
    loop {
        tokio::time::sleep(EVERY).await;
        match read(settings.clone()).await {
            Ok(found) => {
                compactor.set_retention(retention::with_limits(compaction::keep(&settings), &found.limits));
            }
            Err(e) => {
                tracing::error!("retention stays as it was: {}", error_chain(&e));
            }
        }
    }
}

/// Keeps the limits of queries as the file says, for ever: for a process that takes no writes.
pub async fn watch_queries(limits: LimitsByTenant, settings: Settings) {
    if settings.limits_file.0.as_os_str().is_empty() {
        return;
    }
    loop {
        tokio::time::sleep(EVERY).await;
        match read(settings.clone()).await {
            Ok(found) => limits.replace(found.limits),
            Err(e) => tracing::error!("the limits of tenants stay as they were: {}", error_chain(&e)),
        }
    }
}
