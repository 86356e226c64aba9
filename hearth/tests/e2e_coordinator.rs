//! Several Hearths on one bucket whose store ignores conditions, their commits decided by a real ZooKeeper
//! and a real etcd; and one alone without either.

mod test_services;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use test_services::coordinators::{Coordinator, Kind, PASSWORD, USER};
use test_services::garage::CarelessS3;
use test_services::{Hearth, Model, Rng, Series, Start, now_ms, series, wait_for};

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

fn start(folder: &Path, name: &str, s3: &CarelessS3, settings: &str) -> Start {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).expect("a folder for a Hearth");
    let mut start = Start::at(&folder).config(settings);
    start.objstore = Some("s3://plain/fleet".to_owned());
    start.env = s3.environment();
    start
}

/// A command of the binary on the same bucket, in a folder of its own, with its settings in variables.
fn command(folder: &Path, name: &str, s3: &CarelessS3, settings: &[(&str, &str)], args: &[&str]) -> Command {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).expect("a folder for a command");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command.args(args).args(["--data-dir", "data", "--objstore", "s3://plain/fleet"]).current_dir(folder);
    command.envs(s3.environment()).envs(settings.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn succeed(mut command: Command) -> String {
    let output = command.output().expect("the binary runs");
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output));
    text(&output)
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
    let s3 = CarelessS3::start(folder.path());
    let said = refused(start(folder.path(), "bare", &s3, ""));
    assert!(
        said.contains("accepted a conditional write") && said.contains("catalog.lock: zookeeper://"),
        "{said}"
    );

    let mut coordinator = Coordinator::start(kind, folder.path());
    // Who is killed while it compacts holds its lease for minutes: compaction has its turn below.
    let lock =
        format!("compactor:\n  enabled: false\ncatalog:\n  lock: {}\n", coordinator.url("hearth/test"));
    let mut hearths: Vec<Hearth> =
        ["a", "b"].iter().map(|name| start(folder.path(), name, &s3, &lock).ready()).collect();
    let mut model = Model::default();
    let mut rng = Rng(7);
    let end = now_ms();
    // In a span that is over, so that compaction has something to do.
    let begin = end - 40 * HOUR_MS;
    for round in 0..6i64 {
        for (hearth, of) in hearths.iter().zip(["a", "b"]) {
            let all = some(of, begin + round * 20 * 15_000, 20);
            hearth.api.write(&all);
            model.acknowledged(&all);
        }
        // Both flush at once; in odd rounds one is killed somewhere on the way.
        let victim = rng.below(2) as usize;
        std::thread::scope(|threads| {
            for hearth in &hearths {
                threads.spawn(|| hearth.api.try_post("/-/flush", &[], &[]).map(drop));
            }
            if round % 2 == 1 {
                std::thread::sleep(Duration::from_millis(20 + rng.below(120)));
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
    let check = |when: &str| {
        assert_eq!(model.check(&reader.api, "raced", end, 41 * HOUR_MS, when), model.samples(), "{when}");
    };
    check("all commits of both");

    // Two that compact at once, beside all that serve.
    let url = coordinator.url("hearth/test");
    let lock = [("HEARTH_CATALOG_LOCK", url.as_str())];
    let compacting: Vec<_> = ["x", "y"]
        .iter()
        .map(|name| {
            let mut once = command(folder.path(), name, &s3, &lock, &["compact", "--once"]);
            once.spawn().expect("the binary runs")
        })
        .collect();
    for one in compacting {
        let output = one.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", text(&output));
    }
    let listed = succeed(command(folder.path(), "x", &s3, &lock, &["bucket", "ls", "--json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let blocks = listed[0]["blocks"].as_array().expect("blocks");
    // (What they tell of themselves is of now.)
    let old = |b: &&serde_json::Value| b["max_t_ms"].as_i64().is_some_and(|t| t < end - 24 * HOUR_MS);
    let raw = blocks.iter().filter(old).filter(|b| b["resolution_ms"] == 0);
    let levels: Vec<_> = raw.map(|b| b["level"].as_u64().unwrap_or(0)).collect();
    assert!(!levels.is_empty() && levels.iter().all(|l| *l > 0), "{levels:?}");
    succeed(command(folder.path(), "x", &s3, &lock, &["bucket", "verify"]));
    // The reader looks at the catalog anew before long.
    check("compacted by several");
    let keys = s3.keys();
    let numbers: Vec<&String> = keys.iter().filter(|k| k.contains("/catalog/")).collect();
    assert!(numbers.len() >= 8, "{numbers:?}");
    for mut hearth in hearths {
        assert!(hearth.stop().success(), "{}", hearth.process.log_tail());
    }
}

#[test]
fn zookeeper_decides_a_race_of_two_hearths_that_lose_nothing() {
    race(Kind::ZooKeeper);
}

#[test]
fn etcd_decides_a_race_of_two_hearths_that_lose_nothing() {
    race(Kind::Etcd);
}

/// One who may not ask is told what to set; one who may imports, exports and serves.
fn secured(kind: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let s3 = CarelessS3::start(folder);
    let coordinator = Coordinator::secured(kind, folder);
    let url = coordinator.url("hearth/secured");
    let credentials = |name: &str, password: &str| {
        let file = folder.join(name);
        std::fs::write(&file, format!("{USER}:{password}\n")).expect("a file of credentials");
        file.display().to_string()
    };
    let (right, wrong) = (credentials("right", PASSWORD), credentials("wrong", "guess"));
    let configured = |name: &str, file: Option<&str>| {
        let file = file.map(|f| format!("  lock_credentials_file: {f}\n")).unwrap_or_default();
        let settings = format!("self_metrics_interval: 0\ncatalog:\n  lock: {url}\n{file}");
        let mut start = start(folder, name, &s3, &settings);
        start.env.extend(coordinator.environment());
        start
    };
    let hearth = configured("a", Some(&right)).ready();
    let (end, mut model) = (now_ms(), Model::default());
    let first = some("a", end - 30 * HOUR_MS, 20);
    hearth.api.write(&first);
    model.acknowledged(&first);
    hearth.api.flush();
    for (name, file) in [("guesser", Some(wrong.as_str())), ("stranger", None)] {
        let said = refused(configured(name, file));
        assert!(said.contains("catalog.lock") && said.contains("credentials"), "{name}: {said}");
        assert!(!said.contains("guess:") && !said.contains(PASSWORD), "{name}: {said}");
    }
    if kind == Kind::Etcd {
        // The authority is not known to the system.
        let mut stranger = configured("distrustful", Some(&right));
        stranger.env.retain(|(name, _)| name != "SSL_CERT_FILE");
        let said = refused(stranger);
        assert!(said.contains("certificate"), "{said}");
    }

    // Imports commit through the coordinator too, and do not get past it.
    let environment = coordinator.environment();
    let mut lock =
        vec![("HEARTH_CATALOG_LOCK", url.as_str()), ("HEARTH_CATALOG_LOCK_CREDENTIALS_FILE", &right)];
    lock.extend(environment.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    let imported = some("text", end - 20 * HOUR_MS, 30);
    let line = |n: usize, (t, v): &(i64, f64)| {
        format!("raced{{of=\"text\",n=\"{n}\"}} {v} {}.{:03}\n", t / 1000, t % 1000)
    };
    let lines = imported.iter().enumerate().flat_map(|(n, s)| s.samples.iter().map(move |s| line(n, s)));
    let file = folder.join("some.om");
    std::fs::write(&file, lines.collect::<String>() + "# EOF\n").expect("a file to import");
    let import = ["import", "openmetrics", file.to_str().expect("a path")];
    let unlocked = command(folder, "tool", &s3, &[], &import).output().expect("the binary runs");
    assert_eq!(unlocked.status.code(), Some(2), "{}", text(&unlocked));
    assert!(text(&unlocked).contains("set catalog.lock to it"), "{}", text(&unlocked));
    let told = succeed(command(folder, "tool", &s3, &lock, &import));
    assert!(told.contains("imported 90 samples"), "{told}");
    model.acknowledged(&imported);

    // What is in the head only comes with an export that asks for it.
    let fresh = some("fresh", end - HOUR_MS, 10);
    hearth.api.write(&fresh);
    model.acknowledged(&fresh);
    let export = |more: &[&str]| {
        let args = [&["export", "openmetrics", "--out", "-", "--match", "raced"], more].concat();
        let output = command(folder, "tool", &s3, &lock, &args).output().expect("the binary runs");
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8_lossy(&output.stdout).lines().filter(|l| l.starts_with("raced{")).count()
    };
    assert_eq!(export(&[]), 150);
    assert_eq!(export(&["--flush-url", &hearth.api.base]), 180);
    let deaf = ["export", "openmetrics", "--out", "-", "--flush-url", "http://127.0.0.1:1"];
    let failed = command(folder, "tool", &s3, &lock, &deaf).output().expect("the binary runs");
    assert!(!failed.status.success() && text(&failed).contains("127.0.0.1:1"), "{}", text(&failed));

    let hearth = hearth.restart();
    assert_eq!(model.check(&hearth.api, "raced", end, 31 * HOUR_MS, "all of it"), model.samples());
}

#[test]
fn zookeeper_with_a_login_keeps_strangers_out_of_the_catalog() {
    secured(Kind::ZooKeeper);
}

#[test]
fn etcd_with_tls_and_users_keeps_strangers_out_of_the_catalog() {
    secured(Kind::Etcd);
}

#[test]
fn single_writer_keeps_the_second_out() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let s3 = CarelessS3::start(folder.path());
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
