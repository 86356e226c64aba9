//! The recent past in memory: series by label set, an inverted index, and compressed samples in generations.
//!
//! Samples live in *generations*. All that arrives between two cuts of the log is one generation; a flush freezes the current
//! one, makes blocks of it and forgets it, together with its log segments. A series keeps its identity across generations, so
//! freezing costs nothing: each series moves its samples aside when the first sample of the next generation reaches it.

mod names;
pub mod postings;
pub mod samples;
pub mod source;
pub mod symbols;
pub mod timelines;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use hashbrown::HashTable;
use parking_lot::{Mutex, RwLock};
use roaring::RoaringBitmap;

use crate::db::{HeadStats, NamedCount};
use crate::labels::{Labels, METRIC_NAME, hash_sorted};
use crate::metadata::{Known, MAX_METRICS, MAX_PER_METRIC};
use crate::sample::{Metadata, Value};
use crate::tenant::TenantId;
use postings::Postings;
use samples::{Put, Samples, SamplesView};
use symbols::{Symbol, Symbols};
use timelines::Timelines;

/// Locks over the label-set table; a power of two.
const SHARDS: usize = 64;

/// One series of one tenant.
pub struct Series {
    /// Its number in this process's log and postings; given out again after the series is gone.
    pub id: u32,
    pub tenant: Arc<TenantHead>,
    hash: u64,
    labels: Box<[(Symbol, Symbol)]>,
    /// The log's mark when this series was last written down there, see [`crate::wal::Log::mark`].
    pub logged: AtomicU64,
    state: Mutex<SeriesState>,
}

#[derive(Default)]
struct SeriesState {
    /// Generation of `active`.
    generation: u64,
    active: Samples,
    /// The generation before, until its blocks are committed.
    frozen: Option<(u64, Box<Samples>)>,
    /// The series was taken out of the head; whoever still holds it must look it up again.
    gone: bool,
}

/// What the head holds of one tenant.
pub struct TenantHead {
    pub id: TenantId,
    postings: RwLock<Postings>,
    /// With the time each entry was heard last, in milliseconds.
    metadata: RwLock<BTreeMap<String, BTreeMap<Metadata, AtomicI64>>>,
}

/// All series of all tenants.
pub struct Head {
    symbols: RwLock<Symbols>,
    shards: Vec<RwLock<HashTable<Arc<Series>>>>,
    by_id: RwLock<ById>,
    tenants: RwLock<HashMap<TenantId, Arc<TenantHead>>>,
    /// The generation that writes go to, from 1.
    generation: AtomicU64,
    /// Newest in-order timestamp of the current generation, `i64::MIN` when it is empty.
    newest_t_ms: AtomicI64,
    /// The first such timestamp: with the newest, the stretch of data time the generation spans.
    first_t_ms: AtomicI64,
    samples_in_generation: AtomicU64,
    bytes: Bytes,
    timelines: Timelines,
}

/// Bytes held, counted along: signed, because parts of a difference may arrive before the other parts.
#[derive(Default)]
struct Bytes {
    symbols: AtomicI64,
    series: AtomicI64,
    postings: AtomicI64,
    /// Of the current generation.
    chunks: AtomicI64,
    out_of_order: AtomicI64,
    /// Of the generation before, until it is forgotten.
    frozen_chunks: AtomicI64,
    frozen_out_of_order: AtomicI64,
}

#[derive(Default)]
struct ById {
    series: Vec<Option<Arc<Series>>>,
    free: Vec<u32>,
}

/// Bytes the head holds, by kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadBytes {
    pub symbols: u64,
    pub series: u64,
    pub postings: u64,
    pub chunks: u64,
    pub out_of_order: u64,
    /// Of `chunks` and `out_of_order`, what a flush is about to let go of.
    pub frozen: u64,
}

impl HeadBytes {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.symbols + self.series + self.postings + self.chunks + self.out_of_order
    }
}

impl Default for Head {
    fn default() -> Self {
        Head {
            symbols: RwLock::default(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            by_id: RwLock::default(),
            tenants: RwLock::default(),
            generation: AtomicU64::new(1),
            newest_t_ms: AtomicI64::new(i64::MIN),
            first_t_ms: AtomicI64::new(i64::MIN),
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
        let new = || TenantHead { id: id.clone(), postings: RwLock::default(), metadata: RwLock::default() };
        self.tenants.write().entry(id.clone()).or_insert_with(|| Arc::new(new())).clone()
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

    /// Begins the next generation and returns the one that is now frozen. The caller keeps writers out meanwhile.
    pub fn freeze(&self) -> u64 {
        self.newest_t_ms.store(i64::MIN, Ordering::Relaxed);
        self.first_t_ms.store(i64::MIN, Ordering::Relaxed);
        self.samples_in_generation.store(0, Ordering::Relaxed);
        let b = &self.bytes;
        b.frozen_chunks.fetch_add(b.chunks.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        b.frozen_out_of_order.fetch_add(b.out_of_order.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::AcqRel)
    }

    /// First and newest in-order timestamp of the current generation.
    pub fn span_ms(&self) -> Option<(i64, i64)> {
        let first = self.first_t_ms.load(Ordering::Relaxed);
        (first != i64::MIN).then(|| (first, self.newest_t_ms.load(Ordering::Relaxed).max(first)))
    }

    /// Samples taken into the current generation.
    pub fn samples_in_generation(&self) -> u64 {
        self.samples_in_generation.load(Ordering::Relaxed)
    }

    pub fn series_count(&self) -> u64 {
        let by_id = self.by_id.read();
        (by_id.series.len() - by_id.free.len()) as u64
    }

    /// The series of a label set (ascending by name, unique, no empty values), made where it is new.
    pub fn series(&self, tenant: &Arc<TenantHead>, labels: &[(&str, &str)]) -> Arc<Series> {
        let hash = hash_sorted(labels.iter().copied());
        let shard = &self.shards[hash as usize % SHARDS];
        {
            let symbols = self.symbols.read();
            let shard = shard.read();
            if let Some(s) = shard.find(hash, |s| s.is(hash, tenant, labels, &symbols)) {
                return s.clone();
            }
        }
        let mut symbols = self.symbols.write();
        let mut shard = shard.write();
        if let Some(s) = shard.find(hash, |s| s.is(hash, tenant, labels, &symbols)) {
            return s.clone();
        }
        let labels: Box<[_]> = labels.iter().map(|(n, v)| (symbols.take(n), symbols.take(v))).collect();
        let mut by_id = self.by_id.write();
        let id = by_id.free.pop().unwrap_or_else(|| {
            by_id.series.push(None);
            by_id.series.len() as u32 - 1
        });
        let series = Arc::new(Series {
            id,
            tenant: tenant.clone(),
            hash,
            labels,
            logged: AtomicU64::new(0),
            state: Mutex::default(),
        });
        by_id.series[id as usize] = Some(series.clone());
        drop(by_id);
        self.bytes.symbols.store(symbols.heap_bytes() as i64, Ordering::Relaxed);
        self.bytes.series.fetch_add(series.bytes(), Ordering::Relaxed);
        let mut postings = tenant.postings.write();
        let before = postings.heap_bytes() as i64;
        postings.insert(id, &series.labels);
        self.bytes.postings.fetch_add(postings.heap_bytes() as i64 - before, Ordering::Relaxed);
        drop(postings);
        shard.insert_unique(hash, series.clone(), |s| s.hash);
        series
    }

    /// Looks series up by numbers they had before: `found(at, series)` is called for those of `numbers` that a series of the tenant has now
    /// and whose labels satisfy `same(at, labels)`. A number may have been given to another series since, so `same` must compare.
    /// One lock of each kind for all of them, and nothing allocated: what a request of known series costs.
    pub fn recall(
        &self,
        tenant: &Arc<TenantHead>,
        numbers: &[Option<u32>],
        mut same: impl FnMut(usize, LabelPairs<'_>) -> bool,
        mut found: impl FnMut(usize, &Arc<Series>),
    ) {
        let symbols = self.symbols.read();
        let by_id = self.by_id.read();
        for (at, number) in numbers.iter().enumerate() {
            if let Some(series) = number.and_then(|n| by_id.series.get(n as usize)?.as_ref())
                && Arc::ptr_eq(&series.tenant, tenant)
                && same(at, LabelPairs { rest: series.labels.iter(), symbols: &symbols })
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

    /// Begins a run of writes into the current generation, whose counts are added up once at the end: counters that all writers share
    /// cost more than the samples they count. The caller keeps the generation from being frozen meanwhile.
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
        labels_with(series, &self.symbols.read())
    }

    /// Runs `f` with the numbers and labels of some series, as the log wants them.
    pub fn with_labels_of<'a>(
        &self,
        series: impl Iterator<Item = &'a Series>,
        f: impl FnOnce(Vec<(u32, Vec<(&str, &str)>)>),
    ) {
        let symbols = self.symbols.read();
        let pairs = |s: &Series| s.labels.iter().map(|&(n, v)| (symbols.text(n), symbols.text(v))).collect();
        f(series.map(|s| (s.id, pairs(s))).collect());
    }

    /// The series of a tenant that satisfy all matchers, with their labels, in [`Labels::series_cmp`] order.
    pub fn matching(
        &self,
        tenant: &TenantHead,
        matchers: &[crate::matcher::Matcher],
    ) -> Vec<(Labels, Arc<Series>)> {
        let symbols = self.symbols.read();
        let ids = tenant.postings.read().select(matchers, &symbols);
        let mut found = self.with_labels(&ids, &symbols);
        drop(symbols);
        found.sort_unstable_by(|a, b| a.0.series_cmp(&b.0));
        found
    }

    fn with_labels(&self, ids: &RoaringBitmap, symbols: &Symbols) -> Vec<(Labels, Arc<Series>)> {
        let by_id = self.by_id.read();
        let series = ids.iter().filter_map(|id| by_id.series.get(id as usize)?.clone());
        series.map(|s| (labels_with(&s, symbols), s)).collect()
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

    /// Forgets generations up to `flushed` and the series that have had no sample since before it. The caller keeps writers out while
    /// `drop_idle` is set: a writer may hold a series that would go.
    pub fn forget(&self, flushed: u64, drop_idle: bool) -> Forgotten {
        let all: Vec<Arc<Series>> = self.by_id.read().series.iter().flatten().cloned().collect();
        let mut forgotten = Forgotten::default();
        let mut idle = Vec::new();
        for s in all {
            let mut state = s.state.lock();
            if state.frozen.as_ref().is_some_and(|(g, _)| *g <= flushed) {
                state.frozen = None;
            }
            if state.generation <= flushed && !state.active.is_empty() {
                state.active = Samples::default();
            }
            // Quiet for all of the flushed generation and since: gone. Others keep their place for the next scrape.
            if state.generation < flushed && state.frozen.is_none() {
                forgotten.idle_series += 1;
                if drop_idle {
                    state.gone = true;
                    idle.push(s.clone());
                }
            }
        }
        for s in idle {
            self.remove(&s);
        }
        if self.generation() > flushed {
            self.bytes.frozen_chunks.store(0, Ordering::Relaxed);
            self.bytes.frozen_out_of_order.store(0, Ordering::Relaxed);
        }
        forgotten
    }

    fn remove(&self, series: &Series) {
        let mut symbols = self.symbols.write();
        let mut postings = series.tenant.postings.write();
        let before = postings.heap_bytes() as i64;
        postings.remove(series.id, &series.labels);
        self.bytes.postings.fetch_add(postings.heap_bytes() as i64 - before, Ordering::Relaxed);
        drop(postings);
        self.bytes.series.fetch_sub(series.bytes(), Ordering::Relaxed);
        let mut shard = self.shards[series.hash as usize % SHARDS].write();
        if let Ok(entry) = shard.find_entry(series.hash, |s| s.id == series.id) {
            entry.remove();
        }
        drop(shard);
        let mut by_id = self.by_id.write();
        by_id.series[series.id as usize] = None;
        by_id.free.push(series.id);
        for &(n, v) in &series.labels {
            symbols.release(n);
            symbols.release(v);
        }
        self.bytes.symbols.store(symbols.heap_bytes() as i64, Ordering::Relaxed);
    }

    /// Bytes held, counted along with every change: asking costs nothing. What the allocator rounds up or keeps is not in it.
    pub fn bytes(&self) -> HeadBytes {
        let read = |n: &AtomicI64| n.load(Ordering::Relaxed).max(0) as u64;
        let b = &self.bytes;
        let frozen = read(&b.frozen_chunks) + read(&b.frozen_out_of_order);
        HeadBytes {
            symbols: read(&b.symbols),
            series: read(&b.series),
            postings: read(&b.postings),
            chunks: read(&b.chunks) + read(&b.frozen_chunks),
            out_of_order: read(&b.out_of_order) + read(&b.frozen_out_of_order),
            frozen,
        }
    }

    /// What `status/tsdb` shows; walks the tenant's index and series.
    pub fn stats(&self, tenant: &TenantHead, first_generation: u64, limit: usize) -> HeadStats {
        let symbols = self.symbols.read();
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

/// Labels of a series of the head, pair by pair, ascending by name.
#[derive(Clone)]
pub struct LabelPairs<'a> {
    rest: std::slice::Iter<'a, (Symbol, Symbol)>,
    symbols: &'a Symbols,
}

impl<'a> Iterator for LabelPairs<'a> {
    type Item = (&'a str, &'a str);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.rest.next().map(|&(n, v)| (self.symbols.text(n), self.symbols.text(v)))
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
        if state.gone {
            return None;
        }
        state.advance(self.generation);
        let before = state.active.heap_bytes();
        let put = state.active.put(t, value, start, &self.head.timelines);
        let after = state.active.heap_bytes();
        drop(state);
        self.grown(before, after);
        self.note(t, put);
        Some(put)
    }

    /// Writes floats of one series, each a timestamp, a value and a start timestamp. `None`: the series has left the head.
    pub fn put_run(&mut self, series: &Series, rows: impl Iterator<Item = (i64, f64, i64)>) -> Option<()> {
        let mut state = series.state.lock();
        if state.gone {
            return None;
        }
        state.advance(self.generation);
        let before = state.active.heap_bytes();
        for (t, v, start) in rows {
            let put = state.active.put(t, Value::Float(v), start, &self.head.timelines);
            self.note(t, put);
        }
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

fn labels_with(series: &Series, symbols: &Symbols) -> Labels {
    Labels::from_sorted(series.labels.iter().map(|&(n, v)| (symbols.text(n), symbols.text(v))))
}

impl SeriesState {
    /// Makes `active` the samples of this generation.
    fn advance(&mut self, generation: u64) {
        if self.generation == generation {
            return;
        }
        if !self.active.is_empty() {
            // The slot is free: a generation is cut only after the one before it was forgotten or kept as it is.
            self.frozen = Some((self.generation, Box::new(std::mem::take(&mut self.active))));
        }
        self.generation = generation;
    }
}

impl Series {
    /// Heap bytes of the series itself: its places in the tables too, its samples not.
    fn bytes(&self) -> i64 {
        const TABLES: usize = 24;
        (std::mem::size_of::<Series>() + 16 + self.labels.len() * 8 + TABLES) as i64
    }

    #[inline]
    fn is(&self, hash: u64, tenant: &Arc<TenantHead>, labels: &[(&str, &str)], symbols: &Symbols) -> bool {
        self.hash == hash
            && Arc::ptr_eq(&self.tenant, tenant)
            && self.labels.len() == labels.len()
            && self
                .labels
                .iter()
                .zip(labels)
                .all(|(&(n, v), l)| symbols.text(n) == l.0 && symbols.text(v) == l.1)
    }

    /// A moment's view of the samples of generations `from..=to` within the range: the older generation, then the newer.
    pub fn view(
        &self,
        generations: std::ops::RangeInclusive<u64>,
        min_t: i64,
        max_t: i64,
    ) -> [SamplesView; 2] {
        let state = self.state.lock();
        let mut views = [SamplesView::default(), SamplesView::default()];
        if let Some((g, s)) = &state.frozen
            && generations.contains(g)
        {
            views[0] = s.view(min_t, max_t);
        }
        if generations.contains(&state.generation) {
            views[1] = state.active.view(min_t, max_t);
        }
        views
    }

    /// First and last timestamp of what it holds in these generations.
    pub fn range_ms(&self, generations: std::ops::RangeInclusive<u64>) -> Option<(i64, i64)> {
        let state = self.state.lock();
        let frozen =
            state.frozen.as_ref().filter(|(g, _)| generations.contains(g)).and_then(|(_, s)| s.range_ms());
        let active = generations.contains(&state.generation).then(|| state.active.range_ms()).flatten();
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
    /// Whether this is known of a metric, or there is no room to know more: metadata comes from outside and must have an end.
    /// What is known already is noted as heard at `now_ms`.
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

    /// Notes what a metric is.
    pub fn learn(&self, metric: &str, metadata: &Metadata, now_ms: i64) {
        let mut all = self.metadata.write();
        let known = all.entry(metric.to_string()).or_default();
        known.entry(metadata.clone()).or_default().fetch_max(now_ms, Ordering::Relaxed);
    }

    /// What was heard of metrics since the process started (or is in its log), and when last.
    pub fn metadata(&self, metric: Option<&str>) -> Known {
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
