//! `status/*`, and the endpoints of things Hearth does not do (scraping), which answer with valid emptiness
//! so that Grafana and Prometheus' own tools are content.

use axum::extract::State;
use axum::response::Response;
use model::head_stats::NamedCount;
use model::quote::quote;
use serde::Serialize;
use serde_json::json;

use crate::api::admission::call::Call;
use crate::api::error::ApiError;
use crate::api::parameters::values::{parse_int, rfc3339};
use crate::api::response;
use crate::api::run::QueryClass;
use crate::api::state::ApiState;

/// `GET /api/v1/status/buildinfo`
pub async fn buildinfo(State(state): State<ApiState>) -> Response {
    response::small(&state.config().build)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeInfo<'a> {
    start_time: String,
    #[serde(rename = "CWD")]
    cwd: &'a str,
    hostname: &'a str,
    server_time: String,
    reload_config_success: bool,
    last_config_time: String,
    corruption_count: i64,
    goroutine_count: usize,
    #[serde(rename = "GOMAXPROCS")]
    cores: usize,
    #[serde(rename = "GOMEMLIMIT")]
    memory_limit: i64,
    #[serde(rename = "GOGC")]
    gogc: &'a str,
    #[serde(rename = "GODEBUG")]
    godebug: &'a str,
    storage_retention: &'a str,
}

/// `GET /api/v1/status/runtimeinfo`. Fields of the Go runtime keep their names and say what comes closest, or
/// nothing.
pub async fn runtimeinfo(State(state): State<ApiState>) -> Response {
    let process = &state.config().process;
    response::small(&RuntimeInfo {
        start_time: rfc3339(process.started_ms),
        cwd: &process.cwd,
        hostname: &process.hostname,
        server_time: rfc3339(state.config().clock.now_ms()),
        reload_config_success: state.config().reload.succeeded(),
        last_config_time: rfc3339(state.config().reload.succeeded_at_ms().unwrap_or(process.started_ms)),
        corruption_count: 0,
        goroutine_count: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
        memory_limit: i64::MAX,
        gogc: "",
        godebug: "",
        storage_retention: &process.storage_retention,
    })
}

/// `GET /api/v1/status/config`
pub async fn config(State(state): State<ApiState>) -> Response {
    let reloaded = state.config().reload.in_force();
    let yaml = reloaded.as_ref().map_or(&state.config().process.config_yaml, |r| &r.config_yaml);
    response::small(&json!({ "yaml": yaml }))
}

/// `GET /api/v1/status/flags`
pub async fn flags(State(state): State<ApiState>) -> Response {
    response::small(&state.config().process.flags)
}

/// `GET /api/v1/status/walreplay`
pub async fn walreplay(State(state): State<ApiState>) -> Response {
    walreplay_of(state.config().replay.get())
}

/// The answer of a process that replays its log, or has: first and last segment and the one it is at.
pub fn walreplay_of((min, max, current): (u64, u64, u64)) -> Response {
    response::small(&json!({ "min": min, "max": max, "current": current }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TsdbStatus {
    head_stats: HeadStats,
    series_count_by_metric_name: Vec<NamedCount>,
    label_value_count_by_label_name: Vec<NamedCount>,
    memory_in_bytes_by_label_name: Vec<NamedCount>,
    series_count_by_label_value_pair: Vec<NamedCount>,
    /// Not in upstream's answer: what the head's memory is made of, in bytes.
    head_memory_in_bytes: HeadMemory,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HeadMemory {
    labels: u64,
    series: u64,
    postings: u64,
    chunks: u64,
    out_of_order: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HeadStats {
    num_series: u64,
    num_label_pairs: u64,
    chunk_count: u64,
    min_time: i64,
    max_time: i64,
}

/// `GET /api/v1/status/tsdb`: the head's largest, `limit` of each list (10).
pub async fn tsdb(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    const MOST: i64 = 10_000;
    let limit = match call.form.get("limit") {
        "" => 10,
        s => parse_int(s).unwrap_or(0),
    };
    if limit < 1 {
        return Err(ApiError::bad_data("limit must be a positive number"));
    }
    if limit > MOST {
        return Err(ApiError::bad_data(format!("limit must not exceed {MOST}")));
    }
    let inner = state.0.clone();
    state
        .run(call.work(QueryClass::Lookup), None, move |_, _| {
            let s = inner.config.storage.head_stats(&call.tenant, limit as usize);
            // An empty head has its ends the wrong way round upstream.
            let (min_time, max_time) =
                if s.series == 0 { (i64::MAX, i64::MIN) } else { (s.min_t_ms, s.max_t_ms) };
            Ok(response::small(&TsdbStatus {
                head_stats: HeadStats {
                    num_series: s.series,
                    num_label_pairs: s.label_pairs,
                    chunk_count: s.chunks,
                    min_time,
                    max_time,
                },
                series_count_by_metric_name: s.series_by_metric,
                label_value_count_by_label_name: s.values_by_label,
                memory_in_bytes_by_label_name: s.bytes_by_label,
                series_count_by_label_value_pair: s.series_by_pair,
                head_memory_in_bytes: HeadMemory {
                    labels: s.bytes.symbols,
                    series: s.bytes.series,
                    postings: s.bytes.postings,
                    chunks: s.bytes.chunks,
                    out_of_order: s.bytes.out_of_order,
                },
            }))
        })
        .await
}

/// `GET /api/v1/targets`: none.
pub async fn targets(call: Call) -> Response {
    let with_dropped = matches!(call.form.get("state").to_lowercase().as_str(), "" | "any" | "dropped");
    let counts = if with_dropped { json!({}) } else { json!(null) };
    response::small(&json!({ "activeTargets": [], "droppedTargets": [], "droppedTargetCounts": counts }))
}

/// `GET /api/v1/targets/metadata`: no targets, none.
pub async fn targets_metadata() -> Response {
    response::small(&json!([]))
}

/// `GET /api/v1/scrape_pools`: none.
pub async fn scrape_pools() -> Response {
    response::small(&json!({ "scrapePools": [] }))
}

/// `GET /api/v1/scrape_pools/config`: no pool has one.
pub async fn scrape_pool_config(call: Call) -> ApiError {
    no_such_pool(&call).unwrap_or_else(|e| e)
}

/// `GET /api/v1/targets/relabel_steps`: no pool has any.
pub async fn relabel_steps(call: Call) -> ApiError {
    let read = || {
        let missing = no_such_pool(&call)?;
        let labels = call.form.get("labels");
        if labels.is_empty() {
            return Err(ApiError::bad_data("no labels parameter provided"));
        }
        serde_json::from_str::<std::collections::BTreeMap<String, String>>(labels)
            .map_err(|e| ApiError::bad_data(format!("error parsing labels: {e}")))?;
        Ok(missing)
    };
    read().unwrap_or_else(|e| e)
}

/// What a request for a pool is told, as nothing is scraped here.
fn no_such_pool(call: &Call) -> Result<ApiError, ApiError> {
    match call.form.get("scrapePool") {
        "" => Err(ApiError::bad_data("no scrapePool parameter provided")),
        pool => Ok(ApiError::bad_data(format!(
            "error retrieving scrape config: scrape pool {} not found",
            quote(pool)
        ))),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockMeta<'a> {
    ulid: &'a str,
    min_time: i64,
    /// Not included, as upstream has it.
    max_time: i64,
    stats: BlockStats,
    compaction: BlockCompaction<'a>,
    version: u8,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockStats {
    num_samples: u64,
    num_series: u64,
    /// Always 0: samples lie in columns.
    num_chunks: u64,
}

#[derive(Serialize)]
struct BlockCompaction<'a> {
    level: u32,
    sources: [&'a str; 1],
}

/// `GET /api/v1/status/tsdb/blocks`: the tenant's blocks of samples; `/api/v1/storage` has more of them, and
/// rollups.
pub async fn tsdb_blocks(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    let inner = state.0.clone();
    state
        .run(call.work(QueryClass::Lookup), None, move |_, _| {
            let stored = inner.config.storage.stored(&call.tenant);
            let raw = stored.blocks.iter().filter(|b| b.resolution_ms == 0);
            let blocks: Vec<BlockMeta<'_>> = raw
                .map(|b| BlockMeta {
                    ulid: &b.ulid,
                    min_time: b.min_t_ms,
                    max_time: b.max_t_ms.saturating_add(1),
                    stats: BlockStats { num_samples: b.samples, num_series: b.series, num_chunks: 0 },
                    compaction: BlockCompaction { level: b.level, sources: [&b.ulid] },
                    version: 1,
                })
                .collect();
            Ok(response::small(&json!({ "blocks": blocks })))
        })
        .await
}
