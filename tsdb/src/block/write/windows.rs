//! A series of windows cut into rows of a downsampled `samples.parquet`, and rows gathered into its columns.

use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, Int64Builder, ListBuilder, StringBuilder, UInt32Builder};
use arrow_array::{ArrayRef, RecordBatch};

use super::list_builders::{FloatLists, Int32Lists, float_lists, int_lists, int32_lists};
use super::rows::HistogramLists;
use crate::block::aggregates::{Mantissas, take_decimals};
use crate::block::error::BlockError;
use crate::block::window_schema::{ListColumn, Role, SCHEMA};
use crate::block_meta::BlockStats;
use model::histogram::Histogram;
use model::rollup::{Aggregates, WindowColumns};
use model::sample::is_stale;
use model::source::SeriesColumns;
use model::span::span_end;

/// One row: a series' windows in one slice, or their histograms in one role.
pub(crate) struct Row {
    pub role: Role,
    /// Times of the windows' last samples, and of their first (the same for histograms).
    pub ts_ms: Vec<i64>,
    pub first_ts_ms: Vec<i64>,
    count: Vec<i32>,
    /// In the order of [`ListColumn`] from `Last` to `ResetSum`: those that are not among the mantissas.
    floats: [Option<Vec<f64>>; 6],
    mantissas: Mantissas,
    resets: Option<Vec<i32>>,
    changes: Option<Vec<i32>>,
    stale_pos: Vec<i32>,
    stale_last_ts: Vec<i64>,
    h_samples: Option<[Vec<i32>; 3]>,
    histograms: Vec<Arc<Histogram>>,
}

impl Row {
    /// Adds what this row holds to a block's figures.
    pub fn tell(&self, stats: &mut BlockStats) {
        stats.rows += 1;
        if self.role == Role::Windows {
            stats.samples += self.ts_ms.len() as u64;
            stats.stale_markers += self.stale_pos.len() as u64;
        } else if self.role == Role::Last {
            stats.histograms += self.histograms.len() as u64;
        }
    }
}

/// Cuts windows after multiples of `slice_ms` and at `row_windows` into rows. Pure, and the costly part of
/// writing.
pub(crate) fn cut(series: &SeriesColumns, slice_ms: i64, row_windows: usize) -> Result<Vec<Row>, BlockError> {
    let missing = || {
        BlockError::Input(format!(
            "series {} does not have all columns of windows, which a block of windows needs",
            series.labels
        ))
    };
    let windows = series.windows.as_ref().ok_or_else(missing)?;
    if windows.aggregates() != Aggregates::ALL || windows.first_ts_ms.is_none() {
        return Err(missing());
    }
    let ts = &series.ts_ms;
    let mut rows = Vec::new();
    let mut from = 0;
    while from < ts.len() {
        let end = span_end(ts[from], slice_ms);
        let until = ts[from..].partition_point(|t| *t <= end) + from;
        let to = until.min(from + row_windows);
        rows.push(windows_row(series, windows, from, to).ok_or_else(missing)?);
        histogram_rows(series, windows, from, to, &mut rows);
        from = to;
    }
    Ok(rows)
}

fn same_bits(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

fn counts(column: &[u32]) -> Vec<i32> {
    column.iter().map(|c| i32::try_from(*c).unwrap_or(i32::MAX)).collect()
}

fn unless_zero(column: &[u32]) -> Option<Vec<i32>> {
    column.iter().any(|c| *c != 0).then(|| counts(column))
}

fn windows_row(series: &SeriesColumns, w: &WindowColumns, from: usize, to: usize) -> Option<Row> {
    let all = from..to;
    let h = w.histograms.as_deref().filter(|h| h.count[all.clone()].iter().any(|c| *c > 0));
    let count = &w.count.as_ref()?[all.clone()];
    let (mut stale_pos, mut stale_last_ts) = (Vec::new(), Vec::new());
    let mut last = series.values[all.clone()].to_vec();
    for (i, v) in last.iter_mut().enumerate() {
        let at = from + i;
        let is_histogram = |h: &Option<Arc<Histogram>>| h.is_some();
        if is_stale(*v) {
            let before = w.ended.binary_search_by_key(&at, |e| e.at).ok().map(|e| &w.ended[e]);
            stale_pos.push(i as i32);
            stale_last_ts.push(before.map_or(series.ts_ms[at], |e| e.ts_ms));
            *v = before.filter(|e| e.histogram.is_none()).map_or(f64::NAN, |e| e.value);
        } else if series.histograms.as_ref().is_some_and(|all| is_histogram(&all[at])) {
            *v = f64::NAN;
        }
    }
    let any_floats = (0..count.len()).any(|i| count[i] > h.map_or(0, |h| h.count[from + i]));
    let mut floats = match any_floats {
        false => [const { None }; 6],
        true => {
            let column = |c: &Option<Vec<f64>>| Some(c.as_ref()?[all.clone()].to_vec());
            let (first, sum) = (column(&w.first)?, column(&w.sum)?);
            let (min, max, reset_sum) = (column(&w.min)?, column(&w.max)?, column(&w.reset_sum)?);
            let as_product = || {
                sum.iter()
                    .zip(count)
                    .zip(&last)
                    .all(|((s, c), l)| s.to_bits() == (f64::from(*c) * l).to_bits())
            };
            let min = (!same_bits(&min, &first)).then_some(min);
            let max = (!same_bits(&max, &last)).then_some(max);
            let sum = (!as_product()).then(|| sum.clone());
            let reset_sum = reset_sum.iter().any(|v| v.to_bits() != 0).then_some(reset_sum);
            let first = (!same_bits(&first, &last)).then_some(first);
            [Some(last), first, sum, min, max, reset_sum]
        }
    };
    let count = counts(count);
    let mantissas = take_decimals(&mut floats, &count).unwrap_or_default();
    Some(Row {
        role: Role::Windows,
        ts_ms: series.ts_ms[all.clone()].to_vec(),
        first_ts_ms: w.first_ts_ms.as_ref()?[all.clone()].to_vec(),
        count,
        floats,
        mantissas,
        resets: unless_zero(&w.resets.as_ref()?[all.clone()]),
        changes: unless_zero(&w.changes.as_ref()?[all.clone()]),
        stale_pos,
        stale_last_ts,
        h_samples: h.map(|h| {
            let flags = h.flags[all.clone()].iter().map(|f| i32::from(f.number())).collect();
            [counts(&h.count[all.clone()]), flags, h.schema[all.clone()].to_vec()]
        }),
        histograms: Vec::new(),
    })
}

fn histogram_rows(series: &SeriesColumns, w: &WindowColumns, from: usize, to: usize, rows: &mut Vec<Row>) {
    let Some(h) = &w.histograms else { return };
    let ended = |at: usize| {
        let e = w.ended.binary_search_by_key(&at, |e| e.at).ok()?;
        w.ended[e].histogram.as_ref()
    };
    let last = |at: usize| {
        let shown = series.histograms.as_ref().and_then(|all| all[at].as_ref());
        shown.filter(|h| !h.is_stale()).or_else(|| ended(at))
    };
    let mut add = |role: Role, of: &dyn Fn(usize) -> Option<Arc<Histogram>>| {
        let found: Vec<(i64, Arc<Histogram>)> =
            (from..to).filter_map(|at| Some((series.ts_ms[at], of(at)?))).collect();
        if found.is_empty() {
            return;
        }
        let (ts_ms, histograms): (Vec<i64>, Vec<_>) = found.into_iter().unzip();
        rows.push(Row {
            role,
            first_ts_ms: ts_ms.clone(),
            ts_ms,
            count: Vec::new(),
            floats: [const { None }; 6],
            mantissas: Mantissas::default(),
            resets: None,
            changes: None,
            stale_pos: Vec::new(),
            stale_last_ts: Vec::new(),
            h_samples: None,
            histograms,
        });
    };
    add(Role::Last, &|at| last(at).cloned());
    add(Role::First, &|at| h.first[at].clone());
    add(Role::Sum, &|at| h.sum[at].clone());
    add(Role::ResetSum, &|at| h.reset_sum[at].clone());
}

/// Builders of all columns, in the schema's order.
pub(crate) struct RowColumns {
    series_id: UInt32Builder,
    min_t: Int64Builder,
    max_t: Int64Builder,
    tsref: UInt32Builder,
    n: UInt32Builder,
    role: StringBuilder,
    first_tsref: UInt32Builder,
    lists: UInt32Builder,
    count: Int32Lists,
    floats: [FloatLists; 6],
    resets: Int32Lists,
    changes: Int32Lists,
    stale_pos: Int32Lists,
    stale_last_ts: ListBuilder<Int64Builder>,
    h_samples: [Int32Lists; 3],
    histograms: HistogramLists,
    exp: UInt32Builder,
    relative: UInt32Builder,
    mantissas: [ListBuilder<Int64Builder>; 6],
    x_pos: Int32Lists,
    x: FloatLists,
    held: usize,
}

impl Default for RowColumns {
    fn default() -> Self {
        RowColumns {
            series_id: UInt32Builder::new(),
            min_t: Int64Builder::new(),
            max_t: Int64Builder::new(),
            tsref: UInt32Builder::new(),
            n: UInt32Builder::new(),
            role: StringBuilder::new(),
            first_tsref: UInt32Builder::new(),
            lists: UInt32Builder::new(),
            count: int32_lists(),
            floats: std::array::from_fn(|_| float_lists()),
            resets: int32_lists(),
            changes: int32_lists(),
            stale_pos: int32_lists(),
            stale_last_ts: int_lists(),
            h_samples: std::array::from_fn(|_| int32_lists()),
            histograms: HistogramLists::default(),
            exp: UInt32Builder::new(),
            relative: UInt32Builder::new(),
            mantissas: std::array::from_fn(|_| int_lists()),
            x_pos: int32_lists(),
            x: float_lists(),
            held: 0,
        }
    }
}

fn put_ints(to: &mut Int32Lists, items: Option<&[i32]>) {
    if let Some(items) = items {
        to.values().append_slice(items);
    }
    to.append(items.is_some());
}

impl RowColumns {
    pub fn is_empty(&self) -> bool {
        self.series_id.is_empty()
    }

    /// Whether enough is held to be worth handing to Parquet.
    pub fn is_full(&self) -> bool {
        self.held >= 128 * 1024 || self.series_id.len() >= 16 * 1024
    }

    /// About how many bytes are held.
    pub fn held_bytes(&self) -> usize {
        self.held * 72 + self.series_id.len() * 128
    }

    pub fn push(&mut self, series_id: u32, tsref: u32, first_tsref: u32, row: &Row) {
        let n = row.ts_ms.len();
        self.held += n;
        self.series_id.append_value(series_id);
        self.min_t.append_value(row.first_ts_ms[0]);
        self.max_t.append_value(row.ts_ms[n - 1]);
        self.tsref.append_value(tsref);
        self.n.append_value(n as u32);
        self.role.append_value(row.role.as_str());
        self.first_tsref.append_value(first_tsref);
        let some = row.role == Role::Windows;
        let mut lists = if some { ListColumn::Count.bit() } else { 0 };
        let mut mark = |there: bool, column: ListColumn| {
            if there {
                lists |= column.bit();
            }
        };
        put_ints(&mut self.count, some.then_some(&row.count[..]));
        use ListColumn::*;
        let places = [Last, First, Sum, Min, Max, ResetSum];
        for ((to, items), column) in self.floats.iter_mut().zip(&row.floats).zip(places) {
            mark(items.is_some(), column);
            if let Some(items) = items {
                to.values().append_slice(items);
            }
            to.append(items.is_some());
        }
        mark(row.resets.is_some(), Resets);
        put_ints(&mut self.resets, row.resets.as_deref());
        mark(row.changes.is_some(), Changes);
        put_ints(&mut self.changes, row.changes.as_deref());
        let stale = !row.stale_pos.is_empty();
        mark(stale, StalePos);
        mark(stale, StaleLastTs);
        put_ints(&mut self.stale_pos, stale.then_some(&row.stale_pos[..]));
        if stale {
            self.stale_last_ts.values().append_slice(&row.stale_last_ts);
        }
        self.stale_last_ts.append(stale);
        for (i, column) in [HSamples, HFlags, HCoarsest].into_iter().enumerate() {
            mark(row.h_samples.is_some(), column);
            put_ints(&mut self.h_samples[i], row.h_samples.as_ref().map(|h| &h[i][..]));
        }
        self.held += self.histograms.push((!some).then_some(&row.histograms[..]));
        lists |= self.push_mantissas(&row.mantissas);
        self.lists.append_value(lists);
    }

    /// Which lists there were.
    fn push_mantissas(&mut self, row: &Mantissas) -> u32 {
        use ListColumn::*;
        let mut lists = 0;
        self.exp.append_value(row.exp);
        self.relative.append_value(row.relative);
        let places = [LastM, FirstM, SumM, MinM, MaxM, ResetSumM];
        for ((to, items), column) in self.mantissas.iter_mut().zip(&row.lists).zip(places) {
            if let Some(items) = items {
                lists |= column.bit();
                to.values().append_slice(items);
            }
            to.append(items.is_some());
        }
        let odd = !row.x.is_empty();
        if odd {
            lists |= XPos.bit() | X.bit();
            self.x.values().append_slice(&row.x);
        }
        put_ints(&mut self.x_pos, odd.then_some(&row.x_pos[..]));
        self.x.append(odd);
        lists
    }

    /// All that is held, as a batch; nothing is held afterwards.
    pub fn take(&mut self) -> Result<RecordBatch, BlockError> {
        self.held = 0;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.series_id.finish()),
            Arc::new(self.min_t.finish()),
            Arc::new(self.max_t.finish()),
            Arc::new(self.tsref.finish()),
            Arc::new(self.n.finish()),
            Arc::new(self.role.finish()),
            Arc::new(self.first_tsref.finish()),
            Arc::new(self.lists.finish()),
            Arc::new(self.count.finish()),
        ];
        columns.extend(self.floats.iter_mut().map(|c| Arc::new(c.finish()) as ArrayRef));
        columns.push(Arc::new(self.resets.finish()));
        columns.push(Arc::new(self.changes.finish()));
        columns.push(Arc::new(self.stale_pos.finish()));
        columns.push(Arc::new(self.stale_last_ts.finish()));
        columns.extend(self.h_samples.iter_mut().map(|c| Arc::new(c.finish()) as ArrayRef));
        columns.extend(self.histograms.finish());
        columns.push(Arc::new(self.exp.finish()));
        columns.push(Arc::new(self.relative.finish()));
        columns.extend(self.mantissas.iter_mut().map(|c| Arc::new(c.finish()) as ArrayRef));
        columns.push(Arc::new(self.x_pos.finish()));
        columns.push(Arc::new(self.x.finish()));
        RecordBatch::try_new(SCHEMA.clone(), columns).map_err(|e| BlockError::Encode(format!("windows: {e}")))
    }
}
