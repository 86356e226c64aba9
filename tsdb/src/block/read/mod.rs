//! Reading blocks: which rows a selection needs ([`plan`]), the pages that hold them ([`page`]), samples or
//! windows out of them.

pub(crate) mod arrow_lists;
pub(crate) mod cache;
mod coming;
pub(crate) mod disk_cache;
pub(crate) mod file;
pub(crate) mod histograms;
pub(crate) mod kept_labels;
pub(crate) mod label_lists;
pub(crate) mod lists;
pub(crate) mod page;
pub(crate) mod plan;
pub(crate) mod reader;
pub(crate) mod samples;
pub(crate) mod scan;
pub(crate) mod series_table;
pub(crate) mod small_rows;
pub(crate) mod store;
pub(crate) mod symbols;
pub(crate) mod windows;
