//! File patterns: a star, a question mark or a class in the last element of a path, as `rule_files` has them.

use std::io;
use std::path::{Path, PathBuf};

/// The files that a pattern names, ascending. A pattern without wildcards names its file, whether it is
/// there or not.
pub fn expand(pattern: &str) -> io::Result<Vec<PathBuf>> {
    let path = Path::new(pattern);
    let last = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    if !last.contains(['*', '?', '[']) {
        return Ok(vec![path.to_owned()]);
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let entries = match std::fs::read_dir(folder.unwrap_or(Path::new("."))) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let pattern: Vec<char> = last.chars().collect();
    let mut out = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let Some(text) = name.to_str() else { continue };
        // A hidden file is named by its dot, as a shell has it: editors and Kubernetes leave such files
        // about.
        if text.starts_with('.') && !last.starts_with('.') {
            continue;
        }
        if matches(&pattern, &text.chars().collect::<Vec<_>>()) {
            out.push(folder.map_or_else(|| PathBuf::from(&name), |f| f.join(&name)));
        }
    }
    out.sort();
    Ok(out)
}

/// Whether a whole name fits. Goes back at most to the last star, so it takes the product of both lengths
/// at worst.
fn matches(pattern: &[char], name: &[char]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some('?') => Some(p + 1),
            Some('[') => class(pattern, p, name[n]),
            Some('\\') => (pattern.get(p + 1) == Some(&name[n])).then_some(p + 2),
            Some(c) => (*c == name[n]).then_some(p + 1),
            None => None,
        };
        match (step, &mut star) {
            (Some(next), _) => (p, n) = (next, n + 1),
            (None, Some((at, from))) => {
                *from += 1;
                (p, n) = (*at + 1, *from);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// The place after a class such as `[a-c]` or `[^x]` that has the character.
fn class(pattern: &[char], at: usize, c: char) -> Option<usize> {
    let mut i = at + 1;
    let negated = pattern.get(i) == Some(&'^');
    if negated {
        i += 1;
    }
    let (from, mut found) = (i, false);
    loop {
        let low = *pattern.get(i)?;
        if low == ']' && i > from {
            break;
        }
        let high = match (pattern.get(i + 1), pattern.get(i + 2)) {
            (Some('-'), Some(high)) if *high != ']' => {
                i += 2;
                *high
            }
            _ => low,
        };
        found |= (low..=high).contains(&c);
        i += 1;
    }
    (found != negated).then_some(i + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let fits = |pattern: &str, name: &str| {
            matches(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>())
        };
        for (pattern, name, want) in [
            ("*.yml", "a.yml", true),
            ("*.yml", "a.yaml", false),
            ("*", "", true),
            ("a*b*c", "aXbYbc", true),
            ("a*b*c", "aXbYb", false),
            ("r?.yml", "r1.yml", true),
            ("r[0-2].yml", "r1.yml", true),
            ("r[^0-2].yml", "r1.yml", false),
            ("r[0-2", "r1", false),
            (r"\*", "*", true),
        ] {
            assert_eq!(fits(pattern, name), want, "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_find_files_in_order_and_leave_hidden_ones() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yml", "a.yml", ".c.yml", "d.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = expand(&format!("{}/*.yml", folder.path().display())).unwrap();
        assert_eq!(found, ["a.yml", "b.yml"].map(|n| folder.path().join(n)));
        assert_eq!(expand("/nowhere/at/all/*.yml").unwrap(), Vec::<PathBuf>::new());
        assert_eq!(expand("plain.yml").unwrap(), [PathBuf::from("plain.yml")]);
    }
}
