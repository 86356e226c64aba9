//! A client of Prometheus' HTTP API that keeps answers as sets keyed by labels, so that two servers can be
//! compared.

use super::remote_write::{self, Series};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

pub type Labels = BTreeMap<String, String>;

/// What a query answered; timestamps in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Scalar(i64, f64),
    Text(i64, String),
    Vector(BTreeMap<Labels, (i64, f64)>),
    Matrix(BTreeMap<Labels, Vec<(i64, f64)>>),
}

impl Data {
    pub fn is_empty(&self) -> bool {
        match self {
            Data::Vector(v) => v.is_empty(),
            Data::Matrix(m) => m.is_empty(),
            _ => false,
        }
    }

    pub fn matrix(self) -> BTreeMap<Labels, Vec<(i64, f64)>> {
        match self {
            Data::Matrix(m) => m,
            other => panic!("a matrix was expected, not {other:?}"),
        }
    }

    pub fn vector(self) -> BTreeMap<Labels, (i64, f64)> {
        match self {
            Data::Vector(v) => v,
            other => panic!("a vector was expected, not {other:?}"),
        }
    }

    /// The one value of a vector of one series.
    pub fn single(self) -> f64 {
        let v = self.vector();
        assert_eq!(v.len(), 1, "one series was expected: {v:?}");
        v.values().next().map(|(_, value)| *value).expect("there is one")
    }
}

/// One answer of a server.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("status {}, not JSON ({e}): {}", self.status, start_of(&self.text())))
    }

    /// `data` of an answer that must be a success.
    pub fn data(&self) -> Value {
        assert_eq!(self.status, 200, "{}", start_of(&self.text()));
        let mut json = self.json();
        assert_eq!(json["status"], "success", "{}", start_of(&self.text()));
        json["data"].take()
    }

    /// Asserts the envelope of an error and gives back its text.
    pub fn error(&self, status: u16, error_type: &str) -> String {
        assert_eq!(self.status, status, "{}", start_of(&self.text()));
        let json = self.json();
        assert_eq!(json["status"], "error", "{json}");
        assert_eq!(json["errorType"], error_type, "{json}");
        let text = json["error"].as_str().unwrap_or_else(|| panic!("no error text in {json}")).to_owned();
        assert!(!text.is_empty(), "an error without words: {json}");
        text
    }
}

/// A server that speaks Prometheus' API.
#[derive(Clone)]
pub struct Api {
    pub base: String,
    agent: ureq::Agent,
}

impl Api {
    pub fn new(port: u16) -> Api {
        Api::keeping(port, 3)
    }

    /// With a connection for each request: an answer that comes before all of a request was read ends the
    /// connection, and the next request on it may see that.
    pub fn with_fresh_connections(port: u16) -> Api {
        Api::keeping(port, 0)
    }

    fn keeping(port: u16, connections: usize) -> Api {
        let agent = ureq::Agent::config_builder()
            .max_idle_connections(connections)
            .max_idle_connections_per_host(connections)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(120)))
            .proxy(None)
            .build()
            .new_agent();
        Api { base: format!("http://127.0.0.1:{port}"), agent }
    }

    /// GET; an error only where no answer came at all.
    pub fn try_get(&self, path: &str, pairs: &[(&str, &str)]) -> Result<Answer, ureq::Error> {
        let query = form(pairs);
        let mark = if query.is_empty() { "" } else { "?" };
        answer(self.agent.get(format!("{}{path}{mark}{query}", self.base)).call()?)
    }

    pub fn get(&self, path: &str, pairs: &[(&str, &str)]) -> Answer {
        self.try_get(path, pairs).unwrap_or_else(|e| panic!("GET {path} {pairs:?}: {e}"))
    }

    /// GET with headers; the path may have a query.
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.try_get_with(path, headers).unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    pub fn try_get_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.call().and_then(answer)
    }

    /// POST of a form.
    pub fn post_form(&self, path: &str, pairs: &[(&str, &str)]) -> Answer {
        self.post(path, &[("Content-Type", "application/x-www-form-urlencoded")], form(pairs).as_bytes())
    }

    pub fn try_post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send(body)?)
    }

    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_post(path, headers, body).unwrap_or_else(|e| panic!("POST {path}: {e}"))
    }

    /// Any method, with an empty body.
    pub fn call(&self, method: &str, path: &str) -> Answer {
        let url = format!("{}{path}", self.base);
        let result = match method {
            "DELETE" => self.agent.delete(url).call(),
            "PUT" => self.agent.put(url).send_empty(),
            "PATCH" => self.agent.patch(url).send_empty(),
            "POST" => self.agent.post(url).send_empty(),
            "HEAD" => self.agent.head(url).call(),
            "OPTIONS" => self.agent.options(url).call(),
            _ => self.agent.get(url).call(),
        };
        result.and_then(answer).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// Remote write 1.0 as Prometheus sends it.
    pub fn try_write(&self, series: &[Series]) -> Result<Answer, ureq::Error> {
        self.try_write_raw(&remote_write::snappy(&remote_write::write_request(series)))
    }

    /// Remote write 1.0 with a body of any bytes.
    pub fn try_write_raw(&self, body: &[u8]) -> Result<Answer, ureq::Error> {
        let headers = [
            ("Content-Encoding", "snappy"),
            ("Content-Type", "application/x-protobuf"),
            ("X-Prometheus-Remote-Write-Version", "0.1.0"),
            ("User-Agent", "test-service/1"),
        ];
        self.try_post("/api/v1/write", &headers, body)
    }

    /// Writes and asserts that all of it was acknowledged.
    pub fn write(&self, series: &[Series]) {
        let answer = self.try_write(series).unwrap_or_else(|e| panic!("a write got no answer: {e}"));
        assert_eq!(answer.status, 204, "{}", start_of(&answer.text()));
    }

    pub fn instant(&self, expr: &str, time_ms: i64) -> Data {
        data(&self.post_form("/api/v1/query", &[("query", expr), ("time", &seconds(time_ms))]).data_of(expr))
    }

    pub fn range(&self, expr: &str, start_ms: i64, end_ms: i64, step_ms: i64) -> Data {
        let (start, end, step) = (seconds(start_ms), seconds(end_ms), seconds(step_ms));
        let pairs = [("query", expr), ("start", &start), ("end", &end), ("step", &step)];
        data(&self.post_form("/api/v1/query_range", &pairs).data_of(expr))
    }

    /// `POST /-/flush`, which must work.
    pub fn flush(&self) {
        let answer = self.call("POST", "/-/flush");
        assert!((200..300).contains(&answer.status), "flush: {} {}", answer.status, start_of(&answer.text()));
    }
}

impl Answer {
    fn data_of(&self, expr: &str) -> Value {
        assert_eq!(self.status, 200, "{expr}: {}", start_of(&self.text()));
        self.data()
    }
}

fn answer(response: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let (parts, body) = response.into_parts();
    let headers = parts
        .headers
        .iter()
        .map(|(k, v)| (k.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
        .collect();
    let body = body.into_with_config().limit(1 << 30).read_to_vec()?;
    Ok(Answer { status: parts.status.as_u16(), headers, body })
}

/// Bytes of an URL's path or query as they must stand there (RFC 3986, section 2.3).
pub fn percent(text: &[u8], keep_slash: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for &b in text {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) || (keep_slash && b == b'/') {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

fn form(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(k, v)| format!("{}={}", percent(k.as_bytes(), false), percent(v.as_bytes(), false)))
        .collect();
    pairs.join("&")
}

pub fn seconds(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", ms.abs() / 1000, ms.abs() % 1000)
}

/// At most the first 600 characters.
pub fn start_of(text: &str) -> String {
    text.chars().take(600).collect()
}

/// `data` of an answer to a query, as sets.
pub fn data(value: &Value) -> Data {
    let result = &value["result"];
    let list = || result.as_array().unwrap_or_else(|| panic!("no list in {value}"));
    match value["resultType"].as_str() {
        Some("scalar") => {
            let (t, v) = point(result);
            Data::Scalar(t, v)
        }
        Some("string") => Data::Text(millis(&result[0]), result[1].as_str().unwrap_or_default().to_owned()),
        Some("vector") => {
            let mut out = BTreeMap::new();
            for row in list() {
                let labels = labels(&row["metric"]);
                assert!(
                    out.insert(labels, point(&row["value"])).is_none(),
                    "two series of the same labels: {row}"
                );
            }
            Data::Vector(out)
        }
        Some("matrix") => {
            let mut out = BTreeMap::new();
            for row in list() {
                let points = row["values"]
                    .as_array()
                    .unwrap_or_else(|| panic!("no values in {row}"))
                    .iter()
                    .map(point)
                    .collect();
                assert!(
                    out.insert(labels(&row["metric"]), points).is_none(),
                    "two series of the same labels: {}",
                    row["metric"]
                );
            }
            Data::Matrix(out)
        }
        _ => panic!("no known resultType: {}", start_of(&value.to_string())),
    }
}

pub fn labels(value: &Value) -> Labels {
    let map = value.as_object().unwrap_or_else(|| panic!("no labels: {value}"));
    map.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
}

fn millis(value: &Value) -> i64 {
    (value.as_f64().unwrap_or_else(|| panic!("no timestamp: {value}")) * 1000.0).round() as i64
}

fn point(value: &Value) -> (i64, f64) {
    let text = value[1].as_str().unwrap_or_else(|| panic!("a value is a string: {value}"));
    (millis(&value[0]), text.parse().unwrap_or_else(|_| panic!("not a number: {text}")))
}
