//! One name, one meaning: names that said nothing to a stranger were replaced by the field's own, and do not
//! come back.

use crate::tokens::tokens;
use crate::{files, read, root, rust_files};

/// Names that nothing may bear, and what to say instead.
const REPLACED: &[(&str, &str)] = &[
    ("Wish", "Selection, LabelQuery, Hints or Projection"),
    ("wish", "selection, query, hints or projection"),
    ("SealedBlock", "LocalBlock"),
    ("Depot", "BucketMaintenance"),
    ("Intake", "ImportJournal"),
    ("Attachment", "Sidecar"),
    ("attachment", "sidecar"),
    ("Beside", "Sidecar"),
    ("Stretches", "Intervals"),
    ("Mask", "Visibility"),
    ("masked", "with_visibility"),
    ("Held", "Reservation"),
    ("speaks_for_all", "is_authoritative"),
    ("Lane", "QueryClass"),
    ("HandedOut", "Streamed"),
    ("handing", "streaming"),
    ("Remarks", "warnings"),
    ("Tally", "SampleStats"),
    ("tally", "counts"),
    ("Recalling", "SeriesCache"),
    ("recall", "lookup"),
    ("Scout", "Prefetch"),
    ("Workplace", "JobRunner"),
    ("Ledger", "PeakMemory"),
    ("leftovers", "orphans"),
    ("errand", "one-shot command"),
    ("dice", "rng"),
];

/// Names that no type or module may bear, because they were several things at once; as a variant, a method or
/// in a sentence they may be the right word.
const NOT_FOR_TYPES: &[&str] =
    &["Seal", "Known", "Answered", "Begun", "Early", "Pass", "Bench", "Why", "Keep"];

/// Idioms that stop an English reader.
const NO_ENGLISH: &[&str] = &["Prometheis", "is told of", "what came of it", "where it is none"];

/// Uses of replaced names in a text of Rust.
fn replaced(text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    for (n, token) in tokens.iter().enumerate() {
        if let Some((old, new)) = REPLACED.iter().find(|(old, _)| old == token) {
            found.push(format!("{old}: say {new}"));
        }
        let defines = n > 0 && matches!(tokens[n - 1].as_str(), "struct" | "enum" | "trait" | "type" | "mod");
        if defines && NOT_FOR_TYPES.iter().any(|old| old.eq_ignore_ascii_case(token)) {
            found.push(format!("{token}: say what it is"));
        }
    }
    found.dedup();
    found
}

#[test]
fn words_are_the_field_s_own() {
    // This file names what it bans.
    let ours = root().join(file!()).file_name().map(ToOwned::to_owned);
    let mut wrong = Vec::new();
    for path in rust_files().into_iter().filter(|path| path.file_name() != ours.as_deref()) {
        wrong.extend(replaced(&read(&path)).into_iter().map(|what| format!("{}: {what}", path.display())));
    }
    assert!(wrong.is_empty(), "names that were replaced:\n{}", wrong.join("\n"));
}

#[test]
fn words_of_the_pages_and_of_comments_are_english() {
    let ours = root().join(file!()).file_name().map(ToOwned::to_owned);
    let mut all = rust_files();
    all.extend(files(&root().join("docs"), &[".md"]));
    all.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|page| root().join(page)));
    let mut wrong = Vec::new();
    for path in all.into_iter().filter(|path| path.file_name() != ours.as_deref()) {
        let text = read(&path);
        let idioms = NO_ENGLISH.iter().filter(|idiom| text.contains(**idiom));
        wrong.extend(idioms.map(|idiom| format!("{}: {idiom:?}", path.display())));
    }
    assert!(wrong.is_empty(), "no English:\n{}", wrong.join("\n"));
}

#[test]
fn words_that_were_replaced_are_found_as_names_and_not_in_sentences() {
    assert_eq!(replaced("// the dice\nlet dice = \"wish\";"), ["dice: say rng"]);
    assert_eq!(
        replaced("struct Seal; enum Step { Seal } mod known {}"),
        ["Seal: say what it is", "known: say what it is"]
    );
}
