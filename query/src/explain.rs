//! The plan of a query as a tree to look at: what each node is, what it reads, and what it did where that was
//! measured.

use std::fmt::Write;

use hashbrown::HashMap;

use crate::eval::operators::range::{matrix_reach, subquery_steps};
use crate::eval::operators::selector::{hints, instant_reach};
use crate::eval::stats::trace::{Figures, Trace};
use crate::parse::{self, Expr, Span, ValueType};
use crate::plan::{NodeId, Plan, PlanExpr, PlanNode, Selector, Steps};
use crate::value::{QueryError, QueryResult};

/// A query explained.
#[derive(Clone, Debug)]
pub struct Explained {
    pub tree: Tree,
    pub lookback_ms: i64,
    /// The evaluation that was watched.
    pub ran: Option<QueryResult>,
}

/// Nodes, each before those under it; the first is the root. Chains of operators are as deep as they are
/// long, so it is walked in loops.
#[derive(Clone, Debug)]
pub struct Tree {
    pub nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
pub struct Node {
    /// As `parse_query` names its types: `call`, `aggregation`, `vectorSelector`, …
    pub kind: &'static str,
    /// Of the function, aggregation or operator; else empty.
    pub name: &'static str,
    /// The expression as the printer writes it, cut where it is long.
    pub text: String,
    pub span: Span,
    pub value_type: ValueType,
    /// It has one value for all steps and is evaluated once.
    pub step_invariant: bool,
    /// When it is evaluated.
    pub steps: Steps,
    pub reads: Option<Reads>,
    pub window: Option<Window>,
    /// Places in [`Tree::nodes`], in the order of the text.
    pub children: Vec<usize>,
    pub done: Option<Done>,
}

/// What a selector reads.
#[derive(Clone, Debug)]
pub struct Reads {
    pub matchers: Vec<String>,
    pub offset_ms: i64,
    pub at_ms: Option<i64>,
    /// First and last millisecond asked of storage, both included; `None` where there is no step to read for.
    pub span_ms: Option<(i64, i64)>,
    /// Selectors with one number read the same; what is `shared` is read once and kept.
    pub selection: usize,
    pub shared: bool,
    /// Only counts and sums of histograms are kept.
    pub counts_only: bool,
    pub anchored: bool,
    pub smoothed: bool,
    /// The function or aggregation right around, empty where there is none.
    pub func: &'static str,
    /// What storage hears of the use.
    pub hints: model::source::Hints,
}

/// The window of a matrix selector or subquery.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub range_ms: i64,
    /// Of a subquery.
    pub step_ms: Option<i64>,
    pub offset_ms: i64,
    pub at_ms: Option<i64>,
}

/// What a node did.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Without the nodes under it.
    pub own: Figures,
    /// With them.
    pub total_time: std::time::Duration,
    pub total_samples_read: u64,
}

/// A node on its way into the tree.
struct Coming<'p> {
    expr: &'p PlanExpr,
    steps: Steps,
    parent: Option<usize>,
    /// Under which ids its work was noted.
    ids: Vec<NodeId>,
    invariant: bool,
}

/// The tree of a plan that was built from `expr`. `trace` is of an evaluation of this very plan.
pub fn tree(
    expr: &Expr,
    plan: &Plan,
    steps: Steps,
    lookback_ms: i64,
    max_samples: u64,
    trace: Option<&Trace>,
) -> Result<Tree, QueryError> {
    let written = by_span(expr);
    let mut nodes: Vec<Node> = Vec::new();
    let mut figures: Vec<Figures> = Vec::new();
    let mut parents: Vec<Option<usize>> = Vec::new();
    let mut coming =
        vec![Coming { expr: &plan.root, steps, parent: None, ids: Vec::new(), invariant: false }];
    while let Some(Coming { expr, steps, parent, mut ids, invariant }) = coming.pop() {
        ids.push(expr.id);
        if let PlanNode::StepInvariant(inner) = &expr.node {
            let steps = Steps { count: steps.count.min(1), ..steps };
            coming.push(Coming { expr: inner, steps, parent, ids, invariant: true });
            continue;
        }
        let number = nodes.len();
        let text = written.get(&expr.span).map_or_else(String::new, |e| printed(e));
        let mut node = Node::new(expr, text, steps, invariant);
        ids.extend(node.look(expr, plan, lookback_ms));
        if let Some(parent) = parent {
            nodes[parent].children.push(number);
        }
        // What was done within an invariant part is invariant itself, though not wrapped.
        coming.extend(operands(expr, steps, max_samples)?.into_iter().rev().map(|(expr, steps)| Coming {
            expr,
            steps,
            parent: Some(number),
            ids: Vec::new(),
            invariant,
        }));
        let done =
            |trace: &Trace| ids.iter().map(|i| trace.figures(*i)).reduce(Figures::and).unwrap_or_default();
        figures.push(trace.map(done).unwrap_or_default());
        parents.push(parent);
        nodes.push(node);
    }
    if trace.is_some() {
        add_up(&mut nodes, &figures, &parents);
    }
    Ok(Tree { nodes })
}

impl Node {
    /// A node of which it is not known yet what kind it is.
    fn new(expr: &PlanExpr, text: String, steps: Steps, step_invariant: bool) -> Node {
        Node {
            kind: "",
            name: "",
            text,
            span: expr.span,
            value_type: expr.kind,
            step_invariant,
            steps,
            reads: None,
            window: None,
            children: Vec::new(),
            done: None,
        }
    }

    /// Fills in what a planned expression is and reads; the id of the selector or subquery in it.
    fn look(&mut self, expr: &PlanExpr, plan: &Plan, lookback_ms: i64) -> Option<NodeId> {
        let steps = self.steps;
        match &expr.node {
            PlanNode::Number(_) => (self.kind, self.step_invariant) = ("numberLiteral", true),
            PlanNode::Str(_) => (self.kind, self.step_invariant) = ("stringLiteral", true),
            PlanNode::Selector(s) => {
                self.kind = "vectorSelector";
                let span = (steps.count > 0).then(|| instant_reach(s, steps, lookback_ms).span());
                self.reads = Some(reads(s, plan, steps, 0, span));
                return Some(s.id);
            }
            PlanNode::Matrix { selector: s, range_ms } => {
                self.kind = "matrixSelector";
                let span = (steps.count > 0).then(|| matrix_reach(s, *range_ms, steps, lookback_ms).0.span());
                self.reads = Some(reads(s, plan, steps, *range_ms, span));
                let (offset_ms, at_ms) = (s.offset_ms, s.at_ms);
                self.window = Some(Window { range_ms: *range_ms, step_ms: None, offset_ms, at_ms });
                return Some(s.id);
            }
            PlanNode::Subquery(sub) => {
                self.kind = "subquery";
                self.window = Some(Window {
                    range_ms: sub.range_ms,
                    step_ms: Some(sub.step_ms),
                    offset_ms: sub.offset_ms,
                    at_ms: sub.at_ms,
                });
                return Some(sub.id);
            }
            PlanNode::Call(call) => (self.kind, self.name) = ("call", call.func.name),
            PlanNode::Aggregate(a) => (self.kind, self.name) = ("aggregation", a.op.as_str()),
            PlanNode::Binary(b) => (self.kind, self.name) = ("binaryExpr", b.op.as_str()),
            PlanNode::Negate(_) => (self.kind, self.name) = ("unaryExpr", "-"),
            PlanNode::StepInvariant(_) => {}
        }
        None
    }
}

/// What stands right under an expression, in the order of the text, each with the steps it is evaluated at.
fn operands(expr: &PlanExpr, steps: Steps, max_samples: u64) -> Result<Vec<(&PlanExpr, Steps)>, QueryError> {
    Ok(match &expr.node {
        PlanNode::Subquery(sub) => {
            let inner = match steps.count {
                0 => Steps { step_ms: sub.step_ms.max(1), ..steps },
                _ => subquery_steps(sub, steps, max_samples)?,
            };
            vec![(&sub.expr, inner)]
        }
        PlanNode::Call(call) => call.args.iter().map(|arg| (arg, steps)).collect(),
        PlanNode::Aggregate(a) => a.param.iter().chain([&a.expr]).map(|e| (e, steps)).collect(),
        PlanNode::Binary(b) => vec![(&b.lhs, steps), (&b.rhs, steps)],
        PlanNode::Negate(inner) | PlanNode::StepInvariant(inner) => vec![(inner, steps)],
        PlanNode::Number(_) | PlanNode::Str(_) | PlanNode::Selector(_) | PlanNode::Matrix { .. } => {
            Vec::new()
        }
    })
}

/// Writes down what each node did, alone and with those under it.
fn add_up(nodes: &mut [Node], figures: &[Figures], parents: &[Option<usize>]) {
    let mut totals: Vec<_> = figures.iter().map(|f| (f.time, f.samples_read)).collect();
    // A node comes before those under it: from the back, each is complete before it is added to its parent.
    for i in (0..nodes.len()).rev() {
        let (total_time, total_samples_read) = totals[i];
        nodes[i].done = Some(Done { own: figures[i], total_time, total_samples_read });
        if let Some(parent) = parents[i] {
            totals[parent].0 += total_time;
            totals[parent].1 += total_samples_read;
        }
    }
}

fn reads(s: &Selector, plan: &Plan, steps: Steps, range_ms: i64, span_ms: Option<(i64, i64)>) -> Reads {
    Reads {
        matchers: s.matchers.iter().map(ToString::to_string).collect(),
        offset_ms: s.offset_ms,
        at_ms: s.at_ms,
        span_ms,
        selection: s.selection,
        shared: plan.selection_uses.get(s.selection).is_some_and(|n| *n > 1),
        counts_only: s.counts_only,
        anchored: s.anchored,
        smoothed: s.smoothed,
        func: s.func,
        hints: hints(s, steps, range_ms),
    }
}

/// The written expressions by their places; parentheses have no node in a plan.
fn by_span(root: &Expr) -> HashMap<Span, &Expr> {
    let mut all = HashMap::new();
    let mut coming = vec![root];
    while let Some(e) = coming.pop() {
        use parse::Node::*;
        if !matches!(e.node, Paren(_)) {
            all.insert(e.span, e);
        }
        match &e.node {
            Number(_) | Str(_) | Vector(_) | Matrix { .. } => {}
            Subquery(s) => coming.push(&s.expr),
            Call(c) => coming.extend(&c.args),
            Aggregate(a) => {
                coming.push(&a.expr);
                coming.extend(&a.param);
            }
            Unary { expr, .. } | Paren(expr) => coming.push(expr),
            Binary(b) => coming.extend([&b.lhs, &b.rhs]),
        }
    }
    all
}

/// Longest text of a node. Every prefix of a chain is a node, so uncut they would be quadratic in the query.
const MAX_TEXT_BYTES: usize = 1_000;

/// An expression as the printer writes it, its end left out where it is long.
fn printed(e: &Expr) -> String {
    struct Cut(String);
    impl Write for Cut {
        fn write_str(&mut self, s: &str) -> std::fmt::Result {
            let room = MAX_TEXT_BYTES.saturating_sub(self.0.len());
            if s.len() <= room {
                self.0.push_str(s);
                return Ok(());
            }
            let end = (0..=room).rev().find(|i| s.is_char_boundary(*i)).unwrap_or(0);
            self.0.push_str(&s[..end]);
            Err(std::fmt::Error)
        }
    }
    let mut out = Cut(String::new());
    if write!(out, "{e}").is_err() {
        out.0.push('…');
    }
    out.0
}
