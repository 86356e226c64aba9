//! The life of a block after it was written.
//!
//! 1. A flush or an import wrote it: raw samples, committed in the tenant's catalog, as *level 0*. Flushes
//!    keep to half days ([`model::span`]).
//! 2. [`plan`] looks at nothing but metadata and the hour. Where an aligned span of 14 d, 2 d or 12 h is
//!    over, all its raw blocks become one; blocks that lie over one another (late data, copies, imports) are
//!    an ordinary input. A block that crosses boundaries is cut at them first.
//! 3. A [`worker`] claims the job by [lease](tsdb::catalog::lease) and does it ([`job`]): [`job::merge`]
//!    reads all inputs series by series in order, with the same visibility as in queries, [`job::write`] puts
//!    down the raw block and, in the same pass, its windows of 5 minutes and an hour
//!    ([`model::rollup::downsample`]). What would be too large for one block becomes several, one after the
//!    other, each with a run of the series. So memory and scratch disk stay below their settings, whatever
//!    there is to merge. What was uploaded is read back and compared with what was merged.
//! 4. One commit puts the outputs in the place of the inputs and of the windows that they replace. It demands
//!    that all of them are still live, so two compactors that do the same thing lose time and nothing else.
//!    Until then nothing is visible; a crash leaves objects that nobody names.
//! 5. Deletions and rules of retention that hide series of it in queries at once become physical the next
//!    time it is written, and where they concern it it is written again for their sake
//!    ([`job::rewrite_candidates`]).
//! 6. Where it cannot be read it is quarantined: a mark in the catalog that every compactor sees. Queries
//!    that need it still say that they cannot read it.
//! 7. Past the [`retention`] of its resolution a commit takes it out of the catalog; raw blocks not before
//!    their windows are committed. Windows that have outlived their samples are merged further by themselves
//!    ([`plan::rollups`]).
//! 8. Its objects are deleted when no snapshot names it that a query may still hold ([`garbage`]). So are
//!    those of uploads that were never committed, files beside the blocks, and what the journal of imports
//!    does not have to tell any more.
//!
//! Planning, retention and garbage are functions of values to values. This crate knows `tsdb`, never `ingest`
//! or `query`, and sees the object store only through [`tsdb::bucket::maintenance`].

pub mod export;
pub mod garbage;
pub mod inspect;
pub mod job;
pub mod metrics;
pub mod outlook;
pub mod plan;
pub mod retention;
pub mod settings;
pub mod worker;
