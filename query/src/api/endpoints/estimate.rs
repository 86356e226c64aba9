//! `estimate`: what a query would read, said before it runs. Hearth's own.
//!
//! The plan says which series each selector asks for and over which time. Series are counted by the index;
//! how often they have a sample is seen on a few of them over the last minutes of that time, or else by the
//! blocks' statistics. What windows or the results cache may spare is not taken off: it is what the query
//! reads at most, about.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use model::matcher::Matcher;
use model::source::{Budget, Hints, LabelQuery, Selection, Source, SourceError};
use serde_json::json;

use crate::api::admission::call::Call;
use crate::api::admission::thanos;
use crate::api::endpoints::query::{check_text, lookback, range_times};
use crate::api::error::ApiError;
use crate::api::response;
use crate::api::run::QueryClass;
use crate::api::state::{ApiState, Stored, StoredBlock};
use crate::engine::{QueryOptions, QueryRequest, QueryTime};
use crate::parse::parse_metric_selector;
use crate::value::ErrorKind;

/// Longer than this nobody waits for an estimate: what is not counted by then is taken from the blocks'
/// totals.
const PATIENCE: Duration = Duration::from_millis(700);
/// Memory of the counting, of each selector.
const MAX_BYTES: u64 = 64 << 20;
/// Time over which it is seen how often series have samples.
const LOOK_MS: i64 = 5 * 60_000;
/// The usual interval of scrapes, where nothing else is known.
const USUAL_INTERVAL_MS: f64 = 15_000.0;

/// `GET|POST /api/v1/estimate`: parameters as of `explain`. A query that is wrong is no error here but an
/// answer, `{"error": …}`: it is asked with every letter that is typed.
pub async fn estimate(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    let form = &call.form;
    let range = ["start", "end", "step"].iter().any(|p| !form.get(p).is_empty());
    let time = match range {
        true => range_times(&state, form)?,
        false => {
            let now = crate::api::parameters::values::Time::from_ms(state.config().clock.now_ms());
            QueryTime::Instant { time_ms: form.time_or("time", now)?.ms() }
        }
    };
    let lookback_ms = lookback(form)?;
    check_text(&state, form.get("query"))?;
    thanos::check(form)?;
    let replicas = state.config().replicas.asked(form)?;
    let view = state.clone();
    let inner = state.0.clone();
    state
        .run(call.work(QueryClass::Lookup), Some(2 * PATIENCE), move |_, _| {
            let source = view.source(&call.tenants, replicas);
            let options = QueryOptions { lookback_ms, ..QueryOptions::default() };
            let request = QueryRequest { text: call.form.get("query"), time, options };
            let explained = match inner.engine.explain(&*source, &request, false) {
                Err(e) if e.kind == ErrorKind::BadData => {
                    return Ok(response::small(&json!({ "error": e.message })));
                }
                explained => explained?,
            };
            let stored = inner.config.storage.stored(&call.tenant);
            let options = inner.engine.options();
            let mut total = Cost::default();
            let deadline = Instant::now() + PATIENCE;
            let mut counted = Vec::new();
            for reads in explained.tree.nodes.iter().filter_map(|n| n.reads.as_ref()) {
                let Some(span_ms) = reads.span_ms else { continue };
                // Selectors of one number are read once.
                if counted.contains(&reads.selection) {
                    continue;
                }
                counted.push(reads.selection);
                let selector = format!("{{{}}}", reads.matchers.join(","));
                let Ok(matchers) = parse_metric_selector(&selector, &options.parse) else { continue };
                total.add(&selection(&*source, &stored, &matchers, span_ms, deadline));
            }
            let limits =
                json!({ "maxSamples": options.max_samples, "maxMemoryBytes": options.max_memory_bytes });
            Ok(response::small(&json!({
                "series": total.series,
                "samples": total.samples.round(),
                "bytes": total.bytes.round(),
                "atLeast": total.at_least,
                "blocks": total.blocks.len(),
                "head": total.head,
                "limits": limits,
            })))
        })
        .await
}

/// What a query reads, about.
#[derive(Default)]
struct Cost {
    series: u64,
    samples: f64,
    bytes: f64,
    /// There were too many series to count them all.
    at_least: bool,
    head: bool,
    /// Their names.
    blocks: Vec<String>,
}

impl Cost {
    fn add(&mut self, other: &Cost) {
        self.series += other.series;
        self.samples += other.samples;
        self.bytes += other.bytes;
        self.at_least |= other.at_least;
        self.head |= other.head;
        for block in &other.blocks {
            if !self.blocks.contains(block) {
                self.blocks.push(block.clone());
            }
        }
    }
}

fn selection(
    source: &dyn Source,
    stored: &Stored,
    matchers: &[Matcher],
    (min_t_ms, max_t_ms): (i64, i64),
    deadline: Instant,
) -> Cost {
    let budget = Budget::new(u64::MAX, MAX_BYTES, Some(deadline));
    let query = LabelQuery { selectors: vec![matchers.to_vec()], min_t_ms, max_t_ms, budget: budget.clone() };
    let blocks: Vec<_> = stored
        .blocks
        .iter()
        .filter(|b| b.resolution_ms == 0 && b.min_t_ms <= max_t_ms && b.max_t_ms >= min_t_ms)
        .collect();
    let head = stored.head.filter(|h| h.series > 0 && h.min_t_ms <= max_t_ms && h.max_t_ms >= min_t_ms);
    let (series, at_least) = match source.series(&query) {
        Ok(found) => (found.len() as u64, false),
        // So many that they are not counted: all that there are, at most.
        Err(_) => (blocks.iter().map(|b| b.series).chain(head.map(|h| h.series)).max().unwrap_or(0), true),
    };
    // Nothing is there before the first block. What is newer than the last is in the head or in local blocks,
    // up to now.
    let first = stored.blocks.iter().map(|b| b.min_t_ms).min().unwrap_or(i64::MIN);
    let span_ms = max_t_ms.saturating_sub(min_t_ms.max(first)).saturating_add(1).max(0) as f64;
    let samples_each = match series {
        0 => 0.0,
        _ => samples_per_ms(source, &blocks, matchers, (min_t_ms, max_t_ms), &budget) * span_ms,
    };
    let (bytes, stored_samples) =
        blocks.iter().fold((0.0, 0.0), |(b, s), block| (b + block.bytes as f64, s + block.samples as f64));
    // The head's own chunks take about as much where there are no blocks to go by.
    let bytes_per_sample = if stored_samples > 0.0 { bytes / stored_samples } else { 1.5 };
    let samples = samples_each * series as f64;
    Cost {
        series,
        samples,
        bytes: samples * bytes_per_sample,
        at_least,
        head: head.is_some(),
        blocks: if series == 0 { Vec::new() } else { blocks.iter().map(|b| b.ulid.clone()).collect() },
    }
}

/// How often these series have a sample: as the first few of them had over the last minutes, else as all
/// series of the blocks had.
fn samples_per_ms(
    source: &dyn Source,
    blocks: &[&StoredBlock],
    matchers: &[Matcher],
    (min_t_ms, max_t_ms): (i64, i64),
    budget: &Arc<Budget>,
) -> f64 {
    let from = min_t_ms.max(max_t_ms - LOOK_MS);
    let selection = Selection {
        matchers: matchers.to_vec(),
        min_t_ms: from,
        max_t_ms,
        hints: Hints::default(),
        budget: budget.clone(),
    };
    let seen = || -> Result<Option<f64>, SourceError> {
        let first = source.select(&selection)?.next_batch()?;
        Ok(first.filter(|batch| !batch.is_empty()).map(|batch| {
            let samples: usize = batch.iter().map(|s| s.ts_ms.len()).sum();
            samples as f64 / batch.len() as f64 / (max_t_ms - from + 1) as f64
        }))
    };
    if let Ok(Some(seen)) = seen()
        && max_t_ms - from >= 1000
    {
        return seen;
    }
    let (samples, series_ms) = blocks.iter().fold((0.0, 0.0), |(samples, series_ms), b| {
        let span_ms = (b.max_t_ms - b.min_t_ms + 1) as f64;
        (samples + b.samples as f64, series_ms + b.series as f64 * span_ms)
    });
    if series_ms > 0.0 { samples / series_ms } else { 1.0 / USUAL_INTERVAL_MS }
}
