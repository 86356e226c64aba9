//! Rules and alerts with the real things around them: Alertmanagers and amtool, promtool, restarts,
//! reloads, and tenants' own rules.

mod test_services;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use test_services::alertmanager::Alertmanager;
use test_services::{Hearth, Start, free_port, installed, now_ms, series, wait_for};

const PATIENCE: Duration = Duration::from_secs(90);

const RULES: &str = r#"groups:
- name: chain
  interval: 1s
  labels: {team: infra}
  rules:
  - {record: 'job:up:sum', expr: 'sum by (job) (up)'}
  - {record: 'job:up:twice', expr: '2 * job:up:sum'}
- name: alerts
  interval: 1s
  rules:
  - alert: Down
    expr: up == 0
    for: 5s
    labels: {severity: page}
    annotations: {summary: '{{ $labels.instance }} of {{ $externalLabels.cluster }} has {{ $value | humanize }}'}
"#;

fn write_up(hearth: &Hearth, value: f64) {
    let labels = [("__name__", "up"), ("instance", "web-1"), ("job", "web")];
    hearth.api.write(&[series(&labels, &[(now_ms(), value)])]);
}

fn alerts(hearth: &Hearth) -> Vec<Value> {
    let data = hearth.api.get("/api/v1/alerts", &[]).data();
    data["alerts"].as_array().expect("a list").clone()
}

fn wait_for_state(hearth: &Hearth, state: &str) -> Value {
    wait_for(&format!("an alert that is {state}"), PATIENCE, || {
        alerts(hearth).into_iter().find(|a| a["state"] == state)
    })
}

fn start(folder: &Path, config: &str) -> Hearth {
    std::fs::write(folder.join("rules.yml"), RULES).expect("rules can be written");
    Start::at(folder).config(config).ready()
}

#[test]
fn alert_fires_and_resolves_through_restarts_and_a_dead_alertmanager() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Alertmanager::start(&folder.path().join("am1"));
    let late_port = free_port();
    let config = format!(
        "rules:
  files: rules.yml
  external_labels: cluster=eu
  alertmanagers: [{}, 'http://127.0.0.1:{late_port}']
  alert_resend_delay: 1s
  alert_for_grace_period: 0
http: {{external_url: http://hearth.example.org/x/, route_prefix: /}}
",
        first.url()
    );
    let hearth = start(folder.path(), &config);
    write_up(&hearth, 0.0);
    let pending = wait_for_state(&hearth, "pending");
    assert_eq!(pending["labels"]["alertname"], "Down");
    assert_eq!(pending["annotations"]["summary"], "web-1 of eu has 0");
    wait_for("the state of the alert as a series", PATIENCE, || {
        let found = hearth.api.instant("ALERTS_FOR_STATE{alertname='Down'}", now_ms());
        (!found.is_empty()).then_some(())
    });

    // A clean restart in the middle of the wait: the wait goes on, it does not begin anew.
    let hearth = hearth.restart();
    let firing = wait_for_state(&hearth, "firing");
    assert_eq!(firing["labels"]["severity"], "page");
    let seen = wait_for("amtool to see the alert", PATIENCE, || first.alerts().into_iter().next());
    assert_eq!(seen["labels"]["cluster"], "eu");
    assert_eq!(seen["labels"]["alertname"], "Down");
    assert_eq!(seen["annotations"]["summary"], "web-1 of eu has 0");
    assert_eq!(
        seen["generatorURL"], "http://hearth.example.org/x/graph?g0.expr=up+%3D%3D+0&g0.tab=1",
        "links to the page of the expression"
    );
    let metrics = hearth.api.get("/metrics", &[]).text();
    for line in [
        format!("prometheus_notifications_sent_total{{alertmanager=\"{}/api/v2/alerts\"}}", first.url()),
        "prometheus_notifications_alertmanagers_discovered 2".into(),
        format!(
            "prometheus_notifications_errors_total{{alertmanager=\"http://127.0.0.1:{late_port}/api/v2/alerts\"}}"
        ),
        "prometheus_rule_evaluation_failures_total{rule_group=\"rules.yml;alerts\"} 0".into(),
    ] {
        assert!(metrics.contains(&line), "{line} is missing in\n{metrics}");
    }

    // The second Alertmanager comes up and gets what it missed.
    let late = Alertmanager::start_at(&folder.path().join("am2"), late_port);
    wait_for("the late Alertmanager to know the alert", PATIENCE, || late.alerts().into_iter().next());

    // A crash while it fires.
    let hearth = hearth.again();
    wait_for_state(&hearth, "firing");

    // It is resolved while the first Alertmanager is dead.
    let (dead_port, dead_folder) = (first.port, folder.path().join("am1"));
    drop(first);
    write_up(&hearth, 1.0);
    wait_for("no alert at the one that lives", PATIENCE, || late.alerts().is_empty().then_some(()));
    assert!(alerts(&hearth).is_empty());
    let first = Alertmanager::start_at(&dead_folder, dead_port);
    wait_for("the dead one to hear that it is over", PATIENCE, || {
        let sent =
            format!("prometheus_notifications_sent_total{{alertmanager=\"{}/api/v2/alerts\"}}", first.url());
        let metrics = hearth.api.get("/metrics", &[]).text();
        let line = metrics.lines().find(|l| l.starts_with(&sent))?;
        (!line.ends_with(" 0")).then_some(())
    });
    assert!(first.alerts().is_empty());

    // What recording rules made of it reads the writes of the rules before.
    let now = now_ms();
    let twice = hearth.api.instant("max_over_time(job:up:twice{job='web'}[2m])", now).single();
    assert_eq!(twice, 2.0);
    let data = hearth.api.get("/api/v1/alertmanagers", &[]).data();
    assert_eq!(data["activeAlertmanagers"].as_array().map(Vec::len), Some(2));
    let groups = hearth.api.get("/api/v1/rules", &[("type", "record")]).data();
    let rule = &groups["groups"][0]["rules"][1];
    assert_eq!((rule["name"].as_str(), rule["health"].as_str()), (Some("job:up:twice"), Some("ok")));
    assert_eq!(rule["labels"]["team"], "infra");
}

#[test]
fn reload_takes_good_files_and_keeps_running_what_was_good_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = "rules: {files: 'rules*.yml'}\nhttp: {enable_lifecycle: true}\n";
    let hearth = start(folder.path(), config);
    let names = || -> Vec<String> {
        let data = hearth.api.get("/api/v1/rules", &[]).data();
        let groups = data["groups"].as_array().expect("a list");
        groups.iter().map(|g| g["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(), ["alerts", "chain"]);
    write_up(&hearth, 0.0);
    let pending = wait_for_state(&hearth, "pending");

    std::fs::write(
        folder.path().join("rules2.yml"),
        "groups:\n- name: g\n  rules:\n  - {record: r, expr: 'sum('}\n",
    )
    .expect("written");
    let refused = hearth.api.post("/-/reload", &[], b"");
    assert_eq!(refused.status, 500);
    let text = refused.text();
    assert!(
        text.contains("rules2.yml: 4:23: group \"g\", rule 1, \"r\": could not parse expression: 1:5: parse error: unclosed left parenthesis"),
        "{text}"
    );
    assert_eq!(names(), ["alerts", "chain"]);

    std::fs::write(
        folder.path().join("rules2.yml"),
        "groups:\n- name: g\n  interval: 1s\n  rules:\n  - {record: r, expr: '1'}\n",
    )
    .expect("written");
    assert_eq!(hearth.api.post("/-/reload", &[], b"").status, 200);
    assert_eq!(names(), ["alerts", "chain", "g"]);
    let after = &alerts(&hearth)[0];
    assert_eq!(after["activeAt"], pending["activeAt"], "a group that is the same runs on");
    wait_for("the new rule's series", PATIENCE, || {
        (!hearth.api.instant("r", now_ms()).is_empty()).then_some(())
    });

    // A group that is taken out ends its series.
    std::fs::remove_file(folder.path().join("rules2.yml")).expect("removed");
    hearth.process.signal("HUP");
    wait_for("the group to go", PATIENCE, || (names() == ["alerts", "chain"]).then_some(()));
    wait_for("its series to end", PATIENCE, || hearth.api.instant("r", now_ms()).is_empty().then_some(()));
    assert_eq!(hearth.api.get("/-/reload", &[]).status, 405);
    assert_eq!(hearth.api.post("/-/quit", &[], b"").text(), "Requesting termination... Goodbye!");
    let mut hearth = hearth;
    let status = wait_for("hearth to end", PATIENCE, || hearth.process.exited());
    assert!(status.success(), "{status}");

    // Without the setting, neither is allowed; and a bad file keeps it from starting, with its place.
    let hearth =
        Start { config: Some("rules: {files: 'rules*.yml'}\n".into()), ..hearth.start.clone() }.ready();
    let refused = hearth.api.post("/-/reload", &[], b"");
    assert_eq!((refused.status, refused.text().as_str()), (403, "Lifecycle API is not enabled."));
    std::fs::write(folder.path().join("rules2.yml"), "groups: 1\n").expect("written");
    let mut hearth = hearth;
    hearth.stop();
    let mut hearth = hearth.start.clone().spawn();
    let status = wait_for("hearth to refuse", PATIENCE, || hearth.process.exited());
    assert_eq!(status.code(), Some(2));
    assert!(
        hearth.process.log_tail().contains("rules2.yml: 1:9: cannot unmarshal"),
        "{}",
        hearth.process.log_tail()
    );
}

#[test]
fn slots_that_were_missed_while_hearth_was_down_are_filled() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = "groups:\n- name: g\n  interval: 1s\n  rules:\n  - {record: tick, expr: 'time() - time() + 1'}\n  - {record: ticks, expr: 'count_over_time(tick[1h])'}\n";
    std::fs::write(folder.path().join("rules.yml"), rules).expect("written");
    let hearth = Start::at(folder.path()).config("rules: {files: rules.yml}\n").ready();
    let count = |hearth: &Hearth| hearth.api.instant("count_over_time(tick[1h])", now_ms());
    wait_for("a few slots", PATIENCE, || {
        (!count(&hearth).is_empty() && count(&hearth).single() >= 3.0).then_some(())
    });
    let mut hearth = hearth;
    assert!(hearth.stop().success());
    let down_from = now_ms();
    std::thread::sleep(Duration::from_secs(5));
    let hearth = hearth.start.clone().ready();
    let up_from = now_ms();
    wait_for("no gap", PATIENCE, || {
        let found = hearth.api.instant("tick[1h]", now_ms()).matrix();
        let times: Vec<i64> = found.values().next()?.iter().map(|(t, _)| *t).collect();
        let past = times.last().is_some_and(|t| *t > up_from);
        let whole = times.windows(2).all(|w| w[1] - w[0] == 1000);
        (past && whole && times[0] < down_from).then_some(())
    });
    // Filled in order: at each slot the second rule saw what the first had written up to it.
    let found = hearth.api.instant("ticks[1h]", now_ms()).matrix();
    let values: Vec<f64> = found.values().next().expect("a series").iter().map(|(_, v)| *v).collect();
    let filled = hearth.api.get("/api/v1/rules", &[]).data()["groups"][0]["slotsFilled"].as_u64();
    assert!(filled >= Some(4), "{filled:?}");
    assert!(values.windows(2).filter(|w| w[1] - w[0] == 1.0).count() >= 6, "{values:?}");
}

#[test]
fn tenants_keep_rules_of_their_own_in_the_bucket() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = "rules: {config_api: true}\ntenant_header: X-Scope-OrgID\n";
    let hearth = Start::at(folder.path()).config(config).ready();
    let tenant = [("X-Scope-OrgID", "team-a"), ("Content-Type", "application/yaml")];
    let group =
        b"name: mine\ninterval: 1s\nrules:\n- {record: own, expr: '7'}\n- {alert: Always, expr: vector(1)}\n";
    let base = "/prometheus/config/v1/rules";
    let put = hearth.api.post(&format!("{base}/my%2Fspace"), &tenant, group);
    assert_eq!(put.status, 202, "{}", put.text());
    let bad = hearth.api.post(
        &format!("{base}/my%2Fspace"),
        &tenant,
        b"name: bad\nrules: [{record: r, expr: '('}]\n",
    );
    assert_eq!(bad.status, 400);
    let ask = |hearth: &Hearth, tenant: &str, path: &str| {
        let url = format!("http://127.0.0.1:{}{path}", hearth.start.port);
        let answer = ureq::get(&url).header("X-Scope-OrgID", tenant).call().expect("an answer");
        let mut body = answer.into_body();
        serde_json::from_str::<Value>(&body.read_to_string().expect("text")).expect("JSON")["data"].clone()
    };
    let firing = |hearth: &Hearth, tenant: &str| {
        ask(hearth, tenant, "/api/v1/alerts")["alerts"].as_array().map(Vec::len)
    };
    wait_for("the tenant's alert", PATIENCE, || (firing(&hearth, "team-a") == Some(1)).then_some(()));
    assert_eq!(firing(&hearth, "team-b"), Some(0), "other tenants see nothing of it");
    let hearth = hearth.restart();
    wait_for("the tenant's alert after a restart", PATIENCE, || {
        (firing(&hearth, "team-a") == Some(1)).then_some(())
    });
    wait_for("the tenant's series", PATIENCE, || {
        let found = ask(&hearth, "team-a", "/api/v1/query?query=own");
        (found["result"][0]["value"][1] == "7").then_some(())
    });
    let rules = ask(&hearth, "team-a", "/api/v1/rules");
    assert_eq!(rules["groups"][0]["file"], "my/space");
    let info = ask(&hearth, "team-a", "/api/v1/status/buildinfo");
    assert_eq!(info["features"]["ruler_config_api"], "true");
}

/// Something at an address of an Alertmanager that is none: what it says to each request, or nothing at all.
fn impostor(says: Option<&'static str>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            match says {
                None => silent.push(stream),
                Some(text) => {
                    let _ = stream.read(&mut [0; 4096]);
                    let _ = stream.write_all(text.as_bytes());
                }
            }
        }
    });
    port
}

/// A number of `/metrics` by the beginning of its line.
fn metric(hearth: &Hearth, start: &str) -> f64 {
    let text = hearth.api.get("/metrics", &[]).text();
    let line =
        text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start} in\n{text}"));
    line.rsplit(' ').next().and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("no number in {line}"))
}

#[test]
fn alertmanagers_that_hang_or_talk_nonsense_hold_up_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let hangs = impostor(None);
    let nonsense = impostor(Some("HTTP/7 what\r\n\r\n<<<"));
    let page =
        impostor(Some("HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\nconnection: close\r\n\r\nno no"));
    let busy = impostor(Some("HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
    let good = Alertmanager::start(&folder.path().join("am"));
    let urls = [hangs, nonsense, page, busy].map(|port| format!("'http://127.0.0.1:{port}'")).join(", ");
    let config = format!(
        "rules: {{files: rules.yml, alertmanagers: [{urls}, '{}'], alert_resend_delay: 1s, notification_queue: 4}}\nshutdown: {{timeout: 2s}}\n",
        good.url()
    );
    let hearth = start(folder.path(), &config);
    write_up(&hearth, 0.0);
    let seen = wait_for("the alert at the one that answers", PATIENCE, || good.alerts().into_iter().next());
    assert_eq!(seen["labels"]["alertname"], "Down");
    let url = |port: u16| format!("{{alertmanager=\"http://127.0.0.1:{port}/api/v2/alerts\"}}");
    for port in [nonsense, page, busy] {
        wait_for("an error to be counted", PATIENCE, || {
            (metric(&hearth, &format!("prometheus_notifications_errors_total{}", url(port))) > 0.0)
                .then_some(())
        });
        assert_eq!(metric(&hearth, &format!("prometheus_notifications_sent_total{}", url(port))), 0.0);
    }
    // While all of them wait or try again, evaluation goes on at its pace and the good one is told anew.
    let count = |hearth: &Hearth| {
        metric(hearth, "prometheus_rule_group_iterations_total{rule_group=\"rules.yml;alerts\"}")
    };
    let (before, sent) = (count(&hearth), format!("prometheus_notifications_sent_total{}", url(good.port)));
    let sent_before = metric(&hearth, &sent);
    wait_for("evaluations", PATIENCE, || (count(&hearth) >= before + 5.0).then_some(()));
    wait_for("the good one to be told again", PATIENCE, || {
        (metric(&hearth, &sent) > sent_before).then_some(())
    });
    assert_eq!(
        metric(&hearth, "prometheus_rule_evaluation_failures_total{rule_group=\"rules.yml;alerts\"}"),
        0.0
    );
    let waiting = metric(&hearth, &format!("prometheus_notifications_queue_length{}", url(hangs)));
    assert!(waiting <= 4.0, "{waiting} wait for the one that hangs");
    let mut hearth = hearth;
    assert!(hearth.stop().success(), "the end does not wait for them");
}

#[test]
fn reload_takes_all_settings_that_can_change_and_names_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Alertmanager::start(&folder.path().join("am1"));
    let second = Alertmanager::start(&folder.path().join("am2"));
    let config = |more: &str, url: &str, cluster: &str| {
        format!(
            "rules: {{files: rules.yml, alertmanagers: ['{url}'], external_labels: cluster={cluster}, alert_resend_delay: 1s}}\nhttp: {{enable_lifecycle: true}}\nself_metrics_interval: 0\n{more}"
        )
    };
    let hearth = start(folder.path(), &config("retention: 90d\n", &first.url(), "eu"));
    write_up(&hearth, 0.0);
    let old = now_ms() - 40 * 86_400_000;
    hearth.api.write(&[series(&[("__name__", "old")], &[(old, 1.0)])]);
    wait_for("the first to know", PATIENCE, || first.alerts().into_iter().next());
    assert_eq!(hearth.api.instant("old", old + 1).single(), 1.0);

    let file = folder.path().join("hearth.yaml");
    let write = |text: &str| std::fs::write(&file, text).expect("written");
    write(&config("retention: 30 days\n", &second.url(), "us"));
    let refused = hearth.api.post("/-/reload", &[], b"");
    assert_eq!(refused.status, 500);
    assert!(refused.text().contains("hearth.yaml:4:1: retention: \"30 days\""), "{}", refused.text());
    assert_eq!(metric(&hearth, "prometheus_config_last_reload_successful"), 0.0);
    assert_eq!(hearth.api.instant("old", old + 1).single(), 1.0, "everything is as it was");

    write(&config(
        "retention: 30d\nretention_rules: ['{__name__=\"old\"}=3d']\nquery: {timeout: 7s}\nlog: {level: debug}\n",
        &second.url(),
        "us",
    ));
    let reloaded = hearth.api.post("/-/reload", &[], b"");
    assert_eq!(
        (reloaded.status, reloaded.text().as_str()),
        (200, "needs another start to take effect: query.timeout\n")
    );
    assert_eq!(metric(&hearth, "prometheus_config_last_reload_successful"), 1.0);
    let shown = hearth.api.get("/api/v1/status/config", &[]).data()["yaml"].to_string();
    // What is in force, and of what needs a start what it was started with.
    assert!(shown.contains("cluster\\\": \\\"us") && shown.contains("retention: 30d"), "{shown}");
    assert!(shown.contains("timeout: 2m") && !shown.contains("timeout: 7s"), "{shown}");
    let federated = hearth.api.get("/federate", &[("match[]", "up")]).text();
    assert!(federated.contains("cluster=\"us\""), "{federated}");
    let told = wait_for("the second to know", PATIENCE, || second.alerts().into_iter().next());
    assert_eq!(told["labels"]["cluster"], "us");
    assert_eq!(told["annotations"]["summary"], "web-1 of us has 0");
    assert!(hearth.api.instant("old", old + 1).is_empty(), "past its new retention");
    let late = [series(&[("__name__", "late")], &[(old, 1.0)])];
    let refused = hearth.api.try_write(&late).expect("an answer");
    assert_eq!(refused.status, 400, "{}", refused.text());
    wait_for("what only debug says", PATIENCE, || hearth.process.log_tail().contains("DEBUG").then_some(()));
}

/// The requests of mimirtool 2.x (its client sends neither a content type nor anything but the tenant), and
/// those of Grafana's rule editor for a data source at the root and at `/prometheus`.
#[test]
fn rules_are_edited_by_the_requests_of_mimirtool_and_grafana() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = "rules: {config_api: true}\ntenant_header: X-Scope-OrgID\n";
    let hearth = Start::at(folder.path()).config(config).ready();
    let client = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let ask = |method: &str, path: &str, body: &str| -> (u16, String) {
        let url = format!("http://127.0.0.1:{}{path}", hearth.start.port);
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(url)
            .header("User-Agent", "mimirtool/2.17.0")
            .header("X-Scope-OrgID", "team-a")
            .body(body.to_owned())
            .expect("a request");
        let mut answer = client.run(request).expect("an answer");
        (answer.status().as_u16(), answer.body_mut().read_to_string().expect("text"))
    };
    let group = "name: node
interval: 1m0s
limit: 10
evaluation_delay: 30s
rules:
    - record: instance:cpu:rate5m
      expr: sum by (instance) (rate(cpu_seconds_total[5m]))
    - alert: HighLoad
      expr: instance:cpu:rate5m > 0.9
      for: 10m
      keep_firing_for: 5m
      labels:
        severity: page
      annotations:
        summary: '{{ $labels.instance }} is at {{ $value | humanizePercentage }}'
";
    let base = "/prometheus/config/v1/rules";
    // `rules list` and `rules print` of nothing.
    assert_eq!(ask("GET", base, ""), (200, "{}\n".into()));
    // `rules load`: is the group there? It is not, so it is created.
    assert_eq!(ask("GET", &format!("{base}/infra%2Fnodes/node"), "").0, 404);
    let (status, text) = ask("POST", &format!("{base}/infra%2Fnodes"), group);
    assert_eq!(status, 202, "{text}");
    let (status, one) = ask("GET", &format!("{base}/infra%2Fnodes/node"), "");
    assert_eq!(status, 200);
    assert!(one.contains("name: node") && one.contains("instance:cpu:rate5m > 0.9"), "{one}");
    // What is read can be written again and is the same: `rules sync` finds nothing to do.
    assert_eq!(ask("POST", &format!("{base}/infra%2Fnodes"), &one).0, 202);
    assert_eq!(ask("GET", &format!("{base}/infra%2Fnodes/node"), "").1, one);
    let (_, all) = ask("GET", base, "");
    assert!(all.contains("infra/nodes:"), "{all}");
    for alias in ["/config/v1/rules", "/api/prom/rules"] {
        assert_eq!(ask("GET", alias, ""), (200, all.clone()), "{alias}");
        assert_eq!(ask("GET", &format!("{alias}/infra%2Fnodes/node"), ""), (200, one.clone()), "{alias}");
    }
    // Grafana edits a rule: it reads the group, and posts it with a change, as JSON, which is YAML.
    let edited = r#"{"name":"node","interval":"1m","rules":[{"alert":"HighLoad","expr":"instance:cpu:rate5m > 0.8","for":"10m"}]}"#;
    assert_eq!(ask("POST", "/config/v1/rules/infra%2Fnodes", edited).0, 202);
    assert!(ask("GET", "/config/v1/rules/infra%2Fnodes/node", "").1.contains("> 0.8"));
    wait_for("the rule to run", PATIENCE, || {
        let url = format!("http://127.0.0.1:{}/api/v1/rules", hearth.start.port);
        let mut answer = ureq::get(&url).header("X-Scope-OrgID", "team-a").call().expect("an answer");
        answer.body_mut().read_to_string().expect("text").contains("> 0.8").then_some(())
    });
    // `rules delete`, `rules delete-namespace`, and both again.
    assert_eq!(ask("DELETE", &format!("{base}/infra%2Fnodes/node"), "").0, 202);
    assert_eq!(ask("DELETE", &format!("{base}/infra%2Fnodes/node"), "").0, 404);
    assert_eq!(ask("POST", &format!("{base}/infra%2Fnodes"), group).0, 202);
    assert_eq!(ask("DELETE", &format!("{base}/infra%2Fnodes"), "").0, 202);
    assert_eq!(ask("GET", base, ""), (200, "{}\n".into()));
    let (status, why) = ask("POST", &format!("{base}/x"), "name: bad\nrules:\n- record: r\n  expr: sum(\n");
    assert!(status == 400 && why.contains("could not parse expression"), "{status} {why}");
}

fn run(program: &Path, folder: &Path, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .current_dir(folder)
        .env_remove("HEARTH_CONFIG")
        .output()
        .expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn check_and_test_answer_as_promtool_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    file("good.yml", RULES);
    file(
        "twice.yml",
        "groups:\n- name: g\n  rules:\n  - {record: r, expr: '1'}\n  - {record: r, expr: '2'}\n",
    );
    file(
        "bad.yml",
        "groups:\n- name: g\n  rules:\n  - record: r\n    expr: sum(\n  - alert: A\n    record: B\n    expr: up\n  - record: q\n    expr: up\n    for: 5m\n",
    );
    file("unknown.yml", "groups:\n- name: g\n  rule: []\n");
    file(
        "template.yml",
        "groups:\n- name: g\n  rules:\n  - {alert: A, expr: up, labels: {x: '{{ $foo }}'}, annotations: {y: '{{ foo }}'}}\n",
    );
    file("empty.yml", "");
    file(
        "tests.yml",
        r#"rule_files: [good.yml]
evaluation_interval: 1m
tests:
- interval: 1m
  input_series:
  - {series: 'up{job="web", instance="a"}', values: '1 1 0x10'}
  external_labels: {cluster: eu}
  alert_rule_test:
  - eval_time: 5m
    alertname: Down
    exp_alerts:
    - exp_labels: {severity: page, instance: a, job: web}
      exp_annotations: {summary: a of eu has 0}
  promql_expr_test:
  - {expr: 'job:up:twice', eval_time: 1m, exp_samples: [{labels: 'job:up:twice{job="web", team="infra"}', value: 2}]}
"#,
    );
    // Debian's promtool is older than labels of groups.
    let without_labels = RULES.replace("  labels: {team: infra}\n", "");
    file("old.yml", &without_labels);
    let tests = std::fs::read_to_string(folder.path().join("tests.yml")).expect("read");
    file("old_tests.yml", &tests.replace("good.yml", "old.yml").replace(", team=\"infra\"", ""));
    file("old_fail.yml", &tests.replace("good.yml", "old.yml").replace("a of eu has 0", "other"));

    let hearth = Path::new(env!("CARGO_BIN_EXE_hearth"));
    let promtool = installed("promtool", "prometheus");
    for args in [
        &["check", "rules", "old.yml"][..],
        &["check", "rules", "empty.yml"],
        &["check", "rules", "twice.yml"],
        &["check", "rules", "--lint-fatal", "twice.yml"],
        &["check", "rules", "--lint=none", "twice.yml", "old.yml"],
        &["test", "rules", "old_tests.yml"],
    ] {
        let (ours, theirs) = (run(hearth, folder.path(), args), run(&promtool, folder.path(), args));
        assert_eq!(ours.status.code(), theirs.status.code(), "{args:?}: {ours:?}\n{theirs:?}");
        assert_eq!(text(&ours.stdout), text(&theirs.stdout), "{args:?}");
    }
    // Places and texts of errors are the same where upstream has places.
    {
        let args = ["check", "rules", "bad.yml"];
        let (ours, theirs) = (run(hearth, folder.path(), &args), run(&promtool, folder.path(), &args));
        assert_eq!((ours.status.code(), theirs.status.code()), (Some(1), Some(1)));
        let lines = |output: &Output| -> Vec<String> {
            let mut lines: Vec<String> =
                text(&output.stderr).lines().map(|l| l.trim_end_matches('.').to_owned()).collect();
            lines.sort();
            lines
        };
        assert_eq!(lines(&ours), lines(&theirs));
    }
    for (file, wanted) in [
        ("unknown.yml", "unknown.yml: 3:3: field rule not found in type rulefmt.RuleGroup"),
        (
            "template.yml",
            "template.yml: 4:38: group \"g\", rule 1, \"A\": label \"x\": template: __alert_A:1: undefined variable \"$foo\"",
        ),
    ] {
        let ours = run(hearth, folder.path(), &["check", "rules", file]);
        assert_eq!(ours.status.code(), Some(1));
        assert!(text(&ours.stderr).contains(wanted), "{}", text(&ours.stderr));
    }
    let passed = run(hearth, folder.path(), &["test", "rules", "tests.yml"]);
    assert!(passed.status.success(), "{}", text(&passed.stderr));
    let args = ["test", "rules", "old_fail.yml"];
    let (ours, theirs) = (run(hearth, folder.path(), &args), run(&promtool, folder.path(), &args));
    assert_eq!((ours.status.code(), theirs.status.code()), (Some(1), Some(1)));
    assert_eq!(text(&ours.stderr), text(&theirs.stderr));
    let junit = run(hearth, folder.path(), &["test", "rules", "--junit", "out.xml", "tests.yml"]);
    assert!(junit.status.success());
    assert!(std::fs::read_to_string(folder.path().join("out.xml")).expect("read").contains("failures=\"0\""));
}

/// Rule files of the shapes that those for Kubernetes, for machines and collections of alerts have.
#[test]
fn rules_of_the_shapes_in_the_wild_give_what_promtool_says() {
    let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rule_shapes");
    let (hearth, promtool) = (Path::new(env!("CARGO_BIN_EXE_hearth")), installed("promtool", "prometheus"));
    for args in [
        &["check", "rules", "kubernetes.yml", "node.yml", "collection.yml"][..],
        &["test", "rules", "shapes_test.yml"],
    ] {
        let (ours, theirs) = (run(hearth, &shapes, args), run(&promtool, &shapes, args));
        assert!(theirs.status.success(), "{args:?}: {}", text(&theirs.stderr));
        assert!(ours.status.success(), "{args:?}: {}{}", text(&ours.stdout), text(&ours.stderr));
        assert_eq!(text(&ours.stdout), text(&theirs.stdout), "{args:?}");
    }
    // And all of them run.
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!("rules: {{files: '{}/[cnk]*.yml', evaluation_interval: 1s}}\n", shapes.display());
    let hearth = Start::at(folder.path()).config(&config).ready();
    wait_for("all groups to be evaluated without an error", PATIENCE, || {
        let groups =
            hearth.api.get("/api/v1/rules", &[]).data()["groups"].as_array().expect("a list").clone();
        assert_eq!(groups.len(), 7);
        let rules: Vec<&Value> = groups.iter().flat_map(|g| g["rules"].as_array().expect("a list")).collect();
        assert_eq!(rules.len(), 17);
        assert!(rules.iter().all(|r| r["health"] != "err"), "{rules:#?}");
        rules.iter().filter(|r| r["health"] == "ok").count().ge(&16).then_some(())
    });
}

#[test]
fn rules_over_long_ranges_read_rollups_where_these_are_exact() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = "groups:\n- name: long\n  interval: 1s\n  rules:\n  - {record: 'src:increase', expr: 'increase(src[90h])'}\n  - {record: 'src:max', expr: 'max_over_time(src[90h])'}\n";
    std::fs::write(folder.path().join("rules.yml"), rules).expect("written");
    let config = "rules: {files: rules.yml}\ncompactor: {interval: 1s, grace: 0, late_wait: 0}\nself_metrics_interval: 0\n";
    let hearth = Start::at(folder.path()).config(config).ready();
    let first = now_ms() / 60_000 * 60_000 - 70 * 3_600_000;
    let samples: Vec<(i64, f64)> = (0..6000).map(|i| (first + i * 15_000, 3.0 * i as f64)).collect();
    for part in samples.chunks(1000) {
        hearth.api.write(&[series(&[("__name__", "src")], part)]);
    }
    hearth.api.flush();
    let read = || hearth.api.get("/api/v1/rules", &[]).data()["groups"][0]["samplesRead"].as_u64();
    // The two rules read 12,000 samples before compaction has made rollups, and a few hundred windows after.
    wait_for("rules to read rollups", PATIENCE, || read().filter(|read| (1..2000).contains(read)));
    let now = now_ms();
    assert_eq!(hearth.api.instant("src:max", now).single(), 3.0 * 5999.0);
    let data =
        hearth.api.get("/api/v1/query", &[("query", "increase(src[90h])"), ("max_source_resolution", "raw")]);
    let raw: f64 =
        data.data()["result"][0]["value"][1].as_str().and_then(|v| v.parse().ok()).expect("a number");
    let recorded = hearth.api.instant("src:increase", now).single();
    assert!((recorded - raw).abs() < 1e-6, "{recorded} and {raw} of samples");
}

#[test]
fn rules_are_computed_for_the_past_beside_a_running_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let hearth = Start::at(folder.path()).ready();
    let hour = 3_600_000;
    let first = (now_ms() - 30 * hour) / 60_000 * 60_000;
    let samples: Vec<(i64, f64)> = (0..25 * 60).map(|m| (first + m * 60_000, m as f64)).collect();
    for part in samples.chunks(400) {
        hearth.api.write(&[series(&[("__name__", "src"), ("i", "a")], part)]);
    }
    hearth.api.flush();
    std::fs::write(
        folder.path().join("past.yml"),
        "groups:\n- name: g\n  rules:\n  - {record: past, expr: '2 * src'}\n  - {record: past:max, expr: 'max_over_time(past[1h])'}\n  - {alert: A, expr: src}\n",
    )
    .expect("written");
    let data_dir = hearth.start.data_dir().display().to_string();
    let start = (first / 1000 + 3600).to_string();
    let end = (now_ms() / 1000 - 6 * 3600).to_string();
    let args = ["rules", "backfill", "--data-dir", &data_dir, "--start", &start, "--end", &end, "past.yml"];
    let program = Path::new(env!("CARGO_BIN_EXE_hearth"));
    let done = run(program, folder.path(), &args);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(text(&done.stderr).contains("1 alerting rules were left out"), "{}", text(&done.stderr));
    let again = run(program, folder.path(), &args);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert!(text(&again.stdout).contains("were there from an earlier run"), "{}", text(&again.stdout));
    let at = first + 10 * hour;
    let hearth = hearth.restart();
    let (_, past) = hearth.api.instant("past", at).vector().into_values().next().expect("a series");
    let (_, src) = hearth.api.instant("src", at).vector().into_values().next().expect("a series");
    assert!((past - 2.0 * src).abs() <= 4.0, "{past} of {src}");
    let (_, max) = hearth.api.instant("past:max", at).vector().into_values().next().expect("a series");
    assert!((past - max).abs() <= 4.0, "rules read one another: {max} and {past}");
    let count = hearth.api.instant("count_over_time(past[2h])", at).single();
    assert_eq!(count, 120.0);
}
