//! Finds expressions that stand more than once in a query, so that their value is computed once.
//!
//! Equal are those whose nodes are: same selections (which know under which subquery they stand), functions, operators and parameters, wherever they are
//! written. Only nodes that are evaluated whole count; what a selector gives is read once anyway and passes row by row.

use std::fmt::Write;

use hashbrown::HashMap;

use super::{Binary, PlanExpr, PlanNode};
use crate::eval::functions::Run;

/// A place among those that have one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Alike for expressions that are equal.
    pub number: u32,
    /// How many there are.
    pub uses: u32,
}

/// Marks what stands more than once, and more often than what it stands in. Returns how deep such marks are nested.
pub(super) fn mark(root: &mut PlanExpr) -> usize {
    let mut seen = Seen::default();
    seen.number(root);
    seen.choose(root, 1)
}

#[derive(Default)]
struct Seen {
    /// By what a node is, the nodes under it as numbers.
    numbers: HashMap<String, u32>,
    /// By number.
    uses: Vec<u32>,
    /// By the node's place in memory: nothing moves in between.
    of_node: HashMap<usize, u32>,
}

fn place(expr: &PlanExpr) -> usize {
    std::ptr::from_ref(expr).addr()
}

impl Seen {
    /// Numbers a node and all under it, those under it first.
    fn number(&mut self, expr: &PlanExpr) -> u32 {
        // Chains of operators lean to the left and may be as long as the text.
        let (mut leftmost, mut chain) = (expr, Vec::new());
        while let PlanNode::Binary(b) = &leftmost.node {
            chain.push((leftmost, &**b));
            leftmost = &b.lhs;
        }
        let mut last = self.node(leftmost);
        for (own, b) in chain.into_iter().rev() {
            let Binary { op, rhs, matching, return_bool, .. } = b;
            let rhs = self.number(rhs);
            last = self.put(own, format!("{op:?} {last} {rhs} {return_bool} {matching:?}"));
        }
        last
    }

    fn node(&mut self, expr: &PlanExpr) -> u32 {
        let what = match &expr.node {
            PlanNode::Number(v) => format!("number {:x}", v.to_bits()),
            PlanNode::Str(s) => format!("string {s:?}"),
            PlanNode::Selector(s) => format!("selector {} {}", s.selection, s.func),
            PlanNode::Matrix { selector: s, range_ms } => {
                format!("matrix {} {} {range_ms}", s.selection, s.func)
            }
            PlanNode::Subquery(s) => {
                let inner = self.number(&s.expr);
                format!("subquery {inner} {} {} {} {:?}", s.range_ms, s.step_ms, s.offset_ms, s.at_ms)
            }
            PlanNode::Call(call) => {
                let mut what = format!("call {}", call.entry.name);
                for arg in &call.args {
                    let _ = write!(what, " {}", self.number(arg));
                }
                what
            }
            PlanNode::Aggregate(a) => {
                let inner = self.number(&a.expr);
                let param = a.param.as_ref().map(|p| self.number(p));
                format!("aggregate {:?} {inner} {param:?} {:?} {}", a.op, a.grouping, a.without)
            }
            PlanNode::Negate(inner) => format!("negate {}", self.number(inner)),
            PlanNode::StepInvariant(inner) => format!("once {}", self.number(inner)),
            PlanNode::Binary(_) => String::new(),
        };
        self.put(expr, what)
    }

    fn put(&mut self, expr: &PlanExpr, what: String) -> u32 {
        let next = self.uses.len() as u32;
        let number = *self.numbers.entry(what).or_insert(next);
        if number == next {
            self.uses.push(0);
        }
        self.uses[number as usize] += 1;
        self.of_node.insert(place(expr), number);
        number
    }

    /// `above`: how often the nearest marked node around stands.
    fn choose(&self, expr: &mut PlanExpr, above: u32) -> usize {
        let (mut at, mut above) = (expr, above);
        let (mut nested, mut deepest) = (0, 0);
        loop {
            let number = self.of_node.get(&place(at)).copied().unwrap_or_default();
            let uses = self.uses.get(number as usize).copied().unwrap_or_default();
            if uses > above && is_whole(at) {
                at.shared = Some(Shared { number, uses });
                above = uses;
                nested += 1;
            }
            let mut under = |e: &mut PlanExpr| deepest = deepest.max(self.choose(e, above));
            match &mut at.node {
                PlanNode::Binary(b) => {
                    under(&mut b.rhs);
                    at = &mut b.lhs;
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
}

/// Whether a node's value is made whole, and of more than numbers.
fn is_whole(expr: &PlanExpr) -> bool {
    match &expr.node {
        PlanNode::Aggregate(_) | PlanNode::Binary(_) | PlanNode::Negate(_) => true,
        PlanNode::StepInvariant(inner) => !matches!(inner.node, PlanNode::Number(_) | PlanNode::Str(_)),
        PlanNode::Call(call) => !call.args.is_empty() && !matches!(call.entry.run, Run::Window(_)),
        _ => false,
    }
}
