//! Groups of rules at work: when they are evaluated, what an evaluation does, and how a reload passes state
//! on.
//!
//! [`schedule`] says when, [`dependencies`] in which order, [`evaluate`] what one rule gives, `batch` what
//! several do that are written together, [`runner`] keeps the state of one group, [`backlog`] holds the slots
//! that were missed, [`reload`] matches old groups with new ones; all of these are pure or take time and
//! storage as arguments. [`running`] has the threads. Where several processes share the groups, [`sharing`]
//! says who evaluates which, and [`handover`] what the next one has to know.

pub mod backlog;
mod batch;
mod counting;
pub mod dependencies;
pub mod environment;
pub mod error;
pub mod evaluate;
pub mod handover;
pub mod load;
pub mod memory;
pub mod progress;
pub mod reload;
pub mod runner;
pub mod running;
pub mod schedule;
pub mod sharing;
pub mod side_by_side;
pub mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::labels::Labels;
use model::sample::Value;
use model::source::Source;
use model::tenant::TenantId;
use query::parse::{ParseOptions, parse_expr};

use self::error::WriteError;
use crate::alert::{Outgoing, Timing};
use crate::file::{Rule, RuleGroup, RuleKind};

/// What a group is known by; it keeps its state as long as this stays.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    pub tenant: TenantId,
    pub file: String,
    pub name: String,
}

/// A group that is ready to run.
#[derive(Clone, Debug)]
pub struct Group {
    pub key: GroupKey,
    pub interval_ms: i64,
    /// Queries look, and samples are written, so long before the slot.
    pub query_offset_ms: i64,
    pub spec: RuleGroup,
    pub rules: Vec<CompiledRule>,
}

/// What holds where a group says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    pub interval_ms: i64,
    pub query_offset_ms: i64,
}

impl Default for Defaults {
    fn default() -> Self {
        Defaults { interval_ms: 60_000, query_offset_ms: 0 }
    }
}

/// A rule with what is worked out once.
#[derive(Clone, Debug)]
pub struct CompiledRule {
    pub rule: Rule,
    /// The group's labels and the rule's over them.
    pub labels: BTreeMap<String, String>,
    /// The expression as the API shows it.
    pub query: String,
    pub timing: Timing,
}

impl Group {
    /// Makes a group ready; its rules must have been validated.
    pub fn new(
        tenant: TenantId,
        file: &str,
        spec: RuleGroup,
        defaults: &Defaults,
        parse: &ParseOptions,
    ) -> Result<Group, String> {
        let compile = |rule: &Rule| {
            let expr = parse_expr(&rule.expr, parse).map_err(|e| format!("{}: {e}", rule.name()))?;
            let mut labels = spec.labels.clone();
            labels.extend(rule.labels.clone());
            let (for_ms, keep_firing_for_ms) = match &rule.kind {
                RuleKind::Record(_) => (0, 0),
                RuleKind::Alert { for_ms, keep_firing_for_ms, .. } => (*for_ms, *keep_firing_for_ms),
            };
            Ok(CompiledRule {
                rule: rule.clone(),
                labels,
                query: expr.to_string(),
                timing: Timing { for_ms, keep_firing_for_ms, limit: spec.limit },
            })
        };
        Ok(Group {
            key: GroupKey { tenant, file: file.to_owned(), name: spec.name.clone() },
            interval_ms: spec.interval_ms.unwrap_or(defaults.interval_ms).max(1),
            query_offset_ms: spec.query_offset_ms.unwrap_or(defaults.query_offset_ms),
            rules: spec.rules.iter().map(compile).collect::<Result<_, String>>()?,
            spec,
        })
    }

    /// Whether the other says the same, so that it need not be started anew.
    pub fn is_same(&self, other: &Group) -> bool {
        self.key == other.key
            && self.interval_ms == other.interval_ms
            && self.query_offset_ms == other.query_offset_ms
            && self.spec == other.spec
    }
}

/// A sample that a rule writes.
#[derive(Clone, Debug)]
pub struct Row {
    pub labels: Labels,
    pub ts_ms: i64,
    pub value: Value,
}

/// The store as rules see it. The calls may block.
pub trait Storage: Send + Sync + 'static {
    /// One consistent view of all that a tenant has.
    fn source(&self, tenant: &TenantId) -> Arc<dyn Source>;

    /// Writes samples; when it returns they are durable, and every view that is taken from then on has
    /// them. Single samples that cannot be taken are said in the list, ascending by place in `rows` and with
    /// the reason, the others are stored.
    fn write(&self, tenant: &TenantId, rows: &[Row]) -> Result<Vec<(usize, String)>, WriteError>;
}

/// Where alerts go. Must not block.
pub trait Notify: Send + Sync + 'static {
    /// `expr` is the alerting rule's expression, for the link back.
    fn notify(&self, tenant: &TenantId, expr: &str, alerts: Vec<Outgoing>);
}

/// Whether this process is the one to evaluate a group. Must not block.
pub trait Ownership: Send + Sync + 'static {
    /// Asked before each evaluation, and again before what it gave is written or told.
    fn holds(&self, key: &GroupKey) -> bool;
}

/// There is no other process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Ownership for Alone {
    fn holds(&self, _: &GroupKey) -> bool {
        true
    }
}

/// Nowhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct NotifyNobody;

impl Notify for NotifyNobody {
    fn notify(&self, _: &TenantId, _: &str, _: Vec<Outgoing>) {}
}
