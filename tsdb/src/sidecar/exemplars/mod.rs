//! Exemplars in storage: a buffer in memory, files beside the blocks, and which files go.

pub mod buffer;
pub mod file;
pub(crate) mod load;
pub mod retention;
