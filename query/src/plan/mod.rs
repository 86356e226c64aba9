//! The checked plan of a query: every duration a number, every `@` a time, every function its signature,
//! constant parts marked. No I/O.

mod build;
mod duration;
mod node_id;
pub mod resolution;
mod selector;
mod subexpressions;
mod tree;

pub use crate::steps::Steps;
pub use build::{TIME_DEPENDENT, Times, build};
pub use node_id::NodeId;
pub use selector::Selector;
pub use tree::{Aggregate, Binary, Call, Plan, PlanExpr, PlanNode, Shared, Subquery};
