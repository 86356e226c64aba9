//! Requests about several tenants at once: `a|b` and `*`.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::exemplar::SeriesExemplars;
use model::identity::Tenants;
use model::labels::Labels;
use model::matcher::Matcher;
use model::sample::Metadata;
use model::source::federation::{FederatedSource, matchers_for, with_tenant};
use model::source::{
    Budget, LabelQuery, Selection, SeriesCursor, Source, SourceError, TenantList, UnknownTenants,
};
use model::tenant::TenantId;

use crate::api::parameters::replicas::{Replicas, deduplicated};
use crate::api::state::{ApiState, Gaps};
use crate::api::tenant_limits;

/// Whether a path answers for several tenants at once. All others are about one.
pub fn federates(path: &str) -> bool {
    const PATHS: [&str; 9] = [
        "/api/v1/query",
        "/api/v1/query_range",
        "/api/v1/query_exemplars",
        "/api/v1/explain",
        "/api/v1/series",
        "/api/v1/labels",
        "/api/v1/metadata",
        "/api/v1/read",
        "/federate",
    ];
    PATHS.contains(&path)
        || ["/api/v1/queries", "/api/v1/status/queries"]
            .iter()
            .any(|list| path.strip_prefix(list).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        || (path.starts_with("/api/v1/label/") && path.ends_with("/values"))
        || path.starts_with("/api/v1/search/")
}

impl ApiState {
    /// All that the tenants of a request have, as it wants to see it. May block.
    pub(in crate::api) fn source(&self, tenants: &Tenants, replicas: Replicas) -> Arc<dyn Source> {
        let source: Arc<dyn Source> = match tenants {
            Tenants::One(tenant) => self.source_of(tenant),
            several => {
                let TenantList { tenants, unknown } = self.tenants(several);
                let members = tenants.into_iter().map(|tenant| (tenant.clone(), self.source_of(&tenant)));
                let source = FederatedSource::new(members.collect());
                match unknown.is_empty() {
                    true => Arc::new(source),
                    false => Arc::new(Incomplete { source, unknown }),
                }
            }
        };
        deduplicated(source, replicas)
    }

    /// The same for who takes a part of it rather than an error where some cannot be read, and what lacks.
    pub(in crate::api) fn source_in_part(
        &self,
        tenants: &Tenants,
        replicas: Replicas,
    ) -> (Arc<dyn Source>, Gaps) {
        if let Tenants::One(tenant) = tenants {
            let (source, gaps) = self.part_of(tenant);
            return (deduplicated(source, replicas), gaps);
        }
        let TenantList { tenants, unknown } = self.tenants(tenants);
        let (mut members, mut gaps) = (Vec::new(), Vec::<Gaps>::new());
        gaps.push(Arc::new(move || unknown.iter().map(|part| part.why.to_string()).collect()));
        for tenant in tenants {
            let (source, of_tenant) = self.part_of(&tenant);
            members.push((tenant, source));
            gaps.push(of_tenant);
        }
        let all: Gaps = Arc::new(move || gaps.iter().flat_map(|gaps| gaps()).collect());
        (deduplicated(Arc::new(FederatedSource::new(members)), replicas), all)
    }

    /// All that one tenant has, as far as its limits let it be seen.
    fn source_of(&self, tenant: &TenantId) -> Arc<dyn Source> {
        self.bounded(tenant, self.config().storage.source(tenant))
    }

    /// The same, and what lacks.
    fn part_of(&self, tenant: &TenantId) -> (Arc<dyn Source>, Gaps) {
        let (source, gaps) = self.config().storage.source_in_part(tenant);
        (self.bounded(tenant, source), gaps)
    }

    fn bounded(&self, tenant: &TenantId, source: Arc<dyn Source>) -> Arc<dyn Source> {
        let config = self.config();
        tenant_limits::within(source, &config.tenant_limits.of(tenant), config.clock.now_ms())
    }

    /// What the tenants say of metrics, what two of them say alike once.
    pub(in crate::api) fn metadata(
        &self,
        tenants: &Tenants,
        metric: Option<&str>,
        budget: &Budget,
    ) -> Result<BTreeMap<String, Vec<Metadata>>, SourceError> {
        let storage = &self.config().storage;
        let mut all: BTreeMap<String, Vec<Metadata>> = BTreeMap::new();
        for tenant in self.all_tenants(tenants)? {
            for (name, entries) in storage.metadata(&tenant, metric, budget)? {
                let known = all.entry(name).or_default();
                for entry in entries {
                    if !known.contains(&entry) {
                        known.push(entry);
                    }
                }
            }
        }
        Ok(all)
    }

    /// The tenants' exemplars, as [`crate::api::Storage::exemplars`] gives them of one.
    pub(in crate::api) fn exemplars(
        &self,
        tenants: &Tenants,
        selectors: &[Vec<Matcher>],
        min_t_ms: i64,
        max_t_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<SeriesExemplars>, SourceError> {
        let storage = &self.config().storage;
        if let Tenants::One(tenant) = tenants {
            return storage.exemplars(tenant, selectors, min_t_ms, max_t_ms, budget);
        }
        let mut all = Vec::new();
        for tenant in self.all_tenants(tenants)? {
            let own: Vec<Vec<Matcher>> =
                selectors.iter().filter_map(|selector| matchers_for(selector, &tenant)).collect();
            if own.is_empty() {
                continue;
            }
            let found = storage.exemplars(&tenant, &own, min_t_ms, max_t_ms, budget)?;
            all.extend(found.into_iter().map(|mut series| {
                series.labels = with_tenant(&series.labels, &tenant);
                series
            }));
        }
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(all)
    }

    /// The tenants one by one.
    fn tenants(&self, tenants: &Tenants) -> TenantList {
        match tenants {
            Tenants::One(tenant) => vec![tenant.clone()].into(),
            Tenants::Federated(tenants) => tenants.to_vec().into(),
            Tenants::Every => self.config().storage.tenants(),
        }
    }

    /// The same, or why one may be missing.
    fn all_tenants(&self, tenants: &Tenants) -> Result<Vec<TenantId>, SourceError> {
        let TenantList { tenants, unknown } = self.tenants(tenants);
        unknown.into_iter().next().map_or(Ok(tenants), |part| Err(part.why))
    }
}

/// A source that may lack tenants: it answers for times of which nothing can be missing.
struct Incomplete {
    source: FederatedSource,
    unknown: Vec<UnknownTenants>,
}

impl Incomplete {
    fn check(&self, max_t_ms: i64) -> Result<(), SourceError> {
        let lacks = |part: &&UnknownTenants| part.from_ms.is_none_or(|from_ms| from_ms <= max_t_ms);
        self.unknown.iter().find(lacks).map_or(Ok(()), |part| Err(part.why.clone()))
    }
}

impl Source for Incomplete {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        self.check(selection.max_t_ms)?;
        self.source.select(selection)
    }

    fn series(&self, query: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        self.check(query.max_t_ms)?;
        self.source.series(query)
    }

    fn label_names(&self, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        self.check(query.max_t_ms)?;
        self.source.label_names(query)
    }

    fn label_values(&self, name: &str, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        self.check(query.max_t_ms)?;
        self.source.label_values(name, query)
    }
}
