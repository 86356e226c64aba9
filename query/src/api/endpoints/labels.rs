//! `series`, `labels`, `label/<name>/values` and `metadata`.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use model::labels::Labels;
use model::matcher::Matcher;
use model::quote::quote;
use model::sample::Metadata;
use model::source::{LabelQuery, Source, SourceError};

use crate::api::admission::call::Call;
use crate::api::admission::thanos::{self, Store};
use crate::api::error::ApiError;
use crate::api::json;
use crate::api::parameters::form::{Form, unescape_name};
use crate::api::response::{self, Warnings};
use crate::api::run::QueryClass;
use crate::api::state::ApiState;
use crate::parse::{ParseOptions, parse_metric_selectors};

/// The selectors of `match[]`. Each must have a matcher that an absent label fails, so that nobody asks for
/// everything by mistake. Compiling their regular expressions takes up to a second, so this is called on
/// threads that may block.
pub(in crate::api) fn selectors(form: &Form, options: &ParseOptions) -> Result<Vec<Vec<Matcher>>, String> {
    let selectors = parse_metric_selectors(form.all("match[]"), options).map_err(|e| e.to_string())?;
    if selectors.iter().any(|selector| selector.iter().all(Matcher::matches_empty)) {
        return Err("match[] must contain at least one non-empty matcher".into());
    }
    Ok(selectors)
}

/// What a label set takes beside its bytes.
const SET_BYTES: u64 = 48;

/// How the items of a lookup are counted and written.
struct Items<T> {
    bytes: fn(&T) -> u64,
    write: fn(&mut Vec<u8>, T),
}

/// Names of labels, or values of one.
const STRINGS: Items<String> =
    Items { bytes: |s| (s.len() + size_of::<String>()) as u64, write: |out, s| json::html_string(out, &s) };

const LABEL_SETS: Items<Labels> = Items {
    bytes: |labels| labels.byte_len() as u64 + SET_BYTES,
    write: |out, labels| json::labels(out, &labels),
};

/// Written as the client takes them: a tenant can have millions.
struct Listed<T> {
    items: std::vec::IntoIter<T>,
    begun: bool,
    warnings: Warnings,
    write: fn(&mut Vec<u8>, T),
}

impl<T: Send + 'static> response::Pieces for Listed<T> {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        response::list(out, &mut self.begun, &mut self.items, &self.warnings, self.write)
    }
}

/// Answers with what `find` gets of the source that a request may see, at most `limit` of it. `refuse` makes
/// the error of selectors that are wrong.
async fn look_up<T: Send + 'static>(
    state: ApiState,
    call: Call,
    items: Items<T>,
    refuse: fn(String) -> ApiError,
    find: impl FnOnce(&dyn Source, &LabelQuery) -> Result<Vec<T>, SourceError> + Send + 'static,
) -> Result<Response, ApiError> {
    let limit = call.form.limit()?;
    let (min_t_ms, max_t_ms) = call.form.range_ms()?;
    thanos::check(&call.form)?;
    let replicas = state.config().replicas.asked(&call.form)?;
    let view = state.clone();
    let takes_part = thanos::takes_part(&call.form);
    let answer = state
        .run(call.work(QueryClass::Lookup), None, move |budget, _| {
            let selectors = selectors(&call.form, &view.0.engine.options().parse).map_err(refuse)?;
            let store = Store::asked(&view, &call, replicas)?;
            let query = LabelQuery { selectors, min_t_ms, max_t_ms, budget: budget.clone() };
            let mut labels = find(&*store.source, &query)?;
            let mut warnings = Warnings::default();
            if limit > 0 && labels.len() > limit {
                labels.truncate(limit);
                warnings = Warnings::truncated();
            }
            warnings.warnings.extend(store.warnings());
            budget.reserve(labels.iter().map(items.bytes).sum::<u64>())?;
            let write = items.write;
            Ok(response::streamed(Listed { items: labels.into_iter(), begun: false, warnings, write }))
        })
        .await;
    answer.map(|answer| if takes_part { thanos::not_stored(answer) } else { answer })
}

/// `GET|POST /api/v1/series`
pub async fn series(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    if let Some(e) = call.form.error() {
        return Err(ApiError::bad_data(format!("error parsing form values: {e}")));
    }
    if call.form.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let refuse = |e| ApiError::parameter("match[]", e);
    look_up(state, call, LABEL_SETS, refuse, |source, query| source.series(query)).await
}

/// `GET|POST /api/v1/labels`
pub async fn names(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    look_up(state, call, STRINGS, ApiError::bad_data, |source, query| source.label_names(query)).await
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
    let find = move |source: &dyn Source, query: &LabelQuery| source.label_values(&name, query);
    look_up(state, call, STRINGS, ApiError::bad_data, find).await
}

/// `GET /api/v1/metadata`. Here, and only here, `limit=0` means nothing at all, as upstream has it.
pub async fn metadata(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    let number = |name: &str| match call.form.get(name) {
        "" => Ok(-1),
        s => crate::api::parameters::values::parse_int(s)
            .map_err(|_| ApiError::bad_data(format!("{name} must be a number"))),
    };
    let limit = number("limit")?;
    let limit_per_metric = number("limit_per_metric")?;
    let view = state.clone();
    state
        .run(call.work(QueryClass::Lookup), None, move |budget, _| {
            let metric = Some(call.form.get("metric")).filter(|m| !m.is_empty());
            let metadata = view.metadata(&call.tenants, metric, budget)?;
            let bytes = |m: &Metadata| m.kind.len() + m.unit.len() + m.help.len() + 64;
            // As JSON; as it lies there it is reserved already.
            budget.reserve(metadata.values().flatten().map(|m| bytes(m) as u64).sum::<u64>())?;
            Ok(response::success(&Warnings::default(), |out| {
                out.push(b'{');
                let most = usize::try_from(limit).unwrap_or(usize::MAX);
                for (i, (name, entries)) in metadata.iter().take(most).enumerate() {
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
