//! Secrets: read from files where settings name one, and left out of what is shown where settings hold one.

use std::path::Path;

/// The text of a file without the white space around it; the error names the option.
pub fn read_secret(option: &str, path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("{option}: {} cannot be read: {e}", path.display()))?;
    match text.trim() {
        "" => Err(format!("{option}: {} is empty", path.display())),
        text => Ok(text.to_owned()),
    }
}

/// Stands where a secret was.
const HIDDEN: &str = "***";

/// A text without the user and password of any URL in it, and without values that the names of parameters say
/// are secret.
pub fn redacted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(scheme) = rest.find("://") {
        let (before, after) = rest.split_at(scheme + 3);
        out.push_str(before);
        // The authority ends with a slash, a question mark, a hash or a blank; its last @ ends the user's
        // part. A password may hold a slash that nobody escaped, so an @ further on counts as well, where no
        // blank comes before it.
        let word = after.find([' ', '\n', '\t', ',']).unwrap_or(after.len());
        let end = after[..word].find(['?', '#']).unwrap_or(word);
        match after[..end].rfind('@') {
            Some(at) => {
                out.push_str(HIDDEN);
                rest = &after[at..];
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    hide_parameters(&without_bare_users(&out))
}

/// Hides `user:password@` where no scheme stands before it: somebody forgot it.
fn without_bare_users(text: &str) -> String {
    let ends_word = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',');
    let word = |word: &str| match word.rfind('@') {
        Some(at) if word[..at].contains(':') && !word.contains("://") => format!("{HIDDEN}{}", &word[at..]),
        _ => word.to_owned(),
    };
    text.split_inclusive(ends_word).map(word).collect()
}

/// Whether the name of a setting or parameter says that its value is secret.
pub fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let secret = [
        "password",
        "passwd",
        "secret",
        "token",
        "signature",
        "credential",
        "access_key",
        "apikey",
        "api_key",
    ];
    (secret.iter().any(|s| name.contains(s)) || matches!(name.as_str(), "sig" | "key" | "pass"))
        && !name.ends_with("_file")
}

/// Hides the values of `?token=…&sig=…`.
fn hide_parameters(text: &str) -> String {
    let Some((before, query)) = text.split_once('?') else { return text.to_owned() };
    let end = query.find([' ', '\n', '#']).unwrap_or(query.len());
    let pairs = query[..end].split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if names_secret(name) => format!("{name}={HIDDEN}"),
        _ => pair.to_owned(),
    });
    format!("{before}?{}{}", pairs.collect::<Vec<_>>().join("&"), &query[end..])
}

/// A URL without its user and password.
pub fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redacted_texts_hold_no_password() {
        for (text, shown) in [
            ("https://s3.example.org", "https://s3.example.org"),
            ("http://me:hunter2@s3:9000/x", "http://***@s3:9000/x"),
            ("http://hunter2@s3", "http://***@s3"),
            ("http://me:hun/ter2@s3/x", "http://***@s3/x"),
            ("http://me:hun@ter2@s3/x", "http://***@s3/x"),
            (
                "PUT http://a:hunter2@x/y failed, then https://b:hunter2@z",
                "PUT http://***@x/y failed, then https://***@z",
            ),
            ("https://x/y?sv=1&sig=hunter2&a=b@c", "https://x/y?sv=1&sig=***&a=b@c"),
            ("u:hunter2@s3", "***@s3"),
            ("listen: \"u:hunter2@s3\" is wrong", "listen: \"***@s3\" is wrong"),
            ("x=http://u:hunter2@s3", "x=http://***@s3"),
            ("mail me@example.org at 10:30", "mail me@example.org at 10:30"),
            ("plain text", "plain text"),
        ] {
            assert_eq!(redacted(text), shown);
        }
        assert_eq!(without_user("http://me:hunter2@s3:9000/x"), "http://s3:9000/x");
        assert_eq!(without_user("http://s3:9000/x?a=@"), "http://s3:9000/x?a=@");
        assert!(
            names_secret("s3.secret_key")
                && names_secret("AWS_SESSION_TOKEN")
                && !names_secret("s3.secret_key_file")
        );
    }
}
