//! The exposition formats that scrapers read: which one a request asks for, how names are escaped in it, and
//! how a sample is written.

pub mod accept;
pub(in crate::api) mod families;
pub mod names;
pub mod own;
pub(in crate::api) mod protobuf;
pub(in crate::api) mod text;
