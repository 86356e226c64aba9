//! Files of exemplars as queries read them: several at once, and kept decoded beside what is kept of blocks.

use std::sync::Arc;

use super::file;
use crate::block::read::cache::Key;
use crate::block::read::store::BlockStore;
use crate::layout;
use crate::sidecar::{self, Sidecar};
use model::exemplar::{Gathered, SeriesExemplars};
use model::matcher::{Matcher, matches_all};
use model::source::{Budget, SourceError};
use model::tenant::TenantId;

/// Files that are read at once.
const FILES_AT_ONCE: usize = 16;

/// Which exemplars are asked for: of series that match any of the selectors, in a range with both ends
/// included.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub tenant: &'a TenantId,
    pub selectors: &'a [Vec<Matcher>],
    pub range_ms: (i64, i64),
}

/// Adds what files hold of it.
pub(crate) fn select(
    blocks: &BlockStore,
    files: &[Arc<Sidecar>],
    wanted: Wanted<'_>,
    budget: &Budget,
    to: &mut Gathered,
) -> Result<(), SourceError> {
    let (min_t_ms, max_t_ms) = wanted.range_ms;
    let files: Vec<_> = files.iter().filter(|f| f.overlaps(min_t_ms, max_t_ms)).cloned().collect();
    for some in files.chunks(FILES_AT_ONCE) {
        budget.check()?;
        for file in load(blocks, wanted.tenant, some)? {
            budget.check()?;
            for series in file.iter() {
                if wanted.selectors.iter().any(|m| matches_all(&series.labels, m)) {
                    let inside = |t: i64| min_t_ms <= t && t <= max_t_ms;
                    let found = series.exemplars.iter().filter(|e| inside(e.ts_ms));
                    budget.read_samples(found.clone().count() as u64);
                    to.add(&series.labels, found.cloned());
                }
            }
        }
    }
    Ok(())
}

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
