//! The one writer of a matrix: series as JSON, whole or a piece at a time.

use std::sync::Arc;

use model::histogram::Histogram;
use model::labels::Labels;

use crate::api::json;
use crate::api::response::PIECE_BYTES;
use crate::column::Column;
use crate::plan::Steps;
use crate::value::{RangeSeries, StepSeries};

/// Steps whose texts are kept, 31 bytes each; those after them are rendered anew for each series.
const MOST_TEXTS: usize = 20_000;

/// The times of a range query: `[t,` of each is rendered once and copied for every series after the first.
#[derive(Default)]
struct StepTexts {
    rendered: Vec<([u8; 30], u8)>,
}

impl StepTexts {
    /// Appends `[t,` of a step.
    #[inline]
    fn append(&mut self, out: &mut Vec<u8>, steps: &Steps, step: usize) {
        let Some((bytes, len)) = self.rendered.get_mut(step) else {
            return point_start(out, steps.at(step));
        };
        if *len == 0 {
            let mut text = Vec::with_capacity(30);
            point_start(&mut text, steps.at(step));
            bytes[..text.len()].copy_from_slice(&text);
            *len = text.len() as u8;
        }
        // A copy of fixed length takes two moves; what is too much is cut.
        let end = out.len() + *len as usize;
        out.extend_from_slice(bytes);
        out.truncate(end);
    }
}

/// `[t,`
pub(in crate::api) fn point_start(out: &mut Vec<u8>, t_ms: i64) {
    out.push(b'[');
    json::timestamp(out, t_ms);
    out.push(b',');
}

/// What of a series is to be written next.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Labels,
    Floats,
    Histograms,
}

/// Writes one series after another. Within a series it remembers where a piece ended.
#[derive(Default)]
pub(in crate::api) struct MatrixWriter {
    texts: StepTexts,
    /// Series that were begun.
    begun: usize,
    part: Part,
    /// The index in its part that the next point is looked for from: a step, or a point's number.
    next: usize,
    /// Whether a point of the part is written.
    listed: bool,
}

impl MatrixWriter {
    /// Gets ready for series over `steps`; the bytes that this takes.
    pub(in crate::api) fn reserve_texts(&mut self, steps: &Steps) -> u64 {
        self.texts.rendered.resize(steps.count.min(MOST_TEXTS), ([0; 30], 0));
        size_of_val(self.texts.rendered.as_slice()) as u64
    }

    /// Series that were begun so far.
    pub(in crate::api) fn begun(&self) -> usize {
        self.begun
    }

    /// Appends a series over `steps`, or what fits into the piece of it; whether it is finished. If not, it
    /// wants the same series again.
    pub(in crate::api) fn write_steps(
        &mut self,
        out: &mut Vec<u8>,
        steps: &Steps,
        series: &StepSeries,
    ) -> bool {
        self.begin(out, &series.labels);
        if self.part == Part::Floats {
            if !self.floats_of(out, steps, &series.column) {
                return false;
            }
            self.end_list(out);
        }
        let histograms = series.column.histograms();
        while let Some((step, histogram)) = histograms.get(self.next) {
            if out.len() >= PIECE_BYTES {
                return false;
            }
            self.open_point(out);
            self.texts.append(out, steps, *step as usize);
            self.end_histogram(out, histogram);
        }
        self.end(out)
    }

    /// As [`MatrixWriter::write_steps`], for a series at times of its own.
    pub(in crate::api) fn write_range(&mut self, out: &mut Vec<u8>, series: &RangeSeries) -> bool {
        self.begin(out, &series.labels);
        if self.part == Part::Floats {
            while let (Some(t_ms), Some(v)) = (series.ts_ms.get(self.next), series.values.get(self.next)) {
                if out.len() >= PIECE_BYTES {
                    return false;
                }
                self.open_point(out);
                point_start(out, *t_ms);
                json::value(out, *v);
                out.push(b']');
                self.next += 1;
            }
            self.end_list(out);
        }
        let times = &series.histogram_ts_ms;
        while let (Some(t_ms), Some(h)) = (times.get(self.next), series.histograms.get(self.next)) {
            if out.len() >= PIECE_BYTES {
                return false;
            }
            self.open_point(out);
            point_start(out, *t_ms);
            self.end_histogram(out, h);
        }
        self.end(out)
    }

    /// The floats of a column from the next step on; whether they are all written.
    fn floats_of(&mut self, out: &mut Vec<u8>, steps: &Steps, column: &Column) -> bool {
        let (floats, present) = column.floats();
        let mut word = self.next / 64;
        let mut bits = present.get(word).map_or(0, |bits| bits & (u64::MAX << (self.next % 64)));
        loop {
            while bits != 0 {
                let step = word * 64 + bits.trailing_zeros() as usize;
                if out.len() >= PIECE_BYTES {
                    self.next = step;
                    return false;
                }
                bits &= bits - 1;
                self.open_point(out);
                self.texts.append(out, steps, step);
                json::value(out, floats[step]);
                out.push(b']');
            }
            word += 1;
            match present.get(word) {
                Some(next) => bits = *next,
                None => return true,
            }
        }
    }

    fn begin(&mut self, out: &mut Vec<u8>, labels: &Labels) {
        if self.part != Part::Labels {
            return;
        }
        if self.begun > 0 {
            out.push(b',');
        }
        out.extend_from_slice(br#"{"metric":"#);
        json::labels(out, labels);
        self.begun += 1;
        (self.part, self.next, self.listed) = (Part::Floats, 0, false);
    }

    #[inline]
    fn open_point(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.listed, true) {
            return out.push(b',');
        }
        out.extend_from_slice(match self.part {
            Part::Histograms => br#","histograms":["#.as_slice(),
            _ => br#","values":["#.as_slice(),
        });
    }

    fn end_histogram(&mut self, out: &mut Vec<u8>, histogram: &Arc<Histogram>) {
        json::histogram(out, histogram);
        out.push(b']');
        self.next += 1;
    }

    /// The floats are done, the histograms come.
    fn end_list(&mut self, out: &mut Vec<u8>) {
        if self.listed {
            out.push(b']');
        }
        (self.part, self.next, self.listed) = (Part::Histograms, 0, false);
    }

    fn end(&mut self, out: &mut Vec<u8>) -> bool {
        if self.listed {
            out.push(b']');
        }
        out.push(b'}');
        self.part = Part::Labels;
        true
    }
}
