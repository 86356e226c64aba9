//! Quoting as Go's `strconv.Quote` does it, so that printed queries, matchers and error texts read as
//! Prometheus' own.

use std::fmt::Write;
use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// Ranges of what Go's `strconv.IsPrint` prints: letters, marks, numbers, punctuation, symbols.
static PRINTABLE: LazyLock<Vec<(char, char)>> =
    LazyLock::new(|| match regex_syntax::parse(r"[\pL\pM\pN\pP\pS]").map(|hir| hir.into_kind()) {
        Ok(HirKind::Class(Class::Unicode(class))) => class.iter().map(|r| (r.start(), r.end())).collect(),
        _ => Vec::new(),
    });

fn is_print(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    let after = PRINTABLE.partition_point(|&(start, _)| start <= c);
    after > 0 && c <= PRINTABLE[after - 1].1
}

fn push_escaped(out: &mut String, c: char, quote: char) {
    let code = c as u32;
    let _ = match c {
        _ if c == quote || c == '\\' => write!(out, "\\{c}"),
        _ if is_print(c) => write!(out, "{c}"),
        '\x07' => write!(out, "\\a"),
        '\x08' => write!(out, "\\b"),
        '\x0c' => write!(out, "\\f"),
        '\n' => write!(out, "\\n"),
        '\r' => write!(out, "\\r"),
        '\t' => write!(out, "\\t"),
        '\x0b' => write!(out, "\\v"),
        _ if code < 0x20 || code == 0x7f => write!(out, "\\x{code:02x}"),
        _ if code < 0x10000 => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
}

/// A string in double quotes, escaped so that it reads back as the same bytes: invalid UTF-8 becomes `\xNN`.
pub fn quote(bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_escaped(&mut out, c, '"');
        }
        for b in chunk.invalid() {
            let _ = write!(out, "\\x{b:02x}");
        }
    }
    out.push('"');
    out
}

/// One character in single quotes.
pub fn quote_char(c: char) -> String {
    let mut out = String::from('\'');
    push_escaped(&mut out, c, '\'');
    out.push('\'');
    out
}

/// `U+0041 'A'`, or `U+0007` for what does not print.
pub fn code_point(c: char) -> String {
    let mut out = format!("U+{:04X}", c as u32);
    if is_print(c) {
        let _ = write!(out, " '{c}'");
    }
    out
}

/// Whether a label name needs no quotes in PromQL: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_legacy_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quote_is_as_go_does_it() {
        for (bytes, want) in [
            (&b"plain"[..], r#""plain""#),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (b"\x07\x08\x0c\n\r\t\x0b", r#""\a\b\f\n\r\t\v""#),
            (b"\x00\x1f\x7f", r#""\x00\x1f\x7f""#),
            (b"\xc5\xff", r#""\xc5\xff""#),
            ("é日\u{200b}\u{feff}\u{e0001}".as_bytes(), "\"é日\\u200b\\ufeff\\U000e0001\""),
            ("\u{a0}".as_bytes(), r#""\u00a0""#),
            (b"it's", r#""it's""#),
        ] {
            assert_eq!(quote(bytes), want);
        }
        assert_eq!(quote_char('\''), r"'\''");
        assert_eq!(quote_char('"'), "'\"'");
        assert_eq!(code_point('A'), "U+0041 'A'");
        assert_eq!(code_point('\n'), "U+000A");
    }

    #[test]
    fn legacy_label_names_are_told_apart() {
        assert!(is_legacy_label_name("a_1") && is_legacy_label_name("_"));
        assert!(!is_legacy_label_name("") && !is_legacy_label_name("1a"));
        assert!(!is_legacy_label_name("a.b") && !is_legacy_label_name("a:b") && !is_legacy_label_name("é"));
    }
}
