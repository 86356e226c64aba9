//! Spans to a collector: OTLP over HTTP, as JSON.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Attribute, Queue, Span};
use crate::error_chain::error_chain;
use crate::secrets::redacted;

/// How often it is looked whether spans wait.
const SEND_EVERY: Duration = Duration::from_secs(2);
/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Spans in one request.
const BATCH: usize = 1000;

/// The kinds of spans that there are here, by OTLP's numbers.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
/// The status of a span that failed.
const FAILED: u8 = 2;

/// Sends what gathers, for ever.
pub async fn export(queue: Arc<Queue>, endpoint: &str, instance: &str) {
    loop {
        tokio::time::sleep(SEND_EVERY).await;
        send_all(&queue, endpoint, instance).await;
    }
}

/// Sends what waits. What the collector does not take is let go of.
pub async fn send_all(queue: &Queue, endpoint: &str, instance: &str) {
    let spans = queue.take();
    if spans.is_empty() {
        return;
    }
    let dropped = queue.dropped.swap(0, Ordering::Relaxed);
    if dropped > 0 {
        tracing::warn!("{dropped} spans were let go of because too many waited");
    }
    let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build();
    let client = match client {
        Ok(client) => client,
        Err(e) => return tracing::warn!("traces cannot be sent: {}", error_chain(&e)),
    };
    for batch in spans.chunks(BATCH) {
        let body = message(batch, instance).to_string();
        let request = client.post(format!("{endpoint}/v1/traces"));
        let sent = request.header("Content-Type", "application/json").body(body).send().await;
        let refused = match sent {
            Ok(answer) if answer.status().is_success() => continue,
            Ok(answer) => answer.status().to_string(),
            Err(e) => error_chain(&e),
        };
        let (to, refused) = (redacted(endpoint), redacted(&refused));
        tracing::warn!("{} spans were not taken by {to}: {refused}", batch.len());
    }
}

fn attribute(name: &str, value: &Attribute) -> Value {
    let value = match value {
        Attribute::Text(text) => json!({ "stringValue": text }),
        // 64-bit integers are strings in protobuf's JSON.
        Attribute::Int(n) => json!({ "intValue": n.to_string() }),
        Attribute::Float(v) if v.is_finite() => json!({ "doubleValue": v }),
        Attribute::Float(v) => json!({ "stringValue": v.to_string() }),
        Attribute::Bool(b) => json!({ "boolValue": b }),
    };
    json!({ "key": name, "value": value })
}

fn span(span: &Span) -> Value {
    let mut out = json!({
        "traceId": format!("{:032x}", span.context.trace_id),
        "spanId": format!("{:016x}", span.id),
        "name": span.name,
        "kind": if span.name == "request" { SERVER } else { INTERNAL },
        "startTimeUnixNano": span.begun_ns.to_string(),
        "endTimeUnixNano": span.ended_ns.to_string(),
        "attributes": span.attributes.iter().map(|(name, value)| attribute(name, value)).collect::<Vec<_>>(),
    });
    if span.context.parent_id != 0 {
        out["parentSpanId"] = format!("{:016x}", span.context.parent_id).into();
    }
    if let Some(error) = &span.error {
        out["status"] = json!({ "code": FAILED, "message": error });
    }
    out
}

/// An `ExportTraceServiceRequest`.
fn message(spans: &[Span], instance: &str) -> Value {
    let text = |key: &str, value: &str| attribute(key, &Attribute::Text(value.to_owned()));
    json!({
        "resourceSpans": [{
            "resource": {
                "attributes": [
                    text("service.name", "hearth"),
                    text("service.version", env!("CARGO_PKG_VERSION")),
                    text("service.instance.id", instance),
                ],
            },
            "scopeSpans": [{
                "scope": { "name": "hearth" },
                "spans": spans.iter().map(span).collect::<Vec<_>>(),
            }],
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::Context;

    #[test]
    fn spans_are_written_as_otlp_has_them_in_json() {
        let failed = Span {
            context: Context { trace_id: 0xaf7, parent_id: 0xb7 },
            id: 0x1f,
            name: "query",
            begun_ns: 1_795_000_000_000_000_001,
            ended_ns: 1_795_000_000_000_000_005,
            attributes: vec![("samples", Attribute::Int(7)), ("took_s", Attribute::Float(0.5))],
            error: Some("too much".into()),
        };
        let message = message(&[failed], "127.0.0.1:9494");
        let resource = &message["resourceSpans"][0];
        assert_eq!(
            resource["resource"]["attributes"][0],
            json!({"key": "service.name", "value": {"stringValue": "hearth"}})
        );
        assert_eq!(
            resource["scopeSpans"][0]["spans"][0],
            json!({
                "traceId": "00000000000000000000000000000af7",
                "spanId": "000000000000001f",
                "parentSpanId": "00000000000000b7",
                "name": "query",
                "kind": 1,
                "startTimeUnixNano": "1795000000000000001",
                "endTimeUnixNano": "1795000000000000005",
                "attributes": [
                    {"key": "samples", "value": {"intValue": "7"}},
                    {"key": "took_s", "value": {"doubleValue": 0.5}},
                ],
                "status": {"code": 2, "message": "too much"},
            })
        );
    }
}
