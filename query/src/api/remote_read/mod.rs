//! Remote read: what Prometheus asks for, and its two answers.
//!
//! 1. `request` reads a `prometheus.ReadRequest`: selectors, times, and which answers its sender takes.
//! 2. `samples` writes a `ReadResponse` of whole samples, which is packed as one.
//! 3. `frames` writes series as frames of chunks that are sent one by one; `chunk` fills the chunks, in
//!    the encodings that every version since 2.40 reads.

pub(in crate::api) mod chunk;
pub(in crate::api) mod frames;
pub mod request;
pub(in crate::api) mod samples;
