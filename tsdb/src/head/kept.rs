//! Series that selectors pick, in order and with their labels put together, kept for who asks the same again:
//! dashboards do, and in the head that costs more than their newest samples.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use roaring::RoaringBitmap;

use super::series::Series;
use super::{Head, TenantHead};
use crate::block::read::cache::{BlockCache, Key};
use model::keyed_hash::keyed_hash;
use model::labels::Labels;
use model::matcher::Matcher;
use model::source::at_once::{may_read_series, may_wait};
use model::source::{Budget, Charge, SourceError};

/// Series from which on a selection is kept: fewer are found sooner than they are looked up.
const MANY_SERIES: usize = 64;

/// What a selector picked of a tenant's series.
struct Kept {
    /// See [`TenantHead`].
    tenant: u64,
    matchers: Vec<Matcher>,
    /// How many series had come and gone when these were all that it picks.
    came: AtomicU64,
    went: u64,
    ids: RoaringBitmap,
    /// In [`Labels::series_cmp`] order, each with its number.
    series: Vec<(Labels, u32)>,
}

impl Kept {
    fn bytes(&self) -> usize {
        // Counts of references and what the allocator rounds up included.
        let of_labels: usize = self.series.iter().map(|(labels, _)| labels.byte_len() + 32).sum();
        size_of::<Kept>()
            + self.series.capacity() * size_of::<(Labels, u32)>()
            + of_labels
            + 2 * self.series.len()
    }
}

fn key(tenant: &TenantHead, matchers: &[Matcher]) -> Key {
    let mut bytes = tenant.number.to_le_bytes().to_vec();
    for m in matchers {
        bytes.push(m.op as u8);
        for text in [&m.name, &m.value] {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    Key::HeadSeries(keyed_hash(&bytes))
}

impl Head {
    /// The series of a tenant that satisfy all matchers, with their labels, in [`Labels::series_cmp`] order;
    /// out of the cache where it has them. `held` is charged with labels that were made for it.
    pub(super) fn selected(
        &self,
        tenant: &TenantHead,
        matchers: &[Matcher],
        budget: &Budget,
        cache: Option<&BlockCache>,
        held: &mut Charge,
    ) -> Result<Vec<(Labels, Arc<Series>)>, SourceError> {
        let Some(cache) = cache else {
            return self.matching(tenant, &self.settled(tenant, matchers, budget)?, held);
        };
        let key = key(tenant, matchers);
        // Selections of few series are never there, and not being there is no miss.
        let kept = cache.contains(&key).then(|| cache.get::<Kept>(&key)).flatten();
        let kept = kept.filter(|kept| kept.tenant == tenant.number && kept.matchers == matchers);
        if let Some(found) = kept.as_deref().and_then(|kept| self.unchanged(tenant, kept).transpose()) {
            return found;
        }
        let settled = self.settled(tenant, matchers, budget)?;
        let sets = match self.labels.try_read() {
            Some(sets) => sets,
            None => {
                may_wait()?;
                self.labels.read()
            }
        };
        let ids = tenant.postings.read().select(&settled, sets.symbols());
        may_read_series(ids.len() as usize)?;
        let (came, went) = (tenant.came.load(Ordering::Relaxed), tenant.went.load(Ordering::Relaxed));
        if let Some(kept) = kept.filter(|kept| kept.went == went && kept.ids == ids) {
            // Others came.
            kept.came.store(came, Ordering::Relaxed);
            return Ok(self.of_kept(&kept));
        }
        let found = self.in_order(&ids, &sets, held)?;
        drop(sets);
        if found.len() >= MANY_SERIES {
            let series = found.iter().map(|(labels, series)| (labels.clone(), series.id)).collect();
            let matchers = matchers.to_vec();
            let kept = Kept { tenant: tenant.number, matchers, came: came.into(), went, ids, series };
            let bytes = kept.bytes();
            cache.put(key, Arc::new(kept), bytes);
        }
        Ok(found)
    }

    /// What is kept, if no series has come or gone since.
    #[allow(clippy::type_complexity)]
    fn unchanged(
        &self,
        tenant: &TenantHead,
        kept: &Kept,
    ) -> Result<Option<Vec<(Labels, Arc<Series>)>>, SourceError> {
        // Held until all are found by their numbers: they stay whose they are as long.
        let Some(_sets) = self.labels.try_read() else { return Ok(None) };
        let same = tenant.came.load(Ordering::Relaxed) == kept.came.load(Ordering::Relaxed)
            && tenant.went.load(Ordering::Relaxed) == kept.went;
        if !same {
            return Ok(None);
        }
        may_read_series(kept.series.len())?;
        Ok(Some(self.of_kept(kept)))
    }

    /// The series by their numbers; the caller holds the label sets.
    fn of_kept(&self, kept: &Kept) -> Vec<(Labels, Arc<Series>)> {
        let by_id = self.by_id.read();
        let series =
            |(labels, id): &(Labels, u32)| Some((labels.clone(), by_id.series.get(*id as usize)?.clone()?));
        kept.series.iter().filter_map(series).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::sample::Value;
    use model::tenant::TenantId;

    fn labels(
        head: &Head,
        tenant: &TenantHead,
        matcher: &Matcher,
        cache: Option<&BlockCache>,
    ) -> Vec<Labels> {
        let matchers = std::slice::from_ref(matcher);
        let found =
            head.selected(tenant, matchers, &Budget::unlimited(), cache, &mut Charge::default()).unwrap();
        assert!(found.iter().all(|(labels, series)| *labels == head.labels_of(series)));
        found.into_iter().map(|(labels, _)| labels).collect()
    }

    #[test]
    fn kept_series_are_those_that_the_index_has_while_others_come_and_go() {
        let head = Head::default();
        let cache = BlockCache::new(1 << 20);
        let tenants = ["a", "b"].map(|t| head.tenant(&TenantId::new(t).unwrap()));
        let add = |tenant: usize, metric: &str, i: usize| {
            let pod = format!("pod-{i}");
            let series = head.series(&tenants[tenant], &[("__name__", metric), ("pod", &pod)]);
            head.put(&series, i as i64, Value::Float(1.0), 0).unwrap();
        };
        let asked = [Matcher::equal("__name__", "m"), Matcher::equal("__name__", "n")];
        let check = || {
            for (tenant, matcher) in tenants.iter().flat_map(|t| asked.iter().map(move |m| (t, m))) {
                let want = labels(&head, tenant, matcher, None);
                assert_eq!(labels(&head, tenant, matcher, Some(&cache)), want);
                assert_eq!(labels(&head, tenant, matcher, Some(&cache)), want, "once more");
            }
        };
        (0..100).for_each(|i| add(0, "m", i));
        (50..150).for_each(|i| add(1, "m", i));
        check();
        assert_eq!(cache.stats().entries, 2, "of nothing nothing is kept");
        let hits = cache.stats().hits;
        add(0, "n", 1);
        check();
        assert!(cache.stats().hits > hits);
        add(0, "m", 1000);
        check();
        // All but one leave; their numbers are given to others.
        let before = head.freeze();
        add(0, "m", 7);
        check();
        head.freeze();
        head.forget(before + 1, true);
        check();
        head.freeze();
        (0..300).for_each(|i| add(1, "n", i));
        check();
        (200..300).for_each(|i| add(0, "m", i));
        check();
        let stats = cache.stats();
        assert!(stats.bytes > 300 * 60 && stats.bytes < 1 << 20, "{stats:?}");
    }
}
