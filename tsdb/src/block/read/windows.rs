//! Reads windows of a downsampled block: only the lists that the aggregates asked for need, and what a null
//! list stands for.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::ArrowPrimitiveType;
use arrow_array::types::{Float64Type, Int32Type, Int64Type};
use hashbrown::HashMap;

use crate::block::aggregates::{Aggregate, MantissaRow};
use crate::block::read::arrow_lists::primitives;
use crate::block::read::histograms::histograms_of;
use crate::block::read::plan::{Block, Lists, PlannedRow, RowPlan};
use crate::block::read::series_table::SeriesTable;
use crate::block::window_schema::{COLUMNS, HISTOGRAM_COLUMNS, ListColumn, Role};
use crate::deletion::BlockVisibility;
use model::histogram::Histogram;
use model::labels::Labels;
use model::rollup::{Aggregates, EndedWindow, HistogramFlags, HistogramWindows, WindowColumns, push_run};
use model::sample::stale_nan;
use model::source::{Budget, SeriesColumns, SourceError};

impl Block {
    /// The windows of some planned rows (whole series only) whose last sample lies in the range and that are
    /// not hidden, one entry per series that has any.
    #[allow(clippy::too_many_arguments)]
    pub fn read_windows(
        &self,
        table: &SeriesTable,
        plan: &RowPlan,
        rows: &[PlannedRow],
        range: (i64, i64),
        mut visibility: Option<&mut BlockVisibility>,
        aggregates: Aggregates,
        budget: &Budget,
    ) -> Result<Vec<SeriesColumns>, SourceError> {
        let (wanted, tsrefs) = self.window_lists(plan, rows, aggregates);
        let lists = self.read_columns(wanted, tsrefs)?;
        let mut times = Times { lists: &lists, range, shared: HashMap::new() };
        let mut out = Vec::new();
        for of_series in rows.chunk_by(|a, b| a.series == b.series) {
            budget.check()?;
            let labels = table.labels(of_series[0].series);
            let found = self.assemble_windows(labels, plan, of_series, aggregates, &mut times);
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

    /// Everything that rows need besides their small columns: lists, as rows by (column, row group), and
    /// timelines.
    #[allow(clippy::type_complexity)]
    pub(super) fn window_lists(
        &self,
        plan: &RowPlan,
        rows: &[PlannedRow],
        aggregates: Aggregates,
    ) -> (Vec<((usize, u32), Vec<u32>)>, Vec<u32>) {
        let mut wanted: Vec<((usize, u32), Vec<u32>)> = Vec::new();
        let mut latest: [Option<usize>; COLUMNS.len()] = [None; COLUMNS.len()];
        let mut tsrefs = Vec::with_capacity(2 * rows.len());
        for r in rows {
            let small = &plan.small[&r.row_group];
            let at = r.row as usize;
            let role = small.role[at];
            if !role.is_for(aggregates) {
                continue;
            }
            tsrefs.push(small.tsref[at]);
            let mut want = |column: usize| match latest[column].filter(|at| wanted[*at].0.1 == r.row_group) {
                Some(at) => wanted[at].1.push(r.row),
                None => {
                    latest[column] = Some(wanted.len());
                    wanted.push(((column, r.row_group), vec![r.row]));
                }
            };
            if role == Role::Windows {
                if aggregates.has(Aggregates::FIRST) {
                    tsrefs.push(small.first_tsref[at]);
                }
                let relative = small.relative[at];
                needed(small.lists[at], relative, aggregates).for_each(|c| want(c.column()));
            } else {
                HISTOGRAM_COLUMNS.for_each(want);
            }
        }
        (wanted, tsrefs)
    }

    fn assemble_windows(
        &self,
        labels: Labels,
        plan: &RowPlan,
        rows: &[PlannedRow],
        aggregates: Aggregates,
        times: &mut Times<'_>,
    ) -> Result<Option<SeriesColumns>, String> {
        let mut out = Assembly::new(aggregates);
        for row in rows {
            let small = &plan.small[&row.row_group];
            let at = row.row as usize;
            let (role, n) = (small.role[at], small.n[at] as usize);
            if !role.is_for(aggregates) {
                continue;
            }
            let damaged = |what: &str| format!("row {at} of row group {}: {what}", row.row_group);
            let ts = times.timeline(small.tsref[at], n).map_err(|what| damaged(&what))?;
            let from = ts.partition_point(|t| *t < times.range.0);
            let to = ts.partition_point(|t| *t <= times.range.1);
            if from >= to {
                continue;
            }
            let lists = RowLists {
                lists: times.lists,
                group: row.row_group,
                row: row.row,
                there: small.lists[at],
                exp: u32::try_from(small.exp[at]).unwrap_or(u32::MAX),
                relative: small.relative[at],
                n,
                from,
                to,
            };
            match role {
                Role::Windows => {
                    let first_tsref = small.first_tsref[at];
                    if aggregates.has(Aggregates::FIRST) {
                        times.timeline(first_tsref, n).map_err(|what| damaged(&what))?;
                    }
                    out.times.push(TimesOfRow { tsref: small.tsref[at], first_tsref, from, to });
                    out.windows_row(&lists, &ts).map_err(|what| damaged(&what))?;
                }
                role => out.histogram_row(&lists, role, &ts).map_err(|what| damaged(&what))?,
            }
        }
        out.finish(labels, self.meta.resolution_ms, times)
    }
}

/// The lists that a reader needs of a row of which those in `lists` are there, and those in `relative` told
/// from others: an aggregate's own, what it is told from, or what stands in its place.
fn needed(lists: u32, relative: u32, aggregates: Aggregates) -> impl Iterator<Item = ListColumn> {
    use ListColumn::*;
    let there = move |c: ListColumn| lists & c.bit() != 0;
    let asks = move |what: Aggregates, of: Aggregate, told: bool| {
        aggregates.has(what) && (relative & of.bit() != 0 || !told)
    };
    let asked = move |c: ListColumn| match c {
        Last | StalePos | StaleLastTs | HSamples | HFlags | HCoarsest | LastM | XPos | X => true,
        Count => {
            let told = there(Sum) || there(SumM);
            aggregates.has(Aggregates::COUNT) || asks(Aggregates::SUM, Aggregate::Sum, told)
        }
        First | FirstM => {
            aggregates.has(Aggregates::FIRST)
                || asks(Aggregates::MIN, Aggregate::Min, there(Min) || there(MinM))
                || asks(Aggregates::MAX, Aggregate::Max, true)
                || asks(Aggregates::SUM, Aggregate::Sum, true)
        }
        Sum | SumM => aggregates.has(Aggregates::SUM),
        Min | MinM => aggregates.has(Aggregates::MIN),
        Max | MaxM => aggregates.has(Aggregates::MAX),
        ResetSum | ResetSumM => aggregates.has(Aggregates::RESET_SUM),
        Resets => aggregates.has(Aggregates::RESETS),
        Changes => aggregates.has(Aggregates::CHANGES),
    };
    ListColumn::ALL.into_iter().filter(move |c| there(*c) && asked(*c))
}

/// The columns of an [`Aggregate`]'s list.
const DOUBLES: [ListColumn; 6] = {
    use ListColumn::*;
    [Last, First, Sum, Min, Max, ResetSum]
};
const MANTISSAS: [ListColumn; 6] = {
    use ListColumn::*;
    [LastM, FirstM, SumM, MinM, MaxM, ResetSumM]
};

/// The lists of one row, cut to what lies in the range.
struct RowLists<'a> {
    lists: &'a Lists,
    group: u32,
    row: u32,
    /// Bits of the lists that are there, and of the aggregates that are told from others.
    there: u32,
    relative: u32,
    exp: u32,
    n: usize,
    from: usize,
    to: usize,
}

impl<'a> RowLists<'a> {
    fn wrong(&self, column: ListColumn) -> String {
        format!("its column {} does not have {} numbers", column.name(), self.n)
    }

    fn list(&self, column: usize) -> Result<&'a (arrow_array::ListArray, usize), String> {
        let found = self.lists.columns.get(&(column, self.group, self.row));
        found.ok_or_else(|| format!("its column {} was not read", COLUMNS[column]))
    }

    fn there(&self, column: ListColumn) -> bool {
        self.there & column.bit() != 0
    }

    /// A list as it stands, with an item for each window.
    fn whole<T: ArrowPrimitiveType>(&self, column: ListColumn) -> Result<&'a [T::Native], String> {
        let (array, at) = self.list(column.column())?;
        primitives::<T>(array, *at).filter(|v| v.len() == self.n).ok_or_else(|| self.wrong(column))
    }

    /// A list of any length.
    fn some<T: ArrowPrimitiveType>(&self, column: ListColumn) -> Result<&'a [T::Native], String> {
        let (array, at) = self.list(column.column())?;
        primitives::<T>(array, *at).ok_or_else(|| format!("its column {} is not a list", column.name()))
    }

    fn ints(&self, column: ListColumn) -> Result<&'a [i32], String> {
        Ok(&self.whole::<Int32Type>(column)?[self.from..self.to])
    }

    /// What was read of its mantissas.
    fn mantissas(&self) -> Result<MantissaRow<'a>, String> {
        use ListColumn::*;
        let was_read = |column: ListColumn| {
            self.there(column) && self.lists.columns.contains_key(&(column.column(), self.group, self.row))
        };
        let mut row = MantissaRow {
            exp: self.exp,
            relative: self.relative,
            lists: [None; 6],
            count: if was_read(Count) { self.whole::<Int32Type>(Count)? } else { &[] },
            x_pos: if was_read(XPos) { self.some::<Int32Type>(XPos)? } else { &[] },
            x: if was_read(X) { self.some::<Float64Type>(X)? } else { &[] },
            windows: self.n,
        };
        for (to, column) in row.lists.iter_mut().zip(MANTISSAS) {
            if was_read(column) {
                *to = Some(self.whole::<Int64Type>(column)?);
            }
        }
        Ok(row)
    }

    /// Values of an aggregate within the range; `None` where the row has no list of it.
    fn floats<'m>(
        &self,
        which: Aggregate,
        mantissas: &'m MantissaRow<'a>,
    ) -> Result<Option<Cow<'m, [f64]>>, String> {
        let at = which as usize;
        if self.there(MANTISSAS[at]) {
            let values = mantissas.values(which, self.from, self.to)?;
            return values.map(Some).ok_or_else(|| self.wrong(MANTISSAS[at]));
        }
        if !self.there(DOUBLES[at]) {
            return Ok(None);
        }
        Ok(Some(Cow::Borrowed(&self.whole::<Float64Type>(DOUBLES[at])?[self.from..self.to])))
    }
}

/// Timelines cut to the range; series that share them go on sharing what is cut.
struct Times<'a> {
    lists: &'a Lists,
    range: (i64, i64),
    /// By the timelines that give the cut and those that are cut.
    shared: HashMap<Vec<(u32, u32)>, Arc<[i64]>>,
}

/// The timelines of a row of windows and which of its items lie in the range.
struct TimesOfRow {
    tsref: u32,
    first_tsref: u32,
    from: usize,
    to: usize,
}

impl Times<'_> {
    fn timeline(&self, tsref: u32, n: usize) -> Result<Arc<[i64]>, String> {
        let found = self.lists.timelines.get(&tsref).ok_or("its timeline was not read")?;
        if found.len() == n { Ok(found.clone()) } else { Err("its timeline has another length".to_string()) }
    }

    fn cut(&mut self, rows: &[TimesOfRow], first: bool) -> Arc<[i64]> {
        let of = |r: &TimesOfRow| if first { r.first_tsref } else { r.tsref };
        let key: Vec<(u32, u32)> = rows.iter().map(|r| (r.tsref, of(r))).collect();
        if let Some(shared) = self.shared.get(&key) {
            return shared.clone();
        }
        // Both were found when the row was read.
        let timeline = |r: &TimesOfRow| &self.lists.timelines[&of(r)];
        let cut: Arc<[i64]> = match rows {
            [r] if r.to - r.from == timeline(r).len() => timeline(r).clone(),
            _ => rows.iter().flat_map(|r| timeline(r)[r.from..r.to].iter().copied()).collect(),
        };
        self.shared.insert(key, cut.clone());
        cut
    }
}

/// A series' windows while its rows are put together.
struct Assembly {
    aggregates: Aggregates,
    times: Vec<TimesOfRow>,
    /// Times of all windows so far, and where the last row of windows begins.
    ts_ms: Vec<i64>,
    row_from: usize,
    values: Vec<f64>,
    windows: WindowColumns,
    last_histograms: Vec<Option<Arc<Histogram>>>,
    histograms: HistogramWindows,
    any_histogram: bool,
}

impl Assembly {
    fn new(aggregates: Aggregates) -> Assembly {
        let mut windows = WindowColumns::default();
        let mut wide = |what, column: fn(&mut WindowColumns) -> &mut Option<Vec<f64>>| {
            *column(&mut windows) = aggregates.has(what).then(Vec::new);
        };
        wide(Aggregates::FIRST, |w| &mut w.first);
        wide(Aggregates::SUM, |w| &mut w.sum);
        wide(Aggregates::MIN, |w| &mut w.min);
        wide(Aggregates::MAX, |w| &mut w.max);
        wide(Aggregates::RESET_SUM, |w| &mut w.reset_sum);
        windows.count = aggregates.has(Aggregates::COUNT).then(Vec::new);
        windows.resets = aggregates.has(Aggregates::RESETS).then(Vec::new);
        windows.changes = aggregates.has(Aggregates::CHANGES).then(Vec::new);
        Assembly {
            aggregates,
            times: Vec::new(),
            ts_ms: Vec::new(),
            row_from: 0,
            values: Vec::new(),
            windows,
            last_histograms: Vec::new(),
            histograms: HistogramWindows::default(),
            any_histogram: false,
        }
    }

    fn windows_row(&mut self, row: &RowLists<'_>, ts: &[i64]) -> Result<(), String> {
        use ListColumn::{Changes, Count, HCoarsest, HFlags, HSamples, Resets, StalePos};
        let len = row.to - row.from;
        self.row_from = self.values.len();
        self.ts_ms.extend_from_slice(&ts[row.from..row.to]);
        self.floats_of(row)?;
        let w = &mut self.windows;
        for (to, column) in [(&mut w.count, Count), (&mut w.resets, Resets), (&mut w.changes, Changes)] {
            let Some(to) = to else { continue };
            extend_counts(to, if row.there(column) { Some(row.ints(column)?) } else { None }, len);
        }
        let h = &mut self.histograms;
        if row.there(HSamples) {
            self.any_histogram = true;
            extend_counts(&mut h.count, Some(row.ints(HSamples)?), len);
            h.flags.extend(row.ints(HFlags)?.iter().map(|f| HistogramFlags::from_number(*f)));
            h.schema.extend_from_slice(row.ints(HCoarsest)?);
        } else {
            let total = self.values.len();
            h.count.resize(total, 0);
            h.flags.resize(total, HistogramFlags::default());
            h.schema.resize(total, 0);
        }
        if row.there(StalePos) {
            self.stale(row)?;
        }
        Ok(())
    }

    /// The aggregates asked for, and the last samples.
    fn floats_of(&mut self, row: &RowLists<'_>) -> Result<(), String> {
        let len = row.to - row.from;
        let mantissas = row.mantissas()?;
        let w = &mut self.windows;
        let Some(last) = row.floats(Aggregate::Last, &mantissas)? else {
            let none = |to: &mut Vec<f64>, v: f64| to.resize(to.len() + len, v);
            none(&mut self.values, f64::NAN);
            for to in [&mut w.first, &mut w.sum, &mut w.min, &mut w.max].into_iter().flatten() {
                none(to, f64::NAN);
            }
            w.reset_sum.iter_mut().for_each(|to| none(to, 0.0));
            return Ok(());
        };
        self.values.extend_from_slice(&last);
        if let Some(to) = &mut w.first {
            to.extend_from_slice(row.floats(Aggregate::First, &mantissas)?.as_deref().unwrap_or(&last));
        }
        if let Some(to) = &mut w.min {
            let own = match row.floats(Aggregate::Min, &mantissas)? {
                None => row.floats(Aggregate::First, &mantissas)?,
                own => own,
            };
            to.extend_from_slice(own.as_deref().unwrap_or(&last));
        }
        if let Some(to) = &mut w.max {
            to.extend_from_slice(row.floats(Aggregate::Max, &mantissas)?.as_deref().unwrap_or(&last));
        }
        if let Some(to) = &mut w.sum {
            match row.floats(Aggregate::Sum, &mantissas)? {
                Some(own) => to.extend_from_slice(&own),
                None => {
                    let counts = row.ints(ListColumn::Count)?;
                    to.extend(counts.iter().zip(&*last).map(|(c, v)| f64::from(*c) * v));
                }
            }
        }
        if let Some(to) = &mut w.reset_sum {
            match row.floats(Aggregate::ResetSum, &mantissas)? {
                Some(own) => to.extend_from_slice(&own),
                None => to.resize(to.len() + len, 0.0),
            }
        }
        Ok(())
    }

    /// Windows that end in a marker: the marker is shown, and the last sample kept beside it.
    fn stale(&mut self, row: &RowLists<'_>) -> Result<(), String> {
        let (positions, p) = row.list(ListColumn::StalePos.column())?;
        let (times, t) = row.list(ListColumn::StaleLastTs.column())?;
        let positions = primitives::<Int32Type>(positions, *p).ok_or("stale_pos is not a list")?;
        let times = primitives::<Int64Type>(times, *t).ok_or("stale_last_ts is not a list")?;
        if positions.len() != times.len() || positions.windows(2).any(|w| w[0] >= w[1]) {
            return Err("stale_pos and stale_last_ts do not fit together".to_string());
        }
        for (position, last_ts) in positions.iter().zip(times) {
            let position = usize::try_from(*position).ok().filter(|p| *p < row.n);
            let position = position.ok_or("a staleness marker lies beyond its end")?;
            if !(row.from..row.to).contains(&position) {
                continue;
            }
            let at = self.row_from + position - row.from;
            let value = std::mem::replace(&mut self.values[at], stale_nan());
            if *last_ts != self.ts_ms[at] {
                self.windows.ended.push(EndedWindow { at, ts_ms: *last_ts, value, histogram: None });
            }
        }
        Ok(())
    }

    fn histogram_row(&mut self, row: &RowLists<'_>, role: Role, ts: &[i64]) -> Result<(), String> {
        let list = |name: &str| {
            let column = COLUMNS.iter().position(|c| *c == name);
            row.list(column.ok_or_else(|| format!("there is no column {name}"))?)
        };
        let found = histograms_of(row.n, row.from, row.to, &list)?;
        let total = self.values.len();
        let h = &mut self.histograms;
        let to = match role {
            Role::Windows => return Err("a row of windows stands among histograms".to_string()),
            Role::Last => &mut self.last_histograms,
            Role::First => &mut h.first,
            Role::Sum => &mut h.sum,
            Role::ResetSum => &mut h.reset_sum,
        };
        to.resize(total, None);
        let windows = &self.ts_ms[self.row_from..];
        let mut at = 0;
        for (t, histogram) in ts[row.from..row.to].iter().zip(found) {
            at += windows[at..].partition_point(|w| w < t);
            if windows.get(at) != Some(t) {
                return Err(format!("a histogram at {t} belongs to no window"));
            }
            let i = self.row_from + at;
            if role != Role::Last {
                to[i] = Some(histogram);
            } else if model::sample::is_stale(self.values[i]) {
                let ended = &mut self.windows.ended;
                let e = ended
                    .binary_search_by_key(&i, |e| e.at)
                    .map_err(|_| format!("a histogram at {t} belongs to a window of markers"))?;
                ended[e].value = histogram.sum;
                ended[e].histogram = Some(histogram);
            } else {
                self.values[i] = histogram.sum;
                to[i] = Some(histogram);
            }
        }
        Ok(())
    }

    fn finish(
        mut self,
        labels: Labels,
        resolution_ms: i64,
        times: &mut Times<'_>,
    ) -> Result<Option<SeriesColumns>, String> {
        let n = self.ts_ms.len();
        if n == 0 {
            return Ok(None);
        }
        if self.ts_ms.windows(2).any(|w| w[0] >= w[1]) {
            return Err(format!("the windows of series {labels} do not ascend"));
        }
        push_run(&mut self.windows.runs, n, resolution_ms);
        if self.aggregates.has(Aggregates::FIRST) {
            self.windows.first_ts_ms = Some(times.cut(&self.times, true));
        }
        let mut histograms = None;
        if self.any_histogram {
            let h = &mut self.histograms;
            for column in [&mut h.first, &mut h.sum, &mut h.reset_sum, &mut self.last_histograms] {
                column.resize(n, None);
            }
            histograms = Some(self.last_histograms).filter(|h| h.iter().any(Option::is_some));
            self.windows.histograms = Some(Box::new(self.histograms));
        }
        Ok(Some(SeriesColumns {
            labels,
            ts_ms: times.cut(&self.times, false),
            values: self.values,
            histograms,
            start_ts_ms: None,
            windows: Some(self.windows),
        }))
    }
}

fn extend_counts(to: &mut Vec<u32>, counts: Option<&[i32]>, len: usize) {
    match counts {
        Some(counts) => to.extend(counts.iter().map(|c| u32::try_from(*c).unwrap_or(0))),
        None => to.resize(to.len() + len, 0),
    }
}
