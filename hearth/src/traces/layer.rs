//! Notes the spans of traced requests as they open and close.

use std::fmt::Debug;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context as LayerContext;
use tracing_subscriber::registry::LookupSpan;

use super::{Attribute, Context, Queue, Span, new_span_id, now_ns};

/// The fields by which a request's span says that it is traced: the trace, and the client's span, both in
/// hexadecimal.
pub const TRACE_ID: &str = "trace_id";
pub const PARENT_ID: &str = "parent_id";

/// Puts what it notes of traced requests into a queue, from which they are sent.
pub struct TraceLayer {
    queue: Arc<Queue>,
    /// Whether work of this name that nobody asked for begins a trace.
    begins: fn(&str) -> Option<Context>,
}

impl TraceLayer {
    pub fn new(queue: Arc<Queue>, begins: fn(&str) -> Option<Context>) -> TraceLayer {
        TraceLayer { queue, begins }
    }
}

/// The fields of a span.
#[derive(Default)]
struct Fields {
    trace_id: Option<u128>,
    parent_id: u64,
    attributes: Vec<(&'static str, Attribute)>,
    error: Option<String>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Attribute) {
        match (field.name(), value) {
            (TRACE_ID, Attribute::Text(text)) => self.trace_id = u128::from_str_radix(&text, 16).ok(),
            (PARENT_ID, Attribute::Text(text)) => {
                self.parent_id = u64::from_str_radix(&text, 16).unwrap_or(0)
            }
            ("error", Attribute::Text(text)) => self.error = Some(text),
            (name, value) => self.attributes.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, Attribute::Text(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Attribute::Text(value.to_owned()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Attribute::Int(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Attribute::Int(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Attribute::Float(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Attribute::Bool(value));
    }
}

impl<S> Layer<S> for TraceLayer
where
    S: tracing::Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: LayerContext<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let parent = span.parent();
        let of_itself = if parent.is_none() { (self.begins)(span.name()) } else { None };
        let above = parent.and_then(|parent| {
            let extensions = parent.extensions();
            extensions.get::<Span>().map(|s| Context { trace_id: s.context.trace_id, parent_id: s.id })
        });
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let begins = fields.trace_id.map(|trace_id| Context { trace_id, parent_id: fields.parent_id });
        let Some(context) = above.or(begins).or(of_itself) else { return };
        span.extensions_mut().insert(Span {
            context,
            id: new_span_id(),
            name: span.name(),
            begun_ns: now_ns(),
            ended_ns: 0,
            attributes: fields.attributes,
            error: fields.error,
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: LayerContext<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        let Some(noted) = extensions.get_mut::<Span>() else { return };
        let mut fields = Fields::default();
        values.record(&mut fields);
        noted.attributes.append(&mut fields.attributes);
        noted.error = fields.error.or(noted.error.take());
    }

    fn on_close(&self, id: Id, context: LayerContext<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let noted = span.extensions_mut().remove::<Span>();
        if let Some(noted) = noted {
            self.queue.push(Span { ended_ns: now_ns(), ..noted });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn spans_below_a_traced_request_are_noted_with_their_fields() {
        let queue: Arc<Queue> = Arc::default();
        let begins = |name: &str| (name == "flush").then_some(Context { trace_id: 0xf1, parent_id: 0 });
        let subscriber = tracing_subscriber::registry().with(TraceLayer::new(queue.clone(), begins));
        tracing::subscriber::with_default(subscriber, || {
            let other = tracing::info_span!("request", id = 6);
            other.in_scope(|| drop(tracing::info_span!("query")));
            let request = tracing::info_span!("request", trace_id = "0af7", parent_id = "b7", path = "/x");
            request.in_scope(|| {
                let query = tracing::info_span!("query", tenant = "a", samples = tracing::field::Empty);
                query.record("samples", 7u64);
                query.in_scope(|| tracing::info_span!("evaluate", error = "too much").in_scope(|| ()));
            });
        });
        let spans = queue.take();
        let [evaluate, query, request] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!([evaluate.name, query.name, request.name], ["evaluate", "query", "request"]);
        assert!(spans.iter().all(|s| s.context.trace_id == 0x0af7 && s.ended_ns >= s.begun_ns));
        assert_eq!(request.context.parent_id, 0xb7);
        assert_eq!((query.context.parent_id, evaluate.context.parent_id), (request.id, query.id));
        assert_eq!(request.attributes, [("path", Attribute::Text("/x".into()))]);
        let attributes = [("tenant", Attribute::Text("a".into())), ("samples", Attribute::Int(7))];
        assert_eq!(query.attributes, attributes);
        assert_eq!(evaluate.error.as_deref(), Some("too much"));
    }

    #[test]
    fn work_that_nobody_asked_for_begins_a_trace_of_its_own() {
        let queue: Arc<Queue> = Arc::default();
        let begins = |name: &str| (name == "flush").then_some(Context { trace_id: 0xf1, parent_id: 0 });
        let subscriber = tracing_subscriber::registry().with(TraceLayer::new(queue.clone(), begins));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!("flush").in_scope(|| drop(tracing::info_span!("seal")));
            // Of a request that is not traced, and of no name that is.
            tracing::info_span!("request", id = 6).in_scope(|| drop(tracing::info_span!("flush")));
            drop(tracing::info_span!("seal"));
        });
        let spans = queue.take();
        let [seal, flush] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((seal.name, flush.name, seal.context.parent_id), ("seal", "flush", flush.id));
        assert_eq!((flush.context.trace_id, flush.context.parent_id), (0xf1, 0));
    }
}
