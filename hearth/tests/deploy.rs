//! What lies in deploy/ is read by the programs it is meant for, or at least by their parsers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn files(ends: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut folders = vec![deploy()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("deploy/ can be listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ends) {
                out.push(path);
            }
        }
    }
    assert!(!out.is_empty(), "no {ends} in deploy/");
    out
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn yaml_and_json_parse() {
    for path in files(".yaml") {
        for (i, document) in read(&path).split("\n---\n").enumerate() {
            let parsed: Result<Value, _> = serde_saphyr::from_str(document);
            let parsed = parsed.unwrap_or_else(|e| panic!("{}, document {i}: {e}", path.display()));
            assert!(parsed.is_object(), "{}, document {i} is no mapping", path.display());
        }
    }
    for path in files(".json") {
        let parsed: Result<Value, _> = serde_json::from_str(&read(&path));
        parsed.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}

/// Examples of settings are settings. The files of credentials that they name are not here, and that is the
/// only complaint there may be.
#[test]
fn examples_of_object_stores_are_read() {
    let examples: Vec<PathBuf> =
        files(".yaml").into_iter().filter(|p| p.to_string_lossy().contains("objstore/")).collect();
    assert!(examples.len() >= 5, "{examples:?}");
    for path in examples {
        let checked = Command::new(env!("CARGO_BIN_EXE_hearth"))
            .args(["config", "check", "--config"])
            .arg(&path)
            .output()
            .expect("hearth runs");
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        let fine = checked.status.success() || said.contains("cannot be read: No such file");
        assert!(fine, "{}: {said}", path.display());
    }
}

/// Every metric that dashboard and alerts ask for is one that Hearth exposes.
#[test]
fn dashboard_and_alerts_ask_for_metrics_that_exist() {
    let mut asked = BTreeSet::new();
    for path in [deploy().join("grafana/hearth.json"), deploy().join("alerts.yaml")] {
        let text = read(&path);
        for (at, _) in text.match_indices("hearth_") {
            if text[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
                continue;
            }
            let name: String =
                text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            asked.insert(name);
        }
    }
    assert!(asked.len() >= 10, "only {} metrics are asked for", asked.len());
    let mut sources = String::new();
    for file in [
        "hearth/src/http/routes.rs",
        "hearth/src/live_file.rs",
        "hearth/src/metrics/store.rs",
        "hearth/src/metrics/process.rs",
        "hearth/src/metrics/limits.rs",
        "ingest/src/metrics.rs",
        "query/src/api/metrics.rs",
        "compactor/src/metrics.rs",
        "query/rules/src/metrics.rs",
    ] {
        sources += &read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file));
    }
    for name in asked {
        let family = ["_total", "_bucket", "_count", "_sum"]
            .iter()
            .find_map(|s| name.strip_suffix(s))
            .unwrap_or(&name);
        let known =
            ["", "hearth_http_", "hearth_ingest_", "hearth_query_", "hearth_compactor_", "hearth_rule_"]
                .iter()
                .filter_map(|prefix| family.strip_prefix(prefix))
                .any(|rest| sources.contains(&format!("\"{rest}\"")));
        assert!(known, "{name} is asked for in deploy/ and exposed nowhere");
    }
}

#[test]
fn prometheus_takes_the_alert_rules() {
    let out = Command::new("promtool").args(["check", "rules"]).arg(deploy().join("alerts.yaml")).output();
    let out = out
        .expect("promtool is not installed; `.ci/test-services` installs it (Debian's package prometheus)");
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "promtool: {text}");
    assert!(text.contains("SUCCESS"), "{text}");
}

#[test]
fn unit_is_hardened_and_stops_gently() {
    let unit = read(&deploy().join("hearth.service"));
    for line in [
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
        "DynamicUser=yes",
        "Restart=on-failure",
        "StateDirectory=hearth",
    ] {
        assert!(unit.lines().any(|l| l == line), "hearth.service lacks {line}");
    }
    let section = |l: &str| l.starts_with('[') && l.ends_with(']');
    let fine = |l: &str| {
        l.is_empty()
            || l.starts_with('#')
            || section(l)
            || l.split_once('=').is_some_and(|(k, _)| k.bytes().all(|b| b.is_ascii_alphanumeric()))
    };
    assert!(unit.lines().all(fine), "hearth.service has a line that is neither a section nor Key=Value");
}
