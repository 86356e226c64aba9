//! Every function of Prometheus 3.14: name, argument types, result type, and kind, and whether it is
//! experimental.

use super::ast::{Function, FunctionKind, ValueType};

const V: ValueType = ValueType::InstantVector;
const M: ValueType = ValueType::RangeVector;
const S: ValueType = ValueType::Scalar;
const T: ValueType = ValueType::String;

const ROW: FunctionKind = FunctionKind::PerRow;
const WINDOW: FunctionKind = FunctionKind::PerWindow;
const WHOLE: FunctionKind = FunctionKind::Whole;

const fn stable(
    name: &'static str,
    kind: FunctionKind,
    args: &'static [ValueType],
    variadic: i32,
    returns: ValueType,
) -> Function {
    Function { name, args, variadic, returns, experimental: false, kind }
}

const fn experimental(
    name: &'static str,
    kind: FunctionKind,
    args: &'static [ValueType],
    variadic: i32,
    returns: ValueType,
) -> Function {
    Function { name, args, variadic, returns, experimental: true, kind }
}

/// In order of their names, which [`get`] relies on.
#[rustfmt::skip]
static FUNCTIONS: &[Function] = &[
    stable("abs", ROW, &[V], 0, V),
    stable("absent", WHOLE, &[V], 0, V),
    stable("absent_over_time", WHOLE, &[M], 0, V),
    stable("acos", ROW, &[V], 0, V),
    stable("acosh", ROW, &[V], 0, V),
    stable("asin", ROW, &[V], 0, V),
    stable("asinh", ROW, &[V], 0, V),
    stable("atan", ROW, &[V], 0, V),
    stable("atanh", ROW, &[V], 0, V),
    stable("avg_over_time", WINDOW, &[M], 0, V),
    stable("ceil", ROW, &[V], 0, V),
    stable("changes", WINDOW, &[M], 0, V),
    stable("clamp", ROW, &[V, S, S], 0, V),
    stable("clamp_max", ROW, &[V, S], 0, V),
    stable("clamp_min", ROW, &[V, S], 0, V),
    stable("cos", ROW, &[V], 0, V),
    stable("cosh", ROW, &[V], 0, V),
    stable("count_over_time", WINDOW, &[M], 0, V),
    stable("day_of_month", WHOLE, &[V], 1, V),
    stable("day_of_week", WHOLE, &[V], 1, V),
    stable("day_of_year", WHOLE, &[V], 1, V),
    stable("days_in_month", WHOLE, &[V], 1, V),
    stable("deg", ROW, &[V], 0, V),
    stable("delta", WINDOW, &[M], 0, V),
    stable("deriv", WINDOW, &[M], 0, V),
    experimental("double_exponential_smoothing", WINDOW, &[M, S, S], 0, V),
    experimental("end", WHOLE, &[], 0, S),
    stable("exp", ROW, &[V], 0, V),
    stable("first_over_time", WINDOW, &[M], 0, V),
    stable("floor", ROW, &[V], 0, V),
    stable("histogram_avg", ROW, &[V], 0, V),
    stable("histogram_count", ROW, &[V], 0, V),
    stable("histogram_fraction", WHOLE, &[S, S, V], 0, V),
    stable("histogram_quantile", WHOLE, &[S, V], 0, V),
    experimental("histogram_quantiles", WHOLE, &[V, T, S, S], 9, V),
    stable("histogram_stddev", ROW, &[V], 0, V),
    stable("histogram_stdvar", ROW, &[V], 0, V),
    stable("histogram_sum", ROW, &[V], 0, V),
    stable("hour", WHOLE, &[V], 1, V),
    stable("idelta", WINDOW, &[M], 0, V),
    stable("increase", WINDOW, &[M], 0, V),
    experimental("info", WHOLE, &[V, V], 1, V),
    stable("irate", WINDOW, &[M], 0, V),
    stable("label_join", ROW, &[V, T, T, T], -1, V),
    stable("label_replace", ROW, &[V, T, T, T, T], 0, V),
    stable("last_over_time", WINDOW, &[M], 0, V),
    stable("ln", ROW, &[V], 0, V),
    stable("log10", ROW, &[V], 0, V),
    stable("log2", ROW, &[V], 0, V),
    experimental("mad_over_time", WINDOW, &[M], 0, V),
    experimental("max_of", WHOLE, &[S, S], 0, S),
    stable("max_over_time", WINDOW, &[M], 0, V),
    experimental("min_of", WHOLE, &[S, S], 0, S),
    stable("min_over_time", WINDOW, &[M], 0, V),
    stable("minute", WHOLE, &[V], 1, V),
    stable("month", WHOLE, &[V], 1, V),
    stable("pi", WHOLE, &[], 0, S),
    stable("predict_linear", WINDOW, &[M, S], 0, V),
    stable("present_over_time", WINDOW, &[M], 0, V),
    stable("quantile_over_time", WINDOW, &[S, M], 0, V),
    stable("rad", ROW, &[V], 0, V),
    experimental("range", WHOLE, &[], 0, S),
    stable("rate", WINDOW, &[M], 0, V),
    stable("resets", WINDOW, &[M], 0, V),
    stable("round", ROW, &[V, S], 1, V),
    stable("scalar", WHOLE, &[V], 0, S),
    stable("sgn", ROW, &[V], 0, V),
    stable("sin", ROW, &[V], 0, V),
    stable("sinh", ROW, &[V], 0, V),
    stable("sort", WHOLE, &[V], 0, V),
    experimental("sort_by_label", WHOLE, &[V, T], -1, V),
    experimental("sort_by_label_desc", WHOLE, &[V, T], -1, V),
    stable("sort_desc", WHOLE, &[V], 0, V),
    stable("sqrt", ROW, &[V], 0, V),
    experimental("start", WHOLE, &[], 0, S),
    experimental("start_timestamp", WHOLE, &[V], 0, V),
    stable("stddev_over_time", WINDOW, &[M], 0, V),
    stable("stdvar_over_time", WINDOW, &[M], 0, V),
    experimental("step", WHOLE, &[], 0, S),
    stable("sum_over_time", WINDOW, &[M], 0, V),
    stable("tan", ROW, &[V], 0, V),
    stable("tanh", ROW, &[V], 0, V),
    stable("time", WHOLE, &[], 0, S),
    stable("timestamp", WHOLE, &[V], 0, V),
    experimental("ts_of_first_over_time", WINDOW, &[M], 0, V),
    experimental("ts_of_last_over_time", WINDOW, &[M], 0, V),
    experimental("ts_of_max_over_time", WINDOW, &[M], 0, V),
    experimental("ts_of_min_over_time", WINDOW, &[M], 0, V),
    stable("vector", WHOLE, &[S], 0, V),
    stable("year", WHOLE, &[V], 1, V),
];

/// All of them, in order of their names.
pub fn all() -> &'static [Function] {
    FUNCTIONS
}

/// The function of that name; names are case-sensitive.
pub fn get(name: &str) -> Option<&'static Function> {
    FUNCTIONS.binary_search_by(|f| f.name.cmp(name)).ok().map(|at| &FUNCTIONS[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_table_is_sorted_and_searched() {
        assert!(all().windows(2).all(|w| w[0].name < w[1].name));
        for f in all() {
            assert!(std::ptr::eq(get(f.name).unwrap(), f));
            assert!(f.variadic == 0 || !f.args.is_empty(), "{}: the last argument repeats", f.name);
        }
        assert!(get("Rate").is_none() && get("").is_none());
        assert!(get("rate").is_some_and(|f| f.args == [M] && f.returns == V && !f.experimental));
        assert!(get("info").is_some_and(|f| f.experimental && f.variadic == 1));
    }
}
