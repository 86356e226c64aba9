//! Comments are no wider than the code, so that both are read in one window.

use crate::{read, root, rust_files};

/// The width that rustfmt holds code to.
fn width() -> usize {
    let settings = read(&root().join("rustfmt.toml"));
    let line =
        settings.lines().find_map(|l| l.strip_prefix("max_width = ")).expect("rustfmt.toml says max_width");
    line.parse().expect("a number")
}

/// Lines of a comment that can be broken: not a row of a table, not a single word (an address, a path).
fn can_be_broken(line: &str) -> bool {
    let text = line.trim_start().trim_start_matches(['/', '!']).trim();
    line.trim_start().starts_with("//") && !text.starts_with('|') && text.contains(' ')
}

#[test]
fn comments_are_no_wider_than_the_code() {
    let width = width();
    let mut wide = Vec::new();
    for path in rust_files() {
        let mut in_fence = false;
        for (n, line) in read(&path).lines().enumerate() {
            // A drawing or an example within a comment is as wide as it is.
            in_fence ^= line.trim_start().trim_start_matches(['/', '!']).trim_start().starts_with("```");
            if !in_fence && can_be_broken(line) && line.chars().count() > width {
                wide.push(format!("{}:{}: {} columns", path.display(), n + 1, line.chars().count()));
            }
        }
    }
    assert!(wide.is_empty(), "comments wider than {width} columns ({}):\n{}", wide.len(), wide.join("\n"));
}
