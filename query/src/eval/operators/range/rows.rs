//! The rows of range functions.

use hashbrown::HashSet;
use model::labels::Labels;
use model::source::Budget;

use super::reach::{check_extended, matrix_reach};
use super::windows::{SeriesResult, WindowJob};
use crate::column::Column;
use crate::eval::evaluator::{Evaluator, SAME_LABELSET};
use crate::eval::frame::{Frame, Row, Val, without_name};
use crate::eval::functions::over_time::PRESENCE;
use crate::eval::functions::{self, Extended, Kernel, Scalars, Window, windowed};
use crate::eval::timeline::{Memo, Reach};
use crate::parse::Span;
use crate::plan::resolution::window_needs;
use crate::plan::{Call, PlanExpr, PlanNode, Selector};
use crate::value::QueryError;

/// The range vector among a call's arguments.
fn range_argument(call: &Call) -> Result<(usize, &PlanExpr), QueryError> {
    call.args
        .iter()
        .enumerate()
        .find(|(_, a)| matches!(a.node, PlanNode::Matrix { .. } | PlanNode::Subquery(_)))
        .ok_or_else(|| QueryError::internal(format!("{} was planned without a range vector", call.func.name)))
}

/// The way of a result to whoever asked for the rows: what it says is noted, its name dropped where it has to
/// go.
struct Results<'s> {
    keeps_name: bool,
    /// Names go at the very end, not here.
    delayed: bool,
    /// Label sets that lost their name, each of which may come once.
    nameless: HashSet<Labels>,
    sink: &'s mut dyn FnMut(Row) -> Result<(), QueryError>,
}

impl Results<'_> {
    fn take(
        &mut self,
        ev: &mut Evaluator<'_>,
        labels: &Labels,
        input_drops_name: bool,
        result: SeriesResult,
    ) -> Result<(), QueryError> {
        if !result.notes.is_empty() {
            ev.notes.merge(result.notes);
        }
        ev.sample_stats.windows(&result.samples);
        if let Some(error) = result.error {
            return Err(QueryError::execution(error));
        }
        if result.column.is_empty() {
            return Ok(());
        }
        let drop_name = !self.keeps_name || input_drops_name;
        let mut row = Row { labels: labels.clone(), drop_name, column: result.column };
        if drop_name && !self.delayed {
            row.labels = without_name(labels);
            if !self.nameless.insert(row.labels.clone()) {
                return Err(QueryError::execution(SAME_LABELSET));
            }
        }
        (self.sink)(row)
    }
}

impl Evaluator<'_> {
    /// The rows of a range function, in the order of the range vector's series.
    pub(in crate::eval) fn window_rows(
        &mut self,
        call: &Call,
        sink: &mut dyn FnMut(Row) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        match functions::kernel(call.func)? {
            Kernel::Window(window) => self.rows_of_windows(call, window, sink),
            _ => Err(QueryError::internal(format!("{} has no kernel for windows", call.func.name))),
        }
    }

    fn rows_of_windows(
        &mut self,
        call: &Call,
        window: &Window,
        sink: &mut dyn FnMut(Row) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let (_, operand) = range_argument(call)?;
        let budget = self.budget.clone();
        let mut job = self.window_job(call, window, &budget)?;
        let mut results = Results {
            keeps_name: window.keeps_name,
            delayed: self.options.delayed_name_removal,
            nameless: HashSet::new(),
            sink,
        };
        let memo = Memo::new(self.steps);
        match &operand.node {
            PlanNode::Matrix { selector, range_ms } => {
                job.range_ms = *range_ms;
                (job.reach, job.extended) = matrix_reach(selector, *range_ms, self.steps, self.lookback_ms);
                check_extended(call.func.name, job.extended)?;
                let reach = job.reach;
                self.select(selector, &reach, *range_ms, &mut |ev, batch| {
                    let made = ev.per_series(batch, |s| job.series(&memo, s))?;
                    // What was stopped on the way is not used.
                    ev.budget.check()?;
                    for (series, result) in batch.iter().zip(made) {
                        results.take(ev, &series.labels, false, result)?;
                    }
                    Ok(())
                })
            }
            PlanNode::Subquery(sub) => {
                job.range_ms = sub.range_ms;
                job.reach = Reach {
                    steps: self.steps,
                    offset_ms: sub.offset_ms,
                    at_ms: sub.at_ms,
                    back_ms: sub.range_ms,
                    ahead_ms: 0,
                };
                let (series, drops) = self.subquery_series(sub)?;
                for (part, drops) in series.chunks(256).zip(drops.chunks(256)) {
                    self.budget.check()?;
                    let made = self.per_series(part, |s| job.series(&memo, s))?;
                    self.budget.check()?;
                    for ((series, drops_name), result) in part.iter().zip(drops).zip(made) {
                        results.take(self, &series.labels, *drops_name, result)?;
                    }
                }
                Ok(())
            }
            _ => Err(QueryError::internal("a range function was planned without a range vector")),
        }
    }

    /// What all series of a call share; what depends on the range vector is not filled in yet.
    fn window_job<'c>(
        &mut self,
        call: &'c Call,
        window: &'c Window,
        budget: &'c Budget,
    ) -> Result<WindowJob<'c>, QueryError> {
        let name = call.func.name;
        let (range_at, operand) = range_argument(call)?;
        let mut columns = Vec::new();
        for (i, arg) in call.args.iter().enumerate() {
            if i != range_at {
                columns.push(self.eval_scalar(arg)?);
            }
        }
        self.charge(16 * (columns.len() * self.steps.count) as u64)?;
        let scalars = Scalars::new(&columns);
        // Upstream loses the place of a subquery when it has evaluated it: warnings about its samples stand
        // at 1:1.
        let shown_at = |arg: &PlanExpr| match arg.unwrapped().node {
            PlanNode::Subquery(_) => Span::default(),
            _ => arg.span,
        };
        Ok(WindowJob {
            window,
            reach: Reach { steps: self.steps, offset_ms: 0, at_ms: None, back_ms: 0, ahead_ms: 0 },
            range_ms: 0,
            extended: Extended::No,
            scalars,
            budget,
            arg_spans: call.args.iter().map(shown_at).collect(),
            start_timestamps: self.options.use_start_timestamps
                && matches!(name, "rate" | "irate" | "increase" | "resets"),
            counter_names: matches!(name, "rate" | "increase"),
            type_labels: self.options.type_and_unit_labels,
            operand: shown_at(operand),
            subquery: matches!(operand.node, PlanNode::Subquery(_)),
            detail: self.sample_stats.detail(),
            windowed: windowed::find(name).zip(window_needs(name)),
        })
    }

    /// `absent_over_time`: one row, with a 1 at every step at which no series has a sample.
    pub(in crate::eval) fn absent_over_time(&mut self, call: &Call) -> Result<Val, QueryError> {
        let mut column = Column::full(vec![1.0; self.steps.count]);
        let (_, operand) = range_argument(call)?;
        self.rows_of_windows(call, &PRESENCE, &mut |row| {
            for (step, _) in row.column.iter() {
                column.clear(step);
            }
            Ok(())
        })?;
        if column.is_empty() {
            return Ok(Val::Vector(Frame::default()));
        }
        let labels = operand.as_selector().map_or_else(Labels::empty, Selector::absent_labels);
        Ok(Val::Vector(Frame { rows: vec![Row { labels, drop_name: true, column }] }))
    }
}
