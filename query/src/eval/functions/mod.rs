//! The register of PromQL's functions: how each one runs.
//!
//! A file per family holds a table of [`Entry`]; [`find`] looks through all of them. What the parser knows of a function (types, number
//! of arguments) is the parser's; here stands only how it is computed.

mod date;
mod elementwise;
mod histograms;
mod info;
pub(crate) mod labels;
mod lanes;
mod math;
mod natural;
mod order;
pub mod over_time;
mod quantile;
pub mod rate;
mod scalars;
mod sums;
mod timestamps;
pub mod trend;
pub mod windowed;

use std::borrow::Cow;
use std::sync::Arc;

use model::histogram::Histogram;
use model::labels::Labels;
use model::matcher::quote;
use model::sample::Value;

use crate::annotations::Annotations;
use crate::eval::Evaluator;
use crate::eval::frame::{Column, Point, Val};
use crate::eval::timeline::Reach;
use crate::parse::Span;
use crate::plan::Call;
use crate::value::QueryError;

/// A function by name.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub name: &'static str,
    pub run: Run,
}

/// The ways a function can run.
#[derive(Clone, Copy, Debug)]
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
    /// A faster way over a whole series of floats, all steps in one pass; must give what `run` gives, bit for bit.
    pub kernel: Option<Kernel>,
}

/// The value of one window, if it has one. Windows are never empty.
pub type WindowFn = fn(&mut WindowContext<'_>, &Samples<'_>) -> Option<Value>;

/// Fills the column of a series of floats without start timestamps. Not used for `anchored` and `smoothed`. `false`, and nothing filled,
/// where the scalars are such that there is something to remark or to refuse, which only [`WindowFn`] can.
pub type Kernel = fn(&SeriesWindows<'_>, &mut Column) -> bool;

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

/// The tables of all families.
static TABLES: &[&[Entry]] = &[
    date::TABLE,
    elementwise::TABLE,
    histograms::TABLE,
    info::TABLE,
    labels::TABLE,
    over_time::ENTRIES,
    rate::ENTRIES,
    scalars::TABLE,
    timestamps::TABLE,
    trend::ENTRIES,
];

/// How a function runs.
pub fn find(name: &str) -> Option<&'static Entry> {
    TABLES.iter().flat_map(|t| t.iter()).find(|e| e.name == name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_function_stands_once() {
        let mut names: Vec<_> = TABLES.iter().flat_map(|t| t.iter()).map(|e| e.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(all, names.len());
        assert!(find("rate").is_some() && find("no_such").is_none());
    }

    /// The value of every window by `run`, as bits.
    fn one_by_one(w: &SeriesWindows<'_>, window: &Window, range_ms: i64) -> Vec<Option<u64>> {
        let labels = Labels::empty();
        let spans = [Span::default()];
        let mut notes = Annotations::new();
        let mut error = None;
        let value = |(step, &(from, to)): (usize, &(u32, u32))| {
            let (from, to) = (from as usize, to as usize);
            if from == to {
                return None;
            }
            let samples = Samples {
                ts_ms: &w.ts_ms[from..to],
                values: &w.values[from..to],
                histograms: None,
                start_ts_ms: None,
            };
            let end = w.reach.reference(step);
            let mut context = WindowContext {
                t_ms: w.reach.steps.at(step),
                range_start_ms: end - range_ms,
                range_end_ms: end,
                extended: Extended::No,
                scalars: w.scalars(step),
                labels: &labels,
                arg_spans: &spans,
                notes: &mut notes,
                error: &mut error,
            };
            match (window.run)(&mut context, &samples) {
                Some(Value::Float(v)) => Some(v.to_bits()),
                _ => None,
            }
        };
        w.windows.iter().enumerate().map(value).collect()
    }

    /// Counters with resets, gauges, huge and tiny numbers, constants, NaN, infinities, zeros of both signs.
    fn readings() -> impl Strategy<Value = Vec<f64>> {
        let odd = prop_oneof![
            Just(f64::NAN),
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
            Just(-0.0),
            Just(f64::MAX),
            Just(1e300),
            any::<f64>(),
        ];
        let plain = prop_oneof![(0i32..50).prop_map(f64::from), (0.0f64..1e9), Just(7.0)];
        prop_oneof![
            prop::collection::vec(plain.clone(), 1..150),
            prop::collection::vec(prop_oneof![20 => plain, 1 => odd], 1..150),
            (1usize..150, 0.0f64..100.0).prop_map(|(n, v)| vec![v; n]),
            prop::collection::vec((-5_000i32..5_000).prop_map(|m| f64::from(m) / 100.0), 1..150),
            prop::collection::vec(
                prop_oneof![Just(1e100), Just(-1e100), Just(0.1), Just(f64::EPSILON), Just(1.0)],
                1..150
            ),
        ]
    }

    proptest! {
        #[test]
        fn kernels_give_the_bits_of_single_windows(
            values in readings(),
            gaps in prop::collection::vec(prop_oneof![6 => Just(15_000i64), 1 => 1i64..60_000, 1 => Just(400_000i64)], 150),
            range_ms in prop_oneof![Just(60_000i64), Just(300_000i64), Just(3_600_000i64), 1i64..100_000],
            step_ms in prop_oneof![Just(15_000i64), Just(60_000i64), Just(7_000i64), Just(900_000i64)],
            scalars in (0.01f64..0.99, 0.01f64..0.99),
        ) {
            let mut t = 1_000_000;
            let ts_ms: Vec<i64> = values.iter().zip(&gaps).map(|(_, gap)| { t += gap; t }).collect();
            let count = ((t - 900_000) / step_ms + 3) as usize;
            let steps = crate::eval::Steps { start_ms: 900_000, step_ms, count };
            let reach = Reach { steps, offset_ms: 0, at_ms: None, back_ms: range_ms, ahead_ms: 0 };
            let windows = crate::eval::timeline::windows(&ts_ms, &reach);
            for entry in TABLES.iter().flat_map(|t| t.iter()) {
                let Run::Window(window) = entry.run else { continue };
                let Some(kernel) = window.kernel else { continue };
                let arguments = match entry.name {
                    "quantile_over_time" => (0..count).map(|s| vec![if s % 3 == 0 { 1.0 } else { scalars.0 }]).collect(),
                    "predict_linear" => vec![vec![scalars.0 * 1e4]; count],
                    "double_exponential_smoothing" => vec![vec![scalars.0, scalars.1]; count],
                    _ => vec![Vec::new()],
                };
                let w = SeriesWindows { ts_ms: &ts_ms, values: &values, windows: &windows, reach: &reach, scalars: &arguments };
                let mut column = Column::new(count);
                prop_assert!(kernel(&w, &mut column), "{}", entry.name);
                let ours: Vec<_> = (0..count).map(|s| column.float(s).map(f64::to_bits)).collect();
                let want = one_by_one(&w, &window, range_ms);
                for step in 0..count {
                    let nan = |b: Option<u64>| b.is_some_and(|b| f64::from_bits(b).is_nan());
                    // Which NaN comes out of two is the processor's choice.
                    prop_assert!(
                        ours[step] == want[step] || nan(ours[step]) && nan(want[step]),
                        "{} at step {step}: {:?} for {:?}",
                        entry.name, ours[step].map(f64::from_bits), want[step].map(f64::from_bits)
                    );
                }
            }
        }
    }
}
