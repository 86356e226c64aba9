//! From the syntax tree to the plan.

use std::sync::Arc;

use hashbrown::HashMap;
use model::matcher::MatchOp;

use super::duration::{QueryShape, milliseconds};
use super::node_id::NodeId;
use super::resolution::Needs;
use super::selector::Selector;
use super::subexpressions;
use super::tree::{Aggregate, Binary, Call, Plan, PlanExpr, PlanNode, Subquery};
use crate::parse::{self, At, Expr, Node, Span, ValueType};
use crate::value::QueryError;

/// Functions whose result changes with the evaluation's time although their arguments do not.
pub const TIME_DEPENDENT: &[&str] = &[
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

/// Plans a checked tree. Fails on durations that come out wrong.
pub fn build(expr: &Expr, times: Times) -> Result<Plan, QueryError> {
    let mut b = Builder {
        times,
        shape: shape(times),
        selections: HashMap::new(),
        uses: Vec::new(),
        needs: Vec::new(),
        depth: 0,
        subqueries: Vec::new(),
        around: Around::default(),
    };
    let built = b.expr(expr, "", 1)?;
    let mut root = if built.wrap { invariant(built.expr) } else { built.expr };
    // Where a chain of operators is cut by what stands elsewhere too, it takes more levels than it has
    // brackets.
    let node_count = number_nodes(&mut root);
    let depth = b.depth + subexpressions::mark(&mut root, node_count);
    Ok(Plan { root, selection_uses: b.uses, selection_needs: b.needs, depth, node_count })
}

/// Numbers all parts of a plan, from 1 on; how many numbers there are, 0 among them.
fn number_nodes(root: &mut PlanExpr) -> usize {
    let mut next = 1;
    let mut new = || {
        let id = NodeId::new(next);
        next += 1;
        id
    };
    let mut waiting = vec![root];
    // Chains of operators may be as long as the text: no recursion.
    while let Some(expr) = waiting.pop() {
        expr.id = new();
        match &mut expr.node {
            PlanNode::Number(_) | PlanNode::Str(_) => {}
            PlanNode::Selector(s) | PlanNode::Matrix { selector: s, .. } => s.id = new(),
            PlanNode::Subquery(s) => {
                s.id = new();
                waiting.push(&mut s.expr);
            }
            PlanNode::Call(call) => waiting.extend(&mut call.args),
            PlanNode::Aggregate(a) => {
                waiting.extend(&mut a.param);
                waiting.push(&mut a.expr);
            }
            PlanNode::Binary(b) => {
                let Binary { lhs, rhs, .. } = &mut **b;
                waiting.extend([lhs, rhs]);
            }
            PlanNode::Negate(inner) | PlanNode::StepInvariant(inner) => waiting.push(inner),
        }
    }
    next
}

fn shape(t: Times) -> QueryShape {
    QueryShape { step: t.step_ms as f64 / 1000.0, range: (t.end_ms - t.start_ms) as f64 / 1000.0 }
}

struct Builder {
    times: Times,
    shape: QueryShape,
    /// Numbers of selections, so that equal ones are read once.
    selections: HashMap<SelectionKey, usize>,
    uses: Vec<usize>,
    needs: Vec<Needs>,
    depth: usize,
    /// Those around what is being planned, from the outermost in.
    subqueries: Vec<SubqueryKey>,
    around: Around,
}

/// A subquery as far as it decides what selectors in it read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct SubqueryKey {
    range_ms: i64,
    step_ms: i64,
    offset_ms: i64,
    at_ms: Option<i64>,
}

/// All that decides what a selector reads.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SelectionKey {
    /// The subqueries it stands in, from the outermost in.
    subqueries: Vec<SubqueryKey>,
    matchers: Vec<(MatchOp, Arc<str>, Arc<str>)>,
    offset_ms: i64,
    at_ms: Option<i64>,
    range_ms: i64,
    anchored: bool,
    smoothed: bool,
    counts_only: bool,
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

/// A planned node, whether it has one value for all steps, and whether it should then be wrapped (literals
/// and range vectors are not).
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
    ) -> Result<Selector, QueryError> {
        let offset_ms = milliseconds(&s.offset, self.shape, true)?;
        let at_ms = self.at(s.at);
        let counts_only = self.around.counts && !self.around.buckets;
        let key = SelectionKey {
            subqueries: self.subqueries.clone(),
            matchers: s.matchers.iter().map(|m| (m.op, m.name.clone(), m.value.clone())).collect(),
            offset_ms,
            at_ms,
            range_ms,
            anchored: s.anchored,
            smoothed: s.smoothed,
            counts_only,
        };
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
            id: NodeId::NONE,
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
        self.depth = self.depth.max(depth);
        let kind = e.value_type();
        let node = |node: PlanNode, invariant: bool, wrap: bool| {
            Ok(Built { expr: PlanExpr::new(node, kind, e.span), invariant, wrap })
        };
        match &e.node {
            Node::Number(n) => node(PlanNode::Number(n.value), true, false),
            Node::Str(s) => node(PlanNode::Str(s.clone()), true, false),
            Node::Paren(inner) => self.expr(inner, func, depth + 1),
            Node::Vector(s) => {
                let s = self.selector(s, e.span, 0, func)?;
                let fixed = s.at_ms.is_some();
                node(PlanNode::Selector(s), fixed, fixed)
            }
            Node::Matrix { selector, selector_span, range } => {
                let range_ms = milliseconds(range, self.shape, false)?;
                let selector = self.selector(selector, *selector_span, range_ms, func)?;
                let fixed = selector.at_ms.is_some();
                node(PlanNode::Matrix { selector, range_ms }, fixed, false)
            }
            Node::Subquery(s) => self.subquery(e, s, func, depth),
            Node::Unary { negative, expr } => {
                let mut inner = self.expr(expr, func, depth + 1)?;
                if !negative {
                    // A plus does nothing, but it is where an argument begins for what is said of it. These
                    // two know their own place.
                    if matches!(inner.expr.node, PlanNode::Selector(_) | PlanNode::Call(_)) {
                        inner.expr.span = e.span;
                    }
                    return Ok(inner);
                }
                let (fixed, wrap) = (inner.invariant, inner.wrap);
                node(PlanNode::Negate(Box::new(inner.expr)), fixed, wrap)
            }
            Node::Aggregate(a) => {
                let inner = self.expr(&a.expr, a.op.as_str(), depth + 1)?;
                let param = match &a.param {
                    Some(p) => Some(self.expr(p, a.op.as_str(), depth + 1)?.expr),
                    None => None,
                };
                let mut grouping: Vec<Arc<str>> = a.grouping.clone();
                grouping.sort_unstable();
                let (fixed, wrap) = (inner.invariant, inner.wrap);
                let agg = Aggregate { op: a.op, expr: inner.expr, param, grouping, without: a.without };
                node(PlanNode::Aggregate(Box::new(agg)), fixed, wrap)
            }
            Node::Call(c) => self.call(e, c, depth),
            Node::Binary(_) => self.chain(e, depth),
        }
    }

    fn subquery(
        &mut self,
        e: &Expr,
        s: &parse::Subquery,
        func: &'static str,
        depth: usize,
    ) -> Result<Built, QueryError> {
        let range_ms = milliseconds(&s.range, self.shape, false)?;
        let offset_ms = milliseconds(&s.offset, self.shape, true)?;
        let step_ms = match &s.step {
            Some(d) => milliseconds(d, self.shape, false)?,
            None => 0,
        };
        let step_ms = if step_ms > 0 { step_ms } else { self.times.default_subquery_step_ms.max(1) };
        let at_ms = self.at(s.at);
        let around = self.around;
        self.around = around.with_buckets();
        self.subqueries.push(SubqueryKey { range_ms, step_ms, offset_ms, at_ms });
        // An error ends the planning, so what is around need not be put back for it.
        let inner = self.expr(&s.expr, func, depth + 1)?;
        self.subqueries.pop();
        self.around = around;
        let expr = if inner.invariant && !matches!(inner.expr.node, PlanNode::Str(_)) {
            invariant(inner.expr)
        } else {
            inner.expr
        };
        let sub = Subquery { id: NodeId::NONE, expr, range_ms, step_ms, offset_ms, at_ms };
        let expr = PlanExpr::new(PlanNode::Subquery(Box::new(sub)), e.value_type(), e.span);
        Ok(Built { expr, invariant: at_ms.is_some(), wrap: false })
    }

    /// A chain of binary operators leans to the left and may be as long as the text: walked in a loop, from
    /// the innermost out.
    fn chain(&mut self, e: &Expr, depth: usize) -> Result<Built, QueryError> {
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
        let mut lhs = self.expr(leftmost, "", depth + 1)?;
        for ((b, whole), buckets) in chain.into_iter().zip(trims_above).rev() {
            self.around.buckets = buckets;
            let rhs = self.expr(&b.rhs, "", depth + 1)?;
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

    fn call(&mut self, e: &Expr, c: &parse::Call, depth: usize) -> Result<Built, QueryError> {
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
        let mut fixed = !TIME_DEPENDENT.contains(&name);
        let mut timestamp_of_fixed = name == "timestamp";
        let mut args = Vec::with_capacity(c.args.len());
        let around = self.around;
        self.around = around.with_call(name);
        for arg in &c.args {
            // An error ends the planning, so what is around need not be put back for it.
            let built = self.expr(arg, name, depth + 1)?;
            fixed &= built.invariant;
            timestamp_of_fixed &= built.invariant && matches!(built.expr.node, PlanNode::Selector(_));
            args.push(built);
        }
        self.around = around;
        let whole = fixed || timestamp_of_fixed;
        let args = args.into_iter().map(|a| if whole { a.expr } else { a.wrapped() }).collect();
        let node = PlanNode::Call(Call { func: c.func, args, span: e.span });
        Ok(Built { expr: PlanExpr::new(node, kind, e.span), invariant: whole, wrap: whole })
    }
}
