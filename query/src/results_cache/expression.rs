//! Which expressions have values that depend on each step alone, and not on where the query begins and ends.
//!
//! Sums of floats depend on the order of what is added, to the last bit, and `topk` on it where values are
//! equal. Series of a selector have one order. Rows that were put together of several (by an aggregation, by
//! a match of two vectors, by names that are dropped) stand where the first of them came, which may be
//! another in a part of the time. So nothing that looks at the order may stand around them.

use model::labels::METRIC_NAME;
use model::matcher::MatchOp;

use crate::parse::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, DurationExpr, Expr, Node, Subquery, ValueType,
    VectorSelector,
};

/// Deeper expressions are not looked at.
const MAX_DEPTH: usize = 100;

/// In which order rows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// That of the series of one metric, or there is one row only.
    Series,
    /// The same of several metrics: without their names, rows may become one.
    Metrics,
    /// Any other.
    Other,
}

/// See the module.
pub fn is_alike_at_every_step(expr: &Expr) -> bool {
    order(expr, 0).is_some()
}

fn order(expr: &Expr, depth: usize) -> Option<Order> {
    if depth > MAX_DEPTH {
        return None;
    }
    let depth = depth + 1;
    match &expr.node {
        Node::Number(_) => Some(Order::Series),
        // The result of a range query is none, but an argument may be one.
        Node::Str(_) => Some(Order::Series),
        Node::Vector(s) => selector(s),
        Node::Matrix { selector: s, range, .. } => is_plain(range).then(|| selector(s)).flatten(),
        Node::Subquery(s) => subquery(s, depth),
        Node::Call(c) => call(c, depth),
        Node::Aggregate(a) => aggregate(a, depth),
        Node::Binary(b) => binary(b, depth),
        Node::Unary { expr, .. } => Some(nameless(order(expr, depth)?)),
        Node::Paren(inner) => order(inner, depth),
    }
}

/// A duration that is computed may ask for the query's range.
fn is_plain(duration: &DurationExpr) -> bool {
    matches!(duration, DurationExpr::Literal(_))
}

fn is_fixed(at: Option<At>) -> bool {
    matches!(at, None | Some(At::Time(_)))
}

fn selector(s: &VectorSelector) -> Option<Order> {
    if !is_fixed(s.at) || !is_plain(&s.offset) {
        return None;
    }
    let one_name = |m: &model::matcher::Matcher| {
        m.op == MatchOp::Equal && *m.name == *METRIC_NAME && !m.value.is_empty()
    };
    Some(if s.matchers.iter().any(one_name) { Order::Series } else { Order::Metrics })
}

fn subquery(s: &Subquery, depth: usize) -> Option<Order> {
    let plain = is_plain(&s.range) && is_plain(&s.offset) && s.step.as_ref().is_none_or(is_plain);
    if !plain || !is_fixed(s.at) {
        return None;
    }
    order(&s.expr, depth)
}

/// After names were dropped.
fn nameless(order: Order) -> Order {
    if order == Order::Series { Order::Series } else { Order::Other }
}

fn call(c: &Call, depth: usize) -> Option<Order> {
    let mut of_args = Vec::with_capacity(c.args.len());
    for arg in &c.args {
        of_args.push((arg.value_type(), order(arg, depth)?));
    }
    Some(match c.func.name {
        // They look at the query, or read what no selector says.
        "start" | "end" | "range" | "info" | "start_timestamp" => return None,
        "absent" | "absent_over_time" | "scalar" | "time" | "vector" | "pi" => Order::Series,
        "sort"
        | "sort_desc"
        | "sort_by_label"
        | "sort_by_label_desc"
        | "label_replace"
        | "label_join"
        | "histogram_quantile"
        | "histogram_quantiles"
        | "histogram_fraction" => Order::Other,
        _ => {
            let rows = of_args
                .iter()
                .filter(|(kind, _)| matches!(kind, ValueType::InstantVector | ValueType::RangeVector));
            rows.map(|(_, order)| nameless(*order)).max_by_key(|o| *o as u8).unwrap_or(Order::Series)
        }
    })
}

fn aggregate(a: &Aggregate, depth: usize) -> Option<Order> {
    use AggregateOp::*;
    if let Some(param) = &a.param {
        order(param, depth)?;
    }
    let of_rows = order(&a.expr, depth)?;
    let looks_at_order = matches!(a.op, Sum | Avg | Stddev | Stdvar | Topk | Bottomk | Limitk);
    if looks_at_order && of_rows == Order::Other {
        return None;
    }
    let one_row = a.grouping.is_empty()
        && !a.without
        && matches!(a.op, Sum | Avg | Count | Min | Max | Group | Stddev | Stdvar | Quantile);
    Some(if one_row { Order::Series } else { Order::Other })
}

fn binary(b: &Binary, depth: usize) -> Option<Order> {
    let (lhs, rhs) = (order(&b.lhs, depth)?, order(&b.rhs, depth)?);
    let scalar = |e: &Expr| e.value_type() == ValueType::Scalar;
    Some(match (scalar(&b.lhs), scalar(&b.rhs)) {
        (true, true) => Order::Series,
        (false, true) => nameless(lhs),
        (true, false) => nameless(rhs),
        (false, false) if matches!(b.op, BinaryOp::And | BinaryOp::Unless) => lhs,
        (false, false) => Order::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{ParseOptions, parse_expr};

    #[test]
    fn expression_is_alike_at_every_step_unless_it_looks_at_the_query_or_at_an_order_of_its_rows() {
        for (text, alike) in [
            ("up", true),
            ("up offset 5m", true),
            ("up offset -5m", true),
            ("up @ 1234", true),
            ("up @ end()", false),
            ("sum(rate(x_total[5m] @ start()))", false),
            ("max_over_time(up[1h:] @ end())", false),
            ("time() - timestamp(up)", true),
            ("rate(x_total[5m])", true),
            ("sum by (job) (rate(x_total[5m]))", true),
            ("sum(rate({job=\"a\"}[5m]))", false),
            ("sum({job=\"a\"})", true),
            ("count(rate({job=\"a\"}[5m]))", true),
            ("sum(sum by (job) (up))", false),
            ("max(sum by (job) (up))", true),
            ("topk(3, sum by (job) (up))", false),
            ("topk(3, up)", true),
            ("sum(up) / sum(x)", true),
            ("sum(up) + sum(sum(x))", true),
            ("sum(up / x)", false),
            ("sum(up and x)", true),
            ("sum(up or x)", false),
            ("sum(up > 0)", true),
            ("histogram_quantile(0.9, sum by (le) (rate(x_bucket[5m])))", true),
            ("sum(label_replace(up, \"a\", \"$1\", \"job\", \"(.*)\"))", false),
            ("info(up)", false),
            ("1", true),
        ] {
            let options = ParseOptions { experimental_functions: true, ..ParseOptions::default() };
            let expr = parse_expr(text, &options).expect(text);
            assert_eq!(is_alike_at_every_step(&expr), alike, "{text}");
        }
    }
}
