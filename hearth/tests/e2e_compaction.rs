//! Compaction in the running binary and beside it: blocks become fewer, windows appear, and no answer
//! changes.

mod test_services;

use std::process::Command;
use std::time::Duration;
use test_services::{Hearth, Model, Series, Start, now_ms, series, wait_for};

const HOUR_MS: i64 = 3_600_000;

/// Two days of a few series, a flush every six hours, long ago enough to be compacted at once.
fn two_days(hearth: &Hearth, model: &mut Model) -> (i64, i64) {
    let begin = (now_ms() - 20 * 24 * HOUR_MS) / HOUR_MS * HOUR_MS;
    for part in 0..8i64 {
        let from = begin + part * 6 * HOUR_MS;
        let all: Vec<Series> = (0..4)
            .map(|n| {
                let samples: Vec<_> =
                    (0..360).map(|i| (from + i * 60_000, (part * 360 + i) as f64 * 2.0 + n as f64)).collect();
                series(&[("__name__", "packed_total"), ("job", "compact"), ("n", &n.to_string())], &samples)
            })
            .collect();
        hearth.api.write(&all);
        model.acknowledged(&all);
        hearth.api.flush();
    }
    (begin, begin + 48 * HOUR_MS)
}

fn blocks(hearth: &Hearth) -> f64 {
    metric(hearth, "hearth_tsdb_blocks")
}

fn metric(hearth: &Hearth, name: &str) -> f64 {
    let text = hearth.api.try_get("/metrics", &[]).expect("metrics").text();
    let line = text.lines().find(|l| l.split([' ', '{']).next() == Some(name));
    line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

#[test]
fn compactor_inside_the_server_compacts_beside_serving() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut hearth = Start::at(folder.path()).config("compactor:\n  enabled: false\n").ready();
    let mut model = Model::default();
    let (begin, end) = two_days(&hearth, &mut model);
    let before = hearth.api.range("sum(rate(packed_total[5m]))", begin, end, 300_000);
    let hourly = hearth.api.range("sum(increase(packed_total[1h]))", begin + HOUR_MS, end, HOUR_MS);
    assert!(blocks(&hearth) >= 8.0);
    assert!(hearth.stop().success());
    hearth.start.config = Some("compactor:\n  interval: 200ms\n".to_owned());
    let hearth = hearth.start.clone().ready();
    // One raw block and its windows for each span, of which there are at most three of 14 days.
    wait_for("compaction", Duration::from_secs(60), || {
        (blocks(&hearth) <= 9.0
            && metric(&hearth, "hearth_compactor_pending_jobs") == 0.0
            && metric(&hearth, "hearth_compactor_written_samples_total") > 0.0)
            .then_some(())
    });
    let count = model.check(&hearth.api, "packed_total", end, 50 * HOUR_MS, "after compaction");
    assert_eq!(count, model.samples());
    assert_eq!(hearth.api.range("sum(rate(packed_total[5m]))", begin, end, 300_000), before);
    assert_eq!(hearth.api.range("sum(increase(packed_total[1h]))", begin + HOUR_MS, end, HOUR_MS), hourly);
    // Whole hours come from windows of an hour, and the answer says so.
    let times = [("start", begin + HOUR_MS), ("end", end)].map(|(name, t)| (name, (t / 1000).to_string()));
    let mut form = vec![("query", "sum(increase(packed_total[1h]))"), ("step", "3600"), ("stats", "true")];
    form.extend(times.iter().map(|(name, t)| (*name, t.as_str())));
    let told = hearth.api.get("/api/v1/query_range", &form);
    let header = told.headers.get("x-hearth-resolution").expect("a header");
    assert!(header.starts_with("1h="), "{header:?}");
    let parts = told.json()["data"]["stats"]["resolutions"].clone();
    assert_eq!(
        (parts[0]["resolution"].as_str(), parts[0]["exact"].as_bool()),
        (Some("1h"), Some(true)),
        "{parts}"
    );
    let status = hearth.api.try_get("/api/v1/status/compaction", &[]).expect("an answer");
    assert!(status.status == 200 && status.text().contains("\"samplesWritten\""), "{}", status.text());
    // Late samples find their way into what is compacted, at the next look.
    let late = vec![series(
        &[("__name__", "packed_total"), ("job", "compact"), ("n", "9")],
        &[(begin + 30_000, 1.0), (begin + 90_000, 2.0)],
    )];
    hearth.api.write(&late);
    model.acknowledged(&late);
    hearth.api.flush();
    let count = model.check(&hearth.api, "packed_total", end, 50 * HOUR_MS, "with late samples");
    assert_eq!(count, model.samples());
}

#[test]
fn compactor_beside_the_server_compacts_its_bucket() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut start = Start::at(folder.path()).config("compactor:\n  enabled: false\n");
    let bucket = folder.path().join("bucket");
    std::fs::create_dir(&bucket).expect("a folder");
    start.objstore = Some(format!("file://{}", bucket.display()));
    let hearth = start.ready();
    let mut model = Model::default();
    let (begin, end) = two_days(&hearth, &mut model);
    let before = hearth.api.range("sum(rate(packed_total[5m]))", begin, end, 300_000);
    let compact = || {
        let out = Command::new(env!("CARGO_BIN_EXE_hearth"))
            .args(["compact", "--once", "--data-dir"])
            .arg(folder.path().join("elsewhere"))
            .args(["--objstore", hearth.start.objstore.as_deref().expect("set above")])
            .output()
            .expect("the binary starts");
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{said}\n{}", String::from_utf8_lossy(&out.stderr));
        said
    };
    let said = compact();
    assert!(!said.starts_with("0 jobs done"), "{said}");
    // The server still reads what it knows of; then it looks at the catalog again.
    assert_eq!(hearth.api.range("sum(rate(packed_total[5m]))", begin, end, 300_000), before);
    assert!(compact().starts_with("0 jobs done, 0 left"));
    let hearth = hearth.restart();
    assert_eq!(hearth.api.range("sum(rate(packed_total[5m]))", begin, end, 300_000), before);
    let count = model.check(&hearth.api, "packed_total", end, 50 * HOUR_MS, "compacted elsewhere");
    assert_eq!(count, model.samples());
}
