//! Which spans of time writes have changed since the process began: what is kept of answers stays right until
//! the spans that it was read from change.
//!
//! A span's count goes up after the samples are in the head and before their write is acknowledged. Whoever
//! takes the counts, reads, and finds the same counts again has read what they stand for.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::source::MarkBuilder;
use model::tenant::TenantId;
use parking_lot::{Mutex, RwLock};
use ulid::Ulid;

/// Length of a span. A read that reaches into the span that is being written is not kept for long.
const SPAN_MS: i64 = 60_000;

/// Spans that are told apart of a tenant, some 40 bytes each: eleven days. With more of them all have
/// changed.
const MAX_SPANS: usize = 16 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Changes {
    /// Of this process: after a restart nothing is known of what was counted before.
    process: Ulid,
    tenants: RwLock<BTreeMap<TenantId, Arc<TenantChanges>>>,
}

/// What writes changed of one tenant.
#[derive(Debug, Default)]
pub(super) struct TenantChanges(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// To all time.
    all: Changed,
    /// By number of the span.
    spans: BTreeMap<i64, Changed>,
}

/// How often, and in which generation of the head at last.
#[derive(Clone, Copy, Debug, Default)]
struct Changed {
    count: u64,
    generation: u64,
}

impl Changed {
    fn again(&mut self, generation: u64) {
        self.count += 1;
        self.generation = self.generation.max(generation);
    }

    fn since(&self, generation: u64) -> bool {
        self.count > 0 && self.generation >= generation
    }
}

impl Default for Changes {
    fn default() -> Changes {
        Changes { process: Ulid::new(), tenants: RwLock::default() }
    }
}

impl Changes {
    pub fn of(&self, tenant: &TenantId) -> Arc<TenantChanges> {
        if let Some(known) = self.tenants.read().get(tenant) {
            return known.clone();
        }
        self.tenants.write().entry(tenant.clone()).or_default().clone()
    }

    /// Adds what was written between two times (both included); nothing where nothing was.
    pub fn add_marks(&self, tenant: &TenantId, (min_t_ms, max_t_ms): (i64, i64), mark: &mut MarkBuilder) {
        let Some(changes) = self.tenants.read().get(tenant).cloned() else { return };
        let counts = changes.0.lock();
        let (first, last) = (span_of(min_t_ms), span_of(max_t_ms));
        let changed = counts.spans.range(first..=last.max(first));
        if counts.all.count == 0 && changed.clone().next().is_none() {
            return;
        }
        mark.name(self.process.0).number(counts.all.count);
        for (span, changed) in changed {
            mark.time(*span).number(changed.count);
        }
    }

    /// Whether anything may have been written between two times (both included) since a generation began.
    pub fn any_since(&self, tenant: &TenantId, (min_t_ms, max_t_ms): (i64, i64), generation: u64) -> bool {
        let Some(changes) = self.tenants.read().get(tenant).cloned() else { return false };
        let counts = changes.0.lock();
        let (first, last) = (span_of(min_t_ms), span_of(max_t_ms));
        let mut spans = counts.spans.range(first..=last.max(first));
        counts.all.since(generation) || spans.any(|(_, changed)| changed.since(generation))
    }
}

impl TenantChanges {
    /// Counts samples of these times as written, while the generation is the head's.
    pub fn wrote(&self, times_ms: impl Iterator<Item = i64>, generation: u64) {
        // Samples of one write are mostly of one moment.
        let mut last = None;
        let mut counts = self.0.lock();
        for span in times_ms.map(span_of) {
            if last == Some(span) {
                continue;
            }
            last = Some(span);
            counts.spans.entry(span).or_default().again(generation);
        }
        if counts.spans.len() > MAX_SPANS {
            counts.spans.clear();
            counts.all.again(generation);
        }
    }

    /// Counts all time as written.
    pub fn wrote_anywhere(&self, generation: u64) {
        self.0.lock().all.again(generation);
    }
}

fn span_of(t_ms: i64) -> i64 {
    t_ms.div_euclid(SPAN_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::source::Mark;

    fn mark(changes: &Changes, from: i64, to: i64) -> Mark {
        let mut mark = MarkBuilder::default();
        changes.add_marks(&TenantId::single(), (from, to), &mut mark);
        mark.build()
    }

    #[test]
    fn changes_mark_the_spans_that_were_written_and_no_others() {
        let changes = Changes::default();
        let nothing = MarkBuilder::default().build();
        let tenant = changes.of(&TenantId::single());
        assert_eq!(mark(&changes, 0, i64::MAX), nothing);
        tenant.wrote([60_000, 60_001, 180_000].into_iter(), 1);
        assert_eq!(mark(&changes, 0, 59_999), nothing);
        assert_eq!(mark(&changes, 120_000, 179_999), nothing);
        let before = mark(&changes, 0, 61_000);
        assert_ne!(before, nothing);
        tenant.wrote([180_000].into_iter(), 1);
        assert_eq!(mark(&changes, 0, 61_000), before);
        tenant.wrote([119_999].into_iter(), 1);
        assert_ne!(mark(&changes, 0, 61_000), before);
        tenant.wrote([119_999].into_iter(), 4);
        let since = |from, to, generation| changes.any_since(&TenantId::single(), (from, to), generation);
        assert!(since(60_000, 119_999, 4) && !since(60_000, 119_999, 5) && !since(120_000, 200_000, 2));
        assert_ne!(mark(&Changes::default(), i64::MIN, i64::MAX), before);
    }

    #[test]
    fn changes_of_too_many_spans_are_changes_of_all_time() {
        let changes = Changes::default();
        let tenant = changes.of(&TenantId::single());
        let nothing = mark(&changes, -2, -1);
        tenant.wrote((0..=MAX_SPANS as i64).map(|i| i * SPAN_MS), 1);
        let all = mark(&changes, -2, -1);
        assert_ne!(all, nothing);
        assert!(tenant.0.lock().spans.is_empty());
        tenant.wrote_anywhere(1);
        assert_ne!(mark(&changes, -2, -1), all);
    }
}
