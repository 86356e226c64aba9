//! A folder for blocks under way that no other process uses, and that does not outlive this one for long.

use std::fs::File;
use std::path::{Path, PathBuf};

use ulid::Ulid;

/// A folder of this process' own below the scratch folder, with a locked file beside it for as long as it is
/// in use.
pub(super) struct OwnScratch {
    pub folder: PathBuf,
    lock: PathBuf,
    _locked: File,
}

impl OwnScratch {
    /// Makes it, and removes those of processes that are gone.
    pub fn make(dir: &Path) -> std::io::Result<OwnScratch> {
        std::fs::create_dir_all(dir)?;
        for entry in std::fs::read_dir(dir)? {
            let folder = entry?.path();
            if !folder.is_dir() {
                continue;
            }
            let lock = folder.with_extension("lock");
            let in_use = File::open(&lock).is_ok_and(|f| f.try_lock().is_err());
            if !in_use {
                std::fs::remove_dir_all(&folder)?;
                // Its folder is what matters; without one it says nothing.
                let _ = std::fs::remove_file(&lock);
            }
        }
        let name = Ulid::new().to_string();
        let lock = dir.join(format!("{name}.lock"));
        // Locked before there is a folder, so that nobody finds one without.
        let locked = File::create(&lock)?;
        locked.try_lock().map_err(|e| std::io::Error::other(e.to_string()))?;
        let folder = dir.join(name);
        std::fs::create_dir(&folder)?;
        Ok(OwnScratch { folder, lock, _locked: locked })
    }
}

impl Drop for OwnScratch {
    fn drop(&mut self) {
        // What stays is removed by the next process.
        let _ = std::fs::remove_dir_all(&self.folder);
        let _ = std::fs::remove_file(&self.lock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_of_the_dead_goes_and_that_of_the_living_stays() {
        let dir = tempfile::tempdir().unwrap();
        let alive = OwnScratch::make(dir.path()).unwrap();
        std::fs::write(alive.folder.join("block"), "x").unwrap();
        let dead = dir.path().join("01J0000000000000000000DEAD");
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.with_extension("lock"), "").unwrap();
        let other = OwnScratch::make(dir.path()).unwrap();
        assert!(!dead.exists() && alive.folder.join("block").exists() && other.folder.exists());
        drop(alive);
        drop(other);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
