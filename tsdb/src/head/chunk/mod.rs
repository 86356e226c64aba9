//! Compressed runs of samples as the head keeps them in memory; append-only, no I/O, private to one process's
//! life.
//!
//! Three encodings: [`float`] packs bits (delta-of-delta timestamps, XOR values, after Pelkonen et al.,
//! "Gorilla", VLDB 2015); [`histogram`] packs whole histograms as differences to the one before; [`packed`]
//! is what floats become when their chunk is full.

pub mod float;
pub mod histogram;
pub mod packed;
mod segment;
mod times;

use std::sync::Arc;

use bytes::Bytes;

use model::histogram::Histogram;
use model::sample::Value;
pub use times::DecodedTimes;

/// Samples after which a chunk is closed: long enough to compress, short enough to skip by time.
pub const MAX_SAMPLES: u16 = 128;

/// A chunk that will not change any more.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub kind: Kind,
    /// Samples inside, 1 to [`MAX_SAMPLES`].
    pub count: u16,
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    pub bytes: Bytes,
    /// The timestamps of a packed chunk.
    pub times: Option<Arc<[u8]>>,
}

/// How a chunk's bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Floats without start timestamps.
    Float,
    /// Floats, each with a start timestamp (0 = unknown).
    FloatWithStart,
    /// Histograms, each with a start timestamp (0 = unknown).
    Histogram,
    /// Floats without start timestamps, times apart.
    Packed,
}

/// Columns that chunks are decoded into; all of one length, histogram and start columns filled only once one
/// is seen.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    pub ts_ms: Vec<i64>,
    pub values: Vec<f64>,
    pub histograms: Vec<Option<Arc<Histogram>>>,
    pub start_ts_ms: Vec<i64>,
}

impl Columns {
    pub fn clear(&mut self) {
        self.ts_ms.clear();
        self.values.clear();
        self.histograms.clear();
        self.start_ts_ms.clear();
    }

    pub fn len(&self) -> usize {
        self.ts_ms.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ts_ms.is_empty()
    }

    #[inline]
    pub fn push_float(&mut self, t: i64, v: f64, start: i64) {
        if !self.histograms.is_empty() {
            self.histograms.push(None);
        }
        self.push_start(start);
        self.ts_ms.push(t);
        self.values.push(v);
    }

    pub fn push_histogram(&mut self, t: i64, h: Arc<Histogram>, start: i64) {
        self.histograms.resize(self.ts_ms.len(), None);
        self.push_start(start);
        self.ts_ms.push(t);
        self.values.push(h.sum);
        self.histograms.push(Some(h));
    }

    pub fn push(&mut self, t: i64, v: Value, start: i64) {
        match v {
            Value::Float(v) => self.push_float(t, v, start),
            Value::Histogram(h) => self.push_histogram(t, h, start),
        }
    }

    #[inline]
    fn push_start(&mut self, start: i64) {
        if start != 0 || !self.start_ts_ms.is_empty() {
            self.start_ts_ms.resize(self.ts_ms.len(), 0);
            self.start_ts_ms.push(start);
        }
    }

    pub fn value(&self, i: usize) -> Value {
        match self.histograms.get(i) {
            Some(Some(h)) => Value::Histogram(h.clone()),
            _ => Value::Float(self.values[i]),
        }
    }

    pub fn start(&self, i: usize) -> i64 {
        self.start_ts_ms.get(i).copied().unwrap_or(0)
    }

    /// Adds all rows of other columns.
    pub fn append(&mut self, mut other: Columns) {
        let (before, all) = (self.len(), self.len() + other.len());
        if !self.histograms.is_empty() || !other.histograms.is_empty() {
            self.histograms.resize(before, None);
            self.histograms.append(&mut other.histograms);
            self.histograms.resize(all, None);
        }
        if !self.start_ts_ms.is_empty() || !other.start_ts_ms.is_empty() {
            self.start_ts_ms.resize(before, 0);
            self.start_ts_ms.append(&mut other.start_ts_ms);
            self.start_ts_ms.resize(all, 0);
        }
        self.ts_ms.append(&mut other.ts_ms);
        self.values.append(&mut other.values);
    }

    /// Adds one row of another set of columns.
    pub fn push_row_of(&mut self, other: &Columns, i: usize) {
        self.push(other.ts_ms[i], other.value(i), other.start(i));
    }
}

impl Chunk {
    /// The same chunk, its bytes where those of closed chunks are.
    #[must_use]
    pub fn kept(self) -> Chunk {
        Chunk { bytes: segment::keep(&self.bytes), ..self }
    }

    /// Appends the samples within `min_t_ms..=max_t_ms` to the columns.
    pub fn decode(&self, min_t_ms: i64, max_t_ms: i64, out: &mut Columns) {
        self.decode_beside(None, min_t_ms, max_t_ms, out);
    }

    /// The same where `times` may know the timestamps, which other chunks have too.
    pub fn decode_beside(
        &self,
        times: Option<&DecodedTimes>,
        min_t_ms: i64,
        max_t_ms: i64,
        out: &mut Columns,
    ) {
        if self.max_t_ms < min_t_ms || self.min_t_ms > max_t_ms {
            return;
        }
        match self.kind {
            Kind::Float | Kind::FloatWithStart => float::decode(
                &self.bytes,
                self.count,
                self.min_t_ms,
                self.kind == Kind::FloatWithStart,
                (min_t_ms, max_t_ms),
                out,
            ),
            Kind::Packed => {
                let Some(encoded) = &self.times else { return };
                if let Some(times) = times {
                    let ts_ms = times.get(encoded, self.count);
                    return packed::decode(&ts_ms, &self.bytes, min_t_ms, max_t_ms, out);
                }
                let mut ts_ms = Vec::new();
                float::decode_times(encoded, self.count, &mut ts_ms);
                packed::decode(&ts_ms, &self.bytes, min_t_ms, max_t_ms, out);
            }
            Kind::Histogram => histogram::decode(&self.bytes, self.count, min_t_ms, max_t_ms, out),
        }
    }
}

/// A chunk that still grows. What few series have is behind a pointer.
#[derive(Debug)]
pub enum OpenChunk {
    Float(float::Encoder),
    FloatWithStart(Box<float::EncoderWithStart>),
    Histogram(Box<histogram::Encoder>),
}

impl OpenChunk {
    pub fn count(&self) -> u16 {
        match self {
            OpenChunk::Float(e) => e.count(),
            OpenChunk::FloatWithStart(e) => e.floats.count(),
            OpenChunk::Histogram(e) => e.count(),
        }
    }

    pub fn first_t_ms(&self) -> i64 {
        match self {
            OpenChunk::Float(e) => e.first_t_ms(),
            OpenChunk::FloatWithStart(e) => e.floats.first_t_ms(),
            OpenChunk::Histogram(e) => e.first_t_ms(),
        }
    }

    pub fn last_t_ms(&self) -> i64 {
        match self {
            OpenChunk::Float(e) => e.last_t_ms(),
            OpenChunk::FloatWithStart(e) => e.floats.last_t_ms(),
            OpenChunk::Histogram(e) => e.last_t_ms(),
        }
    }

    /// Whether the newest sample is this one, bit for bit, with this start timestamp.
    pub fn last_is(&self, value: &Value, start: i64) -> bool {
        match (self, value) {
            (OpenChunk::Float(e), Value::Float(v)) => start == 0 && e.last_value().to_bits() == v.to_bits(),
            (OpenChunk::FloatWithStart(e), Value::Float(v)) => {
                e.last_start_ms() == start && e.floats.last_value().to_bits() == v.to_bits()
            }
            (OpenChunk::Histogram(e), Value::Histogram(h)) => {
                e.last_start_ms() == start && histogram::same(e.last(), h)
            }
            _ => false,
        }
    }

    /// Appends a sample newer than all in it. `false`: it does not belong in this chunk (full, or of another
    /// kind), begin a new one.
    #[must_use]
    pub fn push(&mut self, t: i64, value: &Value, start: i64) -> bool {
        if self.count() >= MAX_SAMPLES {
            return false;
        }
        match (self, value) {
            (OpenChunk::Float(e), Value::Float(v)) if start == 0 => e.push(t, *v),
            (OpenChunk::FloatWithStart(e), Value::Float(v)) => e.push(t, *v, start),
            (OpenChunk::Histogram(e), Value::Histogram(h)) => e.push(t, h, start),
            _ => return false,
        }
        true
    }

    /// A new chunk with its first sample.
    pub fn begin(t: i64, value: &Value, start: i64) -> Self {
        match value {
            Value::Float(v) if start == 0 => {
                let mut e = float::Encoder::default();
                e.push(t, *v);
                OpenChunk::Float(e)
            }
            Value::Float(v) => {
                let mut e = Box::<float::EncoderWithStart>::default();
                e.push(t, *v, start);
                OpenChunk::FloatWithStart(e)
            }
            Value::Histogram(h) => {
                let mut e = histogram::Encoder::default();
                e.push(t, h, start);
                OpenChunk::Histogram(Box::new(e))
            }
        }
    }

    /// The chunk as it is now.
    pub fn snapshot(&self) -> Chunk {
        let (kind, bytes) = match self {
            OpenChunk::Float(e) => (Kind::Float, e.to_bytes().into()),
            OpenChunk::FloatWithStart(e) => (Kind::FloatWithStart, e.floats.to_bytes().into()),
            OpenChunk::Histogram(e) => (Kind::Histogram, Bytes::copy_from_slice(e.bytes())),
        };
        Chunk {
            kind,
            count: self.count(),
            min_t_ms: self.first_t_ms(),
            max_t_ms: self.last_t_ms(),
            bytes,
            times: None,
        }
    }

    /// The chunk as it stays: packed where that is smaller. `share` makes one of equal timestamps.
    pub fn close(&self, share: impl FnOnce(Vec<u8>) -> Arc<[u8]>) -> Chunk {
        let plain = self.snapshot();
        if plain.kind != Kind::Float {
            return plain.kept();
        }
        let mut columns = Columns::default();
        plain.decode(i64::MIN, i64::MAX, &mut columns);
        match packed::pack(&columns.values) {
            // The pointer to the times counts too.
            Some(values) if values.len() + 16 < plain.bytes.len() => Chunk {
                kind: Kind::Packed,
                bytes: segment::keep(&values),
                times: Some(share(float::encode_times(&columns.ts_ms))),
                ..plain
            },
            _ => plain.kept(),
        }
    }

    /// Heap bytes it holds.
    pub fn heap_bytes(&self) -> usize {
        match self {
            OpenChunk::Float(e) => e.heap_bytes(),
            OpenChunk::FloatWithStart(e) => e.floats.heap_bytes() + std::mem::size_of_val(&**e),
            OpenChunk::Histogram(e) => e.heap_bytes(),
        }
    }
}
