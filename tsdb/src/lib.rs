//! Hearth's nouns and its storage; no HTTP, no PromQL, no wire formats.
//!
//! The life of a sample:
//!
//! 1. It is written down as a [`sample::Value`] at a millisecond, under [`labels::Labels`], for a [`tenant::TenantId`].

pub mod chunk;
pub mod clock;
pub mod db;
pub mod head;
pub mod histogram;
pub mod labels;
pub mod matcher;
pub mod memory;
pub mod sample;
pub mod source;
pub mod tenant;
pub mod varint;
pub mod wal;
