//! Two real Prometheus servers scrape one node exporter as an HA pair and write to one Hearth; one is killed
//! for a while, and nobody who asks can tell.

mod test_services;

use std::time::Duration;
use test_services::prometheus::{NodeExporter, Prometheus};
use test_services::{Api, hearth, now_ms, wait_for};

const BOTH: Duration = Duration::from_secs(12);
const ALONE: Duration = Duration::from_secs(9);
/// What Prometheus needs to start, scrape and send.
const PATIENCE: Duration = Duration::from_secs(60);

/// Times of all samples of `node_load1` of one replica.
fn seen(api: &Api, replica: &str, since: i64) -> Vec<i64> {
    let question = format!("node_load1{{replica='{replica}'}}[{}ms]", (now_ms() - since).max(1_000));
    let end = test_services::api::seconds(now_ms());
    let answer = api.get("/api/v1/query", &[("query", &question), ("time", &end), ("dedup", "false")]);
    let all = test_services::api::data(&answer.data()).matrix();
    all.into_values().flatten().map(|(t, _)| t).filter(|t| *t > since).collect()
}

fn wait_until_seen(api: &Api, replica: &str, since: i64) -> i64 {
    wait_for(&format!("samples of replica {replica}"), PATIENCE, || {
        seen(api, replica, since).into_iter().next_back()
    })
}

#[test]
fn replicas_of_a_pair_are_one_although_one_is_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hearth = hearth::Start::at(folder.path()).config("query:\n  replica_labels: [replica]\n").ready();
    let exporter = NodeExporter::start(folder.path());
    let url = format!("{}/api/v1/write", hearth.api.base);
    let started = now_ms();
    let folders = ["a", "b"].map(|replica| {
        let own = folder.path().join(replica);
        std::fs::create_dir(&own).expect("a folder for a replica");
        own
    });
    let mut a = Prometheus::replica(&folders[0], &exporter, &url, "a");
    let _b = Prometheus::replica(&folders[1], &exporter, &url, "b");
    let first = wait_until_seen(&hearth.api, "a", started).max(wait_until_seen(&hearth.api, "b", started));
    std::thread::sleep(BOTH);
    a.process.kill();
    let killed = now_ms();
    std::thread::sleep(ALONE);
    let _a = Prometheus::replica(&folders[0], &exporter, &url, "a");
    wait_until_seen(&hearth.api, "a", now_ms());
    std::thread::sleep(BOTH);
    let end = now_ms() - 3_000;
    wait_for("all of it", PATIENCE, || {
        ["a", "b"].iter().all(|r| seen(&hearth.api, r, started).last() > Some(&end)).then_some(())
    });

    let api = &hearth.api;
    let own = seen(api, "a", started);
    let hole = own.windows(2).map(|w| w[1] - w[0]).max().expect("samples");
    assert!(hole > ALONE.as_millis() as i64 - 2_000, "the first replica was away: {hole}");
    assert!(own.iter().any(|t| *t < killed) && own.iter().any(|t| *t > killed));

    // As it is asked: one series each, no holes, not more samples than a scrape a second.
    let window = format!("[{}ms]", end - first);
    let all = api.instant(&format!("node_cpu_seconds_total{window}"), end).matrix();
    assert!(all.len() >= 8, "{} series", all.len());
    for (labels, points) in &all {
        assert!(!labels.contains_key("replica"), "{labels:?}");
        let hole = points.windows(2).map(|w| w[1].0 - w[0].0).max().expect("samples");
        // A scrape may be a little late, on a machine that is busy with tests.
        assert!(hole < 2_600, "{labels:?}: a hole of {hole} ms");
        let most = (end - first) / 1000 + 2;
        assert!(points.len() as i64 <= most, "{labels:?}: {} samples, at most {most}", points.len());
        assert!(points.windows(2).all(|w| w[0].1 <= w[1].1), "{labels:?} fell: {points:?}");
    }
    let resets = format!("sum(resets(node_cpu_seconds_total{window}))");
    assert_eq!(api.instant(&resets, end).single(), 0.0);
    // A CPU is busy and idle for one second a second; a false reset would be worth all the seconds since
    // boot.
    let rates =
        api.range("sum by (cpu) (rate(node_cpu_seconds_total[6s]))", first + 8_000, end, 1_000).matrix();
    for (labels, points) in &rates {
        assert_eq!(points.len() as i64, (end - first - 8_000) / 1_000 + 1, "{labels:?}: a hole");
        assert!(points.iter().all(|(_, v)| (0.3..1.7).contains(v)), "{labels:?}: {points:?}");
    }
    // The parts of a range are the range.
    let question = "rate(node_cpu_seconds_total[6s])";
    let (from, seam) = (first + 8_000, killed / 1000 * 1000);
    let steps = |from: i64, to: i64| api.range(question, from, to, 1_000).matrix();
    let from = from + (seam - from).rem_euclid(1_000);
    let (mut parts, rest) = (steps(from, seam), steps(seam + 1_000, end));
    rest.into_iter().for_each(|(labels, points)| parts.entry(labels).or_default().extend(points));
    assert_eq!(parts, steps(from, end));

    let both = api.get("/api/v1/label/replica/values", &[("dedup", "false")]).data();
    assert_eq!(both, serde_json::json!(["a", "b"]));
    assert_eq!(api.get("/api/v1/label/replica/values", &[]).data(), serde_json::json!([]));
    let names = api.get("/api/v1/labels", &[]).data().to_string();
    assert!(!names.contains("replica"), "{names}");
}
