//! Large range results, handed out row by row while they are computed, so that memory holds a batch of series
//! and not all of them.
//!
//! A range result is ascending by labels, while rows come in the order of the source and may change their
//! labels on the way. So before the first row goes out, the selection tells the label sets that it will still
//! give ([`SeriesToCome`]), and these are led through the same operations: only if what comes out is
//! ascending, each once, are rows handed out as they come. Otherwise they are collected, those there are
//! already kept.

use std::sync::Arc;

use hashbrown::HashSet;
use model::labels::Labels;
use model::source::{Budget, LabelQuery, Reservation};

use super::range::matrix_reach;
use super::rowwise::{RowOp, operand};
use super::selector::instant_reach;
use crate::column::{Column, Point};
use crate::eval::evaluator::{Evaluator, column_bytes, label_bytes, row_reservation};
use crate::eval::frame::{Frame, Names, Row, Val, without_name};
use crate::eval::functions::{self, Kernel};
use crate::eval::series_to_come::SeriesToCome;
use crate::parse::ValueType;
use crate::plan::{NodeId, PlanExpr, PlanNode, Selector, Steps};
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

/// The operations that rows go through, and where they go then.
struct Pipeline<'p, 't> {
    ops: Vec<RowOp<'p>>,
    delayed: bool,
    take: &'t mut TakeRow<'t>,
    /// Of the row before.
    last: Option<Labels>,
    count: u64,
}

impl Pipeline<'_, '_> {
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

/// The rows of a selector until it is known whether they can be streamed, and their way out from then on.
struct Gathered<'w, 'p, 't> {
    pipeline: &'w mut Pipeline<'p, 't>,
    budget: Arc<Budget>,
    /// Whether the selector's series lose their names before they become rows.
    drops_name: bool,
    from_bytes: u64,
    rows: Vec<Row>,
    reserved: Reservation,
    /// Whether all rows come in the order of the result; `None` until somebody has looked.
    in_order: Option<bool>,
    streaming: bool,
}

impl Gathered<'_, '_, '_> {
    /// Whether it is time to ask which series are still to come: early enough for the answer, which waits for
    /// the end of a batch.
    fn asks_order(&self) -> bool {
        self.in_order.is_none() && self.reserved.bytes >= self.from_bytes / 2
    }

    /// Looks whether the result is ascending, each label set once: the rows there are (`rows_first`) and what
    /// will be made of series with these labels.
    fn look_at(&mut self, rows_first: bool, labels: Vec<Labels>) -> Result<(), QueryError> {
        let bytes: u64 = labels.iter().map(label_bytes).sum();
        self.budget.reserve(bytes)?;
        let mut last: Option<Labels> = None;
        let mut ascends = |labels: Labels| {
            let ascends = last.as_ref().is_none_or(|last| *last < labels);
            last = Some(labels);
            ascends
        };
        let delayed = self.pipeline.delayed;
        let nameless = |row: &Row| match delayed && row.drop_name {
            true => without_name(&row.labels),
            false => row.labels.clone(),
        };
        let mut in_order = !rows_first || self.rows.iter().all(|row| ascends(nameless(row)));
        for labels in labels {
            if !in_order {
                break;
            }
            self.budget.check_in_turn()?;
            let labels = if self.drops_name && !delayed { without_name(&labels) } else { labels };
            in_order = ascends(self.pipeline.final_labels(labels, self.drops_name)?);
        }
        self.budget.release(bytes);
        self.in_order = Some(in_order);
        Ok(())
    }

    fn row(&mut self, row: Row) -> Result<(), QueryError> {
        let row = self.pipeline.through(row)?;
        if self.streaming {
            return self.pipeline.out(row);
        }
        let reserved = row_reservation(&row);
        self.budget.reserve(reserved)?;
        self.reserved += reserved;
        self.rows.push(row);
        if self.reserved.bytes < self.from_bytes || self.in_order != Some(true) {
            return Ok(());
        }
        self.streaming = true;
        for row in std::mem::take(&mut self.rows) {
            let reserved = row_reservation(&row);
            self.pipeline.out(row)?;
            self.budget.release(reserved);
        }
        Ok(())
    }
}

impl Evaluator<'_> {
    /// Says which series a selector will still give, if somebody has asked.
    pub(crate) fn answer_to_come(&self, selector: NodeId, labels: impl FnOnce() -> Option<Vec<Labels>>) {
        if let Some(to_come) = self.to_come.as_ref().filter(|t| t.selector == selector) {
            to_come.answer(labels);
        }
    }

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
        let mut pipeline = Pipeline { ops, delayed, take, last: None, count: 0 };
        let handed = match &leaf.node {
            PlanNode::StepInvariant(inner) => self.stream_invariant(inner, from_bytes, &mut pipeline)?,
            _ => self.stream_selector(leaf, from_bytes, &mut pipeline)?,
        };
        for op in pipeline.ops {
            self.notes.merge(op.into_notes());
        }
        Ok(handed)
    }

    fn stream_selector(
        &mut self,
        leaf: &PlanExpr,
        from_bytes: u64,
        pipeline: &mut Pipeline<'_, '_>,
    ) -> Result<Streaming, QueryError> {
        let Some((selector, range_ms, drops)) = selector_of(leaf) else { return Ok(Streaming::NotPossible) };
        let reach = match range_ms {
            None => instant_reach(selector, self.steps, self.lookback_ms),
            Some(range_ms) => matrix_reach(selector, range_ms, self.steps, self.lookback_ms).0,
        };
        let (min_t_ms, max_t_ms) = reach.span();
        let selectors = vec![selector.matchers.clone()];
        let query = LabelQuery { selectors, min_t_ms, max_t_ms, budget: self.budget.clone() };
        let (source, to_come) = (self.source, Arc::new(SeriesToCome::of(selector.id)));
        let mut gathered = Gathered {
            pipeline,
            budget: self.budget.clone(),
            drops_name: drops,
            from_bytes,
            rows: Vec::new(),
            reserved: Reservation::default(),
            in_order: None,
            streaming: false,
        };
        if gathered.asks_order() {
            to_come.ask();
        }
        self.to_come = Some(to_come.clone());
        let streamed = self.stream(leaf, Names::Dropped, &mut |row| {
            match to_come.take() {
                None => {}
                Some(Some(labels)) => gathered.look_at(true, labels)?,
                Some(None) => {
                    let mut labels = source.series(&query)?;
                    labels.sort_by(Labels::series_cmp);
                    gathered.look_at(false, labels)?;
                }
            }
            gathered.row(row)?;
            if gathered.asks_order() {
                to_come.ask();
            }
            Ok(())
        });
        self.to_come = None;
        streamed?;
        let Gathered { pipeline, mut rows, reserved, streaming, .. } = gathered;
        if streaming {
            return Ok(Streaming::Streamed(pipeline.count));
        }
        // Rows that were made alike by the operations are for the whole evaluation to judge.
        if !pipeline.ops.is_empty() && !unique_labels(&rows) {
            self.budget.release(reserved);
            return Ok(Streaming::NotPossible);
        }
        self.live += reserved;
        rows.retain(|r| !r.column.is_empty());
        Ok(Streaming::Collected(Frame { rows }))
    }

    /// A part that has one value for all steps: its rows are sorted while they are small, and each is spread
    /// only when its turn comes.
    fn stream_invariant(
        &mut self,
        inner: &PlanExpr,
        from_bytes: u64,
        pipeline: &mut Pipeline<'_, '_>,
    ) -> Result<Streaming, QueryError> {
        let all = self.steps;
        let frame = self.at_first_step(inner)?;
        let Val::Vector(frame) = frame else { return Ok(Streaming::NotPossible) };
        let mut rows: Vec<(Labels, Row)> = Vec::with_capacity(frame.rows.len());
        for row in frame.rows.into_iter().filter(|r| !r.column.is_empty()) {
            self.budget.check_in_turn()?;
            let labels = pipeline.final_labels(row.labels.clone(), row.drop_name)?;
            self.charge(label_bytes(&labels))?;
            rows.push((labels, row));
        }
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        if rows.windows(2).any(|w| w[0].0 == w[1].0) {
            return Ok(Streaming::NotPossible);
        }
        if column_bytes(all.count).saturating_mul(rows.len() as u64) < from_bytes {
            let mut spread = Vec::with_capacity(rows.len());
            for (_, row) in rows {
                let column = spread_column(&row.column, all);
                let row = pipeline.through(Row { column, ..row })?;
                self.budget.reserve(row_reservation(&row))?;
                self.live += row_reservation(&row);
                spread.push(row);
            }
            spread.retain(|r| !r.column.is_empty());
            return Ok(Streaming::Collected(Frame { rows: spread }));
        }
        for (_, row) in rows {
            self.budget.check_in_turn()?;
            let column = spread_column(&row.column, all);
            let row = pipeline.through(Row { column, ..row })?;
            pipeline.out(row)?;
        }
        Ok(Streaming::Streamed(pipeline.count))
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
