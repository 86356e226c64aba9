//! The tree of a plan: what each node is and reads, free of the syntax it was written in and of what computes
//! it.

use std::sync::Arc;

use super::node_id::NodeId;
use super::resolution::Needs;
use super::selector::Selector;
use crate::parse::{AggregateOp, BinaryOp, Function, Span, ValueType, VectorMatching};

/// Of what stands more than once in a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Alike for expressions that are equal.
    pub number: u32,
    /// How many there are.
    pub uses: u32,
}

/// A whole query, ready to be evaluated.
#[derive(Debug)]
pub struct Plan {
    pub root: PlanExpr,
    /// How many selectors read each selection: what is read more than once is kept.
    pub selection_uses: Vec<usize>,
    /// What those selectors need of each selection.
    pub selection_needs: Vec<Needs>,
    /// Deepest nesting, chains of binary operators counted once.
    pub depth: usize,
    /// Numbers given to nodes, [`NodeId::NONE`] counted: one more than the last.
    pub node_count: usize,
}

/// A planned expression with its place in the text.
#[derive(Debug)]
pub struct PlanExpr {
    pub id: NodeId,
    pub node: PlanNode,
    pub kind: ValueType,
    pub span: Span,
    /// Of what stands more than once: its value is computed once.
    pub shared: Option<Shared>,
}

#[derive(Debug)]
pub enum PlanNode {
    Number(f64),
    Str(Arc<[u8]>),
    /// An instant selector.
    Selector(Selector),
    /// `selector[range]`; only as an argument of a range function, or as the whole query.
    Matrix {
        selector: Selector,
        range_ms: i64,
    },
    /// Only as an argument of a range function, or as the whole query.
    Subquery(Box<Subquery>),
    Call(Call),
    Aggregate(Box<Aggregate>),
    Binary(Box<Binary>),
    Negate(Box<PlanExpr>),
    /// Has one value for all steps, so it is evaluated once, at the first.
    StepInvariant(Box<PlanExpr>),
}

#[derive(Debug)]
pub struct Subquery {
    pub id: NodeId,
    pub expr: PlanExpr,
    pub range_ms: i64,
    pub step_ms: i64,
    pub offset_ms: i64,
    pub at_ms: Option<i64>,
}

#[derive(Debug)]
pub struct Call {
    pub func: &'static Function,
    pub args: Vec<PlanExpr>,
    /// Of the whole call.
    pub span: Span,
}

#[derive(Debug)]
pub struct Aggregate {
    pub op: AggregateOp,
    pub expr: PlanExpr,
    pub param: Option<PlanExpr>,
    /// Ascending.
    pub grouping: Vec<Arc<str>>,
    pub without: bool,
}

#[derive(Debug)]
pub struct Binary {
    pub op: BinaryOp,
    pub lhs: PlanExpr,
    pub rhs: PlanExpr,
    pub matching: Option<VectorMatching>,
    pub return_bool: bool,
}

/// A chain of operators may be thousands long: it is dropped in a loop, not by recursion.
impl Drop for Binary {
    fn drop(&mut self) {
        let hollow = || PlanExpr::new(PlanNode::Number(0.0), ValueType::Scalar, Span::default());
        let mut next = std::mem::replace(&mut self.lhs, hollow());
        while let PlanNode::Binary(b) = &mut next.node {
            next = std::mem::replace(&mut b.lhs, hollow());
        }
    }
}

impl PlanExpr {
    pub(crate) fn new(node: PlanNode, kind: ValueType, span: Span) -> PlanExpr {
        PlanExpr { id: NodeId::NONE, node, kind, span, shared: None }
    }

    /// The expression inside step-invariant wrappers.
    pub fn unwrapped(&self) -> &PlanExpr {
        match &self.node {
            PlanNode::StepInvariant(inner) => inner.unwrapped(),
            _ => self,
        }
    }

    /// The string of a literal, `None` for anything else.
    pub fn as_string(&self) -> Option<&[u8]> {
        match &self.unwrapped().node {
            PlanNode::Str(s) => Some(s),
            _ => None,
        }
    }

    /// The selector that this expression is, be it instant or with a range.
    pub fn as_selector(&self) -> Option<&Selector> {
        match &self.unwrapped().node {
            PlanNode::Selector(s) | PlanNode::Matrix { selector: s, .. } => Some(s),
            _ => None,
        }
    }
}
