//! Rust's text as tokens, as far as the rules of the house need it: names and punctuation, without comments,
//! without what stands in quotes, and without the tests at a file's end.

/// Words, `::` and single signs of a text, in order.
pub fn tokens(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let len = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => quoted(rest),
            'r' | 'b' if raw_string(rest).is_some() => raw_string(rest).expect("just looked"),
            '\'' => character(rest),
            _ if c.is_alphanumeric() || c == '_' => {
                let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                out.push(rest[..len].to_owned());
                len
            }
            ':' if rest.starts_with("::") => {
                out.push("::".to_owned());
                2
            }
            _ => {
                if !c.is_whitespace() {
                    out.push(c.to_string());
                }
                c.len_utf8()
            }
        };
        rest = &rest[len..];
    }
    out
}

/// Bytes of a string in quotes, quotes included.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Bytes of a string such as `r#"…"#`, `b"…"` or `br"…"`; `None` where none begins here.
fn raw_string(text: &str) -> Option<usize> {
    let mark = text.find(|c| c != 'r' && c != 'b')?;
    if mark > 2 {
        return None;
    }
    let (prefix, rest) = text.split_at(mark);
    if !prefix.contains('r') {
        return rest.starts_with('"').then(|| mark + quoted(rest));
    }
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let body = rest[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&end).map_or(text.len(), |at| mark + hashes + 1 + at + end.len()))
}

/// Bytes of a character in single quotes, or of the quote of a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, c))) => {
            let from = at + c.len_utf8();
            text[from..].find('\'').map_or(text.len(), |end| from + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// Tokens without the modules, and what they import, that are compiled for tests only.
pub fn without_tests(tokens: &[String]) -> Vec<String> {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut out = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_test = tokens[at..].iter().zip(TEST).filter(|(a, b)| a == b).count() == TEST.len();
        let after = at + TEST.len();
        let word = |n: usize| tokens.get(after + n).map_or("", String::as_str);
        if is_test && matches!(word(0), "mod" | "use") {
            at = end_of_item(tokens, after);
        } else {
            out.push(tokens[at].clone());
            at += 1;
        }
    }
    out
}

/// Where the item that begins at a token is over: after its `;` or its closing brace.
fn end_of_item(tokens: &[String], from: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => return at + 1,
            "}" => depth -= 1,
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

#[test]
fn tokens_are_names_and_signs_without_comments_strings_and_tests() {
    let text = r##"
        // use crate::a;
        /* b */ fn c<'d>(e: &'d str) { let f = "g \" h"; let i = 'j'; let k = '\''; let l = r#"m " n"#; }
        #[cfg(test)]
        mod tests { fn o() { p } }
        b::"q"
    "##;
    let names: Vec<String> = without_tests(&tokens(text))
        .into_iter()
        .filter(|t| t.chars().all(|c| c.is_alphanumeric() || c == '_'))
        .collect();
    let expected = ["fn", "c", "d", "e", "d", "str", "let", "f", "let", "i", "let", "k", "let", "l", "b"];
    assert_eq!(names, expected);
}
