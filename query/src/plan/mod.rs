//! The checked plan of a query: every duration a number, every `@` a time, every function its entry, constant parts marked. No I/O.

use std::sync::Arc;

use tsdb::matcher::Matcher;

use crate::eval::functions::Entry;
use crate::parse::{AggregateOp, BinaryOp, Span, ValueType, VectorMatching};

/// A planned expression with its place in the text.
#[derive(Clone, Debug)]
pub struct PlanExpr {
    pub node: PlanNode,
    pub kind: ValueType,
    pub span: Span,
}

#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
pub struct Selector {
    pub name: Option<Arc<str>>,
    pub matchers: Vec<Matcher>,
    pub offset_ms: i64,
    /// `@`, resolved: milliseconds.
    pub at_ms: Option<i64>,
    pub anchored: bool,
    pub smoothed: bool,
    /// Which of the plan's selections holds its series.
    pub selection: usize,
}

#[derive(Clone, Debug)]
pub struct Subquery {
    pub expr: PlanExpr,
    pub range_ms: i64,
    pub step_ms: i64,
    pub offset_ms: i64,
    pub at_ms: Option<i64>,
}

#[derive(Clone, Debug)]
pub struct Call {
    pub entry: &'static Entry,
    pub args: Vec<PlanExpr>,
    /// Of the whole call.
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct Aggregate {
    pub op: AggregateOp,
    pub expr: PlanExpr,
    pub param: Option<PlanExpr>,
    /// Ascending.
    pub grouping: Vec<Arc<str>>,
    pub without: bool,
}

#[derive(Clone, Debug)]
pub struct Binary {
    pub op: BinaryOp,
    pub lhs: PlanExpr,
    pub rhs: PlanExpr,
    pub matching: Option<VectorMatching>,
    pub return_bool: bool,
}

impl PlanExpr {
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
