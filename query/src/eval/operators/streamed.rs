//! Large range results, handed out row by row while they are computed, so that memory holds a batch of series
//! and not all of them.
//!
//! A range result is ascending by labels, while rows come in the order of the source and may change their
//! labels on the way. So before the first row goes out, the label sets that the selector will give are listed
//! and led through the same operations: only if what comes out is ascending, each once, are rows handed out
//! as they come. Otherwise they are collected, those there are already kept.

use hashbrown::HashSet;
use model::labels::Labels;
use model::source::{LabelQuery, Reservation};

use super::range::matrix_reach;
use super::rowwise::{RowOp, operand};
use super::selector::instant_reach;
use crate::eval::evaluator::{Evaluator, column_bytes, label_bytes, row_held};
use crate::eval::frame::{Column, Frame, Point, Row, Val, without_name};
use crate::eval::functions::{self, Kernel};
use crate::parse::ValueType;
use crate::plan::{PlanExpr, PlanNode, Selector, Steps};
use crate::value::QueryError;

/// What takes rows, ascending by their labels.
pub(crate) type TakeRow<'f> = dyn FnMut(Row) -> Result<(), QueryError> + 'f;

/// How it went.
pub(crate) enum Streaming {
    /// The rows are few, or come in another order than the result's: here they are, in the order of
    /// evaluation, as [`Evaluator::eval`] would give them.
    Collected(Frame),
    /// All have been given to the taker; how many.
    Streamed(u64),
    /// Not possible row by row, nothing was given to the taker: evaluate it whole, and start anew for it.
    NotPossible,
}

/// A root that is a chain of row operations over something that gives its rows one by one.
struct Chain<'p> {
    leaf: &'p PlanExpr,
    /// From the leaf outwards.
    ops: Vec<&'p PlanExpr>,
}

fn chain(root: &PlanExpr) -> Option<Chain<'_>> {
    let (mut leaf, mut ops) = (root, Vec::new());
    while let Some(inner) = operand(leaf) {
        ops.push(leaf);
        leaf = inner;
    }
    ops.reverse();
    let fits = match &leaf.node {
        PlanNode::StepInvariant(_) => leaf.kind == ValueType::InstantVector,
        _ => selector_of(leaf).is_some(),
    };
    fits.then_some(Chain { leaf, ops })
}

/// The selector behind an instant selector or a range function over one, with the range, and whether names
/// are dropped there.
fn selector_of(leaf: &PlanExpr) -> Option<(&Selector, Option<i64>, bool)> {
    match &leaf.node {
        PlanNode::Selector(s) => Some((s, None, false)),
        PlanNode::Call(call) => {
            let Ok(Kernel::Window(window)) = functions::kernel(call.func) else { return None };
            call.args.iter().find_map(|a| match &a.node {
                PlanNode::Matrix { selector, range_ms } => {
                    Some((selector, Some(*range_ms), !window.keeps_name))
                }
                _ => None,
            })
        }
        _ => None,
    }
}

/// Rows on their way out.
struct Way<'p, 't> {
    ops: Vec<RowOp<'p>>,
    delayed: bool,
    take: &'t mut TakeRow<'t>,
    /// Of the row before.
    last: Option<Labels>,
    count: u64,
}

impl Way<'_, '_> {
    /// The labels with which a row of these will end.
    fn final_labels(&self, labels: Labels, drop_name: bool) -> Result<Labels, QueryError> {
        let (mut labels, mut drop) = (labels, drop_name);
        for op in &self.ops {
            (labels, drop) = op.labels(labels, drop)?;
        }
        Ok(if self.delayed && drop { without_name(&labels) } else { labels })
    }

    fn through(&mut self, mut row: Row) -> Result<Row, QueryError> {
        for op in &mut self.ops {
            row = op.apply(row)?;
        }
        Ok(row)
    }

    /// Hands out a row that went through all operations.
    fn out(&mut self, mut row: Row) -> Result<(), QueryError> {
        if row.column.is_empty() {
            return Ok(());
        }
        if self.delayed && row.drop_name {
            row.labels = without_name(&row.labels);
        }
        if self.last.as_ref().is_some_and(|last| *last >= row.labels) {
            // The list said otherwise: a series came into being in between.
            return Err(QueryError::internal("series changed while the result was being sent; ask again"));
        }
        self.last = Some(row.labels.clone());
        self.count += 1;
        (self.take)(row)
    }
}

impl Evaluator<'_> {
    /// Evaluates the root of a range query. From `from_bytes` of rows on they are handed to `take`, where
    /// that is possible.
    pub(crate) fn collect_or_stream<'t>(
        &mut self,
        root: &PlanExpr,
        from_bytes: u64,
        take: &'t mut TakeRow<'t>,
    ) -> Result<Streaming, QueryError> {
        if self.steps.count == 0 {
            return Ok(Streaming::NotPossible);
        }
        let Some(Chain { leaf, ops: exprs }) = chain(root) else { return Ok(Streaming::NotPossible) };
        let mut ops = Vec::with_capacity(exprs.len());
        for expr in exprs {
            ops.push(self.row_op(expr)?);
        }
        let delayed = self.options.delayed_name_removal;
        let mut way = Way { ops, delayed, take, last: None, count: 0 };
        let handed = match &leaf.node {
            PlanNode::StepInvariant(inner) => self.spread_out(inner, from_bytes, &mut way)?,
            _ => self.source_out(leaf, from_bytes, &mut way)?,
        };
        for op in way.ops {
            self.notes.merge(op.into_notes());
        }
        Ok(handed)
    }

    fn source_out(
        &mut self,
        leaf: &PlanExpr,
        from_bytes: u64,
        way: &mut Way<'_, '_>,
    ) -> Result<Streaming, QueryError> {
        let Some((selector, range_ms, drops)) = selector_of(leaf) else { return Ok(Streaming::NotPossible) };
        let reach = match range_ms {
            None => instant_reach(selector, self.steps, self.lookback_ms),
            Some(range_ms) => matrix_reach(selector, range_ms, self.steps, self.lookback_ms).0,
        };
        let (min_t_ms, max_t_ms) = reach.span();
        let budget = self.budget.clone();
        let query = LabelQuery {
            selectors: vec![selector.matchers.clone()],
            min_t_ms,
            max_t_ms,
            budget: budget.clone(),
        };
        let (source, delayed) = (self.source, self.options.delayed_name_removal);
        // Whether the rows will come in the order of the result.
        let in_order = |way: &Way<'_, '_>| -> Result<bool, QueryError> {
            let mut all = source.series(&query)?;
            let bytes: u64 = all.iter().map(|l| l.as_bytes().len() as u64 + 48).sum();
            query.budget.reserve(bytes)?;
            all.sort_by(|a, b| a.series_cmp(b));
            let mut last: Option<Labels> = None;
            let mut ascending = true;
            for labels in all {
                let labels = if drops && !delayed { without_name(&labels) } else { labels };
                let labels = way.final_labels(labels, drops)?;
                query.budget.check()?;
                ascending = last.is_none_or(|last| last < labels);
                if !ascending {
                    break;
                }
                last = Some(labels);
            }
            query.budget.release(bytes);
            Ok(ascending)
        };
        let (mut rows, mut reserved) = (Vec::new(), Reservation::default());
        let (mut streaming, mut unordered) = (false, false);
        self.stream(leaf, &mut |row| {
            let row = way.through(row)?;
            if streaming {
                return way.out(row);
            }
            budget.reserve(row_held(&row))?;
            reserved += row_held(&row);
            rows.push(row);
            if reserved.bytes < from_bytes || unordered {
                return Ok(());
            }
            if !in_order(way)? {
                // What there is already is kept: all rows are collected, and sorted by whoever asked for
                // them.
                unordered = true;
                return Ok(());
            }
            streaming = true;
            for row in rows.drain(..) {
                let reserved = row_held(&row);
                way.out(row)?;
                budget.release(reserved);
            }
            Ok(())
        })?;
        if streaming {
            return Ok(Streaming::Streamed(way.count));
        }
        // Rows that were made alike by the operations are for the whole evaluation to judge.
        if !way.ops.is_empty() && !unique_labels(&rows) {
            budget.release(reserved);
            return Ok(Streaming::NotPossible);
        }
        self.live += reserved;
        rows.retain(|r| !r.column.is_empty());
        Ok(Streaming::Collected(Frame { rows }))
    }

    /// A part that has one value for all steps: its rows are sorted while they are small, and each is spread
    /// only when its turn comes.
    fn spread_out(
        &mut self,
        inner: &PlanExpr,
        from_bytes: u64,
        way: &mut Way<'_, '_>,
    ) -> Result<Streaming, QueryError> {
        let all = self.steps;
        let frame = self.at_first_step(inner)?;
        let Val::Vector(frame) = frame else { return Ok(Streaming::NotPossible) };
        let mut rows: Vec<(Labels, Row)> = Vec::with_capacity(frame.rows.len());
        for row in frame.rows.into_iter().filter(|r| !r.column.is_empty()) {
            self.budget.check()?;
            let labels = way.final_labels(row.labels.clone(), row.drop_name)?;
            self.charge(label_bytes(&labels))?;
            rows.push((labels, row));
        }
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        if rows.windows(2).any(|w| w[0].0 == w[1].0) {
            return Ok(Streaming::NotPossible);
        }
        if column_bytes(all.count).saturating_mul(rows.len() as u64) < from_bytes {
            let mut held = Vec::with_capacity(rows.len());
            for (_, row) in rows {
                let column = spread_column(&row.column, all);
                let row = way.through(Row { column, ..row })?;
                self.budget.reserve(row_held(&row))?;
                self.live += row_held(&row);
                held.push(row);
            }
            held.retain(|r| !r.column.is_empty());
            return Ok(Streaming::Collected(Frame { rows: held }));
        }
        for (_, row) in rows {
            self.budget.check()?;
            let column = spread_column(&row.column, all);
            let row = way.through(Row { column, ..row })?;
            way.out(row)?;
        }
        Ok(Streaming::Streamed(way.count))
    }
}

fn unique_labels(rows: &[Row]) -> bool {
    let mut seen = HashSet::with_capacity(rows.len());
    rows.iter().all(|r| seen.insert(&r.labels))
}

/// A column of one slot over all steps.
pub(crate) fn spread_column(column: &Column, steps: Steps) -> Column {
    let n = steps.count;
    match column.get(0) {
        Some(Point::Float(v)) => Column::full(vec![v; n]),
        Some(Point::Histogram(h)) => {
            let mut c = Column::new(n);
            (0..n).for_each(|s| c.set_histogram(s, h.clone()));
            c
        }
        None => Column::new(n),
    }
}
