//! `query`, `query_range`, and what needs only the parser: `format_query` and `parse_query`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use model::quote::quote;
use model::source::ResolutionReport;

use crate::api::admission::call::Call;
use crate::api::admission::thanos::{self, Store};
use crate::api::error::{ApiError, ErrorType};
use crate::api::parameters::form::Form;
use crate::api::parameters::values::Time;
use crate::api::response::streamed::StreamedMatrix;
use crate::api::response::{self, ResultWriter, Stats, TRUNCATED, Warnings};
use crate::api::response::{resolution, syntax_tree};
use crate::api::run::QueryClass;
use crate::api::state::ApiState;
use crate::engine::{QueryOptions, QueryRequest, QueryTime};
use crate::eval::stats::samples::SampleDetail;
use crate::parse;
use crate::value::{ErrorKind, QueryError};

/// At most this many warnings and this many infos are shown.
pub(in crate::api) const MAX_WARNINGS: usize = 10;

impl From<QueryError> for ApiError {
    fn from(e: QueryError) -> ApiError {
        match e.kind {
            // The text is all that can be wrong once the parameters have been read.
            ErrorKind::BadData => ApiError::parameter("query", e.message),
            ErrorKind::Execution => ApiError::new(ErrorType::Execution, e.message),
            ErrorKind::Canceled => ApiError::new(ErrorType::Canceled, e.message),
            ErrorKind::Timeout => ApiError::new(ErrorType::Timeout, e.message),
            ErrorKind::Internal => ApiError::new(ErrorType::Internal, e.message),
        }
    }
}

/// `GET|POST /api/v1/query`
pub async fn instant(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    let limit = call.form.limit()?;
    let now = Time::from_ms(state.config().clock.now_ms());
    let time = call.form.time_or("time", now)?;
    let timeout = timeout(&call.form)?;
    run(state, call, QueryTime::Instant { time_ms: time.ms() }, limit, timeout).await
}

/// `GET|POST /api/v1/query_range`
pub async fn range(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    let limit = call.form.limit()?;
    let time = range_times(&state, &call.form)?;
    let timeout = timeout(&call.form)?;
    run(state, call, time, limit, timeout).await
}

/// `start`, `end` and `step`, within the limit of points.
pub(in crate::api) fn range_times(state: &ApiState, form: &Form) -> Result<QueryTime, ApiError> {
    let start = form.time("start")?;
    let end = form.time("end")?;
    if end < start {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let step_ns = crate::api::parameters::values::parse_duration(form.get("step"))
        .map_err(|e| ApiError::parameter("step", e))?;
    let step_ms = step_ns / 1_000_000;
    if step_ns <= 0 {
        let text = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(ApiError::parameter("step", text));
    }
    let most = state.config().limits.max_points;
    if (end.0 - start.0) / step_ns as i128 > most {
        return Err(ApiError::bad_data(format!(
            "exceeded maximum resolution of {} points per timeseries. Try decreasing the query resolution (?step=XX)",
            grouped(most)
        )));
    }
    if step_ms == 0 {
        return Err(ApiError::parameter("step", "steps below one millisecond are not supported"));
    }
    Ok(QueryTime::Range { start_ms: start.ms(), end_ms: end.ms(), step_ms })
}

/// 11000 as `11,000`.
fn grouped(n: i128) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A negative timeout is over at once, as upstream's deadline in the past.
pub(in crate::api) fn timeout(form: &Form) -> Result<Option<Duration>, ApiError> {
    Ok(form.duration("timeout")?.map(|ns| Duration::from_nanos(ns.max(0) as u64)))
}

/// `lookback_delta`; zero and less mean the default, as upstream's engine has it.
pub(in crate::api) fn lookback(form: &Form) -> Result<Option<i64>, ApiError> {
    match form.get("lookback_delta") {
        "" => Ok(None),
        s => {
            let ns = crate::api::parameters::values::parse_duration(s)
                .map_err(|e| ApiError::bad_data(format!("error parsing lookback delta duration: {e}")))?;
            Ok((ns >= 1_000_000).then_some(ns / 1_000_000))
        }
    }
}

async fn run(
    state: ApiState,
    call: Call,
    time: QueryTime,
    limit: usize,
    timeout: Option<Duration>,
) -> Result<Response, ApiError> {
    let lookback_ms = lookback(&call.form)?;
    let max_resolution = resolution::max_source_resolution(&call.form)?;
    check_text(&state, call.form.get("query"))?;
    thanos::check(&call.form)?;
    let replicas = state.config().replicas.asked(&call.form)?;
    let view = state.clone();
    let inner = state.0.clone();
    let endpoint = if matches!(time, QueryTime::Instant { .. }) { "query" } else { "query_range" };
    let mut watch = state.watch(&call, endpoint, time);
    state
        .run_streamed(QueryClass::Query, timeout, move |budget, queued, start| {
            let _told_with = watch.begin(budget);
            let text = call.form.get("query");
            let stats = call.form.get("stats");
            let Store { source, warning } = Store::asked(&view, &call, replicas)?;
            let report = Arc::new(ResolutionReport::default());
            let options = QueryOptions {
                lookback_ms,
                timeout,
                budget: Some(budget.clone()),
                samples: sample_detail(stats),
                max_resolution,
                resolution_report: Some(report.clone()),
            };
            let request = QueryRequest { text, time, options };
            let mut rows = StreamedMatrix::new(limit, start, report.clone());
            let from_bytes = inner.config.limits.stream_from_bytes;
            let done = tracing::info_span!("evaluate").in_scope(|| {
                inner
                    .engine
                    .run_streamed(&*source, &request, from_bytes, &mut |steps, s| rows.series(steps, &s))
            });
            if let Err(e) = &done {
                watch.failed(e);
            }
            let mut result = match done {
                Err(e) if rows.begun() => {
                    // The head of the answer is gone: all that is left is to break it off.
                    log_broken_off(&e, text);
                    inner.config.metrics.failed("query_range", ApiError::from(e).kind);
                    return Ok(None);
                }
                done => done?,
            };
            let (warnings, infos) = result.annotations.render(text, MAX_WARNINGS);
            let mut warnings = Warnings { warnings, infos };
            warnings.warnings.extend(warning);
            if limit > 0 && (rows.cut() || result.value.truncate(limit)) {
                warnings.warnings.push(TRUNCATED.into());
            }
            if !matches!(stats, "" | "true" | "all") {
                warnings.warnings.push(format!(
                    "value {} for parameter \"stats\" is deprecated and will be rejected in the next major release, use \"true\" or \"all\"",
                    quote(stats)
                ));
            }
            let figures = (!stats.is_empty()).then(|| Stats::new(&result.stats, queued));
            if rows.begun() {
                rows.finish(figures.as_ref(), &warnings);
                return Ok(None);
            }
            let writer = ResultWriter::new(result.value, figures.as_ref(), &warnings);
            writer.reserve(budget)?;
            let answer = response::reserving(response::streamed(writer), budget.clone())?;
            Ok(Some(resolution::with_header(answer, &report)))
        })
        .await
}

/// How closely samples are counted for `stats`.
fn sample_detail(stats: &str) -> SampleDetail {
    match stats {
        "" => SampleDetail::Total,
        "all" => SampleDetail::Steps,
        _ => SampleDetail::Reads,
    }
}

/// Of an error after which an answer that has begun ends early.
fn log_broken_off(e: &QueryError, text: &str) {
    if e.kind == ErrorKind::Canceled {
        tracing::debug!(query = text, "a client went away while a result was being sent");
    } else {
        tracing::warn!(error = %e, query = text, "a query failed while its result was being sent");
    }
}

/// Refuses what is too long to look at before it waits for a permit.
pub(in crate::api) fn check_text(state: &ApiState, text: &str) -> Result<(), ApiError> {
    let most = state.0.engine.options().parse.max_text_bytes;
    if text.len() > most {
        let why = format!("the query is {} bytes long, the limit is {most}", text.len());
        return Err(ApiError::parameter("query", why));
    }
    Ok(())
}

/// The query as a tree. Compiling its regular expressions takes up to a second: to be called on threads that
/// may block.
pub(in crate::api) fn parsed(state: &ApiState, form: &Form) -> Result<parse::Expr, parse::ParseError> {
    parse::parse_expr(form.get("query"), &state.0.engine.options().parse)
}

/// `GET|POST /api/v1/format_query`: the query as upstream's printer lays it out.
pub async fn format(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    check_text(&state, call.form.get("query"))?;
    let view = state.clone();
    state
        .run(QueryClass::Lookup, None, move |_, _| {
            let expr = parsed(&view, &call.form).map_err(|e| ApiError::parameter("query", e))?;
            Ok(response::small(&parse::prettify(&expr)))
        })
        .await
}

/// `GET|POST /api/v1/parse_query`: the syntax tree.
pub async fn syntax_tree(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    check_text(&state, call.form.get("query"))?;
    let view = state.clone();
    state
        .run(QueryClass::Lookup, None, move |_, _| {
            let expr = parsed(&view, &call.form).map_err(|e| ApiError::parameter("query", e))?;
            Ok(response::success(&Warnings::default(), |out| syntax_tree::expr(out, &expr)))
        })
        .await
}
