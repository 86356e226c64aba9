//! The syntax tree of PromQL: what was written, where it stands, and nothing about how it runs.

use std::sync::Arc;

use tsdb::matcher::Matcher;

/// Bytes `start..end` of the query text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

/// PromQL's four types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    Scalar,
    String,
    InstantVector,
    RangeVector,
}

/// A node with its place in the text.
#[derive(Clone, Debug)]
pub struct Expr {
    pub node: Node,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum Node {
    Number(NumberLit),
    /// PromQL strings are bytes: `"\xc5"` is one byte and not UTF-8.
    Str(Arc<[u8]>),
    Vector(VectorSelector),
    /// `selector[range]`. The inner expression is always a `Vector`; `offset`, `@`, `anchored` and `smoothed` are kept there.
    Matrix {
        selector: VectorSelector,
        selector_span: Span,
        range: DurationExpr,
    },
    Subquery(Box<Subquery>),
    Call(Call),
    Aggregate(Box<Aggregate>),
    Binary(Box<Binary>),
    Unary {
        negative: bool,
        expr: Box<Expr>,
    },
    Paren(Box<Expr>),
}

#[derive(Clone, Copy, Debug)]
pub struct NumberLit {
    pub value: f64,
    /// Written as a duration (`5m`), which the printer keeps.
    pub is_duration: bool,
}

/// A duration as written: a plain number of milliseconds, or an expression over durations (`[step() * 2]`, behind a feature flag).
#[derive(Clone, Debug)]
pub enum DurationExpr {
    /// Milliseconds; negative only in offsets.
    Literal(i64),
    /// Evaluated once per query, when step and range are known.
    Computed(Box<DurationNode>),
}

#[derive(Clone, Debug)]
pub struct DurationNode {
    pub op: DurationOp,
    pub span: Span,
    /// Wrapped in parentheses in the text.
    pub wrapped: bool,
}

#[derive(Clone, Debug)]
pub enum DurationOp {
    /// Seconds.
    Number(NumberLit),
    Neg(Box<DurationNode>),
    Pos(Box<DurationNode>),
    Add(Box<DurationNode>, Box<DurationNode>),
    Sub(Box<DurationNode>, Box<DurationNode>),
    Mul(Box<DurationNode>, Box<DurationNode>),
    Div(Box<DurationNode>, Box<DurationNode>),
    Mod(Box<DurationNode>, Box<DurationNode>),
    Pow(Box<DurationNode>, Box<DurationNode>),
    /// `step()`
    Step,
    /// `range()`
    Range,
    Min(Box<DurationNode>, Box<DurationNode>),
    Max(Box<DurationNode>, Box<DurationNode>),
}

/// `@ 12.5`, `@ start()`, `@ end()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Milliseconds.
    Time(i64),
    Start,
    End,
}

#[derive(Clone, Debug)]
pub struct VectorSelector {
    /// The name written before the braces; it is also among `matchers`, as `__name__="…"`, last.
    pub name: Option<Arc<str>>,
    pub matchers: Vec<Matcher>,
    /// `offset`, zero where none is written.
    pub offset: DurationExpr,
    pub at: Option<At>,
    pub anchored: bool,
    pub smoothed: bool,
}

#[derive(Clone, Debug)]
pub struct Subquery {
    pub expr: Expr,
    pub range: DurationExpr,
    /// `None`: the server's default step.
    pub step: Option<DurationExpr>,
    pub offset: DurationExpr,
    pub at: Option<At>,
}

#[derive(Clone, Debug)]
pub struct Call {
    pub func: &'static Function,
    pub args: Vec<Expr>,
}

/// What the parser knows of a function; how it runs is the evaluator's.
#[derive(Debug)]
pub struct Function {
    pub name: &'static str,
    /// The types of the arguments; the last repeats as `variadic` says.
    pub args: &'static [ValueType],
    /// 0: exactly `args`. n > 0: up to n of the last may be left out or added as upstream's `Variadic`. -1: any number of the last, none included.
    pub variadic: i32,
    pub returns: ValueType,
    /// Refused unless experimental functions are enabled.
    pub experimental: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateOp {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    CountValues,
    Quantile,
    Limitk,
    LimitRatio,
}

#[derive(Clone, Debug)]
pub struct Aggregate {
    pub op: AggregateOp,
    pub expr: Expr,
    /// `k`, `φ` or the label name of `count_values`.
    pub param: Option<Expr>,
    pub grouping: Vec<Arc<str>>,
    /// `without (…)`; otherwise `by (…)`, also when nothing is written.
    pub without: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Eql,
    Neq,
    Gtr,
    Lss,
    Gte,
    Lte,
    And,
    Or,
    Unless,
    /// `</`
    TrimUpper,
    /// `>/`
    TrimLower,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cardinality {
    OneToOne,
    ManyToOne,
    OneToMany,
    ManyToMany,
}

#[derive(Clone, Debug)]
pub struct VectorMatching {
    pub card: Cardinality,
    /// `on (…)` or `ignoring (…)`.
    pub labels: Vec<Arc<str>>,
    pub on: bool,
    /// Of `group_left (…)` or `group_right (…)`.
    pub include: Vec<Arc<str>>,
    /// `fill(…)`, `fill_left(…)`, `fill_right(…)`.
    pub fill_left: Option<f64>,
    pub fill_right: Option<f64>,
}

#[derive(Clone, Debug)]
pub struct Binary {
    pub op: BinaryOp,
    pub lhs: Expr,
    pub rhs: Expr,
    /// Set when both sides are instant vectors.
    pub matching: Option<VectorMatching>,
    pub return_bool: bool,
}

impl Expr {
    pub fn value_type(&self) -> ValueType {
        match &self.node {
            Node::Number(_) => ValueType::Scalar,
            Node::Str(_) => ValueType::String,
            Node::Vector(_) | Node::Aggregate(_) => ValueType::InstantVector,
            Node::Matrix { .. } | Node::Subquery(_) => ValueType::RangeVector,
            Node::Call(c) => c.func.returns,
            Node::Binary(b) => match (b.lhs.value_type(), b.rhs.value_type()) {
                (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
                _ => ValueType::InstantVector,
            },
            Node::Unary { expr, .. } | Node::Paren(expr) => expr.value_type(),
        }
    }
}
