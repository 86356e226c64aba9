//! How a function runs: the kinds of kernels, and what each kind is given.

use std::borrow::Cow;
use std::sync::Arc;

use model::histogram::Histogram;
use model::labels::Labels;
use model::matcher::quote;
use model::sample::Value;

use crate::annotations::Annotations;
use crate::eval::evaluator::Evaluator;
use crate::eval::frame::{Column, Point, Val};
use crate::eval::timeline::Reach;
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
    /// `f(vector)`: float to float, for every slot; histograms vanish, the name is dropped. (`abs`, `sin`, `ln`, …)
    Math(fn(f64) -> f64),
    /// `f(…)` with one instant vector among scalars: a value for a value, or none; the name is dropped. (`clamp`, `round`, `histogram_count`,
    /// `histogram_fraction` on native histograms, …)
    Element(ElementFn),
    /// `f(…)` with one range vector among scalars, over each window. The name is dropped unless the entry says otherwise.
    Window(Window),
    /// Anything else: evaluates its arguments itself with [`Evaluator::eval_vector`], [`Evaluator::eval_scalar`] and
    /// [`PlanExpr::as_string`](crate::plan::PlanExpr::as_string), drops names itself ([`Evaluator`] has the helpers) and answers for all steps.
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
    /// A faster way over a whole series of floats, all steps in one pass; must give what `run` gives, bit for bit.
    pub series: Option<SeriesKernel>,
}

/// The value of one window, if it has one. Windows are never empty.
pub type WindowFn = fn(&mut WindowContext<'_>, &Samples<'_>) -> Option<Value>;

/// Fills the column of a series of floats without start timestamps. Not used for `anchored` and `smoothed`. `false`, and nothing filled,
/// where the scalars are such that there is something to remark or to refuse, which only [`WindowFn`] can.
pub type SeriesKernel = fn(&SeriesWindows<'_>, &mut Column) -> bool;

/// A series of floats with its windows.
#[derive(Clone, Copy, Debug)]
pub struct SeriesWindows<'a> {
    pub ts_ms: &'a [i64],
    pub values: &'a [f64],
    /// Samples `from..to` per step, both never descending; empty ones have no value.
    pub windows: &'a [(u32, u32)],
    pub reach: &'a Reach,
    /// The scalar arguments by step, or one row of none.
    pub(crate) scalars: &'a [Vec<f64>],
}

impl SeriesWindows<'_> {
    /// The scalar arguments at a step, in order.
    pub fn scalars(&self, step: usize) -> &[f64] {
        &self.scalars[step.min(self.scalars.len() - 1)]
    }

    /// One value per window, from its floats.
    pub fn each(&self, out: &mut Column, value_of: impl Fn(&[f64]) -> f64) -> bool {
        for (step, &(from, to)) in self.windows.iter().enumerate() {
            if from < to {
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
