//! Rule files: strict YAML to checked groups of rules, or everything that is wrong with it and where.
//!
//! The format and the words of the errors are those of Prometheus 3.14 (`model/rulefmt`), which every error
//! follows with the place in the file: upstream leaves it out in some.

mod error;
mod read;
mod rule;
mod validate;
mod write;
pub mod yaml;

pub use discovery::glob::expand as expand_pattern;
pub use error::{FileError, Position};
pub use read::{parse, parse_group};
pub use rule::{FileOptions, Rule, RuleGroup, RuleKind};
pub use write::{quoted, write_group};

#[cfg(test)]
mod tests;
