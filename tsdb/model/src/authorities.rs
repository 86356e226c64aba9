//! The certificates of the authorities that the system trusts, as files: whoever has made something of them
//! learns here that they are others now, and makes it anew.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often the files are looked at, at most.
const EVERY: Duration = Duration::from_secs(1);

/// Where systems have them, unless `SSL_CERT_FILE` and `SSL_CERT_DIR` say where.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Files of a folder that are looked at.
const MOST_FILES: usize = 1_000;

static OF_SYSTEM: LazyLock<Mutex<Looked>> = LazyLock::new(|| Mutex::new(Looked::new(Places::of_system())));

/// A number that is another one after the system's authorities have changed: in place, by a rename, or by
/// the links that Kubernetes and Vault Agent swap. Costs some `stat`s, once a second at most.
pub fn generation() -> u64 {
    OF_SYSTEM.lock().look(Instant::now())
}

/// Device, inode, size and time of modification (seconds and nanoseconds).
type FileState = (u64, u64, u64, i64, i64);

/// Files, and folders of them.
struct Places {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Places {
    fn of_system() -> Places {
        let paths = |name: &str| -> Vec<PathBuf> {
            let value = std::env::var_os(name).unwrap_or_default();
            std::env::split_paths(&value).filter(|path| !path.as_os_str().is_empty()).collect()
        };
        let (files, folders) = (paths("SSL_CERT_FILE"), paths("SSL_CERT_DIR"));
        match files.is_empty() && folders.is_empty() {
            true => Places { files: BUNDLES.iter().map(PathBuf::from).collect(), folders },
            false => Places { files, folders },
        }
    }

    /// Of each file that is there.
    fn states(&self) -> Vec<Option<FileState>> {
        let within = self.folders.iter().flat_map(|folder| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(MOST_FILES);
            let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            paths.sort();
            paths
        });
        let state = |m: fs::Metadata| (m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec());
        let all = self.files.iter().cloned().chain(within);
        all.map(|path| fs::metadata(path).ok().map(state)).collect()
    }
}

struct Looked {
    places: Places,
    at: Option<Instant>,
    states: Vec<Option<FileState>>,
    generation: u64,
}

impl Looked {
    fn new(places: Places) -> Looked {
        Looked { states: places.states(), places, at: None, generation: 0 }
    }

    fn look(&mut self, now: Instant) -> u64 {
        if self.at.is_none_or(|at| now.duration_since(at) >= EVERY) {
            self.at = Some(now);
            let states = self.places.states();
            if states != self.states {
                (self.states, self.generation) = (states, self.generation + 1);
            }
        }
        self.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_others_after_their_files_have_changed() {
        let folder = std::env::temp_dir().join(format!("authorities-{}", std::process::id()));
        let (mounted, bundle) = (folder.join("mounted"), folder.join("bundle.pem"));
        fs::create_dir_all(&mounted).unwrap();
        fs::write(&bundle, "one").unwrap();
        let places = Places { files: vec![bundle.clone()], folders: vec![mounted.clone()] };
        let mut looked = Looked::new(places);
        let mut now = Instant::now();
        let mut look = |looked: &mut Looked| {
            now += EVERY;
            looked.look(now)
        };
        assert_eq!((look(&mut looked), look(&mut looked)), (0, 0));
        fs::write(&bundle, "another").unwrap();
        assert_eq!((look(&mut looked), look(&mut looked)), (1, 1));
        fs::write(folder.join("new"), "renamed").unwrap();
        fs::rename(folder.join("new"), &bundle).unwrap();
        assert_eq!(look(&mut looked), 2);
        // As the kubelet does it.
        for version in ["v1", "v2"] {
            fs::create_dir(folder.join(version)).unwrap();
            fs::write(folder.join(version).join("ca.crt"), version).unwrap();
            std::os::unix::fs::symlink(folder.join(version), folder.join("next")).unwrap();
            fs::rename(folder.join("next"), folder.join("..data")).unwrap();
            let _ = std::os::unix::fs::symlink(folder.join("..data/ca.crt"), mounted.join("ca.crt"));
            let before = looked.generation;
            assert_eq!(look(&mut looked), before + 1, "{version}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
