//! Three Hearths on one bucket share the groups of rules: each is evaluated once, also when one is killed,
//! paused, or comes back.

mod test_services;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use test_services::alertmanager::Alertmanager;
use test_services::ceph::Ceph;
use test_services::shared_rules::{INTERVAL_MS, alert, rule_file};
use test_services::{Hearth, Start, now_ms, series, wait_for};

const PATIENCE: Duration = Duration::from_secs(90);
const GROUPS: usize = 9;

fn start(folder: &Path, name: &str, ceph: &Ceph, alertmanager: &Alertmanager) -> Start {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).expect("a folder for a Hearth");
    std::fs::write(folder.join("rules.yml"), rule_file(GROUPS, "max(who)")).expect("rules can be written");
    let mut start = Start::at(&folder).config(&format!(
        "rules: {{files: rules.yml, share: true, share_lease: 3s, alertmanagers: ['{}']}}\ncompactor: {{enabled: false}}\n",
        alertmanager.url()
    ));
    start.objstore = Some("s3://shared/rules".to_owned());
    start.env = ceph.environment();
    start
}

/// Slots of each group that a process evaluated, in time or later.
fn evaluated(hearth: &Hearth) -> BTreeMap<String, i64> {
    let text = hearth.api.get("/metrics", &[]).text();
    let read = |metric: &str| -> BTreeMap<String, i64> {
        let start = format!("{metric}{{rule_group=\"rules.yml;");
        let lines = text.lines().filter_map(|line| line.strip_prefix(&*start));
        lines
            .map(|line| {
                let (group, value) = line.split_once("\"} ").expect("a label and a value");
                (group.to_owned(), value.parse().expect("a whole number"))
            })
            .collect()
    };
    let mut all = read("prometheus_rule_group_iterations_total");
    for (group, missed) in read("prometheus_rule_group_iterations_missed_total") {
        *all.entry(group).or_default() -= missed;
    }
    for (group, filled) in read("hearth_rule_group_slots_filled_total") {
        *all.entry(group).or_default() += filled;
    }
    all.retain(|_, slots| *slots > 0);
    all
}

/// Each process has a series of its own that says which it is.
fn tell_who(hearth: &Hearth, who: f64) {
    hearth.api.write(&[series(&[("__name__", "who")], &[(now_ms(), who)])]);
}

/// When each group wrote, and who, as one process knows it.
fn ticks(hearth: &Hearth) -> BTreeMap<String, Vec<(i64, f64)>> {
    let found = hearth.api.instant("tick[10m]", now_ms()).matrix();
    let of = |(labels, samples): (&test_services::Labels, &Vec<(i64, f64)>)| {
        let group = labels.iter().find(|(name, _)| *name == "g").expect("the group's label").1.clone();
        (group, samples.clone())
    };
    found.iter().map(of).collect()
}

/// All groups, each with a sample at every slot up to now.
fn whole(hearth: &Hearth, since: i64) -> Option<BTreeMap<String, Vec<(i64, f64)>>> {
    let ticks = ticks(hearth);
    let end = now_ms() - 2 * INTERVAL_MS;
    let good = ticks.values().all(|times| {
        times.windows(2).all(|w| w[1].0 - w[0].0 == INTERVAL_MS)
            && times.first().is_some_and(|(first, _)| *first < since)
            && times.last().is_some_and(|(last, _)| *last > end)
    });
    (ticks.len() == GROUPS && good).then_some(ticks)
}

fn wait_whole(hearth: &Hearth, since: i64, what: &str) -> BTreeMap<String, Vec<(i64, f64)>> {
    let start = std::time::Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(ticks) = whole(hearth, since) {
            return ticks;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}: {:?}", ticks(hearth));
}

/// Every process evaluates something of its own, and all groups have one.
fn wait_spread(hearths: &[Hearth]) {
    wait_for("all to have groups", PATIENCE, || {
        let before: Vec<_> = hearths.iter().map(evaluated).collect();
        std::thread::sleep(Duration::from_millis(3 * INTERVAL_MS as u64));
        let mut owners: BTreeMap<String, usize> = BTreeMap::new();
        let mut busy = 0;
        for (hearth, before) in hearths.iter().zip(before) {
            let now = evaluated(hearth);
            let grew = now.into_iter().filter(|(group, slots)| before.get(group) != Some(slots));
            let grew: Vec<String> = grew.map(|(group, _)| group).collect();
            busy += usize::from(!grew.is_empty());
            grew.into_iter().for_each(|group| *owners.entry(group).or_default() += 1);
        }
        let once = owners.values().all(|owners| *owners == 1);
        (busy == hearths.len() && owners.len() == GROUPS + 2 && once).then_some(())
    });
}

#[test]
fn rule_groups_are_evaluated_once_by_the_processes_that_live() {
    let folder = tempfile::tempdir().expect("a folder");
    let ceph = Ceph::start(folder.path());
    ceph.s3.create_bucket("shared");
    let alertmanager = Alertmanager::start(&folder.path().join("am"));
    let mut hearths: Vec<Hearth> = Vec::new();
    for (who, name) in ["a", "b", "c"].into_iter().enumerate() {
        hearths.push(start(folder.path(), name, &ceph, &alertmanager).ready());
        tell_who(&hearths[who], who as f64);
    }
    let pending = wait_for("an alert that waits", PATIENCE, || alert(&hearths[2].api));
    wait_spread(&hearths);
    let begun = now_ms();
    for hearth in &hearths {
        let data = hearth.api.get("/api/v1/rules", &[]).data();
        let groups = data["groups"].as_array().expect("a list").clone();
        assert_eq!(groups.len(), GROUPS + 2, "every process shows all groups");
        wait_whole(hearth, begun, "every process has what all rules write");
        wait_for("a rule to read what other groups write", PATIENCE, || {
            let count = hearth.api.instant("tick:count", now_ms());
            (!count.is_empty() && count.single() == GROUPS as f64).then_some(())
        });
    }

    // The one with the alert is killed.
    let owner = hearths.iter().position(|h| evaluated(h).contains_key("alerts"));
    let mut killed = hearths.remove(owner.expect("one evaluates the alert"));
    killed.kill();
    for hearth in &hearths {
        let seen = wait_for("the alert on another", PATIENCE, || alert(&hearth.api));
        assert_eq!(seen["activeAt"], pending["activeAt"], "its wait goes on");
    }
    wait_for("all groups to be evaluated by the two", PATIENCE, || {
        let both: BTreeMap<_, _> = hearths.iter().flat_map(evaluated).collect();
        (both.len() == GROUPS + 2).then_some(())
    });
    for hearth in &hearths {
        wait_whole(hearth, begun, "no gap where one was killed");
    }
    let firing =
        wait_for("the alert at the Alertmanager", PATIENCE, || alertmanager.alerts().into_iter().next());
    assert_eq!(firing["annotations"]["of"], "7");
    wait_for("all to show it as firing", PATIENCE, || {
        hearths.iter().all(|h| alert(&h.api).is_some_and(|a| a["state"] == "firing")).then_some(())
    });
    hearths.push(killed.again());
    wait_spread(&hearths);

    // One is paused for longer than its lease; what it finds afterwards is that others have gone on.
    hearths[1].process.signal("STOP");
    let paused = now_ms();
    std::thread::sleep(Duration::from_secs(10));
    let without = wait_whole(&hearths[0], paused, "no gap where one is paused");
    hearths[1].process.signal("CONT");
    wait_spread(&hearths);
    // (Those that were away do not know what others wrote meanwhile until that is in the bucket.)
    let with = wait_whole(&hearths[0], paused, "no gap after the pause");
    for (group, samples) in &without {
        for (t, who) in samples {
            let now = with[group].iter().find(|(at, _)| at == t).map(|(_, who)| *who);
            assert_eq!(
                now,
                Some(*who),
                "{group} at {t} was evaluated once more after it had been taken over"
            );
        }
    }
    let owners = with.values().flatten().map(|(_, who)| *who as i64).collect::<BTreeSet<_>>();
    assert_eq!(owners.len(), 3, "all have evaluated something");

    // A clean end gives the groups back at once; in the end the bucket has every slot once.
    let mut ended = hearths.remove(0);
    assert!(ended.stop().success());
    wait_for("all groups to be evaluated by the rest", PATIENCE, || {
        let both: BTreeMap<_, _> = hearths.iter().flat_map(evaluated).collect();
        (both.len() == GROUPS + 2).then_some(())
    });
    hearths.push(ended.start.clone().ready());
    // What was written before it was a member again is what it has to find in the bucket.
    wait_spread(&hearths);
    for hearth in &hearths {
        hearth.api.flush();
    }
    for hearth in &hearths {
        wait_whole(hearth, begun, "every slot, out of bucket and head");
    }
}
