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
    /// What storage is told of the use.
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
        let at = nodes.len();
        let mut node = Node {
            kind: "",
            name: "",
            text: written.get(&expr.span).map_or_else(String::new, |e| printed(e)),
            span: expr.span,
            value_type: expr.kind,
            step_invariant: invariant,
            steps,
            reads: None,
            window: None,
            children: Vec::new(),
            done: None,
        };
        let mut under: Vec<(&PlanExpr, Steps)> = Vec::new();
        match &expr.node {
            PlanNode::Number(_) => (node.kind, node.step_invariant) = ("numberLiteral", true),
            PlanNode::Str(_) => (node.kind, node.step_invariant) = ("stringLiteral", true),
            PlanNode::Selector(s) => {
                node.kind = "vectorSelector";
                ids.push(s.id);
                let span = (steps.count > 0).then(|| instant_reach(s, steps, lookback_ms).span());
                node.reads = Some(reads(s, plan, steps, 0, span));
            }
            PlanNode::Matrix { selector: s, range_ms } => {
                node.kind = "matrixSelector";
                ids.push(s.id);
                let span = (steps.count > 0).then(|| matrix_reach(s, *range_ms, steps, lookback_ms).0.span());
                node.reads = Some(reads(s, plan, steps, *range_ms, span));
                let (offset_ms, at_ms) = (s.offset_ms, s.at_ms);
                node.window = Some(Window { range_ms: *range_ms, step_ms: None, offset_ms, at_ms });
            }
            PlanNode::Subquery(sub) => {
                node.kind = "subquery";
                ids.push(sub.id);
                node.window = Some(Window {
                    range_ms: sub.range_ms,
                    step_ms: Some(sub.step_ms),
                    offset_ms: sub.offset_ms,
                    at_ms: sub.at_ms,
                });
                let inner = match steps.count {
                    0 => Steps { step_ms: sub.step_ms.max(1), ..steps },
                    _ => subquery_steps(sub, steps, max_samples)?,
                };
                under.push((&sub.expr, inner));
            }
            PlanNode::Call(call) => {
                (node.kind, node.name) = ("call", call.func.name);
                under.extend(call.args.iter().map(|a| (a, steps)));
            }
            PlanNode::Aggregate(a) => {
                (node.kind, node.name) = ("aggregation", a.op.as_str());
                under.extend(a.param.iter().map(|p| (p, steps)));
                under.push((&a.expr, steps));
            }
            PlanNode::Binary(b) => {
                (node.kind, node.name) = ("binaryExpr", b.op.as_str());
                under.extend([(&b.lhs, steps), (&b.rhs, steps)]);
            }
            PlanNode::Negate(inner) => {
                (node.kind, node.name) = ("unaryExpr", "-");
                under.push((inner, steps));
            }
            PlanNode::StepInvariant(_) => {}
        }
        if let Some(parent) = parent {
            nodes[parent].children.push(at);
        }
        // What was done within an invariant part is invariant itself, though not wrapped.
        coming.extend(under.into_iter().rev().map(|(expr, steps)| Coming {
            expr,
            steps,
            parent: Some(at),
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
        let mut totals: Vec<_> = figures.iter().map(|f| (f.time, f.samples_read)).collect();
        // A node comes before those under it: from the back, each is complete before it is added to its
        // parent.
        for i in (0..nodes.len()).rev() {
            let (total_time, total_samples_read) = totals[i];
            nodes[i].done = Some(Done { own: figures[i], total_time, total_samples_read });
            if let Some(parent) = parents[i] {
                totals[parent].0 += total_time;
                totals[parent].1 += total_samples_read;
            }
        }
    }
    Ok(Tree { nodes })
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
