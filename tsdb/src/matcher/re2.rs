//! RE2 syntax, the language of `=~`, `!~` and `label_replace`, run on the regex-automata engine.

use regex_automata::meta::Regex;

/// A compiled, fully anchored expression: `^(?s:…)$`.
#[derive(Debug)]
pub struct Re2 {
    regex: Regex,
    set: Option<Vec<String>>,
}

/// Why an expression was refused, in RE2's words where it has them.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("{0}")]
pub struct Re2Error(pub String);

impl Re2 {
    /// Compiles an expression that must match a whole value.
    pub fn anchored(expr: &str) -> Result<Self, Re2Error> {
        let bad = |e: &dyn std::fmt::Display| Re2Error(format!("error parsing regexp: {e}"));
        Regex::new(expr).map_err(|e| bad(&e))?;
        let regex = Regex::new(&format!("^(?s:{expr})$")).map_err(|e| bad(&e))?;
        Ok(Re2 { regex, set: None })
    }

    #[inline]
    pub fn is_match(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }

    /// The few strings that are all it can match (`a|b|c`), ascending, each once; `None` where there are others.
    pub fn set_matches(&self) -> Option<&[String]> {
        self.set.as_deref()
    }

    /// What every matching value starts with; empty where nothing is known.
    pub fn prefix(&self) -> &str {
        ""
    }

    /// The engine, for captures.
    pub fn regex(&self) -> &Regex {
        &self.regex
    }
}
