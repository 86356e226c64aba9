//! How a request comes in: its tenant and parameters, the replicas it wants to see as one, and its wait for a
//! permit to run.

pub mod call;
pub mod form;
pub mod params;
pub mod permit;
pub mod replicas;
pub mod thanos;
