//! The register of PromQL's functions: how each one runs.
//!
//! A file per family holds a table of [`Entry`]; [`kernel`] looks through all of them. What the parser knows
//! of a function (types, number of arguments, kind) is the parser's; here stands only how it is computed.

mod date;
mod elementwise;
mod extremes;
mod histograms;
mod info;
pub(crate) mod kernel;
pub(crate) mod labels;
mod lanes;
mod math;
mod natural;
pub mod order;
pub mod over_time;
mod quantile;
pub mod rate;
mod scalars;
mod sums;
mod timestamps;
pub mod trend;
pub mod windowed;

use std::sync::LazyLock;

use hashbrown::HashMap;

pub use self::kernel::{
    Element, ElementFn, Entry, Extended, Kernel, Samples, Scalars, SeriesWindows, Window, WindowContext,
    WorkMeter,
};
use crate::parse::Function;
use crate::value::QueryError;

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

/// By name.
static BY_NAME: LazyLock<HashMap<&'static str, &'static Kernel>> =
    LazyLock::new(|| TABLES.iter().flat_map(|t| t.iter()).map(|e| (e.name, &e.kernel)).collect());

/// How a function runs.
pub fn kernel(function: &Function) -> Result<&'static Kernel, QueryError> {
    BY_NAME
        .get(function.name)
        .copied()
        .ok_or_else(|| QueryError::internal(format!("the function {} has no implementation", function.name)))
}

#[cfg(test)]
mod tests {
    use model::labels::Labels;
    use model::sample::Value;
    use proptest::prelude::*;

    use super::*;
    use crate::annotations::Annotations;
    use crate::column::Column;
    use crate::eval::timeline::Reach;
    use crate::parse::{FunctionKind, Span, functions};

    #[test]
    fn functions_have_kernels_of_their_kind() {
        // These are numbers by the time a plan is made.
        let planned = ["start", "end", "range", "step"];
        for function in functions::all().iter().filter(|f| !planned.contains(&f.name)) {
            let fits = match kernel(function).unwrap() {
                Kernel::Math(_) | Kernel::Element(_) => function.kind == FunctionKind::PerRow,
                Kernel::Window(_) => function.kind == FunctionKind::PerWindow,
                Kernel::Whole(_) => function.kind != FunctionKind::PerWindow,
            };
            assert!(fits, "{}", function.name);
        }
    }

    #[test]
    fn functions_stand_in_the_register_once() {
        let mut names: Vec<_> = TABLES.iter().flat_map(|t| t.iter()).map(|e| e.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(all, names.len());
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
            let steps = crate::plan::Steps { start_ms: 900_000, step_ms, count };
            let reach = Reach { steps, offset_ms: 0, at_ms: None, back_ms: range_ms, ahead_ms: 0 };
            let windows = crate::eval::timeline::windows(&ts_ms, &reach);
            let budget = model::source::Budget::unlimited();
            let meter = WorkMeter::new(&budget);
            for entry in TABLES.iter().flat_map(|t| t.iter()) {
                let Kernel::Window(window) = entry.kernel else { continue };
                let Some(kernel) = window.series else { continue };
                let arguments = match entry.name {
                    "quantile_over_time" => vec![(0..count).map(|s| if s % 3 == 0 { 1.0 } else { scalars.0 }).collect()],
                    "predict_linear" => vec![vec![scalars.0 * 1e4; count]],
                    "double_exponential_smoothing" => vec![vec![scalars.0; count], vec![scalars.1; count]],
                    _ => Vec::new(),
                };
                let arguments = Scalars::new(&arguments);
                let w = SeriesWindows { ts_ms: &ts_ms, values: &values, windows: &windows, reach: &reach, scalars: &arguments, meter: &meter };
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
