//! The printer: a tree back to the one canonical text that Prometheus prints, and a version in lines for
//! people.

use std::fmt::{self, Write};

use model::quote::{is_legacy_label_name, quote};

use super::ast::*;
use super::number::{write_duration, write_float, write_float_g};

/// Lines longer than this are split.
const MAX_LINE: usize = 100;

/// Indentation grows with every level, so a long chain printed in lines is quadratic; past this, one line has
/// to do.
const MAX_PRETTY_BYTES: usize = 4 << 20;

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_expr(f, self)
    }
}

fn write_expr(out: &mut dyn Write, expr: &Expr) -> fmt::Result {
    match &expr.node {
        Node::Number(n) => write_number(out, n),
        Node::Str(bytes) => out.write_str(&quote(bytes)),
        Node::Vector(v) => {
            write_selector(out, v)?;
            write_at(out, v.at)?;
            write_extended(out, v)?;
            write_offset(out, &v.offset)
        }
        Node::Matrix { selector, range, .. } => {
            write_selector(out, selector)?;
            write!(out, "[{range}]")?;
            write_extended(out, selector)?;
            write_at(out, selector.at)?;
            write_offset(out, &selector.offset)
        }
        Node::Subquery(s) => {
            write_expr(out, &s.expr)?;
            write_subquery_suffix(out, s)
        }
        Node::Call(call) => {
            write!(out, "{}(", call.func.name)?;
            for (at, arg) in call.args.iter().enumerate() {
                if at > 0 {
                    out.write_str(", ")?;
                }
                write_expr(out, arg)?;
            }
            out.write_char(')')
        }
        Node::Aggregate(a) => {
            write_aggregate_head(out, a)?;
            out.write_char('(')?;
            if let Some(param) = &a.param {
                write_expr(out, param)?;
                out.write_str(", ")?;
            }
            write_expr(out, &a.expr)?;
            out.write_char(')')
        }
        Node::Binary(_) => {
            let (leftmost, chain) = expr.left_spine();
            write_expr(out, leftmost)?;
            for (b, _) in chain {
                out.write_char(' ')?;
                write_operator(out, b)?;
                out.write_char(' ')?;
                write_expr(out, &b.rhs)?;
            }
            Ok(())
        }
        Node::Unary { negative, expr } => {
            out.write_char(if *negative { '-' } else { '+' })?;
            write_expr(out, expr)
        }
        Node::Paren(inner) => {
            out.write_char('(')?;
            write_expr(out, inner)?;
            out.write_char(')')
        }
    }
}

fn write_number(mut out: &mut dyn Write, n: &NumberLit) -> fmt::Result {
    if n.is_duration {
        return write_duration(&mut out, (n.value * 1e9) as i64 / 1_000_000);
    }
    write_float(&mut out, n.value)
}

fn write_selector(out: &mut dyn Write, v: &VectorSelector) -> fmt::Result {
    let name = v.name.as_deref().unwrap_or_default();
    out.write_str(name)?;
    let is_name = |m: &&model::matcher::Matcher| {
        &*m.name == "__name__"
            && m.op == model::matcher::MatchOp::Equal
            && *m.value == *name
            && !name.is_empty()
    };
    let mut shown: Vec<String> = v.matchers.iter().filter(|m| !is_name(m)).map(|m| m.to_string()).collect();
    if shown.is_empty() {
        return Ok(());
    }
    shown.sort_unstable();
    write!(out, "{{{}}}", shown.join(","))
}

fn write_at(out: &mut dyn Write, at: Option<At>) -> fmt::Result {
    match at {
        None => Ok(()),
        Some(At::Time(ms)) => write!(out, " @ {:.3}", ms as f64 / 1000.0),
        Some(At::Start) => out.write_str(" @ start()"),
        Some(At::End) => out.write_str(" @ end()"),
    }
}

fn write_extended(out: &mut dyn Write, v: &VectorSelector) -> fmt::Result {
    if v.anchored {
        out.write_str(" anchored")
    } else if v.smoothed {
        out.write_str(" smoothed")
    } else {
        Ok(())
    }
}

fn write_offset(out: &mut dyn Write, offset: &DurationExpr) -> fmt::Result {
    match offset {
        DurationExpr::Literal(0) => Ok(()),
        other => write!(out, " offset {other}"),
    }
}

fn write_subquery_suffix(out: &mut dyn Write, s: &Subquery) -> fmt::Result {
    write!(out, "[{}:", s.range)?;
    if let Some(step) = &s.step {
        write!(out, "{step}")?;
    }
    out.write_char(']')?;
    write_at(out, s.at)?;
    write_offset(out, &s.offset)
}

impl fmt::Display for DurationExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DurationExpr::Literal(ms) => write_duration(f, *ms),
            DurationExpr::Computed(node) => node.fmt(f),
        }
    }
}

impl fmt::Display for DurationNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wrapped {
            f.write_char('(')?;
        }
        match &self.op {
            DurationOp::Number(n) => write_number(f, n)?,
            DurationOp::Neg(a) => write!(f, "-{a}")?,
            DurationOp::Add(a, b) => write!(f, "{a} + {b}")?,
            DurationOp::Sub(a, b) => write!(f, "{a} - {b}")?,
            DurationOp::Mul(a, b) => write!(f, "{a} * {b}")?,
            DurationOp::Div(a, b) => write!(f, "{a} / {b}")?,
            DurationOp::Mod(a, b) => write!(f, "{a} % {b}")?,
            DurationOp::Pow(a, b) => write!(f, "{a} ^ {b}")?,
            DurationOp::Step => f.write_str("step()")?,
            DurationOp::Range => f.write_str("range()")?,
            DurationOp::Min(a, b) => write!(f, "min_of({a}, {b})")?,
            DurationOp::Max(a, b) => write!(f, "max_of({a}, {b})")?,
        }
        if self.wrapped {
            f.write_char(')')?;
        }
        Ok(())
    }
}

fn write_labels(out: &mut dyn Write, labels: &[std::sync::Arc<str>]) -> fmt::Result {
    for (at, label) in labels.iter().enumerate() {
        if at > 0 {
            out.write_str(", ")?;
        }
        if is_legacy_label_name(label) {
            out.write_str(label)?;
        } else {
            out.write_str(&quote(&**label))?;
        }
    }
    Ok(())
}

fn write_aggregate_head(out: &mut dyn Write, a: &Aggregate) -> fmt::Result {
    out.write_str(a.op.as_str())?;
    if !a.without && a.grouping.is_empty() {
        return Ok(());
    }
    out.write_str(if a.without { " without (" } else { " by (" })?;
    write_labels(out, &a.grouping)?;
    out.write_str(") ")
}

/// The operator with all its modifiers: `== bool on (a) group_left (b) fill (0)`.
fn write_operator(mut out: &mut dyn Write, b: &Binary) -> fmt::Result {
    out.write_str(b.op.as_str())?;
    if b.return_bool {
        out.write_str(" bool")?;
    }
    let Some(m) = &b.matching else {
        return Ok(());
    };
    let group = match m.card {
        Cardinality::ManyToOne => Some(" group_left ("),
        Cardinality::OneToMany => Some(" group_right ("),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if !m.labels.is_empty() || m.on || group.is_some() {
        out.write_str(if m.on { " on (" } else { " ignoring (" })?;
        write_labels(out, &m.labels)?;
        out.write_char(')')?;
    }
    if let Some(group) = group {
        out.write_str(group)?;
        write_labels(out, &m.include)?;
        out.write_char(')')?;
    }
    let mut fill = |name: &str, value: f64| {
        write!(out, " {name} (")?;
        write_float_g(&mut out, value)?;
        out.write_char(')')
    };
    match (m.fill_left, m.fill_right) {
        (Some(l), Some(r)) if l == r => fill("fill", l),
        (l, r) => {
            if let Some(l) = l {
                fill("fill_left", l)?;
            }
            if let Some(r) = r {
                fill("fill_right", r)?;
            }
            Ok(())
        }
    }
}

/// Counts bytes instead of keeping them.
struct Counter(usize);

impl Write for Counter {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0 += s.len();
        Ok(())
    }
}

fn length(write: impl FnOnce(&mut Counter) -> fmt::Result) -> usize {
    let mut counter = Counter(0);
    let _ = write(&mut counter);
    counter.0
}

/// An output that refuses to grow without bound.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if self.0.len() + s.len() > MAX_PRETTY_BYTES {
            return Err(fmt::Error);
        }
        self.0.push_str(s);
        Ok(())
    }
}

/// The tree in lines of about a hundred characters, as Prometheus' `format_query` gives it. What would take
/// megabytes comes back in one line.
pub fn prettify(expr: &Expr) -> String {
    let mut out = Bounded(String::new());
    match pretty(&mut out, expr, 0, true) {
        Ok(()) => out.0,
        Err(fmt::Error) => expr.to_string(),
    }
}

fn indent(out: &mut Bounded, level: usize) -> fmt::Result {
    for _ in 0..level {
        out.write_str("  ")?;
    }
    Ok(())
}

/// `indented` is off where the caller has put something before the node on its line.
fn pretty(out: &mut Bounded, expr: &Expr, level: usize, indented: bool) -> fmt::Result {
    let lead = |out: &mut Bounded| if indented { indent(out, level) } else { Ok(()) };
    if let Node::Unary { negative, expr } = &expr.node {
        lead(out)?;
        out.write_char(if *negative { '-' } else { '+' })?;
        return pretty(out, expr, level, false);
    }
    let fits = length(|c| write_expr(c, expr)) <= MAX_LINE;
    match &expr.node {
        // A subquery that fits is put where it stands, without indentation.
        Node::Subquery(_) if fits => write_expr(out, expr),
        Node::Subquery(s) => {
            pretty(out, &s.expr, level, indented)?;
            write_subquery_suffix(out, s)
        }
        Node::Number(_) | Node::Str(_) | Node::Vector(_) | Node::Matrix { .. } => {
            lead(out)?;
            write_expr(out, expr)
        }
        _ if fits => {
            lead(out)?;
            write_expr(out, expr)
        }
        Node::Aggregate(a) => {
            lead(out)?;
            write_aggregate_head(out, a)?;
            out.write_str("(\n")?;
            if let Some(param) = &a.param {
                pretty(out, param, level + 1, true)?;
                out.write_str(",\n")?;
            }
            pretty(out, &a.expr, level + 1, true)?;
            close(out, level)
        }
        Node::Call(call) => {
            lead(out)?;
            writeln!(out, "{}(", call.func.name)?;
            for (at, arg) in call.args.iter().enumerate() {
                if at > 0 {
                    out.write_str(",\n")?;
                }
                pretty(out, arg, level + 1, true)?;
            }
            close(out, level)
        }
        Node::Paren(inner) => {
            lead(out)?;
            out.write_str("(\n")?;
            pretty(out, inner, level + 1, true)?;
            close(out, level)
        }
        Node::Binary(_) => pretty_chain(out, expr, level, indented),
        Node::Unary { .. } => Ok(()),
    }
}

fn close(out: &mut Bounded, level: usize) -> fmt::Result {
    out.write_char('\n')?;
    indent(out, level)?;
    out.write_char(')')
}

/// A chain of operators too long for a line. Each operator's left side is one level deeper than the operator,
/// so the innermost part that fits on a line comes first and deepest, and the rest follows outwards.
fn pretty_chain(out: &mut Bounded, expr: &Expr, level: usize, indented: bool) -> fmt::Result {
    let (leftmost, chain) = expr.left_spine();
    let mut so_far = length(|c| write_expr(c, leftmost));
    let mut inner = leftmost;
    let mut fitting = 0;
    for (at, (b, _)) in chain.iter().enumerate() {
        so_far += 2 + length(|c| write_operator(c, b)) + length(|c| write_expr(c, &b.rhs));
        if so_far > MAX_LINE {
            break;
        }
        fitting = at + 1;
        inner = chain.get(at + 1).map_or(expr, |(above, _)| &above.lhs);
    }
    let split = &chain[fitting..];
    pretty(out, inner, level + split.len(), indented)?;
    for (at, (b, _)) in split.iter().enumerate() {
        let level = level + split.len() - 1 - at;
        out.write_char('\n')?;
        indent(out, level)?;
        write_operator(out, b)?;
        out.write_char('\n')?;
        pretty(out, &b.rhs, level + 1, true)?;
    }
    Ok(())
}
