//! Writes an answer piece by piece.

use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, Float64Builder, Int64Builder, ListBuilder, UInt8Builder, UInt32Builder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::ArrowError;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use model::source::SeriesColumns;

use super::{BATCH_BYTES, END, End, Header, NAME, ROW_SAMPLES, SAMPLES, TIMELINES, histogram, schema};

/// An answer in the making. What is finished is taken off with [`Encoder::ready`].
pub struct Encoder {
    schema: SchemaRef,
    writer: StreamWriter<Vec<u8>>,
    rows: Rows,
    /// Timestamps that the reader knows, with their numbers, oldest first.
    timelines: Vec<(u32, Arc<[i64]>)>,
    next_timeline: u32,
    sent: End,
}

/// Rows that are not written yet.
#[derive(Default)]
struct Rows {
    kind: UInt8Builder,
    name: BinaryBuilder,
    series: UInt32Builder,
    timeline: UInt32Builder,
    ts_ms: ListBuilder<Int64Builder>,
    values: ListBuilder<Float64Builder>,
    start_ts_ms: ListBuilder<Int64Builder>,
    histograms: ListBuilder<BinaryBuilder>,
    count: usize,
    bytes: usize,
}

impl Rows {
    /// A row that has a name and nothing else.
    fn named(&mut self, kind: u8, name: &[u8]) {
        self.kind.append_value(kind);
        self.name.append_value(name);
        self.series.append_null();
        self.timeline.append_null();
        self.ts_ms.append_null();
        self.values.append_null();
        self.start_ts_ms.append_null();
        self.histograms.append_null();
        self.count += 1;
        self.bytes += name.len() + 32;
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        (self.count, self.bytes) = (0, 0);
        vec![
            Arc::new(self.kind.finish()),
            Arc::new(self.name.finish()),
            Arc::new(self.series.finish()),
            Arc::new(self.timeline.finish()),
            Arc::new(self.ts_ms.finish()),
            Arc::new(self.values.finish()),
            Arc::new(self.start_ts_ms.finish()),
            Arc::new(self.histograms.finish()),
        ]
    }
}

impl Encoder {
    /// Begins with the header.
    pub fn new(header: &Header) -> Result<Encoder, ArrowError> {
        let schema = Arc::new(schema(header));
        let writer = StreamWriter::try_new(Vec::new(), &schema)?;
        Ok(Encoder {
            schema,
            writer,
            rows: Rows::default(),
            timelines: Vec::new(),
            next_timeline: 0,
            sent: End::default(),
        })
    }

    /// The next name: a label set as bytes, or a text.
    pub fn name(&mut self, name: &[u8]) -> Result<(), ArrowError> {
        self.rows.named(NAME, name);
        self.write_if_full()
    }

    /// Samples of the label set with a number; windows cannot be told.
    pub fn samples(&mut self, number: u32, series: &SeriesColumns) -> Result<(), ArrowError> {
        if series.windows.is_some() {
            return Err(ArrowError::InvalidArgumentError("windows are not sent between members".into()));
        }
        let whole = series.ts_ms.len() <= ROW_SAMPLES;
        let mut at = 0;
        while at < series.ts_ms.len() {
            let end = series.ts_ms.len().min(at + ROW_SAMPLES);
            // Of a part nobody else has the timestamps.
            let ts_ms = if whole { series.ts_ms.clone() } else { Arc::from(&series.ts_ms[at..end]) };
            self.row(number, ts_ms, series, (at, end));
            self.write_if_full()?;
            at = end;
        }
        Ok(())
    }

    fn row(&mut self, number: u32, ts_ms: Arc<[i64]>, series: &SeriesColumns, (at, end): (usize, usize)) {
        let rows = &mut self.rows;
        rows.kind.append_value(SAMPLES);
        rows.name.append_null();
        rows.series.append_value(number);
        let known = self.timelines.iter().rev().find(|(_, known)| Arc::ptr_eq(known, &ts_ms));
        match known {
            Some((timeline, _)) => {
                rows.timeline.append_value(*timeline);
                rows.ts_ms.append_null();
            }
            None => {
                rows.timeline.append_value(self.next_timeline);
                rows.ts_ms.values().append_slice(&ts_ms);
                rows.ts_ms.append(true);
                rows.bytes += 8 * ts_ms.len();
                if self.timelines.len() >= TIMELINES {
                    self.timelines.remove(0);
                }
                self.timelines.push((self.next_timeline, ts_ms));
                self.next_timeline = self.next_timeline.wrapping_add(1);
            }
        }
        rows.values.values().append_slice(&series.values[at..end]);
        rows.values.append(true);
        match &series.start_ts_ms {
            Some(starts) => {
                rows.start_ts_ms.values().append_slice(&starts[at..end]);
                rows.start_ts_ms.append(true);
                rows.bytes += 8 * (end - at);
            }
            None => rows.start_ts_ms.append_null(),
        }
        match &series.histograms {
            Some(all) => {
                let mut text = Vec::new();
                for one in &all[at..end] {
                    match one {
                        Some(h) => {
                            text.clear();
                            histogram::put(&mut text, h);
                            rows.histograms.values().append_value(&text);
                            rows.bytes += text.len();
                        }
                        None => rows.histograms.values().append_null(),
                    }
                }
                rows.histograms.append(true);
            }
            None => rows.histograms.append_null(),
        }
        rows.count += 1;
        rows.bytes += 8 * (end - at) + 64;
        self.sent.rows += 1;
        self.sent.samples += (end - at) as u64;
    }

    fn write_if_full(&mut self) -> Result<(), ArrowError> {
        if self.rows.bytes >= BATCH_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), ArrowError> {
        if self.rows.count == 0 {
            return Ok(());
        }
        let batch = RecordBatch::try_new(self.schema.clone(), self.rows.finish())?;
        self.writer.write(&batch)
    }

    /// Ends the answer, whole or with what stood in its way.
    pub fn end(&mut self, failed: Option<super::Failure>) -> Result<(), ArrowError> {
        let end = End { failed, ..self.sent.clone() };
        let text = serde_json::to_vec(&end).expect("numbers and texts always serialize");
        self.rows.named(END, &text);
        self.write()?;
        self.writer.finish()
    }

    /// What is finished since the last call, at once (`all`) or from some length on.
    pub fn ready(&mut self, all: bool) -> Option<Bytes> {
        let out = self.writer.get_mut();
        let enough = if all { 1 } else { BATCH_BYTES / 4 };
        (out.len() >= enough).then(|| Bytes::from(std::mem::take(out)))
    }
}
