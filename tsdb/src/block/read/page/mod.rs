//! Decoders of Parquet data pages, as far as Hearth's own writer lays them out: header and inflation, lists,
//! bit-packed numbers, dictionaries.

pub(crate) mod bit_packed;
pub(crate) mod dictionary;
pub(crate) mod header;
pub(crate) mod list;
