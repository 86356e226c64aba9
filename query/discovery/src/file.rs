//! Files of targets, JSON or YAML, as Prometheus' `file_sd_configs` have them.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::glob::expand;
use crate::teller::Teller;
use crate::{Group, MAX_BYTES};

/// How often files are looked at: a `stat` each. A change shows after this at the latest.
const LOOK: Duration = Duration::from_secs(1);

/// How often all files are read, changed or not, where nothing else is configured.
pub const REFRESH: Duration = Duration::from_secs(300);

/// Patterns whose last element may hold wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    pub patterns: Vec<String>,
    pub refresh: Duration,
}

/// Whether a pattern names files that upstream would read.
pub fn is_pattern(pattern: &str) -> bool {
    let extension = Path::new(pattern).extension().and_then(|e| e.to_str()).unwrap_or("");
    ["json", "yml", "yaml"].contains(&extension.to_ascii_lowercase().as_str())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileGroup {
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// The groups of a file's text. JSON is read as the YAML that it is.
fn groups(path: &Path, text: &str) -> Result<Vec<Group>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let read: Vec<FileGroup> = serde_saphyr::from_str(text).map_err(|e| {
        let at = e.location().map(|at| format!(":{}:{}", at.line(), at.column())).unwrap_or_default();
        format!("{}{at}: {}", path.display(), e.without_snippet())
    })?;
    let group = |group: FileGroup| {
        let mut labels = group.labels;
        labels.insert("__meta_filepath".into(), path.display().to_string());
        Group { targets: group.targets, labels }
    };
    Ok(read.into_iter().map(group).collect())
}

fn read(path: &Path) -> Result<Vec<Group>, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() > MAX_BYTES {
        return Err(format!("{}: it is longer than {MAX_BYTES} bytes", path.display()));
    }
    groups(path, &text)
}

/// What shows that a file has changed: inode, size, and when it was modified, in nanoseconds.
type State = (u64, u64, i64, i64);

fn state(path: &Path) -> Option<State> {
    std::fs::metadata(path).ok().map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec()))
}

/// What is known of files.
#[derive(Default)]
struct Reading {
    files: BTreeMap<PathBuf, (Option<State>, Vec<Group>)>,
    /// Why files could not be read last.
    failures: BTreeMap<PathBuf, String>,
}

impl Reading {
    /// Reads what has changed, or everything. A file that cannot be read keeps its groups; one that is gone
    /// loses them. Blocks.
    fn look(&mut self, patterns: &[String], all: bool) {
        let mut there = Vec::new();
        self.failures.retain(|path, _| self.files.contains_key(path));
        for pattern in patterns {
            match expand(pattern) {
                Ok(paths) => there.extend(paths),
                Err(e) => {
                    self.failures.insert(pattern.into(), format!("{pattern}: {e}"));
                    return;
                }
            }
        }
        self.files.retain(|path, _| there.contains(path) && path.exists());
        self.failures.retain(|path, _| there.contains(path));
        for path in there {
            let now = state(&path);
            let before = self.files.get(&path).map(|(state, _)| *state);
            if !all && now.is_some() && before == Some(now) {
                continue;
            }
            match read(&path) {
                Ok(groups) => {
                    self.failures.remove(&path);
                    self.files.insert(path, (now, groups));
                }
                Err(why) => {
                    if let Some((state, _)) = self.files.get_mut(&path) {
                        *state = now;
                    }
                    self.failures.insert(path, why);
                }
            }
        }
    }
}

pub(crate) async fn follow(files: Files, teller: Teller) {
    let mut known = Reading::default();
    let mut read_all = tokio::time::Instant::now();
    loop {
        let now = tokio::time::Instant::now();
        let all = now >= read_all;
        if all {
            read_all = now + files.refresh;
        }
        let patterns = files.patterns.clone();
        let looked = tokio::task::spawn_blocking(move || {
            known.look(&patterns, all);
            known
        });
        known = match looked.await {
            Ok(known) => known,
            Err(e) => {
                teller.failed(format!("reading files of targets ended unexpectedly: {e}"));
                Reading::default()
            }
        };
        let groups = known.files.values().flat_map(|(_, groups)| groups.iter().cloned()).collect();
        match known.failures.values().next() {
            None => teller.found(groups),
            Some(why) => teller.found_in_part(groups, why.clone()),
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_targets_are_json_or_yaml_and_a_broken_one_keeps_its_targets() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let patterns =
            [format!("{}/*.json", folder.path().display()), format!("{}/b.yml", folder.path().display())];
        let mut known = Reading::default();
        let mut targets = |all: bool| {
            known.look(&patterns, all);
            let groups: Vec<Group> = known.files.values().flat_map(|(_, g)| g.clone()).collect();
            let targets: Vec<String> = groups.iter().flat_map(|g| g.targets.clone()).collect();
            (targets, known.failures.values().next().cloned().unwrap_or_default(), groups)
        };
        file("a.json", r#"[{"targets": ["x:1", "y:2"], "labels": {"dc": "eu", "n": "1"}}]"#);
        file("b.yml", "- targets: [z:3]\n  labels: {shard: 7}\n");
        let (found, failure, groups) = targets(false);
        assert_eq!((found.len(), failure.as_str()), (3, ""), "{groups:?}");
        assert_eq!(groups[0].labels["dc"], "eu");
        assert!(groups[0].labels["__meta_filepath"].ends_with("/a.json"));
        assert_eq!(groups[1].labels["shard"], "7");

        file("b.yml", "targets: [z:4]\n");
        let (found, failure, _) = targets(false);
        assert_eq!(found, ["x:1", "y:2", "z:3"]);
        assert!(failure.contains("b.yml:1"), "{failure}");
        std::fs::remove_file(folder.path().join("b.yml")).unwrap();
        let (found, failure, _) = targets(false);
        assert_eq!(found, ["x:1", "y:2"]);
        assert!(failure.contains("b.yml"), "a file that is named is missed: {failure}");
        file("b.yml", "");
        file("a.json", r#"[{"targets": ["x:1"], "label": {}}]"#);
        let (found, failure, _) = targets(true);
        assert_eq!(found, ["x:1", "y:2"]);
        assert!(failure.contains("a.json") && failure.contains("label"), "{failure}");
        file("a.json", r#"[{"targets": ["v:1"]}]"#);
        assert_eq!(targets(false).0, ["v:1"]);
    }

    #[test]
    fn pattern_ends_as_upstream_wants_it() {
        assert!(is_pattern("/a/*.yml") && is_pattern("x.JSON"));
        assert!(!is_pattern("/a/*") && !is_pattern("x.txt"));
    }
}
