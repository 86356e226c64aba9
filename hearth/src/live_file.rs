//! Something that was read from files and is read again while they change: in place, by a rename, or by the
//! symbolic links that Kubernetes and Vault Agent swap.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How often files are looked at: a few `stat`s.
const EVERY: Duration = Duration::from_secs(1);

/// How often they are read once more after a change: a second write within the clock's grain shows in no
/// time of modification.
const READ_AGAIN: u8 = 2;

/// What came out of reading, and the files it came from, which are watched.
pub struct Read<T> {
    pub value: T,
    pub files: Vec<PathBuf>,
}

type Reader<T> = Box<dyn Fn() -> Result<Read<T>, String> + Send + Sync>;

/// A value of files. Cheap to clone.
pub struct LiveFile<T>(Arc<Inner<T>>);

struct Inner<T> {
    /// The setting that names the first of the files.
    setting: &'static str,
    read: Reader<T>,
    value: RwLock<Arc<T>>,
    seen: Mutex<Seen>,
}

/// What is known of the files.
struct Seen {
    files: Vec<PathBuf>,
    states: Vec<Option<FileState>>,
    read_again: u8,
    /// Why the last reading failed.
    failed: Option<String>,
}

/// What changes when a file does.
#[derive(PartialEq, Eq)]
struct FileState {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified_ns: i128,
}

/// Of the files as they are now, symbolic links followed.
fn states(files: &[PathBuf]) -> Vec<Option<FileState>> {
    let state = |m: fs::Metadata| FileState {
        device: m.dev(),
        inode: m.ino(),
        size_bytes: m.size(),
        modified_ns: i128::from(m.mtime()) * 1_000_000_000 + i128::from(m.mtime_nsec()),
    };
    files.iter().map(|file| fs::metadata(file).ok().map(state)).collect()
}

impl<T> Clone for LiveFile<T> {
    fn clone(&self) -> LiveFile<T> {
        LiveFile(self.0.clone())
    }
}

impl<T: Send + Sync + 'static> LiveFile<T> {
    /// Reads for the first time. `read` says what is wrong and where, without any secret.
    pub fn open(
        setting: &'static str,
        read: impl Fn() -> Result<Read<T>, String> + Send + Sync + 'static,
    ) -> Result<LiveFile<T>, String> {
        let Read { value, files } = read().map_err(|why| format!("{setting}: {why}"))?;
        let seen = Seen { states: states(&files), files, read_again: READ_AGAIN, failed: None };
        Ok(LiveFile(Arc::new(Inner {
            setting,
            read: Box::new(read),
            value: RwLock::new(Arc::new(value)),
            seen: Mutex::new(seen),
        })))
    }

    /// What was read last.
    pub fn get(&self) -> Arc<T> {
        self.0.value.read().clone()
    }

    /// Looks at the files and reads them where they have changed. What cannot be read leaves what was there.
    /// Blocks.
    pub fn refresh(&self) {
        let mut seen = self.0.seen.lock();
        let now = states(&seen.files);
        let changed = now != seen.states;
        // A reading that failed may have stopped before it came to the file that is mended next.
        if !changed && seen.read_again == 0 && seen.failed.is_none() {
            return;
        }
        seen.read_again = if changed { READ_AGAIN } else { seen.read_again.saturating_sub(1) };
        seen.states = now;
        match (self.0.read)() {
            Ok(Read { value, files }) => {
                if seen.failed.take().is_some() || changed {
                    tracing::info!(setting = self.0.setting, "files have changed and were read again");
                }
                // Taken before they were read where they are the same: a change in between is seen next time.
                if files != seen.files {
                    seen.states = states(&files);
                    seen.files = files;
                }
                *self.0.value.write() = Arc::new(value);
            }
            Err(why) => {
                if seen.failed.as_ref() != Some(&why) {
                    tracing::error!(
                        setting = self.0.setting,
                        "files have changed and cannot be used, what was read before stays in force: {why}"
                    );
                }
                seen.failed = Some(why);
            }
        }
    }

    fn is_current(&self) -> bool {
        self.0.seen.lock().failed.is_none()
    }

    /// Looks again and again, for as long as the runtime lives; `metrics` shows whether the last reading
    /// worked.
    pub fn watch(&self, metrics: &LiveFileMetrics) {
        let file = self.clone();
        let shown = metrics.0.get_or_create(&SettingLabels { setting: file.0.setting }).clone();
        shown.set(1);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let looking = file.clone();
                let looked = tokio::task::spawn_blocking(move || looking.refresh()).await;
                shown.set(i64::from(looked.is_ok() && file.is_current()));
            }
        });
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SettingLabels {
    setting: &'static str,
}

/// Whether files that are read again could be.
#[derive(Clone, Debug, Default)]
pub struct LiveFileMetrics(Family<SettingLabels, Gauge>);

impl LiveFileMetrics {
    pub fn register(registry: &mut Registry) -> LiveFileMetrics {
        let metrics = LiveFileMetrics::default();
        registry.register(
            "hearth_live_file_last_reload_successful",
            "Whether the files of a setting could be read when they last changed; if not, the old ones hold",
            metrics.0.clone(),
        );
        metrics
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn text_of(path: &Path) -> LiveFile<String> {
        let path = path.to_owned();
        LiveFile::open("a.file", move || {
            let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            match text.contains("bad") {
                true => Err(format!("{}: it is bad", path.display())),
                false => Ok(Read { value: text, files: vec![path.clone()] }),
            }
        })
        .unwrap()
    }

    #[test]
    fn live_file_follows_links_that_are_swapped() {
        let dir = tempfile::tempdir().unwrap();
        // As the kubelet does it: a file is a link through `..data`, which is renamed over.
        let version = |name: &str, text: &str| {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("secret"), text).unwrap();
            std::os::unix::fs::symlink(name, dir.path().join("..new")).unwrap();
            fs::rename(dir.path().join("..new"), dir.path().join("..data")).unwrap();
        };
        version("v1", "one");
        std::os::unix::fs::symlink("..data/secret", dir.path().join("secret")).unwrap();
        let file = text_of(&dir.path().join("secret"));
        assert_eq!(*file.get(), "one");
        version("v2", "two");
        file.refresh();
        assert_eq!(*file.get(), "two");
    }

    #[test]
    fn live_file_keeps_what_it_has_while_the_new_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "one").unwrap();
        let file = text_of(&path);
        fs::write(&path, "bad").unwrap();
        file.refresh();
        assert_eq!((file.get().as_str(), file.is_current()), ("one", false));
        fs::remove_file(&path).unwrap();
        file.refresh();
        assert_eq!((file.get().as_str(), file.is_current()), ("one", false));
        fs::write(&path, "two").unwrap();
        file.refresh();
        assert_eq!((file.get().as_str(), file.is_current()), ("two", true));
    }

    #[test]
    fn live_file_says_which_setting_named_it() {
        let wrong = LiveFile::<()>::open("web.config_file", || Err("/x: no such file".into()));
        assert_eq!(wrong.err().unwrap(), "web.config_file: /x: no such file");
    }
}
