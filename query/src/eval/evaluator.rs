//! The state of one evaluation: source, steps, budget, what is kept to be used again; and what every operator
//! does with its rows.

use std::sync::Arc;

use hashbrown::HashMap;
use model::labels::Labels;
use model::source::{Budget, Reservation, ResolutionReport, Source};

use crate::annotations::Annotations;
use crate::eval::frame::{Frame, Row, Val, without_name};
use crate::eval::reuse::{SelectedSeries, SharedValues};
use crate::eval::series_to_come::SeriesToCome;
use crate::eval::stats::samples::{self, SampleDetail, SampleStats};
use crate::eval::stats::trace::Trace;
use crate::options::EngineOptions;
use crate::plan::resolution::{MaxResolution, Needs};
use crate::plan::{Plan, Steps};
use crate::value::QueryError;

/// What upstream says where dropping names made two series one.
pub const SAME_LABELSET: &str = "vector cannot contain metrics with the same labelset";

/// Walks a plan for one set of [`Steps`]; subqueries walk their part with steps of their own.
pub struct Evaluator<'a> {
    pub source: &'a dyn Source,
    pub options: &'a EngineOptions,
    pub lookback_ms: i64,
    pub steps: Steps,
    pub budget: Arc<Budget>,
    pub notes: Annotations,
    /// How often each selection of the plan is read.
    pub(super) selection_uses: &'a [usize],
    /// What all who read a selection need of it.
    pub(super) selection_needs: &'a [Needs],
    /// Coarsest resolution to answer from.
    pub max_resolution: MaxResolution,
    /// Which resolution answered which part of time, all selectors together.
    pub resolution_report: Arc<ResolutionReport>,
    /// Selections that are read more than once, by number and time range.
    pub(super) selected: SelectedSeries,
    /// Values of what stands more than once.
    pub(super) shared: SharedValues,
    /// Where a selection tells which series it will still give, if the rows of it may be streamed.
    pub(super) to_come: Option<Arc<SeriesToCome>>,
    /// Values that the node being evaluated holds; charged to the budget.
    pub(super) live: Reservation,
    /// Samples as `stats` reports them.
    pub sample_stats: SampleStats,
    /// Where it is written down what each node does, if anybody asked.
    pub trace: Option<Arc<Trace>>,
}

impl<'a> Evaluator<'a> {
    pub fn new(
        source: &'a dyn Source,
        options: &'a EngineOptions,
        plan: &'a Plan,
        steps: Steps,
        budget: Arc<Budget>,
    ) -> Self {
        Evaluator {
            source,
            options,
            lookback_ms: options.lookback_ms,
            steps,
            budget,
            notes: Annotations::new(),
            selection_uses: &plan.selection_uses,
            selection_needs: &plan.selection_needs,
            max_resolution: options.max_resolution,
            resolution_report: Arc::default(),
            selected: SelectedSeries::default(),
            shared: SharedValues::default(),
            to_come: None,
            live: Reservation::default(),
            sample_stats: SampleStats::new(SampleDetail::Total, steps.count),
            trace: None,
        }
    }

    /// Refuses early what would not fit: `rows` rows of `steps` slots are about to be made.
    pub(crate) fn expect_rows(&self, rows: usize, steps: usize) -> Result<(), QueryError> {
        let bytes = (rows as u64).saturating_mul(column_bytes(steps));
        self.budget.reserve(bytes)?;
        self.budget.release(bytes);
        Ok(())
    }

    /// Charges what is made on the way to the value of the node being evaluated; given back when that value
    /// is charged itself.
    pub(in crate::eval) fn charge(&mut self, made: impl Into<Reservation>) -> Result<(), QueryError> {
        let made = made.into();
        self.budget.reserve(made)?;
        self.live += made;
        Ok(())
    }

    /// The labels and mark of a row whose name is to be dropped: now, or at the very end.
    pub fn drop_name(&self, labels: Labels) -> (Labels, bool) {
        if self.options.delayed_name_removal { (labels, true) } else { (without_name(&labels), true) }
    }

    /// Checks and orders what a function made of rows one by one, as upstream does with the vectors of all
    /// steps: rows of one label set become one where their steps differ; where they do not, it is an error
    /// (for an instant query with delayed name removal, later).
    pub fn collect(&self, rows: Vec<Row>) -> Result<Frame, QueryError> {
        if rows.len() < 2 {
            return Ok(Frame { rows });
        }
        let mut seen: HashMap<Labels, usize> = HashMap::with_capacity(rows.len());
        let mut out: Vec<Row> = Vec::with_capacity(rows.len());
        for row in rows {
            self.collect_into(row, &mut out, &mut seen)?;
        }
        Ok(Frame { rows: out })
    }

    /// Puts one more row where [`Evaluator::collect`] would; `seen` says where the row of a label set is.
    pub(crate) fn collect_into(
        &self,
        row: Row,
        out: &mut Vec<Row>,
        seen: &mut HashMap<Labels, usize>,
    ) -> Result<(), QueryError> {
        if row.column.is_empty() {
            return Ok(());
        }
        match seen.get(&row.labels) {
            Some(_) if self.steps.is_instant() => {
                if !self.options.delayed_name_removal {
                    return Err(QueryError::execution(SAME_LABELSET));
                }
                out.push(row);
            }
            Some(&at) => {
                if !out[at].column.absorb(row.column) {
                    return Err(QueryError::execution(SAME_LABELSET));
                }
            }
            None => {
                seen.insert(row.labels.clone(), out.len());
                out.push(row);
            }
        }
        Ok(())
    }

    /// The end of every evaluation: with delayed name removal the marked names go now.
    pub fn finish(&self, frame: Frame) -> Result<Frame, QueryError> {
        if !self.options.delayed_name_removal {
            return Ok(frame);
        }
        let rows = frame.rows.into_iter().map(|mut r| {
            if r.drop_name {
                r.labels = without_name(&r.labels);
            }
            r
        });
        merge_same_labels(rows.collect())
    }
}

/// Rows of one label set become one; where two have a value at one step it is an error.
pub(crate) fn merge_same_labels(rows: Vec<Row>) -> Result<Frame, QueryError> {
    let mut seen: HashMap<Labels, usize> = HashMap::with_capacity(rows.len());
    let mut out: Vec<Row> = Vec::with_capacity(rows.len());
    for row in rows {
        if row.column.is_empty() {
            continue;
        }
        match seen.get(&row.labels) {
            Some(&at) => {
                if !out[at].column.absorb(row.column) {
                    return Err(QueryError::execution(SAME_LABELSET));
                }
            }
            None => {
                seen.insert(row.labels.clone(), out.len());
                out.push(row);
            }
        }
    }
    Ok(Frame { rows: out })
}

/// Bytes that a label set takes beside its row.
pub(crate) fn label_bytes(labels: &Labels) -> u64 {
    labels.byte_len() as u64 + 64
}

/// Bytes a row without histograms takes.
pub(crate) fn column_bytes(steps: usize) -> u64 {
    (steps as u64).saturating_mul(8) + (steps as u64) / 8 + 160
}

/// What a value holds.
pub(crate) fn value_reservation(val: &Val) -> Reservation {
    match val {
        Val::Scalar(v) => Reservation { bytes: 8 * v.len() as u64, samples: v.len() as u64 },
        Val::Str(_) => Reservation::default(),
        Val::Vector(f) => f.rows.iter().map(row_reservation).sum(),
    }
}

/// What a row holds.
pub(crate) fn row_reservation(row: &Row) -> Reservation {
    let bytes = row.column.bytes() + row.labels.byte_len() as u64 + 96;
    Reservation { bytes, samples: samples::samples(&row.column) }
}
