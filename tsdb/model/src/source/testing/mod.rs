//! For tests of sources: one in memory, the conformance suite that every source passes, and a seeded
//! generator of numbers.

pub mod conformance;
pub mod memory;
pub mod rng;
