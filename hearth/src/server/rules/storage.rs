//! The store as rules see it: they write by the same appender as everybody, and read what they wrote.

use std::sync::Arc;

use model::sample::Value;
use model::source::Source;
use model::tenant::TenantId;
use rules::group::error::WriteError;
use rules::group::{Row, Storage};
use tokio::runtime::Handle;
use tsdb::db::Db;

use super::peers::Peers;
use crate::config::Settings;

/// The store as rules read and write it. Must be made within a runtime.
pub struct RuleStorage {
    db: Arc<Db>,
    runtime: Handle,
    max_labels: usize,
    max_name_bytes: usize,
    max_value_bytes: usize,
    max_series_bytes: usize,
    peers: Option<Peers>,
}

impl RuleStorage {
    /// `peers` are told what is written, where groups are shared.
    pub fn new(db: Arc<Db>, settings: &Settings, peers: Option<Peers>) -> RuleStorage {
        RuleStorage {
            db,
            runtime: Handle::current(),
            max_labels: settings.ingest_max_labels.get(),
            max_name_bytes: settings.ingest_max_label_name.bytes(),
            max_value_bytes: settings.ingest_max_label_value.bytes(),
            max_series_bytes: settings.ingest_max_series.bytes(),
            peers,
        }
    }

    /// Why the labels of a series are too large, if they are: the limits of every other write.
    fn too_large(&self, labels: &[(&str, &str)]) -> Option<&'static str> {
        let whole: usize = labels.iter().map(|(n, v)| n.len() + v.len()).sum();
        match () {
            _ if labels.len() > self.max_labels => Some("more labels than ingest.max_labels"),
            _ if labels.iter().any(|(n, _)| n.len() > self.max_name_bytes) => {
                Some("a label's name is longer than ingest.max_label_name_bytes")
            }
            _ if labels.iter().any(|(_, v)| v.len() > self.max_value_bytes) => {
                Some("a label's value is longer than ingest.max_label_value_bytes")
            }
            _ if whole > self.max_series_bytes => Some("larger than ingest.max_series_bytes"),
            _ => None,
        }
    }
}

impl Storage for RuleStorage {
    fn source(&self, tenant: &TenantId) -> Arc<dyn Source> {
        self.db.source(tenant)
    }

    fn write(&self, tenant: &TenantId, rows: &[Row]) -> Result<Vec<(usize, String)>, WriteError> {
        let mut refused = Vec::new();
        self.runtime.block_on(async {
            let mut appender = self.db.appender(tenant).await.map_err(WriteError::new)?;
            let mut labels: Vec<(&str, &str)> = Vec::new();
            for (at, row) in rows.iter().enumerate() {
                labels.clear();
                labels.extend(&row.labels);
                if let Some(why) = self.too_large(&labels) {
                    refused.push((at, format!("{}: {why}", row.labels)));
                    continue;
                }
                let series = appender.series(&labels);
                match &row.value {
                    Value::Float(v) => appender.float(series, row.ts_ms, *v, 0),
                    Value::Histogram(h) => appender.histogram(series, row.ts_ms, h.clone(), 0),
                }
            }
            appender.commit().await.map_err(WriteError::new)
        })?;
        if let Some(peers) = &self.peers {
            // With what was refused here, which they refuse as well.
            peers.tell(tenant, rows);
        }
        Ok(refused)
    }
}
