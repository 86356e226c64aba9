//! What a request says: the form it comes in, values as upstream writes them, and the replicas it wants
//! to see as one.

pub mod form;
pub mod replicas;
pub mod values;
