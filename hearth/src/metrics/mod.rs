//! What is measured: the process, the store, and the rounds of both that Hearth writes into itself.

pub mod limits;
pub mod process;
pub mod self_metrics;
pub mod store;
