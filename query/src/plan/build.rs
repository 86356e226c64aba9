//! From the syntax tree to the plan.

use std::collections::HashMap;
use std::sync::Arc;

use model::labels::METRIC_NAME;

use super::duration::{QueryShape, milliseconds};
use super::resolution::Needs;
use super::{Aggregate, Binary, Call, Plan, PlanExpr, PlanNode, Selector, Subquery, repeats};
use crate::eval::functions;
use crate::parse::{self, At, Expr, Node, Span, ValueType};
use crate::value::QueryError;

/// Functions whose result changes with the evaluation's time although their arguments do not.
const TIME_DEPENDENT: &[&str] = &[
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "end",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "range",
    "start",
    "step",
    "time",
    "timestamp",
];

/// What planning needs to know beside the tree.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub start_ms: i64,
    pub end_ms: i64,
    /// 0 for an instant query.
    pub step_ms: i64,
    pub default_subquery_step_ms: i64,
}

/// Plans a checked tree. Fails on durations that come out wrong and on functions that have no entry in the register.
pub fn build(expr: &Expr, times: Times) -> Result<Plan, QueryError> {
    let mut b = Builder {
        times,
        shape: shape(times),
        selections: HashMap::new(),
        uses: Vec::new(),
        needs: Vec::new(),
        depth: 0,
        around: Around::default(),
    };
    let built = b.expr(expr, "", 1)?;
    let mut root = if built.wrap { invariant(built.expr) } else { built.expr };
    // Where a chain of operators is cut by what stands elsewhere too, it takes more levels than it has brackets.
    let depth = b.depth + repeats::mark(&mut root);
    Ok(Plan { root, selection_uses: b.uses, selection_needs: b.needs, depth })
}

fn shape(t: Times) -> QueryShape {
    QueryShape { step: t.step_ms as f64 / 1000.0, range: (t.end_ms - t.start_ms) as f64 / 1000.0 }
}

struct Builder {
    times: Times,
    shape: QueryShape,
    /// Selections by their written-out wish, so that equal ones are read once.
    selections: HashMap<String, usize>,
    uses: Vec<usize>,
    needs: Vec<Needs>,
    depth: usize,
    around: Around,
}

/// What of a histogram the nodes around a selector look at.
#[derive(Clone, Copy, Default)]
struct Around {
    counts: bool,
    /// Buckets too; also inside a subquery, which has to find counter resets itself.
    buckets: bool,
}

impl Around {
    fn with_call(self, name: &str) -> Self {
        match name {
            "histogram_count" | "histogram_sum" | "histogram_avg" => Around { counts: true, ..self },
            "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" => self.with_buckets(),
            _ => self,
        }
    }

    fn with_buckets(self) -> Self {
        Around { buckets: true, ..self }
    }
}

/// A planned node, whether it has one value for all steps, and whether it should then be wrapped (literals and range vectors are not).
struct Built {
    expr: PlanExpr,
    invariant: bool,
    wrap: bool,
}

fn invariant(expr: PlanExpr) -> PlanExpr {
    let (kind, span) = (expr.kind, expr.span);
    PlanExpr::new(PlanNode::StepInvariant(Box::new(expr)), kind, span)
}

impl Built {
    fn wrapped(self) -> PlanExpr {
        if self.wrap { invariant(self.expr) } else { self.expr }
    }
}

impl Builder {
    fn at(&self, at: Option<At>) -> Option<i64> {
        at.map(|at| match at {
            At::Time(ms) => ms,
            At::Start => self.times.start_ms,
            At::End => self.times.end_ms,
        })
    }

    fn selector(
        &mut self,
        s: &parse::VectorSelector,
        span: Span,
        range_ms: i64,
        func: &'static str,
        path: &str,
    ) -> Result<Selector, QueryError> {
        let offset_ms = milliseconds(&s.offset, self.shape, true)?;
        let at_ms = self.at(s.at);
        let counts_only = self.around.counts && !self.around.buckets;
        let key = format!(
            "{path}|{:?}|{offset_ms}|{at_ms:?}|{range_ms}|{}{}{counts_only}",
            s.matchers, s.anchored, s.smoothed
        );
        let next = self.uses.len();
        let selection = *self.selections.entry(key).or_insert(next);
        if selection == next {
            self.uses.push(0);
            self.needs.push(Needs::default());
        }
        self.uses[selection] += 1;
        let extended = s.anchored || s.smoothed;
        // A name that no function has: the samples themselves are wanted.
        let user = if extended { Some("") } else { (range_ms > 0).then_some(func) };
        self.needs[selection].add(user);
        if counts_only && matches!(func, "sum_over_time" | "avg_over_time") {
            // For the remarks about resets, which are looked for when buckets are left out.
            self.needs[selection].add(Some("resets"));
        }
        Ok(Selector {
            name: s.name.clone(),
            matchers: s.matchers.clone(),
            offset_ms,
            at_ms,
            anchored: s.anchored,
            smoothed: s.smoothed,
            selection,
            func,
            span,
            counts_only,
        })
    }

    /// `func`: the function or aggregation right around; `depth`: of nesting.
    fn expr(&mut self, e: &Expr, func: &'static str, depth: usize) -> Result<Built, QueryError> {
        self.in_path(e, func, depth, "")
    }

    fn in_path(
        &mut self,
        e: &Expr,
        func: &'static str,
        depth: usize,
        path: &str,
    ) -> Result<Built, QueryError> {
        self.depth = self.depth.max(depth);
        let kind = e.value_type();
        let node = |node: PlanNode, invariant: bool, wrap: bool| {
            Ok(Built { expr: PlanExpr::new(node, kind, e.span), invariant, wrap })
        };
        match &e.node {
            Node::Number(n) => node(PlanNode::Number(n.value), true, false),
            Node::Str(s) => node(PlanNode::Str(s.clone()), true, false),
            Node::Paren(inner) => self.in_path(inner, func, depth + 1, path),
            Node::Vector(s) => {
                let s = self.selector(s, e.span, 0, func, path)?;
                let fixed = s.at_ms.is_some();
                node(PlanNode::Selector(s), fixed, fixed)
            }
            Node::Matrix { selector, selector_span, range } => {
                let range_ms = milliseconds(range, self.shape, false)?;
                let selector = self.selector(selector, *selector_span, range_ms, func, path)?;
                let fixed = selector.at_ms.is_some();
                node(PlanNode::Matrix { selector, range_ms }, fixed, false)
            }
            Node::Subquery(s) => {
                let range_ms = milliseconds(&s.range, self.shape, false)?;
                let offset_ms = milliseconds(&s.offset, self.shape, true)?;
                let step_ms = match &s.step {
                    Some(d) => milliseconds(d, self.shape, false)?,
                    None => 0,
                };
                let step_ms = if step_ms > 0 { step_ms } else { self.times.default_subquery_step_ms.max(1) };
                let at_ms = self.at(s.at);
                let path = format!("{path}/{range_ms}:{step_ms}@{at_ms:?}-{offset_ms}");
                let around = self.around;
                self.around = around.with_buckets();
                let inner = self.in_path(&s.expr, func, depth + 1, &path);
                self.around = around;
                let inner = inner?;
                let expr = if inner.invariant && !matches!(inner.expr.node, PlanNode::Str(_)) {
                    invariant(inner.expr)
                } else {
                    inner.expr
                };
                let sub = Subquery { expr, range_ms, step_ms, offset_ms, at_ms };
                node(PlanNode::Subquery(Box::new(sub)), at_ms.is_some(), false)
            }
            Node::Unary { negative, expr } => {
                let mut inner = self.in_path(expr, func, depth + 1, path)?;
                if !negative {
                    // A plus does nothing, but it is where an argument begins for what is said of it. These two know their own place.
                    if matches!(inner.expr.node, PlanNode::Selector(_) | PlanNode::Call(_)) {
                        inner.expr.span = e.span;
                    }
                    return Ok(inner);
                }
                let (fixed, wrap) = (inner.invariant, inner.wrap);
                node(PlanNode::Negate(Box::new(inner.expr)), fixed, wrap)
            }
            Node::Aggregate(a) => {
                let inner = self.in_path(&a.expr, a.op.as_str(), depth + 1, path)?;
                let param = match &a.param {
                    Some(p) => Some(self.in_path(p, a.op.as_str(), depth + 1, path)?.expr),
                    None => None,
                };
                let mut grouping: Vec<Arc<str>> = a.grouping.clone();
                grouping.sort_unstable();
                let (fixed, wrap) = (inner.invariant, inner.wrap);
                let agg = Aggregate { op: a.op, expr: inner.expr, param, grouping, without: a.without };
                node(PlanNode::Aggregate(Box::new(agg)), fixed, wrap)
            }
            Node::Call(c) => self.call(e, c, depth, path),
            Node::Binary(_) => self.chain(e, depth, path),
        }
    }

    /// A chain of binary operators leans to the left and may be as long as the text: walked in a loop, from the innermost out.
    fn chain(&mut self, e: &Expr, depth: usize, path: &str) -> Result<Built, QueryError> {
        let (mut leftmost, mut chain) = (e, Vec::new());
        while let Node::Binary(b) = &leftmost.node {
            chain.push((&**b, leftmost));
            leftmost = &b.lhs;
        }
        let around = self.around;
        let trims = |op| matches!(op, parse::BinaryOp::TrimUpper | parse::BinaryOp::TrimLower);
        // What stands further left in the chain is under all operators to its right.
        let mut trims_above: Vec<bool> = Vec::with_capacity(chain.len());
        let mut above = around.buckets;
        for (b, _) in &chain {
            above |= trims(b.op);
            trims_above.push(above);
        }
        self.around.buckets = above;
        let mut lhs = self.in_path(leftmost, "", depth + 1, path)?;
        for ((b, whole), buckets) in chain.into_iter().zip(trims_above).rev() {
            self.around.buckets = buckets;
            let rhs = self.in_path(&b.rhs, "", depth + 1, path)?;
            let fixed = lhs.invariant && rhs.invariant;
            let (l, r) = if fixed { (lhs.expr, rhs.expr) } else { (lhs.wrapped(), rhs.wrapped()) };
            let scalar = l.kind == ValueType::Scalar && r.kind == ValueType::Scalar;
            let kind = if scalar { ValueType::Scalar } else { ValueType::InstantVector };
            let node = PlanNode::Binary(Box::new(Binary {
                op: b.op,
                lhs: l,
                rhs: r,
                matching: b.matching.clone(),
                return_bool: b.return_bool,
            }));
            lhs = Built { expr: PlanExpr::new(node, kind, whole.span), invariant: fixed, wrap: fixed };
        }
        self.around = around;
        Ok(lhs)
    }

    fn call(&mut self, e: &Expr, c: &parse::Call, depth: usize, path: &str) -> Result<Built, QueryError> {
        let name = c.func.name;
        let kind = e.value_type();
        let number = |v: f64| {
            Ok(Built { expr: PlanExpr::new(PlanNode::Number(v), kind, e.span), invariant: true, wrap: false })
        };
        match name {
            "start" => return number(self.times.start_ms as f64 / 1000.0),
            "end" => return number(self.times.end_ms as f64 / 1000.0),
            "range" => return number(self.shape.range),
            "step" if self.times.start_ms == self.times.end_ms => return number(0.0),
            "step" => return number(self.shape.step),
            _ => {}
        }
        let Some(entry) = functions::find(name) else {
            return Err(QueryError::internal(format!("the function {name} has no implementation")));
        };
        let mut fixed = !TIME_DEPENDENT.contains(&name);
        let mut timestamp_of_fixed = name == "timestamp";
        let mut args = Vec::with_capacity(c.args.len());
        let around = self.around;
        self.around = around.with_call(name);
        for arg in &c.args {
            // An error ends the planning, so what is around need not be put back for it.
            let built = self.in_path(arg, name, depth + 1, path)?;
            fixed &= built.invariant;
            timestamp_of_fixed &= built.invariant && matches!(built.expr.node, PlanNode::Selector(_));
            args.push(built);
        }
        self.around = around;
        let whole = fixed || timestamp_of_fixed;
        let args = args.into_iter().map(|a| if whole { a.expr } else { a.wrapped() }).collect();
        let node = PlanNode::Call(Call { entry, args, span: e.span });
        Ok(Built { expr: PlanExpr::new(node, kind, e.span), invariant: whole, wrap: whole })
    }
}

impl Selector {
    /// The value of the equality matcher on the name, if there is one.
    pub fn metric_name(&self) -> Option<&str> {
        self.matchers
            .iter()
            .find(|m| &*m.name == METRIC_NAME && m.op == model::matcher::MatchOp::Equal)
            .map(|m| &*m.value)
    }
}
