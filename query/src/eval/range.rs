//! Range functions: windows slide over the samples of a matrix selector or of a subquery's steps.

use std::sync::Arc;

use hashbrown::HashSet;
use model::histogram::{CounterResetHint, Histogram};
use model::labels::{Labels, METRIC_NAME};
use model::matcher::{MatchOp, Matcher, quote};
use model::rollup::{Aggregates, WindowColumns};
use model::source::{Reservation, SeriesColumns};

use super::frame::{Column, Frame, Point, Row, Val};
use super::functions::windowed::{self, FloatWindows, Windowed};
use super::functions::{Extended, Samples, SeriesWindows, Window, WindowContext};
use super::scan::{series_held, without_stale};
use super::tally::{self, Detail, Tally};
use super::timeline::{Memo, Reach, windows};
use super::trace::id;
use super::{Evaluator, SAME_LABELSET, Steps};
use crate::annotations::Annotations;
use crate::parse::Span;
use crate::plan::resolution::window_needs;
use crate::plan::{Call, PlanExpr, PlanNode, Selector, Subquery};
use crate::value::{QueryError, RangeSeries};

/// What all series of one call share.
struct Job<'c> {
    window: &'c Window,
    reach: Reach,
    range_ms: i64,
    extended: Extended,
    /// One row of scalars per step, or a single one where there are none.
    scalars: Vec<Vec<f64>>,
    arg_spans: Vec<Span>,
    start_timestamps: bool,
    /// `rate` and `increase` remark on names that do not look like a counter's.
    counter_names: bool,
    type_labels: bool,
    /// Place of the range vector.
    operand: Span,
    /// Whether its samples are the steps of a subquery.
    subquery: bool,
    detail: Detail,
    /// How it runs over downsampled windows, and what of them it needs.
    windowed: Option<(Windowed, Aggregates)>,
}

/// What came out for one series.
struct Done {
    column: Column,
    notes: Annotations,
    error: Option<String>,
    samples: tally::Windows,
}

/// The range vector among a call's arguments.
fn range_argument(call: &Call) -> Result<(usize, &PlanExpr), QueryError> {
    call.args
        .iter()
        .enumerate()
        .find(|(_, a)| matches!(a.node, PlanNode::Matrix { .. } | PlanNode::Subquery(_)))
        .ok_or_else(|| {
            QueryError::internal(format!("{} was planned without a range vector", call.entry.name))
        })
}

/// What a matrix selector reads, extended where it is `anchored` or `smoothed`.
pub(crate) fn matrix_reach(s: &Selector, range_ms: i64, steps: Steps, lookback_ms: i64) -> (Reach, Extended) {
    let extended = match (s.anchored, s.smoothed) {
        (true, _) => Extended::Anchored,
        (_, true) => Extended::Smoothed,
        _ => Extended::No,
    };
    let before = if extended == Extended::No { 0 } else { lookback_ms };
    let reach = Reach {
        steps,
        offset_ms: s.offset_ms,
        at_ms: s.at_ms,
        back_ms: range_ms.saturating_add(before),
        ahead_ms: if extended == Extended::Smoothed { lookback_ms } else { 0 },
    };
    (reach, extended)
}

/// The steps of a subquery: multiples of its step, from behind the first window's start to the last window's end.
pub(crate) fn subquery_steps(sub: &Subquery, outer: Steps, max_samples: u64) -> Result<Steps, QueryError> {
    let (first, last) = match sub.at_ms {
        Some(at) => (at, at),
        None => (outer.start_ms, outer.end_ms()),
    };
    let step_ms = sub.step_ms.max(1);
    let end = last.saturating_sub(sub.offset_ms);
    let after = first.saturating_sub(sub.offset_ms).saturating_sub(sub.range_ms);
    // Towards zero, then past the open left end: upstream's arithmetic.
    let mut start_ms = step_ms.saturating_mul(after / step_ms);
    if start_ms <= after {
        start_ms = start_ms.saturating_add(step_ms);
    }
    let count = if end < start_ms { 0 } else { (end.saturating_sub(start_ms) / step_ms) as u64 + 1 };
    check_step_count(count, max_samples, "a subquery")?;
    Ok(Steps { start_ms, step_ms, count: count as usize })
}

impl Evaluator<'_> {
    /// The rows of a range function, in the order of the range vector's series.
    pub(crate) fn window_rows(
        &mut self,
        call: &Call,
        window: &Window,
        sink: &mut dyn FnMut(Row) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let name = call.entry.name;
        let (at, operand) = range_argument(call)?;
        let mut columns = Vec::new();
        for (i, arg) in call.args.iter().enumerate() {
            if i != at {
                columns.push(self.eval_scalar(arg)?);
            }
        }
        let scalars = match columns.len() {
            0 => vec![Vec::new()],
            _ => (0..self.steps.count).map(|s| columns.iter().map(|c| c[s]).collect()).collect(),
        };
        // Upstream loses the place of a subquery when it has evaluated it: remarks about its samples stand at 1:1.
        let told_at = |arg: &PlanExpr| match arg.unwrapped().node {
            PlanNode::Subquery(_) => Span::default(),
            _ => arg.span,
        };
        let mut job = Job {
            window,
            reach: Reach { steps: self.steps, offset_ms: 0, at_ms: None, back_ms: 0, ahead_ms: 0 },
            range_ms: 0,
            extended: Extended::No,
            scalars,
            arg_spans: call.args.iter().map(told_at).collect(),
            start_timestamps: self.options.use_start_timestamps
                && matches!(name, "rate" | "irate" | "increase" | "resets"),
            counter_names: matches!(name, "rate" | "increase"),
            type_labels: self.options.type_and_unit_labels,
            operand: told_at(operand),
            subquery: matches!(operand.node, PlanNode::Subquery(_)),
            detail: self.tally.detail(),
            windowed: windowed::find(name).zip(window_needs(name)),
        };
        let delayed = self.options.delayed_name_removal;
        let mut seen: HashSet<Labels> = HashSet::new();
        let keeps_name = window.keeps_name;
        let mut emit =
            |ev: &mut Self, labels: &Labels, input_drops: bool, done: Done| -> Result<(), QueryError> {
                if !done.notes.is_empty() {
                    ev.notes.merge(done.notes);
                }
                ev.tally.windows(&done.samples);
                if let Some(error) = done.error {
                    return Err(QueryError::execution(error));
                }
                if done.column.is_empty() {
                    return Ok(());
                }
                let drop = !keeps_name || input_drops;
                let mut row = Row { labels: labels.clone(), drop_name: drop, column: done.column };
                if drop && !delayed {
                    row.labels = super::without_name(labels);
                    if !seen.insert(row.labels.clone()) {
                        return Err(QueryError::execution(SAME_LABELSET));
                    }
                }
                sink(row)
            };
        match &operand.node {
            PlanNode::Matrix { selector, range_ms } => {
                job.range_ms = *range_ms;
                (job.reach, job.extended) = matrix_reach(selector, *range_ms, self.steps, self.lookback_ms);
                check_extended(name, job.extended)?;
                let (wide, memo) = (job.reach, Memo::new(self.steps));
                self.select(selector, &wide, *range_ms, &mut |ev, batch| {
                    let made = ev.per_series(batch, |s| job.series(&memo, s))?;
                    for (series, done) in batch.iter().zip(made) {
                        emit(ev, &series.labels, false, done)?;
                    }
                    Ok(())
                })
            }
            PlanNode::Subquery(sub) => {
                job.range_ms = sub.range_ms;
                job.reach = Reach {
                    steps: self.steps,
                    offset_ms: sub.offset_ms,
                    at_ms: sub.at_ms,
                    back_ms: sub.range_ms,
                    ahead_ms: 0,
                };
                let (series, drops) = self.subquery_series(sub)?;
                let memo = Memo::new(self.steps);
                for (part, drops) in series.chunks(256).zip(drops.chunks(256)) {
                    self.budget.check()?;
                    let made = self.per_series(part, |s| job.series(&memo, s))?;
                    for ((series, drop), done) in part.iter().zip(drops).zip(made) {
                        emit(self, &series.labels, *drop, done)?;
                    }
                }
                Ok(())
            }
            _ => Err(QueryError::internal("a range function was planned without a range vector")),
        }
    }

    /// Evaluates a subquery and turns its rows into series of samples, with whether each wants its name dropped.
    fn subquery_series(&mut self, sub: &Subquery) -> Result<(Vec<SeriesColumns>, Vec<bool>), QueryError> {
        let outer = self.trace.as_ref().map(|t| t.switch(id(sub)));
        let steps = subquery_steps(sub, self.steps, self.options.max_samples)?;
        if steps.count == 0 {
            return Ok((Vec::new(), Vec::new()));
        }
        let (inner, child) = self.in_subquery(sub, steps)?;
        self.tally.take_reads(&child, steps, self.steps, sub.offset_ms, sub.range_ms);
        let frame = match inner {
            Val::Vector(frame) => frame,
            Val::Scalar(v) => Frame {
                rows: vec![Row { labels: Labels::empty(), drop_name: false, column: Column::full(v) }],
            },
            Val::Str(_) => return Err(QueryError::internal("a subquery over a string was planned")),
        };
        let whole: Arc<[i64]> = (0..steps.count).map(|i| steps.at(i)).collect();
        let mut series = Vec::with_capacity(frame.rows.len());
        let mut drops = Vec::with_capacity(frame.rows.len());
        for row in frame.rows {
            self.budget.check()?;
            if row.column.is_empty() {
                continue;
            }
            drops.push(row.drop_name);
            series.push(samples_of(row, &whole));
        }
        if let (Some(trace), Some(outer)) = (&self.trace, outer) {
            trace.switch(outer);
            trace.note(id(sub), |f| {
                f.runs += 1;
                f.series += series.len() as u64;
                f.bytes += series.iter().map(series_held).sum::<Reservation>().bytes;
            });
        }
        Ok((series, drops))
    }

    /// The value of a subquery's expression at `steps`, and what it counted.
    fn in_subquery(&mut self, sub: &Subquery, steps: Steps) -> Result<(Val, Tally), QueryError> {
        let child = self.tally.for_subquery(steps.count);
        let own = std::mem::replace(&mut self.tally, child);
        let outer = std::mem::replace(&mut self.steps, steps);
        let inner = self.eval(&sub.expr);
        self.steps = outer;
        let child = std::mem::replace(&mut self.tally, own);
        Ok((inner?, child))
    }

    /// `absent_over_time`: one row, with a 1 at every step at which no series has a sample.
    pub(crate) fn absent_over_time(&mut self, call: &Call, window: &Window) -> Result<Val, QueryError> {
        let mut column = Column::full(vec![1.0; self.steps.count]);
        let (_, operand) = range_argument(call)?;
        self.window_rows(call, &Window { keeps_name: true, ..*window }, &mut |row| {
            for (step, _) in row.column.iter() {
                column.clear(step);
            }
            Ok(())
        })?;
        if column.is_empty() {
            return Ok(Val::Vector(Frame::default()));
        }
        let labels = operand.as_selector().map_or_else(Labels::empty, absent_labels);
        Ok(Val::Vector(Frame { rows: vec![Row { labels, drop_name: true, column }] }))
    }

    /// A range vector as the result of an instant query: the samples of each series.
    pub fn eval_range_vector(&mut self, expr: &PlanExpr) -> Result<Vec<RangeSeries>, QueryError> {
        self.budget.check()?;
        match &expr.node {
            PlanNode::StepInvariant(inner) => self.eval_range_vector(inner),
            PlanNode::Matrix { selector, range_ms } => {
                let (reach, extended) = matrix_reach(selector, *range_ms, self.steps, self.lookback_ms);
                let mut out = Vec::new();
                self.select(selector, &reach, *range_ms, &mut |ev, batch| {
                    for series in batch {
                        let series = without_stale(series);
                        let (from, to) = windows(&series.ts_ms, &reach)[0];
                        let (from, to) = (from as usize, to as usize);
                        if from == to {
                            continue;
                        }
                        let found = match extended {
                            Extended::No => points(&series, from, to),
                            _ => extended_points(&series, from, to, &reach, *range_ms, extended)?,
                        };
                        let histograms: u64 = found.histograms.iter().map(|h| tally::weight(h)).sum();
                        ev.tally.at(0, found.values.len() as u64 + histograms);
                        if !found.is_empty() {
                            let samples = found.values.len() as u64 + histograms;
                            let held = Reservation { bytes: 32 * found.len() as u64 + 96, samples };
                            ev.budget.reserve(held)?;
                            ev.live += held;
                            out.push(found);
                        }
                    }
                    Ok(())
                })?;
                Ok(out)
            }
            PlanNode::Subquery(sub) => {
                let steps = subquery_steps(sub, self.steps, self.options.max_samples)?;
                let (inner, child) = self.in_subquery(sub, steps)?;
                self.tally.all_of(&child);
                match inner {
                    Val::Vector(frame) => {
                        let frame = self.finish(frame)?;
                        Ok(frame
                            .rows
                            .into_iter()
                            .map(|r| range_series(r, &steps))
                            .filter(|s| !s.is_empty())
                            .collect())
                    }
                    Val::Scalar(v) if v.is_empty() => Ok(Vec::new()),
                    Val::Scalar(v) => Ok(vec![range_series(
                        Row { labels: Labels::empty(), drop_name: false, column: Column::full(v) },
                        &steps,
                    )]),
                    Val::Str(_) => Err(QueryError::internal("a subquery over a string was planned")),
                }
            }
            _ => Err(QueryError::internal("not a range vector")),
        }
    }
}

/// Most steps of one evaluation: every series and every scalar takes 8 bytes for each. A year at 15 s has 2.1 million.
const MAX_STEPS: u64 = 10_000_000;

/// Refuses an evaluation of more steps than one series may have samples.
pub(crate) fn check_step_count(count: u64, max_samples: u64, what: &str) -> Result<(), QueryError> {
    let most = max_samples.min(MAX_STEPS);
    if count > most {
        return Err(QueryError::execution(format!(
            "query processing would load too many samples into memory in query execution: {what} has {count} steps, the limit is {most}; use a longer step or a shorter range"
        )));
    }
    Ok(())
}

fn check_extended(name: &str, extended: Extended) -> Result<(), QueryError> {
    const ANCHORED: &[&str] = &["changes", "delta", "increase", "rate", "resets"];
    const SMOOTHED: &[&str] = &["delta", "increase", "rate"];
    let (word, allowed) = match extended {
        Extended::No => return Ok(()),
        Extended::Anchored => ("anchored", ANCHORED),
        Extended::Smoothed => ("smoothed", SMOOTHED),
    };
    if allowed.contains(&name) {
        return Ok(());
    }
    Err(QueryError::execution(format!(
        "{word} modifier can only be used with: {} - not with {name}",
        allowed.join(", ")
    )))
}

/// The labels that a selector matches exactly: what `absent` gives its result. A label that is also matched otherwise is left out, wherever
/// the other matcher stands: those that only take series away come last, as Prometheus' storage reorders them before it is asked for labels.
pub fn absent_labels(s: &Selector) -> Labels {
    let mut b = model::labels::LabelsBuilder::default();
    let mut has: HashSet<&str> = HashSet::new();
    let takes_away = |m: &Matcher| {
        m.matches("") && (!m.op.is_positive() || s.matchers.iter().all(|o| o.name != m.name || o.matches("")))
    };
    let (first, last): (Vec<&Matcher>, Vec<&Matcher>) =
        s.matchers.iter().filter(|m| &*m.name != METRIC_NAME).partition(|m| !takes_away(m));
    for m in first.into_iter().chain(last) {
        if m.op == MatchOp::Equal && has.insert(&m.name) {
            b.set(&m.name, &m.value);
        } else {
            b.remove(&m.name);
        }
    }
    b.build()
}

/// A row of a subquery as samples. Reset hints are forgotten: the steps may miss a reset or show one twice.
fn samples_of(row: Row, whole: &Arc<[i64]>) -> SeriesColumns {
    let column = row.column;
    if column.histogram_count() == 0 && column.float_count() == column.steps() {
        let values = column.floats().0.to_vec();
        return SeriesColumns {
            labels: row.labels,
            ts_ms: whole.clone(),
            values,
            histograms: None,
            start_ts_ms: None,
            windows: None,
        };
    }
    let mut ts_ms = Vec::with_capacity(column.len());
    let mut values = Vec::with_capacity(column.len());
    let mut histograms = Vec::new();
    for (step, p) in column.iter() {
        ts_ms.push(whole[step]);
        match p {
            Point::Float(v) => {
                values.push(v);
                histograms.push(None);
            }
            Point::Histogram(h) => {
                values.push(h.sum);
                let hint = h.counter_reset_hint;
                histograms.push(Some(match hint {
                    CounterResetHint::CounterReset | CounterResetHint::NotCounterReset => {
                        Arc::new(Histogram { counter_reset_hint: CounterResetHint::Unknown, ..(**h).clone() })
                    }
                    _ => h.clone(),
                }));
            }
        }
    }
    SeriesColumns {
        labels: row.labels,
        ts_ms: ts_ms.into(),
        values,
        histograms: (column.histogram_count() > 0).then_some(histograms),
        start_ts_ms: None,
        windows: None,
    }
}

/// A row as points in time.
pub(crate) fn range_series(row: Row, steps: &Steps) -> RangeSeries {
    let mut out = RangeSeries::new(row.labels);
    let n = row.column.float_count();
    out.ts_ms.reserve_exact(n);
    out.values.reserve_exact(n);
    for (step, p) in row.column.iter() {
        match p {
            Point::Float(v) => {
                out.ts_ms.push(steps.at(step));
                out.values.push(v);
            }
            Point::Histogram(h) => {
                out.histogram_ts_ms.push(steps.at(step));
                out.histograms.push(h.clone());
            }
        }
    }
    out
}

/// The samples `from..to` of a series.
fn points(s: &SeriesColumns, from: usize, to: usize) -> RangeSeries {
    let mut out = RangeSeries::new(s.labels.clone());
    for i in from..to {
        match s.histograms.as_ref().and_then(|h| h[i].clone()) {
            Some(h) => {
                out.histogram_ts_ms.push(s.ts_ms[i]);
                out.histograms.push(h);
            }
            None => {
                out.ts_ms.push(s.ts_ms[i]);
                out.values.push(s.values[i]);
            }
        }
    }
    out
}

/// The points of an `anchored` or `smoothed` range vector: the range's edges have a point of their own.
fn extended_points(
    s: &SeriesColumns,
    from: usize,
    to: usize,
    reach: &Reach,
    range_ms: i64,
    extended: Extended,
) -> Result<RangeSeries, QueryError> {
    let smoothed = extended == Extended::Smoothed;
    let word = if smoothed { "smoothed" } else { "anchored" };
    let all = points(s, from, to);
    let mut out = RangeSeries::new(s.labels.clone());
    if !all.histograms.is_empty() {
        return Err(QueryError::execution(format!("{word} modifier is not supported with histograms")));
    }
    let end = reach.reference(0);
    let start = end.saturating_sub(range_ms);
    let Some((points, values)) =
        super::functions::rate::extend(&all.ts_ms, &all.values, start, end, smoothed)
    else {
        return Ok(out);
    };
    out.ts_ms = points;
    out.values = values;
    Ok(out)
}

impl Job<'_> {
    /// All windows of one series.
    fn series(&self, memo: &Memo<Vec<(u32, u32)>>, series: &SeriesColumns) -> Done {
        let steps = self.reach.steps;
        let labels = &series.labels;
        let series = without_stale(series);
        let ranges = memo.get(&series.ts_ms, |ts| windows(ts, &self.reach));
        let ranges = &ranges[..];
        let mut column = Column::new(steps.count);
        let mut notes = Annotations::new();
        let mut error = None;
        let start_ts = if self.start_timestamps { series.start_ts_ms.as_deref() } else { None };
        let sizes: Option<Vec<u64>> = series
            .histograms
            .as_ref()
            .map(|h| h.iter().map(|h| h.as_ref().map_or(1, |h| tally::weight(h))).collect());
        let fixed = self.reach.at_ms.is_some();
        let samples = tally::Windows::count(self.detail, ranges, sizes.as_deref(), self.subquery, fixed);
        let over_windows = match (&series.windows, &self.windowed) {
            (Some(w), Some((f, needs))) if self.extended == Extended::No && w.aggregates().has(*needs) => {
                Some((w, f))
            }
            _ => None,
        };
        if let Some((columns, f)) = over_windows {
            self.windows_of_series(&series, columns, f, ranges, &mut column, &mut notes);
            if self.counter_names && column.float_count() > 0 {
                self.remark_on_name(labels, &mut notes);
            }
            return Done { column, notes, error, samples };
        }
        let done = match self.window.kernel {
            Some(kernel)
                if series.histograms.is_none() && start_ts.is_none() && self.extended == Extended::No =>
            {
                let w = SeriesWindows {
                    ts_ms: &series.ts_ms,
                    values: &series.values,
                    windows: ranges,
                    reach: &self.reach,
                    scalars: &self.scalars,
                };
                kernel(&w, &mut column)
            }
            _ => false,
        };
        if !done {
            for (step, &(from, to)) in ranges.iter().enumerate() {
                if from == to {
                    continue;
                }
                let (from, to) = (from as usize, to as usize);
                let end = self.reach.reference(step);
                let samples = Samples {
                    ts_ms: &series.ts_ms[from..to],
                    values: &series.values[from..to],
                    histograms: series
                        .histograms
                        .as_ref()
                        .map(|h| &h[from..to])
                        .filter(|h| h.iter().any(Option::is_some)),
                    start_ts_ms: start_ts.map(|t| &t[from..to]),
                };
                let mut context = WindowContext {
                    t_ms: steps.at(step),
                    range_start_ms: end.saturating_sub(self.range_ms),
                    range_end_ms: end,
                    extended: self.extended,
                    scalars: &self.scalars[step.min(self.scalars.len() - 1)],
                    labels,
                    arg_spans: &self.arg_spans,
                    notes: &mut notes,
                    error: &mut error,
                };
                if let Some(v) = (self.window.run)(&mut context, &samples) {
                    column.set(step, v);
                }
                if error.is_some() {
                    break;
                }
            }
        }
        if self.counter_names && column.float_count() > 0 {
            self.remark_on_name(labels, &mut notes);
        }
        Done { column, notes, error, samples }
    }

    /// All steps of a series of downsampled windows, markers removed.
    fn windows_of_series(
        &self,
        series: &SeriesColumns,
        columns: &WindowColumns,
        f: &Windowed,
        ranges: &[(u32, u32)],
        column: &mut Column,
        notes: &mut Annotations,
    ) {
        let view = SeriesWindows {
            ts_ms: &series.ts_ms,
            values: &series.values,
            windows: ranges,
            reach: &self.reach,
            scalars: &self.scalars,
        };
        if columns.histograms.is_none() {
            let floats = FloatWindows { series, columns, windows: ranges, view };
            if (f.floats)(&floats, column).is_some() {
                return;
            }
        }
        let all: Vec<_> = (0..series.ts_ms.len()).map(|i| series.window(i)).collect();
        for (step, &(from, to)) in ranges.iter().enumerate().filter(|(_, (a, b))| a < b) {
            let end = self.reach.reference(step);
            let mut context = WindowContext {
                t_ms: self.reach.steps.at(step),
                range_start_ms: end.saturating_sub(self.range_ms),
                range_end_ms: end,
                extended: Extended::No,
                scalars: &[],
                labels: &series.labels,
                arg_spans: &self.arg_spans,
                notes: &mut *notes,
                error: &mut None,
            };
            if let Some(v) = (f.any)(&mut context, &all[from as usize..to as usize]) {
                column.set(step, v);
            }
        }
    }

    fn remark_on_name(&self, labels: &Labels, notes: &mut Annotations) {
        let Some(name) = labels.metric_name() else { return };
        if self.type_labels {
            let kind = labels.value("__type__");
            if kind != "counter" && kind != "histogram" {
                notes.info(
                    self.operand,
                    format!(
                        "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", got {}: {}",
                        quote(kind),
                        quote(name)
                    ),
                );
            }
        } else if !["_total", "_sum", "_count", "_bucket"].iter().any(|end| name.ends_with(end)) {
            notes.info(
                self.operand,
                format!(
                    "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
                    quote(name)
                ),
            );
        }
    }
}
