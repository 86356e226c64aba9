//! Answers PromQL: the Prometheus HTTP API, the language, its plan and its columnar evaluation.
//!
//! The life of a query:
//!
//! 1. Text becomes a checked syntax tree ([`parse`]).
//! 2. The tree becomes a plan ([`plan`]): durations and `@` are numbers, each selector knows the time range
//!    it needs, and what has one value for all steps is marked. No I/O happens here.
//! 3. The plan is walked ([`eval`]) for all steps at once: each selector reads its series once, windows slide
//!    over them, aggregations fold them into groups as they come, and what stands twice in the text is
//!    computed once. The [`model::source::Budget`] is charged on the way.
//! 4. The [`engine`] hands out a [`value`] with its [`annotations`] and figures; a large range result row by
//!    row, while it is computed. [`explain`] shows the plan, and what each node of it did.
//!
//! Around it, the [`api`]: a request's parameters are read as Prometheus reads them, the query waits for a
//! permit, runs on a thread that may block, and its value is written as JSON piece by piece, as fast as the
//! client takes it. A client that goes away cancels the query. What looks small is tried where it came in,
//! and given up there as soon as it would wait or grow ([`model::source::at_once`]).

pub mod annotations;
pub mod api;
pub mod column;
pub mod engine;
pub mod eval;
pub mod explain;
pub mod options;
pub mod parse;
pub mod plan;
pub mod results_cache;
pub mod steps;
pub mod ui;
pub mod value;
