//! The file as upstream has it, with certificates that openssl makes.

use std::process::Command;

use super::*;

/// A certificate that signs itself, made with openssl: `name.pem` and `name.key` in the folder.
fn certificate(folder: &Path, name: &str, san: &str) {
    let file = |name: &str, end: &str| folder.join(format!("{name}.{end}")).display().to_string();
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-days", "2", "-subj", &format!("/CN={name}"), "-keyout", &file(name, "key")]);
    command.args(["-out", &file(name, "pem")]);
    if !san.is_empty() {
        command.args(["-addext", &format!("subjectAltName={san}")]);
    }
    let made = command.output().expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn with_certificate() -> Folder {
        let folder = Folder::new();
        certificate(folder.0.path(), "server", "DNS:localhost");
        folder
    }

    fn read(&self, text: &str) -> Result<Read<WebConfig>, String> {
        let path = self.0.path().join("web.yml");
        std::fs::write(&path, text).unwrap();
        read(&path, None)
    }
}

const TLS: &str = "tls_server_config: {cert_file: server.pem, key_file: server.key";

#[test]
fn web_config_without_sections_changes_nothing() {
    let folder = Folder::new();
    for text in [
        "",
        "# nothing\n",
        "tls_server_config:\nbasic_auth_users:\n",
        "tls_server_config: {min_version: TLS13}",
    ] {
        let config = folder.read(text).unwrap().value;
        assert!(config.tls.is_none() && config.users.is_empty() && config.headers.is_empty(), "{text}");
    }
}

#[test]
fn web_config_reads_what_upstream_files_have() {
    let folder = Folder::with_certificate();
    let text = format!(
        "{TLS}, min_version: TLS10, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_RSA_WITH_AES_128_CBC_SHA, TLS_AES_128_GCM_SHA256], curve_preferences: [CurveP256, CurveP521, X25519], prefer_server_cipher_suites: false}}
http_server_config:
  http2: false
  headers: {{X-Frame-Options: deny, Strict-Transport-Security: max-age=1}}
basic_auth_users:
  alice: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze
rate_limit: {{interval: 1s, burst: 20}}
"
    );
    let read = folder.read(&text).unwrap();
    let tls = read.value.tls.unwrap();
    assert_eq!(tls.config.alpn_protocols, [b"http/1.1"]);
    assert!(!tls.verifies_clients && !tls.config.ignore_client_order);
    let suites: Vec<String> =
        tls.config.crypto_provider().cipher_suites.iter().map(|s| format!("{:?}", s.suite())).collect();
    assert_eq!(suites.last().unwrap(), "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
    assert_eq!(suites.len(), 4, "those of TLS 1.3 stay: {suites:?}");
    assert_eq!(tls.config.crypto_provider().kx_groups.len(), 2);
    assert_eq!(read.value.headers["x-frame-options"], "deny");
    assert_eq!(read.value.users.len(), 1);
    assert!(read.value.rate_limit.is_some());
    let names: Vec<_> = read.files.iter().map(|f| f.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["web.yml", "server.pem", "server.key"]);
}

#[test]
fn web_config_that_is_wrong_says_what_and_where() {
    let folder = Folder::with_certificate();
    certificate(folder.0.path(), "other", "DNS:localhost");
    for (text, told) in [
        ("tls_server_config: {cert_file: server.pem}", "missing one of key or key_file"),
        ("tls_server_config: {key_file: server.key}", "missing one of cert or cert_file"),
        ("tls_server_config: {cert_file: no.pem, key_file: server.key}", "no.pem"),
        ("tls_server_config: {cert_file: server.key, key_file: server.key}", "no certificate in PEM"),
        ("tls_server_config: {cert_file: server.pem, key_file: server.pem}", "no private key in PEM"),
        ("tls_server_config: {cert_file: server.pem, key_file: other.key}", "do not go together"),
        (&format!("{TLS}, client_auth_type: Maybe}}"), "client_auth_type"),
        (&format!("{TLS}, client_ca_file: other.pem}}"), "asks for no certificate"),
        (&format!("{TLS}, client_auth_type: RequireAndVerifyClientCert}}"), "client_ca_file"),
        (
            &format!("{TLS}, client_auth_type: RequestClientCert, client_allowed_sans: [x]}}"),
            "client_allowed_sans",
        ),
        (&format!("{TLS}, max_version: TLS11}}"), "neither TLS12 nor TLS13"),
        (&format!("{TLS}, min_version: SSL3}}"), "unknown TLS version"),
        (&format!("{TLS}, cipher_suites: [NONE]}}"), "unknown cipher"),
        (&format!("{TLS}, curve_preferences: [CurveX]}}"), "unknown curve"),
        ("http_server_config: {headers: {X-Mine: a}}", "can not be configured"),
        ("http_server_config: {headers: {X-Frame-Options: allow}}", "X-Frame-Options"),
        ("basic_auth_users: {alice: hunter2}", "alice"),
        ("basic_auth_users: hunter2", "mapping"),
        ("rate_limit: {interval: soon, burst: 1}", "interval"),
        ("rate_limit: {interval: 1s}", "burst"),
        ("tls_sever_config: {}", "tls_sever_config"),
    ] {
        let why = folder.read(text).err().unwrap_or_else(|| panic!("{text} is taken"));
        assert!(why.contains("web.yml") && why.contains(told), "{text}: {why}");
        assert!(!why.contains("hunter2"), "{why}");
    }
}

#[test]
fn web_config_keeps_tls_on_or_off_while_it_runs() {
    let folder = Folder::with_certificate();
    let path = folder.0.path().join("web.yml");
    std::fs::write(&path, format!("{TLS}}}")).unwrap();
    let file = open(&path).unwrap();
    let first = file.get().tls.clone().unwrap().config;
    std::fs::write(&path, "basic_auth_users: {}\n").unwrap();
    file.refresh();
    assert!(file.get().tls.is_some(), "a slip of the pen encrypts nothing less");
    std::fs::write(&path, format!("{TLS}}}\n")).unwrap();
    certificate(folder.0.path(), "server", "DNS:localhost");
    file.refresh();
    assert!(!Arc::ptr_eq(&first, &file.get().tls.clone().unwrap().config), "the new certificate");
}

#[test]
fn names_of_a_certificate_are_those_that_openssl_wrote() {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let folder = Folder::new();
    let san = "DNS:a.example,URI:spiffe://c/ns/m/sa/p,IP:127.0.0.1,email:x@y.example,IP:::1";
    certificate(folder.0.path(), "client", san);
    let pem = std::fs::read(folder.0.path().join("client.pem")).unwrap();
    let names = subject_names(&CertificateDer::from_pem_slice(&pem).unwrap());
    assert_eq!(names, ["a.example", "spiffe://c/ns/m/sa/p", "127.0.0.1", "x@y.example", "::1"]);
    certificate(folder.0.path(), "bare", "");
    let pem = std::fs::read(folder.0.path().join("bare.pem")).unwrap();
    assert!(subject_names(&CertificateDer::from_pem_slice(&pem).unwrap()).is_empty());
}
