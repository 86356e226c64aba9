//! An alert as Alertmanager's API v2 takes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::labels::Labels;
use serde::Serialize;

use crate::alert::Outgoing;
use crate::links::table_link;
use crate::relabel::{self, Relabel};
use crate::template::External;

/// How long a resolved alert is worth telling.
const RESOLVED_VALID_MS: i64 = 15 * 60_000;

/// An alert that is ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub labels: Labels,
    /// An object of the list that the API takes.
    pub json: String,
    /// After this nobody needs it.
    pub valid_until_ms: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    labels: BTreeMap<&'a str, &'a str>,
    annotations: &'a BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
}

/// `2026-01-02T03:04:05.678Z`.
pub fn rfc3339_ms(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(at) => at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        Err(_) => "0001-01-01T00:00:00.000Z".into(),
    }
}

/// The labels that an alert goes out with; `None` where a step drops it.
pub fn outgoing_labels(labels: &Labels, external: &External, steps: &[Relabel]) -> Option<Labels> {
    let mut b = labels.to_builder();
    for (name, value) in external.labels.iter() {
        if b.get(name).is_none() {
            b.set(name, value);
        }
    }
    relabel::apply(steps, &b.build())
}

impl Message {
    /// An alert under labels that were changed on the way out. `expr` is what its page shows.
    pub fn new(alert: &Outgoing, labels: Labels, external: &External, expr: &str) -> Arc<Message> {
        let generator_url = format!("{}{}", external.url, table_link(expr));
        let json = Json {
            labels: labels.iter().collect(),
            annotations: &alert.annotations,
            starts_at: rfc3339_ms(alert.starts_at_ms),
            ends_at: rfc3339_ms(alert.ends_at_ms),
            generator_url: &generator_url,
        };
        // Texts and maps of texts cannot fail to be written.
        let json = serde_json::to_string(&json).unwrap_or_default();
        let valid_until_ms = match alert.resolved {
            true => alert.ends_at_ms + RESOLVED_VALID_MS,
            false => alert.ends_at_ms,
        };
        Arc::new(Message { labels, json, valid_until_ms })
    }
}

/// The body of a request.
pub fn body(batch: &[Arc<Message>]) -> String {
    let mut out = String::with_capacity(2 + batch.iter().map(|m| m.json.len() + 1).sum::<usize>());
    out.push('[');
    for (at, message) in batch.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&message.json);
    }
    out.push(']');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alert_goes_out_as_the_api_takes_it() {
        let external = External {
            labels: Arc::new([("cluster", "eu"), ("team", "x")].map(|(k, v)| (k.into(), v.into())).into()),
            url: "http://h:9494".into(),
        };
        let alert = Outgoing {
            labels: Labels::from_pairs([("alertname", "A"), ("team", "own")]),
            annotations: [("summary".to_string(), "it \"is\"".to_string())].into(),
            starts_at_ms: 1_000,
            ends_at_ms: 61_500,
            resolved: false,
        };
        let labels = outgoing_labels(&alert.labels, &external, &[]).unwrap();
        let message = Message::new(&alert, labels, &external, "up == 0");
        assert_eq!(
            body(&[message.clone(), message.clone()]),
            format!(
                "[{0},{0}]",
                r#"{"labels":{"alertname":"A","cluster":"eu","team":"own"},"annotations":{"summary":"it \"is\""},"startsAt":"1970-01-01T00:00:01.000Z","endsAt":"1970-01-01T00:01:01.500Z","generatorURL":"http://h:9494/graph?g0.expr=up+%3D%3D+0&g0.tab=1"}"#
            )
        );
        assert_eq!(message.valid_until_ms, 61_500);
    }
}
