//! Columnar evaluation: every node of the plan is computed for all steps at once, a row per series, a slot per step.

pub mod frame;
pub mod functions;

use std::sync::Arc;

use tsdb::source::{Budget, Source};

use crate::annotations::Annotations;
use crate::engine::EngineOptions;
use crate::eval::frame::{Frame, Val};
use crate::plan::PlanExpr;
use crate::value::QueryError;

/// The times at which an expression is evaluated: `start_ms + i * step_ms` for `i` below `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    pub start_ms: i64,
    /// At least 1, also where there is one step only.
    pub step_ms: i64,
    /// At least 1.
    pub count: usize,
}

impl Steps {
    pub fn at(&self, step: usize) -> i64 {
        self.start_ms + step as i64 * self.step_ms
    }

    pub fn end_ms(&self) -> i64 {
        self.at(self.count - 1)
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
}

impl Evaluator<'_> {
    /// Any expression but a range vector.
    pub fn eval(&mut self, expr: &PlanExpr) -> Result<Val, QueryError> {
        self.budget.check()?;
        Err(QueryError::internal(format!("evaluation is not implemented yet: {:?}", expr.kind)))
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
}
