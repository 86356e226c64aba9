//! Opens the object store that the settings name: a folder, or a bucket of S3 (and all that speaks it),
//! Google Cloud Storage or Azure.

mod clouds;
mod credentials;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use reqwest::Url;
use tsdb::catalog::{ArrangeError, Arranged, Commits, arrange};
use tsdb::db::OpenError;
use tsdb::layout;

use crate::config::Settings;
use crate::config::value::Span;
use crate::coordinator;
use crate::error_chain::error_chain;
use crate::secrets::redacted;

/// Whose bucket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    S3,
    Gcs,
    Azure,
}

impl Cloud {
    /// How its URLs begin.
    fn scheme(self) -> &'static str {
        match self {
            Cloud::S3 => "s3",
            Cloud::Gcs => "gs",
            Cloud::Azure => "az",
        }
    }
}

/// What `objstore` says, before anything is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    Folder(PathBuf),
    Bucket { cloud: Cloud, bucket: String, prefix: String },
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Folder(path) => write!(f, "{}", path.display()),
            Location::Bucket { cloud, bucket, prefix } if prefix.is_empty() => {
                write!(f, "{}://{bucket}", cloud.scheme())
            }
            Location::Bucket { cloud, bucket, prefix } => write!(f, "{}://{bucket}/{prefix}", cloud.scheme()),
        }
    }
}

/// Reads the `objstore` option; the error names it and says how to write it.
pub fn locate(settings: &Settings) -> Result<Location, String> {
    match settings.objstore.with_secrets() {
        "" => Ok(Location::Folder(settings.default_blocks_dir())),
        text => parse(text).map_err(|e| format!("objstore: {e}")),
    }
}

/// Reads the URL of a folder or bucket.
pub fn parse(text: &str) -> Result<Location, String> {
    let wrong = |why: &str| {
        format!(
            "{:?} {why}: write file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix",
            redacted(text)
        )
    };
    let Ok(url) = Url::parse(text) else { return Err(wrong("is not a URL")) };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("holds credentials, which belong in the environment or in files"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has something after its path"));
    }
    let cloud = match url.scheme() {
        // A URL has no relative paths: `file:x` would quietly become `/x`.
        "file" if !text.starts_with("file:///") => return Err(wrong("has no absolute path")),
        "file" => {
            return url.to_file_path().map(Location::Folder).map_err(|()| wrong("has no absolute path"));
        }
        "s3" | "s3a" => Cloud::S3,
        "gs" | "gcs" => Cloud::Gcs,
        "az" | "azure" => Cloud::Azure,
        _ => return Err(wrong("is of a kind that is not known here")),
    };
    let bucket = url.host_str().filter(|h| !h.is_empty()).ok_or_else(|| wrong("names no bucket"))?;
    let prefix = url.path().trim_matches('/').to_owned();
    Ok(Location::Bucket { cloud, bucket: bucket.to_owned(), prefix })
}

/// Whether it could be opened, as far as that can be told without touching anything.
pub fn check(location: &Location, settings: &Settings) -> Result<(), String> {
    commits(location, settings).map(drop)?;
    match location {
        Location::Folder(_) => Ok(()),
        Location::Bucket { .. } => bucket(location, settings).map(drop),
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
        Location::Bucket { .. } => bucket(location, settings),
    }
}

fn bucket(location: &Location, settings: &Settings) -> Result<Arc<dyn ObjectStore>, String> {
    let Location::Bucket { cloud, bucket, prefix } = location else {
        return Err(format!("{location} is not a bucket"));
    };
    let opened = match cloud {
        Cloud::S3 => clouds::s3(bucket, settings),
        Cloud::Gcs => clouds::gcs(bucket, settings),
        Cloud::Azure => clouds::azure(bucket, settings),
    };
    let store = opened.map_err(|e| format!("objstore {location}: {e}"))?;
    if prefix.is_empty() { Ok(store) } else { Ok(Arc::new(PrefixStore::new(store, prefix.as_str()))) }
}

/// How long a bucket that does not answer is asked before the start says what it waits for.
const REACH_RETRY: Duration = Duration::from_secs(3);

/// Asks a bucket for something small; what went wrong, and whether it may pass by itself. A folder is reached
/// by being opened.
pub async fn reach(location: &Location, settings: &Settings) -> Result<(), OpenError> {
    let Location::Bucket { .. } = location else { return Ok(()) };
    let settings = Settings {
        objstore_retry: Span(settings.objstore_retry.0.min(REACH_RETRY)),
        objstore_timeout: Span(settings.objstore_timeout.0.min(REACH_RETRY)),
        ..settings.clone()
    };
    let store = bucket(location, &settings).map_err(OpenError::mend)?;
    match store.head(&layout::register()).await {
        Ok(_) => Ok(()),
        // The object is not there, or the bucket is not: only a list tells.
        Err(Error::NotFound { .. }) => match store.list(None).next().await {
            None | Some(Ok(_)) => Ok(()),
            Some(Err(e)) => Err(cannot_reach(location, e)),
        },
        Err(e) => Err(cannot_reach(location, e)),
    }
}

fn cannot_reach(location: &Location, e: Error) -> OpenError {
    OpenError::because(format!("objstore {location}: {}", error_chain(&e)), e)
}

/// What makes commits to it win exactly once, as the settings say.
pub fn commits(location: &Location, settings: &Settings) -> Result<Commits, String> {
    let lock = settings.catalog_lock.with_secrets();
    match (lock.is_empty(), settings.catalog_single_writer) {
        (true, false) => Ok(Commits::Conditional),
        (true, true) => Ok(Commits::single_writer()),
        (false, true) => {
            Err("catalog.lock and catalog.single_writer are both set: the lock is for many writers, so give one of them".into())
        }
        (false, false) => {
            let file = &settings.catalog_lock_credentials_file.0;
            let register = coordinator::open(lock, (!file.as_os_str().is_empty()).then_some(file))?;
            Ok(Commits::Register { register, bucket: location.to_string() })
        }
    }
}

/// Opens it for a command that commits to it from a process of its own: the store is asked whether it keeps
/// its word, or what the settings put in its place is. `writer` is a name that stays over restarts. Whoever
/// has an [`Arranged::owner`] gives it back at the end.
pub async fn open_to_commit(
    location: &Location,
    settings: &Settings,
    writer: &str,
) -> Result<Arranged, ArrangeError> {
    let store = open(location, settings).map_err(ArrangeError::mend)?;
    arrange(store, &commits(location, settings).map_err(ArrangeError::mend)?, writer).await
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
        for (url, cloud) in [
            ("s3://b/some/where/", Cloud::S3),
            ("gs://b/some/where", Cloud::Gcs),
            ("az://b/some/where", Cloud::Azure),
        ] {
            let bucket = Location::Bucket { cloud, bucket: "b".into(), prefix: "some/where".into() };
            assert_eq!(at(url), Ok(bucket.clone()));
            assert_eq!(bucket.to_string(), url.trim_end_matches('/'));
        }
        for bad in ["./blocks", "s3://", "gs://", "ftp://b", "s3://b?x=1", "file:relative", "file://host/x"] {
            assert!(at(bad).unwrap_err().starts_with("objstore: "), "{bad}");
        }
        let error = at("s3://key:hunter2@b").unwrap_err();
        assert!(!error.contains("hunter2") && error.contains("credentials"), "{error}");
    }

    fn try_open(options: &[(&str, &str)]) -> Result<String, String> {
        crate::install_tls();
        let settings = settings(options);
        open(&locate(&settings)?, &settings).map(|store| store.to_string())
    }

    #[test]
    fn bucket_opens_without_asking_it_anything() {
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
        let with = |more: &[(&str, &str)]| try_open(&[&common[..], more].concat());
        let both = [("s3.secret_key_file", secret)];
        assert!(with(&both).unwrap_err().contains("s3.allow_http"));
        let store = with(&[both[0], ("s3.allow_http", "true")]).unwrap();
        assert!(store.contains("prod"), "{store}");
        with(&[both[0], ("s3.endpoint", "https://s3.example.org"), ("s3.addressing", "virtual-host")])
            .unwrap();
        let error = with(&[("s3.allow_http", "true")]).unwrap_err();
        assert!(error.contains("s3.secret_key_file"), "{error}");
    }

    #[test]
    fn azure_and_google_open_with_credentials_in_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (good, bad) = (file("key", "a2V5\n"), file("bad", "not base64!"));
        let azure = |more: &[(&str, &str)]| try_open(&[&[("objstore", "az://metrics/prod")], more].concat());
        assert!(azure(&[]).unwrap_err().contains("azure.account"));
        let account = ("azure.account", "acme");
        azure(&[account, ("azure.account_key_file", &good)]).unwrap();
        assert!(
            azure(&[account, ("azure.account_key_file", &bad)])
                .unwrap_err()
                .contains("azure.account_key_file")
        );
        azure(&[account, ("azure.sas_token_file", &file("sas", "?sv=2024&sig=x%3D"))]).unwrap();
        let error = azure(&[account, ("azure.account_key_file", &good), ("azure.sas_token_file", &good)]);
        assert!(error.unwrap_err().contains("give one"));
        let plain = azure(&[account, ("azure.endpoint", "http://127.0.0.1:10000/acme")]);
        assert!(plain.unwrap_err().contains("azure.allow_http"));

        let google = |more: &[(&str, &str)]| try_open(&[&[("objstore", "gs://metrics")], more].concat());
        let key =
            r#"{"private_key": "k", "private_key_id": "i", "client_email": "e", "disable_oauth": true}"#;
        google(&[("gcs.credentials_file", &file("gcs", key))]).unwrap();
        assert!(google(&[("gcs.credentials_file", &bad)]).unwrap_err().contains("gcs.credentials_file"));
        google(&[
            ("gcs.endpoint", "http://127.0.0.1:4443/"),
            ("gcs.allow_http", "true"),
            ("gcs.anonymous", "true"),
        ])
        .unwrap();
    }

    #[test]
    fn commits_go_through_one_thing() {
        let of = |options: &[(&str, &str)]| {
            let settings = settings(options);
            commits(&locate(&settings).unwrap(), &settings)
        };
        assert!(matches!(of(&[]), Ok(Commits::Conditional)));
        assert!(matches!(of(&[("catalog.single_writer", "true")]), Ok(Commits::SingleWriter { .. })));
        let lock = ("catalog.lock", "zookeeper://a:2181,b:2181/hearth");
        assert!(matches!(of(&[lock]), Ok(Commits::Register { .. })));
        assert!(of(&[lock, ("catalog.single_writer", "true")]).unwrap_err().contains("both set"));
        assert!(of(&[("catalog.lock", "redis://x/y")]).unwrap_err().contains("catalog.lock"));
    }
}
