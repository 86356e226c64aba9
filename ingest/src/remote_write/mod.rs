//! Remote write: from a decoded body to calls of the store's appender, for both versions of the protocol.
//!
//! 1. [`snappy`] says how long the body will be, and decodes it.
//! 2. `walk` goes over the body once, `wire` is protobuf's wire format; [`v1`] and [`v2`] know the fields
//!    of their messages, `histogram` those that both share.
//! 3. [`series_cache`] recognises a series by the bytes it came in the last time.
//! 4. `validate` holds each series against upstream's rules and the limits, and hands what is good to a
//!    [`sink::Sink`].
//!
//! The other way round, [`encode`] writes what Hearth itself sends to another.

pub mod encode;
mod histogram;
pub mod series_cache;
pub mod sink;
pub mod snappy;
pub mod v1;
pub mod v2;
pub(crate) mod validate;
mod walk;
mod wire;

pub use validate::Outcome;
pub use wire::{DecodeError, Malformed};
