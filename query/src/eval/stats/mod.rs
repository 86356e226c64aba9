//! What a query tells of itself: samples as upstream counts them, resolutions that answered, and what each
//! node of the plan did.

pub mod resolution;
pub mod samples;
pub mod trace;
