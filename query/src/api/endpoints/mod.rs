//! One file for each group of endpoints: parameters in, an answer of [`crate::api::response`] out.

pub mod admin;
pub mod estimate;
pub mod exemplars;
pub mod explain;
pub mod labels;
pub mod query;
pub mod rules;
pub mod running;
pub mod status;
pub mod storage;
