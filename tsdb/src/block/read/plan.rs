//! An open block: which rows a selection reads, and the lists of numbers and histograms that they have.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::{ListArray, RecordBatch};
use hashbrown::HashMap;
use parquet::file::statistics::Statistics;
use xxhash_rust::xxh3::xxh3_64;

use super::small_rows::SmallRows;
use crate::block::encode::Encoding;
use crate::block::metric_runs::MetricRuns;
use crate::block::read::cache::Key;
use crate::block::read::file::{BlockFile, fetch_ahead, is_here};
use crate::block::read::lists::{self, ListRead, Wanted};
use crate::block::read::scan::{self, Scan};
use crate::block::read::series_table::{SeriesTable, TableProjection};
use crate::block::read::store::BlockStore;
use crate::block::schema::SMALL_COLUMNS;
use crate::block::window_schema::{self, Role};
use crate::block_meta::BlockMeta;
use crate::deletion::{BlockVisibility, Concern, Resolved, Visibility};
use model::matcher::Matcher;
use model::source::{Budget, SourceError};
use model::tenant::TenantId;

/// Selections that together are more than one part in so many of a block's series have the whole series table
/// read, and so has one of more runs than that.
const LARGE_PART: u64 = 4;
const MOST_RUNS: usize = 256;

/// Small columns are read together with the series table where they take no more than the table and this:
/// more of them than a selection may need, but a round trip less.
const SMALL_AHEAD_BYTES: u64 = 256 << 10;

/// What a native histogram is taken to need in memory before it is known.
const HISTOGRAM_BYTES: u64 = 1024;

/// An open block.
pub(crate) struct Block {
    pub meta: Arc<BlockMeta>,
    pub(crate) store: Arc<BlockStore>,
    series_file: BlockFile,
    timelines: BlockFile,
    pub(crate) samples: BlockFile,
}

/// A row that a selection needs.
#[derive(Clone, Copy)]
pub(crate) struct PlannedRow {
    pub series: u32,
    pub(crate) row_group: u32,
    pub(crate) row: u32,
    pub n: u32,
}

/// What a selection reads of a block: rows in the order of series, and the small columns that describe them.
pub(crate) struct RowPlan {
    pub rows: Vec<PlannedRow>,
    pub(crate) small: BTreeMap<u32, Arc<SmallRows>>,
    /// Whether rows are looked for in the cache, and left there whole when they have been decoded.
    pub(crate) keep_rows: bool,
    /// What its native histograms may take there, which is not known before they are decoded.
    keep_bytes: u64,
}

impl RowPlan {
    /// Has the rows of a block of samples kept in the cache if there is room for all of them in what is
    /// left of
    /// `bytes`: what is read once is often read again, and a selection that does not fit would only drive
    /// everything else out.
    pub fn keeping_rows(self, bytes: &AtomicU64) -> RowPlan {
        let wanted = self.samples().saturating_mul(8);
        let left = bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(wanted));
        RowPlan { keep_rows: left.is_ok(), keep_bytes: left.unwrap_or(0), ..self }
    }

    /// Whether so many native histograms are kept in the cache when they have been decoded.
    pub fn keeps_histograms(&self, histograms: u64) -> bool {
        self.keep_rows && histograms.saturating_mul(HISTOGRAM_BYTES) <= self.keep_bytes
    }

    /// Samples of its rows, those outside the range asked for included.
    pub fn samples(&self) -> u64 {
        self.rows.iter().map(|r| u64::from(r.n)).sum()
    }
}

impl Block {
    /// Reads footers and indexes where they are not in the cache. `some_series` as for [`BlockFile::open`].
    pub fn open(
        store: &Arc<BlockStore>,
        tenant: &TenantId,
        meta: &Arc<BlockMeta>,
        some_series: bool,
    ) -> Result<Block, SourceError> {
        let [series_file, timelines, samples] = BlockFile::open(store, tenant, meta, some_series)?;
        Ok(Block { meta: meta.clone(), store: store.clone(), series_file, timelines, samples })
    }

    /// Whether the block can be opened without a request.
    pub fn is_cached(store: &BlockStore, meta: &BlockMeta) -> bool {
        use crate::block::read::cache::FileKind;
        let has = |kind| store.cache.contains(&Key::Index(meta.ulid, kind));
        has(FileKind::Series) && has(FileKind::Timelines) && has(FileKind::Samples)
    }

    /// A run of the series table, see [`SeriesTable::run`].
    pub fn series_run(&self, first: u32, count: u32) -> Result<SeriesTable, SourceError> {
        SeriesTable::run(&self.store, &self.series_file, first, count)
    }

    /// About how many bytes a planned row takes when it is read.
    pub fn row_bytes(&self, plan: &RowPlan, row: &PlannedRow) -> u64 {
        let (small, at) = (&plan.small[&row.row_group], row.row as usize);
        let each = match small.role.get(at) {
            Some(Role::Windows) => 10 * 8,
            Some(_) => HISTOGRAM_BYTES,
            None if small.enc[at] == Encoding::Hist => HISTOGRAM_BYTES,
            None => 2 * 8,
        };
        u64::from(row.n) * each
    }

    /// About how many bytes a plan holds.
    pub fn plan_bytes(&self, plan: &RowPlan) -> usize {
        let small: usize = plan.small.values().map(|s| s.series_id.len() * 60).sum();
        small + plan.rows.len() * size_of::<PlannedRow>()
    }

    /// All of the series table.
    pub fn series_table(&self) -> Result<Arc<SeriesTable>, SourceError> {
        self.series_table_for(&[], None)
    }

    /// As much of the series table as any of these selectors (none: all series) may match: the rows of their
    /// metrics where the block has a directory of them and they are not a large part of it. With `range`,
    /// what a plan of few row groups for these series and times needs is read in the same round.
    pub fn series_table_for(
        &self,
        selectors: &[&[Matcher]],
        range: Option<(i64, i64)>,
    ) -> Result<Arc<SeriesTable>, SourceError> {
        let key = Key::SeriesTable(self.meta.ulid);
        if let Some(table) = self.store.cache.get::<SeriesTable>(&key) {
            return Ok(table);
        }
        let Some(runs) = self.runs_of(selectors) else { return self.whole_table(range) };
        let key = Key::SeriesRuns(self.meta.ulid, hash_of(&runs));
        if let Some(table) = self.store.cache.get::<SeriesTable>(&key).filter(|t| t.has_runs(&runs)) {
            return Ok(table);
        }
        // Parts that add up to a large one take more than the whole does: each has its own strings.
        let rows: u64 = runs.iter().map(|r| r.len() as u64).sum();
        let in_parts = self.series_file.index.rows_in_parts.fetch_add(rows, Ordering::Relaxed) + rows;
        if in_parts > self.meta.stats.series / LARGE_PART {
            return self.whole_table(range);
        }
        let table = Arc::new(self.table_of(runs, range)?);
        self.store.cache.put(key, table.clone(), table.bytes());
        Ok(table)
    }

    /// The whole series table, which is not in the cache yet.
    fn whole_table(&self, range: Option<(i64, i64)>) -> Result<Arc<SeriesTable>, SourceError> {
        let all = SeriesTable::whole(&self.meta, &self.series_file)?;
        let table = Arc::new(self.table_of(vec![all], range)?);
        self.store.cache.put(Key::SeriesTable(self.meta.ulid), table.clone(), table.bytes());
        Ok(table)
    }

    /// Runs of the series table, and with them the small columns that their plan needs, if they have to be
    /// fetched at all and are not many.
    fn table_of(&self, runs: Vec<Range<u32>>, range: Option<(i64, i64)>) -> Result<SeriesTable, SourceError> {
        let (table_projection, mut scans) = TableProjection::new(&self.series_file, &runs)?;
        let (of_series, needs) = (scans.len(), table_projection.needs());
        let mut groups = Vec::new();
        if let Some(range) = range.filter(|_| of_series > 0 || !is_here(&self.store, &needs)) {
            groups = self.groups_to_read(&runs, range);
            let of_table: u64 = needs.iter().map(|(_, range)| range.end - range.start).sum();
            let small: u64 = groups.iter().map(|group| self.small_bytes(*group)).sum();
            if small > SMALL_AHEAD_BYTES + of_table {
                groups.clear();
            }
        }
        scans.extend(self.small_scans(&groups)?);
        let (mut batches, bytes) = scan::run_with_reads(&self.store, scans, &needs)?;
        for (group, batches) in groups.iter().zip(batches.split_off(of_series)) {
            self.keep_small(*group, &batches)?;
        }
        let table = SeriesTable::of_runs(&self.series_file, runs, &table_projection, bytes, batches)?;
        Ok(table.searchable())
    }

    /// The columns that describe the rows, top-level ones by position.
    fn small_columns(&self) -> Vec<usize> {
        match self.meta.resolution_ms {
            0 => (0..SMALL_COLUMNS).collect(),
            _ => window_schema::small_columns(self.samples.index.arrow.schema().fields().len()).to_vec(),
        }
    }

    /// What the small columns of a row group take in the file.
    fn small_bytes(&self, group: usize) -> u64 {
        let metadata = self.samples.index.arrow.metadata();
        let schema = metadata.file_metadata().schema_descr();
        let (small, leaves) = (self.small_columns(), metadata.row_group(group).columns());
        let is_small = |leaf: &usize| small.contains(&schema.get_column_root_idx(*leaf));
        (0..leaves.len()).filter(is_small).map(|leaf| leaves[leaf].compressed_size() as u64).sum()
    }

    /// The directory of its metrics, where it has one that fits the block: else it is as good as none.
    pub(super) fn metrics(&self) -> Option<&MetricRuns> {
        let metrics = self.series_file.index.metrics.as_ref();
        metrics.filter(|m| u64::from(m.rows()) == self.meta.stats.series)
    }

    /// The rows of the series table that selectors may match, `None` for all.
    fn runs_of(&self, selectors: &[&[Matcher]]) -> Option<Vec<Range<u32>>> {
        let metrics = self.metrics()?;
        if selectors.is_empty() {
            return None;
        }
        let mut all: Vec<Range<u32>> = Vec::new();
        for matchers in selectors {
            all.extend(metrics.rows_of(matchers)?);
        }
        all.sort_unstable_by_key(|r| r.start);
        let mut runs: Vec<Range<u32>> = Vec::new();
        for run in all {
            match runs.last_mut().filter(|before| run.start <= before.end) {
                Some(before) => before.end = before.end.max(run.end),
                None => runs.push(run),
            }
        }
        let rows: usize = runs.iter().map(|r| r.len()).sum();
        (rows as u64 <= self.meta.stats.series / LARGE_PART && runs.len() <= MOST_RUNS).then_some(runs)
    }

    /// Row groups of samples that may hold something of some series and are not in the cache.
    fn groups_to_read(&self, runs: &[Range<u32>], (min_t_ms, max_t_ms): (i64, i64)) -> Vec<usize> {
        let known = |group: &usize| self.store.cache.contains(&Key::SmallRows(self.meta.ulid, *group as u32));
        let meets = |group: &usize| {
            runs.iter().any(|run| {
                let of_run = [run.start, run.end.saturating_sub(1)];
                self.group_may_hold_run(*group, of_run)
                    && self.group_may_hold_time(*group, min_t_ms, max_t_ms)
            })
        };
        let groups = 0..self.samples.index.row_starts.len() - 1;
        groups.filter(|group| meets(group) && !known(group)).collect()
    }

    fn small_scans(&self, groups: &[usize]) -> Result<Vec<Scan<'_>>, SourceError> {
        let columns = self.small_columns();
        groups.iter().map(|group| Scan::new(&self.samples, *group, &columns, None)).collect()
    }

    fn keep_small(&self, group: usize, batches: &[RecordBatch]) -> Result<Arc<SmallRows>, SourceError> {
        let rows = Arc::new(SmallRows::decode(&self.samples, batches, self.meta.resolution_ms != 0)?);
        let key = Key::SmallRows(self.meta.ulid, group as u32);
        self.store.cache.put(key, rows.clone(), rows.series_id.len() * 60);
        Ok(rows)
    }

    /// What a visibility hides of this block, if anything.
    pub fn visibility(
        &self,
        visibility: &Visibility,
        table: &SeriesTable,
        budget: &Budget,
    ) -> Result<Option<BlockVisibility>, SourceError> {
        let Some(concern) = Concern::of(visibility, &self.meta) else { return Ok(None) };
        let key = Key::Visibility(self.meta.ulid, concern.fingerprint());
        let resolved = match self.store.cache.get::<Resolved>(&key) {
            Some(resolved) => resolved,
            None => {
                let resolved = concern.resolve(table.len(), |m| table.matching(m, budget), budget)?;
                let resolved = Arc::new(resolved);
                self.store.cache.put(key, resolved.clone(), resolved.memory_bytes());
                resolved
            }
        };
        Ok(concern.at_present(resolved))
    }

    /// Of these series (ascending ids), those of which something may be left under a visibility. Reads the
    /// small columns of series of which only part of the block's time is hidden.
    pub fn visible(
        &self,
        mut series: Vec<u32>,
        visibility: &BlockVisibility,
    ) -> Result<Vec<u32>, SourceError> {
        let (min_t, max_t) = (self.meta.min_t_ms, self.meta.max_t_ms);
        series.retain(|s| !visibility.covers(*s, min_t, max_t));
        let partly: Vec<u32> = series.iter().copied().filter(|s| visibility.touches(*s)).collect();
        if partly.is_empty() {
            return Ok(series);
        }
        let plan = self.plan(&partly, i64::MIN, i64::MAX)?;
        let hidden = |r: &PlannedRow| {
            let (small, at) = (&plan.small[&r.row_group], r.row as usize);
            visibility.covers(r.series, small.min_t[at], small.max_t[at])
        };
        let gone = |rows: &&[PlannedRow]| rows.iter().all(hidden);
        let gone: Vec<u32> =
            plan.rows.chunk_by(|a, b| a.series == b.series).filter(gone).map(|rows| rows[0].series).collect();
        series.retain(|s| gone.binary_search(s).is_err());
        Ok(series)
    }

    /// The rows of these series (ascending ids) whose time range meets the wanted one, both ends included.
    pub fn plan(&self, series: &[u32], min_t_ms: i64, max_t_ms: i64) -> Result<RowPlan, SourceError> {
        let mut small = BTreeMap::new();
        let mut missing = Vec::new();
        for group in 0..self.samples.index.row_starts.len() - 1 {
            if !self.group_may_hold(group, series, min_t_ms, max_t_ms) {
                continue;
            }
            match self.store.cache.get::<SmallRows>(&Key::SmallRows(self.meta.ulid, group as u32)) {
                Some(rows) => {
                    small.insert(group as u32, rows);
                }
                None => missing.push(group),
            }
        }
        let batches = scan::run(&self.store, self.small_scans(&missing)?)?;
        for (group, batches) in missing.iter().zip(batches) {
            small.insert(*group as u32, self.keep_small(*group, &batches)?);
        }
        let mut rows = Vec::new();
        for (group, of_group) in &small {
            let mut at = 0;
            let mut wanted = series;
            while let (Some(want), Some(have)) = (wanted.first(), of_group.series_id.get(at)) {
                match want.cmp(have) {
                    // Galloping over what is not wanted: a selection may be one series of a million.
                    std::cmp::Ordering::Less => wanted = &wanted[wanted.partition_point(|s| s < have)..],
                    std::cmp::Ordering::Greater => {
                        at += of_group.series_id[at..].partition_point(|s| s < want);
                    }
                    std::cmp::Ordering::Equal => {
                        if of_group.min_t[at] <= max_t_ms && of_group.max_t[at] >= min_t_ms {
                            let n = of_group.n[at];
                            rows.push(PlannedRow { series: *want, row_group: *group, row: at as u32, n });
                        }
                        at += 1;
                    }
                }
            }
        }
        Ok(RowPlan { rows, small, keep_rows: false, keep_bytes: 0 })
    }

    /// Whether a row group's statistics allow for such rows; where there are none, they do.
    fn group_may_hold(&self, group: usize, series: &[u32], min_t_ms: i64, max_t_ms: i64) -> bool {
        if let Some((min, max)) = self.series_of_group(group) {
            let at = series.partition_point(|s| *s < min);
            if series.get(at).is_none_or(|s| *s > max) {
                return false;
            }
        }
        self.group_may_hold_time(group, min_t_ms, max_t_ms)
    }

    /// The least and the greatest id in a row group, where its statistics tell.
    fn series_of_group(&self, group: usize) -> Option<(u32, u32)> {
        match self.samples.index.arrow.metadata().row_group(group).column(0).statistics()? {
            Statistics::Int32(s) => Some((*s.min_opt()? as u32, *s.max_opt()? as u32)),
            _ => None,
        }
    }

    fn group_may_hold_run(&self, group: usize, [first, last]: [u32; 2]) -> bool {
        self.series_of_group(group).is_none_or(|(min, max)| first <= max && last >= min)
    }

    fn group_may_hold_time(&self, group: usize, min_t_ms: i64, max_t_ms: i64) -> bool {
        let metadata = self.samples.index.arrow.metadata().row_group(group);
        let bounds = |column: usize| match metadata.column(column).statistics() {
            Some(Statistics::Int64(s)) => (s.min_opt().copied(), s.max_opt().copied()),
            _ => (None, None),
        };
        bounds(1).0.is_none_or(|min| min <= max_t_ms) && bounds(2).1.is_none_or(|max| max >= min_t_ms)
    }

    /// Reads lists, given as rows by (column, row group), and timelines, with all requests together.
    pub(crate) fn read_columns(
        &self,
        wanted: Vec<((usize, u32), Vec<u32>)>,
        tsrefs: Vec<u32>,
    ) -> Result<Lists, SourceError> {
        let (mut timelines, missing) = self.find_timelines(tsrefs)?;
        let (reads, batches) = lists::read(&self.store, &missing, self.scans(&wanted)?)?;
        for read in reads {
            self.add_timelines(read, &mut timelines)?;
        }
        Ok(Lists { columns: self.columns_of(&wanted, batches)?, timelines })
    }

    /// Asks for lists, given as rows by (column, row group), and timelines, and does not wait: they go into
    /// the cache. How many bytes were asked for.
    pub(crate) fn fetch_columns_ahead(
        &self,
        lists: &[Wanted<'_>],
        wanted: &[((usize, u32), Vec<u32>)],
        tsrefs: Vec<u32>,
    ) -> Result<u64, SourceError> {
        let (_, timelines) = self.find_timelines(tsrefs)?;
        let mut needs = lists::needs(&timelines)?;
        needs.extend(lists::needs(lists)?);
        for mut scan in self.scans(wanted)? {
            needs.extend(scan.needs()?.map(|range| (&self.samples, range)));
        }
        fetch_ahead(&self.store, &needs)
    }

    /// The timelines that the cache has, and where the others lie.
    #[allow(clippy::type_complexity)]
    pub(crate) fn find_timelines(
        &self,
        mut tsrefs: Vec<u32>,
    ) -> Result<(HashMap<u32, Arc<[i64]>>, Vec<Wanted<'_>>), SourceError> {
        tsrefs.sort_unstable();
        tsrefs.dedup();
        let mut timelines: HashMap<u32, Arc<[i64]>> = HashMap::with_capacity(tsrefs.len());
        let mut missing: Vec<Wanted<'_>> = Vec::new();
        let keys = tsrefs.iter().map(|tsref| Some(Key::Timeline(self.meta.ulid, *tsref)));
        let known = self.store.cache.get_each::<Arc<[i64]>>(keys);
        for (tsref, known) in tsrefs.into_iter().zip(known) {
            if let Some(known) = known {
                timelines.insert(tsref, (*known).clone());
                continue;
            }
            let starts = &self.timelines.index.row_starts;
            let group = starts.partition_point(|s| *s <= u64::from(tsref)).wrapping_sub(1);
            if group + 1 >= starts.len() {
                return Err(self
                    .samples
                    .damaged(format!("it refers to a timeline {tsref} that does not exist")));
            }
            let row = (u64::from(tsref) - starts[group]) as u32;
            match missing.last_mut().filter(|m| m.group == group) {
                Some(of_group) => of_group.rows.push(row),
                None => missing.push(Wanted { file: &self.timelines, group, column: 1, rows: vec![row] }),
            }
        }
        Ok((timelines, missing))
    }

    /// Decodes timelines that were read; the cache keeps them.
    pub(crate) fn add_timelines(
        &self,
        read: ListRead<'_>,
        timelines: &mut HashMap<u32, Arc<[i64]>>,
    ) -> Result<(), SourceError> {
        let wanted = read.wanted;
        let first = self.timelines.index.row_starts[wanted.group];
        read.decode(|i, list| {
            let mut ts = Vec::with_capacity(list.len);
            list.take(0..list.len, |some| ts.extend_from_slice(some)).ok_or("a timeline is cut off")?;
            let ts: Arc<[i64]> = ts.into();
            let tsref = (first + u64::from(wanted.rows[i])) as u32;
            let bytes = ts.len() * 8;
            self.store.cache.put(Key::Timeline(self.meta.ulid, tsref), Arc::new(ts.clone()), bytes);
            timelines.insert(tsref, ts);
            Ok(())
        })
    }

    /// What reads lists given as rows by (column, row group).
    pub(crate) fn scans(&self, wanted: &[((usize, u32), Vec<u32>)]) -> Result<Vec<Scan<'_>>, SourceError> {
        // Rows come in the order of series, which within a row group is the order of rows.
        let scan = |((column, group), rows): &((usize, u32), Vec<u32>)| {
            Scan::new(&self.samples, *group as usize, &[*column], Some(rows))
        };
        wanted.iter().map(scan).collect()
    }

    /// What [`Block::scans`] read, by (column, row group, row).
    pub(crate) fn columns_of(
        &self,
        wanted: &[((usize, u32), Vec<u32>)],
        batches: Vec<Vec<RecordBatch>>,
    ) -> Result<ListsByRow, SourceError> {
        let mut columns = ListsByRow::new();
        for (((column, group), rows), batches) in wanted.iter().zip(batches) {
            let lists = lists::lists_of(&self.samples, &batches, rows.len())?;
            for (row, item) in rows.iter().zip(lists) {
                columns.insert((*column, *group, *row), item);
            }
        }
        Ok(columns)
    }
}

fn hash_of(runs: &[Range<u32>]) -> u64 {
    let bytes: Vec<u8> = runs.iter().flat_map(|r| [r.start, r.end]).flat_map(u32::to_le_bytes).collect();
    xxh3_64(&bytes)
}

/// Lists by (column, row group, row): an array and which item of it.
pub(crate) type ListsByRow = HashMap<(usize, u32, u32), (ListArray, usize)>;

/// The lists of some rows, by (column, row group, row), and the timelines they refer to.
pub(crate) struct Lists {
    pub columns: ListsByRow,
    pub timelines: HashMap<u32, Arc<[i64]>>,
}
