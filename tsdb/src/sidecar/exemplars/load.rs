//! Files of exemplars as queries read them: several at once, and kept decoded beside what is kept of blocks.

use std::sync::Arc;

use super::file;
use crate::block::read::cache::Key;
use crate::block::read::store::BlockStore;
use crate::layout;
use crate::sidecar::{self, Sidecar};
use model::exemplar::SeriesExemplars;
use model::source::SourceError;
use model::tenant::TenantId;

/// Files of exemplars, from the cache of blocks or read and decoded.
pub(crate) fn load(
    blocks: &BlockStore,
    tenant: &TenantId,
    files: &[Arc<Sidecar>],
) -> Result<Vec<Arc<Vec<SeriesExemplars>>>, SourceError> {
    let cached = files.iter().map(|f| blocks.cache.get(&Key::Exemplars(f.ulid)));
    let mut found: Vec<Option<Arc<Vec<SeriesExemplars>>>> = cached.collect();
    let missing: Vec<usize> = (0..files.len()).filter(|i| found[*i].is_none()).collect();
    let path = |i: usize| layout::exemplars(tenant, files[i].ulid);
    let wanted: Vec<_> = missing.iter().map(|i| (path(*i), (*files[*i]).clone())).collect();
    if wanted.is_empty() {
        return Ok(found.into_iter().flatten().collect());
    }
    for (i, bytes) in missing.iter().copied().zip(sidecar::read_all(blocks, wanted)?) {
        let series = file::decode(path(i).as_ref(), bytes);
        let series = Arc::new(series.map_err(SourceError::storage)?);
        let size = series.iter().map(SeriesExemplars::heap_bytes).sum();
        blocks.cache.put(Key::Exemplars(files[i].ulid), series.clone(), size);
        found[i] = Some(series);
    }
    Ok(found.into_iter().flatten().collect())
}
