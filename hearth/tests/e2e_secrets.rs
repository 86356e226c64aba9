//! Secrets are planted in every setting, file, variable and header that can hold one: none of them stands in
//! a log, a metric, an error, a page of the API, a profile or `hearth config print`.

mod test_services;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use test_services::command_line::without_environment;
use test_services::plain_s3::PlainS3;
use test_services::remote_write::{snappy, write_request};
use test_services::{Start, now_ms, series, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

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

/// The paths of the API's description that GET asks for.
fn paths() -> Vec<String> {
    let text = include_str!("../../query/src/api/endpoints/openapi.yaml");
    let mut all = Vec::new();
    let mut path = "";
    for line in text.lines().take_while(|line| *line != "components:") {
        if let Some(named) = line.strip_prefix("  /").and_then(|l| l.strip_suffix(':')) {
            path = named;
        }
        if line == "    get:" && !path.ends_with("/live") {
            all.push(format!("/{path}"));
        }
    }
    let more =
        ["/", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/pprof/profile?seconds=1"];
    all.extend(more.map(str::to_owned));
    assert!(all.len() > 50, "{all:?}");
    all
}

#[test]
fn secrets_show_nowhere_in_a_server_that_works() {
    let folder = tempfile::tempdir().expect("a folder");
    let s3 = PlainS3::honest();
    let text = config(folder.path(), &s3);
    let mut start = Start::at(folder.path()).config(&text);
    for name in ["AZURE_STORAGE_ACCOUNT_KEY", "GOOGLE_SERVICE_ACCOUNT_KEY", "ETCD_PASSWORD"] {
        start.env.push((name.into(), format!("planted-variable-{name}")));
    }
    start = start.flags(&["--traces-one-of", "1"]);
    let hearth = start.ready();
    let bearer = format!("Bearer {ROOT}");
    let root = ("Authorization", bearer.as_str());
    let mut found = Vec::new();
    let mut look = |what: &str, text: &str| found.extend(planted_in(what, text));

    let body = snappy(&write_request(&[series(&[("__name__", "x")], &[(now_ms(), 1.0)])]));
    let headers = [root, ("Content-Encoding", "snappy"), ("Content-Type", "application/x-protobuf")];
    assert_eq!(hearth.api.post("/api/v1/write", &headers, &body).status, 204);
    assert_eq!(hearth.api.post("/-/flush", &[root], b"").status, 200);
    // What is shown and is wrong, and what clients put into URLs although they should not.
    for (name, value) in [
        ("Authorization", "Bearer planted-wrong-token"),
        ("Authorization", "Bearer cGxhbnRlZC0.cGxhbnRlZC0.planted-signature"),
        ("Authorization", "Basic YW5uOnBsYW50ZWQtdHlwZWQ="),
        ("Authorization", "Basic planted-no-base64"),
        ("Authorization", "planted-scheme planted-value"),
        ("Cookie", "planted-cookie=planted"),
    ] {
        for path in ["/api/v1/query?query=x", "/metrics", "/-/flush"] {
            let answer = hearth.api.get_with(path, &[(name, value)]);
            assert_eq!(answer.status, 401, "{value}: {}", answer.text());
            look(&format!("the refusal of {value}"), &answer.text());
        }
    }
    let admin = "/api/v1/admin/tsdb/delete_series?match[]=y&token=planted-parameter&password=planted-too";
    assert_eq!(hearth.api.post(admin, &[root], b"").status, 204);
    wait_for("an Alertmanager that is away to be told of", PATIENCE, || {
        hearth.output().contains("127.0.0.1:2").then_some(())
    });
    // Read again, with something else in it.
    let reloaded =
        text.replace("planted-endpoint", "planted-endpoint-again").replace("level: trace", "level: debug");
    std::fs::write(folder.path().join("hearth.yaml"), reloaded).expect("a file");
    look("the answer of a reload", &hearth.api.post("/-/reload", &[root], b"").text());
    write(folder.path(), "web.yml", "basic_auth_users: {ann: planted-no-hash}\n");
    write(
        folder.path(),
        "auth.yml",
        "tokens: [{name: x, sha256: planted-no-sum, tenants: [a], rights: [read]}]\n",
    );
    wait_for("files that are wrong now to be told of", PATIENCE, || {
        (hearth.output().matches("cannot be used").count() >= 2).then_some(())
    });
    for path in paths() {
        let path = path.replace("{name}", "x").replace("{namespace}", "x").replace("{group}", "x");
        look(&path, &hearth.api.get_with(&path, &[root]).text());
    }
    look("the log", &hearth.output());
    look("the audit log", &std::fs::read_to_string(folder.path().join("audit.jsonl")).expect("a log"));
    let status = hearth.api.get_with("/api/v1/status/config", &[root]).text();
    assert!(status.contains("traces") && status.contains("***"), "{status}");
    assert!(found.is_empty(), "{}", found.join("\n"));
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
