//! Reads samples of a block: each number goes from its page, or from the cache, into the column of the series
//! it belongs to.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::block::encode::{Encoding, power};
use crate::block::read::cache::Key;
use crate::block::read::histograms::histograms_of;
use crate::block::read::kept_labels::KeptLabels;
use crate::block::read::lists::{self, ListRead, Wanted};
use crate::block::read::page::list::PackedList;
use crate::block::read::plan::{Block, ListsByRow, PlannedRow, RowPlan};
use crate::block::read::series_table::SeriesTable;
use crate::block::read::small_rows::SmallRows;
use crate::block::schema::{self, FIRST_HISTOGRAM_COLUMN, SAMPLE_COLUMNS};
use crate::deletion::BlockVisibility;
use model::histogram::{BucketSpan, Histogram};
use model::rollup::Aggregates;
use model::source::at_once::may_wait;
use model::source::{Budget, Charge, SeriesColumns, SourceError};

/// The floats of one row, or its histograms and their sums, and, where they are listed, its start timestamps:
/// decoded, whole.
struct KeptRow {
    values: Vec<f64>,
    histograms: Vec<Arc<Histogram>>,
    starts: Vec<i64>,
}

impl KeptRow {
    fn bytes(&self) -> usize {
        let histograms: usize = self.histograms.iter().map(|h| histogram_bytes(h)).sum();
        8 * (self.values.len() + self.starts.len()) + histograms + size_of::<KeptRow>()
    }
}

/// What a histogram takes in memory; its custom bounds are shared along a row.
fn histogram_bytes(h: &Histogram) -> usize {
    let spans = h.positive_spans.len() + h.negative_spans.len();
    let buckets = h.positive_buckets.len() + h.negative_buckets.len();
    size_of::<Arc<Histogram>>() + size_of::<Histogram>() + 16 + spans * size_of::<BucketSpan>() + buckets * 8
}

impl Block {
    /// The samples of some planned rows (whole series only) that are not hidden, one entry per series that
    /// has any in the range. Of a downsampled block, windows with all columns.
    pub fn read(
        &self,
        table: &SeriesTable,
        plan: &RowPlan,
        rows: &[PlannedRow],
        range: (i64, i64),
        mut visibility: Option<&mut BlockVisibility>,
        carried: &mut Carried,
    ) -> Result<Vec<SeriesColumns>, SourceError> {
        let Carried { labels, clipped, budget } = carried;
        if self.meta.resolution_ms != 0 {
            return self.read_windows(table, plan, rows, range, visibility, Aggregates::ALL, budget);
        }
        let kept = self.kept_rows(plan, rows);
        let list = self.read_list(plan, rows, &kept);
        if !list.histograms.is_empty() {
            // Decompressing and decoding ten columns of them takes milliseconds.
            may_wait()?;
        }
        let (mut timelines, mut wanted) = self.find_timelines(list.tsrefs)?;
        let of_timelines = wanted.len();
        wanted.extend(list.lists);
        let (reads, batches) = lists::read(&self.store, &wanted, self.scans(&list.histograms)?)?;
        let mut reads = reads.into_iter();
        for read in reads.by_ref().take(of_timelines) {
            self.add_timelines(read, &mut timelines)?;
        }
        let mut timelines = ClippedTimelines::new(timelines, range, clipped);
        let mut samples = self.lay_out(plan, rows, kept, &timelines)?;
        for (read, whose) in reads.zip(&list.whose) {
            budget.check()?;
            samples.decode(read, whose)?;
        }
        let histograms = self.columns_of(&list.histograms, batches)?;
        let mut out = Vec::new();
        let mut at = 0;
        for (number, of_series) in rows.chunk_by(|a, b| a.series == b.series).enumerate() {
            budget.check()?;
            let own = at..at + of_series.len();
            at = own.end;
            let labels = || labels.get(self, table, of_series[0].series);
            let found = samples.series(number, own, &histograms, &mut timelines, labels);
            let Some(mut found) = found.map_err(|what| self.samples.damaged(what))? else { continue };
            if let Some(visibility) = &mut visibility
                && !visibility.cut(of_series[0].series, &mut found)
            {
                continue;
            }
            budget.read_samples(found.ts_ms.len() as u64);
            out.push(found);
        }
        Ok(out)
    }

    /// Asks for what [`Block::read`] is going to need for these rows, and does not wait. How many bytes were
    /// asked for.
    pub fn fetch_ahead(
        &self,
        plan: &RowPlan,
        rows: &[PlannedRow],
        aggregates: Aggregates,
    ) -> Result<u64, SourceError> {
        if self.meta.resolution_ms != 0 {
            let (lists, tsrefs) = self.window_lists(plan, rows, aggregates);
            return self.fetch_columns_ahead(&[], &lists, tsrefs);
        }
        let list = self.read_list(plan, rows, &self.kept_rows(plan, rows));
        self.fetch_columns_ahead(&list.lists, &list.histograms, list.tsrefs)
    }

    /// The rows that the cache has, `None` for the others.
    fn kept_rows(&self, plan: &RowPlan, rows: &[PlannedRow]) -> Vec<Option<Arc<KeptRow>>> {
        if !plan.keep_rows {
            return vec![None; rows.len()];
        }
        let key = |r: &PlannedRow| {
            let keeps = plan.small[&r.row_group].lists_samples(r.row as usize);
            keeps.then_some(Key::Row(self.meta.ulid, r.row_group, r.row))
        };
        self.store.cache.get_each(rows.iter().map(key))
    }

    /// Everything that rows need besides their small columns and what is kept of them.
    fn read_list(&self, plan: &RowPlan, rows: &[PlannedRow], kept: &[Option<Arc<KeptRow>>]) -> ReadList<'_> {
        let mut list = ReadList { tsrefs: Vec::with_capacity(rows.len()), ..ReadList::default() };
        for (number, (r, kept)) in rows.iter().zip(kept).enumerate() {
            let small = &plan.small[&r.row_group];
            let at = r.row as usize;
            list.tsrefs.push(small.tsref[at]);
            if kept.is_some() {
                continue;
            }
            let mut want = |column: usize| {
                // Rows come by row group, so a column's latest list is the one.
                let latest = &mut list.latest[column - schema::VI];
                let group = r.row_group as usize;
                match latest.filter(|at| list.lists[*at].group == group) {
                    Some(at) => {
                        list.lists[at].rows.push(r.row);
                        list.whose[at].push(number);
                    }
                    None => {
                        *latest = Some(list.lists.len());
                        let rows = vec![r.row];
                        list.lists.push(Wanted { file: &self.samples, group, column, rows });
                        list.whose.push(vec![number]);
                    }
                }
            };
            match small.enc[at] {
                Encoding::Const => {}
                Encoding::Vi => want(schema::VI),
                Encoding::Vb => want(schema::VB),
                Encoding::Vf => want(schema::VF),
                Encoding::Vp => want(schema::VP),
                Encoding::Hist => match list.histograms.last_mut().filter(|(of, _)| of.1 == r.row_group) {
                    Some(_) => {
                        let columns = SAMPLE_COLUMNS.len() - FIRST_HISTOGRAM_COLUMN;
                        let of_group = list.histograms.len() - columns;
                        list.histograms[of_group..].iter_mut().for_each(|(_, rows)| rows.push(r.row));
                    }
                    None => {
                        let columns = FIRST_HISTOGRAM_COLUMN..SAMPLE_COLUMNS.len();
                        list.histograms.extend(columns.map(|c| ((c, r.row_group), vec![r.row])));
                    }
                },
            }
            if small.nx[at] > 0 {
                want(schema::VX_POS);
                want(schema::VX);
            }
            if small.starts_listed[at] {
                want(schema::START_TS);
            }
        }
        list
    }

    /// Finds the place of every row's samples.
    fn lay_out<'p>(
        &'p self,
        plan: &'p RowPlan,
        rows: &'p [PlannedRow],
        kept: Vec<Option<Arc<KeptRow>>>,
        timelines: &ClippedTimelines<'_>,
    ) -> Result<Samples<'p>, SourceError> {
        let mut places = Vec::with_capacity(rows.len());
        let mut values = Vec::new();
        let is_histogram = |r: &PlannedRow| plan.small[&r.row_group].enc[r.row as usize] == Encoding::Hist;
        let unread = rows.iter().zip(&kept).filter(|(r, kept)| kept.is_none() && is_histogram(r));
        let keep_histograms = plan.keeps_histograms(unread.map(|(r, _)| u64::from(r.n)).sum());
        let mut kept = kept.into_iter();
        for (series, of_series) in rows.chunk_by(|a, b| a.series == b.series).enumerate() {
            let mut total = 0;
            let mut in_order = true;
            for (row, kept) in of_series.iter().zip(kept.by_ref()) {
                let small = &*plan.small[&row.row_group];
                let at = row.row as usize;
                let (n, tsref) = (small.n[at] as usize, small.tsref[at]);
                let timeline = timelines.all.get(&tsref).filter(|t| t.ts_ms.len() == n);
                let timeline = timeline.ok_or_else(|| {
                    let what = "its timeline was not read or has another length";
                    self.samples.damaged(format!("row {at} of row group {}: {what}", row.row_group))
                })?;
                let (from, to) = (timeline.from, timeline.to.max(timeline.from));
                let lists = small.lists_floats(at) && kept.is_none();
                let keeps = if small.enc[at] == Encoding::Hist {
                    keep_histograms && kept.is_none()
                } else {
                    plan.keep_rows && lists
                };
                let keep = keeps && from < to;
                in_order &= keep || !lists;
                let row = RowPlace {
                    row,
                    small,
                    series,
                    offset: total,
                    from,
                    to,
                    kept,
                    keep,
                    whole: Vec::new(),
                    histograms: Vec::new(),
                    starts: Vec::new(),
                    odd_at: Vec::new(),
                    odd: Vec::new(),
                };
                total += to - from;
                places.push(row);
            }
            // What comes in order is appended; else there must be something to write to.
            values.push(if in_order { Vec::with_capacity(total) } else { vec![0.0; total] });
        }
        Ok(Samples { block: self, places, values })
    }
}

/// What is to be read for some rows.
#[derive(Default)]
struct ReadList<'f> {
    tsrefs: Vec<u32>,
    /// Lists of numbers, and which of the rows each list of them is of.
    lists: Vec<Wanted<'f>>,
    whose: Vec<Vec<usize>>,
    /// By column from `vi` on, where its rows of the latest row group stand in `lists`.
    latest: [Option<usize>; FIRST_HISTOGRAM_COLUMN - schema::VI],
    /// Rows by (column, row group), all columns of a row group together.
    histograms: Vec<((usize, u32), Vec<u32>)>,
}

/// A row and where its samples go.
struct RowPlace<'p> {
    row: &'p PlannedRow,
    small: &'p SmallRows,
    /// Which of the series, and where its samples begin among theirs.
    series: usize,
    offset: usize,
    /// Which of its samples lie in the range.
    from: usize,
    to: usize,
    kept: Option<Arc<KeptRow>>,
    /// Whether it is decoded whole, into `whole`, for the cache.
    keep: bool,
    whole: Vec<f64>,
    histograms: Vec<Arc<Histogram>>,
    starts: Vec<i64>,
    odd_at: Vec<i32>,
    odd: Vec<f64>,
}

impl RowPlace<'_> {
    fn n(&self) -> usize {
        self.row.n as usize
    }

    fn wrong(&self, what: &str) -> String {
        format!("row {} of row group {}: {what}", self.row.row, self.row.row_group)
    }

    /// Puts values that all are there behind those of the series' rows before, or in their place.
    fn put(&self, of_series: &mut Vec<f64>, own: &[f64]) {
        match of_series.len() == self.offset {
            true => of_series.extend_from_slice(own),
            false => of_series[self.offset..self.offset + own.len()].copy_from_slice(own),
        }
    }
}

/// The samples of some rows on their way into series.
struct Samples<'p> {
    block: &'p Block,
    places: Vec<RowPlace<'p>>,
    /// By series.
    values: Vec<Vec<f64>>,
}

impl Samples<'_> {
    /// Decodes the lists of one column; `whose` are the rows they are of.
    fn decode(&mut self, read: ListRead<'_>, whose: &[usize]) -> Result<(), SourceError> {
        let column = read.wanted.column;
        let Samples { places, values, .. } = self;
        read.decode(|i, list| {
            let place = &mut places[whose[i]];
            let (n, at) = (place.n(), place.row.row as usize);
            let lacks =
                || place.wrong(&format!("its column {} has other numbers than {n}", SAMPLE_COLUMNS[column]));
            match column {
                schema::VX_POS | schema::VX if list.len != place.small.nx[at] as usize => {
                    return Err(place.wrong("vx_pos and vx are of different lengths"));
                }
                schema::VX_POS => {
                    let to = &mut place.odd_at;
                    list.take(0..list.len, |some| to.extend(some.iter().map(|p| *p as i32)))
                }
                schema::VX => {
                    let to = &mut place.odd;
                    list.take(0..list.len, |some| to.extend(some.iter().map(|v| f64::from_bits(*v as u64))))
                }
                _ if list.len != n => return Err(lacks()),
                schema::START_TS => {
                    let to = &mut place.starts;
                    list.take(0..n, |some| to.extend_from_slice(some))
                }
                _ => {
                    let exp = matches!(column, schema::VI | schema::VB).then_some(place.small.exp[at]);
                    let wanted = if place.keep { 0..n } else { place.from..place.to };
                    let to = match place.keep {
                        true => {
                            place.whole.resize(n, 0.0);
                            &mut place.whole[..]
                        }
                        false => &mut values[place.series][place.offset..place.offset + wanted.len()],
                    };
                    decode_values(list, wanted, exp, to)
                }
            }
            .ok_or_else(|| {
                places[whose[i]].wrong("its values are cut off, or their exponent is out of range")
            })
        })
    }

    /// One series out of its rows; `None` where none of them has samples in the range.
    fn series(
        &mut self,
        number: usize,
        rows: std::ops::Range<usize>,
        histograms: &ListsByRow,
        timelines: &mut ClippedTimelines<'_>,
        labels: impl FnOnce() -> model::labels::Labels,
    ) -> Result<Option<SeriesColumns>, String> {
        let mut values = std::mem::take(&mut self.values[number]);
        let rows = &mut self.places[rows];
        let total: usize = rows.iter().map(|r| r.to - r.from).sum();
        if total == 0 {
            return Ok(None);
        }
        let has_start = |r: &RowPlace<'_>| {
            let at = r.row.row as usize;
            r.from < r.to && (r.small.starts_listed[at] || r.small.start_t[at] != 0)
        };
        let is_histogram =
            |r: &RowPlace<'_>| r.from < r.to && r.small.enc[r.row.row as usize] == Encoding::Hist;
        let mut all_starts = rows.iter().any(has_start).then(|| Vec::with_capacity(total));
        let mut all_histograms = rows.iter().any(is_histogram).then(|| Vec::with_capacity(total));
        timelines.key.clear();
        for place in rows.iter_mut().filter(|r| r.from < r.to) {
            let at = place.row.row as usize;
            let (from, to) = (place.from, place.to);
            timelines.key.push(place.small.tsref[at]);
            let found = finish(place, histograms, &mut values)?;
            if let Some(all) = &mut all_histograms {
                match found {
                    Some(found) => all.extend(found.into_iter().map(Some)),
                    None => all.extend(std::iter::repeat_n(None, to - from)),
                }
            }
            if let Some(all) = &mut all_starts {
                let listed = place.kept.as_ref().map_or(&place.starts, |k| &k.starts);
                match place.small.starts_listed[at] {
                    true => {
                        all.extend_from_slice(listed.get(from..to).ok_or("start timestamps are missing")?)
                    }
                    false => all.extend(std::iter::repeat_n(place.small.start_t[at], to - from)),
                }
            }
            if place.keep {
                keep(self.block, place);
            }
        }
        let ts_ms = timelines.joined(total);
        let (labels, one_row) = (labels(), timelines.key.len() == 1);
        let mut found = SeriesColumns {
            labels,
            ts_ms,
            values,
            histograms: all_histograms,
            start_ts_ms: all_starts,
            windows: None,
        };
        if !one_row && found.ts_ms.windows(2).any(|w| w[0] >= w[1]) {
            sort_by_time(&mut found);
            if found.ts_ms.windows(2).any(|w| w[0] >= w[1]) {
                return Err(format!("series {} has a timestamp twice", found.labels));
            }
        }
        Ok(Some(found))
    }
}

/// Puts a row that was decoded whole into the cache.
fn keep(block: &Block, place: &mut RowPlace<'_>) {
    let kept = KeptRow {
        values: std::mem::take(&mut place.whole),
        histograms: std::mem::take(&mut place.histograms),
        starts: std::mem::take(&mut place.starts),
    };
    let (bytes, key) = (kept.bytes(), Key::Row(block.meta.ulid, place.row.row_group, place.row.row));
    block.store.cache.put(key, Arc::new(kept), bytes);
}

/// Puts a row's values where they belong, as far as decoding has not; its histograms, if it is of those.
fn finish(
    place: &mut RowPlace<'_>,
    histograms: &ListsByRow,
    values: &mut Vec<f64>,
) -> Result<Option<Vec<Arc<Histogram>>>, String> {
    let at = place.row.row as usize;
    let (n, from, to) = (place.n(), place.from, place.to);
    if let Some(kept) = &place.kept {
        let own = kept.values.get(from..to).ok_or("a row in the cache is of another length")?;
        place.put(values, own);
        if place.small.enc[at] != Encoding::Hist {
            return Ok(None);
        }
        let own = kept.histograms.get(from..to).ok_or("a row in the cache is of another length")?;
        return Ok(Some(own.to_vec()));
    }
    match place.small.enc[at] {
        Encoding::Const if place.keep => place.whole.resize(n, place.small.constant[at]),
        Encoding::Const => {
            let constant = place.small.constant[at];
            match values.len() == place.offset {
                true => values.resize(place.offset + to - from, constant),
                false => values[place.offset..place.offset + to - from].fill(constant),
            }
        }
        Encoding::Hist => {
            let of = |name: &str| {
                let column = SAMPLE_COLUMNS.iter().position(|c| *c == name).unwrap_or(SAMPLE_COLUMNS.len());
                let found = histograms.get(&(column, place.row.row_group, place.row.row));
                found.ok_or_else(|| format!("its column {name} was not read"))
            };
            let wanted = if place.keep { 0..n } else { from..to };
            let all = histograms_of(n, wanted.start, wanted.end, &of).map_err(|what| place.wrong(&what))?;
            let sums: Vec<f64> = all.iter().map(|h| h.sum).collect();
            if !place.keep {
                place.put(values, &sums);
                return Ok(Some(all));
            }
            place.put(values, &sums[from..to]);
            let own = all[from..to].to_vec();
            (place.whole, place.histograms) = (sums, all);
            return Ok(Some(own));
        }
        Encoding::Vi | Encoding::Vb | Encoding::Vf | Encoding::Vp => {}
    }
    for (position, value) in place.odd_at.iter().zip(&place.odd) {
        let position = usize::try_from(*position).unwrap_or(usize::MAX);
        if position >= n {
            return Err(place.wrong("an exception lies beyond its end"));
        }
        match place.keep {
            true => place.whole[position] = *value,
            false if (from..to).contains(&position) => values[place.offset + position - from] = *value,
            false => {}
        }
    }
    if place.keep {
        place.put(values, &place.whole[from..to]);
    }
    Ok(None)
}

/// Decodes a range of a list into `to`, which is as long: mantissas where there is an exponent, else doubles.
/// `None` where the list is cut off, and for an exponent that no writer makes.
fn decode_values(
    list: &mut PackedList<'_, '_>,
    range: std::ops::Range<usize>,
    exp: Option<i32>,
    mut to: &mut [f64],
) -> Option<()> {
    let mut next = |n: usize| {
        let (now, rest) = std::mem::take(&mut to).split_at_mut(n);
        to = rest;
        now
    };
    match exp {
        None => list.take(range, |some| {
            next(some.len()).iter_mut().zip(some).for_each(|(v, bits)| *v = f64::from_bits(*bits as u64));
        }),
        Some(0) => list.take(range, |some| {
            next(some.len()).iter_mut().zip(some).for_each(|(v, m)| *v = *m as f64);
        }),
        Some(exp) => {
            let p = power(exp)?;
            list.take(range, |some| {
                next(some.len()).iter_mut().zip(some).for_each(|(v, m)| *v = *m as f64 / p);
            })
        }
    }
}

/// Timestamps of cut timelines that a cursor carries on: a day at 15 s of some hundred targets.
const CARRIED_TIMESTAMPS: usize = 4 << 20;

/// What is carried from one read of a selection to the next: the series of a target lie in many batches, and
/// those who share a timeline still do.
pub(crate) struct Carried {
    labels: KeptLabels,
    clipped: Clipped,
    budget: Arc<Budget>,
}

impl Carried {
    /// For a selection of these series, ascending.
    pub fn of(series: &[u32], budget: &Arc<Budget>) -> Carried {
        let clipped = Clipped { by_rows: HashMap::new(), timestamps: 0, held: Charge::of(budget) };
        Carried { labels: KeptLabels::of(series), clipped, budget: budget.clone() }
    }
}

/// Timelines that were cut to the range.
struct Clipped {
    /// By the timelines that a series' rows have, one after the other.
    by_rows: HashMap<Vec<u32>, Arc<[i64]>>,
    timestamps: usize,
    held: Charge,
}

impl Clipped {
    /// Keeps a timeline for as long as there is room.
    fn keep(&mut self, key: &[u32], ts_ms: &Arc<[i64]>) {
        let bytes = 8 * ts_ms.len() as u64;
        if self.timestamps + ts_ms.len() > CARRIED_TIMESTAMPS || !self.held.add_spare(bytes) {
            (self.by_rows, self.timestamps) = (HashMap::new(), 0);
            self.held.let_go(u64::MAX);
            if !self.held.add_spare(bytes) {
                return;
            }
        }
        self.timestamps += ts_ms.len();
        self.by_rows.insert(key.to_vec(), ts_ms.clone());
    }
}

/// Timelines of a batch, whole, and those cut to the range, shared among the series that have them.
struct ClippedTimelines<'c> {
    all: HashMap<u32, Timeline>,
    shared: &'c mut Clipped,
    /// Those of the series at hand.
    key: Vec<u32>,
}

/// A timeline and which of it lies in the range: searched for once, however many series share it.
struct Timeline {
    ts_ms: Arc<[i64]>,
    from: usize,
    to: usize,
}

impl<'c> ClippedTimelines<'c> {
    fn new(
        all: HashMap<u32, Arc<[i64]>>,
        range: (i64, i64),
        shared: &'c mut Clipped,
    ) -> ClippedTimelines<'c> {
        let clip = |(tsref, ts_ms): (u32, Arc<[i64]>)| {
            let from = ts_ms.partition_point(|t| *t < range.0);
            let to = ts_ms.partition_point(|t| *t <= range.1);
            (tsref, Timeline { ts_ms, from, to })
        };
        let all = all.into_iter().map(clip).collect();
        ClippedTimelines { all, shared, key: Vec::new() }
    }

    /// What lies in the range of the timelines in `key`, `total` timestamps.
    fn joined(&mut self, total: usize) -> Arc<[i64]> {
        if let Some(shared) = self.shared.by_rows.get(&self.key[..]) {
            return shared.clone();
        }
        // All of the key were found when the rows were laid out.
        let of = |tsref: &u32| &self.all[tsref];
        let cut: Arc<[i64]> = match &self.key[..] {
            [one] if of(one).ts_ms.len() == total => of(one).ts_ms.clone(),
            all => all.iter().flat_map(|t| of(t).ts_ms[of(t).from..of(t).to].iter().copied()).collect(),
        };
        self.shared.keep(&self.key, &cut);
        cut
    }
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
