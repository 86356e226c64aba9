//! Runs PromQL test scripts: the project's own in `tests/scripts`, and upstream's conformance vectors where
//! they are at hand.
//!
//! `cargo test -p query --test promql` runs all of them and fails if any `eval` does. With words behind `--`
//! it runs the files whose names contain one of them, and shows more failures:
//! `cargo test -p query --test promql -- histograms`.

mod generate;
mod random;
mod run;
mod script;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use run::Setup;

/// Scripts that must not pass: a runner that lets one of them through proves nothing with the others.
const WRONG: &[&str] = &[
    "load 1m\n  m 1\n\neval instant at 0 m\n  m 2",
    "load 1m\n  m 1\n\neval instant at 0 m",
    "load 1m\n  m 1\n\neval instant at 0 m\n  m 1\n  other 1",
    "load 1m\n  m 1\n\neval instant at 0 abs(m)\n  m 1",
    "load 1m\n  m{a=\"1\"} 1\n  m{a=\"2\"} 2\n\neval instant at 0 sort(m)\n  expect ordered\n  m{a=\"2\"} 2\n  m{a=\"1\"} 1",
    "load 1m\n  m 1 2\n\neval range from 0 to 1m step 1m m\n  m 1 3",
    "load 1m\n  m 1 2\n\neval range from 0 to 1m step 1m m\n  m 1",
    "load 1m\n  m {{schema:0 count:1 sum:1 buckets:[1]}}\n\neval instant at 0 m\n  m {{schema:0 count:1 sum:1 buckets:[0 1]}}",
    "load 1m\n  m {{schema:0 count:1 sum:1 buckets:[1]}}\n\neval instant at 0 -m\n  {} {{schema:0 count:-1 sum:-1 buckets:[-1] counter_reset_hint:reset}}",
    "load 1m\n  m 1\n\neval instant at 0 quantile(2, m)\n  expect no_warn\n  {} Inf",
    "load 1m\n  m 1\n\neval instant at 0 m\n  expect warn\n  m 1",
    "load 1m\n  m 1\n\neval instant at 0 quantile(2, m)\n  expect warn msg: another text\n  {} Inf",
    "load 1m\n  m 1\n\neval instant at 0 m\n  expect fail",
    "eval instant at 0 label_replace(vector(1), \"a\", \"b\", \"c\", \"(\")\n  expect fail msg: another text",
    "eval instant at 0 1\n  2",
    "eval instant at 0 vector(1)\n  1",
    "eval instant at 0 \"a\"\n  expect string \"b\"",
];

/// Failures shown of each file.
const SHOWN: usize = 5;
const SHOWN_WHEN_ASKED_FOR: usize = 4000;

fn shown_at_most(wanted: &[String]) -> usize {
    if wanted.is_empty() { SHOWN } else { SHOWN_WHEN_ASKED_FOR }
}

fn scripts_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "test")).collect();
    files.sort();
    files
}

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let upstream = here.join("../../shared/promqltest");
    let mut out = std::io::stdout().lock();
    let mut print = |text: String| writeln!(out, "{text}").expect("stdout is open");
    let mut whole = true;
    let mut ran = 0;
    for (title, folder, setup) in [
        ("own scripts", here.join("tests/scripts"), Setup::Conformance),
        ("own scripts, default settings", here.join("tests/scripts/defaults"), Setup::Defaults),
        ("upstream's vectors", upstream, Setup::Conformance),
    ] {
        let files = scripts_in(&folder);
        if files.is_empty() {
            print(format!("{title}: none at {}, not run", folder.display()));
            continue;
        }
        let (mut passed, mut total) = (0, 0);
        for file in files {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if !wanted.is_empty() && !wanted.iter().any(|w| name.contains(w.as_str())) {
                continue;
            }
            ran += 1;
            let commands =
                std::fs::read_to_string(&file).map_err(|e| e.to_string()).and_then(|t| script::parse(&t));
            let outcome = match commands {
                Ok(commands) => run::run(&commands, setup),
                Err(e) => run::Outcome { failures: vec![e], ..run::Outcome::default() },
            };
            let ok = outcome.failures.is_empty() && outcome.total > 0;
            print(format!(
                "{} {name:<24} {:>5} / {:<5}",
                if ok { "ok  " } else { "FAIL" },
                outcome.passed,
                outcome.total
            ));
            let shown = shown_at_most(&wanted);
            for failure in outcome.failures.iter().take(shown) {
                print(format!("      {failure}"));
            }
            if outcome.failures.len() > shown {
                print(format!("      … and {} more", outcome.failures.len() - shown));
            }
            whole &= ok;
            passed += outcome.passed;
            total += outcome.total;
        }
        print(format!("{title}: {passed} / {total}"));
    }
    if wanted.is_empty() {
        let refused = WRONG.iter().filter(|text| {
            script::parse(text).is_ok_and(|c| {
                let outcome = run::run(&c, Setup::Conformance);
                outcome.total == 1 && outcome.passed == 0
            })
        });
        let refused = refused.count();
        print(format!("wrong scripts refused: {refused} / {}", WRONG.len()));
        let own: String = scripts_in(&here.join("tests/scripts"))
            .iter()
            .map(|f| std::fs::read_to_string(f).expect("was listed"))
            .collect();
        let called = |name: &str| {
            own.match_indices(&format!("{name}("))
                .any(|(at, _)| !own[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
        };
        let all = query::parse::functions::all().iter().map(|f| f.name);
        let missing: Vec<&str> = all.filter(|name| !called(name)).collect();
        print(format!("functions without a script of our own: {missing:?}"));
        whole &= refused == WRONG.len() && missing.is_empty();
    }
    if wanted.is_empty() || wanted.iter().any(|w| w == "random") {
        for (name, setup) in [("delayed", Setup::Conformance), ("immediate", Setup::Defaults)] {
            let title = format!("random queries, {name} name removal");
            let mut compared = vec![(
                format!("{title}, range against instant"),
                random::ranges_say_what_instants_say(setup),
            )];
            match random::against_reference(setup) {
                Some(c) => compared.push((format!("{title}, against the reference"), c)),
                None => print(format!(
                    "{title}: no reference named by HEARTH_PROMQL_ORACLE, not compared with one"
                )),
            }
            for (title, c) in compared {
                print(format!(
                    "{title}: {} asked, {} answered, {} differ",
                    c.queries,
                    c.answered,
                    c.differences.len()
                ));
                c.differences.iter().take(shown_at_most(&wanted)).for_each(|d| print(format!("      {d}")));
                // Most must have an answer, or nothing is compared.
                whole &= c.differences.is_empty() && c.answered * 3 > c.queries;
                ran += 1;
            }
        }
    }
    if ran == 0 {
        print("no script has such a name".into());
    }
    if whole && ran > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
