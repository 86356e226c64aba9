//! What the differential test is made of: series from a seed, expressions over them, and the comparison of
//! two answers.
#![allow(dead_code, reason = "every test file is a crate of its own and uses its own part of this module")]

pub mod compare;
pub mod generate;
pub mod language;
pub mod load;
pub mod native;
pub mod strict;
