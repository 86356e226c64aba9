//! The walk over a plan: every node is computed for all steps at once, whole ([`Evaluator::eval`]) or row by
//! row ([`Evaluator::stream`]).

use model::source::Reservation;

use crate::eval::evaluator::{Evaluator, row_reservation, value_reservation};
use crate::eval::frame::{Frame, Names, Row, Val};
use crate::eval::functions::{self, Kernel};
use crate::eval::operators::streamed::spread_column;
use crate::eval::stats::samples::{SampleDetail, SampleStats};
use crate::parse::{FunctionKind, ValueType};
use crate::plan::{PlanExpr, PlanNode, Steps};
use crate::value::QueryError;

impl Evaluator<'_> {
    /// Any expression but a range vector.
    pub fn eval(&mut self, expr: &PlanExpr) -> Result<Val, QueryError> {
        self.budget.check_in_turn()?;
        if self.steps.count == 0 {
            return Ok(match expr.kind {
                ValueType::Scalar => Val::Scalar(Vec::new()),
                ValueType::String => Val::Str(expr.as_string().unwrap_or_default().into()),
                _ => Val::Vector(Frame::default()),
            });
        }
        // A single scalar may be large where a subquery has many steps.
        self.expect_rows(1, self.steps.count)?;
        let outer_reserved = std::mem::take(&mut self.live);
        let outer = self.trace.as_ref().map(|t| t.switch(expr.id));
        let val = match expr.shared {
            None => self.node(expr)?,
            Some(shared) => self.shared_node(expr, shared)?,
        };
        if let (Some(trace), Some(outer)) = (&self.trace, outer) {
            trace.switch(outer);
        }
        let reservation = value_reservation(&val);
        self.budget.release(self.live);
        self.budget.reserve(reservation)?;
        self.live = outer_reserved + reservation;
        if let Some(trace) = &self.trace {
            trace.note(expr.id, |f| {
                f.runs += 1;
                f.bytes = f.bytes.max(reservation.bytes);
                if !streams(expr) {
                    f.series += val.series();
                }
            });
        }
        Ok(val)
    }

    /// All rows that [`Evaluator::stream`] hands out, charged as they come.
    pub(crate) fn materialize(&mut self, expr: &PlanExpr) -> Result<Val, QueryError> {
        let budget = self.budget.clone();
        let (mut rows, mut reserved) = (Vec::new(), Reservation::default());
        self.stream(expr, Names::Dropped, &mut |row| {
            budget.reserve(row_reservation(&row))?;
            reserved += row_reservation(&row);
            rows.push(row);
            Ok(())
        })?;
        self.live += reserved;
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

    pub(super) fn node(&mut self, expr: &PlanExpr) -> Result<Val, QueryError> {
        match &expr.node {
            PlanNode::Number(v) => Ok(Val::Scalar(vec![*v; self.steps.count])),
            PlanNode::Str(s) => Ok(Val::Str(s.clone())),
            PlanNode::Selector(_) => self.materialize(expr),
            PlanNode::Matrix { .. } | PlanNode::Subquery(_) => {
                Err(QueryError::internal("a range vector stands where none can be evaluated"))
            }
            PlanNode::Call(call) => match functions::kernel(call.func)? {
                Kernel::Math(_) | Kernel::Element(_) => self.rowwise_call(call),
                Kernel::Window(_) => self.materialize(expr),
                Kernel::Whole(f) => f(self, call),
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
        let detail = match self.sample_stats.detail() {
            SampleDetail::Total => SampleDetail::Total,
            _ => SampleDetail::Reads,
        };
        let outer = std::mem::replace(&mut self.sample_stats, SampleStats::new(detail, 1));
        self.steps = Steps { count: 1, ..all };
        let val = self.eval(inner);
        self.steps = all;
        let inner = std::mem::replace(&mut self.sample_stats, outer);
        self.sample_stats.once_for_all(&inner, all.count);
        val
    }

    /// Hands the rows of an instant vector to `sink` as they come, in order. Selectors and range functions
    /// over selectors never hold all of theirs. A row may be empty.
    pub fn stream(
        &mut self,
        expr: &PlanExpr,
        names: Names,
        sink: &mut dyn FnMut(Row) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let Some(trace) = self.trace.clone() else { return self.stream_rows(expr, names, sink) };
        let (own, outer) = (expr.id, trace.switch(expr.id));
        let counts = streams(expr) && self.steps.count > 0;
        let streamed = self.stream_rows(expr, names, &mut |row| {
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
        names: Names,
        sink: &mut dyn FnMut(Row) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        self.budget.check_in_turn()?;
        if self.steps.count > 0 {
            match &expr.node {
                PlanNode::Selector(s) => return self.instant_rows(s, sink),
                PlanNode::Call(call) if call.func.kind == FunctionKind::PerWindow => {
                    return self.window_rows(call, names, sink);
                }
                _ => {}
            }
        }
        for row in self.eval_vector(expr)?.rows {
            sink(row)?;
        }
        Ok(())
    }
}

/// Whether the rows of a node come one by one.
fn streams(expr: &PlanExpr) -> bool {
    match &expr.node {
        PlanNode::Selector(_) => true,
        PlanNode::Call(call) => call.func.kind == FunctionKind::PerWindow,
        _ => false,
    }
}
