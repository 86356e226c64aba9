//! Several Hearths on one bucket whose store ignores conditions, their commits decided by a real ZooKeeper and a real etcd; and one alone without either.

mod neighbours;

use neighbours::coordinators::{Coordinator, Kind};
use neighbours::plain_s3::PlainS3;
use neighbours::{Dice, Hearth, Model, Series, Start, now_ms, series, wait_for};
use std::path::Path;
use std::time::Duration;

const HOUR_MS: i64 = 3_600_000;

fn some(of: &str, from_ms: i64, samples: usize) -> Vec<Series> {
    (0..3)
        .map(|n| {
            let samples: Vec<_> =
                (0..samples as i64).map(|i| (from_ms + i * 15_000, n as f64 + i as f64 / 8.0)).collect();
            series(&[("__name__", "raced"), ("of", of), ("n", &n.to_string())], &samples)
        })
        .collect()
}

fn start(folder: &Path, name: &str, s3: &PlainS3, settings: &str) -> Start {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).expect("a folder for a Hearth");
    let mut start = Start::at(&folder).config(settings);
    start.objstore = Some("s3://plain/fleet".to_owned());
    start.env = s3.environment();
    start
}

/// Its last words when it does not start.
fn refused(start: Start) -> String {
    let mut hearth = start.spawn();
    let status = wait_for("hearth to refuse", Duration::from_secs(60), || hearth.process.exited());
    let said = hearth.process.log_tail();
    assert_eq!(status.code(), Some(2), "{said}");
    said
}

fn race(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let s3 = PlainS3::start();
    let said = refused(start(folder.path(), "bare", &s3, ""));
    assert!(
        said.contains("accepted a conditional write") && said.contains("catalog.lock: zookeeper://"),
        "{said}"
    );

    let mut coordinator = Coordinator::start(kind, folder.path());
    let lock = format!("catalog:\n  lock: {}\n", coordinator.url("hearth/test"));
    let mut hearths: Vec<Hearth> =
        ["a", "b"].iter().map(|name| start(folder.path(), name, &s3, &lock).ready()).collect();
    let mut model = Model::default();
    let mut dice = Dice(7);
    let end = now_ms();
    let begin = end - 5 * HOUR_MS;
    for round in 0..6i64 {
        for (hearth, of) in hearths.iter().zip(["a", "b"]) {
            let all = some(of, begin + round * 20 * 15_000, 20);
            hearth.api.write(&all);
            model.acknowledged(&all);
        }
        // Both flush at once; in odd rounds one is killed somewhere on the way.
        let victim = dice.below(2) as usize;
        std::thread::scope(|threads| {
            for hearth in &hearths {
                threads.spawn(|| hearth.api.try_post("/-/flush", &[], &[]).map(drop));
            }
            if round % 2 == 1 {
                std::thread::sleep(Duration::from_millis(20 + dice.below(120)));
                hearths[victim].process.signal("KILL");
            }
        });
        if round % 2 == 1 {
            let killed = hearths.remove(victim);
            hearths.insert(victim, killed.again());
        }
    }
    // Without the coordinator nothing is committed, and nothing is lost.
    let late = some("a", begin + 200 * 15_000, 20);
    hearths[0].api.write(&late);
    model.acknowledged(&late);
    coordinator.stop();
    let failed = hearths[0].api.call("POST", "/-/flush");
    assert!(
        failed.status >= 500 && failed.text().contains("cannot be used"),
        "{} {}",
        failed.status,
        failed.text()
    );
    coordinator.again();
    for hearth in &hearths {
        hearth.api.flush();
    }
    // One that does not know of the coordinator is kept out, and so is one that looks in the wrong place.
    let said = refused(start(folder.path(), "careless", &s3, "catalog:\n  single_writer: true\n"));
    assert!(said.contains("set catalog.lock to it"), "{said}");
    let elsewhere = format!("catalog:\n  lock: {}\n", coordinator.url("hearth/elsewhere"));
    let said = refused(start(folder.path(), "lost", &s3, &elsewhere));
    assert!(said.contains("knows nothing of this bucket"), "{said}");

    // A third that starts now sees all that both have committed, from the bucket alone.
    let reader = start(folder.path(), "c", &s3, &lock).ready();
    assert_eq!(model.check(&reader.api, "raced", end, 6 * HOUR_MS, "all commits of both"), model.samples());
    let keys = s3.keys();
    let numbers: Vec<&String> = keys.iter().filter(|k| k.contains("/catalog/")).collect();
    assert!(numbers.len() >= 8, "{numbers:?}");
    for mut hearth in hearths {
        assert!(hearth.stop().success(), "{}", hearth.process.log_tail());
    }
}

#[test]
fn two_hearths_race_through_zookeeper_and_lose_nothing() {
    race(Kind::ZooKeeper);
}

#[test]
fn two_hearths_race_through_etcd_and_lose_nothing() {
    race(Kind::Etcd);
}

#[test]
fn a_single_writer_keeps_the_second_out() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let s3 = PlainS3::start();
    let alone = "catalog:\n  single_writer: true\n";
    let mut first = start(folder.path(), "a", &s3, alone).ready();
    let all = some("a", now_ms() - HOUR_MS, 20);
    first.api.write(&all);
    first.api.flush();
    let said = refused(start(folder.path(), "b", &s3, alone));
    assert!(said.contains("another Hearth writes to this bucket"), "{said}");
    assert!(said.contains("etcd://HOST:2379/hearth"), "says what to set: {said}");
    // After a kill -9 the same folder goes on at once; after a clean stop another one does.
    first = first.again();
    assert!(first.stop().success());
    let mut model = Model::default();
    model.acknowledged(&all);
    let second = start(folder.path(), "b", &s3, alone).ready();
    assert_eq!(model.check(&second.api, "raced", now_ms(), 2 * HOUR_MS, "handed over"), model.samples());
}
