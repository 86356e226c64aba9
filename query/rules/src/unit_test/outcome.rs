//! How tests are run, and how they ended.

use query::parse::ParseOptions;

/// How tests are run.
pub struct TestOptions {
    pub parse: ParseOptions,
    /// Only test groups whose name it matches; all where there is none.
    pub only: Option<regex_automata::meta::Regex>,
    /// Unknown keys of rule files are let pass.
    pub ignore_unknown_fields: bool,
    /// Failures show what is missing and what is too much, line by line.
    pub diff: bool,
}

/// An expression for [`TestOptions::only`].
pub fn name_pattern(pattern: &str) -> Result<regex_automata::meta::Regex, String> {
    crate::regex::search(pattern)
}

/// A file of tests that was run.
#[derive(Debug)]
pub struct FileOutcome {
    pub file: String,
    /// What the person who runs it should know, and what stops nothing.
    pub warnings: Vec<String>,
    /// What keeps the file from being run at all.
    pub error: Option<String>,
    /// Test groups that ran, with what differed.
    pub groups: Vec<GroupOutcome>,
}

/// A test group that was run.
#[derive(Debug)]
pub struct GroupOutcome {
    pub name: String,
    pub failures: Vec<String>,
}

impl FileOutcome {
    pub fn passed(&self) -> bool {
        self.error.is_none() && self.groups.iter().all(|g| g.failures.is_empty())
    }

    /// Everything that failed, in order.
    pub fn failures(&self) -> impl Iterator<Item = &str> {
        self.error
            .as_deref()
            .into_iter()
            .chain(self.groups.iter().flat_map(|g| &g.failures).map(String::as_str))
    }
}
