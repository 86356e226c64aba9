//! What memory is for, by kind: what each part of the process counts of itself anyway, as a profile.
//!
//! Not by the stacks that allocated it, as in Go: see `decisions/profiles-over-http.md`.

use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::format::{Frame, Kind, Profile};
use super::{download, refusal};
use crate::http::Server;

/// Metrics that count memory, and what it is for, from the particular to the general.
const COUNTED: [(&str, &[&str]); 10] = [
    ("hearth_tsdb_head_symbol_bytes", &["label strings", "head"]),
    ("hearth_tsdb_head_series_bytes", &["series", "head"]),
    ("hearth_tsdb_head_postings_bytes", &["index", "head"]),
    ("hearth_tsdb_head_chunk_bytes", &["chunks", "head"]),
    ("hearth_tsdb_head_out_of_order_bytes", &["samples out of order", "head"]),
    ("hearth_tsdb_head_metadata_bytes", &["metadata", "head"]),
    ("hearth_tsdb_exemplar_bytes_in_memory", &["exemplars"]),
    ("hearth_ingest_in_flight_bytes", &["writes in flight", "ingest"]),
    ("hearth_ingest_series_cache_bytes", &["series cache", "ingest"]),
    ("hearth_query_memory_bytes", &["queries"]),
];
/// What the allocator says that is in use, and what it holds of the machine's.
const ALLOCATED: &str = "hearth_heap_allocated_bytes";
const RESIDENT: &str = "hearth_heap_resident_bytes";

/// `GET /debug/pprof/heap`: all of the allocator's memory, what is not counted by kind among it.
pub async fn profile(State(server): State<Server>) -> Response {
    let metrics = server.metrics_text().await;
    match message(&metrics).packed() {
        Ok(packed) => download(packed, "heap"),
        Err(e) => {
            let why = format!("the profile cannot be packed: {e}");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, why)
        }
    }
}

/// The profile of what metrics (OpenMetrics text) say.
fn message(metrics: &str) -> Profile {
    let kinds = [Kind { name: "inuse_space", unit: "bytes" }];
    let mut profile = Profile::new(&kinds, SystemTime::now(), Duration::ZERO, 1);
    let rows = by_kind(|name| value(metrics, name));
    for (path, bytes) in rows {
        let frame = |name: &&str| Frame { function: (*name).to_owned(), file: String::new(), line: 0 };
        profile.add(path.iter().chain(&["hearth"]).map(frame), &[bytes], None);
    }
    profile
}

/// Bytes of each kind; `metric` gives the value of a metric, where there is one.
fn by_kind(metric: impl Fn(&str) -> Option<i64>) -> Vec<(&'static [&'static str], i64)> {
    let counted = COUNTED.iter().filter_map(|(name, path)| Some((*path, metric(name)?)));
    let mut rows: Vec<(&'static [&'static str], i64)> = counted.filter(|(_, bytes)| *bytes > 0).collect();
    let sum: i64 = rows.iter().map(|(_, bytes)| bytes).sum();
    if let Some(allocated) = metric(ALLOCATED) {
        rows.push((&["caches, buffers and all else"], (allocated - sum).max(0)));
        let free = metric(RESIDENT).unwrap_or(0) - allocated.max(sum);
        rows.push((&["free, kept by the allocator"], free.max(0)));
    }
    rows
}

/// The value of a metric without labels.
fn value(metrics: &str, name: &str) -> Option<i64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.split(' ').next()?.parse::<f64>().ok().map(|bytes| bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heap_by_kind_adds_up_to_what_the_allocator_holds() {
        let metrics = "# TYPE hearth_tsdb_head_chunk_bytes gauge\nhearth_tsdb_head_chunk_bytes 70\n\
                       hearth_query_memory_bytes 20\nhearth_heap_allocated_bytes 100.0\n\
                       hearth_heap_resident_bytes 130\n";
        let rows = by_kind(|name| value(metrics, name));
        assert_eq!(rows.iter().map(|(_, bytes)| bytes).sum::<i64>(), 130);
        assert_eq!(rows[0], (&["chunks", "head"][..], 70));
        assert_eq!(rows[2..].iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>(), [10, 30]);
        // Counts are of different moments: nothing becomes less than nothing.
        assert!(
            by_kind(|name| (name == ALLOCATED || name.contains("chunk")).then_some(5))
                .iter()
                .all(|r| r.1 >= 0)
        );
        assert!(by_kind(|_| None).is_empty());
    }
}
