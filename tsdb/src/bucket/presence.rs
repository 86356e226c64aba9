//! Whether the data files that a catalog names are in the store. A catalog that is whole says nothing of
//! them, and a query only looks at those it needs: what is gone would come to light years later.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use ulid::Ulid;

use crate::block::inspect::files;
use crate::catalog::{Catalog, CatalogError, Snapshot};
use crate::layout;
use crate::sidecar::Kind;
use model::tenant::TenantId;

/// Objects that are looked at once more at the same time.
const PARALLEL_HEADS: usize = 16;

/// An object that the newest snapshot names and the store does not have, or has in another length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingObject {
    /// The block that it is a part of; `None` for a file beside the blocks.
    pub block: Option<Ulid>,
    pub object: String,
    /// What is wrong with it.
    pub what: String,
}

/// An object that should be there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Named {
    block: Option<Ulid>,
    path: Path,
    /// `None` where the catalog does not say it.
    bytes: Option<u64>,
}

impl Named {
    /// What is wrong, given the length of the object that was found.
    fn judge(&self, found: Option<u64>) -> Option<MissingObject> {
        let what = match (found, self.bytes) {
            (None, _) => "it is not there".to_string(),
            (Some(found), Some(bytes)) if found != bytes => {
                format!("it has {found} bytes instead of {bytes}")
            }
            _ => return None,
        };
        Some(MissingObject { block: self.block, object: self.path.to_string(), what })
    }
}

/// All that a snapshot names: its blocks, those that retention took out for now, and what lies beside them.
fn named(tenant: &TenantId, snapshot: &Snapshot) -> Vec<Named> {
    let expired = snapshot.expired.iter().map(|e| &e.block);
    let mut all = Vec::new();
    for block in snapshot.blocks.iter().map(|b| &**b).chain(expired) {
        let mut add = |name: &str, bytes| {
            let path = layout::block_file(tenant, block.ulid, name);
            all.push(Named { block: Some(block.ulid), path, bytes });
        };
        add(layout::META, None);
        files(block).into_iter().for_each(|(name, file)| add(name, Some(file.bytes)));
    }
    all.extend(snapshot.sidecars().map(|(kind, file)| Named {
        block: None,
        path: kind.path(tenant, file.ulid),
        bytes: Some(file.bytes),
    }));
    all
}

/// Compares what a tenant's newest snapshot names with what the store lists: a LIST for each kind of object,
/// and a HEAD for each that seems to be gone.
pub(crate) async fn missing(
    store: &dyn ObjectStore,
    catalog: &Catalog,
) -> Result<Vec<MissingObject>, CatalogError> {
    let tenant = catalog.tenant();
    let failed = |what: &Path, e: object_store::Error| {
        CatalogError::store(format_args!("cannot look whether {what} is whole"), e)
    };
    // What this names was uploaded before, so that the listing has it, and is not removed before
    // `delete_delay` is over.
    let snapshot = catalog.refresh().await?;
    let mut found: HashMap<Path, u64> = HashMap::new();
    let mut folders = Vec::with_capacity(3);
    if !snapshot.blocks.is_empty() || !snapshot.expired.is_empty() {
        folders.push(layout::blocks(tenant));
    }
    for (kind, folder) in Kind::ALL.into_iter().zip(layout::sidecars(tenant)) {
        if snapshot.sidecars().any(|(of, _)| of == kind) {
            folders.push(folder);
        }
    }
    for folder in folders {
        let mut listed = store.list(Some(&folder));
        while let Some(object) = listed.try_next().await.map_err(|e| failed(&folder, e))? {
            found.insert(object.location, object.size);
        }
    }
    let is_absent = |named: &Named| named.judge(found.get(&named.path).copied()).is_some();
    let mut absent: Vec<Named> = named(tenant, &snapshot).into_iter().filter(is_absent).collect();
    if absent.is_empty() {
        return Ok(Vec::new());
    }
    // Perhaps it was replaced in the meantime, or the listing is old.
    let now = catalog.refresh().await?;
    let still: std::collections::HashSet<Named> = named(tenant, &now).into_iter().collect();
    absent.retain(|named| still.contains(named));
    let look = |named: Named| async move {
        match store.head(&named.path).await {
            Ok(object) => Ok(named.judge(Some(object.size))),
            Err(object_store::Error::NotFound { .. }) => Ok(named.judge(None)),
            Err(e) => Err(failed(&named.path, e)),
        }
    };
    let mut looks = Vec::with_capacity(absent.len());
    for named in absent {
        looks.push(look(named));
    }
    let looked: Vec<_> =
        futures::stream::iter(looks).buffered(PARALLEL_HEADS).try_collect::<Vec<_>>().await?;
    Ok(looked.into_iter().flatten().collect())
}

/// Says in the log what is gone, the first few by name.
pub fn report(tenant: &TenantId, missing: &[MissingObject]) {
    const NAMED: usize = 10;
    for of in missing.iter().take(NAMED) {
        tracing::error!(
            %tenant,
            "{} is named by the catalog, and {}: queries that need it fail. Bring it back from a backup or an older version of the object",
            of.object,
            of.what
        );
    }
    if let Some(more) = missing.len().checked_sub(NAMED).filter(|more| *more > 0) {
        tracing::error!(%tenant, "{more} more objects that the catalog names are gone or have another length");
    }
}
