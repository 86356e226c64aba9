//! The pages in `docs/formats` against the code: their examples are read and written by it, their tables are
//! those of written files.

#[path = "../faulty_store/mod.rs"]
mod faulty_store;

mod block;
mod catalog;
mod journal;
mod local_block;
mod log;
mod page;
mod sidecar;
