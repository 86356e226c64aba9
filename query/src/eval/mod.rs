//! Columnar evaluation: every node of the plan is computed for all steps at once, a row per series, a slot per step.
//!
//! Selectors and range functions over them hand out their rows one batch of series at a time ([`Evaluator::stream`]), so that an
//! aggregation holds its groups and never all rows. Everything else is computed whole.

mod aggregate;
pub mod answered;
mod binary;
pub mod frame;
pub mod functions;
pub(crate) mod handing;
pub(crate) mod range;
mod repeats;
mod rowwise;
pub(crate) mod scan;
pub mod tally;
pub mod timeline;
pub mod trace;

use std::sync::Arc;

use hashbrown::HashMap;
use model::labels::Labels;
use model::source::{Budget, Reservation, ResolutionReport, SeriesColumns, Source};

use crate::annotations::Annotations;
use crate::engine::EngineOptions;
use crate::eval::frame::{Frame, Row, Val, without_name};
use crate::eval::functions::Run;
use crate::eval::handing::spread_column;
use crate::eval::repeats::SharedValues;
use crate::eval::tally::{Detail, Tally};
use crate::eval::trace::{Trace, id};
use crate::parse::ValueType;
use crate::plan::resolution::{MaxResolution, Needs};
use crate::plan::{Plan, PlanExpr, PlanNode};
use crate::value::QueryError;

/// What upstream says where dropping names made two series one.
pub const SAME_LABELSET: &str = "vector cannot contain metrics with the same labelset";

/// The times at which an expression is evaluated: `start_ms + i * step_ms` for `i` below `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    pub start_ms: i64,
    /// At least 1, also where there is one step only.
    pub step_ms: i64,
    /// At least 1, save in a subquery without any step.
    pub count: usize,
}

impl Steps {
    pub fn at(&self, step: usize) -> i64 {
        self.start_ms.saturating_add((step as i64).saturating_mul(self.step_ms))
    }

    pub fn end_ms(&self) -> i64 {
        self.at(self.count.saturating_sub(1))
    }

    /// One step only: results then keep the order of evaluation.
    pub fn is_instant(&self) -> bool {
        self.count == 1
    }
}

/// Walks a plan for one set of [`Steps`]; subqueries walk their part with steps of their own.
pub struct Evaluator<'a> {
    pub source: &'a dyn Source,
    pub options: &'a EngineOptions,
    pub lookback_ms: i64,
    pub steps: Steps,
    pub budget: Arc<Budget>,
    pub notes: Annotations,
    /// How often each selection of the plan is read.
    selection_uses: &'a [usize],
    /// What all who read a selection need of it.
    selection_needs: &'a [Needs],
    /// Coarsest resolution to answer from.
    pub max_resolution: MaxResolution,
    /// Which resolution answered which part of time, all selectors together.
    pub answered: Arc<ResolutionReport>,
    /// Selections that are read more than once, by number and time range.
    kept: HashMap<(usize, i64, i64), Arc<Vec<SeriesColumns>>>,
    /// Values of what stands more than once.
    values: SharedValues,
    /// Values that the node being evaluated holds; charged to the budget.
    live: Reservation,
    /// Samples as `stats` reports them.
    pub tally: Tally,
    /// Where it is written down what each node does, if anybody asked.
    pub trace: Option<Arc<Trace>>,
}

impl<'a> Evaluator<'a> {
    pub fn new(
        source: &'a dyn Source,
        options: &'a EngineOptions,
        plan: &'a Plan,
        steps: Steps,
        budget: Arc<Budget>,
    ) -> Self {
        Evaluator {
            source,
            options,
            lookback_ms: options.lookback_ms,
            steps,
            budget,
            notes: Annotations::new(),
            selection_uses: &plan.selection_uses,
            selection_needs: &plan.selection_needs,
            max_resolution: options.max_resolution,
            answered: Arc::default(),
            kept: HashMap::new(),
            values: SharedValues::default(),
            live: Reservation::default(),
            tally: Tally::new(Detail::Total, steps.count),
            trace: None,
        }
    }

    /// Any expression but a range vector.
    pub fn eval(&mut self, expr: &PlanExpr) -> Result<Val, QueryError> {
        self.budget.check()?;
        if self.steps.count == 0 {
            return Ok(match expr.kind {
                ValueType::Scalar => Val::Scalar(Vec::new()),
                ValueType::String => Val::Str(expr.as_string().unwrap_or_default().into()),
                _ => Val::Vector(Frame::default()),
            });
        }
        let before = std::mem::take(&mut self.live);
        let outer = self.trace.as_ref().map(|t| t.switch(id(expr)));
        let val = match expr.shared {
            None => self.node(expr)?,
            Some(shared) => self.shared_node(expr, shared)?,
        };
        if let (Some(trace), Some(outer)) = (&self.trace, outer) {
            trace.switch(outer);
        }
        let held = val_held(&val);
        self.budget.release(self.live);
        self.budget.reserve(held)?;
        self.live = before + held;
        if let Some(trace) = &self.trace {
            trace.note(id(expr), |f| {
                f.runs += 1;
                f.bytes = f.bytes.max(held.bytes);
                if !streams(expr) {
                    f.series += series_in(&val);
                }
            });
        }
        Ok(val)
    }

    /// All rows that [`Evaluator::stream`] hands out, charged as they come.
    pub(crate) fn materialize(&mut self, expr: &PlanExpr) -> Result<Val, QueryError> {
        let budget = self.budget.clone();
        let (mut rows, mut held) = (Vec::new(), Reservation::default());
        self.stream(expr, &mut |row| {
            budget.reserve(row_held(&row))?;
            held += row_held(&row);
            rows.push(row);
            Ok(())
        })?;
        self.live += held;
        Ok(Val::Vector(Frame { rows }))
    }

    /// An instant vector.
    pub fn eval_vector(&mut self, expr: &PlanExpr) -> Result<Frame, QueryError> {
        match self.eval(expr)? {
            Val::Vector(f) => Ok(f),
            other => Err(QueryError::internal(format!(
                "an instant vector was planned, {} came",
                other.type_name()
            ))),
        }
    }

    /// A scalar: one number per step.
    pub fn eval_scalar(&mut self, expr: &PlanExpr) -> Result<Vec<f64>, QueryError> {
        match self.eval(expr)? {
            Val::Scalar(v) => Ok(v),
            other => Err(QueryError::internal(format!("a scalar was planned, {} came", other.type_name()))),
        }
    }

    fn node(&mut self, expr: &PlanExpr) -> Result<Val, QueryError> {
        match &expr.node {
            PlanNode::Number(v) => Ok(Val::Scalar(vec![*v; self.steps.count])),
            PlanNode::Str(s) => Ok(Val::Str(s.clone())),
            PlanNode::Selector(_) => self.materialize(expr),
            PlanNode::Matrix { .. } | PlanNode::Subquery(_) => {
                Err(QueryError::internal("a range vector stands where none can be evaluated"))
            }
            PlanNode::Call(call) => match &call.entry.run {
                Run::Math(_) | Run::Element(_) => self.rowwise_call(call),
                Run::Window(window) if call.entry.name == "absent_over_time" => {
                    self.absent_over_time(call, window)
                }
                Run::Window(_) => self.materialize(expr),
                Run::Special(f) => f(self, call),
            },
            PlanNode::Aggregate(a) => self.aggregate(a, expr.span),
            PlanNode::Binary(_) => self.binary_chain(expr),
            PlanNode::Negate(inner) => match self.eval(inner)? {
                Val::Scalar(mut v) => {
                    v.iter_mut().for_each(|v| *v = -*v);
                    Ok(Val::Scalar(v))
                }
                Val::Vector(frame) => self.negate(frame.rows),
                other => Ok(other),
            },
            PlanNode::StepInvariant(inner) => self.once(inner),
        }
    }

    /// Evaluates at the first step and spreads the result over all of them.
    fn once(&mut self, inner: &PlanExpr) -> Result<Val, QueryError> {
        let all = self.steps;
        let val = self.at_first_step(inner)?;
        if all.count == 1 {
            return Ok(val);
        }
        Ok(match val {
            Val::Scalar(v) => Val::Scalar(vec![v[0]; all.count]),
            Val::Str(s) => Val::Str(s),
            Val::Vector(frame) => {
                self.expect_rows(frame.rows.len(), all.count)?;
                let spread = |r: Row| Row { column: spread_column(&r.column, all), ..r };
                Val::Vector(Frame { rows: frame.rows.into_iter().map(spread).collect() })
            }
        })
    }

    /// Evaluates at the first step only, for all of them.
    pub(crate) fn at_first_step(&mut self, inner: &PlanExpr) -> Result<Val, QueryError> {
        let all = self.steps;
        // Where within the one step it was does not matter.
        let detail = if self.tally.detail() == Detail::Total { Detail::Total } else { Detail::Reads };
        let tally = std::mem::replace(&mut self.tally, Tally::new(detail, 1));
        self.steps = Steps { count: 1, ..all };
        let val = self.eval(inner);
        self.steps = all;
        let child = std::mem::replace(&mut self.tally, tally);
        self.tally.once_for_all(&child, all.count);
        val
    }

    /// Refuses early what would not fit: `rows` rows of `steps` slots are about to be made.
    pub(crate) fn expect_rows(&self, rows: usize, steps: usize) -> Result<(), QueryError> {
        let bytes = (rows as u64).saturating_mul(column_bytes(steps));
        self.budget.reserve(bytes)?;
        self.budget.release(bytes);
        Ok(())
    }

    /// Hands the rows of an instant vector to `sink` as they come, in order. Selectors and range functions over selectors never hold all
    /// of theirs. A row may be empty.
    pub fn stream(
        &mut self,
        expr: &PlanExpr,
        sink: &mut dyn FnMut(Row) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let Some(trace) = self.trace.clone() else { return self.stream_rows(expr, sink) };
        let (own, outer) = (id(expr), trace.switch(id(expr)));
        let counts = streams(expr) && self.steps.count > 0;
        let streamed = self.stream_rows(expr, &mut |row| {
            if counts && !row.column.is_empty() {
                trace.note(own, |f| f.series += 1);
            }
            // What is done with the row is the work of whoever asked for it.
            let within = trace.switch(outer);
            let taken = sink(row);
            trace.switch(within);
            taken
        });
        trace.switch(outer);
        if counts {
            trace.note(own, |f| f.runs += 1);
        }
        streamed
    }

    fn stream_rows(
        &mut self,
        expr: &PlanExpr,
        sink: &mut dyn FnMut(Row) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        self.budget.check()?;
        if self.steps.count > 0 {
            match &expr.node {
                PlanNode::Selector(s) => return self.instant_rows(s, sink),
                PlanNode::Call(call) => match &call.entry.run {
                    Run::Window(w) if call.entry.name != "absent_over_time" => {
                        return self.window_rows(call, w, sink);
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        for row in self.eval_vector(expr)?.rows {
            sink(row)?;
        }
        Ok(())
    }

    /// The labels and mark of a row whose name is to be dropped: now, or at the very end.
    pub fn drop_name(&self, labels: Labels) -> (Labels, bool) {
        if self.options.delayed_name_removal { (labels, true) } else { (without_name(&labels), true) }
    }

    /// Checks and orders what a function made of rows one by one, as upstream does with the vectors of all steps: rows of one label set
    /// become one where their steps differ; where they do not, it is an error (for an instant query with delayed name removal, later).
    pub fn collect(&self, rows: Vec<Row>) -> Result<Frame, QueryError> {
        if rows.len() < 2 {
            return Ok(Frame { rows });
        }
        let mut seen: HashMap<Labels, usize> = HashMap::with_capacity(rows.len());
        let mut out: Vec<Row> = Vec::with_capacity(rows.len());
        for row in rows {
            if row.column.is_empty() {
                continue;
            }
            match seen.get(&row.labels) {
                Some(&at) => {
                    if self.steps.is_instant() {
                        if !self.options.delayed_name_removal {
                            return Err(QueryError::execution(SAME_LABELSET));
                        }
                        out.push(row);
                    } else if !out[at].column.absorb(row.column) {
                        return Err(QueryError::execution(SAME_LABELSET));
                    }
                }
                None => {
                    seen.insert(row.labels.clone(), out.len());
                    out.push(row);
                }
            }
        }
        Ok(Frame { rows: out })
    }

    /// The end of every evaluation: with delayed name removal the marked names go now.
    pub fn finish(&self, frame: Frame) -> Result<Frame, QueryError> {
        if !self.options.delayed_name_removal {
            return Ok(frame);
        }
        let rows = frame.rows.into_iter().map(|mut r| {
            if r.drop_name {
                r.labels = without_name(&r.labels);
            }
            r
        });
        merge_same_labels(rows.collect())
    }
}

/// Whether the rows of a node come one by one.
fn streams(expr: &PlanExpr) -> bool {
    match &expr.node {
        PlanNode::Selector(_) => true,
        PlanNode::Call(call) => {
            matches!(call.entry.run, Run::Window(_)) && call.entry.name != "absent_over_time"
        }
        _ => false,
    }
}

fn series_in(val: &Val) -> u64 {
    match val {
        Val::Vector(frame) => frame.rows.iter().filter(|r| !r.column.is_empty()).count() as u64,
        _ => 1,
    }
}

/// Rows of one label set become one; where two have a value at one step it is an error.
pub(crate) fn merge_same_labels(rows: Vec<Row>) -> Result<Frame, QueryError> {
    let mut seen: HashMap<Labels, usize> = HashMap::with_capacity(rows.len());
    let mut out: Vec<Row> = Vec::with_capacity(rows.len());
    for row in rows {
        if row.column.is_empty() {
            continue;
        }
        match seen.get(&row.labels) {
            Some(&at) => {
                if !out[at].column.absorb(row.column) {
                    return Err(QueryError::execution(SAME_LABELSET));
                }
            }
            None => {
                seen.insert(row.labels.clone(), out.len());
                out.push(row);
            }
        }
    }
    Ok(Frame { rows: out })
}

/// Bytes a row without histograms takes.
pub(crate) fn column_bytes(steps: usize) -> u64 {
    (steps as u64).saturating_mul(8) + (steps as u64) / 8 + 160
}

/// What a value holds.
pub(crate) fn val_held(val: &Val) -> Reservation {
    match val {
        Val::Scalar(v) => Reservation { bytes: 8 * v.len() as u64, samples: v.len() as u64 },
        Val::Str(_) => Reservation::default(),
        Val::Vector(f) => f.rows.iter().map(row_held).sum(),
    }
}

/// What a row holds.
pub(crate) fn row_held(row: &Row) -> Reservation {
    let bytes = row.column.bytes() + row.labels.as_bytes().len() as u64 + 96;
    Reservation { bytes, samples: tally::samples(&row.column) }
}
