//! `explain`: the plan of a query as a tree, and what each of its nodes did. Hearth's own, Prometheus has no
//! such endpoint.

use axum::extract::State;
use axum::response::Response;

use crate::api::admission::call::Call;
use crate::api::admission::thanos;
use crate::api::endpoints::query::{MAX_WARNINGS, check_text, lookback, range_times, timeout};
use crate::api::error::ApiError;
use crate::api::json;
use crate::api::response::resolution;
use crate::api::response::{self, Warnings};
use crate::api::run::QueryClass;
use crate::api::state::ApiState;
use crate::api::tenant_limits;
use crate::engine::{QueryOptions, QueryRequest, QueryTime};
use crate::eval::stats::samples::SampleDetail;
use crate::explain::{Done, Explained, Node, Reads, Tree, Window};

/// `GET|POST /api/v1/explain`: with `start`, `end` and `step` as of `query_range`, else with `time` as of
/// `query`. `analyze=true` runs the query and tells what each node did; without it nothing is read.
pub async fn explain(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    let form = &call.form;
    let range = ["start", "end", "step"].iter().any(|p| !form.get(p).is_empty());
    let time = match range {
        true => range_times(&state, form)?,
        false => {
            let now = crate::api::parameters::values::Time::from_ms(state.config().clock.now_ms());
            QueryTime::Instant { time_ms: form.time_or("time", now)?.ms() }
        }
    };
    let analyze = match form.get("analyze") {
        "" | "false" | "0" => false,
        "true" | "1" => true,
        other => {
            let why = format!("{} is neither true nor false", model::quote::quote(other));
            return Err(ApiError::parameter("analyze", why));
        }
    };
    let timeout = timeout(form)?;
    let lookback_ms = lookback(form)?;
    let max_resolution = resolution::max_source_resolution(form)?;
    check_text(&state, form.get("query"))?;
    thanos::check(form)?;
    tenant_limits::check(&state.config().tenant_limits, &call.tenants, form.get("query"), time)?;
    let class = QueryClass::of(time, state.config().clock.now_ms());
    let replicas = state.config().replicas.asked(form)?;
    let view = state.clone();
    let inner = state.0.clone();
    let mut watch = analyze.then(|| state.watch(&call, "explain", time));
    state
        .run(call.work(class), timeout, move |budget, queued| {
            let _told_with = watch.as_ref().map(|watch| watch.begin(budget));
            let text = call.form.get("query");
            let source = view.source(&call.tenants, replicas);
            let budget = Some(budget.clone());
            let samples = if analyze { SampleDetail::Reads } else { SampleDetail::Total };
            let options = QueryOptions {
                lookback_ms,
                timeout,
                budget,
                samples,
                max_resolution,
                ..QueryOptions::default()
            };
            let request = QueryRequest { text, time, options };
            let explained = inner.engine.explain(&*source, &request, analyze).inspect_err(|e| {
                if let Some(watch) = &mut watch {
                    watch.failed(e);
                }
            })?;
            let warnings = explained.ran.as_ref().map_or_else(Warnings::default, |ran| {
                let (warnings, infos) = ran.annotations.render(text, MAX_WARNINGS);
                Warnings { warnings, infos }
            });
            Ok(response::success(&warnings, |out| {
                whole(out, &explained);
                if let Some(ran) = &explained.ran {
                    out.pop();
                    raw(out, ",\"stats\":");
                    json::small(out, &response::Stats::new(&ran.stats, queued, None));
                    out.push(b'}');
                }
            }))
        })
        .await
}

fn raw(out: &mut Vec<u8>, s: &str) {
    out.extend_from_slice(s.as_bytes());
}

/// `{"lookback":…,"plan":{…}}`
fn whole(out: &mut Vec<u8>, explained: &Explained) {
    raw(out, "{\"lookback\":");
    seconds(out, explained.lookback_ms);
    raw(out, ",\"plan\":");
    tree(out, &explained.tree);
    out.push(b'}');
}

/// Milliseconds as a number of seconds.
fn seconds(out: &mut Vec<u8>, ms: i64) {
    json::timestamp(out, ms);
}

/// Nested objects, written in a loop: a chain of operators is as deep as it is long.
fn tree(out: &mut Vec<u8>, tree: &Tree) {
    /// What is still to be written, the last first.
    enum Next {
        Open(usize, bool),
        Close,
    }
    let mut todo = vec![Next::Open(0, true)];
    while let Some(next) = todo.pop() {
        match next {
            Next::Close => raw(out, "]}"),
            Next::Open(at, first) => {
                if !first {
                    out.push(b',');
                }
                node(out, &tree.nodes[at]);
                todo.push(Next::Close);
                let children = &tree.nodes[at].children;
                todo.extend(children.iter().enumerate().rev().map(|(i, child)| Next::Open(*child, i == 0)));
            }
        }
    }
}

/// All of a node up to the opening bracket of its children.
fn node(out: &mut Vec<u8>, n: &Node) {
    raw(out, "{\"kind\":");
    json::string(out, n.kind);
    if !n.name.is_empty() {
        raw(out, ",\"name\":");
        json::string(out, n.name);
    }
    raw(out, ",\"text\":");
    json::html_string(out, &n.text);
    raw(out, &format!(",\"span\":[{},{}]", n.span.start, n.span.end));
    raw(out, ",\"type\":");
    json::string(out, n.value_type.api_name());
    raw(out, &format!(",\"stepInvariant\":{},\"steps\":{}", n.step_invariant, n.steps.count));
    if let Some(window) = &n.window {
        range(out, window);
    }
    if let Some(reads) = &n.reads {
        selector(out, reads);
    }
    if let Some(done) = &n.done {
        analysis(out, done);
    }
    raw(out, ",\"children\":[");
}

fn place(out: &mut Vec<u8>, offset_ms: i64, at_ms: Option<i64>) {
    raw(out, "\"offset\":");
    seconds(out, offset_ms);
    raw(out, ",\"at\":");
    match at_ms {
        Some(at) => seconds(out, at),
        None => raw(out, "null"),
    }
}

fn range(out: &mut Vec<u8>, w: &Window) {
    raw(out, ",\"window\":{\"range\":");
    seconds(out, w.range_ms);
    if let Some(step) = w.step_ms {
        raw(out, ",\"step\":");
        seconds(out, step);
    }
    out.push(b',');
    place(out, w.offset_ms, w.at_ms);
    out.push(b'}');
}

fn selector(out: &mut Vec<u8>, r: &Reads) {
    raw(out, ",\"selector\":{\"matchers\":");
    json::strings(out, &r.matchers);
    out.push(b',');
    place(out, r.offset_ms, r.at_ms);
    raw(out, ",\"reads\":");
    match r.span_ms {
        None => raw(out, "null"),
        Some((from, to)) => {
            raw(out, "{\"start\":");
            seconds(out, from);
            raw(out, ",\"end\":");
            seconds(out, to);
            out.push(b'}');
        }
    }
    raw(out, &format!(",\"selection\":{},\"shared\":{}", r.selection, r.shared));
    for (name, set) in [("anchored", r.anchored), ("smoothed", r.smoothed), ("countsOnly", r.counts_only)] {
        if set {
            raw(out, &format!(",\"{name}\":true"));
        }
    }
    raw(out, ",\"hints\":{\"step\":");
    seconds(out, r.hints.step_ms);
    raw(out, ",\"range\":");
    seconds(out, r.hints.range_ms);
    raw(out, ",\"func\":");
    json::string(out, r.func);
    raw(out, "}}");
}

fn analysis(out: &mut Vec<u8>, done: &Done) {
    let own = &done.own;
    raw(
        out,
        &format!(
            ",\"analysis\":{{\"runs\":{},\"series\":{},\"samplesRead\":{},\"totalSamplesRead\":{},\"bytes\":{},\"peakBytes\":{},\"reused\":{}",
            own.runs,
            own.series,
            own.samples_read,
            done.total_samples_read,
            own.bytes,
            own.bytes_peak,
            own.reused
        ),
    );
    if own.max_resolution_ms > 0 {
        raw(out, ",\"maxResolution\":");
        seconds(out, own.max_resolution_ms);
    }
    raw(out, ",\"selfTime\":");
    json::plain_number(out, own.time.as_secs_f64());
    raw(out, ",\"totalTime\":");
    json::plain_number(out, done.total_time.as_secs_f64());
    out.push(b'}');
}
