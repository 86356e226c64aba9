//! The rows of range functions.

use std::sync::Arc;

use hashbrown::HashSet;
use model::labels::Labels;
use model::source::SeriesColumns;

use super::reach::{check_extended, matrix_reach};
use super::windows::{SeriesResult, WindowJob};
use crate::column::Column;
use crate::eval::evaluator::{Evaluator, SAME_LABELSET};
use crate::eval::frame::{Frame, Names, Row, Val, without_name};
use crate::eval::functions::over_time::PRESENCE;
use crate::eval::functions::{self, Extended, Kernel, Scalars, Window, windowed};
use crate::eval::operators::batches::Batches;
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

/// Series of a subquery whose windows are computed together.
const BATCH_SERIES: usize = 256;

/// The way of a result to whoever asked for the rows: what it says is noted, its name dropped where it has to
/// go.
struct Results<'s> {
    keeps_name: bool,
    /// Names go at the very end, not here.
    delayed: bool,
    names: Names,
    nameless: Nameless,
    sink: &'s mut dyn FnMut(Row) -> Result<(), QueryError>,
}

/// Label sets that lost their name, each of which may come once.
enum Nameless {
    /// All had one name and nothing else that goes with it, so that they differ as they did before.
    OfOneName(Vec<Labels>),
    Any(HashSet<Labels>),
}

impl Nameless {
    /// Whether these labels, without the name, are new.
    fn is_new(&mut self, labels: &Labels, names: Names) -> Option<Labels> {
        if let Nameless::OfOneName(before) = self {
            if labels.get("__type__").is_none() && labels.get("__unit__").is_none() {
                before.push(labels.clone());
                return Some(match names {
                    Names::Dropped => without_name(labels),
                    Names::NotLookedAt => labels.clone(),
                });
            }
            *self = Nameless::Any(before.iter().map(without_name).collect());
        }
        let Nameless::Any(before) = self else { return None };
        let nameless = without_name(labels);
        before.insert(nameless.clone()).then_some(nameless)
    }
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
        let labels = match drop_name && !self.delayed {
            false => labels.clone(),
            true => {
                let nameless = self.nameless.is_new(labels, self.names);
                nameless.ok_or_else(|| QueryError::execution(SAME_LABELSET))?
            }
        };
        (self.sink)(Row { labels, drop_name, column: result.column })
    }
}

impl Evaluator<'_> {
    /// The rows of a range function, in the order of the range vector's series.
    pub(in crate::eval) fn window_rows(
        &mut self,
        call: &Call,
        names: Names,
        sink: &mut dyn FnMut(Row) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        match functions::kernel(call.func)? {
            Kernel::Window(window) => self.rows_of_windows(call, window, names, sink),
            _ => Err(QueryError::internal(format!("{} has no kernel for windows", call.func.name))),
        }
    }

    fn rows_of_windows(
        &mut self,
        call: &Call,
        window: &'static Window,
        names: Names,
        sink: &mut dyn FnMut(Row) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let (_, operand) = range_argument(call)?;
        let mut job = self.window_job(call, window)?;
        let mut results = Results {
            keeps_name: window.keeps_name,
            delayed: self.options.delayed_name_removal,
            names,
            nameless: match operand.as_selector().and_then(Selector::metric_name) {
                Some(_) => Nameless::OfOneName(Vec::new()),
                None => Nameless::Any(HashSet::new()),
            },
            sink,
        };
        let memo = Memo::of_windows(self.steps);
        match &operand.node {
            PlanNode::Matrix { selector, range_ms } => {
                job.range_ms = *range_ms;
                (job.reach, job.extended) = matrix_reach(selector, *range_ms, self.steps, self.lookback_ms);
                check_extended(call.func.name, job.extended)?;
                let reach = job.reach;
                let make = move |series: &SeriesColumns| job.series(&memo, series);
                self.select_made(selector, &reach, *range_ms, make, &mut |ev, series, result| {
                    results.take(ev, &series.labels, false, result)
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
                let (mut rest, mut batches) = (series.into_iter(), Vec::new());
                while rest.len() > 0 {
                    batches.push(Arc::new(rest.by_ref().take(BATCH_SERIES).collect()));
                }
                let mut drops = drops.into_iter();
                let make = move |series: &SeriesColumns| job.series(&memo, series);
                self.take_made(None, &mut Batches::in_memory(batches), make, &mut |ev, series, result| {
                    results.take(ev, &series.labels, drops.next().unwrap_or(false), result)
                })
            }
            _ => Err(QueryError::internal("a range function was planned without a range vector")),
        }
    }

    /// What all series of a call share; what depends on the range vector is not filled in yet.
    fn window_job(&mut self, call: &Call, window: &'static Window) -> Result<WindowJob, QueryError> {
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
            budget: self.budget.clone(),
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
        self.rows_of_windows(call, &PRESENCE, Names::Dropped, &mut |row| {
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
