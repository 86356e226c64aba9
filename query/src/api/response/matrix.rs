//! The one writer of a matrix: series of a range result as JSON, whole or a piece at a time.

use crate::api::response::{PIECE_BYTES, json};
use crate::value::RangeSeries;

/// The times of a range query: `[t,"` of each is rendered once and copied for every series after the first.
struct StepTexts {
    start_ms: i64,
    step_ms: i64,
    rendered: Vec<([u8; 30], u8)>,
}

impl StepTexts {
    pub fn new(start_ms: i64, step_ms: i64, steps: usize) -> StepTexts {
        StepTexts { start_ms, step_ms, rendered: vec![([0; 30], 0); steps] }
    }

    /// Appends `[t,"`. `step` is where the search begins, and is moved to where `t` was found.
    #[inline]
    fn point(&mut self, out: &mut Vec<u8>, t_ms: i64, step: &mut usize) {
        while *step < self.rendered.len() {
            let at = self.start_ms + self.step_ms * *step as i64;
            if at < t_ms {
                *step += 1;
                continue;
            }
            if at > t_ms {
                break;
            }
            let (bytes, len) = &mut self.rendered[*step];
            if *len == 0 {
                let mut text = Vec::with_capacity(30);
                point_start(&mut text, t_ms);
                bytes[..text.len()].copy_from_slice(&text);
                *len = text.len() as u8;
            }
            // A copy of fixed length takes two moves; what is too much is cut.
            let end = out.len() + *len as usize;
            out.extend_from_slice(bytes);
            out.truncate(end);
            return;
        }
        point_start(out, t_ms);
    }
}

/// `[t,`
pub(in crate::api) fn point_start(out: &mut Vec<u8>, t_ms: i64) {
    out.push(b'[');
    json::timestamp(out, t_ms);
    out.push(b',');
}

/// Writes one series after another. Within a series it remembers where a piece ended.
pub(in crate::api) struct MatrixWriter {
    texts: StepTexts,
    /// Series that were begun.
    begun: usize,
    /// Whether the labels of the present series are written: a piece may end right after them.
    labelled: bool,
    /// The next point of the present series' values, then of its histograms.
    point: usize,
    /// The step that the next point is looked for from.
    step: usize,
}

impl MatrixWriter {
    /// `range` is `(start, step, steps)` of a range query, in milliseconds.
    pub(in crate::api) fn new(range: Option<(i64, i64, usize)>) -> MatrixWriter {
        let (start_ms, step_ms, steps) = range.unwrap_or((0, 1, 0));
        let texts = StepTexts::new(start_ms, step_ms, steps);
        MatrixWriter { texts, begun: 0, labelled: false, point: 0, step: 0 }
    }

    /// Bytes that the texts of the steps take.
    pub(in crate::api) fn bytes(&self) -> u64 {
        size_of_val(self.texts.rendered.as_slice()) as u64
    }

    /// Series that were begun so far.
    pub(in crate::api) fn begun(&self) -> usize {
        self.begun
    }

    /// Appends a series, or what fits into the piece of it; whether it is finished. If not, it wants the same
    /// series again.
    pub(in crate::api) fn write(&mut self, out: &mut Vec<u8>, series: &RangeSeries) -> bool {
        if !std::mem::replace(&mut self.labelled, true) {
            out.extend_from_slice(if self.begun == 0 {
                br#"{"metric":"#.as_slice()
            } else {
                br#",{"metric":"#
            });
            json::labels(out, &series.labels);
            (self.point, self.step) = (0, 0);
            self.begun += 1;
        }
        if !points(out, series, &mut self.point, &mut self.step, &mut self.texts) {
            return false;
        }
        out.push(b'}');
        self.labelled = false;
        true
    }
}

/// `,"values":[…],"histograms":[…]` from `point` on, each left out where it is empty; whether the series is
/// finished.
fn points(
    out: &mut Vec<u8>,
    series: &RangeSeries,
    point: &mut usize,
    step: &mut usize,
    texts: &mut StepTexts,
) -> bool {
    let floats = series.ts_ms.len().min(series.values.len());
    while *point < floats {
        if out.len() >= PIECE_BYTES {
            return false;
        }
        out.extend_from_slice(if *point == 0 { br#","values":["#.as_slice() } else { b",".as_slice() });
        texts.point(out, series.ts_ms[*point], step);
        json::value(out, series.values[*point]);
        out.push(b']');
        *point += 1;
        if *point == floats {
            out.push(b']');
            *step = 0;
        }
    }
    let histograms = series.histogram_ts_ms.len().min(series.histograms.len());
    while *point < floats + histograms {
        if out.len() >= PIECE_BYTES {
            return false;
        }
        let i = *point - floats;
        out.extend_from_slice(if i == 0 { br#","histograms":["#.as_slice() } else { b",".as_slice() });
        texts.point(out, series.histogram_ts_ms[i], step);
        json::histogram(out, &series.histograms[i]);
        out.push(b']');
        *point += 1;
        if i + 1 == histograms {
            out.push(b']');
        }
    }
    true
}
