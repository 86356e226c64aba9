//! Names of metrics and labels that older scrapers cannot read, and the four ways to spell them.

use std::borrow::Cow;

/// How names beyond `[a-zA-Z_:][a-zA-Z0-9_:]*` are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escaping {
    /// As they are, in quotes.
    AllowUtf8,
    /// Every other character becomes `_`.
    #[default]
    Underscores,
    /// `.` becomes `_dot_`, `_` doubles, other characters become `__`.
    Dots,
    /// `U__` and the number of each other character in hexadecimal.
    Values,
}

impl Escaping {
    /// By its name in an `Accept` header.
    pub fn of(name: &str) -> Option<Escaping> {
        Some(match name {
            "allow-utf-8" => Escaping::AllowUtf8,
            "underscores" => Escaping::Underscores,
            "dots" => Escaping::Dots,
            "values" => Escaping::Values,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Escaping::AllowUtf8 => "allow-utf-8",
            Escaping::Underscores => "underscores",
            Escaping::Dots => "dots",
            Escaping::Values => "values",
        }
    }

    /// A name as it is written.
    pub fn escape(self, name: &str) -> Cow<'_, str> {
        // Dots double underscores everywhere; the others leave names alone that everybody reads.
        if self == Escaping::AllowUtf8 || (self != Escaping::Dots && is_plain(name)) {
            return Cow::Borrowed(name);
        }
        let mut out = String::with_capacity(name.len() + 8);
        if self == Escaping::Values {
            out.push_str("U__");
        }
        for (at, c) in name.char_indices() {
            let plain = is_plain_char(c, at == 0);
            match self {
                Escaping::Dots if c == '_' => out.push_str("__"),
                Escaping::Dots if c == '.' => out.push_str("_dot_"),
                Escaping::Values if c == '_' => out.push_str("__"),
                _ if plain => out.push(c),
                Escaping::Dots => out.push_str("__"),
                Escaping::Values => out.push_str(&format!("_{:X}_", u32::from(c))),
                _ => out.push('_'),
            }
        }
        Cow::Owned(out)
    }
}

/// Whether every scraper reads this name of a metric.
pub fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.char_indices().all(|(at, c)| is_plain_char(c, at == 0))
}

fn is_plain_char(c: char, first: bool) -> bool {
    c.is_ascii_alphabetic() || c == '_' || c == ':' || (c.is_ascii_digit() && !first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_in_four_ways() {
        for (name, underscores, dots, values) in [
            ("up", "up", "up", "up"),
            ("a_b:c", "a_b:c", "a__b:c", "a_b:c"),
            ("http.status", "http_status", "http_dot_status", "U__http_2E_status"),
            ("a_b.c", "a_b_c", "a__b_dot_c", "U__a__b_2E_c"),
            ("1x", "_x", "__x", "U___31_x"),
            ("maß", "ma_", "ma__", "U__ma_DF_"),
        ] {
            assert_eq!(Escaping::Underscores.escape(name), underscores);
            assert_eq!(Escaping::Dots.escape(name), dots);
            assert_eq!(Escaping::Values.escape(name), values);
            assert_eq!(Escaping::AllowUtf8.escape(name), name);
            let known = crate::api::parameters::form::unescape_name(values);
            assert_eq!(known, name, "what a URL unescapes");
        }
        assert!(!is_plain("") && !is_plain("a b") && is_plain("_:9"));
    }
}
