//! The parameter of an aggregation: one number per step, and what is wrong with it.

use crate::eval::evaluator::Evaluator;
use crate::plan::{Aggregate, PlanNode};
use crate::value::QueryError;

/// One number per step, with the extremes that upstream looks at.
pub(super) struct Param {
    pub values: Vec<f64>,
    pub min: f64,
    pub max: f64,
    pub any_nan: bool,
}

impl Evaluator<'_> {
    /// The parameter, one number per step.
    pub(super) fn parameter(&mut self, a: &Aggregate) -> Result<Param, QueryError> {
        let Some(expr) = &a.param else {
            return Ok(Param { values: vec![0.0; self.steps.count], min: 0.0, max: 0.0, any_nan: false });
        };
        let values = self.eval_scalar(expr)?;
        let any_nan = values.iter().any(|v| v.is_nan());
        let go = |a: f64, b: f64, f: fn(f64, f64) -> f64| {
            if a.is_nan() || b.is_nan() { f64::NAN } else { f(a, b) }
        };
        let min = values.iter().fold(f64::MAX, |a, b| go(a, *b, f64::min));
        let max = values.iter().fold(-f64::MAX, |a, b| go(a, *b, f64::max));
        let constant = matches!(expr.node, PlanNode::Number(_));
        let (min, max) = if constant { (values[0], values[0]) } else { (min, max) };
        Ok(Param { values, min, max, any_nan })
    }
}
