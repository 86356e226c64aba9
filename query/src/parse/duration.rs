//! Durations in brackets and after `offset`: plain ones, and (behind a flag) arithmetic over them.

use super::ast::*;
use super::grammar::{Parse, Parser, Stop, UNARY_PRECEDENCE};
use super::number;
use super::token::{Kind, Token};

/// A duration being built.
struct BuiltDuration {
    node: DurationNode,
    height: usize,
}

impl Parser<'_> {
    /// A range or step: greater than zero where that is known already.
    pub(super) fn positive_duration(&mut self) -> Parse<DurationExpr> {
        let built = self.duration(0)?;
        self.look()?;
        if let Some(literal) = lone_number(&built.node)
            && literal.value <= 0.0
        {
            return self.fail(built.node.span, "duration must be greater than 0");
        }
        Ok(finish_duration(built.node))
    }

    /// What may follow `offset`. A plain number, `step()`, `range()`, `min_of()` or `max_of()`, signed or
    /// not, ends right there, so that `a offset 5m + b` adds; only what begins with a parenthesis or two
    /// signs goes on as an arithmetic expression.
    pub(super) fn offset_duration(&mut self) -> Parse<DurationExpr> {
        let sign = match self.token.kind {
            Kind::Op(BinaryOp::Add | BinaryOp::Sub) => Some(self.bump()),
            _ => None,
        };
        let node = match self.token.kind {
            Kind::Number | Kind::Duration => {
                let node = self.duration_number()?;
                match sign {
                    Some(op) => self.duration_sign(op, node)?,
                    None => node,
                }
            }
            Kind::Step | Kind::Range | Kind::MaxOf | Kind::MinOf => {
                let node = self.duration_call(sign)?;
                match sign {
                    Some(op) => self.duration_sign(op, node)?,
                    None => node,
                }
            }
            Kind::LeftParen if sign.is_some() => {
                let open = self.bump();
                let inner = self.duration(0)?;
                let close = self.expect(Kind::RightParen)?;
                let wrapped = wrap(inner, Span { start: open.start, end: close.end });
                match sign {
                    Some(op) => self.duration_sign(op, wrapped)?,
                    None => wrapped,
                }
            }
            _ => {
                let first = match sign {
                    Some(op) => {
                        let operand = self.duration(UNARY_PRECEDENCE)?;
                        self.look()?;
                        self.duration_sign(op, operand)?
                    }
                    None => self.duration_primary()?,
                };
                let built = self.duration_rest(first, 0)?;
                self.look()?;
                return Ok(finish_duration(built.node));
            }
        };
        Ok(finish_duration(node.node))
    }

    /// A duration expression whose operators all bind tighter than `above`.
    fn duration(&mut self, above: u8) -> Parse<BuiltDuration> {
        self.enter()?;
        let first = self.duration_primary()?;
        let built = self.duration_rest(first, above)?;
        self.leave();
        Ok(built)
    }

    fn duration_rest(&mut self, mut lhs: BuiltDuration, above: u8) -> Parse<BuiltDuration> {
        while let Kind::Op(op) = self.token.kind {
            use BinaryOp::*;
            if !matches!(op, Add | Sub | Mul | Div | Mod | Pow) || op.precedence() <= above {
                break;
            }
            let op_token = self.bump();
            let rhs = self.duration(if op == Pow { op.precedence() - 1 } else { op.precedence() })?;
            self.look()?;
            self.check_duration_flag(&lhs.node)?;
            let divisor_is_zero = lone_number(&rhs.node).is_some_and(|n| n.value == 0.0);
            if divisor_is_zero && op == Div {
                return self.fail(op_token.span(), "division by zero");
            }
            if divisor_is_zero && op == Mod {
                return self.fail(op_token.span(), "modulo by zero");
            }
            let span = Span { start: lhs.node.span.start, end: rhs.node.span.end };
            let height = lhs.height.max(rhs.height) + 1;
            let (l, r) = (Box::new(lhs.node), Box::new(rhs.node));
            let op = match op {
                Add => DurationOp::Add(l, r),
                Sub => DurationOp::Sub(l, r),
                Mul => DurationOp::Mul(l, r),
                Div => DurationOp::Div(l, r),
                Mod => DurationOp::Mod(l, r),
                _ => DurationOp::Pow(l, r),
            };
            lhs = self.built_duration(op, span, height)?;
        }
        Ok(lhs)
    }

    fn built_duration(&self, op: DurationOp, span: Span, height: usize) -> Parse<BuiltDuration> {
        if height > self.options.max_depth {
            return self.too_deep(span);
        }
        Ok(BuiltDuration { node: DurationNode { op, span, wrapped: false }, height })
    }

    fn duration_primary(&mut self) -> Parse<BuiltDuration> {
        let token = self.token;
        match token.kind {
            Kind::Number | Kind::Duration => self.duration_number(),
            Kind::Op(BinaryOp::Add | BinaryOp::Sub) => {
                self.bump();
                let operand = self.duration(UNARY_PRECEDENCE)?;
                self.look()?;
                self.duration_sign(token, operand)
            }
            Kind::Step | Kind::Range | Kind::MaxOf | Kind::MinOf => self.duration_call(None),
            Kind::LeftParen => {
                self.bump();
                let inner = self.duration(0)?;
                let close = self.expect(Kind::RightParen)?;
                self.check_duration_flag(&inner.node)?;
                Ok(wrap(inner, Span { start: token.start, end: close.end }))
            }
            _ => Err(Stop::Unexpected),
        }
    }

    fn duration_number(&mut self) -> Parse<BuiltDuration> {
        let span = self.token.span();
        let literal = self.number_literal()?;
        if number::out_of_range(literal.value) {
            return self.fail(span, "duration out of range");
        }
        self.built_duration(DurationOp::Number(literal), span, 1)
    }

    /// `step()`, `range()`, `min_of(a, b)`, `max_of(a, b)`; a sign before it is where upstream points when
    /// the flag is off.
    fn duration_call(&mut self, sign: Option<Token>) -> Parse<BuiltDuration> {
        let name = self.bump();
        self.expect(Kind::LeftParen)?;
        let (op, height, blame) = match name.kind {
            Kind::Step => (DurationOp::Step, 1, name.span()),
            Kind::Range => (DurationOp::Range, 1, name.span()),
            _ => {
                let a = self.duration(0)?;
                self.expect(Kind::Comma)?;
                let b = self.duration(0)?;
                let height = a.height.max(b.height) + 1;
                let blame = blame_span(&a.node);
                let (a, b) = (Box::new(a.node), Box::new(b.node));
                let op = match name.kind {
                    Kind::MaxOf => DurationOp::Max(a, b),
                    _ => DurationOp::Min(a, b),
                };
                (op, height, blame)
            }
        };
        self.expect(Kind::RightParen)?;
        if !self.options.duration_expressions {
            return self
                .fail(sign.map_or(blame, |t| t.span()), "experimental duration expression is not enabled");
        }
        self.built_duration(op, self.since(name.start), height)
    }

    /// Applies a sign: a lone number takes it in, a plus before anything else is dropped.
    fn duration_sign(&self, op: Token, mut operand: BuiltDuration) -> Parse<BuiltDuration> {
        let negative = op.kind == Kind::Op(BinaryOp::Sub);
        let span = Span { start: op.start, end: operand.node.span.end };
        if let DurationNode { op: DurationOp::Number(literal), wrapped: false, .. } = &mut operand.node {
            if negative {
                literal.value = -literal.value;
            }
            if number::out_of_range(literal.value) {
                return self.fail(op.span(), "duration out of range");
            }
            operand.node.span = span;
            return Ok(operand);
        }
        if !negative {
            return Ok(operand);
        }
        self.built_duration(DurationOp::Neg(Box::new(operand.node)), span, operand.height + 1)
    }

    fn check_duration_flag(&self, node: &DurationNode) -> Parse<()> {
        if self.options.duration_expressions {
            return Ok(());
        }
        self.fail(blame_span(node), "experimental duration expression is not enabled")
    }
}

/// Where upstream says a duration expression stands: two operands from the first to the last, without
/// `max_of(`.
fn blame_span(node: &DurationNode) -> Span {
    match &node.op {
        DurationOp::Min(a, _) | DurationOp::Max(a, _) => blame_span(a),
        DurationOp::Add(a, _)
        | DurationOp::Sub(a, _)
        | DurationOp::Mul(a, _)
        | DurationOp::Div(a, _)
        | DurationOp::Mod(a, _)
        | DurationOp::Pow(a, _) => blame_span(a),
        DurationOp::Number(_) | DurationOp::Neg(_) | DurationOp::Step | DurationOp::Range => node.span,
    }
}

fn wrap(mut built: BuiltDuration, parens: Span) -> BuiltDuration {
    if matches!(built.node.op, DurationOp::Number(_)) && !built.node.wrapped {
        built.node.span = parens;
    }
    built.node.wrapped = true;
    built
}

fn lone_number(node: &DurationNode) -> Option<NumberLit> {
    match node.op {
        DurationOp::Number(n) if !node.wrapped => Some(n),
        _ => None,
    }
}

fn finish_duration(node: DurationNode) -> DurationExpr {
    match lone_number(&node) {
        Some(n) => DurationExpr::Literal(number::to_ms(n.value)),
        None => DurationExpr::Computed(Box::new(node)),
    }
}
