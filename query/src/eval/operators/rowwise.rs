//! Operations that make one row of one row: functions of one value, unary minus, an operator with a scalar,
//! new labels.
//!
//! They run over a whole vector ([`Evaluator::rowwise`]) or over rows that come one by one
//! ([`super::streamed`]), by the same code.

use std::sync::Arc;

use model::labels::Labels;

use super::binary::WithScalar;
use crate::annotations::Annotations;
use crate::column::Column;
use crate::eval::evaluator::{Evaluator, label_bytes, merge_same_labels};
use crate::eval::frame::{Frame, Row, Val, without_name};
use crate::eval::functions::labels::Relabel;
use crate::eval::functions::{self, Element, ElementFn, Kernel};
use crate::parse::{FunctionKind, Span, ValueType};
use crate::plan::{Call, PlanExpr, PlanNode, Steps};
use crate::value::QueryError;

/// One operation, its scalar arguments worked out.
pub(crate) struct RowOp<'p> {
    kind: Kind<'p>,
    steps: Steps,
    /// Names go at the very end, not here.
    delayed: bool,
    notes: Annotations,
}

enum Kind<'p> {
    Math(fn(f64) -> f64),
    Element { f: ElementFn, scalars: Vec<Vec<f64>>, at_step: Vec<f64>, arg_spans: Vec<Span> },
    Negate,
    Scalar(Box<WithScalar<'p>>),
    Relabel(Box<Relabel>),
}

/// What becomes of rows that have one label set after an operation.
enum Same {
    /// As [`Evaluator::collect`] has it.
    Collected,
    Merged,
    /// Nobody looks before the end.
    Left,
}

/// The vector that a rowwise operation works on; `None` where `expr` is none.
pub(crate) fn operand(expr: &PlanExpr) -> Option<&PlanExpr> {
    let vector = |e: &PlanExpr| e.kind == ValueType::InstantVector;
    match &expr.node {
        PlanNode::Negate(inner) if vector(inner) => Some(inner),
        PlanNode::Call(call) if call.func.kind == FunctionKind::PerRow => {
            call.args.iter().find(|a| vector(a))
        }
        PlanNode::Binary(b) => match (vector(&b.lhs), vector(&b.rhs)) {
            (true, false) => Some(&b.lhs),
            (false, true) => Some(&b.rhs),
            _ => None,
        },
        _ => None,
    }
}

impl RowOp<'_> {
    /// Labels and mark of what becomes of a row with these.
    pub fn labels(&self, labels: Labels, drop_name: bool) -> Result<(Labels, bool), QueryError> {
        Ok(match &self.kind {
            Kind::Scalar(s) if !s.drops_name() => (labels, drop_name),
            Kind::Relabel(r) => return r.apply(labels, drop_name),
            _ if self.delayed => (labels, true),
            _ => (without_name(&labels), true),
        })
    }

    pub fn apply(&mut self, row: Row) -> Result<Row, QueryError> {
        let Row { labels, drop_name, mut column } = row;
        match &mut self.kind {
            Kind::Math(f) => column.map_floats(*f),
            Kind::Element { f, scalars, at_step, arg_spans } => {
                let mut made = Column::new(self.steps.count);
                for (step, point) in column.iter() {
                    for (to, from) in at_step.iter_mut().zip(&*scalars) {
                        *to = from[step];
                    }
                    let mut element = Element {
                        scalars: at_step,
                        t_ms: self.steps.at(step),
                        labels: &labels,
                        arg_spans,
                        notes: &mut self.notes,
                    };
                    if let Some(v) = f(&mut element, point) {
                        made.set(step, v);
                    }
                }
                column = made;
            }
            Kind::Negate => column.map_values(
                |v| -v,
                |h| {
                    let mut h = (**h).clone();
                    h.mul(-1.0);
                    Some(Arc::new(h))
                },
            ),
            Kind::Scalar(s) => column = s.apply(column),
            Kind::Relabel(_) => {}
        }
        let (labels, drop_name) = self.labels(labels, drop_name)?;
        Ok(Row { labels, drop_name, column })
    }

    /// Whether it makes labels that the rows did not have.
    pub fn makes_labels(&self) -> bool {
        matches!(self.kind, Kind::Relabel(_))
    }

    /// What there is to say about the rows that went through.
    pub fn into_notes(mut self) -> Annotations {
        if let Kind::Scalar(s) = self.kind {
            s.tell(&mut self.notes);
        }
        self.notes
    }

    fn same(&self) -> Same {
        match self.kind {
            Kind::Relabel(_) => Same::Merged,
            Kind::Negate if self.delayed => Same::Left,
            Kind::Negate => Same::Merged,
            _ => Same::Collected,
        }
    }
}

impl Evaluator<'_> {
    fn op<'p>(&self, kind: Kind<'p>) -> RowOp<'p> {
        let delayed = self.options.delayed_name_removal;
        RowOp { kind, steps: self.steps, delayed, notes: Annotations::new() }
    }

    /// The operation that `expr` is, for an `expr` that has an [`operand`].
    pub(crate) fn row_op<'p>(&mut self, expr: &'p PlanExpr) -> Result<RowOp<'p>, QueryError> {
        match &expr.node {
            PlanNode::Negate(_) => Ok(self.op(Kind::Negate)),
            PlanNode::Call(call) => self.call_op(call),
            PlanNode::Binary(b) => {
                let swapped = b.lhs.kind == ValueType::Scalar;
                let scalar = self.eval_scalar(if swapped { &b.lhs } else { &b.rhs })?;
                let with = WithScalar::new(b, scalar, swapped, expr.span, self.steps.count);
                Ok(self.op(Kind::Scalar(Box::new(with))))
            }
            _ => Err(QueryError::internal("a row operation was planned, something else came")),
        }
    }

    fn call_op<'p>(&mut self, call: &'p Call) -> Result<RowOp<'p>, QueryError> {
        let kind = match *functions::kernel(call.func)? {
            Kernel::Math(f) => Kind::Math(f),
            Kernel::Element(f) => {
                let mut scalars = Vec::new();
                for arg in call.args.iter().filter(|a| a.kind == ValueType::Scalar) {
                    scalars.push(self.eval_scalar(arg)?);
                }
                let arg_spans = call.args.iter().map(|a| a.span).collect();
                Kind::Element { f, at_step: vec![0.0; scalars.len()], scalars, arg_spans }
            }
            _ => Kind::Relabel(Box::new(Relabel::new(call)?)),
        };
        Ok(self.op(kind))
    }

    /// A call with an [`operand`], over the whole vector.
    pub(crate) fn rowwise_call(&mut self, call: &Call) -> Result<Val, QueryError> {
        let op = self.call_op(call)?;
        let vector = call.args.iter().find(|a| a.kind == ValueType::InstantVector);
        let Some(vector) = vector else {
            return Err(QueryError::internal(format!("{} was planned without a vector", call.func.name)));
        };
        let rows = self.eval_vector(vector)?.rows;
        self.through(op, rows)
    }

    /// Unary minus over rows.
    pub(crate) fn negate(&mut self, rows: Vec<Row>) -> Result<Val, QueryError> {
        let op = self.op(Kind::Negate);
        self.through(op, rows)
    }

    /// An operator between rows and a scalar.
    pub(crate) fn with_scalar(&mut self, with: WithScalar<'_>, rows: Vec<Row>) -> Result<Val, QueryError> {
        let op = self.op(Kind::Scalar(Box::new(with)));
        self.through(op, rows)
    }

    fn through(&mut self, mut op: RowOp<'_>, rows: Vec<Row>) -> Result<Val, QueryError> {
        let mut made = Vec::with_capacity(rows.len());
        for row in rows {
            self.budget.check_in_turn()?;
            let row = op.apply(row)?;
            if op.makes_labels() {
                self.charge(label_bytes(&row.labels))?;
            }
            made.push(row);
        }
        let frame = match op.same() {
            Same::Collected => self.collect(made)?,
            Same::Merged => merge_same_labels(made)?,
            Same::Left => Frame { rows: made },
        };
        self.notes.merge(op.into_notes());
        Ok(Val::Vector(frame))
    }
}
