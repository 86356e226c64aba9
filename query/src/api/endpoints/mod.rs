//! One file for each group of endpoints: parameters in, an answer of [`crate::api::response`] out.

pub mod admin;
pub mod estimate;
pub mod exemplars;
pub mod explain;
pub mod features;
pub mod federate;
pub mod labels;
pub mod notifications;
pub mod openapi;
pub mod query;
pub mod read;
pub mod rules;
pub mod running;
pub mod search;
pub mod self_metrics;
pub mod status;
pub mod storage;
pub mod stored_cardinality;
