//! Values while they are computed: a row per series, a [`Column`] of each.

use std::sync::Arc;

use model::labels::{Labels, METRIC_NAME};

use crate::column::Column;

/// One series of an instant vector over all steps.
#[derive(Clone, Debug)]
pub struct Row {
    pub labels: Labels,
    /// With delayed name removal: the name is still among the labels and goes at the very end.
    pub drop_name: bool,
    pub column: Column,
}

/// An instant vector over all steps. Where there is one step the order of rows is the order of the result.
/// A row may be empty at a step, and at all of them.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    pub rows: Vec<Row>,
}

/// The value of an expression over all steps.
#[derive(Clone, Debug)]
pub enum Val {
    /// One number per step.
    Scalar(Vec<f64>),
    Str(Arc<[u8]>),
    Vector(Frame),
}

impl Val {
    pub fn type_name(&self) -> &'static str {
        match self {
            Val::Scalar(_) => "a scalar",
            Val::Str(_) => "a string",
            Val::Vector(_) => "an instant vector",
        }
    }

    /// Series with a point; a scalar or a string counts for one.
    pub fn series(&self) -> u64 {
        match self {
            Val::Vector(frame) => frame.rows.iter().filter(|r| !r.column.is_empty()).count() as u64,
            _ => 1,
        }
    }
}

/// What is done with a metric's name, type and unit where an operation drops them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    Dropped,
    /// Whoever takes the rows does not look at them, and they may be left: to drop them takes a label set of
    /// its own for each row.
    NotLookedAt,
}

/// Whether a label says what a metric is rather than whom it is about: the name and, with them, its type and
/// unit.
pub fn is_metadata_label(name: &str) -> bool {
    matches!(name, METRIC_NAME | "__type__" | "__unit__")
}

/// The labels without the metric's name, type and unit: what "dropping the name" means.
pub fn without_name(labels: &Labels) -> Labels {
    labels.filter(|n, _| !is_metadata_label(n))
}
