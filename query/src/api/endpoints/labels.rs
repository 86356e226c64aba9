//! `series`, `labels`, `label/<name>/values` and `metadata`.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use model::matcher::Matcher;
use model::matcher::quote;
use model::sample::Metadata;
use model::source::{Budget, LabelQuery};

use crate::api::admission::call::Call;
use crate::api::admission::form::{Form, unescape_name};
use crate::api::error::ApiError;
use crate::api::response::json;
use crate::api::response::{self, Warnings};
use crate::api::run::QueryClass;
use crate::api::state::ApiState;
use crate::parse::{ParseOptions, parse_metric_selectors};

/// The selectors of `match[]`. Each must have a matcher that an absent label fails, so that nobody asks for
/// everything by mistake. Compiling their regular expressions takes up to a second, so this is called on
/// threads that may block.
pub(in crate::api) fn selectors(form: &Form, options: &ParseOptions) -> Result<Vec<Vec<Matcher>>, String> {
    let all = parse_metric_selectors(form.all("match[]"), options).map_err(|e| e.to_string())?;
    if all.iter().any(|selector| selector.iter().all(Matcher::matches_empty)) {
        return Err("match[] must contain at least one non-empty matcher".into());
    }
    Ok(all)
}

fn wish(selectors: Vec<Vec<Matcher>>, (min_t_ms, max_t_ms): (i64, i64), budget: &Arc<Budget>) -> LabelQuery {
    LabelQuery { selectors, min_t_ms, max_t_ms, budget: budget.clone() }
}

/// What a label set takes beside its bytes.
const SET_BYTES: u64 = 48;

fn cut<T>(all: &mut Vec<T>, limit: usize) -> Warnings {
    if limit > 0 && all.len() > limit {
        all.truncate(limit);
        return Warnings::truncated();
    }
    Warnings::default()
}

/// `GET|POST /api/v1/series`
pub async fn series(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    if let Some(e) = call.form.error() {
        return Err(ApiError::bad_data(format!("error parsing form values: {e}")));
    }
    if call.form.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let limit = call.form.limit()?;
    let range = call.form.range_ms()?;
    let replicas = state.config().replicas.asked(&call.form)?;
    let view = state.clone();
    state
        .run(QueryClass::Lookup, None, move |budget, _| {
            let selectors = selectors(&call.form, &view.0.engine.options().parse)
                .map_err(|e| ApiError::parameter("match[]", e))?;
            let source = view.source(&call.tenant, replicas);
            let mut found = source.series(&wish(selectors, range, budget))?;
            let warnings = cut(&mut found, limit);
            budget.reserve(found.iter().map(|l| l.byte_len() as u64 + SET_BYTES).sum::<u64>())?;
            Ok(response::streamed(LabelSets { sets: found.into_iter(), begun: false, warnings }))
        })
        .await
}

/// Label sets, written as the client takes them: a tenant can have millions.
struct LabelSets {
    sets: std::vec::IntoIter<model::labels::Labels>,
    begun: bool,
    warnings: Warnings,
}

impl response::Pieces for LabelSets {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        response::list(out, &mut self.begun, &mut self.sets, &self.warnings, |out, set| {
            json::labels(out, &set)
        })
    }
}

/// Names or values, the same way.
struct Strings {
    all: std::vec::IntoIter<String>,
    begun: bool,
    warnings: Warnings,
}

impl response::Pieces for Strings {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        response::list(out, &mut self.begun, &mut self.all, &self.warnings, |out, s| {
            json::html_string(out, &s)
        })
    }
}

/// `GET|POST /api/v1/labels`
pub async fn names(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    let limit = call.form.limit()?;
    let range = call.form.range_ms()?;
    let replicas = state.config().replicas.asked(&call.form)?;
    let view = state.clone();
    state
        .run(QueryClass::Lookup, None, move |budget, _| {
            let selectors =
                selectors(&call.form, &view.0.engine.options().parse).map_err(ApiError::bad_data)?;
            let source = view.source(&call.tenant, replicas);
            let mut found = source.label_names(&wish(selectors, range, budget))?;
            let warnings = cut(&mut found, limit);
            budget.reserve(found.iter().map(|s| (s.len() + size_of::<String>()) as u64).sum::<u64>())?;
            Ok(response::streamed(Strings { all: found.into_iter(), begun: false, warnings }))
        })
        .await
}

/// `GET /api/v1/label/<name>/values`
pub async fn values(
    State(state): State<ApiState>,
    name: Result<Path<String>, PathRejection>,
    call: Call,
) -> Result<Response, ApiError> {
    let Path(name) =
        name.map_err(|e| ApiError::bad_data(format!("invalid label name: {}", e.body_text())))?;
    let name = unescape_name(&name).into_owned();
    if name.is_empty() {
        return Err(ApiError::bad_data(format!("invalid label name: {}", quote(&name))));
    }
    let limit = call.form.limit()?;
    let range = call.form.range_ms()?;
    let replicas = state.config().replicas.asked(&call.form)?;
    let view = state.clone();
    state
        .run(QueryClass::Lookup, None, move |budget, _| {
            let selectors =
                selectors(&call.form, &view.0.engine.options().parse).map_err(ApiError::bad_data)?;
            let source = view.source(&call.tenant, replicas);
            let mut found = source.label_values(&name, &wish(selectors, range, budget))?;
            let warnings = cut(&mut found, limit);
            budget.reserve(found.iter().map(|s| (s.len() + size_of::<String>()) as u64).sum::<u64>())?;
            Ok(response::streamed(Strings { all: found.into_iter(), begun: false, warnings }))
        })
        .await
}

/// `GET /api/v1/metadata`. Here, and only here, `limit=0` means nothing at all, as upstream has it.
pub async fn metadata(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    let number = |name: &str| match call.form.get(name) {
        "" => Ok(-1),
        s => crate::api::admission::params::parse_int(s)
            .map_err(|_| ApiError::bad_data(format!("{name} must be a number"))),
    };
    let limit = number("limit")?;
    let limit_per_metric = number("limit_per_metric")?;
    let inner = state.0.clone();
    state
        .run(QueryClass::Lookup, None, move |budget, _| {
            let metric = Some(call.form.get("metric")).filter(|m| !m.is_empty());
            let all = inner.config.storage.metadata(&call.tenant, metric)?;
            let bytes = |m: &Metadata| m.kind.len() + m.unit.len() + m.help.len() + 64;
            // As it lies there, and as JSON.
            budget.reserve(all.values().flatten().map(|m| 2 * bytes(m) as u64).sum::<u64>())?;
            Ok(response::success(&Warnings::default(), |out| {
                out.push(b'{');
                let most = usize::try_from(limit).unwrap_or(usize::MAX);
                for (i, (name, entries)) in all.iter().take(most).enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    json::html_string(out, name);
                    out.extend_from_slice(b":[");
                    let most = if limit_per_metric > 0 { limit_per_metric as usize } else { usize::MAX };
                    for (i, entry) in entries.iter().take(most).enumerate() {
                        out.extend_from_slice(if i > 0 {
                            br#",{"type":"#.as_slice()
                        } else {
                            br#"{"type":"#.as_slice()
                        });
                        json::html_string(out, &entry.kind);
                        out.extend_from_slice(br#","unit":"#);
                        json::html_string(out, &entry.unit);
                        out.extend_from_slice(br#","help":"#);
                        json::html_string(out, &entry.help);
                        out.push(b'}');
                    }
                    out.push(b']');
                }
                out.push(b'}');
            }))
        })
        .await
}
