//! What the differential test is made of: series from a seed, expressions over them, and the comparison of two answers.

pub mod compare;
pub mod generate;
pub mod load;
