//! The binary from a shell's point of view: help, version, refusals with their exit codes, a clean stop.

mod test_services;

use test_services::Running;
use test_services::command_line::{hearth, text};

#[test]
fn help_is_grouped_with_defaults_and_examples() {
    let out = hearth().arg("--help").output().unwrap();
    assert!(out.status.success());
    // Where lines break depends on the width of the terminal.
    let help = text(&out.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "Server:",
        "Storage:",
        "S3:",
        "Queries:",
        "Writes:",
        "Examples:",
        "--listen <HOST:PORT>",
        "[default: 127.0.0.1:9494]",
        "[env: HEARTH_LISTEN",
        "hearth.yaml",
    ] {
        assert!(help.contains(part), "--help lacks {part:?}:\n{help}");
    }
    let version = hearth().arg("--version").output().unwrap();
    assert_eq!(text(&version.stdout), format!("hearth {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn unknown_flag_is_refused_with_a_hint() {
    let out = hearth().args(["--listn", ":1"]).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("--listen"), "{}", text(&out.stderr));
}

#[test]
fn server_starts_answers_and_stops() {
    let mut running = Running::start(&[]);
    assert_eq!(running.get("/-/healthy").0, 200);
    let out = running.output();
    for part in ["remote_write:", "/api/v1/write", "Grafana"] {
        assert!(out.contains(part), "what it prints at the start lacks {part:?}:\n{out}");
    }
    assert_eq!(running.stop().code(), Some(0), "{}", running.output());
}

#[test]
fn address_in_use_is_refused_with_advice() {
    let running = Running::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let listen = running.address().to_string();
    let out = hearth().args(["--listen", &listen, "--data-dir"]).arg(dir.path()).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    let error = text(&out.stderr);
    assert!(error.contains(&listen) && error.contains("--listen"), "{error}");
}

#[test]
fn data_folder_that_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // A file where the folder should be: it stops root as well, whom permissions do not.
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let data = file.join("data");
    let out = hearth().args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(&data).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    let error = text(&out.stderr);
    assert!(error.contains(data.to_str().unwrap()) && error.contains("--data-dir"), "{error}");
}

#[test]
fn object_store_that_cannot_be_is_refused() {
    for (url, part) in [("ftp://x/y", "s3://bucket/prefix"), ("s3://key:hunter2@bucket", "credentials")] {
        let out = hearth().args(["--listen", "127.0.0.1:0", "--objstore", url]).output().unwrap();
        assert_eq!(out.status.code(), Some(2));
        let error = text(&out.stderr);
        assert!(error.contains(part) && !error.contains("hunter2"), "{error}");
    }
}
