//! Hearth's nouns and its storage; no HTTP, no PromQL, no wire formats.
//!
//! The life of a sample:
//!
//! 1. It is written down as a [`sample::Value`] at a millisecond, under [`labels::Labels`], for a [`tenant::TenantId`].
//! 2. A window of it becomes an immutable block in the object store ([`block`]): three Parquet files that anybody can read.
//! 3. The block exists once the tenant's [`catalog`] says so: a numbered snapshot, created if absent, is the only commit point.
//! 4. A query asks a [`source::Source`]: head and [`bucket`] hold the same series at different ages, [`merge`] makes them one.

pub mod block;
pub mod bucket;
pub mod catalog;
pub mod chunk;
pub mod clock;
#[doc(hidden)]
pub mod contract;
pub mod db;
pub mod head;
pub mod histogram;
pub mod labels;
pub mod layout;
pub mod matcher;
pub mod memory;
pub mod merge;
pub mod sample;
pub mod source;
pub mod tenant;
pub mod varint;
pub mod wal;
