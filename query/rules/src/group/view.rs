//! What a group shows of itself: the state of its rules and what they cost.

use std::sync::Arc;

use super::Group;
use crate::alert::{Alert, State};

/// Whether a rule's last evaluation worked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    #[default]
    Unknown,
    Ok,
    Err,
}

impl Health {
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Unknown => "unknown",
            Health::Ok => "ok",
            Health::Err => "err",
        }
    }
}

/// A group after its last evaluation.
#[derive(Clone, Debug)]
pub struct GroupView {
    pub group: Arc<Group>,
    pub rules: Vec<RuleView>,
    /// When it was evaluated, by the clock; `None` before the first time.
    pub last_evaluation_ms: Option<i64>,
    /// How long that took, in seconds.
    pub evaluation_s: f64,
    /// How late the evaluation began, in seconds.
    pub lag_s: f64,
    /// Slots that were not evaluated in time.
    pub missed: u64,
    /// Missed slots that were evaluated later.
    pub backfilled: u64,
}

/// A rule after its last evaluation.
#[derive(Clone, Debug, Default)]
pub struct RuleView {
    pub health: Health,
    pub last_error: Option<String>,
    pub last_evaluation_ms: Option<i64>,
    pub evaluation_s: f64,
    /// Samples that its last evaluation read.
    pub samples_read: u64,
    /// Series that it wrote.
    pub series_written: u64,
    /// Pending and firing alerts, ascending by labels.
    pub alerts: Vec<Alert>,
    pub state: Option<State>,
}
