//! What all groups work with, and the state of one rule.

use std::collections::HashSet;
use std::sync::Arc;

use model::clock::Clock;
use model::labels::Labels;
use query::engine::Engine;

use super::side_by_side::SpareThreads;
use super::view::RuleView;
use super::{Notify, Ownership, Storage};
use crate::alert::Alerts;
use crate::alert::restore::Restore;
use crate::metrics::Metrics;
use crate::template::SharedExternal;

/// What all groups work with.
pub struct Environment {
    pub engine: Engine,
    pub storage: Arc<dyn Storage>,
    pub notify: Arc<dyn Notify>,
    pub clock: Arc<dyn Clock>,
    pub external: SharedExternal,
    pub restore: Restore,
    /// How long an alert that has not changed is not sent again.
    pub resend_delay_ms: i64,
    pub metrics: Metrics,
    pub ownership: Arc<dyn Ownership>,
    /// For rules of one group that do not read one another's series.
    pub spare: SpareThreads,
}

/// The state of one rule.
#[derive(Debug, Default)]
pub(super) struct RuleState {
    /// Series of the last evaluation that worked.
    pub seen: HashSet<Labels>,
    pub alerts: Alerts,
    /// Whether it is known since when its alerts were pending before the process started.
    pub restored: bool,
    pub view: RuleView,
}
