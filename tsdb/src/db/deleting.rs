//! Deletion: what the head holds becomes blocks, then one commit hides the samples from every query.

use std::sync::Arc;

use super::Db;
use crate::catalog::{CatalogError, Edit};
use crate::deletion::Tombstone;
use model::matcher::Matcher;
use model::tenant::TenantId;

/// Why nothing was deleted.
#[derive(Debug, thiserror::Error, Clone)]
pub enum DeleteError {
    /// The object store or the disk does not work now: try again later.
    #[error("{0}")]
    Unavailable(String),
    /// More deletions are waiting than may.
    #[error("{0}")]
    TooMany(String),
}

impl Db {
    /// Hides the samples of series that match any of the selectors, from `min_t_ms` to `max_t_ms` (both
    /// included), in all that was acknowledged before the call. What is written later is not touched, nor is
    /// what other processes hold in heads of their own.
    ///
    /// Returns when the deletion is durable and every new query sees it; the bytes go when compaction
    /// rewrites the blocks.
    pub async fn delete_series(
        self: &Arc<Self>,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        min_t_ms: i64,
        max_t_ms: i64,
    ) -> Result<(), DeleteError> {
        let nothing = |what: &str, e: &dyn std::fmt::Display| {
            DeleteError::Unavailable(format!("nothing was deleted, because {what}: {e}. Try again"))
        };
        if selectors.is_empty() || min_t_ms > max_t_ms {
            return Ok(());
        }
        self.flush()
            .await
            .map_err(|e| nothing("the samples in memory could not be turned into blocks", &e))?;
        let catalog =
            self.catalog(tenant).await.map_err(|e| nothing("the catalog could not be opened", &e))?;
        let seen = catalog.refresh().await.map_err(|e| nothing("the catalog could not be read", &e))?;
        if seen.overlapping(min_t_ms, max_t_ms).is_empty() {
            return Ok(());
        }
        let now_ms = self.options.clock.now_ms();
        let one = |m: &Vec<Matcher>| Tombstone::new(m.clone(), min_t_ms, max_t_ms, now_ms);
        let edit = Edit::delete(selectors.iter().map(one).collect());
        let snapshot = catalog.commit(&edit).await.map_err(|e| match e {
            CatalogError::Full(why) => DeleteError::TooMany(why),
            // Whether it was made may be unknown: the text says so, and asking again does no harm.
            e => DeleteError::Unavailable(format!("the deletion could not be committed: {e}. Try again")),
        })?;
        self.adopt(tenant, snapshot);
        tracing::info!(%tenant, selectors = selectors.len(), min_t_ms, max_t_ms, "series deleted");
        Ok(())
    }
}
