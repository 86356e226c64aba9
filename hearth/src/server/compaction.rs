//! The compactor's role: its settings from the table, its place in the process, and what it did lately for
//! people to look at.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use compactor::outlook::JobOutlook;
use compactor::plan::PlanSettings;
use compactor::settings::{RetentionSettings, Settings as CompactorSettings};
use compactor::worker::{Compactor, JobReport};
use serde_json::{Value, json};

use super::memory_limit;
use crate::config::Settings;

/// Windows that are made when downsampling is on, in milliseconds.
const RESOLUTIONS_MS: [i64; 2] = model::rollup::RESOLUTIONS_MS;

/// How long samples are kept, as the settings say.
pub fn keep(settings: &Settings) -> RetentionSettings {
    let some = |ms: i64| (ms > 0).then_some(ms);
    RetentionSettings {
        raw_ms: some(settings.retention.ms()),
        resolutions_ms: BTreeMap::from([
            (RESOLUTIONS_MS[0], some(settings.retention_5m.ms())),
            (RESOLUTIONS_MS[1], some(settings.retention_1h.ms())),
        ]),
        tenants: settings.retention_tenants.0.clone(),
        rules: settings.retention_rules.0.clone(),
    }
}

/// The longest that any raw sample is kept, in milliseconds; `None` for ever. Older ones are refused on
/// arrival.
pub fn longest_raw_ms(keep: &RetentionSettings) -> Option<i64> {
    let tenants = keep.tenants.values().filter_map(|t| t.raw_ms);
    let rules = keep.rules.iter().map(|r| r.rule.keep_ms);
    tenants.chain(rules).fold(keep.raw_ms, |a, b| Some(a?.max(b?)))
}

/// What the compactor goes by; `keep` is how long things are kept.
pub fn settings(from: &Settings, keep: RetentionSettings) -> Result<CompactorSettings, String> {
    let plan = PlanSettings {
        levels_ms: from.compactor_levels.0.iter().map(|s| s.ms()).collect(),
        grace_ms: from.compactor_grace.ms(),
        late_wait_ms: from.compactor_late_wait.ms(),
        max_inputs: from.compactor_max_inputs.get(),
        max_span_bytes: from.compactor_max_span.0,
        resolutions_ms: if from.compactor_downsample { RESOLUTIONS_MS.to_vec() } else { Vec::new() },
        ..PlanSettings::default()
    };
    plan.check().map_err(|why| format!("compactor.levels: {why}"))?;
    Ok(CompactorSettings {
        plan,
        max_memory_bytes: memory_limit::compaction_bytes(from),
        max_block_bytes: from.compactor_max_block.0,
        max_scratch_bytes: from.compactor_max_scratch.0,
        keep,
        expired_delay: from.retention_delay.0,
        replica_labels: from.compactor_dedup_replica_labels.0.clone(),
        delete_delay: from.compactor_delete_delay.0,
        orphan_grace: from.compactor_orphan_grace.0,
        interval: from.compactor_interval.0,
        verify: from.compactor_verify,
        ..CompactorSettings::new(scratch(&from.data_dir.0))
    })
}

/// Where blocks are written before they are uploaded.
fn scratch(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("compaction")
}

/// `GET /api/v1/status/compaction`: the job under way, those that are planned, and the latest that ended,
/// newest first.
pub fn router(compactor: Arc<Compactor>) -> Router {
    Router::new().route("/api/v1/status/compaction", get(status)).with_state(compactor)
}

async fn status(State(compactor): State<Arc<Compactor>>) -> Response {
    let runs: Vec<Value> = compactor.runs().iter().map(run).collect();
    let outlook = compactor.outlook();
    let planned: Vec<Value> = outlook.planned.values().flatten().map(planned).collect();
    let working = outlook.working.as_ref().map(|(job, since_ms)| {
        let mut out = self::planned(job);
        out["since"] = json!(*since_ms as f64 / 1000.0);
        out
    });
    let last_round = outlook
        .last_round
        .map(|(ended_ms, errors)| json!({ "ended": ended_ms as f64 / 1000.0, "errors": errors }));
    let settings = compactor.plan_settings();
    axum_json(json!({ "status": "success", "data": {
        "runs": runs,
        "planned": planned,
        "working": working,
        "lastRound": last_round,
        "levels": settings.levels_ms.iter().map(|ms| *ms as f64 / 1000.0).collect::<Vec<_>>(),
        "grace": settings.grace_ms as f64 / 1000.0,
    } }))
}

fn planned(job: &JobOutlook) -> Value {
    json!({
        "tenant": job.tenant.as_str(),
        "why": job.why,
        "from": job.start_ms as f64 / 1000.0,
        "to": job.end_ms as f64 / 1000.0,
        "inputs": job.inputs,
        "inputBytes": job.input_bytes,
        "waitsUntil": job.waits_until_ms.map(|ms| ms as f64 / 1000.0),
    })
}

fn axum_json(body: Value) -> Response {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn run(of: &JobReport) -> Value {
    let mut out = json!({
        "tenant": of.tenant.as_str(),
        "ended": of.ended_ms as f64 / 1000.0,
        "seconds": of.took_ms as f64 / 1000.0,
        "why": of.why,
        "from": of.start_ms as f64 / 1000.0,
        "to": of.end_ms as f64 / 1000.0,
        "inputs": of.inputs,
    });
    match &of.result {
        Ok(r) => {
            out["outputs"] = json!(r.outputs);
            out["samplesRead"] = json!(r.samples_read);
            out["samplesWritten"] = json!(r.samples_written);
            out["bytesRead"] = json!(r.read_bytes);
            out["bytesWritten"] = json!(r.written_bytes);
            out["peakMemoryBytes"] = json!(r.peak_memory_bytes);
        }
        Err(why) => out["error"] = json!(why),
    }
    out
}
