//! What a template is expanded with, how far it may go, and why it may fail.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::value::{Sample, Value};

/// Why a text is no template, or why it did not expand. The text begins with `template: NAME:LINE…`, as Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(pub String);

/// What a template is expanded with.
pub struct Data<'a> {
    /// Of the result, its name included where it has one.
    pub labels: Arc<BTreeMap<String, String>>,
    /// A float or a histogram.
    pub value: Value,
    pub external: &'a External,
    /// Evaluates PromQL at the time of the rule's evaluation.
    pub query: &'a dyn Fn(&str) -> Result<Vec<Sample>, String>,
    /// The time of the evaluation.
    pub now_ms: i64,
}

/// What all templates of a server know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct External {
    pub labels: Arc<BTreeMap<String, String>>,
    /// Without a slash at the end.
    pub url: String,
}

/// [`External`] while rules run and a reload may change it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SharedExternal(Arc<RwLock<External>>);

impl SharedExternal {
    pub fn get(&self) -> External {
        self.0.read().clone()
    }

    pub fn set(&self, external: External) {
        *self.0.write() = external;
    }
}

impl From<External> for SharedExternal {
    fn from(external: External) -> SharedExternal {
        SharedExternal(Arc::new(RwLock::new(external)))
    }
}

impl External {
    /// The path of the URL, `/` where it has none.
    pub fn path_prefix(&self) -> &str {
        let path = match self.url.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
            None => self.url.as_str(),
        };
        if path.is_empty() { "/" } else { path }
    }
}

/// How much one expansion may do. The defaults are far beyond what an alert's text needs.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest output.
    pub output_bytes: usize,
    /// What functions may make on the way, together.
    pub made_bytes: usize,
    /// Actions and commands that are carried out.
    pub steps: usize,
    /// Queries that are asked.
    pub queries: usize,
    /// Templates that call one another.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { output_bytes: 1 << 20, made_bytes: 16 << 20, steps: 100_000, queries: 100, depth: 100 }
    }
}
