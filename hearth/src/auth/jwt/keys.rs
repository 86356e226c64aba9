//! The keys that an issuer publishes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::Value;

use super::IssuerConfig;
use super::signature::{Key, Published};
use crate::auth::Metrics;
use crate::error_chain::error_chain;
use crate::live_client::body_within;

/// Keys are read again after this long.
const FRESH: Duration = Duration::from_secs(300);

/// Keys that could not be read again for this long are believed no more: one of them may have been revoked.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Attempts there may be in so much time, whoever wants them: tokens with made-up keys cost the issuer
/// nothing, and do not keep a new key of its own from being read at once.
const ATTEMPTS: usize = 6;
const ATTEMPTS_WITHIN: Duration = Duration::from_secs(60);

const TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer that are read.
const MAX_BYTES: usize = 1 << 20;

/// Keys of an issuer.
const MOST_KEYS: usize = 100;

/// What a look for a key came to.
pub enum Found {
    Key(Arc<Key>),
    NoSuchKey,
    /// It may be new, and the issuer does not answer or was asked too often just now.
    Unavailable,
}

/// An issuer with its keys.
pub struct IssuerKeys {
    pub config: IssuerConfig,
    keys: RwLock<Option<Fetched>>,
    /// When it was tried lately; locked while it is.
    tried: tokio::sync::Mutex<VecDeque<Instant>>,
    metrics: Metrics,
}

struct Fetched {
    keys: Vec<Arc<Key>>,
    at: Instant,
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("{}: {cause}", path.display())]
    CaFile {
        path: std::path::PathBuf,
        #[source]
        cause: std::io::Error,
    },
    #[error("{url} answered {status}")]
    Status { url: String, status: reqwest::StatusCode },
    #[error("{url}: {what}")]
    Answer { url: String, what: String },
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl IssuerKeys {
    pub fn new(config: IssuerConfig, metrics: Metrics) -> IssuerKeys {
        IssuerKeys { config, keys: RwLock::new(None), tried: tokio::sync::Mutex::default(), metrics }
    }

    /// The key of that name; where a token names none, the only one.
    pub async fn find(&self, id: Option<&str>) -> Found {
        if let Some(key) = self.known(id) {
            return Found::Key(key);
        }
        let came = Instant::now();
        self.fetch(came, || self.known(id).is_some()).await;
        let are_newer = || self.keys.read().as_ref().is_some_and(|fetched| fetched.at >= came);
        match self.known(id) {
            Some(key) => Found::Key(key),
            None if are_newer() => Found::NoSuchKey,
            None => Found::Unavailable,
        }
    }

    fn age(&self) -> Option<Duration> {
        self.keys.read().as_ref().map(|fetched| fetched.at.elapsed())
    }

    fn known(&self, id: Option<&str>) -> Option<Arc<Key>> {
        let fetched = self.keys.read();
        let keys = fetched.as_ref().filter(|fetched| fetched.at.elapsed() < LONGEST)?;
        match (id, keys.keys.as_slice()) {
            (Some(id), all) => all.iter().find(|key| key.id.as_deref() == Some(id)).cloned(),
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
        }
    }

    pub async fn refresh_if_old(&self) {
        if self.age().is_none_or(|age| age > FRESH) {
            self.fetch(Instant::now(), || false).await;
        }
    }

    /// Reads the keys for somebody who came then, unless what is wanted is there by now, or that was tried
    /// since, or too often lately. Many who ask at once wait for one reading.
    async fn fetch(&self, came: Instant, is_there: impl Fn() -> bool) {
        let mut tried = self.tried.lock().await;
        tried.retain(|at| at.elapsed() < ATTEMPTS_WITHIN);
        let was_tried = tried.back().is_some_and(|at| *at >= came) || tried.len() >= ATTEMPTS;
        if is_there() || was_tried {
            return;
        }
        tried.push_back(Instant::now());
        match read(&self.config).await {
            Ok(keys) => *self.keys.write() = Some(Fetched { keys, at: Instant::now() }),
            Err(e) => {
                self.metrics.keys_failed();
                tracing::warn!(
                    issuer = self.config.issuer,
                    "the issuer's keys could not be read: {}",
                    error_chain(&e)
                );
            }
        }
    }
}

async fn read(config: &IssuerConfig) -> Result<Vec<Arc<Key>>, FetchError> {
    let client = client(config).await?;
    let url = match config.jwks_url.as_str() {
        "" => {
            let url = format!("{}/.well-known/openid-configuration", config.issuer.trim_end_matches('/'));
            let found: Discovery = get(&client, &url).await?;
            let wrong = |what: &str| Err(FetchError::Answer { url: url.clone(), what: what.to_owned() });
            if found.issuer != config.issuer {
                return wrong("it says that it is another issuer");
            }
            if !found.jwks_uri.starts_with("https://") && !config.allow_http {
                return wrong("its jwks_uri does not begin with https://");
            }
            found.jwks_uri
        }
        url => url.to_owned(),
    };
    let set: KeySet = get(&client, &url).await?;
    let keys: Vec<Arc<Key>> = set.keys.into_iter().take(MOST_KEYS).filter_map(key).map(Arc::new).collect();
    match keys.is_empty() {
        true => Err(FetchError::Answer { url, what: "it has no key that tokens can be checked with".into() }),
        false => Ok(keys),
    }
}

/// Made for each reading, so that new authorities count at once.
async fn client(config: &IssuerConfig) -> Result<reqwest::Client, FetchError> {
    let mut builder = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .https_only(!config.allow_http)
        .user_agent(concat!("Hearth/", env!("CARGO_PKG_VERSION")));
    if !config.ca_file.as_os_str().is_empty() {
        let path = config.ca_file.clone();
        let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
        let pem = read.unwrap_or_else(|e| Err(std::io::Error::other(e)));
        let pem = pem.map_err(|cause| FetchError::CaFile { path: config.ca_file.clone(), cause })?;
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?);
    }
    Ok(builder.build()?)
}

async fn get<T: for<'de> Deserialize<'de>>(client: &reqwest::Client, url: &str) -> Result<T, FetchError> {
    let answer = client.get(url).send().await?;
    let status = answer.status();
    if !status.is_success() {
        return Err(FetchError::Status { url: url.to_owned(), status });
    }
    let wrong = |what: String| FetchError::Answer { url: url.to_owned(), what };
    let body = body_within(answer, MAX_BYTES).await?;
    let body = body.ok_or_else(|| wrong(format!("it is larger than {MAX_BYTES} bytes")))?;
    serde_json::from_slice(&body).map_err(|e| wrong(e.to_string()))
}

/// A key of a set, if tokens can be checked with it. One that cannot be read is left out: issuers publish
/// keys for other uses beside.
fn key(published: Value) -> Option<Key> {
    Key::published(&serde_json::from_value::<Published>(published).ok()?)
}

#[cfg(test)]
impl IssuerKeys {
    /// As if enough time had passed since the last attempt.
    pub async fn forget_attempts(&self) {
        self.tried.lock().await.clear();
    }
}
