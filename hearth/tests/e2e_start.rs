//! Starts in the face of what passes by itself: the process waits and says what for, and ends with exit code
//! 2 only for what a person has to mend.

mod test_services;

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use test_services::Running;
use test_services::command_line::{hearth, text};
use test_services::plain_s3::PlainS3;
use test_services::{Start, free_port, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// What `/-/ready` says while it is not.
fn waits_for(start: Start, what: &str) -> test_services::Hearth {
    let mut hearth = start.spawn();
    wait_for("hearth to say what it waits for", PATIENCE, || {
        if let Some(status) = hearth.process.exited() {
            panic!("hearth ended instead of waiting: {status}\n{}", hearth.process.log_tail());
        }
        let answer = hearth.api.try_get("/-/ready", &[]).ok()?;
        assert_eq!(answer.status, 503);
        assert_eq!(hearth.api.try_get("/-/healthy", &[]).ok()?.status, 200);
        answer.text().contains(what).then_some(())
    });
    hearth
}

/// As by a Prometheus that replays its log: how far it is, what there is to know, and 503 for the rest.
fn what_is_answered_before_the_store_is_open(api: &test_services::Api) {
    let replay = api.get("/api/v1/status/walreplay", &[]).data();
    assert_eq!(replay, serde_json::json!({"min": 0, "max": 0, "current": 0}));
    let notes = api.get("/api/v1/notifications", &[]).data();
    assert_eq!(notes[0]["text"], "Prometheus is starting and replaying the write-ahead log (WAL).");
    assert_eq!(notes[0]["active"], true);
    for path in ["/api/v1/query?query=1", "/federate?match[]=up", "/api/v1/status/flags"] {
        let answer = api.get(path, &[]);
        assert_eq!((answer.status, answer.text().as_str()), (503, "Service Unavailable"), "{path}");
        assert_eq!(answer.headers["x-prometheus-stopping"], "false", "{path}");
        assert_eq!(answer.headers["retry-after"], "1", "{path}");
    }
    for path in ["/version", "/metrics", "/-/healthy", "/query"] {
        assert_eq!(api.get(path, &[]).status, 200, "{path}");
    }
}

#[test]
fn start_waits_for_a_bucket_that_refuses_and_goes_on_when_it_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    for host in ["127.0.0.1", "nowhere.invalid"] {
        let port = free_port();
        let mut start = Start::at(&folder.path().join(host));
        std::fs::create_dir_all(&start.folder).expect("a folder");
        start.objstore = Some("s3://metrics/prod".into());
        start.env =
            vec![("AWS_ACCESS_KEY_ID".into(), "k".into()), ("AWS_SECRET_ACCESS_KEY".into(), "s".into())];
        let start = start.config(&format!("s3:\n  endpoint: http://{host}:{port}\n  allow_http: true\n"));
        let mut hearth = waits_for(start, "s3://metrics/prod");
        what_is_answered_before_the_store_is_open(&hearth.api);
        assert!(hearth.stop().success(), "a stop while waiting is clean");
    }
}

#[test]
fn start_waits_for_a_coordinator_that_is_away() {
    let folder = tempfile::tempdir().expect("a folder");
    for kind in ["etcd", "zookeeper"] {
        let start = Start::at(&folder.path().join(kind));
        std::fs::create_dir_all(&start.folder).expect("a folder");
        let url = format!("{kind}://127.0.0.1:{}/hearth", free_port());
        let mut hearth = waits_for(start.config(&format!("catalog:\n  lock: {url}\n")), "catalog.lock");
        assert!(hearth.stop().success(), "a stop while waiting is clean");
    }
}

#[test]
fn start_waits_for_the_process_that_still_has_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Start::at(folder.path()).ready();
    let mut second = first.start.clone();
    second.port = free_port();
    let mut second = waits_for(second, "in use by another Hearth");
    drop(first);
    second.wait_ready();
    assert!(second.stop().success());
}

#[test]
fn start_waits_for_a_disk_that_has_room_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut start = Start::at(folder.path());
    // No file may have any bytes.
    start.file_limit_kib = Some(0);
    let mut hearth = waits_for(start, "data");
    assert!(hearth.stop().success());
}

#[test]
fn start_ends_for_what_a_person_has_to_mend() {
    let folder = tempfile::tempdir().expect("a folder");
    let s3 = PlainS3::honest();
    let at = |name: &str| {
        let start = Start::at(&folder.path().join(name));
        std::fs::create_dir_all(&start.folder).expect("a folder");
        start
    };
    let mut no_folder = at("file");
    std::fs::write(no_folder.folder.join("data"), "").expect("a file");
    let mut unknown = at("unknown");
    unknown.objstore = Some("ftp://x".into());
    let mut plain = at("plain");
    plain.objstore = Some("s3://b".into());
    plain.env = vec![("AWS_ACCESS_KEY_ID".into(), "k".into()), ("AWS_SECRET_ACCESS_KEY".into(), "s".into())];
    let plain = plain.config(&format!("s3:\n  endpoint: http://127.0.0.1:{}\n", s3.port()));
    no_folder.env = vec![];
    for start in [no_folder, unknown, plain] {
        let mut hearth = start.spawn();
        let status = wait_for("hearth to end", PATIENCE, || hearth.process.exited());
        assert_eq!(status.code(), Some(2), "{}", hearth.process.log_tail());
    }
    let _ = Running::start(&[]);
}

/// Every command that uses a bucket, with what it needs in `folder`.
fn bucket_commands(folder: &Path) -> Vec<Vec<String>> {
    std::fs::write(folder.join("up.om"), "# TYPE up gauge\nup 1 1700000000\n# EOF\n").expect("a file");
    let rules = "groups: [{name: g, rules: [{record: a, expr: up}]}]\n";
    std::fs::write(folder.join("rules.yml"), rules).expect("a file");
    let at = |name: &str| folder.join(name).display().to_string();
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let out = at("out.om");
    vec![
        words("bucket ls"),
        words("bucket verify"),
        words("bucket rewrite --all --commit"),
        words("compact --once"),
        words(&format!("import openmetrics {}", at("up.om"))),
        words("import thanos s3://metrics/prod"),
        words(&format!("export openmetrics --out {out}")),
        words(&format!("rules backfill --start 1700000000 --end 1700000060 {}", at("rules.yml"))),
    ]
}

/// A command on a bucket at this port, which it waits for so long.
fn on_bucket(command: &[String], folder: &Path, port: u16, patience: &str) -> Command {
    let mut run = hearth();
    run.args(command).args(["--objstore", "s3://metrics/prod", "--s3-allow-http=true"]);
    run.arg(format!("--s3-endpoint=http://127.0.0.1:{port}")).args(["--objstore-retry", patience]);
    run.arg("--data-dir").arg(folder.join("data"));
    run.env("AWS_ACCESS_KEY_ID", "k").env("AWS_SECRET_ACCESS_KEY", "s").env("AWS_REGION", "us-east-1");
    run
}

fn said(out: &Output) -> String {
    text(&out.stdout) + &text(&out.stderr)
}

#[test]
fn command_on_a_bucket_that_stays_away_ends_with_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let commands = bucket_commands(folder.path());
    let port = free_port();
    let running = commands.iter().map(|command| {
        let mut run = on_bucket(command, folder.path(), port, "1s");
        std::thread::spawn(move || run.output().expect("the binary runs"))
    });
    let running: Vec<_> = running.collect();
    for (command, out) in commands.iter().zip(running) {
        let out = out.join().expect("a thread");
        assert_eq!(out.status.code(), Some(1), "{command:?}: {}", said(&out));
        assert!(said(&out).contains("objstore s3://metrics/prod"), "{command:?}: {}", said(&out));
    }
}

#[test]
fn command_waits_for_a_bucket_that_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let commands = bucket_commands(folder.path());
    let import = commands.iter().find(|c| c[1] == "openmetrics").expect("an import");
    let port = free_port();
    let mut run = on_bucket(import, folder.path(), port, "60s");
    let importing = std::thread::spawn(move || run.output().expect("the binary runs"));
    std::thread::sleep(Duration::from_secs(2));
    let _s3 = PlainS3::honest_at(port);
    let out = importing.join().expect("a thread");
    assert_eq!(out.status.code(), Some(0), "{}", said(&out));
    let out = on_bucket(&commands[0], folder.path(), port, "60s").output().expect("the binary runs");
    assert!(out.status.success() && said(&out).contains("1 samples"), "{}", said(&out));
}

#[test]
fn command_ends_with_2_for_what_a_person_has_to_mend() {
    let folder = tempfile::tempdir().expect("a folder");
    // Whoever asks is refused: the keys are wrong.
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = refusing.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for stream in refusing.incoming() {
            let mut stream = stream.expect("a connection");
            std::thread::spawn(move || {
                use std::io::{Read, Write};
                let mut head = [0; 4096];
                while stream.read(&mut head).is_ok_and(|n| n > 0) {
                    let refused = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
                    if stream.write_all(refused.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    for command in bucket_commands(folder.path()) {
        let out = on_bucket(&command, folder.path(), port, "20s").output().expect("the binary runs");
        assert_eq!(out.status.code(), Some(2), "{command:?}: {}", said(&out));
    }
}
