//! Traces of requests for an OpenTelemetry collector. The life of a trace:
//!
//! 1. A request comes in, with a `traceparent` header of its client's trace or without, and [`begin`] says
//!    whether it is traced.
//! 2. Its span, and those that are opened below it (`query`, `evaluate`, `write`, `decode`, `commit`), are
//!    noted by a layer of the process' subscriber ([`layer`]) and put into a queue when they close. What the
//!    process does unasked (evaluating rules, sealing, flushing, compacting) begins traces of its own.
//! 3. A task sends what has gathered every few seconds to the collector ([`otlp`]). What the queue cannot
//!    hold is let go of: traces must never hold up what they tell about.
//!
//! The exporter is 300 lines over the HTTP client and the JSON that are here anyway.

pub mod layer;
pub mod otlp;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use axum::http::HeaderMap;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use ulid::Ulid;

use crate::config::Settings;

/// Spans that may wait to be sent.
const MOST_WAITING: usize = 20_000;

/// Paths whose requests are traced only where their client wants it: they come every few seconds.
const QUIET: [&str; 3] = ["/-/healthy", "/-/ready", "/metrics"];

/// Spans of work that no request asks for.
const UNASKED: [&str; 4] = ["compact", "evaluate_group", "flush", "seal"];

/// Of this process, if it traces.
static TRACES: OnceLock<Traces> = OnceLock::new();

struct Traces {
    queue: Arc<Queue>,
    endpoint: String,
    one_of: u64,
    count: AtomicU64,
}

/// What a request's span is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    pub trace_id: u128,
    /// The client's span; 0 where there is none.
    pub parent_id: u64,
}

/// The label of an exemplar that leads to a trace.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TraceLabel {
    pub trace_id: String,
}

impl From<Context> for TraceLabel {
    fn from(context: Context) -> TraceLabel {
        TraceLabel { trace_id: format!("{:032x}", context.trace_id) }
    }
}

/// A span that has closed. Times are nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub context: Context,
    pub id: u64,
    pub name: &'static str,
    pub begun_ns: u64,
    pub ended_ns: u64,
    pub attributes: Vec<(&'static str, Attribute)>,
    pub error: Option<String>,
}

/// A value of a span's field.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
}

/// Spans on their way to the collector.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Mutex<Vec<Span>>,
    dropped: AtomicU64,
}

impl Queue {
    fn push(&self, span: Span) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < MOST_WAITING {
            waiting.push(span);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take(&self) -> Vec<Span> {
        std::mem::take(&mut self.waiting.lock())
    }
}

/// The layer that notes spans, where the settings name a collector.
pub fn start(settings: &Settings) -> Option<layer::TraceLayer> {
    let endpoint = settings.traces_endpoint.with_secrets().trim_end_matches('/').to_owned();
    if endpoint.is_empty() {
        return None;
    }
    let one_of = settings.traces_one_of.get() as u64;
    let traces = TRACES.get_or_init(|| Traces {
        queue: Arc::default(),
        endpoint,
        one_of: one_of.max(1),
        count: AtomicU64::new(0),
    });
    Some(layer::TraceLayer::new(traces.queue.clone(), begin_unasked))
}

/// Sends spans until the process ends; does nothing where there is no collector. `instance` tells processes
/// apart.
pub async fn export(instance: String) {
    if let Some(traces) = TRACES.get() {
        otlp::export(traces.queue.clone(), &traces.endpoint, &instance).await;
    }
}

/// Sends what still waits.
pub async fn flush(instance: &str) {
    if let Some(traces) = TRACES.get() {
        otlp::send_all(&traces.queue, &traces.endpoint, instance).await;
    }
}

/// Whether a request is traced, and as a part of what.
pub fn begin(path: &str, headers: &HeaderMap) -> Option<Context> {
    let traces = TRACES.get()?;
    let given = headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(parse_parent);
    match given {
        Some((context, true)) => Some(context),
        // Its client has decided that this one is not looked at.
        Some((_, false)) => None,
        None if QUIET.contains(&path) => None,
        None => traces.begin(),
    }
}

/// Whether work of this name that nobody asked for is traced.
fn begin_unasked(name: &str) -> Option<Context> {
    if UNASKED.contains(&name) { TRACES.get()?.begin() } else { None }
}

impl Traces {
    /// One of so many begins a trace.
    fn begin(&self) -> Option<Context> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        number.is_multiple_of(self.one_of).then(|| Context { trace_id: new_trace_id(), parent_id: 0 })
    }
}

/// `00-<trace>-<span>-<flags>` ([W3C's trace context](https://www.w3.org/TR/trace-context/)), and whether it
/// is sampled. Later versions may have more behind it.
fn parse_parent(text: &str) -> Option<(Context, bool)> {
    let mut parts = text.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, digits: usize| -> Option<u128> {
        let right = part.len() == digits && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        right.then(|| u128::from_str_radix(part, 16).ok()).flatten()
    };
    let version = hex(version, 2).filter(|version| *version != 0xff)?;
    if version == 0 && parts.next().is_some() {
        return None;
    }
    let trace_id = hex(trace, 32).filter(|id| *id != 0)?;
    let parent_id = u64::try_from(hex(span, 16)?).ok().filter(|id| *id != 0)?;
    Some((Context { trace_id, parent_id }, hex(flags, 2)? & 1 == 1))
}

/// Random bits that are not all zero.
fn new_span_id() -> u64 {
    (Ulid::new().random() as u64).max(1)
}

fn new_trace_id() -> u128 {
    u128::from(new_span_id()) << 64 | u128::from(new_span_id())
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_of_a_trace_is_read_as_w3c_writes_it() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = Context { trace_id: 0x0af7651916cd43dd8448eb211c80319c, parent_id: 0xb7ad6b7169203331 };
        assert_eq!(parse_parent(text), Some((context, true)));
        assert_eq!(parse_parent(&text.replace("-01", "-00")), Some((context, false)));
        assert_eq!(parse_parent(&format!("{}-more", text.replacen("00", "cc", 1))), Some((context, true)));
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_eq!(parse_parent(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn queue_of_spans_is_bounded() {
        let queue = Queue::default();
        let span = Span {
            context: Context { trace_id: 1, parent_id: 0 },
            id: 2,
            name: "query",
            begun_ns: 0,
            ended_ns: 1,
            attributes: Vec::new(),
            error: None,
        };
        for _ in 0..MOST_WAITING + 3 {
            queue.push(span.clone());
        }
        assert_eq!((queue.take().len(), queue.dropped.load(Ordering::Relaxed)), (MOST_WAITING, 3));
        assert!(queue.take().is_empty());
    }
}
