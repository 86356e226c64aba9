//! What this process shows members over TLS, and whom it trusts: certificates in files that are read again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use members::client::{Client, MakeClient, builder};
use parking_lot::Mutex;

use crate::config::Settings;
use crate::live_client::Live;
use crate::live_file::{LiveFile, Read};

/// How long files are taken as they were looked at.
const FRESH: Duration = Duration::from_secs(5);

/// Whether settings say anything of it.
pub fn is_asked_for(settings: &Settings) -> bool {
    let files =
        [&settings.members_tls_ca_file, &settings.members_tls_cert_file, &settings.members_tls_key_file];
    files.iter().any(|file| !file.0.as_os_str().is_empty())
}

/// The client that asks members, made anew where its files have changed.
pub fn client(settings: &Settings) -> Result<MakeClient, String> {
    let path = |path: &PathBuf| Some(path.clone()).filter(|path| !path.as_os_str().is_empty());
    let authority = path(&settings.members_tls_ca_file.0);
    let own = match (path(&settings.members_tls_cert_file.0), path(&settings.members_tls_key_file.0)) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((cert, key)),
        _ => {
            return Err(
                "members.tls_cert_file and members.tls_key_file belong together: give both or neither".into(),
            );
        }
    };
    // Made anew as well where the system's authorities have changed.
    let live = Live::new(move || {
        let (authority, own) = (authority.clone(), own.clone());
        LiveFile::open("members.tls_*", move || read(authority.as_ref(), own.as_ref()))
    })?;
    let looked = Mutex::new(Instant::now());
    Ok(Arc::new(move || {
        let file = live.get();
        let mut looked = looked.lock();
        if looked.elapsed() > FRESH {
            file.refresh();
            *looked = Instant::now();
        }
        (*file.get()).clone()
    }))
}

fn read(authority: Option<&PathBuf>, own: Option<&(PathBuf, PathBuf)>) -> Result<Read<Client>, String> {
    let text = |path: &PathBuf| std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    let (mut builder, mut files) = (builder(), Vec::new());
    if let Some(path) = authority {
        let all = reqwest::Certificate::from_pem_bundle(&text(path)?);
        let all = all.map_err(|e| format!("{}: {e}", path.display()))?;
        if all.is_empty() {
            return Err(format!("{}: it has no certificate", path.display()));
        }
        builder = all.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        files.push(path.clone());
    }
    if let Some((cert, key)) = own {
        let pem = [text(cert)?, b"\n".to_vec(), text(key)?].concat();
        let identity = reqwest::Identity::from_pem(&pem);
        let wrong = |e| format!("{} and {}: {e}", cert.display(), key.display());
        builder = builder.identity(identity.map_err(wrong)?);
        files.extend([cert.clone(), key.clone()]);
    }
    let value = builder.build().map_err(|e| crate::error_chain::error_chain(&e))?;
    Ok(Read { value, files })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Path;

    #[test]
    fn files_of_certificates_are_both_or_none_and_have_some() {
        // As the process does at its start.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| Path(folder.path().join(name));
        std::fs::write(&file("empty").0, "").unwrap();
        assert!(client(&Settings::default()).is_ok());
        let of = |settings: Settings| client(&settings).err().unwrap();
        let alone = Settings { members_tls_cert_file: file("a"), ..Settings::default() };
        assert!(of(alone).contains("belong together"));
        let empty = Settings { members_tls_ca_file: file("empty"), ..Settings::default() };
        assert!(of(empty).contains("it has no certificate"));
        let missing = Settings { members_tls_ca_file: file("missing"), ..Settings::default() };
        let why = of(missing);
        assert!(why.starts_with("members.tls_*: ") && why.contains("missing"), "{why}");
    }
}
