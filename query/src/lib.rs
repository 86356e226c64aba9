//! Answers PromQL: the Prometheus HTTP API, the language, its plan and its columnar evaluation.
//!
//! The life of a query:
//!
//! 1. Text becomes a checked syntax tree ([`parse`]).

pub mod parse;
