//! Columnar evaluation: every node of the plan is computed for all steps at once, a row per series, a slot
//! per step.
//!
//! [`Evaluator::eval`](evaluator::Evaluator::eval) walks the plan (`walk`). Its [`operators`] read
//! selections, slide windows, fold aggregations and match vectors; its [`functions`] are what PromQL's names
//! stand for. Selectors and range functions over them hand out their rows one batch of series at a time, so
//! that an aggregation holds its groups and never all rows. Everything else is computed whole. [`stats`] is
//! what a reader learns of all this.

mod cores;
pub mod evaluator;
mod extrapolation;
pub mod frame;
pub mod functions;
pub mod operators;
pub mod resolution;
mod reuse;
mod series_to_come;
pub mod stats;
pub mod timeline;
mod walk;
