//! How a request comes in: its tenant, what it asks in Thanos' words, and its wait for a permit to run.

pub mod call;
pub mod permit;
pub mod thanos;
