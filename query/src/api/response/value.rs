//! The result of a query as JSON, written from the value without a second copy of it.

use std::sync::Arc;

use model::labels::Labels;
use model::sample::Value;
use model::source::{Budget, SourceError};

use crate::api::response::matrix::{MatrixWriter, point_start};
use crate::api::response::stats::Stats;
use crate::api::response::{HEAD, PIECE_BYTES, Pieces, Warnings, json, tail};
use crate::value::QueryValue;

/// `"data":{"resultType":…,"result":…}` of a query, written from the value without a second copy of it.
pub struct ResultWriter {
    value: QueryValue,
    matrix: MatrixWriter,
    /// The next series or sample.
    next: usize,
    begun: bool,
    /// What comes after the result: statistics, warnings, infos.
    tail: Vec<u8>,
    /// The memory of the value counts as the query's until it is sent.
    _budget: Option<Arc<Budget>>,
}

impl ResultWriter {
    /// `range` is `(start, step, steps)` of a range query.
    pub fn new(
        value: QueryValue,
        range: Option<(i64, i64, usize)>,
        stats: Option<&Stats>,
        warnings: &Warnings,
    ) -> ResultWriter {
        ResultWriter {
            value,
            matrix: MatrixWriter::new(range),
            next: 0,
            begun: false,
            tail: tail(stats, warnings),
            _budget: None,
        }
    }

    /// Keeps the budget, to which the value was charged, as long as the value, and charges what is written of
    /// it to it too.
    pub fn reserving(self, budget: Arc<Budget>) -> Result<ResultWriter, SourceError> {
        budget.reserve(self.matrix.bytes() + 2 * PIECE_BYTES as u64)?;
        Ok(ResultWriter { _budget: Some(budget), ..self })
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
            QueryValue::Matrix(series) => {
                while let Some(one) = series.get(self.next) {
                    if out.len() >= PIECE_BYTES {
                        return true;
                    }
                    if self.matrix.write(out, one) {
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
    use crate::value::InstantSample;
    use crate::value::RangeSeries;

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

    fn series(name: &str, ts_ms: Vec<i64>, values: Vec<f64>) -> RangeSeries {
        RangeSeries { ts_ms, values, ..RangeSeries::new(Labels::from_pairs([("__name__", name)])) }
    }

    /// Series of one length after another, so that pieces end in every place a series has, right after its
    /// labels too.
    #[test]
    fn result_pieces_may_end_anywhere() {
        for shift in 0..120 {
            let name = |n: usize| format!("{}{n:04}", "x".repeat(shift));
            let matrix = (0..1_500).map(|n| series(&name(n), vec![1_000, 2_500], vec![0.5, 1.0])).collect();
            let (text, pieces) =
                written(ResultWriter::new(QueryValue::Matrix(matrix), None, None, &Warnings::default()));
            assert!(pieces > 1);
            let rows = (0..1_500).map(|n| {
                format!(r#"{{"metric":{{"__name__":"{}"}},"values":[[1,"0.5"],[2.500,"1"]]}}"#, name(n))
            });
            let expected = format!(
                r#"{{"status":"success","data":{{"resultType":"matrix","result":[{}]}}}}"#,
                rows.collect::<Vec<_>>().join(",")
            );
            assert!(text == expected, "names {} letters longer", shift);
        }
    }

    /// The cases of upstream's json_codec_test.go.
    #[test]
    fn results_are_upstreams_byte_for_byte() {
        let none = Warnings::default();
        let scalar = QueryValue::Scalar { ts_ms: 1500, value: 1e21 };
        assert_eq!(
            written(ResultWriter::new(scalar, None, None, &none)).0,
            r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"1000000000000000000000"]}}"#
        );
        let string = QueryValue::String { ts_ms: 0, value: Arc::from(&b"a<\xc5"[..]) };
        assert_eq!(
            written(ResultWriter::new(string, None, None, &none)).0,
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
            written(ResultWriter::new(vector, None, None, &warnings)).0,
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"<a>"},"value":[1,"0.25"]},{"metric":{},"histogram":[1,{"count":"0","sum":"0"}]}]},"warnings":["w \u003c"],"infos":["i"]}"#
        );
        let mut mixed = series("foo", vec![1000, 3000], vec![1.0, 2.0]);
        mixed.histogram_ts_ms = vec![2000, 4500];
        mixed.histograms = vec![Arc::default(), Arc::default()];
        let matrix = QueryValue::Matrix(vec![mixed, series("bar", vec![2000], vec![f64::NAN])]);
        let want = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"foo"},"values":[[1,"1"],[3,"2"]],"histograms":[[2,{"count":"0","sum":"0"}],[4.500,{"count":"0","sum":"0"}]]},{"metric":{"__name__":"bar"},"values":[[2,"NaN"]]}]}}"#;
        for grid in [None, Some((1000, 1000, 3)), Some((0, 500, 2)), Some((i64::MAX - 5, 1, 1))] {
            assert_eq!(written(ResultWriter::new(matrix.clone(), grid, None, &none)).0, want);
        }
        assert_eq!(
            written(ResultWriter::new(QueryValue::Matrix(vec![]), None, None, &none)).0,
            r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#
        );
    }

    #[test]
    fn result_pieces_come_in_bounded_pieces_and_are_whole() {
        let steps = 11_001;
        let ts: Vec<i64> = (0..steps).map(|i| 1_700_000_000_000 + i * 250).collect();
        let values: Vec<f64> = (0..steps).map(|i| i as f64 / 7.0).collect();
        let matrix = QueryValue::Matrix(
            (0..5).map(|i| series(&format!("m{i}"), ts.clone(), values.clone())).collect(),
        );
        let grid = Some((1_700_000_000_000, 250, steps as usize));
        let mut writer = ResultWriter::new(matrix, grid, None, &Warnings::default());
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
            assert_eq!(points.len(), steps as usize);
            for (i, p) in points.iter().enumerate() {
                assert_eq!(p[0].as_f64().unwrap(), ts[i] as f64 / 1000.0);
                assert_eq!(p[1].as_str().unwrap().parse::<f64>().unwrap(), values[i]);
            }
        }
    }
}
