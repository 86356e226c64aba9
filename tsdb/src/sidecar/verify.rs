//! Whether a file beside the blocks is what the catalog says of it.

use model::tenant::TenantId;
use object_store::ObjectStore;

use super::{Kind, Sidecar, decode, exemplars, get, metadata};
use crate::block::BlockError;

/// Reads one whole and looks whether it is what the catalog says: its bytes, its columns, the number of its
/// rows and their times. `Corrupt` where not.
pub(crate) async fn verify(
    store: &dyn ObjectStore,
    tenant: &TenantId,
    kind: Kind,
    about: &Sidecar,
) -> Result<(), BlockError> {
    let path = kind.path(tenant, about.ulid);
    let object = path.as_ref();
    let bytes = get(store, &path, about).await?;
    let rows: u64 = decode(object, bytes.clone())?.iter().map(|b| b.num_rows() as u64).sum();
    let times: Vec<i64> = match kind {
        Kind::Exemplars => {
            let series = exemplars::file::decode(object, bytes)?;
            series.iter().flat_map(|s| s.exemplars.iter().map(|e| e.ts_ms)).collect()
        }
        Kind::Metadata => {
            let known = metadata::decode(object, bytes)?;
            known.values().flat_map(|entries| entries.values().copied()).collect()
        }
    };
    let span = (times.iter().min().copied().unwrap_or(0), times.iter().max().copied().unwrap_or(0));
    if (rows, span) != (about.rows, (about.min_t_ms, about.max_t_ms)) {
        let what = format!(
            "{rows} rows from {} to {} ms were found, the catalog says {} from {} to {}",
            span.0, span.1, about.rows, about.min_t_ms, about.max_t_ms
        );
        return Err(BlockError::Corrupt { object: object.to_string(), what });
    }
    Ok(())
}
