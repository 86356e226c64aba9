//! The source over a tenant's blocks in the object store, samples and downsampled windows as
//! [`crate::bucket::resolution`] chooses.

pub mod import_journal;
pub mod maintenance;
mod marks;
pub mod presence;
pub mod reader;
pub mod resolution;
pub mod store_clock;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use crate::block::BlockMeta;
use crate::block::read::label_lists::{LabelList, ListOf};
use crate::block::read::plan::{Block, PlannedRow, RowPlan};
use crate::block::read::samples::Carried;
use crate::block::read::series_table::SeriesTable;
use crate::block::read::store::BlockStore as Store;
use crate::bucket::resolution::{Asked, Part, choose};
use crate::deletion::{BlockVisibility, Visibility};
use model::labels::{Labels, METRIC_NAME};
use model::matcher::{MatchOp, Matcher};
use model::rollup::Aggregates;
use model::source::at_once::{is_at_once, may_read_samples, may_read_series, may_wait};
use model::source::merge::conflict::Origin;
use model::source::merge::{MergeCursor, union_of_sorted};
use model::source::{
    Budget, Charge, LabelQuery, ResolutionPart, RollupHints, Selection, SeriesColumns, SeriesCursor, Source,
    SourceError,
};
use model::span::span_end;
use model::tenant::TenantId;

pub use crate::block::read::cache::CacheStats;
pub use crate::block::read::disk_cache::{DiskCache, DiskCacheStats};
pub use crate::block::read::store::BlockStore;

/// Samples that one step of a block's cursor reads. The blocks of a selection hold a step each at the same
/// time, so of many blocks it is less, though not so little that pages would be read over and over.
const BATCH_SAMPLES: std::ops::RangeInclusive<u64> = 64 * 1024..=256 * 1024;
/// Samples that the blocks of a selection hold together, about.
const SELECTION_SAMPLES: u64 = 4 << 20;
/// Rows that one step reads at most, where rows are short.
const BATCH_ROWS: usize = 16 * 1024;
/// A selection's samples are kept in the cache where they take at most one part in so many of it.
const KEPT_PART: u64 = 4;
/// Blocks that are opened at the same time when they are not in the cache.
const PARALLEL_OPENS: usize = 32;
/// What a block's cursor asks for before it needs it, where a query has to fetch: about so many bytes, but no
/// more than one part in so many of the cache that they go into.
const AHEAD_BYTES: u64 = 8 << 20;
const AHEAD_PART: u64 = 16;
/// Steps that it looks ahead at most: what they need may be there already.
const AHEAD_STEPS: usize = 16;

/// A set of blocks as one source. It sees these blocks for as long as it lives, whatever the catalog says
/// later.
pub struct BucketSource {
    store: Arc<Store>,
    tenant: TenantId,
    /// Oldest first.
    blocks: Vec<Arc<BlockMeta>>,
    visibility: Visibility,
}

impl BucketSource {
    /// `blocks` as a snapshot of the catalog lists them, downsampled ones included.
    pub fn new(store: Arc<Store>, tenant: TenantId, mut blocks: Vec<Arc<BlockMeta>>) -> BucketSource {
        blocks.sort_by_key(|b| (b.order(), b.ulid));
        BucketSource { store, tenant, blocks, visibility: Visibility::default() }
    }

    /// This source without what a visibility hides; it is applied to each block before blocks are merged.
    pub fn with_visibility(self, visibility: Visibility) -> BucketSource {
        BucketSource { visibility, ..self }
    }

    /// First and last time that a downsampled block near a range tells of, whole windows; `None` where there
    /// is none.
    pub fn windows_span_ms(&self, min_t_ms: i64, max_t_ms: i64) -> Option<(i64, i64)> {
        let near = |b: &&Arc<BlockMeta>| b.resolution_ms > 0 && b.overlaps(min_t_ms, max_t_ms);
        let whole = |b: &Arc<BlockMeta>| {
            let first = span_end(b.min_t_ms, b.resolution_ms).saturating_sub(b.resolution_ms);
            (first.saturating_add(1), span_end(b.max_t_ms, b.resolution_ms))
        };
        self.blocks.iter().filter(near).map(whole).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// Which blocks answer which part of a range: blocks by what they hold of the outside world (external
    /// labels) apart, since one replica's windows know nothing of another's samples.
    fn parts(
        &self,
        (min_t_ms, max_t_ms): (i64, i64),
        hints: &RollupHints,
        unsettled_ms: &[(i64, i64)],
    ) -> Vec<(Part, Vec<Arc<BlockMeta>>)> {
        // Windows hold what a deletion took out of their midst.
        let mut cuts_ms = hints.cuts_ms.clone();
        for block in self.blocks.iter().filter(|b| b.resolution_ms > 0 && b.overlaps(min_t_ms, max_t_ms)) {
            for t in self.visibility.tombstones_of(block) {
                cuts_ms.extend([t.min_t_ms.saturating_sub(1), t.max_t_ms]);
            }
        }
        let max_resolution_ms = hints.max_resolution_ms;
        let asked = Asked { min_t_ms, max_t_ms, max_resolution_ms, cuts_ms: &cuts_ms, unsettled_ms };
        let mut groups: BTreeMap<&BTreeMap<String, String>, Vec<Arc<BlockMeta>>> = BTreeMap::new();
        let near = || self.blocks.iter().filter(|b| b.overlaps(min_t_ms, max_t_ms));
        // Without windows there is nothing to choose, and blocks are best merged all together.
        static TOGETHER: BTreeMap<String, String> = BTreeMap::new();
        let apart = near().any(|b| b.resolution_ms > 0);
        for block in near() {
            let group = if apart { &block.external_labels } else { &TOGETHER };
            groups.entry(group).or_default().push(block.clone());
        }
        let mut parts = Vec::new();
        for blocks in groups.into_values() {
            for part in choose(&blocks, &asked) {
                let of_part = part.blocks.iter().map(|b| blocks[*b].clone()).collect();
                parts.push((part, of_part));
            }
        }
        parts
    }

    /// [`Source::select`] together with samples that lie in no block of the bucket yet, `beside`, oldest
    /// first and each with whose they are. Within `unsettled_ms` (coarse ranges, ends included) windows do
    /// not tell all.
    pub fn select_beside<'a>(
        &self,
        selection: &Selection,
        unsettled_ms: &[(i64, i64)],
        beside: Vec<(Origin, Box<dyn SeriesCursor + 'a>)>,
    ) -> Result<Box<dyn SeriesCursor + 'a>, SourceError> {
        selection.budget.check()?;
        let parts =
            self.parts((selection.min_t_ms, selection.max_t_ms), &selection.hints.rollups, unsettled_ms);
        let mut wanted = Vec::new();
        for (at, (part, blocks)) in parts.iter().enumerate() {
            if let Some(answered) = &selection.hints.rollups.report {
                let Part { min_t_ms, max_t_ms, resolution_ms, coarse, approximate, .. } = *part;
                answered.note(ResolutionPart { min_t_ms, max_t_ms, resolution_ms, coarse, approximate });
            }
            wanted.extend(blocks.iter().filter(|b| b.may_hold(&selection.matchers)).map(|b| (at, b.clone())));
        }
        let together = Together {
            keep_bytes: AtomicU64::new(self.store.cache.capacity_bytes() as u64 / KEPT_PART),
            batch_samples: batch_samples(wanted.len()),
        };
        let store = self.store.counting(selection.budget.fetches());
        let cursors = self.for_each(
            &wanted,
            rayon::current_num_threads(),
            |(_, b)| b,
            |(at, meta)| {
                selection.budget.check()?;
                let part = &parts[*at].0;
                let range = (part.min_t_ms, part.max_t_ms);
                Ok((*at, BlockCursor::open(self, &store, meta, selection, range, &together)?))
            },
        )?;
        let mut by_part: Vec<Vec<(Origin, Box<dyn SeriesCursor + 'a>)>> =
            parts.iter().map(|_| Vec::new()).collect();
        for ((_, meta), (at, cursor)) in wanted.iter().zip(cursors) {
            by_part[at].extend(cursor.map(|c| (meta.origin(), Box::new(c) as Box<dyn SeriesCursor>)));
        }
        by_part.retain(|p| !p.is_empty());
        // Blocks of one part are best merged with what is beside them in one pass, which knows of each sample
        // whose it is.
        let mut all = match by_part.len() {
            0 | 1 => by_part.pop().unwrap_or_default(),
            _ => by_part.into_iter().enumerate().map(|part| part_as_one(part, &selection.budget)).collect(),
        };
        all.extend(beside);
        Ok(Box::new(MergeCursor::of_origins(all).charged(&selection.budget)))
    }

    /// Runs `work` for each item, those whose block needs the network at the same time, the others on so many
    /// `cores`; results in the items' order.
    fn for_each<I: Sync, T: Send>(
        &self,
        blocks: &[I],
        cores: usize,
        meta: impl Fn(&I) -> &Arc<BlockMeta>,
        work: impl Fn(&I) -> Result<T, SourceError> + Sync,
    ) -> Result<Vec<T>, SourceError> {
        let mut out: Vec<Option<Result<T, SourceError>>> = blocks.iter().map(|_| None).collect();
        let (mut warm, mut cold) = (Vec::new(), Vec::new());
        for (block, slot) in blocks.iter().zip(&mut out) {
            match Block::is_cached(&self.store, meta(block)) {
                true => warm.push((block, slot)),
                false => cold.push((block, slot)),
            }
        }
        if !cold.is_empty() {
            may_wait()?;
        }
        // Those who serve connections wait for no other thread.
        let cores = if is_at_once() { 1 } else { cores };
        let run = |(block, slot): (&I, &mut Option<_>)| *slot = Some(work(block));
        on_threads(cores, warm, run);
        on_threads(PARALLEL_OPENS, cold, run);
        out.into_iter().map(|r| r.expect("each block was worked on")).collect()
    }

    /// A block and as much of its series table as selectors (none: all series) need; for `range` see
    /// [`Block::series_table_for`].
    fn open(
        &self,
        store: &Arc<Store>,
        meta: &Arc<BlockMeta>,
        selectors: &[&[Matcher]],
        range: Option<(i64, i64)>,
    ) -> Result<(Block, Arc<SeriesTable>), SourceError> {
        // A visibility is resolved against all series.
        let hides = self.visibility.concerns(meta);
        let few = !hides && !selectors.is_empty() && selectors.iter().all(|s| s.iter().any(names_few));
        let block = Block::open(store, &self.tenant, meta, few)?;
        let table = block.series_table_for(if hides { &[] } else { selectors }, range)?;
        Ok((block, table))
    }

    /// The series tables of the blocks that a query may concern, and in each the series it selects (`None`:
    /// all).
    #[allow(clippy::type_complexity)]
    fn wished(&self, query: &LabelQuery) -> Result<Vec<(Arc<SeriesTable>, Option<Vec<u32>>)>, SourceError> {
        let store = self.store.counting(query.budget.fetches());
        self.for_each(
            &self.blocks_of(query)?,
            1,
            |b| b,
            |meta| {
                query.budget.check()?;
                let selectors: Vec<&[Matcher]> = query.selectors.iter().map(|s| &s[..]).collect();
                let (block, table) = self.open(&store, meta, &selectors, None)?;
                let mut series = match query.selectors.is_empty() {
                    true => None,
                    false => Some(matching_any(&table, query)?),
                };
                if let Some(visibility) = block.visibility(&self.visibility, &table, &query.budget)? {
                    let every = || (0..table.len() as u32).collect();
                    series = Some(block.visible(series.unwrap_or_else(every), &visibility)?);
                }
                Ok((table, series))
            },
        )
    }

    /// The blocks that a query of labels may concern.
    fn blocks_of(&self, query: &LabelQuery) -> Result<Vec<Arc<BlockMeta>>, SourceError> {
        query.budget.check()?;
        let parts = self.parts((query.min_t_ms, query.max_t_ms), &RollupHints::default(), &[]);
        let may_hold = |b: &Arc<BlockMeta>| {
            query.selectors.is_empty() || query.selectors.iter().any(|matchers| b.may_hold(matchers))
        };
        let mut blocks: Vec<Arc<BlockMeta>> = parts.into_iter().flat_map(|p| p.1).filter(may_hold).collect();
        blocks.sort_by_key(|b| (b.order(), b.ulid));
        blocks.dedup_by_key(|b| b.ulid);
        Ok(blocks)
    }

    /// Names of labels (`label`: `None`) or values of one, of lists that are kept of each block; `None` where
    /// some series are hidden.
    fn label_list(
        &self,
        label: Option<&str>,
        query: &LabelQuery,
    ) -> Result<Option<Vec<String>>, SourceError> {
        let blocks = self.blocks_of(query)?;
        if blocks.iter().any(|meta| self.visibility.concerns(meta)) {
            return Ok(None);
        }
        let of = ListOf::new(label, &query.selectors);
        let selectors: Vec<&[Matcher]> = query.selectors.iter().map(|s| &s[..]).collect();
        let store = self.store.counting(query.budget.fetches());
        let lists = self.for_each(
            &blocks,
            1,
            |b| b,
            |meta| {
                query.budget.check()?;
                if let Some(kept) = LabelList::kept(&self.store, meta.ulid, &of) {
                    return Ok(kept);
                }
                if selectors.is_empty() {
                    return Block::open(&store, &self.tenant, meta, false)?.label_list(&of);
                }
                let (block, table) = self.open(&store, meta, &selectors, None)?;
                let series = matching_any(&table, query)?;
                Ok(LabelList::of_table(&block, &of, &table, Some(&series)))
            },
        )?;
        let all = union_of_sorted(lists.iter().map(|list| list.texts()).collect());
        Ok(Some(all.into_iter().map(str::to_string).collect()))
    }
}

/// Runs work on so many threads at most, this one among them.
fn on_threads<W: Send>(threads: usize, work: Vec<W>, run: impl Fn(W) + Sync) {
    let threads = threads.min(work.len());
    let rest = Mutex::new(work.into_iter());
    let take = || {
        loop {
            let next = rest.lock().next();
            let Some(one) = next else { return };
            run(one);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Where no thread is to be had, those there are do it all.
            let thread = std::thread::Builder::new().name("block-open".to_string());
            let _ = thread.spawn_scoped(scope, take);
        }
        take();
    });
}

/// A cursor, and whose samples it has.
type OfOrigin<'a> = (Origin, Box<dyn SeriesCursor + 'a>);

/// The cursors of a part as one, and whose samples these are.
fn part_as_one<'a>((number, cursors): (usize, Vec<OfOrigin<'a>>), budget: &Arc<Budget>) -> OfOrigin<'a> {
    let origin = Origin::joined(cursors.iter().map(|(origin, _)| *origin), number as u64);
    (origin, Box::new(MergeCursor::of_origins(cursors).charged(budget)))
}

/// Whether a matcher asks for metrics by what their names are, not by what they are not.
fn names_few(m: &Matcher) -> bool {
    let begins =
        |m: &Matcher| m.regex().is_some_and(|re| re.set_matches().is_some() || !re.prefixes().is_empty());
    *m.name == *METRIC_NAME
        && !m.matches_empty()
        && match m.op {
            MatchOp::Equal => true,
            MatchOp::Regex => begins(m),
            MatchOp::NotEqual | MatchOp::NotRegex => false,
        }
}

fn matching_any(table: &SeriesTable, query: &LabelQuery) -> Result<Vec<u32>, SourceError> {
    let mut series: Vec<u32> = Vec::new();
    for matchers in &query.selectors {
        series.append(&mut table.matching(matchers, &query.budget)?);
    }
    if query.selectors.len() > 1 {
        series.sort_unstable();
        series.dedup();
    }
    Ok(series)
}

impl Source for BucketSource {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        self.select_beside(selection, &[], Vec::new())
    }

    fn series(&self, query: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        let mut lists = Vec::new();
        for (table, series) in self.wished(query)? {
            query.budget.check()?;
            may_read_series(series.as_ref().map_or(table.len(), Vec::len))?;
            let mut labels: Vec<Labels> = match series {
                Some(series) => series.into_iter().map(|s| table.labels(s)).collect(),
                None => (0..table.len() as u32).map(|s| table.labels(s)).collect(),
            };
            // Ascending as a whole or, where a label comes before the metric's name, in runs: the stable sort
            // merges them.
            labels.sort();
            lists.push(labels);
        }
        Ok(union_of_sorted(lists))
    }

    fn label_names(&self, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        if let Some(names) = self.label_list(None, query)? {
            return Ok(names);
        }
        let mut names = std::collections::BTreeSet::new();
        for (table, series) in self.wished(query)? {
            table.names(series.as_deref(), &mut |name| {
                if !names.contains(name) {
                    names.insert(name.to_string());
                }
            });
        }
        Ok(names.into_iter().collect())
    }

    fn label_values(&self, name: &str, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        if let Some(values) = self.label_list(Some(name), query)? {
            return Ok(values);
        }
        let mut values = hashbrown::HashSet::new();
        for (table, series) in self.wished(query)? {
            table.values(name, series.as_deref(), &mut |value| {
                if !values.contains(value) {
                    values.insert(value.to_string());
                }
            });
        }
        let mut values: Vec<String> = values.into_iter().collect();
        values.sort_unstable();
        Ok(values)
    }
}

/// What a cursor has asked for before it needs it.
#[derive(Default)]
struct Ahead {
    /// Planned rows before this were asked for.
    to: usize,
    /// By steps to come: the row that each ends before, and the bytes asked for.
    steps: VecDeque<(usize, u64)>,
    bytes: u64,
}

/// Walks what a selection wants of one block.
struct BlockCursor {
    block: Block,
    table: Arc<SeriesTable>,
    plan: RowPlan,
    batch_samples: u64,
    /// Planned rows before this are done.
    at: usize,
    ahead: Ahead,
    range: (i64, i64),
    visibility: Option<BlockVisibility>,
    /// What to read of windows.
    aggregates: Aggregates,
    carried: Carried,
    budget: Arc<Budget>,
    /// Read while the block was opened, so that several blocks' first reads overlap.
    first: Option<Vec<SeriesColumns>>,
    /// For the first read.
    held: Charge,
    /// For the plan.
    _planned: Charge,
}

/// What the blocks of a selection share.
struct Together {
    /// Room in the cache for their samples, whichever of them hold most of it.
    keep_bytes: AtomicU64,
    batch_samples: u64,
}

/// Samples that a step reads where so many blocks are read at once.
fn batch_samples(blocks: usize) -> u64 {
    (SELECTION_SAMPLES / blocks.max(1) as u64).clamp(*BATCH_SAMPLES.start(), *BATCH_SAMPLES.end())
}

impl BlockCursor {
    /// `None` if the block has nothing of it.
    fn open(
        source: &BucketSource,
        store: &Arc<Store>,
        meta: &Arc<BlockMeta>,
        selection: &Selection,
        range: (i64, i64),
        together: &Together,
    ) -> Result<Option<BlockCursor>, SourceError> {
        let (block, table) = source.open(store, meta, &[&selection.matchers], Some(range))?;
        let mut series = table.matching(&selection.matchers, &selection.budget)?;
        if series.is_empty() {
            return Ok(None);
        }
        may_read_series(series.len())?;
        let visibility = block.visibility(&source.visibility, &table, &selection.budget)?;
        if let Some(visibility) = &visibility {
            let (min_t, max_t) = (range.0.max(meta.min_t_ms), range.1.min(meta.max_t_ms));
            series.retain(|s| !visibility.covers(*s, min_t, max_t));
        }
        let mut plan = block.plan(&series, range.0, range.1)?;
        may_read_samples(plan.samples())?;
        if meta.resolution_ms == 0 {
            plan = plan.keeping_rows(&together.keep_bytes);
        }
        let carried = Carried::of(&series, &selection.budget);
        let aggregates = selection.hints.rollups.aggregates;
        let budget = selection.budget.clone();
        let (at, ahead, first) = (0, Ahead::default(), None);
        let (held, mut planned) = (Charge::of(&budget), Charge::of(&budget));
        planned.add(size_of_val(&plan.rows[..]) as u64)?;
        let mut cursor = BlockCursor {
            block,
            table,
            plan,
            batch_samples: together.batch_samples,
            at,
            ahead,
            range,
            visibility,
            aggregates,
            carried,
            budget,
            first,
            held,
            _planned: planned,
        };
        cursor.first = cursor.read_more()?;
        let bytes = cursor.first.iter().flatten().map(SeriesColumns::own_bytes).sum();
        cursor.held.add(bytes)?;
        Ok(cursor.first.is_some().then_some(cursor))
    }

    /// Where the query has to fetch what it reads, asks for what the steps from a row on need.
    fn fetch_ahead(&mut self, next: usize) -> Result<(), SourceError> {
        let store = &self.block.store;
        if next >= self.plan.rows.len() || !store.waits() {
            return Ok(());
        }
        let Ahead { to, steps, bytes } = &mut self.ahead;
        while let Some((_, of_step)) = steps.pop_front_if(|(end, _)| *end <= self.at) {
            *bytes -= of_step;
        }
        *to = (*to).max(next);
        let most = AHEAD_BYTES.min(store.cache.capacity_bytes() as u64 / AHEAD_PART);
        while *bytes < most && steps.len() < AHEAD_STEPS && *to < self.plan.rows.len() {
            let count = batch_of(&self.plan.rows[*to..], self.batch_samples);
            let rows = &self.plan.rows[*to..*to + count];
            let asked = self.block.fetch_ahead(&self.plan, rows, self.aggregates)?;
            *to += count;
            *bytes += asked;
            steps.push_back((*to, asked));
        }
        Ok(())
    }

    fn read_more(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
        while self.at < self.plan.rows.len() {
            self.budget.check()?;
            let count = batch_of(&self.plan.rows[self.at..], self.batch_samples);
            self.fetch_ahead(self.at + count)?;
            let rows = &self.plan.rows[self.at..self.at + count];
            let visibility = self.visibility.as_mut();
            let (block, range, budget) = (&self.block, self.range, &self.budget);
            let found = match block.meta.resolution_ms {
                0 => {
                    let carried = &mut self.carried;
                    block.read(&self.table, &self.plan, rows, range, visibility, carried)?
                }
                _ => block.read_windows(
                    &self.table,
                    &self.plan,
                    rows,
                    range,
                    visibility,
                    self.aggregates,
                    budget,
                )?,
            };
            self.at += count;
            if !found.is_empty() {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// How many of some planned rows one step of so many samples reads: those of whole series.
fn batch_of(rows: &[PlannedRow], batch_samples: u64) -> usize {
    let (mut samples, mut count) = (0, 0);
    for of_series in rows.chunk_by(|a, b| a.series == b.series) {
        count += of_series.len();
        samples += of_series.iter().map(|r| u64::from(r.n)).sum::<u64>();
        if samples >= batch_samples || count >= BATCH_ROWS {
            break;
        }
    }
    count
}

impl SeriesCursor for BlockCursor {
    fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
        self.held.let_go(u64::MAX);
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => self.read_more(),
        }
    }

    fn labels_to_come(&self) -> Option<Vec<Labels>> {
        let read = self.first.iter().flatten().map(|series| series.labels.clone());
        let planned = self.plan.rows[self.at..].chunk_by(|a, b| a.series == b.series);
        Some(read.chain(planned.map(|rows| self.table.labels(rows[0].series))).collect())
    }
}
