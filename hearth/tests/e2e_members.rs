//! Many processes on one bucket: two ingesters, two queriers and a compactor on a real S3 service, an HA pair
//! of Prometheus servers that write to them; what is flushed, compacted, restarted and killed changes no
//! answer.

mod test_services;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use test_services::ceph::Ceph;
use test_services::prometheus::{NodeExporter, Prometheus};
use test_services::split::{TOKEN, start};
use test_services::{Data, Hearth, Labels, now_ms, series, wait_for};

const PATIENCE: Duration = Duration::from_secs(90);

/// What `hearth bucket …` says, and its exit code.
fn bucket(ceph: &Ceph, args: &[&str]) -> (i32, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_hearth"))
        .arg("bucket")
        .args(args)
        .args(["--objstore", "s3://split/prod"])
        .envs(ceph.environment())
        .output()
        .expect("hearth bucket runs");
    let text = [out.stdout, out.stderr].concat();
    (out.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// The name of the ingester at a port.
fn member_at(ceph: &Ceph, port: u16) -> String {
    let (code, text) = bucket(ceph, &["members", "--json"]);
    assert_eq!(code, 0, "{text}");
    let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let all = all.as_array().expect("a list").clone();
    let address = format!("http://127.0.0.1:{port}");
    let found = all.iter().find(|m| m["address"] == address.as_str());
    found.and_then(|m| m["name"].as_str()).unwrap_or_else(|| panic!("{address} in {text}")).to_owned()
}

/// Closed ranges that a dashboard keeps asking for.
struct Questions {
    start_ms: i64,
    end_ms: i64,
}

impl Questions {
    fn ask(&self, querier: &Hearth) -> Vec<Data> {
        let expressions = [
            "sum by (mode) (rate(node_cpu_seconds_total[10s]))",
            "count(node_cpu_seconds_total)",
            "up{job='node'}",
            "sum(count_over_time(marks[20s]))",
        ];
        expressions.map(|e| querier.api.range(e, self.start_ms, self.end_ms, 1000)).into()
    }
}

/// A sample of its own every second, to one ingester alone.
fn marks(ingester: &Hearth, from_ms: i64, seconds: i64) {
    let samples: Vec<_> = (0..seconds).map(|i| (from_ms + 1000 * i, i as f64)).collect();
    ingester.api.write(&[series(&[("__name__", "marks"), ("by", "test")], &samples)]);
}

#[test]
fn members_answer_as_one_whoever_flushes_restarts_and_dies() {
    let folder = tempfile::tempdir().expect("a folder");
    let ceph = Ceph::start(folder.path());
    ceph.s3.create_bucket("split");
    let ingester = |name| start(folder.path(), name, "ingest", &ceph, ", replica_group: pair").spawn();
    let mut ingesters = [ingester("ingest-0"), ingester("ingest-1")];
    ingesters.iter_mut().for_each(Hearth::wait_ready);
    let queriers = ["query-0", "query-1"].map(|n| start(folder.path(), n, "query", &ceph, "").ready());
    let compactor = start(folder.path(), "compact-0", "compact", &ceph, "").ready();

    // Each Prometheus of the pair writes to both ingesters, which are replicas of one another.
    let exporter = NodeExporter::start(folder.path());
    let ports = ingesters.each_ref().map(|i| i.start.port);
    let pair = [("a", 0), ("b", 1)].map(|(replica, at)| {
        let url = format!("http://127.0.0.1:{}/api/v1/write", ports[at]);
        let other = format!("http://127.0.0.1:{}/api/v1/write", ports[1 - at]);
        let urls = format!("{url}\n    queue_config: {{batch_send_deadline: 1s}}\n  - url: {other}");
        let own = folder.path().join(format!("prometheus-{replica}"));
        std::fs::create_dir_all(&own).expect("a folder for a Prometheus");
        Prometheus::replica(&own, &exporter, &urls, replica)
    });
    let begun = now_ms();
    wait_for("half a minute of samples", PATIENCE, || {
        let answer = queriers[0].api.instant("count_over_time(up{job='node'}[40s])", now_ms());
        answer.vector().values().any(|(_, n)| *n >= 30.0).then_some(())
    });
    ingesters.iter().for_each(|i| marks(i, begun, 20));
    let questions = Questions { start_ms: begun + 5_000, end_ms: begun + 25_000 };
    let expected = questions.ask(&queriers[0]);
    assert!(expected.iter().all(|answer| !answer.is_empty()), "{expected:?}");
    let same = |what: &str| {
        for (n, querier) in queriers.iter().enumerate() {
            assert_eq!(questions.ask(querier), expected, "query-{n} after {what}");
        }
    };
    same("nothing");
    let [mut first, mut second] = ingesters;
    first.api.flush();
    same("a flush of one");
    second.api.flush();
    same("a flush of the other");
    first = first.restart();
    same("a restart, which hands over");
    second.kill();
    same("kill -9 of one of a pair");
    second = second.again();
    same("its return");
    first.kill();
    same("kill -9 of the other");
    first = first.again();
    let mut compactor = compactor;
    compactor.kill();
    same("kill -9 of the compactor");
    let compactor = compactor.again();
    wait_for("compaction to look again", PATIENCE, || {
        let runs = compactor.api.get("/api/v1/status/compaction", &[]).data();
        (!runs["lastRound"].is_null()).then_some(())
    });
    same("a round of compaction");
    for querier in &queriers {
        let members = querier.api.get("/api/v1/status/members", &[]).data();
        let roles: Vec<&str> = members["members"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|m| m["role"].as_str())
            .collect();
        assert_eq!(roles.iter().filter(|r| **r == "ingest").count(), 2, "{members}");
    }
    // With nothing new the pair is one series, before the last flush and after it.
    drop(pair);
    let as_one = || {
        let (start, end) =
            (test_services::api::seconds(questions.start_ms), test_services::api::seconds(now_ms()));
        let pairs = [
            ("query", "up{job='node'}"),
            ("start", &*start),
            ("end", &*end),
            ("step", "1"),
            ("replicaLabels[]", "replica"),
        ];
        test_services::api::data(&queriers[1].api.get("/api/v1/query_range", &pairs).data()).matrix()
    };
    let before = as_one();
    assert_eq!(before.len(), 1, "{before:?}");
    let cut = now_ms() - 10_000;
    let until = |m: &BTreeMap<Labels, Vec<(i64, f64)>>| {
        m.values().flatten().filter(|(t, _)| *t < cut).copied().collect::<Vec<_>>()
    };
    first.api.flush();
    second.api.flush();
    assert_eq!(until(&as_one()), until(&before));
}

#[test]
fn member_that_vanished_is_named_until_it_is_back_or_forgotten() {
    let folder = tempfile::tempdir().expect("a folder");
    let ceph = Ceph::start(folder.path());
    ceph.s3.create_bucket("split");
    let mut ingesters =
        ["ingest-0", "ingest-1"].map(|n| start(folder.path(), n, "ingest", &ceph, "").spawn());
    ingesters.iter_mut().for_each(Hearth::wait_ready);
    let querier = start(folder.path(), "query-0", "query", &ceph, "").ready();
    let t = now_ms() - 60_000;
    for (n, ingester) in ingesters.iter().enumerate() {
        ingester.api.write(&[series(&[("__name__", "alone"), ("n", &n.to_string())], &[(t, 1.0)])]);
    }
    let ask = |more: &[(&str, &str)]| {
        let time = test_services::api::seconds(t);
        let pairs = [&[("query", "alone"), ("time", time.as_str())], more].concat();
        querier.api.get("/api/v1/query", &pairs)
    };
    assert_eq!(test_services::api::data(&ask(&[]).data()).vector().len(), 2);
    let names = ingesters.each_ref().map(|i| member_at(&ceph, i.start.port));
    let [first, mut second] = ingesters;
    second.kill();
    let why = ask(&[]).error(500, "internal");
    assert!(why.contains(&names[1]) && why.contains("partial_response=true"), "{why}");
    let part = ask(&[("partial_response", "true")]);
    assert_eq!(part.headers.get("cache-control").map(String::as_str), Some("no-store"));
    assert!(part.json()["warnings"][0].as_str().is_some_and(|w| w.contains(&names[1])), "{}", part.text());
    assert_eq!(test_services::api::data(&part.data()).vector().len(), 1);
    let labels = querier.api.get("/api/v1/labels", &[]);
    assert!(labels.error(500, "internal").contains(&names[1]));

    // One that is there is not forgotten by mistake; back, the other answers again.
    let (code, text) = bucket(&ceph, &["forget", &names[0]]);
    assert_eq!(code, 2, "{text}");
    second = second.again();
    assert_eq!(test_services::api::data(&ask(&[]).data()).vector().len(), 2);
    // A stop hands over: nobody is missed.
    assert!(second.stop().success(), "{}", second.process.log_tail());
    assert_eq!(test_services::api::data(&ask(&[]).data()).vector().len(), 2);
    let mut first = first;
    first.kill();
    wait_for("the one that is gone to be called away", PATIENCE, || {
        bucket(&ceph, &["members"]).1.contains("is away and has not flushed").then_some(())
    });
    let (code, text) = bucket(&ceph, &["forget", &names[0]]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(test_services::api::data(&ask(&[]).data()).vector().len(), 1, "what it had is given up");
    assert_eq!(bucket(&ceph, &["forget", "nobody"]).0, 2);
}

#[test]
fn member_answers_members_only_and_roles_say_what_they_do_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let ceph = Ceph::start(folder.path());
    ceph.s3.create_bucket("split");
    let ingester = start(folder.path(), "ingest-0", "ingest", &ceph, "").ready();
    let querier = start(folder.path(), "query-0", "query", &ceph, "").ready();
    for headers in [&[][..], &[("authorization", "Bearer wrong")][..]] {
        let answer = ingester.api.post("/internal/v1/ask", headers, b"{}");
        assert_eq!(answer.status, 401, "{}", answer.text());
    }
    let shown = [("authorization", &*format!("Bearer {TOKEN}"))];
    assert_eq!(ingester.api.post("/internal/v1/ask", &shown, b"{}").status, 400);
    let refused = querier.api.post("/api/v1/write", &[], b"").error(404, "not_found");
    assert!(refused.contains("`ingest` or `all`"), "{refused}");
    let refused = ingester.api.get("/api/v1/query", &[("query", "up")]).error(404, "not_found");
    assert!(refused.contains("`query`, `rules` or `all`"), "{refused}");
    assert!(!querier.start.data_dir().exists(), "a querier has no data folder");
    assert_eq!(querier.api.get("/metrics", &[]).status, 200);
}

#[test]
fn role_that_nobody_knows_is_refused_with_those_that_are() {
    let out = test_services::command_line::hearth().args(["--role", "queen"]).output().expect("hearth runs");
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{text}");
    assert!(text.contains("queen") && text.contains("ingest"), "{text}");
}
