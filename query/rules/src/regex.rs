//! Regular expressions that are searched for and replaced in texts, as Go's `regexp` does.

use regex_automata::meta::{Config, Regex};
use regex_automata::util::captures::Captures;
use regex_automata::util::syntax;

/// Largest compiled program, in bytes.
const MAX_PROGRAM_BYTES: usize = 1 << 20;

/// An expression that may match anywhere in a text.
pub fn search(pattern: &str) -> Result<Regex, String> {
    let config = Config::new().nfa_size_limit(Some(MAX_PROGRAM_BYTES)).dfa(false);
    Regex::builder()
        .configure(config)
        .syntax(syntax::Config::new().nest_limit(200))
        .build(pattern)
        .map_err(|e| format!("error parsing regexp {}: {e}", model::quote::quote(pattern)))
}

/// Go's `Regexp.Expand`: `$1`, `$name`, `${name}`; `$$` is a dollar, and so is one that begins none of these.
pub fn expand(out: &mut String, template: &str, value: &str, regex: &Regex, captures: &Captures) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let Some((name, after)) = reference(after) else {
            out.push('$');
            continue;
        };
        rest = after;
        let numbered = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
        let group = match numbered {
            true => name.parse().ok(),
            false => regex.group_info().to_index(captures.pattern().unwrap_or_default(), name),
        };
        if let Some(span) = group.and_then(|group: usize| captures.get_group(group)) {
            out.push_str(&value[span.range()]);
        }
    }
    out.push_str(rest);
}

/// A group's name or number behind a dollar, and what follows it.
fn reference(after: &str) -> Option<(&str, &str)> {
    if let Some(inner) = after.strip_prefix('{') {
        let (name, rest) = inner.split_once('}')?;
        let is_name = !name.is_empty() && name.chars().all(|c| c == '_' || c.is_alphanumeric());
        return is_name.then_some((name, rest));
    }
    let end = after.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(after.len());
    (end > 0).then(|| after.split_at(end))
}
