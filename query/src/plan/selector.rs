//! A planned selector: what it matches and when, and what is said of it to sources.

use std::sync::Arc;

use hashbrown::HashSet;
use model::labels::{Labels, LabelsBuilder, METRIC_NAME};
use model::matcher::{MatchOp, Matcher};

use super::node_id::NodeId;
use crate::parse::Span;

/// A selector, with the place among the plan's selections it reads from.
#[derive(Debug)]
pub struct Selector {
    pub id: NodeId,
    pub name: Option<Arc<str>>,
    pub matchers: Vec<Matcher>,
    pub offset_ms: i64,
    /// `@`, resolved: milliseconds.
    pub at_ms: Option<i64>,
    pub anchored: bool,
    pub smoothed: bool,
    /// Equal selectors under equal subqueries have the same number.
    pub selection: usize,
    /// Name of the function or aggregation right around it, empty where there is none.
    pub func: &'static str,
    /// Of the selector without its range.
    pub span: Span,
    /// Only counts and sums of histograms are looked at (`histogram_count` and its kin stand around it), so
    /// buckets are left out and counter resets noted as the samples pass.
    pub counts_only: bool,
}

impl Selector {
    /// The value of the equality matcher on the name, if there is one.
    pub fn metric_name(&self) -> Option<&str> {
        self.matchers.iter().find(|m| &*m.name == METRIC_NAME && m.op == MatchOp::Equal).map(|m| &*m.value)
    }

    /// Whether the function around takes falls of the samples for resets of a counter.
    pub fn reads_counter(&self) -> bool {
        matches!(self.func, "rate" | "irate" | "increase" | "resets")
    }

    /// The labels that a selector matches exactly: what `absent` gives its result. A label that is also
    /// matched otherwise is left out, wherever the other matcher stands: those that only take series away
    /// come last, as Prometheus' storage reorders them before it is asked for labels.
    pub fn absent_labels(&self) -> Labels {
        let mut b = LabelsBuilder::default();
        let mut has: HashSet<&str> = HashSet::new();
        let takes_away = |m: &Matcher| {
            m.matches("")
                && (!m.op.is_positive() || self.matchers.iter().all(|o| o.name != m.name || o.matches("")))
        };
        let (first, last): (Vec<&Matcher>, Vec<&Matcher>) =
            self.matchers.iter().filter(|m| &*m.name != METRIC_NAME).partition(|m| !takes_away(m));
        for m in first.into_iter().chain(last) {
            if m.op == MatchOp::Equal && has.insert(&m.name) {
                b.set(&m.name, &m.value);
            } else {
                b.remove(&m.name);
            }
        }
        b.build()
    }
}
