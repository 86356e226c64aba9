//! A template's text to tokens, as Go's `text/template/parse` cuts it.

use model::quote::{code_point, quote};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Open,
    Close,
    Space,
    /// `.name`
    Field,
    /// `$name`, or `$` alone.
    Variable,
    Identifier,
    Keyword,
    Dot,
    Nil,
    Bool,
    Number,
    Str,
    RawStr,
    Char,
    Pipe,
    Assign,
    Declare,
    LeftParen,
    RightParen,
    /// A character that means nothing by itself, such as a comma.
    Other,
    /// The text is what is wrong.
    Error,
    Eof,
}

/// A token with its place: a byte offset and a line from 1.
#[derive(Clone, Debug)]
pub struct Token {
    pub kind: Kind,
    pub text: String,
    pub at: usize,
    pub line: usize,
}

impl Token {
    /// As Go's messages show a token.
    pub fn described(&self) -> String {
        match self.kind {
            Kind::Eof => "EOF".into(),
            Kind::Error => self.text.clone(),
            Kind::Keyword | Kind::Nil => format!("<{}>", self.text),
            Kind::Dot => "<.>".into(),
            _ if self.text.chars().count() > 10 => {
                format!("{}...", quote(self.text.chars().take(10).collect::<String>()))
            }
            _ => quote(&self.text),
        }
    }
}

const KEYWORDS: [&str; 11] =
    ["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with", "nil"];

const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];

/// All tokens of a text; the last is `Eof` or an error.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { text, at: 0, line: 1, out: Vec::new(), trim: false };
    lexer.run();
    lexer.out
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    out: Vec<Token>,
    /// The text that follows loses its leading space.
    trim: bool,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// A token of the next `len` bytes.
    fn push(&mut self, kind: Kind, len: usize) {
        let text = self.text[self.at..self.at + len].to_owned();
        self.skip(len, |line, at| Token { kind, text, at, line });
    }

    fn skip(&mut self, len: usize, token: impl FnOnce(usize, usize) -> Token) {
        self.out.push(token(self.line, self.at));
        self.advance(len);
    }

    fn advance(&mut self, len: usize) {
        self.line += self.text[self.at..self.at + len].matches('\n').count();
        self.at += len;
    }

    fn error(&mut self, text: impl Into<String>) {
        self.out.push(Token { kind: Kind::Error, text: text.into(), at: self.at, line: self.line });
    }

    fn run(&mut self) {
        loop {
            let open = self.rest().find("{{");
            let len = open.unwrap_or(self.rest().len());
            self.text_before(len, open.is_some());
            if open.is_none() {
                let (at, line) = (self.at, self.line);
                return self.out.push(Token { kind: Kind::Eof, text: String::new(), at, line });
            }
            let trimmed = is_left_trim(&self.rest()[2..]);
            let marker = if trimmed { 4 } else { 2 };
            if self.rest()[marker.min(self.rest().len())..].starts_with("/*") {
                if !self.comment(marker) {
                    return;
                }
                continue;
            }
            self.push(Kind::Open, 2);
            if trimmed {
                self.advance(2);
            }
            if !self.action() {
                return;
            }
        }
    }

    /// The text of `len` bytes up to an action, without what trim markers take.
    fn text_before(&mut self, len: usize, action_follows: bool) {
        let mut text = &self.text[self.at..self.at + len];
        if std::mem::take(&mut self.trim) {
            let leading = len - text.trim_start_matches(SPACES).len();
            self.advance(leading);
            text = &self.text[self.at..self.at + len - leading];
        }
        let whole = text.len();
        if action_follows && is_left_trim(&self.text[self.at + whole + 2..]) {
            text = text.trim_end_matches(SPACES);
        }
        let kept = text.len();
        if kept > 0 {
            self.push(Kind::Text, kept);
        }
        self.advance(whole - kept);
    }

    /// A comment with its delimiters; false where it does not end.
    fn comment(&mut self, marker: usize) -> bool {
        let Some(end) = self.rest()[marker..].find("*/") else {
            self.error("unclosed comment");
            return false;
        };
        let after = marker + end + 2;
        let tail = &self.rest()[after..];
        let (len, trim) = match tail {
            t if t.starts_with("}}") => (2, false),
            t if is_right_trim(t) => (4, true),
            _ => {
                self.error("comment ends before closing delimiter");
                return false;
            }
        };
        self.advance(after + len);
        self.trim = trim;
        true
    }

    /// What is between `{{` and `}}`; false after an error.
    fn action(&mut self) -> bool {
        let mut parens = 0usize;
        loop {
            let rest = self.rest();
            let closing = match rest {
                r if r.starts_with("}}") => Some((2, false)),
                r if is_right_trim(r) => Some((4, true)),
                _ => None,
            };
            if let Some((len, trim)) = closing {
                if parens > 0 {
                    self.error("unclosed left paren");
                    return false;
                }
                if trim {
                    self.advance(len - 2);
                }
                self.push(Kind::Close, 2);
                self.trim = trim;
                return true;
            }
            let Some(c) = rest.chars().next() else {
                self.error("unclosed action");
                return false;
            };
            match c {
                _ if SPACES.contains(&c) => {
                    let mut len = rest.len() - rest.trim_start_matches(SPACES).len();
                    // The space before `-}}` belongs to it.
                    if is_right_trim(&rest[len - 1..]) {
                        len -= 1;
                    }
                    self.push(Kind::Space, len);
                }
                '=' => self.push(Kind::Assign, 1),
                ':' if rest.starts_with(":=") => self.push(Kind::Declare, 2),
                ':' => {
                    self.error("expected :=");
                    return false;
                }
                '|' => self.push(Kind::Pipe, 1),
                '(' => {
                    parens += 1;
                    self.push(Kind::LeftParen, 1);
                }
                ')' => {
                    if parens == 0 {
                        self.error("unexpected right paren");
                        return false;
                    }
                    parens -= 1;
                    self.push(Kind::RightParen, 1);
                }
                '"' | '\'' | '`' => {
                    if !self.quoted(c) {
                        return false;
                    }
                }
                _ => {
                    if !self.word(c) {
                        return false;
                    }
                }
            }
        }
    }

    fn quoted(&mut self, mark: char) -> bool {
        let (kind, what) = match mark {
            '"' => (Kind::Str, "unterminated quoted string"),
            '\'' => (Kind::Char, "unterminated character constant"),
            _ => (Kind::RawStr, "unterminated raw quoted string"),
        };
        let mut escaped = false;
        let end = self.rest().char_indices().skip(1).find_map(|(at, c)| {
            if mark != '`' && (c == '\n' || std::mem::take(&mut escaped)) {
                return (c == '\n').then_some(None);
            }
            escaped = c == '\\' && mark != '`';
            (c == mark).then_some(Some(at + 1))
        });
        match end {
            Some(Some(len)) => {
                self.push(kind, len);
                true
            }
            _ => {
                self.error(what);
                false
            }
        }
    }

    /// Fields, variables, numbers, identifiers and stray characters.
    fn word(&mut self, c: char) -> bool {
        let rest = self.rest();
        let second = rest.chars().nth(1);
        let is_number = c.is_ascii_digit()
            || matches!(c, '+' | '-')
            || (c == '.' && second.is_some_and(|c| c.is_ascii_digit()));
        if is_number {
            return self.number();
        }
        let name_len = |from: usize| {
            from + rest[from..].find(|c: char| !is_alphanumeric(c)).unwrap_or(rest.len() - from)
        };
        let (kind, len) = match c {
            '.' if name_len(1) == 1 => (Kind::Dot, 1),
            '.' => (Kind::Field, name_len(1)),
            '$' => (Kind::Variable, name_len(1)),
            c if is_alphanumeric(c) => {
                let len = name_len(0);
                let kind = match &rest[..len] {
                    "nil" => Kind::Nil,
                    "true" | "false" => Kind::Bool,
                    word if KEYWORDS.contains(&word) => Kind::Keyword,
                    _ => Kind::Identifier,
                };
                (kind, len)
            }
            c if c.is_ascii_graphic() => (Kind::Other, 1),
            c => {
                self.error(format!("unrecognized character in action: {}", code_point(c)));
                return false;
            }
        };
        if kind != Kind::Other
            && let Some(after) = rest[len..].chars().next()
            && !SPACES.contains(&after)
            && !matches!(after, '.' | ',' | '|' | ':' | ')' | '(' | '=')
            && !rest[len..].starts_with("}}")
        {
            self.advance(len);
            self.error(format!("bad character {}", code_point(after)));
            return false;
        }
        self.push(kind, len);
        true
    }

    fn number(&mut self) -> bool {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let mut len = usize::from(matches!(bytes[0], b'+' | b'-'));
        let digits = match &bytes[len..] {
            [b'0', b'x' | b'X', ..] => {
                len += 2;
                "0123456789abcdefABCDEF_"
            }
            [b'0', b'o' | b'O' | b'b' | b'B', ..] => {
                len += 2;
                "0123456789_"
            }
            _ => "0123456789_",
        };
        let run = |from: usize| {
            let more = rest[from..].find(|c: char| !digits.contains(c));
            more.unwrap_or(rest.len() - from)
        };
        len += run(len);
        if rest[len..].starts_with('.') {
            len += 1;
            len += run(len);
        }
        if digits.len() == 11 && rest[len..].starts_with(['e', 'E']) {
            len += 1;
            if rest[len..].starts_with(['+', '-']) {
                len += 1;
            }
            len += run(len);
        }
        let strange = rest[len..].chars().next().filter(|c| is_alphanumeric(*c));
        if let Some(c) = strange {
            let shown = format!("{}{c}", &rest[..len]);
            self.error(format!("bad number syntax: {}", quote(&shown)));
            return false;
        }
        self.push(Kind::Number, len);
        true
    }
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// `- ` after `{{`.
fn is_left_trim(after_open: &str) -> bool {
    let mut chars = after_open.chars();
    chars.next() == Some('-') && chars.next().is_some_and(|c| SPACES.contains(&c))
}

/// ` -}}`.
fn is_right_trim(rest: &str) -> bool {
    rest.starts_with(SPACES) && rest[1..].starts_with("-}}")
}
