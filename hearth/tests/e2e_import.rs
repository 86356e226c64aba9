//! Imports beside a real Prometheus: its blocks, and those of `promtool`, brought in and asked the same
//! questions; an import that is killed and goes on; text that goes out and comes back.

mod differential;
mod test_services;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use differential::compare::{Said, Tolerance, difference, said};
use differential::load::{self, SPAN_MS, START_MS};
use test_services::api::seconds;
use test_services::ceph::Ceph;
use test_services::prometheus::Prometheus;
use test_services::{Api, Data, Hearth, Series, hearth, installed, series};

const SEED: u64 = 5;
const EXACT: Tolerance = Tolerance { relative: 0.0, absolute: 0.0 };
/// Sums in another order.
const CLOSE: Tolerance = Tolerance { relative: 1e-12, absolute: 0.0 };

/// Runs a command of the binary on the folder that [`serve`] serves.
fn run(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().expect("the binary runs")
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command.args(args).arg("--data-dir").arg(data_dir(folder)).current_dir(folder).env("TMPDIR", folder);
    command
}

fn data_dir(folder: &Path) -> PathBuf {
    hearth::Start::at(folder).data_dir()
}

fn succeed(output: &Output) -> String {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{text}", output.status);
    text
}

fn serve(folder: &Path) -> Hearth {
    hearth::Start::at(folder).config("self_metrics_interval: 0s\n").ready()
}

/// Every sample, and questions of every kind.
fn same_answers(prometheus: &Api, hearth: &Api, series: usize) {
    let all = format!("{{__name__=~\".+\"}}[{}ms]", SPAN_MS + 60_000);
    let end = START_MS + SPAN_MS + 1_000;
    let [a, b] = [prometheus, hearth].map(|api| Said::Data(api.instant(&all, end)));
    assert_eq!(difference(&a, &b, EXACT), None);
    assert!(matches!(&a, Said::Data(Data::Matrix(m)) if m.len() == series), "a series is missing");
    let mut with_values = 0;
    for expr in [
        "up",
        "count({__name__=~\".+\"})",
        "sum by (job) (rate(requests_total[5m]))",
        "increase(bytes_total{device=\"eth0\"}[10m])",
        "histogram_quantile(0.9, sum by (le, path) (rate(latency_bucket[5m])))",
        "topk(3, temperature)",
        "avg_over_time(queue_length[7m])",
        "max by (instance) (queue_length) > 3",
        "requests_total / on (job, instance) group_left limit",
        "resets(requests_total[30m])",
        "changes(build_info[30m])",
        "last_over_time(spot_price[1h])",
        "count_over_time(batch_total[20m])",
        "absent(batch_total{shard=\"9\"})",
        "quantile(0.5, temperature)",
        "sum without (code) (requests_total)",
        "deriv(temperature[10m])",
        "label_replace(limit, \"x\", \"$1\", \"instance\", \"host-(.*):.*\")",
        "sort_desc(weight)",
        "requests_total offset 5m",
        // Its ends lie between steps: 2.42 has ranges closed at the left.
        "max_over_time(rate(bytes_total[2m])[610s:1m])",
    ] {
        for at in [START_MS + 100_000, START_MS + SPAN_MS / 2, START_MS + SPAN_MS - 30_000] {
            let instant = [("query", expr), ("time", &seconds(at))];
            let [a, b] = [prometheus, hearth].map(|api| said(&api.post_form("/api/v1/query", &instant)));
            assert_eq!(difference(&a, &b, CLOSE), None, "{expr} at {at}");
            with_values += usize::from(matches!(&a, Said::Data(d) if !d.is_empty()));
        }
        let (start, end) = (seconds(START_MS), seconds(START_MS + SPAN_MS));
        let range = [("query", expr), ("start", &start), ("end", &end), ("step", "30")];
        let [a, b] = [prometheus, hearth].map(|api| said(&api.post_form("/api/v1/query_range", &range)));
        assert_eq!(difference(&a, &b, CLOSE), None, "{expr} over all of it");
    }
    assert!(with_values > 40, "only {with_values} questions had an answer");
}

#[test]
fn import_of_prometheus_blocks_answers_as_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let prometheus = Prometheus::keeper(folder);
    let all = load::all(SEED);
    for part in all.chunks(40) {
        prometheus.api.write(part);
    }
    let snapshot = prometheus.snapshot(folder);
    let snapshot = snapshot.to_str().unwrap();
    let dry = succeed(&run(folder, &["import", "prometheus", snapshot, "--dry-run"]));
    assert!(dry.contains("nothing was written"), "{dry}");
    // Beside a server that is running: it sees the blocks without a restart.
    let hearth = serve(folder);
    let told = succeed(&run(folder, &["import", "prometheus", snapshot]));
    assert!(told.contains("verified: each of the"), "{told}");
    let again = succeed(&run(folder, &["import", "prometheus", snapshot]));
    assert!(again.contains("imported 0 samples") && again.contains("from an earlier run"), "{again}");
    let hearth = hearth.restart();
    same_answers(&prometheus.api, &hearth.api, all.len());
    // The data directory has the same samples in its log only.
    let dir = Prometheus::data_dir(folder);
    let told = succeed(&run(folder, &["import", "prometheus", dir.to_str().unwrap()]));
    assert!(told.contains("open head") && told.contains("admin/tsdb/snapshot"), "{told}");
}

/// The text of series, without what the format has no word for.
fn text_of(all: &[Series]) -> String {
    let mut out = String::new();
    for s in all {
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
        let labels: Vec<_> = s.labels.iter().filter(|(n, _)| n != b"__name__").collect();
        let labels: Vec<_> = labels.iter().map(|(n, v)| format!("{}={:?}", text(n), text(v))).collect();
        let name = s.labels.iter().find(|(n, _)| n == b"__name__").map(|(_, v)| text(v)).unwrap();
        for (ts, v) in &s.samples {
            if v.to_bits() != 0x7ff0_0000_0000_0002 {
                let v = if v.is_nan() { "NaN".into() } else { format!("{v:?}").replace("inf", "Inf") };
                out += &format!("{name}{{{}}} {v} {}\n", labels.join(","), seconds(*ts));
            }
        }
    }
    out + "# EOF\n"
}

#[test]
fn import_of_text_becomes_what_promtool_makes_of_it_and_goes_out_and_in_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let all = load::all(SEED);
    std::fs::write(folder.join("all.om"), text_of(&all)).unwrap();
    // The reference: blocks by promtool, served by Prometheus.
    let reference = folder.join("reference");
    std::fs::create_dir_all(Prometheus::data_dir(&reference)).unwrap();
    let made = Command::new(installed("promtool", "prometheus"))
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .arg(folder.join("all.om"))
        .arg(Prometheus::data_dir(&reference))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let prometheus = Prometheus::keeper(&reference);

    let by = |name: &str| {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    };
    // The text itself, from a pipe.
    let from_text = by("from-text");
    let mut child = command(&from_text, &["import", "openmetrics", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&std::fs::read(folder.join("all.om")).unwrap()).unwrap();
    succeed(&child.wait_with_output().unwrap());
    let hearth = serve(&from_text);
    same_answers(&prometheus.api, &hearth.api, all.len());
    drop(hearth);

    // promtool's blocks.
    let from_blocks = by("from-blocks");
    let data = Prometheus::data_dir(&reference);
    succeed(&run(&from_blocks, &["import", "prometheus", data.to_str().unwrap()]));
    let hearth = serve(&from_blocks);
    same_answers(&prometheus.api, &hearth.api, all.len());
    drop(hearth);

    // What goes out comes in again, compressed on the way.
    let out = folder.join("out.om.gz");
    let told = succeed(&run(&from_blocks, &["export", "openmetrics", "--out", out.to_str().unwrap()]));
    assert!(told.contains("exported"), "{told}");
    let again = by("again");
    succeed(&run(&again, &["import", "openmetrics", out.to_str().unwrap()]));
    let hearth = serve(&again);
    same_answers(&prometheus.api, &hearth.api, all.len());
}

#[test]
fn import_refuses_what_cannot_be_read_with_its_line_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (text, part) in [
        ("a 1 1\nb 2\n# EOF\n", "line 2: b has no timestamp"),
        ("a 1 1\n", "line 2, column 1: the text ends without # EOF"),
        ("a 1 1\n# EOF\nb 1 1\n", "line 3, column 1: there is something after # EOF"),
        ("a{x=\"1} 1 1\n# EOF\n", "line 1, column 5"),
        ("a 1 1\nb x 1\n# EOF\n", "line 2, column 3: expected a number"),
    ] {
        std::fs::write(folder.join("bad.om"), text).unwrap();
        let output = run(folder, &["import", "openmetrics", "bad.om"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(part), "{told}\nshould contain {part}");
    }
    for args in [
        &["import", "prometheus", "nowhere"][..],
        &["import", "prometheus", ".", "--match", "{"],
        &["import", "openmetrics", "bad.om", "--tenant", "a/b"],
        &["export", "parquet", "--out", "x", "--start", "soon"],
    ] {
        let output = run(folder, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let blocks = data_dir(folder).join("blocks/tenants/default/blocks");
    assert!(!blocks.exists(), "something was written");
}

fn done(folder: &Path) -> usize {
    let journal = data_dir(folder).join("blocks/tenants/default/imports");
    let Ok(entries) = std::fs::read_dir(journal) else { return 0 };
    entries.flatten().filter(|e| e.file_name().to_str().is_some_and(|n| n.ends_with(".done.json"))).count()
}

#[test]
fn import_that_is_killed_goes_on_and_doubles_nothing() {
    const DAYS: i64 = 30;
    const STEP_MS: i64 = 600_000;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let start = 1_700_000_000_000;
    let per_series = DAYS * 86_400_000 / STEP_MS;
    let all: Vec<Series> = (0..5)
        .map(|s| {
            let id = s.to_string();
            let samples: Vec<_> = (0..per_series).map(|i| (start + i * STEP_MS, (i * s) as f64)).collect();
            series(&[("__name__", "m"), ("id", &id)], &samples)
        })
        .collect();
    std::fs::write(folder.join("long.om"), text_of(&all)).unwrap();
    let import = ["import", "openmetrics", "long.om"];
    let mut kills = 0;
    while kills < 5 {
        let before = done(folder);
        let mut child: Child =
            command(folder, &import).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while done(folder) < before + 1 + 2 * kills && child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(120), "no block after two minutes");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    let spans = 2 * DAYS as usize + 1;
    let so_far = done(folder);
    assert!((5..spans).contains(&so_far), "{so_far} of {spans} blocks after {kills} kills");
    let told = succeed(&run(folder, &import));
    assert!(told.contains("from an earlier run"), "{told}");
    assert_eq!(done(folder), spans);
    let hearth = serve(folder);
    // Live blocks: each span once, whenever the kills came.
    let snapshots = data_dir(folder).join("blocks/tenants/default/catalog");
    let newest = std::fs::read_dir(snapshots).unwrap().map(|e| e.unwrap().path()).max().unwrap();
    let newest: serde_json::Value = serde_json::from_slice(&std::fs::read(newest).unwrap()).unwrap();
    let samples: u64 =
        newest["blocks"].as_array().unwrap().iter().map(|b| b["stats"]["samples"].as_u64().unwrap()).sum();
    assert_eq!(samples, 5 * per_series as u64);
    assert_eq!(newest["blocks"].as_array().unwrap().len(), spans);
    let end = start + DAYS * 86_400_000;
    let counted = hearth.api.instant(&format!("sum(count_over_time(m[{}d]))", DAYS + 1), end).single();
    assert_eq!(counted, 5.0 * per_series as f64);
}

#[test]
fn import_and_export_of_a_part() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let line = |job: &str, i: i64| format!("m{{job={job:?}}} {i} {}\n", seconds(START_MS + i * 60_000));
    let text: String = (0..100).flat_map(|i| [line("a", i), line("b", i)]).collect();
    std::fs::write(folder.join("two.om"), text + "# EOF\n").unwrap();
    let part = ["import", "openmetrics", "two.om", "--match", "m{job=\"a\"}", "--label", "from=text"];
    let told = succeed(&run(folder, &part));
    assert!(told.contains("imported 100 samples"), "{told}");
    let end = seconds(START_MS + 9 * 60_000);
    let args =
        ["export", "openmetrics", "--out", "-", "--match", "m", "--match", "{from=\"text\"}", "--end", &end];
    let output = run(folder, &args);
    succeed(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 11, "{text}");
    assert_eq!(lines[1], format!("m{{from=\"text\",job=\"a\"}} 1 {}", (START_MS + 60_000) / 1000));
    assert_eq!(lines[10], "# EOF");
    // The rest is another import of the same text.
    let told = succeed(&run(folder, &["import", "openmetrics", "two.om"]));
    assert!(told.contains("imported 200 samples"), "{told}");
}

/// A bucket that Thanos wrote: two days of a raw block, and what it made of it.
fn bucket() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ingest/tests/data/thanos")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|e| e.unwrap()) {
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[test]
fn import_of_a_thanos_bucket_keeps_its_answers_where_the_raw_samples_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let by = |name: &str| {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    };
    let whole = by("whole");
    let args = ["import", "thanos", bucket().to_str().unwrap(), "--drop-label", "replica"].map(str::to_owned);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let told = succeed(&run(&whole, &args));
    assert_eq!(told.matches("left out, the bucket has raw samples for all of its time").count(), 2, "{told}");

    // The same without the raw block, with an upload that is not complete and a block that is about to go.
    let bare = by("bare");
    let without = folder.join("without-raw");
    copy(&bucket(), &without);
    std::fs::remove_file(without.join("expected.json.zst")).unwrap();
    let raw = without.join("01M89W835D92RX0GYCNXQA97FK");
    copy(&raw, &without.join("01M89W835D92RX0GYCNXQA97FZ"));
    std::fs::write(without.join("01M89W835D92RX0GYCNXQA97FZ/deletion-mark.json"), "{}").unwrap();
    std::fs::remove_file(raw.join("meta.json")).unwrap();
    let url = format!("file://{}", without.display());
    let told = succeed(&run(&bare, &["import", "thanos", &url, "--drop-label", "replica"]));
    assert!(told.contains("no meta.json") && told.contains("marked for deletion"), "{told}");
    assert!(!told.contains("raw samples for all"), "{told}");
    let again = succeed(&run(&bare, &["import", "thanos", &url, "--drop-label", "replica"]));
    assert!(again.contains("imported 0 samples"), "{again}");

    // Compaction merges the windows and does not forget what they are.
    let blocks = || {
        let output = run(&bare, &["bucket", "ls", "--json"]);
        succeed(&output);
        let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let blocks = listed[0]["blocks"].as_array().unwrap().clone();
        assert!(blocks.iter().all(|b| b["approximate"] == true && b["resolution_ms"] != 0), "{listed}");
        blocks.len()
    };
    let before = blocks();
    succeed(&run(&bare, &["compact", "--once"]));
    assert!(blocks() < before, "{} of {before} are left", blocks());

    let (whole, bare) = (serve(&whole), serve(&bare));
    // What came from them is not called exact, and what came from samples is. Of the windows the coarsest
    // that fit the steps are read.
    for (step, resolution) in [("3600", "1h"), ("300", "5m")] {
        let expr = format!("sum_over_time(gauge[{resolution}])");
        let (from, to) = ("1700046000", "1700150400");
        let asked =
            [("query", expr.as_str()), ("start", from), ("end", to), ("step", step), ("stats", "true")];
        for (hearth, approximate) in [(&whole, false), (&bare, true)] {
            let answer = hearth.api.post_form("/api/v1/query_range", &asked);
            let json = answer.json();
            assert!(json["warnings"].is_null(), "{:?}", json["warnings"]);
            let infos: Vec<_> = json["infos"].as_array().into_iter().flatten().collect();
            assert_eq!(infos.len(), usize::from(approximate), "{infos:?}");
            let window = format!("windows of {resolution}");
            assert!(infos.iter().all(|i| {
                let text = i.as_str().unwrap();
                ["sum_over_time", "\"gauge\"", &window, "Thanos"].iter().all(|part| text.contains(part))
            }));
            let told = &answer.headers["x-hearth-resolution"];
            assert_eq!(told.starts_with(&format!("~{resolution}=")), approximate, "{told}");
            let parts = json["data"]["stats"]["resolutions"].as_array().unwrap();
            assert!(!parts.is_empty() && parts.iter().all(|p| p["exact"] == !approximate), "{parts:?}");
        }
    }
    // Half a day that begins where Thanos' windows do, seen from the last millisecond of one.
    let end = 1_700_085_600_000 - 1;
    for expr in [
        "count_over_time(gauge[12h])",
        "count_over_time(sparse[12h])",
        "sum_over_time(gauge[12h])",
        "min_over_time(gauge[12h])",
        "max_over_time(gauge[12h])",
        "avg_over_time(const[12h])",
        "last_over_time(up_total[12h])",
        "last_over_time(resets_total[12h])",
        "increase(up_total[12h])",
        "rate(resets_total[12h])",
        "resets(resets_total[12h])",
    ] {
        let ask = |hearth: &Hearth| {
            said(&hearth.api.post_form("/api/v1/query", &[("query", expr), ("time", &seconds(end))]))
        };
        let (a, b) = (ask(&whole), ask(&bare));
        assert_eq!(difference(&a, &b, CLOSE), None, "{expr}");
        assert!(matches!(&a, Said::Data(d) if !d.is_empty()), "{expr} has an answer");
    }
    let labels = whole.api.instant("gauge", end).vector();
    let labels = labels.keys().next().unwrap();
    assert_eq!((labels["cluster"].as_str(), labels.get("replica")), ("eu", None));
}

/// Every file below a folder, by its path from there.
fn files(folder: &Path, below: &str) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder.join(below)).unwrap().map(|e| e.unwrap()) {
        let name = format!("{below}{}", entry.file_name().to_str().unwrap());
        match entry.path().is_dir() {
            true => out.extend(files(folder, &format!("{name}/"))),
            false => out.push((name, std::fs::read(entry.path()).unwrap())),
        }
    }
    out
}

#[test]
fn import_of_a_thanos_bucket_on_s3_fetches_it_and_writes_into_another() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let ceph = Ceph::start(folder);
    ceph.s3.create_bucket("thanos");
    ceph.s3.create_bucket("hearth");
    for (name, bytes) in files(&bucket(), "") {
        ceph.s3.put("thanos", &format!("prod/{name}"), &bytes);
    }
    let import = |more: &[&str]| {
        let args = [&["import", "thanos", "s3://thanos/prod", "--objstore", "s3://hearth"], more].concat();
        succeed(&command(folder, &args).envs(ceph.environment()).output().unwrap())
    };
    let dry = import(&["--dry-run"]);
    assert!(dry.contains("block 01M89W835D92RX0GYCNXQA97FK: raw"), "{dry}");
    assert!(ceph.s3.list("hearth", "tenants/").is_empty());
    let told = import(&[]);
    assert!(told.contains("verified"), "{told}");
    assert!(import(&[]).contains("imported 0 samples"));
    let left = std::fs::read_dir(folder).unwrap().flatten();
    let left: Vec<_> =
        left.filter(|e| e.file_name().to_string_lossy().starts_with("hearth-import")).collect();
    assert!(left.is_empty(), "copies of blocks stayed behind: {left:?}");
    let mut start = hearth::Start::at(folder).config("self_metrics_interval: 0s\n");
    start.objstore = Some("s3://hearth".to_owned());
    start.env = ceph.environment();
    let hearth = start.ready();
    let end = 1_700_172_000_000;
    let counted = hearth.api.instant("count_over_time(gauge{cluster=\"eu\",replica=\"a\"}[3d])", end);
    assert_eq!(counted.single(), 2.0 * 24.0 * 60.0);
}

/// A counter as a server sees it that scrapes it every 15 s from `phase_ms` on: 7 more each second. Half a
/// day and a bit, a whole span among it.
fn counter_text(phase_ms: i64) -> String {
    let mut text = String::from("# TYPE requests counter\n");
    for i in 0..4_000 {
        let ts_ms = START_MS + phase_ms + i * 15_000;
        let value = 7.0 * (ts_ms - START_MS + 60_000) as f64 / 1_000.0;
        text += &format!("requests_total{{job=\"a\"}} {value} {}\n", seconds(ts_ms));
    }
    text + "# EOF\n"
}

/// Blocks that `promtool` makes of a text.
fn blocks_of(folder: &Path, name: &str, text: &str) -> PathBuf {
    let (file, dir) = (folder.join(format!("{name}.om")), folder.join(name));
    std::fs::write(&file, text).unwrap();
    let made = Command::new(installed("promtool", "prometheus"))
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&file, &dir])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    dir
}

/// Copies blocks into a bucket of Thanos, under the external labels that its sidecar would upload them with.
fn upload(dir: &Path, bucket: &Path, labels: &[(&str, &str)]) {
    for block in
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap()).filter(|e| e.path().join("meta.json").is_file())
    {
        let to = bucket.join(block.file_name());
        copy(&block.path(), &to);
        let meta = std::fs::read(to.join("meta.json")).unwrap();
        let mut meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
        let labels: serde_json::Map<_, _> =
            labels.iter().map(|(n, v)| (n.to_string(), (*v).into())).collect();
        meta["thanos"] =
            serde_json::json!({ "labels": labels, "downsample": { "resolution": 0 }, "source": "sidecar" });
        std::fs::write(to.join("meta.json"), meta.to_string()).unwrap();
    }
}

#[test]
fn import_of_an_ha_pair_from_thanos_merges_replicas_and_invents_no_reset() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let bucket = folder.join("bucket");
    for (replica, phase_ms) in [("a", 400), ("b", 0)] {
        let dir = blocks_of(folder, replica, &counter_text(phase_ms));
        upload(&dir, &bucket, &[("cluster", "eu"), ("replica", replica)]);
    }
    let url = bucket.to_str().unwrap().to_owned();
    let told = succeed(&run(folder, &["import", "thanos", &url, "--drop-label", "replica"]));
    assert!(told.contains("verified"), "{told}");
    let again = succeed(&run(folder, &["import", "thanos", &url, "--drop-label", "replica"]));
    assert!(again.contains("imported 0 samples"), "{again}");
    let hearth = serve(folder);
    let end = START_MS + 4_000 * 15_000;
    let all = hearth.api.instant("requests_total", end).vector();
    let labels: Vec<_> = all.keys().collect();
    assert_eq!(labels.len(), 1, "{labels:?}");
    assert_eq!((labels[0]["cluster"].as_str(), labels[0].get("replica")), ("eu", None));
    assert_eq!(hearth.api.instant("resets(requests_total[20h])", end).single(), 0.0);
    assert_eq!(hearth.api.instant("count_over_time(requests_total[20h])", end).single(), 4_000.0);
    for hour in 1..16 {
        let at = START_MS + hour * 3_600_000;
        let rate = hearth.api.instant("rate(requests_total[5m])", at).single();
        assert!((rate - 7.0).abs() < 1e-6, "{rate}/s after {hour} h");
    }
    drop(hearth);

    // One replica first and alone, by itself: then it is too late to merge, which is said and nothing is made
    // worse.
    let late = folder.join("late");
    std::fs::create_dir_all(&late).unwrap();
    let alone = folder.join("alone");
    upload(&folder.join("a"), &alone, &[("cluster", "eu"), ("replica", "a")]);
    succeed(&run(&late, &["import", "thanos", alone.to_str().unwrap(), "--drop-label", "replica"]));
    let output = run(&late, &["import", "thanos", &url, "--drop-label", "replica"]);
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success() && told.contains("without its replicas"), "{told}");
    let hearth = serve(&late);
    assert_eq!(hearth.api.instant("resets(requests_total[20h])", end).single(), 0.0);
}

#[test]
fn import_of_an_ha_pair_of_prometheus_asks_for_labels_and_adds_them() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let [a, b] =
        [("a", 400), ("b", 0)].map(|(name, phase_ms)| blocks_of(folder, name, &counter_text(phase_ms)));
    let both = ["import", "prometheus", a.to_str().unwrap(), b.to_str().unwrap()];
    let output = run(folder, &both);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("--label replica=a"), "{told}");
    for (dir, replica) in [(&a, "replica=a"), (&b, "replica=b")] {
        succeed(&run(
            folder,
            &["import", "prometheus", dir.to_str().unwrap(), "--label", replica, "--label", "job=b"],
        ));
    }
    // A label of the series' own stays, as with external labels of Prometheus.
    let hearth = serve(folder);
    let end = START_MS + 3_600_000;
    let all = hearth.api.instant("requests_total{job=\"a\"}", end).vector();
    let mut replicas: Vec<_> = all.keys().map(|l| l["replica"].clone()).collect();
    replicas.sort();
    assert_eq!(replicas, ["a", "b"]);
    let merged =
        [("query", "resets(requests_total[30m])"), ("time", &seconds(end)), ("replicaLabels[]", "replica")];
    let Said::Data(Data::Vector(merged)) = said(&hearth.api.post_form("/api/v1/query", &merged)) else {
        panic!("no answer")
    };
    assert_eq!(merged.values().map(|(_, v)| *v).collect::<Vec<_>>(), [0.0]);
}

#[test]
fn import_of_text_spells_bounds_as_scrapes_do_and_takes_no_label_twice() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let at = seconds(START_MS);
    let text = format!(
        "# TYPE h histogram\nh_bucket{{le=\"1\"}} 1 {at}\nh_bucket{{le=\"+Inf\"}} 2 {at}\n# TYPE s summary\ns{{quantile=\"1\"}} 3 {at}\n# EOF\n"
    );
    std::fs::write(folder.join("h.om"), text).unwrap();
    let refused = run(folder, &["import", "openmetrics", "h.om", "--label", "le=2"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("line 2: the series has the label le"), "{told}");
    succeed(&run(folder, &["import", "openmetrics", "h.om"]));
    let hearth = serve(folder);
    for series in ["h_bucket{le=\"1.0\"}", "h_bucket{le=\"+Inf\"}", "s{quantile=\"1.0\"}"] {
        assert_eq!(hearth.api.instant(series, START_MS).vector().len(), 1, "{series}");
    }
}
