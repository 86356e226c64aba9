//! The tenants of a store that several processes make up, and which of these did not say theirs.

use super::SourceError;
use crate::tenant::TenantId;

/// The tenants that have anything, as far as that can be told.
#[derive(Clone, Debug, Default)]
pub struct TenantList {
    pub tenants: Vec<TenantId>,
    /// What could not be asked whose samples it has.
    pub unknown: Vec<UnknownTenants>,
}

/// A part of the store that may have samples of tenants that nobody knows of.
#[derive(Clone, Debug)]
pub struct UnknownTenants {
    /// Names it, and says what to do.
    pub why: SourceError,
    /// It has nothing older than this, in milliseconds; `None`: what it has may be of all times.
    pub from_ms: Option<i64>,
}

impl From<Vec<TenantId>> for TenantList {
    fn from(tenants: Vec<TenantId>) -> Self {
        TenantList { tenants, unknown: Vec::new() }
    }
}
