//! Credentials in files, as Vault Agent and Kubernetes mount them: read again when one of them changes,
//! without a restart.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use object_store::azure::{AzureCredential, AzureCredentialProvider};
use object_store::gcp::{GcpCredential, GcpCredentialProvider};
use parking_lot::Mutex;

use crate::secrets::read_secret;

/// Makes credentials of the texts of the files, in their order.
type Make<C> = Box<dyn Fn(&[String]) -> Result<C, String> + Send + Sync>;

/// Something made of files, made again when their times of modification change.
pub struct Watched<C> {
    /// The option that names it, and the file.
    files: Vec<(&'static str, PathBuf)>,
    make: Make<C>,
    loaded: Mutex<Loaded<C>>,
}

struct Loaded<C> {
    changed: Vec<Option<SystemTime>>,
    made: Arc<C>,
}

impl<C> fmt::Debug for Watched<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without what is made of them, which is secret.
        f.debug_struct("Watched").field("files", &self.files).finish_non_exhaustive()
    }
}

impl<C> Watched<C> {
    pub fn new(
        files: Vec<(&'static str, PathBuf)>,
        make: impl Fn(&[String]) -> Result<C, String> + Send + Sync + 'static,
    ) -> Result<Watched<C>, String> {
        let make: Make<C> = Box::new(make);
        let loaded = Mutex::new(read(&files, &make)?);
        Ok(Watched { files, make, loaded })
    }

    /// Some `stat`s of local files, on the way to a request over the network.
    pub fn current(&self) -> Arc<C> {
        let mut loaded = self.loaded.lock();
        let now = changed(&self.files);
        if loaded.changed != now && are_settled(&now) {
            match read(&self.files, &self.make) {
                Ok(new) => *loaded = new,
                // In the middle of a rotation, the old ones may well still work.
                Err(e) => tracing::warn!("credentials could not be read again, the old ones stay: {e}"),
            }
        }
        loaded.made.clone()
    }
}

/// Files that go together are not written at one moment: a new key with the old secret would be refused. What
/// was replaced is good for longer than this.
const SETTLING: Duration = Duration::from_secs(2);

/// Whether nothing was written just now, so that all of a rotation is there.
fn are_settled(changed: &[Option<SystemTime>]) -> bool {
    // One from the future does not tell.
    let just_now = |at: &SystemTime| at.elapsed().is_ok_and(|ago| ago < SETTLING);
    changed.len() < 2 || !changed.iter().flatten().any(just_now)
}

fn changed(files: &[(&'static str, PathBuf)]) -> Vec<Option<SystemTime>> {
    files.iter().map(|(_, f)| std::fs::metadata(f).and_then(|m| m.modified()).ok()).collect()
}

fn read<C>(files: &[(&'static str, PathBuf)], make: &Make<C>) -> Result<Loaded<C>, String> {
    // Taken before reading: a change in between is seen as one next time.
    let changed = changed(files);
    let texts: Result<Vec<String>, String> =
        files.iter().map(|(option, path)| read_secret(option, path)).collect();
    Ok(Loaded { changed, made: Arc::new(make(&texts?)?) })
}

#[async_trait::async_trait]
impl CredentialProvider for Watched<AwsCredential> {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        Ok(self.current())
    }
}

#[async_trait::async_trait]
impl CredentialProvider for Watched<GcpCredentialProvider> {
    type Credential = GcpCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<GcpCredential>> {
        self.current().get_credential().await
    }
}

#[async_trait::async_trait]
impl CredentialProvider for Watched<AzureCredentialProvider> {
    type Credential = AzureCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AzureCredential>> {
        self.current().get_credential().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_files_are_read_again_when_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let (key, secret) = (dir.path().join("key"), dir.path().join("secret"));
        let watch = || {
            let files = vec![("s3.access_key_file", key.clone()), ("s3.secret_key_file", secret.clone())];
            Watched::new(files, |texts| Ok(texts.join(":")))
        };
        std::fs::write(&key, "k1\n").unwrap();
        assert!(watch().unwrap_err().contains("s3.secret_key_file"));
        std::fs::write(&secret, " \n").unwrap();
        assert!(watch().unwrap_err().contains("is empty"));
        std::fs::write(&secret, "s1").unwrap();
        let files = watch().unwrap();
        assert_eq!(*files.current(), "k1:s1");
        let written = |file: &PathBuf, text: &str, ago_s: u64| {
            std::fs::write(file, text).unwrap();
            let then = SystemTime::now() - Duration::from_secs(ago_s);
            std::fs::File::options().write(true).open(file).unwrap().set_modified(then).unwrap();
        };
        written(&key, "k2", 0);
        assert_eq!(*files.current(), "k1:s1", "the other half may be about to come");
        written(&secret, "s2", 0);
        assert_eq!(*files.current(), "k1:s1");
        written(&key, "k2", 60);
        written(&secret, "s2", 50);
        assert_eq!(*files.current(), "k2:s2");
        std::fs::remove_file(&secret).unwrap();
        assert_eq!(*files.current(), "k2:s2", "a file that is away for a moment changes nothing");
        assert!(!format!("{files:?}").contains("s2"), "secrets stay out of debug output");
    }
}
