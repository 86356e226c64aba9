//! The answer of whole samples: `prometheus.ReadResponse`.

use model::codec::varint::put_u64;
use model::histogram::{BucketSpan, CounterResetHint, Histogram};
use model::labels::Labels;
use model::source::SeriesColumns;

use crate::api::protobuf::{bytes, double, message, packed_doubles, varint, zigzag};

/// The series of one query, as they are on the wire.
#[derive(Debug, Default)]
pub struct QueryResult {
    fields: Vec<u8>,
}

impl QueryResult {
    pub fn bytes(&self) -> usize {
        self.fields.len()
    }

    /// Appends a series with all of its samples, staleness markers included.
    pub fn push(&mut self, series: &SeriesColumns) {
        message(&mut self.fields, 1, |out| {
            labels(out, 1, &series.labels);
            for (i, ts_ms) in series.ts_ms.iter().enumerate() {
                match histogram_at(series, i) {
                    None => message(out, 2, |out| {
                        double(out, 1, series.values[i]);
                        varint(out, 2, *ts_ms as u64);
                    }),
                    Some(h) => message(out, 4, |out| histogram(out, *ts_ms, h)),
                }
            }
        });
    }

    /// Puts the result behind those of the queries before.
    pub fn append_to(self, response: &mut Vec<u8>) {
        bytes(response, 1, &self.fields);
    }
}

/// The histogram that stands at a place, if one does.
pub fn histogram_at(series: &SeriesColumns, at: usize) -> Option<&Histogram> {
    series.histograms.as_ref()?.get(at)?.as_deref()
}

/// `Label` messages, in the order of their names.
pub fn labels(out: &mut Vec<u8>, number: u64, labels: &Labels) {
    for (name, value) in labels {
        message(out, number, |out| {
            bytes(out, 1, name.as_bytes());
            bytes(out, 2, value.as_bytes());
        });
    }
}

/// `prometheus.Histogram` with counts as floats, which is how they are stored.
fn histogram(out: &mut Vec<u8>, ts_ms: i64, h: &Histogram) {
    // A stale one is its sum alone.
    let empty = Histogram { sum: h.sum, ..Histogram::default() };
    let h = if h.is_stale() { &empty } else { h };
    double(out, 2, h.count);
    double(out, 3, h.sum);
    zigzag(out, 4, i64::from(h.schema));
    double(out, 5, h.zero_threshold);
    double(out, 7, h.zero_count);
    spans(out, 8, &h.negative_spans);
    packed_doubles(out, 10, &h.negative_buckets);
    spans(out, 11, &h.positive_spans);
    packed_doubles(out, 13, &h.positive_buckets);
    varint(out, 14, hint(h.counter_reset_hint));
    varint(out, 15, ts_ms as u64);
    packed_doubles(out, 16, h.custom_bounds());
}

fn hint(hint: CounterResetHint) -> u64 {
    match hint {
        // That it was not reset was said beside another sample than the reader may see before this one.
        CounterResetHint::Unknown | CounterResetHint::NotCounterReset => 0,
        CounterResetHint::CounterReset => 1,
        CounterResetHint::Gauge => 3,
    }
}

fn spans(out: &mut Vec<u8>, number: u64, spans: &[BucketSpan]) {
    for span in spans {
        let mut fields = Vec::with_capacity(8);
        zigzag(&mut fields, 1, i64::from(span.offset));
        varint(&mut fields, 2, u64::from(span.length));
        put_u64(out, number << 3 | 2);
        put_u64(out, fields.len() as u64);
        out.extend_from_slice(&fields);
    }
}
