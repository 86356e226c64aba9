//! The page in a real browser, driven by a script beside its sources: each page for each kind of eye and
//! hand, what people do with it, and bad input.

mod test_services;

use std::path::Path;
use std::process::{Command, Stdio};

use test_services::{hearth, installed, now_ms, series};

/// Where the page's sources, their tools and the script lie.
fn sources() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../query/ui")
}

/// The tools that the script needs, as the lock file names them; nothing happens where they are there
/// already.
fn tools() {
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

#[test]
fn page_works_in_a_browser() {
    tools();
    let folder = tempfile::tempdir().expect("a folder");
    let hearth = hearth::Start::at(folder.path()).config("self_metrics_interval: 0s\n").ready();
    let end = now_ms() / 15_000 * 15_000;
    let samples = |per_step: f64| -> Vec<(i64, f64)> {
        (0..120).rev().map(|i| (end - i * 15_000, per_step * (120 - i) as f64)).collect()
    };
    let mut all: Vec<_> =
        ["a", "b", "c"].map(|n| series(&[("__name__", "pages_total"), ("n", n)], &samples(2.0))).to_vec();
    for (le, n) in [("0.5", 1.0), ("2", 3.0), ("10", 4.0), ("+Inf", 4.5)] {
        all.push(series(&[("__name__", "waits_seconds_bucket"), ("le", le)], &samples(n)));
    }
    let markup = r#"<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>"#;
    let long = "long ".repeat(300);
    all.push(series(&[("__name__", "nasty"), ("long", &long), ("markup", markup)], &samples(1.0)));
    hearth.api.write(&all);

    let ran = Command::new(installed("node", "nodejs"))
        .arg("test/browser.mjs")
        .arg(format!("{}/", hearth.api.base))
        .arg((end / 1000).to_string())
        .env("CHROMIUM", installed("chromium", "chromium"))
        .current_dir(sources())
        .stdin(Stdio::null())
        .output()
        .expect("node starts");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}\n{err}");
    assert!(out.contains("all pages are as they should be"), "{out}");
}
