//! No import circle between the modules of a crate, neither of files nor of folders: what is there can be
//! read from the bottom up.
//!
//! Files are held against each other one by one, and the modules of one folder each with all that is below
//! it. A module and those inside it are one thing, whichever of them names the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::tokens::{tokens, without_tests};
use crate::{files, members, read, root};

/// A module's place in its crate: `["block", "read"]`; the crate's root is empty.
type ModulePath = Vec<String>;

/// What a module imports and hands on under names of its own.
#[derive(Default)]
struct Module {
    /// Paths as they are written.
    imports: Vec<ModulePath>,
    /// Name → the path it stands for.
    reexports: BTreeMap<String, ModulePath>,
}

/// The modules of a crate.
struct Crate(BTreeMap<ModulePath, Module>);

impl Crate {
    /// From files by their place.
    fn of(texts: impl IntoIterator<Item = (ModulePath, String)>) -> Crate {
        Crate(texts.into_iter().map(|(place, text)| (place, module(&text))).collect())
    }

    /// The module that a path leads to, through what other modules hand on; `None` for one of another crate.
    fn target(&self, from: &[String], path: &[String]) -> Option<ModulePath> {
        let mut whole = self.absolute(from, path)?;
        // A name that is handed on and on ends somewhere.
        for _ in 0..8 {
            let len = (0..=whole.len()).rev().find(|len| self.0.contains_key(&whole[..*len]))?;
            let (place, rest) = whole.split_at(len);
            let handed_on = rest.first().and_then(|name| self.0[place].reexports.get(name));
            let Some(next) = handed_on.and_then(|path| self.absolute(place, path)) else {
                return Some(place.to_vec());
            };
            whole = next;
        }
        None
    }

    /// A path from the crate's root on.
    fn absolute(&self, from: &[String], path: &[String]) -> Option<ModulePath> {
        let mut base = from.to_vec();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => {
                base.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|word| word == "super") {
                    base.pop()?;
                    rest = &rest[1..];
                }
            }
            name => {
                let child: ModulePath = base.iter().cloned().chain([name.to_owned()]).collect();
                self.0.contains_key(&child).then_some(())?;
            }
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    /// Imports between modules of which neither is inside the other: who, whom, and how many names their
    /// paths have in common, with the import in words.
    fn imports(&self) -> Vec<(ModulePath, ModulePath, usize, String)> {
        let mut imports = Vec::new();
        for (from, module) in &self.0 {
            for path in &module.imports {
                let Some(to) = self.target(from, path) else { continue };
                let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                if common < from.len().min(to.len()) {
                    let shown = format!("{} uses {}", from.join("::"), path.join("::"));
                    imports.push((from.clone(), to, common, shown));
                }
            }
        }
        imports
    }

    /// Which file imports which.
    fn file_arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (from, to, _, shown) in self.imports() {
            arrows.entry(from.join("::")).or_default().entry(to.join("::")).or_insert(shown);
        }
        arrows
    }

    /// Which module of a folder imports which other of it, by folder; the crate's root is "".
    fn folder_arrows(&self) -> BTreeMap<String, Arrows> {
        let mut folders: BTreeMap<String, Arrows> = BTreeMap::new();
        for (from, to, common, shown) in self.imports() {
            let folder = folders.entry(from[..common].join("::")).or_default();
            folder.entry(from[common].clone()).or_default().entry(to[common].clone()).or_insert(shown);
        }
        folders
    }
}

/// Who imports whom, with one import that shows it.
type Arrows = BTreeMap<String, BTreeMap<String, String>>;

/// A circle, as the imports that make it.
fn circle(arrows: &Arrows) -> Option<String> {
    let mut finished = BTreeSet::new();
    arrows.keys().find_map(|start| visit(arrows, start, &mut Vec::new(), &mut finished))
}

fn visit<'a>(
    arrows: &'a Arrows,
    at: &'a str,
    way: &mut Vec<&'a str>,
    finished: &mut BTreeSet<&'a str>,
) -> Option<String> {
    if let Some(first) = way.iter().position(|seen| *seen == at) {
        let mut round = way[first..].to_vec();
        round.push(at);
        let imports: Vec<&str> = round.windows(2).map(|w| arrows[w[0]][w[1]].as_str()).collect();
        return Some(imports.join(", "));
    }
    if finished.contains(at) {
        return None;
    }
    way.push(at);
    let found = arrows.get(at).and_then(|to| to.keys().find_map(|to| visit(arrows, to, way, finished)));
    way.pop();
    finished.insert(at);
    found
}

/// What a file imports, in `use` and in the midst of code.
fn module(text: &str) -> Module {
    let tokens = without_tests(&tokens(text));
    let mut module = Module::default();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "use" => {
                let public = at > 0 && matches!(tokens[at - 1].as_str(), "pub" | ")");
                at = tree(&tokens, at + 1, &[], &mut |path, name| {
                    if public && let Some(name) = name {
                        module.reexports.insert(name.to_owned(), path.to_vec());
                    } else {
                        module.imports.push(path.to_vec());
                    }
                });
            }
            "crate" | "super" if tokens.get(at + 1).is_some_and(|t| t == "::") => {
                let (path, end) = path(&tokens, at);
                // `pub(crate)` has no `::` and does not come here.
                module.imports.push(path);
                at = end;
            }
            _ => at += 1,
        }
    }
    module
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The path that begins at a token, and the token after it.
fn path(tokens: &[String], from: usize) -> (ModulePath, usize) {
    let mut path = vec![tokens[from].clone()];
    let mut at = from + 1;
    while tokens.get(at).is_some_and(|t| t == "::") && tokens.get(at + 1).is_some_and(|t| is_name(t)) {
        path.push(tokens[at + 1].clone());
        at += 2;
    }
    (path, at)
}

/// Walks the tree of a `use` (`a::{b, c as d, e::*}`) and gives each path with the name it has here, `None`
/// for `*` and `_`. Answers the token after it.
fn tree(
    tokens: &[String],
    from: usize,
    prefix: &[String],
    found: &mut dyn FnMut(&[String], Option<&str>),
) -> usize {
    let mut whole = prefix.to_vec();
    let mut at = from;
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|t| t != "}") {
                    let end = tree(tokens, at, &whole, found);
                    let comma = tokens.get(end).is_some_and(|t| t == ",");
                    // A sign that no `use` has must not stop the walk for ever.
                    at = (end + usize::from(comma)).max(at + 1);
                }
                return at + 1;
            }
            "::" => at += 1,
            "*" => {
                found(&whole, None);
                return at + 1;
            }
            "as" => {
                let name = tokens.get(at + 1).map(String::as_str).filter(|n| *n != "_");
                found(&whole, name);
                return at + 2;
            }
            "self" if !whole.is_empty() => at += 1,
            word if is_name(word) => {
                whole.push(word.to_owned());
                at += 1;
            }
            _ => break,
        }
    }
    if whole.len() > prefix.len() || tokens.get(at.wrapping_sub(1)).is_some_and(|t| t == "self") {
        found(&whole, whole.last().map(String::as_str));
    }
    at
}

/// The modules of a crate of the workspace, by the files below its `src`.
fn crate_at(source: &Path) -> Crate {
    let of_tests = |path: &Path| path.file_name().is_some_and(|name| name == "tests.rs");
    let sources = files(source, &[".rs"]).into_iter().filter(|path| !of_tests(path));
    Crate::of(sources.map(|path| {
        let inside = path.strip_prefix(source).expect("it lies below").with_extension("");
        let mut place: ModulePath =
            inside.iter().map(|part| part.to_str().expect("UTF-8").to_owned()).collect();
        if place.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
            place.pop();
        }
        (place, read(&path))
    }))
}

#[test]
fn files_import_each_other_in_no_circle() {
    let mut circles = Vec::new();
    let mut count = 0;
    for member in members() {
        let arrows = crate_at(&root().join(&member).join("src")).file_arrows();
        count += arrows.values().map(BTreeMap::len).sum::<usize>();
        circles.extend(circle(&arrows).map(|circle| format!("{member}: {circle}")));
    }
    assert!(circles.is_empty(), "files that import each other in a circle:\n{}", circles.join("\n"));
    assert!(count > 1000, "only {count} imports between files were found: are they still read?");
}

#[test]
fn folders_modules_import_each_other_in_no_circle() {
    let mut circles = Vec::new();
    for member in members() {
        for (folder, arrows) in crate_at(&root().join(&member).join("src")).folder_arrows() {
            circles.extend(circle(&arrows).map(|circle| format!("{member}, folder {folder:?}: {circle}")));
        }
    }
    assert!(circles.is_empty(), "modules that import each other in a circle:\n{}", circles.join("\n"));
}

/// A made-up crate.
fn made_up(texts: &[(&str, &str)]) -> Crate {
    let path = |text: &str| text.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect();
    Crate::of(texts.iter().map(|(at, text)| (path(at), (*text).to_owned())))
}

#[test]
fn circle_is_found_however_it_is_closed() {
    let of_files = |texts: &[(&str, &str)]| circle(&made_up(texts).file_arrows());
    let plain = [("a", "use crate::b::B;"), ("b", "use std::fmt; use super::a::{self, A};")];
    assert_eq!(of_files(&plain).unwrap(), "a uses crate::b::B, b uses super::a");
    let far =
        [("a/x", "fn f() { crate::b::g() }"), ("b", "use crate::c::y::z;"), ("c/y/z", "use crate::{a::x};")];
    assert_eq!(
        of_files(&far).unwrap(),
        "a::x uses crate::b::g, b uses crate::c::y::z, c::y::z uses crate::a::x"
    );
    let handed_on = [("", "pub use b::B;"), ("a", "use crate::B as Other;"), ("b", "use crate::a;")];
    assert_eq!(of_files(&handed_on).unwrap(), "a uses crate::B, b uses crate::a");
    // None of files, and yet neither folder can be read first.
    let folders =
        made_up(&[("a/x", "use crate::b::x;"), ("a/y", ""), ("b/x", ""), ("b/y", "use crate::a::y;")]);
    assert_eq!(circle(&folders.file_arrows()), None);
    assert_eq!(circle(&folders.folder_arrows()[""]).unwrap(), "a::x uses crate::b::x, b::y uses crate::a::y");
}

#[test]
fn circle_is_none_between_a_module_and_what_is_inside_it_nor_in_comments_and_tests() {
    let inside = [("a", "pub use b::B; mod b; use self::b::f;"), ("a/b", "use super::A; use crate::a::C;")];
    let in_words = [
        ("a", "use crate::b::B;"),
        (
            "b",
            "// use crate::a;\nconst C: &str = \"crate::a::A\";\n#[cfg(test)]\nmod tests { use crate::a; }",
        ),
    ];
    for texts in [&inside[..], &in_words[..]] {
        assert_eq!(circle(&made_up(texts).file_arrows()), None);
    }
}
