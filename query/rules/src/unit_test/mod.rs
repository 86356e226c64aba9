//! Unit tests of rules, in the format of `promtool test rules`.
//!
//! A file of tests (`file`) names rule files and holds test groups. Each group loads series into a store
//! in memory, evaluates all rules as a server would from the first to the last moment it asks about
//! ([`run`]), and compares alerts and results with what it expects. What differs is told as upstream tells
//! it (`report`).

pub mod file;
mod outcome;
mod report;
mod run;

use std::path::Path;

pub use outcome::{FileOutcome, GroupOutcome, TestOptions, name_pattern};
pub use report::junit;

/// Runs a file of tests.
pub fn run(path: &Path, options: &TestOptions) -> FileOutcome {
    let mut outcome = FileOutcome {
        file: path.display().to_string(),
        warnings: Vec::new(),
        error: None,
        groups: Vec::new(),
    };
    if let Err(why) = run::run(path, options, &mut outcome) {
        outcome.error = Some(why);
    }
    outcome
}

#[cfg(test)]
mod tests;
