//! Flags, environment and file from outside: one precedence, and complaints that name their place.

mod test_services;

use test_services::command_line::{hearth, text};

#[test]
fn flag_wins_over_environment_over_file_over_default() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("my.yaml");
    std::fs::write(&file, "query:\n  timeout: 11s\n  lookback: 11m\n  max_samples: 11\n").unwrap();
    let out = hearth()
        .args(["config", "print", "--query-timeout", "33s", "--config"])
        .arg(&file)
        .env("HEARTH_QUERY_TIMEOUT", "22s")
        .env("HEARTH_QUERY_LOOKBACK", "22m")
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
    let printed = text(&out.stdout);
    for line in [
        "  timeout: 33s  # --query-timeout".to_owned(),
        "  lookback: 22m  # HEARTH_QUERY_LOOKBACK".to_owned(),
        format!("  max_samples: 11  # {}:4", file.display()),
        "  max_concurrency: 20  # default".to_owned(),
    ] {
        assert!(printed.lines().any(|l| l == line), "{line:?} is not in\n{printed}");
    }
}

#[test]
fn config_file_beside_the_start_is_read_without_being_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("hearth.yaml"), "listen: :1\n").unwrap();
    let out = hearth().args(["config", "print"]).current_dir(dir.path()).output().unwrap();
    assert!(
        text(&out.stdout).contains("listen: \"0.0.0.0:1\"  # hearth.yaml:1")
            || text(&out.stdout).contains("listen: 0.0.0.0:1  # hearth.yaml:1"),
        "{}",
        text(&out.stdout)
    );
    // What is printed is a file that says the same.
    let again = dir.path().join("again.yaml");
    std::fs::write(&again, &out.stdout).unwrap();
    let check = hearth().args(["config", "check", "--config"]).arg(&again).output().unwrap();
    assert!(check.status.success(), "{}", text(&check.stderr));
}

#[test]
fn config_complaints_come_at_once_each_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.yaml");
    std::fs::write(&file, "listen: 127.0.0.1:9494\nquery:\n  timeot: 2m\nhead:\n  window: 2 hours\n")
        .unwrap();
    let out = hearth()
        .args(["config", "check", "--wal-sync", "never", "--config"])
        .arg(&file)
        .env("HEARTH_QUERY_MAX_SAMPLES", "many")
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    let error = text(&out.stderr);
    let shown = file.display();
    for part in [
        format!("{shown}:3:3: unknown key \"query.timeot\""),
        "did you mean query.timeout?".to_owned(),
        format!("{shown}:5:3: head.window: \"2 hours\" is not a duration"),
        "--wal-sync: \"never\"".to_owned(),
        "environment: HEARTH_QUERY_MAX_SAMPLES: \"many\"".to_owned(),
    ] {
        assert!(error.contains(&part), "{part:?} is not in\n{error}");
    }
}

#[test]
fn file_that_is_named_must_be_there() {
    let out = hearth().args(["config", "check", "--config", "no/such.yaml"]).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("no/such.yaml"), "{}", text(&out.stderr));
    let dir = tempfile::tempdir().unwrap();
    let none = hearth().args(["config", "check"]).current_dir(dir.path()).output().unwrap();
    assert!(none.status.success(), "without hearth.yaml the defaults hold: {}", text(&none.stderr));
}

#[test]
fn slip_in_a_variables_name_is_pointed_out() {
    let out = hearth()
        .args(["config", "check"])
        .env("HEARTH_LISTN", ":1")
        .env("HEARTH_SERVICE_PORT", "9494")
        .output()
        .unwrap();
    assert!(out.status.success());
    let warning = text(&out.stderr);
    assert!(
        warning.contains("HEARTH_LISTN")
            && warning.contains("HEARTH_LISTEN?")
            && !warning.contains("SERVICE"),
        "{warning}"
    );
}
