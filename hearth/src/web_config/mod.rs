//! The file of `web.config_file`, which is that of Prometheus' `--web.config.file` and of all exporters:
//! certificates, passwords, headers and a limit on requests.
//!
//! 1. [`mod@file`] reads it, strictly, and says what is wrong without showing a secret.
//! 2. [`tls`] makes rustls' configuration of its `tls_server_config`, [`client_certificates`] what it asks of
//!    clients, and [`mod@subject_names`] reads the names of a client's certificate.
//! 3. [`rate_limit`] is the bucket of its `rate_limit`.
//!
//! All files it names are read again while the process runs. A connection lives on with what it began with.

mod client_certificates;
mod file;
mod rate_limit;
mod subject_names;
mod tls;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::HeaderMap;
use rustls::ServerConfig;

pub use file::cost as hash_cost;
pub use rate_limit::RateLimit;
pub use subject_names::subject_names;

use crate::live_file::{LiveFile, Read};

/// What the file says.
#[derive(Default)]
pub struct WebConfig {
    /// `None` for plain HTTP.
    pub tls: Option<ServerTls>,
    /// What every answer carries.
    pub headers: HeaderMap,
    /// bcrypt hashes by name. Where there are any, every request needs one of them.
    pub users: BTreeMap<String, String>,
    pub rate_limit: Option<Arc<RateLimit>>,
}

/// How connections are encrypted.
#[derive(Clone)]
pub struct ServerTls {
    pub config: Arc<ServerConfig>,
    /// Whether a certificate that a client has was checked against the authorities.
    pub verifies_clients: bool,
}

/// Reads the file and what it names, for the first time: whether there is TLS is decided now, as upstream
/// decides it.
pub fn open(path: &Path) -> Result<LiveFile<WebConfig>, String> {
    let path = path.to_owned();
    let has_tls = read(&path, None).map_err(|why| format!("web.config_file: {why}"))?.value.tls.is_some();
    // Made anew only where its numbers change, so that a reading gives nobody a full bucket.
    let limit = parking_lot::Mutex::new(None::<Arc<RateLimit>>);
    LiveFile::open("web.config_file", move || {
        let mut read = read(&path, Some(has_tls))?;
        let mut known = limit.lock();
        match (&*known, &read.value.rate_limit) {
            (Some(old), Some(new)) if old.is_like(new) => read.value.rate_limit = Some(old.clone()),
            (_, new) => *known = new.clone(),
        }
        drop(known);
        Ok(read)
    })
}

/// Whether the file asks for TLS; one that is not named or cannot be read does not.
pub fn has_tls(path: &Path) -> bool {
    let parsed = std::fs::read_to_string(path).ok().and_then(|text| file::parse(&text).ok());
    parsed.and_then(|file| file.tls_server_config).is_some_and(|section| section.is_used())
}

fn read(path: &Path, had_tls: Option<bool>) -> Result<Read<WebConfig>, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| format!("{shown}: {e}"))?;
    let parsed = file::parse(&text).map_err(|why| format!("{shown}: {why}"))?;
    let mut files = vec![path.to_owned()];
    let tls = match parsed.tls_server_config.filter(file::TlsSection::is_used) {
        Some(section) => {
            let folder = path.parent().unwrap_or(Path::new(""));
            let http2 = parsed.http_server_config.as_ref().is_none_or(|http| http.http2);
            let made = tls::server_tls(&section, folder, http2, &mut files);
            Some(made.map_err(|why| format!("{shown}: tls_server_config: {why}"))?)
        }
        None => None,
    };
    if had_tls.is_some_and(|had| had != tls.is_some()) {
        let now = if tls.is_some() { "begin" } else { "end" };
        return Err(format!("{shown}: TLS would {now} while connections are open: that needs a restart"));
    }
    let headers = parsed.http_server_config.map(|http| http.headers.unwrap_or_default());
    let headers = file::headers(&headers.unwrap_or_default()).map_err(|why| format!("{shown}: {why}"))?;
    let rate_limit = parsed.rate_limit.unwrap_or_default().limit();
    let value = WebConfig {
        tls,
        headers,
        users: parsed.basic_auth_users.unwrap_or_default(),
        rate_limit: rate_limit.map_err(|why| format!("{shown}: rate_limit: {why}"))?.map(Arc::new),
    };
    Ok(Read { value, files })
}

/// A path of the file, which is relative to its folder.
fn joined(folder: &Path, path: &str) -> PathBuf {
    folder.join(path)
}

#[cfg(test)]
mod tests;
