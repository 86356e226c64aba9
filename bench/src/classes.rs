//! The mix by class over a fleet of node exporters and applications: what dashboards ask of some ten thousand
//! series at once, and of one.

use crate::fleet::FleetOptions;
use crate::queries::Question;

/// How a question is asked.
#[derive(Clone, Copy)]
enum Asked {
    /// At the end of what was sent.
    Now,
    /// An hour in steps of 15 seconds.
    Hour,
    /// A day in steps of a minute, of which the fleet fills what it has.
    Day,
}

use Asked::{Day, Hour, Now};

const CPU: &str = "node_cpu_seconds_total";
const INSTANCE: &str = r#"instance="node-00003-0.eu-central-1.compute.internal:9100""#;
const BUCKETS: &str = "app_request_duration_seconds_bucket";

/// All questions, class by class.
pub fn classes(fleet: &FleetOptions) -> Vec<Question> {
    let mut all = Vec::new();
    for (class, questions) in [
        ("single series", single_series()),
        ("one metric, all targets", one_metric()),
        ("range 1 h, step 15 s", ranges()),
        ("range 24 h, step 60 s", days()),
        ("topk", topk()),
        ("histogram_quantile", quantiles()),
        ("regex", regexes()),
        ("high cardinality", high_cardinality()),
        ("joins, ratios", joins()),
        ("subqueries", subqueries()),
        ("absent, offset, changes, resets", others()),
    ] {
        all.extend(questions.into_iter().map(|q| q.at(fleet, class)));
    }
    all.extend(lookups(fleet));
    all
}

/// A query of a class, before it is known when the fleet ends.
struct Query {
    name: &'static str,
    asked: Asked,
    text: String,
    /// VictoriaMetrics defines a function in it its own way.
    own_way: bool,
}

fn same(name: &'static str, asked: Asked, text: impl Into<String>) -> Query {
    Query { name, asked, text: text.into(), own_way: false }
}

fn own(name: &'static str, asked: Asked, text: impl Into<String>) -> Query {
    Query { name, asked, text: text.into(), own_way: true }
}

impl Query {
    fn at(self, fleet: &FleetOptions, class: &'static str) -> Question {
        let end = (fleet.begin_ms + fleet.steps() * fleet.interval_ms) / 1000;
        let over = |seconds: i64, step: i64| {
            vec![("start", (end - seconds).to_string()), ("end", end.to_string()), ("step", step.to_string())]
        };
        let (path, mut parameters) = match self.asked {
            Now => ("/api/v1/query", vec![("time", end.to_string())]),
            Hour => ("/api/v1/query_range", over(3600, 15)),
            Day => ("/api/v1/query_range", over(86_400, 60)),
        };
        parameters.push(("query", self.text));
        Question { name: self.name, class: Some(class), path: path.into(), parameters, own_way: self.own_way }
    }
}

fn single_series() -> Vec<Query> {
    vec![
        same("constant", Now, "1"),
        same("one series, now", Now, format!("node_load1{{{INSTANCE}}}")),
        same("one series, 1 h", Hour, format!("node_load1{{{INSTANCE}}}")),
        own("one host's CPUs, rate", Hour, format!(r#"rate({CPU}{{{INSTANCE},mode="user"}}[5m])"#)),
        same("one series, max_over_time", Now, format!("max_over_time(node_load1{{{INSTANCE}}}[10m])")),
    ]
}

fn one_metric() -> Vec<Query> {
    vec![
        same("count", Now, format!("count({CPU})")),
        same("count by", Now, format!("count by (mode) ({CPU})")),
        same("sum", Now, format!("sum({CPU})")),
        same("avg by", Now, format!("avg by (mode) ({CPU})")),
        same("max by", Now, format!("max by (instance) ({CPU})")),
        own("sum by rate", Now, format!("sum by (mode) (rate({CPU}[5m]))")),
        same("one gauge of each", Now, "node_load1"),
    ]
}

fn ranges() -> Vec<Query> {
    vec![
        same("count, 1 h", Hour, format!("count({CPU})")),
        same("avg by, 1 h", Hour, format!("avg by (mode) ({CPU})")),
        own("sum by rate, 1 h", Hour, format!("sum by (mode) (rate({CPU}[5m]))")),
        own("sum by instance rate, 1 h", Hour, format!("sum by (instance) (rate({CPU}[5m]))")),
        own("sum of rates, 1 h", Hour, "sum(rate(node_network_receive_bytes_total[5m]))"),
        same("max_over_time, 1 h", Hour, "max by (rack) (max_over_time(node_load1[10m]))"),
        same("one gauge of each, 1 h", Hour, "node_load1"),
    ]
}

fn days() -> Vec<Query> {
    vec![
        same("avg, day", Day, "avg(node_memory_MemAvailable_bytes)"),
        own("sum by rate, day", Day, format!("sum by (mode) (rate({CPU}[5m]))")),
        same("max by, day", Day, "max by (rack) (node_load5)"),
        same("avg_over_time, day", Day, "avg by (rack) (avg_over_time(node_load1[10m]))"),
    ]
}

fn topk() -> Vec<Query> {
    vec![
        same("topk", Now, "topk(10, node_memory_MemAvailable_bytes)"),
        own("topk of rates", Now, format!("topk(5, sum by (instance) (rate({CPU}[5m])))")),
        same("topk, 1 h", Hour, "topk(5, node_memory_MemAvailable_bytes)"),
    ]
}

fn quantiles() -> Vec<Query> {
    vec![
        own("p99", Now, format!("histogram_quantile(0.99, sum by (le) (rate({BUCKETS}[5m])))")),
        own("p99, 1 h", Hour, format!("histogram_quantile(0.99, sum by (le) (rate({BUCKETS}[5m])))")),
        own(
            "p90 by handler, 1 h",
            Hour,
            format!("histogram_quantile(0.9, sum by (le, handler) (rate({BUCKETS}[5m])))"),
        ),
    ]
}

fn regexes() -> Vec<Query> {
    vec![
        same("names and devices", Now, r#"count({__name__=~"node_disk_.*",device=~"nvme.*"})"#),
        same("not these", Now, r#"count(node_network_up{device!~"lo|docker.*",rack!="rack-000"})"#),
        own(
            "failures, 1 h",
            Hour,
            r#"sum by (handler) (rate(app_request_duration_seconds_count{code=~"5.."}[5m]))"#,
        ),
        own("hosts by regex, 1 h", Hour, format!(r#"sum(rate({CPU}{{instance=~"node-000[0-3].*"}}[5m]))"#)),
    ]
}

fn high_cardinality() -> Vec<Query> {
    vec![
        same("all of a job", Now, r#"count({job="node-exporter"})"#),
        same("metrics by size", Now, r#"topk(10, count by (__name__) ({__name__=~".+"}))"#),
        same("series of each host", Now, r#"count by (instance) ({__name__=~"node_.*"})"#),
    ]
}

fn joins() -> Vec<Query> {
    let failed = r#"sum by (handler) (rate(app_request_duration_seconds_count{code="500"}[5m]))"#;
    let of_all = "sum by (handler) (rate(app_request_duration_seconds_count[5m]))";
    vec![
        same("filling disks", Now, "1 - node_filesystem_avail_bytes / node_filesystem_size_bytes > 0.5"),
        same("disks, 1 h", Hour, "node_filesystem_avail_bytes / node_filesystem_size_bytes"),
        same("memory, 1 h", Hour, "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes"),
        own("failures of all, 1 h", Hour, format!("{failed} / {of_all}")),
    ]
}

fn subqueries() -> Vec<Query> {
    let received = "rate(node_network_receive_bytes_total[5m])";
    vec![
        own("max of a rate", Now, format!("max by (device) (max_over_time({received}[30m:1m]))")),
        own("avg of a sum", Now, format!("avg_over_time(sum by (mode) (rate({CPU}[5m]))[30m:1m])")),
    ]
}

fn others() -> Vec<Query> {
    vec![
        same("absent", Now, r#"absent(node_load1{instance="nobody"})"#),
        own("offset, 1 h", Hour, "sum by (rack) (node_load1) - sum by (rack) (node_load1 offset 30m)"),
        own("changes, 1 h", Hour, "sum by (rack) (changes(node_load1[10m]))"),
        own("resets, 1 h", Hour, format!("sum by (mode) (resets({CPU}[10m]))")),
    ]
}

/// What menus ask.
fn lookups(fleet: &FleetOptions) -> Vec<Question> {
    let end = (fleet.begin_ms + fleet.steps() * fleet.interval_ms) / 1000;
    let times = [("start", (fleet.begin_ms / 1000).to_string()), ("end", end.to_string())];
    let question = |name, path: &str, selector: Option<&str>| {
        let mut parameters = times.to_vec();
        parameters.extend(selector.map(|s| ("match[]", s.to_string())));
        Question {
            name,
            class: Some("labels, values, series"),
            path: path.into(),
            parameters,
            own_way: false,
        }
    };
    vec![
        question("label names", "/api/v1/labels", None),
        question("label names of a metric", "/api/v1/labels", Some(CPU)),
        question("metric names", "/api/v1/label/__name__/values", None),
        question("instances", "/api/v1/label/instance/values", None),
        question("instances of a metric", "/api/v1/label/instance/values", Some(CPU)),
        question("series of a gauge", "/api/v1/series", Some("node_load1")),
        question("series of a counter", "/api/v1/series", Some(CPU)),
        question("series of many metrics", "/api/v1/series", Some(r#"{__name__=~"node_(cpu|disk|netw).*"}"#)),
    ]
}
