//! Hearth's nouns and its storage; no HTTP, no PromQL, no wire formats.
//!
//! The life of a sample:
//!
//! 1. It is written down as a [`sample::Value`] at a millisecond, under [`labels::Labels`], for a [`tenant::TenantId`].
//! 2. It is written to the log ([`wal`]) and, once that is fsynced, into the [`head`], compressed in a [`chunk`] of its series and generation.
//! 3. Every few minutes of data the generation is closed: its samples leave memory for a small block on the local disk ([`sealed`]), which
//!    is what a restart finds in the place of the log.
//! 4. [`flush`] decides when a window is complete: what is sealed becomes one immutable block in the object store ([`block`]): three
//!    Parquet files that anybody can read.
//! 5. The block exists once the tenant's [`catalog`] says so: a numbered snapshot, created if absent, is the only commit point. The
//!    same commit says up to where the log is no longer needed.
//! 6. A query takes one state from [`db`] and asks it as a [`source::Source`]: head, seals and [`bucket`] hold the same series at different
//!    ages, [`merge`] makes them one. What was deleted is hidden by a [`mask`] until compaction has taken it out. HA replicas of a
//!    series are made one by [`dedup`].

pub mod attachment;
pub mod bits;
pub mod block;
pub mod bucket;
pub mod catalog;
pub mod chunk;
pub mod clock;
#[doc(hidden)]
pub mod contract;
pub mod db;
pub mod dedup;
pub mod depot;
#[doc(hidden)]
pub mod dice;
pub mod downsample;
pub mod exemplar;
pub mod flush;
pub mod head;
pub mod histogram;
pub mod intake;
pub mod labels;
pub mod layout;
pub mod lease;
pub mod mask;
pub mod matcher;
pub mod memory;
pub mod merge;
pub mod metadata;
pub mod resolution;
pub mod sample;
pub mod sealed;
pub mod source;
pub mod span;
pub mod tenant;
pub mod varint;
pub mod wal;
pub mod window;
