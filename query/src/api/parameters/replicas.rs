//! `dedup` and `replicaLabels[]`, as Thanos' querier has them: whether HA replicas of a series are shown as
//! one, and by which labels they are known.

use std::sync::Arc;

use model::labels::METRIC_NAME;
use model::quote::quote;
use model::source::Source;
use model::source::dedup::{DedupMode, DedupSource};

use crate::api::error::ApiError;
use crate::api::parameters::form::Form;
use crate::api::parameters::values::parse_bool;

/// What holds where a request says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Labels by which replicas differ; none: there are no replicas.
    pub labels: Vec<String>,
    pub mode: DedupMode,
}

impl Replicas {
    /// What a request asks for: `dedup` (true unless said otherwise) and, instead of the labels that are set,
    /// `replicaLabels[]`.
    pub(in crate::api) fn asked(&self, form: &Form) -> Result<Replicas, ApiError> {
        let dedup = match form.get("dedup") {
            "" => true,
            text => parse_bool(text).ok_or_else(|| {
                ApiError::parameter("dedup", format!("{} is neither true nor false", quote(text)))
            })?,
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

/// A source as a request wants to see it.
pub(in crate::api) fn deduplicated(source: Arc<dyn Source>, replicas: Replicas) -> Arc<dyn Source> {
    match replicas.labels.is_empty() {
        true => source,
        false => Arc::new(DedupSource::new(source, replicas.labels, replicas.mode)),
    }
}
