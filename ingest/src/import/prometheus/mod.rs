//! The files of a Prometheus block, as upstream's `tsdb/docs/format` describes them: index, chunks and
//! tombstones.

pub(super) mod bits;
pub(super) mod chunk;
mod crc32c;
pub(super) mod index;
mod read_ahead;
pub(super) mod segments;
pub(super) mod tombstones;
