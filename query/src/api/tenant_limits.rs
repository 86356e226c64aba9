//! What a tenant's limits do to a request: queries that are refused before they wait, and how much of the
//! past the others see.

use std::sync::Arc;

use model::identity::Tenants;
use model::source::{
    Budget, LabelQuery, Mark, Read, Selection, SeriesColumns, SeriesCursor, Source, SourceError,
};
use model::tenant::TenantId;
use model::tenant_limits::{Limit, LimitsByTenant, TenantLimits};

use crate::api::error::ApiError;
use crate::api::queue::QueueBounds;
use crate::engine::QueryTime;

/// Refuses a query that the administrator of one of its tenants blocks, or that is longer than it may be.
/// Cheap: to be called before a permit is waited for.
pub(in crate::api) fn check(
    all: &LimitsByTenant,
    tenants: &Tenants,
    text: &str,
    time: QueryTime,
) -> Result<(), ApiError> {
    match tenants {
        Tenants::One(tenant) => check_one(all, tenant, text, time),
        Tenants::Federated(tenants) => tenants.iter().try_for_each(|t| check_one(all, t, text, time)),
        // What holds for everybody, and for those for whom something else does.
        Tenants::Every => {
            let overrides = all.in_force();
            check_one(all, &tenants.first(), text, time)?;
            overrides.overrides.keys().try_for_each(|t| check_one(all, t, text, time))
        }
    }
}

fn check_one(all: &LimitsByTenant, tenant: &TenantId, text: &str, time: QueryTime) -> Result<(), ApiError> {
    let limits = all.of(tenant);
    let (range_ms, step_ms) = match time {
        QueryTime::Instant { .. } => (0, None),
        QueryTime::Range { start_ms, end_ms, step_ms } => {
            (end_ms.saturating_sub(start_ms).max(0) as u64, Some(step_ms.max(0) as u64))
        }
    };
    if let Some(rule) = limits.blocked_queries.iter().find(|rule| rule.blocks(text, range_ms, step_ms)) {
        all.blocked(tenant);
        let reason = if rule.reason.is_empty() { "no reason is given" } else { &rule.reason };
        return Err(ApiError::bad_data(format!(
            "the query is blocked for this tenant (blocked_queries in limits.file): {reason}"
        )));
    }
    if let Some(longest) = limits.bound(Limit::MaxTotalQueryLength).filter(|longest| range_ms > *longest) {
        let limit = Limit::MaxTotalQueryLength;
        all.refused(tenant, limit, 1);
        let what = format!("the query's range is {}", limit.shown(range_ms));
        return Err(ApiError::bad_data(limit.refusal(what, longest)));
    }
    Ok(())
}

/// What a tenant may in the queue.
pub(in crate::api) fn queue_bounds(limits: &TenantLimits) -> QueueBounds {
    QueueBounds {
        max_running: limits.get(Limit::MaxQueryParallelism),
        max_waiting: limits.get(Limit::MaxOutstandingRequests),
    }
}

/// A source as far as the tenant may see it at `now_ms`.
pub(in crate::api) fn within(source: Arc<dyn Source>, limits: &TenantLimits, now_ms: i64) -> Arc<dyn Source> {
    let ms = |limit| limits.bound(limit).map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
    let (lookback_ms, longest_ms) = (ms(Limit::MaxQueryLookback), ms(Limit::MaxPartialQueryLength));
    if lookback_ms.is_none() && longest_ms.is_none() {
        return source;
    }
    let from_ms = lookback_ms.map_or(i64::MIN, |back| now_ms.saturating_sub(back));
    Arc::new(Bounded { source, from_ms, longest_ms })
}

/// A source of which what is older than `from_ms` is not seen, and in which no selection may be longer.
struct Bounded {
    source: Arc<dyn Source>,
    from_ms: i64,
    longest_ms: Option<i64>,
}

/// No series.
struct Nothing;

impl SeriesCursor for Nothing {
    fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
        Ok(None)
    }
}

impl Bounded {
    /// A question about labels, as far as it may look back; `None` where it is about older times only.
    fn label_query(&self, query: &LabelQuery) -> Option<LabelQuery> {
        let min_t_ms = query.min_t_ms.max(self.from_ms);
        (min_t_ms <= query.max_t_ms).then(|| LabelQuery { min_t_ms, ..query.clone() })
    }
}

impl Source for Bounded {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        let min_t_ms = selection.min_t_ms.max(self.from_ms);
        if min_t_ms > selection.max_t_ms {
            return Ok(Box::new(Nothing));
        }
        let length_ms = selection.max_t_ms.saturating_sub(min_t_ms);
        if let Some(longest_ms) = self.longest_ms.filter(|longest| length_ms > *longest) {
            let limit = Limit::MaxPartialQueryLength;
            selection.budget.note_exceeded(limit);
            let what = format!("a selector of the query reads {}", limit.shown(length_ms as u64));
            return Err(SourceError::Limit(limit.refusal(what, longest_ms as u64)));
        }
        self.source.select(&Selection { min_t_ms, ..selection.clone() })
    }

    fn series(&self, query: &LabelQuery) -> Result<Vec<model::labels::Labels>, SourceError> {
        self.label_query(query).map_or(Ok(Vec::new()), |query| self.source.series(&query))
    }

    fn marks(&self, groups: &[Vec<Read>], budget: &Arc<Budget>) -> Result<Vec<Option<Mark>>, SourceError> {
        if self.longest_ms.is_some() {
            // A part of a query must not get through where the whole would be refused.
            return Ok(vec![None; groups.len()]);
        }
        let mut marks = self.source.marks(groups, budget)?;
        for (mark, group) in marks.iter_mut().zip(groups) {
            if group.iter().any(|read| read.min_t_ms < self.from_ms) {
                *mark = None;
            }
        }
        Ok(marks)
    }

    fn gives_up_at_once(&self) -> bool {
        self.source.gives_up_at_once()
    }

    fn label_names(&self, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        self.label_query(query).map_or(Ok(Vec::new()), |query| self.source.label_names(&query))
    }

    fn label_values(&self, name: &str, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        self.label_query(query).map_or(Ok(Vec::new()), |query| self.source.label_values(name, &query))
    }
}
