//! Label matchers: `=`, `!=`, `=~` and `!~`, compiled once and asked often.
//!
//! Regexes are RE2's, as Prometheus takes them, and always match whole values: `^(?s:…)$`.

use std::fmt;
use std::sync::Arc;

use crate::labels::Labels;
use crate::quote::{is_legacy_label_name, quote};

mod cache;
mod re2;
#[cfg(test)]
mod tests;
mod translate;

pub use re2::Re2;
pub use translate::Re2Error;

/// Whether every matcher holds for a label set.
pub fn matches_all(labels: &Labels, matchers: &[Matcher]) -> bool {
    matchers.iter().all(|m| m.matches(labels.value(&m.name)))
}

/// The four ways to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchOp {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

impl MatchOp {
    pub fn as_str(self) -> &'static str {
        match self {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        }
    }

    /// Whether a match of the value is a match of the matcher (`=`, `=~`) or its contrary.
    pub fn is_positive(self) -> bool {
        matches!(self, MatchOp::Equal | MatchOp::Regex)
    }
}

/// One matcher on one label. A series without the label has the empty value.
#[derive(Clone)]
pub struct Matcher {
    pub name: Arc<str>,
    pub op: MatchOp,
    pub value: Arc<str>,
    /// Set for the two regex operators.
    re: Option<Arc<Re2>>,
}

impl Matcher {
    /// Compiles a matcher; only a regex can fail.
    pub fn new(op: MatchOp, name: &str, value: &str) -> Result<Self, Re2Error> {
        let re = match op {
            MatchOp::Regex | MatchOp::NotRegex => Some(cache::anchored(value)?),
            _ => None,
        };
        Ok(Matcher { name: name.into(), op, value: value.into(), re })
    }

    /// `name="value"`.
    pub fn equal(name: &str, value: &str) -> Self {
        Matcher { name: name.into(), op: MatchOp::Equal, value: value.into(), re: None }
    }

    /// Whether a label value (empty for none) satisfies it.
    #[inline]
    pub fn matches(&self, value: &str) -> bool {
        match (&self.re, self.op) {
            (Some(re), MatchOp::Regex) => re.is_match(value),
            (Some(re), _) => !re.is_match(value),
            (None, MatchOp::Equal) => *self.value == *value,
            (None, _) => *self.value != *value,
        }
    }

    /// Whether a series without the label satisfies it.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// The same matcher where `values` are all that its regex matches of those there are, and perhaps the
    /// empty one.
    pub fn with_values(&self, values: Vec<String>) -> Matcher {
        let re = self.re.as_ref().map(|_| Arc::new(Re2::of_values(values)));
        Matcher { re, ..self.clone() }
    }

    /// The regex of `=~` and `!~`.
    pub fn regex(&self) -> Option<&Re2> {
        self.re.as_deref()
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.op == other.op && self.value == other.value
    }
}

impl Eq for Matcher {}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_legacy_label_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            f.write_str(&quote(&*self.name))?;
        }
        write!(f, "{}{}", self.op.as_str(), quote(&*self.value))
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
