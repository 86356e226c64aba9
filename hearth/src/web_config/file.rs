//! The file as it is written: sections, keys and what they may hold.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::rate_limit::RateLimit;
use crate::config::value::{Span, Value};

/// The whole file.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    pub tls_server_config: Option<TlsSection>,
    pub http_server_config: Option<HttpSection>,
    pub basic_auth_users: Option<BTreeMap<String, String>>,
    pub rate_limit: Option<RateLimitSection>,
}

/// `tls_server_config`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSection {
    pub cert: String,
    pub key: String,
    pub client_ca: String,
    pub cert_file: String,
    pub key_file: String,
    pub client_auth_type: String,
    pub client_ca_file: String,
    pub client_allowed_sans: Option<Vec<String>>,
    pub min_version: String,
    pub max_version: String,
    pub cipher_suites: Option<Vec<String>>,
    pub curve_preferences: Option<Vec<String>>,
    pub prefer_server_cipher_suites: bool,
}

impl Default for TlsSection {
    fn default() -> TlsSection {
        TlsSection {
            cert: String::new(),
            key: String::new(),
            client_ca: String::new(),
            cert_file: String::new(),
            key_file: String::new(),
            client_auth_type: String::new(),
            client_ca_file: String::new(),
            client_allowed_sans: None,
            min_version: "TLS12".into(),
            max_version: "TLS13".into(),
            cipher_suites: None,
            curve_preferences: None,
            prefer_server_cipher_suites: true,
        }
    }
}

impl TlsSection {
    /// Whether it asks for TLS at all; with nothing but versions in it, it does not.
    pub fn is_used(&self) -> bool {
        [
            &self.cert,
            &self.key,
            &self.cert_file,
            &self.key_file,
            &self.client_ca,
            &self.client_ca_file,
            &self.client_auth_type,
        ]
        .iter()
        .any(|text| !text.is_empty())
    }
}

/// `http_server_config`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSection {
    pub http2: bool,
    pub headers: Option<BTreeMap<String, String>>,
}

impl Default for HttpSection {
    fn default() -> HttpSection {
        HttpSection { http2: true, headers: None }
    }
}

/// `rate_limit`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimitSection {
    /// Time between two requests.
    interval: String,
    burst: u32,
}

impl RateLimitSection {
    /// `None` where there is no limit.
    pub fn limit(&self) -> Result<Option<RateLimit>, String> {
        let interval = match self.interval.as_str() {
            "" => Duration::ZERO,
            text => Span::parse(text).map_err(|why| format!("interval: {text:?} {why}"))?.0,
        };
        match (interval.is_zero(), self.burst) {
            (true, _) => Ok(None),
            (false, 0) => Err("burst: 0 would let no request through".into()),
            (false, burst) => Ok(Some(RateLimit::new(interval, burst))),
        }
    }
}

/// Reads the file's text. What is wrong is said with its place and without what stands there, which may be a
/// password.
pub fn parse(text: &str) -> Result<File, String> {
    let only_comments = text.lines().map(str::trim).all(|l| l.is_empty() || l.starts_with('#') || l == "---");
    if only_comments {
        return Ok(File::default());
    }
    let file: File = serde_saphyr::from_str(text).map_err(|e| {
        let place = e.location().map_or(String::new(), |at| format!("{}:{}: ", at.line(), at.column()));
        format!("{place}{}", without_values(&e.without_snippet().to_string()))
    })?;
    for (user, hash) in file.basic_auth_users.iter().flatten() {
        if cost(hash).is_none() {
            return Err(format!(
                "basic_auth_users: the password of {user:?} is no bcrypt hash (`htpasswd -nBC 10 \"\"` makes one)"
            ));
        }
    }
    Ok(file)
}

/// A message of the parser without the value that it shows.
fn without_values(message: &str) -> String {
    for kind in ["invalid type", "invalid value", "invalid length"] {
        if message.contains(kind) {
            return "a value of another kind belongs here".into();
        }
    }
    message.to_owned()
}

/// The cost of a bcrypt hash (`$2b$10$…`), if it is one.
pub fn cost(hash: &str) -> Option<u32> {
    let mut parts = hash.split('$');
    let (empty, version, cost, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hash = empty.is_empty()
        && matches!(version, "2" | "2a" | "2b" | "2x" | "2y")
        && rest.len() == 53
        && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/')
        && parts.next().is_none();
    let cost: u32 = cost.parse().ok()?;
    (is_hash && (4..=31).contains(&cost)).then_some(cost)
}

/// The headers that may be set, with the values that some of them must have.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

/// Checks headers as upstream does.
pub fn headers(written: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    let mut out = HeaderMap::new();
    for (name, value) in written {
        let Some((_, values)) = HEADERS.iter().find(|(known, _)| known == name) else {
            return Err(format!("http_server_config: HTTP header {name:?} can not be configured"));
        };
        if !values.is_empty() && !values.contains(&value.as_str()) {
            return Err(format!(
                "http_server_config: invalid value for {name}: one of {values:?} is expected, not {value:?}"
            ));
        }
        let wrong = || format!("http_server_config: {name}: {value:?} cannot be the value of a header");
        let value = HeaderValue::from_str(value).map_err(|_| wrong())?;
        out.insert(name.parse::<HeaderName>().map_err(|_| wrong())?, value);
    }
    Ok(out)
}
