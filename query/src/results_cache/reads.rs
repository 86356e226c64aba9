//! What the evaluation of a plan at some steps will read, told from the plan.

use model::source::Read;

use crate::eval::operators::range::{matrix_reach, subquery_steps};
use crate::eval::operators::selector::instant_reach;
use crate::eval::resolution::rollup_hints_for;
use crate::eval::timeline::Reach;
use crate::options::EngineOptions;
use crate::plan::resolution::{FEW, MaxResolution};
use crate::plan::{Plan, PlanExpr, PlanNode, Selector, Steps};

/// Deeper plans are not looked at.
const MAX_DEPTH: usize = 200;

/// A plan and what else decides what it reads.
pub struct Reader<'a> {
    pub plan: &'a Plan,
    pub options: &'a EngineOptions,
    pub lookback_ms: i64,
    pub max_resolution: MaxResolution,
}

impl Reader<'_> {
    /// All reads; `None` where a selector is looked at so few times that sources would choose other rollups
    /// for it than for the same times among more.
    pub fn of(&self, steps: Steps) -> Option<Vec<Read>> {
        let mut reads = Vec::new();
        self.walk(&self.plan.root, steps, false, 0, &mut reads)?;
        Some(reads)
    }

    /// `fixed`: the steps are the same whatever the query's are.
    fn walk(
        &self,
        expr: &PlanExpr,
        steps: Steps,
        fixed: bool,
        depth: usize,
        reads: &mut Vec<Read>,
    ) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        let depth = depth + 1;
        match &expr.node {
            PlanNode::Number(_) | PlanNode::Str(_) => {}
            PlanNode::Selector(s) => {
                let reach = instant_reach(s, steps, self.lookback_ms);
                reads.push(self.read(s, &reach, 0, fixed)?);
            }
            PlanNode::Matrix { selector: s, range_ms } => {
                let (reach, _) = matrix_reach(s, *range_ms, steps, self.lookback_ms);
                reads.push(self.read(s, &reach, *range_ms, fixed)?);
            }
            PlanNode::Subquery(sub) => {
                let inner = subquery_steps(sub, steps, self.options.max_samples).ok()?;
                if inner.count > 0 {
                    self.walk(&sub.expr, inner, fixed || sub.at_ms.is_some(), depth, reads)?;
                } else if !fixed {
                    return None;
                }
            }
            PlanNode::Call(call) => {
                for arg in &call.args {
                    self.walk(arg, steps, fixed, depth, reads)?;
                }
            }
            PlanNode::Aggregate(a) => {
                for inner in a.param.iter().chain([&a.expr]) {
                    self.walk(inner, steps, fixed, depth, reads)?;
                }
            }
            PlanNode::Binary(b) => {
                self.walk(&b.lhs, steps, fixed, depth, reads)?;
                self.walk(&b.rhs, steps, fixed, depth, reads)?;
            }
            PlanNode::Negate(inner) => self.walk(inner, steps, fixed, depth, reads)?,
            PlanNode::StepInvariant(inner) => {
                self.walk(inner, Steps { count: 1, ..steps }, true, depth, reads)?;
            }
        }
        Some(())
    }

    fn read(&self, s: &Selector, reach: &Reach, range_ms: i64, fixed: bool) -> Option<Read> {
        if reach.steps.count <= FEW && !fixed && reach.at_ms.is_none() {
            return None;
        }
        let (rollups, _, _) = rollup_hints_for(
            &self.plan.selection_needs,
            self.options,
            self.max_resolution,
            s,
            reach,
            range_ms,
        );
        let (min_t_ms, max_t_ms) = reach.span();
        Some(Read { min_t_ms, max_t_ms, rollups })
    }
}
