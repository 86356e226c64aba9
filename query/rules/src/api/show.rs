//! `/api/v1/rules`, `/alerts` and `/alertmanagers`: groups as they stand, filtered and paged, in upstream's
//! JSON.

use std::sync::Arc;

use model::labels::Labels;
use model::matcher::Matcher;
use model::quote::quote;
use model::sample::Value;
use query::api::ApiError;
use query::api::parameters::form::Form;
use query::parse::{ParseOptions, parse_metric_selector};
use ring::digest::{SHA256, digest};
use serde::Serialize;

use crate::alert::{Alert, State};
use crate::file::RuleKind;
use crate::group::view::{GroupView, RuleView};
use crate::group::{CompiledRule, GroupKey};
use crate::notifier::Found;
use crate::template::format_float;

/// Upstream's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RuleDiscovery<'a> {
    groups: Vec<GroupJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupJson<'a> {
    name: &'a str,
    file: &'a str,
    rules: Vec<RuleJson<'a>>,
    interval: f64,
    limit: i64,
    evaluation_time: f64,
    last_evaluation: String,
    /// Not in upstream's answer: what the group costs, and how late it is.
    lag: f64,
    samples_read: u64,
    series_written: u64,
    slots_missed: u64,
    slots_filled: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum RuleJson<'a> {
    Alerting(AlertingJson<'a>),
    Recording(RecordingJson<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AlertingJson<'a> {
    state: &'static str,
    name: &'a str,
    query: &'a str,
    duration: f64,
    keep_firing_for: f64,
    labels: &'a std::collections::BTreeMap<String, String>,
    annotations: &'a std::collections::BTreeMap<String, String>,
    alerts: Option<Vec<AlertJson<'a>>>,
    health: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<&'a str>,
    evaluation_time: f64,
    last_evaluation: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordingJson<'a> {
    name: &'a str,
    query: &'a str,
    labels: &'a std::collections::BTreeMap<String, String>,
    health: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<&'a str>,
    evaluation_time: f64,
    last_evaluation: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AlertJson<'a> {
    labels: std::collections::BTreeMap<&'a str, &'a str>,
    annotations: &'a std::collections::BTreeMap<String, String>,
    state: &'static str,
    active_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_firing_since: Option<String>,
    value: String,
}

/// A moment as upstream writes it.
fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| NEVER.into(), |t| t.to_string())
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn alert_json(alert: &Alert) -> AlertJson<'_> {
    AlertJson {
        labels: alert.labels.iter().collect(),
        annotations: &alert.annotations,
        state: alert.state.as_str(),
        active_at: time(alert.active_at_ms),
        keep_firing_since: alert.keep_firing_since_ms.map(time),
        value: match &alert.value {
            Value::Float(v) => format_float(*v, 'e', None),
            Value::Histogram(h) => h.to_string(),
        },
    }
}

fn rule_json<'a>(rule: &'a CompiledRule, view: &'a RuleView, with_alerts: bool) -> RuleJson<'a> {
    let last_evaluation = view.last_evaluation_ms.map_or_else(|| NEVER.into(), time);
    match &rule.rule.kind {
        RuleKind::Record(name) => RuleJson::Recording(RecordingJson {
            name,
            query: &rule.query,
            labels: &rule.labels,
            health: view.health.as_str(),
            last_error: view.last_error.as_deref(),
            evaluation_time: view.evaluation_s,
            last_evaluation,
            kind: "recording",
        }),
        RuleKind::Alert { name, for_ms, keep_firing_for_ms, annotations } => {
            RuleJson::Alerting(AlertingJson {
                state: view.state.map_or("unknown", State::as_str),
                name,
                query: &rule.query,
                duration: seconds(*for_ms),
                keep_firing_for: seconds(*keep_firing_for_ms),
                labels: &rule.labels,
                annotations,
                alerts: with_alerts.then(|| view.alerts.iter().map(alert_json).collect()),
                health: view.health.as_str(),
                last_error: view.last_error.as_deref(),
                evaluation_time: view.evaluation_s,
                last_evaluation,
                kind: "alerting",
            })
        }
    }
}

/// By what a listing goes on after a page: a hash of the next group's file and name.
pub fn next_token(key: &GroupKey) -> String {
    let hash = digest(&SHA256, format!("{};{}", key.file, key.name).as_bytes());
    hash.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// What a request wants to see.
struct Filter {
    alerting: bool,
    recording: bool,
    with_alerts: bool,
    rule_names: Vec<String>,
    groups: Vec<String>,
    files: Vec<String>,
    matchers: Vec<Vec<Matcher>>,
    limit: usize,
    token: String,
}

impl Filter {
    fn read(form: &Form) -> Result<Filter, ApiError> {
        let kind = form.get("type").to_lowercase();
        if !matches!(kind.as_str(), "" | "alert" | "record") {
            return Err(ApiError::parameter("type", format!("not supported value {}", quote(&kind))));
        }
        let exclude_alerts = match form.get("exclude_alerts") {
            "" => false,
            text => go_bool(text).map_err(|e| {
                ApiError::parameter("exclude_alerts", format!("error converting exclude_alerts: {e}"))
            })?,
        };
        let all = |name: &str| form.all(name).map(str::to_owned).collect::<Vec<_>>();
        let parse = |text: &str| {
            parse_metric_selector(text, &ParseOptions::default())
                .map_err(|e| ApiError::bad_data(e.to_string()))
        };
        let token = form.get("group_next_token").to_owned();
        let limit = match form.get("group_limit") {
            "" if token.is_empty() => 0,
            "" => {
                let text = "group_limit needs to be present in order to paginate over the groups";
                return Err(ApiError::parameter("group_next_token", text));
            }
            text => match text.parse::<i64>() {
                Ok(n) if n > 0 => usize::try_from(n).unwrap_or(usize::MAX),
                Ok(_) => {
                    let text = "group_limit needs to be greater than 0";
                    return Err(ApiError::parameter("group_limit", text));
                }
                Err(_) => {
                    let why = format!(
                        "group_limit needs to be a valid number: strconv.ParseInt: parsing {}: invalid syntax",
                        quote(text)
                    );
                    return Err(ApiError::parameter("group_limit", why));
                }
            },
        };
        Ok(Filter {
            alerting: kind != "record",
            recording: kind != "alert",
            with_alerts: !exclude_alerts,
            rule_names: all("rule_name[]"),
            groups: all("rule_group[]"),
            files: all("file[]"),
            matchers: form.all("match[]").map(parse).collect::<Result<_, _>>()?,
            limit,
            token,
        })
    }

    fn wants_group(&self, key: &GroupKey) -> bool {
        let among = |list: &[String], name: &String| list.is_empty() || list.contains(name);
        among(&self.groups, &key.name) && among(&self.files, &key.file)
    }

    fn wants_rule(&self, rule: &CompiledRule) -> bool {
        let kind = if rule.rule.is_alert() { self.alerting } else { self.recording };
        let named = self.rule_names.is_empty() || self.rule_names.iter().any(|name| name == rule.rule.name());
        kind && named && {
            self.matchers.is_empty() || {
                let labels = Labels::from_pairs(&rule.labels);
                self.matchers.iter().any(|set| set.iter().all(|m| m.matches(labels.value(&m.name))))
            }
        }
    }
}

/// What Go's `strconv.ParseBool` takes.
fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quote(text))),
    }
}

/// The `data` of `/api/v1/rules`. The groups are one tenant's, ascending by file and name.
pub fn rules(groups: &[Arc<GroupView>], form: &Form) -> Result<String, ApiError> {
    let filter = Filter::read(form)?;
    let mut out: Vec<GroupJson<'_>> = Vec::new();
    let mut group_next_token = None;
    let mut found_token = filter.token.is_empty();
    for view in groups {
        let key = &view.group.key;
        if !found_token {
            if next_token(key) != filter.token {
                continue;
            }
            found_token = true;
        }
        if !filter.wants_group(key) {
            continue;
        }
        let rules: Vec<RuleJson<'_>> = view
            .group
            .rules
            .iter()
            .zip(&view.rules)
            .filter(|(rule, _)| filter.wants_rule(rule))
            .map(|(rule, state)| rule_json(rule, state, filter.with_alerts))
            .collect();
        if rules.is_empty() {
            continue;
        }
        if filter.limit > 0 && out.len() == filter.limit {
            group_next_token = Some(next_token(key));
            break;
        }
        out.push(GroupJson {
            name: &key.name,
            file: &key.file,
            rules,
            interval: seconds(view.group.interval_ms),
            limit: view.group.spec.limit,
            evaluation_time: view.evaluation_s,
            last_evaluation: view.last_evaluation_ms.map_or_else(|| NEVER.into(), time),
            lag: view.lag_s,
            samples_read: view.rules.iter().map(|r| r.samples_read).sum(),
            series_written: view.rules.iter().map(|r| r.series_written).sum(),
            slots_missed: view.missed,
            slots_filled: view.backfilled,
        });
    }
    if !found_token {
        let why = format!("invalid group_next_token '{}'. were rule groups changed?", filter.token);
        return Err(ApiError::parameter("group_next_token", why));
    }
    Ok(json(&RuleDiscovery { groups: out, group_next_token }))
}

/// The `data` of `/api/v1/alerts`.
pub fn alerts(groups: &[Arc<GroupView>]) -> String {
    #[derive(Serialize)]
    struct AlertDiscovery<'a> {
        alerts: Vec<AlertJson<'a>>,
    }
    let alerts = groups.iter().flat_map(|g| &g.rules).flat_map(|r| &r.alerts).map(alert_json).collect();
    json(&AlertDiscovery { alerts })
}

/// The `data` of `/api/v1/alertmanagers`.
pub fn alertmanagers(found: &Found) -> String {
    #[derive(Serialize)]
    struct Target<'a> {
        url: &'a str,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Discovery<'a> {
        active_alertmanagers: Vec<Target<'a>>,
        dropped_alertmanagers: Vec<Target<'a>>,
    }
    json(&Discovery {
        active_alertmanagers: found.active.iter().map(|url| Target { url }).collect(),
        dropped_alertmanagers: found.dropped.iter().map(|url| Target { url }).collect(),
    })
}

fn json(value: &impl Serialize) -> String {
    // Structs of texts and numbers cannot fail to be written; NaN becomes null.
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

#[cfg(test)]
mod tests;
