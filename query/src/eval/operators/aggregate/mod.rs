//! Aggregations: rows fold into their groups as they come, step by step; only those that pick rows hold them
//! all.

mod fold;
mod groups;
mod histograms;
mod parameter;
mod pick;
mod values;

use crate::eval::evaluator::Evaluator;
use crate::eval::frame::Val;
use crate::parse::{AggregateOp, Span};
use crate::plan::Aggregate;
use crate::value::QueryError;

impl Evaluator<'_> {
    pub(in crate::eval) fn aggregate(&mut self, a: &Aggregate, span: Span) -> Result<Val, QueryError> {
        use AggregateOp::*;
        match a.op {
            Sum | Avg | Count | Min | Max | Group | Stddev | Stdvar => self.fold(a),
            Quantile => self.quantile_of_groups(a),
            Topk | Bottomk | Limitk | LimitRatio => self.pick(a, span),
            CountValues => self.count_values(a),
        }
    }
}
