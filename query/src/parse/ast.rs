//! The syntax tree of PromQL: what was written, where it stands, and nothing about how it runs.

use std::fmt;
use std::sync::Arc;

use model::matcher::Matcher;

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
///
/// Chains of binary operators lean to the left and may be as long as the text allows: clone, drop, print and
/// [`Expr::value_type`] need no stack for them, and [`Expr::left_spine`] lets others walk them in a loop. All
/// other nesting is at most [`ParseOptions::max_depth`](super::ParseOptions) deep.
#[derive(Clone)]
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
    /// `selector[range]`. The inner expression is always a `Vector`; `offset`, `@`, `anchored` and `smoothed`
    /// are kept there.
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

/// A duration as written: a plain number of milliseconds, or an expression over durations (`[step() * 2]`,
/// behind a feature flag).
#[derive(Clone, Debug)]
pub enum DurationExpr {
    /// Milliseconds, rounded towards zero; negative only in offsets. A step or range written as less than one
    /// millisecond is 0.
    Literal(i64),
    /// Evaluated once per query, when step and range are known.
    Computed(Box<DurationNode>),
}

#[derive(Clone, Debug)]
pub struct DurationNode {
    pub op: DurationOp,
    /// Without the parentheses, save around a lone number.
    pub span: Span,
    /// Wrapped in parentheses in the text.
    pub wrapped: bool,
}

#[derive(Clone, Debug)]
pub enum DurationOp {
    /// Seconds.
    Number(NumberLit),
    Neg(Box<DurationNode>),
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
    /// `min_of(a, b)`
    Min(Box<DurationNode>, Box<DurationNode>),
    /// `max_of(a, b)`
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
    /// 0: exactly `args`. n > 0: up to n of the last may be left out or added as upstream's `Variadic`. -1:
    /// any number of the last, none included.
    pub variadic: i32,
    pub returns: ValueType,
    /// Refused unless experimental functions are enabled.
    pub experimental: bool,
    pub kind: FunctionKind,
}

/// What a function is a function of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FunctionKind {
    /// Of each row of its one instant vector by itself.
    PerRow,
    /// Of each window of its one range vector; gives a row for each series.
    PerWindow,
    /// Of whole vectors, of scalars, or of nothing.
    Whole,
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

#[derive(Clone, Debug, PartialEq)]
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

#[derive(Debug)]
pub struct Binary {
    pub op: BinaryOp,
    pub lhs: Expr,
    pub rhs: Expr,
    /// Set when both sides are instant vectors.
    pub matching: Option<VectorMatching>,
    pub return_bool: bool,
    /// `Scalar` when both sides are scalars, else `InstantVector`: kept, since asking a long chain each time
    /// would be quadratic.
    pub returns: ValueType,
}

impl Clone for Binary {
    fn clone(&self) -> Self {
        let with = |b: &Binary, lhs: Expr| Binary {
            op: b.op,
            lhs,
            rhs: b.rhs.clone(),
            matching: b.matching.clone(),
            return_bool: b.return_bool,
            returns: b.returns,
        };
        let (leftmost, chain) = self.lhs.left_spine();
        let lhs = chain.into_iter().fold(leftmost.clone(), |lhs, (b, span)| Expr {
            node: Node::Binary(Box::new(with(b, lhs))),
            span,
        });
        with(self, lhs)
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        if !matches!(self.lhs.node, Node::Binary(_)) {
            return;
        }
        let mut next = std::mem::replace(&mut self.lhs, Expr::number(0.0));
        while let Node::Binary(b) = &mut next.node {
            next = std::mem::replace(&mut b.lhs, Expr::number(0.0));
        }
    }
}

impl Expr {
    /// A number that stands nowhere in a text.
    pub fn number(value: f64) -> Expr {
        Expr { node: Node::Number(NumberLit { value, is_duration: false }), span: Span::default() }
    }

    pub fn value_type(&self) -> ValueType {
        match &self.node {
            Node::Number(_) => ValueType::Scalar,
            Node::Str(_) => ValueType::String,
            Node::Vector(_) | Node::Aggregate(_) => ValueType::InstantVector,
            Node::Matrix { .. } | Node::Subquery(_) => ValueType::RangeVector,
            Node::Call(c) => c.func.returns,
            Node::Binary(b) => b.returns,
            Node::Unary { expr, .. } | Node::Paren(expr) => expr.value_type(),
        }
    }

    /// The chain of binary operators that an expression is: its leftmost operand, and the operators above it
    /// from the innermost to the expression itself, each with its span. Empty where the expression is no
    /// binary operation.
    pub fn left_spine(&self) -> (&Expr, Vec<(&Binary, Span)>) {
        let (mut at, mut chain) = (self, Vec::new());
        while let Node::Binary(b) = &at.node {
            chain.push((&**b, at.span));
            at = &b.lhs;
        }
        chain.reverse();
        (at, chain)
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}` at {}..{}", self.span.start, self.span.end)
    }
}

impl ValueType {
    /// As the documentation and error texts call it.
    pub fn as_str(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::String => "string",
            ValueType::InstantVector => "instant vector",
            ValueType::RangeVector => "range vector",
        }
    }

    /// As the HTTP API calls it: `scalar`, `string`, `vector`, `matrix`.
    pub fn api_name(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::String => "string",
            ValueType::InstantVector => "vector",
            ValueType::RangeVector => "matrix",
        }
    }
}

impl AggregateOp {
    pub fn as_str(self) -> &'static str {
        match self {
            AggregateOp::Sum => "sum",
            AggregateOp::Avg => "avg",
            AggregateOp::Count => "count",
            AggregateOp::Min => "min",
            AggregateOp::Max => "max",
            AggregateOp::Group => "group",
            AggregateOp::Stddev => "stddev",
            AggregateOp::Stdvar => "stdvar",
            AggregateOp::Topk => "topk",
            AggregateOp::Bottomk => "bottomk",
            AggregateOp::CountValues => "count_values",
            AggregateOp::Quantile => "quantile",
            AggregateOp::Limitk => "limitk",
            AggregateOp::LimitRatio => "limit_ratio",
        }
    }

    /// Whether it takes a parameter before the vector.
    pub fn has_param(self) -> bool {
        use AggregateOp::*;
        matches!(self, Topk | Bottomk | CountValues | Quantile | Limitk | LimitRatio)
    }

    /// Refused unless experimental functions are enabled.
    pub fn is_experimental(self) -> bool {
        matches!(self, AggregateOp::Limitk | AggregateOp::LimitRatio)
    }
}

impl BinaryOp {
    pub fn as_str(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "^",
            BinaryOp::Atan2 => "atan2",
            BinaryOp::Eql => "==",
            BinaryOp::Neq => "!=",
            BinaryOp::Gtr => ">",
            BinaryOp::Lss => "<",
            BinaryOp::Gte => ">=",
            BinaryOp::Lte => "<=",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Unless => "unless",
            BinaryOp::TrimUpper => "</",
            BinaryOp::TrimLower => ">/",
        }
    }

    /// `==`, `!=`, `<`, `>`, `<=`, `>=`. The trim operators are none.
    pub fn is_comparison(self) -> bool {
        use BinaryOp::*;
        matches!(self, Eql | Neq | Gtr | Lss | Gte | Lte)
    }

    /// `and`, `or`, `unless`.
    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }

    /// How tightly it binds: 1 for `or` to 6 for `^`, which alone groups to the right.
    pub fn precedence(self) -> u8 {
        use BinaryOp::*;
        match self {
            Or => 1,
            And | Unless => 2,
            Eql | Neq | Gtr | Lss | Gte | Lte | TrimUpper | TrimLower => 3,
            Add | Sub => 4,
            Mul | Div | Mod | Atan2 => 5,
            Pow => 6,
        }
    }
}
