//! How a function runs: the kinds of kernels, and what each kind is given.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use model::histogram::Histogram;
use model::labels::Labels;
use model::quote::quote;
use model::sample::Value;
use model::source::Budget;

use crate::annotations::Annotations;
use crate::column::{Column, Point};
use crate::eval::evaluator::Evaluator;
use crate::eval::frame::Val;
use crate::eval::timeline::{Reach, StepWindows};
use crate::parse::Span;
use crate::plan::Call;
use crate::value::QueryError;

/// A function by name.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub name: &'static str,
    pub kernel: Kernel,
}

/// What computes a function.
#[derive(Clone, Copy, Debug)]
pub enum Kernel {
    /// `f(vector)`: float to float, for every slot; histograms vanish, the name is dropped. (`abs`, `sin`,
    /// `ln`, …)
    Math(fn(f64) -> f64),
    /// `f(…)` with one instant vector among scalars: a value for a value, or none; the name is dropped.
    /// (`clamp`, `round`, `histogram_count`, `histogram_fraction` on native histograms, …)
    Element(ElementFn),
    /// `f(…)` with one range vector among scalars, over each window. The name is dropped unless the entry
    /// says otherwise.
    Window(Window),
    /// Anything else: evaluates its arguments itself with [`Evaluator::eval_vector`],
    /// [`Evaluator::eval_scalar`] and [`PlanExpr::as_string`](crate::plan::PlanExpr::as_string), drops names
    /// itself ([`Evaluator`] has the helpers) and answers for all steps.
    Whole(fn(&mut Evaluator<'_>, &Call) -> Result<Val, QueryError>),
}

pub type ElementFn = fn(&mut Element<'_>, Point<'_>) -> Option<Value>;

/// What an elementwise function may look at beside the value.
pub struct Element<'a> {
    /// The scalar arguments at this step, in order, the vector left out.
    pub scalars: &'a [f64],
    /// Time of the step.
    pub t_ms: i64,
    /// Labels of the row; with immediate name removal they still have the name here.
    pub labels: &'a Labels,
    /// Places of all arguments, the vector's included.
    pub arg_spans: &'a [Span],
    pub notes: &'a mut Annotations,
}

/// How a range function runs.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Whether the result keeps the metric's name (`first_over_time`, `last_over_time`).
    pub keeps_name: bool,
    pub run: WindowFn,
    /// A faster way over a whole series of floats, all steps in one pass; must give what `run` gives, bit for
    /// bit.
    pub series: Option<SeriesKernel>,
}

/// The value of one window, if it has one. Windows are never empty.
pub type WindowFn = fn(&mut WindowContext<'_>, &Samples<'_>) -> Option<Value>;

/// Fills the column of a series of floats without start timestamps. Not used for `anchored` and `smoothed`.
/// `false`, and nothing filled, where the scalars are such that there is something to remark or to refuse,
/// which only [`WindowFn`] can.
pub type SeriesKernel = fn(&SeriesWindows<'_>, &mut Column) -> bool;

/// A series of floats with its windows.
#[derive(Clone, Copy, Debug)]
pub struct SeriesWindows<'a> {
    pub ts_ms: &'a [i64],
    pub values: &'a [f64],
    /// Samples `from..to` per step, both never descending; empty ones have no value. Made of the timeline and
    /// the reach beside it.
    pub windows: &'a StepWindows,
    pub reach: &'a Reach,
    pub(crate) scalars: &'a Scalars,
    pub(crate) meter: &'a WorkMeter<'a>,
}

/// The scalar arguments of a call, in order: numbers for each step, or one row of them where they never
/// change.
#[derive(Clone, Debug, Default)]
pub struct Scalars {
    width: usize,
    values: Vec<f64>,
}

impl Scalars {
    /// From a column of numbers for each argument, one number per step.
    pub fn new(columns: &[Vec<f64>]) -> Scalars {
        let width = columns.len();
        let constant = columns.iter().all(|c| c.windows(2).all(|w| w[0].to_bits() == w[1].to_bits()));
        let steps = columns.first().map_or(0, Vec::len).min(if constant { 1 } else { usize::MAX });
        let values = (0..steps).flat_map(|step| columns.iter().map(move |c| c[step])).collect();
        Scalars { width, values }
    }

    /// The arguments at a step.
    pub fn at(&self, step: usize) -> &[f64] {
        if self.values.len() <= self.width {
            return &self.values;
        }
        &self.values[step * self.width..][..self.width]
    }
}

/// Asks the budget now and then whether there is still time, while one series is computed.
#[derive(Debug)]
pub struct WorkMeter<'a> {
    budget: &'a Budget,
    /// Samples looked at since the budget was asked.
    samples: Cell<usize>,
    stopped: Cell<bool>,
}

impl<'a> WorkMeter<'a> {
    /// Samples between two questions: some tenths of a millisecond.
    const SAMPLES: usize = 1 << 17;

    pub fn new(budget: &'a Budget) -> Self {
        WorkMeter { budget, samples: Cell::new(0), stopped: Cell::new(false) }
    }

    /// Whether to stop before looking at so many samples more; what was computed is then not used.
    #[inline]
    pub fn stop(&self, samples: usize) -> bool {
        let since = self.samples.get() + samples;
        self.samples.set(since);
        if since >= Self::SAMPLES {
            self.samples.set(0);
            self.stopped.set(self.stopped.get() || self.budget.check().is_err());
        }
        self.stopped.get()
    }
}

impl SeriesWindows<'_> {
    /// The scalar arguments at a step, in order.
    pub fn scalars(&self, step: usize) -> &[f64] {
        self.scalars.at(step)
    }

    /// One value per window, from its floats.
    pub fn each(&self, out: &mut Column, value_of: impl Fn(&[f64]) -> f64) -> bool {
        for (step, &(from, to)) in self.windows.iter().enumerate() {
            if from < to {
                if self.meter.stop((to - from) as usize) {
                    break;
                }
                out.set_float(step, value_of(&self.values[from as usize..to as usize]));
            }
        }
        true
    }
}

/// The samples of one window, staleness markers removed, ascending; columns of one length.
#[derive(Clone, Copy, Debug)]
pub struct Samples<'a> {
    pub ts_ms: &'a [i64],
    /// The float, or the sum where a histogram stands.
    pub values: &'a [f64],
    /// `None`: only floats.
    pub histograms: Option<&'a [Option<Arc<Histogram>>]>,
    /// Start timestamps where known and asked for, 0 = unknown.
    pub start_ts_ms: Option<&'a [i64]>,
}

/// Samples of one kind, taken out of a window that may be mixed.
#[derive(Clone, Debug, Default)]
pub struct Floats<'a> {
    pub ts_ms: Cow<'a, [i64]>,
    pub values: Cow<'a, [f64]>,
    pub start_ts_ms: Option<Cow<'a, [i64]>>,
}

/// Histograms of a window, in order.
#[derive(Clone, Debug, Default)]
pub struct Histograms<'a> {
    pub ts_ms: Vec<i64>,
    pub values: Vec<&'a Arc<Histogram>>,
    pub start_ts_ms: Option<Vec<i64>>,
}

impl<'a> Samples<'a> {
    pub fn len(&self) -> usize {
        self.ts_ms.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ts_ms.is_empty()
    }

    /// How many samples are histograms.
    pub fn histogram_count(&self) -> usize {
        self.histograms.map_or(0, |h| h.iter().flatten().count())
    }

    /// The histogram at an index.
    pub fn histogram(&self, i: usize) -> Option<&'a Arc<Histogram>> {
        self.histograms.and_then(|h| h[i].as_ref())
    }

    /// The float samples; borrowed where there is nothing else.
    pub fn floats(&self) -> Floats<'a> {
        if self.histogram_count() == 0 {
            return Floats {
                ts_ms: Cow::Borrowed(self.ts_ms),
                values: Cow::Borrowed(self.values),
                start_ts_ms: self.start_ts_ms.map(Cow::Borrowed),
            };
        }
        let keep: Vec<usize> = (0..self.len()).filter(|i| self.histogram(*i).is_none()).collect();
        Floats {
            ts_ms: keep.iter().map(|i| self.ts_ms[*i]).collect(),
            values: keep.iter().map(|i| self.values[*i]).collect(),
            start_ts_ms: self.start_ts_ms.map(|t| keep.iter().map(|i| t[*i]).collect()),
        }
    }

    /// The histogram samples.
    pub fn only_histograms(&self) -> Histograms<'a> {
        let keep: Vec<usize> = (0..self.len()).filter(|i| self.histogram(*i).is_some()).collect();
        Histograms {
            ts_ms: keep.iter().map(|i| self.ts_ms[*i]).collect(),
            values: keep.iter().filter_map(|i| self.histogram(*i)).collect(),
            start_ts_ms: self.start_ts_ms.map(|t| keep.iter().map(|i| t[*i]).collect()),
        }
    }
}

/// Which samples outside its range a window also has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Extended {
    #[default]
    No,
    /// `anchored`: a lookback before the range.
    Anchored,
    /// `smoothed`: a lookback on both sides.
    Smoothed,
}

/// What a range function may look at beside the samples.
pub struct WindowContext<'a> {
    /// The evaluation's time.
    pub t_ms: i64,
    /// The range is `(range_start_ms, range_end_ms]`: offset and `@` applied.
    pub range_start_ms: i64,
    pub range_end_ms: i64,
    pub extended: Extended,
    /// The scalar arguments at this step, in order, the range vector left out.
    pub scalars: &'a [f64],
    /// Labels of the series, name included.
    pub labels: &'a Labels,
    /// Places of all arguments, the range vector's included.
    pub arg_spans: &'a [Span],
    pub notes: &'a mut Annotations,
    /// Set to end the query with an error.
    pub error: &'a mut Option<String>,
}

impl WindowContext<'_> {
    /// The metric's name, quoted for annotations.
    pub fn quoted_name(&self) -> String {
        quote(self.labels.metric_name().unwrap_or(""))
    }

    /// The place of the range vector among the arguments, or of the first argument.
    pub fn span(&self) -> Span {
        self.arg_spans.first().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_meter_stops_soon_after_its_budget_is_cancelled() {
        let budget = Budget::unlimited();
        let meter = WorkMeter::new(&budget);
        assert!((0..10).all(|_| !meter.stop(WorkMeter::SAMPLES)));
        budget.cancel();
        assert!(!meter.stop(1) && meter.stop(WorkMeter::SAMPLES) && meter.stop(0));
    }

    #[test]
    fn scalars_that_never_change_take_one_row() {
        let scalars = Scalars::new(&[vec![1.0; 9], vec![2.0; 9]]);
        assert_eq!((scalars.values.len(), scalars.at(8)), (2, &[1.0, 2.0][..]));
        let scalars = Scalars::new(&[vec![1.0, 1.5], vec![2.0, 2.0]]);
        assert_eq!((scalars.at(0), scalars.at(1)), (&[1.0, 2.0][..], &[1.5, 2.0][..]));
        assert!(Scalars::new(&[]).at(7).is_empty());
    }
}
