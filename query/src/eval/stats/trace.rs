//! What each node of a plan did, for `explain` with `analyze`. Made only when asked for: without it an
//! evaluation asks once per node whether there is one.
//!
//! One node is at work at any time (its cores count as one): the clock, the samples read and the memory held
//! go to it until another takes over. So the parts add up to the whole, also where rows pass from a selector
//! into an aggregation one by one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::source::Budget;
use parking_lot::Mutex;

use crate::plan::NodeId;

/// What a node did itself, without the nodes under it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// How often it was evaluated; 0 for what was not reached.
    pub runs: u64,
    /// Series that it gave, all runs together.
    pub series: u64,
    /// Samples that came out of storage while it was at work.
    pub samples_read: u64,
    /// Bytes of what it gave.
    pub bytes: u64,
    /// Most bytes that the whole query held while it was at work.
    pub bytes_peak: u64,
    pub time: Duration,
    /// A selection that another node had read already, or an expression whose value was known from another
    /// place.
    pub reused: bool,
    /// Of a selector: the coarsest downsampled windows that would have done for it, 0 where it needs samples.
    pub max_resolution_ms: i64,
}

impl Figures {
    /// Both together.
    pub fn and(self, other: Figures) -> Figures {
        Figures {
            runs: self.runs.max(other.runs),
            series: self.series.max(other.series),
            samples_read: self.samples_read + other.samples_read,
            bytes: self.bytes.max(other.bytes),
            bytes_peak: self.bytes_peak.max(other.bytes_peak),
            time: self.time + other.time,
            reused: self.reused || other.reused,
            max_resolution_ms: self.max_resolution_ms.max(other.max_resolution_ms),
        }
    }
}

/// Collects [`Figures`] while a query runs.
#[derive(Debug)]
pub struct Trace {
    budget: Arc<Budget>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// By number of the node.
    nodes: Vec<Figures>,
    current: NodeId,
    since: Instant,
    samples: u64,
    bytes_peak: u64,
}

impl Trace {
    /// For a plan of so many nodes. Nothing is at work yet; what is counted before [`Trace::switch`] goes to
    /// no node.
    pub fn new(nodes: usize, budget: Arc<Budget>) -> Arc<Trace> {
        let state = State {
            nodes: vec![Figures::default(); nodes],
            current: NodeId::default(),
            since: Instant::now(),
            samples: budget.samples_read(),
            bytes_peak: 0,
        };
        Arc::new(Trace { budget, state: Mutex::new(state) })
    }

    /// Another node takes over; which one it was until now.
    pub fn switch(&self, to: NodeId) -> NodeId {
        let mut state = self.state.lock();
        let (now, samples) = (Instant::now(), self.budget.samples_read());
        // The peak since the last time: the budget's own is lowered to what is held now.
        let peak = self.budget.lower_peak();
        let (took, read) = (now - state.since, samples.saturating_sub(state.samples));
        let current = state.current;
        let node = &mut state.nodes[current.index()];
        node.time += took;
        node.samples_read += read;
        node.bytes_peak = node.bytes_peak.max(peak);
        state.since = now;
        state.samples = samples;
        state.bytes_peak = state.bytes_peak.max(peak);
        std::mem::replace(&mut state.current, to)
    }

    /// Adds to what a node did.
    pub fn note(&self, node: NodeId, add: impl FnOnce(&mut Figures)) {
        add(&mut self.state.lock().nodes[node.index()]);
    }

    /// What a node did; nothing for one that did not run.
    pub fn figures(&self, node: NodeId) -> Figures {
        self.state.lock().nodes[node.index()]
    }

    /// The query's own peak, which the budget cannot tell any more.
    pub fn bytes_peak(&self) -> u64 {
        self.state.lock().bytes_peak.max(self.budget.bytes_peak())
    }
}
