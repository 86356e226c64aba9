//! Samples as `io.prometheus.client.MetricFamily` messages.

use model::histogram::{BucketSpan, CounterResetHint, Histogram};
use model::sample::Value;

use super::text::cumulative_buckets;
use crate::api::protobuf::{bytes, double, message, varint, zigzag};

/// What the messages call the kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Untyped = 3,
    Histogram = 4,
    GaugeHistogram = 5,
}

impl Kind {
    /// What a sample is exposed as: floats have no kind, because nobody knows it of a stored sample.
    pub fn of(value: &Value) -> Kind {
        match value {
            Value::Float(_) => Kind::Untyped,
            Value::Histogram(h) if h.counter_reset_hint == CounterResetHint::Gauge => Kind::GaugeHistogram,
            Value::Histogram(_) => Kind::Histogram,
        }
    }

    /// Its name in text.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Untyped => "untyped",
            Kind::Histogram => "histogram",
            Kind::GaugeHistogram => "gaugehistogram",
        }
    }
}

/// Name and kind, before a family's metrics.
pub fn family_head(out: &mut Vec<u8>, name: &str, kind: Kind) {
    bytes(out, 1, name.as_bytes());
    varint(out, 3, kind as u64);
}

/// One `Metric`, to be appended to its family.
pub fn metric(out: &mut Vec<u8>, labels: &[(String, String)], value: &Value, ts_ms: i64) {
    message(out, 4, |out| {
        for (name, value) in labels {
            message(out, 1, |out| {
                bytes(out, 1, name.as_bytes());
                bytes(out, 2, value.as_bytes());
            });
        }
        // In the order of the fields' numbers, as upstream writes them.
        if let Value::Float(v) = value {
            message(out, 5, |out| double(out, 1, *v));
        }
        varint(out, 6, ts_ms as u64);
        match value {
            Value::Float(_) => {}
            Value::Histogram(h) if h.uses_custom_buckets() => message(out, 7, |out| classic(out, h)),
            Value::Histogram(h) => message(out, 7, |out| native(out, h)),
        }
    });
}

fn classic(out: &mut Vec<u8>, h: &Histogram) {
    double(out, 2, h.sum);
    double(out, 4, h.count);
    for (le, cumulative) in cumulative_buckets(h) {
        message(out, 3, |out| {
            double(out, 2, le);
            double(out, 4, cumulative);
        });
    }
}

fn native(out: &mut Vec<u8>, h: &Histogram) {
    double(out, 2, h.sum);
    double(out, 4, h.count);
    // A schema of 0 is one, and its absence another thing.
    put_schema(out, h.schema);
    double(out, 6, h.zero_threshold);
    double(out, 8, h.zero_count);
    spans(out, 9, &h.negative_spans);
    h.negative_buckets.iter().for_each(|count| double(out, 11, *count));
    spans(out, 12, &h.positive_spans);
    h.positive_buckets.iter().for_each(|count| double(out, 14, *count));
}

fn put_schema(out: &mut Vec<u8>, schema: i32) {
    match schema {
        0 => out.extend_from_slice(&[5 << 3, 0]),
        schema => zigzag(out, 5, i64::from(schema)),
    }
}

fn spans(out: &mut Vec<u8>, number: u64, spans: &[BucketSpan]) {
    for span in spans {
        message(out, number, |out| {
            zigzag(out, 1, i64::from(span.offset));
            varint(out, 2, u64::from(span.length));
        });
    }
}
