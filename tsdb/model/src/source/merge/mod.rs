//! Several sources as one: series in order, each once, and of each timestamp one sample.
//!
//! This is the rule for *copies*, the same samples sent or stored twice: union by exact timestamp, and where
//! values differ the last that one writer wrote stands, and of different writers' the greater ([`conflict`]).
//! Sources are therefore given oldest first: blocks by age, the head last.
//!
//! The other rule, for *replicas* (two Prometheus servers that scrape the same targets), is in [`replicas`].

pub mod conflict;
pub mod replicas;

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::rollup;
use crate::source::merge::conflict::{Origin, standing};
use crate::source::{
    Budget, Charge, LabelQuery, Selection, SeriesColumns, SeriesCursor, Source, SourceError,
};

/// Series per batch of a merged cursor.
const BATCH_SERIES: usize = 256;
/// Samples from which on a batch is full, however few its series are: a year of one is two million.
const BATCH_SAMPLES: usize = 1 << 20;
/// Timestamps that are kept to be shared among series: a day at 15 s of 360 targets that have their own
/// times. Series of one target seldom follow one another, so with room for fewer none would be met again.
const SHARED_TIMESTAMPS: usize = 4 << 20;

/// Sources as one, oldest first.
pub struct MergedSource {
    sources: Vec<Arc<dyn Source>>,
}

impl MergedSource {
    pub fn new(oldest_first: Vec<Arc<dyn Source>>) -> MergedSource {
        MergedSource { sources: oldest_first }
    }
}

impl Source for MergedSource {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        let cursors: Result<Vec<_>, _> = self.sources.iter().map(|s| s.select(selection)).collect();
        Ok(Box::new(MergeCursor::new(cursors?).charged(&selection.budget)))
    }

    fn series(&self, query: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        self.union(|s| s.series(query))
    }

    fn label_names(&self, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        self.union(|s| s.label_names(query))
    }

    fn label_values(&self, name: &str, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        self.union(|s| s.label_values(name, query))
    }
}

impl MergedSource {
    fn union<T: Ord>(
        &self,
        of: impl Fn(&dyn Source) -> Result<Vec<T>, SourceError>,
    ) -> Result<Vec<T>, SourceError> {
        let lists: Result<Vec<Vec<T>>, _> = self.sources.iter().map(|s| of(&**s)).collect();
        Ok(union_of_sorted(lists?))
    }
}

/// Ascending lists without doublets as one such list. Sources mostly name the same things: where one list has
/// all of another's, that costs a comparison for each and moves nothing.
pub fn union_of_sorted<T: Ord>(mut lists: Vec<Vec<T>>) -> Vec<T> {
    lists.retain(|list| !list.is_empty());
    // Pair by pair, so that an item of many lists of different things is moved seldom.
    while lists.len() > 1 {
        let mut merged = Vec::with_capacity(lists.len().div_ceil(2));
        let mut rest = lists.into_iter();
        while let Some(first) = rest.next() {
            merged.push(match rest.next() {
                Some(second) => union_of_two(first, second),
                None => first,
            });
        }
        lists = merged;
    }
    lists.pop().unwrap_or_default()
}

fn union_of_two<T: Ord>(a: Vec<T>, b: Vec<T>) -> Vec<T> {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let mut walk = long.iter().peekable();
    let mut lacks = |item: &T| {
        while let Some(next) = walk.peek() {
            match (*next).cmp(item) {
                std::cmp::Ordering::Less => walk.next(),
                std::cmp::Ordering::Equal => return false,
                std::cmp::Ordering::Greater => break,
            };
        }
        true
    };
    let new: Vec<T> = short.into_iter().filter(|item| lacks(item)).collect();
    if new.is_empty() {
        return long;
    }
    let mut all = Vec::with_capacity(long.len() + new.len());
    let (mut long, mut new) = (long.into_iter().peekable(), new.into_iter().peekable());
    loop {
        let next = match (long.peek(), new.peek()) {
            (Some(x), Some(y)) if x > y => new.next(),
            (Some(_), _) => long.next(),
            (None, _) => new.next(),
        };
        match next {
            Some(next) => all.push(next),
            None => return all,
        }
    }
}

/// Merges cursors, oldest first, into one.
pub struct MergeCursor<'a> {
    inputs: Vec<Input<'a>>,
    timelines: SharedTimelines,
    /// What waits in a batch that is being made.
    made: Charge,
}

struct Input<'a> {
    origin: Origin,
    cursor: Box<dyn SeriesCursor + 'a>,
    ready: VecDeque<SeriesColumns>,
    /// For what is ready, about `each` a series.
    held: Charge,
    each: u64,
    ended: bool,
}

impl Input<'_> {
    fn fill(&mut self) -> Result<(), SourceError> {
        if self.ready.is_empty() && !self.ended {
            self.held.let_go(u64::MAX);
            match self.cursor.next_batch()? {
                Some(batch) => {
                    let bytes: u64 = batch.iter().map(SeriesColumns::own_bytes).sum();
                    self.held.add(bytes)?;
                    self.each = bytes / batch.len().max(1) as u64;
                    self.ready = batch.into();
                }
                None => self.ended = true,
            }
        }
        Ok(())
    }

    fn take_if(&mut self, wanted: impl Fn(&SeriesColumns) -> bool) -> Option<SeriesColumns> {
        let series = self.ready.pop_front_if(|series| wanted(series))?;
        self.held.let_go(self.each);
        Some(series)
    }
}

impl<'a> MergeCursor<'a> {
    /// Of whom the samples are does not matter: the last stands.
    pub fn new(oldest_first: Vec<Box<dyn SeriesCursor + 'a>>) -> MergeCursor<'a> {
        MergeCursor::of_origins(oldest_first.into_iter().map(|cursor| (Origin::Unknown, cursor)).collect())
    }

    /// Cursors, oldest first, with whose samples they give.
    pub fn of_origins(oldest_first: Vec<(Origin, Box<dyn SeriesCursor + 'a>)>) -> MergeCursor<'a> {
        let inputs = oldest_first
            .into_iter()
            .map(|(origin, cursor)| Input {
                origin,
                cursor,
                ready: VecDeque::new(),
                held: Charge::default(),
                each: 0,
                ended: false,
            })
            .collect();
        MergeCursor { inputs, timelines: SharedTimelines::default(), made: Charge::default() }
    }

    /// The same with what it holds on the way charged to a query; before anything is read.
    pub fn charged(mut self, budget: &Arc<Budget>) -> MergeCursor<'a> {
        self.inputs.iter_mut().for_each(|input| input.held = Charge::of(budget));
        self.timelines.held = Charge::of(budget);
        self.made = Charge::of(budget);
        self
    }
}

/// What was read of the only input that has anything left, if there is only one.
fn only_rest(inputs: &mut [Input<'_>]) -> Option<VecDeque<SeriesColumns>> {
    let mut left = inputs.iter_mut().filter(|input| !input.ready.is_empty());
    let only = left.next()?;
    left.next().is_none().then(|| {
        only.held.let_go(u64::MAX);
        std::mem::take(&mut only.ready)
    })
}

/// Whether all inputs that have anything left have the same series next. Those of one fleet mostly do, and
/// that texts are the same is told sooner than which comes first.
fn same_next(inputs: &[Input<'_>]) -> bool {
    let mut left = inputs.iter().filter_map(|input| input.ready.front());
    left.next().is_some_and(|first| left.all(|other| other.labels == first.labels))
}

/// The input whose series comes next, and whether no other has it.
fn first_of(inputs: &[Input<'_>]) -> Option<(usize, bool)> {
    let mut first: Option<(usize, bool, &Labels)> = None;
    for (at, series) in inputs.iter().enumerate().filter_map(|(at, i)| Some((at, i.ready.front()?))) {
        let order = first.map_or(Ordering::Less, |(_, _, labels)| series.labels.series_cmp(labels));
        match order {
            Ordering::Less => first = Some((at, true, &series.labels)),
            Ordering::Equal => first = first.map(|(at, _, labels)| (at, false, labels)),
            Ordering::Greater => {}
        }
    }
    first.map(|(at, alone, _)| (at, alone))
}

impl MergeCursor<'_> {
    /// The series that comes next, of whichever inputs have it.
    fn next_alone_or_merged(&mut self) -> Option<SeriesColumns> {
        let (first, alone) = first_of(&self.inputs)?;
        if alone {
            return self.inputs[first].take_if(|_| true);
        }
        let labels = self.inputs[first].ready.front()?.labels.clone();
        self.merge_fronts(|series| series.labels == labels)
    }

    /// Takes the next series of those inputs where it is the `same`, at least one, and merges them.
    fn merge_fronts(&mut self, same: impl Fn(&SeriesColumns) -> bool) -> Option<SeriesColumns> {
        let (mut origins, mut copies) =
            (Vec::with_capacity(self.inputs.len()), Vec::with_capacity(self.inputs.len()));
        for input in &mut self.inputs {
            if let Some(series) = input.take_if(&same) {
                origins.push(input.origin);
                copies.push(series);
            }
        }
        (!copies.is_empty()).then(|| merge_copies_of(copies, &origins, &mut self.timelines))
    }
}

impl SeriesCursor for MergeCursor<'_> {
    fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
        if let [only] = &mut self.inputs[..] {
            return only.cursor.next_batch();
        }
        let (mut batch, mut samples) = (Vec::new(), 0);
        while batch.len() < BATCH_SERIES && samples < BATCH_SAMPLES {
            for input in &mut self.inputs {
                input.fill()?;
            }
            if batch.is_empty()
                && let Some(rest) = only_rest(&mut self.inputs)
            {
                return Ok(Some(rest.into()));
            }
            let series = match same_next(&self.inputs) {
                true => self.merge_fronts(|_| true),
                false => self.next_alone_or_merged(),
            };
            let Some(series) = series else { break };
            samples += series.ts_ms.len();
            self.made.add(series.own_bytes())?;
            batch.push(series);
        }
        // From here on it is for the taker to charge.
        self.made.let_go(u64::MAX);
        Ok((!batch.is_empty()).then_some(batch))
    }

    fn labels_to_come(&self) -> Option<Vec<Labels>> {
        let mut labels: Vec<Labels> = Vec::new();
        for input in &self.inputs {
            labels.extend(input.ready.iter().map(|series| series.labels.clone()));
            labels.extend(input.cursor.labels_to_come()?);
        }
        if self.inputs.len() > 1 {
            // Ascending runs: the stable sort merges them.
            labels.sort_by(Labels::series_cmp);
            labels.dedup();
        }
        Some(labels)
    }
}

/// Joined timelines, so that series which shared theirs before still do.
#[derive(Default)]
pub struct SharedTimelines {
    /// By the addresses of the parts, which are held so that the addresses stay theirs.
    #[allow(clippy::type_complexity)]
    joined: HashMap<Vec<(usize, usize)>, (Vec<Arc<[i64]>>, Arc<[i64]>)>,
    timestamps: usize,
    held: Charge,
}

impl SharedTimelines {
    fn join(&mut self, parts: &[SeriesColumns]) -> Arc<[i64]> {
        let key: Vec<(usize, usize)> =
            parts.iter().map(|p| (p.ts_ms.as_ptr().addr(), p.ts_ms.len())).collect();
        if let Some((_, joined)) = self.joined.get(&key) {
            return joined.clone();
        }
        let joined: Arc<[i64]> = parts.iter().flat_map(|p| p.ts_ms.iter().copied()).collect();
        // Only what somebody else holds too can come again.
        if parts.iter().all(|p| Arc::strong_count(&p.ts_ms) > 1) {
            let (more, bytes) = (2 * joined.len(), 16 * joined.len() as u64);
            if self.timestamps + more > SHARED_TIMESTAMPS || !self.held.add_spare(bytes) {
                self.joined = HashMap::new();
                self.timestamps = 0;
                self.held.let_go(u64::MAX);
                if !self.held.add_spare(bytes) {
                    return joined;
                }
            }
            self.timestamps += more;
            self.joined.insert(key, (parts.iter().map(|p| p.ts_ms.clone()).collect(), joined.clone()));
        }
        joined
    }
}

/// One series out of several copies of it, oldest first; there must be at least one. The last copy of a
/// sample stands.
pub fn merge_copies(copies: Vec<SeriesColumns>, timelines: &mut SharedTimelines) -> SeriesColumns {
    merge_copies_of(copies, &[], timelines)
}

/// The same of copies whose origins are known, one for each (none: nobody knows any).
pub fn merge_copies_of(
    mut copies: Vec<SeriesColumns>,
    origins: &[Origin],
    timelines: &mut SharedTimelines,
) -> SeriesColumns {
    if copies.len() == 1 {
        return copies.pop().expect("one copy");
    }
    // Blocks usually follow one another in time without overlap, whatever order they were written in.
    if copies.windows(2).all(|w| w[0].ts_ms.last() < w[1].ts_ms.first()) {
        return concatenate(copies, timelines);
    }
    let mut by_time: Vec<usize> = (0..copies.len()).collect();
    by_time.sort_by_key(|i| copies[*i].ts_ms.first().copied());
    if by_time.windows(2).all(|w| copies[w[0]].ts_ms.last() < copies[w[1]].ts_ms.first()) {
        if !by_time.is_sorted() {
            for pair in by_time.windows(2).filter(|pair| pair[0] > pair[1]) {
                forget_first_hint(&mut copies[pair[1]]);
            }
            copies.sort_by_key(|c| c.ts_ms.first().copied());
        }
        return concatenate(copies, timelines);
    }
    // Where all is one writer's, or nobody says, the last stands.
    let by_place = origins.windows(2).all(|w| w[0] == w[1]);
    if copies.iter().any(|c| c.windows.is_some()) {
        let copies = if by_place { copies } else { samples_as_one(copies, origins, timelines) };
        return rollup::merge_overlapping(copies);
    }
    let newest_first = |c: &usize| std::cmp::Reverse(*c);
    // (timestamp, copy, index); of equal timestamps the newest copy comes first and the rest go.
    let mut order: Vec<(i64, usize, usize)> = copies
        .iter()
        .enumerate()
        .flat_map(|(c, s)| s.ts_ms.iter().enumerate().map(move |(i, t)| (*t, c, i)))
        .collect();
    if by_place {
        order.sort_unstable_by_key(|(t, c, _)| (*t, newest_first(c)));
        order.dedup_by_key(|(t, _, _)| *t);
    } else {
        order.sort_unstable_by_key(|(t, c, _)| (*t, *c));
        let stands = |same: &[(i64, usize, usize)]| match same {
            [only] => *only,
            all => {
                let (copy, at) = standing(all, &copies, origins);
                (all[0].0, copy, at)
            }
        };
        order = order.chunk_by(|a, b| a.0 == b.0).map(stands).collect();
    }
    let histograms = copies.iter().any(|s| s.histograms.is_some());
    let starts = copies.iter().any(|s| s.start_ts_ms.is_some());
    let picked = || order.iter().map(|(_, c, i)| (&copies[*c], *i));
    let histograms: Option<Vec<_>> = histograms.then(|| picked_histograms(&copies, &order));
    let starts: Option<Vec<_>> =
        starts.then(|| picked().map(|(s, i)| s.start_ts_ms.as_ref().map_or(0, |t| t[i])).collect());
    SeriesColumns {
        labels: copies[0].labels.clone(),
        ts_ms: order.iter().map(|(t, _, _)| *t).collect(),
        values: picked().map(|(s, i)| s.values[i]).collect(),
        // The copy that had histograms or start timestamps may have lost everywhere.
        histograms: histograms.filter(|h| h.iter().any(Option::is_some)),
        start_ts_ms: starts.filter(|s| s.iter().any(|t| *t != 0)),
        windows: None,
    }
}

/// Copies of samples put together by their origins, so that none of them disagree; windows as they are.
fn samples_as_one(
    copies: Vec<SeriesColumns>,
    origins: &[Origin],
    timelines: &mut SharedTimelines,
) -> Vec<SeriesColumns> {
    let (mut windows, mut samples, mut of_samples) = (Vec::new(), Vec::new(), Vec::new());
    for (copy, origin) in copies.into_iter().zip(origins) {
        if copy.windows.is_some() {
            windows.push(copy);
        } else {
            samples.push(copy);
            of_samples.push(*origin);
        }
    }
    if !samples.is_empty() {
        windows.push(merge_copies_of(samples, &of_samples, timelines));
    }
    windows
}

/// The histograms of picked samples. What one says of the sample before it (whether the counter was reset)
/// was not said of one that was written later, as those of a newer copy were. Of samples that were there
/// before it stays, or the answer would depend on where the head was cut.
fn picked_histograms(copies: &[SeriesColumns], order: &[(i64, usize, usize)]) -> Vec<Option<Arc<Histogram>>> {
    let mut before = 0;
    let pick = |(_, copy, i): &(i64, usize, usize)| {
        let follows_newer = std::mem::replace(&mut before, *copy) > *copy;
        let histogram = copies[*copy].histograms.as_ref()?[*i].as_ref()?;
        Some(if follows_newer { histogram.beside_another() } else { histogram.clone() })
    };
    order.iter().map(pick).collect()
}

/// Forgets what the first sample says of the one before it, as in [`picked_histograms`].
fn forget_first_hint(copy: &mut SeriesColumns) {
    if let Some(Some(histogram)) = copy.histograms.as_mut().and_then(|all| all.first_mut()) {
        *histogram = histogram.beside_another();
    }
}

/// Copies that follow one another in time.
fn concatenate(copies: Vec<SeriesColumns>, timelines: &mut SharedTimelines) -> SeriesColumns {
    let ts_ms = timelines.join(&copies);
    let windows = rollup::concatenate(&copies);
    let total = ts_ms.len();
    let mut histograms = copies.iter().any(|s| s.histograms.is_some()).then(|| Vec::with_capacity(total));
    let mut start_ts_ms = copies.iter().any(|s| s.start_ts_ms.is_some()).then(|| Vec::with_capacity(total));
    let mut values = Vec::with_capacity(total);
    let labels = copies[0].labels.clone();
    for copy in copies {
        let n = copy.values.len();
        values.extend_from_slice(&copy.values);
        if let Some(all) = &mut histograms {
            match copy.histograms {
                Some(h) => all.extend(h),
                None => all.extend(std::iter::repeat_n(None, n)),
            }
        }
        if let Some(all) = &mut start_ts_ms {
            match copy.start_ts_ms {
                Some(s) => all.extend(s),
                None => all.extend(std::iter::repeat_n(0, n)),
            }
        }
    }
    SeriesColumns { labels, ts_ms, values, histograms, start_ts_ms, windows }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::{BucketSpan, CounterResetHint};

    fn histogram(hint: CounterResetHint, buckets: [f64; 2]) -> Arc<Histogram> {
        Arc::new(Histogram {
            counter_reset_hint: hint,
            count: buckets[0] + buckets[1],
            sum: 1.0,
            positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
            positive_buckets: buckets.to_vec(),
            ..Histogram::default()
        })
    }

    fn copy(samples: &[(i64, Arc<Histogram>)]) -> SeriesColumns {
        SeriesColumns {
            labels: Labels::empty(),
            ts_ms: samples.iter().map(|(t, _)| *t).collect(),
            values: samples.iter().map(|(_, h)| h.sum).collect(),
            histograms: Some(samples.iter().map(|(_, h)| Some(h.clone())).collect()),
            start_ts_ms: None,
            windows: None,
        }
    }

    #[test]
    fn union_of_sorted_lists_has_everything_once() {
        let mut state = 7u64;
        let mut roll = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for round in 0..200 {
            let lists: Vec<Vec<u64>> = (0..roll(6))
                .map(|_| {
                    let mut list: Vec<u64> = (0..roll(30)).map(|_| roll(1 + round)).collect();
                    list.sort_unstable();
                    list.dedup();
                    list
                })
                .collect();
            let mut want: Vec<u64> = lists.concat();
            want.sort_unstable();
            want.dedup();
            assert_eq!(union_of_sorted(lists), want);
        }
    }

    #[test]
    fn merged_copies_in_turn_say_nothing_of_what_was_written_later() {
        use CounterResetHint::{CounterReset, Unknown};
        let one = |t, count| copy(&[(t, histogram(CounterReset, [count, 0.0]))]);
        let hints = |copies: Vec<SeriesColumns>| -> Vec<_> {
            let merged = merge_copies(copies, &mut SharedTimelines::default());
            merged.histograms.unwrap().into_iter().flatten().map(|h| h.counter_reset_hint).collect()
        };
        assert_eq!(
            hints(vec![one(1, 9.0), one(3, 5.0)]),
            [CounterReset, CounterReset],
            "where the head was cut"
        );
        assert_eq!(hints(vec![one(1, 9.0), one(3, 5.0), one(2, 4.0)]), [CounterReset, CounterReset, Unknown]);
        // The same beside copies that overlap, and in two steps.
        let ends = copy(&[(0, histogram(Unknown, [1.0, 0.0])), (9, histogram(Unknown, [6.0, 0.0]))]);
        let all = vec![ends.clone(), one(1, 9.0), one(3, 5.0), one(2, 4.0)];
        assert_eq!(hints(all), [Unknown, CounterReset, CounterReset, Unknown, Unknown]);
        let some = merge_copies(vec![one(3, 5.0), one(2, 4.0)], &mut SharedTimelines::default());
        assert_eq!(
            hints(vec![ends, one(1, 9.0), some]),
            [Unknown, CounterReset, CounterReset, Unknown, Unknown]
        );
    }

    /// A block whose gap held a reset, and what fills the gap: upstream's `increase` is 562 where a believed
    /// hint made it -910.
    #[test]
    fn merged_copies_say_nothing_of_a_sample_that_came_between() {
        use CounterResetHint::{CounterReset, NotCounterReset, Unknown};
        let imported = copy(&[
            (1, histogram(Unknown, [100.0, 200.0])),
            (5, histogram(NotCounterReset, [400.0, 500.0])),
            (7, histogram(NotCounterReset, [401.0, 502.0])),
            (9, histogram(CounterReset, [401.0, 502.0])),
        ]);
        let late =
            copy(&[(3, histogram(NotCounterReset, [500.0, 900.0])), (8, histogram(Unknown, [0.0, 1.0]))]);
        let merged = merge_copies(vec![imported, late], &mut SharedTimelines::default());
        let histograms: Vec<_> = merged.histograms.unwrap().into_iter().flatten().collect();
        let hints: Vec<_> = histograms.iter().map(|h| h.counter_reset_hint).collect();
        assert_eq!(hints, [Unknown, NotCounterReset, Unknown, NotCounterReset, Unknown, Unknown]);
        let resets: Vec<_> = histograms.windows(2).map(|w| w[1].detect_reset(&w[0])).collect();
        assert_eq!(resets, [false, true, false, true, false]);
    }

    #[test]
    fn reset_hint_that_contradicts_the_buckets_is_not_believed() {
        let before = histogram(CounterResetHint::Unknown, [100.0, 200.0]);
        let after = histogram(CounterResetHint::NotCounterReset, [5.0, 9.0]);
        assert!(after.detect_reset(&before));
        // The whole count may grow although a bucket fell.
        let shifted = histogram(CounterResetHint::NotCounterReset, [99.0, 900.0]);
        assert!(shifted.detect_reset(&before));
        assert!(!histogram(CounterResetHint::NotCounterReset, [100.0, 201.0]).detect_reset(&before));
        assert!(histogram(CounterResetHint::CounterReset, [100.0, 201.0]).detect_reset(&before));
    }
    /// Batches of so many series with so many samples each.
    struct Batches(Vec<Vec<SeriesColumns>>);

    impl Batches {
        fn of(batches: i64, offset_ms: i64) -> Box<Batches> {
            let series = |n: i64| SeriesColumns {
                labels: Labels::from_pairs([("__name__", "a"), ("n", &format!("{n:05}"))]),
                ts_ms: (0..100).map(|t| offset_ms + t * 1_000).collect(),
                values: vec![1.0; 100],
                histograms: None,
                start_ts_ms: None,
                windows: None,
            };
            let batch = |b: i64| (b * 50..b * 50 + 50).map(series).collect();
            Box::new(Batches((0..batches).rev().map(batch).collect()))
        }
    }

    impl SeriesCursor for Batches {
        fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
            Ok(self.0.pop())
        }
    }

    #[test]
    fn merge_charges_what_waits_and_what_is_made() {
        use crate::source::MemoryPool;
        let merge = |max_bytes| {
            let pool = MemoryPool::new(max_bytes);
            let budget = Budget::within(pool.clone(), u64::MAX, u64::MAX, None);
            let inputs: Vec<Box<dyn SeriesCursor>> = vec![Batches::of(8, 0), Batches::of(6, 500_000)];
            (MergeCursor::new(inputs).charged(&budget), pool, budget)
        };
        let (mut cursor, pool, budget) = merge(10 << 20);
        let first = cursor.next_batch().unwrap().unwrap();
        assert_eq!(first.len(), BATCH_SERIES);
        let made: u64 = first.iter().map(SeriesColumns::own_bytes).sum();
        assert!(budget.bytes_peak() > made, "{} while {made} bytes were made", budget.bytes_peak());
        // 256 of 300 were taken of what both have; of each 44 wait.
        let waiting = 2 * 44 * first[0].own_bytes() / 2;
        assert!((waiting / 2..waiting * 2).contains(&pool.reserved_bytes()), "{}", pool.reserved_bytes());
        while cursor.next_batch().unwrap().is_some() {}
        assert_eq!(pool.reserved_bytes(), 0);
        let (mut cursor, pool, _budget) = merge(100 << 10);
        let refused = cursor.next_batch().unwrap_err();
        assert!(refused.to_string().contains("query.max_total_memory_bytes"), "{refused}");
        drop(cursor);
        assert_eq!(pool.reserved_bytes(), 0);
    }
}
