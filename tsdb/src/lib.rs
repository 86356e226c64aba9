//! Hearth's storage: head, log, blocks and catalog; no HTTP, no PromQL, no wire formats. Its nouns are the
//! crate `model`.
//!
//! The life of a sample:
//!
//! 1. It is written down as a [`model::sample::Value`] at a millisecond, under [`model::labels::Labels`], for
//!    a [`model::tenant::TenantId`].
//! 2. It is written to the log ([`wal`]) and, once that is fsynced, into the [`head`], compressed in a
//!    [`head::chunk`] of its series and generation.
//! 3. Every few minutes of data the generation is sealed: its samples leave memory for a small block on the
//!    local disk ([`db::local`]), which is what a restart finds in the place of the log.
//! 4. [`db::flush`] decides when a window is complete: what is sealed becomes one immutable block in the
//!    object store ([`block`]): three Parquet files that anybody can read.
//! 5. The block exists once the tenant's [`catalog`] says so: a numbered snapshot, created if absent, is the
//!    only commit point. The same commit says up to where the log is no longer needed.
//! 6. A query takes one state from [`db`] and asks it as a [`model::source::Source`]: head, local blocks
//!    and [`bucket`] hold the same series at different ages, [`model::source::merge`] makes them one. What
//!    was deleted is hidden by a [`deletion::Visibility`] until compaction has taken it out. HA replicas of a
//!    series are made one by [`model::source::dedup`].

pub mod block;
pub mod block_meta;
pub mod bucket;
pub mod catalog;
pub mod cause;
pub mod db;
pub mod deletion;
pub mod head;
pub mod layout;
pub mod sidecar;
pub mod small_object;
mod ulid_text;
pub mod wal;

pub use cause::Cause;
