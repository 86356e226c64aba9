//! The checked plan of a query: every duration a number, every `@` a time, every function its entry, constant parts marked. No I/O.

mod build;
mod duration;
mod repeats;
pub mod resolution;

use std::sync::Arc;

pub use build::{Times, build};
pub use repeats::Shared;

use model::matcher::Matcher;

use crate::eval::functions::Entry;
use crate::parse::{AggregateOp, BinaryOp, Span, ValueType, VectorMatching};

/// A whole query, ready to be evaluated.
#[derive(Debug)]
pub struct Plan {
    pub root: PlanExpr,
    /// How many selectors read each selection: what is read more than once is kept.
    pub selection_uses: Vec<usize>,
    /// What those selectors need of each selection.
    pub selection_needs: Vec<resolution::Needs>,
    /// Deepest nesting, chains of binary operators counted once.
    pub depth: usize,
}

/// A planned expression with its place in the text.
#[derive(Debug)]
pub struct PlanExpr {
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

/// A selector, with the place among the plan's selections it reads from.
#[derive(Debug)]
pub struct Selector {
    pub name: Option<Arc<str>>,
    pub matchers: Vec<Matcher>,
    pub offset_ms: i64,
    /// `@`, resolved: milliseconds.
    pub at_ms: Option<i64>,
    pub anchored: bool,
    pub smoothed: bool,
    /// Equal selectors under equal subqueries have the same number.
    pub selection: usize,
    /// Name of the function or aggregation right around it, empty where there is none.
    pub func: &'static str,
    /// Of the selector without its range.
    pub span: Span,
    /// Only counts and sums of histograms are looked at (`histogram_count` and its kin stand around it), so buckets are left out and
    /// counter resets noted as the samples pass.
    pub counts_only: bool,
}

#[derive(Debug)]
pub struct Subquery {
    pub expr: PlanExpr,
    pub range_ms: i64,
    pub step_ms: i64,
    pub offset_ms: i64,
    pub at_ms: Option<i64>,
}

#[derive(Debug)]
pub struct Call {
    pub entry: &'static Entry,
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
        PlanExpr { node, kind, span, shared: None }
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
