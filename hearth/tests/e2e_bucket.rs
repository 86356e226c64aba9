//! `hearth bucket` on a bucket that a Hearth uses: what it lists, what it finds damaged, what it counts, what
//! it removes and what it rewrites.

mod test_services;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use test_services::{Series, Start, now_ms, series};

const HOUR_MS: i64 = 3_600_000;

fn some(metric: &str, job: &str, count: usize, from_ms: i64) -> Vec<Series> {
    (0..count)
        .map(|n| {
            let samples: Vec<_> =
                (0..40).map(|i| (from_ms + i * 15_000, n as f64 + i as f64 / 8.0)).collect();
            series(&[("__name__", metric), ("job", job), ("n", &n.to_string()), ("zone", job)], &samples)
        })
        .collect()
}

fn bucket(start: &Start, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hearth"))
        .arg("bucket")
        .args(arguments)
        .arg("--data-dir")
        .arg(start.data_dir())
        .current_dir(&start.folder)
        .output()
        .expect("hearth runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json(start: &Start, arguments: &[&str], code: i32) -> Value {
    let output = bucket(start, &[arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {}", text(&output)))
}

fn blocks(start: &Start) -> PathBuf {
    start.data_dir().join("blocks/tenants/default/blocks")
}

fn samples_file(start: &Start, block: &str) -> PathBuf {
    blocks(start).join(block).join("samples.parquet")
}

fn flip(file: &Path) {
    let mut bytes = std::fs::read(file).expect("a block's file");
    bytes[100] ^= 1;
    std::fs::write(file, bytes).expect("it can be written");
}

#[test]
fn bucket_is_listed_checked_counted_cleaned_and_rewritten_beside_its_server() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut start = Start::at(folder.path()).config("self_metrics_interval: 0\n");
    // The blocks stay as this test makes them.
    start.env.push(("HEARTH_COMPACTOR_ENABLED".into(), "false".into()));
    let mut hearth = start.clone().ready();
    let now = now_ms();
    // Two blocks; `kept` has series in both, which are the same ones.
    // Away from where one block ends and the next begins.
    let day = |ago: i64| (now / (24 * HOUR_MS) - ago) * 24 * HOUR_MS + HOUR_MS;
    for (job, ago) in [("a", 2), ("b", 1)] {
        hearth.api.write(&some("kept", "a", 5, day(ago)));
        hearth.api.write(&some("dropped", job, 20, day(ago)));
        hearth.api.flush();
    }

    let listed = json(&start, &["ls"], 0);
    let lines = listed[0]["blocks"].as_array().expect("blocks");
    assert_eq!(lines.len(), 2, "{listed}");
    for line in lines {
        assert_eq!((line["series"].as_u64(), line["samples"].as_u64()), (Some(25), Some(1000)), "{line}");
        assert!(line["bytes_per_sample"].as_f64().is_some_and(|b| b > 0.1), "{line}");
    }
    let first = lines[0]["block"].as_str().expect("a name").to_owned();
    let plain = text(&bucket(&start, &["ls"]));
    assert!(plain.contains("tenant default: 2 blocks, 2,000 samples") && plain.contains(&first), "{plain}");
    assert!(!plain.contains('\x1b'), "no colours into a pipe: {plain:?}");

    let shown = json(&start, &["inspect", &first], 0);
    assert_eq!(shown[0]["live"], true);
    assert!(
        shown[0]["columns"].as_array().is_some_and(|c| c.iter().any(|c| c["column"] == "series_id")),
        "{shown}"
    );
    assert!(text(&bucket(&start, &["inspect", &first])).contains("samples.parquet"));

    let report = json(&start, &["verify"], 0);
    assert_eq!((report["blocks"].as_u64(), report["samples"].as_u64()), (Some(2), Some(2000)), "{report}");
    assert_eq!(report["findings"], Value::Array(vec![]));

    let stats = json(&start, &["stats", "--by", "cardinality"], 0);
    assert_eq!(stats[0]["series"].as_u64(), Some(5 + 40), "distinct over both blocks: {stats}");
    let metric = |name: &str| {
        let all = stats[0]["metrics"].as_array().expect("metrics");
        all.iter().find(|m| m["metric"] == name).cloned().unwrap_or_else(|| panic!("{name} in {stats}"))
    };
    assert_eq!((metric("kept")["series"].as_u64(), metric("kept")["samples"].as_u64()), (Some(5), Some(400)));
    assert_eq!(
        (metric("dropped")["series"].as_u64(), metric("dropped")["samples"].as_u64()),
        (Some(40), Some(1600))
    );
    let shares = metric("kept")["bytes"].as_f64().unwrap() + metric("dropped")["bytes"].as_f64().unwrap();
    let whole = stats[0]["bytes"].as_u64().unwrap() as f64;
    assert!((shares - whole).abs() < 1.0, "every byte falls to some series: {shares} of {whole}");
    assert_eq!(stats[0]["labels"][0]["label"], "n", "{stats}");

    // Left-overs: a block that was never committed, and something staged.
    let orphan = blocks(&start).join("01ARZ3NDEKTSV4RRFFQ69G5FAV");
    std::fs::create_dir_all(&orphan).expect("a folder");
    std::fs::write(orphan.join("series.parquet"), b"half a block").expect("an object");
    let staged = start.data_dir().join("blocks/staged");
    std::fs::create_dir_all(&staged).expect("a folder");
    std::fs::write(staged.join("01ARZ3NDEKTSV4RRFFQ69G5FAV"), b"{}").expect("an object");
    assert_eq!(json(&start, &["cleanup"], 0)["objects"], 0, "younger than a day");
    let would = json(&start, &["cleanup", "--older-than", "0"], 0);
    assert_eq!((would["objects"].as_u64(), would["deleted"].as_bool()), (Some(2), Some(false)), "{would}");
    assert!(orphan.join("series.parquet").exists(), "only said");
    json(&start, &["cleanup", "--older-than", "0", "--delete"], 0);
    assert!(!orphan.join("series.parquet").exists() && samples_file(&start, &first).exists());
    assert_eq!(json(&start, &["cleanup", "--older-than", "0"], 0)["objects"], 0);

    // Rewritten without a metric, and with one label less.
    let drop = ["rewrite", "--drop-series", "dropped{job=~\"a|b\"}"];
    let would = json(&start, &drop, 0);
    assert_eq!(would["blocks"].as_array().map(Vec::len), Some(2), "{would}");
    assert_eq!(json(&start, &["ls"], 0), listed, "only said");
    let done = json(&start, &[&drop[..], &["--commit"]].concat(), 0);
    assert_eq!(done["blocks"][0]["new_samples"], 200, "{done}");
    assert!(text(&bucket(&start, &drop)).contains("no block holds anything of it"));
    let merged = bucket(&start, &["rewrite", "--drop-label", "n", "--commit"]);
    // Refused before anything was written: what was asked for is to be mended.
    assert_eq!(merged.status.code(), Some(2));
    assert!(text(&merged).contains("would both be"), "{}", text(&merged));
    json(&start, &["rewrite", "--drop-label", "zone", "--commit"], 0);
    assert_eq!(json(&start, &["verify"], 0)["samples"], 400);
    let refused = bucket(&start, &["rewrite", "--drop-series", "{job=~\".*\"}", "--commit"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    hearth = hearth.restart();
    let all = hearth.api.get("/api/v1/series", &[("match[]", "{job=~\".+\"}")]).data();
    assert_eq!(all.as_array().map(Vec::len), Some(5), "{all}");
    assert!(!all.to_string().contains("zone"), "{all}");
    let kept = hearth.api.instant("sum(count_over_time(kept[4d]))", now).single();
    assert_eq!(kept, 400.0);

    // A flipped bit, and a file that is gone.
    let now_live = json(&start, &["ls"], 0);
    let live = |i: usize| now_live[0]["blocks"][i]["block"].as_str().expect("a name").to_owned();
    flip(&samples_file(&start, &live(0)));
    std::fs::remove_file(samples_file(&start, &live(1))).expect("it was there");
    let report = json(&start, &["verify", "--checksums-only"], 1);
    let found = report["findings"].as_array().expect("findings");
    assert_eq!(found.iter().filter(|f| f["severity"] == "damage").count(), 2, "{report}");
    assert!(text(&bucket(&start, &["verify"])).contains("DAMAGED"));
}

#[test]
fn bucket_restore_brings_back_what_retention_took() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut start = Start::at(folder.path()).config("self_metrics_interval: 0\n");
    start.env.push(("HEARTH_COMPACTOR_ENABLED".into(), "false".into()));
    let mut hearth = start.clone().ready();
    let now = now_ms();
    for ago in [40 * 24, 1] {
        hearth.api.write(&some("m", "a", 2, now - ago * HOUR_MS));
        hearth.api.flush();
    }
    let blocks = |start: &Start| json(start, &["ls"], 0)[0]["blocks"].as_array().expect("blocks").len();
    assert_eq!((blocks(&start), restorable(&start)), (2, vec![]));

    // Somebody sets 30 days.
    std::fs::write(start.folder.join("hearth.yaml"), "retention: 30d\ncompactor: {downsample: false}\n")
        .expect("it can be written");
    let compacted = compact_once(&start);
    assert!(compacted.contains("1 blocks past their retention"), "{compacted}");
    let taken = restorable(&start);
    assert_eq!((blocks(&start), taken.len()), (1, 1));
    assert_eq!((&taken[0]["samples"], &taken[0]["past_retention"]), (&80.into(), &true.into()));
    let listed = text(&bucket(&start, &["restore"]));
    assert!(listed.contains("`--commit` does it") && listed.contains("takes them out again"), "{listed}");
    assert_eq!(blocks(&start), 1, "only said");
    let unknown = bucket(&start, &["restore", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "--commit"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", text(&unknown));

    // And takes it back.
    std::fs::write(start.folder.join("hearth.yaml"), "retention: 1y\ncompactor: {downsample: false}\n")
        .expect("it can be written");
    let block = taken[0]["block"].as_str().expect("a name");
    let done = text(&bucket(&start, &["restore", block, "--commit"]));
    assert!(done.contains("1 blocks are back") && !done.contains("takes them out again"), "{done}");
    assert_eq!((blocks(&start), restorable(&start)), (2, vec![]));
    assert!(compact_once(&start).contains("0 blocks past their retention"));
    hearth = hearth.restart();
    assert_eq!(hearth.api.instant("sum(count_over_time(m[50d]))", now).single(), 160.0);
    assert_eq!(json(&start, &["verify"], 0)["samples"], 160);
}

fn restorable(start: &Start) -> Vec<Value> {
    json(start, &["restore"], 0)["blocks"].as_array().expect("blocks").clone()
}

/// A round of compaction by the settings in `hearth.yaml`.
fn compact_once(start: &Start) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hearth"))
        .args(["compact", "--once", "--data-dir"])
        .arg(start.data_dir())
        .current_dir(&start.folder)
        .output()
        .expect("hearth runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    text(&output)
}

#[test]
fn bucket_verify_says_what_is_not_in_the_bucket() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let start = Start::at(folder.path()).config("self_metrics_interval: 0\n");
    let hearth = start.clone().ready();
    hearth.api.write(&some("m", "a", 2, now_ms() - HOUR_MS));
    hearth.api.flush();
    let unknown = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    for (arguments, part) in [
        (&["verify", unknown][..], "is not live"),
        (&["rewrite", "--all", unknown], "is not live"),
        (&["inspect", unknown], unknown),
        (&["ls", "--tenant", "nobody"], "holds nothing of it, but of default"),
        (&["stats", "--tenant", "a/b"], "--tenant"),
    ] {
        let output = bucket(&start, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(part), "{arguments:?}: {}", text(&output));
    }
    let mut export = Command::new(env!("CARGO_BIN_EXE_hearth"));
    export.args(["export", "openmetrics", "--out", "-", "--tenant", "nobody", "--data-dir"]);
    let output = export.arg(start.data_dir()).current_dir(&start.folder).output().expect("hearth runs");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("holds nothing of tenant nobody"), "{}", text(&output));
}

#[test]
fn bucket_that_is_not_there_is_said_to_be_missing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let start = Start::at(folder.path());
    let output = bucket(&start, &["ls"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("no folder of blocks"), "{}", text(&output));
}
