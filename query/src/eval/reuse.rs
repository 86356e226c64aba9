//! What one evaluation keeps because it is asked for again: series of selections and values of expressions
//! that stand more than once.

use std::sync::Arc;

use hashbrown::HashMap;
use model::source::{Reservation, SeriesColumns};

use crate::eval::frame::Val;
use crate::eval::stats::samples::SampleStats;

/// What is kept to be used again takes at most one part in so many of what a query may hold; the rest is read
/// or computed again.
pub(super) const MAX_KEPT_PART: u64 = 8;

/// Batches of selections that are read more than once, by number of the selection and time range.
pub(super) type SelectedSeries = HashMap<(usize, i64, i64), Arc<Vec<Arc<Vec<SeriesColumns>>>>>;

/// By number of the expression, and start, step and count of the steps it was evaluated for.
pub(super) type SharedValues = HashMap<(u32, i64, i64, usize), SharedValue>;

/// The value of an expression that stands more than once.
pub(super) struct SharedValue {
    pub val: Val,
    pub sample_stats: SampleStats,
    /// Charged to the budget.
    pub reserved: Reservation,
    /// How often it may still be asked for.
    pub uses: u32,
}
