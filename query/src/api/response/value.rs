//! The result of a query as JSON, written from the value without a second copy of it.

use model::labels::Labels;
use model::sample::Value;
use model::source::{Budget, SourceError};

use crate::api::json;
use crate::api::response::matrix::{MatrixWriter, point_start};
use crate::api::response::stats::Stats;
use crate::api::response::{HEAD, PIECE_BYTES, Pieces, Warnings, tail};
use crate::value::QueryValue;

/// `"data":{"resultType":…,"result":…}` of a query, written from the value without a second copy of it.
pub struct ResultWriter {
    value: QueryValue,
    matrix: MatrixWriter,
    /// What the writer keeps of the steps.
    texts_bytes: u64,
    /// The next series or sample.
    next: usize,
    begun: bool,
    /// What comes after the result: statistics, warnings, infos.
    tail: Vec<u8>,
}

impl ResultWriter {
    pub fn new(value: QueryValue, stats: Option<&Stats>, warnings: &Warnings) -> ResultWriter {
        let mut matrix = MatrixWriter::default();
        let texts_bytes = match &value {
            // For one series nothing would be copied.
            QueryValue::Matrix { steps, series } if series.len() > 1 => matrix.reserve_texts(steps),
            _ => 0,
        };
        let tail = tail(stats, warnings);
        ResultWriter { value, matrix, texts_bytes, next: 0, begun: false, tail }
    }

    /// Charges what is written of the value to the budget to which the value was charged, and which has to be
    /// kept as long.
    pub fn reserve(&self, budget: &Budget) -> Result<(), SourceError> {
        budget.reserve(self.texts_bytes + 2 * PIECE_BYTES as u64)
    }
}

impl Pieces for ResultWriter {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        if !self.begun {
            self.begun = true;
            out.extend_from_slice(HEAD);
            out.extend_from_slice(br#"{"resultType":""#);
            out.extend_from_slice(self.value.type_name().as_bytes());
            out.extend_from_slice(br#"","result":["#);
        }
        match &self.value {
            // These two go through Go's own JSON upstream: their seconds have no trailing zeros.
            QueryValue::Scalar { ts_ms, value } => {
                json::plain_number(out, *ts_ms as f64 / 1000.0);
                out.push(b',');
                json::scalar_value(out, *value);
            }
            QueryValue::String { ts_ms, value } => {
                json::plain_number(out, *ts_ms as f64 / 1000.0);
                out.push(b',');
                json::html_string(out, &String::from_utf8_lossy(value));
            }
            QueryValue::Vector { ts_ms, samples } => {
                while let Some(sample) = samples.get(self.next) {
                    if out.len() >= PIECE_BYTES {
                        return true;
                    }
                    if self.next > 0 {
                        out.push(b',');
                    }
                    self.next += 1;
                    instant(out, &sample.labels, *ts_ms, &sample.value);
                }
            }
            QueryValue::Streamed(_) => {}
            QueryValue::Matrix { steps, series } => {
                while let Some(one) = series.get(self.next) {
                    if out.len() >= PIECE_BYTES {
                        return true;
                    }
                    if self.matrix.write_steps(out, steps, one) {
                        self.next += 1;
                    }
                }
            }
            QueryValue::RangeVector(series) => {
                while let Some(one) = series.get(self.next) {
                    if out.len() >= PIECE_BYTES {
                        return true;
                    }
                    if self.matrix.write_range(out, one) {
                        self.next += 1;
                    }
                }
            }
        }
        out.push(b']');
        out.append(&mut self.tail);
        false
    }
}

/// `{"metric":{…},"value":[t,"v"]}` or with `histogram`.
fn instant(out: &mut Vec<u8>, labels: &Labels, ts_ms: i64, value: &Value) {
    out.extend_from_slice(br#"{"metric":"#);
    json::labels(out, labels);
    match value {
        Value::Float(v) => {
            out.extend_from_slice(br#","value":"#);
            point_start(out, ts_ms);
            json::value(out, *v);
        }
        Value::Histogram(h) => {
            out.extend_from_slice(br#","histogram":"#);
            point_start(out, ts_ms);
            json::histogram(out, h);
        }
    }
    out.extend_from_slice(b"]}");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::column::Column;
    use crate::plan::Steps;
    use crate::value::{InstantSample, RangeSeries, StepSeries};

    fn written(mut writer: impl Pieces) -> (String, usize) {
        let mut text = Vec::new();
        let mut pieces = 0;
        loop {
            let mut out = Vec::new();
            let more = writer.fill(&mut out);
            text.extend_from_slice(&out);
            pieces += 1;
            if !more {
                return (String::from_utf8(text).unwrap(), pieces);
            }
        }
    }

    fn range_series(name: &str, ts_ms: Vec<i64>, values: Vec<f64>) -> RangeSeries {
        RangeSeries { ts_ms, values, ..RangeSeries::new(Labels::from_pairs([("__name__", name)])) }
    }

    fn step_series(name: &str, column: Column) -> StepSeries {
        StepSeries { labels: Labels::from_pairs([("__name__", name)]), column }
    }

    /// Series of one length after another, so that pieces end in every place a series has, right after its
    /// labels too.
    #[test]
    fn result_pieces_may_end_anywhere() {
        let steps = Steps { start_ms: 1_000, step_ms: 500, count: 4 };
        let mut column = Column::new(4);
        column.set_float(0, 0.5);
        column.set_float(3, 1.0);
        for shift in 0..120 {
            let name = |n: usize| format!("{}{n:04}", "x".repeat(shift));
            let series = (0..1_500).map(|n| step_series(&name(n), column.clone())).collect();
            let over_steps = QueryValue::Matrix { steps, series };
            let range = |n| range_series(&name(n), vec![1_000, 2_500], vec![0.5, 1.0]);
            let of_samples = QueryValue::RangeVector((0..1_500).map(range).collect());
            let rows = (0..1_500).map(|n| {
                format!(r#"{{"metric":{{"__name__":"{}"}},"values":[[1,"0.5"],[2.500,"1"]]}}"#, name(n))
            });
            let expected = format!(
                r#"{{"status":"success","data":{{"resultType":"matrix","result":[{}]}}}}"#,
                rows.collect::<Vec<_>>().join(",")
            );
            for value in [over_steps, of_samples] {
                let (text, pieces) = written(ResultWriter::new(value, None, &Warnings::default()));
                assert!(pieces > 1);
                assert!(text == expected, "names {shift} letters longer");
            }
        }
    }

    /// The cases of upstream's json_codec_test.go.
    #[test]
    fn results_are_upstreams_byte_for_byte() {
        let none = Warnings::default();
        let scalar = QueryValue::Scalar { ts_ms: 1500, value: 1e21 };
        assert_eq!(
            written(ResultWriter::new(scalar, None, &none)).0,
            r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"1000000000000000000000"]}}"#
        );
        let string = QueryValue::String { ts_ms: 0, value: Arc::from(&b"a<\xc5"[..]) };
        assert_eq!(
            written(ResultWriter::new(string, None, &none)).0,
            "{\"status\":\"success\",\"data\":{\"resultType\":\"string\",\"result\":[0,\"a\\u003c\u{fffd}\"]}}"
        );
        let warnings = Warnings { warnings: vec!["w <".into()], infos: vec!["i".into()] };
        let vector = QueryValue::Vector {
            ts_ms: 1000,
            samples: vec![
                InstantSample {
                    labels: Labels::from_pairs([("__name__", "<a>")]),
                    value: Value::Float(0.25),
                },
                InstantSample { labels: Labels::empty(), value: Value::Histogram(Default::default()) },
            ],
        };
        assert_eq!(
            written(ResultWriter::new(vector, None, &warnings)).0,
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"<a>"},"value":[1,"0.25"]},{"metric":{},"histogram":[1,{"count":"0","sum":"0"}]}]},"warnings":["w \u003c"],"infos":["i"]}"#
        );
        let want = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"foo"},"values":[[1,"1"],[3,"2"]],"histograms":[[2,{"count":"0","sum":"0"}],[4.500,{"count":"0","sum":"0"}]]},{"metric":{"__name__":"bar"},"values":[[2,"NaN"]]},{"metric":{"__name__":"baz"},"histograms":[[4.500,{"count":"0","sum":"0"}]]}]}}"#;
        let mut mixed = range_series("foo", vec![1000, 3000], vec![1.0, 2.0]);
        mixed.histogram_ts_ms = vec![2000, 4500];
        mixed.histograms = vec![Arc::default(), Arc::default()];
        let mut histogram = range_series("baz", vec![], vec![]);
        histogram.histogram_ts_ms = vec![4500];
        histogram.histograms = vec![Arc::default()];
        let of_samples = [mixed, range_series("bar", vec![2000], vec![f64::NAN]), histogram];
        assert_eq!(
            written(ResultWriter::new(QueryValue::RangeVector(of_samples.to_vec()), None, &none)).0,
            want
        );
        let steps = Steps { start_ms: 500, step_ms: 500, count: 9 };
        let column = |floats: &[(usize, f64)], histograms: &[usize]| {
            let mut column = Column::new(9);
            floats.iter().for_each(|(step, v)| column.set_float(*step, *v));
            histograms.iter().for_each(|step| column.set_histogram(*step, Arc::default()));
            column
        };
        let series = vec![
            step_series("foo", column(&[(1, 1.0), (5, 2.0)], &[3, 8])),
            step_series("bar", column(&[(3, f64::NAN)], &[])),
            step_series("baz", column(&[], &[8])),
        ];
        assert_eq!(written(ResultWriter::new(QueryValue::Matrix { steps, series }, None, &none)).0, want);
        assert_eq!(
            written(ResultWriter::new(QueryValue::RangeVector(vec![]), None, &none)).0,
            r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#
        );
    }

    #[test]
    fn result_pieces_come_in_bounded_pieces_and_are_whole() {
        let steps = Steps { start_ms: 1_700_000_000_000, step_ms: 250, count: 20_050 };
        let values: Vec<f64> = (0..steps.count).map(|i| i as f64 / 7.0).collect();
        let series = (0..5).map(|i| step_series(&format!("m{i}"), Column::full(values.clone()))).collect();
        let matrix = QueryValue::Matrix { steps, series };
        let mut writer = ResultWriter::new(matrix, None, &Warnings::default());
        let mut text = Vec::new();
        loop {
            let mut out = Vec::new();
            let more = writer.fill(&mut out);
            assert!(out.len() < PIECE_BYTES + 1024, "{}", out.len());
            text.append(&mut out);
            if !more {
                break;
            }
        }
        let read: serde_json::Value = serde_json::from_slice(&text).unwrap();
        for one in read["data"]["result"].as_array().unwrap() {
            let points = one["values"].as_array().unwrap();
            assert_eq!(points.len(), steps.count);
            for (i, p) in points.iter().enumerate() {
                assert_eq!(p[0].as_f64().unwrap(), steps.at(i) as f64 / 1000.0);
                assert_eq!(p[1].as_str().unwrap().parse::<f64>().unwrap(), values[i]);
            }
        }
    }
}
