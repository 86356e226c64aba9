//! Carrying out what was planned: the [runner] reads, merges, writes, reads back and commits; what each step
//! stands on.

pub mod input;
pub mod merge;
mod replicas;
pub mod rewrite;
pub mod rewrite_candidates;
pub mod runner;
mod verify;
pub mod write;

pub use runner::{Done, JobError, JobRunner};
