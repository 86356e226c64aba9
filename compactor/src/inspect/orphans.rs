//! What lies in a bucket and is needed by nobody.

use std::time::Duration;

use serde::Serialize;
use tsdb::bucket::maintenance::{BucketMaintenance, OrphanObject};
use tsdb::catalog::Catalog;

use super::InspectError;
use crate::garbage::{Piece, find};

/// How long a block may have been out of the newest snapshot and still be read: longer than any query.
pub const READERS: Duration = Duration::from_secs(30 * 60);

/// Objects of a tenant that nobody needs: a block's folder, a file of exemplars or of metadata, or an entry
/// of the journal of imports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Orphan {
    pub tenant: String,
    /// `block`, `exemplars`, `metadata` or `import`.
    pub kind: &'static str,
    /// A ULID; of an import the key of its unit.
    pub name: String,
    pub objects: u64,
    pub bytes: u64,
    pub written_ms: i64,
}

/// The orphans of a tenant whose newest object is at least so old at `now_ms`. Whoever removes them takes
/// [`BucketMaintenance::cautious_now_ms`]: where this machine's clock is ahead, uploads under way seem old.
pub async fn orphans(
    maintenance: &BucketMaintenance,
    catalog: &Catalog,
    older_than: Duration,
    now_ms: i64,
) -> Result<Vec<(Orphan, Piece)>, InspectError> {
    let found = find(maintenance, catalog, READERS, older_than, now_ms).await?;
    let orphan = |piece: Piece| {
        let (kind, name) = piece.name();
        let line = Orphan {
            tenant: catalog.tenant().to_string(),
            kind,
            name,
            objects: piece.objects(),
            bytes: piece.bytes(),
            written_ms: piece.written_ms(),
        };
        (line, piece)
    };
    Ok(found.into_iter().map(orphan).collect())
}

/// Objects of no tenant that are at least so old at `now_ms`.
pub async fn strays(
    maintenance: &BucketMaintenance,
    older_than: Duration,
    now_ms: i64,
) -> Result<Vec<OrphanObject>, InspectError> {
    let age_ms = crate::settings::millis(older_than);
    let mut found = maintenance.orphans().await?;
    found.retain(|l| now_ms.saturating_sub(l.written_ms) >= age_ms);
    Ok(found)
}
