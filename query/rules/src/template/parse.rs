//! Tokens to the tree of a template, with Go's checks: functions and variables exist, blocks end, pipelines
//! can be run.

use std::collections::HashMap;

use model::quote::quote;
use query::parse::unquote;

use super::data::TemplateError;
use super::functions;
use super::lex::{Kind, Token, tokens};

/// Deepest nesting of blocks and parentheses.
const MAX_DEPTH: usize = 100;

/// A whole template and those it defines.
#[derive(Debug)]
pub struct Parsed {
    pub root: Vec<Node>,
    pub defined: HashMap<String, Vec<Node>>,
}

#[derive(Debug)]
pub enum Node {
    Text(String),
    Action(Pipe),
    If { pipe: Pipe, body: Vec<Node>, otherwise: Vec<Node> },
    With { pipe: Pipe, body: Vec<Node>, otherwise: Vec<Node> },
    Range { pipe: Pipe, body: Vec<Node>, otherwise: Vec<Node> },
    Call { at: usize, name: String, pipe: Option<Pipe> },
    Break,
    Continue,
}

/// `$x := a | b c`.
#[derive(Debug)]
pub struct Pipe {
    pub variables: Vec<String>,
    /// `=` and not `:=`.
    pub assigns: bool,
    pub commands: Vec<Command>,
}

/// A function or value with its arguments.
#[derive(Debug)]
pub struct Command {
    pub operands: Vec<Operand>,
    /// The command as written.
    pub text: String,
}

#[derive(Debug)]
pub struct Operand {
    pub at: usize,
    pub what: What,
    /// The operand as written.
    pub text: String,
}

#[derive(Debug)]
pub enum What {
    Dot,
    Nil,
    Bool(bool),
    /// Written without point and exponent.
    Int(i64),
    Float(f64),
    Text(String),
    /// `.a.b`
    Fields(Vec<String>),
    /// `$x.a.b`; the name has its dollar.
    Variable(String, Vec<String>),
    Function(String),
    /// `(…).a.b`, or a function's name with fields.
    Chain(Box<Operand>, Vec<String>),
    Pipe(Pipe),
}

/// Reads a text; `name` stands in errors.
pub fn parse(text: &str, name: &str) -> Result<Parsed, TemplateError> {
    let mut parser = Parser {
        text,
        name,
        tokens: tokens(text),
        next: 0,
        variables: vec!["$".into()],
        defined: HashMap::new(),
        depth: 0,
        in_range: 0,
        action_line: 0,
    };
    let (root, end) = parser.list()?;
    match end {
        End::Eof => Ok(Parsed { root, defined: parser.defined }),
        End::Close => Err(parser.error("unexpected {{end}}")),
        End::Else(_) => Err(parser.error("unexpected {{else}}")),
    }
}

/// What a list of nodes ended with.
enum End {
    Eof,
    Close,
    /// `{{else}}`, or the word after it: `if` or `with`.
    Else(Option<&'static str>),
}

struct Parser<'a> {
    text: &'a str,
    name: &'a str,
    tokens: Vec<Token>,
    next: usize,
    variables: Vec<String>,
    defined: HashMap<String, Vec<Node>>,
    depth: usize,
    in_range: usize,
    action_line: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn skip_space(&mut self) {
        while self.peek().kind == Kind::Space {
            self.next += 1;
        }
    }

    fn take_word(&mut self) -> Token {
        self.skip_space();
        self.take()
    }

    fn error_at(&self, line: usize, text: impl std::fmt::Display) -> TemplateError {
        TemplateError(format!("template: {}:{line}: {text}", self.name))
    }

    fn error(&self, text: impl std::fmt::Display) -> TemplateError {
        let before = self.next.saturating_sub(1).min(self.tokens.len() - 1);
        self.error_at(self.tokens[before].line, text)
    }

    fn unexpected(&self, token: &Token, context: &str) -> TemplateError {
        if token.kind == Kind::Error {
            let mut extra = String::new();
            if self.action_line != 0 && self.action_line != token.line {
                let in_action = if token.text.ends_with(" action") { "" } else { " in action" };
                extra = format!("{in_action} started at {}:{}", self.name, self.action_line);
            }
            return self.error_at(token.line, format!("{}{extra}", token.text));
        }
        self.error_at(token.line, format!("unexpected {} in {context}", token.described()))
    }

    fn deeper(&mut self) -> Result<(), TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }

    /// Nodes up to an end, an else or the end of the text.
    fn list(&mut self) -> Result<(Vec<Node>, End), TemplateError> {
        let mut nodes = Vec::new();
        loop {
            let token = self.take();
            match token.kind {
                Kind::Text => nodes.push(Node::Text(token.text)),
                Kind::Eof => return Ok((nodes, End::Eof)),
                Kind::Open => {
                    self.action_line = token.line;
                    match self.action()? {
                        Action::Node(node) => nodes.push(node),
                        Action::Nothing => {}
                        Action::End(end) => return Ok((nodes, end)),
                    }
                    self.action_line = 0;
                }
                _ => return Err(self.unexpected(&token, "input")),
            }
        }
    }

    fn action(&mut self) -> Result<Action, TemplateError> {
        self.skip_space();
        if self.peek().kind != Kind::Keyword {
            return Ok(Action::Node(Node::Action(self.pipeline("command", Kind::Close)?)));
        }
        let token = self.take();
        match token.text.as_str() {
            "if" => self.block("if").map(Action::Node),
            "with" => self.block("with").map(Action::Node),
            "range" => self.block("range").map(Action::Node),
            "end" => {
                self.close("end")?;
                Ok(Action::End(End::Close))
            }
            "else" => {
                self.skip_space();
                for word in ["if", "with"] {
                    if self.peek().kind == Kind::Keyword && self.peek().text == word {
                        self.next += 1;
                        return Ok(Action::End(End::Else(Some(word))));
                    }
                }
                self.close("else")?;
                Ok(Action::End(End::Else(None)))
            }
            word @ ("break" | "continue") => {
                let node = if word == "break" { Node::Break } else { Node::Continue };
                self.skip_space();
                let token = self.take();
                if token.kind != Kind::Close {
                    return Err(self.unexpected(&token, &format!("{{{{{word}}}}}")));
                }
                if self.in_range == 0 {
                    return Err(self.error(format!("{{{{{word}}}}} outside {{{{range}}}}")));
                }
                Ok(Action::Node(node))
            }
            "define" => {
                let (_, name) = self.template_name("define clause")?;
                self.close("define clause")?;
                let body = self.definition("define")?;
                self.defined.insert(name, body);
                Ok(Action::Nothing)
            }
            "block" => {
                let (at, name) = self.template_name("block clause")?;
                let pipe = Some(self.pipeline("block clause", Kind::Close)?);
                let body = self.definition("block")?;
                self.defined.entry(name.clone()).or_insert(body);
                Ok(Action::Node(Node::Call { at, name, pipe }))
            }
            "template" => {
                let (at, name) = self.template_name("template clause")?;
                self.skip_space();
                let pipe = match self.peek().kind {
                    Kind::Close => {
                        self.next += 1;
                        None
                    }
                    _ => Some(self.pipeline("template clause", Kind::Close)?),
                };
                Ok(Action::Node(Node::Call { at, name, pipe }))
            }
            _ => Err(self.unexpected(&token, "command")),
        }
    }

    fn close(&mut self, context: &str) -> Result<(), TemplateError> {
        let token = self.take_word();
        if token.kind == Kind::Close { Ok(()) } else { Err(self.unexpected(&token, context)) }
    }

    fn template_name(&mut self, context: &str) -> Result<(usize, String), TemplateError> {
        let token = self.take_word();
        match token.kind {
            Kind::Str | Kind::RawStr => Ok((token.at, self.unquoted(&token)?)),
            _ => Err(self.unexpected(&token, context)),
        }
    }

    /// The body of a definition, with variables of its own.
    fn definition(&mut self, what: &str) -> Result<Vec<Node>, TemplateError> {
        self.deeper()?;
        let outer = std::mem::replace(&mut self.variables, vec!["$".into()]);
        let in_range = std::mem::replace(&mut self.in_range, 0);
        let (body, end) = self.list()?;
        (self.variables, self.in_range) = (outer, in_range);
        self.depth -= 1;
        match end {
            End::Close => Ok(body),
            End::Else(_) => Err(self.error(format!("unexpected {{{{else}}}} in {what} clause"))),
            End::Eof => Err(self.error("unexpected EOF")),
        }
    }

    /// `if`, `with` and `range`, from behind the word to their end.
    fn block(&mut self, word: &'static str) -> Result<Node, TemplateError> {
        self.deeper()?;
        let known = self.variables.len();
        let pipe = self.pipeline(word, Kind::Close)?;
        let ranges = usize::from(word == "range");
        self.in_range += ranges;
        let (body, end) = self.list()?;
        self.in_range -= ranges;
        let otherwise = match end {
            End::Close => Vec::new(),
            End::Else(None) => match self.list()? {
                (nodes, End::Close) => nodes,
                (_, End::Else(_)) => return Err(self.error("expected end; found {{else}}")),
                (_, End::Eof) => return Err(self.error("unexpected EOF")),
            },
            // `{{else if x}}` is `{{else}}{{if x}}` with one end for both.
            End::Else(Some(next)) if next == word => vec![self.block(next)?],
            End::Else(Some(next)) => {
                return Err(self.error(format!("unexpected <{next}> in else")));
            }
            End::Eof => return Err(self.error("unexpected EOF")),
        };
        self.variables.truncate(known);
        self.depth -= 1;
        Ok(match word {
            "if" => Node::If { pipe, body, otherwise },
            "with" => Node::With { pipe, body, otherwise },
            _ => Node::Range { pipe, body, otherwise },
        })
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Result<Pipe, TemplateError> {
        self.deeper()?;
        let mut pipe = Pipe { variables: Vec::new(), assigns: false, commands: Vec::new() };
        self.declarations(&mut pipe, context)?;
        loop {
            self.skip_space();
            let token = self.peek().clone();
            match token.kind {
                kind if kind == end => {
                    self.next += 1;
                    if pipe.commands.is_empty() {
                        return Err(self.error(format!("missing value for {context}")));
                    }
                    for (at, command) in pipe.commands.iter().enumerate().skip(1) {
                        let constant = matches!(
                            command.operands[0].what,
                            What::Bool(_)
                                | What::Dot
                                | What::Nil
                                | What::Int(_)
                                | What::Float(_)
                                | What::Text(_)
                        );
                        if constant {
                            let text = format!("non executable command in pipeline stage {}", at + 1);
                            return Err(self.error(text));
                        }
                    }
                    self.depth -= 1;
                    return Ok(pipe);
                }
                Kind::Bool
                | Kind::Char
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::RawStr
                | Kind::Str
                | Kind::Variable
                | Kind::LeftParen => {
                    let command = self.command()?;
                    pipe.commands.push(command);
                }
                _ => {
                    self.next += 1;
                    return Err(self.unexpected(&token, context));
                }
            }
        }
    }

    /// `$x :=`, `$x =`, and in a range `$i, $x :=`.
    fn declarations(&mut self, pipe: &mut Pipe, context: &str) -> Result<(), TemplateError> {
        loop {
            self.skip_space();
            if self.peek().kind != Kind::Variable {
                return Ok(());
            }
            let from = self.next;
            let variable = self.take();
            self.skip_space();
            let token = self.peek().clone();
            match token.kind {
                Kind::Assign | Kind::Declare => {
                    self.next += 1;
                    pipe.assigns = token.kind == Kind::Assign;
                    pipe.variables.push(variable.text.clone());
                    if pipe.assigns {
                        for name in &pipe.variables {
                            if !self.variables.contains(name) {
                                return Err(self.error(format!("undefined variable {}", quote(name))));
                            }
                        }
                    } else {
                        self.variables.extend(pipe.variables.iter().cloned());
                    }
                    return Ok(());
                }
                Kind::Other if token.text == "," => {
                    self.next += 1;
                    pipe.variables.push(variable.text);
                    self.skip_space();
                    if context != "range" || pipe.variables.len() > 1 {
                        return Err(self.error(format!("too many declarations in {context}")));
                    }
                    if self.peek().kind != Kind::Variable {
                        return Err(self.error("range can only initialize variables"));
                    }
                }
                _ => {
                    self.next = from;
                    return Ok(());
                }
            }
        }
    }

    fn command(&mut self) -> Result<Command, TemplateError> {
        let from = self.peek().at;
        let mut operands = Vec::new();
        let to;
        loop {
            self.skip_space();
            if let Some(operand) = self.operand()? {
                operands.push(operand);
            }
            let token = self.peek().clone();
            match token.kind {
                Kind::Space => continue,
                Kind::Close | Kind::RightParen => {
                    to = token.at;
                    break;
                }
                Kind::Pipe => {
                    to = token.at;
                    self.next += 1;
                    break;
                }
                _ => {
                    self.next += 1;
                    return Err(self.unexpected(&token, "operand"));
                }
            }
        }
        if operands.is_empty() {
            return Err(self.error("empty command"));
        }
        Ok(Command { operands, text: self.text[from..to].trim().to_owned() })
    }

    fn operand(&mut self) -> Result<Option<Operand>, TemplateError> {
        let at = self.peek().at;
        let Some(what) = self.term()? else { return Ok(None) };
        let text = |parser: &Self| parser.text[at..parser.peek().at].trim().to_owned();
        let mut fields = Vec::new();
        let term_text = text(self);
        while self.peek().kind == Kind::Field {
            fields.push(self.take().text[1..].to_owned());
        }
        if fields.is_empty() {
            return Ok(Some(Operand { at, what, text: term_text }));
        }
        let what = match what {
            What::Fields(mut first) => {
                first.append(&mut fields);
                What::Fields(first)
            }
            What::Variable(name, _) => What::Variable(name, fields),
            What::Bool(_) | What::Text(_) | What::Int(_) | What::Float(_) | What::Nil | What::Dot => {
                return Err(self.error(format!("unexpected . after term {}", quote(&term_text))));
            }
            what => What::Chain(Box::new(Operand { at, what, text: term_text }), fields),
        };
        Ok(Some(Operand { at, what, text: text(self) }))
    }

    fn term(&mut self) -> Result<Option<What>, TemplateError> {
        self.skip_space();
        let token = self.peek().clone();
        self.next += 1;
        Ok(Some(match token.kind {
            Kind::Identifier => {
                if !functions::is_known(&token.text) {
                    return Err(self.error(format!("function {} not defined", quote(&token.text))));
                }
                What::Function(token.text)
            }
            Kind::Dot => What::Dot,
            Kind::Nil => What::Nil,
            Kind::Bool => What::Bool(token.text == "true"),
            Kind::Variable => {
                if !self.variables.contains(&token.text) {
                    return Err(self.error(format!("undefined variable {}", quote(&token.text))));
                }
                What::Variable(token.text, Vec::new())
            }
            Kind::Field => What::Fields(vec![token.text[1..].to_owned()]),
            Kind::Number => self.number(&token.text)?,
            Kind::Char => {
                let text = self.unquoted(&token)?;
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(c), None) => What::Int(i64::from(u32::from(c))),
                    _ => {
                        let text = format!("malformed character constant: {}", token.text);
                        return Err(self.error(text));
                    }
                }
            }
            Kind::Str | Kind::RawStr => What::Text(self.unquoted(&token)?),
            Kind::LeftParen => What::Pipe(self.pipeline("parenthesized pipeline", Kind::RightParen)?),
            _ => {
                self.next -= 1;
                return Ok(None);
            }
        }))
    }

    fn unquoted(&self, token: &Token) -> Result<String, TemplateError> {
        // Between the marks Go's strings and PromQL's escape alike.
        let bytes = unquote(&token.text).ok_or_else(|| self.error("invalid syntax"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn number(&self, text: &str) -> Result<What, TemplateError> {
        let clean = text.replace('_', "");
        let (negative, digits) = match clean.strip_prefix(['+', '-']) {
            Some(rest) => (clean.starts_with('-'), rest),
            None => (false, clean.as_str()),
        };
        let lower = digits.to_ascii_lowercase();
        let based = [("0x", 16), ("0o", 8), ("0b", 2)]
            .iter()
            .find_map(|(prefix, base)| lower.strip_prefix(prefix).map(|rest| (rest.to_owned(), *base)));
        let whole = match &based {
            Some((rest, base)) => i64::from_str_radix(rest, *base).ok(),
            None if lower.len() > 1 && lower.starts_with('0') => i64::from_str_radix(&lower, 8).ok(),
            None => lower.parse().ok(),
        };
        if let Some(n) = whole {
            return Ok(What::Int(if negative { -n } else { n }));
        }
        match lower.parse::<f64>() {
            Ok(v) if based.is_none() && v.is_finite() => Ok(What::Float(if negative { -v } else { v })),
            _ => Err(self.error(format!("illegal number syntax: {}", quote(text)))),
        }
    }
}

enum Action {
    Node(Node),
    Nothing,
    End(End),
}
