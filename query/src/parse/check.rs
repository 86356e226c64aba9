//! The type check: what may stand where, once the text has parsed.
//!
//! It visits nodes in the order of upstream's `checkAST`, so that of several mistakes the same one is
//! reported.

use std::collections::HashSet;
use std::sync::Arc;

use model::quote::quote;

use super::ParseError;
use super::ast::*;
use super::grammar::error_at;

pub(super) struct Checker<'a> {
    pub(super) text: &'a str,
}

type Checked = Result<(), ParseError>;

impl Checker<'_> {
    fn fail<T>(&self, span: Span, message: impl Into<String>) -> Result<T, ParseError> {
        Err(error_at(self.text, span, message))
    }

    fn expect(&self, expr: &mut Expr, want: ValueType, context: &str) -> Checked {
        self.check(expr)?;
        let got = expr.value_type();
        if got == want {
            return Ok(());
        }
        self.fail(expr.span, format!("expected type {} in {context}, got {}", want.as_str(), got.as_str()))
    }

    /// Checks a tree and settles the matching of its binary operators.
    pub(super) fn check(&self, expr: &mut Expr) -> Checked {
        let span = expr.span;
        match &mut expr.node {
            Node::Number(_) | Node::Str(_) => Ok(()),
            Node::Vector(selector) => self.selector(selector, span, false),
            Node::Matrix { selector, selector_span, .. } => self.selector(selector, *selector_span, false),
            Node::Subquery(s) => {
                self.check(&mut s.expr)?;
                match s.expr.value_type() {
                    ValueType::InstantVector => Ok(()),
                    other => self.fail(
                        span,
                        format!(
                            "subquery is only allowed on instant vector, got {} instead",
                            other.api_name()
                        ),
                    ),
                }
            }
            Node::Paren(inner) => self.check(inner),
            Node::Unary { expr: inner, .. } => {
                self.check(inner)?;
                match inner.value_type() {
                    ValueType::Scalar | ValueType::InstantVector => Ok(()),
                    other => self.fail(
                        span,
                        format!(
                            "unary expression only allowed on expressions of type scalar or instant vector, got \"{}\"",
                            other.as_str()
                        ),
                    ),
                }
            }
            Node::Aggregate(a) => {
                self.expect(&mut a.expr, ValueType::InstantVector, "aggregation expression")?;
                let want = match a.op {
                    AggregateOp::CountValues => ValueType::String,
                    _ => ValueType::Scalar,
                };
                match &mut a.param {
                    Some(param) => self.expect(param, want, "aggregation parameter"),
                    None => Ok(()),
                }
            }
            Node::Call(call) => self.call(call, span),
            Node::Binary(_) => self.chain(expr),
        }
    }

    /// A chain of binary operators, innermost first: without recursion on the left, where chains are long.
    fn chain(&self, expr: &mut Expr) -> Checked {
        // The chain is taken apart and put together again, since a mutable reference cannot walk up.
        let mut chain = Vec::new();
        let mut leftmost = std::mem::replace(expr, Expr::number(0.0));
        while let Node::Binary(b) = &mut leftmost.node {
            let lhs = std::mem::replace(&mut b.lhs, Expr::number(0.0));
            chain.push(std::mem::replace(&mut leftmost, lhs));
        }
        let mut result = self.check(&mut leftmost);
        while let Some(mut whole) = chain.pop() {
            let span = whole.span;
            if let Node::Binary(b) = &mut whole.node {
                b.lhs = leftmost;
                if result.is_ok() {
                    result = self.check(&mut b.rhs).and_then(|()| self.binary(b, span));
                }
            }
            leftmost = whole;
        }
        *expr = leftmost;
        result
    }

    fn binary(&self, b: &mut Binary, span: Span) -> Checked {
        use ValueType::{InstantVector, Scalar};
        let (lt, rt) = (b.lhs.value_type(), b.rhs.value_type());
        let op_span = || {
            let bytes = self.text.as_bytes();
            let mut start = b.lhs.span.end;
            while bytes.get(start as usize).is_some_and(|b| b" \t\n\r".contains(b)) {
                start += 1;
            }
            Span { start, end: b.rhs.span.start.max(start) }
        };
        if b.return_bool && !b.op.is_comparison() {
            return self.fail(op_span(), "bool modifier can only be used on comparison operators");
        }
        if b.op.is_comparison() && !b.return_bool && lt == Scalar && rt == Scalar {
            return self.fail(op_span(), "comparisons between scalars must use BOOL modifier");
        }
        let op = b.op;
        let quoted_op = || quote(op.as_str());
        if let Some(m) = &mut b.matching {
            if b.op.is_set() && m.card == Cardinality::OneToOne {
                m.card = Cardinality::ManyToMany;
            }
            let included: HashSet<&Arc<str>> = m.include.iter().collect();
            if m.on
                && let Some(twice) = m.labels.iter().find(|l| included.contains(l))
            {
                return self.fail(
                    op_span(),
                    format!("label {} must not occur in ON and GROUP clause at once", quote(&**twice)),
                );
            }
        }
        for side in [&b.lhs, &b.rhs] {
            if !matches!(side.value_type(), Scalar | InstantVector) {
                return self
                    .fail(side.span, "binary expression must contain only scalar and instant vector types");
            }
        }
        let vectors = lt == InstantVector && rt == InstantVector;
        if let Some(m) = &b.matching {
            let fills = m.fill_left.is_some() || m.fill_right.is_some();
            if !vectors {
                if !m.labels.is_empty() {
                    return self.fail(span, "vector matching only allowed between instant vectors");
                }
                if fills {
                    return self.fail(span, "filling in missing series only allowed between instant vectors");
                }
            } else if b.op.is_set() {
                if matches!(m.card, Cardinality::OneToMany | Cardinality::ManyToOne) {
                    return self.fail(span, format!("no grouping allowed for {} operation", quoted_op()));
                }
                if fills {
                    return self.fail(span, "filling in missing series not allowed for set operators");
                }
            }
        }
        if !vectors {
            b.matching = None;
        }
        if (lt == Scalar || rt == Scalar) && b.op.is_set() {
            return self
                .fail(span, format!("set operator {} not allowed in binary scalar expression", quoted_op()));
        }
        Ok(())
    }

    fn call(&self, call: &mut Call, span: Span) -> Checked {
        let func = call.func;
        let (wanted, got) = (func.args.len(), call.args.len());
        let name = quote(func.name);
        if func.variadic == 0 {
            if wanted != got {
                return self
                    .fail(span, format!("expected {wanted} argument(s) in call to {name}, got {got}"));
            }
        } else {
            let least = wanted.saturating_sub(1);
            if got < least {
                return self.fail(
                    span,
                    format!("expected at least {least} argument(s) in call to {name}, got {got}"),
                );
            }
            if let Ok(more) = usize::try_from(func.variadic)
                && got > least + more
            {
                let most = least + more;
                return self
                    .fail(span, format!("expected at most {most} argument(s) in call to {name}, got {got}"));
            }
        }
        let is_info = func.name == "info";
        if is_info && let Some(selector) = call.args.get(1) {
            let got = selector.value_type();
            if got != ValueType::InstantVector {
                return self.fail(
                    span,
                    format!("expected type instant vector in call to function {name}, got {}", got.as_str()),
                );
            }
            match &selector.node {
                Node::Vector(v) if v.name.is_none() => {}
                Node::Vector(_) => {
                    return self
                        .fail(selector.span, "expected label selectors only, got vector selector instead");
                }
                _ => return self.fail(selector.span, "expected label selectors only"),
            }
        }
        for (at, arg) in call.args.iter_mut().enumerate() {
            let Some(&want) = func.args.get(at).or(func.args.last()) else {
                break;
            };
            let arg_span = arg.span;
            match &arg.node {
                // The second argument of info() may match everything.
                Node::Vector(v) if is_info && at == 1 => self.selector(v, arg_span, true)?,
                _ => self.check(arg)?,
            }
            let got = arg.value_type();
            if got != want {
                return self.fail(
                    arg_span,
                    format!(
                        "expected type {} in call to function {name}, got {}",
                        want.as_str(),
                        got.as_str()
                    ),
                );
            }
        }
        Ok(())
    }

    fn selector(&self, v: &VectorSelector, span: Span, may_be_empty: bool) -> Checked {
        if let Some(name) = &v.name {
            let braces = &v.matchers[..v.matchers.len().saturating_sub(1)];
            return match braces.iter().find(|m| &*m.name == "__name__") {
                Some(twice) => self.fail(
                    span,
                    format!(
                        "metric name must not be set twice: {} or {}",
                        quote(&**name),
                        quote(&*twice.value)
                    ),
                ),
                None => Ok(()),
            };
        }
        if !may_be_empty && v.matchers.iter().all(|m| m.matches_empty()) {
            return self.fail(span, "vector selector must contain at least one non-empty matcher");
        }
        Ok(())
    }
}
