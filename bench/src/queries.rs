//! The query mix: the questions of dashboards by class, asked warm, timed, and their answers kept for
//! comparison.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::FleetOptions;
use crate::load::quantile;
use crate::server::{Kind, Server, agent};

/// One question of the mix.
#[derive(Clone, Debug)]
pub struct Question {
    /// Short enough for a table.
    pub name: &'static str,
    /// The class it belongs to, if it is one of several.
    pub class: Option<&'static str>,
    pub path: String,
    pub parameters: Vec<(&'static str, String)>,
    /// VictoriaMetrics defines the functions in it differently: its answer is not compared.
    pub own_way: bool,
}

/// How a question was answered.
#[derive(Clone, Debug)]
pub struct TimedAnswer {
    pub name: &'static str,
    pub class: Option<&'static str>,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub cpu_ms: f64,
    pub answer: Result<Value, String>,
    own_way: bool,
}

/// The mix for a fleet, at the end of what it sent.
pub fn mix(fleet: &FleetOptions) -> Vec<Question> {
    let end = (fleet.begin_ms + fleet.steps() * fleet.interval_ms) / 1000;
    let begin = fleet.begin_ms / 1000;
    let instant = |name, query: &str, own_way| Question {
        name,
        class: None,
        path: "/api/v1/query".into(),
        parameters: vec![("query", query.into()), ("time", end.to_string())],
        own_way,
    };
    let range = |name, query: &str, seconds: i64, own_way| {
        let from = (end - seconds).max(begin);
        // About as many points as a panel is wide.
        let step = ((end - from) / 240).max(15);
        Question {
            name,
            class: None,
            path: "/api/v1/query_range".into(),
            parameters: vec![
                ("query", query.into()),
                ("start", from.to_string()),
                ("end", end.to_string()),
                ("step", step.to_string()),
            ],
            own_way,
        }
    };
    let labels = |name, path: &str, selector: &str| {
        let mut parameters = vec![("start", begin.to_string()), ("end", end.to_string())];
        if !selector.is_empty() {
            parameters.push(("match[]", selector.into()));
        }
        Question { name, class: None, path: path.into(), parameters, own_way: false }
    };
    let instance = r#"instance="node-00003-0.eu-central-1.compute.internal:9100""#;
    vec![
        instant("single series", &format!("node_load1{{{instance}}}"), false),
        range("single series, range", &format!("node_load1{{{instance}}}"), 7200, false),
        range(
            "one target's CPUs, rate",
            &format!("rate(node_cpu_seconds_total{{{instance}}}[5m])"),
            3600,
            true,
        ),
        instant("one metric, all targets", "node_load1", false),
        range("one metric, all, 1 h", "node_load1", 3600, false),
        instant("count by", "count by (mode) (node_cpu_seconds_total)", false),
        instant("sum rate by, instant", "sum by (mode) (rate(node_cpu_seconds_total[5m]))", true),
        range("sum rate by, 1 h", "sum by (mode) (rate(node_cpu_seconds_total[5m]))", 3600, true),
        range("sum rate by, all", "sum by (rack) (rate(node_network_receive_bytes_total[5m]))", 86400, true),
        instant("topk", "topk(10, node_memory_MemAvailable_bytes)", false),
        instant("quantile", "quantile(0.9, node_load5)", false),
        instant("quantile by", "quantile by (mode) (0.99, node_cpu_seconds_total)", false),
        instant(
            "histogram_quantile",
            "histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))",
            true,
        ),
        instant("join", "1 - node_filesystem_avail_bytes / node_filesystem_size_bytes > 0.5", false),
        range("join, 1 h", "node_filesystem_avail_bytes / node_filesystem_size_bytes", 3600, false),
        range("max_over_time, all", "max by (rack) (max_over_time(node_load1[10m]))", 86400, false),
        instant("regex", r#"count({__name__=~"node_disk_.*",device=~"nvme.*"})"#, false),
        instant("negative", r#"count(node_network_up{device!~"lo|docker.*",rack!="rack-000"})"#, false),
        labels("label names", "/api/v1/labels", ""),
        labels("label values", "/api/v1/label/instance/values", ""),
        labels("metric names", "/api/v1/label/__name__/values", ""),
        labels("series of a metric", "/api/v1/series", "node_load1"),
    ]
}

/// The ten commonest panels: a day in steps of a minute, over a narrow fleet; and what a dashboard's menus
/// and single numbers ask.
pub fn dashboards(fleet: &FleetOptions) -> Vec<Question> {
    let end = (fleet.begin_ms + fleet.steps() * fleet.interval_ms) / 1000;
    let begin = (end - 86_400).max(fleet.begin_ms / 1000);
    let times = [("start", begin.to_string()), ("end", end.to_string())];
    let day = |name, query: &str, own_way| Question {
        name,
        class: None,
        path: "/api/v1/query_range".into(),
        parameters: [("query", query.to_string()), ("step", "60".into())]
            .into_iter()
            .chain(times.clone())
            .collect(),
        own_way,
    };
    let now = |name, query: &str, own_way| Question {
        name,
        class: None,
        path: "/api/v1/query".into(),
        parameters: vec![("query", query.into()), ("time", end.to_string())],
        own_way,
    };
    let lookup = |name, path: &str| Question {
        name,
        class: None,
        path: path.into(),
        parameters: times.to_vec(),
        own_way: false,
    };
    let host = r#"node_cpu_seconds_total{instance="node-00003-0.eu-central-1.compute.internal:9100"}"#;
    let memory = "node_memory_MemAvailable_bytes";
    let cpu = "rate(node_cpu_seconds_total[5m])";
    let buckets = "sum by (le) (rate(http_request_duration_seconds_bucket[5m]))";
    vec![
        day("one host", host, false),
        day("one metric", memory, false),
        day("rate", cpu, true),
        day("sum by rate", &format!("sum by (instance) ({cpu})"), true),
        day("avg", &format!("avg({memory})"), false),
        day("topk", &format!("topk(5, {memory})"), false),
        day("quantile", &format!("quantile(0.9, {memory})"), false),
        day("ratio", &format!("1 - {memory} / node_memory_MemTotal_bytes"), false),
        day("max_over_time 1h", &format!("max_over_time({memory}[1h])"), false),
        day("avg_over_time 1h", &format!("avg_over_time({memory}[1h])"), false),
        day("histogram_quantile", &format!("histogram_quantile(0.99, {buckets})"), true),
        now("one host, now", host, false),
        now("sum by rate, now", &format!("sum by (instance) ({cpu})"), true),
        now("topk, now", &format!("topk(5, {memory})"), false),
        now("a day's increase, now", "sum(increase(node_cpu_seconds_total[1d]))", true),
        lookup("label names", "/api/v1/labels"),
        lookup("label values", "/api/v1/label/instance/values"),
    ]
}

/// CPU time that is enough to tell what a question costs, and how often and how long it is asked for that.
const ENOUGH_CPU_SECONDS: f64 = 0.3;
const MOST_TIMES: u32 = 2000;
const LONGEST: Duration = Duration::from_secs(2);

/// A client that waits two minutes for an answer.
pub fn patient_agent() -> ureq::Agent {
    agent(Duration::from_secs(120))
}

/// Asks once: milliseconds until the whole answer was there, and the answer; or why there was none. `anew`
/// asks servers to use no results that they keep.
pub fn once(
    agent: &ureq::Agent,
    server: &Server,
    q: &Question,
    anew: bool,
) -> Result<(f64, Vec<u8>), String> {
    let mut request = agent.get(format!("{}{}", server.url, q.path));
    for (name, value) in &q.parameters {
        request = request.query(name, value);
    }
    if anew {
        request = request.query("nocache", "1");
    }
    let begun = Instant::now();
    let mut answer = request.call().map_err(|e| e.to_string())?;
    let body = answer.body_mut().with_config().limit(1 << 30).read_to_vec().map_err(|e| e.to_string())?;
    if answer.status() != 200 {
        let text = String::from_utf8_lossy(&body);
        return Err(format!("{}: {}", answer.status(), text.chars().take(300).collect::<String>()));
    }
    Ok((begun.elapsed().as_secs_f64() * 1000.0, body))
}

/// Asks everything: a few times unmeasured, then at least `times` times. Engines are compared, not results
/// caches.
pub fn ask(server: &Server, questions: &[Question], times: u32) -> Vec<TimedAnswer> {
    let agent = patient_agent();
    let once = |q: &Question| once(&agent, server, q, true);
    let mut all = Vec::new();
    for q in questions {
        let first = once(q).and_then(|_| once(q));
        let cpu = server.cpu_seconds();
        let (begun, mut asked) = (Instant::now(), 0);
        let mut took: Vec<f64> = Vec::new();
        // The system counts CPU in steps of 10 ms: what is quick is asked more often, until they are few.
        while asked < times.max(1)
            || (asked < MOST_TIMES
                && begun.elapsed() < LONGEST
                && server.cpu_seconds() - cpu < ENOUGH_CPU_SECONDS)
        {
            took.extend(once(q).ok().map(|(ms, _)| ms));
            asked += 1;
        }
        let cpu_ms = (server.cpu_seconds() - cpu) * 1000.0 / f64::from(asked);
        took.sort_unstable_by(f64::total_cmp);
        let parsed = |body: Vec<u8>| serde_json::from_slice(&body).map_err(|e| e.to_string());
        all.push(TimedAnswer {
            name: q.name,
            class: q.class,
            p50_ms: quantile(&took, 0.5),
            p95_ms: quantile(&took, 0.95),
            cpu_ms,
            answer: first.and_then(|(_, body)| parsed(body)),
            own_way: q.own_way,
        });
    }
    all
}

/// The classes in the order in which they are asked, and at the end all of them: the geometric means of p50
/// and of CPU time of their questions, in milliseconds. Empty where no question has a class.
pub fn by_class(answered: &[TimedAnswer]) -> Vec<(String, f64, f64)> {
    let mean = |of: &dyn Fn(&TimedAnswer) -> f64, which: &dyn Fn(&&TimedAnswer) -> bool| {
        // What is too quick to be measured shall not make a mean of nothing.
        let logs: Vec<f64> = answered.iter().filter(which).map(|a| of(a).max(0.005).ln()).collect();
        (logs.iter().sum::<f64>() / logs.len() as f64).exp()
    };
    let mut classes: Vec<&str> = Vec::new();
    for class in answered.iter().filter_map(|a| a.class) {
        if !classes.contains(&class) {
            classes.push(class);
        }
    }
    let row = |name: &str, which: &dyn Fn(&&TimedAnswer) -> bool| {
        (name.to_string(), mean(&|a| a.p50_ms, which), mean(&|a| a.cpu_ms, which))
    };
    let mut rows: Vec<_> = classes.iter().map(|c| row(&format!("[{c}]"), &|a| a.class == Some(c))).collect();
    if !rows.is_empty() {
        rows.push(row("[all]", &|a| a.class.is_some()));
    }
    rows
}

/// Where two answers to one question differ; `None` where they say the same.
pub fn difference(a: &TimedAnswer, b: &TimedAnswer) -> Option<String> {
    let (left, right) = match (&a.answer, &b.answer) {
        (Ok(left), Ok(right)) => (left, right),
        (Err(e), _) | (_, Err(e)) => return Some(e.clone()),
    };
    let rows = |v: &Value| {
        let data = &v["data"];
        let list = data.get("result").unwrap_or(data).as_array().cloned().unwrap_or_default();
        let mut keyed: Vec<(String, Value)> = list.into_iter().map(|row| (key(&row), row)).collect();
        keyed.sort_by(|a, b| a.0.cmp(&b.0));
        keyed
    };
    let (left, right) = (rows(left), rows(right));
    if left.len() != right.len() {
        return Some(format!("{} rows against {}", left.len(), right.len()));
    }
    for ((ka, va), (kb, vb)) in left.iter().zip(&right) {
        if ka != kb {
            return Some(format!("{ka} against {kb}"));
        }
        if let Some(why) = points(va, vb) {
            return Some(format!("{ka}: {why}"));
        }
    }
    None
}

/// Whether a difference between these two servers says something about either.
pub fn comparable(a: &TimedAnswer, kinds: [&Kind; 2]) -> bool {
    !(a.own_way && kinds.iter().any(|k| matches!(k, Kind::Victoria(_))))
}

/// What names a row: its labels, or all of it where it has none.
fn key(row: &Value) -> String {
    let labels = row.get("metric").unwrap_or(row);
    let Some(map) = labels.as_object() else { return labels.to_string() };
    let mut pairs: Vec<String> = map.iter().map(|(n, v)| format!("{n}={v}")).collect();
    pairs.sort();
    pairs.join(",")
}

fn points(a: &Value, b: &Value) -> Option<String> {
    let list = |v: &Value| -> Vec<Value> {
        let values = v.get("values").and_then(Value::as_array).cloned();
        values.unwrap_or_else(|| v.get("value").cloned().into_iter().collect())
    };
    let (a, b) = (list(a), list(b));
    if a.len() != b.len() {
        return Some(format!("{} points against {}", a.len(), b.len()));
    }
    let number = |v: &Value| v.as_str().and_then(|s| s.parse::<f64>().ok()).unwrap_or(f64::NAN);
    for (x, y) in a.iter().zip(&b) {
        let (u, v) = (number(&x[1]), number(&y[1]));
        // The last digits depend on the order in which a sum was made.
        let same = u == v || (u.is_nan() && v.is_nan()) || (u - v).abs() <= 1e-9 * u.abs().max(v.abs());
        if !same || x[0].as_f64() != y[0].as_f64() {
            return Some(format!("{x} against {y}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answered(result: Value) -> TimedAnswer {
        let answer = Ok(json!({"status": "success", "data": {"resultType": "vector", "result": result}}));
        let (name, class, own_way) = ("x", None, false);
        TimedAnswer { name, class, p50_ms: 0.0, p95_ms: 0.0, cpu_ms: 0.0, answer, own_way }
    }

    #[test]
    fn answers_are_compared_by_labels_and_nearly_equal_numbers() {
        let a = answered(json!([
            {"metric": {"a": "1"}, "value": [1, "0.1"]},
            {"metric": {"a": "2"}, "value": [1, "NaN"]},
        ]));
        let b = answered(json!([
            {"metric": {"a": "2"}, "value": [1.0, "NaN"]},
            {"metric": {"a": "1"}, "value": [1.0, "0.10000000000000001"]},
        ]));
        assert_eq!(difference(&a, &b), None);
        let c = answered(json!([
            {"metric": {"a": "2"}, "value": [1, "NaN"]},
            {"metric": {"a": "1"}, "value": [1, "0.2"]},
        ]));
        assert!(difference(&a, &c).unwrap().contains("0.2"));
        assert_eq!(difference(&a, &answered(json!([]))), Some("2 rows against 0".into()));
    }

    #[test]
    fn classes_are_geometric_means_of_their_questions() {
        let one = |class, ms| TimedAnswer { class, p50_ms: ms, cpu_ms: 2.0 * ms, ..answered(json!([])) };
        let all = [one(Some("a"), 1.0), one(Some("b"), 8.0), one(Some("a"), 4.0), one(None, 99.0)];
        let rows = by_class(&all);
        let names: Vec<&str> = rows.iter().map(|r| r.0.as_str()).collect();
        assert_eq!(names, ["[a]", "[b]", "[all]"]);
        for (row, p50_ms) in rows.iter().zip([2.0, 8.0, 32f64.powf(1.0 / 3.0)]) {
            assert!((row.1 - p50_ms).abs() < 1e-9 && (row.2 - 2.0 * p50_ms).abs() < 1e-9, "{row:?}");
        }
        assert!(by_class(&all[3..]).is_empty());
    }
}
