//! Answers with exemplars and metadata.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use model::matcher::Matcher;
use model::source::Budget;
use model::tenant::TenantId;
use serde::Serialize;
use tsdb::db::Db;

use super::{Refusal, Sink, refused};
use crate::PROTOCOL;
use crate::wire::json::{JsonAnswer, Series};
use crate::wire::request::Question;

/// A question, read.
pub(super) struct About<'a> {
    pub question: &'a Question,
    pub tenant: &'a TenantId,
    pub selectors: &'a [Vec<Matcher>],
}

impl About<'_> {
    /// All that this process sees of exemplars, the bucket's too: what leaves memory for the bucket meanwhile
    /// must not be missed.
    pub fn exemplars(&self, db: &Arc<Db>, budget: &Arc<Budget>, sink: &mut dyn Sink) -> Result<(), Refusal> {
        let Question { min_t_ms, max_t_ms, .. } = *self.question;
        let found = db.exemplars(self.tenant, self.selectors, min_t_ms, max_t_ms, budget).map_err(refused)?;
        let bytes: u64 = found.iter().map(|s| 3 * s.heap_bytes() as u64).sum();
        budget.reserve(bytes).map_err(refused)?;
        self.send(found.iter().map(Series::write).collect::<Vec<_>>(), sink)
    }

    /// All that this process knows of metrics.
    pub fn metadata(
        &self,
        db: &Arc<Db>,
        metric: Option<&str>,
        budget: &Arc<Budget>,
        sink: &mut dyn Sink,
    ) -> Result<(), Refusal> {
        let known = db.metadata(self.tenant, metric, budget).map_err(refused)?;
        let all: BTreeMap<String, Vec<[String; 3]>> = known
            .into_iter()
            .map(|(metric, all)| (metric, all.into_iter().map(|m| [m.kind, m.help, m.unit]).collect()))
            .collect();
        self.send(all, sink)
    }

    fn send<T: Serialize>(&self, data: T, sink: &mut dyn Sink) -> Result<(), Refusal> {
        let (writer, tenant) = (self.question.writer.clone(), self.question.tenant.clone());
        let answer = JsonAnswer { version: PROTOCOL, writer, tenant, data };
        let failed = |e: &dyn std::fmt::Display| Refusal { status: 500, text: e.to_string() };
        let text = serde_json::to_vec(&answer).map_err(|e| failed(&e))?;
        sink.begin().map_err(|e| failed(&e))?;
        let mut text = Bytes::from(text);
        while !text.is_empty() {
            let piece = text.split_to(text.len().min(256 << 10));
            if sink.piece(piece).is_err() {
                break;
            }
        }
        Ok(())
    }
}
