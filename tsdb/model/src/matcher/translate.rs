//! RE2 syntax to the tree that regex-automata compiles: the same expressions accepted, with the same meaning,
//! and refused in the same words.
//!
//! Rust's own regex syntax reads many of RE2's expressions differently (`\d` and `\b` are Unicode there,
//! classes nest and know set operators, `\Q…\E` and octal escapes are unknown, `(?x)` and `(?u)` are), so the
//! text is parsed here, after Go's `regexp/syntax` with the flags `Perl` and `DotNL`, which is what
//! Prometheus uses. Nesting is kept on a stack of our own and bounded.

use std::collections::{HashMap, HashSet};

use regex_syntax::hir::{
    Capture, Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Literal, Look, Repetition,
};

/// Go's own limit on `{n,m}`, nested ones multiplied.
const MAX_REPEAT: u32 = 1000;

/// Groups in groups. Go allows 1,000, which takes more stack to compile than a query may use.
const MAX_NESTING: usize = 250;

/// Ranges in all classes of an expression together.
const MAX_RANGES: usize = 200_000;

#[derive(Clone, Copy)]
struct Flags {
    fold: bool,
    multi_line: bool,
    dot_newline: bool,
    swap_greed: bool,
}

/// A piece, and by how much repetitions inside it multiply.
struct Piece {
    hir: Hir,
    repeats: u32,
}

struct Frame {
    alternatives: Vec<Piece>,
    pieces: Vec<Piece>,
    /// The flags to go back to when the group closes.
    outer: Flags,
    capture: Option<(u32, Option<Box<str>>)>,
}

struct Translator<'a> {
    whole: &'a str,
    rest: &'a str,
    flags: Flags,
    frames: Vec<Frame>,
    captures: u32,
    names: HashSet<&'a str>,
    ranges: usize,
    classes: HashMap<(String, bool), ClassUnicode>,
}

/// Why an expression was refused, in RE2's words where it has them.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("{0}")]
pub struct Re2Error(pub String);

type Translated<T> = Result<T, Re2Error>;

fn fail<T>(code: &str, expr: &str) -> Translated<T> {
    Err(Re2Error(format!("error parsing regexp: {code}: `{expr}`")))
}

/// The tree of an expression, not anchored.
pub fn translate(expr: &str) -> Translated<Hir> {
    let flags = Flags { fold: false, multi_line: false, dot_newline: true, swap_greed: false };
    let mut t = Translator {
        whole: expr,
        rest: expr,
        flags,
        frames: vec![frame(flags, None)],
        captures: 0,
        names: HashSet::new(),
        ranges: 0,
        classes: HashMap::new(),
    };
    t.run()
}

fn frame(outer: Flags, capture: Option<(u32, Option<Box<str>>)>) -> Frame {
    Frame { alternatives: Vec::new(), pieces: Vec::new(), outer, capture }
}

fn close(frame: Frame) -> Piece {
    let Frame { mut alternatives, pieces, .. } = frame;
    alternatives.push(concat(pieces));
    let repeats = alternatives.iter().map(|p| p.repeats).max().unwrap_or(1);
    Piece { hir: Hir::alternation(alternatives.into_iter().map(|p| p.hir).collect()), repeats }
}

fn concat(pieces: Vec<Piece>) -> Piece {
    let repeats = pieces.iter().map(|p| p.repeats).max().unwrap_or(1);
    Piece { hir: Hir::concat(pieces.into_iter().map(|p| p.hir).collect()), repeats }
}

/// Where `rest` begins in `whole`, as a prefix of `from`.
fn until<'a>(from: &'a str, rest: &str) -> &'a str {
    &from[..from.len() - rest.len()]
}

fn next_char(text: &str) -> Option<(char, &str)> {
    let mut chars = text.chars();
    chars.next().map(|c| (c, chars.as_str()))
}

impl<'a> Translator<'a> {
    fn top(&mut self) -> &mut Frame {
        let at = self.frames.len() - 1;
        &mut self.frames[at]
    }

    fn push(&mut self, hir: Hir) {
        self.top().pieces.push(Piece { hir, repeats: 1 });
    }

    fn push_class(&mut self, class: ClassUnicode) -> Translated<()> {
        self.count(class.ranges().len())?;
        self.push(Hir::class(Class::Unicode(class)));
        Ok(())
    }

    fn count(&mut self, ranges: usize) -> Translated<()> {
        self.ranges += ranges;
        if self.ranges > MAX_RANGES { fail("expression too large", self.whole) } else { Ok(()) }
    }

    fn literal(&mut self, c: char) -> Translated<()> {
        if self.flags.fold {
            let class = folded(ClassUnicode::new([ClassUnicodeRange::new(c, c)]));
            if class.ranges().len() > 1 || class.ranges().first().is_some_and(|r| r.start() != r.end()) {
                return self.push_class(class);
            }
        }
        self.push(Hir::literal(c.encode_utf8(&mut [0; 4]).as_bytes()));
        Ok(())
    }

    fn run(&mut self) -> Translated<Hir> {
        let mut last_repeat = "";
        while let Some((c, after)) = next_char(self.rest) {
            let before = self.rest;
            let mut repeat = "";
            match c {
                '(' if after.starts_with('?') => self.perl_group()?,
                '(' => {
                    self.rest = after;
                    self.captures += 1;
                    self.open(Some((self.captures, None)))?;
                }
                '|' => {
                    self.rest = after;
                    let top = self.top();
                    let pieces = std::mem::take(&mut top.pieces);
                    top.alternatives.push(concat(pieces));
                }
                ')' => {
                    self.rest = after;
                    self.close_group()?;
                }
                '^' | '$' => {
                    self.rest = after;
                    self.edge(c);
                }
                '.' => {
                    self.rest = after;
                    self.any_character()?;
                }
                '[' => self.class()?,
                '*' | '+' | '?' => {
                    let (min, max) = match c {
                        '*' => (0, None),
                        '+' => (1, None),
                        _ => (0, Some(1)),
                    };
                    self.rest = after;
                    self.repeat(min, max, false, before, last_repeat)?;
                    repeat = before;
                }
                '{' => match repeat_counts(after) {
                    None => {
                        self.rest = after;
                        self.literal('{')?;
                    }
                    Some((counts, after)) => {
                        self.rest = after;
                        let Some((min, max)) = counts else {
                            return fail("invalid repeat count", until(before, after));
                        };
                        self.repeat(min, max, true, before, last_repeat)?;
                        repeat = before;
                    }
                },
                '\\' => self.backslash()?,
                _ => {
                    self.rest = after;
                    self.literal(c)?;
                }
            }
            last_repeat = repeat;
        }
        match (self.frames.pop(), self.frames.is_empty()) {
            (Some(frame), true) => Ok(close(frame).hir),
            _ => fail("missing closing )", self.whole),
        }
    }

    /// `^` or `$`.
    fn edge(&mut self, c: char) {
        self.push(Hir::look(match (c, self.flags.multi_line) {
            ('^', false) => Look::Start,
            ('^', true) => Look::StartLF,
            (_, false) => Look::End,
            (_, true) => Look::EndLF,
        }));
    }

    /// `.`
    fn any_character(&mut self) -> Translated<()> {
        let class = if self.flags.dot_newline {
            ClassUnicode::new([ClassUnicodeRange::new('\0', char::MAX)])
        } else {
            let mut class = ClassUnicode::new([ClassUnicodeRange::new('\n', '\n')]);
            class.negate();
            class
        };
        self.push_class(class)
    }

    fn open(&mut self, capture: Option<(u32, Option<Box<str>>)>) -> Translated<()> {
        if self.frames.len() > MAX_NESTING {
            return fail("expression nests too deeply", self.whole);
        }
        self.frames.push(frame(self.flags, capture));
        Ok(())
    }

    fn close_group(&mut self) -> Translated<()> {
        if self.frames.len() < 2 {
            return fail("unexpected )", self.whole);
        }
        let Some(mut frame) = self.frames.pop() else {
            return fail("unexpected )", self.whole);
        };
        self.flags = frame.outer;
        let capture = frame.capture.take();
        let mut piece = close(frame);
        if let Some((index, name)) = capture {
            piece.hir = Hir::capture(Capture { index, name, sub: Box::new(piece.hir) });
        }
        self.top().pieces.push(piece);
        Ok(())
    }

    /// `(?P<name>`, `(?<name>`, `(?flags)` and `(?flags:`.
    fn perl_group(&mut self) -> Translated<()> {
        let s = self.rest;
        let named = (s.len() > 4).then(|| s.strip_prefix("(?P<")).flatten();
        let named = named.or_else(|| (s.len() > 3).then(|| s.strip_prefix("(?<")).flatten());
        if let Some(name_on) = named {
            let Some((name, rest)) = name_on.split_once('>') else {
                return fail("invalid named capture", s);
            };
            if name.is_empty() || !name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
                return fail("invalid named capture", until(s, rest));
            }
            self.rest = rest;
            self.captures += 1;
            // A name may come twice in Go; the engine wants it once, so later groups of the name have only
            // their number.
            let name = self.names.insert(name).then(|| name.into());
            return self.open(Some((self.captures, name)));
        }
        let (mut flags, mut on, mut seen) = (self.flags, true, false);
        let mut rest = &s[2..];
        while let Some((c, after)) = next_char(rest) {
            rest = after;
            match c {
                'i' => flags.fold = on,
                'm' => flags.multi_line = on,
                's' => flags.dot_newline = on,
                'U' => flags.swap_greed = on,
                '-' if on => {
                    on = false;
                    seen = false;
                    continue;
                }
                ':' | ')' if on || seen => {
                    self.rest = rest;
                    if c == ':' {
                        self.open(None)?;
                    }
                    self.flags = flags;
                    return Ok(());
                }
                _ => break,
            }
            seen = true;
        }
        fail("invalid or unsupported Perl syntax", until(s, rest))
    }

    fn repeat(
        &mut self,
        min: u32,
        max: Option<u32>,
        counted: bool,
        before: &str,
        last: &str,
    ) -> Translated<()> {
        let mut greedy = !self.flags.swap_greed;
        if let Some(rest) = self.rest.strip_prefix('?') {
            self.rest = rest;
            greedy = !greedy;
        }
        let rest = self.rest;
        if !last.is_empty() {
            return fail("invalid nested repetition operator", until(last, rest));
        }
        let whole = self.whole;
        let Some(piece) = self.top().pieces.last_mut() else {
            return fail("missing argument to repetition operator", until(before, rest));
        };
        if counted {
            let times = max.unwrap_or(min);
            piece.repeats = if max == Some(0) { 1 } else { piece.repeats.saturating_mul(times.max(1)) };
            if (min >= 2 || max.is_some_and(|m| m >= 2)) && piece.repeats > MAX_REPEAT {
                return fail("invalid repeat count", until(before, rest));
            }
        }
        let sub = std::mem::replace(&mut piece.hir, Hir::empty());
        // Go refuses what compiles to too much; here the engine's own size limit does, this only keeps the
        // tree small.
        if matches!(sub.kind(), HirKind::Repetition(_)) && depth_of_repetitions(&sub) > MAX_NESTING {
            return fail("expression nests too deeply", whole);
        }
        piece.hir = Hir::repetition(Repetition { min, max, greedy, sub: Box::new(sub) });
        Ok(())
    }

    fn backslash(&mut self) -> Translated<()> {
        let s = self.rest;
        let look = match s.as_bytes().get(1) {
            Some(b'A') => Some(Look::Start),
            Some(b'z') => Some(Look::End),
            Some(b'b') => Some(Look::WordAscii),
            Some(b'B') => Some(Look::WordAsciiNegate),
            _ => None,
        };
        if let Some(look) = look {
            self.rest = &s[2..];
            self.push(Hir::look(look));
            return Ok(());
        }
        if s.starts_with("\\C") {
            return fail("invalid escape sequence", "\\C");
        }
        if let Some(quoted) = s.strip_prefix("\\Q") {
            let (text, rest) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            self.rest = rest;
            return text.chars().try_for_each(|c| self.literal(c));
        }
        if let Some((class, rest)) = self.unicode_class(s)? {
            self.rest = rest;
            return self.push_class(class);
        }
        if let Some((class, rest)) = self.perl_class(s) {
            self.rest = rest;
            return self.push_class(class);
        }
        let (c, rest) = escape(s)?;
        self.rest = rest;
        match c {
            Some(c) => self.literal(c),
            // A surrogate: no text holds one.
            None => {
                self.push(Hir::fail());
                Ok(())
            }
        }
    }

    /// `\d \s \w` and their contraries, ASCII as in RE2.
    fn perl_class<'s>(&self, s: &'s str) -> Option<(ClassUnicode, &'s str)> {
        let letter = *s.strip_prefix('\\')?.as_bytes().first()?;
        let ranges: &[(char, char)] = match letter.to_ascii_lowercase() {
            b'd' => &[('0', '9')],
            b's' => &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')],
            b'w' => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
            _ => return None,
        };
        Some((self.group(ranges, letter.is_ascii_uppercase()), &s[2..]))
    }

    fn group(&self, ranges: &[(char, char)], negated: bool) -> ClassUnicode {
        let mut class = ClassUnicode::new(ranges.iter().map(|&(a, b)| ClassUnicodeRange::new(a, b)));
        if self.flags.fold {
            class = folded(class);
        }
        if negated {
            class.negate();
        }
        class
    }

    /// `\pL`, `\p{Greek}`, `\P{^Lu}`; `None` where `s` begins otherwise.
    fn unicode_class<'s>(&mut self, s: &'s str) -> Translated<Option<(ClassUnicode, &'s str)>> {
        let mut negated = match s.as_bytes() {
            [b'\\', b'p', ..] => false,
            [b'\\', b'P', ..] => true,
            _ => return Ok(None),
        };
        let Some((c, after)) = next_char(&s[2..]) else {
            // Go goes on to its escapes, which refuse it.
            return Ok(None);
        };
        let (mut name, rest) = if c == '{' {
            match after.split_once('}') {
                Some(found) => found,
                None => return fail("invalid character class range", s),
            }
        } else {
            (until(&s[2..], after), after)
        };
        if let Some(inner) = name.strip_prefix('^') {
            negated = !negated;
            name = inner;
        }
        let key = (name.to_string(), self.flags.fold);
        let class = match self.classes.get(&key) {
            Some(class) => class.clone(),
            None => {
                let Some(mut class) = unicode_table(name) else {
                    return fail("invalid character class range", until(s, rest));
                };
                if self.flags.fold {
                    class = folded(class);
                }
                self.classes.insert(key, class.clone());
                class
            }
        };
        let mut class = class;
        if negated {
            class.negate();
        }
        Ok(Some((class, rest)))
    }

    fn class(&mut self) -> Translated<()> {
        let s = self.rest;
        let mut rest = &s[1..];
        let negated = rest.starts_with('^');
        if negated {
            rest = &rest[1..];
        }
        let mut ranges: Vec<ClassUnicodeRange> = Vec::new();
        let mut singles: Vec<ClassUnicodeRange> = Vec::new();
        let mut first = true;
        while first || !rest.starts_with(']') {
            first = false;
            if rest.starts_with("[:")
                && let Some(end) = rest[2..].find(":]")
            {
                let (name, after) = rest.split_at(end + 4);
                let Some((table, not)) = posix_group(name) else {
                    return fail("invalid character class range", name);
                };
                let class = self.group(table, not);
                self.count(class.ranges().len())?;
                ranges.extend_from_slice(class.ranges());
                rest = after;
                continue;
            }
            if let Some((class, after)) = self.unicode_class(rest)? {
                self.count(class.ranges().len())?;
                ranges.extend_from_slice(class.ranges());
                rest = after;
                continue;
            }
            if let Some((class, after)) = self.perl_class(rest) {
                self.count(class.ranges().len())?;
                ranges.extend_from_slice(class.ranges());
                rest = after;
                continue;
            }
            let from = rest;
            let (lo, after) = class_char(rest, s)?;
            rest = after;
            let mut hi = lo;
            if rest.starts_with('-') && rest.len() >= 2 && !rest[1..].starts_with(']') {
                let (c, after) = class_char(&rest[1..], s)?;
                (hi, rest) = (c, after);
                if hi < lo {
                    return fail("invalid character class range", until(from, rest));
                }
            }
            self.count(1)?;
            if let Some(range) = char_range(lo, hi) {
                singles.push(range);
            }
        }
        self.rest = &rest[1..];
        let mut class = ClassUnicode::new(singles);
        if self.flags.fold {
            class = folded(class);
        }
        class.union(&ClassUnicode::new(ranges));
        if negated {
            class.negate();
        }
        self.push_class(class)
    }
}

fn depth_of_repetitions(hir: &Hir) -> usize {
    let (mut at, mut depth) = (hir, 0);
    while let HirKind::Repetition(r) = at.kind() {
        at = &r.sub;
        depth += 1;
    }
    depth
}

fn folded(mut class: ClassUnicode) -> ClassUnicode {
    // Fails only without Unicode tables, which are built in.
    let _ = class.try_case_fold_simple();
    class
}

/// A range of code points as a range of characters, which surrogates are not.
fn char_range(lo: u32, hi: u32) -> Option<ClassUnicodeRange> {
    let lo = char::from_u32(lo).unwrap_or('\u{e000}');
    let hi = char::from_u32(hi).unwrap_or('\u{d7ff}');
    (lo <= hi).then(|| ClassUnicodeRange::new(lo, hi))
}

fn class_char<'s>(text: &'s str, whole: &str) -> Translated<(u32, &'s str)> {
    if text.starts_with('\\') {
        return escape_code(text);
    }
    match next_char(text) {
        Some((c, rest)) => Ok((c as u32, rest)),
        None => fail("missing closing ]", whole),
    }
}

fn escape(s: &str) -> Translated<(Option<char>, &str)> {
    escape_code(s).map(|(code, rest)| (char::from_u32(code), rest))
}

/// The code point of an escape sequence, and what follows it.
fn escape_code(s: &str) -> Translated<(u32, &str)> {
    let Some((c, mut rest)) = next_char(&s[1..]) else {
        return Err(Re2Error("error parsing regexp: trailing backslash at end of expression: ``".into()));
    };
    let is_octal = |rest: &str| rest.as_bytes().first().is_some_and(|b| (b'0'..=b'7').contains(b));
    match c {
        'a' => return Ok((7, rest)),
        'f' => return Ok((12, rest)),
        'n' => return Ok((10, rest)),
        'r' => return Ok((13, rest)),
        't' => return Ok((9, rest)),
        'v' => return Ok((11, rest)),
        // A lone digit would be a back reference.
        '0'..='7' if c == '0' || is_octal(rest) => {
            let mut code = c as u32 - '0' as u32;
            for _ in 0..2 {
                if !is_octal(rest) {
                    break;
                }
                code = code * 8 + u32::from(rest.as_bytes()[0] - b'0');
                rest = &rest[1..];
            }
            return Ok((code, rest));
        }
        'x' => {
            if let Some(braced) = rest.strip_prefix('{') {
                let mut code = 0u32;
                let mut digits = 0;
                rest = braced;
                while let Some((c, after)) = next_char(rest) {
                    rest = after;
                    if c == '}' {
                        if digits == 0 {
                            break;
                        }
                        return Ok((code, rest));
                    }
                    let Some(d) = c.to_digit(16) else { break };
                    code = code * 16 + d;
                    if code > char::MAX as u32 {
                        break;
                    }
                    digits += 1;
                }
            } else if let Some((a, after)) = next_char(rest) {
                rest = after;
                if let Some((b, after)) = next_char(rest) {
                    rest = after;
                    if let (Some(a), Some(b)) = (a.to_digit(16), b.to_digit(16)) {
                        return Ok((a * 16 + b, rest));
                    }
                }
            }
        }
        _ if c.is_ascii() && !c.is_ascii_alphanumeric() => return Ok((c as u32, rest)),
        _ => {}
    }
    fail("invalid escape sequence", until(s, rest))
}

/// `n}`, `n,}` or `n,m}`: `None` if it is no repetition at all, `Some(None)` if its numbers will not do.
#[allow(clippy::type_complexity)]
fn repeat_counts(text: &str) -> Option<(Option<(u32, Option<u32>)>, &str)> {
    fn number(text: &str) -> Option<(u32, &str)> {
        let len = text.bytes().take_while(u8::is_ascii_digit).count();
        // Leading zeros make it literal text.
        if len == 0 || (len > 1 && text.starts_with('0')) {
            return None;
        }
        Some((text[..len].parse().unwrap_or(u32::MAX), &text[len..]))
    }
    let (min, rest) = number(text)?;
    let (max, rest) = match rest.strip_prefix(',') {
        None => (Some(min), rest),
        Some(rest) if rest.starts_with('}') => (None, rest),
        Some(rest) => {
            let (max, rest) = number(rest)?;
            (Some(max), rest)
        }
    };
    let rest = rest.strip_prefix('}')?;
    let valid = min <= MAX_REPEAT && max.is_none_or(|max| (min..=MAX_REPEAT).contains(&max));
    Some((valid.then_some((min, max)), rest))
}

fn posix_group(name: &str) -> Option<(&'static [(char, char)], bool)> {
    let inner = name.strip_prefix("[:")?.strip_suffix(":]")?;
    let (inner, negated) = inner.strip_prefix('^').map_or((inner, false), |inner| (inner, true));
    let table: &[(char, char)] = match inner {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "ascii" => &[('\0', '\x7f')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "digit" => &[('0', '9')],
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "upper" => &[('A', 'Z')],
        "word" => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return None,
    };
    Some((table, negated))
}

/// A general category or a script by its name; other properties RE2 does not know.
fn unicode_table(name: &str) -> Option<ClassUnicode> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_- ".contains(&b)) {
        return None;
    }
    // Codes of scripts (`Zyyy`) have four letters and RE2 wants the names; these are the names of four
    // letters.
    let letters: String = name.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let is_code = letters.len() == 4
        && !["ahom", "cham", "kawi", "lisu", "newa", "thai", "toto"]
            .contains(&&*letters.to_ascii_lowercase());
    let properties: &[&str] = if is_code { &["gc"] } else { &["gc", "sc"] };
    properties.iter().find_map(|property| {
        match regex_syntax::parse(&format!(r"\p{{{property}={name}}}")).ok()?.into_kind() {
            HirKind::Class(Class::Unicode(class)) => Some(class),
            // A class of one character comes as a literal.
            HirKind::Literal(Literal(bytes)) => {
                let c = std::str::from_utf8(&bytes).ok()?.chars().next()?;
                Some(ClassUnicode::new([ClassUnicodeRange::new(c, c)]))
            }
            _ => None,
        }
    })
}
