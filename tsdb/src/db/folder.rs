//! The data folder: made, locked, named, and its names made durable.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use ulid::Ulid;

use super::OpenError;

/// Whether an error of the file system may pass by itself: a disk that is full, and what the network or the
/// kernel could not do now. What the name or the permissions of a file forbid does not.
pub(super) fn io_passes(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::*;
    !matches!(
        e.kind(),
        PermissionDenied
            | NotADirectory
            | IsADirectory
            | NotFound
            | AlreadyExists
            | ReadOnlyFilesystem
            | InvalidFilename
            | InvalidInput
            | Unsupported
    )
}

/// Makes the folder, locks it, and finds or gives the name under which its log is known in the catalog.
pub(super) fn take_folder(dir: &Path) -> Result<([File; 2], String), OpenError> {
    let fail = |what: &str, e: &std::io::Error| {
        let text = format!(
            "cannot {what} the data folder {}: {e}. Give another with --data-dir, or make it writable",
            dir.display()
        );
        if io_passes(e) { OpenError::wait(text) } else { OpenError::mend(text) }
    };
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|a| !a.as_os_str().is_empty() && !a.exists()).collect();
    std::fs::create_dir_all(dir).map_err(|e| fail("create", &e))?;
    for made in missing {
        let parent = made.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_folder(parent).map_err(|e| fail("create", &e))?;
    }
    // A file can be removed under the process that has it locked; the folder goes with all that is in it.
    let folder = File::open(dir).map_err(|e| fail("open", &e))?;
    let file = File::options().create(true).truncate(false).write(true).open(dir.join("lock"));
    let locks = [folder, file.map_err(|e| fail("write to", &e))?];
    for lock in &locks {
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(OpenError::wait(format!(
                    "the data folder {} is in use by another Hearth: stop it, or give this one a folder of its own with --data-dir",
                    dir.display()
                )));
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(fail("lock", &e)),
        }
    }
    // Blocks that a process was writing when it was killed: their samples are still in the log.
    let scratch = dir.join("scratch");
    if let Err(e) = std::fs::remove_dir_all(&scratch)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        return Err(fail("empty the scratch folder of", &e));
    }
    let path = dir.join("writer");
    let writer = match std::fs::read_to_string(&path) {
        Ok(text) if Ulid::from_string(text.trim()).is_ok() => text.trim().to_string(),
        Ok(text) if !text.trim().is_empty() => {
            return Err(OpenError::mend(format!(
                "{} holds {text:?} and should hold the 26 characters that name this folder's log: restore it, or remove it if the log is empty",
                path.display()
            )));
        }
        _ => {
            let writer = Ulid::new().to_string();
            if dir.join("epoch").exists() {
                tracing::warn!(
                    "{} is gone, so that this folder gets a new name, {writer}: all that is in its log goes into the object store, and what is there already is merged",
                    path.display()
                );
            }
            let mut file = File::create(&path).map_err(|e| fail("write to", &e))?;
            file.write_all(writer.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(|e| fail("write to", &e))?;
            sync_folder(dir).map_err(|e| fail("write to", &e))?;
            writer
        }
    };
    Ok((locks, writer))
}

/// Makes the names in a folder durable. What is fsynced in a file is lost all the same with the name of the
/// file, or of a folder above it.
pub(super) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_is_made_and_keeps_its_name_and_nothing_in_its_scratch() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b");
        let (locks, writer) = take_folder(&dir).unwrap();
        assert!(Ulid::from_string(&writer).is_ok());
        std::fs::create_dir_all(dir.join("scratch/block")).unwrap();
        drop(locks);
        let (_locks, again) = take_folder(&dir).unwrap();
        assert_eq!(again, writer);
        assert!(!dir.join("scratch").exists());
    }

    #[test]
    fn folder_that_another_has_is_waited_for_and_one_without_a_name_is_for_a_person() {
        let dir = tempfile::tempdir().unwrap();
        let (locks, _) = take_folder(dir.path()).unwrap();
        let taken = take_folder(dir.path()).unwrap_err();
        assert!(taken.passes() && taken.to_string().contains("in use by another Hearth"), "{taken}");
        drop(locks);
        std::fs::write(dir.path().join("writer"), "nobody").unwrap();
        let damaged = take_folder(dir.path()).unwrap_err();
        assert!(!damaged.passes() && damaged.to_string().contains("26 characters"), "{damaged}");
        let file = dir.path().join("lock");
        let no_folder = take_folder(&file).unwrap_err();
        assert!(!no_folder.passes() && no_folder.to_string().contains("--data-dir"), "{no_folder}");
    }
}
