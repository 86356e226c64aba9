//! Answers of the API over groups that were evaluated once.

use model::clock::ManualClock;
use model::tenant::TenantId;
use query::engine::Engine;

use super::*;
use crate::alert::restore::Restore;
use crate::file::{FileOptions, parse};
use crate::group::environment::Environment;
use crate::group::memory::MemoryStorage;
use crate::group::runner::Runner;
use crate::group::side_by_side::SpareThreads;
use crate::group::{Alone, Defaults, Group, NotifyNobody};
use crate::metrics::Metrics;
use crate::template::SharedExternal;

const RULES: &str = "groups:
- name: b
  interval: 30s
  rules:
  - {record: r, expr: 'sum( up )', labels: {team: x}}
  - {alert: Down, expr: vector(1), for: 1m, keep_firing_for: 2m, labels: {severity: page}, annotations: {s: 'v {{ $value }}'}}
- name: a
  limit: 3
  rules:
  - {alert: Never, expr: up == 99}
- name: empty
";

fn views(evaluate: bool) -> Vec<Arc<GroupView>> {
    let clock = ManualClock::at(60_500);
    let env = Environment {
        engine: Engine::default(),
        storage: Arc::new(MemoryStorage::default()),
        notify: Arc::new(NotifyNobody),
        clock: Arc::new(clock),
        external: SharedExternal::default(),
        restore: Restore::default(),
        resend_delay_ms: 60_000,
        metrics: Metrics::default(),
        ownership: Arc::new(Alone),
        spare: SpareThreads::default(),
    };
    let mut specs = parse(RULES, &FileOptions::default()).unwrap();
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    let run = |spec| {
        let defaults = Defaults::default();
        let group = Group::new(TenantId::single(), "f.yml", spec, &defaults, &Default::default()).unwrap();
        let mut runner = Runner::new(Arc::new(group), 0, true);
        if evaluate {
            runner.evaluate(&env, 60_000_000_000);
        }
        Arc::new(runner.view())
    };
    specs.into_iter().map(run).collect()
}

fn answer(query: &str) -> serde_json::Value {
    let data = rules(&views(true), &Form::parse(query, b"")).unwrap();
    serde_json::from_str(&data).unwrap()
}

fn error(query: &str) -> String {
    rules(&views(false), &Form::parse(query, b"")).unwrap_err().text
}

#[test]
fn rules_are_shown_with_state_health_and_times() {
    let answer = answer("");
    let names: Vec<_> =
        answer["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b"], "ascending, and none without rules");
    let group = &answer["groups"][1];
    assert_eq!((group["file"].as_str(), group["interval"].as_f64()), (Some("f.yml"), Some(30.0)));
    assert_eq!(group["lastEvaluation"], "1970-01-01T00:01:00.5Z");
    let mut record = group["rules"][0].clone();
    record["evaluationTime"] = 0.into();
    assert_eq!(
        record,
        serde_json::json!({
            "name": "r", "query": "sum(up)", "labels": {"team": "x"}, "health": "ok",
            "evaluationTime": 0, "lastEvaluation": "1970-01-01T00:01:00.5Z", "type": "recording",
        })
    );
    let mut alert = group["rules"][1].clone();
    alert["evaluationTime"] = 0.into();
    assert_eq!(
        alert,
        serde_json::json!({
            "state": "pending", "name": "Down", "query": "vector(1)", "duration": 60.0, "keepFiringFor": 120.0,
            "labels": {"severity": "page"}, "annotations": {"s": "v {{ $value }}"},
            "alerts": [{
                "labels": {"alertname": "Down", "severity": "page"}, "annotations": {"s": "v 1"},
                "state": "pending", "activeAt": "1970-01-01T00:01:00Z", "value": "1e+00",
            }],
            "health": "ok", "evaluationTime": 0, "lastEvaluation": "1970-01-01T00:01:00.5Z", "type": "alerting",
        })
    );
    assert_eq!(answer["groups"][0]["rules"][0]["state"], "inactive");
    let data = rules(&views(false), &Form::parse("type=alert", b"")).unwrap();
    let before: serde_json::Value = serde_json::from_str(&data).unwrap();
    assert_eq!(before["groups"][0]["rules"][0]["state"], "unknown");
    assert_eq!(before["groups"][0]["lastEvaluation"], NEVER);
}

#[test]
fn rules_are_filtered_by_every_parameter() {
    let found = |query: &str| -> Vec<String> {
        let answer = answer(query);
        let groups = answer["groups"].as_array().unwrap();
        let rules = groups.iter().flat_map(|g| g["rules"].as_array().unwrap());
        rules.map(|r| r["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(found(""), ["Never", "r", "Down"]);
    assert_eq!(found("type=record"), ["r"]);
    assert_eq!(found("type=Alert"), ["Never", "Down"]);
    assert_eq!(found("rule_name[]=r&rule_name[]=Never"), ["Never", "r"]);
    assert_eq!(found("rule_group[]=b"), ["r", "Down"]);
    assert_eq!(found("file[]=g.yml"), Vec::<String>::new());
    assert_eq!(found("match[]={team=\"x\"}&match[]={severity=~\"p.*\"}"), ["r", "Down"]);
    assert!(answer("exclude_alerts=true")["groups"][1]["rules"][1]["alerts"].is_null());
}

#[test]
fn rules_are_paged_by_groups() {
    let first = answer("group_limit=1");
    assert_eq!(first["groups"][0]["name"], "a");
    let token = first["groupNextToken"].as_str().unwrap();
    assert_eq!(token.len(), 64);
    let second = answer(&format!("group_limit=1&group_next_token={token}"));
    assert_eq!(second["groups"][0]["name"], "b");
    assert!(second.get("groupNextToken").is_none());
    for (query, want) in [
        (
            "group_next_token=x",
            "invalid parameter \"group_next_token\": group_limit needs to be present in order to paginate over the groups",
        ),
        (
            "group_limit=1&group_next_token=x",
            "invalid parameter \"group_next_token\": invalid group_next_token 'x'. were rule groups changed?",
        ),
        ("group_limit=0", "invalid parameter \"group_limit\": group_limit needs to be greater than 0"),
        ("type=x", "invalid parameter \"type\": not supported value \"x\""),
        ("match[]={", "1:2: parse error: unexpected end of input inside braces"),
        (
            "exclude_alerts=perhaps",
            "invalid parameter \"exclude_alerts\": error converting exclude_alerts: strconv.ParseBool: parsing \"perhaps\": invalid syntax",
        ),
    ] {
        assert_eq!(error(query), want);
    }
}

#[test]
fn alerts_and_alertmanagers_are_listed() {
    let alerts: serde_json::Value = serde_json::from_str(&alerts(&views(true))).unwrap();
    assert_eq!(alerts["alerts"][0]["labels"]["alertname"], "Down");
    assert_eq!(alerts["alerts"].as_array().unwrap().len(), 1);
    let found = Found { active: vec!["http://a/api/v2/alerts".into()], dropped: vec![] };
    assert_eq!(
        alertmanagers(&found),
        r#"{"activeAlertmanagers":[{"url":"http://a/api/v2/alerts"}],"droppedAlertmanagers":[]}"#
    );
}
