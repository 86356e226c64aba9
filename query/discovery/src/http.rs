//! Asking services over HTTP: who they are, and what is shown to them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode};

use crate::MAX_BYTES;

/// A secret, or the file that holds it, which is read anew for each request.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Text(String),
    File(PathBuf),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Text(_) => f.write_str("<secret>"),
            Secret::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Secret {
    /// The secret without the line's end of a file.
    pub(crate) fn read(&self) -> Result<String, String> {
        match self {
            Secret::Text(text) => Ok(text.clone()),
            Secret::File(path) => std::fs::read_to_string(path)
                .map(|text| text.trim_end().to_owned())
                .map_err(|e| format!("{}: {e}", path.display())),
        }
    }
}

/// How a service is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Shown as `Authorization: Bearer`.
    pub bearer: Option<Secret>,
    /// Certificates that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The certificate that is shown, and its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    pub insecure_skip_verify: bool,
}

impl Access {
    /// A client with the files as they are now; it is cheap enough to be made for each answer that is waited
    /// for.
    pub(crate) fn client(&self) -> Result<reqwest::Client, String> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .user_agent(concat!("Hearth/", env!("CARGO_PKG_VERSION")))
            .no_proxy();
        if let Some(path) = &self.ca_file {
            let all = reqwest::Certificate::from_pem_bundle(&read(path)?);
            for certificate in all.map_err(|e| format!("{}: {e}", path.display()))? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        if let Some((cert, key)) = &self.client_certificate {
            let pem = [read(cert)?, b"\n".to_vec(), read(key)?].concat();
            let identity = reqwest::Identity::from_pem(&pem);
            builder = builder.identity(identity.map_err(|e| format!("{}: {e}", cert.display()))?);
        }
        if self.insecure_skip_verify {
            builder = builder.danger_accept_invalid_certs(true);
        }
        builder.build().map_err(|e| told(&e))
    }

    /// A request that shows who asks.
    pub(crate) fn shown(&self, request: RequestBuilder) -> Result<RequestBuilder, String> {
        match &self.bearer {
            None => Ok(request),
            Some(secret) => Ok(request.bearer_auth(secret.read()?)),
        }
    }
}

/// A URL with parameters.
pub(crate) fn url<'a>(
    base: &str,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<reqwest::Url, String> {
    reqwest::Url::parse_with_params(base, parameters).map_err(|e| format!("{base:?} is not a URL: {e}"))
}

/// An error of the client with its causes: the outermost says little.
pub(crate) fn told(e: &reqwest::Error) -> String {
    let mut text = e.to_string();
    let mut cause = std::error::Error::source(e);
    while let Some(e) = cause {
        text += &format!(": {e}");
        cause = e.source();
    }
    text
}

/// Sends a request; anything but 200 is an error, with the beginning of what was said.
pub(crate) async fn send(request: RequestBuilder) -> Result<reqwest::Response, String> {
    let mut response = request.send().await.map_err(|e| told(&e))?;
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response);
    }
    let text = response.chunk().await.ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&text[..text.len().min(300)]).trim().to_owned();
    Err(format!("status {}: {text}", status.as_u16()))
}

/// The body of an answer.
pub(crate) async fn body(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|e| told(&e))? {
        text.extend_from_slice(&piece);
        if text.len() > MAX_BYTES {
            return Err(format!("its answer is longer than {MAX_BYTES} bytes"));
        }
    }
    Ok(text)
}
