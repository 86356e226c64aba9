//! Secrets are planted in every setting, file and variable that can hold one: none of them stands in what
//! `hearth config print` prints, nor in what a start says that something is wrong with.

mod test_services;

use std::path::Path;
use std::process::Command;

use ring::digest::{SHA256, digest};
use test_services::command_line::without_environment;
use test_services::plain_s3::PlainS3;

/// What every planted secret begins with, so that none is overlooked.
const PLANTED: &str = "planted-";

/// The token of whoever may do everything.
const ROOT: &str = "planted-token-of-root";

/// bcrypt of `open sesame` with cost 4.
const HASH: &str = "$2b$04$XkaT3QbrE9Dj1fN5pFQj7.Ql86aHmUcRLWLRlOeEVa0FsFLGA5i2q";

fn sha256(token: &str) -> String {
    digest(&SHA256, token.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file can be written");
    path.display().to_string()
}

/// Says where secrets stand in a text, if any do.
fn planted_in(what: &str, text: &str) -> Option<String> {
    let hash = sha256(ROOT);
    let words = [PLANTED, HASH, &hash];
    let mut found: Vec<String> = Vec::new();
    // A log repeats itself: a line for each secret is enough.
    let mut seen = std::collections::BTreeSet::new();
    for (at, word) in words.iter().flat_map(|word| text.match_indices(word)) {
        let secret: String =
            text[at..].chars().take_while(|c| !c.is_whitespace() && *c != '"').take(40).collect();
        if seen.insert((word, secret)) {
            let from = text.floor_char_boundary(at.saturating_sub(200));
            found.push(text[from..text.floor_char_boundary(at + 200)].to_owned());
        }
    }
    (!found.is_empty()).then(|| format!("{what}: …{}…", found.join("… and …")))
}

/// Settings of a server with a secret in each that can hold one.
fn config(folder: &Path, s3: &PlainS3) -> String {
    write(folder, "key", "key-id");
    write(folder, "secret", "planted-s3-secret");
    write(folder, "session", "planted-s3-session");
    write(folder, "share", "planted-share-token");
    write(folder, "web.yml", &format!("basic_auth_users: {{ann: {HASH}}}\n"));
    let grant = format!(
        "{{name: root, sha256: {}, tenants: ['*'], rights: [read, write, admin, metrics]}}",
        sha256(ROOT)
    );
    write(
        folder,
        "auth.yml",
        &format!("tokens:\n  - {grant}\nusers:\n  - {{name: ann, tenants: ['*'], rights: [read]}}\n"),
    );
    write(folder, "am-token", "planted-alertmanager-file");
    let sets = "
    - {basic_auth: {username: u, password: planted-alertmanager-password}, static_configs: [{targets: ['127.0.0.1:1']}]}
    - {authorization: {credentials: planted-alertmanager-inline}, static_configs: [{targets: ['127.0.0.1:2']}]}
    - {authorization: {credentials_file: am-token}, static_configs: [{targets: ['127.0.0.1:3']}]}
";
    write(folder, "alerting.yml", &format!("alerting:\n  alertmanagers:{sets}"));
    write(folder, "rules.yml", "groups: [{name: g, rules: [{alert: Always, expr: vector(1)}]}]\n");
    format!(
        "objstore: s3://bucket/prefix
s3: {{endpoint: 'http://u:planted-endpoint@127.0.0.1:{}', region: r, allow_http: true, access_key_file: key, secret_key_file: secret, session_token_file: session}}
log: {{level: trace}}
admin_api: true
http: {{enable_lifecycle: true, external_url: 'http://u:planted-external@localhost/'}}
web: {{config_file: web.yml}}
auth: {{file: auth.yml, audit_file: audit.jsonl}}
traces: {{endpoint: 'http://u:planted-traces@127.0.0.1:4/x?token=planted-traces-parameter'}}
members: {{advertise_address: 'http://u:planted-advertised@127.0.0.1:5', addresses: ['x=http://u:planted-member@127.0.0.1:6']}}
rules: {{files: rules.yml, evaluation_interval: 1s, alert_resend_delay: 1s, alerting_file: alerting.yml, share: true, share_url: 'http://u:planted-shared@127.0.0.1:7', share_token_file: share}}
self_metrics_interval: 1s
",
        s3.port()
    )
}

/// What `hearth` with these arguments prints until it ends, or for some seconds.
fn printed(folder: &Path, config: &str, args: &[&str], env: &[(&str, &str)]) -> String {
    let mut command = Command::new("timeout");
    without_environment(&mut command);
    command.args(["4", env!("CARGO_BIN_EXE_hearth")]);
    let file = write(folder, "hearth.yaml", config);
    let output = command
        .args(args)
        .args([
            "--config",
            &file,
            "--listen",
            "127.0.0.1:0",
            "--log-level",
            "trace",
            "--objstore-retry",
            "1s",
        ])
        .envs(env.iter().copied())
        .current_dir(folder)
        .output();
    let output = output.expect("the binary runs");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn secrets_show_not_in_what_is_printed_and_not_in_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let s3 = PlainS3::honest();
    let good = config(folder, &s3);
    let mut found = Vec::new();
    let text = printed(folder, &good, &["config", "print"], &[]);
    assert!(text.contains("endpoint") && text.contains("***"), "{text}");
    found.extend(planted_in("config print", &text));
    let locked = format!("{good}catalog: {{lock: 'etcd://u:planted-lock@127.0.0.1:8/x'}}\n");
    found.extend(planted_in("config print", &printed(folder, &locked, &["config", "print"], &[])));
    found.extend(planted_in("a start that cannot take a lock", &printed(folder, &locked, &[], &[])));

    write(folder, "bad-web.yml", "basic_auth_users: {ann: planted-no-hash}\n");
    write(folder, "bad-web2.yml", "basic_auth_users: [planted-list, 'planted-\n");
    write(
        folder,
        "bad-auth.yml",
        "tokens: [{name: x, sha256: planted-no-sum, tenants: [a], rights: [read]}]\n",
    );
    write(
        folder,
        "bad-auth2.yml",
        "tokens: [{name: x, token: planted-plain, tenants: [a], rights: [read]}]\n",
    );
    write(folder, "bad-auth3.yml", "tokens:\n  - planted-text\n  planted-more: [\n");
    write(folder, "bad-gcs", "{\"private_key\": \"planted-private\", \"client_email\": 7}");
    write(folder, "bad-gcs2", "planted-no-json");
    write(folder, "bad-azure", "planted-no-base64!");
    write(folder, "bad-lock", "planted-no-colon");
    write(
        folder,
        "bad-am.yml",
        "alerting: {alertmanagers: [{basic_auth: {username: u, password: planted-x, passwort: planted-y}}]}\n",
    );
    write(
        folder,
        "bad-am2.yml",
        "alerting: {alertmanagers: [{authorization: {type: Basic, credentials: planted-z}, api_version: planted-v}]}\n",
    );
    for wrong in [
        "objstore: s3://u:planted-user@bucket/x",
        "objstore: 's5://u:planted-scheme@bucket'",
        "s3: {endpoint: 'ftp://u:planted-ftp@x'}\nobjstore: s3://b",
        "s3: {endpoint: 'http://u:planted-http@x'}\nobjstore: s3://b",
        "s3: {endpoint: 'u:planted-word@x'}\nobjstore: s3://b",
        "s3: {secret_key: planted-inline}",
        "s3: planted-section",
        "members: {token: planted-token}",
        "traces: {endpoint: 'u:planted-traces@x'}",
        "rules: {alertmanagers: ['htp://u:planted-am@x']}",
        "rules: {alertmanagers: ['http://u:planted-am@x:port']}",
        "rules: {alerting_file: bad-am.yml}",
        "rules: {alerting_file: bad-am2.yml}",
        "web: {config_file: bad-web.yml}",
        "web: {config_file: bad-web2.yml}",
        "auth: {file: bad-auth.yml}",
        "auth: {file: bad-auth2.yml}",
        "auth: {file: bad-auth3.yml}",
        "objstore: gs://b\ngcs: {credentials_file: bad-gcs}",
        "objstore: gs://b\ngcs: {credentials_file: bad-gcs2}",
        "objstore: az://b\nazure: {account: a, account_key_file: bad-azure}",
        "objstore: az://b\nazure: {account: a, sas_token_file: bad-azure, endpoint: 'http://u:planted-az@127.0.0.1:9', allow_http: true}",
        "catalog: {lock: 'zookeeper://u:planted-zk@127.0.0.1:9/x', lock_credentials_file: bad-lock}",
        "catalog: {lock: 'etcd://127.0.0.1:9/x', lock_credentials_file: bad-lock}",
        "members: {addresses: ['x:http://u:planted-no-url@h']}\nrole: query",
        "listen: 'u:planted-listen@x'",
    ] {
        let text = printed(folder, wrong, &[], &[]);
        assert!(text.contains("error") || text.contains("WARN") || text.contains("INFO"), "{wrong}: {text}");
        found.extend(planted_in(wrong, &text));
    }
    for (args, env) in [
        (vec!["--s3-secret-key", "planted-flag"], vec![]),
        (vec!["--s3-secret-key=planted-flag"], vec![]),
        (vec!["--auth-file=planted-x", "--nonsense"], vec![]),
        (vec!["--s3-endpoint=http://u:planted-flag@x", "--nonsense"], vec![]),
        (vec!["--nonsense"], vec![("HEARTH_S3_SECRET_KEY", "planted-variable")]),
        (vec!["--nonsense"], vec![("HEARTH_S3_ENDPOINT", "http://u:planted-variable@x")]),
        (vec!["--nonsense"], vec![("HEARTH_TRACES_ENDPOINT", "http://x?token=planted-variable")]),
        (vec![], vec![("HEARTH_MAX_POINTS", "planted-value"), ("HEARTH_QUERY_TIMEOUT", "planted-value")]),
    ] {
        let text = printed(folder, "", &args, &env);
        // What is no secret's place may be told back.
        let text = text.replace("planted-value", "").replace("planted-x", "");
        found.extend(planted_in(&format!("{args:?} {env:?}"), &text));
    }
    assert!(found.is_empty(), "{}", found.join("\n---\n"));
}
