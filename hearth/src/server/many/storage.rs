//! What queries see in a process without a store of its own: the bucket, and what members have not flushed.

use std::collections::BTreeMap;
use std::sync::Arc;

use members::ingesters::Ingesters;
use members::source::{FreshSource, Missing};
use members::tenants::known_tenants;
use model::exemplar::SeriesExemplars;
use model::matcher::Matcher;
use model::sample::Metadata;
use model::source::{Budget, Reservation, Source, SourceError, TenantList};
use model::tenant::TenantId;
use query::api::upkeep::Upkeep;
use query::api::{Gaps, Readiness, Stored};

use crate::http::Server;
use crate::server::query_storage::{deletion, stored_block};

/// See the module.
pub struct FreshStorage {
    pub ingesters: Arc<Ingesters>,
    pub web: Server,
}

impl FreshStorage {
    fn fresh(&self, tenant: &TenantId) -> FreshSource {
        FreshSource::new(self.ingesters.clone(), tenant.clone(), None)
    }
}

/// What a small question may use: its answer is reserved by who keeps it.
fn small(budget: &Budget) -> Arc<Budget> {
    Budget::new(u64::MAX, u64::MAX, budget.deadline())
}

impl query::api::Storage for FreshStorage {
    fn source(&self, tenant: &TenantId) -> Arc<dyn Source> {
        Arc::new(self.fresh(tenant))
    }

    fn tenants(&self) -> TenantList {
        known_tenants(&self.ingesters)
    }

    fn source_in_part(&self, tenant: &TenantId) -> (Arc<dyn Source>, Gaps) {
        let missing = Arc::new(Missing::default());
        let source = FreshSource::new(self.ingesters.clone(), tenant.clone(), Some(missing.clone()));
        (Arc::new(source), Arc::new(move || missing.sentences()))
    }

    fn metadata(
        &self,
        tenant: &TenantId,
        metric: Option<&str>,
        budget: &Budget,
    ) -> Result<BTreeMap<String, Vec<Metadata>>, SourceError> {
        let known = self.fresh(tenant).metadata(metric, &small(budget))?;
        let bytes = |m: &Metadata| (m.kind.len() + m.help.len() + m.unit.len() + 100) as u64;
        budget.reserve(known.values().flatten().map(bytes).sum::<u64>())?;
        Ok(known)
    }

    fn exemplars(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        min_t_ms: i64,
        max_t_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<SeriesExemplars>, SourceError> {
        let small = small(budget);
        let found = self.fresh(tenant).exemplars(selectors, (min_t_ms, max_t_ms), &small)?;
        budget.read_samples(small.samples_read());
        let bytes = found.iter().map(|s| s.heap_bytes() as u64).sum();
        // To be refused here where it is too much; the caller reserves what it answers.
        budget.reserve(Reservation { bytes, samples: 0 })?;
        budget.release(Reservation { bytes, samples: 0 });
        Ok(found)
    }

    fn stored(&self, tenant: &TenantId) -> Stored {
        let snapshot = self.ingesters.reader().snapshot(tenant);
        Stored { blocks: snapshot.blocks.iter().map(|b| stored_block(b)).collect(), head: None }
    }

    fn upkeep(&self, tenant: &TenantId) -> Upkeep {
        let (read_ms, error) = self.ingesters.reader().contact();
        let mut upkeep = Upkeep {
            catalog_read_ms: Some(read_ms),
            catalog_error: error.or_else(|| self.ingesters.failure()),
            ..Upkeep::default()
        };
        let snapshot = self.ingesters.reader().snapshot(tenant);
        upkeep.deletions = snapshot.tombstones.iter().map(|t| deletion(t)).collect();
        upkeep
    }

    fn readiness(&self) -> Readiness {
        if self.web.stopping() { Readiness::Stopping } else { Readiness::Ready }
    }
}
