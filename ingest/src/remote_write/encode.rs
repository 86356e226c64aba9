//! Remote-write 1.0 requests as Hearth sends them: field by field, floats and native histograms.

use model::histogram::{BucketSpan, CounterResetHint, Histogram};
use model::labels::Labels;
use model::sample::Value;

/// What the request's headers have to say.
pub const HEADERS: [(&str, &str); 3] = [
    ("Content-Type", "application/x-protobuf"),
    ("Content-Encoding", "snappy"),
    ("X-Prometheus-Remote-Write-Version", "0.1.0"),
];

/// A request that is being put together.
#[derive(Debug, Default)]
pub struct RequestWriter {
    message: Vec<u8>,
    series: Vec<u8>,
    part: Vec<u8>,
    samples: usize,
}

impl RequestWriter {
    /// Adds a sample of a series.
    pub fn sample(&mut self, labels: &Labels, ts_ms: i64, value: &Value) {
        self.series.clear();
        for (name, text) in labels {
            self.part.clear();
            bytes(&mut self.part, 1, name.as_bytes());
            bytes(&mut self.part, 2, text.as_bytes());
            bytes(&mut self.series, 1, &self.part);
        }
        self.part.clear();
        match value {
            Value::Float(v) => {
                double(&mut self.part, 1, *v);
                number(&mut self.part, 2, ts_ms as u64);
                bytes(&mut self.series, 2, &self.part);
            }
            Value::Histogram(h) => {
                histogram(&mut self.part, h, ts_ms);
                bytes(&mut self.series, 4, &self.part);
            }
        }
        bytes(&mut self.message, 1, &self.series);
        self.samples += 1;
    }

    /// Samples in it.
    pub fn len(&self) -> usize {
        self.samples
    }

    pub fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// Bytes of the message so far, before compression.
    pub fn size_bytes(&self) -> usize {
        self.message.len()
    }

    /// The body: the message in snappy's block format. Fails past 4 GiB.
    pub fn finish(self) -> Result<Vec<u8>, snap::Error> {
        snap::raw::Encoder::new().compress_vec(&self.message)
    }
}

fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn key(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint(out, u64::from(field << 3 | wire_type));
}

fn bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    key(out, field, 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn number(out: &mut Vec<u8>, field: u32, v: u64) {
    key(out, field, 0);
    varint(out, v);
}

fn zigzag(v: i32) -> u64 {
    u64::from((v << 1 ^ v >> 31) as u32)
}

fn double(out: &mut Vec<u8>, field: u32, v: f64) {
    key(out, field, 1);
    out.extend_from_slice(&v.to_le_bytes());
}

fn doubles(out: &mut Vec<u8>, field: u32, all: &[f64]) {
    if !all.is_empty() {
        key(out, field, 2);
        varint(out, 8 * all.len() as u64);
        all.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
    }
}

fn spans(out: &mut Vec<u8>, field: u32, all: &[BucketSpan]) {
    for span in all {
        let mut part = Vec::with_capacity(12);
        number(&mut part, 1, zigzag(span.offset));
        number(&mut part, 2, u64::from(span.length));
        bytes(out, field, &part);
    }
}

/// As a histogram of floats, which every histogram here is.
fn histogram(out: &mut Vec<u8>, h: &Histogram, ts_ms: i64) {
    double(out, 2, h.count);
    double(out, 3, h.sum);
    number(out, 4, zigzag(h.schema));
    double(out, 5, h.zero_threshold);
    double(out, 7, h.zero_count);
    spans(out, 8, &h.negative_spans);
    doubles(out, 10, &h.negative_buckets);
    spans(out, 11, &h.positive_spans);
    doubles(out, 13, &h.positive_buckets);
    let hint = match h.counter_reset_hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::CounterReset => 1,
        CounterResetHint::NotCounterReset => 2,
        CounterResetHint::Gauge => 3,
    };
    number(out, 14, hint);
    number(out, 15, ts_ms as u64);
    doubles(out, 16, h.custom_bounds());
}
