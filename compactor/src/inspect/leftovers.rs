//! What lies in a bucket and is needed by nobody.

use std::time::Duration;

use serde::Serialize;
use tsdb::catalog::Catalog;
use tsdb::depot::{BlockFolder, Depot, Leftover};
use tsdb::tenant::TenantId;

use super::InspectError;
use crate::garbage::garbage;

/// How long a block may have been out of the newest snapshot and still be read: longer than any query.
pub const READERS: Duration = Duration::from_secs(30 * 60);

/// A folder of objects below `blocks/` that no snapshot names which a reader may still hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Orphan {
    pub tenant: String,
    pub block: String,
    pub objects: u64,
    pub bytes: u64,
    pub written_ms: i64,
}

/// The orphans of a tenant whose newest object is at least so old.
pub async fn orphans(
    depot: &Depot,
    tenant: &TenantId,
    catalog: &Catalog,
    older_than: Duration,
) -> Result<Vec<(Orphan, BlockFolder)>, InspectError> {
    // Listed before it is asked what is named: what is committed in between is named.
    let folders = depot.folders(tenant).await?;
    let ms = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
    let named = depot.named(catalog, ms(READERS)).await?;
    let found = garbage(&folders, &named, depot.clock().now_ms(), ms(older_than));
    let orphan = |f: BlockFolder| {
        let line = Orphan {
            tenant: tenant.to_string(),
            block: f.ulid.to_string(),
            objects: f.objects,
            bytes: f.bytes,
            written_ms: f.written_ms,
        };
        (line, f)
    };
    Ok(found.into_iter().map(orphan).collect())
}

/// Objects of no tenant that are at least so old.
pub async fn strays(depot: &Depot, older_than: Duration) -> Result<Vec<Leftover>, InspectError> {
    let now_ms = depot.clock().now_ms();
    let age_ms = i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX);
    let mut found = depot.leftovers().await?;
    found.retain(|l| now_ms.saturating_sub(l.written_ms) >= age_ms);
    Ok(found)
}
