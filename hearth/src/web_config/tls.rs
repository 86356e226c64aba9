//! rustls' configuration of a `tls_server_config`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::client_certificates::{ClientAuth, verifier};
use super::file::TlsSection;
use super::{ServerTls, joined};

/// Makes it; the files it read are added to `files`.
pub fn server_tls(
    section: &TlsSection,
    folder: &Path,
    http2: bool,
    files: &mut Vec<PathBuf>,
) -> Result<ServerTls, String> {
    let mut read =
        |inline: &str, file: &str, names: [&str; 2]| -> Result<Option<(Vec<u8>, String)>, String> {
            let [inline_name, file_name] = names;
            match (inline, file) {
                ("", "") => Ok(None),
                (text, "") => Ok(Some((text.as_bytes().to_vec(), inline_name.to_owned()))),
                // As upstream, a file goes before what stands beside it.
                (_, file) => {
                    let path = joined(folder, file);
                    files.push(path.clone());
                    let shown = format!("{file_name} ({})", path.display());
                    std::fs::read(&path)
                        .map(|pem| Some((pem, shown.clone())))
                        .map_err(|e| format!("{shown}: {e}"))
                }
            }
        };
    let (cert, cert_name) = read(&section.cert, &section.cert_file, ["cert", "cert_file"])?
        .ok_or("missing one of cert or cert_file")?;
    let (key, key_name) = read(&section.key, &section.key_file, ["key", "key_file"])?
        .ok_or("missing one of key or key_file")?;
    let authorities = read(&section.client_ca, &section.client_ca_file, ["client_ca", "client_ca_file"])?;

    let chain = certificates(&cert, &cert_name)?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| format!("{key_name}: there is no private key in PEM in it"))?;
    let authorities = authorities.map(|(pem, name)| roots(&pem, &name)).transpose()?;
    let provider = Arc::new(provider(section)?);
    let auth = ClientAuth::named(&section.client_auth_type)?;
    let allowed = section.client_allowed_sans.as_deref();
    let verifier = verifier(auth, authorities, allowed, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(&section.min_version, &section.max_version)?)
        .map_err(|e| format!("these versions, cipher suites and curves do not go together: {e}"))?
        .with_client_cert_verifier(verifier.unwrap_or_else(WebPkiClientVerifier::no_client_auth))
        .with_single_cert(chain, key)
        .map_err(|e| format!("{cert_name} and {key_name} do not go together: {e}"))?;
    config.ignore_client_order = section.prefer_server_cipher_suites;
    config.alpn_protocols = match http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    Ok(ServerTls { config: Arc::new(config), verifies_clients: auth.verifies() })
}

fn certificates(pem: &[u8], name: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(format!("{name}: there is no certificate in PEM in it")),
    }
}

fn roots(pem: &[u8], name: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, name)? {
        roots.add(certificate).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(roots)
}

/// The versions between two, of those that there are here. Older ones may be named as the least: then the
/// least is TLS 1.2 all the same.
fn versions(min: &str, max: &str) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let number = |key: &str, name: &str| match name {
        "TLS10" => Ok(10),
        "TLS11" => Ok(11),
        "TLS12" => Ok(12),
        "TLS13" => Ok(13),
        other => Err(format!("{key}: unknown TLS version: {other}")),
    };
    let (min, max) = (number("min_version", min)?, number("max_version", max)?);
    let known = [(12, &TLS12), (13, &TLS13)];
    let between: Vec<_> =
        known.into_iter().filter(|(n, _)| (min..=max).contains(n)).map(|(_, version)| version).collect();
    match between.is_empty() {
        true => Err("min_version and max_version leave neither TLS12 nor TLS13".into()),
        false => Ok(between),
    }
}

/// Go's names of the suites of TLS 1.2 that it offers and rustls does not have: without forward secrecy, or
/// with CBC.
const GO_ONLY: [&str; 8] = [
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
];

/// Curves that Go has and ring does not.
const GO_ONLY_CURVES: [&str; 2] = ["CurveP521", "X25519MLKEM768"];

/// Cryptography with the suites and curves that the section wants, in its order. As in Go, the list of suites
/// is about TLS 1.2 only.
fn provider(section: &TlsSection) -> Result<CryptoProvider, String> {
    let mut provider = ring::default_provider();
    if let Some(wanted) = section.cipher_suites.as_deref().filter(|list| !list.is_empty()) {
        let all = std::mem::take(&mut provider.cipher_suites);
        let is_13 = |suite: &rustls::SupportedCipherSuite| suite.tls13().is_some();
        provider.cipher_suites = all.iter().copied().filter(is_13).collect();
        for name in wanted {
            // Go writes TLS 1.3's names without the 13.
            let of_13 = name.replacen("TLS_", "TLS13_", 1);
            let found = all.iter().find(|s| {
                let known = format!("{:?}", s.suite());
                known == *name || known == of_13
            });
            match found {
                Some(suite) if is_13(suite) => {}
                Some(suite) => provider.cipher_suites.push(*suite),
                None if GO_ONLY.contains(&name.as_str()) => {
                    tracing::warn!("cipher_suites: {name} is not offered here: it is not safe any more");
                }
                None => return Err(format!("cipher_suites: unknown cipher: {name}")),
            }
        }
    }
    if let Some(wanted) = section.curve_preferences.as_deref().filter(|list| !list.is_empty()) {
        let all = std::mem::take(&mut provider.kx_groups);
        for name in wanted {
            let rustls_name = match name.as_str() {
                "CurveP256" => "secp256r1",
                "CurveP384" => "secp384r1",
                other => other,
            };
            match all.iter().find(|group| format!("{:?}", group.name()) == rustls_name) {
                Some(group) => provider.kx_groups.push(*group),
                None if GO_ONLY_CURVES.contains(&name.as_str()) => {
                    tracing::warn!("curve_preferences: {name} is not offered here");
                }
                None => return Err(format!("curve_preferences: unknown curve: {name}")),
            }
        }
        if provider.kx_groups.is_empty() {
            return Err(
                "curve_preferences: none of these is offered here: CurveP256, CurveP384 and X25519 are"
                    .into(),
            );
        }
    }
    Ok(provider)
}
