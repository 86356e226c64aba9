//! Processes of the role `rules` over a pair of ingesters: they have no store of their own, read as queriers
//! do and write to both ingesters; each slot of each group is evaluated once, whoever dies.

mod test_services;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use test_services::alertmanager::Alertmanager;
use test_services::ceph::Ceph;
use test_services::shared_rules::{INTERVAL_MS, alert, rule_file};
use test_services::split::{start, start_with};
use test_services::{Hearth, Start, now_ms, series, wait_for};

const PATIENCE: Duration = Duration::from_secs(120);
const GROUPS: usize = 6;
/// What each group records.
const GIVEN: &str = "max(given)";

fn evaluator(folder: &Path, name: &str, ceph: &Ceph, alertmanager: &Alertmanager) -> Start {
    let more =
        format!("rules: {{files: rules.yml, share_lease: 3s, alertmanagers: ['{}']}}\n", alertmanager.url());
    let start = start_with(folder, name, "rules", ceph, "", &more);
    std::fs::write(folder.join(name).join("rules.yml"), rule_file(GROUPS, GIVEN))
        .expect("rules can be written");
    start
}

/// When each group wrote, as a querier knows it.
fn ticks(querier: &Hearth) -> BTreeMap<String, Vec<i64>> {
    let Ok(answer) = querier.api.try_get("/api/v1/query", &[("query", "tick[10m]")]) else {
        return BTreeMap::new();
    };
    if answer.status != 200 {
        return BTreeMap::new();
    }
    let data = answer.data();
    let rows = data["result"].as_array().cloned().unwrap_or_default();
    let row = |row: Value| {
        let times = row["values"].as_array().cloned().unwrap_or_default();
        let times = times.iter().map(|v| (v[0].as_f64().expect("a time") * 1000.0).round() as i64);
        (row["metric"]["g"].as_str().expect("a group").to_owned(), times.collect())
    };
    rows.into_iter().map(row).collect()
}

/// Waits until every group has a sample at every slot from its first, which lies before `since`, up to now.
fn wait_whole(querier: &Hearth, since: i64, what: &str) {
    let begun = std::time::Instant::now();
    loop {
        let ticks = ticks(querier);
        let end = now_ms() - 3 * INTERVAL_MS;
        let is_whole = |times: &Vec<i64>| {
            times.windows(2).all(|w| w[1] - w[0] == INTERVAL_MS)
                && times.first().is_some_and(|first| *first < since)
                && times.last().is_some_and(|last| *last > end.max(since))
        };
        if ticks.len() == GROUPS && ticks.values().all(is_whole) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: {ticks:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Whether this process evaluates a group.
fn evaluates(process: &Hearth, group: &str) -> bool {
    let text = process.api.get("/metrics", &[]).text();
    let line = format!("prometheus_rule_group_iterations_total{{rule_group=\"rules.yml;{group}\"}} ");
    text.lines().any(|l| l.strip_prefix(&*line).is_some_and(|n| n != "0"))
}

#[test]
fn rules_without_a_store_write_every_slot_once_to_the_ingesters_that_live() {
    let folder = tempfile::tempdir().expect("a folder");
    let ceph = Ceph::start(folder.path());
    ceph.s3.create_bucket("split");
    let alertmanager = Alertmanager::start(&folder.path().join("am"));
    let ingester = |name| start(folder.path(), name, "ingest", &ceph, ", replica_group: pair").spawn();
    let mut ingesters = [ingester("ingest-0"), ingester("ingest-1")];
    ingesters.iter_mut().for_each(Hearth::wait_ready);
    let given = series(&[("__name__", "given")], &[(now_ms(), 3.0)]);
    ingesters.iter().for_each(|i| i.api.write(std::slice::from_ref(&given)));
    let querier = start(folder.path(), "query-0", "query", &ceph, "").ready();
    let mut first = evaluator(folder.path(), "rules-0", &ceph, &alertmanager).ready();
    let second = evaluator(folder.path(), "rules-1", &ceph, &alertmanager).ready();

    // Both show all groups, and both evaluate some.
    for process in [&first, &second] {
        let data = process.api.get("/api/v1/rules", &[]).data();
        assert_eq!(data["groups"].as_array().map(Vec::len), Some(GROUPS + 2));
        wait_for("groups on both", PATIENCE, || {
            (0..GROUPS).any(|g| evaluates(process, &format!("g{g}"))).then_some(())
        });
    }
    let begun = now_ms() + INTERVAL_MS;
    wait_whole(&querier, begun, "every slot once");
    wait_for("a rule that reads what others write", PATIENCE, || {
        let count = second.api.instant("tick:count", now_ms());
        (!count.is_empty() && count.single() == GROUPS as f64).then_some(())
    });
    let pending = wait_for("an alert that waits", PATIENCE, || alert(&second.api));

    // It takes no writes, and says who does.
    let refused = first.api.call("POST", "/api/v1/write");
    assert_eq!(refused.status, 404, "{}", refused.text());
    assert!(refused.text().contains("role `ingest`"), "{}", refused.text());

    // One dies: the other goes on where it was, with the alert's wait.
    first.kill();
    wait_for("the alert on the other", PATIENCE, || evaluates(&second, "alerts").then_some(()));
    let seen = wait_for("the alert", PATIENCE, || alert(&second.api));
    assert_eq!(seen["activeAt"], pending["activeAt"], "its wait goes on");
    wait_whole(&querier, begun, "no gap where a process of rules was killed");
    let firing = wait_for("the alert at the Alertmanager", PATIENCE, || alertmanager.alerts().pop());
    assert_eq!(firing["annotations"]["of"], "7");

    // An ingester dies and comes back.
    let killed = now_ms();
    ingesters[0].kill();
    std::thread::sleep(Duration::from_millis(4 * INTERVAL_MS as u64));
    wait_whole(&querier, killed, "no gap where an ingester was killed");
    let [away, _there] = ingesters;
    let _back = away.again();
    wait_whole(&querier, now_ms(), "no gap where it came back");

    // Rules are read again, and one that is wrong changes nothing.
    let again = folder.path().join("rules-1/rules.yml");
    std::fs::write(&again, rule_file(GROUPS + 1, GIVEN)).expect("rules can be written");
    second.process.signal("HUP");
    wait_for("the new group", PATIENCE, || {
        let data = second.api.get("/api/v1/rules", &[]).data();
        (data["groups"].as_array().map(Vec::len) == Some(GROUPS + 3)).then_some(())
    });
    std::fs::write(&again, "groups: [{name: a, rules: [{record: 'x', expr: 'sum('}]}]").expect("a file");
    second.process.signal("HUP");
    wait_for("the failed reload to be shown", PATIENCE, || {
        let text = second.api.get("/metrics", &[]).text();
        text.contains("prometheus_config_last_reload_successful 0").then_some(())
    });
    let data = second.api.get("/api/v1/rules", &[]).data();
    assert_eq!(data["groups"].as_array().map(Vec::len), Some(GROUPS + 3));

    let mut second = second;
    assert!(second.stop().success());
}
