//! A request's parameters: the URL's and, for a form body, the body's, as Go's `net/http` merges them.

use std::borrow::Cow;

use model::quote::quote;

/// Pairs in the order upstream sees them: those of the body first, then those of the URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    pairs: Vec<(String, String)>,
    /// What was wrong with the encoding, where anything was. The good pairs are there all the same: most
    /// endpoints go on with them, as upstream.
    error: Option<String>,
}

impl Form {
    /// `body` is empty unless the request carries `application/x-www-form-urlencoded`.
    pub fn parse(url_query: &str, body: &[u8]) -> Form {
        let mut form = Form::default();
        form.add(body);
        form.add(url_query.as_bytes());
        form
    }

    fn add(&mut self, encoded: &[u8]) {
        for part in encoded.split(|b| *b == b'&') {
            if part.is_empty() {
                continue;
            }
            if part.contains(&b';') {
                self.fault("invalid semicolon separator in query".into());
                continue;
            }
            let at = part.iter().position(|b| *b == b'=').unwrap_or(part.len());
            let value = part.get(at + 1..).unwrap_or_default();
            match (unescape(&part[..at]), unescape(value)) {
                (Ok(name), Ok(value)) => self.pairs.push((name, value)),
                (Err(e), _) | (_, Err(e)) => self.fault(e),
            }
        }
    }

    fn fault(&mut self, error: String) {
        self.error.get_or_insert(error);
    }

    /// The first value of a name, empty where there is none (upstream makes no difference either).
    pub fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    /// All values of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

/// `+` is a space, `%xx` a byte; the bytes must be UTF-8 in the end.
fn unescape(s: &[u8]) -> Result<String, String> {
    let mut out = Vec::with_capacity(s.len());
    let mut i = 0;
    while i < s.len() {
        match s[i] {
            b'+' => out.push(b' '),
            b'%' => {
                let digit = |at: usize| s.get(at).and_then(|b| (*b as char).to_digit(16));
                match (digit(i + 1), digit(i + 2)) {
                    (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
                    _ => {
                        let bad = String::from_utf8_lossy(&s[i..s.len().min(i + 3)]);
                        return Err(format!("invalid URL escape {}", quote(&*bad)));
                    }
                }
                i += 2;
            }
            b => out.push(b),
        }
        i += 1;
    }
    String::from_utf8(out).map_err(|e| {
        let shown: String = String::from_utf8_lossy(e.as_bytes()).chars().take(80).collect();
        format!("invalid UTF-8 in parameter {}", quote(&shown))
    })
}

/// A label name out of a URL: `U__` names carry any UTF-8 as `_hex_` and `_` as `__`
/// (prometheus/common `model.UnescapeName` with value encoding); what is not well formed stays as it was.
pub fn unescape_name(name: &str) -> Cow<'_, str> {
    let Some(rest) = name.strip_prefix("U__") else { return Cow::Borrowed(name) };
    unescape_u(rest).map_or(Cow::Borrowed(name), Cow::Owned)
}

fn unescape_u(escaped: &str) -> Option<String> {
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.find('_')?;
        let code = &rest[..end];
        rest = &rest[end + 1..];
        if code.is_empty() {
            out.push('_');
        } else if code.len() > 6 || !code.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        } else {
            out.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        }
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_body_comes_before_the_url_and_bad_pairs_are_left_out() {
        let form = Form::parse(
            "query=url&match[]=c&x=%zz&y=1;2",
            b"query=up%7Ba%3D%22b+c%22%7D&match%5B%5D=a&match[]=b",
        );
        assert_eq!(form.get("query"), r#"up{a="b c"}"#);
        assert_eq!(form.all("match[]").collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((form.get("x"), form.get("y"), form.get("none")), ("", "", ""));
        assert_eq!(form.error(), Some(r#"invalid URL escape "%zz""#));
        assert_eq!(Form::parse("a=%ff", b"").error(), Some("invalid UTF-8 in parameter \"\u{fffd}\""));
        assert_eq!(Form::parse("&&flag&=v&a==", b"").get("a"), "=");
    }

    #[test]
    fn utf8_names_are_unescaped_and_broken_ones_kept() {
        for (escaped, name) in [
            ("job", "job"),
            ("U__", ""),
            ("U__job", "job"),
            ("U__http_2e_status:sum", "http.status:sum"),
            ("U__a__b", "a_b"),
            ("U___2e_", "."),
            ("U__label_20_with_20_space", "label with space"),
            ("U__f_1F600_", "f😀"),
            ("U__open_2e", "U__open_2e"),
            ("U__bad_zz_", "U__bad_zz_"),
            ("U__surrogate_d900_", "U__surrogate_d900_"),
            ("U__long_00002e0_", "U__long_00002e0_"),
        ] {
            assert_eq!(unescape_name(escaped), name, "{escaped}");
        }
    }
}
