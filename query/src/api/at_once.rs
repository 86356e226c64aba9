//! Which queries are tried where their request came in, before they are handed to a thread that may block:
//! those that look small. A dashboard's single numbers are, and alerts; the way to another thread and back
//! costs several times what they take.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use model::tenant::TenantId;

use crate::engine::QueryTime;

/// Longest text of a query that is tried.
const MOST_TEXT_BYTES: usize = 512;
/// Series that a selector of it may have, and points in all of them.
const MOST_SERIES: usize = 64;
const MOST_POINTS: u64 = 16 * 1024;

/// How many series a selector of a query may have for it to be tried; `None`: it is not tried. What could
/// take long before a series is read is not: regular expressions, which may take a second to compile, and
/// subqueries, whose steps are many.
pub(in crate::api) fn most_series(text: &str, time: QueryTime) -> Option<usize> {
    let compiles = text.contains('~') || text.contains("label_replace");
    // Before the colon of a recording rule's name there is no bracket that is still open.
    let subquery =
        text.split('[').skip(1).any(|rest| rest.split(']').next().is_some_and(|r| r.contains(':')));
    if text.len() > MOST_TEXT_BYTES || compiles || subquery {
        return None;
    }
    let steps = match time {
        QueryTime::Instant { .. } => 1,
        QueryTime::Range { start_ms, end_ms, step_ms } => {
            end_ms.saturating_sub(start_ms) as u64 / step_ms.max(1) as u64 + 1
        }
    };
    let most = (MOST_POINTS / steps).min(MOST_SERIES as u64) as usize;
    (most > 0).then_some(most)
}

/// Queries that turned out to be large, so that a panel which is refreshed is not tried every time. Bounded:
/// a newer one takes the place of an older.
pub(in crate::api) struct LargeQueries {
    hash: RandomState,
    places: Box<[AtomicU64]>,
}

const PLACES: usize = 1024;

/// For how long a query is taken for a large one: series come and go.
const REMEMBERED_MS: i64 = 10 * 60 * 1000;

impl Default for LargeQueries {
    fn default() -> Self {
        let places = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        LargeQueries { hash: RandomState::new(), places }
    }
}

impl LargeQueries {
    /// The place of a query, and what stands there when it is known.
    fn place(&self, tenant: &TenantId, text: &str, now_ms: i64) -> (&AtomicU64, u64) {
        let hash = self.hash.hash_one((tenant.as_str(), text, now_ms / REMEMBERED_MS));
        (&self.places[hash as usize % PLACES], hash)
    }

    pub fn remember(&self, tenant: &TenantId, text: &str, now_ms: i64) {
        let (place, hash) = self.place(tenant, text, now_ms);
        place.store(hash, Ordering::Relaxed);
    }

    pub fn knows(&self, tenant: &TenantId, text: &str, now_ms: i64) -> bool {
        let (place, hash) = self.place(tenant, text, now_ms);
        place.load(Ordering::Relaxed) == hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_tried_where_nothing_in_them_can_take_long() {
        let instant = QueryTime::Instant { time_ms: 0 };
        let hour = |step_ms| QueryTime::Range { start_ms: 0, end_ms: 3_600_000, step_ms };
        for text in ["1", "up", r#"sum(rate(job:x:rate5m{a="b"}[5m]))"#, r#"a{b="c:d"} + b[5m] offset 5m"#] {
            assert_eq!(most_series(text, instant), Some(MOST_SERIES), "{text}");
        }
        for text in
            [r#"up{a=~"b"}"#, "max_over_time(vector(1)[30d:1s])", r#"label_replace(a, "b", "c", "d", "e")"#]
        {
            assert_eq!(most_series(text, instant), None, "{text}");
        }
        assert_eq!(most_series(&"a+".repeat(MOST_TEXT_BYTES), instant), None);
        assert_eq!(most_series("up", hour(15_000)), Some(MOST_SERIES));
        assert_eq!(most_series("up", hour(1_000)), Some(4));
        assert_eq!(most_series("up", hour(1)), None);
    }

    #[test]
    fn large_queries_are_remembered_for_a_while_and_for_their_tenant() {
        let large = LargeQueries::default();
        let [a, b] = ["a", "b"].map(|name| TenantId::new(name).unwrap());
        assert!(!large.knows(&a, "up", 0));
        large.remember(&a, "up", 0);
        assert!(large.knows(&a, "up", 1));
        assert!(
            !large.knows(&b, "up", 1) && !large.knows(&a, "down", 1) && !large.knows(&a, "up", REMEMBERED_MS)
        );
    }
}
