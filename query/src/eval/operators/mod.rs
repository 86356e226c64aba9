//! What stands between functions: selectors, windows over range vectors, operators between vectors,
//! aggregations; and results that are streamed row by row.

mod aggregate;
pub(crate) mod batches;
mod binary;
mod counts_only;
mod in_order;
pub(crate) mod range;
mod rowwise;
pub(crate) mod selector;
pub(crate) mod streamed;
mod subexpressions;
