//! One line of exposition text, and the tokens that can be taken off its front.

use std::borrow::Cow;

use model::sample::NORMAL_NAN_BITS;

use super::Format;
use super::number::parse_float;
use crate::reject::cut;

/// What was wrong, and before which byte of the line.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) at: usize,
    pub(super) what: String,
}

/// What is left of a line.
pub(super) struct Line<'a> {
    rest: &'a str,
    len: usize,
    /// OpenMetrics: one space where one belongs, and none elsewhere.
    strict: bool,
}

impl<'a> Line<'a> {
    pub(super) fn new(text: &'a str, format: Format) -> Self {
        Line { rest: text, len: text.len(), strict: format == Format::OpenMetrics }
    }

    pub(super) fn problem(&self, what: impl Into<String>) -> Problem {
        Problem { at: self.len - self.rest.len(), what: what.into() }
    }

    /// A problem that shows what stands there instead.
    fn expected(&self, what: &str) -> Problem {
        if self.rest.is_empty() {
            return self.problem(format!("expected {what}, the line ends"));
        }
        self.problem(format!("expected {what}, found {:?}", cut(self.rest, 40)))
    }

    pub(super) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn end(&mut self) -> Result<(), Problem> {
        self.blanks();
        if self.is_done() { Ok(()) } else { Err(self.expected("the end of the line")) }
    }

    /// Steps over blanks where the dialect allows any number of them, none included.
    pub(super) fn blanks(&mut self) {
        if !self.strict {
            self.rest = self.rest.trim_start_matches([' ', '\t']);
        }
    }

    /// What separates two parts of a line: in OpenMetrics exactly one space, which has to be there.
    pub(super) fn gap(&mut self, before: &str) -> Result<(), Problem> {
        if self.strict && !self.eat(' ') {
            return Err(self.expected(&format!("a space and {before}")));
        }
        self.blanks();
        Ok(())
    }

    pub(super) fn at(&self, c: char) -> bool {
        self.rest.starts_with(c)
    }

    pub(super) fn starts(&self, text: &str) -> bool {
        self.rest.starts_with(text)
    }

    pub(super) fn eat(&mut self, c: char) -> bool {
        let rest = self.rest.strip_prefix(c);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Up to the next blank; a tab is none in OpenMetrics.
    pub(super) fn word(&mut self) -> &'a str {
        let strict = self.strict;
        let end = self.rest.find(|c| c == ' ' || (c == '\t' && !strict)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// All that is left.
    pub(super) fn remainder(&mut self) -> &'a str {
        std::mem::take(&mut self.rest)
    }

    /// `[a-zA-Z_:][a-zA-Z0-9_:]*`, or any text in quotes.
    pub(super) fn metric_name(&mut self) -> Result<Cow<'a, str>, Problem> {
        self.name(|b| b == b':', "a metric name")
    }

    fn name(&mut self, also: fn(u8) -> bool, what: &str) -> Result<Cow<'a, str>, Problem> {
        if self.at('"') {
            let start = self.problem("");
            let name = self.quoted()?;
            return if name.is_empty() {
                Err(Problem { what: format!("{what} is empty"), ..start })
            } else {
                Ok(name)
            };
        }
        let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || also(b);
        let end = self.rest.bytes().position(|b| !fine(b)).unwrap_or(self.rest.len());
        if end == 0 || self.rest.as_bytes()[0].is_ascii_digit() {
            return Err(self.expected(what));
        }
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(Cow::Borrowed(name))
    }

    /// The labels in braces, onto `into`. Answers a metric name that stands in quotes among them.
    pub(super) fn labels(
        &mut self,
        into: &mut Vec<(Cow<'a, str>, Cow<'a, str>)>,
    ) -> Result<Option<Cow<'a, str>>, Problem> {
        let mut metric = None;
        if !self.eat('{') {
            return Err(self.expected("{"));
        }
        loop {
            self.blanks();
            if self.eat('}') {
                return Ok(metric);
            }
            let quoted = self.at('"');
            let start = self.problem("");
            let name = self.name(|_| false, "a label name or }")?;
            self.blanks();
            if self.eat('=') {
                self.blanks();
                if !self.at('"') {
                    return Err(self.expected("a label value in quotes"));
                }
                into.push((name, self.quoted()?));
            } else if !quoted {
                return Err(self.expected("= after a label name"));
            } else if metric.replace(name).is_some() {
                return Err(Problem { what: "two metric names".into(), ..start });
            }
            self.blanks();
            if !self.eat(',') && !self.at('}') {
                return Err(self.expected(", or }"));
            }
        }
    }

    /// A string in double quotes with the escapes `\\`, `\"` and `\n`.
    fn quoted(&mut self) -> Result<Cow<'a, str>, Problem> {
        let start = self.problem("a quote that is not closed");
        let inner = &self.rest[1..];
        let mut from = 0;
        loop {
            match inner[from..].find(['"', '\\']) {
                None => return Err(start),
                Some(at) if inner.as_bytes()[from + at] == b'"' => {
                    let text = &inner[..from + at];
                    self.rest = &inner[from + at + 1..];
                    return Ok(unescape(text, true));
                }
                // Whatever is escaped, a quote or another backslash among it, does not end the string.
                Some(at) => {
                    let escaped = from + at + 1;
                    from = escaped + inner[escaped..].chars().next().map_or(0, char::len_utf8);
                }
            }
        }
    }

    /// The rest of a HELP line; quotes are only escaped in OpenMetrics.
    pub(super) fn help(&mut self) -> Cow<'a, str> {
        unescape(std::mem::take(&mut self.rest), self.strict)
    }

    /// A number as [`parse_float`] has it.
    pub(super) fn value(&mut self) -> Result<f64, Problem> {
        let before = self.expected("a number");
        match parse_float(self.word()) {
            // One NaN of many; upstream's own, so that nothing exposed is mistaken for a staleness marker.
            Some(v) if v.is_nan() => Ok(f64::from_bits(NORMAL_NAN_BITS)),
            Some(v) => Ok(v),
            None => Err(before),
        }
    }

    /// The time of a sample, in the dialect's unit, as milliseconds.
    pub(super) fn timestamp(&mut self) -> Result<i64, Problem> {
        if self.strict { self.seconds() } else { self.milliseconds() }
    }

    fn milliseconds(&mut self) -> Result<i64, Problem> {
        let before = self.expected("a timestamp in milliseconds");
        self.word().parse().map_err(|_| before)
    }

    /// Seconds with a fraction, rounded down to milliseconds as upstream does.
    fn seconds(&mut self) -> Result<i64, Problem> {
        let before = self.expected("a timestamp in seconds");
        match parse_float(self.word()) {
            Some(s) if s.is_finite() && s.abs() < 9e15 => Ok((s * 1000.0) as i64),
            _ => Err(before),
        }
    }
}

/// Undoes `\\`, `\n` and, where `quotes` says so, `\"`. What else follows a backslash is left as it is,
/// backslash included.
fn unescape(text: &str, quotes: bool) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('\\') => out.push('\\'),
            Some('"') if quotes => out.push('"'),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    Cow::Owned(out)
}
