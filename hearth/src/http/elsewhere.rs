//! Paths that another role answers: a sentence says which.

use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::config::value::Role;

/// Paths by what they begin with, what a process does that answers them, and the roles that do. The first
/// that fits decides.
const PATHS: [(&[&str], &str, &[Role]); 4] = [
    (
        &["/api/v1/write", "/api/v1/push", "/api/v1/otlp/", "/-/flush"],
        "takes writes",
        &[Role::Ingest, Role::All],
    ),
    (
        &["/api/v1/rules", "/api/v1/alerts", "/api/v1/alertmanagers", "/config/v1/rules", "/api/prom/rules"],
        "evaluates rules",
        &[Role::Rules, Role::All],
    ),
    (&["/api/v1/status/compaction"], "compacts", &[Role::Compact, Role::All]),
    (&["/api/v1/", "/federate"], "answers queries", &[Role::Query, Role::Rules, Role::All]),
];

/// What a process of a role says of a path that it does not answer; `None` where no other role does.
fn not_here(role: Role, path: &str) -> Option<String> {
    let (_, does, roles) = PATHS.iter().find(|(starts, ..)| starts.iter().any(|s| path.starts_with(s)))?;
    if roles.contains(&role) || role == Role::All {
        return None;
    }
    let mut roles: Vec<String> = roles.iter().map(|role| format!("`{role}`")).collect();
    let last = roles.pop().unwrap_or_default();
    Some(format!(
        "this process has the role `{role}`, and {path} is for one that {does}: ask a process of the role {} or {last}",
        roles.join(", ")
    ))
}

/// The answer to such a path.
pub fn answer(role: Role, uri: &Uri) -> Option<Response> {
    let text = not_here(role, uri.path())?;
    let body = serde_json::json!({ "status": "error", "errorType": "not_found", "error": text });
    let head = [(header::CONTENT_TYPE, "application/json")];
    Some((StatusCode::NOT_FOUND, head, body.to_string()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_of_another_role_names_that_role() {
        let told = |role, path| not_here(role, path).unwrap_or_default();
        assert!(told(Role::Query, "/api/v1/write").contains("role `ingest` or `all`"));
        assert!(told(Role::Ingest, "/api/v1/query_range").contains("role `query`, `rules` or `all`"));
        assert!(told(Role::Query, "/api/v1/rules").contains("role `rules` or `all`"));
        assert!(told(Role::Compact, "/api/v1/rules").contains("evaluates rules"));
        assert_eq!(not_here(Role::Query, "/favicon.ico"), None);
        assert_eq!(not_here(Role::Query, "/api/v1/nothing"), None);
        assert_eq!(not_here(Role::All, "/api/v1/nothing"), None);
    }
}
