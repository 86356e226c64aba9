//! Series cut into rows of `samples.parquet`, and rows gathered into its columns.

use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, Float64Builder, Int32Builder, Int64Builder, ListBuilder, StringBuilder, UInt32Builder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::DataType;

use super::list_builders::{FloatLists, Int32Lists, float_lists, int_lists, int32_lists, nested};
use crate::block::encode::{self, Encoded, Encoding, Payload};
use crate::block::error::BlockError;
use crate::block::schema::{self, hint_number};
use model::histogram::{BucketSpan, Histogram};
use model::sample::is_stale;
use model::source::SeriesColumns;
use model::span::span_end;

/// One row, values encoded: a series' floats or its histograms in one time slice.
pub(crate) struct Row {
    pub ts_ms: Vec<i64>,
    pub stale_markers: u64,
    values: RowValues,
    starts: Starts,
}

enum RowValues {
    Floats(Encoded),
    Histograms(Vec<Arc<Histogram>>),
}

enum Starts {
    /// The same for all, 0 = unknown.
    Same(i64),
    Each(Vec<i64>),
}

impl Row {
    pub fn histograms(&self) -> u64 {
        match &self.values {
            RowValues::Floats(_) => 0,
            RowValues::Histograms(h) => h.len() as u64,
        }
    }
}

/// Cuts a series after multiples of `slice_ms` (left-open slices, see [`model::span`]) and at `row_samples`,
/// floats apart from histograms. Pure, and the costly part of writing.
pub(crate) fn cut(series: &SeriesColumns, slice_ms: i64, row_samples: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    let ts = &series.ts_ms;
    let mut from = 0;
    while from < ts.len() {
        let end = span_end(ts[from], slice_ms);
        let until = ts[from..].partition_point(|t| *t <= end) + from;
        let to = until.min(from + row_samples);
        let starts = |picked: &mut dyn Iterator<Item = usize>| match &series.start_ts_ms {
            None => Starts::Same(0),
            Some(all) => {
                let picked: Vec<i64> = picked.map(|i| all[i]).collect();
                match picked.first() {
                    Some(first) if picked.iter().all(|s| s == first) => Starts::Same(*first),
                    _ => Starts::Each(picked),
                }
            }
        };
        let histogram_at = |i: usize| series.histograms.as_ref().and_then(|h| h[i].as_ref());
        let histograms: Vec<usize> = match series.histograms {
            Some(_) => (from..to).filter(|i| histogram_at(*i).is_some()).collect(),
            None => Vec::new(),
        };
        if histograms.len() < to - from {
            let (ts_ms, values, starts): (Vec<i64>, Vec<f64>, Starts) = if histograms.is_empty() {
                (ts[from..to].to_vec(), series.values[from..to].to_vec(), starts(&mut (from..to)))
            } else {
                let floats: Vec<usize> = (from..to).filter(|i| histogram_at(*i).is_none()).collect();
                let pick = floats.iter().map(|i| (ts[*i], series.values[*i])).unzip();
                let (ts_ms, values): (Vec<i64>, Vec<f64>) = pick;
                (ts_ms, values, starts(&mut floats.iter().copied()))
            };
            let stale_markers = values.iter().filter(|v| is_stale(**v)).count() as u64;
            rows.push(Row {
                ts_ms,
                stale_markers,
                values: RowValues::Floats(encode::encode(&values)),
                starts,
            });
        }
        if !histograms.is_empty() {
            let values: Vec<Arc<Histogram>> =
                histograms.iter().filter_map(|i| histogram_at(*i).cloned()).collect();
            rows.push(Row {
                ts_ms: histograms.iter().map(|i| ts[*i]).collect(),
                stale_markers: values.iter().filter(|h| h.is_stale()).count() as u64,
                values: RowValues::Histograms(values),
                starts: starts(&mut histograms.iter().copied()),
            });
        }
        from = to;
    }
    rows
}

/// Builders of all columns of `samples.parquet`, in the schema's order.
pub(crate) struct RowColumns {
    series_id: UInt32Builder,
    min_t: Int64Builder,
    max_t: Int64Builder,
    tsref: UInt32Builder,
    n: UInt32Builder,
    enc: StringBuilder,
    exp: Int32Builder,
    constant: Float64Builder,
    nx: UInt32Builder,
    start_t: Int64Builder,
    vi: ListBuilder<Int64Builder>,
    vb: ListBuilder<Int64Builder>,
    vf: FloatLists,
    vp: FloatLists,
    vx_pos: Int32Lists,
    vx: FloatLists,
    start_ts: ListBuilder<Int64Builder>,
    histograms: HistogramLists,
    /// Samples and bucket counts held.
    held: usize,
}

/// Builders of the columns that hold histograms, in the order of both schemas.
pub(crate) struct HistogramLists {
    h_schema: Int32Lists,
    h_hint: Int32Lists,
    h_zero_threshold: FloatLists,
    h_zero_count: FloatLists,
    h_count: FloatLists,
    h_sum: FloatLists,
    h_pos_spans: ListBuilder<Int32Lists>,
    h_neg_spans: ListBuilder<Int32Lists>,
    h_pos_buckets: ListBuilder<FloatLists>,
    h_neg_buckets: ListBuilder<FloatLists>,
    h_custom_values: ListBuilder<FloatLists>,
}

impl Default for RowColumns {
    fn default() -> Self {
        RowColumns {
            series_id: UInt32Builder::new(),
            min_t: Int64Builder::new(),
            max_t: Int64Builder::new(),
            tsref: UInt32Builder::new(),
            n: UInt32Builder::new(),
            enc: StringBuilder::new(),
            exp: Int32Builder::new(),
            constant: Float64Builder::new(),
            nx: UInt32Builder::new(),
            start_t: Int64Builder::new(),
            vi: int_lists(),
            vb: int_lists(),
            vf: float_lists(),
            vp: float_lists(),
            vx_pos: int32_lists(),
            vx: float_lists(),
            start_ts: int_lists(),
            histograms: HistogramLists::default(),
            held: 0,
        }
    }
}

impl Default for HistogramLists {
    fn default() -> Self {
        HistogramLists {
            h_schema: int32_lists(),
            h_hint: int32_lists(),
            h_zero_threshold: float_lists(),
            h_zero_count: float_lists(),
            h_count: float_lists(),
            h_sum: float_lists(),
            h_pos_spans: nested(int32_lists(), DataType::Int32),
            h_neg_spans: nested(int32_lists(), DataType::Int32),
            h_pos_buckets: nested(float_lists(), DataType::Float64),
            h_neg_buckets: nested(float_lists(), DataType::Float64),
            h_custom_values: nested(float_lists(), DataType::Float64),
        }
    }
}

fn append_list<T>(to: &mut ListBuilder<T>, some: bool, fill: impl FnOnce(&mut T))
where
    T: ArrayBuilder,
{
    if some {
        fill(to.values());
    }
    to.append(some);
}

fn append_spans(to: &mut ListBuilder<Int32Lists>, spans: &[BucketSpan]) {
    for s in spans {
        to.values().values().append_value(s.offset);
        to.values().values().append_value(s.length as i32);
    }
    to.values().append(true);
}

fn append_counts(to: &mut ListBuilder<FloatLists>, counts: &[f64]) {
    to.values().values().append_slice(counts);
    to.values().append(true);
}

impl RowColumns {
    pub fn is_empty(&self) -> bool {
        self.series_id.is_empty()
    }

    /// About how many bytes are held.
    pub fn held_bytes(&self) -> usize {
        self.held * 8 + self.series_id.len() * 64
    }

    /// Whether enough is held to be worth handing to Parquet.
    pub fn is_full(&self) -> bool {
        self.held >= 256 * 1024 || self.series_id.len() >= 16 * 1024
    }

    pub fn push(&mut self, series_id: u32, tsref: u32, row: Row) {
        let n = row.ts_ms.len();
        self.held += n;
        self.series_id.append_value(series_id);
        self.min_t.append_value(row.ts_ms[0]);
        self.max_t.append_value(row.ts_ms[n - 1]);
        self.tsref.append_value(tsref);
        self.n.append_value(n as u32);
        match &row.starts {
            Starts::Same(t) => {
                self.start_t.append_value(*t);
                self.start_ts.append(false);
            }
            Starts::Each(all) => {
                self.start_t.append_null();
                self.start_ts.values().append_slice(all);
                self.start_ts.append(true);
            }
        }
        match row.values {
            RowValues::Floats(encoded) => {
                self.push_floats(&encoded);
                self.histograms.push(None);
            }
            RowValues::Histograms(all) => {
                self.enc.append_value(Encoding::Hist.as_str());
                self.exp.append_null();
                self.constant.append_null();
                self.nx.append_value(0);
                for list in [&mut self.vi, &mut self.vb] {
                    list.append(false);
                }
                for list in [&mut self.vf, &mut self.vp, &mut self.vx] {
                    list.append(false);
                }
                self.vx_pos.append(false);
                self.held += self.histograms.push(Some(&all));
            }
        }
    }

    fn push_floats(&mut self, encoded: &Encoded) {
        let payload = &encoded.payload;
        self.enc.append_value(payload.encoding().as_str());
        let (mut exp, mut constant) = (None, None);
        let (mut vi, mut vb, mut vf, mut vp) = (None, None, None, None);
        match payload {
            Payload::Const(v) => constant = Some(*v),
            Payload::Vi { exp: e, mantissas } => (exp, vi) = (Some(*e), Some(mantissas)),
            Payload::Vb { exp: e, mantissas } => (exp, vb) = (Some(*e), Some(mantissas)),
            Payload::Vf(v) => vf = Some(v),
            Payload::Vp(v) => vp = Some(v),
        }
        self.exp.append_option(exp);
        self.constant.append_option(constant);
        append_list(&mut self.vi, vi.is_some(), |b| b.append_slice(vi.map_or(&[], |v| v)));
        append_list(&mut self.vb, vb.is_some(), |b| b.append_slice(vb.map_or(&[], |v| v)));
        append_list(&mut self.vf, vf.is_some(), |b| b.append_slice(vf.map_or(&[], |v| v)));
        append_list(&mut self.vp, vp.is_some(), |b| b.append_slice(vp.map_or(&[], |v| v)));
        let odd = &encoded.exceptions;
        self.nx.append_value(odd.len() as u32);
        append_list(&mut self.vx_pos, !odd.is_empty(), |b| odd.iter().for_each(|(i, _)| b.append_value(*i)));
        append_list(&mut self.vx, !odd.is_empty(), |b| odd.iter().for_each(|(_, v)| b.append_value(*v)));
    }

    /// All that is held, as a batch; nothing is held afterwards.
    pub fn take(&mut self) -> Result<RecordBatch, BlockError> {
        self.held = 0;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.series_id.finish()),
            Arc::new(self.min_t.finish()),
            Arc::new(self.max_t.finish()),
            Arc::new(self.tsref.finish()),
            Arc::new(self.n.finish()),
            Arc::new(self.enc.finish()),
            Arc::new(self.exp.finish()),
            Arc::new(self.constant.finish()),
            Arc::new(self.nx.finish()),
            Arc::new(self.start_t.finish()),
            Arc::new(self.vi.finish()),
            Arc::new(self.vb.finish()),
            Arc::new(self.vf.finish()),
            Arc::new(self.vp.finish()),
            Arc::new(self.vx_pos.finish()),
            Arc::new(self.vx.finish()),
            Arc::new(self.start_ts.finish()),
        ];
        columns.extend(self.histograms.finish());
        RecordBatch::try_new(schema::SAMPLES.clone(), columns)
            .map_err(|e| BlockError::Encode(format!("samples: {e}")))
    }
}

impl HistogramLists {
    /// A row's histograms, or that it has none; how many bucket counts they have.
    pub fn push(&mut self, all: Option<&[Arc<Histogram>]>) -> usize {
        let some = all.is_some();
        let mut held = 0;
        for h in all.unwrap_or(&[]) {
            self.h_schema.values().append_value(h.schema);
            self.h_hint.values().append_value(hint_number(h.counter_reset_hint));
            self.h_zero_threshold.values().append_value(h.zero_threshold);
            self.h_zero_count.values().append_value(h.zero_count);
            self.h_count.values().append_value(h.count);
            self.h_sum.values().append_value(h.sum);
            append_spans(&mut self.h_pos_spans, &h.positive_spans);
            append_spans(&mut self.h_neg_spans, &h.negative_spans);
            append_counts(&mut self.h_pos_buckets, &h.positive_buckets);
            append_counts(&mut self.h_neg_buckets, &h.negative_buckets);
            match &h.custom_values {
                Some(bounds) => append_counts(&mut self.h_custom_values, bounds),
                None => self.h_custom_values.values().append(false),
            }
            held += h.positive_buckets.len() + h.negative_buckets.len();
        }
        for list in [&mut self.h_schema, &mut self.h_hint] {
            list.append(some);
        }
        for list in [&mut self.h_zero_threshold, &mut self.h_zero_count, &mut self.h_count, &mut self.h_sum] {
            list.append(some);
        }
        for list in [&mut self.h_pos_spans, &mut self.h_neg_spans] {
            list.append(some);
        }
        for list in [&mut self.h_pos_buckets, &mut self.h_neg_buckets, &mut self.h_custom_values] {
            list.append(some);
        }
        held
    }

    /// The columns; nothing is held afterwards.
    pub fn finish(&mut self) -> [ArrayRef; 11] {
        [
            Arc::new(self.h_schema.finish()),
            Arc::new(self.h_hint.finish()),
            Arc::new(self.h_zero_threshold.finish()),
            Arc::new(self.h_zero_count.finish()),
            Arc::new(self.h_count.finish()),
            Arc::new(self.h_sum.finish()),
            Arc::new(self.h_pos_spans.finish()),
            Arc::new(self.h_neg_spans.finish()),
            Arc::new(self.h_pos_buckets.finish()),
            Arc::new(self.h_neg_buckets.finish()),
            Arc::new(self.h_custom_values.finish()),
        ]
    }
}
