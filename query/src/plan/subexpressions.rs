//! Common subexpressions: what stands more than once in a query has its value computed once.
//!
//! Equal are those whose nodes are: same selections (which know under which subquery they stand), functions,
//! operators and parameters, wherever they are written. Only nodes that are evaluated whole count; what a
//! selector gives is read once anyway and passes row by row.

use std::sync::Arc;

use hashbrown::HashMap;

use super::tree::{Binary, PlanExpr, PlanNode, Shared};
use crate::parse::{AggregateOp, BinaryOp, Cardinality, FunctionKind, VectorMatching};

/// Marks what stands more than once, and more often than what it stands in, in a plan of so many numbered
/// nodes. Returns how deep such marks are nested.
pub(super) fn mark(root: &mut PlanExpr, node_count: usize) -> usize {
    let mut expressions = Expressions { value_of: vec![0; node_count], ..Expressions::default() };
    expressions.number(root);
    let Expressions { uses, value_of, .. } = expressions;
    choose(root, 1, &uses, &value_of)
}

/// What a node is, the nodes under it as numbers of their values.
#[derive(PartialEq, Eq, Hash)]
enum NodeKey {
    /// Its bits.
    Number(u64),
    Str(Arc<[u8]>),
    Selector {
        selection: usize,
        func: &'static str,
        range_ms: Option<i64>,
    },
    Subquery {
        inner: u32,
        range_ms: i64,
        step_ms: i64,
        offset_ms: i64,
        at_ms: Option<i64>,
    },
    Call {
        func: &'static str,
        args: Vec<u32>,
    },
    Aggregate {
        op: AggregateOp,
        inner: u32,
        param: Option<u32>,
        grouping: Vec<Arc<str>>,
        without: bool,
    },
    Binary {
        op: BinaryOp,
        lhs: u32,
        rhs: u32,
        return_bool: bool,
        matching: Option<MatchingKey>,
    },
    Negate(u32),
    StepInvariant(u32),
}

/// A [`VectorMatching`], its fill values as bits.
#[derive(PartialEq, Eq, Hash)]
struct MatchingKey {
    card: Cardinality,
    labels: Vec<Arc<str>>,
    on: bool,
    include: Vec<Arc<str>>,
    fill: [Option<u64>; 2],
}

impl From<&VectorMatching> for MatchingKey {
    fn from(m: &VectorMatching) -> Self {
        MatchingKey {
            card: m.card,
            labels: m.labels.clone(),
            on: m.on,
            include: m.include.clone(),
            fill: [m.fill_left, m.fill_right].map(|v| v.map(f64::to_bits)),
        }
    }
}

#[derive(Default)]
struct Expressions {
    numbers: HashMap<NodeKey, u32>,
    /// By number.
    uses: Vec<u32>,
    /// The number of each node's value, by the node's id.
    value_of: Vec<u32>,
}

impl Expressions {
    /// Numbers a node and all under it, those under it first.
    fn number(&mut self, expr: &PlanExpr) -> u32 {
        // Chains of operators lean to the left and may be as long as the text.
        let (mut leftmost, mut chain) = (expr, Vec::new());
        while let PlanNode::Binary(b) = &leftmost.node {
            chain.push((leftmost, &**b));
            leftmost = &b.lhs;
        }
        let mut lhs = match self.key(leftmost) {
            Some(key) => self.put(leftmost, key),
            None => 0,
        };
        for (whole, b) in chain.into_iter().rev() {
            let Binary { op, rhs, matching, return_bool, .. } = b;
            let rhs = self.number(rhs);
            let matching = matching.as_ref().map(MatchingKey::from);
            lhs = self.put(whole, NodeKey::Binary { op: *op, lhs, rhs, return_bool: *return_bool, matching });
        }
        lhs
    }

    /// The key of a node that is no binary operator.
    fn key(&mut self, expr: &PlanExpr) -> Option<NodeKey> {
        Some(match &expr.node {
            PlanNode::Number(v) => NodeKey::Number(v.to_bits()),
            PlanNode::Str(s) => NodeKey::Str(s.clone()),
            PlanNode::Selector(s) => {
                NodeKey::Selector { selection: s.selection, func: s.func, range_ms: None }
            }
            PlanNode::Matrix { selector: s, range_ms } => {
                NodeKey::Selector { selection: s.selection, func: s.func, range_ms: Some(*range_ms) }
            }
            PlanNode::Subquery(s) => NodeKey::Subquery {
                inner: self.number(&s.expr),
                range_ms: s.range_ms,
                step_ms: s.step_ms,
                offset_ms: s.offset_ms,
                at_ms: s.at_ms,
            },
            PlanNode::Call(call) => NodeKey::Call {
                func: call.func.name,
                args: call.args.iter().map(|arg| self.number(arg)).collect(),
            },
            PlanNode::Aggregate(a) => NodeKey::Aggregate {
                op: a.op,
                inner: self.number(&a.expr),
                param: a.param.as_ref().map(|p| self.number(p)),
                grouping: a.grouping.clone(),
                without: a.without,
            },
            PlanNode::Negate(inner) => NodeKey::Negate(self.number(inner)),
            PlanNode::StepInvariant(inner) => NodeKey::StepInvariant(self.number(inner)),
            PlanNode::Binary(_) => return None,
        })
    }

    fn put(&mut self, expr: &PlanExpr, key: NodeKey) -> u32 {
        let next = self.uses.len() as u32;
        let number = *self.numbers.entry(key).or_insert(next);
        if number == next {
            self.uses.push(0);
        }
        self.uses[number as usize] += 1;
        self.value_of[expr.id.index()] = number;
        number
    }
}

/// Marks what stands more often than the nearest marked node around it, which stands `above` times.
fn choose(expr: &mut PlanExpr, above: u32, uses: &[u32], value_of: &[u32]) -> usize {
    let (mut expr, mut above) = (expr, above);
    let (mut nested, mut deepest) = (0, 0);
    loop {
        let number = value_of[expr.id.index()];
        let count = uses[number as usize];
        if count > above && is_whole(expr) {
            expr.shared = Some(Shared { number, uses: count });
            above = count;
            nested += 1;
        }
        let mut under = |e: &mut PlanExpr| deepest = deepest.max(choose(e, above, uses, value_of));
        match &mut expr.node {
            PlanNode::Binary(b) => {
                under(&mut b.rhs);
                expr = &mut b.lhs;
                continue;
            }
            PlanNode::Subquery(s) => under(&mut s.expr),
            PlanNode::Call(call) => call.args.iter_mut().for_each(under),
            PlanNode::Aggregate(a) => {
                under(&mut a.expr);
                a.param.iter_mut().for_each(under);
            }
            PlanNode::Negate(inner) | PlanNode::StepInvariant(inner) => under(inner),
            PlanNode::Number(_) | PlanNode::Str(_) | PlanNode::Selector(_) | PlanNode::Matrix { .. } => {}
        }
        return nested + deepest;
    }
}

/// Whether a node's value is made whole, and of more than numbers.
fn is_whole(expr: &PlanExpr) -> bool {
    match &expr.node {
        PlanNode::Aggregate(_) | PlanNode::Binary(_) | PlanNode::Negate(_) => true,
        PlanNode::StepInvariant(inner) => !matches!(inner.node, PlanNode::Number(_) | PlanNode::Str(_)),
        PlanNode::Call(call) => !call.args.is_empty() && call.func.kind != FunctionKind::PerWindow,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{ParseOptions, parse_expr};
    use crate::plan::{Plan, Times, build};

    fn plan(text: &str) -> Plan {
        let expr = parse_expr(text, &ParseOptions::default()).unwrap();
        let times = Times { start_ms: 0, end_ms: 60_000, step_ms: 15_000, default_subquery_step_ms: 60_000 };
        build(&expr, times).unwrap()
    }

    const NONE: [u32; 0] = [];

    /// How often each marked value stands in a plan, in the order of the text.
    fn marks(text: &str) -> Vec<u32> {
        fn walk(expr: &PlanExpr, out: &mut Vec<u32>) {
            out.extend(expr.shared.as_ref().map(|s| s.uses));
            match &expr.node {
                PlanNode::Binary(b) => {
                    walk(&b.lhs, out);
                    walk(&b.rhs, out);
                }
                PlanNode::Subquery(s) => walk(&s.expr, out),
                PlanNode::Call(call) => call.args.iter().for_each(|arg| walk(arg, out)),
                PlanNode::Aggregate(a) => walk(&a.expr, out),
                PlanNode::Negate(inner) | PlanNode::StepInvariant(inner) => walk(inner, out),
                _ => {}
            }
        }
        let mut out = Vec::new();
        walk(&plan(text).root, &mut out);
        out
    }

    #[test]
    fn common_subexpressions_are_what_is_computed_whole_and_stands_more_than_once() {
        assert_eq!(marks("sum(rate(a[5m])) / sum(rate(b[5m]))"), NONE);
        assert_eq!(marks("sum(rate(a[5m])) / sum(rate(a[5m]))"), [2, 2]);
        assert_eq!(marks("rate(a[5m]) / rate(a[5m])"), NONE, "rows pass one by one");
        assert_eq!(marks("sum by (x) (a) + sum by (y) (a)"), NONE, "grouped otherwise");
        assert_eq!(marks("sum(a) + sum(a offset 1m)"), NONE, "at other times");
        assert_eq!(marks("sum(a @ 10) + sum(a @ 10)").len(), 2);
    }

    #[test]
    fn common_subexpressions_inside_one_are_marked_where_they_stand_more_often() {
        // Each max(a) inside the repeated sum goes with it, until one stands elsewhere too.
        assert_eq!(marks("abs(max(a)) + abs(max(a))"), [2, 2]);
        assert_eq!(marks("abs(max(a)) + abs(max(a)) + max(a)"), [2, 3, 2, 3, 3]);
    }
}
