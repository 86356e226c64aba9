//! Up to which slot each group has been evaluated, in a file that a restart reads.
//!
//! It may lag a few seconds behind: a slot that is evaluated twice writes the same samples twice, which is
//! once.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::GroupKey;

/// The file.
#[derive(Debug)]
pub struct Progress {
    path: PathBuf,
}

impl Progress {
    pub fn new(path: PathBuf) -> Progress {
        Progress { path }
    }

    /// What was kept, by [`id`]; nothing where there is no file or what is in it is not ours.
    pub fn read(&self) -> BTreeMap<String, i64> {
        match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|e| {
                tracing::warn!(
                    "{}: cannot be read, so missed evaluations are not known: {e}",
                    self.path.display()
                );
                BTreeMap::new()
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => {
                tracing::warn!(
                    "{}: cannot be read, so missed evaluations are not known: {e}",
                    self.path.display()
                );
                BTreeMap::new()
            }
        }
    }

    /// Puts the whole in the place of what was there, at once.
    pub fn write(&self, slots: &BTreeMap<String, i64>) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let beside = self.path.with_extension("new");
        std::fs::write(&beside, serde_json::to_vec(slots)?)?;
        std::fs::rename(beside, &self.path)
    }
}

/// A group in the file.
pub fn id(key: &GroupKey) -> String {
    format!("{};{};{}", key.tenant.as_str(), key.file, key.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_survives_and_a_broken_file_is_no_progress() {
        let folder = tempfile::tempdir().unwrap();
        let progress = Progress::new(folder.path().join("rules").join("slots.json"));
        assert!(progress.read().is_empty());
        let slots: BTreeMap<String, i64> = [("t;f;a".to_string(), 5)].into();
        progress.write(&slots).unwrap();
        assert_eq!(progress.read(), slots);
        std::fs::write(folder.path().join("rules").join("slots.json"), "{").unwrap();
        assert!(progress.read().is_empty());
    }
}
