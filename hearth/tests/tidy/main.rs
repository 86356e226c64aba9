//! Holds the house rules that a compiler does not: arrows between crates and modules, names, words, first
//! sentences, and commands that exist.

mod architecture;
mod circles;
mod comments;
mod tokens;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All files below a folder whose name ends with one of `ends`, without build output.
fn files(below: &Path, ends: &[&str]) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut folders = vec![below.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("an entry of a folder").path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("").to_owned();
            if path.is_dir() {
                if !matches!(name.as_str(), "target" | ".git" | "hearth-data" | "node_modules") {
                    folders.push(path);
                }
            } else if ends.iter().any(|end| name.ends_with(end)) {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}

/// Folders of the workspace's crates.
fn members() -> Vec<String> {
    let manifest = read(&root().join("Cargo.toml"));
    let list = manifest.lines().find_map(|l| l.strip_prefix("members = [")).expect("Cargo.toml has members");
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn rust_files() -> Vec<PathBuf> {
    // One crate may lie in another's folder.
    let all: BTreeSet<_> = members().iter().flat_map(|c| files(&root().join(c), &[".rs"])).collect();
    let all: Vec<_> = all.into_iter().collect();
    assert!(all.len() > 50, "only {} Rust files found: is this the workspace's root?", all.len());
    all
}

/// Names of dependencies in a section of a manifest.
fn dependencies(of: &str, section: &str) -> BTreeSet<String> {
    let manifest = read(&root().join(of).join("Cargo.toml"));
    let mut inside = false;
    let mut out = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == format!("[{section}]");
        } else if inside && let Some(end) = line.find(['.', ' ', '=']) {
            out.insert(line[..end].to_owned());
        }
    }
    out
}

/// What programs are told of the API names every route there is, in whichever crate.
#[test]
fn openapi_names_every_route() {
    let described = read(&root().join("query/src/api/endpoints/openapi.yaml"));
    let mut routes = 0;
    for folder in ["ingest/src", "query/src/api", "query/rules/src/api", "hearth/src"] {
        for file in files(&root().join(folder), &[".rs"]) {
            let text = read(&file);
            let text = text.split("#[cfg(test)]").next().unwrap_or("");
            for call in [".route(\"", ".add(\""] {
                for (at, _) in text.match_indices(call) {
                    let path = text[at + call.len()..].split('"').next().unwrap_or("");
                    if path.ends_with("{*path}") || path.starts_with("/debug/") {
                        continue;
                    }
                    routes += 1;
                    assert!(described.contains(&format!("\n  {path}:\n")), "{path} of {}", file.display());
                }
            }
        }
    }
    assert!(routes > 50, "only {routes} routes were found: is the test looking in the right places?");
}

#[test]
fn arrows_between_crates_point_down() {
    for (from, never) in [
        (
            "tsdb/model",
            &[
                "tsdb",
                "members",
                "ingest",
                "query",
                "compactor",
                "hearth",
                "arrow-array",
                "arrow-schema",
                "parquet",
                "object_store",
                "tokio",
                "bytes",
            ][..],
        ),
        ("query/discovery", &["tsdb", "members", "rules", "ingest", "query", "compactor", "hearth"]),
        ("query/members", &["ingest", "query", "compactor", "hearth"]),
        (
            "tsdb",
            &["members", "ingest", "query", "compactor", "hearth", "axum", "hyper", "promql-parser"][..],
        ),
        ("ingest", &["members", "query", "compactor", "hearth", "object_store"]),
        (
            "query",
            &[
                "tsdb",
                "members",
                "ingest",
                "compactor",
                "hearth",
                "arrow-array",
                "parquet",
                "object_store",
                "promql-parser",
            ],
        ),
        ("query/rules", &["tsdb", "ingest", "compactor", "hearth", "arrow-array", "parquet", "object_store"]),
        ("compactor", &["members", "ingest", "query", "hearth", "axum", "object_store"]),
        ("hearth", &["promql-parser"]),
        // It measures any server from outside, Hearth as little known to it as its peers.
        ("bench", &["tsdb", "ingest", "query", "compactor", "hearth"]),
    ] {
        let has = dependencies(from, "dependencies");
        for other in never {
            assert!(!has.contains(*other), "{from} must not depend on {other}");
        }
    }
    for from in ["ingest", "query", "compactor"] {
        let has = dependencies(from, "dev-dependencies");
        for other in ["ingest", "query", "compactor", "hearth"] {
            assert!(!has.contains(other), "{from}'s tests must not depend on {other}");
        }
        assert!(dependencies(from, "dependencies").contains("model"), "{from} builds on the nouns");
    }
}

#[test]
fn files_open_with_a_sentence() {
    for path in rust_files() {
        let text = read(&path);
        let first = text.lines().next().unwrap_or("");
        let sentence = first.strip_prefix("//! ").unwrap_or("");
        assert!(
            sentence.len() >= 15,
            "{}: should open with a sentence (`//! …`), not with {first:?}",
            path.display()
        );
    }
}

#[test]
fn files_are_named_after_what_is_inside() {
    const BANNED: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "manager", "misc", "shared"];
    for path in rust_files() {
        let parts = path.strip_prefix(root()).expect("below the root").iter().filter_map(|p| p.to_str());
        for part in parts {
            let name = part.trim_end_matches(".rs");
            assert!(!BANNED.contains(&name), "{}: {name} says nothing about what is inside", path.display());
        }
    }
}

#[test]
fn files_hold_one_idea() {
    for path in rust_files() {
        let lines = read(&path).lines().count();
        assert!(lines <= 1200, "{} has {lines} lines: it holds more than one idea", path.display());
    }
}

#[test]
fn commands_in_the_readme_exist() {
    let readme = read(&root().join("README.md"));
    for command in [".ci/test-services", ".ci/run"] {
        let path = root().join(command);
        assert!(path.is_file(), "{command} is missing");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&path).expect("its metadata").permissions().mode();
            assert!(mode & 0o111 != 0, "{command} is not executable");
        }
        assert!(read(&path).contains("set -euo pipefail"), "{command} goes on after an error");
    }
    let test = ".ci/test-services && cargo test --workspace";
    assert!(readme.contains(test), "README.md names the command that passes all tests");
    assert!(
        read(&root().join(".ci/run")).contains("cargo test --workspace"),
        ".ci/run runs the README's tests"
    );
    // Every flag the README shows is one that there is, of the command it stands behind.
    for line in readme.lines().filter(|l| l.starts_with("hearth ")) {
        let words = line.split_whitespace().skip(1);
        let command: Vec<&str> =
            words.clone().take_while(|w| w.bytes().all(|b| b.is_ascii_lowercase())).collect();
        let help = std::process::Command::new(env!("CARGO_BIN_EXE_hearth"))
            .args(&command)
            .arg("--help")
            .output()
            .expect("--help runs");
        let help = String::from_utf8(help.stdout).expect("UTF-8");
        for word in words.filter(|w| w.starts_with("--")) {
            assert!(help.contains(word), "README.md shows {word}, which --help of {command:?} does not know");
        }
    }
    for row in readme.lines().filter_map(|l| l.strip_prefix("| `")) {
        let folder = row.split('`').next().unwrap_or("");
        if folder.ends_with('/') {
            assert!(root().join(folder).is_dir(), "README.md describes {folder}");
        }
    }
}

/// All pages of documentation.
fn pages() -> Vec<PathBuf> {
    let mut pages = files(&root().join("docs"), &[".md"]);
    pages.extend(files(&root().join("decisions"), &[".md"]));
    let others = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "bench/README.md",
        "ingest/REMOTE_WRITE.md",
        "query/EXACTNESS.md",
    ];
    pages.extend(others.map(|f| root().join(f)));
    pages
}

/// The names under which a page's headings can be linked to.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|l| l.starts_with('#'));
    let kept = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let anchor = |h: &str| h.trim_start_matches('#').trim().to_lowercase().replace(|c| !kept(c), "");
    headings.map(|h| anchor(h).replace(' ', "-")).collect()
}

#[test]
fn links_between_pages_lead_to_files_and_headings() {
    for page in pages() {
        let text = read(&page);
        let links = text.split("](").skip(1).filter_map(|l| l.split(')').next());
        for link in links.filter(|l| !l.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().expect("a page lies in a folder").join(file),
            };
            assert!(target.exists(), "{} links to {link}", page.display());
            if !heading.is_empty() {
                let there = anchors(&read(&target)).contains(heading);
                assert!(there, "{} links to a heading that is not there: {link}", page.display());
            }
        }
    }
}

#[test]
fn decisions_say_what_was_given_up() {
    let pages = files(&root().join("decisions"), &[".md"]);
    assert!(pages.len() >= 3);
    for page in pages {
        let text = read(&page);
        assert!(text.starts_with("# "), "{} has a title", page.display());
        let lower = text.to_lowercase();
        for part in ["context", "choice", "given up"] {
            assert!(lower.contains(part), "{} does not say its {part}", page.display());
        }
        assert!(text.lines().count() <= 80, "{} is longer than a page", page.display());
    }
}

#[test]
fn paths_of_somebodys_machine_are_nowhere() {
    let mut all = rust_files();
    for folder in ["deploy", "decisions", ".ci"] {
        all.extend(files(&root().join(folder), &[""]));
    }
    all.extend(pages());
    all.extend(["Cargo.toml", "justfile", "deny.toml", "rust-toolchain.toml"].map(|f| root().join(f)));
    // Put together, so that this file does not find itself.
    let private = ["/wo|rk/", "/ho|me/", "/Us|ers/"].map(|p| p.replace('|', ""));
    for path in all {
        let text = read(&path);
        for place in &private {
            assert!(!text.contains(place.as_str()), "{} names {place}", path.display());
        }
    }
}
