//! Hearth writes its own metrics into itself, so that the very first query shows data.

use std::sync::Arc;
use std::time::Duration;

use ingest::Limits;
use model::clock::Clock;
use model::tenant::TenantId;
use tokio::time::MissedTickBehavior;
use tsdb::db::Db;

use crate::http::Server;

/// Where they go and under which name.
pub struct SelfMetrics {
    pub server: Server,
    pub db: Arc<Db>,
    pub clock: Arc<dyn Clock>,
    /// The address listened on, as the `instance` label has it.
    pub instance: String,
}

impl SelfMetrics {
    /// Writes one round, as a scrape of `/metrics` would be stored, with `up` beside it.
    pub async fn write(&self) -> Result<(), String> {
        let text = self.server.metrics_text().await;
        let now_ms = self.clock.now_ms();
        let target = [("job", "hearth"), ("instance", self.instance.as_str())];
        let mut appender = self.db.appender(&TenantId::single()).await.map_err(|e| e.to_string())?;
        {
            let exposition = ingest::text::parse(&text).map_err(|e| format!("/metrics: {e}"))?;
            let outcome =
                ingest::text::append(&exposition, &target, &Limits::default(), now_ms, &mut appender);
            if !outcome.rejected.is_empty() {
                tracing::warn!("own metrics: {}", outcome.rejected.report(outcome.samples));
            }
        }
        let up = appender.series(&[("__name__", "up"), ("instance", &self.instance), ("job", "hearth")]);
        appender.float(up, now_ms, 1.0, 0);
        appender.commit().await.map_err(|e| e.to_string())?;
        Ok(())
    }

    /// Writes a round every so often, for ever.
    pub async fn run(self, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and the first round was written before.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if let Err(e) = self.write().await {
                tracing::warn!("own metrics could not be written: {e}");
            }
        }
    }
}
