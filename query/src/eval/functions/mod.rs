//! The register of PromQL's functions: how each one runs.
//!
//! A file per family holds a table of [`Entry`]; [`find`] looks through all of them. What the parser knows of a function (types, number
//! of arguments) is the parser's; here stands only how it is computed.

mod date;
mod elementwise;
mod histograms;
mod info;
mod labels;
mod math;
mod natural;
mod quantile;
mod rows;
mod scalars;
mod timestamps;

use tsdb::labels::Labels;
use tsdb::sample::Value;

use crate::annotations::Annotations;
use crate::eval::Evaluator;
use crate::eval::frame::{Point, Val};
use crate::parse::Span;
use crate::plan::Call;
use crate::value::QueryError;

/// A function by name.
#[derive(Debug)]
pub struct Entry {
    pub name: &'static str,
    pub run: Run,
}

/// The ways a function can run.
#[derive(Debug)]
pub enum Run {
    /// `f(vector)`: float to float, for every slot; histograms vanish, the name is dropped. (`abs`, `sin`, `ln`, …)
    Math(fn(f64) -> f64),
    /// `f(…)` with one instant vector among scalars: a value for a value, or none; the name is dropped. (`clamp`, `round`, `histogram_count`,
    /// `histogram_fraction` on native histograms, …)
    Element(ElementFn),
    /// `f(…)` with one range vector among scalars, over each window. The name is dropped unless the entry says otherwise.
    Window(Window),
    /// Anything else: evaluates its arguments itself with [`Evaluator::eval_vector`], [`Evaluator::eval_scalar`] and
    /// [`PlanExpr::as_string`](crate::plan::PlanExpr::as_string), drops names itself ([`Evaluator`] has the helpers) and answers for all steps.
    Special(fn(&mut Evaluator<'_>, &Call) -> Result<Val, QueryError>),
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
}

/// The value of one window, if it has one. Windows are never empty.
pub type WindowFn = fn(&mut WindowContext<'_>, &Samples<'_>) -> Option<Value>;

/// The samples of one window, staleness markers removed, ascending; columns of one length.
#[derive(Clone, Copy, Debug)]
pub struct Samples<'a> {
    pub ts_ms: &'a [i64],
    /// The float, or the sum where a histogram stands.
    pub values: &'a [f64],
    /// `None`: only floats.
    pub histograms: Option<&'a [Option<std::sync::Arc<tsdb::histogram::Histogram>>]>,
    /// Start timestamps where known and asked for, 0 = unknown.
    pub start_ts_ms: Option<&'a [i64]>,
}

/// What a range function may look at beside the samples.
pub struct WindowContext<'a> {
    /// The evaluation's time.
    pub t_ms: i64,
    /// The window is `(range_start_ms, range_end_ms]`: offset and `@` applied.
    pub range_start_ms: i64,
    pub range_end_ms: i64,
    /// The scalar arguments at this step, in order, the range vector left out.
    pub scalars: &'a [f64],
    /// Labels of the series, name included.
    pub labels: &'a Labels,
    /// Places of all arguments, the range vector's included.
    pub arg_spans: &'a [Span],
    pub notes: &'a mut Annotations,
}

/// The tables of all families.
static TABLES: &[&[Entry]] = &[
    date::TABLE,
    elementwise::TABLE,
    histograms::TABLE,
    info::TABLE,
    labels::TABLE,
    scalars::TABLE,
    timestamps::TABLE,
];

/// How a function runs.
pub fn find(name: &str) -> Option<&'static Entry> {
    TABLES.iter().flat_map(|t| t.iter()).find(|e| e.name == name)
}
