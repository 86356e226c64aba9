//! The syntax tree as JSON, for `parse_query` and the tree views of user interfaces (upstream
//! `web/api/v1/translate_ast.go`).
//!
//! Keys are in ascending order, as Go writes its maps.

use model::matcher::Matcher;

use crate::api::json;
use crate::parse::{
    Aggregate, At, Binary, Call, Cardinality, DurationExpr, DurationNode, DurationOp, Expr, Node, NumberLit,
    Subquery, VectorMatching, VectorSelector,
};

/// Appends an expression. Chains of binary operators are walked in a loop, all else is as deep as the parser
/// allows.
pub fn expr(out: &mut Vec<u8>, e: &Expr) {
    let (first, chain) = e.left_spine();
    for (b, _) in chain.iter().rev() {
        let head: &str = if b.return_bool { r#"{"bool":true,"lhs":"# } else { r#"{"bool":false,"lhs":"# };
        raw(out, head);
    }
    operand(out, first);
    for (b, _) in &chain {
        after_lhs(out, b);
    }
}

fn raw(out: &mut Vec<u8>, s: &str) {
    out.extend_from_slice(s.as_bytes());
}

/// `"key":"text"`
fn text(out: &mut Vec<u8>, key: &str, s: &str) {
    field(out, key);
    json::html_string(out, s);
}

fn field(out: &mut Vec<u8>, key: &str) {
    out.push(b'"');
    raw(out, key);
    raw(out, "\":");
}

fn boolean(out: &mut Vec<u8>, key: &str, b: bool) {
    field(out, key);
    raw(out, if b { "true" } else { "false" });
}

fn signed(out: &mut Vec<u8>, key: &str, n: i64) {
    field(out, key);
    raw(out, itoa::Buffer::new().format(n));
}

fn number(out: &mut Vec<u8>, n: &NumberLit) {
    raw(out, r#"{"type":"numberLiteral","val":""#);
    json::plain_number(out, n.value);
    raw(out, "\"}");
}

fn after_lhs(out: &mut Vec<u8>, b: &Binary) {
    raw(out, ",\"matching\":");
    match &b.matching {
        None => raw(out, "null"),
        Some(m) => matching(out, m),
    }
    out.push(b',');
    text(out, "op", b.op.as_str());
    raw(out, ",\"rhs\":");
    expr(out, &b.rhs);
    raw(out, r#","type":"binaryExpr"}"#);
}

fn matching(out: &mut Vec<u8>, m: &VectorMatching) {
    let card = match m.card {
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    };
    out.push(b'{');
    text(out, "card", card);
    raw(out, r#","fillValues":{"lhs":"#);
    fill(out, m.fill_left);
    raw(out, r#","rhs":"#);
    fill(out, m.fill_right);
    raw(out, r#"},"include":"#);
    json::strings(out, &m.include);
    raw(out, r#","labels":"#);
    json::strings(out, &m.labels);
    out.push(b',');
    boolean(out, "on", m.on);
    out.push(b'}');
}

/// A bare JSON number; what JSON has no number for becomes null.
fn fill(out: &mut Vec<u8>, v: Option<f64>) {
    match v {
        Some(v) if v.is_finite() => json::plain_number(out, v),
        _ => raw(out, "null"),
    }
}

fn operand(out: &mut Vec<u8>, e: &Expr) {
    match &e.node {
        Node::Number(n) => number(out, n),
        Node::Str(s) => {
            raw(out, r#"{"type":"stringLiteral","val":"#);
            json::html_string(out, &String::from_utf8_lossy(s));
            out.push(b'}');
        }
        Node::Vector(v) => {
            out.push(b'{');
            selector(out, v, None);
            raw(out, r#","type":"vectorSelector"}"#);
        }
        Node::Matrix { selector: v, range, .. } => {
            out.push(b'{');
            selector(out, v, Some(range));
            raw(out, r#","type":"matrixSelector"}"#);
        }
        Node::Subquery(s) => subquery(out, s),
        Node::Call(c) => call(out, c),
        Node::Aggregate(a) => aggregation(out, a),
        Node::Binary(_) => expr(out, e),
        Node::Unary { negative, expr: inner } => {
            raw(out, r#"{"expr":"#);
            expr(out, inner);
            raw(
                out,
                if *negative {
                    r#","op":"-","type":"unaryExpr"}"#
                } else {
                    r#","op":"+","type":"unaryExpr"}"#
                },
            );
        }
        Node::Paren(inner) => {
            raw(out, r#"{"expr":"#);
            expr(out, inner);
            raw(out, r#","type":"parenExpr"}"#);
        }
    }
}

fn subquery(out: &mut Vec<u8>, s: &Subquery) {
    raw(out, r#"{"expr":"#);
    expr(out, &s.expr);
    out.push(b',');
    duration(out, "offset", &s.offset);
    out.push(b',');
    duration(out, "range", &s.range);
    out.push(b',');
    start_or_end(out, s.at);
    out.push(b',');
    duration(out, "step", s.step.as_ref().unwrap_or(&DurationExpr::Literal(0)));
    out.push(b',');
    timestamp(out, s.at);
    raw(out, r#","type":"subquery"}"#);
}

fn call(out: &mut Vec<u8>, c: &Call) {
    raw(out, r#"{"args":["#);
    for (i, arg) in c.args.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        expr(out, arg);
    }
    raw(out, r#"],"func":{"argTypes":"#);
    json::strings(out, c.func.args.iter().map(|t| t.api_name()));
    out.push(b',');
    text(out, "name", c.func.name);
    out.push(b',');
    text(out, "returnType", c.func.returns.api_name());
    out.push(b',');
    signed(out, "variadic", c.func.variadic as i64);
    raw(out, r#"},"type":"call"}"#);
}

fn aggregation(out: &mut Vec<u8>, a: &Aggregate) {
    raw(out, r#"{"expr":"#);
    expr(out, &a.expr);
    raw(out, r#","grouping":"#);
    json::strings(out, &a.grouping);
    out.push(b',');
    text(out, "op", a.op.as_str());
    raw(out, r#","param":"#);
    match &a.param {
        None => raw(out, "null"),
        Some(p) => expr(out, p),
    }
    raw(out, r#","type":"aggregation","#);
    boolean(out, "without", a.without);
    out.push(b'}');
}

fn selector(out: &mut Vec<u8>, v: &VectorSelector, range: Option<&DurationExpr>) {
    boolean(out, "anchored", v.anchored);
    out.push(b',');
    matchers(out, &v.matchers);
    out.push(b',');
    text(out, "name", v.name.as_deref().unwrap_or(""));
    out.push(b',');
    duration(out, "offset", &v.offset);
    out.push(b',');
    if let Some(range) = range {
        duration(out, "range", range);
        out.push(b',');
    }
    boolean(out, "smoothed", v.smoothed);
    out.push(b',');
    start_or_end(out, v.at);
    out.push(b',');
    timestamp(out, v.at);
}

fn matchers(out: &mut Vec<u8>, matchers: &[Matcher]) {
    raw(out, "\"matchers\":[");
    for (i, m) in matchers.iter().enumerate() {
        out.extend_from_slice(if i > 0 { b",{" } else { b"{" });
        text(out, "name", &m.name);
        out.push(b',');
        text(out, "type", m.op.as_str());
        out.push(b',');
        text(out, "value", &m.value);
        out.push(b'}');
    }
    out.push(b']');
}

fn start_or_end(out: &mut Vec<u8>, at: Option<At>) {
    raw(
        out,
        match at {
            Some(At::Start) => r#""startOrEnd":"start""#,
            Some(At::End) => r#""startOrEnd":"end""#,
            _ => r#""startOrEnd":null"#,
        },
    );
}

fn timestamp(out: &mut Vec<u8>, at: Option<At>) {
    match at {
        Some(At::Time(ms)) => signed(out, "timestamp", ms),
        _ => raw(out, r#""timestamp":null"#),
    }
}

/// `"name":milliseconds,"nameExpr":…`
fn duration(out: &mut Vec<u8>, name: &str, d: &DurationExpr) {
    let (ms, node) = match d {
        DurationExpr::Literal(ms) => (*ms, None),
        DurationExpr::Computed(node) => (0, Some(node)),
    };
    signed(out, name, ms);
    raw(out, ",\"");
    raw(out, name);
    raw(out, "Expr\":");
    match node {
        None => raw(out, "null"),
        Some(node) => duration_node(out, node),
    }
}

fn duration_node(out: &mut Vec<u8>, node: &DurationNode) {
    use DurationOp::*;
    let (op, lhs, rhs): (&str, Option<&DurationNode>, Option<&DurationNode>) = match &node.op {
        Number(n) => {
            raw(out, "{");
            boolean(out, "duration", n.is_duration);
            raw(out, r#","type":"numberLiteral","val":""#);
            json::plain_number(out, n.value);
            return raw(out, "\"}");
        }
        Neg(x) => ("-", None, Some(x)),
        Add(a, b) => ("+", Some(a), Some(b)),
        Sub(a, b) => ("-", Some(a), Some(b)),
        Mul(a, b) => ("*", Some(a), Some(b)),
        Div(a, b) => ("/", Some(a), Some(b)),
        Mod(a, b) => ("%", Some(a), Some(b)),
        Pow(a, b) => ("^", Some(a), Some(b)),
        Step => ("step", None, None),
        Range => ("range", None, None),
        Min(a, b) => ("min_of", Some(a), Some(b)),
        Max(a, b) => ("max_of", Some(a), Some(b)),
    };
    for (head, side) in [("{\"lhs\":", lhs), (",\"rhs\":", rhs)] {
        // The keys come out as lhs, op, rhs.
        if head.starts_with(',') {
            out.push(b',');
            text(out, "op", op);
        }
        raw(out, head);
        match side {
            None => raw(out, "null"),
            Some(side) => duration_node(out, side),
        }
    }
    raw(out, r#","type":"durationExpr","#);
    boolean(out, "wrapped", node.wrapped);
    out.push(b'}');
}
