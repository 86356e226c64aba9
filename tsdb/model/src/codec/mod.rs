//! Integers as bits and bytes: what chunks, the log and blocks are written with.

pub mod bits;
pub mod varint;
