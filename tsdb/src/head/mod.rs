//! The recent past in memory: series by label set, an inverted index, and compressed samples in generations.
//!
//! Samples live in *generations*. All that arrives between two cuts of the log is one generation. Sealing
//! freezes the current one, makes local blocks of it and forgets it, together with its log segments. A series
//! keeps its identity across generations, so freezing costs nothing: each series moves its samples aside when
//! the first sample of the next generation reaches it.

pub mod chunk;
mod forget;
mod kept;
pub mod label_sets;
mod names;
mod numbers;
mod order;
pub mod postings;
pub mod samples;
mod series;
mod series_limits;
mod settle;
pub mod source;
mod stats;
pub mod symbols;
mod tenant;
mod time_bounds;
pub mod timelines;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use hashbrown::HashTable;
use parking_lot::{Mutex, RwLock};
use roaring::RoaringBitmap;

use label_sets::{LabelSet, LabelSets};
use model::labels::{Labels, METRIC_NAME};
use model::sample::Value;
use model::source::at_once::{may_read_series, may_wait};
use model::source::{Charge, SourceError};
use model::tenant::TenantId;
use numbers::{ById, spread};
use samples::Put;
use series::SERIES_BYTES;
use tenant::{METADATA_BYTES, MetadataRoom, TENANT_BYTES};
use time_bounds::TimeBounds;
use timelines::Timelines;

pub use forget::Forgotten;
pub use label_sets::LabelPairs;
pub use series::Series;
pub use series_limits::{SeriesLimits, TooManySeries};
pub use tenant::{MAX_ENTRY_BYTES, TenantHead};

/// Locks over the label-set table; a power of two.
const SHARDS: usize = 64;

/// All series of all tenants.
pub struct Head {
    labels: RwLock<LabelSets>,
    metadata_room: Arc<MetadataRoom>,
    /// Of this process alone.
    hash_key: ahash::RandomState,
    /// Numbers of series by their labels.
    shards: Vec<RwLock<HashTable<u32>>>,
    by_id: RwLock<ById>,
    tenants: RwLock<HashMap<TenantId, Arc<TenantHead>>>,
    tenants_made: AtomicU64,
    /// The generation that writes go to, from 1.
    generation: AtomicU64,
    /// Newest in-order timestamp of the current generation, `i64::MIN` when it is empty.
    newest_t_ms: AtomicI64,
    /// The first such timestamp: with the newest, the stretch of data time the generation spans.
    first_t_ms: AtomicI64,
    /// The newest in-order timestamp of all generations before: what is older and comes first for its series
    /// is late all the same.
    floor_t_ms: AtomicI64,
    samples_in_generation: AtomicU64,
    /// Of all samples, late ones included.
    time_bounds: TimeBounds,
    bytes: Bytes,
    timelines: Timelines,
}

/// Bytes held, counted along: signed, because parts of a difference may arrive before the other parts.
#[derive(Default)]
struct Bytes {
    symbols: AtomicI64,
    label_sets: AtomicI64,
    series: AtomicI64,
    /// Of the tables in which series are found.
    tables: AtomicI64,
    postings: AtomicI64,
    tenants: AtomicI64,
    /// Of the current generation.
    chunks: AtomicI64,
    out_of_order: AtomicI64,
    /// Of the generation before, until it is forgotten.
    frozen_chunks: AtomicI64,
    frozen_out_of_order: AtomicI64,
}

impl Default for Head {
    fn default() -> Self {
        Head::with_metadata_bytes(METADATA_BYTES)
    }
}

impl Head {
    /// An empty head. Metadata may take so many bytes of it; what comes beyond is not kept.
    pub fn with_metadata_bytes(max_bytes: u64) -> Self {
        Head {
            labels: RwLock::default(),
            metadata_room: Arc::new(MetadataRoom { max_bytes, bytes: AtomicU64::new(0) }),
            hash_key: ahash::RandomState::new(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            by_id: RwLock::default(),
            tenants: RwLock::default(),
            tenants_made: AtomicU64::new(0),
            generation: AtomicU64::new(1),
            newest_t_ms: AtomicI64::new(i64::MIN),
            first_t_ms: AtomicI64::new(i64::MIN),
            floor_t_ms: AtomicI64::new(i64::MIN),
            samples_in_generation: AtomicU64::new(0),
            time_bounds: TimeBounds::default(),
            bytes: Bytes::default(),
            timelines: Timelines::default(),
        }
    }
}

impl Head {
    /// The tenant's part of the head, made where it is new.
    pub fn tenant(&self, id: &TenantId) -> Arc<TenantHead> {
        if let Some(t) = self.tenants.read().get(id) {
            return t.clone();
        }
        let new = || {
            self.bytes.tenants.fetch_add(TENANT_BYTES, Ordering::Relaxed);
            Arc::new(TenantHead {
                id: id.clone(),
                number: self.tenants_made.fetch_add(1, Ordering::Relaxed),
                came: AtomicU64::new(0),
                went: AtomicU64::new(0),
                postings: RwLock::default(),
                metadata: RwLock::default(),
                metadata_bytes: AtomicU64::new(0),
                metadata_room: self.metadata_room.clone(),
                newest_ms: AtomicI64::new(i64::MIN),
            })
        };
        self.tenants.write().entry(id.clone()).or_insert_with(new).clone()
    }

    /// The tenant's part of the head, if it has any.
    pub fn find_tenant(&self, id: &TenantId) -> Option<Arc<TenantHead>> {
        self.tenants.read().get(id).cloned()
    }

    pub fn tenants(&self) -> Vec<Arc<TenantHead>> {
        self.tenants.read().values().cloned().collect()
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Begins the next generation and returns the one that is now frozen. The caller keeps writers out
    /// meanwhile.
    pub fn freeze(&self) -> u64 {
        {
            let mut by_id = self.by_id.write();
            let before = by_id.heap_bytes() as i64;
            by_id.release();
            self.bytes.tables.fetch_add(by_id.heap_bytes() as i64 - before, Ordering::Relaxed);
        }
        let newest = self.newest_t_ms.swap(i64::MIN, Ordering::Relaxed);
        self.floor_t_ms.fetch_max(newest, Ordering::Relaxed);
        self.first_t_ms.store(i64::MIN, Ordering::Relaxed);
        self.samples_in_generation.store(0, Ordering::Relaxed);
        let b = &self.bytes;
        b.frozen_chunks.fetch_add(b.chunks.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        b.frozen_out_of_order.fetch_add(b.out_of_order.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::AcqRel)
    }

    /// First and newest in-order timestamp of the current generation, from where the generations before
    /// ended.
    pub fn span_ms(&self) -> Option<(i64, i64)> {
        let first = self.first_t_ms.load(Ordering::Relaxed);
        let newest = self.newest_t_ms.load(Ordering::Relaxed).max(first);
        let from = first.max(self.floor_t_ms.load(Ordering::Relaxed)).min(newest);
        (first != i64::MIN).then_some((from, newest))
    }

    /// Samples taken into the current generation.
    pub fn samples_in_generation(&self) -> u64 {
        self.samples_in_generation.load(Ordering::Relaxed)
    }

    pub fn series_count(&self) -> u64 {
        self.by_id.read().len() as u64
    }

    /// The series of a label set (ascending by name, unique, no empty values), made where it is new.
    pub fn series(&self, tenant: &Arc<TenantHead>, labels: &[(&str, &str)]) -> Arc<Series> {
        let unlimited = self.series_within(tenant, labels, &SeriesLimits::default());
        unlimited.expect("without limits there are never too many series")
    }

    /// The same, where a new one is made only within the tenant's limits.
    pub fn series_within(
        &self,
        tenant: &Arc<TenantHead>,
        labels: &[(&str, &str)],
        limits: &SeriesLimits,
    ) -> Result<Arc<Series>, TooManySeries> {
        let hash = self.hash_of(labels);
        let shard = &self.shards[hash as usize % SHARDS];
        {
            let (sets, shard, by_id) = (self.labels.read(), shard.read(), self.by_id.read());
            if let Some(s) = by_id.find(&shard, hash, tenant, labels, &sets) {
                return Ok(s.clone());
            }
        }
        let mut sets = self.labels.write();
        // Whoever makes a series has the label sets to itself until it is in the index: the count is exact.
        let room = limits.check(tenant, labels, &sets);
        let (mut shard, mut by_id) = (shard.write(), self.by_id.write());
        if let Some(s) = by_id.find(&shard, hash, tenant, labels, &sets) {
            return Ok(s.clone());
        }
        room?;
        let tables = by_id.heap_bytes() + shard.allocation_size();
        let id = by_id.give();
        let series = Arc::new(Series {
            tenant: tenant.clone(),
            id,
            hash,
            labels: sets.take(labels),
            logged: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            state: Mutex::default(),
        });
        by_id.series[id as usize] = Some(series.clone());
        shard.insert_unique(spread(hash), id, |id| by_id.hash(*id));
        self.count_tables(tables, &by_id, &shard);
        drop((shard, by_id));
        self.bytes.series.fetch_add(SERIES_BYTES, Ordering::Relaxed);
        self.count_labels(&sets);
        let mut postings = tenant.postings.write();
        tenant.came.fetch_add(1, Ordering::Relaxed);
        let before = postings.heap_bytes() as i64;
        postings.insert(id, &sets.pairs(series.labels).symbols().collect::<Vec<_>>());
        self.bytes.postings.fetch_add(postings.heap_bytes() as i64 - before, Ordering::Relaxed);
        Ok(series)
    }

    /// Keyed, because labels come from outside: whoever does not know the key cannot choose label sets that
    /// all fall into one place.
    fn hash_of(&self, labels: &[(&str, &str)]) -> u32 {
        let mut hasher = self.hash_key.build_hasher();
        for (name, value) in labels {
            hasher.write(name.as_bytes());
            hasher.write(value.as_bytes());
            // So that no two splits of one text are alike.
            hasher.write_u64((name.len() as u64) << 32 | value.len() as u64);
        }
        hasher.finish() as u32
    }

    fn count_labels(&self, sets: &LabelSets) {
        self.bytes.symbols.store(sets.symbols().heap_bytes() as i64, Ordering::Relaxed);
        self.bytes.label_sets.store(sets.heap_bytes() as i64, Ordering::Relaxed);
    }

    fn count_tables(&self, before: usize, by_id: &ById, shard: &HashTable<u32>) {
        let now = by_id.heap_bytes() + shard.allocation_size();
        self.bytes.tables.fetch_add(now as i64 - before as i64, Ordering::Relaxed);
    }

    /// Looks series up by numbers they had before: `found(at, series)` is called for those of `numbers` that
    /// a series of the tenant has now and whose labels satisfy `same(at, labels)`. A number may have been
    /// given to another series since, so `same` must compare. One lock of each kind for all of them, and
    /// nothing allocated: what a request of known series costs.
    pub fn lookup(
        &self,
        tenant: &Arc<TenantHead>,
        numbers: &[Option<u32>],
        mut same: impl FnMut(usize, LabelPairs<'_>) -> bool,
        mut found: impl FnMut(usize, &Arc<Series>),
    ) {
        let (sets, by_id) = (self.labels.read(), self.by_id.read());
        for (at, number) in numbers.iter().enumerate() {
            if let Some(series) = number.and_then(|n| by_id.series.get(n as usize)?.as_ref())
                && Arc::ptr_eq(&series.tenant, tenant)
                && same(at, sets.pairs(series.labels))
            {
                found(at, series);
            }
        }
    }

    /// Writes a sample into the current generation. `None`: the series has left the head, look it up again.
    pub fn put(&self, series: &Series, t: i64, value: Value, start: i64) -> Option<Put> {
        let mut writing = self.writing();
        let put = writing.put(series, t, value, start);
        writing.finish();
        put
    }

    /// Begins a run of writes into the current generation, whose counts are added up once at the end:
    /// counters that all writers share cost more than the samples they count. The caller keeps the generation
    /// from being frozen meanwhile.
    pub fn writing(&self) -> Writing<'_> {
        self.writing_unless(&|_, _| false)
    }

    /// The same where others write at the same time that are later in the log: what they write of a series
    /// (by its number) at a time stands, whoever comes first.
    pub fn writing_unless<'a>(&'a self, overruled: &'a dyn Fn(u32, i64) -> bool) -> Writing<'a> {
        Writing {
            head: self,
            overruled,
            generation: self.generation(),
            samples: 0,
            first: i64::MIN,
            newest: i64::MIN,
            bounds: None,
            chunks: 0,
            out_of_order: 0,
        }
    }

    /// The labels of a series.
    pub fn labels_of(&self, series: &Series) -> Labels {
        labels_with(series, &self.labels.read())
    }

    /// Runs `f` with the numbers and labels of some series, as the log wants them.
    pub fn with_labels_of<'a, T>(
        &self,
        series: impl Iterator<Item = &'a Series>,
        f: impl FnOnce(Vec<(u32, Vec<(&str, &str)>)>) -> T,
    ) -> T {
        let sets = self.labels.read();
        f(series.map(|s| (s.id, sets.pairs(s.labels).collect())).collect())
    }

    /// Whether any series may have a sample of these generations in a range (milliseconds, ends included).
    pub fn may_hold(&self, generations: &RangeInclusive<u64>, range: (i64, i64)) -> bool {
        self.time_bounds.meet(generations, range)
    }

    /// Not after the oldest sample in the head.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.time_bounds.first_ms()
    }

    /// The series of a tenant that satisfy all matchers, in no order that means anything.
    pub fn picked(
        &self,
        tenant: &TenantHead,
        matchers: &[model::matcher::Matcher],
    ) -> Result<Vec<Arc<Series>>, SourceError> {
        let sets = self.labels.read();
        let ids = tenant.postings.read().select(matchers, sets.symbols());
        Ok(self.series_of(&ids))
    }

    /// The series of a tenant that satisfy all matchers, with their labels, in [`Labels::series_cmp`] order.
    /// `held` is charged with what the labels take, which may be far more than the head has of them.
    pub fn matching(
        &self,
        tenant: &TenantHead,
        matchers: &[model::matcher::Matcher],
        held: &mut Charge,
    ) -> Result<Vec<(Labels, Arc<Series>)>, SourceError> {
        let sets = match self.labels.try_read() {
            Some(sets) => sets,
            // Whoever lists a million series holds up those who add some, and they whoever comes next.
            None => {
                may_wait()?;
                self.labels.read()
            }
        };
        let ids = tenant.postings.read().select(matchers, sets.symbols());
        may_read_series(ids.len() as usize)?;
        self.in_order(&ids, &sets, held)
    }

    /// The series of a tenant by metric, metrics in order, the series of one in no order; those without a
    /// metric come first.
    pub fn by_metric(&self, tenant: &TenantHead) -> Vec<RoaringBitmap> {
        let sets = self.labels.read();
        let symbols = sets.symbols();
        let postings = tenant.postings.read();
        let mut unnamed = postings.all().clone();
        let metrics = symbols.find(METRIC_NAME).and_then(|name| postings.values(name));
        let mut metrics: Vec<_> = metrics.into_iter().flatten().collect();
        metrics.sort_unstable_by_key(|(value, _)| symbols.text(**value));
        let mut groups = Vec::with_capacity(metrics.len() + 1);
        for (_, ids) in metrics {
            unnamed -= ids;
            groups.push(ids.clone());
        }
        groups.insert(0, unnamed);
        groups
    }

    /// The series of these numbers, in [`Labels::series_cmp`] order of their labels. Those are not made: they
    /// may be far longer than what the head has of them.
    pub fn numbered(&self, ids: &RoaringBitmap) -> Vec<Arc<Series>> {
        let sets = self.labels.read();
        let series = self.series_of(ids);
        match order::sorted(&sets, &label_sets_of(&series), true) {
            Some(order) => order.iter().map(|at| series[*at as usize].clone()).collect(),
            None => {
                // Few series in a head of many texts.
                let mut found: Vec<_> = series.iter().map(|s| (labels_with(s, &sets), s.clone())).collect();
                found.sort_unstable_by(|a, b| a.0.series_cmp(&b.0));
                found.into_iter().map(|(_, series)| series).collect()
            }
        }
    }

    fn series_of(&self, ids: &RoaringBitmap) -> Vec<Arc<Series>> {
        let by_id = self.by_id.read();
        ids.iter().filter_map(|id| by_id.series.get(id as usize)?.clone()).collect()
    }

    fn in_order(
        &self,
        ids: &RoaringBitmap,
        sets: &LabelSets,
        held: &mut Charge,
    ) -> Result<Vec<(Labels, Arc<Series>)>, SourceError> {
        let series = self.series_of(ids);
        let mut made = Vec::with_capacity(series.len());
        let mut make = |s: &Arc<Series>| {
            let labels = labels_with(s, sets);
            held.add_later(labels.byte_len() as u64)?;
            made.push((labels, s.clone()));
            Ok::<_, SourceError>(())
        };
        match order::sorted(sets, &label_sets_of(&series), true) {
            Some(order) => order.iter().try_for_each(|at| make(&series[*at as usize]))?,
            None => {
                series.iter().try_for_each(make)?;
                made.sort_unstable_by(|a, b| a.0.series_cmp(&b.0));
            }
        }
        held.settle()?;
        Ok(made)
    }

    /// Runs `f` for every series of a tenant, in no order that means anything. No lock is held meanwhile.
    pub fn for_each_series(&self, tenant: &TenantHead, mut f: impl FnMut(&Series)) {
        let ids = tenant.postings.read().all().clone();
        for id in ids {
            let series = self.by_id.read().series.get(id as usize).cloned().flatten();
            if let Some(series) = series.filter(|s| std::ptr::eq(&*s.tenant, tenant)) {
                f(&series);
            }
        }
    }
}

/// A run of writes, see [`Head::writing`]. What it counted is added to the head when it is finished.
pub struct Writing<'a> {
    head: &'a Head,
    overruled: &'a dyn Fn(u32, i64) -> bool,
    generation: u64,
    samples: u64,
    first: i64,
    newest: i64,
    /// First and last timestamp, late ones included.
    bounds: Option<(i64, i64)>,
    /// Heap bytes that came on top.
    chunks: i64,
    out_of_order: i64,
}

impl Writing<'_> {
    /// Writes a sample into the current generation. `None`: the series has left the head, look it up again.
    #[inline]
    pub fn put(&mut self, series: &Series, t: i64, value: Value, start: i64) -> Option<Put> {
        let mut state = series.state.lock();
        if !series.advance(&mut state, self.generation) {
            return None;
        }
        let before = state.active.heap_bytes();
        let overruled = |t| (self.overruled)(series.id, t);
        let put = state.active.put(t, value, start, &self.head.timelines, &overruled);
        let after = state.active.heap_bytes();
        drop(state);
        self.grown(before, after);
        self.note(t, put);
        Some(put)
    }

    /// Writes samples of one series, each a timestamp, a value and a start timestamp; `each` hears what
    /// became of one, in no order. `None`: the series has left the head.
    pub fn put_all(
        &mut self,
        series: &Series,
        rows: impl Iterator<Item = (i64, Value, i64)>,
        mut each: impl FnMut(Put),
    ) -> Option<()> {
        let mut state = series.state.lock();
        if !series.advance(&mut state, self.generation) {
            return None;
        }
        let before = state.active.heap_bytes();
        let (timelines, all_overruled) = (&self.head.timelines, self.overruled);
        let overruled = |t| all_overruled(series.id, t);
        state.active.put_all(rows, timelines, &overruled, |t, put| {
            self.note(t, put);
            each(put);
        });
        self.grown(before, state.active.heap_bytes());
        Some(())
    }

    #[inline]
    fn grown(&mut self, before: (usize, usize), after: (usize, usize)) {
        self.chunks += after.0 as i64 - before.0 as i64;
        self.out_of_order += after.1 as i64 - before.1 as i64;
    }

    #[inline]
    fn note(&mut self, t: i64, put: Put) {
        self.samples += u64::from(put != Put::Duplicate);
        let (first, last) = self.bounds.unwrap_or((t, t));
        self.bounds = Some((first.min(t), last.max(t)));
        if put == Put::InOrder {
            if self.first == i64::MIN {
                self.first = t;
            }
            self.newest = self.newest.max(t);
        }
    }

    /// Tells the head what was written.
    pub fn finish(self) {
        self.head.samples_in_generation.fetch_add(self.samples, Ordering::Relaxed);
        if let Some(bounds) = self.bounds {
            self.head.time_bounds.widen(self.generation, bounds);
        }
        self.head.bytes.chunks.fetch_add(self.chunks, Ordering::Relaxed);
        self.head.bytes.out_of_order.fetch_add(self.out_of_order, Ordering::Relaxed);
        if self.newest != i64::MIN {
            self.head.newest_t_ms.fetch_max(self.newest, Ordering::Relaxed);
            let first = &self.head.first_t_ms;
            let _ = first.compare_exchange(i64::MIN, self.first, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

fn label_sets_of(series: &[Arc<Series>]) -> Vec<LabelSet> {
    series.iter().map(|s| s.labels).collect()
}

fn labels_with(series: &Series, sets: &LabelSets) -> Labels {
    Labels::from_sorted(sets.pairs(series.labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_has_a_hash_of_its_own() {
        let (a, b) = (Head::default(), Head::default());
        let labels: Vec<String> = (0..64).map(|i| format!("value {i}")).collect();
        let hashes = |head: &Head| labels.iter().map(|v| head.hash_of(&[("name", v)])).collect::<Vec<_>>();
        assert_eq!(hashes(&a), hashes(&a));
        assert!(hashes(&a).iter().zip(hashes(&b)).filter(|(a, b)| **a == *b).count() < 3);
        assert_ne!(a.hash_of(&[("ab", "c")]), a.hash_of(&[("a", "bc")]));
    }

    #[test]
    fn tenants_of_whom_there_is_nothing_leave_the_head() {
        let head = Head::default();
        for n in 0..100 {
            head.tenant(&TenantId::new(&format!("t{n}")).unwrap());
        }
        let kept = head.tenant(&TenantId::new("kept").unwrap());
        head.series(&kept, &[("a", "1")]);
        drop(kept);
        assert!(head.bytes().metadata > 100 * TENANT_BYTES as u64);
        head.put(
            &head.series(&head.tenant(&TenantId::new("kept").unwrap()), &[("a", "1")]),
            1,
            Value::Float(1.0),
            0,
        );
        let generation = head.freeze();
        head.forget(generation, true);
        assert_eq!((head.tenants().len(), head.bytes().metadata), (1, TENANT_BYTES as u64));
    }

    #[test]
    fn number_of_a_series_that_is_gone_is_given_out_after_the_next_cut() {
        let head = Head::default();
        let tenant = head.tenant(&TenantId::single());
        let first = head.series(&tenant, &[("a", "1")]).id;
        let kept = head.series(&tenant, &[("a", "2")]);
        head.put(&kept, 1, Value::Float(1.0), 0).unwrap();
        let generation = head.freeze();
        head.forget(generation, true);
        assert_eq!(head.series_count(), 1);
        assert_ne!(head.series(&tenant, &[("a", "3")]).id, first);
        head.freeze();
        assert_eq!(head.series(&tenant, &[("a", "4")]).id, first);
        assert_eq!(head.series_count(), 3);
    }
}
