//! The head as a source of queries: a fixed range of generations, read without holding any lock while
//! decoding.

use std::ops::RangeInclusive;
use std::sync::Arc;

use hashbrown::HashMap;
use rayon::prelude::*;
use roaring::RoaringBitmap;

use super::samples::{FloatSample, Newest, SamplesView, union};
use super::{Head, Series, TenantHead};
use crate::block::read::cache::BlockCache;
use crate::deletion::{Intervals, RetentionRules};
use crate::head::chunk::{Columns, DecodedTimes};
use model::labels::Labels;
use model::matcher::Matcher;
use model::source::{
    Budget, Charge, LabelQuery, Selection, SeriesColumns, SeriesCursor, Source, SourceError,
};

/// Series decoded at once: enough work for all cores, little enough to hold.
const BATCH: usize = 256;

/// Series that are looked at sooner than other cores take part.
const FEW_LOOKS: usize = 1024;

/// Series that are looked at before what they take is charged.
const LOOKS: usize = 16 << 10;

/// A tenant's series and samples in memory, of some generations.
pub struct HeadSource {
    head: Arc<Head>,
    tenant: Arc<TenantHead>,
    generations: RangeInclusive<u64>,
    /// Rules of retention, and the hour they are applied at.
    retention: Option<(Arc<RetentionRules>, i64)>,
    /// Where series that selectors pick are kept.
    cache: Option<Arc<BlockCache>>,
}

impl HeadSource {
    pub fn new(head: Arc<Head>, tenant: Arc<TenantHead>, generations: RangeInclusive<u64>) -> Self {
        HeadSource { head, tenant, generations, retention: None, cache: None }
    }

    /// The same without what rules of retention hide at `now_ms`, as in blocks: late samples may be older
    /// than their series is kept.
    pub fn with_retention(self, rules: Arc<RetentionRules>, now_ms: i64) -> Self {
        let retention = (!rules.is_endless()).then_some((rules, now_ms));
        HeadSource { retention, ..self }
    }

    /// The same, which keeps what selectors pick in a cache.
    pub(crate) fn with_cache(self, cache: Arc<BlockCache>) -> Self {
        HeadSource { cache: Some(cache), ..self }
    }

    /// A cursor over all series: what sealing reads. Its generations are frozen, so it looks at each metric
    /// and each series only when its turn comes: labels and views of a million series at once would be as
    /// large as the head.
    pub fn all(&self) -> HeadCursor {
        let metrics = self.head.by_metric(&self.tenant).into_iter();
        let cursor = self.walk(Vec::new(), i64::MIN, i64::MAX, Budget::unlimited());
        HeadCursor { metrics: Some((self.head.clone(), metrics)), ..cursor }
    }

    fn walk(&self, rest: Vec<(Labels, Look)>, min_t: i64, max_t: i64, budget: Arc<Budget>) -> HeadCursor {
        let generations = self.generations.clone();
        let (rest, held) = (rest.into_iter(), Charge::default());
        let times = DecodedTimes::of(&budget);
        let timelines = SeenTimelines { by_ends: HashMap::new(), timestamps: 0, held: Charge::of(&budget) };
        HeadCursor { rest, held, metrics: None, generations, min_t, max_t, budget, times, timelines }
    }

    fn cursor(&self, selection: &Selection) -> Result<HeadCursor, SourceError> {
        let (min_t, max_t, budget) = (selection.min_t_ms, selection.max_t_ms, selection.budget.clone());
        if !self.head.may_hold(&self.generations, (min_t, max_t)) {
            return Ok(self.walk(Vec::new(), min_t, max_t, budget));
        }
        let matchers = &selection.matchers;
        let mut held = Charge::of(&budget);
        let cache = self.cache.as_deref();
        let selected = self.head.selected(&self.tenant, matchers, &budget, cache, &mut held)?;
        let newest_only = selection.hints.newest_only;
        let look = |(labels, series): (Labels, Arc<Series>)| {
            let look = self.look(&labels, &series, (min_t, max_t), newest_only)?;
            Some((labels, look))
        };
        let mut looks = Vec::with_capacity(selected.len());
        let mut selected = selected.into_iter();
        while selected.len() > 0 {
            budget.check()?;
            let some: Vec<_> = selected.by_ref().take(LOOKS).collect();
            // Each series and its samples lie somewhere else: what is waited for is memory.
            let some: Vec<_> = match some.len() < FEW_LOOKS {
                true => some.into_iter().filter_map(look).collect(),
                false => some.into_par_iter().filter_map(look).collect(),
            };
            held.add(some.iter().map(|(_, look)| look.own_bytes()).sum())?;
            looks.extend(some);
        }
        Ok(HeadCursor { held, ..self.walk(looks, min_t, max_t, budget) })
    }

    /// A look at the samples of a series at this moment, if there are any.
    fn look(
        &self,
        labels: &Labels,
        series: &Series,
        (min_t, max_t): (i64, i64),
        newest_only: bool,
    ) -> Option<Look> {
        let kept = self.retention.as_ref().and_then(|(rules, now_ms)| rules.first_kept_ms(labels, *now_ms));
        let min_t = kept.map_or(min_t, |first| first.max(min_t));
        if min_t > max_t {
            return None;
        }
        if newest_only {
            match series.newest(self.generations.clone(), min_t, max_t) {
                Newest::Nothing => return None,
                Newest::Float(sample) => return Some(Look::Newest(sample)),
                Newest::NotAtHand => {}
            }
        }
        let view = series.view(self.generations.clone(), min_t, max_t);
        (!view.iter().all(SamplesView::is_empty)).then_some(Look::Taken(view, min_t))
    }

    /// Where the samples of matching series lie, coarsely: ascending ranges, both ends included.
    pub fn spans_ms(
        &self,
        matchers: &[Matcher],
        min_t: i64,
        max_t: i64,
        budget: &Budget,
    ) -> Result<Vec<(i64, i64)>, SourceError> {
        let mut spans = Intervals::default();
        if min_t <= max_t && self.head.may_hold(&self.generations, (min_t, max_t)) {
            let matchers = self.head.settled(&self.tenant, matchers, budget)?;
            for series in self.head.picked(&self.tenant, &matchers)? {
                for view in series.view(self.generations.clone(), min_t, max_t) {
                    view.spans_ms().for_each(|(a, b)| spans.add(a, b));
                }
            }
        }
        Ok(spans.iter().collect())
    }

    /// A query's selectors without expressions that take long.
    fn settled(&self, query: &LabelQuery) -> Result<Vec<Vec<Matcher>>, SourceError> {
        let one = |s: &Vec<Matcher>| Ok(self.head.settled(&self.tenant, s, &query.budget)?.into_owned());
        query.selectors.iter().map(one).collect()
    }
}

impl Source for HeadSource {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        selection.budget.check()?;
        Ok(Box::new(self.cursor(selection)?))
    }

    fn series(&self, query: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        query.budget.check()?;
        let (range, generations) = ((query.min_t_ms, query.max_t_ms), self.generations.clone());
        self.head.series_labels(&self.tenant, &self.settled(query)?, generations, range, &query.budget)
    }

    fn label_names(&self, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        query.budget.check()?;
        let range = (query.min_t_ms, query.max_t_ms);
        let (settled, generations) = (self.settled(query)?, self.generations.clone());
        self.head.label_names(&self.tenant, &settled, generations, range, &query.budget)
    }

    fn label_values(&self, name: &str, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        query.budget.check()?;
        let range = (query.min_t_ms, query.max_t_ms);
        let (settled, generations) = (self.settled(query)?, self.generations.clone());
        self.head.label_values((&self.tenant, name), &settled, generations, range, &query.budget)
    }
}

/// How a cursor comes to the samples of a series.
enum Look {
    /// Seen when the cursor was made: a query sees one moment. With the first timestamp that is wanted of it.
    Taken([SamplesView; 2], i64),
    /// The one sample that is wanted.
    Newest(FloatSample),
    /// Seen when its turn comes.
    Later(Arc<Series>),
}

impl Look {
    /// About how many bytes it holds until its turn comes.
    fn own_bytes(&self) -> u64 {
        let views = match self {
            Look::Taken(views, _) => views.iter().map(SamplesView::own_bytes).sum(),
            Look::Newest(_) | Look::Later(_) => 0,
        };
        views + size_of::<(Labels, Look)>() as u64
    }
}

/// Decodes views batch by batch, on all cores.
pub struct HeadCursor {
    rest: std::vec::IntoIter<(Labels, Look)>,
    /// For the views in the rest: a wide selection copies as many open chunks as it has series.
    held: Charge,
    /// Series by metric that are yet to come.
    metrics: Option<(Arc<Head>, std::vec::IntoIter<RoaringBitmap>)>,
    generations: RangeInclusive<u64>,
    min_t: i64,
    max_t: i64,
    budget: Arc<Budget>,
    times: DecodedTimes,
    timelines: SeenTimelines,
}

/// Timestamps of timelines that a cursor keeps to be shared: two hours at 15 s of some thousand targets.
const SHARED_TIMESTAMPS: usize = 1 << 20;

/// Timelines that have length and ends in common.
type Alike = Vec<Arc<[i64]>>;

/// The timelines of the series seen, of which those of one scrape are one. By length and ends, because
/// targets take turns and each of them has many series.
struct SeenTimelines {
    by_ends: HashMap<(usize, i64, i64), Alike>,
    timestamps: usize,
    held: Charge,
}

impl SeenTimelines {
    /// At least one timestamp.
    fn share(&mut self, ts_ms: &[i64]) -> Arc<[i64]> {
        let key = (ts_ms.len(), ts_ms[0], ts_ms[ts_ms.len() - 1]);
        if let Some(seen) = self.by_ends.get(&key).and_then(|all| all.iter().find(|t| ***t == *ts_ms)) {
            return seen.clone();
        }
        let (shared, bytes): (Arc<[i64]>, _) = (ts_ms.into(), 8 * ts_ms.len() as u64);
        if self.timestamps + ts_ms.len() > SHARED_TIMESTAMPS || !self.held.add_spare(bytes) {
            (self.by_ends, self.timestamps) = (HashMap::new(), 0);
            self.held.let_go(u64::MAX);
            if !self.held.add_spare(bytes) {
                return shared;
            }
        }
        self.timestamps += ts_ms.len();
        let alike = self.by_ends.entry(key).or_default();
        // Many that only look alike are not searched through.
        alike.truncate(7);
        alike.push(shared.clone());
        shared
    }
}

/// Series of which only the order was known, with their labels.
fn with_labels(head: &Head, looks: Vec<(Labels, Look)>) -> Vec<(Labels, Look)> {
    let labelled = |(labels, look)| match &look {
        Look::Later(series) => (head.labels_of(series), look),
        _ => (labels, look),
    };
    looks.into_iter().map(labelled).collect()
}

impl SeriesCursor for HeadCursor {
    fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
        loop {
            self.budget.check()?;
            let of_each = self.held.bytes() / self.rest.len().max(1) as u64;
            let views: Vec<_> = self.rest.by_ref().take(BATCH).collect();
            self.held.let_go(of_each * views.len() as u64);
            if views.is_empty() {
                let Some((head, metrics)) = &mut self.metrics else { return Ok(None) };
                let Some(ids) = metrics.next() else { return Ok(None) };
                let later = |series| (Labels::empty(), Look::Later(series));
                let series: Vec<_> = head.numbered(&ids).into_iter().map(later).collect();
                self.rest = series.into_iter();
                continue;
            }
            let views = match &self.metrics {
                Some((head, _)) => with_labels(head, views),
                None => views,
            };
            let (min_t, max_t) = (self.min_t, self.max_t);
            let (generations, times) = (self.generations.clone(), &self.times);
            let decode = |(labels, look): (Labels, Look)| {
                let mut columns = Columns::default();
                let ([older, newer], min_t) = match look {
                    Look::Newest(FloatSample { t_ms, value, start_ms }) => {
                        columns.push_float(t_ms, value, start_ms);
                        return (labels, columns);
                    }
                    Look::Taken(views, min_t) => (views, min_t),
                    Look::Later(series) => (series.view(generations.clone(), min_t, max_t), min_t),
                };
                older.decode(times, min_t, max_t, &mut columns);
                if columns.is_empty() || newer.is_empty() {
                    newer.decode(times, min_t, max_t, &mut columns);
                } else {
                    let mut of_newer = Columns::default();
                    newer.decode(times, min_t, max_t, &mut of_newer);
                    if columns.ts_ms.last() < of_newer.ts_ms.first() {
                        columns.append(of_newer);
                    } else {
                        let of_older = std::mem::take(&mut columns);
                        union(&of_older, &of_newer, &mut columns);
                    }
                }
                (labels, columns)
            };
            // A handful of series is decoded sooner than a second thread wakes.
            let to_decode = views.iter().filter(|(_, look)| !matches!(look, Look::Newest(_))).count();
            let decoded: Vec<_> = if to_decode < 16 {
                views.into_iter().map(decode).collect()
            } else {
                views.into_par_iter().map(decode).collect()
            };
            let mut batch = Vec::with_capacity(decoded.len());
            for (labels, c) in decoded {
                if c.is_empty() {
                    continue;
                }
                self.budget.read_samples(c.len() as u64);
                let ts_ms = self.timelines.share(&c.ts_ms);
                batch.push(SeriesColumns {
                    labels,
                    ts_ms,
                    values: c.values,
                    histograms: (!c.histograms.is_empty()).then_some(c.histograms),
                    start_ts_ms: (!c.start_ts_ms.is_empty()).then_some(c.start_ts_ms),
                    windows: None,
                });
            }
            if !batch.is_empty() {
                return Ok(Some(batch));
            }
        }
    }

    fn labels_to_come(&self) -> Option<Vec<Labels>> {
        let known = || self.rest.as_slice().iter().map(|(labels, _)| labels.clone()).collect();
        self.metrics.is_none().then(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::histogram::Histogram;
    use model::matcher::MatchOp;
    use model::sample::{Sample, Value};
    use model::source::testing::conformance::{Given, check_conformance};
    use model::source::{Hints, MemoryPool};
    use model::tenant::TenantId;
    use proptest::prelude::*;

    /// A head with the samples in it, in any order; those for which `early` holds come before the log is cut.
    fn head(given: Given, early: impl Fn(usize) -> bool, reverse: bool) -> Box<dyn Source> {
        let head = Arc::new(Head::default());
        let tenant = head.tenant(&TenantId::single());
        for pass in [true, false] {
            for (labels, samples) in &given {
                let pairs: Vec<_> = labels.iter().collect();
                let series = head.series(&tenant, &pairs);
                let mut mine: Vec<_> =
                    samples.iter().enumerate().filter(|(i, _)| early(*i) == pass).collect();
                if reverse {
                    mine.reverse();
                }
                for (_, (sample, start_ts_ms)) in mine {
                    assert!(head.put(&series, sample.ts_ms, sample.value.clone(), *start_ts_ms).is_some());
                }
            }
            if pass {
                head.freeze();
            }
        }
        Box::new(HeadSource::new(head, tenant, 0..=u64::MAX))
    }

    proptest! {
        /// Whether a series' newest sample is at hand or looked for: it is the last of all that are there.
        #[test]
        fn newest_sample_asked_for_alone_is_the_last_of_all(
            writes in proptest::collection::vec((0i64..60, any::<bool>(), 0u8..12), 1..200),
            frozen_at in 0usize..400,
            min_t in -5i64..2000,
            len in 0i64..700,
        ) {
            let head = Arc::new(Head::default());
            let tenant = head.tenant(&TenantId::single());
            let mut clock = 0;
            for (i, (back, in_order, kind)) in writes.iter().enumerate() {
                if i == frozen_at {
                    head.freeze();
                }
                clock += 10;
                let t_ms = if *in_order { clock } else { clock - back };
                let value = match kind {
                    0 => Value::Histogram(Arc::new(Histogram { sum: i as f64, ..Histogram::default() })),
                    _ => Value::Float(i as f64),
                };
                let series = head.series(&tenant, &[("pod", if i % 2 == 0 { "a" } else { "b" })]);
                head.put(&series, t_ms, value, i64::from(kind / 10)).unwrap();
            }
            let source = HeadSource::new(head, tenant, 0..=u64::MAX);
            let last = |newest_only| {
                let selection = Selection {
                    matchers: vec![Matcher::new(MatchOp::Regex, "pod", ".+").unwrap()],
                    min_t_ms: min_t,
                    max_t_ms: min_t + len,
                    hints: Hints { newest_only, ..Hints::default() },
                    budget: Budget::unlimited(),
                };
                let mut cursor = source.select(&selection).unwrap();
                let mut all = Vec::new();
                while let Some(batch) = cursor.next_batch().unwrap() {
                    all.extend(batch.into_iter().map(|s| {
                        let at = s.ts_ms.len() - 1;
                        let histogram = s.histograms.as_ref().and_then(|h| h[at].clone());
                        let start_ms = s.start_ts_ms.as_ref().map_or(0, |starts| starts[at]);
                        (s.labels.clone(), s.ts_ms[at], s.values[at].to_bits(), histogram, start_ms)
                    }));
                }
                format!("{all:?}")
            };
            prop_assert_eq!(last(true), last(false));
        }
    }

    #[test]
    fn keeps_the_contract_in_one_generation() {
        check_conformance(|given| head(given, |_| false, false));
    }

    #[test]
    fn keeps_the_contract_out_of_order_and_across_a_freeze() {
        check_conformance(|given| head(given, |i| i % 3 == 0, true));
    }
    #[test]
    fn views_of_a_wide_selection_are_charged_until_they_are_read() {
        let one = |i: usize| {
            let labels = Labels::from_pairs([("__name__", "wide"), ("i", &format!("{i:05}"))]);
            (labels, (0..9).map(|t| (Sample { ts_ms: t * 1_000, value: Value::Float(1.0) }, 0)).collect())
        };
        let source = head((0..4_000).map(one).collect(), |_| false, false);
        let pool = MemoryPool::new(8 << 20);
        let select = |max_bytes| {
            let budget = Budget::within(pool.clone(), u64::MAX, max_bytes, None);
            let selection = Selection {
                matchers: Vec::new(),
                min_t_ms: 0,
                max_t_ms: 9_000,
                hints: Hints::default(),
                budget,
            };
            source.select(&selection)
        };
        let mut cursor = select(u64::MAX).unwrap();
        let begun = pool.reserved_bytes();
        assert!(begun > 4_000 * 200, "{begun}");
        for _ in 0..8 {
            cursor.next_batch().unwrap();
        }
        let halfway = pool.reserved_bytes();
        assert!((begun / 3..begun * 2 / 3).contains(&halfway), "{halfway} of {begun}");
        while cursor.next_batch().unwrap().is_some() {}
        assert!(pool.reserved_bytes() < 4_096, "one timeline is kept");
        drop(cursor);
        assert_eq!(pool.reserved_bytes(), 0);
        let refused = select(100 << 10).err().expect("more than the query may hold");
        assert!(refused.to_string().contains("query.max_memory_bytes"), "{refused}");
        assert_eq!(pool.reserved_bytes(), 0);
    }
}
