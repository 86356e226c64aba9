//! `search/*`: names and values that are like what was typed, as lines of JSON.
//!
//! 1. The parameters are read and refused as upstream does ([`params`]).
//! 2. All names or values in the time range are taken from the storage, those that match none of the terms
//!    are left out, and the others get a score ([`score`]).
//! 3. What is left is ordered, cut at the limit, and sent in batches, a line each, with a line at the end
//!    that says whether there was more.

mod params;
mod score;

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use model::labels::METRIC_NAME;
use model::sample::Metadata;
use model::source::{Budget, LabelQuery, Source};
use serde::Serialize;
use std::sync::Arc;

use crate::api::admission::call::Call;
use crate::api::endpoints::labels::selectors;
use crate::api::error::{ApiError, ErrorType};
use crate::api::json;
use crate::api::response;
use crate::api::run::QueryClass;
use crate::api::state::ApiState;
use params::{Order, SearchParams};
use score::Filter;

/// What is searched.
enum Among {
    MetricNames,
    LabelNames,
    LabelValues,
}

impl Among {
    /// Its name in the path.
    fn endpoint(&self) -> &'static str {
        match self {
            Among::MetricNames => "metric_names",
            Among::LabelNames => "label_names",
            Among::LabelValues => "label_values",
        }
    }
}

/// `GET|POST /api/v1/search/metric_names`
pub async fn metric_names(state: State<ApiState>, call: Call) -> Result<Response, ApiError> {
    search(state, call, Among::MetricNames).await
}

/// `GET|POST /api/v1/search/label_names`
pub async fn label_names(state: State<ApiState>, call: Call) -> Result<Response, ApiError> {
    search(state, call, Among::LabelNames).await
}

/// `GET|POST /api/v1/search/label_values`
pub async fn label_values(state: State<ApiState>, call: Call) -> Result<Response, ApiError> {
    search(state, call, Among::LabelValues).await
}

async fn search(State(state): State<ApiState>, call: Call, among: Among) -> Result<Response, ApiError> {
    if !state.config().search_api {
        return Err(ApiError::new(ErrorType::Unavailable, "search API disabled"));
    }
    if let Some(e) = call.form.error() {
        return Err(ApiError::bad_data(format!("error parsing form values: {e}")));
    }
    let params = SearchParams::read(&call.form, among.endpoint(), state.config().clock.now_ms())?;
    let label = match among {
        Among::MetricNames => METRIC_NAME.to_owned(),
        Among::LabelNames => String::new(),
        Among::LabelValues => call.form.get("label").to_owned(),
    };
    if matches!(among, Among::LabelValues) && label.is_empty() {
        return Err(ApiError::bad_data("missing required parameter \"label\""));
    }
    let with_metadata = match among {
        Among::MetricNames => params::boolean(&call.form, "include_metadata", false)?,
        _ => false,
    };
    let replicas = state.config().replicas.asked(&call.form)?;
    let view = state.clone();
    state
        .run(call.work(QueryClass::Lookup), None, move |budget, _| {
            let selectors =
                selectors(&call.form, &view.0.engine.options().parse).map_err(ApiError::bad_data)?;
            let source = view.source(&call.tenants, replicas);
            let query = LabelQuery {
                selectors,
                min_t_ms: params.start_ms,
                max_t_ms: params.end_ms,
                budget: budget.clone(),
            };
            let found = candidates(&*source, &among, &label, &query)?;
            let (found, has_more) = chosen(found, &params, budget)?;
            let metadata = match with_metadata {
                true => view.metadata(&call.tenants, None, budget)?,
                false => BTreeMap::new(),
            };
            let is_value = matches!(among, Among::LabelValues);
            let results =
                found.into_iter().map(|f| Line::of(f, is_value, params.include_score, &metadata)).collect();
            Ok(lines(results, params.batch_size, has_more))
        })
        .await
}

fn candidates(
    source: &dyn Source,
    among: &Among,
    label: &str,
    query: &LabelQuery,
) -> Result<Vec<String>, ApiError> {
    let all = match among {
        Among::LabelNames => source.label_names(query)?,
        Among::MetricNames | Among::LabelValues => source.label_values(label, query)?,
    };
    query.budget.reserve(all.iter().map(|s| (s.len() + size_of::<Found>()) as u64).sum::<u64>())?;
    Ok(all)
}

/// Something that matches.
struct Found {
    text: String,
    score: f64,
}

/// What matches, ordered and cut at the limit; whether anything was cut off.
fn chosen(
    all: Vec<String>,
    params: &SearchParams,
    budget: &Arc<Budget>,
) -> Result<(Vec<Found>, bool), ApiError> {
    let filter = Filter::new(&params.terms, params.algorithm, params.threshold, params.case_sensitive);
    let mut found = Vec::new();
    for text in all {
        budget.check()?;
        if let Some(score) = filter.score(&text) {
            found.push(Found { text, score });
        }
    }
    match params.order {
        // As the storage has them.
        Order::Ascending => {}
        Order::Descending => found.reverse(),
        Order::Score => found.sort_by(|a, b| b.score.total_cmp(&a.score)),
    }
    let has_more = found.len() > params.limit;
    found.truncate(params.limit);
    Ok((found, has_more))
}

/// One result.
#[derive(Serialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    help: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    unit: String,
}

impl Line {
    fn of(
        found: Found,
        is_value: bool,
        with_score: bool,
        metadata: &BTreeMap<String, Vec<Metadata>>,
    ) -> Line {
        let known = metadata.get(&found.text).and_then(|all| all.first());
        let score = with_score.then_some(found.score);
        let (kind, help, unit) =
            known.map_or_else(Default::default, |m| (m.kind.clone(), m.help.clone(), m.unit.clone()));
        let (name, value) = if is_value { (None, Some(found.text)) } else { (Some(found.text), None) };
        Line { name, value, score, kind, help, unit }
    }
}

#[derive(Serialize)]
struct Batch<'a> {
    results: &'a [Line],
}

#[derive(Serialize)]
struct Trailer {
    status: &'static str,
    has_more: bool,
}

/// One batch at least, so that a reader sees that there is none; each is written when it is sent.
fn lines(results: Vec<Line>, batch_size: usize, has_more: bool) -> Response {
    let mut at = 0;
    let mut ended = false;
    let pieces = std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let mut out = Vec::new();
        if at < results.len() || at == 0 {
            let end = results.len().min(at + batch_size);
            json::small(&mut out, &Batch { results: &results[at..end] });
            at = end.max(1);
        } else {
            json::small(&mut out, &Trailer { status: "success", has_more });
            ended = true;
        }
        out.push(b'\n');
        Some(Ok::<_, std::convert::Infallible>(Bytes::from(out)))
    });
    let mut response = response::respond(Body::from_stream(futures::stream::iter(pieces)));
    let kind = HeaderValue::from_static("application/x-ndjson; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
