//! The life of a block after it was written.
//!
//! 1. A flush wrote it: one window of one tenant, raw samples, committed in the tenant's catalog.
//! 2. Blocks that lie side by side are merged into one of a day, and the catalog replaces them in one commit.
//! 3. In the same pass it is downsampled to 5 minutes and 1 hour: count, sum, min, max, first, last, increase, resets, changes.
//! 4. Past the retention of its resolution, a commit takes it out of the catalog.
//! 5. Its objects are removed after a delay longer than the longest query that may still read them.
//!
//! Today only step 1 exists, and it is done by [`tsdb`]: this crate holds the place and the arrows (it knows `tsdb`, never `ingest` or `query`)
//! of what comes next. Until then blocks stay as they were flushed, and nothing removes them.

pub mod garbage;
pub mod job;
pub mod marks;
pub mod merge;
pub mod metrics;
pub mod plan;
mod replicas;
pub mod retention;
pub mod settings;
mod verify;
pub mod worker;
pub mod write;
