//! What a query tells of itself: samples as upstream counts them, and what each node of the plan did.

pub mod samples;
pub mod trace;
