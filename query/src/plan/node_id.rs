//! Numbers for the parts of a plan, by which others write down what they know of them.

/// The number of a part of a plan (a node, or the selector or subquery in it), unique within the plan and
/// dense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// Not numbered yet, and no node at all.
    pub const NONE: NodeId = NodeId(0);

    pub(super) fn new(number: usize) -> NodeId {
        NodeId(number as u32)
    }

    /// As a place in a list of `Plan::node_count`.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
