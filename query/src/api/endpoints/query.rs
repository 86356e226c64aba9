//! `query`, `query_range`, and what needs only the parser: `format_query` and `parse_query`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use model::quote::quote;
use model::source::at_once::{Refused, at_once, may_wait};
use model::source::{Budget, ResolutionReport};

use crate::api::admission::call::Call;
use crate::api::admission::thanos::{self, Store};
use crate::api::at_once::most_series;
use crate::api::error::{ApiError, ErrorType};
use crate::api::parameters::form::Form;
use crate::api::parameters::replicas::Replicas;
use crate::api::parameters::values::Time;
use crate::api::queue::Place;
use crate::api::response::streamed::{StreamStart, StreamedMatrix};
use crate::api::response::{self, ResultWriter, Stats, TRUNCATED, Warnings};
use crate::api::response::{cache, resolution, syntax_tree};
use crate::api::run::QueryClass;
use crate::api::running::Watch;
use crate::api::state::ApiState;
use crate::api::tenant_limits;
use crate::engine::{QueryOptions, QueryRequest, QueryTime};
use crate::eval::stats::samples::SampleDetail;
use crate::parse;
use crate::plan::Steps;
use crate::plan::resolution::MaxResolution;
use crate::results_cache::{CacheUse, ResultsCache};
use crate::value::{ErrorKind, QueryError, QueryResult};

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
    tenant_limits::check(&state.config().tenant_limits, &call.tenants, call.form.get("query"), time)?;
    let replicas = state.config().replicas.asked(&call.form)?;
    let endpoint = if matches!(time, QueryTime::Instant { .. }) { "query" } else { "query_range" };
    let watch = state.watch(&call, endpoint, time);
    let takes_part = thanos::takes_part(&call.form);
    let mut asked = Asked {
        state: state.clone(),
        call,
        time,
        limit,
        timeout,
        lookback_ms,
        max_resolution,
        replicas,
        watch,
        report: Arc::default(),
    };
    let class = QueryClass::of(time, state.config().clock.now_ms());
    let answer = match asked.at_once(class) {
        Some(answer) => answer,
        None => {
            let of = asked.call.work(class);
            let work = move |budget: &Arc<Budget>, queued, start| asked.streamed(budget, queued, start);
            state.run_streamed(of, timeout, work).await?
        }
    };
    Ok(if takes_part { thanos::not_stored(answer) } else { answer })
}

/// A query that was read from its request.
struct Asked {
    state: ApiState,
    call: Call,
    time: QueryTime,
    /// Series of the result; 0 for all.
    limit: usize,
    timeout: Option<Duration>,
    lookback_ms: Option<i64>,
    max_resolution: Option<MaxResolution>,
    replicas: Replicas,
    watch: Watch,
    report: Arc<ResolutionReport>,
}

impl Asked {
    /// Where results are kept, if any of this query may be.
    fn results(&self) -> Option<(Arc<ResultsCache>, String)> {
        let results = self.state.0.results.clone()?;
        let form = &self.call.form;
        let asked = !matches!(form.get("nocache"), "" | "0" | "false");
        let plain = !asked && !thanos::takes_part(form) && form.all("storeMatch[]").next().is_none();
        plain.then(|| (results, format!("{:?} {:?}", self.call.tenants, self.replicas)))
    }

    fn request(&self, budget: &Arc<Budget>) -> QueryRequest<'_> {
        let options = QueryOptions {
            lookback_ms: self.lookback_ms,
            timeout: self.timeout,
            budget: Some(budget.clone()),
            samples: sample_detail(self.call.form.get("stats")),
            max_resolution: self.max_resolution,
            resolution_report: Some(self.report.clone()),
        };
        QueryRequest { text: self.call.form.get("query"), time: self.time, options }
    }

    /// The answer, where the query is small and can be evaluated on this thread, which is the runtime's.
    /// `None`: it has to be evaluated on another, whatever the reason; errors are found there again.
    fn at_once(&mut self, class: QueryClass) -> Option<Response> {
        let text = self.call.form.get("query");
        let most_series = most_series(text, self.time)?;
        let (inner, tenant) = (&self.state.0, &self.call.tenant);
        let now_ms = inner.config.clock.now_ms();
        // Which store is meant may have to be matched with regular expressions.
        if self.call.form.all("storeMatch[]").next().is_some() || inner.large.knows(tenant, text, now_ms) {
            return None;
        }
        let limits = inner.config.tenant_limits.of(tenant);
        let place = Place { tenant: tenant.clone(), long: class == QueryClass::Long };
        let _turn = inner.queries.turn_at_once(place, tenant_limits::queue_bounds(&limits))?;
        // Others make room for whoever asks what is small too.
        drop(inner.cores.enter(tenant));
        let longest = inner.config.limits.longest_at_once;
        let longest = self.timeout.map_or(longest, |t| t.min(longest));
        let budget = inner.engine.tenant_budget_at_once(Some(longest), &limits);
        // A bug shows itself on the other thread again, where it fails one request only.
        let attempt = catch_unwind(AssertUnwindSafe(|| at_once(most_series, || self.whole(&budget))));
        let Ok((answer, refused)) = attempt else {
            self.report = Arc::default();
            return None;
        };
        let late = budget.deadline().is_some_and(|deadline| Instant::now() >= deadline);
        if refused == Some(Refused::Large) || late {
            inner.large.remember(tenant, text, now_ms);
        }
        let Ok(answer) = answer else {
            // What it reported so far it reports again.
            self.report = Arc::default();
            return None;
        };
        self.watch.was_at_once(&budget);
        inner.config.metrics.read_samples(budget.samples_read());
        Some(answer)
    }

    /// The answer as a whole.
    fn whole(&self, budget: &Arc<Budget>) -> Result<Response, ApiError> {
        let store = Store::asked(&self.state, &self.call, self.replicas.clone())?;
        if !store.source.gives_up_at_once() {
            may_wait()?;
        }
        let request = self.request(budget);
        let (engine, results) = (&self.state.0.engine, self.results());
        let (mut result, cache_use) = self.watch.told_with(|| {
            let evaluate = || match &results {
                None => Ok((engine.run(&*store.source, &request)?, None)),
                Some((results, scope)) => results.run(engine, &*store.source, &request, scope, None),
            };
            tracing::info_span!("evaluate").in_scope(evaluate)
        })?;
        let cut = self.limit > 0 && result.value.truncate(self.limit);
        let warnings = self.warnings(&result, store.warnings(), cut);
        self.written(result, &warnings, Duration::ZERO, budget, cache_use)
    }

    /// The answer, or `None` where it has begun to be sent by means of `start`.
    fn streamed(
        &mut self,
        budget: &Arc<Budget>,
        queued: Duration,
        start: StreamStart,
    ) -> Result<Option<Response>, ApiError> {
        let _told_with = self.watch.begin(budget);
        let store = Store::asked(&self.state, &self.call, self.replicas.clone())?;
        let inner = self.state.0.clone();
        let mut rows = StreamedMatrix::new(self.limit, start, self.report.clone());
        let from_bytes = inner.config.limits.stream_from_bytes;
        let request = self.request(budget);
        let text = request.text;
        let results = self.results();
        let done = tracing::info_span!("evaluate").in_scope(|| {
            let (engine, take) = (&inner.engine, &mut |steps: &Steps, s| rows.series(steps, &s));
            match &results {
                None => Ok((engine.run_streamed(&*store.source, &request, from_bytes, take)?, None)),
                Some((results, scope)) => {
                    results.run(engine, &*store.source, &request, scope, Some((from_bytes, take)))
                }
            }
        });
        let (mut result, cache_use) = match done {
            Err(e) => {
                if rows.begun() {
                    // The head of the answer is gone: all that is left is to break it off.
                    log_broken_off(&e, text);
                }
                self.watch.failed(&e);
                let error = ApiError::from(e);
                if rows.begun() {
                    inner.config.metrics.failed("query_range", error.kind);
                    return Ok(None);
                }
                return Err(error);
            }
            Ok(result) => result,
        };
        let cut = self.limit > 0 && (rows.cut() || result.value.truncate(self.limit));
        let warnings = self.warnings(&result, store.warnings(), cut);
        if rows.begun() {
            rows.finish(self.figures(&result, queued, cache_use).as_ref(), &warnings);
            return Ok(None);
        }
        self.written(result, &warnings, queued, budget, cache_use).map(Some)
    }

    fn figures(&self, result: &QueryResult, queued: Duration, cache_use: Option<CacheUse>) -> Option<Stats> {
        (!self.call.form.get("stats").is_empty()).then(|| Stats::new(&result.stats, queued, cache_use))
    }

    /// What is said beside a result; `cut`: that it was, to the limit.
    fn warnings(&self, result: &QueryResult, of_store: Vec<String>, cut: bool) -> Warnings {
        let (warnings, infos) = result.annotations.render(self.call.form.get("query"), MAX_WARNINGS);
        let mut warnings = Warnings { warnings, infos };
        warnings.warnings.extend(of_store);
        if cut {
            warnings.warnings.push(TRUNCATED.into());
        }
        let stats = self.call.form.get("stats");
        if !matches!(stats, "" | "true" | "all") {
            warnings.warnings.push(format!(
                "value {} for parameter \"stats\" is deprecated and will be rejected in the next major release, use \"true\" or \"all\"",
                quote(stats)
            ));
        }
        warnings
    }

    fn written(
        &self,
        result: QueryResult,
        warnings: &Warnings,
        queued: Duration,
        budget: &Arc<Budget>,
        cache_use: Option<CacheUse>,
    ) -> Result<Response, ApiError> {
        let figures = self.figures(&result, queued, cache_use);
        let writer = ResultWriter::new(result.value, figures.as_ref(), warnings);
        writer.reserve(budget)?;
        let answer = response::reserving(response::streamed(writer), budget.clone())?;
        Ok(cache::with_header(resolution::with_header(answer, &self.report), cache_use))
    }
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
        .run(call.work(QueryClass::Lookup), None, move |_, _| {
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
        .run(call.work(QueryClass::Lookup), None, move |_, _| {
            let expr = parsed(&view, &call.form).map_err(|e| ApiError::parameter("query", e))?;
            Ok(response::success(&Warnings::default(), |out| syntax_tree::expr(out, &expr)))
        })
        .await
}
