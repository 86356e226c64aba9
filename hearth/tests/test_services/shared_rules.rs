//! Groups of rules that several processes share, and how far they are.

use serde_json::Value;

use super::Api;

/// How often each group is evaluated.
pub const INTERVAL_MS: i64 = 2000;

/// So many groups that every process has some, each of which records `expr` as its own series of `tick`; an
/// alert that waits; and a rule that reads what groups write that may run elsewhere.
pub fn rule_file(groups: usize, expr: &str) -> String {
    let mut text = "groups:\n- name: alerts\n  interval: 2s\n  rules:\n  - {alert: Waits, expr: 'vector(7)', for: 20s, annotations: {of: '{{ $value }}'}}\n".to_owned();
    for group in 0..groups {
        text += &format!(
            "- name: g{group}\n  interval: 2s\n  rules:\n  - {{record: tick, expr: '{expr}', labels: {{g: g{group}}}}}\n"
        );
    }
    text + "- name: sum\n  interval: 2s\n  rules:\n  - {record: 'tick:count', expr: 'count(tick)'}\n"
}

/// The alert, once a process shows it.
pub fn alert(api: &Api) -> Option<Value> {
    api.get("/api/v1/alerts", &[]).data()["alerts"].as_array().and_then(|all| all.first().cloned())
}
