//! The page in a real browser, driven by scripts beside its sources: each page for each kind of eye and
//! hand, what people do with it, bad input, and real data.

mod test_services;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use test_services::ceph::Ceph;
use test_services::prometheus::{NodeExporter, Prometheus};
use test_services::{Hearth, hearth, installed, now_ms, recording, series, split, wait_for};

/// Where the page's sources, their tools and the scripts lie.
fn sources() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../query/ui")
}

/// The tools that the scripts need, as the lock file names them; nothing happens where they are there
/// already.
fn tools() {
    // Tests of this file run beside each other, and one installation is enough.
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock();
    if sources().join("node_modules/playwright-core").is_dir()
        && sources().join("node_modules/axe-core").is_dir()
    {
        return;
    }
    let ran = Command::new(installed("npm", "npm"))
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(sources())
        .status()
        .expect("npm starts");
    assert!(ran.success(), "`npm ci` in query/ui failed: the browser's driver comes with it");
}

/// Runs a script over the pages of a server; `end_ms` is the time of the last sample that it looks at.
fn browse(script: &str, base: &str, end_ms: i64) {
    browse_with(script, base, end_ms, &[]);
}

/// The same, with more that the script is told.
fn browse_with(script: &str, base: &str, end_ms: i64, told: &[(&str, &str)]) {
    tools();
    let ran = Command::new(installed("node", "nodejs"))
        .arg(format!("test/{script}"))
        .arg(format!("{base}/"))
        .arg((end_ms / 1000).to_string())
        .env("CHROMIUM", installed("chromium", "chromium"))
        .envs(told.iter().copied())
        .current_dir(sources())
        .stdin(Stdio::null())
        .output()
        .expect("node starts");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}\n{err}");
    assert!(out.contains("all pages are as they should be"), "{out}");
}

#[test]
fn page_works_in_a_browser() {
    let folder = tempfile::tempdir().expect("a folder");
    // One round of compaction at the start, and then none: what is deleted stays hidden for as long as the
    // test looks at it.
    let config = "self_metrics_interval: 0s\nadmin_api: true\ncompactor:\n  interval: 1h\n";
    let hearth = hearth::Start::at(folder.path()).config(config).ready();
    let end = now_ms() / 15_000 * 15_000;
    let samples = |per_step: f64| -> Vec<(i64, f64)> {
        (0..120).rev().map(|i| (end - i * 15_000, per_step * (120 - i) as f64)).collect()
    };
    hearth.api.write(&[series(&[("__name__", "gone_total")], &samples(1.0))]);
    hearth.api.flush();
    let deleted = hearth.api.call("POST", "/api/v1/admin/tsdb/delete_series?match[]=gone_total");
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    let mut all: Vec<_> =
        ["a", "b", "c"].map(|n| series(&[("__name__", "pages_total"), ("n", n)], &samples(2.0))).to_vec();
    for (le, n) in [("0.5", 1.0), ("2", 3.0), ("10", 4.0), ("+Inf", 4.5)] {
        all.push(series(&[("__name__", "waits_seconds_bucket"), ("le", le)], &samples(n)));
    }
    let markup = r#"<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>"#;
    let long = "long ".repeat(300);
    all.push(series(&[("__name__", "nasty"), ("long", &long), ("markup", markup)], &samples(1.0)));
    hearth.api.write(&all);
    browse("browser.mjs", &hearth.api.base, end);
}

#[test]
fn page_shows_a_recording_of_a_real_prometheus() {
    let folder = tempfile::tempdir().expect("a folder");
    let hearth = hearth::Start::at(folder.path()).config("self_metrics_interval: 0s\n").ready();
    let requests = recording::requests();
    for (n, body) in requests.iter().enumerate() {
        let answer = hearth.api.try_write_raw(body).unwrap_or_else(|e| panic!("request {n}: {e}"));
        assert_eq!(answer.status, 204, "request {n}: {}", answer.text());
    }
    let newest = hearth.api.get("/api/v1/status/tsdb", &[]).data()["headStats"]["maxTime"].as_i64();
    browse("recording.mjs", &hearth.api.base, newest.expect("a time"));
}

/// A sample every 20 minutes of a year that ends at `end_s`, and a week of a metric that ended a month
/// before.
fn year(path: &Path, end_s: i64) {
    let mut text = std::io::BufWriter::new(std::fs::File::create(path).expect("a file"));
    let mut family = |name: &str, times: &mut dyn Iterator<Item = i64>| {
        writeln!(text, "# TYPE {name} gauge\n# HELP {name} How warm it was.").expect("room on the disk");
        let times: Vec<i64> = times.collect();
        for place in ["north", "south"] {
            for t in &times {
                let celsius = 12.0 + 10.0 * (*t as f64 / 5_022_000.0).sin();
                writeln!(text, "{name}{{place=\"{place}\"}} {celsius:.2} {t}").expect("room on the disk");
            }
        }
    };
    const DAY: i64 = 86_400;
    family("old_celsius", &mut (end_s - 37 * DAY..end_s - 30 * DAY).step_by(1200));
    family("year_celsius", &mut (end_s - 365 * DAY..=end_s).step_by(1200));
    writeln!(text, "# EOF").expect("room on the disk");
}

#[test]
fn page_shows_real_data_and_a_year() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = || hearth::Start::at(folder.path()).config("self_metrics_interval: 0s\n");
    let end_s = now_ms() / 1_200_000 * 1200;
    let text = folder.path().join("year.om");
    year(&text, end_s);
    let run = |args: &[&str]| {
        let ran = Command::new(env!("CARGO_BIN_EXE_hearth"))
            .args(args)
            .arg("--data-dir")
            .arg(start().data_dir())
            .current_dir(folder.path())
            .env("TMPDIR", folder.path())
            .output()
            .expect("the binary runs");
        assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    run(&["import", "openmetrics", text.to_str().expect("a plain path")]);
    run(&["compact", "--once"]);
    let hearth = start().ready();
    let exporter = NodeExporter::start(folder.path());
    let url = format!("{}/api/v1/write", hearth.api.base);
    let _prometheus = Prometheus::start(folder.path(), &exporter, &url);
    wait_for("a minute of samples", Duration::from_secs(180), || {
        let counted = hearth.api.instant("count_over_time(node_load1[5m]) >= 45", now_ms());
        (!counted.is_empty()).then_some(())
    });
    browse("real.mjs", &hearth.api.base, end_s * 1000);
}

/// bcrypt of `open sesame` with cost 4.
const HASH: &str = "$2b$04$XkaT3QbrE9Dj1fN5pFQj7.Ql86aHmUcRLWLRlOeEVa0FsFLGA5i2q";

/// Two hours of a counter, two more at each of its samples.
fn pages(end_ms: i64) -> Vec<(i64, f64)> {
    (0..120).rev().map(|i| (end_ms - i * 15_000, 2.0 * (120 - i) as f64)).collect()
}

#[test]
fn page_asks_for_a_password_and_keeps_what_was_typed() {
    let folder = tempfile::tempdir().expect("a folder");
    let end = now_ms() / 15_000 * 15_000;
    let start = hearth::Start::at(folder.path()).config("self_metrics_interval: 0s\n");
    let mut open = start.ready();
    open.api.write(&[series(&[("__name__", "pages_total")], &pages(end))]);
    // The samples are there already when the passwords come.
    let mut start = open.start.clone();
    open.kill();
    let web = folder.path().join("web.yml");
    std::fs::write(&web, format!("basic_auth_users:\n  ann: {HASH}\n")).expect("a file");
    start.config = Some(format!("self_metrics_interval: 0s\nweb: {{config_file: {}}}\n", web.display()));
    let hearth = start.spawn();
    wait_for("hearth to ask for a password", Duration::from_secs(60), || {
        hearth.api.try_get("/-/ready", &[]).is_ok_and(|a| a.status == 401).then_some(())
    });
    let told = [("WEB_CONFIG", web.to_str().expect("a plain path"))];
    browse_with("login.mjs", &hearth.api.base, end, &told);
}

#[test]
fn page_of_a_querier_shows_its_members_and_who_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let ceph = Ceph::start(folder.path());
    ceph.s3.create_bucket("split");
    let mut ingesters =
        ["ingest-0", "ingest-1"].map(|n| split::start(folder.path(), n, "ingest", &ceph, "").spawn());
    ingesters.iter_mut().for_each(Hearth::wait_ready);
    let querier = split::start(folder.path(), "query-0", "query", &ceph, "").ready();
    let end = now_ms() / 15_000 * 15_000;
    for (n, ingester) in ingesters.iter().enumerate() {
        ingester.api.write(&[series(&[("__name__", "pages_total"), ("n", &n.to_string())], &pages(end))]);
    }
    let owing = |late: bool| {
        let members = querier.api.get("/api/v1/status/members", &[]).data();
        let all = members["members"].as_array().cloned().unwrap_or_default();
        all.iter().filter(|m| m["owesSamples"] == true && m["late"] == late).count()
    };
    wait_for("both to say that they hold samples", Duration::from_secs(60), || {
        (owing(false) == 2).then_some(())
    });
    browse_with("members.mjs", &querier.api.base, end, &[("STATE", "there")]);
    let [first, mut second] = ingesters;
    second.kill();
    wait_for("one to be called away", Duration::from_secs(60), || (owing(true) == 1).then_some(()));
    browse_with("members.mjs", &querier.api.base, end, &[("STATE", "away")]);
    drop(first);
}
