//! The recent past in memory: series by label set, an inverted index, and compressed samples in generations.
//!
//! Samples live in *generations*. All that arrives between two cuts of the log is one generation; a flush
//! freezes the current one, makes blocks of it and forgets it, together with its log segments. A series keeps
//! its identity across generations, so freezing costs nothing: each series moves its samples aside when the
//! first sample of the next generation reaches it.

pub mod chunk;
pub mod label_sets;
mod names;
pub mod postings;
pub mod samples;
pub mod source;
pub mod symbols;
pub mod timelines;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard, RwLock};
use roaring::RoaringBitmap;

use crate::sidecar::metadata::{MAX_METRICS, MAX_PER_METRIC, MetricMetadata};
use label_sets::{LabelSet, LabelSets};
use model::head_stats::{HeadBytes, HeadStats, NamedCount};
use model::labels::{Labels, METRIC_NAME};
use model::sample::{Metadata, Value};
use model::tenant::TenantId;
use postings::Postings;
use samples::{Put, Samples, SamplesView};
use timelines::Timelines;

pub use label_sets::LabelPairs;

/// Locks over the label-set table; a power of two.
const SHARDS: usize = 64;

/// One series of one tenant. There are millions: with the counts of its `Arc` it fills two lines of the cache
/// and a size that the allocator does not round up, so that one byte more would cost 32.
pub struct Series {
    pub tenant: Arc<TenantHead>,
    /// Its number in this process's log and postings; given out again after the series is gone.
    pub id: u32,
    hash: u32,
    labels: LabelSet,
    /// See [`Series::is_logged`].
    logged: AtomicU32,
    /// Generation of the active samples, or [`GONE`]; read and written while `state` is locked.
    generation: AtomicU32,
    state: Mutex<SeriesState>,
}

const _: () = assert!(size_of::<Series>() + 2 * size_of::<usize>() <= 128);

#[derive(Default)]
struct SeriesState {
    active: Samples,
    /// The generation before, until its blocks are committed.
    frozen: Option<Box<(u64, Samples)>>,
}

/// The generation of a series that was taken out of the head; whoever still holds it must look it up again.
const GONE: u32 = u32::MAX;

/// What the head holds of one tenant.
pub struct TenantHead {
    pub id: TenantId,
    postings: RwLock<Postings>,
    /// With the time each entry was heard last, in milliseconds.
    metadata: RwLock<BTreeMap<String, BTreeMap<Metadata, AtomicI64>>>,
    /// Bytes of it: of this tenant, and the room that all share.
    metadata_bytes: AtomicU64,
    metadata_room: Arc<MetadataRoom>,
}

/// Memory for metadata of all tenants. It stays for as long as the process runs, so that it must leave room
/// for what comes and goes.
struct MetadataRoom {
    max_bytes: u64,
    bytes: AtomicU64,
}

/// Metadata that all tenants may have in memory where nothing else is said.
const METADATA_BYTES: u64 = 256 << 20;

/// Longest texts of one entry of metadata that are kept.
pub const MAX_ENTRY_BYTES: u64 = 64 << 10;

/// What an entry of metadata takes besides its texts, and what a tenant takes that has nothing.
const ENTRY_BYTES: u64 = 200;
const TENANT_BYTES: i64 = 1024;

/// About what an entry of metadata takes in memory.
pub fn entry_bytes(metric: &str, metadata: &Metadata) -> u64 {
    let texts = metric.len() + metadata.kind.len() + metadata.help.len() + metadata.unit.len();
    texts as u64 + ENTRY_BYTES
}

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

/// Series by number.
#[derive(Default)]
struct ById {
    series: Vec<Option<Arc<Series>>>,
    free: Vec<u32>,
    /// Free from the next cut of the log on: within a generation a number means one series, so that of a log
    /// that lost a definition it is known which numbers may be trusted.
    free_after_cut: Vec<u32>,
}

impl ById {
    /// A number for a new series.
    fn give(&mut self) -> u32 {
        if let Some(id) = self.free.pop() {
            return id;
        }
        if self.series.len() == self.series.capacity() {
            // By little: a table that doubled would be half empty.
            self.series.reserve_exact((self.series.len() / 8).max(64));
        }
        self.series.push(None);
        self.series.len() as u32 - 1
    }

    fn take_back(&mut self, id: u32) {
        self.series[id as usize] = None;
        self.free_after_cut.push(id);
    }

    /// The log was cut: what was freed before may be given out again.
    fn release(&mut self) {
        self.free.append(&mut self.free_after_cut);
        if self.free.len() == self.series.len() {
            *self = ById::default();
        }
    }

    fn len(&self) -> usize {
        self.series.len() - self.free.len() - self.free_after_cut.len()
    }

    /// What a shard needs to know of a number in it.
    fn hash(&self, id: u32) -> u64 {
        spread(self.series[id as usize].as_ref().map_or(0, |s| s.hash))
    }

    /// The series of these labels, if this shard has it.
    fn find(
        &self,
        shard: &HashTable<u32>,
        hash: u32,
        tenant: &Arc<TenantHead>,
        labels: &[(&str, &str)],
        sets: &LabelSets,
    ) -> Option<&Arc<Series>> {
        let series = |id: &u32| self.series.get(*id as usize)?.as_ref();
        let is = |s: &Arc<Series>| {
            s.hash == hash
                && Arc::ptr_eq(&s.tenant, tenant)
                && sets.pairs(s.labels).eq(labels.iter().copied())
        };
        shard.find(spread(hash), |id| series(id).is_some_and(is)).and_then(series)
    }

    fn heap_bytes(&self) -> usize {
        self.series.capacity() * size_of::<Option<Arc<Series>>>()
            + (self.free.capacity() + self.free_after_cut.capacity()) * size_of::<u32>()
    }
}

/// All 64 bits of a hash of 32, whose low ones are the same for all of a shard.
fn spread(hash: u32) -> u64 {
    let spread = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    spread ^ spread >> 32
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
            generation: AtomicU64::new(1),
            newest_t_ms: AtomicI64::new(i64::MIN),
            first_t_ms: AtomicI64::new(i64::MIN),
            floor_t_ms: AtomicI64::new(i64::MIN),
            samples_in_generation: AtomicU64::new(0),
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
                postings: RwLock::default(),
                metadata: RwLock::default(),
                metadata_bytes: AtomicU64::new(0),
                metadata_room: self.metadata_room.clone(),
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
        let hash = self.hash_of(labels);
        let shard = &self.shards[hash as usize % SHARDS];
        {
            let (sets, shard, by_id) = (self.labels.read(), shard.read(), self.by_id.read());
            if let Some(s) = by_id.find(&shard, hash, tenant, labels, &sets) {
                return s.clone();
            }
        }
        let (mut sets, mut shard, mut by_id) = (self.labels.write(), shard.write(), self.by_id.write());
        if let Some(s) = by_id.find(&shard, hash, tenant, labels, &sets) {
            return s.clone();
        }
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
        let before = postings.heap_bytes() as i64;
        postings.insert(id, &sets.pairs(series.labels).numbers());
        self.bytes.postings.fetch_add(postings.heap_bytes() as i64 - before, Ordering::Relaxed);
        series
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
        Writing {
            head: self,
            generation: self.generation(),
            samples: 0,
            first: i64::MIN,
            newest: i64::MIN,
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

    /// The series of a tenant that satisfy all matchers, with their labels, in [`Labels::series_cmp`] order.
    pub fn matching(
        &self,
        tenant: &TenantHead,
        matchers: &[model::matcher::Matcher],
    ) -> Vec<(Labels, Arc<Series>)> {
        let mut found = self.selected(tenant, matchers);
        found.sort_unstable_by(|a, b| a.0.series_cmp(&b.0));
        found
    }

    /// The same in no order, for those who bring them into another one.
    pub fn selected(
        &self,
        tenant: &TenantHead,
        matchers: &[model::matcher::Matcher],
    ) -> Vec<(Labels, Arc<Series>)> {
        let sets = self.labels.read();
        let ids = tenant.postings.read().select(matchers, sets.symbols());
        self.with_labels(&ids, &sets)
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

    /// The series of these numbers with their labels, in [`Labels::series_cmp`] order.
    pub fn numbered(&self, ids: &RoaringBitmap) -> Vec<(Labels, Arc<Series>)> {
        let mut found = self.with_labels(ids, &self.labels.read());
        found.sort_unstable_by(|a, b| a.0.series_cmp(&b.0));
        found
    }

    fn with_labels(&self, ids: &RoaringBitmap, sets: &LabelSets) -> Vec<(Labels, Arc<Series>)> {
        let by_id = self.by_id.read();
        let series = ids.iter().filter_map(|id| by_id.series.get(id as usize)?.clone());
        series.map(|s| (labels_with(&s, sets), s)).collect()
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

    /// Forgets generations up to `flushed` and the series that have had no sample since before it. The caller
    /// keeps writers out while `drop_idle` is set: a writer may hold a series that would go.
    pub fn forget(&self, flushed: u64, drop_idle: bool) -> Forgotten {
        let all: Vec<Arc<Series>> = self.by_id.read().series.iter().flatten().cloned().collect();
        let mut forgotten = Forgotten::default();
        let mut idle = Vec::new();
        for s in all {
            let mut state = s.state.lock();
            if state.frozen.as_ref().is_some_and(|f| f.0 <= flushed) {
                state.frozen = None;
            }
            let generation = s.generation(&state);
            if generation <= flushed && !state.active.is_empty() {
                state.active = Samples::default();
            }
            // Quiet for all of the flushed generation and since: gone. Others keep their place for the next
            // scrape.
            if generation < flushed && state.frozen.is_none() {
                forgotten.idle_series += 1;
                if drop_idle {
                    s.generation.store(GONE, Ordering::Relaxed);
                    idle.push(s.clone());
                }
            }
        }
        for s in idle {
            self.remove(&s);
        }
        if drop_idle {
            self.forget_tenants();
        }
        if self.generation() > flushed {
            self.bytes.frozen_chunks.store(0, Ordering::Relaxed);
            self.bytes.frozen_out_of_order.store(0, Ordering::Relaxed);
        }
        forgotten
    }

    /// Forgets tenants of whom there is nothing: whoever may name tenants must not fill the head with their
    /// names.
    fn forget_tenants(&self) {
        self.tenants.write().retain(|_, tenant| {
            let stays = Arc::strong_count(tenant) > 1
                || tenant.series_count() > 0
                || tenant.metadata_bytes.load(Ordering::Relaxed) > 0;
            if !stays {
                self.bytes.tenants.fetch_sub(TENANT_BYTES, Ordering::Relaxed);
            }
            stays
        });
    }

    fn remove(&self, series: &Series) {
        let mut sets = self.labels.write();
        let mut postings = series.tenant.postings.write();
        let before = postings.heap_bytes() as i64;
        postings.remove(series.id, &sets.pairs(series.labels).numbers());
        self.bytes.postings.fetch_add(postings.heap_bytes() as i64 - before, Ordering::Relaxed);
        drop(postings);
        let mut shard = self.shards[series.hash as usize % SHARDS].write();
        let mut by_id = self.by_id.write();
        let tables = by_id.heap_bytes() + shard.allocation_size();
        if let Ok(entry) = shard.find_entry(spread(series.hash), |id| *id == series.id) {
            entry.remove();
        }
        if shard.len() < shard.capacity() / 4 {
            shard.shrink_to(0, |id| by_id.hash(*id));
        }
        by_id.take_back(series.id);
        self.count_tables(tables, &by_id, &shard);
        drop((shard, by_id));
        sets.release(series.labels);
        self.bytes.series.fetch_sub(SERIES_BYTES, Ordering::Relaxed);
        self.count_labels(&sets);
    }

    /// Bytes held, counted along with every change: asking costs nothing. What the allocator rounds up or
    /// keeps is not in it.
    pub fn bytes(&self) -> HeadBytes {
        let read = |n: &AtomicI64| n.load(Ordering::Relaxed).max(0) as u64;
        let b = &self.bytes;
        let frozen = read(&b.frozen_chunks) + read(&b.frozen_out_of_order);
        HeadBytes {
            symbols: read(&b.symbols),
            series: read(&b.series) + read(&b.label_sets) + read(&b.tables),
            postings: read(&b.postings),
            chunks: read(&b.chunks) + read(&b.frozen_chunks),
            out_of_order: read(&b.out_of_order) + read(&b.frozen_out_of_order),
            metadata: self.metadata_room.bytes.load(Ordering::Relaxed) + read(&b.tenants),
            frozen,
        }
    }

    /// What `status/tsdb` shows; walks the tenant's index and series.
    pub fn stats(&self, tenant: &TenantHead, first_generation: u64, limit: usize) -> HeadStats {
        let sets = self.labels.read();
        let symbols = sets.symbols();
        let postings = tenant.postings.read();
        let by_id = self.by_id.read();
        let mut stats = HeadStats { series: postings.all().len(), ..HeadStats::default() };
        let mut range: Option<(i64, i64)> = None;
        for s in postings.all().iter().filter_map(|id| by_id.series.get(id as usize)?.as_ref()) {
            stats.chunks += s.chunks() as u64;
            if let Some((a, b)) = s.range_ms(first_generation..=u64::MAX) {
                range = Some(range.map_or((a, b), |(x, y)| (x.min(a), y.max(b))));
            }
        }
        (stats.min_t_ms, stats.max_t_ms) = range.unwrap_or((0, 0));
        let named = |name: &str, value: u64| NamedCount { name: name.to_string(), value };
        for (name, values) in postings.iter() {
            let name = symbols.text(name);
            stats.label_pairs += values.len() as u64;
            stats.values_by_label.push(named(name, values.len() as u64));
            let bytes = values.iter().map(|(v, ids)| symbols.text(*v).len() as u64 * ids.len()).sum();
            stats.bytes_by_label.push(named(name, bytes));
            let mut pairs: Vec<_> = values.iter().map(|(v, ids)| (ids.len(), symbols.text(*v))).collect();
            pairs.sort_unstable_by(|a, b| (b.0, a.1).cmp(&(a.0, b.1)));
            for (count, value) in pairs.into_iter().take(limit) {
                if name == METRIC_NAME {
                    stats.series_by_metric.push(named(value, count));
                }
                stats.series_by_pair.push(NamedCount { name: format!("{name}={value}"), value: count });
            }
        }
        for list in [
            &mut stats.series_by_metric,
            &mut stats.values_by_label,
            &mut stats.bytes_by_label,
            &mut stats.series_by_pair,
        ] {
            list.sort_unstable_by(|a, b| (b.value, &a.name).cmp(&(a.value, &b.name)));
            list.truncate(limit);
        }
        stats
    }
}

/// A run of writes, see [`Head::writing`]. What it counted is added to the head when it is finished.
pub struct Writing<'a> {
    head: &'a Head,
    generation: u64,
    samples: u64,
    first: i64,
    newest: i64,
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
        let put = state.active.put(t, value, start, &self.head.timelines);
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
        let timelines = &self.head.timelines;
        state.active.put_all(rows, timelines, |t, put| {
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
        self.head.bytes.chunks.fetch_add(self.chunks, Ordering::Relaxed);
        self.head.bytes.out_of_order.fetch_add(self.out_of_order, Ordering::Relaxed);
        if self.newest != i64::MIN {
            self.head.newest_t_ms.fetch_max(self.newest, Ordering::Relaxed);
            let first = &self.head.first_t_ms;
            let _ = first.compare_exchange(i64::MIN, self.first, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// What [`Head::forget`] found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forgotten {
    /// Series without a sample since before the flushed generation.
    pub idle_series: u64,
}

fn labels_with(series: &Series, sets: &LabelSets) -> Labels {
    Labels::from_sorted(sets.pairs(series.labels))
}

/// Heap bytes of a series itself: its labels, its places in tables and its samples are counted where they
/// are.
const SERIES_BYTES: i64 = (size_of::<Series>() + 2 * size_of::<usize>()) as i64;

impl Series {
    /// Whether it was written down under this mark of the log, see [`crate::wal::Log::mark`]. Only the low
    /// half of the mark is kept: it counts the log's cuts and failures.
    pub fn is_logged(&self, mark: u64) -> bool {
        self.logged.load(Ordering::Acquire) == mark as u32
    }

    pub fn set_logged(&self, mark: u64) {
        self.logged.store(mark as u32, Ordering::Release);
    }

    /// Generation of the active samples.
    fn generation(&self, _locked: &MutexGuard<'_, SeriesState>) -> u64 {
        self.generation.load(Ordering::Relaxed).into()
    }

    /// Makes the active samples those of this generation. `false`: the series has left the head.
    #[inline]
    fn advance(&self, state: &mut MutexGuard<'_, SeriesState>, generation: u64) -> bool {
        let (before, now) = (self.generation.load(Ordering::Relaxed), generation as u32);
        if before == now || before == GONE {
            return before != GONE;
        }
        if !state.active.is_empty() {
            // The slot is free: a generation is cut only after the one before it was forgotten or kept as it
            // is.
            state.frozen = Some(Box::new((before.into(), std::mem::take(&mut state.active))));
        }
        self.generation.store(now, Ordering::Relaxed);
        true
    }

    /// A moment's view of the samples of generations `from..=to` within the range: the older generation, then
    /// the newer.
    pub fn view(
        &self,
        generations: std::ops::RangeInclusive<u64>,
        min_t: i64,
        max_t: i64,
    ) -> [SamplesView; 2] {
        let state = self.state.lock();
        let mut views = [SamplesView::default(), SamplesView::default()];
        if let Some((g, s)) = state.frozen.as_deref()
            && generations.contains(g)
        {
            views[0] = s.view(min_t, max_t);
        }
        if generations.contains(&self.generation(&state)) {
            views[1] = state.active.view(min_t, max_t);
        }
        views
    }

    /// First and last timestamp of what it holds in these generations.
    pub fn range_ms(&self, generations: std::ops::RangeInclusive<u64>) -> Option<(i64, i64)> {
        let state = self.state.lock();
        let frozen = state.frozen.as_deref().filter(|(g, _)| generations.contains(g));
        let frozen = frozen.and_then(|(_, s)| s.range_ms());
        let is_asked = generations.contains(&self.generation(&state));
        let active = is_asked.then(|| state.active.range_ms()).flatten();
        match (frozen, active) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        }
    }

    /// Chunks held.
    pub fn chunks(&self) -> usize {
        let state = self.state.lock();
        state.active.chunks() + state.frozen.as_ref().map_or(0, |f| f.1.chunks())
    }
}

impl TenantHead {
    /// Whether this is known of a metric, or there is no room to know more: metadata comes from outside and
    /// must have an end. What is known already is noted as heard at `now_ms`.
    pub fn knows(&self, metric: &str, metadata: &Metadata, now_ms: i64) -> bool {
        let all = self.metadata.read();
        match all.get(metric) {
            Some(known) => match known.get(metadata) {
                Some(heard_ms) => {
                    heard_ms.fetch_max(now_ms, Ordering::Relaxed);
                    true
                }
                None => known.len() >= MAX_PER_METRIC,
            },
            None => all.len() >= MAX_METRICS,
        }
    }

    /// Whether a further entry of so many bytes may be kept, see [`entry_bytes`]: no tenant may take more
    /// than half of what all may.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        let room = &self.metadata_room;
        let used = |of: &AtomicU64| of.load(Ordering::Relaxed).saturating_add(bytes);
        used(&self.metadata_bytes) <= room.max_bytes / 2 && used(&room.bytes) <= room.max_bytes
    }

    /// Notes what a metric is, where there is room to.
    pub fn learn(&self, metric: &str, metadata: &Metadata, now_ms: i64) {
        let mut all = self.metadata.write();
        if !all.get(metric).is_some_and(|known| known.contains_key(metadata)) {
            let bytes = entry_bytes(metric, metadata);
            if bytes > MAX_ENTRY_BYTES || !self.has_room_for(bytes) {
                return;
            }
            self.metadata_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.metadata_room.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        let known = all.entry(metric.to_string()).or_default();
        known.entry(metadata.clone()).or_default().fetch_max(now_ms, Ordering::Relaxed);
    }

    /// What was heard of metrics since the process started (or is in its log), and when last.
    pub fn metadata(&self, metric: Option<&str>) -> MetricMetadata {
        let all = self.metadata.read();
        let heard = |known: &BTreeMap<Metadata, AtomicI64>| {
            known.iter().map(|(m, heard_ms)| (m.clone(), heard_ms.load(Ordering::Relaxed))).collect()
        };
        match metric {
            Some(metric) => {
                all.get_key_value(metric).map(|(m, k)| (m.clone(), heard(k))).into_iter().collect()
            }
            None => all.iter().map(|(m, k)| (m.clone(), heard(k))).collect(),
        }
    }

    pub fn series_count(&self) -> u64 {
        self.postings.read().all().len()
    }
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
    fn metadata_takes_no_more_than_it_may_and_is_counted() {
        let head = Head::with_metadata_bytes(100_000);
        let entry = |help: usize| Metadata { kind: "gauge".into(), help: "h".repeat(help), unit: "".into() };
        let (a, b) = ([1, 2].map(|n| head.tenant(&TenantId::new(&format!("t{n}")).unwrap()))).into();
        for n in 0..1_000 {
            a.learn(&format!("metric_{n}"), &entry(1_000), 5);
        }
        assert!(head.bytes().metadata <= 50_000 + 2 * TENANT_BYTES as u64);
        assert!(a.metadata(None).len() > 30);
        b.learn("other", &entry(10), 5);
        b.learn("long", &entry(MAX_ENTRY_BYTES as usize), 5);
        assert_eq!(
            b.metadata(None).len(),
            1,
            "one tenant leaves room for the others, and an entry for the rest"
        );
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
