//! Reads series of one block: which rows, which columns of them, and the samples they make.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, ListArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, UInt32Type};
use hashbrown::HashMap;

use super::cache::Key;
use super::encode::{Encoding, decode_mantissas};
use super::meta::BlockMeta;
use super::object::{BlockFile, BlockStore};
use super::rows::hint_of;
use super::scan::{self, Scan};
use super::schema::{FIRST_HISTOGRAM_COLUMN, SAMPLE_COLUMNS, SMALL_COLUMNS};
use super::series_table::SeriesTable;
use super::windows::{self, Role};
use crate::histogram::{BucketSpan, Histogram};
use crate::mask::{BlockMask, Mask};
use crate::source::{Budget, SeriesColumns, SourceError};
use crate::tenant::TenantId;
use crate::window::Aggregates;

/// What a native histogram is taken to need in memory before it is known.
const HISTOGRAM_BYTES: u64 = 1024;

/// An open block.
pub(crate) struct Block {
    pub meta: Arc<BlockMeta>,
    store: Arc<BlockStore>,
    series_file: BlockFile,
    timelines: BlockFile,
    pub(super) samples: BlockFile,
}

/// The small columns of one row group.
#[derive(Default)]
pub(super) struct SmallRows {
    series_id: Vec<u32>,
    min_t: Vec<i64>,
    max_t: Vec<i64>,
    pub tsref: Vec<u32>,
    pub n: Vec<u32>,
    // Of windows only.
    pub role: Vec<Role>,
    pub first_tsref: Vec<u32>,
    pub lists: Vec<u32>,
    // Of samples only.
    enc: Vec<Encoding>,
    exp: Vec<i32>,
    constant: Vec<f64>,
    nx: Vec<u32>,
    start_t: Vec<i64>,
    /// Whether the row's start timestamps are in a list of their own.
    starts_listed: Vec<bool>,
}

/// A row that a selection needs.
#[derive(Clone, Copy)]
pub(crate) struct PlannedRow {
    pub series: u32,
    pub(super) row_group: u32,
    pub(super) row: u32,
    pub n: u32,
}

/// What a selection reads of a block: rows in the order of series, and the small columns that describe them.
pub(crate) struct Plan {
    pub rows: Vec<PlannedRow>,
    pub(super) small: BTreeMap<u32, Arc<SmallRows>>,
    /// Whether rows are looked for in the cache, and left there whole when they have been decoded.
    keep_rows: bool,
}

impl Plan {
    /// Has the rows of a block of samples kept in the cache if all of them fit into `bytes`: what is read once is often read again, and a
    /// selection that does not fit would only drive everything else out.
    pub fn keeping_rows(self, bytes: u64) -> Plan {
        let samples: u64 = self.rows.iter().map(|r| u64::from(r.n)).sum();
        Plan { keep_rows: samples.saturating_mul(8) <= bytes, ..self }
    }
}

/// The floats of one row and, where they are listed, its start timestamps: decoded, whole.
struct KeptRow {
    values: Vec<f64>,
    starts: Vec<i64>,
}

impl KeptRow {
    fn bytes(&self) -> usize {
        8 * (self.values.len() + self.starts.len()) + size_of::<KeptRow>()
    }
}

impl Block {
    /// Reads footers and indexes where they are not in the cache.
    pub fn open(
        store: &Arc<BlockStore>,
        tenant: &TenantId,
        meta: &Arc<BlockMeta>,
    ) -> Result<Block, SourceError> {
        let [series_file, timelines, samples] = BlockFile::open(store, tenant, meta)?;
        Ok(Block { meta: meta.clone(), store: store.clone(), series_file, timelines, samples })
    }

    /// Whether the block can be opened without a request.
    pub fn is_cached(store: &BlockStore, meta: &BlockMeta) -> bool {
        use super::cache::FileKind;
        let has = |kind| store.cache.contains(&Key::Index(meta.ulid, kind));
        has(FileKind::Series) && has(FileKind::Timelines) && has(FileKind::Samples)
    }

    /// A run of the series table, see [`SeriesTable::run`].
    pub fn series_run(&self, first: u32, count: u32) -> Result<SeriesTable, SourceError> {
        SeriesTable::run(&self.store, &self.series_file, first, count)
    }

    /// About how many bytes a planned row takes when it is read.
    pub fn row_bytes(&self, plan: &Plan, row: &PlannedRow) -> u64 {
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
    pub fn plan_bytes(&self, plan: &Plan) -> usize {
        let small: usize = plan.small.values().map(|s| s.series_id.len() * 60).sum();
        small + plan.rows.len() * size_of::<PlannedRow>()
    }

    pub fn series_table(&self) -> Result<Arc<SeriesTable>, SourceError> {
        SeriesTable::load(&self.store, &self.meta, &self.series_file)
    }

    /// What a mask hides of this block, if anything.
    pub fn mask(
        &self,
        mask: &Mask,
        table: &SeriesTable,
        budget: &Budget,
    ) -> Result<Option<BlockMask>, SourceError> {
        BlockMask::resolve(mask, &self.store.cache, &self.meta, table, budget)
    }

    /// Of these series (ascending ids), those of which something may be left under a mask. Reads the small columns of series of which
    /// only part of the block's time is hidden.
    pub fn visible(&self, mut series: Vec<u32>, mask: &BlockMask) -> Result<Vec<u32>, SourceError> {
        let (min_t, max_t) = (self.meta.min_t_ms, self.meta.max_t_ms);
        series.retain(|s| !mask.covers(*s, min_t, max_t));
        let partly: Vec<u32> = series.iter().copied().filter(|s| mask.touches(*s)).collect();
        if partly.is_empty() {
            return Ok(series);
        }
        let plan = self.plan(&partly, i64::MIN, i64::MAX)?;
        let hidden = |r: &PlannedRow| {
            let (small, at) = (&plan.small[&r.row_group], r.row as usize);
            mask.covers(r.series, small.min_t[at], small.max_t[at])
        };
        let gone = |rows: &&[PlannedRow]| rows.iter().all(hidden);
        let gone: Vec<u32> =
            plan.rows.chunk_by(|a, b| a.series == b.series).filter(gone).map(|rows| rows[0].series).collect();
        series.retain(|s| gone.binary_search(s).is_err());
        Ok(series)
    }

    /// The rows of these series (ascending ids) whose time range meets the wanted one, both ends included.
    pub fn plan(&self, series: &[u32], min_t_ms: i64, max_t_ms: i64) -> Result<Plan, SourceError> {
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
        let small_columns = match self.meta.resolution_ms {
            0 => SMALL_COLUMNS,
            _ => windows::SMALL_COLUMNS,
        };
        let columns: Vec<usize> = (0..small_columns).collect();
        let scans: Result<Vec<_>, _> =
            missing.iter().map(|g| Scan::new(&self.samples, *g, &columns, None)).collect();
        for (group, batches) in missing.iter().zip(scan::run(&self.store, scans?)?) {
            let rows = Arc::new(SmallRows::decode(&self.samples, &batches, self.meta.resolution_ms != 0)?);
            let key = Key::SmallRows(self.meta.ulid, *group as u32);
            self.store.cache.put(key, rows.clone(), rows.series_id.len() * 60);
            small.insert(*group as u32, rows);
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
        Ok(Plan { rows, small, keep_rows: false })
    }

    /// Whether a row group's statistics allow for such rows; where there are none, they do.
    fn group_may_hold(&self, group: usize, series: &[u32], min_t_ms: i64, max_t_ms: i64) -> bool {
        use parquet::file::statistics::Statistics;
        let metadata = self.samples.index.arrow.metadata().row_group(group);
        if let Some(Statistics::Int32(s)) = metadata.column(0).statistics()
            && let (Some(min), Some(max)) = (s.min_opt(), s.max_opt())
        {
            let (min, max) = (*min as u32, *max as u32);
            let at = series.partition_point(|s| *s < min);
            if series.get(at).is_none_or(|s| *s > max) {
                return false;
            }
        }
        let bounds = |column: usize| match metadata.column(column).statistics() {
            Some(Statistics::Int64(s)) => (s.min_opt().copied(), s.max_opt().copied()),
            _ => (None, None),
        };
        bounds(1).0.is_none_or(|min| min <= max_t_ms) && bounds(2).1.is_none_or(|max| max >= min_t_ms)
    }

    /// The samples of some planned rows (whole series only) that are not hidden, one entry per series that has any in the range. Of a downsampled block,
    /// windows with all columns.
    pub fn read(
        &self,
        table: &SeriesTable,
        plan: &Plan,
        rows: &[PlannedRow],
        range: (i64, i64),
        mut mask: Option<&mut BlockMask>,
        budget: &Budget,
    ) -> Result<Vec<SeriesColumns>, SourceError> {
        if self.meta.resolution_ms != 0 {
            return self.read_windows(table, plan, rows, range, mask, Aggregates::ALL, budget);
        }
        let kept = self.kept_rows(plan, rows);
        let lists = self.read_lists(plan, rows, &kept)?;
        let mut clipped = ClippedTimelines::new(lists.timelines, range);
        let mut out = Vec::new();
        let mut kept = kept.iter();
        for of_series in rows.chunk_by(|a, b| a.series == b.series) {
            budget.check()?;
            let parts: Result<Vec<Part<'_>>, SourceError> = of_series
                .iter()
                .zip(kept.by_ref())
                .map(|(row, kept)| self.part(plan, row, kept.as_deref(), &lists.columns, &clipped))
                .collect();
            let parts: Vec<Part<'_>> = parts?.into_iter().filter(|p| p.from < p.to).collect();
            if parts.is_empty() {
                continue;
            }
            let mut found = assemble(table.labels(of_series[0].series), parts, &mut clipped)
                .map_err(|what| self.samples.damaged(what))?;
            if let Some(mask) = &mut mask
                && !mask.cut(of_series[0].series, &mut found)
            {
                continue;
            }
            budget.read_samples(found.ts_ms.len() as u64);
            out.push(found);
        }
        Ok(out)
    }

    /// The rows that the cache has, `None` for the others.
    fn kept_rows(&self, plan: &Plan, rows: &[PlannedRow]) -> Vec<Option<Arc<KeptRow>>> {
        if !plan.keep_rows {
            return vec![None; rows.len()];
        }
        let key = |r: &PlannedRow| {
            let keeps = plan.small[&r.row_group].lists_floats(r.row as usize);
            keeps.then_some(Key::Row(self.meta.ulid, r.row_group, r.row))
        };
        self.store.cache.get_each(rows.iter().map(key))
    }

    /// Everything that rows need beside their small columns and what is kept of them, with all requests together.
    fn read_lists(
        &self,
        plan: &Plan,
        rows: &[PlannedRow],
        kept: &[Option<Arc<KeptRow>>],
    ) -> Result<Lists, SourceError> {
        // Rows by (column, row group). Rows come by row group, so a column's latest list is found by its position.
        let mut wanted: Vec<((usize, u32), Vec<u32>)> = Vec::new();
        let mut latest: [Option<usize>; SAMPLE_COLUMNS.len()] = [None; SAMPLE_COLUMNS.len()];
        let mut tsrefs = Vec::with_capacity(rows.len());
        for (r, kept) in rows.iter().zip(kept) {
            let small = &plan.small[&r.row_group];
            let at = r.row as usize;
            tsrefs.push(small.tsref[at]);
            if kept.is_some() {
                continue;
            }
            let mut want = |name: &str| {
                let column = column(name);
                match latest[column].filter(|at| wanted[*at].0.1 == r.row_group) {
                    Some(at) => wanted[at].1.push(r.row),
                    None => {
                        latest[column] = Some(wanted.len());
                        wanted.push(((column, r.row_group), vec![r.row]));
                    }
                }
            };
            match small.enc[at] {
                Encoding::Const => {}
                Encoding::Hist => {
                    SAMPLE_COLUMNS[FIRST_HISTOGRAM_COLUMN..].iter().for_each(|name| want(name));
                }
                other => want(other.as_str()),
            }
            if small.nx[at] > 0 {
                want("vx_pos");
                want("vx");
            }
            if small.starts_listed[at] {
                want("start_ts");
            }
        }
        self.read_columns(wanted, tsrefs)
    }

    /// Reads lists, given as rows by (column, row group), and timelines, with all requests together.
    pub(super) fn read_columns(
        &self,
        wanted: Vec<((usize, u32), Vec<u32>)>,
        mut tsrefs: Vec<u32>,
    ) -> Result<Lists, SourceError> {
        tsrefs.sort_unstable();
        tsrefs.dedup();
        let mut timelines: HashMap<u32, Arc<[i64]>> = HashMap::with_capacity(tsrefs.len());
        let mut by_group: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for tsref in tsrefs {
            if let Some(known) = self.store.cache.get::<Arc<[i64]>>(&Key::Timeline(self.meta.ulid, tsref)) {
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
            by_group.entry(group).or_default().push((u64::from(tsref) - starts[group]) as u32);
        }
        let mut scans = Vec::new();
        for ((column, group), rows) in &wanted {
            // Rows come in the order of series, which within a row group is the order of rows.
            scans.push(Scan::new(&self.samples, *group as usize, &[*column], Some(rows))?);
        }
        for (group, rows) in &by_group {
            scans.push(Scan::new(&self.timelines, *group, &[1], Some(rows))?);
        }
        let mut decoded = scan::run(&self.store, scans)?.into_iter();
        let mut columns: HashMap<(usize, u32, u32), (ListArray, usize)> = HashMap::new();
        for (((column, group), rows), batches) in wanted.iter().zip(decoded.by_ref()) {
            let lists = lists_of(&self.samples, &batches, rows.len())?;
            for (row, item) in rows.iter().zip(lists) {
                columns.insert((*column, *group, *row), item);
            }
        }
        for ((group, rows), batches) in by_group.iter().zip(decoded) {
            let starts = &self.timelines.index.row_starts;
            for (row, (list, at)) in rows.iter().zip(lists_of(&self.timelines, &batches, rows.len())?) {
                let ts: Arc<[i64]> = primitives::<Int64Type>(&list, at)
                    .ok_or_else(|| self.timelines.damaged("a timeline is not a list of numbers"))?
                    .into();
                let tsref = (starts[*group] + u64::from(*row)) as u32;
                let bytes = ts.len() * 8;
                self.store.cache.put(Key::Timeline(self.meta.ulid, tsref), Arc::new(ts.clone()), bytes);
                timelines.insert(tsref, ts);
            }
        }
        Ok(Lists { columns, timelines })
    }

    /// One row's samples within the range.
    fn part<'a>(
        &self,
        plan: &Plan,
        row: &PlannedRow,
        kept: Option<&'a KeptRow>,
        lists: &'a HashMap<(usize, u32, u32), (ListArray, usize)>,
        clipped: &ClippedTimelines,
    ) -> Result<Part<'a>, SourceError> {
        let small = &plan.small[&row.row_group];
        let at = row.row as usize;
        let tsref = small.tsref[at];
        let n = small.n[at] as usize;
        let damaged =
            |what: &str| self.samples.damaged(format!("row {at} of row group {}: {what}", row.row_group));
        let timeline = clipped.all.get(&tsref).ok_or_else(|| damaged("its timeline was not read"))?;
        if timeline.ts_ms.len() != n {
            return Err(damaged("its timeline has another length"));
        }
        let (from, to) = (timeline.from, timeline.to.max(timeline.from));
        let starts_at = |listed: &'a [i64]| match small.starts_listed[at] && from < to {
            true => PartStarts::Each(&listed[from..to]),
            false => PartStarts::Same(small.start_t[at]),
        };
        if let Some(kept) = kept {
            let (values, starts) = (Cow::Borrowed(&kept.values[from..to]), starts_at(&kept.starts));
            return Ok(Part { tsref, from, to, values, histograms: None, starts });
        }
        let keep = plan.keep_rows && from < to && small.lists_floats(at);
        // What is kept is kept whole.
        let (first, last) = if keep { (0, n) } else { (from, to) };
        let list = |name: &str| {
            let found = lists.get(&(column(name), row.row_group, row.row));
            found.ok_or_else(|| damaged(&format!("its column {name} was not read")))
        };
        let ints = |name: &str| {
            let (array, at) = list(name)?;
            primitives::<Int64Type>(array, *at)
                .filter(|v| v.len() == n)
                .ok_or_else(|| damaged(&format!("its column {name} does not have {n} numbers")))
        };
        let floats = |name: &str| {
            let (array, at) = list(name)?;
            primitives::<Float64Type>(array, *at)
                .filter(|v| v.len() == n)
                .ok_or_else(|| damaged(&format!("its column {name} does not have {n} numbers")))
        };
        let mut values = Vec::with_capacity(last - first);
        let mut histograms = None;
        match small.enc[at] {
            _ if first >= last => {}
            Encoding::Const => values.resize(last - first, small.constant[at]),
            enc @ (Encoding::Vi | Encoding::Vb) => {
                decode_mantissas(&ints(enc.as_str())?[first..last], small.exp[at], &mut values)
                    .ok_or_else(|| damaged("its exponent is out of range"))?;
            }
            enc @ (Encoding::Vf | Encoding::Vp) => {
                values.extend_from_slice(&floats(enc.as_str())?[first..last])
            }
            Encoding::Hist => {
                let of = |name: &str| list(name).map_err(|e| e.to_string());
                let all = histograms_of(n, first, last, &of).map_err(|what| damaged(&what))?;
                values.extend(all.iter().map(|h| h.sum));
                histograms = Some(all);
            }
        }
        if small.nx[at] > 0 && first < last {
            let (positions, p) = list("vx_pos")?;
            let (odd, o) = list("vx")?;
            let positions =
                primitives::<Int32Type>(positions, *p).ok_or_else(|| damaged("vx_pos is not a list"))?;
            let odd = primitives::<Float64Type>(odd, *o).ok_or_else(|| damaged("vx is not a list"))?;
            if positions.len() != odd.len() || positions.len() != small.nx[at] as usize {
                return Err(damaged("vx_pos and vx are of different lengths"));
            }
            for (position, value) in positions.iter().zip(odd) {
                let position = usize::try_from(*position).unwrap_or(usize::MAX);
                if position >= n {
                    return Err(damaged("an exception lies beyond its end"));
                }
                if (first..last).contains(&position) {
                    values[position - first] = *value;
                }
            }
        }
        let listed = if small.starts_listed[at] && from < to { ints("start_ts")? } else { &[] };
        if keep {
            let within = values[from..to].to_vec();
            let row_kept =
                KeptRow { values: std::mem::replace(&mut values, within), starts: listed.to_vec() };
            let bytes = row_kept.bytes();
            self.store.cache.put(Key::Row(self.meta.ulid, row.row_group, row.row), Arc::new(row_kept), bytes);
        }
        let (values, starts) = (Cow::Owned(values), starts_at(listed));
        Ok(Part { tsref, from, to, values, histograms, starts })
    }
}

/// The lists of some rows, by (column, row group, row), and the timelines they refer to.
pub(super) struct Lists {
    pub columns: HashMap<(usize, u32, u32), (ListArray, usize)>,
    pub timelines: HashMap<u32, Arc<[i64]>>,
}

fn column(name: &str) -> usize {
    SAMPLE_COLUMNS.iter().position(|c| *c == name).expect("a name from the schema's own list")
}

/// The single list column of some batches, item by item.
fn lists_of(
    file: &BlockFile,
    batches: &[RecordBatch],
    rows: usize,
) -> Result<Vec<(ListArray, usize)>, SourceError> {
    let mut out = Vec::with_capacity(rows);
    for batch in batches {
        let list = batch.columns().first().and_then(|c| c.as_list_opt::<i32>());
        let list = list.ok_or_else(|| file.damaged("a column of values is not a list"))?;
        out.extend((0..list.len()).map(|i| (list.clone(), i)));
    }
    if out.len() != rows {
        return Err(file.damaged(format!("it holds {} of the {rows} rows that its index names", out.len())));
    }
    Ok(out)
}

/// One item of a list of numbers; `None` if it is null or of another type.
pub(super) fn primitives<T: ArrowPrimitiveType>(list: &ListArray, at: usize) -> Option<&[T::Native]> {
    if list.is_null(at) {
        return None;
    }
    let offsets = list.value_offsets();
    let values: &PrimitiveArray<T> = list.values().as_primitive_opt()?;
    if values.null_count() > 0 {
        return None;
    }
    values.values().get(offsets[at] as usize..offsets[at + 1] as usize)
}

/// One item of a list of lists: the inner lists' offsets and the place of their numbers.
fn nested(list: &ListArray, at: usize) -> Option<(&ListArray, std::ops::Range<usize>)> {
    if list.is_null(at) {
        return None;
    }
    let offsets = list.value_offsets();
    Some((list.values().as_list_opt()?, offsets[at] as usize..offsets[at + 1] as usize))
}

pub(super) fn histograms_of<'a>(
    n: usize,
    from: usize,
    to: usize,
    list: &impl Fn(&str) -> Result<&'a (ListArray, usize), String>,
) -> Result<Vec<Arc<Histogram>>, String> {
    let get = |name: &str| list(name);
    let wrong = |name: &str| format!("its column {name} does not have {n} items");
    let floats = |name: &str| {
        let (array, at) = get(name)?;
        primitives::<Float64Type>(array, *at).filter(|v| v.len() == n).ok_or_else(|| wrong(name))
    };
    let ints = |name: &str| {
        let (array, at) = get(name)?;
        primitives::<Int32Type>(array, *at).filter(|v| v.len() == n).ok_or_else(|| wrong(name))
    };
    let lists = |name: &str| {
        let (array, at) = get(name)?;
        nested(array, *at).filter(|(_, items)| items.len() == n).ok_or_else(|| wrong(name))
    };
    let (schemas, hints) = (ints("h_schema")?, ints("h_hint")?);
    let (thresholds, zeros) = (floats("h_zero_threshold")?, floats("h_zero_count")?);
    let (counts, sums) = (floats("h_count")?, floats("h_sum")?);
    let (pos_spans, neg_spans) = (lists("h_pos_spans")?, lists("h_neg_spans")?);
    let (pos, neg, custom) = (lists("h_pos_buckets")?, lists("h_neg_buckets")?, lists("h_custom_values")?);
    let spans = |(inner, items): &(&ListArray, std::ops::Range<usize>), i: usize| {
        let flat = primitives::<Int32Type>(inner, items.start + i).filter(|f| f.len() % 2 == 0)?;
        let pairs = flat.as_chunks::<2>().0.iter();
        Some(pairs.map(|[offset, length]| BucketSpan { offset: *offset, length: *length as u32 }).collect())
    };
    let buckets = |(inner, items): &(&ListArray, std::ops::Range<usize>), i: usize| {
        primitives::<Float64Type>(inner, items.start + i).map(<[f64]>::to_vec)
    };
    let mut before: Option<Arc<[f64]>> = None;
    let mut out = Vec::with_capacity(to - from);
    for i in from..to {
        let custom_values = match custom.0.is_null(custom.1.start + i) {
            true => None,
            false => {
                let bounds = primitives::<Float64Type>(custom.0, custom.1.start + i)
                    .ok_or_else(|| wrong("h_custom_values"))?;
                // A series rarely changes its bounds: share them.
                let same = |b: &Arc<[f64]>| {
                    b.len() == bounds.len() && b.iter().zip(bounds).all(|(x, y)| x.to_bits() == y.to_bits())
                };
                let shared = before.clone().filter(same).unwrap_or_else(|| bounds.into());
                before = Some(shared.clone());
                Some(shared)
            }
        };
        out.push(Arc::new(Histogram {
            counter_reset_hint: hint_of(hints[i])
                .ok_or_else(|| format!("{} is no counter reset hint", hints[i]))?,
            schema: schemas[i],
            zero_threshold: thresholds[i],
            zero_count: zeros[i],
            count: counts[i],
            sum: sums[i],
            positive_spans: spans(&pos_spans, i).ok_or_else(|| wrong("h_pos_spans"))?,
            negative_spans: spans(&neg_spans, i).ok_or_else(|| wrong("h_neg_spans"))?,
            positive_buckets: buckets(&pos, i).ok_or_else(|| wrong("h_pos_buckets"))?,
            negative_buckets: buckets(&neg, i).ok_or_else(|| wrong("h_neg_buckets"))?,
            custom_values,
        }));
    }
    Ok(out)
}

impl SmallRows {
    /// Whether a row's values are floats of which some stand in a list.
    fn lists_floats(&self, at: usize) -> bool {
        match self.enc[at] {
            Encoding::Hist => false,
            Encoding::Const => self.nx[at] > 0 || self.starts_listed[at],
            _ => true,
        }
    }

    fn decode(file: &BlockFile, batches: &[RecordBatch], of_windows: bool) -> Result<SmallRows, SourceError> {
        let mut out = SmallRows::default();
        for batch in batches {
            out.push(batch, of_windows)
                .ok_or_else(|| file.damaged("its small columns are not those of a block"))?;
        }
        if out.series_id.windows(2).any(|w| w[0] > w[1]) {
            return Err(file.damaged("its rows are not sorted by series"));
        }
        Ok(out)
    }

    fn push(&mut self, batch: &RecordBatch, of_windows: bool) -> Option<()> {
        fn plain<T: ArrowPrimitiveType>(array: &ArrayRef, to: &mut Vec<T::Native>) -> Option<()> {
            to.extend_from_slice(array.as_primitive_opt::<T>()?.values());
            Some(())
        }
        let c = batch.columns();
        if c.len() != if of_windows { windows::SMALL_COLUMNS } else { SMALL_COLUMNS } {
            return None;
        }
        plain::<UInt32Type>(&c[0], &mut self.series_id)?;
        plain::<Int64Type>(&c[1], &mut self.min_t)?;
        plain::<Int64Type>(&c[2], &mut self.max_t)?;
        plain::<UInt32Type>(&c[3], &mut self.tsref)?;
        plain::<UInt32Type>(&c[4], &mut self.n)?;
        if of_windows {
            let roles = c[5].as_string_opt::<i32>()?;
            for i in 0..roles.len() {
                self.role.push(Role::from_name(roles.value(i))?);
            }
            plain::<UInt32Type>(&c[6], &mut self.first_tsref)?;
            return plain::<UInt32Type>(&c[7], &mut self.lists);
        }
        let enc = c[5].as_string_opt::<i32>()?;
        for i in 0..enc.len() {
            self.enc.push(Encoding::from_name(enc.value(i))?);
        }
        plain::<Int32Type>(&c[6], &mut self.exp)?;
        plain::<Float64Type>(&c[7], &mut self.constant)?;
        plain::<UInt32Type>(&c[8], &mut self.nx)?;
        plain::<Int64Type>(&c[9], &mut self.start_t)?;
        self.starts_listed.extend((0..batch.num_rows()).map(|i| c[9].is_null(i)));
        Some(())
    }
}

/// Timelines of a batch, whole, and those cut to the range, shared among the series that have them.
struct ClippedTimelines {
    all: HashMap<u32, Timeline>,
    /// By the timelines that a series' rows have, one after the other.
    shared: HashMap<Vec<u32>, Arc<[i64]>>,
}

/// A timeline and which of it lies in the range: searched for once, however many series share it.
struct Timeline {
    ts_ms: Arc<[i64]>,
    from: usize,
    to: usize,
}

impl ClippedTimelines {
    fn new(all: HashMap<u32, Arc<[i64]>>, range: (i64, i64)) -> ClippedTimelines {
        let clip = |(tsref, ts_ms): (u32, Arc<[i64]>)| {
            let from = ts_ms.partition_point(|t| *t < range.0);
            let to = ts_ms.partition_point(|t| *t <= range.1);
            (tsref, Timeline { ts_ms, from, to })
        };
        ClippedTimelines { all: all.into_iter().map(clip).collect(), shared: HashMap::new() }
    }
}

/// One row's samples within the range.
struct Part<'a> {
    tsref: u32,
    from: usize,
    to: usize,
    values: Cow<'a, [f64]>,
    histograms: Option<Vec<Arc<Histogram>>>,
    starts: PartStarts<'a>,
}

enum PartStarts<'a> {
    Same(i64),
    Each(&'a [i64]),
}

/// Puts the rows of a series together.
fn assemble(
    labels: crate::labels::Labels,
    parts: Vec<Part<'_>>,
    timelines: &mut ClippedTimelines,
) -> Result<SeriesColumns, String> {
    let any_start = parts.iter().any(|p| !matches!(p.starts, PartStarts::Same(0)));
    let any_histogram = parts.iter().any(|p| p.histograms.is_some());
    let total: usize = parts.iter().map(|p| p.to - p.from).sum();
    let one_row = parts.len() == 1;
    let key: Vec<u32> = parts.iter().map(|p| p.tsref).collect();
    let ts_ms = match timelines.shared.get(&key) {
        Some(shared) => shared.clone(),
        None => {
            let whole = &timelines.all[&parts[0].tsref].ts_ms;
            let cut: Arc<[i64]> = if parts.len() == 1 && total == whole.len() {
                whole.clone()
            } else {
                parts
                    .iter()
                    .flat_map(|p| timelines.all[&p.tsref].ts_ms[p.from..p.to].iter().copied())
                    .collect()
            };
            timelines.shared.insert(key, cut.clone());
            cut
        }
    };
    let mut values = Vec::new();
    let mut histograms = any_histogram.then(|| Vec::with_capacity(total));
    let mut start_ts_ms = any_start.then(|| Vec::with_capacity(total));
    for p in parts {
        let n = p.to - p.from;
        if let Some(histograms) = &mut histograms {
            match p.histograms {
                Some(all) => histograms.extend(all.into_iter().map(Some)),
                None => histograms.extend(std::iter::repeat_n(None, n)),
            }
        }
        if let Some(starts) = &mut start_ts_ms {
            match p.starts {
                PartStarts::Same(t) => starts.extend(std::iter::repeat_n(t, n)),
                PartStarts::Each(all) => starts.extend_from_slice(all),
            }
        }
        // The usual series has one row: its values are moved, not copied.
        match values.is_empty() {
            true => values = p.values.into_owned(),
            false => values.extend_from_slice(&p.values),
        }
    }
    let mut found = SeriesColumns { labels, ts_ms, values, histograms, start_ts_ms, windows: None };
    if !one_row && found.ts_ms.windows(2).any(|w| w[0] >= w[1]) {
        sort_by_time(&mut found);
        if found.ts_ms.windows(2).any(|w| w[0] >= w[1]) {
            return Err(format!("series {} has a timestamp twice", found.labels));
        }
    }
    Ok(found)
}

/// Floats and histograms of one slice are in rows of their own and may interleave.
fn sort_by_time(series: &mut SeriesColumns) {
    let mut order: Vec<usize> = (0..series.ts_ms.len()).collect();
    order.sort_by_key(|i| series.ts_ms[*i]);
    series.values = order.iter().map(|i| series.values[*i]).collect();
    if let Some(h) = &mut series.histograms {
        *h = order.iter().map(|i| h[*i].clone()).collect();
    }
    if let Some(s) = &mut series.start_ts_ms {
        *s = order.iter().map(|i| s[*i]).collect();
    }
    series.ts_ms = order.iter().map(|i| series.ts_ms[*i]).collect();
}
