//! A source over several tenants: each series says in a label whose it is.
//!
//! The label is `__tenant_id__`, as in Mimir, and matchers on it choose tenants before anything is read. A
//! series that came with a label of that name keeps its value under `original___tenant_id__`.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::source::{
    Budget, LabelQuery, Mark, MarkBuilder, Read, Selection, SeriesColumns, SeriesCursor, Source, SourceError,
};
use crate::tenant::TenantId;

/// The label that names the tenant.
pub const TENANT_LABEL: &str = "__tenant_id__";

/// Where a series' own label of that name goes.
pub const ORIGINAL_TENANT_LABEL: &str = "original___tenant_id__";

/// Series in a batch of the merged cursor.
const BATCH: usize = 256;

/// The sources of several tenants as one.
pub struct FederatedSource {
    members: Vec<(TenantId, Arc<dyn Source>)>,
}

impl FederatedSource {
    /// Each tenant at most once.
    pub fn new(members: Vec<(TenantId, Arc<dyn Source>)>) -> FederatedSource {
        FederatedSource { members }
    }
}

/// The labels of a tenant's series as the federation shows them.
pub fn with_tenant(labels: &Labels, tenant: &TenantId) -> Labels {
    let mut builder = labels.to_builder();
    if let Some(own) = labels.get(TENANT_LABEL) {
        builder.set(ORIGINAL_TENANT_LABEL, own);
    }
    builder.set(TENANT_LABEL, tenant.as_str()).build()
}

/// The matchers that are left for a tenant's own series; `None` where the others do not choose the tenant.
pub fn matchers_for(matchers: &[Matcher], tenant: &TenantId) -> Option<Vec<Matcher>> {
    let mut own = Vec::with_capacity(matchers.len());
    for matcher in matchers {
        match matcher.name.as_ref() {
            TENANT_LABEL if matcher.matches(tenant.as_str()) => {}
            TENANT_LABEL => return None,
            ORIGINAL_TENANT_LABEL => own.push(renamed(matcher)),
            _ => own.push(matcher.clone()),
        }
    }
    Some(own)
}

/// The matcher on what the series itself calls the label.
fn renamed(matcher: &Matcher) -> Matcher {
    let mut renamed = matcher.clone();
    renamed.name = TENANT_LABEL.into();
    renamed
}

/// A question about labels as a tenant's own source is asked it; `None` where no selector chooses the tenant.
fn query_for(query: &LabelQuery, tenant: &TenantId) -> Option<LabelQuery> {
    let selectors: Vec<Vec<Matcher>> =
        query.selectors.iter().filter_map(|selector| matchers_for(selector, tenant)).collect();
    let chosen = query.selectors.is_empty() || !selectors.is_empty();
    chosen.then(|| LabelQuery { selectors, ..query.clone() })
}

impl Source for FederatedSource {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        let mut cursors = Vec::new();
        for (tenant, source) in &self.members {
            if let Some(matchers) = matchers_for(&selection.matchers, tenant) {
                let inner = source.select(&Selection { matchers, ..selection.clone() })?;
                cursors.push(TenantCursor::new(tenant.clone(), inner, selection.budget.clone()));
            }
        }
        let mut merged = FederatedCursor { next: BinaryHeap::new(), cursors };
        for at in 0..merged.cursors.len() {
            merged.advance(at)?;
        }
        Ok(Box::new(merged))
    }

    fn marks(&self, groups: &[Vec<Read>], budget: &Arc<Budget>) -> Result<Vec<Option<Mark>>, SourceError> {
        let mut all: Vec<Option<MarkBuilder>> = vec![Some(MarkBuilder::default()); groups.len()];
        for (tenant, source) in &self.members {
            for (whole, of_tenant) in all.iter_mut().zip(source.marks(groups, budget)?) {
                match (whole.as_mut(), of_tenant) {
                    (Some(mark), Some(of_tenant)) => {
                        mark.text(tenant.as_str()).mark(of_tenant);
                    }
                    _ => *whole = None,
                }
            }
        }
        Ok(all.into_iter().map(|mark| mark.map(|m| m.build())).collect())
    }

    fn series(&self, query: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        let mut all = Vec::new();
        for (tenant, source) in &self.members {
            if let Some(query) = query_for(query, tenant) {
                all.extend(source.series(&query)?.iter().map(|labels| with_tenant(labels, tenant)));
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    fn label_names(&self, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        let mut names = Vec::new();
        for (tenant, source) in &self.members {
            if let Some(query) = query_for(query, tenant) {
                names.extend(source.label_names(&query)?);
            }
        }
        if names.iter().any(|name| name == TENANT_LABEL) {
            names.push(ORIGINAL_TENANT_LABEL.to_owned());
        }
        if !names.is_empty() {
            names.push(TENANT_LABEL.to_owned());
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn label_values(&self, name: &str, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        let own_name = if name == ORIGINAL_TENANT_LABEL { TENANT_LABEL } else { name };
        let mut values = Vec::new();
        for (tenant, source) in &self.members {
            let Some(query) = query_for(query, tenant) else { continue };
            if name != TENANT_LABEL {
                values.extend(source.label_values(own_name, &query)?);
            } else if !source.label_names(&query)?.is_empty() {
                values.push(tenant.as_str().to_owned());
            }
        }
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }
}

/// One tenant's series with the label, in the order that they have with it.
///
/// The label changes an order only between a series and longer ones that begin with all of its labels and go
/// on with a name before `__tenant_id__` (an upper-case one). The shorter one came first and now belongs
/// after them, so a series waits until one comes that it is before: as many wait as have such beginnings of
/// one another, a handful.
struct TenantCursor<'a> {
    tenant: TenantId,
    inner: Box<dyn SeriesCursor + 'a>,
    /// Of the inner cursor, reversed.
    batch: Vec<SeriesColumns>,
    /// Those that another may still come before; the first to be handed out is the last.
    waiting: Vec<SeriesColumns>,
    /// Read, and behind what may go of `waiting`.
    arrived: Option<SeriesColumns>,
    ended: bool,
    budget: Arc<Budget>,
    /// Bytes of what was read and not handed out: with many tenants it is much.
    reserved: u64,
}

impl Drop for TenantCursor<'_> {
    fn drop(&mut self) {
        self.budget.release(self.reserved);
    }
}

impl<'a> TenantCursor<'a> {
    fn new(tenant: TenantId, inner: Box<dyn SeriesCursor + 'a>, budget: Arc<Budget>) -> TenantCursor<'a> {
        TenantCursor {
            tenant,
            inner,
            batch: Vec::new(),
            waiting: Vec::new(),
            arrived: None,
            ended: false,
            budget,
            reserved: 0,
        }
    }

    /// The inner cursor's next, labelled.
    fn read(&mut self) -> Result<Option<SeriesColumns>, SourceError> {
        while self.batch.is_empty() && !self.ended {
            match self.inner.next_batch()? {
                Some(batch) => {
                    let bytes: u64 = batch.iter().map(SeriesColumns::memory_bytes).sum();
                    self.budget.reserve(bytes)?;
                    self.reserved += bytes;
                    self.batch = batch;
                    self.batch.reverse();
                }
                None => self.ended = true,
            }
        }
        Ok(self.batch.pop().map(|mut series| {
            series.labels = with_tenant(&series.labels, &self.tenant);
            series
        }))
    }

    fn next(&mut self) -> Result<Option<SeriesColumns>, SourceError> {
        let next = self.in_order()?;
        if self.reserved > 0 && self.waiting.is_empty() && self.batch.is_empty() && self.arrived.is_none() {
            self.budget.release(std::mem::take(&mut self.reserved));
        }
        Ok(next)
    }

    fn in_order(&mut self) -> Result<Option<SeriesColumns>, SourceError> {
        loop {
            let arrived = match self.arrived.take() {
                Some(arrived) => Some(arrived),
                None => self.read()?,
            };
            let Some(arrived) = arrived else { return Ok(self.waiting.pop()) };
            let first = self.waiting.last();
            if first.is_some_and(|first| first.labels.series_cmp(&arrived.labels) == Ordering::Less) {
                self.arrived = Some(arrived);
                return Ok(self.waiting.pop());
            }
            self.waiting.push(arrived);
        }
    }
}

/// A tenant's next series, ordered as cursors are.
struct Next {
    series: SeriesColumns,
    /// Which cursor it came from.
    at: usize,
}

impl Ord for Next {
    fn cmp(&self, other: &Next) -> Ordering {
        self.series.labels.series_cmp(&other.series.labels).then(self.at.cmp(&other.at))
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Next) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Next {
    fn eq(&self, other: &Next) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Next {}

/// All tenants' series in one order.
struct FederatedCursor<'a> {
    next: BinaryHeap<Reverse<Next>>,
    cursors: Vec<TenantCursor<'a>>,
}

impl FederatedCursor<'_> {
    fn advance(&mut self, at: usize) -> Result<(), SourceError> {
        if let Some(series) = self.cursors[at].next()? {
            self.next.push(Reverse(Next { series, at }));
        }
        Ok(())
    }
}

impl SeriesCursor for FederatedCursor<'_> {
    fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(Reverse(Next { series, at })) = self.next.pop()
        {
            batch.push(series);
            self.advance(at)?;
        }
        Ok((!batch.is_empty()).then_some(batch))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::matcher::MatchOp;
    use crate::source::Hints;
    use crate::source::memory::MemorySource;
    use crate::source::testing::conformance::drain;

    fn id(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn memory(series: &[&[(&str, &str)]]) -> Arc<dyn Source> {
        let source = MemorySource::new();
        for labels in series {
            let labels = Labels::from_pairs(labels.iter().copied());
            source.append_float(&labels, 1_000, 1.0);
        }
        Arc::new(source)
    }

    fn selected(source: &dyn Source, matchers: Vec<Matcher>) -> Vec<Labels> {
        let selection = Selection {
            matchers,
            min_t_ms: 0,
            max_t_ms: 10_000,
            hints: Hints::default(),
            budget: Budget::unlimited(),
        };
        drain(source, &selection).unwrap().into_iter().map(|s| s.labels).collect()
    }

    fn names(selectors: Vec<Vec<Matcher>>) -> LabelQuery {
        LabelQuery { selectors, min_t_ms: 0, max_t_ms: 10_000, budget: Budget::unlimited() }
    }

    fn of_two() -> FederatedSource {
        FederatedSource::new(vec![
            (id("a"), memory(&[&[("__name__", "up"), ("job", "x")], &[("__name__", "only_a")]])),
            (id("b"), memory(&[&[("__name__", "up"), ("job", "x"), (TENANT_LABEL, "mine")]])),
        ])
    }

    #[test]
    fn federation_labels_series_with_their_tenant() {
        let source = of_two();
        let shown: Vec<String> = selected(&source, Vec::new()).iter().map(Labels::to_string).collect();
        assert_eq!(
            shown,
            [
                r#"{__name__="only_a", __tenant_id__="a"}"#,
                r#"{__name__="up", __tenant_id__="a", job="x"}"#,
                r#"{__name__="up", __tenant_id__="b", job="x", original___tenant_id__="mine"}"#,
            ]
        );
        assert_eq!(
            source.label_names(&names(Vec::new())).unwrap(),
            ["__name__", TENANT_LABEL, "job", ORIGINAL_TENANT_LABEL]
        );
        assert_eq!(source.label_values(TENANT_LABEL, &names(Vec::new())).unwrap(), ["a", "b"]);
        assert_eq!(source.label_values(ORIGINAL_TENANT_LABEL, &names(Vec::new())).unwrap(), ["mine"]);
        assert_eq!(source.series(&names(Vec::new())).unwrap().len(), 3);
    }

    #[test]
    fn federation_chooses_tenants_by_matchers() {
        let source = of_two();
        let only = |op, value| vec![Matcher::new(op, TENANT_LABEL, value).unwrap()];
        assert_eq!(selected(&source, only(MatchOp::Equal, "b")).len(), 1);
        assert_eq!(selected(&source, only(MatchOp::NotEqual, "b")).len(), 2);
        assert_eq!(selected(&source, only(MatchOp::Regex, "a|b")).len(), 3);
        assert_eq!(selected(&source, only(MatchOp::Equal, "c")).len(), 0);
        let original = vec![Matcher::equal(ORIGINAL_TENANT_LABEL, "mine")];
        assert_eq!(selected(&source, original).len(), 1);
        let query = names(vec![only(MatchOp::Equal, "a"), only(MatchOp::Equal, "c")]);
        assert_eq!(source.series(&query).unwrap().len(), 2);
        assert_eq!(source.label_values("job", &query).unwrap(), ["x"]);
        assert!(source.series(&names(vec![only(MatchOp::Equal, "c")])).unwrap().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Names before and behind the label in every mixture: a cursor is in order, and has every series.
        #[test]
        fn federation_keeps_the_order_of_series(
            sets in prop::collection::vec(
                prop::collection::btree_map("[ABz_]{1,2}", "[xy]", 0..4), 0..40),
        ) {
            let sources: Vec<MemorySource> = (0..3).map(|_| MemorySource::new()).collect();
            for (i, set) in sets.iter().enumerate() {
                let pairs = set.iter().map(|(n, v)| (n.as_str(), v.as_str())).chain([("__name__", "m")]);
                sources[i % 3].append_float(&Labels::from_pairs(pairs), 1_000, i as f64);
            }
            let mut want = Vec::new();
            let mut members: Vec<(TenantId, Arc<dyn Source>)> = Vec::new();
            for (name, source) in ["a", "b", "c"].into_iter().zip(sources) {
                let all = selected(&source, Vec::new());
                want.extend(all.iter().map(|l| with_tenant(l, &id(name))));
                members.push((id(name), Arc::new(source)));
            }
            want.sort_by(Labels::series_cmp);
            prop_assert_eq!(selected(&FederatedSource::new(members), Vec::new()), want);
        }
    }
}
