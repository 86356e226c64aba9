//! Groups and rules as files have them, with and without the places of their parts.

use std::collections::BTreeMap;

use query::parse::ParseOptions;

use super::error::Position;

/// What makes a rule a recording or an alerting one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// The result is written under this metric name.
    Record(String),
    /// Each series of the result is an alert of this name.
    Alert {
        name: String,
        /// How long a series must be there before its alert fires.
        for_ms: i64,
        /// How long an alert goes on firing after its series has gone.
        keep_firing_for_ms: i64,
        /// Templates.
        annotations: BTreeMap<String, String>,
    },
}

/// A rule as its file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub kind: RuleKind,
    /// PromQL as written.
    pub expr: String,
    /// Templates where the rule is an alerting one.
    pub labels: BTreeMap<String, String>,
}

impl Rule {
    /// The record or the alert.
    pub fn name(&self) -> &str {
        match &self.kind {
            RuleKind::Record(name) => name,
            RuleKind::Alert { name, .. } => name,
        }
    }

    pub fn is_alert(&self) -> bool {
        matches!(self.kind, RuleKind::Alert { .. })
    }
}

/// A group of rules as its file has it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RuleGroup {
    pub name: String,
    /// `None`: the server's.
    pub interval_ms: Option<i64>,
    /// `None`: the server's.
    pub query_offset_ms: Option<i64>,
    /// Most series or alerts a rule may give; 0 for any number.
    pub limit: i64,
    /// Of every rule that does not say otherwise.
    pub labels: BTreeMap<String, String>,
    pub rules: Vec<Rule>,
}

/// How a file is read.
#[derive(Clone, Copy, Debug)]
pub struct FileOptions {
    /// Keys that nobody knows are an error.
    pub strict: bool,
    /// Also takes the keys that Mimir and Cortex have beside Prometheus' own: `source_tenants`,
    /// `evaluation_delay`, `align_evaluation_time_on_interval`.
    pub mimir_keys: bool,
    pub parse: ParseOptions,
}

impl Default for FileOptions {
    fn default() -> Self {
        FileOptions { strict: true, mimir_keys: false, parse: ParseOptions::default() }
    }
}

/// A rule with the places that errors about it name.
#[derive(Debug)]
pub struct PlacedRule {
    pub place: Position,
    pub record: Option<(Position, String)>,
    pub alert: Option<(Position, String)>,
    pub expr: Option<(Position, String)>,
    pub for_ms: i64,
    pub keep_firing_for_ms: i64,
    pub labels: BTreeMap<String, (Position, String)>,
    pub annotations: BTreeMap<String, (Position, String)>,
}

/// What a file says of a group, with its places.
#[derive(Debug)]
pub struct PlacedGroup {
    pub place: Position,
    pub name: String,
    pub interval_ms: Option<i64>,
    pub query_offset_ms: Option<i64>,
    pub limit: i64,
    pub labels: BTreeMap<String, (Position, String)>,
    pub rules: Vec<PlacedRule>,
}
