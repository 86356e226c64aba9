//! Successful answers: the envelope around small data, and query results written piece by piece as the client takes them.

pub mod json;
pub(in crate::api) mod resolution;
pub(in crate::api) mod streamed;
pub(in crate::api) mod syntax_tree;

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use model::labels::Labels;
use model::sample::Value;
use model::source::Budget;

use crate::value::{QueryStats, QueryValue, RangeSeries, SamplesPerStep};

/// How large a piece grows before it is handed to the connection. At several hundred megabytes a second a piece costs the runtime's
/// thread about a fifth of a millisecond.
pub(in crate::api) const PIECE_BYTES: usize = 64 << 10;

/// Warnings and infos beside the data; empty ones are left out of the answer.
#[derive(Clone, Debug, Default)]
pub struct Remarks {
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
}

impl Remarks {
    pub fn truncated() -> Remarks {
        Remarks { warnings: vec![TRUNCATED.into()], infos: vec![] }
    }

    pub(in crate::api) fn write(&self, out: &mut Vec<u8>) {
        for (name, texts) in [("warnings", &self.warnings), ("infos", &self.infos)] {
            if !texts.is_empty() {
                out.extend_from_slice(format!(",\"{name}\":").as_bytes());
                json::strings(out, texts);
            }
        }
    }
}

/// The warning of an answer that `limit` cut.
pub const TRUNCATED: &str = "results truncated due to limit";

pub(in crate::api) const HEAD: &[u8] = br#"{"status":"success","data":"#;

/// `{"status":"success","data":…}` with data that `write` appends.
pub fn success(remarks: &Remarks, write: impl FnOnce(&mut Vec<u8>)) -> Response {
    let mut out = HEAD.to_vec();
    write(&mut out);
    remarks.write(&mut out);
    out.push(b'}');
    respond(Body::from(out))
}

/// The same with data through serde.
pub fn small<T: serde::Serialize + ?Sized>(data: &T) -> Response {
    success(&Remarks::default(), |out| json::small(out, data))
}

/// Success without data.
pub fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

pub(in crate::api) fn respond(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Something that is written a piece at a time.
pub trait Pieces: Send + 'static {
    /// Appends until `out` has about `PIECE_BYTES` or all is written; whether there is more.
    fn fill(&mut self, out: &mut Vec<u8>) -> bool;
}

/// One piece and no more becomes a plain body with a length; longer answers are written when the connection asks for the next piece, so
/// that a slow client costs memory for the result and one piece, but no thread. Dropping the body stops the work.
pub fn streamed(mut pieces: impl Pieces) -> Response {
    let mut first = Vec::with_capacity(4 << 10);
    if !pieces.fill(&mut first) {
        return respond(Body::from(first));
    }
    let rest = Rest { first: Some(first), pieces: Some(pieces) };
    respond(Body::from_stream(futures::stream::iter(rest)))
}

/// The pieces one after the other. Past the end it stays at the end: compression layers ask once more than they need to.
struct Rest<P> {
    first: Option<Vec<u8>>,
    pieces: Option<P>,
}

impl<P: Pieces> Iterator for Rest<P> {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(first) = self.first.take() {
            return Some(Ok(Bytes::from(first)));
        }
        let pieces = self.pieces.as_mut()?;
        let mut out = Vec::with_capacity(PIECE_BYTES + (8 << 10));
        if !pieces.fill(&mut out) {
            self.pieces = None;
        }
        (!out.is_empty()).then(|| Ok(Bytes::from(out)))
    }
}

/// A list under `data`, some items at a time; for [`Pieces::fill`].
pub fn list<T>(
    out: &mut Vec<u8>,
    begun: &mut bool,
    items: &mut std::vec::IntoIter<T>,
    remarks: &Remarks,
    write: impl Fn(&mut Vec<u8>, T),
) -> bool {
    let mut first = !*begun;
    if first {
        out.extend_from_slice(HEAD);
        out.push(b'[');
        *begun = true;
    }
    while out.len() < PIECE_BYTES {
        let Some(item) = items.next() else {
            out.push(b']');
            remarks.write(out);
            out.push(b'}');
            return false;
        };
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        write(out, item);
    }
    true
}

/// The times of a range query: `[t,"` of each is rendered once and copied for every series after the first.
pub(in crate::api) struct Grid {
    start_ms: i64,
    step_ms: i64,
    rendered: Vec<([u8; 30], u8)>,
}

impl Grid {
    pub fn new(start_ms: i64, step_ms: i64, steps: usize) -> Grid {
        Grid { start_ms, step_ms, rendered: vec![([0; 30], 0); steps] }
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

fn point_start(out: &mut Vec<u8>, t_ms: i64) {
    out.push(b'[');
    json::timestamp(out, t_ms);
    out.push(b',');
}

/// `"data":{"resultType":…,"result":…}` of a query, written from the value without a second copy of it.
pub struct ResultWriter {
    value: QueryValue,
    grid: Grid,
    /// The next series or sample.
    at: usize,
    /// Within a series of a matrix: the next point of its values, then of its histograms.
    point: usize,
    /// Whether the labels of that series are written: a piece may end right after them.
    labelled: bool,
    step: usize,
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
        remarks: &Remarks,
    ) -> ResultWriter {
        let (start_ms, step_ms, steps) = range.unwrap_or((0, 1, 0));
        let tail = tail(stats, remarks);
        ResultWriter {
            value,
            grid: Grid::new(start_ms, step_ms, steps),
            at: 0,
            point: 0,
            labelled: false,
            step: 0,
            begun: false,
            tail,
            _budget: None,
        }
    }

    /// Keeps the budget, to which the value was charged, as long as the value.
    pub fn holding(self, budget: Arc<Budget>) -> ResultWriter {
        ResultWriter { _budget: Some(budget), ..self }
    }
}

/// What comes after the result: statistics, the end of the data, warnings, infos.
pub(in crate::api) fn tail(stats: Option<&Stats>, remarks: &Remarks) -> Vec<u8> {
    let mut tail = Vec::new();
    if let Some(stats) = stats {
        tail.extend_from_slice(br#","stats":"#);
        json::small(&mut tail, stats);
    }
    tail.push(b'}');
    remarks.write(&mut tail);
    tail.push(b'}');
    tail
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
                while let Some(sample) = samples.get(self.at) {
                    if out.len() >= PIECE_BYTES {
                        return true;
                    }
                    if self.at > 0 {
                        out.push(b',');
                    }
                    self.at += 1;
                    instant(out, &sample.labels, *ts_ms, &sample.value);
                }
            }
            QueryValue::HandedOut(_) => {}
            QueryValue::Matrix(series) => {
                while let Some(one) = series.get(self.at) {
                    if out.len() >= PIECE_BYTES {
                        return true;
                    }
                    if !std::mem::replace(&mut self.labelled, true) {
                        if self.at > 0 {
                            out.push(b',');
                        }
                        out.extend_from_slice(br#"{"metric":"#);
                        json::labels(out, &one.labels);
                        self.step = 0;
                    }
                    if points(out, one, &mut self.point, &mut self.step, &mut self.grid) {
                        out.push(b'}');
                        self.at += 1;
                        self.point = 0;
                        self.labelled = false;
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

/// `,"values":[…],"histograms":[…]` from `point` on, each left out where it is empty; whether the series is finished.
pub(in crate::api) fn points(
    out: &mut Vec<u8>,
    series: &RangeSeries,
    point: &mut usize,
    step: &mut usize,
    grid: &mut Grid,
) -> bool {
    let floats = series.ts_ms.len().min(series.values.len());
    while *point < floats {
        if out.len() >= PIECE_BYTES {
            return false;
        }
        out.extend_from_slice(if *point == 0 { br#","values":["#.as_slice() } else { b",".as_slice() });
        grid.point(out, series.ts_ms[*point], step);
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
        grid.point(out, series.histogram_ts_ms[i], step);
        json::histogram(out, &series.histograms[i]);
        out.push(b']');
        *point += 1;
        if i + 1 == histograms {
            out.push(b']');
        }
    }
    true
}

/// Upstream's `stats` object (`util/stats.BuiltinStats`).
#[derive(serde::Serialize)]
pub struct Stats {
    timings: Timings,
    samples: Samples,
    /// Hearth's own: which resolution answered which part of time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resolutions: Vec<resolution::Part>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Timings {
    eval_total_time: f64,
    result_sort_time: f64,
    query_preparation_time: f64,
    inner_eval_time: f64,
    exec_queue_time: f64,
    exec_total_time: f64,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Samples {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    total_queryable_samples_per_step: Vec<(Seconds, u64)>,
    total_queryable_samples: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples_read_per_step: Vec<(Seconds, u64)>,
    samples_read: u64,
    peak_samples: u64,
}

/// Milliseconds, written as seconds as Go writes them: without decimals where there are none.
struct Seconds(i64);

impl serde::Serialize for Seconds {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0 % 1000 == 0 {
            to.serialize_i64(self.0 / 1000)
        } else {
            to.serialize_f64(self.0 as f64 / 1000.0)
        }
    }
}

impl Stats {
    pub fn new(stats: &QueryStats, queued: std::time::Duration) -> Stats {
        let per_step = |of: fn(&SamplesPerStep) -> &Vec<u64>| match &stats.samples_per_step {
            None => Vec::new(),
            Some(all) => {
                let at =
                    |i: usize| Seconds(all.start_ms.saturating_add(all.step_ms.saturating_mul(i as i64)));
                of(all).iter().enumerate().map(|(i, n)| (at(i), *n)).collect()
            }
        };
        Stats {
            timings: Timings {
                eval_total_time: (stats.prepare + stats.eval + stats.sort).as_secs_f64(),
                result_sort_time: stats.sort.as_secs_f64(),
                query_preparation_time: stats.prepare.as_secs_f64(),
                inner_eval_time: stats.eval.as_secs_f64(),
                exec_queue_time: queued.as_secs_f64(),
                exec_total_time: (stats.total + queued).as_secs_f64(),
            },
            samples: Samples {
                total_queryable_samples_per_step: per_step(|s| &s.total),
                total_queryable_samples: stats.samples_total,
                samples_read_per_step: per_step(|s| &s.read),
                samples_read: stats.samples_new,
                peak_samples: stats.samples_peak,
            },
            resolutions: resolution::parts(&stats.answered),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::value::InstantSample;

    fn all(mut writer: impl Pieces) -> (String, usize) {
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

    /// Series of one length after another, so that pieces end in every place a series has, right after its labels too.
    #[test]
    fn a_piece_may_end_anywhere() {
        for shift in 0..120 {
            let name = |n: usize| format!("{}{n:04}", "x".repeat(shift));
            let matrix = (0..1_500).map(|n| series(&name(n), vec![1_000, 2_500], vec![0.5, 1.0])).collect();
            let (text, pieces) =
                all(ResultWriter::new(QueryValue::Matrix(matrix), None, None, &Remarks::default()));
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
        let none = Remarks::default();
        let scalar = QueryValue::Scalar { ts_ms: 1500, value: 1e21 };
        assert_eq!(
            all(ResultWriter::new(scalar, None, None, &none)).0,
            r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"1000000000000000000000"]}}"#
        );
        let string = QueryValue::String { ts_ms: 0, value: Arc::from(&b"a<\xc5"[..]) };
        assert_eq!(
            all(ResultWriter::new(string, None, None, &none)).0,
            "{\"status\":\"success\",\"data\":{\"resultType\":\"string\",\"result\":[0,\"a\\u003c\u{fffd}\"]}}"
        );
        let remarks = Remarks { warnings: vec!["w <".into()], infos: vec!["i".into()] };
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
            all(ResultWriter::new(vector, None, None, &remarks)).0,
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"<a>"},"value":[1,"0.25"]},{"metric":{},"histogram":[1,{"count":"0","sum":"0"}]}]},"warnings":["w \u003c"],"infos":["i"]}"#
        );
        let mut mixed = series("foo", vec![1000, 3000], vec![1.0, 2.0]);
        mixed.histogram_ts_ms = vec![2000, 4500];
        mixed.histograms = vec![Arc::default(), Arc::default()];
        let matrix = QueryValue::Matrix(vec![mixed, series("bar", vec![2000], vec![f64::NAN])]);
        let want = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"foo"},"values":[[1,"1"],[3,"2"]],"histograms":[[2,{"count":"0","sum":"0"}],[4.500,{"count":"0","sum":"0"}]]},{"metric":{"__name__":"bar"},"values":[[2,"NaN"]]}]}}"#;
        for grid in [None, Some((1000, 1000, 3)), Some((0, 500, 2)), Some((i64::MAX - 5, 1, 1))] {
            assert_eq!(all(ResultWriter::new(matrix.clone(), grid, None, &none)).0, want);
        }
        assert_eq!(
            all(ResultWriter::new(QueryValue::Matrix(vec![]), None, None, &none)).0,
            r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#
        );
    }

    #[test]
    fn large_results_come_in_bounded_pieces_and_are_whole() {
        let steps = 11_001;
        let ts: Vec<i64> = (0..steps).map(|i| 1_700_000_000_000 + i * 250).collect();
        let values: Vec<f64> = (0..steps).map(|i| i as f64 / 7.0).collect();
        let matrix = QueryValue::Matrix(
            (0..5).map(|i| series(&format!("m{i}"), ts.clone(), values.clone())).collect(),
        );
        let grid = Some((1_700_000_000_000, 250, steps as usize));
        let mut writer = ResultWriter::new(matrix, grid, None, &Remarks::default());
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
