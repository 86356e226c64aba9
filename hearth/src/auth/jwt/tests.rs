//! Tokens of an issuer on a port of its own: right ones, and all the wrong ones.

use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn ec() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap()
}

fn ec_jwk(key: &EcdsaKeyPair, id: &str) -> Value {
    let point = key.public_key().as_ref();
    json!({"kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "x": b64(&point[1..33]), "y": b64(&point[33..])})
}

fn unsigned(header: Value, claims: Value) -> String {
    format!("{}.{}", b64(header.to_string().as_bytes()), b64(claims.to_string().as_bytes()))
}

fn ec_signed(key: &EcdsaKeyPair, header: Value, claims: Value) -> String {
    let signed = unsigned(header, claims);
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", b64(signature.as_ref()))
}

/// An issuer on a port of its own, whose keys can be changed.
struct Issuer {
    url: String,
    keys: Arc<RwLock<Value>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start() -> Issuer {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Issuer { url, keys: Arc::default(), asked: Arc::default() };
        let (url, keys, asked) = (issuer.url.clone(), issuer.keys.clone(), issuer.asked.clone());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap();
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                let body = match head.contains("openid-configuration") {
                    true => json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string(),
                    false => {
                        asked.fetch_add(1, Ordering::Relaxed);
                        json!({"keys": *keys.read()}).to_string()
                    }
                };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        issuer
    }

    fn config(&self) -> IssuerConfig {
        IssuerConfig {
            issuer: self.url.clone(),
            audiences: vec!["hearth".into()],
            jwks_url: String::new(),
            ca_file: PathBuf::new(),
            allow_http: true,
            tenants_claim: "tenants".into(),
            name_claim: "sub".into(),
            rights_claim: String::new(),
            rights: Rights { read: true, ..Rights::default() },
            leeway: Duration::from_secs(10),
        }
    }

    fn claims(&self, change: impl FnOnce(&mut Value)) -> Value {
        let now = SystemClock.now_ms() / 1000;
        let mut claims = json!({
            "iss": self.url, "aud": ["other", "hearth"], "exp": now + 60, "nbf": now - 60, "sub": "ann",
            "tenants": ["a", "b"],
        });
        change(&mut claims);
        claims
    }
}

fn issuers() -> Issuers {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Issuers::new(Metrics::register(&mut Registry::default()))
}

async fn status(issuers: &Issuers, config: &IssuerConfig, token: &str) -> u16 {
    match issuers.identify(std::slice::from_ref(config), token).await {
        Ok(_) => 200,
        Err(denied) => {
            assert!(!denied.reason.contains(token), "{}", denied.reason);
            denied.status.as_u16()
        }
    }
}

#[tokio::test]
async fn jwt_says_who_for_which_tenants_and_with_which_rights() {
    let (issuer, key, issuers) = (Issuer::start().await, ec(), issuers());
    *issuer.keys.write() = json!([ec_jwk(&key, "k1")]);
    let header = json!({"alg": "ES256", "kid": "k1"});
    let token = ec_signed(&key, header.clone(), issuer.claims(|_| ()));
    let identity = issuers.identify(&[issuer.config()], &token).await.unwrap();
    assert_eq!((&*identity.name, identity.rights), ("jwt ann", issuer.config().rights));
    assert!(identity.tenants.contains(&model::tenant::TenantId::new("b").unwrap()));

    let config = IssuerConfig { rights_claim: "scope".into(), ..issuer.config() };
    let scope = issuer.claims(|c| c["scope"] = json!("openid hearth:write read"));
    let identity = issuers.identify(&[config], &ec_signed(&key, header, scope)).await.unwrap();
    assert_eq!(identity.rights, Rights { read: true, write: true, ..Rights::default() });
}

#[tokio::test]
async fn jwt_that_is_not_right_is_refused() {
    let (issuer, key, issuers) = (Issuer::start().await, ec(), issuers());
    *issuer.keys.write() = json!([ec_jwk(&key, "k1")]);
    let (config, header) = (issuer.config(), json!({"alg": "ES256", "kid": "k1"}));
    let now = SystemClock.now_ms() / 1000;
    let good = ec_signed(&key, header.clone(), issuer.claims(|_| ()));
    assert_eq!(status(&issuers, &config, &good).await, 200);
    type Change = Box<dyn FnOnce(&mut Value)>;
    let changes: Vec<(Change, u16)> = vec![
        (Box::new(move |c| c["exp"] = json!(now - 11)), 401),
        (Box::new(move |c| c["exp"] = json!(now - 9)), 200),
        (Box::new(|c| c["exp"] = Value::Null), 401),
        (Box::new(|c| c["exp"] = json!("soon")), 401),
        (Box::new(move |c| c["nbf"] = json!(now + 30)), 401),
        (Box::new(|c| c["aud"] = json!("elsewhere")), 401),
        (Box::new(|c| c["aud"] = Value::Null), 401),
        (Box::new(|c| c["iss"] = json!("https://evil.example")), 401),
        (Box::new(|c| c["tenants"] = json!([])), 403),
        (Box::new(|c| c["tenants"] = json!(["../x"])), 403),
    ];
    for (change, expected) in changes {
        let claims = issuer.claims(change);
        let token = ec_signed(&key, header.clone(), claims.clone());
        assert_eq!(status(&issuers, &config, &token).await, expected, "{claims}");
    }
    let claims = || issuer.claims(|_| ());
    let forged = ec_signed(&ec(), header.clone(), claims());
    let none = format!("{}.", unsigned(json!({"alg": "none"}), claims()));
    let none_with_key = format!("{}.", unsigned(json!({"alg": "none", "kid": "k1"}), claims()));
    // A public key as if it were a shared secret.
    let signed = unsigned(json!({"alg": "HS256", "kid": "k1"}), claims());
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.public_key().as_ref());
    let confused = format!("{signed}.{}", b64(ring::hmac::sign(&secret, signed.as_bytes()).as_ref()));
    let critical = ec_signed(&key, json!({"alg": "ES256", "kid": "k1", "crit": ["b64"]}), claims());
    let other_claims = good.rsplit_once('.').unwrap().1;
    let swapped =
        format!("{}.{other_claims}", unsigned(header, issuer.claims(|c| c["tenants"] = json!("*"))));
    let long = "a".repeat(10_000) + ".b.c";
    for token in [&forged, &none, &none_with_key, &confused, &critical, &swapped, &long, "..", "a.b.c", "x"] {
        assert_eq!(status(&issuers, &config, token).await, 401, "{token:.60}");
    }
}

#[tokio::test]
async fn keys_of_an_issuer_are_read_again_for_a_new_one_and_not_for_every_token() {
    let (issuer, old, new, issuers) = (Issuer::start().await, ec(), ec(), issuers());
    let config = issuer.config();
    let token = |key: &EcdsaKeyPair, id: &str| {
        ec_signed(key, json!({"alg": "ES256", "kid": id}), issuer.claims(|_| ()))
    };
    // Nothing can be decided as long as no key was ever read.
    assert_eq!(status(&issuers, &config, &token(&old, "old")).await, 503);
    *issuer.keys.write() = json!([ec_jwk(&old, "old")]);
    issuers.of(&config).forget_attempts().await;
    assert_eq!(status(&issuers, &config, &token(&old, "old")).await, 200);
    let asked = issuer.asked.load(Ordering::Relaxed);
    let mut statuses = Vec::new();
    for i in 0..100 {
        statuses.push(status(&issuers, &config, &token(&new, &format!("made-up-{i}"))).await);
    }
    assert_eq!(issuer.asked.load(Ordering::Relaxed), asked + 5, "six in a minute, the first one included");
    // Then nobody knows: a sender with a key that is truly new has to come again, and loses nothing.
    assert_eq!(statuses, [[401; 5].as_slice(), &[503; 95]].concat());
    assert_eq!(status(&issuers, &config, &token(&old, "old")).await, 200);
    issuers.of(&config).forget_attempts().await;
    *issuer.keys.write() = json!([ec_jwk(&old, "old"), ec_jwk(&new, "new")]);
    assert_eq!(status(&issuers, &config, &token(&new, "new")).await, 200);
    assert_eq!(issuer.asked.load(Ordering::Relaxed), asked + 6);
}

#[test]
fn keys_are_for_the_algorithms_of_their_kind() {
    let random = SystemRandom::new();
    let message = b"a.b";
    let read = |jwk: Value| signature::Key::published(&serde_json::from_value(jwk).unwrap());
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let ed = read(json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref())})).unwrap();
    assert_eq!(ed.verify("EdDSA", message, pair.sign(message).as_ref()), Ok(()));
    assert_eq!(ed.verify("ES256", message, &[]), Err(signature::SignatureError::Algorithm));

    let openssl = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-outform", "DER"])
        .output()
        .expect("openssl is installed");
    let pair =
        RsaKeyPair::from_pkcs8(&openssl.stdout).or_else(|_| RsaKeyPair::from_der(&openssl.stdout)).unwrap();
    let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
    let (n, e) = (b64(&public.n), b64(&public.e));
    let rsa = read(json!({"kty": "RSA", "n": n, "e": e, "alg": "RS256"})).unwrap();
    let mut signed = vec![0; public.n.len()];
    pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signed).unwrap();
    assert_eq!(rsa.verify("RS256", message, &signed), Ok(()));
    assert_eq!(rsa.verify("RS512", message, &signed), Err(signature::SignatureError::Algorithm), "its alg");
    let any = read(json!({"kty": "RSA", "n": n, "e": e})).unwrap();
    for (algorithm, error) in [
        ("PS256", signature::SignatureError::Wrong),
        ("HS256", signature::SignatureError::Algorithm),
        ("none", signature::SignatureError::Algorithm),
    ] {
        assert_eq!(any.verify(algorithm, message, &signed), Err(error));
    }
    for unfit in [
        json!({"kty": "oct", "k": "c2VjcmV0"}),
        json!({"kty": "RSA", "n": n, "e": e, "use": "enc"}),
        json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}),
        json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}),
    ] {
        assert!(read(unfit.clone()).is_none(), "{unfit}");
    }
}
