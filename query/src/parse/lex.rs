//! The lexer: query text to tokens, one at a time, never looking back.
//!
//! The same characters mean different tokens inside braces, brackets and series descriptions, so the lexer
//! keeps a mode. Its modes and error texts follow `promql/parser/lex.go` of Prometheus 3.14.

use model::quote::{code_point, quote, quote_char};

use super::ast::BinaryOp;
use super::token::{HistKey, Kind, ResetHint, Token, keyword};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Statements,
    DurationExpr,
    InsideBraces,
    ValueSequence,
    Histogram,
    Buckets,
    /// After an error: nothing more comes.
    Done,
}

/// What follows the `}}` of a histogram description.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HistState {
    None,
    Open,
    Times,
    Add,
    Sub,
}

pub struct Lexer<'a> {
    text: &'a str,
    pos: usize,
    start: usize,
    mode: Mode,
    paren_depth: i64,
    brace_open: bool,
    bracket_open: bool,
    got_colon: bool,
    got_duration: bool,
    series: bool,
    hist: HistState,
    error: String,
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

fn is_duration_keyword_start(c: char) -> bool {
    matches!(c, 's' | 'S' | 'r' | 'R' | 'm' | 'M')
}

/// Stands for the end of input in error texts, as upstream prints it.
fn shown(c: Option<char>) -> char {
    c.unwrap_or('\u{fffd}')
}

impl<'a> Lexer<'a> {
    /// `series`: the text is a series description of a test script, not a query.
    pub fn new(text: &'a str, series: bool) -> Self {
        Lexer {
            text,
            pos: 0,
            start: 0,
            mode: Mode::Statements,
            paren_depth: 0,
            brace_open: false,
            bracket_open: false,
            got_colon: false,
            got_duration: false,
            series,
            hist: HistState::None,
            error: String::new(),
        }
    }

    /// What the `Error` token complains about.
    pub fn error(&self) -> &str {
        &self.error
    }

    /// The next token. After the end it is always `Eof`, after an error always `Error`.
    pub fn next_token(&mut self) -> Token {
        loop {
            let step = match self.mode {
                Mode::Statements => self.statements(),
                Mode::DurationExpr => self.duration_expr(),
                Mode::InsideBraces => self.inside_braces(),
                Mode::ValueSequence => self.value_sequence(),
                Mode::Histogram => self.histogram(),
                Mode::Buckets => self.buckets(),
                Mode::Done => return self.token(if self.error.is_empty() { Kind::Eof } else { Kind::Error }),
            };
            if let Some(token) = step {
                return token;
            }
        }
    }

    fn peek(&self) -> Option<char> {
        let bytes = self.text.as_bytes();
        match bytes.get(self.pos) {
            Some(&b) if b < 0x80 => Some(b as char),
            Some(_) => self.text[self.pos..].chars().next(),
            None => None,
        }
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn bump_if(&mut self, want: impl Fn(char) -> bool) -> bool {
        match self.peek() {
            Some(c) if want(c) => {
                self.pos += c.len_utf8();
                true
            }
            _ => false,
        }
    }

    fn bump_while(&mut self, want: impl Fn(char) -> bool) {
        while self.bump_if(&want) {}
    }

    fn token(&mut self, kind: Kind) -> Token {
        let token = Token { kind, start: self.start as u32, end: self.pos as u32 };
        self.start = self.pos;
        token
    }

    fn emit(&mut self, kind: Kind) -> Option<Token> {
        Some(self.token(kind))
    }

    /// An error stands from the start of the token to the end of the text.
    fn fail(&mut self, message: impl Into<String>) -> Option<Token> {
        self.error = message.into();
        self.mode = Mode::Done;
        let start = self.start;
        self.pos = self.text.len();
        self.start = self.pos;
        Some(Token { kind: Kind::Error, start: start as u32, end: self.pos as u32 })
    }

    /// An error right after a token that was already complete.
    fn fail_after(&mut self, message: impl Into<String>) -> Option<Token> {
        self.start = self.pos;
        self.fail(message)
    }

    fn skip_spaces(&mut self) -> Option<Token> {
        self.bump_while(is_space);
        self.start = self.pos;
        None
    }

    fn skip_comment(&mut self) -> Option<Token> {
        self.bump_while(|c| c != '\n' && c != '\r');
        self.start = self.pos;
        self.mode = Mode::Statements;
        None
    }

    fn statements(&mut self) -> Option<Token> {
        if self.hist != HistState::None {
            self.mode = Mode::Histogram;
            return None;
        }
        if self.brace_open {
            self.mode = Mode::InsideBraces;
            return None;
        }
        let Some(c) = self.bump() else {
            if self.paren_depth != 0 {
                return self.fail("unclosed left parenthesis");
            }
            if self.bracket_open {
                return self.fail("unclosed left bracket");
            }
            self.mode = Mode::Done;
            return self.emit(Kind::Eof);
        };
        match c {
            '#' => self.skip_comment(),
            ',' => self.emit(Kind::Comma),
            _ if is_space(c) => self.skip_spaces(),
            '*' => self.emit(Kind::Op(BinaryOp::Mul)),
            '/' => self.emit(Kind::Op(BinaryOp::Div)),
            '%' => self.emit(Kind::Op(BinaryOp::Mod)),
            '+' => self.emit(Kind::Op(BinaryOp::Add)),
            '-' => self.emit(Kind::Op(BinaryOp::Sub)),
            '^' => self.emit(Kind::Op(BinaryOp::Pow)),
            '=' | '!' | '<' | '>' => self.comparison(c),
            _ if c.is_ascii_digit() || (c == '.' && self.peek().is_some_and(|c| c.is_ascii_digit())) => {
                self.pos -= 1;
                self.number_or_duration()
            }
            '"' | '\'' => self.string(c),
            '`' => self.raw_string(),
            _ if is_alpha(c) || c == ':' => self.word(c),
            '(' => {
                self.paren_depth += 1;
                self.emit(Kind::LeftParen)
            }
            ')' => self.right_paren(),
            '{' => {
                self.brace_open = true;
                self.mode = Mode::InsideBraces;
                self.emit(Kind::LeftBrace)
            }
            '[' => self.left_bracket(),
            ']' => self.right_bracket(),
            '@' => self.emit(Kind::At),
            _ => self.fail(format!("unexpected character: {}", quote_char(c))),
        }
    }

    /// An operator that begins with `=`, `!`, `<` or `>`.
    fn comparison(&mut self, first: char) -> Option<Token> {
        let op = match first {
            '=' if self.bump_if(|c| c == '=') => BinaryOp::Eql,
            '=' if self.peek() == Some('~') => return self.fail("unexpected character after '=': '~'"),
            '=' => return self.emit(Kind::Equal),
            '!' => match self.bump() {
                Some('=') => BinaryOp::Neq,
                other => {
                    let other = quote_char(shown(other));
                    return self.fail(format!("unexpected character after '!': {other}"));
                }
            },
            '<' if self.bump_if(|c| c == '=') => BinaryOp::Lte,
            '<' if self.bump_if(|c| c == '/') => BinaryOp::TrimUpper,
            '<' => BinaryOp::Lss,
            _ if self.bump_if(|c| c == '=') => BinaryOp::Gte,
            _ if self.bump_if(|c| c == '/') => BinaryOp::TrimLower,
            _ => BinaryOp::Gtr,
        };
        self.emit(Kind::Op(op))
    }

    fn left_bracket(&mut self) -> Option<Token> {
        if self.bracket_open {
            return self.fail("unexpected left bracket '['");
        }
        self.got_colon = false;
        self.bracket_open = true;
        self.mode = Mode::DurationExpr;
        self.emit(Kind::LeftBracket)
    }

    fn right_bracket(&mut self) -> Option<Token> {
        if !self.bracket_open {
            return self.fail("unexpected right bracket ']'");
        }
        self.bracket_open = false;
        self.emit(Kind::RightBracket)
    }

    fn right_paren(&mut self) -> Option<Token> {
        self.paren_depth -= 1;
        if self.paren_depth < 0 {
            return self.fail_after("unexpected right parenthesis ')'");
        }
        self.emit(Kind::RightParen)
    }

    /// A letter or colon outside braces: a name, a keyword, or inside brackets the step's colon and duration
    /// functions.
    fn word(&mut self, first: char) -> Option<Token> {
        if !self.bracket_open {
            self.pos -= 1;
            return self.keyword_or_identifier();
        }
        if first == ':' {
            if self.got_colon {
                return self.fail("unexpected colon ':'");
            }
            self.got_colon = true;
            return self.emit(Kind::Colon);
        }
        if is_duration_keyword_start(first)
            && let Some(kind) = self.duration_keyword()
        {
            return self.emit(kind);
        }
        self.fail(format!("unexpected character: {}, expected ':'", quote_char(first)))
    }

    fn duration_keyword(&mut self) -> Option<Kind> {
        self.bump_while(is_alpha);
        keyword(&self.text[self.start..self.pos])
            .filter(|k| matches!(k, Kind::Step | Kind::Range | Kind::MaxOf | Kind::MinOf))
    }

    /// Right after `[`, until the first number: only what a duration can begin with.
    fn duration_expr(&mut self) -> Option<Token> {
        let Some(c) = self.bump() else {
            return self.fail("unexpected end of input in duration expression");
        };
        match c {
            ']' => {
                self.bracket_open = false;
                self.got_colon = false;
                self.mode = Mode::Statements;
                self.emit(Kind::RightBracket)
            }
            ':' => {
                if !self.got_duration {
                    return self.fail_after("unexpected colon before duration in duration expression");
                }
                if self.got_colon {
                    return self.fail_after("unexpected repeated colon in duration expression");
                }
                self.got_colon = true;
                self.emit(Kind::Colon)
            }
            '(' => {
                self.paren_depth += 1;
                self.emit(Kind::LeftParen)
            }
            ')' => self.right_paren(),
            _ if is_space(c) => self.skip_spaces(),
            '+' => self.emit(Kind::Op(BinaryOp::Add)),
            '-' => self.emit(Kind::Op(BinaryOp::Sub)),
            '*' => self.emit(Kind::Op(BinaryOp::Mul)),
            '/' => self.emit(Kind::Op(BinaryOp::Div)),
            '%' => self.emit(Kind::Op(BinaryOp::Mod)),
            '^' => self.emit(Kind::Op(BinaryOp::Pow)),
            ',' => self.emit(Kind::Comma),
            _ if is_duration_keyword_start(c) => match self.duration_keyword() {
                Some(kind) => self.emit(kind),
                None => self.fail(format!("unexpected character in duration expression: {}", quote_char(c))),
            },
            _ if c.is_ascii_digit() || (c == '.' && self.peek().is_some_and(|c| c.is_ascii_digit())) => {
                self.pos -= 1;
                self.got_duration = true;
                self.mode = Mode::Statements;
                self.number_or_duration()
            }
            _ => self.fail(format!("unexpected character in duration expression: {}", quote_char(c))),
        }
    }

    fn inside_braces(&mut self) -> Option<Token> {
        let Some(c) = self.bump() else {
            return self.fail("unexpected end of input inside braces");
        };
        match c {
            '#' => self.skip_comment(),
            _ if is_space(c) => self.skip_spaces(),
            _ if is_alpha(c) => {
                self.bump_while(is_alphanumeric);
                self.emit(Kind::Identifier)
            }
            ',' => self.emit(Kind::Comma),
            '"' | '\'' => self.string(c),
            '`' => self.raw_string(),
            '=' => {
                let kind = if self.bump_if(|c| c == '~') { Kind::EqualRegex } else { Kind::Equal };
                self.emit(kind)
            }
            '!' => match self.bump() {
                Some('~') => self.emit(Kind::NotRegex),
                Some('=') => self.emit(Kind::Op(BinaryOp::Neq)),
                other => self.fail(format!(
                    "unexpected character after '!' inside braces: {}",
                    quote_char(shown(other))
                )),
            },
            '{' => self.fail("unexpected left brace '{'"),
            '}' => {
                self.brace_open = false;
                self.mode = if self.series { Mode::ValueSequence } else { Mode::Statements };
                self.emit(Kind::RightBrace)
            }
            _ => self.fail(format!("unexpected character inside braces: {}", quote_char(c))),
        }
    }

    fn string(&mut self, open: char) -> Option<Token> {
        loop {
            match self.bump() {
                Some('\\') => {
                    if let Some(message) = self.escape(open) {
                        return self.fail(message);
                    }
                }
                Some('\u{fffd}') => return self.fail("invalid UTF-8 rune"),
                None | Some('\n') => return self.fail("unterminated quoted string"),
                Some(c) if c == open => return self.emit(Kind::Str),
                Some(_) => {}
            }
        }
    }

    fn raw_string(&mut self) -> Option<Token> {
        loop {
            match self.bump() {
                Some('\u{fffd}') => return self.fail("invalid UTF-8 rune"),
                None => return self.fail("unterminated raw string"),
                Some('`') => return self.emit(Kind::Str),
                Some(_) => {}
            }
        }
    }

    /// Checks one escape sequence, the backslash already read; what is wrong with it, if anything.
    fn escape(&mut self, open: char) -> Option<String> {
        let c = self.bump();
        let (digits, base, max) = match c {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => return None,
            Some(c) if c == open => return None,
            Some('0'..='7') => {
                self.pos -= 1;
                (3, 8, 255)
            }
            Some('x') => (2, 16, 255),
            Some('u') => (4, 16, char::MAX as u32),
            Some('U') => (8, 16, char::MAX as u32),
            None => return Some("escape sequence not terminated".into()),
            Some(c) => return Some(format!("unknown escape sequence {}", code_point(c))),
        };
        let mut value = 0u32;
        for _ in 0..digits {
            match self.bump() {
                None => return Some("escape sequence not terminated".into()),
                Some(c) => match c.to_digit(base) {
                    Some(d) => value = value.wrapping_mul(base).wrapping_add(d),
                    None => return Some(format!("illegal character {} in escape sequence", code_point(c))),
                },
            }
        }
        (value > max || (0xd800..0xe000).contains(&value))
            .then(|| "escape sequence is an invalid Unicode code point".into())
    }

    fn keyword_or_identifier(&mut self) -> Option<Token> {
        self.bump_while(|c| is_alphanumeric(c) || c == ':');
        let word = &self.text[self.start..self.pos];
        let kind = match keyword(word) {
            // Names of metrics unless an argument follows, so that old queries with such names go on working.
            Some(Kind::Fill | Kind::FillLeft | Kind::FillRight)
                if !self.text[self.pos..].trim_start_matches(is_space).starts_with('(') =>
            {
                Kind::Identifier
            }
            Some(kind) => kind,
            None if word.contains(':') => Kind::MetricIdentifier,
            None => Kind::Identifier,
        };
        let token = self.emit(kind);
        self.mode =
            if self.series && self.peek() != Some('{') { Mode::ValueSequence } else { Mode::Statements };
        token
    }

    fn number(&mut self) -> Option<Token> {
        if self.scan_number() {
            return self.emit(Kind::Number);
        }
        let seen = quote(&self.text[self.start..self.pos]);
        self.fail(format!("bad number syntax: {seen}"))
    }

    fn number_or_duration(&mut self) -> Option<Token> {
        if self.scan_number() {
            return self.emit(Kind::Number);
        }
        if self.scan_duration_rest() {
            return self.emit(Kind::Duration);
        }
        let seen = quote(&self.text[self.start..self.pos]);
        self.fail(format!("bad number or duration syntax: {seen}"))
    }

    /// After the digits that were no number: a unit, then pairs of digits and unit.
    fn scan_duration_rest(&mut self) -> bool {
        if !self.bump_if(|c| "smhdwy".contains(c)) {
            return false;
        }
        self.bump_if(|c| c == 's');
        while self.bump_if(|c| c.is_ascii_digit()) {
            self.bump_while(|c| c.is_ascii_digit());
            if !self.bump_if(|c| "smhdw".contains(c)) {
                return false;
            }
            self.bump_if(|c| c == 's');
        }
        !self.bump_if(is_alphanumeric)
    }

    /// Scans what looks like a number: decimal, hexadecimal, float, with underscores. The parser decides
    /// whether it is one. On `false` the position stays where the scan gave up.
    fn scan_number(&mut self) -> bool {
        let from = self.pos;
        let mut hex = false;
        // `0x…` would be a repetition in a series description.
        if !self.series && self.bump_if(|c| c == '0') && self.bump_if(|c| c == 'x' || c == 'X') {
            self.bump_if(|c| c == '_');
            hex = true;
        }
        let is_digit = |c: char| if hex { c.is_ascii_hexdigit() } else { c.is_ascii_digit() };
        let is_exponent = |c: char| c == 'e' || c == 'E';
        self.bump_if(|c| c == '.');
        self.bump_if(is_digit);
        let (mut dot_seen, mut exponent_seen) = (false, false);
        while let Some(c) = self.peek().filter(|&c| is_digit(c) || c == '.' || c == '_' || is_exponent(c)) {
            if c == '.' {
                self.pos += 1;
                if dot_seen || self.bump_if(|c| c == '_' || c == '.') || hex {
                    return false;
                }
                dot_seen = true;
            } else if is_exponent(c) {
                self.pos += 1;
                if exponent_seen {
                    return false;
                }
                exponent_seen = true;
                self.bump_if(|c| c == '+' || c == '-');
                if self.bump_if(|c| c == '.' || c == '_' || is_exponent(c)) || self.peek().is_none() {
                    return false;
                }
            } else if c == '_' {
                self.pos += 1;
                if self.bump_if(|c| c == '.' || c == '_' || is_exponent(c)) || self.peek().is_none() {
                    return false;
                }
            } else {
                self.bump_while(is_digit);
            }
        }
        if self.pos == from {
            return false;
        }
        match self.peek() {
            Some('x') if self.series => true,
            Some(c) => !is_alphanumeric(c),
            None => true,
        }
    }

    fn value_sequence(&mut self) -> Option<Token> {
        if self.hist != HistState::None {
            self.mode = Mode::Histogram;
            return None;
        }
        let Some(c) = self.bump() else {
            self.mode = Mode::Statements;
            return None;
        };
        match c {
            '{' if self.peek() == Some('{') => {
                self.bump();
                self.hist = HistState::Open;
                self.mode = Mode::Histogram;
                self.emit(Kind::OpenHist)
            }
            _ if is_space(c) => self.space(),
            '+' => self.emit(Kind::Op(BinaryOp::Add)),
            '-' => self.emit(Kind::Op(BinaryOp::Sub)),
            'x' => self.emit(Kind::Times),
            '_' => self.emit(Kind::Blank),
            _ if c.is_ascii_digit() || (c == '.' && self.peek().is_some_and(|c| c.is_ascii_digit())) => {
                self.pos -= 1;
                self.number()
            }
            _ if is_alpha(c) => {
                self.pos -= 1;
                self.keyword_or_identifier()
            }
            _ => self.fail(format!("unexpected character in series sequence: {}", quote_char(c))),
        }
    }

    /// A run of white space that means something: one token of its first character.
    fn space(&mut self) -> Option<Token> {
        let token = self.emit(Kind::Space);
        self.skip_spaces();
        token
    }

    fn histogram(&mut self) -> Option<Token> {
        let after = match self.hist {
            HistState::Times => Some(Kind::Times),
            HistState::Add => Some(Kind::Op(BinaryOp::Add)),
            HistState::Sub => Some(Kind::Op(BinaryOp::Sub)),
            HistState::None | HistState::Open => None,
        };
        if let Some(kind) = after {
            self.hist = HistState::None;
            self.mode = Mode::ValueSequence;
            self.bump();
            return self.emit(kind);
        }
        if self.bracket_open {
            self.mode = Mode::Buckets;
            return None;
        }
        let c = self.bump();
        match c {
            Some(c) if is_space(c) => self.space(),
            Some(c) if is_alpha(c) => self.histogram_word(),
            Some(':') => self.emit(Kind::Colon),
            Some('-') => self.emit(Kind::Op(BinaryOp::Sub)),
            Some(c) if c.is_ascii_digit() => {
                self.pos -= 1;
                self.number()
            }
            Some('[') => {
                self.bracket_open = true;
                self.got_colon = false;
                self.got_duration = false;
                self.mode = Mode::Buckets;
                self.emit(Kind::LeftBracket)
            }
            Some('}') if self.peek() == Some('}') => {
                self.bump();
                self.hist = match self.peek() {
                    Some('x') => HistState::Times,
                    Some('+') => HistState::Add,
                    Some('-') => HistState::Sub,
                    _ => HistState::None,
                };
                self.mode = if self.hist == HistState::None { Mode::ValueSequence } else { Mode::Histogram };
                self.emit(Kind::CloseHist)
            }
            other => self
                .fail(format!("histogram description incomplete unexpected: {}", quote_char(shown(other)))),
        }
    }

    fn histogram_word(&mut self) -> Option<Token> {
        self.bump_while(is_alpha);
        let word = &self.text[self.start..self.pos];
        let lower = word.to_ascii_lowercase();
        if let Some(key) = HistKey::from_lower(&lower) {
            if self.peek() == Some(':') {
                return self.emit(Kind::HistKey(key));
            }
            return self.fail("missing `:` for histogram descriptor");
        }
        let kind = match lower.as_str() {
            "inf" | "nan" => Kind::Number,
            "unknown" => Kind::ResetHint(ResetHint::Unknown),
            "reset" => Kind::ResetHint(ResetHint::Reset),
            "not_reset" => Kind::ResetHint(ResetHint::NotReset),
            "gauge" => Kind::ResetHint(ResetHint::Gauge),
            _ => {
                let message = format!("bad histogram descriptor found: {}", quote(word));
                return self.fail(message);
            }
        };
        self.emit(kind)
    }

    fn buckets(&mut self) -> Option<Token> {
        let Some(c) = self.bump() else {
            return self
                .fail(format!("invalid character in buckets description: {}", quote_char(shown(None))));
        };
        match c {
            _ if is_space(c) => self.space(),
            '-' => self.emit(Kind::Op(BinaryOp::Sub)),
            _ if c.is_ascii_digit() => {
                self.pos -= 1;
                self.number()
            }
            ']' => {
                self.bracket_open = false;
                self.mode = Mode::Histogram;
                self.emit(Kind::RightBracket)
            }
            _ if is_alpha(c) => match self.text[self.start..self.pos].to_ascii_lowercase().as_str() {
                "inf" | "nan" => self.emit(Kind::Number),
                _ => None,
            },
            _ => self.fail(format!("invalid character in buckets description: {}", quote_char(c))),
        }
    }
}
