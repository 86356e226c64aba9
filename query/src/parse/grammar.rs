//! The parser: a Pratt loop over the lexer's tokens, one token ahead.
//!
//! The language is that of `promql/parser/generated_parser.y` of Prometheus 3.14, and so are its error texts.
//! Upstream's come out of a generated LR parser: on a token that fits nowhere it goes back to the innermost
//! construct that has an error rule, which words the complaint. Here such a token raises
//! [`Stop::Unexpected`], which travels up to the first caller that has words for it ([`Parser::in_context`]).

use std::sync::Arc;

use model::matcher::{MatchOp, Matcher};
use model::quote::quote;

use super::ast::*;
use super::lex::Lexer;
use super::number;
use super::token::{Kind, Token, describe};
use super::{ParseError, ParseOptions, functions};

/// Why parsing stops.
pub(super) enum Stop {
    /// The current token fits nowhere; whoever knows the context words it.
    Unexpected,
    Error(Box<ParseError>),
}

pub(super) type Parse<T> = Result<T, Stop>;

/// Most memory that the regular expressions of one request may hold, all its selectors together: a short text
/// can ask for megabytes with each of thousands of matchers. Compiling so much takes about a second.
const MAX_REGEX_BYTES: usize = 32 << 20;

/// Unary operators hold their operand as tightly as `*` does, so only `^` binds tighter.
pub(super) const UNARY_PRECEDENCE: u8 = 5;

pub(super) struct Parser<'a> {
    text: &'a str,
    pub(super) options: &'a ParseOptions,
    lexer: Lexer<'a>,
    /// The token that comes next.
    pub(super) token: Token,
    /// Where the last consumed token ended.
    last_end: u32,
    /// Calls of the recursive rules that are open.
    depth: usize,
    /// Memory that the regular expressions so far hold, those of other texts of the request among them.
    pub(super) regex_bytes: usize,
}

/// An expression being built, with how deep it nests; the left side of binary operators is free.
struct Built {
    expr: Expr,
    height: usize,
}

/// Modifiers between a binary operator and its right side.
struct Modifiers {
    matching: VectorMatching,
    return_bool: bool,
}

pub(super) fn error_at(text: &str, span: Span, message: impl Into<String>) -> ParseError {
    let message = message.into();
    if text.is_empty() {
        return ParseError { span, line: 0, column: 0, message };
    }
    let before = &text.as_bytes()[..(span.start as usize).min(text.len())];
    let line = before.iter().filter(|&&b| b == b'\n').count() as u32 + 1;
    let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    ParseError { span, line, column: (before.len() - line_start) as u32 + 1, message }
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, options: &'a ParseOptions, series: bool) -> Parse<Self> {
        let mut lexer = Lexer::new(text, series);
        if text.len() > options.max_text_bytes.min(u32::MAX as usize) {
            let message = format!(
                "query is too long: {} bytes, at most {} are allowed",
                text.len(),
                options.max_text_bytes
            );
            return Err(Stop::Error(Box::new(ParseError {
                span: Span::default(),
                line: 1,
                column: 1,
                message,
            })));
        }
        let token = lexer.next_token();
        Ok(Parser { text, options, lexer, token, last_end: 0, depth: 0, regex_bytes: 0 })
    }

    /// Turns what stopped a parse into the error for the reader; `Unexpected` that nobody worded gets the
    /// plain text.
    pub(super) fn finish(&self, stop: Stop) -> ParseError {
        match stop {
            Stop::Error(e) => *e,
            Stop::Unexpected => match self.unexpected("", "") {
                Stop::Error(e) => *e,
                Stop::Unexpected => error_at(self.text, self.token.span(), "unexpected input"),
            },
        }
    }

    pub(super) fn fail<T>(&self, span: Span, message: impl Into<String>) -> Parse<T> {
        Err(self.stop(span, message))
    }

    fn stop(&self, span: Span, message: impl Into<String>) -> Stop {
        Stop::Error(Box::new(error_at(self.text, span, message)))
    }

    /// The error for the current token; a token that the lexer refused carries its own words.
    fn unexpected(&self, context: &str, expected: &str) -> Stop {
        if self.token.kind == Kind::Error {
            return self.stop(self.token.span(), self.lexer.error());
        }
        let mut message = format!("unexpected {}", describe(self.token, self.text));
        if !context.is_empty() {
            message += " in ";
            message += context;
        }
        if !expected.is_empty() {
            message += ", expected ";
            message += expected;
        }
        self.stop(self.token.span(), message)
    }

    /// Words an `Unexpected` that comes out of `result`.
    pub(super) fn in_context<T>(&self, result: Parse<T>, context: &str, expected: &str) -> Parse<T> {
        match result {
            Err(Stop::Unexpected) => Err(self.unexpected(context, expected)),
            other => other,
        }
    }

    /// Stops if the next token is one the lexer refused: upstream sees it before it judges what it has read
    /// so far.
    pub(super) fn look(&self) -> Parse<()> {
        if self.token.kind == Kind::Error { Err(self.unexpected("", "")) } else { Ok(()) }
    }

    pub(super) fn raw(&self, token: Token) -> &'a str {
        &self.text[token.start as usize..token.end as usize]
    }

    /// Takes the next token.
    pub(super) fn bump(&mut self) -> Token {
        let token = self.token;
        self.last_end = token.end;
        self.token = self.lexer.next_token();
        token
    }

    pub(super) fn bump_if(&mut self, kind: Kind) -> Option<Token> {
        (self.token.kind == kind).then(|| self.bump())
    }

    pub(super) fn expect(&mut self, kind: Kind) -> Parse<Token> {
        self.bump_if(kind).ok_or(Stop::Unexpected)
    }

    pub(super) fn since(&self, start: u32) -> Span {
        Span { start, end: self.last_end }
    }

    pub(super) fn too_deep<T>(&self, span: Span) -> Parse<T> {
        self.fail(
            span,
            format!("query is nested too deeply: at most {} levels are allowed", self.options.max_depth),
        )
    }

    pub(super) fn enter(&mut self) -> Parse<()> {
        self.depth += 1;
        if self.depth > self.options.max_depth { self.too_deep(self.token.span()) } else { Ok(()) }
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    fn built(&self, node: Node, span: Span, height: usize) -> Parse<Built> {
        if height > self.options.max_depth {
            return self.too_deep(span);
        }
        Ok(Built { expr: Expr { node, span }, height })
    }

    /// A whole query.
    pub(super) fn query(&mut self) -> Parse<Expr> {
        if self.token.kind == Kind::Eof {
            return self.fail(Span::default(), "no expression found in input");
        }
        let built = self.expr(0)?;
        self.expect(Kind::Eof)?;
        Ok(built.expr)
    }

    /// A whole selector, as in `match[]`.
    pub(super) fn metric_selector(&mut self) -> Parse<VectorSelector> {
        let (selector, _) = self.vector_selector()?;
        self.expect(Kind::Eof)?;
        Ok(selector)
    }

    /// An expression whose operators all bind tighter than `above`.
    fn expr(&mut self, above: u8) -> Parse<Built> {
        self.enter()?;
        let first = self.primary()?;
        let mut lhs = self.postfix(first)?;
        let mut chained = 0usize;
        while let Kind::Op(op) = self.token.kind {
            if op.precedence() <= above {
                break;
            }
            let op_token = self.bump();
            chained += 1;
            if chained > self.options.max_chain {
                return self.fail(
                    op_token.span(),
                    format!("too many operators in a row: at most {} are allowed", self.options.max_chain),
                );
            }
            let modifiers = self.modifiers()?;
            // `^` groups to the right: its right side may begin with another of its kind.
            let right_above = if op == BinaryOp::Pow { op.precedence() - 1 } else { op.precedence() };
            let rhs = self.expr(right_above)?;
            self.look()?;
            let span = Span { start: lhs.expr.span.start, end: rhs.expr.span.end };
            if !self.options.fill_modifiers
                && (modifiers.matching.fill_left.is_some() || modifiers.matching.fill_right.is_some())
            {
                return self.fail(span, "binop fill modifiers are experimental and not enabled");
            }
            let height = lhs.height.max(rhs.height + 1);
            let returns = binary_type(&lhs.expr, &rhs.expr);
            let node = Node::Binary(Box::new(Binary {
                op,
                lhs: lhs.expr,
                rhs: rhs.expr,
                matching: Some(modifiers.matching),
                return_bool: modifiers.return_bool,
                returns,
            }));
            lhs = self.built(node, span, height)?;
        }
        self.leave();
        Ok(lhs)
    }

    fn modifiers(&mut self) -> Parse<Modifiers> {
        let return_bool = self.bump_if(Kind::Bool).is_some();
        let mut matching = VectorMatching {
            card: Cardinality::OneToOne,
            labels: Vec::new(),
            on: false,
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        if matches!(self.token.kind, Kind::On | Kind::Ignoring) {
            matching.on = self.bump().kind == Kind::On;
            matching.labels = self.grouping_labels()?;
            let group = match self.token.kind {
                Kind::GroupLeft => Some(Cardinality::ManyToOne),
                Kind::GroupRight => Some(Cardinality::OneToMany),
                _ => None,
            };
            if let Some(card) = group {
                self.bump();
                matching.card = card;
                let goes_on = self.starts_expr()
                    || matches!(self.token.kind, Kind::Fill | Kind::FillLeft | Kind::FillRight);
                if self.token.kind == Kind::LeftParen || !goes_on {
                    matching.include = self.grouping_labels()?;
                }
            }
        }
        match self.token.kind {
            Kind::Fill => {
                self.bump();
                let value = self.fill_value()?;
                (matching.fill_left, matching.fill_right) = (Some(value), Some(value));
            }
            Kind::FillLeft => {
                self.bump();
                matching.fill_left = Some(self.fill_value()?);
                if self.bump_if(Kind::FillRight).is_some() {
                    matching.fill_right = Some(self.fill_value()?);
                }
            }
            Kind::FillRight => {
                self.bump();
                matching.fill_right = Some(self.fill_value()?);
                if self.bump_if(Kind::FillLeft).is_some() {
                    matching.fill_left = Some(self.fill_value()?);
                }
            }
            _ => {}
        }
        Ok(Modifiers { matching, return_bool })
    }

    fn fill_value(&mut self) -> Parse<f64> {
        self.expect(Kind::LeftParen)?;
        let value = self.signed_number()?;
        self.expect(Kind::RightParen)?;
        Ok(value)
    }

    /// Whether the next token can begin an expression.
    fn starts_expr(&self) -> bool {
        matches!(
            self.token.kind,
            Kind::Op(BinaryOp::Add | BinaryOp::Sub)
                | Kind::Number
                | Kind::Duration
                | Kind::Str
                | Kind::LeftParen
                | Kind::LeftBrace
        ) || self.is_metric_name()
    }

    /// Whether the next token can be a metric's name: an identifier, or a keyword that is still allowed as
    /// one.
    pub(super) fn is_metric_name(&self) -> bool {
        matches!(
            self.token.kind,
            Kind::Identifier
                | Kind::MetricIdentifier
                | Kind::Aggregate(_)
                | Kind::Op(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
                | Kind::By
                | Kind::Without
                | Kind::Fill
                | Kind::FillLeft
                | Kind::FillRight
                | Kind::Offset
                | Kind::Anchored
                | Kind::Smoothed
                | Kind::Start
                | Kind::End
                | Kind::Step
                | Kind::Range
                | Kind::MaxOf
                | Kind::MinOf
        )
    }

    fn primary(&mut self) -> Parse<Built> {
        let token = self.token;
        match token.kind {
            Kind::Op(BinaryOp::Add | BinaryOp::Sub) => {
                self.bump();
                let operand = self.expr(UNARY_PRECEDENCE)?;
                self.look()?;
                self.unary(token, operand)
            }
            Kind::Number | Kind::Duration => {
                let literal = self.number_literal()?;
                self.built(Node::Number(literal), token.span(), 1)
            }
            Kind::Str => {
                self.bump();
                let bytes = self.unquote(token)?;
                self.built(Node::Str(bytes.into()), token.span(), 1)
            }
            Kind::LeftParen => {
                self.bump();
                let inner = self.expr(0)?;
                self.expect(Kind::RightParen)?;
                self.built(Node::Paren(Box::new(inner.expr)), self.since(token.start), inner.height + 1)
            }
            Kind::Aggregate(op) => {
                self.bump();
                match self.token.kind {
                    Kind::LeftParen | Kind::By | Kind::Without => {
                        let result = self.aggregate(op, token);
                        self.in_context(result, "aggregation", "")
                    }
                    _ => self.selector_after_name(token),
                }
            }
            Kind::Identifier
            | Kind::Start
            | Kind::End
            | Kind::Step
            | Kind::Range
            | Kind::MaxOf
            | Kind::MinOf => {
                self.bump();
                match self.token.kind {
                    Kind::LeftParen => self.call(token),
                    _ => self.selector_after_name(token),
                }
            }
            _ if token.kind == Kind::LeftBrace || self.is_metric_name() => {
                let (selector, span) = self.vector_selector()?;
                self.built(Node::Vector(selector), span, 1)
            }
            _ => Err(Stop::Unexpected),
        }
    }

    fn unary(&mut self, op: Token, operand: Built) -> Parse<Built> {
        let negative = op.kind == Kind::Op(BinaryOp::Sub);
        let span = Span { start: op.start, end: operand.expr.span.end };
        match operand.expr.node {
            Node::Number(mut literal) => {
                if negative {
                    literal.value = -literal.value;
                }
                self.built(Node::Number(literal), span, operand.height)
            }
            _ => {
                let node = Node::Unary { negative, expr: Box::new(operand.expr) };
                self.built(node, span, operand.height + 1)
            }
        }
    }

    /// A number or a duration, which counts as its seconds.
    pub(super) fn number_literal(&mut self) -> Parse<NumberLit> {
        let token = self.token;
        match token.kind {
            Kind::Number => {
                self.bump();
                match number::parse_number(self.raw(token)) {
                    Ok(value) => Ok(NumberLit { value, is_duration: false }),
                    Err(e) => self.fail(token.span(), format!("error parsing number: {e}")),
                }
            }
            Kind::Duration => {
                self.bump();
                match number::parse_duration_ns(self.raw(token)) {
                    Ok(ns) => Ok(NumberLit { value: number::seconds(ns), is_duration: true }),
                    Err(e) => self.fail(token.span(), e),
                }
            }
            _ => Err(Stop::Unexpected),
        }
    }

    /// A number or duration with or without a sign.
    pub(super) fn signed_number(&mut self) -> Parse<f64> {
        let negative = match self.token.kind {
            Kind::Op(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                self.bump();
                op == BinaryOp::Sub
            }
            _ => false,
        };
        let value = self.number_literal()?.value;
        Ok(if negative { -value } else { value })
    }

    pub(super) fn unquote(&self, token: Token) -> Parse<Vec<u8>> {
        let raw = self.raw(token);
        match number::unquote(raw) {
            Some(bytes) => Ok(bytes),
            None => self.fail(token.span(), format!("error unquoting string {}: invalid syntax", quote(raw))),
        }
    }

    /// A string that must be text, as label names and values are.
    pub(super) fn unquote_text(&self, token: Token) -> Parse<String> {
        match String::from_utf8(self.unquote(token)?) {
            Ok(text) => Ok(text),
            Err(e) => self.fail(
                token.span(),
                format!(
                    "{} is not valid UTF-8, which label names and values always are",
                    quote(e.as_bytes())
                ),
            ),
        }
    }

    fn aggregate(&mut self, op: AggregateOp, name: Token) -> Parse<Built> {
        let mut modifier = self.aggregate_modifier()?;
        let (mut args, height) = self.arguments()?;
        let mut span = self.since(name.start);
        if modifier.is_none() {
            self.look()?;
            modifier = self.aggregate_modifier()?;
            if modifier.is_some() {
                span = self.since(name.start);
            }
        }
        let (without, grouping) = modifier.unwrap_or_default();
        if args.is_empty() {
            return self.fail(span, "no arguments for aggregate expression provided");
        }
        if op.is_experimental() && !self.options.experimental_functions {
            let name = op.as_str();
            return self.fail(
                span,
                format!("{name}() is experimental and must be enabled with --enable-feature=promql-experimental-functions"),
            );
        }
        let wanted = if op.has_param() { 2 } else { 1 };
        let got = args.len();
        let (Some(expr), true) = (args.pop(), got == wanted) else {
            return self.fail(
                span,
                format!(
                    "wrong number of arguments for aggregate expression provided, expected {wanted}, got {got}"
                ),
            );
        };
        let node = Node::Aggregate(Box::new(Aggregate { op, expr, param: args.pop(), grouping, without }));
        self.built(node, span, height + 1)
    }

    fn aggregate_modifier(&mut self) -> Parse<Option<(bool, Vec<Arc<str>>)>> {
        match self.token.kind {
            Kind::By | Kind::Without => {
                let without = self.bump().kind == Kind::Without;
                Ok(Some((without, self.grouping_labels()?)))
            }
            _ => Ok(None),
        }
    }

    fn grouping_labels(&mut self) -> Parse<Vec<Arc<str>>> {
        const CONTEXT: &str = "grouping opts";
        if self.bump_if(Kind::LeftParen).is_none() {
            return Err(self.unexpected(CONTEXT, "\"(\""));
        }
        let mut labels = Vec::new();
        if self.bump_if(Kind::RightParen).is_some() {
            return Ok(labels);
        }
        loop {
            match self.grouping_label()? {
                Some(label) => labels.push(label),
                None => return Err(self.unexpected(CONTEXT, "label")),
            }
            if self.bump_if(Kind::RightParen).is_some() {
                return Ok(labels);
            }
            if self.bump_if(Kind::Comma).is_none() {
                return Err(self.unexpected(CONTEXT, "\",\" or \")\""));
            }
            if self.bump_if(Kind::RightParen).is_some() {
                return Ok(labels);
            }
        }
    }

    fn grouping_label(&mut self) -> Parse<Option<Arc<str>>> {
        let token = self.token;
        match token.kind {
            Kind::Str => {
                self.bump();
                let name = self.unquote(token)?;
                match std::str::from_utf8(&name) {
                    Ok(name) if !name.is_empty() => Ok(Some(name.into())),
                    _ => {
                        self.fail(token.span(), format!("invalid label name for grouping: {}", quote(&name)))
                    }
                }
            }
            Kind::Bool
            | Kind::On
            | Kind::Ignoring
            | Kind::GroupLeft
            | Kind::GroupRight
            | Kind::Op(BinaryOp::Atan2) => {
                self.bump();
                Ok(Some(self.raw(token).into()))
            }
            // The one name of a metric that upstream forgot among the labels.
            Kind::Without => Ok(None),
            _ if self.is_metric_name() => {
                self.bump();
                Ok(Some(self.raw(token).into()))
            }
            _ => Ok(None),
        }
    }

    fn call(&mut self, name: Token) -> Parse<Built> {
        let (args, height) = self.arguments()?;
        let raw = self.raw(name);
        let Some(func) = functions::get(raw) else {
            return self.fail(name.span(), format!("unknown function with name {}", quote(raw)));
        };
        if func.experimental && !self.options.experimental_functions {
            return self.fail(name.span(), format!("function {} is not enabled", quote(raw)));
        }
        self.built(Node::Call(Call { func, args }), self.since(name.start), height + 1)
    }

    /// What stands in parentheses after a function's or aggregation's name, and how deep it nests.
    fn arguments(&mut self) -> Parse<(Vec<Expr>, usize)> {
        self.expect(Kind::LeftParen)?;
        let (mut args, mut height) = (Vec::new(), 0);
        if self.bump_if(Kind::RightParen).is_some() {
            return Ok((args, height));
        }
        loop {
            let arg = self.expr(0)?;
            height = height.max(arg.height);
            args.push(arg.expr);
            let Some(comma) = self.bump_if(Kind::Comma) else {
                self.expect(Kind::RightParen)?;
                return Ok((args, height));
            };
            if !self.starts_expr() {
                self.look()?;
                return self.fail(comma.span(), "trailing commas not allowed in function call args");
            }
        }
    }

    /// A selector whose name has been taken.
    fn selector_after_name(&mut self, name: Token) -> Parse<Built> {
        let (selector, span) = self.selector(Some(name))?;
        self.built(Node::Vector(selector), span, 1)
    }

    fn vector_selector(&mut self) -> Parse<(VectorSelector, Span)> {
        if self.is_metric_name() {
            let name = self.bump();
            self.selector(Some(name))
        } else if self.token.kind == Kind::LeftBrace {
            self.selector(None)
        } else {
            Err(Stop::Unexpected)
        }
    }

    fn selector(&mut self, name: Option<Token>) -> Parse<(VectorSelector, Span)> {
        let start = name.map_or(self.token.start, |t| t.start);
        let mut matchers = match self.token.kind {
            Kind::LeftBrace => self.label_matchers()?,
            _ => Vec::new(),
        };
        let name: Option<Arc<str>> = name.map(|t| self.raw(t).into());
        if let Some(name) = &name {
            matchers.push(Matcher::equal("__name__", name));
        }
        let selector = VectorSelector {
            name,
            matchers,
            offset: DurationExpr::Literal(0),
            at: None,
            anchored: false,
            smoothed: false,
        };
        Ok((selector, self.since(start)))
    }

    fn label_matchers(&mut self) -> Parse<Vec<Matcher>> {
        const CONTEXT: &str = "label matching";
        self.expect(Kind::LeftBrace)?;
        let mut matchers = Vec::new();
        loop {
            if self.bump_if(Kind::RightBrace).is_some() {
                return Ok(matchers);
            }
            let name = self.token;
            match name.kind {
                Kind::Identifier => {
                    self.bump();
                    let label = self.raw(name);
                    let Some(op) = self.match_op() else {
                        return Err(self.unexpected(CONTEXT, "label matching operator"));
                    };
                    matchers.push(self.matcher_value(name, label, op)?);
                }
                Kind::Str => {
                    self.bump();
                    let label = self.unquote_text(name)?;
                    match self.match_op() {
                        Some(op) => matchers.push(self.matcher_value(name, &label, op)?),
                        None => matchers.push(Matcher::equal("__name__", &label)),
                    }
                }
                _ => return Err(self.unexpected(CONTEXT, "identifier or \"}\"")),
            }
            if self.bump_if(Kind::Comma).is_none() && self.token.kind != Kind::RightBrace {
                return Err(self.unexpected(CONTEXT, "\",\" or \"}\""));
            }
        }
    }

    fn match_op(&mut self) -> Option<MatchOp> {
        let op = match self.token.kind {
            Kind::Equal => MatchOp::Equal,
            Kind::Op(BinaryOp::Neq) => MatchOp::NotEqual,
            Kind::EqualRegex => MatchOp::Regex,
            Kind::NotRegex => MatchOp::NotRegex,
            _ => return None,
        };
        self.bump();
        Some(op)
    }

    fn matcher_value(&mut self, name: Token, label: &str, op: MatchOp) -> Parse<Matcher> {
        let Some(value) = self.bump_if(Kind::Str) else {
            return Err(self.unexpected("label matching", "string"));
        };
        let text = self.unquote_text(value)?;
        match Matcher::new(op, label, &text) {
            Ok(matcher) => {
                self.regex_bytes += matcher.regex().map_or(0, |re| re.size_bytes());
                if self.regex_bytes > MAX_REGEX_BYTES {
                    let span = Span { start: name.start, end: value.end };
                    return self
                        .fail(span, "the regular expressions of the request take too much memory together: ask with fewer or simpler ones");
                }
                Ok(matcher)
            }
            Err(e) => self.fail(Span { start: name.start, end: value.end }, e.to_string()),
        }
    }

    /// `offset`, `@`, `[…]`, `anchored` and `smoothed`, which all bind tighter than any operator.
    fn postfix(&mut self, mut built: Built) -> Parse<Built> {
        loop {
            match self.token.kind {
                Kind::Offset => {
                    self.bump();
                    let offset = self.offset_duration();
                    let offset = self.in_context(offset, "offset", "number, duration, step(), or range()")?;
                    self.set_offset(&mut built.expr, offset)?;
                }
                Kind::At => {
                    self.bump();
                    let at = self.at_time(built.expr.span);
                    let at = self.in_context(at, "@", "timestamp")?;
                    self.set_at(&mut built.expr, at)?;
                }
                Kind::Anchored | Kind::Smoothed => {
                    let anchored = self.bump().kind == Kind::Anchored;
                    self.set_extended(&mut built.expr, anchored)?;
                    // Not part of the span, as upstream has it: positions in error texts follow from spans.
                    continue;
                }
                Kind::LeftBracket => {
                    built = self.brackets(built)?;
                    continue;
                }
                _ => return Ok(built),
            }
            built.expr.span.end = self.last_end;
        }
    }

    fn set_offset(&self, expr: &mut Expr, offset: DurationExpr) -> Parse<()> {
        let span = expr.span;
        let place = match &mut expr.node {
            Node::Vector(v) => &mut v.offset,
            Node::Matrix { selector, .. } => &mut selector.offset,
            Node::Subquery(s) => &mut s.offset,
            _ => {
                return self.fail(
                    span,
                    "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
                );
            }
        };
        if !matches!(place, DurationExpr::Literal(0)) {
            return self.fail(span, "offset may not be set multiple times");
        }
        *place = offset;
        Ok(())
    }

    fn at_time(&mut self, of: Span) -> Parse<At> {
        let token = self.token;
        match token.kind {
            Kind::Start | Kind::End => {
                self.bump();
                self.expect(Kind::LeftParen)?;
                self.expect(Kind::RightParen)?;
                Ok(if token.kind == Kind::Start { At::Start } else { At::End })
            }
            _ => {
                let seconds = self.signed_number()?;
                const MOST: f64 = i64::MAX as f64;
                if seconds.is_nan() || seconds >= MOST || seconds <= -MOST {
                    let mut shown = String::new();
                    if seconds.is_finite() {
                        shown = format!("{seconds:.6}");
                    } else {
                        let _ = number::write_float(&mut shown, seconds);
                    }
                    return self.fail(of, format!("timestamp out of bounds for @ modifier: {shown}"));
                }
                Ok(At::Time((seconds * 1000.0).round() as i64))
            }
        }
    }

    fn set_at(&self, expr: &mut Expr, at: At) -> Parse<()> {
        let span = expr.span;
        let place = match &mut expr.node {
            Node::Vector(v) => &mut v.at,
            Node::Matrix { selector, .. } => &mut selector.at,
            Node::Subquery(s) => &mut s.at,
            _ => {
                return self.fail(
                    span,
                    "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery",
                );
            }
        };
        if place.is_some() {
            return self.fail(span, "@ <timestamp> may not be set multiple times");
        }
        *place = Some(at);
        Ok(())
    }

    fn set_extended(&self, expr: &mut Expr, anchored: bool) -> Parse<()> {
        let span = expr.span;
        let name = if anchored { "anchored" } else { "smoothed" };
        if !self.options.extended_range_selectors {
            return self.fail(span, format!("{name} modifier is experimental and not enabled"));
        }
        let selector = match &mut expr.node {
            Node::Vector(v) => v,
            Node::Matrix { selector, .. } => selector,
            Node::Subquery(_) => {
                return self.fail(span, format!("{name} modifier is not supported for subqueries"));
            }
            _ => return self.fail(span, format!("{name} modifier not implemented")),
        };
        if anchored {
            selector.anchored = true;
        } else {
            selector.smoothed = true;
        }
        if selector.anchored && selector.smoothed {
            return self.fail(span, "anchored and smoothed modifiers cannot be used together");
        }
        Ok(())
    }

    /// `[range]` and `[range:step]`.
    fn brackets(&mut self, inner: Built) -> Parse<Built> {
        let open = self.bump();
        let range = self.positive_duration();
        let range =
            self.in_context(range, "subquery or range selector", "number, duration, step(), or range()")?;
        let start = inner.expr.span.start;
        if self.bump_if(Kind::Colon).is_some() {
            let mut step = None;
            if self.bump_if(Kind::RightBracket).is_none() {
                let parsed = self.positive_duration();
                step = Some(self.in_context(
                    parsed,
                    "subquery selector",
                    "number, duration, step(), range(), or \"]\"",
                )?);
                if self.bump_if(Kind::RightBracket).is_none() {
                    return Err(self.unexpected("subquery selector", "\"]\""));
                }
            }
            let node = Node::Subquery(Box::new(Subquery {
                expr: inner.expr,
                range,
                step,
                offset: DurationExpr::Literal(0),
                at: None,
            }));
            return self.built(node, self.since(start), inner.height + 1);
        }
        let Some(close) = self.bump_if(Kind::RightBracket) else {
            return Err(self.unexpected("subquery or range", "\":\" or \"]\""));
        };
        let brackets = Span { start: open.start, end: close.end };
        let selector_span = inner.expr.span;
        let Node::Vector(selector) = inner.expr.node else {
            return self.fail(brackets, "ranges only allowed for vector selectors");
        };
        if !matches!(selector.offset, DurationExpr::Literal(0)) {
            return self.fail(brackets, "no offset modifiers allowed before range");
        }
        if selector.at.is_some() {
            return self.fail(brackets, "no @ modifiers allowed before range");
        }
        self.built(Node::Matrix { selector, selector_span, range }, self.since(start), inner.height + 1)
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }
}

pub(super) fn binary_type(lhs: &Expr, rhs: &Expr) -> ValueType {
    match (lhs.value_type(), rhs.value_type()) {
        (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
        _ => ValueType::InstantVector,
    }
}
