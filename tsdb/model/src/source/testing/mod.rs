//! For tests of sources: the conformance suite that every source passes, and a seeded generator of numbers.

pub mod conformance;
pub mod rng;
