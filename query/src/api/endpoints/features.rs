//! `features`: what this process can do, by upstream's names.

use axum::extract::State;
use axum::response::Response;

use crate::api::response;
use crate::api::state::{ApiState, Features};
use crate::engine::EngineOptions;
use crate::parse::functions;

/// `GET /api/v1/features`
pub async fn features(State(state): State<ApiState>) -> Response {
    let mut all = state.config().features.clone();
    language(&mut all, state.0.engine.options());
    let api = all.entry("api".into()).or_default();
    api.insert("admin".into(), state.config().admin_api);
    api.insert("search".into(), state.config().search_api);
    response::small(&all)
}

const KEYWORDS: [&str; 8] =
    ["bool", "by", "group_left", "group_right", "ignoring", "offset", "on", "without"];

const OPERATORS: [&str; 21] = [
    "!=", "!~", "%", "*", "+", "-", "/", "</", "<", "<=", "==", "=~", ">", ">/", ">=", "@", "^", "and",
    "atan2", "or", "unless",
];

const AGGREGATIONS: [&str; 12] = [
    "avg",
    "bottomk",
    "count",
    "count_values",
    "group",
    "max",
    "min",
    "quantile",
    "stddev",
    "stdvar",
    "sum",
    "topk",
];

const EXPERIMENTAL_AGGREGATIONS: [&str; 2] = ["limit_ratio", "limitk"];

/// What there is of PromQL.
fn language(all: &mut Features, options: &EngineOptions) {
    let parse = &options.parse;
    let promql = all.entry("promql".into()).or_default();
    for (name, on) in [
        ("anchored", parse.extended_range_selectors),
        ("smoothed", parse.extended_range_selectors),
        ("fill", parse.fill_modifiers),
        ("fill_left", parse.fill_modifiers),
        ("fill_right", parse.fill_modifiers),
        ("at_modifier", true),
        ("negative_offset", true),
        ("subqueries", true),
        ("per_step_stats", true),
        ("per_query_lookback_delta", true),
        ("delayed_name_removal", options.delayed_name_removal),
        ("type_and_unit_labels", options.type_and_unit_labels),
        ("duration_expr", true),
    ] {
        promql.insert(name.into(), on);
    }
    promql.extend(KEYWORDS.map(|name| (name.into(), true)));
    let operators = all.entry("promql_operators".into()).or_default();
    operators.extend(OPERATORS.into_iter().chain(AGGREGATIONS).map(|name| (name.into(), true)));
    let experimental = parse.experimental_functions;
    operators.extend(EXPERIMENTAL_AGGREGATIONS.map(|name| (name.into(), experimental)));
    let known = all.entry("promql_functions".into()).or_default();
    known.extend(functions::all().iter().map(|f| (f.name.to_owned(), !f.experimental || experimental)));
}
