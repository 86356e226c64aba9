//! What was asked of the admin API: by whom, for which tenant, and with which result.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use axum::http::{Method, StatusCode, Uri};
use model::clock::Clock;
use serde_json::json;

use crate::secrets::redacted;

/// Bytes of a query that are written down.
const MAX_QUERY_BYTES: usize = 1 << 10;

/// One call.
pub struct Entry {
    pub who: String,
    pub tenant: String,
    pub method: Method,
    pub path: String,
    /// Of the URL; a form is not looked into.
    pub query: String,
    pub status: StatusCode,
    pub request_id: String,
}

/// Where they go: to the log, and as a line of JSON to a file where one is set.
#[derive(Clone, Debug, Default)]
pub struct AuditLog {
    file: Option<PathBuf>,
}

impl AuditLog {
    pub fn to(file: Option<PathBuf>) -> AuditLog {
        AuditLog { file }
    }

    /// The query of a URL as it may be written down.
    pub fn query_of(uri: &Uri) -> String {
        let query: String = uri.query().unwrap_or("").chars().take(MAX_QUERY_BYTES).collect();
        match query.is_empty() {
            true => query,
            false => redacted(&format!("?{query}")),
        }
    }

    /// Writes an entry down. The file is opened each time: calls are few, and it may have been moved away.
    pub async fn write(&self, entry: Entry, clock: &dyn Clock) {
        let Entry { who, tenant, method, path, query, status, request_id } = entry;
        tracing::info!(
            target: "hearth::audit",
            who,
            tenant,
            %method,
            path,
            query,
            status = status.as_u16(),
            request_id,
            "admin call"
        );
        let Some(file) = self.file.clone() else { return };
        let line = json!({
            "time_ms": clock.now_ms(),
            "who": who,
            "tenant": tenant,
            "method": method.as_str(),
            "path": path,
            "query": query,
            "status": status.as_u16(),
            "request_id": request_id,
        });
        let written = tokio::task::spawn_blocking(move || {
            let mut file = OpenOptions::new().create(true).append(true).open(&file)?;
            // One write: lines of several calls do not mix.
            file.write_all(format!("{line}\n").as_bytes())
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!("auth.audit_file: an admin call could not be written down: {e}"),
            Err(e) => tracing::error!("auth.audit_file: writing ended unexpectedly: {e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::clock::ManualClock;

    use super::*;

    #[tokio::test]
    async fn audit_line_says_who_did_what_and_hides_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let log = AuditLog::to(Some(path.clone()));
        let uri: Uri = "/api/v1/admin/tsdb/delete_series?match[]=up&token=hunter2"
            .replace(['[', ']'], "")
            .parse()
            .unwrap();
        for status in [StatusCode::NO_CONTENT, StatusCode::FORBIDDEN] {
            let entry = Entry {
                who: "token ops".into(),
                tenant: "a".into(),
                method: Method::POST,
                path: uri.path().into(),
                query: AuditLog::query_of(&uri),
                status,
                request_id: "7".into(),
            };
            log.write(entry, &ManualClock::at(1_000)).await;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["who"], &lines[1]["status"]), (&json!("token ops"), &json!(403)));
        assert!(
            lines[0]["query"].as_str().unwrap().contains("match=up") && !text.contains("hunter2"),
            "{text}"
        );
    }
}
