//! ARCHITECTURE.md names what there is: every path in it (`tsdb::wal::Log::append`, `query/src/engine.rs`)
//! leads to code.

use std::path::{Path, PathBuf};

use crate::{files, members, read, root};

/// What stands between back quotes in a page, blocks of code left out.
fn quoted(text: &str) -> Vec<String> {
    let prose: String = text.split("```").step_by(2).collect();
    prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The folders that the diagrams name (`wal/`, somewhere below the `tsdb/src` before it) and that are not
/// there.
fn missing_rooms(text: &str) -> Vec<String> {
    let mut base = String::new();
    let mut missing = Vec::new();
    for word in text.split("```").skip(1).step_by(2).flat_map(str::split_whitespace) {
        let word = word.trim_matches(['(', ')', ',', ';', ':']);
        if word.ends_with("/src") {
            base = word.to_owned();
            if !root().join(word).is_dir() {
                missing.push(word.to_owned());
            }
        } else if let Some(room) = word.strip_suffix('/').filter(|r| !r.is_empty()) {
            let below = files(&root().join(&base), &[".rs"]);
            let there = |f: &PathBuf| f.parent().is_some_and(|p| p.iter().any(|part| part == room));
            if !below.iter().any(there) {
                missing.push(format!("{base}/…/{room}"));
            }
        }
    }
    missing
}

/// Where the files of a module are: `block/read.rs`, or all below `block/`.
fn module_files(source: &Path, module: &[&str]) -> Vec<PathBuf> {
    let inside = module.iter().fold(source.to_owned(), |path, part| path.join(part));
    let file = inside.with_extension("rs");
    match (module.is_empty() || inside.is_dir(), file.is_file()) {
        (true, _) => files(&inside, &[".rs"]),
        (false, true) => vec![file],
        (false, false) => Vec::new(),
    }
}

/// Whether a text defines a name.
pub fn defines(text: &str, name: &str) -> bool {
    let kinds = ["fn", "struct", "enum", "trait", "type", "const", "static", "mod"];
    kinds.iter().any(|kind| {
        text.match_indices(&format!("{kind} {name}")).any(|(at, found)| {
            let after = text[at + found.len()..].chars().next().unwrap_or(' ');
            let before = text[..at].chars().next_back().unwrap_or(' ');
            !after.is_alphanumeric() && after != '_' && !before.is_alphanumeric() && before != '_'
        })
    })
}

/// What is wrong with a path such as `tsdb::db::Db::open`; `None` where it leads to something.
fn trouble(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split("::").collect();
    let member = members().into_iter().find(|m| m.rsplit('/').next() == Some(parts[0]))?;
    let source = root().join(&member).join("src");
    let inside = |n: usize| module_files(&source, &parts[1..n]);
    // As many parts as are modules, then a name, then perhaps a name of its own (a method, a variant).
    let modules = (1..=parts.len()).take_while(|n| *n == 1 || !inside(*n).is_empty()).last().unwrap_or(1);
    let names = &parts[modules..];
    let found = inside(modules).iter().any(|f| {
        let text = read(f);
        names.iter().all(|name| defines(&text, name))
    });
    (!names.is_empty() && !found)
        .then(|| format!("no file of {} defines {}", parts[..modules].join("::"), names.join(" with ")))
}

fn is_path(text: &str) -> bool {
    let word = |w: &str| !w.is_empty() && w.chars().all(|c| c.is_alphanumeric() || c == '_');
    text.contains("::") && text.split("::").all(word)
}

#[test]
fn architecture_names_what_there_is() {
    let page = read(&root().join("ARCHITECTURE.md"));
    let mut wrong: Vec<String> =
        missing_rooms(&page).into_iter().map(|room| format!("{room}: no such folder")).collect();
    let mut checked = 0;
    for text in quoted(&page) {
        if is_path(&text) {
            checked += 1;
            wrong.extend(trouble(&text).map(|why| format!("{text}: {why}")));
        }
        let is_file = text.contains('/')
            && !text.contains([' ', '<', '*', '{', ':', '(', '['])
            && !text.starts_with(['/', '-']);
        if is_file {
            checked += 1;
            if !root().join(&text).exists() {
                wrong.push(format!("{text}: no such file or folder"));
            }
        }
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md:\n{}", wrong.join("\n"));
    assert!(checked > 50, "only {checked} names were found: is this the page?");
}

#[test]
fn architecture_test_tells_a_name_that_is_from_one_that_is_not() {
    assert_eq!(trouble("tsdb::wal::Log::append"), None);
    assert!(trouble("tsdb::wal::Log::no_such_thing").is_some());
    assert!(trouble("tsdb::no_such_room::thing").is_some());
    assert_eq!(trouble("std::fs::read"), None, "other crates are not looked at");
    assert!(is_path("a::b_c::D") && !is_path("a::<b>") && !is_path("[::1]:80"));
}
