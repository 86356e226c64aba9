//! Grafana's Prometheus data source against the running binary: the requests it makes, put as Grafana puts
//! them, and its own published code (`@grafana/prometheus`) on Node.
//!
//! Of that code runs what needs no browser: its start (exemplars, rules, metrics and metadata), label names
//! and values, all forms of variables, ad-hoc filters, and the way of a panel's frames. The query editor
//! (React) and Grafana's backend (Go: its health check, and the conversion of answers to frames) do not run
//! here.

mod test_services;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use test_services::api::seconds;
use test_services::remote_write::{bytes_field, snappy, write_request};
use test_services::{Hearth, Start, installed, now_ms, series, wait_for};

#[test]
fn grafana_gets_answers_to_what_it_asks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut hearth = Start::at(folder.path()).ready();
    let now = now_ms() / 1000 * 1000;
    let samples: Vec<_> = (0..40).map(|i| (now - 600_000 + i * 15_000, i as f64)).collect();
    let mut body = write_request(&[
        series(&[("__name__", "http_requests_total"), ("instance", "a:1"), ("job", "web")], &samples),
        series(&[("__name__", "http_requests_total"), ("instance", "b:1"), ("job", "web")], &samples),
    ]);
    // `MetricMetadata`, field 3 of the request: type 1 (counter), family name 2, help 4, unit 5.
    let mut metadata = vec![1 << 3, 1];
    bytes_field(&mut metadata, 2, b"http_requests_total");
    bytes_field(&mut metadata, 4, b"Requests answered.");
    bytes_field(&mut body, 3, &metadata);
    assert_eq!(hearth.api.try_write_raw(&snappy(&body)).expect("an answer").status, 204);

    for after in ["a write", "a flush and a restart"] {
        if after != "a write" {
            hearth.api.flush();
            hearth = hearth.restart();
        }
        let api = &hearth.api;
        let (start, end) = (seconds(now - 900_000), seconds(now));

        // "Save & test".
        let health = api.post_form("/api/v1/query", &[("query", "1+1"), ("time", &end)]);
        assert_eq!(
            health.headers.get("content-type").map(String::as_str),
            Some("application/json"),
            "{after}"
        );
        assert_eq!(health.data(), json!({"resultType": "scalar", "result": [now / 1000, "2"]}), "{after}");
        let text = health.text();
        assert!(
            text.find("resultType") < text.find("\"result\""),
            "Grafana's reader wants resultType first: {text}"
        );
        let build = api.get("/api/v1/status/buildinfo", &[]).data();
        assert!(build["version"].as_str().is_some_and(|v| !v.is_empty()), "{after}: {build}");
        assert_eq!(
            build.get("features"),
            None,
            "{after}: features would make Grafana take it for Mimir: {build}"
        );

        // The metric picker and the variable editor.
        let window = [("start", start.as_str()), ("end", &end)];
        let labels = api.get(
            "/api/v1/labels",
            &[window[0], window[1], ("match[]", "{__name__=\"http_requests_total\"}"), ("limit", "40000")],
        );
        assert_eq!(labels.data(), json!(["__name__", "instance", "job"]), "{after}");
        let everything = [window[0], window[1], ("match[]", "{__name__!=\"\"}"), ("limit", "40000")];
        let names = api.get("/api/v1/label/__name__/values", &everything).data();
        assert!(
            names.as_array().is_some_and(|n| n.contains(&json!("http_requests_total"))),
            "{after}: {names}"
        );
        let values = api
            .get("/api/v1/label/instance/values", &[window[0], window[1], ("match[]", "{job=\"web\"}")])
            .data();
        assert_eq!(values, json!(["a:1", "b:1"]), "{after}");
        let series = api
            .post_form(
                "/api/v1/series",
                &[window[0], window[1], ("match[]", "{job=\"web\"}"), ("limit", "40000")],
            )
            .data();
        assert_eq!(series.as_array().map(Vec::len), Some(2), "{after}: {series}");
        let cut = api.post_form(
            "/api/v1/series",
            &[window[0], window[1], ("match[]", "{job=\"web\"}"), ("limit", "1")],
        );
        assert_eq!(cut.data().as_array().map(Vec::len), Some(1), "{after}");
        assert_eq!(cut.json()["warnings"], json!(["results truncated due to limit"]), "{after}");
        let metadata = api.get("/api/v1/metadata", &[("limit", "40000")]).data();
        assert_eq!(
            metadata["http_requests_total"],
            json!([{"type": "counter", "help": "Requests answered.", "unit": ""}]),
            "{after}"
        );

        // A panel, asked by a form as Grafana does, and by GET as it does after a 405.
        let panel = [
            ("query", "sum by (instance) (rate(http_requests_total[1m]))"),
            ("start", &start),
            ("end", &end),
            ("step", "15"),
        ];
        let posted = api.post_form("/api/v1/query_range", &panel).data();
        assert_eq!(posted, api.get("/api/v1/query_range", &panel).data(), "{after}");
        assert_eq!(posted["resultType"], "matrix");
        let rows = posted["result"].as_array().expect("rows");
        assert_eq!(rows.len(), 2, "{after}");
        for row in rows {
            let values = row["values"].as_array().expect("values");
            assert!(
                values.iter().any(|v| v[1]
                    .as_str()
                    .and_then(|t| t.parse::<f64>().ok())
                    .is_some_and(|r| (r - 1.0 / 15.0).abs() < 1e-9)),
                "{row}"
            );
        }

        // Asked of every data source; an empty list is an answer.
        let exemplars = api.get(
            "/api/v1/query_exemplars",
            &[("query", "test"), ("start", &now.to_string()), ("end", &now.to_string())],
        );
        assert_eq!(exemplars.data(), json!([]), "{after}");
        let rules = api.get("/api/v1/rules", &[]);
        assert!(
            rules.status == 200 && rules.data()["groups"] == Value::Array(Vec::new()) || rules.status == 404,
            "{after}: {}",
            rules.text()
        );
    }
}

/// Runs the data source's own code on Node against a server; what it made of the answers.
fn data_source(hearth: &Hearth) -> Value {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-services/grafana/node_modules");
    assert!(
        packages.join("@grafana/prometheus").is_dir(),
        "Grafana's data source is not installed below target/test-services: `.ci/test-services` installs it"
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grafana/datasource.cjs");
    let output = Command::new(installed("node", "nodejs"))
        .arg(script)
        .arg(format!("http://127.0.0.1:{}", hearth.start.port))
        .env("NODE_PATH", packages)
        .output()
        .expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

#[test]
fn grafana_data_source_itself_reads_what_hearth_answers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rules = "groups:\n- name: g\n  interval: 1s\n  rules:\n  - {record: 'job:http:rate', expr: 'sum by (job) (rate(http_requests_total[1m]))', labels: {team: web}}\n";
    std::fs::write(folder.path().join("rules.yml"), rules).expect("rules can be written");
    let hearth = Start::at(folder.path())
        .config("rules: {files: rules.yml}\nself_metrics_interval: 0\nenable_feature: [search-api]\n")
        .ready();
    let now = now_ms() / 1000 * 1000;
    let samples: Vec<_> = (0..40).map(|i| (now - 600_000 + i * 15_000, i as f64)).collect();
    let mut body = write_request(&[
        series(&[("__name__", "http_requests_total"), ("instance", "a:1"), ("job", "web")], &samples),
        series(&[("__name__", "http_requests_total"), ("instance", "b:1"), ("job", "web")], &samples),
        series(&[("__name__", "http_duration_seconds_bucket"), ("job", "api"), ("le", "+Inf")], &samples),
    ]);
    let mut metadata = vec![1 << 3, 1];
    bytes_field(&mut metadata, 2, b"http_requests_total");
    bytes_field(&mut metadata, 4, b"Requests answered.");
    bytes_field(&mut body, 3, &metadata);
    assert_eq!(hearth.api.try_write_raw(&snappy(&body)).expect("an answer").status, 204);
    wait_for("the rule's series", Duration::from_secs(60), || {
        (!hearth.api.instant("job:http:rate", now_ms()).is_empty()).then_some(())
    });

    let found = data_source(&hearth);
    let is = |place: &str, wanted: Value| {
        assert_eq!(found.pointer(place), Some(&wanted), "{place} in\n{found:#}");
    };
    let variable = |query: &str, wanted: Value| {
        assert_eq!(found["variables"][query], wanted, "{query} in\n{found:#}");
    };
    is("/exemplarsAvailable", json!(true));
    is("/started", json!(true));
    is("/metrics", json!(["http_duration_seconds_bucket", "http_requests_total"]));
    is("/metadata/type", json!("counter"));
    is("/metadata/help", json!("Requests answered."));
    is("/histograms", json!(["http_duration_seconds_bucket"]));
    is("/values", json!(["a:1", "b:1"]));
    variable("label_names(http_requests_total)", json!(["instance", "job"]));
    variable("label_values(job)", json!(["api", "web"]));
    variable("label_values(http_requests_total, instance)", json!(["a:1", "b:1"]));
    variable("label_values({job=~\"w.*\", instance!=\"a:1\"}, instance)", json!(["b:1"]));
    variable("metrics(http_.*total)", json!(["http_requests_total"]));
    let count = &found["variables"]["query_result(count by (job) (http_requests_total))"][0];
    let count = count.as_str().unwrap_or_default();
    assert!(count.starts_with("{job=\"web\"} 2"), "{count:?}");
    variable(
        "http_requests_total{instance=\"a:1\"}",
        json!(["http_requests_total{instance=\"a:1\",job=\"web\"}"]),
    );
    is("/byGet", json!(["a:1", "b:1"]));
    is("/bySeries", json!(["a:1", "b:1"]));
    is("/adHocValues", json!(["api", "web"]));
    let keys = found["adHocKeys"].as_array().expect("a list");
    assert!(["instance", "job", "le"].iter().all(|key| keys.contains(&json!(key))), "{keys:?}");
    let mapped = &found["ruleMappings"]["job:http:rate"];
    assert!(mapped.to_string().contains("rate(http_requests_total[1m])"), "{mapped}");
    let panel = found["panel"].as_array().expect("frames");
    assert_eq!(panel.len(), 2, "{panel:?}");
    assert_eq!(panel[0]["labels"], json!({"instance": "a:1"}));
    assert!(panel[0]["points"].as_u64() > Some(30), "{panel:?}");
    let requests = found["requests"].as_array().expect("a list");
    assert!(requests.iter().all(|r| r.as_str().is_some_and(|r| r.ends_with(" 200"))), "{requests:?}");
    // Names while they are typed, in a stream of lines.
    for names in ["metric_names", "label_names", "label_values"] {
        assert!(requests.contains(&json!(format!("GET /api/v1/search/{names} 200"))), "{requests:?}");
    }
    is("/searchedValues", json!(["web"]));
    assert!(requests.len() >= 9, "{requests:?}");
}
