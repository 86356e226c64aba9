//! Every secret and certificate is replaced while requests run, as Kubernetes does it (links that are
//! swapped) and as Vault Agent does it (a rename): no request fails.

mod test_services;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;
use test_services::certificates::Folder;
use test_services::plain_s3::PlainS3;
use test_services::remote_write::{snappy, write_request};
use test_services::{Hearth, Start, free_port, now_ms, series, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// bcrypt of `open sesame` with cost 4.
const HASH: &str = "$2b$04$XkaT3QbrE9Dj1fN5pFQj7.Ql86aHmUcRLWLRlOeEVa0FsFLGA5i2q";

fn sha256(token: &str) -> String {
    digest(&SHA256, token.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// A volume as the kubelet mounts it: names link through `..data`, which is renamed over.
struct Mounted<'a> {
    folder: &'a Folder,
    version: AtomicUsize,
}

impl Mounted<'_> {
    /// All files at once.
    fn swap(&self, files: &[(&str, Vec<u8>)]) {
        let at = |name: &str| self.folder.path("mounted").join(name);
        let version = format!("..v{}", self.version.fetch_add(1, Ordering::Relaxed));
        fs::create_dir_all(at(&version)).unwrap();
        for (name, text) in files {
            fs::write(at(&version).join(name), text).unwrap();
        }
        symlink(&version, at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        for (name, _) in files {
            let _ = symlink(format!("..data/{name}"), at(name));
        }
    }
}

/// A key and its name (`kid`).
type NamedKey = (String, Arc<EcdsaKeyPair>);

/// An issuer of tokens on a port of its own.
struct Issuer {
    url: String,
    keys: Arc<Mutex<Vec<NamedKey>>>,
}

impl Issuer {
    fn start() -> Issuer {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Issuer { url: url.clone(), keys: Arc::default() };
        let keys = issuer.keys.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut head = [0; 4096];
                let read = stream.read(&mut head).unwrap_or(0);
                let body = match String::from_utf8_lossy(&head[..read]).contains("openid-configuration") {
                    true => json!({"issuer": url, "jwks_uri": format!("{url}/keys")}),
                    false => json!({"keys": keys.lock().unwrap().iter().map(|(id, key)| {
                        let point = key.public_key().as_ref();
                        let part = |of: &[u8]| URL_SAFE_NO_PAD.encode(of);
                        json!({"kty": "EC", "crv": "P-256", "kid": id, "x": part(&point[1..33]), "y": part(&point[33..])})
                    }).collect::<Vec<_>>()}),
                }
                .to_string();
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        issuer.publish("key-0");
        issuer
    }

    /// Publishes another key beside those there are.
    fn publish(&self, id: &str) {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        self.keys.lock().unwrap().push((id.to_owned(), Arc::new(key)));
    }

    /// A token that the newest key has signed.
    fn token(&self) -> String {
        let (id, key) = self.keys.lock().unwrap().last().unwrap().clone();
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = json!({"iss": self.url, "aud": "hearth", "sub": "x", "exp": now_ms() / 1000 + 60, "tenants": "jwt", "scope": "hearth:read"});
        let signed = format!("{}.{}", part(json!({"alg": "ES256", "kid": id})), part(claims));
        let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// Asks with curl until it is told to stop; every answer but 200 (or 204) is a failure. `shown` says what the
/// request shows at the moment.
fn ask_on(
    folder: &Folder,
    url: &str,
    stop: &AtomicBool,
    failures: &Mutex<Vec<String>>,
    shown: impl Fn() -> Vec<String>,
) -> usize {
    let mut asked = 0;
    while !stop.load(Ordering::Relaxed) {
        let shown = shown();
        let out = Command::new("curl")
            .args(["-sS", "-g", "-m", "30", "--cacert", &folder.shown("bundle.pem"), "-w", "\n%{http_code}"])
            .args(&shown)
            .arg(url)
            .output()
            .expect("curl is installed");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if !text.ends_with("\n200") && !text.ends_with("\n204") {
            let why = String::from_utf8_lossy(&out.stderr).into_owned();
            failures.lock().unwrap().push(format!("{url} with {shown:?}: {text} {why}"));
        }
        asked += 1;
    }
    asked
}

fn serial(port: u16) -> String {
    let shake = format!(
        "openssl s_client -connect 127.0.0.1:{port} </dev/null 2>/dev/null | openssl x509 -noout -serial"
    );
    test_services::certificates::run("sh", &["-c", &shake])
}

#[test]
fn rotation_of_what_clients_are_known_by_fails_no_request() {
    let folder = Folder::new();
    let issuer = Issuer::start();
    let mounted = Mounted { folder: &folder, version: AtomicUsize::new(0) };
    // What is good in a version: authorities of clients, users, tokens.
    let publish = |authorities: &[&str], users: &[usize], tokens: &[&str]| {
        let mut web = "tls_server_config: {cert_file: tls.crt, key_file: tls.key, client_auth_type: VerifyClientCertIfGiven, client_ca_file: ca.crt}\nbasic_auth_users:\n".to_owned();
        let mut grants = format!(
            "issuers:\n  - {{issuer: '{}', audiences: [hearth], tenants_claim: tenants, rights_claim: scope, allow_http: true}}\n",
            issuer.url
        );
        grants += "certificates:\n  - {san: 'spiffe://cluster/prometheus', tenants: [certificate], rights: [read]}\ntokens:\n";
        for token in tokens {
            grants += &format!(
                "  - {{name: {token}, sha256: {}, tenants: [token], rights: [read]}}\n",
                sha256(token)
            );
        }
        grants += "users:\n";
        for user in users {
            web += &format!("  user-{user}: {HASH}\n");
            grants += &format!("  - {{name: user-{user}, tenants: [password], rights: [read]}}\n");
        }
        let read = |name: &str| fs::read(folder.path(name)).unwrap();
        let ca: Vec<u8> = authorities.iter().flat_map(|name| read(&format!("{name}.pem"))).collect();
        mounted.swap(&[
            ("web.yml", web.into_bytes()),
            ("auth.yml", grants.into_bytes()),
            ("tls.crt", read("server.pem")),
            ("tls.key", read("server.key")),
            ("ca.crt", ca),
        ]);
    };
    folder.write("bundle.pem", &fs::read_to_string(folder.path("ca.pem")).unwrap());
    publish(&["ca"], &[0], &["token-0"]);
    let at = |name: &str| folder.path("mounted").join(name).display().to_string();
    let config = format!(
        "web: {{config_file: '{}'}}\nauth: {{file: '{}'}}\nself_metrics_interval: 0\n",
        at("web.yml"),
        at("auth.yml")
    );
    let hearth = Start::at(folder.0.path()).config(&config).spawn();
    let port = hearth.start.port;
    wait_for("hearth to answer", PATIENCE, || std::panic::catch_unwind(|| serial(port)).ok());
    let url = format!("https://127.0.0.1:{port}/api/v1/query?query=1");
    let (stop, failures) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let certificate = Mutex::new("client".to_owned());
    let (user, token) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (client_pem, client_key) = (
        |name: &str| folder.shown(&format!("{name}.pem")),
        |name: &str| folder.shown(&format!("{name}.key")),
    );
    let header = |token: &str| vec!["-H".to_owned(), format!("Authorization: Bearer {token}")];
    let of_user = |user: usize| vec!["-u".to_owned(), format!("user-{user}:open sesame")];
    let of_certificate =
        |name: &str| vec!["--cert".to_owned(), client_pem(name), "--key".to_owned(), client_key(name)];
    let works = |what: &str, shown: Vec<String>| {
        wait_for(what, PATIENCE, || {
            let stop = AtomicBool::new(false);
            let tried = Mutex::new(Vec::new());
            ask_on(&folder, &url, &stop, &tried, || {
                stop.store(true, Ordering::Relaxed);
                shown.clone()
            });
            tried.lock().unwrap().is_empty().then_some(())
        });
    };
    works("the first password", of_user(0));
    works("the first token of the issuer", header(&issuer.token()));
    let asked: Vec<usize> = std::thread::scope(|threads| {
        let clients = [
            threads
                .spawn(|| ask_on(&folder, &url, &stop, &failures, || of_user(user.load(Ordering::Relaxed)))),
            threads.spawn(|| {
                ask_on(&folder, &url, &stop, &failures, || {
                    header(&format!("token-{}", token.load(Ordering::Relaxed)))
                })
            }),
            threads.spawn(|| {
                ask_on(&folder, &url, &stop, &failures, || of_certificate(&certificate.lock().unwrap()))
            }),
            threads.spawn(|| ask_on(&folder, &url, &stop, &failures, || header(&issuer.token()))),
        ];
        for round in 1..=3 {
            // Authorities and certificates have new names: the client's files are not swapped under curl.
            let (authority, before) = (
                format!("ca-{round}"),
                if round == 1 { "ca".to_owned() } else { format!("ca-{}", round - 1) },
            );
            folder.authority(&authority);
            let client = format!("client-{round}");
            folder.certificate(&client, &authority, "URI:spiffe://cluster/prometheus", "clientAuth");
            folder.certificate("server", "ca", "DNS:localhost,IP:127.0.0.1", "serverAuth");
            let (old_token, new_token) = (format!("token-{}", round - 1), format!("token-{round}"));
            let served = serial(port);
            publish(&[&before, &authority], &[round - 1, round], &[&old_token, &new_token]);
            wait_for("the server's new certificate", PATIENCE, || (serial(port) != served).then_some(()));
            works("the new password", of_user(round));
            works("the new token", header(&new_token));
            works("the certificate of the new authority", of_certificate(&client));
            user.store(round, Ordering::Relaxed);
            token.store(round, Ordering::Relaxed);
            *certificate.lock().unwrap() = client;
            issuer.publish(&format!("key-{round}"));
            // Requests that began with the old ones end.
            std::thread::sleep(Duration::from_secs(2));
            publish(&[&authority], &[round], &[&new_token]);
            wait_for("the old token to be refused", PATIENCE, || {
                let (stop, tried) = (AtomicBool::new(false), Mutex::new(Vec::new()));
                ask_on(&folder, &url, &stop, &tried, || {
                    stop.store(true, Ordering::Relaxed);
                    header(&old_token)
                });
                (!tried.lock().unwrap().is_empty()).then_some(())
            });
            // The issuer takes its old key away ten seconds after it has published the next, as is usual.
            std::thread::sleep(Duration::from_secs(11));
            issuer.keys.lock().unwrap().remove(0);
        }
        stop.store(true, Ordering::Relaxed);
        clients.map(|client| client.join().unwrap()).into()
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {asked:?}: {}", failures.len(), failures.join("\n"));
    assert!(asked.iter().all(|asked| *asked > 100), "{asked:?}");
}

/// TLS in front of a server that has none: every connection is shown the certificate of the moment, and
/// none lives long.
struct TlsFront {
    port: u16,
    _runtime: tokio::runtime::Runtime,
}

impl TlsFront {
    fn start(behind: u16, folder: &Folder) -> TlsFront {
        let port = free_port();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (cert, key) = (folder.path("front.pem"), folder.path("front.key"));
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", port))).unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                use rustls::pki_types::pem::PemObject;
                use rustls::pki_types::{CertificateDer, PrivateKeyDer};
                let chain: Vec<_> =
                    CertificateDer::pem_file_iter(&cert).unwrap().map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_file(&key).unwrap();
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let config = rustls::ServerConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_no_client_auth()
                    .with_single_cert(chain, key);
                // Its halves are replaced one after the other.
                let Ok(config) = config else { continue };
                tokio::spawn(async move {
                    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
                    let Ok(mut client) = acceptor.accept(stream).await else { return };
                    let Ok(mut server) = tokio::net::TcpStream::connect(("127.0.0.1", behind)).await else {
                        return;
                    };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        TlsFront { port, _runtime: runtime }
    }
}

#[test]
fn rotation_of_what_others_are_known_by_fails_no_request() {
    let folder = Folder::new();
    let pem = |names: &[&str]| -> String {
        names.iter().map(|name| fs::read_to_string(folder.path(&format!("{name}.pem"))).unwrap()).collect()
    };
    let s3 = PlainS3::honest();
    folder.certificate("front", "ca", "DNS:localhost,IP:127.0.0.1", "serverAuth");
    let front = TlsFront::start(s3.port(), &folder);
    folder.write("bundle.pem", &pem(&["ca"]));
    for (name, text) in [("members", "members-token-0"), ("key", "key-0"), ("secret", "secret-0")] {
        folder.write(name, text);
    }
    folder.write("web.yml", "tls_server_config: {cert_file: server.pem, key_file: server.key}\n");
    let start = |role: &str| -> Hearth {
        let own = folder.path(role);
        fs::create_dir_all(&own).unwrap();
        let config = format!(
            "role: {role}
objstore: s3://bucket/fleet
s3: {{endpoint: 'https://localhost:{}', region: r, access_key_file: '{}', secret_key_file: '{}'}}
members: {{token_file: '{}', interval: 1s}}
web: {{config_file: '{}'}}
http: {{max_connection_age: 1s}}
self_metrics_interval: 0
",
            front.port,
            folder.shown("key"),
            folder.shown("secret"),
            folder.shown("members"),
            folder.shown("web.yml")
        );
        let mut start = Start::at(&own).config(&config);
        start.env.push(("SSL_CERT_FILE".into(), folder.shown("bundle.pem")));
        start.spawn()
    };
    let (ingester, querier) = (start("ingest"), start("query"));
    let answers = |hearth: &Hearth, path: &str, more: &[&str]| -> Option<String> {
        let out = Command::new("curl")
            .args(["-sS", "-g", "-m", "30", "--cacert", &folder.shown("bundle.pem"), "-f"])
            .args(more)
            .arg(format!("https://127.0.0.1:{}{path}", hearth.start.port))
            .output()
            .expect("curl is installed");
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
    };
    for hearth in [&ingester, &querier] {
        wait_for("a process to be ready", PATIENCE, || answers(hearth, "/-/ready", &[]));
    }
    folder.write("body", "");
    let body = snappy(&write_request(&[series(&[("__name__", "x")], &[(now_ms(), 1.0)])]));
    fs::write(folder.path("body"), body).unwrap();
    let data = format!("@{}", folder.shown("body"));
    let written = [
        "-H",
        "Content-Encoding: snappy",
        "-H",
        "Content-Type: application/x-protobuf",
        "--data-binary",
        &data,
    ];
    wait_for("a write to be taken", PATIENCE, || answers(&ingester, "/api/v1/write", &written));
    let query = "/api/v1/query?query=last_over_time(x[1h])";
    wait_for("what was written to be seen", PATIENCE, || {
        answers(&querier, query, &[]).filter(|a| a.contains("\"1\"]"))
    });
    let (stop, failures) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let url = |hearth: &Hearth, path: &str| format!("https://127.0.0.1:{}{path}", hearth.start.port);
    let written: Vec<String> = written.map(str::to_owned).into();
    let flush = vec!["-X".to_owned(), "POST".to_owned()];
    let asked = std::thread::scope(|threads| {
        let (folder, stop, failures) = (&folder, &stop, &failures);
        let on = |url: String, shown: Vec<String>| {
            threads.spawn(move || ask_on(folder, &url, stop, failures, || shown.clone()))
        };
        let clients = [
            on(url(&querier, query), Vec::new()),
            on(url(&ingester, "/api/v1/write"), written),
            on(url(&ingester, "/-/flush"), flush),
        ];
        for round in 1..=2 {
            let (before, next) = if round % 2 == 1 { ("ca", "other-ca") } else { ("other-ca", "ca") };
            // The authorities' bundle has both for a while; certificates of the new one come meanwhile.
            folder.write("bundle.pem", &pem(&[before, next]));
            std::thread::sleep(Duration::from_secs(3));
            for name in ["front", "server"] {
                folder.certificate(name, next, "DNS:localhost,IP:127.0.0.1", "serverAuth");
            }
            std::thread::sleep(Duration::from_secs(4));
            folder.write("bundle.pem", &pem(&[next]));
            // Replaced at once: every process reads it at a time of its own.
            folder.write("members", &format!("members-token-{round}"));
            folder.write("key", &format!("key-{round}"));
            std::thread::sleep(Duration::from_millis(700));
            folder.write("secret", &format!("secret-{round}"));
            let key = format!("key-{round}");
            wait_for("requests to the bucket with the new key", PATIENCE, || {
                s3.signers().iter().any(|(of, _)| *of == key).then_some(())
            });
            std::thread::sleep(Duration::from_secs(12));
        }
        stop.store(true, Ordering::Relaxed);
        clients.map(|client| client.join().unwrap())
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {asked:?}: {}", failures.len(), failures.join("\n"));
    assert!(asked.iter().all(|asked| *asked > 20), "{asked:?}");
    // The token before is good for a while, one that never was is not.
    let answers =
        [("members-token-1", "400"), ("members-token-2", "400"), ("members-token-0", "401"), ("no", "401")];
    // Again and again: an answer that comes before the body was read must not end the stream under it.
    for (token, status) in std::iter::repeat_n(answers, 15).flatten() {
        let out = Command::new("curl")
            .args([
                "-sS",
                "--cacert",
                &folder.shown("bundle.pem"),
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-d",
                "x",
            ])
            .args(["-H", &format!("Authorization: Bearer {token}"), &url(&ingester, "/internal/v1/ask")])
            .output()
            .expect("curl is installed");
        let why = String::from_utf8_lossy(&out.stderr);
        assert_eq!(String::from_utf8_lossy(&out.stdout), status, "{token}: {why}");
    }
}
