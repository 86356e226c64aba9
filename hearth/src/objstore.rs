//! Opens the object store that the settings name: a folder, or a bucket of any service that speaks S3.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{CredentialProvider, ObjectStore, RetryConfig};
use parking_lot::Mutex;
use reqwest::Url;

use crate::config::Settings;
use crate::config::value::Addressing;

/// What `objstore` says, before anything is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    Folder(PathBuf),
    Bucket { bucket: String, prefix: String },
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Folder(path) => write!(f, "{}", path.display()),
            Location::Bucket { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Location::Bucket { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// Reads the `objstore` option; the error names it and says how to write it.
pub fn locate(settings: &Settings) -> Result<Location, String> {
    let text = settings.objstore.0.as_str();
    if text.is_empty() {
        return Ok(Location::Folder(settings.default_blocks_dir()));
    }
    let wrong =
        |why: &str| format!("objstore: {:?} {why}: write file:///path or s3://bucket/prefix", masked(text));
    let Ok(url) = Url::parse(text) else { return Err(wrong("is not a URL")) };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("holds credentials, which belong in the environment or in files"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has something after its path"));
    }
    match url.scheme() {
        // A URL has no relative paths: `file:x` would quietly become `/x`.
        "file" if !text.starts_with("file:///") => Err(wrong("has no absolute path")),
        "file" => url.to_file_path().map(Location::Folder).map_err(|()| wrong("has no absolute path")),
        "s3" | "s3a" => {
            let bucket = url.host_str().filter(|h| !h.is_empty()).ok_or_else(|| wrong("names no bucket"))?;
            Ok(Location::Bucket {
                bucket: bucket.to_owned(),
                prefix: url.path().trim_matches('/').to_owned(),
            })
        }
        _ => Err(wrong("is of a kind that is not known here")),
    }
}

/// A URL without what may be a secret, for messages.
fn masked(text: &str) -> String {
    match (text.find("://"), text.find('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://***{}", &text[..scheme], &text[at..]),
        _ => text.to_owned(),
    }
}

/// Whether it could be opened, as far as that can be told without touching anything.
pub fn check(location: &Location, settings: &Settings) -> Result<(), String> {
    match location {
        Location::Folder(_) => Ok(()),
        Location::Bucket { bucket, .. } => {
            s3(bucket, settings)?.build().map(drop).map_err(|e| format!("objstore {location}: {e}"))
        }
    }
}

/// Opens it. Nothing is asked of a bucket yet, so an error here is one of configuration.
pub fn open(location: &Location, settings: &Settings) -> Result<Arc<dyn ObjectStore>, String> {
    match location {
        Location::Folder(path) => {
            std::fs::create_dir_all(path).map_err(|e| {
                format!("cannot create the folder for blocks, {}: {e}. Give another with --objstore or --data-dir, or make it writable", path.display())
            })?;
            let store = LocalFileSystem::new_with_prefix(path)
                .map_err(|e| format!("cannot open the folder for blocks, {}: {e}", path.display()))?;
            // A block that is committed leaves the log, so it must be on the disk by then.
            Ok(Arc::new(store.with_fsync(true)))
        }
        Location::Bucket { bucket, prefix } => {
            let store = s3(bucket, settings)?.build().map_err(|e| format!("objstore {location}: {e}"))?;
            if prefix.is_empty() {
                Ok(Arc::new(store))
            } else {
                Ok(Arc::new(PrefixStore::new(store, prefix.as_str())))
            }
        }
    }
}

/// How long one request to a bucket is tried again: a query waits for it, and a flush comes back by itself.
const RETRY_FOR: Duration = Duration::from_secs(30);

fn s3(bucket: &str, settings: &Settings) -> Result<AmazonS3Builder, String> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(RetryConfig { retry_timeout: RETRY_FOR, ..RetryConfig::default() })
        .with_virtual_hosted_style_request(settings.s3_addressing == Addressing::VirtualHost);
    if !settings.s3_region.is_empty() {
        builder = builder.with_region(&settings.s3_region);
    }
    if !settings.s3_endpoint.0.is_empty() {
        builder = builder.with_endpoint(&settings.s3_endpoint.0);
    }
    if let Some(endpoint) = builder.get_config_value(&AmazonS3ConfigKey::Endpoint) {
        let url =
            Url::parse(&endpoint).map_err(|e| format!("s3.endpoint: {endpoint:?} is not a URL: {e}"))?;
        let http = AmazonS3ConfigKey::Client(object_store::ClientConfigKey::AllowHttp);
        let allowed = settings.s3_allow_http || builder.get_config_value(&http).is_some_and(|v| v == "true");
        match url.scheme() {
            "https" => {}
            "http" if allowed => builder = builder.with_allow_http(true),
            "http" => {
                return Err(format!(
                    "s3.endpoint: {endpoint:?} has no TLS: use https, or allow it with s3.allow_http: true"
                ));
            }
            other => {
                return Err(format!("s3.endpoint: {endpoint:?} begins with {other}, and should with https"));
            }
        }
    }
    let (key, secret) = (&settings.s3_access_key_file.0, &settings.s3_secret_key_file.0);
    match (key.as_os_str().is_empty(), secret.as_os_str().is_empty()) {
        (true, true) => Ok(builder),
        (false, false) => Ok(builder.with_credentials(Arc::new(KeyFiles::new(key, secret)?))),
        (true, false) => {
            Err("s3.secret_key_file is given without s3.access_key_file: give both or none".into())
        }
        (false, true) => {
            Err("s3.access_key_file is given without s3.secret_key_file: give both or none".into())
        }
    }
}

/// Credentials in two files, read again when either has changed: rotation without a restart.
#[derive(Debug)]
struct KeyFiles {
    key: PathBuf,
    secret: PathBuf,
    held: Mutex<Held>,
}

struct Held {
    changed: [Option<SystemTime>; 2],
    credential: Arc<AwsCredential>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held(***)")
    }
}

impl KeyFiles {
    fn new(key: &Path, secret: &Path) -> Result<KeyFiles, String> {
        let held = Mutex::new(read_keys(key, secret)?);
        Ok(KeyFiles { key: key.to_owned(), secret: secret.to_owned(), held })
    }

    fn current(&self) -> Arc<AwsCredential> {
        let mut held = self.held.lock();
        if held.changed != [changed(&self.key), changed(&self.secret)] {
            match read_keys(&self.key, &self.secret) {
                Ok(new) => *held = new,
                // In the middle of a rotation, the old pair may well still work.
                Err(e) => tracing::warn!("S3 credentials could not be read again, the old ones stay: {e}"),
            }
        }
        held.credential.clone()
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

fn read_keys(key: &Path, secret: &Path) -> Result<Held, String> {
    // Taken before reading: a change in between is seen as one next time.
    let changed = [changed(key), changed(secret)];
    let read = |option: &str, path: &Path| {
        let text = std::fs::read_to_string(path)
            .map_err(|e| format!("{option}: {} cannot be read: {e}", path.display()))?;
        match text.trim() {
            "" => Err(format!("{option}: {} is empty", path.display())),
            text => Ok(text.to_owned()),
        }
    };
    let key_id = read("s3.access_key_file", key)?;
    let secret_key = read("s3.secret_key_file", secret)?;
    Ok(Held { changed, credential: Arc::new(AwsCredential { key_id, secret_key, token: None }) })
}

impl CredentialProvider for KeyFiles {
    type Credential = AwsCredential;

    fn get_credential<'life0, 'async_trait>(
        &'life0 self,
    ) -> Pin<Box<dyn Future<Output = object_store::Result<Arc<AwsCredential>>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        // Two `stat`s of local files, on the way to a request over the network.
        Box::pin(async move { Ok(self.current()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table::find;

    fn settings(options: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        for (key, value) in options {
            (find(key).unwrap().set)(&mut settings, value).unwrap();
        }
        settings
    }

    #[test]
    fn urls_name_a_folder_or_a_bucket() {
        let at = |url| locate(&settings(&[("objstore", url), ("data_dir", "/d")]));
        assert_eq!(at(""), Ok(Location::Folder("/d/blocks".into())));
        assert_eq!(at("file:///var/a%20b"), Ok(Location::Folder("/var/a b".into())));
        let bucket = Location::Bucket { bucket: "b".into(), prefix: "some/where".into() };
        assert_eq!(at("s3://b/some/where/"), Ok(bucket));
        for bad in ["./blocks", "s3://", "gs://b", "s3://b?x=1", "file:relative", "file://host/x"] {
            assert!(at(bad).unwrap_err().starts_with("objstore: "), "{bad}");
        }
        let error = at("s3://key:hunter2@b").unwrap_err();
        assert!(!error.contains("hunter2") && error.contains("credentials"), "{error}");
    }

    #[test]
    fn a_bucket_opens_without_asking_it_anything() {
        crate::install_tls();
        let dir = tempfile::tempdir().unwrap();
        let (key, secret) = (dir.path().join("key"), dir.path().join("secret"));
        std::fs::write(&key, "k\n").unwrap();
        std::fs::write(&secret, "s\n").unwrap();
        let (key, secret) = (key.to_str().unwrap(), secret.to_str().unwrap());
        let common = [
            ("objstore", "s3://metrics/prod"),
            ("s3.endpoint", "http://127.0.0.1:9000"),
            ("s3.access_key_file", key),
        ];
        let try_open = |more: &[(&str, &str)]| {
            let settings = settings(&[&common[..], more].concat());
            open(&locate(&settings).unwrap(), &settings).map(|store| store.to_string())
        };
        let both = [("s3.secret_key_file", secret)];
        assert!(try_open(&both).unwrap_err().contains("s3.allow_http"));
        let store = try_open(&[both[0], ("s3.allow_http", "true")]).unwrap();
        assert!(store.contains("prod"), "{store}");
        try_open(&[both[0], ("s3.endpoint", "https://s3.example.org"), ("s3.addressing", "virtual-host")])
            .unwrap();
        let error = try_open(&[("s3.allow_http", "true")]).unwrap_err();
        assert!(error.contains("s3.secret_key_file"), "{error}");
    }

    #[test]
    fn credentials_in_files_are_read_again_when_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let (key, secret) = (dir.path().join("key"), dir.path().join("secret"));
        std::fs::write(&key, "k1\n").unwrap();
        assert!(KeyFiles::new(&key, &secret).unwrap_err().contains("s3.secret_key_file"));
        std::fs::write(&secret, "s1").unwrap();
        let files = KeyFiles::new(&key, &secret).unwrap();
        assert_eq!((files.current().key_id.as_str(), files.current().secret_key.as_str()), ("k1", "s1"));
        std::fs::write(&key, "k2").unwrap();
        let later = SystemTime::now() + Duration::from_secs(5);
        std::fs::File::options().write(true).open(&key).unwrap().set_modified(later).unwrap();
        assert_eq!(files.current().key_id, "k2");
        std::fs::remove_file(&secret).unwrap();
        assert_eq!(files.current().secret_key, "s1", "a file that is away for a moment changes nothing");
        assert!(!format!("{files:?}").contains("s1"), "secrets stay out of debug output");
    }
}
