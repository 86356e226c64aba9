//! The page in a real browser: graph, table, explain, and a query that is wrong, as they stand in the document once its scripts have run.

mod test_services;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use test_services::{Hearth, hearth, installed, now_ms, series};

/// A browser starts slowly on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The document of the page with these parameters after its scripts have run. The scripts' own clock runs ahead while they wait for nothing.
fn document(folder: &Path, hearth: &Hearth, parameters: &str) -> String {
    let out = folder.join("document.html");
    let file = std::fs::File::create(&out).expect("a file");
    let mut browser = Command::new(installed("chromium", "chromium"))
        // Tests may run as root, where the sandbox refuses to work; the page is our own.
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ])
        .arg(format!("--user-data-dir={}", folder.join("browser").display()))
        .args(["--virtual-time-budget=20000", "--dump-dom"])
        .arg(format!("{}/?{parameters}", hearth.api.base))
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(Stdio::null())
        .spawn()
        .expect("chromium starts");
    let begun = Instant::now();
    while browser.try_wait().expect("a child can be waited for").is_none() {
        if begun.elapsed() > PATIENCE {
            let _ = browser.kill();
            panic!("chromium did not end within {PATIENCE:?} for {parameters}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let text = std::fs::read_to_string(&out).expect("a document");
    // What is in the scripts' source is not on the page.
    text.split("<body").nth(1).unwrap_or_else(|| panic!("no body in {text}")).to_owned()
}

fn assert_shows(document: &str, wanted: &[&str]) {
    for text in wanted {
        assert!(document.contains(text), "no {text:?} in {document}");
    }
}

#[test]
fn the_page_draws_tables_explains_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let hearth = hearth::Start::at(folder.path()).config("self_metrics_interval: 0s\n").ready();
    let end = now_ms() / 15_000 * 15_000;
    let samples: Vec<_> = (0..120).map(|i| (end - i * 15_000, (2 * (120 - i)) as f64)).rev().collect();
    let all = ["a", "b", "c"].map(|n| series(&[("__name__", "pages_total"), ("n", n)], &samples));
    hearth.api.write(&all);
    let at = |query: &str, tab: &str| format!("q={query}&tab={tab}&range=900&end={}", end / 1000);

    let graph = document(folder.path(), &hearth, &at("rate(pages_total%5B5m%5D)", "graph"));
    assert_shows(&graph, &["<canvas", "3 series", "samples read", ">\"b\"<"]);

    let table = document(folder.path(), &hearth, &at("sum(pages_total)*1000", "table"));
    assert_shows(&table, &["<table", ">720000<"]);

    let explain = document(folder.path(), &hearth, &at("sum(rate(pages_total%5B5m%5D))", "explain"));
    assert_shows(
        &explain,
        &["sum(rate(pages_total[5m]))", ">rate(pages_total[5m])<", "matrixSelector", "Samples read"],
    );

    let wrong = document(folder.path(), &hearth, &at("sum(pages_total", "graph"));
    assert_shows(&wrong, &["The query is not right", "unclosed left parenthesis"]);
}
