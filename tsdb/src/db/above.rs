//! What of a tenant lies above a floor: what a process lacks that reads the object store alone.
//!
//! A reader holds a snapshot of the tenant's catalog; the watermark that this process has in it is the
//! reader's *floor*. A sample of this process is in the snapshot's blocks (its segment of the log is at or
//! below the floor) or above the floor, never both, whatever is flushed meanwhile. What a flush has committed
//! stays here for some minutes ([`DbOptions::keep_committed`]), so that a reader whose snapshot is older than
//! the commit finds it; one whose snapshot is older than that is told to get a newer one.
//!
//! [`DbOptions::keep_committed`]: super::DbOptions::keep_committed

use model::matcher::Matcher;
use model::source::{Budget, Source, SourceError};
use model::tenant::TenantId;

use super::Db;
use super::local::LocalBlock;
use super::view::View;

/// Local blocks and head of a tenant above a floor, at one moment.
pub struct Above {
    view: View,
    snapshot: u64,
}

/// What lay above the floor is here no more: it is in the object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "what lies above segment {floor} of this writer's log is in the object store: read snapshot {snapshot} or a later one"
)]
pub struct FloorTooLow {
    pub floor: u64,
    /// A snapshot of the tenant's catalog that is new enough.
    pub snapshot: u64,
}

impl Above {
    /// The number of the newest snapshot that this process knows of the tenant; 0 for none. A reader of an
    /// older one may want it.
    pub fn snapshot(&self) -> u64 {
        self.snapshot
    }

    /// Where samples of matching series lie within a range, coarsely: ranges with both ends included,
    /// ascending by their first. There, windows in the object store do not tell all.
    pub fn unsettled_ms(
        &self,
        matchers: &[Matcher],
        first_ms: i64,
        last_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<(i64, i64)>, SourceError> {
        self.view.unsettled_ms(matchers, first_ms, last_ms, budget)
    }

    pub fn source(&self) -> &dyn Source {
        &self.view
    }
}

impl Db {
    /// What a tenant has here beyond the segment `floor` of this process' log; 0 for everything.
    pub fn above(&self, tenant: &TenantId, floor: u64) -> Result<Above, FloorTooLow> {
        let state = self.state.read().clone();
        let snapshot = state.snapshots.get(tenant).map_or(0, |s| s.number);
        if state.gone.get(tenant).is_some_and(|gone| *gone > floor) {
            return Err(FloorTooLow { floor, snapshot });
        }
        let committed = state.committed.iter().map(|c| &c.sealed);
        let blocks: Vec<&LocalBlock> = committed
            .chain(&state.sealed)
            .filter(|sealed| sealed.last_segment > floor)
            .filter_map(|sealed| sealed.block(tenant))
            .collect();
        let view = self.view(tenant, None, &blocks, state.clone());
        Ok(Above { view, snapshot })
    }
}
