//! `dedup` and `replicaLabels[]`, as Thanos' querier has them: whether HA replicas of a series are shown as one, and by which labels they are known.

use std::sync::Arc;

use model::labels::METRIC_NAME;
use model::matcher::quote;
use model::source::Source;
use model::source::dedup::{DedupMode, DedupSource};
use model::tenant::TenantId;

use super::error::ApiError;
use super::form::Form;
use super::state::ApiState;

/// What holds where a request says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Labels by which replicas differ; none: there are no replicas.
    pub labels: Vec<String>,
    pub mode: DedupMode,
}

impl Replicas {
    /// What a request asks for: `dedup` (true unless said otherwise) and, instead of the labels that are set, `replicaLabels[]`.
    pub(super) fn asked(&self, form: &Form) -> Result<Replicas, ApiError> {
        // The words of Go's strconv.ParseBool.
        let dedup = match form.get("dedup") {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            other => {
                let why = format!("{} is neither true nor false", quote(other));
                return Err(ApiError::parameter("dedup", why));
            }
        };
        let asked: Vec<String> =
            form.all("replicaLabels[]").filter(|l| !l.is_empty()).map(str::to_string).collect();
        if asked.iter().any(|l| l == METRIC_NAME) {
            return Err(ApiError::parameter("replicaLabels[]", "a metric's name tells no replicas apart"));
        }
        let labels = match (dedup, asked.is_empty()) {
            (false, _) => Vec::new(),
            (true, true) => self.labels.clone(),
            (true, false) => asked,
        };
        Ok(Replicas { labels, mode: self.mode })
    }
}

impl ApiState {
    /// All that a tenant has, as a request wants to see it. May block.
    pub(super) fn source(&self, tenant: &TenantId, replicas: Replicas) -> Arc<dyn Source> {
        let source = self.config().storage.source(tenant);
        match replicas.labels.is_empty() {
            true => source,
            false => Arc::new(DedupSource::new(source, replicas.labels, replicas.mode)),
        }
    }
}
