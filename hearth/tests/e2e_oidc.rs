//! JWTs of a real OpenID provider: its discovery and keys, keys that it rotates, and tokens that are not
//! right.

mod test_services;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use test_services::remote_write::{snappy, write_request};
use test_services::{Api, Process, Start, free_port, installed, now_ms, series, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// What tokens for this server are for.
const AUDIENCE: &str = "https://hearth.example";

/// A provider that was started.
struct Provider {
    api: Api,
    port: u16,
    _process: Process,
}

impl Provider {
    fn start(folder: &Path, port: u16, seconds: u32, keys: &[&str]) -> Provider {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let modules: PathBuf = own.join("../target/test-services/oidc");
        assert!(
            modules.join("node_modules/oidc-provider").is_dir(),
            "`.ci/test-services` installs the provider"
        );
        let mut command = Command::new(installed("node", "nodejs"));
        command.arg(own.join("tests/oidc/provider.mjs")).arg(modules);
        command.args([port.to_string(), seconds.to_string()]).arg(folder).args(keys);
        let process = Process::spawn("the OpenID provider", &mut command, &folder.join("provider.log"));
        let api = Api::with_fresh_connections(port);
        wait_for("the provider to answer", PATIENCE, || {
            api.try_get("/.well-known/openid-configuration", &[]).ok().filter(|a| a.status == 200)
        });
        Provider { api, port, _process: process }
    }

    fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A token for a resource, as a client gets it.
    fn token(&self, resource: &str, scope: &str) -> String {
        let login = format!("Basic {}", STANDARD.encode("hearth-test:secret-of-the-client"));
        let headers =
            [("Authorization", login.as_str()), ("Content-Type", "application/x-www-form-urlencoded")];
        let form = format!("grant_type=client_credentials&resource={resource}&scope={scope}");
        let answer = self.api.post("/token", &headers, form.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["access_token"].as_str().expect("a token").to_owned()
    }
}

fn status(hearth: &Api, token: &str) -> (u16, String) {
    let bearer = format!("Bearer {token}");
    let answer = hearth.get_with("/api/v1/query?query=up", &[("Authorization", &bearer)]);
    (answer.status, answer.text())
}

/// A token's part as JSON.
fn part(token: &str, n: usize) -> Value {
    let text = token.split('.').nth(n).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).expect("base64")).expect("JSON")
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// With a shared secret, of which the issuer has none.
fn signed_by_secret(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let signed = format!("{}.{}", encoded(header), encoded(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes())))
}

#[test]
fn tokens_of_a_real_provider_are_taken_and_wrong_ones_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = Provider::start(folder.path(), free_port(), 600, &["one"]);
    let another = Provider::start(folder.path(), free_port(), 600, &["one"]);
    let brief = Provider::start(folder.path(), free_port(), 1, &["one"]);
    let issuer = |of: &Provider| {
        format!(
            "  - {{issuer: '{}', audiences: ['{AUDIENCE}'], tenants_claim: tenants, rights_claim: scope, name_claim: client_id, allow_http: true, leeway: 0s}}\n",
            of.issuer()
        )
    };
    let grants = format!("issuers:\n{}{}", issuer(&provider), issuer(&brief));
    std::fs::write(folder.path().join("auth.yml"), grants).expect("a file");
    let hearth =
        Start::at(folder.path()).config("auth: {file: auth.yml}\nself_metrics_interval: 0\n").ready();

    let good = provider.token(AUDIENCE, "hearth:read%20hearth:write");
    let bearer = format!("Bearer {good}");
    let body = snappy(&write_request(&[series(&[("__name__", "up")], &[(now_ms(), 1.0)])]));
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Encoding", "snappy"),
        ("Content-Type", "application/x-protobuf"),
    ];
    let written = hearth.api.post("/api/v1/write", &headers, &body);
    assert_eq!(written.status, 204, "{}", written.text());
    assert!(status(&hearth.api, &good).1.contains("\"1\"]"), "its tenant has what it wrote");
    let foreign = hearth
        .api
        .get_with("/api/v1/query?query=up", &[("Authorization", &bearer), ("X-Scope-OrgID", "default")]);
    assert_eq!(foreign.status, 403, "{}", foreign.text());
    let only_reads = format!("Bearer {}", provider.token(AUDIENCE, "hearth:read"));
    let headers = [("Authorization", only_reads.as_str()), headers[1], headers[2]];
    assert_eq!(hearth.api.post("/api/v1/write", &headers, &body).status, 403);

    let (header, claims) = (part(&good, 0), part(&good, 1));
    let signature = good.rsplit('.').next().expect("a signature");
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims.clone();
        change(&mut claims);
        claims
    };
    let keys = provider.api.get("/jwks", &[]).text();
    let public: Value = serde_json::from_str(&keys).expect("JSON");
    let modulus = public["keys"][0]["n"].as_str().expect("a modulus");
    let with = |header: Value, claims: &Value, signature: &str| {
        format!("{}.{}.{signature}", encoded(&header), encoded(claims))
    };
    let alg = |name: &str| json!({"alg": name, "kid": header["kid"], "typ": "at+jwt"});
    let every = changed(&|c| c["tenants"] = json!(["*"]));
    let expired = brief.token(AUDIENCE, "hearth:read");
    std::thread::sleep(Duration::from_millis(2_100));
    for (what, token) in [
        ("of another audience", provider.token("https://other.example", "hearth:read")),
        ("of another issuer", another.token(AUDIENCE, "hearth:read")),
        ("that has expired", expired),
        ("whose tenants were changed", with(header.clone(), &every, signature)),
        (
            "that lives longer than it should",
            with(header.clone(), &changed(&|c| c["exp"] = json!(now_ms() / 1000 + 9_000)), signature),
        ),
        ("without a signature", with(header.clone(), &claims, "")),
        ("of no algorithm", with(alg("none"), &every, "")),
        ("of no algorithm, otherwise spelled", with(alg("nOnE"), &every, "")),
        ("of no algorithm with a signature", with(alg("none"), &every, signature)),
        (
            "signed with the public key as a secret",
            signed_by_secret(&alg("HS256"), &every, modulus.as_bytes()),
        ),
        (
            "signed with the modulus as a secret",
            signed_by_secret(&alg("HS256"), &every, &URL_SAFE_NO_PAD.decode(modulus).expect("base64")),
        ),
        ("signed with the key set as a secret", signed_by_secret(&alg("HS256"), &every, keys.as_bytes())),
        ("of another algorithm", with(alg("RS512"), &claims, signature)),
        ("of a key that nobody knows", with(json!({"alg": "RS256", "kid": "two"}), &claims, signature)),
        (
            "that brings its key",
            with(json!({"alg": "RS256", "kid": "x", "jwk": public["keys"][0]}), &claims, signature),
        ),
        (
            "that says where its key is",
            with(
                json!({"alg": "RS256", "kid": "x", "jku": format!("{}/jwks", another.issuer())}),
                &claims,
                signature,
            ),
        ),
        ("in four parts", format!("{good}.x")),
        ("that is empty", "..".into()),
    ] {
        let (status, told) = status(&hearth.api, &token);
        assert_eq!(status, 401, "{what}: {told}");
        assert!(told.len() < 300 && !told.contains("team-of-tokens"), "{what}: {told}");
    }
    assert_eq!(status(&hearth.api, &good).0, 200);
    // The provider signs with another key now, and still has the one before.
    let port = provider.port;
    drop(provider);
    assert_eq!(status(&hearth.api, &good).0, 200, "its keys are known while it is away");
    let provider = Provider::start(folder.path(), port, 600, &["two", "one"]);
    let next = provider.token(AUDIENCE, "hearth:read");
    assert_eq!(part(&next, 0)["kid"], "two");
    // Not sooner than ten seconds after the last look for a key that nobody knew.
    wait_for("a token of the new key to be taken", PATIENCE, || {
        (status(&hearth.api, &next).0 == 200).then_some(())
    });
    assert_eq!(status(&hearth.api, &good).0, 200);
}
