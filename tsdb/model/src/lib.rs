//! Hearth's nouns, and what can be done with them without storage, network or query language.
//!
//! The life of a sample, as far as it is a value and not bytes on a disk:
//!
//! 1. It is a [`sample::Value`] at a millisecond, a float or a [`histogram`], under [`labels::Labels`], for a
//!    [`tenant::TenantId`]. Beside it stand [`exemplar`]s.
//! 2. A query asks for it with [`matcher`]s over a range of time ([`span`] says where aligned spans begin and
//!    end) and takes it from a [`source::Source`]: a head, a bucket, and whatever else keeps series answer by
//!    the same contract.
//! 3. Several sources of the same samples become one by [`source::merge`], replicas of a series one by
//!    [`source::dedup`].
//! 4. Those of several tenants become one by [`source::federation`], where an [`identity`] may read them all.
//! 5. Where it has grown old, a [`rollup`] of 5 minutes or an hour stands for it.
//! 6. [`codec`] has the integers that chunks, logs and blocks are written with, [`keyed_hash`] the hash by
//!    which what comes from outside is found in tables, [`backoff`] the pauses between attempts,
//!    [`authorities`] whether the certificates that others are known by have changed.

pub mod authorities;
pub mod backoff;
pub mod clock;
pub mod codec;
pub mod columns;
pub mod exemplar;
pub mod head_stats;
pub mod histogram;
pub mod identity;
pub mod keyed_hash;
pub mod labels;
pub mod matcher;
pub mod quote;
pub mod rollup;
pub mod sample;
pub mod source;
pub mod span;
pub mod stale;
pub mod tenant;
pub mod tenant_limits;
